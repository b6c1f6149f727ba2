"""Values from packing to prediction, on photos whose light is known."""

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
from headrace.errors import DataError, UsageError
from headrace.learn.backend import keras
from headrace.learn.evaluate import Evaluation, evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks import for_dataset, for_recipe
from headrace.learn.tasks.value import Value
from headrace.learn.train import Trained, train
from headrace.load.iteration import Batch
from packed import pack, shades
from shapes import valued

QUICK = Options(epochs=1, checkpoint_seconds=0)
TASK = Value(("value",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    """Of one photo nobody knows the value."""
    records = valued(300)
    records[7] = replace(records[7], value=None)
    hr.pack(records, folder / "ds", splits={"train": 0.8, "val": 0.2}, progress=False)
    return folder / "ds"


@pytest.fixture(scope="module")
def trained(packed: Path, folder: Path) -> Trained:
    return train(packed, out=folder / "run", options=replace(QUICK, epochs=6), progress=False)


@pytest.fixture(scope="module")
def judged(trained: Trained, packed: Path, folder: Path) -> Evaluation:
    return evaluate(trained.run, packed, out=folder / "judged", progress=False)


def _known(packed: Path, split: str) -> hr.Dataset:
    return hr.Dataset(packed).split(split).where("value IS NOT NULL")


def test_it_learns_how_bright_they_are(trained: Trained, judged: Evaluation, packed: Path) -> None:
    values = np.array([record.value for record in _known(packed, "val")])
    guess = np.abs(values - values.mean()).mean()
    assert trained.task == "value" and judged.metrics["mae"] < guess / 2
    assert judged.metrics["mae_of_mean"] == pytest.approx(guess)
    assert list(trained.history[0]) == ["epoch", "loss", "mae", "val_loss", "val_mae", "learning_rate"]
    assert trained.best == min(trained.history, key=lambda row: (row["val_mae"], row["val_loss"]))
    recipe = RunFolder(trained.run).read_recipe()
    learnt = np.array([record.value for record in _known(packed, "train")])
    assert (recipe.task, recipe.class_names, recipe.train.records) == ("value", ("value",), len(learnt))
    assert recipe.statistics == pytest.approx({"centre": learnt.mean(), "spread": learnt.std()})


def test_evaluate_says_what_training_saw(trained: Trained, judged: Evaluation, packed: Path, folder: Path) -> None:
    said = json.loads(json.dumps(judged.json()))
    val = _known(packed, "val")
    assert (said["task"], said["split"], said["records"]) == ("value", "val", len(val))
    assert said["mae"] == pytest.approx(trained.best["val_mae"], rel=1e-4)
    assert said["loss"] == pytest.approx(trained.best["val_loss"], rel=1e-4)
    truth = np.array([record.value for record in val])
    found = np.concatenate([out for _, out in Run(trained.run).batches(val)])[:, 0].astype(float)
    assert said["mae"] == pytest.approx(np.abs(found - truth).mean())
    assert said["rmse"] == pytest.approx(np.sqrt(((found - truth) ** 2).mean()))
    assert said["r2"] == pytest.approx(1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    assert judged.text.startswith(f"MAE {said['mae']:.4g}, loss ")
    assert {path.name for path in (folder / "judged").iterdir()} == {
        "records.jsonl",
        "examples.png",
        "evaluation.json",
        "values.png",
    }
    assert cv2.imread(str(judged.examples)) is not None


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_unit_of_the_values_means_nothing(unit: float, tmp_path: Path) -> None:
    """The same loss in every epoch, and errors in that unit."""
    options = replace(QUICK, epochs=2, size=16, deterministic=True)
    histories = []
    for name, scale in (("one", 1.0), ("other", unit)):
        ds = pack(valued(64, unit=scale), tmp_path / f"{name}-ds", splits={"train": 0.75, "val": 0.25})
        histories.append(train(ds, out=tmp_path / name, options=options, progress=False).history)
    for one, other in zip(*histories, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert other["val_mae"] == pytest.approx(one["val_mae"] * unit, rel=1e-3)
    assert 0.5 < histories[0][0]["loss"] < 1.5  # it begins at the mean, which has 1


@pytest.mark.parametrize(
    ("values", "centre", "spread"),
    [
        ((1.0, 3.0), 2.0, 1.0),
        ((0.1, 0.1, 0.1), 0.1, 0.1),  # whose standard deviation is 1e-17 by rounding
        ((-5.0,), -5.0, 5.0),
        ((0.0, 0.0), 0.0, 1.0),
    ],
)
def test_where_learning_begins(values: tuple[float, ...], centre: float, spread: float) -> None:
    x = np.zeros((len(values), 8, 8), np.uint8)
    task = TASK.learning_from(hr.ArrayDataset(x, values, labels="value"))
    assert (task.centre, task.spread) == pytest.approx((centre, spread))
    assert for_recipe("value", ("value",), task.statistics) == task


def test_values_that_are_all_the_same(tmp_path: Path) -> None:
    ds = pack([replace(record, value=5.0) for record in valued(8)], tmp_path / "ds")
    train(ds, out=tmp_path / "run", options=replace(QUICK, size=16), progress=False)
    found = evaluate(tmp_path / "run", ds, progress=False)
    assert found.metrics["r2"] is None and found.metrics["mae_of_mean"] == 0 and abs(found.metrics["mae"]) < 5
    assert "R2 -" in found.text


def test_values_that_no_float32_holds(tmp_path: Path) -> None:
    ds = hr.ArrayDataset(np.zeros((2, 8, 8), np.uint8), [1e300, 1.0], labels="value")
    with pytest.raises(DataError, match=r"a value is 1e\+300 in size, more than float32 can hold"):
        train(ds, out=tmp_path / "run", options=QUICK, progress=False)
    assert not (tmp_path / "run").exists()


def test_scores_by_hand() -> None:
    batch = Batch(np.zeros((4, 1, 1, 3), np.uint8), np.array([0, 2, 4, 6], np.float32), tuple("0123"))
    score = replace(TASK, centre=3.0, spread=2.0).score([(batch, np.array([[1], [2], [4], [3]], np.float32))])
    assert (score.records, score.metrics["mae"], score.metrics["mae_of_mean"]) == (4, 1.0, 2.0)
    assert score.metrics["rmse"] == pytest.approx(np.sqrt(10 / 4)) and score.metrics["r2"] == pytest.approx(0.5)
    assert score.loss == pytest.approx(10 / 4 / 4)  # of spread squared
    assert score.metrics["values"] == {"min": 0, "mean": 3, "max": 6}
    flat = TASK.score([(batch, np.array([1, 2, 4, 3], np.float32))])  # outputs [b] as well
    assert flat.metrics == score.metrics and flat.loss == pytest.approx(10 / 4)
    one = float(TASK.loss(batch.targets, np.array([[1], [2], [4], [3]], np.float32)))
    assert one == pytest.approx(10 / 4)


def test_what_is_said_of_one_image() -> None:
    assert TASK.rows(1 / 3) == [{"value": "0.3333333"}] and TASK.answer(2.5) == 2.5
    assert TASK.compared(2.0, None) == [{"observed": "", "estimated": "2"}]
    assert TASK.compared(2.0, 0.1) == [{"observed": "0.1", "estimated": "2"}]
    assert TASK.wrong(2.0, -1.0) == 3.0 and TASK.is_correct(2.0, 2.0) is None
    image = np.zeros((8, 8, 3), np.uint8)
    assert TASK.tile(image, 12345.6, None).caption == "est: 1.235e+04"
    tile = TASK.tile(image, 2.0, 3.0)
    assert (tile.caption, tile.right) == ("obs: 3\nest: 2", None)


def test_the_task_of_a_dataset(packed: Path, tmp_path: Path) -> None:
    assert for_dataset(hr.Dataset(packed)).name == "value"
    both = [replace(record, label_name="ab"[k % 2]) for k, record in enumerate(valued(4))]
    ds = pack(both, tmp_path / "both")
    assert for_dataset(ds).name == "classification" and for_dataset(ds, "value").name == "value"
    with pytest.raises(UsageError, match="has no labels for value"):
        for_dataset(pack(shades(4), tmp_path / "classes"), "value")


@pytest.mark.parametrize(("out", "ends_in"), [((2,), "linear"), ((3, 1), None), ((1,), "softmax")])
def test_a_network_that_cannot_say_it(out: tuple[int, ...], ends_in: str | None) -> None:
    with pytest.raises(UsageError, match=r"wanted \[b, 1\]: a number|always 1; end it in a linear layer"):
        TASK.for_model(out, (8, 8), ends_in=ends_in, name="net")
    assert TASK.for_model((1,), (8, 8), ends_in="relu", name="net") == TASK


def test_a_recipe_that_was_changed(trained: Trained, tmp_path: Path) -> None:
    assert for_recipe("value", ("value",), {"centre": 1.0, "spread": 2.0}) == Value(("value",), 1.0, 2.0)
    with pytest.raises(UsageError, match="statistics are centre; value has centre, spread"):
        for_recipe("value", ("value",), {"centre": 1.0})
    text = (trained.run / "recipe.json").read_text()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.keras").write_bytes((trained.run / "model.keras").read_bytes())
    for there in ({}, {"centre": 1, "spread": 0}, {"centre": 1, "spread": 1, "more": 1}):
        (folder / "recipe.json").write_text(json.dumps(json.loads(text) | {"statistics": there}))
        with pytest.raises(DataError, match="damaged"):
            Run(folder)


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


def test_monitor_and_own_networks(packed: Path, tmp_path: Path) -> None:
    def flat(shape: tuple[int, ...], classes: int) -> Any:
        assert classes == 1
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(classes)]
        return keras.Sequential([keras.Input(shape), *layers])

    options = replace(QUICK, epochs=2, size=16, limit=32, patience=5, monitor="val_mae")
    done = train(packed, out=tmp_path / "run", model=flat, options=options, progress=False)
    assert done.best["val_mae"] == min(row["val_mae"] for row in done.history)
    found = evaluate(tmp_path / "run", packed, limit=32, progress=False)
    assert found.metrics["loss"] == pytest.approx(done.best["val_loss"], rel=1e-3)

    def compiled(shape: tuple[int, ...], classes: int) -> Any:
        model = flat(shape, classes)
        model.compile("adam", loss="mae")
        return model

    own = train(packed, out=tmp_path / "own", model=compiled, options=replace(options, monitor=None), progress=False)
    assert own.best["val_loss"] == min(row["val_loss"] for row in own.history)


def test_networks_speak_in_the_unit_of_the_values(trained: Trained, packed: Path) -> None:
    """The saved file by itself, from raw pixels; and the other built-in network."""
    alone = keras.saving.load_model(RunFolder(trained.run).model, safe_mode=True)
    images = _known(packed, "val").loader(batch_size=8)[0].images
    np.testing.assert_allclose(Run(trained.run).outputs(images), alone.predict_on_batch(images), rtol=1e-5)
    task = Value(("value",), centre=1e6, spread=10.0)
    model = task.build("mobilenet_v2", (32, 32, 3), {"alpha": 0.35})
    said = keras.ops.convert_to_numpy(model(images[:, :32, :32]))
    assert said.shape == (8, 1) and np.abs(said - 1e6).max() < 1000
    assert task.for_model(model.output_shape[1:], (32, 32), ends_in=None, name="mobilenet_v2") == task


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()})[:1])
def test_another_backend(name: str, packed: Path, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    program = f"""
from headrace.learn.evaluate import evaluate
from headrace.learn.recipe import Options
from headrace.learn.train import train
done = train({str(packed)!r}, out="run", options=Options(size=16, epochs=1, limit=64), progress=False)
found = evaluate("run", {str(packed)!r}, limit=64, progress=False).metrics
assert abs(found["loss"] - done.best["val_loss"]) < 1e-3 * found["loss"], (found, done.best)
"""
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- predict


def test_a_split_has_its_values_beside_those_found(trained: Trained, packed: Path, tmp_path: Path) -> None:
    """And the one of which nobody knows it, beside nothing."""
    result = predict(trained.run, packed, out=tmp_path, progress=False)
    with result.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "split", "observed", "estimated"] and len(rows) == 300
    observed = {row["id"]: float(row["observed"]) if row["observed"] else None for row in rows}
    assert observed == {record.id: record.value for record in hr.Dataset(packed)}
    off = np.mean([abs(float(row["observed"]) - float(row["estimated"])) for row in rows if row["observed"]])
    assert f"off by {off:.4g} on average (MAE), of the 299 whose value is known" in result.text
    assert result.accuracy is None and result.text.startswith("300 images: a value each")
    assert cv2.imread(str(result.picture)) is not None


def test_photos(trained: Trained, packed: Path, tmp_path: Path) -> None:
    records = list(_known(packed, "val"))[:6]
    for record in records:
        (tmp_path / record.id).write_bytes(record.read())
    result = predict(trained.run, [tmp_path], out=tmp_path / "P", truth=packed, progress=False)
    assert list(result.rows[0]) == ["path", "value"] and "of the 6 whose value is known" in result.text
    found = Run(trained.run).predict([record.image for record in records])
    assert all(isinstance(value, float) for value in found)
    said = {Path(row["path"]).name: float(row["value"]) for row in result.rows}
    assert [said[record.id] for record in records] == pytest.approx(found, rel=1e-3)
    with pytest.raises(
        UsageError, match="a threshold is for detection, keypoints and multilabel, this run's task is v"
    ):
        predict(trained.run, [tmp_path], out=tmp_path / "P", threshold=0.5)
    with pytest.raises(UsageError, match="the one class of an image; for values pass truth=DS"):
        predict(trained.run, [tmp_path], out=tmp_path / "P", pattern="(?P<label>.)")
    with pytest.raises(UsageError, match="has no values to compare with"):
        predict(trained.run, [tmp_path], out=tmp_path / "P", truth=pack(shades(2), tmp_path / "classes"))


def test_the_verbs(packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = headrace("train", packed, "--out", run, "--size", 16, "--epochs", 1, "--limit", 32, "--json")
    assert (done.code, json.loads(done.out)["task"]) == (0, "value"), done.err
    done = headrace("evaluate", run, packed)
    assert done.code == 0 and done.out.startswith("MAE ") and "values.png" in done.out
    done = headrace("predict", run, f"{packed}:val", "--out", tmp_path / "P", "--json")
    assert (done.code, json.loads(done.out)["accuracy"]) == (0, None), done.err
