"""Going back: earlier versions that can be read become new ones. Nothing is written for it but a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from headrace.errors import DamageError, StorageError, UsageError
from headrace.format import manifest
from headrace.format.manifest import Manifest
from headrace.format.tables import Tables
from headrace.format.versions import addressed
from headrace.place.address import Place
from headrace.place.open import at, changing
from headrace.revising.commit import Author, Head, commit


def undo(
    path: str | os.PathLike[str],
    *,
    why: str | None = None,
    by: str | None = None,
    version: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Takes the last edit back, and again the one before it: the number of the new version, which has the catalog of
    the one before that edit.

    by, version: as of `edit`. Raises UsageError (there is nothing to undo), ConflictError, NotThereError, DamageError,
    StorageError.
    """
    path, said = addressed(path, storage_options)
    home = at(path, storage_options)
    head = Head.of(home, said if version is None else version)
    number = _undone(home, head.manifest)
    return _again(head, manifest.read(home, number), "undo", by, f"undo to version {number}" if why is None else why)


def restore(
    path: str | os.PathLike[str],
    version: int,
    *,
    why: str | None = None,
    by: str | None = None,
    base: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Makes an earlier version hold again, as a new one, whose number it gives. by: as of `edit`. base, or "cats@3":
    the version that is meant to hold now; another one that does by now is a ConflictError.

    Raises UsageError (there is no such version, or it holds now), ConflictError, NotThereError, DamageError,
    StorageError.
    """
    path, said = addressed(path, storage_options)
    home = at(path, storage_options)
    head = Head.of(home, said if base is None else base)
    if type(version) is not int:
        raise UsageError(f"version is {version!r:.60}, wanted the number of one")
    if version == head.manifest.version:
        raise UsageError(f"{home.path}: version {version} is the one that holds now")
    return _again(head, manifest.read(home, version), "restore", by, f"version {version}" if why is None else why)


def _undone(home: Place, now: Manifest) -> int:
    """The version that the last edit which still holds was made of. Raises UsageError."""
    number = now.version
    while now.edit is not None and now.edit["what"] and now.edit["what"][0]["op"] == "undo":
        number = now.edit["what"][0]["version"]
        now = manifest.read(home, number)
    if number == 1:
        raise UsageError(f"{home.path}: there is nothing to undo: it is as version 1 was")
    return number - 1


def _again(head: Head, earlier: Manifest, op: str, by: str | None, why: str) -> int:
    author = Author.of(by, why)
    try:
        Tables(head.home, earlier.version).frame(["label"])  # what can't be read shall not be the version that holds
    except (DamageError, StorageError):
        head.check()
        raise
    with (change := changing(head.home, manifest.FILE)) as scratch:
        return commit(change, scratch, head, earlier, {}, author, [{"op": op, "version": earlier.version}])
