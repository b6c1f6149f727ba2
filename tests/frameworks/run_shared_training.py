"""Trains on one device and on several virtual ones of the processor, on KERAS_BACKEND; prints one JSON object.

python run_shared_training.py DATASET FOLDER COUNT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import UsageError
from headrace.learn.backend import keras
from headrace.learn.recipe import Options
from headrace.learn.run import Run
from headrace.learn.train import train

dataset, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if os.environ["KERAS_BACKEND"] == "tensorflow":  # JAX is told by XLA_FLAGS
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)])

told: dict[str, Any] = {"errors": []}


def build(input_shape: tuple[int, ...], classes: int) -> Any:
    pixels = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    x = keras.layers.Flatten()(x)
    return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(x))


# 45 images: five batches of 8, and one of 5, which no two devices share evenly.
options = Options(epochs=2, batch_size=8, limit=45, checkpoint_seconds=0, seed=3, class_weights={"disc": 2.0})


def run(name: str, **settings: Any) -> list[dict[str, float]]:
    return list(train(dataset, out=folder / name, model=build, options=options, progress=False, **settings).history)


told["alone"] = run("alone")
told["shared"] = run("shared", devices="all")
told["steps"] = Run(folder / "shared").recipe.options.devices
run("fewer", devices="all", epochs=1)  # begun on all, and gone on with by one
told["fewer"] = run("fewer", devices=None, resume=True)
weights = [Run(folder / name, network=build).model.get_weights() for name in ("alone", "shared")]
told["apart"] = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(*weights, strict=True))
told["left"] = keras.distribution.distribution() is None
for settings in ({"devices": count + 1}, {"devices": (0, count)}, {"devices": count, "batch_size": 8 * count + 1}):
    try:
        run("refused", **settings)
    except UsageError as error:
        told["errors"].append(str(error))
try:
    train(dataset, out=folder / "refused", model=build((32, 32, 3), 2), options=options, devices=count)
except UsageError as error:
    told["errors"].append(str(error))
told["made"] = (folder / "refused").exists()
print(json.dumps(told))
