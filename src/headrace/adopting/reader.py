"""The values of a record by a map, as the record says them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.adopting.mapping import Map
from headrace.format import example
from headrace.record import odd_visibility

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64", None: "none"}


class BadValue(ValueError):
    """A record whose values can't be what the map says they are. Becomes a Reject."""


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
    if (odd := odd_visibility(points)) is not None:
        raise BadValue(f"a keypoint of {m.keypoints[-1]!r} has v {odd:g}, wanted 0, 1 or 2")
    return points
