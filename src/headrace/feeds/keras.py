"""Feed for Keras 3: a Loader as keras.utils.PyDataset, for `fit`, `evaluate` and `predict` on every backend.

Keras tells a PyDataset neither that a pass over it begins nor why its hooks are called, so this looks at who asks: the
frame of a generator of Keras's is a pass (the same in 3.12 and 3.15). Whoever asks in another way is refused, so that
no Keras to come is fed wrongly in silence. What a training is beside its batches is left to resume.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError, UsageError
from headrace.feeds import native, release, require, warn_untested
from headrace.feeds.dividing import check_divisible
from headrace.feeds.weighing import Weighing

if TYPE_CHECKING:
    from headrace.load.iteration import Iteration, Made, Position
    from headrace.load.loader import Loader
    from headrace.load.weights import Weights

keras = require("keras", extra="tensorflow")

TESTED = ((3, 12), (3, 15))  # the oldest and the newest
_log = logging.getLogger("headrace")


def _check_version(found: str) -> None:
    """Says once when this Keras is none of those that were tested. Raises UsageError: it can't be one."""
    if release(found)[0] < 3:
        oldest = ".".join(map(str, TESTED[0]))
        raise UsageError(f"keras is {found}, wanted {oldest} or later; run: pip install 'keras>={oldest}'")
    see = "it refuses what it does not know, but see that an epoch has all its batches"
    warn_untested("keras", found, *TESTED, see)


_check_version(keras.__version__)


class KerasFeed(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
    """Batches (images uint8 [b, h, w, c], targets), or (images,) without targets, made by the loader's own threads;
    with `sample_weight` also weights float32 [b], of each record (targets must be there).

    Arrays that a dataset keeps come as they are, [b, ...] of their own type, in this machine's byte order.
    `inputs` and `outputs` name the images and the targets: they come as {inputs: images} and {outputs: targets}, for a
    model of dicts, keras.Model({"photo": ...}, {"kind": ...}). Targets that are a dict have names already. Keras's
    class_weight wants targets without names; sample_weight={...} does the same.
    By hand, from a callback too, it is a Sequence: `feed[i]` is batch i of the loader's epoch and takes nothing from
    training, and `on_epoch_end` goes on to the next epoch.

    A pass of Keras over it is the epoch of the loader that is due: every record once, in the loader's order, whatever
    `shuffle` and `steps_per_epoch` are; batches are served in the order in which Keras asks, not by the number it asks
    with. After `loader.load_state_dict` in mid-epoch the first pass is of the batches that were left, and all others
    are whole.

    A pass that was left early (Keras's look at the shapes before training, a training that was stopped amid an epoch,
    be it at its last batch) is begun again. Keras asks ahead of what it trains on and does not say how far, so the
    loader moves when a pass has ended, and in the middle of one `loader.state_dict()` raises UsageError. A callback is
    told what was trained on: `hr.Resume` keeps the state after any step.

    With several devices a batch is divided among them: keras.distribution.DataParallel wants each batch, the last one
    too, to be a multiple of them (drop_last=True), tf.distribute all but the last one. Of several processes each has
    its part of a batch where the loader knows them (`world`); DataParallel is then told auto_shard_dataset=False.

    Raises UsageError: no batches; names for targets that have theirs, or that are not there; weights; the devices can't
    share each batch; a Keras asks in a way that this does not know. DataError: nothing is left of a batch whose damaged
    records are to be left out (on_bad="skip").
    """

    def __init__(
        self,
        loader: Loader,
        *,
        sample_weight: Weights | None = None,
        inputs: str | None = None,
        outputs: str | None = None,
    ) -> None:
        # A single worker, so that Keras puts no queue of its own between: what that holds at the end of an epoch, or of
        # the look at the shapes, comes in the next one, and other batches never do (3.15, all backends).
        super().__init__(workers=1, use_multiprocessing=False)
        if not len(loader):
            raise UsageError(f"no batches: {loader!r}")
        self.loader = loader
        _check_name("inputs", inputs)
        _check_name("outputs", outputs)
        self.inputs, self.outputs = inputs, outputs
        self._weighing = None if sample_weight is None else Weighing(loader, sample_weight)
        _check_devices(loader)
        self._lock = threading.Lock()
        self._pass: _Pass | None = None
        self._last: Position | None = None
        self._forgotten: deque[FrameType] = deque(maxlen=4)  # threads of TensorFlow may go on to ask for a while
        self._within = False  # an epoch of Keras's
        self._by_hand: int | None = None
        self._watched: Callable[[], Any] = lambda: None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def num_batches(self) -> int:
        """Batches of a whole pass, by which Keras counts the steps of its epochs; for a pass, its own."""
        asker = sys._getframe(1)
        return len(self.loader) - (self._start.batch if _is_keras(asker) and _is_pass(asker) else 0)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records of the pass that was begun last, or of the first to come, in their order: what
        `model.predict(feed)` predicts of. Raises UsageError: damaged records were left out."""
        return self.loader.ids(self._last)

    @property
    def is_asked(self) -> bool:
        """Whether a pass of Keras is under way."""
        return self._pass is not None

    def on_epoch_begin(self) -> None:
        """Tells Keras how many batches the pass has that begins now, as the first one after a state may have fewer."""
        asker = sys._getframe(1)
        if not _is_keras(asker):
            return
        with self._lock:
            iterator = _iterator(asker)
            self._within = True
            goes_on = iterator.steps_per_epoch is not None and iterator._current_iterator is not None
            if not goes_on or not iterator._steps_seen:
                iterator._num_batches = len(self.loader) - self._start.batch
            now = self._pass
            if now is not None and now.is_early:
                if goes_on:
                    self._pass = replace(now, is_early=False)
                    self._follow(now.start)
                else:
                    self._forget(now)

    def on_epoch_end(self) -> None:
        """By hand: the next epoch, if batches of this one were taken."""
        asker = sys._getframe(1)
        if not _is_keras(asker):
            if self._by_hand == self.loader.epoch:
                self.loader.epoch += 1
            self._by_hand = None
            return
        with self._lock:
            iterator, why = _iterator(asker), _caller(asker).f_code.co_name
            self._watch(iterator)
            self._within = False
            now = self._pass
            if now is None:
                return
            if why == "reset":
                self._forget(now)
            elif now.is_used and (why == "catch_stop_iteration" or not iterator._steps_seen):
                # Keras has used all batches, and not only asked for them: its input has ended, or it counts anew.
                self._end(now)

    def __getitem__(self, i: int) -> Any:
        asker = sys._getframe(1)
        if not _is_keras(asker):
            self._by_hand = self.loader.epoch
            return self._element(self.loader.made(i))
        if not _is_pass(asker):
            if not _is_look(asker):
                raise _unknown(asker)
            return self._element(self.loader.made(i))
        with self._lock:
            if asker in self._forgotten:
                return self._element(self.loader.made(i))
            now = self._pass
            if now is None or now.asker is not asker:
                self._pass = now = self._begin(asker)
            made = now.batches.made()
            if now.batches.passed:
                raise DataError(
                    f"of a batch of this epoch all records are damaged, and Keras counts on it: "
                    f"{now.batches.skipped[-1]}; leave these records out, or take a larger batch_size"
                )
            if made is None:
                raise IndexError(f"batch {i} of a pass that has no more")
            return self._element(made)

    def _element(self, made: Made) -> Any:
        images, targets = native(made.batch.images), native(made.batch.targets)
        x = images if self.inputs is None else {self.inputs: images}
        if self.outputs is not None:
            if targets is None or isinstance(targets, dict):
                what = "there are no targets" if targets is None else f"the targets have names, {', '.join(targets)}"
                raise UsageError(f"outputs is {self.outputs!r}, and {what}; leave it out")
            targets = {self.outputs: targets}
        if self._weighing is not None:
            return x, targets, self._weighing.of(made)
        return (x,) if targets is None else (x, targets)

    def _watch(self, iterator: Any) -> None:
        """Has the loader's threads end with an EpochIterator, which is when `fit` ends: TensorFlow never lets go of the
        generators that it was given, nor of what they hold."""
        if keras.backend.backend() == "tensorflow" and self._watched() is not iterator:
            self._watched = weakref.ref(iterator)
            weakref.finalize(iterator, self.loader.rest).atexit = False

    @property
    def _start(self) -> Position:
        """Where a pass begins that would begin now."""
        return self._pass.batches.position if self._pass is not None and self._pass.is_used else self.loader.due

    def _begin(self, asker: FrameType) -> _Pass:
        before = self._pass
        # Of an epoch there is one pass; tf.distribute asks for the next one as soon as it ends, to use it or not.
        is_early = asker.f_code.co_name != "__iter__" and (not self._within or (before is not None and before.is_used))
        if before is not None:
            if before.is_used:
                self._end(before)
            else:
                self._forget(before)
        _check_devices(self.loader)
        begun = _Pass(asker, self.loader.due, self.loader.iterate(), is_early)
        if not is_early:
            self._follow(begun.start)
        return begun

    def _follow(self, start: Position) -> None:
        """The loader goes along with a pass that is trained on."""
        if not start.batch:
            self.loader.epoch = start.epoch
        self.loader.hold(
            "Keras is in the middle of an epoch and does not say how many of its batches were trained on; take the "
            "state when the epoch has ended (on_epoch_end), or let the callback hr.Resume keep it"
        )
        self._last = start

    def _end(self, over: _Pass) -> None:
        over.batches.close()
        self.loader.epoch = over.batches.position.epoch
        self._pass = None

    def _forget(self, left: _Pass) -> None:
        left.batches.close()
        self.loader.hold(None)
        self._forgotten.append(left.asker)
        self._pass = None


@dataclass(frozen=True, slots=True)
class _Pass:
    """The generator of Keras's that asks, and the batches it is given, from `start` on. `is_early`: before the epoch
    has begun that they are for, if one ever does."""

    asker: FrameType
    start: Position
    batches: Iteration
    is_early: bool

    @property
    def is_used(self) -> bool:
        """Whether it was given all batches of an epoch that has begun."""
        return not self.is_early and self.batches.position.epoch > self.batches.epoch


def _is_keras(asker: FrameType) -> bool:
    return str(asker.f_globals.get("__name__")).startswith("keras.")


def _is_pass(asker: FrameType) -> bool:
    return bool(asker.f_code.co_flags & inspect.CO_GENERATOR)


def _is_look(asker: FrameType) -> bool:
    """Whether it is Keras's look at shapes and types for a tf.data.Dataset."""
    return "get_tf_dataset" in (asker.f_code.co_name, _caller(asker).f_code.co_name)


def _caller(asker: FrameType) -> FrameType:
    if asker.f_back is None:
        raise _unknown(asker)
    return asker.f_back


def _iterator(asker: FrameType) -> Any:
    """The EpochIterator of Keras's on whose behalf an adapter asks. Raises UsageError: there is none."""
    found = _caller(asker).f_locals.get("self")
    if not all(hasattr(found, name) for name in _READ):
        raise _unknown(asker)
    return found


_READ = ("steps_per_epoch", "_steps_seen", "_num_batches", "_current_iterator")


def _unknown(asker: FrameType) -> UsageError:
    code, newest = asker.f_code, ".".join(map(str, TESTED[1]))
    return UsageError(
        f"keras {keras.__version__} asks for batches by {code.co_name} in {asker.f_globals.get('__name__')}, line "
        f"{asker.f_lineno}, of which this feed does not know what it means; leave workers at 1, take keras {newest}, "
        "or iterate the loader and call train_on_batch"
    )


def _check_name(option: str, name: object) -> None:
    if name is not None and not (isinstance(name, str) and name):
        raise UsageError(f"{option} is {name!r:.60}, wanted the name that the model gives it, or None")


def _check_devices(loader: Loader) -> None:
    """Raises UsageError: the devices of keras.distribution can't share each batch."""
    distribution = keras.distribution.distribution() if keras.backend.backend() == "jax" else None
    if distribution is not None:
        mesh = distribution.device_mesh
        check_divisible(loader, int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]))
