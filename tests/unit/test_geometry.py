"""Boxes and points under moves, cuts and turns, as tables."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.imaging import codec, geometry
from headrace.imaging.geometry import Move

NONE = np.zeros((0, 4), np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> geometry.Array:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("move", "before", "after"),
    [
        # as it was
        (Move(1, 0, 1, 0), (1, 2, 3, 4), (1, 2, 3, 4)),
        # scaled, then shifted
        (Move(2, 10, 0.5, -1), (1, 2, 3, 4), (12, 0, 16, 1)),
        # mirrored in a width of 10: the corners change places, and stay ordered
        (Move(-1, 10, 1, 0), (1, 2, 4, 5), (6, 2, 9, 5)),
        (Move(-1, 10, -1, 20), (0, 0, 10, 20), (0, 0, 10, 20)),
        # all to one point
        (Move(0, 3, 0, 4), (1, 2, 3, 4), (3, 4, 3, 4)),
    ],
)
def test_move_boxes(move: Move, before: tuple[float, ...], after: tuple[float, ...]) -> None:
    given = boxes(before, (0, 0, 0, 0))  # type: ignore[arg-type]
    kept = given.copy()
    found = move.boxes(given)
    assert found.dtype == np.float32
    assert found[0].tolist() == list(after)
    assert (given == kept).all()


def test_move_points() -> None:
    points = np.array([[[1, 2, 2], [3, 4, 1], [5, 6, 0]]], np.float32)
    found = Move(2, 1, -1, 10).points(points)
    assert found.dtype == np.float32
    # visible and hidden ones move, the absent one stays
    assert found.tolist() == [[[3, 8, 2], [7, 6, 1], [5, 6, 0]]]
    assert points[0, 0].tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("before", "after", "area"),
    [
        # in an image of 10 x 20 (h x w)
        ((1, 2, 3, 4), (1, 2, 3, 4), 4),
        ((-5, -5, 25, 15), (0, 0, 20, 10), 200),
        ((15, 5, 25, 8), (15, 5, 20, 8), 15),
        ((0, 0, 20, 10), (0, 0, 20, 10), 200),
        # outside: nothing is left
        ((21, 0, 25, 5), (20, 0, 20, 5), 0),
        ((-9, -9, -1, -1), (0, 0, 0, 0), 0),
        # without extent
        ((3, 3, 3, 8), (3, 3, 3, 8), 0),
        # corners that are no box
        ((8, 8, 3, 3), (8, 8, 3, 3), 0),
    ],
)
def test_clip_and_area(before: tuple[float, ...], after: tuple[float, ...], area: float) -> None:
    found = geometry.clip(boxes(before), 10, 20)  # type: ignore[arg-type]
    assert found.dtype == np.float32 and geometry.area(found).dtype == np.float32
    assert found.tolist() == [list(after)]
    assert geometry.area(found).tolist() == [area]


# Where a box at (1, 2)-(4, 3) of a stored image of 5 x 8 (h x w) is seen.
TURNED = {
    1: (1, 2, 4, 3),
    2: (4, 2, 7, 3),  # left and right
    3: (4, 2, 7, 3),  # half a turn: y 5 - 3, 5 - 2
    4: (1, 2, 4, 3),  # top and bottom: y 5 - 3, 5 - 2
    5: (2, 1, 3, 4),  # rows become columns
    6: (2, 1, 3, 4),  # a quarter clockwise: x 5 - 3, 5 - 2
    7: (2, 4, 3, 7),
    8: (2, 4, 3, 7),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_turn_boxes(orientation: int) -> None:
    found = geometry.turn_boxes(boxes((1, 2, 4, 3)), orientation, 5, 8)
    assert found.dtype == np.float32
    assert found.tolist() == [list(TURNED[orientation])]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_points_turn_with_the_pixels(orientation: int) -> None:
    """Every pixel of a 3 x 5 image, as a box and as a point in its middle."""
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5, 1)
    seen = codec.upright(pixels, orientation)[..., 0]
    for y in range(3):
        for x in range(5):
            x0, y0, x1, y1 = geometry.turn_boxes(boxes((x, y, x + 1, y + 1)), orientation, 3, 5)[0]
            assert (x1 - x0, y1 - y0) == (1, 1)
            assert seen[int(y0), int(x0)] == pixels[y, x, 0]
            point = np.array([x + 0.5, y + 0.5, 2], np.float32)
            px, py, v = geometry.turn_points(point, orientation, 3, 5)
            assert (px, py, v) == (x0 + 0.5, y0 + 0.5, 2)


def test_absent_points_stay() -> None:
    points = np.array([[[0, 0, 0], [1, 1, 1]]], np.float32)
    found = geometry.turn_points(points, 3, 10, 10)
    assert found.dtype == np.float32
    assert found.tolist() == [[[0, 0, 0], [9, 9, 1]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_no_boxes(orientation: int) -> None:
    for found in (
        Move(-2, 1, 1, 0).boxes(NONE),
        geometry.clip(NONE, 5, 5),
        geometry.turn_boxes(NONE, orientation, 5, 5),
    ):
        assert found.shape == (0, 4) and found.dtype == np.float32
    assert geometry.area(NONE).shape == (0,)
    for points in (np.zeros((0, 17, 3), np.float32), np.zeros((2, 0, 3), np.float32)):
        assert geometry.turn_points(points, orientation, 5, 5).shape == points.shape
        assert Move(1, 1, 1, 1).points(points).shape == points.shape
