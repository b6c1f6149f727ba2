"""Where bytes are, by name: a path of this machine or an object store's URL; and what either place can be asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

# RFC 3986's scheme, of two letters at least: one letter is a disk of Windows.
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Url(os.PathLike[str]):
    """A place in an object store, as in s3://bucket/cats. It has of a Path what both have: `/`, `name`, `parent`."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text.rstrip("/"))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Url({self.text!r})"

    def __fspath__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> Url:
        if is_url(name):
            return Url(name)
        above, parts = self.text, name.split("/")
        while parts[0] == "..":
            above, parts = str(Url(above).parent), parts[1:]
        return Url("/".join([above, *parts]))

    @property
    def scheme(self) -> str:
        """As in "s3"."""
        return self.text.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of it; that of a bucket alone is the bucket."""
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> Url:
        """All but the last part; a bucket is its own."""
        head, _, rest = self.text.partition("://")
        above, slash, _ = rest.rpartition("/")
        return Url(f"{head}://{above}") if slash else self

    def absolute(self) -> Url:
        """Itself."""
        return self


Location: TypeAlias = Path | Url


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether it is "scheme://…"."""
    return isinstance(text, Url) or (isinstance(text, str) and _SCHEME.match(text) is not None)


def located(path: str | os.PathLike[str]) -> Location:
    """What a caller means by a path: "s3://bucket/cats" is a Url, everything else a Path."""
    if isinstance(path, Url):
        return path
    return Url(path) if isinstance(path, str) and is_url(path) else Path(path)


def reason(error: OSError) -> str:
    """Why something could not be read, for people who are told where."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return cause.strerror.lower() if cause.strerror else str(cause)


class Place(Protocol):
    """A folder on a disk, or what stands below a URL of a store. A file's `name` is a path from there, absolute, or a
    URL. Usable from any thread, and pickled. What is not said otherwise raises StorageError.
    """

    @property
    def path(self) -> Location:
        """Where it is; absolute."""

    def address(self, name: str) -> str:
        """Where a file is, for people."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes `offset` to `offset + length` of a file; fewer where it ends before."""

    def view(self, name: str, offset: int, length: int) -> memoryview:
        """What `read` gives, read-only, in the memory that it came into: nothing is copied."""

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        """The same of a payload whose masked CRC the caller knows, and checks: a copy with this CRC will do."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def version(self, name: str) -> str:
        """What changes when a file is written to: its time, or its e-tag."""

    def blocks(self, name: str, size: int = ...) -> Iterator[bytes]:
        """The whole file in blocks of `size` bytes."""

    def content(self, name: str, most: int) -> bytes:
        """All bytes of a file of `most` bytes at most. Raises OSError, FileNotFoundError where there is none."""

    def held(self, name: str, most: int) -> bytes:
        """`content` of a file that whoever wrote a record named: it lies below this place, or raises OSError."""

    def digest(self, name: str) -> str:
        """sha256 (hex) of a file. Raises OSError."""

    def digest_ends(self, name: str) -> str:
        """sha256 (hex) of the first and the last 64 KiB of a file. Raises OSError."""

    def forget(self, name: str) -> None:
        """Lets go of an open file that may have been replaced."""

    def whole(self, name: str, sha256: str, *, anew: bool = False) -> Path:
        """A file of this machine with the bytes of `name`, whose digest is known: that one, or a copy that is kept.

        Whoever reads it checks it; `anew` makes the copy again.
        """

    def within(self, folder: str) -> Place:
        """The place of a folder below this one."""

    def names(self) -> list[str]:
        """The files of this folder itself, in no order."""

    def exists(self) -> bool:
        """Whether there is such a folder, or anything below the URL."""
