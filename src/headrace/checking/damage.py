"""A fault with its address, and what both kinds of shards are checked for: a record's framing and its image."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import polars as pl

from headrace.format import catalog, index, manifest, tfrecord
from headrace.format.index import Index
from headrace.format.tables import Tables
from headrace.imaging import codec

LOT_RECORDS, LOT_BYTES = 32, 1 << 22  # of a task, at most; but one record at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Where the bytes are not what they should be. `shard` is a file's name; `record` counts from 0 in the shard and is
    None where the file as a whole is meant; `offset` is a byte of the file."""

    shard: str
    record: int | None
    offset: int | None
    reason: str

    def __str__(self) -> str:
        place = [self.shard]
        place += [] if self.record is None else [f"record {self.record}"]
        place += [] if self.offset is None else [f"byte {self.offset}"]
        return f"{', '.join(place)}: {self.reason}"


# What a task gives: the faults it found, and bytes that stand for the records it saw (see ShardEntry.sha256).
Checked: TypeAlias = tuple[list[Damage], bytes]


@dataclass(frozen=True, slots=True)
class Task:
    """Records of a shard, `rows` of which are in the catalog, to be checked on any thread. The `last` one of a shard
    asks whether the shard is the promised one as a whole, which says nothing more where a fault was found already."""

    entry: manifest.ShardEntry
    rows: int
    check: Callable[[], Checked]
    last: bool = False


def found(entry: manifest.ShardEntry, reason: str, record: int | None = None, offset: int | None = None) -> Task:
    """A task that only tells of a fault."""
    damage = Damage(shard=entry.name, record=record, offset=offset, reason=reason)
    return Task(entry, 0, lambda: ([damage], b""))


def check_framing(
    data: tfrecord.Sliced, offset: int, length: int, *, wanted: str, crc: int | None
) -> Generator[tuple[int, str], None, tfrecord.Buffer | None]:
    """Yields (byte, reason) of each fault of a record's framing; its payload, None where that is not sound.

    `crc`: what the index says, None where it says nothing. Raises StorageError.
    """
    try:
        stored = tfrecord.length_at(data, offset)
        if stored != length:
            yield offset, f"the record's length is {stored}, {wanted}"
            return None
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
        if offset + length + tfrecord.OVERHEAD_BYTES > len(data):
            return None
    try:
        payload = tfrecord.payload_at(data, offset, length)
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
        return None
    if crc is not None and tfrecord.masked_crc(payload) != crc:
        reason = f"payload CRC is 0x{tfrecord.masked_crc(payload):08x}, the index says 0x{crc:08x}: another record"
        yield offset + tfrecord.HEADER_BYTES, reason
    return payload


def check_image(
    image: bytes, where: Mapping[str, Any], offset: int
) -> Generator[tuple[int, str], None, codec.Pixels | None]:
    """Yields (`offset`, reason) of a fault of an image, of which the index says `where`; its pixels, None where there
    is one."""
    try:
        header = codec.read_header(image, max_pixels=where["height"] * where["width"])
        pixels = codec.decode(image, header=header)
    except codec.BadImage as error:
        yield offset, error.reason
        return None
    wanted = (where["height"], where["width"], where["channels"])
    if pixels.shape != wanted or header.kind != where["format"]:
        shape = "x".join(map(str, pixels.shape))
        yield offset, f"a {header.kind} of {shape}, the index says {where['format']} of {wanted}"
        return None
    return pixels


class Rows:
    """What the catalog says, row by row in their order, with one group of rows in memory at a time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._number, self._group = -1, pl.DataFrame()

    def __getitem__(self, part: slice) -> pl.DataFrame:
        """The rows `part`, of one group. Raises StorageError, DamageError."""
        number, first = divmod(part.start, catalog.GROUP)
        if number != self._number:
            self._number, self._group = number, self._tables.group(number)
        return self._group[first : first + part.stop - part.start]


def where_of(table: Index, first: int, n: int) -> list[dict[str, Any]]:
    """What the index says of the rows `first` to `first + n`."""
    columns = {name: table[name][first : first + n].tolist() for name in index.COLUMNS}
    columns["format"] = [index.FORMATS[number] for number in columns["format"]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
