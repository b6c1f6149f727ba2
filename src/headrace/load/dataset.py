"""Dataset: a packed dataset or a view of one. Length, records by number, splits, filters, and the way to a Loader."""

from __future__ import annotations

import base64
import difflib
import functools
import html
import inspect
import io
import logging
import operator
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, ParamSpec, TypeAlias, TypeVar, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order
from headrace.checking.verify import Verdict, features_by_tables, verify
from headrace.errors import DamageError, UnknownIdError, UsageError
from headrace.format import catalog, example, manifest
from headrace.format.versions import Version, addressed, as_it_was, history
from headrace.imaging import codec
from headrace.imaging.augment import Augmentation
from headrace.imaging.geometry import MIN_VISIBLE
from headrace.imaging.placement import Fit
from headrace.load.store import Shards, Store, decode_stored
from headrace.load.view import View
from headrace.place.address import Location, is_url
from headrace.place.cache import Cache as CacheFolder
from headrace.place.open import at
from headrace.record import Record
from headrace.sources.info import SourceInfo
from headrace.splits import grouped_shares, shares
from headrace.world import World

if TYPE_CHECKING:
    from PIL import Image

    from headrace.exporting.export import ExportReport
    from headrace.feeds.torchmap import TorchDataset
    from headrace.load.loader import Cache, Loader, OnBad, Order
    from headrace.load.mix import Mix
    from headrace.load.targets import Target
    from headrace.load.weights import Weights
    from headrace.viewing.serve import Viewer


Chosen: TypeAlias = "slice | list[int] | list[bool] | list[str] | NDArray[Any] | pl.Series"

_log = logging.getLogger("headrace")
_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")

# What other libraries call the arguments of a loader.
_ELSEWHERE = {
    "size": ("image_size", "img_size", "target_size", "input_size", "resize", "shape", "image_shape"),
    "workers": ("num_workers", "max_workers", "threads", "num_threads", "n_jobs", "num_parallel_calls"),
    "batch_size": ("batch", "bs", "n", "batchsize", "train_batch_size"),
    "mix": ("mixup", "cutmix", "mosaic"),
    "augment": ("transform", "transforms", "augmentation", "augmentations", "map", "preprocessing"),
    "target": ("targets", "target_transform", "label_mode", "labels"),
    "fit": ("resize_mode", "mode", "crop_to_aspect_ratio", "pad_to_aspect_ratio"),
    "drop_last": ("drop_remainder", "drop_uneven"),
    "seed": ("random_state", "generator", "random_seed", "shuffle_seed"),
    "shuffle": ("shuffle_buffer", "shuffle_files", "buffer_size", "reshuffle_each_iteration", "randomize"),
    "world": ("rank", "world_size", "num_replicas", "shard", "num_shards", "shard_index", "shard_options"),
    "weights": ("sampler", "sample_weights", "class_weights", "class_weight", "sampling", "oversample", "balance"),
    "take": ("num_samples", "samples_per_epoch", "epoch_size", "limit"),
    "repeat": ("num_epochs", "epochs", "repeats"),
    "on_bad": ("ignore_errors", "skip_errors", "on_error"),
    "order": ("shuffle_algo", "access_order"),
}
_NAMES = {theirs: ours for ours, names in _ELSEWHERE.items() for theirs in names}
# What they need and a loader doesn't, and why.
_NEEDLESS = {
    **dict.fromkeys(
        ("prefetch_factor", "prefetch", "prefetch_size", "prefetch_batches", "max_queue_size", "read_ahead"),
        "it makes batches ahead as memory allows",
    ),
    **dict.fromkeys(
        ("persistent_workers", "use_multiprocessing", "multiprocessing_context", "worker_init_fn", "timeout"),
        "its workers are threads, which stay as long as it does",
    ),
    **dict.fromkeys(("pin_memory", "pin_memory_device", "device", "dtype"), "the feed has it: loader.to_torch(…)"),
    **dict.fromkeys(("collate_fn", "batch_sampler"), "a batch is arrays already, targets as target= makes them"),
    **dict.fromkeys(
        ("interpolation", "antialias"), "images are made smaller by area, and larger by linear interpolation"
    ),
    **dict.fromkeys(("label_smoothing",), "a loss has it"),
    **dict.fromkeys(("deterministic",), "it always is"),
    **dict.fromkeys(
        ("split", "subset", "validation_split"), "a view has it: ds.split('train'), ds.divide({'train': 0.8})"
    ),
}
# What other libraries' datasets do, and how it is done here.
_INSTEAD = {
    "take": "ds[:5]",
    "skip": "ds[5:]",
    "head": "ds[:5], ds.catalog.head()",
    "select": "ds[[1, 2]]",
    "filter": "ds.where('width > 300')",
    "batch": "ds.loader(batch_size=32)",
    "shuffle": "ds.loader(shuffle=True)",
    "repeat": "ds.loader(repeat=2)",
    "map": "ds.loader(augment=…)",
    "cache": "ds.loader(cache='memory')",
    "prefetch": "ds.loader(), which makes batches ahead",
    "interleave": "hr.mix({a: 0.7, b: 0.3})",
    "sample_from_datasets": "hr.mix({a: 0.7, b: 0.3})",
    **dict.fromkeys(("concatenate", "concat"), "a + b, hr.concat([a, b])"),
    **dict.fromkeys(("train_test_split", "random_split"), "ds.divide({'train': 0.8, 'val': 0.2})"),
    **{feed: f"ds.loader().{feed}()" for feed in ("to_keras", "to_torch", "to_tf", "to_jax")},
    **dict.fromkeys(("to_pandas", "to_polars", "df"), "ds.catalog"),
    **dict.fromkeys(("classes", "names"), "ds.class_names"),
    **dict.fromkeys(("num_classes", "n_classes"), "len(ds.class_names)"),
    **dict.fromkeys(("targets", "y"), "ds.labels"),
    **dict.fromkeys(("cardinality", "size", "num_examples"), "len(ds)"),
    **dict.fromkeys(("ids", "filenames", "file_paths"), "ds.catalog['id']"),
}


def _by_name(method: Callable[_Arguments, _Made]) -> Callable[_Arguments, _Made]:
    """The method, with a UsageError for what Python would only call unexpected: it names the argument to use."""
    known = [name for name in inspect.signature(method).parameters if name != "self"]

    @functools.wraps(method)
    def checked(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Made:
        if len(args) > 1:
            raise UsageError(
                f"{method.__name__}({args[1]!r:.40}): its arguments have names, as in "
                f"{method.__name__}(batch_size=32, size=224); there are {', '.join(known)}"
            )
        for name in options:
            if name not in known:
                near = _NAMES.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), None)
                called = f"it is called {near} here; " if near else ""
                hint = f"{_NEEDLESS[name]}; " if name in _NEEDLESS else called
                raise UsageError(f"{method.__name__}() has no {name}: {hint}there are {', '.join(known)}")
        return method(*args, **options)

    return checked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StoredRecord(Record):
    """A Record of a packed dataset; `image` decodes it. `split`, `height`, `width`, `channels` are the catalog's.

    Where a dataset keeps arrays as they are, `encoded` is a .npy, and height, width and channels are 0 without an axis
    for them.
    """

    split: str
    format: str
    height: int
    width: int
    channels: int

    @property
    def image(self) -> NDArray[Any]:
        """uint8 [h, w, c], c = 1 or 3 (RGB), or the numbers that are kept; decoded anew at each access.

        Raises DamageError.
        """
        assert self.encoded is not None
        if self.format == "npy":
            kept: NDArray[Any] = np.load(io.BytesIO(self.encoded), allow_pickle=False)
            return kept
        try:
            return decode_stored(
                np.frombuffer(self.encoded, np.uint8), self.format, self.height, self.width, self.channels
            )
        except codec.BadImage as error:
            raise DamageError(f"{self.id}: {error.reason}; run 'headrace verify'") from error

    def read(self) -> bytes:
        if self.format == "npy":
            raise codec.BadImage("decode", "no image: its numbers are kept as they are (dtype='keep')")
        return Record.read(self)


class Dataset:
    """A packed or adopted dataset, or a view of one: `len`, `ds[i]`, `ds["id"]`, and the views `ds[:5]`, `split`,
    `divide`, `where`, of each of which there is a `loader`.

    A view shares files and catalog with its origin and holds nothing but row numbers.

    path: a folder, or the URL of one in an object store ("s3://bucket/cats").
    version: an earlier one, as it was; by default, and unless the path says one ("cats@3"), the one that holds now.
    storage_options: what the store is opened with, those of obstore's from_url.
    cache_dir: where records that were read of a store are kept, for all processes; by default $HEADRACE_CACHE, else
    headrace in $XDG_CACHE_HOME or ~/.cache.
    cache_bytes: what that folder may take, by default half of what is free on its disk with what it takes already; 0
    keeps nothing.
    Raises NotThereError, UsageError (not a dataset, no such version), DamageError (its manifest or catalog can't be
    read).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        version: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if version is None:
            path, version = addressed(path, storage_options)
        given = is_url(path) or cache_dir is not None or cache_bytes is not None
        cache = CacheFolder(cache_dir, cache_bytes) if given else None
        self.selection = View(Shards(at(path, storage_options, cache), cache, version))

    def _of(self, view: View) -> Dataset:
        dataset = object.__new__(type(self))
        dataset.selection = view
        return dataset

    def _take(
        self, positions: NDArray[np.integer] | NDArray[np.bool_], what: str, *, part: str | None = None
    ) -> Dataset:
        return self._of(self.selection.take(positions, what, part=part))

    # Which records these are. `view` is the verb that shows them.
    selection: View

    @property
    def store(self) -> Store:
        """Where the records are, of the whole dataset."""
        return self.selection.store

    @property
    def rows(self) -> NDArray[np.int64]:
        """The catalog rows int64 [n] of this view's records."""
        return self.selection.rows

    @property
    def path(self) -> Location:
        """The folder, or its URL."""
        return self.store.path

    @property
    def title(self) -> str:
        """What this is, for people: "cats / split 'train'"."""
        return self.selection.title

    @property
    def manifest(self) -> manifest.Manifest:
        """What the folder consists of."""
        return self.store.manifest

    @property
    def version(self) -> int:
        """The number of this version: 1 as it was packed, one more with each edit."""
        return self.manifest.version

    @property
    def history(self) -> tuple[Version, ...]:
        """What was done to it up to this version, oldest first; empty for arrays. Raises DamageError, StorageError."""
        if not isinstance(self.store, Shards):
            return ()
        return history(self.store.tables.home, self.version)

    def as_it_was(self, fingerprint: str) -> Dataset | None:
        """The whole dataset in its last earlier version of this content, None where none had it. Its rows are the same
        records as here, as far as there are any here (see versions.common_rows). Raises DamageError, StorageError."""
        if not isinstance(self.store, Shards):
            return None
        earlier = as_it_was(self.store.tables.home, fingerprint)
        return None if earlier is None else self._of(View(self.store.in_version(earlier.version)))

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of the whole dataset on disk, whatever the view."""
        return self.store.fingerprint

    @property
    def view_fingerprint(self) -> str:
        """sha256 (hex) over the content and the records of this view in their order."""
        return self.selection.fingerprint

    @property
    def what(self) -> str:
        """What this view is of the whole, in words: "split 'train' / where width > 300"; "" for the whole."""
        return " / ".join(self.selection.what)

    @property
    def is_view(self) -> bool:
        """Whether it was chosen out of the whole by split, divide, where, sample or numbers."""
        return bool(self.selection.what)

    @property
    def whole(self) -> Dataset:
        """All records of the dataset that this is a view of."""
        return self._of(View(self.store))

    def reopened(self, version: int | None = None) -> Dataset:
        """All records of what lies there now, where it was edited or replaced since this was opened, or of an earlier
        version. Raises as Dataset does."""
        return self._of(View(self.store.reopened(version)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in index order."""
        return self.manifest.classes

    @property
    def multi_label(self) -> bool:
        """Whether a record may have several classes, or none of them; its `label` is None then, and its `labels` are
        said, or None."""
        return self.manifest.multi_label

    @property
    def has_values(self) -> bool:
        """Whether of any record of the whole dataset a number is known (`value`), for regression."""
        return self.manifest.values

    @property
    def box_class_names(self) -> tuple[str, ...]:
        """The names of what boxes hold, in index order."""
        return self.manifest.box_classes

    @property
    def has_boxes(self) -> bool:
        """Whether the source spoke of boxes at all, of any record of the whole dataset: a picture without any is then a
        negative."""
        return self.selection.has_boxes

    @property
    def keypoints(self) -> int:
        """How many keypoints an object has; 0 where there are none."""
        return self.manifest.keypoints

    @property
    def has_keypoints(self) -> bool:
        """Whether any record of the whole dataset may have keypoints."""
        return self.keypoints > 0

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The names of the keypoints in their order; empty when the source didn't say them."""
        return self.manifest.keypoint_names

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...]:
        """The numbers of the keypoints that change places when a picture is mirrored."""
        return self.manifest.flip_pairs

    @property
    def splits(self) -> dict[str, int]:
        """Records of this view per packed split."""
        names = list(self.manifest.splits)
        counts = np.bincount(self.store.splits_of(self.rows), minlength=len(names)).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    @property
    def class_counts(self) -> dict[str, int]:
        """Records of this view per class; classes without a record count 0, a record of several counts for each."""
        return dict(zip(self.class_names, self.store.class_counts(self.rows).tolist(), strict=True))

    @property
    def catalog(self) -> pl.DataFrame:
        """One row per record of this view: all that is known of it but its pixels."""
        return self.store.table.frame(rows=self.some_rows)

    @property
    def some_rows(self) -> NDArray[np.int64] | None:
        """The rows of this view, None where they are all that there are."""
        return self.selection.some_rows

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices int64 [n], -1 for a record without a label, and for all where there may be several."""
        return self.selection.labels

    @property
    def keeps(self) -> bool:
        """Whether images are numbers as they were given, of any type and shape, and no pixels (ArrayDataset)."""
        return self.store.keeps

    @property
    def channels(self) -> int:
        """Channels of a batch: 1 when every image of the whole dataset, and not only of this view, is grey, else 3.

        Of images that are kept, their last axis when they are [h, w, c], else 0.
        """
        return self.selection.channels

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) when all images of this view share one size, else None.

        None also where images are kept that are neither [h, w] nor [h, w, c].
        """
        return self.selection.image_size

    if not TYPE_CHECKING:  # which would take any name for one that is there

        def __getattr__(self, name: str) -> Never:
            instead = f"; it is {_INSTEAD[name]} here" if name in _INSTEAD else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{instead}")

    def __len__(self) -> int:
        return len(self.rows)

    def __add__(self, other: Dataset) -> Dataset:
        """The records of both, one after the other: see concat."""
        return concat([self, other]) if isinstance(other, Dataset) else NotImplemented

    def __iter__(self) -> Generator[StoredRecord, None, SourceInfo]:
        """The records of this view, in its order: a Dataset is a source, and can be packed. Raises DamageError."""
        for i in range(len(self)):
            yield self[i]
        return SourceInfo(
            class_names=self.class_names,
            box_class_names=self.box_class_names,
            keypoint_names=self.keypoint_names,
            flip_pairs=self.flip_pairs,
            root=str(self.path),
            numbered=self.manifest.numbered,
        )

    @overload
    def __getitem__(self, key: int | np.integer[Any] | str) -> StoredRecord: ...

    @overload
    def __getitem__(self, key: Chosen) -> Dataset: ...

    def __getitem__(self, key: int | np.integer[Any] | str | Chosen) -> StoredRecord | Dataset:
        """Record number `key` of this view, in constant time, or the one of this id; negative numbers from the end.

        A slice, numbers or ids [m] (which may repeat) or a mask bool [n] give a view: ds[:5], ds[[7, -1]],
        ds[["a.jpg", "b.jpg"]], ds[ds.catalog["width"] > 300].
        Raises IndexError, UnknownIdError (a KeyError), TypeError, DamageError.
        """
        if isinstance(key, str):
            return self._record(self._row_of(key))
        if isinstance(key, slice | list | pl.Series) or (isinstance(key, np.ndarray) and key.ndim):
            chosen = self._chosen(key)
            some = f"{len(chosen)} of {len(self)} chosen"
            return self._take(chosen, _slice_text(key) if isinstance(key, slice) else some)
        try:
            i = operator.index(key)
        except TypeError:
            raise TypeError(f"records by {key!r:.60}, {_WANTED}") from None
        n = len(self.rows)
        if not -n <= i < n:
            raise IndexError(f"record {i} of {n}")
        return self._record(int(self.rows[i]))

    def _chosen(self, key: Chosen) -> NDArray[np.int64]:
        """Positions int64 [m] in this view. Raises IndexError, TypeError."""
        n = len(self)
        if isinstance(key, slice):
            return np.arange(n)[key]
        if len(key) and all(isinstance(id_, str) for id_ in key):
            return self._of_ids([str(id_) for id_ in key])
        try:
            given = np.asarray(key)
        except ValueError:  # lists of several lengths
            raise TypeError(f"records by {key!r:.60}, {_WANTED}") from None
        if given.ndim != 1 or (given.dtype.kind not in "biu" and len(given)):
            raise TypeError(f"records by {given.dtype} {list(given.shape)}, {_WANTED}")
        if given.dtype.kind == "b":
            if len(given) != n:
                raise IndexError(f"a mask of {len(given)} for {n} records")
            return np.flatnonzero(given)
        if (outside := given[(given < -n) | (given >= n)]).size:
            raise IndexError(f"record {outside[0]} of {n}")
        numbers = given.astype(np.int64)
        return np.where(numbers < 0, numbers + n, numbers)

    def _of_ids(self, ids: list[str]) -> NDArray[np.int64]:
        """Where the records of these ids [m], one at least, are in this view, int64 [m]. Raises UnknownIdError."""
        found = [self.store.row_of(id_) for id_ in ids]
        rows = np.array([-1 if row is None else row for row in found])
        by_row = np.argsort(self.rows, kind="stable")
        at = np.searchsorted(self.rows, rows, sorter=by_row)
        there = at < len(self)
        there[there] = self.rows[by_row[at[there]]] == rows[there]
        for k in np.flatnonzero(~there).tolist():
            rows[k] = self._row_of(ids[k])  # of another row, or it says what is wrong
        positions: NDArray[np.int64] = by_row[np.searchsorted(self.rows, rows, sorter=by_row)]
        return positions

    def record(self, id: str) -> StoredRecord:
        """The record of this id. Raises UnknownIdError (a KeyError), TypeError, DamageError."""
        if not isinstance(id, str):
            raise TypeError(f"record({id!r:.60}): wanted an id; by its number it is ds[{id!r:.60}]")
        return self[id]

    def __contains__(self, id: object) -> bool:
        """Whether there is a record of this id."""
        try:
            return isinstance(id, str) and self._row_of(id) >= 0
        except UnknownIdError:
            return False

    def _row_of(self, id_: str) -> int:
        """The row of a record of this view. Raises UnknownIdError."""
        row = self.store.row_of(id_, among=self.some_rows)
        if row is not None:
            return row
        if self.store.row_of(id_) is not None:
            raise UnknownIdError(f"{self.title}: no record {id_!r}; the dataset has it, and this view of it doesn't")
        if self.store.row_of(id_, dropped=True) is not None:
            raise UnknownIdError(f"{self.title}: no record {id_!r}; it was dropped, and earlier versions have it")
        ids, name = self.store.table.frame(["id"], self.some_rows)["id"], id_.rstrip("/").rsplit("/", 1)[-1]
        near = ids.filter(ids.str.contains(name, literal=True)).head(3).to_list() if name else []
        near = near or difflib.get_close_matches(id_, ids.head(_COMPARED).to_list(), 3)
        known = f"; near it are {', '.join(near)}" if near else f"; ids are like {ids[0]}" if len(ids) else ""
        raise UnknownIdError(f"{self.title}: no record {id_!r}{known}")

    def _record(self, row: int) -> StoredRecord:
        """The record of catalog row `row`. Raises DamageError."""
        values = self.store.table.row(row)
        known = catalog.known_of(values, (values["height"], values["width"]), self.keypoints)
        for name in ("labels", "sha256", "look", "warning"):
            del known[name]
        for name, several in (("label_names", "labels"), ("box_label_names", "box_labels"), ("captions", "captions")):
            texts = known.pop(name)
            known[several] = None if texts is None else tuple(texts)
        known["group"] = known.pop("group_id")
        shape = {name: values[name] for name in ("format", "height", "width", "channels")}
        return StoredRecord(encoded=self.store.fetch(row).tobytes(), **shape, **known)

    def split(self, name: str) -> Dataset:
        """The records of one split, as packed. Raises UsageError."""
        if name not in self.manifest.splits:
            raise UsageError(f"{self.path}: no split {name!r}; it has {', '.join(self.manifest.splits)}")
        number = list(self.manifest.splits).index(name)
        return self._take(self.store.splits_of(self.rows) == number, f"split {name!r}", part=name)

    def divide(self, fractions: Mapping[str, float], *, seed: int = 0) -> tuple[Dataset, ...]:
        """Disjoint views in the order of `fractions` {name: share}, stratified by class, by seed; nothing is repacked.

        Records of one group (`catalog["group_id"]`) come into one view, as in packing.
        Shares sum to at most 1; what is over is in no view. Raises UsageError.
        """
        for name, fraction in fractions.items():
            if not 0 < fraction <= 1:
                raise UsageError(f"{name!r}: fraction {fraction:g}, wanted above 0 and at most 1")
        if sum(fractions.values()) > 1 + 1e-6:
            raise UsageError(f"the fractions sum to {sum(fractions.values()):g}, wanted at most 1")
        several, groups = self.store.kinds_of(self.some_rows)
        strata = self.labels if several is None else several
        if groups is None:
            share = shares(strata, fractions, seed=seed)
        else:
            share = grouped_shares(strata, groups, fractions, seed=seed)
        return tuple(
            self._take(share == i, f"{name} {fraction:g} (seed {seed})", part=name)
            for i, (name, fraction) in enumerate(fractions.items())
        )

    def sample(self, n: int) -> Dataset:
        """`n` records of this view, evenly drawn over it and in its order; all of them where there are fewer."""
        if n < 1:
            raise UsageError(f"n is {n}, wanted 1 or more")
        if n >= len(self):
            return self
        return self._take(order.evenly(len(self), n), f"{n} of {len(self)}")

    def where(self, condition: str) -> Dataset:
        """The records for which the SQL `condition` on the catalog holds: "label_name = 'cat' AND width > 300".

        Of records of several classes: "array_contains(label_names, 'cat')"; of values: "value > 0.5".
        Raises UsageError: no valid condition, or an unknown column.
        """
        return self._take(self.store.table.where(condition, self.some_rows), f"where {condition}")

    def features(self, *names: str) -> Iterator[dict[str, FeatureValue]]:
        """For each record of this view, in its order, the features of these `names` as its tf.train.Example holds them.

        What visipedia's keys have one value of is a plain int, float or bytes (`image/id`, `image/height`,
        `image/class/label`, ...); everything else an array [m], m may be 0: int64, float32, or object for bytes.
        Each record is read when its turn comes, and its CRC is checked.
        Raises UsageError at once: no such feature in the first record (the message lists those there are). While
        iterating UsageError (a later record lacks one), DamageError.
        """
        if len(self):
            there = ", ".join(sorted(first := _features(self.store, int(self.rows[0]), ())))
            if not names:
                raise UsageError(f"features() wants names; the records of {self.path} have {there}")
            if missing := [name for name in names if name not in first]:
                raise UsageError(f"{self.path}: no feature {missing[0]!r}; the records have {there}")
        return (_features(self.store, int(row), names) for row in self.rows)

    def verify(self, *, workers: int | None = None) -> Verdict:
        """Every byte of the whole dataset against its promises: `.ok`, `.records`, `.damaged` with addresses.

        Raises UsageError: it is joined of several, each of which has promises of its own.
        """
        if not isinstance(self.store, Shards):
            raise UsageError(f"{self.path}: is made of {len(self.store.part_names)} parts; verify each of them")
        return verify(self.store.tables.home, version=self.version, workers=workers)

    @_by_name
    def loader(
        self,
        *,
        batch_size: int = 32,
        size: int | tuple[int, int] | None = None,
        fit: Fit = "stretch",
        shuffle: bool | None = None,
        order: Order = "full",
        seed: int = 0,
        target: Target | None = None,
        augment: Augmentation | Iterable[Augmentation] = (),
        drop_last: bool = False,
        workers: int | None = None,
        world: World = (0, 1),
        on_bad: OnBad = "raise",
        max_bad: float | int = 0.10,
        min_visible: float = MIN_VISIBLE,
        cache: Cache | None = None,
        mix: Mix | None = None,
        weights: Weights | None = None,
        take: int | None = None,
        repeat: int | None = None,
    ) -> Loader:
        """Batches of this view, by number or in order: how they are iterated, repeated and resumed says Loader.

        batch_size: records of a *global* batch, before `world` = (rank, ranks) takes its part of it. "auto" asks
        torch.distributed, JAX, or RANK and WORLD_SIZE, once the processes have met: see headrace.world.
        size, fit: what every image is brought to, an int for a square; None is the size all images of the view share.
        shuffle None: on for what one trains on, off for what one evaluates, so that predictions stand beside
        `ds.labels`. On with `augment` or `weights`, for a mix, and for records of "train": that split, that part of
        `divide`, and what `where` and slices leave of them; a dataset that was never divided is one split, "train". Off
        for all others, among them a dataset of several splits as a whole and what `where` leaves of that.
        `repr(loader)` says which it is.
        order: what is shuffled. "full" is everything. "windows" is for sets larger than the cache or a disk's patience:
        blocks of neighbours, about 8 MB each, are shuffled, and the records of up to 16 of these among each other, so
        that some 128 MB are read at a time (a cache should hold twice that). As random, repeatable and resumable, and
        for packed records as good, as these were shuffled then; where they lie sorted by class it costs accuracy, of
        which a warning is logged. Neighbours are those of the view: of ds[numbers] as they are listed, which may lie
        anywhere. A set of 128 MB or less is one window.
        seed: of order and augmentations, which depend on (seed, epoch, record id) alone.
        target: None is what the records bring: y that is kept, else boxes, else the class, else the classes where
        there may be several (MultiLabel), else the value (Value).
        augment: an augmentation, or several in their order; a function of (pixels, boxes, points, rng) is one.
        drop_last: leaves out the last batch where it is smaller than the others.
        workers: threads; None is one per core this process may use.
        on_bad: a damaged record raises, or is left out ("skip") of its batch, logged, and counted in `skipped`. A
        batch of which nothing is left does not come; but a rank's batch may be smaller than another's, or empty.
        max_bad: how many may be left out of an epoch by any rank: a float is a share of all records, an int a count.
        min_visible: the part (0 to 1) of a box's area that crop and `fit` must leave of it, or it is dropped.
        cache: "memory" keeps every image once it was decoded and resized (n * h * w * c bytes).
        mix: MixUp, CutMix or Mosaic, after `augment`: each image is made of several of its batch, of a rank's part of
        it. For MixUp and CutMix a class is float32 [b, classes].
        weights: how often records are drawn beside each other. "balanced": the records of each class as often as those
        of any other; {"cat": 2.0}: by class, 1 for those left out; the name of a column or an attribute; a number for
        each record. An epoch has as many records as ever, of which a class has its share, and each record its own,
        rounded up or down: some come several times (each with another augmentation), some not, and what an epoch leaves
        out the next ones bring. A record that weighs 0 never comes. Equal weights are an epoch of each record once.
        take, repeat: an epoch of so many records, or of so many times all. Without weights an epoch goes on in the
        permutation where the last one ended: every record once, before any comes again. (So one that ends it and
        begins the next may have a record of the end of the one and of the beginning of the other.)

        Raises UsageError, DataError.
        """
        from headrace.load import windows
        from headrace.load.loader import Loader, LoaderOptions
        from headrace.load.targets import default_target

        trains = self.selection.trains or bool(augment) or weights is not None or bool(self.store.shares)
        options = LoaderOptions(
            batch_size=batch_size,
            size=size,  # type: ignore[arg-type]
            fit=fit,
            shuffle=trains if shuffle is None else shuffle,
            order=order,
            seed=seed,
            target=default_target(self.selection.facts(objects=False)) if target is None else target,
            augment=augment,  # type: ignore[arg-type]
            drop_last=drop_last,
            workers=workers,
            world=world,
            on_bad=on_bad,
            max_bad=max_bad,
            min_visible=min_visible,
            cache=cache,
            mix=mix,
            weights=weights,
            take=take,
            repeat=repeat,
        )
        loader = Loader(self.selection, options)
        if loader.windows is not None:
            uneven = windows.unevenness(self.store, self.rows, loader.windows)
            if uneven > windows.UNEVEN:
                _log.warning(
                    "%s: its records lie by class, so that any 32 in a row share out the classes %.1f times as "
                    "unevenly as by chance (order='windows'), which costs accuracy; pack it, as packing shuffles, or "
                    "take order='full'",
                    self.title,
                    uneven,
                )
        return loader

    @_by_name
    def to_torch_dataset(
        self,
        *,
        size: int | tuple[int, int] | None = None,
        fit: Fit = "stretch",
        seed: int = 0,
        target: Target | None = None,
        augment: Augmentation | Iterable[Augmentation] = (),
        workers: int | None = None,
        min_visible: float = MIN_VISIBLE,
        cache: Cache | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> TorchDataset:
        """A map-style torch.utils.data.Dataset of this view, for the samplers and DataLoaders that one has: item i is
        (image uint8 [c, h, w], target) of `ds[i]`. For all else a `loader` is faster, resumes and needs no processes.

        The options are those of `loader`, and an image is what a loader of them makes of it in that epoch, which
        `set_epoch` says. transform: a function of each image, tensor uint8 [c, h, w], as torchvision's datasets take
        it, for what makes another type of it; what moves pixels belongs into `augment`, which moves boxes, too.

        Raises UsageError, DataError, MissingExtraError.
        """
        from headrace.feeds.torchmap import TorchDataset

        loader = self.loader(
            batch_size=1,
            size=size,
            fit=fit,
            shuffle=False,
            seed=seed,
            target=target,
            augment=augment,
            workers=workers,
            min_visible=min_visible,
            cache=cache,
        )
        return TorchDataset(loader, transform=transform)

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        format: str,
        overwrite: bool = False,
        workers: int | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> ExportReport:
        """Writes this view as files of another `format` (coco, voc, yolo, csv, …) into the new folder `out`.

        Image files are taken over byte by byte; the report says what the format has no place for. overwrite replaces
        what an export wrote. options: those of the format (`headrace formats NAME`). workers: threads, one per core by
        default. progress: show a bar; None where someone looks. Raises UsageError, DamageError, StorageError; then
        nothing was written.
        """
        from headrace.exporting.export import export

        return export(self, out, format=format, overwrite=overwrite, workers=workers, progress=progress, **options)

    def show(self, n: int = 32, *, batch: bool = False, epoch: int = 0, **options: Any) -> Image.Image:
        """A contact sheet of up to `n` records, evenly drawn from this view, with class or classes, value, boxes,
        keypoints and id.

        With `batch` it is the first batch of `n` in `epoch` of a loader of these `options`, as a model gets it, with
        what its targets say: ds.show(batch=True, size=224, target=hr.Grid(7)). Any other batch is `loader.show(i)`.
        Raises UsageError; with `batch` also what a loader raises.
        """
        if not batch and options:
            raise UsageError(f"show() takes {', '.join(options)} with batch=True only")
        from headrace.load import show  # fonts and drawing are nothing for who only loads

        show.check(self.selection, n)
        if not batch:
            return show.show_records(self, n)
        loader = self.loader(**{"shuffle": True} | options, batch_size=n)
        loader.epoch = epoch
        return loader.show()

    def view(
        self,
        *,
        run: str | os.PathLike[str] | None = None,
        edit: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_hosts: Sequence[str] = (),
        browser: bool = True,
    ) -> Viewer:
        """Shows this view in a browser: its images with their labels, sizes and classes, rejects, equal images, and
        what a `run` says of them where it was evaluated. A server on a thread of this process, until `close`.

        A notebook shows it in a frame; elsewhere its address is printed, with a token without which it tells nothing,
        and where there is a `browser`, that is opened. host: who may reach it, by default this machine alone. port: 0
        takes any free one. allow_hosts: names of a proxy that leads here. edit: whoever looks may relabel, drop and
        move records and mend their boxes, each time as a new version. Raises UsageError (a port that is taken; a part
        or an earlier version, which can't be edited), NotThereError, MissingExtraError.
        """
        from headrace.viewing.serve import view

        run = None if run is None else Path(run)
        return view(self, run=run, edit=edit, host=host, port=port, allow_hosts=allow_hosts, browser=browser)

    def report(self, out: str | os.PathLike[str], *, run: str | os.PathLike[str] | None = None) -> Path:
        """Writes what this view holds into one HTML file, which shows itself without scripts and can be printed:
        numbers, samples of each class, histograms, rejects, equal images; and of a `run` its curves and evaluations.

        Raises UsageError, NotThereError, DamageError, StorageError.
        """
        from headrace.viewing.report import report

        return report(self, Path(out), run=None if run is None else Path(run))

    def __repr__(self) -> str:
        parts = [f"{len(self)} records"]
        if len(self.manifest.splits) > 1 and len(self):
            parts.append(", ".join(f"{name} {n}" for name, n in self.splits.items()))
        if self.keeps:
            parts.append(f"kept as {self.store.dtype} {list(self.store.image_shape)}")
        if self.store.kept:
            kept = (f"{name} {part.dtype} {list(part.shape[1:])}" for name, part in self.store.kept.items())
            parts.append("y is kept: " + ", ".join(part.strip() for part in kept))
        if self.class_names:
            shown = [f"{name} {n}" for name, n in self.class_counts.items()]
            several = ", several to a record" if self.multi_label else ""
            parts.append(f"{len(shown)} classes{several}: " + ", ".join(shown[:8]) + (", …" if len(shown) > 8 else ""))
        if (values := self.selection.facts(objects=False).value_range) is not None:
            parts.append(f"values {values[0]:g} to {values[1]:g}")
        if self.has_boxes:
            boxes = int(self.store.box_counts(self.rows).sum()) if self.is_view else self.manifest.boxes
            parts.append(f"{boxes} boxes")
        if self.has_keypoints:
            sets = self.store.keypoint_sets(self.rows)
            parts.append(f"{sets} sets of {self.keypoints} keypoint{'s' if self.keypoints > 1 else ''}")
        if self.store.shares:
            mixed = zip(self.store.part_names, self.store.shares, strict=True)
            parts.append("mixed: " + ", ".join(f"{share:g} of {name}" for name, share in mixed))
        what = "".join(f" / {what}" for what in self.selection.what)
        return f"{type(self).__name__}({str(self.path)!r}{what}: {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        """Up to 24 records, evenly drawn, with what is known of them, for notebooks; kept numbers are no pictures."""
        from headrace.load import show

        cells = []
        for i in order.evenly(0 if self.keeps else len(self), 24).tolist():
            tile = show.tile(self, i, side=_SIDE)
            data = base64.b64encode(codec.encode_jpeg(tile.image, quality=90)).decode()
            lines = html.escape(tile.caption).split("\n")
            cells.append(
                f'<figure title="{"&#10;".join(lines)}" style="display:inline-block;margin:4px;width:{_SIDE}px;'
                'vertical-align:bottom;text-align:center;font-size:11px;overflow:hidden;white-space:nowrap">'
                f'<img src="data:image/jpeg;base64,{data}"><figcaption>{"<br>".join(lines)}</figcaption></figure>'
            )
        return f"<div><code>{html.escape(repr(self))}</code></div><div>{''.join(cells)}</div>"


def concat(datasets: Iterable[Dataset]) -> Dataset:
    """The records of several datasets or views as one Dataset, those of the first first; `a + b` is the same.

    Classes of one name are one class: those of the first dataset keep their numbers, others follow. Where any of them
    has several classes to an image, all have. Ids stay, unless two datasets share one; then each id gets the name of
    its dataset before it ("cats/1.jpg"). Views of one dataset become a view of that. What comes out is looked at,
    divided, loaded, resumed, trained on and packed as any Dataset; it has no files of its own to be edited or verified.
    Raises UsageError: none, or parts of which keypoints or arrays differ.
    """
    return _joined(datasets, "concat([a, b])")


def mix(shares: Mapping[Dataset, float]) -> Dataset:
    """Several datasets or views as one, `concat` of them, whose shuffled epochs have a share of each: {a: 0.7, b: 0.3}.

    Any records in a row are mixed by these shares, but for a few, so that each batch is. An epoch has as many records
    as all parts together (`take` and `repeat` of its loader say otherwise). Each part is gone through by permutations
    of its own, one after the other and on through all epochs: every record once, before any of the part comes again.
    Views of a mix are mixed by the same shares. Loaded with shuffle=False it is `concat`: each record once, in order.
    Raises UsageError: shares that are not above 0 or don't sum to 1, a part without records, and as concat does.
    """
    if not isinstance(shares, Mapping):
        raise UsageError(f"mix({shares!r:.60}): wanted a share for each dataset, as in mix({{a: 0.7, b: 0.3}})")
    for dataset, share in shares.items():
        name = repr(dataset.title) if isinstance(dataset, Dataset) else f"{dataset!r:.60}"
        if isinstance(share, bool) or not (isinstance(share, int | float | np.number) and share > 0):
            raise UsageError(f"mix: the share of {name} is {share!r:.60}, wanted above 0")
    total = sum(map(float, shares.values()))
    if shares and abs(total - 1) > 1e-6:
        raise UsageError(f"mix: the shares sum to {total:g}, wanted 1")
    return _joined(shares, "mix({a: 0.7, b: 0.3})", [float(share) for share in shares.values()])


def _joined(datasets: object, typed: str, shares: Sequence[float] = ()) -> Dataset:
    from headrace.load.joined import joined

    given = [datasets] if isinstance(datasets, Dataset) or not isinstance(datasets, Iterable) else list(datasets)
    parts: list[Dataset] = []
    for part in given:
        if not isinstance(part, Dataset):
            raise UsageError(f"{part!r:.60} is no Dataset; wanted some, as in {typed}")
        if shares and not len(part):
            raise UsageError(f"mix: {part.title} has no records")
        parts.append(part)
    if not parts:
        raise UsageError(f"there is nothing to join; wanted some, as in {typed}")
    dataset = object.__new__(Dataset)
    dataset.selection = joined([part.selection for part in parts], shares)
    return dataset


_SIDE = 160  # of an image in a notebook


_COMPARED = 10_000  # ids that an unknown one is compared with, letter by letter
_WANTED = "wanted a number, an id, a slice, whole numbers or ids [m] or a mask bool [n]; where() takes a condition"


def _slice_text(some: slice) -> str:
    parts = [some.start, some.stop] if some.step is None else [some.start, some.stop, some.step]
    return f"[{':'.join('' if part is None else str(part) for part in parts)}]"


def _said(store: Store, row: int, found: Mapping[str, example.Feature]) -> dict[str, example.Feature]:
    """The features of an edited record that the catalog knows better: its labels and objects, where it has such."""
    values, promised = store.table.row(row), store.manifest
    known = catalog.known_of(values, (values["height"], values["width"]), promised.keypoints)
    shape = {name: values[name] for name in ("format", "height", "width", "channels")}
    said = catalog.Row(shard="", **shape, **known)
    features = features_by_tables(said, b"", promised)
    features |= example.features_of_attributes(said, example.names_of_keys(found))
    kept = {name: feature for name, feature in features.items() if name.startswith(_SAID)}
    for name, feature in kept.items():
        if isinstance(feature, example.Ints) and None in feature:  # of a box that an edit has added
            kept[name] = example.Ints(-1 if value is None else value for value in feature)
    return kept


_SAID = ("image/class/", "image/object/", "objects/")


FeatureValue: TypeAlias = "int | float | bytes | NDArray[Any]"


def _features(store: Store, row: int, names: tuple[str, ...]) -> dict[str, FeatureValue]:
    """The features `names` of a record, or all of them. Raises UsageError, DamageError."""
    try:
        found = example.parse(store.payload(row))
    except ValueError as error:
        raise DamageError(f"{store.address(row)}: {error}; run 'headrace verify {store.path}'") from error
    if store.is_edited(row):
        found |= _said(store, row, found)
    try:
        return {name: example.value_of(name, found[name]) for name in names or found}
    except KeyError as error:
        raise UsageError(f"{store.address(row)}: no feature {error}; it has {', '.join(sorted(found))}") from None
