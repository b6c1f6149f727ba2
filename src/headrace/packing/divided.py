"""Data that comes divided: a source per split as one source. Where its records go is left to the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, UsageError
from headrace.packing.spool import Table, hashes
from headrace.record import Record, Reject
from headrace.sources import info
from headrace.sources.info import SourceInfo
from headrace.splits import check_split_name

_BLOCK = 1 << 16  # rows that are looked at together

# What a source may say of all its records, and what to do where two say different things.
_SAID = {
    "class_names": "pass each the same class_names",
    "box_class_names": "they must name the same classes in the same order",
    "keypoint_names": "pass each the same keypoint_names, or mend the files",
    "flip_pairs": "pass each the same flip_pairs",
}


class Divided:
    """Iterable of Record | Reject out of `sources` (split -> source), each Record with its split.

    What sources say of all their records (classes, keypoints) must be the same wherever it is said; what they counted
    is summed. An id that several splits have is left to `prefix`, which can see them all.
    Raises UsageError: no split at all, a name that is none; and, read to the end, where two sources say different
    things. Iterating raises DataError: a source gives no Record.
    """

    def __init__(self, sources: Mapping[str, Iterable[Record | Reject]]) -> None:
        if not sources:
            raise UsageError("no source: wanted one, or one per split, as in {'train': a, 'val': b}")
        for name in sources:
            check_split_name(name)
        self.sources = dict(sources)
        self.split_names = tuple(sources)

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        said: dict[str, SourceInfo] = {}
        for split, source in self.sources.items():
            said[split] = yield from _of_split(split, source)
        return SourceInfo(
            class_names=_agreed(said, "class_names"),
            box_class_names=_agreed(said, "box_class_names"),
            keypoint_names=_agreed(said, "keypoint_names"),
            flip_pairs=_agreed(said, "flip_pairs"),
            split_names=self.split_names,
            boxes_dropped=_sum(one.boxes_dropped for one in said.values()),
            keypoints_dropped=_sum(one.keypoints_dropped for one in said.values()),
            skipped=_sum(one.skipped for one in said.values()),
            numbered=any(one.numbered for one in said.values()),
            notes=tuple(f"{split}: {note}" for split, one in said.items() for note in one.notes),
        )


def nothing_in(said: SourceInfo) -> str:
    """What to say of a source that has given nothing."""
    skipped = ", ".join(f"{n} {kind}" for kind, n in said.skipped.items())
    return f"{said.root or 'the source'}: holds no images{f' (passed over: {skipped})' if skipped else ''}"


def prefix(table: Table, fingerprints: NDArray[np.int64], among: NDArray[np.bool_]) -> None:
    """Puts the split in front of each id that several splits have, and of those that one of these becomes by it.

    `fingerprints` are the `hash` of the table's rows, and follow, so that none is looked at again; `among`: which of
    them are Records.
    """
    splits = table.column("split")
    changed = np.zeros(len(table), np.bool_)
    of = memoryview(splits.data)
    for rows in same_ids(table, fingerprints, among):
        if len({of[row] for row in rows}) > 1:
            changed[rows] = True
    new = np.flatnonzero(changed)
    while len(new):
        # Ids as they will be, that others may have already.
        made = np.empty(len(new), np.int64)
        for start in range(0, len(new), _BLOCK):
            made[start : start + _BLOCK] = hashes(_prefixed(table, splits, new[start : start + _BLOCK]))
        like = rows_of(fingerprints, np.unique(made))
        like = like[among[like] & ~changed[like]]
        ids = {*_prefixed(table, splits, new[np.isin(made, fingerprints[like])])}
        fingerprints[new] = made
        new = like[np.array([id_ in ids for id_ in table.ids(like)], np.bool_)]
        changed[new] = True
    prefixed = np.flatnonzero(changed)
    if len(prefixed):
        table.prefix(prefixed)


def same_ids(table: Table, fingerprints: NDArray[np.int64], among: NDArray[np.bool_]) -> Iterator[list[int]]:
    """The rows, ascending, that have the same id, for each id that several rows `among` these have."""
    found = np.sort(fingerprints)
    again = np.unique(found[1:][found[1:] == found[:-1]])
    del found
    rows = rows_of(fingerprints, again)
    rows = rows[among[rows]]
    rows = rows[np.argsort(fingerprints[rows], kind="stable")]
    by_id: dict[str, list[int]] = {}
    last = None
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        for row, id_, fingerprint in zip(some.tolist(), table.ids(some), fingerprints[some].tolist(), strict=True):
            if fingerprint != last:
                yield from (same for same in by_id.values() if len(same) > 1)
                by_id, last = {}, fingerprint
            by_id.setdefault(id_, []).append(row)
    yield from (same for same in by_id.values() if len(same) > 1)


def rows_of(fingerprints: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers int64 [m], ascending, of the fingerprints that are among the `wanted`, ascending."""
    if not len(wanted):
        return np.zeros(0, np.int64)
    out = []
    for start in range(0, len(fingerprints), _BLOCK):
        some = fingerprints[start : start + _BLOCK]
        place = np.minimum(np.searchsorted(wanted, some), len(wanted) - 1)
        out.append(start + np.flatnonzero(wanted[place] == some))
    return np.concatenate(out)


def _prefixed(table: Table, splits: NDArray[np.int32], rows: NDArray[np.int64]) -> list[str]:
    """The ids of these rows with their splits in front."""
    return [f"{table.splits[split]}/{id_}" for split, id_ in zip(splits[rows].tolist(), table.ids(rows), strict=True)]


def _of_split(split: str, source: Iterable[Record | Reject]) -> Generator[Record | Reject, None, SourceInfo]:
    """What the source gives, each Record with the split. Raises DataError: no Record."""
    rejects = records = 0
    first: Reject | None = None
    items = info.read(source)
    while True:
        try:
            item = next(items)
        except StopIteration as end:
            said: SourceInfo = end.value
            break
        if isinstance(item, Record):
            records += 1
            item = replace(item, split=split)
        elif isinstance(item, Reject):
            rejects, first = rejects + 1, first or item
        yield item
    if not records and not rejects:
        raise DataError(f"split {split!r}: {nothing_in(said)}")
    if not records:
        raise DataError(f"split {split!r}: none of its {rejects} records can be used; the first: {first}")
    return said


def _agreed(said: Mapping[str, SourceInfo], name: str) -> Any:
    """What the sources say of this, None where none does. Raises UsageError with both where two don't agree."""
    first: tuple[str, tuple[Any, ...]] | None = None
    for split, one in said.items():
        found = getattr(one, name)
        if found is None:
            continue
        if first is not None and found != first[1]:
            raise UsageError(
                f"{name} of split {first[0]!r} are {_listed(first[1])}, those of split {split!r} {_listed(found)}; "
                f"one dataset has one list: {_SAID[name]}"
            )
        first = first or (split, found)
    return None if first is None else first[1]


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def _listed(names: tuple[Any, ...]) -> str:
    return ", ".join(map(str, names)) or "none"
