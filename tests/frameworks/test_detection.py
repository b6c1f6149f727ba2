"""Detection from packing to prediction on drawn faces: what is learnt, judged and drawn, and runs that go on."""

from __future__ import annotations

import csv
import json
import os
import re
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
from drawn import exif, saved
from headrace.errors import UsageError
from headrace.imaging.codec import encode_jpeg
from headrace.imaging.prepare import ImageOptions
from headrace.learn import backbones, boxes, pictures
from headrace.learn.backend import keras
from headrace.learn.evaluate import evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks import detection, for_dataset
from headrace.learn.tasks.detection import Detection
from headrace.learn.train import Trained, train
from headrace.load.photos import read_photo

N, SIDE = 96, 96


def faces(folder: Path, n: int, *, seed: int = 0) -> list[hr.Record]:
    """`n` photos of 120 x 160 pixels in `folder`: noise, and in all but each tenth one or two bright discs."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(n):
        image = rng.integers(0, 80, (120, 160, 3), np.uint8)
        found = []
        for left in (0, 80)[: 0 if i % 10 == 9 else 1 + i % 2]:
            r = int(rng.integers(16, 28))
            x, y = int(rng.integers(left + r, left + 80 - r)), int(rng.integers(r, 120 - r))
            cv2.circle(image, (x, y), r, (250, 220, 190), -1)
            cv2.circle(image, (x, y), r // 3, (20, 20, 20), -1)
            found.append((x - r, y - r, x + r + 1, y + r + 1))
        path = folder / f"{i:03d}.jpg"
        path.write_bytes(encode_jpeg(image))
        box = np.array(found, np.float32).reshape(-1, 4)
        records.append(hr.Record(id=path.name, path=str(path), boxes=box, box_labels=("face",) * len(box)))
    return records


def tiny(pixels: Any, classes: int) -> Any:
    """A model that is traced in no time and sees discs."""
    x = backbones.normalised(pixels)
    for filters in (8, 16, 24, 32, 48):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=backbones.MOMENTUM)(x))
    return keras.layers.Conv2D(5, 3, padding="same", activation="sigmoid")(x)


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Detection.models, "tiny", tiny)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    records = faces(folder / "photos", N)
    hr.pack(records, folder / "ds", splits={"train": 0.75, "val": 0.25}, progress=False)
    return folder / "ds"


QUICK = Options(model="tiny", size=SIDE, epochs=1, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def trained(packed: Path, folder: Path) -> Trained:
    options = replace(QUICK, epochs=24, learning_rate=1e-2, augment=("flip", "colour"))
    return train(packed, out=folder / "run", options=options, progress=False)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_learns_to_find_them(trained: Trained) -> None:
    assert trained.task == "detection"
    assert trained.best["val_ap50"] > 0.8
    assert set(trained.history[0]) == {
        "epoch", "loss", "iou", "val_loss", "val_iou", "val_ap50", "val_ap", "learning_rate",
    }  # fmt: skip
    best = max(trained.history, key=lambda row: (row["val_ap50"], row["val_iou"], -row["val_loss"]))
    assert trained.best == best
    run = RunFolder(trained.run)
    recipe = run.read_recipe()
    assert (recipe.task, recipe.model, recipe.class_names, recipe.size) == ("detection", "tiny", ("face",), (96, 96))
    options = recipe.options
    assert (options.batch_size, options.schedule, options.augment) == (16, "cosine", ("flip", "colour"))
    assert cv2.imread(str(run.curves)).shape[1] > 4 * 600  # loss, iou, ap50, ap


def test_evaluate_says_what_training_saw(trained: Trained, packed: Path, tmp_path: Path) -> None:
    found = evaluate(trained.run, packed, out=tmp_path, progress=False)
    said = json.loads(json.dumps(found.json()))
    assert (said["task"], said["split"], said["records"]) == ("detection", "val", 24)
    for name, key in (("ap50", "val_ap50"), ("ap", "val_ap"), ("mean_iou", "val_iou")):
        assert said[name] == pytest.approx(trained.best[key], abs=1e-4)
    assert {name: row["boxes"] for name, row in said["ap50_by_size"].items()}.keys() == {"small", "medium", "large"}
    val = hr.Dataset(packed).split("val")
    assert said["boxes"] == int(val.catalog["boxes"].list.len().sum())
    assert said["boxes"] == sum(row["boxes"] for row in said["ap50_by_size"].values())
    assert said["true"] <= said["boxes"] and 0 <= said["images_right"] <= 1
    assert found.text.startswith(f"AP50 {said['ap50']:.4f}, AP {said['ap']:.4f}")
    assert cv2.imread(str(tmp_path / "precision.png")) is not None
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(val.catalog["id"])
    right = [int(row["right"]) for line in lines for row in line["rows"]]
    assert (sum(right), len(right) - sum(right)) == (said["true"], said["false"])
    missed = said["boxes"] - said["true"]
    assert sum(line["wrong"] for line in lines) == missed + said["false"]


def test_all_boxes_are_judged_also_those_that_share_a_cell(trained: Trained, tmp_path: Path) -> None:
    image = encode_jpeg(np.zeros((96, 96, 3), np.uint8))
    two = np.array([[0, 0, 30, 30], [2, 2, 20, 20]], np.float32)
    record = hr.Record(id="x", encoded=image, boxes=two, box_labels=("face", "face"))
    hr.pack([record], tmp_path / "ds", progress=False)
    assert evaluate(trained.run, tmp_path / "ds", out=tmp_path, progress=False).metrics["boxes"] == 2


def test_boxes_that_share_a_cell_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = encode_jpeg(np.zeros((64, 64, 3), np.uint8))
    pile = np.array([[0, 0, 20, 20], [2, 2, 18, 18], [1, 1, 9, 9], [40, 40, 60, 60]], np.float32)
    hr.pack([hr.Record(id="x", encoded=image, boxes=pile, box_labels=("face",) * 4)], tmp_path / "ds", progress=False)
    train(tmp_path / "ds", out=tmp_path / "run", options=replace(QUICK, augment=(), size=64), progress=False)
    assert "2 boxes of an epoch are not learnt from: a larger one has their cell" in caplog.text


def test_evaluate_refuses_other_boxes(trained: Trained, tmp_path: Path) -> None:
    image = encode_jpeg(np.zeros((96, 96, 3), np.uint8))
    record = hr.Record(id="x", encoded=image, boxes=np.array([[0, 0, 9, 9]], np.float32), box_labels=("cat",))
    hr.pack([record], tmp_path / "cats", progress=False)
    with pytest.raises(UsageError, match=r"its classes are cat, .* was trained on face"):
        evaluate(trained.run, tmp_path / "cats")
    hr.pack([replace(record, boxes=None, box_labels=None, label_name="a")], tmp_path / "plain", progress=False)
    with pytest.raises(UsageError, match=r"is a detector \(face\), and .*plain has no boxes"):
        evaluate(trained.run, tmp_path / "plain")
    with pytest.raises(UsageError, match="has no labels for detection"):
        train(tmp_path / "plain", out=tmp_path / "run", options=replace(QUICK, task="detection"))


def test_a_dataset_with_classes_and_boxes_is_for_detection_unless_asked(tmp_path: Path) -> None:
    image = encode_jpeg(np.zeros((32, 32, 3), np.uint8))
    box = np.array([[0, 0, 9, 9]], np.float32)
    records = [
        hr.Record(id=name, encoded=image, boxes=box, box_labels=("face",), label_name=name) for name in ("a", "b")
    ]
    hr.pack(records, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    assert (for_dataset(ds).name, for_dataset(ds).class_names) == ("detection", ("face",))
    assert for_dataset(ds, "classification").class_names == ("a", "b")


def test_stopped_and_resumed_is_as_if_never_stopped(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(QUICK, epochs=2, deterministic=True, augment=("flip", "crop"))
    whole = train(packed, out=tmp_path / "whole", options=options, progress=False)
    plain = keras.Model.train_on_batch
    steps = 0

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 7:  # 72 photos in batches of 16: 5 an epoch
            signal.raise_signal(signal.SIGINT)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "train_on_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(packed, out=tmp_path / "run", options=options, progress=False)
    after = train(packed, out=tmp_path / "run", resume=True, progress=False)
    assert steps == 7
    for row, other in zip(after.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()}))
def test_other_backends(name: str, packed: Path, tmp_path: Path) -> None:
    """They train and judge; and their loss and IoU are the same numbers as on this one."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    program = f"""
import json
import re
import numpy as np
from headrace.learn.evaluate import evaluate
from headrace.learn.recipe import Options
from headrace.learn.tasks import detection
from headrace.learn.train import train
options = Options(size=32, epochs=1, model_options={{"alpha": 0.35}}, batch_size=72, checkpoint_seconds=0)
best = train({str(packed)!r}, out="run", options=options, progress=False).best
assert evaluate("run", {str(packed)!r}, progress=False).records == 24
there, said = np.load("grids.npy")
print(json.dumps([float(detection.loss(there, said)), float(detection.iou(there, said))]))
"""
    rng = np.random.default_rng(0)
    both = rng.uniform(0.05, 0.95, (2, 3, 7, 7, 8)).astype(np.float32)
    both[0, ..., 4] = both[0, ..., 4] < 0.2
    np.save(tmp_path / "grids.npy", both)
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = [float(detection.loss(*both)), float(detection.iou(*both))]
    assert json.loads(done.stdout) == pytest.approx(ours, rel=1e-4)


# --- predict


def test_predict_sees_what_evaluate_sees_on_the_photo(
    trained: Trained, packed: Path, folder: Path, tmp_path: Path
) -> None:
    val = hr.Dataset(packed).split("val")
    asked = Run(trained.run)
    expected = {}
    for batch, outputs in asked.batches(val):
        decoded = asked.task.decoded(outputs, size=(SIDE, SIDE), threshold=0.5)  # type: ignore[attr-defined]
        expected |= dict(zip(batch.ids, decoded, strict=True))
    result = predict(trained.run, [folder / "photos" / id_ for id_ in expected], out=tmp_path, truth=packed)
    rows = _rows(result.csv)
    assert list(rows[0]) == ["path", "score", "x0", "y0", "x1", "y1", "class"]
    assert result.json()["classes"] == {"face": len(rows)}
    for id_, found in expected.items():
        mine = [row for row in rows if Path(row["path"]).name == id_]
        assert [float(row["score"]) for row in mine] == pytest.approx(found.scores.tolist(), abs=1e-5)
        said = np.array([[float(row[side]) for side in ("x0", "y0", "x1", "y1")] for row in mine]).reshape(-1, 4)
        limit = (160, 120, 160, 120)
        there = np.clip(found.boxes * np.tile([160 / SIDE, 120 / SIDE], 2), 0, limit)
        np.testing.assert_allclose(said, there, atol=0.02)
    judged = evaluate(trained.run, packed, out=tmp_path, progress=False)
    assert result.accuracy == pytest.approx(judged.metrics["images_right"])
    assert result.pictures is not None
    assert sorted(path.name for path in result.pictures.iterdir()) == sorted(expected)
    picture = cv2.imread(str(result.picture))
    assert picture is not None and picture.std() > 10


def test_a_run_that_has_learnt_nothing_says_so(
    trained: Trained, packed: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = folder / "photos" / "001.jpg"
    predict(trained.run, photo, out=tmp_path / "good", progress=False)
    assert "learnt next to nothing" not in caplog.text
    options = replace(QUICK, learning_rate=1e-6)
    untrained = train(packed, out=tmp_path / "run", options=options, progress=False)
    predict(untrained.run, photo, out=tmp_path / "guessed", progress=False)
    assert "run has learnt next to nothing" in caplog.text
    assert re.search(r"val_ap50 is 0\.0\d* at best, in 1 epoch; train it for longer", caplog.text)


def test_a_split_is_judged_in_pixels_of_what_is_stored(trained: Trained, packed: Path, tmp_path: Path) -> None:
    val = hr.Dataset(packed).split("val")
    result = predict(trained.run, val, out=tmp_path, progress=False)
    rows = _rows(result.csv)
    assert list(rows[0]) == ["id", "split", "score", "x0", "y0", "x1", "y1", "class", "right"]
    judged = evaluate(trained.run, packed, out=tmp_path, progress=False)
    assert result.accuracy == pytest.approx(judged.metrics["images_right"]) and judged.metrics["images_right"] > 0.5
    assert sum(int(row["right"]) for row in rows) == judged.metrics["true"]
    # And on the sheet what is observed is where it is stored: a green frame around each of its boxes.
    run = Run(trained.run)
    records = pictures.Records(run, run.task, val, n=len(val))
    observe = run.task.ground_truth(val)
    for number, answer in enumerate(run.answers(val, run.task)):
        records.add(number, answer, pictures.observed(observe, val.catalog.row(number, named=True)))
    for number, tile in enumerate(records.tiles()):
        green = (tile.image[..., 1].astype(int) - tile.image[..., [0, 2]].max(axis=2)) > 60
        record = val[number]
        assert record.boxes is not None
        for x0, y0, x1, y1 in record.boxes.round().astype(int).clip(0).tolist():
            frame = [*green[y0 : y0 + 3, x0:x1].any(axis=0), *green[y0:y1, x0 : x0 + 3].any(axis=1)]
            assert np.mean(frame) > 0.4  # some of it may lie below what was found


@pytest.mark.parametrize("packing", [{"size": (90, 120), "fit": "crop"}, {"size": 128, "fit": "pad"}, {"size": 96}])
def test_truth_comes_back_to_the_photo_however_it_was_packed(
    trained: Trained, tmp_path: Path, packing: dict[str, Any]
) -> None:
    """Of a photo that lies on its side: boxes are said of the file's own pixels, and drawn upright."""
    photo = tmp_path / "in" / "sub" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(saved(np.full((100, 140, 3), 90, np.uint8), "JPEG", quality=95, exif=exif(6)))
    box = np.array([[60, 40, 90, 55]], np.float32)  # of the file; upright, 140 x 100, it is 45, 60, 60, 90
    record = hr.Record(id="sub/a.jpg", path=str(photo), boxes=box, box_labels=("face",))
    hr.pack([record], tmp_path / "ds", progress=False, **packing)
    result = predict(trained.run, [tmp_path / "in"], out=tmp_path / "P", truth=tmp_path / "ds", threshold=1.0)
    assert result.rows == () and result.accuracy == 0
    assert result.csv.read_text() == "path,score,x0,y0,x1,y1,class\n"
    assert result.pictures is not None
    drawn = read_photo(result.pictures / "a.jpg", ImageOptions()).astype(int)
    assert drawn.shape[:2] == (140, 100)
    green = np.argwhere(drawn[..., 1] - drawn[..., 0] > 60)
    np.testing.assert_allclose([*green.min(0), *green.max(0)], [60, 45, 89, 59], atol=1)


def test_what_predict_refuses(trained: Trained, packed: Path, folder: Path, tmp_path: Path) -> None:
    photos = [folder / "photos"]
    with pytest.raises(UsageError, match="the one class of an image; for boxes pass truth=DS"):
        predict(trained.run, photos, out=tmp_path / "P", by_folder=True)
    with pytest.raises(UsageError, match="threshold is 2"):
        predict(trained.run, photos, out=tmp_path / "P", threshold=2)
    assert not (tmp_path / "P").exists()


def test_suppression_is_part_of_it(trained: Trained, packed: Path) -> None:
    asked = Run(trained.run)
    for _, outputs in asked.batches(hr.Dataset(packed).split("val")):
        for found in asked.task.decoded(outputs, size=(SIDE, SIDE), threshold=0.01):  # type: ignore[attr-defined]
            overlap = boxes.iou(found.boxes, found.boxes) - np.eye(len(found.boxes))
            assert overlap.max(initial=0) <= 0.5


# --- the command line


def test_the_three_verbs(packed: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = headrace("train", packed, "--out", run, "--model", "tiny", "--size", 64, "--epochs", 1, "--json")
    told = json.loads(done.out)
    assert (done.code, told["task"], set(told["best"]) >= {"val_ap50", "val_iou"}) == (0, "detection", True), done.err
    done = headrace("train", packed, "--out", tmp_path / "no", "--task", "classification")
    assert done.code == 2 and "has no labels for classification" in done.err
    done = headrace("train", packed, "--out", tmp_path / "no", "--size", 100)
    assert done.code == 2 and "a multiple of 32 pixels" in done.err
    done = headrace("evaluate", run, packed, "--json")
    assert json.loads(done.out)["task"] == "detection" and "ap50" in json.loads(done.out), done.err
    done = headrace("predict", run, folder / "photos" / "00*.jpg", "--out", tmp_path / "P", "--truth", packed, "--json")
    told = json.loads(done.out)
    assert (done.code, told["predicted"], told["pictures"]) == (0, 10, str(tmp_path / "P" / "drawn")), done.err
    done = headrace("predict", run, folder / "photos" / "001.jpg", "--out", tmp_path / "P", "--threshold", 0.99)
    assert done.code == 0 and "images with predictions drawn: " in done.out
