"""What an exported model makes of a network's numbers, against what `predict` does with NumPy: each kind of output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.learn.backend import keras
from headrace.learn.tasks import Task
from headrace.learn.tasks.classification import Classification
from headrace.learn.tasks.detection import Detection
from headrace.learn.tasks.keypoints import Keypoints
from headrace.learn.tasks.multilabel import MultiLabelled
from headrace.learn.tasks.value import Value
from headrace.load.photos import Framing
from headrace.load.targets import Heatmap

RNG = np.random.default_rng(0)
SIZE = 64, 96


def served(task: Task, said: Any) -> dict[str, Any]:
    """As NumPy arrays, of outputs as a model gives them."""
    found = task.served(keras.ops.convert_to_tensor(np.asarray(said, np.float32)), SIZE)
    assert set(found) == set(task.serves) and set(task.served_units(SIZE)) <= set(found)
    return {name: np.asarray(keras.ops.convert_to_numpy(tensor)) for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("out", "ends_in", "said"),
    [
        (3, "softmax", RNG.dirichlet((1, 1, 1), 8)),
        (3, "linear", RNG.normal(0, 9, (8, 3))),
        (3, "linear", np.full((1, 3), 1e4)),  # whose powers overflow
        (3, "sigmoid", RNG.random((8, 3))),  # shares of their sum
        (3, "sigmoid", np.full((1, 3), 1e-20)),
        (1, "sigmoid", RNG.random((8, 1))),  # the second of two classes
        (1, "linear", RNG.normal(0, 9, (8, 1))),
        (2, None, RNG.dirichlet((1, 1), 8)),  # nobody knows the last function: taken for probabilities
    ],
)
def test_classes(out: int, ends_in: str | None, said: Any) -> None:
    names = ("a", "b", "c")[: max(out, 2)]
    task = Classification(names).for_model((out,), SIZE, ends_in=ends_in, name="network")
    if said.max() < 1e-10:  # of nothing there are no shares, which `predict` refuses
        np.testing.assert_allclose(served(task, said)["probabilities"], said / 1e-9, rtol=1e-5)
        return
    wanted = task.probabilities(np.asarray(said, np.float32))
    np.testing.assert_allclose(served(task, said)["probabilities"], wanted, atol=1e-6)


@pytest.mark.parametrize("ends_in", ["sigmoid", "linear"])
def test_several_classes(ends_in: str) -> None:
    task = MultiLabelled(("a", "b", "c")).for_model((3,), SIZE, ends_in=ends_in, name="network")
    said = RNG.random((8, 3)) if ends_in == "sigmoid" else RNG.normal(0, 40, (8, 3))
    wanted = task.probabilities(np.asarray(said, np.float32))
    np.testing.assert_allclose(served(task, said)["probabilities"], wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_values(shape: tuple[int, ...]) -> None:
    said = RNG.normal(100, 20, shape)
    task = Value(("value",), centre=100, spread=20)
    found = served(task, said)["value"]
    wanted = [task.prediction(one, Framing(*SIZE, (), SIZE)) for one in said.astype(np.float32)]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))
    assert task.served_units(SIZE) == {"value": 20}


def _maps(points: Any) -> Any:
    """Heatmaps [b, h / 4, w / 4, k] with their peaks at points [b, k, 3], as the target draws them."""
    height, width = SIZE
    y, x = np.mgrid[0 : height // 4, 0 : width // 4]
    cells = np.asarray(points)[:, np.newaxis, np.newaxis] / 4 - 0.5
    squares = (x[..., np.newaxis] - cells[..., 0]) ** 2 + (y[..., np.newaxis] - cells[..., 1]) ** 2
    return np.exp(-squares / 8) * (np.asarray(points)[:, np.newaxis, np.newaxis, :, 2] > 0)


POINTS = np.concatenate([RNG.uniform((0, 0, 1), (SIZE[1], SIZE[0], 1), (40, 5, 3))])
CORNERS = np.array([[(x, y, 1) for x in (0.5, SIZE[1] - 0.5) for y in (0.5, SIZE[0] - 0.5)] + [(0, 0, 0)]])


@pytest.mark.parametrize(
    "maps",
    [
        _maps(POINTS),
        _maps(CORNERS),  # peaks in the border's cells, and an absent one
        RNG.dirichlet(np.ones(16 * 24), (6, 5)).reshape(6, 5, 16, 24).transpose(0, 2, 3, 1) * 25,  # noise, > 1 too
        np.zeros((2, 16, 24, 5)),
        np.ones((2, 16, 24, 5)),  # no bend anywhere: the cell itself
    ],
    ids=["peaks", "corners", "noise", "nothing", "flat"],
)
def test_heatmaps(maps: Any) -> None:
    task = Keypoints(tuple("abcde")).for_model((16, 24, 5), SIZE, ends_in="softmax", name="network")
    assert task.heatmap == Heatmap(stride=4, sigma=2.0)
    found = served(task, maps)["keypoints"]
    np.testing.assert_allclose(found, task.decoded(np.asarray(maps, np.float32), size=SIZE), atol=1e-2)


def test_heatmaps_point_where_the_points_are() -> None:
    task = Keypoints(tuple("abcde"))
    np.testing.assert_allclose(served(task, _maps(POINTS))["keypoints"][..., :2], POINTS[..., :2], atol=0.02)


def test_coordinates() -> None:
    task = Keypoints(tuple("ab")).for_model((2, 3), SIZE, ends_in="sigmoid", name="network")
    said = RNG.random((4, 2, 3))
    wanted = task.decoded(np.asarray(said, np.float32), size=SIZE)
    np.testing.assert_allclose(served(task, said)["keypoints"], wanted, rtol=1e-6)
    np.testing.assert_array_equal(task.served_units(SIZE)["keypoints"], [96, 64, 1])


@pytest.mark.parametrize("classes", [1, 3])
def test_boxes(classes: int) -> None:
    """Each cell is there once, also those that no threshold lets through, and images need not be square."""
    names = tuple("abc"[:classes])
    depth = 5 if classes == 1 else 5 + classes
    task = Detection(names).for_model((4, 4, depth), SIZE, ends_in="sigmoid", name="network")
    cells = RNG.random((6, 4, 4, depth)).astype(np.float32)
    found = served(task, cells)
    assert found["boxes"].shape == (6, 16, 4) and found["scores"].shape == (6, 16, classes)
    for one, boxes, scores in zip(
        task.target(SIZE).decode(cells, size=SIZE, threshold=0), *found.values(), strict=True
    ):
        order = np.argsort(-scores.max(axis=1), kind="stable")
        np.testing.assert_allclose(boxes[order], one.boxes, atol=1e-4)
        np.testing.assert_allclose(scores.max(axis=1)[order], one.scores, atol=1e-6)
        np.testing.assert_array_equal(scores.argmax(axis=1)[order], one.labels)
    np.testing.assert_array_equal(task.served_units(SIZE)["boxes"], [96, 64, 96, 64])
