"""Photos of shapes drawn for tests: which of them are in a photo are its classes, and how bright it is its value."""

from __future__ import annotations

from collections.abc import Generator

import cv2
import numpy as np

import headrace as hr
from headrace.imaging.codec import Pixels, encode_jpeg
from headrace.sources import SourceInfo

NAMES = ("circle", "square", "triangle")
_SHARES = (0.5, 0.4, 0.25)  # of the photos that have each
_COLOURS = ((230, 60, 50), (60, 210, 70), (70, 90, 240))


def photo(rng: np.random.Generator, there: tuple[int, ...], *, light: int = 60, side: int = 48) -> Pixels:
    """uint8 [side, side, 3] of a ground up to `light` above 40, with the shapes of these numbers somewhere on it."""
    ground = rng.integers(max(0, light - 30), light + 30, (4, 4, 3), np.uint8)
    image = np.ascontiguousarray(cv2.resize(ground, (side, side), interpolation=cv2.INTER_LINEAR))
    for k in there:
        r = int(rng.integers(side // 8, side // 5))
        x, y = rng.integers(r, side - r, 2).tolist()
        if k == 0:
            cv2.circle(image, (x, y), r, _COLOURS[k], -1)
        elif k == 1:
            cv2.rectangle(image, (x - r, y - r), (x + r, y + r), _COLOURS[k], -1)
        else:
            corners = np.array([[x, y - r], [x - r, y + r], [x + r, y + r]], np.int32)
            cv2.fillPoly(image, [corners], _COLOURS[k])
    return image


def several(n: int, *, seed: int = 0) -> Several:
    """`n` records whose `labels` are the shapes in their photos, of some of them none."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        there = tuple(np.flatnonzero(rng.random(3) < _SHARES).tolist())
        image = encode_jpeg(photo(rng, there), quality=95)
        records.append(hr.Record(id=f"{i:03d}.jpg", encoded=image, labels=tuple(NAMES[k] for k in there)))
    return Several(records)


class Several(list[hr.Record]):
    """Records, and the names of their classes in this order."""

    def __iter__(self) -> Generator[hr.Record, None, SourceInfo]:
        yield from super().__iter__()
        return SourceInfo(class_names=NAMES)


def valued(n: int, *, unit: float = 1.0, seed: int = 0) -> list[hr.Record]:
    """`n` records whose `value` is the light that fell on their photos, 30 to 200, in a unit."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        light = int(rng.integers(30, 200))
        image = encode_jpeg(photo(rng, tuple(rng.permutation(3)[: i % 3].tolist()), light=light), quality=95)
        records.append(hr.Record(id=f"{i:03d}.jpg", encoded=image, value=light * unit))
    return records
