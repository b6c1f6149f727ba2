"""Feature extractors that several tasks stand on, from raw pixels to a feature map."""

from __future__ import annotations

import contextlib
import enum
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from headrace.errors import NotThereError, UsageError
from headrace.learn.backend import keras

# The running averages of batch normalisation reach what they average in about 1 / (1 - momentum) steps. Keras's
# MobileNetV2 has 0.999: a run of a few hundred steps ends before they arrive, and inference, which uses them,
# is garbage while the training metrics look fine. With 0.9 they are there after some tens of steps.
MOMENTUM = 0.9


class Later(enum.Enum):
    """A value that no name or path of weights can be."""

    LATER = "later"


LATER = Later.LATER  # the network is built as one with weights is, and filled by the caller
Weights: TypeAlias = str | Later | None

_MOST_ALPHA = 10  # far beyond what anybody trains
_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


def normalised(pixels: Any) -> Any:
    """Raw pixels 0 to 255 as -1 to 1: the first layer of every model, so that all who use it agree. In float32,
    whatever the others compute in."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="normalise")(pixels)


def vanilla(pixels: Any) -> Any:
    """The features of a CNN to begin with, [b, h/8, w/8, 256]: 3x3 convolutions of 16 to 256 filters, pooled after all
    but the first and last.

    Raises UsageError: images too small to be pooled three times.
    """
    height, width = pixels.shape[1:3]
    if min(height, width) < 8:
        raise UsageError(f"vanilla wants images of 8 x 8 pixels or more, these have {height} x {width}")
    x = normalised(pixels)
    for filters in (16, 32, 64, 128, 256):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{filters}")(x)
        if filters not in (16, 256):
            x = keras.layers.MaxPooling2D(name=f"pool{filters}")(x)
    return x


def mobilenet_v2(
    pixels: Any,
    *,
    alpha: float = 1.0,
    weights: Weights = None,
    frozen: bool = False,
    up_to: str | Sequence[str] = "out_relu",
) -> Any:
    """MobileNetV2's feature map [b, h/32, w/32, f] of raw pixels [b, h, w, 1 or 3], out of layer `up_to`.

    Of several layers, the last of them the deepest, a list of maps.

    `weights`: None (random), "imagenet", the path of a weights file of Keras's MobileNetV2 without top, or LATER.
    `frozen` keeps the features as they are. Grey pixels are repeated where the weights want colour.
    Raises UsageError: alpha, size and weights don't go together. NotThereError: the file is missing.
    """
    height, width, channels = pixels.shape[1:]
    if min(height, width) < 32:
        raise UsageError(f"mobilenet_v2 wants images of 32 x 32 pixels or more, these have {height} x {width}")
    if not 0 < alpha <= _MOST_ALPHA:
        raise UsageError(f"alpha is {alpha}, wanted a number above 0, {_MOST_ALPHA} at most")
    if weights == "imagenet" and alpha not in _ALPHAS:
        raise UsageError(f"alpha is {alpha}; imagenet weights exist for {', '.join(map(str, _ALPHAS))}")
    if isinstance(weights, str) and weights != "imagenet" and not Path(weights).is_file():
        raise NotThereError(f"{weights}: there is no such weights file; weights are 'imagenet' or the path of a file")
    if frozen and weights is None:
        raise UsageError("a frozen base with random weights learns nothing; give weights, or leave frozen out")
    x = normalised(pixels)
    if weights is not None and channels == 1:
        x = keras.layers.Concatenate(name="grey_to_colour")([x, x, x])
    base = _base((height, width, x.shape[-1]), alpha, None if weights is LATER else weights)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    if up_to != base.layers[-1].name:
        out = base.get_layer(up_to).output if isinstance(up_to, str) else [base.get_layer(n).output for n in up_to]
        base = keras.Model(base.inputs, out, name=base.name)
    base.trainable = not frozen
    return base(x)


def _base(shape: tuple[int, int, int], alpha: float, weights: str | None) -> Any:
    try:
        # Keras tells of its download on standard output, which is the caller's.
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # Keras warns of weights that were made at another size: without the top they serve for any.
            warnings.filterwarnings("ignore", message=".*input_shape.*", category=UserWarning)
            return keras.applications.MobileNetV2(
                shape, alpha=alpha, weights=weights, include_top=False, name="features"
            )
    except Exception as error:
        if weights is None:
            raise
        reason = f"{error}".splitlines()[0]
        if weights == "imagenet":
            raise UsageError(
                f"the imagenet weights could not be downloaded ({reason}); on a machine that is connected run "
                f"keras.applications.MobileNetV2(alpha={alpha}, include_top=False)"
                ".save_weights('base.weights.h5') and give that file as weights"
            ) from error
        raise UsageError(
            f"{weights} does not fit a MobileNetV2 without top of alpha {alpha} ({reason}); "
            "give the alpha it was made with"
        ) from error
