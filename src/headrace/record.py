"""Record and Reject: what everything here is about. What a source yields and a Dataset gives back."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError

Boxes = NDArray[np.float32]
Keypoints = NDArray[np.float32]


class Frames(Protocol):
    """Images without bytes of their own, numbered from 0."""

    def frame(self, i: int) -> Drawn: ...


class Drawn(Protocol):
    """Pixels that become the bytes of an image file when they are asked for: `stack.frame(number)`.

    `path`: the file they lie in, or None.
    """

    @property
    def stack(self) -> Frames: ...

    @property
    def number(self) -> int: ...

    @property
    def path(self) -> str | None: ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...

    def encode(self) -> bytes:
        """A file's bytes, that lose nothing. Raises BadImage, OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """An image file's bytes inside of a larger file: `length` bytes from byte `offset` on of `path`."""

    path: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.length < 0:
            raise UsageError(f"{self.path}: {self.length} bytes from byte {self.offset} on, wanted both from 0")

    def read(self) -> bytes:
        """The bytes. Raises OSError: the file can't be read, or ends before them."""
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        if len(data) < self.length:
            end = self.offset + len(data)
            raise OSError(errno.EIO, f"{self.length} bytes from byte {self.offset} on, and the file ends at byte {end}")
        return data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One labelled image.

    `encoded` holds the image file's bytes, `path` names the file, `part` says where in a larger file they lie, or
    `pixels` makes them: one of the four.
    A source names the class (`label_name`); a packed dataset also knows its index (`label`). No label is None.
    `boxes` float32 [n, 4] = x0, y0, x1, y1 in pixels, half-open, of the image *as its bytes are stored* (before any
    EXIF orientation, but see `size`); None when the source says nothing about boxes, [0, 4] for a negative.
    `box_labels` names of the n boxes; an attribute that is a list of n holds a value for each of them.
    `keypoints` float32 [n, k, 3] = x, y, v (0 absent, 1 hidden, 2 visible).
    `size` (height, width): of the image that boxes and keypoints were measured in, as the annotation says it; None when
    it doesn't. That is the image as its bytes are stored, or else as it is once upright; any other image is a Reject.
    `window` (x0, y0, x1, y1): the part of the image that this record is, in the same pixels as boxes and keypoints;
    None is all of it. What of it reaches out of the image is cut.
    `split` it belongs to, where its source comes divided: packing keeps it there. None where packing divides.
    `origin` is where the annotation was read: a file, or `file:line`.
    """

    id: str
    encoded: bytes | None = None
    path: str | None = None
    part: Part | None = None
    pixels: Drawn | None = None
    label: int | None = None
    label_name: str | None = None
    boxes: Boxes | None = None
    box_labels: tuple[str, ...] | None = None
    keypoints: Keypoints | None = None
    size: tuple[int, int] | None = None
    window: tuple[float, float, float, float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    origin: str = ""

    def read(self) -> bytes:
        """The image file's bytes. Raises OSError when the file can't be read; BadImage, when pixels have no bytes."""
        if self.encoded is not None:
            return self.encoded
        if self.pixels is not None:
            return self.pixels.encode()
        if self.part is not None:
            return self.part.read()
        if self.path is None:
            raise ValueError(f"record {self.id!r} has no image: wanted encoded bytes, a path, a part or pixels")
        return Path(self.path).read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """One image or annotation that was refused: what, where, in which stage, and why."""

    id: str
    origin: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin or self.id}: {self.reason} ({self.stage})"


def check_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of classes or keypoints in index order, of `where`. Raises UsageError: one occurs twice, or can't be
    written as a line of a file."""
    if len(set(names)) != len(names):
        raise UsageError(f"{where} {', '.join(names)}: one occurs twice")
    for name in names:
        if "\n" in name:
            raise UsageError(f"{where}: {name!r} holds a line break")
    return tuple(names)
