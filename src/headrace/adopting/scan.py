"""The pass of an adoption: every record of every file once, on threads, as far as it can be told from itself alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.adopting import schema
from headrace.adopting.files import ShardFile, Skipped
from headrace.adopting.schema import BadValue, Map, Reader
from headrace.format import tfrecord
from headrace.format.catalog import Row
from headrace.imaging import codec, geometry
from headrace.place import local
from headrace.record import Reject

_CHUNK_RECORDS, _CHUNK_BYTES = 256, 1 << 22
_MOST_IMAGE = (1 << 32) - 1  # bytes that the index can say


@dataclass(slots=True)
class Found:
    """A record that can be used: its catalog row without a class, and what it says of classes."""

    number: int
    row: Row
    values: schema.Values
    orientation: int
    kept: NDArray[np.bool_] | None = None  # which of its boxes
    clipped: int = 0

    @property
    def dropped(self) -> int:
        return 0 if self.kept is None else int(len(self.kept) - self.kept.sum())


@dataclass(frozen=True, slots=True)
class _Chunk:
    file: int
    first: int
    pieces: list[tfrecord.Span | tfrecord.Gap]
    size: int


@dataclass(frozen=True, slots=True)
class Read:
    """What was found in a chunk of a file, and the marks of its records."""

    file: int
    size: int
    pieces: list[Found | Reject | Skipped]
    marks: bytes


class Pass:
    """All records of all files in chunks, and how a chunk is read."""

    def __init__(self, files: Sequence[ShardFile], reader: Reader, images: Path | None, max_pixels: int) -> None:
        self.files, self.reader, self.images, self.max_pixels = files, reader, images, max_pixels

    def __iter__(self) -> Iterator[_Chunk]:
        for number, file in enumerate(self.files):
            pieces: list[tfrecord.Span | tfrecord.Gap] = []
            first = begin = end = 0
            for piece in tfrecord.walk(file.content()):
                pieces.append(piece)
                end = piece.end
                if len(pieces) == _CHUNK_RECORDS or end - begin > _CHUNK_BYTES:
                    yield _Chunk(number, first, pieces, end - begin)
                    first, begin, pieces = first + len(pieces), end, []
            if pieces:
                yield _Chunk(number, first, pieces, end - begin)

    def read(self, chunk: _Chunk) -> Read:
        file = self.files[chunk.file]
        data = file.content()
        out: list[Found | Reject | Skipped] = []
        marks: list[bytes] = []
        for number, piece in enumerate(chunk.pieces, start=chunk.first):
            gap = piece
            if isinstance(piece, tfrecord.Span):
                try:
                    payload = bytes(tfrecord.payload_at(data, *piece))
                except tfrecord.BadRecord as error:
                    gap = tfrecord.Gap(piece.offset, piece.end, error.offset, error.reason)
            marks.append(tfrecord.mark(data, gap))
            if isinstance(gap, tfrecord.Gap):
                out.append(Skipped(shard=str(file.path), record=number, **gap._asdict()))
                continue
            try:
                out.append(self._record(file, number, gap, payload))
            except BadValue as error:
                out.append(_reject(file, number, "label", str(error)))
            except codec.BadImage as error:
                out.append(_reject(file, number, error.stage, error.reason))
            except OSError as error:
                out.append(
                    _reject(file, number, "read", f"{(error.strerror or str(error)).lower()}: {error.filename!r}")
                )
        place_boxes([one for one in out if isinstance(one, Found)], self.reader.map)
        return Read(chunk.file, chunk.size, out, b"".join(marks))

    def _record(self, file: ShardFile, number: int, span: tfrecord.Span, payload: bytes) -> Found:
        """Raises BadValue, BadImage, OSError."""
        values = self.reader.read(payload)
        image, named, sha256, offset = values.image, None, None, 0
        crc = tfrecord.masked_crc(payload)
        if image is not None:
            offset = span.offset + tfrecord.HEADER_BYTES + values.image_offset
        elif self.images is not None and values.file:
            named = values.file
            image = local.content(local.inside(self.images, named), _MOST_IMAGE)
            sha256, crc = hashlib.sha256(image).hexdigest(), tfrecord.masked_crc(image)
        else:
            key = self.reader.map.image or self.reader.map.file
            raise BadValue(f"no image: the record has no {key!r}, or nothing in it")
        header = codec.read_header(image, max_pixels=self.max_pixels)
        row = Row(
            id=values.id,
            split=file.split,
            shard=file.name,
            format=header.kind,
            height=header.height,
            width=header.width,
            channels=header.channels,
            origin=f"{file.called}:{number}",
            sha256=sha256,
            offset=span.offset,
            length=span.length,
            image_offset=offset,
            image_length=len(image),
            crc=crc,
            record=number,
            file=named,
        )
        values.image = None
        return Found(number, row, values, header.orientation)


def _reject(file: ShardFile, number: int, stage: str, reason: str) -> Reject:
    return Reject(id=f"{file.called}:{number}", origin=f"{file.called}:{number}", stage=stage, reason=reason)


def place_boxes(found: list[Found], m: Map) -> None:
    """Boxes and keypoints of these records in pixels of their images, boxes cut to them; all boxes at once."""
    sizes = np.array([[one.row.width, one.row.height] for one in found], np.float32).reshape(-1, 2)
    if m.keypoints and not m.keypoint_pixels:
        for one, size in zip(found, sizes, strict=True):
            if one.values.keypoints is not None:
                with np.errstate(over="ignore"):
                    one.values.keypoints[:, :2] *= size
    if not m.boxes or not found:
        return
    columns = [_column(found, i) for i in range(len(m.boxes))]
    counts = [len((one.values.boxes or [[]])[0]) * len(columns) // 4 for one in found]
    border = np.repeat(np.hstack([np.zeros_like(sizes), sizes]), counts, axis=0)
    whole = border[:, [2, 3, 2, 3]]
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = columns[0].reshape(-1, 4) if len(columns) == 1 else np.stack(columns, axis=1)
        if m.box_order == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        elif m.box_order == "xywh":
            boxes = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        if not m.box_pixels:
            boxes = boxes * whole
        inside, kept = geometry.cut(boxes, border, min_visible=0)
        clipped = kept & (inside != boxes).any(axis=1)
    of = np.repeat(np.arange(len(found)), counts)
    cut = np.bincount(of, clipped, len(found)).tolist()
    whole_sets = (np.bincount(of, ~kept, len(found)) == 0).tolist()
    begin = 0
    for i, (one, count) in enumerate(zip(found, counts, strict=True)):
        mine = slice(begin, begin := begin + count)
        one.kept = kept[mine]
        one.row.boxes = inside[mine] if whole_sets[i] else inside[mine][one.kept]
        one.clipped = int(cut[i])
        one.values.boxes = None


def _column(found: list[Found], i: int) -> NDArray[np.float32]:
    """The numbers of one key of the boxes, those of all records one after the other."""
    flat: list[float] = []
    for one in found:
        if one.values.boxes is not None:
            flat.extend(one.values.boxes[i])
    return np.array(flat, np.float32)
