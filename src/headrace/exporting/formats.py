"""What a format that can be written says of itself, and what its writer has to do. Publishing is left to export."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.sources.formats import Option

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset, StoredRecord

# What a record may say, as it is called in reports. "attributes" stands for all of them, "attribute pose" for one.
LABEL, LABELS, VALUE, CAPTIONS, GROUP = "labels", "several labels", "values", "captions", "groups"
BOXES, KEYPOINTS, MASKS, FLIP_PAIRS = "boxes", "keypoints", "masks", "flip pairs"
UNBOXED = "keypoints of objects without a box"  # which no format has a place for
POLYGONS, RUNS = "polygons", "runs"  # what masks are
_COLUMNS = {
    LABELS: "labels",
    VALUE: "value",
    CAPTIONS: "captions",
    GROUP: "group_id",
    POLYGONS: "polygons",
    RUNS: "runs",
}
# Fields of Record that columns and keys are called by.
SAID = {"labels": LABELS, "value": VALUE, "group": GROUP, "captions": CAPTIONS}

NO_WORD = "records that say nothing of boxes, written as without objects"
NO_WORD_OF_CLASSES = "records that say nothing of their classes, written as of none"

ATTRIBUTES = "attributes"

UNNAMED = "object"  # the class of boxes without one, in formats where each box has a class
UNNAMED_LOST = f"boxes without a class, written as {UNNAMED!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A record on its way out. `path` of its image below OUT, as bytes of its own or, in some formats, only as what it
    is called; `name`: the part of it below the format's folder."""

    folder: str
    name: str
    record: StoredRecord
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self.name.rpartition(".")[0]


class Writer(ABC):
    """Writes the records of one dataset into a folder. `holds`: which kinds of what they say the format has a place
    for; the others are counted as lost. `carries`: what `make` gives holds the image's bytes. `reserved`: paths of
    files below OUT that it writes beside images.

    A context manager: what it has open is closed in the end, however that comes.
    """

    holds: frozenset[str]
    carries = False
    reserved: tuple[str, ...] = ()

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset, self.out = dataset, folder
        self.opened = contextlib.ExitStack()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.close()

    @abstractmethod
    def place(self, split: str, label: int) -> str:
        """The folder, below OUT, of an image of this split and class (-1 for none)."""

    def wanted(self, id_: str, folder: str, label: int) -> str:
        """What the image of this id would be called below its folder, where it can be."""
        return id_

    @abstractmethod
    def make(self, item: Item) -> Any:
        """Writes what is the record's alone and gives what `add` needs. In any thread, in any order."""

    @abstractmethod
    def add(self, made: Any) -> None:
        """What `make` gave, in the order of the records."""

    def close(self) -> Counter[str]:
        """All records have come: writes the rest, and counts what of the whole is lost."""
        return Counter()

    def save(self, item: Item) -> None:
        """The image's own bytes, as a file at its path."""
        assert item.record.encoded is not None
        self.write(item.path, item.record.encoded)

    def write(self, path: str, data: bytes) -> None:
        """A new file below OUT; its folders are made. Never one that is there already."""
        whole = self.out / path
        try:
            file = whole.open("xb")
        except FileNotFoundError:
            whole.parent.mkdir(parents=True, exist_ok=True)
            file = whole.open("xb")
        with file:
            file.write(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format by its `name`: `make(dataset, folder, **options)` gives its Writer.

    `writes`: what that is, in a line. `beside`: extensions of the files that have an image's name. `dots`: whether the
    name of an image may hold more of them than that of its extension.
    """

    name: str
    writes: str
    make: Callable[..., Writer]
    beside: tuple[str, ...] = ()
    dots: bool = True
    options: tuple[Option, ...] = ()

    def option(self, name: str) -> Option | None:
        """The option of this name, None where it takes none."""
        return next((option for option in self.options if option.name == name), None)


def stripped(id_: str, folder: str) -> str:
    """An id without the end of its folder that it begins with: a.jpg of train/cat/a.jpg in images/train/cat."""
    parts = folder.split("/")
    for n in range(len(parts)):
        begin = "/".join(parts[n:]) + "/"
        if id_.startswith(begin) and len(id_) > len(begin):
            return id_[len(begin) :]
    return id_


def said(record: StoredRecord) -> Iterator[tuple[str, int]]:
    """(kind, how many) of all that a record says beside its image."""
    if record.label_name is not None:
        yield LABEL, 1
    if record.labels:
        yield LABELS, 1
    if record.value is not None:
        yield VALUE, 1
    if record.captions:
        yield CAPTIONS, len(record.captions)
    if record.group is not None:
        yield GROUP, 1
    if record.boxes is not None and len(record.boxes):
        yield BOXES, len(record.boxes)
    if record.keypoints is not None and (n := int((record.keypoints[..., 2] > 0).any(axis=1).sum())):
        yield (UNBOXED if record.boxes is None else KEYPOINTS), n
    if record.masks is not None and (n := sum(mask is not None for mask in record.masks)):
        yield MASKS, n
    for name, value in record.attributes.items():
        n = sum(one is not None for one in value) if isinstance(value, list | tuple) else value is not None
        if n:
            yield f"attribute {name}", int(n)


def says(dataset: Dataset, kind: str) -> bool:
    """Whether any record of a view says something of this kind: LABELS, VALUE, CAPTIONS, GROUP, POLYGONS or RUNS."""
    column = _COLUMNS[kind]
    if column not in dataset.store.table.columns:
        return False
    values = dataset.store.table.frame([column], dataset.rows)[column]
    if kind in (POLYGONS, RUNS):  # an object has a null without a mask, and no polygons where it has runs
        return bool((values.explode().list.len() > 0).any())
    return bool(values.is_not_null().any())


def kind_of_masks(dataset: Dataset) -> str | None:
    """POLYGONS where a view has any, else RUNS where it has any, else None."""
    return next((kind for kind in (POLYGONS, RUNS) if says(dataset, kind)), None)


def image_bytes(dataset: Dataset) -> NDArray[np.int64]:
    """Bytes int64 [n] of each image's file; of arrays, whose files are made when they are read, at most."""
    store, rows = dataset.store, dataset.rows
    known = store.table.frame(["image_length"], rows)["image_length"]
    pixels = store.height[rows].astype(np.int64) * store.width[rows] * store.channels[rows]
    return known.fill_null(pl.Series(pixels)).cast(pl.Int64).to_numpy() if known.null_count() else known.to_numpy()


def lost(record: StoredRecord, holds: frozenset[str]) -> Counter[str]:
    """How many of each kind a record says that there is no place for."""
    return Counter(
        {
            kind: n
            for kind, n in said(record)
            if kind not in holds and not (ATTRIBUTES in holds and kind.startswith("attribute "))
        }
    )


class BoxClasses:
    """The numbers of what boxes hold, in formats where each has a class. `names` are those of the dataset and, once a
    box without a class was seen, UNNAMED."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._numbers = {name: i for i, name in enumerate(names)}
        self._unnamed = False

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._names, UNNAMED) if self._unnamed and UNNAMED not in self._numbers else self._names

    def of(self, item: Item) -> list[int]:
        """The classes of a record's boxes; those without are counted as lost. In any thread."""
        return [self._numbers.get(name, len(self._names)) for name in self.named(item)]

    def named(self, item: Item) -> list[str]:
        """The same as names."""
        boxes, names = item.record.boxes, item.record.box_labels
        if boxes is None:
            return []
        found = [UNNAMED if name is None else name for name in names or [None] * len(boxes)]
        unnamed = len(boxes) if names is None else sum(name is None for name in names)
        if unnamed:
            self._unnamed = True
            item.lost[UNNAMED_LOST] += unnamed
        return found


def number(value: float) -> int | float:
    """A whole number as an int: 3 for 3.0, as people write it."""
    return int(value) if value == int(value) else value


def short(value: float, kept: Callable[[float], bool]) -> int | float:
    """The value with as few decimals as its reader needs: `kept` says of a number whether it does."""
    for digits in (0, 1, 2, 4, 6, 8):
        near = round(value, digits)
        if kept(near):
            return number(near)
    return number(value)


def as_float32(value: float) -> float:
    """The float32 nearest to a value, which is what a reader makes of it."""
    return float(np.float32(value))


def xywh(box: Sequence[float]) -> list[int | float]:
    """[x, y, width, height] of float32 corners x0, y0, x1, y1, of which a reader gets the same corners again."""
    x0, y0, x1, y1 = box
    x, w = _side(x0, x1)
    y, h = _side(y0, y1)
    return [x, y, w, h]


def _side(low: float, high: float) -> tuple[int | float, int | float]:
    begin = short(low, lambda near: as_float32(near) == low)
    return begin, short(high - begin, lambda near: as_float32(begin + near) == high)
