"""Feed for Keras 3: a Loader as keras.utils.PyDataset, for `fit`, `evaluate` and `predict` on every backend."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from headrace.feeds import native, require

if TYPE_CHECKING:
    from headrace.load.loader import Batch, Loader

keras = require("keras", extra="tensorflow")


class KerasFeed(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """Batches (images uint8 [b, h, w, c], targets), or (images,) without targets, made by the loader's own threads.

    Arrays that a dataset keeps come as they are, [b, ...] of their own type, in this machine's byte order.
    By hand it is a Sequence: `feed[i]` is batch i of the loader's epoch, and `on_epoch_end` goes on to the next one.

    A pass of Keras over it is an epoch of the loader: every record once, in the loader's order, whatever `shuffle` and
    `steps_per_epoch` are. For that, batches are then dealt in the order in which Keras asks, not by the number it asks
    with, and its calls of `on_epoch_end`, some of them before and amid a pass, change nothing. A pass that was left
    early, as the look at the shapes before training is, is begun again; until then its threads wait.
    """

    def __init__(self, loader: Loader) -> None:
        # A single worker, so that Keras puts no queue of its own between: what that holds at the end of an epoch, or of
        # the look at the shapes, comes in the next one, and other batches never do (3.15, all backends).
        super().__init__(workers=1, use_multiprocessing=False)
        self.loader = loader
        self._lock = threading.Lock()
        self._due = False
        self._by_hand = False
        self._epoch = 0
        self._batches: Generator[Batch, None, None] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def num_batches(self) -> int:
        """Batches per epoch. Keras asks for it before it begins to iterate and never in between: a pass begins here.

        Hooks don't tell: `on_epoch_end` also comes after the look at the shapes and in the middle of a pass.
        """
        with self._lock:
            if self._batches is not None:
                self._batches.close()
                self._batches = None
            self._due, self._by_hand = True, False
        return len(self.loader)

    def on_epoch_end(self) -> None:
        """The next epoch, if batches of this one were taken by hand."""
        with self._lock:
            # torch and jax ask for `num_batches` after a pass too, but again before they begin the next.
            self._due = False
            if self._by_hand:
                self._by_hand = False
                self.loader.epoch += 1

    def __getitem__(self, i: int) -> Any:
        with self._lock:
            if self._due:
                self._due, self._epoch = False, self.loader.epoch
                self.loader.epoch = self._epoch  # from its start, also when a state in its middle was loaded
                self._batches = iter(self.loader)
            if self._batches is None:
                self._by_hand = True
                batch = self.loader[i]
            else:
                batch = next(self._batches)
                if self.loader.epoch != self._epoch:  # that was the last one
                    self._batches.close()
                    self._batches = None
        images = native(batch.images)
        return (images,) if batch.targets is None else (images, native(batch.targets))
