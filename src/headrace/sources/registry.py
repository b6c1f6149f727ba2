"""All formats, and which of them fits a path: looks at what is there, says what it saw, and what it tried."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from headrace.errors import DataError, NotThereError, UsageError
from headrace.sources import annotated, files, shards
from headrace.sources.arrays import FORMAT as ARRAYS
from headrace.sources.coco import FORMAT as COCO
from headrace.sources.folders import FORMAT as FOLDERS
from headrace.sources.formats import Format
from headrace.sources.names import FORMAT as NAMES
from headrace.sources.parquet import FORMAT as PARQUET
from headrace.sources.tfds import FORMAT as TFDS
from headrace.sources.visipedia import FORMAT as VISIPEDIA
from headrace.sources.webdataset import FORMAT as WEBDATASET
from headrace.sources.wider import FORMAT as WIDER

FORMATS = {entry.name: entry for entry in (NAMES, FOLDERS, WIDER, COCO, VISIPEDIA, ARRAYS, WEBDATASET, PARQUET, TFDS)}


def find_format(name: str) -> Format:
    """The format of this name. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(f"format is {name!r}, wanted one of {', '.join(FORMATS)}")
    return FORMATS[name]


def guess(path: str | os.PathLike[str], given: Collection[str] = ()) -> tuple[Format, str]:
    """The format of a path, and what it was recognised by; `given` are the names of options that there are values for.

    Raises NotThereError, StorageError, DataError (a folder without images), UsageError: what was seen and tried, or
    annotations that no format of a folder would take.
    """
    root = Path(path)
    if not root.exists() and len(several := shards.expanded(root)) > 1:  # a pattern in braces
        root = several[0]
    if not root.exists():
        raise NotThereError(f"{root}: no such file or folder")
    for entry in FORMATS.values():
        for option in entry.options:
            if option.tells is not None and option.name in given:
                return entry, option.tells
    takes = "folder" if root.is_dir() else "file"
    if takes == "folder":
        files.check_root(root)
    tried = [entry for entry in FORMATS.values() if entry.takes in (takes, "either")]
    if takes == "folder" and (seen := annotated.look(root)) is not None:
        raise UsageError(f"{root}: {seen}")
    for entry in tried if root.is_file() or root.is_dir() else ():
        if (why := entry.recognise(root)) is not None:
            return entry, why
    if takes == "file":
        known = annotated.look_at_file(root) if root.is_file() else None
        saw = "" if known is None else f"; this looks like {known.name}: {known.what}"
        raise UsageError(f"{root}: no format reads this file{saw}; pass format=NAME, one of {_listed(tried)}")
    skipped = Counter[str]()
    images = sum(isinstance(found, str) for found in itertools.islice(files.walk(root, skipped), 1000))
    if not images:
        if skipped[".tfrecord"] or skipped[".tfrecords"]:
            raise DataError(f"{root}: holds no images but TFRecords; adopt them (headrace adopt, headrace.adopt)")
        raise DataError(f"{root}: holds no images")
    raise UsageError(
        f"{root}: the format can't be guessed: {'1000 or more' if images == 1000 else images} images, none in a "
        f"folder below it; pass format=NAME, one of {_listed(tried)}"
    )


def _listed(formats: Collection[Format]) -> str:
    return "; ".join(f"{entry.name} ({', '.join([entry.reads, *_needs(entry)])})" for entry in formats)


def _needs(entry: Format) -> Iterator[str]:
    for option in entry.options:
        if option.required:
            yield f"with {option.name}={entry.example[1][option.name]!r}"
