"""Feed for Keras 3: a Loader as keras.utils.PyDataset, for `fit`, `evaluate` and `predict` on every backend.

Keras tells a PyDataset neither that a pass over it begins nor why its hooks are called, so this looks at who asks: the
frame of a generator of Keras's is a pass (the same in 3.10, 3.12 and 3.15).
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from headrace.feeds import native, require

if TYPE_CHECKING:
    from headrace.load.iteration import Batch, Iteration, Position
    from headrace.load.loader import Loader

keras = require("keras", extra="tensorflow")

_log = logging.getLogger("headrace")


class KerasFeed(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """Batches (images uint8 [b, h, w, c], targets), or (images,) without targets, made by the loader's own threads.

    Arrays that a dataset keeps come as they are, [b, ...] of their own type, in this machine's byte order.
    By hand, from a callback too, it is a Sequence: `feed[i]` is batch i of the loader's epoch and takes nothing from
    training, and `on_epoch_end` goes on to the next epoch.

    A pass of Keras over it is the epoch of the loader that is due: every record once, in the loader's order, whatever
    `shuffle` and `steps_per_epoch` are; batches are served in the order in which Keras asks, not by the number it asks
    with. After `loader.load_state_dict` in mid-epoch the first pass is of the batches that were left, and all others
    are whole; Keras warns then that its input ran out of data, which is so, and goes on with its next epoch.

    A pass that was left early (Keras's look at the shapes before training, a training that was stopped amid an epoch,
    be it at its last batch) is begun again. Keras asks ahead of what it trains on and does not say how far, so the
    loader moves when a pass has ended, and in the middle of one `loader.state_dict()` raises UsageError.
    """

    def __init__(self, loader: Loader) -> None:
        # A single worker, so that Keras puts no queue of its own between: what that holds at the end of an epoch, or of
        # the look at the shapes, comes in the next one, and other batches never do (3.15, all backends).
        super().__init__(workers=1, use_multiprocessing=False)
        self.loader = loader
        self._lock = threading.Lock()
        self._pass: _Pass | None = None
        self._last: Position | None = None
        self._forgotten: FrameType | None = None
        self._by_hand: int | None = None
        self._watched: Callable[[], Any] = lambda: None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def num_batches(self) -> int:
        """Batches of a whole pass, by which Keras counts the steps of its epochs; for a pass, its own."""
        return len(self.loader) - (self._start.batch if _is_pass(sys._getframe(1)) else 0)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records of the pass that was begun last, or of the first to come, in their order: what
        `model.predict(feed)` predicts of. Raises UsageError: damaged records were left out."""
        return self.loader.ids(self._last)

    def on_epoch_end(self) -> None:
        """By hand: the next epoch, if batches of this one were taken."""
        asker = sys._getframe(1)
        if not _is_keras(asker):
            if self._by_hand == self.loader.epoch:
                self.loader.epoch += 1
            self._by_hand = None
            return
        with self._lock:
            why = asker.f_back  # a method of an EpochIterator
            if why is None:
                return
            self._watch(why.f_locals["self"])
            if self._pass is None:
                return
            if why.f_code.co_name == "reset":
                self._forget(self._pass)
            elif self._pass.is_over and _is_used(why):
                self._end(self._pass)

    def __getitem__(self, i: int) -> Any:
        asker = sys._getframe(1)
        if not _is_pass(asker) or asker is self._forgotten:
            self._by_hand = self.loader.epoch
            return _element(self.loader[i])
        with self._lock:
            now = self._pass
            if now is None or now.asker is not asker:
                self._pass = now = self._begin(asker)
            return _element(next(now.batches))

    def _watch(self, iterator: Any) -> None:
        """Has the loader's threads end with an EpochIterator, which is when `fit` ends: TensorFlow never lets go of the
        generators that it was given, nor of what they hold."""
        if keras.backend.backend() == "tensorflow" and self._watched() is not iterator:
            self._watched = weakref.ref(iterator)
            weakref.finalize(iterator, self.loader.rest).atexit = False

    @property
    def _start(self) -> Position:
        """Where a pass begins that would begin now."""
        return self._pass.batches.position if self._pass is not None and self._pass.is_over else self.loader.due

    def _begin(self, asker: FrameType) -> _Pass:
        before = self._pass
        if before is not None:
            if before.is_over:
                self._end(before)
            else:
                self._forget(before)
        start = self.loader.due
        if start.batch:
            left = len(self.loader) - start.batch
            _log.warning(
                "epoch %d goes on at batch %d; Keras will warn that its input ran out of data after the %d that are "
                "left, and go on with the next epoch", start.epoch, start.batch, left,
            )  # fmt: skip
        else:
            self.loader.epoch = start.epoch
        self.loader.hold(
            "Keras is in the middle of an epoch and does not say how many of its batches were trained on; take the "
            "state when the epoch has ended (on_epoch_end), or iterate the loader and call train_on_batch"
        )
        self._last = start
        return _Pass(asker, self.loader.iterate())

    def _end(self, over: _Pass) -> None:
        over.batches.close()
        self.loader.epoch = over.batches.position.epoch
        self._pass = self._forgotten = None

    def _forget(self, left: _Pass) -> None:
        left.batches.close()
        self.loader.hold(None)
        self._forgotten, self._pass = left.asker, None


@dataclass(frozen=True, slots=True)
class _Pass:
    """The generator of Keras's that asks, and the batches it is given."""

    asker: FrameType
    batches: Iteration

    @property
    def is_over(self) -> bool:
        return self.batches.position.epoch > self.batches.epoch


def _is_keras(asker: FrameType) -> bool:
    return str(asker.f_globals.get("__name__")).startswith("keras.")


def _is_pass(asker: FrameType) -> bool:
    return _is_keras(asker) and bool(asker.f_code.co_flags & inspect.CO_GENERATOR)


def _is_used(why: FrameType) -> bool:
    """Whether Keras has used all batches of a pass, and not only asked for them: its input has ended, or its count of
    steps begins anew."""
    return why.f_code.co_name == "catch_stop_iteration" or why.f_locals["self"]._steps_seen == 0


def _element(batch: Batch) -> Any:
    images = native(batch.images)
    return (images,) if batch.targets is None else (images, native(batch.targets))
