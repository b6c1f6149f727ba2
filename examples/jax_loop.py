"""A loop of plain JAX on all devices that goes on where it was stopped: python examples/jax_loop.py DATASET [EPOCHS]

DATASET is a folder that `headrace pack` made, of photos with a class. Each batch is divided among the devices. loop.npz
is written every 20 batches and at the end of each epoch.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import headrace as hr

SAVED = Path("loop.npz")


def loss_of(weights: dict, images: jax.Array, labels: jax.Array) -> jax.Array:
    x = images.astype(jnp.float32) / 255
    x = x.reshape(len(x), 8, 12, 8, 12, -1).mean((2, 4)).reshape(len(x), -1)  # 8 x 8 mean colours
    x = jax.nn.relu(x @ weights["hidden"])
    return -jnp.take_along_axis(jax.nn.log_softmax(x @ weights["out"]), labels[:, None], 1).mean()


@jax.jit
def step(weights: dict, images: jax.Array, labels: jax.Array) -> tuple[dict, jax.Array]:
    loss, gradients = jax.value_and_grad(loss_of)(weights, images, labels)
    return jax.tree.map(lambda weight, gradient: weight - 0.1 * gradient, weights, gradients), loss


def main(path: str, epochs: int = 3) -> None:
    ds = hr.Dataset(path)
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    loader = ds.loader(batch_size=8 * len(jax.devices()), size=96, shuffle=True, drop_last=True)
    feed = loader.to_jax(NamedSharding(mesh, PartitionSpec("batch")))

    rng, there = np.random.default_rng(0), NamedSharding(mesh, PartitionSpec())
    shapes = {"hidden": (64 * ds.channels, 32), "out": (32, len(ds.class_names))}
    weights = {name: rng.normal(0, 0.1, shape) for name, shape in shapes.items()}
    if SAVED.exists():
        saved = np.load(SAVED)
        weights = {name: saved[name] for name in weights}
        feed.load_state_dict(json.loads(str(saved["feed"])))
    weights = {name: jax.device_put(np.float32(part), there) for name, part in weights.items()}

    while (epoch := feed.epoch) < epochs:
        for i, (images, labels) in enumerate(feed, 1):
            weights, loss = step(weights, images, labels)
            if i % 20 == 0 or feed.epoch > epoch:
                np.savez(SAVED.with_suffix(".new.npz"), **weights, feed=json.dumps(feed.state_dict()))
                SAVED.with_suffix(".new.npz").replace(SAVED)
        print(f"epoch {epoch}: loss {loss:.4f}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
