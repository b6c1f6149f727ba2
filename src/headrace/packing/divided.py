"""Data that comes divided: a source per split as one source. Where its records go is left to the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from headrace.errors import DataError, UsageError
from headrace.packing.plan import nothing_in
from headrace.record import Record, Reject

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
    Raises UsageError: no split at all; and where two sources say different things.
    """

    def __init__(self, sources: Mapping[str, Iterable[Record | Reject]]) -> None:
        if not sources:
            raise UsageError("no source: wanted one, or one per split, as in {'train': a, 'val': b}")
        self.sources = dict(sources)
        self.split_names = tuple(sources)

    def __iter__(self) -> Iterator[Record | Reject]:
        """Raises DataError: a source gives no Record."""
        read: dict[str, list[Record | Reject]] = {}
        for split, source in self.sources.items():
            read[split] = list(source)
            if not read[split]:
                raise DataError(f"split {split!r}: {nothing_in(source)}")
            if all(isinstance(item, Reject) for item in read[split]):
                n, first = len(read[split]), read[split][0]
                raise DataError(f"split {split!r}: none of its {n} records can be used; the first: {first}")
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

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self._said("class_names")

    @property
    def box_class_names(self) -> tuple[str, ...] | None:
        return self._said("box_class_names")

    @property
    def keypoint_names(self) -> tuple[str, ...] | None:
        return self._said("keypoint_names")

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...] | None:
        return self._said("flip_pairs")

    @property
    def dropped(self) -> Counter[str]:
        return self._counted("dropped")

    @property
    def keypoints_dropped(self) -> Counter[str]:
        return self._counted("keypoints_dropped")

    @property
    def skipped(self) -> Counter[str]:
        return self._counted("skipped")

    def _said(self, name: str) -> tuple[Any, ...] | None:
        """What the sources say of this, None where none does. Raises UsageError with both where two don't agree."""
        first: tuple[str, tuple[Any, ...]] | None = None
        for split, source in self.sources.items():
            if (found := getattr(source, name, None)) is None:
                continue
            said = tuple(tuple(one) if isinstance(one, list) else one for one in found)
            if first is not None and said != first[1]:
                raise UsageError(
                    f"{name} of split {first[0]!r} are {_listed(first[1])}, those of split {split!r} {_listed(said)}; "
                    f"one dataset has one list: {_SAID[name]}"
                )
            first = first or (split, said)
        return None if first is None else first[1]

    def _counted(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for source in self.sources.values():
            total.update(getattr(source, name, {}))
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
