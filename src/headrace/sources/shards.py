"""Containers of many images, such as tars: which files a path means, and the split that each one's name says.

What lies in them is left to the sources of each format.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.sources import walking
from headrace.sources.walking import natural
from headrace.splits import DEFAULT_SPLIT, USUAL_SPLITS, split_name_fault

_MOST_FILES = 100_000  # of a pattern in braces

# Hugging Face's words for splits (datasets, data_files.py, SPLIT_KEYWORDS), which stand between anything but letters.
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_SHARDED = re.compile(r"(?P<split>\w+(?:\.\w+)*)-[0-9]{5}-of-[0-9]{5}\b[^/]*")


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of images at `path`. `name`: what messages and origins call it, a path from where the source begins;
    `split`: what its name says, None where it says nothing."""

    path: Path
    name: str
    split: str | None = None


def expanded(path: str | os.PathLike[str]) -> list[Path]:
    """The paths of a pattern in braces, in its order: `a-{000..009}.tar` counts as many digits as it is written with,
    `{train,val}.tar` lists. A path without braces is itself. Raises UsageError: it means too many."""
    pieces = re.split(r"\{([^{}]*)\}", os.fspath(path))
    choices: list[Sequence[str]] = []
    total = 1
    for i, piece in enumerate(pieces):
        choices.append(_choices(piece) if i % 2 else (piece,))
        total *= len(choices[-1])
        if total > _MOST_FILES:
            raise UsageError(f"{path}: means more than {_MOST_FILES} files")
    return [paths.path_of("".join(some)) for some in itertools.product(*choices)]


def _choices(inside: str) -> Sequence[str]:
    if match := re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inside):
        first, last = int(match[1]), int(match[2])
        if abs(last - first) >= _MOST_FILES:
            raise UsageError(f"{{{inside}}}: means more than {_MOST_FILES} files")
        step = 1 if first <= last else -1
        return [str(i).zfill(len(match[1])) for i in range(first, last + step, step)]
    return inside.split(",") if "," in inside else (f"{{{inside}}}",)


def find(path: str | os.PathLike[str], extensions: Sequence[str]) -> list[Shard]:
    """The files that `path` means: itself, those of a pattern in braces, or those in and below a folder that end in one
    of `extensions`, in natural order, hidden ones and junk passed over.

    Raises NotThereError, StorageError, UsageError (a packed dataset).
    """
    if (given := paths.path_of(path)).is_dir():
        root = walking.check_root(path)
        return [Shard(root / name, name) for name in _walk(root, "", tuple(extensions), frozenset())]
    found = [given] if given.exists() else expanded(path)
    for one in found:
        if not one.exists():
            raise NotThereError(f"{one}: no such file")
        if not one.is_file():
            raise UsageError(f"{one}: no regular file")
        if not paths.is_stored(one) and not os.access(one, os.R_OK):
            raise StorageError(f"{one}: permission denied")
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        folder = os.path.commonpath([one.parent for one in found])
        names = [os.path.relpath(one, folder) for one in found]
    return [Shard(one, name) for one, name in zip(found, names, strict=True)]


def _walk(root: Path, prefix: str, extensions: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[str]:
    folder = root / prefix
    try:
        status = folder.stat()
        names = sorted((path.name for path in folder.iterdir()), key=natural)
    except OSError as error:
        raise StorageError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    here = (status.st_dev, status.st_ino)
    for name in names if here not in above else ():
        if walking.is_junk(name):
            continue
        path = folder / name
        try:
            inside = path.is_dir()
        except OSError as error:  # a link to where nobody may look
            raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        if inside:
            yield from _walk(root, f"{prefix}{name}/", extensions, above | {here})
        elif name.lower().endswith(extensions) and path.is_file():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise DataError(f"{str(path)!r}: the name is not UTF-8; rename it") from None
            yield prefix + name


def divided(shards: Sequence[Shard]) -> tuple[list[Shard], tuple[str, ...] | None, tuple[str, ...]]:
    """The shards with the splits that their names say, the names of these in order, and what to say of it.

    As Hugging Face's `datasets` finds splits: `NAME-00000-of-00010`, whatever NAME is, else one of its words in a name
    or a folder of it; validation (valid, dev) is called val. Where none says a split, there are none; where only some
    do, the others count as train, which is said.
    """
    said = [_split_of(shard.name) for shard in shards]
    if not any(said):
        return list(shards), None, ()
    notes = []
    if rest := [shard.name for shard, split in zip(shards, said, strict=True) if split is None]:
        more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        notes.append(f"{rest[0]}{more}: no split in the name, taken as {DEFAULT_SPLIT}")
    out = [Shard(shard.path, shard.name, split or DEFAULT_SPLIT) for shard, split in zip(shards, said, strict=True)]
    names = {shard.split: None for shard in out if shard.split is not None}
    ordered = (*(name for name in USUAL_SPLITS if name in names), *(name for name in names if name not in USUAL_SPLITS))
    notes.append(f"splits by file name: {', '.join(ordered)}")
    return out, ordered, tuple(notes)


def split_called(name: str) -> str:
    """What a split of this name is called here: val for validation, with letters, digits and '_' alone."""
    word = _WORDS.get(name.lower())
    if word is not None:
        return word
    made = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return made if split_name_fault(made) is None else f"split_{made}"


def _split_of(name: str) -> str | None:
    folder, _, file = name.rpartition("/")
    if match := _SHARDED.fullmatch(file):
        last = re.split(r"[^A-Za-z]+", match["split"])
        word = next((_WORDS[one.lower()] for one in last if one.lower() in _WORDS), None)
        return word or split_called(match["split"])
    for part in (file, *reversed(folder.split("/"))):
        for one in re.split(r"[^A-Za-z]+", part):
            if one.lower() in _WORDS:
                return _WORDS[one.lower()]
    return None
