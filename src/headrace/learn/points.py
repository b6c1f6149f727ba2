"""How near found keypoints come to the labelled ones: PCK, and OKS with its average precision by pycocotools.

Sets of keypoints float32 [n, k, 3] = x, y in pixels and v (labelled) or score (found); one set per image and object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.errors import MissingExtraError
from headrace.learn import coco

Array = NDArray[np.float32]

# A point is right within this share of the larger side of its object's box, as Yang and Ramanan 2013, "Articulated
# Human Detection with Flexible Mixtures of Parts", count it.
ALPHA = 0.2

# OKS knows from COCO how far annotators are apart at each of its 17 points, as a share of the object's size. For other
# points nobody has measured it; this is a little stricter than COCO's mean of 0.072.
SIGMA = 0.05

COCO_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)


def sigmas(names: Sequence[str]) -> NDArray[np.float64]:
    """OKS's sigmas float64 [k]: COCO's for its 17 names in its order, else SIGMA for all. Raises MissingExtraError."""
    if tuple(names) != COCO_NAMES:
        return np.full(len(names), SIGMA)
    try:
        from pycocotools.cocoeval import Params
    except ImportError as error:
        raise MissingExtraError("COCO's sigmas need pycocotools; run: pip install 'headrace[train]'") from error
    return np.asarray(Params(iouType="keypoints").kpt_oks_sigmas, np.float64)


def sides(boxes: Array) -> NDArray[np.float64]:
    """The larger side float64 [n] of boxes [n, 4]."""
    larger: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0).astype(np.float64)
    return larger


def distances(found: Array, truth: Array, boxes: Array) -> NDArray[np.float64]:
    """How far off found points are, float64 [n, k], as shares of the larger side of the boxes [n, 4] of the objects.

    NaN where there is no labelled point, and for a box that is a single point: nothing says how large its object is.
    """
    off = np.linalg.norm(found[..., :2].astype(np.float64) - truth[..., :2], axis=-1)
    side = sides(boxes)[:, np.newaxis]
    judged = (truth[..., 2] > 0) & (side > 0)
    return np.where(judged, off / np.where(side > 0, side, 1), np.nan)


def pck(distances: NDArray[np.float64], *, alpha: float = ALPHA) -> float | None:
    """The percentage of correct keypoints, 0 to 1: those within `alpha`. None where there is none to be judged."""
    judged = distances[~np.isnan(distances)]
    return float((judged <= alpha).mean()) if len(judged) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Object keypoint similarity, 0 to 1: `oks` its mean over the objects, `ap50` and `ap` the average precision at OKS
    0.5 and over 0.5 to 0.95. None where there is nothing to be found."""

    oks: float | None
    ap50: float | None
    ap: float | None


def similarity(found: Array, truth: Array, boxes: Array, *, sigmas: NDArray[np.float64]) -> Similarity:
    """Judge a set found [n, k, 3] by the set that is there, one each in n images, with pycocotools.

    The score of a set is the mean of its points'. OKS takes the area of the boxes [n, 4] for that of the objects; of a
    box without one, the square of its larger side. Objects without a labelled point or without any extent are left out.
    Raises MissingExtraError.
    """
    judged = np.flatnonzero((truth[..., 2] > 0).any(axis=1) & (sides(boxes) > 0))
    if not len(judged):
        return Similarity(oks=None, ap50=None, ap=None)
    there: list[coco.Row] = []
    said: list[coco.Row] = []
    for i, n in enumerate(judged.tolist()):
        x0, y0, x1, y1 = boxes[n].astype(np.float64).tolist()
        size = {
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0) or float(sides(boxes[n : n + 1])[0] ** 2),
        }
        of = {"image_id": i, "category_id": 0} | size
        labelled = int((truth[n, :, 2] > 0).sum())
        there.append(of | {"keypoints": truth[n].astype(np.float64).ravel().tolist(), "num_keypoints": labelled})
        score = float(found[n, :, 2].mean())
        said.append(of | {"keypoints": found[n].astype(np.float64).ravel().tolist(), "score": score})
    judge = coco.evaluated(there, said, images=len(judged), kind="keypoints", areas={}, most=1, sigmas=sigmas)
    precision = judge.eval["precision"][..., 0]
    return Similarity(
        oks=float(np.mean([judge.ious[i, 0][0, 0] for i in range(len(judged))])),
        ap50=coco.mean(precision[0]),
        ap=coco.mean(precision),
    )
