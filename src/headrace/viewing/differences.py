"""What two versions of a dataset differ in, as pages show it: counts, and records before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.load.dataset import Dataset
from headrace.load.store import Shards
from headrace.revising.diff import Diff, between
from headrace.viewing.cells import cells

KINDS = ("relabelled", "boxes", "moved", "dropped", "added")


def difference(before: Dataset, after: Dataset) -> Diff:
    """From one version to another."""
    assert isinstance(before.store, Shards)
    assert isinstance(after.store, Shards)
    return between(before.store.tables, after.store.tables)


def counts(found: Diff) -> dict[str, Any]:
    """How many records are of each kind, and per class and split those of both versions, where they are others."""
    return {
        "before": found.before,
        "after": found.after,
        "records": found.records,
        "kinds": {kind: len(getattr(found, kind)) for kind in KINDS},
        "classes": {name: both for name, both in found.classes.items() if both[0] != both[1]},
        "splits": {name: both for name, both in found.splits.items() if both[0] != both[1]},
    }


def pairs(found: Diff, kind: str, first: int, n: int, before: Dataset, after: Dataset) -> list[dict[str, Any]]:
    """Some records of one kind: each as it was and as it is, as cells, None where it is not in that version."""
    ids = [one if isinstance(one, str) else one.id for one in getattr(found, kind)[first : first + n]]
    was = _cells(before, ids) if kind != "added" else [None] * len(ids)
    now = _cells(after, ids) if kind != "dropped" else [None] * len(ids)
    return [{"before": one, "after": other} for one, other in zip(was, now, strict=True)]


def _cells(dataset: Dataset, ids: Sequence[str]) -> list[dict[str, Any]]:
    rows = [row for id_ in ids if (row := dataset.store.row_of(id_)) is not None]
    return cells(dataset, np.array(rows, np.int64)) if rows else []
