"""Evaluation: what a trained run says about a dataset, against what the dataset says; as numbers and as pictures."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.imaging import sheet
from headrace.learn import networks, parts, pictures, plots, tasks
from headrace.learn.run import Run
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.place.local import explained
from headrace.place.publish import write_atomic
from headrace.progress import bar

log = logging.getLogger(__name__)

EXAMPLES = 32  # records on the sheet
REPORT, SHEET = "evaluation.json", "examples.png"
RECORDS = "records.jsonl"  # what the run says of each record, a line each


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`metrics` are the task's: for classification `loss`, `accuracy`, `per_class`, `confusion` and `class_names`; for
    several classes `map`, `exact` and the average precision `ap` of each in `per_class`; for values `mae`, `rmse` and
    `r2`.

    `loss` is the task's own, None for a run whose network learnt by another. `text` says the same for people.
    `figures` are the pictures that were written, `examples` the sheet of records among them, None where there are no
    pixels to show.
    """

    run: Path
    dataset: Path
    split: str | None
    task: str
    records: int
    metrics: Mapping[str, Any]
    text: str
    figures: tuple[Path, ...]
    examples: Path | None

    def json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "run": str(self.run),
            "dataset": str(self.dataset),
            "split": self.split,
            "records": self.records,
            **self.metrics,
            "figures": [str(path) for path in self.figures],
            "examples": None if self.examples is None else str(self.examples),
        }


def evaluate(
    run: Run | Path | str,
    dataset: Dataset | Path | str,
    *,
    split: str | None = None,
    out: Path | str | None = None,
    worst: bool = False,
    limit: int | None = None,
    network: networks.Network | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Judge a run's best model on a dataset or a view: packed, adopted or of arrays.

    A view is taken as it is; of a whole dataset `split`, by default what the run was validated on, else "val", else
    everything. Where the run divided this dataset (`divide`), splits are its shares. `limit`: so many records at most,
    evenly drawn. `out` gets evaluation.json, the task's figure and examples.png, 32 records with what was observed and
    estimated, evenly drawn, or with `worst` those that the run is furthest off; by default that is a folder for each
    dataset and part below RUN/evaluations. records.jsonl there has a line for each record, in the dataset's order: its
    id, how far off the run is (`wrong`, more is worse, null where nobody knows), whether it is `right`, and `rows` as
    `predict` has them of a dataset, without the probability of each class. `network`: see `Run`.

    Raises UsageError (no run; a dataset with other classes or channels, without that split, without labels),
    NotThereError, DataError, StorageError.
    """
    run = run if isinstance(run, Run) else Run(run, network=network)
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    recipe, task = run.recipe, run.task
    there = type(task).of(dataset)
    if there is None:
        raise UsageError(
            f"{run.folder.folder} is {task.kind} ({tasks.listed(task.class_names)}), and {dataset.path} has no "
            f"{task.learns_from}"
        )
    parts.check_names(task, dataset, there, f"the run {run.folder.folder} was trained on")
    chosen = parts.learnable(parts.judged(dataset, split, recipe), task, limit)
    part = chosen.view
    if seen := parts.seen_in_training(part, recipe):
        log.warning(
            "%d of these %d records are what the run was trained on: it will do worse on new ones", seen, len(part)
        )
    examples = pictures.Records(run, task, part, n=EXAMPLES, worst=worst)
    observe = task.ground_truth(part)
    with (
        tempfile.TemporaryFile() as lines,
        bar(total=len(part), unit="img", desc="evaluate", show=None if progress else False) as shown,
    ):

        def told() -> Iterator[tuple[Batch, tasks.Outputs]]:
            number = 0
            for batch, outputs in run.batches(part, workers=workers):
                for id_, image, output in zip(batch.ids, batch.images, outputs, strict=True):
                    answer = run.answer(part, number, id_, image, output, task)
                    seen = pictures.observed(observe, part.store.table.row(int(part.rows[number])))
                    if examples.wants(number):
                        examples.add(number, answer, seen)
                    lines.write(_line(task, id_, answer.found, seen))
                    number += 1
                yield batch, outputs
                shown.update(len(batch.ids))

        score = task.score(told())
        lines.seek(0)
        said = lines.read()
    loss = score.loss if task.common_loss or not recipe.own_loss else None
    headline, *rest = score.text.splitlines()
    if loss is not None:
        headline += f", loss {loss:.4f}"
    folder = Path(out) if out else _folder(run, chosen, limit)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in score.figures.items():
        write_atomic(folder / name, plots.png(figure))
    write_atomic(folder / RECORDS, said)
    drawn = "the worst" if worst else "evenly drawn"
    colours = "" if task.right_means is None else f"; green: {task.right_means}; red: others"
    picture = examples.sheet(f"{chosen.part()}: {headline}. Shown are {min(EXAMPLES, len(part))}, {drawn}{colours}")
    if picture is not None:
        write_atomic(folder / SHEET, sheet.png(picture))
    paths = tuple(folder / name for name in score.figures) + ((folder / SHEET,) if picture is not None else ())
    result = Evaluation(
        run=run.folder.folder,
        dataset=dataset.path,
        split=chosen.name,
        task=recipe.task,
        records=score.records,
        metrics={"loss": loss, **score.metrics},
        text="\n".join([headline, *rest]),
        figures=paths,
        examples=folder / SHEET if picture is not None else None,
    )
    written = result.json() | {
        "path": str(part.path.absolute()),
        "view": part.what,
        "fingerprint": part.view_fingerprint,
    }
    write_atomic(folder / REPORT, f"{json.dumps(written, indent=2)}\n".encode())
    return result


def _line(task: tasks.Task, id_: str, found: Any, observed: Any) -> bytes:
    """What is found in a record, against what is there, as a line of JSON."""
    known = observed is not None
    rows = [{name: row[name] for name in task.compared_columns} for row in task.compared(found, observed)]
    line = {
        "id": id_,
        "wrong": task.wrong(found, observed) if known else None,
        "right": task.is_correct(found, observed) if known else None,
        "rows": rows,
    }
    return f"{json.dumps(line)}\n".encode()


def _folder(run: Run, chosen: parts.Chosen, limit: int | None) -> Path:
    """Where the pictures of a part go: RUN/evaluations/cats-val, with a number for another dataset of that name."""
    part = chosen.view
    which = chosen.name or (part.view_fingerprint[:8] if part.is_view and limit is None else None)
    words = (part.path.absolute().name, which, None if limit is None else f"limit-{limit}")
    name = "-".join(word for word in words if word)
    number = 1
    while True:
        folder = run.folder.evaluations / (name if number == 1 else f"{name}-{number}")
        try:
            written = json.loads((folder / REPORT).read_text())
        except (OSError, ValueError):
            return folder
        same = isinstance(written, dict) and written.get("path") == str(part.path.absolute())
        # Arrays in memory are all called "x".
        if same and (part.path.exists() or written["fingerprint"] == part.view_fingerprint):
            return folder
        number += 1
