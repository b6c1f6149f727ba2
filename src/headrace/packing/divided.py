"""Data that comes divided: a source per split as one source. Where its records go is left to the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from headrace.errors import DataError, UsageError
from headrace.packing.plan import nothing_in
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo, collect

# What a source may say of all its records, and what to do where two say different things.
_SAID = {
    "class_names": "pass each the same class_names",
    "box_class_names": "they must name the same classes in the same order",
    "keypoint_names": "pass each the same keypoint_names, or mend the files",
    "flip_pairs": "pass each the same flip_pairs",
}


class Divided:
    """Iterable of Record | Reject out of `sources` (split -> source), each Record with its split.

    An id that several splits have gets its split in front in all of them: `train/a.jpg`, `val/a.jpg`. What sources say
    of all their records (classes, keypoints) must be the same wherever it is said; what they counted is summed.
    Raises UsageError: no split at all.
    """

    def __init__(self, sources: Mapping[str, Iterable[Record | Reject]]) -> None:
        if not sources:
            raise UsageError("no source: wanted one, or one per split, as in {'train': a, 'val': b}")
        self.sources = dict(sources)

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        """Raises DataError: a source gives no Record; UsageError: two sources say different things."""
        read: dict[str, list[Record | Reject]] = {}
        infos: dict[str, SourceInfo] = {}
        for split, source in self.sources.items():
            read[split], infos[split] = collect(source)
            if not read[split]:
                raise DataError(f"split {split!r}: {nothing_in(infos[split])}")
            if all(isinstance(item, Reject) for item in read[split]):
                n, first = len(read[split]), read[split][0]
                raise DataError(f"split {split!r}: none of its {n} records can be used; the first: {first}")
        said = {name: _said(name, infos) for name in _SAID}
        several = _in_several(
            {split: {item.id for item in items if isinstance(item, Record)} for split, items in read.items()}
        )
        for split, items in read.items():
            for item in items:
                if isinstance(item, Record):
                    item = replace(item, split=split)
                    if item.id in several:
                        id_ = f"{split}/{item.id}"
                        item = replace(item, id=id_, origin=id_ if item.origin == item.id else item.origin)
                yield item
        return SourceInfo(
            **said,
            split_names=tuple(self.sources),
            boxes_dropped=_sum(info.boxes_dropped for info in infos.values()),
            keypoints_dropped=_sum(info.keypoints_dropped for info in infos.values()),
            skipped=_sum(info.skipped for info in infos.values()),
        )


def _said(name: str, infos: Mapping[str, SourceInfo]) -> Any:
    """What the sources say of this, None where none does. Raises UsageError with both where two don't agree."""
    first: tuple[str, Any] | None = None
    for split, info in infos.items():
        found = getattr(info, name)
        if first is not None and found not in (None, first[1]):
            raise UsageError(
                f"{name} of split {first[0]!r} are {_listed(first[1])}, those of split {split!r} {_listed(found)}; "
                f"one dataset has one list: {_SAID[name]}"
            )
        if first is None and found is not None:
            first = (split, found)
    return None if first is None else first[1]


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return total


def _in_several(ids: Mapping[str, set[str]]) -> set[str]:
    """The ids that more than one split has, and those that one of these would become with its split in front."""
    counts = Counter(id_ for some in ids.values() for id_ in some)
    found, new = set[str](), {id_ for id_, n in counts.items() if n > 1}
    while new:
        found |= new
        made = {f"{split}/{id_}" for split, some in ids.items() for id_ in new & some}
        new = (made & counts.keys()) - found
    return found


def _listed(names: tuple[Any, ...]) -> str:
    return ", ".join(map(str, names)) or "none"
