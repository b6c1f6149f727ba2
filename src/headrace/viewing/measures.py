"""Histograms of records: how many have each class, size, number of boxes. Each bar knows how to ask for its records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.load.dataset import Dataset
from headrace.viewing.query import Boxes, Rows

BINS = 24
_EACH = 30  # different whole numbers up to which each has a bar of its own

Bar = dict[str, Any]  # name, count, and the parameters `ask` that find its records


def measures(dataset: Dataset, rows: Rows, boxes: Boxes | None) -> list[dict[str, Any]]:
    """Histograms of these rows, those that have anything to say: `title`, `unit` ("records" or "boxes"), `kind`
    ("names" or "numbers") and `bars`."""
    store, found = dataset.store, []

    def add(title: str, bars: list[Bar], *, kind: str = "numbers", unit: str = "records") -> None:
        if sum(bar["count"] for bar in bars):
            found.append({"title": title, "kind": kind, "unit": unit, "bars": bars})

    if len(dataset.manifest.splits) > 1:
        counts = np.bincount(store.splits_of(rows), minlength=len(dataset.manifest.splits)).tolist()
        add("Splits", _named("split", list(dataset.manifest.splits), counts), kind="names")
    if dataset.class_names:
        counts = store.class_counts(rows).tolist()
        bars = _named("label", dataset.class_names, counts)
        without = int((~store.says_labels(rows)).sum() if dataset.multi_label else (store.labels[rows] < 0).sum())
        column = "labels" if dataset.multi_label else "label"
        bars += [{"name": "no label", "count": without, "ask": {"where": f"{column} IS NULL"}}] if without else []
        add("Classes", bars, kind="names")
    if boxes is not None:
        mine = np.zeros(len(store), bool)
        mine[rows] = True
        some = mine[boxes.row]
        if dataset.box_class_names:
            labels = boxes.label[some]
            counts = np.bincount(labels[labels >= 0], minlength=len(dataset.box_class_names)).tolist()
            add("Classes of boxes", _named("box", dataset.box_class_names, counts), kind="names", unit="boxes")
        add("Size of boxes: root of the area, pixels", _of_sizes(boxes.size[some]), unit="boxes")
        says = rows[store.says_boxes(rows)]
        each = np.bincount(boxes.row[some], minlength=len(store))[says]
        add("Boxes in an image", _numbers(each.astype(np.float64), "ARRAY_LENGTH(boxes)"))
    if dataset.has_values:
        values = store.values(rows)
        add("Value", _numbers(values[~np.isnan(values)], "value"))
    if not store.keeps:
        width, height = store.width[rows].astype(np.float64), store.height[rows].astype(np.float64)
        add("Width, pixels", _numbers(width, "width"))
        add("Height, pixels", _numbers(height, "height"))
        ratio = np.log2(width / np.maximum(height, 1))
        add("Width by height", _ratios(ratio))
    return found


def _named(parameter: str, names: tuple[str, ...] | list[str], counts: list[int]) -> list[Bar]:
    return [{"name": name, "count": n, "ask": {parameter: name}} for name, n in zip(names, counts, strict=True)]


def _numbers(values: NDArray[np.float64], column: str) -> list[Bar]:
    """Bars of values [n], a bar for each value where those are few and whole numbers."""
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    each = np.unique(values) if high - low < 1 << 20 else values
    if len(each) <= _EACH and (each == np.rint(each)).all():
        counts = {int(value): int((values == value).sum()) for value in each}
        first, last = min(counts), max(counts)
        every = range(first, last + 1) if last - first < _EACH else sorted(counts)
        return [
            {"name": str(k), "count": counts.get(k, 0), "ask": {"where": f"{column} = {k}"}, "low": k, "high": k + 1}
            for k in every
        ]
    return _binned(values, _edges(low, high), lambda a, b: {"where": f"{column} >= {a:g} AND {column} < {b:g}"})


def _of_sizes(sizes: NDArray[np.float32]) -> list[Bar]:
    """On a logarithmic scale, from 1 pixel on."""
    if not len(sizes):
        return []
    steps = np.arange(0, math.ceil(2 * math.log2(max(2.0, float(sizes.max())))) + 2)
    edges = [0.0, *(round(float(edge), 1) for edge in 2 ** (steps / 2))]
    bars = _binned(sizes.astype(np.float64), edges, lambda a, b: {"box_min": f"{a:g}", "box_max": f"{b:g}"})
    while len(bars) > 1 and not bars[0]["count"]:
        del bars[0]
    while len(bars) > 1 and not bars[-1]["count"]:
        del bars[-1]
    return bars


def _ratios(ratio: NDArray[np.float64]) -> list[Bar]:
    """Of logarithms to base 2 [n]: quarters of a doubling, tall to wide."""
    if not len(ratio):
        return []
    low, high = math.floor(4 * float(ratio.min())), math.floor(4 * float(ratio.max())) + 1
    edges = [float(f"{2 ** (step / 4):.3g}") for step in range(low, high + 1)]
    if len(edges) > 4 * BINS:
        return []
    return _binned(2**ratio, edges, lambda a, b: {"where": f"width >= {a:g} * height AND width < {b:g} * height"})


def _edges(low: float, high: float) -> list[float]:
    """At most BINS + 2 edges at round numbers, the first at or below `low`, the last above `high`."""
    if high <= low:
        return [low, math.nextafter(low, math.inf) if low else 1.0]
    step = 10 ** math.floor(math.log10((high - low) / BINS))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * step) <= BINS)
    first = math.floor(low / step)
    n = math.floor(high / step) - first + 1
    return [float(f"{(first + i) * step:.12g}") for i in range(n + 1)]


def _binned(values: NDArray[np.float64], edges: list[float], ask: Any) -> list[Bar]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).tolist()
    # What rounding of the edges leaves outside belongs to the first or the last.
    counts[1] += counts[0]
    counts[len(edges) - 1] += counts[len(edges)]
    return [
        {"name": f"{a:g} to {b:g}", "count": n, "ask": ask(a, b), "low": a, "high": b}
        for a, b, n in zip(edges[:-1], edges[1:], counts[1:-1], strict=True)
    ]
