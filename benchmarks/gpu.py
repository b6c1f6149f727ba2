"""Images/s of training on a GPU: steps fed by Headrace, tf.data, torch and DALI, beside the GPU's own rate.

    python benchmarks/gpu.py FOLDER [--size 224] [--batch-size 128] [--models resnet50,mobilenet_v2]
                                    [--cores 1,2,4,8,16] [--seconds 10] [--repeats 3] [--json FILE]
    python benchmarks/gpu.py --smoke                  # the same in little on the CPU: that it runs, not how fast

FOLDER holds JPEG files; they are packed as they are into 16 shards. A step is the same for all: uint8 [b, 3, h, w] in
channels_last on the device, normalised there, forward, backward and SGD with momentum, in bfloat16 (autocast) on CUDA.
The networks are ResNet-50 and MobileNetV2 as their papers have them, written here so that nothing else is needed.
"device" repeats the step on one batch that lies on the device: no feeder can be faster. Each feeder has so many cores
(sched_setaffinity), decodes and resizes all of the images on them, in threads or processes as it does by default, and
brings the batch over; DALI decodes on the GPU as well. "headrace, no step" is the loader alone, on those cores: where
it is below "device", the JPEG decoder is the limit, and no feeder on these cores keeps such a GPU busy. A process per
measurement, page cache warm, labels by the number of the file.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from _measure import (
    Arm,
    Job,
    Result,
    child,
    clocked,
    facts,
    in_child,
    jpegs,
    markdown,
    publish,
    skipped,
    warm_page_cache,
)

CLASSES = 10
WARM_UP = 0.3  # of the seconds of a measurement: cuDNN chooses, feeders fill what they prefetch

Batches = Callable[[Job], Iterator[tuple[Any, Any]]]  # endless: uint8 [b, 3, h, w] and int64 [b] on the device


# --- the networks ----------------------------------------------------------------------------------------------------


def resnet50(nn: Any, width: int) -> Any:
    """ResNet-50 (He et al. 2015, table 1) with its stride in the 3x3 convolutions; `width` is 64 in the paper."""

    def conv(before: int, after: int, side: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(before, after, side, stride, side // 2, bias=False), nn.BatchNorm2d(after)]

    class Bottleneck(nn.Module):  # type: ignore[misc]
        def __init__(self, before: int, inner: int, stride: int) -> None:
            super().__init__()
            relu = [nn.ReLU(inplace=True)]
            narrow, wide = [*conv(before, inner, 1), *relu], conv(inner, 4 * inner, 1)
            self.body = nn.Sequential(*narrow, *conv(inner, inner, 3, stride), *relu, *wide)
            same = before == 4 * inner and stride == 1
            self.short = nn.Identity() if same else nn.Sequential(*conv(before, 4 * inner, 1, stride))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.body(x) + self.short(x))

    blocks, before = [], width
    for stage, n in enumerate((3, 4, 6, 3)):
        for i in range(n):
            inner = width << stage
            blocks.append(Bottleneck(before, inner, 2 if stage and not i else 1))
            before = 4 * inner
    stem = [*conv(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, CLASSES))


def mobilenet_v2(nn: Any, width: int) -> Any:
    """MobileNetV2 (Sandler et al. 2018, table 2); `width` 64 is its width multiplier 1."""

    def layer(before: int, after: int, side: int, stride: int = 1, groups: int = 1) -> list[Any]:
        made = nn.Conv2d(before, after, side, stride, side // 2, groups=groups, bias=False)
        return [made, nn.BatchNorm2d(after), nn.ReLU6(inplace=True)]

    class Inverted(nn.Module):  # type: ignore[misc]
        def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
            super().__init__()
            inner = before * expand
            wide = layer(before, inner, 1) if expand > 1 else []
            self.body = nn.Sequential(*wide, *layer(inner, inner, 3, stride, inner), *layer(inner, after, 1)[:2])
            self.adds = stride == 1 and before == after

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.adds else self.body(x)

    def of(channels: int) -> int:
        return max(8, channels * width // 64)

    blocks, before = layer(3, of(32), 3, 2), of(32)
    for expand, channels, n, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(n):
            blocks.append(Inverted(before, of(channels), 1 if i else stride, expand))
            before = of(channels)
    last = [*layer(before, of(1280), 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(of(1280), CLASSES)]
    return nn.Sequential(*blocks, *last)


MODELS = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2}


# --- the feeders -----------------------------------------------------------------------------------------------------


def on_the_device(job: Job) -> Iterator[tuple[Any, Any]]:
    """One batch, again and again."""
    import torch

    shape = (job["batch_size"], job["size"], job["size"], 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2).to(job["device"])
    labels = torch.arange(job["batch_size"], device=job["device"]) % CLASSES
    while True:
        yield images, labels


def headrace(job: Job) -> Iterator[tuple[Any, Any]]:
    import headrace as hr

    loader = hr.Dataset(job["packed"]).loader(
        batch_size=job["batch_size"], size=job["size"], shuffle=True, drop_last=True, workers=job["cores"]
    )
    feed = loader.to_torch(device=job["device"])
    while True:
        yield from feed


def tf_data(job: Job) -> Iterator[tuple[Any, Any]]:
    import tensorflow as tf
    import torch

    tf.config.set_visible_devices([], "GPU")  # which is PyTorch's here
    keys = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def image(payload: Any) -> Any:
        example = tf.io.parse_single_example(payload, keys)
        made = tf.image.resize(tf.io.decode_jpeg(example["image/encoded"], channels=3), [job["size"]] * 2)
        return tf.cast(made + 0.5, tf.uint8), example["image/class/label"]

    auto = tf.data.AUTOTUNE
    shards = tf.data.Dataset.from_tensor_slices(sorted(str(p) for p in Path(job["packed"]).glob("*.tfrecord")))
    dataset = shards.interleave(tf.data.TFRecordDataset, num_parallel_calls=auto).shuffle(2048).repeat()
    batches = dataset.map(image, num_parallel_calls=auto).batch(job["batch_size"], drop_remainder=True).prefetch(auto)
    for images, labels in batches.as_numpy_iterator():
        yield _over(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels), job)


def _over(images: Any, labels: Any, job: Job) -> tuple[Any, Any]:
    """On the device; to CUDA from pinned memory, without waiting for it."""
    if job["device"] == "cpu":
        return images, labels
    import torch

    images = images if images.is_pinned() else images.contiguous(memory_format=torch.channels_last).pin_memory()
    return images.to(job["device"], non_blocking=True), labels.to(job["device"], non_blocking=True)


def torch_dataloader(job: Job) -> Iterator[tuple[Any, Any]]:
    import cv2
    import torch

    class Files(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(job["files"])

        def __getitem__(self, i: int) -> Any:
            image = cv2.cvtColor(cv2.imread(job["files"][i]), cv2.COLOR_BGR2RGB)
            return torch.from_numpy(cv2.resize(image, (job["size"], job["size"]))).permute(2, 0, 1), i % CLASSES

    loader = torch.utils.data.DataLoader(
        Files(),
        batch_size=job["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=job["cores"],
        persistent_workers=True,
        pin_memory=job["device"] != "cpu",
        worker_init_fn=lambda _: cv2.setNumThreads(0),
        multiprocessing_context="fork",
    )
    while True:
        for images, labels in loader:
            yield _over(images, labels, job)


def dali(job: Job) -> Iterator[tuple[Any, Any]]:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    gpu = job["device"] != "cpu"

    @pipeline_def(batch_size=job["batch_size"], num_threads=job["cores"], device_id=0 if gpu else None)
    def pipeline() -> Any:
        labels = [i % CLASSES for i in range(len(job["files"]))]
        encoded, label = fn.readers.file(files=job["files"], labels=labels, random_shuffle=True, name="files")
        images = fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)
        images = fn.resize(images, size=[job["size"]] * 2)
        return images, label.gpu() if gpu else label

    batches = DALIGenericIterator(pipeline(), ["images", "labels"], reader_name="files", auto_reset=True)
    while True:
        for (batch,) in batches:
            yield batch["images"].permute(0, 3, 1, 2), batch["labels"].reshape(-1).long()


# --- the measurement -------------------------------------------------------------------------------------------------


def trained(feeder: Batches) -> Callable[[Job], Result]:
    """Measure training fed by it."""
    return lambda job: _measured(job, feeder, _step(job))


def alone(feeder: Batches) -> Callable[[Job], Result]:
    """Measure the feeder, whose batches nobody uses."""
    return lambda job: _measured(job, feeder, lambda images, labels: None)


def _step(job: Job) -> Callable[[Any, Any], None]:
    import torch

    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    device = torch.device(job["device"])
    model = MODELS[job["model"]](torch.nn, job["width"]).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step(images: Any, labels: Any) -> None:
        pixels = images.to(torch.float32).div_(127.5).sub_(1)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _measured(job: Job, feeder: Batches, step: Callable[[Any, Any], None]) -> Result:
    import torch

    def wait() -> None:
        if job["device"] != "cpu":
            torch.cuda.synchronize()

    batches = feeder(job)

    def work(seconds: float) -> int:
        images, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            some, labels = next(batches)
            wanted = (job["batch_size"], 3, job["size"], job["size"])
            if tuple(some.shape) != wanted or some.dtype != torch.uint8 or len(labels) != wanted[0]:
                raise SystemExit(f"a batch of {some.dtype} {tuple(some.shape)}, wanted uint8 {wanted}")
            step(some, labels)
            images += len(labels)
        wait()
        return images

    work(WARM_UP * job["seconds"])
    result = clocked(lambda: work(job["seconds"]))
    return result | {"rate": result["images"] / result["seconds"]}


def on_cores(measure: Callable[[Job], Result]) -> Callable[[Job], Result]:
    """Measure on the job's cores alone: before anything is imported that counts them."""

    def run(job: Job) -> Result:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
        return measure(job)

    return run


DEVICE, LOADER = "device", "headrace, no step"
ARMS = {
    DEVICE: Arm(what="one batch held on the device", measure=trained(on_the_device), needs=("torch",)),
    "headrace": Arm(what="shards; loader.to_torch(device=...)", measure=on_cores(trained(headrace)), needs=("torch",)),
    LOADER: Arm(what="the same without training", measure=on_cores(alone(headrace)), needs=("torch",)),
    "tf.data": Arm(
        what="the same shards, all AUTOTUNE", measure=on_cores(trained(tf_data)), needs=("torch", "tensorflow")
    ),
    "torch DataLoader": Arm(
        what="files, cv2, a process per core, pinned", measure=on_cores(trained(torch_dataloader)), needs=("torch",)
    ),
    "DALI": Arm(
        what="files, decoded on the GPU (mixed)", measure=on_cores(trained(dali)), needs=("torch", "nvidia.dali")
    ),
}


def left_out() -> dict[str, str]:
    """Why an arm can't be measured here; DALI's parent package may be missing as well."""
    try:
        return skipped(ARMS)
    except ModuleNotFoundError:
        here = {name: arm for name, arm in ARMS.items() if name != "DALI"}
        return skipped(here) | {"DALI": "nvidia.dali not installed; pip install nvidia-dali-cuda120"}


def draw(folder: Path, n: int) -> None:
    """`n` JPEGs of 96 x 96 pixels."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for i in range(n):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{i:04d}.jpg"), image)


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of JPEG files; with --smoke, drawn where it is left out")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--models", default=",".join(MODELS), help="any of resnet50, mobilenet_v2")
    parser.add_argument("--cores", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=10.0, help="of steps per measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="the first N images of FOLDER")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true", help="networks of an eighth, on the CPU, half a second each")
    args = parser.parse_args()
    models = args.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"--models has {', '.join(unknown)}, wanted any of {', '.join(MODELS)}")
    report = facts("gpu")
    report["skipped"] = left_out()
    if DEVICE in report["skipped"]:
        raise SystemExit(f"nothing can be measured: {report['skipped'][DEVICE]}")
    import torch

    device, width = "cuda", 64
    if args.smoke:
        device, width = "cpu", 8
        args.size, args.batch_size, args.seconds, args.repeats, args.images = 64, 8, 0.5, 1, 64
    elif args.folder is None:
        parser.error("FOLDER is missing, wanted a folder of JPEG files")
    elif not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no CUDA device here; --smoke runs the same in little on the CPU")
    else:
        report["machine"]["gpu"] = torch.cuda.get_device_name()
    there = len(os.sched_getaffinity(0))
    report["skipped"] |= {f"{n} cores": f"there are {there}" for n in args.cores if n > there}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        folder = args.folder or Path(scratch, "drawn")
        if args.folder is None:
            folder.mkdir()
            draw(folder, args.images)
        files = list(islice(jpegs(folder), args.images))
        if len(files) < args.batch_size:
            parser.error(f"{folder}: holds {len(files)} JPEG files, wanted a batch of {args.batch_size} at least")
        packed = Path(scratch, "packed")
        pack(files, packed)
        warm_page_cache([*files, *packed.glob("*.tfrecord")])
        fixed: Job = {
            "packed": str(packed),
            "files": [str(path) for path in files],
            "size": args.size,
            "batch_size": args.batch_size,
            "seconds": args.seconds,
            "device": device,
            "width": width,
        }
        shown = ("size", "batch_size", "seconds", "device")
        report["job"] = {name: fixed[name] for name in shown} | {"images": len(files), "repeats": args.repeats}
        report["rates"] = measured(
            fixed, models, [n for n in args.cores if n <= there], report["skipped"], args.repeats
        )
    publish(report, table(report["rates"]), args.json)


def pack(files: list[Path], out: Path) -> None:
    """Raises SystemExit: some can't be packed, and the arms would not read the same."""
    import headrace as hr

    records = (hr.Record(id=str(i), path=str(path), label_name=str(i % CLASSES)) for i, path in enumerate(files))
    made = hr.pack(records, out, shards=16, progress=False)
    if made.stored != len(files):
        raise SystemExit(f"{len(files) - made.stored} of {len(files)} files can't be packed; choose others")


def measured(
    fixed: Job, models: list[str], cores: list[int], without: dict[str, str], repeats: int
) -> list[dict[str, Any]]:
    """Rates by network, number of cores and arm; the device's own on all cores, as the CPU only tells it what to do."""
    arms = [arm for arm in ARMS if arm not in without]
    rows = []
    for model in models:
        for n in [None, *cores]:
            some = [DEVICE] if n is None else [arm for arm in arms if arm != DEVICE]
            of: dict[str, list[Result]] = {arm: [] for arm in some}
            for k in range(repeats):
                first = k % len(some)
                for arm in [*some[first:], *some[:first]]:
                    of[arm].append(in_child(arm, fixed | {"model": model, "cores": n}))
            rows += [{"model": model, "cores": n, "arm": arm, "measurements": found} for arm, found in of.items()]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    def rate(row: dict[str, Any]) -> float:
        return median(one["rate"] for one in row["measurements"])

    own = {row["model"]: rate(row) for row in rows if row["arm"] == DEVICE}
    header = ("network", "cores", "arm", "images/s", "lowest - highest", "of the device's rate", "others' cores")
    lines = []
    for row in rows:
        rates = [one["rate"] for one in row["measurements"]]
        others = max(one["others"] for one in row["measurements"])
        lines.append(
            (
                row["model"],
                "all" if row["cores"] is None else str(row["cores"]),
                row["arm"],
                f"{rate(row):.0f}",
                f"{min(rates):.0f} - {max(rates):.0f}",
                f"{rate(row) / own[row['model']]:.2f}",
                f"{others:.2f}",
            )
        )
    return markdown(header, lines)


if __name__ == "__main__" and not child(ARMS):
    main()
