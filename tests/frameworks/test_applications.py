"""The networks of keras.applications as models: what they see, their weights, their names; judged by Keras's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import headrace as hr
from command import headrace
from headrace.errors import NotThereError, UsageError
from headrace.learn.applications import Application, applications, features, prepared
from headrace.learn.backend import keras
from headrace.learn.recipe import RunFolder
from headrace.learn.tasks.classification import Classification
from headrace.learn.tasks.detection import Detection
from headrace.learn.tasks.keypoints import Keypoints
from headrace.learn.tasks.multilabel import MultiLabelled
from headrace.learn.tasks.value import Value

KNOWN = applications()
OF_MODULE = {application.module: application for application in KNOWN.values()}
THREE = Classification(("a", "b", "c"))


def test_all_that_keras_has_are_known() -> None:
    assert set(KNOWN) == {name for name in dir(keras.applications) if name[0].isupper()}


def _pixels(side: int = 32) -> Any:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def _preprocessed(application: Application, pixels: Any) -> Any:
    module = getattr(keras.applications, application.module)
    return module.preprocess_input(pixels.astype(np.float32))


@pytest.mark.parametrize("module", sorted(OF_MODULE))
def test_pixels_come_as_kerass_own_preprocessing_has_them(module: str, tmp_path: Path) -> None:
    application = OF_MODULE[module]
    raw = keras.Input((32, 32, 3))
    model = keras.Model(raw, prepared(raw, application.takes))
    wanted = _preprocessed(application, _pixels())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(_pixels())), wanted, atol=1e-4)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(again(_pixels())), wanted, atol=1e-4)


@pytest.mark.parametrize("module", sorted(OF_MODULE))
def test_sizes_below_what_keras_takes_are_refused(module: str) -> None:
    application = OF_MODULE[module]
    least = application.least
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        application.function(input_shape=(least - 1, 96, 3), include_top=False, weights=None)
    with pytest.raises(UsageError, match=rf"wants images of {least} x {least} pixels or more, these have {least - 1} "):
        features(application, keras.Input((least - 1, 96, 3)))


def _ours(name: str, **options: Any) -> Any:
    raw = keras.Input((32, 32, 3))
    return keras.Model(raw, features(KNOWN[name], raw, **options))


def _told(model: Any, pixels: Any) -> Any:
    return keras.ops.convert_to_numpy(model(pixels, training=False))


@pytest.mark.parametrize(
    ("name", "options"),
    [("VGG16", {}), ("MobileNet", {"alpha": 0.25}), ("MobileNetV3Small", {"alpha": 0.75}), ("EfficientNetV2B0", {})],
)
def test_weights_of_a_file_say_what_they_say_in_keras(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "base.weights.h5"
    donor = KNOWN[name].function(input_shape=(32, 32, 3), include_top=False, weights=None, **options)
    donor.save_weights(path)
    wanted = _told(donor, _preprocessed(KNOWN[name], _pixels()))
    found = _told(_ours(name, weights=str(path), **options), _pixels())
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


def test_efficientnets_see_the_same_pixels_by_name_and_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's own, given imagenet weights, has a layer that it has not with the same weights of a file."""
    path = tmp_path / "base.weights.h5"
    function = KNOWN["EfficientNetB0"].function
    donor = function(input_shape=(32, 32, 3), include_top=False, weights=None)
    (norm,) = (layer for layer in donor.layers if isinstance(layer, keras.layers.Normalization))
    norm.adapt_mean.assign([0.485, 0.456, 0.406])
    norm.adapt_variance.assign([0.229, 0.224, 0.225])
    donor.save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    wanted = _told(function(input_shape=(32, 32, 3), include_top=False, weights="imagenet"), _pixels())
    near = {"rtol": 1e-3, "atol": 1e-4 * float(np.abs(wanted).max())}
    for weights in ("imagenet", str(path)):
        np.testing.assert_allclose(_told(_ours("EfficientNetB0", weights=weights), _pixels()), wanted, **near)
    # One from random weights, whose pixels nobody has normalised, is taken as it is.
    norm.adapt_mean.assign([0.0] * 3)
    norm.adapt_variance.assign([1.0] * 3)
    norm.finalize_state()
    donor.save_weights(path)
    found = _told(_ours("EfficientNetB0", weights=str(path)), _pixels())
    wanted = _told(donor, _pixels())
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("resnet50", "ResNet50"),
        ("efficientnetv2-b0", "EfficientNetV2B0"),
        ("convnext_tiny", "ConvNeXtTiny"),
        ("MobileNet-V3 small", "MobileNetV3Small"),
        ("MobileNetV2", "mobilenet_v2"),  # ours comes first
        ("Vanilla", "vanilla"),
        (None, "vanilla"),
    ],
)
def test_names_are_spelled_as_one_likes(said: str | None, name: str) -> None:
    assert THREE.model_name(said) == name


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("resnet51", "model is 'resnet51'; near are ResNet50, .*classification has vanilla, mobilenet_v2, and the net"),
        ("", "model is ''; classification has"),
        ("resnet50_points", "near are "),
    ],
)
def test_unknown_names_are_told_their_neighbours(said: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        THREE.model_name(said)


def test_every_task_takes_them() -> None:
    some = {"alpha": 0.25}
    assert MultiLabelled(("a", "b")).build("MobileNet", (32, 48, 1), some).output_shape == (None, 2)
    assert Value(("value",)).build("MobileNet", (32, 32, 3), some).output_shape == (None, 1)
    assert Detection(("a", "b")).build("MobileNet", (96, 96, 3), some).output_shape == (None, 3, 3, 7)
    points = Keypoints(("eye", "nose"))
    assert points.build("MobileNet", (64, 96, 3), some).output_shape == (None, 16, 24, 2)
    assert points.build(points.model_name("mobilenet-points"), (64, 96, 3), some).output_shape == (None, 2, 3)
    with pytest.raises(UsageError, match=r"InceptionV3 has no features of 3 x 3 cells for images of 96 x 96 pixels"):
        Detection(("a",)).build("InceptionV3", (96, 96, 3), {})
    with pytest.raises(UsageError, match="multiples of 32 pixels"):
        points.build("MobileNet", (60, 96, 3), some)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ResNet50", {"alpha": 0.5}, UsageError, "ResNet50 has no option alpha; it takes weights, frozen"),
        ("MobileNet", {"alpha": 0.0}, UsageError, "alpha is 0.0, wanted a number above 0"),
        ("MobileNet", {"alpha": 0.001}, UsageError, r"alpha is 0\.001, which MobileNet can't have; .*filters"),
        ("MobileNet", {"alpha": 0.3, "weights": "imagenet"}, UsageError, r"no such imagenet weights \(.*alpha"),
        ("VGG16", {"weights": "none.h5"}, NotThereError, "there is no such weights file"),
        ("VGG16", {"frozen": True}, UsageError, "learns nothing"),
        ("VGG16", {"weights": 3}, UsageError, "weights is 3"),
    ],
)
def test_what_does_not_go_together(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        THREE.build(name, (64, 64, 3), options)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise Exception("URL fetch failure on https://…: None -- [Errno -3] Temporary failure\nmore")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    with pytest.raises(
        UsageError, match=r"downloaded \(URL fetch .* failure\); .*applications\.MobileNet\(include_top"
    ):
        THREE.build("MobileNet", (64, 64, 3), {"weights": "imagenet"})
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(other)
    with pytest.raises(UsageError, match=r"other\.weights\.h5 does not fit a MobileNet without top"):
        THREE.build("MobileNet", (64, 64, 3), {"weights": str(other)})


def test_train_by_name_from_a_file_of_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    for i in range(24):
        name = ("dark", "light")[i % 2]
        (photos / name).mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 100, (32, 32, 3)) + 150 * (i % 2)
        cv2.imwrite(str(photos / name / f"{i}.png"), image.astype(np.uint8))
    hr.pack(hr.sources.folders(photos), tmp_path / "ds", splits={"train": 0.5, "val": 0.5}, progress=False)
    weights = tmp_path / "base.weights.h5"
    donor = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, include_top=False)
    donor.save_weights(weights)
    run = tmp_path / "run"
    words = ["train", tmp_path / "ds", "--out", run, "--model", "mobile-net", "--alpha", 0.25, "--weights", weights]
    done = headrace(*words, "--frozen", "--epochs", 2, "--batch-size", 8, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["model"] == RunFolder(run).read_recipe().model == "MobileNet"
    model = keras.saving.load_model(run / "model.keras")
    kernel = model.get_layer("features").get_layer("conv1").kernel
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(kernel), keras.ops.convert_to_numpy(donor.get_layer("conv1").kernel)
    )
    weights.unlink()  # what is trained needs it no more
    judged = hr.evaluate(run, tmp_path / "ds", split="val")
    assert judged.metrics["accuracy"] == pytest.approx(told["best"]["val_accuracy"])
