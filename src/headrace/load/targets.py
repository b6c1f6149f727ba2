"""Targets: a record's labels -> the array a model learns from, and back. Pixels and files are left to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, UsageError

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of a batch of b records. `classes` int64 [b], -1 where there is none.

    `boxes`, `box_labels`: per record float32 [n, 4] in pixels of the batch's images and int64 [n]; empty unless the
    target asks for them.
    """

    classes: NDArray[np.int64]
    boxes: Sequence[NDArray[np.float32]] = ()
    box_labels: Sequence[NDArray[np.int64]] = ()


class Target(Protocol):
    """What a Loader asks for targets. `wants_boxes`: whether `encode` reads boxes."""

    wants_boxes: bool

    def check(self, dataset: Dataset) -> None:
        """Raises UsageError or DataError when the dataset has not what this target needs."""
        ...

    def encode(self, labels: Labels) -> Any:
        """The targets of a batch: an array, or a dict of arrays, with the batch as first axis."""
        ...


@dataclass(frozen=True, slots=True)
class Class:
    """Class index int64 [b]."""

    wants_boxes = False

    def check(self, dataset: Dataset) -> None:
        missing = int((dataset.labels < 0).sum())
        if missing:
            raise DataError(
                f"{missing} of {len(dataset)} records have no label; leave them out with "
                "where('label IS NOT NULL') or pass another target"
            )

    def encode(self, labels: Labels) -> NDArray[np.int64]:
        return labels.classes

    def decode(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """Class index int64 [b] of probabilities [b, classes]."""
        return np.asarray(np.argmax(probabilities, axis=-1), np.int64)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Padded boxes: a dict of "boxes" float32 [b, n, 4], "labels" int64 [b, n] and "mask" bool [b, n].

    Boxes are in pixels of the batch's images. n is `most`; of more boxes the largest are kept. Padding is 0, label -1,
    mask False.
    """

    most: int = 100
    wants_boxes = True

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UsageError(f"most is {self.most}, wanted at least 1")

    def check(self, dataset: Dataset) -> None:
        if not dataset.has_boxes:
            raise UsageError("the dataset has no boxes; leave target out, or pack it from a source that has them")

    def encode(self, labels: Labels) -> dict[str, NDArray[Any]]:
        b = len(labels.boxes)
        boxes = np.zeros((b, self.most, 4), np.float32)
        names = np.full((b, self.most), -1, np.int64)
        mask = np.zeros((b, self.most), bool)
        for i, (found, kinds) in enumerate(zip(labels.boxes, labels.box_labels, strict=True)):
            sides = found[:, 2:] - found[:, :2]
            largest = np.sort(np.argsort(-sides[:, 0] * sides[:, 1], kind="stable")[: self.most])
            n = len(largest)
            boxes[i, :n], names[i, :n], mask[i, :n] = found[largest], kinds[largest], True
        return {"boxes": boxes, "labels": names, "mask": mask}

    def decode(self, target: dict[str, NDArray[Any]]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """(boxes [n, 4], labels [n]) of each image of an encoded batch."""
        rows = zip(target["boxes"], target["labels"], target["mask"], strict=True)
        return [(boxes[mask], labels[mask]) for boxes, labels, mask in rows]
