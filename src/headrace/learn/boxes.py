"""What is done with boxes that a model has found: overlap, suppression, matching with the truth, average precision.

Boxes float32 [n, 4] = x0, y0, x1, y1 in pixels, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.imaging.geometry import area, iou
from headrace.learn import coco
from headrace.load.targets import Found

# COCO's sizes: small below 32 x 32 pixels, large from 96 x 96.
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in one image: `boxes` float32 [n, 4], `labels` int64 [n]."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def suppressed(found: Found, *, overlap: float = 0.5) -> Found:
    """The boxes without those that overlap a better one of their label by more than `overlap`; best first."""
    order = np.argsort(-found.scores, kind="stable")
    same = found.labels[order][:, None] == found.labels[order][None]
    rivals = (iou(found.boxes[order], found.boxes[order]) > overlap) & same
    kept: list[int] = []
    beaten = np.zeros(len(order), bool)
    for i in range(len(order)):
        if not beaten[i]:
            kept.append(i)
            beaten |= rivals[i]
    best = order[kept]
    return Found(found.boxes[best], found.scores[best], found.labels[best])


def partners(found: Found, truth: Truth, *, overlap: float = 0.5) -> NDArray[np.int64]:
    """Which box of the truth each box found is of, int64 [n], -1 for a false one: best first, each takes the free box
    of its label it overlaps most."""
    overlaps = iou(found.boxes, truth.boxes) * (found.labels[:, None] == truth.labels[None])
    free = np.ones(len(truth.boxes), bool)
    of = np.full(len(found.boxes), -1, np.int64)
    for i in np.argsort(-found.scores, kind="stable"):
        left = np.where(free, overlaps[i], 0)
        if len(left) and left.max() >= overlap:
            of[i] = left.argmax()
            free[of[i]] = False
    return of


def matches(found: Found, truth: Truth, *, overlap: float = 0.5) -> NDArray[np.bool_]:
    """Which of the boxes are true, bool [n]; see `partners`."""
    true: NDArray[np.bool_] = partners(found, truth, overlap=overlap) >= 0
    return true


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Average precision as COCO has it, 0 to 1: means over classes; None where there is nothing to be found.

    `ap50` at IoU 0.5, `ap` over IoU 0.5 to 0.95. `by_size`: name -> (ap50, number of boxes) by SIZES.
    `curve` float64 [101]: precision at recall 0, 0.01, ... 1 and IoU 0.5.
    """

    ap50: float | None
    ap: float | None
    by_size: dict[str, tuple[float | None, int]]
    curve: NDArray[np.float64]


def average_precision(found: Sequence[Found], truth: Sequence[Truth], *, classes: int = 1) -> Precision:
    """Judge what was found in each image by what is there, with pycocotools. All boxes count, hard ones too.

    Raises MissingExtraError.
    """
    judge = coco.evaluated(
        _rows(truth),
        _rows(found),
        images=len(truth),
        kind="bbox",
        classes=classes,
        areas=SIZES,
        most=max(len(one.boxes) + 1 for one in found),
    )
    precision = judge.eval["precision"][..., 0]  # [overlap, recall, class, size]
    areas = np.concatenate([area(one.boxes) for one in truth]) if truth else np.zeros(0)
    counts = {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in SIZES.items()}
    at_half = np.where(precision[0, :, :, 0] < 0, np.nan, precision[0, :, :, 0])
    some = ~np.isnan(at_half).all(axis=0)
    return Precision(
        ap50=coco.mean(precision[0, :, :, 0]),
        ap=coco.mean(precision[:, :, :, 0]),
        by_size={name: (coco.mean(precision[0, :, :, i]), counts[name]) for i, name in enumerate(SIZES, start=1)},
        curve=at_half[:, some].mean(axis=1) if some.any() else np.zeros(len(at_half)),
    )


def _rows(images: Sequence[Found | Truth]) -> list[coco.Row]:
    rows = []
    for i, one in enumerate(images):
        scores = one.scores if isinstance(one, Found) else np.ones(len(one.boxes))
        for box, label, score in zip(one.boxes.tolist(), one.labels.tolist(), scores.tolist(), strict=True):
            w, h = box[2] - box[0], box[3] - box[1]
            place = {"bbox": [box[0], box[1], w, h], "area": w * h}
            rows.append({"image_id": i, "category_id": label, "score": score, **place})
    return rows
