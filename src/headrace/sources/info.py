"""What a source knows of all its records together: one value, given when the source was read to its end."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.record import Record, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a source says of the whole, counts and all, of one reading. None, or empty, where it says nothing.

    `class_names`: all classes in index order; a Record of another one becomes a Reject. `box_class_names`: the same of
    what boxes hold. `keypoint_names`: of an object's keypoints, in their order; `flip_pairs`: (i, j) that a mirror
    swaps, (i, i) for one that stays itself. `split_names`: the data comes divided into these, and each Record says its
    `split`. `boxes_dropped`, `keypoints_dropped`: reason -> how many boxes, and labelled keypoints, the Records come
    without. `skipped`: kind -> how many things were passed over. `root`: what to call the source in a message.
    `numbered`: ids are mere positions, which mean nothing elsewhere. `notes`: what the source took for granted, a
    sentence each, to be said aloud.
    """

    class_names: tuple[str, ...] | None = None
    box_class_names: tuple[str, ...] | None = None
    keypoint_names: tuple[str, ...] | None = None
    flip_pairs: tuple[tuple[int, int], ...] | None = None
    split_names: tuple[str, ...] | None = None
    boxes_dropped: Mapping[str, int] = field(default_factory=dict)
    keypoints_dropped: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    root: str | None = None
    numbered: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Copies: what a source goes on counting with, or a list that another holds, can't change them any more.
        for name in ("class_names", "box_class_names", "keypoint_names", "split_names"):
            if (names := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(names))
        if self.flip_pairs is not None:
            object.__setattr__(self, "flip_pairs", tuple((int(i), int(j)) for i, j in self.flip_pairs))
        object.__setattr__(self, "notes", tuple(self.notes))
        for name in ("boxes_dropped", "keypoints_dropped", "skipped"):
            object.__setattr__(self, name, dict(getattr(self, name)))


def read(source: Iterable[Record | Reject]) -> Generator[Record | Reject, None, SourceInfo]:
    """The Records and Rejects of any iterable; the generator returns what it said of the whole, if anything."""
    items: Any = iter(source)
    info = yield from items  # a list, or a generator that says nothing, returns None
    return info if isinstance(info, SourceInfo) else SourceInfo()


def collect(source: Iterable[Record | Reject]) -> tuple[list[Record | Reject], SourceInfo]:
    """All that a source gives, in memory, and what it says of the whole."""
    items: list[Record | Reject] = []
    reading = read(source)
    while True:
        try:
            items.append(next(reading))
        except StopIteration as end:
            info: SourceInfo = end.value
            return items, info
