"""A training's state between two steps, as one file: an .npz of plain arrays, written at once, no pickle."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, UsageError
from headrace.learn.backend import keras
from headrace.place.publish import write_atomic

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """`arrays`: the variables of model and optimizer, seed generators too. `progress`: the rest, JSON-able."""

    arrays: dict[str, NDArray[Any]]
    progress: dict[str, Any]

    def write(self, path: Path) -> None:
        meta = json.dumps({"version": _VERSION} | self.progress).encode()
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, meta=np.frombuffer(meta, np.uint8), **self.arrays)
        write_atomic(path, buffer.getvalue())


def read(path: Path) -> Checkpoint:
    """The checkpoint at `path`. Raises DataError (damaged), UsageError (its version)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # the zip's own CRC checks each
        progress = json.loads(arrays.pop("meta").tobytes())
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); start the run anew with overwrite=True") from error
    if (version := progress.pop("version")) != _VERSION:
        raise UsageError(f"{path} has version {version}, this headrace reads version {_VERSION}")
    return Checkpoint(arrays, progress)


def _variables(model: Any) -> dict[str, Any]:
    """Every variable that a step may change, by a name that a rebuilt model gives it again."""
    named = {f"model/{i:04d}": variable for i, variable in enumerate(model.variables)}
    return named | {f"optimizer/{i:04d}": variable for i, variable in enumerate(model.optimizer.variables)}


def capture(model: Any, progress: dict[str, Any]) -> Checkpoint:
    """A copy of the compiled model's state, with `progress` beside it."""
    return Checkpoint(
        {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in _variables(model).items()},
        progress,
    )


def restore(model: Any, checkpoint: Checkpoint) -> None:
    """Put a state back into a compiled model built the same way. Raises UsageError: it is built another way."""
    variables = _variables(model)
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    found = {name: array.shape for name, array in checkpoint.arrays.items()}
    if wanted != found:
        odd = next(name for name in sorted(wanted | found) if wanted.get(name) != found.get(name))
        raise UsageError(
            f"the checkpoint holds another model: {odd} has shape {found.get(odd)}, wanted {wanted.get(odd)}; "
            "resume with the model, classes and Keras version that the run began with"
        )
    for name, variable in variables.items():
        variable.assign(checkpoint.arrays[name])
