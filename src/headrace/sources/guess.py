"""Which source fits a path: looks at what is there, says what it saw, and what it tried when nothing fits."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from headrace.errors import DataError, NotThereError, UsageError
from headrace.sources import files
from headrace.sources.coco import recognise as is_coco
from headrace.sources.stack import is_array_file
from headrace.sources.visipedia import recognise as is_visipedia
from headrace.sources.wider import recognise as is_wider

FORMATS = ("names", "folders", "wider", "coco", "visipedia", "arrays")

# What tells that a file is of a format, or None.
_FILES = {"arrays": is_array_file, "wider": is_wider, "coco": is_coco, "visipedia": is_visipedia}


def guess(path: str | os.PathLike[str], *, pattern: str | None = None) -> tuple[str, str]:
    """(format, what it was told by) of a source path.

    Raises NotThereError, StorageError, DataError (no images at all), UsageError listing what was tried.
    """
    root = Path(path)
    if not root.exists():
        raise NotThereError(f"{root}: no such file or folder")
    if pattern is not None:
        return "names", "a pattern for file names is given"
    if root.is_file():
        for name, recognise in _FILES.items():
            if (why := recognise(root)) is not None:
                return name, why
    if not root.is_dir():
        raise UsageError(f"{root}: no source reads this file; pass --format, one of {', '.join(FORMATS)}")
    files.check_root(root)
    found = None
    for found in files.walk(root, Counter()):
        if isinstance(found, str) and "/" in found:
            return "folders", f"images lie in folders below it, such as {found}"
    if found is None:
        raise DataError(f"{root}: holds no images")
    raise UsageError(
        f"{root}: the format can't be guessed. Tried: folders (no folder in it holds images); "
        "names (takes --pattern, e.g. --pattern '^(?P<label>cat|dog)')"
    )
