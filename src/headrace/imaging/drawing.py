"""Boxes and points drawn on images. What they mean, and pictures of several images, are left to others."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.imaging.codec import Pixels

_FOUND, _TRUE = (233, 30, 140), (0, 200, 90)  # RGB


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
