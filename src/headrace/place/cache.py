"""A folder of copies of what lies in object stores: sparse files of what was fetched of a shard, and whole ones.

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
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from headrace.errors import StorageError, UsageError
from headrace.place.local import LocalPlace, explained

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
_SLACK = 1 << 25  # bytes above the bound, as files take whole blocks and several processes write at once
_IN_USE = 300  # seconds since somebody said that he reads a file, in which it is not taken from him
_TOUCHED = 60
_ENDED = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger("headrace")

# What may be freed at one go: files, and begin and end of parts of each.
Victims: TypeAlias = "Sequence[tuple[str, Sequence[tuple[int, int]]]]"


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
            names = [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return []
        _check(folder, names)
        found = []
        for name in sorted(names):
            if _is_ours(name):
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
    if TAG not in names and (other := [name for name in names if not _is_ours(name)]):
        raise UsageError(f"{folder}: is no cache (it holds {min(other)}); name a folder that is new (HEADRACE_CACHE)")


def _is_ours(name: str) -> bool:
    return bool(_NAME.fullmatch(name) or _SCRATCH.fullmatch(name))


def _free_on(folder: Path) -> int:
    """Bytes that are free on the disk where a folder is, or will be."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # whatever is wrong with it, who writes to it will say
            disk = os.statvfs(place)
            return disk.f_bavail * disk.f_frsize
    return 0


def _origin(path: Path) -> str | None:
    try:
        return os.getxattr(path, _ORIGIN, follow_symlinks=False).decode(errors="replace")
    except (AttributeError, OSError):
        return None


def _say_origin(number: int, origin: str) -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.setxattr(number, _ORIGIN, origin.encode())


def _remove(path: Path) -> None:
    """Removes a file, of whose bytes none stay behind with those who have it open; but for one that may be mapped."""
    with contextlib.suppress(FileNotFoundError):
        if path.suffix != _WHOLE and not path.is_symlink():  # what a link leads to is none of ours
            os.truncate(path, 0)
        path.unlink()


def _fallocate() -> Callable[[int, int, int, int], int] | None:
    try:
        found = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return found


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
    """The cache in a folder, which takes `most` bytes: by default half of what is free on that disk, with what the
    cache takes already; 0 keeps nothing. The folder is made when the first bytes come. From any thread; pickles as its
    folder.

    What can't be written is no error: who fetched it uses it from memory. It is said once, as a warning.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, most: int | None = None) -> None:
        if most is not None and most < 0:
            raise UsageError(f"cache_bytes is {most}, wanted at least 0")
        self.folder = folder_of(folder)
        self.asked = most
        self._limit: int | None = None
        self._copies = LocalPlace(self.folder)
        self._own: dict[str, str] = {}  # name -> origin of the files that this process reads by
        self._touched = -float(_TOUCHED)  # when that was said last
        # Whom to ask what may be freed.
        self._victims: list[weakref.WeakMethod[Callable[[bool], Iterator[Victims]]]] = []
        self._made = False  # whether the folder was there once, as a cache
        self._off: str | None = None  # why nothing is written any more
        self._holes = True
        self._warned: set[str] = set()
        self._used, self._written = 0, _STEP  # what all files take, and what was written since that was looked at
        # Bytes that were to be written; and how many are to be, urgent or not, before room is looked for again.
        self._offered, self._again = 0, {False: 0, True: 0}
        self.renew()
        _caches.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.folder, self.asked)

    def renew(self) -> None:
        """A new lock, for a forked child: another thread of its parent may have held the old one."""
        self._lock = threading.RLock()

    def own(self, names: Iterable[str], origin: str, victims: Callable[[bool], Iterator[Victims]]) -> None:
        """These files are copies of the shards of one dataset, whose URL is `origin`, and this process reads by them.

        `victims`, a method, is asked what of them may be freed; it is not kept alive.
        """
        with self._lock:
            self._own.update(dict.fromkeys(names, origin))
            self._victims = [method for method in self._victims if method() is not None]
            self._victims.append(weakref.WeakMethod(victims))

    def check(self) -> None:
        """Raises UsageError: the folder is something else than a cache."""
        with contextlib.suppress(OSError):
            _check(self.folder, [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else [TAG])

    @property
    def limit(self) -> int:
        """How many bytes the folder may take."""
        if self._limit is None:
            if self.asked is not None:
                self._limit = self.asked
            else:
                self._limit = (_free_on(self.folder) + self._count()) // 2
        return self._limit

    @property
    def keeps(self) -> bool:
        """Whether anything is kept: a folder that can't be written to keeps nothing."""
        return self._off is None and self.limit > 0

    @property
    def is_full(self) -> bool:
        """Whether the last bytes found no room though they were urgent."""
        return not self.keeps or self._offered < self._again[True]

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

    def write(self, name: str, size: int, offset: int, data: bytes | memoryview, *, urgent: bool = False) -> bool:
        """Puts bytes into the copy of a shard of `size` bytes; whether they are there now. `urgent`: what is needed
        later has to make room. Never raises OSError."""
        with self._lock:  # one after the other, so that what there is room for is known
            if not self._has_room(len(data) + 2 * BLOCK, urgent) or not (self._made or self._make()):
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
                    self._used += len(data) + 2 * BLOCK
                    self._written += len(data) + 2 * BLOCK
                    return True
                except FileNotFoundError:  # somebody has cleared the cache
                    if not self._make():
                        break
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        self._failed(error)
                        break
                    (self.folder / name).unlink(missing_ok=True)  # no link is one of ours
            return False

    def whole(self, name: str, sha256: str, blocks: Callable[[], Iterable[bytes]], *, anew: bool = False) -> Path:
        """A file with the bytes of digest `sha256`, which is what `blocks` gives, a whole file: the copy that is there,
        or a new one. `name` is for errors. Raises StorageError, also where it comes to another digest.

        A copy moves in by this name when all of it came to the digest, and nobody writes to it after that. So it is not
        read here: what a crash of the machine or a bad disk has made of it, the CRC finds that its readers hold it
        against, and they ask `anew`.
        """
        path = self.folder / (sha256 + _WHOLE)
        with contextlib.suppress(OSError):
            if not anew and stat.S_ISREG(path.stat(follow_symlinks=False).st_mode):
                os.utime(path)
                return path
        with explained(self.folder):
            if not self._make():
                raise StorageError(
                    f"{self.folder}: {self._off or 'no room'}; {name} needs a local copy (HEADRACE_CACHE)"
                )
            found = hashlib.sha256()
            number, part = tempfile.mkstemp(prefix=f"{sha256}.", suffix=".part", dir=self.folder)
            try:
                with os.fdopen(number, "wb") as file:
                    _say_origin(number, name.rpartition("/")[0])
                    for block in blocks():
                        found.update(block)
                        file.write(block)
                if found.hexdigest() != sha256:
                    raise StorageError(f"{name}: is not what the manifest says, or was changed while it was read")
                Path(part).replace(path)
            finally:
                Path(part).unlink(missing_ok=True)
            return path

    def hole(self, name: str, size: int, start: int) -> tuple[int, int] | None:
        """The first bytes from `start` on that were never written in a copy of `size` bytes, as (begin, end); None
        where there are none, as far as the file system tells."""
        try:
            number = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return (start, size) if start < size else None
        try:
            begin = os.lseek(number, start, os.SEEK_HOLE)
            if begin >= min(size, os.fstat(number).st_size):  # the end counts as one
                return None
            try:
                return begin, min(size, os.lseek(number, begin, os.SEEK_DATA))
            except OSError:  # a hole up to the end
                return begin, size
        except OSError:  # no bytes so far out
            return None
        finally:
            os.close(number)

    def touch(self) -> None:
        """Says once a minute which files are read by, and goes back below the bound where others went above it."""
        with self._lock:
            now = time.monotonic()
            if now - self._touched < _TOUCHED or not self.keeps:
                return
            self._touched = now
            for name in self._own:
                with contextlib.suppress(OSError):
                    os.utime(self.folder / name)
            if self._count() > self.limit:
                self._free(0, True)

    def _open(self, name: str) -> int:
        """The copy, open for writing, made where it is not there. Raises OSError."""
        path, flags = self.folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            number = os.open(path, flags | os.O_CREAT, 0o600)
            _say_origin(number, self._own.get(name, ""))
            return number

    def _make(self) -> bool:
        """Whether there is a folder to write to, which is made where it is not."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.check()
            tag = self.folder / TAG
            if not tag.exists():
                tag.write_bytes(_TAG_TEXT)
            self._made = True
        except UsageError as error:  # it is something else since it was looked at
            self._off = str(error)
            self._warn(f"{error}; nothing is kept of what is read from stores")
        except OSError as error:
            self._failed(error)
        return self._made

    def _failed(self, error: OSError) -> None:
        """What to do after a file could not be written."""
        why = (error.strerror or str(error)).lower()
        if error.errno in _ENDED:
            self._warn(f"{self.folder}: {why}; less is kept of what is read from stores")
            used = self._count()
            self._limit = min(self.limit, used - used // 16)
            self._free(0, True)
            return
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ELOOP):
            self._off = why
        self._warn(f"{self.folder}: {why}; nothing is kept of what is read from stores")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)

    def _has_room(self, length: int, urgent: bool) -> bool:
        """Whether there is room for so many bytes more, or some is made."""
        if self._off is not None or length > self.limit:
            return False
        self._offered += length
        tight = self._used + length > self.limit
        if tight and self._offered < self._again[urgent]:
            return False
        if tight or self._written + length > self._step():
            self._used, self._written = self._count(), 0
        return self._used + length <= self.limit or self._free(length, urgent)

    def _step(self) -> int:
        """How much to write before looking again at what others have: less where it is nearly full."""
        return min(1 << 30, max(min(_STEP, self.limit // 16), (self.limit - self._used) // 16))

    def _count(self) -> int:
        """What all files take."""
        total = 0
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total

    def _free(self, length: int, urgent: bool) -> bool:
        """Makes room for `length` bytes and some more; whether there is."""
        used = self._count()
        spare = min(1 << 26, max(length, self.limit // 32)) if length else 0
        wanted = used + length - self.limit + spare
        if wanted > 0:
            freed = self._free_others(wanted)
            if freed < wanted:
                self._free_victims(wanted - freed, urgent)
            used = self._count()
        if used > self.limit + min(_SLACK, self.limit // 8):  # what a larger bound has left, and no order knows
            self._free_all(used - self.limit)
            used = self._count()
        self._used, self._written = used, 0
        enough = used + length <= self.limit
        for one in {False, urgent}:  # what is not urgent finds no room where that finds none
            self._again[one] = 0 if enough else self._offered + min(_STEP, max(self.limit // 64, length))
        return enough

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

    def _free_victims(self, wanted: int, urgent: bool) -> None:
        """Makes holes where nothing is needed soon, or removes those files."""
        freed = 0
        for method in list(self._victims):
            victims = method()
            for some in () if victims is None else victims(urgent):
                freed += sum(self._punch(name, extents) for name, extents in some)
                if freed >= wanted:
                    return

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
            for name in [path.name for path in self.folder.iterdir()]:
                path = self.folder / name
                if _is_ours(name):
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
