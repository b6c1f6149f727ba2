"""Source `labelme`: a folder with the JSON files of LabelMe, one for each image.

    {"version": "5.4.1", "flags": {"outdoors": true}, "imagePath": "a.jpg", "imageData": null,
     "imageHeight": 30, "imageWidth": 40,
     "shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[9, 8], [1, 2]], "group_id": 3,
                 "description": "", "flags": {"occluded": false}},
                {"label": "cat", "points": [[1, 2], [3, 4], [0, 5]]}, …]}

Coordinates are pixels from 0, fractions of them too, of the image with its EXIF orientation applied: LabelMe turns it
when it opens it, and so is the copy in `imageData` (labelme/label_file.py, load_image_file). One file is in memory at
once. Opens no image.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError
from headrace.place import paths
from headrace.record import Mask, Record, Reject, box_faults, name_fault
from headrace.sources import walking
from headrace.sources.formats import FLIP_PAIRS, About, Format
from headrace.sources.info import SourceInfo
from headrace.sources.walking import natural

_HEAD = 1 << 14  # bytes of a file that may be one
_SAMPLES = 20  # files of a folder that are looked at
_MOST_BYTES = 1 << 28  # of a file, with a copy of its image in it
_LARGEST = 1e9  # pixels
_CORNERS = 64  # of the polygon that stands for a circle: off by 0.12 % of its radius

_FLAGS = ("difficult", "truncated", "occluded", "is_crowd")

# What of a shape is no attribute of its object; colours are of files before 2019.
_KNOWN = frozenset(
    (
        *("label", "points", "shape_type", "flags", "group_id", "description", "mask", "attributes"),
        *("line_color", "fill_color"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelmeSource:
    """Iterable of Record | Reject; see `labelme`.

    Its SourceInfo counts in `skipped` images without a JSON, files that are not LabelMe's and shapes that are passed
    over, and in `boxes_dropped` the objects, in `keypoints_dropped` the points that Records come without.
    """

    root: Path
    flip_pairs: tuple[tuple[int, int], ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        reading = _Reading(self.root)
        yield from reading.items()
        return SourceInfo(
            class_names=tuple(sorted(reading.classes, key=natural)) or None,
            box_class_names=tuple(sorted(reading.box_classes, key=natural)),
            keypoint_names=reading.keypoint_names or None,
            flip_pairs=self.flip_pairs,
            boxes_dropped=reading.dropped,
            keypoints_dropped=reading.points_dropped,
            skipped=reading.skipped,
            root=str(self.root),
        )


def labelme(
    root: str | os.PathLike[str], *, flip_pairs: list[tuple[int, int]] | tuple[tuple[int, int], ...] | None = None
) -> LabelmeSource:
    """Images below the folder `root` with the shapes that the JSON files of LabelMe beside them say, in the order of
    these.

    The image is the file that `imagePath` names, from the JSON's folder on, or else the one of that name beside the
    JSON, or else the copy in `imageData`. Ids are paths from `root` on. A JSON without shapes is a negative; an image
    without a JSON was not annotated: it is passed over and counted.

    Boxes [n, 4] in pixels of the upright image, with the names of their labels: a rectangle of two corners in any
    order; a polygon (so is a shape without `shape_type`), a circle and a mask are the box around them and a mask, a
    circle's of 64 corners, a mask's of runs. A point with a `group_id` is a keypoint of the one object of that group,
    its label the keypoint's name; keypoints are in the order of their names, visible or absent. Other points, lines and
    linestrips are passed over and counted. Attributes with a value for each box: `group_id`, `description` and each
    flag of the shape by its name. Shapes of one label and one group, which LabelMe's own exports make one object of,
    stay objects of their own.

    `flags` of the image that are true are its `labels`; () where all are false, None where there are none.

    An image is a Reject when its JSON can't be read or something in it can't be used, when there is no image (none in
    the folder: a path that leads out of it is not followed), and, when packed, if its upright size is another one than
    `imageHeight` and `imageWidth` say. Objects without width or height are dropped and counted.
    Raises NotThereError, StorageError, UsageError (no folder); when iterated also DataError: no file is LabelMe's.
    """
    return LabelmeSource(
        root=walking.check_root(root),
        flip_pairs=None if flip_pairs is None else tuple((i, j) for i, j in flip_pairs),
    )


def recognise(root: Path) -> str | None:
    """What tells that a folder holds JSON of LabelMe, or None when nothing does."""
    for _, path in zip(range(_SAMPLES), _jsons(root, ""), strict=False):
        try:
            with (root / path).open("rb") as file:
                head = file.read(_HEAD)
                file.seek(max(0, os.fstat(file.fileno()).st_size - _HEAD))
                tail = file.read(_HEAD)
        except OSError:
            continue
        if b'"shapes"' in head and b'"imagePath"' in head + tail:  # a copy of the image may stand before it
            return f"{path} has shapes and imagePath"
    return None


FORMAT = Format(
    name="labelme",
    reads="A folder with the JSON files of LabelMe",
    takes="folder",
    make=labelme,
    recognise=recognise,
    options=(FLIP_PAIRS,),
    example=("photos", {}),
    about=About(
        recognised="JSON files with shapes and imagePath.",
        kept=(
            "rectangles (corners in any order), polygons, circles and masks as boxes with masks, points of a "
            "group as keypoints; group_id, description and flags of each; true flags of an image as its "
            "classes. Pixels from 0, fractions too, of the upright image. Where its file is gone the image "
            "is the copy in imageData."
        ),
        refused=(
            "an image whose JSON can't be read or used, or that is nowhere. Lines and single points are "
            "passed over and counted; so is an image without a JSON, which nobody has annotated."
        ),
        sample=(
            '{"imagePath": "a.jpg", "imageHeight": 30, "imageWidth": 40, "flags": {"outdoors": true},\n'
            ' "shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[9, 8], [1, 2]]}]}'
        ),
    ),
)


class _Fault(Exception):
    """Why a file can't be used; `at` says where in it."""

    def __init__(self, reason: str, at: str = "") -> None:
        super().__init__(reason)
        self.at = at


@dataclass(slots=True)
class _Object:
    label: str
    box: tuple[float, float, float, float]
    mask: Mask | None
    group: Any
    extras: dict[str, Any]
    points: dict[str, tuple[float, float]] = field(default_factory=dict)


class _Reading:
    """One reading of a folder, and what it counts."""

    def __init__(self, root: Path) -> None:
        self.root, self.inside = root, os.path.realpath(root)
        self.skipped, self.dropped, self.points_dropped = Counter[str](), Counter[str](), Counter[str]()
        self.classes: set[str] = set()
        self.box_classes: set[str] = set()
        self.keypoint_names = self._keypoint_names()

    def items(self) -> Iterator[Record | Reject]:
        """Raises DataError."""
        found, used = 0, set[str]()
        for path in paths.ahead(self.root, _jsons(self.root, ""), lambda path: (path,)):
            try:
                said = self._read(path)
                if said is None:
                    self.skipped["other .json"] += 1
                    continue
                found += 1
                item: Record | Reject = self._record(path, said)
            except _Fault as fault:
                found += 1
                origin = f"{path}:{fault.at}" if fault.at else path
                item = Reject(id=path, origin=origin, stage="annotation", reason=str(fault))
            used.add(item.id)
            used.add(str(PurePosixPath(path).with_suffix("")))
            yield item
        if not found:
            raise DataError(f"{self.root}: {self._instead()}")
        for image in walking.walk(self.root, Counter()):
            if isinstance(image, str) and image not in used and str(PurePosixPath(image).with_suffix("")) not in used:
                self.skipped["images without a JSON"] += 1

    def _instead(self) -> str:
        for folder, _, names in paths.walk(self.root):
            for name in names:
                if name.lower().endswith(".xml") and b"<polygon>" in _head(paths.path_of(f"{folder}/{name}")):
                    where = paths.path_of(f"{folder}/{name}").relative_to(self.root)
                    return f"holds XML of the old LabelMe on the web, such as {where}; convert it to LabelMe's JSON"
        return "holds no JSON of LabelMe, with shapes and imagePath"

    def _read(self, path: str) -> dict[str, Any] | None:
        """What a JSON file says, None where it is not LabelMe's. Raises _Fault."""
        if (refused := walking.refusal(f"{self.root}/{path}", self.inside)) is not None:
            raise _Fault(refused)
        try:
            with (self.root / path).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise _Fault((error.strerror or str(error)).lower()) from None
        if len(data) > _MOST_BYTES:
            raise _Fault(f"the file is larger than {_MOST_BYTES} bytes")
        try:
            said = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
        except json.JSONDecodeError as error:
            raise _Fault(f"no sound JSON: {error.msg[0].lower()}{error.msg[1:]}", f"{error.lineno}") from None
        except (ValueError, RecursionError) as error:
            raise _Fault(f"no sound JSON: {str(error).lower():.80}") from None
        return said if isinstance(said, dict) and "shapes" in said else None

    # --- one file ----------------------------------------------------------------------------------------------------

    def _record(self, path: str, said: dict[str, Any]) -> Record | Reject:
        """The record of a file, or its Reject. Raises _Fault."""
        size = _size(said)
        objects, points = self._objects(said, size)
        self._join(objects, points)
        labels = self._labels(said)
        id_, encoded, refused = self._image(path, said)
        if refused is not None:
            return Reject(id=id_, origin=path, stage="read", reason=refused)
        boxes = np.array([of.box for of in objects], np.float64).reshape(-1, 4).astype(np.float32)
        faulty = box_faults(boxes).tolist()
        kept = [of for of, fault in zip(objects, faulty, strict=True) if not fault]
        if lost := [of for of, fault in zip(objects, faulty, strict=True) if fault]:
            self.dropped["without width or height"] += len(lost)
            self.points_dropped += +Counter({"of dropped boxes": sum(len(of.points) for of in lost)})
        self.box_classes.update(of.label for of in kept)
        masked = any(of.mask is not None for of in kept)
        return Record(
            id=id_,
            path=None if encoded is not None else f"{self.root}/{id_}",
            encoded=encoded,
            labels=labels,
            boxes=np.array([of.box for of in kept], np.float32).reshape(-1, 4),
            box_labels=tuple(of.label for of in kept),
            masks=tuple(of.mask for of in kept) if masked else None,
            keypoints=self._keypoints(kept) if self.keypoint_names else None,
            size=size,
            upright=True,
            attributes=_attributes(kept),
            origin=path,
        )

    def _image(self, path: str, said: dict[str, Any]) -> tuple[str, bytes | None, str | None]:
        """The id of the image of a file, its bytes where they stand in it, and why there is none."""
        folder = PurePosixPath(path).parent
        name = said.get("imagePath")
        name = name.replace("\\", "/") if isinstance(name, str) else ""
        whole = os.path.normpath(folder / name) if name and "\0" not in name else ""
        own = str(folder / PurePosixPath(name).name) if name else str(PurePosixPath(path).with_suffix(""))
        refusals = []
        for id_ in dict.fromkeys((whole, own)):
            refused = "imagePath names no image" if id_ in ("", ".") else walking.id_of(id_)[1]
            if refused is None:
                refused = walking.refusal(f"{self.root}/{id_}", self.inside)
            if refused is None:
                return id_, None, None
            refusals.append(refused)
        id_ = whole if whole not in ("", ".") and walking.id_of(whole)[1] is None else path
        if not said.get("imageData"):
            return id_, None, refusals[0]
        try:
            return id_, _decoded(said["imageData"]), None
        except ValueError:
            return id_, None, f"{refusals[0]}, and imageData is no base64"

    def _labels(self, said: dict[str, Any]) -> tuple[str, ...] | None:
        flags = said.get("flags")
        if not isinstance(flags, dict) or not flags:
            return None
        for name in flags:
            if fault := name_fault(name):
                raise _Fault(f"flag {fault}", "flags")
        self.classes.update(flags)
        return tuple(name for name, value in flags.items() if value is True)

    def _objects(self, said: dict[str, Any], size: tuple[int, int] | None) -> tuple[list[_Object], list[_Point]]:
        """The objects of a file, and its points. Raises _Fault."""
        shapes = said["shapes"]
        if not isinstance(shapes, list):
            raise _Fault(f"shapes is {shapes!r:.60}, wanted a list", "shapes")
        objects: list[_Object] = []
        points: list[_Point] = []
        for number, shape in enumerate(shapes):
            try:
                if not isinstance(shape, dict):
                    raise _Fault(f"found {shape!r:.60}, wanted a shape with a label and points")
                kind = shape.get("shape_type") or "polygon"
                if not isinstance(kind, str):
                    raise _Fault(f"shape_type is {kind!r:.60}, wanted a text")
                if kind == "point":
                    points.append(_point(shape))
                elif kind in _MAKE:
                    objects.append(_object(shape, kind, size))
                else:
                    self.skipped[f"{kind!s:.40}s"] += 1
            except _Fault as fault:
                raise _Fault(str(fault), f"shapes[{number}]") from None
        return objects, points

    # --- keypoints ---------------------------------------------------------------------------------------------------

    def _keypoint_names(self) -> tuple[str, ...]:
        """The names of all keypoints, of the files that have points: others are not taken apart for it."""
        found: set[str] = set()
        for path in _jsons(self.root, ""):
            try:
                if walking.refusal(f"{self.root}/{path}", self.inside) is not None or not _has_points(self.root / path):
                    continue
                if (said := self._read(path)) is None:
                    continue
                objects, points = self._objects(said, _size(said))
            except (_Fault, OSError):
                continue  # it comes as a Reject
            for of in _joined(objects, points)[0]:
                found.update(of)
        self.skipped.clear()
        return tuple(sorted(found, key=natural))

    def _join(self, objects: list[_Object], points: list[_Point]) -> None:
        """Gives the points to their objects, and counts the others."""
        found, others = _joined(objects, points)
        for of, own in zip(objects, found, strict=True):
            of.points = own
        self.skipped += +Counter({"points of no object": others})

    def _keypoints(self, objects: list[_Object]) -> NDArray[np.float32]:
        made = np.zeros((len(objects), len(self.keypoint_names), 3), np.float32)
        for i, of in enumerate(objects):
            for name, (x, y) in of.points.items():
                made[i, self.keypoint_names.index(name)] = x, y, 2
        return made


@dataclass(slots=True)
class _Point:
    label: str
    at: tuple[float, float]
    group: Any


def _joined(objects: list[_Object], points: list[_Point]) -> tuple[list[dict[str, tuple[float, float]]], int]:
    """The points of each object by their names, and how many are of none: without a group, of a group of no object or
    of several, or with a name that the object has already."""
    of_group: dict[Any, list[int]] = {}
    for i, of in enumerate(objects):
        if of.group is not None:
            of_group.setdefault(of.group, []).append(i)
    found: list[dict[str, tuple[float, float]]] = [{} for _ in objects]
    others = 0
    for point in points:
        of_one = of_group.get(point.group, []) if point.group is not None else []
        if len(of_one) == 1 and point.label not in found[of_one[0]]:
            found[of_one[0]][point.label] = point.at
        else:
            others += 1
    return found, others


# --- one shape -------------------------------------------------------------------------------------------------------


def _object(shape: dict[str, Any], kind: str, size: tuple[int, int] | None) -> _Object:
    """Raises _Fault."""
    points = _places(shape)
    box, mask = _MAKE[kind](points, shape, size)
    return _Object(_label(shape), box, mask, _group(shape), _extras(shape))


def _point(shape: dict[str, Any]) -> _Point:
    """Raises _Fault."""
    points = _places(shape)
    if len(points) != 1:
        raise _Fault(f"a point of {len(points)} places, wanted one")
    return _Point(_label(shape), (float(points[0, 0]), float(points[0, 1])), _group(shape))


_Made = tuple[tuple[float, float, float, float], Mask | None]


def _rectangle(points: NDArray[np.float64], shape: dict[str, Any], size: tuple[int, int] | None) -> _Made:
    if len(points) not in (2, 4):  # four where another tool wrote it (X-AnyLabeling)
        raise _Fault(f"a rectangle of {len(points)} corners, wanted two")
    return _around(points), None


def _polygon(points: NDArray[np.float64], shape: dict[str, Any], size: tuple[int, int] | None) -> _Made:
    if len(points) < 3:
        raise _Fault(f"a polygon of {len(points)} corners, wanted three and more")
    return _around(points), Mask(polygons=(points.astype(np.float32),))


def _circle(points: NDArray[np.float64], shape: dict[str, Any], size: tuple[int, int] | None) -> _Made:
    """Its middle, and a point on it."""
    if len(points) != 2:
        raise _Fault(f"a circle of {len(points)} points, wanted its middle and one on it")
    radius = math.dist(points[0], points[1])
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    return _polygon(points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1), shape, size)


def _mask(points: NDArray[np.float64], shape: dict[str, Any], size: tuple[int, int] | None) -> _Made:
    """Its first and its last pixel, and an image of what lies between (labelme/utils/shape.py, shapes_to_label)."""
    from headrace.imaging import codec  # here, as OpenCV takes longer to import than all sources
    from headrace.imaging.masks import encode_runs

    if len(points) != 2:
        raise _Fault(f"a mask of {len(points)} corners, wanted two")
    if size is None:
        raise _Fault("a mask in an image without imageHeight and imageWidth")
    if size[0] * size[1] > codec.MAX_PIXELS:
        raise _Fault(f"a mask in an image of {size[1]} x {size[0]} pixels, wanted at most {codec.MAX_PIXELS}")
    (x0, y0), (x1, y1) = points.astype(np.int64).tolist()
    x1, y1 = x1 + 1, y1 + 1
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise _Fault(f"a mask from {x0}, {y0} to {x1}, {y1} of {size[1]} x {size[0]} pixels")
    try:
        data = _decoded(shape.get("mask"))
        header = codec.read_header(data, max_pixels=size[0] * size[1])
        part = codec.decode(data, header=header, channels=1)[..., 0] > 0
    except ValueError as error:  # codec.BadImage is one
        raise _Fault(f"its mask is no image: {error}") from None
    if part.shape != (y1 - y0, x1 - x0):
        raise _Fault(f"its mask has {part.shape[1]} x {part.shape[0]} pixels, wanted {x1 - x0} x {y1 - y0}")
    covered = np.zeros(size, np.bool_)
    covered[y0:y1, x0:x1] = part
    return (float(x0), float(y0), float(x1), float(y1)), Mask(runs=encode_runs(covered), size=size)


_MAKE = {"rectangle": _rectangle, "polygon": _polygon, "circle": _circle, "mask": _mask}


def _places(shape: dict[str, Any]) -> NDArray[np.float64]:
    """float64 [m, 2] of x, y. Raises _Fault."""
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise _Fault(f"points is {points!r:.60}, wanted a list of x, y")
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
            raise _Fault(f"a point is {point!r:.60}, wanted x, y")
    return np.array(points, np.float64)


def _is_number(value: Any) -> bool:
    # A whole number may be beyond all floats, NaN compares with nothing.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _around(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def _label(shape: dict[str, Any]) -> str:
    label = shape.get("label")
    if fault := name_fault(label):
        raise _Fault(f"the label {fault}")
    assert isinstance(label, str)
    return label


def _group(shape: dict[str, Any]) -> int | str | None:
    group = shape.get("group_id")
    if group is not None and (not isinstance(group, int | str) or isinstance(group, bool)):
        raise _Fault(f"group_id is {group!r:.60}, wanted a number or null")
    return group


def _extras(shape: dict[str, Any]) -> dict[str, Any]:
    """What a shape says beside its place."""
    inner = [shape[name] for name in ("flags", "attributes") if isinstance(shape.get(name), dict)]
    own = {name: value for name, value in shape.items() if name not in _KNOWN and value is not None}
    found: dict[str, Any] = {}
    for name, value in ((name, value) for of in (*inner, own) for name, value in of.items()):
        name = re.sub(r"\W+", "_", name.strip().lower())
        if name in _FLAGS:
            value = int(value) if value in (0, 1) else -1
        found[name] = value
    if (group := shape.get("group_id")) is not None:
        found["group_id"] = group
    if description := shape.get("description"):
        found["description"] = description
    return found


def _attributes(objects: list[_Object]) -> dict[str, list[Any]]:
    """Lists with a value for each object, None, or -1 for a flag, where it says nothing."""
    names = dict.fromkeys(name for of in objects for name in of.extras)
    return {name: [of.extras.get(name, -1 if name in _FLAGS else None) for of in objects] for name in names}


# --- files -----------------------------------------------------------------------------------------------------------


def _jsons(root: Path, prefix: str) -> Iterator[str]:
    """Paths of .json files from `root` on, in natural order, depth first, without hidden ones and links to folders."""
    try:
        with paths.scandir(root / prefix) as found:
            entries = sorted(found, key=lambda entry: natural(entry.name))
    except OSError:
        return
    for entry in entries:
        if walking.is_junk(entry.name) or not _is_utf8(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _jsons(root, f"{prefix}{entry.name}/")
        elif entry.name.lower().endswith(".json"):
            yield prefix + entry.name


def _is_utf8(name: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", name)


def _has_points(path: Path) -> bool:
    """Whether the word "point" stands anywhere in a file, read piece by piece."""
    word, rest = b'"point"', b""
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            if word in rest + data:
                return True
            rest = data[-len(word) :]
    return False


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _decoded(text: Any) -> bytes:
    """The bytes of a base64 text, also of a data URL. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("no base64")
    try:
        return base64.b64decode(re.sub(r"^data:[^,]{0,80},|\s+", "", text), validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("no base64") from error


def _size(said: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the image; None where the file doesn't say both. Raises _Fault."""
    sides = said.get("imageHeight"), said.get("imageWidth")
    if sides == (None, None):
        return None
    for side in sides:
        if not isinstance(side, int) or isinstance(side, bool) or not 0 < side <= _LARGEST:
            raise _Fault(f"imageHeight and imageWidth are {sides!r:.60}, wanted pixels")
    return sides  # type: ignore[return-value]
