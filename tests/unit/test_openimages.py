"""Tables of Open Images become records: boxes, image labels, classes by name; rows of images that are not there."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import exif, files, jpeg, saved
from headrace import sources
from headrace.errors import DataError, NotThereError, UsageError
from headrace.imaging import codec
from headrace.record import Record, Reject, check_record
from headrace.sources.info import collect
from headrace.sources.registry import guess
from mutated import mutated
from painted import assert_painted_at

BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    "0a1,xclick,/m/011k07,1,0.25,0.75,0.125,1,1,0,-1,0,0\n"
    "ffff,xclick,/m/011k07,1,0.25,0.75,0.125,1,1,0,-1,0,0\n"
    "0b2,activemil,/m/0cat,0.9,0,1,0,1,0,1,0,0,1\n"
    "0a1,xclick,/m/0cat,1,0,0.5,0,0.5,-1,-1,-1,-1,-1\n"
)
LABELS = (
    "ImageID,Source,LabelName,Confidence\n"
    "0a1,verification,/m/011k07,1\n0a1,verification,/m/0dog,0\n0c3,machine,/m/0cat,0.6\n0c3,machine,/m/0dog,0.4\n"
    "eeee,verification,/m/011k07,1\n0c3,verification,/m/011k07,0\n"
)
NAMES = '/m/011k07,Tortoise\n/m/0cat,"Cat, or so"\n'
IMAGES = {
    "train/0a1.jpg": jpeg(),
    "train/0b2.png": saved(np.zeros((40, 56), np.uint8), "PNG"),
    "validation/0c3": jpeg(),
}


def source(folder: Path, text: str | bytes = BOXES, **options: Any) -> Any:
    files(folder / "in", IMAGES)
    files(folder, {"boxes.csv": text if isinstance(text, bytes) else text.encode()})
    return sources.openimages(folder / "boxes.csv", images=folder / "in", **options)


def rejects(made: Any) -> list[str]:
    return [f"{item.id} {item.origin} {item.reason}" for item in made if isinstance(item, Reject)]


def test_boxes(tmp_path: Path) -> None:
    """x, x, y, y as fractions; flags 1, 0 and -1 for unknown; rows of an image anywhere; an image found by its stem."""
    made = source(tmp_path)
    assert guess(made.root)[0].name == "openimages"
    items, info = collect(made)
    first, second = items
    assert isinstance(first, Record) and isinstance(second, Record)
    assert first.boxes is not None and first.boxes.dtype == np.float32
    assert first.boxes.tolist() == [[14, 5, 42, 40], [0, 0, 28, 20]]
    assert first.box_labels == ("/m/011k07", "/m/0cat") and first.labels is None
    assert first.attributes == {
        "source": ["xclick", "xclick"],
        "confidence": [1, 1],
        "occluded": [1, -1],
        "truncated": [0, -1],
        "group_of": [-1, -1],
        "depiction": [0, -1],
        "inside": [0, -1],
    }
    assert (first.id, first.origin, first.split) == ("train/0a1.jpg", "boxes.csv:2", "train")
    assert (first.size, first.upright) == ((40, 56), True)
    assert (second.id, second.origin, second.attributes["confidence"]) == ("train/0b2.png", "boxes.csv:4", [0.9])
    assert info.split_names == ("train", "val")
    assert info.skipped == {"rows of images that are not there": 1, "images without a row": 1}
    assert info.notes == ("1 rows are of images that are not in in/: passed over",)
    assert all(check_record(item) is None for item in items if isinstance(item, Record))


def test_cells_in_quotes(tmp_path: Path) -> None:
    """And white space around an ImageID."""
    head, first, *rest = BOXES.splitlines(keepends=True)
    text = head + '"0a1","x","/m/011k07",1,0.25,0.75,0.125,1,1,0,-1,0,0\r\n' + " " + rest[1] + rest[2]
    items, info = collect(source(tmp_path, text))
    assert [(item.id, len(item.boxes)) for item in items] == [("train/0a1.jpg", 2), ("train/0b2.png", 1)]
    assert info.skipped == {"images without a row": 1} and first.startswith("0a1")


def test_image_labels(tmp_path: Path) -> None:
    """1: it is there, 0: it was verified not to be, a fraction: what a machine thinks."""
    items, info = collect(source(tmp_path, LABELS))
    assert [(item.id, item.labels, item.attributes, item.boxes) for item in items] == [
        ("train/0a1.jpg", ("/m/011k07",), {"label_confidence": {"/m/011k07": 1.0, "/m/0dog": 0.0}}, None),
        (
            "validation/0c3",
            ("/m/0cat",),
            {"label_confidence": {"/m/0cat": 0.6, "/m/0dog": 0.4, "/m/011k07": 0.0}},
            None,
        ),
    ]
    assert info.skipped == {"rows of images that are not there": 1, "images without a row": 1}


def test_image_labels_beside_boxes(tmp_path: Path) -> None:
    files(tmp_path, {"labels.csv": LABELS.encode()})
    items, info = collect(source(tmp_path, image_labels=tmp_path / "labels.csv"))
    assert [(item.id, item.labels, item.box_labels, item.origin) for item in items] == [
        ("train/0a1.jpg", ("/m/011k07",), ("/m/011k07", "/m/0cat"), "boxes.csv:2"),
        ("train/0b2.png", None, ("/m/0cat",), "boxes.csv:4"),
        ("validation/0c3", ("/m/0cat",), None, "labels.csv:4"),  # nothing is said of boxes: no negative
    ]
    assert info.skipped == {"rows of images that are not there": 2}
    with pytest.raises(UsageError, match=r"image_labels is .*boxes.csv, wanted a table of labels beside one of boxes"):
        list(source(tmp_path, image_labels=tmp_path / "boxes.csv"))


def test_names_of_classes(tmp_path: Path) -> None:
    """Those that are passed hold for all; those found beside hold where they have a name."""
    files(tmp_path, {"names.csv": NAMES.encode()})
    (first, second) = source(tmp_path, class_descriptions=tmp_path / "names.csv")
    assert (first.box_labels, second.box_labels) == (("Tortoise", "Cat, or so"), ("Cat, or so",))
    made = source(tmp_path, LABELS, class_descriptions=tmp_path / "names.csv")
    assert rejects(made) == [
        "train/0a1.jpg boxes.csv:3 class '/m/0dog' is not in names.csv",
        "validation/0c3 boxes.csv:5 class '/m/0dog' is not in names.csv",
    ]
    files(tmp_path, {"oidv6-class-descriptions.csv": b"LabelName,DisplayName\n" + NAMES.encode()})
    items, info = collect(source(tmp_path, LABELS))
    assert [item.labels for item in items if isinstance(item, Record)] == [("Tortoise",), ("Cat, or so",)]
    assert info.notes[-1] == (
        "names of classes in boxes.csv are those of oidv6-class-descriptions.csv; 1 others stay as they are"
    )
    # of two, that for boxes
    files(tmp_path, {"class-descriptions-boxable.csv": b"/m/0cat,Tomcat\n/m/011k07,Tortoise\n"})
    assert next(iter(source(tmp_path))).box_labels == ("Tortoise", "Tomcat")
    assert next(iter(source(tmp_path, LABELS))).labels == ("Tortoise",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"/m/0\n", "names.csv:1: found '/m/0', wanted a LabelName and its description"),
        (b"/m/0,a\n/m/0,b\n", "names.csv:2: /m/0 occurs twice"),
        (b"/m/0,\n", "names.csv:1: '' is a blank name"),
        ("/m/0,a\n".encode("utf-16"), "names.csv:1: the file is UTF-16"),
    ],
)
def test_descriptions_that_are_none(text: bytes, says: str, tmp_path: Path) -> None:
    files(tmp_path, {"names.csv": text})
    with pytest.raises(DataError, match=says):
        list(source(tmp_path, class_descriptions=tmp_path / "names.csv"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0b2,x,/m/0,1,nan,1,0,1,0,0,0,0,0", "XMin is 'nan', wanted a number"),
        ("0b2,x,/m/0,1,0,inf,0,1,0,0,0,0,0", "XMax is 'inf', wanted a number"),
        ("0b2,x,/m/0,1,0,1,x,1,0,0,0,0,0", "YMin is 'x', wanted a number"),
        ("0b2,x,/m/0,1,0,56,0,40,0,0,0,0,0", "the box has 56, wanted fractions of the image from 0 to 1"),
        ("0b2,x,/m/0,1,1,0,0,1,0,0,0,0,0", "the box is reversed: 1 to 0, 0 to 1"),
        ("0b2,x,/m/0,1,0,1,0,1,2,0,0,0,0", "occluded is '2', wanted 0 or 1, or -1 for unknown"),
        ("0b2,x,,1,0,1,0,1,0,0,0,0,0", "LabelName: '' is a blank name"),
        ("0b2,x,/m/0,1,0,1,0,1,0,0,0,0", "12 cells, wanted 13"),
        ('0b2,x,"/m/0,1,0,1,0,1,0,0,0,0,0', "a quote that is not closed"),
        (",x,/m/0,1,0,1,0,1,0,0,0,0,0", "no ImageID in the row"),
    ],
)
def test_rows_that_are_none(row: str, says: str, tmp_path: Path) -> None:
    made = source(tmp_path, BOXES + row + "\n")
    (reject,) = rejects(made)
    assert f"boxes.csv:6 {says}" in reject
    kept = [item.id for item in made if isinstance(item, Record)]
    assert kept == (["train/0a1.jpg"] if row.startswith("0b2") else ["train/0a1.jpg", "train/0b2.png"])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("0a1,x,/m/0,2", "boxes.csv:8 Confidence is '2', wanted 0 to 1"),
        ("0a1,x,/m/0,x", "boxes.csv:8 Confidence is 'x', wanted a number"),
        ("0a1,x,/m/0dog,1", "boxes.csv:8 label /m/0dog is said to be there and not to be there"),
    ],
)
def test_labels_that_are_none(row: str, says: str, tmp_path: Path) -> None:
    assert rejects(source(tmp_path, LABELS + row)) == [f"train/0a1.jpg {says}"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "boxes.csv:1: no table of Open Images: its header has , no ImageID and no LabelName"),
        ("ImageID,Source\n", "its header has 'ImageID', 'Source', no LabelName"),
        ("ImageID,LabelName,XMin\n", "the header has XMin, wanted all of XMin, YMin, XMax, YMax, or none"),
        ("ImageID,LabelName\n", "the header has no Confidence, which tells whether an image has a label"),
        ("ImageID,LabelName,Confidence\n".encode("utf-16"), "the file is UTF-16, wanted UTF-8"),
    ],
)
def test_one_clear_error(text: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        list(source(tmp_path, text))


def test_files_that_are_none(tmp_path: Path) -> None:
    made = source(tmp_path)
    with pytest.raises(NotThereError):
        sources.openimages(tmp_path / "none.csv", images=tmp_path)
    with pytest.raises(UsageError, match="is a file, wanted a folder of images"):
        sources.openimages(made.root, images=made.root)
    with pytest.raises(NotThereError):
        source(tmp_path, class_descriptions=tmp_path / "none.csv")


def test_images_of_one_name_and_of_none(tmp_path: Path) -> None:
    files(tmp_path / "in", {"test/0b2.jpg": jpeg(), "train/0a1.jpg": b""})
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    made = source(tmp_path, BOXES + "link,x,/m/0,1,0,1,0,1,0,0,0,0,0\n")
    (tmp_path / "in" / "train" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "in" / "train" / "0a1.jpg").write_bytes(b"")
    assert rejects(made) == [
        "0b2 boxes.csv:4 several images are called 0b2",
        "train/0a1.jpg boxes.csv:2 empty file (0 bytes)",
        f"train/link.jpg boxes.csv:6 a link leads out of the folder of images: '{tmp_path}/in/train/link.jpg'",
    ]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_painted_rectangles(orientation: int, tmp_path: Path) -> None:
    """Fractions of the image as it is seen."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:20, 15:45] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    files(tmp_path / "in", {"p.png": saved(np.rot90(pixels, turns)[..., None].copy(), "PNG", exif=exif(orientation))})
    files(tmp_path, {"t.csv": b"ImageID,LabelName,XMin,XMax,YMin,YMax\np,/m/0,0.25,0.75,0.25,0.5\n"})
    (record,) = sources.openimages(tmp_path / "t.csv", images=tmp_path / "in")
    assert isinstance(record, Record) and record.boxes is not None
    assert (record.size, record.upright) == ((40, 60), True)
    data = record.read()
    header = codec.read_header(data)
    seen = codec.upright(codec.decode(data, header=header), header.orientation)
    assert_painted_at(seen, record.boxes[0], within=1e-3)


@pytest.mark.parametrize("sample", [BOXES, LABELS])
def test_mutated_files(sample: str, tmp_path: Path) -> None:
    files(tmp_path, {"secret.jpg": jpeg(), "x": jpeg(), "names.csv": NAMES.encode() + b"/m/0dog,Dog\n"})
    made = source(tmp_path, class_descriptions=tmp_path / "names.csv")
    ends = {"records": 0, "rejects": 0, "errors": 0}
    for seed in range(200):
        made.root.write_bytes(mutated(sample.encode(), seed))
        items: list[Record | Reject] = []
        try:
            items += made
        except DataError:
            ends["errors"] += 1
        for item in items:
            assert item.origin.startswith("boxes.csv:") and item.origin[10:].isdecimal()
            if isinstance(item, Record):
                assert check_record(item) is None and item.path is not None
                assert Path(item.path).resolve().is_relative_to(tmp_path / "in")
                ends["records"] += 1
            else:
                ends["rejects"] += 1
    assert min(ends.values()) > 5, ends


def test_rows_of_images_that_are_not_there_take_no_memory(tmp_path: Path) -> None:
    text = io.StringIO()
    text.write(BOXES)
    n = 50_000
    for i in range(n):
        text.write(f"{i:016x},xclick,/m/011k07,1,0.25,0.75,0.125,1,1,0,-1,0,0\n")
    made = source(tmp_path, text.getvalue())
    tracemalloc.start()
    items, info = collect(made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(items) == 2 and info.skipped["rows of images that are not there"] == n + 1
    assert peak < 1_000_000, peak
