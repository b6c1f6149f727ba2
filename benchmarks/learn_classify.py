"""Validation accuracy of `vanilla`, fed by Headrace and by a plain tf.data pipeline: what feeding does to learning.

    python benchmarks/learn_classify.py DS --json FILE [--epochs 25] [--seeds 0,1,2] [--size N] [--batch-size 32]

DS is a packed dataset with the splits train and val, e.g. cats and dogs packed as README.md says. Arm "headrace" is
`headrace.learn.train.train`, as `headrace train` calls it. Arm "tf.data" is `model.fit` of the same model, optimizer,
first weights and batch size on TFRecordDataset, parse_single_example, decode_jpeg, a shuffle over the whole split,
batch and prefetch. A fresh process per run, one after the other. FILE is written after each run, and a call with the
same options goes on with the runs that it lacks.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import headrace as hr
from _measure import Arm, Job, Result, by_seed, child, facts, in_child, publish

History = list[dict[str, float]]

LEARNING_RATE = 1e-3


def ours(job: Job) -> History:
    from headrace.learn.recipe import Options
    from headrace.learn.train import train

    options = Options(
        model="vanilla",
        epochs=job["epochs"],
        batch_size=job["batch_size"],
        learning_rate=LEARNING_RATE,
        size=job["size"],
        seed=job["seed"],
    )
    with TemporaryDirectory() as folder:
        return list(train(job["dataset"], out=Path(folder, "run"), options=options, progress=False).history)


def tf_data(job: Job) -> History:
    import tensorflow as tf

    from headrace.learn.backend import keras
    from headrace.learn.tasks.classification import Classification

    dataset = hr.Dataset(job["dataset"])
    size = dataset.image_size if job["size"] is None else (job["size"], job["size"])
    keys = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> tuple[Any, Any]:
        read = tf.io.parse_single_example(record, keys)
        image = tf.io.decode_jpeg(read["image/encoded"], channels=dataset.channels)
        if size != dataset.image_size:
            image = tf.image.resize(image, size)
        return tf.ensure_shape(image, (*size, dataset.channels)), read["image/class/label"]

    def feed(split: str, *, shuffle: bool) -> Any:
        shards = [str(dataset.path / shard.name) for shard in dataset.manifest.shards if shard.split == split]
        records = tf.data.TFRecordDataset(shards).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        if shuffle:
            records = records.shuffle(dataset.splits[split], seed=job["seed"], reshuffle_each_iteration=True)
        return records.batch(job["batch_size"]).prefetch(tf.data.AUTOTUNE)

    keras.utils.set_random_seed(job["seed"])
    task = Classification(dataset.class_names)
    model = task.build("vanilla", (*size, dataset.channels), {})
    task.compile(model, keras.optimizers.Adam(LEARNING_RATE))
    train, val = feed("train", shuffle=True), feed("val", shuffle=False)
    history = model.fit(train, validation_data=val, epochs=job["epochs"], verbose=0).history
    return [dict(zip(history, map(float, row), strict=True)) for row in zip(*history.values(), strict=True)]


def measure(learn: Callable[[Job], History], job: Job) -> Result:
    started = time.perf_counter()
    history = learn(job)
    accuracies = [row["val_accuracy"] for row in history]
    return {
        "seed": job["seed"],
        "last": accuracies[-1],
        "best": max(accuracies),
        "seconds": round(time.perf_counter() - started, 1),
        "val_accuracy": accuracies,
        "loss": [row["loss"] for row in history],
    }


ARMS = {
    "headrace": Arm(what="headrace.learn.train.train", measure=partial(measure, ours)),
    "tf.data": Arm(what="model.fit on TFRecordDataset, decode_jpeg, shuffle", measure=partial(measure, tf_data)),
}


def table(runs: list[Result]) -> str:
    """Validation accuracy after the last epoch per seed; its mean, and the mean at the best epoch."""
    return by_seed(ARMS, runs, "last", {"mean, last epoch": "last", "mean, best epoch": "best"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", metavar="DS")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    job = {
        "dataset": given.dataset,
        "fingerprint": hr.Dataset(given.dataset).fingerprint,
        "epochs": given.epochs,
        "size": given.size,
        "batch_size": given.batch_size,
    }
    runs: list[Result] = []
    if given.json.exists():
        before = json.loads(given.json.read_text())
        if before["job"] != job:
            parser.error(f"{given.json} holds runs of {before['job']}, wanted {job}; name another file")
        runs = before["runs"]
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for seed in (int(seed) for seed in given.seeds.split(",")):
        for arm in ARMS:
            if any((run["arm"], run["seed"]) == (arm, seed) for run in runs):
                continue
            run = {"arm": arm} | in_child(arm, job | {"seed": seed})
            runs.append(run)
            given.json.write_text(json.dumps({"job": job, "runs": runs}))
            told = f"last {run['last']:.4f}, best {run['best']:.4f}, {run['seconds']:.0f} s"
            print(f"{arm}, seed {seed}: {told}", flush=True)
    publish(facts("learn_classify") | {"job": job, "runs": runs}, table(runs), given.json)


if __name__ == "__main__" and not child(ARMS):
    main()
