"""Faces drawn for tests, with five keypoints each: what is left and right of them looks the same."""

from __future__ import annotations

import math
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace.imaging.codec import Pixels, encode_jpeg
from headrace.sources import SourceInfo

NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_PLACES = np.array([(-0.32, -0.25), (0.32, -0.25), (0.0, 0.1), (-0.25, 0.5), (0.25, 0.5)])  # of a face of radius 1


def face(
    rng: np.random.Generator, height: int = 96, width: int = 96
) -> tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]:
    """uint8 [h, w, 3] with a face somewhere, its box [4] and keypoints [5, 3]; now and then the picture's edge cuts it.

    A point that is cut off is (0, 0, 0). "left" is what is left in the picture.
    """
    side = min(height, width)
    ground = rng.integers(0, 110, (4, 4, 3), np.uint8)
    image = np.ascontiguousarray(cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC))
    r, turn = rng.uniform(0.2, 0.38) * side, rng.uniform(-0.4, 0.4)
    centre = np.array([rng.uniform(0.75 * r, width - 0.75 * r), rng.uniform(0.75 * r, height - 0.75 * r)])
    cv2.ellipse(image, _fine(centre), _fine((0.8 * r, r), 0), math.degrees(turn), 0, 360,
                rng.integers(150, 255, 3).tolist(), -1, cv2.LINE_AA, 4)  # fmt: skip
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = _PLACES * r @ rotation.T + centre
    dark = rng.integers(0, 60, 3).tolist()
    for eye in points[:2]:
        cv2.circle(image, _fine(eye), round(0.12 * r * 16), dark, -1, cv2.LINE_AA, 4)
    cv2.circle(image, _fine(points[2]), round(0.09 * r * 16), (200, 60, 60), -1, cv2.LINE_AA, 4)
    cv2.line(image, _fine(points[3]), _fine(points[4]), dark, max(1, round(0.1 * r)), cv2.LINE_AA, 4)
    image = np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    seen = ((points >= 0) & (points <= [width, height])).all(axis=1)
    keypoints = np.where(seen[:, np.newaxis], np.column_stack([points, np.full(5, 2)]), 0)
    reach = np.sqrt((np.array([0.8, 1.0]) * r * rotation) ** 2 @ np.ones(2))  # of a turned ellipse
    box = np.clip([*(centre - reach), *(centre + reach)], 0, [width, height, width, height])
    return image, box.astype(np.float32), keypoints.astype(np.float32)


def _fine(point: NDArray[np.float64] | tuple[float, float], middle: float = 0.5) -> tuple[int, int]:
    """For cv2, in sixteenths of a pixel and with the pixels' middles at whole numbers."""
    x, y = np.rint((np.asarray(point) - middle) * 16).astype(int).tolist()
    return x, y


class Faces(list[hr.Record]):
    """`n` records of photos in `folder`; a source that says its keypoints' names.

    `unlabelled`: the share of points of which, by chance, nothing is said.
    """

    def __init__(
        self, folder: Path, n: int, *, seed: int = 0, size: tuple[int, int] = (96, 96), unlabelled: float = 0.0
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            image, box, points = face(rng, *size)
            points[rng.random(len(points)) < unlabelled] = 0
            path = folder / f"{i:03d}.jpg"
            path.write_bytes(encode_jpeg(image, quality=95))
            self.append(
                hr.Record(id=path.name, path=str(path), boxes=box[None], box_labels=("face",), keypoints=points[None])
            )

    def __iter__(self) -> Generator[hr.Record, None, SourceInfo]:
        yield from super().__iter__()
        return SourceInfo(keypoint_names=NAMES)
