"""The pass of an adoption: every record of every file once, on threads, as far as it can be judged by itself.

What is found stands in columns: a million records must not become a million objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.adopting.files import ShardFile, Skipped
from headrace.adopting.mapping import Map
from headrace.adopting.reader import BadValue, Reader, Values
from headrace.format import index, tfrecord
from headrace.imaging import codec, objects
from headrace.place.address import Place
from headrace.record import Reject

_CHUNK_RECORDS, _CHUNK_BYTES = 256, 1 << 22
_MOST_IMAGE = (1 << 32) - 1  # bytes that the index can say

# A class as a record says it: a number or a text, and the text beside a number.
Said: TypeAlias = tuple[int | str | None, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Records that can be used, in their order: n rows, with m boxes and p keypoints in all, one after the other.

    `where`: the columns of the index, [n] each, but for the key. `ids`: "" where none is said; `files`, `digests`: of
    an image in a file of its own, else "". `labels` int32 [n], `box_labels` int32 [m]: numbers of what was said of
    classes; `says_labels` bool [n]: whether anything was, of the boxes. `boxes` float32 [m, 4] in pixels, cut to the
    image, those that can't be used too; `faults` uint8 [m], `clipped` bool [m]: see imaging.objects. `keypoints`
    float32 [p, 3] in pixels. `box_counts`, `keypoint_counts` int32 [n], the latter -1 where nothing is said of any.
    """

    where: NDArray[Any]
    ids: NDArray[np.object_]
    files: NDArray[np.object_]
    digests: NDArray[np.object_]
    labels: NDArray[np.int32]
    box_counts: NDArray[np.int32]
    says_labels: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    box_labels: NDArray[np.int32]
    faults: NDArray[np.uint8]
    clipped: NDArray[np.bool_]
    keypoint_counts: NDArray[np.int32]
    keypoints: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.where)

    def of_boxes(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A value of each row [n], [...], for each of its boxes [m]."""
        return np.repeat(rows, self.box_counts, axis=0)

    def of_keypoints(self, rows: NDArray[Any]) -> NDArray[Any]:
        """A value of each row [n] for each of its keypoints [p]."""
        return np.repeat(rows, np.maximum(self.keypoint_counts, 0), axis=0)

    def taken(self, rows: NDArray[np.bool_]) -> Columns:
        """Those of the rows bool [n]."""
        boxes, points = self.of_boxes(rows), self.of_keypoints(rows)
        part = dict.fromkeys(_OF_BOXES, boxes) | {"keypoints": points}
        return Columns(**{name: getattr(self, name)[part.get(name, rows)] for name in _FIELDS})

    def part(self, first: int, stop: int) -> Columns:
        """The rows `first` to `stop`."""
        rows = np.zeros(len(self), bool)
        rows[first:stop] = True
        return self if stop - first == len(self) else self.taken(rows)


_OF_BOXES = ("boxes", "box_labels", "faults", "clipped")
_FIELDS = tuple(field.name for field in fields(Columns))
WHERE = np.dtype([(name, kind) for name, kind in index.COLUMNS.items() if name != "key"])


def joined(parts: Sequence[Columns]) -> Columns:
    """All rows of the parts."""
    whole = [_columns([], Map(), Vocabulary(), Vocabulary()), *parts]
    return Columns(**{name: np.concatenate([getattr(part, name) for part in whole]) for name in _FIELDS})


class Vocabulary:
    """What records say of classes, each once, by the number that stands for it."""

    def __init__(self) -> None:
        self._numbers: dict[Said, int] = {}

    @property
    def said(self) -> list[Said]:
        return list(self._numbers)

    def numbers(self, said: Sequence[Said]) -> NDArray[np.int32]:
        """int32 [n]."""
        numbers = self._numbers
        return np.array([numbers.setdefault(one, len(numbers)) for one in said], np.int32)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pieces of a file from record `first` on, or `rest`: bytes of a gap that was a piece before."""

    file: int
    first: int
    pieces: list[tfrecord.Span | tfrecord.Gap]
    size: int
    rest: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What was found in a chunk of a file, and the marks of its records.

    Labels of the columns are numbers of `said` and `box_said`. Rejects with the number of their record. `turned`: how
    many images have an EXIF orientation.
    """

    file: int
    size: int
    columns: Columns
    said: list[Said]
    box_said: list[Said]
    rejects: list[tuple[int, Reject]]
    skipped: list[Skipped]
    turned: int
    marks: bytes


class Pass:
    """All records of all files in chunks, and how a chunk is read."""

    def __init__(self, files: Sequence[ShardFile], reader: Reader, images: Place | None, max_pixels: int) -> None:
        self.files, self.reader, self.images, self.max_pixels = files, reader, images, max_pixels

    def __iter__(self) -> Iterator[_Chunk]:
        """Raises StorageError."""
        for number, file in enumerate(self.files):
            pieces: list[tfrecord.Span | tfrecord.Gap] = []
            first = begin = end = 0
            for piece in tfrecord.walk(file.content()):
                pieces.append(piece)
                end = piece.end
                if len(pieces) == _CHUNK_RECORDS or end - begin > _CHUNK_BYTES:
                    yield _Chunk(number, first, pieces, end - begin)
                    if isinstance(piece, tfrecord.Gap):
                        for rest in range(piece.begin + _CHUNK_BYTES, piece.end, _CHUNK_BYTES):
                            yield _Chunk(number, first, [], 0, (rest, min(rest + _CHUNK_BYTES, piece.end)))
                    first, begin, pieces = first + len(pieces), end, []
            if pieces:
                yield _Chunk(number, first, pieces, end - begin)

    def read(self, chunk: _Chunk) -> Read:
        """Raises StorageError: the file was cut, or the disk can't read it."""
        file = self.files[chunk.file]
        data = file.content(max(chunk.size, 1))
        used: list[_Used] = []
        rejects: list[tuple[int, Reject]] = []
        skipped: list[Skipped] = []
        marks: list[bytes] = [] if chunk.rest is None else [data[slice(*chunk.rest)]]
        for number, piece in enumerate(chunk.pieces, start=chunk.first):
            if isinstance(piece, tfrecord.Gap):
                # Of a long one the rest comes in chunks of its own.
                marks.append(data[piece.begin : min(piece.end, piece.begin + _CHUNK_BYTES)])
                skipped.append(Skipped(shard=str(file.path), record=number, **piece._asdict()))
                continue
            try:
                payload = bytes(tfrecord.payload_at(data, *piece))
            except tfrecord.BadRecord as error:
                gap = tfrecord.Gap(piece.offset, piece.end, error.offset, error.reason)
                marks.append(tfrecord.mark(data, gap))
                skipped.append(Skipped(shard=str(file.path), record=number, **gap._asdict()))
                continue
            marks.append(tfrecord.mark(data, piece))
            try:
                used.append(self._record(number, piece, payload))
            except BadValue as error:
                rejects.append((number, reject(file, number, "label", str(error))))
            except codec.BadImage as error:
                rejects.append((number, reject(file, number, error.stage, error.reason)))
            except OSError as error:
                reason = f"{(error.strerror or str(error)).lower()}: {error.filename!r}"
                rejects.append((number, reject(file, number, "read", reason)))
        labels, boxes = Vocabulary(), Vocabulary()
        columns = _columns(used, self.reader.map, labels, boxes)
        turned = sum(one.orientation != 1 for one in used)
        return Read(chunk.file, chunk.size, columns, labels.said, boxes.said, rejects, skipped, turned, b"".join(marks))

    def _record(self, number: int, span: tfrecord.Span, payload: bytes) -> _Used:
        """Raises BadValue, BadImage, OSError."""
        values = self.reader.read(payload)
        image, named, sha256, offset = values.image, "", "", 0
        crc = tfrecord.masked_crc(payload)
        if image is not None:
            offset = tfrecord.HEADER_BYTES + values.image_offset
        elif self.images is not None and values.file:
            named = values.file
            image = self.images.held(named, _MOST_IMAGE)
            sha256, crc = hashlib.sha256(image).hexdigest(), tfrecord.masked_crc(image)
        else:
            key = self.reader.map.image or self.reader.map.file
            raise BadValue(f"no image: the record has no {key!r}, or nothing in it")
        if span.length > _MOST_IMAGE:
            raise BadValue(f"the record has {span.length} bytes, wanted at most {_MOST_IMAGE}")
        header = codec.read_header(image, max_pixels=self.max_pixels)
        codec.check_density(header, len(image), self.max_pixels)
        where = {
            "offset": span.offset,
            "length": span.length,
            "image_offset": offset,
            "image_length": len(image),
            "crc": crc,
            "record": number,
            "height": header.height,
            "width": header.width,
            "channels": header.channels,
            "format": index.FORMATS.index(header.kind),
        }
        return _Used(tuple(where[name] for name in WHERE.names or ()), values, named, sha256, header.orientation)


@dataclass(frozen=True, slots=True)
class _Used:
    """A record on its way into columns."""

    where: tuple[int, ...]
    values: Values
    file: str
    sha256: str
    orientation: int


def reject(file: ShardFile, number: int, stage: str, reason: str) -> Reject:
    """The Reject of record `number` of a file."""
    origin = f"{file.called}:{number}"
    return Reject(id=origin, origin=origin, stage=stage, reason=reason)


def _columns(used: Sequence[_Used], m: Map, labels: Vocabulary, box_labels: Vocabulary) -> Columns:
    """These records' columns; what they say of classes goes into the vocabularies."""
    values = [one.values for one in used]
    where = np.array([one.where for one in used], WHERE)
    sizes = np.stack([where["width"], where["height"]], axis=1).astype(np.float32)
    box_counts, judged = _boxes(values, m, sizes)
    box_said: list[Said] = []
    for one, n in zip(values, box_counts.tolist(), strict=True):
        texts = one.box_label_text or [""] * n
        box_said += zip([None] * n if one.box_labels is None else one.box_labels, texts, strict=True)
    sets = [np.zeros((0, 3), np.float32), *(one.keypoints for one in values if one.keypoints is not None)]
    keypoint_counts = np.array([-1 if one.keypoints is None else len(one.keypoints) for one in values], np.int32)
    keypoints = np.concatenate(sets)
    if not m.keypoint_pixels:
        with np.errstate(over="ignore"):
            keypoints[:, :2] *= np.repeat(sizes, np.maximum(keypoint_counts, 0), axis=0)
    return Columns(
        where=where,
        ids=_texts([one.id for one in values]),
        files=_texts([one.file for one in used]),
        digests=_texts([one.sha256 for one in used]),
        labels=labels.numbers([(one.label, one.label_text) for one in values]),
        box_counts=box_counts,
        says_labels=np.array([one.box_labels is not None for one in values], bool),
        boxes=judged.boxes,
        box_labels=box_labels.numbers(box_said),
        faults=judged.faults,
        clipped=judged.clipped,
        keypoint_counts=keypoint_counts,
        keypoints=keypoints,
    )


def _texts(texts: list[str]) -> NDArray[np.object_]:
    return np.array(texts, object)


def _boxes(values: Sequence[Values], m: Map, sizes: NDArray[np.float32]) -> tuple[NDArray[np.int32], objects.Judged]:
    """How many boxes each record has, int32 [n], and all of them in pixels of images of `sizes` float32 [n, 2]."""
    columns = [_numbers(values, i) for i in range(len(m.boxes))]
    counts = np.array([len((one.boxes or [[]])[0]) * len(columns) // 4 for one in values], np.int32)
    border = np.repeat(np.hstack([np.zeros_like(sizes), sizes]), counts, axis=0)
    if not columns:
        return counts, objects.judge_boxes(border, border)
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = columns[0].reshape(-1, 4) if len(columns) == 1 else np.stack(columns, axis=1)
        if m.box_order == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        elif m.box_order == "xywh":
            boxes = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        if not m.box_pixels:
            boxes = boxes * border[:, [2, 3, 2, 3]]
        return counts, objects.judge_boxes(boxes, border)


def _numbers(values: Sequence[Values], i: int) -> NDArray[np.float32]:
    """The numbers of one key of the boxes, those of all records one after the other."""
    flat: list[float] = []
    for one in values:
        if one.boxes is not None:
            flat.extend(one.boxes[i])
    return np.array(flat, np.float32)
