"""Pascal VOC's XML becomes records: coordinates from 1, quirks of its many writers, splits, and hostile files."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import exif, files, jpeg, saved
from headrace import sources
from headrace.errors import NotThereError, UsageError
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo, collect
from mutated import mutated, watched
from packed import pixels_of
from painted import assert_painted_at

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"


def thing(inside: str = BOX, name: str = "<name>cat</name>") -> str:
    return f"<object>{name}{inside}</object>"


def xml(*things: str, filename: str = "a.jpg", size: str = "", more: str = "") -> bytes:
    size = f"<size>{size}</size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{size}{more}{''.join(things)}</annotation>".encode()


def box(x0: object, y0: object, x1: object, y1: object) -> str:
    return f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"


def source(root: Path, data: bytes, **options: Any) -> Any:
    """The source of one XML file, Annotations/a.xml, beside JPEGImages/a.jpg. It never looks into images."""
    files(root, {"Annotations/a.xml": data, "JPEGImages/a.jpg": b""})
    return sources.voc(root, **options)


def tree(root: Path, *names: str, xml_of: Any = xml) -> Path:
    """Files of these names: each .xml with one box, lists with their lines as given by `name:a b c`."""
    content = {}
    for name in names:
        path, _, lines = name.partition(":")
        if path.endswith(".xml"):
            content[path] = xml_of(thing(), filename=Path(path).stem + ".jpg")
        else:
            content[path] = "\n".join(lines.split(",")).encode() if lines else b""
    return files(root, content)


def gist(items: Any) -> list[str]:
    """Of a Record its id and split, of a Reject its origin and reason."""
    return [
        f"{item.id} {item.split}{'' if item.boxes is not None else ' unknown'}"
        if isinstance(item, Record)
        else f"{item.origin}: {item.reason}"
        for item in items
    ]


def test_a_record(tmp_path: Path) -> None:
    data = xml(
        thing(BOX + "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"),
        thing(box(2, 3, 2, 3), "<name>small dog</name>"),
        size="<width>56</width><height>40</height><depth>3</depth>",
        more="<folder>x</folder><path>/home/somebody/a.jpg</path><segmented>0</segmented>",
    )
    (record,), info = collect(source(tmp_path, data))
    assert isinstance(record, Record)
    assert (record.id, record.origin, record.size) == ("a.jpg", "Annotations/a.xml", (40, 56))
    assert (record.path, record.upright, record.split) == (f"{tmp_path}/JPEGImages/a.jpg", False, None)
    assert record.boxes is not None and record.boxes.dtype == np.float32
    assert record.boxes.tolist() == [[0, 1, 40, 30], [1, 2, 2, 3]]
    assert record.box_labels == ("cat", "small dog")
    assert record.attributes == {"difficult": [0, -1], "pose": ["Left", None], "truncated": [1, -1]}
    assert info == SourceInfo(root=str(tmp_path))


# XML -> boxes, or what the Reject says and the line it names.
CORNERS: dict[str, tuple[bytes, Any]] = {
    # FORMATS: 1-based inclusive. A box of one pixel; one of the whole image; fractions, as parts have them
    "one pixel": (xml(thing(box(7, 9, 7, 9))), [[6, 8, 7, 9]]),
    "fractions": (xml(thing(box("1.5", "2.25", "40.0", "3e1"))), [[0.5, 1.25, 40, 30]]),
    "spaces": (xml(thing(box(" 1", "2 ", "\n40\n", "\t30"))), [[0, 1, 40, 30]]),
    # other tools count from 0: kept, said aloud, and cut to the image later
    "a zero": (xml(thing(box(0, 0, 40, 30))), [[-1, -1, 40, 30]]),
    "beyond": (xml(thing(box(1, 2, 4000, 30))), [[0, 1, 4000, 30]]),
    "none": (xml(), []),
    "corners in another order": (
        xml(thing("<bndbox><ymax>30</ymax><xmax>40</xmax><ymin>2</ymin><xmin>1</xmin></bndbox>")),
        [[0, 1, 40, 30]],
    ),
    # direct children only: a part has a name and a box of its own
    "a part": (xml(thing(f"<part><name>head</name>{box(1.5, 1, 2, 2)}</part>{BOX}")), [[0, 1, 40, 30]]),
    "a part first": (xml(thing(f"<part><name>head</name>{BOX}</part>{box(2, 3, 4, 5)}")), [[1, 2, 4, 5]]),
    "an object in an object": (xml(thing(f"{BOX}<object><name>dog</name>{BOX}</object>")), [[0, 1, 40, 30]]),
    "reversed": (xml(thing(box(40, 2, 1, 30))), "1: object 1: its box 40, 2, 1, 30 is reversed"),
    "reversed by one": (xml(thing(box(5, 2, 4, 30))), "1: object 1: its box 5, 2, 4, 30 is reversed"),
    "nan": (xml(thing(box("nan", 2, 40, 30))), "1: object 1: xmin is 'nan', wanted a number"),
    "infinity": (xml(thing(box(1, 2, "inf", 30))), "1: object 1: xmax is 'inf', wanted a number"),
    "beyond all numbers": (xml(thing(box(1, 2, "1e400", 30))), "1: object 1: xmax is '1e400', wanted a number"),
    "a word": (xml(thing(box(1, "two", 40, 30))), "1: object 1: ymin is 'two', wanted a number"),
    "a comma": (xml(thing(box("1,5", 2, 40, 30))), "1: object 1: xmin is '1,5', wanted a number"),
    "other digits": (xml(thing(box("٣", 2, 40, 30))), "1: object 1: xmin is '٣', wanted a number"),
    "underscores": (xml(thing(box("1_0", 2, 40, 30))), "1: object 1: xmin is '1_0', wanted a number"),
    "a corner missing": (
        xml(thing("<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax></bndbox>")),
        "1: object 1: ymax is ''",
    ),
    "a corner twice": (
        xml(thing("<bndbox><xmin>1</xmin><xmin>2</xmin></bndbox>")),
        "1: object 1: <xmin> occurs twice",
    ),
    "no box": (xml(thing("")), "1: object 1 has no bndbox, wanted one"),
    "two boxes": (xml(thing(BOX + box(1, 1, 2, 2))), "1: object 1: <xmin> occurs twice"),
    "two boxes, one empty": (xml(thing(f"<bndbox/>{BOX}")), "1: object 1 has 2 boxes, wanted one"),
    "no name": (xml(thing(name="")), "1: object 1, its name: '' is a blank name"),
    "a blank name": (xml(thing(name="<name> </name>")), "1: object 1, its name: '' is a blank name"),
    "the second, in line 3": (xml("\n", thing(), "\n", thing("")), "3: object 2 has no bndbox"),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name: str, tmp_path: Path) -> None:
    data, wanted = CORNERS[name]
    (item,) = source(tmp_path, data)
    if isinstance(wanted, str):
        line, _, reason = wanted.partition(": ")
        assert isinstance(item, Reject) and item.id == "a.jpg" and item.stage == "annotation"
        assert item.origin == f"Annotations/a.xml:{line}" and item.reason.startswith(reason)
    else:
        assert isinstance(item, Record) and item.boxes is not None and item.boxes.shape == (len(wanted), 4)
        assert item.boxes.tolist() == wanted
        assert item.box_labels == ("cat",) * len(wanted)


def test_corners_from_zero(tmp_path: Path) -> None:
    data = xml(thing(box(0, 2, 40, 30)), thing())
    (record,), info = collect(source(tmp_path, data))
    assert record.boxes.tolist() == [[-1, 1, 40, 30], [0, 1, 40, 30]]  # type: ignore[union-attr]
    assert len(info.notes) == 1 and info.notes[0].startswith("1 boxes have a corner at 0, which VOC's pixels")
    (record,), info = collect(source(tmp_path, data, zero_based=True))
    assert record.boxes.tolist() == [[0, 2, 40, 30], [1, 2, 40, 30]]  # type: ignore[union-attr]
    assert info.notes == ()


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ("<width>56</width><height>40</height>", (40, 56)),
        ("<width>56.0</width><height>40</height>", (40, 56)),
        # what some tools write where they know none
        ("<width>0</width><height>0</height><depth>3</depth>", None),
        ("<width>56</width>", None),
        ("<width>-1</width><height>40</height>", None),
        ("<width>x</width><height>nan</height>", None),
        ("<width>inf</width><height>1e400</height>", None),
        ("", None),
    ],
)
def test_sizes(size: str, wanted: tuple[int, int] | None, tmp_path: Path) -> None:
    (record,) = source(tmp_path, xml(size=size))
    assert record.size == wanted


@pytest.mark.parametrize(
    ("inside", "wanted"),
    [
        ("", {}),
        ("<difficult>0</difficult><truncated>1</truncated>", {"difficult": [0], "truncated": [1]}),
        ("<occluded>1</occluded>", {"occluded": [1]}),
        # 0 and 1 as others write them; a share, as KITTI's converters leave it; what can't be told
        ("<occluded>true</occluded><difficult>No</difficult>", {"difficult": [0], "occluded": [1]}),
        ("<truncated>0.35</truncated><difficult>0.0</difficult>", {"difficult": [0], "truncated": [1]}),
        ("<difficult>Unspecified</difficult><truncated>-1</truncated>", {"difficult": [-1], "truncated": [-1]}),
        ("<difficult></difficult><pose></pose>", {}),
        ("<pose>Unspecified</pose>", {"pose": ["Unspecified"]}),
        # CVAT's and datumaro's
        (
            "<attributes><attribute><name>Hair Colour</name><value>red</value></attribute>"
            "<attribute><name>track_id</name><value>7</value></attribute>"
            "<attribute><name>difficult</name><value>1</value></attribute>"
            "<attribute><name>!</name><value>1</value></attribute></attributes>",
            {"difficult": [1], "hair_colour": ["red"], "track": [7]},
        ),
        # in any letters; what the object says itself goes before
        (
            "<difficult>0</difficult><attributes><attribute><name>difficult</name><value>1</value></attribute>"
            "<attribute><name>is_crowd</name><value>True</value></attribute>"
            "<attribute><name>Größe</name><value>3</value></attribute>"
            "<attribute><name>颜色</name><value>红</value></attribute></attributes>",
            {"difficult": [0], "is_crowd": [1], "größe": ["3"], "颜色": ["红"]},
        ),
    ],
)
def test_attributes(inside: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    (record,) = source(tmp_path, xml(thing(BOX + inside)))
    assert record.attributes == wanted


def test_elements_that_nothing_is_made_of_are_counted(tmp_path: Path) -> None:
    parts = f"<part><name>head</name>{BOX}</part>" * 2
    made = source(tmp_path, xml(thing(BOX + parts + "<actions><jumping>1</jumping></actions>")))
    files(tmp_path, {"SegmentationObject/a.png": b"", "SegmentationClass/a.png": b"", "JPEGImages/b.jpg": b""})
    for _ in range(2):
        assert collect(made)[1].skipped == {
            "<part> of objects": 2,
            "<actions> of objects": 1,
            "segmentation masks": 2,
            "images without an xml": 1,
        }
    many = "".join(f"<t{k}/>" for k in range(5000))
    assert len(collect(source(tmp_path, xml(thing(BOX + many))))[1].skipped) < 30


# --- which image -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "wanted", "note"),
    [
        # VOC's own; with folders in both; in any case of letters; other names of the same
        (["Annotations/a.xml", "JPEGImages/a.jpg"], ["a.jpg None"], None),
        (["Annotations/x/a.xml", "JPEGImages/x/a.png"], ["x/a.png None"], None),
        (["annotations/a.xml", "images/a.JPG"], ["a.JPG None"], None),
        (["annotations/xmls/a.xml", "images/a.jpg"], ["a.jpg None"], None),
        (["Annotations/x/a.xml", "JPEGImages/a.jpg"], ["a.jpg None"], None),
        (["Annotations/a.xml", "a.jpg"], ["a.jpg None"], None),
        # beside it
        (["a.xml", "a.jpg"], ["a.jpg None"], None),
        (["x/a.xml", "x/a.jpg"], ["x/a.jpg None"], None),
        (["x/a.xml", "a.jpg"], ["a.jpg None"], None),
        # one folder below
        (
            ["VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg"],
            ["a.jpg None"],
            "annotations and images of VOC2007",
        ),
        (["k/VOC2007/Annotations/a.xml", "k/VOC2007/JPEGImages/a.jpg"], ["a.jpg None"], "annotations and images of k/"),
        # names with dots; junk
        (["Annotations/a.b.xml", "JPEGImages/a.b.jpg"], ["a.b.jpg None"], None),
        (["Annotations/._a.xml", "Annotations/a.xml", "JPEGImages/a.jpg", "JPEGImages/._a.jpg"], ["a.jpg None"], None),
        # one of the same name in another folder doesn't hide it
        (["Annotations/a.xml", "JPEGImages/a.jpg", "JPEGImages/x/a.jpg"], ["a.jpg None"], None),
        # two of a stem: filename says a.jpg
        (["Annotations/a.xml", "JPEGImages/a.jpg", "JPEGImages/a.png"], ["a.jpg None"], None),
        # no image
        (
            ["Annotations/a.xml", "Annotations/b.xml", "JPEGImages/a.jpg"],
            ["a.jpg None", "Annotations/b.xml: there is no image of this name, and its <filename> 'b.jpg' is none"],
            None,
        ),
        # an image that has an XML of its own is not lent to one of its name in another folder
        (
            ["train/a.xml", "val/a.xml", "val/a.jpg"],
            ["train/a.xml: there is no image of this name, and its <filename> 'a.jpg' is none", "val/a.jpg val"],
            "folders taken as splits: val/",
        ),
        # splits of folders, as Roboflow has them
        (
            ["train/a.xml", "train/a.jpg", "valid/a.xml", "valid/a.jpg"],
            ["train/a.jpg train", "valid/a.jpg val"],
            "folders",
        ),
        (["Annotations/a.xml", "JPEGImages/train/a.jpg"], ["train/a.jpg train"], "folders taken as splits: train/"),
    ],
)
def test_the_image_of_a_file(names: list[str], wanted: list[str], note: str | None, tmp_path: Path) -> None:
    items, info = collect(sources.voc(tree(tmp_path, *names)))
    assert gist(items) == wanted
    assert [text.startswith(note) for text in info.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    ("filename", "images", "wanted", "note"),
    [
        # renamed after it was annotated: its own name is believed, and the other said aloud
        ("old.jpg", ["a.jpg"], "a.jpg None", "1 XML files say another <filename>"),
        ("old.jpg", ["a.jpg", "old.jpg"], "a.jpg None", "1 XML files say another <filename>"),
        # of another kind, without an extension, or with the folder of a machine: nothing to say
        ("a.png", ["a.jpg"], "a.jpg None", None),
        ("a", ["a.jpg"], "a.jpg None", None),
        ("C:\\work\\a.jpg", ["a.jpg"], "a.jpg None", None),
        ("", ["a.jpg"], "a.jpg None", None),
        # none of its own name
        ("b.jpg", ["b.jpg"], "b.jpg None", "1 images are found by <filename>"),
        ("b", ["b.jpg"], "b.jpg None", "1 images are found by <filename>"),
        ("x/b.jpg", ["y/b.jpg"], "y/b.jpg None", "1 images are found by <filename>"),
        (
            "b.jpg",
            ["x/b.jpg", "y/b.jpg"],
            "Annotations/a.xml: several images may be meant (x/b.jpg, y/b.jpg); its",
            None,
        ),
        (
            "b.jpg",
            ["a.gif", "a.png"],
            "Annotations/a.xml: several images may be meant (a.gif, a.png); its <filename>",
            None,
        ),
        ("", ["a.gif", "a.png"], "Annotations/a.xml: several images may be meant (a.gif, a.png); it has no", None),
        (
            "c.jpg",
            ["b.jpg"],
            "Annotations/a.xml: there is no image of this name, and its <filename> 'c.jpg' is none",
            None,
        ),
        ("../../b.jpg", ["c.jpg"], "Annotations/a.xml: there is no image of this name, and its <filename> '../.", None),
    ],
)
def test_filename(filename: str, images: list[str], wanted: str, note: str | None, tmp_path: Path) -> None:
    files(tmp_path, {"Annotations/a.xml": xml(filename=filename), **{f"JPEGImages/{name}": b"" for name in images}})
    (item,), info = collect(sources.voc(tmp_path))
    assert gist([item])[0].startswith(wanted)
    assert [text.startswith(note) for text in info.notes] == ([True] if note else [])


def test_a_filename_never_names_the_image_of_another_xml(tmp_path: Path) -> None:
    of_b, copy = xml(thing(box(1, 1, 4, 4)), filename="b.jpg"), xml(thing(), filename="b.jpg")
    files(tmp_path, {"Annotations/a_copy.xml": copy, "Annotations/b.xml": of_b, "JPEGImages/b.jpg": b""})
    lost, kept = sources.voc(tmp_path)
    assert isinstance(lost, Reject) and lost.origin == "Annotations/a_copy.xml"
    assert isinstance(kept, Record) and kept.boxes is not None and kept.boxes.tolist() == [[0, 0, 4, 4]]


def test_images_elsewhere(tmp_path: Path) -> None:
    tree(tmp_path, "Annotations/a.xml", "photos/a.jpg")
    made = sources.voc(tmp_path / "Annotations", images=tmp_path / "photos")
    assert [(item.id, item.origin) for item in made] == [("a.jpg", "a.xml")]  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"Annotations: holds no images; pass .* with images=FOLDER"):
        list(sources.voc(tmp_path / "Annotations"))
    with pytest.raises(NotThereError):
        sources.voc(tmp_path / "none")
    with pytest.raises(NotThereError):
        sources.voc(tmp_path, images=tmp_path / "none")


def test_several_that_may_be_meant(tmp_path: Path) -> None:
    tree(
        tmp_path, *(f"VOC{year}/{name}" for year in (2007, 2012) for name in ("Annotations/a.xml", "JPEGImages/a.jpg"))
    )
    with pytest.raises(UsageError, match=r"several folders with annotations in it, wanted one of them: .*2007, .*2012"):
        sources.voc(tmp_path)
    tree(tmp_path / "b", "v/Annotations/a.xml", "v/JPEGImages/a.jpg", "cats/1.jpg")
    with pytest.raises(UsageError, match=r"annotations in v/, and other images in cats/; pass .*/v$"):
        sources.voc(tmp_path / "b")


# --- lists of splits -------------------------------------------------------------------------------------------------

VOC = ("Annotations/a.xml", "Annotations/b.xml", "Annotations/c.xml", *(f"JPEGImages/{k}.jpg" for k in "abc"))
MAIN = "ImageSets/Main"


@pytest.mark.parametrize(
    ("lists", "wanted", "skipped", "note"),
    [
        # trainval is train and val once more
        (
            ["train.txt:a", "val.txt:b", "trainval.txt:a,b", "test.txt:c"],
            ["a.jpg train", "b.jpg val", "c.jpg test"],
            {},
            "splits are those of ImageSets/Main: train, val, test",
        ),
        (["trainval.txt:a,b", "test.txt:c"], ["a.jpg train", "b.jpg train", "c.jpg test"], {}, "trainval.txt is taken"),
        (["trainval.txt:a,b,c", "val.txt:c"], ["a.jpg train", "b.jpg train", "c.jpg val"], {}, "trainval.txt is taken"),
        # lists of a class, `stem 1`, also where one is called as a split is; two spaces before a 1
        (["train.txt:a,b,c", "cat_train.txt:a  1,b -1,c  0"], ["a.jpg train", "b.jpg train", "c.jpg tr"], {}, "splits"),
        (["train.txt:a  1,b -1,c 0"], ["a.jpg None", "b.jpg None", "c.jpg None"], {}, "says 1, 0 or -1 of each image"),
        # Windows, a mark, blank lines, extensions, ./
        (["train.txt:\ufeffa\r,,b.jpg ,./c.xml"], ["a.jpg train", "b.jpg train", "c.jpg train"], {}, "splits are"),
        # the last is on no list
        (
            ["train.txt:a", "val.txt:b"],
            ["a.jpg train", "b.jpg val"],
            {"annotated images on no list of ImageSets/Main": 1},
            "1 annotated images are on no list and left out",
        ),
        # two lists; said twice on one
        (
            ["train.txt:a,a,c", "val.txt:b,c"],
            ["a.jpg train", "b.jpg val", f"Annotations/c.xml: it is on the lists of several splits: {MAIN}/val.txt:2"],
            {},
            "splits",
        ),
        # listed, and not there
        (
            ["train.txt:a,b,x", "val.txt:c"],
            ["a.jpg train", "b.jpg train", "c.jpg val", "ImageSets/Main/train.txt:3: there is no image of this name"],
            {},
            "splits are",
        ),
        # of another dataset
        (["train.txt:x,y"], ["a.jpg None", "b.jpg None", "c.jpg None"], {}, "name none of the annotated images"),
        (["train.txt:\0", "val.txt:a,b,c"], [f"{MAIN}/train.txt:1: it is no name in UTF-8", "a.jpg val"], {}, "splits"),
        (["train.txt:" + "n" * 5000 + ",a,b,c"], [f"{MAIN}/train.txt:1: it is no name", "a.jpg train"], {}, "splits"),
        (["train.txt:../../a,a,b,c"], ["a.jpg train", "b.jpg train", "c.jpg train"], {}, "splits"),
    ],
)  # fmt: skip
def test_lists(lists: list[str], wanted: list[str], skipped: dict[str, int], note: str, tmp_path: Path) -> None:
    made = sources.voc(tree(tmp_path, *VOC, *(f"{MAIN}/{name}" for name in lists)))
    for _ in range(2):
        items, info = collect(made)
        for found, start in zip(gist(items), wanted, strict=False):
            assert found.startswith(start)
        assert len(items) >= len(wanted) and info.skipped == skipped
        assert any(note in text for text in info.notes)


def test_a_listed_image_without_xml_is_kept_and_nothing_said_of_boxes(tmp_path: Path) -> None:
    made = sources.voc(tree(tmp_path, *VOC, "JPEGImages/d.jpg", f"{MAIN}/train.txt:a,b,c", f"{MAIN}/test.txt:d"))
    items, info = collect(made)
    assert gist(items) == ["a.jpg train", "b.jpg train", "c.jpg train", "d.jpg test unknown"]
    assert items[-1].origin == f"{MAIN}/test.txt:1"
    assert info.notes[-1] == "1 images on the lists have no XML: they are kept, and nothing is said of their boxes"


def test_splits_are_packed(tmp_path: Path) -> None:
    tree(tmp_path, *VOC, f"{MAIN}/train.txt:a,b", f"{MAIN}/val.txt:c")
    files(tmp_path, {f"JPEGImages/{k}.jpg": jpeg(seed=ord(k)) for k in "abc"})
    ended = headrace("pack", tmp_path, tmp_path.parent / "ds", "--json")
    told = json.loads(ended.out)
    assert told["splits"] == {"train": 2, "val": 1} and told["boxes"] == 3
    assert hr.Dataset(tmp_path.parent / "ds").box_class_names == ("cat",)
    assert ended.err.startswith(
        "headrace: taking --format voc: JPEGImages/ beside Annotations/*.xml with <annotation>\n"
    )


# --- where the corners are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_based", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("corners", [(0, 0, 64, 48), (3, 5, 20, 31), (63, 47, 64, 48), (0, 10, 1, 48)])
def test_a_painted_rectangle_is_framed(
    corners: tuple[int, int, int, int], orientation: int, zero_based: bool, tmp_path: Path
) -> None:
    """The numbers that VOC's own tool gives for pixels x0 to x1 - 1: the first and the last, counted from 1."""
    x0, y0, x1, y1 = corners
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    said = (x0, y0, x1, y1) if zero_based else (x0 + 1, y0 + 1, x1, y1)
    size = "<width>64</width><height>48</height>"
    data = saved(pixels, "PNG", exif=exif(orientation))
    files(tmp_path / "in", {"a.xml": xml(thing(box(*said)), size=size), "a.png": data})
    hr.pack(sources.voc(tmp_path / "in", zero_based=zero_based), tmp_path / "ds")
    (record,) = hr.Dataset(tmp_path / "ds")
    assert record.boxes is not None and len(record.boxes) == 1
    assert_painted_at(pixels_of(record), record.boxes[0], within=0)


# --- bad input -------------------------------------------------------------------------------------------------------

BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 10}">'.encode() for k in range(9)
)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file, wanted XML"),
    "blank": (b" \n", "an empty file, wanted XML"),
    "cut short": (xml(thing())[:-30], "no sound XML: "),
    "no XML": (b"a cat", "no sound XML: syntax error"),
    "bytes": (bytes(range(256)), "no sound XML: "),
    "JSON": (b'{"a": 1}', "no sound XML: not well-formed"),
    "an image": (jpeg(), "no sound XML: "),
    "another document": (b"<svg><object/></svg>", "found <svg>, wanted VOC's <annotation>"),
    "CVAT's": (b"<annotations><image/></annotations>", "found <annotations>, wanted VOC's <annotation>"),
    "a bomb": (BOMB + b"]><annotation>&j;</annotation>", "XML with entities, which are not read"),
    "an entity": (b"<!DOCTYPE x [<!ENTITY a 'b'>]><annotation>&a;</annotation>", "XML with entities"),
    "a file": (b"<!DOCTYPE x [<!ENTITY a SYSTEM '/etc/hostname'>]><annotation>&a;</annotation>", "XML with entities"),
    "a parameter": (b"<!DOCTYPE x [<!ENTITY % a SYSTEM 'http://localhost/x'> %a;]><annotation/>", "XML with entities"),
    "an unknown entity": (b"<annotation>&a;</annotation>", "no sound XML: undefined entity"),
    "an unknown encoding": (b"<?xml version='1.0' encoding='none'?><annotation/>", "XML that can't be read: unknown"),
    "an encoding of two bytes": (b"<?xml version='1.0' encoding='gbk'?><annotation/>", "XML that can't be read: multi"),
    "a wrong encoding": (xml(thing(name="<name>caf\xe9</name>")).decode().encode("latin-1"), "no sound XML: not well"),
    "deep": (b"<annotation>" + b"<a>" * 100_000, "elements in more than 64 others"),
    "NUL": (xml(thing(name="<name>c\0t</name>")), "no sound XML: "),
    "large": (b"<annotation>" + b" " * (1 << 24), "a file of more than 16777216 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_rejects(name: str, tmp_path: Path) -> None:
    data, says = BAD[name]
    made = source(tmp_path, data)
    files(tmp_path, {"Annotations/b.xml": xml(thing()), "JPEGImages/b.jpg": b""})
    with watched(tmp_path):
        first, second = made
    assert isinstance(first, Reject) and first.origin.startswith("Annotations/a.xml") and first.reason.startswith(says)
    assert isinstance(second, Record) and second.id == "b.jpg"


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + xml(thing()),
        xml(thing()).decode().encode("utf-16"),
        b"<?xml version='1.0' encoding='utf-8'?>\r\n" + xml(thing("\r\n" + BOX)),
        b"<?xml version='1.0' encoding='ISO-8859-1'?>" + xml(thing()),
        b"<!DOCTYPE annotation>" + xml(thing()),
        b"<!-- x -->" + xml(thing(f"<![CDATA[x]]>{BOX}")) + b"\n",
    ],
)
def test_spellings_of_the_same(data: bytes, tmp_path: Path) -> None:
    (record,) = source(tmp_path, data)
    assert record.boxes.tolist() == [[0, 1, 40, 30]] and record.box_labels == ("cat",)


@pytest.mark.parametrize("name", ["Annotations", "JPEGImages"])
def test_a_folder_that_a_link_leads_out_to(name: str, tmp_path: Path) -> None:
    """It is the caller's to name; a link may stand in what others made."""
    secret = tree(tmp_path / "secret", "a.xml", "a.jpg")
    root = tree(tmp_path / "root", *({"Annotations/a.xml", "JPEGImages/a.jpg"} - {f"{name}/a.xml", f"{name}/a.jpg"}))
    (root / name).symlink_to(secret)
    with pytest.raises(UsageError, match=f"{name}: a link leads out of"):
        sources.voc(root)
    if name == "JPEGImages":
        assert gist(sources.voc(root, images=root / name)) == ["a.jpg None"]


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    files(tmp_path, {"secret.xml": xml(thing()), "secret.jpg": jpeg(), "else/c.xml": xml(thing())})
    root = tree(tmp_path / "in", "Annotations/a.xml", "JPEGImages/a.jpg", "JPEGImages/b.jpg", "Annotations/d.xml")
    (root / "Annotations/b.xml").symlink_to(tmp_path / "secret.xml")
    (root / "JPEGImages/d.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "Annotations/e.xml").symlink_to("e.xml")
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").symlink_to("/etc/hostname")
    os.mkfifo(root / "Annotations/f.xml")
    made = sources.voc(root)
    with watched(root):
        found = gist(made)
    assert [text.partition(": '")[0] for text in found] == [
        "a.jpg None",
        "Annotations/b.xml: a link leads out of the folder of images",
        "Annotations/d.xml: a link leads out of the folder of images",
        "Annotations/e.xml: too many levels of symbolic links",
        "Annotations/f.xml: not a regular file",
    ]


WHOLE = xml(
    thing(BOX + "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult>"),
    *("\n" + thing(box(3 * k + 1, k + 1, 3 * k + 9, k + 8), f"<name>c{k}</name>") for k in range(5)),
    size="<width>56</width><height>40</height><depth>3</depth>",
    more="<folder>x</folder><path>/home/somebody/a.jpg</path>",
)


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_mutated_files_neither_crash_nor_hang_nor_reach_outside(start: int, tmp_path: Path) -> None:
    files(tmp_path, {"secret.jpg": jpeg(), "x.jpg": jpeg()})
    root = files(tmp_path / "in", {"JPEGImages/b.jpg": b"", "Annotations/b.xml": xml(thing(), filename="b.jpg")})
    kinds = Counter[str]()
    for seed in range(start, start + 50):
        made = source(root, mutated(WHOLE, seed))
        lists = mutated(b"a\nb\n", seed) if seed % 2 else b"a\nb\n"
        files(root, {f"{MAIN}/train.txt": lists})
        with watched(root):
            items, _ = collect(made)
        assert any(item.id == "b.jpg" for item in items) or seed % 2
        for item in items:
            kinds[type(item).__name__] += 1
            assert item.origin.startswith(("Annotations/", f"{MAIN}/train.txt"))
            if isinstance(item, Record):
                assert item.path and Path(item.path).parent == root / "JPEGImages"
                assert hr.record.check_record(item) is None
            else:
                assert item.reason and "\n" not in item.reason
    assert kinds["Record"] > 30 and kinds["Reject"] > 15  # both ways are gone


# --- real files ------------------------------------------------------------------------------------------------------


def test_bccd_is_what_its_xml_says(real_data: Path, tmp_path: Path) -> None:
    """Packed by the command line, and read independently."""
    root = real_data / "bccd"
    wanted = {}
    for path in sorted((root / "Annotations").glob("*.xml")):
        found = ET.parse(path).getroot()
        rows = []
        for each in found.findall("object"):
            x0, y0, x1, y1 = (float(each.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax"))
            rows.append((each.findtext("name"), x0 - 1, y0 - 1, x1, y1, int(each.findtext("truncated", ""))))
        wanted[found.findtext("filename")] = rows
    ended = headrace("pack", root, tmp_path / "ds", "--json")
    assert ended.code == 0 and "taking --format voc: JPEGImages/ beside Annotations/*.xml" in ended.err
    told = json.loads(ended.out)
    assert (told["seen"], told["stored"], told["rejected"], told["notes"]) == (150, 150, 0, [])
    assert (told["boxes"], told["boxes_clipped"], told["boxes_dropped"]) == (sum(map(len, wanted.values())), 0, {})
    ds = hr.Dataset(tmp_path / "ds")
    assert {record.id for record in ds} == set(wanted)
    assert ds.box_class_names == tuple(sorted({row[0] for rows in wanted.values() for row in rows if row[0]}))
    for record in ds:
        assert record.boxes is not None and record.box_labels is not None
        rows = wanted[record.id]
        assert np.abs(record.boxes - np.array([row[1:5] for row in rows])).max() < 1e-3
        assert list(record.box_labels) == [row[0] for row in rows]
        assert list(record.attributes["truncated"]) == [row[5] for row in rows]
