"""Several classes to an image, from packing to prediction on drawn shapes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import headrace as hr
from command import headrace
from headrace.errors import UsageError
from headrace.learn import networks, ranking
from headrace.learn.backend import keras
from headrace.learn.evaluate import Evaluation, evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks import for_dataset
from headrace.learn.tasks.multilabel import Labelled, MultiLabelled
from headrace.learn.train import Trained, train
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from packed import pack, shades
from shapes import NAMES, several, valued

QUICK = Options(epochs=1, checkpoint_seconds=0)
TASK = MultiLabelled(("a", "b", "c"))
UNMOVED = Framing(1, 1, (), (1, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    hr.pack(several(300), folder / "ds", splits={"train": 0.8, "val": 0.2}, progress=False)
    return folder / "ds"


@pytest.fixture(scope="module")
def trained(packed: Path, folder: Path) -> Trained:
    return train(packed, out=folder / "run", options=replace(QUICK, epochs=6, learning_rate=3e-3), progress=False)


@pytest.fixture(scope="module")
def judged(trained: Trained, packed: Path, folder: Path) -> Evaluation:
    return evaluate(trained.run, packed, out=folder / "judged", progress=False)


def test_it_learns_which_shapes_are_there(trained: Trained, judged: Evaluation, packed: Path) -> None:
    val = hr.Dataset(packed).split("val")
    chance = np.mean([n / len(val) for n in val.class_counts.values()])
    assert trained.task == "multilabel" and chance < 0.5
    assert judged.metrics["map"] > 0.85
    assert set(trained.history[0]) == {"epoch", "loss", "val_loss", "val_map", "learning_rate"}
    assert trained.best == max(trained.history, key=lambda row: (row["val_map"], -row["val_loss"]))
    recipe = RunFolder(trained.run).read_recipe()
    assert (recipe.task, recipe.model, recipe.class_names) == ("multilabel", "vanilla", NAMES)
    assert recipe.statistics == {}


def test_evaluate_says_what_training_saw(trained: Trained, judged: Evaluation, packed: Path, folder: Path) -> None:
    said = json.loads(json.dumps(judged.json()))
    assert (said["task"], said["split"], said["records"]) == ("multilabel", "val", 60)
    assert said["map"] == pytest.approx(trained.best["val_map"], abs=1e-6)
    assert said["loss"] == pytest.approx(trained.best["val_loss"], abs=1e-5)
    val = hr.Dataset(packed).split("val")
    assert {name: row["n"] for name, row in said["per_class"].items()} == val.class_counts
    asked = Run(trained.run)
    truth, outputs = zip(*((batch.targets, out) for batch, out in asked.batches(val)), strict=True)
    there, shares = np.concatenate(truth) > 0, np.concatenate(outputs)
    for k, name in enumerate(NAMES):
        row, shown = said["per_class"][name], shares[:, k] >= 0.5
        assert row["ap"] == ranking.average_precision(there[:, k], shares[:, k])
        assert row["recall"] == pytest.approx(shown[there[:, k]].mean())
        assert row["precision"] == pytest.approx(there[shown, k].mean())
    assert said["exact"] == pytest.approx(((shares >= 0.5) == there).all(axis=1).mean())
    assert judged.text.startswith(f"mAP {said['map']:.4f} (mean of 3 of 3 classes), loss {said['loss']:.4f}\n")
    assert {path.name for path in (folder / "judged").iterdir()} == {
        "records.jsonl",
        "examples.png",
        "evaluation.json",
        "classes.png",
    }
    assert cv2.imread(str(judged.examples)).shape[1] > 8 * 160  # type: ignore[union-attr]


def test_the_loss_is_that_of_keras() -> None:
    """Clipped as Keras does it, and of logits by way of their probabilities."""
    truth = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    batch = Batch(np.zeros((2, 1, 1, 3), np.uint8), truth, ("0", "1"))
    said = np.array([[0.9, 0.0, 1.0], [0.2, 0.7, 0.0]], np.float32)
    wanted = float(np.mean(keras.ops.convert_to_numpy(keras.losses.binary_crossentropy(truth, said))))
    assert TASK.score([(batch, said)]).loss == pytest.approx(wanted, rel=1e-5)
    logits = np.array([[2.0, -30, 5], [-1, 90, 0]], np.float32)
    task = TASK.for_model((3,), (1, 1), ends_in="linear", name="x")
    np.testing.assert_allclose(
        task.probabilities(logits), 1 / (1 + np.exp(-logits.astype(float))), rtol=1e-5, atol=1e-7
    )
    assert (
        task.score([(batch, logits)]).metrics["map"] == TASK.score([(batch, task.probabilities(logits))]).metrics["map"]
    )


def test_a_class_without_images_counts_for_nothing() -> None:
    truth = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    said = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.3]], np.float32)
    score = TASK.score([(Batch(np.zeros((2, 1, 1, 3), np.uint8), truth, ("0", "1")), said)])
    assert score.metrics["map"] == 1 and score.metrics["exact"] == 0
    assert score.metrics["per_class"]["b"] == {"ap": None, "precision": 0, "recall": None, "n": 0}
    assert score.metrics["per_class"]["c"] == {"ap": 1, "precision": None, "recall": 0, "n": 1}
    assert "b           -     0.0000       -       0" in score.text and "(mean of 2 of 3 classes)" in score.text
    none = TASK.score([(Batch(np.zeros((2, 1, 1, 3), np.uint8), 0 * truth, ("0", "1")), said)])
    assert none.metrics["map"] is None and none.text.startswith("mAP -")


@pytest.mark.parametrize(
    ("out", "ends_in", "says"),
    [
        ((2,), "sigmoid", r"net says \[b, 2\], wanted \[b, 3\]: a number for each class \(a, b, c\)"),
        ((1,), "sigmoid", r"net says \[b, 1\], wanted \[b, 3\]"),
        ((7, 7, 3), None, r"net says \[b, 7, 7, 3\], wanted \[b, 3\]"),
        ((3,), "softmax", "ends in a softmax, whose numbers sum to 1.*; end it in a sigmoid"),
    ],
)
def test_a_network_that_cannot_say_it(out: tuple[int, ...], ends_in: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TASK.for_model(out, (8, 8), ends_in=ends_in, name="net")


def test_the_other_built_in_network() -> None:
    model = TASK.build("mobilenet_v2", (32, 32, 3), {"alpha": 0.35})
    assert networks.activation(model) == "sigmoid"
    assert TASK.for_model(networks.output_shape(model, (32, 32, 3), name="m"), (32, 32), ends_in="sigmoid", name="m")


def test_outputs_that_are_no_probabilities() -> None:
    for said in (1.5, -0.1):
        with pytest.raises(UsageError, match="no probabilities; end it in a sigmoid"):
            TASK.probabilities(np.array([[0.1, said, 0.2]], np.float32))


@pytest.mark.parametrize("task", [TASK, replace(TASK, logits=True)])
def test_outputs_that_are_no_numbers(task: MultiLabelled) -> None:
    """Of the last batch's step a network may be NaN all over, whose loss was none yet: then train says so."""

    class Astray:
        def predict_on_batch(self, images: Any) -> Any:
            return np.full((len(images), 3), np.nan, np.float32)

    batch = Batch(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3), np.float32), ("a", "b"))
    found = task.validate(Astray(), [batch])
    assert set(found) == {"loss", "map"} and all(map(np.isnan, found.values()))
    with pytest.raises(UsageError, match="outputs are NaN for some images"):
        task.score([(batch, np.full((2, 3), np.nan, np.float32))])


def test_what_is_said_of_one_image() -> None:
    found = np.array([0.2, 0.6, 0.9], np.float32)
    assert TASK.prediction(found, UNMOVED) is not None
    assert TASK.answer(found).class_names == ("c", "b") and TASK.with_threshold(0.95).answer(found).class_names == ()
    assert TASK.is_correct(found, ("b", "c")) and not TASK.is_correct(found, ("c",)) and not TASK.is_correct(found, ())
    assert TASK.with_threshold(1.0).is_correct(found, ())
    assert TASK.wrong(found, ("b", "c")) == pytest.approx(0.2 + 0.4 + 0.1)
    assert TASK.wrong(found, ("z",)) == pytest.approx(0.2 + 0.6 + 0.9 + 1)
    image = np.zeros((8, 8, 3), np.uint8)
    assert TASK.tile(image, found, None).caption == "est: c 90%\nb 60%" and TASK.tile(image, found, None).right is None
    tile = TASK.tile(image, found, ())
    assert (tile.caption, tile.right) == ("obs: none\nest: c 90%\nb 60%", False)
    assert TASK.tile(image, 0 * found, ("a",)).caption == "obs: a\nest: none"
    many = MultiLabelled(tuple(f"class number {k}" for k in range(9)))
    lines = many.tile(image, np.linspace(1, 0.6, 9, dtype=np.float32), many.class_names[:3]).caption.split("\n")
    assert lines[:3] == ["obs: class number 0,", "class number 1, class", "number 2"]
    assert lines[3:5] == ["est: class number 0 100%", "class number 1 95%"] and lines[9:] == ["…"]


def test_the_task_of_a_dataset(packed: Path, tmp_path: Path) -> None:
    ds = hr.Dataset(packed)
    assert (for_dataset(ds).name, for_dataset(ds).class_names) == ("multilabel", NAMES)
    with pytest.raises(UsageError, match="has no labels for classification"):
        for_dataset(ds, "classification")
    one = pack(shades(4), tmp_path / "one")
    assert for_dataset(one).name == "classification"
    with pytest.raises(UsageError, match="has no labels for multilabel"):
        for_dataset(one, "multilabel")


def test_a_run_refuses_what_has_other_labels(trained: Trained, tmp_path: Path) -> None:
    one = pack(shades(4), tmp_path / "one")
    with pytest.raises(UsageError, match=r"is for several classes to an image \(circle, .*one has no several classes"):
        evaluate(trained.run, one, progress=False)


def test_stopped_and_resumed_is_as_if_never_stopped(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(QUICK, epochs=2, size=16, deterministic=True, limit=100)
    train(packed, out=tmp_path / "whole", options=options, progress=False)
    plain, steps = keras.Model.train_on_batch, 0

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:  # 100 photos in batches of 32: 4 an epoch
            signal.raise_signal(signal.SIGINT)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "train_on_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(packed, out=tmp_path / "run", options=options, progress=False)
    train(packed, out=tmp_path / "run", resume=True, progress=False)
    assert steps == 6
    whole, after = ((tmp_path / run / "history.csv").read_bytes() for run in ("whole", "run"))
    assert after == whole and whole.count(b"\n") == 3


def test_monitor_and_patience(packed: Path, tmp_path: Path) -> None:
    options = replace(QUICK, epochs=9, size=16, limit=32, patience=1, monitor="val_map:min")
    done = train(packed, out=tmp_path / "run", options=options, progress=False)
    assert done.best["val_map"] == min(row["val_map"] for row in done.history)
    with pytest.raises(UsageError, match="monitor is 'val_mae'; this run has loss, val_loss, val_map"):
        train(packed, out=tmp_path / "no", options=replace(options, monitor="val_mae"), progress=False)


def _logits(shape: tuple[int, ...], classes: int) -> Any:
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(shape), *layers])


def test_an_own_network_with_or_without_its_own_loss(packed: Path, tmp_path: Path) -> None:
    options = replace(QUICK, size=16, limit=32)
    done = train(packed, out=tmp_path / "run", model=_logits, options=options, progress=False)
    found = evaluate(tmp_path / "run", packed, limit=32, progress=False)
    assert found.metrics["loss"] == pytest.approx(done.best["val_loss"], rel=1e-3)

    def compiled(shape: tuple[int, ...], classes: int) -> Any:
        model = keras.Sequential([_logits(shape, classes), keras.layers.Activation("sigmoid")])
        model.compile("sgd", loss="mse", metrics=[keras.metrics.AUC(name="auc", multi_label=True, num_labels=classes)])
        return model

    done = train(packed, out=tmp_path / "own", model=compiled, options=options, progress=False)
    assert {"val_loss", "val_auc", "val_map"} <= set(done.best)


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()})[-1:])
def test_another_backend(name: str, packed: Path, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    program = f"""
from headrace.learn.evaluate import evaluate
from headrace.learn.recipe import Options
from headrace.learn.train import train
done = train({str(packed)!r}, out="run", options=Options(size=16, epochs=1, limit=64), progress=False)
found = evaluate("run", {str(packed)!r}, limit=64, progress=False).metrics
assert abs(found["loss"] - done.best["val_loss"]) < 1e-3 and abs(found["map"] - done.best["val_map"]) < 1e-3
"""
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", [several, valued])
def test_every_feed_takes_them(what: Any, tmp_path: Path) -> None:
    ds = pack(what(10), tmp_path / "ds")
    loader = ds.loader(batch_size=4, shuffle=False)
    wanted = [batch.targets for batch in loader]
    feeds = [[feed[i][1] for i in range(3)] for feed in [ds.loader(batch_size=4, shuffle=False).to_keras()]]
    for module, to in (("torch", "to_torch"), ("tensorflow", "to_tf")):
        pytest.importorskip(module, reason=f"{module} is not installed")
        feeds.append([targets.numpy() for _, targets in getattr(ds.loader(batch_size=4, shuffle=False), to)()])
    for found in feeds:
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


# --- predict


def test_a_split_has_its_classes_beside_those_found(trained: Trained, packed: Path, tmp_path: Path) -> None:
    val = hr.Dataset(packed).split("val")
    result = predict(trained.run, val, out=tmp_path, progress=False)
    with result.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "split", "observed", "estimated", *(f"p_{name}" for name in NAMES)]
    assert {row["id"]: set(filter(None, row["observed"].split("; "))) for row in rows} == {
        record.id: set(record.labels or ()) for record in val
    }
    for row in rows:
        assert set(filter(None, row["estimated"].split("; "))) == {n for n in NAMES if float(row[f"p_{n}"]) >= 0.5}
    exact = np.mean([set(row["observed"].split("; ")) == set(row["estimated"].split("; ")) for row in rows])
    assert result.accuracy == pytest.approx(exact) and "of which every class is found and none is false" in result.text
    assert result.classes == {name: sum(name in row["estimated"].split("; ") for row in rows) for name in NAMES}
    assert cv2.imread(str(result.picture)) is not None and result.pictures is None


def test_photos(trained: Trained, packed: Path, tmp_path: Path) -> None:
    records = list(hr.Dataset(packed).split("val"))[:8]
    for record in records:
        (tmp_path / record.id).write_bytes(record.read())
    everything = predict(trained.run, [tmp_path], out=tmp_path / "P", truth=packed, threshold=0.0, progress=False)
    assert everything.accuracy is not None and everything.predicted == 8
    assert all(set(row["classes"].split("; ")) == set(NAMES) for row in everything.rows)
    with pytest.raises(UsageError, match="the one class of an image; for several classes to an image pass truth=DS"):
        predict(trained.run, [tmp_path], out=tmp_path / "P", by_folder=True)
    answer = Run(trained.run).predict(records[0].image)
    assert isinstance(answer, Labelled) and set(answer.probabilities) == set(NAMES)
    assert answer.class_names == tuple(
        sorted((n for n in NAMES if answer.probabilities[n] >= 0.5), key=lambda n: -answer.probabilities[n])
    )
    assert Run(trained.run).predict(records[0].image, threshold=1.0).class_names == ()


def test_the_verbs(packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = headrace("train", packed, "--out", run, "--size", 16, "--epochs", 1, "--limit", 32, "--json")
    assert (done.code, json.loads(done.out)["task"]) == (0, "multilabel"), done.err
    done = headrace("evaluate", run, packed)
    assert done.code == 0 and "circle" in done.out and "classes.png" in done.out
    done = headrace("predict", run, f"{packed}:val", "--out", tmp_path / "P", "--threshold", 0.3, "--json")
    assert (done.code, json.loads(done.out)["predicted"]) == (0, 60), done.err
