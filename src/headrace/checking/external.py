"""Shards of others against what they were when they were adopted: every record, and the bytes between records."""

from __future__ import annotations

import functools
import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.checking.damage import (
    LOT_BYTES,
    LOT_RECORDS,
    Checked,
    Damage,
    Rows,
    Task,
    check_framing,
    check_image,
    found,
    where_of,
)
from headrace.errors import StorageError
from headrace.format import catalog, manifest, tfrecord
from headrace.format.tables import Tables
from headrace.place.address import Place, reason
from headrace.place.local import Slices

_AT_ONCE = 1 << 12  # rows of the index


@dataclass(frozen=True, slots=True)
class _Record:
    """A record's `number` in its file, where it is, what the index says of it (None: it was rejected), and the file of
    its image where it only names one, with the sha256 (hex) of that."""

    number: int
    span: tfrecord.Span
    where: dict[str, Any] | None = None
    file: str | None = None
    sha256: str | None = None


def tasks(
    place: Place, entry: manifest.ShardEntry, number: int, tables: Tables | None, rows: Rows | None
) -> Iterator[Task]:
    """All there is to check of shard `number`: each of its records, also those that were rejected, and its marks.

    Without tables, which can't be read, records are found by their lengths.
    """
    change = entry.change(place)
    if change is not None:
        yield found(entry, change)
    try:
        size = place.size(entry.name)
    except StorageError as error:
        if change is None:
            yield found(entry, str(error))
        return
    images = None if tables is None else (tables.manifest.adopted or {}).get("images")
    check = functools.partial(_check, place, entry, size, None if images is None else place.within(images))
    lot: list[_Record | tfrecord.Gap] = []
    begin = 0
    try:
        for piece in _pieces(Slices(place, entry.name, size), entry, number, tables, rows):
            if isinstance(piece, Damage):
                yield found(entry, piece.reason, piece.record, piece.offset)
                continue
            _, end = _bounds(piece)
            if lot and (len(lot) == LOT_RECORDS or end - begin > LOT_BYTES):
                yield Task(entry, _rows(lot), functools.partial(check, lot))
                lot, begin = [], end
            lot.append(piece)
    except StorageError as error:
        yield found(entry, str(error))
    if lot:
        yield Task(entry, _rows(lot), functools.partial(check, lot))
    yield Task(entry, 0, lambda: ([], b""), last=True)


def _bounds(piece: _Record | tfrecord.Gap) -> tuple[int, int]:
    """(first byte, end)."""
    return (piece.begin, piece.end) if isinstance(piece, tfrecord.Gap) else (piece.span.offset, piece.span.end)


def _rows(lot: list[_Record | tfrecord.Gap]) -> int:
    return sum(isinstance(piece, _Record) and piece.where is not None for piece in lot)


def _pieces(
    data: Slices, entry: manifest.ShardEntry, number: int, tables: Tables | None, rows: Rows | None
) -> Iterator[_Record | tfrecord.Gap | Damage]:
    """The file from its beginning to its end. What the index knows stands where it says; between lie rejected records,
    found by their lengths, and the bytes that were no record when the file was adopted. Raises StorageError."""
    assert entry.foreign is not None
    gaps = ((begin, end, None) for begin, end in sorted(entry.foreign.skipped))
    known = () if tables is None or rows is None else _known(tables, rows, number, entry.records)
    at = record = 0
    for begin, end, row in heapq.merge(gaps, known, [(entry.bytes, entry.bytes, None)], key=lambda piece: piece[:2]):
        while at < begin:
            try:
                span = tfrecord.Span(at, tfrecord.length_at(data, at))
                if span.end > begin:
                    reason = f"this record ends at byte {span.end}, the next begins at byte {begin}"
                    raise tfrecord.BadRecord(at, reason)
            except tfrecord.BadRecord as error:
                yield Damage(shard=entry.name, record=record, offset=error.offset, reason=error.reason)
                break
            yield _Record(record, span)
            at, record = span.end, record + 1
        if row is None and begin < at and begin < end:
            reason = f"bytes {begin} to {end} were no record, by the manifest, and what stands before reaches into them"
            yield Damage(shard=entry.name, record=record, offset=begin, reason=reason)
            continue
        if row is None:
            for first in range(begin, min(end, len(data)), LOT_BYTES):
                yield tfrecord.Gap(first, min(first + LOT_BYTES, end), first, "")
        else:
            record = row.number
            yield row
        at, record = end, record + 1


def _known(tables: Tables, rows: Rows, number: int, records: int) -> Iterator[tuple[int, int, _Record | None]]:
    """(first byte, end, record) of each record of a shard that the index knows."""
    begin = int(tables.first_row[number])
    files = tables.index.files
    first = begin
    while first < begin + records:
        n = min(_AT_ONCE, begin + records - first, catalog.GROUP - first % catalog.GROUP)
        digests = [None] * n if files is None else rows[first : first + n]["sha256"].to_list()
        for row, (where, sha256) in enumerate(zip(where_of(tables.index, first, n), digests, strict=True), start=first):
            span = tfrecord.Span(where["offset"], where["length"])
            file = None if where["image_offset"] or files is None else files[row]
            yield span.offset, span.end, _Record(where["record"], span, where, file, sha256)
        first += n


def _check(
    place: Place, entry: manifest.ShardEntry, size: int, images: Place | None, lot: list[_Record | tfrecord.Gap]
) -> Checked:
    """The faults of these pieces, which lie close to each other, and their marks."""
    damaged: list[Damage] = []
    marks: list[bytes] = []
    begin, end = (_bounds(piece)[at] for piece, at in ((lot[0], 0), (lot[-1], 1)))
    data = Slices(place, entry.name, size, block=end - begin)
    for piece in lot:
        if isinstance(piece, tfrecord.Gap):
            marks.append(tfrecord.mark(data, piece))
            continue
        try:
            marks.append(tfrecord.mark(data, piece.span))
            faults = list(_check_record(data, piece, images))
        except StorageError as error:
            faults = [(piece.span.offset, str(error))]
        damaged += [Damage(shard=entry.name, record=piece.number, offset=at, reason=why) for at, why in faults]
    return damaged, b"".join(marks)


def _check_record(data: Slices, record: _Record, images: Place | None) -> Iterator[tuple[int, str]]:
    """(byte, reason) of each fault of one record. Raises StorageError."""
    (offset, length), where = record.span, record.where
    inside = where is not None and where["image_offset"] > 0
    crc = where["crc"] if where is not None and inside else None
    wanted = f"it was {length} when it was adopted"
    payload = yield from check_framing(data, offset, length, wanted=wanted, crc=crc)
    if payload is None or where is None:
        return
    if inside:
        start = where["image_offset"] - tfrecord.HEADER_BYTES
        image = bytes(payload[start : start + where["image_length"]])
        yield from check_image(image, where, offset + where["image_offset"])
        return
    if record.file is None or images is None:
        yield offset, "the record has no image, and the index names none"
        return
    try:
        image = images.held(record.file, where["image_length"])
    except OSError as error:
        yield offset, f"{images.address(record.file)}: {reason(error)}"
        return
    if hashlib.sha256(image).hexdigest() != record.sha256 or tfrecord.masked_crc(image) != where["crc"]:
        yield offset, f"{images.address(record.file)}: is not the image that was adopted"
    yield from check_image(image, where, offset)
