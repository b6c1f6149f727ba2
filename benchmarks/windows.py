"""What order="windows" costs: accuracy beside the full shuffle, of records that were shuffled when they were packed and
of records that lie by class, as adopted ones may; and time per batch at ten million records.

    python benchmarks/windows.py --json FILE [--seeds 0,1,2] [--epochs 6]

10,000 drawn pictures of 24 x 24 in ten classes (gratings of ten directions, faint in noise), 8,000 to learn from: 40
blocks of 200, so that windows of 16 blocks are 2.5 of an epoch, and of 4 blocks ten. A small network of PyTorch, two
convolutions, Adam, batches of 32; the same first weights per seed in all arms. They come as arrays, which a Dataset
leaves in their order: shuffled as packing shuffles, or sorted by class. A fresh process per run, each on one thread.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import headrace as hr
from _measure import Arm, Job, Result, by_seed, child, facts, in_child, publish, stopwatch
from headrace import order
from headrace.load.windows import unevenness
from headrace.order import Windows

CLASSES, TRAIN, TEST, SIDE, BLOCK = 10, 8000, 2000, 24, 200
MILLIONS = 10_000_000


def pictures(n: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint8 [n, side, side] and classes [n]."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % CLASSES)
    angle, phase = labels * np.pi / CLASSES, rng.uniform(0, 2 * np.pi, n)
    y, x = np.mgrid[:SIDE, :SIDE]
    along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    wave = 14 * np.sin(along * rng.uniform(0.7, 1.1, n)[:, None, None] + phase[:, None, None])
    return np.clip(128 + wave + rng.normal(0, 40, wave.shape), 0, 255).astype(np.uint8), labels


def learn(by_class: bool, group: int | None, job: Job) -> Result:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    x, y = pictures(TRAIN, 1000 + job["seed"])
    walk = np.argsort(y, kind="stable") if by_class else np.arange(TRAIN)
    dataset = hr.ArrayDataset(x[walk], y[walk])
    loader = dataset.loader(batch_size=32, seed=job["seed"], order="full" if group is None else "windows", workers=1)
    if group is not None:
        loader.windows = Windows(BLOCK, group)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 6 * 6, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    spread = []

    def train() -> None:
        for _ in range(job["epochs"]):
            for batch in loader:
                spread.append(np.bincount(batch.targets, minlength=CLASSES).std() / 32)
                optimizer.zero_grad()
                said = model(torch.from_numpy(batch.images).permute(0, 3, 1, 2) / 128 - 1)
                nn.functional.cross_entropy(said, torch.from_numpy(batch.targets)).backward()
                optimizer.step()

    seconds, _ = stopwatch(train)
    images, truth = pictures(TEST, 2000 + job["seed"])
    with torch.no_grad():
        said = model(torch.from_numpy(images)[:, None] / 128 - 1).argmax(1).numpy()
    return {
        "seed": job["seed"],
        "accuracy": float((said == truth).mean()),
        "spread": float(mean(spread)),
        "unevenness": unevenness(dataset.store, dataset.rows, Windows(BLOCK, group)) if group else 1.0,
        "seconds": round(seconds, 1),
    }


def price(windows: Windows | None, _: Job) -> Result:
    """Microseconds of a batch of 32, of 20,000 in a row in the middle of an epoch."""

    def batches() -> None:
        for i in range(20_000):
            start = MILLIONS // 2 + 32 * i
            order.shuffled(start, start + 32, n=MILLIONS, seed=0, epoch=0, windows=windows)

    order.shuffled(0, 32, n=MILLIONS, seed=0, epoch=0, windows=windows)
    return {"us_per_batch": round(stopwatch(batches)[0] / 20_000 * 1e6, 1)}


ARMS = {
    f"{name}, {what}": Arm(what=f"{name}, {what}", measure=partial(learn, by_class, group))
    for what, by_class in (("packed", False), ("by class", True))
    for name, group in (("full", None), ("windows of 16", 16), ("windows of 4", 4))
}
PRICES = {
    "full": Arm(what="full", measure=partial(price, None)),
    "windows of 16 x 80": Arm(what="records of 100 kB", measure=partial(price, Windows(80, 16))),
    "windows of 16 x 8000": Arm(what="records of 1 kB", measure=partial(price, Windows(8000, 16))),
    "windows of 16 x 1": Arm(what="records of 8 MB", measure=partial(price, Windows(1, 16))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    job = {"epochs": given.epochs, "train": TRAIN, "test": TEST, "block": BLOCK}
    runs = []
    for seed in (int(seed) for seed in given.seeds.split(",")):
        for arm in ARMS:
            runs.append({"arm": arm} | in_child(arm, job | {"seed": seed}))
            print(runs[-1], flush=True)
    prices = {arm: in_child(arm, job) for arm in PRICES}
    told = by_seed(ARMS, runs, "accuracy", {"mean": "accuracy", "spread": "spread", "unevenness": "unevenness"})
    lines = [
        f"{arm}: {found['us_per_batch']} us per batch of 32 at {MILLIONS} records" for arm, found in prices.items()
    ]
    publish(facts("windows") | {"job": job, "runs": runs, "prices": prices}, "\n".join([told, "", *lines]), given.json)


if __name__ == "__main__" and not child(ARMS | PRICES):
    main()
