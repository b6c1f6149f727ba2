"""Paths below a URL of a store, for who reads folders of files of others: what a Path is asked for, and no more.

A store has no folders: what a prefix has in front of the next `/` is one here. There are no links, and nothing can be
written. What is listed is remembered for a moment, as a folder is looked at many times until its format is known.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import io
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from headrace import parallel
from headrace.errors import HeadraceError, NotThereError, StorageError, UsageError
from headrace.place.address import Url, is_url

if TYPE_CHECKING:
    from headrace.place.remote import RemotePlace

_MOST_FILE = 1 << 31  # bytes of an image, or of a file that is read at once
_FIRST, _WINDOW = 1 << 16, 8 << 20  # bytes that are read at a time at first, and at most
_FRESH = 10.0  # seconds that a listing is taken for what is there, and ten times what it took
_LISTED = 1 << 22  # names that are remembered
_REQUESTS = 64  # files whose beginnings are on their way

_T = TypeVar("_T")


class Unreachable(HeadraceError):
    """A store can't be reached, or refuses: no fault of any file, so no `except OSError` of a source takes it for one.

    Whoever packs makes a StorageError of it.
    """


def path_of(path: str | os.PathLike[str]) -> Path:
    """A Path, or what stands for one below a URL. Raises MissingExtraError, UsageError (no such kind of store)."""
    text = os.fspath(path)
    if not is_url(text):
        return Path(text)
    from headrace.place import stores

    stores.opened(Url(text))  # no library, no such store
    return StoredPath(text)


def content(url: str, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of the object at a URL, or `length` of them from `offset` on, fewer where it ends before.

    Raises OSError, FileNotFoundError where there is no such object; StorageError of a store that can't be reached.
    """
    try:
        place, name = _place(url)
        return place.content(name, _MOST_FILE) if length is None else place.read(name, offset, length)
    except NotThereError as error:
        if _is_bucket(error):
            raise StorageError(str(error)) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except UsageError as error:  # a URL in a table that names no store
        raise OSError(errno.EINVAL, str(error), url) from error


def _place(url: str) -> tuple[RemotePlace, str]:
    """The place of a bucket, or of one address of a web server, and the name of the object in it."""
    from headrace.place.remote import RemotePlace
    from headrace.place.stores import BUCKETS

    scheme, _, rest = url.partition("://")
    if scheme not in BUCKETS:
        return RemotePlace(Url(url)), ""
    bucket, _, key = rest.partition("/")
    return RemotePlace(Url(f"{scheme}://{bucket}")), key


def _is_bucket(error: NotThereError) -> bool:
    """Whether it is the bucket that isn't there."""
    return "bucket" in str(error).rpartition(": ")[2]


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """What a store says, as a file system would, or Unreachable."""
    try:
        yield
    except NotThereError as error:
        if _is_bucket(error):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except StorageError as error:
        raise Unreachable(str(error)) from error


_SCHEME = re.compile("^([A-Za-z][A-Za-z0-9+.-]+):/+")


class StoredPath(type(Path())):  # type: ignore[misc]
    """A Path whose text is a URL. What it gives is read from the store: `open` reads ranges as they are needed."""

    __slots__ = ()

    def __str__(self) -> str:
        return _SCHEME.sub(r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"StoredPath({str(self)!r})"

    def as_posix(self) -> str:
        return str(self)

    def absolute(self) -> StoredPath:
        return self

    def is_absolute(self) -> bool:
        return is_url(str(self))

    def resolve(self, strict: bool = False) -> StoredPath:
        return self

    def exists(self, **_: Any) -> bool:
        return self.is_dir() or self.is_file()

    def is_dir(self, **_: Any) -> bool:
        """Whether anything stands below it; of a web server nobody knows, and it is one where it is no file."""
        if not self._names_key():
            return is_url(str(self))
        if _is_web(self):
            return not self.is_file()
        listed = _known(self.parent)
        return self.name in listed and listed[self.name] is None if listed is not None else bool(_listing(self))

    def is_file(self, **_: Any) -> bool:
        if not self._names_key():
            return False
        listed = None if _is_web(self) else _known(self.parent)
        return self._object() is not None if listed is None else listed.get(self.name) is not None

    def _names_key(self) -> bool:
        """Whether it is more than a bucket or a host."""
        return len(str(self).partition("://")[2].split("/")) > 1

    def _object(self) -> Any:
        place, name = _place(str(self))
        try:
            with _explained(str(self)):
                return place.stat(name)
        except (FileNotFoundError, Unreachable) as error:
            if isinstance(error, Unreachable) and "refuses the request" not in str(error):
                raise
            return None

    def stat(self, **_: Any) -> Any:
        """As of a file system: kind, size, when it was written to, and a number that is its own."""
        number = hash(str(self))
        if not _is_web(self) and self.is_dir():
            return SimpleNamespace(st_mode=stat.S_IFDIR, st_size=0, st_mtime_ns=0, st_dev=-1, st_ino=number)
        if (found := self._object()) is not None:
            when = int(found.modified.timestamp() * 1e9)
            return SimpleNamespace(st_mode=stat.S_IFREG, st_size=found.size, st_mtime_ns=when, st_dev=-1, st_ino=number)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> Any:
        """Its bytes, to be read in any order. Raises OSError, Unreachable."""
        if mode != "rb":
            raise OSError(errno.EROFS, "a source in a store is read as bytes", str(self))
        return io.BufferedReader(_Ranges(str(self)), _FIRST)

    def read_bytes(self) -> bytes:
        place, name = _place(str(self))
        with _explained(str(self)):
            data: bytes = place.content(name, _MOST_FILE)
            return data

    def iterdir(self) -> Iterator[StoredPath]:
        return (self / name for name in _listing(self))

    def glob(self, pattern: str, **_: Any) -> Iterator[StoredPath]:
        """What of a folder itself fits a pattern."""
        import fnmatch

        return (self / name for name in _listing(self) if fnmatch.fnmatchcase(name, pattern))


class Entry(NamedTuple):
    """As os.DirEntry; `size` is None of a folder."""

    name: str
    path: str
    size: int | None

    def __fspath__(self) -> str:
        return self.path

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self.size is None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self.size is not None


class _Entries:
    """As what os.scandir gives."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[Entry]:
        return self._entries

    def __enter__(self) -> Iterator[Entry]:
        return self._entries

    def __exit__(self, *_: object) -> None:
        pass


def scandir(folder: str | os.PathLike[str]) -> Any:
    """os.scandir, of a store too. Raises OSError, Unreachable, UsageError (a web server lists nothing)."""
    if not isinstance(folder, StoredPath):
        return os.scandir(folder)
    listed = _listing(folder)
    if not listed and folder._names_key() and not folder.is_dir():  # empty ones are made by consoles
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return _Entries(Entry(name, f"{folder}/{name}", size) for name, size in listed.items())


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk, of a store too."""
    if not isinstance(root, StoredPath):
        yield from os.walk(root)
        return
    listed = _listing(root)
    folders = [name for name, size in listed.items() if size is None]
    yield str(root), folders, [name for name, size in listed.items() if size is not None]
    for name in folders:
        yield from walk(root / name)


def is_stored(path: object) -> bool:
    """Whether it is a path below a URL."""
    return isinstance(path, StoredPath)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file or folder; False also where no path can be. Of many, asked of what their folders
    list."""
    if not isinstance(path, StoredPath):
        return os.path.exists(path)  # noqa: PTH110
    return path.exists() if _is_web(path) else path.name in _listing(path.parent)


def is_file(path: str | os.PathLike[str]) -> bool:
    """The same of a file."""
    if not isinstance(path, StoredPath):
        return os.path.isfile(path)  # noqa: PTH113
    return path.is_file() if _is_web(path) else _listing(path.parent).get(path.name) is not None


def refusal(url: str) -> str | None:
    """Why the object at a URL can't be read, or None; what a web server has is only known when it is read."""
    path = StoredPath(url)
    if _is_web(path) or is_file(path):
        return None
    return f"{os.strerror(errno.ENOENT).lower()}: {url!r}"


def held(path: Path) -> BinaryIO:
    """The open file, or a copy of an object: for who reads here and there in it. Raises OSError, Unreachable."""
    if not isinstance(path, StoredPath):
        return path.open("rb")
    place, name = _place(str(path))
    file: BinaryIO = tempfile.TemporaryFile("w+b")  # noqa: SIM115
    with _explained(str(path)):
        file.writelines(place.blocks(name))
    file.seek(0)
    return file


def kept_on_disk(path: Path) -> Path:
    """The file, or a copy of an object as long as this process lives: for who takes nothing else. Raises OSError,
    Unreachable."""
    if not isinstance(path, StoredPath):
        return path
    place, name = _place(str(path))
    with _explained(str(path)):
        return _copy(str(path), place.version(name))


@functools.lru_cache(256)
def _copy(url: str, version: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="headrace-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / url.rpartition("/")[2]
    place, name = _place(url)
    with copy.open("wb") as file:
        file.writelines(place.blocks(name))
    return copy


# --- what there is ----------------------------------------------------------------------------------------------------


def _is_web(path: Path) -> bool:
    return str(path).lower().startswith(("http://", "https://"))


class _Listed(NamedTuple):
    names: dict[str, int | None]  # bytes of files, None of folders
    until: float


_listings: OrderedDict[tuple[str, str], _Listed] = OrderedDict()
_lock = threading.Lock()


def _key(folder: Path) -> tuple[str, str]:
    return str(folder), os.environ.get("AWS_ENDPOINT_URL", "")


def _known(folder: Path) -> dict[str, int | None] | None:
    """What was listed of a folder a moment ago, None where nothing was."""
    with _lock:
        found = _listings.get(_key(folder))
    return found.names if found is not None and found.until > time.monotonic() else None


def _listing(folder: Path) -> dict[str, int | None]:
    """What is in a folder: bytes of files, None of folders; nothing where there is no such folder.

    Raises Unreachable, NotThereError (no bucket), UsageError (a web server).
    """
    if (known := _known(folder)) is not None:
        return known
    import obstore

    from headrace.place import stores

    begin = time.monotonic()
    store = stores.opened(Url(str(folder)))
    if store.reads_only:
        raise UsageError(f"{folder}: a web server doesn't say what files there are; name the files themselves")
    with _explained(str(folder)):
        found = stores.ask(str(folder), lambda: obstore.list_with_delimiter(store.api, store.key or None))
    names: dict[str, int | None] = {
        meta["path"].rpartition("/")[2]: meta["size"] for meta in found["objects"] if meta["path"] != store.key
    }
    names |= {prefix.rstrip("/").rpartition("/")[2]: None for prefix in found["common_prefixes"]}
    now = time.monotonic()
    with _lock:
        _listings[_key(folder)] = _Listed(names, now + _FRESH + 10 * (now - begin))
        _listings.move_to_end(_key(folder))
        while sum(len(one.names) for one in _listings.values()) > _LISTED and len(_listings) > 1:
            _listings.popitem(last=False)
    return names


def ahead(root: Path, items: Iterable[_T], files_of: Callable[[_T], Iterable[str]]) -> Iterator[_T]:
    """The items; in a store, the beginnings of the files of those that come next are on their way: `files_of` an item
    are paths from `root` on, or URLs, that will be opened."""
    if not isinstance(root, StoredPath):
        yield from items
        return
    pool = parallel.Requests(_REQUESTS)
    pending: deque[tuple[_T, list[str]]] = deque()
    try:
        for item in items:
            urls = [name if is_url(name) else f"{root}/{name}" for name in files_of(item)]
            for url in urls:
                _heads[url] = pool.submit(_Head, url)
            pending.append((item, urls))
            if len(pending) > _REQUESTS:
                yield pending[0][0]
                _dropped(pending.popleft()[1])
        while pending:
            yield pending[0][0]
            _dropped(pending.popleft()[1])
    finally:
        for _, urls in pending:
            _dropped(urls)
        pool.close()


def _dropped(urls: Iterable[str]) -> None:
    for url in urls:
        if (head := _heads.pop(url, None)) is not None:
            head.cancel()


class _Head:
    """How an object begins, and its size. Raises OSError, Unreachable."""

    def __init__(self, url: str) -> None:
        self.place, self.key = _place(url)
        with _explained(url):
            self.data = self.place.read(self.key, 0, _FIRST)
            self.size = len(self.data) if len(self.data) < _FIRST else self.place.size(self.key)


_heads: dict[str, Future[_Head]] = {}


def forget() -> None:
    """What was listed is listed anew."""
    with _lock:
        _listings.clear()


class _Ranges(io.RawIOBase):
    """An object's bytes by ranges: a few at first, and more where it is read on and on. Raises OSError, Unreachable."""

    def __init__(self, url: str) -> None:
        self.name = url
        coming = _heads.pop(url, None)
        head = _Head(url) if coming is None else coming.result()
        self._place, self._key, self._size = head.place, head.key, head.size
        self._at, self._begin, self._held, self._next = 0, 0, head.data, _FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, into: Any) -> int:
        if self._at >= self._size:
            return 0
        end = self._begin + len(self._held)
        if not self._begin <= self._at < end:
            is_next = end <= self._at < end + _WINDOW
            self._next = min(_WINDOW, 4 * self._next) if is_next else _FIRST
            with _explained(self.name):
                self._held = self._place.read(self._key, self._at, max(self._next, len(into)))
            self._begin = self._at
        found = self._held[self._at - self._begin :][: len(into)]
        into[: len(found)] = found
        self._at += len(found)
        return len(found)
