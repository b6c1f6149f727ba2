"""Every byte of a dataset against what was promised: digests, CRCs, the catalog's addresses, and every decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from headrace.errors import DamageError, StorageError
from headrace.format import catalog, example, manifest, storage, tfrecord
from headrace.imaging import codec


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

    Raises NotThereError, UsageError, DamageError, StorageError where there is nothing to check: no manifest to be read,
    or no catalog.
    """
    promised = manifest.read(folder)
    damaged = [d for name, sha in promised.files.items() for d in _check_file(folder / name, sha)]
    try:
        frame = catalog.read(folder)
    except (DamageError, StorageError) as error:
        return Verdict(
            records=0,
            damaged=(*damaged, Damage(shard=catalog.FILE, record=None, offset=None, reason=str(error))),
        )
    if len(frame) != promised.stored:
        reason = f"{len(frame)} rows, the manifest says {promised.stored}"
        damaged.append(Damage(shard=catalog.FILE, record=None, offset=None, reason=reason))
    known = {entry.name for entry in promised.shards}
    for name in sorted(set(frame["shard"]) - known):
        damaged.append(Damage(shard=name, record=None, offset=None, reason="in the catalog, not in the manifest"))

    def check(entry: manifest.ShardEntry) -> list[Damage]:
        rows = frame.filter(pl.col("shard") == entry.name).to_dicts()
        return list(_check_shard(folder, entry, rows, promised, progress))

    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(check, promised.shards):
            damaged += found
    return Verdict(records=len(frame), damaged=tuple(damaged))


def _check_file(path: Path, sha256: str) -> Iterator[Damage]:
    try:
        found = storage.digest(path)
    except OSError as error:
        yield Damage(shard=path.name, record=None, offset=None, reason=f"can't be read: {error.strerror}")
        return
    if found != sha256:
        reason = f"sha256 is {found[:16]}…, the manifest says {sha256[:16]}…"
        yield Damage(shard=path.name, record=None, offset=None, reason=reason)


def _check_shard(
    folder: Path,
    entry: manifest.ShardEntry,
    rows: list[dict[str, Any]],
    promised: manifest.Manifest,
    progress: Callable[[int], None],
) -> Iterator[Damage]:
    def damage(record: int | None, offset: int | None, reason: str) -> Damage:
        return Damage(shard=entry.name, record=record, offset=offset, reason=reason)

    try:
        data = storage.map_file(folder / entry.name)
    except StorageError as error:
        yield damage(None, None, str(error))
        return
    if len(data) != entry.bytes:
        yield damage(None, None, f"{len(data)} bytes, the manifest says {entry.bytes}")
    if len(rows) != entry.records:
        yield damage(None, None, f"{len(rows)} rows in the catalog, the manifest says {entry.records} records")
    whole = hashlib.sha256(data.data).hexdigest() == entry.sha256
    end, sound = 0, True
    for number, row in enumerate(rows):
        offset = row["offset"]
        if offset != end:
            sound = False
            yield damage(number, offset, f"the record before ends at byte {end}, the catalog puts this one at {offset}")
        end = offset + row["length"] + tfrecord.OVERHEAD_BYTES
        for fault in _check_record(data, row, promised):
            sound = False
            yield damage(number, *fault)
        progress(1)
    if end != len(data) and len(data) == entry.bytes:
        sound = False
        yield damage(None, end, f"the last record of the catalog ends here, the file at byte {len(data)}")
    if sound and not whole:
        yield damage(None, None, "sha256 is not the manifest's, though every record is sound: another shard's file?")
    index = "".join(f"{row['offset']} {row['length'] + tfrecord.OVERHEAD_BYTES}\n" for row in rows).encode()
    path = folder / entry.index_name
    try:
        if path.read_bytes() != index:
            yield Damage(shard=path.name, record=None, offset=None, reason="not the offsets of the catalog")
    except OSError as error:
        yield Damage(shard=path.name, record=None, offset=None, reason=f"can't be read: {error.strerror}")


def _check_record(data: tfrecord.Buffer, row: dict[str, Any], promised: manifest.Manifest) -> Iterator[tuple[int, str]]:
    """(byte, reason) of each fault of one record."""
    offset, length = row["offset"], row["length"]
    try:
        found = tfrecord.length_at(data, offset)
        if found != length:
            yield offset, f"the record's length is {found}, the catalog says {length}"
            return
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
        if offset + length + tfrecord.OVERHEAD_BYTES > len(data):
            return
    try:
        payload = tfrecord.payload_at(data, offset, length)
    except tfrecord.BadRecord as error:
        yield error.offset, error.reason
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
    try:
        header = codec.read_header(image, max_pixels=row["height"] * row["width"])
        pixels = codec.decode(image, header=header)
    except codec.BadImage as error:
        yield image_offset, error.reason
        return
    wanted = (row["height"], row["width"], row["channels"])
    if pixels.shape != wanted or header.format != row["format"]:
        found_shape = "x".join(map(str, pixels.shape))
        yield (
            image_offset,
            f"a {header.format} of {found_shape}, the catalog says {row['format']} of {wanted}",
        )
