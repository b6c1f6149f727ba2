"""examples/: those of PyTorch run, and go on where they were stopped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import headrace as hr
from packed import pack, photos
from ranks import TESTS, torchrun

torch = pytest.importorskip("torch")

EXAMPLES = TESTS.parent / "examples"


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(photos(60), tmp_path_factory.mktemp("examples") / "ds")


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name


def test_torch_loop(ds: hr.Dataset, tmp_path: Path) -> None:
    for epochs, said in ((1, ["epoch 0: loss"]), (3, ["epoch 1: loss", "epoch 2: loss"])):
        words = [sys.executable, str(EXAMPLES / "torch_loop.py"), str(ds.path), str(epochs)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1000)
        assert [line[:13] for line in done.stdout.splitlines()] == said, done.stderr
    saved = torch.load(tmp_path / "loop.pt", weights_only=True)
    assert (saved["feed"]["epoch"], saved["feed"]["batch"]) == (3, 0)


def test_ddp(ds: hr.Dataset, tmp_path: Path) -> None:
    said = torchrun(2, EXAMPLES / "ddp.py", ds.path, 1, folder=tmp_path)
    assert sorted(line[:23] for line in said.splitlines()) == ["rank 0 of 2, epoch 0: l", "rank 1 of 2, epoch 0: l"]
    said = torchrun(1, EXAMPLES / "ddp.py", ds.path, 2, folder=tmp_path)
    assert [line[:23] for line in said.splitlines()] == ["rank 0 of 1, epoch 1: l"]


def test_lightning_fit(ds: hr.Dataset, tmp_path: Path) -> None:
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("lightning is not installed")
    launch = [sys.executable, str(TESTS / "frameworks" / "run_with_torchvision.py")]
    for epochs in (1, 2):
        words = [*launch, str(EXAMPLES / "lightning_fit.py"), str(ds.path), str(epochs)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1000)
        assert f"{3 * epochs} steps, val_loss" in done.stdout, done.stderr
