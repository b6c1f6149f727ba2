"""What a training may be asked for beside its model: mixed images, weights of classes, precision, devices."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import headrace as hr
from command import headrace
from headrace.errors import UsageError
from headrace.learn import backbones, devices
from headrace.learn.backend import keras, precision
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks.classification import Classification
from headrace.learn.tasks.detection import Detection
from headrace.learn.tasks.keypoints import Keypoints
from headrace.learn.tasks.value import Value
from headrace.learn.train import batch_weights, train

N, DISCS = 64, 16  # images, and how many of them are discs


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and frames of 32 x 32 pixels, one to three."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(0)
    for i in range(N):
        name = "disc" if i % (N // DISCS) == 0 else "frame"
        image = rng.integers(0, 90, (32, 32, 3), np.uint8)
        x, y, r = (int(rng.integers(low, high)) for low, high in ((10, 22), (10, 22), (6, 10)))
        if name == "disc":
            cv2.circle(image, (x, y), r, (250, 240, 230), -1)
        else:
            cv2.rectangle(image, (x - r, y - r), (x + r, y + r), (230, 240, 250), 2)
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "photos" / name / f"{i}.png"), image)
    hr.pack(hr.sources.folders(folder / "photos"), folder / "ds", splits={"train": 0.75, "val": 0.25}, progress=False)
    return folder / "ds"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(pixels: Any, classes: int) -> Any:
        x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(backbones.normalised(pixels))
        pooled = keras.layers.GlobalMaxPooling2D()(x)
        return keras.layers.Dense(classes, activation="softmax", dtype="float32")(pooled)

    monkeypatch.setitem(Classification.models, "tiny", tiny)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _policy() -> Iterator[None]:
    before = keras.config.dtype_policy().name
    yield
    assert keras.config.dtype_policy().name == before  # whatever happened


QUICK = Options(epochs=1, batch_size=16, model="tiny", checkpoint_seconds=0)


# --- mixed images


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_images_are_learnt_softly_and_gone_on_with(packed: Path, tmp_path: Path, mix: str) -> None:
    options = replace(QUICK, mix=mix, epochs=2)
    whole = train(packed, out=tmp_path / "whole", options=options)
    train(packed, out=tmp_path / "run", options=replace(options, epochs=1))
    after = train(packed, out=tmp_path / "run", options=options, resume=True)
    assert RunFolder(tmp_path / "run").read_recipe().options.mix == mix
    for row, other in zip(after.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    plain = train(packed, out=tmp_path / "plain", options=replace(options, mix=None))
    assert plain.history[0]["loss"] != pytest.approx(whole.history[0]["loss"], rel=1e-4)
    # Judged is what is not mixed: by the same numbers as ever.
    val = hr.evaluate(tmp_path / "whole", packed, split="val")
    best = whole.best
    assert (val.metrics["loss"], val.metrics["accuracy"]) == pytest.approx(
        (best["val_loss"], best["val_accuracy"]), rel=1e-4
    )


def test_one_number_for_two_classes_learns_from_mixed_images(packed: Path, tmp_path: Path) -> None:
    def build(input_shape: tuple[int, ...], classes: int) -> Any:
        pixels = keras.Input(input_shape)
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
        return keras.Model(pixels, keras.layers.Dense(1, activation="sigmoid")(x))

    found = train(packed, out=tmp_path / "run", model=build, options=replace(QUICK, model=None, mix="mixup"))
    assert 0 <= found.best["val_accuracy"] <= 1 and found.best["loss"] > 0
    task = replace(Classification(("a", "b")), one=True, soft=True)
    np.testing.assert_allclose(task.learnt(np.array([[0.25, 0.75]], np.float32)), [[0.75]])
    np.testing.assert_allclose(task.learnt(np.array([1, 0])), [[1], [0]])
    loss = keras.losses.BinaryCrossentropy()
    assert float(loss(task.learnt(np.array([[0.25, 0.75]])), np.array([[0.6]]))) == pytest.approx(
        -0.75 * np.log(0.6) - 0.25 * np.log(0.4), rel=1e-5
    )


def test_mosaics_show_a_detector_four_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = np.array([[4, 4, 28, 28]], np.float32)
    encoded = cv2.imencode(".png", np.full((32, 32, 3), 200, np.uint8))[1].tobytes()
    records = [hr.Record(id=f"{i}.png", encoded=encoded, boxes=box, box_labels=("x",)) for i in range(8)]
    hr.pack(records, tmp_path / "ds", splits={"train": 0.5, "val": 0.5}, progress=False)
    seen: list[float] = []
    step = keras.Model.train_on_batch

    def counted(self: Any, x: Any, y: Any, **options: Any) -> Any:
        seen.extend(y[..., 4].sum(axis=(1, 2)).tolist())
        return step(self, x, y, **options)

    def cells(shape: tuple[int, ...], classes: int) -> Any:
        return keras.Sequential([keras.Input(shape), keras.layers.Conv2D(5, 8, 8, activation="sigmoid")])

    monkeypatch.setattr(keras.Model, "train_on_batch", counted)
    options = Options(epochs=1, batch_size=4, size=32, augment=(), mix="mosaic")
    found = train(tmp_path / "ds", out=tmp_path / "run", model=cells, options=options)
    assert seen == [4.0] * 4 and found.best["val_loss"] > 0


@pytest.mark.parametrize(
    ("task", "mix", "message"),
    [
        (Classification(("a", "b")), "mosaic", "mix is 'mosaic'; classification has mixup, cutmix"),
        (Value(("value",)), "mosaic", "mix is 'mosaic'; value has mixup, cutmix"),
        (Detection(("a",)), "mixup", "mix is 'mixup'; detection has mosaic"),
        (Keypoints(("a",)), "cutmix", "mix is 'cutmix'; keypoints has mosaic"),
    ],
)
def test_mixes_that_say_nothing_of_a_task(task: Any, mix: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task.mixed_by(mix)


# --- weights of classes


def test_how_much_images_count_by_class() -> None:
    weights = np.array([2, 0.5], np.float32)
    np.testing.assert_array_equal(batch_weights(np.array([0, 1, 1]), weights), np.array([2, 0.5, 0.5], np.float32))
    soft = batch_weights(np.array([[1, 0], [0.5, 0.5]], np.float32), weights)
    np.testing.assert_allclose(soft, [2, 1.25])


def test_balanced_classes_count_the_same_together(packed: Path) -> None:
    view, task = hr.Dataset(packed).split("train"), Classification(("disc", "frame"))
    weights = task.class_weights(view, "balanced")
    counts = np.bincount(view.labels)
    assert counts[0] < counts[1] and (weights * counts).tolist() == pytest.approx([len(view) / 2] * 2)
    assert task.class_weights(view, {"disc": 3}).tolist() == [3, 1]


def test_class_weights_weigh_what_is_learnt_and_not_what_is_judged(packed: Path, tmp_path: Path) -> None:
    options = replace(QUICK, batch_size=64)  # a single step, whose loss is that of the first weights
    plain = train(packed, out=tmp_path / "plain", options=options).history[0]
    double = train(packed, out=tmp_path / "double", options=options, class_weights={"disc": 2, "frame": 2}).history[0]
    discs = train(packed, out=tmp_path / "discs", options=options, class_weights={"frame": 0}).history[0]
    assert double["loss"] == pytest.approx(2 * plain["loss"], rel=1e-4)
    frames = train(packed, out=tmp_path / "frames", options=options, class_weights={"disc": 0}).history[0]
    assert discs["loss"] + frames["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    assert double["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-2)  # Adam's steps don't know the scale


def test_balanced_samples(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    step = keras.Model.train_on_batch

    def counted(self: Any, x: Any, y: Any, **options: Any) -> Any:
        seen.extend(y.tolist())
        return step(self, x, y, **options)

    monkeypatch.setattr(keras.Model, "train_on_batch", counted)
    found = train(packed, out=tmp_path / "run", options=replace(QUICK, sample="balanced", epochs=2))
    counts = np.bincount(seen)
    assert counts.sum() == 2 * 48 and abs(counts[0] - counts[1]) <= 4
    assert len(found.history) == 2
    assert train(packed, out=tmp_path / "run", epochs=3, resume=True).history[:2] == found.history


# --- precision


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_within_float32_without(packed: Path, tmp_path: Path, name: str) -> None:
    options = replace(QUICK, precision=name, epochs=2)
    whole = train(packed, out=tmp_path / "whole", options=options)
    train(packed, out=tmp_path / "run", options=replace(options, epochs=1))
    after = train(packed, out=tmp_path / "run", epochs=2, resume=True)  # by the run's own recipe
    for row, other in zip(after.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    full = train(packed, out=tmp_path / "full", options=replace(options, precision="float32"))
    assert after.best["loss"] == pytest.approx(full.best["loss"], rel=0.1)
    run = Run(tmp_path / "run")
    assert run.recipe.options.precision == name
    computes = {layer.compute_dtype for layer in run.model.layers if layer.weights}
    assert computes == {name.removeprefix("mixed_"), "float32"}
    assert run.model.compute_output_spec(keras.KerasTensor((1, 32, 32, 3))).dtype == "float32"
    assert {str(weight.dtype) for weight in run.model.weights} == {"float32"}
    with pytest.raises(UsageError, match=f"precision is 'float32', the run has '{name}'"):
        train(packed, out=tmp_path / "run", precision="float32", epochs=3, resume=True)


def test_built_in_models_end_in_float32() -> None:
    small = {"alpha": 0.35}
    with precision("mixed_bfloat16"):
        for made in (
            Classification(("a", "b")).build("vanilla", (32, 32, 3), {}),
            Value(("value",)).build("vanilla", (32, 32, 3), {}),
            Detection(("a",)).build("mobilenet_v2", (32, 32, 3), small),
            Detection(("a",)).build("mobilenet_v2_multiscale", (32, 32, 3), small),
            Keypoints(("a",)).build("mobilenet_v2", (32, 32, 3), small),
            Keypoints(("a",)).build("mobilenet_v2_points", (32, 32, 3), small),
        ):
            assert made.outputs[0].dtype == "float32"
            assert made.dtype_policy.name == "mixed_bfloat16"


def test_precision_and_networks_of_ones_own(packed: Path, tmp_path: Path) -> None:
    def build(input_shape: tuple[int, ...], classes: int, dtype: str | None = None) -> Any:
        pixels = keras.Input(input_shape)
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
        return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax", dtype=dtype)(x), name="mine")

    options = replace(QUICK, model=None, precision="mixed_bfloat16")
    with pytest.raises(UsageError, match=r"build ends in numbers of bfloat16, .*: give its last layer dtype='float32'"):
        train(packed, out=tmp_path / "run", model=build, options=options)
    with pytest.raises(UsageError, match=r"precision is 'mixed_bfloat16', and this network has been made already"):
        train(packed, out=tmp_path / "run", model=build((32, 32, 3), 2), options=options)
    assert not (tmp_path / "run").exists()

    def whole(input_shape: tuple[int, ...], classes: int) -> Any:
        return build(input_shape, classes, "float32")

    train(packed, out=tmp_path / "run", model=whole, options=options)
    run = Run(tmp_path / "run", network=whole)
    assert run.model.layers[1].compute_dtype == "bfloat16"


# --- several devices


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_several_devices_learn_what_one_does(packed: Path, tmp_path: Path, backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    script = Path(__file__).with_name("run_shared_training.py")
    count = {"jax": 4, "tensorflow": 2}[backend]
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
    }
    done = subprocess.run(
        [sys.executable, script, packed, tmp_path, str(count)],
        env=environment, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name in ("shared", "fewer"):
        for ours, theirs in zip(told[name], told["alone"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3), name
    assert told["apart"] < 1e-3
    assert told["steps"] == "all" and told["left"] and not told["made"]
    devices = ", ".join(f"cpu:{i}" for i in range(count))
    assert told["errors"] == [
        f"devices is {count + 1}; there are {count}: {devices}",
        f"devices is 0,{count}; there are {count}: {devices}, without {count}",
        f"batch_size is {8 * count + 1}, and {count} devices share a batch evenly; wanted a multiple of {count}",
        f"devices is {count}, and this network has been made already: pass the function that makes it",
    ]


def test_torch_says_how_several_devices_are_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(devices, "_there", lambda: ["cuda:0", "cuda:1"])
    said = r"devices is 'all': Keras on torch trains on one device .*torchrun, .*world='auto'"
    with pytest.raises(UsageError, match=said), devices.in_use("all"):
        pass
    with devices.in_use(1) as alone:
        assert alone.count == 1


# --- bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet51"], "--model is 'resnet51'; near are ResNet50"),
        (["--mix", "mixin"], "--mix is 'mixin', wanted one of mixup, cutmix, mosaic"),
        (["--mix", "mosaic"], "--mix is 'mosaic'; classification has mixup, cutmix"),
        (["--precision", "half"], "--precision is 'half', wanted one of float32, mixed_float16, mixed_bfloat16"),
        (["--devices", "many"], "--devices 'many': wanted how many, all, or numbers such as 0,1"),
        (["--devices", "0"], "--devices is 0, wanted how many, all, or different numbers such as 0,1"),
        (["--devices", "1,1"], "--devices is '1,1', wanted how many, all, or different numbers such as 0,1"),
        (["--devices", "999"], "--devices is 999; there "),
        (["--class-weights", "even"], "--class-weights is 'even', wanted balanced, or weights by class"),
        (["--class-weights", "disc=x"], "--class-weights 'disc=x': 'disc=x' is not NAME=NUMBER"),
        (["--class-weights", "disk=2"], "class 'disk'; did you mean 'disc'?"),
        (["--class-weights", "disc=-1"], "class_weights: -1.0 for class 'disc', wanted a number of 0 or more"),
        (["--class-weights", "disc=1e300"], "class_weights: 1e+300 is larger than float32 can hold"),
        (["--class-weights", "disc=0,frame=0"], "class_weights are 0 for all 48 records"),
        (["--sample", "wide"], "sample: "),
        (["--sample", "disk=2"], "class 'disk'; did you mean 'disc'?"),
    ],
)
def test_what_can_not_be_meant_is_one_line(packed: Path, tmp_path: Path, words: list[str], message: str) -> None:
    done = headrace("train", packed, "--out", tmp_path / "run", *words)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert not (tmp_path / "run").exists()


def test_class_weights_are_for_classes(tmp_path: Path) -> None:
    view = hr.ArrayDataset(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4.0), labels="value")
    with pytest.raises(UsageError, match="class_weights are for classification, this run's task is value"):
        train(view, out=tmp_path / "run", class_weights="balanced")


def test_recipes_of_before_are_read(packed: Path, tmp_path: Path) -> None:
    train(packed, out=tmp_path / "run", options=QUICK)
    path = tmp_path / "run" / "recipe.json"
    recipe = json.loads(path.read_text())
    for name in ("mix", "class_weights", "sample", "precision", "devices"):
        del recipe["options"][name]
    path.write_text(json.dumps(recipe))
    assert len(train(packed, out=tmp_path / "run", epochs=2, resume=True).history) == 2


def test_options_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "o.toml"
    path.write_text('mix = "cutmix"\nclass_weights = {cat = 2}\nsample = "balanced"\ndevices = [0, 1]\n')
    read = Options.read(path)
    assert (read.mix, read.class_weights, read.sample, read.devices) == ("cutmix", {"cat": 2}, "balanced", (0, 1))
