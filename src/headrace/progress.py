"""Progress bars: on standard error, with rate and time left; a widget in a notebook; quiet where nobody looks."""

from __future__ import annotations

import sys
from typing import Any


def bar(*, total: int | None, unit: str, desc: str, show: bool | None = None, **options: Any) -> Any:
    """A tqdm bar. `show`: None shows it on a terminal and in a notebook only."""
    from tqdm import tqdm

    if show is None:
        show = sys.stderr.isatty()
        if "ipykernel" in sys.modules:
            from tqdm.notebook import tqdm

            show = True
    return tqdm(total=total, unit=unit, desc=desc, disable=not show, dynamic_ncols=True, **options)
