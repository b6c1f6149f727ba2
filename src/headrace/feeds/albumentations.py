"""Transforms of Albumentations as an augmentation. When they are called, and with what, is left to the loader."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from headrace.errors import UsageError
from headrace.feeds import require
from headrace.imaging import geometry
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import MIN_VISIBLE, Array

A = require("albumentations", extra="albumentations")


class Albumentations:
    """A transform of Albumentations called as one of ours: hr.augment.albumentations makes it. From any thread; it
    pickles.

    Boxes and keypoints go in and out by parameters of its own making; of `bbox_params` that the caller's Compose has,
    `min_area`, `min_visibility`, `min_width`, `min_height` and `max_accept_ratio` count. Albumentations cuts boxes by
    itself, so `min_visibility` is the loader's usual 0.3 where nothing else is said. A transform keeps what it has
    drawn in itself: each thread has a copy. `mirrors`: the first transform in it that mirrors, which swaps no left and
    right keypoints. `title`: what it is, for people.
    """

    def __init__(self, transform: Any) -> None:
        if isinstance(transform, type) or not isinstance(transform, A.BasicTransform | A.BaseCompose):
            raise UsageError(
                f"albumentations: {transform!r:.80}, wanted a transform of Albumentations, such as "
                "A.Compose([A.Rotate(10), A.ColorJitter()])"
            )
        self.transform = transform
        parts = list(_parts(transform))
        self.mirrors = next((name for name in parts if name in _MIRRORS), None)
        self.title = f"albumentations({', '.join(parts):.80})"
        self._compose = _whole(transform)
        self._copies = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.transform,)

    def __repr__(self) -> str:
        return self.title

    def __call__(
        self, pixels: Pixels, boxes: Array, points: Array, rng: np.random.Generator, /
    ) -> tuple[Pixels, Array, Array]:
        compose = getattr(self._copies, "compose", None)
        if compose is None:
            compose = self._copies.compose = copy.deepcopy(self._compose)
        compose.set_random_state(rng, random.Random(int(rng.integers(1 << 63))))
        shown = np.flatnonzero(geometry.area(boxes) > 0)  # the box of a point alone is none to Albumentations
        n, k = points.shape[:2]
        out = compose(image=pixels, bboxes=boxes[shown], of=shown, keypoints=points[..., :2].reshape(-1, 2))
        moved, seen = boxes.copy(), points.copy()
        moved[shown] = 0  # but for those that come back
        back = np.asarray(out["of"], np.int64)
        moved[back] = np.asarray(out["bboxes"], np.float32).reshape(-1, 4)[:, :4]
        if points.size:
            found = np.asarray(out["keypoints"], np.float32)
            if len(found) == n * k:
                seen[..., :2] = found.reshape(n, k, 2)
            else:
                raise UsageError(f"{len(found)} of {n * k} keypoints came back, so that nobody knows which")
            seen[np.setdiff1d(shown, back)] = 0
        return out["image"], moved, seen


def _whole(transform: Any) -> Any:
    """A Compose of it that takes boxes and keypoints as we have them. Copied: it would lead back to the caller's."""
    parts, p = ([transform], 1.0) if not isinstance(transform, A.Compose) else (transform.transforms, transform.p)
    boxes = A.BboxParams(format="pascal_voc", label_fields=["of"], **_thresholds(transform))
    return A.Compose(
        copy.deepcopy(list(parts)),
        bbox_params=boxes,
        keypoint_params=A.KeypointParams("xy", remove_invisible=False),
        p=p,
    )


def _thresholds(transform: Any) -> dict[str, Any]:
    processor = getattr(transform, "processors", {}).get("bboxes")
    if processor is None:
        return {"min_visibility": MIN_VISIBLE}
    names = ("min_area", "min_visibility", "min_width", "min_height", "max_accept_ratio")
    return {name: getattr(processor.params, name) for name in names}


def _parts(transform: Any) -> Iterator[str]:
    """The names of the transforms in a transform."""
    if isinstance(transform, A.BaseCompose):
        for part in transform.transforms:
            yield from _parts(part)
    else:
        yield type(transform).__name__


_MIRRORS = frozenset({"HorizontalFlip", "VerticalFlip", "Transpose", "D4", "SquareSymmetry"})
