"""The networks of keras.applications, by name: their features of raw pixels. What is made of these is the tasks'.

Each was trained on pixels brought to numbers in its own way; that is part of the model here, as all models take 0 to
255.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headrace.errors import NotThereError, UsageError
from headrace.imaging.placement import Size
from headrace.learn import networks
from headrace.learn.backbones import LATER, MOMENTUM, Weights, normalised
from headrace.learn.backend import keras

Pixels = Literal["tf", "torch", "caffe", "inside"]

# How the networks of such names take pixels: as the preprocess_input of their module of keras.applications gives them
# (Keras 3.15, keras/src/applications/imagenet_utils.py). "tf" is -1 to 1; "torch" 0 to 1, less ImageNet's mean, by its
# standard deviation; "caffe" blue first, less ImageNet's mean; "inside" raw: the network begins with layers for it.
_TAKES: Mapping[str, tuple[str, Pixels]] = {
    r"ConvNeXt.+": ("convnext", "inside"),
    r"DenseNet.+": ("densenet", "torch"),
    r"EfficientNetB\d": ("efficientnet", "inside"),
    r"EfficientNetV2.+": ("efficientnet_v2", "inside"),
    r"InceptionResNetV2": ("inception_resnet_v2", "tf"),
    r"InceptionV3": ("inception_v3", "tf"),
    r"MobileNet": ("mobilenet", "tf"),
    r"MobileNetV2": ("mobilenet_v2", "tf"),
    r"MobileNetV3.+": ("mobilenet_v3", "inside"),
    r"NASNet.+": ("nasnet", "tf"),
    r"ResNet\d+": ("resnet", "caffe"),
    r"ResNet\d+V2": ("resnet_v2", "tf"),
    r"VGG16": ("vgg16", "caffe"),
    r"VGG19": ("vgg19", "caffe"),
    r"Xception": ("xception", "tf"),
}
_LEAST = 32  # pixels of a side that a network takes
_LEAST_OF: Mapping[str, int] = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, 0 to 1
_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True, slots=True)
class Application:
    """A network of keras.applications: `name` is that of the function there, `module` where its like are, and how it
    `takes` pixels."""

    name: str
    module: str
    takes: Pixels

    @property
    def least(self) -> int:
        """Pixels that a side of an image has at least."""
        return _LEAST_OF.get(self.module, _LEAST)

    @property
    def function(self) -> Callable[..., Any]:
        """Keras's own, which makes it."""
        found: Callable[..., Any] = getattr(keras.applications, self.name)
        return found

    @property
    def has_alpha(self) -> bool:
        """Whether its width can be chosen."""
        return "alpha" in inspect.signature(self.function).parameters


def applications() -> dict[str, Application]:
    """All networks that the installed Keras has and of which is known how they take pixels, by their names there."""
    found = {}
    for name in dir(keras.applications):
        for pattern, (module, takes) in _TAKES.items():
            if re.fullmatch(pattern, name):
                found[name] = Application(name, module, takes)
    return found


def prepared(pixels: Any, takes: Pixels) -> Any:
    """Raw pixels [b, h, w, 3] as networks want them that take them so; in float32, whatever they compute in."""
    if takes == "inside":
        return pixels
    if takes == "tf":
        return normalised(pixels)
    if takes == "torch":
        mean, variance = [255 * x for x in _MEAN], [(255 * x) ** 2 for x in _DEVIATION]
    else:
        pixels = keras.ops.flip(pixels, axis=-1)
        mean, variance = list(_MEAN_BGR), [1.0, 1.0, 1.0]
    return keras.layers.Normalization(mean=mean, variance=variance, dtype="float32", name="normalise")(pixels)


def features(
    application: Application,
    pixels: Any,
    *,
    weights: Weights = None,
    frozen: bool = False,
    alpha: float | None = None,
    strides: Sequence[int] = (),
) -> Any:
    """The network's last feature map [b, h', w', f] of raw pixels [b, h, w, 1 or 3], grey ones as colour.

    With `strides` those of 1/stride of the image's sides, the last of each size: a list of them, or of a single one the
    map itself.

    `weights`: None (random), "imagenet", the path of a weights file of this network without top as Keras's
    `save_weights` makes it, or LATER. `frozen` keeps the features as they are.
    Raises UsageError: size, alpha and weights don't go together, or there are no such maps. NotThereError: the file is
    missing.
    """
    name = application.name
    height, width, channels = pixels.shape[1:]
    if min(height, width) < (least := application.least):
        raise UsageError(f"{name} wants images of {least} x {least} pixels or more, these have {height} x {width}")
    if alpha is not None and not 0 < alpha < math.inf:
        raise UsageError(f"alpha is {alpha}, wanted a number above 0")
    if isinstance(weights, str) and weights != "imagenet" and not Path(weights).is_file():
        raise NotThereError(f"{weights}: there is no such weights file; weights are 'imagenet' or the path of a file")
    if frozen and weights is None:
        raise UsageError("a frozen base with random weights learns nothing; give weights, or leave frozen out")
    if channels == 1:
        pixels = keras.layers.Concatenate(name="grey_to_colour")([pixels, pixels, pixels])
    base = _base(application, (height, width, 3), None if weights is LATER else weights, alpha)
    for layer in networks.layers(base):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    out: Any = [_map(base, name, (height, width), stride) for stride in strides] or base.outputs[0]
    base = keras.Model(base.inputs, out[0] if isinstance(out, list) and len(out) == 1 else out, name="features")
    base.trainable = not frozen
    return base(prepared(pixels, application.takes))


def network(
    application: Application,
    head: Callable[[Any, int], Any],
    *,
    strides: Sequence[int] = (),
    check: Callable[[Size], None] | None = None,
) -> Callable[..., Any]:
    """The function of (pixels, classes, **options), as a task's models are, of this network under a task's head.

    `head` is of (features, classes), and `strides` those of the features; `check` raises UsageError where images of a
    size (height, width) won't do.
    """

    def made(pixels: Any, classes: int, **options: Any) -> Any:
        if check is not None:
            check(pixels.shape[1:3])
        return head(features(application, pixels, strides=strides, **options), classes)

    def plain(pixels: Any, classes: int, *, weights: Weights = None, frozen: bool = False) -> Any:
        return made(pixels, classes, weights=weights, frozen=frozen)

    def of_any_width(
        pixels: Any, classes: int, *, alpha: float = 1.0, weights: Weights = None, frozen: bool = False
    ) -> Any:
        return made(pixels, classes, alpha=alpha, weights=weights, frozen=frozen)

    return of_any_width if application.has_alpha else plain


def _map(base: Any, name: str, size: tuple[int, int], stride: int) -> Any:
    """What the last layer gives that has a map of 1/stride of the image. Raises UsageError: none has."""
    wanted = (size[0] // stride, size[1] // stride)
    for layer in reversed(base.layers):
        if not isinstance(layer, keras.Model) and tuple(layer.output.shape[1:3]) == wanted:
            return layer.output
    raise UsageError(
        f"{name} has no features of {wanted[0]} x {wanted[1]} cells for images of {size[0]} x {size[1]} pixels, which "
        "this task wants; choose another network"
    )


def _base(application: Application, shape: tuple[int, int, int], weights: str | None, alpha: float | None) -> Any:
    options: dict[str, Any] = {"input_shape": shape, "include_top": False}
    if alpha is not None:
        options["alpha"] = alpha
    base = _made(application, weights, options)
    if application.module == "efficientnet" and weights is not None:
        if weights == "imagenet":  # which Keras makes a layer longer
            given, base = base, application.function(weights=None, **options)
            base.set_weights(given.get_weights())
        _scale_as_imagenet(base)
    return base


def _made(application: Application, weights: str | None, options: Mapping[str, Any]) -> Any:
    """Keras's network. Raises UsageError."""
    name = application.name
    try:
        # Keras tells of its download on standard output, which is the caller's.
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # Keras warns of weights that were made at another size: without the top they serve for any.
            warnings.filterwarnings("ignore", message=".*input_shape.*", category=UserWarning)
            return application.function(weights=weights, **options)
    except Exception as error:
        if weights is None and "alpha" in options:
            raise UsageError(f"alpha is {options['alpha']}, which {name} can't have; {_line(error)}") from error
        if weights is None:
            raise
        reason = _line(error)
        if weights != "imagenet":
            raise UsageError(
                f"{weights} does not fit a {name} without top ({reason}); give one that was made with it"
            ) from error
        if isinstance(error, ValueError):  # Keras has looked at what it was asked for
            raise UsageError(f"{name}: there are no such imagenet weights ({reason})") from error
        raise UsageError(
            f"the imagenet weights could not be downloaded ({reason}); on a machine that is connected run "
            f"keras.applications.{name}(include_top=False).save_weights('base.weights.h5') and give that file as "
            "weights"
        ) from error


def _line(error: Exception) -> str:
    return f"{error}".splitlines()[0] if f"{error}" else type(error).__name__


def _scale_as_imagenet(base: Any) -> None:
    """Has the first layers of an EfficientNet do what they do in one that Keras gives imagenet weights.

    Keras adds a layer to that, which divides by the root of the standard deviation once more (for
    github.com/tensorflow/tensorflow/issues/49930), and leaves it out where the same weights come from a file. Here it
    is in the normalisation, whose variance is a weight. One that does not normalise, as with random weights, stays so.
    """
    for layer in base.layers:
        if isinstance(layer, keras.layers.Normalization):
            if not np.any(keras.ops.convert_to_numpy(layer.adapt_mean)):
                return
            variance = keras.ops.convert_to_numpy(layer.adapt_variance)
            layer.adapt_variance.assign(variance * np.array(_DEVIATION, np.float32))
            layer.finalize_state()
