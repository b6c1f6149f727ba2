"""A folder of copies of what lies in object stores: sparse files, that hold what was fetched of a shard, and whole ones.

A file is named by the sha256 of the shard that it is a copy of, and as long. Nothing says which of its bytes are there:
whoever reads a record holds it against the CRC that the index has of it, and a hole, half a write and a flipped bit are
one thing, to be fetched again. So there is no index, lock, counter or journal that could be wrong, for any number of
processes and however they end. What is fetched, and when, is left to load.ahead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from headrace.errors import StorageError, UsageError
from headrace.place.local import LocalPlace, digest, explained

BLOCK = 4096  # bytes that a file system frees at once, at least
TAG = "CACHEDIR.TAG"  # https://bford.info/cachedir: what makes a folder one that backups leave out, and `clear` empties
_TAG_TEXT = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Copies of what headrace read from object stores; `headrace cache clear` removes them.\n"
)
_WHOLE = ".whole"
_NAME = re.compile(r"[0-9a-f]{64}(\.whole)?")
_SCRATCH = re.compile(r"[0-9a-f]{64}\.[a-z0-9_]{8}\.part")
_ORIGIN = "user.headrace.origin"  # an attribute of a file, where the file system has such: of which dataset it is
_STEP = 1 << 23  # bytes that a process writes at most before it looks again at what all have written
_IN_USE = 300  # seconds since somebody said that he reads a file, in which it is not taken from him
_TOUCHED = 60
_ENDED = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger("headrace")

Extents: TypeAlias = "tuple[str, Sequence[tuple[int, int]]]"  # of a file: begin and end of what may be freed of it


def folder_of(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the cache: `cache_dir`, else $HEADRACE_CACHE, else "headrace" in $XDG_CACHE_HOME or ~/.cache."""
    if cache_dir is not None:
        return Path(cache_dir).absolute()
    if given := os.environ.get("HEADRACE_CACHE"):
        return Path(given).absolute()
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(above, "headrace").absolute()


class File(NamedTuple):
    """A file of a cache: the bytes that it `takes` on the disk, when it was used last, and of which dataset it is."""

    path: Path
    takes: int
    used: float
    origin: str | None


def files(folder: Path) -> list[File]:
    """The files of the cache in `folder`, none where there is no such folder.

    Raises UsageError (it is something else than a cache), StorageError.
    """
    with explained(folder):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        _check(folder, names)
        found = []
        for name in sorted(names):
            if _NAME.fullmatch(name) or _SCRATCH.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    path = folder / name
                    status = path.stat(follow_symlinks=False)
                    found.append(File(path, status.st_blocks * 512, status.st_mtime, _origin(path)))
        return found


def clear(folder: Path) -> list[File]:
    """Removes the cache in `folder`, and gives back what there was. Who reads by it goes on, and fetches anew.

    Raises UsageError (it is something else than a cache), StorageError.
    """
    found = files(folder)
    with explained(folder):
        for file in found:
            _remove(file.path)
        (folder / TAG).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError, OSError):
            folder.rmdir()
    return found


def _check(folder: Path, names: Iterable[str]) -> None:
    """Raises UsageError: a folder of these names is no cache, or it lies in a dataset."""
    above = next((place for place in (folder, *folder.parents) if (place / "headrace.json").exists()), None)
    if above is not None:
        raise UsageError(f"{folder}: lies in the dataset {above}; a cache has a folder of its own (HEADRACE_CACHE)")
    names = list(names)
    if TAG not in names and (other := [name for name in names if not _NAME.fullmatch(name)]):
        raise UsageError(f"{folder}: is no cache (it holds {min(other)}); name a folder that is new (HEADRACE_CACHE)")


def _origin(path: Path) -> str | None:
    try:
        return os.getxattr(path, _ORIGIN, follow_symlinks=False).decode(errors="replace")
    except (AttributeError, OSError):
        return None


def _remove(path: Path) -> None:
    """Removes a file, of whose bytes none stay behind with those who have it open; but for one that may be mapped."""
    with contextlib.suppress(FileNotFoundError):
        if path.suffix != _WHOLE:
            os.truncate(path, 0)
        path.unlink()


def _fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        found = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return found  # type: ignore[no-any-return]


_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_call = _fallocate()


def punch(number: int, begin: int, end: int) -> bool:
    """Makes a hole of the bytes `begin` to `end` of an open file; False where the file system has no holes.

    Raises OSError.
    """
    if _call is None:
        return False
    if _call(number, _PUNCH, begin, end - begin) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))


class Cache:
    """The cache in a folder, which takes `most` bytes: by default half of what is free on that disk, with what the cache
    takes already; 0 keeps nothing. The folder is made when the first bytes come. From any thread; pickles as its folder.

    What can't be written is no error: who fetched it uses it from memory. It is said once, as a warning.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, most: int | None = None) -> None:
        if most is not None and most < 0:
            raise UsageError(f"cache_bytes is {most}, wanted at least 0")
        self.folder = folder_of(folder)
        self._asked = most
        self._limit: int | None = None
        self._copies = LocalPlace(self.folder)
        self._own: dict[str, str] = {}  # name -> origin of the files that this process reads by
        self._touched: dict[str, float] = {}
        # Of whom to ask what may be freed, the farthest first; the one that they belong to is not kept alive.
        self.victims: list[Callable[[], Iterator[Extents]]] = []
        self._off: str | None = None  # why nothing is written any more
        self._holes = True
        self._warned: set[str] = set()
        self._used, self._written = 0, _STEP  # what all files take, and what was written since that was looked at
        self._offered, self._again = 0, 0
        self.renew()
        _caches.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.folder, self._asked)

    def renew(self) -> None:
        """New locks, for a forked child: another thread of its parent may have held the old ones."""
        self._lock, self._freeing = threading.Lock(), threading.Lock()

    def own(self, names: Iterable[str], origin: str) -> None:
        """These files are copies of the shards of one dataset, whose URL is `origin`, and this process reads by them."""
        self._own.update(dict.fromkeys(names, origin))

    @property
    def limit(self) -> int:
        """How many bytes the folder may take."""
        if self._limit is None:
            if self._asked is not None:
                self._limit = self._asked
            else:
                there = next(place for place in (self.folder, *self.folder.parents) if place.exists())
                disk = os.statvfs(there)
                self._limit = (disk.f_bavail * disk.f_frsize + self._count()) // 2
        return self._limit

    @property
    def keeps(self) -> bool:
        """Whether anything is kept: a folder that can't be written to keeps nothing."""
        return self._off is None and self.limit > 0

    def read(self, name: str, offset: int, length: int) -> bytes:
        """What the copy `name` holds there: anything, for whoever knows what it must be; nothing where it is not."""
        try:
            data = self._copies.read(name, offset, length)
        except StorageError:
            return b""
        if len(data) < length:
            self._copies.forget(name)  # was removed, and may be there anew
        return data

    @property
    def copies(self) -> LocalPlace:
        """The folder, for reading without a detour; whoever finds a copy wrong says `forget`."""
        return self._copies

    def forget(self, name: str) -> None:
        """Lets go of an open copy, which may have been removed, and be there anew."""
        self._copies.forget(name)

    def write(self, name: str, size: int, offset: int, data: bytes | memoryview) -> bool:
        """Puts bytes into the copy of a shard of `size` bytes; whether they are there now. Never raises OSError."""
        if not self._take(len(data)):
            return False
        for _ in range(2):
            try:
                number = self._open(name)
                try:
                    if os.fstat(number).st_size < size:
                        os.ftruncate(number, size)
                    _write_all(number, data, offset)
                finally:
                    os.close(number)
                return True
            except FileNotFoundError:  # somebody has cleared the cache
                if not self._make():
                    return False
            except OSError as error:
                self._failed(error)
                return False
        return False

    def whole(self, name: str, sha256: str, blocks: Callable[[], Iterable[bytes]], *, anew: bool = False) -> Path:
        """A file with the bytes of digest `sha256`, which is what `blocks` gives, a whole file: the copy that is there,
        or a new one. `name` is for errors. Raises StorageError, also where it comes to another digest."""
        path = self.folder / (sha256 + _WHOLE)
        with contextlib.suppress(OSError):
            if not anew and digest(path) == sha256:
                os.utime(path)
                return path
        with explained(self.folder):
            if not self._make():
                raise StorageError(f"{self.folder}: {self._off}; {name} needs a local copy (HEADRACE_CACHE)")
            found = hashlib.sha256()
            number, part = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".part", dir=self.folder)
            try:
                with os.fdopen(number, "wb") as file:
                    for block in blocks():
                        found.update(block)
                        file.write(block)
                if found.hexdigest() != sha256:
                    raise StorageError(f"{name}: is not what the manifest says, or was changed while it was read")
                os.replace(part, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part)
            return path

    def holes(self, name: str, size: int) -> Iterator[tuple[int, int]]:
        """Where nothing is of a copy of `size` bytes, from its beginning on, as (begin, end); nothing more is said when
        the file is gone. A file system without holes has none that are told of."""
        at = 0
        while at < size:
            try:
                number = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                yield at, size
                return
            try:
                end = min(size, os.fstat(number).st_size)
                if at >= end:
                    yield at, size
                    return
                begin = os.lseek(number, at, os.SEEK_HOLE)
                if begin >= end:
                    at = end
                    continue
                try:
                    stop = os.lseek(number, begin, os.SEEK_DATA)
                except OSError:  # a hole up to the end
                    stop = size
            except OSError:
                return
            finally:
                os.close(number)
            yield begin, stop
            at = stop

    def touch(self) -> None:
        """Says once a minute which files are read by, and goes back below the bound where others went above it."""
        now = time.monotonic()
        for name in list(self._own):
            if now - self._touched.get(name, -_TOUCHED) >= _TOUCHED:
                self._touched[name] = now
                with contextlib.suppress(OSError):
                    os.utime(self.folder / name)
        with self._lock:
            self._written = max(self._written, _STEP)
        if self._off is None and self.folder.exists() and self._recount() > self.limit:
            self._free(0)

    def _open(self, name: str) -> int:
        """The copy, open for writing, made where it is not there. Raises OSError."""
        path, flags = self.folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            number = os.open(path, flags | os.O_CREAT, 0o600)
            with contextlib.suppress(AttributeError, OSError):
                os.setxattr(number, _ORIGIN, self._own.get(name, "").encode())
            return number

    def _make(self) -> bool:
        """Whether there is a folder to write to, which is made where it is not."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(self.folder, os.listdir(self.folder))
            tag = self.folder / TAG
            if not tag.exists():
                tag.write_bytes(_TAG_TEXT)
        except OSError as error:
            self._failed(error)
            return False
        return True

    def _failed(self, error: OSError) -> None:
        """What to do after a file could not be written."""
        why = (error.strerror or str(error)).lower()
        if error.errno in _ENDED:
            self._warn(f"{self.folder}: {why}; less is kept of what is read from stores")
            with self._lock:
                used = self._count()
                self._limit = min(self.limit, max(0, used - max(used // 16, 1 << 20)))
            self._free(0)
            return
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            self._off = why
        self._warn(f"{self.folder}: {why}; nothing is kept of what is read from stores")

    def _warn(self, text: str) -> None:
        with self._lock:
            said, self._warned = text in self._warned, {*self._warned, text}
        if not said:
            _log.warning("%s", text)

    def _take(self, length: int) -> bool:
        """Whether there is room for so many bytes more, which are counted as written then."""
        if self._off is not None or length > self.limit:
            return False
        with self._lock:
            self._offered += length
            if self._written + length > self._step() or self._used + length > self.limit:
                self._used, self._written = self._count(), 0
            if self._used + length <= self.limit:
                self._used += length
                self._written += length
                return True
            if self._offered < self._again:
                return False
        if not self._free(length):
            return False
        with self._lock:
            if self._used + length > self.limit:
                return False
            self._used += length
            self._written += length
            return True

    def _step(self) -> int:
        """How much to write before looking again at what others have: less where it is nearly full."""
        return min(1 << 30, max(min(_STEP, self.limit // 16), (self.limit - self._used) // 16))

    def _recount(self) -> int:
        with self._lock:
            self._used, self._written = self._count(), 0
            return self._used

    def _count(self) -> int:
        """What all files take."""
        total = 0
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total

    def _free(self, length: int) -> bool:
        """Makes room for `length` bytes and some more; whether there is. One thread does, the others go without."""
        if not self._freeing.acquire(blocking=False):
            return False
        try:
            used = self._recount()
            spare = 0 if not length else min(1 << 26, max(length, self.limit // 32))
            wanted = used + length - self.limit + spare
            if wanted > 0:
                freed = self._free_others(wanted)
                if freed < wanted:
                    freed += self._free_farthest(wanted - freed)
                used = self._recount()
            if used > self.limit:  # more than that the order needs: what a larger bound has left, mostly
                self._free_all(used - self.limit)
                used = self._recount()
            enough = used + length <= self.limit
            with self._lock:
                self._again = 0 if enough else self._offered + min(_STEP, max(self.limit // 64, length))
            return enough
        finally:
            self._freeing.release()

    def _free_others(self, wanted: int) -> int:
        """Removes files that nobody reads by, those unused for longest first; bytes that this freed."""
        freed, now = 0, time.time()
        for used, path, takes in sorted(self._found()):
            if freed >= wanted:
                break
            if path.name not in self._own and now - used > _IN_USE:
                with contextlib.suppress(OSError):
                    _remove(path)
                    freed += takes
        return freed

    def _free_farthest(self, wanted: int) -> int:
        """Makes holes where the order needs it last, or removes those files; bytes that this freed."""
        freed = 0
        for victims in list(self.victims):
            for name, extents in victims():
                freed += self._punch(name, extents)
                if freed >= wanted:
                    return freed
        return freed

    def _free_all(self, wanted: int) -> None:
        """Removes files, whoever reads by them."""
        for _, path, takes in sorted(self._found()):
            if wanted <= 0:
                break
            if path.suffix != _WHOLE:
                with contextlib.suppress(OSError):
                    _remove(path)
                    wanted -= takes

    def _found(self) -> Iterator[tuple[float, Path, int]]:
        """When each file was used last, the file, and what it takes."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                path = self.folder / name
                if _NAME.fullmatch(name) or _SCRATCH.fullmatch(name):
                    with contextlib.suppress(OSError):
                        status = path.stat(follow_symlinks=False)
                        yield status.st_mtime, path, status.st_blocks * 512

    def _punch(self, name: str, extents: Sequence[tuple[int, int]]) -> int:
        """Frees parts of a file, or all of it where the file system knows no holes; how many bytes it takes less."""
        path = self.folder / name
        try:
            number = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                before = os.fstat(number).st_blocks * 512
                if not self._holes:
                    _remove(path)
                    return before
                for begin, end in extents:
                    if not punch(number, begin, end):
                        self._holes = False
                        _remove(path)
                        return before
                return before - os.fstat(number).st_blocks * 512
            finally:
                os.close(number)
        except OSError:
            return 0


def _write_all(number: int, data: bytes | memoryview, offset: int) -> None:
    """Raises OSError."""
    left = memoryview(data)
    while len(left):
        written = os.pwrite(number, left, offset)
        left, offset = left[written:], offset + written


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def _renew() -> None:
    for cache in _caches:
        cache.renew()


os.register_at_fork(after_in_child=_renew)
