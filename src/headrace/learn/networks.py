"""Networks of the caller's own: a model or a function that makes one, from Python or out of a file; and saved ones.

Code runs only when the caller names it: a saved model is looked at before Keras loads it, and one that would run any is
refused.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from headrace.errors import NotThereError, UsageError
from headrace.learn.backend import keras

# A Keras model, or a function (input_shape, classes) that makes one: of (h, w, c) and the number of classes.
Network: TypeAlias = Any


def from_file(name: str) -> Callable[..., Any]:
    """The function that "file.py:function" names; the file is run for it, as a script would be.

    Raises NotThereError, UsageError (no such function, or the file's own error with its traceback).
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise NotThereError(f"{file}: there is no such file; a network of your own is named file.py:function")
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and the like look for it
    if (folder := str(path.absolute().parent)) not in sys.path:
        sys.path.insert(0, folder)  # for good, as for a script: its functions may look for its neighbours later
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{file}: can't be run, it raised\n{told(error)}") from error
    found: Any = getattr(module, function, None)
    if not callable(found):
        own = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == spec.name]
        raise UsageError(f"{file}: has no function {function!r}; it has {', '.join(own) or 'none'}")
    return found  # type: ignore[no-any-return]


def name_of(network: Network) -> str:
    """What an own network is called in the recipe and in messages, the same in every process.

    Keras numbers the models that nobody named, in the order in which a process makes them: "sequential_1".
    """
    if isinstance(network, keras.Model):
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(network).__name__)  # as Keras makes a name of it
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        return kind if re.fullmatch(rf"{kind}_\d+", str(network.name)) else str(network.name)
    return str(getattr(network, "__qualname__", type(network).__name__))


def build(network: Network, shape: tuple[int, ...], classes: int, *, name: str) -> Any:
    """The Keras model that `network` is, or makes for raw images of `shape` (h, w, c), with its weights made.

    Raises UsageError: it is no model, or its code raised (the message has that traceback).
    """
    if not isinstance(network, keras.Model) and not callable(network):
        raise UsageError(
            f"model is {network!r:.80}, wanted a name, a Keras model or a function of (input_shape, classes)"
        )
    call = f"{name}(input_shape={shape}, classes={classes})"
    try:
        model = network if isinstance(network, keras.Model) else network(shape, classes)
    except Exception as error:
        raise UsageError(f"{call} raised\n{told(error)}") from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{call} gave {model!r:.80}, wanted a keras.Model")
    return model


def output_shape(model: Any, shape: tuple[int, ...], *, name: str) -> tuple[int | None, ...]:
    """The shape of what the model says of images of `shape`, the batch left out. Makes its weights, where it has none.

    Raises UsageError: it takes other images, its code raised, it has several outputs, or numbers of half precision.
    """
    try:
        out = model(keras.Input(shape))
    except Exception as error:
        takes = getattr(model, "input_shape", None)
        if isinstance(takes, tuple) and not _takes(takes[1:], shape):
            wanted = ", ".join("any" if side is None else str(side) for side in takes[1:])
            raise UsageError(f"{name} takes images [{wanted}], these are {list(shape)}") from error
        raise UsageError(f"{name} can't be called with images {list(shape)}, it raised\n{told(error)}") from error
    if not isinstance(out, keras.KerasTensor):
        raise UsageError(
            f"{name} has {len(keras.tree.flatten(out))} outputs in a {type(out).__name__}, wanted one array"
        )
    if out.dtype in ("float16", "bfloat16"):
        raise UsageError(
            f"{name} ends in numbers of {out.dtype}, of which a loss can't be taken exactly: give its last layer "
            "dtype='float32'"
        )
    return tuple(out.shape[1:])


def _takes(sides: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(sides) == len(shape) and all(a is None or a == b for a, b in zip(sides, shape, strict=True))


def plain(model: Any) -> Any:
    """The same layers and weights without loss and optimizer, which any Keras loads; the model itself where it is no
    graph of layers."""
    if not getattr(model, "inputs", None):
        return model
    (pixels,), (out,) = model.inputs, model.outputs
    return keras.Model(pixels, out, name=model.name)


def layers(model: Any) -> list[Any]:
    """All layers of a model and of those in it."""
    found = []
    for layer in model.layers:
        found += layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def summary(model: Any) -> str:
    """The layers of a model as a table."""
    said: list[str] = []
    model.summary(print_fn=lambda text, **_: said.append(text))
    return "\n".join(said).rstrip()


def activation(model: Any) -> str | None:
    """The function that a model ends in, such as "softmax" or "linear"; None where it can't be told."""
    if not getattr(model, "outputs", None) or not model.layers:
        return None
    last = model.layers[-1]
    if isinstance(last, keras.Model):
        return activation(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", None)


def code_of(path: Path) -> str | None:
    """What of a saved model .keras is code that is not Keras's own, and not known in this process; None for nothing.

    Keras imports the module that a saved layer names, and runs saved lambdas where it is told to. Raises OSError,
    ValueError, KeyError, zipfile.BadZipFile: it is no such file.
    """
    with zipfile.ZipFile(path) as file:
        saved = json.loads(file.read("config.json"))
    for part in _parts(saved):
        module, name = part.get("module"), str(part.get("class_name"))
        if name == "Lambda":
            return "a Lambda layer"
        known = keras.saving.get_registered_object(part.get("registered_name") or name) is not None
        if not known and str(module or "keras").split(".")[0] not in ("keras", "builtins"):
            return f"{name} of {module}"
    return None


def _parts(saved: Any) -> Iterator[dict[str, Any]]:
    """All saved objects in a model's config."""
    if isinstance(saved, dict):
        if "class_name" in saved:
            yield saved
        for value in saved.values():
            yield from _parts(value)
    elif isinstance(saved, list):
        for value in saved:
            yield from _parts(value)


def told(error: BaseException) -> str:
    """An error's traceback from the caller's own code on."""
    at = error.__traceback__
    while at is not None and (
        at.tb_frame.f_code.co_filename == __file__ or "importlib" in at.tb_frame.f_code.co_filename
    ):
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at)).rstrip()
