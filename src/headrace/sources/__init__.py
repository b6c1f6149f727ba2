"""Sources: annotations -> Record | Reject. One file per format, nothing else; a source knows nothing of packing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from headrace.record import Record, Reject
from headrace.sources.arrays import arrays
from headrace.sources.coco import coco
from headrace.sources.folders import folders
from headrace.sources.names import names
from headrace.sources.visipedia import visipedia
from headrace.sources.wider import wider

Source: TypeAlias = Iterable[Record | Reject]

__all__ = ["Source", "arrays", "coco", "folders", "names", "visipedia", "wider"]
