"""Training to prediction on drawn images: what is learnt, what is refused, and that a stopped run goes on exactly."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import headrace as hr
from headrace.cli import main
from headrace.errors import DataError, HeadraceError, NotThereError, UsageError
from headrace.feeds import checkpoint
from headrace.learn import backbones, lock
from headrace.learn.backend import keras
from headrace.learn.evaluate import evaluate
from headrace.learn.predict import predict
from headrace.learn.recipe import Options, RunFolder
from headrace.learn.run import Run
from headrace.learn.tasks.classification import Classification
from headrace.learn.train import Trained, train

PATTERN = r"^(?P<label>disc|frame)\."
N = 96


def draw(folder: Path, n: int, *, seed: int = 0, grey: bool = False) -> Path:
    """`n` photos of 40 x 48 pixels in `folder`: discs and frames, by turns, on noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        image = rng.integers(0, 90, (40, 48) if grey else (40, 48, 3), np.uint8)
        r = int(rng.integers(7, 13))
        x, y = int(rng.integers(r, 48 - r)), int(rng.integers(r, 40 - r))
        if i % 2:
            cv2.rectangle(image, (x - r, y - r), (x + r, y + r), (230, 240, 250), 2)
        else:
            cv2.circle(image, (x, y), r, (250, 240, 230), -1)
        cv2.imwrite(str(folder / f"{('disc', 'frame')[i % 2]}.{i}.jpg"), image)
    return folder


def pack(photos: Path, out: Path, **options: Any) -> Path:
    chosen = {"splits": {"train": 0.75, "val": 0.25}, "size": 32, "fit": "crop", "progress": False} | options
    hr.pack(hr.sources.names(photos, pattern=PATTERN), out, **chosen)
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn") / "photos", N)


@pytest.fixture(scope="module")
def packed(photos: Path) -> Path:
    return pack(photos, photos.parent / "ds")


QUICK = Options(epochs=1, batch_size=16, checkpoint_seconds=0, model="tiny")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is traced in no time, for what has nothing to do with models."""

    def tiny(pixels: Any, classes: int) -> Any:
        pooled = keras.layers.GlobalMaxPooling2D()(backbones.normalised(pixels))
        return keras.layers.Dense(classes, activation="softmax")(keras.layers.Dense(8)(pooled))

    monkeypatch.setitem(Classification.models, "tiny", tiny)  # type: ignore[arg-type]


@pytest.fixture
def quick(packed: Path, tmp_path: Path) -> RunFolder:
    """A run of one epoch."""
    return RunFolder(train(packed, out=tmp_path / "run", options=QUICK).run)


@pytest.fixture(scope="module")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    options = Options(epochs=8, batch_size=8, learning_rate=3e-3, augment=("flip", "crop", "colour"), seed=1)
    return train(packed, out=tmp_path_factory.mktemp("runs") / "run", options=options)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_learns_and_keeps_all_that_belongs_to_a_run(trained: Trained, packed: Path) -> None:
    assert trained.best["val_accuracy"] >= 0.9
    run = RunFolder(trained.run)
    history = [{name: float(value) for name, value in row.items()} for row in _rows(run.history_csv)]
    assert history == [dict(row) for row in trained.history]
    recipe = run.read_recipe()
    assert (recipe.task, recipe.model, recipe.class_names) == ("classification", "vanilla", ("disc", "frame"))
    ds = hr.Dataset(packed)
    assert (recipe.size, recipe.channels, recipe.dtype) == ((32, 32), 3, "uint8")
    for part, split, n in ((recipe.train, "train", 72), (recipe.val, "val", 24)):
        assert part is not None and (part.dataset, part.split, part.records) == (str(packed), split, n)
        assert (part.content, part.fingerprint) == (ds.fingerprint, ds.split(split).view_fingerprint)
    assert "conv256" in run.layers.read_text()
    assert recipe.pack_options["fit"] == "crop"
    for picture in (run.curves,):
        assert cv2.imread(str(picture)) is not None
    assert {path.parent.name for path in run.logs.rglob("events.out.tfevents.*")} == {"train", "val"}
    json.dumps(trained.json())


def test_tensorboard_reads_the_logs(trained: Trained) -> None:
    tf = pytest.importorskip("tensorflow")
    for split, prefix in (("train", ""), ("val", "val_")):
        (path,) = (trained.run / "logs" / split).iterdir()
        read: dict[str, list[float]] = {}
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            for value in tf.compat.v1.Event.FromString(record).summary.value:
                read.setdefault(value.tag, []).append(value.simple_value)
        for name in ("loss", "accuracy"):
            assert read[name] == pytest.approx([row[prefix + name] for row in trained.history])


def test_the_model_is_plain_keras_and_takes_raw_pixels(trained: Trained, packed: Path) -> None:
    model = keras.saving.load_model(trained.run / "model.keras")
    assert model.input_shape == (None, 32, 32, 3)
    val = hr.Dataset(packed).split("val")
    right = 0
    for record in (val[i] for i in range(len(val))):
        right += int(np.asarray(model.predict(record.image[None], verbose=0)).argmax() == record.label)
    assert right / len(val) == pytest.approx(trained.best["val_accuracy"])


def test_vanilla_is_the_model_that_was_asked_for() -> None:
    model = Classification(("a", "b", "c")).build("vanilla", (160, 160, 3), {})
    found = [layer.__class__.__name__ + str(getattr(layer, "filters", "")) for layer in model.layers[2:]]
    pool = "MaxPooling2D"
    convs = ["Conv2D16", "Conv2D32", pool, "Conv2D64", pool, "Conv2D128", pool, "Conv2D256"]
    assert found == [*convs, "GlobalAveragePooling2D", "Dense"]
    assert model.output_shape == (None, 3)
    assert Classification(("a", "b")).build("vanilla", (64, 48, 1), {}).input_shape == (None, 64, 48, 1)


# --- MobileNetV2


def _norms(model: Any) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def test_mobilenet_averages_arrive_soon(tmp_path: Path) -> None:
    model = Classification(("a", "b")).build("mobilenet_v2", (32, 32, 3), {"alpha": 0.35})
    model.save(tmp_path / "model.keras")
    for norms in (_norms(model), _norms(keras.saving.load_model(tmp_path / "model.keras"))):
        assert len(norms) == 52
        assert {norm.momentum for norm in norms} == {0.9}


def test_mobilenet_takes_a_weights_file_freezes_it_and_sees_grey_as_colour(tmp_path: Path) -> None:
    path = tmp_path / "base.weights.h5"
    donor = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, include_top=False)
    donor.save_weights(path)
    options = {"alpha": 0.35, "weights": str(path), "frozen": True}
    model = Classification(("a", "b")).build("mobilenet_v2", (32, 32, 1), options)
    assert model.input_shape == (None, 32, 32, 1)
    assert len(model.trainable_variables) == 2
    colour = keras.Model(model.input, model.get_layer("grey_to_colour").output)
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))[None, ..., None]
    seen = keras.ops.convert_to_numpy(colour(ramp))
    np.testing.assert_allclose(seen, np.repeat(ramp, 3, axis=-1) / 127.5 - 1, atol=1e-6)
    kernel = model.get_layer("features").get_layer("Conv1").kernel
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(kernel), keras.ops.convert_to_numpy(donor.get_layer("Conv1").kernel)
    )
    with pytest.raises(UsageError, match=r"does not fit a MobileNetV2 without top of alpha 0\.5"):
        Classification(("a", "b")).build("mobilenet_v2", (32, 32, 3), options | {"alpha": 0.5})


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((24, 64, 3), {}, UsageError, "32 x 32 pixels or more, these have 24 x 64"),
        ((32, 32, 3), {"alpha": -1.0}, UsageError, "alpha is -1.0"),
        ((32, 32, 3), {"alpha": 0.6, "weights": "imagenet"}, UsageError, "imagenet weights exist for 0.35, 0.5"),
        ((32, 32, 3), {"weights": "none.h5"}, NotThereError, "there is no such weights file"),
        ((32, 32, 3), {"frozen": True}, UsageError, "learns nothing"),
    ],
)
def test_mobilenet_refuses(
    shape: tuple[int, int, int], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Classification(("a", "b")).build("mobilenet_v2", shape, options)


def test_imagenet_weights_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        print("Downloading")
        raise Exception("URL fetch failure on https://…: None -- [Errno -3] Temporary failure\nmore")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(UsageError, match=r"could not be downloaded \(URL fetch .* failure\); on a machine .*weights"):
        Classification(("a", "b")).build("mobilenet_v2", (96, 96, 3), {"weights": "imagenet"})
    assert capsys.readouterr().out == ""


# --- stop and go on


def test_a_checkpoint_holds_all_that_a_step_depends_on(tmp_path: Path) -> None:
    """Dropout too: its seed generator is state."""

    def model() -> Any:
        keras.utils.set_random_seed(3)
        x = keras.Input((4,))
        dropped = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
        made = keras.Model(x, keras.layers.Dense(2, activation="softmax")(dropped))
        made.compile(keras.optimizers.Adam(0.1), loss="sparse_categorical_crossentropy", jit_compile=False)
        made.optimizer.build(made.trainable_variables)
        return made

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 8, 4)).astype(np.float32), rng.integers(0, 2, (6, 8))
    whole = model()
    losses = [whole.train_on_batch(x[i], y[i]) for i in range(3)]
    checkpoint.capture(whole, {"steps": 3}).write(tmp_path / "c.npz")
    losses += [whole.train_on_batch(x[i], y[i]) for i in range(3, 6)]

    read = checkpoint.read(tmp_path / "c.npz")
    assert read.progress == {"steps": 3}
    other = model()
    checkpoint.restore(other, read)
    assert [other.train_on_batch(x[i], y[i]) for i in range(3, 6)] == pytest.approx(losses[3:], rel=1e-5)

    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "c.npz").write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        checkpoint.read(tmp_path / "c.npz")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What to do after the so-many-th training step of the test, counted over all runs."""
    todo: dict[int, Any] = {}
    count = 0
    plain = keras.Model.train_on_batch

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        logs = plain(self, *args, **kwargs)
        count += 1
        return todo.get(count, lambda logs: logs)(logs)

    monkeypatch.setattr(keras.Model, "train_on_batch", counted)
    return todo


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_stops_between_steps_and_resume_goes_on(
    packed: Path,
    tmp_path: Path,
    steps: dict[int, Any],
    caplog: pytest.LogCaptureFixture,
    number: int,
    raised: type[BaseException],
) -> None:
    def stop(logs: Any) -> Any:
        signal.raise_signal(number)
        return logs

    before = signal.getsignal(number)  # not always Python's own: what runs in a shell's background ignores SIGINT
    options = replace(QUICK, epochs=2, checkpoint_seconds=1e9)
    steps[7] = stop  # 72 records in batches of 16: 5 an epoch
    with pytest.raises(raised):
        train(packed, out=tmp_path / "run", options=options)
    assert "stopped in epoch 2 after 32 of 72 images; go on with: headrace train" in caplog.text
    state = checkpoint.read(tmp_path / "run" / "checkpoint.npz").progress
    assert (len(state["history"]), state["steps"], state["means"]["count"]) == (1, 2, 32)
    after = train(packed, out=tmp_path / "run", resume=True)
    assert len(after.history) == 2
    assert signal.getsignal(number) is before


def test_a_signal_while_validating(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = keras.Model.test_on_batch

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return plain(self, *args, **kwargs)

    whole = train(packed, out=tmp_path / "whole", options=QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "test_on_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(packed, out=tmp_path / "run", options=QUICK)
    after = train(packed, out=tmp_path / "run", resume=True)
    assert after.seconds == 0  # nothing was left to train
    assert after.best == pytest.approx(whole.best, rel=1e-4)


CHILD = """
import os, signal, sys
from headrace.learn import backend
from headrace.learn.recipe import Options
from headrace.learn.train import train
from headrace.load.loader import Loader

ds, kill_at = sys.argv[1], int(sys.argv[2])
plain = Loader.__iter__

def told(self):
    for batch in plain(self):
        if self.options.shuffle:
            print(*batch.ids, flush=True)
        yield batch

Loader.__iter__ = told
step = backend.keras.Model.train_on_batch
steps = 0

def counted(self, *args, **kwargs):
    global steps
    logs = step(self, *args, **kwargs)
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return logs

backend.keras.Model.train_on_batch = counted
options = Options(epochs=2, batch_size=16, checkpoint_seconds=0, deterministic=True, seed=5, augment=("flip",))
train(ds, out="run", options=options, resume=not kill_at)
if not kill_at:
    print("---")
    train(ds, out="whole", options=options)
"""


def test_kill_9_in_the_middle_of_an_epoch_and_resume(packed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def child(kill_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CHILD, str(packed), str(kill_at)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    # Five batches an epoch. The kill falls after step 3 of epoch 2 and before its checkpoint: 2 are on record.
    killed = child(8)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = child(0)
    assert resumed.returncode == 0, resumed.stderr
    after, whole = (part.split("\n") for part in resumed.stdout.strip().split("\n---\n"))
    assert len(whole) == 10
    assert killed.stdout.strip().split("\n") == whole[:8]
    assert after == whole[7:]
    assert (tmp_path / "run/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
    run, other = (Run(tmp_path / name).model.get_weights() for name in ("run", "whole"))
    for ours, theirs in zip(run, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kill_between_checkpoint_and_model_is_made_good(packed: Path, quick: RunFolder) -> None:
    made = (quick.model, quick.history_csv, quick.curves)
    for path in made:
        path.unlink()
    train(packed, out=quick.folder, resume=True)
    assert all(path.exists() for path in made)


def test_a_kill_before_the_first_checkpoint_begins_again(packed: Path, quick: RunFolder) -> None:
    quick.checkpoint.unlink()
    assert train(packed, out=quick.folder, resume=True).seconds > 0


def test_more_epochs_may_be_asked_for(packed: Path, quick: RunFolder) -> None:
    after = train(packed, out=quick.folder, options=replace(QUICK, epochs=2), resume=True)
    assert [row["epoch"] for row in after.history] == [1, 2]


def test_resume_refuses_another_recipe_or_dataset(photos: Path, packed: Path, quick: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe: batch_size is 8, the run has 16; seed is 1, the run has 0"):
        train(packed, out=quick.folder, options=replace(QUICK, batch_size=8, seed=1), resume=True)
    other = pack(photos, tmp_path / "other", seed=9)
    with pytest.raises(UsageError, match="is not the one the run began with"):
        train(other, out=quick.folder, resume=True)
    with pytest.raises(NotThereError, match="there is no such run"):
        train(packed, out=tmp_path / "none", resume=True)


def test_out_that_is_in_the_way(packed: Path, quick: RunFolder) -> None:
    (quick.folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="resume=True to go on with it, overwrite=True to replace it"):
        train(packed, out=quick.folder, options=QUICK)
    before = quick.model.read_bytes()
    with pytest.raises(UsageError):  # found out before anything is removed
        train(packed, out=quick.folder, options=replace(QUICK, model="none"), overwrite=True)
    assert quick.model.read_bytes() == before
    train(packed, out=quick.folder, options=QUICK, overwrite=True)
    assert (quick.folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="other files in it"):
        train(packed, out=packed, options=QUICK, overwrite=True)


def test_two_trainings_in_one_run(packed: Path, quick: RunFolder, tmp_path: Path, steps: dict[int, Any]) -> None:
    """A second one is told at once, whatever it wants; also where both found the place free."""
    before = quick.recipe_json.read_bytes()
    with lock.held(quick.lock):
        for options in ({"resume": True}, {"overwrite": True, "options": QUICK}):
            with pytest.raises(UsageError, match=rf"run: a training is at work in it \(process {os.getpid()} on"):
                train(packed, out=quick.folder, **options)
    assert quick.recipe_json.read_bytes() == before

    def another(logs: Any) -> Any:
        with pytest.raises(UsageError, match="a training is at work in it"):
            train(packed, out=tmp_path / "new", options=QUICK, overwrite=True)
        return logs

    steps[7] = another
    train(packed, out=tmp_path / "new", options=QUICK)


def test_what_killed_trainings_left_is_cleared(packed: Path, quick: RunFolder) -> None:
    for again in ({"resume": True}, {"overwrite": True, "options": QUICK}):
        for name in (".checkpoint.npz.7-0123abcd", ".model.keras.7.keras", ".recipe.json.7-0123abcd"):
            (quick.folder / name).write_bytes(b"half")
        train(packed, out=quick.folder, **again)
        assert [path for path in quick.folder.iterdir() if path.name.startswith(".")] == [quick.lock]


def test_a_beginning_that_is_killed_at_every_step(packed: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "beginning.py"
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(
        [sys.executable, script, packed, tmp_path / "run"],
        env=environment, capture_output=True, text=True, check=False, timeout=1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [], done.stderr
    assert found["steps"] > 10 and found["shapes"] > 4


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"steps": 99}, "steps is 99, wanted 5 at most"),
        ({"steps": "x"}, "steps is 'x', wanted int"),
        ({"history": "ab"}, "history is 'ab', wanted"),
        ({"history": [{}]}, "history 1 is {}, wanted the values of epoch 1"),
        ({"history": [{"epoch": 1}]}, "its history has no 'loss'"),
        ({"means": {"x": 1}}, "means: there is no field x"),
        ({"loader": None}, "loader is None, wanted"),
        ({"more": 1}, "there is no field more"),
    ],
)
def test_a_checkpoint_of_another_training(packed: Path, quick: RunFolder, edit: dict[str, Any], message: str) -> None:
    state = checkpoint.read(quick.checkpoint)
    checkpoint.Checkpoint(state.arrays, state.progress | edit).write(quick.checkpoint)
    with pytest.raises(DataError, match=rf"checkpoint\.npz is damaged: {message}"):
        train(packed, out=quick.folder, options=replace(QUICK, epochs=2), resume=True)


def test_a_checkpoint_of_another_model(packed: Path, quick: RunFolder) -> None:
    state = checkpoint.read(quick.checkpoint)
    for array, found in ((np.zeros(5), r"float64 \[5\]"), (state.arrays["model/0000"].astype("U5"), "<U5")):
        checkpoint.Checkpoint(state.arrays | {"model/0000": array}, state.progress).write(quick.checkpoint)
        with pytest.raises(UsageError, match=f"holds another model: model/0000 is {found}"):
            train(packed, out=quick.folder, options=replace(QUICK, epochs=2), resume=True)


# --- what a training can be asked for


def test_patience_stops_early_and_keeps_the_best(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.5, 0.75, 0.7, 0.6, 0.9])
    monkeypatch.setattr(Classification, "validate", lambda *_, **__: {"loss": 1.0, "accuracy": next(told)})
    kept = []
    plain = checkpoint.Checkpoint.write
    monkeypatch.setattr(checkpoint.Checkpoint, "write", lambda self, path: (kept.append(self), plain(self, path))[1])
    options = replace(QUICK, epochs=9, patience=2, checkpoint_seconds=1e9)
    result = train(packed, out=tmp_path / "run", options=options)
    assert result.stopped_early and result.epochs == 4 and result.best["epoch"] == 2
    weights = Run(result.run).model.get_weights()
    np.testing.assert_array_equal(weights[0], kept[1].arrays["model/0000"])
    assert np.any(weights[0] != kept[3].arrays["model/0000"])


def test_cosine_warms_up_and_comes_down(packed: Path, tmp_path: Path) -> None:
    options = replace(QUICK, epochs=4, schedule="cosine", learning_rate=0.01)
    rates = [row["learning_rate"] for row in train(packed, out=tmp_path / "run", options=options).history]
    assert 0.01 > rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0, abs=1e-6)


def test_without_validation(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ds = pack(photos, tmp_path / "ds", splits=None)
    result = train(ds, out=tmp_path / "run", options=replace(QUICK, size=32))
    assert "no split to validate on" in caplog.text
    assert set(result.best) == {"epoch", "loss", "accuracy", "learning_rate"}
    assert evaluate(result.run, ds).records == N
    assert f"{N} of these {N} records are what the run was trained on" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "has no split 'test'; it has train, val"),
        ({"val_split": "dev"}, "has no split 'dev'"),
        ({"split": "val"}, "can't be for training and for validation at once"),
        ({"task": "pottery"}, "known are classification"),
        ({"model": "resnet"}, "classification has vanilla, mobilenet_v2"),
        ({"model_options": {"alpha": 1}}, "takes no options"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"fit": "squeeze"}, "fit is 'squeeze'"),
        ({"model": "vanilla", "size": 7}, "8 x 8 pixels or more, these have 7 x 7"),
    ],
)
def test_train_refuses(packed: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(packed, out=tmp_path / "run", options=replace(QUICK, **options))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_lost(packed: Path, tmp_path: Path, steps: dict[int, Any]) -> None:
    steps[2] = lambda logs: logs | {"loss": float("nan")}
    with pytest.raises(
        DataError,
        match=r"run: loss became nan in epoch 1, batch 2 with \w+\.\d+\.jpg, .*: the learning rate is too high, or "
        r"images or labels are not .* learning_rate=0\.0001 and overwrite=True",
    ):
        train(packed, out=tmp_path / "run", options=QUICK)


def test_labels(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def labelled(pattern: str, out: str) -> Path:
        hr.pack(hr.sources.names(photos, pattern=pattern), tmp_path / out, size=32, progress=False)
        return tmp_path / out

    part = labelled(r"^(?P<label>disc|frame)\.\d\.", "part")  # only the first ten have a class
    train(part, out=tmp_path / "run", options=QUICK)
    assert "train: 86 of 96 records have no label and are left out" in caplog.text
    assert evaluate(tmp_path / "run", part).records == 10
    with pytest.raises(UsageError, match="has one class, 'disc'; classification wants two or more"):
        train(labelled(r"^(?P<label>disc)\.", "one"), out=tmp_path / "no", options=QUICK)
    with pytest.raises(UsageError, match="has no labels for any task; known tasks are classification"):
        train(labelled(r"^(?P<label>cow)\.", "none"), out=tmp_path / "no", options=QUICK)


def test_one_channel(tmp_path: Path) -> None:
    ds = pack(draw(tmp_path / "photos", 32, grey=True), tmp_path / "ds", channels=1)
    run = train(ds, out=tmp_path / "run", options=QUICK).run
    assert Run(run).model.input_shape == (None, 32, 32, 1)
    result = predict(run, [tmp_path / "photos"], out=tmp_path / "P")
    assert result.predicted == 32 and result.picture.exists()


# --- evaluate


def test_evaluate_counts_as_a_hand_does(trained: Trained, packed: Path, tmp_path: Path) -> None:
    found = evaluate(trained.run, packed, out=tmp_path)
    assert (found.task, found.split, found.records) == ("classification", "val", 24)
    assert found.metrics["accuracy"] == pytest.approx(trained.best["val_accuracy"])
    model = keras.saving.load_model(trained.run / "model.keras")
    val = hr.Dataset(packed).split("val")
    confusion = np.zeros((2, 2), int)
    for record in (val[i] for i in range(len(val))):
        confusion[record.label, int(np.asarray(model.predict(record.image[None], verbose=0)).argmax())] += 1
    assert found.metrics["confusion"] == confusion.tolist()
    said = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert [line["id"] for line in said] == list(val.catalog["id"])
    counted = np.zeros((2, 2), int)
    for line in said:
        (row,) = line["rows"]
        assert row.keys() == {"observed", "estimated", "probability"}
        assert line["right"] == (row["observed"] == row["estimated"]) == (line["wrong"] < 0.5)
        counted[val.class_names.index(row["observed"]), val.class_names.index(row["estimated"])] += 1
    assert (counted == confusion).all()
    assert found.metrics["per_class"]["disc"]["n"] == confusion[0].sum()
    assert found.figures == (tmp_path / "confusion.png", tmp_path / "examples.png")
    assert all(path.exists() for path in found.figures) and found.examples == found.figures[1]
    assert set(json.loads(json.dumps(found.json()))) >= {"task", "records", "accuracy", "per_class", "confusion"}
    assert evaluate(trained.run, packed, split="train", out=tmp_path).records == 72


def test_evaluate_refuses(trained: Trained, photos: Path, packed: Path, tmp_path: Path) -> None:
    source = hr.sources.names(photos, pattern=PATTERN, class_names=("frame", "disc"))
    hr.pack(source, tmp_path / "turned", size=32, progress=False)
    with pytest.raises(UsageError, match=r"classes are frame, disc, .* was trained on disc, frame"):
        evaluate(trained.run, tmp_path / "turned")
    grey = pack(photos, tmp_path / "grey", channels=1)
    with pytest.raises(UsageError, match="1 channels, the model takes 3; pack them with channels 3"):
        evaluate(trained.run, grey)
    with pytest.raises(UsageError, match="no split 'dev'"):
        evaluate(trained.run, packed, split="dev")
    with pytest.raises(NotThereError):
        evaluate(tmp_path / "none", packed)
    with pytest.raises(UsageError, match="is no RUN folder"):
        evaluate(packed, packed)


def test_a_run_without_a_model_or_with_a_broken_one(trained: Trained, packed: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(RunFolder(trained.run).read_recipe())
    with pytest.raises(UsageError, match="has no model yet"):
        evaluate(tmp_path, packed)
    run.model.write_bytes(b"PK\x03\x04 no")
    with pytest.raises(DataError, match=r"model\.keras: can't be loaded"):
        evaluate(tmp_path, packed)


def test_a_built_in_model_is_its_weights_in_what_the_recipe_names(packed: Path, quick: RunFolder) -> None:
    """Whatever model.keras says of layers: it is an export."""
    expected = Run(quick.folder).model.get_weights()
    with zipfile.ZipFile(quick.model) as file:
        members = {name: file.read(name) for name in file.namelist()}
    evil = {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None}
    with zipfile.ZipFile(quick.model, "w") as file:
        for name, data in (members | {"config.json": json.dumps(evil).encode()}).items():
            file.writestr(name, data)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keras.saving, "load_model", None)
        for ours, theirs in zip(Run(quick.folder).model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    recipe = json.loads(quick.recipe_json.read_text())
    for change, message in (
        (
            {"class_names": ["a", "b", "c"]},
            r"model\.keras: can't be loaded into tiny of 3 classes for images \[32, 32, 3\]",
        ),
        ({"model": "../x"}, "model is '../x'; classification has vanilla"),
        ({"task": "x"}, "task is 'x'; known are"),
    ):
        quick.recipe_json.write_text(json.dumps(recipe | change))
        with pytest.raises(HeadraceError, match=message):
            Run(quick.folder)


def test_a_run_that_began_with_weights_needs_them_no_more(packed: Path, tmp_path: Path) -> None:
    weights = tmp_path / "base.weights.h5"
    keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, include_top=False).save_weights(weights)
    options = {"alpha": 0.35, "weights": str(weights), "frozen": True}
    result = train(packed, out=tmp_path / "run", options=QUICK, model="mobilenet_v2", model_options=options, limit=16)
    weights.unlink()
    exported = keras.saving.load_model(result.run / "model.keras")
    for ours, theirs in zip(Run(result.run).model.get_weights(), exported.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_is_asked_about_another_kind_of_labels(photos: Path, quick: RunFolder, tmp_path: Path) -> None:
    encoded = (photos / "disc.0.jpg").read_bytes()
    record = hr.Record(id="x", encoded=encoded, boxes=np.array([[1, 1, 9, 9]], np.float32))
    hr.pack([record], tmp_path / "boxes", progress=False)
    with pytest.raises(UsageError, match=r"run is a classifier \(disc, frame\), and .*boxes has no classes"):
        evaluate(quick.folder, tmp_path / "boxes")


# --- predict


def test_predict_sees_what_evaluate_sees(trained: Trained, photos: Path, packed: Path, tmp_path: Path) -> None:
    asked = Run(trained.run)
    val = hr.Dataset(packed).split("val")
    expected = {
        name: output for batch, outputs in asked.batches(val) for name, output in zip(batch.ids, outputs, strict=True)
    }
    assert list(expected) == val.catalog["id"].to_list()
    result = predict(trained.run, [photos / name for name in expected], out=tmp_path, pattern=PATTERN)
    assert result.accuracy == pytest.approx(trained.best["val_accuracy"])
    for row, (name, output) in zip(_rows(result.csv), expected.items(), strict=True):
        assert row["path"] == str(photos / name) and row["observed"] == name.split(".")[0]
        assert [float(row["p_disc"]), float(row["p_frame"])] == pytest.approx(output, abs=2e-6)
        assert float(row["probability"]) == pytest.approx(output.max(), abs=2e-6)
        assert row["class"] == ("disc", "frame")[output.argmax()]


def test_predict_with_bad_files_and_names_that_occur_twice(trained: Trained, photos: Path, tmp_path: Path) -> None:
    for folder in ("disc", "frame"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "x.jpg").write_bytes((photos / "disc.0.jpg").read_bytes())
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / "page.jpg").write_bytes(b"<html>")
    (tmp_path / "in" / "cut.jpg").write_bytes((photos / "disc.0.jpg").read_bytes()[:300])
    result = predict(trained.run, [tmp_path / "in"], out=tmp_path / "P", by_folder=True)
    assert (result.seen, result.predicted, len(result.rejects)) == (5, 2, 3)
    rows = _rows(result.csv)
    assert [row["path"] for row in rows] == [str(tmp_path / "in" / name / "x.jpg") for name in ("disc", "frame")]
    assert list(rows[0]) == ["path", "class", "probability", "p_disc", "p_frame", "observed"]
    assert [row["class"] for row in rows] == ["disc", "disc"] and result.accuracy == 0.5
    rejects = [json.loads(line) for line in result.rejects_file.read_text().splitlines()]
    assert sorted(Path(reject["id"]).name for reject in rejects) == ["cut.jpg", "empty.jpg", "page.jpg"]
    assert all(reject["reason"] for reject in rejects)
    assert result.json()["rejected"] == 3
    assert cv2.imread(str(result.picture)) is not None

    with pytest.raises(DataError, match="none of 1 files could be read"):
        predict(trained.run, [tmp_path / "in" / "page.jpg"], out=tmp_path / "Q")
    assert (tmp_path / "Q" / "rejects.jsonl").exists()
    with pytest.raises(NotThereError):
        predict(trained.run, [tmp_path / "none.jpg"], out=tmp_path / "Q")
    with pytest.raises(UsageError, match="no group 'label'"):
        predict(trained.run, [photos], out=tmp_path / "Q", pattern="cat")
    with pytest.raises(UsageError, match="not from both"):
        predict(trained.run, [photos], out=tmp_path / "Q", pattern=PATTERN, by_folder=True)


# --- the command line


@pytest.fixture
def headrace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; gives exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headrace", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        return int(code or 0), *capsys.readouterr()

    return run


def test_the_three_verbs(headrace: Any, packed: Path, photos: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "P"
    train_it = ("train", packed, "--out", run, "--model", "tiny", "--batch-size", 24, "--size", "24x32")
    code, said, _ = headrace(*train_it, "--epochs", 1, "--augment", "flip,colour,randaugment", "--json")
    told = json.loads(said)
    assert (code, told["model"], told["epochs"], len(said.splitlines())) == (0, "tiny", 1, 1)
    assert RunFolder(run).read_recipe().size == (24, 32)
    code, _, error = headrace(*train_it)
    assert code == 2 and error.count("\n") == 1 and "--resume" in error
    code, said, _ = headrace("train", packed, "--out", run, "--resume", "--epochs", 2)  # the rest as in the run
    assert code == 0 and said.startswith("2 epochs, ") and "kept epoch" in said
    code, _, error = headrace("train", packed, "--out", run, "--resume", "--seed", 4)
    assert code == 2 and "seed is 4, the run has 0" in error

    code, said, _ = headrace("evaluate", run, packed, "--json")
    told = json.loads(said)
    assert (code, told["task"], told["records"], told["split"]) == (0, "classification", 24, "val")
    assert set(told["per_class"]) == {"disc", "frame"} and 0 <= told["accuracy"] <= 1
    code, said, _ = headrace("evaluate", run, packed, "--split", "train")
    assert code == 0 and said.startswith("accuracy ") and "confusion.png" in said
    assert headrace("evaluate", run, packed, "--split", "dev")[0] == 2

    code, said, _ = headrace("predict", run, photos, "--out", out, "--pattern", PATTERN, "--json")
    told = json.loads(said)
    assert (code, told["seen"], told["predicted"], told["rejected"]) == (0, N, N, 0)
    assert sum(told["classes"].values()) == N == len(_rows(Path(told["csv"])))
    code, said, _ = headrace("predict", run, photos / "disc.*.jpg", "--out", out)
    assert code == 0 and said.startswith("48 images: ")
    code, said, error = headrace("predict", run, tmp_path / "no.jpg", "--out", out)
    assert (code, said, error.count("\n")) == (2, "", 1)
    (tmp_path / "bad.jpg").write_bytes(b"")
    code, _, error = headrace("predict", run, tmp_path / "bad.jpg", "--out", out)
    assert code == 1 and "empty file" in error


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
def test_help_holds_an_example(headrace: Any, verb: str) -> None:
    code, said, _ = headrace(verb, "--help")
    assert code == 0 and f"Example:\n  headrace {verb} " in said


def test_frameworks_are_kept_quiet(packed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace", "train", packed, "--out", tmp_path / "run", "--epochs", "1", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["epochs"] == 1


def test_a_line_per_epoch_in_a_log(packed: Path, tmp_path: Path) -> None:
    """Standard error is no terminal here; and nobody has tensorboardX."""
    program = """
import importlib.util, sys
plain = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorboardX" else plain(name, *rest)
from headrace.cli import main
main()
"""
    words = ["train", packed, "--out", tmp_path / "run", "--epochs", "2", "--limit", "16"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert [re.sub(r"[\d.]+", "N", line) for line in lines] == [
        "epoch N/N: N images in N s, loss N accuracy N val_loss N val_accuracy N"
    ] * 2
    assert done.stderr.count("no TensorBoard logs: tensorboardX is not installed") == 1
    assert not (tmp_path / "run" / "logs").exists() and done.stdout.endswith("history.csv, curves.png\n")
    assert "epoch 1/2" not in done.stdout


def test_a_missing_framework_is_named_with_the_install_line(packed: Path, tmp_path: Path) -> None:
    program = """
import importlib.util, sys
plain = importlib.util.find_spec
gone = {"tensorflow", "torch", "jax"}
importlib.util.find_spec = lambda name, *rest: None if name in gone else plain(name, *rest)
sys.argv[1:] = ["train", "ds", "--out", "run"]
from headrace.cli import main
main()
"""
    environment = os.environ | {"KERAS_BACKEND": ""}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'headrace[tensorflow]'" in done.stderr


# --- the other backends


@pytest.mark.parametrize("name", sorted({"tensorflow", "torch", "jax"} - {keras.backend.backend()}))
def test_other_backends(name: str, packed: Path, photos: Path, trained: Trained, tmp_path: Path) -> None:
    """They train, stop, go on and predict; and they give the same outputs for a model trained on this one."""
    pytest.importorskip(name, reason=f"{name} is not installed")
    program = f"""
import json
from dataclasses import replace
from headrace.learn.backend import keras
from headrace.learn.predict import predict
from headrace.learn.recipe import Options
from headrace.learn.run import Run
from headrace.learn.train import train
import headrace as hr
assert keras.backend.backend() == {name!r}
options = Options(epochs=1, batch_size=24, size=16, checkpoint_seconds=0, deterministic=True)
train({str(packed)!r}, out="run", options=options)
after = train({str(packed)!r}, out="run", options=replace(options, epochs=2), resume=True)
assert len(after.history) == 2
assert predict("run", [{str(photos)!r}], out="P").predicted == {N}
val = hr.Dataset({str(packed)!r}).split("val")
rows = [out.tolist() for _, outs in Run({str(trained.run)!r}).batches(val) for out in outs]
print(json.dumps(rows))
"""
    environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    val = hr.Dataset(packed).split("val")
    ours = [out for _, outs in Run(trained.run).batches(val) for out in outs]
    np.testing.assert_allclose(json.loads(done.stdout), ours, atol=1e-3)
