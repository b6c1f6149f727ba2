"""ArrayDataset: arrays as a Dataset, not packed. What arrays and labels may be is left to sources.arrays."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DamageError, DataError, UsageError
from headrace.format import catalog
from headrace.format.manifest import Manifest, ShardEntry
from headrace.format.tables import Held
from headrace.imaging import codec
from headrace.imaging.placement import Placement, draw
from headrace.imaging.prepare import ImageOptions
from headrace.load.copies import Payloads
from headrace.load.dataset import Dataset
from headrace.load.store import Drawing, Store
from headrace.load.view import View
from headrace.packing.budget import Budget
from headrace.record import Reject
from headrace.sources.arrays import Array, ArraysSource, LabelsAre, open_arrays
from headrace.sources.stack import Range, digest
from headrace.splits import check_splits, shares
from headrace.version import __version__

_log = logging.getLogger("headrace")
_T = TypeVar("_T")
_SCHEMA = catalog.SCHEMA | {"channels": pl.Int64}  # of what is kept there may be any number of them


class ArrayStore(Store):
    """Images where they are, in an array or its file. The catalog has a row for each, in their order.

    `numbers` int64 [n]: which image of the array a row is, as `rejects` have no row. Images that are kept are encoded
    as .npy.
    """

    def __init__(
        self, source: ArraysSource, splits: Mapping[str, float] | Sequence[str] | None, seed: int, most: float | int
    ) -> None:
        self.source, self.stack = source, source.stack
        self.keeps, self.kept = source.stack.keeps, source.kept
        if self.keeps:
            self.dtype, self.image_shape = self.stack.numbers.dtype, self.stack.numbers.shape[1:]
        unfit = source.stack.unfit()
        self.rejects = tuple(
            Reject(id=source.id(i), origin=source.origin(i), stage="decode", reason=reason)
            for i, reason in unfit.items()
        )
        self._check(most)
        self.numbers = np.setdiff1d(np.arange(len(source)), [*unfit]) if unfit else np.arange(len(source))
        strata = source.labels if source.several is None else _sets(source.several)
        names, of = _split(splits, strata, seed)
        self.split_of = of[self.numbers]
        super().__init__(Path(self.stack.name), self._manifest(names), Held(self._table(names)))
        sides = (self.stack.height, self.stack.width, self.stack.channels)
        self.height, self.width, self.channels = (np.broadcast_to(np.int64(side), len(self)) for side in sides)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        try:
            said = [self.stack.digest(), self.source.class_names, [*self.manifest.splits]]
            said += [[name, digest(part, "")] for name, part in self.kept.items()]
        except codec.BadImage as error:
            raise DamageError(f"{self.path}, or its y: {error.reason}; it was changed since it was opened") from None
        except OSError as error:
            raise DamageError(f"{self.path}, or its y: {(error.strerror or str(error)).lower()}") from error
        whole = hashlib.sha256(json.dumps(said).encode())
        for id_ in self._ids():
            whole.update(f"{len(id_)}:{id_}".encode())
        for column in (self.labels, self.split_of, self.numbers):
            whole.update(column.astype("<i8").tobytes())
        if self.source.several is not None:
            whole.update(np.packbits(self.source.several).tobytes())
        if self.source.values is not None:
            whole.update(self.source.values.astype("<f8").tobytes())
        return whole.hexdigest()

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        keys: NDArray[np.uint64] = order.keys_of(self._ids())
        return keys

    def check_whole(self) -> None:
        pass

    def ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.source.id(number) for number in self.numbers[rows].tolist())

    def splits_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.split_of[rows]

    def _ids(self) -> Iterator[str]:
        return (self.source.id(number) for number in self.numbers.tolist())

    def fetch(self, row: int) -> NDArray[np.uint8]:
        if not self.keeps:
            return np.frombuffer(codec.encode_png(self._read(row, self.stack.pixels)), np.uint8)
        file = io.BytesIO()
        np.save(file, self._read(row, self.stack.read), allow_pickle=False)
        return np.frombuffer(file.getbuffer(), np.uint8)

    def drawing(self, rows: NDArray[np.int64], held: Payloads | None = None) -> Drawing:
        stack, numbers = self.stack, rows.tolist()

        def copy(i: int, _: Placement, out: NDArray[Any]) -> None:
            out[...] = self._read(numbers[i], stack.read)

        def place(i: int, placement: Placement, out: NDArray[Any]) -> None:
            draw(self._read(numbers[i], stack.pixels), placement, stack.height, stack.width, out)

        return copy if self.keeps else place

    def read_kept(self, row: int, name: str) -> NDArray[Any]:
        part = self.kept[name]
        return self._read(row, lambda i: part.read(i, i + 1)[0], of=part.path or (f"y[{name!r}]" if name else "y"))

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        return [self._read(row, self.stack.digest_of) for row in rows.tolist()]

    def address(self, row: int) -> str:
        return self.source.origin(int(self.numbers[row]))

    def _read(self, row: int, read: Callable[[int], _T], *, of: str | None = None) -> _T:
        """What `read` makes of the image of catalog row `row`, by its number in the array. Raises DamageError."""
        number = int(self.numbers[row])
        try:
            return read(number)
        except (codec.BadImage, OSError) as error:
            address = self.address(row) if of is None else f"{of}[{number}]"
            if isinstance(error, OSError):
                raise DamageError(f"{address}: {(error.strerror or str(error)).lower()}") from error
            raise DamageError(f"{address}: {error.reason}; it was changed since it was opened") from None

    def _check(self, most: float | int) -> None:
        """Says what was refused. Raises DataError when it is too much."""
        n, refused = len(self.source), len(self.rejects)
        allowed = Budget(most).allowed(n)
        if refused > allowed or refused == n:
            found = f"{refused} of {n} images are refused, {allowed} are allowed (max_rejects)"
            raise DataError(f"{found}; the first: {self.rejects[0]}")
        if refused:
            _log.warning("%d of %d images are left out, see .rejects; the first: %s", refused, n, self.rejects[0])

    def _table(self, splits: Sequence[str]) -> pl.DataFrame:
        """The catalog. What is the same in every row is held once."""
        stack, source = self.stack, self.source
        found = pl.Series(source.labels[self.numbers].astype(np.int32))
        labels, ids = found.set(found < 0, None), pl.Series("number", self.numbers)
        table = pl.DataFrame({"number": ids}).with_columns(
            id=ids.cast(pl.String) if source.ids is None else pl.Series([source.ids[i] for i in self.numbers.tolist()]),
            split=pl.lit(splits[0]) if len(splits) == 1 else pl.Series(splits).gather(self.split_of),
            **self._several_columns(),
            value=pl.lit(None) if source.values is None else pl.Series(source.values[self.numbers]).fill_nan(None),
            label=labels,
            label_name=pl.Series(source.class_names or (), dtype=pl.String).gather(labels),
            origin=pl.format("{}[{}]", pl.lit(stack.name), "number"),
            format=pl.lit("npy" if stack.keeps else "png"),
            height=pl.lit(stack.height),
            width=pl.lit(stack.width),
            channels=pl.lit(stack.channels),
        )
        columns = (pl.col(name) if name in table.columns else pl.lit(None).alias(name) for name in _SCHEMA)
        return table.select(column.cast(kind) for column, kind in zip(columns, _SCHEMA.values(), strict=True))

    def _several_columns(self) -> dict[str, pl.Series]:
        """The classes of each image by number and by name, where there may be several."""
        source = self.source
        if source.several is None:
            return {}
        of, labels = np.nonzero(source.several[self.numbers])
        counts, says = np.bincount(of, minlength=len(self.numbers)), np.ones(len(self.numbers), bool)
        found = pl.Series(labels.astype(np.int32))
        names = pl.Series(source.class_names or (), dtype=pl.String).gather(found)
        return {"labels": catalog.lists(found, counts, says), "label_names": catalog.lists(names, counts, says)}

    def _manifest(self, splits: Sequence[str]) -> Manifest:
        """As if packed: a shard without a file for each split. `predict` treats photos as images of these channels."""
        stack, n = self.stack, len(self.numbers)
        counts = np.bincount(self.split_of, minlength=len(splits)).tolist()
        size = math.prod(stack.numbers.shape[1:]) * (stack.numbers.dtype.itemsize if stack.keeps else 1)
        if stack.value_range is None:
            options = ImageOptions().as_json() | {"dtype": "keep"}
        else:
            options = ImageOptions(channels=stack.channels).as_json() | {"value_range": list(stack.value_range)}
        return Manifest(
            headrace_version=__version__,
            seen=len(self.source),
            stored=n,
            rejected=len(self.rejects),
            classes=self.source.class_names or (),
            box_classes=(),
            numbered=self.source.ids is None,
            multi_label=self.source.several is not None,
            values=self.source.values is not None and not np.isnan(self.source.values[self.numbers]).all(),
            channels=stack.channels,
            shards=tuple(
                ShardEntry(name=stack.name, split=split, records=count, bytes=count * size, sha256="")
                for split, count in zip(splits, counts, strict=True)
            ),
            pack_options=options,
            schema={column: str(kind) for column, kind in _SCHEMA.items()},
        )


class ArrayDataset(Dataset):
    """Images in an array as a Dataset, not packed and not copied: `ds[i]` is image i. All else is as with a Dataset.

    x, y, class_names, ids, value_range, key, label_key: see sources.arrays. splits: name -> share, stratified by class
    and by `seed`, the very shares that packing gives; or the name of each image's split. By default all is "train".
    What a batch holds is what it would hold if these arrays were packed, in the same order and with the same ids.

    dtype "keep": x is [n, ...] of any type of numbers, with any axes after the first, and batches hold them bit by bit:
    `keeps` is True, nothing is judged (NaN may be), mapped, resized, augmented or cached. `image_size` and `channels`
    are those of [n, h, w] and [n, h, w, c], else None and 0.

    labels: "classes" reads y as sources.arrays does; "multi" takes y [n, classes] of 0 and 1 (or bool) for which of the
    classes each image has, of which it may have several or none; "value" takes y [n] for a number that is known of each
    image, NaN or None where there is none: targets are then those of MultiLabel and Value. "keep" gives the rows of y,
    bit by bit, as the targets of batches: numbers [n, ...], or a dict of such by name. None tells classes from what is
    kept by what y is, never by its values: with class_names, and strings or whole numbers [n], are classes; so are
    floats [n] and one-hot [n, classes], but with dtype "keep" those are kept; a dict and arrays of 3 axes or more are
    kept. Of a y that is kept nothing is known: a division is not stratified by it, and it does not move with pixels. So
    a loader whose `size`, flips or crops would move them refuses a y of 3 axes or more (masks); [n] and [n, k] it
    passes on, whether or not they are true of a flipped image.
    x and y may also be what is sliced as an array and lies elsewhere, such as a dataset of h5py.

    Float images, and integers with a value_range, are looked through once: those that have NaN, infinity or values
    outside of it are left out and listed in `rejects`. max_rejects: a float is a share, an int a count; above it,
    DataError. `fingerprint` is over all content of x and of a y that is kept, read once for it (1 to 2 s per GB).

    Memory is that of arrays given in memory, about 200 bytes per image, and the batches: files are read image by image.
    Raises UsageError, NotThereError, DataError, StorageError.
    """

    def __init__(
        self,
        x: Array,
        y: Array | Mapping[str, Array] | None = None,
        *,
        dtype: Literal["keep"] | None = None,
        labels: LabelsAre | None = None,
        class_names: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        value_range: Range | None = None,
        key: str | None = None,
        label_key: str | None = None,
        splits: Mapping[str, float] | Sequence[str] | None = None,
        seed: int = 0,
        max_rejects: float | int = 0.10,
    ) -> None:
        source = open_arrays(
            x,
            y,
            dtype=dtype,
            labels=labels,
            class_names=class_names,
            ids=ids,
            value_range=value_range,
            key=key,
            label_key=label_key,
        )
        self.selection = View(ArrayStore(source, splits, seed, max_rejects))

    @property
    def store(self) -> ArrayStore:
        store = self.selection.store
        assert isinstance(store, ArrayStore)
        return store

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """The images that were left out, of the whole dataset."""
        return self.store.rejects

    def verify(self, *, workers: int | None = None) -> NoReturn:
        """Raises UsageError: nothing was promised of arrays that they could be held against."""
        raise UsageError(f"{self.path}: arrays have no checksums to verify; pack them with headrace.pack")


def _sets(several: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for all classes of each image, int64 [n]."""
    return np.unique(several, axis=0, return_inverse=True)[1].reshape(-1)  # NumPy 2.0.0 has it as [n, 1]


def _split(
    splits: Mapping[str, float] | Sequence[str] | None, labels: NDArray[np.int64], seed: int
) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the splits, and the number of each image's, int64 [n]. Raises UsageError."""
    if splits is None or isinstance(splits, Mapping):
        fractions = check_splits(splits)
        names = list(fractions)
        of = shares(labels, fractions, seed=seed) if len(names) > 1 else np.zeros(len(labels), np.int64)
    else:
        given = [str(name) for name in splits]
        if len(given) != len(labels):
            raise UsageError(f"x has {len(labels)} images, splits names {len(given)}; wanted a split for each")
        number = {name: i for i, name in enumerate(dict.fromkeys(given))}
        check_splits(dict.fromkeys(number, 1 / len(number)))
        names, of = list(number), np.array([number[name] for name in given], np.int64)
    if empty := [name for i, name in enumerate(names) if not (of == i).any()]:
        raise UsageError(f"split {empty[0]!r}: there is no image for it; give it more")
    return names, of
