"""All formats, and which of them fits a path: looks at what is there, says what it saw, and what it tried."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.sources import annotated, shards, walking
from headrace.sources.arrays import FORMAT as ARRAYS
from headrace.sources.coco import FORMAT as COCO
from headrace.sources.cvat import FORMAT as CVAT
from headrace.sources.folders import FORMAT as FOLDERS
from headrace.sources.formats import Format
from headrace.sources.imagefolder import FORMAT as IMAGEFOLDER
from headrace.sources.images import FORMAT as FILES
from headrace.sources.labelme import FORMAT as LABELME
from headrace.sources.names import FORMAT as NAMES
from headrace.sources.openimages import FORMAT as OPENIMAGES
from headrace.sources.parquet import FORMAT as PARQUET
from headrace.sources.tabular import FORMAT as CSV
from headrace.sources.tfds import FORMAT as TFDS
from headrace.sources.visipedia import FORMAT as VISIPEDIA
from headrace.sources.voc import FORMAT as VOC
from headrace.sources.webdataset import FORMAT as WEBDATASET
from headrace.sources.wider import FORMAT as WIDER
from headrace.sources.yolo import FORMAT as YOLO

# As they are listed: images alone, what people have most, what one tool writes, arrays.
_ALL = (
    FILES,
    NAMES,
    FOLDERS,
    COCO,
    VOC,
    YOLO,
    CSV,
    IMAGEFOLDER,
    OPENIMAGES,
    CVAT,
    LABELME,
    PARQUET,
    WEBDATASET,
    TFDS,
    WIDER,
    VISIPEDIA,
    ARRAYS,
)
FORMATS = {entry.name: entry for entry in _ALL}

# Those of folders without annotations, which come last.
_BARE = ("names", "folders", "files")


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
    root = paths.path_of(path)
    if not root.exists() and len(several := shards.expanded(root)) > 1:  # a pattern in braces
        root = several[0]
    if not root.exists():
        raise NotThereError(f"{root}: no such file or folder")
    for entry in FORMATS.values():
        for option in entry.options:
            if option.tells is not None and option.name in given:
                return entry, option.tells
    takes = "folder" if root.is_dir() else "file"
    tried = [entry for entry in FORMATS.values() if entry.takes in (takes, "either")]
    if takes == "folder":
        walking.check_root(root)
        if (found := _annotated(root, tried)) is not None:
            return found
    for entry in tried if root.is_file() or root.is_dir() else ():
        if (entry.name in _BARE or takes == "file") and (why := entry.recognise(root)) is not None:
            return entry, why
    if takes == "file":
        seen = annotated.look_at_file(root) if root.is_file() else None
        saw = "" if seen is None else f"; this looks like {seen.name}: {seen.what}"
        if seen is not None and seen.format in FORMATS:
            raise UsageError(f"{root}: no format reads this file alone{saw}; pass the folder that it belongs to")
        raise UsageError(f"{root}: no format reads this file{saw}; pass format=NAME, one of {_listed(tried)}")
    skipped = Counter[str]()
    images = sum(isinstance(found, str) for found in itertools.islice(walking.walk(root, skipped), 1000))
    if not images:
        if skipped[".tfrecord"] or skipped[".tfrecords"]:
            raise DataError(f"{root}: holds no images but TFRecords; adopt them (headrace adopt, headrace.adopt)")
        raise DataError(f"{root}: holds no images")
    raise UsageError(
        f"{root}: the format can't be guessed: {'1000 or more' if images == 1000 else images} images, none in a "
        f"folder below it; pass format=NAME, one of {_listed([entry for entry in tried if entry.name in _BARE])}"
    )


def _annotated(root: Path, formats: Collection[Format]) -> tuple[Format, str] | None:
    """The format of a folder that holds annotations, and what it was recognised by; None of one without any.

    Raises UsageError: they are of several formats, or of one that isn't read, or not so.
    """
    found = {
        entry.name: why for entry in formats if entry.name not in _BARE and (why := _told(entry, root)) is not None
    }
    seen = annotated.look(root, found)
    if len(found) + (seen is not None) > 1:
        what = [f"{name} ({why})" for name, why in found.items()]
        what += [] if seen is None else [f"{seen.name} ({seen.what})"]
        ways = " or ".join(f"format={name!r}" for name in found)
        raise UsageError(f"{root}: annotations of several formats: {'; '.join(what)}; pass {ways} to take those alone")
    if seen is not None:
        remedy = seen.remedy
        if seen.format == "names":
            remedy += ", or format='files' if they are none"
        elif seen.format in FORMATS and FORMATS[seen.format].takes != "file":
            remedy = f"pass format={seen.format!r}"
        raise UsageError(f"{root}: {replace(seen, remedy=remedy)}")
    return next(((FORMATS[name], why) for name, why in found.items()), None)


def _told(entry: Format, root: Path) -> str | None:
    """What tells that a folder is of this format. A folder in it that may not be looked into tells nothing: that it may
    not be is for the source to say."""
    try:
        return entry.recognise(root)
    except StorageError:
        return None


def _listed(formats: Collection[Format]) -> str:
    return "; ".join(f"{entry.name} ({', '.join([entry.reads, *_needs(entry)])})" for entry in formats)


def _needs(entry: Format) -> Iterator[str]:
    for option in entry.options:
        if option.required:
            yield f"with {option.name}={entry.example[1][option.name]!r}"
