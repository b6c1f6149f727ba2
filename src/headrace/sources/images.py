"""Source `files`: a folder of images that nothing is known of. No labels; train, val and test folders are splits."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.record import Record, Reject
from headrace.sources import walking
from headrace.sources.folders import has_folders, split_folders
from headrace.sources.formats import Format
from headrace.sources.info import SourceInfo

_SAMPLES = 1000  # images whose names are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """Iterable of Record | Reject; see `files`. SourceInfo.skipped counts what is no image, by extension."""

    root: Path

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        splits = split_folders(self.root)
        for found in walking.walk(self.root, skipped):
            if isinstance(found, Reject):
                yield found
            else:
                split = splits.get(found.partition("/")[0])
                yield Record(id=found, path=f"{self.root}/{found}", split=split, origin=found)
        taken = ", ".join(f"{folder}/" if folder == to else f"{folder}/ ({to})" for folder, to in splits.items())
        notes = (f"folders taken as splits: {taken}",) if splits else ()
        return SourceInfo(skipped=skipped, root=str(self.root), notes=notes)


def files(root: str | os.PathLike[str]) -> FilesSource:
    """Images at and below the folder `root`, without labels, in natural order of their paths, which are their ids.

    Where all folders that hold images are called train, val (or valid, validation) and test, they are splits, which
    records say. Other folders mean nothing.
    Raises NotThereError, UsageError, StorageError: `root` is no folder that can be read.
    """
    return FilesSource(root=walking.check_root(root))


def recognise(path: Path) -> str | None:
    """What tells that the folder `path` holds images and nothing that could be their class, None when nothing does."""
    splits = split_folders(path)
    if any(has_folders(path / folder) for folder in splits):
        return None
    found = (name for name in walking.walk(path, Counter()) if isinstance(name, str))
    some = [name.rpartition("/")[2] for name in itertools.islice(found, _SAMPLES)]
    if not some or telling(some) or (has_folders(path) and not splits):
        return None
    where = ", ".join(f"{folder}/" for folder in splits) or f"such as {some[0]}"
    return f"images {'in ' if splits else ''}{where}, none in folders of classes: without labels"


def telling(names: Sequence[str]) -> dict[str, int]:
    """How many file names begin with each of a few words and go on with a number, as if the words were classes; none
    where the names don't look so."""
    words = Counter(found[1] for name in names if (found := _WORD.match(name)))
    several = {word: n for word, n in words.items() if 20 * n >= len(names)}
    return several if len(several) > 1 and 10 * sum(several.values()) >= 9 * len(names) else {}


_WORD = re.compile(r"([A-Za-z]+)[ ._-]*[0-9]+\.")


FORMAT = Format(
    name="files",
    reads="A folder of images without labels",
    takes="folder",
    make=files,
    recognise=recognise,
    example=("photos", {}),
)
