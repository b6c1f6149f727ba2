"""Seconds and memory of edits of a million records with three boxes each: every verb, undo, diff, and opening them.

    python benchmarks/edits.py [--records 1000000] [--folder DIR] [--repeats 3] [--json [FILE]]

The dataset is made below DIR (1 GB for a million): tiny PNGs, whose catalog gets boxes of three classes. Each figure is
a fresh process that edits version 1, import excluded, and ends with the version committed and synced; then the version
is taken away. *cpu s* is what all threads of the process used meanwhile.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _measure import Arm, Job, Result, child, clocked, facts, grown, in_child, markdown, publish, rounds, stopwatch

BOXES = 3
Verb = Callable[[Any, list[str]], Any]


def edited(verb: Verb) -> Callable[[Job], Result]:
    """Measures one verb of an edit, from opening the dataset to the version that is made."""

    def measure(job: Job) -> Result:
        import headrace as hr
        from headrace.format import manifest
        from headrace.place.open import at

        _ = hr.edit, hr.diff, hr.undo, hr.Dataset  # imported now
        path = Path(job["folder"])
        head = (path / manifest.FILE).read_bytes()
        ids = [f"{k:0{len(str(job['records']))}d}.png" for k in range(0, job["records"], job["records"] // 1000)]

        def work() -> tuple[Result, Any]:
            def edit() -> Any:
                with hr.edit(path, why="measured", by="nobody") as e:
                    verb(e, ids)
                return e

            before = time.process_time()
            seconds, made = stopwatch(edit)
            return {"seconds": seconds, "cpu": time.process_time() - before}, made

        found = grown(work)
        promised = manifest.read(at(path))
        if promised.version != 2:
            raise SystemExit(f"version {promised.version} was made, wanted 2")
        found["bytes"] = (path / promised.catalog).stat().st_size
        opened, ds = stopwatch(lambda: hr.Dataset(path))
        labels, _ = stopwatch(lambda: (ds.labels, ds.splits))
        told, _ = stopwatch(lambda: hr.diff(path))
        undone, _ = stopwatch(lambda: hr.undo(path))
        for name in (promised.catalog, manifest.kept_name(1), manifest.kept_name(2)):
            (path / name).unlink()
        (path / manifest.FILE).write_bytes(head)
        return found | {"open": opened, "labels": labels, "diff": told, "undo": undone}

    return measure


def make(job: Job) -> Result:
    """Writes the dataset, in a process of its own."""
    import google_crc32c
    import numpy as np
    import polars as pl

    import _synthetic
    from headrace.format import catalog, manifest
    from headrace.place import local
    from headrace.place.open import at

    path, n = Path(job["folder"]), int(job["records"])

    def work() -> int:
        _synthetic.write(path, n)
        frame = pl.read_parquet(path / catalog.FILE)
        rng = np.random.default_rng(0)
        low = rng.uniform(0, 4, (n * BOXES, 2))
        corners = np.concatenate([low, low + rng.uniform(1, 4, low.shape)], axis=1).astype(np.float32)
        numbers = rng.integers(0, 3, n * BOXES).astype(np.int32)
        counts, says = np.full(n, BOXES), np.ones(n, bool)
        columns = {
            "boxes": catalog.lists(pl.Series(corners, dtype=catalog.WHAT["boxes"].inner), counts, says),
            "box_labels": catalog.lists(pl.Series(numbers), counts, says),
            "box_label_names": catalog.lists(pl.Series(["car", "dog", "hat"]).gather(numbers), counts, says),
        }
        frame = frame.with_columns(series.alias(name) for name, series in columns.items())
        (path / catalog.FILE).write_bytes(catalog.to_bytes(frame.select(*catalog.WHAT)))
        promised = manifest.read(at(path))
        promised = replace(
            promised,
            boxes=n * BOXES,
            box_classes=("car", "dog", "hat"),
            files={**promised.files, catalog.FILE: local.digest(path / catalog.FILE)},
            crc32c={**promised.crc32c, catalog.FILE: google_crc32c.value((path / catalog.FILE).read_bytes())},
        )
        (path / manifest.FILE).write_bytes(promised.to_bytes())
        return n

    return clocked(work)


# Of 1000 evenly spaced ids, and of conditions that hold for a tenth of all records.
FIGURES = {
    "relabel": Arm(what="1000 records by their ids", measure=edited(lambda e, ids: e.relabel("other", ids=ids))),
    "relabel where": Arm(
        what="a tenth of all records", measure=edited(lambda e, ids: e.relabel("other", where="label = 3", yes=True))
    ),
    "boxes": Arm(what="one record", measure=edited(lambda e, ids: e.boxes(ids[5], [[0, 0, 4, 4]], ["dog"]))),
    "drop": Arm(what="1000 records by their ids", measure=edited(lambda e, ids: e.drop(ids=ids))),
    "drop where": Arm(what="a tenth of them", measure=edited(lambda e, ids: e.drop(where="label = 3", yes=True))),
    "move": Arm(what="1000 records by their ids", measure=edited(lambda e, ids: e.move("val", ids=ids))),
    "all": Arm(
        what="relabel, boxes of ten, drop and move in one version",
        measure=edited(
            lambda e, ids: (
                e.relabel("other", ids=ids[:300]),
                [e.boxes(one, [[0, 0, 4, 4]], ["dog"]) for one in ids[300:310]],
                e.drop(ids=ids[400:700]),
                e.move("val", ids=ids[700:]),
            )
        ),
    ),
}
AFTER = ("open", "labels", "diff", "undo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the dataset is made; default: that of temporary files")
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, nargs="?", const=Path("-"))
    args = parser.parse_args()
    if args.records < 10_000:
        parser.error("--records is at least 10000")
    report = facts("edits")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        job: Job = {"folder": str(Path(scratch, "set")), "records": args.records}
        in_child("make", job)
        report["job"] = {"records": args.records, "boxes": BOXES * args.records, "repeats": args.repeats}
        found = rounds(args.figures, job, args.repeats, lambda result: f"{result['seconds']:8.3f} s")
    names = ("seconds", "cpu", "peak_mb", "bytes", *AFTER, "others")
    report["figures"] = {
        figure: {"what": FIGURES[figure].what, **{name: median(one[name] for one in of) for name in names}}
        for figure, of in found.items()
    }
    header = (
        "edit",
        "s",
        "cpu s",
        "at most MB",
        "MB of catalog",
        *(f"{name} s" for name in AFTER),
        "others' cores",
        "what",
    )
    rows = [
        (
            figure,
            f"{of['seconds']:.2f}",
            f"{of['cpu']:.2f}",
            f"{of['peak_mb']:.0f}",
            f"{of['bytes'] / 1e6:.0f}",
            *(f"{of[name]:.2f}" for name in AFTER),
            f"{of['others']:.2f}",
            of["what"],
        )
        for figure, of in report["figures"].items()
    ]
    publish(report, markdown(header, rows), args.json)


if __name__ == "__main__" and not child({**FIGURES, "make": Arm(what="make", measure=make)}):
    main()
