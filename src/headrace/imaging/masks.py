"""Pure functions on masks: run lengths and pixels, and what becomes of a mask when its image is turned, moved or cut.

Polygons stay polygons, and runs are turned and drawn as pixels are. What a mask can be is left to record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.imaging import codec, geometry
from headrace.imaging.geometry import Array
from headrace.imaging.placement import Placement, draw
from headrace.record import Mask

Runs = NDArray[np.int64]


def encode_runs(covered: NDArray[np.bool_]) -> Runs:
    """int64 [r] of bool [h, w]: lengths of runs down the columns, the first of pixels that are not covered.

    As COCO's RLE has them before compression (pycocotools, maskApi.c, rleEncode): only the first may be 0.
    """
    flat = covered.T.ravel()
    if not len(flat):
        return np.zeros(0, np.int64)
    bounds = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: Runs = np.diff(bounds, prepend=0, append=len(flat)).astype(np.int64)
    return np.concatenate([np.zeros(1, np.int64), runs]) if flat[0] else runs


def decode_runs(runs: Runs, size: tuple[int, int]) -> NDArray[np.bool_]:
    """bool [h, w] of runs [r] down the columns of an image of `size` (h, w).

    Raises ValueError: they don't sum to its pixels.
    """
    height, width = size
    # None of them alone is larger either: a sum of int64 may come around.
    if (len(runs) and not 0 <= runs.min() <= runs.max() <= height * width) or int(runs.sum()) != height * width:
        raise ValueError(f"the runs don't sum to {height} x {width} pixels")
    covered = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(covered, runs).reshape(width, height).T)


def area(mask: Mask) -> float:
    """What a mask covers, in square pixels: of polygons the sum of their areas, as if none lay over another."""
    if mask.runs is not None:
        return float(mask.runs[1::2].sum())
    return float(sum(geometry.polygon_area(polygon) for polygon in mask.polygons))


def turn_mask(mask: Mask, orientation: int, height: int, width: int) -> Mask:
    """The mask of a stored `height` x `width` image on its upright version; `orientation` as EXIF numbers it.

    Raises codec.BadImage: its runs are of an image of another size.
    """
    _check_size(mask, height, width)
    if orientation == 1:
        return mask
    if mask.runs is not None:
        turned = codec.upright(_pixels(mask.runs, (height, width)), orientation)
        return _of_pixels(turned)
    return Mask(
        polygons=tuple(
            geometry.turn_points(_with_v(polygon), orientation, height, width)[:, :2] for polygon in mask.polygons
        )
    )


def carry_mask(mask: Mask, placement: Placement, height: int, width: int) -> Mask:
    """The mask of a `height` x `width` image in pixels of the output of `placement`; what is not drawn there is cut.

    A mask of which nothing is left covers nothing: it has no polygons, or one run of all pixels. It is never None,
    which says that nothing is known. Where a polygon is cut in two, a seam of no width along the border joins its
    parts (Sutherland and Hodgman, Reentrant polygon clipping, 1974).
    Raises codec.BadImage: its runs are of an image of another size.
    """
    _check_size(mask, height, width)
    if mask.runs is not None:
        if placement.keeps(height, width):
            return mask
        out = np.empty((*placement.size, 1), np.uint8)
        draw(_pixels(mask.runs, (height, width)), placement, height, width, out)
        return _of_pixels(out)
    cut = (geometry.cut_polygon(polygon, placement.window) for polygon in mask.polygons)
    moved = (placement.move.points(_with_v(polygon))[:, :2] for polygon in cut if len(polygon))
    if (warp := placement.warp) is not None:
        warped = (warp.points(_with_v(polygon))[:, :2] for polygon in moved)
        whole = (0, 0, placement.size[1], placement.size[0])
        moved = (polygon for given in warped if len(polygon := geometry.cut_polygon(given, whole)))
    limit = np.array(placement.size[::-1], np.float32)  # rounding may reach over the edge
    return Mask(polygons=tuple(np.clip(polygon, 0, limit).astype(np.float32) for polygon in moved))


def _check_size(mask: Mask, height: int, width: int) -> None:
    if mask.size is not None and tuple(mask.size) != (height, width):
        of = f"{mask.size[1]} x {mask.size[0]}"
        raise codec.BadImage("label", f"the image is {width} x {height} pixels, a mask of it is for {of}")


def _pixels(runs: Runs, size: tuple[int, int]) -> codec.Pixels:
    return decode_runs(runs, size)[..., np.newaxis].astype(np.uint8) * 255


def _of_pixels(pixels: codec.Pixels) -> Mask:
    """What is lighter than half in uint8 [h, w, 1]."""
    return Mask(runs=encode_runs(pixels[..., 0] >= 128), size=(pixels.shape[0], pixels.shape[1]))


def _with_v(polygon: Array) -> Array:
    return np.concatenate([polygon, np.ones((len(polygon), 1), polygon.dtype)], axis=1).astype(np.float32)
