"""Reading what stands below a URL of an object store: ranges of objects, each of them as it was when it was first seen.

Connections, waiting and errors are left to stores; what is kept of a record on this machine, to cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from headrace import parallel
from headrace.errors import NotThereError, StorageError, UsageError
from headrace.place import stores
from headrace.place.address import Url, is_url
from headrace.place.cache import Cache
from headrace.place.stores import Store

BLOCK = 8 << 20  # bytes that are asked for at a time, where a whole object is read
AHEAD = 4  # blocks that are on their way meanwhile
_ENDS = 1 << 16
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Object:
    """One object: its `name` below a place, `size` in bytes, the time of its last `modified`, by the store's clock, and
    what tells this version of it from others."""

    name: str
    size: int
    modified: datetime
    e_tag: str | None
    version: str | None = None


class RemotePlace:
    """What stands below a URL of a store. An object that changes after it was first read is not read on: a StorageError
    names it. Usable from any thread, and pickled; in forked children a UsageError.
    """

    def __init__(self, url: Url, storage_options: Mapping[str, Any] | None = None, cache: Cache | None = None) -> None:
        """storage_options: those of obstore's from_url. cache: where copies are kept, by default the usual folder.

        Raises UsageError, MissingExtraError, StorageError.
        """
        self.path = url
        self.options = dict(storage_options or {})
        self._cache = Cache() if cache is None else cache
        self._store = stores.opened(url, self.options)
        self._known: dict[str, Object] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePlace, (self.path, self.options, self._cache)

    @property
    def store(self) -> Store:
        """The open store."""
        return self._store

    def address(self, name: str) -> str:
        """The URL of a file."""
        return str(self.path / name) if name else str(self.path)

    def within(self, folder: str) -> RemotePlace:
        """The place of what stands below `folder`; this one by the empty name."""
        return RemotePlace(self.path / folder, self.options, self._cache) if folder else self

    # --- parts of objects ---------------------------------------------------------------------------------------------

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The bytes `offset` to `offset + length` of an object; fewer where it ends before.

        Raises NotThereError, StorageError: also where the object is another by now.
        """
        return bytes(self.view(name, offset, length))

    def view(self, name: str, offset: int, length: int) -> memoryview:
        """What `read` gives, read-only, in the memory that it came into. Raises as `read` does."""
        # Not as a stream of parts: each of these is cleared and copied with the interpreter's lock held.
        found: memoryview | None = self._range(name, offset, length, lambda answer: memoryview(answer.bytes())[:length])
        return memoryview(b"") if found is None else found

    def _range(self, name: str, offset: int, length: int, take: Callable[[Any], _T]) -> _T | None:
        """What `take` makes of the answer to the request for a range; None where the object ends before it."""
        known = self._known.get(name)
        if length <= 0 or (known is not None and offset >= known.size):
            return None
        import obstore

        def get() -> tuple[_T, Any]:
            answer = obstore.get(self._store.api, key, options={"range": (offset, offset + length)})
            return take(answer), answer.meta

        key, address = self._store.key_of(name), self.address(name)
        try:
            found, meta = stores.ask(address, get)
        except StorageError as error:
            if stores.is_past_the_end(error):
                return None
            raise
        self._seen(name, meta)
        return found

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        """The same of a payload whose masked CRC the caller knows, and checks."""
        return self.read(name, offset, length)

    def _seen(self, name: str, meta: Mapping[str, Any]) -> Object:
        """What an answer says of an object. Raises StorageError: another than the answers before it."""
        found = _object(name, meta)
        known = self._known.setdefault(name, found)
        if (known.e_tag, known.size) != (found.e_tag, found.size) or (
            known.e_tag is None and known.modified != found.modified
        ):
            raise StorageError(
                f"{self.address(name)}: was replaced since it was first read (by {found.size} bytes of "
                f"{found.modified:%F %T}, it had {known.size} of {known.modified:%F %T}); open the dataset again"
            )
        return known

    def forget(self, name: str) -> None:
        """Whatever the object is now, it is read from now on."""
        self._known.pop(name, None)

    # --- whole objects ------------------------------------------------------------------------------------------------

    def stat(self, name: str) -> Object:
        """What the store says of an object now. Raises NotThereError, StorageError."""
        import obstore

        key = self._store.key_of(name)
        return _object(name, stores.ask(self.address(name), lambda: obstore.head(self._store.api, key)))

    def size(self, name: str) -> int:
        """Bytes of an object. Raises NotThereError, StorageError."""
        return self._first(name).size

    def version(self, name: str) -> str:
        """Its e-tag, or where the store has none, when it was written to. Raises NotThereError, StorageError."""
        found = self._first(name)
        return found.e_tag or found.modified.isoformat()

    def _first(self, name: str) -> Object:
        known = self._known.get(name)
        return self._known.setdefault(name, self.stat(name)) if known is None else known

    def blocks(self, name: str, size: int = BLOCK) -> Iterator[bytes]:
        """The whole object in blocks of `size` bytes, some of them on their way. Raises NotThereError, StorageError."""
        first = self.read(name, 0, size)
        yield first
        if (known := self._known.get(name)) is None:
            return  # it is empty
        offsets = iter(range(len(first), known.size, size))
        yield from parallel.ordered(lambda offset: self.read(name, offset, size), offsets, workers=AHEAD, ahead=AHEAD)

    def content(self, name: str, most: int) -> bytes:
        """All bytes of an object of `most` bytes at most. Raises NotThereError, StorageError."""
        first = self.read(name, 0, min(BLOCK, most + 1))
        known = self._known.get(name)  # none of an empty one
        if known is None or known.size == len(first) <= most:
            return first
        if known.size > most:
            raise StorageError(f"{self.address(name)}: {known.size} bytes, wanted at most {most}")
        return b"".join(self.blocks(name))

    def held(self, name: str, most: int) -> bytes:
        """`content` of an object below this place. Raises NotThereError, StorageError: not there, or not below it."""
        if is_url(name) or name.startswith("/") or ".." in name.split("/"):
            raise StorageError(f"{name}: leads out of {self.path}")
        return self.content(name, most)

    def digest(self, name: str) -> str:
        """sha256 (hex) of an object. Raises NotThereError, StorageError."""
        found = hashlib.sha256()
        for block in self.blocks(name):
            found.update(block)
        return found.hexdigest()

    def digest_ends(self, name: str) -> str:
        """sha256 (hex) of the first and the last 64 KiB of an object. Raises NotThereError, StorageError."""
        head = self.read(name, 0, _ENDS)
        size = self.size(name)
        end = max(len(head), size - _ENDS)
        return hashlib.sha256(head + self.read(name, end, size - end)).hexdigest()

    def whole(self, name: str, sha256: str, *, anew: bool = False) -> Path:
        """A file of this machine with the bytes of an object, whose digest is known: a copy that the cache keeps.
        `anew` fetches it again. Raises NotThereError, StorageError."""
        return self._cache.whole(self.address(name), sha256, lambda: self.blocks(name), anew=anew)

    # --- what there is ------------------------------------------------------------------------------------------------

    def objects(self, folder: str = "") -> Iterator[Object]:
        """All objects below this place, or a folder of it, of any depth; in no order. Raises StorageError."""
        import obstore

        prefix = self._store.key_of(folder)
        address = self.address(folder)
        self._check_lists(address)
        with stores.explained(address):
            stream = iter(obstore.list(self._store.api, prefix or None, chunk_size=1000))
        begin = f"{self._store.key}/" if self._store.key else ""
        while (chunk := stores.ask(address, lambda: next(stream, None))) is not None:
            for meta in chunk:
                if meta["path"] != self._store.key:  # of a "folder" that a console has made, an empty object is there
                    yield _object(meta["path"].removeprefix(begin), meta)

    def names(self) -> list[str]:
        """The objects of this folder itself, in no order. Raises StorageError."""
        import obstore

        self._check_lists(str(self.path))
        found = stores.ask(
            str(self.path), lambda: obstore.list_with_delimiter(self._store.api, self._store.key or None)
        )
        return [meta["path"].rpartition("/")[2] for meta in found["objects"]]

    def exists(self) -> bool:
        """Whether anything stands below the URL; False of a web server, which doesn't tell. Raises StorageError."""
        if self._store.reads_only:
            return False
        try:
            return next(self.objects(), None) is not None
        except NotThereError:
            return False

    def _check_lists(self, address: str) -> None:
        if self._store.reads_only:
            raise UsageError(f"{address}: a web server doesn't say what files there are; name the files themselves")


def _object(name: str, meta: Mapping[str, Any]) -> Object:
    return Object(name, meta["size"], meta["last_modified"], meta.get("e_tag"), meta.get("version"))
