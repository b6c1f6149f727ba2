"""Training: steps over the loader, checkpoints, and the RUN folder they fill. What is learnt is the task's."""

from __future__ import annotations

import csv
import io
import logging
import math
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import headrace
from headrace.errors import UsageError
from headrace.format.storage import explained, write_atomic
from headrace.imaging.transforms import AUGMENTATIONS, Size, check_size
from headrace.learn import checkpoint, plots, tasks
from headrace.learn.backend import describe, deterministic, keras
from headrace.learn.run import Options, Recipe, Run, filled
from headrace.load.arrays import ArrayDataset
from headrace.load.dataset import Dataset
from headrace.load.loader import Batch, Loader
from headrace.progress import bar

log = logging.getLogger(__name__)

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
    dataset: Dataset | Path | str,
    *,
    out: Path | str,
    options: Options | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Trained:
    """Train a model on a dataset (or a view), packed or of arrays, and keep all that belongs to it in folder `out`.

    `resume` goes on from the last checkpoint in `out`, mid-epoch, with exactly the batches that were left;
    `options` None are then the run's own. `overwrite` replaces an older run. Sets the seeds of Keras, NumPy and
    Python. On SIGINT and SIGTERM a checkpoint is written first; then KeyboardInterrupt or SystemExit is raised.

    Raises UsageError (options, another recipe or dataset than the run's, `out` in the way), NotThereError,
    DataError (a damaged checkpoint), StorageError.
    """
    run = Run(Path(out))
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    old = run.read_recipe() if resume else None
    options = options or (old.options if old else Options())
    if not resume:
        _check_free(run, overwrite)
    training = _Training(run, dataset, options)
    if old:
        training.resume(old)
    else:
        training.begin()
    return training.go(progress)


def best_of(history: Sequence[Mapping[str, float]], task: tasks.Task) -> int:
    """Index of the epoch to keep: the best by the task's rank, the first of equals."""
    return max(range(len(history)), key=lambda i: (*task.rank(history[i]), -i))


def is_over(history: Sequence[Mapping[str, float]], task: tasks.Task, options: Options) -> bool:
    """Whether a training with this history has reached its last epoch, or lost its patience."""
    if len(history) >= options.epochs:
        return True
    return (
        bool(history) and options.patience is not None and len(history) - 1 - best_of(history, task) >= options.patience
    )


def _check_free(run: Run, overwrite: bool) -> None:
    folder = run.folder
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: exists and is no folder; choose another place")
    if run.recipe_json.exists():
        if not overwrite:
            raise UsageError(
                f"{folder}: holds a run already; pass --resume to go on with it, --overwrite to replace it"
            )
    elif any(folder.iterdir()):
        raise UsageError(f"{folder}: is a folder with other files in it, which are not replaced; choose another")


def _splits(dataset: Dataset, options: Options) -> tuple[str | None, str | None]:
    """Names of the splits to train and to validate on; None for everything, or for no validation."""
    there = list(dataset.splits)
    for name in (options.split, options.val_split):
        if name is not None and name not in there:
            raise UsageError(f"{dataset.path}: has no split {name!r}; it has {', '.join(there)}")
    split = options.split or ("train" if "train" in there else None)
    val_split = options.val_split or ("val" if "val" in there else None)
    if split is None and len(there) > 1:
        raise UsageError(f"{dataset.path}: has no split 'train'; say which to train on: {', '.join(there)}")
    if val_split is not None and val_split in (split, *(there if split is None else ())):
        raise UsageError(f"{dataset.path}: split {val_split!r} can't be for training and for validation at once")
    return split, val_split


class _Training:
    """A model, its loader and how far both are."""

    def __init__(self, run: Run, dataset: Dataset, options: Options) -> None:
        if options.deterministic:
            deterministic()
        keras.utils.set_random_seed(options.seed)
        task = tasks.for_dataset(dataset, options.task)
        model = task.model_name(options.model)
        self.task = task.learnt_by(model)
        options = options.filled(self.task.chosen(dataset))
        self.run, self.options = run, options
        split, val_split = _splits(dataset, options)
        size = check_size(options.size) or dataset.image_size
        if size is None:
            raise UsageError(f"{dataset.path}: the images differ in size; pass the model's with --size")
        self.loader = self._loader(dataset, split, size)
        self.val_loader = self._loader(dataset, val_split, size, val=True) if val_split else None
        self.recipe = Recipe(
            task=self.task.name,
            model=model,
            class_names=self.task.class_names,
            size=size,
            channels=dataset.channels,
            dataset=str(dataset.path),
            fingerprint=dataset.fingerprint,
            pack_options=dataset.manifest.pack_options,
            records=len(self.loader.dataset),
            split=split,
            val_split=val_split,
            options=options,
            versions={"headrace": headrace.__version__} | describe(),
        )
        built = self.task.build(self.recipe.model, (*size, dataset.channels), options.model_options)
        # What is saved is `inference`, the same layers without loss and optimizer: any Keras loads it.
        self.inference = built
        self.model = keras.Model(built.inputs, built.outputs, name=built.name)
        optimizer = self.task.optimizer(_learning_rate(options, options.epochs * len(self.loader)))
        self.task.compile(self.model, optimizer)
        optimizer.build(self.model.trainable_variables)
        self.history: list[Row] = []
        self.steps = 0  # of the epoch that is under way
        self.means = tasks.Means()
        self.seconds, self.images = 0.0, 0

    def _loader(self, dataset: Dataset, split: str | None, size: Size, *, val: bool = False) -> Loader:
        options, task = self.options, self.task
        whole = dataset.split(split) if split else dataset
        part = task.select(whole)
        name = split or "the dataset"
        if not len(part):
            raise UsageError(f"{dataset.path}: {name} has no record with labels to learn from")
        if len(part) < len(whole):
            missing = len(whole) - len(part)
            log.warning("%s: %d of %d records have no label and are left out", name, missing, len(whole))
        return part.loader(
            batch_size=filled(options.batch_size),
            size=size,
            fit=options.fit,
            shuffle=not val,
            seed=options.seed,
            target=task.truth(part, size) if val else task.target(size),
            augment=() if val else tuple(AUGMENTATIONS[name] for name in filled(options.augment)),
            workers=options.workers,
            cache=options.cache,
        )

    def begin(self) -> None:
        """Make the RUN folder, or empty an older one of what a run puts there."""
        run = self.run
        with explained(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
            figures = [run.folder / name for name in self.task.figures]
            events = run.logs.rglob("events.out.tfevents.*")
            for path in (run.model, run.checkpoint, run.history_csv, run.curves, *figures, *events):
                path.unlink(missing_ok=True)
        run.write_recipe(self.recipe)
        if lost := self.loader.lost():
            log.warning(self.task.crowded, lost)
        if self.val_loader is None:
            log.warning("no split to validate on: the epoch with the lowest training loss is kept")

    def resume(self, old: Recipe) -> None:
        """Take up the state of the last checkpoint. Raises UsageError where it is another training's."""
        new = self.recipe
        changes = old.options.changes(new.options)
        if new.fingerprint != old.fingerprint:
            changes.append(f"the dataset {new.dataset} is not the one the run began with ({old.dataset})")
        for name in ("task", "model", "class_names", "size", "channels", "split", "val_split"):
            if getattr(old, name) != getattr(new, name):
                changes.append(f"{name} is {getattr(new, name)!r}, the run has {getattr(old, name)!r}")
        if changes:
            raise UsageError(f"{self.run.folder}: can't be resumed with another recipe: {'; '.join(changes)}")
        if old.versions != new.versions:
            log.warning("the run began with %s and goes on with %s", _versions(old), _versions(new))
        if self.run.checkpoint.exists():  # else it was killed before its first: begin again
            state = checkpoint.read(self.run.checkpoint)
            checkpoint.restore(self.model, state)
            self.loader.load_state_dict(state.progress["loader"])
            self.history = [dict(row) for row in state.progress["history"]]
            self.steps = state.progress["steps"]
            self.means = tasks.Means(**state.progress["means"])
        self.run.write_recipe(new)

    def go(self, progress: bool) -> Trained:
        """All epochs that are left."""
        # What a killed run logged after its checkpoint is purged; the last epoch may be published once more.
        with _Logs(self.run.logs, purge=len(self.history) + (self.steps > 0)) as logs, _signals() as caught:
            if self.history and not self.steps:
                self._publish(logs)  # a kill may have come between the checkpoint and what follows it
            while not is_over(self.history, self.task, self.options):
                self._epoch(logs, caught, progress)
                if caught and not is_over(self.history, self.task, self.options):
                    self._stop(caught[0])
        best = best_of(self.history, self.task)
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

    def _epoch(self, logs: _Logs, caught: list[int], progress: bool) -> None:
        title = f"epoch {len(self.history) + 1}/{self.options.epochs}"
        total, show = self.recipe.records, None if progress else False
        with bar(total=total, initial=self.means.count, unit="img", desc=title, show=show) as shown:
            if self.steps < len(self.loader):
                self._steps(shown, caught)
            row: Row = {"epoch": len(self.history) + 1} | self.means.values()
            if self.val_loader:
                state = self._capture()
                try:
                    val = self.task.validate(self.model, _until(self.val_loader, caught))
                except _Stopped:
                    self._stop(caught[0], state)
                row |= {f"val_{name}": value for name, value in val.items()}
            self._check_finite(row)
            shown.set_postfix_str(_told(row))
        row["learning_rate"] = float(f"{float(self.model.optimizer.learning_rate):.6g}")  # it is a float32
        self.history.append(row)
        self.steps, self.means = 0, tasks.Means()
        self._capture().write(self.run.checkpoint)
        self._publish(logs)

    def _steps(self, shown: Any, caught: list[int]) -> None:
        """The epoch's training steps, from where it stands."""
        written = before = time.perf_counter()
        with closing(iter(self.loader)) as batches:
            for batch in batches:
                self.model.reset_metrics()  # Keras summed them up over calls until keras-team/keras#22617
                logs = self.model.train_on_batch(batch.images, batch.targets, return_dict=True)
                self.steps += 1
                self.means.add(logs, len(batch.ids))
                now = time.perf_counter()
                self.seconds += now - before
                self.images += len(batch.ids)
                before = now
                self._check_finite(self.means.values())
                shown.set_postfix_str(_told(self.means.values()), refresh=False)
                shown.update(len(batch.ids))
                if caught:
                    self._stop(caught[0], self._capture())
                if now - written >= self.options.checkpoint_seconds and self.steps < len(self.loader):
                    self._capture().write(self.run.checkpoint)
                    written = now

    def _check_finite(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UsageError(
                    f"{name} became {value} in epoch {len(self.history) + 1}, batch {self.steps}; "
                    f"pass a lower --learning-rate than {self.options.learning_rate:g}"
                )

    def _capture(self) -> checkpoint.Checkpoint:
        progress = {
            "steps": self.steps,
            "means": asdict(self.means),
            "history": list(self.history),
            "loader": self.loader.state_dict(),
        }
        return checkpoint.capture(self.model, progress)

    def _stop(self, number: int, state: checkpoint.Checkpoint | None = None) -> NoReturn:
        """Write the state, say how to go on, and end as the signal `number` asks for."""
        if state:
            state.write(self.run.checkpoint)
        again = f"headrace train {self.recipe.dataset} --out {self.run.folder} --resume"
        if isinstance(self.loader.dataset, ArrayDataset):  # which the command line doesn't know
            again = f"train(dataset, out={str(self.run.folder)!r}, resume=True)"
        log.warning(
            "stopped in epoch %d after %d of %d batches; go on with: %s",
            len(self.history) + 1, self.steps, len(self.loader), again,
        )  # fmt: skip
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def _publish(self, logs: _Logs) -> None:
        """Write what follows from the last epoch: the model if it is the best so far; history, curves, logs."""
        best = best_of(self.history, self.task)
        if best == len(self.history) - 1:
            write_atomic(self.run.model, _saved(self.inference))
        write_atomic(self.run.history_csv, _csv(self.history))
        write_atomic(self.run.curves, plots.png(plots.curves(self.history, best=best)))
        logs.write(self.history[-1])


class _Logs:
    """TensorBoard's logs: `train` and `val` as two runs with the same tags, which it draws in one chart."""

    def __init__(self, folder: Path, *, purge: int) -> None:
        self._folder, self._purge = folder, purge
        self._writers: dict[str, Any] = {}

    def write(self, row: Mapping[str, float]) -> None:
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

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()


class _Stopped(Exception):
    """A signal came while validating."""


def _until(batches: Iterable[Batch], caught: list[int]) -> Iterator[Batch]:
    """The batches, as long as no signal has come. Raises _Stopped."""
    for batch in batches:
        if caught:
            raise _Stopped
        yield batch


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


def _saved(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


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
