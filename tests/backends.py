"""Scripts that run once for each of Keras's backends, in processes of their own, and print what they found as JSON."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BACKENDS = ("tensorflow", "torch", "jax")

Running = dict[str, tuple[Path, subprocess.Popen[str]]]


def started(script: str, backend: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """A script of tests/frameworks on its way, on a backend."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "frameworks" / script), *arguments],
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def running(script: str, folders: pytest.TempPathFactory, **env: str) -> Iterator[Running]:
    """A script on all backends that are there at once, as most of their time goes into imports and compiling; each with
    a folder of its own, its argument."""
    begun: Running = {}
    for backend in BACKENDS:
        if importlib.util.find_spec(backend) is not None:
            folder = folders.mktemp(backend)
            begun[backend] = folder, started(script, backend, str(folder), **env)
    try:
        yield begun
    finally:
        for _, run in begun.values():
            run.kill()
            run.communicate()


def result(run: subprocess.Popen[str]) -> Any:
    """What a script found, when it has ended."""
    output, errors = run.communicate()
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, errors
    return json.loads(lines[0].removeprefix("RESULT "))


def result_of(runs: Running, backend: str) -> dict[str, Any]:
    """What it found on a backend; skips the test where that is not installed."""
    if backend not in runs:
        pytest.skip(f"{backend} is not installed")
    found = dict(result(runs[backend][1]))
    assert found["backend"] == backend
    return found
