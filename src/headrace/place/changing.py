"""Changing what stands at a place: new files beside those that are there, then one file, the head, replaced at once.

Who reads meanwhile reads what the old head names, or what the new one does. What these files mean is left to others.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from headrace.place import lock, publish
from headrace.place.local import explained


class Change(Protocol):
    """`with change as scratch:` a folder of this machine to write new files in. It vanishes when the block ends.

    `tag` stands in the names of new files, so that two changes at once never write to the same one; empty where a lock
    keeps them apart.
    """

    tag: str

    def __enter__(self) -> Path: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def commit(self, folder: str, files: Mapping[str, str], data: bytes, *, expected: bytes) -> bool:
        """Puts the scratch's `files` (name there -> name in the `folder` of the place), then makes the head `data`:
        False, and the head is what it was, where it isn't the `expected` bytes any more. Raises StorageError."""


class LocalChange:
    """A Change of a folder on this machine. A kill at any moment leaves the old head or the new one, and perhaps files
    that neither names; the next change clears the scratch. Names of new files are those of the version that they
    belong to: what stands under one already no head has named, or the commit is refused before it is overwritten."""

    tag = ""

    def __init__(self, folder: Path, head: str) -> None:
        self.folder, self.head = folder.resolve(), head  # what a link leads to is locked, and so is what holds it
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Path:
        self.scratch = publish.hidden_in(self.folder, f".{self.head}.changing-", self._stack)
        return self.scratch

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._stack.close()

    def commit(self, folder: str, files: Mapping[str, str], data: bytes, *, expected: bytes) -> bool:
        # The lock on what holds the folder keeps a replacement of it away, that on itself other changes.
        head = self.folder / self.head
        with explained(self.folder), lock.locked(self.folder.parent), lock.locked(self.folder):
            if head.read_bytes() != expected:
                return False
            into = self.folder / folder
            for name in files:
                publish.sync(self.scratch / name)
            for name, there in files.items():
                target = into / there
                target.parent.mkdir(exist_ok=True)
                (self.scratch / name).replace(target)
            for parent in {into, *((into / there).parent for there in files.values())}:
                publish.sync(parent)
            publish.write_atomic(head, data)
        return True
