"""What was refused when a dataset was packed, out of its list of Rejects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.errors import StorageError
from headrace.load.dataset import Dataset
from headrace.load.store import Shards
from headrace.record import Reject

MOST = 100_000  # that are shown


def rejects_of(dataset: Dataset) -> tuple[Reject, ...]:
    """The first MOST Rejects of the whole dataset. Raises StorageError."""
    known = getattr(dataset, "rejects", None)  # an ArrayDataset's
    if known is not None:
        return tuple(known[:MOST])
    if not dataset.manifest.rejected:
        return ()
    assert isinstance(dataset.store, Shards)
    place, file = dataset.store.tables.place, dataset.manifest.rejects
    found: list[Reject] = []
    for number, line in enumerate(_lines(place.blocks(file)), start=1):
        if number > MOST:
            break
        try:
            said = json.loads(line)
            found.append(Reject(**{name: str(said[name]) for name in ("id", "origin", "stage", "reason")}))
        except (ValueError, KeyError, TypeError, RecursionError):
            where = f"{place.address(file)}:{number}"
            raise StorageError(f"{where}: is no Reject; run 'headrace verify {dataset.path}'") from None
    return tuple(found)


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    left = b""
    for block in blocks:
        *lines, left = (left + block).split(b"\n")
        yield from lines
    if left:
        yield left


def plain(reason: str) -> str:
    """A reason without what is of one image alone: numbers, and names in quotes."""
    return re.sub(r"'[^']*'|\(.*\)|[0-9]+", "…", reason)


def kinds(rejects: Sequence[Reject]) -> list[dict[str, Any]]:
    """How many there are of each stage and reason, the most frequent first."""
    counts = Counter((reject.stage, plain(reject.reason)) for reject in rejects)
    return [{"stage": stage, "reason": reason, "count": n} for (stage, reason), n in counts.most_common()]


def chosen(rejects: Sequence[Reject], stage: str | None, reason: str | None) -> Iterator[tuple[int, Reject]]:
    """Those of a stage and a plain reason, each with its number."""
    for number, reject in enumerate(rejects):
        if stage in (None, reject.stage) and reason in (None, plain(reject.reason)):
            yield number, reject
