"""An export that is killed or interrupted at any moment leaves the old files or none, never some of the new ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr
from packed import pack, photos


@pytest.mark.parametrize(("format", "case"), [("voc", "fresh"), ("coco", "replace"), ("parquet", "fresh")])
def test_killed_at_every_step(format: str, case: str, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    script = Path(__file__).parents[1] / "crashing_export.py"
    done = subprocess.run(
        [sys.executable, script, format, tmp_path, case],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [], done.stderr
    assert set(found["left"]) == {"none" if case == "fresh" else "old", "new"}
    assert found["left"]["none" if case == "fresh" else "old"] > 20 and found["left"]["new"] >= 2


# Interrupts itself, as Ctrl-C does, when it has read its n-th record.
INTERRUPTED = """
import itertools, os, signal, sys
from headrace.cli import main
from headrace.load import dataset

count, n, record = itertools.count(1), int(sys.argv[1]), dataset.Dataset._record

def interrupted(self, row):
    if next(count) == n:
        os.kill(os.getpid(), signal.SIGINT)
    return record(self, row)

dataset.Dataset._record = interrupted
sys.argv[1:2] = []
main()
"""


@pytest.mark.parametrize("format", ["coco", "yolo", "webdataset"])
def test_interrupted(format: str, tmp_path: Path) -> None:
    pack(photos(40, boxes=True), tmp_path / "ds")
    words = ["export", tmp_path / "ds", tmp_path / "out", "--format", format, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "17", *words], capture_output=True, text=True, check=False, timeout=600
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "headrace: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["ds"]
    assert hr.Dataset(tmp_path / "ds").verify().ok
