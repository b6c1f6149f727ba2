"""Memory of one epoch over a large .npy file of 64 x 64 images of one channel, by ArrayDataset and its loader.

With --keep it holds float32 that is kept as it is, and y is a file of as many masks, a byte per number, on top of it.
The file is sparse: it takes no disk. Memory is what Linux says of this process (/proc/self/status), looked at every few
milliseconds: RssAnon is what the process holds itself, VmRSS counts the pages of mapped files too. The base is taken
when all is imported and the labels exist.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr

SIDE = 64
KINDS = ("VmRSS", "RssAnon", "RssFile")


def memory() -> dict[str, int]:
    """Bytes of each of KINDS."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) * 1024 for line in lines if line[0][:-1] in KINDS}


def measure(gigabytes: float, *, mapped: bool, keep: bool) -> dict[str, Any]:
    """Peaks over the base in MB, by KINDS; opening the dataset counts, and an epoch, and the fingerprint."""
    kind = np.dtype(np.float32 if keep else np.uint8)
    n = int(gigabytes * 2**30 / (SIDE**2 * kind.itemsize))
    y: Any = np.arange(n) % 2
    hr.ArrayDataset(np.zeros((64, SIDE, SIDE), np.uint8), y[:64]).loader(batch_size=8)[
        0
    ]  # imports what is imported late
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.lib.format.open_memmap(path, "w+", kind, (n, SIDE, SIDE))
        options: dict[str, Any] = {"class_names": ("no", "yes")}
        if keep:
            y, options = Path(folder, "masks.npy"), {"dtype": "keep"}
            np.lib.format.open_memmap(y, "w+", np.uint8, (n, SIDE, SIDE))
        base = memory()
        peak, over = dict(base), threading.Event()

        def watch() -> None:
            while not over.wait(0.005):
                for kind, found in memory().items():
                    peak[kind] = max(peak[kind], found)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        begin = time.perf_counter()
        ds = hr.ArrayDataset(np.load(path, mmap_mode="r") if mapped else path, y, **options)
        opened = time.perf_counter()
        loader = ds.loader(batch_size=64, shuffle=True, seed=0, augment=() if keep else (hr.HorizontalFlip(),))
        images = sum(len(batch.images) for batch in loader)
        done = time.perf_counter()
        loader.state_dict()  # reads everything once for the fingerprint
        end = time.perf_counter()
        over.set()
        watcher.join()
    return {
        "file_gb": round(n * SIDE**2 * kind.itemsize / 2**30, 3),
        "given_as": "memory map" if mapped else "path",
        "images": images,
        "base_mb": round(base["VmRSS"] / 1e6),
        "over_base_mb": {kind: round((peak[kind] - base[kind]) / 1e6) for kind in KINDS},
        "seconds": {
            "open": round(opened - begin, 2),
            "epoch": round(done - opened, 2),
            "fingerprint": round(end - done, 2),
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=4, help="size of the file in GiB")
    parser.add_argument("--mapped", action="store_true", help="give a NumPy memory map and not the path")
    parser.add_argument("--keep", action="store_true", help="float32 as it is, and masks in a file beside it")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.gb, mapped=asked.mapped, keep=asked.keep)))
