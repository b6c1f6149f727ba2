"""The pure parts of learn: options, recipe, which epoch is kept, means, pictures, which files are meant."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import tqdm.notebook

from headrace.errors import DataError, HeadraceError, NotThereError, StorageError, UsageError
from headrace.feeds import checkpoint
from headrace.imaging.sheet import Tile
from headrace.learn import lock, plots
from headrace.learn.predict import find_images
from headrace.learn.recipe import Options, Part, Recipe, RunFolder
from headrace.learn.tasks import Means, for_recipe
from headrace.learn.tasks.classification import Classification
from headrace.learn.train import best_of, is_over
from headrace.load.iteration import Batch
from headrace.progress import bar

TASK = Classification(("cat", "dog", "eel"))

PART = Part(dataset="ds", view="split 'train'", split="train", records=96, content="f" * 64, fingerprint="a" * 64)
RECIPE = Recipe(
    task="classification",
    model="vanilla",
    own_model=False,
    own_loss=False,
    class_names=("a", "b"),
    shape=(32, 48, 3),
    dtype="uint8",
    keeps=False,
    train=PART,
    val=None,
    pack_options={"size": [32, 48], "fit": "crop"},
    options=Options(size=(32, 48), augment=("flip", "crop"), model_options={"alpha": 0.5}, divide={"train": 0.5}),
    versions={"headrace": "0.1.0"},
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds is -1.0"),
        ({"schedule": "linear"}, "wanted one of constant, cosine"),
        ({"order": "window"}, "order is 'window', wanted full or windows"),
        ({"augment": ("flip", "turn")}, "augment has turn, known are flip, crop, colour"),
    ],
)
def test_options_refuse(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**given)


@pytest.mark.parametrize(
    ("run", "asked", "changed"),
    [
        ({}, {"workers": 1, "cache": "memory", "checkpoint_seconds": 1.0}, []),
        ({}, {"epochs": 50}, []),
        ({"schedule": "cosine"}, {"schedule": "cosine", "epochs": 50}, ["epochs is 50, the run has 25"]),
        ({}, {"seed": 1}, ["seed is 1, the run has 0"]),
        ({}, {"order": "windows"}, ["order is 'windows', the run has 'full'"]),
        ({"model_options": {"alpha": 1.0}}, {"model_options": {"alpha": 1}}, []),
    ],
)
def test_what_changes_a_run(run: dict[str, Any], asked: dict[str, Any], changed: list[str]) -> None:
    assert Options(**run).changes(Options(**asked)) == changed


@pytest.mark.parametrize("size", [None, 64, (32, 48)])
def test_recipe_round_trip(tmp_path: Path, size: Any) -> None:
    recipe = replace(RECIPE, options=replace(RECIPE.options, size=size))
    RunFolder(tmp_path).write_recipe(recipe)
    assert RunFolder(tmp_path).read_recipe() == recipe


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, UsageError, "is no RUN folder"),
        ("{", DataError, "damaged"),
        ("[]", UsageError, "not a recipe"),
        ('{"format": "x"}', UsageError, "not a recipe"),
        ('{"format": "headrace run", "version": 1}', UsageError, "has version 1"),
        ('{"format": "headrace run", "version": 2}', DataError, "damaged: has no field task, model"),
    ],
)
def test_recipe_refused(tmp_path: Path, text: str | None, error: type[Exception], message: str) -> None:
    if text is not None:
        RunFolder(tmp_path).recipe_json.write_text(text)
    with pytest.raises(error, match=message):
        RunFolder(tmp_path).read_recipe()
    with pytest.raises(NotThereError):
        RunFolder(tmp_path / "none").read_recipe()


def _forged(path: Path, **values: Any) -> None:
    """RECIPE with other values in it, those of `options` and `train` by "options.seed"."""
    RunFolder(path).write_recipe(RECIPE)
    written = json.loads(RunFolder(path).recipe_json.read_text())
    for name, value in values.items():
        part, _, field = name.rpartition("__")
        (written[part] if part else written)[field] = value
    RunFolder(path).recipe_json.write_text(json.dumps(written))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_names": []}, "class_names has 0 names"),
        ({"class_names": ["a", "a"]}, "class_names has 2 names, 1 different"),
        ({"class_names": [1, 2]}, r"class_names is \[1, 2\], wanted tuple\[str, ...\]"),
        ({"class_names": {"a": 1}}, "class_names is {'a': 1}, wanted"),
        ({"class_names": None}, "class_names is None, wanted"),
        ({"shape": [32, 48, 7]}, r"images are uint8 \(32, 48, 7\), wanted uint8 \(height, width, 1 or 3\)"),
        ({"shape": [0, 48, 3]}, "shape is"),
        ({"shape": []}, "shape is"),
        ({"shape": [100000, 10, 3]}, "size is"),
        ({"shape": [65500, 65500, 3]}, "shape is"),
        ({"shape": "ab"}, "shape is 'ab', wanted"),
        ({"dtype": "object"}, "dtype is 'object'"),
        ({"dtype": "no"}, "dtype is 'no'"),
        ({"dtype": "float32"}, "images are float32"),
        ({"keeps": "yes"}, "keeps is 'yes', wanted bool"),
        ({"own_model": 1}, "own_model is 1, wanted bool"),
        ({"task": None}, "task is None, wanted str"),
        ({"train": None}, "train is None, wanted Part"),
        ({"train": {}}, "train: has no field dataset, view"),
        ({"train__records": "x"}, "train: records is 'x', wanted int"),
        ({"val": []}, r"val is \[\], wanted Part . None"),
        ({"pack_options": None}, "pack_options is None, wanted"),
        ({"pack_options": {"quality": "x"}}, "pack_options: "),
        ({"pack_options": {"size": [60000, 60000]}}, "pack_options: size is"),
        ({"versions": None}, "versions is None, wanted"),
        ({"versions": {"keras": 3}}, "versions is {'keras': 3}, wanted"),
        ({"extra": 1}, "there is no field extra"),
        ({"options": None}, "options is None, wanted Options"),
        ({"options__batch_size": "x"}, "options: batch_size is 'x', wanted int"),
        ({"options__batch_size": 0}, "options: batch_size is 0"),
        ({"options__seed": 10**30}, "options: seed is 10{30}, wanted 0 to 4294967295"),
        ({"options__seed": -1}, "options: seed is -1"),
        ({"options__epochs": True}, "options: epochs is True, wanted int"),
        ({"options__size": [1, 2, 3]}, "options: size is"),
        ({"options__size": 0}, "options: size is 0"),
        ({"options__fit": "x"}, "options: fit is 'x'"),
        ({"options__cache": ["memory"]}, "options: cache is"),
        ({"options__learning_rate": 10**400}, "options: learning_rate is 1000"),
        ({"options__model_options": None}, "options: model_options is None"),
        ({"options__nothing": 1}, "options: there is no field nothing"),
    ],
)
def test_a_forged_recipe(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    _forged(tmp_path, **values)
    with pytest.raises(DataError, match=f"recipe.json is damaged: {message}"):
        RunFolder(tmp_path).read_recipe()


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe", b"", b"1" * 5000])
def test_a_recipe_that_is_no_json(tmp_path: Path, text: bytes) -> None:
    RunFolder(tmp_path).recipe_json.write_bytes(text)
    with pytest.raises(DataError, match=r"recipe\.json is damaged"):
        RunFolder(tmp_path).read_recipe()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_recipe_that_is_no_file(tmp_path: Path, make: Any) -> None:
    make(RunFolder(tmp_path).recipe_json)
    with pytest.raises(StorageError, match=r"recipe\.json"):
        RunFolder(tmp_path).read_recipe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "x"}, "alpha is 'x', wanted float"),
        ({"weights": 3}, "weights is 3"),
        ({"alpha": 1e9}, "alpha is 1000"),
    ],
)
def test_options_of_models_have_kinds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TASK.build("mobilenet_v2", (32, 32, 3), options)


# --- checkpoints: files of another sort, of another training, and damaged ones

STATE = checkpoint.Checkpoint(
    {"model/0000": np.arange(300, dtype=np.float32).reshape(20, 15), "model/0001": np.array(7, np.uint32)},
    {"steps": 3, "history": [{"epoch": 1, "loss": 0.5}], "loader": {"epoch": 1}},
)


def _same(state: checkpoint.Checkpoint) -> bool:
    return state.progress == STATE.progress and {
        name: (array.dtype, array.shape, array.tobytes()) for name, array in state.arrays.items()
    } == {name: (array.dtype, array.shape, array.tobytes()) for name, array in STATE.arrays.items()}


def _zip(path: Path, compression: int, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


_META = _npy(np.frombuffer(b'{"version": 1}', np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no"),
        lambda path: path.write_bytes(pickle.dumps({"version": 1})),
        lambda path: path.write_bytes(_npy(np.zeros(3))),
        lambda path: _zip(path, zipfile.ZIP_STORED),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_npy(np.frombuffer(b"[]", np.uint8))),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_npy(np.frombuffer(b"{}", np.uint8))),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_npy(np.frombuffer(b"[" * 100_000, np.uint8))),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_META, a=_npy(np.array([{}], object))),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_META, a=b"\x93NUMPY\x01\x00\x08\x00{'descr'"),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_META, a=_npy(np.zeros(3)) + b"more"),
        lambda path: _zip(path, zipfile.ZIP_STORED, meta=_META, a=_npy(np.zeros(3))[:-1]),
        lambda path: _zip(path, zipfile.ZIP_DEFLATED, meta=_META, a=_npy(np.zeros(100_000))),
        lambda path: STATE.write(path) or os.truncate(path, 500),
    ],
)
def test_a_forged_checkpoint(tmp_path: Path, make: Any) -> None:
    make(path := tmp_path / "checkpoint.npz")
    with pytest.raises(DataError, match=r"checkpoint\.npz is damaged \(.+\); start the run anew with overwrite=True"):
        checkpoint.read(path)


def test_a_checkpoint_that_is_no_file_or_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no regular file"):
        checkpoint.read(tmp_path)
    _zip(tmp_path / "c.npz", zipfile.ZIP_STORED, meta=_npy(np.frombuffer(b'{"version": "x"}', np.uint8)))
    with pytest.raises(UsageError, match="has version 'x', this headrace reads version 1"):
        checkpoint.read(tmp_path / "c.npz")


def test_bits_of_a_checkpoint_that_changed(tmp_path: Path) -> None:
    """One bit of 300, half of them in the zip's own structures: an error of ours, or nothing is lost."""
    STATE.write(path := tmp_path / "checkpoint.npz")
    assert _same(checkpoint.read(path))
    data, draw, raised = bytearray(path.read_bytes()), random.Random(0), 0
    with zipfile.ZipFile(path) as file:
        heads = [info.header_offset for info in file.infolist()]
    for number in range(300):
        byte = draw.randrange(len(data)) if number % 2 else draw.choice(heads) + draw.randrange(150)
        byte = byte if number % 4 else len(data) - 1 - draw.randrange(250)
        bit = 1 << draw.randrange(8)
        data[byte] ^= bit
        path.write_bytes(data)
        data[byte] ^= bit
        try:
            assert _same(state := checkpoint.read(path)) or state.arrays.keys() != STATE.arrays.keys(), (byte, bit)
        except HeadraceError:
            raised += 1
    assert raised > 150


# --- the folder


def test_what_a_killed_training_left(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.is_unused()
    left = [tmp_path / name for name in (".recipe.json.123-0123abcd", ".checkpoint.npz.1-ff", ".model.keras.1.keras")]
    for path in (*left, run.lock):
        path.write_bytes(b"")
    assert run.is_unused() and sorted(run.leftovers()) == sorted(left)
    (tmp_path / ".mine.txt").write_bytes(b"")
    assert not run.is_unused() and sorted(run.leftovers()) == sorted(left)


HOLDER = """
import sys
from pathlib import Path
from headrace.learn import lock

with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_training_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with lock.held(path):
        said = rf"a training is at work in it \(process {os.getpid()} on {re.escape(socket.gethostname())}\); wait"
        with pytest.raises(UsageError, match=said), lock.held(path):
            pass
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {child.pid} on"), lock.held(path):
            pass
        child.kill()
        child.wait()
    with lock.held(path):  # who is gone holds nothing
        pass


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refused)
    with lock.held(tmp_path / ".lock"):
        pass
    assert "can't be locked (No locks available)" in caplog.text


# --- bars


def test_a_notebook_without_widgets_has_a_bar_of_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(tqdm.notebook, "IProgress", None)
    for show, drawn in ((None, True), (True, True), (False, False)):
        with bar(total=2, unit="img", desc="epoch", show=show) as shown:
            shown.update(2)
        assert ("epoch" in capsys.readouterr().err) is drawn


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("epoch,loss,val_accuracy\n1,0.5,0.25\n2,0.4,0.75\n", [0.25, 0.75]),
        ("epoch,loss\n1,0.5\n", []),  # without validation
        ("epoch,val_accuracy\n1,high\n", []),  # edited
        ("epoch,val_accuracy\n1\n", []),  # cut
        ("val_accuracy\n0.5\0\n", []),
        ("\udcff", []),
        ("", []),
        (None, []),
    ],
)
def test_a_value_of_the_history(tmp_path: Path, text: str | None, values: list[float]) -> None:
    run = RunFolder(tmp_path)
    if text is not None:
        run.history_csv.write_bytes(text.encode(errors="surrogateescape"))
    assert run.history("val_accuracy") == values


def _history(*rows: tuple[float, float]) -> list[dict[str, float]]:
    return [{"loss": 1.0, "val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in rows]


@pytest.mark.parametrize(
    ("history", "best"),
    [
        (_history((0.5, 1.0)), 0),
        (_history((0.5, 1.0), (0.7, 2.0), (0.6, 0.1)), 1),  # accuracy before loss
        (_history((0.7, 1.0), (0.7, 0.9), (0.7, 0.9)), 1),  # then loss, then the first
        ([{"loss": 0.5}, {"loss": 0.3}, {"loss": 0.4}], 1),  # without validation the training loss
    ],
)
def test_which_epoch_is_kept(history: list[dict[str, float]], best: int) -> None:
    assert best_of(history, TASK) == best


@pytest.mark.parametrize(
    ("accuracies", "epochs", "patience", "over"),
    [
        ([], 3, None, False),
        ([0.5, 0.6], 3, None, False),
        ([0.5, 0.6, 0.7], 3, None, True),
        ([0.6, 0.5], 9, 2, False),
        ([0.6, 0.5, 0.5], 9, 2, True),
        ([0.6, 0.5, 0.7, 0.5], 9, 2, False),
    ],
)
def test_early_stopping(accuracies: list[float], epochs: int, patience: int | None, over: bool) -> None:
    history = _history(*((accuracy, 1.0) for accuracy in accuracies))
    assert is_over(history, TASK, Options(epochs=epochs, patience=patience)) is over


def test_means_weigh_by_images_and_put_the_loss_first() -> None:
    means = Means()
    means.add({"accuracy": 1.0, "loss": 2.0}, 30)
    means.add({"accuracy": 0.5, "loss": 4.0}, 10)
    assert means.values() == {"loss": 2.5, "accuracy": 0.875}
    assert list(means.values()) == ["loss", "accuracy"]
    assert Means(**json.loads(json.dumps({"count": means.count, "sums": means.sums}))) == means


def test_scores_by_hand() -> None:
    # observed:                cat        cat        dog        dog        dog
    targets = np.array([0, 0, 1, 1, 1])
    outputs = np.array([[9, 1, 0], [4, 6, 0], [9, 1, 0], [0, 8, 2], [6, 4, 0]], np.float32) / 10
    images = np.zeros((5, 8, 8, 3), np.uint8)
    halves = [slice(0, 3), slice(3, 5)]
    batches = [(Batch(images[s], targets[s], ("",) * (s.stop - s.start)), outputs[s]) for s in halves]
    score = TASK.score(batches)
    assert score.records == 5
    assert score.metrics["confusion"] == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]
    assert score.metrics["accuracy"] == 2 / 5
    assert score.metrics["per_class"] == {
        "cat": {"precision": 1 / 3, "recall": 1 / 2, "n": 2},
        "dog": {"precision": 1 / 2, "recall": 1 / 3, "n": 3},
        "eel": {"precision": None, "recall": None, "n": 0},
    }
    json.dumps(score.metrics)
    assert "dog       0.5000  0.3333       3" in score.text
    assert _image(score.figures["confusion.png"]).shape[0] > 200


def test_rows_and_tiles() -> None:
    output = np.array([0.25, 0.5, 0.25], np.float32)
    (row,) = TASK.rows(output)
    assert row == {
        "class": "dog",
        "probability": "0.500000",
        "p_cat": "0.250000",
        "p_dog": "0.500000",
        "p_eel": "0.250000",
    }
    image = np.zeros((8, 8, 1), np.uint8)
    assert TASK.tile(image, output, None) == Tile(image, "est: dog 50%")
    assert TASK.tile(image, output, "dog") == Tile(image, "obs: dog\nest: dog 50%", right=True)
    assert TASK.tile(image, output, "cat") == Tile(image, "obs: cat\nest: dog 50%", right=False)


def test_unknown_task_and_model_list_the_known() -> None:
    with pytest.raises(UsageError, match="known are classification"):
        for_recipe("seasoning", ("a", "b"), {})
    with pytest.raises(UsageError, match="classification has vanilla, mobilenet_v2"):
        TASK.model_name("resnet")
    with pytest.raises(UsageError, match="vanilla has no option alpha; it takes no options"):
        TASK.build("vanilla", (32, 32, 3), {"alpha": 1.0})


def _image(figure: plots.Figure) -> np.ndarray[Any, Any]:
    return cv2.imdecode(np.frombuffer(plots.png(figure), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("names", [("cat", "dog"), ("$x", "a$b$", "犬"), tuple(f"class {i}" for i in range(70))])
def test_confusion_draws_any_names(names: tuple[str, ...]) -> None:
    assert _image(plots.confusion(np.eye(len(names), dtype=np.int64), names)).std() > 10


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("epochs", [1, 40])
def test_curves(validated: bool, epochs: int) -> None:
    history = [{"epoch": i + 1, "loss": 1 / (i + 1), "accuracy": 0.5, "learning_rate": 0.1} for i in range(epochs)]
    if validated:
        history = [row | {"val_loss": 1.0, "val_accuracy": 0.5} for row in history]
    assert _image(plots.curves(history, best=epochs - 1)).std() > 10


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/x.jpg", "a/b/x.jpg", "a/.hidden.jpg", "a/notes.txt", "c[1].jpg", "d10.png", "d9.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert find_images(["a", "a/x.jpg", Path("c[1].jpg"), "d*.png"]) == (
        ["a/b/x.jpg", "a/x.jpg", "c[1].jpg", "d9.png", "d10.png"],
        [],
    )
    for missing in ("nope.jpg", "nope/*.jpg"):
        with pytest.raises(NotThereError, match="no such file or folder"):
            find_images([missing])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        find_images(["empty"])
