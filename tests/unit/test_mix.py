"""MixUp, CutMix and Mosaic: what becomes of pixels, targets, boxes and points; the same however a batch is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import saved
from headrace.errors import UsageError
from headrace.load.mix import Mix, partners
from packed import Keep, Source, flip, pack, shades, shard_of
from scene import SIZE, scene

N = 24
MIXES: dict[str, Mix] = {"mixup": hr.MixUp(alpha=0.5), "cutmix": hr.CutMix(), "mosaic": hr.Mosaic()}


@pytest.fixture(scope="module")
def shaded(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Record k is nothing but the value 10 k, of class k % 3."""
    records = [
        hr.Record(id=f"{k:03d}", encoded=saved(np.full((16, 20, 3), 10 * k, np.uint8), "PNG"), label_name="abc"[k % 3])
        for k in range(N)
    ]
    return pack(records, tmp_path_factory.mktemp("shaded") / "ds")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Scenes with a box, of a class of its own each, and three points, of which one is absent."""
    rng, records = np.random.default_rng(5), []
    for k in range(N):
        pixels, boxes, points = scene(rng)
        encoded = saved(pixels, "PNG")
        records.append(
            hr.Record(id=f"{k:02d}", encoded=encoded, boxes=boxes, box_labels=(f"{k:02d}",), keypoints=points)
        )
    return pack(Source(records, names=("a", "b", "c"), pairs=()), tmp_path_factory.mktemp("scenes") / "ds")


def of(name: str, shaded: hr.Dataset, scenes: hr.Dataset) -> tuple[hr.Dataset, dict[str, Any]]:
    mosaic = name == "mosaic"
    target: hr.Target = hr.Boxes(9) if mosaic else hr.Class()
    return (scenes if mosaic else shaded), {"size": SIZE, "batch_size": 8, "mix": MIXES[name], "target": target}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return all(np.array_equal(one[name], two[name]) for name in one)
    return bool(np.array_equal(one, two))


# --- who meets whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [0, 1, 2, 3, 4, 9])
def test_all_meet_others_and_are_met_equally_often(b: int) -> None:
    keys = np.arange(b, dtype=np.uint64) * np.uint64(977)
    met = partners(keys, 3, seed=1, epoch=2)
    assert met.shape == (b, 3)
    for k in range(3):
        assert sorted(met[:, k]) == list(range(b))
        if b > 3:
            assert (met[:, k] != np.arange(b)).all()
    if b > 1:
        assert (met[:, 0] != np.arange(b)).all()


def test_meeting_is_of_seed_epoch_and_records() -> None:
    keys = np.arange(9, dtype=np.uint64) * np.uint64(977)
    wanted = partners(keys, 1, seed=1, epoch=2)
    turned = np.roll(np.arange(9), 4)  # the same records in another order
    again = partners(keys[turned], 1, seed=1, epoch=2)
    assert (turned[again[:, 0]] == wanted[turned, 0]).all()
    assert any((partners(keys, 1, seed=seed, epoch=epoch) != wanted).any() for seed, epoch in ((1, 3), (2, 2)))


# --- pixels and targets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_targets_say_what_pixels_are_made_of(shaded: hr.Dataset, name: str) -> None:
    """Each image is of one value, so that the mean says how much of two there is."""
    loader = shaded.loader(batch_size=8, mix=MIXES[name], seed=3)
    plain = shaded.loader(batch_size=8, seed=3)
    shares = []
    for epoch in range(3):
        loader.epoch = plain.epoch = epoch
        for i in range(len(loader)):
            batch, before = loader[i], plain[i]
            targets = batch.targets
            assert batch.ids == before.ids and targets.dtype == np.float32 and targets.shape == (8, 3)
            assert np.allclose(targets.sum(axis=1), 1, atol=1e-6)
            values = {
                int(image[0, 0, 0]): int(label) for image, label in zip(before.images, before.targets, strict=True)
            }
            for image, target, own, label in zip(
                batch.images, targets, before.images[:, 0, 0, 0].astype(int), before.targets, strict=True
            ):
                if name == "cutmix":
                    found = {int(v): float((image == v).mean()) for v in np.unique(image)}
                    assert set(found) <= set(values) and len(found) <= 2
                    wanted = np.zeros(3)
                    for value, share in found.items():
                        wanted[values[value]] += share
                    assert np.allclose(target, wanted, atol=1e-5)
                    shares.append(found.get(own, 0.0))
                else:
                    assert np.ptp(image) == 0
                    mixed = int(image[0, 0, 0])
                    others = [v for v in values if v != own and min(v, own) <= mixed <= max(v, own)]
                    ways = [((mixed - v) / (own - v), values[v]) for v in others] or [(1.0, int(label))]
                    made = [np.eye(3)[label] * share + np.eye(3)[other] * (1 - share) for share, other in ways]
                    assert min(np.abs(target - one).max() for one in made) < 0.06  # rounded to whole levels
                    shares.append(float(target[label]))
    assert 0.1 < np.mean(np.less(shares, 0.5)) < 0.9


def test_values_and_several_classes_are_averaged(tmp_path: Path) -> None:
    def records(**said: Any) -> list[hr.Record]:
        return [
            hr.Record(
                id=str(k),
                encoded=saved(np.full((8, 8, 3), 20 * k, np.uint8), "PNG"),
                **{n: f(k) for n, f in said.items()},
            )
            for k in range(10)
        ]

    values = pack(records(value=float), tmp_path / "values")
    batch = values.loader(batch_size=10, mix=hr.MixUp(alpha=1))[0]
    assert batch.targets.dtype == np.float32 and batch.targets.shape == (10,)
    assert np.allclose(batch.images[:, 0, 0, 0] / 20, batch.targets, atol=0.03)
    assert not np.allclose(batch.targets, np.rint(batch.targets))
    several = pack(records(labels=lambda k: ("a", "b") if k % 2 else ("b",)), tmp_path / "several")
    soft = several.loader(batch_size=10, mix=hr.MixUp(alpha=1))[0].targets
    assert soft.shape == (10, 2) and (soft[:, 1] == 1).all() and ((soft[:, 0] > 0) & (soft[:, 0] < 1)).any()


def test_a_target_of_ones_own_may_be_mixed(shaded: hr.Dataset) -> None:
    class Doubled(hr.targets.Class):
        def soft(self, labels: hr.Labels) -> Any:
            return 2 * super().soft(labels)

    found, plain = (shaded.loader(mix=hr.MixUp(), target=target)[0].targets for target in (Doubled(), hr.Class()))
    assert np.allclose(found, 2 * plain)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MIXES)
def test_without_targets_and_in_grey(tmp_path: Path, name: str, channels: int) -> None:
    class Nothing(hr.Target):
        wants_boxes = wants_keypoints = False

        def check(self, facts: hr.Facts) -> None:
            pass

        def encode(self, labels: hr.Labels) -> None:
            return None

        def soft(self, labels: hr.Labels) -> Any:
            return np.zeros((len(labels.classes), 0), np.float32)

    rng = np.random.default_rng(0)
    records = [
        hr.Record(id=str(k), encoded=saved(rng.integers(0, 255, (9, 11, channels), np.uint8), "PNG")) for k in range(5)
    ]
    ds = pack(records, tmp_path / "ds")
    target = hr.Boxes() if name == "mosaic" else Nothing()
    if name == "mosaic":
        for record in records:
            object.__setattr__(record, "boxes", np.array([[0, 0, 9, 9]], np.float32))
        ds = pack(records, tmp_path / "boxed")
    batch = ds.loader(batch_size=5, mix=MIXES[name], target=target, augment=hr.HorizontalFlip())[0]
    assert batch.images.shape == (5, 9, 11, channels)


def test_a_mosaic_has_four_pictures_with_their_boxes_and_points(scenes: hr.Dataset) -> None:
    """Each box and point of it has what it is of below: red in the box and none right outside, green and blue dots."""
    loader = scenes.loader(size=SIZE, batch_size=8, mix=hr.Mosaic(), target=Keep(), seed=2)
    height, width = SIZE
    images_of, dots = [], 0
    for epoch in range(3):
        loader.epoch = epoch
        for i in range(len(loader)):
            batch = loader[i]
            labels = batch.targets
            for slot, image in enumerate(batch.images):
                there = labels.box_image == slot
                names = [scenes.box_class_names[k] for k in labels.box_labels[there]]
                assert len(set(names)) == len(names) <= 4 and set(names) <= set(batch.ids)
                images_of.append(len(names))
                red = image[..., 0] > 100
                covered = np.zeros(SIZE, bool)
                for x0, y0, x1, y1 in labels.boxes[there]:
                    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
                    inner = red[int(np.ceil(y0)) + 1 : int(y1) - 1, int(np.ceil(x0)) + 1 : int(x1) - 1]
                    assert inner.all()
                    covered[max(0, int(y0) - 1) : int(np.ceil(y1)) + 1, max(0, int(x0) - 1) : int(np.ceil(x1)) + 1] = (
                        True
                    )
                outside = (red & ~covered).sum()
                assert outside < 0.3 * red.sum() + 40  # what is left of boxes that were dropped
                for points in labels.keypoints[there]:
                    assert not points[2].any()
                    for k in (0, 1):
                        x, y, v = points[k]
                        if v and 1 < x < width - 1 and 1 < y < height - 1:
                            dots += 1
                            assert image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2, 1 + k].max() > 100
    assert np.mean(images_of) > 3 and dots > 200


# --- the same however it is made -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXES)
def test_the_same_for_any_number_of_workers_and_resumed(shaded: hr.Dataset, scenes: hr.Dataset, name: str) -> None:
    ds, options = of(name, shaded, scenes)
    options["augment"] = (hr.HorizontalFlip(), hr.ColorJitter()) if name != "mosaic" else hr.Affine()
    whole = [(b.images.copy(), b.targets, b.ids) for b in ds.loader(**options, workers=1)]
    for workers in (2, 8):
        for a, b in zip(whole, ds.loader(**options, workers=workers), strict=True):
            assert same(a[0], b.images) and same(a[1], b.targets) and a[2] == b.ids
    run = iter(ds.loader(**options))
    for i in range(1, len(whole)):
        next(run)
        rest = ds.loader(**options)
        rest.load_state_dict(run.state_dict())
        for a, b in zip(whole[i:], rest, strict=True):
            assert same(a[0], b.images) and same(a[1], b.targets)
    loader = ds.loader(**options)
    assert same(loader[1].images, whole[1][0]) and not same(loader[1].images, ds.loader(**options, seed=1)[1].images)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_is_the_records_own(shaded: hr.Dataset, tmp_path: Path, name: str) -> None:
    """Whatever their order in the batch, and wherever they are stored."""
    records = [shaded[i] for i in range(N)]
    again = pack(
        [hr.Record(id=r.id, encoded=r.encoded, label_name=r.label_name) for r in records], tmp_path / "ds", seed=9
    )
    one, two = (ds.loader(batch_size=N, mix=MIXES[name], seed=3, shuffle=False)[0] for ds in (shaded, again))
    assert one.ids != two.ids and sorted(one.ids) == sorted(two.ids)
    at = [two.ids.index(id_) for id_ in one.ids]
    assert same(one.images, two.images[at]) and same(one.targets, two.targets[at])


@pytest.mark.parametrize("name", MIXES)
def test_a_rank_mixes_what_it_has(shaded: hr.Dataset, scenes: hr.Dataset, name: str) -> None:
    ds, options = of(name, shaded, scenes)
    plain = ds.loader(**options | {"mix": None, "target": None})
    for rank in range(3):
        loader = ds.loader(**options | {"batch_size": 9}, world=(rank, 3), drop_last=True)
        alone = ds.loader(**options | {"batch_size": 9, "mix": None, "target": None}, world=(rank, 3), drop_last=True)
        assert loader[0].ids == alone[0].ids
        if name == "cutmix":
            assert set(np.unique(loader[0].images)) <= set(np.unique(alone[0].images))
    one = ds.loader(**options | {"batch_size": 3}, world=(2, 3), drop_last=True)[0]
    single = ds.loader(**options | {"batch_size": 3, "mix": None, "target": None}, world=(2, 3), drop_last=True)[0]
    if name != "mosaic":  # one alone meets itself
        assert np.abs(one.images.astype(int) - single.images).max() <= 1
    assert plain.options.mix is None


@pytest.mark.parametrize("name", MIXES)
def test_damaged_records_meet_nobody(tmp_path: Path, shaded: hr.Dataset, scenes: hr.Dataset, name: str) -> None:
    _, options = of(name, shaded, scenes)
    if name == "mosaic":
        rng, records = np.random.default_rng(5), []
        for k in range(9):
            pixels, boxes, _ = scene(rng)
            records.append(
                hr.Record(id=f"{k:02d}", encoded=saved(pixels, "PNG"), boxes=boxes, box_labels=(f"{k:02d}",))
            )
    else:
        records = shades(9)
    options |= {"batch_size": 9, "shuffle": False, "on_bad": "skip", "max_bad": 9}
    ds = pack(records, tmp_path / "ds")
    path, _, offset, length = shard_of(ds, 4)
    flip(path, offset + length // 2)
    broken = hr.Dataset(tmp_path / "ds").loader(**options)
    (lost,) = ds.store.ids_of(ds.rows[4:5])
    sound = ds.where(f"id != '{lost}'").loader(**options)
    batch, wanted = broken[0], sound[0]
    assert batch.ids == wanted.ids and same(batch.images, wanted.images) and same(batch.targets, wanted.targets)
    assert len(broken.labels(0).classes) == 9
    for k in range(9):
        path, _, offset, length = shard_of(ds, k)
        if k != 4:
            flip(path, offset + length // 2)
    nothing = hr.Dataset(tmp_path / "ds").loader(**options)[0]
    assert nothing.images.shape == (0, *SIZE, 3) and nothing.ids == ()


def test_mosaics_can_be_shown_and_counted(scenes: hr.Dataset) -> None:
    loader = scenes.loader(size=SIZE, batch_size=8, mix=hr.Mosaic(), target=hr.Boxes(2), augment=hr.HorizontalFlip())
    assert loader.show(1).size[0] > 100
    assert loader.lost() > 0 and same(hr.Boxes(2).encode(loader.labels(2)), loader[2].targets)


# --- refused -------------------------------------------------------------------------------------------------------

# (options of a loader of scenes, with boxes and points; what is said)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mix": "mixup"}, r"mix: 'mixup', wanted hr.MixUp\(\), hr.CutMix\(\) or hr.Mosaic\(\)"),
    ({"mix": hr.MixUp}, "mix: the class MixUp, wanted"),
    ({"mix": (hr.MixUp(),)}, r"mix: \(MixUp"),
    ({"mix": hr.MixUp()}, "mix: MixUp averages targets, and those of Boxes can't be; it is for Class, .*hr.Mosaic"),
    ({"mix": hr.CutMix(), "target": hr.Grid(4)}, "mix: CutMix averages targets, and those of Grid can't be"),
    ({"mix": hr.Mosaic(), "size": 1}, "mix: images of 1x1 have no quarters"),
    ({"mixup": True}, "has no mixup: it is called mix here"),
]


@pytest.mark.parametrize(("options", "says"), REFUSED)
def test_what_is_refused(scenes: hr.Dataset, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        scenes.loader(**{"size": 32} | options)


def test_what_is_refused_of_classes_and_arrays(shaded: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"mix: Mosaic is for boxes and keypoints, and Class says nothing of them"):
        shaded.loader(mix=hr.Mosaic())
    kept = hr.ArrayDataset(np.zeros((4, 3, 3)), np.zeros(4, int), dtype="keep")
    with pytest.raises(UsageError, match=r"mix MixUp\(alpha=0.2\): x is kept as it is .* has no pixels"):
        kept.loader(mix=hr.MixUp())
    for make, says in (
        (lambda: hr.MixUp(alpha=0), "alpha is 0, wanted a number above 0"),
        (lambda: hr.CutMix(alpha=float("nan")), "alpha is nan"),
        (lambda: hr.CutMix(alpha=float("inf")), "alpha is inf"),
        (lambda: hr.Mosaic(middle=0.6), "middle is 0.6, wanted 0 < x <= 0.5"),
    ):
        with pytest.raises(UsageError, match=says):
            make()


def test_shown_are_the_shares_of_classes(shaded: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.load import show

    captions: list[str] = []
    monkeypatch.setattr(show, "_caption", lambda *lines: captions.append("\n".join(lines)) or "")
    loader = shaded.loader(batch_size=4, mix=hr.CutMix())
    loader.show(0)
    for caption, target, id_ in zip(captions, loader[0].targets, loader[0].ids, strict=True):
        wanted = [f"{name} {share:.2f}" for name, share in zip("abc", target, strict=True) if share >= 0.005]
        assert caption.split("\n") == [*wanted, id_]
