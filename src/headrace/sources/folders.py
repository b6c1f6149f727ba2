"""Source `folders`: a folder of images per class; the class is the name of the top folder, or of that in a split's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.record import Record, Reject
from headrace.sources import walking
from headrace.sources.formats import CLASS_NAMES, About, Format
from headrace.sources.info import SourceInfo
from headrace.splits import split_of_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldersSource:
    """Iterable of Record | Reject; see `folders`. SourceInfo.skipped counts what is no image, by extension, and the
    images beside the class folders."""

    root: Path
    class_names: tuple[str, ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        splits = split_folders(self.root)
        bare = {folder for folder in splits if not has_folders(self.root / folder)}
        for found in walking.walk(self.root, skipped):
            if isinstance(found, Reject):
                yield found
                continue
            top, _, rest = found.partition("/")
            label, inside = (rest.partition("/")[::2]) if top in splits else (top, rest)
            if inside:
                yield self._record(found, label, splits.get(top))
            elif top in bare:
                yield self._record(found, None, splits[top])
            else:
                skipped["images beside the class folders"] += 1
        return SourceInfo(
            class_names=self.class_names, skipped=skipped, root=str(self.root), notes=tuple(_notes(splits, bare))
        )

    def _record(self, found: str, label: str | None, split: str | None) -> Record:
        return Record(id=found, path=f"{self.root}/{found}", label_name=label, split=split, origin=found)


def folders(root: str | os.PathLike[str], *, class_names: Sequence[str] | None = None) -> FoldersSource:
    """Images below `root`, class = name of the folder directly below `root`, however deep the file lies in it.

    Where all of these that hold images are called train, val (or valid, validation) and test, they are splits, which
    records say, and classes are the folders in them; what lies in a split without any is a record without a label.
    Classes are sorted naturally (c9 before c10) or in the order of `class_names`. A folder without images makes no
    class unless named there. An image beside the class folders is passed over. Ids are paths relative to `root`.
    Raises NotThereError, UsageError, StorageError: `root` is no folder that can be read.
    """
    return FoldersSource(root=walking.check_root(root), class_names=None if class_names is None else tuple(class_names))


def split_folders(root: Path) -> dict[str, str]:
    """Folder -> split, where all folders directly below `root` that hold images are called as splits are; else none."""
    named = {name: split for name in walking.folders_in(root) if (split := split_of_folder(name))}
    holding = {name: split for name, split in named.items() if walking.holds_images(root / name)}
    others = (name for name in walking.folders_in(root) if name not in named)
    return {} if holding and any(walking.holds_images(root / name) for name in others) else holding


def has_folders(root: Path) -> bool:
    """Whether a folder below `root` holds an image."""
    return any(walking.holds_images(root / name) for name in walking.folders_in(root))


def _notes(splits: Mapping[str, str], bare: set[str]) -> list[str]:
    if not splits:
        return []
    taken = ", ".join(f"{folder}/" if folder == split else f"{folder}/ ({split})" for folder, split in splits.items())
    notes = [f"folders taken as splits: {taken}; classes are the folders in them"]
    if bare:
        notes.append(f"no folders of classes in {', '.join(f'{folder}/' for folder in sorted(bare))}: without a label")
    return notes


def recognise(path: Path) -> str | None:
    """What tells that the folder `path` holds a folder of images per class, or None when nothing does."""
    if splits := split_folders(path):
        classes = any(has_folders(path / folder) for folder in splits)
        return "; ".join(_notes(splits, set())) if classes else None
    for found in walking.walk(path, Counter()):
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
    about=About(
        recognised=(
            "images in folders, none of them called as parts of a dataset are (images, labels, …), without "
            "annotations beside them."
        ),
        kept=(
            "the name of the uppermost folder as the class; in folders called train, val and test, which are "
            "splits, that of the folder in it."
        ),
        refused="nothing of its own: images beside the folders of classes are passed over and counted.",
        sample=("photos/\n  train/cat/1.jpg\n  train/dog/2.jpg\n  val/cat/3.jpg"),
    ),
)
