"""What a Dataset holds in numbers, out of its catalog alone: classes without a picture, equal images, values, how large
boxes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.format import equal
from headrace.format.equal import EqualImages

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

SMALL = 10.0  # square pixels: what visipedia calls a small box


def missing_classes(dataset: Dataset) -> dict[str, int]:
    """Name -> index of the classes that no record of this view has."""
    counts = dataset.class_counts.items()
    return {name: index for index, (name, n) in enumerate(counts) if not n}


def equal_images(dataset: Dataset) -> EqualImages:
    """The images of this view whose bytes occur again; adopted shards don't say of their own. Raises DamageError."""
    return equal.equal_images(dataset.store.table.parts, dataset.some_rows)


def box_statistics(dataset: Dataset) -> dict[str, Any] | None:
    """The boxes of this view; None for a dataset without boxes.

    `images` have some and `negatives` none, `most` of them are in one image; `classes`: boxes by name; `small`: those
    of an area under SMALL, and `images_with_small`; `reversed`: those whose corners are the wrong way round, which the
    packer lets none through of. `width`, `height` and `area` are dicts of mean, median, min and max in stored pixels,
    and so are `width_normalized` and so on in fractions of the image; None where there is no box.
    """
    if not dataset.has_boxes:
        return None
    store, rows = dataset.store, dataset.rows
    boxes, labels, of = store.boxes(rows)
    annotated = int(store.says_boxes(rows).sum())
    per_image = np.bincount(of, minlength=len(rows))
    size = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    turned = (size < 0).any(axis=1)
    width, height = np.abs(size).T
    across, down = width / store.width[rows][of], height / store.height[rows][of]
    small = width * height < SMALL
    counts = np.bincount(labels[labels >= 0], minlength=len(dataset.box_class_names)).tolist()
    return {
        "images": int((per_image > 0).sum()),
        "negatives": annotated - int((per_image > 0).sum()),
        "most": int(per_image.max(initial=0)),
        "classes": dict(zip(dataset.box_class_names, counts, strict=True)),
        "small": int(small.sum()),
        "images_with_small": len(np.unique(of[small])),
        "reversed": int(turned.sum()),
        "width": _spread(width),
        "height": _spread(height),
        "area": _spread(width * height),
        "width_normalized": _spread(across),
        "height_normalized": _spread(down),
        "area_normalized": _spread(across * down),
    }


def value_statistics(dataset: Dataset) -> dict[str, float] | None:
    """mean, median, min and max of what number is known of the images of this view, and how many are `without` one;
    None where there is none."""
    values = dataset.store.values(dataset.rows)
    known = values[~np.isnan(values)]
    return {**_four(known), "without": len(values) - len(known)} if len(known) else None


def _spread(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Of pixels and shares."""
    return {name: round(value, 6) for name, value in _four(values).items()} if len(values) else None


def _four(values: NDArray[np.float64]) -> dict[str, float]:
    found = {"mean": values.mean(), "median": np.median(values), "min": values.min(), "max": values.max()}
    return {name: float(value) for name, value in found.items()}
