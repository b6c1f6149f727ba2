"""The catalog: rows that come back as they went in, conditions in SQL, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import polars as pl
import pytest

from headrace.errors import DamageError, StorageError, UsageError
from headrace.format import catalog
from headrace.format.catalog import Row
from headrace.place.local import LocalPlace


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


def written(folder: Path, data: bytes, *, records: int = 5) -> catalog.File:
    (folder / catalog.FILE).write_bytes(data)
    return catalog.File(LocalPlace(folder), sha256="", crc32c=google_crc32c.value(data), records=records)


def test_rows_come_back(tmp_path: Path) -> None:
    file = written(tmp_path, catalog.to_bytes(FRAME))
    frame = file.read([*catalog.WHAT])
    assert frame.equals(FRAME) and dict(frame.schema) == catalog.WHAT
    full = frame.row(3, named=True)
    assert full["boxes"] == [[1, 2, 3.5, 4]] and full["keypoints"] == [[[1, 2, 2], [0, 0, 0]]]
    assert catalog.attributes(full["attributes"]) == {"a": "é", "b": [1, None]}
    assert full["attributes"].index('"a"') < full["attributes"].index('"b"')
    assert file.read(["label", "id"], 1, 2).rows() == [(1, "ü1"), (None, "ü2")]


@pytest.mark.parametrize("lots", [[5], [1, 4], [2, 0, 2, 1]])
def test_parts_are_joined_to_the_same_bytes(tmp_path: Path, lots: list[int]) -> None:
    begin, parts = 0, []
    for number, n in enumerate(lots):
        parts.append(tmp_path / f"{number}*.part")
        parts[-1].write_bytes(catalog.to_bytes(FRAME[begin : begin + n]))
        begin += n
    catalog.join(parts, tmp_path / "whole")
    catalog.join([tmp_path / "whole"], tmp_path / "again")
    assert pl.read_parquet(tmp_path / "whole").equals(FRAME)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "again").read_bytes()


def test_nothing_said_is_null_and_nothing_there_is_empty() -> None:
    assert FRAME["boxes"].to_list()[2] is None
    assert FRAME["boxes"].to_list()[4] == []
    assert FRAME["label"].to_list() == [0, 1, None, 1, 0]
    assert FRAME["attributes"].to_list()[2] is None
    assert catalog.attributes(None) == {}


@pytest.mark.parametrize("value", ["{", "[1", "null", "1", '"a"', '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_attributes_that_are_none(value: str) -> None:
    with pytest.raises(DamageError, match=r"catalog\.parquet: the attributes .* are no JSON object"):
        catalog.attributes(value)


def test_the_same_rows_give_the_same_bytes() -> None:
    split = pl.concat([FRAME[:2], FRAME[2:]], rechunk=False)
    assert split.n_chunks() == 2
    assert catalog.to_bytes(split) == catalog.to_bytes(FRAME)


def test_no_rows() -> None:
    assert dict(catalog.table([]).schema) == catalog.WHAT


# (condition, rows): a comparison with null holds for no row, as in SQL
WHERE = [
    ("label = 0", [0, 4]),
    ("label <> 0", [1, 3]),
    ("label IS NULL", [2]),
    ("NOT (label = 0)", [1, 3]),
    ("label_name = 'dog' AND origin <> 'a:1'", [3]),
    ("label_name IN ('cat', 'dog')", [0, 1, 3, 4]),
    ("id LIKE '%0'", [0]),
    ("boxes IS NOT NULL", [3, 4]),
    ("label > AVG(label)", [1, 3]),
    ("1 = 1", [0, 1, 2, 3, 4]),
    ("1 = 0", []),
    ("origin BETWEEN 'a:1' AND 'a:2'", [1, 2]),
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


def test_the_columns_of_a_condition() -> None:
    assert sorted(set(catalog.columns_of("label = 1 AND height > AVG(height)"))) == ["height", "label"]
    assert catalog.columns_of("1 = 1") == []


def test_other_bytes_than_promised(tmp_path: Path) -> None:
    written(tmp_path, catalog.to_bytes(FRAME))
    file = catalog.File(LocalPlace(tmp_path), sha256="", crc32c=0, records=5)
    with pytest.raises(DamageError, match=r"catalog\.parquet: CRC-32C is 0x.*, the manifest says 0x00000000"):
        file.read(["id"])


def test_another_file_under_its_name(tmp_path: Path) -> None:
    file = written(tmp_path, catalog.to_bytes(FRAME))
    file.read(["id"])
    (tmp_path / "new").write_bytes(catalog.to_bytes(FRAME.reverse()))
    (tmp_path / "new").replace(tmp_path / catalog.FILE)
    with pytest.raises(DamageError, match="where the dataset was packed anew meanwhile open it again"):
        file.read(["label"])


def test_not_parquet(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match=r"catalog\.parquet: not a readable catalog .*; pack the dataset again"):
        written(tmp_path, b"not a table").read(["id"])


def test_columns_missing(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="not the columns of a catalog: label None, boxes None; pack"):
        written(tmp_path, catalog.to_bytes(FRAME.drop("label", "boxes"))).read(["id"])


def test_other_rows_than_promised(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="5 rows, the manifest says 6 records; pack"):
        written(tmp_path, catalog.to_bytes(FRAME), records=6).read(["id"])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"catalog\.parquet: no such file"):
        catalog.File(LocalPlace(tmp_path), sha256="", crc32c=0, records=5).read(["id"])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    (tmp_path / "part").write_bytes(catalog.to_bytes(catalog.table([])))
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
    with pytest.raises(StorageError, match=r"^.*/out: no space left on device \(os error 28\); nothing was published$"):
        catalog.join([tmp_path / "part"], tmp_path / "out")
