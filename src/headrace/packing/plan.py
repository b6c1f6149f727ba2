"""The plan: every decision of a packing before any pixel is touched: classes, splits, order, shards.

What the source gave is a table on disk, and the order of its rows a file beside it. A plan says where they lie; its
Decisions are what holds for all of them. With a slice of the table they are all that a worker anywhere needs.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DataError, StorageError, UsageError
from headrace.format import example
from headrace.imaging import alike, mirror
from headrace.imaging.codec import BadImage
from headrace.imaging.prepare import ImageOptions, prepare
from headrace.packing import looks
from headrace.packing.divided import Divided, nothing_in, prefix, same_ids
from headrace.packing.spool import GROUPED, LABELLED, REJECT, SEVERAL, Flat, Rows, Slice, Spool, Table
from headrace.place import paths
from headrace.place.address import Location, Url, is_url
from headrace.record import Record, Reject, check_names, check_record, keypoints_fault
from headrace.sources.info import SourceInfo, read
from headrace.sources.walking import natural
from headrace.splits import (
    GIVEN,
    USUAL_SPLITS,
    Splits,
    check_split_name,
    check_splits,
    grouped_shares,
    shares,
    split_name_fault,
)

DEFAULT_SHARD_BYTES = 128 * 10**6
_SAMPLE = 64
_RECORD_OVERHEAD = 700  # what a record has besides its image, about

# So much of a source is in memory before it is written: records, and bytes of them.
_BATCH = 8192
_BATCH_BYTES = 1 << 24

_KEYED = frozenset(example.KEYED)

_T = TypeVar("_T")

# What records have in common that no split cuts in two: an attribute's name, "group", "look" for how their images do,
# or a function that tells it.
Group: TypeAlias = str | Callable[[Record], str | None]
LOOK = "look"
# What to do with near-duplicates that would come into several splits.
Guard: TypeAlias = Literal["move", "drop", "refuse"]

# Why a row is no record of the dataset; 0 is why it is one.
_REFUSED, _DUPLICATE, _CLASS, _SPLIT, _KEYPOINTS, _BOX_CLASS, _LABEL, _LABELS, _ALIKE = 1, 2, 3, 4, 5, 6, 7, 8, 9
_KNOWN = 10

_MOST_CLASSES = 1 << 16  # a label above it, where nobody names the classes, is something else


@dataclass(frozen=True, slots=True)
class Numbered:
    """Something a source yielded, with its place in the source: 0 for the first."""

    number: int
    item: Record | Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One shard to be made: its file name, its split, and its records: places `start` to `stop` of the plan's order."""

    name: str
    split: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """`classes`, `box_classes` in index order. `info` is what the source says of the whole; `seen` is how much it gave,
    `refused` how many Rejects the source gave and the plan made.

    `splits`: name -> fraction, or the names alone where the source's records say their split. `notes`: what was decided
    for the whole and should be said aloud, by the source or here.

    `attributes`: those that become features of the records, besides being in the catalog. `keypoints`: how many an
    object has, 0 where there are none; their names, empty when nobody says them, and the pairs of them that a mirror
    swaps. `multi_label`: an image may have several classes, and one that a record has alone is the one of its labels;
    `values`: some records have one. `said`: the classes as the source numbers them, where that is another order.
    """

    options: ImageOptions
    info: SourceInfo
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    with_boxes: bool
    multi_label: bool
    values: bool
    attributes: tuple[str, ...]
    keypoints: int
    keypoint_names: tuple[str, ...]
    flip_pairs: mirror.Pairs
    splits: Mapping[str, float] | tuple[str, ...]
    shards: tuple[ShardPlan, ...]
    seen: int
    refused: int
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] | None = None
    _labels: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_labels", {name: i for i, name in enumerate(self.classes)})

    def completed(self, record: Record) -> Record:
        """The record with both its class's name and index, or neither; where images may have several classes, with
        their names."""
        if record.label is not None and record.label_name is None:
            record = replace(record, label_name=(self.said or self.classes)[record.label])
        if record.label_name is not None:
            record = replace(record, label=self._labels[record.label_name])
        if self.multi_label and record.label_name is not None:
            record = replace(record, label=None, label_name=None, labels=(record.label_name,))
        return record

    def labels_of(self, names: Iterable[str]) -> list[int]:
        """The indices of classes."""
        return [self._labels[name] for name in names]

    def alone(self, i: int) -> Decisions:
        """What a worker wants of them for shard `i`."""
        shard = self.shards[i]
        kept: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(Decisions) if each.init}
        alone = replace(shard, start=0, stop=len(shard))
        return Decisions(**kept | {"shards": (alone,), "info": SourceInfo(), "notes": ()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Decisions):
    """`table` holds what the source gave, `order` the rows as they are packed, int64. `stored`: some images lie in
    stores."""

    table: Table
    order: Flat
    stored: bool

    def records(self, start: int, stop: int) -> Iterator[Numbered]:
        """The Records of places `start` to `stop` of the order, completed. Raises OSError."""
        yield from numbered_records(self, self.table, self.order.read(start, stop))

    def slice(self, i: int) -> Slice:
        """The rows of shard `i`, in their order. Raises OSError."""
        return self.table.slice(self.order.read(self.shards[i].start, self.shards[i].stop))

    def close(self) -> None:
        """Lets go of its files."""
        self.table.close()
        self.order.close()

    @property
    def rejects_file(self) -> Path:
        """Lines (see `line`) of the Rejects that the source gave and the plan made, in the order of the source."""
        return self.table.folder / "rejects"

    def rejects(self) -> Iterator[Numbered]:
        """These Rejects. Raises OSError."""
        with self.rejects_file.open("rb") as lines:
            yield from map(numbered, lines)


def numbered_records(decisions: Decisions, rows: Rows, numbers: NDArray[np.int64]) -> Iterator[Numbered]:
    """The Records in rows of these numbers, completed. Raises OSError."""
    for row in numbers.tolist():
        record = rows[row]
        assert isinstance(record, Record)
        yield Numbered(row, decisions.completed(record))


def line(number: int, reject: Reject) -> bytes:
    """A Reject with its place in the source as one line of JSON."""
    return json.dumps([number, reject.id, reject.origin, reject.stage, reject.reason]).encode() + b"\n"


def numbered(text: bytes) -> Numbered:
    """What a `line` was made of."""
    number, id_, origin, stage, reason = json.loads(text)
    return Numbered(number, Reject(id=id_, origin=origin, stage=stage, reason=reason))


def make_plan(
    source: Iterable[Record | Reject],
    scratch: Path,
    *,
    out: Location,
    options: ImageOptions,
    splits: Splits | None,
    shards: int | None,
    shard_bytes: int | None,
    seed: int,
    group: Group | None = None,
    guard: Guard | None = None,
    has: Callable[[str], bool] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> Plan:
    """Reads the source to its end, into the new folder `scratch`, and decides.

    group: what records have in common that no split cuts in two: an attribute's name or a function; by default, and as
    "group", it is what they say themselves; as "look", near-duplicates.
    guard: what to do with near-duplicates in several splits, see pack. For it and for "look" all images are looked at,
    by `workers` threads, with a bar where `progress`.

    has: whether the dataset that these will be a part of has a record of this id already.
    splits: fractions by name, or "given": each record's own. By default its own where records say one, in the order
    train, val, test or as the source says its `split_names`; else all is "train".
    Raises UsageError (an option; images of the source lie in `out`), DataError (nothing in it, or in a split; what
    guard refuses), OSError.
    """
    if guard not in (None, *get_args(Guard)):
        raise UsageError(f"guard is {guard!r}, wanted one of {', '.join(get_args(Guard))}")
    fractions = check_splits(None if splits == GIVEN else splits)
    if isinstance(source, Divided) and splits not in (None, GIVEN):
        raise UsageError(f"the source comes divided into {', '.join(source.split_names)} already; leave splits out")
    if shards is not None and shard_bytes is not None:
        raise UsageError("give shards or a shard size, not both")
    if shards is not None and not 1 <= shards <= 99999:
        raise UsageError(f"shards is {shards}, wanted 1 to 99999")
    if shard_bytes is not None and shard_bytes < 1:
        raise UsageError(f"the shard size is {shard_bytes} bytes, wanted at least 1")

    tally = _Tally()
    with Spool(scratch) as spool:
        try:
            info = _spool(_in_groups(source, group), spool, tally)
        except paths.Unreachable as error:
            raise StorageError(str(error)) from error
        _check_outside(out, spool.folders)
        for name in info.split_names or ():
            check_split_name(name)
        table = spool.table()
    with contextlib.ExitStack() as stack:
        stack.callback(table.close)
        if not len(table):
            raise DataError(nothing_in(info))
        named, notes = _given_splits(table, info, splits)
        judged = _Judged(table, tally, *_faults(table, info, named, distinct=isinstance(source, Divided)))
        if has is not None:
            judged.refuse(_KNOWN, _known(judged, has))
        if group not in (None, LOOK) and not tally.grouped:
            raise UsageError(f"group is {group!r:.80}, and none of the records has one")
        points, names, pairs = _keypoints(info, judged)
        if info.class_names is not None and tally.several:
            judged.refuse(_LABELS, _strange_several(judged, info.class_names))
        if info.box_class_names is not None:
            judged.refuse(_BOX_CLASS, _strange_boxes(judged, info.box_class_names))
        classes = _class_names(info.class_names, tally)
        judged.refuse(_LABEL, _strange_labels(table, classes))
        box_classes = _box_class_names(info.box_class_names, tally)
        rows = np.flatnonzero(judged.fault == 0)
        among = tuple(fractions) if named is None else named
        near = None
        if (guard is not None or group == LOOK) and len(among) > 1:
            near = looks.groups_of(table, rows, options, workers=workers, progress=progress)
        groups = near if group == LOOK else _groups(table, rows)
        if guard == "move" and near is not None:
            groups = near if groups is None else _joined(groups, near)
        share = _share(table, rows, groups, classes, fractions, named, seed)
        if near is not None:
            notes = (*notes, *_near_notes(near, named is None and (guard == "move" or group == LOOK)))
        if guard == "move" and named is not None and groups is not None:
            share, moved = _moved(share, groups)
            notes = (*notes, f"{moved} records moved to another split, by guard='move'") if moved else notes
        elif guard in ("drop", "refuse") and near is not None:
            judged.twins = _torn_apart(table, rows, near, share, among)
            if judged.twins and guard == "refuse":
                raise DataError(_refusal(table, judged.twins))
            dropped = np.zeros(len(table), np.bool_)
            dropped[[*judged.twins]] = True
            judged.refuse(_ALIKE, dropped)
        if named is not None and groups is not None:
            notes = (*notes, *_torn(groups, share))
        refused = _write_rejects(judged, info, named, points, classes)
        stays = judged.fault[rows] == 0
        rows, share = rows[stays], share[stays]
        del judged
        counts = _write_order(table, rows, share, len(among), named is None, seed)
        if named is not None and info.split_names is None:  # one that only Rejects have is no split
            among, counts = tuple(name for name, n in zip(among, counts, strict=True) if n), [n for n in counts if n]
        for split, n in zip(among, counts, strict=True):
            if not n and len(rows):
                if named is not None:
                    raise DataError(f"split {split!r}: none of its images can be used, and it would be empty")
                whose = "records, whose groups are not cut in two," if tally.grouped else "records"
                raise UsageError(f"split {split!r}: {fractions[split]:g} of {len(rows)} {whose} is none; give it more")
        count = shards or _shards_by_size(table, rows, options, shard_bytes or DEFAULT_SHARD_BYTES)
        made: list[ShardPlan] = []
        at = 0
        for split, n in zip(among, counts, strict=True):
            of = max(1, min(n, shards or -(-n * count // max(1, len(rows)))))
            made += [
                ShardPlan(
                    name=f"{split}-{i:05d}-of-{of:05d}.tfrecord",
                    split=split,
                    start=at + n * i // of,
                    stop=at + n * (i + 1) // of,
                )
                for i in range(of)
            ]
            at += n
        plan = Plan(
            options=options,
            info=info,
            classes=classes,
            box_classes=box_classes,
            with_boxes=tally.boxed > 0,
            multi_label=tally.several > 0,
            values=tally.valued > 0,
            attributes=tally.attributes(),
            keypoints=points,
            keypoint_names=names,
            flip_pairs=pairs,
            splits=fractions if named is None else among,
            shards=tuple(made),
            table=table,
            order=Flat(_order_of(table), np.int64),
            stored=any(map(is_url, spool.folders)),
            seen=len(table),
            refused=refused,
            notes=(*info.notes, *notes),
        )
        stack.pop_all()
    return plan


def _given_splits(
    table: Table, info: SourceInfo, splits: Splits | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The names of the splits that the records say, in their order, None where packing divides; and what to say of it.

    Raises UsageError: they are asked for, and no record says one.
    """
    said = info.split_names or _in_order(table.splits)
    if splits not in (None, GIVEN):
        note = f"the source's own splits ({', '.join(said)}) are not kept, as fractions were passed (splits)"
        return None, (note,) if said else ()
    if not said and splits == GIVEN:
        raise UsageError(
            "splits is 'given', and no record of the source says its split; wanted fractions, as in "
            "splits={'train': 0.8, 'val': 0.2}"
        )
    return (said if said or table.splits else None), ()


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """What can be a split's name: train, val, test, and then the others as they come."""
    usual = [name for name in USUAL_SPLITS if name in names]
    return tuple(name for name in dict.fromkeys([*usual, *names]) if split_name_fault(name) is None)


def _check_outside(out: Location, folders: Iterable[str]) -> None:
    """Raises UsageError when an image of the source lies in the folder that would be replaced."""
    for folder in folders:
        if isinstance(out, Url) or is_url(folder):
            is_inside = f"{folder}/".startswith(f"{out}/")
        else:
            is_inside = Path(folder).resolve().is_relative_to(out.resolve())
        if is_inside:
            raise UsageError(f"{out}: images of the source lie in it ({folder}); choose another place")


class _Tally:
    """What of the records decides for all of them: which names occur, and which attributes fit their keys.

    `labels` are those of records that name no class.
    """

    def __init__(self) -> None:
        self.names, self.labels, self.box_names = Counter[str](), Counter[int](), Counter[str]()
        self.boxed = self.several = self.valued = self.grouped = 0
        self._having, self._fitting = Counter[str](), Counter[str]()

    def add(self, records: Sequence[Record]) -> None:
        self._count(records, 1)

    def remove(self, record: Record) -> None:
        """Undoes the adding of a record, which is none of the dataset after all."""
        self._count([record], -1)

    def attributes(self) -> tuple[str, ...]:
        """Those that become features: of the kind that their key has, in every record that has them."""
        return tuple(name for name in example.KEYED if 0 < self._having[name] == self._fitting[name])

    def _count(self, records: Sequence[Record], by: int) -> None:
        _shift(self.names, [r.label_name for r in records if r.label_name is not None], by)
        if several := [r.labels for r in records if r.labels is not None]:
            _shift(self.names, [name for labels in several for name in labels], by)
            self.several += by * len(several)
        self.valued += by * sum(r.value is not None for r in records)
        self.grouped += by * sum(r.group is not None for r in records)
        _shift(self.labels, [r.label for r in records if r.label_name is None and r.label is not None], by)
        _shift(self.box_names, [name for r in records if r.box_labels for name in r.box_labels], by)
        self.boxed += by * sum(r.boxes is not None for r in records)
        for record in records:
            for name in _KEYED.intersection(record.attributes) if record.attributes else ():
                objects = record.keypoints if record.boxes is None else record.boxes
                one = {name: record.attributes[name]}, 0 if objects is None else len(objects)
                self._having[name] += by
                self._fitting[name] += by * len(example.attributes_with_keys([one]))


def _shift(counter: Counter[_T], values: Sequence[_T], by: int) -> None:
    for value, n in Counter(values).items():
        counter[value] += by * n
        if not counter[value]:
            del counter[value]


def _in_groups(source: Iterable[Record | Reject], group: Group | None) -> Generator[Record | Reject, None, SourceInfo]:
    """What the source gives, each Record with its group as `group` tells it."""
    items = read(source)
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            info: SourceInfo = end.value
            return info
        if group in (None, "group", LOOK) or not isinstance(item, Record):
            yield item
            continue
        if callable(group):
            found = group(item)
        else:
            said: Any = item.attributes  # which may be no mapping: that is judged later
            found = said.get(group) if isinstance(said, Mapping) else None
        yield replace(item, group=_group_name(found))


def _group_name(found: Any) -> str | None:
    """What an attribute or a function says, as a text: the same of 7 and 7.0, which tables make of it where some rows
    have nothing, and nothing of NaN, which they have there."""
    if isinstance(found, float | np.floating):
        found = None if np.isnan(found) else int(found) if found.is_integer() else found
    return None if found is None else str(found)


def _spool(source: Iterable[Record | Reject], spool: Spool, tally: _Tally) -> SourceInfo:
    """Writes all that the source gives, and counts it. A Record that is none in itself becomes a Reject."""
    batch: list[Record | Reject] = []
    held = 0

    def flush() -> None:
        nonlocal held
        if batch:
            spool.write(batch)
            tally.add([item for item in batch if isinstance(item, Record)])
        batch.clear()
        held = 0

    items = read(source)
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            flush()
            info: SourceInfo = end.value
            return info
        if isinstance(item, Record):
            item = _sound(item)
            if isinstance(item, Record) and item.encoded is not None:
                held += len(item.encoded)
        elif not isinstance(item, Reject):
            raise UsageError(f"the source gives {item!r:.60}, wanted Records and Rejects; headrace.sources makes them")
        batch.append(item)
        if len(batch) == _BATCH or held > _BATCH_BYTES:
            flush()


def _sound(record: Record) -> Record | Reject:
    """The record, or what is wrong with it whatever the others are."""
    reason = check_record(record)
    if reason is None and type(record).read is not Record.read:
        # A subclass has bytes in its own way, which rows can't have.
        try:
            data = record.read()
        except BadImage as error:
            return rejected(record, error.stage, error.reason)
        except OSError as error:
            return rejected(record, "read", (error.strerror or str(error)).lower())
        if data is not record.encoded:
            record = replace(record, encoded=data)
            reason = check_record(record)
    if reason is None:
        return record
    # It may be the id or the origin that is none; they are shown as far as they can be.
    id_, origin = (_shown(value) for value in (record.id, record.origin))
    return Reject(id=id_ or "(no id)", origin=origin, stage="label", reason=reason)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else f"{value!r:.60}"
    return text.encode(errors="backslashreplace").decode()


def rejected(record: Record, stage: str, reason: str) -> Reject:
    """The Reject of a record whose image is at fault, with its file where the annotation is not the image itself."""
    origin, path = record.origin, record.path if record.part is None else record.part.path
    if path is not None:
        if origin in ("", record.id):
            origin = path
        else:  # a line of an annotation file: both are wanted to mend it
            reason += f": {path!r}"
    return Reject(id=record.id, origin=origin, stage=stage, reason=reason)


def _unlabelled(record: Record, reason: str, stage: str) -> Reject:
    return Reject(id=record.id, origin=record.origin, stage=stage, reason=reason)


class _Judged:
    """Why each row is no record of the dataset, uint8 [n], and for each duplicate (row, row that has its id) [m, 2].
    `twins`: row -> (row, split, own split) of a near-duplicate that stays in its place.

    What is refused counts for nothing in the `tally`.
    """

    def __init__(self, table: Table, tally: _Tally, fault: NDArray[np.uint8], duplicates: NDArray[np.int64]) -> None:
        self.table, self.tally, self.duplicates = table, tally, duplicates
        self.twins: Mapping[int, tuple[int, str, str]] = {}
        self.fault = np.where(fault == _REFUSED, fault, 0).astype(np.uint8)
        for kind in (_DUPLICATE, _CLASS, _SPLIT):
            self.refuse(kind, fault == kind)

    def refuse(self, kind: int, rows: NDArray[np.bool_]) -> None:
        """Those of these rows bool [n] that nothing else is wrong with."""
        new = rows & (self.fault == 0)
        self.fault[new] = kind
        for row in map(int, np.flatnonzero(new)):
            record = self.table[row]
            assert isinstance(record, Record)
            self.tally.remove(record)


def _faults(
    table: Table, info: SourceInfo, named: Sequence[str] | None, *, distinct: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Why each row is no record of the dataset, uint8 [n], and for each duplicate (row, row that has its id) [m, 2].

    `distinct`: an id that several splits have gets its split in front.
    """
    given = info.class_names
    # The last of each is for the code -1, of none.
    strange_name = np.array([given is not None and name not in given for name in table.names] + [False])
    strange_split = np.array([named is not None and name not in named for name in table.splits] + [named is not None])
    fault, fingerprints = np.empty(len(table), np.uint8), np.empty(len(table), np.int64)
    for where, rows in table.blocks():
        fingerprints[where] = rows["hash"]
        fault[where] = np.select(
            [(rows["flags"] & REJECT) != 0, strange_name[rows["name"]], strange_split[rows["split"]]],
            [_REFUSED, _CLASS, _SPLIT],
        )
    among = fault != _REFUSED
    if distinct:
        prefix(table, fingerprints, among)
    duplicates = array("q")
    for same in same_ids(table, fingerprints, among):
        # One that has another fault takes no id from those after it.
        first = next((row for row in same if not fault[row]), same[-1])
        for row in same[same.index(first) + 1 :]:
            fault[row] = _DUPLICATE
            duplicates.extend((row, first))
    found = np.frombuffer(duplicates, np.int64).reshape(-1, 2)
    return fault, found[np.argsort(found[:, 0])]


def _keypoints(info: SourceInfo, judged: _Judged) -> tuple[int, tuple[str, ...], mirror.Pairs]:
    """How many keypoints an object has, their names and pairs: as the source says, else as most records have them.

    Records that have another number of them are refused.
    """
    names, table = tuple(info.keypoint_names or ()), judged.table
    found: dict[int, int] = {}
    for where, rows in table.blocks():
        points = rows["points"][judged.fault[where] == 0]
        values, first, counts = np.unique(points[points >= 0], return_index=True, return_counts=True)
        for i in np.argsort(first):
            found[int(values[i])] = found.get(int(values[i]), 0) + int(counts[i])
    k = len(names) if names else max(found, key=found.__getitem__, default=0)
    if found.keys() - {k}:
        points = table.column("points")
        judged.refuse(_KEYPOINTS, (points >= 0) & (points != k))
    check_names(names, "keypoint names")
    if info.flip_pairs is None:
        return k, names, mirror.pairs(names)
    pairs = tuple((int(i), int(j)) for i, j in info.flip_pairs)
    inside = [i for pair in pairs for i in set(pair)]
    if len(set(inside)) != len(inside) or not all(0 <= i < k for i in inside):
        raise UsageError(f"flip pairs {pairs}: wanted pairs of the numbers 0 to {k - 1}, each number once")
    return k, names, pairs


def _known(judged: _Judged, has: Callable[[str], bool]) -> NDArray[np.bool_]:
    """The rows bool [n] of records whose id, as it will be, is there already."""
    known = np.zeros(len(judged.table), np.bool_)
    for where, _ in judged.table.blocks():
        rows = np.arange(len(known))[where]
        rows = rows[judged.fault[rows] == 0]
        known[rows] = [has(id_) for id_ in judged.table.ids(rows)]
    return known


def _strange_boxes(judged: _Judged, names: Sequence[str]) -> NDArray[np.bool_]:
    """The rows bool [n] with a box of a class that is none of these."""
    strange = np.zeros(len(judged.table), np.bool_)
    if unknown := judged.tally.box_names.keys() - set(names):
        for row in map(int, np.flatnonzero(judged.fault == 0)):
            record = judged.table[row]
            assert isinstance(record, Record)
            strange[row] = not unknown.isdisjoint(record.box_labels or ())
    return strange


def _strange_several(judged: _Judged, names: Sequence[str]) -> NDArray[np.bool_]:
    """The rows bool [n] of records that may have several classes, one of which is none of these."""
    strange = np.zeros(len(judged.table), np.bool_)
    if unknown := judged.tally.names.keys() - set(names):
        several = (judged.table.column("flags") & SEVERAL) != 0
        for row in map(int, np.flatnonzero(several & (judged.fault == 0))):
            record = judged.table[row]
            assert isinstance(record, Record)
            strange[row] = not unknown.isdisjoint(record.labels or ())
    return strange


def _strange_labels(table: Table, classes: Sequence[str]) -> NDArray[np.bool_]:
    """The rows bool [n] whose label is the number of no class, or of another one than they name."""
    strange = np.zeros(len(table), np.bool_)
    numbers = _numbers(table, classes)
    for where, rows in table.blocks():
        label, named = rows["label"], rows["name"] >= 0
        wrong = np.where(named, label != numbers[rows["name"]], label >= len(classes))
        strange[where] = wrong & ((rows["flags"] & LABELLED) != 0)
    return strange


def _numbers(table: Table, classes: Sequence[str]) -> NDArray[np.int32]:
    """The index of each of the table's names among the classes, -1 for none and, at the end, for the code of none."""
    index = {name: i for i, name in enumerate(classes)}
    return np.array([*(index.get(name, -1) for name in table.names), -1], np.int32)


def _write_rejects(
    judged: _Judged, info: SourceInfo, named: Sequence[str] | None, keypoints: int, classes: Sequence[str]
) -> int:
    """Writes the Rejects in the order of the source, and how many they are."""
    table, duplicates = judged.table, judged.duplicates
    n = 0

    def reason(row: int, kind: int, record: Record) -> str:
        if kind == _DUPLICATE:
            id_, origin = table.named(int(duplicates[np.searchsorted(duplicates[:, 0], row), 1]))
            return f"duplicate id {record.id!r}, first at {origin or id_}"
        if kind == _KNOWN:
            return f"duplicate id {record.id!r}, which the dataset has; drop that, or name this otherwise"
        if kind == _CLASS:
            return f"class {record.label_name!r} is none of the given {', '.join(info.class_names or ())}"
        if kind == _LABELS:
            strange = [name for name in record.labels or () if name not in (info.class_names or ())]
            return f"class {', '.join(map(repr, strange))} is none of the given {', '.join(info.class_names or ())}"
        if kind == _SPLIT:
            if record.split is None:
                return f"it says no split, and others do ({', '.join(named or ())})"
            if info.split_names is None:
                return str(split_name_fault(record.split))
            return f"split {record.split!r} is none of the source's {', '.join(info.split_names)}"
        if kind == _KEYPOINTS:
            assert record.keypoints is not None
            return str(keypoints_fault(record.keypoints, keypoints, None))
        if kind == _BOX_CLASS:
            given = info.box_class_names or ()
            unknown = sorted(set(record.box_labels or ()) - set(given))
            return f"boxes of class {', '.join(unknown)}, which is none of the source's {', '.join(given)}"
        if kind == _ALIKE:
            twin, split, _ = judged.twins[row]
            return f"a near-duplicate of {table.named(twin)[0]!r}, which stays in split {split!r} (guard='drop')"
        if record.label_name is None:
            return f"label {record.label}, wanted 0 to {len(classes) - 1}"
        return (
            f"label {record.label} with class name {record.label_name!r}, which is class "
            f"{classes.index(record.label_name)}; leave one of them out, or give class names in the order of labels"
        )

    with (table.folder / "rejects").open("wb") as file:
        for row in map(int, np.flatnonzero(judged.fault)):
            item = table[row]
            if isinstance(item, Record):
                kind = int(judged.fault[row])
                item = _unlabelled(item, reason(row, kind, item), "duplicate" if kind == _ALIKE else "label")
            file.write(line(row, item))
            n += 1
    return n


def _class_names(given: Sequence[str] | None, tally: _Tally) -> tuple[str, ...]:
    if given is not None:
        return check_names(given, "class names")
    if tally.names:
        return tuple(sorted(tally.names, key=natural))
    return tuple(str(i) for i in range(max((n for n in tally.labels if n < _MOST_CLASSES), default=-1) + 1))


def _box_class_names(given: Sequence[str] | None, tally: _Tally) -> tuple[str, ...]:
    if given is None:
        return tuple(sorted(tally.box_names, key=natural))
    return check_names(given, "box class names")


def _share(
    table: Table,
    rows: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    classes: Sequence[str],
    fractions: Mapping[str, float],
    named: Sequence[str] | None,
    seed: int,
) -> NDArray[np.int64]:
    """The number of the split of each of these rows, by the source or by fractions."""
    if named is not None:
        codes = np.array([named.index(name) if name in named else -1 for name in table.splits], np.int64)
        said: NDArray[np.int64] = codes[table.column("split")[rows]]
        return said
    if len(fractions) == 1:
        return np.zeros(len(rows), np.int64)
    if groups is None:
        share = shares(_strata(table, rows, classes), fractions, seed=seed)
    else:
        numbers = np.unique(groups, return_inverse=True)[1]
        share = grouped_shares(_strata(table, rows, classes), numbers, fractions, seed=seed)
    share[share < 0] = len(fractions) - 1  # what rounding of the fractions leaves over
    return share


def _write_order(
    table: Table, rows: NDArray[np.int64], share: NDArray[np.int64], n: int, together: bool, seed: int
) -> list[int]:
    """Writes these rows in the order of packing, one split after the other, of `n`; how many each has.

    They are shuffled `together`, or each split in the order that it would have alone.
    """
    counts = np.bincount(share, minlength=n).tolist()
    share = share.astype(np.int32)
    with _order_of(table).open("wb") as file:
        file.truncate(len(rows) * 8)
        ends = np.cumsum([0, *counts])[:-1]

        def put(split: int, some: NDArray[np.int64]) -> None:
            file.seek(8 * int(ends[split]))
            file.write(some.tobytes())
            ends[split] += len(some)

        if together:
            for some in _shuffled(len(rows), seed):
                for split in range(n):
                    put(split, rows[some[share[some] == split]])
        else:
            for split in range(n):
                members = rows[share == split]
                for some in _shuffled(len(members), seed):
                    put(split, members[some])
    return list(map(int, counts))


def _order_of(table: Table) -> Path:
    return table.folder / "order"


def _strata(table: Table, rows: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """A number for the class of each of these rows, or for all that it has; the same where they are the same."""
    codes = _numbers(table, classes)
    out = np.empty(len(table), np.int64)
    several = False
    for where, some in table.blocks():
        numbered = (some["flags"] & (LABELLED | SEVERAL)) != 0
        several = several or bool((some["flags"] & SEVERAL).any())
        out[where] = np.where(some["name"] < 0, np.where(numbered, some["label"], -1), codes[some["name"]])
    out = out if len(rows) == len(out) else out[rows]
    return np.unique(out, return_inverse=True)[1] if several else out


def _groups(table: Table, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """A number for the group of each of these rows, one of its own for a row without; None where no row has one."""
    keys, flags = table.column("group")[rows], table.column("flags")[rows]
    grouped = (flags & GROUPED) != 0
    if not grouped.any():
        return None
    groups = np.empty(len(rows), np.int64)
    _, first, of = np.unique(keys[grouped], return_index=True, return_inverse=True)
    groups[grouped] = np.argsort(np.argsort(first))[of]  # by who comes first, whatever the keys are
    groups[~grouped] = len(first) + np.arange(int((~grouped).sum()))
    return groups


def _torn(groups: NDArray[np.int64], share: NDArray[np.int64]) -> list[str]:
    """What to say of groups [n] that lie in several splits, where the source itself divides."""
    torn = len(_in_several(groups, share))
    return [f"{torn} groups have records in several of the source's own splits"] if torn else []


def _in_several(groups: NDArray[np.int64], share: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups, ascending, that have records in several splits."""
    of, counts = np.unique(np.unique(np.stack([groups, share]), axis=1)[0], return_counts=True)
    several: NDArray[np.int64] = of[counts > 1]
    return several


def _joined(one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of records that are of one group [n] by the one or by the other, int64 [n]."""
    groups = alike.Groups(len(one))
    for of in (one, two):
        by = np.argsort(of, kind="stable")
        same = np.flatnonzero(of[by][1:] == of[by][:-1])
        groups.join(np.stack([by[same], by[same + 1]], axis=1).tolist())
    return groups.of()


def _near_notes(near: NDArray[np.int64], together: bool) -> list[str]:
    """What to say of the near-duplicates [n] that were found."""
    sizes = np.bincount(near)
    n, k = int(sizes[sizes > 1].sum()), int((sizes > 1).sum())
    return [f"{n} near-duplicates in {k} groups{', each of which is in one split' if together else ''}"] if n else []


def _moved(share: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The splits [n] once each group is as a whole where most of it was, in the first such split; and how many records
    were moved."""
    out = share.copy()
    for members in _members(groups, _in_several(groups, share)):
        out[members] = np.bincount(share[members]).argmax()
    return out, int((out != share).sum())


def _members(groups: NDArray[np.int64], some: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The members of each of some groups, ascending."""
    by = np.argsort(groups, kind="stable")
    ends = (np.searchsorted(groups[by], some, side=side) for side in ("left", "right"))
    for begin, end in zip(*ends, strict=True):
        yield by[begin:end]


def _torn_apart(
    table: Table, rows: NDArray[np.int64], near: NDArray[np.int64], share: NDArray[np.int64], among: Sequence[str]
) -> dict[int, tuple[int, str, str]]:
    """Of near-duplicates in several splits those that are not in the last of them, which is that of data to be judged
    by: row -> (row of one that is there, its split, the row's own split)."""
    found = {}
    for members in _members(near, _in_several(near, share)):
        last = int(share[members].max())
        twin = int(rows[members[share[members] == last][0]])
        for i in members[share[members] != last].tolist():
            found[int(rows[i])] = (twin, among[last], among[int(share[i])])
    return found


def _refusal(table: Table, twins: Mapping[int, tuple[int, str, str]]) -> str:
    first = [
        f"{table.named(row)[0]!r} ({own}) and {table.named(twin)[0]!r} ({split})"
        for row, (twin, split, own) in [*twins.items()][:_FIRST]
    ]
    more = "; …" if len(twins) > _FIRST else ""
    return (
        f"{len(twins)} records have a near-duplicate in another split: {'; '.join(first)}{more}. Nothing was packed; "
        "keep each group in one split by guard='move', or leave these records out by guard='drop'"
    )


_FIRST = 3  # pairs that are shown


def _shuffled(n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The order of `n` records on disk, int64, some at a time."""
    for start in range(0, n, order.CHUNK):
        # Another epoch than the shares', so that the order inside a split owes nothing to how it was drawn.
        yield order.permute(np.arange(start, min(n, start + order.CHUNK)), n=n, seed=seed, epoch=1)


def _shards_by_size(table: Table, rows: NDArray[np.int64], options: ImageOptions, shard_bytes: int) -> int:
    """How many shards of about `shard_bytes` all records make, judged by a sample that is prepared for it."""
    sizes = []
    for row in rows[:: max(1, len(rows) // _SAMPLE)].tolist():
        record = table[row]
        assert isinstance(record, Record)
        try:
            made = prepare(
                record.read(), options, measured_in=record.size, upright=record.upright, window=record.window
            )
            sizes.append(len(made.encoded) + _RECORD_OVERHEAD)
        except StorageError:
            raise
        except (BadImage, OSError):
            continue
    if not sizes:
        return 1
    return min(99999, max(1, round(sum(sizes) / len(sizes) * len(rows) / shard_bytes)))
