"""The plan: every decision of a packing before any pixel is touched: classes, splits, order, shards.

A plan is plain data, can be pickled, and says all that a worker anywhere needs to make shard i.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DataError, UsageError
from headrace.format import example
from headrace.imaging import mirror
from headrace.imaging.codec import BadImage
from headrace.imaging.prepare import ImageOptions, prepare
from headrace.record import Keypoints, Record, Reject
from headrace.sources.files import natural
from headrace.sources.info import SourceInfo, collect
from headrace.splits import check_split_name, check_splits, shares

DEFAULT_SHARD_BYTES = 128 * 10**6
_SAMPLE = 64
_RECORD_OVERHEAD = 700  # what a record has besides its image, about


@dataclass(frozen=True, slots=True)
class Numbered:
    """Something a source yielded, with its place in the source: 0 for the first."""

    number: int
    item: Record | Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One shard to be made: its file name, its split, and its records in their order."""

    name: str
    split: str
    records: tuple[Numbered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`classes`, `box_classes` in index order; `rejects` are the source's own and those the plan makes.

    `splits`: name -> fraction, or the names alone where the source's records say their split.

    `info`: what the source said of the whole.

    `attributes`: those that become features of the records, besides being in the catalog. `keypoints`: how many an
    object has, 0 where there are none; their names, empty when nobody says them, and the pairs of them that a mirror
    swaps.
    """

    options: ImageOptions
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    with_boxes: bool
    attributes: tuple[str, ...]
    keypoints: int
    keypoint_names: tuple[str, ...]
    flip_pairs: mirror.Pairs
    splits: Mapping[str, float] | tuple[str, ...]
    shards: tuple[ShardPlan, ...]
    rejects: tuple[Numbered, ...]
    seen: int
    info: SourceInfo


def make_plan(
    source: Iterable[Record | Reject],
    *,
    options: ImageOptions,
    splits: Mapping[str, float] | None,
    shards: int | None,
    shard_bytes: int | None,
    seed: int,
) -> Plan:
    """Reads the source to its end and decides. Raises UsageError, DataError (nothing in it, or in a split).

    A source that says its `split_names`, in their order, gives Records that say their split; then `splits` is None.
    """
    fractions = check_splits(splits)
    if shards is not None and shard_bytes is not None:
        raise UsageError("give shards or a shard size, not both")
    if shards is not None and not 1 <= shards <= 99999:
        raise UsageError(f"shards is {shards}, wanted 1 to 99999")
    if shard_bytes is not None and shard_bytes < 1:
        raise UsageError(f"the shard size is {shard_bytes} bytes, wanted at least 1")

    records, rejects, info = _read(source)
    named, given = info.split_names, info.class_names
    for name in named or ():
        check_split_name(name)
    if named is not None and splits is not None:
        raise UsageError(f"the source comes divided into {', '.join(named)} already; leave splits out")
    points, names, pairs = _keypoints(info, records)
    records, rejects = _with_sound_keypoints(records, rejects, points)
    seen = len(records) + len(rejects)
    if not seen:
        raise DataError(nothing_in(info))
    box_classes = _box_class_names(info.box_class_names, records)
    classes = _class_names(given, records)
    index = {name: i for i, name in enumerate(classes)}
    items = [_labelled(record, classes, index) for record in records]
    planned = _divide(items, fractions, seed) if named is None else _as_said(items, named, seed)
    for split, members in planned.items():
        if not members and items:
            if named is not None:
                raise DataError(f"split {split!r}: none of its images can be used, and it would be empty")
            raise UsageError(f"split {split!r}: {fractions[split]:g} of {len(items)} records is none; give it more")
    count = shards or _shards_by_size(items, options, shard_bytes or DEFAULT_SHARD_BYTES)
    made: list[ShardPlan] = []
    for split, members in planned.items():
        n = max(1, min(len(members), shards or -(-len(members) * count // max(1, len(items)))))
        made += [
            ShardPlan(
                name=f"{split}-{i:05d}-of-{n:05d}.tfrecord",
                split=split,
                records=tuple(members[len(members) * i // n : len(members) * (i + 1) // n]),
            )
            for i in range(n)
        ]
    return Plan(
        options=options,
        classes=classes,
        box_classes=box_classes,
        with_boxes=any(numbered.item.boxes is not None for numbered in items),  # type: ignore[union-attr]
        attributes=example.attributes_with_keys(_attributes(items)),
        keypoints=points,
        keypoint_names=names,
        flip_pairs=pairs,
        splits=fractions if named is None else named,
        shards=tuple(made),
        rejects=tuple(rejects),
        seen=seen,
        info=info,
    )


def nothing_in(info: SourceInfo) -> str:
    """What to say of a source that has given nothing."""
    also = f" (passed over: {', '.join(f'{n} {ext}' for ext, n in info.skipped.items())})" if info.skipped else ""
    return f"{info.root or 'the source'}: holds no images{also}"


def _read(source: Iterable[Record | Reject]) -> tuple[list[Numbered], list[Numbered], SourceInfo]:
    """Records and Rejects of the source, numbered, and what it says of the whole. A second record of an id, a class not
    among the given and a split not among the source's reject."""
    items, info = collect(source)
    given, splits = info.class_names, info.split_names
    records: list[Numbered] = []
    rejects: list[Numbered] = []
    first: dict[str, str] = {}
    known = frozenset(given or ())
    for number, item in enumerate(items):
        if isinstance(item, Record):
            reason = None
            if item.id in first:
                reason = f"duplicate id {item.id!r}, first at {first[item.id]}"
            elif given is not None and item.label_name is not None and item.label_name not in known:
                reason = f"class {item.label_name!r} is none of the given {', '.join(given)}"
            elif item.label_name is not None and "\n" in item.label_name:
                reason = f"class name {item.label_name!r} holds a line break"
            elif splits is not None and item.split not in splits:
                reason = f"split {item.split!r} is none of the source's {', '.join(splits)}"
            if reason is None:
                first[item.id] = item.origin or item.id
                records.append(Numbered(number, item))
                continue
            item = Reject(id=item.id, origin=item.origin, stage="label", reason=reason)
        elif not isinstance(item, Reject):
            raise UsageError(f"the source gives {item!r:.60}, wanted Records and Rejects; headrace.sources makes them")
        rejects.append(Numbered(number, item))
    return records, rejects, info


def _attributes(items: Iterable[Numbered]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """(attributes, number of objects) of each record."""
    for numbered in items:
        record = numbered.item
        assert isinstance(record, Record)
        objects = record.keypoints if record.boxes is None else record.boxes
        yield record.attributes, 0 if objects is None else len(objects)


def _keypoints(info: SourceInfo, records: Sequence[Numbered]) -> tuple[int, tuple[str, ...], mirror.Pairs]:
    """How many keypoints an object has, their names and pairs: as the source says, else as most records have them."""
    names = info.keypoint_names or ()
    found = Counter(
        points.shape[1]
        for numbered in records
        if (points := numbered.item.keypoints) is not None and points.ndim == 3  # type: ignore[union-attr]
    )
    k = len(names) if names else max(found, key=found.__getitem__, default=0)
    if len(set(names)) != len(names):
        raise UsageError(f"keypoint names {', '.join(names)}: one occurs twice")
    if info.flip_pairs is None:
        return k, names, mirror.pairs(names)
    pairs = info.flip_pairs
    inside = [i for pair in pairs for i in set(pair)]
    if len(set(inside)) != len(inside) or not all(0 <= i < k for i in inside):
        raise UsageError(f"flip pairs {pairs}: wanted pairs of the numbers 0 to {k - 1}, each number once")
    return k, names, pairs


def _with_sound_keypoints(
    records: list[Numbered], rejects: list[Numbered], k: int
) -> tuple[list[Numbered], list[Numbered]]:
    """Records whose keypoints are `k` sound ones, or none, and Rejects with those that were no such records."""
    sound: list[Numbered] = []
    for numbered in records:
        record = numbered.item
        assert isinstance(record, Record)
        boxes = None if record.boxes is None else len(record.boxes)
        if record.keypoints is None or (reason := _fault(record.keypoints, k, boxes)) is None:
            sound.append(numbered)
        else:
            refused = Reject(id=record.id, origin=record.origin, stage="label", reason=reason)
            rejects.append(Numbered(numbered.number, refused))
    return sound, sorted(rejects, key=lambda numbered: numbered.number)


def _fault(points: Keypoints, k: int, boxes: int | None) -> str | None:
    """What is wrong with the keypoints of a record that has so many boxes."""
    if points.ndim != 3 or points.shape[2] != 3:
        return f"the keypoints have shape {list(points.shape)}, wanted [n, k, 3]"
    if points.shape[1] != k:
        return f"{points.shape[1]} keypoints per object, in this dataset they are {k}"
    if boxes is not None and len(points) != boxes:
        return f"{boxes} boxes, {len(points)} sets of keypoints"
    for of, number in np.argwhere(~np.isfinite(points).all(axis=2)).tolist():
        return f"keypoint {number} of object {of} is {points[of, number].tolist()}, wanted finite numbers"
    for of, number in np.argwhere(~np.isin(points[..., 2], (0, 1, 2))).tolist():
        return f"keypoint {number} of object {of} has v {points[of, number, 2]:g}, wanted 0, 1 or 2"
    return None


def _class_names(given: Sequence[str] | None, records: Sequence[Numbered]) -> tuple[str, ...]:
    if given is not None:
        if len(set(given)) != len(given):
            raise UsageError(f"class names {', '.join(given)}: one occurs twice")
        return tuple(given)
    names = {r.item.label_name for r in records if r.item.label_name is not None}  # type: ignore[union-attr]
    if names:
        return tuple(sorted(names, key=natural))
    top = max((r.item.label for r in records if r.item.label is not None), default=-1)  # type: ignore[union-attr]
    return tuple(str(i) for i in range(top + 1))


def _box_class_names(given: Sequence[str] | None, records: Sequence[Numbered]) -> tuple[str, ...]:
    names = {name for numbered in records for name in numbered.item.box_labels or ()}  # type: ignore[union-attr]
    if given is None:
        return tuple(sorted(names, key=natural))
    if unknown := sorted(names.difference(given)):
        raise UsageError(f"boxes of class {', '.join(unknown)}, which is none of the source's {', '.join(given)}")
    return tuple(given)


def _labelled(numbered: Numbered, classes: Sequence[str], index: Mapping[str, int]) -> Numbered:
    """The record with both its class's name and index, or neither."""
    record = numbered.item
    assert isinstance(record, Record)
    if record.label_name is not None:
        return Numbered(numbered.number, replace(record, label=index[record.label_name]))
    if record.label is None:
        return numbered
    if not 0 <= record.label < len(classes):
        raise UsageError(f"record {record.id!r}: label {record.label}, wanted 0 to {len(classes) - 1}")
    return Numbered(numbered.number, replace(record, label_name=classes[record.label]))


def _divide(items: Sequence[Numbered], fractions: Mapping[str, float], seed: int) -> dict[str, list[Numbered]]:
    labels = [item.item.label for item in items]  # type: ignore[union-attr]
    strata = np.array([-1 if label is None else label for label in labels], np.int64)
    share = shares(strata, fractions, seed=seed)
    names = list(fractions)
    out: dict[str, list[Numbered]] = {name: [] for name in names}
    for i in _shuffled(len(items), seed):
        out[names[share[i]]].append(items[i])
    return out


def _as_said(items: Sequence[Numbered], names: Sequence[str], seed: int) -> dict[str, list[Numbered]]:
    """The records by their split; each split in the order that it would have alone."""
    members: dict[str, list[Numbered]] = {name: [] for name in names}
    for item in items:
        members[item.item.split].append(item)  # type: ignore[union-attr,index]
    return {name: [some[i] for i in _shuffled(len(some), seed)] for name, some in members.items()}


def _shuffled(n: int, seed: int) -> NDArray[np.int64]:
    """The order of `n` records on disk, int64 [n]."""
    # Another epoch than the shares', so that the order inside a split owes nothing to how it was drawn.
    return order.permute(np.arange(n), n=n, seed=seed, epoch=1)


def _shards_by_size(items: Sequence[Numbered], options: ImageOptions, shard_bytes: int) -> int:
    """How many shards of about `shard_bytes` all records make, judged by a sample that is prepared for it."""
    sizes = []
    for numbered in items[:: max(1, len(items) // _SAMPLE)]:
        record = numbered.item
        assert isinstance(record, Record)
        try:
            made = prepare(record.read(), options, measured_in=record.size, window=record.window)
            sizes.append(len(made.encoded) + _RECORD_OVERHEAD)
        except (BadImage, OSError):
            continue
    if not sizes:
        return 1
    return min(99999, max(1, round(sum(sizes) / len(sizes) * len(items) / shard_bytes)))
