"""Thin adapters, one framework each; a framework is imported when its feed is asked for and never before."""

from __future__ import annotations

import importlib
from types import ModuleType

from headrace.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """The imported framework. Raises MissingExtraError with the install line."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} is not installed ({error}): pip install 'headrace[{extra}]'") from error
