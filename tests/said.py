"""A source of given items that says something of the whole."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from headrace.record import Record, Reject
from headrace.sources import SourceInfo


class Said:
    """Iterable of `items`; `info` are SourceInfo's."""

    def __init__(self, items: Iterable[Any], **info: Any) -> None:
        self.items, self.info = list(items), info

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        yield from self.items
        return SourceInfo(**self.info)
