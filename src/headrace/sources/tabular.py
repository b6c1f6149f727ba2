"""Source `csv`: a table in text that names an image in each row, and its class, classes, value, or one of its boxes.

    a.jpg,10,20,30,40,cat            RetinaNet's, without a header: path,x1,y1,x2,y2,class; b.jpg,,,,, is a negative
    filename,width,height,class,xmin,ymin,xmax,ymax                        TF Object Detection's, a row for each box
    path,label                       and any other header that names its columns so that they can be told

Rows of an image may stand anywhere. A first reading notes where they are, 28 bytes a row and the name of each image
once; a second one reads them image by image. Opens an image only where coordinates are normalised and the table
doesn't tell its size: no more than its header is decoded.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError, StorageError, UsageError
from headrace.place import paths
from headrace.place.address import is_url
from headrace.record import Record, Reject, check_names, name_fault
from headrace.sources import rows, walking
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.rows import Row, Rows, shown
from headrace.splits import split_name_fault, split_of_folder

# What columns are for, and how headers call them, the likelier first; compared in lower case with "_" between words.
ROLES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "filename", "file_name", "filepath", "file_path", "file", "image_path", "img_path", "image"),
        *("image_name", "img", "image_id", "id"),
    ),
    "label": ("label", "class", "class_name", "label_name", "category", "category_name"),
    "labels": ("labels", "classes", "tags", "categories"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "value": ("value",),
    "split": ("split", "subset", "partition"),
    "group": ("group",),
    "caption": ("caption", "text"),
}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TELLING = ("label", "labels", "value", "caption")  # what a table is for, if not for boxes

_SEPARATORS = (",", ";", "\t")
_LABEL_SEPARATORS = ("|", ";", ",")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_FLAGS = {"0": 0, "1": 1, "-1": -1, "": -1, "false": 0, "true": 1, "no": 0, "yes": 1}
FLAGGED = ("difficult", "truncated", "occluded", "is_crowd")
OTHER_NAMES = {"iscrowd": "is_crowd", "crowd": "is_crowd", "track_id": "track"}
_HEAD = 1 << 16  # bytes of an image that its size mostly is in
UNIT = (-0.01, 1.01)  # what normalised coordinates may be: tools round, and boxes reach a little over the edge


class BadRow(ValueError):
    """A row that can't be used, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvSource:
    """Iterable of Record | Reject; see `csv`. `root` is the table.

    Its SourceInfo counts in `skipped` the rows that say nothing, and says in `notes` what the columns were taken for.
    """

    root: Path
    images: Path
    class_names: tuple[str, ...] | None
    columns: Mapping[str, str]
    one_hot: tuple[str, ...]
    separator: str | None
    label_separator: str | None
    normalised: bool

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        layout = _layout(self)
        skipped: Counter[str] = Counter()
        splits: dict[str, None] = {}
        found = Counter[str]()
        with rows.open_table(self.root) as file:
            try:
                table = Rows(file, layout.separator, width=layout.width)
                index = _index(table, layout, skipped)
                yield from _Reading(self, layout, table, splits, found).items(index)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise StorageError(f"{self.root}: can't be read: {reason}") from error
        names = self.class_names
        if names is None and self.one_hot:
            names = self.one_hot
        usual = [name for name in ("train", "val", "test") if name in splits]
        notes = list(layout.notes)
        if found["by stem"]:
            notes.append(f"{found['by stem']} names without an extension are those of images that have one")
        return SourceInfo(
            class_names=None if layout.boxed else names,
            box_class_names=names if layout.boxed else None,
            split_names=tuple(dict.fromkeys([*usual, *splits])) or None,
            skipped=skipped,
            root=str(self.root),
            notes=tuple(notes),
        )


def csv(
    table: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    one_hot: Sequence[str] | None = None,
    separator: str | None = None,
    label_separator: str | None = None,
    normalised: bool = False,
) -> CsvSource:
    """Images below the folder `images` (by default that of the table) with what the rows of the file `table` say.

    Columns are told by their names in the header, in any case: path (filename, image, …), label (class, category),
    xmin ymin xmax ymax (x1 y1 x2 y2), width height (of the image), labels, value, split, group, caption; `notes` say
    which were taken. Others become attributes by their names: numbers where cells are written as such, a value for
    each box, or one of the image. Without a header, six columns are RetinaNet's path,x1,y1,x2,y2,class and two are
    path,label. Ids are the paths, in the order of their first rows, origins `table:line` of these.

    Boxes float32 [n, 4] in pixels of the image, half-open, as they stand in the table: RetinaNet's are so by its
    README ("x1, y1, x2, y2 … 0-based"); TF Object Detection's are taken as raw corners too, which is what its own
    scripts do with them (they divide by width and height). A row whose box cells are all empty is of an image without
    boxes, a negative. normalised: they are fractions of the upright image, whose size is that of the columns width and
    height or else of the image itself (`size` and `upright` say so), from -0.01 to 1.01.

    An empty label is none. Several rows of an image add boxes, labels and captions; in the rest they must agree.
    An image is a Reject when one of its rows can't be used: other cells than the header has, no UTF-8, no number where
    one is wanted, a reversed box, a box without a class, a class that is not in `class_names`; when its file is
    missing or lies outside of `images`. A row that names no image is one itself. A path without an extension is the
    image of any extension that has this name.

    class_names: classes in index order, or a file of rows `class,index` (RetinaNet's classes.csv), also as the only
    entry, a name that ends in .csv. columns: role -> name in the header, or "role=name" each, for names that are not
    known; a number from 1 on where there is no header. one_hot: columns of these names hold 1 where the image is of
    that class, else 0. separator: of cells; by default that of comma, semicolon and tab that fits the first rows.
    label_separator: of the classes in a cell of labels; by default |, ; or a comma, whichever occurs in the first rows.

    Raises NotThereError, StorageError, UsageError (no file or folder; an option); when iterated also DataError naming
    the line (UTF-16; columns that can't be told), UsageError (no such column).
    """
    path = rows.check_table(paths.path_of(table))
    if separator is not None:
        separator = {"\\t": "\t", "tab": "\t"}.get(separator, separator)
        if len(separator) != 1 or separator in '"\r\n':
            raise UsageError(f"separator is {separator!r}, wanted one character, such as ; or \\t")
    if label_separator == "":
        raise UsageError("label_separator is empty, wanted a character, such as |")
    return CsvSource(
        root=path,
        images=walking.check_root(path.parent if images is None else images),
        class_names=_class_names(class_names),
        columns=_columns(columns),
        one_hot=check_names(tuple(one_hot or ()), "one_hot"),
        separator=separator,
        label_separator=label_separator,
        normalised=normalised,
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is a table of images, or None when nothing does. Raises StorageError."""
    try:
        head = rows.head(path)
    except DataError:
        return None
    found = None if head.lstrip().startswith(("[", "{", "<")) else _told(head, None, {})
    if found is None:
        return None
    _, cells, at = found
    if at is None:
        return f"line 1 names an image, {shown(cells[0])}, and {len(cells)} cells are in each row"
    if {"ImageID", "LabelName"} <= set(cells):  # Open Images' own
        return None
    if "path" not in at or not (set(_TELLING) & set(at) or set(CORNERS) <= set(at)):
        return None
    return f"its header names {', '.join(cells[i] for i in sorted(at.values()))}"


FORMAT = Format(
    name="csv",
    reads="A CSV or TSV table of images with classes, values or boxes",
    takes="file",
    make=csv,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that the names in the file start from; its own by default.",
            per_split=True,
        ),
        CLASS_NAMES,
        Option(
            name="columns",
            type=list[str],
            help="Which column is what, ROLE=NAME, as in label=kind; a number where there is no header.",
        ),
        Option(name="one_hot", type=tuple[str, ...], help="Columns that hold 1 where the image is of their class."),
        Option(name="separator", type=str, help="Between cells; comma, semicolon or tab by default."),
        Option(name="label_separator", type=str, help="Between the classes in a cell of labels."),
        Option(name="normalised", type=bool, help="Coordinates are fractions of the upright image.", default=False),
    ),
    example=("boxes.csv", {"images": "photos", "columns": "path=photo"}),
    about=About(
        recognised=(
            "a header that names columns of paths and labels or boxes, or rows of six cells as RetinaNet's; "
            "the separator by the first rows."
        ),
        kept=(
            "a class, classes (in one cell or as columns of 0 and 1), a value, boxes (corners in pixels from "
            "0, or fractions with --normalised), split, group and caption of each image; other columns as "
            "attributes. Rows of an image may stand anywhere; empty box cells are a negative."
        ),
        refused=(
            "an image one of whose rows has other cells than the header, is no UTF-8, no number, a box "
            "without a class or of an unknown one."
        ),
        sample=(
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,40,30,cat,1,2,30,28\nb.jpg,40,30,,,,,\n\n"
            "a.jpg,10,20,30,40,cat\nb.jpg,,,,,\n\n"
            "path,labels,split\na.jpg,cat|dog,train"
        ),
    ),
)


# --- which column is what --------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Layout:
    """`at`: role -> column; `one_hot`: class -> column; `others`: attribute -> column; `line`: the header's, 0 for
    none; `labels_by`: what separates the classes in a cell."""

    separator: str
    width: int
    line: int
    at: dict[str, int]
    one_hot: dict[str, int]
    others: dict[str, int]
    labels_by: str | None
    notes: list[str] = field(default_factory=list)

    @property
    def boxed(self) -> bool:
        return "xmin" in self.at


def _layout(source: CsvSource) -> _Layout:
    """What the columns are. Raises StorageError, DataError, UsageError."""
    path, columns = source.root, source.columns
    head = rows.head(path)
    if not head.strip():
        raise DataError(f"{path}: the table is empty")
    numbered = bool(columns) and all(name.isdecimal() for name in columns.values())
    found = _told(head, source.separator, {} if numbered else columns)
    if found is None or (found[2] is None and numbered):
        separator = source.separator or max(_SEPARATORS, key=lambda by: len(rows.first(head, by)))
        cells, at = rows.first(head, separator), None
    else:
        separator, cells, at = found
    if numbered:
        at = {role: int(name) - 1 for role, name in columns.items()}
        if bad := [role for role, i in at.items() if not 0 <= i < len(cells)]:
            raise UsageError(f"columns: {bad[0]}={columns[bad[0]]}, and line 1 of {path} has {len(cells)} columns")
    elif at is None:
        if columns:
            raise UsageError(f"columns: {path} has no header; wanted numbers from 1 on, as in columns=['path=1']")
        if found is None:
            raise DataError(
                f"{path}:1: no header that is known: {', '.join(map(shown, cells[:12]))}; say what the columns are, as "
                "in columns=['path=NAME', 'label=NAME'], or by numbers where there is no header"
            )
        roles = ("path", *CORNERS, "label") if len(cells) == 6 else ("path", "label")
        at = {role: i for i, role in enumerate(roles)}
    headed = not numbered and found is not None and found[2] is not None
    names = [word_of(cell) for cell in cells] if headed else []
    for role, name in columns.items() if headed else ():
        if role not in at:
            raise UsageError(f"columns: {role}={name}, and {path} has the columns {', '.join(cells)}")
    one_hot = {}
    for name in source.one_hot:
        if not headed or name not in cells:
            has = f"has the columns {', '.join(cells)}" if headed else "has no header"
            raise UsageError(f"one_hot: {name!r}, and {path} {has}")
        one_hot[name] = cells.index(name)
    some = [role for role in CORNERS if role in at]
    if len(some) not in (0, 4):
        if wanted := [role for role in some if role in columns]:
            raise UsageError(f"columns: {wanted[0]} of a box, wanted all of {', '.join(CORNERS)}")
        for role in some:
            del at[role]
    if "path" not in at:
        raise DataError(
            f"{path}:1: which column names the image? It has {', '.join(cells)}; pass columns=['path=NAME']"
        )
    if ("width" in at) != ("height" in at):
        at.pop("width", None), at.pop("height", None)
    taken = {*at.values(), *one_hot.values()}
    others = {names[i]: i for i in range(len(names)) if i not in taken and names[i]}
    notes = _notes(separator, cells, at, headed, others)
    layout = _Layout(
        separator=separator,
        width=len(cells),
        line=int(headed),
        at=at,
        one_hot=one_hot,
        others={OTHER_NAMES.get(name, name): i for name, i in others.items()},
        labels_by=None,
        notes=notes,
    )
    _look_at_rows(source, layout, head)
    return layout


def _told(
    head: str, separator: str | None, columns: Mapping[str, str]
) -> tuple[str, list[str], dict[str, int] | None] | None:
    """(separator, cells of the first row, role -> column or None without a header), None where nothing tells."""
    best: tuple[int, str, list[str], dict[str, int]] | None = None
    for by in _SEPARATORS if separator is None else (separator,):
        cells = rows.first(head, by)
        at = _roles(cells, columns)
        if (
            ("path" in at or (columns and at))
            and not any(map(walking.is_image_name, cells))
            and (best is None or len(at) > best[0])
        ):
            best = len(at), by, cells, at
    if best is not None and (best[0] > 1 or columns or len(best[2]) > 1):
        return best[1:]
    for by in _SEPARATORS if separator is None else (separator,):
        cells = rows.first(head, by)
        if len(cells) in (2, 6) and walking.is_image_name(cells[0]):
            boxed = len(cells) == 6
            if not boxed or not any(cells[1:5]) or all(map(_NUMBER.fullmatch, cells[1:5])):
                return by, cells, None
    return None


def _roles(cells: Sequence[str], columns: Mapping[str, str]) -> dict[str, int]:
    names = [word_of(cell) for cell in cells]
    at: dict[str, int] = {}
    for role, name in columns.items():
        if name in cells:
            at[role] = cells.index(name)
        elif word_of(name) in names:
            at[role] = names.index(word_of(name))
    for role, known in ROLES.items():
        if role not in columns:
            column = next((names.index(name) for name in known if name in names), None)
            if column is not None and column not in at.values():
                at[role] = column
    return at


def _notes(
    separator: str, cells: Sequence[str], at: Mapping[str, int], headed: bool, others: Mapping[str, int]
) -> list[str]:
    if headed:
        taken = ", ".join(f"{role} = {cells[i]}" for role, i in at.items())
        left = f"; attributes: {', '.join(cells[i] for i in others.values())}" if others else ""
        notes = [f"columns taken: {taken}{left}"]
    else:
        notes = [f"no header; columns taken: {', '.join(f'{i + 1} = {role}' for role, i in at.items())}"]
    if separator != ",":
        notes.append(f"cells are separated by {'tab' if separator == chr(9) else separator}")
    return notes


def _look_at_rows(source: CsvSource, layout: _Layout, head: str) -> None:
    """What only rows can tell, the first of them: whether coordinates are in pixels, what separates labels.

    Raises DataError: they are fractions.
    """
    at = layout.at
    sample = [line.split(layout.separator) for line in head.split("\n")[layout.line :]]
    sample = [cells for cells in sample if len(cells) == layout.width]
    if layout.boxed and not source.normalised:
        cells = [row[at[role]].strip() for row in sample for role in CORNERS]
        values = [float(cell) for cell in cells if _NUMBER.fullmatch(cell)]
        if values and max(values) <= 1 and any(value % 1 for value in values):
            raise DataError(
                f"{source.root}: the boxes are fractions of the image, {max(values):g} at most, wanted pixels; "
                "pass normalised=True"
            )
    if "labels" in at:
        layout.labels_by = source.label_separator
        if layout.labels_by is None:
            text = "".join(row[at["labels"]] for row in sample)
            if layout.separator == "," and re.search(r'"[^"\n]*,[^"\n]*"', head):
                text += ","
            layout.labels_by = next((by for by in _LABEL_SEPARATORS if by in text), "|")
            layout.notes.append(f"labels in a cell are separated by {layout.labels_by}")


def word_of(name: str) -> str:
    """A header's name as attributes are called: lower case with underscores; imageID is image_id."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^\w]+", "_", name).strip("_").lower()


def _columns(given: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """role -> name. Raises UsageError."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        pairs = [text.partition("=") for text in ([given] if isinstance(given, str) else given)]
        if bad := ["".join(parts) for parts in pairs if not parts[1]]:
            raise UsageError(f"columns is {bad[0]!r}, wanted ROLE=NAME, as in path=photo")
        given = {role.strip(): name.strip() for role, _, name in pairs}
    for role in given:
        if role not in ROLES:
            raise UsageError(f"columns: no role {role!r}, wanted one of {', '.join(ROLES)}")
    return {role: str(name) for role, name in given.items()}


def _class_names(given: Sequence[str] | str | os.PathLike[str] | None) -> tuple[str, ...] | None:
    """Classes in index order, of a file too. Raises NotThereError, UsageError, StorageError, DataError."""
    if given is None:
        return None
    names = [given] if isinstance(given, str | os.PathLike) else list(given)
    if len(names) == 1 and str(names[0]).lower().endswith(".csv"):
        return read_classes(rows.check_table(paths.path_of(names[0])))
    return check_names([str(name) for name in names], "class_names")


def read_classes(path: Path) -> tuple[str, ...]:
    """The classes of a file of rows `class,index`, from index 0 on. Raises StorageError, DataError."""
    rows.head(path)
    found: dict[int, str] = {}
    with rows.open_table(path) as file:
        for row in Rows(file, ",").walk():
            name, number = [*row.cells, ""][:2]
            where = f"{path}:{row.line}"
            if row.fault or len(row.cells) != 2 or not re.fullmatch("[0-9]{1,9}", number):
                raise DataError(f"{where}: found {shown(','.join(row.cells))}, wanted a class and its index, as cat,0")
            if fault := name_fault(name):
                raise DataError(f"{where}: {fault}")
            if int(number) in found or name in found.values():
                raise DataError(f"{where}: {name},{number}: the class or the index occurs twice")
            found[int(number)] = name
    if sorted(found) != list(range(len(found))) or not found:
        raise DataError(f"{path}: the indices are {sorted(found)[:12]}, wanted 0, 1, 2, … without a gap")
    return tuple(found[i] for i in range(len(found)))


# --- rows ------------------------------------------------------------------------------------------------------------


def _index(table: Rows, layout: _Layout, skipped: Counter[str]) -> rows.Index:
    """Where the rows of each path are."""
    index, column = rows.Index(), layout.at["path"]
    walk = table.walk()
    for _ in range(layout.line):
        next(walk, None)
    for row in walk:
        if not any(row.cells) and row.fault is None:
            skipped["empty rows"] += 1
            continue
        index.add(row.cells[column] if column < len(row.cells) else "", row.at, row.line)
    index.close()
    return index


class _Reading:
    """One reading of a table: what becomes of the rows of each image."""

    def __init__(
        self, source: CsvSource, layout: _Layout, table: Rows, splits: dict[str, None], found: Counter[str]
    ) -> None:
        self.source, self.layout, self.table = source, layout, table
        self.splits, self.found = splits, found
        self.inside = os.path.realpath(source.images)
        self.known = None if source.class_names is None else frozenset(source.class_names)
        self._stems: dict[str, str | None] | None = None

    def items(self, index: rows.Index) -> Iterator[Record | Reject]:
        sized = self.layout.boxed and self.source.normalised
        names = paths.ahead(
            self.source.images, index.names, lambda name: (self._inside(name),) if sized and name else ()
        )
        for code, name in enumerate(names):
            places = index.places(code)
            if name == "":
                for at, line in places:
                    row = self._row(at, line, "")
                    reason = row.fault or "no path in the row"
                    yield Reject(id=f"row {line}", origin=self._origin(line), stage="annotation", reason=reason)
            else:
                yield self._item(name, places)

    def _row(self, at: int, line: int, name: str) -> Row:
        row = next(self.table.walk(at, line), None)
        column = self.layout.at["path"]
        if row is None or (row.cells[column] if column < len(row.cells) else "") != name:
            raise DataError(f"{self.source.root}:{line}: the file was changed while it was read")
        return row

    def _item(self, name: str, places: list[tuple[int, int]]) -> Record | Reject:
        id_, reason = walking.id_of(self._inside(name))
        first = places[0][1]
        if reason is not None:
            return Reject(id=id_, origin=self._origin(first), stage="annotation", reason=reason)
        image = _Image(self)
        for at, line in places:
            row = self._row(at, line, name)
            try:
                image.take(row)
            except BadRow as error:
                return Reject(id=id_, origin=self._origin(line), stage="annotation", reason=str(error))
        path = f"{self.source.images}/{id_}"
        refused = walking.refusal(path, self.inside)
        if refused is not None and not walking.is_image_name(id_):
            other = self._by_stem(id_)
            if other is not None:
                id_, path = other, f"{self.source.images}/{other}"
                refused = walking.refusal(path, self.inside)
                self.found["by stem"] += 1
        if refused is not None:
            return Reject(id=id_, origin=self._origin(first), stage="read", reason=refused)
        try:
            return image.record(id_, path, self._origin(first))
        except Unread as error:
            return Reject(id=id_, origin=self._origin(first), stage=error.stage, reason=str(error))

    def _inside(self, name: str) -> str:
        """A name from `images` on, also where it is a URL below that: no table makes packing ask another server."""
        return name.removeprefix(f"{self.source.images}/") if is_url(name) else name

    def _by_stem(self, name: str) -> str | None:
        if self._stems is None:
            self._stems = walking.by_stem(self.source.images)
        return self._stems.get(name)

    def _origin(self, line: int) -> str:
        return f"{self.source.root.name}:{line}"  # without its folder: a catalog doesn't depend on where its source lay


class _Image:
    """What the rows of one image say together."""

    def __init__(self, reading: _Reading) -> None:
        self.reading, self.layout = reading, reading.layout
        self.once: dict[str, Any] = {}  # role -> what all rows must agree in
        self.labels: dict[str, None] = {}
        self.captions: dict[str, None] = {}
        self.boxes: list[tuple[float, ...]] = []
        self.classes: list[str] = []
        self.others: list[list[Any]] = []

    def take(self, row: Row) -> None:
        """A row more. Raises BadRow."""
        cells, layout, at = row.cells, self.layout, self.layout.at
        if row.fault is not None:
            raise BadRow(row.fault)
        given = {role: cells[i] for role, i in at.items()}
        if (split := given.get("split")) is not None:
            split = split_of_folder(split) or split
            if split and (fault := split_name_fault(split)):
                raise BadRow(fault)
            self.agree("split", split or None)
        self.agree("group", given.get("group") or None)
        if value := given.get("value"):
            self.agree("value", number(value, "the value"))
        if given.get("width") or given.get("height"):
            self.agree("size", (_side(given["height"], "height"), _side(given["width"], "width")))
        if caption := given.get("caption"):
            self.captions[caption] = None
        self._classes(given, cells)
        if layout.boxed and not self._box(given):
            return
        if layout.others:
            self.others.append([attribute(name, cells[i]) for name, i in layout.others.items()])

    def agree(self, what: str, value: Any) -> None:
        before = self.once.setdefault(what, value)
        if before != value:
            raise BadRow(f"the {what} is {value!r:.60}, in a row before it is {before!r:.60}")

    def _classes(self, given: Mapping[str, str], cells: Sequence[str]) -> None:
        known = self.reading.known
        for name, i in self.layout.one_hot.items():
            if (flag := _FLAGS.get(cells[i].lower().removesuffix(".0"))) not in (0, 1) and cells[i]:
                raise BadRow(f"column {name} is {shown(cells[i])}, wanted 1 or 0")
            if flag == 1:
                self.labels[name] = None
        if "labels" in given:
            by = self.layout.labels_by
            for name in filter(None, map(str.strip, given["labels"].split(by))):
                self.labels[_class(name, known if not self.layout.boxed else None)] = None
        if "label" in given and not self.layout.boxed:
            self.agree("label", _class(given["label"], known) if given["label"] else None)

    def _box(self, given: Mapping[str, str]) -> bool:
        """Takes the row's box. False where it has none."""
        corners, name = [given[role] for role in CORNERS], given.get("label", "")
        if not any(corners):
            if name:
                raise BadRow(f"an object of class {shown(name)} without a box")
            return False
        if not name and "label" in given:
            raise BadRow("a box without a class")
        box = tuple(number(cell, role) for cell, role in zip(corners, CORNERS, strict=True))
        check_corners(box, normalised=self.reading.source.normalised)
        self.boxes.append(box)
        if name:
            self.classes.append(_class(name, self.reading.known))
        return True

    def record(self, id_: str, path: str, origin: str) -> Record:
        """Raises Unread: the size that is needed can't be read."""
        layout, source, once = self.layout, self.reading.source, self.once
        size, upright = once.get("size"), False
        boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
        if layout.boxed and source.normalised:
            size = upright_size(path) if size is None else size
            upright = True
            boxes = boxes * [size[1], size[0], size[1], size[0]]
        several = bool(layout.one_hot) or "labels" in layout.at
        if several and once.get("label") is not None:
            self.labels[once["label"]] = None
        split = once.get("split")
        if split is not None:
            self.reading.splits[split] = None
        return Record(
            id=id_,
            path=path,
            label_name=None if several else once.get("label"),
            labels=tuple(self.labels) if several else None,
            value=once.get("value"),
            captions=tuple(self.captions) if self.captions else None,
            boxes=boxes.astype(np.float32) if layout.boxed else None,
            box_labels=tuple(self.classes) if layout.boxed and "label" in layout.at else None,
            size=size,
            upright=upright,
            attributes=self._attributes(),
            split=split,
            group=once.get("group"),
            origin=origin,
        )

    def _attributes(self) -> dict[str, Any]:
        """By name: a value for each box; of an image without boxes one value, or a list where rows say several."""
        found: dict[str, Any] = {}
        for i, name in enumerate(self.layout.others):
            values = [row[i] for row in self.others]
            if self.layout.boxed or any(value != values[0] for value in values):
                found[name] = values
            elif values and values[0] is not None:
                found[name] = values[0]
        return found


def number(cell: str, what: str) -> float:
    """A finite number, as a float32 too. Raises BadRow."""
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise BadRow(f"{what} is {shown(cell)}, wanted a number")
    return value


def check_corners(box: Sequence[float], *, normalised: bool) -> None:
    """Raises BadRow: reversed, or no fractions where these are wanted."""
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        raise BadRow(f"the box is reversed: {x0:g} to {x1:g}, {y0:g} to {y1:g}; wanted xmin < xmax and ymin < ymax")
    if normalised and not (UNIT[0] <= min(box) and max(box) <= UNIT[1]):
        raise BadRow(f"the box has {max(box, key=abs):g}, wanted fractions of the image from 0 to 1")


def attribute(name: str, cell: str, flags: Collection[str] = FLAGGED) -> Any:
    """What a cell of another column says: an int or a float where it is written as one, None where it is empty.

    Raises BadRow: no flag, or no number of a track, where the name wants one.
    """
    if name in flags:
        flag = _FLAGS.get(cell.lower().removesuffix(".0"))
        if flag is None:
            raise BadRow(f"{name} is {shown(cell)}, wanted 0 or 1, or -1 for unknown")
        return flag
    if cell == "":
        return None
    if re.fullmatch("0|-?[1-9][0-9]{0,17}", cell):
        return int(cell)
    if name == "track":
        raise BadRow(f"{name} is {shown(cell)}, wanted a whole number")
    if re.fullmatch(r"-?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?", cell) and math.isfinite(float(cell)):
        return float(cell)
    return cell


class Unread(ValueError):
    """An image whose size can't be read: in which `stage`, and in words for people."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


def upright_size(path: str) -> tuple[int, int]:
    """(height, width) of an image as it is seen, once its EXIF orientation is applied. Raises Unread."""
    from headrace.imaging.codec import BadImage, read_header, sniff  # heavy, and most tables do without

    try:
        with paths.path_of(path).open("rb") as file:
            data = file.read(_HEAD)
            try:
                # What of a JPEG decides comes before its scan; a PNG may say its orientation at its end.
                header = read_header(data) if sniff(data) == "jpeg" else read_header(data + file.read())
            except BadImage:
                header = read_header(data + file.read())
    except BadImage as error:
        raise Unread(error.stage, error.reason) from error
    except UsageError as error:  # a URL of no store
        raise Unread("read", str(error)) from error
    except OSError as error:
        raise Unread("read", (error.strerror or str(error)).lower()) from error
    turned = header.orientation in (5, 6, 7, 8)
    return (header.width, header.height) if turned else (header.height, header.width)


def _class(name: str, known: frozenset[str] | None) -> str:
    """Raises BadRow."""
    if fault := name_fault(name):
        raise BadRow(f"the class: {fault}")
    if known is not None and name not in known:
        raise BadRow(f"class {shown(name)} is not among class_names")
    return name


def _side(cell: str, what: str) -> int:
    value = number(cell, what)
    if value < 1 or value % 1 or value > 1 << 30:
        raise BadRow(f"{what} is {shown(cell)}, wanted whole pixels")
    return int(value)
