"""Groups of records whose images are the same. Which images are equal is told by their bytes; whoever finds those that
look alike adds to `groups`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.format import equal
from headrace.load.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Group:
    """Rows int64 [k >= 2] of the catalog whose images are the same; `kind` says in which way. `splits`: they lie in
    more than one; `labels`: they have different classes."""

    kind: str
    rows: NDArray[np.int64]
    splits: bool
    labels: bool


def groups(dataset: Dataset) -> list[Group]:
    """All groups of this view: first those across splits, then those whose labels contradict. Raises DamageError."""
    found = [*_equal(dataset)]
    return sorted(found, key=lambda group: (not group.splits, not group.labels))


def _equal(dataset: Dataset) -> Iterator[Group]:
    """Images of the same bytes; adopted shards don't say of their own."""
    store = dataset.store
    for rows in equal.sets_of_rows(store.table.parts, dataset.rows if dataset.is_view else None):
        splits = len(np.unique(store.splits_of(rows))) > 1
        if dataset.multi_label:
            known = store.several(rows)[store.says_labels(rows)]
            labels = len(known) > 0 and bool((known != known[0]).any())
        else:
            labels = len(np.unique(store.labels[rows][store.labels[rows] >= 0])) > 1
        yield Group("equal", rows, splits, labels)
