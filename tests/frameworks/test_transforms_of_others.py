"""Transforms of torchvision and Albumentations: pixels, boxes and points stay together, and chance is the record's."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import saved
from headrace import order
from headrace.errors import MissingExtraError, UsageError
from headrace.imaging import augment
from headrace.imaging.called import Called, left
from headrace.imaging.placement import draw_warp, place
from packed import Keep, Source, faces, pack
from scene import SIZE, assert_told, scene, told_apart
from vision import albumentations, torchvision_v2

# What each moves: pixels with boxes and points, or nothing but colours.
MOVING, COLOURS = True, False
Make = Callable[[Any], Any]
H, W = SIZE

TORCHVISION: Mapping[str, tuple[bool, Make]] = {
    "flip": (MOVING, lambda v2: v2.RandomHorizontalFlip(0.5)),
    "upside down": (MOVING, lambda v2: v2.RandomVerticalFlip(0.5)),
    "rotation": (MOVING, lambda v2: v2.RandomRotation(30)),
    "affine": (MOVING, lambda v2: v2.RandomAffine(15, translate=(0.2, 0.2), scale=(0.7, 1.3), shear=10)),
    "perspective": (MOVING, lambda v2: v2.RandomPerspective(0.25, p=1)),
    "resized crop": (MOVING, lambda v2: v2.RandomResizedCrop(SIZE, scale=(0.3, 1))),
    "padded crop": (MOVING, lambda v2: v2.RandomCrop(SIZE, padding=20)),
    "zoom out": (MOVING, lambda v2: v2.Compose([v2.RandomZoomOut(p=1, side_range=(1, 1.6)), v2.Resize(SIZE)])),
    "iou crop": (
        MOVING,
        lambda v2: v2.Compose([v2.RandomIoUCrop(min_scale=0.5), v2.Resize(SIZE), v2.SanitizeBoundingBoxes()]),
    ),
    "several": (
        MOVING,
        lambda v2: v2.Compose(
            [
                v2.RandomApply([v2.RandomRotation(20)]),
                v2.RandomChoice([v2.RandomAffine(0, (0.1, 0.1)), v2.CenterCrop((H - 20, W - 20))]),
                v2.Resize(SIZE),
                v2.SanitizeBoundingBoxes(),
            ]
        ),
    ),
    "jitter": (COLOURS, lambda v2: v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
    "photometric": (COLOURS, lambda v2: v2.RandomPhotometricDistort(p=1)),
    "grey": (COLOURS, lambda v2: v2.RandomGrayscale(1)),
    "blur": (COLOURS, lambda v2: v2.GaussianBlur(5)),
    "noise": (COLOURS, lambda v2: v2.GaussianNoise(sigma=0.05)),
    "invert": (COLOURS, lambda v2: v2.RandomInvert(0.5)),
    "posterize": (COLOURS, lambda v2: v2.RandomPosterize(2, 1)),
    "solarize": (COLOURS, lambda v2: v2.RandomSolarize(100, 0.5)),
    "sharpness": (COLOURS, lambda v2: v2.RandomAdjustSharpness(2, 1)),
    "autocontrast": (COLOURS, lambda v2: v2.RandomAutocontrast(1)),
    "equalize": (COLOURS, lambda v2: v2.RandomEqualize(1)),
    "erasing": (COLOURS, lambda v2: v2.RandomErasing(1, value="random")),
}
ALBUMENTATIONS: Mapping[str, tuple[bool, Make]] = {
    "flip": (MOVING, lambda A: A.HorizontalFlip(p=0.5)),
    "upside down": (MOVING, lambda A: A.VerticalFlip(p=0.5)),
    "rotate": (MOVING, lambda A: A.Rotate(30, p=1)),
    "affine": (MOVING, lambda A: A.Affine(scale=(0.7, 1.3), translate_percent=0.2, rotate=15, shear=8, p=1)),
    "shift": (MOVING, lambda A: A.ShiftScaleRotate(p=1)),
    "perspective": (MOVING, lambda A: A.Perspective((0.05, 0.1), p=1)),
    "resized crop": (MOVING, lambda A: A.RandomResizedCrop(SIZE, scale=(0.3, 1), p=1)),
    "safe crop": (MOVING, lambda A: A.RandomSizedBBoxSafeCrop(H, W, p=1)),
    "crop and pad": (MOVING, lambda A: A.CropAndPad(percent=(-0.2, 0.2), p=1)),
    "several": (
        MOVING,
        lambda A: A.Compose(
            [A.OneOf([A.Rotate(20), A.Affine(translate_percent=0.1)], p=1), A.RandomGamma()],
            bbox_params=A.BboxParams("coco", label_fields=["names"], min_area=30, min_visibility=0.2),
        ),
    ),
    "jitter": (COLOURS, lambda A: A.ColorJitter(p=1)),
    "hue": (COLOURS, lambda A: A.HueSaturationValue(p=1)),
    "gamma": (COLOURS, lambda A: A.RandomGamma(p=1)),
    "grey": (COLOURS, lambda A: A.ToGray(p=1)),
    "blur": (COLOURS, lambda A: A.GaussianBlur(p=1)),
    "noise": (COLOURS, lambda A: A.GaussNoise(p=1)),
    "iso": (COLOURS, lambda A: A.ISONoise(p=1)),
    "posterize": (COLOURS, lambda A: A.Posterize(3, p=1)),
    "solarize": (COLOURS, lambda A: A.Solarize(p=0.5)),
    "equalize": (COLOURS, lambda A: A.Equalize(p=1)),
    "sharpen": (COLOURS, lambda A: A.Sharpen(p=1)),
    "shadow": (COLOURS, lambda A: A.RandomShadow(p=1)),
}
ALL = [("torchvision", name) for name in TORCHVISION] + [("albumentations", name) for name in ALBUMENTATIONS]

# Albumentations says of itself that arguments were renamed, torchvision that it looks at labels by their name.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:albumentations.*"),
    pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case"),
    pytest.mark.filterwarnings("ignore:RandomErasing.. is currently passing through"),
]


def wrapped(library: str, make: Make) -> Any:
    """The transform as one of ours."""
    if library == "torchvision":
        return hr.augment.torchvision(make(torchvision_v2()))
    return hr.augment.albumentations(make(albumentations()))


def made(library: str, name: str) -> tuple[bool, Any]:
    moving, make = (TORCHVISION if library == "torchvision" else ALBUMENTATIONS)[name]
    return moving, wrapped(library, make)


def rng(k: int, epoch: int = 0) -> np.random.Generator:
    return order.generator(k, 0, seed=0, epoch=epoch)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """24 scenes with a box, of a class of its own each, and three points of which one is absent."""
    drawn, records = np.random.default_rng(5), []
    for k in range(24):
        pixels, boxes, points = scene(drawn)
        name, encoded = f"{k:02d}", saved(pixels, "PNG")
        records.append(
            hr.Record(
                id=name, encoded=encoded, label_name="ab"[k % 2], boxes=boxes, box_labels=(name,), keypoints=points
            )
        )
    return pack(Source(records, names=("a", "b", "c"), pairs=()), tmp_path_factory.mktemp("scenes") / "ds")


# --- together ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("library", "name"), ALL)
def test_a_painted_rectangle_and_its_dots_stay_together(library: str, name: str) -> None:
    moving, transform = made(library, name)
    drawn, told, changed = np.random.default_rng(11), 0, 0
    for k in range(40):
        pixels, boxes, points = scene(drawn)
        if not moving:
            pixels = pixels // 2 + np.uint8(30)  # so that there is contrast to be gained
        out = pixels.copy()
        moved, dots = Called(transform).apply(out, boxes, points, rng(k), where=lambda: "here")
        changed += not np.array_equal(out, pixels)
        if not moving:
            assert np.allclose(moved, boxes, atol=1e-3) and np.allclose(dots, points, atol=1e-3)
            continue
        seen, dots, there = left(moved, np.ones(1, bool), dots, height=H, width=W, min_visible=0)
        assert not dots[0, 2].any()
        if there[0] and told_apart(seen):
            # What perspective makes of a rectangle is no longer one, and a zoom makes a dot's middle coarse.
            told += assert_told(out, seen, dots, within=4, loose=True)
    assert changed > 10
    assert told > 25 or not moving


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_labels_follow_the_boxes_that_are_left(library: str, tmp_path: Path) -> None:
    """Sixteen boxes, each of a class of its own and of a shade of its own, under a crop that drops most of them."""
    pixels, boxes = np.zeros((128, 128, 3), np.uint8), []
    for k in range(16):
        x, y = 32 * (k % 4), 32 * (k // 4)
        pixels[y + 4 : y + 28, x + 4 : x + 28] = 100 + 9 * k
        boxes.append((x + 4, y + 4, x + 28, y + 28))
    names = tuple(f"{k:02d}" for k in range(16))
    record = hr.Record(id="a", encoded=saved(pixels, "PNG"), boxes=np.array(boxes, np.float32), box_labels=names)
    ds = pack([record], tmp_path / "ds")
    if library == "torchvision":
        v2 = torchvision_v2()
        crop = v2.Compose([v2.RandomResizedCrop((128, 128), scale=(0.2, 0.5)), v2.SanitizeBoundingBoxes(min_size=4)])
        augment: Any = hr.augment.torchvision(crop)
    else:
        A = albumentations()
        augment = hr.augment.albumentations(A.Compose([A.RandomResizedCrop((128, 128), scale=(0.2, 0.5), p=1)]))
    loader = ds.loader(size=128, target=Keep(), augment=augment, min_visible=0.6)
    lefts = []
    for epoch in range(20):
        loader.epoch = epoch
        batch = loader[0]
        lefts.append(len(batch.targets.boxes))
        for (x0, y0, x1, y1), label in zip(batch.targets.boxes, batch.targets.box_labels.tolist(), strict=True):
            middle = batch.images[0, int((y0 + y1) / 2), int((x0 + x1) / 2)].astype(int)
            assert np.abs(middle - (100 + 9 * int(ds.box_class_names[label]))).max() <= 3
    assert 2 < np.mean(lefts) < 14


def test_how_much_of_a_box_is_left_the_loader_sees() -> None:
    """torchvision would cut the box to the image by itself, and a sliver of it would look whole."""
    v2 = torchvision_v2()
    shift = hr.augment.torchvision(v2.RandomAffine(0, translate=(0.9, 0)))
    pixels, boxes, none = (
        np.zeros((50, 100, 3), np.uint8),
        np.array([[40, 10, 60, 30]], np.float32),
        np.zeros((1, 0, 3)),
    )
    outside = 0
    for k in range(40):
        moved, _ = Called(shift).apply(pixels, boxes, none.astype(np.float32), rng(k), where=lambda: "here")
        if geometry_area(moved):
            assert moved[0, 2] - moved[0, 0] == pytest.approx(20, abs=1e-3)
            outside += bool(moved[0, 0] < 0 or moved[0, 2] > 100)
    assert outside


def geometry_area(boxes: Any) -> float:
    return float((boxes[0, 2] - boxes[0, 0]) * (boxes[0, 3] - boxes[0, 1]))


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_of_points_alone(library: str, tmp_path: Path) -> None:
    """Objects without boxes, of one point too, whose box has no area."""
    ds = pack(Source(faces(boxes=False)), tmp_path / "ds")
    augment = wrapped(
        library,
        lambda lib: (
            lib.RandomAffine(0, (0.3, 0.3)) if library == "torchvision" else lib.Affine(translate_percent=0.3, p=1)
        ),
    )
    plain, moved = (
        ds.loader(size=40, batch_size=12, shuffle=False, target=Keep(), augment=some)[0].targets
        for some in ((), augment)
    )
    assert 0 < len(moved.boxes) <= len(plain.boxes) and (moved.keypoints[..., 2] > 0).any(axis=1).all()


# --- ours beside theirs --------------------------------------------------------------------------------------------

# What our RandAugment does, and what torchvision's does of the same strength; a sign is either's.
PEERS: Mapping[str, Callable[[Any, Any, float], Any]] = {
    "rotate": lambda F, image, s: F.rotate(image, 30 * s, interpolation=_linear()),
    "shear x": lambda F, image, s: _sheared(F, image, [math.degrees(math.atan(0.3 * s)), 0.0]),
    "shear y": lambda F, image, s: _sheared(F, image, [0.0, math.degrees(math.atan(0.3 * s))]),
    "translate x": lambda F, image, s: F.affine(image, 0, [int(150 / 331 * W * s), 0], 1, [0.0, 0.0]),
    "translate y": lambda F, image, s: F.affine(image, 0, [0, int(150 / 331 * H * s)], 1, [0.0, 0.0]),
    "autocontrast": lambda F, image, s: F.autocontrast(image),
    "equalize": lambda F, image, s: F.equalize(image),
    "solarize": lambda F, image, s: F.solarize(image, 255 * (1 - abs(s))),
    "posterize": lambda F, image, s: F.posterize(image, 8 - round(4 * abs(s))),
    "saturate": lambda F, image, s: F.adjust_saturation(image, 1 + 0.9 * s),
    "contrast": lambda F, image, s: F.adjust_contrast(image, 1 + 0.9 * s),
    "brighten": lambda F, image, s: F.adjust_brightness(image, 1 + 0.9 * s),
    "sharpen": lambda F, image, s: F.adjust_sharpness(image, 1 + 0.9 * s),
}


def _linear() -> Any:
    return torchvision_v2().InterpolationMode.BILINEAR


def _sheared(F: Any, image: Any, shear: list[float]) -> Any:
    return F.affine(image, 0, [0, 0], 1, shear, interpolation=_linear())


@pytest.mark.parametrize("strength", [0.3, 0.8])
@pytest.mark.parametrize("name", PEERS)
def test_what_our_policy_does_is_what_theirs_does(name: str, strength: float) -> None:
    import torch

    F = torchvision_v2().functional
    y, x = np.mgrid[:H, :W]
    slopes = (np.stack([x * 1.5 + 20, y * 2, 250 - x - y / 2], axis=2).clip(0, 255) / 255) ** 2 * 200
    picture = (slopes + 12 * np.sin((x + y) / 1.5)[..., np.newaxis] + 20).clip(0, 255).astype(np.uint8)
    if name == "sharpen":  # which leaves what is smooth
        picture = np.random.default_rng(0).integers(60, 190, (H, W, 3), np.uint8)
    ours = picture.copy()
    if (moved := augment._MOVED.get(name)) is not None:
        warp = moved(strength, W, H).around(W / 2, H / 2)
        draw_warp(place(H, W, SIZE, "stretch").warped(warp), ours)
    else:
        augment._COLOURED[name](ours, strength)
    image = torch.from_numpy(picture).permute(2, 0, 1)
    off = [
        np.abs(PEERS[name](F, image, sign * strength).permute(1, 2, 0).numpy().astype(int) - ours).mean()
        for sign in ((1, -1) if moved else (1,))
    ]
    # Theirs shifts by whole pixels and rounds down, and equalizes by a table of its own.
    assert min(off) < 0.25 * np.abs(ours.astype(int) - picture).mean() and min(off) < 4


def test_both_policies_have_the_same_changes() -> None:
    v2 = torchvision_v2()
    assert len(augment._POLICY) == len(v2.RandAugment()._AUGMENTATION_SPACE) == len(PEERS) + 1


# --- chance --------------------------------------------------------------------------------------------------------


def random_of(library: str) -> Any:
    """One that draws in many ways."""

    def make(lib: Any) -> Any:
        if library == "torchvision":
            return lib.Compose(
                [
                    lib.RandomRotation(20),
                    lib.ColorJitter(0.3, 0.3),
                    lib.RandomApply([lib.GaussianNoise()]),
                    lib.RandomOrder([lib.RandomGrayscale(0.3), lib.RandomHorizontalFlip()]),
                    lib.RandomErasing(0.5, value="random"),
                ]
            )
        return lib.Compose(
            [lib.Rotate(20, p=0.8), lib.ColorJitter(p=0.7), lib.OneOf([lib.GaussNoise(), lib.GaussianBlur()], p=0.7)]
        )

    return wrapped(library, make)


def same(one: Any, two: Any) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_the_same_pixels_for_any_number_of_workers_and_resumed(library: str, scenes: hr.Dataset) -> None:
    options: dict[str, Any] = {"size": SIZE, "batch_size": 5, "target": hr.Boxes(4), "augment": random_of(library)}
    whole = [(batch.images.copy(), batch.targets) for batch in scenes.loader(**options, workers=1)]
    for workers in (2, 8):
        for (images, targets), batch in zip(whole, scenes.loader(**options, workers=workers), strict=True):
            assert np.array_equal(images, batch.images) and same(targets, batch.targets)
    run = iter(scenes.loader(**options))
    for i in range(1, len(whole)):
        next(run)
        rest = pickle.loads(pickle.dumps(scenes.loader(**options)))
        rest.load_state_dict(run.state_dict())
        for (images, targets), batch in zip(whole[i:], rest, strict=True):
            assert np.array_equal(images, batch.images) and same(targets, batch.targets)
    later = scenes.loader(**options)
    later.epoch = 1
    assert not np.array_equal(later[0].images, whole[0][0])


def test_torch_draws_what_its_own_seed_would(scenes: hr.Dataset) -> None:
    """And nothing of the generator that a model is training with meanwhile."""
    v2 = torchvision_v2()
    import torch

    transform = v2.Compose(
        [v2.RandomRotation(20), v2.ColorJitter(0.3), v2.GaussianNoise(), v2.RandomErasing(1, value="random")]
    )
    pixels, boxes, points = scene(np.random.default_rng(0))
    ours = hr.augment.torchvision(transform)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found, _, _ = ours(pixels.copy(), boxes, points, rng(3))
    assert (torch.get_rng_state() == before).all()
    torch.manual_seed(int(rng(3).integers(1 << 63)))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    wanted = transform({"image": v2.Compose([v2.ToImage()])(pixels), "boxes": image[:0]})["image"]
    assert np.array_equal(found, wanted.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_threads_do_not_see_each_other(library: str) -> None:
    transform = random_of(library)
    pixels, boxes, points = scene(np.random.default_rng(0))
    wanted = [transform(pixels.copy(), boxes, points, rng(k))[0].copy() for k in range(16)]
    together = threading.Barrier(8)

    def work(start: int) -> bool:
        together.wait(300)
        order_ = [(start + 3 * j) % 16 for j in range(16)]
        return all(np.array_equal(transform(pixels.copy(), boxes, points, rng(k))[0], wanted[k]) for k in order_)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len({image.tobytes() for image in wanted}) > 12


# --- refused -------------------------------------------------------------------------------------------------------

# (library, what is wrapped, what the first batch says)
BAD: list[tuple[str, Make, str]] = [
    (
        "torchvision",
        lambda v2: v2.Resize((40, 40)),
        r"gave back pixels uint8 \[40, 40, 3\], wanted uint8 \[96, 128, 3\]",
    ),
    ("torchvision", lambda v2: v2.ToDtype(_torch().float32, scale=True), "gave back pixels float32"),
    ("torchvision", lambda v2: v2.ToPILImage(), "gave back pixels a Image, wanted"),
    ("torchvision", lambda v2: v2.RandAugment(), "TypeError: .*BoundingBoxes"),
    ("torchvision", lambda v2: _drop(v2), "1 boxes came back with 0 labels, wanted one for each"),
    ("albumentations", lambda A: A.Resize(40, 40), r"gave back pixels uint8 \[40, 40, 3\], wanted"),
    ("albumentations", lambda A: A.Normalize(), "gave back pixels float32"),
    ("albumentations", lambda A: A.CenterCrop(500, 500), "CropSizeError|ValueError"),
]


def _drop(v2: Any) -> Any:
    """A transform of the user's own that forgets something."""

    class Drop(v2.Transform):  # type: ignore[misc, name-defined]
        def forward(self, sample: Any) -> Any:
            return sample | {"labels": sample["labels"][:0]}

    return Drop()


def _torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize(("library", "make", "says"), BAD)
def test_what_can_not_be_meant(scenes: hr.Dataset, library: str, make: Make, says: str) -> None:
    loader = scenes.loader(size=SIZE, batch_size=4, target=hr.Boxes(), augment=wrapped(library, make))
    with pytest.raises(UsageError, match=rf"^augment: {library}\(.*\): record '\d\d', epoch 0: .*({says})"):
        loader[0]


def test_policies_without_boxes(scenes: hr.Dataset) -> None:
    """Which torchvision's refuse, be there none in them."""
    v2 = torchvision_v2()
    for policy in (v2.RandAugment(), v2.TrivialAugmentWide(), v2.AutoAugment(), v2.AugMix()):
        batch = scenes.loader(size=SIZE, target=hr.Class(), augment=hr.augment.torchvision(policy))[0]
        assert batch.images.shape == (24, *SIZE, 3)


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_who_mirrors_leaves_left_points_left(library: str, tmp_path: Path) -> None:
    ds = pack(Source(faces()), tmp_path / "ds")  # nose, left_eye, right_eye
    flip = wrapped(
        library,
        lambda lib: lib.Compose([lib.RandomHorizontalFlip()] if library == "torchvision" else [lib.HorizontalFlip()]),
    )
    with pytest.raises(
        UsageError, match=r"HorizontalFlip in .* mirrors, and leaves left keypoints left ones; .*hr.Horiz"
    ):
        ds.loader(size=32, target=Keep(), augment=flip)
    ds.loader(size=32, target=hr.Boxes(), augment=flip)


def test_what_is_no_transform_of_theirs() -> None:
    v2, A = torchvision_v2(), albumentations()
    for given in (5, "flip", v2.ColorJitter, [v2.ColorJitter()], A.Rotate()):
        with pytest.raises(UsageError, match=r"torchvision: .*, wanted a transform of torchvision\.transforms\.v2"):
            hr.augment.torchvision(given)
    for given in (5, A.Rotate, [A.Rotate()], v2.ColorJitter()):
        with pytest.raises(UsageError, match=r"albumentations: .*, wanted a transform of Albumentations"):
            hr.augment.albumentations(given)
    for given in (v2.ColorJitter(), A.Compose([A.Rotate()])):
        with pytest.raises(UsageError, match=r"pass hr\.augment\.(torchvision|albumentations)\(…\) of it"):
            hr.augment.check_augment(given)


@pytest.mark.parametrize("library", ["torchvision", "albumentations"])
def test_a_missing_library_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module in list(sys.modules):
        if module.split(".")[0] == library or module == f"headrace.feeds.{library}":
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library}.* is not installed .*pip install 'headrace\[{library}\]'"):
        getattr(hr.augment, library)(object())
