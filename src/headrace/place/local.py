"""Reading from a local disk: parts of files by few descriptors, whole files, digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import mmap
import os
import resource
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from headrace.errors import DamageError, HeadraceError, StorageError
from headrace.place.address import Place


@contextlib.contextmanager
def explained(path: Path | str) -> Iterator[None]:
    """Turns an OSError about `path` into a StorageError of one clear line; our own stay what they are."""
    try:
        yield
    except HeadraceError:
        raise
    except OSError as error:
        where = error.filename or path
        raise StorageError(f"{where}: {(error.strerror or str(error)).lower()}") from error


BLOCK = 1 << 22  # bytes that are read at a time
_ENDS = 1 << 16


def digest(path: Path) -> str:
    """sha256 (hex) of a regular file. Raises OSError."""
    file, found, offset = _File(str(path)), hashlib.sha256(), 0
    while block := os.pread(file.number, BLOCK, offset):
        found.update(block)
        offset += len(block)
    return found.hexdigest()


def digest_ends(path: Path) -> str:
    """sha256 (hex) of the first and the last 64 KiB of a regular file. Raises OSError."""
    file = _File(str(path))
    head = os.pread(file.number, _ENDS, 0)
    end = max(len(head), os.fstat(file.number).st_size - _ENDS)
    return hashlib.sha256(head + os.pread(file.number, _ENDS, end)).hexdigest()


def content(path: Path, most: int) -> bytes:
    """All bytes of a regular file of `most` bytes at most. Raises OSError."""
    file = _File(str(path))
    size = os.fstat(file.number).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"{size} bytes, wanted at most {most}", str(path))
    return _read(file.number, 0, size)


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


class LocalPlace:
    """A folder on a local disk, by its absolute path: what is read of it is copied, never mapped.

    A map would keep a descriptor per file, wait for the disk with the interpreter's lock held, and end the process by
    SIGBUS when somebody cuts the file. Usable from any thread, in forked children, and pickled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._paths: dict[str, str] = {}  # by name: joining costs more than reading a small record
        # What stands under a path now may be another file than another place has open: each has its own.
        self._number = next(_numbers)
        weakref.finalize(self, _files.drop, self._number).atexit = False

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalPlace, (self.path,)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes `offset` to `offset + length` of the file `name`; fewer where it ends before. Raises StorageError.

        `name` is a path from this folder, or absolute. The disk is waited for without the interpreter's lock.
        """
        path = self._paths.get(name) or self._path_of(name)
        try:
            file = _files.open(self._number, path)
            data = os.pread(file.number, length, offset)
            return data if len(data) == length else data + _read(file.number, offset + len(data), length - len(data))
        except OSError as error:
            raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}") from error

    def view(self, name: str, offset: int, length: int) -> memoryview:
        """What `read` gives. Raises StorageError."""
        return memoryview(self.read(name, offset, length))

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        """`read`: here nothing is a copy."""
        return self.read(name, offset, length)

    def address(self, name: str) -> str:
        """The path of a file, normalised."""
        return os.path.normpath(self.path / name)

    def forget(self, name: str) -> None:
        """Lets go of an open file that may have been replaced."""
        _files.forget(self._number, self._path_of(name))

    def _path_of(self, name: str) -> str:
        path = self._paths.get(name)
        if path is None:
            path = self._paths[name] = str(self.path / name)
        return path

    def size(self, name: str) -> int:
        """Bytes of the regular file `name`. Raises StorageError: not there, or no regular file."""
        path = self.path / name
        with explained(path):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{path}: no regular file")
        return status.st_size

    def version(self, name: str) -> str:
        """When a file was written to last, in nanoseconds. Raises StorageError."""
        path = self.path / name
        with explained(path):
            return str(path.stat().st_mtime_ns)

    def content(self, name: str, most: int) -> bytes:
        """All bytes of the file `name`, of `most` at most. Raises OSError."""
        return content(self.path / name, most)

    def held(self, name: str, most: int) -> bytes:
        """`content` of a file below this folder, links followed. Raises OSError: not there, or not below it."""
        return content(inside(self.path, name), most)

    def digest(self, name: str) -> str:
        """sha256 (hex) of the file `name`. Raises OSError."""
        return digest(self.path / name)

    def digest_ends(self, name: str) -> str:
        """sha256 (hex) of the first and the last 64 KiB of the file `name`. Raises OSError."""
        return digest_ends(self.path / name)

    def whole(self, name: str, sha256: str, *, anew: bool = False) -> Path:
        """The path of the file `name`."""
        return self.path / name

    def within(self, folder: str) -> LocalPlace:
        """The folder `folder` below this one; this one by the empty name."""
        return LocalPlace(self.path / folder) if folder else self

    def names(self) -> list[str]:
        """The regular files of this folder, links to such among them. Raises StorageError."""
        with explained(self.path), os.scandir(self.path) as entries:
            return [entry.name for entry in entries if entry.is_file()]

    def exists(self) -> bool:
        """Whether there is such a folder."""
        return self.path.exists()

    def blocks(self, name: str, size: int = BLOCK) -> Iterator[bytes]:
        """The whole file `name` in blocks of `size` bytes. Raises StorageError."""
        offset = 0
        while data := self.read(name, offset, size):
            yield data
            offset += len(data)

    def map(self, name: str, *, crc32c: int) -> Map:
        """The file `name` as a map that processes share, if its bytes have this CRC-32C: for tables of a dataset's own,
        which nobody writes to after they are published. Raises StorageError, DamageError."""
        path = self.path / name
        with explained(path):
            file = _File(str(path))
            size = os.fstat(file.number).st_size
            found = 0
            for offset in range(0, size, BLOCK):  # read, not mapped: the disk is waited for without the lock
                found = google_crc32c.extend(found, os.pread(file.number, BLOCK, offset))
            if found != crc32c or not size:
                raise DamageError(f"{path}: CRC-32C is 0x{found:08x}, the manifest says 0x{crc32c:08x}; pack again")
            return Map(path, mmap.mmap(file.number, 0, access=mmap.ACCESS_READ))


def crc32c(path: Path) -> int:
    """CRC-32C of a regular file, opened anew: one that is open already may be another than stands there now.

    Raises StorageError.
    """
    found = 0
    for block in LocalPlace(path.parent).blocks(path.name):
        found = google_crc32c.extend(found, block)
    return found


class Map:
    """A mapped file: `data` uint8 [bytes], read-only."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path, self._mapped = path, mapped
        self.data: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)

    def is_cut(self) -> bool:
        """Whether the file has become shorter than what is mapped of it, and reading it would end the process."""
        return self._mapped.size() < len(self.data)


class Slices:
    """The bytes of a file as a value that is cut like bytes, and read in blocks on the way: not from two threads.

    Raises StorageError, also where the file ends before the `size` that it had.
    """

    def __init__(self, place: Place, name: str, size: int, block: int = BLOCK) -> None:
        self._place, self._name, self._size, self._block = place, name, size, block
        self._begin, self._held = 0, b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self._size)
        if end <= begin:
            return b""
        if not self._begin <= begin <= end <= self._begin + len(self._held):
            n = min(max(self._block, end - begin), self._size - begin)
            self._begin, self._held = begin, self._place.read(self._name, begin, n)
            if len(self._held) < n:
                raise StorageError(
                    f"{self._place.address(self._name)}: ends at byte {begin + len(self._held)}, it had {self._size} "
                    "bytes: it was cut while it was read"
                )
        return self._held[begin - self._begin : end - self._begin]


def _read(number: int, offset: int, length: int) -> bytes:
    """The bytes of an open file; fewer where it ends before. Raises OSError."""
    data = b""
    while len(data) < length:  # again after a signal, or 2 GiB
        more = os.pread(number, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class _File:
    """A descriptor, closed when the last who reads by it lets go of it."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        # Not to be kept waiting by a pipe that somebody put there.
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self.number).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.number)


class Descriptors:
    """Open files by place and path, of this process: at most `most`, the one unused for longest goes first. None is far
    below what the process may have open at the time.

    A file that was replaced under its path since is still the old one here; whoever reads checks what he reads.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._files: OrderedDict[tuple[int, str], _File] = OrderedDict()
        self._lock = threading.RLock()  # a place may be collected, and dropped, wherever this is held

    def __len__(self) -> int:
        return len(self._files)

    def open(self, place: int, path: str) -> _File:
        """The open file; it stays open as long as what is returned is held. Raises OSError."""
        key = place, path
        try:  # without the lock: each of the two steps is one
            file = self._files[key]
            self._files.move_to_end(key)
            return file
        except KeyError:  # not open, or let go of between the two
            file = _File(path)  # outside of the lock: a network's folder may take its time
        most = _most() if self.most is None else self.most
        with self._lock:
            file = self._files.setdefault(key, file)
            self._files.move_to_end(key)
            while len(self._files) > most:
                self._files.popitem(last=False)
        return file

    def forget(self, place: int, path: str) -> None:
        """Lets go of a file, so that the next who asks opens what is there then."""
        with self._lock:
            self._files.pop((place, path), None)

    def drop(self, place: int) -> None:
        """Lets go of all files of a place."""
        with self._lock:
            for key in [key for key in self._files if key[0] == place]:
                del self._files[key]

    def renew(self) -> None:
        """A new lock, for a forked child: another thread of its parent may have held the old one."""
        self._lock = threading.RLock()


def _most() -> int:
    """Far below what the process may open: a quarter of it, 256 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 256 if soft == resource.RLIM_INFINITY else max(8, min(256, soft // 4))


_files = Descriptors()
_numbers = itertools.count()
os.register_at_fork(after_in_child=_files.renew)
