"""benchmarks/gpu.py, in little on the CPU: all arms run, and its networks are those of the papers."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def test_networks_are_as_large_as_their_papers_have_them(gpu: Any) -> None:
    """torchvision's, with their 1000 classes, have 25,557,032 and 3,504,872 numbers; these have 10 classes."""
    last = {"resnet50": 2048, "mobilenet_v2": 1280}
    for name, numbers in (("resnet50", 25_557_032), ("mobilenet_v2", 3_504_872)):
        with torch.device("meta"):
            model = gpu.MODELS[name](torch.nn, 64)
            assert model(torch.zeros(2, 3, 224, 224)).shape == (2, gpu.CLASSES)
        wanted = numbers - (1000 - gpu.CLASSES) * (last[name] + 1)
        assert sum(parameter.numel() for parameter in model.parameters()) == wanted


def test_smoke(gpu: Any) -> None:
    words = ["--smoke", "--models", "mobilenet_v2", "--cores", "1,4096", "--json", "-"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), *words], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "4096 cores" in report["skipped"]
    rows = {(row["arm"], row["cores"]): row["measurements"] for row in report["rates"]}
    assert set(rows) == {(arm, None if arm == gpu.DEVICE else 1) for arm in gpu.ARMS if arm not in report["skipped"]}
    for (measurement,) in rows.values():
        assert measurement["rate"] > 0 and measurement["images"] % 8 == 0
    assert gpu.table(report["rates"]).count("\n") == 1 + len(rows)


def test_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), str(BENCHMARKS)], capture_output=True, text=True, timeout=1000
    )
    assert done.returncode == 1 and "PyTorch sees no CUDA device here; --smoke runs the same in little" in done.stderr
