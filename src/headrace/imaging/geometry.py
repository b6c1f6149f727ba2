"""Pure functions on boxes and points: what becomes of them when pixels are turned, moved, mirrored or cut.

Boxes float32 [n, 4] = x0, y0, x1, y1; points float32 [..., 3] = x, y, v; pixels, half-open, origin top left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Of a box that pixels are cut away from, when a photo is packed or loaded, at least this part of the area must be left;
# otherwise the box is dropped. What is left of a face below this is a chin or an ear.
MIN_VISIBLE = 0.3


class Move(NamedTuple):
    """x' = x * scale_x + shift_x, and the same for y. A negative scale mirrors. Float64 [n, 1] move each box apart."""

    scale_x: float | NDArray[np.float64]
    shift_x: float | NDArray[np.float64]
    scale_y: float | NDArray[np.float64]
    shift_y: float | NDArray[np.float64]

    def boxes(self, boxes: Array) -> Array:
        """float32 [n, 4] moved; corners stay ordered under a mirroring."""
        x = boxes[:, 0::2] * self.scale_x + self.shift_x
        y = boxes[:, 1::2] * self.scale_y + self.shift_y
        return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).astype(np.float32)

    def points(self, points: Array) -> Array:
        """float32 [..., 3] moved; absent points (v = 0) stay where they are."""
        out = points.astype(np.float32, copy=True)
        seen = points[..., 2] > 0
        out[..., 0] = np.where(seen, points[..., 0] * self.scale_x + self.shift_x, points[..., 0])
        out[..., 1] = np.where(seen, points[..., 1] * self.scale_y + self.shift_y, points[..., 1])
        return out


def cut(boxes: Array, windows: Array, *, min_visible: float) -> tuple[Array, NDArray[np.bool_]]:
    """(float32 [n, 4] what of each box lies in its window, [4] or [n, 4], bool [n] whether that counts).

    It counts when it has an area, and at least `min_visible` (0 to 1) of the whole box's.
    """
    left = np.clip(boxes, windows[..., [0, 1, 0, 1]], windows[..., [2, 3, 2, 3]]).astype(np.float32)
    visible = area(left)
    return left, (visible > 0) & (visible >= min_visible * area(boxes).astype(np.float64))


def cut_points(points: Array, windows: Array) -> Array:
    """float32 [n, k, 3] points of which those outside of their window, [4] or [n, 4], and absent ones are (0, 0, 0).

    A point on the border is inside: mirroring takes the left border to the right one.
    """
    windows = windows[..., np.newaxis, :]
    low, high = windows[..., :2], windows[..., 2:]
    inside = ((points[..., :2] >= low) & (points[..., :2] <= high)).all(axis=-1) & (points[..., 2] > 0)
    return np.where(inside[..., np.newaxis], points, 0).astype(np.float32)


def around(points: Array) -> Array:
    """float32 [n, 4]: the smallest box that holds the labelled ones of points [n, k, 3]; zeros where none is."""
    seen = points[..., 2:] > 0
    low = np.where(seen, points[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(seen, points[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    boxes = np.concatenate([low, high], axis=1)
    return np.where(np.isfinite(boxes), boxes, 0).astype(np.float32)


def clip(boxes: Array, height: int, width: int) -> Array:
    """float32 [n, 4]: what of the boxes lies inside of a `height` x `width` image; may be empty boxes."""
    limit = np.array([width, height, width, height], np.float32)
    clipped: Array = np.clip(boxes, 0, limit).astype(np.float32)
    return clipped


def area(boxes: Array) -> Array:
    """float32 [n] in square pixels; 0 for a box without extent."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: Array = (sides[:, 0] * sides[:, 1]).astype(np.float32)
    return areas


def turn_boxes(boxes: Array, orientation: int, height: int, width: int) -> Array:
    """Boxes of a stored `height` x `width` image on its upright version; `orientation` as EXIF numbers it."""
    corners = boxes.reshape(-1, 2, 2)
    x, y = _turn(corners[..., 0], corners[..., 1], orientation, height, width)
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).astype(np.float32)


def turn_points(points: Array, orientation: int, height: int, width: int) -> Array:
    """Points [..., 3] of a stored `height` x `width` image on its upright version; absent ones (v = 0) stay."""
    x, y = _turn(points[..., 0], points[..., 1], orientation, height, width)
    seen = points[..., 2] > 0
    x, y = np.where(seen, x, points[..., 0]), np.where(seen, y, points[..., 1])
    return np.stack([x, y, points[..., 2]], axis=-1).astype(np.float32)


def _turn(x: Array, y: Array, orientation: int, height: int, width: int) -> tuple[Array, Array]:
    if orientation in (5, 6, 7, 8):
        x, y, height, width = y, x, width, height
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return x, y


def iou(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU float32 [n, m] of boxes [n, 4] and [m, 4]; 0 where neither has an area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    union = area(boxes)[:, None] + area(others)[None] - common
    overlaps: NDArray[np.float32] = (common / np.maximum(union, 1e-9)).astype(np.float32)
    return overlaps
