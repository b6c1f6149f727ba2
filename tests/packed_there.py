"""What tests of engines share: photos, what threads of this process pack of them, a place and a command to pack there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from drawn import files, jpeg, photos

PATTERN = "^(?P<label>cat|dog)"
SHARDS = 12
OPTIONS: dict[str, Any] = {"shards": SHARDS, "max_rejects": 0.5, "progress": False}


def shard(i: int, end: str = "tfrecord") -> str:
    return f"train-{i:05d}-of-{SHARDS:05d}.{end}"


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def source_of(folder: Path) -> Any:
    return hr.sources.names(folder, pattern=PATTERN)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos and two that are none."""
    folder = photos(tmp_path_factory.mktemp("there") / "photos", 60)
    return files(folder, {"cat.empty.jpg": b"", "dog.cut.jpg": jpeg(60, 80)[:300]})


@pytest.fixture(scope="module")
def packed_here(pictures: Path) -> dict[str, bytes]:
    hr.pack(source_of(pictures), pictures.parent / "here" / "ds", **OPTIONS)
    return state(pictures.parent / "here" / "ds")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """It has the same name as that of `packed_here`, which dataset_info.json holds."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "ds"


def headrace_process(words: list[str], code: str = "") -> subprocess.CompletedProcess[str]:
    run = f"{code}\nif __name__ == '__main__':\n    from headrace.cli import main\n    main()\n"
    return subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, check=False, timeout=120)


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
