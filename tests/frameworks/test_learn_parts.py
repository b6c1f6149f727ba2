"""The pure parts of learn: options, recipe, which epoch is kept, means, pictures, which files are meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from headrace.errors import DataError, NotThereError, UsageError
from headrace.imaging.sheet import Tile
from headrace.learn import plots
from headrace.learn.predict import find_images
from headrace.learn.recipe import Options, Part, Recipe, RunFolder
from headrace.learn.tasks import Means, for_recipe
from headrace.learn.tasks.classification import Classification
from headrace.learn.train import best_of, is_over
from headrace.load.iteration import Batch

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
        ('{"format": "headrace run", "version": 2}', DataError, "damaged: 'options'"),
    ],
)
def test_recipe_refused(tmp_path: Path, text: str | None, error: type[Exception], message: str) -> None:
    if text is not None:
        RunFolder(tmp_path).recipe_json.write_text(text)
    with pytest.raises(error, match=message):
        RunFolder(tmp_path).read_recipe()
    with pytest.raises(NotThereError):
        RunFolder(tmp_path / "none").read_recipe()


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
        for_recipe("seasoning", ("a", "b"))
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
