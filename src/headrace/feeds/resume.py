"""Resume: a callback of Keras's that keeps a training between two of its steps, so that `fit` goes on after a kill.

How the state lies on a disk is checkpoint's; what batches come next is the feed's.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from headrace.errors import DataError, UsageError
from headrace.feeds import checkpoint
from headrace.feeds.keras import KerasFeed, keras
from headrace.load.iteration import Position

_VERSION = 1

Row = tuple[int, dict[str, Any]]


class Resume(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Keeps a training in one file, and goes on where that was written when the same script is run again: with the
    batches that were left of an epoch, as if it had never ended.

        feed = loader.to_keras()
        model.fit(feed, epochs=10, callbacks=[hr.Resume("fit.npz", feed)])

    feed: the one that `fit` trains on, and nothing else: validate on a feed of another loader. every: batches between
    two writings, beside the one at the end of each epoch; a writing takes as long as saving all weights does, and a
    kill loses at most so many steps, which are then taken again. The file is replaced at once, so that a kill leaves
    the old one or the new one.

    In it are weights, optimizer, the seeds of layers (dropout) and PyTorch's own generators, what the metrics of the
    epoch have summed up, where the loader stands, and the history: what `fit` returns is that of the whole training.
    Not in it is what other callbacks know, nor what code of yours draws from NumPy's or Python's generators. Give it
    last in `callbacks`, so that it sees what they did.

    A training that has ended stays in it: the same script then trains nothing, or goes on where `epochs` is larger, and
    begins anew once the file is deleted. One that was stopped within an epoch (stop_training) goes on there. While the
    loss is no number, nothing is written. With `steps_per_epoch` it is written when such an epoch ends, not between.
    Of several processes (`world`) the first one writes, and `path` is one that all of them see.

    Raises UsageError: it is no feed, or `fit` trains on something else, or validates on its loader; the file is another
    program's, another model's or another loader's. DataError: it is damaged. StorageError.
    """

    def __init__(self, path: os.PathLike[str] | str, feed: KerasFeed, *, every: int = 100) -> None:
        super().__init__()
        if not isinstance(feed, KerasFeed):
            raise UsageError(f"feed is {feed!r:.60}, wanted what loader.to_keras() gives, the same that fit trains on")
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise UsageError(f"every is {every!r:.60}, wanted a whole number of batches, 1 at least")
        self.path, self.feed, self.every = Path(path), feed, every
        if self.path.is_dir() or not self.path.parent.is_dir():
            what = "is a folder" if self.path.is_dir() else f"lies in {self.path.parent}, which is not there"
            raise UsageError(f"{self.path} {what}; wanted a file to write to, in a folder that exists")
        self._rows: list[Row] = []  # the logs of each epoch that has ended
        self._epoch = 0  # Keras's
        self._begin = Position(0, 0)  # where the loader stood when Keras's epoch began, or went on
        self._steps = 0  # batches that were trained on since then
        self._unwritten = 0
        self._resumed: checkpoint.Checkpoint | None = None  # until the first epoch begins
        self._drawn: checkpoint.Checkpoint | None = None  # until its first batch comes

    def on_train_begin(self, logs: Any = None) -> None:
        other = _validated_on()
        if isinstance(other, KerasFeed) and other.loader is self.feed.loader:
            raise UsageError(
                "fit validates on the loader that it trains on, each in epochs of the other; give validation_data a "
                "feed of a loader of its own"
            )
        self._rows, self._steps, self._unwritten = [], 0, 0
        self._resumed = self._drawn = None
        if self.path.exists():
            self._resume()
        self._begin = self.feed.loader.due

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._resumed is not None:
            if epoch != self._epoch:
                raise UsageError(
                    f"{self.path} goes on in epoch {self._epoch}, and keras {keras.__version__} begins with {epoch}; "
                    f"pass initial_epoch={self._epoch} to fit"
                )
            self.model._initial_epoch = None  # or it would be that of the next fit, too
            if self._begin.batch and self._is_pass:  # fit has reset the metrics, and a schedule may have set its rate
                checkpoint.restore(self.model, self._resumed)
            elif self._is_pass:  # building the model, and Keras's look at the data, may have drawn from generators
                checkpoint.restore_generators(self._resumed)
            if self._begin.batch or not self._is_pass:  # and so does a pass that begins, where this one had begun
                self._drawn = self._resumed
            self._give_history()
        self._epoch, self._steps = epoch, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._drawn is not None:
            checkpoint.restore_generators(self._drawn)
            self._drawn = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self.feed.is_asked:
            raise UsageError("fit does not train on the feed that hr.Resume was given; pass it the same")
        # Keras counts steps_per_execution at once, and a pass may end amid them.
        steps = min(batch + 1, len(self.feed) - self._begin.batch)
        self._unwritten += steps - self._steps
        self._steps = steps
        if self._left and self._is_pass and (self._unwritten >= self.every or self.model.stop_training):
            self._write(self._epoch, logs, metrics=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._left:  # it was stopped, and goes on within this epoch
            return
        self._rows.append((epoch, {name: _plain(value) for name, value in (logs or {}).items()}))
        self._write(epoch + 1, logs, metrics=False)
        self._begin, self._steps = self._position, 0

    def on_train_end(self, logs: Any = None) -> None:
        if self._resumed is not None:  # nothing was left to train
            self.model._initial_epoch = None
            self._give_history()

    @property
    def _is_pass(self) -> bool:
        """Whether an epoch of Keras's is one of the loader's: no steps_per_epoch cuts it."""
        return (self.params or {}).get("steps") == len(self.feed)

    @property
    def _left(self) -> int:
        """Batches that are left of Keras's epoch."""
        whole = (self.params or {}).get("steps") or len(self.feed)
        return max(0, min(whole, len(self.feed) - self._begin.batch) - self._steps)

    @property
    def _position(self) -> Position:
        """Where the loader stands after what was trained on."""
        epoch, batch = self._begin.epoch, self._begin.batch + self._steps
        return Position(epoch, batch) if batch < len(self.feed) else Position(epoch + 1, 0)

    def _write(self, epoch: int, logs: Any, *, metrics: bool) -> None:
        loss = (logs or {}).get("loss", 0.0)
        loader = self.feed.loader
        if loader.world[0] or not math.isfinite(float(loss)):
            return
        progress = {"resume": _VERSION, "epoch": epoch, "loader": loader.state_of(self._position), "rows": self._rows}
        checkpoint.capture(self.model, progress, metrics=metrics).write(self.path)
        self._unwritten = 0

    def _resume(self) -> None:
        """Takes up what was written. Raises UsageError, DataError, StorageError."""
        state = checkpoint.read(self.path, anew="delete it to begin anew")
        found = state.progress
        if found.get("resume") != _VERSION:
            raise UsageError(
                f"{self.path} is not of hr.Resume (version {_VERSION}); name another file, or delete it to begin anew"
            )
        try:
            self._epoch = int(found["epoch"])
            self._rows = [(int(epoch), dict(row)) for epoch, row in found["rows"]]
            loader = dict(found["loader"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path} is damaged ({error}); delete it to begin anew") from error
        model = self.model
        odd = checkpoint.differs(model, state)
        if odd and not (model.built and odd.startswith("model/")):  # TensorFlow builds at the first step
            model.test_on_batch(*self.feed[0])
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        try:
            self.feed.loader.load_state_dict(loader)
            checkpoint.restore(model, state)
        except UsageError as error:
            raise UsageError(f"{self.path}: {error}; or delete it to begin anew") from error
        if not hasattr(model, "_initial_epoch"):
            raise UsageError(
                f"keras {keras.__version__} takes no epoch to begin with from a callback; take another one"
            )
        model._initial_epoch = self._epoch
        self._resumed = state

    def _give_history(self) -> None:
        """What `fit` returns begins with the epochs that were trained before."""
        history = self.model.history
        history.history.clear()
        history.epoch[:] = [epoch for epoch, _ in self._rows]
        for _, row in self._rows:
            for name, value in row.items():
                history.history.setdefault(name, []).append(value)
        self._resumed = None


def _validated_on() -> Any:
    """The validation_data of the `fit` that calls this."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and "validation_data" in frame.f_locals:
            return frame.f_locals["validation_data"]
        frame = frame.f_back
    return None


def _plain(value: Any) -> Any:
    """A value of the logs, JSON-able."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return np.asarray(value).tolist()
