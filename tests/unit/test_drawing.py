"""Boxes and points drawn on images: pixels at known places."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.imaging.drawing import with_boxes, with_cells, with_dashes, with_heat, with_points

MAGENTA, GREEN = (233, 30, 140), (0, 200, 90)


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


def where(drawn: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """[n, 2]: rows and columns of the pixels of this very colour."""
    return np.argwhere((drawn == colour).all(axis=-1))


def test_classes_have_colours_of_their_own() -> None:
    photo = np.zeros((300, 300, 3), np.uint8)
    boxes = np.array([[30 * i, 100, 30 * i + 20, 120] for i in range(10)], np.float32)
    drawn = with_boxes(photo, boxes, [""] * 10, labels=np.array([*range(9), -1]))
    corners = [tuple(drawn[100, 30 * i].tolist()) for i in range(10)]
    assert len(set(corners)) == 10 and corners[0] == GREEN and (0, 0, 0) not in corners
    again = with_boxes(photo, boxes[:1], [""], labels=np.array([10]))  # there are colours for ten classes
    assert tuple(again[100, 0]) == corners[0]


def test_texts_of_boxes_do_not_cover_each_other() -> None:
    photo = np.zeros((300, 300, 3), np.uint8)
    boxes = np.array([[100, 100, 200, 200], [103, 102, 190, 190], [100, 250, 200, 290]], np.float32)

    def plates(*texts: str) -> int:
        return len(where(with_boxes(photo, boxes, texts), MAGENTA)) - len(
            where(with_boxes(photo, boxes, [""] * 3), MAGENTA)
        )

    one = plates("one", "", "")
    assert one > 100 and plates("one", "two", "") == one
    assert plates("one", "", "one") > 1.8 * one


@pytest.mark.parametrize("text", ["Hündin", "犬", "a\nb", "$", "x" * 1000])
@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (300, 3), (40, 50)])
def test_any_text_on_any_image(text: str, shape: tuple[int, int]) -> None:
    photo = np.zeros((*shape, 3), np.uint8)
    box = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    assert with_boxes(photo, box, [text], truth=box, labels=np.array([3])).shape == photo.shape
    assert with_points(photo, np.array([[0, 0, 1]], np.float32), [text]).shape == photo.shape
    assert with_dashes(photo, box).shape == photo.shape
    assert not photo.any()


def test_small_boxes_have_thin_lines() -> None:
    photo = np.zeros((600, 600, 3), np.uint8)
    drawn = with_boxes(photo, np.array([[10, 10, 18, 18], [100, 100, 400, 400]], np.float32), ["", ""])
    assert (drawn[11:17, 11:17] == 0).all() and (drawn[13, 10] == MAGENTA).all()
    assert (drawn[250, 99:102] == MAGENTA).all(axis=-1).sum() >= 2


def test_dashes() -> None:
    drawn = with_dashes(np.full((60, 60, 3), 128, np.uint8), np.array([[10, 10, 50, 40]], np.float32))
    top = drawn[10, 10:49, 0]
    assert {0, 255} == set(top.tolist()) and 0.4 < (top == 255).mean() < 0.8
    assert (drawn[12:37, 12:47] == 128).all() and (drawn[:9] == 128).all() and (drawn[:, 51:] == 128).all()


def test_hidden_points_are_rings() -> None:
    photo = np.zeros((600, 600, 3), np.uint8)
    points = np.array([(100.5, 100.5, 2), (300.5, 300.5, 1)], np.float32)
    drawn = with_points(photo, points, ("", ""), hidden=np.array([False, True]))
    assert drawn[100, 100].any() and not drawn[300, 300].any() and drawn[300, 307].any()
    assert (drawn[100, 100] == with_points(photo, points[:1], ("",))[100, 100]).all()  # a name has one colour


def test_a_name_is_written_once() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    points = np.array([(100, 100, 1), (100, 300, 1)], np.float32)

    def ink(*names: str) -> int:
        return int(with_points(photo, points, names).any(axis=-1).sum())

    assert ink("abc", "abc") - ink("", "") < 0.7 * (ink("abc", "abd") - ink("", ""))


def test_cells() -> None:
    cells = np.zeros((4, 4), bool)
    cells[1, 2] = True
    photo = np.zeros((80, 120, 3), np.uint8)
    drawn = with_cells(photo, cells, np.array([[70.5, 30.5]], np.float32))
    shade = np.rint(0.35 * np.array(MAGENTA)).astype(int)
    inside = where(drawn, tuple(shade.tolist()))
    assert inside.min(axis=0).tolist() == [21, 61] and inside.max(axis=0).tolist() == [39, 89]
    assert (drawn[[20, 40, 60], 5] == 153).all() and (drawn[5, [30, 60, 90]] == 153).all()
    assert not drawn[1:19, 1:29].any()
    assert (drawn[30, 70] == MAGENTA).all()
    assert not photo.any()


def test_heat_glows_where_it_is() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    glow = with_heat(np.zeros((80, 120, 3), np.uint8), heat)
    assert np.unravel_index(glow[..., 0].argmax(), (80, 120))[0] in range(20, 40) and glow[30, 75, 0] > 180
    assert not glow[60:].any()
