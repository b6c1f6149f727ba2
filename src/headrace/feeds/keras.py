"""Feed for Keras 3: a Loader as keras.utils.PyDataset, for `fit`, `evaluate` and `predict` on every backend."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from headrace import parallel
from headrace.feeds import require

if TYPE_CHECKING:
    from headrace.load.loader import Loader

keras = require("keras", extra="tensorflow")

# Keras asks for this many batches before training, to learn their shapes, and then says that an epoch has ended.
_PEEKED = 2


class KerasFeed(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """`feed[i]`: (images uint8 [b, h, w, c], targets) of batch i of the loader's epoch; images alone if it has none.

    Every record comes exactly once an epoch, and the next epoch deals the records into other batches. On top of that
    `fit` shuffles the order in which it asks for batches, unless it is given shuffle=False; then it is the loader's.
    Keras's own queue makes batches ahead on `workers` threads (at least 2, without which Keras has no queue).
    """

    def __init__(self, loader: Loader, *, workers: int | None = None) -> None:
        workers = loader.workers if workers is None else parallel.check_workers(workers)
        super().__init__(workers=max(2, workers), use_multiprocessing=False, max_queue_size=max(4, 2 * workers))
        self.loader = loader
        self._asked = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, i: int) -> Any:
        with self._lock:
            self._asked += 1
        batch = self.loader[i]
        return (batch.images,) if batch.targets is None else (batch.images, batch.targets)

    def on_epoch_end(self) -> None:
        """The loader's next epoch, once a whole one was asked for.

        Keras calls this once too often (after its look at the shapes) and, with steps_per_epoch, in the middle of a
        pass: hooks can't be counted, batches can.
        """
        with self._lock:
            if self._asked >= max(len(self), 1):
                self._asked = 0
                self.loader.epoch += 1
            elif self._asked <= _PEEKED:
                self._asked = 0
