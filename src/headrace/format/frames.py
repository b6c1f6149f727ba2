"""Polars where it can't work: in a forked child its threads are gone, and the first question to them never returns."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_forked = False


def _mark() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_mark)


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
