"""Writing on a local disk: files whole or not at all, synced; folders published by one rename, under locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO

from headrace.errors import StorageError, UsageError
from headrace.place.local import explained


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` at once: after a crash it holds the old bytes or the new. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with explained(path):
        try:
            temporary.write_bytes(data)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


class HashedFile:
    """A new file that knows its size and sha256 while it is written."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb", buffering=1 << 20)
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> str:
        """Closes the file; gives the sha256 in hex."""
        self._file.close()
        return self._digest.hexdigest()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Staging:
    """A hidden sibling folder of `out` that becomes `out` by one rename, or vanishes.

    `with Staging(out, overwrite=..., replaceable=FILE) as folder: ...` publishes when the block ends well, else
    removes all. Only a folder that holds `replaceable` is ever replaced. A kill at any moment leaves the old `out` or
    none; what it leaves of hidden folders the next Staging of the same `out` clears, and an old `out` that was caught
    between the two renames of a replacement is put back.

    Raises UsageError: `out` is in the way. StorageError: the file system refused.
    """

    def __init__(self, out: Path, *, overwrite: bool, replaceable: str) -> None:
        self.out = out.absolute()
        self.overwrite = overwrite
        self.replaceable = replaceable
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Path:
        parent = self.out.parent
        with explained(parent):
            parent.mkdir(parents=True, exist_ok=True)
        # Whoever clears leftovers must not meet a folder between its making and its locking.
        with explained(parent), _locked(parent):
            self._clear_leftovers()
            self._check_free()
            self.folder = parent / f".{self.out.name}.packing-{secrets.token_hex(4)}"
            self.folder.mkdir()
            self._stack.enter_context(_locked(self.folder))
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                with explained(self.out):
                    self._publish()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._stack.close()
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            where = error.filename or self.out
            raise StorageError(f"{where}: {(error.strerror or str(error)).lower()}; nothing was published") from error

    def _publish(self) -> None:
        with ThreadPoolExecutor(8) as pool:  # the disk takes many syncs at once better than one after the other
            list(pool.map(sync, self.folder.iterdir()))
        sync(self.folder)
        parent = self.out.parent
        replaced = parent / f".{self.out.name}.replaced-{secrets.token_hex(4)}"
        with _locked(parent):  # else who clears leftovers might put the old one back between the two renames
            self._check_free()
            try:
                if (self.out / self.replaceable).exists():
                    self.out.rename(replaced)
                self.folder.rename(self.out)
                sync(parent)
            finally:
                if replaced.exists() and not os.path.lexists(self.out):
                    replaced.rename(self.out)
                shutil.rmtree(replaced, ignore_errors=True)

    def _check_free(self) -> None:
        """Raises UsageError unless nothing, an empty folder or (with overwrite) an older dataset stands at `out`."""
        if not os.path.lexists(self.out):
            return
        if not self.out.is_dir() or self.out.is_symlink():
            raise UsageError(f"{self.out}: exists and is no folder; choose another place")
        if (self.out / self.replaceable).exists():
            if not self.overwrite:
                raise UsageError(f"{self.out}: holds a dataset already; pass overwrite=True to replace it")
        elif any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is a folder with other files in it, which are not replaced; choose another")

    def _clear_leftovers(self) -> None:
        for folder in self.out.parent.glob(f".{_escaped(self.out.name)}.packing-*"):
            with contextlib.suppress(BlockingIOError), _locked(folder, wait=False):  # else somebody is at work in it
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.out.parent.glob(f".{_escaped(self.out.name)}.replaced-*"):
            if os.path.lexists(self.out):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.rename(self.out)


class Scratch:
    """A hidden folder in `folder` whose files move into `folder` when the block ends well, else vanish.

    Each file appears whole, by a rename, in the place of an older one of its name, after all are written and synced.
    What a killed process left behind the next Scratch of the same `name` clears. Raises StorageError.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Path:
        with explained(self.folder), _locked(self.folder):
            for left in self.folder.glob(f".{_escaped(self.name)}.writing-*"):
                with contextlib.suppress(BlockingIOError), _locked(left, wait=False):  # else somebody is at work in it
                    shutil.rmtree(left, ignore_errors=True)
            self.scratch = self.folder / f".{self.name}.writing-{secrets.token_hex(4)}"
            self.scratch.mkdir()
            self._stack.enter_context(_locked(self.scratch))
        return self.scratch

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                with explained(self.folder):
                    made = sorted(self.scratch.iterdir())
                    with ThreadPoolExecutor(8) as pool:
                        list(pool.map(sync, made))
                    for path in made:
                        path.replace(self.folder / path.name)
                    sync(self.folder)
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self._stack.close()


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds an advisory lock on a folder, which ends with the process. Raises BlockingIOError where it may not wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
