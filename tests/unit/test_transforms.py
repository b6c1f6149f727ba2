"""Where pixels go: the fits as a table, drawing, and augmentation by given numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from drawn import picture
from headrace.errors import UsageError
from headrace.imaging.augment import ColorJitter, HorizontalFlip, RandomResizedCrop
from headrace.imaging.placement import Placement, check_fit, check_size, draw, place


@pytest.mark.parametrize(
    ("source", "size", "fit", "window", "box"),
    [
        # sizes are height, width; window and box are x0, y0, x1, y1
        ((100, 200), (50, 50), "stretch", (0, 0, 200, 100), (0, 0, 50, 50)),
        ((100, 200), (50, 50), "crop", (50, 0, 150, 100), (0, 0, 50, 50)),
        ((200, 100), (50, 50), "crop", (0, 50, 100, 150), (0, 0, 50, 50)),
        ((100, 200), (50, 50), "pad", (0, 0, 200, 100), (0, 12, 50, 37)),
        ((200, 100), (50, 50), "pad", (0, 0, 100, 200), (12, 0, 37, 50)),
        # the same sides: all fits are one
        ((60, 90), (40, 60), "crop", (0, 0, 90, 60), (0, 0, 60, 40)),
        ((60, 90), (40, 60), "pad", (0, 0, 90, 60), (0, 0, 60, 40)),
        # not square
        ((100, 100), (50, 100), "crop", (0, 25, 100, 75), (0, 0, 100, 50)),
        ((100, 100), (50, 100), "pad", (0, 0, 100, 100), (25, 0, 75, 50)),
        # enlarged
        ((10, 20), (40, 40), "crop", (5, 0, 15, 10), (0, 0, 40, 40)),
        ((10, 20), (40, 40), "pad", (0, 0, 20, 10), (0, 10, 40, 30)),
        # so thin that rounding would leave nothing
        ((1, 1000), (10, 10), "pad", (0, 0, 1000, 1), (0, 4, 10, 5)),
        ((1000, 1), (10, 1000), "crop", (0, 499, 1, 500), (0, 0, 1000, 10)),
    ],
)
def test_place(source: Any, size: Any, fit: Any, window: Any, box: Any) -> None:
    assert place(*source, size, fit) == Placement(window, size, box)


@pytest.mark.parametrize(
    ("size", "pair"), [(None, None), (7, (7, 7)), ((3, 5), (3, 5)), ([3, 5], (3, 5)), (65500, (65500, 65500))]
)
def test_check_size(size: Any, pair: Any) -> None:
    assert check_size(size) == pair


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5,), (1, 2, 3), 65501, (2.5, 3), ("4", "4")])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(UsageError, match=r"wanted an int or \(height, width\)"):
        check_size(size)


def test_check_fit() -> None:
    assert check_fit("pad") == "pad"
    with pytest.raises(UsageError, match="fit is 'cover', wanted one of stretch, crop, pad"):
        check_fit("cover")


def drawn(pixels: np.ndarray, placement: Placement) -> np.ndarray:
    out = np.full((*placement.size, pixels.shape[2]), 77, np.uint8)
    draw(pixels, placement, *pixels.shape[:2], out)
    return out


def test_drawing_at_the_same_size_changes_nothing() -> None:
    pixels = picture(13, 17)
    for fit in ("stretch", "crop", "pad"):
        assert (drawn(pixels, place(13, 17, (13, 17), fit)) == pixels).all()  # type: ignore[arg-type]


def test_a_crop_at_the_same_scale_is_a_part() -> None:
    pixels = picture(20, 30)
    assert (drawn(pixels, place(20, 30, (20, 10), "crop")) == pixels[:, 10:20]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_what_lies_around_is_black(channels: int) -> None:
    pixels = np.full((20, 10, channels), 200, np.uint8)
    out = drawn(pixels, place(20, 10, (20, 30), "pad"))
    assert (out[:, 10:20] == 200).all()
    assert not out[:, :10].any() and not out[:, 20:].any()


def test_flip_is_of_the_output() -> None:
    pixels = picture(20, 30)
    straight = place(20, 30, (15, 15), "pad")
    flipped = Placement(straight.window, straight.size, straight.box, flip=True)
    assert (drawn(pixels, flipped) == drawn(pixels, straight)[:, ::-1]).all()


@pytest.mark.parametrize(
    ("source", "out"), [*itertools.product([(1, 1), (1, 50), (50, 1)], [(1, 1), (1, 9), (9, 1), (7, 7)])]
)
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_single_row_or_column(source: tuple[int, int], out: tuple[int, int], fit: Any) -> None:
    white = np.full((*source, 3), 255, np.uint8)
    placement = place(*source, out, fit)
    found = drawn(white, placement)
    x0, y0, x1, y1 = placement.box
    assert (found[y0:y1, x0:x1] == 255).all()
    assert int((found[..., 0] == 255).sum()) == (x1 - x0) * (y1 - y0) > 0


def test_shrinking_far_is_an_average() -> None:
    """Linear interpolation would pick single pixels of a fine pattern; the mean of it is a dark grey."""
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, 3::8] = stripes[:, 4::8] = (
        255  # a quarter is white, and in the middle between two of the output's pixels
    )
    found = drawn(stripes, place(64, 64, (8, 8), "stretch"))
    assert np.abs(found.astype(int) - 64).max() <= 1


@pytest.mark.parametrize(
    ("source", "size", "fit", "least"),
    [
        ((100, 200), (50, 50), "stretch", (50, 50)),
        ((100, 200), (50, 50), "crop", (50, 100)),
        ((100, 200), (50, 50), "pad", (25, 50)),
        ((10, 20), (40, 40), "stretch", (40, 40)),
    ],
)
def test_least_size_to_decode(source: Any, size: Any, fit: Any, least: Any) -> None:
    """What is decoded no smaller than this is never enlarged."""
    assert place(*source, size, fit).least(*source) == least


def test_horizontal_flip() -> None:
    straight = place(10, 20, (5, 5), "crop")
    for p, chance, flip in ((0.5, 0.49, True), (0.5, 0.5, False), (1.0, 0.999, True), (0.0, 0.0, False)):
        assert HorizontalFlip(p=p).place(straight, np.array([chance])).flip is flip
    twice = HorizontalFlip(p=1).place(HorizontalFlip(p=1).place(straight, np.zeros(1)), np.zeros(1))
    assert twice == straight


@pytest.mark.parametrize(
    ("chance", "window"),
    [
        # of 100 x 200 (h x w): half the area, square, in each corner and in the middle
        ((0, 0.5, 0, 0), (0, 0, 100, 100)),
        ((0, 0.5, 0.9999, 0.9999), (100, 0, 200, 100)),
        ((0, 0.5, 0.5, 0.5), (50, 0, 150, 100)),
        # all of the area, but no wider than 4:3
        ((0.9999, 0.9999, 0, 0), (0, 0, 163, 100)),
    ],
)
def test_random_resized_crop(chance: tuple[float, ...], window: tuple[int, ...]) -> None:
    start = place(100, 200, (30, 40), "pad")
    found = RandomResizedCrop(scale=(0.5, 1)).place(start, np.array(chance))
    assert found == Placement(window, (30, 40), (0, 0, 40, 30))  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_random_crop_stays_inside_what_the_fit_shows(fit: Any) -> None:
    rng = np.random.default_rng(0)
    crop = RandomResizedCrop(scale=(0.01, 1), ratio=(0.2, 5))
    for height, width in ((1, 1), (1, 40), (37, 11), (64, 64)):
        start = place(height, width, (16, 24), fit)
        for _ in range(200):
            x0, y0, x1, y1 = crop.place(start, rng.random(4)).window
            assert start.window[0] <= x0 < x1 <= start.window[2]
            assert start.window[1] <= y0 < y1 <= start.window[3]


def test_color_jitter() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    half = np.array([0.5, 0.5])  # both factors are 1

    def jittered(chance: np.ndarray, **options: float) -> np.ndarray:
        out = levels.copy()
        ColorJitter(**options).colour(out, chance)
        return out.astype(int)

    assert (jittered(half, brightness=0.9, contrast=0.9) == levels).all()
    assert (jittered(np.array([0, 1]), brightness=0, contrast=0) == levels).all()
    dark = jittered(np.array([0, 0.5]), brightness=0.5)
    assert np.abs(dark - levels / 2).max() <= 0.5
    assert jittered(np.array([1, 0.5]), brightness=0.5).max() == 255  # cut, not wrapped around
    flat = jittered(np.array([0.5, 0]), contrast=0.5)
    assert np.abs(flat - (levels / 2 + 64)).max() <= 0.5
    start = place(4, 4, (2, 2), "crop")
    assert ColorJitter().place(start, half) == start


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: HorizontalFlip(p=1.1), "p is 1.1, wanted 0 to 1"),
        (lambda: HorizontalFlip(p=float("nan")), "p is nan"),
        (lambda: RandomResizedCrop(scale=(0, 1)), "scale is"),
        (lambda: RandomResizedCrop(scale=(0.9, 0.5)), "scale is"),
        (lambda: RandomResizedCrop(ratio=(0, 1)), "ratio is"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "ratio is"),
        (lambda: ColorJitter(brightness=1), "brightness is 1, wanted 0 <= x < 1"),
        (lambda: ColorJitter(contrast=-0.1), "contrast is -0.1"),
    ],
)
def test_options_check_themselves(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()
