"""The catalog: rows that come back as they went in, conditions in SQL, and files that are not what they should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.errors import DamageError, StorageError, UsageError
from headrace.format import catalog
from headrace.format.catalog import Row


def row(k: int, **changes: object) -> Row:
    values = {
        "id": f"ü{k}", "split": "train", "shard": "s", "format": "png", "height": 10 + k, "width": 20, "channels": 3,
        "origin": f"a:{k}", "sha256": "00", "offset": 100 * k, "length": 84, "image_offset": 100 * k + 40,
        "image_length": 30, "label": k % 2, "label_name": ("cat", "dog")[k % 2],
    }  # fmt: skip
    return Row(**values | changes)  # type: ignore[arg-type]


BARE = row(2, label=None, label_name=None)
FULL = row(
    3,
    boxes=np.array([[1, 2, 3.5, 4]], np.float32),
    box_labels=[0],
    box_label_names=["x"],
    keypoints=np.array([[[1, 2, 2], [0, 0, 0]]], np.float32),
    attributes={"b": [1, None], "a": "é"},
)
NEGATIVE = row(4, boxes=np.zeros((0, 4), np.float32), box_labels=[], box_label_names=[])
FRAME = catalog.table([row(0), row(1), BARE, FULL, NEGATIVE])


def written(folder: Path, data: bytes) -> str:
    (folder / catalog.FILE).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_rows_come_back(tmp_path: Path) -> None:
    sha256 = written(tmp_path, catalog.to_bytes(FRAME))
    frame = catalog.read(tmp_path, sha256=sha256)
    assert frame.equals(FRAME) and dict(frame.schema) == catalog.SCHEMA
    full = frame.row(3, named=True)
    assert full["boxes"] == [[1, 2, 3.5, 4]] and full["keypoints"] == [[[1, 2, 2], [0, 0, 0]]]
    assert catalog.attributes(full["attributes"]) == {"a": "é", "b": [1, None]}
    assert full["attributes"].index('"a"') < full["attributes"].index('"b"')


def test_nothing_said_is_null_and_nothing_there_is_empty() -> None:
    assert FRAME["boxes"].to_list()[2] is None
    assert FRAME["boxes"].to_list()[4] == []
    assert FRAME["label"].to_list() == [0, 1, None, 1, 0]
    assert FRAME["attributes"].to_list()[2] is None
    assert catalog.attributes(None) == {}


def test_the_same_rows_give_the_same_bytes() -> None:
    split = pl.concat([FRAME[:2], FRAME[2:]], rechunk=False)
    assert split.n_chunks() == 2
    assert catalog.to_bytes(split) == catalog.to_bytes(FRAME)


def test_no_rows() -> None:
    assert dict(catalog.table([]).schema) == catalog.SCHEMA


# (condition, rows): a comparison with null holds for no row, as in SQL
WHERE = [
    ("label = 0", [0, 4]),
    ("label <> 0", [1, 3]),
    ("label IS NULL", [2]),
    ("NOT (label = 0)", [1, 3]),
    ("label_name = 'dog' AND height > 11", [3]),
    ("label_name IN ('cat', 'dog')", [0, 1, 3, 4]),
    ("id LIKE '%0'", [0]),
    ("boxes IS NOT NULL", [3, 4]),
    ("height > AVG(height)", [3, 4]),
    ("1 = 1", [0, 1, 2, 3, 4]),
    ("1 = 0", []),
    ("height BETWEEN 11 AND 12", [1, 2]),
]


@pytest.mark.parametrize(("condition", "rows"), WHERE)
def test_where(condition: str, rows: list[int]) -> None:
    found = catalog.where(FRAME, condition)
    assert found.dtype == np.int64 and found.tolist() == rows


@pytest.mark.parametrize(
    "condition",
    ["", "label =", "nosuch = 1", "label", "label = 'cat' +", "SELECT 1", "width; DROP TABLE x"],
)
def test_no_condition(condition: str) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.where(FRAME, condition)
    message = str(caught.value)
    assert message.startswith(f"where({condition!r}): ") and "label_name" in message and "\n" not in message


def test_where_of_no_rows() -> None:
    assert catalog.where(FRAME[:0], "label = 0").tolist() == []


def test_other_bytes_than_promised(tmp_path: Path) -> None:
    written(tmp_path, catalog.to_bytes(FRAME))
    with pytest.raises(DamageError, match=r"catalog\.parquet: sha256 is .*, the manifest says 0000"):
        catalog.read(tmp_path, sha256="0" * 64)


def test_not_parquet(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match=r"catalog\.parquet: not a readable catalog .*; pack the dataset again"):
        catalog.read(tmp_path, sha256=written(tmp_path, b"not a table"))


def test_columns_missing(tmp_path: Path) -> None:
    sha256 = written(tmp_path, catalog.to_bytes(FRAME.drop("label", "boxes")))
    with pytest.raises(DamageError, match="columns label, boxes are missing"):
        catalog.read(tmp_path, sha256=sha256)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"catalog\.parquet: no such file"):
        catalog.read(tmp_path, sha256="")
