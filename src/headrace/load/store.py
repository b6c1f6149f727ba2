"""Where a Dataset's records are: what the catalog says as arrays, and each image by its row. Shards are one such place.

Views, orders and batches are left to dataset and loader.
"""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DamageError, UsageError
from headrace.format import catalog, manifest, tfrecord
from headrace.imaging import codec
from headrace.imaging.placement import Placement, draw, place
from headrace.place import local

if TYPE_CHECKING:
    from headrace.sources.stack import Numbers


def decode_stored(
    data: NDArray[np.uint8],
    kind: str,
    height: int,
    width: int,
    channels: int,
    min_size: tuple[int, int] = (0, 0),
) -> codec.Pixels:
    """uint8 [h, w, channels] of bytes as the packer stores them, or as somebody else did. Raises BadImage."""
    if kind == "jpeg":
        return codec.decode_jpeg(data, height=height, width=width, channels=channels, min_size=min_size)
    if kind == "png":
        return codec.decode_png(data, channels=channels)
    encoded = data.tobytes()
    return codec.decode(encoded, header=codec.read_header(encoded, max_pixels=height * width), channels=channels)


def draw_stored(
    data: NDArray[np.uint8], kind: str, height: int, width: int, placement: Placement, out: codec.Pixels
) -> None:
    """Decodes stored bytes, at the smallest useful scale, into `out` [h, w, c]. Raises BadImage."""
    channels = out.shape[2]
    if kind == "jpeg" and placement == place(height, width, (height, width), "stretch"):
        codec.decode_jpeg(data, height=height, width=width, channels=channels, out=out)
        return
    pixels = decode_stored(data, kind, height, width, channels, placement.least(height, width))
    draw(pixels, placement, height, width, out)


def _check_unchanged(path: Path, promised: manifest.Manifest) -> None:
    """Raises DamageError that names each shard of somebody else that is not the one that was adopted."""
    changes = [
        f"\n  {Path(os.path.normpath(path / entry.name))}: {change}"
        for entry in promised.shards
        if (change := entry.change(path)) is not None
    ]
    if changes:
        more = [f"\n  ... and {len(changes) - 20} more"] if len(changes) > 20 else []
        raise DamageError(
            f"{path}: {len(changes)} of {len(promised.shards)} shards are not those that were adopted; put them back, "
            f"or run 'headrace adopt' on them again, with --overwrite:{''.join(changes[:20] + more)}"
        )


class Objects(NamedTuple):
    """Objects of some rows, one after the other, in stored pixels.

    `boxes` float32 [m, 4], zeros for an object that has none: `boxed` bool [m]. `labels` int64 [m], -1 where there is
    none. `keypoints` float32 [m, k, 3], absent ones for an object without. `of` int64 [m]: to which of the rows (0 to
    b - 1) each belongs.
    """

    boxes: NDArray[np.float32]
    boxed: NDArray[np.bool_]
    labels: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    of: NDArray[np.int64]


class Store(ABC):
    """What all views of a dataset share. Its columns are arrays with one entry per row of the catalog:

    `height`, `width`, `channels` of the stored images, `labels` int64 (-1 where there is none). `path` and `manifest`
    say what the dataset is, and `fingerprint` (hex) stands for all its content.

    `keeps`: images are no pixels but numbers as they were given, `image_shape` of `dtype` each. `kept`: what was given
    for each image beside it, [n, ...] by name, and kept too; an array alone has the name "".
    """

    keeps: bool = False
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    image_shape: tuple[int, ...] = ()
    kept: Mapping[str, Numbers] = MappingProxyType({})

    def __init__(self, path: Path, manifest: manifest.Manifest, catalog: pl.DataFrame) -> None:
        self.path, self.manifest, self.catalog = path, manifest, catalog
        self.height = catalog["height"].to_numpy()
        self.width = catalog["width"].to_numpy()
        self.channels = catalog["channels"].to_numpy()
        self.labels = catalog["label"].fill_null(-1).cast(pl.Int64).to_numpy()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) that stands for all content, whatever the view."""

    @abstractmethod
    def fetch(self, row: int) -> NDArray[np.uint8]:
        """The encoded bytes of the image of catalog row `row`, uint8 [length]. Raises DamageError."""

    @abstractmethod
    def draw(self, row: int, placement: Placement, out: NDArray[Any]) -> None:
        """Draws the image of catalog row `row` into `out` [h, w, c]; one that is kept is copied as it is, to [...].

        From any thread. Raises DamageError.
        """

    @abstractmethod
    def address(self, row: int) -> str:
        """Where a record lies, for people."""

    def read_kept(self, row: int, name: str) -> NDArray[Any]:
        """What `kept` has under `name` for catalog row `row`, [...]. From any thread. Raises DamageError."""
        raise KeyError(name)

    @abstractmethod
    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """sha256 (hex) of the content of the images of these rows [b]: equal where the images are. Raises DamageError.

        Of encoded images it is that of their bytes; of arrays that of the numbers, with their type and shape. So one
        image as a file and in an array has two.
        """

    def payload(self, row: int) -> bytes:
        """The tf.train.Example of catalog row `row`. Raises DamageError, UsageError (there are no records here)."""
        raise UsageError(f"{self.path}: its images lie in no records")

    @cached_property
    def ids(self) -> pl.Series:
        return self.catalog["id"]

    def ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The ids of these rows [b]."""
        return tuple(self.ids[rows].to_list())

    def prepare(self, *, keys: bool, boxes: bool) -> None:
        """Makes now what threads will ask for: a cached_property has no lock from Python 3.12 on."""
        _ = self.ids
        if keys:
            _ = self.keys
        if boxes:
            _ = self._all_objects

    @cached_property
    def named(self) -> bool:
        """Whether ids name the images. Else all are mere positions, in an array or in shards whose records say no id,
        and the same id in another dataset means nothing."""
        id_, origin = pl.col("id"), pl.col("origin").fill_null("")
        in_array = origin.str.ends_with(pl.concat_str(pl.lit("["), id_, pl.lit("]")))
        in_shard = (id_ == origin) & origin.str.contains(r":\d+$")
        return not self.catalog.select((in_array | in_shard).all()).item()

    @cached_property
    def keys(self) -> order.Keys:
        """uint64 [n]: what the random numbers of each record are drawn by."""
        return order.keys_of(self.ids)

    @cached_property
    def _all_objects(self) -> tuple[Objects, NDArray[np.int64]]:
        """The objects of all rows, and where each row's begin, int64 [n + 1].

        A list of the catalog costs 10 microseconds to look at, and a batch looks at many.
        """
        boxes, labels, points = (self.catalog[name] for name in ("boxes", "box_labels", "keypoints"))
        has_boxes, has_labels, has_points = (column.is_not_null().to_numpy() for column in (boxes, labels, points))
        sets = points.list.len().fill_null(0).to_numpy()
        counts = np.where(has_boxes, boxes.list.len().fill_null(0).to_numpy(), sets).astype(np.int64)
        m, k = int(counts.sum()), self.manifest.keypoints
        boxed = np.repeat(has_boxes, counts)
        corners = np.zeros((m, 4), np.float32)
        corners[boxed] = boxes.explode().drop_nulls().to_numpy().reshape(-1, 4)
        names = np.full(m, -1, np.int64)
        names[np.repeat(has_labels, counts)] = labels.explode().drop_nulls().to_numpy()
        spots = np.zeros((m, k, 3), np.float32)
        if k:
            flat = points.explode().drop_nulls().explode().to_numpy()
            spots[np.repeat(has_points, counts)] = flat.reshape(-1, k, 3)
        of = np.repeat(np.arange(len(counts)), counts)
        return Objects(corners, boxed, names, spots, of), np.concatenate([[0], np.cumsum(counts)])

    def objects(self, rows: NDArray[np.int64]) -> Objects:
        """The objects of these rows [b], one after the other. A row that nothing says boxes of has its keypoints."""
        every, _ = self._all_objects
        found, of = self._numbers(rows)
        return Objects(every.boxes[found], every.boxed[found], every.labels[found], every.keypoints[found], of)

    def boxes(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Boxes float32 [m, 4] of these rows [b] in stored pixels, one after the other, their labels int64 [m], and to
        which of the rows (0 to b - 1) each belongs, int64 [m]."""
        every, _ = self._all_objects
        found, of = self._numbers(rows)
        boxed = every.boxed[found]
        return every.boxes[found[boxed]], every.labels[found[boxed]], of[boxed]

    def _numbers(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of all objects are those of these rows [b], int64 [m], and to which of the rows each belongs."""
        _, begin = self._all_objects
        counts = begin[rows + 1] - begin[rows]
        of = np.repeat(np.arange(len(rows)), counts)
        return np.arange(len(of)) + np.repeat(begin[rows] - np.cumsum(counts) + counts, counts), of


class Shards(Store):
    """A packed or adopted dataset's files, open: manifest, catalog, and memory maps.

    `fetch(row)` gives the bytes of an image out of the map, not copied, after checking the CRC of the whole record; of
    a record that only names its image, the file's, after checking its sha256. Raises DamageError when shards of
    somebody else were changed since they were adopted.
    """

    def __init__(self, path: Path) -> None:
        promised = manifest.read(path)
        _check_unchanged(path, promised)
        super().__init__(path, promised, catalog.read(path, sha256=promised.files[catalog.FILE]))
        if len(self.catalog) != self.manifest.stored:
            raise DamageError(
                f"{path / catalog.FILE}: {len(self.catalog)} rows, the manifest says {self.manifest.stored}; "
                f"run 'headrace verify {path}'"
            )
        names = [entry.name for entry in self.manifest.shards]
        number = {name: i for i, name in enumerate(names)}
        self.shard = np.array([number.get(name, -1) for name in self.catalog["shard"]], np.int32)
        self.offset = self.catalog["offset"].to_numpy()
        self.length = self.catalog["length"].to_numpy()
        self.image_offset = self.catalog["image_offset"].to_numpy()
        self.image_length = self.catalog["image_length"].to_numpy()
        self.formats, of = np.unique(self.catalog["format"].to_numpy(), return_inverse=True)
        self.format = of.astype(np.uint8)  # a number for each row: a list of texts takes more memory
        self.first_row = np.searchsorted(self.shard, np.arange(len(names)))
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return Shards, (self.path,)

    @property
    def fingerprint(self) -> str:
        parts = [self.manifest.files[catalog.FILE], *(entry.sha256 for entry in self.manifest.shards)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def fetch(self, row: int) -> NDArray[np.uint8]:
        data, _ = self._record(row)
        if catalog.IMAGE_FILE in self.catalog.columns and (named := self.catalog[catalog.IMAGE_FILE][row]) is not None:
            return self._fetch_file(row, named)
        start = int(self.image_offset[row])
        return data[start : start + int(self.image_length[row])]

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        known = zip(rows.tolist(), self.catalog["sha256"][rows], strict=True)
        return [sha256 or hashlib.sha256(self.fetch(row).data).hexdigest() for row, sha256 in known]

    def payload(self, row: int) -> bytes:
        return bytes(self._record(row)[1])

    def draw(self, row: int, placement: Placement, out: NDArray[Any]) -> None:
        kind = str(self.formats[self.format[row]])
        data = self.fetch(row)
        try:
            draw_stored(data, kind, int(self.height[row]), int(self.width[row]), placement, out)
        except codec.BadImage as error:
            raise DamageError(f"{self.address(row)}: {error.reason}; run 'headrace verify {self.path}'") from None

    def address(self, row: int) -> str:
        shard = int(self.shard[row])
        entry = self.manifest.shards[shard]
        number = row - int(self.first_row[shard])
        if entry.foreign is not None:  # not every record of it is in the catalog
            number = int(self.catalog["origin"][row].rpartition(":")[2])
        return f"{Path(os.path.normpath(self.path / entry.name))}, record {number}"

    def _record(self, row: int) -> tuple[NDArray[np.uint8], tfrecord.Buffer]:
        """The shard's file and the payload in it, checked. Raises DamageError."""
        shard = int(self.shard[row])
        data = self._maps.get(shard)
        if data is None:
            data = self._open(shard)
        try:
            return data, tfrecord.payload_at(data, int(self.offset[row]), int(self.length[row]))
        except tfrecord.BadRecord as error:
            raise DamageError(f"{self.address(row)}, {error}; run 'headrace verify {self.path}'") from None

    def _fetch_file(self, row: int, name: str) -> NDArray[np.uint8]:
        """The bytes of an image that its record only names. Raises DamageError: changed, or not there any more."""
        images = self.path / str((self.manifest.adopted or {})["images"])
        try:
            data = local.inside(images, name).read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DamageError(
                f"{self.address(row)}: {images / name}: {reason}; run 'headrace verify {self.path}'"
            ) from None
        if hashlib.sha256(data).hexdigest() != self.catalog["sha256"][row]:
            raise DamageError(
                f"{self.address(row)}: {images / name} was changed since it was adopted; run 'headrace adopt' again"
            )
        return np.frombuffer(data, np.uint8)

    def _open(self, shard: int) -> NDArray[np.uint8]:
        with self._lock:
            if shard not in self._maps:
                if shard < 0:
                    raise DamageError(f"{self.path / catalog.FILE}: names a shard that the manifest does not")
                self._maps[shard] = local.map_file(self.path / self.manifest.shards[shard].name)
            return self._maps[shard]
