"""Pictures of a training: curves, confusion, precision, boxes, contact sheet. No pyplot, no global state."""

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

__all__ = ["Figure", "Tile", "confusion", "contact_sheet", "curves", "png", "precision", "with_boxes"]

_TRAIN, _VAL, _GREY = "#7f8c9b", "#1769aa", "#5b6570"
_RIGHT, _WRONG = "#1b7f3b", "#c62828"
_FOUND, _TRUE = (233, 30, 140), (0, 200, 90)  # of boxes, RGB


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
