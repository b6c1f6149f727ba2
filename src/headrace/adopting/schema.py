"""What records that someone else wrote hold: their keys as a table, the layouts that are known, and what a key means.

Reading the values of a record by such a map is here too; where the records come from is left to adopt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.format import example
from headrace.imaging import codec

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64", None: "none"}
_SHOWN = 24  # characters of an example value


class BadValue(ValueError):
    """A record whose values can't be what the map says they are. Becomes a Reject."""


# --- the schema ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Key:
    """What was seen of one key: its kind, in how many records, how many values it has, and one of them.

    `images`: how many of its values begin as an image file does. `numbers`, `texts`: some of its values.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    records: int = 0
    low: int = 1 << 62
    high: int = 0
    example: str = ""
    images: int = 0
    image_format: str = ""
    numbers: list[float] = field(default_factory=list)
    texts: tuple[bytes, ...] = ()

    @property
    def kind(self) -> str:
        """The kind it has most often; an empty list's counts little, as some writers get it wrong."""
        return max(self.kinds, key=self.kinds.__getitem__)

    @property
    def is_image(self) -> bool:
        return self.images * 2 > self.records

    @property
    def is_empty(self) -> bool:
        """Whether no record has a value of it but empty bytes."""
        return self.kind == "bytes" and self.example in ("", "''")

    @property
    def is_text(self) -> bool:
        return self.kind == "bytes" and not self.images and self.example.startswith("'")


@dataclass(slots=True)
class Schema:
    """The keys of the `records` that were looked at, by name. `no_example`: how many were no tf.train.Example."""

    keys: dict[str, Key] = field(default_factory=dict)
    records: int = 0
    no_example: int = 0

    def has(self, key: str, *kinds: str) -> bool:
        return key in self.keys and (not kinds or self.keys[key].kind in kinds)

    def table(self) -> str:
        """The schema for people: key, kind, values per record, in how many records, an example."""
        rows = [("key", "kind", "values", "records", "example")]
        for name in sorted(self.keys):
            key = self.keys[name]
            values = str(key.low) if key.low == key.high else f"{key.low} to {key.high}"
            kind = " or ".join(sorted(key.kinds, key=lambda kind: (-key.kinds[kind], kind)))
            kind += f", {key.image_format} image" if key.is_image else ""
            rows.append((name, kind, values, f"{key.records} of {self.records}", key.example))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]) for row in rows]
        lines.insert(1, "-" * max(map(len, lines)))
        if self.no_example:
            lines.append(f"{self.no_example} of {self.records} records are no tf.train.Example")
        return "\n".join(f"  {line.rstrip()}" for line in lines)


def look(payloads: Iterable[bytes]) -> Schema:
    """The schema of these records."""
    schema = Schema()
    for payload in payloads:
        schema.records += 1
        try:
            features = example.parse(payload)
        except ValueError:
            schema.no_example += 1
            continue
        for name, values in features.items():
            key = schema.keys.setdefault(name, Key())
            key.kinds[_kind(values)] += 1000 if values else 1
            key.records += 1
            key.low, key.high = min(key.low, len(values)), max(key.high, len(values))
            if not values:
                continue
            first = values[0]
            if not isinstance(first, bytes):
                key.numbers += [float(v) for v in values[:64] if not isinstance(v, bytes)]
            elif (found := codec.sniff(first)) is not None:
                key.images += 1
                key.image_format = found
            if not key.example:
                key.example = _shown(values)
                if isinstance(values, example.Strings) and len(values) > 1:
                    key.texts = tuple(values)
    return schema


def _kind(values: example.Feature) -> str:
    if isinstance(values, example.Strings):
        return "bytes"
    return "float" if isinstance(values, example.Floats) else "int64"


def _shown(values: example.Feature) -> str:
    first = values[0]
    if isinstance(first, bytes):
        if codec.sniff(first) is None:
            try:
                text = repr(first.decode())
                return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…'"
            except UnicodeDecodeError:
                pass
        return f"{len(first)} bytes, {first[:4].hex(' ')} …"
    shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:3])
    return shown + (", …" if len(values) > 3 else "")


# --- the map ---------------------------------------------------------------------------------------------------------

Order = Literal["xyxy", "yxyx", "xywh"]
_ORDERS = ("xyxy", "yxyx", "xywh")
_UNITS = ("pixels", "normalised")
_BASES = {"from0": 0, "from1": 1}
FIELDS = {
    "image": "the encoded image",
    "file": "the name of the image's file, in the folder images",
    "id": "what tells records apart",
    "label": "the class, a number or a text",
    "label_text": "the class's name beside its number",
    "boxes": "one key of 4 numbers per box, or xmin,ymin,xmax,ymax keys",
    "box_labels": "class numbers or texts of the boxes",
    "box_label_text": "names beside the numbers",
    "keypoints": "one key of x, y, v triples, or x,y or x,y,v keys",
    "keypoint_text": "the names of the keypoints",
}
_FLAGS: dict[str, tuple[str, ...]] = {
    "boxes": (*_ORDERS, *_UNITS),
    "keypoints": _UNITS,
    "label": tuple(_BASES),
    "box_labels": tuple(_BASES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """Which key of a record is what; None for nothing. The keys of FIELDS, and how numbers are meant:

    `label_from`, `box_labels_from`: the number of the first class, None where it is not known yet (0 if one is 0, else
    1). `box_order`: of the four numbers of a box in one key. `box_pixels`, `keypoint_pixels`: else they are 0-1.
    """

    image: str | None = None
    file: str | None = None
    id: str | None = None
    label: str | None = None
    label_text: str | None = None
    boxes: tuple[str, ...] = ()
    box_labels: str | None = None
    box_label_text: str | None = None
    keypoints: tuple[str, ...] = ()
    keypoint_text: str | None = None
    label_from: int = 0
    box_labels_from: int | None = 0
    box_order: Order = "xyxy"
    box_pixels: bool = False
    keypoint_pixels: bool = False

    @property
    def keys(self) -> dict[str, str]:
        """Field -> key, as `map` takes it, for each field that has one."""
        raw = asdict(self)
        out = {name: ",".join(raw[name]) if isinstance(raw[name], tuple) else raw[name] for name in FIELDS if raw[name]}
        if len(self.boxes) == 1:
            out["boxes"] += f":{self.box_order}"
        if self.boxes and self.box_pixels:
            out["boxes"] += ":pixels"
        if self.keypoints and self.keypoint_pixels:
            out["keypoints"] += ":pixels"
        if self.label and self.label_from:
            out["label"] += f":from{self.label_from}"
        if self.box_labels and self.box_labels_from is not None:
            out["box_labels"] += f":from{self.box_labels_from}"
        return out


def with_given(base: Map, given: Mapping[str, str], schema: Schema) -> Map:
    """`base` with the fields that someone names: {"boxes": "objects/bbox:yxyx"}; an empty key takes a field away.

    Raises UsageError: an unknown field or word, a key that no record has, or the wrong number of keys.
    """
    made = base
    for name, value in given.items():
        if name not in FIELDS:
            fields = "\n".join(f"  {field:15} {what}" for field, what in FIELDS.items())
            raise UsageError(f"map={{{name!r}: {value!r}}}: the fields are\n{fields}")
        flags: list[str] = []
        while value not in schema.keys and value.rpartition(":")[2] in _FLAGS.get(name, ()):
            value, _, flag = value.rpartition(":")
            flags.append(flag)
        keys = (value,) if value in schema.keys else tuple(filter(None, value.split(",")))
        for key in keys:
            if key not in schema.keys:
                words = f"; after a ':' it takes {', '.join(_FLAGS[name])}" if ":" in key and name in _FLAGS else ""
                raise UsageError(
                    f"map={{{name!r}: {value!r}}}: no record looked at has the key {key!r}{words}\n{schema.table()}"
                )
        wanted = {"boxes": (0, 1, 4), "keypoints": (0, 1, 2, 3)}.get(name, (0, 1))
        if len(keys) not in wanted:
            raise UsageError(
                f"map={{{name!r}: {value!r}}}: {len(keys)} keys, wanted {' or '.join(map(str, wanted[1:]))}"
            )
        if name in ("boxes", "keypoints"):
            made = replace(made, **{name: keys})  # type: ignore[arg-type]
        else:
            made = replace(made, **{name: keys[0] if keys else None})  # type: ignore[arg-type]
        if name == "boxes":
            order: Any = next((f for f in flags if f in _ORDERS), "yxyx" if len(keys) == 1 else "xyxy")
            made = replace(made, box_order=order, box_pixels="pixels" in flags)
        elif name == "keypoints":
            made = replace(made, keypoint_pixels="pixels" in flags)
        elif name in ("label", "box_labels"):
            made = replace(made, **{f"{name}_from": _BASES[flags[0]] if flags else 0})  # type: ignore[arg-type]
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A layout that was recognised: its name, its map, and what had to be assumed. `folder` has its side files."""

    name: str
    map: Map
    notes: tuple[str, ...] = ()


def recognise(schema: Schema, folders: Sequence[Path]) -> Layout | None:
    """The known layout that these keys are, with the help of a features.json in one of `folders`; None for none."""
    has = schema.has
    if has("image/encoded", "bytes") or (has("image/filename", "bytes") and has("image/width", "int64")):
        return _image_encoded(schema)
    for folder in folders:
        found = _from_features_json(folder / "features.json", schema)
        if found is not None:
            return found
    if not (has("image", "bytes") and schema.keys["image"].is_image):
        return None
    label = next((key for key in ("label", "class") if has(key, "int64", "bytes")), None)
    boxes = ("objects/bbox",) if has("objects/bbox", "float") else ()
    if label is None and not boxes:
        return None
    name = "TensorFlow Datasets" if label != "class" else "image and class"
    return Layout(
        name=f"{name}, detection" if boxes else name,
        map=Map(
            image="image",
            id=_first(schema, "image/filename", "image/id", "filename", "id"),
            label=label,
            boxes=boxes,
            box_order="yxyx",
            box_labels="objects/label" if boxes and has("objects/label", "int64") else None,
        ),
    )


def _first(schema: Schema, *keys: str) -> str | None:
    return next((key for key in keys if schema.has(key, "bytes", "int64")), None)


def _image_encoded(schema: Schema) -> Layout:
    """visipedia's keys, the TF Object Detection API's, and the few of them that most others write."""
    has = schema.has
    corners = tuple(f"image/object/bbox/{name}" for name in ("xmin", "ymin", "xmax", "ymax"))
    boxes = corners if all(has(key) for key in corners) else ()
    notes: list[str] = []
    box_labels, text, start = None, None, 0
    first: int | None = 0
    name = "image/encoded"
    if has("image/object/bbox/label", "int64"):
        name, box_labels = "visipedia", "image/object/bbox/label"
        text = _text_key(schema, "image/object/bbox/text", "image/object/class/text")
        notes.append("image/object/bbox/label counts classes from 0, as visipedia writes it")
    elif boxes or has("image/object/class/label"):
        name = "TF Object Detection"
        text = _text_key(schema, "image/object/class/text")
        if has("image/object/class/label", "int64"):
            box_labels, first = "image/object/class/label", None
        elif text is not None:
            box_labels, text = text, None
    points: tuple[str, ...] = ()
    for keys in (
        ("image/object/keypoint/x", "image/object/keypoint/y", "image/object/keypoint/visibility"),
        ("image/object/parts/x", "image/object/parts/y", "image/object/parts/v"),
    ):
        if not points and has(keys[0], "float") and has(keys[1], "float"):
            points = keys if has(keys[2], "int64") else keys[:2]
    return Layout(
        name=name,
        map=Map(
            image="image/encoded" if has("image/encoded") else None,
            file="image/filename" if has("image/filename", "bytes") else None,
            id=_first(schema, "image/id", "image/filename", "image/source_id"),
            label="image/class/label" if has("image/class/label", "int64", "bytes") else None,
            label_text="image/class/text" if has("image/class/text", "bytes") else None,
            boxes=boxes,
            box_labels=box_labels if boxes else None,
            box_label_text=text if boxes else None,
            keypoints=points,
            keypoint_text="image/object/keypoint/text" if has("image/object/keypoint/text", "bytes") else None,
            box_labels_from=first,
            label_from=start,
        ),
        notes=tuple(notes) if boxes else (),
    )


def _text_key(schema: Schema, *keys: str) -> str | None:
    """The first of these keys with a text in any record."""
    return next((key for key in keys if schema.has(key, "bytes") and schema.keys[key].high), None)


_BBOX_FORMAT = re.compile(r"(REL|ABS)_(XYXY|YXYX|XYWH)")


def _from_features_json(path: Path, schema: Schema) -> Layout | None:
    """What a features.json of TensorFlow Datasets says, where its image is one of the keys. Raises UsageError."""
    try:
        root = json.loads(path.read_bytes())
        features = list(_leaves(root, ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    image = next((key for key, kind, _, many in features if kind == "Image" and not many and key in schema.keys), None)
    if image is None:
        return None
    label = next((key for key, kind, _, many in features if kind == "ClassLabel" and not many), None)
    box = next(((key, body) for key, kind, body, many in features if kind == "BBoxFeature" and many), None)
    made = Map(image=image, label=label, id=_first(schema, "image/filename", "image/id", "filename", "file_name", "id"))
    if box is not None:
        key, body = box
        given = str(body.get("boundingBox", {}).get("bboxFormat", "REL_YXYX"))
        match = _BBOX_FORMAT.fullmatch(given)
        if match is None:
            raise UsageError(
                f"{path}: boxes are {given}, which is not known here; pass map={{'boxes': 'KEY:xyxy'}} or the like"
            )
        inside = key.rpartition("/")[0] + "/"
        order: Any = match[2].lower()
        made = replace(
            made,
            boxes=(key,),
            box_order=order,
            box_pixels=match[1] == "ABS",
            box_labels=next(
                (k for k, kind, _, many in features if kind == "ClassLabel" and many and k.startswith(inside)), None
            ),
        )
    return Layout(
        name="TensorFlow Datasets" + (", detection" if box else ""), map=made, notes=(f"keys as {path} says",)
    )


def _leaves(feature: Mapping[str, Any], path: str, many: bool = False) -> Iterable[tuple[str, str, Any, bool]]:
    """(key, class, body, whether it is in a sequence) of each feature that is no container."""
    kind = feature["pythonClassName"].rpartition(".")[2]
    if kind == "FeaturesDict":
        for name, inner in feature["featuresDict"]["features"].items():
            yield from _leaves(inner, f"{path}/{name}" if path else name, many)
    elif kind == "Sequence":
        yield from _leaves(feature["sequence"]["feature"], path, True)
    else:
        yield path, kind, feature, many


# --- values of a record ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Values:
    """What a record says by its map, as it says it; None where nothing is said.

    `image_offset`: where the image's bytes are in the payload. `label`: a number or a text. `boxes`: the numbers of
    each key of the map, in the record's own order and unit; they keep the whole message in memory. `keypoints` float32
    [m, 3] of all objects together.
    """

    image: bytes | None
    image_offset: int
    file: str | None
    id: str
    label: int | str | None
    label_text: str
    boxes: tuple[Sequence[float], ...] | None
    box_labels: list[int] | list[str] | None
    box_label_text: list[str] | None
    keypoints: NDArray[np.float32] | None


class Reader:
    """Reads records by a map. `late`: keys that occurred and are not among the `known`."""

    def __init__(self, map: Map, known: Iterable[str] = ()) -> None:
        self.map = map
        self.image_key = None if map.image is None else map.image.encode()
        self.known = frozenset(known)
        self.late: set[str] = set()
        self._counts: set[int] = set()  # a look at the number of keys is cheap, at all of them is not

    def read(self, payload: bytes) -> Values:
        """What the record says. Raises BadValue: no Example, a wrong kind, or lists whose lengths contradict."""
        image_at = None
        try:
            cut = None if self.image_key is None else example.message_without(payload, self.image_key)
            if cut is None:
                features = example.message(payload)
            else:
                features, begin, length = cut
                image_at = begin, begin + length
        except ValueError as error:
            raise BadValue(str(error)) from error
        if len(features) not in self._counts:
            self.late |= set(features) - self.known
            self._counts.add(len(features))
        m = self.map
        boxes = None
        box_labels: list[int] | list[str] | None = None
        names: list[str] | None = None
        if m.boxes:
            boxes = tuple([_numbers(features, key) for key in m.boxes])
            box_labels, names = self._box_labels(features, _count(boxes, m))
        image, offset = None, 0
        if image_at is not None:
            image, offset = payload[slice(*image_at)], image_at[0]
        elif m.image is not None:
            found = _strings(features, m.image)
            if len(found) > 1:
                raise BadValue(f"{m.image!r} has {len(found)} values, wanted one image")
            image = found[0] if found and found[0] else None
            offset = 0 if image is None else _index(payload, image)
        return Values(
            image=image,
            image_offset=offset,
            file=None if m.file is None else _text(features, m.file),
            id="" if m.id is None else _text(features, m.id),
            label=None if m.label is None else _label(features, m.label),
            label_text="" if m.label_text is None else _text(features, m.label_text),
            boxes=boxes,
            box_labels=box_labels,
            box_label_text=names,
            keypoints=_keypoints(features, m) if m.keypoints else None,
        )

    def _box_labels(self, features: Mapping[str, Any], n: int) -> tuple[list[int] | list[str] | None, list[str] | None]:
        m = self.map
        if m.box_labels is None:
            return None, None
        labels: Any = _either(features, m.box_labels)
        if n and all(label == -1 for label in labels):  # none, or as our own packer writes none for TFDS
            return None, None
        if len(labels) != n:
            raise BadValue(f"{n} boxes, {len(labels)} values of {m.box_labels!r}")
        if labels and isinstance(labels[0], bytes):
            return [_decoded(m.box_labels, name) for name in labels], None
        if m.box_label_text is None:
            return list(labels), None
        names = _strings(features, m.box_label_text)
        if len(names) != n:  # a name more or less says nothing of which box it is
            return list(labels), None
        return list(labels), [_decoded(m.box_label_text, name) for name in names]


def _index(payload: bytes, image: bytes) -> int:
    """Where in a record the image's bytes are. bytes.index would first study all of the image."""
    head = image[:64]
    at = payload.find(head)
    while not payload.startswith(image, at):
        at = payload.find(head, at + 1)
    return at


def _strings(features: Mapping[str, Any], key: str) -> Sequence[bytes]:
    """The texts of a key, none where it is missing. Raises BadValue: of another kind."""
    feature = features[key]  # a missing one is made by this, as protobuf's maps do
    values: Sequence[bytes] = feature.bytes_list.value
    return values or _other(feature, key, "bytes_list")


def _numbers(features: Mapping[str, Any], key: str) -> Sequence[float]:
    """The numbers of a key, whole or not. Raises BadValue: of another kind."""
    feature = features[key]
    values: Sequence[float] = feature.float_list.value
    return values or _other(feature, key, "float_list", "int64_list")


def _either(features: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The whole numbers or the texts of a key. Raises BadValue: of another kind."""
    feature = features[key]
    values: Sequence[Any] = feature.int64_list.value
    return values or _other(feature, key, "int64_list", "bytes_list")


def _other(feature: Any, key: str, *kinds: str) -> Sequence[Any]:
    """The values of a feature that has none of the first kind. Raises BadValue: it has some of a kind not wanted."""
    kind = feature.WhichOneof("kind")
    values: Sequence[Any] = () if kind is None else getattr(feature, kind).value
    if values and kind not in kinds:
        wanted = " or ".join(_KINDS[k] for k in kinds)
        raise BadValue(f"{key!r} is a {_KINDS[kind]} list, wanted {wanted}")
    return values


def _decoded(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadValue(f"{key!r} is {value[:16]!r}, no UTF-8") from None


def _text(features: Mapping[str, Any], key: str) -> str:
    """The one text of a key. visipedia's writer at its latest puts one value per character."""
    values: Sequence[Any] = features[key].bytes_list.value
    if len(values) == 1:
        return _decoded(key, values[0])
    values = values or _either(features, key)
    if not values:
        return ""
    if not isinstance(values[0], bytes):
        return ",".join(map(str, values))
    if len(values) > 1 and any(len(value) > 1 for value in values):
        raise BadValue(f"{key!r} has {len(values)} values, wanted one")
    return _decoded(key, b"".join(values))


def _label(features: Mapping[str, Any], key: str) -> int | str | None:
    values = _either(features, key)
    if not values:
        return None
    if len(values) > 1:
        raise BadValue(f"{key!r} has {len(values)} values, wanted one class")
    first = values[0]
    if isinstance(first, bytes):
        return _decoded(key, first) or None
    return int(first)


def _floats(features: Mapping[str, Any], key: str) -> NDArray[np.float32]:
    return np.array(_numbers(features, key), np.float32)


def _count(boxes: tuple[Sequence[float], ...], m: Map) -> int:
    """How many boxes these numbers are. Raises BadValue."""
    n = len(boxes[0])
    if len(boxes) == 1:
        if n % 4:
            raise BadValue(f"{m.boxes[0]!r} has {n} values, wanted 4 for each box")
        return n // 4
    if n != len(boxes[1]) or n != len(boxes[2]) or n != len(boxes[3]):
        found = ", ".join(f"{len(some)} {key.rpartition('/')[2]}" for key, some in zip(m.boxes, boxes, strict=True))
        raise BadValue(f"boxes have {found}: as many of each are wanted")
    return n


def _keypoints(features: Mapping[str, Any], m: Map) -> NDArray[np.float32]:
    """float32 [m, 3]: x, y, v. Without a visibility a point with finite coordinates is visible."""
    if len(m.keypoints) == 1:
        flat = _floats(features, m.keypoints[0])
        if len(flat) % 3:
            raise BadValue(f"{m.keypoints[0]!r} has {len(flat)} values, wanted 3 for each point")
        points = flat.reshape(-1, 3)
    else:
        columns = [_floats(features, key) for key in m.keypoints]
        if len(columns) == 2:
            columns.append(np.full(len(columns[0]), 2, np.float32))
        if len({len(column) for column in columns}) > 1:
            raise BadValue(
                f"keypoints have {', '.join(str(len(c)) for c in columns)} values of {', '.join(m.keypoints)}"
            )
        points = np.stack(columns, axis=1)
    absent = ~np.isfinite(points).all(axis=1) | (points[:, 2] <= 0)
    points[absent] = 0
    odd = points[~np.isin(points[:, 2], (0, 1, 2)), 2]
    if len(odd):
        raise BadValue(f"a keypoint of {m.keypoints[-1]!r} has v {odd[0]:g}, wanted 0, 1 or 2")
    return points
