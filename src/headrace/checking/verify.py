"""Every byte of a dataset against what was promised: digests, CRCs, the catalog's addresses, and every decode."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import DamageError, StorageError
from headrace.format import catalog, example, index, manifest, tfrecord
from headrace.format.tables import Tables
from headrace.imaging import codec
from headrace.place import local

_CHUNK = 32  # records per task


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found: `records` were checked, `damaged` lists each fault with its address."""

    records: int
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged


def verify(folder: Path, *, workers: int | None = None, progress: Callable[[int], None] = lambda done: None) -> Verdict:
    """Checks every byte of the dataset in `folder`; `progress` is told of each lot of checked records.

    A catalog that is not what was written leaves no addresses to go by: then each file is only held against its digest.
    Raises NotThereError, UsageError, DamageError, StorageError where there is nothing to check: no manifest to be read.
    """
    threads = parallel.check_workers(workers)
    promised = manifest.read(folder)
    damaged = [fault for name, sha256 in promised.files.items() for fault in _check_file(folder / name, sha256)]
    try:
        tables = Tables(folder)
        frame = tables.frame()
        if (unlike := tables.unlike()) is not None:
            raise DamageError(unlike)
    except (DamageError, StorageError) as error:
        if not any(fault.shard in (index.FILE, catalog.FILE) for fault in damaged):
            damaged.append(Damage(shard=catalog.FILE, record=None, offset=None, reason=str(error)))
        for entry in promised.shards:
            if entry.foreign is None:
                damaged += _check_file(folder / entry.name, entry.sha256)
            else:
                for piece in _foreign_pieces(folder, entry, None, promised, damaged):
                    damaged += piece.check()
        return Verdict(records=0, damaged=tuple(damaged))
    with_boxes = promised.boxes is not None

    def check(piece: _Piece) -> tuple[_Piece, list[Damage]]:
        return piece, list(piece.check())

    pieces = _pieces(folder, frame, promised, damaged, with_boxes=with_boxes)
    for piece, found in parallel.ordered(check, pieces, workers=threads, ahead=4 * threads):
        if not piece.last:
            progress(piece.rows)
        elif any(fault.shard == piece.entry.name for fault in damaged):
            continue  # its digest says no more than the address that was found
        damaged += found
    number = {entry.name: i for i, entry in enumerate(promised.shards)}
    damaged.sort(key=lambda fault: (number.get(fault.shard, -1), -1 if fault.record is None else fault.record))
    return Verdict(records=len(frame), damaged=tuple(damaged))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A task: records of a shard, `rows` of which are in the catalog; the `last` is a digest of the whole shard."""

    entry: manifest.ShardEntry
    rows: int
    check: Callable[[], Iterable[Damage]]
    last: bool = False


def _pieces(
    folder: Path, frame: pl.DataFrame, promised: manifest.Manifest, damaged: list[Damage], *, with_boxes: bool
) -> Iterator[_Piece]:
    """All tasks. What is wrong with a shard's file as such, or with its index, goes straight to `damaged`."""
    by_shard = frame.partition_by("shard", as_dict=True)
    for entry in promised.shards:
        rows = by_shard.get((entry.name,), frame.clear())
        if entry.foreign is not None:
            yield from _foreign_pieces(folder, entry, rows.to_dicts(), promised, damaged)
            continue
        try:
            data = local.map_file(folder / entry.name)
        except StorageError as error:
            damaged.append(Damage(shard=entry.name, record=None, offset=None, reason=str(error)))
            continue
        damaged += _check_layout(folder, entry, len(data), rows)
        for first in range(0, len(rows), _CHUNK):
            some = rows[first : first + _CHUNK].to_dicts()
            yield _Piece(
                entry, len(some), functools.partial(_check_records, entry, data, first, some, promised, with_boxes)
            )
        yield _Piece(entry, 0, functools.partial(_check_digest, entry, data), last=True)


def _check_file(path: Path, sha256: str) -> Iterator[Damage]:
    try:
        found = local.digest(path)
    except OSError as error:
        yield Damage(shard=path.name, record=None, offset=None, reason=f"can't be read: {error.strerror}")
        return
    if found != sha256:
        reason = f"sha256 is {found[:16]}…, the manifest says {sha256[:16]}…"
        yield Damage(shard=path.name, record=None, offset=None, reason=reason)


def _check_layout(folder: Path, entry: manifest.ShardEntry, size: int, rows: pl.DataFrame) -> Iterator[Damage]:
    """Sizes and counts of a shard, the addresses in the catalog, and the index file."""

    def damage(record: int | None, offset: int | None, reason: str) -> Damage:
        return Damage(shard=entry.name, record=record, offset=offset, reason=reason)

    if size != entry.bytes:
        yield damage(None, None, f"{size} bytes, the manifest says {entry.bytes}")
    if len(rows) != entry.records:
        yield damage(None, None, f"{len(rows)} rows in the catalog, the manifest says {entry.records} records")
    starts = rows["offset"].to_numpy()
    sizes = rows["length"].to_numpy() + tfrecord.OVERHEAD_BYTES
    ends = np.concatenate([[0], starts + sizes])
    for number in np.flatnonzero(starts != ends[:-1]).tolist():
        yield damage(
            number,
            int(starts[number]),
            f"the record before ends at byte {ends[number]}, the catalog puts this one at {starts[number]}",
        )
    if ends[-1] != entry.bytes:
        yield damage(None, int(ends[-1]), f"the last record ends here, the manifest says {entry.bytes} bytes")
    index = "".join(f"{start} {size}\n" for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)).encode()
    path = folder / entry.index_name
    try:
        if path.read_bytes() != index:
            yield Damage(shard=path.name, record=None, offset=None, reason="not the offsets of the catalog")
    except OSError as error:
        yield Damage(shard=path.name, record=None, offset=None, reason=f"can't be read: {error.strerror}")


def _check_records(
    entry: manifest.ShardEntry,
    data: NDArray[np.uint8],
    first: int,
    rows: list[dict[str, Any]],
    promised: manifest.Manifest,
    with_boxes: bool,
) -> Iterator[Damage]:
    for number, row in enumerate(rows, start=first):
        for offset, reason in _check_record(data, row, promised, with_boxes=with_boxes):
            yield Damage(shard=entry.name, record=number, offset=offset, reason=reason)


def _check_digest(entry: manifest.ShardEntry, data: NDArray[np.uint8]) -> Iterator[Damage]:
    if hashlib.sha256(data.data).hexdigest() != entry.sha256:
        reason = "sha256 is not the manifest's, though every record is sound: another shard's file?"
        yield Damage(shard=entry.name, record=None, offset=None, reason=reason)


def _payload(
    data: tfrecord.Buffer, offset: int, length: int, *, wanted: str
) -> Generator[tuple[int, str], None, tfrecord.Buffer | None]:
    """Yields (byte, reason) of each fault of a record's framing; its payload, None where that is not sound."""
    try:
        found = tfrecord.length_at(data, offset)
        if found != length:
            yield offset, f"the record's length is {found}, {wanted}"
            return None
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
        if offset + length + tfrecord.OVERHEAD_BYTES > len(data):
            return None
    try:
        return tfrecord.payload_at(data, offset, length)
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
        return None


def _check_record(
    data: tfrecord.Buffer, row: dict[str, Any], promised: manifest.Manifest, *, with_boxes: bool
) -> Iterator[tuple[int, str]]:
    """(byte, reason) of each fault of one record."""
    offset, length = row["offset"], row["length"]
    payload = yield from _payload(data, offset, length, wanted=f"the catalog says {length}")
    if payload is None:
        return
    image_offset = row["image_offset"]
    start = image_offset - offset - tfrecord.HEADER_BYTES
    image = bytes(payload[start : start + row["image_length"]])
    try:
        features = example.parse(bytes(payload))
    except ValueError as error:
        yield offset + tfrecord.HEADER_BYTES, str(error)
        return
    if features.get("image/encoded") != [image]:
        yield image_offset, "the catalog's image bytes are not the record's image/encoded"
        return
    if hashlib.sha256(image).hexdigest() != row["sha256"]:
        yield image_offset, "sha256 of the image is not the catalog's"
    if features.get("image/id") != [row["id"].encode()]:
        yield offset, f"the record's image/id is not the catalog's {row['id']!r}"
    if promised.classes and features.get("image/class/label") != [-1 if row["label"] is None else row["label"]]:
        yield offset, f"the record's image/class/label is not the catalog's {row['label']}"
    wrong = list(_check_image(image, row))
    yield from wrong
    if wrong:
        return
    for key, values in _objects(row, promised, with_boxes=with_boxes).items():
        if key not in features or not _same(features[key], values):
            yield offset, f"the record's {key} is not what the catalog says"


def _check_image(image: bytes, row: dict[str, Any]) -> Iterator[tuple[int, str]]:
    image_offset = row["image_offset"]
    try:
        header = codec.read_header(image, max_pixels=row["height"] * row["width"])
        pixels = codec.decode(image, header=header)
    except codec.BadImage as error:
        yield image_offset, error.reason
        return
    wanted = (row["height"], row["width"], row["channels"])
    if pixels.shape != wanted or header.kind != row["format"]:
        found_shape = "x".join(map(str, pixels.shape))
        yield image_offset, f"a {header.kind} of {found_shape}, the catalog says {row['format']} of {wanted}"


def _objects(row: dict[str, Any], promised: manifest.Manifest, *, with_boxes: bool) -> dict[str, example.Feature]:
    """The features of the record's boxes and keypoints, by the catalog."""
    values = {name: row[name] for name in catalog.SCHEMA}
    values["boxes"] = _array(row["boxes"], 4)
    values["keypoints"] = _array(row["keypoints"], promised.keypoints, 3)
    return example.objects_of(
        catalog.Row(**values),
        with_boxes=with_boxes,
        keypoints=promised.keypoints,
        keypoint_names=promised.keypoint_names,
    )


def _array(values: list[Any] | None, *shape: int) -> NDArray[np.float32] | None:
    return None if values is None else np.array(values, np.float32).reshape(-1, *shape)


def _same(found: example.Feature, wanted: example.Feature) -> bool:
    if isinstance(wanted, example.Floats):  # the wire has 32 bits of them
        return np.array_equal(np.array(found, np.float32), np.array(wanted, np.float32))
    return found == wanted


# --- shards of somebody else -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A record's `number` in its file, where it is, and its row of the catalog; None where it was rejected."""

    number: int
    span: tfrecord.Span
    row: dict[str, Any] | None


def _foreign_pieces(
    folder: Path,
    entry: manifest.ShardEntry,
    rows: list[dict[str, Any]] | None,
    promised: manifest.Manifest,
    damaged: list[Damage],
) -> Iterator[_Piece]:
    """All tasks of a shard that was adopted: each of its records, also those that were rejected, and its marks.

    `rows` None: the catalog can't be read.
    """
    change = entry.change(folder)
    if change is not None:
        damaged.append(Damage(shard=entry.name, record=None, offset=None, reason=change))
    if rows is not None and len(rows) != entry.records:
        reason = f"{len(rows)} rows in the catalog, the manifest says {entry.records} records"
        damaged.append(Damage(shard=entry.name, record=None, offset=None, reason=reason))
    try:
        data = local.map_file(folder / entry.name)
    except StorageError as error:
        if change is None:
            damaged.append(Damage(shard=entry.name, record=None, offset=None, reason=str(error)))
        return
    images = None if not promised.adopted else promised.adopted["images"]
    places = _places(entry, data, rows or [], damaged)
    for first in range(0, len(places), _CHUNK):
        some = places[first : first + _CHUNK]
        check = functools.partial(_check_places, entry, data, some, None if images is None else folder / images)
        yield _Piece(entry, sum(place.row is not None for place in some), check)
    yield _Piece(entry, 0, functools.partial(_check_marks, entry, data, places), last=True)


def _places(
    entry: manifest.ShardEntry, data: NDArray[np.uint8], rows: list[dict[str, Any]], damaged: list[Damage]
) -> list[_Place]:
    """Every record of the file. What the catalog knows stands where it says; between lie rejected records, found by
    their lengths, and the bytes that were no record when the file was adopted."""
    assert entry.foreign is not None
    known: list[tuple[int, int, dict[str, Any] | None]] = [(begin, end, None) for begin, end in entry.foreign.skipped]
    known += [(row["offset"], row["offset"] + tfrecord.OVERHEAD_BYTES + row["length"], row) for row in rows]
    known.sort(key=lambda one: one[:2])
    places: list[_Place] = []
    at = number = 0
    for begin, end, row in [*known, (entry.bytes, entry.bytes, None)]:
        while at < begin:
            try:
                span = tfrecord.Span(at, tfrecord.length_at(data, at))
                if span.end > begin:
                    raise tfrecord.BadRecord(
                        at, f"this record ends at byte {span.end}, the next begins at byte {begin}"
                    )
            except tfrecord.BadRecord as error:
                damaged.append(Damage(shard=entry.name, record=number, offset=error.offset, reason=error.reason))
                break
            places.append(_Place(number, span, None))
            at, number = span.end, number + 1
        if row is not None:
            number = int(row["origin"].rpartition(":")[2])
            places.append(_Place(number, tfrecord.Span(begin, row["length"]), row))
        at, number = end, number + 1
    return places


def _check_places(
    entry: manifest.ShardEntry, data: NDArray[np.uint8], places: list[_Place], images: Path | None
) -> Iterator[Damage]:
    for place in places:
        for offset, reason in _check_place(data, place, images):
            yield Damage(shard=entry.name, record=place.number, offset=offset, reason=reason)


def _check_place(data: NDArray[np.uint8], place: _Place, images: Path | None) -> Iterator[tuple[int, str]]:
    """(byte, reason) of each fault of one record."""
    (offset, length), row = place.span, place.row
    payload = yield from _payload(data, offset, length, wanted=f"it was {length} when it was adopted")
    if payload is None or row is None:
        return
    named = row.get(catalog.IMAGE_FILE)
    if named is None:
        start = row["image_offset"] - offset - tfrecord.HEADER_BYTES
        if not 0 <= start <= start + row["image_length"] <= length:
            yield row["image_offset"], "the catalog puts the image outside of its record"
            return
        yield from _check_image(bytes(payload[start : start + row["image_length"]]), row)
        return
    assert images is not None
    try:
        image = local.inside(images, named).read_bytes()
    except OSError as error:
        yield offset, f"{images / named}: {(error.strerror or str(error)).lower()}"
        return
    if hashlib.sha256(image).hexdigest() != row["sha256"]:
        yield offset, f"{images / named}: its sha256 is not the catalog's"
    yield from _check_image(image, row)


def _check_marks(entry: manifest.ShardEntry, data: NDArray[np.uint8], places: list[_Place]) -> Iterator[Damage]:
    """Lengths and CRCs of all records, and the bytes between them, against what they were."""
    assert entry.foreign is not None
    pieces: list[tfrecord.Span | tfrecord.Gap] = [place.span for place in places]
    pieces += [tfrecord.Gap(begin, end, begin, "") for begin, end in entry.foreign.skipped]
    pieces.sort(key=lambda piece: piece[:2])
    marks = hashlib.sha256()
    for piece in pieces:
        marks.update(tfrecord.mark(data, piece))
    if marks.hexdigest() != entry.sha256:
        reason = "its records are sound, but not those that were adopted: another file?"
        yield Damage(shard=entry.name, record=None, offset=None, reason=reason)
