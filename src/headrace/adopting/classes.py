"""What only all records of an adoption together say: the classes and their names, one k of keypoints, ids."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headrace.adopting.scan import Found
from headrace.adopting.schema import Map
from headrace.errors import NotThereError, UsageError
from headrace.format import manifest
from headrace.imaging import geometry
from headrace.place import local
from headrace.record import Reject
from headrace.sources.files import natural

_MOST_CLASSES = 1 << 16  # a class number above it, without names that say otherwise, is something else


@dataclass(frozen=True, slots=True)
class Names:
    """Class names that somebody gives: in index order, or by the numbers that records hold. `where` they are from."""

    names: tuple[str, ...]
    numbers: Mapping[int, str] | None
    where: str


def names_given(given: Sequence[str] | str | os.PathLike[str] | None) -> Names | None:
    """The names that the caller gives, in a sequence or a file. Raises UsageError, NotThereError."""
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if not path.is_file():
            raise NotThereError(f"{path}: no such file of class names")
        return _names_in(path)
    if len(set(given)) != len(given):
        raise UsageError(f"class names {', '.join(given)}: one occurs twice")
    return Names(tuple(given), None, "the call")


def _names_in(path: Path) -> Names:
    """Names of a file: one a line, or a label_map.pbtxt with numbers. Raises UsageError, StorageError."""
    with local.explained(path):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no UTF-8") from None
    if path.suffix != ".pbtxt":
        names = tuple(line for line in text.splitlines() if line)
        if len(set(names)) != len(names):
            raise UsageError(f"{path}: a name occurs twice")
        return Names(names, None, str(path))
    numbers: dict[int, str] = {}
    for item in re.findall(r"item\s*\{(.*?)\n?\s*\}", text, re.DOTALL):
        number = re.search(r"\bid\s*:\s*(\d+)", item)
        name = _quoted(item, "display_name") or _quoted(item, "name")
        if number is None or not name or int(number[1]) in numbers or name in numbers.values():
            raise UsageError(f"{path}: item {len(numbers)} has no id or name of its own: {' '.join(item.split())!r}")
        numbers[int(number[1])] = name
    if not numbers:
        raise UsageError(f"{path}: no 'item {{ id: … name: … }}' in it")
    return Names(tuple(numbers[n] for n in sorted(numbers)), numbers, str(path))


def _quoted(item: str, field: str) -> str | None:
    match = re.search(rf"""\b{field}\s*:\s*(['"])((?:\\.|(?!\1).)*)\1""", item)
    return None if match is None else re.sub(r"\\(.)", r"\1", match[2])


def names_beside(folders: Sequence[Path], key: str | None) -> Names | None:
    """Names of the classes of `key` in a file beside the shards: TensorFlow Datasets', or a label map for boxes."""
    if key is None:
        return None
    labels = [f"{key.replace('/', '-')}.labels.txt", f"{key.replace('/', '.')}.labels.txt"]
    if key.startswith("image/object/"):
        labels += ["objects-label.labels.txt", manifest.LABEL_MAP_FILE]
    for folder in folders:
        for name in labels:
            if (folder / name).is_file() and (folder / name).stat().st_size:
                return _names_in(folder / name)
    return None


class Settled:
    """All records and Rejects in their order; what one record can't know alone is settled here."""

    def __init__(self, pieces: list[Found | Reject], m: Map, notes: list[str]) -> None:
        self.items, self.map, self.notes = pieces, m, notes
        self.classes: tuple[str, ...] = ()
        self.box_classes: tuple[str, ...] = ()
        self.keypoints = 0
        self.keypoint_names: tuple[str, ...] = ()
        self.keypoints_dropped: Counter[str] = Counter()
        self.numbered = False  # whether ids are mere positions
        turned = sum(one.orientation != 1 for one in self.found)
        if turned:
            notes.append(
                f"{turned} images have an EXIF turn: pixels and boxes are used as they are stored, as TensorFlow does"
            )
        others = Counter(one.row.format for one in self.found if one.row.format not in ("jpeg", "png"))
        if others:
            told = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
            notes.append(f"images that other readers may decode differently, or not at all: {told}")

    @property
    def found(self) -> list[Found]:
        return [item for item in self.items if isinstance(item, Found)]

    @property
    def rejects(self) -> list[Reject]:
        return [item for item in self.items if isinstance(item, Reject)]

    def _refuse(self, number: int, reason: str) -> None:
        one = self.items[number]
        assert isinstance(one, Found)
        self.items[number] = Reject(id=one.row.origin, origin=one.row.origin, stage="label", reason=reason)

    def label(self, given: Names | None) -> None:
        """The classes of the images. Raises DataError."""
        m, found = self.map, self.found
        if m.label is None and m.label_text is None:
            return
        for one in found:
            v = one.values
            if v.label == -1:
                v.label = None
            elif m.label is None:
                v.label = v.label_text or None
        if (
            m.boxes
            and m.label == "image/class/label"
            and all(one.values.label in (0, None) and not one.values.label_text for one in found)
        ):
            self.notes.append(
                "every image/class/label is 0 and without a text, as visipedia writes it where an image has "
                "no class: taken as no class"
            )
            return
        texts: dict[int, set[str]] = {}
        for one in found:
            if one.values.label_text and isinstance(one.values.label, int):
                texts.setdefault(one.values.label, set()).add(one.values.label_text)
        counts: Counter[int | str] = Counter(one.values.label for one in found if one.values.label is not None)
        self.classes, index = self._classes(counts, texts, given, m.label_from, m.label or "", "classes")
        for number, item in enumerate(self.items):
            if isinstance(item, Found) and (raw := item.values.label) is not None:
                if raw not in index:
                    self._refuse(number, f"{m.label!r} is {raw!r}: {_wanted(self.classes)}")
                else:
                    item.row.label = index[raw]
                    item.row.label_name = self.classes[item.row.label]

    def label_boxes(self, given: Names | None) -> None:
        """The classes of the boxes."""
        m, found = self.map, self.found
        if m.boxes and self.classes and not any(len(one.kept) for one in found if one.kept is not None):
            self.notes.append("no record has a box: taken as images with a class and nothing said of boxes")
            for one in found:
                one.row.boxes = None
            return
        if not m.boxes or m.box_labels is None:
            return
        counts: Counter[int | str] = Counter()
        texts: dict[int, set[str]] = {}
        pairs: Counter[tuple[int | str, str]] = Counter()
        for one in found:
            raws: Sequence[int | str] = one.values.box_labels or []
            counts.update(raws)
            pairs.update(zip(raws, one.values.box_label_text or (), strict=False))
        for raw, text in pairs:
            if text and isinstance(raw, int):
                texts.setdefault(raw, set()).add(text)
        start = m.box_labels_from
        if start is None and not (given is not None and given.numbers is not None):
            start = 0 if 0 in counts else 1
            self.notes.append(
                f"{m.box_labels} is taken to count classes from {start}, "
                + ("as one is 0" if start == 0 else "as TF Object Detection does, and none is 0")
                + f"; pass map={{'box_labels': '{m.box_labels}:from{1 - start}'}} if they count from {1 - start}"
            )
        if given is not None and given.numbers is not None and start == 0 and m.box_labels == "image/object/bbox/label":
            given = replace(
                given, numbers={n - 1: name for n, name in given.numbers.items()}
            )  # a label map counts from 1
        self.box_classes, index = self._classes(counts, texts, given, start or 0, m.box_labels, "classes of boxes")
        names = self.box_classes
        for number, item in enumerate(self.items):
            if not isinstance(item, Found) or (said := item.values.box_labels) is None:
                continue
            try:
                labels = [index[raw] for raw in said]
            except KeyError as unknown:
                self._refuse(number, f"{m.box_labels!r} is {unknown.args[0]!r}: {_wanted(names)}")
                continue
            assert item.kept is not None
            if item.dropped:
                labels = [label for label, kept in zip(labels, item.kept.tolist(), strict=True) if kept]
            item.row.box_labels, item.row.box_label_names = labels, [names[label] for label in labels]

    def _classes(
        self,
        counts: Counter[Any],
        texts: Mapping[int, set[str]],
        given: Names | None,
        start: int,
        key: str,
        what: str,
    ) -> tuple[tuple[str, ...], dict[int | str, int]]:
        """Names in index order, and which index each number or text that records hold has."""
        numbers = sum(n for raw, n in counts.items() if isinstance(raw, int))
        if numbers * 2 < counts.total():  # texts
            said = sorted((raw for raw in counts if isinstance(raw, str)), key=natural)
            names = tuple(said) if given is None else given.names
            return names, {name: i for i, name in enumerate(names)}
        if given is not None:
            self.notes.append(f"{what}: names from {given.where}")
            by_number = given.numbers or {start + i: name for i, name in enumerate(given.names)}
        else:
            # Numbers far beyond all others' count no classes.
            top = max(
                (raw for raw in counts if isinstance(raw, int) and start <= raw < start + _MOST_CLASSES), default=-1
            )
            by_number = {n: min(texts.get(n, ()), default=str(n)) for n in range(start, top + 1)}
            several = sorted(n for n, names in texts.items() if len(names) > 1)
            if several or len(set(by_number.values())) < len(by_number):
                by_number = {n: str(n) for n in by_number}
                self.notes.append(f"{what}: texts and numbers of {key} don't agree; the numbers are their names")
        ordered = sorted(by_number)
        return tuple(by_number[n] for n in ordered), {n: i for i, n in enumerate(ordered)}

    def arrange_keypoints(self, names: Sequence[str]) -> None:
        """Keypoints of a record by its boxes, float32 [n, k, 3], with one k for all records. `names`: of one object's
        points, or of several objects' one after the other."""
        if not self.map.keypoints:
            return
        counts: Counter[int] = Counter()
        for one in self.found:
            points, n = one.values.keypoints, 1 if one.kept is None else len(one.kept)
            if points is not None and n and len(points) and not len(points) % n:
                counts[len(points) // n] += n
        if not counts:
            return
        self.keypoints = k = max(counts, key=lambda k: (counts[k], k))
        first = tuple(names[:k])
        if len(set(first)) == k and tuple(names) == first * (len(names) // k):
            self.keypoint_names = first
        elif names:
            self.notes.append(f"an object has {k} keypoints, which {len(names)} names don't fit: they are left out")
        for number, item in enumerate(self.items):
            if not isinstance(item, Found) or (points := item.values.keypoints) is None:
                continue
            n = (1 if len(points) else 0) if item.kept is None else len(item.kept)
            if len(points) not in (0, n * k):
                self._refuse(number, f"{len(points)} keypoints of {n} objects, wanted {k} of each")
                continue
            sets = points.reshape(-1, k, 3) if len(points) else np.zeros((n, k, 3), np.float32)
            inside = geometry.cut_points(sets, np.array([0, 0, item.row.width, item.row.height], np.float32))
            left = inside if item.kept is None else inside[item.kept]
            self.keypoints_dropped["outside of the image"] += int((sets[..., 2] > 0).sum() - (inside[..., 2] > 0).sum())
            self.keypoints_dropped["of dropped boxes"] += int((inside[..., 2] > 0).sum() - (left[..., 2] > 0).sum())
            item.row.keypoints = left

    def identify(self) -> None:
        """Ids that are there, and unique: what has none, or another's, is called by its file and number."""
        seen: set[str] = set()
        named = again = 0
        for one in self.found:
            row = one.row
            if not row.id:
                row.id, named = row.origin, named + 1
            elif row.id in seen:
                row.id, again = f"{row.id} ({row.origin})", again + 1
            while row.id in seen:
                row.id += "'"
            seen.add(row.id)
        self.numbered = bool(named) and named == len(seen)
        if named:
            self.notes.append(f"{named} records say no id: it is their file and number")
        if again:
            self.notes.append(f"{again} records have an id that another one has: their file and number stand behind it")


def _wanted(classes: Sequence[str]) -> str:
    return f"none of the {len(classes)} classes"
