"""Sources: annotations -> Record | Reject. One file per format, nothing else; a source knows nothing of packing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from headrace.record import Record, Reject
from headrace.sources.arrays import arrays
from headrace.sources.coco import coco
from headrace.sources.cvat import cvat
from headrace.sources.folders import folders
from headrace.sources.imagefolder import imagefolder
from headrace.sources.images import files
from headrace.sources.info import SourceInfo
from headrace.sources.labelme import labelme
from headrace.sources.names import names
from headrace.sources.openimages import openimages
from headrace.sources.parquet import parquet
from headrace.sources.tabular import csv
from headrace.sources.tfds import tfds
from headrace.sources.visipedia import visipedia
from headrace.sources.voc import voc
from headrace.sources.webdataset import webdataset
from headrace.sources.wider import wider
from headrace.sources.yolo import yolo


class Source(Protocol):
    """What packing takes: any iterable of Records and Rejects. A list of them will do, or a generator.

    One that also knows something of the whole (its classes in their order, what it left out) returns a SourceInfo when
    it was read to its end. Write `__iter__` as a generator, and all it counts is that reading's own:

        class Lines:
            def __iter__(self):
                empty = 0
                with open("labels.txt") as lines:
                    for number, line in enumerate(lines, 1):
                        if line.isspace():
                            empty += 1
                        else:
                            path, label = line.split()
                            yield Record(id=path, path=path, label_name=label, origin=f"labels.txt:{number}")
                return SourceInfo(class_names=("cat", "dog"), skipped={"empty lines": empty})
    """

    def __iter__(self) -> Iterator[Record | Reject]:
        """All of it, from the first to the last; again from the first whenever it is asked for, where it can be.

        What can't be used is a Reject with its place; raises DataError when going on makes no sense.
        """
        ...


__all__ = [
    "Source",
    "SourceInfo",
    "arrays",
    "coco",
    "csv",
    "cvat",
    "files",
    "folders",
    "imagefolder",
    "labelme",
    "names",
    "openimages",
    "parquet",
    "tfds",
    "visipedia",
    "voc",
    "webdataset",
    "wider",
    "yolo",
]
