"""Sinks for tests of runners, that workers meet: they end their process, fail or note what was put, as they were told.

What happens once happens once in all processes: it leaves a mark in a folder that all see.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from headrace.errors import StorageError
from headrace.place.publication import StoreSink
from headrace.place.publish import FolderSink
from headrace.place.remote import RemotePlace


class Killing(FolderSink):
    """A sink that ends its process by SIGKILL, once for each file in `deaths`, "before" or "after" it is put; and notes
    every put in the file `puts` in `marks`."""

    def __init__(self, folder: Path, marks: Path, deaths: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.marks, self.deaths = marks, dict(deaths)

    def put(self, path: Path, name: str) -> None:
        when = self.deaths.get(name)
        if when == "before" and once(self.marks, name):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(path, name)
        note(self.marks, name)
        if when == "after" and once(self.marks, name):
            os.kill(os.getpid(), signal.SIGKILL)


class KillingStore(StoreSink):
    """The same of a store."""

    def __init__(
        self, place: RemotePlace, folder: str, run: str | None = None, *, marks: Path, deaths: Mapping[str, str]
    ) -> None:
        super().__init__(place, folder, run)
        self.marks, self.deaths = marks, dict(deaths)

    def put(self, path: Path, name: str) -> None:
        when = self.deaths.get(name)
        if when == "before" and once(self.marks, name):
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(path, name)
        if when == "after" and once(self.marks, name):
            os.kill(os.getpid(), signal.SIGKILL)


class Full(FolderSink):
    """A disk that is full for the files of `shard`: on the first try of it, or `always`."""

    def __init__(self, folder: Path, marks: Path, shard: str, always: bool = False) -> None:
        super().__init__(folder)
        self.marks, self.shard, self.always = marks, shard, always

    def put(self, path: Path, name: str) -> None:
        note(self.marks, name)
        if name == self.shard and (once(self.marks, name) or self.always):
            raise StorageError(f"{path}: {os.strerror(errno.ENOSPC).lower()}")
        super().put(path, name)


def once(marks: Path, name: str) -> bool:
    """Whether nobody has asked this before."""
    try:
        os.close(os.open(marks / f"once-{name}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def note(marks: Path, name: str) -> None:
    with (marks / "puts").open("a") as file:  # a line is one write, and none gets lost
        file.write(f"{name}\n")


def puts(marks: Path) -> list[str]:
    """The names of the files that were put, as often as they were."""
    return (marks / "puts").read_text().split() if (marks / "puts").exists() else []
