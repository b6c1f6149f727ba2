"""Writes `parquet`: images in a column of Parquet files, as Hugging Face stores datasets and `load_dataset` opens them.

    OUT/data/train-00000-of-00002.parquet    image {bytes, path} · label · objects {bbox, categories} · text …

A column for each thing that any record says, null where one doesn't: `label` and `labels` (numbers of classes, whose
names the metadata `huggingface` holds), `value`, `group`, `text` (the first caption) and `captions`, `objects` with
`bbox` (x, y, width and height in pixels), `categories` (numbers, likewise), `keypoints` (x, y, v of each point),
`segmentation` (COCO's) and attributes of objects, and attributes of images. image.path is the name of the image.

A file holds 100 MB of images or a little more, in row groups of 100, as Hugging Face's own do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

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
    image_bytes,
    kind_of_masks,
    says,
)
from headrace.format import footer

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

FILE_BYTES = 100_000_000  # of images, from which on the next file begins
_GROUP = 100  # rows of a row group

_OURS = frozenset(("image", "label", "labels", "value", "group", "text", "captions", "caption", "objects"))
_IN_OBJECTS = frozenset(("bbox", "bboxes", "category", "categories", "keypoints", "segmentation", "width", "height"))

_TYPES: dict[type, tuple[Any, str]] = {
    int: (pl.Int64, "int64"),
    float: (pl.Float64, "float64"),
    str: (pl.String, "string"),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """A column: its type, and what it is to Hugging Face."""

    dtype: Any
    feature: Any


class ParquetWriter(Writer):
    """See the module."""

    carries = True

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        (folder / "data").mkdir()
        self._classes = BoxClasses(dataset.box_class_names)
        self._columns = attribute_columns(dataset, without=_OURS | _IN_OBJECTS)
        self._masks = kind_of_masks(dataset)
        self._objects = Objects(dataset, self._columns, masks=self._masks) if dataset.has_boxes else None
        self._has = frozenset(name for name, kind in SAID.items() if says(dataset, kind))
        self._has_label = bool((dataset.labels >= 0).any())
        self._numbers = {name: i for i, name in enumerate(dataset.class_names)}
        self.holds = frozenset(
            [
                *(LABEL, LABELS, VALUE, GROUP, CAPTIONS, BOXES, KEYPOINTS, MASKS),
                *(f"attribute {column.name}" for column in self._columns),
            ]
        )
        self._files = {split: _Files(counts) for split, counts in _planned(dataset).items()}

    def place(self, split: str, label: int) -> str:
        return ""

    def make(self, item: Item) -> tuple[str, dict[str, Any]]:
        record = item.record
        row: dict[str, Any] = {"image": {"bytes": record.encoded, "path": item.name}}
        if self._has_label:
            row["label"] = record.label
        if "labels" in self._has:
            row["labels"] = None if record.labels is None else [self._numbers[name] for name in record.labels]
        for name in ("value", "group"):
            if name in self._has:
                row[name] = getattr(record, name)
        if "captions" in self._has:
            row["text"] = record.captions[0] if record.captions else None
            row["captions"] = None if record.captions is None else list(record.captions)
        if self._objects is not None:
            row["objects"] = self._objects.of(item, list(self._classes.of(item)))
        row |= {column.name: column.of_image(item) for column in self._columns if not column.of_objects}
        return record.split, row

    def add(self, made: tuple[str, dict[str, Any]]) -> None:
        split, row = made
        files = self._files[split]
        files.rows.append(row)
        if len(files.rows) == files.counts[files.written]:
            path = self.out / "data" / f"{split}-{files.written:05d}-of-{len(files.counts):05d}.parquet"
            self._write(path, files.rows)
            files.rows.clear()
            files.written += 1

    def close(self) -> Counter[str]:
        # Only now all is known that the classes of objects are called.
        texts = {"huggingface": json.dumps({"info": {"features": self._features()}})}
        for path in sorted((self.out / "data").iterdir()):
            footer.retell(path, texts)
        return Counter()

    def _write(self, path: Path, rows: list[dict[str, Any]]) -> None:
        schema = {name: kind.dtype for name, kind in self._kinds().items()}
        frame = pl.DataFrame(
            {name: pl.Series(name, [row[name] for row in rows], kind) for name, kind in schema.items()}
        )
        with path.open("xb") as file:
            # No statistics: the least and the greatest of images would be in the file once more.
            frame.write_parquet(file, compression="snappy", statistics=False, row_group_size=_GROUP)

    def _features(self) -> dict[str, Any]:
        return {name: kind.feature for name, kind in self._kinds().items()}

    def _kinds(self) -> dict[str, _Kind]:
        """The columns that there are."""
        text, classes = _value(str), _label(self.dataset.class_names)
        kinds = {"image": _Kind(pl.Struct({"bytes": pl.Binary, "path": pl.String}), {"_type": "Image"})}
        if self._has_label:
            kinds["label"] = classes
        some = {"labels": _list(classes), "value": _value(float), "group": text}
        kinds |= {name: kind for name, kind in some.items() if name in self._has}
        if "captions" in self._has:
            kinds |= {"text": text, "captions": _list(text)}
        if self._objects is not None:
            kinds["objects"] = self._kind_of_objects()
        return kinds | {column.name: _value(column.kind) for column in self._columns if not column.of_objects}

    def _kind_of_objects(self) -> _Kind:
        number = _value(float)
        inner = {"bbox": _list(number), "categories": _label(self._classes.names)}
        if self.dataset.has_keypoints:
            inner["keypoints"] = _list(number)
        if self._masks == "polygons":
            inner["segmentation"] = _list(_list(number))
        elif self._masks == "runs":
            inner["segmentation"] = _struct({"size": _list(_value(int)), "counts": _list(_value(int))})
        inner |= {column.name: _value(column.kind) for column in self._columns if column.of_objects}
        return _struct({name: _list(kind) for name, kind in inner.items()})


@dataclass(slots=True)
class _Files:
    """The files of a split: how many rows each gets, the rows of the next, and how many are written."""

    counts: list[int]
    rows: list[dict[str, Any]] = field(default_factory=list)
    written: int = 0


def _planned(dataset: Dataset) -> dict[str, list[int]]:
    """Split -> how many rows each of its files gets."""
    names = list(dataset.manifest.splits)
    plans: dict[str, list[int]] = {split: [0] for split in dataset.splits}
    sizes = dict.fromkeys(plans, 0)
    lengths = image_bytes(dataset)
    for split, length in zip(dataset.store.splits_of(dataset.rows).tolist(), lengths, strict=True):
        name = names[split]
        if sizes[name] >= FILE_BYTES:
            plans[name].append(0)
            sizes[name] = 0
        plans[name][-1] += 1
        sizes[name] += int(length)
    return plans


def _value(kind: type) -> _Kind:
    dtype, name = _TYPES[kind]
    return _Kind(dtype, {"dtype": name, "_type": "Value"})


def _label(names: tuple[str, ...]) -> _Kind:
    return _Kind(pl.Int64, {"names": list(names), "_type": "ClassLabel"})


def _list(inner: _Kind) -> _Kind:
    # Newer versions of datasets call it List, and read both.
    return _Kind(pl.List(inner.dtype), {"feature": inner.feature, "length": -1, "_type": "Sequence"})


def _struct(inner: Mapping[str, _Kind]) -> _Kind:
    dtype = pl.Struct({name: kind.dtype for name, kind in inner.items()})
    return _Kind(dtype, {name: kind.feature for name, kind in inner.items()})


FORMAT = Format(
    name="parquet",
    writes="Parquet as Hugging Face stores datasets: images, classes and objects in columns",
    make=ParquetWriter,
)
