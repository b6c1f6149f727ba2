"""Images/s of shuffled, mirrored batches of a dataset with boxes: with Grid targets, with padded boxes, and without.

    python benchmarks/load_targets.py DS [--size 224] [--cells 7] [--batch-size 16] [--repeats 5] [--json FILE]

DS is a packed dataset with boxes. Every arm is the same loader but for its target, with as many threads as there are
cores; page cache warm; a process per measurement, the arms in rotating turns; whole epochs for about three seconds.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import (
    HEADER,
    Arm,
    Job,
    Result,
    child,
    clocked,
    facts,
    markdown,
    publish,
    rounds,
    row,
    summarise,
    warm_page_cache,
)

SECONDS = 3.0  # of work per measurement, at least one epoch


def measured(target: Callable[[Job], Any]) -> Callable[[Job], Result]:
    """Measure an arm: an epoch to warm up, one to learn its length, then about SECONDS on the clock."""

    def measure(job: Job) -> Result:
        import headrace as hr

        loader = hr.Dataset(job["packed"]).loader(
            batch_size=job["batch_size"], size=job["size"], target=target(job), augment=(hr.HorizontalFlip(),)
        )

        def run(epochs: int) -> int:
            return sum(len(batch.images) for _ in range(epochs) for batch in loader)

        run(1)
        epochs = math.ceil(SECONDS / clocked(lambda: run(1))["seconds"])
        result = clocked(lambda: run(epochs))
        if result["images"] != epochs * job["images"]:
            raise SystemExit(f"{result['images']} images in {epochs} epochs, wanted {epochs} x {job['images']}")
        return result | {"epochs": epochs}

    return measure


class Nothing:
    """No targets at all; `target=None` would be those that the dataset brings."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, dataset: Any) -> None:
        pass

    def encode(self, labels: Any) -> None:
        return None


def grid(job: Job) -> Any:
    import headrace as hr

    return hr.Grid(job["cells"])


def boxes(job: Job) -> Any:
    import headrace as hr

    return hr.Boxes()


ARMS = {
    "headrace": Arm(what="Grid targets", measure=measured(grid)),
    "boxes": Arm(what="padded boxes", measure=measured(boxes)),
    "no targets": Arm(what="images alone", measure=measured(lambda job: Nothing())),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cells", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import headrace as hr

    report = facts("load_targets")
    dataset = hr.Dataset(args.dataset)
    warm_page_cache([*args.dataset.glob("*.tfrecord")])
    job: Job = {
        "packed": str(args.dataset),
        "images": len(dataset),
        "size": args.size,
        "cells": args.cells,
        "batch_size": args.batch_size,
    }
    report["job"] = {name: job[name] for name in ("images", "size", "cells", "batch_size")} | {
        "boxes": int(dataset.catalog["boxes"].list.len().sum()),
        "repeats": args.repeats,
    }
    report["arms"] = summarise(ARMS, rounds(list(ARMS), job, args.repeats))
    rows = [(*row(arm, of_arm), of_arm["what"]) for arm, of_arm in report["arms"].items()]
    table = markdown((*HEADER, "targets"), rows)
    publish(report, table, args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
