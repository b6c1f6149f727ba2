"""A packing that is killed or interrupted at any moment leaves the old dataset or none, never half of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr
from amount import ALL
from drawn import files, photos

PATTERN = "^(?P<label>cat|dog)"


LEFT = {"fresh": {"none", "new"}, "replace": {"old", "new"}, "renames": {"old", "old, hidden", "new"}}


EVERY = 1 if ALL else 7


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", LEFT)
def test_killed_at_every_step(case: str, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    source = files(photos(tmp_path / "photos", 3, side=8), {"cat.9.jpg": b""})
    work = tmp_path / "work"
    work.mkdir()
    script = Path(__file__).parents[1] / "crashing.py"
    done = subprocess.run(
        [sys.executable, script, source, work, case, str(EVERY)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [], done.stderr
    assert found["sound"]
    # It was stopped in earnest: often, and on both sides of each rename.
    assert found["steps"] > 60 and found["stopped"] >= found["steps"] // EVERY and found["shapes"] > 10 // EVERY + 3
    assert set(found["left"]) == LEFT[case]
    assert found["left"]["none" if case == "fresh" else "old"] > 50 // EVERY


# Interrupts itself (as Ctrl-C does) when it makes its n-th record, or before or after its n-th rename
# or the exchange of names.
INTERRUPTED = """
import itertools, os, signal, sys
from pathlib import Path
from headrace.cli import main
from headrace.packing.runners import threads
from headrace.place import publish

where, n = sys.argv[1], int(sys.argv[2])
count = itertools.count(1)
make_record, rename, exchange = threads.make_record, Path.rename, publish.exchange

def interrupt():
    if next(count) == n:
        os.kill(os.getpid(), signal.SIGINT)

def interrupted_make(*arguments):
    if where == "record":
        interrupt()
    return make_record(*arguments)

def interrupted_rename(self, target):
    if where == "before rename":
        interrupt()
    made = rename(self, target)
    if where == "after rename":
        interrupt()
    return made

def interrupted_exchange(one, other):
    if where == "before exchange":
        interrupt()
    made = exchange(one, other)
    if where == "after exchange":
        interrupt()
    return made

threads.make_record, Path.rename = interrupted_make, interrupted_rename
publish.exchange = interrupted_exchange if "exchange" in where else lambda one, other: False
sys.argv[1:3] = []
main()
"""


@pytest.mark.parametrize(
    ("where", "n", "left"),
    [
        ("record", 1, "old"),
        ("record", 40, "old"),
        ("before rename", 1, "old"),
        ("after rename", 1, "old"),
        ("before rename", 2, "old"),
        # too late: the new one stands
        ("after rename", 2, "new"),
        ("before exchange", 1, "old"),
        ("after exchange", 1, "new"),
    ],
)
def test_interrupted(where: str, n: int, left: str, tmp_path: Path) -> None:
    source, out = photos(tmp_path / "photos", 60), tmp_path / "out"
    hr.pack(hr.sources.names(source, pattern=PATTERN), out, progress=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = ["pack", source, out, "--pattern", PATTERN, "--overwrite", "--seed", "1", "--format", "names", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, str(n), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "headrace: interrupted\n")
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert (after == before) is (left == "old")
    assert hr.Dataset(out).verify().ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
