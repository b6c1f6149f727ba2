"""The detection head at several strides: small boxes that a grid has no place for are learnt, judged and found."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import headrace as hr
from command import headrace
from headrace.errors import UsageError
from headrace.imaging.codec import encode_jpeg
from headrace.learn import backbones, boxes
from headrace.learn.backend import keras
from headrace.learn.recipe import Options
from headrace.learn.run import Run
from headrace.learn.tasks import detection
from headrace.learn.tasks.detection import PYRAMID, Detection
from headrace.learn.train import Trained, train
from headrace.load.targets import Labels

N, SIDE = 64, 96
NAMES = ("blue", "red")
TASK = Detection(NAMES)
MULTISCALE = "mobilenet_v2_multiscale"


def crowd(folder: Path, n: int) -> list[hr.Record]:
    """`n` images of 96 x 96 pixels: noise, and twelve discs of 9 to 13 pixels."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(n):
        image = rng.integers(0, 80, (SIDE, SIDE, 3), np.uint8)
        found, names = [], []
        for place in rng.permutation(16)[:12]:
            r = int(rng.integers(4, 7))
            x, y = (int(24 * k + rng.integers(r + 1, 23 - r)) for k in (place % 4, place // 4))
            red = bool(rng.integers(2))
            cv2.circle(image, (x, y), r, (250, 60, 60) if red else (60, 60, 250), -1)
            found.append((x - r, y - r, x + r + 1, y + r + 1))
            names.append(NAMES[red])
        path = folder / f"{i:02d}.jpg"
        path.write_bytes(encode_jpeg(image))
        box = np.array(found, np.float32)
        records.append(hr.Record(id=path.name, path=str(path), boxes=box, box_labels=tuple(names)))
    return records


def _maps(pixels: Any) -> list[Any]:
    """Features of strides 8, 16 and 32 that are traced in no time and see discs."""
    x, maps = backbones.normalised(pixels), []
    for filters in (8, 16, 24, 32, 32):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=backbones.MOMENTUM)(x))
        maps.append(x)
    return maps[2:]


def tiny(pixels: Any, classes: int) -> Any:
    return detection.pyramid_of(_maps(pixels), classes)


def tiny_grid(pixels: Any, classes: int) -> Any:
    return detection.grid_of(_maps(pixels)[-1], classes)


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, model in (("tiny", tiny), ("tiny_grid", tiny_grid)):
            patch.setitem(Detection.models, name, model)  # type: ignore[index]
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crowd")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    splits = {"train": 0.75, "val": 0.25}
    hr.pack(crowd(folder / "photos", N), folder / "ds", splits=splits, progress=False)
    return folder / "ds"


LEARN = Options(epochs=25, size=SIDE, learning_rate=1e-2, augment=("flip",), cache="memory")


@pytest.fixture(scope="module")
def trained(packed: Path, folder: Path) -> Trained:
    return train(packed, out=folder / "run", options=replace(LEARN, model="tiny"), progress=False)


def test_it_finds_small_boxes_that_a_grid_has_no_place_for(trained: Trained, packed: Path, folder: Path) -> None:
    """Twelve boxes an image, and a grid of nine cells."""
    losses = [row["loss"] for row in trained.history]
    assert losses[-1] < 0.5 * losses[0]
    grid = train(packed, out=folder / "grid", options=replace(LEARN, model="tiny_grid"), progress=False)
    assert trained.best["val_ap50"] > 0.8 and trained.best["val_iou"] > 0.6
    assert grid.best["val_ap50"] < trained.best["val_ap50"] - 0.2
    val = hr.Dataset(packed).split("val").loader(size=SIDE, target=hr.Grid(3))
    share = val.lost() / 192
    assert share > 0.3 and grid.best["val_ap50"] < 1 - share + 0.05  # what is lost can't be found


def test_of_a_crowd_each_is_found_once(trained: Trained, packed: Path) -> None:
    found = Run(trained.run).evaluate(packed, progress=False).metrics
    assert (found["boxes"], found["ap50_by_size"]["small"]["boxes"]) == (192, 192)
    assert found["true"] > 150 and found["false"] < 30
    assert found["ap50"] == pytest.approx(trained.best["val_ap50"], abs=1e-4)
    assert found["mean_iou"] == pytest.approx(trained.best["val_iou"], abs=1e-4)


def test_the_recipe_is_that_of_any_other(trained: Trained) -> None:
    recipe = Run(trained.run).recipe
    assert (recipe.task, recipe.model, recipe.class_names, recipe.shape) == ("detection", "tiny", NAMES, (96, 96, 3))
    assert Run(trained.run).task.target((96, 96)) == hr.Pyramid(classes=2)  # of the shape that the model says


def test_more_epochs_go_on_from_the_last(packed: Path, tmp_path: Path) -> None:
    options = replace(LEARN, model="tiny", epochs=1, schedule="constant", deterministic=True, limit=16)
    train(packed, out=tmp_path / "run", options=options, progress=False)
    after = train(packed, out=tmp_path / "run", resume=True, epochs=2, progress=False)
    whole = train(packed, out=tmp_path / "whole", options=replace(options, epochs=2), progress=False)
    for row, other in zip(after.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()}))
def test_other_backends(name: str, trained: Trained, packed: Path, tmp_path: Path) -> None:
    """The run of this one says the same there, of which loss and IoU are the same; and they train."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    run = Run(trained.run)
    ((batch, ours), *_) = run.batches(hr.Dataset(packed).split("val"))
    truth = run.task.encoded(batch)  # type: ignore[attr-defined]
    np.savez(tmp_path / "ours.npz", images=batch.images, truth=truth, cells=ours)
    program = f"""
import json, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import numpy as np
from test_detection_multiscale import Detection, LEARN, Run, detection, replace, tiny, train
Detection.models["tiny"] = tiny
given = np.load("ours.npz")
said = Run({str(trained.run)!r}).outputs(given["images"])
options = replace(LEARN, model="tiny", epochs=1, limit=16)
best = train({str(packed)!r}, out="run", options=options, progress=False).best
numbers = [float(of(given["truth"], given["cells"])) for of in (detection.loss, detection.iou)]
print(json.dumps([float(np.abs(said - given["cells"]).max()), *numbers, best["val_loss"]]))
"""
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    off, *numbers, val_loss = json.loads(done.stdout)
    assert off < 1e-3 and 0 < val_loss < 100
    assert numbers == pytest.approx([float(of(truth, ours)) for of in (detection.loss, detection.iou)], rel=1e-4)


# --- model, loss and task


@pytest.mark.parametrize(
    ("name", "size", "classes", "depth"),
    [(MULTISCALE, (320, 320), 1, 5), (MULTISCALE, (64, 96), 3, 8), ("MobileNet_multiscale", (64, 96), 1, 5)],
)
def test_the_model_has_the_cells_of_a_pyramid(name: str, size: tuple[int, int], classes: int, depth: int) -> None:
    task = Detection(tuple("abc"[:classes]))
    model = task.build(name, (*size, 3), {"alpha": 0.35})
    n = PYRAMID.cells(size)
    assert n == sum(size[0] // s * size[1] // s for s in (8, 16, 32))
    assert model.output_shape == (None, n, depth)
    said = model.predict_on_batch(np.zeros((1, *size, 3), np.uint8))
    assert said[..., 4].max() < 0.05  # it begins with few boxes
    assert (said[..., 0:2] > 2).all() and (np.abs(said[..., 2:4] - 0.5) < 0.2).all()  # of three cells, in the middle
    fitted = task.for_model(model.output_shape[1:], size, ends_in=None, name="mine")
    assert fitted.target(size) == hr.Pyramid(classes=classes)


@pytest.mark.parametrize("size", [(100, 100), (64, 48)])
def test_sizes_that_cells_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(
        UsageError, match=f"size is {size[0]}x{size[1]}; detection wants sides that are multiples of 32"
    ):
        TASK.build(MULTISCALE, (*size, 3), {})


@pytest.mark.parametrize(("out", "size"), [((84, 8), (64, 64)), ((85, 7), (64, 64)), ((84, 7), (60, 60))])
def test_what_a_network_must_say(out: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(
        UsageError, match=r"mine says \[b, .*\], wanted \[b, g, g, 7\].* or \[b, n, 7\]: the cells of a"
    ):
        TASK.for_model(out, size, ends_in=None, name="mine")
    assert TASK.for_model((84, 7), (64, 64), ends_in=None, name="mine").form == PYRAMID


def cells(*rows: tuple[float, float, float, float], kinds: tuple[int, ...] = (1, 0)) -> Any:
    """The cells of one image of 64 x 64 with these boxes."""
    n = len(rows)
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    image = {"boxes": boxes, "box_labels": np.array(kinds[:n]), "box_image": np.zeros(n, np.int64)}
    return hr.Pyramid(classes=2).encode(Labels(classes=np.array([-1]), size=(64, 64), **image))


LITTLE, LARGE = (3.0, 5.0, 9.0, 11.0), (0.0, 0.0, 64.0, 60.0)


def _smaller(said: Any, at: int) -> None:
    said[0, at, 0] *= 0.6


def _beside(said: Any, at: int) -> None:
    said[0, at, 3] += 0.2


def _doubtful(said: Any, at: int) -> None:
    said[0, at, 4] = 0.3


def _of_another_class(said: Any, at: int) -> None:
    said[0, at, 5:] = said[0, at, :4:-1]


@pytest.mark.parametrize("fault", [_smaller, _beside, _doubtful, _of_another_class])
@pytest.mark.parametrize("box", [LITTLE, LARGE])
def test_the_loss_of_the_truth_is_nothing_and_each_fault_costs(
    fault: Callable[[Any, int], None], box: tuple[float, float, float, float]
) -> None:
    there = cells(box)
    assert float(detection.loss(there, there)) == pytest.approx(0, abs=1e-4)
    assert float(detection.iou(there, there)) == pytest.approx(1, abs=1e-4)
    said = there.copy()
    fault(said, int(np.flatnonzero(there[0, :, 4])[0]))
    assert float(detection.loss(there, said)) > 0.1


def test_the_overlap_is_that_of_the_boxes_in_pixels() -> None:
    there = cells(LITTLE, LARGE)
    said = there + np.array([0.2, 0.1, 0.05, -0.1, 0, 0, 0], np.float32) * there[..., 4:5]
    one, other = (hr.Pyramid(classes=2).decode(each, size=(64, 64))[0] for each in (there, said))
    by_label = [np.argsort(found.labels) for found in (one, other)]
    overlap = np.diag(boxes.iou(one.boxes[by_label[0]], other.boxes[by_label[1]]))
    assert float(detection.iou(there, said)) == pytest.approx(overlap.mean(), abs=1e-4)


def test_no_more_cells_are_looked_at_than_a_thousand() -> None:
    task = Detection(("face",), form=PYRAMID)
    said = np.zeros((1, PYRAMID.cells((320, 320)), 5), np.float32)
    said[0, :, :4] = 0.5
    said[0, :, 4] = np.linspace(0.9, 0.1, said.shape[1])
    (found,) = task.decoded(said, size=(320, 320), threshold=0)
    assert len(found.boxes) == 1000 and found.scores.min() > np.float32(0.9 - 0.8 * 1000 / 2099)


# --- the command line


def test_the_three_verbs(packed: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = headrace("train", packed, "--out", run, "--model", MULTISCALE, "--size", 100)
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert "size is 100x100; detection wants sides that are multiples of 32 pixels" in done.err
    done = headrace("train", packed, "--out", run, "--model", "multiscale")
    assert done.code == 2 and "mobilenet_v2_multiscale" in done.err and done.err.count("\n") == 1, done.err
    done = headrace("train", packed, "--out", run, "--model", "tiny", "--size", "64x96", "--epochs", 1, "--json")
    told = json.loads(done.out)
    assert (done.code, told["task"], told["model"]) == (0, "detection", "tiny"), done.err
    done = headrace("evaluate", run, packed, "--json")
    assert json.loads(done.out)["boxes"] == 192, done.err
    photo = folder / "photos" / "00.jpg"
    done = headrace("predict", run, photo, "--out", tmp_path / "P", "--truth", packed, "--threshold", 0, "--json")
    assert done.code == 0 and json.loads(done.out)["predicted"] == 1, done.err
    assert cv2.imread(str(tmp_path / "P" / "drawn" / "00.jpg")) is not None


def test_predictions_lie_on_the_photo(trained: Trained, packed: Path, folder: Path, tmp_path: Path) -> None:
    result = hr.predict(trained.run, folder / "photos", out=tmp_path, truth=packed, progress=False)
    with result.csv.open() as file:
        rows = list(csv.DictReader(file))
    record = hr.Dataset(packed)[0]
    assert record.boxes is not None and record.box_labels is not None
    said = [row for row in rows if row["path"].endswith(record.id)]
    assert len(said) >= 6 and {row["class"] for row in said} <= set(NAMES)
    for row in said:
        box = np.array([[float(row[side]) for side in ("x0", "y0", "x1", "y1")]], np.float32)
        assert boxes.iou(box, record.boxes).max() > 0.3
