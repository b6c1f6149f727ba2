"""Records drawn for tests and packed: shades, whose pixels tell the record's number, and photos of all kinds."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import headrace as hr
from drawn import picture, saved
from headrace.format import manifest
from headrace.load.facts import Facts
from headrace.load.targets import Labels
from headrace.place.open import at
from headrace.sources import SourceInfo

CLASSES = ("ant", "bee", "cow")
FACE = ("nose", "left_eye", "right_eye")


class Keep(hr.Target):
    """A target that gives the labels as they are."""

    wants_boxes = False
    wants_keypoints = True

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> Labels:
        return labels


class Source(list[hr.Record]):
    """Records, and what is said of the keypoints of all."""

    def __init__(self, records: Any, names: Sequence[str] | None = FACE, pairs: Any = None) -> None:
        super().__init__(records)
        self.info = SourceInfo(keypoint_names=None if names is None else tuple(names), flip_pairs=pairs)

    def __iter__(self) -> Generator[hr.Record, None, SourceInfo]:
        yield from super().__iter__()
        return self.info


def shades(n: int, *, side: int = 8, classes: Sequence[str] = CLASSES) -> list[hr.Record]:
    """Record k is a PNG of nothing but the value k: whatever happens to it on the way, it can be told. n up to 256."""
    return [
        hr.Record(
            id=f"{k:03d}",
            encoded=saved(np.full((side, side, 3), k, np.uint8), "PNG"),
            label_name=classes[k % len(classes)] if classes else None,
        )
        for k in range(n)
    ]


def photos(
    n: int = 60,
    *,
    grey: Sequence[int] = (),
    png: Sequence[int] = (),
    boxes: bool = False,
    unlabelled: Sequence[int] = (),
) -> list[hr.Record]:
    """Pictures of assorted sizes in three classes. Record k is grey where k % 10 is in `grey`, and so on.

    Boxes: record k has k % 4 of them, "left" and "right" by turns.
    """
    records = []
    for k in range(n):
        height, width = 20 + 7 * (k % 5), 24 + 5 * (k % 7)
        pixels = picture(height, width, channels=1 if k % 10 in grey else 3, seed=k)
        kind = "PNG" if k % 10 in png else "JPEG"
        some = np.array([[2 * j, j, 2 * j + 6 + k % 5, j + 9] for j in range(k % 4)], np.float32).reshape(-1, 4)
        records.append(
            hr.Record(
                id=f"dir/{k:03d}.{kind.lower()}",
                encoded=saved(pixels, kind, **({"quality": 90, "subsampling": 0} if kind == "JPEG" else {})),
                label_name=None if k % 10 in unlabelled else CLASSES[k % 3],
                boxes=some if boxes else None,
                box_labels=tuple(("left", "right")[j % 2] for j in range(len(some))) if boxes else None,
                attributes={"k": k},
                origin=f"list.txt:{k + 1}",
            )
        )
    return records


def faces(n: int = 12, *, boxes: bool = True) -> list[hr.Record]:
    """Pictures with k % 3 faces each, of whose points some are absent; every seventh picture says nothing of them."""
    rng = np.random.default_rng(5)
    records = []
    for k in range(n):
        height, width = 20 + 7 * (k % 5), 24 + 5 * (k % 7)
        corners = np.array([[2 * j, j, 2 * j + 11, j + 15] for j in range(k % 3)], np.float32).reshape(-1, 4)
        points = np.concatenate([rng.uniform(1, 19, (k % 3, 3, 2)), rng.integers(1, 3, (k % 3, 3, 1))], axis=2)
        points[:, k % 4 :: 4] = 0
        silent = k % 7 == 6
        records.append(
            hr.Record(
                id=f"{k:03d}.jpeg",
                encoded=saved(picture(height, width, seed=k), "JPEG"),
                boxes=corners if boxes else None,
                box_labels=("face",) * (k % 3) if boxes else None,
                keypoints=None if silent else points.astype(np.float32),
            )
        )
    return records


def pack(records: Sequence[hr.Record | hr.Reject], out: Path, **options: Any) -> hr.Dataset:
    """The dataset of these records, packed at `out`."""
    hr.pack(records, out, progress=False, **options)
    return hr.Dataset(out)


def pixels_of(record: hr.Record) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [h, w, c] of an encoded record, decoded by Pillow: the judge of our own decoders."""
    pixels = np.asarray(Image.open(io.BytesIO(record.read())))
    return pixels.reshape(*pixels.shape[:2], -1)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Turns one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def shard_of(ds: hr.Dataset, i: int) -> tuple[Path, int, int, int]:
    """(file, record number in it, offset, payload length) of record `i` of a dataset."""
    row = ds.catalog.row(i, named=True)
    names = ds.store.table.frame(["shard"])["shard"].to_list()
    return ds.path / row["shard"], int(ds.rows[i]) - names.index(row["shard"]), row["offset"], row["length"]


def threads() -> set[threading.Thread]:
    """Our threads that are alive (tqdm and TensorFlow have theirs)."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("headrace")}


def threads_left(before: set[threading.Thread]) -> set[threading.Thread]:
    """Our threads that stay beside those of `before`, once the others had the time to end."""
    gc.collect()  # a failed test's traceback may hold an iterator
    for thread in threads() - before:
        thread.join(timeout=10)
    return threads() - before


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Writes the manifest anew with some values changed, soundly signed."""
    from dataclasses import replace

    (folder / manifest.FILE).write_bytes(replace(manifest.read(at(folder)), **changes).to_bytes())
