"""Boxes, points, cells and heat drawn on images. What they mean, and pictures of several images, are left to others.

All take an image uint8 [h, w, 3] and give back a copy. Lines and letters grow with the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headrace.imaging.codec import Pixels
from headrace.imaging.lettering import Font, font, shortened

Colour = tuple[int, int, int]  # RGB

FOUND, TRUE = (233, 30, 140), (0, 200, 90)

# By the number of a class, again from the start where there are more; then what has none.
_CLASSES = (
    TRUE, (255, 140, 0), (40, 140, 255), (255, 60, 70), (255, 214, 0), (190, 90, 255),
    (0, 210, 220), (255, 130, 190), (165, 105, 50), (160, 215, 50),
)  # fmt: skip
_NO_CLASS = (200, 200, 200)


def with_boxes(
    image: Pixels,
    boxes: NDArray[np.float32],
    texts: Sequence[str],
    *,
    truth: NDArray[np.float32] | None = None,
    labels: NDArray[np.int64] | None = None,
) -> Pixels:
    """Boxes [n, 4] and a text to each, in magenta or the colours of the classes `labels` [n], above `truth` in green.

    A text that would lie over an earlier one is left out.
    """
    drawn = np.ascontiguousarray(image).copy()
    line = _line(drawn)
    for box in () if truth is None else truth:
        _rectangle(drawn, box, TRUE, 2 * line)
    colours = [FOUND] * len(boxes) if labels is None else [_colour(label) for label in labels.tolist()]
    for box, colour in zip(boxes, colours, strict=True):
        _rectangle(drawn, box, colour, line)
    names = _Names(drawn)
    for box, text, colour in zip(boxes, texts, colours, strict=True):
        names.plate(text, int(box[0]), int(box[1]), colour)
    return names.pixels()


def with_dashes(image: Pixels, boxes: NDArray[np.float32]) -> Pixels:
    """Boxes [n, 4] in white dashes: those that something has left out."""
    drawn = np.ascontiguousarray(image).copy()
    for x0, y0, x1, y1 in np.rint(boxes).astype(int).tolist():
        right, below = max(x0, x1 - 1), max(y0, y1 - 1)
        for begin, end in (((x0, y0), (right, y0)), ((right, y0), (right, below)),
                           ((right, below), (x0, below)), ((x0, below), (x0, y0))):  # fmt: skip
            cv2.line(drawn, begin, end, (0, 0, 0), 1)
            length = max(abs(end[0] - begin[0]), abs(end[1] - begin[1]), 1)
            for start in range(0, length, 8):
                share = start / length, min(1.0, (start + 4) / length)
                dash = [tuple(round(a + (b - a) * s) for a, b in zip(begin, end, strict=True)) for s in share]
                cv2.line(drawn, dash[0], dash[1], (255, 255, 255), 1)
    return drawn


def with_points(
    image: Pixels,
    points: NDArray[np.float32],
    names: Sequence[str],
    *,
    truth: NDArray[np.float32] | None = None,
    hidden: NDArray[np.bool_] | None = None,
) -> Pixels:
    """Points [k, 3] = x, y, score as discs, rings where `hidden` [k], each name in its own colour, and above `truth`
    [k, 3] = x, y, v as green rings, with a line from each to what was found of it.

    Points with a score or v of 0 are left out. A name is written once, and not over another or on a small image.
    """
    drawn = np.ascontiguousarray(image).copy()
    side = min(drawn.shape[:2])
    line, radius = _line(drawn), max(2, round(side / 100))
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    hues = _hues(len(number))
    colours = [hues[number[name]] for name in names]
    for point, there in () if truth is None else zip(points, truth, strict=True):
        if there[2] > 0:
            if point[2] > 0:
                cv2.line(drawn, _pixel(point), _pixel(there), TRUE, line, cv2.LINE_AA, _FINE)
            cv2.circle(drawn, _pixel(there), (radius + 2 * line) << _FINE, TRUE, line, cv2.LINE_AA, _FINE)
    seen = [i for i in range(len(points)) if points[i, 2] > 0]
    for i in seen:
        ring = hidden is not None and hidden[i]
        wide, thick = (radius + 1, max(1, radius // 3)) if ring else (radius, -1)
        cv2.circle(drawn, _pixel(points[i]), wide << _FINE, colours[i], thick, cv2.LINE_AA, _FINE)
    words, written = _Names(drawn), set[str]()
    for i in seen if side >= ROOM else ():
        x, y = np.rint(points[i, :2]).astype(int).tolist()
        if names[i] not in written and words.beside(names[i], x, y, 2 * radius, colours[i]):
            written.add(names[i])
    return words.pixels()


def with_cells(image: Pixels, cells: NDArray[np.bool_], points: NDArray[np.float32]) -> Pixels:
    """The lines between cells [g, g] that divide the image evenly, those that are True shaded, and points [n, 2] = x, y
    as dots."""
    drawn = np.ascontiguousarray(image).copy()
    height, width = drawn.shape[:2]
    down, across = (np.rint(np.linspace(0, side, len(cells) + 1)).astype(int).tolist() for side in (height, width))
    shaded = np.zeros((height, width), bool)
    lines = np.zeros((height, width), bool)
    for row, column in np.argwhere(cells).tolist():
        shaded[down[row] : down[row + 1], across[column] : across[column + 1]] = True
    lines[down[1:-1]], lines[:, across[1:-1]] = True, True
    drawn[shaded] = np.rint(0.65 * drawn[shaded] + 0.35 * np.array(FOUND)).astype(np.uint8)
    drawn[lines] = np.rint(0.4 * drawn[lines] + 0.6 * 255).astype(np.uint8)
    radius = max(3, round(min(height, width) / 100))
    for point in points:
        for colour, wide in (((255, 255, 255), radius + 1), (FOUND, radius)):
            cv2.circle(drawn, _pixel(point), wide << _FINE, colour, -1, cv2.LINE_AA, _FINE)
    return drawn


def with_heat(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Heat [rows, columns], 0 to 1, that lies evenly over the image, as a glow."""
    height, width = image.shape[:2]
    share = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)[..., np.newaxis] * 0.75
    glowing: Pixels = np.rint(image * (1 - share) + np.array((255, 190, 0)) * share).astype(np.uint8)
    return glowing


ROOM = 200  # pixels of the shorter side from which names don't fill an image
_FINE = 4  # bits of a pixel that cv2 draws by


def _line(image: Pixels) -> int:
    return max(1, round(max(int(side) for side in image.shape[:2]) / 300))


def _pixel(point: NDArray[np.float32]) -> tuple[int, int]:
    """Where cv2 draws a point: its pixels have their middles at whole numbers, ours at halves."""
    x, y = np.rint((point[:2] - 0.5) * (1 << _FINE)).astype(int).tolist()
    return x, y


def _colour(label: int) -> Colour:
    return _CLASSES[label % len(_CLASSES)] if label >= 0 else _NO_CLASS


def _hues(n: int) -> list[Colour]:
    """Bright colours, RGB, from blue over magenta and red to yellow; green is the truth's."""
    if not n:
        return []
    hues = (105 + np.linspace(0, 105, n)) % 180
    hsv = np.stack([hues, np.full(n, 200), np.full(n, 255)], axis=-1).astype(np.uint8)
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv[np.newaxis], cv2.COLOR_HSV2RGB)[0]]


def _rectangle(drawn: Pixels, box: NDArray[np.float32], colour: Colour, line: int) -> None:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    thin = max(1, min(line, min(x1 - x0, y1 - y0) // 8))  # what is in a small box is to be seen too
    cv2.rectangle(drawn, (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)), colour, thin)


class _Names:
    """Texts on an image, none of them over another."""

    def __init__(self, pixels: Pixels) -> None:
        self._image = Image.fromarray(pixels)
        self._draw = ImageDraw.Draw(self._image)
        self._height, self._width = pixels.shape[:2]
        size = max(11, round(min(pixels.shape[:2]) / 32))
        self._letters: Font = font(size)
        self._high, self._pad = round(1.25 * size), max(2, size // 5)
        self._taken = np.zeros((self._height, self._width), bool)

    def pixels(self) -> Pixels:
        return np.array(self._image)

    def plate(self, text: str, x: int, y: int, colour: Colour) -> None:
        """On a plate of the colour that stands on the corner x, y, or below it where there is no room above."""
        line = shortened(text, self._width - 2 * self._pad, self._letters)
        wide = round(self._letters.getlength(line)) + 2 * self._pad
        left, top = min(max(0, x), max(0, self._width - wide)), y - self._high if y >= self._high else max(0, y)
        if not line or self._over(left, top, wide):
            return
        self._draw.rectangle((left, top, left + wide - 1, top + self._high - 1), colour)
        dark = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000 > 150
        ink = (0, 0, 0) if dark else (255, 255, 255)
        self._draw.text((left + self._pad, top + self._high // 2), line, ink, self._letters, anchor="lm")

    def beside(self, text: str, x: int, y: int, apart: int, colour: Colour) -> bool:
        """Right of x, y, else left of it; whether there was room."""
        line = shortened(text, self._width, self._letters)
        wide = round(self._letters.getlength(line))
        left = x + apart if x + apart + wide <= self._width else x - apart - wide
        top = min(max(0, y - self._high // 2), self._height - self._high)
        if not line or left < 0 or self._over(left, top, wide):
            return False
        edge = max(1, self._high // 12)  # readable on any ground
        place = left, top + self._high // 2
        ink = tuple((255 + part) // 2 for part in colour)
        self._draw.text(place, line, ink, self._letters, anchor="lm", stroke_width=edge, stroke_fill=(0, 0, 0))
        return True

    def _over(self, left: int, top: int, wide: int) -> bool:
        """Whether something is written there; from now on it is."""
        place = self._taken[max(0, top) : top + self._high, left : left + wide]
        if place.any():
            return True
        place[:] = True
        return False
