"""Writes `webdataset`: tars of samples, as WebDataset reads them.

    OUT/train-000000.tar    a.jpg, a.json, a.cls, a.txt, then the files of the next image
    OUT/classnames.txt      the names of the classes, whose number .cls says

A sample's key is the name of its image up to the dot, so it has none itself. `.json` says all that is known: `label` (a
name), `labels`, `value`, `group`, `captions`, `width` and `height`, `objects` (bbox, categories, keypoints,
segmentation, and attributes, a list each), and attributes of the image by their names. `.cls` is the number of its
class, where it has one, `.txt` its first caption. A tar that has reached 500 MB is followed by the next. Members have
no time and no owner: the same records give the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.exporting.columns import coordinate, segmentation
from headrace.exporting.formats import (
    ATTRIBUTES,
    BOXES,
    CAPTIONS,
    GROUP,
    KEYPOINTS,
    LABEL,
    LABELS,
    MASKS,
    VALUE,
    BoxClasses,
    Format,
    Item,
    Writer,
    xywh,
)

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

SHARD_BYTES = 500_000_000  # from which on the next tar begins
CLASS_FILE = "classnames.txt"


class WebDatasetWriter(Writer):
    """See the module."""

    holds = frozenset([LABEL, LABELS, VALUE, GROUP, CAPTIONS, BOXES, KEYPOINTS, MASKS, ATTRIBUTES])
    carries = True

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        self._classes = BoxClasses(dataset.box_class_names)
        self._tars: dict[str, _Tars] = {}

    def place(self, split: str, label: int) -> str:
        return ""

    def make(self, item: Item) -> tuple[str, list[tuple[str, bytes]]]:
        record = item.record
        assert record.encoded is not None
        members = [(item.name, record.encoded), (f"{item.stem}.json", _json(self._said(item)))]
        if record.label is not None:
            members.append((f"{item.stem}.cls", str(record.label).encode()))
        if record.captions:
            members.append((f"{item.stem}.txt", record.captions[0].encode()))
        return record.split, members

    def _said(self, item: Item) -> dict[str, Any]:
        record = item.record
        n = None if record.boxes is None else len(record.boxes)
        of_each = {
            name: value
            for name, value in record.attributes.items()
            if isinstance(value, list | tuple) and len(value) == n and n is not None
        }
        said: dict[str, Any] = {
            "label": record.label_name,
            "labels": None if record.labels is None else list(record.labels),
            "value": record.value,
            "group": record.group,
            "captions": None if record.captions is None else list(record.captions),
            "width": record.width,
            "height": record.height,
        }
        if record.boxes is not None:
            objects: dict[str, Any] = {
                "bbox": [xywh(box) for box in record.boxes.tolist()],
                "categories": self._classes.named(item),
            }
            if record.keypoints is not None:
                objects["keypoints"] = [list(map(coordinate, of.reshape(-1).tolist())) for of in record.keypoints]
            if record.masks is not None:
                objects["segmentation"] = [None if mask is None else segmentation(mask) for mask in record.masks]
            said["objects"] = _joined(objects, of_each, item)
        rest = {name: value for name, value in record.attributes.items() if name not in of_each}
        return _joined({name: value for name, value in said.items() if value is not None}, rest, item)

    def add(self, made: tuple[str, list[tuple[str, bytes]]]) -> None:
        split, members = made
        if split not in self._tars:
            self._tars[split] = _Tars(self.out, split)
            self.opened.callback(self._tars[split].close)
        self._tars[split].add(members)

    def close(self) -> Counter[str]:
        for tars in self._tars.values():
            tars.close()
        if self.dataset.class_names:
            self.write(CLASS_FILE, "".join(f"{name}\n" for name in self.dataset.class_names).encode())
        return Counter()


# What readers of a sample's JSON take for something else than an attribute.
_TAKEN = frozenset(("label", "labels", "value", "group", "caption", "captions", "text", "width", "height", "objects"))
_TAKEN_TOO = frozenset(("bbox", "bboxes", "category", "categories", "keypoints", "segmentation", "key"))


def _joined(said: dict[str, Any], attributes: dict[str, Any], item: Item) -> dict[str, Any]:
    """Both together; an attribute whose name is taken is lost."""
    for name, value in attributes.items():
        if name in _TAKEN or name in _TAKEN_TOO:
            item.lost[f"attribute {name}"] += 1
        else:
            said[name] = value
    return said


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


class _Tars:
    """The tars of one split, one after the other."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split, self._n = folder, split, 0
        self._tar: tarfile.TarFile | None = None

    def add(self, members: list[tuple[str, bytes]]) -> None:
        if self._tar is not None and self._tar.offset >= SHARD_BYTES:
            self.close()
        if self._tar is None:
            path = self._folder / f"{self._split}-{self._n:06d}.tar"
            self._tar = tarfile.open(path, "x:", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._n += 1
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


FORMAT = Format(
    name="webdataset",
    writes="WebDataset: tars of each split, with an image, its JSON, class and caption as a sample",
    make=WebDatasetWriter,
    beside=(".json", ".cls", ".txt"),
    dots=False,
)
