"""MB/s of records read in shuffled order from a cold disk: the loader's own reading against plain os.pread.

    python benchmarks/cold.py [--folder DIR] [--gb 2] [--threads 8] [--image-kb 100] [--repeats 5] [--json FILE]

A dataset of JPEGs of noise is packed first, below DIR (a folder on the disk that is meant). Before each measurement
its shards are dropped from the page cache (posix_fadvise DONTNEED), and mincore says how much of them is there all the
same; more than a hundredth ends the run. A process per measurement; imports, opening and the order come before its
clock. Both arms take the records in one shuffled order, in tasks of 32, on THREADS threads; "epoch" is a whole
loader's.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from _measure import (
    Arm,
    Job,
    Result,
    by_bytes,
    child,
    clocked,
    facts,
    forget,
    publish,
    rounds,
    summarise,
)

TASK = 32  # records
WARM = 0.01  # of the shards' pages that may be in the cache before a measurement

Work = Callable[[], int]  # reads everything once, says how many records


def noise(images: int, image_bytes: int) -> Iterator[Any]:
    """Records of sixteen different JPEGs of noise, of about `image_bytes` each."""
    import headrace as hr
    from headrace.imaging import codec

    rng = np.random.default_rng(0)
    side = 8 * round((image_bytes / 1.25) ** 0.5 / 8)  # noise at this quality takes 1.25 bytes per pixel
    made = [codec.encode_jpeg(rng.integers(0, 256, (side, side, 3), np.uint8), quality=75) for _ in range(16)]
    for i in range(images):
        yield hr.Record(id=f"photo-{i}.jpg", encoded=made[i % 16])


def cached(paths: list[Path]) -> float:
    """The share of the files' pages that are in the page cache (mincore(2))."""
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    there = pages = 0
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            found = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
            if mincore(view.ctypes.data, len(view), found.ctypes.data):
                raise OSError(ctypes.get_errno(), f"{path}: mincore")
            there, pages = there + int((found & 1).sum()), pages + len(found)
            del view  # a map with a view of it can't be closed
    return there / pages


def ranges(packed: Path) -> list[tuple[Path, int, int]]:
    """(shard, where a record begins, its bytes) of all records in the dataset's order, as the .idx files say."""
    import headrace as hr

    out = []
    for entry in hr.Dataset(packed).manifest.shards:
        for line in (packed / entry.index_name).read_text().splitlines():
            begin, length = map(int, line.split())
            out.append((packed / entry.name, begin, length))
    return out


def shuffled(n: int) -> list[list[int]]:
    """The numbers 0 to n - 1 in shuffled order, by tasks."""
    order = np.random.default_rng(0).permutation(n).tolist()
    return [order[i : i + TASK] for i in range(0, n, TASK)]


def read(job: Job) -> Work:
    """Plain os.pread of the records' bytes by descriptors that are open already."""
    records = ranges(Path(job["packed"]))
    files = {path: os.open(path, os.O_RDONLY) for path in {path for path, _, _ in records}}
    tasks = [
        [(files[path], length, begin) for path, begin, length in map(records.__getitem__, task)]
        for task in job["tasks"]
    ]

    def run(task: list[tuple[int, int, int]]) -> int:
        for file, length, begin in task:
            os.pread(file, length, begin)
        return len(task)

    return threaded(run, tasks, job["threads"])


def headrace(job: Job) -> Work:
    """The loader's own way to a record's bytes: read, and checked against what the dataset promises of them."""
    import headrace as hr

    store = hr.Dataset(job["packed"]).store

    def run(task: list[int]) -> int:
        for number in task:
            store.fetch(number)
        return len(task)

    return threaded(run, job["tasks"], job["threads"])


def threaded(run: Callable[[Any], int], tasks: list[Any], threads: int) -> Work:
    def work() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(run, tasks))

    return work


def epoch(job: Job) -> Work:
    """Everything: read, checked, decoded, resized, batched."""
    import headrace as hr

    loader = hr.Dataset(job["packed"]).loader(batch_size=TASK, size=224, workers=job["threads"])
    return lambda: sum(len(batch.images) for batch in loader)


def cold(start: Callable[[Job], Work]) -> Callable[[Job], Result]:
    """Measure an arm on shards that are not in the page cache."""

    def measure(job: Job) -> Result:
        work = start(job | {"tasks": shuffled(job["images"])})
        paths = sorted(Path(job["packed"]).glob("*.tfrecord"))
        forget(paths)
        if (left := cached(paths)) > WARM:
            raise SystemExit(f"{left:.0%} of the shards' pages stay in the page cache; choose another disk (--folder)")
        result = clocked(work)
        if result["images"] != job["images"]:
            raise SystemExit(f"{result['images']} records, wanted {job['images']}")
        return result | {"bytes": job["bytes"], "cached_before": left}

    return measure


ARMS = {
    "headrace": Arm(what="Store.fetch: the loader's own reading, every record checked", measure=cold(headrace)),
    "read": Arm(what="os.pread of the same records in the same order, nothing else", measure=cold(read)),
    "epoch": Arm(what="for information: a whole epoch of the loader, decoded and resized", measure=cold(epoch)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--image-kb", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import headrace as hr

    report = facts("cold")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        packed = Path(scratch, "packed")
        images = max(1, int(args.gb * 1e6 / args.image_kb))
        hr.pack(noise(images, args.image_kb * 1000), packed, progress=False)
        size = sum(length for _, _, length in ranges(packed))
        job: Job = {"packed": str(packed), "images": images, "bytes": size, "threads": args.threads}
        shards = len([*packed.glob("*.tfrecord")])
        report["job"] = {"images": images, "bytes": size, "shards": shards, "threads": args.threads}
        report["job"]["repeats"] = args.repeats
        report["cold"] = summarise(ARMS, rounds(list(ARMS), job, args.repeats))
    publish(report, by_bytes(report["cold"]), args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
