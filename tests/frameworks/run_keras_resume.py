"""Trainings by `fit` that are broken off and gone on with, on the backend of KERAS_BACKEND: test_keras_resume judges.

    run_keras_resume.py FOLDER       all that one process can show, as a JSON object; then one more training in FOLDER,
                                     in which it kills itself
    run_keras_resume.py FOLDER rest  the same training, which goes on

What is compared is the loss after each step, a mean that Keras sums up over its epoch, by the optimizer's count.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras

sys.path.insert(0, str(Path(__file__).parents[1]))

import headrace as hr
from packed import pack, photos

N, EPOCHS, KILLED_AT = 19, 3, 8


class Broken(Exception):
    pass


class Steps(keras.callbacks.Callback):
    """The loss after each step; at the step `at` it breaks off, be it by a kill."""

    def __init__(self, at: int | None = None, *, how: str = "raise", log: Path | None = None) -> None:
        super().__init__()
        self.at, self.how, self.log = at, how, log
        self.losses: dict[int, float] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.losses[step] = float(logs["loss"])
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps([step, self.losses[step]]) + "\n")
        if step == self.at:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "raise":
                raise Broken
            self.model.stop_training = True


def loader(ds: hr.Dataset, **options: Any) -> hr.Loader:
    return ds.loader(**{"batch_size": 4, "seed": 5, "size": 12, "shuffle": True} | options)


def network(seed: int) -> Any:
    """With layers that have a state of their own; which weights it begins with, `seed` says."""
    keras.utils.set_random_seed(seed)
    made = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    made.compile(
        keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",  # TensorFlow takes seconds for it, each time
    )
    return made


def train(
    ds: hr.Dataset, path: Path, steps: Steps, *, seed: int, every: int = 1, val: bool = False, **options: Any
) -> Any:
    """One run of a script: it knows nothing of earlier ones but what lies at `path`."""
    feed = loader(ds).to_keras()
    slower = keras.callbacks.LearningRateScheduler(lambda _, rate: rate * 0.9)
    resume = hr.Resume(path, feed, every=every)
    return network(seed).fit(
        feed,
        **{"epochs": EPOCHS, "verbose": 0} | options,
        validation_data=loader(ds, shuffle=False).to_keras() if val else None,
        callbacks=[slower, steps, resume],
    )


def told(history: Any) -> list[Any]:
    return [history.epoch, history.history]


def refused(call: Any) -> list[str]:
    try:
        call()
    except hr.HeadraceError as error:
        return [type(error).__name__, str(error)]
    return []


def whole(ds: hr.Dataset, folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {"backend": keras.backend.backend()}
    for name, val in (("reference", False), ("validated", True)):
        steps = Steps()
        out[name] = [told(train(ds, folder / f"{name}.npz", steps, seed=1, val=val)), steps.losses]

    out["broken"] = []
    for every, *points in ((1, 5, 6, 13), (3, 4), (100, 8)):
        path, losses = folder / f"{every}-{points}.npz", []
        for seed, at in enumerate([*points, None], start=1):
            steps = Steps(at)
            with suppress(Broken):
                history = train(ds, path, steps, seed=seed, every=every, val=every == 1)
            losses.append(steps.losses)
        out["broken"].append([every, points, told(history), losses])

    stopped, rest = Steps(7, how="stop"), Steps()
    train(ds, folder / "stopped.npz", stopped, seed=1)
    out["stopped"] = [told(train(ds, folder / "stopped.npz", rest, seed=2)), stopped.losses, rest.losses]

    first, more, none = Steps(), Steps(), Steps()
    train(ds, folder / "more.npz", first, seed=1, epochs=2)
    history = told(train(ds, folder / "more.npz", more, seed=2))
    out["more"] = [history, first.losses, more.losses, told(train(ds, folder / "more.npz", none, seed=3)), none.losses]

    cut, rest, straight, in_steps = Steps(5), Steps(), Steps(), {"epochs": 6, "steps_per_epoch": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of passes that end within such an epoch
        straight_history = told(train(ds, folder / "s.npz", straight, seed=1, **in_steps))
        with suppress(Broken):
            train(ds, folder / "cut.npz", cut, seed=1, **in_steps)
        history = told(train(ds, folder / "cut.npz", rest, seed=2, **in_steps))
    out["in steps"] = [history, straight_history, straight.losses, cut.losses, rest.losses]

    path = folder / "reference.npz"
    other = loader(ds, seed=6).to_keras()
    small = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    small.compile("sgd", "mse")
    damaged, foreign = folder / "damaged.npz", folder / "foreign.npz"
    damaged.write_bytes(path.read_bytes()[:-400])
    foreign.write_text("{}")

    def fit(path: Path, model: Any, feed: Any, of: Any = None, **options: Any) -> Any:
        return lambda: model.fit(feed, verbose=0, callbacks=[hr.Resume(path, of or feed)], **options)

    out["refused"] = {
        "loader": refused(fit(path, network(1), other)),
        "model": refused(fit(path, small, loader(ds).to_keras())),
        "damaged": refused(fit(damaged, network(1), other)),
        "foreign": refused(fit(foreign, network(1), other)),
        "feed": refused(lambda: hr.Resume(path, loader(ds))),
        "every": refused(lambda: hr.Resume(path, other, every=0)),
        "folder": refused(lambda: hr.Resume(folder, other)),
        "nowhere": refused(lambda: hr.Resume(folder / "none" / "fit.npz", other)),
        "validated": refused(fit(folder / "n.npz", network(1), other, validation_data=other.loader.to_keras())),
        "other feed": refused(fit(folder / "n.npz", network(1), other, loader(ds).to_keras())),
    }
    return out


if __name__ == "__main__":
    warnings.filterwarnings("error", message=".*ran out of data.*")
    folder = Path(sys.argv[1])
    if len(sys.argv) == 2:
        opened = pack(photos(N), folder / "ds", shards=2)
        print("RESULT", json.dumps(whole(opened, folder)), flush=True)
        train(opened, folder / "killed.npz", Steps(KILLED_AT, how="kill", log=folder / "log"), seed=1, val=True)
    history = train(hr.Dataset(folder / "ds"), folder / "killed.npz", Steps(log=folder / "log"), seed=2, val=True)
    print("RESULT", json.dumps(told(history)), flush=True)
    os._exit(0)  # see run_keras_feed
