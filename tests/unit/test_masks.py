"""Masks through turns and placements: what the properties don't say."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.imaging import masks
from headrace.imaging.codec import BadImage
from headrace.imaging.placement import Placement
from headrace.record import Mask

WHOLE = Placement((0, 0, 8, 6), (6, 8), (0, 0, 8, 6))
RIGHT_HALF = Placement((4, 0, 8, 6), (12, 8), (0, 0, 8, 12))  # twice as large
TRIANGLE = np.array([[0, 0], [8, 0], [0, 6]], np.float32)


def test_what_keeps_its_place_stays_the_same() -> None:
    runs = Mask(runs=np.array([2, 3, 43]), size=(6, 8))
    corners = Mask(polygons=(TRIANGLE,))
    assert masks.turn_mask(runs, 1, 6, 8) is runs
    assert masks.carry_mask(runs, WHOLE, 6, 8) is runs
    assert masks.turn_mask(corners, 1, 6, 8) is corners
    assert masks.carry_mask(corners, WHOLE, 6, 8).polygons[0].tolist() == TRIANGLE.tolist()


def test_a_corner_is_cut_off() -> None:
    (polygon,) = masks.carry_mask(Mask(polygons=(TRIANGLE,)), RIGHT_HALF, 6, 8).polygons
    assert {tuple(corner) for corner in polygon.tolist()} == {(0, 0), (8, 0), (0, 6)}
    assert polygon.dtype == np.float32


def test_what_reaches_out_of_the_image_is_cut() -> None:
    (polygon,) = masks.carry_mask(Mask(polygons=(TRIANGLE * 100 - 50,)), WHOLE, 6, 8).polygons
    assert (polygon.min(0).tolist(), polygon.max(0).tolist()) == ([0, 0], [8, 6])


def test_a_mask_that_vanishes_covers_nothing_and_is_not_unknown() -> None:
    left = Mask(polygons=(TRIANGLE / 4, np.array([[4, 0], [4, 6], [4, 3]], np.float32)))
    assert masks.carry_mask(left, RIGHT_HALF, 6, 8).polygons == ()
    runs = masks.carry_mask(Mask(runs=np.array([2, 3, 43]), size=(6, 8)), RIGHT_HALF, 6, 8)
    assert runs.runs is not None and runs.runs.tolist() == [96] and runs.size == (12, 8)
    assert masks.area(runs) == masks.area(masks.carry_mask(left, RIGHT_HALF, 6, 8)) == 0


def test_areas() -> None:
    assert masks.area(Mask(polygons=(TRIANGLE, TRIANGLE[::-1] / 2))) == 24 + 6
    assert masks.area(Mask(runs=np.array([0, 3, 4, 5]), size=(3, 4))) == 8
    assert masks.encode_runs(np.zeros((0, 4), np.bool_)).tolist() == []


@pytest.mark.parametrize("size", [(8, 6), (6, 9)])
def test_runs_of_another_image_are_refused(size: tuple[int, int]) -> None:
    mask = Mask(runs=np.array([size[0] * size[1]]), size=size)
    for act in (lambda: masks.turn_mask(mask, 6, 6, 8), lambda: masks.carry_mask(mask, RIGHT_HALF, 6, 8)):
        with pytest.raises(BadImage, match="the image is 8 x 6 pixels, a mask of it is for") as caught:
            act()
        assert caught.value.stage == "label"
