"""Pictures of a training: curves, judgements, boxes and points, contact sheet. No pyplot, no global state."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.errors import MissingExtraError
from headrace.imaging.codec import Pixels

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise MissingExtraError("drawing needs matplotlib; run: pip install 'headrace[plot]'") from error

__all__ = [
    "Figure",
    "Tile",
    "confusion",
    "contact_sheet",
    "curves",
    "pck",
    "png",
    "precision",
    "with_boxes",
    "with_points",
]

_TRAIN, _VAL, _GREY = "#7f8c9b", "#1769aa", "#5b6570"
_RIGHT, _WRONG = "#1b7f3b", "#c62828"
_FOUND, _TRUE = (233, 30, 140), (0, 200, 90)  # of boxes and points, RGB


@dataclass(frozen=True)
class Tile:
    """One image uint8 [h, w, c] of a contact sheet; `right` None where nobody knows."""

    image: Pixels
    caption: str
    right: bool | None = None


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
        axes.plot(epochs[best], value, "o", ms=9, mfc="none", mec=_WRONG, mew=1.5, ls="", label=f"kept: {value:.3f}")
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


def with_points(
    image: Pixels, points: NDArray[np.float32], names: Sequence[str], *, truth: NDArray[np.float32] | None = None
) -> Pixels:
    """A copy of image uint8 [h, w, 3] with points [k, 3] = x, y, score as discs, each of its own colour, and above
    `truth` [k, 3] = x, y, v as green rings, with a line from each to what was found of it.

    Points with a score or v of 0 are left out, and so are names that would lie over each other or fill a small image.
    """
    drawn = np.ascontiguousarray(image).copy()
    height, width = drawn.shape[:2]
    side = min(height, width)
    line, radius = max(1, round(side / 250)), max(2, round(side / 100))
    colours = _colours(len(points))
    for point, there in () if truth is None else zip(points, truth, strict=True):
        if there[2] > 0:
            if point[2] > 0:
                cv2.line(drawn, _pixel(point), _pixel(there), _TRUE, line, cv2.LINE_AA, _FINE)
            cv2.circle(drawn, _pixel(there), (radius + 2 * line) << _FINE, _TRUE, line, cv2.LINE_AA, _FINE)
    seen = [i for i in range(len(points)) if points[i, 2] > 0]
    for i in seen:
        cv2.circle(drawn, _pixel(points[i]), radius << _FINE, colours[i], -1, cv2.LINE_AA, _FINE)
    scale = max(0.35, side / 1200)
    taken = np.zeros((height, width), bool)
    for i in seen if side >= 200 else ():
        (w, h), below = cv2.getTextSize(names[i], cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        x, y = np.rint(points[i, :2]).astype(int).tolist()
        x = x + 2 * radius if x + 2 * radius + w <= width else x - 2 * radius - w
        y = min(max(h, y + h // 2), height - below)
        place = np.s_[y - h : y + below, max(0, x) : x + w]
        if x < 0 or taken[place].any():
            continue
        taken[place] = True
        for colour, wide in (((0, 0, 0), 2 * line + 1), (colours[i], line)):  # readable on any ground
            cv2.putText(drawn, names[i], (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, wide, cv2.LINE_AA)
    return drawn


_FINE = 4  # bits of a pixel that cv2 draws by


def _pixel(point: NDArray[np.float32]) -> tuple[int, int]:
    """Where cv2 draws a point: its pixels have their middles at whole numbers, ours at halves."""
    x, y = np.rint((point[:2] - 0.5) * (1 << _FINE)).astype(int).tolist()
    return x, y


def _colours(n: int) -> list[tuple[int, int, int]]:
    """Bright colours, RGB, from blue over magenta and red to yellow; green is the truth's."""
    hues = (105 + np.linspace(0, 105, n)) % 180
    hsv = np.stack([hues, np.full(n, 200), np.full(n, 255)], axis=-1).astype(np.uint8)
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv[np.newaxis], cv2.COLOR_HSV2RGB)[0]]


def with_boxes(
    image: Pixels, boxes: NDArray[np.float32], texts: Sequence[str], *, truth: NDArray[np.float32] | None = None
) -> Pixels:
    """A copy of image uint8 [h, w, 3] with boxes [n, 4] and a text to each in magenta, above `truth` in green."""
    drawn = np.ascontiguousarray(image).copy()
    line = max(1, round(min(drawn.shape[:2]) / 250))
    for box in () if truth is None else truth:
        _rectangle(drawn, box, _TRUE, 2 * line)
    for box in boxes:
        _rectangle(drawn, box, _FOUND, line)
    scale = max(0.35, min(drawn.shape[:2]) / 1000)
    for box, text in zip(boxes, texts, strict=True):
        (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        x = min(max(0, int(box[0])), max(0, drawn.shape[1] - w))
        y = int(box[1]) if box[1] >= h + below else h + below  # above the box, or as high as there is room
        cv2.rectangle(drawn, (x, y - h - below), (x + w, y), _FOUND, -1)
        cv2.putText(drawn, text, (x, y - below), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), line, cv2.LINE_AA)
    return drawn


def _rectangle(drawn: Pixels, box: NDArray[np.float32], colour: tuple[int, int, int], line: int) -> None:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), colour, line)


def contact_sheet(tiles: Sequence[Tile], *, title: str, large: bool = False) -> Figure:
    """All tiles in a grid, captions below; wrong ones framed in red, right ones in green, the rest in grey."""
    columns = min(len(tiles), 4 if large else 10 if len(tiles) > 24 else 6)
    rows = math.ceil(len(tiles) / columns)
    width = 3.5 if large else 1.55
    height = 1.06 * width + 0.14 * max(tile.caption.count("\n") + 1 for tile in tiles)
    figure = Figure(figsize=(width * columns + 0.2, height * rows + 0.5), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for i, tile in enumerate(tiles):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(tile.image.squeeze(-1) if tile.image.shape[-1] == 1 else tile.image, cmap="gray", vmin=0, vmax=255)
        colour = {None: _GREY, True: _RIGHT, False: _WRONG}[tile.right]
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(colour)
        axes.spines[:].set_linewidth(1.0 if tile.right is None else 2.5)
        caption = "\n".join(_short(line, 22) for line in tile.caption.split("\n"))
        axes.set_xlabel(caption, fontsize=8, color=colour, fontweight="bold" if tile.right is False else "normal")
    return figure


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
