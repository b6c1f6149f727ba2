"""Writes `coco`: COCO's JSON for detection, keypoints, masks and captions. A file of each split, and its images.

    OUT/annotations/instances_train.json           boxes; person_keypoints_train.json where objects have keypoints
    OUT/annotations/captions_train.json            captions, where there are any
    OUT/annotations/image_info_train.json          the images alone, where nothing is said of objects or captions
    OUT/images/train/a.jpg                         an image: its file_name is a.jpg, and so is its id

bbox is x, y, width, height in pixels, 0-based, with as few decimals as give the same float32 corners again. An object's
area is what the data says, where its images still have the size that it was measured in; else that of its mask or box.
`image_id` and `annotation_id` of the data are taken over where they are whole numbers and each occurs once in a split,
else ids count from 1. Runs are COCO's own, as a list. What COCO has no key for stands in `attributes` of an image or an
annotation, as CVAT and datumaro write it. Classes are the same for all splits, from 1.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from headrace.exporting.columns import coordinate, segmentation
from headrace.exporting.formats import (
    ATTRIBUTES,
    BOXES,
    CAPTIONS,
    KEYPOINTS,
    MASKS,
    NO_WORD,
    BoxClasses,
    Format,
    Item,
    Writer,
    number,
    says,
    xywh,
)
from headrace.format import catalog
from headrace.record import Mask

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

# Attributes that have keys of COCO's own; what else there is comes into `attributes`.
_OF_IMAGES = frozenset(("image_id",))
_OF_OBJECTS = frozenset(("annotation_id", "area", "is_crowd", "segmentation", "visibility"))

# What packing changes sizes by, as the manifest calls it.
_RESIZING = ("size", "max_side", "min_side_to", "differs")


class CocoWriter(Writer):
    """See the module."""

    holds = frozenset([BOXES, KEYPOINTS, MASKS, CAPTIONS, ATTRIBUTES])

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        (folder / "annotations").mkdir()
        self._classes = BoxClasses(dataset.box_class_names)
        self._keeps_sizes = not any(dataset.manifest.pack_options.get(name) for name in _RESIZING)
        ids = _given_ids(dataset)
        self._says_objects = dataset.has_boxes or dataset.has_keypoints
        texts = says(dataset, CAPTIONS)
        kind = "person_keypoints" if dataset.has_keypoints else "instances" if self._says_objects else None
        kind = kind or (None if texts else "image_info")

        def file(name: str | None, split: str) -> _File | None:
            path = folder / "annotations" / f"{name}_{split}.json"
            return None if name is None else _File(path, self.opened, annotated=name != "image_info")

        self._splits = {
            split: _Split(ids[split], file(kind, split), file("captions" if texts else None, split))
            for split in dataset.splits
        }

    def place(self, split: str, label: int) -> str:
        return f"images/{split}"

    def make(self, item: Item) -> _Made:
        self.save(item)
        record = item.record
        image: dict[str, Any] = {"file_name": item.name, "width": record.width, "height": record.height}
        if rest := {name: value for name, value in record.attributes.items() if name not in _OF_IMAGES}:
            n = None if record.boxes is None else len(record.boxes)
            rest = {name: value for name, value in rest.items() if not (isinstance(value, list) and len(value) == n)}
            item.lost.update(f"attribute {name}" for name in rest.keys() & _OF_OBJECTS)
            if rest := {name: value for name, value in rest.items() if name not in _OF_OBJECTS}:
                image["attributes"] = rest
        objects = list(self._objects(item))
        if record.boxes is None and record.keypoints is None and self._says_objects:
            item.lost[NO_WORD] += 1
        return _Made(
            split=record.split,
            image=image,
            image_id=record.attributes.get("image_id"),
            objects=objects,
            object_ids=record.attributes.get("annotation_id"),
            captions=record.captions or (),
        )

    def _objects(self, item: Item) -> Iterator[dict[str, Any]]:
        """The annotations of a record, without their ids."""
        record = item.record
        points = record.keypoints
        if record.boxes is None:
            return
        n = len(record.boxes)
        of_each = {name: value for name, value in record.attributes.items() if _is_list(value, n)}
        for i, (box, kind) in enumerate(zip(record.boxes.tolist(), self._classes.of(item), strict=True)):
            attributes = {name: value[i] for name, value in of_each.items() if value[i] is not None}
            mask = None if record.masks is None else record.masks[i]
            _, _, w, h = corners = xywh(box)
            made: dict[str, Any] = {
                "category_id": kind + 1,
                "bbox": corners,
                "area": self._area(attributes, mask, w, h),
            }
            made["iscrowd"] = 1 if attributes.get("is_crowd") == 1 else 0
            if mask is not None:
                made["segmentation"] = segmentation(mask)
            elif "segmentation" in attributes and self._keeps_sizes:
                made["segmentation"] = attributes["segmentation"]
            if points is not None:
                seen = attributes.get("visibility")
                made["keypoints"] = _keypoints(points[i], seen)
                made["num_keypoints"] = int((points[i, :, 2] > 0).sum())
            if rest := {name: value for name, value in attributes.items() if name not in _OF_OBJECTS}:
                made["attributes"] = rest
            yield made

    def _area(self, attributes: Mapping[str, Any], mask: Mask | None, w: float, h: float) -> int | float:
        given = attributes.get("area")
        # Of more than its box no object has; such an area is that of another size of the image.
        if self._keeps_sizes and isinstance(given, int | float) and 0 <= given <= 1.01 * w * h + 1:
            return number(given)
        return number(round(w * h if mask is None else _covered(mask), 2))

    def add(self, made: _Made) -> None:
        self._splits[made.split].add(made)

    def close(self) -> Counter[str]:
        names = list(self.dataset.keypoint_names)
        points = {"keypoints": names, "skeleton": []} if names else {}
        categories = [
            {"id": i, "name": name, "supercategory": "", **points} for i, name in enumerate(self._classes.names, 1)
        ]
        for split in self._splits.values():
            split.close(categories)
        return Counter()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What the lists of a split get of a record: its image and its objects without their ids, and the ids it says."""

    split: str
    image: Mapping[str, Any]
    image_id: Any
    objects: Sequence[Mapping[str, Any]]
    object_ids: Any
    captions: Sequence[str]


class _Split:
    """The files of one split, written as its records come. `given`: (image ids, annotation ids) are taken over."""

    def __init__(self, given: tuple[bool, bool], file: _File | None, captions: _File | None) -> None:
        self._images_given, self._objects_given = given
        self._images = self._objects = self._texts = 0
        self._file, self._captions = file, captions

    def add(self, made: _Made) -> None:
        self._images += 1
        image = {"id": made.image_id if self._images_given else self._images, **made.image}
        for file in (self._file, self._captions):
            if file is not None:
                file.images.add(image)
        for i, of in enumerate(made.objects):
            self._objects += 1
            id_ = made.object_ids[i] if self._objects_given else self._objects
            assert self._file is not None
            self._file.annotations.add({"id": id_, "image_id": image["id"], **of})
        for text in made.captions:
            self._texts += 1
            assert self._captions is not None
            self._captions.annotations.add({"id": self._texts, "image_id": image["id"], "caption": text})

    def close(self, categories: Sequence[Mapping[str, Any]]) -> None:
        if self._file is not None:
            self._file.close(categories)
        if self._captions is not None:
            self._captions.close(None)


class _File:
    """A COCO file: its images are written as they come, its annotations beside it and joined to it in the end."""

    def __init__(self, path: Path, opened: contextlib.ExitStack, *, annotated: bool = True) -> None:
        self._beside, self._annotated = path.with_suffix(".annotations"), annotated
        self._file, self._rest = (opened.enter_context(name.open("xb")) for name in (path, self._beside))
        self._file.write(b'{"info":{},"licenses":[],"images":')
        self.images, self.annotations = _List(self._file), _List(self._rest)

    def close(self, categories: Sequence[Mapping[str, Any]] | None) -> None:
        self.images.close()
        self.annotations.close()
        self._rest.close()
        with self._file as file:
            if self._annotated:
                file.write(b',"annotations":')
                with self._beside.open("rb") as rest:
                    shutil.copyfileobj(rest, file, 1 << 20)
            if categories is not None:
                file.write(b',"categories":' + _json(categories))
            file.write(b"}\n")
        self._beside.unlink()


class _List:
    """A JSON list, an element a line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._any = file, False

    def add(self, element: Mapping[str, Any]) -> None:
        self._file.write((b",\n" if self._any else b"[\n") + _json(element))
        self._any = True

    def close(self) -> None:
        self._file.write(b"\n]" if self._any else b"[]")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _is_list(value: Any, n: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == n


# --- numbers ---------------------------------------------------------------------------------------------------------


def _keypoints(points: Any, seen: Any) -> list[int | float]:
    """x, y, v of each point, one after the other; v as it was given (`seen`), where that was a fraction."""
    flat: list[int | float] = []
    for i, (x, y, v) in enumerate(points.tolist()):
        given = seen[i] if _is_list(seen, len(points)) and isinstance(seen[i], int | float) else v
        flat += [coordinate(x), coordinate(y), number(given)]
    return flat


def _covered(mask: Mask) -> float:
    """Pixels that a mask covers; of polygons the sum of their areas, as COCO's own tools count them."""
    if mask.runs is not None:
        return float(mask.runs[1::2].sum())
    total = 0.0
    for polygon in mask.polygons:
        x, y = polygon.astype(np.float64).T
        total += abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    return total


# --- ids -------------------------------------------------------------------------------------------------------------


def _given_ids(dataset: Dataset) -> dict[str, tuple[bool, bool]]:
    """Split -> whether the image ids, and the annotation ids, that its records say can be taken over: each record, and
    each object, has one, a whole number, and none occurs twice."""
    found = {split: (_Ids(), _Ids()) for split in dataset.splits}
    names = list(dataset.manifest.splits)
    splits = dataset.store.splits_of(dataset.rows).tolist()
    counts = dataset.store.box_counts(dataset.rows).tolist() if dataset.has_boxes else [0] * len(dataset)
    said = dataset.store.table.frame(["attributes"], dataset.rows)["attributes"]
    for split, count, value in zip(splits, counts, said, strict=True):
        images, objects = found[names[split]]
        if not (images.usable or objects.usable):
            continue
        attributes = catalog.attributes(value)
        images.add([attributes.get("image_id")], 1)
        objects.add(attributes.get("annotation_id"), count)
    return {split: (images.are_unique(), objects.are_unique()) for split, (images, objects) in found.items()}


class _Ids:
    """Ids of a split, as long as all of them can be taken over."""

    def __init__(self) -> None:
        self.usable = True
        self._seen: list[int] = []

    def add(self, ids: Any, n: int) -> None:
        if n:
            self.usable &= _is_list(ids, n) and all(type(id_) is int and 0 <= id_ < 1 << 53 for id_ in ids)
            if self.usable:
                self._seen.extend(ids)

    def are_unique(self) -> bool:
        return self.usable and len(np.unique(self._seen)) == len(self._seen)


FORMAT = Format(
    name="coco",
    writes="COCO's JSON of each split, with boxes, keypoints, masks and captions, beside its images",
    make=CocoWriter,
)
