"""How much Python does, in lines it runs: the same in every run, as no time is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs in this thread, those of what it calls among them."""
    count = 0

    def trace(frame: FrameType, event: str, what: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()  # else what ends with the garbage of others would be counted, whenever that is collected
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return count
