"""Label-aware resize, crop, pad, flip, warp: one Placement says where pixels go, and moves boxes and points along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging import geometry
from headrace.imaging.codec import MOST_SIDE, Pixels
from headrace.imaging.geometry import Array, Move, Warp

Fit = Literal["stretch", "crop", "pad"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """A window of the source image (x0, y0, x1, y1, whole pixels) drawn into a box of the output.

    `size` (height, width) of the output, `box` (x0, y0, x1, y1) in it; what lies around the box is black.
    `flip` mirrors the output left to right. `warp` then turns, scales, shears or shifts it, in pixels of the output;
    what comes from outside of it is black.
    """

    window: tuple[int, int, int, int]
    size: Size
    box: tuple[int, int, int, int]
    flip: bool = False
    warp: Warp | None = None

    @property
    def move(self) -> Move:
        """From source pixels to output pixels, for boxes and points; a `warp` comes after it."""
        (wx0, wy0, wx1, wy1), (bx0, by0, bx1, by1) = self.window, self.box
        sx, sy = (bx1 - bx0) / (wx1 - wx0), (by1 - by0) / (wy1 - wy0)
        tx, ty = bx0 - wx0 * sx, by0 - wy0 * sy
        return Move(-sx, self.size[1] - tx, sy, ty) if self.flip else Move(sx, tx, sy, ty)

    def mirrored(self) -> Placement:
        """The same, left to right."""
        if self.warp is None:
            return Placement(self.window, self.size, self.box, not self.flip)
        mirror = Warp(-1, 0, self.size[1], 0, 1, 0)
        return replace(self, flip=not self.flip, warp=mirror.after(self.warp).after(mirror))

    def warped(self, warp: Warp) -> Placement:
        """The same, with `warp` done to what it draws."""
        return replace(self, warp=warp if self.warp is None else warp.after(self.warp))

    def keeps(self, height: int, width: int) -> bool:
        """Whether it draws a `height` x `width` source pixel by pixel as it is."""
        whole = (0, 0, width, height)
        same = self.window == whole and self.box == whole and self.size == (height, width)
        return same and not self.flip and self.warp is None

    def least(self, height: int, width: int) -> Size:
        """(height, width) that a `height` x `width` source may be decoded to without the output losing detail."""
        (wx0, wy0, wx1, wy1), (bx0, by0, bx1, by1) = self.window, self.box
        return math.ceil(height * (by1 - by0) / (wy1 - wy0)), math.ceil(width * (bx1 - bx0) / (wx1 - wx0))


def check_size(size: int | tuple[int, int] | None) -> Size | None:
    """(height, width) of an int (square) or a pair. Raises UsageError."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or not all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in pair)
    ):
        raise UsageError(f"size is {size!r}, wanted an int or (height, width), each 1 to {MOST_SIDE}")
    return pair[0], pair[1]


def check_fit(fit: str) -> Fit:
    """`fit` itself. Raises UsageError when it is none of stretch, crop, pad."""
    if fit not in get_args(Fit):
        raise UsageError(f"fit is {fit!r}, wanted one of {', '.join(get_args(Fit))}")
    return fit  # type: ignore[return-value]


def place(height: int, width: int, size: Size, fit: Fit) -> Placement:
    """Where a `height` x `width` image goes in a `size` output.

    "stretch": both sides to size. "crop": shorter side to size, centre crop. "pad": longer side to size, centred.
    """
    out_h, out_w = size
    window, box = (0, 0, width, height), (0, 0, out_w, out_h)
    if fit == "crop":
        scale = max(out_h / height, out_w / width)
        h, w = min(height, max(1, round(out_h / scale))), min(width, max(1, round(out_w / scale)))
        x, y = (width - w) // 2, (height - h) // 2
        window = (x, y, x + w, y + h)
    elif fit == "pad":
        scale = min(out_h / height, out_w / width)
        h, w = min(out_h, max(1, round(height * scale))), min(out_w, max(1, round(width * scale)))
        x, y = (out_w - w) // 2, (out_h - h) // 2
        box = (x, y, x + w, y + h)
    return Placement(window, size, box)


def carry(
    boxes: Array, placements: Sequence[Placement], of: NDArray[np.int64], *, min_visible: float
) -> tuple[Array, NDArray[np.int64]]:
    """Boxes [n, 4] of several source images in pixels of their outputs, and int64 [m]: which of them are left there.

    `of` int64 [n] says by whose placement each box goes; all placements have one size. A box is left when at least
    `min_visible` (0 to 1) of its area is drawn.
    """
    if not len(boxes):
        return boxes, np.zeros(0, np.int64)
    windows = np.array([placement.window for placement in placements], np.float32)
    moves = np.array([placement.move for placement in placements], np.float64)
    seen, left = geometry.cut(boxes, windows[of], min_visible=min_visible)
    kept = np.flatnonzero(left)
    moved = Move(*moves[of[kept]].T[:, :, np.newaxis]).boxes(seen[kept])
    moved = geometry.clip(moved, *placements[0].size)  # rounding may reach over the edge
    if any(placement.warp is not None for placement in placements):
        share = geometry.area(seen[kept]).astype(np.float64) / geometry.area(boxes[kept])
        there = np.ones(len(kept), bool)
        for i, image in enumerate(of[kept].tolist()):
            if (warp := placements[image].warp) is not None:
                moved[i], part = geometry.warped_box(moved[i], warp, *placements[image].size)
                there[i] = part > 0 and part * share[i] >= min_visible
        moved, kept = moved[there], kept[there]
    return moved, kept


def carry_points(
    points: Array,
    placements: Sequence[Placement],
    of: NDArray[np.int64],
    *,
    mirrored: NDArray[np.int64] | None = None,
) -> Array:
    """Keypoints [n, k, 3] of several source images in pixels of their outputs; what is not drawn there is (0, 0, 0).

    `of` int64 [n] says by whose placement each set goes; all placements have one size. `mirrored` int64 [k]: which
    point comes where under a flip (mirror.order). Raises UsageError when something is flipped without it.
    """
    if not len(points):
        return points
    windows = np.array([placement.window for placement in placements], np.float32)
    moves = np.array([placement.move for placement in placements], np.float64)
    flipped = np.array([placement.flip for placement in placements])[of]
    seen = geometry.cut_points(points, windows[of])
    moved = Move(*moves[of].T[:, :, np.newaxis]).points(seen)
    height, width = placements[0].size  # rounding may reach over the edge
    moved[..., :2] = np.clip(moved[..., :2], 0, np.array([width, height], np.float32))
    if any(placement.warp is not None for placement in placements):
        whole = np.array([0, 0, width, height], np.float32)
        for i, image in enumerate(of.tolist()):
            if (warp := placements[image].warp) is not None:
                moved[i] = geometry.cut_points(warp.points(moved[i]), whole)
    if flipped.any():
        if mirrored is None:
            raise UsageError("keypoints are flipped, and nobody said which of them are left and right of each other")
        moved[flipped] = moved[flipped][:, mirrored]
    return moved


def draw(pixels: Pixels, placement: Placement, height: int, width: int, out: Pixels) -> None:
    """Draw the placement of `pixels`, decoded at any scale from a `height` x `width` source, into `out` [h, w, c]."""
    h, w = pixels.shape[:2]
    if (h, w) == (height, width) and placement.keeps(height, width):
        out[:] = pixels
        return
    x0, y0, x1, y1 = placement.window
    if (h, w) != (height, width):
        x0, x1 = _scaled(x0, x1, w / width, w)
        y0, y1 = _scaled(y0, y1, h / height, h)
    window = pixels[y0:y1, x0:x1]
    bx0, by0, bx1, by1 = placement.box
    target = out[by0:by1, bx0:bx1]
    if target.shape != out.shape:
        out[:] = 0
    if window.shape == target.shape:
        target[:] = window
    else:
        # Linear is what a scaled decode wants; more than twofold shrinking of full pixels would alias.
        shrink = min(window.shape[0] / target.shape[0], window.shape[1] / target.shape[1])
        method = cv2.INTER_AREA if shrink > 2 else cv2.INTER_LINEAR
        cv2.resize(window, (bx1 - bx0, by1 - by0), dst=target, interpolation=method)
    if placement.flip:
        cv2.flip(out, 1, dst=out)
    draw_warp(placement, out)


def draw_warp(placement: Placement, out: Pixels) -> None:
    """Does the warp of the placement, if it has one, to what was drawn into `out` [h, w, c]."""
    if placement.warp is None:
        return
    height, width = out.shape[:2]
    # OpenCV's pixels have their middles at whole numbers, ours half a pixel further.
    a, b, x, c, d, y = placement.warp
    matrix = np.array([[a, b, x + (a + b - 1) / 2], [c, d, y + (c + d - 1) / 2]], np.float64)
    out[:] = cv2.warpAffine(out, matrix, (width, height), flags=cv2.INTER_LINEAR).reshape(out.shape)


def _scaled(low: int, high: int, scale: float, limit: int) -> tuple[int, int]:
    start = min(round(low * scale), limit - 1)
    return start, max(start + 1, min(round(high * scale), limit))
