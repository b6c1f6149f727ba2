"""Training: steps over the loader, checkpoints, and the RUN folder they fill. What is learnt is the task's."""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import headrace
from headrace.errors import DamageError, DataError, UsageError
from headrace.imaging.augment import AUGMENTATIONS
from headrace.imaging.placement import Size, check_size
from headrace.learn import checkpoint, devices, lock, networks, parts, plots, schema, tasks
from headrace.learn.backend import describe, deterministic, keras, precision
from headrace.learn.recipe import MIXES, Options, Recipe, RunFolder, filled, is_code, with_settings
from headrace.load.arrays import ArrayDataset
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.loader import Loader
from headrace.load.weights import weights_of
from headrace.place.address import is_url
from headrace.place.local import explained
from headrace.place.publish import sync, write_atomic
from headrace.progress import bar

log = logging.getLogger(__name__)

_RATES = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
_LESS = ("loss", "error", "mae", "mse")  # names of values of which less is better end so

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to. `history` has a row per epoch, `best` is the one whose model was kept.

    `seconds` and `images_per_second` are of this call's training steps alone.
    """

    run: Path
    task: str
    model: str
    epochs: int
    best: Row
    history: tuple[Row, ...]
    stopped_early: bool
    seconds: float
    images_per_second: float

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"run": str(self.run), "history": list(self.history)}


def train(
    dataset: Dataset | os.PathLike[str] | str,
    *,
    out: Path | str,
    val: Dataset | os.PathLike[str] | str | None = None,
    model: str | networks.Network | None = None,
    callbacks: Sequence[Any] | Any = (),
    options: Options | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = True,
    **settings: Any,
) -> Trained:
    """Train a model on a dataset or a view, packed, adopted or of arrays, and keep all that belongs to it in `out`.

    `val` is another dataset or view to validate on; without it the splits say (`split`, `val_split`), or `divide`. With
    it a view is trained on as it is.
    `model` is a name, a Keras model, or a function of input_shape (h, w, c) and the number of classes that makes one
    for raw pixels 0 to 255 (or "file.py:function"); uncompiled it gets the task's loss, optimizer and metrics, compiled
    it keeps its own.
    `callbacks` are Keras's, told at its hooks; what they know themselves is not part of a checkpoint. Beside one that
    sets the learning rate the schedule is constant.
    `settings` are fields of `Options`, over those of `options`: epochs=10, batch_size=64, size=160, divide={...}, ...

    `resume` goes on from the last checkpoint in `out`, mid-epoch, with exactly the batches that were left; `options`
    None are then the run's own; an own model must be given again. `overwrite` replaces an older run. Sets the seeds of
    Keras, NumPy and Python. On SIGINT and SIGTERM a checkpoint is written first; then KeyboardInterrupt or SystemExit
    is raised. `progress`: on standard error a table of the layers, and bars on a terminal or else a line per epoch;
    None is bars on a terminal and nothing else.

    Raises UsageError (options, a model that does not fit, records to validate on that are trained on too, another
    recipe or dataset than the run's, `out` in the way or at work), NotThereError, DataError (a damaged recipe or
    checkpoint; a loss that is no number any more), StorageError.
    """
    run = RunFolder(Path(out))
    with ExitStack() as stack:
        there = run.recipe_json.exists()
        if there:  # known before the work, and nothing in it changes meanwhile
            stack.enter_context(lock.held(run.lock))
        old = run.read_recipe() if resume else None
        training = _prepared(run, old, dataset, val, model, callbacks, options, overwrite, settings, stack)
        if not there:
            with explained(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.held(run.lock))
            _check_free(run, overwrite)  # again: another may have trained in it meanwhile
        if old:
            training.resume(old)
        else:
            training.begin()
        return training.go(progress)


def _prepared(
    run: RunFolder,
    old: Recipe | None,
    dataset: Dataset | os.PathLike[str] | str,
    val: Dataset | os.PathLike[str] | str | None,
    model: str | networks.Network | None,
    callbacks: Sequence[Any] | Any,
    options: Options | None,
    overwrite: bool,
    settings: Mapping[str, Any],
    stack: ExitStack,
) -> _Training:
    """A training as it is asked for, before anything of it is written; `old` is the recipe of the run to resume, and
    `stack` is closed when it is over."""
    dataset = opened(dataset)
    val = _validated_by(old, dataset) if val is None else opened(val)
    if options is None:
        options = old.options if old else Options()
        if is_code(options.model) or (old and old.own_model):
            options = replace(options, model=None)  # a RUN names no code to be run, whatever its recipe says
    options = with_settings(options, settings)
    if isinstance(model, str):
        model, options = None, replace(options, model=model)
    if old and old.own_model and model is None and options.model is None:
        raise UsageError(
            f"{run.folder}: its network is {old.model}, which is no built-in one, and a run by itself never runs any "
            "code; name it again (model)"
        )
    if not old:
        _check_free(run, overwrite)
    told = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else list(callbacks)
    among = stack.enter_context(devices.in_use(options.devices))
    with precision(options.precision):
        return _Training(run, dataset, val, model, told, options, among)


def opened(dataset: Dataset | os.PathLike[str] | str) -> Dataset:
    """The dataset at a path, or the one that is given."""
    return dataset if isinstance(dataset, Dataset) else Dataset(dataset)


def _validated_by(old: Recipe | None, dataset: Dataset) -> Dataset | None:
    """The other dataset that a run to be resumed was validated on, None where that was none. Raises UsageError."""
    part = old and old.val
    if not part or not old or part.content == old.train.content or dataset.fingerprint != old.train.content:
        return None
    val = Dataset(part.dataset) if is_url(part.dataset) or Path(part.dataset).is_dir() else None
    view = val.split(part.split) if val and part.split else val
    task = tasks.for_recipe(old.task, old.class_names, old.statistics)
    if view is None or parts.usable(view, task, old.options.limit).view_fingerprint != part.fingerprint:
        raise UsageError(f"the run was validated on {part}; pass it again (val)")
    return view


def best_of(history: Sequence[Mapping[str, float]], task: tasks.Task, monitor: str | None = None) -> int:
    """Index of the epoch to keep: the best by `monitor` (see Options), else by the task's rank; the first of equals."""

    def rank(row: Mapping[str, float]) -> tuple[float, ...]:
        if monitor is None:
            return task.rank(row)
        name, _, mode = monitor.partition(":")
        less = mode == "min" if mode else name.endswith(_LESS)
        return (-row[name] if less else row[name],)

    return max(range(len(history)), key=lambda i: (*rank(history[i]), -i))


def is_over(history: Sequence[Mapping[str, float]], task: tasks.Task, options: Options) -> bool:
    """Whether a training with this history has reached its last epoch, or lost its patience."""
    if len(history) >= options.epochs:
        return True
    return (
        bool(history)
        and options.patience is not None
        and len(history) - 1 - best_of(history, task, options.monitor) >= options.patience
    )


def _check_free(run: RunFolder, overwrite: bool) -> None:
    folder = run.folder
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: exists and is no folder; choose another place")
    if run.recipe_json.exists():
        if not overwrite:
            raise UsageError(
                f"{folder}: holds a run already; pass resume=True to go on with it, overwrite=True to replace it"
            )
    elif not run.is_unused():
        raise UsageError(f"{folder}: is a folder with other files in it, which are not replaced; choose another")


@dataclass(frozen=True)
class _Progress:
    """How far a training is, as its checkpoint holds it: `steps` and `means` of the epoch under way, a row of `history`
    for each that is over, and the state of the loader. Raises UsageError: no training is there."""

    steps: int
    means: tasks.Means
    history: tuple[Mapping[str, float], ...]
    loader: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.steps < 0 or self.means.count < 0:
            raise UsageError(f"steps is {self.steps} of {self.means.count} images, wanted 0 and more")
        for number, row in enumerate(self.history, 1):
            if row.get("epoch") != number or row.keys() != self.history[0].keys():
                raise UsageError(f"history {number} is {row!r:.80}, wanted the values of epoch {number}")


class _Training:
    """A model, its loader and how far both are."""

    def __init__(
        self,
        run: RunFolder,
        dataset: Dataset,
        val: Dataset | None,
        network: networks.Network | None,
        callbacks: Sequence[Any],
        options: Options,
        among: devices.Devices,
    ) -> None:
        _check_made(network, options)
        if options.deterministic:
            deterministic()
        keras.utils.set_random_seed(options.seed)
        task = tasks.for_dataset(dataset, options.task)
        train_part, val_part = parts.chosen(dataset, options, val)
        if val is not None:
            parts.check_fits(task, dataset, val)
        train_part = parts.learnable(train_part, task, options.limit)
        if val_part is not None:
            val_part = parts.learnable(val_part, task, options.limit)
            parts.check_apart(train_part.view, val_part.view)
        task = task.learning_from(train_part.view)
        if options.mix is not None:
            task = task.mixed_by(options.mix)
        weights = options.class_weights
        check_sample(train_part.view, options.sample)
        self.class_weights = None if weights is None else task.class_weights(train_part.view, weights)
        asked = options
        if any(isinstance(callback, _RATES) for callback in callbacks):
            if options.schedule not in (None, "constant"):
                raise UsageError(
                    f"a callback sets the learning rate, and so does schedule {options.schedule!r}: choose one"
                )
            options = replace(options, schedule="constant")
        options = options.filled(task.defaults_for(dataset))
        among.check_batch(filled(options.batch_size))
        size, shape, dtype = _input(dataset, options)
        if val_part is not None:
            parts.check_images(val_part.view, dataset.keeps, dtype, shape)
        if dataset.keeps and network is None and not is_code(options.model):
            raise UsageError(
                f"{dataset.path}: its numbers are kept as they are ({dtype} {list(shape)}), and the built-in models "
                "take pixels of 0 to 255; pass a model of your own"
            )
        name, built = _network(task, network, options, shape)
        said = networks.output_shape(built, shape, name=name)
        self.task = task.for_model(said, size or (0, 0), ends_in=networks.activation(built), name=name)
        own = network is not None or is_code(name)
        own_loss = own and bool(built.compiled)
        if own_loss:
            options = replace(options, learning_rate=asked.learning_rate, schedule=asked.schedule)
            for what in ("learning_rate", "schedule"):
                if getattr(options, what) is not None:
                    raise UsageError(f"{name} comes compiled, with an optimizer of its own; leave {what} out")
        self.run, self.options = run, options
        self.on_disk = not isinstance(dataset, ArrayDataset)
        self.loader = self._loader(train_part, size)
        self.val_loader = self._loader(val_part, size, val=True) if val_part else None
        if not len(self.loader):
            raise UsageError(
                f"{len(train_part.view)} records make no batch of {options.batch_size}, and drop_last leaves shorter "
                "ones out; choose a smaller batch_size"
            )
        self.recipe = Recipe(
            task=self.task.name,
            model=name,
            own_model=own,
            own_loss=own_loss,
            class_names=self.task.class_names,
            shape=shape,
            dtype=dtype,
            keeps=dataset.keeps,
            train=train_part.part(),
            val=val_part.part() if val_part else None,
            pack_options=dataset.manifest.pack_options,
            options=options,
            versions={"headrace": headrace.__version__} | describe(),
            statistics=self.task.statistics,
        )
        self.model, self.inference = built, networks.plain(built)
        if not own_loss:
            optimizer = self.task.optimizer(_learning_rate(options, options.epochs * len(self.loader)))
            self.task.compile(self.model, optimizer)
        self.model.optimizer.build(self.model.trainable_variables)
        self.shared = among.shared(self.model)
        steps = len(self.loader)
        self.hooks = (
            keras.callbacks.CallbackList(callbacks, model=self.model, epochs=options.epochs, steps=steps, verbose=0)
            if callbacks
            else None
        )
        self.history: list[Row] = []
        self.steps = 0  # of the epoch that is under way
        self.means = tasks.Means()
        self.seconds, self.images = 0.0, 0
        if own or options.monitor:
            self._try()

    def _loader(self, part: parts.Chosen, size: Size | None, *, val: bool = False) -> Loader:
        options, task = self.options, self.task
        drawn = size or (0, 0)  # of arrays that are kept, which have no boxes
        return part.view.loader(
            batch_size=filled(options.batch_size),
            size=size,
            fit=options.fit,
            shuffle=not val,
            order="full" if val else options.order,
            seed=options.seed,
            target=task.truth(part.view, drawn) if val else task.target(drawn),
            augment=() if val else tuple(AUGMENTATIONS[name] for name in filled(options.augment)),
            mix=None if val or options.mix is None else MIXES[options.mix],
            weights=None if val else options.sample,
            drop_last=options.drop_last and not val,
            workers=options.workers,
            cache=options.cache,
        )

    def _try(self) -> None:
        """One batch through loss and metrics before anything is made. Raises UsageError: they fail, or no `monitor`."""
        batch, means = self.loader[0], tasks.Means()
        try:
            means.add(tasks.measured(self.shared, batch, self.task.learnt(batch.targets)), len(batch.ids))
            names = [*means.values()]
            if self.val_loader:
                found = self.task.validate(self.shared, [self.val_loader[0]], own_loss=self.recipe.own_loss)
                names += [f"val_{name}" for name in found]
        except DamageError:
            raise
        except Exception as error:
            shape = f"{batch.targets.dtype} {list(batch.targets.shape)}"
            raise UsageError(
                f"{self.recipe.model}: its loss or metrics fail on targets {shape}, it raised\n{networks.told(error)}"
            ) from error
        monitor = self.options.monitor
        if monitor and monitor.partition(":")[0] not in names:
            raise UsageError(f"monitor is {monitor!r}; this run has {', '.join(names)}")

    def begin(self) -> None:
        """Make the RUN folder, or empty an older one of what a run puts there."""
        run = self.run
        with explained(run.folder):
            events = run.logs.rglob("events.out.tfevents.*")
            # First the checkpoint: what else of the older run is left by a kill here is a whole one, or begins anew.
            made = (run.checkpoint, run.model, run.history_csv, run.curves, run.layers)
            for path in (*made, *events, *run.leftovers()):
                path.unlink(missing_ok=True)
            if run.evaluations.exists():
                shutil.rmtree(run.evaluations)
        run.write_recipe(self.recipe)
        write_atomic(run.layers, f"{networks.summary(self.inference)}\n".encode())
        # Mosaics show others each time, and to count their boxes is to draw them all.
        if self.options.mix is None and (lost := self.loader.lost()):
            log.warning(self.task.lost_targets_message, lost)
        if self.val_loader is None:
            log.warning("no split to validate on: the epoch with the lowest training loss is kept")

    def resume(self, old: Recipe) -> None:
        """Take up the state of the last checkpoint. Raises UsageError where it is another training's."""
        new = self.recipe
        changes = old.options.changes(new.options)
        if new.train.content != old.train.content:
            changes.append(f"the dataset {new.train.dataset} is not the one the run began with ({old.train.dataset})")
        else:
            for name, mine, its in (("train", new.train, old.train), ("validate", new.val, old.val)):
                if (mine and mine.fingerprint) != (its and its.fingerprint):
                    changes.append(f"it is to {name} on {mine or 'nothing'}, the run does on {its or 'nothing'}")
        for name in ("task", "model", "own_model", "own_loss", "class_names", "shape", "dtype"):
            if getattr(old, name) != getattr(new, name):
                changes.append(f"{name} is {getattr(new, name)!r}, the run has {getattr(old, name)!r}")
        if changes:
            raise UsageError(f"{self.run.folder}: can't be resumed with another recipe: {'; '.join(changes)}")
        if old.versions != new.versions:
            log.warning("the run began with %s and goes on with %s", _versions(old), _versions(new))
        with explained(self.run.folder):
            for path in self.run.leftovers():
                path.unlink(missing_ok=True)
        if os.path.lexists(self.run.checkpoint):  # else it was killed before its first: begin again
            self._restore(checkpoint.read(self.run.checkpoint))
        self.run.write_recipe(new)

    def _restore(self, state: checkpoint.Checkpoint) -> None:
        """Put model, loader and history back to where they were. Raises UsageError, DataError."""
        where = f"{self.run.checkpoint} is damaged"
        try:
            progress = schema.read(_Progress, state.progress, where=where)
            if progress.steps > len(self.loader):
                raise UsageError(f"{where}: steps is {progress.steps}, wanted {len(self.loader)} at most")
            self.history = [dict(row) for row in progress.history]
            if self.history:
                self._best()
        except KeyError as error:
            raise DataError(f"{where}: its history has no {error}") from error
        except UsageError as error:
            raise DataError(f"{error}; start the run anew with overwrite=True") from error
        checkpoint.restore(self.model, state)
        self.loader.load_state_dict(dict(progress.loader))
        self.steps, self.means = progress.steps, progress.means

    def go(self, progress: bool | None) -> Trained:
        """All epochs that are left."""
        if progress:
            val = self.recipe.val
            _say(networks.summary(self.inference))
            _say(f"training on {self.recipe.train}; validating on {val or 'nothing'}")
        self.model.stop_training = False
        # What a killed run logged after its checkpoint is purged; the last epoch may be published once more.
        with _Logs(self.run.logs, purge=len(self.history) + (self.steps > 0)) as logs, _signals() as caught:
            if self.history and not self.steps:
                self._publish(logs)  # a kill may have come between the checkpoint and what follows it
            self._tell("on_train_begin")
            while not self._is_over():
                self._epoch(logs, caught, progress)
                if caught and not self._is_over():
                    self._stop(caught[0])
            self._tell("on_train_end", _logs(self.history[-1]))
        best = self._best()
        return Trained(
            run=self.run.folder,
            task=self.recipe.task,
            model=self.recipe.model,
            epochs=len(self.history),
            best=self.history[best],
            history=tuple(self.history),
            stopped_early=len(self.history) < self.options.epochs,
            seconds=self.seconds,
            images_per_second=self.images / self.seconds if self.seconds else 0.0,
        )

    def _is_over(self) -> bool:
        stopped = bool(self.history) and not self.steps and self.model.stop_training  # by a callback
        return stopped or is_over(self.history, self.task, self.options)

    def _best(self) -> int:
        return best_of(self.history, self.task, self.options.monitor)

    def _tell(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of the caller's callbacks, if there are any."""
        if self.hooks is not None:
            getattr(self.hooks, hook)(*arguments)

    def _epoch(self, logs: _Logs, caught: list[int], progress: bool | None) -> None:
        title = f"epoch {len(self.history) + 1}/{self.options.epochs}"
        total, show = self._images_per_epoch, False if progress is False else None
        begun = time.perf_counter()
        with bar(total=total, initial=self.means.count, unit="img", desc=title, show=show) as shown:
            quiet = progress and shown.disable
            self._tell("on_epoch_begin", len(self.history))
            if self.steps < len(self.loader):
                self._steps(shown, caught)
            row: Row = {"epoch": len(self.history) + 1} | self.means.values()
            if self.val_loader:
                row |= self._validated(caught)
            self._check_finite(row)
            shown.set_postfix_str(told := _told(row))
        self._tell("on_epoch_end", len(self.history), _logs(row))
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))  # of a float32
        row["learning_rate"] = float(f"{rate:.6g}")
        self.history.append(row)
        if self.steps < len(self.loader):  # a callback ended the training amid the epoch
            self.loader.epoch += 1
        self.steps, self.means = 0, tasks.Means()
        self._capture().write(self.run.checkpoint)
        self._publish(logs)
        if quiet:
            _say(f"{title}: {total} images in {time.perf_counter() - begun:.1f} s, {told}")

    @property
    def _images_per_epoch(self) -> int:
        n = self.recipe.train.records
        return len(self.loader) * filled(self.options.batch_size) if self.options.drop_last else n

    def _validated(self, caught: list[int]) -> Row:
        """The row's values of the validation part. Stops where a signal comes."""
        assert self.val_loader is not None
        state = self._capture()
        self._tell("on_test_begin")
        try:
            val = self.task.validate(self.shared, self._each(self.val_loader, caught), own_loss=self.recipe.own_loss)
        except _Stopped:
            self._stop(caught[0], state)
        self._tell("on_test_end", val)
        return {f"val_{name}": value for name, value in val.items()}

    def _each(self, batches: Iterable[Batch], caught: list[int]) -> Iterator[Batch]:
        """The batches to validate on, as long as no signal has come. Raises _Stopped."""
        for i, batch in enumerate(batches):
            if caught:
                raise _Stopped
            self._tell("on_test_batch_begin", i)
            yield batch
            self._tell("on_test_batch_end", i)

    def _steps(self, shown: Any, caught: list[int]) -> None:
        """The epoch's training steps, from where it stands."""
        written = before = time.perf_counter()
        with closing(iter(self.loader)) as batches:
            for batch in batches:
                self._tell("on_train_batch_begin", self.steps)
                self.model.reset_metrics()  # Keras summed them up over calls until keras-team/keras#22617
                targets = self.task.learnt(batch.targets)
                weights = None if self.class_weights is None else batch_weights(batch.targets, self.class_weights)
                logs = self.shared.train_on_batch(batch.images, targets, sample_weight=weights, return_dict=True)
                self.means.add(logs, len(batch.ids))
                self._tell("on_train_batch_end", self.steps, self.means.values())
                self.steps += 1
                now = time.perf_counter()
                self.seconds += now - before
                self.images += len(batch.ids)
                before = now
                self._check_finite(self.means.values(), batch.ids)
                shown.set_postfix_str(_told(self.means.values()), refresh=False)
                shown.update(len(batch.ids))
                if caught:
                    self._stop(caught[0], self._capture())
                if self.hooks is not None and self.model.stop_training:
                    return
                if now - written >= self.options.checkpoint_seconds and self.steps < len(self.loader):
                    self._capture().write(self.run.checkpoint)
                    written = now

    def _check_finite(self, metrics: Mapping[str, float], ids: Sequence[str] = ()) -> None:
        """Raises DataError: a value is no number any more; `ids` are the records that were seen last."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                rate = self.options.learning_rate
                lower = f"learning_rate={rate / 10:g}" if rate else "a lower learning rate of its optimizer"
                last = f" with {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}" if ids else ""
                raise DataError(
                    f"{self.run.folder}: {name} became {value} in epoch {len(self.history) + 1}, batch "
                    f"{self.steps}{last}: the learning rate is too high, or images or labels are not what the network "
                    f"takes; look at them, or train with {lower} and overwrite=True"
                )

    def _capture(self) -> checkpoint.Checkpoint:
        progress = _Progress(self.steps, self.means, tuple(self.history), self.loader.state_dict())
        return checkpoint.capture(self.model, asdict(progress))

    def _stop(self, number: int, state: checkpoint.Checkpoint | None = None) -> NoReturn:
        """Write the state, say how to go on, and end as the signal `number` asks for."""
        if state:
            state.write(self.run.checkpoint)
        log.warning(
            "stopped in epoch %d after %d of %d images; go on with: %s",
            len(self.history) + 1, self.means.count, self._images_per_epoch, self._again(),
        )  # fmt: skip
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _again(self) -> str:
        """What to type to go on: the command, or the call where only Python knows the dataset or the network."""
        recipe = self.recipe
        by_command = self.on_disk and (not recipe.own_model or is_code(recipe.model))
        if not by_command:
            return f"train(dataset, out={str(self.run.folder)!r}, resume=True)"
        words = ["headrace", "train", recipe.train.dataset, "--out", str(self.run.folder), "--resume"]
        return shlex.join([*words, *(("--model", recipe.model) if recipe.own_model else ())])

    def _publish(self, logs: _Logs) -> None:
        """Write what follows from the last epoch: the model if it is the best so far; history, curves, logs."""
        best = self._best()
        if best == len(self.history) - 1:
            _save(self.inference, self.run.model)
        write_atomic(self.run.history_csv, _csv(self.history))
        write_atomic(self.run.curves, plots.png(plots.curves(self.history, best=best)))
        logs.write(self.history[-1])


def check_sample(view: Dataset, sample: str | Mapping[str, float] | None) -> None:
    """Raises UsageError: the records can't be drawn so."""
    if sample is not None:
        try:
            weights_of(view.selection, sample)
        except UsageError as error:
            raise UsageError(re.sub("^weights", "sample", str(error))) from error


def batch_weights(targets: Any, class_weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each image counts, float32 [b]: of class indices [b], or shares of the classes [b, classes] in it."""
    weights: NDArray[np.float32] = class_weights[targets] if targets.ndim == 1 else targets @ class_weights
    return weights


class _Logs:
    """TensorBoard's logs: `train` and `val` as two runs with the same tags, which it draws in one chart. None without
    tensorboardX. Raises StorageError."""

    def __init__(self, folder: Path, *, purge: int) -> None:
        self._folder, self._purge = folder, purge
        self._writers: dict[str, Any] = {}
        self._there = importlib.util.find_spec("tensorboardX") is not None
        if not self._there:
            log.warning("no TensorBoard logs: tensorboardX is not installed; run: pip install 'headrace[tensorboard]'")

    def write(self, row: Mapping[str, float]) -> None:
        if not self._there:
            return
        with explained(self._folder):
            for name, value in row.items():
                if name != "epoch":
                    self._writer("val" if name.startswith("val_") else "train").add_scalar(
                        name.removeprefix("val_"), value, int(row["epoch"])
                    )
            for writer in self._writers.values():
                writer.flush()

    def _writer(self, run: str) -> Any:
        from tensorboardX import SummaryWriter

        if run not in self._writers:
            self._writers[run] = SummaryWriter(str(self._folder / run), purge_step=self._purge)
        return self._writers[run]

    def __enter__(self) -> _Logs:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with explained(self._folder) if kind is None else suppress(OSError):  # of two errors the first is the reason
            for writer in self._writers.values():
                writer.close()


class _Stopped(Exception):
    """A signal came while validating."""


def _network(
    task: tasks.Task, network: networks.Network | None, options: Options, shape: tuple[int, ...]
) -> tuple[str, Any]:
    """What the model is called, and the model itself. Raises UsageError, NotThereError."""
    name = options.model
    if network is None and name is not None and is_code(name):
        network = networks.from_file(name)
    if network is None:
        if name is not None and name.endswith(".py"):
            raise UsageError(f"model is {name!r}, wanted the function in it too, such as {name}:build")
        name = task.model_name(name)
        return name, task.build(name, shape, options.model_options)
    if options.model_options:
        raise UsageError(f"{', '.join(options.model_options)}: options of built-in models, and this is one of your own")
    name = name or networks.name_of(network)
    return name, networks.build(network, shape, len(task.class_names), name=name)


def _check_made(network: networks.Network | None, options: Options) -> None:
    """Raises UsageError: the network is there already, and can't be brought to where or in what it is to compute."""
    if not isinstance(network, keras.Model):
        return
    for name, asked in (("precision", options.precision != "float32"), ("devices", options.devices is not None)):
        if asked:
            raise UsageError(
                f"{name} is {getattr(options, name)!r}, and this network has been made already: pass the function that "
                "makes it"
            )


def _input(dataset: Dataset, options: Options) -> tuple[Size | None, tuple[int, ...], str]:
    """The size that images are brought to, shape and type of what the model takes of one. Raises UsageError."""
    if dataset.keeps:
        return check_size(options.size), dataset.store.image_shape, str(dataset.store.dtype)
    size = check_size(options.size) or dataset.image_size
    if size is None:
        raise UsageError(f"{dataset.path}: the images differ in size; pass that of the model, size=N")
    return size, (*size, dataset.channels), "uint8"


def _logs(row: Mapping[str, float]) -> Row:
    """What callbacks are told of an epoch: as Keras does, all that was measured."""
    return {name: value for name, value in row.items() if name not in ("epoch", "learning_rate")}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The SIGINT or SIGTERM that came, noted so that no step is cut in two; a second acts as it always does."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _learning_rate(options: Options, steps: int) -> Any:
    """What the optimizer takes: a number, or a schedule over `steps` steps, by their count alone."""
    peak = filled(options.learning_rate)
    if options.schedule == "constant":
        return peak
    warmup = max(1, steps // 20)
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup)


def _save(model: Any, path: Path) -> None:
    """Replaces the file `path` by the saved model at once. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.keras")  # Keras wants the suffix; a run has one writer
    with explained(path):
        try:
            model.save(temporary)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def _csv(history: Sequence[Mapping[str, float]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return out.getvalue().encode()


def _told(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "epoch")


def _versions(recipe: Recipe) -> str:
    return ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
