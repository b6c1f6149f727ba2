"""The spool: what was written is what is read, in any order, in any process; and little of it is in memory."""

from __future__ import annotations

import dataclasses
import os
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headrace import sources
from headrace.errors import UsageError
from headrace.packing import spool
from headrace.packing.spool import ROW, Spool, Table
from headrace.record import Part, Record, Reject

texts = st.text(max_size=10) | st.binary(max_size=6).map(
    os.fsdecode
)  # bytes of a path that are no UTF-8 are surrogates
int64 = st.integers(-(2**63), 2**63 - 1)
places = st.integers(0, 2**63 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["<f4", ">f4", "<f8", "<i8", "|u1", "|b1"])
pixels = sources.arrays(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)).stack
records = st.builds(
    Record,
    id=texts,
    encoded=st.none() | st.binary(max_size=40),
    path=st.none() | texts,
    part=st.none() | st.builds(Part, texts, places, places),
    pixels=st.sampled_from([None, pixels.frame(0), pixels.frame(1)]),
    label=st.none() | int64,
    label_name=st.none() | texts,
    boxes=st.none() | st.tuples(kinds, st.integers(0, 3)).flatmap(lambda of: arrays(of[0], (of[1], 4))),
    box_labels=st.none() | st.lists(texts, max_size=3).map(tuple),
    keypoints=st.none() | arrays(np.float32, st.tuples(st.integers(0, 2), st.integers(0, 3), st.just(3))),
    size=st.none() | st.tuples(st.integers(), st.integers()),
    window=st.none() | st.tuples(*[st.floats(allow_nan=False)] * 4),
    attributes=st.dictionaries(texts, values, max_size=3),
    split=st.none() | texts,
    origin=texts,
)
rejects = st.builds(Reject, id=texts, origin=texts, stage=texts, reason=texts)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Record):
        names = [field.name for field in dataclasses.fields(a) if field.name != "pixels"]
        drawn = [None if one.pixels is None else (one.pixels.number, one.read()) for one in (a, b)]
        return drawn[0] == drawn[1] and all(same(getattr(a, name), getattr(b, name)) for name in names)
    return bool(a == b)


def spooled(folder: Path, *batches: Sequence[Record | Reject]) -> Table:
    with Spool(folder) as made:
        for batch in batches:
            made.write(batch)
        return made.table()


@given(st.lists(st.lists(records | rejects, min_size=1, max_size=4), max_size=3), st.randoms())
def test_what_was_written_is_read(batches: list[list[Record | Reject]], chance: Any) -> None:
    items = [item for batch in batches for item in batch]
    with tempfile.TemporaryDirectory() as folder:
        table = spooled(Path(folder) / "s", *batches)
        assert len(table) == len(items)
        order = [*range(len(items))]
        chance.shuffle(order)
        for row in order:
            assert same(table[row], items[row])
            assert table.named(row) == (items[row].id, items[row].origin)
        there = pickle.loads(pickle.dumps(table))
        assert all(same(there[row], table[row]) for row in order)


def test_rows_are_of_one_width() -> None:
    """The row that is unpacked is the one that is written."""
    assert spool._ROW.size == ROW.itemsize == 112


def test_columns_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_BLOCK", 4)
    names = ["b", None, "a", "b"] * 3
    table = spooled(tmp_path / "s", [Record(id=str(i), path="x", label_name=name) for i, name in enumerate(names)])
    assert table.names == ("b", "a")
    assert table.column("name").tolist() == [0, -1, 1, 0] * 3
    assert [len(rows) for _, rows in table.blocks()] == [4, 4, 4]
    assert len(set(table.column("hash").tolist())) == 12


def test_a_split_in_front_of_ids(tmp_path: Path) -> None:
    items = [Record(id="x", path="x", split="a", origin="x"), Record(id="y", path="y", split="b", origin="list:1")]
    table = spooled(tmp_path / "s", items)
    there = pickle.loads(pickle.dumps(table))
    table.prefix(np.array([0, 1]))
    for one in (table, there):
        found = [one[0], one[1]]
        assert [(r.id, r.origin) for r in found] == [("a/x", "a/x"), ("b/y", "list:1")]
        assert [one.named(0), one.named(1)] == [("a/x", "a/x"), ("b/y", "list:1")]


def test_folders_of_the_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.uint8))
    drawn = [*sources.arrays(tmp_path / "x.npy")]
    items = [Record(id="a", path="/p/a.jpg"), Record(id="b", part=Part("/q/b.tar", 0, 1)), *drawn]
    with Spool(tmp_path / "s") as made:
        made.write(items)
        made.write([Record(id="c", path="/p/c.jpg"), Record(id="d", encoded=b"")])
        assert made.folders == {"/p", "/q", str(tmp_path)}


def test_pixels_lie_where_they_lay(tmp_path: Path) -> None:
    """An array of 4 MB, of which nothing is written: the table knows the array, its rows a number."""
    x = np.zeros((1000, 64, 64), np.uint8)
    x[7] = 9
    table = spooled(tmp_path / "s", [*sources.arrays(x)])
    assert sum(path.stat().st_size for path in table.folder.iterdir()) < 200_000
    assert len(table.stacks) == 1
    found = table[7]
    assert isinstance(found, Record) and found.pixels is not None
    assert found.pixels.stack.numbers.array is x  # type: ignore[attr-defined]


def test_numbers_of_numpy_are_plain(tmp_path: Path) -> None:
    one = Record(id="a", path="x", size=(np.int64(3), 4), attributes={"n": np.float32(0.5), "v": np.arange(2)})  # type: ignore[arg-type]
    table = spooled(tmp_path / "s", [one])
    found = table[0]
    assert isinstance(found, Record) and found.size == (3, 4) and found.attributes == {"n": 0.5, "v": [0, 1]}
    with pytest.raises(UsageError, match=r"record 'b': its attributes are no JSON: .* is set"):
        spooled(tmp_path / "t", [Record(id="b", path="x", attributes={"x": {1}})])


def test_a_spool_that_was_cut_is_no_record(tmp_path: Path) -> None:
    table = spooled(tmp_path / "s", [Record(id="a", encoded=bytes(100))])
    (tmp_path / "s" / "heap").write_bytes(b"a")
    with pytest.raises(OSError, match=r"heap: ends at byte 1, wanted 102"):
        table[0]


@pytest.mark.parametrize(
    ("offset", "length", "found"),
    [(0, 4, b"abcd"), (3, 5, b"defgh"), (5, 0, b""), (8, 0, b""), (100, 0, b"")],
)
def test_a_part_of_a_file(offset: int, length: int, found: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdefgh")
    assert Record(id="a", part=Part(str(tmp_path / "f"), offset, length)).read() == found


def test_a_part_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdefgh")
    with pytest.raises(OSError, match="4 bytes from byte 6 on, and the file ends at byte 8"):
        Part(str(tmp_path / "f"), 6, 4).read()
    for offset, length in ((-1, 3), (0, -3)):
        with pytest.raises(UsageError, match=f"f: {length} bytes from byte {offset} on, wanted both from 0"):
            Part("f", offset, length)
    with pytest.raises(ValueError, match="record 'a' has no image"):
        Record(id="a").read()
