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


class Warp(NamedTuple):
    """x' = a x + b y + x0, y' = c x + d y + y0."""

    a: float
    b: float
    x0: float
    c: float
    d: float
    y0: float

    def after(self, first: Warp) -> Warp:
        """What `first` and then this one do."""
        a, b, x, c, d, y = first
        return Warp(
            self.a * a + self.b * c,
            self.a * b + self.b * d,
            self.a * x + self.b * y + self.x0,
            self.c * a + self.d * c,
            self.c * b + self.d * d,
            self.c * x + self.d * y + self.y0,
        )

    def around(self, x: float, y: float) -> Warp:
        """The same, with (x, y) for the origin."""
        return Warp(1, 0, x, 0, 1, y).after(self).after(Warp(1, 0, -x, 0, 1, -y))

    def points(self, points: Array) -> Array:
        """float32 [..., 3] moved; absent points (v = 0) stay where they are."""
        x, y, v = points[..., 0], points[..., 1], points[..., 2]
        seen = v > 0
        moved_x, moved_y = self.a * x + self.b * y + self.x0, self.c * x + self.d * y + self.y0
        return np.stack([np.where(seen, moved_x, x), np.where(seen, moved_y, y), v], axis=-1).astype(np.float32)


def warped_box(box: Array, warp: Warp, height: int, width: int) -> tuple[Array, float]:
    """(float32 [4] around what of the warped box [4] lies in a `height` x `width` image, the part of its area that is).

    The part is 0, and the box anything, where nothing of it does. What is warped is a parallelogram: its corner alone
    may be in the image where the box around all of it has half of its area there.
    """
    corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
    quad = warp.points(np.concatenate([corners, np.ones((4, 1), np.float32)], axis=1))[:, :2]
    seen = cut_polygon(quad, (0, 0, width, height))
    if not len(seen):
        return box, 0.0
    around = np.concatenate([seen.min(axis=0), seen.max(axis=0)]).astype(np.float32)
    return around, 1.0 if seen is quad else polygon_area(seen) / polygon_area(quad)


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


def cut_polygon(polygon: Array, window: tuple[int, int, int, int]) -> Array:
    """float32 [m, 2]: what of a polygon lies in a window; [0, 2] where it covers nothing of it."""
    for axis, side, border in ((0, 1, window[0]), (1, 1, window[1]), (0, -1, window[2]), (1, -1, window[3])):
        polygon = _beyond(polygon, axis, side, border)
    flat = len(polygon) < 3 or (np.ptp(polygon, axis=0) == 0).any()
    return polygon[:0] if flat else polygon


def _beyond(polygon: Array, axis: int, side: int, border: float) -> Array:
    """What of a polygon lies where x (axis 0) or y (1) is at least (`side` 1) or at most (-1) the border."""
    distance = side * (polygon[:, axis].astype(np.float64) - border)
    if not len(polygon) or distance.min() >= 0:
        return polygon
    before = np.roll(distance, 1)
    crossing = (before < 0) != (distance < 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (before / (before - distance))[:, np.newaxis]
        start = np.roll(polygon, 1, axis=0).astype(np.float64)
        points = start + share * (polygon - start)
    points[:, axis] = border
    both = np.stack([points, polygon.astype(np.float64)], axis=1).reshape(-1, 2)
    taken = np.stack([crossing, distance >= 0], axis=1).reshape(-1)
    beyond: Array = both[taken].astype(np.float32)
    return beyond


def polygon_area(polygon: Array) -> float:
    """Square pixels, by Gauss's area formula."""
    x, y = (polygon - polygon[0]).astype(np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


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
