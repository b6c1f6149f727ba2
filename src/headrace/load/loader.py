"""Loader: batches of a Dataset in an order. Threads, one batch per task, straight from the memory map into the batch.

What order a seed means is order's; what targets mean is targets'; what a framework wants is the feeds'.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from headrace import order, parallel
from headrace.errors import DamageError, UsageError
from headrace.imaging import codec, geometry, mirror
from headrace.imaging.augment import Augmentation
from headrace.imaging.placement import Fit, Placement, Size, carry, carry_points, check_fit, check_size, place
from headrace.load.dataset import Dataset
from headrace.load.targets import Boxes, Class, Kept, Labels, Target

if TYPE_CHECKING:
    from PIL import Image

    from headrace.feeds.keras import KerasFeed
    from headrace.feeds.tf import TFDataset
    from headrace.feeds.torch import TorchFeed
    from headrace.load.photos import Preparation

OnBad: TypeAlias = Literal["raise", "skip"]
Cache: TypeAlias = Literal["memory"]

STATE_VERSION = 1
_log = logging.getLogger("headrace")


class Batch(NamedTuple):
    """`images` uint8 [b, h, w, c], c = 1 or 3 (RGB); `targets` as the target makes them, None without; `ids` [b].

    Of a dataset that keeps its arrays, `images` are [b, ...] of their own type and shape.
    """

    images: NDArray[Any]
    targets: Any
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """How a Loader makes batches. Checks itself; raises UsageError.

    batch_size: records of a *global* batch, before `world` = (rank, size) takes its part of it.
    size, fit: what every image is brought to; size None is the size all stored images share.
    augment: random changes, by (seed, epoch, record id) alone.
    on_bad: a damaged record raises, or is left out of its batch, logged, and counted in `loader.skipped`.
    min_visible: the part (0 to 1) of a box's area that crop and `fit` must leave of it; with less the box is dropped.
    cache: "memory" keeps every image once it was decoded and resized (n * h * w * c bytes).
    """

    batch_size: int
    size: Size | None
    fit: Fit
    shuffle: bool
    seed: int
    target: Target | None
    augment: tuple[Augmentation, ...]
    drop_last: bool
    workers: int | None
    world: tuple[int, int]
    on_bad: OnBad
    min_visible: float
    cache: Cache | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        check_fit(self.fit)
        parallel.check_workers(self.workers)
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}, wanted at least 1")
        rank, ranks = self.world
        if not 0 <= rank < ranks:
            raise UsageError(f"world is {self.world}, wanted (rank, size) with 0 <= rank < size")
        if self.on_bad not in get_args(OnBad):
            raise UsageError(f"on_bad is {self.on_bad!r}, wanted raise or skip")
        if not 0 <= self.min_visible <= 1:
            raise UsageError(f"min_visible is {self.min_visible}, wanted 0 to 1")
        if self.cache is not None and self.cache not in get_args(Cache):
            raise UsageError(f"cache is {self.cache!r}, wanted None or 'memory'")


def own_target(dataset: Dataset) -> Target | None:
    """The target a dataset brings itself: y where it is kept, boxes where it has them, else the class, or None."""
    if dataset.store.kept:
        return Kept()
    if dataset.has_boxes:
        return Boxes()
    return Class() if (dataset.labels >= 0).any() else None


class Loader:
    """Batches of a Dataset, by number or in order.

    `loader[i]` is batch i of the current epoch, a pure function of (dataset, options, epoch, i), from any thread.
    `iter(loader)` gives the rest of a loaded state's epoch, else a whole epoch: the current one, or the next one
    when the current one was begun already. `epoch` can be set. Order and content never depend on `workers`.

    `batch.images` is [b, *image_shape] of `dtype`: (h, w, c) of uint8, or where the dataset keeps arrays as they are,
    their own; then `size` is (0, 0) unless they are [h, w] or [h, w, c].

    Raises UsageError, DataError (the dataset has not what the target needs) when made; DamageError with the record's
    address when a batch is made and on_bad is "raise".
    """

    def __init__(self, dataset: Dataset, options: LoaderOptions) -> None:
        if dataset.keeps:
            _check_keeps(dataset, options)
        size = options.size or dataset.image_size or ((0, 0) if dataset.keeps else None)
        if size is None:
            raise UsageError("the images differ in size; pass size=(height, width)")
        _check_kept(dataset, options, size)
        if options.target is not None:
            options.target.check(dataset)
            if options.target.wants_keypoints and any(change.flips for change in options.augment):
                _check_pairs(dataset)
        self.dataset = dataset
        self.options = options
        self.size: Size = size
        self.channels = dataset.channels
        self.dtype = dataset.store.dtype
        self.image_shape = dataset.store.image_shape if dataset.keeps else (*size, self.channels)
        self.workers = parallel.check_workers(options.workers)
        self._epoch = 0
        self._delivered = 0
        self._resuming = False
        self._skipped: dict[str, None] = {}
        self._cache = _Cache(self) if options.cache else None
        self._mirrored = mirror.order(dataset.keypoints, dataset.flip_pairs)

    @property
    def batch_size(self) -> int:
        """Records of a global batch."""
        return self.options.batch_size

    @property
    def epoch(self) -> int:
        """The epoch that `loader[i]` speaks of: 0 at first, one more when an iteration has ended."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch, self._delivered, self._resuming = operator.index(epoch), 0, False

    @property
    def skipped(self) -> tuple[str, ...]:
        """Addresses of the damaged records that were left out so far."""
        return tuple(self._skipped)

    @property
    def preparation(self) -> Preparation:
        """What a photo goes through to be as the images of this loader, but for chance: for PhotoLoader."""
        from headrace.load.photos import Preparation

        if self.dataset.keeps:
            raise UsageError(f"{self.dataset.path}: keeps its arrays as they are, which no photo can be made like")
        return Preparation(
            pack_options=self.dataset.manifest.pack_options,
            size=self.size,
            fit=self.options.fit,
            channels=self.channels,
        )

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        n, b = len(self.dataset), self.batch_size
        return n // b if self.options.drop_last else -(-n // b)

    def __getitem__(self, i: int) -> Batch:
        """Batch `i` of the current epoch. Raises IndexError, DamageError."""
        return self._make(self._epoch, self._index(i))

    def labels(self, i: int) -> Labels:
        """What the targets of batch `i` of the current epoch are made of, found without decoding anything.

        Damaged records are in it. Raises IndexError, DamageError (y is kept in a file, and that has been cut).
        """
        rows = self._rows(self._epoch, self._index(i))
        kept = self._room(len(rows))
        for slot, row in enumerate(rows.tolist()):
            self._keep(row, kept, slot)
        return self._labels(rows, self._placements(rows, self._chances(rows, self._epoch)), kept)

    def show(self, i: int = 0) -> Image.Image:
        """A contact sheet of batch `i` of the current epoch as a model gets it: images with what their targets say.

        Raises IndexError, DamageError, UsageError (the batch is larger than a sheet can be).
        """
        from headrace.load.show import show_batch

        i = self._index(i)
        return show_batch(self, i, self.dataset.store.ids_of(self._rows(self._epoch, i)))

    def lost(self) -> int:
        """How many boxes of the current epoch have no place in its targets, where these have such a limit."""
        lost = getattr(self.options.target, "lost", None)
        return 0 if lost is None else sum(lost(self.labels(i)) for i in range(len(self)))

    def __iter__(self) -> Generator[Batch, None, None]:
        if not self._resuming and self._delivered:
            self._epoch, self._delivered = self._epoch + 1, 0
        self._resuming = False
        return self._run(self._epoch, self._delivered)

    def _run(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        n = len(self)
        make = functools.partial(self._make, epoch)
        batches = parallel.ordered(make, range(start, n), workers=self.workers, ahead=self.workers + 1)
        try:
            for i, batch in enumerate(batches, start=start):
                self._epoch, self._delivered = (epoch, i + 1) if i + 1 < n else (epoch + 1, 0)
                yield batch
        finally:
            batches.close()

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, JSON-able: what was delivered counts, not what was made ahead.

        It does not depend on `world`, so a run may go on with another number of ranks.
        """
        return {"version": STATE_VERSION, "epoch": self._epoch, "batch": self._delivered} | self._identity()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on where `state` was taken. Raises UsageError: it belongs to another loader."""
        if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
            raise UsageError(f"not the state of a loader of version {STATE_VERSION}: {state!r:.80}")
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise UsageError(
                    f"the state belongs to another loader: its {name} is {state.get(name)!r}, this loader's is {mine!r}"
                )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not (isinstance(epoch, int) and isinstance(batch, int) and 0 <= batch < max(1, len(self))):
            raise UsageError(f"the state's epoch {epoch!r}, batch {batch!r} are out of range")
        self._epoch, self._delivered, self._resuming = epoch, batch, True

    def _identity(self) -> dict[str, Any]:
        options = self.options
        return {
            "dataset": self.dataset.view_fingerprint,
            "records": len(self.dataset),
            "batch_size": options.batch_size,
            "shuffle": options.shuffle,
            "seed": options.seed,
            "drop_last": options.drop_last,
        }

    def to_keras(self) -> KerasFeed:
        """A keras.utils.PyDataset of (images, targets) for `model.fit`. Raises MissingExtraError."""
        from headrace.feeds.keras import KerasFeed

        return KerasFeed(self)

    def to_torch(self) -> TorchFeed:
        """An iterable of (images uint8 [b, c, h, w], targets) as torch tensors. Raises MissingExtraError."""
        from headrace.feeds.torch import TorchFeed

        return TorchFeed(self)

    def to_tf(self) -> TFDataset:
        """A tf.data.Dataset of (images, targets), one epoch per iteration. Raises MissingExtraError."""
        from headrace.feeds.tf import to_tf

        return to_tf(self)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape)) + (f" {self.dtype}" if self.dataset.keeps else "")
        order_ = f"shuffled by seed {self.options.seed}" if self.options.shuffle else "in order"
        return f"Loader({len(self)} batches of {self.batch_size}, {shape}, {order_}; {self.dataset!r})"

    def _index(self, i: int) -> int:
        i, n = operator.index(i), len(self)
        if not -n <= i < n:
            raise IndexError(f"batch {i} of {n}")
        return i % n

    def _rows(self, epoch: int, i: int) -> NDArray[np.int64]:
        """Catalog rows int64 [b] of this rank's part of global batch `i`."""
        n, options = len(self.dataset), self.options
        start = i * options.batch_size
        stop = min(n, start + options.batch_size)
        rank, ranks = options.world
        low, high = start + (stop - start) * rank // ranks, start + (stop - start) * (rank + 1) // ranks
        positions = np.arange(low, high)
        if options.shuffle:
            positions = order.permute(positions, n=n, seed=options.seed, epoch=epoch)
        return self.dataset.rows[positions]

    def _make(self, epoch: int, i: int) -> Batch:
        store, options = self.dataset.store, self.options
        store.check_whole()
        rows = self._rows(epoch, i)
        images, kept = np.empty((len(rows), *self.image_shape), self.dtype), self._room(len(rows))
        chances = self._chances(rows, epoch)
        placements = self._placements(rows, chances)
        good: list[int] = []
        for slot, (row, placement) in enumerate(zip(rows.tolist(), placements, strict=True)):
            out = images[len(good)]
            try:
                self._draw(row, placement, out)
                self._keep(row, kept, len(good))
            except DamageError as error:
                if options.on_bad == "raise":
                    raise
                if str(error) not in self._skipped:
                    _log.warning("left out: %s", error)
                self._skipped[str(error)] = None
                continue
            for change, chance in zip(options.augment, chances, strict=True):
                change.colour(out, chance[slot])
            good.append(slot)
        if len(good) < len(rows):
            rows, images, placements = rows[good], images[: len(good)], [placements[slot] for slot in good]
            kept = {name: part[: len(good)] for name, part in kept.items()}
        target = options.target
        targets = None if target is None else target.encode(self._labels(rows, placements, kept))
        return Batch(images, targets, store.ids_of(rows))

    def _placements(self, rows: NDArray[np.int64], chances: list[NDArray[np.float64]]) -> list[Placement]:
        """Where the pixels of each image go."""
        heights, widths = (sides[rows].tolist() for sides in (self.dataset.store.height, self.dataset.store.width))
        out = []
        for slot, (height, width) in enumerate(zip(heights, widths, strict=True)):
            placement = place(height, width, self.size, self.options.fit)
            for change, chance in zip(self.options.augment, chances, strict=True):
                placement = change.place(placement, chance[slot])
            out.append(placement)
        return out

    def _room(self, b: int) -> dict[str, NDArray[Any]]:
        """Room for what the dataset keeps of y, [b, ...] by name."""
        return {name: np.empty((b, *part.shape[1:]), part.dtype) for name, part in self.dataset.store.kept.items()}

    def _keep(self, row: int, kept: dict[str, NDArray[Any]], slot: int) -> None:
        """What is kept of y for one image into its slot of the batch. Raises DamageError."""
        for name, part in kept.items():
            part[slot] = self.dataset.store.read_kept(row, name)

    def _draw(self, row: int, placement: Placement, out: NDArray[Any]) -> None:
        """One image into its slot of the batch. Raises DamageError."""
        if self._cache is None:
            self.dataset.store.draw(row, placement, out)
        else:
            self._cache.draw(row, placement, out)

    def _chances(self, rows: NDArray[np.int64], epoch: int) -> list[NDArray[np.float64]]:
        """For each augmentation, random numbers float64 [b, draws] of the records."""
        if not self.options.augment:
            return []
        keys, seed, stream = self.dataset.store.keys[rows], self.options.seed, 0
        out = []
        for change in self.options.augment:
            streams = range(stream, stream + change.draws)
            out.append(np.stack([order.uniform(keys, seed=seed, epoch=epoch, stream=s) for s in streams], axis=1))
            stream += change.draws
        return out

    def _labels(self, rows: NDArray[np.int64], placements: list[Placement], y: dict[str, NDArray[Any]]) -> Labels:
        store = self.dataset.store
        classes = len(self.dataset.box_class_names)
        labels = Labels(classes=store.labels[rows], size=self.size, box_classes=classes, kept=y)
        target, least = self.options.target, self.options.min_visible
        if target is None or not (target.wants_boxes or target.wants_keypoints):
            return labels
        if not target.wants_keypoints:
            boxes, names, of = store.boxes(rows)
            boxes, kept = carry(boxes, placements, of, min_visible=least)
            return replace(labels, boxes=boxes, box_labels=names[kept], box_image=of[kept])
        found = store.objects(rows)
        points = carry_points(found.keypoints, placements, found.of, mirrored=self._mirrored)
        boxes = geometry.around(points)
        left = (points[..., 2] > 0).any(axis=1) & ~found.boxed
        boxed = np.flatnonzero(found.boxed)
        moved, seen = carry(found.boxes[boxed], placements, found.of[boxed], min_visible=least)
        boxes[boxed[seen]], left[boxed[seen]] = moved, True
        return replace(
            labels,
            boxes=boxes[left],
            box_labels=found.labels[left],
            box_image=found.of[left],
            keypoints=points[left],
        )


def _check_keeps(dataset: Dataset, options: LoaderOptions) -> None:
    """Raises UsageError when an option would change numbers that are kept as they are."""
    shape = f"{dataset.store.dtype} {list(dataset.store.image_shape)}"
    for asked, why in (
        (options.size not in (None, dataset.image_size) and f"size {options.size}", "is brought to no other size"),
        (options.fit != "stretch" and f"fit {options.fit!r}", "is brought to no other size"),
        (options.augment and f"augment {options.augment[0]}", "has no pixels, which an augmentation changes"),
        (options.cache and f"cache {options.cache!r}", "is not decoded, which a cache would save"),
    ):
        if asked:
            raise UsageError(f"{asked}: x is kept as it is ({shape}) and {why}; leave it out, or dtype='keep'")


def _check_kept(dataset: Dataset, options: LoaderOptions, size: Size) -> None:
    """Raises UsageError when the pixels would move and an array of y, that may be of such pixels, would not.

    Numbers per image, [n] and [n, k], may be true of a flipped image or not: that only the caller knows.
    """
    for name, part in dataset.store.kept.items():
        moved = [str(change) for change in options.augment if change.crops or change.flips]
        if size != (dataset.image_size or size):
            moved.append(f"size {size}")
        if moved and len(part.shape) > 2:
            what = f"y[{name!r}]" if name else "y"
            raise UsageError(
                f"{moved[0]}: {what} is kept as it is, {list(part.shape[1:])} for each image, and would not move with "
                "the pixels; leave it out, or change x and y alike beforehand"
            )


def _check_pairs(dataset: Dataset) -> None:
    """Raises UsageError when nobody can say what a mirror makes of the dataset's keypoints."""
    unpaired = mirror.unpaired(dataset.keypoints, dataset.keypoint_names, dataset.flip_pairs)
    if unpaired:
        raise UsageError(
            f"a flip makes left keypoints right ones, and nobody said the partner of {', '.join(unpaired)}; leave out "
            "HorizontalFlip, or pack again with the source's flip_pairs=((1, 2), …), numbers of points that change "
            "places, (0, 0) for one that stays itself"
        )


class _Cache:
    """Images of a loader after decoding and resizing, before augmentation; filled as they are first asked for."""

    def __init__(self, loader: Loader) -> None:
        if any(change.crops for change in loader.options.augment):
            raise UsageError("cache keeps images at their final size; a random crop needs more: leave one of them out")
        self._loader = loader
        rows = loader.dataset.rows
        shape = (len(rows), *loader.size, loader.channels)
        wanted = int(np.prod(shape))
        if wanted > 0.8 * parallel.memory():
            raise UsageError(
                f"cache would take {wanted / 1e9:.1f} GB, this machine has {parallel.memory() / 1e9:.1f} GB"
            )
        self._images = np.empty(shape, np.uint8)
        self._filled = np.zeros(len(rows), bool)
        self._slot = dict(zip(rows.tolist(), range(len(rows)), strict=True))

    def draw(self, row: int, placement: Placement, out: codec.Pixels) -> None:
        slot = self._slot[row]
        image = self._images[slot]
        if not self._filled[slot]:
            store, loader = self._loader.dataset.store, self._loader
            plain = place(int(store.height[row]), int(store.width[row]), loader.size, loader.options.fit)
            decoded = np.empty_like(image)
            store.draw(row, plain, decoded)
            image[:] = decoded  # at once: another thread may be reading what it has put there itself
            self._filled[slot] = True
        out[:] = image[:, ::-1] if placement.flip else image
