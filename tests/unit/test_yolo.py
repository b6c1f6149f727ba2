"""YOLO's text files become records: rows of each task, data.yaml as people have it, label files, and hostile ones."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import exif, files, jpeg, saved
from headrace import sources
from headrace.errors import DataError, NotThereError, UsageError
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo, collect
from mutated import mutated, watched
from packed import pixels_of
from painted import assert_painted_at

WIDTH, HEIGHT = 50, 40
IMAGE = jpeg(HEIGHT, WIDTH)
YAML = "path: .\ntrain: images/train\nnames: {0: cat, 1: dog}\n"
POSE = YAML + "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n"


def source(root: Path, rows: str | bytes, config: str = YAML, **options: Any) -> Any:
    """The source of one image of 50 x 40 pixels, images/train/a.jpg, and its label file."""
    rows = rows if isinstance(rows, bytes) else rows.encode()
    files(root, {"data.yaml": config.encode(), "images/train/a.jpg": IMAGE, "labels/train/a.txt": rows})
    return sources.yolo(root, **options)


def tree(root: Path, config: str | None, *names: str) -> Path:
    """Images and label files of these names; other texts as `name:line,line`."""
    content = {} if config is None else {"data.yaml": config.encode()}
    for name in names:
        path, _, lines = name.partition(":")
        if path.endswith(".jpg"):
            content[path] = IMAGE
        else:
            content[path] = "\n".join(lines.split(",")).encode() if lines else b"0 .5 .5 .2 .4\n"
    return files(root, content)


def gist(items: Any) -> list[str]:
    """Of a Record its id, split and number of boxes, of a Reject its origin and reason."""
    return [
        f"{item.id} {item.split} {len(item.boxes)}" if isinstance(item, Record) else f"{item.origin}: {item.reason}"
        for item in items
    ]


def test_a_record(tmp_path: Path) -> None:
    (record,), info = collect(source(tmp_path, "0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.1 0.1\n"))
    assert isinstance(record, Record) and record.boxes is not None
    assert (record.id, record.origin, record.split) == ("a.jpg", "labels/train/a.txt", "train")
    assert (record.path, record.size, record.upright) == (f"{tmp_path}/images/train/a.jpg", (HEIGHT, WIDTH), True)
    assert record.boxes.dtype == np.float32
    assert np.allclose(record.boxes, [[20, 12, 30, 28], [10, 18, 15, 22]], atol=1e-4)
    assert record.box_labels == ("cat", "dog")
    assert (record.masks, record.keypoints, record.attributes) == (None, None, {})
    assert info == SourceInfo(box_class_names=("cat", "dog"), split_names=("train",), root=str(tmp_path))


# Task, row -> box in pixels of 50 x 40, or what the Reject says.
ROWS: dict[str, tuple[str, str, Any]] = {
    "a box": ("detect", "0 0.5 0.5 1 1", [0, 0, 50, 40]),
    "spaces and tabs": ("detect", "  0\t0.5  0.5 1\t1 ", [0, 0, 50, 40]),
    "a class as numpy writes it": ("detect", "1.000e+00 5.0e-1 .5 1. 1", [0, 0, 50, 40]),
    # a box on the border, rounded: cut by the packer
    "a little beyond": ("detect", "0 0.5 0.5 1.01 1", [-0.25, 0, 50.25, 40]),
    "too far": ("detect", "0 0.5 0.5 1.02 1", "1.02 is no share of the image, wanted 0 to 1"),
    "pixels": ("detect", "0 25 20 10 10", "25 is no share of the image"),
    "negative": ("detect", "0 -0.02 0.5 0.1 0.1", "-0.02 is no share of the image"),
    "reversed": ("detect", "0 0.5 0.5 -0.005 0.1", "width -0.005, height 0.1: wanted both above 0"),
    "nan": ("detect", "0 nan 0.5 0.1 0.1", "found '0 nan 0.5 0.1 0.1', wanted numbers: class x y width height"),
    "infinity": ("detect", "0 inf 0.5 0.1 0.1", "found '0 inf"),
    "beyond all numbers": ("detect", "0 1e400 0.5 0.1 0.1", "inf is no share of the image"),
    "a huge exponent": ("detect", "0 1e99999 0.5 0.1 0.1", "found '0 1e99999"),
    "a word": ("detect", "cat 0.5 0.5 0.1 0.1", "found 'cat 0.5 0.5 0.1 0.1', wanted numbers"),
    "commas": ("detect", "0,0.5,0.5,0.1,0.1", "found '0,0.5"),
    "other digits": ("detect", "٠ 0.5 0.5 0.1 0.1", "found "),
    "class 2": ("detect", "2 0.5 0.5 0.1 0.1", "class 2 is none of 0 to 1"),
    "class -1": ("detect", "-1 0.5 0.5 0.1 0.1", "class -1 is none of 0 to 1"),
    "class 0.5": ("detect", "0.5 0.5 0.5 0.1 0.1", "class 0.5 is none of 0 to 1"),
    "class 1e308": ("detect", "1e308 0.5 0.5 0.1 0.1", "class 1e+308 is none of"),
    # as many numbers can be a polygon of four, an oriented box or a pose: the task decides, and nothing is guessed
    "nine numbers, a box": (
        "detect",
        "0 .2 .1 .4 .1 .4 .5 .2 .5",
        "9 numbers, wanted class x y width height; task='segment'",
    ),
    "nine numbers, a polygon": ("segment", "0 .2 .1 .4 .1 .4 .5 .2 .5", [10, 4, 20, 20]),
    "nine numbers, oriented": ("obb", "0 .3 .1 .4 .3 .3 .5 .2 .3", [10, 4, 20, 20]),
    "six numbers": ("detect", "0 0.5 0.5 0.1 0.1 0.9", "6 numbers, wanted class x y width height"),
    "four numbers": ("detect", "0 0.5 0.5 0.1", "4 numbers, wanted class x y width height"),
    "a class alone": ("detect", "0", "1 numbers, wanted class x y width height"),
    # a box among polygons stays the box it is (Ultralytics makes a polygon of it)
    "a box among polygons": ("segment", "0 0.5 0.5 0.2 0.4", [20, 12, 30, 28]),
    "a triangle": ("segment", "0 0 0 1 0 0 1", [0, 0, 50, 40]),
    "two corners and a half": ("segment", "0 0 0 1 0 0", "6 numbers, wanted class and the x and y of three corners"),
    "a corner and a half": ("segment", "0 0 0 1", "4 numbers, wanted class and the x and y of three corners"),
    "three corners and a half": ("segment", "0 0 0 1 0 0 1 1", "8 numbers, wanted class and the x and y of three"),
    "a corner outside": ("segment", "0 0 0 1.2 0 0 1", "1.2 is no share of the image"),
    "oriented, of five": ("obb", "0 .3 .1 .4 .3 .3 .5 .2 .3 .1 .1", "11 numbers, wanted class and the x and y of four"),
    "oriented, a box": ("obb", "0 0.5 0.5 0.2 0.4", "5 numbers, wanted class and the x and y of four corners"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str, tmp_path: Path) -> None:
    task, row, wanted = ROWS[name]
    made = source(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{row}\n" if task == "detect" else f"\n\n{row}\n", task=task)
    (item,) = made
    if isinstance(wanted, str):
        assert isinstance(item, Reject) and (item.id, item.stage) == ("a.jpg", "annotation")
        assert item.origin == "labels/train/a.txt:3" and item.reason.startswith(wanted)
    else:
        assert isinstance(item, Record) and item.boxes is not None
        assert np.allclose(item.boxes[-1], wanted, atol=1e-4)


def test_polygons_become_boxes_and_masks(tmp_path: Path) -> None:
    rows = "1 .2 .1 .4 .1 .4 .5 .2 .5\n0 0.5 0.5 0.2 0.4\n0 0 0 1 0 0 1\n"
    (record,), info = collect(source(tmp_path, rows, task="segment"))
    assert isinstance(record, Record) and record.masks is not None and record.boxes is not None
    assert record.box_labels == ("dog", "cat", "cat")
    assert [None if mask is None else len(mask.polygons) for mask in record.masks] == [1, None, 1]
    corners = record.masks[0].polygons[0]  # type: ignore[union-attr]
    assert corners.dtype == np.float32 and np.allclose(corners, [[10, 4], [20, 4], [20, 20], [10, 20]], atol=1e-4)
    assert np.allclose(record.boxes, [[10, 4, 20, 20], [20, 12, 30, 28], [0, 0, 50, 40]], atol=1e-4)
    assert info.notes == ("1 rows of task segment are boxes, and have no polygon",)


def test_oriented_boxes_are_extents_and_said_so(tmp_path: Path) -> None:
    (record,), info = collect(source(tmp_path, "0 .3 .1 .4 .3 .3 .5 .2 .3", task="obb"))
    assert isinstance(record, Record) and record.masks is not None and record.masks[0] is not None
    assert np.allclose(record.masks[0].polygons[0], [[15, 4], [20, 12], [15, 20], [10, 12]], atol=1e-4)
    assert info.notes == ("boxes are the extents of 1 oriented ones, whose corners are their masks",)


@pytest.mark.parametrize(
    ("shape", "row", "wanted"),
    [
        ("[2, 3]", "0.5 0.5 2 0.1 0.25 1", [[25, 20, 2], [5, 10, 1]]),
        ("[2, 3]", "0.5 0.5 2.0 0.3 0.3 0.000", [[25, 20, 2], [0, 0, 0]]),  # v 0 has no place
        ("[2, 3]", "0.5 0.5 2 9 9 0", [[25, 20, 2], [0, 0, 0]]),
        ("[2, 3]", "0.5 0.5 3 0 0 0", "a point has v 3, wanted 0, 1 or 2"),
        ("[2, 3]", "0.5 0.5 0.7 0 0 0", "a point has v 0.7, wanted 0, 1 or 2"),
        ("[2, 3]", "0.5 1.5 2 0 0 0", "1.5 of a point is no share of the image"),
        ("[2, 3]", "0.5 0.5 2 0 0", "10 numbers, wanted class x y width height and 2 points of 3 numbers"),
        ("[2, 3]", "0.5 0.5 0.1 0.1", "9 numbers, wanted class x y width height and 2 points of 3 numbers"),
        # without v: visible, but for those at 0 0 (COCO's) and negative ones (Ultralytics')
        ("[2, 2]", "0.5 0.5 0.1 0.25", [[25, 20, 2], [5, 10, 2]]),
        ("[2, 2]", "0 0 -1 0.5", [[0, 0, 0], [0, 0, 0]]),
        ("[2, 2]", "0 0.5 0.5 0", [[0, 20, 2], [25, 0, 2]]),
        ("[2, 2]", "0.5 0.5 1.5 0.5", "1.5 of a point is no share"),
    ],
)
def test_poses(shape: str, row: str, wanted: Any, tmp_path: Path) -> None:
    made = source(tmp_path, f"0 0.5 0.5 0.2 0.4 {row}", POSE.replace("[2, 3]", shape))
    (item,), info = collect(made)
    if isinstance(wanted, str):
        assert isinstance(item, Reject) and item.origin == "labels/train/a.txt:1" and item.reason.startswith(wanted)
    else:
        assert isinstance(item, Record) and item.keypoints is not None and item.keypoints.dtype == np.float32
        assert np.allclose(item.keypoints, [wanted], atol=1e-4)
    assert info.flip_pairs == ((0, 1),)


def test_a_negative_of_poses_and_of_masks(tmp_path: Path) -> None:
    (record,) = source(tmp_path / "a", "", POSE)
    assert record.boxes.shape == (0, 4) and record.keypoints.shape == (0, 2, 3) and record.size is None
    (record,) = source(tmp_path / "b", "\n \n", task="segment")
    assert record.boxes.shape == (0, 4) and record.masks == () and record.keypoints is None


def test_rows_that_are_said_twice_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = "0 .5 .5 .2 .4\n1 .5 .5 .2 .4\n0 0.50 0.5 0.2 0.4\n0 .5 .5 .2 .5\n"
    made = source(tmp_path / "a", rows)
    for _ in range(2):
        (record,), info = collect(made)
        assert isinstance(record, Record) and record.box_labels == ("cat", "dog", "cat")
        assert info.boxes_dropped == {"said twice": 1}
    (record,), info = collect(source(tmp_path / "b", "0 .5 .5 .2 .4 .5 .5 2 0 0 0\n" * 3, POSE))
    assert info.boxes_dropped == {"said twice": 2} and info.keypoints_dropped == {"of dropped boxes": 2}


# --- data.yaml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "names", "note"),
    [
        ("names: [cat, dog]", ("cat", "dog"), None),
        ("names:\n  0: cat\n  1: dog\nnc: 2", ("cat", "dog"), None),
        ("names: {1: dog, 0: cat}", ("cat", "dog"), None),
        ("names: ['cat', \"dog\"]\r\n", ("cat", "dog"), None),
        # what YAML takes for true, false, nothing and numbers are names here
        ("names: [no, yes]", ("no", "yes"), None),
        ("names: [~, 1.0]", ("~", "1.0"), None),
        ("names: !!python/object/apply:os.system ['true']", ("true",), None),
        # gaps: classes keep their order, and not their numbers
        ("names: {0: cat, 7: dog}", ("cat", "dog"), "class numbers have gaps"),
        ("names: [cat, cat]", ("cat",), "several class numbers have the same name"),
        ("names: [cat, dog]\nnc: 80", ("cat", "dog"), "nc is 80, and 2 classes have names"),
        ("nc: 2", ("class_0", "class_1"), "data.yaml has no names: classes are called class_0"),
    ],
)
def test_names(config: str, names: tuple[str, ...], note: str | None, tmp_path: Path) -> None:
    made = source(tmp_path, "0 .5 .5 .2 .4", "train: images/train\nnames: [x]\n")
    (tmp_path / "data.yaml").write_text(f"train: images/train\n{config}")
    with watched(tmp_path):
        made = sources.yolo(tmp_path / "data.yaml")
    (record,), info = collect(made)
    assert isinstance(record, Record) and record.box_labels == names[:1]
    assert info.box_class_names == names
    assert [text.startswith(note) for text in info.notes] == ([True] if note else [])


def test_numbers_with_gaps_mean_their_names(tmp_path: Path) -> None:
    made = source(tmp_path, "7 .5 .5 .2 .4", "train: images/train\nnames: {0: cat, 7: dog}")
    (record,) = made
    assert record.box_labels == ("dog",)
    (item,) = source(tmp_path, "1 .5 .5 .2 .4", "train: images/train\nnames: {0: cat, 7: dog}")
    assert item.reason == "class 1 is none of 0, 7"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("names: []", "names is empty"),
        ("names: cat", "names is 'cat', wanted a list, or numbers with names"),
        ("names: {cat: 0}", "a class of names has no number, wanted 0, 1"),
        ("names: {-1: cat}", "a class of names has no number"),
        ("names: {99999999: cat}", "a class of names has no number"),
        ("names: [[cat]]", r"names, class 0: \['cat'\] is no name"),
        ("names: ['']", "names, class 0: '' is a blank name"),
        ('names: ["a\\nb"]', "names, class 0: 'a.nb' holds a line break"),
        ("names: {0: cat, 0: dog}", "in the mapping at line 2 a key occurs twice"),
        ("names: &a [cat]\nx: *a", "no sound YAML: aliases are not read"),
        ("names: [cat", ":2: no sound YAML"),
        ("nc: many", "nc is 'many', wanted the number of classes"),
        ("nc: 0", "nc is '0', wanted the number of classes"),
        ("\0", "no sound YAML"),
        ("[" * 5000, "no sound YAML"),
        ("- a", "no sound YAML|wanted names"),
        ("x: " + "a" * (1 << 20), "more than 1048576 bytes"),
        ("kpt_shape: [0, 3]\nnames: [a]", "kpt_shape is a list of 2, wanted points and 2 or 3"),
        ("kpt_shape: [2, 4]\nnames: [a]", "kpt_shape is a list of 2, wanted points and 2 or 3"),
        ("kpt_shape: 17\nnames: [a]", "kpt_shape is '17', wanted points"),
        ("kpt_shape: [2, 3]\nflip_idx: [1, 1]\nnames: [a]", "flip_idx is a list of 2, wanted 2 numbers of points"),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\nnames: [a]", "flip_idx is a list of 3, wanted 3 numbers of points"),
        ("kpt_shape: [2, 3]\nkpt_names: [a]\nnames: [a]", "kpt_names are a list of 1, wanted 2 different names"),
        ("train: {a: b}\nnames: [a]", "train is a mapping of 1, wanted a folder, a list, or several"),
        (
            "train: images/none\nnames: [a]",
            "train is 'images/none', which is not in .*; pass the folder .* images=FOLDER",
        ),
        ("train: ../secret\nnames: [a]", "train is '../secret', which is not in "),
        ("train: /etc\nnames: [a]", "train is '/etc', which is not in "),
        ('train: "a\\0b"\nnames: [a]', "train is 'a.*b', which is not in "),
        ("train: images/train\nval: images/val\nnames: [a]", "val is 'images/val', which is not in "),
    ],
)
def test_configs_at_fault(config: str, says: str, tmp_path: Path) -> None:
    files(tmp_path, {"secret/a.jpg": IMAGE})
    root = tree(tmp_path / "in", None, "images/train/a.jpg", "labels/train/a.txt")
    (root / "data.yaml").write_bytes(b"\n" + config.encode())
    with watched(root), pytest.raises((DataError, UsageError), match=says) as caught:
        list(sources.yolo(root / "data.yaml"))
    assert str(caught.value).startswith(f"{root}/data.yaml") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "names", "wanted", "note"),
    [
        # folders, a list of folders, lists, and what they are called
        (
            "train: images/train\nval: images/val",
            ["images/train/a.jpg", "images/val/b.jpg"],
            ["a.jpg train 1", "b.jpg val 1"],
            None,
        ),
        ("valid: images/val", ["images/val/b.jpg"], ["b.jpg val 1"], None),
        ("train: [x/images, y/images]", ["x/images/a.jpg", "y/images/b.jpg"], ["a.jpg train 1", "b.jpg train 1"], None),
        ("train: images", ["images/x/a.jpg"], ["x/a.jpg train 1"], None),
        ("train: .", ["a.jpg"], ["a.jpg train 1"], None),
        ("test: images/test", ["images/test/a.jpg"], ["a.jpg test 1"], None),
        # in a list ./ is the folder of the list, other names start from the root
        ("train: l/t.txt", ["l/t.txt:./a.jpg", "l/a.jpg"], ["l/a.jpg train 1"], None),
        ("train: l/t.txt", ["l/t.txt:./images/s/a.jpg", "l/images/s/a.jpg"], ["s/a.jpg train 1"], None),
        ("train: t.txt", ["t.txt:images/s/a.jpg", "images/s/a.jpg"], ["s/a.jpg train 1"], None),
        ("train: t.txt", ["t.txt:\ufeffimages\\s\\a.jpg\r,", "images/s/a.jpg"], ["s/a.jpg train 1"], None),
        ("train: t.txt", ["t.txt:/home/u/set/images/s/a.jpg", "images/s/a.jpg"], ["s/a.jpg train 1"], None),
        ("train: t.txt", ["t.txt:C:\\set\\images\\a.jpg", "images/a.jpg"], ["a.jpg train 1"], None),
        ("train: t.txt", ["t.txt:data/a.jpg", "a.jpg"], ["a.jpg train 1"], None),
        # one name alone may be another image's
        (
            "train: t.txt",
            ["t.txt:x/y/a.jpg,a.jpg", "a.jpg"],
            ["t.txt:1: there is no such image", "a.jpg train 1"],
            None,
        ),
        # the last folder called images
        ("train: images/x/images", ["images/x/images/a.jpg"], ["a.jpg train 1"], None),
        # an id of two splits, and one of two folders of a split
        (
            "train: images/t\nval: images/v",
            ["images/t/a.jpg", "images/v/a.jpg"],
            ["train/a.jpg train 1", "val/a.jpg val 1"],
            None,
        ),
        ("train: images/t\nval: images/t", ["images/t/a.jpg"], ["train/a.jpg train 1", "val/a.jpg val 1"], None),
        (
            "train: [x/images, y/images]",
            ["x/images/a.jpg", "y/images/a.jpg"],
            ["x/images/a.jpg train 1", "y/images/a.jpg train 1"],
            None,
        ),
        ("train: [images, images/x]", ["images/x/a.jpg"], ["x/a.jpg train 1"], None),
        # path: as it is, of another machine, of Ultralytics' folder of datasets
        ("path: set\ntrain: images", ["set/images/a.jpg"], ["a.jpg train 1"], None),
        (
            "path: /home/u/set\ntrain: images",
            ["images/a.jpg"],
            ["a.jpg train 1"],
            "path is '/home/u/set', which is not followed",
        ),
        (
            "path: ../datasets/set\ntrain: images",
            ["images/a.jpg"],
            ["a.jpg train 1"],
            "path is '../datasets/set', which is",
        ),
        # Roboflow: one up from where it is, and a test that was never written
        (
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images",
            ["train/images/a.jpg", "valid/images/b.jpg"],
            ["a.jpg train 1", "b.jpg val 1"],
            "test is",
        ),
        (
            "train: /content/set/train/images",
            ["train/images/a.jpg"],
            ["a.jpg train 1"],
            "paths that lead elsewhere are looked for in",
        ),
        ("train: images\ntest: ", ["images/a.jpg"], ["a.jpg train 1"], None),
        ("train: images\ntest: null", ["images/a.jpg"], ["a.jpg train 1"], None),
        # a name that is missing
        (
            "train: t.txt",
            ["t.txt:images/a.jpg,images/b.jpg", "images/a.jpg"],
            ["t.txt:2: there is no such image in", "a.jpg train 1"],
            None,
        ),
        (
            "train: t.txt",
            ["t.txt:../a.jpg,images/a.jpg", "images/a.jpg"],
            ["t.txt:1: the name leads out of the folder", "a.jpg train 1"],
            None,
        ),
    ],
)
def test_splits(config: str, names: list[str], wanted: list[str], note: str | None, tmp_path: Path) -> None:
    from headrace.sources.yolo import _label_of

    root = tree(tmp_path / "in", f"{config}\nnames: [cat]\n", *names)
    files(root, {_label_of(name): b"0 .5 .5 .2 .4" for name in names if name.endswith(".jpg")})
    with watched(root):
        items, info = collect(sources.yolo(root / "data.yaml"))
    for found, start in zip(gist(items), wanted, strict=True):
        assert found.startswith(start)
    assert any(text.startswith(note) for text in info.notes) if note else info.notes == ()


def test_a_path_of_this_machine_is_taken_where_it_is_inside(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", f"path: {tmp_path}/in\ntrain: images\nnames: [a]\n", "images/a.jpg", "labels/a.txt")
    items, info = collect(sources.yolo(root))
    assert gist(items) == ["a.jpg train 1"] and info.notes == ()


def test_images_elsewhere_are_named_by_the_caller(tmp_path: Path) -> None:
    config = files(tmp_path / "cfg", {"set.yaml": f"path: {tmp_path}/other\ntrain: images/t\nnames: [cat]\n".encode()})
    tree(tmp_path / "data", None, "images/t/a.jpg", "labels/t/a.txt")
    tree(tmp_path / "other", None, "images/t/secret.jpg", "labels/t/secret.txt")
    with watched(config), pytest.raises(DataError, match=r"train is 'images/t', which is not in .*images=FOLDER"):
        sources.yolo(config / "set.yaml")
    with watched(config, tmp_path / "data"):
        assert gist(sources.yolo(config / "set.yaml", images=tmp_path / "data")) == ["a.jpg train 1"]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # images and labels, by splits either way round, or in none; names in classes.txt
        (["classes.txt:cat", "images/a.jpg", "labels/a.txt"], ["a.jpg None 1"]),
        (["labels/classes.txt:cat", "images/a.jpg", "labels/a.txt"], ["a.jpg None 1"]),
        (["classes.txt:cat", "images/train/a.jpg", "labels/train/a.txt"], ["a.jpg train 1"]),
        (["classes.txt:cat", "valid/images/a.jpg", "valid/labels/a.txt"], ["a.jpg val 1"]),
        # the txt beside the image, as labelImg leaves it
        (["classes.txt:cat", "a.jpg", "a.txt"], ["a.jpg None 1"]),
        # Darknet: lists that start with data/, and none
        (
            ["obj.data:classes = 1,train = data/train.txt,valid = data/v.txt,names = data/obj.names", "obj.names:cat"]
            + ["train.txt:data/obj_train_data/a.jpg", "v.txt:data/obj_train_data/b.jpg"]
            + [f"obj_train_data/{name}" for name in ("a.jpg", "a.txt", "b.jpg", "b.txt")],
            ["obj_train_data/a.jpg train 1", "obj_train_data/b.jpg val 1"],
        ),
        (["obj.names:cat", "train.txt:x/a.jpg", "x/a.jpg", "x/a.txt"], ["x/a.jpg train 1"]),
        (["train/_darknet.labels:cat", "train/a.jpg", "train/a.txt"], ["a.jpg train 1"]),
    ],
)
def test_layouts_without_data_yaml(names: list[str], wanted: list[str], tmp_path: Path) -> None:
    root = tree(tmp_path, None, *names)
    items, info = collect(sources.yolo(root))
    assert gist(items) == wanted
    assert info.box_class_names == ("cat",) and not any(".txt" in kind for kind in info.skipped)


def test_names_are_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", None, "images/a.jpg", "labels/a.txt")
    with pytest.raises(UsageError, match=r"nothing says what the classes are called .*; pass class_names=\['cat', "):
        sources.yolo(root)
    (record,) = sources.yolo(root, class_names=["cat", "dog"])
    assert record.box_labels == ("cat",)  # type: ignore[union-attr]
    ended = headrace("pack", root, tmp_path / "ds")
    assert ended.code == 2 and "taking --format yolo: labels/a.txt has a class number" in ended.err
    assert "pass --classes cat,dog, in the order of their numbers" in ended.err
    ended = headrace("pack", root, tmp_path / "ds", "--classes", "cat,dog", "--json")
    assert ended.code == 0 and json.loads(ended.out)["boxes"] == 1
    (root / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match=r"classes.txt:3: wanted the name of a class in each line"):
        sources.yolo(root)


def test_calls_at_fault(tmp_path: Path) -> None:
    with pytest.raises(NotThereError):
        sources.yolo(tmp_path / "none")
    root = tree(tmp_path / "in", "names: [cat]\n", "a.jpg", "a.txt")
    with pytest.raises(UsageError, match="task is 'boxes', wanted one of detect, segment, pose, obb"):
        sources.yolo(root, task="boxes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"task is 'pose', and no data.yaml says how many points that is"):
        sources.yolo(root, task="pose")
    (root / "more.yaml").write_text("names: [dog]\n")
    (root / "data.yaml").rename(root / "one.yaml")
    with pytest.raises(UsageError, match=r"several files say names: more.yaml, one.yaml; pass one of them"):
        sources.yolo(root)
    assert collect(sources.yolo(root / "one.yaml"))[1].box_class_names == ("cat",)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ("task: segment", "segment"),
        ("task: obb", "obb"),
        ("task: classify", "detect"),
        ("kpt_shape: [4, 2]", "pose"),
        ("kpt_shape: [4, 2]\ntask: detect", "pose"),
        ("", "detect"),
    ],
)
def test_the_task_is_told_by_the_config(config: str, task: str, tmp_path: Path) -> None:
    assert source(tmp_path, "", f"{YAML}{config}").task == task
    assert source(tmp_path, "", f"{YAML}{config}", task="segment").task == "segment"


def test_keypoint_names(tmp_path: Path) -> None:
    for names in ("[nose, tail]", "{0: [nose, tail]}", "{0: [nose, tail], 1: [nose, tail]}"):
        assert source(tmp_path, "", f"{POSE}kpt_names: {names}").keypoint_names == ("nose", "tail")
    assert source(tmp_path, "", POSE + "kpt_names: {0: [nose, tail], 1: [a, b]}").keypoint_names is None


# --- label files -----------------------------------------------------------------------------------------------------


def test_missing_and_empty_label_files_are_negatives(tmp_path: Path) -> None:
    root = tree(tmp_path, YAML, *(f"images/train/{k}.jpg" for k in "abc"), "labels/train/b.txt")
    (root / "labels/train/c.txt").write_bytes(b"")
    items, info = collect(sources.yolo(root))
    assert gist(items) == ["a.jpg train 0", "b.jpg train 1", "c.jpg train 0"]
    assert [item.origin for item in items] == ["images/train/a.jpg", "labels/train/b.txt", "labels/train/c.txt"]
    assert info.notes == ("1 images have no label file: they are negatives, as YOLO has it",)
    (root / "labels").rename(root / "lables")  # a slip of the pen is no dataset of negatives
    with pytest.raises(DataError, match=r"none of 3 images has a label file, such as labels/train/a.txt"):
        list(sources.yolo(root))


def test_label_files_without_an_image(tmp_path: Path) -> None:
    root = tree(
        tmp_path, YAML, "images/train/a.jpg", "labels/train/a.txt", "labels/train/b.txt", "labels/train/x/c.txt"
    )
    files(root, {"labels/train/classes.txt": b"cat", "labels/train.cache": b"", "images/train/notes.txt": b"x"})
    items, info = collect(sources.yolo(root))
    assert gist(items) == [
        "a.jpg train 1",
        *(f"labels/train/{k}.txt: there is no image of this name" for k in ("b", "x/c")),
    ]
    assert info.skipped == {".txt": 1}


def test_label_files_without_an_image_beside_images(tmp_path: Path) -> None:
    """Where other texts may lie, too: a label file is one that begins with a row."""
    root = tree(tmp_path, None, "a.jpg", "a.txt", "x/b.txt")
    files(root, {"classes.txt": b"cat", "notes.txt": b"0 of 4 are done", "none.txt": b""})
    items, _ = collect(sources.yolo(root))
    assert gist(items) == ["a.jpg None 1", "x/b.txt: there is no image of this name"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xfe0\x00 \x00", "labels/train/a.txt:1: found "),
        (jpeg(), "labels/train/a.txt:1: found "),
        (b"0 .5 .5 .2 .4\0", "labels/train/a.txt:1: found "),
        (b"0 " * (1 << 20), "labels/train/a.txt:1: more than 100000 rows, or one of more than 1048576 bytes"),
        (b"0 .5 .5 .2 .4\n" * 100_001, "labels/train/a.txt:100001: more than 100000 rows"),
        (b"{}", "labels/train/a.txt:1: found '{}', wanted numbers: class x y width height"),
    ],
)
def test_label_files_that_are_none(data: bytes, says: str, tmp_path: Path) -> None:
    assert gist(source(tmp_path, data))[0].startswith(says)


@pytest.mark.parametrize("text", ["\ufeff0 .5 .5 .2 .4", "0 .5 .5 .2 .4\r\n\r\n", "\n\n0 .5 .5 .2 .4 \n"])
def test_spellings_of_the_same(text: str, tmp_path: Path) -> None:
    assert gist(source(tmp_path, text)) == ["a.jpg train 1"]


def test_images_that_are_none(tmp_path: Path) -> None:
    made = source(tmp_path, "0 .5 .5 .2 .4")
    (tmp_path / "images/train/a.jpg").write_bytes(b"not an image")
    (item,) = made
    assert (item.id, item.origin, item.stage) == ("a.jpg", "images/train/a.jpg", "header")
    (tmp_path / "images/train/a.jpg").write_bytes(jpeg(40, 50)[:100])
    (item,) = made
    assert isinstance(item, Reject)


def test_a_header_that_is_long(tmp_path: Path) -> None:
    """An EXIF block and profiles of more than the first look."""
    made = source(tmp_path, "0 .5 .5 .2 .4")
    block = exif(6)
    data = jpeg(HEIGHT, WIDTH, exif=block, icc_profile=bytes(range(256)) * 600)
    assert data.index(b"\xff\xc0") > 1 << 16
    (tmp_path / "images/train/a.jpg").write_bytes(data)
    (record,) = made
    assert record.size == (WIDTH, HEIGHT)


# --- where the shares are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "orientation"), [("GIF", 1), *((kind, turn) for kind in ("PNG", "JPEG") for turn in (1, 6, 8))]
)
@pytest.mark.parametrize("corners", [(0, 0, 64, 48), (3, 5, 20, 31), (60, 40, 64, 48)])
def test_a_painted_rectangle_is_framed(
    corners: tuple[int, int, int, int], orientation: int, kind: str, tmp_path: Path
) -> None:
    """Shares are of the image as it is seen, whatever way its bytes are stored."""
    x0, y0, x1, y1 = corners
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[y0:y1, x0:x1] = 255
    stored = {1: upright, 6: np.rot90(upright, 1), 8: np.rot90(upright, -1)}[orientation]
    more = {"exif": exif(orientation)} if kind != "GIF" else {}
    row = f"0 {(x0 + x1) / 128} {(y0 + y1) / 96} {(x1 - x0) / 64} {(y1 - y0) / 48}"
    files(tmp_path / "in", {"classes.txt": b"cat", "a.txt": row.encode()})
    (tmp_path / f"in/a.{kind.lower()}").write_bytes(saved(np.ascontiguousarray(stored), kind, **more))
    hr.pack(sources.yolo(tmp_path / "in"), tmp_path / "ds")
    (record,) = hr.Dataset(tmp_path / "ds")
    assert record.boxes is not None and len(record.boxes) == 1
    assert_painted_at(pixels_of(record), record.boxes[0], within=0.5 if kind == "JPEG" else 1e-3)


def test_splits_are_packed(tmp_path: Path) -> None:
    names = [f"{split}/{kind}/{k}.{end}" for split, n in (("train", 3), ("valid", 2)) for k in range(n)
             for kind, end in (("images", "jpg"), ("labels", "txt"))]  # fmt: skip
    root = tree(tmp_path / "in", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n", *names)
    ended = headrace("pack", root / "data.yaml", tmp_path / "ds", "--json")
    told = json.loads(ended.out)
    assert told["splits"] == {"train": 3, "val": 2} and told["boxes"] == 5
    assert ended.err.startswith("headrace: taking --format yolo: data.yaml has names\n")
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.box_class_names == ("cat", "dog")  # also the one that no row has
    assert {record.id for record in ds} == {"train/0.jpg", "train/1.jpg", "val/0.jpg", "val/1.jpg", "2.jpg"}
    for record in ds:
        assert record.boxes is not None and np.allclose(record.boxes, [[20, 12, 30, 28]], atol=1e-3)


# --- hostile files ---------------------------------------------------------------------------------------------------


def test_nothing_outside_is_opened(tmp_path: Path) -> None:
    files(tmp_path, {"secret/s.jpg": IMAGE, "s.txt": b"0 .5 .5 .2 .4"})
    root = tree(tmp_path / "in", YAML, *(f"images/train/{k}.jpg" for k in "abde"), "labels/train/a.txt")
    (root / "images/train/c.jpg").symlink_to(tmp_path / "secret/s.jpg")
    (root / "labels/train/b.txt").symlink_to(tmp_path / "s.txt")
    (root / "labels/train/d.txt").symlink_to("d.txt")
    os.mkfifo(root / "labels/train/e.txt")
    with watched(root):
        found = gist(sources.yolo(root))
    assert [text.partition(": '")[0] for text in found] == [
        "a.jpg train 1",
        "labels/train/b.txt: a link leads out of the folder",
        "images/train/c.jpg: a link leads out of the folder of images",
        "labels/train/d.txt: too many levels of symbolic links",
        "labels/train/e.txt: not a regular file",
    ]
    for name, link in (("images/val", tmp_path / "secret"), ("val.txt", tmp_path / "s.txt")):
        (root / name).symlink_to(link)
        (root / "data.yaml").write_text(f"train: images/train\nval: {name}\nnames: [cat]\n")
        with watched(root), pytest.raises(DataError, match="a link leads out of"):
            list(sources.yolo(root / "data.yaml"))
    (root / "more.yaml").symlink_to(tmp_path / "s.txt")
    with watched(root), pytest.raises(UsageError, match="can't be taken: a link leads out of"):
        sources.yolo(root / "more.yaml")


ROWS_OF = {
    "detect": (YAML, b"0 0.5 0.5 0.2 0.4\n1 0.25 0.5 0.1 0.1\n0 0.1 0.1 0.1 0.1\n"),
    "segment": (YAML + "task: segment\n", b"0 0.2 0.1 0.4 0.1 0.4 0.5 0.2 0.5\n1 0.5 0.5 0.2 0.4\n0 0 0 1 0 0 1\n"),
    "pose": (
        POSE + "kpt_names: [nose, tail]\n",
        b"0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.1 0.25 1\n1 .5 .5 .2 .4 0 0 0 .1 .1 1\n",
    ),
    "obb": (YAML + "task: obb\n", b"0 0.3 0.1 0.4 0.3 0.3 0.5 0.2 0.3\n"),
}


@pytest.mark.parametrize("task", ROWS_OF)
def test_mutated_files_neither_crash_nor_hang_nor_reach_outside(task: str, tmp_path: Path) -> None:
    """200 of each task: of the label file, of data.yaml, and of a list."""
    config, rows = ROWS_OF[task]
    root = tree(tmp_path / "in", None, "images/train/a.jpg", "images/train/b.jpg", "train.txt:images/train/b.jpg")
    files(tmp_path, {"x": IMAGE, "x.jpg": IMAGE, "secret.jpg": IMAGE})
    kinds = Counter[str]()
    for seed in range(200):
        what = ("label", "config", "list", "label")[seed % 4]
        said = config if what != "list" else config.replace("images/train", "train.txt")
        names = b"images/train/a.jpg\n./images/train/b.jpg\n"
        content = {
            "labels/train/a.txt": mutated(rows, seed) if what == "label" else rows,
            "labels/train/b.txt": rows,
            "data.yaml": mutated(said.encode(), seed) if what == "config" else said.encode(),
            "train.txt": mutated(names, seed) if what == "list" else names,
        }
        files(root, content)
        with watched(root):
            try:
                items, _ = collect(sources.yolo(root / "data.yaml"))
            except (DataError, UsageError) as error:
                items, told = [], str(error)
                kinds["error"] += 1
            else:
                told = ""
        assert "\n" not in told and (not told or what != "label")
        if what == "label":
            assert any(isinstance(item, Record) and item.id == "b.jpg" for item in items)
        for item in items:
            kinds[type(item).__name__] += 1
            if isinstance(item, Record):
                assert item.path and Path(item.path).parent == root / "images/train"
                assert hr.record.check_record(item) is None
            else:
                assert item.reason and "\n" not in item.reason
    assert kinds["Record"] > 120 and kinds["Reject"] > 40 and kinds["error"] > 5  # all ways are gone
