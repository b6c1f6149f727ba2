"""Feed for TensorFlow: a Loader as a tf.data.Dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from headrace.errors import UsageError
from headrace.feeds import require

if TYPE_CHECKING:
    from headrace.load.loader import Batch, Loader

tf = require("tensorflow", extra="tensorflow")

TFDataset: TypeAlias = Any  # tf.data.Dataset; TensorFlow has no types to check against


def to_tf(loader: Loader) -> TFDataset:
    """tf.data.Dataset of (images uint8 [b, h, w, c], targets); images alone without targets.

    Arrays that a dataset keeps come as they are, [b, ...] of their own type, in this machine's byte order.
    Each iteration of it is the loader's next epoch; its cardinality is len(loader). Raises UsageError: no batches.
    """
    if not len(loader):
        raise UsageError(f"no batches: {loader!r}")

    def batches() -> Iterator[Any]:
        # Not map: closing a generator closes what it iterates, and with it the loader's threads.
        run = iter(loader)
        try:
            for batch in run:
                yield _element(batch)
        finally:
            run.close()

    def spec(array: Any) -> Any:
        return tf.TensorSpec([None, *array.shape[1:]], array.dtype)

    signature = tf.nest.map_structure(spec, _element(loader[0]))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(loader))).prefetch(1)


def _element(batch: Batch) -> Any:
    return batch.images if batch.targets is None else (batch.images, batch.targets)
