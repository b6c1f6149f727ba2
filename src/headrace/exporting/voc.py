"""Writes `voc`: Pascal VOC's XML for detection, a file of each image.

    OUT/JPEGImages/a.jpg              the image, whatever it is stored as
    OUT/Annotations/a.xml             its objects; none of an image that nothing is said of, not even that it has none
    OUT/ImageSets/Main/train.txt      the images of a split: names without extension, a line each

Corners are 1-based and inclusive, as the VOC2012 development kit says ("bounding box ... pixel coordinates"; its Matlab
code has boxes of width xmax - xmin + 1): xmin = x0 + 1, ymin = y0 + 1, xmax = x1, ymax = y1 of half-open pixels. What
is no whole number is written with decimals. `pose`, `truncated` and `difficult` are always there, as readers expect
that, with VOC's own words for unknown (Unspecified, 0); `occluded`, which VOC2007 lacks, where it is known.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from headrace.exporting.formats import BOXES, BoxClasses, Format, Item, Writer, as_float32, short

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset

_ILLEGAL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # characters that XML 1.0 has no way to write
_FLAGS = ("truncated", "difficult", "occluded")
_OF_OBJECTS = ("pose", *_FLAGS)  # attributes that an object has a place for, and an image none


class VocWriter(Writer):
    """See the module."""

    holds = frozenset([BOXES, *(f"attribute {name}" for name in _OF_OBJECTS)])

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        super().__init__(dataset, folder)
        self._classes = BoxClasses(dataset.box_class_names)
        self._lists: dict[str, IO[str]] = {}

    def place(self, split: str, label: int) -> str:
        return "JPEGImages"

    def make(self, item: Item) -> tuple[str, str]:
        self.save(item)
        n = 0 if item.record.boxes is None else len(item.record.boxes)
        of_image = [name for name in _OF_OBJECTS if _is_of_image(item.record.attributes.get(name), n)]
        item.lost.update(f"attribute {name}" for name in of_image)
        if item.record.boxes is not None:
            self.write(f"Annotations/{item.stem}.xml", self._page(item).encode())
        return item.record.split, item.stem

    def _page(self, item: Item) -> str:
        record = item.record
        assert record.boxes is not None
        lines = [
            "<annotation>",
            "\t<folder>JPEGImages</folder>",
            f"\t<filename>{_text(item.name, item)}</filename>",
            f"\t<size><width>{record.width}</width><height>{record.height}</height>"
            f"<depth>{record.channels}</depth></size>",
            "\t<segmented>0</segmented>",
        ]
        boxes = record.boxes.tolist()
        for i, (box, name) in enumerate(zip(boxes, self._classes.named(item), strict=True)):
            xmin, ymin, xmax, ymax = corners(box)
            lines += [
                "\t<object>",
                f"\t\t<name>{_text(name, item)}</name>",
                f"\t\t<pose>{_text(str(_of(record.attributes, 'pose', i, len(boxes)) or 'Unspecified'), item)}</pose>",
                *(f"\t\t<{flag}>{value}</{flag}>" for flag, value in _flags(record.attributes, i, len(boxes))),
                f"\t\t<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>",
                "\t</object>",
            ]
        return "\n".join([*lines, "</annotation>", ""])

    def add(self, made: tuple[str, str]) -> None:
        split, stem = made
        if split not in self._lists:
            folder = self.out / "ImageSets" / "Main"
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / f"{split}.txt").open("x", encoding="utf-8", newline="\n")
            self._lists[split] = self.opened.enter_context(file)
        self._lists[split].write(f"{stem}\n")


def corners(box: list[float]) -> tuple[int | float, ...]:
    """xmin, ymin, xmax, ymax, 1-based and inclusive, of float32 corners in half-open pixels; back they are the same."""
    x0, y0, x1, y1 = box
    return (
        short(x0 + 1, lambda near: as_float32(near - 1) == x0),
        short(y0 + 1, lambda near: as_float32(near - 1) == y0),
        short(x1, lambda near: as_float32(near) == x1),
        short(y1, lambda near: as_float32(near) == y1),
    )


def _flags(attributes: Any, i: int, n: int) -> list[tuple[str, int]]:
    found = [(flag, _of(attributes, flag, i, n)) for flag in _FLAGS]
    return [(flag, 1 if value == 1 else 0) for flag, value in found if flag != "occluded" or value in (0, 1)]


def _of(attributes: Any, name: str, i: int, n: int) -> Any:
    """What an attribute says of object i of n, None for nothing."""
    value = attributes.get(name)
    return None if value is None or _is_of_image(value, n) else value[i]


def _is_of_image(value: Any, n: int) -> bool:
    """Whether an attribute says something, and not of each of n objects."""
    return value is not None and not (isinstance(value, list | tuple) and len(value) == n)


def _text(text: str, item: Item) -> str:
    if _ILLEGAL.search(text):
        item.lost["control characters, which XML can't hold"] += len(_ILLEGAL.findall(text))
        text = _ILLEGAL.sub("\ufffd", text)
    return escape(text, {"\t": "&#9;", "\r": "&#13;"})


FORMAT = Format(
    name="voc",
    writes="Pascal VOC: an XML file of boxes for each image, and a list of each split",
    make=VocWriter,
    beside=(".xml",),
)
