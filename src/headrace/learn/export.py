"""export: a run's model for who has neither Headrace nor Keras, as ONNX, SavedModel or TorchScript.

Raw pixels go in, what `predict` says comes out. A format is written by one framework: where Keras runs on another, a
process of its own writes it. What a task says is left to the tasks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import mmap
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace import errors
from headrace.errors import EngineError, HeadraceError, MissingExtraError, StorageError, UsageError
from headrace.imaging.prepare import ImageOptions
from headrace.learn import networks
from headrace.learn.backend import describe, keras
from headrace.learn.recipe import Recipe, RunFolder
from headrace.learn.run import Run
from headrace.load.photos import Framing
from headrace.place.address import is_url
from headrace.place.local import explained
from headrace.place.publish import Scratch, Staging
from headrace.version import __version__

log = logging.getLogger(__name__)

METADATA = "headrace.json"  # in a TorchScript file and a SavedModel; in ONNX the metadata's key is "headrace"
INPUT = "images"
WITHIN = 1e-3  # of a probability; of the image's side; of the spread of the values
DRAWN = 8  # images of the check: one by itself, then the others at once

_FORMAT, _VERSION = "headrace model", 1
_MARK = json.dumps({"format": _FORMAT})[1:-1].encode()  # stands in every file that this module wrote

Array = NDArray[Any]
Ask = Callable[[Array], dict[str, Array]]  # images [b, ...] -> what they are said to be, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: `inputs` and `outputs` name -> dtype and shape, None for the batch; written by `framework`.

    `difference`: the largest between what the file and Keras say of drawn images: of a probability, of a place as a
    share of the image's side, of a value as a share of the spread of those trained on. None where it was not judged,
    and `unchecked` says why.
    """

    path: Path
    format: str
    framework: str
    bytes: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    difference: float | None
    unchecked: str | None
    seconds: float

    def json(self) -> dict[str, Any]:
        found = asdict(self)
        return {"out": str(found.pop("path"))} | found


class _Served(NamedTuple):
    """A Keras model of raw images that says what `predict` says, by name, and what its file holds beside it."""

    model: Any
    names: tuple[str, ...]
    example: Array
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """The `framework` that writes it, by which of its modules beside it (`needs`); the `runtime` it is judged by, where
    that is there; the `extras` that bring them. `one_file` or a folder."""

    framework: str
    needs: tuple[str, ...]
    runtime: str
    extras: str
    one_file: bool
    write: Callable[[_Served, Path], None]
    load: Callable[[Path], Ask]


def export(
    run: Run | Path | str,
    out: Path | str,
    *,
    format: str,
    overwrite: bool = False,
    network: networks.Network | None = None,
) -> Exported:
    """Writes a run's model to `out`, with all in it that a prediction needs: raw images [b, ...] of the run's size in,
    what `Run.predict` says of them out; b may be any number.

    format: "onnx", one file, by PyTorch; "saved_model", a folder, by TensorFlow; "torchscript", one file, by PyTorch.
    Where Keras runs on another framework, a process of its own writes it. In ONNX a run of mixed_bfloat16 computes in
    float32, and says what Keras says in that.
    Images are of the very kind that the run's loader makes: uint8 0 to 255 in RGB or grey, or arrays as they are.
    What is written is asked about drawn images before it stands at `out`, and must say what Keras says (WITHIN).
    network: as for `Run`. overwrite: replaces `out`, if this wrote it.

    Raises MissingExtraError, UsageError (no such format, `out` is in the way, a network that can't be written so),
    EngineError (it says other than Keras does), DataError, StorageError. Then nothing was written.
    """
    started = time.perf_counter()
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}, wanted one of {', '.join(FORMATS)}")
    if is_url(str(out)):
        raise UsageError(f"{out}: a model is written to a disk of this machine; choose a path, and upload that")
    form, out = FORMATS[format], Path(out)
    if isinstance(run, Run):
        folder, network = run.folder.folder, run.network
    else:
        folder = Path(run)
    RunFolder(folder).read_recipe()  # before anybody installs or waits for anything
    _check_installed(format, form)
    _check_free(out, form, overwrite)
    if keras.backend.backend() == form.framework:
        made = _written(folder, out, format, network, overwrite)
    else:
        made = _elsewhere(folder, out, format, network, overwrite)
    return Exported(path=out, format=format, seconds=round(time.perf_counter() - started, 3), **made)


# --- what is written -------------------------------------------------------------------------------------------------


def _served(run: Run) -> _Served:
    recipe = run.recipe
    images = keras.Input(recipe.shape, dtype=recipe.dtype, name=INPUT)
    wanted = getattr(run.model, "inputs", None)  # which a network of another kind than a graph doesn't say
    said = run.model(keras.ops.cast(images, wanted[0].dtype) if wanted else images)
    found = _Decoded(run)(said)
    model = keras.Model(images, found, name=recipe.model if recipe.model.isidentifier() else None)
    return _Served(model, tuple(found), drawn(recipe), json.dumps(_metadata(run, found), ensure_ascii=False))


class _Decoded(keras.layers.Layer):  # type: ignore[misc]
    """What the task reads out of the model's outputs."""

    def __init__(self, run: Run) -> None:
        super().__init__(name="served", dtype="float32")
        self._served = run.task.served
        self._size = run.recipe.size

    def call(self, said: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._served(keras.ops.cast(said, "float32"), self._size)
        return found


def _metadata(run: Run, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """All that a consumer needs beside the model."""
    recipe, task = run.recipe, run.task
    photos = {} if recipe.keeps else {"values": "0 to 255", "channels": "RGB" if recipe.channels == 3 else "grey"}
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "headrace": __version__,
        "task": recipe.task,
        "model": Path(recipe.model).name,  # of net.py:build, wherever that lies
        "class_names": recipe.class_names,
        "inputs": {INPUT: _inputs(recipe)[INPUT] | photos},
        "outputs": {name: facts | {"is": task.serves[name]} for name, facts in _outputs(outputs).items()},
        "preparation": None if recipe.keeps else _preparation(recipe),
        "threshold": getattr(task, "threshold", None),
        "versions": describe(),
    }


def _preparation(recipe: Recipe) -> dict[str, Any]:
    """How a photo comes to the model's input: as PhotoLoader takes it."""
    packed = asdict(ImageOptions.from_json(recipe.pack_options))
    return {"size": recipe.size, "fit": recipe.options.fit, "channels": recipe.channels, "pack_options": packed}


def _inputs(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {INPUT: {"dtype": recipe.dtype, "shape": [None, *recipe.shape]}}


def _outputs(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"dtype": "float32", "shape": [None, *tensor.shape[1:]]} for name, tensor in outputs.items()}


def drawn(recipe: Recipe, *, n: int = DRAWN, seed: int = 0) -> Array:
    """Images [n, ...] as the run's model takes them: patches of colour under noise, or random numbers where it takes
    arrays as they are."""
    rng = np.random.default_rng(seed)
    if not recipe.keeps:
        height, width, channels = recipe.shape
        patches = rng.integers(0, 256, (n, 6, 6, channels))
        smooth = patches[:, np.arange(height) * 6 // height][:, :, np.arange(width) * 6 // width]
        return np.asarray(np.clip(smooth + rng.integers(-30, 31, smooth.shape), 0, 255), np.uint8)
    dtype, shape = np.dtype(recipe.dtype), (n, *recipe.shape)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else min(256, np.iinfo(dtype).max + 1), shape).astype(dtype)


# --- the formats -----------------------------------------------------------------------------------------------------


def _module(served: _Served, *, as_dict: bool) -> Any:
    """The model as a module of PyTorch, whose outputs are a dict by name or a tuple in that order."""
    import torch

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = served.model

        def forward(self, images: Any) -> Any:
            found = self.model(images, training=False)
            return dict(found) if as_dict else tuple(found[name] for name in served.names)

    for parameter in served.model.parameters():
        parameter.requires_grad_(False)
    return Module().eval()


def _write_onnx(served: _Served, path: Path) -> None:
    import torch

    program = torch.onnx.export(
        _module(served, as_dict=False),
        (torch.from_numpy(served.example[:2]),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=list(served.names),
        verbose=False,
    )
    proto = program.model_proto
    for node in (*proto.graph.node, *(node for function in proto.functions for node in function.node)):
        node.ClearField("metadata_props")  # which line of whose disk it comes from
        node.ClearField("doc_string")
    entry = proto.metadata_props.add()
    entry.key, entry.value = "headrace", served.metadata
    path.write_bytes(proto.SerializeToString())


def _load_onnx(path: Path) -> Ask:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images}), strict=True))


def _write_torchscript(served: _Served, path: Path) -> None:
    import torch

    module = _module(served, as_dict=True)
    # Of a dict PyTorch wants to hear that it is one with the same names each time (strict).
    traced = torch.jit.trace(module, torch.from_numpy(served.example[:2]), strict=False, check_trace=False)
    buffer = io.BytesIO()  # of a disk that is full PyTorch's own writer says nothing: it ends the process
    torch.jit.save(traced, buffer, _extra_files={METADATA: served.metadata})
    path.write_bytes(buffer.getbuffer())


def _load_torchscript(path: Path) -> Ask:
    import torch

    loaded = torch.jit.load(path)

    def ask(images: Array) -> dict[str, Array]:
        with torch.no_grad():
            return {name: tensor.numpy() for name, tensor in loaded(torch.from_numpy(images)).items()}

    return ask


def _write_saved_model(served: _Served, path: Path) -> None:
    served.model.export(path, format="tf_saved_model", verbose=False)
    (path / METADATA).write_text(served.metadata)


def _load_saved_model(path: Path) -> Ask:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda images: {name: tensor.numpy() for name, tensor in loaded.serve(images).items()}


FORMATS = {
    "onnx": _Format(
        framework="torch",
        needs=("onnx", "onnxscript"),
        runtime="onnxruntime",
        extras="torch,onnx",
        one_file=True,
        write=_write_onnx,
        load=_load_onnx,
    ),
    "saved_model": _Format(
        framework="tensorflow",
        needs=(),
        runtime="tensorflow",
        extras="tensorflow",
        one_file=False,
        write=_write_saved_model,
        load=_load_saved_model,
    ),
    "torchscript": _Format(
        framework="torch",
        needs=(),
        runtime="torch",
        extras="torch",
        one_file=True,
        write=_write_torchscript,
        load=_load_torchscript,
    ),
}
_CALLED = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_installed(format: str, form: _Format) -> None:
    """Raises MissingExtraError."""
    if missing := [module for module in (form.framework, *form.needs) if not _installed(module)]:
        raise MissingExtraError(
            f"{_CALLED[form.framework]} writes format={format!r}, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed; run: pip install 'headrace[{form.extras}]'"
        )


# --- where it is written, and by whom --------------------------------------------------------------------------------


def _check_free(out: Path, form: _Format, overwrite: bool) -> None:
    """Raises UsageError: something is at `out` that is not to be replaced. StorageError."""
    if not form.one_file:
        _staging(out, overwrite).check()
        return
    with explained(out):
        if not os.path.lexists(out):
            return
        if out.is_symlink() or not out.is_file():
            raise UsageError(f"{out}: exists and is no file; choose another place")
        if not overwrite:
            raise UsageError(f"{out}: is there already; pass overwrite=True to replace it")
        if not _is_ours(out):
            raise UsageError(f"{out}: is a file that export-model didn't write, and is not replaced; choose another")


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_MARK) >= 0


def _staging(out: Path, overwrite: bool) -> Staging:
    return Staging(out, overwrite=overwrite, replaceable=METADATA, what="an exported model")


@contextlib.contextmanager
def _place(out: Path, form: _Format, overwrite: bool) -> Iterator[Path]:
    """Where to write what stands at `out`, whole, once the block ends well."""
    with contextlib.ExitStack() as stack:
        if form.one_file:
            with explained(out.parent):
                out.parent.mkdir(parents=True, exist_ok=True)
            yield stack.enter_context(Scratch(out.absolute().parent, out.name)) / out.name
        else:
            yield stack.enter_context(_staging(out, overwrite))


def _written(folder: Path, out: Path, format: str, network: networks.Network | None, overwrite: bool) -> dict[str, Any]:
    """Writes it in this process, whose Keras runs on the format's framework."""
    form = FORMATS[format]
    # A trace of PyTorch's holds the device that it was made on, and the CPU is everywhere.
    on = keras.device("cpu") if form.framework == "torch" else contextlib.nullcontext()
    with on, contextlib.ExitStack() as stack:
        run = Run(folder, network=network)
        if format == "onnx":
            stack.enter_context(_without_bfloat16(run.model))
        served = _served(run)
        with _place(out, form, overwrite) as path:
            try:
                with explained(out), _quiet():
                    form.write(served, path)
            except StorageError:
                raise
            except Exception as error:  # of a network that it knows no operation for, frameworks raise anything
                raise UsageError(
                    f"{run.folder.model}: can't be written as {format}; {_CALLED[form.framework]} says: {_line(error)}"
                ) from error
            difference, unchecked = _judged(run, served, format, path)
            size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
    return {
        "framework": form.framework,
        "bytes": size,
        "inputs": _inputs(run.recipe),
        "outputs": _outputs(dict(zip(served.names, served.model.output.values(), strict=True))),
        "difference": difference,
        "unchecked": unchecked,
    }


@contextlib.contextmanager
def _without_bfloat16(model: Any) -> Iterator[None]:
    """The layers of a mixed_bfloat16 network compute in float32, as their weights are: runtimes of ONNX have no
    convolutions of bfloat16."""
    changed = [(layer, layer.dtype_policy) for layer in networks.layers(model)]
    changed = [(layer, policy) for layer, policy in changed if policy.name == "mixed_bfloat16"]
    for layer, _ in changed:
        layer.dtype_policy = "float32"
    try:
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy


def _judged(run: Run, served: _Served, format: str, path: Path) -> tuple[float | None, str | None]:
    """How far what was written is off Keras, at most; or why nobody knows. Raises EngineError, UsageError."""
    form, size = FORMATS[format], run.recipe.size
    if not _installed(form.runtime):
        return None, f"{form.runtime} is not installed; pip install 'headrace[{form.extras}]'"
    said = run.outputs(served.example)
    for one in said:
        run.task.prediction(one, Framing(*size, (), size))  # which raises where numbers say nothing
    expected = run.task.served(keras.ops.convert_to_tensor(said), size)
    units = run.task.served_units(size)
    try:
        with _quiet():
            ask = form.load(path)
            parts = [ask(served.example[:1]), ask(served.example[1:])]
    except Exception as error:
        raise EngineError(
            f"{path.name}: what {_CALLED[form.framework]} wrote can't be used ({_line(error)}); nothing was written"
        ) from error
    off = {
        name: _difference(
            np.concatenate([part[name] for part in parts]),
            np.asarray(keras.ops.convert_to_numpy(expected[name])),
            units.get(name, 1.0),
        )
        for name in served.names
    }
    worst = max(off, key=lambda name: off[name])
    if not off[worst] <= WITHIN:
        raise EngineError(
            f"{path.name}: what {_CALLED[form.framework]} wrote says other {worst} of drawn images than Keras does, by "
            f"{off[worst]:.3g}, wanted {WITHIN} at most; nothing was written"
        )
    return float(f"{off[worst]:.3g}"), None


def _difference(found: Array, wanted: Array, unit: Any) -> float:
    """The largest |found - wanted| as a share of `unit`; what is NaN in both is the same."""
    if found.shape != wanted.shape:
        return float("inf")
    off = np.abs(found.astype(np.float64) - wanted) / unit
    off[np.isnan(found) & np.isnan(wanted)] = 0
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what frameworks print and warn of while they trace."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _line(error: BaseException) -> str:
    """What is at the root of an error, in a line: exporters wrap it in advice, Keras in the name of the layer."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    wrapped = lines and lines[0].startswith("Exception encountered when calling")
    return " ".join(lines[: 1 + bool(wrapped)]) or type(error).__name__


def _elsewhere(
    folder: Path, out: Path, format: str, network: networks.Network | None, overwrite: bool
) -> dict[str, Any]:
    """Has it written by a process of its own, whose Keras runs on the format's framework.

    Raises what that raises; EngineError: it died.
    """
    framework, here = FORMATS[format].framework, keras.backend.backend()
    if not (network is None or isinstance(network, str)):
        raise UsageError(
            f"{_CALLED[framework]} writes format={format!r}, and Keras runs on {_CALLED.get(here, here)} here; "
            "a process of its own would write it, and can't be given a network out of this one: name that as "
            f"file.py:function, or begin with KERAS_BACKEND={framework}"
        )
    log.warning(
        "%s is written by %s, and Keras runs on %s here: a process of its own does it",
        format, _CALLED[framework], _CALLED.get(here, here),
    )  # fmt: skip
    job = {"folder": str(folder), "out": str(out), "format": format, "network": network, "overwrite": overwrite}
    ours = str(Path(errors.__file__).parents[1])
    path = os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from headrace.learn import export; export.answer()"],
        input=json.dumps(job),
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        env=os.environ | {"KERAS_BACKEND": framework, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        told = "\n".join(done.stderr.splitlines()[-8:])
        raise EngineError(f"{out}: its process on {_CALLED[framework]} died ({done.returncode})\n{told}") from None
    if "error" in answer:
        kind, message = answer["error"]
        raise getattr(errors, kind)(message)
    made: dict[str, Any] = answer["made"]
    return made


def answer() -> None:
    """The other end of `_elsewhere`: a job in on standard input, what came of it out on standard output."""
    out = os.dup(1)
    os.dup2(2, 1)  # where frameworks may print
    job = json.load(sys.stdin)
    try:
        said: dict[str, Any] = {"made": _written(Path(job.pop("folder")), Path(job.pop("out")), **job)}
    except HeadraceError as error:
        kind = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__)
        said = {"error": [kind.__name__, str(error)]}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(said, file)
