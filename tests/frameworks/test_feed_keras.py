"""KerasFeed under fit with its default arguments: which records reach the model, on every backend.

Backend x workers x shuffle; FORMATS.md section 7 tells the traps. Each backend has a process of its own, which is
where `run_keras_feed` runs once for all of these tests.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from backends import BACKENDS, Running, result_of, running

pytest.importorskip("keras")

N = 19
ONCE = Counter(range(N))
Epoch = list[list[int]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("run_keras_feed.py", tmp_path_factory) as begun:
        yield begun


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request: pytest.FixtureRequest, runs: Running) -> dict[str, Any]:
    return result_of(runs, request.param)


def records(epoch: Epoch) -> Counter[int]:
    return Counter(k for batch in epoch for k in batch)


def sorted_batches(epoch: Epoch) -> Epoch:
    return [sorted(batch) for batch in epoch]


@pytest.mark.parametrize("point", range(4), ids=["1 worker", "1, shuffle=False", "3 workers", "3, shuffle=False"])
def test_each_record_once_an_epoch(seen: dict[str, Any], point: int) -> None:
    workers, shuffle, epochs, planned, epoch = seen["grid"][point]
    assert (workers, shuffle) == [(1, None), (1, False), (3, None), (3, False)][point]
    assert len(epochs) == 3 and epoch == 3
    assert [records(epoch) for epoch in epochs] == [ONCE] * 3
    # The order is the loader's, whatever Keras was told about shuffling.
    assert epochs == [sorted_batches(epoch) for epoch in planned]


def test_epochs_deal_the_records_into_other_batches(seen: dict[str, Any]) -> None:
    for _, _, epochs, _, _ in seen["grid"]:
        batches = [{frozenset(batch) for batch in epoch} for epoch in epochs]
        assert batches[0] != batches[1] != batches[2] != batches[0]


def test_without_shuffling_it_is_the_order_of_the_dataset(seen: dict[str, Any]) -> None:
    epochs, stored = seen["in order"]
    assert epochs == [sorted_batches(stored)] * 2


def test_fit_again_and_again(seen: dict[str, Any]) -> None:
    """The same feed, a fresh model and one that is built already: epoch follows upon epoch."""
    epochs = [epoch for fit in seen["two fits"] for epoch in fit]
    assert len(epochs) == 5 and [records(epoch) for epoch in epochs] == [ONCE] * 5
    assert len({json.dumps(epoch) for epoch in epochs}) == 5
    assert epochs[:3] == seen["grid"][0][2]


def test_validation_data(seen: dict[str, Any]) -> None:
    epochs, validated, (train, val) = seen["validation"]
    assert [records(epoch) for epoch in epochs] == [Counter(train)] * 3
    assert validated == [[int(k in val) for k in range(N)]] * 3


def test_evaluate(seen: dict[str, Any]) -> None:
    assert seen["evaluate"] == [1] * N


def test_predict_of_images_alone_is_in_order(seen: dict[str, Any]) -> None:
    predicted, stored = seen["predict"]
    assert predicted == stored and sorted(stored) == list(range(N))


def test_the_feed_tells_what_predictions_are_of(seen: dict[str, Any]) -> None:
    """Shuffled, before the first pass and after each of two."""
    before, predicted, ids, again, ids_again = seen["ids"]
    assert before == predicted == ids and again == ids_again != ids
    assert sorted(ids) == sorted(ids_again) == list(range(N))


def test_steps_per_epoch_loses_nothing(seen: dict[str, Any]) -> None:
    """Ten batches a pass, cut into epochs of 1, 2, 3 or 5 steps, the last of a pass shorter: each pass has all."""
    for per_epoch, epochs in seen["steps"]:
        assert all(0 < len(epoch) <= per_epoch for epoch in epochs)
        batches = [batch for epoch in epochs for batch in epoch]
        assert len(batches) > 15
        passes = [batches[i : i + 10] for i in range(0, len(batches), 10)]
        for whole in passes[:-1]:
            assert records(whole) == ONCE, per_epoch
        assert max(records(passes[-1]).values()) == 1


def test_few_batches(seen: dict[str, Any]) -> None:
    """One, two and three of them: the look at the shapes may be all there is."""
    for epochs in seen["small"]:
        assert [records(epoch) for epoch in epochs] == [ONCE] * 3


def test_after_an_epoch_that_was_left_all_begins_anew(seen: dict[str, Any]) -> None:
    stopped, epochs = seen["stopped"]
    assert [len(epoch) for epoch in stopped] == [3]
    assert [records(epoch) for epoch in epochs] == [ONCE] * 2
    assert epochs[0][:3] == stopped[0]


def test_after_a_break_it_is_the_next_epoch(seen: dict[str, Any]) -> None:
    epochs, epoch = seen["after a break"]
    assert [records(epoch) for epoch in epochs] == [ONCE] and epoch == 2


def test_a_state_goes_on_with_the_batches_that_were_left(seen: dict[str, Any]) -> None:
    """From every batch of an epoch on, with models that are built and those at whose shapes Keras looks first."""
    assert [k for k, *_ in seen["resumed"]] == list(range(10))
    for k, epochs, planned, state in seen["resumed"]:
        assert [len(epoch) for epoch in epochs] == [10 - k, 10, 10][: len(epochs)]
        served = [batch for epoch in epochs for batch in epoch]
        assert served == planned[: len(served)], k
        assert (state["epoch"], state["batch"]) == (len(epochs), 0)


def test_a_state_goes_on_in_steps(seen: dict[str, Any]) -> None:
    """Six batches are left of ten; Keras's epochs are of four steps, and one ends where a pass does."""
    epochs, planned = seen["resumed in steps"]
    assert [len(epoch) for epoch in epochs] == [4, 2, 4, 4]
    assert [batch for epoch in epochs for batch in epoch] == planned[:14]


def test_what_a_callback_takes_by_hand_is_not_taken_from_training(seen: dict[str, Any]) -> None:
    epochs, planned, _ = seen["by hand"]
    assert [batch for epoch in epochs for batch in epoch] == planned[:20] and len(epochs) == 2


def test_a_state_in_the_middle_of_a_fit_is_refused(seen: dict[str, Any]) -> None:
    """It is known before the first batch and after the last of an epoch, and no feed guesses in between."""
    states = seen["by hand"][2]
    assert states == [[0, 0], *[None] * 10, [1, 0], *[None] * 10, [2, 0]]


def test_states_between_steps(seen: dict[str, Any]) -> None:
    """Ten batches a pass, in epochs of three: there is a state where they end together."""
    epochs, states = seen["states in steps"]
    served = 0
    for epoch, state in zip(epochs, states, strict=True):
        served += len(epoch)
        assert state == ([served // 10, 0] if served % 10 == 0 else None)
    assert any(states)


def test_dict_targets(seen: dict[str, Any]) -> None:
    assert {"half_mae", "double_mae", "loss"} <= set(seen["heads"])
    assert all(values == [True, True] for values in seen["heads"].values())


def test_an_item_outside_of_fit_is_the_loaders(seen: dict[str, Any]) -> None:
    assert seen["item"] == [5, "uint8", True, ["double", "half"], 1]


@pytest.mark.parametrize("what", ["damage", "nothing left"])
def test_damage_reaches_the_caller(seen: dict[str, Any], what: str) -> None:
    """Be it that of a batch nothing is left without the damaged records, which Keras counts on."""
    is_ours, names_the_record = seen[what]
    assert names_the_record
    assert is_ours or seen["backend"] == "tensorflow"  # which wraps what a generator raises in an error of its own


def test_no_thread_stays(seen: dict[str, Any]) -> None:
    assert seen["threads"] == []


def test_fit_takes_the_tf_data_feed_too(seen: dict[str, Any]) -> None:
    if seen["backend"] != "tensorflow":
        pytest.skip("tf.data is TensorFlow's")
    epochs, validated = seen["tf.data"]
    assert epochs == seen["grid"][0][2] and validated == [[1] * N] * 3
