"""A trained run, ready to be asked. Evaluation and prediction both go through here: the same code for both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import DataError, UsageError
from headrace.learn import tasks
from headrace.learn.backend import jit, keras
from headrace.learn.run import Recipe, Run, filled
from headrace.load.dataset import Dataset
from headrace.load.loader import Batch


@dataclass(frozen=True)
class Asked:
    """A run's recipe, its task and the model of its best epoch."""

    run: Run
    recipe: Recipe
    task: tasks.Task
    model: Any

    def outputs(self, batch: Batch) -> tasks.Outputs:
        """The model's outputs float32 [b, ...] for the batch's raw images."""
        return np.asarray(self.model.predict_on_batch(batch.images), np.float32)

    def dataset_outputs(self, dataset: Dataset, *, workers: int | None = None) -> Iterator[tuple[Batch, tasks.Outputs]]:
        """Batches of a dataset in its order, and the outputs for each. Raises UsageError: its images don't suit."""
        recipe = self.recipe
        if dataset.channels != recipe.channels:
            raise UsageError(
                f"{dataset.path}: images have {dataset.channels} channels, the run's model takes {recipe.channels}; "
                f"pack them with --channels {recipe.channels}"
            )
        loader = dataset.loader(
            batch_size=filled(recipe.options.batch_size),
            size=recipe.size,
            fit=recipe.options.fit,
            shuffle=False,
            target=self.task.truth(dataset, recipe.size),
            workers=workers,
        )
        return ((batch, self.outputs(batch)) for batch in loader)


def load(folder: Path | str) -> Asked:
    """The run in `folder`. Raises NotThereError, UsageError (no run, or without a model yet), DataError (damaged)."""
    run = Run(Path(folder))
    recipe = run.read_recipe()
    task = tasks.for_recipe(recipe.task, recipe.class_names).learnt_by(recipe.model)
    if not run.model.exists():
        raise UsageError(f"{run.folder}: has no model yet; its training has not come to the end of an epoch")
    try:
        model = keras.saving.load_model(run.model, compile=False)
    except Exception as error:
        raise DataError(f"{run.model}: can't be loaded ({str(error).splitlines()[0]})") from error
    if not jit():
        model.jit_compile = False
    return Asked(run, recipe, task, model)
