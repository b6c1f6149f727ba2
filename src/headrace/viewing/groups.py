"""Groups of records whose images are the same, or copies of each other, as rows; what they are says `duplicates`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.checking.duplicates import duplicates
from headrace.load.dataset import Dataset

AT_ONCE = 5_000  # images that are decoded without being asked for, where the catalog doesn't say how they look


@dataclass(frozen=True, slots=True)
class Group:
    """Rows int64 [k >= 2] of the catalog whose images are `equal` or `near` (kind). `splits`: they lie in more than
    one; `labels`: they have different classes."""

    kind: str
    rows: NDArray[np.int64]
    splits: bool
    labels: bool


def is_quick(dataset: Dataset) -> bool:
    """Whether the groups can be told without decoding more than AT_ONCE images."""
    if dataset.keeps or len(dataset) <= AT_ONCE:
        return True
    known = dataset.store.table.frame(["sha256", "look"], dataset.some_rows)
    return known["sha256"].null_count() == known["look"].null_count() == 0


def groups(dataset: Dataset) -> list[Group]:
    """All groups of this view: those across splits first, then those whose labels contradict. Raises DamageError."""
    if dataset.keeps or not len(dataset):
        return []
    found = []
    for group in duplicates(dataset, progress=False).groups:
        rows = [row for image in group.images if (row := dataset.store.row_of(image.id)) is not None]
        found.append(Group(group.kind, np.array(rows, np.int64), len(group.splits) > 1, len(group.labels) > 1))
    return found
