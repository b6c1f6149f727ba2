"""Opening a million tiny PNGs that TensorFlow wrote, adopted: seconds and memory until the first batch.

    python benchmarks/tiny.py [--records 1000000] [--shards 20] [--folder DIR] [--repeats 5] [--json [FILE]]

TensorFlow's TFRecordWriter writes them first, below DIR, under visipedia's keys and with no file beside the shards;
`hr.adopt` makes a dataset of them where they are. Then, each time in a fresh process, the dataset is opened and its
first shuffled batch of 32 taken; before that the same is done with a dataset of 64 such records, so that everything is
imported that is imported late: memory is what the large one adds. Anonymous memory is this process's own; mapped pages
of files lie in the page cache, and processes share them. Page cache warm.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _measure import (
    Arm,
    Job,
    Result,
    child,
    clocked,
    facts,
    grown,
    in_child,
    markdown,
    publish,
    rounds,
    skipped,
    stopwatch,
    warm_page_cache,
)

SIDE = 16  # pixels
FEW = 64  # records of the dataset to warm up with
CLASSES = tuple(f"class {i}" for i in range(10))


def write(job: Job) -> Result:
    """Both sets of shards, by TensorFlow and nothing of ours. No two images are alike."""
    import cv2
    import numpy as np
    import tensorflow as tf

    def text(value: str) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))

    def number(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    ground = np.mgrid[:SIDE, :SIDE].sum(axis=0).astype(np.uint8)
    common = {
        "image/format": text("PNG"),
        "image/height": number(SIDE),
        "image/width": number(SIDE),
        "image/channels": number(3),
        "image/colorspace": text("RGB"),
    }

    def payload(i: int) -> bytes:
        pixels = np.stack([ground * (1 + i % 7), ground + i // 65536 % 256, ground ^ (i // 256 % 256)], axis=-1)
        pixels[0, 0] = i % 256, i // 256 % 256, i // 65536 % 256
        encoded = cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes()
        features = common | {
            "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
            "image/filename": text(f"{i:07d}.png"),
            "image/id": text(f"{i:07d}"),
            "image/class/label": number(i % 10),
            "image/class/text": text(CLASSES[i % 10]),
        }
        return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())

    def work() -> int:
        for name, records, shards in (("few", FEW, 1), ("many", job["records"], job["shards"])):
            folder = Path(job["scratch"], f"{name}-shards")
            folder.mkdir()
            for k in range(shards):
                with tf.io.TFRecordWriter(str(folder / f"train-{k:05d}-of-{shards:05d}.tfrecord")) as writer:
                    for i in range(records * k // shards, records * (k + 1) // shards):
                        writer.write(payload(i))
        return int(job["records"])

    return clocked(work)


def adopt(job: Job) -> Result:
    import headrace as hr

    scratch = Path(job["scratch"])
    hr.adopt(scratch / "few-shards", scratch / "few", progress=False)
    return clocked(lambda: int(hr.adopt(scratch / "many-shards", scratch / "many", progress=False).stored))


def first_batch(job: Job) -> Result:
    import headrace as hr

    def run(name: str) -> tuple[Result, Any]:
        opened, dataset = stopwatch(lambda: hr.Dataset(Path(job["scratch"], name)))
        loader = dataset.loader(batch_size=32)
        iteration = iter(loader)
        made, batch = stopwatch(lambda: next(iteration))
        if batch.images.shape != (32, SIDE, SIDE, 3):
            raise SystemExit(f"a first batch of {batch.images.shape}")
        kept = (dataset, loader, iteration, batch)
        return {"seconds": opened + made, "opening": opened, "first_batch": made, "records": len(dataset)}, kept

    for _ in range(2):  # the first is the warm-up
        few, (_, _, iteration, _) = run("few")
        iteration.close()
    return grown(lambda: run("many")) | {"few_seconds": few["seconds"]}


ARMS = {
    "write": Arm(what="TensorFlow's TFRecordWriter", measure=write, needs=("tensorflow",)),
    "adopt": Arm(what="hr.adopt", measure=adopt),
    "headrace": Arm(what="hr.Dataset(...), its loader, its first batch", measure=first_batch),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where all is written; default: that of temporary files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, nargs="?", const=Path("-"))
    args = parser.parse_args()
    for arm, reason in skipped(ARMS).items():
        parser.error(f"{arm}: {reason}")

    report = facts("tiny")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        job: Job = {"scratch": scratch, "records": args.records, "shards": args.shards}
        wrote, adopted = in_child("write", job), in_child("adopt", job)
        if adopted["images"] != args.records:
            raise SystemExit(f"{adopted['images']} of {args.records} records were adopted")
        report["job"] = {
            "records": args.records,
            "shards": args.shards,
            "repeats": args.repeats,
            "bytes": warm_page_cache([*Path(scratch, "many-shards").iterdir()]),
            "seconds_to_write": round(wrote["seconds"], 1),
            "seconds_to_adopt": round(adopted["seconds"], 1),
        }
        warm_page_cache([*Path(scratch, "many").iterdir()])
        found = rounds(["headrace"], job, args.repeats, told)["headrace"]
    medians = {name: median(result[name] for result in found) for name in found[0]}
    report["first_batch"] = medians | {"measurements": found}
    publish(report, table(medians), args.json)


def told(result: Result) -> str:
    return f"{result['seconds']:8.3f} s  {result['anonymous_mb']:8.1f} MB"


def table(of: dict[str, Any]) -> str:
    header = (
        "opening, s",
        "first batch, s",
        "both, s",
        "both of 64 records, s",
        "anonymous MB",
        "at most",
        "mapped MB",
    )
    seconds = (f"{of[name]:.3f}" for name in ("opening", "first_batch", "seconds", "few_seconds"))
    return markdown(header, [(*seconds, *(f"{of[name]:.1f}" for name in ("anonymous_mb", "peak_mb", "mapped_mb")))])


if __name__ == "__main__" and not child(ARMS):
    main()
