"""What tests of engines share: options of a packing, what it left, and a process that packs there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import headrace as hr

PATTERN = "^(?P<label>cat|dog)"
SHARDS = 12
OPTIONS: dict[str, Any] = {"shards": SHARDS, "max_rejects": 0.5, "progress": False}


def shard(i: int, end: str = "tfrecord") -> str:
    return f"train-{i:05d}-of-{SHARDS:05d}.{end}"


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def source_of(folder: Path) -> Any:
    return hr.sources.names(folder, pattern=PATTERN)


def headrace_process(words: list[str], code: str = "") -> subprocess.CompletedProcess[str]:
    run = f"{code}\nif __name__ == '__main__':\n    from headrace.cli import main\n    main()\n"
    return subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, check=False, timeout=600)


# As Ctrl-C does: when the second result has come.
INTERRUPTED = """
import itertools, os, signal
from headrace.packing.finish import Results
count, add = itertools.count(1), Results.add
def interrupted(self, result, **options):
    if next(count) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    add(self, result, **options)
Results.add = interrupted
"""


def interrupted_by(runner: str, pictures: Path, out: Path) -> None:
    words = ["pack", str(pictures), str(out), "--format", "names", "--pattern", PATTERN, "--runner", runner]
    words += ["--workers", "2", "--max-rejects", "5", "--shards", str(SHARDS)]
    done = headrace_process(words, INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "headrace: interrupted\n")
    assert not [*out.parent.iterdir()]
