"""Stops an export at every step it takes in the file system, and looks at what is left. Run by test_export_crash.py.

    python crashing_export.py FORMAT WORK {fresh|replace}

As crashing.py does with packings: a child per step, which dies before it. Prints its findings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import crashing
import headrace as hr
from drawn import jpeg
from headrace.format import frames

State = dict[str, str] | None


def main() -> None:
    format, root, case = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    work, out = root / "work", root / "work" / "out"

    def export(name: str = format) -> None:
        frames._forked = False  # this process has no threads of Polars, which a child would lack
        hr.Dataset(root / "ds").export(out, format=name, overwrite=True, workers=2, progress=False)

    crashing.in_child(lambda: make(root / "ds"))
    work.mkdir()
    crashing.in_child(export)
    wanted = state(out)
    old: State = None
    if case == "replace":
        crashing.in_child(lambda: export("folders"))
        old = state(out)
        out.rename(root / "kept")
    faults: list[str] = []
    left: Counter[str] = Counter()
    for step in itertools.count(1):
        crashing.remove(work)
        if old is not None:
            shutil.copytree(root / "kept", out)
        died = crashing.in_child(export, die_at=step) == crashing.DIED
        found = state(out)
        what = "none" if found is None else "new" if found == wanted else "old" if found == old else "half"
        left[what] += 1
        if what == "half" or (what == "none" and old is not None):
            faults.append(f"step {step}: what is left is {what}: {found}")
        if step % 10 == 1 and crashing.in_child(export) != 0:
            faults.append(f"step {step}: the next export failed")
        if (not died or step % 10 == 1) and (state(out) != wanted or crashing.leftovers(work)):
            faults.append(f"step {step}: {state(out)}, {crashing.leftovers(work)}")
        if not died:
            break
    print(json.dumps({"steps": step - 1, "left": left, "faults": faults}))


def make(folder: Path) -> None:
    box = np.array([[0, 0, 9, 9]], np.float32)
    records = [
        hr.Record(id=f"{i}/a.jpg", encoded=jpeg(12, 12, seed=i), label_name="cat", boxes=box, box_labels=("cat",))
        for i in range(2)
    ]
    hr.pack(records, folder, progress=False)


def state(folder: Path) -> State:
    """Path -> digest of all files below a folder, or None where there is none."""
    if not folder.is_dir():
        return None
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()
