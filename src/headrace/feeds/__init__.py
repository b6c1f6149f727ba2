"""Thin adapters, one framework each; a framework is imported when its feed is asked for and never before."""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import Any

import numpy as np

from headrace.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """The imported framework. Raises MissingExtraError with the install line."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} is not installed ({error}): pip install 'headrace[{extra}]'") from error


Version = tuple[int, int]


def release(version: str) -> Version:
    """Its first two numbers; (0, 0) for what has none."""
    try:
        major, minor, *_ = version.split(".")
        return int(major), int(minor)
    except ValueError:
        return 0, 0


def warn_untested(name: str, found: str, oldest: Version, newest: Version, see: str) -> None:
    """Says when a framework is older or newer than those that its feed is for, and what to `see` then."""
    if not oldest <= release(found) <= newest:
        logging.getLogger("headrace").warning(
            "%s is %s, and this feed is for %d.%d to %d.%d; %s", name, found, *oldest, *newest, see
        )


def native(value: Any) -> Any:
    """An array, or a dict of them, in this machine's byte order, the only one PyTorch takes; a copy only if it isn't.

    All else, which targets of the caller's own may make, is given back as it is.
    """
    if isinstance(value, dict):
        return {name: native(part) for name, part in value.items()}
    return value.astype(value.dtype.newbyteorder("="), copy=False) if isinstance(value, np.ndarray) else value
