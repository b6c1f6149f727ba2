"""Images/s of packing a folder of photos into shards, Headrace against the same job in tf.data.

    python benchmarks/pack.py FOLDER [--pattern REGEX] [--size 160] [--fit crop] [--shards 16] [--workers N]
                                     [--repeats 5] [--json FILE]

FOLDER holds JPEG files: a class folder each, or the class in the file name by REGEX with a group `label`.
The job: list the files, decode, resize, encode as JPEG (quality 95, 4:4:4), write tf.train.Examples, shuffled
and split (0.81, 0.19), into shards. Page cache warm; a process per measurement, imports before its clock. Twice:
as the first job of its process, which is how packing is done, and after a warm-up of 64 images, which is nearer
to the rate over a large folder. Headrace also writes catalog, manifest and side files, hashes every image and
shard and syncs all of it to disk before it publishes; the peer does none of that.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _measure import (
    HEADER,
    Arm,
    Job,
    Result,
    child,
    clocked,
    facts,
    jpegs,
    markdown,
    publish,
    rounds,
    row,
    summarise,
    warm_page_cache,
)

SPLITS = {"train": 0.81, "val": 0.19}
QUALITY = 95
SEED = 42
WARM_UP_IMAGES = 64

Pack = Callable[[Path, int | None], int]  # packs the folder, or its first n images, into a path; says how many


def headrace(job: Job) -> Pack:
    import headrace as hr

    hr.pack  # noqa: B018 - names are imported when first used: before the clock, as TensorFlow is

    def pack(out: Path, images: int | None) -> int:
        folder, pattern = job["folder"], job["pattern"]
        source: Iterable[Any] = hr.sources.names(folder, pattern=pattern) if pattern else hr.sources.folders(folder)
        report = hr.pack(
            source if images is None else islice(source, images),
            out,
            splits=SPLITS,
            size=job["size"],
            fit=job["fit"],
            quality=QUALITY,
            shards=job["shards"],
            seed=SEED,
            workers=job["workers"],
        )
        return int(report.stored)

    return pack


def tf_data(job: Job) -> Pack:
    import tensorflow as tf

    side = job["size"]

    def fitted(image: Any) -> Any:
        if job["fit"] == "stretch":
            return tf.image.resize(image, [side, side])
        if job["fit"] == "pad":
            return tf.image.resize_with_pad(image, side, side)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        shape = tf.cast(tf.round(shape * side / tf.reduce_min(shape)), tf.int32)
        return tf.image.resize_with_crop_or_pad(tf.image.resize(image, shape), side, side)

    def encoded(path: Any, name: Any, label: Any, text: Any) -> Any:
        image = fitted(tf.io.decode_jpeg(tf.io.read_file(path), channels=3))
        pixels = tf.cast(tf.round(image), tf.uint8)
        return tf.io.encode_jpeg(pixels, quality=QUALITY, chroma_downsampling=False), name, label, text

    def ints(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def strings(*values: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def example(image: bytes, name: bytes, label: int, text: bytes) -> bytes:
        feature = {
            "image/encoded": strings(image),
            "image/format": strings(b"jpeg"),
            "image/filename": strings(name),
            "image/id": strings(name),
            "image/height": ints(side),
            "image/width": ints(side),
            "image/channels": ints(3),
            "image/colorspace": strings(b"RGB"),
            "image/class/label": ints(label),
            "image/class/text": strings(text),
        }
        return bytes(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())

    def pack(out: Path, images: int | None) -> int:
        folder = Path(job["folder"])
        paths = jpegs(folder)[:images]
        names = [p.relative_to(folder).as_posix() for p in paths]
        texts = [class_name(name, job["pattern"]) for name in names]
        classes = {text: i for i, text in enumerate(sorted(set(texts)))}
        rows = [(str(p), name, classes[text], text) for p, name, text in zip(paths, names, texts, strict=True)]
        random.Random(SEED).shuffle(rows)
        dataset = (
            tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*rows, strict=True))))
            .map(encoded, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )
        out.mkdir()
        shards = job["shards"]
        writers = {
            split: [tf.io.TFRecordWriter(str(out / f"{split}-{i:05d}-of-{shards:05d}.tfrecord")) for i in range(shards)]
            for split in SPLITS
        }
        train = round(SPLITS["train"] * len(rows))
        stored = 0
        for stored, made in enumerate(dataset.as_numpy_iterator(), start=1):
            writers["train" if stored <= train else "val"][stored % shards].write(example(*made))
        for writer in (w for of_split in writers.values() for w in of_split):
            writer.close()
        return stored

    return pack


def class_name(name: str, pattern: str | None) -> str:
    """The class in a file's name, by its folder or by a pattern. Raises SystemExit when it has none."""
    if pattern is None:
        return name.partition("/")[0]
    match = re.search(pattern, name.rpartition("/")[2])
    if match is None:
        raise SystemExit(f"{name}: the pattern {pattern!r} does not match")
    return match["label"]


def timed(start: Callable[[Job], Pack]) -> Callable[[Job], Result]:
    """Measure an arm: where wanted a few images to warm up, then the folder on the clock."""

    def measure(job: Job) -> Result:
        pack = start(job)
        with TemporaryDirectory(prefix="headrace-bench-") as scratch:
            if job["warm_up"]:
                pack(Path(scratch, "warm"), job["warm_up"])
            out = Path(scratch, "out")
            result = clocked(lambda: pack(out, None))
            if result["images"] != job["images"]:
                raise SystemExit(f"{result['images']} images stored, wanted {job['images']}")
            files = [p for p in out.rglob("*") if p.is_file()]
            return result | {
                "shard_bytes": sum(p.stat().st_size for p in files if p.suffix == ".tfrecord"),
                "all_bytes": sum(p.stat().st_size for p in files),
                "files": len(files),
            }

    return measure


ARMS = {
    "headrace": Arm(what="hr.pack: hashed, catalogued, synced, published at once", measure=timed(headrace)),
    "tf.data": Arm(what="map AUTOTUNE, tf.train.Example, TFRecordWriter: shards only, no sync", measure=timed(tf_data)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pattern", help="class in the file name: a regular expression with a group `label`")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--fit", choices=("stretch", "crop", "pad"), default="crop")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, help="of Headrace; default: its own")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    report = facts("pack")
    paths = jpegs(args.folder)
    if not paths:
        parser.error(f"{args.folder}: no JPEG files there")
    bytes_in = warm_page_cache(paths)
    job: Job = {
        "folder": str(args.folder),
        "pattern": args.pattern,
        "images": len(paths),
        "size": args.size,
        "fit": args.fit,
        "shards": args.shards,
        "workers": args.workers,
    }
    report["job"] = {k: job[k] for k in ("images", "size", "fit", "shards", "workers")} | {
        "repeats": args.repeats,
        "bytes_in": bytes_in,
    }
    tables = []
    for title, warm_up in (("first job", 0), ("warmed up", WARM_UP_IMAGES)):
        report[title] = summarise(ARMS, rounds(list(ARMS), job | {"warm_up": warm_up}, args.repeats))
        tables.append(f"{title.capitalize()}:\n\n{table(report[title])}")
    publish(report, "\n\n".join(tables), args.json)


def table(arms: dict[str, Any]) -> str:
    def mb(of_arm: dict[str, Any], key: str) -> str:
        return f"{median(m[key] for m in of_arm['measurements']) / 1e6:.2f}"

    return markdown(
        (*HEADER, "MB in shards", "MB in all", "what"),
        [
            (*row(arm, of_arm), mb(of_arm, "shard_bytes"), mb(of_arm, "all_bytes"), of_arm["what"])
            for arm, of_arm in arms.items()
        ],
    )


if __name__ == "__main__" and not child(ARMS):
    main()
