"""Datasets of any number of tiny PNGs, made by the block: real shards, index, catalog and manifest, ten million in a
minute or two. Every record is as the packer writes it, and `verify` finds nothing wrong; but with boxes: those are in
the catalog alone.

Images of a class are the same, ids have a fixed width: so all records are equally long, and a block of them is one
array in which ids and CRCs are filled in.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order
from headrace.format import catalog, example, index, manifest, tfrecord
from headrace.format.catalog import Row
from headrace.format.index import Index, Texts
from headrace.imaging.prepare import ImageOptions
from headrace.version import __version__

CLASSES = tuple(f"class {i}" for i in range(10))
SIDE = 8  # pixels
SHARDS = 16
_BLOCK = 1 << 16  # records


BOXES = 3  # of a record, where it has some
BOX_CLASSES = tuple(f"thing {i}" for i in range(5))


def write(folder: Path, records: int, *, boxes: bool = False) -> None:
    """A dataset of so many records in SHARDS shards, one split, a class each; with `boxes` BOXES of them in each."""
    folder.mkdir()
    form = _Form(len(str(records)))
    parts, entries = [], []
    for i in range(SHARDS):
        numbers = np.arange(records * i // SHARDS, records * (i + 1) // SHARDS)
        entry, rows, what = _shard(folder, f"train-{i:05d}-of-{SHARDS:05d}.tfrecord", numbers, form)
        if boxes:
            what = _with_boxes(what, seed=i)
        part = folder / f"{i}.index", folder / f"{i}.parquet"
        with part[0].open("wb") as file:
            rows.write(file)
        part[1].write_bytes(catalog.to_bytes(what))
        parts.append(part)
        entries.append(entry)
    index.join([of for of, _ in parts], folder / index.FILE)
    catalog.join([of for _, of in parts], folder / catalog.FILE)
    for path in (path for part in parts for path in part):
        path.unlink()
    (folder / manifest.REJECTS_FILE).write_bytes(b"")
    made = manifest.Manifest(
        headrace_version=__version__,
        seen=records,
        stored=records,
        rejected=0,
        classes=CLASSES,
        box_classes=BOX_CLASSES if boxes else (),
        boxes=BOXES * records if boxes else None,
        channels=1,
        shards=tuple(entries),
        pack_options=ImageOptions().as_json(),
        schema={column: str(kind) for column, kind in catalog.SCHEMA.items()},
    )
    for name, data in manifest.side_files(made, name=folder.name).items():
        (folder / name).write_bytes(data)
    entered = {entry.name for entry in entries}
    others = [path for path in sorted(folder.iterdir()) if path.name not in entered and path.suffix != ".idx"]
    made = replace(
        made,
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others},
        crc32c={name: google_crc32c.value((folder / name).read_bytes()) for name in (index.FILE, catalog.FILE)},
    )
    (folder / manifest.FILE).write_bytes(made.to_bytes())


def _with_boxes(what: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    n, rng = len(what), np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, SIDE, (n * BOXES, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    labels = rng.integers(0, len(BOX_CLASSES), n * BOXES)
    counts, says = np.full(n, BOXES), np.ones(n, bool)
    columns = {
        "boxes": pl.Series(corners, dtype=pl.Array(pl.Float32, 4)),
        "box_labels": pl.Series(labels.astype(np.int32)),
        "box_label_names": pl.Series(BOX_CLASSES).gather(labels),
    }
    return what.with_columns(catalog.lists(items, counts, says).alias(name) for name, items in columns.items())


class _Form:
    """What all records have in common. `frames` uint8 [10, r]: a whole record of each class, its id all zeros."""

    def __init__(self, digits: int) -> None:
        import cv2

        self.digits = digits
        nobody = self.id("0" * digits)
        y, x = np.mgrid[:SIDE, :SIDE]
        self.sha256, frames = [], []
        for label, name in enumerate(CLASSES):
            pixels = ((x * (label + 1) + y * 16) % 256).astype(np.uint8)
            encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
            self.sha256.append(hashlib.sha256(encoded).hexdigest())
            row = Row(
                id=nobody,
                split="train",
                shard="",
                format="png",
                height=SIDE,
                width=SIDE,
                channels=1,
                origin=nobody,
                sha256=self.sha256[-1],
                label=label,
                label_name=name,
            )
            features = example.features_of(row, encoded, with_label=True, with_boxes=False)
            frames.append(tfrecord.frame(example.serialize(features)))
            self.image_offset, self.image_length = frames[-1].index(encoded), len(encoded)
        self.frames = np.array([np.frombuffer(frame, np.uint8) for frame in frames])
        self.length = self.frames.shape[1] - tfrecord.OVERHEAD_BYTES
        first, at = frames[0], 0
        self.ids_at = []
        while (at := first.find(nobody.encode(), at)) >= 0:
            self.ids_at.append(at)
            at += 1

    @staticmethod
    def id(digits: str) -> str:
        return f"{digits}.png"

    def digits_of(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The numbers [n] in ASCII, uint8 [n, digits]."""
        powers = 10 ** np.arange(self.digits)[::-1]
        return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)

    def records(self, numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[bytes, list[int]]:
        """Records of these numbers [n], one after the other, and the masked CRC of each one's payload."""
        made = self.frames[labels]
        digits = self.digits_of(numbers)
        for at in self.ids_at:
            made[:, at : at + self.digits] = digits
        size, begin, end = made.shape[1], tfrecord.HEADER_BYTES, made.shape[1] - tfrecord.FOOTER_BYTES
        data = made.tobytes()
        crcs = [tfrecord.masked_crc(data[at + begin : at + end]) for at in range(0, len(data), size)]
        made[:, end:] = np.array(crcs, "<u4").view(np.uint8).reshape(-1, tfrecord.FOOTER_BYTES)
        return made.tobytes(), crcs


def _shard(
    folder: Path, name: str, numbers: NDArray[np.int64], form: _Form
) -> tuple[manifest.ShardEntry, Index, pl.DataFrame]:
    """Writes a shard and its .idx: its entry, and its parts of index and catalog."""
    n, size = len(numbers), form.frames.shape[1]
    labels = np.random.default_rng(int(numbers[0])).integers(0, len(CLASSES), n)
    sha256, crc32c, crcs = hashlib.sha256(), 0, list[int]()
    with (folder / name).open("wb") as file:
        for at in range(0, n, _BLOCK):
            data, some = form.records(numbers[at : at + _BLOCK], labels[at : at + _BLOCK])
            file.write(data)
            sha256.update(data)
            crc32c = google_crc32c.extend(crc32c, data)
            crcs += some
    entry = manifest.ShardEntry(
        name=name, split="train", records=n, bytes=n * size, sha256=sha256.hexdigest(), crc32c=crc32c
    )
    (folder / entry.index_name).write_text("".join(f"{at} {size}\n" for at in range(0, n * size, size)))
    ids = [form.id(digits.decode()) for digits in form.digits_of(numbers).view(f"S{form.digits}").ravel()]
    constants: dict[str, Any] = {
        "length": form.length,
        "image_offset": form.image_offset,
        "image_length": form.image_length,
        "height": SIDE,
        "width": SIDE,
        "channels": 1,
        "format": index.FORMATS.index("png"),
    }
    columns = {name: np.full(n, value, index.COLUMNS[name]) for name, value in constants.items()}
    columns |= {"offset": np.arange(n, dtype="<u8") * np.uint64(size), "record": np.arange(n, dtype="<u4")}
    columns |= {"key": order.keys_of(ids), "crc": np.array(crcs, "<u4")}
    what: dict[str, Any] = dict.fromkeys(catalog.WHAT) | {
        "id": ids,
        "split": "train",
        "label": labels,
        "label_name": pl.Series(CLASSES).gather(labels),
        "origin": ids,
        "sha256": pl.Series(form.sha256).gather(labels),
    }
    return entry, Index(columns, Texts.of(ids)), pl.DataFrame(what, schema=catalog.WHAT)
