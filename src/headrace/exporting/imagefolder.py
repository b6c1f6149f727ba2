"""Writes `imagefolder`: Hugging Face's folder of images with their metadata, a folder for each split.

    OUT/train/metadata.jsonl      {"file_name": "a.jpg", "label": "cat"}, a line for each image
    OUT/train/a.jpg               an image

Keys are those of the documentation of datasets ("Create an image dataset") where it has one: `file_name`, `label` (the
name of a class), `objects` with `bbox` (x, y, width and height in pixels) and `categories` (names), `text` (the first
caption; all of them are `captions` where any image has several). Further ones where any record has such: `labels`,
`value`, `group`, in objects `keypoints` (x, y, v of each point) and `segmentation` (COCO's), and attributes by their
names. Every line has the same keys, null for nothing, and each key one kind of values, as Arrow wants it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headrace.exporting.columns import Objects, attribute_columns
from headrace.exporting.formats import (
    BOXES,
    CAPTIONS,
    GROUP,
    KEYPOINTS,
    LABEL,
    LABELS,
    MASKS,
    SAID,
    VALUE,
    BoxClasses,
    Format,
    Item,
    Writer,
    kind_of_masks,
    says,
    stripped,
)

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

FILE = "metadata.jsonl"
_OURS = frozenset(
    (
        "file_name",
        "label",
        "labels",
        "value",
        "group",
        "text",
        "caption",
        "captions",
        "objects",
        "image",
        "width",
        "height",
    )
)
_IN_OBJECTS = frozenset(("bbox", "categories", "keypoints", "segmentation"))


class ImageFolderWriter(Writer):
    """See the module."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        self._classes = BoxClasses(dataset.box_class_names)
        self._columns = attribute_columns(dataset, without=_OURS | _IN_OBJECTS)
        self._has = frozenset(name for name, kind in SAID.items() if says(dataset, kind))
        self._has_label = bool((dataset.labels >= 0).any())
        self._objects = Objects(dataset, self._columns, masks=kind_of_masks(dataset)) if dataset.has_boxes else None
        self.holds = frozenset(
            [
                *(LABEL, LABELS, VALUE, GROUP, CAPTIONS, BOXES, KEYPOINTS, MASKS),
                *(f"attribute {column.name}" for column in self._columns),
            ]
        )
        self._files: dict[str, IO[str]] = {}
        self.reserved = tuple(f"{split}/{FILE}" for split in dataset.splits)

    def place(self, split: str, label: int) -> str:
        return split

    def wanted(self, id_: str, folder: str, label: int) -> str:
        return stripped(id_, folder)

    def make(self, item: Item) -> tuple[str, str]:
        self.save(item)
        record = item.record
        said: dict[str, Any] = {"file_name": item.name}
        if self._has_label:
            said["label"] = record.label_name
        if "labels" in self._has:
            said["labels"] = None if record.labels is None else list(record.labels)
        for name in ("value", "group"):
            if name in self._has:
                said[name] = getattr(record, name)
        if "captions" in self._has:
            said["text"] = record.captions[0] if record.captions else None
            said["captions"] = None if record.captions is None else list(record.captions)
        if self._objects is not None:
            said["objects"] = self._objects.of(item, list(self._classes.named(item)))
        said |= {column.name: column.of_image(item) for column in self._columns if not column.of_objects}
        return record.split, json.dumps(said, ensure_ascii=False) + "\n"

    def add(self, made: tuple[str, str]) -> None:
        split, line = made
        if split not in self._files:
            file = (self.out / split / FILE).open("x", encoding="utf-8", newline="\n")
            self._files[split] = self.opened.enter_context(file)
        self._files[split].write(line)


FORMAT = Format(
    name="imagefolder",
    writes="Hugging Face's folder of images with metadata.jsonl, for each split",
    make=ImageFolderWriter,
)
