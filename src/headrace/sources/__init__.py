"""Sources: annotations -> Record | Reject. One file per format, nothing else; a source knows nothing of packing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from headrace.record import Record, Reject
from headrace.sources.arrays import arrays
from headrace.sources.coco import coco
from headrace.sources.folders import folders
from headrace.sources.names import names
from headrace.sources.visipedia import visipedia
from headrace.sources.wider import wider


class Source(Protocol):
    """What packing takes: whatever gives Records and Rejects. A list of them will do, or a generator.

    It may also say something of all of them, in attributes that it need not have. Before it is read it is asked for
    `class_names`: all classes in index order, a Record of another one becomes a Reject (None or without it: the names
    that occur, sorted); `split_names`: the data comes divided into these, and each Record says its `split`.
    When it was read to its end, for
    `box_class_names`: the same of what boxes hold, but another one is an error.
    `keypoint_names`: of an object's keypoints, in their order; `flip_pairs`: (i, j) that a mirror swaps, (i, i) for one
    that stays itself (None or without it: told from the names).
    `dropped`, `keypoints_dropped`: reason -> how many boxes, and labelled keypoints, the Records come without.
    `skipped`: kind -> how many things were passed over; `root`: what to call the source when it held nothing.
    """

    def __iter__(self) -> Iterator[Record | Reject]:
        """All of it, from the first to the last. What can't be used is a Reject with its place; raises DataError when
        going on makes no sense."""
        ...


__all__ = ["Source", "arrays", "coco", "folders", "names", "visipedia", "wider"]
