"""Source `yolo`: YOLO's text files, a row for each object of an image, as Ultralytics, Roboflow and Darknet have them.

    data.yaml            path: .                      images/train/a.jpg
                         train: images/train          labels/train/a.txt   0 0.5 0.5 0.2 0.4
                         val: images/val                                   1 0.25 0.5 0.1 0.1
                         names: {0: cat, 1: dog}

A row of task detect is `class x y width height`, of segment `class x y x y x y …` (three corners and more), of pose
`class x y width height` and `x y` or `x y v` of each point, of obb `class` and four corners. No count of numbers tells
one of them from another: the task is what data.yaml or an option says. Numbers are shares of the image's width and
height, x and y the middle of the box. The image is the one that is seen, with its EXIF orientation applied
(ultralytics/data/utils.py, exif_size).

Opens images for their headers alone.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.record import Mask, Record, Reject, check_names, name_fault
from headrace.sources import walking
from headrace.sources.folders import split_folders
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.survey import Survey
from headrace.splits import USUAL_SPLITS

Task = Literal["detect", "segment", "pose", "obb"]

# Whatever the files hold, no more of them than this is in memory at once.
_MOST_CONFIG = 1 << 20
_LONGEST_ROW = 1 << 20
_LONGEST_NAME = 4096
_MOST_ROWS = 100_000
_HEAD = 1 << 16  # bytes of a JPEG, which have its header if its EXIF block is no larger than it may be
_MOST_CLASSES = 100_000
_MOST_POINTS = 1000

_BEYOND = 0.01  # Ultralytics takes coordinates from -0.01 to 1.01: a box on the border, rounded
_NUMBER = rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
_ROW = re.compile(rb"%s(?:\s+%s)*" % (_NUMBER, _NUMBER))
_YAML = (".yaml", ".yml")
_NAMES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "labels.names")
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_ROWS = {
    "detect": "class x y width height",
    "segment": "class and the x and y of three corners or more",
    "pose": "class x y width height and {k} points of {d} numbers",
    "obb": "class and the x and y of four corners",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloSource:
    """Iterable of Record | Reject; see `yolo`. `classes`: number -> name; `parts`: (split, folders and lists of it).

    Its SourceInfo counts in `boxes_dropped` the rows that are said twice.
    """

    root: Path
    task: Task
    classes: Mapping[int, str]
    parts: tuple[tuple[str | None, tuple[str, ...]], ...]
    points: tuple[int, int]
    keypoint_names: tuple[str, ...] | None
    flip_pairs: tuple[tuple[int, int], ...] | None
    notes: tuple[str, ...]

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        reading = _Reading(self)
        yield from reading.items()
        splits = tuple(split for split, _ in self.parts if split is not None)
        return SourceInfo(
            box_class_names=tuple(dict.fromkeys(self.classes[number] for number in sorted(self.classes))),
            keypoint_names=self.keypoint_names,
            flip_pairs=self.flip_pairs,
            split_names=splits or None,
            boxes_dropped=+reading.dropped,
            keypoints_dropped=+reading.points_dropped,
            skipped=+reading.skipped,
            root=str(self.root),
            notes=(*self.notes, *reading.notes()),
        )


def yolo(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    task: Task | None = None,
    class_names: Sequence[str] | None = None,
) -> YoloSource:
    """Images with the objects that their label files say, split by split as data.yaml says.

    path: a data.yaml, the folder with it, a folder with Darknet's obj.data or obj.names, or one of images and labels
    with classes.txt or with class_names, the names by their numbers. images: the folder that the paths in data.yaml
    start from, by default its own; nothing outside of it is opened. A `path` in data.yaml that leads elsewhere, as from
    another machine, is not followed: what it leads to is looked for in that folder, and `notes` say so.

    task: detect, segment, pose or obb; by default pose where data.yaml has kpt_shape, else its `task`, else detect.
    Boxes are float32 [n, 4] in pixels of the upright image. segment: the box is the extent of the polygon, which is the
    object's mask; a row of four numbers is a box without one. obb: the same of the four corners. pose: keypoints
    [n, k, 3]; without a v a point is visible (2), and absent at 0 0 or where x or y is negative. flip_idx gives
    the points that a mirror swaps.

    Classes are in the order of their numbers, without the numbers that none has. The label file of an image is the one
    in the folder called labels instead of the last one called images, or else beside it; without one, or with an empty
    one, it is a negative, as YOLO has it. A row that occurs twice is dropped and counted. Ids are paths relative to a
    split's folder (for a list to the last folder called images); what several have gets its split in front.

    An image is a Reject when one of its rows isn't as the task wants it, names no class, or has a coordinate more than
    0.01 outside of 0 to 1 (a box whose middle is inside may reach out: packing cuts it), when it is missing, or no
    image. So is a label file without an image.
    Raises NotThereError, StorageError, UsageError (no file or folder; no names; an option), DataError (data.yaml at
    fault); when iterated DataError, if no image has a label file.
    """
    if task is not None and task not in get_args(Task):
        raise UsageError(f"task is {task!r}, wanted one of {', '.join(get_args(Task))}")
    place = paths.path_of(path)
    if not place.exists():
        raise NotThereError(f"{place}: no such file or folder")
    layout = _Layout(place, None if images is None else walking.check_root(images))
    names = None if class_names is None else dict(enumerate(check_names(tuple(class_names), "class_names")))
    classes = names or layout.classes()
    chosen = task or layout.task()
    points = layout.points() if chosen == "pose" else (0, 0)
    return YoloSource(
        root=layout.root,
        task=chosen,
        classes=classes,
        parts=layout.parts(),
        points=points,
        keypoint_names=layout.keypoint_names(points[0]) if chosen == "pose" else None,
        flip_pairs=layout.flip_pairs(points[0]) if chosen == "pose" else None,
        notes=tuple(layout.notes),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is YOLO's folder or data.yaml, or None when nothing does. Raises StorageError."""
    if path.is_file():
        if path.suffix.lower() not in (*_YAML, ".data"):
            return None
        try:
            with path.open("rb") as file:
                head = file.read(_MOST_CONFIG).decode(errors="replace")
        except OSError as error:
            raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
        return f"{path.name} has names" if _says_names(head) else None
    return seen_in(Survey(path))


def seen_in(survey: Survey) -> str | None:
    """The same of what lies in a folder."""
    for found, _ in survey.having(*_YAML):
        if _says_names(survey.head(found)):
            return f"{found} has names"
    if (listed := survey.named("obj.data", "obj.names", "_darknet.labels")) is not None:
        return listed
    for found, _ in survey.having(".txt"):
        lines = [line.strip().encode() for line in survey.head(found).splitlines()[:6]][:5]
        rows = [line for line in lines if line]
        # DOTA's and MOT's rows hold other things than a class and shares of an image.
        if rows and all(map(_is_row, rows)):
            return f"{found} has a class number and a box in each line"
    return None


def _says_names(text: str) -> bool:
    return re.search(r"^names\s*[:=]", text, re.MULTILINE) is not None


def _is_row(text: bytes) -> bool:
    """Whether it is a class and shares of an image, four and more."""
    if not _ROW.fullmatch(text):
        return False
    number, *shares = map(float, text.split())
    return number.is_integer() and 0 <= number < _MOST_CLASSES and len(shares) >= 4 and all(-1 < x <= 2 for x in shares)


# --- what says where everything is -----------------------------------------------------------------------------------

_Config: TypeAlias = dict[str, Any]


class _Layout:
    """What a data.yaml, Darknet's files or the folders alone say; `notes`: what was taken for granted."""

    def __init__(self, path: Path, images: Path | None) -> None:
        self.notes: list[str] = []
        self.file: Path | None = None
        self.config: _Config = {}
        if path.is_dir():
            top = walking.check_root(path)
            self.file = _config_in(top)
        elif path.is_file():
            top, self.file = path.parent, path
        else:
            raise UsageError(f"{path}: is no regular file, wanted a data.yaml or a folder")
        self.top, self.root = top, top if images is None else images
        self.base = ""
        if self.file is not None:
            if images is None:
                where = os.path.relpath(self.file.parent, top).replace(os.sep, "/")
                self.base = "" if where == "." else where
            if refused := walking.refusal(str(self.file), os.path.realpath(top)):
                raise UsageError(f"{self.file}: can't be taken: {refused}")
            self.config = _read_yaml(self.file) if self.file.suffix.lower() in _YAML else _read_data(self.file)
            self.base = self._base()

    @property
    def name(self) -> str:
        return str(self.file or self.root)

    def classes(self) -> dict[int, str]:
        """Number -> name. Raises UsageError, DataError."""
        names = self.config.get("names")
        if isinstance(names, str) and self.file is not None and self.file.suffix.lower() not in _YAML:
            names = None  # Darknet's path of a file
        if names is None and isinstance(n := self.config.get("nc"), str) and self._lines() is None:
            if not (n.isascii() and n.isdigit() and len(n) < 7 and 0 < int(n) <= _MOST_CLASSES):
                raise DataError(f"{self.name}: nc is {n!r:.60}, wanted the number of classes")
            self.notes.append(f"{self.file and self.file.name} has no names: classes are called class_0 and so on")
            names = [f"class_{i}" for i in range(int(n))]
        if names is None:
            names = self._lines()
        if names is None:
            raise UsageError(
                f"{self.name}: nothing says what the classes are called (names in a data.yaml, obj.names, "
                "classes.txt); pass class_names=['cat', 'dog'], in the order of their numbers"
            )
        if isinstance(names, list):
            numbered: dict[Any, Any] = dict(enumerate(names))
        elif isinstance(names, dict):
            numbered = {_whole(number): name for number, name in names.items()}
        else:
            raise DataError(f"{self.name}: names is {_shown(names)}, wanted a list, or numbers with names")
        for number, name in numbered.items():
            if number is None or number >= _MOST_CLASSES:
                raise DataError(f"{self.name}: a class of names has no number, wanted 0, 1, …")
            if fault := name_fault(name):
                raise DataError(f"{self.name}: names, class {number}: {fault}")
        if not numbered:
            raise DataError(f"{self.name}: names is empty")
        if sorted(numbered) != list(range(len(numbered))):
            self.notes.append("class numbers have gaps: classes keep their order, and not their numbers")
        if len(set(numbered.values())) < len(numbered):
            self.notes.append("several class numbers have the same name, and are one class")
        n = self.config.get("nc")
        if isinstance(n, str) and n.isascii() and n.isdigit() and n.lstrip("0") != str(len(numbered)):
            self.notes.append(f"nc is {n[:20]}, and {len(numbered)} classes have names: these are taken")
        return numbered

    def task(self) -> Task:
        if "kpt_shape" in self.config:
            return "pose"
        said = self.config.get("task")
        return next((task for task in get_args(Task) if task == said), "detect")

    def points(self) -> tuple[int, int]:
        """How many keypoints an object has, and of how many numbers. Raises UsageError, DataError."""
        shape = self.config.get("kpt_shape")
        if shape is None:
            raise UsageError(
                f"{self.name}: task is 'pose', and no data.yaml says how many points that is, as in kpt_shape: [17, 3]"
            )
        numbers = [_whole(number) for number in shape] if isinstance(shape, list) else []
        if len(numbers) != 2 or not numbers[0] or numbers[0] > _MOST_POINTS or numbers[1] not in (2, 3):
            raise DataError(f"{self.name}: kpt_shape is {_shown(shape)}, wanted points and 2 or 3, as in [17, 3]")
        return numbers[0], numbers[1]

    def keypoint_names(self, k: int) -> tuple[str, ...] | None:
        names = self.config.get("kpt_names")
        if isinstance(names, dict):  # a list for each class
            lists = list(names.values())
            names = lists[0] if lists and all(each == lists[0] for each in lists) else None
        if not isinstance(names, list):
            return None
        if len(names) != k or any(name_fault(name) for name in names) or len({*map(str, names)}) != k:
            raise DataError(f"{self.name}: kpt_names are {_shown(names)}, wanted {k} different names")
        return tuple(names)

    def flip_pairs(self, k: int) -> tuple[tuple[int, int], ...] | None:
        flips = self.config.get("flip_idx")
        if flips is None:
            return None
        to = [_whole(number) for number in flips] if isinstance(flips, list) else []
        if sorted(-1 if i is None else i for i in to) != list(range(k)) or any(
            to[j or 0] != i for i, j in enumerate(to)
        ):
            raise DataError(
                f"{self.name}: flip_idx is {_shown(flips)}, wanted {k} numbers of points that change places"
            )
        return tuple((i, j) for i, j in enumerate(to) if j is not None and i <= j)

    def parts(self) -> tuple[tuple[str | None, tuple[str, ...]], ...]:
        """(split, its folders and lists relative to the root). Raises UsageError, DataError."""
        found: list[tuple[str | None, tuple[str, ...]]] = []
        elsewhere: list[str] = []
        for split, keys in _KEYS.items():
            key = next((key for key in keys if self.config.get(key) not in (None, "", [], "null", "~")), None)
            if key is None:
                continue
            said = self.config[key]
            places = []
            for text in said if isinstance(said, list) else [said]:
                if not isinstance(text, str):
                    raise DataError(f"{self.name}: {key} is {_shown(said)}, wanted a folder, a list, or several")
                place, direct = self._resolve(text)
                if place is None and key == "test":  # which is often written and not delivered
                    self.notes.append(f"{key} is {text!r:.80}, which is not there: left out")
                    continue
                if place is None:
                    raise DataError(
                        f"{self.name}: {key} is {text!r:.120}, which is not in {self.root}; pass the folder that it "
                        "starts from with images=FOLDER"
                    )
                if not direct:
                    elsewhere.append(f"{key} {text!r:.80} as {place or '.'}")
                places.append(place)
            if places:
                found.append((split, tuple(places)))
        if elsewhere:
            self.notes.append(f"paths that lead elsewhere are looked for in {self.root.name}: {'; '.join(elsewhere)}")
        return tuple(found) or self._bare_parts()

    def _bare_parts(self) -> tuple[tuple[str | None, tuple[str, ...]], ...]:
        """The same where nothing says it."""
        lists = {
            split: f"{key}.txt" for split, keys in _KEYS.items() for key in keys if (self.root / f"{key}.txt").is_file()
        }
        if lists:
            return tuple((split, (name,)) for split, name in lists.items())
        below = walking.folders_in(self.root)
        top = "images" if "images" in below else ""
        if splits := split_folders(self.root / top):
            self.notes.append(f"folders taken as splits: {', '.join(f'{name}/' for name in splits)}")
            by_split: dict[str | None, list[str]] = {}
            for name, split in sorted(splits.items(), key=lambda pair: USUAL_SPLITS.index(pair[1])):
                place = posixpath.join(top, name)
                inner = f"{place}/images"
                by_split.setdefault(split, []).append(inner if not top and (self.root / inner).is_dir() else place)
            return tuple((split, tuple(places)) for split, places in by_split.items())
        return ((None, (top,)),)

    def _base(self) -> str:
        """The folder, from the root, that paths start from: what `path` says, if it is there."""
        said = self.config.get("path")
        if not isinstance(said, str) or not said.strip():
            return self.base
        place, direct = self._resolve(said)
        if place is not None and direct and (self.root / place).is_dir():
            return place
        self.notes.append(f"path is {said!r:.80}, which is not followed: paths start from {self.root.name}/{self.base}")
        return self.base

    def _resolve(self, text: str) -> tuple[str | None, bool]:
        """A path of the config from the root, None where it is not in there; and whether it stands just so."""
        return _inside(self.root, text, [self.base])

    def _lines(self) -> list[str] | None:
        """The names in a file of names, a line each; None where there is none. Raises DataError."""
        said = self.config.get("names")
        places = [said] if isinstance(said, str) else []
        folders = ("", "labels", "images", *(f"{name}" for name in walking.folders_in(self.root)[:20]))
        places += [posixpath.join(folder, name) for folder in folders for name in _NAMES]
        for text in places:
            place, _ = self._resolve(text)
            if place is None or walking.refusal(str(self.root / place), os.path.realpath(self.root)) is not None:
                continue
            names = []
            try:
                for line, name in walking.lines(self.root / place, longest=_LONGEST_NAME):
                    names.append(name.decode())
                    if len(name) > _LONGEST_NAME or line > _MOST_CLASSES or line != len(names):
                        raise DataError(f"{self.root / place}:{line}: wanted the name of a class in each line")
            except UnicodeDecodeError:
                raise DataError(f"{self.root / place}: is no UTF-8, wanted the name of a class in each line") from None
            except OSError as error:
                raise StorageError(f"{self.root / place}: {(error.strerror or str(error)).lower()}") from error
            return names
        return None


def _config_in(folder: Path) -> Path | None:
    """The data.yaml, or Darknet's obj.data, of a folder: the upper one. Raises UsageError: there are several."""
    survey = Survey(folder)
    found = [path for path, _ in survey.having(*_YAML) if _says_names(survey.head(path))]
    if found:
        least = min(path.count("/") for path in found)
        found = [path for path in found if path.count("/") == least]
        if len(found) > 1 and any(path.rpartition("/")[2] == "data.yaml" for path in found):
            found = [path for path in found if path.rpartition("/")[2] == "data.yaml"]
        if len(found) > 1:
            raise UsageError(f"{folder}: several files say names: {', '.join(found[:5])}; pass one of them")
        return folder / found[0]
    data = survey.named("obj.data")
    return None if data is None else folder / data


class _Yaml(yaml.BaseLoader):
    """Texts, lists and mappings: a class called `no` stays one, and no object of Python is made."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")  # few lines of which unfold to gigabytes
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(node.value):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"in the mapping at line {line} a key occurs twice, or is no text")
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> _Config:
    """What a data.yaml says. Raises DataError, StorageError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_CONFIG + 1)
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    if len(data) > _MOST_CONFIG:
        raise DataError(f"{path}: more than {_MOST_CONFIG} bytes, wanted a data.yaml of YOLO")
    try:
        found = yaml.load(data, _Yaml)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        reason = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise DataError(f"{path}{line}: no sound YAML: {ascii(str(reason))[1:-1][:160]}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: found {_shown(found)}, wanted names, train and val")
    return found


def _read_data(path: Path) -> _Config:
    """What Darknet's obj.data says. Raises DataError, StorageError."""
    found: _Config = {}
    try:
        for number, text in walking.lines(path, longest=_LONGEST_NAME):
            key, equals, value = text.decode(errors="replace").partition("=")
            if not equals or len(text) > _LONGEST_NAME or number > 100:
                raise DataError(f"{path}:{number}: found {_shown(key)}, wanted KEY = VALUE")
            found[key.strip()] = value.strip()
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    return found


def _inside(root: Path, text: str, bases: Sequence[str]) -> tuple[str | None, bool]:
    """(a path from the root for what a config or a list says, whether that leads just there); None where nothing of it
    is there. What leads elsewhere is looked for by its last parts; nothing outside is looked at."""
    if walking.CONTROLS.search(text) or len(text) > _LONGEST_NAME or re.search(r"[\ud800-\udfff]", text):
        return None, False
    slashed = text.strip().replace("\\", "/")
    absolute = slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed) is not None
    if not absolute:
        for base in bases:
            path = posixpath.normpath(posixpath.join(base, slashed))
            if path.partition("/")[0] != ".." and _exists(root, path):
                return ("" if path == "." else path), True
    else:
        path = os.path.relpath(slashed, root.absolute()).replace(os.sep, "/")
        if path.partition("/")[0] != ".." and _exists(root, path):
            return ("" if path == "." else path), True
    parts = [part for part in slashed.split("/") if part not in ("", ".") and not part.endswith(":")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    for i in range(min(len(parts), 64)):
        # One name alone may be another's, but a list's is its own, and Darknet puts data/ in front of all.
        if i and len(parts) - i < 2 and not parts[-1].endswith(".txt") and not (i == 1 and parts[0] == "data"):
            break
        for base in dict.fromkeys((*bases, "")):
            path = posixpath.join(base, *parts[i:])
            if _exists(root, path):
                return path, False
    return None, False


def _exists(root: Path, path: str) -> bool:
    return paths.exists(root / path)


def _whole(text: Any) -> int | None:
    """A number from 0 on, as YAML has it; None for anything else."""
    if isinstance(text, int):
        return text
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else None


def _shown(value: Any) -> str:
    """A value of a config, fit for one line, whatever it holds."""
    if isinstance(value, str):
        return ascii(value[:60])
    return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"


# --- one reading -----------------------------------------------------------------------------------------------------


class _Fault(ValueError):
    """What is wrong with a label file, and in which line."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(slots=True)
class _Rows:
    """The objects of an image, in shares of it: boxes [n, 4] of corners, polygons, and points [n, k, 3]."""

    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    polygons: list[NDArray[np.float64] | None]
    points: list[NDArray[np.float64]]


class _Reading:
    """One reading of a source, and what it counts."""

    def __init__(self, source: YoloSource) -> None:
        self.source = source
        self.skipped, self.dropped, self.points_dropped = Counter[str](), Counter[str](), Counter[str]()
        self.unlabelled = self.labelled = self.bare = self.rotated = 0
        self.inside = os.path.realpath(source.root)

    def items(self) -> Iterator[Record | Reject]:
        found: list[tuple[str | None, str, str]] = []  # split, id, path from the root
        for split, places in self.source.parts:
            seen: set[str] = set()
            for place in places:
                for item in self._images(place):
                    if isinstance(item, Reject):
                        yield item
                    elif item[1] in seen:
                        self.skipped["images that a split names twice"] += 1
                    else:
                        seen.add(item[1])
                        found.append((split, *item))
        ids = _different(found)
        labels: set[str] = set()
        first = ""
        root = self.source.root
        each = zip(found, ids, strict=True)
        for (split, _, path), id_ in paths.ahead(root, each, lambda one: _read_of(root, one[0][2])):
            label = _label_of(path)
            first = first or label
            labels.add(label)
            yield self._item(id_, path, label, split)
        if found and not self.labelled:
            raise DataError(f"{self.source.root}: none of {len(found)} images has a label file, such as {first}")
        for label in self._orphans(labels):
            yield Reject(id=label, origin=label, stage="annotation", reason="there is no image of this name")

    def notes(self) -> Iterator[str]:
        if self.unlabelled:
            yield f"{self.unlabelled} images have no label file: they are negatives, as YOLO has it"
        if self.bare:
            yield f"{self.bare} rows of task segment are boxes, and have no polygon"
        if self.rotated:
            yield f"boxes are the extents of {self.rotated} oriented ones, whose corners are their masks"

    def _images(self, place: str) -> Iterator[tuple[str, str] | Reject]:
        """(id, path from the root) of the images of a folder or a list."""
        root = self.source.root
        if (root / place).is_dir():
            if os.path.commonpath([os.path.realpath(root / place), self.inside]) != self.inside:
                raise DataError(f"{root / place}: a link leads out of {root}")
            skipped: Counter[str] = Counter()
            for found in walking.walk(root / place, skipped):
                if isinstance(found, str):
                    yield found, posixpath.join(place, found)
                else:
                    yield found
            if "/images/" not in f"/{place}/":
                del skipped[".txt"]  # labels, and what is beside them
            self.skipped += skipped
            return
        if refused := walking.refusal(str(root / place), self.inside):
            raise DataError(f"{root / place}: {refused}")
        folder = posixpath.dirname(place)
        for line, text in walking.lines(root / place, longest=_LONGEST_NAME):
            origin = f"{place}:{line}"
            try:
                name = text.decode()
            except UnicodeDecodeError:
                yield Reject(id=origin, origin=origin, stage="annotation", reason="the name is not UTF-8")
                continue
            # In a list ./ is the folder of the list (ultralytics/data/base.py, get_img_files).
            path, _ = _inside(root, name, [folder, ""] if name.startswith("./") else ["", folder])
            if path is None:
                id_, fault = walking.id_of(name)
                reason = f"there is no such image in {root.name}: {name!r:.120}"
                yield Reject(id=id_ or origin, origin=origin, stage="read", reason=fault or reason)
                continue
            yield f"/{path}".rpartition("/images/")[2].lstrip("/"), path

    def _item(self, id_: str, path: str, label: str, split: str | None) -> Record | Reject:
        """The record of an image, or its Reject."""
        source = self.source
        if refused := walking.refusal(f"{source.root}/{path}", self.inside):
            return Reject(id=id_, origin=path, stage="read", reason=refused)
        file = source.root / label
        rows = _Rows([], [], [], [])
        origin = label
        if paths.exists(file) or os.path.lexists(file):
            self.labelled += 1
            if refused := walking.refusal(str(file), self.inside):
                return Reject(id=id_, origin=label, stage="read", reason=refused.replace(" of images", ""))
            try:
                rows = self._rows(file)
            except _Fault as fault:
                at = label if fault.line is None else f"{label}:{fault.line}"
                return Reject(id=id_, origin=at, stage="annotation", reason=str(fault))
            except OSError as error:
                return Reject(id=id_, origin=label, stage="read", reason=(error.strerror or str(error)).lower())
        else:
            self.unlabelled += 1
            origin = path
        size = None
        if rows.boxes:
            from headrace.imaging.codec import BadImage  # here, as OpenCV takes longer to import than all sources

            try:
                size = _upright_size(source.root / path)
            except BadImage as error:
                return Reject(id=id_, origin=path, stage=error.stage, reason=error.reason)
            except OSError as error:
                return Reject(id=id_, origin=path, stage="read", reason=(error.strerror or str(error)).lower())
        scale = np.array([1, 1] if size is None else size[::-1], np.float64)
        k = source.points[0]
        points = np.array(rows.points, np.float64).reshape(-1, k, 3) * [*scale, 1] if k else None
        masks = tuple(
            None if polygon is None else Mask(polygons=((polygon * scale).astype(np.float32),))
            for polygon in rows.polygons
        )
        return Record(
            id=id_,
            path=f"{source.root}/{path}",
            boxes=(np.array(rows.boxes, np.float64).reshape(-1, 4) * np.tile(scale, 2)).astype(np.float32),
            box_labels=tuple(rows.names),
            masks=masks if source.task in ("segment", "obb") else None,
            keypoints=None if points is None else points.astype(np.float32),
            size=size,
            upright=True,
            split=split,
            origin=origin,
        )

    def _rows(self, path: Path) -> _Rows:
        """What a label file says. Raises _Fault, OSError."""
        out = _Rows([], [], [], [])
        seen: set[tuple[float, ...]] = set()
        for line, text in walking.lines(path, longest=_LONGEST_ROW):
            if line > _MOST_ROWS or len(text) > _LONGEST_ROW:
                raise _Fault(f"more than {_MOST_ROWS} rows, or one of more than {_LONGEST_ROW} bytes", line)
            if not _ROW.fullmatch(text):
                raise _Fault(f"found {_brief(text)}, wanted numbers: {self._wanted}", line)
            row = tuple(map(float, text.split()))
            try:
                name, box, polygon, points = self._object(row)
            except ValueError as error:
                raise _Fault(str(error), line) from None
            if row in seen:
                self.dropped["said twice"] += 1
                if points is not None:
                    self.points_dropped["of dropped boxes"] += int((points[:, 2] > 0).sum())
                continue
            seen.add(row)
            out.names.append(name)
            out.boxes.append(box)
            out.polygons.append(polygon)
            if points is not None:
                out.points.append(points)
        return out

    @property
    def _wanted(self) -> str:
        k, d = self.source.points
        return _ROWS[self.source.task].format(k=k, d=d)

    def _object(
        self, row: tuple[float, ...]
    ) -> tuple[str, tuple[float, float, float, float], NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """Class, box, polygon and points of a row. Raises ValueError."""
        source, (number, *numbers) = self.source, row
        name = source.classes.get(int(number)) if number.is_integer() else None
        if name is None:
            raise ValueError(f"class {number:g} is none of {_numbers(source.classes)}")
        n, (k, d) = len(numbers), source.points
        sound = {"detect": n == 4, "pose": n == 4 + k * d, "obb": n == 8, "segment": n == 4 or (n >= 6 and n % 2 == 0)}
        if not sound[source.task]:
            hint = "; task='segment', 'pose' or 'obb' reads other rows" if source.task == "detect" else ""
            raise ValueError(f"{n + 1} numbers, wanted {self._wanted}{hint}")
        shares = np.array(numbers if source.task != "pose" else numbers[:4])
        polygon = points = None
        if not ((shares >= -_BEYOND) & (shares <= 1 + _BEYOND)).all():
            raise ValueError(f"{_first_beyond(shares):g} is no share of the image, wanted 0 to 1")
        if source.task in ("detect", "pose") or n == 4:
            x, y, width, height = numbers[:4]
            if width < 0 or height < 0:
                raise ValueError(f"width {width:g}, height {height:g}: wanted both above 0")
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            self.bare += source.task == "segment"
        else:
            polygon = shares.reshape(-1, 2)
            (x0, y0), (x1, y1) = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
            box = (x0, y0, x1, y1)
            self.rotated += source.task == "obb"
        if source.task == "pose":
            points = _points(np.array(numbers[4:]).reshape(k, d))
        return name, box, polygon, points

    def _orphans(self, labels: set[str]) -> Iterator[str]:
        """The label files that belong to no image. Beside images may lie other texts: there they begin with a row."""
        root, done = self.source.root, set[str]()
        for _, places in self.source.parts:
            for place in places:
                folder = posixpath.dirname(_label_of(posixpath.join(place, "x.jpg")))
                if folder in done or not (root / place).is_dir() or not (root / folder).is_dir():
                    continue
                done.add(folder)
                for name in walking.having(root / folder, ".txt"):
                    label = posixpath.join(folder, name)
                    if label in labels or name.rpartition("/")[2] in _NAMES:
                        continue
                    if folder != place or self._begins_with_a_row(label):
                        yield label

    def _begins_with_a_row(self, label: str) -> bool:
        path = self.source.root / label
        if walking.refusal(str(path), self.inside) is not None:
            return False
        try:
            _, text = next(walking.lines(path, longest=_LONGEST_ROW), (0, b""))
        except OSError:
            return False
        return _is_row(text)


def _different(found: Sequence[tuple[str | None, str, str]]) -> list[str]:
    """An id for each (split, id, path): the path where a split has it twice, the split in front where several do."""
    within = Counter((split, id_) for split, id_, _ in found)
    ids = [path if within[split, id_] > 1 else id_ for split, id_, path in found]
    among = Counter(ids)
    return [
        f"{split}/{id_}" if among[id_] > 1 and split is not None else id_
        for (split, _, _), id_ in zip(found, ids, strict=True)
    ]


def _label_of(image: str) -> str:
    """The label file of an image, both from the root (ultralytics/data/utils.py, img2label_paths)."""
    head, images, tail = f"/{image}".rpartition("/images/")
    path = (f"{head}/labels/{tail}" if images else tail)[1:]
    return posixpath.splitext(path)[0] + ".txt"


def _read_of(root: Path, image: str) -> Iterator[str]:
    """The files that are read of an image: where it has a label file, that and its own beginning."""
    if paths.exists(root / (label := _label_of(image))):
        yield label
        yield image


def _upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as it is seen. Raises BadImage, OSError."""
    from headrace.imaging import codec

    # Whether it is too large, or has too many bits, is for the packer to say.
    header_of = functools.partial(codec.read_header, max_pixels=1 << 62, value_range=(0, 1))
    with path.open("rb") as file:
        data = file.read(_HEAD)
        try:
            # What of a JPEG decides comes before its scan; a PNG may say its orientation at its end.
            header = header_of(data) if codec.sniff(data) == "jpeg" else None
        except codec.BadImage:
            header = None
        if header is None:
            header = header_of(data + file.read())
    sideways = header.orientation in (5, 6, 7, 8)
    return (header.width, header.height) if sideways else (header.height, header.width)


def _points(given: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y, v [k, 3] of points [k, 2] or [k, 3], in shares of the image. Raises ValueError."""
    out = np.zeros((len(given), 3))
    if given.shape[1] == 2:
        # Ultralytics takes a negative one for absent; 0 0 is what COCO has for those.
        out[:, 2] = np.where((given < 0).any(axis=1) | (given == 0).all(axis=1), 0, 2)
    else:
        odd = given[~np.isin(given[:, 2], (0, 1, 2)), 2]
        if len(odd):
            raise ValueError(f"a point has v {odd[0]:g}, wanted 0, 1 or 2")
        out[:, 2] = given[:, 2]
    there = out[:, 2] > 0
    out[there, :2] = given[there, :2]
    if not ((out[:, :2] >= -_BEYOND) & (out[:, :2] <= 1 + _BEYOND)).all():
        raise ValueError(f"{_first_beyond(out[:, :2].ravel()):g} of a point is no share of the image, wanted 0 to 1")
    return out


def _first_beyond(shares: NDArray[np.float64]) -> float:
    return float(shares[~((shares >= -_BEYOND) & (shares <= 1 + _BEYOND))][0])


def _numbers(classes: Mapping[int, str]) -> str:
    numbers = sorted(classes)
    if numbers == list(range(len(numbers))):
        return f"0 to {len(numbers) - 1}"
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


def _brief(text: bytes) -> str:
    """The beginning of a line, fit for one line of a terminal."""
    shown = ascii(text[:60].decode(errors="backslashreplace"))
    return shown if len(text) <= 60 else f"{shown}…"


FORMAT = Format(
    name="yolo",
    reads="A data.yaml of YOLO, or the folder with it: boxes, polygons or poses",
    takes="either",
    make=yolo,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that the names in the file start from; its own by default.",
            per_split=True,
        ),
        Option(name="task", type=Task, help="What a row is; as data.yaml says, or boxes, by default."),
        CLASS_NAMES,
    ),
    example=("data.yaml", {"task": "segment"}),
    about=About(
        recognised=(
            "a YAML file with names, Darknet's obj.data or obj.names, or texts in labels/ with a class "
            "number and a box in each line."
        ),
        kept=(
            "boxes (the middle, width and height, as shares of the upright image), polygons as masks with "
            "the box around them, poses as keypoints with flip_idx; splits as data.yaml has them. No text, "
            "or an empty one, is a negative. The task is what data.yaml or --task says, never the number of "
            "columns."
        ),
        refused=(
            "an image one of whose rows isn't as the task wants it, names no class, or has a coordinate more "
            "than 0.01 outside of 0 to 1; a label file without an image. A path in data.yaml that leads out of the "
            "folder is not followed."
        ),
        sample=(
            "data.yaml             labels/train/a.txt\n"
            "train: images/train   0 0.5 0.5 0.2 0.4\n"
            "val: images/val       1 0.25 0.5 0.1 0.1\n"
            "names: [cat, dog]"
        ),
    ),
)
