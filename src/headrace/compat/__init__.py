"""Drop-in replacements: what other tools' callers call, under their names and with their results."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.compat import visipedia

__all__ = ["visipedia"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # when it is asked for: `python -m headrace.compat.visipedia` must be the first to import it
        return importlib.import_module(f"headrace.compat.{name}")
    raise AttributeError(f"module 'headrace.compat' has no attribute {name!r}")
