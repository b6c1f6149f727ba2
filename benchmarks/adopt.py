"""MB/s of adopting TFRecord files in place, against nothing but reading the same files from disk.

    python benchmarks/adopt.py [--folder DIR] [--gigabytes 1] [--shards 8] [--image-kb 100] [--workers N] [--repeats 5]
                               [--json FILE]

Shards are written first, below DIR (a folder on the disk that is meant): visipedia's keys, JPEGs of noise of about
100 KB, three boxes each. Before each measurement the files are dropped from the page cache (posix_fadvise DONTNEED),
so that every arm reads from disk; where the system keeps them all the same, "read" shows it by its speed. A process
per measurement, imports before its clock. Adopting reads every byte, checks every CRC, parses every record, reads the
header of every image, and writes catalog and manifest, synced.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from _measure import Arm, Job, Result, by_bytes, child, clocked, facts, forget, publish, rounds, summarise

BLOCK = 1 << 22  # bytes of one read


def write(folder: Path, total: int, shards: int, image_bytes: int) -> int:
    """Writes shards of about `total` bytes in all; says how many records."""
    from headrace.format import example, tfrecord
    from headrace.format.catalog import Row
    from headrace.imaging import codec

    rng = np.random.default_rng(0)
    side = 8 * round((image_bytes / 1.25) ** 0.5 / 8)  # noise at this quality takes 1.25 bytes per pixel
    noise = [codec.encode_jpeg(rng.integers(0, 256, (side, side, 3), np.uint8), quality=75) for _ in range(16)]
    per_shard = max(1, total // shards // len(noise[0]))
    n = 0
    for i in range(shards):
        with (folder / f"train-{i:05d}-of-{shards:05d}.tfrecord").open("wb", buffering=BLOCK) as file:
            for _ in range(per_shard):
                boxes = np.array([[1, 2, 30, 40], [5, 5, 90, 60], [0, 0, side, side]], np.float32)
                record = Row(
                    id=f"photo-{n}.jpg",
                    split="train",
                    shard="",
                    format="jpeg",
                    height=side,
                    width=side,
                    channels=3,
                    origin="",
                    sha256="",
                    label=n % 10,
                    label_name=f"class {n % 10}",
                    boxes=boxes,
                    box_labels=[0, 1, 2],
                    box_label_names=["a", "b", "c"],
                )
                features = example.features_of(record, noise[n % 16], with_label=True, with_boxes=True)
                file.write(tfrecord.frame(example.serialize(features)))
                n += 1
            file.flush()
            os.fsync(file.fileno())
    return n


def cold(start: Callable[[Job], Callable[[list[Path]], int]]) -> Callable[[Job], Result]:
    """Measure an arm on files that are not in the page cache."""

    def measure(job: Job) -> Result:
        work = start(job)
        paths = sorted(Path(job["folder"]).glob("*.tfrecord"))
        forget(paths)
        return clocked(lambda: work(paths)) | {"bytes": sum(path.stat().st_size for path in paths)}

    return measure


def headrace(job: Job) -> Callable[[list[Path]], int]:
    import headrace as hr

    hr.adopt  # noqa: B018 - names are imported when first used: before the clock

    def work(paths: list[Path]) -> int:
        with TemporaryDirectory(dir=paths[0].parent.parent) as scratch:
            return int(hr.adopt(paths, Path(scratch, "out"), workers=job["workers"], progress=False).stored)

    return work


def read(job: Job) -> Callable[[list[Path]], int]:
    def work(paths: list[Path]) -> int:
        buffer = bytearray(BLOCK)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        return int(job["images"])

    return work


ARMS = {
    "headrace": Arm(what="hr.adopt: CRCs, records parsed, image headers, catalog, synced", measure=cold(headrace)),
    "read": Arm(what="the same files read from begin to end, 4 MiB at a time, and forgotten", measure=cold(read)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--image-kb", type=int, default=100)
    parser.add_argument("--workers", type=int, help="of Headrace; default: its own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    report = facts("adopt")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        folder = Path(scratch, "shards")
        folder.mkdir()
        images = write(folder, int(args.gigabytes * 1e9), args.shards, args.image_kb * 1000)
        size = sum(path.stat().st_size for path in folder.iterdir())
        job: Job = {"folder": str(folder), "images": images, "workers": args.workers}
        report["job"] = {"images": images, "bytes": size, "shards": args.shards, "repeats": args.repeats}
        report["cold"] = summarise(ARMS, rounds(list(ARMS), job, args.repeats))
    publish(report, by_bytes(report["cold"]), args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
