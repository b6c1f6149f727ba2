"""Evaluation: what a trained run says about a dataset, against what the dataset says; as numbers and as pictures."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UsageError
from headrace.imaging import sheet
from headrace.learn import networks, parts, pictures, plots, tasks
from headrace.learn.run import Run
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.place.address import Location, Url
from headrace.place.local import explained
from headrace.place.publish import write_atomic
from headrace.progress import bar

log = logging.getLogger(__name__)

EXAMPLES = 32  # records on the sheet
REPORT, SHEET = "evaluation.json", "examples.png"
RECORDS = "records.jsonl"  # what the run says of each record, a line each
DOUBTS_SHOWN = 60
DOUBTS, DOUBTS_SHEET = "doubts.csv", "doubts.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful:
    """A record whose label the run contradicts: what was `observed`, what it seems to be (`estimated`; of several
    classes with "; " between), the `probability` that the run gives to the label, and by how much that is less than
    of what it seems to be (`margin`, -1 to 1)."""

    id: str
    split: str
    observed: str
    estimated: str
    probability: float
    margin: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """`metrics` are the task's: for classification `loss`, `accuracy`, `per_class`, `confusion` and `class_names`; for
    several classes `map`, `exact` and the average precision `ap` of each in `per_class`; for values `mae`, `rmse` and
    `r2`.

    `loss` is the task's own, None for a run whose network learnt by another. `text` says the same for people.
    `figures` are the pictures that were written, `examples` the sheet of records among them, None where there are no
    pixels to show. `doubts`: the records whose labels are in doubt, None where nobody asked.
    """

    run: Path
    dataset: Location
    split: str | None
    task: str
    records: int
    metrics: Mapping[str, Any]
    text: str
    figures: tuple[Path, ...]
    examples: Path | None
    doubts: tuple[Doubtful, ...] | None

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
            "doubts": None if self.doubts is None else [asdict(doubt) for doubt in self.doubts],
        }


def evaluate(
    run: Run | Path | str,
    dataset: Dataset | os.PathLike[str] | str,
    *,
    split: str | None = None,
    out: Path | str | None = None,
    worst: bool = False,
    limit: int | None = None,
    doubts: int | None = None,
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

    `doubts`: so many records at most whose labels the run confidently contradicts, the most doubtful first, by
    confident learning (learn.doubts): also as doubts.csv and, with pixels, doubts.png. Records that it was trained on
    are not among them, as a model remembers their labels. It takes a model that is right more often than not, and
    what it finds are labels to look at, not wrong ones: hard images are among them.

    Raises UsageError (no run; a dataset with other classes or channels, without that split, without labels; doubts of
    another task than classification and multilabel, or of nothing but what was trained on), NotThereError, DataError,
    StorageError.
    """
    if doubts is not None and doubts < 1:
        raise UsageError(f"doubts is {doubts}, wanted 1 or more")
    run = run if isinstance(run, Run) else Run(run, network=network)
    dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
    recipe, task = run.recipe, run.task
    if doubts is not None and not task.can_doubt:
        raise UsageError(f"doubts are for classification and multilabel, this run's task is {task.name}")
    there = type(task).of(dataset)
    if there is None:
        raise UsageError(
            f"{run.folder.folder} is {task.kind} ({tasks.listed(task.class_names)}), and {dataset.path} has no "
            f"{task.learns_from}"
        )
    parts.check_names(task, dataset, there, f"the run {run.folder.folder} was trained on")
    chosen = parts.learnable(parts.judged(dataset, split, recipe), task, limit)
    part = chosen.view
    seen = parts.seen_in_training(part, recipe)
    if len(seen):
        log.warning(
            "%d of these %d records are what the run was trained on: it will do worse on new ones", len(seen), len(part)
        )
    held_out = ~np.isin(part.rows, seen)
    if doubts is not None and not held_out.any():
        raise UsageError(
            f"doubts: all {len(part)} records are what the run was trained on, whose labels it remembers, right or "
            "wrong; name others, or train on a part of them (divide) and judge the rest"
        )
    said: list[tuple[Any, tasks.Outputs]] = []  # of the held-out ones, where doubts are wanted
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
                if doubts is not None:
                    held = held_out[number - len(batch.ids) : number]
                    said.append((batch.targets[held], outputs[held]))
                yield batch, outputs
                shown.update(len(batch.ids))

        score = task.score(told())
        lines.seek(0)
        table = lines.read()
    loss = score.loss if task.common_loss or not recipe.own_loss else None
    headline, *rest = score.text.splitlines()
    if loss is not None:
        headline += f", loss {loss:.4f}"
    folder = Path(out) if out else _folder(run, chosen, limit)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in score.figures.items():
        write_atomic(folder / name, plots.png(figure))
    write_atomic(folder / RECORDS, table)
    drawn = "the worst" if worst else "evenly drawn"
    colours = "" if task.right_means is None else f"; green: {task.right_means}; red: others"
    picture = examples.sheet(f"{chosen.part()}: {headline}. Shown are {min(EXAMPLES, len(part))}, {drawn}{colours}")
    if picture is not None:
        write_atomic(folder / SHEET, sheet.png(picture))
    paths = tuple(folder / name for name in score.figures) + ((folder / SHEET,) if picture is not None else ())
    found = None
    if doubts is not None:
        targets, outputs = (np.concatenate(of) for of in zip(*said, strict=True))
        held = part if held_out.all() else part[held_out]
        ranked = task.doubts(targets, outputs)[:doubts]
        found = _doubtful(held, ranked)
        write_atomic(folder / DOUBTS, _table(found))
        if (sheet_of_them := _doubts_sheet(run, task, held, ranked, workers)) is not None:
            write_atomic(folder / DOUBTS_SHEET, sheet_of_them)
            paths += (folder / DOUBTS_SHEET,)
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
        doubts=found,
    )
    written = result.json() | {
        "path": str(part.path.absolute()),
        "view": part.what,
        "fingerprint": part.view_fingerprint,
    }
    write_atomic(folder / REPORT, f"{json.dumps(written, indent=2)}\n".encode())
    return result


def _doubtful(held: Dataset, ranked: list[tasks.Doubt]) -> tuple[Doubtful, ...]:
    rows = held.rows[[doubt.number for doubt in ranked]]
    names, splits = list(held.manifest.splits), held.store.splits_of(rows).tolist()
    return tuple(
        Doubtful(
            id=id_,
            split=names[split],
            observed=doubt.observed,
            estimated=doubt.estimated,
            probability=round(doubt.probability, 6),
            margin=round(doubt.margin, 6),
        )
        for id_, split, doubt in zip(held.store.ids_of(rows), splits, ranked, strict=True)
    )


def _table(doubts: tuple[Doubtful, ...]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, Doubtful.__slots__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, doubts))
    return file.getvalue().encode(errors="backslashreplace")


def _doubts_sheet(
    run: Run, task: tasks.Task, held: Dataset, ranked: list[tasks.Doubt], workers: int | None
) -> bytes | None:
    """The first of them as PNG, None where there is nothing to show."""
    first = ranked[:DOUBTS_SHOWN]
    if not first:
        return None
    view = held[[doubt.number for doubt in first]]
    shown, observe = pictures.Records(run, task, view, n=len(first)), task.ground_truth(view)
    for number, answer in enumerate(run.answers(view, task, workers=workers)):
        if shown.wants(number):
            shown.add(number, answer, pictures.observed(observe, view.store.table.row(int(view.rows[number]))))
    some = f"; the first {len(first)} are shown" if len(first) < len(ranked) else ""
    picture = shown.sheet(f"{held.title}: {len(ranked)} labels in doubt, the most doubtful first{some}")
    return None if picture is None else sheet.png(picture)


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
        if same and (
            isinstance(part.path, Url) or part.path.exists() or written["fingerprint"] == part.view_fingerprint
        ):
            return folder
        number += 1
