"""The command line, run inside of the test's own process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from headrace.cli import main


@dataclass(frozen=True)
class Ended:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def headrace(*words: str | Path | int) -> Ended:
    """Runs `headrace WORDS...`."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["headrace", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int)
    return Ended(code or 0, out.getvalue(), err.getvalue())
