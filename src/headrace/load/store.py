"""Where a Dataset's records are: what the catalog says as arrays, and each image by its row. Shards are one such place.

Views, orders and batches are left to dataset and loader.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order, parallel
from headrace.errors import DamageError, HeadraceError, StorageError, UsageError
from headrace.format import index, manifest, tfrecord
from headrace.format.frames import anywhere
from headrace.format.tables import Table, Tables, holds
from headrace.format.tfrecord import masked_crc
from headrace.imaging import codec, geometry
from headrace.imaging.placement import Placement, carry, carry_points, draw
from headrace.load.copies import Copies, Payloads
from headrace.place.address import Location, Place, Url, is_url, reason
from headrace.place.cache import Cache

if TYPE_CHECKING:
    from headrace.sources.stack import Numbers


def decode_stored(
    data: NDArray[np.uint8],
    kind: str,
    height: int,
    width: int,
    channels: int,
) -> codec.Pixels:
    """uint8 [h, w, channels] of bytes as the packer stores them, or as they lie in external shards. Raises BadImage."""
    if kind == "jpeg":
        return codec.decode_jpeg(data, height=height, width=width, channels=channels)
    if kind == "png":
        return codec.decode_png(data, channels=channels)
    encoded = data.tobytes()
    return codec.decode(encoded, header=codec.read_header(encoded, max_pixels=height * width), channels=channels)


def draw_stored(
    data: NDArray[np.uint8], kind: str, height: int, width: int, placement: Placement, out: codec.Pixels
) -> None:
    """Decodes stored bytes, at the smallest useful scale, into `out` [h, w, c]. Raises BadImage."""
    channels = out.shape[2]
    if kind == "jpeg":
        if placement.keeps(height, width):
            codec.decode_jpeg(data, height=height, width=width, channels=channels, out=out)
            return
        least = placement.least(height, width)
        pixels = codec.decode_jpeg(data, height=height, width=width, channels=channels, min_size=least)
    elif kind == "png":
        pixels = codec.decode_png(data, channels=channels)
    else:
        pixels = decode_stored(data, kind, height, width, channels)
    draw(pixels, placement, height, width, out)


ReadRecord: TypeAlias = Callable[[str, int, int, int], bytes]  # Place.record


class Drawing(Protocol):
    """Draws one of b images. From any thread."""

    def __call__(self, i: int, placement: Placement, out: NDArray[Any], /) -> None:
        """Draws image `i` (0 to b - 1) into `out` [h, w, c]; one that is kept is copied as it is, to [...].

        Raises DamageError.
        """


def _check_unchanged(place: Place, promised: manifest.Manifest) -> None:
    """Raises DamageError that names each external shard that is not the one that was adopted."""
    if promised.adopted is None:
        return
    far = any(is_url(entry.name) for entry in promised.shards) or isinstance(place.path, Url)

    def changed(entry: manifest.ShardEntry) -> str | None:
        return entry.change(place)

    if far:  # each is asked for over the network
        found = list(parallel.ordered(changed, promised.shards, workers=_ASKING, ahead=4 * _ASKING))
    else:
        found = list(map(changed, promised.shards))
    changes = [
        f"\n  {place.address(entry.name)}: {change}"
        for entry, change in zip(promised.shards, found, strict=True)
        if change is not None
    ]
    if changes:
        more = [f"\n  ... and {len(changes) - 20} more"] if len(changes) > 20 else []
        raise DamageError(
            f"{place.path}: {len(changes)} of {len(promised.shards)} shards are not those that were adopted; put them "
            f"back, or run 'headrace adopt' on them again, with --overwrite:{''.join(changes[:20] + more)}"
        )


class Objects(NamedTuple):
    """Objects of some rows, one after the other, in stored pixels, or in those of a batch that was made of them.

    `boxes` float32 [m, 4], zeros for an object that has none: `boxed` bool [m]. `labels` int64 [m], -1 where there is
    none. `keypoints` float32 [m, k, 3], absent ones for an object without. `of` int64 [m]: to which of the rows (0 to
    b - 1) each belongs.
    """

    boxes: NDArray[np.float32]
    boxed: NDArray[np.bool_]
    labels: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    of: NDArray[np.int64]

    @classmethod
    def none(cls) -> Objects:
        """No objects, without keypoints."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, bool),
            np.zeros(0, np.int64),
            np.zeros((0, 0, 3), np.float32),
            np.zeros(0, np.int64),
        )

    def take(self, which: NDArray[Any] | slice) -> Objects:
        """Those objects, in that order."""
        boxes, boxed, labels, keypoints, of = self
        return Objects(boxes[which], boxed[which], labels[which], keypoints[which], of[which])

    def split(self, b: int) -> list[Objects]:
        """Those of each of the `b` rows."""
        begin = np.searchsorted(self.of, np.arange(b + 1)).tolist()
        return [self.take(slice(start, stop)) for start, stop in itertools.pairwise(begin)]

    def shifted(self, x: float, y: float) -> Objects:
        """All of them by so many pixels; absent keypoints stay where they are."""
        points = self.keypoints + (self.keypoints[..., 2:] > 0) * np.array([x, y, 0], np.float32)
        return self._replace(boxes=self.boxes + np.array([x, y, x, y], np.float32), keypoints=points)

    def carried(
        self, placements: Sequence[Placement], *, min_visible: float, mirrored: NDArray[np.int64] | None = None
    ) -> Objects:
        """What is left of them in the outputs of their rows' placements: of one with a box `min_visible` of that, of
        another a keypoint. Raises UsageError as carry_points does."""
        if not self.keypoints.shape[1]:
            boxes, kept = carry(self.boxes, placements, self.of, min_visible=min_visible)
            return self.take(kept)._replace(boxes=boxes)
        points = carry_points(self.keypoints, placements, self.of, mirrored=mirrored)
        boxes = geometry.around(points)
        there = (points[..., 2] > 0).any(axis=1) & ~self.boxed
        boxed = np.flatnonzero(self.boxed)
        moved, seen = carry(self.boxes[boxed], placements, self.of[boxed], min_visible=min_visible)
        boxes[boxed[seen]], there[boxed[seen]] = moved, True
        return self._replace(boxes=boxes, keypoints=points).take(there)

    @classmethod
    def joined(cls, parts: Sequence[Objects]) -> Objects:
        """Those of all rows: the parts are numbered anew, by their order."""
        if not parts:
            return cls.none()
        of = np.repeat(np.arange(len(parts)), [len(part.of) for part in parts])
        boxes, boxed, labels, keypoints, _ = (np.concatenate(some) for some in zip(*parts, strict=True))
        return cls(boxes, boxed, labels, keypoints, of)


class _AllObjects(NamedTuple):
    """The objects of all rows, where each row's begin, int64 [n + 1], and of which rows anything is said, bool [n]."""

    objects: Objects
    begin: NDArray[np.int64]
    says_boxes: NDArray[np.bool_]
    says_keypoints: NDArray[np.bool_]


class _Several(NamedTuple):
    """The classes of all rows that may have several: int32 [m], one row after the other, where each row's begin,
    int64 [n + 1], and of which rows anything is said, bool [n]."""

    labels: NDArray[np.int32]
    begin: NDArray[np.int64]
    says: NDArray[np.bool_]


class Far(NamedTuple):
    """Records that lie far away: their copies, and what rows of a dataset are called there, [m] of those that are."""

    copies: Copies
    rows_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]


class Store(ABC):
    """What all views of a dataset share: its `table` and `manifest`, and images by row. Arrays have an entry per row:

    `height`, `width`, `channels` of the stored images, `labels` int32 (-1 where there is none), `keys` uint64 (what
    random numbers of each record are drawn by). `fingerprint` (hex) stands for all content.

    `keeps`: images are no pixels but numbers as they were given, `image_shape` of `dtype` each. `kept`: what was given
    for each image beside it, [n, ...] by name, and kept too; an array alone has the name "".

    `shares`: how much of an epoch each part of a mix has, `part_names` what they are called; () where there are none.

    `copies`: of a dataset that lies far away; None where it is here.
    """

    copies: Copies | None = None
    shares: tuple[float, ...] = ()
    part_names: tuple[str, ...] = ()
    keeps: bool = False
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    image_shape: tuple[int, ...] = ()
    kept: Mapping[str, Numbers] = MappingProxyType({})
    height: NDArray[Any]
    width: NDArray[Any]
    channels: NDArray[Any]

    def __init__(self, path: Location, manifest: manifest.Manifest, table: Table) -> None:
        self.path, self.manifest, self.table = path, manifest, table

    def __len__(self) -> int:
        return self.manifest.stored

    @property
    def far(self) -> tuple[Far, ...]:
        """What of it lies far away, of which a loader fetches records before their turn; () where all is here."""
        return () if self.copies is None else (Far(self.copies, _same),)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) that stands for all content, whatever the view."""

    @property
    def records_fingerprint(self) -> str:
        """sha256 (hex) that stands for the records and their rows: the same whatever an edit says of them."""
        return self.fingerprint

    @property
    def live(self) -> NDArray[np.int64] | None:
        """The rows int64 [m], ascending, that no edit has dropped; None for all."""
        return None

    @abstractmethod
    def fetch(self, row: int) -> NDArray[np.uint8]:
        """The encoded bytes of the image of catalog row `row`, uint8 [length]. Raises DamageError."""

    @abstractmethod
    def drawing(self, rows: NDArray[np.int64], held: Payloads | None = None) -> Drawing:
        """Who draws the images of these rows [b]: where they lie is looked up here, once for all of them. held: records
        that were fetched for it, where there are `copies`."""

    @abstractmethod
    def address(self, row: int) -> str:
        """Where a record lies, for people."""

    @abstractmethod
    def ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The ids of these rows [b]."""

    @abstractmethod
    def splits_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The splits of these rows [b], by their numbers in `manifest.splits`, int64."""

    @property
    @abstractmethod
    def keys(self) -> NDArray[np.uint64]:
        """uint64 [n]: what the random numbers of each record are drawn by."""

    @abstractmethod
    def check_whole(self) -> None:
        """Raises DamageError: a table was cut since it was opened."""

    def parts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The parts of these rows [b], by their number in `shares`, int64."""
        return np.zeros(len(rows), np.int64)

    def is_current(self) -> bool:
        """Whether what was opened is still what lies there; of what lies in memory always."""
        return True

    def reopened(self, version: int | None = None) -> Store:
        """What lies there now, or an earlier version of it, opened anew; of what lies in memory itself. Raises as
        opening does."""
        return self

    def read_kept(self, row: int, name: str) -> NDArray[Any]:
        """What `kept` has under `name` for catalog row `row`, [...]. From any thread. Raises DamageError."""
        raise KeyError(name)

    @abstractmethod
    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """sha256 (hex) of the content of the images of these rows [b]: equal where the images are. Raises DamageError.

        Of encoded images it is that of their bytes; of arrays that of the numbers, with their type and shape. So one
        image as a file and in an array has two.
        """

    def is_edited(self, row: int) -> bool:
        """Whether something else is said of catalog row `row` than its record says."""
        return False

    def payload(self, row: int) -> bytes:
        """The tf.train.Example of catalog row `row`. Raises DamageError, UsageError (there are no records here)."""
        raise UsageError(f"{self.path}: its images lie in no records")

    def prepare(self, *, keys: bool, boxes: bool) -> None:
        """Makes now what threads will ask for: they would each make it for themselves, or wait for another."""
        _ = self.labels
        if self.manifest.multi_label:
            _ = self._several
        if self.manifest.values:
            _ = self._values
        if keys:
            _ = self.keys
        if boxes:
            _ = self._all_objects

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """Class indices int32 [n], -1 for a record without a label. Raises DamageError."""
        return anywhere(_labels, self.table)

    def kinds_of(self, rows: NDArray[np.int64] | None) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """What dividing these rows [n], by default all, looks at: a number for all classes of each, int64 [n], None
        where an image has one at most; and one for its group, its own where it has none, None where no row has one."""
        return anywhere(_kinds, self.table, rows, self.manifest.multi_label)

    @cached_property
    def _several(self) -> _Several:
        return anywhere(_several, self.table)

    @cached_property
    def _values(self) -> NDArray[np.float64]:
        return anywhere(_values, self.table)

    def says_labels(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether anything is said of the classes of these rows [b], where there may be several, if only that they have
        none; bool [b]."""
        return self._several.says[rows] if self.manifest.multi_label else np.zeros(len(rows), bool)

    def several(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which classes each of these rows [b] has, bool [b, classes]; [0, 0] where records have one at most."""
        if not self.manifest.multi_label:
            return np.zeros((0, 0), bool)
        found, of = _spans(self._several.begin, rows)
        several = np.zeros((len(rows), len(self.manifest.classes)), bool)
        several[of, self._several.labels[found]] = True
        return several

    def classes_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes of these rows [b], one after the other, int64 [m], and to which of the rows (0 to b - 1) each
        belongs."""
        if self.manifest.multi_label:
            found, of = _spans(self._several.begin, rows)
            return self._several.labels[found].astype(np.int64), of
        labels = self.labels[rows].astype(np.int64)
        of = np.flatnonzero(labels >= 0)
        return labels[of], of

    def class_counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of these rows [b] have each class, int64 [classes]."""
        return np.bincount(self.classes_of(rows)[0], minlength=len(self.manifest.classes))

    def values(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The number that is known of each of these rows [b], float64, NaN where there is none; [0] where there are
        none in the dataset."""
        return self._values[rows] if self.manifest.values else np.zeros(0)

    @cached_property
    def _all_objects(self) -> _AllObjects:
        """A list of the catalog costs 10 microseconds to look at, and a batch looks at many."""
        return anywhere(_objects, self.table, self.manifest.keypoints)

    def says_boxes(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether anything is said of the boxes of these rows [b], if only that there are none; bool [b]."""
        return self._all_objects.says_boxes[rows]

    def says_keypoints(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same of keypoints."""
        return self._all_objects.says_keypoints[rows]

    def objects(self, rows: NDArray[np.int64]) -> Objects:
        """The objects of these rows [b], one after the other. A row that nothing says boxes of has its keypoints."""
        every = self._all_objects.objects
        found, of = self._numbers(rows)
        return Objects(every.boxes[found], every.boxed[found], every.labels[found], every.keypoints[found], of)

    def boxes(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Boxes float32 [m, 4] of these rows [b] in stored pixels, one after the other, their labels int64 [m], and to
        which of the rows (0 to b - 1) each belongs, int64 [m]."""
        every = self._all_objects.objects
        found, of = self._numbers(rows)
        boxed = every.boxed[found]
        return every.boxes[found[boxed]], every.labels[found[boxed]], of[boxed]

    def box_counts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many boxes each of these rows [b] has, int64 [b]."""
        begin = self._all_objects.begin
        return np.where(self.says_boxes(rows), begin[rows + 1] - begin[rows], 0)

    def keypoint_sets(self, rows: NDArray[np.int64]) -> int:
        """How many sets of keypoints these rows [b] have."""
        begin = self._all_objects.begin
        return int((begin[rows + 1] - begin[rows])[self.says_keypoints(rows)].sum())

    @cached_property
    def _by_key(self) -> NDArray[np.int64]:
        """The rows int64 [n] by their keys."""
        return np.argsort(self.keys, kind="stable")

    def row_of(self, id_: str, *, among: NDArray[np.int64] | None = None, dropped: bool = False) -> int | None:
        """The row of a record by its id, None where there is none; `among`: of these rows [b], as a record that several
        parts have has several; `dropped`: also where it was dropped."""
        (key,) = order.keys_of([id_])
        at = int(np.searchsorted(self.keys, key, sorter=self._by_key))
        while at < len(self) and self.keys[row := int(self._by_key[at])] == key:
            is_of_id = self.ids_of(np.array([row])) == (id_,) and (dropped or self._lives(row))
            if is_of_id and (among is None or (among == row).any()):
                return row
            at += 1
        return None

    def _lives(self, row: int) -> bool:
        live = self.live
        if live is None:
            return True
        at = int(np.searchsorted(live, row))
        return at < len(live) and int(live[at]) == row

    def _numbers(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of all objects are those of these rows [b], int64 [m], and to which of the rows each belongs."""
        return _spans(self._all_objects.begin, rows)


def _same(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows


def _spans(begin: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the items of these rows [b] are among all, int64 [m], by where each row's begin [n + 1]; and to which of
    the rows (0 to b - 1) each belongs."""
    counts = begin[rows + 1] - begin[rows]
    of = np.repeat(np.arange(len(rows)), counts)
    return np.arange(len(of)) + np.repeat(begin[rows] - np.cumsum(counts) + counts, counts), of


def _splits(table: Table, names: list[str]) -> NDArray[np.int32]:
    column = table.frame(["split"])["split"]
    return column.replace_strict(names, list(range(len(names))), default=-1, return_dtype=pl.Int32).to_numpy()


def _labels(table: Table) -> NDArray[np.int32]:
    return table.frame(["label"])["label"].fill_null(-1).to_numpy()


def _several(table: Table) -> _Several:
    column = table.frame(["labels"])["labels"]
    counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    labels = column.explode().drop_nulls().to_numpy()
    return _Several(labels, np.concatenate([[0], np.cumsum(counts)]), column.is_not_null().to_numpy())


def _values(table: Table) -> NDArray[np.float64]:
    return table.frame(["value"])["value"].fill_null(np.nan).to_numpy()


def _kinds(
    table: Table, rows: NDArray[np.int64] | None, multi_label: bool
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    several = groups = None
    if multi_label:
        sets = pl.col("labels").list.sort().list.eval(pl.element().cast(pl.String)).list.join(" ")
        several = table.frame(["labels"], rows).select(sets.rank("dense").fill_null(0))["labels"].to_numpy()
        several = several.astype(np.int64)
    names = table.frame(["group_id"], rows)["group_id"]
    if names.count():
        # By who comes first, whatever the groups are called.
        first = names.to_frame().with_row_index("row").select(pl.col("row").min().over("group_id"))["row"].to_numpy()
        groups = np.where(names.is_null().to_numpy(), np.arange(len(names)), first)
        groups = np.unique(groups, return_inverse=True)[1]
    return several, groups


def _objects(table: Table, k: int) -> _AllObjects:
    columns = table.frame(["boxes", "box_labels", "keypoints"])
    boxes, labels, points = (columns[name] for name in ("boxes", "box_labels", "keypoints"))
    has_boxes, has_labels, has_points = (column.is_not_null().to_numpy() for column in (boxes, labels, points))
    sets = points.list.len().fill_null(0).to_numpy()
    counts = np.where(has_boxes, boxes.list.len().fill_null(0).to_numpy(), sets).astype(np.int64)
    m = int(counts.sum())
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
    begin = np.concatenate([[0], np.cumsum(counts)])
    return _AllObjects(Objects(corners, boxed, names, spots, of), begin, has_boxes, has_points)


class _Where(NamedTuple):
    """Where the image of a row lies: what the index says of it (index.COLUMNS)."""

    row: int
    shard: int
    offset: int
    length: int
    crc: int
    image_offset: int
    image_length: int
    format: int
    height: int
    width: int


class Shards(Store):
    """A packed or adopted dataset's files: tables that are open, and shards that are read record by record.

    `fetch(row)` gives the bytes of an image whose record has the CRC that the index promises: what was cut, replaced
    or written anew since is a DamageError, and never another image. Of a record that only names its image it is the
    file that is read and checked. Pickles as its path and version. Raises DamageError when external shards were changed
    since they were adopted.
    """

    def __init__(self, home: Place, cache: Cache | None = None, version: int | None = None) -> None:
        self._open(Tables(home, version), cache)

    def _open(self, tables: Tables, cache: Cache | None) -> None:
        self.tables, self._index, self._cache = tables, tables.index, cache
        promised = tables.manifest
        super().__init__(tables.home.path, promised, tables)
        _check_unchanged(tables.place, promised)
        column = tables.index.columns
        self.height, self.width, self.channels = column["height"], column["width"], column["channels"]
        self._where_columns = [column[name] for name in _Where._fields[2:]]
        self._names = [entry.name for entry in promised.shards]
        self._record, self._near, self._near_names = tables.place.record, tables.place.record, self._names
        if _is_far(tables):
            self.copies = Copies(tables, Cache() if cache is None else cache)
            # Copies are read as shards of this machine are; of what is wrong with one, `fetch` knows.
            self._record, self._near = self.copies.record, self.copies.cache.copies.record
            self._near_names = self.copies.names
        elif cache is not None:
            raise UsageError(f"{self.path}: lies on this machine, and needs no cache; leave out cache_dir, cache_bytes")
        images = (promised.adopted or {}).get("images")
        self._images = None if images is None else tables.place.within(images)

    def in_version(self, version: int) -> Shards:
        """Another version of the dataset."""
        return Shards(self.tables.home, self._cache, version)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.tables, self._cache)

    @cached_property
    def fingerprint(self) -> str:
        return self.tables.fingerprint

    @cached_property
    def records_fingerprint(self) -> str:
        return self.tables.records_fingerprint

    @property
    def live(self) -> NDArray[np.int64] | None:
        return self.tables.live

    def is_edited(self, row: int) -> bool:
        return self.tables.edited is not None and bool(self.tables.edited[row])

    @property
    def keys(self) -> NDArray[np.uint64]:
        return self._index["key"]

    def check_whole(self) -> None:
        self._index.check_whole()

    def ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return self.tables.ids(rows)

    def splits_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._split_of_row is not None:
            return self._split_of_row[rows].astype(np.int64)
        of: NDArray[np.int64] = self._split_of_shard[self.tables.shard(rows)]
        return of

    @cached_property
    def _split_of_shard(self) -> NDArray[np.int64]:
        splits = list(self.manifest.splits)
        return np.array([splits.index(entry.split) for entry in self.manifest.shards], np.int64)

    @cached_property
    def _split_of_row(self) -> NDArray[np.int32] | None:
        """Once records were moved, the catalog knows; -1 for the split of dropped ones alone."""
        if self.manifest.split_records is None:
            return None
        return anywhere(_splits, self.table, list(self.manifest.splits))

    def fetch(self, row: int) -> NDArray[np.uint8]:
        return self._fetch(self._where(row))

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        known = zip(rows.tolist(), self.table.frame(["sha256"], rows)["sha256"].to_list(), strict=True)
        return [sha256 or hashlib.sha256(self.fetch(row).data).hexdigest() for row, sha256 in known]

    def payload(self, row: int) -> bytes:
        return self._payload(self._where(row))

    def drawing(self, rows: NDArray[np.int64], held: Payloads | None = None) -> Drawing:
        columns = (column[rows].tolist() for column in self._where_columns)
        located = list(zip(rows.tolist(), self.tables.shard(rows).tolist(), *columns, strict=True))
        record: ReadRecord = self._near
        names, header = self._near_names, tfrecord.HEADER_BYTES
        if held:
            record = _at_hand(held, record)

        def draw(i: int, placement: Placement, out: NDArray[Any]) -> None:
            # What `_fetch` does, for a sound record of its own, in fewer steps: here each is taken for every image.
            row, shard, offset, length, crc, at, size, kind, height, width = located[i]
            try:
                data = record(names[shard], offset + header, length, crc) if at else b""
            except StorageError:
                data = b""  # of which `fetch` says what is wrong
            sound = at and len(data) == length and masked_crc(data) == crc
            encoded = np.frombuffer(data, np.uint8, size, at - header) if sound else self.fetch(row)
            try:
                draw_stored(encoded, index.FORMATS[kind], height, width, placement, out)
            except codec.BadImage as error:
                raise DamageError(f"{self.address(row)}: {error.reason}; run 'headrace verify {self.path}'") from None

        return draw

    def is_current(self) -> bool:
        try:
            return manifest.read(self.tables.home) == self.manifest
        except HeadraceError:
            return False

    def reopened(self, version: int | None = None) -> Shards:
        return Shards(self.tables.home, self._cache, version)

    def address(self, row: int) -> str:
        entry = self.manifest.shards[self._where(row).shard]
        return f"{self.tables.place.address(entry.name)}, record {int(self._index['record'][row])}"

    def _where(self, row: int) -> _Where:
        shard = int(np.searchsorted(self.tables.first_row, row, side="right")) - 1
        return _Where(row, shard, *(column[row].item() for column in self._where_columns))

    def _fetch(self, where: _Where) -> NDArray[np.uint8]:
        """The encoded bytes of an image. Raises DamageError."""
        if not where.image_offset:
            return self._fetch_file(where)
        return np.frombuffer(
            self._payload(where), np.uint8, where.image_length, where.image_offset - tfrecord.HEADER_BYTES
        )

    def _payload(self, where: _Where) -> bytes:
        """The payload of a record, checked. Raises DamageError, StorageError (too many open files, no memory)."""
        start, length = where.offset + tfrecord.HEADER_BYTES, where.length
        try:
            data = self._record(self._names[where.shard], start, length, where.crc)
        except StorageError as error:
            raise self._unread(where, error) from error.__cause__
        if len(data) == length and masked_crc(data) == where.crc:
            return data
        if not where.image_offset:  # the CRC is that of the file, the record vouches for itself
            return self._own_payload(where)
        if len(data) < length:
            found = f"byte {start + len(data)}: the file ends here, the record has {length} bytes from byte {start}"
        else:
            found = f"byte {start}: payload CRC is 0x{masked_crc(data):08x}, expected 0x{where.crc:08x}"
        raise self._damage(where, found)

    def _own_payload(self, where: _Where) -> bytes:
        """The payload of a record, held against its own CRCs. Raises DamageError."""
        size = where.length + tfrecord.OVERHEAD_BYTES
        try:
            data = self.tables.place.read(self._names[where.shard], where.offset, size)
            return bytes(tfrecord.payload_at(data, 0, where.length))
        except tfrecord.BadRecord as error:
            raise self._damage(where, f"byte {where.offset + error.offset}: {error.reason}") from None
        except StorageError as error:
            raise self._unread(where, error) from error.__cause__

    def _fetch_file(self, where: _Where) -> NDArray[np.uint8]:
        """The bytes of an image that its record only names. Raises DamageError: changed, or not there any more."""
        files, address = self._index.files, self.address(where.row)
        if files is None or self._images is None:
            raise DamageError(f"{address}: has no image, and names none; run 'headrace verify {self.path}'")
        name = files[where.row]
        try:
            data = self._images.held(name, where.image_length)
        except OSError as error:
            raise DamageError(
                f"{address}: {self._images.address(name)}: {reason(error)}; run 'headrace verify {self.path}'"
            ) from None
        if masked_crc(data) != where.crc:
            raise DamageError(
                f"{address}: {self._images.address(name)} was changed since it was adopted; adopt the shards again"
            )
        return np.frombuffer(data, np.uint8)

    def _unread(self, where: _Where, error: StorageError) -> HeadraceError:
        """What to say when a record can't be read: the process may lack something, or the file is damaged or gone. A
        store that gives no answer is no damage."""
        ours = isinstance(error.__cause__, OSError) and error.__cause__.errno in _OURS
        return error if ours or self.copies is not None else self._damage(where, str(error))

    def _damage(self, where: _Where, found: str) -> DamageError:
        """What to say of a record that is not the one that was promised."""
        entry = self.manifest.shards[where.shard]
        self.tables.place.forget(entry.name)
        if not holds(self.tables.home, self.manifest):
            found += "; the dataset was replaced or removed since it was opened: open it again"
        elif (change := entry.change(self.tables.place)) is not None:
            found += f"; the shard was changed since it was adopted ({change}): adopt it again"
        elif self.copies is not None:
            found += (
                "; what the store gives is not what was packed: the shard was changed since; pack the dataset again"
            )
        else:
            found += f"; run 'headrace verify {self.path}'"
        return DamageError(f"{self.address(where.row)}, {found}")


_ASKING = 32  # threads that ask a store for the shards of others

# What a process may lack that reads a sound file.
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


def _is_far(tables: Tables) -> bool:
    """Whether any shard lies in a store."""
    return isinstance(tables.place.path, Url) or any(is_url(entry.name) for entry in tables.manifest.shards)


def _at_hand(held: Payloads, record: ReadRecord) -> ReadRecord:
    """`record`, of what is not held."""

    def found(name: str, offset: int, length: int, crc: int) -> bytes:
        return held.get((name, offset)) or record(name, offset, length, crc)

    return found


def _reopened(tables: Tables, cache: Cache | None) -> Shards:
    store = object.__new__(Shards)
    store._open(tables, cache)
    return store
