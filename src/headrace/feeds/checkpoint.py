"""A training's state between two steps, as one file: an .npz of plain arrays, written at once, no pickle.

What a training is beside the variables of its model is left to who keeps it: learn.train, feeds.resume.
"""

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


def read(path: Path, *, anew: str = "start the run anew with overwrite=True") -> Checkpoint:
    """The checkpoint at `path`; `anew` is what one does to begin without it. Raises DataError (damaged), UsageError
    (its version), StorageError."""
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
            raise DataError(f"{path} is damaged ({reason}); {anew}") from error
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


def _variables(model: Any, metrics: bool) -> dict[str, Any]:
    """Every variable that a step may change, by a name that a rebuilt model gives it again."""
    parts = {"model": model.variables, "optimizer": model.optimizer.variables}
    if metrics:
        parts["metrics"] = model.metrics_variables
    return {f"{part}/{i:04d}": variable for part, variables in parts.items() for i, variable in enumerate(variables)}


def capture(model: Any, progress: dict[str, Any], *, metrics: bool = False) -> Checkpoint:
    """A copy of the compiled model's state, with `progress` beside it; `metrics`: what they have summed up, too."""
    from keras import ops  # by now its backend was chosen

    named = _variables(model, metrics).items()
    arrays = {name: np.array(ops.convert_to_numpy(variable)) for name, variable in named}
    return Checkpoint(arrays | _generators(), progress)


def differs(model: Any, checkpoint: Checkpoint) -> str | None:
    """What of a compiled model is another than the checkpoint has it, None if nothing is."""
    mine = capture(
        model, {}, metrics=_has_metrics(checkpoint)
    )  # a variable's own dtype may be another than its array's
    wanted, found = (
        {name: _kind(array) for name, array in some.arrays.items() if not name.startswith(_RANDOM)}
        for some in (mine, checkpoint)
    )
    odd = (name for name in sorted(wanted | found) if wanted.get(name) != found.get(name))
    return next((f"{name} is {found.get(name)}, wanted {wanted.get(name)}" for name in odd), None)


def restore(model: Any, checkpoint: Checkpoint) -> None:
    """Put a state back into a compiled model built the same way. Raises UsageError: it is built another way."""
    if odd := differs(model, checkpoint):
        raise UsageError(
            f"the checkpoint holds another model: {odd}; resume with the model, classes and Keras version that the run "
            "began with"
        )
    for name, variable in _variables(model, _has_metrics(checkpoint)).items():
        variable.assign(checkpoint.arrays[name])
    restore_generators(checkpoint)


def _generators() -> dict[str, NDArray[Any]]:
    """The states of PyTorch's own generators, from which Keras's Dropout draws there if it was given no seed."""
    from keras import backend

    if backend.backend() != "torch":
        return {}
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return {_RANDOM + device: state.numpy() for device, state in states.items()}


def restore_generators(checkpoint: Checkpoint) -> None:
    """What `restore` does with the states of generators, where something has drawn from them since."""
    states = {name.removeprefix(_RANDOM): a for name, a in checkpoint.arrays.items() if name.startswith(_RANDOM)}
    if not states:
        return
    import torch

    torch.set_rng_state(torch.from_numpy(states.pop("cpu")))
    for device, state in states.items():
        if torch.cuda.is_available() and int(device.removeprefix("cuda")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(torch.from_numpy(state), int(device.removeprefix("cuda")))


_RANDOM = "random/"


def _has_metrics(checkpoint: Checkpoint) -> bool:
    return any(name.startswith("metrics/") for name in checkpoint.arrays)


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
