"""What a JaxFeed delivers on four devices, as one JSON object that test_feed_jax judges; or one process of two.

run_jax_feed.py DATASET            with 4 virtual devices
run_jax_feed.py DATASET PORT RANK  with 2 of them, and 2 in the other process
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import headrace as hr


def sharding(*spec: Any, shape: tuple[int, ...] = (4,), names: tuple[str, ...] = ("batch",)) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()).reshape(shape), names), PartitionSpec(*spec))


def numbers(array: Any) -> list[int]:
    """The records of a batch, by their pixels."""
    return [int(image.max()) for image in np.asarray(array)]


def refused(call: Any) -> str:
    try:
        call()
    except hr.UsageError as error:
        return str(error)
    return ""


def alone(ds: hr.Dataset) -> dict[str, Any]:
    out: dict[str, Any] = {"devices": len(jax.devices())}
    over = sharding("batch")

    feed = ds.loader(batch_size=8, shuffle=True, drop_last=True).to_jax(over)
    step = jax.jit(lambda images, targets: images.astype("float32").mean((1, 2, 3)) + 1000 * targets)
    seen = []
    for images, targets in feed:
        where = [[d.id, numbers(s.data)] for d, s in zip(jax.devices(), images.addressable_shards, strict=True)]
        seen.append([numbers(images), where, targets.tolist(), np.asarray(step(images, targets)).tolist()])
    out["sharded"] = [seen, [list(map(int, b.ids)) for b in ds.loader(batch_size=8, shuffle=True, drop_last=True)]]

    square = sharding("batch", None, "wide", shape=(2, 2), names=("batch", "wide"))
    images, targets = next(iter(ds.loader(batch_size=6, shuffle=True, drop_last=True).to_jax(square)))
    out["square"] = [
        [list(s.data.shape) for s in images.addressable_shards],
        [list(s.data.shape) for s in targets.addressable_shards],
    ]
    third = jax.sharding.SingleDeviceSharding(jax.devices()[2])
    out["one"] = [[d.id for d in images.devices()] for images, _ in ds.loader(batch_size=7).to_jax(third)]

    def to_jax(over: Any = over, **options: Any) -> Any:
        return lambda: ds.loader(**options).to_jax(over)

    out["refused"] = {
        "size": refused(to_jax(batch_size=6)),
        "small": refused(to_jax(batch_size=2, drop_last=True)),
        "tail": refused(to_jax(batch_size=8)),
        "skip": refused(to_jax(batch_size=8, drop_last=True, on_bad="skip")),
        "axis": refused(to_jax(sharding("batch", "wide", shape=(1, 4), names=("batch", "wide")), batch_size=4, size=6)),
        "none": refused(to_jax("cpu", batch_size=4)),
        "fits": refused(to_jax(batch_size=4, drop_last=True)),
    }
    return out


def together(ds: hr.Dataset, port: str, rank: int) -> dict[str, Any]:
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=rank)
    over = sharding("batch")
    loader = ds.loader(batch_size=8, shuffle=True, drop_last=True, world="auto")
    seen, sums = [], []
    for images, targets in loader.to_jax(over):
        seen.append([list(images.shape), [k for s in images.addressable_shards for k in numbers(s.data)]])
        sums.append(
            float(jax.jit(lambda x, y: x.astype("float32").mean((1, 2, 3)).sum() + 0 * y.sum())(images, targets))
        )
    plain = ds.loader(batch_size=8, shuffle=True, drop_last=True)
    return {
        "world": list(loader.world),
        "seen": seen,
        "sums": sums,
        "alone": refused(lambda: plain.to_jax(over)),
        "copies": refused(lambda: loader.to_jax(sharding())),
    }


if __name__ == "__main__":
    opened = hr.Dataset(Path(sys.argv[1]))
    found = together(opened, sys.argv[2], int(sys.argv[3])) if len(sys.argv) > 2 else alone(opened)
    print("RESULT", json.dumps(found), flush=True)
