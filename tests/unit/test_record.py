"""What a record can be in itself: one judge, that says a reason and never raises."""

from __future__ import annotations

import functools
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from drawn import TINY_PNG
from headrace.record import Mask, Part, Record, box_faults, check_record, name_fault

NAN, INF = float("nan"), float("inf")
BOX = np.array([[0, 0, 3, 2]], np.float32)
POINTS = np.ones((1, 3, 3), np.float32)
ABOVE = "wanted the number of a class, from 0 on, or None for no label"


def record(**fields: Any) -> Record:
    return Record(**{"id": "a", "encoded": TINY_PNG, "origin": "list.csv:3", **fields})


class Odd:
    """An attribute that can't even be shown."""

    def __repr__(self) -> str:
        raise ZeroDivisionError("no name of mine")


DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(100_000), [])

GOOD: list[dict[str, Any]] = [
    {},
    {"id": "é/猫 1.jpg", "origin": ""},
    {"encoded": bytearray(TINY_PNG)},
    {"encoded": None, "path": "caf\udce9.jpg"},  # of a folder that is no UTF-8
    {"encoded": None, "part": Part("all.tar", 0, 9)},
    {"label": 0},
    {"boxes": BOX * [1, 1, 0, 1]},  # without an area: left out, and counted
    {"label": np.int64(7)},
    {"label_name": "b\u2028c"},
    {"boxes": BOX, "box_labels": ("face",), "keypoints": POINTS},
    {"boxes": BOX.astype(np.int64), "box_labels": ["face"]},
    {"boxes": BOX[:0], "box_labels": (), "keypoints": POINTS[:0]},
    {"boxes": BOX - 900},  # whether it lies in the image is told by the image
    {"keypoints": POINTS},
    {"attributes": {"a": [np.float32(0.5), np.arange(3)], "b": {"é": None}, 7: float("nan")}},
    {"size": (3, np.int32(4)), "window": (0, -1.5, 3, 4), "split": "any thing", "attributes": {"a": 1}},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, "the id is None, wanted a str"),
    ({"id": 7}, "the id is 7, wanted a str"),
    ({"id": ""}, "the id is empty"),
    ({"id": "a\ud800"}, "the id 'a\\ud800' holds halves of characters"),
    ({"origin": None}, "the origin is None, wanted a str"),
    ({"encoded": "text"}, "encoded is str, wanted bytes"),
    ({"encoded": np.zeros(3, np.uint8)}, "encoded is ndarray, wanted bytes"),
    ({"encoded": None}, "it has no image: wanted encoded bytes, a path, a part or pixels"),
    ({"encoded": None, "path": Path("a.jpg")}, "the path is PosixPath('a.jpg'), wanted a str without null characters"),
    ({"encoded": None, "path": "a\0"}, "the path is 'a\\x00', wanted a str without null characters"),
    ({"encoded": None, "part": ("a", 0, 1)}, "the part is ('a', 0, 1), wanted a Part"),
    ({"label": -1}, f"label -1, {ABOVE}"),
    ({"label": 1 << 31}, f"label {1 << 31}, {ABOVE}"),
    ({"label": 1.0}, f"label 1.0, {ABOVE}"),
    ({"label": "cat"}, f"label 'cat', {ABOVE}"),
    ({"label_name": 3}, "class name 3 is no name, wanted a str"),
    ({"label_name": ""}, "class name '' is a blank name"),
    ({"label_name": " \t"}, "class name ' \\t' is a blank name"),
    ({"label_name": "a\nb"}, "class name 'a\\nb' holds a line break"),
    ({"label_name": "a\r"}, "class name 'a\\r' holds a line break"),
    ({"label_name": "\ufeffa"}, "class name '\\ufeffa' begins with a byte order mark"),
    ({"label_name": "\udcff"}, "class name '\\udcff' holds halves of characters"),
    ({"boxes": [[0, 0, 1, 1]]}, "the boxes are [[0, 0, 1, 1]], wanted an array float32"),
    ({"boxes": np.array(["x"])}, "the boxes are array(['x'], dtype='<U1'), wanted an array float32"),
    ({"boxes": BOX[0]}, "the boxes have shape [4], wanted [n, 4]"),
    ({"boxes": np.zeros(0)}, "the boxes have shape [0], wanted [n, 4]"),
    ({"boxes": BOX[:, :3]}, "the boxes have shape [1, 3], wanted [n, 4]"),
    ({"boxes": BOX * [1, NAN, 1, 1]}, "box 0 is [0.0, nan, 3.0, 2.0], not finite; wanted x0 < x1 and y0 < y1"),
    ({"boxes": np.array([[0, 0, 1, 1e300]])}, "box 0 is [0.0, 0.0, 1.0, 1e+300], not finite; wanted x0 < x1"),
    ({"boxes": np.concatenate([BOX, BOX[:, ::-1]])}, "box 1 is [2.0, 3.0, 0.0, 0.0], reversed; wanted x0 < x1"),
    ({"boxes": BOX, "box_labels": "f"}, "the labels of boxes are 'f', wanted a tuple of names"),
    ({"boxes": BOX, "box_labels": ("a", "b")}, "1 boxes, 2 labels of boxes"),
    ({"box_labels": ("a",)}, "no boxes, 1 labels of boxes"),
    ({"boxes": BOX, "box_labels": (7,)}, "label 0 of boxes: 7 is no name, wanted a str"),
    ({"boxes": BOX, "box_labels": ("a\nb",)}, "label 0 of boxes: 'a\\nb' holds a line break"),
    ({"keypoints": [1]}, "the keypoints are [1], wanted an array float32"),
    ({"keypoints": POINTS[0]}, "the keypoints have shape [3, 3], wanted [n, k, 3]"),
    ({"keypoints": POINTS[:, :0]}, "the keypoints have shape [1, 0, 3], wanted [n, k, 3]"),
    ({"keypoints": POINTS, "boxes": BOX[:0]}, "0 boxes, 1 sets of keypoints"),
    ({"keypoints": POINTS * NAN}, "keypoint 0 of object 0 is [nan, nan, nan], wanted finite numbers"),
    ({"keypoints": POINTS * 3}, "keypoint 0 of object 0 has v 3, wanted 0, 1 or 2"),
    ({"size": (3, 0)}, "the size is (3, 0), wanted (height, width) in pixels"),
    ({"size": 3}, "the size is 3, wanted (height, width) in pixels"),
    ({"window": (0, 0, 0, 1)}, "the window is (0, 0, 0, 1), wanted (x0, y0, x1, y1), x0 < x1 and y0 < y1"),
    ({"window": (0, 0, NAN, 1)}, "the window is (0, 0, nan, 1), wanted (x0, y0, x1, y1), x0 < x1 and y0 < y1"),
    ({"window": (0, 0, 10**400, 1)}, "the window is (0, 0, 1000000"),
    ({"window": "abcd"}, "the window is 'abcd', wanted (x0, y0, x1, y1), x0 < x1 and y0 < y1"),
    ({"attributes": None}, "the attributes are None, wanted a mapping"),
    ({"attributes": {"a": {1}}}, "the attributes are no JSON: {1} is set"),
    ({"attributes": {"a": b"x"}}, "the attributes are no JSON: b'x' is bytes"),
    ({"attributes": {(1, 2): 3}}, "the attributes are no JSON: keys must be str"),
    ({"attributes": {"a": "\ud800"}}, "the attributes are no JSON: a text holds halves of characters"),
    ({"attributes": {"\udcff": 1}}, "the attributes are no JSON: a text holds halves of characters"),
    ({"attributes": {"a": DEEP}}, "the attributes are no JSON: nested too deeply"),
    ({"attributes": {"a": Odd()}}, "the attributes are no JSON: no name of mine"),
    ({"split": 1}, "the split is 1, wanted a str"),
    ({"labels": "cat"}, "the labels are 'cat', wanted a tuple of class names"),
    ({"labels": ("a", "a")}, "the labels a, a: one occurs twice"),
    ({"labels": ("a", "")}, "label 1: '' is a blank name"),
    ({"labels": ("a",), "label_name": "a"}, "it has one label and labels, wanted one of the two"),
    ({"labels": (), "label": 0}, "it has one label and labels, wanted one of the two"),
    ({"value": "1"}, "the value is '1', wanted a finite number"),
    ({"value": True}, "the value is True, wanted a finite number"),
    ({"value": NAN}, "the value is nan, wanted a finite number"),
    ({"value": 10**400}, "the value is 1000"),
    ({"captions": "a cat"}, "the captions are 'a cat', wanted a tuple of texts"),
    ({"captions": ("\udcff",)}, "the captions are ('\\udcff',), wanted a tuple of texts"),
    ({"group": ""}, "the group is '', wanted a str that is not empty"),
    ({"group": 7}, "the group is 7, wanted a str that is not empty"),
    ({"upright": 1}, "upright is 1, wanted True or False"),
    ({"masks": (None,)}, "no boxes, 1 masks"),
    ({"boxes": BOX, "masks": (None, None)}, "1 boxes, 2 masks"),
    ({"boxes": BOX, "masks": 7}, "the masks are 7, wanted a tuple of Masks"),
    ({"boxes": BOX, "masks": (7,)}, "mask 0: 7 is none, wanted a Mask"),
    ({"boxes": BOX, "masks": (Mask(polygons=7),)}, "mask 0: the polygons are 7, wanted a tuple"),
    ({"boxes": BOX, "masks": (Mask(polygons=(BOX,)),)}, "mask 0: a polygon is <float32 [1, 4]>, wanted float32 [m, 2]"),
    ({"boxes": BOX, "masks": (Mask(polygons=(np.zeros((2, 2)),)),)}, "mask 0: a polygon is <float64 [2, 2]>, wanted"),
    ({"boxes": BOX, "masks": (Mask(polygons=(np.full((3, 2), NAN),)),)}, "mask 0: a polygon has corners that are not"),
    ({"boxes": BOX, "masks": (Mask(runs=np.array([6])),)}, "mask 0: its size is None, wanted (height, width)"),
    ({"boxes": BOX, "masks": (Mask(runs=np.array([5]), size=(2, 3)),)}, "mask 0: its runs sum to 5, wanted 2 x 3"),
    ({"boxes": BOX, "masks": (Mask(runs=np.array([7, -1]), size=(2, 3)),)}, "mask 0: its runs are <int64 [2]>, wanted"),
    ({"boxes": BOX, "masks": (Mask(runs=np.array([3.0, 3]), size=(2, 3)),)}, "mask 0: its runs are <float64 [2]>"),
    ({"boxes": BOX, "masks": (Mask(runs=np.array([1 << 63] * 2 + [6], "u8"), size=(2, 3)),)}, "mask 0: its runs sum"),
    (
        {"boxes": BOX, "masks": (Mask(polygons=(np.eye(3, 2),), runs=np.array([6]), size=(2, 3)),)},
        "mask 0: it has polygons and runs, wanted one of the two",
    ),
]  # fmt: skip


@pytest.mark.parametrize("good", GOOD)
def test_a_sound_record(good: dict[str, Any]) -> None:
    assert check_record(record(**good)) is None


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_what_is_wrong(bad: dict[str, Any], reason: str) -> None:
    found = check_record(record(**bad))
    assert found is not None and found.startswith(reason)


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (Mask(polygons=(BOX,)), "Mask(1 polygons)"),
        (Mask(runs=np.array([6]), size=(2, 3)), "Mask(1 runs of 2 x 3)"),
        # What is none is shown too: messages about it do.
        (Mask(polygons=7), "Mask(polygons=7, runs=None, size=None)"),  # type: ignore[arg-type]
        (Mask(runs=6, size=(2, 3)), "Mask(polygons=(), runs=6, size=(2, 3))"),  # type: ignore[arg-type]
        (Mask(runs=np.array([6]), size=6), "Mask(polygons=(), runs=<int64 [1]>, size=6)"),  # type: ignore[arg-type]
    ],
)
def test_a_mask_in_words(mask: Mask, shown: str) -> None:
    assert repr(mask) == shown
    assert check_record(record(id=mask)) == f"the id is {shown[:60]}, wanted a str"


def test_all_of_them_packed(tmp_path: Path) -> None:
    """Each is a Reject under its own reason, and none of them ends the packing."""
    bad = [record(**{"id": f"bad {k}", **some}) for k, (some, _) in enumerate(BAD)]
    report = hr.pack([record(id="good"), *bad], tmp_path / "out", max_rejects=len(bad), progress=False)
    assert (report.seen, report.stored) == (1 + len(BAD), 1)
    for reject, (_, reason) in zip(report.rejects, BAD, strict=True):
        assert reject.reason.startswith(reason) and reject.stage == "label"


VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers() | st.text()).map(tuple),
    st.dictionaries(st.text(), st.integers()),
    st.sampled_from([np.zeros(()), np.zeros((2, 4)), np.array(["a"], object), np.full((1, 1, 3), INF), object()]),
)


@given(st.sampled_from([field.name for field in fields(Record)]), VALUES, VALUES)
def test_it_never_raises(name: str, value: Any, other: Any) -> None:
    for some in ({name: value}, {"boxes": BOX, name: value}, {"boxes": other, name: value}):
        assert isinstance(check_record(record(**some)), str | None)


@given(st.text(min_size=1))
def test_a_name_survives_its_files(name: str) -> None:
    """As headrace adopt reads them, and as TensorFlow Datasets does, which strips each."""
    if name_fault(name) is None:
        lines = "".join(f"{one}\n" for one in (name, "other")).encode()
        assert lines.decode("utf-8-sig").replace("\r\n", "\n").split("\n") == [name, "other", ""]
        assert [one for one in lines.decode().split("\n") if one.strip()] == [name, "other"]
        assert "\r" not in name


def test_faults_of_boxes() -> None:
    boxes = [[0, 0, 1, 1], [0, NAN, 1, 1], [1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]]
    assert box_faults(np.array(boxes, np.float32)).tolist() == [0, 1, 2, 3, 2]
    assert box_faults(np.zeros((0, 4), np.float32)).tolist() == []


def test_class_names_survive_the_files_beside_the_shards(tmp_path: Path) -> None:
    """What str.splitlines() takes for a line's end is a part of a name."""
    classes = ("a", "b\u2028c", "d\fe", "f\x85g", "h\x1c", "\x0bi", "j")
    made = [record(id=str(k), label_name=name, boxes=BOX, box_labels=(name,)) for k, name in enumerate(classes)]
    hr.pack(made, tmp_path / "packed", progress=False)
    hr.adopt(tmp_path / "packed", tmp_path / "adopted", progress=False)
    packed, adopted = hr.Dataset(tmp_path / "packed"), hr.Dataset(tmp_path / "adopted")
    assert set(packed.class_names) == set(packed.box_class_names) == set(classes)
    assert (adopted.class_names, adopted.box_class_names) == (packed.class_names, packed.box_class_names)
    assert adopted.catalog["label_name"].to_list() == packed.catalog["label_name"].to_list()
