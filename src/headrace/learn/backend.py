"""Chooses the framework under Keras, then imports Keras. Everything in learn takes `keras` from here."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from headrace.errors import MissingExtraError, UsageError

FRAMEWORKS = ("tensorflow", "torch", "jax")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _configured() -> str | None:
    """The backend in keras.json, which Keras itself writes (as "tensorflow") when it first starts."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return str(json.loads((home / "keras.json").read_text())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _choose() -> str:
    """The framework to use: the one the user named, or one that is there. Raises MissingExtraError."""
    named = os.environ.get("KERAS_BACKEND")
    if named and not _installed(named):
        extra = named if named in FRAMEWORKS else FRAMEWORKS[0]
        raise MissingExtraError(
            f"KERAS_BACKEND is {named!r}, which is not installed; run: pip install 'headrace[{extra}]'"
        )
    for name in (named, _configured(), *FRAMEWORKS):
        if name and _installed(name):
            return name
    raise MissingExtraError(
        "learning needs Keras on one of TensorFlow, PyTorch and JAX, and none of them is installed; "
        "run: pip install 'headrace[tensorflow]' (or 'headrace[torch]', 'headrace[jax]')"
    )


if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = _choose()
if not _installed("keras"):
    raise MissingExtraError(
        f"learning needs Keras; run: pip install 'headrace[{os.environ.get('KERAS_BACKEND', 'tensorflow')}]'"
    )

import keras  # noqa: E402  only now: Keras reads KERAS_BACKEND once, when it is imported

__all__ = ["describe", "deterministic", "jit", "keras", "precision"]


def describe() -> dict[str, str]:
    """Versions of Keras and of the framework under it, for the recipe."""
    name = keras.backend.backend()
    module = sys.modules.get(name)
    return {"keras": keras.__version__, "backend": name, name: str(getattr(module, "__version__", "unknown"))}


def deterministic() -> None:
    """Ask the framework for operations that give the same bits each time. Lasts as long as the process."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif name == "torch":
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants before its first call
        torch.use_deterministic_algorithms(True)
    elif name == "jax":
        import jax

        # XLA reads its flags before JAX starts, so here it is too late to set this one.
        flag = "--xla_gpu_deterministic_ops=true"
        if jax.default_backend() == "gpu" and flag not in os.environ.get("XLA_FLAGS", ""):
            raise UsageError(f"deterministic JAX on a GPU has to be asked for at the start: set XLA_FLAGS={flag}")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Layers that are made meanwhile compute as Keras's dtype policy of this name says: the policy of the process is
    the same before and after."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def jit() -> bool | Literal["auto"]:
    """What `compile(jit_compile=)` gets: Keras's own choice, but no XLA for TensorFlow on a CPU.

    One step of `vanilla` (160 x 160, batches of 32, 2 cores) took 0.56 s with XLA and 0.30 s without.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return False
    return "auto"
