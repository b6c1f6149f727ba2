"""Weights: how much each record of a view counts beside the others, by its classes or by a number that is known of it.

What is done with them, drawing records (sampling) or weighing losses (feeds), is left to others.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.format import catalog
from headrace.load.view import View

# "balanced", a number by class, the name of a column of the catalog or of an attribute, or a number for each record.
Weights: TypeAlias = "Literal['balanced'] | Mapping[str, float] | str | Sequence[float] | NDArray[Any]"

_WANTED = "wanted 'balanced', a number by class, a column's name or a number for each record"
_WANTED_BESIDE = "wanted a column's name or a number for each record"  # where no class is known


def weights_of(view: View, spec: Weights) -> NDArray[np.float64]:
    """Weights float64 [n] of a view's records, none negative, one above 0 at least.

    "balanced": the records of each class weigh as much together as those of any other: n / (classes * records of the
    class), counted over the classes that this view has, so that the mean is 1 (of single classes).
    A mapping gives numbers by class, {"cat": 2.0}; what it leaves out weighs 1.
    Classes are those of images; where images have none, those of what boxes hold. A record of several weighs what the
    heaviest of them does (as repeat factors do: Gupta, Dollár, Girshick, "LVIS", 2019), and one of none, where that may
    be, what the lightest class does, or 1 by a mapping.
    A name is that of a column of the catalog, or of an attribute of the records, that is a number for each of them.
    Raises UsageError: an unknown class or column; records without a class where images have one at most, or without a
    number; numbers that are negative, NaN or infinite; all 0.
    """
    if isinstance(spec, str):
        weights = _balanced(view) if spec == "balanced" else _column(view, spec)
    elif isinstance(spec, Mapping):
        weights = _by_class(view, spec)
    else:
        weights = _given(view, spec)
    if len(weights) and not weights.any():
        raise UsageError(f"weights are 0 for all {len(weights)} records of {view.title}, so that none is left")
    return weights


def _balanced(view: View) -> NDArray[np.float64]:
    names, classes, of = _classes(view)
    if not len(view):
        return np.zeros(0)
    # A record counts once for each class it has, however many boxes say so.
    counts = np.bincount(np.unique(of * len(names) + classes) % len(names), minlength=len(names))
    if not counts.any():
        raise UsageError(f"weights='balanced': no record of {view.title} has a class; {_WANTED_BESIDE}")
    there = counts > 0
    per_class = np.zeros(len(names))
    per_class[there] = len(view) / (np.count_nonzero(there) * counts[there])
    return _heaviest(view, per_class, classes, of, none=float(per_class[there].min()))


def _by_class(view: View, spec: Mapping[Any, Any]) -> NDArray[np.float64]:
    names, classes, of = _classes(view, [name for name in spec if isinstance(name, str)])
    per_class = np.ones(len(names))
    for key, value in spec.items():
        if isinstance(key, int | np.integer) and not isinstance(key, bool) and 0 <= key < len(names):
            number = int(key)  # as Keras has it: by index
        elif key in names:
            number = names.index(key)
        else:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the classes are {_some(names)}"
            raise UsageError(f"weights: {view.title} has no class {key!r}{hint}")
        if not (_is_number(value) and 0 <= value < np.inf):
            raise UsageError(f"weights: {value!r:.60} for class {key!r}, wanted a number of 0 or more")
        per_class[number] = value
    return _heaviest(view, per_class, classes, of, none=1.0)


def _heaviest(
    view: View, per_class: NDArray[np.float64], classes: NDArray[np.int64], of: NDArray[np.int64], *, none: float
) -> NDArray[np.float64]:
    weights = np.full(len(view), -1.0)
    np.maximum.at(weights, of, per_class[classes])
    weights[weights < 0] = none
    return weights


def _classes(view: View, named: Sequence[str] = ()) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """The names of the classes that weights are by, the classes of all records, one after the other, int64 [m], and to
    which record (0 to n - 1) each belongs. Raises UsageError: there are none, or a record lacks its only one.

    Of a dataset with both, they are those of boxes where all that are `named` are such, and no classes of images."""
    store, promised = view.store, view.store.manifest
    images, boxes = promised.classes, promised.box_classes
    by_box = bool(boxes) and (not images or (bool(named) and not set(named) & set(images) and set(named) <= set(boxes)))
    if by_box:
        _, labels, of = store.boxes(view.rows)
        known = labels >= 0
        return boxes, labels[known], of[known]
    if not images:
        raise UsageError(f"weights: {view.title} has no classes to weigh by; {_WANTED_BESIDE}")
    labels, of = store.classes_of(view.rows)
    without = len(view) - len(of)
    if without and not promised.multi_label:
        raise UsageError(
            f"weights: {without} of {len(view)} records of {view.title} have no class; leave them out by "
            "ds.where('label IS NOT NULL')"
        )
    return images, labels, of


def _column(view: View, name: str) -> NDArray[np.float64]:
    table = view.store.table
    if name in table.columns:
        column = table.frame([name], view.rows)[name]
        if not column.dtype.is_numeric():
            raise UsageError(f"weights: column {name!r} is of {column.dtype}, wanted numbers; {_WANTED}")
        found: NDArray[Any] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        nulls, what = column.null_count(), f"column {name!r}"
    else:
        texts = table.frame(["attributes"], view.rows)["attributes"]
        values = [catalog.attributes(text).get(name) for text in texts]
        nulls, what = sum(value is None for value in values), f"attribute {name!r}"
        if nulls == len(values) and values:
            raise UsageError(
                f"weights: {view.title} has no column and no attribute {name!r}; {_WANTED}; the columns that are "
                f"numbers are {', '.join(_NUMBERS)}"
            )
        odd = next((value for value in values if value is not None and not _is_number(value)), None)
        if odd is not None:
            raise UsageError(f"weights: {what} has {odd!r:.60}, wanted numbers")
        found = np.array([np.nan if value is None else value for value in values], np.float64)
    if nulls:
        raise UsageError(
            f"weights: {what} says nothing of {nulls} of {len(view)} records of {view.title}; wanted a number for each"
        )
    return _checked(found, what, view)


def _given(view: View, spec: Any) -> NDArray[np.float64]:
    try:
        found = np.asarray(spec)
    except ValueError:
        found = np.empty(0, object)
    if found.dtype.kind not in "iuf" or found.ndim != 1:
        # Arrays and columns have several lines.
        given = f"{getattr(spec, 'dtype', found.dtype)} {[*spec.shape]}" if hasattr(spec, "shape") else f"{spec!r:.60}"
        raise UsageError(f"weights are {given}, {_WANTED}")
    if len(found) != len(view):
        raise UsageError(
            f"weights are {len(found)} numbers, for the {len(view)} records of {view.title}; wanted one for each"
        )
    return _checked(found.astype(np.float64), "weights", view)


def _checked(found: NDArray[np.float64], what: str, view: View) -> NDArray[np.float64]:
    bad = np.flatnonzero(~((found >= 0) & (found < np.inf)))
    if len(bad):
        first = int(bad[0])
        (id_,) = view.store.ids_of(view.rows[first : first + 1])
        raise UsageError(f"{what}: {found[first]:g} for record {id_!r}, wanted a number of 0 or more")
    return found


def _is_number(value: object) -> bool:
    """Whether it is one that float64 can hold, and no bool."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    return not isinstance(value, int) or abs(value) <= sys.float_info.max


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")


_NUMBERS = tuple(name for name, kind in catalog.SCHEMA.items() if kind.is_numeric())
