"""Two processes that share one cache are killed at any moment, and bits of it turn over: every image is right, and the
folder never takes more than it may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest

import far
import headrace as hr
from amount import ALL
from drawn import saved
from headrace.place.cache import TAG
from packed import pack

N, SIDE = 240, 96
LIMIT = 600  # seconds, after which what should have come is not coming
KILLS, FLIPS = (30, 200) if ALL else (4, 50)

# Draws epochs, each batch held against the dataset that is near, and says each that was right.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import time
from pathlib import Path
import numpy as np
import far
import headrace as hr
_, _, ds, cache, most, seed, epochs = sys.argv
options = dict(batch_size=8, size=16, shuffle=True, seed=int(seed), workers=2)
distant, place = far.opened(Path(ds), Path(cache), int(most))
place.before = lambda *_: time.sleep(0.003)
for _ in range(int(epochs)):
    near, loader = hr.Dataset(ds).loader(**options), distant.loader(**options)
    for one, other in zip(near, loader, strict=True):
        assert one.ids == other.ids and np.array_equal(one.images, other.images), other.ids
        print("right", flush=True)
print(sum(length for _, _, length in place.requests), flush=True)
"""


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Records of 28 kB, 7 MB together."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(N))
    records = [hr.Record(id=f"{k}.png", encoded=saved(pixels, "PNG")) for k, pixels in enumerate(noise)]
    return pack(records, tmp_path_factory.mktemp("noise") / "ds", shards=4)


class Watch:
    """The most that a folder took on its disk, as a thread sees it that looks all the time: twice each time, as a look
    that something was written or freed under is a sum of what never was there at once."""

    def __init__(self, folder: Path) -> None:
        self.most, self.looks = 0, 0
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.001):
            try:
                taken, again = (
                    {path.name: path.stat().st_blocks * 512 for path in self._folder.iterdir()} for _ in range(2)
                )
            except FileNotFoundError:
                continue
            if taken == again:
                self.most, self.looks = max(self.most, sum(taken.values())), self.looks + 1


def loading(ds: hr.Dataset, cache: Path, most: int, seed: int, epochs: int) -> subprocess.Popen[str]:
    """A process that loads epochs of the dataset as if it were far away."""
    tests = Path(__file__).parents[1]
    words = [sys.executable, "-c", CHILD, *map(str, (tests, ds.path, cache, most, seed, epochs))]
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )


def lines(child: subprocess.Popen[str], n: int) -> Iterator[str]:
    """The next lines that it says, n at most."""
    out: IO[str] | None = child.stdout
    assert out is not None
    for _, line in zip(range(n), out, strict=False):
        yield line


def ended(child: subprocess.Popen[str]) -> str:
    """All that is left to be said by a process that ends well."""
    out, err = child.communicate(timeout=LIMIT)
    assert child.returncode == 0, err
    return out


@pytest.mark.exhaustive
@pytest.mark.parametrize("room", [2.0, 0.5], ids=["all has room", "half has room"])
def test_killed_and_flipped(ds: hr.Dataset, room: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    size = sum(shard.bytes for shard in ds.manifest.shards)
    cache, most = tmp_path / "cache", int(room * size)
    with Watch(cache) as watch:
        # One pair after the other; of each, both die in the middle of what they do, after so many batches.
        for k in range(KILLS // 2):
            pair = [loading(ds, cache, most, seed=seed, epochs=1000) for seed in (k, k + 1)]
            for child in pair:
                said = list(lines(child, int(rng.integers(1, 60))))
                assert set(said) == {"right\n"}
                child.send_signal(signal.SIGKILL)
            for child in pair:
                out, err = child.communicate(timeout=LIMIT)
                assert (child.returncode, err) == (-signal.SIGKILL, "")
                assert all("right".startswith(line) for line in out.splitlines())
        assert any(path.name != TAG for path in cache.iterdir())
        files = [path for path in cache.iterdir() if path.name != TAG and path.stat().st_size]
        for _ in range(FLIPS):
            path = files[int(rng.integers(len(files)))]
            with path.open("r+b") as file:
                at = int(rng.integers(path.stat().st_size))
                byte = os.pread(file.fileno(), 1, at)[0] ^ 1 << int(rng.integers(8))
                os.pwrite(file.fileno(), bytes([byte]), at)
        pair = [loading(ds, cache, most, seed=0, epochs=1) for _ in range(2)]
        said = [ended(child) for child in pair]
    assert all(text.count("right") == -(-N // 8) for text in said)
    assert watch.looks > 10
    # Two processes, each of which looks at the whole after a sixteenth of the bound.
    assert watch.most <= most * 1.2
    if room > 1:  # what was flipped was fetched again, and nothing is wrong any more
        distant, place = far.opened(ds.path, cache, most)
        for one, other in zip(ds.loader(batch_size=8, size=16), distant.loader(batch_size=8, size=16), strict=True):
            assert np.array_equal(one.images, other.images)
        assert sum(length for _, _, length in place.requests) < size / 4
