"""Keypoints from packing to prediction on drawn faces: what both heads learn, judge and draw."""

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
from drawn import exif, jpeg, saved
from faces import NAMES, Faces
from headrace.errors import UsageError
from headrace.imaging.prepare import ImageOptions
from headrace.learn import backbones, points
from headrace.learn.backend import keras
from headrace.learn.evaluate import Evaluation, evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks import for_dataset, keypoints
from headrace.learn.tasks.keypoints import Keypoints
from headrace.learn.train import Trained, train
from headrace.load.photos import read_photo
from packed import pack
from said import Said

SIDE = 96


def _features(pixels: Any) -> list[Any]:
    """Maps of 1/4 to 1/32 of the image, traced in no time."""
    x, maps = backbones.normalised(pixels), []
    for filters in (8, 16, 24, 32, 48):
        x = _layer(x, filters, 2)
        maps.append(x)
    return maps[1:]


def _layer(x: Any, filters: int, strides: int = 1) -> Any:
    x = keras.layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=backbones.MOMENTUM)(x))


def tiny(pixels: Any, classes: int) -> Any:
    """The task's own head on features of a few layers."""
    *finer, x = _features(pixels)
    for features in reversed(finer):
        x = _layer(keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), features]), 24)
    return keypoints.heatmaps(x, classes)


def tiny_points(pixels: Any, classes: int) -> Any:
    return keypoints.coordinates(_layer(_features(pixels)[-1], 32), classes)


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Keypoints.models, "tiny", tiny)  # type: ignore[arg-type]
        patch.setitem(Keypoints.models, "tiny_points", tiny_points)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    """Of 60 % of the points nobody says where they are, and of some faces not even of one."""
    faces = Faces(folder / "photos", 240, unlabelled=0.6)
    assert any(not record.keypoints.any() for record in faces)  # type: ignore[union-attr]
    hr.pack(faces, folder / "ds", splits={"train": 0.8, "val": 0.2}, progress=False)
    return folder / "ds"


@pytest.fixture(scope="module")
def exam(folder: Path) -> Path:
    """Faces of which all is said."""
    hr.pack(Faces(folder / "exam", 60, seed=1), folder / "examds", progress=False)
    return folder / "examds"


QUICK = Options(model="tiny", size=SIDE, epochs=1, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def trained(packed: Path, folder: Path) -> Trained:
    options = replace(QUICK, epochs=8, learning_rate=1e-2)
    return train(packed, out=folder / "run", options=options, progress=False)


@pytest.fixture(scope="module")
def judged(trained: Trained, exam: Path, folder: Path) -> Evaluation:
    return evaluate(trained.run, exam, out=folder / "judged", progress=False)


def _guess(packed: Path, exam: Path) -> float:
    """PCK of who says of every photo where the points are on average."""
    seen = hr.Dataset(packed).loader(batch_size=1000, size=SIDE, target=hr.Points())[0].targets
    mean = (seen * seen[..., 2:]).sum(axis=0) / seen[..., 2].sum(axis=0)[:, None]
    ds = hr.Dataset(exam)
    truth = np.concatenate([r.keypoints for r in ds])  # type: ignore[misc]
    boxes = np.concatenate([r.boxes for r in ds])  # type: ignore[misc]
    said = np.broadcast_to(mean * np.array([SIDE, SIDE, 1]), truth.shape).astype(np.float32)
    found = points.pck(points.distances(said, truth, boxes))
    assert found is not None
    return found


def test_heatmaps_learn_to_find_them(trained: Trained, judged: Evaluation, packed: Path, exam: Path) -> None:
    """Mirrored, cropped and mostly unlabelled as they are; left is told from right by the place in the face alone."""
    assert trained.task == "keypoints"
    assert _guess(packed, exam) < 0.35
    assert judged.metrics["pck"] > 0.93 and judged.metrics["oks"] > 0.65
    assert set(trained.history[0]) == {
        "epoch", "loss", "val_loss", "val_pck", "val_oks", "val_ap50", "val_ap", "learning_rate",
    }  # fmt: skip
    best = max(trained.history, key=lambda row: (row["val_pck"], row["val_oks"], -row["val_loss"]))
    assert trained.best == best
    recipe = RunFolder(trained.run).read_recipe()
    assert (recipe.task, recipe.model, recipe.class_names, recipe.size) == ("keypoints", "tiny", NAMES, (96, 96))
    options = recipe.options
    assert (options.batch_size, options.schedule, options.augment) == (16, "cosine", ("flip", "crop", "colour"))
    assert cv2.imread(str(RunFolder(trained.run).curves)).shape[1] > 5 * 600  # loss, pck, oks, ap50, ap


def test_coordinates_learn_to_find_them(packed: Path, exam: Path, tmp_path: Path) -> None:
    options = replace(QUICK, model="tiny_points", epochs=20, learning_rate=1e-2, augment=("flip", "colour"))
    train(packed, out=tmp_path / "run", options=options, progress=False)
    found = evaluate(tmp_path / "run", exam, out=tmp_path, progress=False)
    assert found.metrics["pck"] > 0.93 and found.metrics["oks"] > 0.65


def test_evaluate_says_what_training_saw(trained: Trained, packed: Path, tmp_path: Path) -> None:
    found = evaluate(trained.run, packed, out=tmp_path, progress=False)
    said = json.loads(json.dumps(found.json()))
    val = hr.Dataset(packed).split("val")
    assert (said["task"], said["split"], said["records"]) == ("keypoints", "val", len(val))
    for name in ("pck", "oks", "ap50", "ap"):
        assert said[name] == pytest.approx(trained.best[f"val_{name}"], abs=1e-4)
    labelled = np.concatenate([record.keypoints for record in val])[..., 2] > 0  # type: ignore[misc]
    assert said["points"] == labelled.sum() and said["objects"] == labelled.any(axis=1).sum() < len(val)
    assert {name: row["points"] for name, row in said["per_keypoint"].items()} == dict(
        zip(NAMES, labelled.sum(axis=0).tolist(), strict=True)
    )
    right = sum(row["pck"] * row["points"] for row in said["per_keypoint"].values())
    assert right / said["points"] == pytest.approx(said["pck"])
    assert found.text.startswith(f"PCK@0.2 {said['pck']:.4f}")
    assert cv2.imread(str(tmp_path / "pck.png")) is not None


def test_nothing_labelled_at_all(trained: Trained, folder: Path, tmp_path: Path) -> None:
    """To learn from and to be judged by: no number is made up, and nothing breaks."""
    bare = pack(Faces(folder / "bare", 8, unlabelled=1.0), tmp_path / "ds", splits={"train": 0.5, "val": 0.5})
    metrics = evaluate(trained.run, bare, out=tmp_path, progress=False).metrics
    assert (metrics["pck"], metrics["oks"], metrics["ap"], metrics["points"]) == (None, None, None, 0)
    for model in ("tiny", "tiny_points"):
        done = train(bare, out=tmp_path / model, options=replace(QUICK, model=model), progress=False)
        assert (done.best["loss"], done.best["val_pck"]) == (0, 0)


def test_objects_beside_a_larger_one_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = Faces(tmp_path / "photos", 2)
    boxes, sets = (np.concatenate([getattr(r, name) for r in (one, two)]) for name in ("boxes", "keypoints"))
    both = hr.Record(id="both", encoded=one.read(), boxes=boxes, box_labels=("face",) * 2, keypoints=sets)
    ds = pack([both, two], tmp_path / "ds")
    train(ds, out=tmp_path / "run", options=replace(QUICK, augment=(), size=64), progress=False)
    assert "1 objects of an epoch are not learnt from: of each image the largest is" in caplog.text
    judged = evaluate(tmp_path / "run", ds, out=tmp_path, progress=False)
    assert judged.metrics["objects"] == 2


def test_refuses_other_points(trained: Trained, tmp_path: Path) -> None:
    faces = Faces(tmp_path / "photos", 2)
    nameless = pack(list(faces), tmp_path / "nameless")
    with pytest.raises(UsageError, match=r"its keypoints are 0, 1, 2, 3, 4, the run .* was trained on left_eye"):
        evaluate(trained.run, nameless)
    pack([replace(record, keypoints=None) for record in faces], tmp_path / "boxes")
    with pytest.raises(UsageError, match=r"is for keypoints \(left_eye, .*\), and .*boxes has no keypoints"):
        evaluate(trained.run, tmp_path / "boxes")


def test_a_dataset_with_keypoints_is_for_them_unless_asked(packed: Path) -> None:
    ds = hr.Dataset(packed)
    assert (for_dataset(ds).name, for_dataset(ds).class_names) == ("keypoints", NAMES)
    assert (for_dataset(ds, "detection").name, for_dataset(ds, "detection").class_names) == ("detection", ("face",))


def test_stopped_and_resumed_is_as_if_never_stopped(
    exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(QUICK, epochs=2, size=32, deterministic=True)
    whole = train(exam, out=tmp_path / "whole", options=options, progress=False)
    plain = keras.Model.train_on_batch
    steps = 0

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:  # 60 photos in batches of 16: 4 an epoch
            signal.raise_signal(signal.SIGINT)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "train_on_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(exam, out=tmp_path / "run", options=options, progress=False)
    after = train(exam, out=tmp_path / "run", resume=True, progress=False)
    assert steps == 6
    for row, other in zip(after.history, whole.history, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()}))
def test_other_backends(name: str, exam: Path, tmp_path: Path) -> None:
    """They train and judge; and their losses are the same numbers as on this one."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    program = f"""
import json
import numpy as np
from headrace.learn.evaluate import evaluate
from headrace.learn.recipe import Options
from headrace.learn.backend import keras
from headrace.learn.tasks import keypoints
from headrace.learn.train import train
def layer(pixels):
    return keras.layers.Conv2D(8, 3, strides=4, padding="same")(pixels)
keypoints.Keypoints.models["one"] = lambda pixels, classes: keypoints.heatmaps(layer(pixels), classes)
keypoints.Keypoints.models["one_points"] = lambda pixels, classes: keypoints.coordinates(layer(pixels), classes)
for model in ("one", "one_points"):
    options = Options(model=model, size=32, epochs=1, batch_size=60)
    train({str(exam)!r}, out=model, options=options, progress=False)
    assert evaluate(model, {str(exam)!r}, progress=False).records == 60
maps, points = np.load("maps.npy"), np.load("points.npy")
print(json.dumps([float(keypoints.heatmap_loss(*maps)), float(keypoints.coordinate_loss(*points))]))
"""
    rng = np.random.default_rng(0)
    maps, sets = rng.uniform(0, 1, (2, 3, 8, 8, 4)), rng.uniform(0.05, 0.95, (2, 3, 4, 3))
    maps[0, 0, ..., 1:] = 0
    sets[0, ..., 2] = sets[0, ..., 2] < 0.5
    np.save(tmp_path / "maps.npy", maps.astype(np.float32))
    np.save(tmp_path / "points.npy", sets.astype(np.float32))
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = [
        float(keypoints.heatmap_loss(*maps.astype(np.float32))),
        float(keypoints.coordinate_loss(*sets.astype(np.float32))),
    ]
    assert json.loads(done.stdout) == pytest.approx(ours, rel=1e-4)


def test_the_persons_of_coco_are_learnt_from(real_data: Path, tmp_path: Path) -> None:
    """Two of them have no labelled point; four photos hold fourteen."""
    folder = real_data / "coco_keypoints"
    source = hr.sources.coco(folder / "test_coco.json", images=folder, per_object=True)
    ds = pack(source, tmp_path / "ds")
    done = train(ds, out=tmp_path / "run", options=replace(QUICK, size=64, epochs=2), progress=False)
    assert done.history[1]["loss"] < done.history[0]["loss"]
    metrics = evaluate(tmp_path / "run", ds, out=tmp_path, progress=False).metrics
    assert (metrics["objects"], metrics["points"]) == (12, 164 + 17)  # visible and hidden ones
    assert metrics["keypoint_names"] == list(points.COCO_NAMES) and 0 <= metrics["oks"] <= 1


# --- predict


def test_predict_sees_what_evaluate_sees_on_the_photo(
    trained: Trained, judged: Evaluation, exam: Path, folder: Path, tmp_path: Path
) -> None:
    ds = hr.Dataset(exam)
    asked = Run(trained.run)
    expected = {}
    for batch, outputs in asked.batches(ds):
        decoded = asked.task.decoded(outputs, size=(SIDE, SIDE))  # type: ignore[attr-defined]
        expected |= dict(zip(batch.ids, decoded, strict=True))
    result = predict(trained.run, [folder / "exam"], out=tmp_path, truth=exam, threshold=0.0)
    with result.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "keypoint", "score", "x", "y"] and len(rows) == 5 * 60
    assert result.json()["classes"] == dict.fromkeys(NAMES, 60)
    for id_, found in expected.items():
        mine = [row for row in rows if Path(row["path"]).name == id_]
        assert [row["keypoint"] for row in mine] == list(NAMES)
        said = np.array([[float(row[name]) for name in ("x", "y", "score")] for row in mine])
        np.testing.assert_allclose(said, found, atol=0.02)  # photos of the model's own size
    assert result.accuracy is not None and result.accuracy > 0.9
    assert (result.accuracy == 1) == (judged.metrics["pck"] == 1)
    assert result.pictures is not None
    assert sorted(path.name for path in result.pictures.iterdir()) == sorted(expected)
    picture = cv2.imread(str(result.picture))
    assert picture is not None and picture.std() > 10


@pytest.mark.parametrize("packing", [{"size": (90, 120), "fit": "crop"}, {"size": 128, "fit": "pad"}, {"size": 96}])
@pytest.mark.parametrize("with_boxes", [True, False])
def test_truth_comes_back_to_the_photo_however_it_was_packed(
    trained: Trained, tmp_path: Path, packing: dict[str, Any], with_boxes: bool
) -> None:
    """Of a photo that lies on its side: points are said of the file's own pixels, and drawn upright."""
    photo = tmp_path / "in" / "sub" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(saved(np.full((100, 140, 3), 90, np.uint8), "JPEG", quality=95, exif=exif(6)))
    sets = np.array([[(60, 40, 2), (90, 55, 1), *[(0, 0, 0)] * 3]], np.float32)  # upright (60, 60) and (45, 90)
    box = np.array([[43, 38, 92, 57]], np.float32)
    boxes = {"boxes": box, "box_labels": ("face",)} if with_boxes else {}

    record = hr.Record(id="sub/a.jpg", path=str(photo), keypoints=sets, **boxes)  # type: ignore[arg-type]
    pack(Said([record], keypoint_names=NAMES), tmp_path / "ds", **packing)
    result = predict(trained.run, [tmp_path / "in"], out=tmp_path / "P", truth=tmp_path / "ds", threshold=1.0)
    assert result.accuracy == 0 and result.pictures is not None
    drawn = read_photo(result.pictures / "a.jpg", ImageOptions()).astype(int)
    assert drawn.shape[:2] == (140, 100)
    green = np.argwhere(drawn[..., 1] - drawn[..., 0] > 50)
    rings = [green[green[:, 0] < 75], green[green[:, 0] >= 75]]
    np.testing.assert_allclose([(r.min(0) + r.max(0)) / 2 for r in rings], [(59.5, 59.5), (89.5, 44.5)], atol=1)


# --- the command line


def test_the_three_verbs(packed: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = headrace("train", packed, "--out", run, "--model", "tiny_points", "--size", 64, "--epochs", 1, "--json")
    told = json.loads(done.out)
    assert (done.code, told["task"], set(told["best"]) >= {"val_pck", "val_ap"}) == (0, "keypoints", True), done.err
    done = headrace("train", packed, "--out", tmp_path / "no", "--size", 100)
    assert done.code == 2 and "keypoints want multiples of 32 pixels" in done.err
    done = headrace("evaluate", run, packed, "--json")
    assert {"task", "records", "pck"} <= set(json.loads(done.out)), done.err
    done = headrace("evaluate", run, packed)
    assert done.code == 0 and "left_eye" in done.out and "pck.png" in done.out
    done = headrace("predict", run, folder / "photos" / "00*.jpg", "--out", tmp_path / "P", "--truth", packed, "--json")
    told = json.loads(done.out)
    assert (done.code, told["predicted"], told["pictures"]) == (0, 10, str(tmp_path / "P" / "drawn")), done.err
    done = headrace("predict", run, folder / "photos" / "001.jpg", "--out", tmp_path / "P", "--by-folder")
    assert done.code == 2 and "for keypoints pass --truth" in done.err


def test_a_split_has_its_points_beside_those_found(trained: Trained, packed: Path, tmp_path: Path) -> None:
    val = hr.Dataset(packed).split("val")
    result = predict(trained.run, val, out=tmp_path, threshold=0, progress=False)
    rows = result.rows
    assert list(rows[0]) == ["id", "split", "keypoint", "score", "x", "y", "observed_x", "observed_y"]
    records = {record.id: record for record in (val[i] for i in range(len(val)))}
    off, seen = [], 0
    for row in rows:
        points, boxes = records[row["id"]].keypoints, records[row["id"]].boxes
        if points is None or boxes is None or not row["observed_x"]:
            continue
        there = np.array([float(row["observed_x"]), float(row["observed_y"])])
        which = NAMES.index(row["keypoint"])
        assert np.abs(points[:, which, :2] - there).max(axis=1).min() < 0.01
        seen += 1
        off.append(np.hypot(*(there - (float(row["x"]), float(row["y"])))))
    assert seen > len(val) and np.median(off) < 12  # pixels of photos of more than a hundred


def test_truth_says_the_class_of_a_photo_too(tmp_path: Path) -> None:
    records = [hr.Record(id=f"{i}.jpg", encoded=jpeg(40, 40, seed=i), label_name="ab"[i % 2]) for i in range(4)]
    ds = pack(records, tmp_path / "ds")
    run = train(ds, out=tmp_path / "run", size=32, epochs=1, model="vanilla", progress=False).run
    for record in records[:3]:
        (tmp_path / record.id).write_bytes(record.read())
    (tmp_path / "other.jpg").write_bytes(jpeg())
    photos = [tmp_path / name for name in ("0.jpg", "1.jpg", "2.jpg", "other.jpg")]
    found = predict(run, photos, out=tmp_path / "P", truth=ds)
    assert [row.get("observed") for row in found.rows] == ["a", "b", "a", None]
    with pytest.raises(UsageError, match="from truth, a packed dataset, or from pattern or by_folder, not from both"):
        predict(run, photos, out=tmp_path / "P", truth=ds, by_folder=True)
