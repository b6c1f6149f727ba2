"""A function of one's own as an augmentation: what it gets, what becomes of what it gives, and what can't be meant."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import saved
from headrace import order
from headrace.errors import UsageError
from headrace.imaging.augment import check_augment
from headrace.imaging.called import Called
from packed import Keep, Source, faces, flip, pack, photos, shard_of
from scene import SIZE, assert_told, scene

N = 30


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Photos with 0 to 3 boxes each, "left" and "right"."""
    return pack(photos(N, boxes=True), tmp_path_factory.mktemp("boxed") / "ds")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Scenes with a box and three points, of which one is absent."""
    rng, records = np.random.default_rng(5), []
    for k in range(N):
        pixels, boxes, points = scene(rng)
        encoded = saved(pixels, "PNG")
        records.append(hr.Record(id=f"{k:02d}", encoded=encoded, boxes=boxes, box_labels=("red",), keypoints=points))
    return pack(Source(records, names=("a", "b", "c"), pairs=()), tmp_path_factory.mktemp("scenes") / "ds")


def noisy(pixels: Any, boxes: Any, points: Any, rng: np.random.Generator) -> Any:
    """Changes colours, by as many numbers as it likes."""
    return (pixels + rng.integers(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8), boxes, points


def rolled(pixels: Any, boxes: Any, points: Any, rng: np.random.Generator) -> Any:
    """Shifts by up to half of the image, as a user writes it: nothing is cut, absent points are moved as well."""
    height, width = pixels.shape[:2]
    x, y = rng.integers(-width // 2, width // 2), rng.integers(-height // 2, height // 2)
    out = np.zeros_like(pixels)
    out[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)] = pixels[
        max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)
    ]
    return out, boxes + np.array([x, y, x, y]), points + np.array([x, y, 0])


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return all(np.array_equal(one[name], two[name]) for name in one)
    return bool(np.array_equal(one, two))


def batches(loader: hr.Loader) -> list[Any]:
    return [(batch.images.copy(), batch.targets, batch.ids) for batch in loader]


# --- what it gets --------------------------------------------------------------------------------------------------


def test_it_gets_the_image_as_the_model_would(boxed: hr.Dataset) -> None:
    got: list[Any] = []

    def seen(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        got.append((pixels.copy(), boxes, points, rng))
        return pixels, boxes, points

    options: dict[str, Any] = {"size": (32, 40), "batch_size": N, "shuffle": False, "target": hr.Boxes(5)}
    loader = boxed.loader(**options, augment=(hr.RandomResizedCrop(), hr.HorizontalFlip(), seen), workers=1)
    plain = boxed.loader(**options, augment=(hr.RandomResizedCrop(), hr.HorizontalFlip()))[0]
    batch = loader[0]
    assert len(got) == N and same(batch.targets, plain.targets) and same(batch.images, plain.images)
    for (pixels, boxes, points, rng), image, wanted, mask in zip(
        got, plain.images, plain.targets["boxes"], plain.targets["mask"], strict=True
    ):
        assert pixels.dtype == np.uint8 and (pixels == image).all()
        assert boxes.dtype == points.dtype == np.float32 and points.shape == (mask.sum(), 0, 3)
        assert sorted(boxes.tolist()) == sorted(wanted[mask].tolist())
        assert isinstance(rng, np.random.Generator) and isinstance(rng.bit_generator, np.random.Philox)


def test_without_boxes_it_gets_none(boxed: hr.Dataset) -> None:
    def seen(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        assert boxes.shape == (0, 4) and points.shape == (0, 0, 3)
        return pixels, boxes, points

    assert len(boxed.loader(size=16, augment=seen, target=hr.Class())[0].targets) == N


def test_numbers_are_of_seed_epoch_record_and_place_alone(boxed: hr.Dataset) -> None:
    keys = boxed.store.keys
    wanted = {
        id_: int(order.generator(int(key), 1, seed=4, epoch=0).integers(1 << 60))
        for id_, key in zip(boxed.store.ids_of(boxed.rows), keys[boxed.rows], strict=True)
    }
    assert len(set(wanted.values())) == N

    def numbers(**options: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        epoch = options.pop("epoch", 0)
        loader = boxed.loader(**{"size": 16, "seed": 4, "augment": (hr.HorizontalFlip(), writer)} | options)
        loader.epoch = epoch
        for batch in loader:
            for id_, image in zip(batch.ids, batch.images, strict=True):
                found[id_] = int.from_bytes(image[0, :3].tobytes()[:8], "little")
        return found

    def writer(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        pixels[0, :3] = np.frombuffer(int(rng.integers(1 << 60)).to_bytes(8, "little") + b"\0", np.uint8).reshape(3, 3)
        return pixels, boxes, points

    for options in ({}, {"workers": 8, "batch_size": 4}, {"shuffle": False}, {"workers": 2, "size": (16, 20)}):
        assert numbers(**options) == wanted
    part = numbers(world=(1, 3), batch_size=9, drop_last=True)
    assert part and all(wanted[id_] == number for id_, number in part.items())
    assert all(number != wanted[id_] for id_, number in numbers(seed=5).items())
    later = numbers(epoch=3)
    for id_, key in zip(boxed.store.ids_of(boxed.rows), keys[boxed.rows], strict=True):
        assert later[id_] == int(order.generator(int(key), 1, seed=4, epoch=3).integers(1 << 60)) != wanted[id_]
    second = numbers(augment=(hr.HorizontalFlip(), hr.ColorJitter(), writer))
    assert all(number != wanted[id_] for id_, number in second.items())


def test_its_bits_are_frozen() -> None:
    assert order.bits(5, 1, seed=0, epoch=0).random_raw(2).tolist() == [12101524741420940441, 6954106752835855597]
    assert order.bits(2**64 - 1, -1, seed=-3, epoch=9).random_raw(1).tolist() == [FROZEN]


FROZEN = 18391065848277166786


@pytest.mark.parametrize("change", [noisy, rolled])
def test_the_same_pixels_for_any_number_of_workers(boxed: hr.Dataset, change: Any) -> None:
    options: dict[str, Any] = {
        "size": 48,
        "batch_size": 16,
        "target": hr.Boxes(4),
        "augment": (hr.HorizontalFlip(), change),
    }
    one = boxed.loader(**options, workers=1)
    for workers in (2, 8):
        other = boxed.loader(**options, workers=workers)
        for epoch in (0, 3):
            one.epoch = other.epoch = epoch
            for a, b in zip(batches(one), batches(other), strict=True):
                assert same(a[0], b[0]) and same(a[1], b[1]) and a[2] == b[2]


def test_resumed_at_every_batch(boxed: hr.Dataset) -> None:
    options: dict[str, Any] = {"size": 32, "batch_size": 7, "target": hr.Boxes(4), "augment": (rolled, noisy)}
    whole = batches(boxed.loader(**options))
    run = iter(boxed.loader(**options))
    for i in range(1, len(whole)):
        next(run)
        rest = boxed.loader(**options)
        rest.load_state_dict(run.state_dict())
        again = batches(rest)
        assert len(again) == len(whole) - i
        assert all(same(a[0], b[0]) and same(a[1], b[1]) for a, b in zip(again, whole[i:], strict=True))


def test_of_a_batch_alone_and_pickled(boxed: hr.Dataset) -> None:
    loader = boxed.loader(size=32, batch_size=7, target=hr.Boxes(4), augment=rolled)
    assert loader.options.augment == (Called(rolled),)
    for again in (loader, pickle.loads(pickle.dumps(loader))):
        assert all(same(again[i].images, batch.images) for i, batch in enumerate(boxed.loader(**_options(loader))))


def _options(loader: hr.Loader) -> dict[str, Any]:
    names = ("size", "batch_size", "target", "augment")
    return {name: getattr(loader.options, name) for name in names}


def test_the_cache_holds_what_comes_before(boxed: hr.Dataset) -> None:
    options: dict[str, Any] = {"size": 32, "batch_size": 7, "target": hr.Boxes(4), "augment": (rolled, noisy)}
    plain, cached = boxed.loader(**options), boxed.loader(**options, cache="memory")
    for _ in range(3):
        assert all(same(a[0], b[0]) for a, b in zip(batches(plain), batches(cached), strict=True))


# --- what becomes of what it gives ---------------------------------------------------------------------------------


def test_pixels_boxes_and_points_stay_together(scenes: hr.Dataset) -> None:
    loader = scenes.loader(size=SIZE, batch_size=N, target=Keep(), augment=rolled, min_visible=0.4)
    told = 0
    for epoch in range(4):
        loader.epoch = epoch
        batch = loader[0]
        labels = batch.targets
        for i, image in enumerate(batch.images):
            there = labels.box_image == i
            assert (labels.box_labels[there] == 0).all() and len(labels.boxes[there]) <= 1
            assert not labels.keypoints[there][:, 2].any()  # it is absent, wherever it was moved
            told += assert_told(image, labels.boxes[there], labels.keypoints[there])
            if not there.any():
                assert (image[..., 0] > 100).sum() < 0.5 * 48 * 64  # less than four tenths of any box
    assert 60 < told < 4 * N


def test_boxes_are_cut_and_dropped_by_min_visible(boxed: hr.Dataset) -> None:
    """A shift by half a box leaves half of it; what its label was goes along."""

    def shift(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        return pixels, boxes - [boxes[:1, 2].max(initial=0) / 2, 0] * 2, points

    plain = boxed.loader(size=64, batch_size=N, shuffle=False, target=Keep())[0].targets
    for least in (0.0, 0.3, 1.0):
        found = boxed.loader(size=64, batch_size=N, shuffle=False, target=Keep(), augment=shift, min_visible=least)[0]
        labels = found.targets
        for i in range(N):
            before, names = plain.boxes[plain.box_image == i], plain.box_labels[plain.box_image == i]
            wide = before - [before[:1, 2].max(initial=0) / 2, 0] * 2
            cut = np.clip(wide, 0, 64)
            share = (cut[:, 2] - cut[:, 0]) / np.maximum(wide[:, 2] - wide[:, 0], 1e-9)
            kept = (share > 0) & (share >= least)
            mine = labels.box_image == i
            assert np.allclose(labels.boxes[mine], cut[kept], atol=1e-4)
            assert labels.box_labels[mine].tolist() == names[kept].tolist()


def test_an_object_may_be_given_up(boxed: hr.Dataset) -> None:
    def drop(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        boxes[::2] = 0
        return pixels, boxes, points

    plain = boxed.loader(size=64, batch_size=N, shuffle=False, target=Keep())[0].targets
    found = boxed.loader(size=64, batch_size=N, shuffle=False, target=Keep(), augment=drop)[0].targets
    for i in range(N):
        assert found.boxes[found.box_image == i].tolist() == plain.boxes[plain.box_image == i][1::2].tolist()
        assert found.box_labels[found.box_image == i].tolist() == plain.box_labels[plain.box_image == i][1::2].tolist()


def test_of_points_alone_the_box_is_around_them(tmp_path: Path) -> None:
    ds = pack(Source(faces(boxes=False)), tmp_path / "ds")

    def shift(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        return pixels, boxes, points + np.array([10, 0, 0])  # the boxes are not said anew, and need not be

    labels = ds.loader(size=40, batch_size=12, shuffle=False, target=Keep(), augment=shift)[0].targets
    seen = labels.keypoints[..., 2] > 0
    assert len(labels.boxes) and seen.any(axis=1).all()
    for box, points, there in zip(labels.boxes, labels.keypoints, seen, strict=True):
        around = [*points[there, :2].min(axis=0), *points[there, :2].max(axis=0)]
        assert box.tolist() == pytest.approx(around)
    assert not labels.keypoints[~seen].any() and labels.keypoints[..., 0].max() <= 40


def test_labels_show_and_lost_know_of_it(boxed: hr.Dataset) -> None:
    loader = boxed.loader(size=48, batch_size=10, target=hr.Boxes(4), augment=rolled)
    for i in range(len(loader)):
        labels, batch = loader.labels(i), loader[i]
        assert same(loader.options.target.encode(labels), batch.targets)  # type: ignore[union-attr]
    assert loader.show(0).size[0] > 100 and loader.lost() == 0


def test_damaged_records_are_left_out_all_the_same(tmp_path: Path) -> None:
    ds = pack(photos(12, boxes=True), tmp_path / "ds")
    path, _, offset, length = shard_of(ds, 4)
    flip(path, offset + length // 2)
    loader = hr.Dataset(tmp_path / "ds").loader(
        size=32, batch_size=12, shuffle=False, target=hr.Boxes(4), augment=rolled, on_bad="skip"
    )
    whole = pack(photos(12, boxes=True), tmp_path / "sound").loader(
        size=32, batch_size=12, shuffle=False, target=hr.Boxes(4), augment=rolled
    )
    batch, sound = loader[0], whole[0]
    kept = [k for k, id_ in enumerate(sound.ids) if id_ in batch.ids]
    assert len(kept) == 11 and same(batch.images, sound.images[kept])
    assert all(np.array_equal(batch.targets[name], sound.targets[name][kept]) for name in batch.targets)
    assert len(loader.labels(0).classes) == 12


# --- what can't be meant -------------------------------------------------------------------------------------------


def but(**given: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """A transform that gives back what it got, but for what is given here."""

    def transform(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        found = {"pixels": pixels, "boxes": boxes, "points": points}
        return tuple(given[name](pixels, boxes, points) if name in given else found[name] for name in found)

    return transform


def fails(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
    raise KeyError("no such\n  colour")


# (the transform, what is said of it)
BAD: list[tuple[Any, str]] = [
    (lambda p, b, q, r: p, "gave back a ndarray, wanted (pixels, boxes, points)"),
    (lambda p, b, q, r: None, "gave back a NoneType, wanted (pixels"),
    (lambda p, b, q, r: (p, b), "gave back 2 values, wanted (pixels"),
    (lambda p, b, q, r: {"image": p}, "gave back a dict, wanted"),
    # pixels
    (
        but(pixels=lambda p, b, q: p[:-1]),
        "gave back pixels uint8 [95, 128, 3], wanted uint8 [96, 128, 3]; the loader's",
    ),
    (but(pixels=lambda p, b, q: p / 255), "gave back pixels float64 [96, 128, 3], wanted uint8"),
    (but(pixels=lambda p, b, q: p[..., 0]), "gave back pixels uint8 [96, 128], wanted"),
    (but(pixels=lambda p, b, q: p.transpose(2, 0, 1)), "gave back pixels uint8 [3, 96, 128], wanted"),
    (but(pixels=lambda p, b, q: p.tolist()), "gave back pixels a list, wanted"),
    # boxes
    (but(boxes=lambda p, b, q: b[:0]), "gave back boxes of shape [0, 4], wanted [1, 4], one for each that it got, as"),
    (but(boxes=lambda p, b, q: np.concatenate([b, b])), "gave back boxes of shape [2, 4], wanted [1, 4]"),
    (but(boxes=lambda p, b, q: b.ravel()), "gave back boxes of shape [4], wanted [1, 4]"),
    (but(boxes=lambda p, b, q: b * np.nan), "gave back boxes with NaN or infinity"),
    (but(boxes=lambda p, b, q: b * 1e39), "gave back boxes with NaN or infinity"),
    (but(boxes=lambda p, b, q: b[:, [2, 1, 0, 3]]), "wanted x0, y0, x1, y1, the corners in their order"),
    (but(boxes=lambda p, b, q: b + 1000), "far outside of the image of 128 x 96 pixels; give one that is gone no area"),
    (but(boxes=lambda p, b, q: b - [500, 0, 500, 0]), "far outside of the image"),
    (but(boxes=lambda p, b, q: [["a"] * 4]), "gave back boxes that are no numbers"),
    (but(boxes=lambda p, b, q: None), "gave back boxes"),
    # points
    (but(points=lambda p, b, q: q[:, :2]), "gave back points of shape [1, 2, 3], wanted [1, 3, 3]"),
    (but(points=lambda p, b, q: q[..., :2]), "gave back points of shape [1, 3, 2], wanted [1, 3, 3]"),
    (but(points=lambda p, b, q: q * np.inf), "gave back points with NaN or infinity"),
    (but(points=lambda p, b, q: q * 0.5), "gave back points whose v is not 0 (absent), 1 (hidden) or 2 (visible)"),
    # itself
    (fails, "KeyError: 'no such\\n colour'"),
]


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize(("change", "says"), BAD)
@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_what_can_not_be_meant(scenes: hr.Dataset, change: Any, says: str, on_bad: Any) -> None:
    """It names transform, record and epoch, and is not taken for a damaged record."""
    loader = scenes.loader(
        size=SIZE, batch_size=4, target=Keep(), augment=(hr.ColorJitter(), change), shuffle=False, on_bad=on_bad
    )
    loader.epoch = 2
    with pytest.raises(UsageError) as raised:
        next(iter(loader))
    text, (first,) = str(raised.value), scenes.store.ids_of(scenes.rows[:1])
    assert text.startswith(f"augment: {change.__qualname__}: record {first!r}, epoch 2: ")
    assert says in text and "\n" not in text
    if change is fails:
        assert isinstance(raised.value.__cause__, KeyError)


def test_a_transform_that_fails_late_loses_nothing_before(scenes: hr.Dataset) -> None:
    def late(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        if rng.random() < 0.05:
            raise RuntimeError("late")
        return pixels, boxes, points

    loader = scenes.loader(size=SIZE, batch_size=3, target=Keep(), augment=late, seed=1)
    ids: list[str] = []
    run = iter(loader)
    with pytest.raises(UsageError, match=r"late: record '\d\d', epoch 0: RuntimeError: late"):
        ids.extend(id_ for batch in run for id_ in batch.ids)
    assert 0 < len(ids) < N and loader.state_dict()["batch"] == len(ids) // 3


class Wanted:
    """An object that is called."""

    def __call__(self, pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        return pixels, boxes, points


def test_what_is_a_transform() -> None:
    for good in (rolled, lambda *all_: all_[:3], Wanted(), Wanted().__call__, but()):
        assert check_augment(good) == (Called(good),)
    assert check_augment(check_augment(rolled)) == (Called(rolled),)
    for bad in (len, np.flip, lambda pixels: pixels, lambda pixels, boxes: (pixels, boxes), 5, Wanted):
        with pytest.raises(UsageError, match=r"wanted augmentations such as hr\.HorizontalFlip\(\), a function of"):
            check_augment([bad])


def test_transforms_of_others_are_to_be_wrapped() -> None:
    for module, remedy in (
        ("torchvision.transforms.v2._container", "pass hr.augment.torchvision"),
        ("albumentations.core.composition", "pass hr.augment.albumentations"),
        ("keras.src.layers", "make it a layer of the model"),
    ):
        theirs = type("Compose", (Wanted,), {"__module__": module, "__iter__": lambda self: iter(())})()
        for given in (theirs, [theirs], (hr.HorizontalFlip(), theirs)):
            with pytest.raises(UsageError, match=re.escape(f"augment: Compose is of {module.split('.')[0]}; {remedy}")):
                check_augment(given)


def test_who_mirrors_without_swapping_is_refused(tmp_path: Path) -> None:
    class Mirror(Wanted):
        mirrors = "Flip"

    ds = pack(Source(faces()), tmp_path / "ds")  # left_eye and right_eye
    with pytest.raises(UsageError, match=r"augment: Flip in .*Mirror mirrors, and leaves left keypoints left ones"):
        ds.loader(size=32, target=Keep(), augment=Mirror())
    ds.loader(size=32, target=hr.Boxes(), augment=Mirror())
    ds.loader(size=32, target=Keep(), augment=Wanted())
