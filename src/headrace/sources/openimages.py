"""Source `openimages`: Open Images' tables of boxes and of image labels, for the images that are there.

    ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
    000a1,xclick,/m/011k07,1,0.25,0.75,0.1,0.9,1,0,-1,0,0                  x, x, y, y: fractions of the image's size

    ImageID,Source,LabelName,Confidence             1: the image has it; 0: somebody looked, and it hasn't
    /m/011k07,Tortoise                              class-descriptions.csv

The official files have 14 million rows. Rows are noted only of images that are there, 28 bytes each; the others are
counted. Reads the header of each image that has boxes, for its size.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError, StorageError, UsageError
from headrace.place import paths
from headrace.record import Record, Reject, name_fault
from headrace.sources import rows, walking
from headrace.sources.folders import split_folders
from headrace.sources.formats import About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.rows import Row, Rows, shown
from headrace.sources.tabular import BadRow, Unread, attribute, check_corners, number, upright_size, word_of

_EDGES = ("XMin", "YMin", "XMax", "YMax")  # in the order that boxes have here, which is not the file's
_NEEDED = ("ImageID", "LabelName")
_FLAGS = {
    "IsOccluded": "occluded",
    "IsTruncated": "truncated",
    "IsGroupOf": "group_of",
    "IsDepiction": "depiction",
    "IsInside": "inside",
}
_FLAGGED = frozenset(_FLAGS.values())
_POSITIVE = 0.5  # confidence of a label; those of people are 0 or 1, machines' are kept from 0.5 on


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenImagesSource:
    """Iterable of Record | Reject; see `openimages`. `root` is the table of boxes, or of labels.

    Its SourceInfo counts in `skipped` the rows of images that are not there, and the images without a row.
    """

    root: Path
    images: Path
    image_labels: Path | None
    class_descriptions: Path | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        splits = split_folders(self.images)
        there = walking.by_stem(self.images, flat=True)
        files = [path for path in (self.root, self.image_labels) if path is not None]
        with ExitStack() as stack:
            tables = [_Table(path, self.class_descriptions, there) for path in files]
            for table in tables:
                stack.enter_context(table.file)
            if len(tables) == 2 and (tables[1].boxed or not tables[0].boxed):
                raise UsageError(f"image_labels is {self.image_labels}, wanted a table of labels beside one of boxes")
            bare: list[Reject] = []
            for table in tables:
                absent, of_none = table.index()
                skipped["rows of images that are not there"] += absent
                bare += of_none
            boxed = any(table.boxed for table in tables)
            each = enumerate(there.items())
            for code, (name, path) in paths.ahead(
                self.images, each, lambda one: (one[1][1],) if boxed and one[1][1] else ()
            ):
                split = splits.get((path or "").partition("/")[0])
                if (item := _item(self, tables, name, code, path, split)) is not None:
                    yield item
                else:
                    skipped["images without a row"] += 1
            yield from bare
        notes = []
        if absent := skipped["rows of images that are not there"]:
            notes.append(f"{absent} rows are of images that are not in {self.images.name}/: passed over")
        for table in tables:
            if table.described is not None and not table.strict:
                left = f"; {len(table.unknown)} others stay as they are" if table.unknown else ""
                notes.append(f"names of classes in {table.path.name} are those of {table.described.name}{left}")
        return SourceInfo(
            skipped=+skipped,
            split_names=tuple(dict.fromkeys(splits.values())) or None,
            root=str(self.root),
            notes=tuple(notes),
        )


def openimages(
    table: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    image_labels: str | os.PathLike[str] | None = None,
    class_descriptions: str | os.PathLike[str] | None = None,
) -> OpenImagesSource:
    """Images at and below the folder `images` that `table`, Open Images' boxes or image labels, has rows of.

    An image is found by its ImageID, the name of its file without extension, in whichever folder. Folders train,
    validation and test are splits, where all are called so. Ids are paths relative to `images`, in whose natural order
    records come; origins are `table:line` of the first row. Rows of images that are not there
    are passed over and counted, as are images without a row: nothing says that they are negatives.

    Boxes float32 [n, 4] in pixels of the upright image, made of fractions of its size (XMin, XMax, YMin, YMax, "in
    [0,1]" by the download page of Open Images), with `size` and `upright`. Attributes have a value for each box:
    occluded and truncated, group_of, depiction, inside: 1, 0 or -1 for unknown; source, confidence; and other columns
    by their names.

    Image labels, of `table` or of `image_labels` beside boxes, are the record's `labels`: those of a confidence of 0.5
    and more. `label_confidence` in attributes holds all, so that a label that was verified not to be there (0) is told
    from one that nobody looked for.

    class_descriptions: rows `LabelName,name`; a label without one is a Reject. By default a file beside the table whose
    name has "class-descriptions" in it, if there is one alone (of several the one with "boxable" for boxes, the one
    without for labels), where a label without a name stays as it is (/m/011k07), and `notes` say so.

    An image is a Reject when one of its rows can't be used (no number, no fraction, reversed, a flag that is none),
    or when two files have its name; a row with too few cells is one itself.
    Raises NotThereError, StorageError, UsageError (no file or folder); when iterated also DataError naming the line.
    """
    return OpenImagesSource(
        root=rows.check_table(paths.path_of(table)),
        images=walking.check_root(images),
        image_labels=None if image_labels is None else rows.check_table(paths.path_of(image_labels)),
        class_descriptions=None if class_descriptions is None else rows.check_table(paths.path_of(class_descriptions)),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is a table of Open Images, or None when nothing does. Raises StorageError."""
    try:
        cells = rows.first(rows.head(path), ",")
    except DataError:
        return None
    if not set(_NEEDED) <= set(cells):
        return None
    return f"its header names {', '.join(name for name in (*_NEEDED, *_EDGES) if name in cells)}"


FORMAT = Format(
    name="openimages",
    reads="A CSV file of Open Images, with boxes or image labels",
    takes="file",
    make=openimages,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder of images.",
            required=True,
            per_split=True,
        ),
        Option(name="image_labels", type=Path, help="The CSV file of image labels, beside that of boxes."),
        Option(name="class_descriptions", type=Path, help="The CSV file of names of classes; found by default."),
    ),
    example=("oidv6-train-annotations-bbox.csv", {"images": "train"}),
    about=About(
        recognised="a CSV file that begins with ImageID.",
        kept=(
            "boxes (fractions of the upright image; XMin, XMax, YMin, YMax in this order), occluded, "
            "truncated, group_of, depiction and inside (1, 0, -1 unknown), source and confidence; image "
            "labels of a confidence of 0.5 and more as classes, all of them in the attribute "
            "label_confidence; names by class-descriptions."
        ),
        refused=(
            "an image one of whose rows has no number, no fraction, a reversed box or a flag that is none. "
            "Rows of images that aren't there are counted: the official files have 14 million."
        ),
        sample=(
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
            "000a1,xclick,/m/011k07,1,0.25,0.75,0.1,0.9,1,0,-1,0,0"
        ),
    ),
)


class _Table:
    """A table that is open: `at` column of what, `others` attribute -> column, `names` of classes by their LabelName,
    `unknown` ones, and `rows_of`: where the rows are of the images that are there."""

    def __init__(self, path: Path, described: Path | None, there: Iterable[str]) -> None:
        self.path = path
        cells = rows.first(rows.head(path), ",")
        if missing := [name for name in _NEEDED if name not in cells]:
            has = ", ".join(map(shown, cells[:12]))
            raise DataError(f"{path}:1: no table of Open Images: its header has {has}, no {' and no '.join(missing)}")
        edges = [name for name in _EDGES if name in cells]
        if len(edges) not in (0, 4):
            raise DataError(f"{path}:1: the header has {', '.join(edges)}, wanted all of {', '.join(_EDGES)}, or none")
        self.boxed = bool(edges)
        if not self.boxed and "Confidence" not in cells:
            raise DataError(f"{path}:1: the header has no Confidence, which tells whether an image has a label")
        self.at = {name: cells.index(name) for name in (*_NEEDED, *edges, "Confidence") if name in cells}
        taken = {self.at[name] for name in (*_NEEDED, *edges)}
        named = ((i, name) for i, name in enumerate(cells) if i not in taken and name)
        self.others = {_FLAGS.get(name) or word_of(name): i for i, name in named}
        self.strict = described is not None
        self.described = described or _found_beside(path, self.boxed)
        self.names = {} if self.described is None else _descriptions(self.described)
        self.unknown: set[str] = set()
        self.rows_of = rows.Index(there)
        self.file = rows.open_table(path)
        self.rows = Rows(self.file, ",", width=len(cells))

    def index(self) -> tuple[int, list[Reject]]:
        """Notes the rows of images that are there. How many rows are of others; Rejects of those that are of none.

        Raises StorageError.
        """
        known = self.rows_of.names
        column, absent, bare = self.at["ImageID"], 0, []
        ids = {name.encode(errors="surrogateescape") for name in known}

        def over(line: bytes) -> bool:
            nonlocal absent
            name = line[: line.find(b",")].strip()
            if not name or name in ids:
                return False
            absent += 1
            return True

        try:
            walk = self.rows.walk(over=over if column == 0 else None)
            # The header is a row of an image that isn't there.
            for row in walk:
                name = row.cells[column] if column < len(row.cells) else ""
                if name in known:
                    self.rows_of.add(name, row.at, row.line)
                elif name or not any(row.cells):
                    absent += 1
                else:
                    reason = row.fault or "no ImageID in the row"
                    origin = f"{self.path.name}:{row.line}"
                    bare.append(Reject(id=f"row {row.line}", origin=origin, stage="annotation", reason=reason))
        except OSError as error:
            raise StorageError(f"{self.path}: can't be read: {(error.strerror or str(error)).lower()}") from error
        self.rows_of.close()
        return absent - 1, bare

    def read(self, at: int, line: int) -> Row:
        """Raises BadRow, DataError: the file is another one by now."""
        row = next(self.rows.walk(at, line), None)
        if row is None:
            raise DataError(f"{self.path}:{line}: the file was changed while it was read")
        if row.fault is not None:
            raise BadRow(row.fault)
        return row

    def class_of(self, row: Row) -> str:
        """Raises BadRow."""
        label = row.cells[self.at["LabelName"]]
        if fault := name_fault(label):
            raise BadRow(f"LabelName: {fault}")
        name = self.names.get(label)
        if name is None and self.described is not None:
            if self.strict:
                raise BadRow(f"class {shown(label)} is not in {self.described.name}")
            self.unknown.add(label)
        return label if name is None else name


class _Image:
    """What the rows of one image say together."""

    def __init__(self) -> None:
        self.boxes: list[tuple[float, ...]] = []
        self.classes: list[str] = []
        self.others: dict[str, list[Any]] = {}
        self.confidence: dict[str, float] = {}

    def take_box(self, table: _Table, row: Row) -> None:
        """Raises BadRow."""
        name = table.class_of(row)
        box = tuple(number(row.cells[table.at[edge]], edge) for edge in _EDGES)
        check_corners(box, normalised=True)
        others = {other: attribute(other, row.cells[i], _FLAGGED) for other, i in table.others.items()}
        self.boxes.append(box)
        self.classes.append(name)
        for other, value in others.items():
            self.others.setdefault(other, []).append(value)

    def take_label(self, table: _Table, row: Row) -> None:
        """Raises BadRow."""
        name, cell = table.class_of(row), row.cells[table.at["Confidence"]]
        confidence = number(cell, "Confidence")
        if not 0 <= confidence <= 1:
            raise BadRow(f"Confidence is {shown(cell)}, wanted 0 to 1")
        before = self.confidence.setdefault(name, confidence)
        if {before, confidence} == {0.0, 1.0}:
            raise BadRow(f"label {name} is said to be there and not to be there")
        self.confidence[name] = max(before, confidence)


def _item(
    source: OpenImagesSource, tables: list[_Table], name: str, code: int, path: str | None, split: str | None
) -> Record | Reject | None:
    """What becomes of an image; None where no table has a row of it."""
    image, origin, id_ = _Image(), "", path or name
    for table in tables:
        for at, line in table.rows_of.places(code):
            here = f"{table.path.name}:{line}"
            origin = origin or here
            try:
                row = table.read(at, line)
                if table.boxed:
                    image.take_box(table, row)
                else:
                    image.take_label(table, row)
            except BadRow as error:
                return Reject(id=id_, origin=here, stage="annotation", reason=str(error))
    if not origin:
        return None
    if path is None:
        return Reject(id=id_, origin=origin, stage="annotation", reason=f"several images are called {name}")
    full = f"{source.images}/{path}"
    refused = walking.refusal(full, os.path.realpath(source.images))
    if refused is not None:
        return Reject(id=id_, origin=origin, stage="read", reason=refused)
    boxed = bool(image.boxes)
    size, boxes = None, np.array(image.boxes, np.float64).reshape(-1, 4)
    if boxed:
        try:
            size = upright_size(full)
        except Unread as error:
            return Reject(id=id_, origin=origin, stage=error.stage, reason=str(error))
        boxes *= [size[1], size[0], size[1], size[0]]
    attributes: dict[str, Any] = dict(image.others)
    if image.confidence:
        attributes["label_confidence"] = image.confidence
    return Record(
        id=id_,
        path=full,
        labels=tuple(label for label, sure in image.confidence.items() if sure >= _POSITIVE)
        if image.confidence
        else None,
        boxes=boxes.astype(np.float32) if boxed else None,
        box_labels=tuple(image.classes) if boxed else None,
        size=size,
        upright=boxed,
        attributes=attributes,
        split=split,
        origin=origin,
    )


def _found_beside(table: Path, boxed: bool) -> Path | None:
    """The only file of descriptions in the table's folder, or the only one for boxes, or for labels."""
    try:
        found = sorted(path for path in table.parent.glob("*class-descriptions*.csv") if path.is_file())
    except OSError:
        return None
    some = [path for path in found if ("boxable" in path.name) is boxed]
    return found[0] if len(found) == 1 else some[0] if len(some) == 1 else None


def _descriptions(path: Path) -> dict[str, str]:
    """LabelName -> name. Raises StorageError, DataError."""
    rows.head(path)
    found: dict[str, str] = {}
    with rows.open_table(path) as file:
        for row in Rows(file, ",").walk():
            where = f"{path}:{row.line}"
            if row.fault or len(row.cells) != 2:
                raise DataError(f"{where}: found {shown(','.join(row.cells))}, wanted a LabelName and its description")
            label, name = row.cells
            if fault := name_fault(name):
                raise DataError(f"{where}: {fault}")
            if label in found:
                raise DataError(f"{where}: {label} occurs twice")
            if (label, row.line) != ("LabelName", 1):
                found[label] = name
    return found
