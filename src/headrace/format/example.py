"""Features <-> tf.train.Example bytes, and which keys a packed record has.

The message is built in a descriptor pool of its own and under its own name: registering `tensorflow.Example` in the
default pool would clash with TensorFlow in the same process. The wire bytes are the same.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from headrace.format.catalog import Row
from headrace.format.messages import message_class

Values: TypeAlias = Sequence[bytes] | Sequence[int] | Sequence[float]


class Ints(list[int]):
    """An int64 list; a plain type would leave an empty list without its kind."""


class Floats(list[float]):
    """A float32 list."""


class Strings(list[bytes]):
    """A bytes list."""


Feature: TypeAlias = Ints | Floats | Strings


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="headrace/example.proto", package="headrace", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> descriptor_pb2.DescriptorProto:
        made = descriptor_pb2.DescriptorProto(name=name)
        for field, number, label, kind, type_name in fields:
            made.field.add(name=field, number=number, label=label, type=kind, type_name=type_name or None)
        return made

    one, many = types.LABEL_OPTIONAL, types.LABEL_REPEATED
    file.message_type.append(message("BytesList", ("value", 1, many, types.TYPE_BYTES, "")))
    file.message_type.append(message("FloatList", ("value", 1, many, types.TYPE_FLOAT, "")))
    file.message_type.append(message("Int64List", ("value", 1, many, types.TYPE_INT64, "")))
    feature = message(
        "Feature",
        ("bytes_list", 1, one, types.TYPE_MESSAGE, ".headrace.BytesList"),
        ("float_list", 2, one, types.TYPE_MESSAGE, ".headrace.FloatList"),
        ("int64_list", 3, one, types.TYPE_MESSAGE, ".headrace.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    file.message_type.append(feature)
    features = message("Features", ("feature", 1, many, types.TYPE_MESSAGE, ".headrace.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        ("key", 1, one, types.TYPE_STRING, ""),
        ("value", 2, one, types.TYPE_MESSAGE, ".headrace.Feature"),
    )
    entry.options.map_entry = True
    features.nested_type.append(entry)
    file.message_type.append(features)
    file.message_type.append(message("Example", ("features", 1, one, types.TYPE_MESSAGE, ".headrace.Features")))
    return message_class(file, "Example")


_Example = _message_class()


def serialize(features: Mapping[str, Feature]) -> bytes:
    """tf.train.Example bytes with the keys in byte order: the same features always give the same bytes."""
    example = _Example()
    made = example.features.feature
    for key, values in features.items():
        if isinstance(values, Strings):
            made[key].bytes_list.value.extend(values)
        elif isinstance(values, Floats):
            made[key].float_list.value.extend(values)
        else:
            made[key].int64_list.value.extend(values)
        if not values:  # an empty list keeps its kind: a Feature without one breaks readers
            getattr(made[key], _FIELDS[type(values)]).SetInParent()
    data: bytes = example.SerializeToString(deterministic=True)
    return data


_FIELDS = {Strings: "bytes_list", Floats: "float_list", Ints: "int64_list"}


def message(payload: bytes) -> Mapping[str, Any]:
    """Key -> Feature message of tf.train.Example bytes: looking at a few keys of a record costs a tenth of `parse`.

    Raises ValueError when the bytes are no such message.
    """
    example = _Example()
    try:
        example.ParseFromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example: {error}") from error
    features: Mapping[str, Any] = example.features.feature
    return features


_LARGE = 4096  # bytes of a feature from which on it is worth cutting it out


def message_without(payload: bytes, key: bytes) -> tuple[Mapping[str, Any], int, int] | None:
    """(`message` of the payload without the one large value of `key`, where in the payload that begins, its length).

    Protobuf copies an image of 100 KB twice, which takes half of the time of looking at a record. None where the wire
    is not as every writer makes it, or there is no such value: then `message` is the way.
    """
    try:
        if payload[0] != 0x0A:
            return None
        end, at = _varint(payload, 1)
        if at + end != len(payload):
            return None
        begin = at
        while at < len(payload):
            if payload[at] != 0x0A:
                return None
            length, inside = _varint(payload, at + 1)
            if length > _LARGE and (value := _only_value(payload, inside, inside + length, key)) is not None:
                rest = payload[begin:at] + payload[inside + length :]
                features = message(b"\x0a" + _as_varint(len(rest)) + rest)
                # A key that comes twice means its last.
                return None if key.decode() in features else (features, *value)
            at = inside + length
    except (IndexError, ValueError):
        pass
    return None


def _only_value(data: bytes, at: int, end: int, key: bytes) -> tuple[int, int] | None:
    """(begin, length) of the one value of a bytes feature, if the entry from `at` to `end` is that of `key`."""
    head = b"\x0a" + _as_varint(len(key)) + key
    if not data.startswith(head, at):
        return None
    at += len(head)
    for tag in b"\x12\x0a\x0a":  # the entry's value, its bytes_list, that one's value: each to the end of all
        if data[at] != tag:
            return None
        length, at = _varint(data, at + 1)
        if at + length != end:
            return None
    return at, end - at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(a varint of at most ten bytes that begins at `at`, where it ends). Raises IndexError, ValueError."""
    value = 0
    for i in range(10):  # protobuf's own bound; without one a long run of them takes quadratic time
        byte = data[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise ValueError(f"byte {at}: a varint of more than ten bytes")


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse(payload: bytes) -> dict[str, Feature]:
    """The features of tf.train.Example bytes. Raises ValueError when they are no such message."""
    out: dict[str, Feature] = {}
    for key, feature in message(payload).items():
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            out[key] = Strings(feature.bytes_list.value)
        elif kind == "float_list":
            out[key] = Floats(feature.float_list.value)
        else:
            out[key] = Ints(feature.int64_list.value)
    return out


# What visipedia's keys have exactly one value of, and so have our own records.
_SCALARS = frozenset(
    f"image/{name}"
    for name in (
        *("encoded", "format", "filename", "id", "source_id", "key/sha256", "colorspace", "extra"),
        *("height", "width", "channels", "object/count", "class/label", "class/text", "class/conf"),
    )
)
_DTYPES: Mapping[type, Any] = {Ints: np.int64, Floats: np.float32, Strings: object}


def value_of(name: str, feature: Feature) -> int | float | bytes | NDArray[Any]:
    """A feature as a value: plain where its key has exactly one, else an array [m] of int64, float32 or objects."""
    if name in _SCALARS and len(feature) == 1:
        return feature[0]
    return np.array(feature, _DTYPES[type(feature)])


def features_of(
    row: Row,
    encoded: bytes,
    *,
    with_label: bool,
    with_boxes: bool,
    multi_label: bool = False,
    with_value: bool = False,
    keypoints: int = 0,
    keypoint_names: Sequence[str] = (),
) -> dict[str, Feature]:
    """The features of one packed record: visipedia's keys and the TF Object Detection API's, and TFDS's `objects/*`.

    `with_label`, `with_boxes`, `with_value`: whether the dataset has classes, boxes and values at all; `keypoints`: how
    many each object has, and their names where they are known. Scalars have exactly one value. A record without a label
    in a dataset with classes has label -1, as TFDS writes it, and an empty text; one without a value has NaN. Where
    images may have several classes (`multi_label`), the keys of one class hold a list of all, as the TF Object
    Detection API has it.
    """
    features: dict[str, Feature] = {
        "image/encoded": Strings([encoded]),
        "image/format": _text(row.format),
        "image/filename": _text(row.id),
        "image/id": _text(row.id),
        "image/source_id": _text(row.id),
        "image/key/sha256": _text(row.sha256 or ""),
        "image/height": Ints([row.height]),
        "image/width": Ints([row.width]),
        "image/channels": Ints([row.channels]),
        "image/colorspace": _text("grayscale" if row.channels == 1 else "RGB"),
    }
    if with_value:
        features["image/value"] = Floats([math.nan if row.value is None else row.value])
    if multi_label:
        features["image/class/label"] = Ints(row.labels or [])
        features["image/class/text"] = Strings(name.encode() for name in row.label_names or [])
    elif with_label:
        features["image/class/label"] = Ints([-1 if row.label is None else row.label])
        features["image/class/text"] = _text(row.label_name or "")
    return features | objects_of(row, with_boxes=with_boxes, keypoints=keypoints, keypoint_names=keypoint_names)


def objects_of(row: Row, *, with_boxes: bool, keypoints: int, keypoint_names: Sequence[str]) -> dict[str, Feature]:
    """The features of a record's objects. Lists under `objects/` are equally long; TFDS would give others as they are.

    An object of a record without boxes has an empty one, an object without keypoints has absent ones.
    """
    boxes, points = row.boxes, row.keypoints
    if boxes is None:
        boxes = np.zeros((0 if points is None else len(points), 4), np.float32)
    if points is None:
        points = np.zeros((len(boxes), keypoints, 3), np.float32)
    features: dict[str, Feature] = {"image/object/count": Ints([len(boxes)])} if with_boxes or keypoints else {}
    if with_boxes:
        features |= _boxes(row, boxes)
    if keypoints:
        features |= _keypoints(row, points)
    if keypoint_names:
        features["image/object/keypoint/text"] = Strings([name.encode() for name in keypoint_names] * len(points))
    return features


def _boxes(row: Row, boxes: NDArray[np.float32]) -> dict[str, Feature]:
    scale = np.array([row.width, row.height, row.width, row.height], np.float32)
    x0, y0, x1, y1 = (boxes / scale).T.tolist()
    labels = row.box_labels or []
    names = Strings(name.encode() for name in row.box_label_names or [])
    return {
        "image/object/bbox/xmin": Floats(x0),
        "image/object/bbox/ymin": Floats(y0),
        "image/object/bbox/xmax": Floats(x1),
        "image/object/bbox/ymax": Floats(y1),
        "image/object/bbox/label": Ints(labels),
        "image/object/class/label": Ints(label + 1 for label in labels),
        "image/object/class/text": names,
        "image/object/area": Floats(((np.array(x1) - x0) * (np.array(y1) - y0)).tolist()),
        "objects/bbox": Floats(np.array([y0, x0, y1, x1], np.float32).T.reshape(-1).tolist()),
        "objects/label": Ints(labels or [-1] * len(boxes)),
    }


def _keypoints(row: Row, points: NDArray[np.float32]) -> dict[str, Feature]:
    x, y, v = points.reshape(-1, 3).T
    across, down = (x / row.width).tolist(), (y / row.height).tolist()
    visibility = v.astype(np.int64).tolist()
    return {
        "image/object/keypoint/x": Floats(across),  # the TF Object Detection API's
        "image/object/keypoint/y": Floats(down),
        "image/object/keypoint/visibility": Ints(visibility),
        "image/object/parts/x": Floats(across),  # visipedia's
        "image/object/parts/y": Floats(down),
        "image/object/parts/v": Ints(visibility),
        "objects/keypoints": Floats(points.reshape(-1).tolist()),
    }


def _text(value: str) -> Strings:
    return Strings([value.encode()])


# Attributes of records that visipedia, or the TF Object Detection API (its TfExampleFields), has keys for, and what a
# record without one has when others have it: all records of a dataset have the same keys. Those below `object` hold a
# list with an entry per object.
_ATTRIBUTES: Mapping[str, tuple[str, type[Feature], Feature]] = {
    "filename": ("image/filename", Strings, Strings()),
    "extra": ("image/extra", Strings, Strings([b""])),
    "class_conf": ("image/class/conf", Floats, Floats([1.0])),
    "is_crowd": ("image/object/is_crowd", Ints, Ints()),
    "difficult": ("image/object/difficult", Ints, Ints()),
    "truncated": ("image/object/truncated", Ints, Ints()),
    "occluded": ("image/object/occluded", Ints, Ints()),
    "group_of": ("image/object/group_of", Ints, Ints()),
    "depiction": ("image/object/depiction", Ints, Ints()),
    "object_id": ("image/object/id", Strings, Strings()),
    "score": ("image/object/bbox/score", Floats, Floats()),
    "conf": ("image/object/bbox/conf", Floats, Floats()),
    "keypoint_score": ("image/object/parts/score", Floats, Floats()),
}

KEYED = tuple(_ATTRIBUTES)


def attributes_with_keys(attributes: Iterable[tuple[Mapping[str, Any], int]]) -> tuple[str, ...]:
    """Which attributes of these records, (attributes, number of objects) each, become features: those of the kind that
    their key has, in every record that has them. The others are in the catalog alone."""
    found: dict[str, bool] = {}
    for values, n in attributes:
        for name in values.keys() & _ATTRIBUTES.keys():
            found[name] = found.get(name, True) and _fits(name, values[name], n)
    return tuple(name for name in _ATTRIBUTES if found.get(name))


def names_of_keys(keys: Container[str]) -> tuple[str, ...]:
    """The attributes whose keys are among these of a packed record."""
    return tuple(name for name, (key, _, _) in _ATTRIBUTES.items() if key in keys)


def features_of_attributes(row: Row, names: Iterable[str]) -> dict[str, Feature]:
    """The features of the attributes `names` (see attributes_with_keys) of one packed record."""
    features: dict[str, Feature] = {}
    for name in names:
        key, kind, default = _ATTRIBUTES[name]
        if name in row.attributes:
            values = _flat(row.attributes[name])
            features[key] = Strings(str(value).encode() for value in values) if kind is Strings else kind(values)
        elif default or "/object/" in key:
            features[key] = default
    return features


def _fits(name: str, value: Any, n: int) -> bool:
    key, kind, _ = _ATTRIBUTES[name]
    if ("/object/" in key) != isinstance(value, list | tuple) or (isinstance(value, list | tuple) and len(value) != n):
        return False
    wanted = {Strings: str, Ints: int, Floats: int | float}[kind]
    return all(isinstance(one, wanted) for one in _flat(value))


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        return [value]
    return [inner for one in value for inner in (one if isinstance(one, list | tuple) else [one])]
