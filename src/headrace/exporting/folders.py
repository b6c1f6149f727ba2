"""Writes `folders`: a folder of images for each class, in a folder for each split. Ids are what the classes hold.

    OUT/train/cat/a.jpg    an image of the class cat
    OUT/train/b.jpg        one without a class, beside the folders of classes, where readers pass over it

Each split has its folder, also where there is but one: `train`. What splits are called otherwise than train, val and
test, readers take for a class.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from headrace.exporting.formats import LABEL, Format, Item, Writer, stripped
from headrace.exporting.naming import Names, safe_part
from headrace.sources.walking import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset


class FoldersWriter(Writer):
    """See the module. A class whose name can't be a folder's gets the nearest that can."""

    holds = frozenset([LABEL])

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        names = Names()
        self._classes = [names.take_folder(_folder(name), name) for name in dataset.class_names]

    def place(self, split: str, label: int) -> str:
        return f"{split}/{self._classes[label]}" if label >= 0 else split

    def wanted(self, id_: str, folder: str, label: int) -> str:
        rest = stripped(id_, folder)
        return rest if label >= 0 else rest.replace("/", "_")  # any folder of a split is a class

    def make(self, item: Item) -> None:
        self.save(item)
        name, folder = item.record.label_name, item.folder.rpartition("/")[2]
        if name is not None and name != folder:
            item.lost["names of classes that can't be folders' names, changed"] += 1

    def add(self, made: Any) -> None:
        pass


def _folder(name: str) -> str:
    """A folder for a class; none that an image beside it could be called."""
    folder = safe_part(name)
    return f"{folder}_" if PurePosixPath(folder).suffix[1:].lower() in IMAGE_EXTENSIONS else folder


FORMAT = Format(
    name="folders",
    writes="A folder of images for each class, in a folder for each split",
    make=FoldersWriter,
)
