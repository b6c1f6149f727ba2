"""hr.Resume: a `fit` that was broken off, be it by kill -9, comes to the history of one that never was.

Each backend has a process of its own, where `run_keras_resume` runs once for all of these tests, and one that goes on.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from backends import BACKENDS, Running, result, result_of, running, started

pytest.importorskip("keras")

SCRIPT = "run_keras_resume.py"
PER_EPOCH, KILLED_AT = 5, 8
STEPS = [str(step) for step in range(1, 3 * PER_EPOCH + 1)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(SCRIPT, tmp_path_factory) as begun:
        yield begun


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request: pytest.FixtureRequest, runs: Running) -> dict[str, Any]:
    found = result_of(runs, request.param)
    folder, run = runs[request.param]
    assert run.returncode == -signal.SIGKILL
    found["after the kill"] = result(started(SCRIPT, request.param, str(folder), "rest"))
    found["log"] = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    return found


def test_the_reference_has_all_steps(seen: dict[str, Any]) -> None:
    for name, values in (("reference", set()), ("validated", {"val_loss", "val_accuracy"})):
        (epochs, history), losses = seen[name]
        assert epochs == [0, 1, 2] and list(losses) == STEPS and len(set(losses.values())) == len(STEPS)
        assert set(history) == {"loss", "accuracy", "learning_rate"} | values


def test_broken_off_at_any_step(seen: dict[str, Any]) -> None:
    """Once or more, at the first step of an epoch, its last and between: each step's loss is the reference's."""
    assert [[every, *points] for every, points, *_ in seen["broken"]] == [[1, 5, 6, 13], [3, 4], [100, 8]]
    for every, points, history, parts in seen["broken"]:
        reference, losses = seen["validated" if every == 1 else "reference"]
        assert history == reference, (every, points)
        assert all(part.items() <= losses.items() for part in parts), (every, points)
        assert sorted({int(step) for part in parts for step in part}) == list(map(int, STEPS))
        for before, after in pairwise(parts):  # and little is done twice
            again = len(before.keys() & after.keys())
            assert 1 <= again <= every + 1


def test_killed_and_run_again(seen: dict[str, Any]) -> None:
    reference, losses = seen["validated"]
    assert seen["after the kill"] == reference
    steps = [step for step, _ in seen["log"]]
    assert steps == [*range(1, KILLED_AT + 1), *range(KILLED_AT, 3 * PER_EPOCH + 1)]
    assert all(losses[str(step)] == loss for step, loss in seen["log"])


def test_stopped_within_an_epoch_it_goes_on_there(seen: dict[str, Any]) -> None:
    reference, losses = seen["reference"]
    history, stopped, rest = seen["stopped"]
    assert history == reference and stopped | rest == losses
    assert list(stopped) == STEPS[:7] and list(rest) == STEPS[7:]


def test_an_ended_training_trains_nothing_and_goes_on_for_more_epochs(seen: dict[str, Any]) -> None:
    reference, losses = seen["reference"]
    more, first, rest, none, nothing = seen["more"]
    assert more == none == reference and nothing == {}
    assert list(first) == STEPS[:10] and list(rest) == STEPS[10:] and first | rest == losses


def test_epochs_of_some_steps(seen: dict[str, Any]) -> None:
    """Of two batches, the last of a pass of one: gone on with where such an epoch ended."""
    history, straight, losses, cut, rest = seen["in steps"]
    assert history == straight and straight[0] == list(range(6))
    assert list(losses) == STEPS[:10] and list(cut) == STEPS[:5]
    assert list(rest) == STEPS[4:10] and cut | rest == losses


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("loader", "UsageError", "reference.npz: the state belongs to another loader: its seed is 5, this loader's is "
         "6; or delete it to begin anew"),
        ("model", "UsageError", "reference.npz: the checkpoint holds another model: "),
        ("damaged", "DataError", "damaged.npz is damaged ("),
        ("foreign", "DataError", "foreign.npz is damaged ("),
        ("feed", "UsageError", "wanted what loader.to_keras() gives"),
        ("every", "UsageError", "every is 0, wanted a whole number of batches, 1 at least"),
        ("folder", "UsageError", "is a folder; wanted a file to write to, in a folder that exists"),
        ("nowhere", "UsageError", "which is not there; wanted a file to write to, in a folder that exists"),
        ("validated", "UsageError", "fit validates on the loader that it trains on, each in epochs of the other"),
        ("other feed", "UsageError", "fit does not train on the feed that hr.Resume was given; pass it the same"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together(seen: dict[str, Any], what: str, kind: str, said: str) -> None:
    found, message = seen["refused"][what]
    assert found == kind and said in message
