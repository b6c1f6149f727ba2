"""Numbers of any kind as 8-bit levels, by the values of black and white that only the caller knows.

Depends on NumPy alone, so that sources can use it without loading the decoders.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError

Range: TypeAlias = tuple[float, float]


def check_range(given: Any) -> Range:
    """(low, high) of two numbers. Raises UsageError."""
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        raise UsageError(f"value_range is {given!r}, wanted (low, high): the values of black and of white") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"value_range is {given!r}, wanted two finite numbers, the smaller first")
    return low, high


def scaled(values: NDArray[Any], value_range: Range) -> NDArray[np.uint8]:
    """uint8 of numbers within (low, high): each v is round((v - low) * 255 / (high - low))."""
    of_bits = None
    if values.dtype.kind in "bui" and (size := values.dtype.itemsize) <= 2 and values.size > 1 << 8 * size:
        bits = np.dtype(f"u{size}")  # a table of all numbers there are, which is five times as quick as reckoning
        of_bits = _scaled(np.arange(1 << 8 * size).astype(bits).view(values.dtype), value_range)
        values = values.view(bits)
    out = np.empty(values.shape, np.uint8)
    # Some rows at a time: numbers in float64, and indices, take eight bytes each.
    step = max(1, _AT_ONCE * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        some = values[start : start + step]
        out[start : start + step] = _scaled(some, value_range) if of_bits is None else of_bits[some]
    return out


_AT_ONCE = 1 << 20  # numbers


def _scaled(values: NDArray[Any], value_range: Range) -> NDArray[np.uint8]:
    low, high = value_range
    levels = np.rint((values.astype(np.float64) - low) * (255 / (high - low)))
    return np.clip(levels, 0, 255).astype(np.uint8)


def unfit(least: float, most: float, wanted: Range) -> str | None:
    """Why numbers from `least` to `most` can't be scaled by the range, or None."""
    if math.isnan(least) or math.isnan(most):
        return "holds NaN"
    if math.isinf(least) or math.isinf(most):
        return "holds infinity"
    if least < wanted[0] or most > wanted[1]:
        return (
            f"values from {short(least)} to {short(most)}, outside of value_range "
            f"{short(wanted[0])} to {short(wanted[1])}"
        )
    return None


def short(value: Any) -> str:
    """A number for people, to seven digits."""
    return f"{float(value):.7g}"
