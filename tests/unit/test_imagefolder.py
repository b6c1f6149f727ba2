"""Folders of images with metadata become records: what columns say, in each kind of file, and what tells splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given

from drawn import files, jpeg, saved
from headrace import sources
from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.imaging import codec
from headrace.record import Record, Reject, check_record
from headrace.sources.imagefolder import recognise
from headrace.sources.info import collect
from headrace.sources.registry import guess
from mutated import mutated
from painted import assert_painted_at, painted, sides

KEPT = ("label_name", "labels", "value", "captions", "box_labels", "size", "split", "group")


def source(folder: Path, rows: list[Any] | bytes | str, name: str = "metadata.jsonl", **options: Any) -> Any:
    """The source of metadata beside images a to d of 56 x 40 pixels. Rows that are texts stand as they are."""
    if isinstance(rows, list):
        rows = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    data = rows if isinstance(rows, bytes) else rows.encode()
    files(folder / "in", dict.fromkeys((f"{name}.jpg" for name in "abcd"), jpeg()) | {name: data})
    return sources.imagefolder(folder / "in", **options)


def gist(item: Record | Reject) -> Any:
    """Of a Record what it says beside its image, of a Reject where and why."""
    if isinstance(item, Reject):
        return f"{item.origin} {item.reason}"
    assert check_record(item) is None
    said = {name: value for name in KEPT if (value := getattr(item, name)) is not None}
    if item.boxes is not None:
        assert item.boxes.dtype == np.float32
        said["boxes"] = item.boxes.tolist()
    if item.attributes:
        said["attributes"] = dict(item.attributes)
    return item.id, said


BOXED = {"bbox": [[1, 2, 3, 4], [0.5, 0, 9, 9]], "categories": ["cat", "dog"]}
CORNERS = [[1, 2, 4, 6], [0.5, 0, 9.5, 9]]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({}, {}),
        # classes: a name, a number, whose name is not told; none; several
        ({"label": "cat"}, {"label_name": "cat"}),
        ({"label": 3}, {"label_name": "3"}),
        ({"label": None}, {}),
        ({"label": ""}, {}),
        ({"label": ["cat", "dog", "cat"]}, {"labels": ("cat", "dog")}),
        ({"labels": ["cat", 7]}, {"labels": ("cat", "7")}),
        ({"labels": []}, {"labels": ()}),
        ({"labels": ["dog"], "label": "cat"}, {"labels": ("dog", "cat")}),
        # captions, numbers, groups
        ({"text": "A cat."}, {"captions": ("A cat.",)}),
        ({"captions": ["One.", "Two.", "One."], "text": "Three."}, {"captions": ("Three.", "One.", "Two.")}),
        ({"captions": [], "text": None}, {"captions": ()}),
        ({"value": -1.5}, {"value": -1.5}),
        ({"value": 3, "group": "p1"}, {"value": 3.0, "group": "p1"}),
        ({"group": 7}, {"group": "7"}),
        # all else is an attribute, and what it is in JSON
        (
            {"additional_feature": 1, "Who Did": "me", "tags": ["x"], "deep": {"a": [1.5, None]}, "gone": None},
            {"attributes": {"additional_feature": 1, "who_did": "me", "tags": ["x"], "deep": {"a": [1.5, None]}}},
        ),
        ({"value": "high", "group": {"x": 1}}, {"attributes": {"value": "high", "group": {"x": 1}}}),
        ({"width": 56, "height": 40}, {"attributes": {"width": 56, "height": 40}}),
        ({"mask_file_name": "a.png"}, {"attributes": {"mask_file_name": "a.png"}}),
        # objects: lists, or a list of them; x, y, width, height
        ({"objects": BOXED}, {"boxes": CORNERS, "box_labels": ("cat", "dog")}),
        ({"objects": [{"bbox": [1, 2, 3, 4], "category": 0}]}, {"boxes": [[1, 2, 4, 6]], "box_labels": ("0",)}),
        ({"objects": {"bbox": [], "categories": []}}, {"boxes": [], "box_labels": ()}),
        ({"objects": []}, {"boxes": []}),
        ({"objects": {"bbox": [[1, 2, 3, 4]]}, "width": 56, "height": 40}, {"boxes": [[1, 2, 4, 6]], "size": (40, 56)}),
        (
            {
                "objects": {
                    "bbox": [[1, 2, 3, 4]] * 2,
                    "label": ["cat", "cat"],
                    "iscrowd": [True, None],
                    "area": [12, 12.5],
                    "track_id": [7, None],
                    "difficult": [0, -1],
                    "source": "me",
                    "pose": ["Left", None],
                }
            },
            {
                "boxes": [[1, 2, 4, 6]] * 2,
                "box_labels": ("cat", "cat"),
                "attributes": {
                    "is_crowd": [1, -1],
                    "area": [12, 12.5],
                    "track": [7, None],
                    "difficult": [0, -1],
                    "objects_source": "me",
                    "pose": ["Left", None],
                },
            },
        ),
    ],
)
def test_what_a_row_says(row: dict[str, Any], wanted: dict[str, Any], tmp_path: Path) -> None:
    (item,) = source(tmp_path, [{"file_name": "a.jpg", **row}])
    assert gist(item) == ("a.jpg", wanted) and item.origin == "metadata.jsonl:1"


def test_masks_and_keypoints(tmp_path: Path) -> None:
    runs = {"size": [4, 3], "counts": [2, 4, 6]}
    objects = {
        "bbox": [[0, 0, 3, 4]] * 4,
        "segmentation": [[[0, 0, 3, 0, 3, 4]], runs, None, {"size": [4, 3], "counts": "246"}],
        "keypoints": [[1, 2, 2, 0, 0, 0], None, [[3, 4, 1], [5, 6, 2]], []],
    }
    made = source(tmp_path, [{"file_name": "a.jpg", "objects": objects}])
    (item,), info = collect(made)
    assert isinstance(item, Record) and check_record(item) is None
    assert item.masks is not None and item.keypoints is not None
    first, second, third, fourth = item.masks
    assert first is not None and third is None
    assert [polygon.tolist() for polygon in first.polygons] == [[[0, 0], [3, 0], [3, 4]]]
    for mask in (second, fourth):  # the same in numbers, and pressed into a text as pycocotools does
        assert mask is not None and mask.runs is not None and (mask.runs.tolist(), mask.size) == ([2, 4, 6], (4, 3))
    assert item.keypoints.tolist() == [[[1, 2, 2], [0] * 3], [[0] * 3] * 2, [[3, 4, 1], [5, 6, 2]], [[0] * 3] * 2]
    assert info.skipped == {"images without a row": 3}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        # names
        ({"file_name": "../a.jpg"}, "the name leads out of the folder of images"),
        ({"file_name": "/etc/passwd"}, "the name leads out of the folder of images"),
        ({"file_name": "\\\\host\\share\\a.jpg"}, "the name leads out of the folder of images"),
        ({"file_name": "file:///etc/passwd"}, "file_name is 'file:///etc/passwd', a URL; wanted a file in the folder"),
        ({"file_name": "a\0.jpg"}, "the name holds control characters"),
        ('{"file_name": "\\ud800.jpg"}', "the name holds halves of characters"),
        ({"file_name": "gone.jpg"}, "no such file or directory: "),
        ({"file_name": ""}, "file_name is '', wanted the name of an image"),
        ({"file_name": 7}, "file_name is 7, wanted the name of an image"),
        ({"label": "cat"}, "the row has no file_name"),
        (
            {"left_file_name": "a.jpg", "right_file_name": "b.jpg"},
            "several images in a row: left_file_name, right_file_",
        ),
        ({"file_names": ["a.jpg"]}, "several images in a row: file_names"),
        # rows
        ('{"file_name": "b.jpg"', "no sound JSON: "),
        ('{"file_name": "b.jpg", "x": NaN}', "no sound JSON: NaN is no number"),
        ('{"file_name": "b.jpg", "x": 1e999}', "column x holds what is no JSON"),
        ('{"file_name": "b.jpg", "x": "\\ud800"}', "column x holds what is no JSON"),
        ('{"file_name": "b.jpg", "text": "\\ud800"}', "column text holds what is no JSON"),
        ('{"file_name": "b.jpg", "group": "\\ud800"}', "column group holds what is no JSON"),
        ("[" * 100_000, "no sound JSON: "),
        ('["b.jpg"]', "the row is no JSON object"),
        # classes
        ({"file_name": "b.jpg", "label": "  "}, "the label: '  ' is a blank name"),
        ({"file_name": "b.jpg", "label": 0.5}, "the label: 0.5 is no name, wanted a str"),
        ({"file_name": "b.jpg", "labels": "cat"}, "labels is 'cat', wanted a list of classes"),
        ({"file_name": "b.jpg", "labels": ["a\nb"]}, "a label: 'a\\nb' holds a line break"),
        ('{"file_name": "b.jpg", "value": 1e999}', "value is inf, wanted a number"),
        # objects
        ({"file_name": "b.jpg", "objects": 7}, "objects is 7, wanted lists, one of them bbox"),
        ({"file_name": "b.jpg", "objects": [7]}, "objects is [7], wanted a list of objects"),
        ({"file_name": "b.jpg", "objects": {"bbox": [1, 2, 3, 4]}}, "bbox 0 is 1, wanted x, y, width and height"),
        ({"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3]]}}, "bbox 0 is [1, 2, 3], wanted x, y, width and heig"),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [["1", 2, 3, 4]]}},
            "bbox 0: ['1', 2, 3, 4], of which is '1', wanted",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, -3, 4]]}},
            "bbox 0 is [1, 2, -3, 4], a negative width or h",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, -4]]}},
            "bbox 0 is [1, 2, 3, -4], a negative width or h",
        ),
        ('{"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 1e999, 4]]}}', "of which is inf, wanted a number"),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}},
            "objects has 1 of bbox and 0 of categories",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [None]}},
            "categories of an object: None is no name, wanted a str",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "iscrowd": [2]}},
            "is_crowd is 2, wanted 0 or 1, or -1 for unknown",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "segmentation": [[1, 2, 3]]}},
            "segmentation is [1, 2, 3]: a polygon of it is no list of x, y",
        ),
        (
            {"file_name": "b.jpg", "objects": {"bbox": [[1, 2, 3, 4]] * 2, "keypoints": [[1, 2, 2], [1, 2]]}},
            "keypoints of an object are 2 numbers, wanted 3 for each of 1 points",
        ),
    ],
)
def test_a_row_that_is_none_is_a_reject_with_its_line(row: Any, says: str, tmp_path: Path) -> None:
    made = source(tmp_path, [{"file_name": "a.jpg"}, row, {"file_name": "c.jpg"}])
    first, bad, last = made
    assert isinstance(bad, Reject) and bad.origin == "metadata.jsonl:2"
    assert says in bad.reason and (first.id, last.id) == ("a.jpg", "c.jpg")


def test_encodings(tmp_path: Path) -> None:
    rows = b'\xef\xbb\xbf{"file_name": "a.jpg", "text": "\xc3\xa4"}\r\n\r\n{"file_name": "b.jpg", "text": "\xe4"}\n'
    assert [gist(item) for item in source(tmp_path, rows)] == [
        ("a.jpg", {"captions": ("ä",)}),
        "metadata.jsonl:3 the row is not UTF-8",
    ]
    with pytest.raises(DataError, match=r"metadata.jsonl:1: the file is UTF-16, wanted UTF-8"):
        list(source(tmp_path, '{"file_name": "a.jpg"}\n'.encode("utf-16")))


def test_csv(tmp_path: Path) -> None:
    """Cells are what they are written as; objects and labels are JSON."""
    text = (
        "file_name,label,labels,text,value,objects,Some Number\r\n"
        'a.jpg,0,,"A cat, and\nmore.",1.5,"{""bbox"": [[1, 2, 3, 4]], ""category"": [""cat""]}",007\r\n'
        'b.jpg,,"[""x"", ""y""]",,,,-3\r\n'
        "c.jpg,cat,x,,,,\r\n"
        "d.jpg,cat\r\n"
    )
    made = source(tmp_path, text, "metadata.csv")
    assert [gist(item) for item in made] == [
        (
            "a.jpg",
            {
                "label_name": "0",
                "value": 1.5,
                "captions": ("A cat, and\nmore.",),
                "box_labels": ("cat",),
                "boxes": [[1, 2, 4, 6]],
                "attributes": {"some_number": "007"},
            },
        ),
        ("b.jpg", {"labels": ("x", "y"), "attributes": {"some_number": -3}}),
        "metadata.csv:5 labels is 'x', wanted JSON",
        "metadata.csv:6 2 cells, wanted 7",
    ]


def test_parquet(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", dict.fromkeys(("a.jpg", "b.jpg"), jpeg()))
    table = pl.DataFrame(
        {
            "file_name": ["a.jpg", "b.jpg", "../x.jpg"],
            "label": [0, None, 1],
            "objects": [BOXED, {"bbox": [], "categories": []}, None],
            "day": pl.Series([None, "2026-01-02", None]).str.to_date(),
        },
        strict=False,
    )
    table.write_parquet(folder / "metadata.parquet")
    assert guess(folder)[0].name == "imagefolder"
    assert [gist(item) for item in sources.imagefolder(folder)] == [
        ("a.jpg", {"label_name": "0", "boxes": CORNERS, "box_labels": ("cat", "dog")}),
        ("b.jpg", {"boxes": [], "box_labels": (), "attributes": {"day": "2026-01-02"}}),
        "metadata.parquet[2] the name leads out of the folder of images",
    ]
    for data, says in ((b"PAR1 and no more", "no sound parquet"), (b"", "no parquet file: it begins with b''")):
        (folder / "metadata.parquet").write_bytes(data)
        with pytest.raises(DataError, match=says):
            list(sources.imagefolder(folder))


ROW = b'{"file_name": "1.jpg"}\n'
ONE = {"1.jpg": b"", "metadata.jsonl": ROW}


@pytest.mark.parametrize(
    ("content", "wanted", "notes"),
    [
        # metadata in the folders of splits, and above them
        (
            {f"{folder}/{name}": data for folder in ("train", "validation/x") for name, data in ONE.items()},
            {"train/1.jpg": "train", "validation/x/1.jpg": "val"},
            ("splits are told by the names of folders",),
        ),
        (
            {"a/dev_set/1.jpg": b"", "test/1.jpg": b"", "metadata.csv": b"file_name\na/dev_set/1.jpg\ntest/1.jpg\n"},
            {"a/dev_set/1.jpg": "val", "test/1.jpg": "test"},
            ("splits are told by the names of folders",),
        ),
        # words in file names
        (
            {"my_train_1.jpg": b"", "eval 2.jpg": b"", "metadata.csv": b"file_name\nmy_train_1.jpg\neval 2.jpg\n"},
            {"my_train_1.jpg": "train", "eval 2.jpg": "test"},
            ("splits are told by the names of file names",),
        ),
        # a word is one between ends, and all images must have one
        ({"trainer/1.jpg": b"", "trainer/metadata.jsonl": ROW}, {"trainer/1.jpg": None}, ()),
        (
            {"train/1.jpg": b"", "train/metadata.jsonl": ROW, "cars/2.jpg": b""},
            {"train/1.jpg": None},
            ("folders that look like splits are not taken as such: 1 of 2 images are in none",),
        ),
    ],
)  # fmt: skip
def test_splits(content: dict[str, bytes], wanted: dict[str, str | None], notes: Any, tmp_path: Path) -> None:
    root = files(tmp_path, {name: data or jpeg(4, 4) for name, data in content.items()})
    items, info = collect(sources.imagefolder(root))
    assert {item.id: getattr(item, "split", "") for item in items} == wanted
    assert info.notes == notes
    assert info.split_names == (tuple(filter(None, dict.fromkeys(wanted.values()))) or None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"1.jpg": b""}, "no metadata.csv, metadata.jsonl or metadata.parquet in it"),
        (
            {"a/metadata.csv": b"file_name\n", "b/metadata.jsonl": ROW},
            "metadata of several kinds, a/metadata.csv and b/metadata.jsonl; keep one",
        ),
        ({"metadata.csv": b"name,label\n1.jpg,x\n"}, "metadata.csv:1: which column names the images\\? It has 'name'"),
        ({"metadata.csv": b""}, "metadata.csv:1: which column names the images"),
    ],
)  # fmt: skip
def test_one_clear_error(content: dict[str, bytes], says: str, tmp_path: Path) -> None:
    files(tmp_path, content)
    with pytest.raises(DataError, match=says):
        list(sources.imagefolder(tmp_path))


def test_roots_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError):
        sources.imagefolder(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file, wanted a folder of images"):
        sources.imagefolder(files(tmp_path, {"a": b""}) / "a")


def test_what_is_recognised(tmp_path: Path) -> None:
    for i, (content, why) in enumerate(
        [
            ({"x/metadata.jsonl": ROW}, "x/metadata.jsonl has a column file_name"),
            ({"metadata.csv": b"label,image_file_name\n"}, "metadata.csv has a column image_file_name"),
            ({"metadata.csv": b"label,name\n"}, None),
            ({".x/metadata.jsonl": ROW, "1.jpg": b""}, None),
            ({"metadata.jsonl": "é".encode("utf-16")}, None),
        ]
    ):
        assert recognise(files(tmp_path / str(i), content)) == why


def test_links_that_lead_out(tmp_path: Path) -> None:
    files(tmp_path, {"secret.jpg": jpeg(), "metadata.jsonl": ROW})
    made = source(tmp_path, [{"file_name": "link.jpg"}, {"file_name": "a.jpg"}])
    (made.root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    assert [getattr(item, "reason", "")[:40] for item in made] == ["a link leads out of the folder of images", ""]
    (made.root / "metadata.jsonl").unlink()
    (made.root / "metadata.jsonl").symlink_to(tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match="a link leads out of the folder"):
        list(made)


@given(painted(sides=sides))
def test_painted_rectangles(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    """x, y, width, height in pixels."""
    pixels, box = drawn
    x0, y0, x1, y1 = box[0].tolist()
    row = {"file_name": "p.png", "objects": {"bbox": [[x0, y0, x1 - x0, y1 - y0]], "categories": ["white"]}}
    folder = tmp_path_factory.mktemp("in")
    files(folder, {"p.png": saved(pixels, "PNG"), "metadata.jsonl": json.dumps(row).encode()})
    (record,) = sources.imagefolder(folder)
    assert isinstance(record, Record) and record.boxes is not None
    data = record.read()
    assert_painted_at(codec.decode(data, header=codec.read_header(data), channels=1), record.boxes[0], within=1e-3)


SAMPLES: dict[str, bytes] = {
    "metadata.jsonl": b"".join(
        json.dumps(row).encode() + b"\n"
        for row in (
            {"file_name": "a.jpg", "label": "cat", "text": "A cat.", "value": 1.5},
            {"file_name": "b.jpg", "objects": BOXED | {"iscrowd": [0, 1], "keypoints": [[1, 2, 2], [0, 0, 0]]}},
            {"file_name": "c.jpg", "objects": {"bbox": [[0, 0, 5, 5]], "segmentation": [[[0, 0, 5, 0, 5, 5]]]}},
        )
    ),
    "metadata.csv": b'file_name,label,text,value\na.jpg,cat,"A cat, and\nmore.",1.5\nb.jpg,dog,,\nc.jpg,cat,x,2\n',
}


@pytest.mark.parametrize("name", SAMPLES)
def test_mutated_files(name: str, tmp_path: Path) -> None:
    files(tmp_path, {"secret.jpg": jpeg(), "x": jpeg()})
    made = source(tmp_path, b"", name)
    ends = {"records": 0, "rejects": 0, "errors": 0}
    for seed in range(200):
        (made.root / name).write_bytes(mutated(SAMPLES[name], seed))
        items: list[Record | Reject] = []
        try:
            items += made
        except DataError:
            ends["errors"] += 1
        for item in items:
            assert item.origin.startswith(f"{name}:")
            if isinstance(item, Record):
                assert check_record(item) is None and item.path is not None
                assert Path(item.path).resolve().is_relative_to(tmp_path / "in")
                ends["records"] += 1
            else:
                ends["rejects"] += 1
    assert min(ends.values()) > 5, ends


def test_mutated_parquet(tmp_path: Path) -> None:
    made = source(tmp_path, b"", "metadata.parquet")
    path = made.root / "metadata.parquet"
    pl.DataFrame({"file_name": ["a.jpg", "b.jpg"], "objects": [BOXED, BOXED]}, strict=False).write_parquet(path)
    data, ends = path.read_bytes(), {"sound": 0, "errors": 0}
    for seed in range(200):
        path.write_bytes(mutated(data, seed))
        try:
            list(made)
            ends["sound"] += 1
        except (DataError, StorageError):
            ends["errors"] += 1
    assert min(ends.values()) > 5, ends
