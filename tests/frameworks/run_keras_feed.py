"""What a model sees of a KerasFeed, on the backend of KERAS_BACKEND, as one JSON object. test_feed_keras judges it.

A record's number is in its pixels. The model's output is that number, and its metrics add up 4 to the power of it: so
what is counted is what reached the training step, not what the feed was asked for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import headrace as hr
from headrace.errors import DamageError, DataError, UsageError
from headrace.load.facts import Facts
from headrace.load.targets import Labels
from packed import flip, pack, shades, shard_of, threads, threads_left

N = 19
PER_METRIC = 10  # 20 bits: a float32 has 24


class Seen(keras.metrics.Metric):
    """Sum of 4 ** (number - first) over the records of this epoch with first <= number < first + 10."""

    def __init__(self, first: int) -> None:
        super().__init__(name=f"seen_{first}")
        self.first = first
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        k = keras.ops.round(y_pred) - self.first
        mine = keras.ops.logical_and(k >= 0, k < PER_METRIC)
        powers = keras.ops.power(4.0, keras.ops.where(mine, k, keras.ops.zeros_like(k)))
        self.total.assign(self.total + keras.ops.sum(keras.ops.where(mine, powers, keras.ops.zeros_like(k))))

    def result(self) -> Any:
        return keras.ops.convert_to_tensor(self.total)


def counts(logs: dict[str, Any], prefix: str = "") -> list[int]:
    """How often each record was seen since the epoch began."""
    out: list[int] = []
    for first in range(0, N, PER_METRIC):
        total = round(float(logs[f"{prefix}seen_{first}"]))
        out += [total // 4**k % 4 for k in range(min(PER_METRIC, N - first))]
    return out


class Log(keras.callbacks.Callback):
    """Per epoch the batches, each a list of record numbers; and what validation saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.epochs: list[list[list[int]]] = []
        self.validated: list[list[int]] = []
        self.stop_after = stop_after

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append([])
        self.before = [0] * N

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = counts(logs)
        self.epochs[-1].append([k for k in range(N) for _ in range(now[k] - self.before[k])])
        self.before = now
        if self.stop_after is not None and len(self.epochs[-1]) == self.stop_after:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if "val_seen_0" in (logs or {}):
            self.validated.append(counts(logs, "val_"))


class Number(keras.layers.Layer):
    """The mean of the pixels; and a weight, because there must be one to train."""

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def call(self, x: Any) -> Any:
        mean = keras.ops.mean(keras.ops.cast(x, "float32"), axis=(1, 2, 3))
        return keras.ops.expand_dims(mean, -1) + keras.ops.multiply(self.weight, 0.0)


def model() -> Any:
    inputs = keras.Input((8, 8, 3), name="image")
    made = keras.Model(inputs, Number()(inputs))
    made.compile(keras.optimizers.SGD(0.0), "mse", metrics=[Seen(first) for first in range(0, N, PER_METRIC)])
    return made


class Halves(hr.Target):
    """Targets for two heads."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> dict[str, Any]:
        return {"half": labels.classes[:, None] / 2, "double": labels.classes[:, None] * 2.0}


def fit(feed: Any, *, made: Any = None, log: Log | None = None, **options: Any) -> Log:
    log = log or Log()
    (made or model()).fit(feed, callbacks=[log], verbose=0, **options)
    return log


def due(ds: hr.Dataset, k: int) -> list[list[int]]:
    """The batches from number `k` of the first epoch on, for three epochs, as `Log` has them."""
    loader = ds.loader(batch_size=2, seed=4)
    return [sorted(int(id_) for id_ in batch.ids) for _ in range(3) for batch in loader][k:]


class States(Log):
    """And the loader's state at the end of each epoch: its epoch and batch, or None where it is refused."""

    def __init__(self, loader: hr.Loader) -> None:
        super().__init__()
        self.loader = loader
        self.states: list[Any] = []

    def take(self) -> None:
        try:
            state = self.loader.state_dict()
            self.states.append([state["epoch"], state["batch"]])
        except UsageError:
            self.states.append(None)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.take()


class ByHand(States):
    """A callback that looks at the feed wherever it is called, and takes states."""

    def __init__(self, feed: Any) -> None:
        super().__init__(feed.loader)
        self.feed = feed

    def look(self) -> None:
        for i in (3, 0):
            assert np.array_equal(self.feed[i][0], self.loader[i].images)
        assert len(self.feed) == self.feed.num_batches == 10

    def on_train_begin(self, logs: Any = None) -> None:
        self.look()
        self.take()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch, logs)
        self.look()
        self.take()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.look()
        super().on_epoch_end(epoch, logs)


def ids(loader: hr.Loader) -> list[list[int]]:
    """The batches of this epoch, by number."""
    return [[int(id_) for id_ in loader[i].ids] for i in range(len(loader))]


def main(folder: Path) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message=".*ran out of data.*")
    ds = pack(shades(N), folder / "ds", shards=2)
    out: dict[str, Any] = {"backend": keras.backend.backend()}

    out["grid"] = []
    for workers in (1, 3):
        for shuffle in (None, False):
            loader = ds.loader(batch_size=2, seed=1, workers=workers)
            planned = []
            for epoch in range(3):
                loader.epoch = epoch
                planned.append(ids(loader))
            loader.epoch = 0
            log = fit(loader.to_keras(), epochs=3, **({} if shuffle is None else {"shuffle": shuffle}))
            out["grid"].append([workers, shuffle, log.epochs, planned, loader.epoch])

    built = model()
    in_order = ds.loader(batch_size=4, shuffle=False)
    out["in order"] = [fit(in_order.to_keras(), made=built, epochs=2).epochs, ids(in_order)]

    feed = ds.loader(batch_size=2, seed=1).to_keras()
    out["two fits"] = [fit(feed, epochs=2).epochs, fit(feed, epochs=2).epochs, fit(feed, made=built).epochs]

    train, val = ds.divide({"train": 0.5, "val": 0.5})
    log = fit(
        train.loader(batch_size=2).to_keras(),
        validation_data=val.loader(batch_size=3, shuffle=False).to_keras(),
        epochs=3,
    )
    parts = [[int(id_) for id_ in part.catalog["id"]] for part in (train, val)]
    out["validation"] = [log.epochs, log.validated, parts]

    evaluated = built.evaluate(ds.loader(batch_size=2).to_keras(), verbose=0, return_dict=True)
    out["evaluate"] = counts(evaluated)
    plain = ds.loader(batch_size=4, shuffle=False, target=Nothing())
    predicted = built.predict(plain.to_keras(), verbose=0)
    out["predict"] = [predicted[:, 0].round().astype(int).tolist(), [k for batch in ids(plain) for k in batch]]

    feed = ds.loader(batch_size=4, shuffle=True, target=Nothing()).to_keras()
    out["ids"] = [[int(id_) for id_ in feed.ids]]
    for _ in range(2):
        predicted = built.predict(feed, verbose=0)
        out["ids"] += [predicted[:, 0].round().astype(int).tolist(), [int(id_) for id_ in feed.ids]]

    small = []
    for batch_size in (19, 10, 7):
        small.append(fit(ds.loader(batch_size=batch_size).to_keras(), epochs=3).epochs)
    out["small"] = small

    feed = ds.loader(batch_size=2, seed=3).to_keras()
    stopped = fit(feed, log=Log(stop_after=3), epochs=5).epochs
    out["stopped"] = [stopped, fit(feed, epochs=2).epochs]

    loader = ds.loader(batch_size=2, seed=4)
    with closing(iter(loader)) as run:
        next(run)
    out["after a break"] = [fit(loader.to_keras(), made=built, epochs=1).epochs, loader.epoch]

    out["resumed"] = []
    for k in range(10):
        loader = ds.loader(batch_size=2, seed=4, workers=2)
        loader.load_state_dict(loader.state_dict() | {"batch": k})
        log = fit(loader.to_keras(), made=built if k % 2 else model(), epochs=3 if k == 9 else 2)
        out["resumed"].append([k, log.epochs, due(ds, k), loader.state_dict()])
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "batch": 4})
    log = fit(loader.to_keras(), made=built, steps_per_epoch=4, epochs=4)
    out["resumed in steps"] = [log.epochs, due(ds, 4)]

    loader = ds.loader(batch_size=2, seed=4)
    feed = loader.to_keras()
    by_hand = ByHand(feed)
    fit(feed, log=by_hand, epochs=2)
    out["by hand"] = [by_hand.epochs, due(ds, 0), by_hand.states]
    states = States(loader)
    loader.epoch = 0
    fit(feed, made=built, log=states, steps_per_epoch=3, epochs=7)
    out["states in steps"] = [states.epochs, states.states]

    loader = ds.loader(batch_size=4, target=Halves())
    inputs = keras.Input((8, 8, 3))
    number = Number()(inputs)
    heads = keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(number) for name in ("half", "double")})
    heads.compile("sgd", {"half": "mse", "double": "mse"}, metrics={"half": ["mae"], "double": ["mae"]})
    history = heads.fit(loader.to_keras(), epochs=2, verbose=0).history
    out["heads"] = {name: [bool(np.isfinite(value)) for value in values] for name, values in history.items()}

    if keras.backend.backend() == "tensorflow":  # the other feed that fit takes
        train_feed, val_feed = (ds.loader(batch_size=2, seed=1).to_tf() for _ in range(2))
        log = fit(train_feed, made=built, epochs=3, validation_data=val_feed)
        out["tf.data"] = [log.epochs, log.validated]

    feed = loader.to_keras()
    images, targets = feed[3]
    out["item"] = [
        len(feed),
        images.dtype.name,
        bool(np.array_equal(images, loader[3].images)),
        sorted(targets),
        len(plain.to_keras()[0]),
    ]

    before = threads()
    fit(ds.loader(batch_size=2, workers=3).to_keras(), made=built)
    workers_of_keras = [thread for thread in threading.enumerate() if thread.name.startswith("Worker")]
    out["threads"] = sorted(thread.name for thread in [*threads_left(before), *workers_of_keras])

    steps = []
    for per_epoch in (1, 2, 3, 5):
        loader = ds.loader(batch_size=2, seed=2)
        steps.append([per_epoch, fit(loader.to_keras(), epochs=24 // per_epoch, steps_per_epoch=per_epoch).epochs])
    out["steps"] = steps

    path, number_, offset, _ = shard_of(ds, 7)
    flip(path, offset + 40)
    damaged: dict[str, Any] = {"damage": {"batch_size": 2}, "nothing left": {"on_bad": "skip", "max_bad": 1.0}}
    for what, options in damaged.items():
        try:
            fit(hr.Dataset(ds.path).loader(**{"batch_size": 1} | options).to_keras(), made=built)
            out[what] = "none"
        except Exception as error:
            kind = isinstance(error, DamageError if what == "damage" else DataError)
            out[what] = [kind, f"{path}, record {number_}" in str(error)]
    return out


class Nothing(hr.Target):
    """No targets: what `predict` is fed with."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> None:
        return None


if __name__ == "__main__":
    print("RESULT", json.dumps(main(Path(sys.argv[1]))), flush=True)
    # Not through Python's own end: TensorFlow waits there for good when a fit over any PyDataset was broken off in the
    # middle, for a thread that can't have the interpreter any more (seen with Keras's own example, 4 times in 5).
    os._exit(0)
