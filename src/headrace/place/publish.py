"""Writing on a local disk: files whole or not at all, synced; folders published by one rename.

Who is at work where is left to lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from headrace import parallel
from headrace.errors import HeadraceError, StorageError, UsageError
from headrace.place import lock
from headrace.place.local import explained


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` at once: after a crash it holds the old bytes or the new. Raises StorageError.

    What killed processes of this machine left of their writing of `path` is cleared.
    """
    begin = f".{path.name}.new-"
    with explained(path):
        with contextlib.suppress(PermissionError):  # a folder may be written to, and not be listed
            for left in lock.abandoned(path.parent, begin, silence=math.inf):
                if not lock.runs(left):
                    left.unlink(missing_ok=True)
        temporary = path.with_name(begin + lock.tag())
        try:
            with temporary.open("xb") as file:
                lock.hold(file.fileno())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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


class Sink(Protocol):
    """Where finished files of a dataset are put, by several processes of several machines at once. Pickles."""

    def scratch(self) -> Path:
        """A new folder to write files in before they are put; who asked for it removes it. Raises StorageError."""
        ...

    def put(self, path: Path, name: str) -> None:
        """Makes the finished file at `path`, which is gone then, the file `name`: whole or not at all. The same again
        is fine. Raises StorageError."""
        ...


class FolderSink:
    """A Sink whose files lie in `folder`, which all processes see under this path.

    They are written in a folder in it: once `close` has moved that away, who is still at work can't write any more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """From now on there is a place to write in. Raises StorageError."""
        with explained(self.folder):
            (self.folder / _TRIES).mkdir(exist_ok=True)

    def scratch(self) -> Path:
        path = self.folder / _TRIES / f"try-{secrets.token_hex(4)}"
        with explained(path):
            path.mkdir()
        return path

    def put(self, path: Path, name: str) -> None:
        with explained(path):
            sync(path)
            path.replace(self.folder / name)

    def close(self) -> None:
        """Removes what tries have left, and ends those that a lost node may still be at."""
        with contextlib.suppress(OSError):
            gone = (self.folder / _TRIES).replace(self.folder / f"{_TRIES}-{secrets.token_hex(4)}")
            shutil.rmtree(gone, ignore_errors=True)


_TRIES = ".tries"


class Staging:
    """A hidden sibling folder of `out` that becomes `out` at once, or vanishes.

    `with Staging(out, overwrite=..., replaceable=FILE) as folder: ...` publishes when the block ends well, else
    removes all. Other processes put files into it by its `sink`. Only a folder that holds `replaceable` is ever
    replaced; `what` such a folder holds, for people. A kill at any moment leaves the old `out`, the new one, or none
    where there was none; only where the file system can't exchange two names the old one may be left under a hidden
    one, and the next Staging of the same `out` puts it back. It also clears what the killed left. What was finished and
    can't be published is kept, and the error says where.

    Raises UsageError: `out` is in the way, or no place for a dataset. StorageError: the file system refused.
    """

    def __init__(self, out: Path, *, overwrite: bool, replaceable: str, what: str = "a dataset") -> None:
        self.out = out.absolute()
        self.overwrite = overwrite
        self.replaceable, self.what = replaceable, what
        self.folder_name = ""  # in a store there may be one: see Publication
        self._stack = contextlib.ExitStack()

    def check(self) -> None:
        """Raises UsageError, StorageError as entering it would."""
        with explained(self.out.parent):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._check_name()
            self._check_free()

    def __enter__(self) -> Path:
        parent = self.out.parent
        with explained(parent):
            parent.mkdir(parents=True, exist_ok=True)
            self._check_name()
            # Whoever clears leftovers must not meet a folder between its making and its locking.
            with lock.locked(parent):
                self._clear_leftovers()
                self._check_free()
                self.folder = parent / f"{_hidden(self.out, 'packing')}{lock.tag()}"
                self.folder.mkdir()
                self._stack.enter_context(lock.at_work(self.folder))
            self.sink = FolderSink(self.folder)
            self.sink.open()
        return self.folder

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._is_kept = False
        self.sink.close()
        try:
            if kind is None:
                self._finish()
        finally:
            if not self._is_kept:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._stack.close()
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            where = error.filename or self.out
            raise StorageError(f"{where}: {(error.strerror or str(error)).lower()}; nothing was published") from error

    def _finish(self) -> None:
        try:
            with explained(self.out):
                self._publish()
        except HeadraceError as error:
            self._is_kept = True
            kept = self.out.with_name(f"{self.out.name}.unpublished-{secrets.token_hex(4)}")
            try:
                self.folder.rename(kept)
            except OSError:  # nothing can be written any more
                kept = self.folder
            raise type(error)(
                f"{error}\nnothing is lost: what was made lies in {kept}; verify it, and use it there, or rename it to "
                f"{self.out} once nothing is in the way"
            ) from error

    def _publish(self) -> None:
        # The disk takes many syncs at once better than one after the other.
        for _ in parallel.ordered(sync, _inside(self.folder), workers=8, ahead=64):
            pass
        sync(self.folder)
        parent = self.out.parent
        with lock.locked(parent):  # else who clears leftovers might put the old one back between two renames
            self._check_free()
            replaces = (self.out / self.replaceable).exists()
            if replaces:
                self._exchange()
            else:
                self.folder.rename(self.out)
            try:
                sync(parent)
            except OSError:  # after a power cut the old name might stand again: what it names may not go
                if replaces:
                    self._exchange()
                else:
                    self.out.rename(self.folder)
                raise

    def _exchange(self) -> None:
        """The new folder and the old one change names: at once where the file system can, else by three renames."""
        if exchange(self.folder, self.out):
            return
        replaced = self.out.with_name(f"{_hidden(self.out, 'replaced')}{secrets.token_hex(4)}")
        try:
            self.out.rename(replaced)
            self.folder.rename(self.out)
        finally:
            if replaced.exists():
                replaced.rename(self.folder if os.path.lexists(self.out) else self.out)

    def _check_name(self) -> None:
        """Raises UsageError: no folder can be published under this name, whatever is in it. OSError."""
        size = len(os.fsencode(self.out.name))
        most = os.pathconf(self.out.parent, "PC_NAME_MAX") - _LONGER
        if size > most:
            raise UsageError(
                f"{self.out}: a name of {size} bytes, wanted at most {most} (that of a hidden folder beside it is "
                "longer); choose a shorter one"
            )
        if _is_mounted(self.out):
            raise UsageError(f"{self.out}: is a mount point, which no rename replaces; choose a folder in it")

    def _check_free(self) -> None:
        """Raises UsageError unless nothing, an empty folder or (with overwrite) an older dataset stands at `out`."""
        if not os.path.lexists(self.out):
            return
        if not self.out.is_dir() or self.out.is_symlink():
            raise UsageError(f"{self.out}: exists and is no folder; choose another place")
        if (self.out / self.replaceable).exists():
            if not self.overwrite:
                raise UsageError(f"{self.out}: holds {self.what} already; pass overwrite=True to replace it")
        elif any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is a folder with other files in it, which are not replaced; choose another")

    def _clear_leftovers(self) -> None:
        for folder in lock.abandoned(self.out.parent, _hidden(self.out, "packing")):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in _replaced(self.out):
            if os.path.lexists(self.out):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):  # somebody on another machine was quicker
                    folder.rename(self.out)


def _inside(folder: Path) -> Iterator[Path]:
    """All files and folders in a folder, of any depth, a folder after what is in it."""
    for path, folders, files in os.walk(folder, topdown=False, onerror=_raise):
        yield from (Path(path, name) for name in (*files, *folders))


def _raise(error: OSError) -> None:
    raise error


_LONGER = len(".") + len(".packing-") + 34  # bytes that a hidden name beside `out` is longer than its own


def _hidden(out: Path, what: str) -> str:
    """How the name of a hidden folder beside `out` begins."""
    return f".{out.name}.{what}-"


def _replaced(out: Path) -> list[Path]:
    begin = _hidden(out, "replaced")
    return [out.parent / name for name in sorted(os.listdir(out.parent)) if name.startswith(begin)]  # noqa: PTH208


def replaced_beside(out: Path) -> Path | None:
    """The dataset that stood at `out`, where it was left under a hidden name by a replacement that was killed."""
    with contextlib.suppress(OSError):
        return next(iter(_replaced(out.absolute())), None)
    return None


def exchange(one: Path, other: Path) -> bool:
    """Whether two names were exchanged, at once: not every system and file system can. Raises OSError."""
    if (call := _renameat2()) is None:
        return False
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as os.rename does
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an older C library
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    found: Callable[..., int] = call
    return found


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted at `path`; a folder of the same file system too, which ismount doesn't see."""
    if path.is_symlink() or os.path.ismount(path):
        return not path.is_symlink()
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    points = (re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines)
    return os.fsencode(path.resolve()) in points


def hidden_in(folder: Path, begin: str, stack: contextlib.ExitStack) -> Path:
    """A new folder in `folder` under a name of `begin` and a tag, this process's own while `stack` is open. What killed
    processes left under such names is cleared. Raises StorageError."""
    with explained(folder), lock.locked(folder):
        for left in lock.abandoned(folder, begin):
            shutil.rmtree(left, ignore_errors=True)
        made = folder / f"{begin}{lock.tag()}"
        made.mkdir()
        stack.enter_context(lock.at_work(made))
    return made


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
        self.scratch = hidden_in(self.folder, f".{self.name}.writing-", self._stack)
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
