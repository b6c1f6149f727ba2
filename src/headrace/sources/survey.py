"""What lies in a folder at first sight: names by extension, and how a few files begin. What that means is for others.

Looks at no image. Bounded, however large the folder is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headrace.place import paths
from headrace.sources import walking

MOST_NAMES = 1000  # of one kind that are remembered of a folder
SAMPLES = 5  # files of a kind whose content is looked at

_MOST_ENTRIES = 1 << 17  # of a folder and those below it, the upper ones first, so many are looked at
_MOST_OF_ONE = 1 << 15  # of one folder, so that what lies beside it is seen too
_HEAD = 1 << 14  # bytes of a file


@dataclass(slots=True)
class Folder:
    """`path` from the root, "" for the root itself; `names` of its files by extension, and its `folders`."""

    path: str
    names: dict[str, list[str]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    @property
    def called(self) -> str:
        return self.path.rpartition("/")[2].lower()

    def file(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def all(self) -> Iterator[str]:
        """The names of its files."""
        for names in self.names.values():
            yield from names

    @property
    def images(self) -> list[str]:
        return [name for ext, names in self.names.items() if ext[1:] in walking.IMAGE_EXTENSIONS for name in names]


class Survey:
    """The folders at and below `root`, upper ones first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[Folder] = []
        entries, waiting = 0, deque([Folder("")])
        reached: set[tuple[int, int]] = set()
        while waiting and entries < _MOST_ENTRIES:
            folder = waiting.popleft()
            try:
                status = (root / folder.path).stat()
                with paths.scandir(root / folder.path) as found:
                    most = min(_MOST_OF_ONE, _MOST_ENTRIES - entries)
                    some = [entry for _, entry in zip(range(most), found, strict=False)]
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in reached:
                continue
            reached.add((status.st_dev, status.st_ino))
            entries += len(some)
            for entry in some:
                if walking.is_junk(entry.name):
                    continue
                if walking.is_folder(entry):
                    folder.folders.append(entry.name)
                else:
                    names = folder.names.setdefault(Path(entry.name).suffix.lower(), [])
                    if len(names) < MOST_NAMES:
                        names.append(entry.name)
            for names in folder.names.values():
                names.sort(key=walking.natural)
            folder.folders.sort(key=walking.natural)
            self.folders.append(folder)
            waiting.extend(Folder(folder.file(name)) for name in folder.folders)

    @classmethod
    def of_file(cls, path: Path) -> Survey:
        """The same of a single file, as if nothing lay beside it."""
        survey = cls.__new__(cls)
        survey.root, survey.folders = path.parent, [Folder("", {path.suffix.lower(): [path.name]})]
        return survey

    def having(self, *extensions: str) -> Iterator[tuple[str, str]]:
        """(path, extension) of a few files of these kinds of each folder, upper folders first."""
        for folder in self.folders:
            for extension in extensions:
                for name in folder.names.get(extension, [])[:SAMPLES]:
                    yield folder.file(name), extension

    def head(self, path: str, size: int = _HEAD) -> str:
        """How a file begins, "" for one that can't be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(size).decode("utf-8-sig", errors="replace")
        except OSError:
            return ""

    def named(self, *names: str) -> str | None:
        """The first file of one of these names."""
        return next((folder.file(name) for folder in self.folders for name in folder.all() if name in names), None)

    @property
    def tops(self) -> list[Folder]:
        """The folders directly below the root with an image in or below them."""
        holding = {folder.path.partition("/")[0] for folder in self.folders if folder.path and folder.images}
        return [folder for folder in self.folders if folder.path in holding]
