"""Which records a page shows, in which order: what stands in its address, as rows. Drawing is left to others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.load.dataset import Dataset
from headrace.viewing.runs import Judged

Rows = NDArray[np.int64]

# What can be sorted by; with "-" before it the largest first. "wrong" is of an evaluation.
BY_BOXES = ("boxes", "largest", "smallest")
SORTS = ("stored", "id", "width", "height", "pixels", *BY_BOXES, "label", "value", "wrong")
OUTCOMES = ("right", "wrong", "doubtful")  # doubtful: its label is contradicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What an address asks for: the split, a class of the image, one of its boxes, their least and greatest size (the
    root of the area, in stored pixels), a part of the id to `find`, an SQL condition, and how they are sorted.

    `evaluation`: only what it judged; of that `observed` and `estimated` class, `outcome` one of OUTCOMES.
    """

    split: str | None = None
    label: str | None = None
    box: str | None = None
    box_min: float | None = None
    box_max: float | None = None
    find: str | None = None
    where: str | None = None
    evaluation: str | None = None
    observed: str | None = None
    estimated: str | None = None
    outcome: str | None = None
    sort: str = "stored"

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Query:
        """Out of an address; parameters that are none of these are others'. Raises UsageError."""
        known = {field.name: parameters[field.name] for field in fields(cls) if parameters.get(field.name)}
        numbers = {name: _number(name, known.pop(name)) for name in ("box_min", "box_max") if name in known}
        if (sort := known.get("sort", "stored")).removeprefix("-") not in SORTS:
            raise UsageError(f"sort is {sort!r:.60}, wanted one of {', '.join(SORTS)}, or one of them behind a '-'")
        if (outcome := known.get("outcome")) not in (None, *OUTCOMES):
            raise UsageError(f"outcome is {outcome!r:.60}, wanted one of {', '.join(OUTCOMES)}")
        return cls(**known, **numbers)  # type: ignore[arg-type]

    @property
    def about_boxes(self) -> bool:
        """Whether it chooses records by their boxes."""
        return any(part is not None for part in (self.box, self.box_min, self.box_max))


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise UsageError(f"{name} is {text!r:.60}, wanted a number of pixels")
    return value


class Boxes(NamedTuple):
    """All boxes of a dataset: the root of each one's area in stored pixels, float32 [m], the number of its class, int32
    [m], -1 for none, and the row of its record, int32 [m]."""

    size: NDArray[np.float32]
    label: NDArray[np.int32]
    row: NDArray[np.int32]

    @classmethod
    def of(cls, dataset: Dataset) -> Boxes:
        corners, label, row = dataset.store.boxes(np.arange(len(dataset.store)))
        area = np.abs((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))
        return cls(np.sqrt(area), label.astype(np.int32), row.astype(np.int32))


def rows_of(dataset: Dataset, query: Query, boxes: Boxes | None, judged: Judged | None) -> Rows:
    """The rows int64 [k] that a query asks for, in its order. `boxes`: where the dataset has some. Raises UsageError
    (an unknown name, no condition), DamageError."""
    store = dataset.store
    rows = dataset.rows if judged is None else judged.within(query.observed, query.estimated, query.outcome)
    if judged is not None and dataset.is_view:
        rows = rows[np.isin(rows, dataset.rows)]
    if query.split is not None:
        rows = rows[store.splits_of(rows) == _index("split", query.split, list(dataset.manifest.splits))]
    if query.label is not None:
        label = _index("class", query.label, dataset.class_names)
        there = store.several(rows)[:, label] if dataset.multi_label else store.labels[rows] == label
        rows = rows[there]
    if query.about_boxes:
        rows = rows[_with_boxes(dataset, query, boxes)[rows]]
    if query.find is not None:
        ids = store.table.frame(["id"], None if len(rows) == len(store) else rows)["id"]
        found = ids.str.to_lowercase().str.contains(query.find.lower(), literal=True).to_numpy()
        rows = rows[found]
    if query.where is not None:
        whole = judged is None and len(rows) == len(store) and not dataset.is_view
        rows = rows[store.table.where(query.where, None if whole else rows)]
    return _sorted(dataset, rows, query.sort, boxes, judged)


def _index(what: str, name: str, names: list[str] | tuple[str, ...]) -> int:
    if name not in names:
        some = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise UsageError(f"no {what} {name!r:.100}; there are {some or 'none'}")
    return names.index(name)


def _with_boxes(dataset: Dataset, query: Query, boxes: Boxes | None) -> NDArray[np.bool_]:
    """Which rows of the whole dataset have a box that fits, bool [n]."""
    there = np.zeros(len(dataset.store), bool)
    if boxes is None:
        return there
    fits = np.ones(len(boxes.row), bool)
    if query.box is not None:
        fits &= boxes.label == _index("class of boxes", query.box, dataset.box_class_names)
    if query.box_min is not None:
        fits &= boxes.size >= query.box_min
    if query.box_max is not None:
        fits &= boxes.size < query.box_max
    there[boxes.row[fits]] = True
    return there


def _sorted(dataset: Dataset, rows: Rows, sort: str, boxes: Boxes | None, judged: Judged | None) -> Rows:
    """The rows by what `sort` names: ties in the dataset's order, and behind all those of which nothing is known."""
    store, by = dataset.store, sort.removeprefix("-")
    down = sort != by
    if by == "stored":
        return rows[::-1] if down else rows
    if by == "id":
        ids = store.table.frame(["id"], rows)["id"]
        order = ids.to_frame().select(pl.arg_sort_by("id", descending=down, maintain_order=True))["id"]
        sorted_: Rows = rows[order.to_numpy()]
        return sorted_
    key: NDArray[np.float64]
    if by in ("width", "height"):
        key = (store.width if by == "width" else store.height)[rows].astype(np.float64)
    elif by == "pixels":
        key = store.width[rows].astype(np.float64) * store.height[rows]
    elif by == "label":
        key = store.labels[rows].astype(np.float64)
        key[key < 0] = np.nan
    elif by == "value":
        key = store.values(rows) if dataset.has_values else np.full(len(rows), np.nan)
    elif by == "wrong":
        if judged is None:
            raise UsageError("sort is 'wrong', which is of an evaluation: pass evaluation")
        key = judged.wrong_of(rows)
    else:
        key = _of_boxes(dataset, by, boxes)[rows]
    found: Rows = rows[np.argsort(-key if down else key, kind="stable")]
    return found


def _of_boxes(dataset: Dataset, by: str, boxes: Boxes | None) -> NDArray[np.float64]:
    """float64 [n]: how many boxes each row of the whole dataset has, or the size of its largest or smallest."""
    n = len(dataset.store)
    if boxes is None:
        return np.full(n, np.nan)
    if by == "boxes":
        return np.bincount(boxes.row, minlength=n).astype(np.float64)
    best = np.full(n, -np.inf if by == "largest" else np.inf)
    (np.maximum if by == "largest" else np.minimum).at(best, boxes.row, boxes.size)
    best[np.isinf(best)] = np.nan
    return best
