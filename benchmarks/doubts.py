"""How many wrong labels `evaluate(doubts=...)` shows first: a share of a folder's labels is flipped, and looked for.

    python benchmarks/doubts.py FOLDER --pattern '^(?P<label>cat|dog)\\.' [--share 0.05] [--folds 5] [--epochs 20]
                                [--size 96] [--seed 0] [--json FILE]

The photos are packed with the wrong labels. Each fold is judged by a run on the others, as a user would do it by hand:
`divide`, `train` on a view, `evaluate` of another one with doubts; all of them are then ranked by margin. What counts
is how many of the flipped ones are among the first records, as many as were flipped; in a random order it would be
the share that was flipped. It needs no quiet machine: nothing is timed.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import headrace as hr
from _measure import facts, markdown, publish
from headrace.learn.recipe import Options
from headrace.sources.info import SourceInfo, read


class Flipped:
    """A source, with the class of some of its records another one. `ids`: whose."""

    def __init__(self, source: Any, share: float, seed: int) -> None:
        self.source, self.share, self.rng = source, share, np.random.default_rng(seed)
        self.ids: set[str] = set()

    def __iter__(self) -> Generator[hr.Record | hr.Reject, None, SourceInfo]:
        items = [*(found := iter_all(self.source))[0]]
        records = [i for i, item in enumerate(items) if isinstance(item, hr.Record)]
        classes = sorted({items[i].label_name for i in records})
        for i in self.rng.choice(records, round(self.share * len(records)), replace=False):
            others = [name for name in classes if name != items[i].label_name]
            items[i] = replace(items[i], label_name=others[self.rng.integers(len(others))])
            self.ids.add(items[i].id)
        yield from items
        return found[1]


def iter_all(source: Any) -> tuple[list[Any], SourceInfo]:
    """What a source gives, and what it says of the whole."""
    items, given = [], read(source)
    while True:
        try:
            items.append(next(given))
        except StopIteration as end:
            return items, end.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    report = facts("doubts")
    with TemporaryDirectory() as scratch:
        source = Flipped(hr.sources.names(asked.folder, pattern=asked.pattern), asked.share, asked.seed)
        hr.pack(source, Path(scratch) / "ds", size=asked.size, fit="crop", progress=False)
        ds = hr.Dataset(Path(scratch) / "ds")
        folds = ds.divide({f"fold{k}": 1 / asked.folds for k in range(asked.folds)}, seed=asked.seed)
        doubts: list[Any] = []
        rows = []
        options = Options(epochs=asked.epochs, augment=("flip", "crop"), seed=asked.seed)
        for k, fold in enumerate(folds):
            rest = ds[~np.isin(ds.rows, fold.rows)]
            out = Path(scratch) / f"run{k}"
            hr.train(rest, out=out, val=fold, options=options, progress=False)
            said = hr.evaluate(out, fold, out=Path(scratch) / f"judged{k}", doubts=len(fold), progress=False)
            found = said.doubts or ()
            doubts += found
            wrong = sum(doubt.id in source.ids for doubt in found)
            rows.append((f"{k}", f"{said.metrics['accuracy']:.3f}", f"{len(found)}", f"{wrong}"))
        doubts.sort(key=lambda doubt: doubt.margin)
        n = len(source.ids)
        first = sum(doubt.id in source.ids for doubt in doubts[:n])
    report["job"] = {
        "folder": str(asked.folder),
        "records": len(ds),
        "flipped": n,
        "in_doubt": len(doubts),
        "flipped_in_doubt": sum(doubt.id in source.ids for doubt in doubts),
        "flipped_among_the_first": first,
        "found": round(first / n, 3),
        "by_chance": round(n / len(ds), 3),
    }
    table = markdown(("fold", "accuracy, by the wrong labels", "in doubt", "of them flipped"), rows)
    publish(report, table, asked.json)


if __name__ == "__main__":
    main()
