"""Reading from a local disk: whole files, and parts of them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.errors import StorageError


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turns an OSError about `path` into a StorageError of one clear line. Raises StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        where = error.filename or path
        raise StorageError(f"{where}: {(error.strerror or str(error)).lower()}") from error


def digest(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_ENDS = 1 << 16


def digest_ends(path: Path) -> str:
    """sha256 (hex) of the first and the last 64 KiB of a file. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_ENDS)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(len(head), size - _ENDS))
        return hashlib.sha256(head + file.read()).hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The file `name` below `folder`, links followed. Raises OSError: not there, or not below it."""
    root = folder.resolve()
    try:
        path = (root / name).resolve(strict=True)
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, str(error), name) from None
    if not path.is_relative_to(root):
        raise PermissionError(errno.EPERM, f"leads out of {folder}", name)
    return path


def map_file(path: Path) -> NDArray[np.uint8]:
    """A file's bytes as a read-only uint8 array backed by a memory map. Raises StorageError."""
    with explained(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
