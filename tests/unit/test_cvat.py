"""CVAT's XML becomes records: what a file says, and what is made of one that is not as it should be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

import headrace as hr
from drawn import exif, files, jpeg, saved
from headrace.errors import DataError, NotThereError, UsageError
from headrace.imaging import codec, masks
from headrace.record import Record, Reject, check_record
from headrace.sources.cvat import cvat, recognise
from headrace.sources.info import SourceInfo, collect
from mutated import mutated
from painted import assert_painted_at, can_be_told, painted

META = """<meta><task><id>1</id><size>3</size><labels>
<label><name>dog</name><type>rectangle</type><attributes/></label>
<label><name>cat</name><type>any</type></label>
<label><name>body</name><type>skeleton</type></label>
<label><name>nose</name><type>points</type><parent>body</parent></label>
<label><name>tail</name><type>points</type><parent>body</parent></label>
<label><name>outdoors</name><type>tag</type></label></labels></task></meta>"""


def image(inner: str, name: str = "a.jpg", **more: str) -> str:
    said = {"id": "0", "name": name, "width": "40", "height": "30"} | more
    return f"<image {' '.join(f'{key}={value!r}' for key, value in said.items() if value)}>{inner}</image>"


def box(label: str = "cat", inner: str = "", *, at: str = "1 2 9.5 8.25", **more: str) -> str:
    said = {"label": label, "occluded": "0", **dict(zip(("xtl", "ytl", "xbr", "ybr"), at.split(), strict=True))} | more
    return f"<box {' '.join(f'{key}={value!r}' for key, value in said.items())}>{inner}</box>"


def source(folder: Path, *elements: str, meta: str = META, names: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Any:
    """The source of an XML of these elements, beside empty files of these names."""
    files(folder / "images", dict.fromkeys(names, b""))
    inner = f"<version>1.1</version>{meta}{''.join(elements)}"
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{inner}</annotations>\n'
    files(folder, {"x.xml": text.encode()})
    return cvat(folder / "x.xml")


def only(made: Any) -> Any:
    items, info = collect(made)
    assert len(items) == 1, items
    return items[0], info


def test_a_record(tmp_path: Path) -> None:
    """Everything that an image can hold, and where it goes."""
    red = '<attribute name="Hair colour">red</attribute><attribute name="truncated">true</attribute>'
    made = source(
        tmp_path,
        image(
            box(inner=red, z_order="2", group_id="7", source="manual")
            + box("dog", occluded="1")
            + '<tag label="outdoors" source="manual"/>',
            subset="train",
        ),
        image("", "b.jpg", subset="test"),
    )
    (first, second), info = collect(made)
    assert (first.id, first.origin, first.size, first.split) == ("a.jpg", "x.xml:image[0]", (30, 40), "train")
    assert first.path == str(tmp_path / "images" / "a.jpg")
    assert first.boxes.dtype == np.float32 and first.boxes.tolist() == [[1, 2, 9.5, 8.25]] * 2
    assert first.box_labels == ("cat", "dog") and first.label_name == "outdoors" and first.labels is None
    assert first.masks is None and first.keypoints is None
    assert first.attributes == {
        "hair_colour": ["red", None],
        "truncated": [1, -1],
        "z_order": [2, None],
        "group_id": [7, None],
        "source": ["manual", None],
        "occluded": [0, 1],
    }
    # an image without objects is a negative
    assert (second.id, second.boxes.shape, second.box_labels, second.label_name) == ("b.jpg", (0, 4), (), None)
    assert second.attributes == {"occluded": []} and second.split == "test"
    assert info == SourceInfo(
        class_names=("outdoors",),
        box_class_names=("dog", "cat", "body"),
        split_names=("train", "test"),
        root=str(tmp_path / "x.xml"),
    )
    assert all(check_record(record) is None for record in (first, second))


ROUND = '<ellipse label="cat" occluded="0" cx="10" cy="12" rx="4" ry="2"{}/>'
HALF = math.sqrt(0.5)

# what stands in an image -> the box, the polygons of its mask or None
SHAPES: dict[str, tuple[str, list[float], list[Any] | None]] = {
    "a polygon": ('<polygon label="cat" points="1,2;3.5,4;0,5"/>', [0, 2, 3.5, 5], [[[1, 2], [3.5, 4], [0, 5]]]),
    # clockwise, as CVAT turns it, around its middle
    "a turned box": (box(at="0 0 4 2", rotation="90"), [1, -1, 3, 3], [[[3, -1], [3, 3], [1, 3], [1, -1]]]),
    "a box turned all around": (box(at="0 0 4 2", rotation="360"), [0, 0, 4, 2], None),
    "a box of no turn": (box(at="0 0 4 2", rotation="0.00"), [0, 0, 4, 2], None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(tmp_path: Path, name: str) -> None:
    inner, wanted, polygons = SHAPES[name]
    record, _ = only(source(tmp_path, image(inner)))
    assert np.allclose(record.boxes, [wanted], atol=1e-5) and check_record(record) is None
    if polygons is None:
        assert record.masks is None
    else:
        assert np.allclose(record.masks[0].polygons, polygons, atol=1e-5)


@pytest.mark.parametrize(("turn", "wanted"), [("", [6, 10, 14, 14]), (' rotation="90"', [8, 8, 12, 16])])
def test_ellipses(tmp_path: Path, turn: str, wanted: list[float]) -> None:
    record, _ = only(source(tmp_path, image(ROUND.format(turn))))
    assert np.allclose(record.boxes, [wanted], atol=1e-4)
    assert math.isclose(masks.area(record.masks[0]), math.pi * 4 * 2, rel_tol=0.002)


def test_a_mask(tmp_path: Path) -> None:
    """Its runs go along the rows of its own corner, and come down the columns of the image."""
    # . X X
    # X . .   at 5, 6
    made = source(tmp_path, image('<mask label="cat" rle="1, 3, 2" left="5" top="6" width="3" height="2"/>' + box()))
    record, _ = only(made)
    assert record.boxes.tolist()[0] == [5, 6, 8, 8] and record.masks[1] is None
    covered = masks.decode_runs(record.masks[0].runs, record.masks[0].size)
    assert [tuple(at) for at in np.argwhere(covered).tolist()] == [(6, 6), (6, 7), (7, 5)]


@settings(max_examples=50, deadline=None)
@given(
    covered=arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    left=st.integers(0, 28),
    top=st.integers(0, 18),
)
def test_masks_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory, covered: NDArray[np.bool_], left: int, top: int
) -> None:
    """Against runs that are counted one pixel after the other."""
    runs, last = [0], False
    for pixel in covered.ravel().tolist():
        if pixel != last:
            runs.append(0)
        runs[-1] += 1
        last = pixel
    height, width = covered.shape
    place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    inner = f'<mask label="a" rle="{", ".join(map(str, runs))}" {place}/>'
    record, _ = only(source(tmp_path_factory.mktemp("cvat"), image(inner)))
    found = masks.decode_runs(record.masks[0].runs, (30, 40))
    assert (found[top : top + height, left : left + width] == covered).all() and found.sum() == covered.sum()


def body(*parts: str, **more: str) -> str:
    said = " ".join(f"{key}={value!r}" for key, value in more.items())
    return f'<skeleton label="body" {said}>{"".join(parts)}</skeleton>'


def part(label: str, points: str, outside: str = "0", occluded: str = "0") -> str:
    return f'<points label="{label}" points="{points}" outside="{outside}" occluded="{occluded}"/>'


def test_skeletons(tmp_path: Path) -> None:
    """Parts in the order of <meta> whatever theirs is here; outside ones are absent, occluded ones hidden."""
    inner = (
        body(part("tail", "4,9"), part("nose", "1,2.5", occluded="1"), z_order="1")
        + body(part("nose", "0,0", outside="1"), part("ear", "5,6"), part("tail", "7,8"))
        + body(part("nose", "1,1", outside="1"))
        + box()
    )
    record, info = only(source(tmp_path, image(inner)))
    assert info.keypoint_names == ("nose", "tail", "ear")
    assert record.keypoints.tolist() == [
        [[1, 2.5, 1], [4, 9, 2], [0, 0, 0]],
        [[0, 0, 0], [7, 8, 2], [5, 6, 2]],
        [[0, 0, 0]] * 3,
    ]
    assert record.boxes.tolist() == [[1, 2.5, 4, 9], [5, 6, 7, 8], [1, 2, 9.5, 8.25]]
    assert record.attributes["occluded"] == [-1, -1, 0] and info.boxes_dropped == {"without width or height": 1}
    assert info.box_class_names == ("dog", "cat", "body") and not info.keypoints_dropped


def points(label: str, *places: str, occluded: str = "0") -> str:
    return f'<points label="{label}" occluded="{occluded}" points="{";".join(places)}"/>'


def test_points(tmp_path: Path) -> None:
    """Keypoints where each of a label has the same number, two and more."""
    inner = points("eyes", "1,2", "3,5") + points("eyes", "4,4", "9,9", occluded="1") + points("eyes", "6,6", "6,9")
    some = points("dots", "1,1") + points("dots", "2,2") + points("mixed", "1,1", "2,2") + points("mixed", *["1,2"] * 3)
    record, info = only(source(tmp_path, image(inner + some)))
    assert record.keypoints.tolist() == [[[1, 2, 2], [3, 5, 2]], [[4, 4, 1], [9, 9, 1]]]
    assert record.box_labels == ("eyes", "eyes") and info.keypoint_names is None
    assert info.skipped == {"points": 4}
    assert info.boxes_dropped == {"without width or height": 1} and info.keypoints_dropped == {"of dropped boxes": 2}


def test_points_of_several_numbers(tmp_path: Path) -> None:
    """The most frequent ones are the dataset's; others come with their box alone, and are counted."""
    three = points("three", "1,1", "2,2", "3,3")
    record, info = only(
        source(
            tmp_path, image(points("two", "1,2", "3,5") * 2 + three + body(part("nose", "1,2"), part("tail", "3,4")))
        )
    )
    assert record.keypoints.shape == (4, 2, 3) and len(record.boxes) == 4
    assert not record.keypoints[2].any() and record.keypoints[3].tolist() == [[1, 2, 2], [3, 4, 2]]
    assert info.keypoint_names == ("nose", "tail") and info.keypoints_dropped == {"of another number of points": 3}


def test_what_is_passed_over(tmp_path: Path) -> None:
    """Counted by its kind; a tag's attributes too."""
    inner = '<polyline label="a" points="1,2;3,4"/>' * 2 + '<cuboid label="a" xtl1="1"/><blob label="a"/>'
    tag = '<tag label="t"><attribute name="a">b</attribute></tag>'
    record, info = only(source(tmp_path, image(inner + tag)))
    assert record.label_name == "t" and record.boxes is None and info.box_class_names == ()
    assert info.skipped == {"polylines": 2, "cuboids": 1, "<blob>": 1, "attributes of tags": 1}
    record, info = only(source(tmp_path, image(inner + tag + box())))
    assert len(record.boxes) == 1 and info.box_class_names == ("dog", "cat", "body")


def test_several_tags(tmp_path: Path) -> None:
    tags = '<tag label="z"/><tag label="outdoors"/><tag label="z"/>'
    (first, second), info = collect(source(tmp_path, image(tags), image("", "b.jpg")))
    assert (first.label_name, first.labels, second.labels) == (None, ("z", "outdoors"), ())
    assert info.class_names == ("outdoors", "z")
    (first, second), info = collect(source(tmp_path, image('<tag label="z"/>'), image("", "b.jpg")))
    assert (first.label_name, first.labels, second.label_name, second.labels) == ("z", None, None, None)


# what stands in an image -> why it is a Reject
BAD: dict[str, tuple[str, str]] = {
    "no number": (image(box(at="1 2 x 8")), "line 8: xbr is 'x', wanted a number"),
    "NaN": (image(box(at="1 2 nan 8")), "line 8: xbr is 'nan', wanted a number"),
    "beyond floats": (image(box(at="1 2 1e400 8")), "line 8: xbr is '1e400', wanted a number"),
    "beyond float32": (image(box(at="1 2 1e39 8")), "line 8: xbr is '1e39', wanted a number"),
    "underscores, which Python takes": (image(box(at="1 2 1_0 8")), "line 8: xbr is '1_0', wanted a number"),
    "a corner that is missing": (
        image('<box label="a" xtl="1" ytl="2" xbr="3"/>'),
        "line 8: ybr is '', wanted a number",
    ),
    "no label": (image('<box xtl="1" ytl="2" xbr="3" ybr="4"/>'), "line 8: the label '' is a blank name"),
    "occluded": (image(box(occluded="yes")), "line 8: occluded is 'yes', wanted 0 or 1"),
    "two corners": (image('<polygon label="a" points="1,2;3,4"/>'), "line 8: a polygon of 2 points, wanted three and"),
    "a point of one number": (image('<polygon label="a" points="1,2;3"/>'), "line 8: a point is '3', wanted x,y"),
    "a part twice": (image(body(part("a", "1,2"), part("a", "1,3"))), "line 8: the skeleton has its part 'a' twice"),
    "a part of two points": (
        image(body(part("a", "1,2;3,4"))),
        "line 8: a part of a skeleton has 2 points, wanted one",
    ),
    "a part that is a box": (image(body(box())), "line 8: a part of a skeleton is <box>, wanted <points>"),
    "runs that are none": (
        image('<mask label="a" rle="1,-2" left="0" top="0" width="1" height="1"/>'),
        "line 8: rle is",
    ),
    "runs of another sum": (
        image('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>'),
        "line 8: the runs of a mask sum to 3, wanted 2 x 2 pixels",
    ),
    "a mask that reaches out": (
        image('<mask label="a" rle="0,4" left="39" top="0" width="2" height="2"/>'),
        "line 8: a mask of 2 x 2 pixels at 39, 0 of 40 x 30 pixels",
    ),
    "a mask of no image": (
        image('<mask label="a" rle="0,4" left="0" top="0" width="2" height="2"/>', width="", height=""),
        "line 8: a mask in an image without width and height",
    ),
    "a mask of a huge one": (
        image('<mask label="a" rle="0,4" left="0" top="0" width="2" height="2"/>', width="99999", height="99999"),
        "line 8: a mask in an image of 99999 x 99999 pixels, wanted at most",
    ),
    "a size that is none": (image("", width="4x"), "line 8: width is '4x', wanted a whole number"),
    "no pixels": (image("", width="0"), "line 8: the size is 0 x 30, wanted width and height in pixels"),
    "half a size": (image("", width=""), "line 8: width is '', wanted a whole number"),
    "no name": (image("", name=""), "the image has no name"),
    "a way out": (image("", name="../x.xml"), "the name leads out of the folder of images"),
    "a way out by the subset": (image("", subset="../.."), "the name leads out of the folder of images"),
    "no file": (image("", name="c.jpg"), "no such file or directory: "),
    "a link that leads out": (image("", name="link.jpg"), "a link leads out of the folder of images: "),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_used(tmp_path: Path, name: str) -> None:
    """Its image would lie without it; nothing else is lost."""
    bad, says = BAD[name]
    files(tmp_path / "images", {"a.jpg": b""})
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "x.xml")
    (first, second), _ = collect(source(tmp_path, bad, image(box(), "b.jpg")))
    assert isinstance(first, Reject) and first.origin == "x.xml:image[0]", first
    assert first.reason.startswith(says)
    assert len(second.boxes) == 1


def test_where_images_lie(tmp_path: Path) -> None:
    """images/ beside the file, in it a folder of each subset, or the file's own folder."""
    files(tmp_path / "images", {"train/a.jpg": b"", "b.jpg": b""})
    made = source(tmp_path, image("", subset="train"), image("", "b.jpg", subset="train"), names=())
    assert [record.id for record in made] == ["train/a.jpg", "b.jpg"]
    # The folder of the subset goes before one of the same name without a subset.
    files(tmp_path / "images", {"a.jpg": b""})
    made = source(tmp_path, image("", subset="train"), image("", "b.jpg", subset="train"), names=())
    assert [record.id for record in made] == ["train/a.jpg", "b.jpg"]
    files(tmp_path / "other", {"x.xml": (tmp_path / "x.xml").read_bytes(), "a.jpg": b"", "b.jpg": b""})
    assert [record.id for record in cvat(tmp_path / "other" / "x.xml")] == ["a.jpg", "b.jpg"]
    assert [record.id for record in cvat(tmp_path / "x.xml", images=tmp_path / "other")] == ["a.jpg", "b.jpg"]
    with pytest.raises(NotThereError, match=r"y\.xml: no such file"):
        cvat(tmp_path / "y.xml")
    with pytest.raises(UsageError, match="is no regular file, wanted an XML file of CVAT"):
        cvat(tmp_path)


# --- films ---------------------------------------------------------------------------------------------------------

FILM = "<meta><task><stop_frame>4</stop_frame><labels><label><name>car</name></label></labels>"
FILM += "<original_size><width>40</width><height>30</height></original_size></task></meta>"


def frame(number: int, at: str = "1 2 9 8", *, outside: str = "0", **more: str) -> str:
    return box(at=at, frame=str(number), outside=outside, keyframe="0", **more).replace("label='cat' ", "")


def track(*shapes: str, label: str = "car", **more: str) -> str:
    said = " ".join(f"{key}={value!r}" for key, value in more.items())
    return f"<track label={label!r} {said}>{''.join(shapes)}</track>"


def test_a_film(tmp_path: Path) -> None:
    """Frame by frame, whatever track a shape is of; a frame without any is a negative, up to the last of the task."""
    names = (
        "frame_000000.png",
        "frame_000001.jpg",
        "frame_000002.PNG",
        "frame_000004.png",
        "frame_000005.png",
        "cover.png",
    )
    said = '<attribute name="a">b</attribute>'
    polygon = f'<polygon frame="2" points="1,2;3,4;5,1" occluded="1" outside="0" keyframe="1">{said}</polygon>'
    made = source(
        tmp_path,
        track(frame(0), frame(1, occluded="1"), frame(2, outside="1"), frame(3), id="5", group_id="3"),
        track(frame(1, "0 0 4 4"), polygon, '<polyline frame="2" points="1,2"/>', id="8"),
        meta=FILM,
        names=names,
    )
    (zero, one, two, three, four), info = collect(made)
    assert [of.id for of in (zero, one, two, four)] == [names[0], names[1], names[2], names[3]]
    assert zero.origin == "x.xml:frame 0" and zero.size == (30, 40)
    assert zero.boxes.tolist() == [[1, 2, 9, 8]] and one.boxes.tolist() == [[1, 2, 9, 8], [0, 0, 4, 4]]
    assert one.attributes == {"group_id": [3, None], "occluded": [1, 0], "track": [5, 8]}
    assert two.masks[0].polygons[0].tolist() == [[1, 2], [3, 4], [5, 1]] and zero.masks == (None,)
    assert two.attributes == {"a": ["b"], "occluded": [1], "track": [8]}
    assert (three.id, three.stage) == ("frame_000003", "read")
    assert three.reason.startswith("found no file in the folder of images, wanted frame_000003.jpg")
    assert len(four.boxes) == 0 and four.masks == ()
    assert info.skipped == {"polylines": 1} and info.box_class_names == ("car",)
    assert all(check_record(of) is None for of in (zero, one, two, four))


def test_a_film_with_faults(tmp_path: Path) -> None:
    names = tuple(f"frame_00000{i}.png" for i in range(4))
    parts = "".join(
        f'<points label="{x}" outside="{{1}}" occluded="0" points="{y}"/>' for x, y in {"a": "1,2", "b": "5,6"}.items()
    )
    skeleton = f'<skeleton frame="{{0}}" keyframe="1">{parts}</skeleton>'
    made = source(
        tmp_path,
        track(
            frame(0),
            frame(1, "1 2 x 4"),
            box(at="1 2 3 4"),
            '<blob frame="2"/>',
            skeleton.format(3, 0),
            skeleton.format(0, 1),
        ),
        track(frame(3), id="first", label=" "),
        track(frame(0), id="first"),
        meta="",
        names=(*names, "frame_000001.jpg"),
    )
    (stray, zero, one, two, three), info = collect(made)
    assert (stray.id, stray.origin) == ("track[0]", "x.xml:track[0]") and "the frame is '', wanted" in stray.reason
    assert zero.attributes["track"] == [0, 2] and zero.keypoints.shape == (2, 2, 3)
    assert one.reason.startswith("found frame_000001.jpg and frame_000001.png in the folder")
    assert two.origin == "x.xml:track[0]" and two.reason == "line 2: <blob> is no shape that is known"
    assert three.origin == "x.xml:track[1]" and "is a blank name" in three.reason
    assert info.keypoint_names == ("a", "b")


def test_frames_that_are_counted_from_one(tmp_path: Path) -> None:
    names = tuple(f"frame_{i:06d}.png" for i in range(1, 6))
    with pytest.raises(
        DataError, match=r"images: frames are counted up to 5 and there is no frame_000000, those of x\.xml"
    ):
        list(source(tmp_path, track(frame(0)), meta=FILM, names=names))


def test_images_and_tracks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.xml: has <image> and <track>"):
        list(source(tmp_path, image(""), track(frame(0))))


def test_memory_of_a_film(tmp_path: Path) -> None:
    """Less than 120 bytes a box."""
    import tracemalloc

    n = 20_000
    made = source(tmp_path, *(track(*(frame(f, id="0") for f in range(n // 10))) for _ in range(10)), meta=FILM)
    tracemalloc.start()
    try:
        reading = iter(made)
        next(reading)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * 120 + 4 * 10**6


# --- files that are none -------------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
OUTSIDE = (
    '<!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotations><image name="&a;"/></annotations>'
)

NONE: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", r"x\.xml:1: column 1: no sound XML: no element found; is the file cut short\?"),
    "cut short": (
        "<annotations>\n<image>",
        r"x\.xml:2: column 8: no sound XML: no element found; is the file cut short",
    ),
    "mismatched": ("<annotations>\n</image>", r"x\.xml:2: column 3: no sound XML: mismatched tag"),
    "another root": ("\n<annotation/>", r"x\.xml:2: the element is <annotation>, wanted <annotations>"),
    "entities": (LAUGHS, r"x\.xml:1: it defines entities, which is refused"),
    "a file outside": (OUTSIDE, r"x\.xml:1: it defines entities, which is refused"),
    "a DTD outside": (
        '<!DOCTYPE annotations SYSTEM "file:///etc/hostname" [<!ENTITY % a SYSTEM "b"> %a;]><annotations/>',
        r"x\.xml:1: it defines entities, which is refused",
    ),
    "too deep": ("<annotations>" + "<a>" * 200_000, r"x\.xml:1: more than 32 elements in one another"),
    "an unknown encoding": ('<?xml version="1.0" encoding="klingon"?><annotations/>', r"x\.xml:1: .*no sound XML: "),
    "an encoding of many bytes": (
        '<?xml version="1.0" encoding="gb18030"?><annotations/>',
        r"x\.xml:1: .*no sound XML",
    ),
    "no UTF-8": (b'<annotations><image name="\xff"/></annotations>', r"x\.xml:1: .*no sound XML: not well-formed"),
}


@pytest.mark.parametrize("name", NONE)
def test_files_that_are_none(tmp_path: Path, name: str) -> None:
    text, says = NONE[name]
    files(tmp_path, {"x.xml": text if isinstance(text, bytes) else text.encode()})
    with pytest.raises(DataError, match=says):
        list(cvat(tmp_path / "x.xml"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    said = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f"<?xml version='1.0' encoding='{said}'?>\n<annotations>{image(box('Mädchen'))}</annotations>"
    files(tmp_path, {"x.xml": text.replace("\n", "\r\n").encode(encoding), "a.jpg": b""})
    record, info = only(cvat(tmp_path / "x.xml"))
    assert record.box_labels == info.box_class_names == ("Mädchen",)
    assert recognise(tmp_path / "x.xml") == "it is XML with <annotations>"


@pytest.mark.parametrize("text", ["<annotation>", "<annotationset/>", "{}", "", "<x><annotations>", "<?xml?>"])
def test_what_is_not_recognised(tmp_path: Path, text: str) -> None:
    assert recognise(files(tmp_path, {"x.xml": text.encode()}) / "x.xml") is None


@pytest.mark.parametrize("seed", range(200))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    """Whatever it has become: records that can be, Rejects, or an error that names it; nothing outside is read."""
    mask = '<mask label="cat" rle="1, 3, 2" left="5" top="6" width="3" height="2"/>'
    inner = box(inner='<attribute name="a">b</attribute>') + mask + body(part("nose", "1,2"), part("tail", "3,4"))
    if seed % 2:
        made = source(
            tmp_path, image(inner + ROUND.format("") + '<tag label="t"/>', subset="train"), image(box(), "b.jpg")
        )
    else:
        polygon = '<polygon frame="1" points="1,2;3,4;5,1" outside="0" keyframe="1"/>'
        names = tuple(f"frame_00000{i}.png" for i in range(3))
        made = source(tmp_path, track(frame(0), polygon, id="1"), track(frame(2)), meta=FILM, names=names)
    (tmp_path / "secret.jpg").write_bytes(b"")
    (tmp_path / "x.xml").write_bytes(mutated((tmp_path / "x.xml").read_bytes(), seed))
    items: list[Any] = []
    told = ""
    try:
        items = list(made)
    except DataError as error:
        told = str(error)
    assert told == "" or "x.xml" in told
    for item in items:
        if isinstance(item, Record):
            assert check_record(item) is None
            assert item.path is not None and Path(item.path).resolve().is_relative_to(tmp_path / "images")
        else:
            assert item.reason and item.origin.startswith("x.xml:")


# --- packed --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(scene=painted(sides=st.integers(4, 60)), orientation=st.integers(1, 8))
def test_a_painted_rectangle_lies_in_its_box(
    tmp_path_factory: pytest.TempPathFactory, scene: Any, orientation: int
) -> None:
    """CVAT's numbers are the rectangle's own edges in the picture as it is seen, whether it is stored so or not."""
    pixels, where = scene
    folder = tmp_path_factory.mktemp("cvat")
    height, width = pixels.shape[:2]
    # What is seen is `pixels`: the file holds them turned back.
    stored = codec.upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))
    files(folder, {"a.png": saved(stored, "PNG", exif=exif(orientation))})
    inner = box(at=" ".join(f"{number:.2f}" for number in where[0].tolist()))
    text = f"<annotations>{image(inner, 'a.png', width=str(width), height=str(height))}</annotations>"
    files(folder, {"x.xml": text.encode()})
    record, _ = only(cvat(folder / "x.xml"))
    assert record.upright and record.size == (height, width)
    data = record.read()
    header = codec.read_header(data)
    if can_be_told(record.boxes[0]):
        assert_painted_at(codec.upright(codec.decode(data, header=header), header.orientation), record.boxes[0])


def test_subsets_as_cvat_offers_them(tmp_path: Path) -> None:
    subsets = ("Train", "Validation", "x")
    images = [image("", f"{name}.jpg", subset=name) for name in subsets]
    items, info = collect(source(tmp_path, *images, names=tuple(f"{name}.jpg" for name in subsets)))
    assert [item.split for item in items if isinstance(item, Record)] == ["train", "val", "x"]
    assert info.split_names == ("train", "val", "x")


def test_the_command(tmp_path: Path) -> None:
    from command import headrace

    files(tmp_path, {f"images/{name}.jpg": jpeg(30, 40, seed=seed) for seed, name in enumerate("ab")})
    source(tmp_path, image(box(), subset="train"), image("", "b.jpg", subset="val"), names=())
    ended = headrace("pack", tmp_path / "x.xml", tmp_path / "ds", "--format", "cvat")
    assert ended.code == 0, ended.err
    ds = hr.Dataset(tmp_path / "ds")
    assert {name: len(ds.split(name)) for name in ds.splits} == {"train": 1, "val": 1}
