"""Makes one shard of a plan: records in; one .tfrecord, its .idx and its parts of index and catalog out.

Knows nothing of the others; where it is made, and by whom, is left to task and runners.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c

from headrace.errors import StorageError
from headrace.format import catalog, example, frames, index, tfrecord
from headrace.format.catalog import Row
from headrace.format.manifest import ShardEntry
from headrace.imaging.codec import BadImage, check_pixels
from headrace.imaging.prepare import prepare
from headrace.packing.plan import Decisions, Numbered, ShardPlan, line, rejected
from headrace.place import publish
from headrace.record import Record, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A record ready to be written: catalog row (offsets relative to the record), bytes, size of the source.

    `boxes_clipped`, `boxes_dropped`, `keypoints_dropped`: see Prepared.
    """

    row: Row
    record: bytes
    bytes_in: int
    boxes_clipped: int = 0
    boxes_dropped: Counter[str] = field(default_factory=Counter)
    keypoints_dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What `pack_shard` made: the shard's entry for the manifest, counts, and lines (see plan.line) of its `refused`
    Rejects. `channels`: the most that an image has, 0 without any; `warned`, `keypoint_sets`: see PackReport.
    `bytes_out` of both its files; `index` and `catalog`: bytes of its parts of these.
    """

    entry: ShardEntry
    channels: int
    warned: int
    boxes: int
    keypoint_sets: int
    refused: int
    rejects: bytes
    bytes_in: int
    bytes_out: int
    boxes_clipped: int
    boxes_dropped: Counter[str]
    keypoints_dropped: Counter[str]
    index: bytes
    catalog: bytes


def make_record(
    plan: Decisions, shard: ShardPlan, numbered: Numbered, read: Callable[[Record], bytes] = Record.read
) -> Made | Numbered:
    """The record as it will be written, or its Reject. Pure but for reading the image, which `read` does.

    Raises StorageError: the store that it lies in can't be reached.
    """
    record = numbered.item
    assert isinstance(record, Record)
    try:
        if record.pixels is not None:
            check_pixels(*record.pixels.size, plan.options.max_pixels)  # before they are many bytes
        data = read(record)
        image = prepare(
            data,
            plan.options,
            boxes=record.boxes,
            keypoints=record.keypoints,
            masks=record.masks,
            measured_in=record.size,
            upright=record.upright,
            window=record.window,
            with_look=True,
        )
    except BadImage as error:
        return _rejected(numbered, error.stage, error.reason)
    except StorageError:  # a store that can't be reached is no fault of an image
        raise
    except OSError as error:
        return _rejected(numbered, "read", (error.strerror or str(error)).lower())
    names = None
    attributes = record.attributes
    if record.boxes is not None and image.kept is not None:
        n, kept = len(record.boxes), image.kept
        if record.box_labels is not None:
            names = [record.box_labels[i] for i in kept]
        attributes = {name: _of_boxes(value, n, kept) for name, value in attributes.items()}
    row = Row(
        id=record.id,
        split=shard.split,
        shard=shard.name,
        format=image.format,
        height=image.height,
        width=image.width,
        channels=image.channels,
        origin=record.origin,
        sha256=hashlib.sha256(image.encoded).hexdigest(),
        warning=image.warning,
        look=image.look,
        group_id=record.group,
        label=record.label,
        label_name=record.label_name,
        labels=None if record.labels is None else plan.labels_of(record.labels),
        label_names=None if record.labels is None else list(record.labels),
        value=None if record.value is None else float(record.value),
        captions=None if record.captions is None else list(record.captions),
        boxes=image.boxes,
        box_labels=None if names is None else [plan.box_classes.index(name) for name in names],
        box_label_names=names,
        masks=image.masks,
        keypoints=image.keypoints,
        attributes=attributes,
    )
    made = framed(plan, row, image.encoded)
    return replace(
        made,
        bytes_in=len(data),
        boxes_clipped=image.clipped,
        boxes_dropped=image.dropped,
        keypoints_dropped=image.points_dropped,
    )


def framed(plan: Decisions, row: Row, encoded: bytes) -> Made:
    """The record that says what `row` says, around the bytes of its image; where they are is filled in."""
    features = example.features_of(
        row,
        encoded,
        with_label=bool(plan.classes),
        multi_label=plan.multi_label,
        with_value=plan.values,
        with_boxes=plan.with_boxes,
        keypoints=plan.keypoints,
        keypoint_names=plan.keypoint_names,
    )
    features |= example.features_of_attributes(row, plan.attributes)
    payload = example.serialize(features)
    row.length, row.crc = len(payload), tfrecord.masked_crc(payload)
    row.image_offset = tfrecord.HEADER_BYTES + payload.index(encoded)
    row.image_length = len(encoded)
    return Made(row=row, record=tfrecord.frame(payload), bytes_in=len(encoded))


def pack_shard(shard: ShardPlan, folder: Path, made: Iterable[Made | Numbered]) -> ShardResult:
    """Writes a shard and its index into `folder`, of its records as `made` brings them, in the plan's order. Raises
    OSError, UsageError (in a forked child without Polars's threads)."""
    frames.check_process("pack_shard")
    rows: list[Row] = []
    rejects: list[Numbered] = []
    bytes_in = boxes_clipped = crc32c = 0
    boxes_dropped = Counter[str]()
    keypoints_dropped: Counter[str] = Counter()
    with publish.HashedFile(folder / shard.name) as file:
        for item in made:
            if isinstance(item, Numbered):
                rejects.append(item)
                continue
            item.row.offset += file.size
            item.row.image_offset += file.size
            item.row.record = len(rows)
            file.write(item.record)
            crc32c = google_crc32c.extend(crc32c, item.record)
            rows.append(item.row)
            bytes_in += item.bytes_in
            boxes_clipped += item.boxes_clipped
            boxes_dropped += item.boxes_dropped
            keypoints_dropped += item.keypoints_dropped
        size, sha256 = file.size, file.close()
    entry = ShardEntry(name=shard.name, split=shard.split, records=len(rows), bytes=size, sha256=sha256, crc32c=crc32c)
    spans = "".join(f"{row.offset} {row.length + tfrecord.OVERHEAD_BYTES}\n" for row in rows)
    bytes_of_spans = (folder / entry.index_name).write_bytes(spans.encode())
    return ShardResult(
        entry=entry,
        channels=max((row.channels for row in rows), default=0),
        warned=sum(row.warning is not None for row in rows),
        boxes=sum(len(row.boxes) for row in rows if row.boxes is not None),
        keypoint_sets=sum(
            int((row.keypoints[..., 2] > 0).any(axis=1).sum()) for row in rows if row.keypoints is not None
        ),
        refused=len(rejects),
        rejects=b"".join(line(reject.number, reject.item) for reject in rejects if isinstance(reject.item, Reject)),
        bytes_in=bytes_in,
        bytes_out=size + bytes_of_spans,
        boxes_clipped=boxes_clipped,
        boxes_dropped=boxes_dropped,
        keypoints_dropped=keypoints_dropped,
        index=index.to_bytes(rows),
        catalog=catalog.to_bytes(catalog.table(rows)),
    )


def _of_boxes(value: Any, n: int, kept: list[int]) -> Any:
    """An attribute's value for the boxes that are left, where it is a list with an entry for each of the `n` boxes."""
    return [value[i] for i in kept] if isinstance(value, list | tuple) and len(value) == n else value


def _rejected(numbered: Numbered, stage: str, reason: str) -> Numbered:
    assert isinstance(numbered.item, Record)
    return Numbered(numbered.number, rejected(numbered.item, stage, reason))
