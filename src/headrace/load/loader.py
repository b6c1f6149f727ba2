"""Loader: batches of a view in an order. Threads, a piece of a batch per task, straight from the store into the batch.

What order a seed means is order's; what targets mean is targets'; what a framework wants is the feeds'.
"""

from __future__ import annotations

import functools
import logging
import math
import operator
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from headrace import order, parallel
from headrace.errors import DamageError, UsageError
from headrace.imaging import mirror
from headrace.imaging.augment import Change, check_augment, moves, name_of
from headrace.imaging.called import Called, left
from headrace.imaging.placement import Fit, Placement, Size, check_fit, check_size, place
from headrace.load.ahead import Ahead, Filling, Together, fitting, until_taken
from headrace.load.cache import MemoryCache
from headrace.load.copies import Payloads
from headrace.load.draft import Blocks, Draft, pieces
from headrace.load.facts import Facts
from headrace.load.iteration import Batch, Budget, Iteration, Made, Position
from headrace.load.mix import Mix, Mosaic, averaged, check_mix, mosaics
from headrace.load.sampling import Drawn, Sampling
from headrace.load.store import Far, Objects
from headrace.load.targets import Labels, Target, check_target
from headrace.load.view import View
from headrace.load.weights import Weights, weights_of
from headrace.world import World, resolve

if TYPE_CHECKING:
    from PIL import Image

    from headrace.feeds.jax import JaxFeed
    from headrace.feeds.keras import KerasFeed
    from headrace.feeds.tf import TFDataset
    from headrace.feeds.torch import TorchFeed
    from headrace.load.photos import Preparation
    from headrace.load.weights import Weights

OnBad: TypeAlias = Literal["raise", "skip"]
Cache: TypeAlias = Literal["memory"]
Order: TypeAlias = Literal["full", "windows"]

STATE_VERSION = 1
_SIZES = 4096  # of images whose placements are remembered
# A thread's share of a batch has at least so many images, and pixels of the batch: less is not worth handing over.
_LEAST, _PIECE = 8, 1 << 19
_log = logging.getLogger("headrace")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """How a Loader makes batches: what each means says `Dataset.loader`. Checks itself; raises UsageError."""

    batch_size: int
    size: Size | None
    fit: Fit
    shuffle: bool
    order: Order
    seed: int
    target: Target | None
    augment: tuple[Change, ...]
    drop_last: bool
    workers: int | None
    world: World
    on_bad: OnBad
    max_bad: float | int
    min_visible: float
    cache: Cache | None
    mix: Mix | None = None
    weights: Weights | None = None
    take: int | None = None
    repeat: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "seed"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        for name in ("shuffle", "drop_last"):
            if not isinstance(value := getattr(self, name), bool | np.bool_):
                raise UsageError(f"{name} is {value!r:.60}, wanted True or False")
        object.__setattr__(self, "size", check_size(self.size))
        object.__setattr__(self, "augment", check_augment(self.augment))
        if self.target is not None:
            check_target(self.target)
        check_fit(self.fit)
        parallel.check_workers(self.workers)
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}, wanted at least 1")
        resolve(self.world)
        check_order(self.order)
        if self.order == "windows" and not self.shuffle:
            raise UsageError(
                "order is 'windows', which is a way to shuffle, and these records come unshuffled (shuffle=False, or "
                "nothing said of records that are not for training); pass shuffle=True, or leave order out"
            )
        if self.weights is not None and not self.shuffle:
            raise UsageError(
                "weights say how often records are drawn, and these come in their order (shuffle=False); leave one of "
                "them out"
            )
        for name in ("take", "repeat"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _whole(name, value))
                if value < 1:
                    raise UsageError(f"{name} is {value}, wanted 1 or more")
        if self.take is not None and self.repeat is not None:
            raise UsageError(
                f"take={self.take} and repeat={self.repeat} both say how long an epoch is; pass one of them"
            )
        if self.on_bad not in get_args(OnBad):
            raise UsageError(f"on_bad is {self.on_bad!r}, wanted raise or skip")
        if not (self.max_bad >= 0 and (isinstance(self.max_bad, int) or self.max_bad <= 1)):
            raise UsageError(f"max_bad is {self.max_bad}, wanted a share (a float, 0 to 1) or a count (an int)")
        if not 0 <= self.min_visible <= 1:
            raise UsageError(f"min_visible is {self.min_visible}, wanted 0 to 1")
        if self.cache is not None and self.cache not in get_args(Cache):
            raise UsageError(f"cache is {self.cache!r}, wanted None or 'memory'")


class Loader:
    """Batches of a view of a dataset, by number or in order.

    `loader[i]` is batch i of the current epoch, a pure function of (view, options, epoch, i), from any thread.
    `iter(loader)` is an Iteration of the epoch that is due: the rest of it after `load_state_dict`, else a whole one,
    the current one or, when the current one was begun already, the next. Each batch that it delivers moves the loader:
    `loader.state_dict()` is that of the iteration which delivered last. So an iterator that delivered nothing (a peek)
    has changed nothing; after a `break`, or a `close`, the next one is of the next epoch, unless the state is loaded
    again; and of two at once each goes its own way. `loader.iterate(state)` is one that never moves the loader. `epoch`
    can be set. Order and content never depend on `workers`, whose threads all iterations of a loader share.

    A batch is made in pieces by all threads, each of 8 images and half a million pixels at least; a small one is a
    single piece. Beside the batch that is due an iteration begins up to 2 * `workers` pieces of the next: fewer where
    they would take more than a quarter of the memory that this process may use (its container's, if that is less than
    the machine's), but one at least. Where that leaves threads idle, `batch_size` is too large for the memory.

    `batch.images` is [b, *image_shape] of `dtype`: (h, w, c) of uint8, or where the dataset keeps arrays as they are,
    their own; then `size` is (0, 0) unless they are [h, w] or [h, w, c].

    It can be pickled and copied, with its position and without its threads and what `cache` holds.

    Raises UsageError, DataError (the dataset has not what the target needs) when made; DamageError with the record's
    address when a batch is made and on_bad is "raise".
    """

    def __init__(self, view: View, options: LoaderOptions) -> None:
        if view.keeps:
            _check_keeps(view, options)
        size = options.size or view.image_size or ((0, 0) if view.keeps else None)
        if size is None:
            raise UsageError("the images differ in size; pass size=(height, width)")
        _check_kept(view, options, size)
        if options.mix is not None:
            _check_mix(options.mix, options.target, size, len(view.class_names))
        self.world: tuple[int, int] = resolve(options.world)
        self._asked_world = options.world == "auto"
        self.sampling = _sampling(view, options)
        _check_world(self.sampling.records, options, self.world[1])
        target, promised = options.target, view.store.manifest
        wants_boxes = target is not None and (target.wants_boxes or target.wants_keypoints)
        if target is not None:
            facts = view.facts(objects=wants_boxes)
            target.check(facts)
            if target.wants_keypoints:
                _check_flips(facts, options.augment)
        view.store.prepare(keys=bool(options.augment) or options.mix is not None, boxes=wants_boxes)
        self.view = view
        self.options = options
        self.size: Size = size
        self.channels = view.channels
        self.dtype = view.store.dtype
        self.image_shape = view.store.image_shape if view.keeps else (*size, self.channels)
        self.workers = parallel.check_workers(options.workers)
        self.windows = self.sampling.windows
        self._position, self._begun = Position(0, 0), False
        self._held: str | None = None
        self._skipped: dict[str, None] = {}
        self._logged: set[str] = set()
        self._pool = parallel.Pool(self.workers)
        self._cache = _cache(view, options, size) if options.cache else None
        self._mirrored = mirror.order(promised.keypoints, promised.flip_pairs)
        self._box_classes = len(promised.box_classes)
        # Whether objects are changed image by image, once these are drawn.
        self._by_image = isinstance(options.mix, Mosaic) or any(isinstance(some, Called) for some in options.augment)
        b = -(-options.batch_size // self.world[1])
        self._shares = self._shares_of(b)
        self._blocks = Blocks(b, self.image_shape, self.dtype, most=2 * self.workers // self._shares + 4)
        self._piece_bytes = b * math.prod(self.image_shape) * self.dtype.itemsize // self._shares
        self._place = functools.lru_cache(_SIZES)(functools.partial(place, size=size, fit=options.fit))
        self._fetched = [_fetched(far, view.rows) for far in view.store.far]
        for _, _, filling in self._fetched:
            if filling is not None:
                weakref.finalize(self, filling.end).atexit = False

    def __reduce__(self) -> tuple[type[Loader], tuple[View, LoaderOptions], tuple[Position, bool, bool]]:
        # It stays the rank that it is, as for processes of a DataLoader; one that is another complains.
        state = self._position, self._begun, self._asked_world
        return Loader, (self.view, replace(self.options, world=self.world)), state

    def __setstate__(self, state: tuple[Position, bool, bool]) -> None:
        self._position, self._begun, self._asked_world = state

    @property
    def batch_size(self) -> int:
        """Records of a global batch."""
        return self.options.batch_size

    @property
    def records(self) -> int:
        """Records of an epoch, before `drop_last`: as many as the view has, but for `take` and `repeat`."""
        return self.sampling.records

    @property
    def order(self) -> Order:
        """What is shuffled: "full", everything, or "windows", `windows` of so many records."""
        return self.options.order

    @property
    def epoch(self) -> int:
        """The epoch that `loader[i]` speaks of: 0 at first, one more when an iteration has ended."""
        return self._position.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._move(Position(operator.index(epoch), 0))

    @property
    def skipped(self) -> tuple[str, ...]:
        """Addresses of the damaged records that batches of `iter(loader)` came without, each once."""
        return tuple(self._skipped)

    @property
    def preparation(self) -> Preparation:
        """What a photo goes through to be as the images of this loader, but for chance: for PhotoLoader."""
        from headrace.load.photos import Preparation

        store = self.view.store
        if store.keeps:
            raise UsageError(f"{store.path}: keeps its arrays as they are, which no photo can be made like")
        return Preparation(
            pack_options=store.manifest.pack_options,
            size=self.size,
            fit=self.options.fit,
            channels=self.channels,
        )

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        n, b = self.records, self.batch_size
        return n // b if self.options.drop_last else -(-n // b)

    def __getitem__(self, i: int) -> Batch:
        """Batch `i` of the current epoch. Raises IndexError, DamageError, UsageError (world="auto" came too early)."""
        return self.made(i).batch

    def made(self, i: int) -> Made:
        """Batch `i` of the current epoch, and what a feed wants to know of it. Raises what `loader[i]` does."""
        self._check_asked()
        made = self._make(self.epoch, self._index(i))
        self._log(made.bad)
        return made

    def ids(self, start: Position | None = None) -> tuple[str, ...]:
        """The ids of an epoch's records from `start` on, by default of the iteration that is due, in the order in which
        batches bring them to this rank: what predictions are of.

        Raises UsageError: batches came without damaged records (on_bad="skip"), so that predictions are fewer.
        """
        if self._skipped:
            raise UsageError(
                f"{len(self._skipped)} damaged records were left out, so that predictions do not stand beside all ids; "
                "iterate the loader, each of whose batches has its own"
            )
        start = self.due if start is None else start
        parts = [self._positions(start.epoch, i) for i in range(start.batch, len(self))]
        return self.view.store.ids_of(self.view.rows[np.concatenate([np.zeros(0, np.int64), *parts])])

    def labels(self, i: int) -> Labels:
        """What the targets of batch `i` of the current epoch are made of, found without decoding anything.

        Damaged records are in it. Where objects are changed with their image, by a function that `augment` has or by
        Mosaic, the images are drawn, too. Raises IndexError, DamageError (y is kept in a file, and that has been cut).
        """
        epoch = self.epoch
        if self._by_image:
            draft = self._draft(epoch, self._index(i))
            self._fill(draft, 0, len(draft.rows))
            objects, good = draft.objects, [slot for slot in range(len(draft.rows)) if slot not in draft.bad]
            for slot, made in zip(good, self._mosaics(draft, good, None), strict=True):
                objects[slot] = made
            return self._labels(draft.rows, Objects.joined(objects), draft.kept)
        positions, times = self._drawn(epoch, self._index(i))
        rows = self.view.rows[positions]
        kept = self._room(len(rows))
        for slot, row in enumerate(rows.tolist()):
            self._keep(row, kept, slot)
        return self._labels(
            rows, self._objects(rows, self._placements(rows, self._chances(self._keys(rows, times), epoch))), kept
        )

    def show(self, i: int = 0) -> Image.Image:
        """A contact sheet of batch `i` of the current epoch as a model gets it: images with what their targets say.

        Raises IndexError, DamageError, UsageError (the batch is larger than a sheet can be).
        """
        from headrace.load.show import show_batch

        i = self._index(i)
        return show_batch(self, i, self.view.store.ids_of(self.view.rows[self._positions(self.epoch, i)]))

    def lost(self) -> int:
        """How many boxes of the current epoch have no place in its targets, where these have such a limit."""
        target = self.options.target
        return 0 if target is None else sum(target.lost(self.labels(i)) for i in range(len(self)))

    def __iter__(self) -> Iteration:
        return self._iteration(self.due, attached=True)

    def iterate(self, state: dict[str, Any] | None = None, *, share: tuple[int, int] = (0, 1)) -> Iteration:
        """The rest of the epoch in which `state` was taken, or of the epoch that is due. It never moves the loader.

        share = (k, n): of these batches the k-th and each n-th after it, for n processes that have an epoch between
        them; each takes its part of the loader's threads, and may leave out `max_bad`.
        Raises UsageError: the state belongs to another loader.
        """
        k, n = share
        if not 0 <= k < n:
            raise UsageError(f"share is {share}, wanted (k, n) with 0 <= k < n")
        start = self.due if state is None else self._position_in(state)
        return self._iteration(start, attached=False, share=share)

    @property
    def due(self) -> Position:
        """Where the next iteration begins."""
        position = self._position
        return Position(position.epoch + 1, 0) if self._begun and position.batch else position

    def _iteration(self, start: Position, *, attached: bool, share: tuple[int, int] = (0, 1)) -> Iteration:
        self._check_asked()
        options, records, (k, n) = self.options, self.records, share
        ahead = self._ahead(start.epoch, range(start.batch + k, len(self), n), before=start.batch)
        pool = self._pool if n == 1 else parallel.Pool(max(1, self.workers // n))
        most = int(options.max_bad * records) if isinstance(options.max_bad, float) else options.max_bad
        return Iteration(
            functools.partial(self._pieces, ahead),
            Position(start.epoch, start.batch + k),
            len(self),
            step=n,
            pool=pool,
            ahead=parallel.ahead(2 * pool.workers + self._shares - 1, n * self._piece_bytes),
            budget=Budget(most, records),
            passes=self.world[1] == 1,
            state=self.state_of,
            delivered=self.deliver if attached else self._deliver_apart,
            ending=None if ahead is None else ahead.close,
        )

    def _check_asked(self) -> None:
        """Raises UsageError: world="auto" was asked before the processes met, so that each would load everything."""
        # Where nobody knows of ranks any more, or in a process beside them, it is the one that it was.
        if self._asked_world and (now := resolve("auto")) not in (self.world, (0, 1)):
            (rank, ranks), (was, of) = now, self.world
            raise UsageError(
                f"world='auto' was rank {was} of {of} when the loader was made, and this process is rank {rank} of "
                f"{ranks} by now; make the loader after the processes have met (torch.distributed.init_process_group, "
                "jax.distributed.initialize, in Lightning the hook train_dataloader)"
            )

    def deliver(self, position: Position, bad: tuple[str, ...]) -> None:
        """For a feed that has batches of `iterate` made ahead of what is used: what was used moves the loader here, and
        came without these damaged records."""
        self._deliver_apart(position, bad)
        self._skipped.update(dict.fromkeys(bad))
        self._move(position, begun=True)

    def _deliver_apart(self, _: Position, bad: tuple[str, ...]) -> None:
        self._log(bad)

    def _move(self, position: Position, *, begun: bool = False) -> None:
        self._position, self._begun, self._held = position, begun, None

    def rest(self) -> None:
        """Lets the loader's threads end, for who can't let go of the loader; a next batch starts new ones."""
        self._pool.close(wait=False)
        self._blocks.clear()

    def hold(self, why: str | None) -> None:
        """For a feed that can't know which of its batches were used: `state_dict` raises UsageError(why), until the
        loader is moved, by `epoch = ` or by an iteration, or this is None."""
        self._held = why

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, JSON-able: what was delivered counts, not what was made ahead.

        It does not depend on `world`, so a run may go on with another number of ranks. Raises UsageError: a framework
        is in the middle of an epoch and does not say what of it was used.
        """
        if self._held is not None:
            raise UsageError(self._held)
        return self.state_of(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on where `state` was taken. Raises UsageError: it belongs to another loader."""
        self._move(self._position_in(state))

    def state_of(self, position: Position) -> dict[str, Any]:
        """The state of this loader where it stands at `position`."""
        return {"version": STATE_VERSION, **position._asdict()} | self._identity()

    def _position_in(self, state: dict[str, Any]) -> Position:
        """Where a state was taken. Raises UsageError."""
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
        return Position(epoch, batch)

    def _identity(self) -> dict[str, Any]:
        options = self.options
        return {
            "dataset": self.view.records_fingerprint,
            "records": len(self.view),
            "batch_size": options.batch_size,
            "shuffle": options.shuffle,
            "seed": options.seed,
            "drop_last": options.drop_last,
            "windows": None if self.windows is None else [*self.windows],
            **self.sampling.identity(),
        }

    def to_keras(
        self, *, sample_weight: Weights | None = None, inputs: str | None = None, outputs: str | None = None
    ) -> KerasFeed:
        """A keras.utils.PyDataset of (images, targets) for `model.fit`.

        sample_weight: what each record weighs, "balanced", a number by class, a column's name or a number for each:
        then it is (images, targets, weights float32 [b]). inputs, outputs: names, for a model of dicts: {inputs:
        images} and {outputs: targets}. Raises MissingExtraError, UsageError.
        """
        from headrace.feeds.keras import KerasFeed

        return KerasFeed(self, sample_weight=sample_weight, inputs=inputs, outputs=outputs)

    def to_torch(
        self,
        *,
        device: Any = None,
        dtype: Any = None,
        memory_format: Any = None,
        sample_weight: Weights | None = None,
    ) -> TorchFeed:
        """An iterable of (images uint8 [b, c, h, w], targets) as torch tensors, for a loop of one's own, Lightning and
        Accelerate; with `sample_weight` of (images, targets, weights), as to_keras has it.

        device: what torch.device() takes, where they come to, a batch ahead on CUDA; None is the CPU. dtype: a type
        that images are converted to there, float16 say; their values stay 0 to 255. memory_format: torch.channels_last,
        which they have anyway, or torch.contiguous_format. Raises MissingExtraError, UsageError.
        """
        from headrace.feeds.torch import TorchFeed

        return TorchFeed(self, device=device, dtype=dtype, memory_format=memory_format, sample_weight=sample_weight)

    def to_jax(self, sharding: Any = None, *, sample_weight: Weights | None = None) -> JaxFeed:
        """An iterable of (images uint8 [b, h, w, c], targets) as jax.Arrays, global ones with a `sharding`; with
        `sample_weight` of (images, targets, weights), as to_keras has it.

        Raises MissingExtraError, UsageError (the devices can't share each batch evenly; the weights).
        """
        from headrace.feeds.jax import JaxFeed

        return JaxFeed(self, sharding, sample_weight=sample_weight)

    def to_tf(self, *, sample_weight: Weights | None = None) -> TFDataset:
        """A tf.data.Dataset of (images, targets), one epoch per iteration; with `sample_weight` of (images, targets,
        weights), as to_keras has it. Raises MissingExtraError, UsageError."""
        from headrace.feeds.tf import to_tf

        return to_tf(self, sample_weight=sample_weight)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape)) + (f" {self.dtype}" if self.view.keeps else "")
        how = "drawn by weight and" if self.sampling.weighted else "shuffled by"
        order_ = f"{how} seed {self.options.seed}" if self.options.shuffle else "in order"
        if self.windows is not None:
            order_ += f" in windows of {self.windows.group} blocks of {self.windows.block}"
        records = f"{len(self.view)} records of {self.view.title}"
        if self.records != len(self.view):
            records = f"{self.records} an epoch of {records}"
        return f"Loader({len(self)} batches of {self.batch_size}, {shape}, {order_}; {records})"

    def _index(self, i: int) -> int:
        i, n = operator.index(i), len(self)
        if not -n <= i < n:
            raise IndexError(f"batch {i} of {n}")
        return i % n

    def _positions(self, epoch: int, i: int) -> NDArray[np.int64]:
        """Positions int64 [b] in the view of this rank's part of global batch `i`."""
        return self._drawn(epoch, i).positions

    def _drawn(self, epoch: int, i: int) -> Drawn:
        """This rank's part of global batch `i`."""
        start = i * self.options.batch_size
        stop = min(self.records, start + self.options.batch_size)
        rank, ranks = self.world
        low, high = start + (stop - start) * rank // ranks, start + (stop - start) * (rank + 1) // ranks
        return self.sampling.at(epoch, low, high)

    def _ahead(self, epoch: int, batches: range, *, before: int | None = None) -> Ahead | Together | None:
        """Who fetches these batches of an epoch before their turn, where the dataset is far away. `before`: the first
        batch that this epoch has not used; None where these are no epoch's."""
        each = [self._ahead_of(fetched, epoch, batches, before) for fetched in self._fetched]
        return _joined(each)

    def _ahead_of(self, fetched: _Fetched, epoch: int, batches: range, before: int | None) -> Ahead:
        (copies, there), fits, filling = fetched

        def rows_of(i: int) -> NDArray[np.int64]:
            positions = self._positions(epoch, i)
            return there(self.view.rows[positions if self._cache is None else self._cache.missing(positions)])

        if before is None:
            return Ahead(copies, batches, rows_of, fits=fits, among=len(self._fetched))

        def begun() -> Iterator[NDArray[np.int64]]:
            for low in range(0, before * self.batch_size, order.CHUNK):
                high = min(low + order.CHUNK, before * self.batch_size)
                yield there(self.view.rows[self.sampling.at(epoch, low, high).positions])

        def outside() -> Iterator[NDArray[np.int64]]:
            yield from copies.outside(there(self.view.rows))

        return Ahead(
            copies,
            batches,
            rows_of,
            fits=fits,
            whole=there(self.view.rows) if filling is not None and self._takes_all(batches) else None,
            once=not self.sampling.repeats,
            among=len(self._fetched),
            starting=(lambda: None) if filling is None else filling.begin,
            begun=begun,
            outside=outside,
        )

    def _takes_all(self, batches: range) -> bool:
        """Whether it is this process alone that fetches an epoch, which needs every record of the view."""
        alone = self.world[1] == 1 and batches.step == 1
        return alone and not self.sampling.repeats and self.records >= len(self.view)

    def _make(self, epoch: int, i: int) -> Made:
        ahead = self._ahead(epoch, range(i, i + 1))
        draft = self._draft(epoch, i, ahead)
        self._fill(draft, 0, len(draft.rows))
        return self._finish(draft)

    def _pieces(self, ahead: Ahead | Together | None, epoch: int, i: int) -> list[Callable[[], Made | None]]:
        """The work on batch `i`; the last piece to end gives it."""
        if ahead is None:
            return pieces(lambda: self._draft(epoch, i), self._fill, self._finish, n=self._shares)

        def begin() -> Draft:
            with until_taken(ahead, i):
                return self._draft(epoch, i, ahead)

        def fill(draft: Draft, start: int, stop: int) -> None:
            with until_taken(ahead, i):
                self._fill(draft, start, stop)

        def finish(draft: Draft) -> Made:
            ahead.done(i)
            return self._finish(draft)

        return pieces(begin, fill, finish, n=self._shares)

    def at(self, positions: NDArray[np.int64], *, pool: parallel.Pool | None = None) -> Batch:
        """The records at these positions int64 [b] of the view in this order, as the current epoch has each of them:
        for who has an order of its own. pool: threads; by default the loader's. Raises DamageError."""
        epoch = self.epoch

        def draft() -> Draft:
            missing = positions if self._cache is None else self._cache.missing(positions)
            rows = np.unique(self.view.rows[missing])
            ahead = _joined([_once(fetched, rows, among=len(self._fetched)) for fetched in self._fetched])
            return self._draft_of(epoch, Drawn(positions, None), tuple if ahead is None else lambda: (ahead.take(0),))

        work = pieces(draft, self._fill, self._finish, n=self._shares_of(len(positions)))
        if len(work) == 1:
            made = work[0]()
        else:
            some = parallel.ordered(operator.call, work, workers=self._pool if pool is None else pool, ahead=len(work))
            made = next(made for made in some if made is not None)
        assert made is not None
        self._log(made.bad)
        return made.batch

    def _shares_of(self, b: int) -> int:
        """How many pieces a batch of `b` is made in."""
        return max(1, min(b // _LEAST, b * math.prod(self.image_shape[:2]) // _PIECE))

    def _draft(self, epoch: int, i: int, ahead: Ahead | Together | None = None) -> Draft:
        """Batch `i` before its images are drawn."""
        held = tuple if ahead is None else lambda: (ahead.take(i),)
        return self._draft_of(epoch, self._drawn(epoch, i), held)

    def _draft_of(self, epoch: int, drawn: Drawn, held: Callable[[], tuple[Payloads, ...]] = tuple) -> Draft:
        """A batch of these records before its images are drawn. held: see Store.drawing."""
        store, options = self.view.store, self.options
        store.check_whole()
        positions, times = drawn
        rows = self.view.rows[positions]
        keys = self._keys(rows, times)
        chances = self._chances(keys, epoch)
        payloads = held()
        placements = self._placements(rows, chances)
        return Draft(
            positions=positions,
            rows=rows,
            placements=placements,
            changes=list(zip(options.augment, chances, strict=True)),
            draw=store.drawing(rows, *payloads) if self._cache is None else self._cache.drawing(positions, *payloads),
            images=self._blocks.take(len(rows)),
            kept=self._room(len(rows)),
            bad={},
            keys=keys,
            epoch=epoch,
            objects=self._objects(rows, placements).split(len(rows)) if self._by_image else [],
        )

    def _fill(self, draft: Draft, start: int, stop: int) -> None:
        """Draws the images `start` to `stop`. Raises DamageError, UsageError (of a transform)."""
        for slot in range(start, stop):
            out = draft.images[slot]
            try:
                draft.draw(slot, draft.placements[slot], out)
                if draft.kept:
                    self._keep(int(draft.rows[slot]), draft.kept, slot)
            except DamageError as error:
                if self.options.on_bad == "raise":
                    raise
                draft.bad[slot] = str(error)
                continue
            for number, (change, chance) in enumerate(draft.changes):
                if isinstance(change, Called):
                    self._call(change, number, draft, slot)
                else:
                    change.colour(out, chance[slot])

    def _call(self, change: Called, number: int, draft: Draft, slot: int) -> None:
        """Has a transform change one image and its objects. Raises UsageError."""
        epoch, before = draft.epoch, draft.objects[slot]

        def where() -> str:
            return f"record {self.view.store.ids_of(draft.rows[slot : slot + 1])[0]!r}, epoch {epoch}"

        rng = order.generator(int(draft.keys[slot]), number, seed=self.options.seed, epoch=epoch)
        boxes, points = change.apply(draft.images[slot], before.boxes, before.keypoints, rng, where=where)
        height, width = self.size
        boxes, points, there = left(
            boxes, before.boxed, points, height=height, width=width, min_visible=self.options.min_visible
        )
        draft.objects[slot] = before._replace(boxes=boxes, keypoints=points).take(there)

    def _finish(self, draft: Draft) -> Made:
        rows, images, placements, kept = draft.rows, draft.images, draft.placements, draft.kept
        good = [slot for slot in range(len(rows)) if slot not in draft.bad]
        if draft.bad:
            rows, images, placements = rows[good], images[good], [placements[slot] for slot in good]
            kept = {name: part[good] for name, part in kept.items()}
        options, target, mix = self.options, self.options.target, self.options.mix
        mixed = images if mix is None else self._blocks.take(len(rows))
        labels = None
        if self._by_image and good:
            labels = self._labels(rows, Objects.joined(self._mosaics(draft, good, mixed)), kept)
        elif target is not None:
            labels = self._labels(rows, self._objects(rows, placements), kept)
        targets = None
        if mix is not None and not isinstance(mix, Mosaic):
            soft = None if target is None or labels is None else target.soft(labels)
            keys = draft.keys[good]
            targets = averaged(mix, images, soft, keys, mixed, seed=options.seed, epoch=draft.epoch)
        elif target is not None and labels is not None:
            targets = target.encode(labels)
        bad = tuple(draft.bad[slot] for slot in sorted(draft.bad))
        positions = draft.positions[good] if draft.bad else draft.positions
        return Made(Batch(mixed, targets, self.view.store.ids_of(rows)), bad, positions)

    def _mosaics(self, draft: Draft, good: list[int], out: NDArray[Any] | None) -> list[Objects]:
        """The objects of these images of a batch, and of what Mosaic makes of them, which is drawn into `out`."""
        objects, mix = [draft.objects[slot] for slot in good], self.options.mix
        if not isinstance(mix, Mosaic):
            return objects
        return mosaics(
            mix,
            objects,
            draft.keys[good],
            self.size,
            images=draft.images[good] if draft.bad else draft.images,
            out=out,
            seed=self.options.seed,
            epoch=draft.epoch,
            min_visible=self.options.min_visible,
        )

    def _log(self, bad: tuple[str, ...]) -> None:
        for address in bad:
            if address not in self._logged:
                self._logged.add(address)
                _log.warning("left out: %s", address)

    def _placements(self, rows: NDArray[np.int64], chances: list[NDArray[np.float64]]) -> list[Placement]:
        """Where the pixels of each image go."""
        store = self.view.store
        placements = list(map(self._place, store.height[rows].tolist(), store.width[rows].tolist()))
        for change, chance in zip(self.options.augment, chances, strict=True):
            placements = list(map(change.place, placements, chance))
        return placements

    def _room(self, b: int) -> dict[str, NDArray[Any]]:
        """Room for what the dataset keeps of y, [b, ...] by name."""
        return {name: np.empty((b, *part.shape[1:]), part.dtype) for name, part in self.view.store.kept.items()}

    def _keep(self, row: int, kept: dict[str, NDArray[Any]], slot: int) -> None:
        """What is kept of y for one image into its slot of the batch. Raises DamageError."""
        for name, part in kept.items():
            part[slot] = self.view.store.read_kept(row, name)

    def _keys(self, rows: NDArray[np.int64], times: NDArray[np.int64] | None) -> NDArray[np.uint64]:
        """What random numbers of these rows [b] are drawn by, uint64, others each time that a record comes; [0] where
        nothing is drawn by them."""
        if not self.options.augment and self.options.mix is None:
            return np.zeros(0, np.uint64)
        keys = self.view.store.keys[rows]
        return keys if times is None else order.repeats(keys, times)

    def _chances(self, keys: NDArray[np.uint64], epoch: int) -> list[NDArray[np.float64]]:
        """For each augmentation, random numbers float64 [b, draws] of records with these keys."""
        if not self.options.augment:
            return []
        seed, stream = self.options.seed, 0
        out = []
        for change in self.options.augment:
            streams = range(stream, stream + change.draws)
            chance = [order.uniform(keys, seed=seed, epoch=epoch, stream=s) for s in streams]
            out.append(np.stack(chance, axis=1) if chance else np.zeros((len(keys), 0)))
            stream += change.draws
        return out

    def _labels(self, rows: NDArray[np.int64], objects: Objects, y: dict[str, NDArray[Any]]) -> Labels:
        store, target = self.view.store, self.options.target
        labels = Labels(
            classes=store.labels[rows].astype(np.int64),
            size=self.size,
            boxes=objects.boxes,
            box_labels=objects.labels,
            box_image=objects.of,
            box_classes=self._box_classes,
            class_count=len(self.view.class_names),
            several=store.several(rows),
            values=store.values(rows),
            kept=y,
        )
        points = target is not None and target.wants_keypoints
        return replace(labels, keypoints=objects.keypoints) if points else labels

    def _objects(self, rows: NDArray[np.int64], placements: list[Placement]) -> Objects:
        """What the target wants of the objects of these rows, in pixels of the batch, without what is not there."""
        store, target = self.view.store, self.options.target
        if target is None or not (target.wants_boxes or target.wants_keypoints):
            return Objects.none()
        if target.wants_keypoints:
            found = store.objects(rows)
        else:
            boxes, names, of = store.boxes(rows)
            m = len(of)
            found = Objects(boxes, np.ones(m, bool), names, np.zeros((m, 0, 3), np.float32), of)
        return found.carried(placements, min_visible=self.options.min_visible, mirrored=self._mirrored)


def check_order(order: object) -> None:
    """Raises UsageError."""
    if order not in get_args(Order):
        raise UsageError(f"order is {order!r:.60}, wanted full or windows")


def _whole(name: str, value: object) -> int:
    """The value of an option that counts. Raises UsageError: it is no whole number, as 256 / 8 is none."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise UsageError(f"{name} is {value!r:.60}, wanted a whole number (an int)")


def _check_keeps(view: View, options: LoaderOptions) -> None:
    """Raises UsageError when an option would change numbers that are kept as they are."""
    shape = f"{view.store.dtype} {list(view.store.image_shape)}"
    for asked, why in (
        (options.size not in (None, view.image_size) and f"size {options.size}", "is brought to no other size"),
        (options.fit != "stretch" and f"fit {options.fit!r}", "is brought to no other size"),
        (options.augment and f"augment {options.augment[0]}", "has no pixels, which an augmentation changes"),
        (options.cache and f"cache {options.cache!r}", "is not decoded, which a cache would save"),
        (options.mix and f"mix {options.mix}", "has no pixels, which are mixed"),
    ):
        if asked:
            raise UsageError(f"{asked}: x is kept as it is ({shape}) and {why}; leave it out, or dtype='keep'")


def _check_kept(view: View, options: LoaderOptions, size: Size) -> None:
    """Raises UsageError when the pixels would move and an array of y, that may be of such pixels, would not.

    Numbers per image, [n] and [n, k], may be true of a flipped image or not: that only the caller knows.
    """
    for name, part in view.store.kept.items():
        moved = [str(change) for change in options.augment if moves(change)]
        if size != (view.image_size or size):
            moved.append(f"size {size}")
        if moved and len(part.shape) > 2:
            what = f"y[{name!r}]" if name else "y"
            raise UsageError(
                f"{moved[0]}: {what} is kept as it is, {list(part.shape[1:])} for each image, and would not move with "
                "the pixels; leave it out, or change x and y alike beforehand"
            )


def _check_world(n: int, options: LoaderOptions, ranks: int) -> None:
    """Raises UsageError when a rank's part of a batch would be empty: its mean is NaN, and layers refuse it."""
    b = options.batch_size
    if b < ranks:
        raise UsageError(
            f"batch_size is {b}, the records of a batch of all {ranks} ranks together (world), so that some would get "
            f"none; pass batch_size={ranks} or more"
        )
    tail = n % b
    if 0 < tail < ranks and not options.drop_last:
        raise UsageError(
            f"the last of {-(-n // b)} batches has {tail} of {n} records, so some of {ranks} ranks would get none; "
            "pass drop_last=True or another batch_size"
        )


class _Fetched(NamedTuple):
    """What lies far away, whether all of it fits the cache, and who fills that, where it is worth it."""

    far: Far
    fits: bool
    filling: Filling | None


def _fetched(far: Far, rows: NDArray[np.int64]) -> _Fetched:
    """Raises UsageError, as fitting does."""
    fits, shards = fitting(far.copies, far.rows_of(rows))
    return _Fetched(far, fits, Filling(far.copies, shards) if shards else None)


def _once(fetched: _Fetched, rows: NDArray[np.int64], *, among: int) -> Ahead:
    """Who fetches these rows, as far as they lie there, as a batch of no epoch."""
    wanted = fetched.far.rows_of(rows)
    return Ahead(fetched.far.copies, range(1), lambda _: wanted, fits=fetched.fits, among=among)


def _joined(each: list[Ahead]) -> Ahead | Together | None:
    return each[0] if len(each) == 1 else Together(each) if each else None


def _sampling(view: View, options: LoaderOptions) -> Sampling:
    """Raises UsageError, as weights_of does."""
    n, take = len(view), options.take
    return Sampling(
        view,
        seed=options.seed,
        shuffle=options.shuffle,
        windowed=options.order == "windows",
        weights=None if options.weights is None else weights_of(view, options.weights),
        records=take if options.repeat is None else n * options.repeat,
    )


def _cache(view: View, options: LoaderOptions, size: Size) -> MemoryCache:
    """Raises UsageError."""
    if any(change.crops for change in options.augment):
        raise UsageError("cache keeps images at their final size; a random crop needs more: leave one of them out")
    return MemoryCache(view, size, options.fit, view.channels)


def _check_mix(mix: Mix, target: Target | None, size: Size, classes: int) -> None:
    """Raises UsageError: it is none, or there is nothing that the target could say of a mixed image."""
    check_mix(mix, size)
    name, learnt = type(mix).__name__, type(target).__name__
    if isinstance(mix, Mosaic):
        if target is not None and not (target.wants_boxes or target.wants_keypoints):
            raise UsageError(
                f"mix: {name} is for boxes and keypoints, and {learnt} says nothing of them; pass hr.MixUp()"
            )
    elif target is not None:
        none = Labels(classes=np.zeros(0, np.int64), size=size, class_count=classes)
        soft = getattr(target, "soft", None)  # a target of one's own need not have it
        if soft is None or soft(none) is None:
            raise UsageError(
                f"mix: {name} averages targets, and those of {learnt} can't be; it is for Class, MultiLabel, Value and "
                "targets of your own with soft(); for boxes there is hr.Mosaic()"
            )


def _check_flips(facts: Facts, augment: tuple[Change, ...]) -> None:
    """Raises UsageError when nobody can say what a mirror makes of the keypoints, or would say it."""
    if not any(change.flips or (isinstance(change, Called) and change.mirrors) for change in augment):
        return
    for change in augment:
        if isinstance(change, Called) and change.mirrors and facts.flip_pairs:
            raise UsageError(
                f"augment: {change.mirrors} in {name_of(change)} mirrors, and leaves left keypoints left ones; take it "
                "out there, and put hr.HorizontalFlip() before it, which knows the pairs"
            )
    unpaired = mirror.unpaired(facts.keypoints, facts.keypoint_names, facts.flip_pairs)
    if unpaired:
        raise UsageError(
            f"a flip makes left keypoints right ones, and nobody said the partner of {', '.join(unpaired)}; leave out "
            "HorizontalFlip, or pack again with the source's flip_pairs=((1, 2), …), numbers of points that change "
            "places, (0, 0) for one that stays itself"
        )
