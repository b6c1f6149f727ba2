"""Source parquet: which columns are what, by the file's own schema or by name; rows, faults, bounded memory."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from contained import IMAGE, class_label
from contained import parquet as write
from drawn import jpeg
from headrace.errors import DataError, HeadraceError, NotThereError, UsageError
from headrace.format import footer
from headrace.record import Record, Reject, check_record
from headrace.sources import parquet, registry
from headrace.sources.info import SourceInfo, collect
from mutated import mutated

A, B, C = (jpeg(seed=seed) for seed in range(3))


def struct(*images: bytes | None, paths: list[str | None] | None = None) -> list[dict[str, Any]]:
    """A column of images as Hugging Face's `datasets` stores it."""
    names = paths or [f"{i}.jpg" for i in range(len(images))]
    return [{"bytes": image, "path": name} for image, name in zip(images, names, strict=True)]


def read(path: Path, **options: Any) -> tuple[list[Any], SourceInfo]:
    return collect(parquet(path, **options))


def one(tmp_path: Path, features: dict[str, Any] | None = None, **columns: Any) -> Any:
    """What comes of a row with an image and these columns."""
    columns = {"image": struct(A)} | {name: [value] for name, value in columns.items()}
    path = write(tmp_path / "x.parquet", columns, None if features is None else {"image": IMAGE} | features)
    [item] = read(path)[0]
    assert isinstance(item, Reject) or check_record(item) is None
    return item


# --- what columns say ------------------------------------------------------------------------------------------------

CLASSES = class_label("cat", "dog")

# Columns of a row, what the schema says of them, and what must come out.
COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]] = {
    "a class of the schema": ({"label": 1}, {"label": CLASSES}, {"label_name": "dog"}),
    "no class, as datasets says it": ({"label": -1}, {"label": CLASSES}, {"label_name": None, "label": None}),
    "null": ({"label": None}, {"label": CLASSES}, {"label_name": None, "attributes": {}}),
    "a number that the schema doesn't name": ({"label": 1}, None, {"label": 1, "label_name": None}),
    "a name": ({"label": "dog"}, None, {"label_name": "dog"}),
    "a switch": ({"label": True}, None, {"label": 1}),
    "a float is a value": ({"label": 0.5}, None, {"value": 0.5, "label": None}),
    "so is value": ({"value": 3.5, "label": "a"}, None, {"value": 3.5, "label_name": "a"}),
    "no number is no value": ({"label": float("nan")}, None, {"value": None}),
    "several classes": (
        {"label": [1, 0]},
        {"label": {"feature": CLASSES, "_type": "List"}},
        {"labels": ("dog", "cat")},
    ),
    "as older versions say it": ({"labels": [1]}, {"labels": [CLASSES]}, {"labels": ("dog",)}),
    "several names": ({"labels": ["a", "b"]}, None, {"labels": ("a", "b")}),
    "labels of one class": ({"labels": 1}, {"labels": CLASSES}, {"label_name": "dog"}),
    "the only ClassLabel, whatever it is called": ({"kind": 0}, {"kind": CLASSES}, {"label_name": "cat"}),
    "another ClassLabel is an attribute": (
        {"label": 0, "coarse": 1},
        {"label": CLASSES, "coarse": class_label("big", "small")},
        {"label_name": "cat", "attributes": {"coarse": "small"}},
    ),
    "captions": ({"caption": ["a", "b"]}, None, {"captions": ("a", "b")}),
    "text": ({"text": "a"}, None, {"captions": ("a",)}),
    "the rest": (
        {"id": 7, "f": float("inf"), "on": datetime.date(2020, 1, 2), "deep": {"a": [1.5]}, "none": None},
        None,
        {"attributes": {"id": 7, "on": "2020-01-02", "deep": {"a": [1.5]}}},
    ),
    "objects, lists by name": (
        {"objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [1], "iscrowd": [False]}, "width": 56, "height": 40},
        {"objects": {"bbox": {}, "category": {"feature": class_label("x", "y"), "_type": "List"}}},
        {"box_labels": ("y",), "size": (40, 56), "attributes": {"is_crowd": [0]}},
    ),
    "objects, one for each": (
        {"objects": [{"bbox": [1.0, 2.0, 3.0, 4.0], "categories": 0}]},
        {"objects": [{"bbox": {}, "categories": class_label("x", "y")}]},
        {"box_labels": ("x",)},
    ),
    "no objects": ({"objects": {"bbox": [], "category": []}}, None, {"box_labels": ()}),
    "objects of none": ({"objects": None}, None, {"boxes": None}),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name: str, tmp_path: Path) -> None:
    columns, features, wanted = COLUMNS[name]
    record = one(tmp_path, features, **columns)
    assert isinstance(record, Record) and record.encoded == A and record.id == "0.jpg"
    for field, value in wanted.items():
        assert getattr(record, field) == value, field


def test_boxes(tmp_path: Path) -> None:
    record = one(tmp_path, objects={"bbox": [[1.5, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]], "category": ["a", "b"]})
    assert record.boxes.dtype == np.float32 and record.boxes.tolist() == [[1.5, 2, 4.5, 6], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("columns", "features", "reason"),
    [
        ({"label": 2}, {"label": CLASSES}, "the class is 2, and there are 2: cat, dog"),
        ({"label": -1}, None, "the class is -1"),
        ({"label": " "}, None, "blank name"),
        ({"objects": {"bbox": [[1.0, 2.0, 3.0]]}}, None, "wanted x, y, width and height"),
        ({"objects": {"bbox": [[1.0, 2.0, 3.0, None]]}}, None, "wanted x, y, width and height"),
        ({"objects": {"bbox": [[1.0, 2.0, 3.0, float("nan")]]}}, None, "wanted x, y, width and height"),
        ({"objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": ["a", "b"]}}, None, "lists of one length"),
        ({"objects": {"category": ["a"]}}, None, "no bbox"),
        ({"caption": 3}, None, "the caption is 3"),
    ],
)
def test_values_that_make_no_sense(
    columns: dict[str, Any], features: dict[str, Any] | None, reason: str, tmp_path: Path
) -> None:
    item = one(tmp_path, features, **columns)
    assert isinstance(item, Reject) and reason in item.reason
    assert (item.id, item.origin, item.stage) == ("0.jpg", "x.parquet:0", "annotation")


def test_rows_without_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": [*struct(A, None, b""), None], "label": [0, 1, 2, 3]})
    items, _ = read(path)
    assert isinstance(items[0], Record)
    assert [item.reason.partition(";")[0] for item in items[1:]] == [
        "no bytes, and the path '1.jpg' alone",  # which would lead out of the file
        "no bytes, and the path '2.jpg' alone",
        "no image",
    ]
    assert [item.origin for item in items] == [f"x.parquet:{i}" for i in range(4)]


def test_plain_bytes(tmp_path: Path) -> None:
    items, _ = read(write(tmp_path / "x.parquet", {"img": [A, B, None], "label": [1, 0, 0]}))
    assert [(item.id, item.encoded) for item in items[:2]] == [("x.parquet:0", A), ("x.parquet:1", B)]
    assert isinstance(items[2], Reject)


def test_ids(tmp_path: Path) -> None:
    """Paths beside the bytes are mere names, often those of files in different folders."""
    paths = ["a.jpg", "d/a.jpg", "a.jpg", "/tmp/b.jpg", "../../c.jpg", None, "", "a\0.jpg"]
    path = write(tmp_path / "x.parquet", {"image": struct(*[A] * 8, paths=paths)})
    items, info = read(path)
    last = [f"x.parquet:{i}" for i in (5, 6, 7)]
    assert [item.id for item in items] == ["a.jpg", "d/a.jpg", "a.jpg#x.parquet:2", "b.jpg", "c.jpg", *last]
    assert info.notes == ("1 images have the path of one before them: their file and row is added to their ids",)


def test_columns_that_must_be_named(tmp_path: Path) -> None:
    columns = {"left": struct(A), "right": struct(B), "fine": [1], "coarse": [0]}
    features = {"left": IMAGE, "right": IMAGE, "fine": CLASSES, "coarse": class_label("big", "small")}
    path = write(tmp_path / "x.parquet", columns, features)
    with pytest.raises(UsageError, match="several columns of images, left, right; pass image=NAME"):
        read(path)
    with pytest.raises(UsageError, match="several columns of classes, fine, coarse; pass label=NAME"):
        read(path, image="right")
    items, info = read(path, image="right", label="coarse")
    assert items[0].encoded == B and items[0].label_name == "big" and items[0].attributes == {"fine": "dog"}
    assert info.class_names == ("big", "small")
    assert info.skipped == {"column left (images)": 1}
    assert read(path, image="right", label="fine", class_names=["x", "y"])[0][0].label_name == "y"
    with pytest.raises(UsageError, match="image='fine' is no column of images; it has left"):
        read(path, image="fine")
    with pytest.raises(UsageError, match="label='cat': no such column"):
        read(path, image="left", label="cat")


@pytest.mark.parametrize(
    "features",
    [
        *("", "[]", '{"info": 3}', "{" * 3000),
        '{"info": {"features": {"image": 3, "label": {"names": 3}}}}',
        '{"info": {"features": {"label": [], "objects": [[]]}}}',
    ],
)
def test_a_schema_that_makes_no_sense_says_nothing(features: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"image": struct(A), "label": [1]})
    frame.write_parquet(tmp_path / "x.parquet")
    footer.retell(tmp_path / "x.parquet", {"huggingface": features})
    [item] = read(tmp_path / "x.parquet")[0]
    assert item.label == 1


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_folder_with_its_splits(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 5)):
        for i in range(2):
            numbers = (first + 2 * i, first + 2 * i + 1)
            images = struct(*(jpeg(seed=k) for k in numbers), paths=[f"{k}.jpg" for k in numbers])
            path = tmp_path / "in" / "data" / f"{split}-{i:05d}-of-00002.parquet"
            write(path, {"image": images, "label": [0, 1]}, {"image": IMAGE, "label": CLASSES})
    (tmp_path / "in" / "README.md").write_bytes(b"---")
    entry, why = registry.guess(tmp_path / "in")
    assert entry.name == "parquet" and "data/train-00000-of-00002.parquet has a column of images, image" in why
    report = hr.pack(parquet(tmp_path / "in"), tmp_path / "out")
    assert dict(report.splits) == {"train": 4, "val": 4} and report.classes == ("cat", "dog")
    ds = hr.Dataset(tmp_path / "out")
    row = ds.catalog.filter(pl.col("id") == "6.jpg").row(0, named=True)
    assert row["origin"] == "data/validation-00000-of-00002.parquet:1" and row["split"] == "val"
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no file in it ends in \.parquet"):
        parquet(tmp_path / "none")
    with pytest.raises(NotThereError):
        parquet(tmp_path / "none.parquet")


def test_files_that_disagree(tmp_path: Path) -> None:
    for i, names in enumerate((("cat", "dog"), ("dog", "cat"))):
        write(
            tmp_path / f"{i}.parquet",
            {"image": struct(A), "label": [0]},
            {"image": IMAGE, "label": class_label(*names)},
        )
    with pytest.raises(DataError, match=r"1\.parquet: its classes are dog, cat, those before cat, dog"):
        read(tmp_path)


def damaged(tmp_path: Path) -> bytes:
    return write(tmp_path / "whole.parquet", {"image": struct(A, B), "label": [0, 1]}).read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "0 bytes are no Parquet file"),
        (lambda data: b"<html>" * 10, "is no Parquet file"),
        (lambda data: data[:-100], "ends without PAR1, as every whole Parquet file does: cut short?"),
        (lambda data: data[:-4] + b"PARE", "is encrypted; decrypt it first"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "its end says a footer of 2147483647 bytes"),
        (lambda data: data[:-8] + b"\x01\0\0\0PAR1", "its footer makes no sense"),
        (lambda data: data[:-40] + b"\xff" * 32 + data[-8:], "its footer makes no sense"),
    ],
)
def test_files_that_are_none(change: Any, reason: str, tmp_path: Path) -> None:
    data = change(damaged(tmp_path))
    (tmp_path / "whole.parquet").unlink()
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(DataError, match=reason) as told:
        read(tmp_path / "x.parquet")
    assert str(told.value).startswith(str(tmp_path / "x.parquet"))
    write(tmp_path / "y.parquet", {"image": struct(C), "label": [1]})
    items, _ = read(tmp_path)  # of several it is a Reject, and the others are read
    assert isinstance(items[0], Reject) and reason in items[0].reason and items[1].encoded == C


def test_no_images(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"text": ["a"], "n": [1]})
    with pytest.raises(DataError, match=r"no column of images \(bytes, or bytes and path\); it has text \(String\), n"):
        read(path)
    assert registry.FORMATS["parquet"].recognise(tmp_path) is None


def test_a_row_group_that_cannot_be_read(tmp_path: Path) -> None:
    """Each of its rows is a Reject; those of the others come."""
    images = struct(*(jpeg(seed=i) for i in range(9)))
    path = write(tmp_path / "x.parquet", {"image": images, "label": list(range(9))}, rows=3)
    data = bytearray(path.read_bytes())
    groups = footer.read(path).groups
    assert [rows for rows, _ in groups] == [3, 3, 3]
    said = footer._Compact(bytes(data[-8 - int.from_bytes(data[-8:-4], "little") : -8])).struct(0)
    column = said[4][1][1][0][3]  # metadata of the first column of the second group (parquet.thrift)
    at = column.get(11, column[9])  # its dictionary, or its first page
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    items, _ = read(path)
    assert len(items) == 9
    rejects = [i for i, item in enumerate(items) if isinstance(item, Reject)]
    assert rejects == [3, 4, 5] and "Polars can't read it" in items[3].reason and items[3].origin == "x.parquet:3"


def test_an_empty_table(tmp_path: Path) -> None:
    schema = {"image": pl.Struct({"bytes": pl.Binary, "path": pl.String}), "label": pl.Int64}
    assert read(write(tmp_path / "x.parquet", {"image": [], "label": []}, schema=schema))[0] == []


def test_odd_file_names(tmp_path: Path) -> None:
    """Polars takes patterns and folders of partitions by itself."""
    path = write(tmp_path / "k=1" / "a[0-9]*?.parquet", {"image": struct(A), "label": [0]})
    [item] = read(path)[0]
    assert item.encoded == A and item.attributes == {}


def test_mutated_files(tmp_path: Path) -> None:
    """200 damaged copies: each ends in Records, Rejects or an error of ours; no panic of Polars gets through."""
    columns = {
        "image": struct(A, B, C),
        "label": [0, 1, 0],
        "objects": [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [0]}] * 3,
    }
    features = {"image": IMAGE, "label": CLASSES, "objects": {"category": [class_label("x")]}}
    whole = write(tmp_path / "x.parquet", columns, features, rows=1).read_bytes()
    records = 0
    for seed in range(200):
        (tmp_path / "x.parquet").write_bytes(mutated(whole, seed))
        try:
            items, _ = read(tmp_path / "x.parquet")
        except HeadraceError:
            continue
        for item in items:
            if isinstance(item, Record):
                records += 1
                check_record(item)
    assert records


def test_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "x.parquet", {"image": struct(A), "label": [0]})
    assert registry.guess(path)[0].name == registry.guess(tmp_path / "a")[0].name == "parquet"
    (tmp_path / "b.parquet").write_bytes(b"no")
    assert registry.FORMATS["parquet"].recognise(tmp_path / "b.parquet") is None


# --- memory ----------------------------------------------------------------------------------------------------------

_PEAK = """
import sys, threading
from pathlib import Path
from headrace.sources import parquet
peak, over = 0, threading.Event()
def look():
    # Not ru_maxrss, which is no less than what the process took that started this one; nor what is mapped of the file.
    global peak
    while not over.wait(0.001):
        said = Path("/proc/self/status").read_text()
        peak = max(peak, int(said.partition("RssAnon:")[2].split()[0]) // 1024)
looking = threading.Thread(target=look)
looking.start()
n = sum(1 for _ in parquet(sys.argv[1]))
over.set()
looking.join()
print(n, peak)
"""


def peak(path: Path) -> tuple[int, int]:
    """(rows, MB at most) of reading a file in a process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read the peak of memory from")
    # Polars' allocator gives back what is free after some time; here at once, so that no time is measured.
    env = os.environ | {"_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True, env=env)
    rows, megabytes = map(int, done.stdout.split())
    return rows, megabytes


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """160 MB in groups of 2 MB take no 60 MB more than 2 MB."""
    noise = np.random.default_rng(0).bytes(100_000)
    small = write(tmp_path / "small.parquet", {"image": [noise] * 20}, rows=20)
    big = tmp_path / "big.parquet"
    images = [noise[i % 1000 :] + noise[: i % 1000] for i in range(1600)]
    pl.DataFrame({"image": images}).write_parquet(big, row_group_size=20, compression="uncompressed")
    del images
    assert big.stat().st_size > 100_000_000
    (few, least), (rows, most) = peak(small), peak(big)
    assert (few, rows) == (20, 1600) and most < least + 60
