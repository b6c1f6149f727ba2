"""Average precision as COCO's own code measures it: pycocotools over tables made here, for boxes and for keypoints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.errors import MissingExtraError

Row = dict[str, Any]  # an annotation, as COCO's JSON has them; `id` is given here


def evaluated(
    truth: Sequence[Row],
    found: Sequence[Row],
    *,
    images: int,
    kind: Literal["bbox", "keypoints"],
    classes: int = 1,
    areas: Mapping[str, tuple[float, float]],
    most: int,
    sigmas: NDArray[np.float64] | None = None,
) -> Any:
    """The COCOeval of rows whose `image_id` is below `images` and whose `category_id` is below `classes`, accumulated.

    `areas`: name -> least and greatest area of the objects that count, after all of them; `most`: rows found per image.
    Raises MissingExtraError.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingExtraError("average precision needs pycocotools; run: pip install 'headrace[train]'") from error

    def filled(rows: Sequence[Row]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(images)],
            "annotations": [{"id": i, "iscrowd": 0} | row for i, row in enumerate(rows, start=1)],
            "categories": [{"id": i} for i in range(classes)],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        judge = COCOeval(filled(truth), filled(found), kind)
        judge.params.areaRng = [[0.0, 1e10], *map(list, areas.values())]
        judge.params.areaRngLbl = ["all", *areas]
        judge.params.maxDets = [most]
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = sigmas
        judge.evaluate()
        judge.accumulate()
    return judge


def mean(precision: NDArray[np.float64]) -> float | None:
    """Mean of the precisions that there are; COCO says -1 where there is nothing to be found."""
    known = precision[precision >= 0]
    return float(known.mean()) if len(known) else None
