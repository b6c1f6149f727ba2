"""Boxes and points drawn on images: pixels at known places."""

from __future__ import annotations

import numpy as np

from headrace.imaging.drawing import with_boxes, with_points


def test_boxes_are_drawn_where_they_are() -> None:
    photo = np.zeros((100, 200, 3), np.uint8)
    box, there = np.array([[20, 40, 60, 90]], np.float32), np.array([[120, 40, 160, 90]], np.float32)
    drawn = with_boxes(photo, box, ["0.50"], truth=there)
    magenta, green = (np.argwhere((drawn == colour).all(-1)) for colour in ((233, 30, 140), (0, 200, 90)))
    assert magenta[:, 0].max() == 89 and magenta[:, 1].min() == 20
    low, high = green.min(0), green.max(0)
    assert np.abs(low - (40, 120)).max() <= 1 and np.abs(high - (89, 159)).max() <= 1
    edge = with_boxes(photo, np.array([[150, 0, 200, 100]], np.float32), ["0.99"])
    assert (edge[:20, 150:] == 255).any()  # its text has found room inside


def test_points_are_drawn_where_they_are() -> None:
    photo = np.zeros((100, 150, 3), np.uint8)
    found = np.array([(40.5, 30.5, 0.9), (0, 0, 0)], np.float32)
    truth = np.array([(60.5, 30.5, 2), (100.5, 80.5, 1)], np.float32)
    drawn = with_points(photo, found, ("a", "b"), truth=truth).astype(int)
    disc = np.argwhere((drawn[..., 2] > 150) & (drawn[..., 1] < 200))
    assert np.abs(disc.mean(axis=0) - (30, 40)).max() < 0.6 and np.ptp(disc, axis=0).max() <= 6
    green = (drawn[..., 1] > 150) & (drawn[..., 2] < 120)
    right = np.argwhere(green)[np.argwhere(green)[:, 1] > 80]
    assert np.abs(right.mean(axis=0) - (80, 100)).max() < 0.6  # the ring of what was not found
    assert green[30, 48:54].all()  # the line from what was found to what is there
    assert not drawn[60:, :80].any()
    assert not with_points(photo, 0 * found, ("a", "b")).any()


def test_names_are_drawn_on_large_photos_where_there_is_room() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)

    def ink(*where: tuple[float, float], names: tuple[str, ...] = ("abc", "def")) -> int:
        found = np.array([(*place, 1) for place in where], np.float32)
        return int(with_points(photo, found, names).any(axis=-1).sum())

    apart, over, corner = ink((100, 100), (100, 300)), ink((100, 100), (100, 102)), ink((399, 399), (1, 1))
    bare = ink((100, 100), (100, 300), names=("", ""))
    assert apart > bare + 100 and apart - over > 50  # of two that would lie over each other, one is left
    assert corner > bare // 2 + 100
