"""Images/s of shuffled batches: Headrace, tf.data, Keras, PyTorch and Grain, beside the limits that the decoder sets.

    python benchmarks/load.py FOLDER [--packed DS] [--size 224] [--batch-size 32] [--images N] [--repeats 5]
                                     [--json FILE] [--memory]

FOLDER holds JPEG files, in class folders or not. They are packed as they are (no resize) into 16 shards in a
temporary folder, or taken from DS, packed from FOLDER before. Every arm delivers the same images at the same
size with as many workers as there are cores; page cache warm; a process per measurement; whole epochs for
about three seconds, the start of each epoch counted; the images counted and checked. Before the rounds Grain's arm is
measured once with each number of threads and way of batching, and takes the fastest into them. Arms whose package is
not installed are skipped. `--memory` measures the loader's memory over 20 epochs instead.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from _measure import (
    HEADER,
    Arm,
    Job,
    Result,
    child,
    clocked,
    cores,
    facts,
    in_child,
    markdown,
    publish,
    rounds,
    row,
    skipped,
    summarise,
    warm_page_cache,
)

SECONDS = 3.0  # of work per measurement, at least one epoch
SHUFFLE_BUFFER = 2048
MEMORY_EPOCHS = 20

Epochs = Callable[[int], int]  # runs so many epochs, says how many images came out


def headrace(job: Job) -> Epochs:
    import headrace as hr

    loader = hr.Dataset(job["packed"]).loader(
        batch_size=job["batch_size"], size=(job["size"], job["size"]), fit="stretch", shuffle=True
    )
    return lambda epochs: sum(len(batch.images) for _ in range(epochs) for batch in loader)


def tf_data(job: Job, *, one_iterator: bool = False) -> Epochs:
    import tensorflow as tf

    def image(payload: Any) -> Any:
        example = tf.io.parse_single_example(payload, {"image/encoded": tf.io.FixedLenFeature([], tf.string)})
        return tf.image.resize(tf.io.decode_jpeg(example["image/encoded"], channels=3), [job["size"]] * 2)

    auto = tf.data.AUTOTUNE
    shards = tf.data.Dataset.from_tensor_slices(sorted(str(p) for p in Path(job["packed"]).glob("*.tfrecord")))
    dataset = (
        shards.interleave(tf.data.TFRecordDataset, num_parallel_calls=auto)
        .shuffle(SHUFFLE_BUFFER)  # before the decoding, where it is cheap
        .map(image, num_parallel_calls=auto)
    )

    one_epoch = dataset.batch(job["batch_size"]).prefetch(auto)

    def repeated(epochs: int) -> int:
        # The parallel batch helps only here (1,000 against 610 images/s where AUTOTUNE settles on one core).
        several = dataset.repeat(epochs).batch(job["batch_size"], num_parallel_calls=auto).prefetch(auto)
        return sum(len(batch) for batch in several)

    def per_epoch(epochs: int) -> int:
        return sum(len(batch) for _ in range(epochs) for batch in one_epoch)

    return repeated if one_iterator else per_epoch


def keras_pydataset(job: Job) -> Epochs:
    """The enqueuer that `fit` puts before a PyDataset, without the copy into tf.data that follows there."""
    import keras
    import numpy as np
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    class Photos(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(workers=cores())
            self.paths = list(job["paths"])
            self.on_epoch_end()

        def __len__(self) -> int:
            return math.ceil(len(self.paths) / job["batch_size"])

        def __getitem__(self, index: int) -> Any:
            start = index * job["batch_size"]
            size = (job["size"], job["size"])
            return np.stack(
                [
                    keras.utils.img_to_array(keras.utils.load_img(path, target_size=size))
                    for path in self.paths[start : start + job["batch_size"]]
                ]
            )

        def on_epoch_end(self) -> None:
            random.shuffle(self.paths)

    adapter = PyDatasetAdapter(Photos())

    def run(epochs: int) -> int:
        images = 0
        for _ in range(epochs):
            adapter.on_epoch_begin()
            images += sum(len(batch) for (batch,) in adapter.get_numpy_iterator())
            adapter.on_epoch_end()
        return images

    return run


def torch_dataloader(job: Job) -> Epochs:
    import cv2
    import torch

    cv2.setNumThreads(0)
    paths = job["paths"]

    class Photos(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            image = cv2.cvtColor(cv2.imread(paths[index]), cv2.COLOR_BGR2RGB)
            return torch.from_numpy(cv2.resize(image, (job["size"], job["size"]), interpolation=cv2.INTER_LINEAR))

    loader = torch.utils.data.DataLoader(
        Photos(), batch_size=job["batch_size"], shuffle=True, num_workers=cores(), persistent_workers=True
    )
    return lambda epochs: sum(len(batch) for _ in range(epochs) for batch in loader)


def grain(job: Job) -> Epochs:
    """One iterator over all epochs, so no start but the first counts; `job["grain"]` says how many threads, and whether
    these make whole batches or images."""
    import cv2
    import grain
    import numpy as np

    cv2.setNumThreads(0)
    side, threads = job["size"], job["grain"]["threads"]

    def image(record: bytes) -> Any:
        pixels = cv2.imdecode(np.frombuffer(record, np.uint8), cv2.IMREAD_COLOR_RGB)
        return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)

    source = grain.sources.ArrayRecordDataSource([job["array_record"]])
    images = grain.MapDataset.source(source).seed(0).shuffle().map(image)

    def run(epochs: int) -> int:
        if job["grain"]["whole_batches"]:
            options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
            batches = images.batch(job["batch_size"]).repeat(epochs).to_iter_dataset(options)
        else:
            options = grain.ReadOptions(num_threads=threads)
            batches = images.repeat(epochs).to_iter_dataset(options).batch(job["batch_size"])
        return sum(len(batch) for batch in batches)

    return run


def tuned(job: Job) -> list[Result]:
    """Grain's arm once with each setting, the fastest first: {"threads", "whole_batches", "images_per_second"}."""
    tried = []
    for threads in sorted({cores(), 2 * cores(), 16}):  # 16 is its default
        for whole_batches in (True, False):
            setting = {"threads": threads, "whole_batches": whole_batches}
            result = in_child("Grain, threads", job | {"grain": setting})
            tried.append(setting | {"images_per_second": round(result["images"] / result["seconds"], 1)})
    return sorted(tried, key=lambda setting: -setting["images_per_second"])


def write_array_record(packed: Path, out: Path) -> None:
    """The images of the dataset, as they are stored, in the form that Grain reads at random."""
    from array_record.python.array_record_module import ArrayRecordWriter

    import headrace as hr

    dataset = hr.Dataset(packed)
    writer = ArrayRecordWriter(str(out), "group_size:1,uncompressed")  # JPEGs don't get smaller
    for i in range(len(dataset)):
        writer.write(dataset[i].read())
    writer.close()


def decode_only(job: Job) -> Epochs:
    from simplejpeg import decode_jpeg

    import headrace as hr

    dataset = hr.Dataset(job["packed"])
    encoded = [dataset[i].encoded for i in range(len(dataset))]
    side = job["size"]

    def decode(chunk: Sequence[bytes]) -> int:
        return sum(
            decode_jpeg(data, "RGB", min_height=side, min_width=side, min_factor=2, strict=False).ndim == 3
            for data in chunk
        )

    return chunked(decode, encoded, job["batch_size"])


def decode_and_resize(job: Job) -> Epochs:
    """The calls into libjpeg-turbo and OpenCV that the loader makes for fit="stretch", all else worked out before."""
    import cv2
    import numpy as np
    from simplejpeg import decode_jpeg

    import headrace as hr

    dataset = hr.Dataset(job["packed"])
    side = job["size"]

    def calls(encoded: bytes, height: int, width: int) -> tuple[bytes, dict[str, int], int | None]:
        """The bytes, at which scale to decode them, and how to resize what comes out; None where it is the size."""
        scaled = {factor: (-(-height // factor), -(-width // factor)) for factor in (8, 4, 2, 1)}
        factor = next((f for f, decoded in scaled.items() if min(decoded) >= side), 1)
        h, w = scaled[factor]
        scale = {"min_height": h, "min_width": w, "min_factor": factor} if factor > 1 else {}
        if (h, w) == (side, side):
            return encoded, scale, None
        return encoded, scale, cv2.INTER_AREA if min(h, w) > 2 * side else cv2.INTER_LINEAR

    records = (dataset[i] for i in range(len(dataset)))
    images = [calls(record.read(), record.height, record.width) for record in records]

    def make(chunk: Sequence[tuple[bytes, dict[str, int], int | None]]) -> int:
        batch = np.empty((len(chunk), side, side, 3), np.uint8)
        for out, (encoded, scale, method) in zip(batch, chunk, strict=True):
            pixels = decode_jpeg(encoded, "RGB", strict=False, **scale)
            if method is None:
                out[:] = pixels
            else:
                cv2.resize(pixels, (side, side), dst=out, interpolation=method)
        return len(batch)

    return chunked(make, images, job["batch_size"])


def chunked(work: Callable[[Sequence[Any]], int], images: Sequence[Any], size: int) -> Epochs:
    """Epochs of `work` on `size` images a task, with a thread per core."""
    chunks = [images[i : i + size] for i in range(0, len(images), size)]

    def run(epochs: int) -> int:
        with ThreadPoolExecutor(cores()) as threads:
            return sum(threads.map(work, chunks * epochs))

    return run


def timed(start: Callable[[Job], Epochs]) -> Callable[[Job], Result]:
    """Measure an arm: an epoch to warm up, one to learn its length, then about SECONDS on the clock."""

    def measure(job: Job) -> Result:
        run = start(job)
        run(1)
        epochs = math.ceil(SECONDS / clocked(lambda: run(1))["seconds"])
        result = clocked(lambda: run(epochs))
        if result["images"] != epochs * job["images"]:
            raise SystemExit(f"{result['images']} images in {epochs} epochs, wanted {epochs} x {job['images']}")
        return result | {"epochs": epochs}

    return measure


def memory(job: Job) -> Result:
    """MiB before the first epoch and after each: resident, and of it private (a shard's pages are not)."""
    run = headrace(job)
    resident, private = [], []
    for epoch in range(MEMORY_EPOCHS + 1):
        if epoch:
            run(1)
        now = psutil.Process().memory_info()
        resident.append(round(now.rss / 2**20, 1))
        private.append(round((now.rss - getattr(now, "shared", 0)) / 2**20, 1))
    return {"resident_mib": resident, "private_mib": private}


ARMS = {
    "headrace": Arm(what="Loader over the packed shards: uint8, fit='stretch'", measure=timed(headrace)),
    "tf.data": Arm(
        what="the same shards, all AUTOTUNE, an iterator per epoch as in fit: float32",
        measure=timed(tf_data),
        needs=("tensorflow",),
    ),
    "tf.data, repeat": Arm(
        what="the same, one iterator over all epochs",
        measure=timed(lambda job: tf_data(job, one_iterator=True)),
        needs=("tensorflow",),
    ),
    "Keras PyDataset": Arm(
        what="load_img (nearest, its default) over the files, fit's enqueuer, threads: float32",
        measure=timed(keras_pydataset),
        needs=("keras",),
    ),
    "torch DataLoader": Arm(
        what="cv2 imread + linear over the files, persistent worker processes: uint8",
        measure=timed(torch_dataloader),
        needs=("torch",),
    ),
    "Grain, threads": Arm(
        what="the same images in an ArrayRecord, cv2 decode + linear, the fastest number of threads: uint8",
        measure=timed(grain),
        needs=("grain", "array_record"),
    ),
    "decode + resize only": Arm(
        what="the loader's own calls of simplejpeg and cv2, bytes in memory, threads, into batches, nothing else",
        measure=timed(decode_and_resize),
    ),
    "decode only": Arm(
        what="the limit: simplejpeg scaled, bytes in memory, threads, no resize, no batch",
        measure=timed(decode_only),
    ),
}


def pack(folder: Path, out: Path, images: int | None) -> None:
    import headrace as hr

    class_folders = any(p.is_dir() and not p.name.startswith(".") for p in folder.iterdir())
    source: Iterable[Any] = (
        hr.sources.folders(folder) if class_folders else hr.sources.names(folder, pattern=r"(?P<label>(?!))")
    )
    hr.pack(islice(source, images) if images else source, out, size=None, shards=16, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packed", type=Path, help="a dataset packed from FOLDER, instead of packing it now")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, help="pack only the first N images of FOLDER")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", action="store_true", help=f"memory of the loader over {MEMORY_EPOCHS} epochs")
    args = parser.parse_args()
    if args.packed and args.images:
        parser.error("--images chooses what to pack; leave it out with --packed")
    if not args.folder.is_dir():
        parser.error(f"{args.folder}: no such folder")

    import headrace as hr

    report = facts("load")
    with TemporaryDirectory(prefix="headrace-bench-") as scratch:
        packed = args.packed or Path(scratch, "packed")
        if not args.packed:
            pack(args.folder, packed, args.images)
        ids = hr.Dataset(packed).catalog["id"].to_list()
        paths = [args.folder / i for i in ids]
        bytes_in = warm_page_cache(paths)
        warm_page_cache([*packed.glob("*.tfrecord")])
        job: Job = {
            "packed": str(packed),
            "paths": [str(p) for p in paths],
            "images": len(paths),
            "size": args.size,
            "batch_size": args.batch_size,
        }
        report["job"] = {k: job[k] for k in ("images", "size", "batch_size")} | {
            "repeats": args.repeats,
            "bytes_in": bytes_in,
        }
        if args.memory:
            report["memory"] = in_child("memory", job)
            table = memory_table(report["memory"])
        else:
            report["skipped"] = skipped(ARMS)
            arms = [arm for arm in ARMS if arm not in report["skipped"]]
            if "Grain, threads" in arms:
                job["array_record"] = str(Path(scratch, "images.array_record"))
                write_array_record(packed, Path(job["array_record"]))
                report["grain"] = tuned(job)
                job["grain"] = report["grain"][0]
            report["arms"] = summarise(ARMS, rounds(arms, job, args.repeats))
            table = rate_table(report["arms"])
    publish(report, table, args.json)


def rate_table(arms: dict[str, Any]) -> str:
    return markdown((*HEADER, "what"), [(*row(arm, of_arm), of_arm["what"]) for arm, of_arm in arms.items()])


def memory_table(result: Result) -> str:
    return markdown(
        ("epochs", "resident MiB", "private MiB"),
        [
            (str(epoch), f"{resident:.1f}", f"{private:.1f}")
            for epoch, (resident, private) in enumerate(zip(result["resident_mib"], result["private_mib"], strict=True))
        ],
    )


if __name__ == "__main__" and not child({**ARMS, "memory": Arm(what="memory", measure=memory)}):
    main()
