"""What a format says of itself: what it reads, how it is recognised, its options, what makes its source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headrace.record import Record, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An argument of a format's function, beside the path that it reads.

    `type`: what it takes. bool is a switch, a Literal a choice, tuple[str, ...] names in an order, list[str] any number
    of texts. `default`: what the function has, and None where it is required. `per_split`: where data comes divided,
    each split may have a value of its own. `tells`: why its mere presence tells the format, if it does.
    """

    name: str
    type: Any
    help: str
    default: Any = None
    required: bool = False
    per_split: bool = False
    tells: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What people want to know of a format before they pack it, in sentences: what it is `recognised` by, what of it
    records `kept`, what is `refused`. `sample`: a few lines of a file, or a folder's tree."""

    recognised: str
    kept: str
    refused: str
    sample: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format by its `name`: `make(path, **options)` gives its source.

    `reads`: what that is, in a line. `takes`: whether the path is a file or a folder, or may be either. `recognise`:
    what tells that a path is of this format, or None when nothing does; it raises StorageError. `example`: a path, and
    options for it. `about`: more of it, for people.
    """

    name: str
    reads: str
    takes: Literal["file", "folder", "either"]
    make: Callable[..., Iterable[Record | Reject]]
    recognise: Callable[[Path], str | None]
    example: tuple[str, Mapping[str, Any]]
    about: About | None = None
    options: tuple[Option, ...] = ()

    def option(self, name: str) -> Option | None:
        """The option of this name, None where it takes none."""
        return next((option for option in self.options if option.name == name), None)


# What more than one format takes.
CLASS_NAMES = Option(name="class_names", type=tuple[str, ...], help="Class names in index order; sorted by default.")
FLIP_PAIRS = Option(
    name="flip_pairs",
    type=tuple[tuple[int, int], ...],
    help="Numbers of keypoints that a mirror swaps; found by their names (left_eye, right_eye) by default.",
)
