"""Images out of stores, read before their turn: a request takes longer than an image does. What is made of them is left
to shard."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from headrace import parallel
from headrace.packing.plan import Numbered
from headrace.place.address import is_url
from headrace.place.stores import QUIET
from headrace.record import Record

_log = logging.getLogger("headrace")

THREADS = 64  # requests on their way
_LARGE = 1 << 23  # bytes of an image, for which memory has room


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record, and the bytes of its image where it lies in a store, or why they can't be had."""

    numbered: Numbered
    data: bytes | None = None
    error: Exception | None = None

    def read(self, read: Callable[[Record], bytes]) -> Callable[[Record], bytes]:
        """`read`, of what is here already."""

        def found(record: Record) -> bytes:
            if self.error is not None:
                raise self.error
            return read(record) if self.data is None else self.data

        return found


def is_stored(record: Record) -> bool:
    """Whether its image lies in a store."""
    path = record.path if record.part is None else record.part.path
    return path is not None and is_url(path)


def fetched(
    records: Iterable[Numbered], read: Callable[[Record], bytes] = Record.read
) -> Generator[Fetched, None, None]:
    """The records in their order, the images of those that come next on their way. To be closed."""

    def fetch(numbered: Numbered) -> Fetched:
        assert isinstance(numbered.item, Record)
        try:
            return Fetched(numbered, data=read(numbered.item))
        except Exception as error:  # it is for who makes the record
            return Fetched(numbered, error=error)

    pool, most = parallel.Requests(THREADS), parallel.ahead(2 * THREADS, _LARGE)
    pending: deque[Fetched | Future[Fetched]] = deque()
    try:
        for numbered in records:
            there = not isinstance(numbered.item, Record) or not is_stored(numbered.item)
            pending.append(Fetched(numbered) if there else pool.submit(fetch, numbered))
            while pending and (isinstance(pending[0], Fetched) or len(pending) > most):
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        for one in pending:
            if isinstance(one, Future):
                one.cancel()
        pool.close()


def _first(pending: deque[Fetched | Future[Fetched]]) -> Fetched:
    """The first; waited for aloud."""
    first = pending[0]
    if isinstance(first, Future) and not wait([first], QUIET).done:
        _log.warning("waiting for images of a store: no answer yet; Ctrl-C gives up")
        while not wait([first], 1).done:  # a wait without an end would not see Ctrl-C on every system
            pass
    found = first.result() if isinstance(first, Future) else first
    pending.popleft()
    return found
