"""Called: a function of the caller's own as an augmentation, and what it gave back, checked. Chance is handed over."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging import geometry
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array
from headrace.imaging.placement import Placement


class Transform(Protocol):
    """Changes one image with its objects; any function of these four arguments is one.

    `pixels` uint8 [h, w, c] is the image as the model would get it, at the loader's size and after all that places
    pixels; it may be changed in place, and must not be kept. `boxes` float32 [n, 4] and `points` float32 [n, k, 3] are
    its objects in these pixels, empty where the target asks for none; where only points are known of an object, its box
    is the smallest around them. `rng` is the image's own, of (seed, epoch, record, place among the augmentations): all
    numbers that are drawn come from it.

    What is given back has the same shapes. Boxes and points may reach over the edge: the loader cuts them, and drops a
    box of which less than `min_visible` is left. An object that is gone is given back with a box of no area, and points
    of v = 0. Who mirrors swaps left and right points.
    """

    def __call__(
        self, pixels: Pixels, boxes: Array, points: Array, rng: np.random.Generator, /
    ) -> tuple[Pixels, Array, Array]: ...


@dataclass(frozen=True, slots=True)
class Called:
    """A Transform in the place of an augmentation: it places nothing, and is called with an image that is drawn."""

    transform: Transform
    draws = 0
    crops = False
    flips = False

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        pass

    @property
    def name(self) -> str:
        """What it is, for people."""
        for name in ("title", "__qualname__"):
            if isinstance(said := getattr(self.transform, name, None), str):
                return said
        return type(self.transform).__qualname__

    @property
    def mirrors(self) -> str | None:
        """What in it mirrors without swapping left and right points, if it says so."""
        found: str | None = getattr(self.transform, "mirrors", None)
        return found

    def apply(
        self, out: Pixels, boxes: Array, points: Array, rng: np.random.Generator, *, where: Callable[[], str]
    ) -> tuple[Array, Array]:
        """Changes `out` [h, w, c], and gives boxes [n, 4] and points [n, k, 3] that belong to it, not yet cut.

        Raises UsageError that names the transform and `where`: it failed, or gave back what can't be meant.
        """
        try:
            given = self.transform(out, boxes.copy(), points.copy(), rng)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise UsageError(f"augment: {self.name}: {where()}: {said:.500}") from error
        try:
            pixels, boxes, points = _checked(given, out, boxes, points)
        except _Unfit as error:
            raise UsageError(f"augment: {self.name}: {where()}: {error}") from None
        out[:] = pixels
        return boxes, points


def is_transform(given: Any) -> bool:
    """Whether it can be called as a Transform is."""
    if not callable(given):
        return False
    try:
        inspect.signature(given).bind(None, None, None, None)
    except TypeError:
        return False
    except ValueError:  # it doesn't say
        return True
    return True


def left(
    boxes: Array, boxed: NDArray[np.bool_], points: Array, *, height: int, width: int, min_visible: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """(boxes [n, 4] and points [n, k, 3] cut to the image, bool [n] which objects are still there).

    One of which a box is known (`boxed` bool [n]) is while `min_visible` of its box is, another while one point is.
    """
    whole = np.array([0, 0, width, height], np.float32)
    points = geometry.cut_points(points, whole)
    cut, visible = geometry.cut(boxes, whole, min_visible=min_visible)
    around = geometry.around(points)
    there = np.where(boxed, visible, (points[..., 2] > 0).any(axis=1))
    return np.where(boxed[:, np.newaxis], cut, around).astype(np.float32), points, there


class _Unfit(Exception):
    """What is wrong with what was given back."""


def _checked(given: Any, out: Pixels, boxes: Array, points: Array) -> tuple[Pixels, Array, Array]:
    if not isinstance(given, tuple | list) or len(given) != 3:
        what = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        raise _Unfit(f"gave back {what}, wanted (pixels, boxes, points)")
    pixels, new_boxes, new_points = given
    if not isinstance(pixels, np.ndarray) or pixels.dtype != out.dtype or pixels.shape != out.shape:
        what = (
            f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
        )
        raise _Unfit(
            f"gave back pixels {what}, wanted {out.dtype} {list(out.shape)}; the loader's size= resizes, and models "
            "normalise by themselves"
        )
    new_boxes = _numbers("boxes", new_boxes, boxes)
    new_points = _numbers("points", new_points, points)
    if (new_boxes[:, 2:] < new_boxes[:, :2]).any():
        box = new_boxes[(new_boxes[:, 2:] < new_boxes[:, :2]).any(axis=1)][0]
        raise _Unfit(f"gave back the box {_text(box)}, wanted x0, y0, x1, y1, the corners in their order")
    height, width = out.shape[:2]
    # A zoom takes boxes out of the image, but one that lies a whole image away was measured in something else.
    low, high = np.array([-width, -height]), np.array([2 * width, 2 * height])
    far = ((new_boxes[:, 2:] < low) | (new_boxes[:, :2] > high)).any(axis=1)
    if far.any():
        raise _Unfit(
            f"gave back the box {_text(new_boxes[far][0])}, far outside of the image of {width} x {height} pixels; "
            "give one that is gone no area"
        )
    if not np.isin(new_points[..., 2], (0, 1, 2)).all():
        raise _Unfit("gave back points whose v is not 0 (absent), 1 (hidden) or 2 (visible)")
    return pixels, new_boxes, new_points


def _numbers(what: str, given: Any, before: Array) -> Array:
    """What was given for boxes or points as float32 of the shape that they came in."""
    try:
        array = np.asarray(given).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise _Unfit(f"gave back {what} that are no numbers: {error}") from None
    if array.shape != before.shape:
        raise _Unfit(
            f"gave back {what} of shape {list(array.shape)}, wanted {list(before.shape)}, one for each that it got, as "
            "each has its label; give one that is gone a box of no area and points of v = 0"
        )
    if not np.isfinite(array).all():
        raise _Unfit(f"gave back {what} with NaN or infinity")
    return array


def _text(box: Array) -> str:
    return "[" + ", ".join(f"{side:g}" for side in box.tolist()) + "]"
