"""What a run said of records, out of the files of its folder: curves, evaluations, and each record's answer.

Nothing here loads a model; what a run says is asked by `headrace evaluate`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import NotThereError, UsageError
from headrace.load.dataset import Dataset
from headrace.place import local

RECIPE, HISTORY = "recipe.json", "history.csv"
EVALUATIONS, EVALUATION, RECORDS, DOUBTS = "evaluations", "evaluation.json", "records.jsonl", "doubts.csv"
_MOST_BYTES = 1 << 30  # of a file of a run


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: its folder's `name`, and what evaluation.json says."""

    folder: Path
    said: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def task(self) -> str:
        return str(self.said.get("task", ""))

    def facts(self) -> dict[str, Any]:
        """What of it is a number, a text or a table, for people."""
        return {**self.said, "name": self.name, "headline": self.headline(), "doubtful": len(_doubted(self.folder))}

    def headline(self) -> list[tuple[str, str]]:
        """The measures that stand for it."""
        found = []
        for name, label in _HEADLINES.items():
            value = self.said.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                found.append((label, f"{value:.4f}" if isinstance(value, float) else str(value)))
        return found


_HEADLINES = {
    "accuracy": "accuracy",
    "map": "mAP",
    "exact": "all classes right",
    "ap50": "AP50",
    "ap": "AP",
    "mean_iou": "mean IoU",
    "pck": "PCK",
    "oks": "OKS",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "true": "boxes found",
    "false": "false boxes",
    "boxes": "boxes there",
    "loss": "loss",
}


class Run:
    """A RUN folder, of which evaluations and history are read. Raises NotThereError, UsageError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise NotThereError(f"{folder}: there is no such run; train makes one")
        if not (folder / RECIPE).is_file():
            raise UsageError(f"{folder} is no RUN folder: it has no {RECIPE}")

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """recipe.json, of which only texts and numbers are shown."""
        return _object(self.folder / RECIPE)

    def evaluations(self) -> list[Evaluation]:
        """All that can be read, by name."""
        found = []
        for path in sorted((self.folder / EVALUATIONS).glob(f"*/{EVALUATION}")):
            if said := _object(path):
                found.append(Evaluation(path.parent, said))
        return found

    def history(self) -> dict[str, list[float]]:
        """Each column of history.csv, an epoch after the other; none where it can't be read."""
        try:
            with (self.folder / HISTORY).open(newline="") as file:
                rows = list(csv.DictReader(file))
            return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
        except (OSError, KeyError, TypeError, ValueError, csv.Error):  # a table for people, who may have edited it
            return {}


def _object(path: Path) -> Mapping[str, Any]:
    """A JSON object, {} where there is none that can be read."""
    try:
        read = json.loads(local.content(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


class Judged:
    """What an evaluation says of the records of a dataset: those of it that the dataset has, by their ids.

    `rows` int64 [k] of the catalog, `wrong` float64 [k], NaN where nobody knows, `right` int8 [k], -1 where nobody
    knows; `lines`: the answer to each, as records.jsonl has it. `doubts` int64 [m]: the rows of those whose labels the
    run contradicts, the most doubtful first; one that got another label since is in doubt no more.
    """

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        path = folder / RECORDS
        try:
            data = local.content(path, _MOST_BYTES)
        except OSError as error:
            raise UsageError(
                f"{path}: {(error.strerror or str(error)).lower()}; evaluate the run again, which writes it"
            ) from None
        rows, lines = [], []
        for number, line in enumerate(data.splitlines(), start=1):
            said = _line(line)
            if said is None:
                raise UsageError(f"{path}:{number}: is no answer of a run; evaluate the run again")
            if (row := dataset.store.row_of(said["id"])) is not None:
                rows.append(row)
                lines.append(said)
        self.lines: Sequence[Mapping[str, Any]] = lines
        self.rows = np.array(rows, np.int64)
        self.wrong = np.array([math.nan if line["wrong"] is None else line["wrong"] for line in lines], np.float64)
        self.right = np.array([-1 if line["right"] is None else line["right"] for line in lines], np.int8)
        self._at = {row: i for i, row in enumerate(rows)}
        self.doubts = np.array(
            [
                row
                for id_ in _doubted(folder)
                if (row := dataset.store.row_of(id_)) in self._at and self._stands(dataset, row)
            ],
            np.int64,
        )

    def _stands(self, dataset: Dataset, row: int) -> bool:
        """Whether a record still has the label that was judged."""
        label, judged = int(dataset.store.labels[row]), _first(self.lines[self._at[row]], "observed")
        return dataset.multi_label or judged is None or (label >= 0 and dataset.class_names[label] == judged)

    def within(self, observed: str | None, estimated: str | None, outcome: str | None) -> NDArray[np.int64]:
        """The rows that were observed, or estimated, as a class, or with this outcome."""
        if outcome == "doubtful":
            some = self.doubts
            for column, name in (("observed", observed), ("estimated", estimated)):
                if name is not None:
                    some = some[[_first(self.lines[self._at[row]], column) == name for row in some.tolist()]]
            return some
        kept = np.ones(len(self.rows), bool)
        for column, name in (("observed", observed), ("estimated", estimated)):
            if name is not None:
                kept &= np.array([_first(line, column) == name for line in self.lines], bool)
        if outcome is not None:
            kept &= self.right == (outcome == "right")
        return self.rows[kept]

    def wrong_of(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far off the run is of these rows [b], NaN where nobody knows."""
        return np.array([self.wrong[self._at[row]] for row in rows.tolist()], np.float64)

    def line_of(self, row: int) -> Mapping[str, Any] | None:
        """What is said of a row, None where nothing is."""
        at = self._at.get(row)
        return None if at is None else self.lines[at]


def _doubted(folder: Path) -> list[str]:
    """The ids of doubts.csv, none where there is none that can be read."""
    try:
        with (folder / DOUBTS).open(newline="") as file:
            return [row["id"] for row in csv.DictReader(file) if row.get("id")]
    except (OSError, ValueError, KeyError, csv.Error):  # a table for people, who may have edited it
        return []


def _first(line: Mapping[str, Any], column: str) -> Any:
    return line["rows"][0].get(column) if line["rows"] else None


def _line(data: bytes) -> dict[str, Any] | None:
    """A line of records.jsonl, None where it is none."""
    try:
        line = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("id"), str) or not isinstance(line.get("rows"), list):
        return None
    if not all(isinstance(row, dict) for row in line["rows"]):
        return None
    wrong, right = line.get("wrong"), line.get("right")
    if not (wrong is None or (isinstance(wrong, int | float) and math.isfinite(wrong))):
        return None
    return None if right not in (None, True, False) else {**line, "wrong": wrong, "right": right}
