"""Writes `csv`: one table of all images, beside them.

    OUT/annotations.csv
        filename,width,height,class,xmin,ymin,xmax,ymax,split     a row for each box, as TF Object Detection has it
        path,label,split                                          or for each image, where there are no boxes
    OUT/dir/a.jpg                                                 an image: its name in the table is its path

Corners are half-open pixels from 0, with as few decimals as give the same float32 again. An image without objects has
one row without a class and corners. Further columns, where any record has such: group, value, labels (several, with |
between them), caption (an image of several has a row for each), and attributes by their names, of objects or of images.
Comma, UTF-8, a line feed at the end; text in quotes where it must be (RFC 4180).
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.exporting.columns import attribute_columns, coordinate
from headrace.exporting.formats import (
    BOXES,
    CAPTIONS,
    GROUP,
    LABEL,
    LABELS,
    NO_WORD,
    NO_WORD_OF_CLASSES,
    VALUE,
    BoxClasses,
    Format,
    Item,
    Writer,
    says,
)

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

TABLE = "annotations.csv"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OURS = frozenset(
    (*_CORNERS, "filename", "path", "width", "height", "class", "label", "labels", "split", "group", "value", "caption")
)
_BETWEEN = "|"


class CsvWriter(Writer):
    """See the module."""

    reserved = (TABLE,)

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        self._boxed = dataset.has_boxes
        self._classes = BoxClasses(dataset.box_class_names)
        # Readers have other names for what rows say; an attribute of such a name would be taken for it.
        self._columns = attribute_columns(dataset, without=_OURS | _READ_OTHERWISE, arrow=False)
        self._has_group, self._has_value = says(dataset, GROUP), says(dataset, VALUE)
        self._has_labels = says(dataset, LABELS) and not any(_BETWEEN in name for name in dataset.class_names)
        self._has_captions = says(dataset, CAPTIONS) and not self._boxed
        self._has_label = not self._boxed and bool((dataset.labels >= 0).any())
        self.holds = frozenset(
            [
                GROUP,
                VALUE,
                *([BOXES] if self._boxed else [LABEL, CAPTIONS]),
                *([LABELS] if self._has_labels else []),
                *(f"attribute {column.name}" for column in self._columns),
            ]
        )
        file = self.opened.enter_context((folder / TABLE).open("x", encoding="utf-8", newline=""))
        self._table = csv.writer(file, lineterminator="\n")
        self._table.writerow(
            [
                *(["filename", "width", "height", "class", *_CORNERS] if self._boxed else ["path"]),
                *(["label"] if self._has_label else []),
                *(["labels"] if self._has_labels else []),
                *(["value"] if self._has_value else []),
                *(["caption"] if self._has_captions else []),
                "split",
                *(["group"] if self._has_group else []),
                *(column.name for column in self._columns),
            ]
        )

    def place(self, split: str, label: int) -> str:
        return ""

    def make(self, item: Item) -> list[list[Any]]:
        self.save(item)
        record = item.record
        if self._has_labels and record.labels is None:
            item.lost[NO_WORD_OF_CLASSES] += 1
        if not self._boxed:
            of_image = [column.of_image(item) for column in self._columns]
            return [[item.name, *self._image(item, text), *of_image] for text in record.captions or (None,)]
        start = [item.name, record.width, record.height]
        if record.boxes is None:
            item.lost[NO_WORD] += 1
        if record.boxes is None or not len(record.boxes):
            none = [None if column.of_objects else column.of_image(item) for column in self._columns]
            return [[*start, None, *[None] * 4, *self._image(item, None), *none]]
        values = [
            column.of_each(item) if column.of_objects else [column.of_image(item)] * len(record.boxes)
            for column in self._columns
        ]
        rest = self._image(item, None)
        named = zip(record.boxes.tolist(), self._classes.named(item), *values, strict=True)
        return [[*start, name, *map(coordinate, box), *rest, *more] for box, name, *more in named]

    def _image(self, item: Item, caption: str | None) -> list[Any]:
        """The cells of an image between those of its path or box and those of attributes."""
        record = item.record
        return [
            *([record.label_name] if self._has_label else []),
            *([_BETWEEN.join(record.labels or ())] if self._has_labels else []),
            *([record.value] if self._has_value else []),
            *([caption] if self._has_captions else []),
            record.split,
            *([record.group] if self._has_group else []),
        ]

    def add(self, made: list[list[Any]]) -> None:
        self._table.writerows(made)


# What our reader and others take for a column of their own.
_READ_OTHERWISE = frozenset(
    [
        *("file_name", "filepath", "file_path", "file", "image", "image_path", "img_path", "image_name", "img", "id"),
        *("class_name", "label_name", "category", "category_name", "classes", "tags", "categories", "text"),
        *("x_min", "y_min", "x_max", "y_max", "x1", "y1", "x2", "y2", "left", "top", "right", "bottom"),
        *("image_width", "img_width", "image_height", "img_height", "subset", "partition"),
    ]
)


FORMAT = Format(
    name="csv",
    writes="A table of boxes in TF Object Detection's columns, or of classes, values and texts, beside its images",
    make=CsvWriter,
)
