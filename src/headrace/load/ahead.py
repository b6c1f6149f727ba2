"""Ahead: what an iteration over a dataset that is far away fetches before its turn, and in which order it needs what.

How records are fetched and kept is copies'; batches are the loader's.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import HeadraceError
from headrace.load.copies import Bits, Copies, Found, Order, Payloads, Span

Rows: TypeAlias = NDArray[np.int64]

_BUDGET = 1 << 27  # bytes of batches that are fetched before their turn
_LOT = 1 << 25  # bytes of batches whose records are looked for together, so that neighbours become one request
_HORIZON = 1 << 28  # bytes of batches further on: what of them lies between is taken along
# Bytes of a shard that are asked for together where all of it is needed, and has room: few at first, when somebody
# waits for one record of them and may leave before the rest is of use, and twice as many after each 1/256 of all, up to
# so many that a request itself costs little beside them.
_PIECES, _STEPS = (1 << 17, 1 << 21), 256
_BATCHES = 256  # that are looked after before their turn


@dataclass(slots=True, eq=False)
class _Batch:
    number: int
    rows: Rows
    wanted: Rows  # those that have to be looked for
    size: int  # bytes of them
    held: Payloads = field(default_factory=dict)
    waits: int = 0  # for so many requests
    made: Future[Payloads] = field(default_factory=Future)


class _Lot:
    """Batches whose records are looked for together."""

    def __init__(self, batches: list[_Batch]) -> None:
        self.batches, self.left = batches, len(batches)
        self.missing: dict[int, list[_Batch]] = {}  # by row


class _Request:
    """A span on its way, and who waits for which of its rows. Under the lock of its Ahead."""

    def __init__(self, span: Span, keep: Rows) -> None:
        self.span, self.keep = span, keep
        self.takers: dict[int, list[_Batch]] = {}
        self.waiting: set[_Batch] = set()
        self.found: Found | None = None  # when it is there
        self.error: BaseException | None = None  # when it will not come

    def join(self, row: int, batch: _Batch) -> None:
        """The batch waits for a row of it, or has it now."""
        self.takers.setdefault(row, []).append(batch)
        if self.error is not None:
            _fail(batch.made, self.error)
        elif self.found is not None:
            self.hand_over()
        elif batch not in self.waiting:
            self.waiting.add(batch)
            batch.waits += 1

    def hand_over(self) -> list[_Batch]:
        """Gives what was found to whoever waits for it; which batches wait for nothing more."""
        assert self.found is not None
        for row, batches in self.takers.items():
            if row in self.found:
                key, part = self.found[row]
                payload = part.tobytes()  # so that what came with it is not held as long
                for batch in batches:
                    batch.held[key] = payload
        for batch in self.waiting:
            batch.waits -= 1
        ready = [batch for batch in self.waiting if not batch.waits]
        self.takers.clear()
        self.waiting.clear()
        return ready


class Ahead(Order):
    """Fetches the batches `numbers` of an iteration in their order, so many bytes ahead of those that are done.

    `rows_of`: the rows of a batch that are to be fetched. Batches that have nothing to be fetched cost nothing. What is
    fetched is handed over from memory, and written to the cache behind it. `take` begins it all, after `starting`, so
    nothing is fetched for an iteration that is never asked. `begun`: rows that were used before the first of the
    batches; `outside`: those that the view has not. They say what may be freed, and are asked for only then. From any
    thread.

    `fits`: the shards of all rows have room in the cache together. `whole`: where also the batches need each of these
    rows, and they are most of what the shards hold; so what lies beside a record is fetched with it. `once`: a row that
    was used is not needed again in this epoch. `among`: so many share what may be fetched ahead.
    """

    def __init__(
        self,
        copies: Copies,
        numbers: range,
        rows_of: Callable[[int], Rows],
        *,
        fits: bool = False,
        whole: Rows | None = None,
        once: bool = True,
        among: int = 1,
        starting: Callable[[], None] = lambda: None,
        begun: Callable[[], Iterator[Rows]] = lambda: iter(()),
        outside: Callable[[], Iterator[Rows]] = lambda: iter(()),
    ) -> None:
        self._copies, self._numbers, self._rows_of, self._fits = copies, numbers, rows_of, fits
        self._whole, self._fetched, self._whole_bytes = whole, 0, 0
        self._starting, self._begun, self._outside = starting, begun, outside()
        self._used: Bits | None = None  # rows that were used in this epoch
        self._lock = threading.RLock()  # `close` may come with the collection of garbage, wherever it is held
        self._batches: dict[int, _Batch] = {}  # planned, and not done
        self._futures: dict[int, Future[Payloads]] = {}  # of those not planned yet, for who waits
        self._on_the_way: dict[int, _Request] = {}  # by row
        self._bytes, self._want = 0, 0
        self._once = once
        self._budget = min(_BUDGET, parallel.memory() // 8) // among
        self._planning, self._closed = False, False
        self._error: BaseException = CancelledError()
        self._at = 0  # the place in `numbers` of the next batch to be looked after
        self._soon, self._coming = Bits(len(copies)), deque[tuple[int, Rows, int]]()
        self._seen, self._coming_bytes = 0, 0
        copies.orders[id(self)] = self

    def take(self, number: int) -> Payloads:
        """Payloads of a batch's records, when they are there: of those of its rows that the cache may not hold.

        Raises StorageError; CancelledError after `close`.
        """
        return self.asked(number).result()

    def asked(self, number: int) -> Future[Payloads]:
        """What `take` waits for. Raises as it does, where it has failed already."""
        with self._lock:
            batch = self._batches.get(number)
            made = self._futures.setdefault(number, Future()) if batch is None else batch.made
            if self._closed:  # perhaps by what has just been made: see _lock
                raise self._error
        self._advance()
        return made

    def done(self, number: int) -> None:
        """The batch is drawn, or never will be."""
        with self._lock:
            batch = self._batches.pop(number, None)
            self._futures.pop(number, None)
            if batch is None:
                return
            self._bytes -= batch.size
            if self._used is not None:
                self._used.set(batch.rows)
        self._advance()

    def close(self) -> None:
        """Fetches no more; who waits gets a CancelledError."""
        with self._lock:
            self._closed = True
            waiting = [*self._futures.values(), *(batch.made for batch in self._batches.values())]
            self._batches.clear()
            self._coming.clear()
        for made in waiting:
            _fail(made, CancelledError())

    def unneeded(self) -> Iterator[Rows]:
        while (rows := next(self._outside, None)) is not None:  # `yield from` would end it with who has enough
            yield rows

    def used(self) -> Iterator[Rows]:
        if self._used is not None and not self._fits and self._once:
            yield from self._copies.there.both(self._used)

    def _advance(self) -> None:
        """Plans what there is room for, on a thread that fetches."""
        with self._lock:
            if self._planning or self._closed or self._at >= len(self._numbers) or not self._has_room():
                return
            self._planning = True
        try:
            self._submit([self._plan])
        except BaseException as error:
            self._fail(error)
            raise

    def _submit(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Has each of these done on a thread that fetches. Raises RuntimeError: the interpreter ends, or no thread can
        be started."""
        traffic, left = self._copies.traffic, len(tasks)
        traffic.expect(left)
        try:
            for task in tasks:
                self._copies.pool.submit(self._do, task)
                left -= 1
        except BaseException:
            traffic.expect(-left)
            raise

    def _do(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # whoever waits must hear of it
            self._fail(error)
            raise
        finally:
            self._copies.traffic.expect(-1)

    def _has_room(self) -> bool:
        """Whether a next lot may begin: one does where nothing is ahead, and else when a whole one has room."""
        if not self._batches:
            return True
        return len(self._batches) <= _BATCHES * 3 // 4 and self._bytes + max(self._want, 1) <= self._budget

    def _plan(self) -> None:
        if self._used is None:
            self._used = Bits(len(self._copies))
            for rows in () if self._fits else self._begun():
                self._used.set(rows)
            self._starting()
        self._copies.cache.touch()
        while lot := self._next_lot():
            self._begin(lot)

    def _next_lot(self) -> list[_Batch]:
        """The batches to be looked after next; none where there is no room."""
        lot: list[_Batch] = []
        size = 0
        while True:
            with self._lock:
                ends = self._closed or self._at >= len(self._numbers)
                full = bool(lot) and (size >= self._want or len(self._batches) >= _BATCHES)
                if ends or full or not (lot or self._has_room()):
                    self._planning = self._planning and bool(lot)
                    break
            number, rows, _ = self._coming_next()
            wanted = self._copies.wanted(rows)
            batch = _Batch(number, rows, wanted, self._copies.bytes_of(wanted))
            with self._lock:
                if self._closed:
                    break
                if number in self._futures:
                    batch.made = self._futures.pop(number)
                self._batches[number] = batch
                self._bytes += batch.size
                self._at += 1
            lot.append(batch)
            size += batch.size
        # The first batch comes alone, for somebody waits for it; then lots grow.
        self._want = min(max(2 * self._want, size), _LOT, self._budget // 4)
        return lot

    def _coming_next(self) -> tuple[int, Rows, int]:
        """The next batch's number and rows, and their bytes; and looks further on, as far as there is use for it."""
        keeps = self._copies.cache.keeps and self._whole is None
        horizon = min(_HORIZON, self._copies.cache.limit // 8) if keeps else 0
        while self._seen < len(self._numbers) and (not self._coming or self._coming_bytes < horizon):
            number = self._numbers[self._seen]
            rows = self._rows_of(number)
            size = self._copies.bytes_of(rows)
            self._coming.append((number, rows, size))
            self._coming_bytes += size
            self._seen += 1
            if keeps:
                self._soon.set(rows)
        number, rows, size = self._coming.popleft()
        self._coming_bytes -= size
        return number, rows, size

    def _begin(self, batches: list[_Batch]) -> None:
        """Looks for the records of a lot, a thread per batch."""
        busy = [batch for batch in batches if len(batch.wanted)]
        for batch in batches:
            if not len(batch.wanted):
                _give(batch)
        lot = _Lot(busy)
        self._submit([partial(self._look, lot, batch) for batch in busy])

    def _look(self, lot: _Lot, batch: _Batch) -> None:
        """Takes from the cache what it holds of a batch; the last of a lot has the rest fetched."""
        held, missing = self._copies.held(batch.wanted) if not self._closed else ({}, batch.wanted)
        batch.held.update(held)
        with self._lock:
            for row in missing.tolist():
                lot.missing.setdefault(row, []).append(batch)
            lot.left -= 1
            if lot.left:
                return
        self._fetch(lot)

    def _fetch(self, lot: _Lot) -> None:
        """Asks for all that a lot misses and that is not on its way already, what is needed first first."""
        with self._lock:
            new = []
            for row, batches in lot.missing.items():
                request = self._on_the_way.get(row)
                if request is None:
                    new.append(row)
                else:
                    for batch in batches:
                        request.join(row, batch)
            rows = self._arrived(lot, np.array(sorted(new), np.int64))
            if self._whole is not None and not self._whole_bytes:  # not before something is missing
                self._soon.set(self._whole)
                self._whole_bytes = self._copies.bytes_of(self._whole)
            self._soon.clear(np.concatenate([batch.rows for batch in lot.batches]))
            requests = []
            along = self._copies.nothing if self._copies.cache.is_full else self._soon
            if self._whole is not None:
                self._soon.set(rows)  # as what is beside them
            for span in self._copies.spans(rows, along, fits=self._fits, piece=self._piece()):
                # What lies between is kept where it is needed soon; and all of it, where all has room.
                every = np.arange(span.first, span.last)
                low, high = np.searchsorted(rows, (span.first, span.last))
                keep = every if self._fits else np.union1d(rows[low:high], every[along.of(every)])
                self._soon.clear(every)
                request = _Request(span, keep)
                for row in rows[low:high].tolist():
                    for batch in lot.missing[row]:
                        request.join(row, batch)
                self._on_the_way.update(dict.fromkeys(keep.tolist(), request))
                requests.append(request)
                self._fetched += span.end - span.begin
            requests.sort(key=lambda request: min(batch.number for batch in request.waiting))
            ready = [batch for batch in lot.batches if not batch.waits]
        for batch in ready:
            _give(batch)
        self._submit([partial(self._run, request) for request in requests])

    def _piece(self) -> int:
        """Bytes of a shard that are asked for together: 1 is as many as a record has, 0 what is needed soon."""
        if self._whole is None:
            return 0
        least, most = _PIECES
        return min(least << _STEPS * self._fetched // self._whole_bytes, most) if self._fetched else 1

    def _arrived(self, lot: _Lot, rows: Rows) -> Rows:
        """Takes from the cache those of these rows [m] that came between the look at it and now; the others."""
        there = self._copies.there.of(rows)
        if not there.any():
            return rows
        held, missing = self._copies.held(rows[there])
        for row, key in self._copies.keys(rows[there]):
            if key in held:
                for batch in lot.missing[row]:
                    batch.held[key] = held[key]
        return np.union1d(rows[~there], missing)

    def _run(self, request: _Request) -> None:
        """Fetches a span, hands over what is waited for, and then writes it to the cache."""
        copies, span = self._copies, request.span
        try:
            with copies.traffic.request(span.end - span.begin):
                if not copies.pool.takes_work:
                    self._fail(CancelledError())
                if self._closed:
                    return
                data, found = copies.fetch(span)
                with self._lock:
                    request.found, asked = found, np.array(list(request.takers), np.int64)
                    ready = request.hand_over()
                for batch in ready:
                    _give(batch)
                good = request.keep[np.isin(request.keep, np.array(list(found), np.int64))]
                copies.keep(span, data, good, soon=good[~np.isin(good, asked)])
        except HeadraceError as error:  # who waits for other requests goes on
            with self._lock:
                request.error, waiting = error, list(request.waiting)
            for batch in waiting:
                _fail(batch.made, error)
        finally:
            with self._lock:
                for row in request.keep.tolist():
                    self._on_the_way.pop(row, None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            waiting = [*self._futures.values(), *(batch.made for batch in self._batches.values())]
            self._closed, self._error = True, error
        for made in waiting:
            _fail(made, error)


class Together:
    """What several datasets fetch for one iteration, each its own records. See Ahead."""

    def __init__(self, each: Sequence[Ahead]) -> None:
        self._each = tuple(each)

    def take(self, number: int) -> Payloads:
        """Payloads of a batch's records, of all of them. Raises as `Ahead.take` does."""
        asked = [ahead.asked(number) for ahead in self._each]  # all of them at once, and then their answers
        found: Payloads = {}
        for made in asked:
            found |= made.result()
        return found

    def done(self, number: int) -> None:
        """The batch is drawn, or never will be."""
        for ahead in self._each:
            ahead.done(number)

    def close(self) -> None:
        """Fetches no more; who waits gets a CancelledError."""
        for ahead in self._each:
            ahead.close()


@contextmanager
def until_taken(ahead: Ahead | Together, number: int) -> Iterator[None]:
    """Work on a batch, which is done when that fails."""
    try:
        yield
    except BaseException:
        ahead.done(number)
        raise


def _give(batch: _Batch) -> None:
    with suppress(InvalidStateError):  # failed before
        batch.made.set_result(batch.held)


def _fail(made: Future[Payloads], error: BaseException) -> None:
    with suppress(InvalidStateError):
        made.set_exception(error)


def fitting(copies: Copies, rows: Rows) -> tuple[bool, list[int]]:
    """Whether all shards of these rows fit the cache together; and which of them to fill, none where they don't, or
    where most of their bytes are of other rows. Raises UsageError: not one record has room."""
    copies.check_room(rows)
    shards = copies.shards(rows).tolist()
    size = sum(copies.sizes[shard] for shard in shards)
    fits = size <= copies.cache.limit
    return fits, shards if fits and 2 * copies.bytes_of(rows) >= size else []


class Filling:
    """Fills the cache with these shards from their beginnings, on a thread that gives way to all others, until `end`.

    For a set that fits: an epoch needs all of it, in an order that costs more requests.
    """

    def __init__(self, copies: Copies, shards: list[int]) -> None:
        self._copies, self._shards = weakref.ref(copies), shards
        self._ended = False
        self._process = 0

    def begin(self) -> None:
        """Starts the thread, once in a process."""
        if self._process != os.getpid() and not self._ended:
            self._process = os.getpid()
            threading.Thread(target=self._run, name="headrace-fill", daemon=True).start()

    def end(self) -> None:
        """Ends it, after the request that runs."""
        self._ended = True
        copies = self._copies()
        if copies is not None:
            copies.traffic.wake()

    def _run(self) -> None:
        for shard in self._shards:
            at: int | None = 0
            while at is not None:
                copies = self._copies()
                if copies is None:
                    return
                traffic = copies.traffic
                with traffic.changed:
                    traffic.changed.wait_for(lambda: traffic.idle or self._ended)  # noqa: B023
                if self._ended or not copies.cache.keeps:
                    return
                try:
                    at = copies.fill(shard, at)
                except HeadraceError:
                    return  # who needs a record will say so
                del copies
