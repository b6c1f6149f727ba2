"""KerasFeed with weights, names and several devices: what `fit` makes of them on every backend.

JAX by keras.distribution.DataParallel on four devices, TensorFlow by tf.distribute.MirroredStrategy on two; each
backend has a process of its own, where `run_keras_devices` runs once for all of these tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from backends import BACKENDS, Running, result_of, running

pytest.importorskip("keras")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    with running("run_keras_devices.py", tmp_path_factory, XLA_FLAGS=flags) as begun:
        yield begun


@pytest.fixture(scope="module", params=BACKENDS)
def seen(request: pytest.FixtureRequest, runs: Running) -> dict[str, Any]:
    return result_of(runs, request.param)


@pytest.fixture
def devices(seen: dict[str, Any]) -> dict[str, Any]:
    if "devices" not in seen:
        pytest.skip("Keras has no distribution of its own on PyTorch")
    return dict(seen["devices"])


@pytest.mark.parametrize(("target", "kind"), [("class", ["int64", [19]]), ("one-hot", ["float32", [19, 3]])])
def test_weights_of_classes(seen: dict[str, Any], target: str, kind: list[Any]) -> None:
    """By Keras's class_weight and by sample_weight: the mean that a hand makes of them."""
    found = seen["weights"][target]
    assert found["dtype"] == kind
    assert found["class_weight"] == pytest.approx(found["by hand"], rel=1e-5)
    assert found["sample_weight"] == pytest.approx(found["by hand"], rel=1e-5)
    plain, mean = found["plain"]
    assert plain == pytest.approx(mean, rel=1e-5) and abs(plain - found["by hand"]) > 0.01


def test_weights_of_floats(seen: dict[str, Any]) -> None:
    """Keras rounds a float to the class whose weight it takes."""
    by_class, by_record = seen["weights"]["float"]
    assert by_class == pytest.approx(by_record, rel=1e-5)


def test_a_weight_goes_with_its_record(seen: dict[str, Any]) -> None:
    kind, weights, wanted = seen["weights"]["batch"]
    assert kind == "float32" and weights == wanted and len(set(wanted)) > 1


def test_named_inputs_and_outputs(seen: dict[str, Any]) -> None:
    found = seen["names"]
    assert found["batch"] == [["photo"], ["score"], [4, 8, 8, 3], [4], 4]
    assert found["loss"] > 0 and found["predict"] == [19, 1]
    assert {"half_loss", "double_loss", "loss"} <= set(found["heads"])


def test_what_does_not_go_together(seen: dict[str, Any]) -> None:
    dict_targets, empty, unknown, mixed, none = (message for _, message in seen["names"]["refused"])
    assert dict_targets == "outputs is 'score', and the targets have names, half, double; leave it out"
    assert empty == "inputs is '', wanted the name that the model gives it, or None"
    assert "has no class 'dog'" in unknown
    assert mixed.startswith("sample_weight is of single records, and mix=")
    assert none.startswith("no batches: Loader(0 batches of ")


def test_a_keras_that_asks_in_another_way_is_refused(seen: dict[str, Any]) -> None:
    for message in seen["unknown"]:
        assert "in keras.src.trainers.to_come, line " in message and "does not know what it means" in message


def test_a_version_that_was_not_tested_is_named(seen: dict[str, Any]) -> None:
    """The tested ones with it, and one that can't do it is refused."""
    for version, said, raised in seen["versions"]:
        if version in ("3.12.1", "3.15.0"):
            assert said == raised == []
        elif version == "2.15.0":
            assert said == [] and raised[1] == "keras is 2.15.0, wanted 3.12 or later; run: pip install 'keras>=3.12'"
        else:
            (line,) = said
            assert line.startswith(f"keras is {version}, and this feed is for 3.12 to 3.15; ") and not raised


def test_each_record_once_on_all_devices(devices: dict[str, Any]) -> None:
    epochs, planned, epoch = devices["whole"]
    assert epochs == planned and epoch == 3
    planned, epochs, epoch = devices["few"]  # batches, all of which may be asked for ahead
    assert epochs == planned and epoch == 3


def test_the_rest_of_an_epoch_on_all_devices(devices: dict[str, Any]) -> None:
    for batch, epochs, planned, epoch in devices["resumed"]:
        assert epochs == planned and epoch == 2, batch


def test_epochs_of_some_steps_on_all_devices(devices: dict[str, Any]) -> None:
    served, planned = devices["in steps"]
    assert len(served) > 8 and served == planned[: len(served)]


def test_predictions_are_in_order_on_all_devices(devices: dict[str, Any]) -> None:
    predicted, stored = devices["predict"]
    assert predicted == stored


def test_broken_off_on_all_devices(devices: dict[str, Any]) -> None:
    assert devices["resume straight"] == devices["resume cut"]
    straight, cut, rest = devices["losses"]
    assert cut | rest == straight and list(cut) == list(straight)[:6]


def test_batches_that_devices_cannot_share(devices: dict[str, Any]) -> None:
    if "refused" not in devices:
        pytest.skip("tf.distribute divides a batch as it comes")
    (_, size), (_, tail) = devices["refused"]
    assert size.startswith("batch_size is 6, and the devices divide a batch into 4 equal parts; pass a multiple of 4")
    assert tail.startswith("the last of 5 batches has 3 of 19 records, and the devices divide")
