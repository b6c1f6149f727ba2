"""What boxes and keypoints of an image can be: the one judge, whoever brings them.

A box that can't be used is left out, and counted by its fault; keypoints that can't be used are a reason to refuse the
record. How both move with pixels is left to geometry.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.imaging import geometry

VISIBILITIES = (0, 1, 2)  # absent, hidden, visible

# By number, what is wrong with a box; 0 is nothing.
FAULTS = ("", "not finite", "reversed", "without an area", "outside of the image")


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
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    boxes = np.where(finite[:, None], boxes, 0).astype(np.float32)
    inside = np.clip(boxes, borders[..., [0, 1, 0, 1]], borders[..., [2, 3, 2, 3]]).astype(np.float32)
    low, high = boxes[:, :2], boxes[:, 2:]  # no difference of them: it may be beyond all numbers
    outside = geometry.area(inside) == 0
    empty = (high == low).any(axis=1) | (outside & (inside == boxes).all(axis=1))
    faults = np.zeros(len(boxes), np.uint8)
    for fault, of in ((4, outside), (3, empty), (2, (high < low).any(axis=1)), (1, ~finite)):
        faults[of] = fault
    return Judged(inside, faults, (faults == 0) & (inside != boxes).any(axis=1))


def count_faults(faults: NDArray[np.uint8]) -> Counter[str]:
    """Fault -> boxes that have it, of `faults` [n]."""
    counts = np.bincount(faults, minlength=len(FAULTS)).tolist()
    return +Counter(dict(zip(FAULTS[1:], counts[1:], strict=True)))


def odd_visibility(points: NDArray[np.float32]) -> float | None:
    """The first v of points [..., 3] that is none of VISIBILITIES; None where there is none."""
    odd = points[..., 2][~np.isin(points[..., 2], VISIBILITIES)]
    return float(odd[0]) if len(odd) else None


def keypoints_fault(points: NDArray[np.float32], k: int | None, boxes: int | None) -> str | None:
    """What is wrong with the keypoints [n, k, 3] of a record that has so many boxes. None for k: any number of points
    will do; for boxes: nothing is said of any."""
    if points.ndim != 3 or points.shape[2] != 3:
        return f"the keypoints have shape {list(points.shape)}, wanted [n, k, 3]"
    if k is not None and points.shape[1] != k:
        return f"{points.shape[1]} keypoints per object, in this dataset they are {k}"
    if boxes is not None and len(points) != boxes:
        return f"{boxes} boxes, {len(points)} sets of keypoints"
    for of, number in np.argwhere(~np.isfinite(points).all(axis=2)).tolist():
        return f"keypoint {number} of object {of} is {points[of, number].tolist()}, wanted finite numbers"
    if (odd := odd_visibility(points)) is not None:
        of, number = np.argwhere(points[..., 2] == odd)[0].tolist()
        return f"keypoint {number} of object {of} has v {odd:g}, wanted 0, 1 or 2"
    return None
