"""Stops the beginning of a training at every step it takes in its RUN folder. Run by test_learn.py.

    python beginning.py DATASET RUN

A process of its own, which makes the training's model and loader once: it forks a child per step, which only works on
files. The child begins the training and dies, as by `kill -9`, before its k-th step; it never comes to the first batch.
Then the next training must begin in the same folder, without `overwrite` while there is no recipe. Prints its findings.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from headrace.learn import train
from headrace.learn.recipe import Options, RunFolder

DIED = 9
EVENTS = ("os.mkdir", "os.rename", "os.remove", "fcntl.flock")


def main() -> None:
    dataset, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    options = Options(epochs=1)
    prepared = train._prepared(run, None, dataset, None, None, (), options, False, {}, ExitStack())
    train._prepared = lambda *_: prepared
    train._Training.go = lambda self, progress: None  # type: ignore[method-assign, assignment, return-value]
    faults: list[str] = []
    shapes: set[frozenset[str]] = set()

    def begin(overwrite: bool) -> None:
        train.train(dataset, out=run.folder, options=options, overwrite=overwrite, progress=False)

    for step in itertools.count(1):
        shutil.rmtree(run.folder, ignore_errors=True)
        died = in_child(lambda: begin(False), die_at=step) == DIED
        shape = frozenset(path.name.partition(".json.")[0] for path in run.folder.glob("*"))
        if died and shape in shapes:
            continue
        shapes.add(shape)
        if died and in_child(lambda: begin(run.recipe_json.exists())) != 0:
            faults.append(f"step {step}: no training can begin where {sorted(shape)} is left")
        left = {path.name for path in run.folder.iterdir()} - {"recipe.json", "layers.txt", ".lock"}
        if left or not run.recipe_json.exists():
            faults.append(f"step {step}: {sorted(left)} is left")
        if not died:
            break
    print(json.dumps({"steps": step - 1, "shapes": len(shapes), "faults": faults}))


def in_child(work: Callable[[], None], *, die_at: int | None = None) -> int:
    """The exit code of a forked child that does `work`: 0, 1 for an exception, DIED before step `die_at`."""
    child = os.fork()
    if child == 0:
        try:
            if die_at is not None:
                arm(die_at)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def arm(die_at: int) -> None:
    """From now on this process counts its steps below RUN and dies before number `die_at`."""
    count, root = itertools.count(1), sys.argv[2]

    def step(*_: Any) -> None:
        if next(count) == die_at:
            os._exit(DIED)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "fcntl.flock" or (event in (*EVENTS, "open") and str(arguments[0]).startswith(root)):
            step()

    os.fsync = step
    sys.addaudithook(audit)


if __name__ == "__main__":
    main()
