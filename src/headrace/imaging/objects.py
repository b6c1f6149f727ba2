"""What boxes of an image can be: the one judge, whoever brings them.

A box that can't be used is left out, and counted by its fault. What a box can be in itself, and what a record's may be,
is left to record; how they move with pixels to geometry.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.imaging import geometry
from headrace.record import BOX_FAULTS, box_faults

# By number, what is wrong with a box; 0 is nothing.
FAULTS = (*BOX_FAULTS, "outside of the image")


class Judged(NamedTuple):
    """Boxes float32 [n, 4] cut to their image; which fault each has, uint8 [n] of FAULTS; which of the good ones
    reached out of the image, bool [n]."""

    boxes: NDArray[np.float32]
    faults: NDArray[np.uint8]
    clipped: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which boxes can be used, bool [n]."""
        kept: NDArray[np.bool_] = self.faults == 0
        return kept

    def dropped(self) -> Counter[str]:
        """Fault -> boxes that have it."""
        return count_faults(self.faults)


def judge_boxes(boxes: NDArray[np.float32], borders: NDArray[np.float32]) -> Judged:
    """Boxes float32 [n, 4] = x0, y0, x1, y1 of an image, or of several, whose `borders` are [4] or [n, 4]."""
    faults = box_faults(boxes)
    boxes = np.where((faults == 1)[:, None], 0, boxes).astype(np.float32)
    inside = np.clip(boxes, borders[..., [0, 1, 0, 1]], borders[..., [2, 3, 2, 3]]).astype(np.float32)
    outside = (faults == 0) & (geometry.area(inside) == 0)
    # One that lies inside has an area, only too small a one to be a number.
    faults[outside] = np.where((inside == boxes).all(axis=1), 3, 4)[outside]
    return Judged(inside, faults, (faults == 0) & (inside != boxes).any(axis=1))


def count_faults(faults: NDArray[np.uint8]) -> Counter[str]:
    """Fault -> boxes that have it, of `faults` [n]."""
    counts = np.bincount(faults, minlength=len(FAULTS)).tolist()
    return +Counter(dict(zip(FAULTS[1:], counts[1:], strict=True)))
