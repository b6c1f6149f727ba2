"""Segmentations as COCO's JSON has them, made masks: polygons, run lengths, and run lengths pressed into a text.

Where they stand in a file is left to the sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.record import Mask

_MOST_PIXELS = 1 << 40  # of an image: far beyond any, and no sum of runs comes around
_NUMBERS = frozenset((int, float))
_MOST_CHARACTERS = 9  # of one number of a text: 45 bits


def mask_of(value: Any) -> Mask | None:
    """The mask of a `segmentation`: [[x, y, x, y, …], …], one such polygon alone, or {"size": [h, w], "counts": …}.

    None where it is empty, or no polygon of it has three corners. Raises ValueError: it is none.
    """
    if isinstance(value, dict):
        return _runs(value)
    if not isinstance(value, list):
        raise ValueError("wanted polygons or run lengths")
    polygons = [value] if value and not isinstance(value[0], list) else value
    made = [polygon for polygon in map(_polygon, polygons) if len(polygon) >= 3]
    return Mask(polygons=tuple(made)) if made else None


def decode_counts(text: str) -> NDArray[np.int64]:
    """int64 [r]: the run lengths of a compressed text.

    Each number is written in groups of five bits, the lowest first, one character (from "0" on) each: 0x20 says that
    more follow, 0x10 of the last one that the number is negative. From the fourth on it is the difference to the run
    before the last (pycocotools, maskApi.c, rleFrString). Raises ValueError: it is none.
    """
    try:
        groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("counts holds characters that no run lengths have") from None
    if not len(groups):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(groups & 0x20 == 0)
    if groups.min() < 0 or groups.max() > 63 or not len(ends) or ends[-1] != len(groups) - 1:
        raise ValueError("counts is no text of run lengths, or it was cut short")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError("counts holds a number beyond all images")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 0x1F) << 5 * place, starts)
    numbers -= np.where(groups[ends] & 0x10, np.int64(1) << 5 * lengths, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def checked_runs(runs: NDArray[np.int64], size: tuple[int, int]) -> Mask:
    """The mask of runs int64 [r] of an image of `size` (height, width). Raises ValueError: they don't sum to it."""
    height, width = size
    pixels = height * width
    if min(size) < 1 or pixels > _MOST_PIXELS:
        raise ValueError(f"its size is {height} x {width}, wanted height and width in pixels")
    # Each of them is judged before their sum, which may come around.
    if len(runs) > pixels + 1 or (len(runs) and not 0 <= runs.min() <= runs.max() <= pixels):
        raise ValueError(f"its runs are no lengths in {height} x {width} pixels")
    if (total := int(runs.sum())) != pixels:
        raise ValueError(f"its runs sum to {total}, wanted {height} x {width} pixels")
    return Mask(runs=runs, size=size)


def _runs(value: dict[str, Any]) -> Mask:
    size, counts = value.get("size"), value.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(side) for side in size)):
        raise ValueError(f"its size is {size!r:.40}, wanted [height, width] in pixels")
    if isinstance(counts, str):
        runs = decode_counts(counts)
    elif isinstance(counts, list) and all(_is_whole(count) for count in counts):
        runs = np.array(counts, np.int64)
    else:
        raise ValueError(f"its counts are {counts!r:.40}, wanted whole numbers or a text")
    return checked_runs(runs, (size[0], size[1]))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_PIXELS


def _polygon(value: Any) -> NDArray[np.float32]:
    """float32 [m, 2] of x, y one after the other. Raises ValueError."""
    if not isinstance(value, list) or len(value) % 2:
        raise ValueError("a polygon of it is no list of x, y of each corner")
    if not _NUMBERS.issuperset(map(type, value)):  # True is no number here
        raise ValueError("a polygon of it holds what is no number")
    try:
        with np.errstate(over="ignore"):
            made = np.array(value, np.float64).astype(np.float32).reshape(-1, 2)
    except OverflowError:
        raise ValueError("a polygon of it holds numbers beyond all images") from None
    if not np.isfinite(made).all():
        raise ValueError("a polygon of it holds numbers that are not finite")
    return made
