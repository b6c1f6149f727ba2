"""What Python adds to each image, in microseconds: the loader on 32 x 32 PNGs, less the same decode calls alone.

    python benchmarks/overhead.py [--images 20000] [--batch-size 32] [--repeats 5] [--json FILE]

The pictures are drawn and packed first, in a temporary folder. Two pairs of arms, one on one thread and one on a thread
per core: the loader (shuffled, no target, no resize), and nothing but its calls of OpenCV's decoder on bytes in memory.
The wall time per image of the first less that of the second is what order, reading, checking and batching take. Page
cache warm; a process per measurement; whole epochs for about three seconds; the images counted and checked.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from _measure import (
    HEADER,
    Arm,
    Job,
    Result,
    child,
    clocked,
    cores,
    facts,
    markdown,
    publish,
    rounds,
    row,
    summarise,
    warm_page_cache,
)

SECONDS = 3.0  # of work per measurement, at least one epoch
SIDE = 32  # pixels
PAIRS = {"headrace": "decode only", "headrace, 1 thread": "decode only, 1 thread"}  # the loader's arm -> its decoding

Epochs = Callable[[int], int]  # runs so many epochs, says how many images came out


def drawn(images: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 [images, SIDE, SIDE, 3]: a disc of one colour somewhere on a ground that grows brighter to one side."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    ground = np.broadcast_to((2 * x + 3 * y)[..., None], (SIDE, SIDE, 3)).astype(np.uint8)
    out = np.empty((images, SIDE, SIDE, 3), np.uint8)
    for picture, (cx, cy, r), colour in zip(
        out, rng.uniform(6, 26, (images, 3)), rng.integers(0, 256, (images, 3), np.uint8), strict=True
    ):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (r / 2) ** 2
        picture[:] = np.where(inside[..., None], colour, ground)
    return out


def headrace(job: Job, *, threads: int) -> Epochs:
    import headrace as hr

    loader = hr.Dataset(job["packed"]).loader(batch_size=job["batch_size"], shuffle=True, workers=threads)
    return lambda epochs: sum(len(batch.images) for _ in range(epochs) for batch in loader)


def decode_only(job: Job, *, threads: int) -> Epochs:
    import cv2

    import headrace as hr

    dataset = hr.Dataset(job["packed"])
    encoded = [np.frombuffer(dataset[i].read(), np.uint8) for i in range(len(dataset))]
    how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    chunks = [encoded[i : i + job["batch_size"]] for i in range(0, len(encoded), job["batch_size"])]

    def decode(chunk: list[Any]) -> int:
        for data in chunk:
            cv2.imdecode(data, how)
        return len(chunk)

    def run(epochs: int) -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(decode, chunks * epochs))

    return run


def timed(start: Callable[..., Epochs], threads: int) -> Callable[[Job], Result]:
    """Measure an arm: an epoch to warm up, one to learn its length, then about SECONDS on the clock."""

    def measure(job: Job) -> Result:
        run = start(job, threads=threads)
        run(1)
        epochs = math.ceil(SECONDS / clocked(lambda: run(1))["seconds"])
        result = clocked(lambda: run(epochs))
        if result["images"] != epochs * job["images"]:
            raise SystemExit(f"{result['images']} images in {epochs} epochs, wanted {epochs} x {job['images']}")
        return result | {"epochs": epochs, "threads": threads}

    return measure


ARMS = {
    "headrace": Arm(what="the loader, a thread per core", measure=timed(headrace, cores())),
    "decode only": Arm(what="cv2.imdecode on as many threads, nothing else", measure=timed(decode_only, cores())),
    "headrace, 1 thread": Arm(what="the loader, one thread", measure=timed(headrace, 1)),
    "decode only, 1 thread": Arm(what="cv2.imdecode on one thread, nothing else", measure=timed(decode_only, 1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import headrace as hr

    report = facts("overhead")
    with TemporaryDirectory(prefix="headrace-bench-") as scratch:
        packed = Path(scratch, "packed")
        hr.pack(hr.sources.arrays(drawn(args.images)), packed, shards=4, progress=False)
        if {entry.format for entry in (hr.Dataset(packed)[i] for i in range(min(64, args.images)))} != {"png"}:
            raise SystemExit("the pictures were not packed as PNGs")
        bytes_in = warm_page_cache([*packed.glob("*.tfrecord")])
        job: Job = {"packed": str(packed), "images": args.images, "batch_size": args.batch_size}
        report["job"] = {"images": args.images, "batch_size": args.batch_size, "side": SIDE}
        report["job"] |= {"repeats": args.repeats, "bytes_in": bytes_in}
        report["arms"] = summarise(ARMS, rounds(list(ARMS), job, args.repeats))
    for loading, decoding in PAIRS.items():
        report["arms"][loading]["not_decoding_us"] = round(
            per_image(report["arms"][loading]) - per_image(report["arms"][decoding]), 2
        )
    publish(report, table(report["arms"]), args.json)


def per_image(of_arm: dict[str, Any]) -> float:
    """Microseconds of wall time."""
    return 1e6 / float(of_arm["images_per_second"])


def table(arms: dict[str, Any]) -> str:
    rows = [
        (*row(arm, of_arm), f"{per_image(of_arm):.1f}", f"{of_arm.get('not_decoding_us', '')}", of_arm["what"])
        for arm, of_arm in arms.items()
    ]
    return markdown((*HEADER, "us per image", "all but decoding, us", "what"), rows)


if __name__ == "__main__" and not child(ARMS):
    main()
