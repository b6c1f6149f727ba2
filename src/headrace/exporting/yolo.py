"""Writes `yolo`: Ultralytics' texts for detection, poses and segments, a file of each image.

    OUT/data.yaml               train, val, … (a folder of images each), names by number, kpt_shape and flip_idx
    OUT/images/train/a.jpg      an image
    OUT/labels/train/a.txt      its objects, a line each: class, centre x, centre y, width, height; a pose's x, y, v
                                behind them; or, as segments, class and x, y of the corners of a polygon

The label of an image lies where readers look for it: under the path of the image, the last /images/ of which is
/labels/, with .txt for its extension. Numbers are shares of the image's width and height, with nine decimals: 0.0001
pixel of an image of 65,535. An image without objects has an empty file, one
of which nothing is said has none; readers take both for the same. data.yaml has no `path`: all is below the file.

A segment is one polygon: an object of several has them joined by lines of no width, one of runs or without a mask has
its box's corners.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.exporting.formats import (
    BOXES,
    FLIP_PAIRS,
    KEYPOINTS,
    MASKS,
    NO_WORD,
    BoxClasses,
    Format,
    Item,
    Writer,
    kind_of_masks,
)
from headrace.imaging import mirror
from headrace.record import Mask
from headrace.sources.formats import Option

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

Task = Literal["detect", "pose", "segment"]


class YoloWriter(Writer):
    """See the module. `task`: what lines hold; by default pose where objects have keypoints, else detect."""

    def __init__(self, dataset: Dataset, folder: Path, *, task: Task | None = None) -> None:
        super().__init__(dataset, folder)
        self._task: Task = task or ("pose" if dataset.has_keypoints else "detect")
        if task == "pose" and not dataset.has_keypoints:
            raise UsageError(f"task is 'pose', and {dataset.title} has no keypoints; wanted detect or segment")
        if task == "segment" and kind_of_masks(dataset) is None:
            raise UsageError(f"task is 'segment', and {dataset.title} has no masks; wanted detect or pose")
        more = {"detect": (), "pose": (KEYPOINTS, FLIP_PAIRS), "segment": (MASKS,)}[self._task]
        self.holds = frozenset([BOXES, *more])
        self._classes = BoxClasses(dataset.box_class_names)

    def place(self, split: str, label: int) -> str:
        return f"images/{split}"

    def make(self, item: Item) -> None:
        self.save(item)
        record = item.record
        if record.boxes is None:
            item.lost.update([NO_WORD] if self.dataset.has_boxes else [])
            return
        lines = (f"{kind} {' '.join(map(_share, shares))}\n" for kind, shares in self._objects(item))
        self.write(label_path(item.path), "".join(lines).encode())

    def add(self, made: Any) -> None:
        pass

    def _objects(self, item: Item) -> Iterator[tuple[int, Iterable[float | str]]]:
        """(class, shares) of each object."""
        record = item.record
        if record.boxes is None:
            return
        side = np.array([record.width, record.height], np.float64)
        points = record.keypoints
        for i, (box, kind) in enumerate(zip(record.boxes.astype(np.float64), self._classes.of(item), strict=True)):
            low, high = box[:2] / side, box[2:] / side
            centred = [*((low + high) / 2), *(high - low)]
            if self._task == "segment":
                mask = None if record.masks is None else record.masks[i]
                yield kind, (_polygon(box, mask, item) / side).reshape(-1).tolist()
            elif self._task == "pose":
                of = np.zeros((self.dataset.keypoints, 3)) if points is None else points[i].astype(np.float64)
                shares = [[x, y, str(int(v))] for (x, y), v in zip((of[:, :2] / side).tolist(), of[:, 2], strict=True)]
                yield kind, [*centred, *(value for point in shares for value in point)]
            else:
                yield kind, centred

    def close(self) -> Counter[str]:
        found: dict[str, Any] = {split: f"images/{split}" for split in self.dataset.splits}
        found["names"] = dict(enumerate(self._classes.names))
        if self._task == "segment":
            found["task"] = "segment"
        if self._task == "pose":
            k, pairs = self.dataset.keypoints, self.dataset.flip_pairs
            found["kpt_shape"] = [k, 3]
            found["flip_idx"] = mirror.order(k, pairs).tolist()
            if self.dataset.keypoint_names:
                found["kpt_names"] = {i: list(self.dataset.keypoint_names) for i in found["names"]}
        text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1 << 20)
        self.write("data.yaml", text.encode())
        return Counter()


def label_path(image: str) -> str:
    """Where readers look for the labels of an image: at its path below OUT, the last images/ of which is labels/."""
    above, _, below = f"/{image}".rpartition("/images/")
    return posixpath.splitext(f"{above}/labels/{below}"[1:])[0] + ".txt"


def _share(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _polygon(box: NDArray[np.float64], mask: Mask | None, item: Item) -> NDArray[np.float64]:
    """One polygon [m, 2] of an object, in pixels."""
    polygons: Sequence[NDArray[np.float32]] = () if mask is None or mask.runs is not None else mask.polygons
    if not polygons:
        item.lost["masks of runs or none, written as their boxes"] += 1
        x0, y0, x1, y1 = box
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if len(polygons) > 1:
        item.lost["objects of several polygons, joined"] += 1
    first = polygons[0][:1]
    # To each further polygon and back, so that nothing is covered between them.
    joined = [polygons[0], *(part for other in polygons[1:] for part in (first, other, other[:1]))]
    return np.concatenate([*joined, *([first] if len(polygons) > 1 else [])]).astype(np.float64)


FORMAT = Format(
    name="yolo",
    writes="YOLO (Ultralytics): a text of boxes, poses or segments for each image, and data.yaml",
    make=YoloWriter,
    beside=(".txt",),
    options=(
        Option(name="task", type=Task, help="What lines hold; by default pose where there are keypoints, else detect."),
    ),
)
