"""Progress bars: on standard error, with rate and time left; a widget in a notebook; none off a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import Any


def bar(*, total: int | None, unit: str, desc: str, show: bool | None = None, initial: int = 0) -> Any:
    """A tqdm bar. `show`: None shows it on a terminal and in a notebook only."""
    notebook = "ipykernel" in sys.modules and show is not False
    if notebook and (widget := _widget()):
        return widget(total=total, unit=unit, desc=desc, initial=initial)
    from tqdm import tqdm

    # Not tqdm's own look at the terminal: where that says 0 columns, as some do, tqdm draws nothing.
    columns, lines = shutil.get_terminal_size()
    return tqdm(
        total=total,
        unit=unit,
        desc=desc,
        initial=initial,
        disable=not (notebook or sys.stderr.isatty() if show is None else show),
        ncols=columns,
        nrows=lines,
    )


def _widget() -> Any:
    """tqdm's bar for notebooks, None without ipywidgets, which it is made of: then it can be imported, not made."""
    from tqdm import notebook

    return None if notebook.IProgress is None else notebook.tqdm
