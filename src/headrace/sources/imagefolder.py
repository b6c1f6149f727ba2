"""Source `imagefolder`: a folder of images with metadata.csv, .jsonl or .parquet, as Hugging Face's datasets reads it.

    {"file_name": "a.jpg", "label": "cat", "text": "A cat.", "objects": {"bbox": [[x, y, w, h]], "categories": ["cat"]}}

Metadata files may lie in any folder; names in them start from theirs. Read row by row, never an image. Folders of
classes without metadata are the source `folders`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, StorageError
from headrace.place import paths
from headrace.record import Mask, Record, Reject, name_fault
from headrace.sources import jsons, rows, segmentations, walking
from headrace.sources.formats import CLASS_NAMES, About, Format
from headrace.sources.info import SourceInfo
from headrace.sources.rows import Rows, shown
from headrace.sources.tabular import FLAGGED, OTHER_NAMES, BadRow, attribute, word_of

if TYPE_CHECKING:
    import polars as pl

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

# What datasets/data_files.py takes for a split: these words in the name of a folder or, where no folder has one, of a
# file, between its ends and any of "-._ 0123456789".
_WORDS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_ANY = "|".join(f"(?P<{split}>{'|'.join(words)})" for split, words in _WORDS.items())
_SPLIT = re.compile(f"(?:^|[-._ 0-9])(?:{_ANY})(?:[-._ 0-9]|$)")
_CATEGORIES = ("categories", "category", "labels", "label")
_CAPTIONS = ("text", "caption", "captions")
_TEXTS = (*_CAPTIONS, "label", "group")
_BATCH = 1000  # rows of a parquet that are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolderSource:
    """Iterable of Record | Reject; see `imagefolder`.

    Its SourceInfo counts in `skipped` the images without a row, and what is no image, by extension.
    """

    root: Path
    class_names: tuple[str, ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        tables = _tables(self.root)
        skipped: Counter[str] = Counter()
        found = {path for path in walking.walk(self.root, skipped) if isinstance(path, str)}
        for name in {name.rpartition(".")[2] for name in NAMES}:
            skipped.pop(f".{name}", None)
        split_of, how = _splits(found)
        inside = os.path.realpath(self.root)
        taken: dict[str, None] = {}
        boxed = False
        for table in tables:
            folder = table.rpartition("/")[0]
            for origin, row in _rows(self.root, table):
                id_ = origin
                try:
                    if isinstance(row, BadRow):
                        raise row
                    name = _image_of(row)
                    id_, unusable = walking.id_of(f"{folder}/{name}" if folder else name)
                    if unusable is None and name.startswith("/"):
                        unusable = "the name leads out of the folder of images"
                    if unusable is not None:
                        raise BadRow(unusable)
                    fields = _Fields().of(row)
                except BadRow as error:
                    yield Reject(id=id_, origin=origin, stage="annotation", reason=str(error))
                    continue
                path = f"{self.root}/{id_}"
                refused = walking.refusal(path, inside)
                if refused is not None:
                    yield Reject(id=id_, origin=origin, stage="read", reason=refused)
                    continue
                found.discard(id_)
                split = None if split_of is None else split_of(id_)
                if split is not None:
                    taken[split] = None
                boxed = boxed or fields["boxes"] is not None
                yield Record(id=id_, path=path, split=split, origin=origin, **fields)
        if found:
            skipped["images without a row"] = len(found)
        return SourceInfo(
            class_names=None if boxed else self.class_names,
            box_class_names=self.class_names if boxed else None,
            split_names=tuple(split for split in _WORDS if split in taken) or None,
            skipped=skipped,
            root=str(self.root),
            notes=(how,) if how else (),
        )


def imagefolder(root: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> ImageFolderSource:
    """Images below `root` with what the rows of metadata.csv, metadata.jsonl or metadata.parquet in it say.

    `file_name` (or the only column that ends in `_file_name`) names the image, from the folder of the metadata on.
    `label` is its class, `labels` (or a list in `label`) its classes, `value` a number, `text` or `caption` a caption
    or a list of them, `group` its group. A number is the class of that name: metadata doesn't say what it stands for.
    `objects` holds lists with an entry for each box, or is a list of objects: `bbox` x, y, width, height in pixels
    (COCO's, as Hugging Face's "Create an image dataset" has it), `categories`, `category` or `label`, `segmentation`
    and `keypoints` as COCO writes them, and others, which become attributes. No boxes are a negative. Beside objects,
    `width` and `height` are the size of the image that they were measured in. Any other column is an attribute.

    Splits are told as by Hugging Face: train, validation (valid, dev, val) or test (eval) as a word in the names of
    folders or, where these have none, of files; here only where all images have one. Images without a row are passed
    over and counted. Ids are paths relative to `root`, origins `metadata.csv:line`, `metadata.parquet[row]`.

    An image is a Reject when its row can't be used: no JSON, no UTF-8, no such name, lists of different lengths, a
    reversed box, a number that is none or not finite; when its file is missing, or lies outside of `root`.
    class_names: classes in index order, those of boxes where there are some.
    Raises NotThereError, UsageError, StorageError: `root` is no folder that can be read. When iterated also DataError:
    no metadata, metadata of several kinds, or one without a column of file names.
    """
    return ImageFolderSource(
        root=walking.check_root(root), class_names=None if class_names is None else tuple(class_names)
    )


def recognise(path: Path) -> str | None:
    """What tells that the folder `path` holds images with metadata, or None when nothing does. Raises StorageError."""
    for table in _found(path):
        try:
            named = _columns(path / table)
        except DataError:
            continue
        if some := [name for name in named if _names_image(name)]:
            return f"{table} has a column {some[0]}"
    return None


FORMAT = Format(
    name="imagefolder",
    reads="A folder of images with metadata.csv or .jsonl, Hugging Face's",
    takes="folder",
    make=imagefolder,
    recognise=recognise,
    options=(CLASS_NAMES,),
    example=("photos", {}),
    about=About(
        recognised="metadata.csv, metadata.jsonl or metadata.parquet beside images.",
        kept=(
            "label, labels, value, text or caption, group; objects with bbox (x, y, width, height in pixels "
            "from 0), categories, segmentation and keypoints as COCO writes them; other columns as "
            "attributes; splits as Hugging Face finds them in names."
        ),
        refused=(
            "an image whose row is no JSON, has lists of different lengths or numbers that are none. Images "
            "without a row are passed over and counted."
        ),
        sample='{"file_name": "a.jpg", "text": "A cat.", "objects": {"bbox": [[1, 2, 8, 6]], "categories": ["cat"]}}',
    ),
)


# --- files -----------------------------------------------------------------------------------------------------------


def _found(root: Path) -> list[str]:
    """Files of metadata, relative to `root`, in natural order."""
    found = []
    for folder, folders, files in paths.walk(root):
        folders[:] = [name for name in folders if not walking.is_junk(name)]
        here = paths.path_of(folder).relative_to(root)
        found += [name if str(here) == "." else f"{here}/{name}" for name in NAMES if name in files]
    return sorted(found, key=walking.natural)


def _tables(root: Path) -> list[str]:
    """The same. Raises DataError: none, or of several kinds; a link that leads out."""
    found = _found(root)
    if not found:
        raise DataError(f"{root}: no metadata.csv, metadata.jsonl or metadata.parquet in it; format folders is without")
    kinds = {PurePosixPath(name).suffix: name for name in found}
    if len(kinds) > 1:
        raise DataError(f"{root}: metadata of several kinds, {' and '.join(sorted(kinds.values()))}; keep one of them")
    for table in found:
        if (refused := walking.refusal(f"{root}/{table}", os.path.realpath(root))) is not None:
            raise DataError(f"{root}/{table}: {refused}")
    return found


def _columns(path: Path) -> list[str]:
    """The names of the columns of metadata, of JSON those of its first row. Raises StorageError, DataError."""
    if path.suffix == ".parquet":
        return list(_parquet(path).collect_schema())
    head = rows.head(path)
    if path.suffix == ".csv":
        return rows.first(head, ",")
    return re.findall(r'"([^"\\]*)"\s*:', next((line for line in head.split("\n") if line.strip()), ""))


def _names_image(column: str) -> bool:
    return column == "file_name" or column.endswith("_file_name")


def _splits(images: Collection[str]) -> tuple[Callable[[str], str | None] | None, str]:
    """What tells the split of a path, None where nothing does; and what to say of it."""
    for split_of, what in ((_split_of_folders, "folders"), (_split_of_name, "file names")):
        told = Counter(map(split_of, images))
        if None not in told and told:
            return split_of, f"splits are told by the names of {what}"
        if len(told) > 1:
            few = f"{told[None]} of {len(images)} images"
            return None, f"{what} that look like splits are not taken as such: {few} are in none"
    return None, ""


def _split_of_folders(path: str) -> str | None:
    return next((split for folder in path.split("/")[:-1] if (split := _split_in(folder))), None)


def _split_of_name(path: str) -> str | None:
    return _split_in(path.rpartition("/")[2])


def _split_in(name: str) -> str | None:
    return match.lastgroup if (match := _SPLIT.search(name)) else None


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(root: Path, table: str) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """(origin, column -> value) of the rows, or why one is none. Raises StorageError, DataError."""
    path = root / table
    columns = _columns(path)
    if path.suffix != ".jsonl" and not any(map(_names_image, columns)):
        has = ", ".join(map(shown, columns[:12]))
        raise DataError(f"{path}:1: which column names the images? It has {has}; wanted file_name")
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[path.suffix]
    try:
        for place, row in read(path):
            yield f"{table}{place}", row
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    columns = _columns(path)
    with rows.open_table(path) as file:
        walk = Rows(file, ",", width=len(columns)).walk()
        next(walk)
        for row in walk:
            if row.fault is not None:
                yield f":{row.line}", BadRow(row.fault)
                continue
            try:
                yield f":{row.line}", {name: _cell(name, cell) for name, cell in zip(columns, row.cells, strict=True)}
            except BadRow as error:
                yield f":{row.line}", error


def _cell(name: str, cell: str) -> Any:
    """What a cell says. Raises BadRow."""
    if name in ("objects", "labels") and cell:
        try:
            return json.loads(cell, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"{name} is {shown(cell)}, wanted JSON") from error
    if name in _TEXTS or _names_image(name):
        return cell or None
    return attribute(word_of(name), cell, ())


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    rows.head(path)
    line = 0
    with rows.open_table(path) as file:
        while data := file.readline(jsons.LONGEST + 1):
            line += 1
            if len(data) > jsons.LONGEST:
                while data and not data.endswith(b"\n"):
                    data = file.readline(1 << 16)
                yield f":{line}", BadRow(f"a line of more than {jsons.LONGEST} bytes")
                continue
            data = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
            if not data.strip():
                continue
            try:
                row = json.loads(data.decode(), parse_constant=_no_number)
            except UnicodeDecodeError:
                yield f":{line}", BadRow("the row is not UTF-8")
            except (ValueError, RecursionError) as error:
                yield f":{line}", BadRow(f"no sound JSON: {str(error).split(';')[0]}")
            else:
                yield f":{line}", row if isinstance(row, dict) else BadRow("the row is no JSON object")


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    import polars as pl  # heavy, and hardly any metadata is parquet

    scan, number = _parquet(path), 0
    try:
        while batch := scan.slice(number, _BATCH).collect().to_dicts():
            for row in batch:
                yield f"[{number}]", row
                number += 1
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path}: row {number}: no sound parquet: {str(error).splitlines()[0]:.200}") from error


def _parquet(path: Path) -> pl.LazyFrame:
    """Raises StorageError, DataError."""
    import polars as pl

    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head != b"PAR1":
            raise DataError(f"{path}: no parquet file: it begins with {head!r}")
        scan = pl.scan_parquet(paths.kept_on_disk(path), glob=False)
        scan.collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path}: no sound parquet: {str(error).splitlines()[0]:.200}") from error
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    return scan


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


# --- what a row says -------------------------------------------------------------------------------------------------


def _image_of(row: Mapping[str, Any]) -> str:
    """The name of the image, with "/" between its parts. Raises BadRow."""
    column = "file_name"
    if column not in row:
        some = [name for name in row if _names_image(name)]
        if len(some) != 1:
            several = ", ".join(some) or next((name for name in row if name.endswith("file_names")), "")
            raise BadRow(f"several images in a row: {several}" if several else "the row has no file_name")
        column = some[0]
    name = row[column]
    if not isinstance(name, str) or not name:
        raise BadRow(f"{column} is {name!r:.60}, wanted the name of an image")
    if "://" in name:
        raise BadRow(f"{column} is {shown(name)}, a URL; wanted a file in the folder")
    return name.replace("\\", "/")


class _Fields:
    """The fields of a Record out of a row."""

    def of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Raises BadRow."""
        rest = {name: value for name, value in row.items() if value is not None and not _is_of_image(name, row)}
        fields: dict[str, Any] = {"label_name": None, "labels": None, "boxes": None}
        self._classes(rest, fields)
        captions = [
            rest.pop(name)
            for name in _CAPTIONS
            if isinstance(rest.get(name), str) or rest.get(name) == [] or _are_texts(rest.get(name))
        ]
        if captions:
            texts = [text for some in captions for text in ([some] if isinstance(some, str) else some)]
            fields["captions"] = tuple(dict.fromkeys(_as_json({"text": texts})["text"]))
        if "value" in rest and _is_number(rest["value"]):
            fields["value"] = _finite(rest.pop("value"), "value")
        if isinstance(group := rest.get("group"), str | int) and not isinstance(group, bool) and group != "":
            fields["group"] = str(_as_json({"group": rest.pop("group")})["group"])
        of_boxes: dict[str, Any] = {}
        if "objects" in rest:
            of_boxes = self._objects(rest.pop("objects"), fields)
            sides = [rest.get(side) for side in ("height", "width")]
            if all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
                fields["size"] = (rest.pop("height"), rest.pop("width"))
        attributes = {word_of(name) or name: value for name, value in rest.items()}
        fields["attributes"] = _as_json(attributes | of_boxes)
        return fields

    def _classes(self, rest: dict[str, Any], fields: dict[str, Any]) -> None:
        label, several = rest.pop("label", None), rest.pop("labels", None)
        if several is not None and not isinstance(several, list):
            raise BadRow(f"labels is {several!r:.60}, wanted a list of classes")
        if isinstance(label, list):
            several = [*label, *several] if several else label
            label = None
        if several is not None:
            names = [_class(name, "a label") for name in several]
            names += [] if label in (None, "") else [_class(label, "the label")]
            fields["labels"] = tuple(dict.fromkeys(names))
        elif label not in (None, ""):
            fields["label_name"] = _class(label, "the label")

    def _objects(self, objects: Any, fields: dict[str, Any]) -> dict[str, Any]:
        """Boxes and what belongs to them. Gives attributes with a value for each box. Raises BadRow."""
        if isinstance(objects, list):
            if not all(isinstance(one, dict) for one in objects):
                raise BadRow(f"objects is {objects!r:.60}, wanted a list of objects")
            names = dict.fromkeys(name for one in objects for name in one)
            objects = {name: [one.get(name) for one in objects] for name in names} or {"bbox": []}
        if not isinstance(objects, dict) or not isinstance(objects.get("bbox"), list):
            raise BadRow(f"objects is {objects!r:.60}, wanted lists, one of them bbox")
        lists = dict(objects)
        n = len(lists["bbox"])
        for name, values in lists.items():
            if isinstance(values, list) and len(values) != n:
                raise BadRow(f"objects has {n} of bbox and {len(values)} of {name}")
        fields["boxes"] = _corners(lists.pop("bbox"))
        column = next((name for name in _CATEGORIES if isinstance(lists.get(name), list)), None)
        if column is not None:
            fields["box_labels"] = tuple(_class(name, f"{column} of an object") for name in lists.pop(column))
        if isinstance(lists.get("segmentation"), list):
            fields["masks"] = tuple(map(_mask, lists.pop("segmentation")))
        if isinstance(lists.get("keypoints"), list) and any(lists["keypoints"]):
            fields["keypoints"] = _keypoints(lists.pop("keypoints"))
        found = {}
        for name, values in lists.items():
            name = OTHER_NAMES.get(word_of(name), word_of(name) or name)
            if isinstance(values, list):
                found[name] = [_of_box(name, value) for value in values]
            elif values is not None:
                found[f"objects_{name}"] = values
        return found


def _mask(given: Any) -> Mask | None:
    """Raises BadRow."""
    try:
        return None if not given else segmentations.mask_of(given)
    except ValueError as error:
        raise BadRow(f"segmentation is {given!r:.60}: {error}") from None


def _is_of_image(name: str, row: Mapping[str, Any]) -> bool:
    return name == "file_name" or ("file_name" not in row and _names_image(name))


def _class(value: Any, what: str) -> str:
    """Raises BadRow."""
    name = str(value) if isinstance(value, int) else value
    if fault := name_fault(name):
        raise BadRow(f"{what}: {fault}")
    return str(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return bool(value) and all(isinstance(text, str) for text in _listed(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _finite(value: Any, what: str) -> float:
    """Raises BadRow: no number, or not finite as a float32."""
    if not _is_number(value) or not abs(value) <= float(np.finfo(np.float32).max):
        raise BadRow(f"{what} is {value!r:.60}, wanted a number")
    return float(value)


def _corners(boxes: list[Any]) -> NDArray[np.float32]:
    """float32 [n, 4] = x0, y0, x1, y1 of x, y, width, height. Raises BadRow."""
    found = np.zeros((len(boxes), 4), np.float64)
    for i, box in enumerate(boxes):
        if not isinstance(box, list) or len(box) != 4:
            raise BadRow(f"bbox {i} is {box!r:.60}, wanted x, y, width and height")
        x, y, width, height = (_finite(number, f"bbox {i}: {box!r:.60}, of which") for number in box)
        if width < 0 or height < 0:
            raise BadRow(f"bbox {i} is {box!r:.60}, a negative width or height")
        found[i] = x, y, x + width, y + height
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


def _keypoints(given: list[Any]) -> NDArray[np.float32]:
    """float32 [n, k, 3]; all absent for an object without. Raises BadRow."""
    points = [_flat(of) for of in given]
    k = max(map(len, points)) // 3
    for of in points:
        if len(of) not in (0, 3 * k) or not k:
            raise BadRow(f"keypoints of an object are {len(of)} numbers, wanted 3 for each of {k} points")
    return np.array([of or [0.0] * (3 * k) for of in points], np.float32).reshape(len(given), k, 3)


def _flat(of: Any) -> list[float]:
    if of is not None and not isinstance(of, list):
        raise BadRow(f"keypoints are {of!r:.60}, wanted x, y and v of each")
    parts = [part for some in of or [] for part in (some if isinstance(some, list) else [some])]
    return [_finite(part, "a keypoint") for part in parts]


def _of_box(name: str, value: Any) -> Any:
    """An attribute of a box. Raises BadRow: no flag, or no number of a track."""
    if name in FLAGGED:
        flag = -1 if value is None else int(value) if isinstance(value, bool) else value
        if type(flag) is not int or flag not in (-1, 0, 1):
            raise BadRow(f"{name} is {value!r:.60}, wanted 0 or 1, or -1 for unknown")
        return flag
    if name == "track" and value is not None and type(value) is not int:
        raise BadRow(f"{name} is {value!r:.60}, wanted a whole number")
    return value


def _as_json(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as JSON has them: days and the like as texts. Raises BadRow."""
    for name, value in attributes.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False, default=_text).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadRow(f"column {name} holds what is no JSON: {error}") from error
    made: dict[str, Any] = json.loads(json.dumps(attributes, default=_text))
    return made


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes")
    return str(value)
