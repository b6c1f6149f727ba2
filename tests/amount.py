"""How much a long test does: a sample, as in `make test`, or all of it, as in `make test-all`.

A test that does more there is marked `exhaustive`, so that it can be chosen: `pytest -m exhaustive`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import settings

ALL = os.environ.get("HEADRACE_TESTS") == "all"


def examples(few: int, many: int) -> Callable[[Any], Any]:
    """A test's hypothesis settings: `few` examples, or `many`."""

    def decorate(test: Any) -> Any:
        return pytest.mark.exhaustive(settings(max_examples=many if ALL else few)(test))

    return decorate


def bits(total: int, at_once: int = 1) -> Iterator[list[int]]:
    """The bits 0 to `total`, `at_once` of them at a time: all, or each seventh, which is one of every byte and both
    sides of every border."""
    chosen = iter(range(0, total, 1 if ALL else 7))
    while some := list(islice(chosen, at_once)):
        yield some
