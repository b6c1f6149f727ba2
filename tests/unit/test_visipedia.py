"""Source `visipedia`: what its items mean, in which kinds they may come, and what is refused with which reason."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deep
import headrace as hr
from command import headrace
from drawn import exif, jpeg, saved
from drawn import image as drawn_image
from headrace.errors import DataError, NotThereError, UsageError
from headrace.format import example
from headrace.sources import visipedia
from headrace.sources.info import collect
from headrace.sources.registry import guess
from listed import FULL, boxes, item, photos
from packed import pack


def full(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FULL), "encoded": jpeg(), **changes}


def one(raw: Any, **options: Any) -> hr.Record:
    (found,) = visipedia([raw], **options)
    assert isinstance(found, hr.Record), found
    return found


def reason(raw: Any, **options: Any) -> str:
    (found,) = visipedia([raw], **options)
    assert isinstance(found, hr.Reject) and found.origin == "dataset[0]", found
    return found.reason


# --- all that an item may hold ---------------------------------------------------------------------------------------


def test_every_field() -> None:
    (record,), info = collect(visipedia([full()]))
    assert isinstance(record, hr.Record)
    assert (record.id, record.encoded, record.path, record.origin) == ("0", jpeg(), None, "dataset[0]")
    assert info.class_names == ("0", "Indigo Bunting") and record.label_name == "Indigo Bunting"
    assert info.box_class_names == ("0", "bird") and record.box_labels == ("bird",)
    assert record.boxes is not None and record.boxes.dtype == np.float32
    assert np.allclose(record.boxes, [[5.6, 8, 44.8, 36]], atol=1e-5)
    assert record.keypoints is not None and record.keypoints.dtype == np.float32
    assert np.allclose(record.keypoints, [[[11.2, 12, 2], [28, 24, 1]]], atol=1e-5)
    assert record.attributes == {
        "score": [0.8],
        "conf": [0.9],
        "is_crowd": [0],
        "area": [0.49],
        "object_id": ["1"],
        "keypoint_score": [[1.0, 0.5]],
        "class_conf": 0.9,
        "extra": '{"camera": 3}',
        "filename": "a.jpg",
    }


def in_other_kinds(value: Any, kind: str) -> Any:
    """The same item with its numbers as strings, or its lists as tuples or arrays."""
    if isinstance(value, dict):
        return {name: in_other_kinds(inner, kind) for name, inner in value.items()}
    if isinstance(value, list):
        inner = [in_other_kinds(one, kind) for one in value]
        return {"tuples": tuple, "arrays": np.array}.get(kind, list)(inner)
    if isinstance(value, int | float):
        return {"strings": str, "numpy": np.asarray}.get(kind, lambda same: same)(value)
    return value


@pytest.mark.parametrize("kind", ["strings", "tuples", "arrays", "numpy"])
def test_numbers_as_strings_tuples_and_arrays(kind: str) -> None:
    raw = in_other_kinds(full(), kind)
    assert raw != full() if kind in ("strings", "tuples") else repr(raw) != repr(full())
    found, wanted = one(raw), one(full())
    assert np.array_equal(found.boxes, wanted.boxes) and np.array_equal(found.keypoints, wanted.keypoints)  # type: ignore[arg-type]
    assert found.attributes == wanted.attributes and found.label_name == wanted.label_name
    assert {type(value) for value in found.attributes["is_crowd"]} == {int}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"extra": {"a": [1, "é"]}}, '{"a": [1, "é"]}'),  # the JSON that it is
        ({"extra": 5}, "5"),
        ({"class": {"extra": "x"}}, "x"),  # where its code looks
        ({"extra": "x", "class": {"extra": "x"}}, "x"),
        ({"extra": b"x"}, "x"),
        ({}, None),
    ],
)
def test_extra(changes: dict[str, Any], wanted: str | None) -> None:
    assert one(item(**changes)).attributes.get("extra") == wanted


@pytest.mark.parametrize(
    ("object_", "wanted"),
    [
        (None, None),  # nobody says anything of boxes
        ({}, None),
        ({"area": [], "id": []}, None),
        ({"count": 0}, 0),  # a negative
        (boxes(), 0),
        ({"count": 0, **boxes()}, 0),
        ({"bbox": {}}, 0),
        ({"bbox": None}, None),
        ({"count": 0, "parts": {"x": [], "y": []}}, None),
        ({"parts": {"x": [0.5], "y": [0.5]}}, None),
        ({"count": 2, "area": [0.1, 0.2]}, None),
        (boxes((0, 0, 1, 1)), 1),
    ],
)
def test_no_boxes_or_a_negative(object_: Any, wanted: int | None) -> None:
    found = one(item(object=object_)).boxes
    assert (None if found is None else found.shape) == (None if wanted is None else (wanted, 4))


# --- where the image is ----------------------------------------------------------------------------------------------


def test_files_from_the_working_folder_and_from_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg())
    raw = {"filename": "a.jpg", "id": 7, "object": boxes((0.25, 0.25, 0.5, 0.75))}
    record = one(raw, images=tmp_path / "in")
    assert record.id == "7" and record.path == str(tmp_path / "in" / "a.jpg") and record.encoded is None
    assert np.allclose(record.boxes, [[14, 10, 28, 30]])  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path / "in")
    assert one(raw).path == "a.jpg"
    assert one(raw | {"filename": Path("a.jpg")}).path == "a.jpg"


def test_names_that_lead_out_of_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "b.jpg").write_bytes(jpeg())
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "b.jpg")
    for name in ("../b.jpg", str(tmp_path / "b.jpg")):
        assert reason({"filename": name, "id": 1}, images=tmp_path / "in").endswith("leads out of the folder of images")
    assert "a link leads out" in reason({"filename": "link.jpg", "id": 1}, images=tmp_path / "in")
    assert one({"filename": str(tmp_path / "b.jpg"), "id": 1}).path == str(tmp_path / "b.jpg")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in reason({"filename": str(tmp_path / "pipe.jpg"), "id": 1})
    assert "not a regular file" in reason({"filename": str(tmp_path), "id": 1})
    assert "no such file" in reason({"filename": str(tmp_path / "x.jpg"), "id": 1})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_coordinates_are_of_the_pixels_as_stored(orientation: int, tmp_path: Path) -> None:
    """visipedia knows no EXIF: a box is where its numbers are before the turn, and packing turns it along."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 15:45] = 255
    data = saved(pixels, "JPEG", exif=exif(orientation), quality=100, subsampling=0)
    raw = item(encoded=data, object=boxes((0.25, 0.25, 0.75, 0.5)))
    assert np.allclose(one(raw).boxes, [[15, 10, 45, 20]])  # type: ignore[arg-type]
    record = pack(list(visipedia([raw])), tmp_path / "ds")[0]
    assert record.boxes is not None
    x0, y0, x1, y1 = record.boxes[0].astype(int)
    assert record.image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].min() > 200
    outside = record.image.astype(int)
    outside[y0:y1, x0:x1] = 0
    assert outside.max() < 60


def test_a_header_far_into_the_file(tmp_path: Path) -> None:
    """A camera may put more before the size than is read at first."""
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    data = jpeg()
    (tmp_path / "a.jpg").write_bytes(data[:2] + 3 * comment + data[2:])
    record = one({"filename": str(tmp_path / "a.jpg"), "id": 1, "object": boxes((0, 0, 1, 1))})
    assert np.allclose(record.boxes, [[0, 0, 56, 40]])  # type: ignore[arg-type]


def test_the_size_that_the_item_says(tmp_path: Path) -> None:
    """Then no file is opened here, and the packer finds out whether it is so."""
    raw = {"filename": str(tmp_path / "a.jpg"), "id": 1, "height": 40, "width": "56", "object": boxes((0, 0, 0.5, 1))}
    (tmp_path / "a.jpg").write_bytes(b"not yet")
    record = one(raw)
    assert np.array_equal(record.boxes, [[0, 0, 28, 40]]) and record.size == (40, 56)  # type: ignore[arg-type]
    (tmp_path / "a.jpg").write_bytes(jpeg())
    assert np.array_equal(pack(list(visipedia([raw])), tmp_path / "ds")[0].boxes, [[0, 0, 28, 40]])  # type: ignore[arg-type]
    report = hr.pack(visipedia([raw | {"width": 57}, item()]), tmp_path / "wrong", max_rejects=1, progress=False)
    (reject,) = report.rejects
    assert "the image is 56 x 40 pixels, its annotation is for 57 x 40" in reject.reason
    # Somebody who labelled the photo upright, and says so.
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif(6)))
    upright = pack(list(visipedia([raw | {"height": 56, "width": 40}])), tmp_path / "upright")[0]
    assert (upright.height, upright.width) == (56, 40)
    assert np.array_equal(upright.boxes, [[0, 0, 20, 56]])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_the_size_of_every_format(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved(drawn_image(300, 200), kind))
    record = one({"filename": str(tmp_path / "a"), "id": 1, "object": boxes((0.5, 0.5, 1, 1))})
    assert np.allclose(record.boxes, [[100, 150, 200, 300]])  # type: ignore[arg-type]


def test_two_items_with_one_filename(tmp_path: Path) -> None:
    """Two people labelled one photo: the ids tell them apart."""
    raw = photos(tmp_path, 1) * 2
    raw[1] = raw[1] | {"id": "other"}
    assert [found.id for found in visipedia(raw)] == ["0", "other"]
    assert len(pack(list(visipedia(raw)), tmp_path / "ds")) == 2


def test_a_second_item_of_an_id_is_refused(tmp_path: Path) -> None:
    report = hr.pack(visipedia([item(1), item(2, id="1"), item(3)]), tmp_path / "ds", max_rejects=1, progress=False)
    assert [str(reject) for reject in report.rejects] == [
        "dataset[1]: duplicate id '1', first at dataset[0] (label)"
    ]  # fmt: skip


# --- classes ---------------------------------------------------------------------------------------------------------

CLASSES = [
    # (classes of the items, class_names, label_name of each)
    ([{"label": 1, "text": "dog"}, {"label": 0, "text": "cat"}], ("cat", "dog"), ["dog", "cat"]),
    # an index is a label: gaps stay, and are named by their number
    ([{"label": 3, "text": "dog"}, {"label": 1}], ("0", "1", "2", "dog"), ["dog", "1"]),
    ([{"label": "2"}, {"label": 10}], tuple(map(str, range(11))), ["2", "10"]),
    # the text once said holds for the others of the label
    ([{"label": 0}, {"label": 0, "text": "cat"}], ("cat",), ["cat", "cat"]),
    # texts alone
    ([{"text": "x10"}, {"text": "x9"}], ("x9", "x10"), ["x10", "x9"]),
    ([{"label": 0, "text": "b"}, {"text": "a"}, {"text": "b"}], ("b", "a"), ["b", "a", "b"]),
    ([{"label": 1}, {"text": "1"}], ("0", "1"), ["1", "1"]),
    # no class is no label, and not the class 0
    ([None, {}, {"label": None, "text": ""}, {"label": 0}], ("0",), [None, None, None, "0"]),
    ([None], None, [None]),
    # two labels of one text are two classes
    ([{"label": 0, "text": "ant"}, {"label": 1, "text": "ant"}], ("ant (0)", "ant (1)"), ["ant (0)", "ant (1)"]),
    ([{"label": 0, "text": "1"}, {"label": 1}], ("1 (0)", "1 (1)"), ["1 (0)", "1 (1)"]),
    (
        [{"label": 0, "text": "a"}, {"label": 1, "text": "a"}, {"label": 2, "text": "a (0)"}],
        ("0", "1", "2"),
        ["0", "1", "2"],
    ),
    ([{"label": 0, "text": 5}], ("5",), ["5"]),
]


@pytest.mark.parametrize(("classes", "names", "wanted"), CLASSES)
def test_class_names(
    classes: list[Any], names: tuple[str, ...] | None, wanted: list[str | None], tmp_path: Path
) -> None:
    source = visipedia([item(k, **({} if one is None else {"class": one})) for k, one in enumerate(classes)])
    assert collect(source)[1].class_names == names
    assert [found.label_name for found in source if isinstance(found, hr.Record)] == wanted
    ds = pack(source, tmp_path / "ds")  # type: ignore[arg-type]
    assert ds.class_names == (names or ())
    by_id = dict(zip(ds.catalog["id"], ds.catalog["label"], strict=True))
    assert [by_id[str(k)] for k in range(len(wanted))] == [
        None if name is None or names is None else names.index(name) for name in wanted
    ]
    # The number that an item gives is the number in the dataset.
    for k, one_class in enumerate(classes):
        if one_class and one_class.get("label") is not None and one_class.get("label") != "2":
            assert by_id[str(k)] == one_class["label"]


@pytest.mark.parametrize(
    ("class_", "wanted"),
    [
        ({"label": 1}, "dog"),
        ({"label": 1, "text": "dog"}, "dog"),
        ({"text": "cat"}, "cat"),
        ({"label": 1, "text": "cat"}, "class.text is 'cat', label 1 is 'dog' by class_names"),
        ({"label": 2}, "class.label is 2, there are 2 class names"),
        ({"text": "ant"}, "class.text is 'ant', which is none of the class names"),
    ],
)
def test_given_class_names(class_: Any, wanted: str) -> None:
    (found,), info = collect(visipedia([item(**{"class": class_})], class_names=["cat", "dog"]))
    assert (found.label_name if isinstance(found, hr.Record) else found.reason) == wanted
    assert info.class_names == ("cat", "dog")


def test_labels_that_contradict_each_other() -> None:
    classes = [{"label": 0, "text": "a"}, {"label": 0, "text": "b"}, {"label": 1, "text": "a"}, {"text": "a"}]
    found = list(visipedia([item(k, **{"class": one}) for k, one in enumerate(classes)]))
    assert [item.label_name if isinstance(item, hr.Record) else item.reason for item in found] == [
        "a (0)",
        "class.text is 'b', label 0 is 'a' by item 0",
        "a (1)",
        "class.text 'a' is that of several labels, and there is no label",
    ]


@pytest.mark.parametrize(
    ("bbox", "wanted", "names"),
    [
        ({"label": [2, 0]}, ("2", "0"), ("0", "1", "2")),
        ({"label": [1, 0], "text": ["b", "a"]}, ("b", "a"), ("a", "b")),
        ({"text": ["b", "a"]}, ("b", "a"), ("a", "b")),
        ({"label": [], "text": []}, None, None),
        ({}, None, None),
    ],
)
def test_classes_of_boxes(bbox: Any, wanted: Any, names: Any, tmp_path: Path) -> None:
    raw = [item(object=boxes((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), **bbox))]
    assert one(raw[0]).box_labels == wanted and collect(visipedia(raw))[1].box_class_names == names
    ds = pack(visipedia(raw), tmp_path / "ds")  # type: ignore[arg-type]
    assert ds.box_class_names == (names or ()) and ds[0].box_labels == wanted


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("object_", "shape"),
    [
        ({"parts": {"x": [0.1, 0.2], "y": [0.1, 0.2]}}, (1, 2, 3)),
        ({"count": 2, "parts": {"x": [0.1, 0.2], "y": [0.1, 0.2]}}, (2, 1, 3)),
        ({"id": ["a", "b"], "parts": {"x": [0.1] * 6, "y": [0.2] * 6, "v": [2] * 6}}, (2, 3, 3)),
        ({**boxes((0, 0, 1, 1), (0, 0, 1, 1)), "parts": {"x": [0.1] * 4, "y": [0.2] * 4}}, (2, 2, 3)),
        ({"parts": {"x": [], "y": []}}, None),
        ({"parts": {}}, None),
    ],
)
def test_parts_are_flat_over_all_objects(object_: Any, shape: Any) -> None:
    points = one(item(object=object_)).keypoints
    assert (None if points is None else points.shape) == shape
    if points is not None:
        x = np.array(object_["parts"]["x"]).reshape(shape[:2])
        assert np.allclose(points[..., 0], x * 56) and (points[..., 2] == 2).all()


def test_keypoint_names_and_pairs() -> None:
    names = ["nose", "left_eye", "right_eye"]
    raw = [item(0, object={"parts": {"x": [0.1] * 3, "y": [0.2] * 3}}), item(1, object={"count": 0, "parts": {}})]
    source = visipedia(raw, keypoint_names=names, flip_pairs=[(1, 2)])
    info = collect(source)[1]
    assert info.keypoint_names == tuple(names) and info.flip_pairs == ((1, 2),)
    assert [found.keypoints.shape for found in source if isinstance(found, hr.Record)] == [(1, 3, 3), (0, 3, 3)]  # type: ignore[union-attr]
    assert reason(raw[0], keypoint_names=["nose"]) == (
        "object.parts has 3 points per object, there are 1 keypoint names"
    )


# --- what is refused -------------------------------------------------------------------------------------------------

BOX = boxes((0.1, 0.2, 0.8, 0.9))["bbox"]

FRACTION = ", wanted a fraction of the image, 0 to 1"
FINITE = ", wanted a finite number of 32 bits"
EQUALLY = "; wanted equally many"
EACH = "; wanted as many of each"
INDEX = ", wanted 0 to 999999; leave it out for none"
FLAG = ", wanted 0 (absent), 1 (hidden) or 2 (visible)"
THREE = "object.parts has 3 points, which 2 objects can't have equally many of"
REFUSED: list[tuple[Any, str]] = [
    ("a.jpg", "is 'a.jpg', wanted a dict"),
    (None, "is None, wanted a dict"),
    ({"id": 1}, "filename is missing"),
    ({"filename": "a.jpg"}, "id is missing"),
    ({"filename": None, "id": 1}, "filename is missing"),
    ({"filename": "a.jpg", "id": ""}, "id is empty"),
    ({"filename": "", "id": 1}, "filename is empty"),
    ({"filename": "a\0.jpg", "id": 1}, "filename is 'a\\x00.jpg', which no file can be called"),
    ({"filename": ["a.jpg"], "id": 1}, "filename is a list of 1, wanted a text"),
    ({"filename": "\udcff.jpg", "id": 1}, "filename is '\\udcff.jpg', which is no UTF-8"),
    (item(encoded="aGVsbG8="), "encoded is 'aGVsbG8=', wanted the bytes of an image file"),
    (item(encoded=b"", object={"bbox": BOX}), "empty file (0 bytes)"),
    (item(encoded=b"text", object={"bbox": BOX}), "not an image: text"),
    (item(height=41, object={"bbox": BOX}), "height is 41, the image has 40 (as stored, before any EXIF orientation)"),
    (item(width="0"), "width is 0, wanted at least 1"),
    (item(**{"class": "cat"}), "class is 'cat', wanted a dict"),
    (item(**{"class": {"label": "cat"}}), "class.label is 'cat', wanted a whole number"),
    (item(**{"class": {"label": 1.5}}), "class.label is 1.5, wanted a whole number"),
    (item(**{"class": {"label": "1_0"}}), "class.label is '1_0', wanted a whole number"),
    (item(**{"class": {"label": [1]}}), "class.label is a list of 1, wanted a whole number"),
    (item(**{"class": {"label": -1}}), f"class.label is -1{INDEX}"),
    (item(**{"class": {"label": 10**6}}), f"class.label is 1000000{INDEX}"),
    (item(**{"class": {"label": 2**63}}), "class.label is 9223372036854775808, more than 64 bits hold"),
    (item(**{"class": {"label": float("nan")}}), "class.label is nan, wanted a whole number"),
    (item(**{"class": {"text": {"a": 1}}}), "class.text is a dict (a), wanted a text"),
    (item(**{"class": {"text": "a\nb"}}), "class.text 'a\\nb' holds a line break"),
    (item(**{"class": {"conf": "high"}}), "class.conf is 'high', wanted a number"),
    (item(**{"class": {"conf": float("inf")}}), f"class.conf is inf{FINITE}"),
    (item(extra="a", **{"class": {"extra": "b"}}), "extra stands both at the top and under class, and they differ"),
    (item(extra={"a": {1}}), "extra can't be written as JSON: Object of type set is not JSON serializable"),
    (item(object=[1]), "object is a list of 1, wanted a dict"),
    (item(object={"bbox": [0, 0, 1, 1]}), "object.bbox is a list of 4, wanted a dict"),
    (item(object={"bbox": BOX | {"xmin": [float("nan")]}}), f"object.bbox.xmin[0] is nan{FINITE}"),
    (item(object={"bbox": BOX | {"xmin": ["nan"]}}), f"object.bbox.xmin[0] is nan{FINITE}"),
    (item(object={"bbox": BOX | {"xmin": [1e39]}}), f"object.bbox.xmin[0] is 1e+39{FINITE}"),
    (item(object={"bbox": BOX | {"xmin": [None]}}), "object.bbox.xmin[0] is None, wanted a number"),
    (item(object={"bbox": BOX | {"xmin": ["1_0"]}}), "object.bbox.xmin[0] is '1_0', wanted a number"),
    (item(object={"bbox": BOX | {"xmin": np.zeros((1, 1))}}), "object.bbox.xmin has 2 dimensions, wanted one"),
    (item(object={"bbox": BOX | {"xmin": {0.1}}}), "object.bbox.xmin[0] is {0.1}, wanted a number"),
    (item(object={"bbox": BOX | {"xmin": []}}), f"object.bbox has 0 xmin, 1 xmax, 1 ymin, 1 ymax{EACH}"),
    (item(object={"bbox": {"xmin": [0.1]}}), f"object.bbox has 1 xmin, 0 xmax, 0 ymin, 0 ymax{EACH}"),
    (item(object={"bbox": BOX | {"label": [1, 2]}}), "object.bbox.label has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX | {"text": ["a", "b"]}}), "object.bbox.text has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX | {"score": [1, 2]}}), "object.bbox.score has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX | {"conf": [1, 2]}}), "object.bbox.conf has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX, "is_crowd": [0, 1]}), "object.is_crowd has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX, "area": [0.1, 1]}), "object.area has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX, "id": ["a", "b"]}), "object.id has 2 values, object.bbox.xmin says 1"),
    (item(object={"bbox": BOX, "count": 2}), "object.count is 2, there are 1 boxes"),
    (item(object={"bbox": BOX, "count": 0}), "object.count is 0, there are 1 boxes"),
    (item(object={"count": 1}), "object.count is 1, and there is not one list of them"),
    (item(object={"count": 1, "area": [0.1, 0.2]}), "object.area has 2 values, object.count says 1"),
    (item(object={"area": [0.1], "id": [1, 2]}), "object.id has 2 values, object.area says 1"),
    (item(object={"bbox": BOX | {"xmin": [0.9]}}), "object.bbox[0] is reversed: xmin is 0.9, xmax 0.8"),
    (item(object={"bbox": BOX | {"ymin": [0.95]}}), "object.bbox[0] is reversed: ymin is 0.95, ymax 0.9"),
    (item(object={"bbox": BOX | {"xmax": [44]}}), f"object.bbox.xmax[0] is 44{FRACTION}"),
    (item(object={"bbox": BOX | {"ymin": [-9]}}), f"object.bbox.ymin[0] is -9{FRACTION}"),
    (item(object={"bbox": BOX | {"label": [-1]}}), f"object.bbox.label[0] is -1{INDEX}"),
    (item(object={"bbox": BOX | {"text": [""]}}), "object.bbox.text[0] is empty, and there is no label"),
    (item(object={"parts": {"x": [0.1], "y": []}}), f"object.parts has 1 x, 0 y, 0 v, 0 score{EQUALLY}"),
    (item(object={"parts": {"x": [0], "y": [0], "v": [1, 2]}}), f"object.parts has 1 x, 1 y, 2 v, 0 score{EQUALLY}"),
    (item(object={"parts": {"x": [], "y": [], "score": [1]}}), f"object.parts has 0 x, 0 y, 0 v, 1 score{EQUALLY}"),
    (item(object={"count": 2, "parts": {"x": [0.1] * 3, "y": [0.1] * 3}}), THREE),
    (item(object={"count": 0, "parts": {"x": [0.1], "y": [0.1]}}), "object.parts has 1 points, object.count is 0"),
    (item(object={"parts": {"x": [0.1], "y": [0.1], "v": [3]}}), f"object.parts.v[0] is 3{FLAG}"),
    (item(object={"parts": {"x": [70], "y": [0.1]}}), f"object.parts.x[0] is 70{FRACTION}"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "why"), REFUSED)
def test_what_is_refused(raw: Any, why: str) -> None:
    assert reason(raw) == why


def test_a_refused_item_takes_nothing_with_it() -> None:
    raw = [item(0), None, item(2, object={"count": "x"}), item(3)]
    found = list(visipedia(raw))
    assert [(type(one).__name__, one.id, one.origin) for one in found] == [
        ("Record", "0", "dataset[0]"),
        ("Reject", "dataset[1]", "dataset[1]"),
        ("Reject", "2", "dataset[2]"),
        ("Record", "3", "dataset[3]"),
    ]
    assert list(visipedia(raw))[1] == found[1]  # and again


def test_an_absent_part_may_be_anywhere() -> None:
    points = one(item(object={"parts": {"x": [-9, 0.5], "y": [0, 0.5], "v": [0, 2]}})).keypoints
    assert points is not None and points[0, :, 2].tolist() == [0, 2]


# --- as a JSON file --------------------------------------------------------------------------------------------------


def test_a_json_file(tmp_path: Path) -> None:
    raw = [FULL | {"filename": "0.jpg"}, {"filename": "none.jpg", "id": 1}]
    photos(tmp_path / "images", 1)
    path = tmp_path / "train.json"
    path.write_text("\ufeff" + json.dumps(raw), encoding="utf-8")
    record, reject = visipedia(path, images=tmp_path / "images")
    assert isinstance(record, hr.Record) and isinstance(reject, hr.Reject)
    assert record.origin == "train.json[0]" and reject.origin == "train.json[1]" and reject.stage == "read"
    assert np.array_equal(record.boxes, one(full()).boxes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", ":1: not JSON: Expecting value at column 1"),
        (b"[\n{,", ":2: not JSON: Expecting property name"),
        (b"{}", ": holds an empty dict, wanted a list of images"),
        (b'{"images": []}', ": holds a dict (images), wanted a list of images"),
        (b"3", ": holds 3, wanted a list of images"),
        (b"\xff\xfe[", ": not JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, ": not JSON: "),
        (b"[" + b"9" * 5000 + b"]", ": not JSON: "),
    ],
)
def test_files_that_hold_no_list(text: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as caught:
        visipedia(path)
    assert str(caught.value).startswith(f"{path}{says}")


def test_calls_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="no such file"):
        visipedia(tmp_path / "none.json")
    with pytest.raises(UsageError, match="is no regular file"):
        visipedia(tmp_path)
    with pytest.raises(UsageError, match="wanted a list of dicts"):
        visipedia({"filename": "a"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one occurs twice"):
        visipedia([], class_names=["a", "a"])
    with pytest.raises(DataError, match="dataset: holds no images"):
        hr.pack(visipedia(iter([])), tmp_path / "ds")


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ('[{"filename": "a.jpg", "id": 1}]', "visipedia"),
        ('\n [ { "id": "x",\n"class": {}, "filename" : "a.jpg"}]', "visipedia"),
        ('[{"image_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]', None),  # COCO's results
        ('{"images": [{"file_name": "a.jpg"}], "filename": 1}', "coco"),
        ("[]", None),
        ("0--Parade/a_1.jpg\n1\n10 20 30 40 0 0 0 0 0 0\n", "wider"),
    ],
)
def test_told_by_content(text: str, format: str | None, tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    path.write_text(text)
    if format is None:
        with pytest.raises(UsageError, match=r"one of .*visipedia"):
            guess(path)
    else:
        assert guess(path)[0].name == format


def test_packed_by_the_command(tmp_path: Path) -> None:
    raw = [one | {"object": boxes((0.1, 0.1, 0.9, 0.9), label=[0])} for one in photos(tmp_path / "images", 6)]
    for one_raw in raw:
        one_raw["filename"] = Path(one_raw["filename"]).name
    raw[5]["filename"] = "gone.jpg"
    (tmp_path / "train.json").write_text(json.dumps(raw))
    words = ["--images", tmp_path / "images", "--classes", "ant,bee,cow", "--max-rejects", 1]
    ended = headrace("pack", tmp_path / "train.json", tmp_path / "ds", *words)
    assert ended.code == 0, ended.err
    assert 'taking --format visipedia: it is a JSON list of images with their "filename"' in ended.err
    assert "6 seen = 5 stored + 1 rejected" in ended.out and "classes: ant, bee, cow" in ended.out
    assert hr.Dataset(tmp_path / "ds").verify().ok


def test_names_and_pairs_of_parts_arrive(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([FULL | {"filename": "0.jpg"}]))
    photos(tmp_path, 1)
    words = ["--format", "visipedia", "--images", tmp_path, "--keypoint-names", "left,right", "--flip-pairs", "0-1"]
    assert headrace("pack", tmp_path / "a.json", tmp_path / "ds", *words).code == 0
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.keypoint_names == ("left", "right") and ds.flip_pairs == ((0, 1),)
    ended = headrace("pack", tmp_path / "a.json", tmp_path / "ds2", *words[:-3], "a,b,c")
    assert ended.code == 1 and "2 points per object, there are 3 keypoint names" in ended.err


# --- what of it the shards hold --------------------------------------------------------------------------------------


def test_attributes_become_features(tmp_path: Path) -> None:
    plain = item(1, object={"count": 0})
    ds = pack(visipedia([full(), plain]), tmp_path / "ds")  # type: ignore[arg-type]
    wanted = {
        "image/filename": {"0": b"a.jpg", "1": b"1.jpg"},
        "image/extra": {"0": b'{"camera": 3}', "1": b""},
        "image/class/conf": {"0": pytest.approx(0.9), "1": 1.0},
        "image/object/is_crowd": {"0": [0], "1": []},
        "image/object/id": {"0": [b"1"], "1": []},
        "image/object/bbox/score": {"0": pytest.approx([0.8]), "1": []},
        "image/object/bbox/conf": {"0": pytest.approx([0.9]), "1": []},
        "image/object/parts/score": {"0": [1.0, 0.5], "1": []},
    }
    for found in ds.features("image/id", *wanted):
        id_ = found["image/id"].decode()  # type: ignore[union-attr]
        for key, values in wanted.items():
            value = found[key]
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == values[id_], key


def test_what_is_said_of_a_box_goes_with_it(tmp_path: Path) -> None:
    """Two of three boxes lie outside of what the crop leaves."""
    corners = [(0.0, 0.4, 0.05, 0.6), (0.4, 0.4, 0.6, 0.6), (0.95, 0.4, 1.0, 0.6)]
    parts = {"x": [0.5] * 6, "y": [0.5] * 6, "score": [1, 2, 3, 4, 5, 6]}
    more = {"id": ["a", "b", "c"], "parts": parts}
    raw = item(object=boxes(*corners, score=[0.1, 0.2, 0.3], conf=[1, 2, 3]) | more)
    ds = pack(visipedia([raw]), tmp_path / "ds", size=32, fit="crop")  # type: ignore[arg-type]
    keys = ("id", "bbox/score", "bbox/conf", "count", "parts/score")
    (found,) = ds.features(*(f"image/object/{key}" for key in keys))
    assert found["image/object/parts/score"].tolist() == [3, 4]  # type: ignore[union-attr]
    assert found["image/object/id"].tolist() == [b"b"] and found["image/object/count"] == 1  # type: ignore[union-attr]
    assert found["image/object/bbox/score"].tolist() == pytest.approx([0.2])  # type: ignore[union-attr]
    assert found["image/object/bbox/conf"].tolist() == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "attributes",
    [{"score": 0.5}, {"score": "high"}, {"score": [0.5, 0.6]}, {"is_crowd": [0.5]}, {"object_id": [1]}, {"extra": 5}],
)
def test_attributes_of_another_kind_are_no_features(attributes: dict[str, Any], tmp_path: Path) -> None:
    """What somebody else calls a score is not visipedia's."""
    record = hr.Record(id="a", encoded=jpeg(), boxes=np.array([[0, 0, 9, 9]], np.float32), attributes=attributes)
    plain = hr.Record(id="b", encoded=jpeg(), boxes=np.array([[0, 0, 9, 9]], np.float32))
    keys = [set(*_all_features(pack([one], tmp_path / one.id))) for one in (record, plain)]
    assert keys[0] == keys[1]
    # Nor where it is visipedia's in other records.
    score = hr.Record(id="c", encoded=jpeg(), boxes=plain.boxes, attributes={"score": [1.0], "object_id": ["x"]})
    mixed = pack([score, record, replace(score, id="d")], tmp_path / "mixed")
    assert ("image/object/bbox/score" in next(_all_features(mixed))) is ("score" not in attributes)
    assert ("image/object/id" in next(_all_features(mixed))) is ("object_id" not in attributes)
    ds = hr.Dataset(tmp_path / "a")
    assert ds[0].attributes == attributes
    with pytest.raises(UsageError, match="no feature"):
        ds.features("image/object/bbox/score" if "score" in attributes else "image/object/id")


def _all_features(ds: hr.Dataset) -> Iterator[dict[str, example.Feature]]:
    return (example.parse(ds.store.payload(row)) for row in range(len(ds)))


@pytest.mark.parametrize("by", ["encoded", "filename"])
def test_boxes_on_16_bits(by: str, tmp_path: Path) -> None:
    """The size is looked up in the image, whatever its depth; that is for the packer to judge."""
    values = deep.numbers(40, 60, most=4095)
    (tmp_path / "a.png").write_bytes(deep.png16(values))
    raw = {"filename": str(tmp_path / "a.png"), "id": "a", "object": boxes((0.5, 0.25, 1, 0.75))}
    if by == "encoded":
        raw["encoded"] = deep.png16(values)
    ds = pack(visipedia([raw]), tmp_path / "ds", value_range=(0, 4095))  # type: ignore[arg-type]
    assert ds[0].boxes is not None and ds[0].boxes.tolist() == [[30, 10, 60, 30]]
    with pytest.raises(DataError, match="pack it with value_range"):
        pack(visipedia([raw]), tmp_path / "no")  # type: ignore[arg-type]


def test_a_whole_number_beyond_all_floats_is_a_reject(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    said = item(filename="a.jpg", object=boxes((0.1, 0.2, 0.8, 0.9), label=[1]) | {"area": [10**400], "count": 1})
    said.pop("encoded")
    (tmp_path / "list.json").write_text(json.dumps([said]))
    (reject,) = hr.sources.visipedia(tmp_path / "list.json", images=tmp_path)
    assert isinstance(reject, hr.Reject) and reject.reason.startswith("object.area[0] is 1000")
