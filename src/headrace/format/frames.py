"""Polars where it can't work: in a forked child its threads are gone, and the first question to them never returns.

A child of a process in which they had not started yet starts its own. Whoever imports Polars imports this.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from headrace.errors import UsageError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_had = False  # whether there were threads of Polars when this process was last forked
_forked = False  # whether it is a child that lost them

_TASKS = Path("/proc/self/task")
_THREAD = re.compile("polars-[0-9]+")


def _have_started() -> bool:
    """Whether Polars's threads have; where nobody can tell, whether Polars is there at all."""
    try:
        tasks = list(_TASKS.iterdir())
    except OSError:  # no Linux
        return "polars" in sys.modules
    for task in tasks:
        with contextlib.suppress(OSError):  # it has ended
            if _THREAD.fullmatch((task / "comm").read_text().strip()):
                return True
    return False


def _look() -> None:
    global _had
    _had = _had or _have_started()


def _mark() -> None:
    global _forked
    _forked = _had


os.register_at_fork(before=_look, after_in_child=_mark)


def check_process(what: str) -> None:
    """For what asks Polars itself. Raises UsageError: this is a forked child, in which that would wait for ever."""
    if _forked:
        raise UsageError(
            f"{what}: this process was forked from one in which Polars had started its threads, and here they are "
            "gone; start processes by 'spawn' or 'forkserver' (multiprocessing.get_context)"
        )


def anywhere(function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """What `function` gives or raises: called here, or in a forked child by a fresh interpreter of its own.

    A function of a module, whose arguments and result can be pickled. A fresh interpreter takes some 0.3 s.
    """
    if not _forked:
        return function(*args, **kwargs)
    call = pickle.dumps((function, args, kwargs))
    code = "from headrace.format.frames import _serve; _serve()"
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=call,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a process for a forked child ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    result: Any = pickle.loads(done.stdout)
    if isinstance(result, BaseException):
        raise result
    return result  # type: ignore[no-any-return]


def _serve() -> None:
    """The other side: a call on standard input, its result or exception on standard output."""
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # whatever prints must not come between
    try:
        function, args, kwargs = pickle.loads(sys.stdin.buffer.read())  # which opens what is in the arguments
        result = function(*args, **kwargs)
    except Exception as error:
        result = error
    out.write(pickle.dumps(result))
