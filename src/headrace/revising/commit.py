"""How an edit becomes a version: the manifest after the one that it was made of, committed at once, or refused."""

from __future__ import annotations

import datetime
import getpass
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.errors import ConflictError, HeadraceError, UsageError
from headrace.format import manifest, versions
from headrace.format.manifest import Manifest
from headrace.place.address import Place
from headrace.place.changing import Change
from headrace.place.local import explained


@dataclass(frozen=True, slots=True)
class Head:
    """The manifest that an edit is made of, and its bytes in the place `home`."""

    home: Place
    manifest: Manifest
    data: bytes

    @classmethod
    def of(cls, home: Place, version: int | None = None) -> Head:
        """The one that holds now. Raises ConflictError: not this version any more; UsageError: there is none yet."""
        if version is not None and type(version) is not int:
            raise UsageError(f"version is {version!r:.60}, wanted the number of one")
        data = manifest.content(home)
        found = manifest.parsed(data, home.path / manifest.FILE)
        if version is not None and not 1 <= version <= found.version:
            raise UsageError(f"{home.path}: has no version {version}; it has 1 to {found.version}")
        if version is not None and version < found.version:
            raise ConflictError(_told(home, versions.since(home, version)))
        return cls(home, found, data)

    def check(self) -> None:
        """Raises ConflictError: it holds no more."""
        try:
            same = manifest.content(self.home) == self.data
        except HeadraceError:
            same = False
        if not same:
            raise ConflictError(_meanwhile(self))


@dataclass(frozen=True, slots=True)
class Author:
    """Who edits, and why. Raises UsageError: nobody said why."""

    by: str
    why: str

    @classmethod
    def of(cls, by: str | None, why: str) -> Author:
        """By default the user of this process."""
        for name, text in (("why", why), ("by", by)):
            if text is None and name == "by":
                continue
            if not (isinstance(text, str) and text.strip()):
                raise UsageError(f"{name} is {text!r:.60}, wanted a few words")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"{name} is {text!r:.60}, which holds halves of characters") from None
        return cls(_user() if by is None else by, why)


def _user() -> str:
    try:
        return getpass.getuser().encode(errors="backslashreplace").decode()
    except (KeyError, OSError, ImportError):  # a number without a name, as in a container
        return f"user {os.getuid()}"


def commit(
    change: Change,
    scratch: Path,
    head: Head,
    made: Manifest,
    files: Mapping[str, str],
    author: Author,
    what: Sequence[Mapping[str, Any]],
) -> int:
    """Makes the next version of `made`, whose new `files` (name in the scratch -> name) are those that `head` lacks;
    its number. Raises ConflictError (another one was made meanwhile), StorageError."""
    before = head.manifest
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = replace(
        made,
        version=before.version + 1,
        parent=hashlib.sha256(head.data).hexdigest(),
        edit={"by": author.by, "at": now, "why": author.why, "what": [dict(one) for one in what]},
        folder=before.folder,
    )
    kept = "version.json"
    with explained(scratch):
        (scratch / kept).write_bytes(head.data)
    every = {**files, kept: manifest.kept_name(before.version)}
    if not change.commit(before.folder, every, made.to_bytes(), expected=head.data):
        raise ConflictError(_meanwhile(head))
    return made.version


def _meanwhile(head: Head) -> str:
    """What to say of the versions that were made while one was edited."""
    try:
        made = versions.since(head.home, head.manifest.version)
        same = manifest.read(head.home, head.manifest.version) == head.manifest
    except HeadraceError:
        made, same = (), False
    if not (made and same):
        return f"{head.home.path}: is another dataset than was opened, and nothing was changed; open it again"
    return _told(head.home, made)


_SAID = 200  # characters of what others wrote


def _told(home: Place, made: Sequence[versions.Version]) -> str:
    said = "; ".join(
        f"version {one.number} was made by {versions.one_line(one.by, _SAID)} at {one.at} "
        f"({versions.one_line(one.why, _SAID)}): {', '.join(map(versions.told, one.what))}"
        for one in made
    )
    return f"{home.path}: was edited meanwhile, and nothing was changed: {said}. Look at it, and edit again"
