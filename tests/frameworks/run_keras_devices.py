"""What models see of a KerasFeed that has weights, names or several devices, on the backend of KERAS_BACKEND, as one
JSON object that test_keras_devices judges. With TensorFlow it makes two devices; with JAX there are four.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from run_keras_feed import Nothing, fit, ids, model
from run_keras_resume import Broken, Steps, refused

import headrace as hr
import headrace.feeds.keras as keras_feed
from packed import CLASSES, pack, shades

BACKEND = keras.backend.backend()
N = 19
WEIGHTS = {"ant": 3.0, "cow": 0.5}


@cache  # the operations of two of them in one process take each other for their own
def strategy() -> Any:
    """TensorFlow's for two devices."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def planned(loader: hr.Loader, epochs: int) -> list[list[list[int]]]:
    out = []
    for epoch in range(epochs):
        loader.epoch = epoch
        out.append([sorted(batch) for batch in ids(loader)])
    loader.epoch = 0
    return out


class Mean(keras.layers.Layer):
    """The mean of the pixels, in steps of 1/256, [b, 1]."""

    def call(self, x: Any) -> Any:
        return keras.ops.expand_dims(keras.ops.mean(keras.ops.cast(x, "float32"), axis=(1, 2, 3)) / 256, -1)


def network(outputs: int, loss: str, *, names: tuple[str, str] | None = None) -> Any:
    """Compiled, with weights that are always the same."""
    inputs = keras.Input((8, 8, 3), name=names[0] if names else None)
    found = keras.layers.Dense(outputs, kernel_initializer="ones", activation="sigmoid")(Mean()(inputs))
    made = keras.Model({names[0]: inputs}, {names[1]: found}) if names else keras.Model(inputs, found)
    made.compile(keras.optimizers.SGD(0.0), {names[1]: loss} if names else loss, jit_compile=BACKEND == "jax")
    return made


def loss_of(made: Any, feed: Any, **options: Any) -> float:
    return float(made.fit(feed, verbose=0, **options).history["loss"][0])


def weighted(ds: hr.Dataset) -> dict[str, Any]:
    """The loss under weights, and as it is by hand: sum(weight * loss) / n of each batch."""
    by_index = {CLASSES.index(name): weight for name, weight in WEIGHTS.items()}
    out: dict[str, Any] = {}
    for name, target, outputs, loss in (
        ("class", hr.Class(), 3, "sparse_categorical_crossentropy"),
        ("one-hot", hr.Class(one_hot=True), 3, "categorical_crossentropy"),
    ):

        def loader(target: Any = target) -> hr.Loader:
            return ds.loader(batch_size=N, target=target)

        made = network(outputs, loss)
        images, y = loader().to_keras()[0]
        each = np.asarray(keras.ops.convert_to_numpy(getattr(keras.losses, loss)(y, made.predict(images, verbose=0))))
        labels = y if y.ndim == 1 else y.argmax(-1)
        weights = np.array([by_index.get(int(label), 1.0) for label in labels])
        out[name] = {
            "dtype": [y.dtype.name, list(y.shape)],
            "by hand": float((weights * each).sum() / N),
            "class_weight": loss_of(made, loader().to_keras(), class_weight=by_index),
            "sample_weight": loss_of(made, loader().to_keras(sample_weight=WEIGHTS)),
            "plain": [loss_of(made, loader().to_keras()), float(each.mean())],
        }
    values = network(1, "mse")
    value = ds.loader(batch_size=N, target=Seconds()).to_keras()
    out["float"] = [
        loss_of(values, value, class_weight={1: 2.0}),
        loss_of(values, ds.loader(batch_size=N, target=Seconds()).to_keras(sample_weight={"bee": 2.0})),
    ]
    x, y, w = ds.loader(batch_size=4, seed=2).to_keras(sample_weight=WEIGHTS)[1]
    out["batch"] = [w.dtype.name, w.tolist(), [WEIGHTS.get(CLASSES[k % 3], 1.0) for k in x.max((1, 2, 3)).tolist()]]
    return out


class Seconds(hr.Target):
    """The class as a float."""

    wants_boxes = wants_keypoints = False

    def check(self, facts: Any) -> None:
        pass

    def encode(self, labels: hr.Labels) -> Any:
        return labels.classes.astype(np.float32)


class Two(Seconds):
    def encode(self, labels: hr.Labels) -> Any:
        return {"half": labels.classes[:, None] / 2, "double": labels.classes[:, None] * 2.0}


def named(ds: hr.Dataset) -> dict[str, Any]:
    feed = ds.loader(batch_size=4, target=Seconds()).to_keras(inputs="photo", outputs="score", sample_weight="balanced")
    x, y, w = feed[0]
    made = network(1, "mse", names=("photo", "score"))
    loss = loss_of(made, feed)
    predicted = made.predict(ds.loader(batch_size=4, target=Nothing()).to_keras(inputs="photo"), verbose=0)
    both = ds.loader(batch_size=N, target=Two()).to_keras(inputs="photo", sample_weight=WEIGHTS)
    inputs = keras.Input((8, 8, 3), name="photo")
    mean = Mean()(inputs)
    heads = keras.Model(
        {"photo": inputs}, {name: keras.layers.Dense(1, name=name)(mean) for name in ("half", "double")}
    )
    heads.compile("sgd", {"half": "mse", "double": "mse"})
    return {
        "batch": [list(x), list(y), list(x["photo"].shape), list(y["score"].shape), len(w)],
        "loss": loss,
        "predict": list(predicted["score"].shape),
        "heads": sorted(heads.fit(both, verbose=0).history),
        "refused": [
            refused(lambda: ds.loader(batch_size=4, target=Two()).to_keras(outputs="score")[0]),
            refused(lambda: ds.loader(batch_size=4).to_keras(inputs="")),
            refused(lambda: ds.loader(batch_size=4).to_keras(sample_weight={"dog": 2.0})),
            refused(lambda: ds.loader(batch_size=4, mix=hr.MixUp()).to_keras(sample_weight=WEIGHTS)),
            refused(lambda: ds.loader(batch_size=N + 1, drop_last=True).to_keras()),
        ],
    }


def devices(ds: hr.Dataset, folder: Path) -> dict[str, Any]:
    """fit on all of them, from the beginning and from each batch of an epoch on, and after a breaking off."""
    out: dict[str, Any] = {}
    options: dict[str, Any] = {"batch_size": 4, "seed": 3, "shuffle": True, "drop_last": BACKEND == "jax"}
    if BACKEND == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        out["refused"] = [
            refused(lambda: ds.loader(batch_size=6).to_keras()),
            refused(lambda: ds.loader(batch_size=4).to_keras()),
        ]

    def built() -> Any:
        if BACKEND != "tensorflow":
            return model()
        with strategy().scope():
            return model()

    made = built()
    loader = ds.loader(**options)
    due = planned(loader, 5)
    out["whole"] = [fit(loader.to_keras(), made=made, epochs=3).epochs, due[:3], loader.state_dict()["epoch"]]
    few = ds.loader(**options | {"batch_size": 8})
    out["few"] = [planned(few, 3), fit(few.to_keras(), made=made, epochs=3).epochs, few.epoch]
    out["resumed"] = []
    for batch in (1, 3):
        loader.load_state_dict(loader.state_dict() | {"epoch": 0, "batch": batch})
        epochs = fit(loader.to_keras(), made=made, epochs=2).epochs
        out["resumed"].append([batch, epochs, [due[0][batch:], due[1]], loader.epoch])
    loader = ds.loader(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = fit(loader.to_keras(), made=made, epochs=6, steps_per_epoch=2)
    out["in steps"] = [[b for epoch in log.epochs for b in epoch], [b for epoch in due for b in epoch]]
    predict = ds.loader(**options | {"shuffle": False}, target=Nothing())
    predicted = made.predict(predict.to_keras(), verbose=0)[:, 0].round().astype(int).tolist()
    out["predict"] = [predicted, [k for batch in ids(predict) for k in batch]]

    losses: list[dict[int, float]] = []
    for name, *points in (("straight", None), ("cut", 6, None)):
        for at in points:
            feed, steps = ds.loader(**options).to_keras(), Steps(at)
            try:
                resume = hr.Resume(folder / f"{name}.npz", feed, every=1)
                history = learning().fit(feed, epochs=2, verbose=0, callbacks=[steps, resume]).history
            except Broken:
                history = None
            losses.append(steps.losses)
            out[f"resume {name}"] = history
    out["losses"] = losses
    return out


def learning() -> Any:
    """A model that learns, from weights that are always the same."""
    keras.utils.set_random_seed(1)
    with strategy().scope() if BACKEND == "tensorflow" else nullcontext():
        made = keras.Sequential([keras.Input((8, 8, 3)), Mean(), keras.layers.Dense(3)])
        made.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def unknown(ds: hr.Dataset) -> list[str]:
    """A Keras that asks in another way: by a function of its own that is no generator."""
    feed = ds.loader(batch_size=4).to_keras()
    namespace: dict[str, Any] = {"__name__": "keras.src.trainers.to_come"}
    exec("def ask(feed): return feed[0]\ndef begin(feed): feed.on_epoch_begin()", namespace)
    return [refused(partial(namespace[name], feed))[1] for name in ("ask", "begin")]


def versions() -> list[Any]:
    """What is said of Keras's versions: (version, what is logged, what is raised)."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("headrace").addHandler(handler)
    out = []
    for version in ("3.12.1", "3.15.0", "3.16.0", "3.11.3", "4.0.0.dev1", "2.15.0"):
        said.clear()
        raised = refused(partial(keras_feed._check_version, version))
        out.append([version, list(said), raised])
    return out


if __name__ == "__main__":
    warnings.filterwarnings("error", message=".*ran out of data.*")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    folder = Path(sys.argv[1])
    ds = pack(shades(N), folder / "ds", shards=2)
    out = {"backend": keras.backend.backend(), "weights": weighted(ds), "names": named(ds), "unknown": unknown(ds)}
    out["versions"] = versions()
    if BACKEND != "torch":
        out["devices"] = devices(ds, folder)
    print("RESULT", json.dumps(out), flush=True)
    os._exit(0)  # see run_keras_feed
