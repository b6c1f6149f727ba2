"""Source `folders`: a folder of images per class; the class is the name of the top folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.record import Record, Reject
from headrace.sources import files
from headrace.sources.formats import CLASS_NAMES, Format
from headrace.sources.info import SourceInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldersSource:
    """Iterable of Record | Reject; see `folders`. SourceInfo.skipped counts what is no image, by extension."""

    root: Path
    class_names: tuple[str, ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        for found in files.walk(self.root, skipped):
            if isinstance(found, Reject):
                yield found
                continue
            path = f"{self.root}/{found}"
            label, slash, _ = found.partition("/")
            if slash:
                yield Record(id=found, path=path, label_name=label, origin=found)
            else:
                reason = "lies beside the class folders, in none of them"
                yield Reject(id=found, origin=path, stage="label", reason=reason)
        return SourceInfo(class_names=self.class_names, skipped=skipped, root=str(self.root))


def folders(root: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> FoldersSource:
    """Images below `root`, class = name of the folder directly below `root`, however deep the file lies in it.

    Classes are sorted naturally (c9 before c10) or in the order of `class_names`. A folder without images makes no
    class unless named there. An image in no class folder is a Reject. Ids are paths relative to `root`.
    Raises NotThereError, UsageError, StorageError: `root` is no folder that can be read.
    """
    return FoldersSource(root=files.check_root(root), class_names=None if class_names is None else tuple(class_names))


def recognise(path: Path) -> str | None:
    """What tells that the folder `path` holds a folder of images per class, or None when nothing does."""
    for found in files.walk(path, Counter()):
        if isinstance(found, str) and "/" in found:
            return f"images lie in folders below it, such as {found}"
    return None


FORMAT = Format(
    name="folders",
    reads="A folder of images for each class",
    takes="folder",
    make=folders,
    recognise=recognise,
    options=(CLASS_NAMES,),
    example=("photos", {}),
)
