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

from headrace.errors import DataError, StorageError, UsageError
from headrace.learn.backend import keras
from headrace.place.local import explained
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
    """The checkpoint at `path`. Raises DataError (damaged), UsageError (its version), StorageError."""
    with explained(path):
        if not path.is_file():
            raise StorageError(f"{path}: no regular file")
        try:
            with zipfile.ZipFile(path) as file:
                arrays = {info.filename.removesuffix(".npy"): _array(file, info) for info in file.infolist()}
            progress = json.loads(arrays.pop("meta").tobytes())
            version = progress.pop("version")
        except OSError:
            raise
        except Exception as error:  # what zipfile, zlib and NumPy's parser raise of bytes that changed, nobody lists
            reason = f"{error}".partition("\n")[0] or type(error).__name__
            raise DataError(f"{path} is damaged ({reason}); start the run anew with overwrite=True") from error
    if version != _VERSION:
        raise UsageError(f"{path} has version {version!r:.80}, this headrace reads version {_VERSION}")
    return Checkpoint(arrays, progress)


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """An array as `np.savez` writes it. All bytes are read first: only then does the zip check their CRC."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")  # and might unpack to anything
    data = io.BytesIO(file.read(info))
    array: NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)
    if data.read(1):
        raise ValueError(f"{info.filename} has more bytes than its array")
    return array


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
    wanted = {name: _kind(array) for name, array in capture(model, {}).arrays.items()}
    found = {name: _kind(array) for name, array in checkpoint.arrays.items()}
    if wanted != found:
        odd = next(name for name in sorted(wanted | found) if wanted.get(name) != found.get(name))
        raise UsageError(
            f"the checkpoint holds another model: {odd} is {found.get(odd)}, wanted {wanted.get(odd)}; "
            "resume with the model, classes and Keras version that the run began with"
        )
    for name, variable in _variables(model).items():
        variable.assign(checkpoint.arrays[name])


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
