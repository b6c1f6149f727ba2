"""The index: rows that come back, parts that are joined, and files that are not what they should be."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amount import bits
from headrace import order
from headrace.errors import DamageError, StorageError
from headrace.format import index
from headrace.format.catalog import Row
from headrace.format.index import Index, Texts
from headrace.format.tfrecord import HEADER_BYTES, OVERHEAD_BYTES
from headrace.place.local import LocalPlace

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@st.composite
def rows(draw: st.DrawFn, *, most: int = 6) -> list[Row]:
    """Rows of one shard as packing makes them, some of them of images in files of their own."""
    made, end = [], 0
    for record in range(draw(st.integers(0, most))):
        length = draw(st.integers(40, 300))
        named = draw(st.none() | texts.filter(bool))
        image = draw(st.integers(0, length))
        made.append(
            Row(
                id=draw(texts.filter(bool)), split="train", shard="s", origin="", sha256=None, record=record,
                format=draw(st.sampled_from(index.FORMATS)), height=draw(st.integers(1, 1 << 30)),
                width=draw(st.integers(1, 1 << 30)), channels=draw(st.sampled_from([1, 3])), offset=end, length=length,
                image_offset=0 if named else end + HEADER_BYTES + image, image_length=length - image,
                crc=draw(st.integers(0, (1 << 32) - 1)), file=named,
            )
        )  # fmt: skip
        end += OVERHEAD_BYTES + length
    return made


def over(data: bytes) -> Index:
    return Index.over(np.frombuffer(data, np.uint8), "here")


def values(table: Index) -> list[tuple[Any, ...]]:
    """All that an index says, row by row."""
    files = [None] * len(table) if table.files is None else [table.files[i] or None for i in range(len(table))]
    columns = [table[name].tolist() for name in index.COLUMNS]
    return list(zip([table.ids[i] for i in range(len(table))], files, *columns, strict=True))


@given(rows())
def test_rows_come_back(made: list[Row]) -> None:
    table = over(index.to_bytes(made))
    assert len(table) == len(made) and (table.files is None) == all(row.file is None for row in made)
    for row, (id_, file, *said) in zip(made, values(table), strict=True):
        of = dict(zip(index.COLUMNS, said, strict=True))
        assert (id_, file, index.FORMATS[of["format"]]) == (row.id, row.file, row.format)
        assert of["key"] == int(order.keys_of([row.id])[0])
        assert of["image_offset"] == (0 if row.file else row.image_offset - row.offset)
        for name in ("offset", "length", "image_length", "crc", "record", "height", "width", "channels"):
            assert of[name] == getattr(row, name)
    end = made[-1].offset + made[-1].length + OVERHEAD_BYTES if made else 0
    table.check([("s", len(made), end)], contiguous=True, named=True)


@given(st.lists(rows(most=3), min_size=1, max_size=4))
def test_the_whole_is_its_parts(tmp_path_factory: pytest.TempPathFactory, parts: list[list[Row]]) -> None:
    folder = tmp_path_factory.mktemp("parts")
    for number, part in enumerate(parts):
        (folder / f"{number}").write_bytes(index.to_bytes(part))
    index.join([folder / f"{number}" for number in range(len(parts))], folder / "whole")
    whole = index.to_bytes([row for part in parts for row in part])
    assert (folder / "whole").read_bytes() == whole
    joined = index.joined([over(index.to_bytes(part)) for part in parts])
    assert values(joined) == values(over(whole))


def test_parts_by_few_descriptors(tmp_path: Path) -> None:
    """There may be more shards than files that a process may open."""
    code = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
from headrace.format import index
parts = sorted(Path(sys.argv[1]).iterdir())
index.join(parts, Path(sys.argv[2]))
print(len(parts))
"""
    (tmp_path / "in").mkdir()
    for number in range(100):
        (tmp_path / "in" / f"{number:03d}").write_bytes(index.to_bytes(ROWS))
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "100\n", done.stderr
    assert (tmp_path / "out").read_bytes() == index.to_bytes(ROWS * 100)


@pytest.mark.parametrize("data", [b"", b"HRINDEX1", index.to_bytes([])[:-1], b"x" * 500])
def test_a_part_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(data)
    with pytest.raises(DamageError, match=r"part: \d+ bytes are no index"):
        index.join([tmp_path / "part"], tmp_path / "out")


ROWS = [
    Row(
        id=f"é{k}", split="train", shard="s", origin="", sha256=None, format="png", height=5, width=6, channels=3,
        record=k, offset=k * 116, length=100, image_offset=k * 116 + 30, image_length=50, crc=k,
    )
    for k in range(3)
]  # fmt: skip
SHARDS = [("s", 3, 348)]


@pytest.mark.exhaustive
def test_every_bit_is_found_when_it_is_opened(tmp_path: Path) -> None:
    sound = index.to_bytes([*ROWS])
    crc32c = google_crc32c.value(sound)
    path = tmp_path / index.FILE
    for (bit,) in bits(8 * len(sound)):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(DamageError, match=r"headrace\.index: CRC-32C is 0x"):
            Index.open(LocalPlace(tmp_path), sha256="", crc32c=crc32c)
    path.write_bytes(sound)
    assert values(Index.open(LocalPlace(tmp_path), sha256="", crc32c=crc32c)) == values(over(sound))


@given(st.data())
def test_any_bytes_are_an_index_or_damage(data: st.DataObject) -> None:
    """With the right CRC, as a forger has it: bytes changed, cut and added."""
    forged = bytearray(index.to_bytes(ROWS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(forged) - 1))
        forged[at : at + 1] = data.draw(st.binary(max_size=9))
    with contextlib.suppress(DamageError):
        table = over(bytes(forged))
        table.check(SHARDS, contiguous=True, named=True)
        values(table)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HRINDEX1",
        struct.pack("<8sQQQ", b"HRINDEX1", 0, 0, 0),
        struct.pack("<8sQQQ", b"HRINDEX1", 1 << 63, 0, 0),
        struct.pack("<8sQQQ", b"HRINDEX1", (1 << 64) - 1, (1 << 64) - 1, (1 << 64) - 1),
        struct.pack("<8sQQQ", b"HRINDEX2", 3, 9, 0) + index.to_bytes(ROWS)[32:],
        index.to_bytes(ROWS)[:-1],
        index.to_bytes(ROWS) + b"\0",
    ],
)
def test_no_index(data: bytes) -> None:
    with pytest.raises(DamageError, match=r"here: \d+ bytes are no index"):
        over(data)


# (column, row, value, what is wrong)
FORGED = [
    ("offset", 0, 1, "the offset of row 0"),
    ("offset", 1, 115, "the offset of row 1"),
    ("offset", 1, 117, "the offset of row 1"),
    ("offset", 2, (1 << 64) - 1, "the offset of row 2"),
    ("length", 1, 99, "the offset of row 2"),
    ("length", 2, 101, "the records of s end at byte 349, the manifest says 348"),
    ("length", 2, (1 << 32) - 1, "the records of s end at byte"),
    ("image_offset", 1, 11, "the place of the image of row 1"),
    ("image_offset", 1, 63, "the place of the image of row 1"),
    ("image_length", 1, 83, "the place of the image of row 1"),
    ("image_length", 1, (1 << 32) - 1, "the place of the image of row 1"),
    ("image_offset", 1, 0, "the place of the image of row 1"),
    ("record", 0, 1, "the number of the record of row 0"),
    ("record", 2, 0, "the number of the record of row 2"),
    ("height", 0, 0, "the height of row 0"),
    ("width", 0, 1 << 31, "the width of row 0"),
    ("channels", 1, 2, "the number of channels of row 1"),
    ("format", 1, len(index.FORMATS), "the format of row 1"),
]


@pytest.mark.parametrize(("column", "row", "value", "reason"), FORGED)
def test_a_number_that_cant_be(column: str, row: int, value: int, reason: str) -> None:
    table = Index.of(ROWS)
    table[column][row] = value
    with pytest.raises(DamageError, match=f"headrace.index: {reason}"):
        table.check(SHARDS, contiguous=True, named=False)


def test_every_number_of_the_fixed_ones_is_judged_or_free() -> None:
    """What no check asks about is told by verify, against the records themselves."""
    assert {column for column, *_ in FORGED} == set(index.COLUMNS) - {"key", "crc"}


@pytest.mark.parametrize(
    ("ends", "good"),
    [
        ([3, 6, 9], True),
        ([3, 2, 9], False),
        ([3, 3, 9], False),
        ([3, 6, 8], False),
        ([3, 6, 10], False),
        ([(1 << 64) - 1, 6, 9], False),
    ],
)
def test_texts_that_cant_be(ends: list[int], good: bool) -> None:
    table = Index.of(ROWS)
    forged = Index(table.columns, Texts(np.array(ends, np.uint64), table.ids.data))
    if good:
        forged.check(SHARDS, contiguous=True, named=False)
        return
    with pytest.raises(DamageError, match=r"headrace\.index: "):
        forged.check(SHARDS, contiguous=True, named=False)


def test_a_text_that_is_no_utf8() -> None:
    with pytest.raises(DamageError, match="the text of row 0 is no UTF-8"):
        Texts(np.array([1], np.uint64), np.frombuffer(b"\xff", np.uint8))[0]


def test_gaps_are_for_shards_of_others() -> None:
    """Records that were rejected, and damage, lie between those of the index."""
    table = Index.of([ROWS[0], ROWS[2]])
    with pytest.raises(DamageError, match="the offset of row 1"):
        table.check([("s", 2, 348)], contiguous=True, named=False)
    table.check([("s", 2, 348)], contiguous=False, named=True)
    table.check([("s", 2, 1000)], contiguous=False, named=True)
    with pytest.raises(DamageError, match="end at byte 348, the manifest says 347"):
        table.check([("s", 2, 347)], contiguous=False, named=True)
    with pytest.raises(DamageError, match="2 rows, the manifest says 3 records"):
        table.check([("s", 3, 348)], contiguous=False, named=True)


def test_a_file_that_is_cut_while_it_is_mapped(tmp_path: Path) -> None:
    data = index.to_bytes(ROWS)
    (tmp_path / index.FILE).write_bytes(data)
    table = Index.open(LocalPlace(tmp_path), sha256="", crc32c=google_crc32c.value(data))
    table.check_whole()
    with (tmp_path / index.FILE).open("r+b") as file:
        file.truncate(10)
    with pytest.raises(DamageError, match=r"headrace\.index: was cut since it was opened"):
        table.check_whole()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"headrace\.index: no such file"):
        Index.open(LocalPlace(tmp_path), sha256="", crc32c=0)
