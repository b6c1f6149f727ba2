"""Feed for TensorFlow: a Loader as a tf.data.Dataset."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from headrace.errors import UsageError
from headrace.feeds import require
from headrace.feeds.weighing import Weighing

if TYPE_CHECKING:
    from headrace.load.iteration import Made
    from headrace.load.loader import Loader
    from headrace.load.weights import Weights

tf = require("tensorflow", extra="tensorflow")

TFDataset: TypeAlias = Any  # tf.data.Dataset; TensorFlow has no types to check against


def to_tf(loader: Loader, *, sample_weight: Weights | None = None) -> TFDataset:
    """tf.data.Dataset of (images uint8 [b, h, w, c], targets); images alone without targets; with `sample_weight` of
    (images, targets, weights float32 [b]).

    Arrays that a dataset keeps come as they are, [b, ...] of their own type, in this machine's byte order.
    Each iteration of it is one of the loader: of the epoch that is due, or of the rest of it when the state was loaded
    before this is called. What tf.data has taken counts as delivered in `loader.state_dict()`: nothing here takes a
    batch ahead of its turn, but what is added to it may (prefetch, shuffle, a parallel map), and `model.fit` takes one
    to look at its shape, for which `to_keras` is made. Its cardinality is len(loader), unknown where a rest is first.
    Raises UsageError: no batches; while iterating, as an error of TensorFlow: a state was loaded since.
    """
    if not len(loader):
        raise UsageError(f"no batches: {loader!r}")
    has_rest = loader.due.batch > 0
    weighing = None if sample_weight is None else Weighing(loader, sample_weight)
    held = weakref.ref(loader)  # TensorFlow never lets go of a generator function; the dataset below holds the loader

    def batches() -> Iterator[Any]:
        # Not map: closing a generator closes what it iterates, and with it what was made ahead.
        loader = held()
        if loader is None:
            raise UsageError("the loader of this tf.data.Dataset is gone; keep it, or the dataset that to_tf() gave")
        if loader.due.batch and not has_rest:
            raise UsageError("a state in mid-epoch was loaded after to_tf(); call to_tf() again")
        with iter(loader) as run:
            while (made := run.made()) is not None:
                yield _element(made, weighing)

    def spec(array: Any) -> Any:
        return tf.TensorSpec([None, *array.shape[1:]], array.dtype)

    signature = tf.nest.map_structure(spec, _element(loader.made(0), weighing))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    dataset = dataset.with_options(options)
    if not has_rest:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(loader)))
    dataset.headrace_loader = loader  # and what is made of it holds the dataset
    return dataset


def _element(made: Made, weighing: Weighing | None) -> Any:
    batch = made.batch
    if batch.targets is None:
        return batch.images
    return (batch.images, batch.targets) + (() if weighing is None else (weighing.of(made),))
