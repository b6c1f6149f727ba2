"""Pictures with a rectangle painted in them, and where in a picture it is found again."""

from __future__ import annotations

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from headrace.imaging import codec, geometry
from headrace.imaging.geometry import Array

sides = st.integers(1, 150)
fits = st.sampled_from(["stretch", "crop", "pad"])


@st.composite
def painted(draw: st.DrawFn) -> tuple[codec.Pixels, Array]:
    """A black grey picture with a white rectangle in it, and the rectangle's box [1, 4]."""
    height, width = draw(sides), draw(sides)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return pixels, np.array([[x0, y0, x1, y1]], np.float32)


def edges(profile: Array) -> tuple[float, float]:
    """Where a run of white pixels [n] begins and ends: where a line through their middles passes half of the peak."""
    level = profile / profile.max() - 0.5
    first, last = np.flatnonzero(level >= 0)[[0, -1]]
    begin, end = 0.0, float(len(level))
    if first > 0:
        begin = first - 0.5 - level[first - 1] / (level[first] - level[first - 1])
    if last + 1 < len(level):
        end = last + 0.5 + level[last] / (level[last] - level[last + 1])
    return begin, end


def assert_painted_at(pixels: codec.Pixels, box: Array) -> None:
    """What is white in `pixels` [h, w, 1] agrees with the box [4], cut to the picture, on each side to one pixel."""
    x0, y0, x1, y1 = geometry.clip(box[None], *pixels.shape[:2])[0]
    assume(min(x1 - x0, y1 - y0) >= 3)  # less may vanish between pixels
    assert pixels.max() > 128
    white = pixels[..., 0].astype(np.float32)
    assert np.allclose([*edges(white.max(0)), *edges(white.max(1))], [x0, x1, y0, y1], rtol=0, atol=1)
