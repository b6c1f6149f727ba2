"""Opens places: a folder is one by itself, a store needs its library."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import UsageError
from headrace.place.address import Location, Place, Url, is_url, located
from headrace.place.cache import Cache
from headrace.place.changing import Change, LocalChange
from headrace.place.local import BLOCK, LocalPlace
from headrace.place.publish import Staging

if TYPE_CHECKING:
    from headrace.place.publication import Publication


def at(
    path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None, cache: Cache | None = None
) -> Place:
    """The place at a path or URL. storage_options: what a store is opened with, nothing for a folder. cache: where
    copies of what lies in a store are kept, by default the usual folder.

    Raises UsageError (no such kind of store), MissingExtraError.
    """
    where = located(path)
    if isinstance(where, Url):
        from headrace.place.remote import RemotePlace

        return RemotePlace(where, storage_options, cache)
    _check_none(where, storage_options)
    return LocalPlace(where)


def _check_none(where: Path, storage_options: Mapping[str, Any] | None) -> None:
    if storage_options:
        raise UsageError(f"{where}: is a folder of this machine, which takes no storage_options")


def staging(
    out: str | os.PathLike[str],
    *,
    overwrite: bool,
    replaceable: str,
    what: str = "a dataset",
    movable: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> Staging | Publication:
    """What makes a new folder at `out`, or what stands below its URL, and publishes it as a whole: see Staging and,
    for `movable`, Publication.

    Raises UsageError, MissingExtraError.
    """
    where = located(out)
    if isinstance(where, Url):
        from headrace.place.publication import Publication
        from headrace.place.remote import RemotePlace

        place = RemotePlace(where, storage_options)
        return Publication(place, overwrite=overwrite, replaceable=replaceable, what=what, movable=movable)
    _check_none(where, storage_options)
    return Staging(where.absolute(), overwrite=overwrite, replaceable=replaceable, what=what)


def changing(place: Place, head: str) -> Change:
    """What changes the files of a place: see Change. `head` is the one that says which of them hold.

    Raises UsageError (a place that can only be read).
    """
    if isinstance(place, LocalPlace):
        return LocalChange(place.path, head)
    from headrace.place.publication import RemoteChange
    from headrace.place.remote import RemotePlace

    assert isinstance(place, RemotePlace)
    return RemoteChange(place, head)


class Scattered:
    """A Place of files some of which lie elsewhere, in stores: those whose name is a URL."""

    def __init__(self, home: Place) -> None:
        self.home = home
        self._elsewhere: dict[str, Place] = {}  # by the URL of the folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Scattered, (self.home,)

    @property
    def path(self) -> Location:
        return self.home.path

    def _of(self, name: str) -> tuple[Place, str]:
        if not is_url(name):
            return self.home, name
        folder, _, file = name.rpartition("/")
        place = self._elsewhere.get(folder)
        if place is None:
            place = self._elsewhere[folder] = at(folder)
        return place, file

    def address(self, name: str) -> str:
        place, name = self._of(name)
        return place.address(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        place, name = self._of(name)
        return place.read(name, offset, length)

    def view(self, name: str, offset: int, length: int) -> memoryview:
        place, name = self._of(name)
        return place.view(name, offset, length)

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        place, name = self._of(name)
        return place.record(name, offset, length, crc)

    def size(self, name: str) -> int:
        place, name = self._of(name)
        return place.size(name)

    def version(self, name: str) -> str:
        place, name = self._of(name)
        return place.version(name)

    def blocks(self, name: str, size: int = BLOCK) -> Iterator[bytes]:
        place, name = self._of(name)
        return place.blocks(name, size)

    def content(self, name: str, most: int) -> bytes:
        place, name = self._of(name)
        return place.content(name, most)

    def held(self, name: str, most: int) -> bytes:
        return self.home.held(name, most)

    def digest(self, name: str) -> str:
        place, name = self._of(name)
        return place.digest(name)

    def digest_ends(self, name: str) -> str:
        place, name = self._of(name)
        return place.digest_ends(name)

    def forget(self, name: str) -> None:
        place, name = self._of(name)
        place.forget(name)

    def whole(self, name: str, sha256: str, *, anew: bool = False) -> Path:
        place, name = self._of(name)
        return place.whole(name, sha256, anew=anew)

    def within(self, folder: str) -> Place:
        return at(folder) if is_url(folder) else self.home.within(folder)

    def names(self) -> list[str]:
        return self.home.names()

    def exists(self) -> bool:
        return self.home.exists()
