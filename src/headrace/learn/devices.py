"""Several devices of one machine: which there are, and how a batch is shared among those that are asked for.

JAX divides arrays over a mesh (keras.distribution.DataParallel), TensorFlow has a copy of the model on each
(tf.distribute.MirroredStrategy). Several processes are left to the loader's `world`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from headrace.errors import UsageError
from headrace.learn.backend import keras


class Devices:
    """The devices that a training goes by, `count` of them. A model made while they are in use is on all of them."""

    count = 1

    def check_batch(self, batch_size: int) -> None:
        """Raises UsageError: a batch can't be divided evenly."""
        if batch_size % self.count:
            raise UsageError(
                f"batch_size is {batch_size}, and {self.count} devices share a batch evenly; wanted a multiple of "
                f"{self.count}"
            )

    def shared(self, model: Any) -> Any:
        """The model as one whose train_on_batch, test_on_batch and predict_on_batch are right for these devices."""
        return model


@contextmanager
def in_use(asked: int | str | tuple[int, ...] | None) -> Iterator[Devices]:
    """What was asked for: so many devices, "all", those of these numbers, or None for the framework's own choice.

    Raises UsageError: they are not there, or the framework under Keras shares no batches.
    """
    if asked is None:
        yield Devices()
        return
    backend, there = keras.backend.backend(), _there()
    names = _chosen(asked, there)
    if backend == "jax":
        before = keras.distribution.distribution()
        meshed = _Meshed(names)
        keras.distribution.set_distribution(meshed.mesh)
        try:
            yield meshed
        finally:
            keras.distribution.set_distribution(before)
    elif backend == "tensorflow":
        mirrored = _Mirrored(names)
        with mirrored.strategy.scope():
            yield mirrored
    elif names == there[:1]:
        yield Devices()
    else:
        raise UsageError(
            f"devices is {asked!r}: Keras on {backend} trains on one device by itself ({there[0]}); leave it out, or "
            "run on JAX or TensorFlow (KERAS_BACKEND). By torchrun, several processes share a dataset by "
            "loader(world='auto') in a loop of your own"
        )


def _there() -> list[str]:
    """The devices that the framework would use by itself, such as "gpu:0", by their numbers."""
    backend = keras.backend.backend()
    if backend == "jax":
        return list(keras.distribution.list_devices())
    if backend == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return [device.name.removeprefix("/device:").lower() for device in found]
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


def _chosen(asked: int | str | tuple[int, ...], there: list[str]) -> list[str]:
    """The names of the devices. Raises UsageError: one is not there."""
    if asked == "all":
        return there
    numbers = tuple(range(asked)) if isinstance(asked, int) else asked
    if missing := [str(number) for number in numbers if not 0 <= int(number) < len(there)]:
        said = asked if isinstance(asked, int) else ",".join(map(str, asked))
        what = "" if isinstance(asked, int) else f", without {', '.join(missing)}"
        raise UsageError(f"devices is {said}; there {_are(there)}{what}")
    return [there[int(number)] for number in numbers]


def _are(there: list[str]) -> str:
    return f"is one: {there[0]}" if len(there) == 1 else f"are {len(there)}: {', '.join(there)}"


class _Meshed(Devices):
    """JAX's. Its batches are divided by Keras itself."""

    def __init__(self, names: list[str]) -> None:
        self.count = len(names)
        self.mesh = _Even(devices=names)


class _Even(keras.distribution.DataParallel):  # type: ignore[misc]
    """Data parallelism that has a batch which can't be divided evenly, an epoch's last, done by each device in full."""

    def get_data_layout(self, data_shape: Any) -> Any:
        if data_shape[0] % self.num_model_replicas:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


class _Mirrored(Devices):
    """TensorFlow's."""

    def __init__(self, names: list[str]) -> None:
        import tensorflow as tf

        self.count = len(names)
        self.strategy = tf.distribute.MirroredStrategy([name.upper() for name in names])

    def shared(self, model: Any) -> Any:
        return _Replicas(model, self.strategy)


class _Replicas:
    """A model with a replica on each device, of which each learns from its part of a batch.

    Keras's own train_on_batch gives each the whole batch, and that is done here only with one that can't be divided
    evenly: their mean is the whole's. To judge and to predict each takes the whole, too.
    """

    def __init__(self, model: Any, strategy: Any) -> None:
        self._model, self._strategy = model, strategy
        self._built = False

    def reset_metrics(self) -> None:
        self._model.reset_metrics()

    def train_on_batch(
        self, x: Any, y: Any, *, sample_weight: Any = None, return_dict: bool = True
    ) -> dict[str, float]:
        """Loss and metrics by name, the means over the parts."""
        model = self._model
        if not self._built:
            model.test_on_batch(x, y)  # which makes the metrics' variables, where a step's replicas can't
            self._built = True
        model.make_train_function()
        model.reset_metrics()
        logs = model.train_function(iter([(self._parts(x), self._parts(y), self._parts(sample_weight))]))
        return {name: float(value) for name, value in logs.items()}

    def test_on_batch(self, x: Any, y: Any, *, return_dict: bool = True) -> Any:
        return self._model.test_on_batch(x, y, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs [b, ...]: what the first replica says, of all that say the same."""
        return self._model.predict_on_batch(x)[: len(x)]

    def _parts(self, array: Any) -> Any:
        """A part of an array [b, ...] for each replica, or all of it."""
        import tensorflow as tf

        n = self._strategy.num_replicas_in_sync
        if array is None or len(array) % n:
            return array
        parts = np.split(np.asarray(array), n)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(parts[context.replica_id_in_sync_group])
        )
