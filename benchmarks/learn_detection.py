"""AP50 of a face detector from random weights: our training against the tutorial recipe it descends from.

    python benchmarks/learn_detection.py TRAIN VAL --json FILE [--epochs 80] [--seeds 0,1,2] [--most 5] [--arms a,b]
                                         [--size 224] [--alpha 0.75] [--steps 480]

TRAIN and VAL are WIDER FACE's train and val, packed, e.g. with --size 448; photos with more than --most faces are
left out. Every arm sees all of TRAIN for as many epochs in batches of 16 at --size, MobileNetV2 of --alpha from
random weights, and is judged on VAL after the last by the same `average_precision`. A fresh process per run, one
after the other. FILE is written after each run, and a call with the same options goes on with the runs that it lacks.

Arm "headrace" is `headrace.learn.train.train`, as `headrace train` calls it, with its defaults. Arm "recipe" is what
github.com/burnpiro/tiny-face-detection-tensorflow2 trains: a sample per face, with the photo's other faces as
background; the top left corner where a centre was meant; the box loss on the one cell of highest score; batches always
of the same samples; pixels as they are, for the normalisation is computed and thrown away; SGD 1e-4 with momentum 0.9
and decay 1e-4; batch normalisation as Keras has it. It differs from it in this: all weights begin random and are
trained, where it freezes ImageNet's; photos are resized linearly, not to the nearest pixel; its weight decay, which
reached no weight but the last bias, and its early stopping are left out. Boxes are read back as its `detect.py` does,
from the corner. Arm "by heart" is ours without augmentation on 64 photos for --steps, judged on these.

"multiscale" and "multiscale by heart" are the same with `--model mobilenet_v2_multiscale`. AP50 is also told by size of
face, on photos with at most five faces and on those with more, and on what was learnt from: what a head has no place
for, it can't even learn by heart.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import headrace as hr
from _measure import Arm, Job, Result, by_seed, child, facts, in_child, publish

CELLS, BATCH = 7, 16
RECIPE = 224  # the size of the recipe's images, and with CELLS of its grid
FEW = 5  # faces of a photo that is no crowd
BY_HEART = 64  # photos
MULTISCALE = "mobilenet_v2_multiscale"


def photos(path: str, most: int) -> hr.Dataset:
    return hr.Dataset(path).where(f"array_length(boxes) <= {most}")


def ours(job: Job, *, model: str = "mobilenet_v2") -> Result:
    options = _options(job, model, epochs=job["epochs"])
    return _trained(photos(job["train"], job["most"]), photos(job["val"], job["most"]), job, options)


def by_heart(job: Job, *, model: str = "mobilenet_v2") -> Result:
    train = photos(job["train"], job["most"])
    ids = ", ".join(f"'{id_}'" for id_ in train.catalog["id"][:BY_HEART])
    few = train.where(f"id IN ({ids})")
    epochs = job["steps"] // -(-len(few) // BATCH)
    return _trained(few, few, job, _options(job, model, epochs=epochs, augment=(), cache="memory"))


def _options(job: Job, model: str, **others: Any) -> Any:
    from headrace.learn.recipe import Options

    return Options(model=model, size=job["size"], model_options={"alpha": job["alpha"]}, **others)


def _trained(train: hr.Dataset, val: hr.Dataset, job: Job, options: Any) -> Result:
    from dataclasses import replace

    from headrace.learn.evaluate import evaluate
    from headrace.learn.run import Run
    from headrace.learn.train import train as learn

    with TemporaryDirectory() as folder:
        options = replace(options, task="detection", seed=job["seed"])
        history = learn(train, out=Path(folder, "run"), options=options, progress=False).history
        run = Run(Path(folder, "run"))
        metrics = evaluate(run, val, progress=False).metrics
        some = {"train": train}
        some["few"], some["crowds"] = (val.where(f"array_length(boxes) {sign} {FEW}") for sign in ("<=", ">"))
        others = {
            f"ap50_{name}": evaluate(run, part, out=Path(folder, name), progress=False).metrics["ap50"]
            for name, part in some.items()
            if len(part)
        }
    sizes = {name: row["ap50"] for name, row in metrics["ap50_by_size"].items()}
    return {
        "loss": [row["loss"] for row in history],
        "ap50": metrics["ap50"],
        "ap": metrics["ap"],
        "ap50_by_size": sizes,
    } | others


def recipe(job: Job) -> Result:
    from headrace.learn.backend import jit, keras

    keras.utils.set_random_seed(job["seed"])
    model = _recipe_model(keras, job["alpha"])
    rate = keras.optimizers.schedules.InverseTimeDecay(1e-4, decay_steps=1, decay_rate=1e-4)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss=partial(_recipe_loss, keras.ops), jit_compile=jit())
    images, numbers, grids = _samples(photos(job["train"], job["most"]))
    batches = [slice(i, i + BATCH) for i in range(0, len(grids), BATCH)]
    order = np.random.default_rng(job["seed"])
    losses = []
    for _ in range(job["epochs"]):
        epoch = []
        for i in order.permutation(len(batches)):
            pixels = images[numbers[batches[i]]].astype(np.float32)
            epoch.append(float(model.train_on_batch(pixels, grids[batches[i]])))
        losses.append(statistics.mean(epoch))
    return {"loss": losses} | _judge(model, photos(job["val"], job["most"]))


def _samples(dataset: hr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All photos [n, h, w, c]; and a sample per face in their order: the number of its photo [m], its grid [m, ...]."""
    images, numbers, grids = [], [], []
    for batch in dataset.loader(batch_size=BATCH, size=RECIPE, shuffle=False, target=hr.Boxes()):
        for image, (boxes, _) in zip(batch.images, hr.Boxes().decode(batch.targets), strict=True):
            for x0, y0, x1, y1 in boxes / RECIPE:
                grid = np.zeros((CELLS, CELLS, 5), np.float32)
                row, column = int(y0 * CELLS), int(x0 * CELLS)
                grid[row, column] = y1 - y0, x1 - x0, y0 * CELLS - row, x0 * CELLS - column, 1
                numbers.append(len(images))
                grids.append(grid)
            images.append(image)
    return np.stack(images), np.array(numbers), np.stack(grids)


def _recipe_model(keras: Any, alpha: float) -> Any:
    base = keras.applications.MobileNetV2((RECIPE, RECIPE, 3), alpha=alpha, weights=None, include_top=False)
    x = base.get_layer("block_16_project_BN").output
    x = keras.layers.Conv2D(240, 3, padding="same", activation="relu")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(base.input, keras.layers.Conv2D(5, 1, padding="same", activation="sigmoid")(x))


def _recipe_loss(ops: Any, truth: Any, cells: Any) -> Any:
    """Cross-entropy over all cells, and squared error between the boxes of each one's most probable cell."""

    def best(grid: Any) -> Any:
        flat = ops.reshape(grid, (-1, CELLS * CELLS, 5))
        number = ops.argmax(flat[..., 4], axis=-1)
        box = ops.squeeze(ops.take_along_axis(flat, number[:, None, None], axis=1), axis=1)
        row, column = ops.cast(number // CELLS, "float32"), ops.cast(number % CELLS, "float32")
        return ops.stack([row + box[:, 2], column + box[:, 3], CELLS * box[:, 0], CELLS * box[:, 1]], axis=-1)

    p, there = ops.clip(cells[..., 4], 1e-7, 1 - 1e-7), truth[..., 4]
    entropy = -there * ops.log(p) - (1 - there) * ops.log(1 - p)
    return ops.sum(entropy) + ops.sum(ops.square(best(truth) - best(cells)))


def _judge(model: Any, dataset: hr.Dataset) -> Result:
    from headrace.learn.boxes import Truth, average_precision, suppressed
    from headrace.load.targets import Found

    found, truth = [], []
    for batch in dataset.loader(batch_size=BATCH, size=RECIPE, shuffle=False, target=hr.Boxes()):
        grids = np.asarray(model.predict_on_batch(batch.images.astype(np.float32)))
        corner = np.indices((CELLS, CELLS)).transpose(1, 2, 0)
        low = (corner + grids[..., 2:4]) / CELLS
        boxes = np.concatenate([low, low + grids[..., 0:2]], axis=-1)[..., [1, 0, 3, 2]] * RECIPE
        for box, grid in zip(boxes, grids, strict=True):
            scores = grid[..., 4].ravel()
            found.append(suppressed(Found(box.reshape(-1, 4), scores, np.zeros(len(scores), np.int64))))
        truth += [Truth(boxes, np.zeros(len(boxes), np.int64)) for boxes, _ in hr.Boxes().decode(batch.targets)]
    precision = average_precision(found, truth)
    return {"ap50": precision.ap50, "ap": precision.ap}


def measure(learn: Callable[[Job], Result], job: Job) -> Result:
    started = time.perf_counter()
    result = learn(job)
    return {"seed": job["seed"], "seconds": round(time.perf_counter() - started, 1)} | result


ARMS = {
    "headrace": Arm(what="headrace.learn.train.train with its defaults", measure=partial(measure, ours)),
    "multiscale": Arm(
        what=f"the same with --model {MULTISCALE}", measure=partial(measure, partial(ours, model=MULTISCALE))
    ),
    "recipe": Arm(what="the tutorial's recipe", measure=partial(measure, recipe)),
    "by heart": Arm(what="headrace on 64 photos, judged on these", measure=partial(measure, by_heart)),
    "multiscale by heart": Arm(
        what=f"the same with --model {MULTISCALE}", measure=partial(measure, partial(by_heart, model=MULTISCALE))
    ),
}


def table(runs: list[Result]) -> str:
    """AP50 on VAL per seed, its mean, and the mean of AP."""
    return by_seed(ARMS, runs, "ap50", {"mean AP50": "ap50", "mean AP": "ap"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("val", metavar="VAL")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=480, help="of the arms that learn by heart")
    parser.add_argument("--most", type=int, default=5)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--alpha", type=float, default=0.75)
    given = parser.parse_args()
    job = {
        "train": given.train,
        "val": given.val,
        "fingerprints": [hr.Dataset(path).fingerprint for path in (given.train, given.val)],
        "photos": [len(photos(path, given.most)) for path in (given.train, given.val)],
        "epochs": given.epochs,
        "steps": given.steps,
        "most": given.most,
        "size": given.size,
        "alpha": given.alpha,
    }
    if given.size != RECIPE and "recipe" in given.arms.split(","):
        parser.error(f"the recipe's images are of {RECIPE} pixels; leave its arm out, or --size")
    runs: list[Result] = []
    if given.json.exists():
        before = json.loads(given.json.read_text())
        if before["job"] != job:
            parser.error(f"{given.json} holds runs of {before['job']}, wanted {job}; name another file")
        runs = before["runs"]
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for seed in (int(seed) for seed in given.seeds.split(",")):
        for arm in given.arms.split(","):
            if any((run["arm"], run["seed"]) == (arm, seed) for run in runs):
                continue
            run = {"arm": arm} | in_child(arm, job | {"seed": seed})
            runs.append(run)
            given.json.write_text(json.dumps({"job": job, "runs": runs}))
            print(f"{arm}, seed {seed}: AP50 {run['ap50']:.4f}, AP {run['ap']:.4f}, {run['seconds']:.0f} s", flush=True)
    publish(facts("learn_detection") | {"job": job, "runs": runs}, table(runs), given.json)


if __name__ == "__main__" and not child(ARMS):
    main()
