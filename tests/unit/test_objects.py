"""What boxes and keypoints can be, names of classes, ids that occur twice, and budgets of Rejects: one judge each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headrace import order
from headrace.errors import DataError, UsageError
from headrace.imaging.objects import FAULTS, count_faults, judge_boxes
from headrace.packing.budget import Budget, shown
from headrace.record import Reject, check_names, keypoints_fault, odd_visibility

BORDER = np.array([0, 0, 40, 20], np.float32)
NAN, INF = float("nan"), float("inf")

# (box, what of it is kept, its fault, whether it is clipped)
BOXES = [
    ((1, 2, 3, 4), (1, 2, 3, 4), "", False),
    ((0, 0, 40, 20), (0, 0, 40, 20), "", False),
    ((-5, 2, 3, 4), (0, 2, 3, 4), "", True),
    ((-9e30, -1, 9e30, 99), (0, 0, 40, 20), "", True),
    ((-3e38, -3e38, 3e38, 3e38), (0, 0, 40, 20), "", True),
    ((40, 0, 50, 20), None, "outside of the image", False),
    ((-5, -5, -1, -1), None, "outside of the image", False),
    ((3, 2, 1, 4), None, "reversed", False),
    ((1, 4, 3, 2), None, "reversed", False),
    ((3, 4, 1, 2), None, "reversed", False),
    ((50, 2, 45, 4), None, "reversed", False),
    ((1, 2, 1, 4), None, "without an area", False),
    ((1, 2, 3, 2), None, "without an area", False),
    ((1, 2, 1, 2), None, "without an area", False),
    ((1, 2, 1 + 1e-38, 2 + 1e-38), None, "without an area", False),
    ((0, 0, 1e-30, 1e-30), None, "without an area", False),
    ((NAN, 2, 3, 4), None, "not finite", False),
    ((1, 2, 3, INF), None, "not finite", False),
    ((-INF, 2, 3, 4), None, "not finite", False),
]


@pytest.mark.parametrize(("box", "inside", "fault", "clipped"), BOXES)
def test_a_box(box: tuple[float, ...], inside: tuple[float, ...] | None, fault: str, clipped: bool) -> None:
    judged = judge_boxes(np.array([box], np.float32), BORDER)
    assert FAULTS[judged.faults[0]] == fault and judged.kept.tolist() == [inside is not None]
    assert judged.clipped.tolist() == [clipped] and judged.dropped() == ({fault: 1} if fault else {})
    if inside is not None:
        assert judged.boxes.tolist() == [list(inside)]


def test_boxes_of_several_images_at_once() -> None:
    boxes = np.array([box for box, *_ in BOXES], np.float32)
    judged = judge_boxes(boxes, np.tile(BORDER, (len(boxes), 1)))
    assert [FAULTS[fault] for fault in judged.faults] == [fault for *_, fault, _ in BOXES]
    assert judged.clipped.tolist() == [clipped for *_, clipped in BOXES]
    wanted = {"outside of the image": 2, "reversed": 4, "without an area": 5, "not finite": 3}
    assert judged.dropped() == count_faults(judged.faults) == wanted
    none = judge_boxes(np.zeros((0, 4), np.float32), BORDER)
    assert none.boxes.shape == (0, 4) and none.dropped() == {}


@given(arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=st.floats(width=32)))
def test_what_is_kept_is_a_box_of_the_image(boxes: np.ndarray) -> None:  # type: ignore[type-arg]
    judged = judge_boxes(boxes, BORDER)
    kept = judged.boxes[judged.kept]
    assert np.isfinite(judged.boxes).all()
    assert (kept[:, 2:] > kept[:, :2]).all() and (kept >= 0).all() and (kept <= BORDER[[2, 3, 2, 3]]).all()
    assert np.array_equal(kept[~judged.clipped[judged.kept]], boxes[judged.kept & ~judged.clipped])
    assert not (judged.clipped & ~judged.kept).any()
    assert judged.kept.sum() + judged.dropped().total() == len(boxes)


def points(*rows: tuple[float, float, float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([rows], np.float32)


GOOD = points((1, 2, 2), (0, 0, 0))


@pytest.mark.parametrize(
    ("given", "k", "boxes", "reason"),
    [
        (GOOD, 2, 1, None),
        (GOOD, 2, None, None),
        (GOOD[0], 2, 1, "the keypoints have shape [2, 3], wanted [n, k, 3]"),
        (GOOD[..., :2], 2, 1, "the keypoints have shape [1, 2, 2], wanted [n, k, 3]"),
        (GOOD, 3, 1, "2 keypoints per object, in this dataset they are 3"),
        (GOOD, 2, 4, "4 boxes, 1 sets of keypoints"),
        (points((1, NAN, 2), (0, 0, 0)), 2, 1, "keypoint 0 of object 0 is [1.0, nan, 2.0], wanted finite numbers"),
        (points((1, 2, 2), (0, 0, 3)), 2, 1, "keypoint 1 of object 0 has v 3, wanted 0, 1 or 2"),
        (points((1, 2, -1), (0, 0, 0.5)), 2, 1, "keypoint 0 of object 0 has v -1, wanted 0, 1 or 2"),
    ],
)
def test_keypoints(given: np.ndarray, k: int, boxes: int | None, reason: str | None) -> None:  # type: ignore[type-arg]
    assert keypoints_fault(given, k, boxes) == reason


def test_visibility() -> None:
    assert odd_visibility(GOOD) is None and odd_visibility(np.zeros((0, 3), np.float32)) is None
    assert odd_visibility(points((0, 0, 1), (0, 0, 7), (0, 0, 8))) == 7


@given(st.lists(st.integers(0, 6)))
def test_keys_that_occur_again(keys: list[int]) -> None:
    found = order.repeated(np.array(keys, np.uint64))
    assert found.tolist() == [key in keys[:i] for i, key in enumerate(keys)]


def test_names() -> None:
    assert check_names(["a", "b\u2028", "d\fe"], "class names") == ("a", "b\u2028", "d\fe")
    with pytest.raises(UsageError, match=r"^class names a, b, a: one occurs twice$"):
        check_names(["a", "b", "a"], "class names")
    with pytest.raises(UsageError, match=r"^class names: 'a\\nb' holds a line break$"):
        check_names(["a\nb"], "class names")
    with pytest.raises(UsageError, match=r"^class names: '' is a blank name$"):
        check_names(["a", "", ""], "class names")


REJECTS = [Reject(id=f"{i}", origin=f"a:{i}", stage="decode", reason="bad") for i in range(30)]


@pytest.mark.parametrize(
    ("most", "seen", "allowed"),
    [(0, 100, 0), (3, 100, 3), (3, 1, 3), (0.1, 100, 10), (0.1, 19, 1), (1.0, 7, 7), (0.0, 7, 0), (1, 100, 1)],
)
def test_a_budget(most: float | int, seen: int, allowed: int) -> None:
    budget = Budget(most)
    assert budget.allowed(seen) == allowed
    budget.check(allowed, seen=seen, first=REJECTS[:allowed])
    with pytest.raises(
        DataError, match=rf"^{allowed + 1} of {seen} records are rejected, {allowed} are allowed \(max_r"
    ):
        budget.check(allowed + 1, seen=seen, first=REJECTS[: allowed + 1])


@pytest.mark.parametrize(
    ("rejected", "seen", "enough"), [(722, 1325, "0.6"), (5, 10, "0.6"), (1, 100, "0.1"), (10, 10, "1")]
)
def test_what_would_be_enough(rejected: int, seen: int, enough: str) -> None:
    with pytest.raises(DataError, match=rf"allow more, as in max_rejects={enough}:"):
        Budget(0).check(rejected, seen=seen, first=())
    Budget(float(enough)).check(rejected, seen=seen, first=())


@pytest.mark.parametrize("most", [-1, -0.1, 1.5, NAN])
def test_no_budget(most: float) -> None:
    with pytest.raises(UsageError, match=f"max_rejects is {most}, wanted a share"):
        Budget(most)


def test_the_first_rejects_are_shown() -> None:
    assert shown(REJECTS[:2], 2) == "\n  a:0: bad (decode)\n  a:1: bad (decode)"
    assert shown(REJECTS[:10], 30).splitlines()[-1] == "  ... and 20 more" and shown(REJECTS, 30).count("bad") == 10
