"""A folder that is read as if it were far away: what is asked for is counted, may be slow, and may go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headrace as hr
from headrace.errors import StorageError
from headrace.load.loader import Loader
from headrace.load.store import Shards
from headrace.load.view import View
from headrace.place.address import Url
from headrace.place.cache import Cache
from headrace.place.local import LocalPlace

LIMIT = 20  # seconds, after which what should have come is not coming


class FarPlace(LocalPlace):
    """The files of a folder under a URL. `requests` are the (name, offset, length) of all that was read.

    `before`, called with them ahead of each, may wait, or raise; `after` may make other bytes of what was read.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder, self.path = self.path, Url(f"far://{folder.name}")  # type: ignore[assignment]
        self._here = LocalPlace(folder)
        self.requests: list[tuple[str, int, int]] = []
        self.before: Callable[[str, int, int], None] = lambda *_: None
        self.after: Callable[[str, int, bytes], bytes] = lambda _name, _offset, data: data

    def __reduce__(self) -> tuple[Any, ...]:
        return FarPlace, (self.folder,)

    def address(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.requests.append((name, offset, length))
        self.before(name, offset, length)
        return self.after(name, offset, self._here.read(name, offset, length))

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        raise AssertionError("a far place is read through copies")

    def content(self, name: str, most: int) -> bytes:
        return self._here.content(name, most)

    def size(self, name: str) -> int:
        return self._here.size(name)

    def whole(self, name: str, sha256: str, *, anew: bool = False) -> Path:
        return self.folder / name

    def within(self, folder: str) -> FarPlace:
        assert not folder
        return self

    def exists(self) -> bool:
        return self._here.exists()


def dataset(place: FarPlace, cache: Cache) -> hr.Dataset:
    """The dataset of a far place."""
    made = object.__new__(hr.Dataset)
    made.selection = View(Shards(place, cache))
    return made


def opened(folder: Path, cache: Path, most: int | None = None) -> tuple[hr.Dataset, FarPlace]:
    """The dataset in `folder`, read as if it were far away through a cache, and its place."""
    place = FarPlace(folder)
    return dataset(place, Cache(cache, most)), place


def settle(loader: Loader) -> None:
    """Waits until what was fetched is written: batches don't wait for that."""
    found = loader.view.store.copies
    assert found is not None
    with found.traffic.changed:
        assert found.traffic.changed.wait_for(lambda: found.traffic.idle, LIMIT)


def end_filling() -> None:
    """Waits for threads that fill the caches of loaders that are gone: they end with the request that runs."""
    for thread in threading.enumerate():
        if thread.name == "headrace-fill":
            thread.join(LIMIT)
            assert not thread.is_alive()


class Gate:
    """Lets requests through when it is opened."""

    def __init__(self) -> None:
        self.asked, self._open = threading.Event(), threading.Event()

    def __call__(self, *_: Any) -> None:
        self.asked.set()
        if not self._open.wait(60):
            raise StorageError("nobody opened the gate")

    def open(self) -> None:
        self._open.set()
