"""Record and Reject: what everything here is about. What a source yields and a Dataset gives back; and the one judge of
what a record can be, whoever brings it. What hangs on its image or on the other records is left to those who know them.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.place import paths
from headrace.place.address import is_url

Boxes = NDArray[np.float32]
Keypoints = NDArray[np.float32]


class Frames(Protocol):
    """Images without bytes of their own, numbered from 0."""

    def frame(self, i: int) -> Drawn: ...

    def taken(self, numbers: NDArray[np.int64]) -> tuple[Frames, NDArray[np.int64]]:
        """Images for who sees no memory of this process, at least those of these numbers; and the numbers int64 [m]
        that they have there."""
        ...


class Drawn(Protocol):
    """Pixels that become the bytes of an image file when they are asked for: `stack.frame(number)`.

    `path`: the file they lie in, or None.
    """

    @property
    def stack(self) -> Frames: ...

    @property
    def number(self) -> int: ...

    @property
    def path(self) -> str | None: ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    def encode(self) -> bytes:
        """A file's bytes, that lose nothing. Raises BadImage, OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """An image file's bytes inside of a larger file: `length` bytes from byte `offset` on of `path`."""

    path: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 0:
            raise UsageError(f"{self.path}: {self.length} bytes from byte {self.offset} on, wanted both from 0")

    def read(self) -> bytes:
        """The bytes. Raises OSError: the file can't be read, or ends before them."""
        if is_url(self.path):
            data = paths.content(self.path, self.offset, self.length)
        else:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        if len(data) < self.length:
            end = self.offset + len(data)
            raise OSError(errno.EIO, f"{self.length} bytes from byte {self.offset} on, and the file ends at byte {end}")
        return data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mask:
    """What an object covers of its image: `polygons`, or the pixels that `runs` say of an image of `size`.

    `polygons`: float32 [m, 2] each, m >= 3, = x, y of the corners in pixels, as boxes have them; what any of them holds
    is covered. `runs` int64 [r]: lengths of runs down the columns, one column after the other, the first of pixels that
    are not covered (COCO's run lengths); their sum is that of `size` (height, width). As sources give them, so they are
    kept: packing moves polygons as polygons and runs as pixels.
    """

    polygons: tuple[NDArray[np.float32], ...] = ()
    runs: NDArray[np.int64] | None = None
    size: tuple[int, int] | None = None

    def __repr__(self) -> str:
        # It may be none at all, which check_record says.
        if isinstance(self.runs, np.ndarray) and _are(self.size, 2, int | np.integer) and self.size:
            return f"Mask({self.runs.size} runs of {self.size[0]} x {self.size[1]})"
        if self.runs is None and isinstance(self.polygons, tuple | list):
            return f"Mask({len(self.polygons)} polygons)"
        return f"Mask(polygons={brief(self.polygons)}, runs={brief(self.runs)}, size={brief(self.size)})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Record:
    """One labelled image.

    `encoded` holds the image file's bytes, `path` names the file, `part` says where in a larger file they lie, or
    `pixels` makes them: one of the four. Files may be named by URLs of stores.
    A source names the class (`label_name`); a packed dataset also knows its index (`label`). No label is None.
    `labels`: the names of all its classes, where an image may have several, () for none of them. `value`: a number that
    is known of the image, for regression. `captions`: texts about it. `group`: what it has in common with other images
    (a patient, a film), which dividing never puts into two splits.
    `boxes` float32 [n, 4] = x0, y0, x1, y1 in pixels, half-open, of the image *as its bytes are stored* (before any
    EXIF orientation, but see `size`); None when the source says nothing about boxes, [0, 4] for a negative.
    `box_labels` names of the n boxes; an attribute that is a list of n holds a value for each of them. `masks`: what
    each of the n covers, None for one that nothing is known of.
    `keypoints` float32 [n, k, 3] = x, y, v (0 absent, 1 hidden, 2 visible).
    `size` (height, width): of the image that boxes and keypoints were measured in, as the annotation says it; None when
    it doesn't. That is the image as its bytes are stored, or else as it is once upright; any other image is a Reject.
    `upright`: they were measured in the image as it is seen once its EXIF orientation is applied, and so is `size` and
    `window`; where it is False a size decides that can only be one of the two.
    `window` (x0, y0, x1, y1): the part of the image that this record is, in the same pixels as boxes and keypoints;
    None is all of it. What of it reaches out of the image is cut.
    `split` it belongs to, where its source comes divided: packing keeps it there, unless it is told fractions. None
    where packing divides; a record without one among others that have one is a Reject.
    `origin` is where the annotation was read: a file, or `file:line`.
    """

    id: str
    encoded: bytes | None = None
    path: str | None = None
    part: Part | None = None
    pixels: Drawn | None = None
    label: int | None = None
    label_name: str | None = None
    labels: tuple[str, ...] | None = None
    value: float | None = None
    captions: tuple[str, ...] | None = None
    boxes: Boxes | None = None
    box_labels: tuple[str, ...] | None = None
    masks: tuple[Mask | None, ...] | None = None
    keypoints: Keypoints | None = None
    size: tuple[int, int] | None = None
    upright: bool = False
    window: tuple[float, float, float, float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    origin: str = ""

    def __repr__(self) -> str:
        known = ((each.name, getattr(self, each.name)) for each in fields(self))
        said = (
            f"{name}={brief(value)}"
            for name, value in known
            if value is not None and (not isinstance(value, str | Mapping | bool) or value)
        )
        return f"{type(self).__name__}({', '.join(said)})"

    def read(self) -> bytes:
        """The image file's bytes. Raises OSError when the file can't be read; BadImage, when pixels have no bytes."""
        if self.encoded is not None:
            return self.encoded
        if self.pixels is not None:
            return self.pixels.encode()
        if self.part is not None:
            return self.part.read()
        if self.path is None:
            raise UsageError(f"record {self.id!r} has no image: wanted encoded bytes, a path, a part or pixels")
        return paths.content(self.path) if is_url(self.path) else Path(self.path).read_bytes()


def brief(value: object) -> str:
    """What a value is, in a line for people: bytes by kind and size, arrays by type and shape, the first of many."""
    if isinstance(value, bytes):
        kind = next((kind for start, kind in _KINDS.items() if value.startswith(start)), "bytes")
        return f"<{kind}, {len(value)} bytes>" if len(value) < 1000 else f"<{kind}, {len(value) / 1000:.0f} kB>"
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {list(value.shape)}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {brief(part)}" for name, part in value.items()) + "}"
    if isinstance(value, tuple) and len(value) > _SHOWN:
        return f"({', '.join(map(brief, value[:_SHOWN]))}, … {len(value)} in all)"
    text = repr(value)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


_KINDS = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"\x93NUMPY": "npy"}
_SHOWN, _LETTERS = 4, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One image or annotation that was refused: what, where, in which stage, and why."""

    id: str
    origin: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin or self.id}: {self.reason} ({self.stage})"


def check_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of classes or keypoints in index order, of `where`. Raises UsageError: one occurs twice, or can't be
    written as a line of a file."""
    for name in names:
        if fault := name_fault(name):
            raise UsageError(f"{where}: {fault}")
    if len(set(names)) != len(names):
        raise UsageError(f"{where} {', '.join(names)}: one occurs twice")
    return tuple(names)


def name_fault(name: object) -> str | None:
    """Why this can't name a class or a keypoint, or None: files beside the shards hold a name a line, and others'
    readers end a line at a carriage return and pass over blank ones."""
    if not isinstance(name, str):
        return f"{name!r:.60} is no name, wanted a str"
    if not name.strip():
        return f"{name!r:.60} is a blank name"
    if "\n" in name or "\r" in name:
        return f"{name!r:.60} holds a line break"
    if name[0] == "\ufeff":
        return f"{name!r:.60} begins with a byte order mark"
    return None if _is_utf8(name) else f"{name!r:.60} holds halves of characters"


# --- what a record can be --------------------------------------------------------------------------------------------

MOST_LABEL = (1 << 31) - 1  # a catalog's labels are int32
VISIBILITIES = (0, 1, 2)  # absent, hidden, visible

# By number, what is wrong with a box, of whatever image; 0 is nothing.
BOX_FAULTS = ("", "not finite", "reversed", "without an area")


def check_record(record: Record) -> str | None:
    """What is wrong with a record in itself, whatever its image and the other records are; None where nothing is.

    Raises nothing, whatever its fields hold.
    """
    return (
        _id_fault(record)
        or _image_fault(record)
        or _class_fault(record)
        or _boxes_fault(record)
        or _masks_fault(record)
        or _points_fault(record)
        or _rest_fault(record)
    )


def box_faults(boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Which of BOX_FAULTS each of the boxes float32 [n, 4] has, uint8 [n]."""
    low, high = boxes[:, :2], boxes[:, 2:]  # no difference of them: it may be beyond all numbers
    faults = np.zeros(len(boxes), np.uint8)
    faults[(high == low).any(axis=1)] = 3
    faults[(high < low).any(axis=1)] = 2
    faults[~np.isfinite(boxes).all(axis=1)] = 1
    return faults


def odd_visibility(points: NDArray[np.float32]) -> float | None:
    """The first v of points [..., 3] that is none of VISIBILITIES; None where there is none."""
    odd = points[..., 2][~np.isin(points[..., 2], VISIBILITIES)]
    return float(odd[0]) if len(odd) else None


def keypoints_fault(points: NDArray[np.float32], k: int | None, boxes: int | None) -> str | None:
    """What is wrong with the keypoints [n, k, 3] of a record that has so many boxes. None for k: any number of points
    will do; for boxes: nothing is said of any."""
    if points.ndim != 3 or points.shape[2] != 3 or (len(points) and not points.shape[1]):
        return f"the keypoints have shape {list(points.shape)}, wanted [n, k, 3]"
    if k is not None and points.shape[1] != k:
        return f"{points.shape[1]} keypoints per object, in this dataset they are {k}"
    if boxes is not None and len(points) != boxes:
        return f"{boxes} boxes, {len(points)} sets of keypoints"
    for of, number in np.argwhere(~np.isfinite(points).all(axis=2)).tolist():
        return f"keypoint {number} of object {of} is {points[of, number].tolist()}, wanted finite numbers"
    if (odd := odd_visibility(points)) is not None:
        of, number = np.argwhere(points[..., 2] == odd)[0].tolist()
        return f"keypoint {number} of object {of} has v {odd:g}, wanted 0, 1 or 2"
    return None


def _id_fault(record: Any) -> str | None:
    for name, value in (("id", record.id), ("origin", record.origin)):
        if not isinstance(value, str):
            return f"the {name} is {value!r:.60}, wanted a str"
        if not _is_utf8(value):
            return f"the {name} {value!r:.60} holds halves of characters"
    return None if record.id else "the id is empty"


def _image_fault(record: Any) -> str | None:
    encoded, path, part = record.encoded, record.path, record.part
    if encoded is not None and not isinstance(encoded, bytes | bytearray):
        return f"encoded is {type(encoded).__name__}, wanted bytes"
    if part is not None and not isinstance(part, Part):
        return f"the part is {part!r:.60}, wanted a Part"
    for value in (path, None if part is None else part.path):
        if value is not None and not (isinstance(value, str) and "\0" not in value):
            return f"the path is {value!r:.60}, wanted a str without null characters"
    none = encoded is None and path is None and part is None and record.pixels is None
    if none and type(record).read is Record.read:
        return "it has no image: wanted encoded bytes, a path, a part or pixels"
    return None


def _class_fault(record: Any) -> str | None:
    label, name = record.label, record.label_name
    if label is not None and not (isinstance(label, int | np.integer) and 0 <= label <= MOST_LABEL):
        return f"label {label!r:.60}, wanted the number of a class, from 0 on, or None for no label"
    if name is not None and (fault := name_fault(name)):
        return f"class name {fault}"
    return _several_fault(record) or _value_fault(record.value)


def _several_fault(record: Any) -> str | None:
    names = record.labels
    if names is None:
        return None
    if not isinstance(names, tuple | list):
        return f"the labels are {names!r:.60}, wanted a tuple of class names"
    if record.label is not None or record.label_name is not None:
        return "it has one label and labels, wanted one of the two"
    for i, name in enumerate(names):
        if fault := name_fault(name):
            return f"label {i}: {fault}"
    if len(set(names)) != len(names):
        return f"the labels {', '.join(names)}: one occurs twice"
    return None


def _value_fault(value: object) -> str | None:
    if value is None:
        return None
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    try:
        finite = number and bool(np.isfinite(np.float64(value)))  # type: ignore[arg-type]
    except OverflowError:
        finite = False
    return None if finite else f"the value is {value!r:.60}, wanted a finite number"


def _boxes_fault(record: Any) -> str | None:
    boxes, names = record.boxes, record.box_labels
    if boxes is not None:
        if not _is_numbers(boxes):
            return f"the boxes are {boxes!r:.60}, wanted an array float32"
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            return f"the boxes have shape {list(boxes.shape)}, wanted [n, 4]"
        with np.errstate(over="ignore"):
            faults = box_faults(boxes.astype(np.float32))
        # One without an area is no contradiction: annotators leave such by a click. It is left out, and counted.
        for i in np.flatnonzero((faults == 1) | (faults == 2)).tolist():
            return f"box {i} is {boxes[i].tolist()}, {BOX_FAULTS[faults[i]]}; wanted x0 < x1 and y0 < y1"
    if names is None:
        return None
    if not isinstance(names, tuple | list):
        return f"the labels of boxes are {names!r:.60}, wanted a tuple of names"
    if boxes is None or len(names) != len(boxes):
        return f"{'no' if boxes is None else len(boxes)} boxes, {len(names)} labels of boxes"
    for i, name in enumerate(names):
        if fault := name_fault(name):
            return f"label {i} of boxes: {fault}"
    return None


def _masks_fault(record: Any) -> str | None:
    masks, boxes = record.masks, record.boxes
    if masks is None:
        return None
    if not isinstance(masks, tuple | list):
        return f"the masks are {masks!r:.60}, wanted a tuple of Masks"
    if boxes is None or len(masks) != len(boxes):
        return f"{'no' if boxes is None else len(boxes)} boxes, {len(masks)} masks"
    for i, mask in enumerate(masks):
        if mask is not None and (fault := _mask_fault(mask)):
            return f"mask {i}: {fault}"
    return None


def _mask_fault(mask: Any) -> str | None:
    if not isinstance(mask, Mask):
        return f"{mask!r:.60} is none, wanted a Mask"
    polygons, runs, size = (getattr(mask, name) for name in ("polygons", "runs", "size"))
    if not isinstance(polygons, tuple | list):
        return f"the polygons are {polygons!r:.60}, wanted a tuple of arrays"
    if runs is None:
        for polygon in polygons:
            if not (_is_numbers(polygon) and polygon.ndim == 2 and polygon.shape[1] == 2 and len(polygon) >= 3):
                return f"a polygon is {brief(polygon)}, wanted float32 [m, 2] of three corners and more"
            with np.errstate(over="ignore"):
                if not np.isfinite(polygon.astype(np.float32)).all():
                    return "a polygon has corners that are not finite"
        return None
    if not (_are(size, 2, int | np.integer) and min(size) > 0):
        return f"its size is {size!r:.60}, wanted (height, width) in pixels"
    if not (isinstance(runs, np.ndarray) and runs.ndim == 1 and runs.dtype.kind in "iu" and (runs >= 0).all()):
        return f"its runs are {brief(runs)}, wanted lengths int64 [r]"
    if polygons:
        return "it has polygons and runs, wanted one of the two"
    if (pixels := sum(runs.tolist())) != size[0] * size[1]:  # Python's numbers don't come around
        return f"its runs sum to {pixels}, wanted {size[0]} x {size[1]} pixels"
    return None


def _points_fault(record: Any) -> str | None:
    points = record.keypoints
    if points is None:
        return None
    if not _is_numbers(points):
        return f"the keypoints are {points!r:.60}, wanted an array float32"
    with np.errstate(over="ignore"):
        return keypoints_fault(points.astype(np.float32), None, None if record.boxes is None else len(record.boxes))


def _rest_fault(record: Any) -> str | None:
    size, window = record.size, record.window
    if size is not None and not (_are(size, 2, int | np.integer) and min(size) > 0):
        return f"the size is {size!r:.60}, wanted (height, width) in pixels"
    if not isinstance(record.upright, bool):
        return f"upright is {record.upright!r:.60}, wanted True or False"
    if window is not None and not _is_window(window):
        return f"the window is {window!r:.60}, wanted (x0, y0, x1, y1), x0 < x1 and y0 < y1"
    if not isinstance(record.attributes, Mapping):
        return f"the attributes are {record.attributes!r:.60}, wanted a mapping"
    if record.attributes and (fault := _json_fault(dict(record.attributes))):
        return f"the attributes are no JSON: {fault}"
    if record.split is not None and not isinstance(record.split, str):
        return f"the split is {record.split!r:.60}, wanted a str"
    if record.group is not None and not (isinstance(record.group, str) and record.group and _is_utf8(record.group)):
        return f"the group is {record.group!r:.60}, wanted a str that is not empty"
    captions = record.captions
    if captions is not None and not (
        isinstance(captions, tuple | list) and all(isinstance(text, str) and _is_utf8(text) for text in captions)
    ):
        return f"the captions are {captions!r:.60}, wanted a tuple of texts"
    return None


def _is_window(window: Any) -> bool:
    if not _are(window, 4, int | float | np.integer | np.floating):
        return False
    try:
        corners = np.array([window], np.float64)
    except OverflowError:  # whole numbers beyond all of them
        return False
    with np.errstate(over="ignore"):
        return not box_faults(corners.astype(np.float32))[0]


def _json_fault(value: object) -> str | None:
    """Why this is no JSON in UTF-8, or None."""
    try:
        _to_json(value).encode()
    except UnicodeEncodeError:
        return "a text holds halves of characters"
    except RecursionError:
        return "nested too deeply"
    except Exception as error:  # a TypeError, a ValueError, and what a strange object's own methods raise
        return f"{error!s:.200}"
    return None


def plain(value: Any) -> Any:
    """A number or an array of NumPy as Python's, for JSON. Raises TypeError: it is neither."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r:.60} is {type(value).__name__}")


# Letters stay letters, so that halves of one are found.
_to_json = json.JSONEncoder(default=plain, ensure_ascii=False).encode


def _is_numbers(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "fiub"


def _are(values: object, n: int, kind: Any) -> bool:
    """Whether these are n values of a kind."""
    return isinstance(values, tuple | list) and len(values) == n and all(isinstance(value, kind) for value in values)


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
