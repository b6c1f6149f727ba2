"""Pictures of a training: curves and judgements, drawn by matplotlib. No pyplot, no global state."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.errors import MissingExtraError

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise MissingExtraError("drawing needs matplotlib; run: pip install 'headrace[plot]'") from error

__all__ = [
    "Figure",
    "confusion",
    "curves",
    "pck",
    "png",
    "precision",
    "shares",
    "values",
]

_TRAIN, _VAL, _GREY = "#7f8c9b", "#1769aa", "#5b6570"
_KEPT = "#c62828"


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a class may be called "$"
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Class names in a script that the font lacks are drawn as boxes; that is no news worth a line each.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def curves(history: Sequence[Mapping[str, float]], *, best: int) -> Figure:
    """Loss and every metric over the epochs, training and validation; `best` is the index of the epoch kept."""
    names = list(dict.fromkeys(n.removeprefix("val_") for n in history[0] if n not in ("epoch", "learning_rate")))
    figure = Figure(figsize=(5.6 * len(names), 4.0), dpi=120, layout="constrained")
    epochs = [row["epoch"] for row in history]
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        marker = "o" if len(history) < 30 else ""
        if name in history[0]:
            axes.plot(epochs, [row[name] for row in history], color=_TRAIN, marker=marker, ms=3, label="training")
        kept = name
        if f"val_{name}" in history[0]:
            kept = f"val_{name}"
            axes.plot(epochs, [row[kept] for row in history], color=_VAL, marker=marker, ms=3, label="validation")
        value = history[best][kept]
        axes.plot(epochs[best], value, "o", ms=9, mfc="none", mec=_KEPT, mew=1.5, ls="", label=f"kept: {value:.3f}")
        axes.set_title(name, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def confusion(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Counts [n, n], a row per observed and a column per predicted class, coloured by share of the row."""
    n = len(class_names)
    side = min(24.0, 2.6 + 0.62 * n)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03, format=lambda share, _: f"{share:.0%}")
    bar.outline.set_visible(False)
    if n <= 30:
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            colour = "white" if share > 0.55 else ("black" if count else "#c4cad0")
            text = f"{count}\n{share:.0%}" if n <= 6 else f"{count}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if n <= 12 else 7)
    if n <= 60:
        names = [_short(name, 24) for name in class_names]
        axes.set_xticks(range(n), names, rotation=45 if n > 4 else 0, ha="right" if n > 4 else "center")
        axes.set_yticks(range(n), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{right} of {total} right ({right / max(total, 1):.1%})", loc="left", fontweight="bold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def precision(curve: NDArray[np.float64], *, title: str) -> Figure:
    """Precision [n] over recall, evenly from 0 to 1."""
    figure = Figure(figsize=(5.6, 4.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    recall = np.linspace(0, 1, len(curve))
    axes.plot(recall, curve, color=_VAL)
    axes.fill_between(recall, curve, color=_VAL, alpha=0.12, lw=0)
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of the boxes found", ylabel="precision: share that is right"
    )
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def pck(distances: NDArray[np.float64], names: Sequence[str], *, alpha: float) -> Figure:
    """Share of points right [n, k] over how near right is, 0 to 0.5 of the object's side; and of each at `alpha`."""
    n = len(names)
    figure = Figure(figsize=(11.2, max(4.6, 1.4 + 0.24 * n)), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    judged = distances[~np.isnan(distances)]
    steps = np.linspace(0, 0.5, 101)
    curve = (judged <= steps[:, np.newaxis]).mean(axis=1) if len(judged) else np.zeros(len(steps))
    left.plot(steps, curve, color=_VAL)
    left.fill_between(steps, curve, color=_VAL, alpha=0.12, lw=0)
    left.axvline(alpha, color=_GREY, lw=1, ls=":")
    share = (judged <= alpha).mean() if len(judged) else math.nan
    left.set(xlim=(0, 0.5), ylim=(0, 1.02), xlabel="right within this share of the box's larger side", ylabel="PCK")
    left.set_title(f"PCK@{alpha:g} {share:.4f}", loc="left", fontweight="bold")
    left.grid(alpha=0.25)
    counts = (~np.isnan(distances)).sum(axis=0)
    each = (distances <= alpha).sum(axis=0) / np.maximum(counts, 1)
    right.barh(range(n), each, color=_VAL, height=0.65)
    right.set_yticks(range(n), [f"{_short(name, 24)}  ({count})" for name, count in zip(names, counts, strict=True)])
    right.invert_yaxis()
    right.set(xlim=(0, 1.02), xlabel=f"PCK@{alpha:g}")
    right.set_title("by keypoint (labelled points)", loc="left", fontweight="bold")
    right.grid(alpha=0.25, axis="x")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def shares(each: Sequence[float | None], names: Sequence[str], counts: Sequence[int], *, title: str) -> Figure:
    """A bar for each class, 0 to 1, with how many images have it; None where no image has."""
    n = len(names)
    figure = Figure(figsize=(6.4, min(40.0, max(3.2, 1.4 + 0.24 * n))), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(n), [share or 0.0 for share in each], color=_VAL, height=0.65)
    if n <= 150:
        axes.set_yticks(range(n), [f"{_short(name, 24)}  ({k})" for name, k in zip(names, counts, strict=True)])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel="average precision; in brackets the images that have the class")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def values(truth: NDArray[np.float64], said: NDArray[np.float64], *, title: str) -> Figure:
    """What was said [n] over what is so [n]; on the line both are the same."""
    figure = Figure(figsize=(5.6, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    low, high = (float(side(np.concatenate([truth, said]))) for side in (np.min, np.max))
    axes.plot([low, high], [low, high], color=_GREY, lw=1, ls=":")
    n = len(truth)
    axes.scatter(truth, said, s=14 if n < 2000 else 4, alpha=0.6 if n < 2000 else 0.2, color=_VAL, lw=0)
    axes.set(xlabel="observed", ylabel="predicted")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
