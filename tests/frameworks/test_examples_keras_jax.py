"""examples/: those of Keras and JAX run, and go on where they were stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr
from packed import pack, photos

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(photos(40), tmp_path_factory.mktemp("examples") / "ds")


def said(name: str, ds: hr.Dataset, epochs: int, folder: Path, **environment: str) -> list[str]:
    words = [sys.executable, str(EXAMPLES / name), str(ds.path), str(epochs)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_keras_fit(ds: hr.Dataset, tmp_path: Path) -> None:
    """On JAX, the quickest to start: the other backends resume in test_keras_resume."""
    pytest.importorskip("keras")
    pytest.importorskip("jax")
    first = said("keras_fit.py", ds, 1, tmp_path, KERAS_BACKEND="jax")
    assert [line[:13] for line in first] == ["epoch 0: loss"]
    both = said("keras_fit.py", ds, 2, tmp_path, KERAS_BACKEND="jax")
    assert both[0] == first[0] and [line[:13] for line in both[1:]] == ["epoch 1: loss"]


def test_jax_loop(ds: hr.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    for epochs, lines in ((1, ["epoch 0: loss"]), (3, ["epoch 1: loss", "epoch 2: loss"])):
        assert [line[:13] for line in said("jax_loop.py", ds, epochs, tmp_path, XLA_FLAGS=flags)] == lines
