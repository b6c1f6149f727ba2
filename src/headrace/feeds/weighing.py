"""Weights that go with batches, for losses. Which record weighs what is load.weights'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.load.weights import Weights, weights_of

if TYPE_CHECKING:
    from headrace.load.iteration import Made
    from headrace.load.loader import Loader


class Weighing:
    """The weights float32 [b] of a loader's batches: what `sample_weight` says, as `headrace.load.weights` has it.

    Raises UsageError: there are no targets, whose loss would be weighed; images are mixed, which have no weight of
    their own; what weights_of says; a weight is larger than float32 can hold.
    """

    def __init__(self, loader: Loader, spec: Weights) -> None:
        if loader.options.target is None:
            raise UsageError("sample_weight weighs the losses of targets, and there are none; leave it out")
        if loader.options.mix is not None:
            raise UsageError(
                f"sample_weight is of single records, and mix={loader.options.mix} makes an image of several; leave "
                "one of them out"
            )
        weights = weights_of(loader.view, spec)
        if len(weights) and weights.max() > np.finfo(np.float32).max:
            raise UsageError(f"sample_weight: {weights.max():g} is larger than float32 can hold")
        self._weights = weights.astype(np.float32)

    def of(self, made: Made) -> NDArray[np.float32]:
        return self._weights[made.positions]
