"""The five texts that Headrace descends from: what each does, said in its own terms, and what it is here.

000 and its draft 001: a Keras `Sequence` over WIDER FACE. 002: a `Sequence` over slices of MRI scans. 003: cats and
dogs as TFRecords. 004: visipedia's `create_tfrecords`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import headrace as hr
from command import headrace
from deep import png16
from drawn import jpeg, saved
from faces import NAMES, Faces
from headrace.cli.demo import draw
from headrace.compat.visipedia import create
from headrace.imaging.sheet import LARGE, contact_sheet, fitted
from headrace.learn import pictures
from headrace.learn.backend import keras
from headrace.learn.recipe import RunFolder
from headrace.load.facts import Facts
from headrace.load.targets import Labels
from painted import assert_painted_at
from said import Said

layers = keras.layers

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "progress": False}


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


# --- 000 and 001: WIDER FACE, a Sequence, a grid of 7 x 7 x 5 --------------------------------------------------------

MAGENTA, GREEN = (233, 30, 140), (0, 200, 90)


def wider(folder: Path, n: int, *, seed: int) -> hr.Source:
    """`n` drawn photos and their text file, as WIDER FACE has it, and one without faces. What the origin stumbles over
    is in it: a count of 0 with a row of zeros, boxes without a width, blanks at the rows' ends."""
    images = folder / "images"
    lines = []
    for record in Faces(images / "0--Drawn", n, seed=seed, size=(96, 128)):
        assert record.boxes is not None
        (x0, y0, x1, y1) = np.rint(record.boxes[0]).astype(int).tolist()
        lines += [
            f"0--Drawn/{record.id}",
            "2",
            f"{x0} {y0} {x1 - x0} {y1 - y0} 0 0 0 0 0 0 ",
            f"{x0} {y0} 0 9 2 0 0 0 2 0 ",
        ]
    (images / "0--Drawn" / "none.jpg").write_bytes(jpeg(96, 128, seed=seed))
    lines += ["0--Drawn/none.jpg", "0", "0 0 0 0 0 0 0 0 0 0 "]
    txt = folder / "bbx_gt.txt"
    txt.write_text("\n".join(lines) + "\n")
    return hr.sources.wider(txt, images=images)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """No graph is made of functions: of MobileNetV2 that takes half a minute, and a few steps take a few seconds."""
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Both text files as one dataset: 25 photos to train on, 9 to validate on."""
    folder = tmp_path_factory.mktemp("wider")
    sources = {"train": wider(folder / "a", 24, seed=0), "val": wider(folder / "b", 8, seed=1)}
    hr.pack(sources, folder / "faces", progress=False)
    return hr.Dataset(folder / "faces")


def origins_network(shape: tuple[int, ...], *, activation: str | None = None, alpha: float = 0.75) -> Any:
    """MobileNetV2 up to its last map, and the head that the draft's table of layers shows. Not compiled."""
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)  # its preprocess_input
    base = keras.applications.MobileNetV2(shape, input_tensor=x, alpha=alpha, weights=None, include_top=False)
    x = base.get_layer("block_16_project_BN").output
    x = layers.Conv2D(240, 3, padding="same", name="conv2d")(x)
    x = layers.Conv2D(240, 3, padding="same", use_bias=False, name="conv2d_1")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(name="batch_normalization")(x))
    return keras.Model(pixels, layers.Conv2D(5, 1, activation=activation, name="conv2d_2")(x))


def test_000_the_dataset_comes_divided(faces: hr.Dataset, eagerly: None, tmp_path: Path) -> None:
    """'We don't have to do it again': WIDER_train and WIDER_val, a text file each.

    Here: a source per split makes one dataset; or a dataset of each, the other one as `val`. What the origin drops or
    repairs by hand (no faces, faces without a width) is counted.
    """
    assert faces.splits == {"train": 25, "val": 9} and faces.manifest.boxes_dropped == {"without width or height": 32}
    train = faces.split("train")
    none = next(record for record in train if record.id.endswith("none.jpg"))
    assert none.boxes is not None and len(none.boxes) == 0  # a photo without faces stays an example
    two = {name: wider(tmp_path / name, n, seed=i) for i, (name, n) in enumerate({"a": 24, "b": 8}.items())}
    for name, source in two.items():
        hr.pack(source, tmp_path / f"{name}-ds", progress=False)
    assert [len(hr.Dataset(tmp_path / f"{name}-ds")) for name in two] == [25, 9]
    columns = ["boxes", "sha256"]
    for name, split in (("a", "train"), ("b", "val")):
        assert hr.Dataset(tmp_path / f"{name}-ds").catalog.select(columns).equals(faces.split(split).catalog[columns])
    options = QUICK | {"size": 64, "model": small_network}
    result = hr.train(tmp_path / "a-ds", val=tmp_path / "b-ds", out=tmp_path / "run", **options)
    assert "val_ap50" in result.best
    recipe = RunFolder(result.run).read_recipe()
    assert recipe.val is not None and (recipe.train.records, recipe.val.records) == (25, 9)


def small_network(shape: tuple[int, ...], classes: int) -> Any:
    """What is made in no time: a grid of cells of 32 pixels."""
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(pixels)
    for filters in (8, 16, 16, 24, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(pixels, layers.Conv2D(5, 1, activation="sigmoid", name="cells")(x))


def test_000_shapes_at_224(faces: hr.Dataset) -> None:
    """224 x 224 x 3 in, 7 x 7 x 240 out of MobileNetV2 0.75, 7 x 7 x 5 out of the head; its layers' parameters."""
    batch = faces.split("train").loader(batch_size=16, size=224, target=hr.Grid(7))[0]
    assert (batch.images.shape, batch.targets.shape) == ((16, 224, 224, 3), (16, 7, 7, 5))
    model = origins_network((224, 224, 3))
    assert model.output_shape == (None, 7, 7, 5)
    assert model.get_layer("block_16_project_BN").output.shape == (None, 7, 7, 240)
    counts = {name: model.get_layer(name).count_params() for name in ("conv2d", "conv2d_1", "batch_normalization")}
    assert counts == {"conv2d": 518640, "conv2d_1": 518400, "batch_normalization": 960}
    assert model.get_layer("conv2d_2").count_params() == 1205


@pytest.mark.parametrize("way", ["as it is, linear, mse", "uncompiled, sigmoid"])
def test_000_its_network_in_our_training(way: str, faces: hr.Dataset, eagerly: None, tmp_path: Path) -> None:
    """Its network with its callbacks, compiled by itself (linear, mean squared error); or with our loss, in a sigmoid.

    Here: `hr.train(ds, model=build, callbacks=[...])`, on detection, which the boxes say; the best epoch is kept,
    judged and asked. The layers are in layers.txt.
    """
    mse = way.endswith("mse")

    def build(shape: tuple[int, ...], classes: int) -> Any:
        model = origins_network(shape, activation=None if mse else "sigmoid")
        if mse:
            model.compile("adam", "mse")
        return model

    told: list[int] = []
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=3),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True, save_best_only=True),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: told.append(epoch)),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, min_delta=1e9, patience=1),
    ]
    options = QUICK | {"size": 64, "batch_size": 25, "epochs": 2 if mse else 1}
    if not mse:
        options["schedule"] = "constant"  # the callback sets the rate, so no schedule may
    result = hr.train(faces, out=tmp_path / "run", model=build, callbacks=callbacks, **options)
    assert result.task == "detection" and told == list(range(result.epochs))
    assert (tmp_path / "best.weights.h5").exists()
    assert {"loss", "val_loss", "val_iou", "val_ap50"} <= result.best.keys()
    if mse:  # the callback halves it, as no epoch is better by so much
        assert [row["learning_rate"] for row in result.history] == pytest.approx([1e-3, 5e-4])
    said = (result.run / "layers.txt").read_text()
    assert "block_16_project_BN" in said and "1,205" in said
    judged = hr.evaluate(result.run, faces, progress=False)
    assert judged.records == 9 and (judged.metrics["loss"] is None) == mse and judged.examples is not None
    assert hr.Run(result.run).predict(faces[0].image, threshold=0).boxes.shape[1] == 4


def test_000_fit_with_two_generators(faces: hr.Dataset) -> None:
    """DataGenerator(file_path=...) twice, one for each text file, into `model.fit`; its callbacks in there too.

    Here: `to_keras()` is a `keras.utils.PyDataset` (its Sequence) with `len`, `[i]` and `on_epoch_end`.
    """
    options = {"batch_size": 16, "size": 64, "target": hr.Grid(2)}
    train, val = (faces.split(name).loader(**options).to_keras() for name in ("train", "val"))
    assert isinstance(train, keras.utils.PyDataset) and (len(train), len(val)) == (2, 1)
    images, boxes = train[1]  # the last one is shorter
    assert images.shape == (9, 64, 64, 3) and boxes.shape == (9, 2, 2, 5) and boxes.dtype == np.float32
    model = small_network((64, 64, 3), 1)
    model.compile("adam", "mse")
    told: list[int] = []
    callbacks = [
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=2),
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss"),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: told.append(epoch)),
    ]
    history = model.fit(train, validation_data=val, epochs=2, verbose=0, callbacks=callbacks)
    assert told == [0, 1] and len(history.history["val_loss"]) == 2


def _at(sheet: Image.Image, image: Any) -> tuple[NDArray[np.int64], float]:
    """The part of a sheet in which an image lies, [h, w, 3], and how many of its pixels one of the image has."""
    wanted = fitted(image, LARGE)
    whole = np.asarray(sheet)
    found = cv2.minMaxLoc(cv2.matchTemplate(whole, wanted, cv2.TM_SQDIFF))[2]
    x, y = found
    height, width = wanted.shape[:2]
    return whole[y : y + height, x : x + width].astype(np.int64), width / image.shape[1]


def _edges(tile: NDArray[np.int64], colour: tuple[int, int, int]) -> list[int]:
    """x0, y0, x1, y1 of what is drawn in a colour."""
    there = np.abs(tile - colour).max(axis=-1) <= 1
    (y0, *_, y1), (x0, *_, x1) = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    return [int(x0), int(y0), int(x1) + 1, int(y1) + 1]


def test_000_the_dataset_is_shown_with_its_boxes(faces: hr.Dataset) -> None:
    """The figures: a photo of the dataset with its boxes (001 has one too), and the point relative to its cell.

    Here: `ds.show()`, and `loader.show()` of a batch as the model gets it: the box in magenta is what `Grid.decode`
    makes of the five numbers, the shaded cell is the one that holds them.
    """
    one = faces.split("val").where("id LIKE '%003.jpg'")
    (record,) = one
    assert record.boxes is not None
    (box,) = record.boxes
    tile, scale = _at(one.show(), record.image)
    assert np.allclose(_edges(tile, GREEN), box * scale, rtol=0, atol=2)
    loader = one.loader(size=(192, 256), target=hr.Grid(7))
    tile, scale = _at(loader.show(), loader[0].images[0])
    assert np.allclose(_edges(tile, MAGENTA), box * 2 * scale, rtol=0, atol=2)
    ((y, x, _),) = np.argwhere(loader[0].targets[0] == 1)  # the cell's fifth number
    height, width = tile.shape[0] / 7, tile.shape[1] / 7
    plain = fitted(loader[0].images[0], LARGE).astype(np.int64)
    shade = np.rint(0.65 * plain + 0.35 * np.array(MAGENTA))
    shaded = (np.abs(tile - shade).max(axis=-1) <= 2) & (np.abs(tile - plain).max(axis=-1) > 2)
    inside = shaded[int(y * height) + 1 : int((y + 1) * height), int(x * width) + 1 : int((x + 1) * width)]
    assert inside.mean() > 0.7 and shaded.sum() < 1.2 * height * width


def test_000_all_settings_in_one_file(faces: hr.Dataset, tmp_path: Path) -> None:
    """cfg.NN, cfg.TRAIN: an EasyDict of sizes, batch and epochs; `model.summary()`; debug=True names what is dropped.

    Here: `--options cfg.toml`, flags go first; the table of the layers is said as training begins; `pack --verbose`.
    """
    (tmp_path / "cfg.toml").write_text('size = 64\nbatch_size = 8\nepochs = 5\naugment = ["flip"]\nseed = 3\n')
    (tmp_path / "net.py").write_text(
        "import keras\n\n\ndef build(input_shape, classes):\n"
        "    pixels = keras.Input(input_shape)\n"
        "    x = keras.layers.AveragePooling2D(32)(keras.layers.Rescaling(1 / 255)(pixels))\n"
        "    return keras.Model(pixels, keras.layers.Conv2D(5, 1, activation='sigmoid', name='cells')(x))\n"
    )
    words = ("--out", tmp_path / "run", "--options", tmp_path / "cfg.toml", "--epochs", 1)
    ended = headrace("train", faces.path, *words, "--model", f"{tmp_path / 'net.py'}:build")
    assert ended.code == 0, ended.err
    assert "cells (Conv2D)" in ended.err and "Total params" in ended.err and "epoch 1/1: 25 images" in ended.err
    options = RunFolder(tmp_path / "run").read_recipe().options
    assert (options.epochs, options.size, options.batch_size, options.augment) == (1, 64, 8, ("flip",))
    wider(tmp_path / "c", 3, seed=4)
    (tmp_path / "c" / "images" / "0--Drawn" / "001.jpg").write_bytes(b"<html>")
    words = ("--format", "wider", "--images", tmp_path / "c" / "images", "--max-rejects", 1)
    ended = headrace("pack", tmp_path / "c" / "bbx_gt.txt", tmp_path / "c-ds", *words, "--verbose")
    assert ended.code == 0 and "001.jpg" in ended.err and "HTML" in ended.err


def test_000_a_source_labels_and_augmentation_of_ones_own(tmp_path: Path) -> None:
    """'Your implementation may and probably will look different': the class is extended for another dataset.

    Here: any iterable of `hr.Record | hr.Reject` is an `hr.Source`; four names on its base make an `hr.Target`, here
    the article's own grid, whose point is the top left corner; five an `hr.Augmentation`.
    """

    class Corners(hr.Target):
        wants_boxes = True
        wants_keypoints = False

        def check(self, facts: Facts) -> None:
            pass

        def encode(self, labels: Labels) -> NDArray[np.float32]:
            grid = np.zeros((len(labels.classes), 7, 7, 5), np.float32)
            height, width = labels.size
            for i, (x0, y0, x1, y1) in zip(labels.box_image, labels.boxes, strict=True):
                y, x = 7 * y0 / height, 7 * x0 / width
                grid[i, int(y), int(x)] = (y1 - y0) / height, (x1 - x0) / width, y % 1, x % 1, 1
            return grid

    class Negative:
        draws, crops, flips = 1, False, False

        def place(self, placement: Any, chance: NDArray[np.float64]) -> Any:
            return placement

        def colour(self, out: NDArray[np.uint8], chance: NDArray[np.float64]) -> None:
            out[:] = 255 - out

    def source() -> Iterator[hr.Record | hr.Reject]:
        box = np.array([[21, 14, 42, 63]], np.float32)
        yield hr.Record(id="a", encoded=saved(np.full((70, 70, 3), 9, np.uint8), "PNG"), boxes=box, box_labels=("it",))
        yield hr.Reject(id="b", origin="list:2", stage="source", reason="no such patient")

    report = hr.pack(source(), tmp_path / "ds", max_rejects=1, progress=False)
    assert (report.stored, report.rejects[0].reason) == (1, "no such patient")
    target: hr.Target = Corners()
    change: hr.Augmentation = Negative()
    loader = hr.Dataset(tmp_path / "ds").loader(size=140, target=target, augment=(change,))
    (grid,) = loader[0].targets
    assert np.argwhere(grid[..., 4]).tolist() == [[1, 2]]
    assert np.allclose(grid[1, 2], [0.7, 0.3, 0.4, 0.1, 1], atol=1e-6) and (loader[0].images == 246).all()
    assert loader.show().size[0] >= LARGE
    model = keras.Sequential([keras.Input((140, 140, 3)), layers.AveragePooling2D(20), layers.Conv2D(5, 1)])
    model.compile("sgd", "mse")
    assert model.fit(loader.to_keras(), epochs=1, verbose=0).history["loss"]


def test_000_wider_itself(real_data: Path, tmp_path: Path) -> None:
    """The two text files of WIDER FACE, as far as their photos are here, as one dataset; its faces drawn."""
    folder = real_data / "wider"
    sources = {
        split: hr.sources.wider(
            folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.here.txt",
            images=folder / f"WIDER_{split}" / "images",
        )
        for split in ("train", "val")
    }
    report = hr.pack(sources, tmp_path / "faces", max_side=320, progress=False)
    assert report.splits == {"train": 260, "val": 102} and not report.rejects
    ds = hr.Dataset(tmp_path / "faces")
    sizes = [max(row) for row in ds.catalog.select("height", "width").rows()]
    assert max(sizes) == 320
    assert ds.split("val").show(12).width > 4 * LARGE
    loader = ds.split("train").loader(batch_size=16, size=64, target=hr.Grid(2))
    assert loader[0].targets[..., 4].sum() > 0 and loader.lost() > 0


# --- 002: slices of MRI scans in arrays ------------------------------------------------------------------------------


def scores(*shape: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """float32 [*shape], mean 0 and deviation 1, and classes int64 [n]: slices of class 1 are brighter at one place."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(np.float32)
    y = np.arange(len(x)) % 2
    x[y == 1, 8:24, 8:24] += 1.5
    return (x - x.mean()) / x.std(), y


def model_of_slices(shape: tuple[int, ...], classes: int = 2) -> Any:
    """get_model(hyperparameters): convolutions on float slices, in a softmax. Not compiled."""
    x = inputs = keras.Input(shape)
    for filters in (8, 8):
        x = layers.MaxPooling2D(4)(layers.Conv2D(filters, 3, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))


def test_002_batches_are_the_arrays_numbers_and_fit_takes_them() -> None:
    """`Generator(x, y, batch_size)`: len, [i], on_epoch_end; (800, 64, 64, 1) and (200, 64, 64, 1) of float32; its
    callbacks, a progress bar of tqdm and EarlyStopping that watches val_acc.

    Here: `ArrayDataset(x, y, dtype="keep")`, divided; what comes out has the very bytes of x. TqdmCallback is tqdm's
    own; TensorFlow Addons, whose bar the origin has, is at its end.
    """
    x, y = scores(1000, 64, 64, 1)
    ds = hr.ArrayDataset(x, y, class_names=("well", "sick"), dtype="keep")
    train, val = ds.divide({"train": 0.8, "val": 0.2}, seed=42)
    assert (len(train), len(val)) == (800, 200) and not np.intersect1d(train.rows, val.rows).size
    for view in (train, val):
        loader = view.loader(batch_size=100, shuffle=False)
        feed = loader.to_keras()
        for i, start in enumerate(range(0, len(view), 100)):
            rows = view.rows[start : start + 100]
            for images, classes in ((loader[i].images, loader[i].targets), feed[i]):
                assert images.dtype == np.float32 and images.tobytes() == x[rows].tobytes()
                assert np.array_equal(classes, y[rows])
    first = next(iter(train.loader(batch_size=100)))  # yield and next()
    assert first.images.tobytes() == x[[int(id_) for id_ in first.ids]].tobytes()

    feed = train.loader(batch_size=100, seed=1).to_keras()
    assert len(feed) == 8 and feed[7][0].shape == (100, 64, 64, 1)
    before = feed[0][0]
    feed.on_epoch_end()
    assert not np.array_equal(before, feed[0][0])
    tqdm_keras = pytest.importorskip("tqdm.keras")
    model = model_of_slices((64, 64, 1))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    said = io.StringIO()
    callbacks = [
        tqdm_keras.TqdmCallback(file=said, desc="slices"),
        keras.callbacks.EarlyStopping(monitor="val_acc", patience=1, min_delta=2, restore_best_weights=True),
    ]
    validation = (x[val.rows], y[val.rows])  # as arrays beside a generator
    history = model.fit(feed, validation_data=validation, epochs=5, verbose=0, callbacks=callbacks)
    assert len(history.history["val_acc"]) == 2  # nothing is better by 2 than anything
    assert "slices" in said.getvalue() and "val_acc" in said.getvalue()


def test_002_x_of_any_shape_and_y_of_any_kind() -> None:
    """'Structure depends on your problem': y is whatever slices, numbers for a regression or masks; x has any axes.

    Here: kept, bit by bit, in the batches and in `fit`; a dict of them for a model with several outputs.
    """
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 4, 16, 16, 2)).astype(np.float32)  # volumes of two channels
    for y in (
        rng.normal(size=12).astype(np.float32),  # an age
        rng.integers(0, 2, (12, 5)),  # several findings
        rng.random((12, 4, 16, 16, 1)) < 0.1,  # where they are
    ):
        batch = hr.ArrayDataset(x, y, dtype="keep").loader(batch_size=8, shuffle=False)[1]
        assert batch.images.tobytes() == x[8:].tobytes() and batch.images.shape == (4, 4, 16, 16, 2)
        assert batch.targets.dtype == y.dtype and batch.targets.tobytes() == y[8:].tobytes()
    both = {"age": rng.normal(size=12).astype(np.float32), "mask": (x[..., :1] > 1).astype(np.float32)}
    inputs = keras.Input((4, 16, 16, 2))
    mask = layers.Conv3D(1, 1, activation="sigmoid", name="mask")(inputs)
    age = layers.Dense(1, name="age")(layers.GlobalAveragePooling3D()(inputs))
    model = keras.Model(inputs, {"age": age, "mask": mask})
    model.compile("adam", {"age": "mse", "mask": "binary_crossentropy"})
    ds = hr.ArrayDataset(x, both, dtype="keep")
    assert model.fit(ds.loader(batch_size=4).to_keras(), epochs=1, verbose=0).history["loss"][0] > 0


def test_002_its_network_in_our_training(tmp_path: Path) -> None:
    """Its get_model and its arrays in `hr.train`: it watches what it is told to, stops early, is judged and asked."""
    x, y = scores(200, 64, 64, 1, seed=2)
    ds = hr.ArrayDataset(x, y, class_names=("well", "sick"), dtype="keep")
    train, val = ds.divide({"train": 0.8, "val": 0.2})
    options = QUICK | {"epochs": 6, "batch_size": 40, "learning_rate": 0.01}
    result = hr.train(
        train, val=val, out=tmp_path / "run", model=model_of_slices, monitor="val_loss", patience=1, **options
    )
    losses = [row["val_loss"] for row in result.history]
    assert result.best["val_loss"] == min(losses) and result.best["val_accuracy"] > 0.9
    assert result.stopped_early == (len(losses) < 6)
    run = hr.Run(result.run)
    assert run.evaluate(val, progress=False).metrics["loss"] == pytest.approx(min(losses), abs=1e-4)
    assert [one.class_name for one in run.predict(x[:4])] == ["well", "sick", "well", "sick"]
    assert run.predict(x[3]).class_name == "sick"
    told = hr.predict(run, val, out=tmp_path / "p", progress=False)
    assert [row["observed"] for row in told.rows] == [ds.class_names[label] for label in val.labels]


def test_002_slices_of_16_bits(tmp_path: Path) -> None:
    """'Slices extracted from MRIs': as files they have 12 bits in 16.

    Here: `value_range` says which numbers are black and white, for files and arrays alike; without it they are refused
    with that hint. Arrays that are kept need none. Volumes (.nii.gz): docs/tutorials/arrays.md, which test_docs runs.
    """
    x = np.linspace(0, 4095, 6 * 20 * 30).astype(np.uint16).reshape(6, 20, 30, 1)
    for k, slice_ in enumerate(x):
        path = tmp_path / "scans" / ("no", "yes")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png16(slice_))
    ended = headrace("pack", tmp_path / "scans", tmp_path / "ds")
    assert ended.code == 1 and "value_range" in ended.err
    ended = headrace("pack", tmp_path / "scans", tmp_path / "ds", "--value-range", "0,4095")
    assert ended.code == 0 and "6 seen = 6 stored" in ended.out
    arrays = hr.ArrayDataset(x, value_range=(0, 4095))
    for record in hr.Dataset(tmp_path / "ds"):
        number = int(Path(record.id).stem)
        assert np.array_equal(record.image, arrays[number].image)
    kept = hr.ArrayDataset(x, dtype="keep").loader(batch_size=6, shuffle=False)[0].images
    assert kept.dtype == np.uint16 and kept.tobytes() == x.tobytes()


def test_002_mri_slices_as_they_come(real_data: Path, tmp_path: Path) -> None:
    """253 files of every kind in `yes/` and `no/`: as 64 x 64 x 1, in a network and a training of one's own."""
    report = hr.pack(hr.sources.folders(real_data / "mri"), tmp_path / "ds", channels=1, size=64, progress=False)
    assert (report.stored, report.classes, report.rejects) == (253, ("no", "yes"), ())
    train, val = hr.Dataset(tmp_path / "ds").divide({"train": 0.8, "val": 0.2})
    model = keras.Sequential([keras.Input((64, 64, 1)), layers.Rescaling(1 / 255), model_of_slices((64, 64, 1))])
    result = hr.train(train, val=val, out=tmp_path / "run", model=model, **QUICK)
    assert result.best["val_loss"] > 0
    assert hr.Run(result.run).evaluate(val, progress=False).examples is not None


# --- 003: cats and dogs as TFRecords ---------------------------------------------------------------------------------

SHARDS, TARGET_SIZE, CLASSES = 16, 160, ["cat", "dog"]
N, N_TEST = 176, 40  # photos with a class, and without

# Its network as it stands; it has no Rescaling, because its records are divided by 255 as they are read.
NETWORK = """
import keras
from keras import layers


def build(input_shape, classes):
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(256, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model
"""
PARAMETERS = 392865


def photo(kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [h, w, 3]: a "cat" is a disc, a "dog" a square; lying or standing."""
    shape = {"cat": "circle", "dog": "square"}[kind]
    height, width = rng.integers(96, 128, 2).tolist()
    return np.asarray(cv2.resize(draw(shape, rng), (width, height)), np.uint8)


def write_as_the_article_does(photos: list[Path], folder: Path) -> list[str]:
    """The article's code: names shuffled, decoded, cropped to 160 x 160, a JPEG again, 16 files by tf.io."""
    tf = pytest.importorskip("tensorflow")

    def decode_jpeg_and_label(filename: Any) -> Any:
        bits = tf.io.read_file(filename)
        image = tf.image.decode_jpeg(bits, channels=3)
        label = tf.strings.split(tf.expand_dims(filename, axis=-1), sep="/").values[-1]
        label = tf.strings.split([label], sep=".").values[0]
        return image, label

    def resize_and_crop_image(image: Any, label: Any) -> Any:
        h, w = tf.shape(image)[0], tf.shape(image)[1]
        image = tf.cond(
            h < w,
            lambda: tf.image.resize(image, [TARGET_SIZE, w * TARGET_SIZE / h]),
            lambda: tf.image.resize(image, [h * TARGET_SIZE / w, TARGET_SIZE]),
        )
        nh, nw = tf.shape(image)[0], tf.shape(image)[1]
        top, left = (nh - TARGET_SIZE) // 2, (nw - TARGET_SIZE) // 2
        return tf.image.crop_to_bounding_box(image, top, left, TARGET_SIZE, TARGET_SIZE), label

    def recompress_image(image: Any, label: Any) -> Any:
        image = tf.cast(image, tf.uint8)
        return tf.image.encode_jpeg(image, optimize_size=True, chroma_downsampling=False), label

    def to_tfrecord(img_bytes: Any, label: Any) -> Any:
        class_num = int(np.argmax(np.array([name.encode() for name in CLASSES]) == label))
        feature = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[img_bytes])),
            "class": tf.train.Feature(int64_list=tf.train.Int64List(value=[class_num])),
        }
        return tf.train.Example(features=tf.train.Features(feature=feature))

    dataset = tf.data.Dataset.from_tensor_slices(sorted(map(str, photos))).shuffle(len(photos), seed=42)
    dataset = dataset.map(decode_jpeg_and_label).map(resize_and_crop_image).map(recompress_image)
    folder.mkdir(parents=True)
    names = []
    for shard, (images, labels) in enumerate(dataset.batch(-(-len(photos) // SHARDS)).as_numpy_iterator()):
        names.append(str(folder / f"cat_dog{shard:02d}-{len(images)}.tfrec"))
        with tf.io.TFRecordWriter(names[-1]) as out:
            for image, label in zip(images, labels, strict=True):
                out.write(to_tfrecord(image, label).SerializeToString())
    return names


class Flow:
    """A dataset of the photos, packed or adopted, and a run of the article's network on it, by command alone."""

    def __init__(self, kind: str, folder: Path, photos: Path, net: Path) -> None:
        self.kind, self.folder, self.photos, self.net = kind, folder, photos, net
        self.ds, self.run = folder / f"{kind}-ds", folder / kind
        if kind == "adopted":
            self.words: tuple[str | Path, ...] = ("adopt", folder / "shards", self.ds, "--classes", ",".join(CLASSES))
        else:
            named = ("--format", "names", "--pattern", "^(?P<label>cat|dog)")
            self.words = ("pack", photos / "train", self.ds, *named, "--size", "160", "--fit", "crop", "--shards", "16")
        self.made = headrace(*self.words)
        self.trained = headrace(*self.train(self.run), "--json")

    def train(self, out: Path) -> tuple[str | Path, ...]:
        """Two epochs on photos brought to 32 x 32, by an options file that makes the bits the same each time."""
        options = self.folder / "run.toml"
        text = "epochs = 2\nbatch_size = 16\nsize = 32\nfit = 'crop'\nseed = 42\ndeterministic = true\n"
        options.write_text(text + "checkpoint_seconds = 0\n")
        divide = ("--divide", "train=0.81,val=0.19")
        return ("train", self.ds, "--out", out, *divide, "--model", f"{self.net}:build", "--options", options)

    @property
    def val(self) -> hr.Dataset:
        return hr.Dataset(self.ds).divide({"train": 0.81, "val": 0.19}, seed=42)[1]


@pytest.fixture(scope="module")
def cats_and_dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/train with the class in each name, data/test1 without one; its shards of the first, its network."""
    folder = tmp_path_factory.mktemp("cats")
    rng = np.random.default_rng(42)
    for i in range(N + N_TEST):
        kind = CLASSES[i % 2]
        path = folder / "photos" / (f"train/{kind}.{i}.jpg" if i < N else f"test1/{i}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(photo(kind, rng), "JPEG", quality=92))
    write_as_the_article_does([*(folder / "photos" / "train").iterdir()], folder / "shards")
    (folder / "net.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def flows(cats_and_dogs: Path) -> dict[str, Flow]:
    photos, net = cats_and_dogs / "photos", cats_and_dogs / "net.py"
    return {kind: Flow(kind, cats_and_dogs, photos, net) for kind in ("adopted", "packed")}


@pytest.fixture(params=["adopted", "packed"])
def flow(request: pytest.FixtureRequest, flows: dict[str, Flow]) -> Flow:
    """The way is the same for the article's shards and for photos that were packed: verbs, options and outputs."""
    return flows[request.param]


def test_003_sixteen_shards(flow: Flow) -> None:
    """'Wrote file cat_dog00-50.tfrec containing 50 records': labels from the names, 16 files of 160 x 160 JPEGs.

    Here: `pack --size 160 --fit crop --shards 16`, which says how many, `info --shards` names each; or the files that
    the article's code wrote, adopted as they are, keys `image` and `class`.
    """
    assert flow.made.code == 0, flow.made.err
    assert f"{N} seen = {N} stored + 0 rejected" in flow.made.out and "16 shards; classes: cat, dog" in flow.made.out
    ds = hr.Dataset(flow.ds)
    assert (ds.image_size, ds.channels, ds.class_counts) == ((160, 160), 3, {"cat": N // 2, "dog": N // 2})
    listed = headrace("info", flow.ds, "--shards").out.splitlines()
    shards = [line for line in listed if line.startswith("  shard ")]
    assert len(shards) == SHARDS and all(" 11 records" in line for line in shards)
    assert headrace("verify", flow.ds).code == 0


def test_003_both_ways_make_the_same_of_a_photo(flows: dict[str, Flow]) -> None:
    """resize_and_crop_image and recompress_image beside `--size 160 --fit crop`: the same photos, record by record.

    Ours are antialiased, and both are JPEGs; without chroma subsampling (444, which is the default here) all the same.
    """
    ours, theirs = (hr.Dataset(flows[kind].ds) for kind in ("packed", "adopted"))
    small = {name: np.stack([cv2.resize(r.image, (40, 40)) for r in ds]) for name, ds in (("o", ours), ("t", theirs))}
    off = np.abs(small["o"][:, None].astype(np.int16) - small["t"][None]).mean(axis=(2, 3, 4))
    assert off.min(axis=1).max() < 4 and sorted(off.argmin(axis=1)) == list(range(N))
    assert np.array_equal(ours.labels, theirs.labels[off.argmin(axis=1)])


def test_003_divided_after_writing_and_its_network_trained(flow: Flow) -> None:
    """VALIDATION_SPLIT = 0.19 of files that are written, for 'more flexibility'; model.summary(), compile, fit.

    Here: `train --divide train=0.81,val=0.19 --model net.py:build`, stratified, by record and not by file. An epoch is
    told as it ends; off a terminal as a line.
    """
    assert flow.trained.code == 0, flow.trained.err
    told = json.loads(flow.trained.out)
    assert told["epochs"] == 2 and {"loss", "accuracy", "val_loss", "val_accuracy"} <= told["best"].keys()
    recipe = RunFolder(flow.run).read_recipe()
    assert recipe.val is not None and (recipe.train.records, recipe.val.records) == (143, 33)
    assert abs(np.diff([*flow.val.class_counts.values()])) <= 1
    assert f"{PARAMETERS:,}" in (flow.run / "layers.txt").read_text()
    assert len(table(flow.run / "history.csv")) == 2


CHILD = """
import os, signal, sys
from headrace.learn.backend import keras

steps, plain = 0, keras.Model.train_on_batch


def counted(self, *args, **kwargs):
    global steps
    logs = plain(self, *args, **kwargs)
    steps += 1
    if steps == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return logs


keras.Model.train_on_batch = counted
from headrace.cli import main

main()
"""


def test_003_killed_and_resumed_by_command(flows: dict[str, Flow], tmp_path: Path) -> None:
    """What `fit` can't: after kill -9 in the middle of an epoch the run goes on to the history it would have had."""
    flow = flows["adopted"]
    command = [sys.executable, "-c", CHILD, *map(str, flow.train(tmp_path / "run"))]
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(table(tmp_path / "run" / "history.csv")) == 1  # 9 batches an epoch: it died in the second
    assert "epoch 1/2: 143 images in" in killed.stderr
    words = ("train", flow.ds, "--out", tmp_path / "run", "--resume", "--model", f"{flow.net}:build")
    ended = headrace(*words)
    assert ended.code == 0 and "epoch 2/2" in ended.err and "epoch 1/2" not in ended.err, ended.err
    assert (tmp_path / "run" / "history.csv").read_bytes() == (flow.run / "history.csv").read_bytes()


class Sheet:
    """What a call put on the sheet of records of evaluate or predict."""

    def __init__(self, words: Sequence[str | Path | int]) -> None:
        with mock.patch.object(pictures, "contact_sheet", wraps=contact_sheet) as made:
            self.ended = headrace(*words)
        assert self.ended.code == 0, self.ended.err
        (self.tiles,), self.options = made.call_args
        self.captions = [tile.caption.split("\n") for tile in self.tiles]


def test_003_evaluate_with_32_validation_photos(flow: Flow) -> None:
    """`loss, accuracy = model.evaluate(...)`, and 32 validation photos, 8 x 4, 'obs: cat', 'est: dog'.

    Here: `headrace evaluate RUN DS`: of all of the validation part, also of a last, short batch; examples.png.
    """
    sheet = Sheet(["evaluate", flow.run, flow.ds])
    assert "accuracy 0." in sheet.ended.out and "(of 33)" not in sheet.ended.out and "loss 0." in sheet.ended.out
    kept = table(flow.run / "history.csv")[json.loads(flow.trained.out)["best"]["epoch"] - 1]
    (report,) = flow.run.glob("evaluations/*/evaluation.json")
    said = json.loads(report.read_text())
    assert (said["records"], said["split"]) == (33, "val")
    assert said["accuracy"] == pytest.approx(float(kept["val_accuracy"]), abs=1e-6)
    assert said["loss"] == pytest.approx(float(kept["val_loss"]), abs=1e-4)
    assert len(sheet.tiles) == 32 and sheet.options["columns"] == 8
    for observed, estimated, id_ in sheet.captions:
        label = flow.val.where(f"id = '{id_}'")[0].label_name
        assert observed == f"obs: {label}" and estimated.startswith(("est: cat ", "est: dog "))
    assert {tile.right for tile in sheet.tiles} <= {True, False}
    with Image.open(report.with_name("examples.png")) as picture:
        assert picture.width > 8 * 160 and 4 * 160 < picture.height < 5 * 220


def test_003_predictions_of_the_split_as_a_table(flow: Flow, tmp_path: Path) -> None:
    """`model.predict_classes` of the validation set, as numbers beside what is observed."""
    ended = headrace("predict", flow.run, f"{flow.ds}:val", "--out", tmp_path)
    assert ended.code == 0, ended.err
    rows = table(tmp_path / "predictions.csv")
    assert list(rows[0]) == ["id", "split", "observed", "estimated", "probability", "p_cat", "p_dog"]
    assert [row["id"] for row in rows] == flow.val.catalog["id"].to_list() and (tmp_path / "predictions.png").exists()
    assert all(row["estimated"] == max(CLASSES, key=lambda name: float(row[f"p_{name}"])) for row in rows)


def test_003_the_first_32_photos_without_a_class(flow: Flow, tmp_path: Path) -> None:
    """data/test1/*.jpg, 32 of them: preprocess_image, predict, 'est: cat'; and one photo alone.

    Here: `predict --limit 32`, and `hr.Run(run).predict(array)`. Photos go the way that training images went. That
    adopted shards were cropped nobody can tell from them: `--fit crop` when training says it, for photos too.
    """
    photos = flow.photos / "test1"
    ended = headrace("predict", flow.run, f"{photos}/*.jpg", "--out", tmp_path, "--limit", 32)
    assert ended.code == 0 and "32 images" in ended.out, ended.err
    rows = table(tmp_path / "predictions.csv")
    assert [Path(row["path"]).name for row in rows] == [f"{N + i}.jpg" for i in range(32)]
    run = hr.Run(flow.run)
    for row in rows[:3]:
        one = run.predict(np.asarray(Image.open(row["path"])))
        assert one.probabilities["cat"] == pytest.approx(float(row["p_cat"]), abs=0.01)


def test_003_photos_for_a_model_of_ones_own_fit(flow: Flow) -> None:
    """The article's own fit, batch by batch from its records; then raw photos prepared as in training.

    Here: `hr.PhotoLoader(paths, like=loader)`.
    """
    loader = flow.val.loader(batch_size=33, size=64, fit="crop", shuffle=False)
    model = keras.Sequential([keras.Input((64, 64, 3)), layers.Rescaling(1 / 255), layers.AveragePooling2D(8)])
    model.add(layers.Flatten())
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(loader.to_keras(), epochs=1, verbose=0)
    paths = sorted((flow.photos / "train").iterdir())
    photos = np.concatenate([batch.images for batch, rejects, _ in hr.PhotoLoader(paths, like=loader) if not rejects])
    assert photos.shape == (N, 64, 64, 3) and photos.dtype == np.uint8
    stored = loader[0].images.astype(np.int16)
    if flow.kind == "packed":  # the ids say which is which, and the pixels are the same
        names = [path.name for path in paths]
        mine = photos[[names.index(id_) for id_ in loader[0].ids]]
        assert np.array_equal(mine, stored)
        said = model.predict(mine, verbose=0)
        assert np.allclose(said, model.predict(loader.to_keras(), verbose=0), rtol=0, atol=1e-6)
    else:
        off = np.abs(photos[:, None].astype(np.int16) - stored[None]).mean(axis=(2, 3, 4))
        assert off.min(axis=0).max() < 5 and len(set(off.argmin(axis=0))) == 33


def test_003_its_read_tfrecord_on_our_shards(flows: dict[str, Flow]) -> None:
    """get_batched_dataset: list_files, interleave, parse_single_example, shuffle, batch(drop_remainder).

    Here: the same code, with our keys, on shards that `pack` wrote; images float32 / 255 and labels int32 as there.
    """
    tf = pytest.importorskip("tensorflow")
    flow = flows["packed"]

    def read_tfrecord(example: Any) -> Any:
        features = {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        }
        example = tf.io.parse_single_example(example, features)
        image = tf.image.decode_jpeg(example["image/encoded"], channels=3)
        image = tf.cast(image, tf.float32) / 255.0
        image = tf.reshape(image, [TARGET_SIZE, TARGET_SIZE, 3])
        return image, tf.cast(example["image/class/label"], tf.int32)

    files = tf.data.Dataset.list_files(str(flow.ds / "*.tfrecord"), shuffle=True, seed=42)
    records = files.interleave(tf.data.TFRecordDataset, cycle_length=16).map(read_tfrecord)
    images, labels = next(iter(records.shuffle(2048, seed=1).batch(32, drop_remainder=True).take(1)))
    assert images.shape == (32, 160, 160, 3) and images.dtype == tf.float32 and labels.dtype == tf.int32
    in_order = tf.data.TFRecordDataset(sorted(map(str, flow.ds.glob("*.tfrecord"))))
    for record, (image, label) in zip(
        hr.Dataset(flow.ds), in_order.map(read_tfrecord).as_numpy_iterator(), strict=True
    ):
        off = np.abs(image * 255 - record.image)
        assert label == record.label and off.mean() < 2 and off.max() < 25  # its decoder is the fast and coarse one
        exact = tf.image.decode_jpeg(record.encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        assert np.array_equal(exact, record.image)


def test_003_a_batch_for_a_tpu(flows: dict[str, Flow], tmp_path: Path) -> None:
    """batch(32, drop_remainder=True), 'needed on TPU', and repeat().

    Here: `loader(drop_last=True)`, `train --drop-last`; `to_tf()` can be repeated, each pass another epoch.
    """
    flow = flows["packed"]
    loader = hr.Dataset(flow.ds).loader(batch_size=32, drop_last=True, size=32)
    assert len(loader) == N // 32 and {len(batch.ids) for batch in loader} == {32}
    shapes = {images.shape for images, _ in loader.to_tf().repeat().take(7).as_numpy_iterator()}
    assert shapes == {(32, 32, 32, 3)}
    ended = headrace(*flow.train(tmp_path / "run"), "--drop-last", "--epochs", 1)
    assert ended.code == 0 and "epoch 1/1: 128 images" in ended.err, ended.err  # of 143, in batches of 16


def test_003_cats_and_dogs_themselves(real_data: Path, tmp_path: Path) -> None:
    """800 photos packed, their shards adopted again: the same records; the article's network sees both."""
    source = hr.sources.names(real_data / "catsdogs" / "train", pattern=r"^(?P<label>cat|dog)\.")
    report = hr.pack(source, tmp_path / "ds", size=160, fit="crop", shards=16, progress=False)
    assert (report.stored, report.shards, report.classes) == (800, 16, ("cat", "dog"))
    adopted = hr.adopt([tmp_path / "ds"], tmp_path / "adopted", classes=CLASSES, progress=False)
    assert (adopted.stored, adopted.splits) == (800, {"train": 800})
    (tmp_path / "net.py").write_text(NETWORK)
    result = hr.train(
        tmp_path / "adopted", out=tmp_path / "run", model=f"{tmp_path / 'net.py'}:build", size=32, fit="crop",
        divide={"train": 0.81, "val": 0.19}, limit=160, **QUICK,
    )  # fmt: skip
    assert hr.evaluate(result.run, tmp_path / "adopted", progress=False).records == 152
    told = hr.predict(result.run, [real_data / "catsdogs" / "test1"], out=tmp_path / "p", limit=32, progress=False)
    assert told.predicted == 32 and not told.rejects


# --- 004: visipedia's create_tfrecords -------------------------------------------------------------------------------


def birds(folder: Path, n: int, *, kind: str, seed: int) -> list[dict[str, Any]]:
    """visipedia's list: `n` black photos longer than 800 pixels with a white rectangle each, its box and area."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    items = []
    for k in range(n):
        height, width = rng.integers(801, 1700, 2).tolist()
        pixels = np.zeros((height, width, 3), np.uint8)
        x0, y0 = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        x1, y1 = int(rng.integers(x0 + 100, width + 1)), int(rng.integers(y0 + 100, height + 1))
        pixels[y0:y1, x0:x1] = 255
        path = folder / f"{k}.{kind.lower()}"
        path.write_bytes(saved(pixels, kind, **({"quality": 95} if kind == "JPEG" else {})))
        sides = {"xmin": x0 / width, "xmax": x1 / width, "ymin": y0 / height, "ymax": y1 / height}
        box = {name: [share] for name, share in sides.items()} | {"label": [0], "text": ["bird"]}
        object_ = {"count": 1, "bbox": box, "area": [(x1 - x0) * (y1 - y0) / (height * width)]}
        label = {"label": k % 2, "text": ("Bunting", "Sparrow")[k % 2]}
        items.append({"filename": str(path), "id": f"{seed}-{k}", "class": label, "object": object_})
    return items


def test_004_a_list_to_shards_of_800_pixels_to_a_dataset(tmp_path: Path) -> None:
    """'Resizing images to 800px seems to work well'; `create(dataset=, dataset_name=, output_directory=, num_shards=,
    num_threads=)`, PNGs made JPEGs, train and test by two calls; failed images with an error_msg.

    Here: the same call with `max_side=800` and `png_to_jpeg=True`; `headrace adopt` makes a dataset of the shards, by
    whose names it tells the splits. The shards' own numbers are judged in tests/unit/test_compat_visipedia.py
    (test_boxes_of_smaller_images_are_where_they_should_be), here what comes out of the dataset.
    """
    train = birds(tmp_path / "train", 6, kind="JPEG", seed=0)
    test = birds(tmp_path / "test", 3, kind="PNG", seed=1)
    gone = {"filename": str(tmp_path / "gone.jpg"), "id": "9", "class": {"label": 0, "text": "Bunting"}}
    shared = {"output_directory": str(tmp_path / "records"), "num_threads": 5, "max_side": 800, "png_to_jpeg": True}
    (failed,) = create(dataset=[*train, gone], dataset_name="train", num_shards=10, **shared)  # type: ignore[arg-type]
    assert failed["id"] == "9" and "no such file" in failed["error_msg"]
    assert create(dataset=test, dataset_name="test", num_shards=2, **shared) == []  # type: ignore[arg-type]
    assert len([*(tmp_path / "records").glob("train-000??-of-00010")]) == 10

    ended = headrace("adopt", tmp_path / "records", tmp_path / "ds")
    assert ended.code == 0 and "9 seen = 9 stored" in ended.out, ended.err
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.splits == {"train": 6, "test": 3} and ds.class_names == ("Bunting", "Sparrow")
    for record in ds:
        assert record.format == "jpeg" and max(record.height, record.width) == 800 and record.boxes is not None
        assert_painted_at(record.image, record.boxes[0], within=0.5)
    area = next(ds.split("test").features("image/id", "image/object/area"))
    wanted = {item["id"].encode(): item["object"]["area"][0] for item in test}
    assert float(area["image/object/area"][0]) == pytest.approx(wanted[area["image/id"]], rel=1e-6)  # type: ignore[index]

    ended = headrace("show", f"{tmp_path / 'ds'}:test", "--out", tmp_path / "birds.png")
    assert ended.code == 0 and "3 of 3 records" in ended.out
    (record,) = one = ds.split("train").sample(1)
    tile, scale = _at(one.show(), record.image)
    assert record.boxes is not None and np.allclose(_edges(tile, GREEN), record.boxes[0] * scale, rtol=0, atol=2)


def test_004_a_list_packed_for_training(tmp_path: Path) -> None:
    """The list as it is, one for each split, into a dataset whose sides are 800 pixels; and a model that is trained."""
    lists = {
        "train": birds(tmp_path / "a", 4, kind="JPEG", seed=0),
        "val": birds(tmp_path / "b", 2, kind="PNG", seed=1),
    }
    sources = {split: hr.sources.visipedia(items) for split, items in lists.items()}
    report = hr.pack(sources, tmp_path / "ds", max_side=800, progress=False)
    assert report.splits == {"train": 4, "val": 2} and report.boxes == 6
    for record in hr.Dataset(tmp_path / "ds"):
        assert record.boxes is not None and max(record.height, record.width) == 800
        assert_painted_at(record.image, record.boxes[0], within=0.5)
    options = QUICK | {"task": "classification", "size": 32, "model": of_classes}
    assert hr.train(tmp_path / "ds", out=tmp_path / "run", **options).best["val_loss"] > 0


def test_004_wider_as_visipedias_list(real_data: Path, tmp_path: Path) -> None:
    """40 photos of WIDER with their faces through `create(max_side=800)` and `adopt`: all faces are there."""
    folder = real_data / "wider"
    txt = folder / "wider_face_split" / "wider_face_val_bbx_gt.here.txt"
    records = [r for r in hr.sources.wider(txt, images=folder / "WIDER_val" / "images") if isinstance(r, hr.Record)]
    items = []
    for record in records[:40]:
        assert record.path is not None and record.boxes is not None
        with Image.open(record.path) as image:
            (x0, y0, x1, y1) = (record.boxes / np.tile(image.size, 2)).T.tolist()
        box = {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1, "text": ["face"] * len(x0), "label": [0] * len(x0)}
        items.append({"filename": record.path, "id": record.id, "object": {"bbox": box}})
    assert create(items, "val", tmp_path / "records", 4, 2, max_side=800) == []
    report = hr.adopt([tmp_path / "records"], tmp_path / "ds", progress=False)
    assert (report.stored, report.boxes) == (40, sum(len(item["object"]["bbox"]["text"]) for item in items))
    assert hr.Dataset(tmp_path / "ds").show(8).width > LARGE


# --- one image in memory, and the same in a file, for all three tasks ------------------------------------------------

SIDE = 64


def of_cells(shape: tuple[int, ...], classes: int) -> Any:
    return small_network(shape, classes)


def of_maps(shape: tuple[int, ...], classes: int) -> Any:
    """Heatmaps of stride 4, not negative."""
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(pixels)
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(pixels, layers.Conv2D(classes, 1, activation="sigmoid")(x))


def of_classes(shape: tuple[int, ...], classes: int) -> Any:
    pixels = keras.Input(shape)
    x = layers.AveragePooling2D(8)(layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))


TASKS = {"classification": of_classes, "detection": of_cells, "keypoints": of_maps}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hr.Run]:
    """A run of each task on the same faces, with boxes, keypoints, and a class."""
    folder = tmp_path_factory.mktemp("tasks")
    drawn = Faces(folder / "photos", 24, seed=3)
    labelled = [replace(record, label_name=("odd", "even")[i % 2]) for i, record in enumerate(drawn)]
    source = Said(labelled, keypoint_names=NAMES)
    hr.pack(source, folder / "ds", progress=False)
    options = QUICK | {"size": SIDE, "batch_size": 24, "learning_rate": 0.01}
    return {
        task: hr.Run(hr.train(folder / "ds", out=folder / task, task=task, model=build, **options).run)
        for task, build in TASKS.items()
    }


def found_in(run: hr.Run, image: Any) -> list[dict[str, str]]:
    """What `Run.predict` says of an image, as rows of predictions.csv."""
    said = run.predict(image, threshold=None if run.task.name == "classification" else 0.2)
    if run.task.name == "classification":
        shares = {f"p_{name}": f"{p:.6f}" for name, p in said.probabilities.items()}
        return [{"class": said.class_name, "probability": f"{said.probability:.6f}", **shares}]
    if run.task.name == "detection":
        return [
            {"score": f"{score:.6f}"}
            | {side: f"{value:.2f}" for side, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
            | {"class": name}
            for box, score, name in zip(said.boxes, said.scores, said.class_names, strict=True)
        ]
    return [
        {"keypoint": name, "score": f"{score:.6f}", "x": f"{x:.2f}", "y": f"{y:.2f}"}
        for name, (x, y, score) in zip(said.names, said.points.tolist(), strict=True)
        if score > 0
    ]


def asked(run: hr.Run, paths: list[Path], out: Path) -> dict[str, list[dict[str, str]]]:
    """What `headrace predict` writes of files, rows by file name."""
    words = () if run.task.name == "classification" else ("--threshold", "0.2")
    ended = headrace("predict", run.folder.folder, *paths, "--out", out, *words)
    assert ended.code == 0, ended.err
    found: dict[str, list[dict[str, str]]] = {path.name: [] for path in paths}
    for row in table(out / "predictions.csv"):
        found[Path(row.pop("path")).name].append(row)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_an_array_is_seen_as_the_file_is(task: str, runs: dict[str, hr.Run], tmp_path: Path) -> None:
    """`hr.Run(run).predict(array)` and `headrace predict` say the same, to the last digit that is written.

    Of PNG files of any size, and of JPEG files less than twice as large as the model's input. A larger JPEG is decoded
    at half its size or less, which is quicker and nearer to an antialiased resize, and an array can't be: the pixels
    that the model sees differ a little, and so may the last digits; a point may go to where its map is as high.
    """
    run = runs[task]
    photos = {
        "a.png": saved(photo("cat", np.random.default_rng(1)), "PNG"),
        "b.png": saved(photo("dog", np.random.default_rng(2))[..., :1], "PNG"),  # grey
        "c.png": jpeg_as("PNG", 300, 200),
        "d.jpg": jpeg(100, 120, seed=4, quality=90),
        "e.jpg": jpeg(64, 64, seed=5, quality=80),
        "f.jpg": jpeg(50, 127, seed=6),
        "large.jpg": jpeg(420, 300, seed=7, quality=95),
    }
    paths = []
    for name, data in photos.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    found = asked(run, paths, tmp_path / "p")
    for path in paths:
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())))
        told, said = found[path.name], found_in(run, pixels)
        assert told, "nothing to compare"
        if path.name != "large.jpg":
            assert said == told == found_in(run, path), path.name
            continue
        assert found_in(run, path) == told and [*map(list, said)] == [*map(list, told)]
        for mine, its in zip(said, told, strict=True):
            for name, text in mine.items():
                if name in ("class", "keypoint"):
                    assert text == its[name]
                elif name in ("x0", "y0", "x1", "y1", "x", "y"):
                    off = 4 if task == "detection" else 420 * 4 / SIDE  # pixels of 420; a cell of the map is 4 of 64
                    assert float(text) == pytest.approx(float(its[name]), abs=off)
                else:
                    assert float(text) == pytest.approx(float(its[name]), abs=0.01)
    several = run.predict([np.asarray(Image.open(io.BytesIO(photos[name]))) for name in ("a.png", "d.jpg")])
    assert len(several) == 2


def jpeg_as(kind: str, height: int, width: int) -> bytes:
    """The pixels of a drawn JPEG in a file that loses nothing."""
    return saved(np.asarray(Image.open(io.BytesIO(jpeg(height, width, seed=height)))), kind)
