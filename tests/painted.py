"""Pictures with a rectangle painted in them, and where in a picture it is found again."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from headrace.imaging import codec
from headrace.imaging.geometry import Array

sides = st.integers(1, 150)
fits = st.sampled_from(["stretch", "crop", "pad"])


@st.composite
def painted(draw: st.DrawFn, *, sides: st.SearchStrategy[int] = sides) -> tuple[codec.Pixels, Array]:
    """A black grey picture with a white rectangle in it, and the rectangle's box [1, 4]."""
    height, width = draw(sides), draw(sides)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return rectangle(height, width, (x0, y0, x1, y1))


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> tuple[codec.Pixels, Array]:
    """As `painted`, with this box."""
    x0, y0, x1, y1 = box
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return pixels, np.array([box], np.float32)


def whiteness(pixels: codec.Pixels) -> Array:
    """float32 [h, w], 0 black to 1 white, after a change of brightness and contrast by up to 0.4 too."""
    grey = pixels.mean(axis=-1, dtype=np.float32)
    low = min(52.0, grey.min())  # the lightest that black becomes; white stays above 142
    return (grey - low) / max(64.0, grey.max() - low)


def can_be_told(box: Array) -> bool:
    """Whether what a box [4] frames is large enough not to vanish between pixels."""
    return bool(np.ptp(box.reshape(2, 2), axis=0).min() >= 3)


def assert_painted_at(pixels: codec.Pixels, box: Array, *, within: float | tuple[float, float] = 1) -> None:
    """What is white in `pixels` [h, w, c] agrees with the box [4] to `within` pixels on each side, or to (x, y)."""
    x0, y0, x1, y1 = box
    x, y = within if isinstance(within, tuple) else (within, within)
    white = whiteness(pixels)
    assert white.max() == 1
    assert np.allclose([*_edges(white.max(0)), *_edges(white.max(1))], [x0, x1, y0, y1], rtol=0, atol=[x, x, y, y])


def _edges(profile: Array) -> tuple[float, float]:
    """Where a run of white [n] begins and ends: where a line through the pixels' middles passes half of the peak."""
    level = profile / profile.max() - 0.5
    first, last = np.flatnonzero(level >= 0)[[0, -1]]
    begin, end = 0.0, float(len(level))
    if first > 0:
        begin = first - 0.5 - level[first - 1] / (level[first] - level[first - 1])
    if last + 1 < len(level):
        end = last + 0.5 + level[last] / (level[last] - level[last + 1])
    return begin, end
