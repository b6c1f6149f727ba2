"""Evaluation: what a trained run says about a packed dataset, against what the dataset says."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.format.storage import explained, write_atomic
from headrace.learn import inference, plots, tasks
from headrace.load.dataset import Dataset
from headrace.load.loader import Batch
from headrace.progress import bar

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`metrics` are the task's: for classification `accuracy`, `per_class`, `confusion` and `class_names`.

    `text` says the same for people, `figures` are the pictures that were written.
    """

    run: Path
    dataset: Path
    split: str | None
    task: str
    records: int
    metrics: Mapping[str, Any]
    text: str
    figures: tuple[Path, ...]

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "run": str(self.run),
            "dataset": str(self.dataset),
            "split": self.split,
            "records": self.records,
            **self.metrics,
            "figures": [str(path) for path in self.figures],
        }


def evaluate(
    run: Path | str,
    dataset: Dataset | Path | str,
    *,
    split: str | None = None,
    out: Path | str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Judge a run's best model on a split: by default its validation split, or everything where that isn't.

    Pictures are written into `out`, by default the run's own folder.
    Raises UsageError (no run; a dataset with other classes or channels, without that split, without labels),
    NotThereError, DataError, StorageError.
    """
    asked = inference.load(run)
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    recipe = asked.recipe
    found = tasks.for_dataset(dataset, recipe.task).class_names
    if found != recipe.class_names:
        raise UsageError(
            f"{dataset.path}: its classes are {', '.join(found)}, the run {asked.run.folder} was trained on "
            f"{', '.join(recipe.class_names)}; the same names in the same order are wanted"
        )
    split = split or next((name for name in (recipe.val_split, "val") if name in dataset.splits), None)
    part = asked.task.select(dataset.split(split) if split else dataset)
    if not len(part):
        raise UsageError(f"{dataset.path}: {split or 'the dataset'} has no record with labels to compare with")
    if dataset.fingerprint == recipe.fingerprint and split in (None, recipe.split):
        log.warning("these are images that the run was trained on: it will do worse on new ones")
    with bar(total=len(part), unit="img", desc="evaluate", show=None if progress else False) as shown:
        score = asked.task.score(part, _counted(asked.dataset_outputs(part, workers=workers), shown))
    folder = Path(out) if out else asked.run.folder
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in score.figures.items():
        write_atomic(folder / name, plots.png(figure))
    return Evaluation(
        run=asked.run.folder,
        dataset=dataset.path,
        split=split,
        task=recipe.task,
        records=score.records,
        metrics=score.metrics,
        text=score.text,
        figures=tuple(folder / name for name in score.figures),
    )


def _counted(outputs: Iterable[tuple[Batch, tasks.Outputs]], shown: Any) -> Iterator[tuple[Batch, tasks.Outputs]]:
    for batch, output in outputs:
        yield batch, output
        shown.update(len(batch.ids))
