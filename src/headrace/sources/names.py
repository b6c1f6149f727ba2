"""Source `names`: a folder of images whose class stands in the file name (`cat.12.jpg`)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.errors import UsageError
from headrace.record import Record, Reject
from headrace.sources import walking
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo

Unlabelled = Literal["keep", "reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesSource:
    """Iterable of Record | Reject; see `names`. SourceInfo.skipped counts what is no image, by extension."""

    root: Path
    pattern: re.Pattern[str]
    unlabelled: Unlabelled
    class_names: tuple[str, ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        for found in walking.walk(self.root, skipped):
            if isinstance(found, Reject):
                yield found
                continue
            path = f"{self.root}/{found}"
            match = self.pattern.search(found.rpartition("/")[2])
            label = match["label"] if match else None
            if not label and self.unlabelled == "reject":
                reason = f"the file name does not match the pattern {self.pattern.pattern!r}"
                yield Reject(id=found, origin=path, stage="label", reason=reason)
            else:
                yield Record(id=found, path=path, label_name=label or None, origin=found)
        return SourceInfo(class_names=self.class_names, skipped=skipped, root=str(self.root))


def names(
    root: str | os.PathLike[str],
    *,
    pattern: str,
    unlabelled: Unlabelled = "keep",
    class_names: Sequence[str] | None = None,
) -> NamesSource:
    """Images below `root`, class = group `label` of the regular expression `pattern`, searched in the file's name.

    A file that doesn't match is a record without a label, or with `unlabelled="reject"` a Reject. `class_names` gives
    the order of classes; by default they are sorted naturally. Ids are paths relative to `root`.
    Raises NotThereError, StorageError, UsageError (no folder; no valid pattern; a pattern without the group `label`).
    """
    if unlabelled not in ("keep", "reject"):
        raise UsageError(f"unlabelled is {unlabelled!r}, wanted keep or reject")
    return NamesSource(
        root=walking.check_root(root),
        pattern=compile_pattern(pattern),
        unlabelled=unlabelled,
        class_names=None if class_names is None else tuple(class_names),
    )


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression `pattern` for file names. Raises UsageError: not valid, or without the group `label`."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if "label" not in compiled.groupindex:
        raise UsageError(f"pattern {pattern!r} has no group 'label'; wanted e.g. '^(?P<label>cat|dog)\\.'")
    return compiled


FORMAT = Format(
    name="names",
    reads="Images in a folder whose file names tell the class (cat.12.jpg)",
    takes="folder",
    make=names,
    recognise=lambda path: None,  # any folder of images may be one: only who gives the pattern knows
    options=(
        Option(
            name="pattern",
            type=str,
            help="A regular expression with a group named label, searched in the file name.",
            required=True,
            tells="a pattern for file names is given",
        ),
        Option(
            name="unlabelled",
            type=Unlabelled,
            help="What becomes of files that don't match: stored without a label, or rejected.",
            default="keep",
        ),
        CLASS_NAMES,
    ),
    example=("photos/train", {"pattern": "^(?P<label>cat|dog)"}),
    about=About(
        recognised="--pattern, which only this format takes.",
        kept="the class that the pattern finds in the name of the file.",
        refused="with --unlabelled reject, files whose names don't match.",
        sample=("photos/\n  cat.12.jpg\n  dog.7.jpg"),
    ),
)
