"""LabelMe's JSON becomes records: what a file says, and what is made of one that is not as it should be."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
import work
from drawn import exif, files, jpeg, saved
from headrace.errors import DataError, NotThereError
from headrace.imaging import codec, masks
from headrace.record import Record, Reject, check_record
from headrace.sources.info import collect
from headrace.sources.labelme import labelme, recognise
from mutated import mutated
from painted import assert_painted_at, can_be_told, painted


def shape(points: Any, label: Any = "cat", kind: str | None = "rectangle", **more: Any) -> dict[str, Any]:
    made = {"label": label, "points": points, "group_id": None, "description": "", "flags": {}, **more}
    return made if kind is None else made | {"shape_type": kind}


def said(*shapes: Any, path: Any = "a.jpg", **more: Any) -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": path,
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    } | more


def source(folder: Path, *names: str, **of: Any) -> Any:
    """The source of JSON files a.json, b.json, ... beside empty files of these names (a.jpg and b.jpg by default)."""
    files(folder, dict.fromkeys(names or ("a.jpg", "b.jpg"), b""))
    files(folder, {f"{name}.json": json.dumps(what).encode() for name, what in of.items()})
    return labelme(folder)


def only(made: Any) -> Any:
    items, info = collect(made)
    assert len(items) == 1, items
    return items[0], info


BOX = shape([[9.5, 8], [1, 2]])


def test_a_record(tmp_path: Path) -> None:
    flags = {"occluded": True, "Has tail": False}
    made = source(
        tmp_path,
        a=said(BOX, shape([[1, 1], [3, 2]], "dog", flags=flags, group_id=4, description="far", score=0.5)),
        b=said(path="b.jpg", flags={"outdoors": True, "night": False, "rain": True}),
    )
    (first, second), info = collect(made)
    assert (first.id, first.origin, first.size, first.upright) == ("a.jpg", "a.json", (30, 40), True)
    assert first.path == str(tmp_path / "a.jpg") and first.encoded is None
    assert first.boxes.dtype == np.float32 and first.boxes.tolist() == [[1, 2, 9.5, 8], [1, 1, 3, 2]]
    assert first.box_labels == ("cat", "dog") and first.masks is None and first.keypoints is None
    assert first.attributes == {
        "occluded": [-1, 1],
        "has_tail": [None, False],
        "score": [None, 0.5],
        "group_id": [None, 4],
        "description": [None, "far"],
    }
    assert first.labels is None and second.labels == ("outdoors", "rain")
    assert second.boxes.shape == (0, 4) and second.box_labels == ()  # a JSON without shapes is a negative
    assert info.class_names == ("night", "outdoors", "rain") and info.box_class_names == ("cat", "dog")
    assert check_record(first) is None and check_record(second) is None and not info.skipped


PNG = base64.b64encode(saved(np.array([[0, 255], [255, 255], [0, 0]], np.uint8)[..., None], "PNG")).decode()

# a shape -> the box, the polygons of its mask, or the pixels of its runs
SHAPES: dict[str, tuple[dict[str, Any], list[float], Any]] = {
    "corners in any order": (shape([[9, 2], [1, 8]]), [1, 2, 9, 8], None),
    # as X-AnyLabeling writes it
    "four corners": (shape([[1, 2], [9, 2], [9, 8], [1, 8]]), [1, 2, 9, 8], None),
    "a polygon": (shape([[1, 2], [3.5, 4], [0, 5]], kind="polygon"), [0, 2, 3.5, 5], [[1, 2], [3.5, 4], [0, 5]]),
    # of files before shape_type
    "no shape_type": (shape([[1, 2], [3, 4], [0, 5]], kind=None), [0, 2, 3, 5], [[1, 2], [3, 4], [0, 5]]),
    "a circle": (shape([[10, 12], [13, 16]], kind="circle"), [5, 7, 15, 17], 25 * math.pi),
    # its last pixel is inside
    "a mask": (shape([[5, 6], [6, 8]], kind="mask", mask=PNG), [5, 6, 7, 9], [(6, 6), (7, 5), (7, 6)]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(tmp_path: Path, name: str) -> None:
    made, box, covers = SHAPES[name]
    record, _ = only(source(tmp_path, a=said(made)))
    assert np.allclose(record.boxes, [box], atol=1e-5) and check_record(record) is None
    if covers is None:
        assert record.masks is None
    elif isinstance(covers, float):
        assert math.isclose(masks.area(record.masks[0]), covers, rel_tol=0.002)
    elif record.masks[0].runs is not None:
        assert [tuple(at) for at in np.argwhere(masks.decode_runs(record.masks[0].runs, (30, 40)))] == covers
    else:
        assert record.masks[0].polygons[0].tolist() == covers


def test_points(tmp_path: Path) -> None:
    """Keypoints of the one object of their group; all others are counted."""
    body = shape([[0, 0], [20, 20]], "body", group_id=1)
    some = [
        shape([[4, 5]], "tail", "point", group_id=1),
        shape([[1, 2.5]], "nose", "point", group_id=1),
        shape([[9, 9]], "nose", "point", group_id=1),  # a second nose
        shape([[1, 1]], "ear", "point"),  # of no group
        shape([[1, 1]], "ear", "point", group_id=9),  # of a group of nobody
        shape([[1, 1]], "ear", "point", group_id=2),  # of a group of two
    ]
    two = [shape([[0, 0], [5, 5]], group_id=2)] * 2
    flat = shape([[0, 0], [0, 5]], group_id=3)
    hidden = shape([[0, 1]], "paw", "point", group_id=3)
    lines = [shape([[0, 0], [5, 5]], kind="line"), shape([[0, 0], [5, 5], [6, 6]], kind="linestrip")]
    made = source(tmp_path, a=said(body, *some, *two, flat, hidden, *lines), b=said(BOX, path="b.jpg"))
    (first, second), info = collect(made)
    assert info.keypoint_names == ("nose", "paw", "tail")
    assert first.keypoints.tolist() == [[[1, 2.5, 2], [0, 0, 0], [4, 5, 2]], [[0, 0, 0]] * 3, [[0, 0, 0]] * 3]
    assert second.keypoints.tolist() == [[[0, 0, 0]] * 3]
    assert info.skipped == {"points of no object": 4, "lines": 1, "linestrips": 1}
    assert info.boxes_dropped == {"without width or height": 1} and info.keypoints_dropped == {"of dropped boxes": 1}


def test_the_image(tmp_path: Path) -> None:
    """The file that is named, the one of that name beside the JSON, the copy in it."""
    copy = base64.b64encode(b"bytes").decode()
    files(tmp_path, dict.fromkeys(("photos/a.jpg", "labels/b.jpg", "photos/alone.jpg", "photos/e.png"), b""))
    of = {
        "a": said(path="..\\photos\\a.jpg"),
        "b": said(path="C:\\Users\\me\\b.jpg"),
        "c": said(path="/home/me/c.jpg", imageData=copy),
        "d": said(path="d.jpg", imageData=f"data:image/jpeg;base64,{copy[:4]}\n{copy[4:]}"),
        "e": said(path="../photos/e.png", imageData=copy),
    }
    files(tmp_path / "labels", {f"{name}.json": json.dumps(what).encode() for name, what in of.items()})
    records, info = collect(labelme(tmp_path))
    assert [(record.id, record.encoded) for record in records] == [
        ("photos/a.jpg", None),
        ("labels/b.jpg", None),
        ("labels/c.json", b"bytes"),
        ("labels/d.jpg", b"bytes"),
        ("photos/e.png", None),
    ]
    assert info.skipped == {"images without a JSON": 1}


# a file -> why its image is a Reject, and where it says so
BAD: dict[str, tuple[Any, str, str]] = {
    "a way out": (said(path="../secret.jpg"), "the name leads out of the folder of images", ""),
    "a way out by backslashes": (said(path="..\\secret.jpg"), "the name leads out of the folder of images", ""),
    "an absolute path": (said(path="/etc/hostname"), "the name leads out of the folder of images", ""),
    "a file of another computer": (said(path="\\\\host\\share\\c.jpg"), "the name leads out of the folder", ""),
    "a link that leads out": (said(path="link.jpg"), "a link leads out of the folder of images", ""),
    "no file": (said(path="c.jpg"), "no such file or directory", ""),
    "a folder": (said(path="folder"), "not a regular file", ""),
    "no name": (said(path=None), "imagePath names no image", ""),
    "a name with controls": (said(path="a\0.jpg"), "imagePath names no image", ""),
    "halves of characters": (said(path="\ud800.jpg"), "the name holds halves of characters", ""),
    "no base64": (said(path="c.jpg", imageData="%"), "no such file or directory: ", ""),
    "a copy that is no text": (said(path="c.jpg", imageData=5), "no such file or directory: ", ""),
    "no list": (said() | {"shapes": {"a": 1}}, "shapes is {'a': 1}, wanted a list", ":shapes"),
    "no shape": (said(BOX, 5), "found 5, wanted a shape with a label and points", ":shapes[1]"),
    "no label": (said(shape([[1, 2], [3, 4]], None)), "the label None is no name", ":shapes[0]"),
    "an empty label": (said(shape([[1, 2], [3, 4]], "")), "the label '' is a blank name", ":shapes[0]"),
    "no points": (said(shape([])), "points is [], wanted a list of x, y", ":shapes[0]"),
    "a point of three": (said(shape([[1, 2, 3]])), "a point is [1, 2, 3], wanted x, y", ":shapes[0]"),
    "NaN": (said(shape([[1, 2], [3, math.nan]])), "a point is [3, nan], wanted x, y", ":shapes[0]"),
    "beyond floats": (said(shape([[1, 2], [3, 10**400]])), "a point is [3, 1000", ":shapes[0]"),
    "numbers as text": (said(shape([["1", 2], [3, 4]])), "a point is ['1', 2], wanted x, y", ":shapes[0]"),
    "one corner": (said(shape([[1, 2]])), "a rectangle of 1 corners, wanted two", ":shapes[0]"),
    "two corners": (said(shape([[1, 2], [3, 4]], kind="polygon")), "a polygon of 2 corners, wanted", ":shapes[0]"),
    "half a circle": (said(shape([[1, 2]], kind="circle")), "a circle of 1 points, wanted", ":shapes[0]"),
    "a point of two": (said(shape([[1, 2], [3, 4]], kind="point")), "a point of 2 places, wanted", ":shapes[0]"),
    "a group that is none": (said(shape([[1, 2], [3, 4]], group_id=[1])), "group_id is [1], wanted", ":shapes[0]"),
    "no mask": (said(shape([[5, 6], [6, 8]], kind="mask")), "its mask is no image: no base64", ":shapes[0]"),
    "a mask that is no image": (
        said(shape([[5, 6], [6, 8]], kind="mask", mask="YWJj")),
        "its mask is no image: not an image",
        ":shapes[0]",
    ),
    "a mask of another size": (
        said(shape([[5, 6], [7, 8]], kind="mask", mask=PNG)),
        "its mask has 2 x 3 pixels, wanted 3 x 3",
        ":shapes[0]",
    ),
    "a mask that reaches out": (
        said(shape([[39, 6], [40, 8]], kind="mask", mask=PNG)),
        "a mask from 39, 6 to 41, 9 of 40 x 30 pixels",
        ":shapes[0]",
    ),
    "a mask of no image": (
        said(shape([[5, 6], [6, 8]], kind="mask", mask=PNG), imageHeight=None, imageWidth=None),
        "a mask in an image without imageHeight",
        ":shapes[0]",
    ),
    "a type that is none": (said(BOX | {"shape_type": ["x"]}), "shape_type is ['x'], wanted a text", ":shapes[0]"),
    "a size that is none": (said(imageWidth="40"), "imageHeight and imageWidth are (30, '40'), wanted pixels", ""),
    "half a size": (said(imageWidth=None), "imageHeight and imageWidth are (30, None), wanted pixels", ""),
    "a flag of two lines": (said(flags={"a\nb": True}), "flag 'a\\nb' holds a line break", ":flags"),
    "no JSON": (b'{"shapes": [\n{]}', "no sound JSON: expecting property name", ":2"),
    "cut short": (b'{"shapes": [', "no sound JSON: expecting value", ":1"),
    "no UTF-8": (b'{"shapes": ["\xff"]}', "no sound JSON: 'utf-8' codec can't decode", ""),
    "brackets without an end": (b"[" * 200_000, "no sound JSON: ", ""),
    "a number of many digits": (b'{"shapes": [' + b"9" * 5000 + b"]}", "no sound JSON: exceeds the limit", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_used(tmp_path: Path, name: str) -> None:
    """Its image would lie without it; nothing else is lost."""
    what, says, at = BAD[name]
    root = tmp_path / "root"
    files(tmp_path, {"secret.jpg": b""})
    source(root, b=said(BOX, path="b.jpg"))
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "folder").mkdir()
    (root / "a.json").write_bytes(what if isinstance(what, bytes) else json.dumps(what).encode())
    first, second = labelme(root)
    assert isinstance(first, Reject), first
    assert first.reason.startswith(says)
    assert first.origin == f"a.json{at}"
    assert isinstance(second, Record) and second.boxes is not None and len(second.boxes) == 1
    first.id.encode()


def test_other_files(tmp_path: Path) -> None:
    """JSON of something else is passed over; a folder of nothing else is no folder of LabelMe's."""
    files(tmp_path / "coco", {"x.json": b'{"images": []}', "y.json": b"[1]", ".hidden.json": b"{", "a.txt": b""})
    with pytest.raises(DataError, match="coco: holds no JSON of LabelMe, with shapes and imagePath"):
        list(labelme(tmp_path / "coco"))
    assert recognise(tmp_path / "coco") is None
    made = source(tmp_path / "coco", "a.jpg", "sub/c.jpg", a=said(BOX))
    record, info = only(made)
    assert record.id == "a.jpg" and info.skipped == {"other .json": 2, "images without a JSON": 1}
    assert recognise(tmp_path / "coco") == "a.json has shapes and imagePath"
    old = (
        b"<annotation><filename>a.jpg</filename><object><name>cat</name><polygon><pt/></polygon></object></annotation>"
    )
    files(tmp_path / "old", {"sub/a.xml": old, "a.jpg": b""})
    with pytest.raises(DataError, match=r"holds XML of the old LabelMe on the web, such as sub/a\.xml; convert it"):
        list(labelme(tmp_path / "old"))
    with pytest.raises(NotThereError, match="none: no such folder"):
        labelme(tmp_path / "none")


def test_a_copy_of_the_image_before_its_name(tmp_path: Path) -> None:
    """As LabelMe itself writes it: shapes, imagePath, imageData; other tools have another order."""
    what = said(BOX)
    for i, order in enumerate((("shapes", "imageData", "imagePath"), ("imagePath", "shapes", "imageData"))):
        folder = files(tmp_path / str(i), {"a.json": json.dumps({k: what[k] or "A" * 100_000 for k in order}).encode()})
        assert recognise(folder) == "a.json has shapes and imagePath"


def test_a_byte_order_mark(tmp_path: Path) -> None:
    files(tmp_path, {"a.json": b"\xef\xbb\xbf" + json.dumps(said(BOX)).encode(), "a.jpg": b""})
    assert len(only(labelme(tmp_path))[0].boxes) == 1


@pytest.mark.parametrize("seed", range(200))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    """Whatever it has become: records that can be, Rejects, or an error that names it; nothing outside is read."""
    polygon = shape([[1, 2], [3.5, 4], [0, 5]], kind="polygon", group_id=1, flags={"occluded": True})
    nose = shape([[1, 2]], "nose", "point", group_id=1)
    mask = shape([[5, 6], [6, 8]], kind="mask", mask=PNG)
    whole = said(BOX, polygon, nose, mask, flags={"outdoors": True}, imageData="Ynl0ZXM=")
    root = tmp_path / "root"
    files(root, {"a.json": mutated(json.dumps(whole, indent=1).encode(), seed), "a.jpg": b""})
    files(tmp_path, {"secret.jpg": b"", "x": b""})
    items: list[Any] = []
    told = ""
    try:
        items = list(labelme(root))
    except DataError as error:
        told = str(error)
    assert told == "" or str(root) in told
    for item in items:
        if isinstance(item, Record):
            assert check_record(item) is None
            assert item.path is None or Path(item.path).resolve().is_relative_to(root)
        else:
            assert item.reason and item.origin.startswith("a.json")


# --- packed --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(scene=painted(sides=st.integers(4, 60)), orientation=st.integers(1, 8), copied=st.booleans())
def test_a_painted_rectangle_lies_in_its_box(
    tmp_path_factory: pytest.TempPathFactory, scene: Any, orientation: int, copied: bool
) -> None:
    """LabelMe's numbers are the rectangle's own edges in the picture as it is seen, whether stored so or not."""
    pixels, where = scene
    folder = tmp_path_factory.mktemp("labelme")
    # What is seen is `pixels`: the file holds them turned back, the copy is upright.
    stored = codec.upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))
    encoded = saved(stored, "PNG", exif=exif(orientation))
    x0, y0, x1, y1 = where[0].tolist()
    height, width = pixels.shape[:2]
    what = said(shape([[x1, y0], [x0, y1]]), path="a.png", imageHeight=height, imageWidth=width)
    if copied:
        what["imageData"] = base64.b64encode(saved(pixels, "PNG")).decode()
    files(folder, {"a.json": json.dumps(what).encode()} | ({} if copied else {"a.png": encoded}))
    record, _ = only(labelme(folder))
    assert record.upright and record.size == (height, width)
    data = record.read()
    header = codec.read_header(data)
    found = codec.upright(codec.decode(data, header=header), header.orientation)
    if can_be_told(record.boxes[0]):
        assert_painted_at(found, record.boxes[0])


def test_the_command(tmp_path: Path) -> None:
    from command import headrace

    root = tmp_path / "in"
    files(root, {"a.jpg": jpeg(30, 40), "a.json": json.dumps(said(BOX)).encode()})
    ended = headrace("pack", root, tmp_path / "ds", "--format", "labelme")
    assert ended.code == 0, ended.err
    assert hr.Dataset(tmp_path / "ds").box_class_names == ("cat",)


def test_work_is_that_of_the_objects(tmp_path: Path) -> None:
    """Four times as many take four times the steps: it once was sixteen."""

    def steps(n: int) -> int:
        dropped = n // 2
        made = source(tmp_path / str(n), a=said(*[shape([[1, 2], [9, 8]])] * n, *[shape([[1, 2], [1, 2]])] * dropped))
        found: list[Any] = []
        count = work.lines(lambda: found.extend(collect(made)))
        ((record,), info) = found
        assert isinstance(record, Record) and record.boxes is not None and len(record.boxes) == n
        assert info.boxes_dropped == {"without width or height": dropped}
        assert count > n
        return count

    assert steps(1600) < 4.2 * steps(400)
