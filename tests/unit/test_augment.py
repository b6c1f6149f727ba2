"""Our own augmentations: where they move pixels, boxes and points, what they do to colours, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from drawn import picture, saved
from headrace.errors import UsageError
from headrace.imaging import augment, colours, geometry
from headrace.imaging.augment import AUGMENTATIONS, Change, moves
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array, Warp
from headrace.imaging.placement import Placement, carry, carry_points, draw, place
from packed import pack
from scene import SIZE, assert_told, scene, told_apart

GOLDEN = Path(__file__).parents[1] / "golden" / "augment.json"
NONE = np.zeros(1, np.int64)

OURS: dict[str, Change] = {
    **AUGMENTATIONS,
    "turn": hr.Affine(degrees=180, translate=0, scale=(1, 1)),
    "shear": hr.Affine(degrees=0, translate=0.3, scale=(0.5, 1.5), shear=30),
    "strong": hr.RandAugment(n=3, magnitude=30),
    "small part": hr.RandomResizedCrop(scale=(0.1, 0.5)),
    "always": hr.HorizontalFlip(p=1),
}


def carried(placement: Placement, boxes: Array, points: Array, *, least: float = 0.0) -> tuple[Array, Array]:
    moved, _ = carry(boxes, [placement], NONE, min_visible=least)
    return moved, carry_points(points, [placement], NONE, mirrored=np.arange(3))


def drawn(pixels: Pixels, placement: Placement) -> Pixels:
    out = np.full((*placement.size, pixels.shape[2]), 77, np.uint8)
    draw(pixels, placement, *pixels.shape[:2], out)
    return out


@pytest.mark.parametrize("name", OURS)
def test_a_painted_rectangle_and_its_dots_stay_together(name: str) -> None:
    """By the placement alone; then colours are changed, which moves nothing: see the next test."""
    change, rng, told = OURS[name], np.random.default_rng(7), 0
    for _ in range(60):
        pixels, boxes, points = scene(rng)
        placement = change.place(place(*SIZE, SIZE, "stretch"), rng.random(change.draws))
        seen, dots = carried(placement, boxes, points)
        assert not dots[0, 2].any(), "an absent point stays absent"
        if told_apart(seen):
            scale = max(1.0, SIZE[1] / (placement.window[2] - placement.window[0]))
            told += assert_told(drawn(pixels, placement), seen, dots, within=1.5 * scale)
    assert told > 40


@pytest.mark.parametrize("name", OURS)
def test_colours_are_changed_where_they_are(name: str) -> None:
    """Whatever is done to colours, a black half stays on its side: no pixel takes anything from afar."""
    change, rng = OURS[name], np.random.default_rng(3)
    if isinstance(change, hr.RandomErasing):
        return  # which covers a part with noise; its own test is below
    for _ in range(30):
        halves = np.full((40, 60, 3), (200, 180, 90), np.uint8)
        halves[:, :30] = (20, 60, 50)
        change.colour(halves, rng.random(change.draws))
        mean = halves.astype(float).mean(axis=0)
        one, two = mean[:22], mean[38:]
        assert np.ptp(one, axis=0).max() < 12 and np.ptp(two, axis=0).max() < 12


@given(
    flips=st.lists(st.sampled_from(["flip", "affine", "shear", "crop"]), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
    size=st.sampled_from([(96, 128), (70, 70), (140, 90)]),
    fit=st.sampled_from(["stretch", "crop", "pad"]),
)
def test_in_any_order_and_fit(flips: list[str], seed: int, size: tuple[int, int], fit: Any) -> None:
    rng = np.random.default_rng(seed)
    pixels, boxes, points = scene(rng)
    placement = place(*SIZE, size, fit)
    for name in flips:
        change = OURS[name]
        placement = change.place(placement, rng.random(change.draws))
    seen, dots = carried(placement, boxes, points)
    assert (seen >= 0).all() and (seen <= [size[1], size[0]] * 2).all()
    x0, y0, x1, y1 = placement.window
    bx0, by0, bx1, by1 = placement.box
    warp = placement.warp or Warp(1, 0, 0, 0, 1, 0)
    larger = max((bx1 - bx0) / (x1 - x0), (by1 - by0) / (y1 - y0)) * max(1, np.abs(warp[:2] + warp[3:5]).max())
    smaller = min((bx1 - bx0) / (x1 - x0), (by1 - by0) / (y1 - y0)) * abs(warp.a * warp.d - warp.b * warp.c)
    if told_apart(seen) and smaller > 0.5:
        assert_told(drawn(pixels, placement), seen, dots, within=1.5 + 1.5 * max(1, larger))


def test_a_mirror_after_a_turn_mirrors_what_was_turned() -> None:
    pixels = picture(*SIZE)
    plain = place(*SIZE, SIZE, "stretch")
    turned = plain.warped(Warp(0.8, 0.3, 5, -0.2, 0.9, 3))
    once, twice = turned.mirrored(), turned.mirrored().mirrored()
    assert np.abs(drawn(pixels, once).astype(int) - drawn(pixels, turned)[:, ::-1]).max() <= 8
    assert np.allclose(twice.warp or (), turned.warp or ()) and not twice.flip
    first_mirrored = plain.mirrored().warped(Warp(1, 0, 20, 0, 1, 0))
    assert (drawn(pixels, first_mirrored)[:, 20:] == pixels[:, ::-1][:, :-20]).all()
    assert not drawn(pixels, first_mirrored)[:, :20].any()


def test_a_warp_of_nothing_changes_nothing() -> None:
    pixels, plain = picture(30, 40), place(30, 40, (30, 40), "stretch")
    same = plain.warped(Warp(1, 0, 0, 0, 1, 0))
    assert plain.keeps(30, 40) and not same.keeps(30, 40)
    assert (drawn(pixels, same) == pixels).all()
    quarter = plain.warped(Warp(0, 1, 5, -1, 0, 35))  # by 90 degrees around the middle
    turned = drawn(pixels, quarter)
    assert (turned[:, 5:35] == np.rot90(pixels[:, 5:35])).all() and not turned[:, :5].any()


@pytest.mark.parametrize(
    ("box", "warp", "found", "part"),
    [
        # of an image of 100 x 100
        ((10, 20, 30, 40), Warp(1, 0, 5, 0, 1, -5), (15, 15, 35, 35), 1.0),
        ((10, 20, 30, 40), Warp(1, 0, -20, 0, 1, 0), (0, 20, 10, 40), 0.5),
        ((10, 20, 30, 40), Warp(1, 0, -30, 0, 1, 0), None, 0.0),
        ((10, 20, 30, 40), Warp(2, 0, 0, 0, 3, 0), (20, 60, 60, 100), 2 / 3),
        # turned by 45 degrees: a corner of it alone is in the image, and of the box around it half would be
        ((0, 0, 10, 10), Warp(1, 1, -10, -1, 1, 50), (0, 40, 10, 60), 0.5),
        ((0, 0, 10, 10), Warp(1, 1, -19, -1, 1, 50), (0, 49, 1, 51), 0.005),
        # the corner of the box around it is in the image, and nothing of itself
        ((0, 0, 10, 10), Warp(1, 1, -16, -1, 1, -6), None, 0.0),
    ],
)
def test_a_warped_box(box: Any, warp: Warp, found: Any, part: float) -> None:
    moved, left = geometry.warped_box(np.array(box, np.float32), warp, 100, 100)
    assert left == pytest.approx(part, abs=1e-6)
    if found is not None:
        assert moved.tolist() == pytest.approx(list(found), abs=1e-4)


def test_what_crop_and_warp_leave_of_a_box_is_counted_together() -> None:
    """Half is cut by the window, and half of that by the shift: a quarter is left."""
    placement = Placement((50, 0, 100, 100), (100, 50), (0, 0, 50, 100)).warped(Warp(1, 0, 0, 0, 1, 90))
    box = np.array([[40, 0, 60, 20]], np.float32)
    for least, there in ((0.24, 1), (0.26, 0)):
        assert len(carry(box, [placement], NONE, min_visible=least)[0]) == there


def test_the_cache_warps_too(tmp_path: Path) -> None:
    records = [hr.Record(id=str(k), encoded=saved(picture(30, 40, seed=k), "PNG"), label_name="a") for k in range(4)]
    ds = pack(records, tmp_path / "ds")
    options: dict[str, Any] = {"size": (20, 24), "augment": (hr.Affine(), hr.HorizontalFlip(), hr.RandAugment())}
    plain, cached = ds.loader(**options), ds.loader(**options, cache="memory")
    for _ in range(3):
        assert all((one.images == two.images).all() for one, two in zip(plain, cached, strict=True))


# --- colours -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_grey_and_colour_in_place(name: str, channels: int) -> None:
    change, rng = AUGMENTATIONS[name], np.random.default_rng(0)
    batch = np.stack([picture(24, 32, channels=channels)] * 2)
    for _ in range(40):
        before = batch[1].copy()
        change.colour(batch[0], rng.random(change.draws))
        assert batch.shape == (2, 24, 32, channels) and (batch[1] == before).all()


def test_strengths_of_colours() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)

    def made(change: Any, *how: Any) -> Any:
        out = levels.copy()
        change(out, *how)
        return out[..., 0].ravel().astype(int)

    v = np.arange(256)
    assert (made(colours.solarize, 100) == np.where(v >= 100, 255 - v, v)).all()
    assert (made(colours.solarize, 256) == v).all()
    assert (made(colours.posterize, 8) == v).all() and (made(colours.posterize, 1) == v // 128 * 128).all()
    assert (made(colours.posterize, 3) == v // 32 * 32).all()
    assert (made(colours.brighten, 0.5) == np.rint(v / 2)).all() and made(colours.brighten, 2).max() == 255
    assert (made(colours.saturate, 0.3) == v).all()  # it is grey
    assert abs(made(colours.contrast, 0.0) - 127.5).max() <= 1
    flat = np.full((8, 8, 3), 90, np.uint8)
    for same in (colours.autocontrast, colours.equalize):
        same(flat)
        assert (flat == 90).all()
    part = np.clip(levels, 50, 100)
    colours.autocontrast(part)
    assert (part.min(), part.max()) == (0, 255)
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    colours.saturate(red, 0)
    assert np.ptp(red[0, 0]) == 0


def test_noise_is_normal() -> None:
    out = np.full((300, 400, 3), 128, np.uint8)
    colours.add_noise(out, 10.0, 5)
    off = out.astype(float) - 128
    assert abs(off.mean()) < 0.1 and abs(off.std() - 10) < 0.1
    assert abs((np.abs(off) < 10).mean() - 0.66) < 0.02
    other = np.full_like(out, 128)
    colours.add_noise(other, 10.0, 6)
    assert abs(np.corrcoef(off.ravel(), other.ravel().astype(float))[0, 1]) < 0.02
    edge = np.full((40, 40, 1), 253, np.uint8)
    colours.add_noise(edge, 10.0, 5)
    assert edge.min() > 200  # cut, not wrapped around


def test_erasing_covers_the_part_it_says() -> None:
    rng, shares = np.random.default_rng(1), []
    for _ in range(200):
        out = np.full((60, 80, 3), 7, np.uint8)
        hr.RandomErasing(p=1, scale=(0.1, 0.3), ratio=(0.5, 2)).colour(out, rng.random(6))
        y, x = np.nonzero((out != 7).any(axis=2))
        shares.append((np.ptp(x) + 1) * (np.ptp(y) + 1) / 4800)
        assert len(x) > 0.95 * (np.ptp(x) + 1) * (np.ptp(y) + 1)  # noise is 7 now and then
    assert 0.08 < min(shares) < 0.12 and 0.27 < max(shares) < 0.32


def test_probabilities() -> None:
    rng = np.random.default_rng(2)
    for change in (hr.GaussianBlur, hr.GaussianNoise, hr.RandomErasing, hr.Grayscale):
        changed = 0
        for _ in range(400):
            out = picture(16, 16)
            change(p=0.3).colour(out, rng.random(change.draws))
            changed += bool((out != picture(16, 16)).any())
        assert 80 < changed < 160
        never = picture(16, 16)
        change(p=0).colour(never, np.zeros(change.draws))
        assert (never == picture(16, 16)).all()


def test_rand_augment_draws_each_of_its_changes() -> None:
    change, rng = hr.RandAugment(n=1, magnitude=15), np.random.default_rng(0)
    drawn_ = [change._drawn(rng.random(2))[0] for _ in range(2000)]
    names = [name for name, _ in drawn_]
    assert len(set(names)) == 14 and all(100 < names.count(name) < 190 for name in set(names))
    assert {strength for _, strength in drawn_} == {0.5, -0.5}
    assert hr.RandAugment(n=3).draws == 6 and len(hr.RandAugment(n=3)._drawn(rng.random(6))) == 3
    plain = place(40, 60, (40, 60), "stretch")
    still = hr.RandAugment(n=5, magnitude=0).place(plain, rng.random(10))
    assert still.warp is None or np.allclose(still.warp, (1, 0, 0, 0, 1, 0))


def test_strengths_of_what_rand_augment_moves() -> None:
    """Torchvision judges colours and these where it is installed: tests/frameworks/test_transforms_of_others.py."""
    third = np.sqrt(3) / 2
    full = {name: made(1.0, 331, 662) for name, made in augment._MOVED.items()}
    assert {name: tuple(np.round(warp, 6)) for name, warp in full.items()} == {
        "rotate": tuple(np.round((third, 0.5, 0, -0.5, third, 0), 6)),
        "shear x": (1, 0.3, 0, 0, 1, 0),
        "shear y": (1, 0, 0, 0.3, 1, 0),
        "translate x": (1, 0, 150, 0, 1, 0),
        "translate y": (1, 0, 0, 0, 1, 300),
    }


# (what is made, what is said)
REFUSED: list[tuple[Any, str]] = [
    (lambda: hr.Affine(degrees=181), "degrees is 181, wanted 0 to 180"),
    (lambda: hr.Affine(translate=1), "translate is 1, wanted 0 <= x < 1"),
    (lambda: hr.Affine(scale=(0, 1)), "scale is"),
    (lambda: hr.Affine(shear=90), "shear is 90"),
    (lambda: hr.GaussianBlur(sigma=(0, 1)), "sigma is"),
    (lambda: hr.GaussianBlur(p=2), "p is 2, wanted 0 to 1"),
    (lambda: hr.GaussianNoise(sigma=(3, 2)), "sigma is"),
    (lambda: hr.GaussianNoise(p=-1), "p is -1"),
    (lambda: hr.RandomErasing(scale=(0, 1)), "scale is"),
    (lambda: hr.RandomErasing(ratio=(2, 1)), "ratio is"),
    (lambda: hr.RandomErasing(p=float("nan")), "p is nan"),
    (lambda: hr.Grayscale(p=1.5), "p is 1.5"),
    (lambda: hr.RandAugment(n=0), "n is 0, wanted a whole number"),
    (lambda: hr.RandAugment(n=1.5), "n is 1.5"),  # type: ignore[arg-type]
    (lambda: hr.RandAugment(magnitude=31), "magnitude is 31, wanted 0 to 30"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_options_check_themselves(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_who_moves_pixels() -> None:
    moving = {name for name, change in AUGMENTATIONS.items() if moves(change)}
    assert moving == {"flip", "crop", "affine", "randaugment"}


@pytest.mark.parametrize("name", ["affine", "randaugment"])
def test_y_that_would_not_move_along_is_refused(name: str) -> None:
    masks = np.zeros((3, 8, 8), np.uint8)
    ds = hr.ArrayDataset(np.zeros((3, 8, 8, 3), np.uint8), masks, labels="keep")
    with pytest.raises(UsageError, match=r"y is kept as it is, \[8, 8\] for each image, and would not move"):
        ds.loader(augment=AUGMENTATIONS[name])
    ds.loader(augment=(hr.GaussianNoise(), hr.Grayscale()))


# --- frozen --------------------------------------------------------------------------------------------------------

# Tables, Philox's bits and OpenCV's fixed-point blur are the same everywhere. Its warp, grey and weighted sums are not
# promised to the bit (OpenCV 5 has another warp than 4): a few levels at an edge.
EXACT = ("flip", "colour", "blur", "noise", "erase")


def outcome(name: str, seed: int) -> dict[str, Any]:
    """What one augmentation makes of a picture and a box."""
    change, chance = AUGMENTATIONS[name], np.random.Generator(np.random.Philox(seed)).random(AUGMENTATIONS[name].draws)
    if hasattr(change, "p"):
        change = replace(change, p=1.0)  # type: ignore[type-var]
    pixels = np.fromfunction(lambda y, x, c: (23 * x + 31 * y + 57 * c) % 256, (10, 12, 3)).astype(np.uint8)
    placement = change.place(place(10, 12, (10, 12), "stretch"), chance)
    out = drawn(pixels, placement)
    change.colour(out, chance)
    boxes, points = carried(placement, np.array([[2, 1, 9, 6]], np.float32), np.array([[[4, 3, 2]] * 3], np.float32))
    return {"pixels": out.ravel().tolist(), "boxes": boxes.tolist(), "points": points[0, :1].tolist()}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_they_make_is_frozen(name: str) -> None:
    """Seeds mean the same in every version. Made by `python tests/unit/test_augment.py`."""
    for seed, wanted in enumerate(json.loads(GOLDEN.read_text())[name]):
        found = outcome(name, seed)
        for labels in ("boxes", "points"):
            assert np.allclose(found[labels], wanted[labels], rtol=0, atol=1e-3)
        off = np.abs(np.subtract(found["pixels"], wanted["pixels"]))
        assert off.max() == 0 if name in EXACT else (off.mean() < 1.5 and off.max() <= 24)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: [outcome(name, seed) for seed in range(3)] for name in AUGMENTATIONS}) + "\n")
