"""examples/: those of tf.data, arrays and keypoints run, and learn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from drawn import picture, saved
from packed import pack

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *words: Path | str | int) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)], capture_output=True, text=True, timeout=1000
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tf_data(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    records = []
    for i in range(60):
        half = picture(seed=i) // 2 + np.uint8(127 * (i % 2))  # dark or light
        records.append(hr.Record(id=f"{i}.png", encoded=saved(half, "PNG"), label_name=("dark", "light")[i % 2]))
    said = run("tf_data.py", pack(records, tmp_path / "ds").path)
    losses = [float(loss) for loss in re.findall(r"^epoch \d: loss ([0-9.]+)$", said, re.MULTILINE)]
    assert len(losses) == 3 and losses[2] < losses[0]


def test_arrays() -> None:
    lines = run("arrays.py").splitlines()
    assert len(lines) == 10
    right = re.fullmatch(r"epoch 9: (\d+) of 80 right", lines[-1])
    assert right is not None and int(right[1]) > 70


def test_keypoints(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    off = re.search(r"off by ([0-9.]+) pixels of 64 on average", run("keypoints.py", tmp_path))
    assert off is not None and float(off[1]) < 12  # who always says the middle is 19 off
