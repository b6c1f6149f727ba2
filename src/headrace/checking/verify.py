"""Every byte of a dataset against what was promised: digests, CRCs, what its tables say of each other and of the
records, and every decode. Shards that were adopted are left to external."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order, parallel
from headrace.checking import external
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
from headrace.errors import DamageError, StorageError, UsageError
from headrace.format import catalog, example, frames, manifest, tfrecord, versions
from headrace.format.index import Index
from headrace.format.tables import Tables, files_of
from headrace.imaging.alike import as_looks, distance
from headrace.imaging.look import look, thumb
from headrace.place.address import Place, reason
from headrace.place.local import Slices
from headrace.version import __version__

_AT_ONCE = 1 << 12  # lines of a shard's index file
# Bits in which a look may differ from that of the stored image: those of two images differ in 64, and that of a JPEG of
# quality 1 from that of the pixels it was made of, which the catalog has, in 35 at most (of 1629 real photos).
_UNLIKE = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found: `records` were checked, `damaged` lists each fault with its address."""

    records: int
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.damaged


def verify(
    home: Place,
    *,
    version: int | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Verdict:
    """Checks every byte of the dataset in a place, by default of the version that holds now, and of those before it
    their manifests, tables and shards; `progress` is called for each lot of checked records.

    Index and catalog that are not what was written leave no addresses to go by: then shards are only held against their
    digests. Raises NotThereError, UsageError, DamageError, StorageError where there is nothing to check: no manifest to
    be read, or one that is replaced meanwhile; UsageError in a forked child without Polars's threads.
    """
    frames.check_process("verify")
    threads = parallel.check_workers(workers)
    promised = manifest.read(home, version)
    place = files_of(home, promised)
    damaged = [fault for name, sha256 in promised.files.items() for fault in _check_file(place, name, sha256)]
    earlier, broken = _earlier(place, promised)
    damaged += broken
    damaged += _check_earlier(place, promised, earlier)
    first = earlier.get(1, promised)  # which the side files speak of
    if not damaged and first.version == 1:
        damaged += _check_side_files(place, first)
    tables = _tables(home, promised, damaged)

    def check(task: Task) -> tuple[Task, Checked]:
        return task, task.check()

    blamed, marks = False, hashlib.sha256()
    for task, (faults, said) in parallel.ordered(
        check, _tasks(place, promised, earlier, tables), workers=threads, ahead=4 * threads
    ):
        marks.update(said)
        if not task.last:
            damaged += faults
            blamed = blamed or any(fault.shard == task.entry.name for fault in faults)
            if task.rows:
                progress(task.rows)
            continue
        if not blamed:
            damaged += faults
            if task.entry.foreign is not None and marks.hexdigest() != task.entry.sha256:
                reason = "its records are sound, but not those that were adopted: another file?"
                damaged.append(Damage(shard=task.entry.name, record=None, offset=None, reason=reason))
        blamed, marks = False, hashlib.sha256()
    number = {entry.name: i for i, entry in enumerate(promised.shards)}
    damaged.sort(key=lambda fault: (number.get(fault.shard, -1), -1 if fault.record is None else fault.record))
    return Verdict(records=0 if tables is None else len(tables), damaged=tuple(damaged))


def _check_file(place: Place, name: str, sha256: str) -> Iterator[Damage]:
    try:
        digest = place.digest(name)
    except OSError as error:
        yield Damage(shard=name, record=None, offset=None, reason=f"can't be read: {reason(error)}")
        return
    if digest != sha256:
        unlike = f"sha256 is {digest[:16]}…, the manifest says {sha256[:16]}…"
        yield Damage(shard=name, record=None, offset=None, reason=unlike)


def _check_side_files(place: Place, promised: manifest.Manifest) -> Iterator[Damage]:
    """What other tools read of a packed dataset, against the manifest: its digests are right, and it may lie still."""
    if promised.adopted is not None or promised.headrace_version != __version__:  # others may write them otherwise
        return
    try:
        known_as = json.loads(place.content(manifest.INFO_FILE, _MOST_OF_INFO))["name"]
        wanted = manifest.side_files(promised, name=known_as)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        none = f"names no dataset ({error or type(error).__name__})"
        yield Damage(shard=manifest.INFO_FILE, record=None, offset=None, reason=none)
        return
    for name, data in wanted.items():
        if promised.files.get(name) != hashlib.sha256(data).hexdigest():
            yield Damage(shard=name, record=None, offset=None, reason="does not say what the manifest says")


_MOST_OF_INFO = 1 << 24  # bytes


def _earlier(place: Place, promised: manifest.Manifest) -> tuple[dict[int, manifest.Manifest], list[Damage]]:
    """The manifests of the versions before this one, by number, as far back as one leads to the next."""
    found: dict[int, manifest.Manifest] = {}
    try:
        for before, _ in versions.chain(place, promised.to_bytes()):
            if before.version < promised.version:
                found[before.version] = before
    except (DamageError, StorageError, UsageError) as error:
        missing = manifest.kept_name(min(found, default=promised.version) - 1)
        return found, [Damage(shard=missing, record=None, offset=None, reason=str(error))]
    return found, []


def _check_earlier(
    place: Place, promised: manifest.Manifest, earlier: Mapping[int, manifest.Manifest]
) -> Iterator[Damage]:
    """What earlier versions name besides what this one does. Adopted shards are what they are."""
    known = set(promised.files.items()) | {(entry.name, entry.sha256) for entry in promised.shards}
    for before in earlier.values():
        shards = [(entry.name, entry.sha256) for entry in before.shards if entry.foreign is None]
        for name, sha256 in (*before.files.items(), *shards):
            if (name, sha256) not in known:
                known.add((name, sha256))
                yield from _check_file(place, name, sha256)


# --- tables ----------------------------------------------------------------------------------------------------------


def _tables(home: Place, promised: manifest.Manifest, damaged: list[Damage]) -> Tables | None:
    """The tables of the dataset, with what they contradict each other in added to `damaged`; None where they can't be
    read, which is then among the damages."""
    file, what = promised.tables
    try:
        tables = Tables(home, promised.version)
        file = what
        contradictions = list(_contradictions(tables))
    except (DamageError, StorageError) as error:
        if not any(fault.shard in promised.tables for fault in damaged):
            damaged.append(Damage(shard=file, record=None, offset=None, reason=str(error)))
        return None
    damaged += contradictions
    return tables


def _contradictions(tables: Tables) -> Iterator[Damage]:
    """Where index, catalog and manifest say different things. Raises StorageError, DamageError."""

    def damage(file: str, reason: str) -> Damage:
        return Damage(shard=file, record=None, offset=None, reason=reason)

    boxes: int | None = None
    promised = tables.manifest
    moved, counts = promised.split_records is not None, Counter[str]()
    live = np.ones(len(tables), bool)
    if tables.live is not None:
        live[:] = False
        live[tables.live] = True
    where, what = promised.tables
    splits = pl.Series([entry.split for entry in tables.manifest.shards], dtype=pl.String)
    for first in range(0, len(tables), catalog.GROUP):
        frame = tables.group(first // catalog.GROUP)
        kept = frame.filter(live[first : first + len(frame)])
        if frame["boxes"].count():
            boxes = (boxes or 0) + int(kept["boxes"].list.len().sum())
        counts.update(kept["split"].to_list() if moved else ())
        rows = np.arange(first, first + len(frame))
        of_shards = frame["split"] if moved else splits.gather(tables.shard(rows))
        unlike = _unlike(tables.index, first, frame["id"]) | (frame["split"] != of_shards).to_numpy()
        if unlike.any():
            i = int(np.argmax(unlike))
            indexed = tables.index.ids.raw(first + i).decode(errors="backslashreplace")
            yield damage(
                what,
                f"row {first + i} is {frame['id'][i]!r} of {frame['split'][i]!r}, in the index it is {indexed!r} of "
                f"{of_shards[i]!r}",
            )
        keys = order.keys_of(frame["id"].to_list()) != tables.index["key"][first : first + len(frame)]
        if (keys & ~unlike).any():
            yield damage(where, f"the key of row {first + int(np.argmax(keys & ~unlike))} is not that of its id")
    if (twice := _twice(tables, live)) is not None:
        yield damage(where, f"the id {twice!r} occurs twice")
    if boxes != promised.boxes and (promised.version == 1 or boxes or promised.boxes):
        yield damage(what, f"{boxes} boxes, the manifest says {promised.boxes}")
    if moved and counts != Counter(promised.split_records):
        yield damage(what, f"records per split are {dict(counts)}, the manifest says {promised.split_records}")


def _unlike(table: Index, first: int, ids: pl.Series) -> NDArray[np.bool_]:
    """Which of these ids [n] of the rows from `first` on are not those of the index, bool [n]; at least the first."""
    ends, n = table.ids.ends, len(ids)
    before = int(ends[first - 1]) if first else 0
    ends = ends[first : first + n].astype(np.int64)
    lengths = np.diff(ends, prepend=before)
    unlike: NDArray[np.bool_] = ids.str.len_bytes().to_numpy() != lengths
    if not unlike.any():
        said = np.frombuffer("".join(ids.to_list()).encode(), np.uint8)
        differ = np.flatnonzero(said != table.ids.data[before : before + len(said)])
        unlike[np.searchsorted(ends - before, differ, side="right")] = True
    return unlike


def _twice(tables: Tables, live: NDArray[np.bool_]) -> str | None:
    """An id that two records have, neither of which is dropped."""
    keys = np.asarray(tables.index["key"])
    by_key = np.argsort(keys, kind="stable")
    by_key = by_key[live[by_key]]
    for at in np.flatnonzero(np.diff(keys[by_key]) == 0).tolist():
        one, two = tables.ids(by_key[at : at + 2])
        if one == two:
            return one
    return None


# --- shards ----------------------------------------------------------------------------------------------------------


def _tasks(
    place: Place, promised: manifest.Manifest, earlier: Mapping[int, manifest.Manifest], tables: Tables | None
) -> Iterator[Task]:
    """All tasks, shard after shard."""
    rows = None if tables is None else Rows(tables)
    for number, entry in enumerate(promised.shards):
        if entry.foreign is not None:
            yield from external.tasks(place, entry, number, tables, rows)
        elif tables is None or rows is None:
            yield Task(entry, 0, functools.partial(_check_digest, place, entry, None))
        else:
            # What records say is what was said when they were packed.
            said = earlier.get(1, promised) if entry.since == 1 else promised
            yield from _own(place, entry, number, tables, rows, said)


def _own(
    place: Place, entry: manifest.ShardEntry, number: int, tables: Tables, rows: Rows, said: manifest.Manifest
) -> Iterator[Task]:
    yield Task(entry, 0, functools.partial(_check_lines, place, entry, number, tables))
    try:
        size = place.size(entry.name)
    except StorageError as error:
        yield found(entry, str(error))
        return
    if size != entry.bytes:
        yield found(entry, f"{size} bytes, the manifest says {entry.bytes}")
    begin = int(tables.first_row[number])
    for first, n in _lots(tables.index, begin, entry.records):
        check = functools.partial(
            _check_records, place, entry, size, tables, rows[first : first + n], first, first - begin, said
        )
        yield Task(entry, n, check)
    yield Task(entry, 0, functools.partial(_check_digest, place, entry, size), last=True)


def _lots(table: Index, begin: int, records: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of the tasks of a shard whose rows begin at `begin`; none goes over two groups of rows."""
    first, end = begin, begin + records
    while first < end:
        most = min(LOT_RECORDS, end - first, catalog.GROUP - first % catalog.GROUP)
        sizes = np.cumsum(table["length"][first : first + most], dtype=np.int64)
        n = max(1, int(np.searchsorted(sizes, LOT_BYTES, side="right")))
        yield first, n
        first += n


def _check_lines(place: Place, entry: manifest.ShardEntry, number: int, tables: Tables) -> Checked:
    """The file of `offset length` lines beside a shard."""
    begin, at = int(tables.first_row[number]), 0
    try:
        for first in range(begin, begin + entry.records, _AT_ONCE):
            rows = slice(first, min(first + _AT_ONCE, begin + entry.records))
            starts, lengths = tables.index["offset"][rows].tolist(), tables.index["length"][rows].tolist()
            lines = "".join(
                f"{start} {length + tfrecord.OVERHEAD_BYTES}\n" for start, length in zip(starts, lengths, strict=True)
            ).encode()
            if place.read(entry.index_name, at, len(lines)) != lines:
                break
            at += len(lines)
        else:
            if place.size(entry.index_name) == at:
                return [], b""
    except StorageError as error:
        return [Damage(shard=entry.index_name, record=None, offset=None, reason=str(error))], b""
    reason = f"not the offsets of {tables.manifest.index}"
    return [Damage(shard=entry.index_name, record=None, offset=None, reason=reason)], b""


def _check_digest(place: Place, entry: manifest.ShardEntry, size: int | None) -> Checked:
    """The shard as a whole; `size` None: its records were not looked at."""
    faults = list(_check_file(place, entry.name, entry.sha256))
    if faults and size is not None:
        reason = "sha256 is not the manifest's, though every record is sound: another shard's file?"
        faults = [Damage(shard=entry.name, record=None, offset=None, reason=reason)]
    return faults, b""


def _check_records(
    place: Place,
    entry: manifest.ShardEntry,
    size: int,
    tables: Tables,
    rows: pl.DataFrame,
    first: int,
    number: int,
    said: manifest.Manifest,
) -> Checked:
    """The records from row `first` on, the first of which is `number` in its shard; `rows` says what they are."""
    places = where_of(tables.index, first, len(rows))
    last = places[-1]
    span = last["offset"] + last["length"] + tfrecord.OVERHEAD_BYTES - places[0]["offset"]
    data = Slices(place, entry.name, size, block=span)
    damaged: list[Damage] = []
    for record, (where, what) in enumerate(zip(places, rows.to_dicts(), strict=True), start=number):
        try:
            edited = tables.edited is not None and bool(tables.edited[first + record - number])
            faults = list(_check_record(data, entry, where, what, said, edited=edited))
        except StorageError as error:
            faults = [(where["offset"], str(error))]
        damaged += [Damage(shard=entry.name, record=record, offset=at, reason=why) for at, why in faults]
    return damaged, b""


def _check_record(
    data: Slices,
    entry: manifest.ShardEntry,
    where: dict[str, Any],
    what: dict[str, Any],
    promised: manifest.Manifest,
    *,
    edited: bool,
) -> Iterator[tuple[int, str]]:
    """(byte, reason) of each fault of one record. Of one that was `edited` the catalog says other labels and objects.
    Raises StorageError."""
    offset, length = where["offset"], where["length"]
    wanted = f"the index says {length}"
    payload = yield from check_framing(data, offset, length, wanted=wanted, crc=where["crc"])
    if payload is None:
        return
    start, at = where["image_offset"] - tfrecord.HEADER_BYTES, offset + where["image_offset"]
    image = bytes(payload[start : start + where["image_length"]])
    try:
        features = example.parse(bytes(payload))
    except ValueError as error:
        yield offset + tfrecord.HEADER_BYTES, str(error)
        return
    if features.get("image/encoded") != [image]:
        yield at, "the index's image bytes are not the record's image/encoded"
        return
    if hashlib.sha256(image).hexdigest() != what["sha256"]:
        yield at, "sha256 of the image is not the catalog's"
    pixels = yield from check_image(image, where, at)
    if pixels is None:
        return
    looks, known = as_looks([look(thumb(pixels)), what["look"]])
    if not known.all() or distance(*looks) > _UNLIKE:
        yield at, "the look of the image is not the catalog's"
    row = _row(entry, where, what, promised)
    if entry.since > 1:
        promised = _before_edits(promised, row, features)
    of_attributes = example.features_of_attributes(row, example.names_of_keys(features))
    for key, values in (of_attributes | features_by_tables(row, image, promised)).items():
        if edited and key.startswith(_EDITABLE):
            continue
        if not any(_same(features.get(key), said) for said in (values, of_attributes.get(key)) if said is not None):
            yield offset, f"the record's {key} is {_shown(features.get(key))}, the catalog says {_shown(values)}"


def _before_edits(
    promised: manifest.Manifest, row: catalog.Row, features: Mapping[str, example.Feature]
) -> manifest.Manifest:
    """What a manifest says, but for classes and boxes where the record of an appended shard was written before the
    dataset had any, and nothing is said of the record's."""
    if "image/class/label" not in features and row.label is None and row.labels is None:
        promised = replace(promised, classes=(), multi_label=False)
    if "image/object/bbox/xmin" not in features and row.boxes is None:
        promised = replace(promised, boxes=None)
    return promised


_EDITABLE = ("image/class/", "image/object/", "objects/")


def _row(
    entry: manifest.ShardEntry, where: dict[str, Any], what: dict[str, Any], promised: manifest.Manifest
) -> catalog.Row:
    """What the tables say of a record."""
    shape = {name: where[name] for name in ("format", "height", "width", "channels")}
    known = catalog.known_of(what, (where["height"], where["width"]), promised.keypoints)
    return catalog.Row(shard=entry.name, **shape, **known)


def features_by_tables(row: catalog.Row, image: bytes, promised: manifest.Manifest) -> dict[str, example.Feature]:
    """The features that a record has by the tables, whatever its attributes."""
    return example.features_of(
        row,
        image,
        with_label=bool(promised.classes),
        multi_label=promised.multi_label,
        with_value=promised.values,
        with_boxes=promised.boxes is not None,
        keypoints=promised.keypoints,
        keypoint_names=promised.keypoint_names,
    )


def _same(stored: example.Feature | None, wanted: example.Feature) -> bool:
    if stored is None:
        return False
    if isinstance(wanted, example.Floats):  # the wire has 32 bits of them
        with np.errstate(over="ignore"):  # and of what is beyond them infinity
            return np.array_equal(np.array(stored, np.float32), np.array(wanted, np.float32), equal_nan=True)
    return stored == wanted


def _shown(values: example.Feature | None) -> str:
    return "missing" if values is None else f"{list(values)!r:.60}"
