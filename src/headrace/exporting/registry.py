"""All formats that can be written, by name."""

from __future__ import annotations

from headrace.errors import UsageError
from headrace.exporting.coco import FORMAT as COCO
from headrace.exporting.folders import FORMAT as FOLDERS
from headrace.exporting.formats import Format
from headrace.exporting.imagefolder import FORMAT as IMAGEFOLDER
from headrace.exporting.parquet import FORMAT as PARQUET
from headrace.exporting.tabular import FORMAT as CSV
from headrace.exporting.voc import FORMAT as VOC
from headrace.exporting.webdataset import FORMAT as WEBDATASET
from headrace.exporting.yolo import FORMAT as YOLO

FORMATS = {entry.name: entry for entry in (COCO, VOC, YOLO, CSV, FOLDERS, IMAGEFOLDER, WEBDATASET, PARQUET)}


def find_format(name: str) -> Format:
    """The format of this name. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(f"format is {name!r}, wanted one of {', '.join(FORMATS)}")
    return FORMATS[name]
