"""Images/s of shuffled batches with transforms: torchvision's and Albumentations' in our loader and torch's, and ours.

    python benchmarks/transforms.py FOLDER [--size 224] [--batch-size 32] [--images N] [--repeats 5] [--json FILE]

FOLDER holds JPEG files. Each of three policies runs in our loader, through its adapter, with as many threads as there
are cores, and in a torch DataLoader over the files with as many persistent worker processes, which decodes and resizes
with cv2 before: the same transform of the same library, on images of one size. "no transform" is what both do without
one. Our own RandAugment (n=2, magnitude 9) stands beside torchvision's of the same strength. Page cache warm; a process
per measurement, the arms in rotating turns; whole epochs for about three seconds. "CPU ms / image" is what all threads
and processes of an arm used, which tells of the work where others use the machine too.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
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
    jpegs,
    markdown,
    publish,
    rounds,
    row,
    skipped,
    summarise,
    warm_page_cache,
)

SECONDS = 3.0  # of work per measurement, at least one epoch
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


def geometric(lib: Any, size: int) -> Any:
    """torchvision: an affine move, colours and a flip."""
    return lib.Compose(
        [
            lib.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)),
            lib.ColorJitter(0.2, 0.2),
            lib.RandomHorizontalFlip(),
        ]
    )


def randaugment(lib: Any, size: int) -> Any:
    return lib.RandAugment(num_ops=2, magnitude=9)


def album(lib: Any, size: int) -> Any:
    """Albumentations: the same of its own."""
    return lib.Compose(
        [
            lib.Affine(rotate=(-10, 10), translate_percent=(-0.1, 0.1), scale=(0.9, 1.1), p=1),
            lib.RandomBrightnessContrast(0.2, 0.2, p=1),
            lib.HorizontalFlip(),
        ]
    )


def _v2() -> Any:
    """torchvision.transforms.v2, also where its compiled operators, which transforms need none of, can't be loaded."""
    import importlib

    import torch

    try:
        return importlib.import_module("torchvision.transforms.v2")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _declared.append(library := torch.library.Library("torchvision", "DEF"))
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.transforms.v2")


_declared: list[Any] = []


def _albumentations() -> Any:
    import albumentations

    return albumentations


Policy = tuple[Callable[[], Any], Callable[[Any, int], Any]]
POLICIES: dict[str, Policy] = {
    "torchvision": (_v2, geometric),
    "RandAugment": (_v2, randaugment),
    "Albumentations": (_albumentations, album),
}


def ours(augment: Callable[[Job], Any]) -> Callable[[Job], Result]:
    """Measure our loader with these augmentations."""

    def measure(job: Job) -> Result:
        import headrace as hr

        loader = hr.Dataset(job["packed"]).loader(
            batch_size=job["batch_size"], size=job["size"], shuffle=True, augment=augment(job)
        )
        return timed(job, lambda: sum(len(batch.images) for batch in loader))

    return measure


def adapted(policy: str) -> Callable[[Job], Any]:
    def augment(job: Job) -> Any:
        import headrace as hr

        library, make = POLICIES[policy]
        adapt = hr.augment.albumentations if policy == "Albumentations" else hr.augment.torchvision
        return adapt(make(library(), job["size"]))

    return augment


def own_affine(job: Job) -> Any:
    import headrace as hr

    return hr.Affine(degrees=10, translate=0.1, scale=(0.9, 1.1)), hr.ColorJitter(), hr.HorizontalFlip()


def own_randaugment(job: Job) -> Any:
    import headrace as hr

    return hr.RandAugment(n=2, magnitude=9)


def theirs(policy: str | None) -> Callable[[Job], Result]:
    """Measure a DataLoader of torch over the files."""

    def measure(job: Job) -> Result:
        import cv2
        import numpy as np
        import torch

        transform: Callable[[Any], Any] = torch.from_numpy
        if policy is not None:
            library, make = POLICIES[policy]
            made = make(library(), job["size"])
            if policy == "Albumentations":
                transform = lambda image: torch.from_numpy(made(image=image)["image"])  # noqa: E731
            else:
                transform = lambda image: made(torch.from_numpy(image).permute(2, 0, 1))  # noqa: E731

        class Files(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return len(job["files"])

            def __getitem__(self, i: int) -> Any:
                image = cv2.cvtColor(cv2.imread(job["files"][i]), cv2.COLOR_BGR2RGB)
                return transform(np.ascontiguousarray(cv2.resize(image, (job["size"], job["size"]))))

        loader = torch.utils.data.DataLoader(
            Files(),
            batch_size=job["batch_size"],
            shuffle=True,
            num_workers=cores(),
            persistent_workers=True,
            worker_init_fn=lambda _: cv2.setNumThreads(0),
            multiprocessing_context="fork",
        )
        return timed(job, lambda: sum(len(batch) for batch in loader))

    return measure


def timed(job: Job, epoch: Callable[[], int]) -> Result:
    """An epoch to warm up, one to learn its length, then about SECONDS on the clock."""
    epoch()
    epochs = math.ceil(SECONDS / clocked(epoch)["seconds"])
    before = _cpu_seconds()
    result = clocked(lambda: sum(epoch() for _ in range(epochs)))
    result["cpu_ms"] = 1000 * (_cpu_seconds() - before) / max(1, result["images"])
    if result["images"] != epochs * job["images"]:
        raise SystemExit(f"{result['images']} images in {epochs} epochs, wanted {epochs} x {job['images']}")
    return result | {"epochs": epochs}


def _cpu_seconds() -> float:
    """That this process and its workers have used."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True)))


VISION, ALBUM = ("torch", "torchvision"), ("torch", "albumentations")
ARMS = {
    "headrace": Arm(what="no transform", measure=ours(lambda job: ())),
    "torch DataLoader": Arm(what="no transform", measure=theirs(None), needs=("torch",)),
    "headrace, torchvision": Arm(what="affine, jitter, flip of v2", measure=ours(adapted("torchvision")), needs=VISION),
    "torch, torchvision": Arm(what="affine, jitter, flip of v2", measure=theirs("torchvision"), needs=VISION),
    "headrace, Albumentations": Arm(
        what="affine, brightness, flip of A", measure=ours(adapted("Albumentations")), needs=ALBUM
    ),
    "torch, Albumentations": Arm(what="affine, brightness, flip of A", measure=theirs("Albumentations"), needs=ALBUM),
    "headrace's own": Arm(what="Affine, ColorJitter, HorizontalFlip", measure=ours(own_affine)),
    "headrace, v2.RandAugment": Arm(what="RandAugment(2, 9) of v2", measure=ours(adapted("RandAugment")), needs=VISION),
    "torch, v2.RandAugment": Arm(what="RandAugment(2, 9) of v2", measure=theirs("RandAugment"), needs=VISION),
    "headrace's RandAugment": Arm(what="hr.RandAugment(n=2, magnitude=9)", measure=ours(own_randaugment)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000, help="the first N images of FOLDER")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import headrace as hr

    report = facts("transforms")
    left_out = skipped(ARMS)
    files = list(islice(jpegs(args.folder), args.images))
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed"
        hr.pack(
            [hr.Record(id=str(i), path=str(path), label_name="photo") for i, path in enumerate(files)],
            packed,
            shards=8,
            progress=False,
        )
        stored = len(hr.Dataset(packed))
        warm_page_cache([*files, *packed.glob("*.tfrecord")])
        job: Job = {
            "packed": str(packed),
            "files": [str(path) for path in files],
            "images": stored,
            "size": args.size,
            "batch_size": args.batch_size,
        }
        if stored != len(files):
            raise SystemExit(f"{len(files) - stored} of {len(files)} files can't be packed; choose others")
        report["job"] = {name: job[name] for name in ("images", "size", "batch_size")} | {"repeats": args.repeats}
        report["skipped"] = left_out
        arms = [arm for arm in ARMS if arm not in left_out]
        report["arms"] = summarise(ARMS, rounds(arms, job, args.repeats))
    rows = []
    for arm, of_arm in report["arms"].items():
        cpu = median(measured["cpu_ms"] for measured in of_arm["measurements"])
        rows.append((*row(arm, of_arm), f"{cpu:.2f}", of_arm["what"]))
    publish(report, markdown((*HEADER, "CPU ms / image", "transform"), rows), args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
