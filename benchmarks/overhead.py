"""What Python adds to each image, in microseconds: the loader on 32 x 32 PNGs, less the same decode calls alone.

    python benchmarks/overhead.py [--images 20000] [--batch-size 32] [--repeats 5] [--json FILE]

The pictures are drawn and packed first, in a temporary folder. Shuffled, no target, no resize. Python's own part is
what `loader[i]` takes for an image on one thread, less what its calls of C take by themselves: the same records in the
same order, read, checked, decoded and copied into a batch. What iterating takes beyond `loader[i]` is the handing over
between threads. Page cache warm; a process per measurement; whole epochs for about three seconds; images are counted.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
import os
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


def made(job: Job) -> Any:
    import headrace as hr

    return hr.Dataset(job["packed"]).loader(batch_size=job["batch_size"], shuffle=True, workers=job["threads"])


def iterated(job: Job) -> Epochs:
    loader = made(job)
    return lambda epochs: sum(len(batch.images) for _ in range(epochs) for batch in loader)


def by_number(job: Job) -> Epochs:
    loader = made(job)

    def run(epochs: int) -> int:
        images = 0
        for epoch in range(epochs):
            loader.epoch = epoch
            images += sum(len(loader[i].images) for i in range(len(loader)))
        return images

    return run


def calls_only(job: Job) -> Epochs:
    """`os.pread`, `google_crc32c.value`, `cv2.imdecode`, a copy into the batch; what to call is worked out before."""
    import cv2
    import google_crc32c

    loader = made(job)
    store = loader.view.store
    table = store.table.frame(["shard", "offset", "length", "image_offset", "image_length"])
    files = {name: os.open(Path(job["packed"], name), os.O_RDONLY) for name in table["shard"].unique()}
    header = 12  # bytes of a record before its payload
    records = [
        (files[shard], offset + header, length, image - offset - header, size)
        for shard, offset, length, image, size in table.iter_rows()
    ]
    row_of = {id_: row for row, id_ in enumerate(store.ids_of(np.arange(len(store))))}
    batches = [[records[row_of[id_]] for id_ in loader[i].ids] for i in range(len(loader))]
    how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

    def run(epochs: int) -> int:
        images = 0
        for _ in range(epochs):
            for batch in batches:
                out = np.empty((len(batch), SIDE, SIDE, 3), np.uint8)
                for slot, (file, start, length, at, size) in enumerate(batch):
                    data = os.pread(file, length, start)
                    google_crc32c.value(data)
                    out[slot] = cv2.imdecode(np.frombuffer(data, np.uint8, size, at), how)
                images += len(out)
        return images

    return run


def decode_only(job: Job) -> Epochs:
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
        with ThreadPoolExecutor(job["threads"]) as pool:
            return sum(pool.map(decode, chunks * epochs))

    return run


def timed(start: Callable[[Job], Epochs], threads: int = 1) -> Callable[[Job], Result]:
    """Measure an arm: an epoch to warm up, one to learn its length, then about SECONDS on the clock."""

    def measure(job: Job) -> Result:
        run = start(job | {"threads": threads})
        run(1)
        epochs = math.ceil(SECONDS / clocked(lambda: run(1))["seconds"])
        result = clocked(lambda: run(epochs))
        if result["images"] != epochs * job["images"]:
            raise SystemExit(f"{result['images']} images in {epochs} epochs, wanted {epochs} x {job['images']}")
        return result | {"epochs": epochs, "threads": threads}

    return measure


ARMS = {
    "headrace": Arm(what="for batch in loader, a thread per core", measure=timed(iterated, cores())),
    "decode only": Arm(what="cv2.imdecode on as many threads, nothing else", measure=timed(decode_only, cores())),
    "headrace, 1 thread": Arm(what="for batch in loader, one thread beside the one that asks", measure=timed(iterated)),
    "headrace, loader[i]": Arm(what="loader[i] for all i, on the thread that asks", measure=timed(by_number)),
    "calls only": Arm(what="its pread, CRC-32C, cv2.imdecode and copy on one thread", measure=timed(calls_only)),
    "decode only, 1 thread": Arm(what="cv2.imdecode on one thread, nothing else", measure=timed(decode_only)),
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
    us = {arm: per_image(of_arm) for arm, of_arm in report["arms"].items()}
    report["python_us"] = round(us["headrace, loader[i]"] - us["calls only"], 2)
    report["handing_over_us"] = round(us["headrace, 1 thread"] - us["headrace, loader[i]"], 2)
    publish(report, table(report), args.json)


def per_image(of_arm: dict[str, Any]) -> float:
    """Microseconds of wall time."""
    return 1e6 / float(of_arm["images_per_second"])


def table(report: dict[str, Any]) -> str:
    rows = [(*row(arm, of_arm), f"{per_image(of_arm):.1f}", of_arm["what"]) for arm, of_arm in report["arms"].items()]
    own = f"Python's own part: {report['python_us']:.1f} us per image; handing over: {report['handing_over_us']:.1f} us"
    return f"{markdown((*HEADER, 'us per image', 'what'), rows)}\n\n{own}"


if __name__ == "__main__" and not child(ARMS):
    main()
