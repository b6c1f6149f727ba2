"""What only all records of an adoption together say: the classes and their names, one k of keypoints, ids.

Plain functions over the columns of each file; what they are given they leave as it is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, text_format
from numpy.typing import NDArray

from headrace import order
from headrace.adopting.mapping import Map
from headrace.adopting.scan import Columns, Said
from headrace.errors import NotThereError, StorageError, UsageError
from headrace.format import manifest
from headrace.format.messages import message_class
from headrace.imaging import geometry
from headrace.place import local
from headrace.place.address import Place, located
from headrace.place.open import at
from headrace.record import check_names
from headrace.sources.walking import natural

_MOST_BYTES = 1 << 26  # of a file of names
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
        path = located(given)
        if isinstance(path, Path) and not path.is_file():
            raise NotThereError(f"{path}: no such file of class names")
        return _names_in(at(path.parent), path.name)
    return Names(check_names(given, "class names"), None, "the call")


def _names_in(place: Place, name: str) -> Names:
    """Names of a file: one a line, or a label_map.pbtxt with numbers. Raises UsageError, StorageError."""
    path = place.address(name)
    with local.explained(path):
        data = place.content(name, _MOST_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is no UTF-8") from None
    if not path.endswith(".pbtxt"):
        lines = text.replace("\r\n", "\n").split("\n")  # a name may hold what str.splitlines() takes for a line's end
        names = tuple(line for line in lines if line)
        if len(set(names)) != len(names):
            raise UsageError(f"{path}: a name occurs twice")
        return Names(names, None, path)
    numbers: dict[int, str] = {}
    for i, item in enumerate(_label_map(path, text)):
        name = item.display_name or item.name
        if not name or item.id in numbers or name in numbers.values() or not item.HasField("id") or item.id < 0:
            found = text_format.MessageToString(item, as_one_line=True, as_utf8=True)
            raise UsageError(f"{path}: item {i} has no id (from 0) or no name of its own: {{ {found} }}")
        numbers[item.id] = name
    if not numbers:
        raise UsageError(f"{path}: no 'item {{ id: … name: … }}' in it")
    return Names(tuple(numbers[n] for n in sorted(numbers)), numbers, path)


def _label_map(path: str, text: str) -> Sequence[Any]:
    """The items of a label map of the TF Object Detection API: `name`, `id`, `display_name` of each. Raises UsageError.

    What else items hold (keypoints, ancestors, frequencies) is passed over, whatever fields it has.
    """
    read = _label_map_class()()
    try:
        text_format.Parse(text, read, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError) as error:
        why = str(error) if isinstance(error, text_format.ParseError) else "braces lie too deep in one another"
        raise UsageError(f"{path}: {why}; no label map, wanted 'item {{ id: … name: … }}'") from None
    items: Sequence[Any] = read.item
    return items


@cache
def _label_map_class() -> Any:
    """string_int_label_map.proto, as far as it is read here; in a pool of its own, beside which TF's may be loaded."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="headrace/label_map.proto", package="headrace", syntax="proto2")
    item = file.message_type.add(name="Item")
    for number, (name, kind) in enumerate(
        (("name", types.TYPE_STRING), ("id", types.TYPE_INT64), ("display_name", types.TYPE_STRING)), start=1
    ):
        item.field.add(name=name, number=number, label=types.LABEL_OPTIONAL, type=kind)
    file.message_type.add(name="LabelMap").field.add(
        name="item", number=1, label=types.LABEL_REPEATED, type=types.TYPE_MESSAGE, type_name=".headrace.Item"
    )
    return message_class(file, "LabelMap")


def names_beside(folders: Sequence[Place], key: str | None) -> Names | None:
    """Names of the classes of `key` in a file beside the shards: TensorFlow Datasets', or a label map for boxes."""
    if key is None:
        return None
    labels = [f"{key.replace('/', '-')}.labels.txt", f"{key.replace('/', '.')}.labels.txt"]
    if key.startswith("image/object/"):
        labels += ["objects-label.labels.txt", manifest.LABEL_MAP_FILE]
    for folder in folders:
        for name in labels:
            try:
                size = folder.size(name)
            except (StorageError, NotThereError):
                continue
            if size:
                return _names_in(folder, name)
    return None


_NONE, _REFUSED = -1, -2


@dataclass(frozen=True, slots=True)
class Classes:
    """Class names in index order, and which class each thing that records say is, int32 [v] by its number: its index,
    -1 for none, -2 where it is none of the classes. `said` as it is looked for; `notes` for people."""

    names: tuple[str, ...]
    index: NDArray[np.int32]
    said: tuple[int | str | None, ...]
    notes: tuple[str, ...] = ()

    def refusal(self, number: int, key: str | None) -> str:
        """Why a record is refused that says what has this number."""
        return f"{key!r} is {self.said[number]!r}: none of the {len(self.names)} classes"


def count(numbers: Sequence[NDArray[np.int32]], said: Sequence[Said]) -> NDArray[np.int64]:
    """How often each thing is said, int64 [v], in arrays of their numbers."""
    counts = np.zeros(len(said), np.int64)
    for some in numbers:
        counts += np.bincount(some, minlength=len(said))
    return counts


def of_images(said: Sequence[Said], counts: NDArray[np.int64], m: Map, given: Names | None) -> Classes:
    """The classes of the images. -1 and an empty text are none."""
    raws: list[int | str | None] = []
    for raw, text in said:
        raws.append(None if raw == -1 else (text or None) if m.label is None else raw)
    heard = [(raw, text) for (raw, (_, text)), n in zip(zip(raws, said, strict=True), counts, strict=True) if n]
    if m.label is None and m.label_text is None:
        return _no_classes(said)
    if m.boxes and m.label == "image/class/label" and all(raw in (0, None) and not text for raw, text in heard):
        note = (
            "every image/class/label is 0 and without a text, as visipedia writes it where an image has no class: "
            "taken as no class"
        )
        return replace(_no_classes(said), notes=(note,))
    return _classes(raws, said, counts, given, m.label_from, m.label or "", "classes")


def of_boxes(said: Sequence[Said], counts: NDArray[np.int64], m: Map, given: Names | None) -> Classes:
    """The classes of the boxes. Where a map doesn't say from which number they count, they tell."""
    if m.box_labels is None:
        return _no_classes(said)
    raws = [raw for raw, _ in said]
    start, notes = m.box_labels_from, []
    if start is None and not (given is not None and given.numbers is not None):
        start = 0 if any(raw == 0 and n for raw, n in zip(raws, counts, strict=True)) else 1
        notes.append(
            f"{m.box_labels} is taken to count classes from {start}, "
            + ("as one is 0" if start == 0 else "as TF Object Detection does, and none is 0")
            + f"; pass map={{'box_labels': '{m.box_labels}:from{1 - start}'}} if they count from {1 - start}"
        )
    if given is not None and given.numbers is not None and start == 0 and m.box_labels == "image/object/bbox/label":
        # A label map counts from 1.
        given = replace(given, numbers={n - 1: name for n, name in given.numbers.items()})
    made = _classes(raws, said, counts, given, start or 0, m.box_labels, "classes of boxes")
    return replace(made, notes=(*notes, *made.notes))


def _no_classes(said: Sequence[Said]) -> Classes:
    return Classes((), np.full(len(said), _NONE, np.int32), tuple(raw for raw, _ in said))


def _classes(
    raws: Sequence[int | str | None],
    said: Sequence[Said],
    counts: NDArray[np.int64],
    given: Names | None,
    start: int,
    key: str,
    what: str,
) -> Classes:
    heard: Counter[int | str] = Counter()
    texts: dict[int, set[str]] = {}
    for raw, (_, text), n in zip(raws, said, counts.tolist(), strict=True):
        if raw is not None and n:
            heard[raw] += n
            if isinstance(raw, int) and text:
                texts.setdefault(raw, set()).add(text)
    names, of, notes = _named(heard, texts, given, start, key, what)
    index = [_NONE if raw is None else of.get(raw, _REFUSED) for raw in raws]
    return Classes(names, np.array(index, np.int32), tuple(raws), notes)


def _named(
    heard: Counter[Any], texts: Mapping[int, set[str]], given: Names | None, start: int, key: str, what: str
) -> tuple[tuple[str, ...], dict[int | str, int], tuple[str, ...]]:
    """Names in index order, which index each number or text that records say has, and notes."""
    notes: list[str] = []
    numbers = sum(n for raw, n in heard.items() if isinstance(raw, int))
    if numbers * 2 < heard.total():  # texts
        ordered = sorted((raw for raw in heard if isinstance(raw, str)), key=natural)
        names = tuple(ordered) if given is None else given.names
        return names, {name: i for i, name in enumerate(names)}, ()
    if given is not None:
        notes.append(f"{what}: names from {given.where}")
        by_number = given.numbers or {start + i: name for i, name in enumerate(given.names)}
    else:
        # Numbers far beyond all others' count no classes.
        top = max((raw for raw in heard if isinstance(raw, int) and start <= raw < start + _MOST_CLASSES), default=-1)
        by_number = {n: min(texts.get(n, ()), default=str(n)) for n in range(start, top + 1)}
        several = any(len(some) > 1 for some in texts.values())
        if several or len(set(by_number.values())) < len(by_number):
            by_number = {n: str(n) for n in by_number}
            notes.append(f"{what}: texts and numbers of {key} don't agree; the numbers are their names")
    in_order = sorted(by_number)
    return tuple(by_number[n] for n in in_order), {n: i for i, n in enumerate(in_order)}, tuple(notes)


def keypoints_per_object(files: Sequence[Columns], *, boxed: bool) -> int:
    """How many keypoints an object has: as most objects have; 0 where there are none. `boxed`: objects are boxes."""
    votes: Counter[int] = Counter()
    for columns in files:
        points = columns.keypoint_counts.astype(np.int64)
        objects = columns.box_counts.astype(np.int64) if boxed else np.ones(len(columns), np.int64)
        fit = (points > 0) & (objects > 0)
        fit[fit] = points[fit] % objects[fit] == 0
        for k, n in zip((points[fit] // objects[fit]).tolist(), objects[fit].tolist(), strict=True):
            votes[k] += n
    return max(votes, key=lambda k: (votes[k], k), default=0)


def keypoint_names(names: Sequence[str], k: int) -> tuple[tuple[str, ...], str | None]:
    """The names of an object's `k` points, of `names` of one object's or of several objects' one after the other; none
    where they don't fit, and a note that says so."""
    first = tuple(names[:k])
    if k and len(set(first)) == k and tuple(names) == first * (len(names) // k):
        return first, None
    return (), f"an object has {k} keypoints, which {len(names)} names don't fit: they are left out" if names else None


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Sets of keypoints float32 [s, k, 3] in their images, one of each object that is kept, how many sets each row has,
    int32 [n], of which rows anything is said, bool [n], and reason -> labelled keypoints left out."""

    sets: NDArray[np.float32]
    counts: NDArray[np.int32]
    says: NDArray[np.bool_]
    dropped: Counter[str]


def misfits(columns: Columns, k: int, *, boxed: bool) -> NDArray[np.bool_]:
    """The rows bool [n] whose keypoints are no `k` of each object."""
    points = columns.keypoint_counts
    wrong: NDArray[np.bool_] = (points > 0) & (points != _objects(columns, boxed=boxed) * k)
    return wrong


def arranged(columns: Columns, k: int, *, boxed: bool) -> Keypoints:
    """The keypoints of rows that fit (see misfits), by their objects: cut to the image, and dropped with their box."""
    says = columns.keypoint_counts >= 0
    objects = np.where(says, _objects(columns, boxed=boxed), 0)
    sets = np.zeros((int(objects.sum()), k, 3), np.float32)
    sets[np.repeat(columns.keypoint_counts > 0, objects)] = columns.keypoints.reshape(-1, k, 3)
    sizes = np.stack([columns.where["width"], columns.where["height"]], axis=1).astype(np.float32)
    inside = geometry.cut_points(sets, np.repeat(np.hstack([np.zeros_like(sizes), sizes]), objects, axis=0))
    kept = (columns.faults == 0)[columns.of_boxes(says)] if boxed else np.ones(len(sets), bool)
    of = np.repeat(np.arange(len(columns)), objects)
    dropped = Counter(
        {"outside of the image": _labelled(sets) - _labelled(inside), "of dropped boxes": _labelled(inside[~kept])}
    )
    counts = np.bincount(of[kept], minlength=len(columns)).astype(np.int32)
    return Keypoints(inside[kept], counts, says, +dropped)


def _objects(columns: Columns, *, boxed: bool) -> NDArray[np.int32]:
    """How many objects each row has, int32 [n]: its boxes, or the one whose keypoints they are."""
    return columns.box_counts if boxed else (columns.keypoint_counts > 0).astype(np.int32)


def _labelled(points: NDArray[np.float32]) -> int:
    return int((points[..., 2] > 0).sum())


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of each file's rows, that occur once, and their keys; whether all are mere positions."""

    ids: tuple[NDArray[np.object_], ...]
    keys: tuple[NDArray[np.uint64], ...]
    numbered: bool
    notes: tuple[str, ...]


def identified(ids: Sequence[NDArray[np.object_]], records: Sequence[NDArray[Any]], called: Sequence[str]) -> Ids:
    """Ids that are there, and unique: what has none, or another's, is called by its file and the number of its record,
    of `records` [n] of the file that is `called` so."""
    made, named, again = [], 0, 0
    for some, numbers, file in zip(ids, records, called, strict=True):
        some = some.copy()
        for i in np.flatnonzero(some == "").tolist():
            some[i], named = f"{file}:{numbers[i]}", named + 1
        made.append(some)
    keys = [order.keys_of(some) for some in made]
    if order.repeated(np.concatenate(keys)).any():
        seen: set[str] = set()
        for some, said, numbers, file in zip(made, ids, records, called, strict=True):
            for i, id_ in enumerate(some.tolist()):
                if id_ in seen:
                    if said[i]:
                        id_, again = f"{id_} ({file}:{numbers[i]})", again + 1
                    while id_ in seen:
                        id_ += "'"
                    some[i] = id_
                seen.add(id_)
        keys = [order.keys_of(some) for some in made]
    notes = []
    if named:
        notes.append(f"{named} records say no id: it is their file and number")
    if again:
        notes.append(f"{again} records have an id that another one has: their file and number stand behind it")
    return Ids(tuple(made), tuple(keys), bool(named) and named == sum(map(len, ids)), tuple(notes))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was refused for what others say: its file's and its own number, and why."""

    file: int
    record: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """All records that can be used, file by file, and what they are together. `box_classes` None: nothing is said of
    boxes; `keypoints`: of an object, 0 where there are none, and then `sets` is empty."""

    files: tuple[Columns, ...]
    classes: Classes
    box_classes: Classes | None
    keypoints: int
    keypoint_names: tuple[str, ...]
    sets: tuple[Keypoints, ...]
    ids: Ids
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]


def settled(
    files: Sequence[Columns],
    called: Sequence[str],
    said: Sequence[Said],
    box_said: Sequence[Said],
    m: Map,
    *,
    names: Names | None,
    box_names: Names | None,
    point_names: Sequence[str],
) -> Whole:
    """What is in the columns of each file, which is `called` so in ids. What was `said` of classes, by its numbers."""
    refusals: list[Refusal] = []
    notes: list[str] = []

    def refuse(number: int, columns: Columns, rows: NDArray[np.int64], reasons: Sequence[str]) -> Columns:
        """The columns without these rows."""
        records = columns.where["record"][rows].tolist()
        refusals.extend(Refusal(number, record, why) for record, why in zip(records, reasons, strict=True))
        left = np.ones(len(columns), bool)
        left[rows] = False
        return columns.taken(left) if len(rows) else columns

    classes = of_images(said, count([columns.labels for columns in files], said), m, names)
    notes += classes.notes
    left = []
    for number, columns in enumerate(files):
        rows = np.flatnonzero(classes.index[columns.labels] == _REFUSED)
        left.append(
            refuse(number, columns, rows, [classes.refusal(at, m.label) for at in columns.labels[rows].tolist()])
        )
    box_classes: Classes | None = None
    if m.boxes and classes.names and not any((columns.faults == 0).any() for columns in left):
        notes.append("no record has a box: taken as images with a class and nothing said of boxes")
    elif m.boxes:
        labelled = [columns.box_labels[columns.of_boxes(columns.says_labels)] for columns in left]
        box_classes = of_boxes(box_said, count(labelled, box_said), m, box_names)
        notes += box_classes.notes
        for number, columns in enumerate(left):
            wrong = (box_classes.index[columns.box_labels] == _REFUSED) & columns.of_boxes(columns.says_labels)
            rows, at = np.unique(columns.of_boxes(np.arange(len(columns)))[wrong], return_index=True)
            reasons = [box_classes.refusal(one, m.box_labels) for one in columns.box_labels[wrong][at].tolist()]
            left[number] = refuse(number, columns, rows, reasons)
    boxed = bool(m.boxes)
    k = keypoints_per_object(left, boxed=boxed) if m.keypoints else 0
    sets: list[Keypoints] = []
    known, note = keypoint_names(point_names, k) if k else ((), None)
    notes += [] if note is None else [note]
    for number, columns in enumerate(left if k else ()):
        rows = np.flatnonzero(misfits(columns, k, boxed=boxed))
        found = zip(columns.keypoint_counts[rows].tolist(), _objects(columns, boxed=boxed)[rows].tolist(), strict=True)
        reasons = [f"{points} keypoints of {objects} objects, wanted {k} of each" for points, objects in found]
        left[number] = refuse(number, columns, rows, reasons)
        sets.append(arranged(left[number], k, boxed=boxed))
    ids = identified([columns.ids for columns in left], [columns.where["record"] for columns in left], called)
    return Whole(
        files=tuple(left),
        classes=classes,
        box_classes=box_classes,
        keypoints=k,
        keypoint_names=known,
        sets=tuple(sets),
        ids=ids,
        refusals=tuple(refusals),
        notes=(*notes, *ids.notes),
    )
