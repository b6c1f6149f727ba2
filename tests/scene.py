"""A picture that says where its object is: a rectangle in red, two dots in green and blue, found by their channels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.imaging import geometry
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array

SIZE = (96, 128)
DOT = 3.0  # radius in pixels


def scene(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> tuple[Pixels, Array, Array]:
    """(uint8 [h, w, 3], boxes [1, 4], points [1, 3, 3]); the third point is absent."""
    height, width = size
    w, h = rng.integers(24, width // 2), rng.integers(24, height // 2)
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + h, x : x + w, 0] = 255
    points = np.array([[[x + w / 3, y + h / 3, 2], [x + 0.7 * w, y + 0.6 * h, 1], [0, 0, 0]]], np.float32)
    down, along = np.mgrid[:height, :width] + 0.5
    for k in (0, 1):
        near = np.hypot(along - points[0, k, 0], down - points[0, k, 1])
        pixels[..., 1 + k] = np.clip((DOT + 0.5 - near) * 255, 0, 255)
    return pixels, np.array([[x, y, x + w, y + h]], np.float32), points


def assert_told(pixels: Pixels, boxes: Array, points: Array, *, within: float = 1.5, loose: bool = False) -> bool:
    """The box [n, 4], n up to 1, and the points of what `left` gives agree with the picture; whether a box was told.

    `loose`: of a box that the border cuts, it is enough that the rectangle is in it. Of a turned rectangle that is cut,
    what is left may be narrower than what is left of the box around it, which is what other libraries make.
    """
    height, width = pixels.shape[:2]
    if len(boxes):
        found = _extent(pixels[..., 0])
        assert found is not None
        box = boxes[0]
        cut = (box[:2] <= 0).any() or (box[2:] >= (width, height)).any()
        assert (found[:2] >= box[:2] - within).all() and (found[2:] <= box[2:] + within).all(), (found, box)
        if not (loose and cut):
            assert np.allclose(found, box, rtol=0, atol=within), (found, box)
    for k in (0, 1):
        for x, y, v in points[:, k]:
            if v and DOT + 3 < x < width - DOT - 3 and DOT + 3 < y < height - DOT - 3:
                at = _middle(pixels[..., 1 + k])
                assert at is not None
                assert np.allclose(at, (x, y), rtol=0, atol=within), (at, (x, y))
    return bool(len(boxes))


def told_apart(boxes: Array) -> bool:
    """Whether a box is large enough, so that its edges are in the picture."""
    return bool(len(boxes)) and bool(geometry.area(boxes)[0] > 60 and np.ptp(boxes[0].reshape(2, 2), axis=0).min() > 6)


def _extent(channel: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """x0, y0, x1, y1 of what is light in a channel [h, w]."""
    y, x = np.nonzero(channel > 100)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], float) if len(x) else None


def _middle(channel: NDArray[np.uint8]) -> tuple[float, float] | None:
    moments = cv2.moments(np.where(channel > 40, channel, np.uint8(0)))
    if not moments["m00"]:
        return None
    return moments["m10"] / moments["m00"] + 0.5, moments["m01"] / moments["m00"] + 0.5
