"""Runs a script as `python SCRIPT WORDS`, where torchvision can't be imported without `vision` (Lightning asks for it
where it is installed)."""

from __future__ import annotations

import contextlib
import runpy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from vision import torchvision_v2  # which lies there

if __name__ == "__main__":
    with contextlib.suppress(pytest.skip.Exception):  # it is not installed, and nobody asks for it
        torchvision_v2()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
