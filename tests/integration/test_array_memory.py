"""An epoch over a memory-mapped file of any size needs no memory for the images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "array_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("options", "images"), [([], 1 << 18), (["--mapped"], 1 << 18), (["--keep"], 1 << 16)], ids=["path", "map", "kept"]
)
def test_an_epoch_over_1_gb_stays_small(options: list[str], images: int) -> None:
    command = [sys.executable, str(SCRIPT), "--gb", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1000)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == images
    # Resident memory with all mapped pages: the catalog and the batches, about 100 MB. The images are 1074.
    assert found["over_base_mb"]["VmRSS"] < 160, found
