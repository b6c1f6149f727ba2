"""Source `visipedia`: the list of dicts that visipedia/tfrecords takes, or a JSON file that holds it.

    [{"filename": "a.jpg", "id": "1", "class": {"label": 0, "text": "cat"},
      "object": {"count": 1, "bbox": {"xmin": [0.1], "xmax": [0.8], "ymin": [0.2], "ymax": [0.9], "label": [0]}}}]

Reading one item is a function of its own, for `compat.visipedia` takes the same lists. Coordinates are normalised, so
that an item with boxes or parts that doesn't say the size of its image has it looked up; no image is decoded here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.place.address import is_url
from headrace.record import Record, Reject
from headrace.sources import walking
from headrace.sources.formats import CLASS_NAMES, FLIP_PAIRS, About, Format, Option
from headrace.sources.info import SourceInfo

if TYPE_CHECKING:
    from headrace.imaging.codec import Header

T = TypeVar("T")

_INT = re.compile(r"\s*[+-]?[0-9]+(\.0*)?\s*")
_INT64 = 1 << 63
_FLOAT32 = float(np.finfo(np.float32).max)

# No classification has more, and a label as a name for every index below it is a list of that length.
_MOST_LABELS = 1_000_000
# A box may reach out of its image, and is then cut to it. Beyond this the numbers are no fractions of an image at all.
_FARTHEST = (-1.0, 2.0)
# The size of an image stands near its beginning, but for what a camera has put before it.
_HEAD_BYTES = 1 << 16


class BadItem(ValueError):
    """An item that can't be used: `stage` and `reason`. Becomes a Reject, or an `error_msg`."""

    def __init__(self, reason: str, *, stage: str = "annotation") -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image of such a list, with every value in its kind. None is what the item says nothing of.

    `count` is the number of objects. `lists` holds every list by its key (`bbox/xmin` ... `parts/score`), empty where
    there is none: as long as `count`, and those of `parts` as long as each other. `fields`: which of `count`, `bbox`
    and `parts` the item has at all, so that an image without objects is told apart from one that nobody annotated.
    """

    id: str
    filename: str
    encoded: bytes | None
    height: int | None
    width: int | None
    channels: int | None
    format: str | None
    colorspace: str | None
    label: int | None
    text: str | None
    conf: float | None
    extra: str | None
    count: int
    lists: Mapping[str, list[Any]]
    fields: frozenset[str]

    @property
    def boxes(self) -> NDArray[np.float64]:
        """float64 [n, 4] = xmin, ymin, xmax, ymax, normalised, as given."""
        sides = [self.lists[f"bbox/{side}"] for side in ("xmin", "ymin", "xmax", "ymax")]
        return np.array(sides, np.float64).reshape(4, -1).T


def read_item(raw: Any) -> Item:
    """The item of a dict, in its kinds. Numbers may be strings, lists tuples or arrays. Raises BadItem.

    What it refuses no reader of the result could tell from what was meant: another kind, NaN, a value that the kind
    can't hold, lists of different lengths. Where a box or a label makes no sense is left to the caller.
    """
    if not isinstance(raw, Mapping):
        raise BadItem(f"is {_shown(raw)}, wanted a dict")
    filename = _value(raw, "filename", _filename)
    id_ = _value(raw, "id", _text)
    encoded = _value(raw, "encoded", _bytes)
    for name, value in (("filename", filename), ("id", id_)):
        if value is None:
            raise BadItem(f"{name} is missing")
    assert filename is not None and id_ is not None
    if not id_:
        raise BadItem("id is empty")
    if not filename and encoded is None:
        raise BadItem("filename is empty")
    class_, object_ = _part(raw, "class"), _part(raw, "object")
    parts = {"": object_, "bbox": _part(object_, "bbox", "object."), "parts": _part(object_, "parts", "object.")}
    lists = {}
    for key, convert in LISTS.items():
        where, _, name = key.rpartition("/")
        lists[key] = _list(parts[where].get(name), f"object.{key.replace('/', '.')}", convert)
    return Item(
        id=id_,
        filename=filename,
        encoded=encoded,
        height=_size(raw, "height"),
        width=_size(raw, "width"),
        channels=_size(raw, "channels"),
        format=_value(raw, "format", _text),
        colorspace=_value(raw, "colorspace", _text),
        label=_value(class_, "label", _int, "class."),
        text=_value(class_, "text", _text, "class."),
        conf=_value(class_, "conf", _float, "class."),
        extra=_extra(raw, class_),
        count=_count(_value(object_, "count", _int, "object."), lists),
        lists=lists,
        fields=frozenset(name for name in ("count", "bbox", "parts") if object_.get(name) is not None),
    )


def read_json(path: str | os.PathLike[str]) -> list[Any]:
    """The list in a JSON file. Raises NotThereError, UsageError, StorageError, DataError (no JSON, or no list)."""
    path = paths.path_of(path)
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file, wanted a JSON file with a list of images")
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, list):
        raise DataError(f"{path}: holds {_shown(data)}, wanted a list of images")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class VisipediaSource:
    """Iterable of Record | Reject; see `visipedia`. `root` is the JSON file, or says that it is a list.

    Its SourceInfo names the classes, of images and of boxes, in the order of their labels; None when no item has one.
    """

    root: str
    items: Sequence[Any]
    images: Path | None
    class_names: tuple[str, ...] | None
    keypoint_names: tuple[str, ...] | None
    flip_pairs: tuple[tuple[int, int], ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        classes = _Names("class", self._labels(), self.class_names)
        box_classes = _Names("object.bbox", self._box_labels(), None)
        name = self.root.rpartition(os.sep)[2]
        inside = None if self.images is None else os.path.realpath(self.images)
        for index, raw in enumerate(self.items):
            origin = f"{name}[{index}]"
            try:
                yield self._record(raw, origin, inside, classes, box_classes)
            except BadItem as error:
                yield Reject(id=_id_of(raw, origin), origin=origin, stage=error.stage, reason=error.reason)
        return SourceInfo(
            class_names=classes.names or None,
            box_class_names=box_classes.names or None,
            keypoint_names=self.keypoint_names,
            flip_pairs=self.flip_pairs,
            root=self.root,
        )

    def _labels(self) -> Iterator[_Named]:
        for i, raw in enumerate(self.items):
            try:
                part = _part(raw, "class") if isinstance(raw, Mapping) else {}
                yield _value(part, "label", _int), _value(part, "text", _text), i
            except BadItem:  # which it will be a Reject for
                continue

    def _box_labels(self) -> Iterator[_Named]:
        for i, raw in enumerate(self.items):
            try:
                part = _part(_part(raw, "object"), "bbox") if isinstance(raw, Mapping) else {}
                labels, texts = _list(part.get("label"), "", _int), _list(part.get("text"), "", _text)
            except BadItem:
                continue
            if labels and texts and len(labels) != len(texts):
                continue
            for label, text in _pairs(labels, texts):
                yield label, text, i

    def _record(self, raw: Any, origin: str, inside: str | None, classes: _Names, box_classes: _Names) -> Record:
        item = read_item(raw)
        _check_boxes(item)
        label_name = None if item.label is None and not item.text else classes.name_of(item.label, item.text)
        pairs = _pairs(item.lists["bbox/label"], item.lists["bbox/text"])
        box_labels = tuple(box_classes.name_of(*pair, i) for i, pair in enumerate(pairs))
        points = _keypoints(item, self.keypoint_names)
        path = None if item.encoded is not None else self._path(item.filename, inside)
        negative = not item.count and ("bbox" in item.fields or item.fields == {"count"})
        boxes = item.boxes if len(item.boxes) or negative else None
        size = None
        if len(item.boxes) or points is not None:
            size = _image_size(item, path)
            height, width = size
            if boxes is not None:
                boxes = boxes * [width, height, width, height]
            if points is not None:
                points = points * [width, height, 1]
        return Record(
            id=item.id,
            encoded=item.encoded,
            path=path,
            label_name=label_name,
            boxes=None if boxes is None else boxes.astype(np.float32),
            box_labels=box_labels if boxes is not None and (box_labels or not len(boxes)) else None,
            keypoints=None if points is None else points.astype(np.float32),
            size=size,
            attributes=_attributes(item),
            origin=origin,
        )

    def _path(self, filename: str, inside: str | None) -> str:
        path = filename
        if self.images is not None:
            if Path(filename).is_absolute() or ".." in Path(filename).parts:
                raise BadItem(f"filename {filename!r} leads out of the folder of images", stage="read")
            path = f"{self.images}/{filename}"
        elif is_url(filename):  # no list makes packing ask a server that the caller did not name
            raise BadItem(f"filename {filename!r:.200} is a URL; pass images=URL of what it lies below", stage="read")
        if refused := walking.refusal(path, inside):
            raise BadItem(refused, stage="read")
        return path


def visipedia(
    dataset: Iterable[Any] | str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    keypoint_names: Sequence[str] | None = None,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
) -> VisipediaSource:
    """Images of a list of dicts as visipedia/tfrecords takes them, or of the JSON file that holds one.

    A `filename` counts from the working folder, as there, or from the folder `images`, and then may not lead out of it.
    Ids are the items' `id`, origins `file[index]`. Boxes [n, 4] and keypoints [n, k, 3] are scaled to pixels by the
    item's `height` and `width`, or where it lacks them by those in the image's header: of the image as its bytes are
    stored, as visipedia has it. Numbers that are of no such image are a Reject, at the latest in the packer, but those
    of the image once upright are taken for what they are (Record.size).

    A class is named by its `text`, or else by its label; without a `class` the record has no label. A class's index is
    its label: one that no item has is among the names too. `class_names` gives the names instead. The same for boxes.
    Two labels of one text are told apart by the label behind it; two texts of one label are a Reject.
    `parts` are flat over all objects, k of each: as many as there are parts for one of `count` objects, with
    `keypoint_names` naming them and `flip_pairs` the indices of left and right ones. Parts without `v` are visible.
    Attributes hold what else there is: score, conf, is_crowd, area (normalised) and object_id with an entry per box,
    keypoint_score [n][k], class_conf, extra, and filename where it is another than the id.

    Raises NotThereError, StorageError, DataError (no JSON, no list), UsageError (no folder; an option).
    """
    if isinstance(dataset, str | os.PathLike):
        root, items = os.fspath(dataset), read_json(dataset)
    elif isinstance(dataset, Mapping | bytes):
        raise UsageError(f"dataset is {_shown(dataset)}, wanted a list of dicts or a JSON file of one")
    else:
        root, items = "dataset", dataset if isinstance(dataset, list) else list(dataset)
    names = None if keypoint_names is None else tuple(keypoint_names)
    if class_names is not None and len(set(class_names)) != len(class_names):
        raise UsageError(f"class names {', '.join(class_names)}: one occurs twice")
    return VisipediaSource(
        root=root,
        items=items,
        images=None if images is None else walking.check_root(images),
        class_names=None if class_names is None else tuple(class_names),
        keypoint_names=names,
        flip_pairs=None if flip_pairs is None else tuple((int(a), int(b)) for a, b in flip_pairs),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is such a JSON file, or None when nothing does. Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    if re.match(rb'\s*\[\s*\{\s*"', head) and re.search(rb'"filename"\s*:', head):
        return 'it is a JSON list of images with their "filename"'
    return None


FORMAT = Format(
    name="visipedia",
    reads="A JSON list of images as visipedia/tfrecords takes it",
    takes="file",
    make=visipedia,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that file names start from; the working directory by default.",
            per_split=True,
        ),
        CLASS_NAMES,
        Option(name="keypoint_names", type=tuple[str, ...], help="Names of an object's parts, in their order."),
        FLIP_PAIRS,
    ),
    example=("train.json", {"images": "photos"}),
    about=About(
        recognised="a JSON list of objects with filename, id, class or object.",
        kept=(
            "what visipedia/tfrecords writes: class, boxes (fractions), scores, areas, ids, parts as keypoints, extra."
        ),
        refused="an item without a file name or id, or whose lists have different lengths.",
        sample=(
            '[{"filename": "a.jpg", "id": "1", "class": {"label": 0, "text": "cat"},\n'
            '  "object": {"count": 1, "bbox": {"xmin": [0.1], "xmax": [0.8], "ymin": [0.2], "ymax": [0.9],\n'
            '                                  "label": [0]}}}]'
        ),
    ),
)


# --- what becomes of a value -----------------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    """A value, fit for a line: what it is where it is long."""
    if isinstance(value, Mapping):
        return f"a dict ({', '.join(str(key) for key in list(value)[:4])})" if value else "an empty dict"
    if isinstance(value, list | tuple | np.ndarray):
        return f"a {type(value).__name__} of {np.size(value) if isinstance(value, np.ndarray) else len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _plain(value: Any) -> Any:
    """A NumPy scalar, or an array of no dimension, as Python's own."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and not np.ndim(value) else value


def _int(value: Any, where: str) -> int:
    value = _plain(value)
    if isinstance(value, str) and _INT.fullmatch(value) and len(value) < 30:
        value = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        raise BadItem(f"{where} is {_shown(value)}, wanted a whole number")
    if not -_INT64 <= value < _INT64:
        raise BadItem(f"{where} is {_shown(value)}, more than 64 bits hold")
    return int(value)


def _float(value: Any, where: str) -> float:
    value = _plain(value)
    if isinstance(value, str) and "_" not in value and len(value) < 100:
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float):
        raise BadItem(f"{where} is {_shown(value)}, wanted a number")
    if not abs(value) <= _FLOAT32:  # NaN neither; a whole number may be beyond all floats
        raise BadItem(f"{where} is {_shown(value)}, wanted a finite number of 32 bits")
    return float(value)


def _text(value: Any, where: str) -> str:
    value = _plain(value)
    try:
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, int | float):
            value = str(value)
        if isinstance(value, str):
            value.encode()
            return str(value)
    except UnicodeError:
        raise BadItem(f"{where} is {_shown(value)}, which is no UTF-8") from None
    raise BadItem(f"{where} is {_shown(value)}, wanted a text")


def _filename(value: Any, where: str) -> str:
    text = _text(os.fspath(value) if isinstance(value, os.PathLike) else value, where)
    if "\0" in text:
        raise BadItem(f"{where} is {_shown(text)}, which no file can be called")
    return text


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:
        return value.tobytes()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise BadItem(f"{where} is {_shown(value)}, wanted the bytes of an image file")


def _size(raw: Mapping[str, Any], name: str) -> int | None:
    value = _value(raw, name, _int)
    if value is not None and value < 1:
        raise BadItem(f"{name} is {value}, wanted at least 1")
    return value


def _value(part: Mapping[str, Any], name: str, convert: Callable[[Any, str], T], above: str = "") -> T | None:
    """One value; JSON's null is none."""
    value = part.get(name)
    return None if value is None else convert(value, above + name)


def _part(raw: Mapping[str, Any], name: str, above: str = "") -> Mapping[str, Any]:
    value = raw.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadItem(f"{above}{name} is {_shown(value)}, wanted a dict")
    return value


def _list(value: Any, where: str, convert: Callable[[Any, str], T]) -> list[T]:
    """A list, tuple or array of one dimension; a single value is a list of one, as visipedia takes it."""
    if value is None:
        return []
    if hasattr(value, "tolist") and not isinstance(value, memoryview):
        if np.ndim(value) > 1:
            raise BadItem(f"{where} has {np.ndim(value)} dimensions, wanted one")
        value = value.tolist()
    if not isinstance(value, list | tuple):
        value = [value]
    return [convert(one, f"{where}[{i}]") for i, one in enumerate(value)]


LISTS: Mapping[str, Callable[[Any, str], Any]] = {
    "area": _float,
    "id": _text,
    "is_crowd": _int,
    **{f"bbox/{side}": _float for side in ("xmin", "xmax", "ymin", "ymax")},
    "bbox/label": _int,
    "bbox/text": _text,
    "bbox/conf": _float,
    "bbox/score": _float,
    "parts/x": _float,
    "parts/y": _float,
    "parts/v": _int,
    "parts/score": _float,
}


def _extra(raw: Mapping[str, Any], class_: Mapping[str, Any]) -> str | None:
    """At the top as visipedia's README has it, or under `class`, where its code looks."""

    def text(value: Any, where: str) -> str:
        if isinstance(value, Mapping | list | tuple):
            try:
                value = json.dumps(value, ensure_ascii=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise BadItem(f"{where} can't be written as JSON: {error}") from None
        return _text(value, where)

    found = _value(raw, "extra", text), _value(class_, "extra", text, "class.")
    if None not in found and found[0] != found[1]:
        raise BadItem("extra stands both at the top and under class, and they differ")
    return found[1] if found[0] is None else found[0]


def _count(said: int | None, lists: Mapping[str, list[Any]]) -> int:
    """The number of objects. Raises BadItem: the lists and `said` don't agree on it."""
    sides = {key: len(lists[f"bbox/{key}"]) for key in ("xmin", "xmax", "ymin", "ymax")}
    if len(set(sides.values())) > 1:
        raise BadItem(f"object.bbox has {', '.join(f'{n} {key}' for key, n in sides.items())}; wanted as many of each")
    points = {key: len(lists[f"parts/{key}"]) for key in ("x", "y", "v", "score")}
    if points["x"] != points["y"] or any(points[key] not in (0, points["x"]) for key in ("v", "score")):
        raise BadItem(f"object.parts has {', '.join(f'{n} {key}' for key, n in points.items())}; wanted equally many")
    # Boxes first: what is said of them must be as long as they are. A list may be empty, but for the boxes themselves.
    n, by = (sides["xmin"], "object.bbox.xmin") if sides["xmin"] else (said, "object.count")
    for key, values in lists.items():
        if key.startswith("parts/") or not values:
            continue
        if n is None:
            n, by = len(values), f"object.{key.replace('/', '.')}"
        if len(values) != n:
            raise BadItem(f"object.{key.replace('/', '.')} has {len(values)} values, {by} says {n}")
    if said is not None and n != said:
        raise BadItem(f"object.count is {said}, there are {n} boxes")
    if n is None:
        n = 1 if points["x"] else 0
    if said and not any(lists.values()):
        raise BadItem(f"object.count is {said}, and there is not one list of them")
    if points["x"] and n < 1:
        raise BadItem(f"object.parts has {points['x']} points, object.count is {n}")
    return n


# --- what becomes of an item -----------------------------------------------------------------------------------------

_Named = tuple[int | None, str | None, int]


class _Names:
    """Label -> name. Two texts of one label are a contradiction, two labels of one text are told apart."""

    def __init__(self, where: str, found: Iterable[_Named], given: tuple[str, ...] | None) -> None:
        self.where = where
        self._texts: dict[int, tuple[str, str]] = {i: (name, "class_names") for i, name in enumerate(given or ())}
        loose: set[str] = set()
        top = len(given or ()) - 1
        for label, text, index in found:
            if given is not None or (text is not None and "\n" in text):
                continue
            if label is None:
                if text:
                    loose.add(text)
            elif 0 <= label < _MOST_LABELS:
                top = max(top, label)
                if text:
                    self._texts.setdefault(label, (text, f"item {index}"))
        plain = [self._texts[i][0] if i in self._texts else str(i) for i in range(top + 1)]
        uses = Counter(plain)
        self._by_label = [name if uses[name] == 1 else f"{name} ({i})" for i, name in enumerate(plain)]
        if len(set(self._by_label)) < len(plain):
            self._by_label = [str(i) for i in range(top + 1)]
        self._by_text = {name: self._by_label[i] for i, name in enumerate(plain) if uses[name] == 1}
        self._twice = {name for name in uses if uses[name] > 1}
        more = loose - set(self._by_text) - self._twice - set(self._by_label)
        self._by_text |= {name: name for name in more}
        self.names = (*self._by_label, *sorted(more, key=walking.natural))

    def name_of(self, label: int | None, text: str | None, i: int | None = None) -> str:
        """The name of a class said by its label, by its text, or by both. Raises BadItem."""
        at = "" if i is None else f"[{i}]"
        if text and "\n" in text:
            raise BadItem(f"{self.where}.text{at} {text!r} holds a line break")
        if label is None:
            if not text:
                raise BadItem(f"{self.where}.text{at} is empty, and there is no label")
            if text in self._twice:
                raise BadItem(f"{self.where}.text{at} {text!r} is that of several labels, and there is no label")
            if text not in self._by_text:
                raise BadItem(f"{self.where}.text{at} is {text!r}, which is none of the class names")
            return self._by_text[text]
        if not 0 <= label < _MOST_LABELS:
            raise BadItem(f"{self.where}.label{at} is {label}, wanted 0 to {_MOST_LABELS - 1}; leave it out for none")
        if label >= len(self._by_label):
            raise BadItem(f"{self.where}.label{at} is {label}, there are {len(self._by_label)} class names")
        known, where = self._texts.get(label, ("", ""))
        if text and text != known:
            raise BadItem(f"{self.where}.text{at} is {text!r}, label {label} is {known!r} by {where}")
        return self._by_label[label]


def _pairs(labels: list[int], texts: list[str]) -> Iterable[tuple[int | None, str | None]]:
    """Label and text of each box, where there is at least one of them."""
    n = max(len(labels), len(texts))
    some, others = iter(labels or n * (None,)), iter(texts or n * (None,))
    return zip(some, others, strict=True)


def _check_boxes(item: Item) -> None:
    for i, (x0, y0, x1, y1) in enumerate(item.boxes.tolist()):
        for side, low, high in (("x", x0, x1), ("y", y0, y1)):
            if low > high:
                raise BadItem(f"object.bbox[{i}] is reversed: {side}min is {low:g}, {side}max {high:g}")
            for name, value in ((f"{side}min", low), (f"{side}max", high)):
                if not _FARTHEST[0] <= value <= _FARTHEST[1]:
                    raise BadItem(f"object.bbox.{name}[{i}] is {value:g}, wanted a fraction of the image, 0 to 1")


def _keypoints(item: Item, names: tuple[str, ...] | None) -> NDArray[np.float64] | None:
    """float64 [n, k, 3] = x, y normalised, v; None when there are no parts. Raises BadItem."""
    x = item.lists["parts/x"]
    if not x:
        return np.zeros((0, len(names), 3)) if names and "parts" in item.fields and not item.count else None
    k, over = divmod(len(x), item.count)
    if over:
        raise BadItem(f"object.parts has {len(x)} points, which {item.count} objects can't have equally many of")
    if names is not None and k != len(names):
        raise BadItem(f"object.parts has {k} points per object, there are {len(names)} keypoint names")
    v = item.lists["parts/v"] or [2] * len(x)
    for i, (one, other, seen) in enumerate(zip(x, item.lists["parts/y"], v, strict=True)):
        if seen not in (0, 1, 2):
            raise BadItem(f"object.parts.v[{i}] is {seen}, wanted 0 (absent), 1 (hidden) or 2 (visible)")
        for side, value in (("x", one), ("y", other)):
            if seen and not _FARTHEST[0] <= value <= _FARTHEST[1]:
                raise BadItem(f"object.parts.{side}[{i}] is {value:g}, wanted a fraction of the image, 0 to 1")
    return np.array([x, item.lists["parts/y"], v], np.float64).T.reshape(item.count, k, 3)


def _attributes(item: Item) -> dict[str, Any]:
    lists, n = item.lists, item.count
    found: dict[str, Any] = {
        "score": lists["bbox/score"],
        "conf": lists["bbox/conf"],
        "is_crowd": lists["is_crowd"],
        "area": lists["area"],
        "object_id": lists["id"],
        "class_conf": item.conf,
        "extra": item.extra,
        "filename": item.filename if item.filename != item.id else None,
    }
    if scores := lists["parts/score"]:
        k = len(scores) // n
        found["keypoint_score"] = [scores[i * k : i * k + k] for i in range(n)]
    return {name: value for name, value in found.items() if value not in (None, [], "")}


def _image_size(item: Item, path: str | None) -> tuple[int, int]:
    """(height, width) of the item's image: as it says (the packer checks it), else as its bytes are stored.

    Raises BadItem.
    """
    if item.height is not None and item.width is not None:
        return item.height, item.width
    from headrace.imaging import codec  # which a list without boxes does without

    try:
        header = _header(item, path)
    except codec.BadImage as error:
        raise BadItem(error.reason, stage=error.stage) from None
    except OSError as error:
        raise BadItem(f"{(error.strerror or str(error)).lower()}: {path!r}", stage="read") from None
    for name, said, found in (("height", item.height, header.height), ("width", item.width, header.width)):
        if said is not None and said != found:
            raise BadItem(f"{name} is {said}, the image has {found} (as stored, before any EXIF orientation)")
    return header.height, header.width


def _header(item: Item, path: str | None) -> Header:
    from headrace.imaging import codec

    # Any size and any depth: the packer's own limit and range stand behind them.
    limit, range_ = _INT64, (0, 1)
    if item.encoded is not None:
        return codec.read_header(item.encoded, max_pixels=limit, value_range=range_)
    assert path is not None
    with paths.path_of(path).open("rb") as file:
        head = file.read(_HEAD_BYTES)
        with contextlib.suppress(codec.BadImage):
            return codec.read_header(head, max_pixels=limit, value_range=range_)
        return codec.read_header(head + file.read(), max_pixels=limit, value_range=range_)


def _id_of(raw: Any, origin: str) -> str:
    """What a Reject is called: by the item's id, if it has one."""
    try:
        return _value(raw, "id", _text) or origin
    except (BadItem, AttributeError):
        return origin
