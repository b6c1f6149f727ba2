"""Source `coco`: COCO's JSON, for detection, keypoints, masks and captions: lists of images, categories, annotations.

    {"images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}, …],
     "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", …]}, …],
     "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [x, y, w, h], "keypoints": [x, y, v, …],
                      "segmentation": [[x, y, x, y, …]]}, {"id": 2, "image_id": 7, "caption": "Two people"}, …]}

Annotations come in any order, so the file is read to its end before the first image comes. Reads it element by element
and keeps numbers in flat arrays, and of texts and segmentations the place in the file, to read them again when their
image comes: 87 bytes per annotation, 4 more for each number of its keypoints, and 200 per image. Never opens an image.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.record import Mask, Record, Reject, box_faults
from headrace.sources import jsons, segmentations, walking
from headrace.sources.formats import FLIP_PAIRS, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.walking import natural

Segmentation = Literal["drop", "keep"]

_HEAD = 1 << 20  # of a file that may be one, this much is looked at
_KEYS = ("images", "annotations", "categories")

# What annotations without a bbox and keypoints are, by a key that they have.
_KINDS = {"segments_info": "panoptic segments"}
_LABELS = "labels of whole images"

# What an annotation says that is taken as it is read. All else is an attribute of its object.
_KNOWN = frozenset(
    ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "keypoints", "num_keypoints", "segmentation")
)
_FLAGS = ("difficult", "truncated", "occluded")
_PLAIN = frozenset((int, float))
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_HALVES = re.compile(r"[\ud800-\udfff]")
_NO_ID, _ODD_ID = -(1 << 63), -(1 << 63) + 1  # instead of an id that is none, or no int64


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoSource:
    """Iterable of Record | Reject; see `coco`. `root` is the JSON file.

    Its SourceInfo counts in `boxes_dropped` the objects, in `keypoints_dropped` the labelled keypoints that Records
    come without, by reason, and in `skipped` what was passed over; its names are those of the file.
    """

    root: Path
    images: Path
    category: tuple[str, ...] | None
    skip_crowd: bool
    segmentation: Segmentation
    per_object: bool
    margin: float
    flip_pairs: tuple[tuple[int, int], ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        with _Elements(self.root) as elements:
            read = _read(elements)
            kinds, left_out = self._kinds(read), _LeftOut()
            if read.segmentations and self.segmentation == "drop":
                left_out.skipped["segmentations"] = read.segmentations
            yield from self._records(read, kinds, left_out)
            elements.check()
        for number, reason in read.orphans:
            origin = self._origin("annotations", number)
            yield Reject(id=f"annotation {number}", origin=origin, stage="annotation", reason=reason)
        return SourceInfo(
            box_class_names=kinds.names,
            keypoint_names=kinds.keypoint_names,
            flip_pairs=self.flip_pairs,
            boxes_dropped=left_out.boxes,
            keypoints_dropped=left_out.keypoints,
            skipped=left_out.skipped,
            root=str(self.root),
            notes=tuple(self._notes(read, left_out)),
        )

    def _notes(self, read: _Read, left_out: _LeftOut) -> Iterator[str]:
        if read.unboxed:
            yield f"{read.unboxed} objects have no bbox: their box is the extent of their keypoints"
        if left_out.unmasked is not None:
            number, reason = left_out.unmasked
            yield f"objects come without a mask, the first is {self._origin('annotations', number)}: {reason}"

    def _kinds(self, read: _Read) -> _Kinds:
        """What is to be made of the categories. Raises UsageError."""
        named: dict[str, list[_Category]] = {}
        for category in sorted(read.categories.values(), key=lambda category: category.order):
            named.setdefault(category.name, []).append(category)
        for name in self.category or ():
            if name not in named:
                raise UsageError(f"category {name!r}: {self.root} has {', '.join(named) or 'none'}")
        if not read.boxed:
            named = {}
        names = tuple(name for name in named if self.category is None or name in self.category)
        chosen = [category for name in names for category in named[name]]
        skeletons = {category.keypoints: category.name for category in chosen if category.keypoints}
        if len(skeletons) > 1:
            which = "; ".join(f"{name}: {', '.join(points)}" for points, name in skeletons.items())
            raise UsageError(f"{self.root}: categories with different keypoints ({which}); take one by category=NAME")
        keypoint_names = next(iter(skeletons), None)
        is_known, is_chosen = np.zeros((2, read.codes), np.bool_)
        is_known[list(read.categories)] = True
        is_chosen[[category.code for category in chosen]] = True
        if keypoint_names is not None:
            points = len(keypoint_names)
        else:
            lengths = np.diff(read.begin)[is_chosen[read.category]]
            lengths = lengths[lengths > 0]
            points = int(np.bincount(lengths).argmax()) // 3 if len(lengths) else 0
        by_code = {category.code: category for category in chosen}
        return _Kinds(names, by_code, points, keypoint_names, is_known, is_chosen)

    def _records(self, read: _Read, kinds: _Kinds, left_out: _LeftOut) -> Iterator[Record | Reject]:
        folder = walking.Folder(self.images)
        odd, good = self._judged(read, kinds)
        order = np.argsort(read.image, kind="stable")
        first = np.searchsorted(read.image, np.arange(read.codes + 1), sorter=order)
        for number in range(len(read.images)):
            image = read.image_at(number)
            origin = self._origin("images", number)
            id_, unusable = walking.id_of(image.name)
            if image.fault or unusable:
                yield Reject(id=id_, origin=origin, stage="annotation", reason=image.fault or unusable or "")
                continue
            if fault := read.faults.get(image.code):
                at = self._origin("annotations", fault[0])
                yield Reject(id=id_, origin=at, stage="annotation", reason=f"{fault[1]} (image {image.id!r})")
                continue
            path = f"{self.images}/{id_}"
            refused = folder.refusal(path)
            if refused is not None:
                yield Reject(id=id_, origin=origin, stage="read", reason=f"{refused} (image {image.id!r})")
                continue
            rows = order[first[image.code] : first[image.code + 1]]
            if read.boxed and odd[rows].any():
                at, reason = self._contradiction(read, kinds, int(rows[odd[rows]][0]))
                yield Reject(id=id_, origin=at, stage="annotation", reason=f"{reason} (image {image.id!r})")
                continue
            if not good[rows].all():
                rows = self._kept(read, kinds, left_out, rows)
            record = self._record(read, kinds, left_out, rows, id_, path, image, origin)
            if not self.per_object:
                yield record
            elif record.boxes is None or not len(record.boxes):
                left_out.skipped["images without objects"] += 1
            else:
                yield from (self._object(record, i) for i in range(len(record.boxes)))

    def _record(
        self,
        read: _Read,
        kinds: _Kinds,
        left_out: _LeftOut,
        rows: _Rows,
        id_: str,
        path: str,
        image: _Image,
        origin: str,
    ) -> Record:
        """The record of an image with annotations `rows`."""
        captions = None
        if read.captioned:
            captions = tuple(read.elements.at(*place)["caption"] for place in read.captions_of(image.code))
        if not read.boxed:
            return Record(
                id=id_,
                path=path,
                captions=captions,
                size=image.size,
                attributes=image.said() | {"image_id": image.id},
                origin=origin,
            )
        boxes = read.boxes[rows]
        points, given = read.points(rows, kinds.points) if kinds.points else _NO_POINTS
        entries = [read.entry(row) for row in rows.tolist()]
        attributes: dict[str, Any] = (
            image.said(len(rows))
            | _extras(entries)
            | {
                "image_id": image.id,
                "annotation_id": [
                    _id(entry.get("id")) if entry else read.id(row)
                    for entry, row in zip(entries, rows.tolist(), strict=True)
                ],
                "area": [None if math.isnan(area) else area for area in read.area[rows].tolist()],
                "is_crowd": read.crowd[rows].tolist(),
            }
        )
        if (given != points[..., 2]).any():
            attributes["visibility"] = [[round(v, 6) for v in of] for of in given.tolist()]
        masks = None
        if self.segmentation == "keep" and read.segmentations:
            numbers = read.number[rows].tolist()
            masks = tuple(map(_mask, entries, numbers, itertools.repeat(image.size), itertools.repeat(left_out)))
        return Record(
            id=id_,
            path=path,
            captions=captions,
            masks=masks,
            boxes=_corners(boxes),
            box_labels=tuple(kinds.chosen[code].name for code in read.category[rows].tolist()),
            keypoints=points if kinds.points else None,
            size=image.size,
            attributes=attributes,
            origin=origin,
        )

    def _object(self, record: Record, i: int) -> Record:
        """Object `i` of an image's record, cut out."""
        assert record.boxes is not None and record.box_labels is not None
        box = record.boxes[i : i + 1]
        around = np.tile((box[:, 2:] - box[:, :2]) * self.margin, 2) * [-1, -1, 1, 1]
        n, attributes = len(record.boxes), dict(record.attributes)
        for name in attributes:
            if isinstance(attributes[name], list) and len(attributes[name]) == n:
                attributes[name] = attributes[name][i : i + 1]
        x0, y0, x1, y1 = (box + around)[0].tolist()
        return replace(
            record,
            id=f"{record.id}#{attributes['annotation_id'][0]}",
            boxes=box,
            box_labels=record.box_labels[i : i + 1],
            masks=None if record.masks is None else record.masks[i : i + 1],
            keypoints=None if record.keypoints is None else record.keypoints[i : i + 1],
            attributes=attributes,
            window=(x0, y0, x1, y1),
        )

    def _judged(self, read: _Read, kinds: _Kinds) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which annotations can't be believed, sound in themselves as they are, and which are kept: bool [n] each."""
        n = len(read.image)
        odd, good = np.zeros(n, np.bool_), np.ones(n, np.bool_)
        for start in range(0, n, _BLOCK):  # a part at a time: what is computed on the way is larger than the answer
            rows = np.arange(start, min(n, start + _BLOCK))
            codes, numbers = read.category[rows], read.begin[rows + 1] - read.begin[rows]
            odd[rows] = ~kinds.is_known[codes]
            odd[rows] |= kinds.is_chosen[codes] & (numbers != 0) & (numbers != 3 * kinds.points)
            for passed in self._tests(read, kinds, rows).values():
                good[rows] &= passed
        return odd, good

    def _tests(self, read: _Read, kinds: _Kinds, rows: _Rows) -> dict[str, NDArray[np.bool_]]:
        """Why annotations are left out -> which of `rows` are not left out for it."""
        tests = {
            "of other categories": kinds.is_chosen[read.category[rows]],
            "said twice": ~read.repeated[rows],
            "without width or height": box_faults(_corners(read.boxes[rows])) == 0,
        }
        if self.skip_crowd:
            tests["crowd"] = read.crowd[rows] == 0
        return tests

    def _contradiction(self, read: _Read, kinds: _Kinds, row: int) -> tuple[str, str]:
        """Where an annotation stands that can't be believed, and why."""
        code, at = int(read.category[row]), self._origin("annotations", read.number[row])
        if code not in read.categories:
            return at, f"category {read.id_of[code]!r} is not among the categories"
        numbers = read.begin[row + 1] - read.begin[row]
        return at, f"keypoints holds {numbers} numbers, wanted 3 for each of {kinds.points} points"

    def _kept(self, read: _Read, kinds: _Kinds, left_out: _LeftOut, rows: _Rows) -> _Rows:
        """The annotations that the Record comes with; the others are counted in `left_out`."""
        kept = np.ones(len(rows), np.bool_)
        for reason, passed in self._tests(read, kinds, rows).items():
            lost = rows[kept & ~passed]
            kept &= passed
            if len(lost):
                left_out.boxes[reason] += len(lost)
                if kinds.points and reason != "of other categories":
                    labelled = int((read.points(lost, kinds.points)[0][..., 2] > 0).sum())
                    left_out.keypoints += Counter({"of dropped boxes": labelled})
        return rows[kept]

    def _origin(self, key: str, number: int) -> str:
        return (
            f"{self.root.name}:{key}[{number}]"  # without its folder: a catalog doesn't depend on where its source lay
        )


def coco(
    json: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    category: str | Sequence[str] | None = None,
    skip_crowd: bool = False,
    segmentation: Segmentation = "keep",
    per_object: bool = False,
    margin: float = 0.125,
    flip_pairs: Sequence[tuple[int, int]] | None = None,
) -> CocoSource:
    """Images below the folder `images` (by default that of the file) with the objects of the COCO file `json`.

    Records come in the order of its images, ids are their `file_name`, or the last part of their `coco_url`. Boxes
    [n, 4] in pixels, with the names of their categories; classes are in the order of category ids, and categories of
    one name are one class. Attributes hold `image_id`, and a value for each box in `annotation_id`, `area`, `is_crowd`.
    An image without annotations is a negative; in a file without any `annotations` nothing is said of boxes.

    Keypoints [n, k, 3] where a category names some or an annotation has some; all absent for an object without. Their
    places are taken as they are, COCO's whole numbers too, though these mean the middle of a pixel. v 0 is absent;
    0 < v <= 1 is hidden (1), 1 < v <= 2 visible (2): where v is a fraction, `visibility` holds the numbers as given.

    Masks of a `segmentation`: polygons, or runs, also of a compressed text. A segmentation that is none, or whose size
    is not the image's, is no mask (None): counted in `skipped`, and the first of them named in `notes`. Captions are
    the `caption` of annotations that have one and no box, in the order of the file. What else an object says is an
    attribute of its own name, those in its `attributes` too (CVAT, datumaro): `difficult`, `truncated` and `occluded` 0
    or 1, `track_id` as `track`. `attributes` of an image are so, too.

    An object with keypoints and without a bbox gets the extent of its labelled points as its box, and `notes` say so.
    A file whose annotations are labels of whole images or panoptic segments has no boxes, and is refused; one of
    captions alone says nothing of boxes.

    An image is a Reject when one of its annotations can't be used (its category is unknown; a number is missing, no
    number, or not finite; there are too few or too many), when its id belongs to another file name too, when its
    file is missing or lies outside of `images`, and, when packed, if it has another size than `width` and `height` say,
    stored or upright. An annotation of no known image is one itself. Objects without width or height, and those said
    twice (the same id, image, category and box) are dropped and counted.

    category: a name or several; objects of others are dropped. skip_crowd: so are those with `iscrowd`.
    segmentation: "drop" leaves masks out. per_object: each object is a record of its own, cut out of its image with
    `margin` of its width and height added on either side, and its id is `file_name#annotation id`; images without
    objects are passed over. flip_pairs: numbers of keypoints that change places in a mirror; by default taken from
    their names.

    Raises NotThereError, StorageError, UsageError (no file or folder; an option); when iterated also DataError naming
    line and column (no JSON, cut short, not COCO's, changed meanwhile), UsageError (no such category; categories of
    different keypoints).
    """
    path = paths.path_of(json)
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file, wanted a COCO JSON file")
    if segmentation not in get_args(Segmentation):
        raise UsageError(f"segmentation is {segmentation!r}, wanted one of {', '.join(get_args(Segmentation))}")
    if not margin >= 0:
        raise UsageError(f"margin is {margin}, wanted at least 0")
    return CocoSource(
        root=path,
        images=walking.check_root(path.parent if images is None else images),
        category=(category,) if isinstance(category, str) else None if category is None else tuple(category),
        skip_crowd=skip_crowd,
        segmentation=segmentation,
        per_object=per_object,
        margin=margin,
        flip_pairs=None if flip_pairs is None else tuple((i, j) for i, j in flip_pairs),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is a COCO file, or None when nothing does. Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    if not head.startswith(b"{"):
        return None
    found = [key for key in _KEYS if re.search(rb'"%s"\s*:\s*\[' % key.encode(), head)]
    return f"it is JSON with a list of {' and of '.join(found)}" if found else None


FORMAT = Format(
    name="coco",
    reads="A JSON file of COCO, with boxes, keypoints, masks and captions",
    takes="file",
    make=coco,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that the names in the file start from; its own by default.",
            per_split=True,
        ),
        Option(name="category", type=list[str], help="Keep the objects of this category only."),
        FLIP_PAIRS,
        Option(name="skip_crowd", type=bool, help="Drop objects with iscrowd.", default=False),
        Option(
            name="segmentation",
            type=Segmentation,
            help="What becomes of masks: kept, or dropped.",
            default="keep",
        ),
        Option(
            name="per_object",
            type=bool,
            help="Store each object as a record of its own, cropped from its image.",
            default=False,
        ),
        Option(
            name="margin",
            type=float,
            help="Margin around a cropped object, as a share of its width and height.",
            default=0.125,
        ),
    ),
    example=("person_keypoints_val2017.json", {"images": "val2017"}),
    about=About(
        recognised=(
            "JSON with lists of images, annotations or categories. A folder of such files is told with the "
            "command to type."
        ),
        kept=(
            "boxes (x, y, width, height in pixels from 0), keypoints with their names, polygons and run "
            "lengths (compressed, too), captions, and what else annotations say: is_crowd, area, ids, "
            "attributes. Classes are in the order of category ids. An object without a bbox gets the extent "
            "of its points."
        ),
        refused=(
            "an image with an annotation of an unknown category or with too few or too many numbers; one of "
            "another size than the file says; an annotation of no known image."
        ),
        sample=(
            '{"images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}],\n'
            ' "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye"]}],\n'
            ' "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 3, 10, 8], "iscrowd": 0,\n'
            '                  "segmentation": [[2, 3, 12, 3, 12, 11]], "keypoints": [5, 6, 2, 0, 0, 0]}]}'
        ),
    ),
)


_Rows: TypeAlias = NDArray[np.int64]

_BLOCK = 1 << 18  # annotations
_NO_POINTS = np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32)


@dataclass(slots=True)
class _Image:
    """`fault`: why it can't be used; it has no code then, or one that another image has too. `attributes`: its own."""

    code: int
    id: Any
    name: str
    size: tuple[int, int] | None
    fault: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def said(self, n: int | None = None) -> dict[str, Any]:
        """Its attributes, but for lists that would be taken for those of `n` objects."""
        return {name: of for name, of in self.attributes.items() if not (isinstance(of, list) and len(of) == n)}


@dataclass(slots=True)
class _Category:
    code: int
    order: Any
    name: str
    keypoints: tuple[str, ...]


@dataclass(slots=True)
class _Kinds:
    """The categories that are wanted, their names and themselves by code, and the keypoints that their objects have."""

    names: tuple[str, ...]
    chosen: dict[int, _Category]
    points: int
    keypoint_names: tuple[str, ...] | None
    is_known: NDArray[np.bool_]  # [codes]
    is_chosen: NDArray[np.bool_]


@dataclass(slots=True)
class _LeftOut:
    """What one reading leaves out, by reason."""

    skipped: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    keypoints: Counter[str] = field(default_factory=Counter)
    unmasked: tuple[int, str] | None = None  # the first annotation whose segmentation is none, and why


class _Elements:
    """The elements of a file, once from the first to the last, and then any of them again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Elements:
        try:
            self._file = paths.held(self.path)
        except OSError as error:
            raise StorageError(f"{self.path}: can't be read: {(error.strerror or str(error)).lower()}") from error
        now = self.path.stat()
        self._stamp = now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def walk(self) -> Iterator[tuple[str | None, int | None, Any, tuple[int, int]]]:
        """As jsons.places. Raises StorageError, DataError."""
        yield from jsons.places(self.path, self._file)
        self.check()

    def at(self, offset: int, length: int) -> Any:
        """The element there. Raises StorageError, DataError: the file is another one by now."""
        try:
            data = os.pread(self._file.fileno(), length, offset)
            return json.loads(data.decode())
        except OSError as error:
            raise StorageError(f"{self.path}: can't be read: {(error.strerror or str(error)).lower()}") from error
        except ValueError:  # no JSON there: it was, when it was read for the first time
            self.check()
            raise

    def check(self) -> None:
        """Raises StorageError, DataError: it is another file by now."""
        try:
            now = self.path.stat()
        except OSError as error:
            raise StorageError(f"{self.path}: can't be read: {(error.strerror or str(error)).lower()}") from error
        if self._stamp != (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns):
            raise DataError(f"{self.path}: was changed while it was read; read it again")


class _Read:
    """A whole file. Arrays have an entry per sound annotation. Ids of images and categories may be anything and stand
    in any order, so they are numbered as they come: `code` gives the number of an id, `id_of` the id of a number."""

    def __init__(self, elements: _Elements) -> None:
        self.elements = elements
        self.images = _Places()  # the code of each, -1 for one without an id
        self.image_faults: dict[int, str] = {}  # number -> why an image can't be used
        self.captions = _Places()  # the code of the image of each
        self.categories: dict[int, _Category] = {}
        # image -> the first of its annotations that can't be used, and why
        self.faults: dict[int, tuple[int, str]] = {}
        self.orphans: list[tuple[int, str]] = []  # annotations of no image, and why
        self.boxed = False  # whether anything is said of boxes
        self.segmentations = 0
        self.unboxed = 0  # objects whose box is made of their points
        self.annotations = 0
        self.others = Counter[str]()  # annotations of another kind than objects
        self.id_of: list[Any] = []
        self._codes: dict[str, dict[int | str, int]] = {"image": {}, "category": {}}
        self._number, self._id = array("q"), array("q")
        self._image, self._category = array("i"), array("i")
        self._boxes, self._area, self._crowd = array("d"), array("d"), array("b")
        self._points, self._begin = array("f"), array("q", [0])
        self._offset, self._length = array("q"), array("i")  # of those that say more; length 0 for the others

    @property
    def captioned(self) -> bool:
        """Whether the file has captions."""
        return len(self.captions) > 0

    def code(self, kind: str, id_: int | str) -> int:
        """The number that stands for an id; 7 and "7" are the same."""
        if isinstance(id_, str) and _WHOLE.fullmatch(id_):
            id_ = int(id_)
        code = self._codes[kind].setdefault(id_, len(self.id_of))
        if code == len(self.id_of):
            self.id_of.append(id_)
        return code

    def id(self, row: int) -> Any:
        """The id of an annotation of which nothing more is to be read, None when it has none."""
        return None if self._id[row] == _NO_ID else self._id[row]

    def entry(self, row: int) -> dict[str, Any]:
        """An annotation again, as the file has it; {} where that says no more than the arrays do."""
        length = self._length[row]
        return self.elements.at(self._offset[row], length) if length else {}

    def image_at(self, number: int) -> _Image:
        """An image again."""
        code = self.images.codes[number]
        fault = self.image_faults.get(number)
        if code < 0:
            return _Image(code, None, f"image {number}", None, fault)
        entry = self.elements.at(*self.images.place(number))
        height, width = _side(entry.get("height")), _side(entry.get("width"))
        size = (height, width) if height and width else None
        said = entry.get("attributes")
        attributes = {_key(name): of for name, of in said.items() if of is not None} if isinstance(said, dict) else {}
        return _Image(code, _id(entry["id"]), _name(entry) or f"image {number}", size, fault, attributes)

    def captions_of(self, code: int) -> Iterator[tuple[int, int]]:
        """Where the captions of an image stand, in their order."""
        low, high = np.searchsorted(self._caption_codes, [code, code + 1])
        return map(self.captions.place, self._caption_order[low:high].tolist())

    def close(self) -> None:
        """All is read: what can only be told now. Raises StorageError, DataError."""
        self.codes = len(self.id_of)
        self.number = np.asarray(self._number)  # the same memory
        self.image, self.category = np.asarray(self._image), np.asarray(self._category)
        self.boxes = np.asarray(self._boxes).reshape(-1, 4)
        self.area, self.crowd = np.asarray(self._area), np.asarray(self._crowd)
        self.begin, self.numbers = np.asarray(self._begin), np.asarray(self._points)
        self.repeated = self._repeated()
        captions = np.asarray(self.captions.codes)
        self._caption_order = np.argsort(captions, kind="stable")
        self._caption_codes = captions[self._caption_order]
        known = self._images_known()
        lost = {int(self.number[row]): self.image[row] for row in np.flatnonzero(~known[self.image])}
        lost |= {self.captions.numbers[i]: captions[i] for i in np.flatnonzero(~known[captions]).tolist()}
        lost |= {number: code for code, (number, _) in self.faults.items() if not known[code]}
        self.orphans += [
            (number, f"image {self.id_of[code]!r} is not among the images") for number, code in lost.items()
        ]
        self.orphans.sort()

    def _images_known(self) -> NDArray[np.bool_]:
        """Which codes an image has, bool [codes]. Ids that are no image's own are faults of theirs."""
        codes = np.asarray(self.images.codes)
        usable = codes >= 0
        usable[list(self.image_faults)] = False
        known = np.zeros(self.codes, np.bool_)
        known[codes[usable]] = True
        numbers = np.flatnonzero(usable)
        order = numbers[np.argsort(codes[numbers], kind="stable")]
        again = np.flatnonzero(np.diff(codes[order]) == 0) + 1
        for number in order[again].tolist():
            at = int(order[np.searchsorted(codes[order], codes[number])])
            image, other = self.image_at(number), self.image_at(at)
            self.image_faults[number] = f"image id {image.id!r} occurs twice, first at images[{at}]"
            if other.name != image.name:
                both = f"image id {image.id!r} is of {other.name!r} and of {image.name!r} too"
                self.image_faults[number] = self.image_faults[at] = both
        return known

    def _repeated(self) -> NDArray[np.bool_]:
        """Which annotations are said a second time: the same id, image, category and box."""
        ids = np.asarray(self._id)
        order = np.argsort(ids, kind="stable")
        same = np.diff(ids[order]) == 0
        some = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if len(ids) else order
        some = some[~np.isin(ids[some], (_NO_ID, _ODD_ID))]
        columns = (ids, self.image, self.category, *self.boxes.T)
        table = np.stack([column[some].astype(np.float64) for column in columns], axis=1)
        first = np.unique(table, axis=0, return_index=True)[1]  # of the equal ones the first
        repeated = np.zeros(len(ids), np.bool_)
        repeated[np.delete(some, first)] = True
        return repeated

    def points(self, rows: _Rows, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keypoints float32 [n, k, 3] of annotations, and v as it was given, [n, k]; zeros where there are none."""
        out = np.zeros((len(rows), k, 3), np.float32)
        for i, row in enumerate(rows.tolist()):
            found = self.numbers[self.begin[row] : self.begin[row + 1]]
            if len(found) == 3 * k:
                out[i] = found.reshape(k, 3)
        given = out[..., 2].copy()
        out[..., 2] = np.maximum(np.ceil(given - 1e-4), given > 0)  # what is labelled at all stays labelled
        return out, given

    # --- what one element says ---------------------------------------------------------------------------------------

    def take_image(self, number: int, entry: Any, place: tuple[int, int]) -> None:
        if not isinstance(entry, dict) or (id_ := _id(entry.get("id"))) is None:
            self.image_faults[number] = f"found {_shown(entry)}, wanted an image with an id"
            self.images.append(-1, number, place)
            return
        if _name(entry) is None:
            self.image_faults[number] = f"image {id_!r} has no file_name, nor a coco_url with one"
        self.images.append(self.code("image", id_), number, place)

    def take_category(self, entry: Any) -> None:
        """Raises ValueError: no sound category."""
        if not isinstance(entry, dict) or (id_ := _id(entry.get("id"))) is None or not _is_name(entry.get("name")):
            raise ValueError(f"found {_shown(entry)}, wanted a category with an id and a name")
        points = entry.get("keypoints") or ()
        if not isinstance(points, list | tuple) or not all(map(_is_name, points)):
            raise ValueError(f"keypoints of category {entry['name']!r} are {_shown(points)}, wanted a list of names")
        code = self.code("category", id_)
        made = _Category(code, natural(str(id_)), entry["name"], tuple(points))
        if self.categories.setdefault(code, made) != made:
            raise ValueError(f"category id {id_!r} occurs twice, for {self.categories[code].name!r} and {made.name!r}")

    def take_annotation(self, number: int, entry: Any, place: tuple[int, int]) -> None:
        self.annotations += 1
        if not isinstance(entry, dict) or (of := _id(entry.get("image_id"))) is None:
            self.orphans.append((number, f"found {_shown(entry)}, wanted an annotation with an image_id"))
            return
        image = self.code("image", of)
        bare = entry.get("bbox") is None
        if bare and "caption" in entry and "category_id" not in entry:
            if isinstance(entry["caption"], str) and not _HALVES.search(entry["caption"]):
                self.captions.append(image, number, place)
            else:
                self.faults.setdefault(image, (number, f"caption is {_shown(entry['caption'])}, wanted a text"))
            return
        self.boxed = True
        if bare and not entry.get("keypoints"):
            self.others[next((kind for key, kind in _KINDS.items() if key in entry), _LABELS)] += 1
        try:
            if (category := _id(entry.get("category_id"))) is None:
                raise ValueError(f"category_id is {_shown(entry.get('category_id'))}, wanted a number")
            points = _numbers("keypoints", entry.get("keypoints") or [], "x, y and v of each point")
            if len(points) % 3 or not all(0 <= v <= 2 for v in points[2::3]):
                raise ValueError(
                    f"keypoints are {_shown(entry['keypoints'])}, wanted x, y and v (0 to 2) of each point"
                )
            if bare and points:
                box = _extent(points)
            else:
                box = _numbers("bbox", entry.get("bbox"), "x, y, width and height", 4)
            crowd = entry.get("iscrowd") or 0
            if crowd not in (0, 1):
                raise ValueError(f"iscrowd is {_shown(crowd)}, wanted 0 or 1")
        except ValueError as error:
            self.faults.setdefault(image, (number, str(error)))
            return
        self.unboxed += bare
        id_, area = _id(entry.get("id")), _finite(entry.get("area"))
        masked = bool(entry.get("segmentation"))
        self.segmentations += masked
        odd = id_ is not None and not (isinstance(id_, int) and _ODD_ID < id_ < 1 << 63)
        self._id.append(_NO_ID if id_ is None else _ODD_ID if odd else id_)  # type: ignore[arg-type]
        self._number.append(number)
        self._image.append(image)
        self._category.append(self.code("category", category))
        self._boxes.extend(box)
        self._area.append(math.nan if area is None else area)
        self._crowd.append(int(crowd))
        self._points.extend(points)
        self._begin.append(len(self._points))
        more = masked or odd or not _KNOWN.issuperset(entry)
        self._offset.append(place[0])
        self._length.append(place[1] if more else 0)


class _Places:
    """Elements of one kind: whose each is (`codes`), its number in the file's list (`numbers`), and where it stands."""

    def __init__(self) -> None:
        self.codes, self.numbers = array("i"), array("q")
        self._offset, self._length = array("q"), array("i")

    def __len__(self) -> int:
        return len(self.codes)

    def append(self, code: int, number: int, place: tuple[int, int]) -> None:
        self.codes.append(code)
        self.numbers.append(number)
        self._offset.append(place[0])
        self._length.append(place[1])

    def place(self, i: int) -> tuple[int, int]:
        return self._offset[i], self._length[i]


def _read(elements: _Elements) -> _Read:
    """The whole of a COCO file. Raises StorageError, DataError."""
    read, path = _Read(elements), elements.path
    keys: set[str] = set()
    for key, number, element, place in elements.walk():
        if key is None:
            what = "one value" if number is None and element != [] else "a list"
            raise DataError(
                f"{path}: {what}, such as a detector's results, and no COCO annotations: wanted an object with "
                "images, categories and annotations"
            )
        keys.add(key)
        if key not in _KEYS or element == []:
            continue
        if number is None:
            raise DataError(f"{path}: {key} is {_shown(element)}, wanted a list")
        if key == "images":
            read.take_image(number, element, place)
        elif key == "annotations":
            read.take_annotation(number, element, place)
        else:
            try:
                read.take_category(element)
            except ValueError as error:
                raise DataError(f"{path}: categories[{number}]: {error}") from None
    for kind, n in read.others.items():
        if n == read.annotations:
            raise DataError(f"{path}: COCO's {kind}, with no boxes in it; pass the file of instances or of keypoints")
    # Where there are captions and nothing else, nothing is said of boxes.
    read.boxed = "annotations" in keys and (read.boxed or not read.captioned)
    needed = ("images", "categories") if read.boxed else ("images",)
    if missing := [key for key in needed if key not in keys]:
        has = ", ".join(sorted(keys)) or "nothing"
        raise DataError(f"{path}: no COCO file: it has {has}, and no {' and no '.join(missing)}")
    read.close()
    return read


def _name(entry: dict[str, Any]) -> str | None:
    """The file name of an image; None where it has none."""
    name, url = entry.get("file_name"), entry.get("coco_url")
    if name is None and isinstance(url, str):
        name = url.rpartition("/")[2]
    return name if isinstance(name, str) and name else None


def _mask(entry: dict[str, Any], number: int, size: tuple[int, int] | None, left_out: _LeftOut) -> Mask | None:
    """The mask of an object; None where it has none, or one that can't be used, which is counted in `left_out`."""
    if not (said := entry.get("segmentation")):
        return None
    try:
        mask = segmentations.mask_of(said)
        if mask is not None and mask.size is not None and size is not None and mask.size != size:
            raise ValueError(f"it is for {mask.size[1]} x {mask.size[0]} pixels, the image has {size[1]} x {size[0]}")
    except ValueError as error:
        left_out.skipped["segmentations that are none"] += 1
        left_out.unmasked = left_out.unmasked or (number, f"segmentation is {_shown(said)}: {error}")
        return None
    if mask is None:
        left_out.skipped["segmentations of fewer than three corners"] += 1
    return mask


def _extras(entries: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What else annotations say, a list with a value for each of them by name; None where it says nothing of it."""
    said = [{} if _KNOWN.issuperset(entry) else _extra(entry) for entry in entries]
    names = dict.fromkeys(name for extra in said for name in extra)
    return {name: [extra.get(name, -1 if name in _FLAGS else None) for extra in said] for name in names}


def _extra(entry: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in entry.items() if name not in _KNOWN}
    inner = own.pop("attributes", None)
    found: dict[str, Any] = {}
    for name, value in (*own.items(), *(inner.items() if isinstance(inner, dict) else ())):
        name = _key(name)
        if name in _FLAGS:
            value = int(value) if value in (0, 1) else -1
        elif name == "track_id" and isinstance(value, int) and not isinstance(value, bool):
            name = "track"
        found[name] = value
    return found


def _key(name: str) -> str:
    """What somebody calls an attribute, as all are called here."""
    return re.sub(r"\W+", "_", name.strip().lower())


def _id(value: Any) -> int | str | None:
    """An id: a whole number, also one that was written 7.0, or a text; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) and value != "" else None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and walking.id_of(value)[1] is None


def _side(value: Any) -> int:
    """Pixels; 0 for what says none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _finite(value: Any) -> float | None:
    """A JSON number as a float; None for NaN, infinity, and what is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _numbers(name: str, value: Any, wanted: str, count: int | None = None) -> list[float]:
    """Finite floats. Raises ValueError."""
    found: list[float | None] = [None]
    if isinstance(value, list):
        found = _plain(value) or [_finite(number) for number in value]
    if None in found or count not in (None, len(found)):
        raise ValueError(f"{name} is {_shown(value)}, wanted numbers: {wanted}")
    return found  # type: ignore[return-value]


def _plain(value: list[Any]) -> list[Any] | None:
    """The floats of a list in which nothing is odd, in a fraction of the time that a look at each takes."""
    if not _PLAIN.issuperset(map(type, value)):
        return None
    try:
        floats = array("d", value)
    except OverflowError:
        return None
    return floats.tolist() if math.isfinite(sum(floats)) else None


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """x0, y0, x1, y1 float32 [n, 4] of x, y, width, height [n, 4]."""
    with np.errstate(over="ignore"):
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def _extent(points: Sequence[float]) -> list[float]:
    """The box x, y, width, height of the labelled ones among points x, y, v one after the other; of no size without."""
    labelled = [(x, y) for x, y, v in zip(points[::3], points[1::3], points[2::3], strict=True) if v > 0]
    if not labelled:
        return [0.0, 0.0, 0.0, 0.0]
    (x0, y0), (x1, y1) = (tuple(map(end, zip(*labelled, strict=True))) for end in (min, max))
    return [x0, y0, x1 - x0, y1 - y0]


def _shown(value: Any) -> str:
    """A value fit for one line of a terminal."""
    shown = ascii(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
