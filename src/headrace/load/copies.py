"""Copies: records of a dataset that is far away, from a cache of this machine or over the network. When each is asked
for, and what for, is left to ahead; where copies lie, and how much of them, to place.cache."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import UsageError
from headrace.format.tables import Tables
from headrace.format.tfrecord import FOOTER_BYTES, HEADER_BYTES, OVERHEAD_BYTES, masked_crc
from headrace.place.cache import BLOCK, Cache, Victims

THREADS = 64  # that fetch: at 30 ms a request, 1,900 of them come in a second
RANGE = 1 << 23  # bytes of a request, at most, but for a record that is larger
_IN_FLIGHT = 1 << 26  # bytes of requests that run, at most, but for a single one
_GAP, _GAP_FITTING = 1 << 16, 1 << 18  # bytes between two records that are fetched with them; where all is kept anyway
_SMALL = 2 * BLOCK  # a record below that shares most of its blocks: to free it, its neighbours go too
_PIECE = 1 << 16
_LOT = 16  # rows that are freed at a time
_CHUNK = 1 << 16  # rows that are looked at together

# Payloads that were fetched, by the copy's name and their place in it.
Payloads: TypeAlias = dict[tuple[str, int], bytes]
# What came with a request: by row, what `Payloads` knows it by, and its bytes, which are a part of all that came.
Found: TypeAlias = dict[int, tuple[tuple[str, int], NDArray[np.uint8]]]


class Bits:
    """n bits, all 0 at first. From any thread: of two that set bits of one byte, one may lose; so a bit says what may
    be forgotten, and whoever relies on it finds out."""

    def __init__(self, n: int) -> None:
        self._bytes = np.zeros(n // 8 + 1, np.uint8)

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The bits of these rows [m], bool [m]."""
        found: NDArray[np.uint8] = self._bytes[rows >> 3] >> (rows & 7).astype(np.uint8) & 1
        return found.astype(np.bool_)

    def set(self, rows: NDArray[np.int64]) -> None:
        """Sets the bits of these rows [m]."""
        np.bitwise_or.at(self._bytes, rows >> 3, np.uint8(1) << (rows & 7).astype(np.uint8))

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Clears the bits of these rows [m]."""
        np.bitwise_and.at(self._bytes, rows >> 3, ~(np.uint8(1) << (rows & 7).astype(np.uint8)))

    def both(self, other: Bits) -> Iterator[NDArray[np.int64]]:
        """The rows whose bit is set here and in `other`, some at a time."""
        for first in range(0, len(self._bytes), _CHUNK // 8):
            some = slice(first, first + _CHUNK // 8)
            bits = np.unpackbits(self._bytes[some] & other._bytes[some], bitorder="little")
            if len(rows := np.flatnonzero(bits)):
                yield rows + 8 * first


class Span(NamedTuple):
    """A request: the rows `first` to `last - 1`, which lie one after the other in a shard, and all between them."""

    shard: int
    first: int
    last: int
    begin: int
    end: int


class Traffic:
    """What is to come: how much work there is on what is waited for, from finding out what to ask for to writing what
    came; and the bytes of the requests that run."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """As nothing is on its way, with a new lock: for a forked child."""
        self._expected, self._bytes = 0, 0
        self._queue: deque[tuple[int, threading.Lock]] = deque()  # requests that may not run yet, and their locks
        self.changed = threading.Condition()

    def expect(self, n: int) -> None:
        """So much more work is to be done; less, where n is negative."""
        with self.changed:
            self._expected += n
            if self.idle:
                self.changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything, or is about to."""
        return self._expected <= 0

    def wake(self) -> None:
        """Has whoever waits for `changed` look whether what he waits for has come."""
        with self.changed:
            self.changed.notify_all()

    @contextlib.contextmanager
    def request(self, size: int) -> Iterator[None]:
        """Waits until a request of so many bytes may run, each in its turn, and is one."""
        turn = threading.Lock()
        turn.acquire()
        with self.changed:
            self._queue.append((size, turn))
            self._admit()
        turn.acquire()
        try:
            yield
        finally:
            with self.changed:
                self._bytes -= size
                self._admit()

    def _admit(self) -> None:
        """Lets those run that may, and wakes no other."""
        while self._queue and (self._bytes == 0 or self._bytes + self._queue[0][0] <= _IN_FLIGHT):
            size, turn = self._queue.popleft()
            self._bytes += size
            turn.release()


class Copies:
    """The records of a dataset, of which `cache` holds what was fetched once: by name and place, or a batch at a time.

    Raises UsageError: the cache's folder is something else.

    `nothing`: no row, as bits.
    `there`: of which rows this process knows that the cache holds them, a bit each. Others may have freed them since;
    who misses one finds out, and then nothing is known any more of its shard.
    """

    def __init__(self, tables: Tables, cache: Cache) -> None:
        self.cache, self._tables = cache, tables
        self._place, self._entries = tables.place, tables.manifest.shards
        self.names = [entry.sha256 for entry in self._entries]  # of the copies
        self._number = {entry.name: i for i, entry in enumerate(self._entries)}
        index = tables.index
        self._offset, self._length, self._crc = index["offset"], index["length"], index["crc"]
        self._in_record = index["image_offset"]
        self.there, self.nothing = Bits(len(tables)), Bits(len(tables))
        self.pool = parallel.Pool(THREADS)
        self.traffic = Traffic()
        self.orders: weakref.WeakValueDictionary[int, Order] = weakref.WeakValueDictionary()
        cache.check()
        cache.own(self.names, str(tables.home.path), self._victims)
        _all.add(self)

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each shard."""
        return [entry.bytes for entry in self._entries]

    def shards(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the shards in which these rows lie, ascending."""
        return np.unique(self._tables.shard(rows))

    def bytes_of(self, rows: NDArray[np.int64]) -> int:
        """Bytes of these records."""
        return int(self._length[rows].sum(dtype=np.int64)) + OVERHEAD_BYTES * len(rows)

    def check_room(self, rows: NDArray[np.int64]) -> None:
        """Raises UsageError: the cache was given less than the largest of these records, and more than nothing."""
        largest = int(self._length[rows].max(initial=0)) + OVERHEAD_BYTES
        if self.cache.asked and self.cache.asked < largest:
            raise UsageError(
                f"cache_bytes is {self.cache.asked}, and the largest record of {self._tables.home.path} has {largest} "
                "bytes; pass more, or cache_bytes=0 to keep nothing"
            )

    def outside(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """All other rows, some at a time."""
        mine = Bits(len(self))
        mine.set(rows)
        for first in range(0, len(self), _CHUNK):
            some = np.arange(first, min(first + _CHUNK, len(self)))
            if len(others := some[~mine.of(some)]):
                yield others

    def wanted(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these rows that have to be looked for: their images lie in records, and not surely in the cache."""
        return rows[~self.there.of(rows) & (self._in_record[rows] > 0)]

    def record(self, name: str, offset: int, length: int, crc: int) -> bytes:
        """`Place.record` of the dataset: a payload by the shard's name and its place, from the cache or fetched.

        Whoever asked checks it. Raises StorageError.
        """
        shard = self._number[name]
        copy = self.names[shard]
        for _ in range(2):
            data = self.cache.read(copy, offset, length)
            if len(data) == length and masked_crc(data) == crc:
                return data
            self.cache.forget(copy)  # what is open may have been removed, and be there anew
        first, last = self._tables.first_row[shard : shard + 2]
        self.there.clear(np.arange(first, last))
        data = self._place.read(name, offset, length)
        if len(data) == length and masked_crc(data) == crc:
            self.cache.write(copy, self._entries[shard].bytes, offset, data)
        return data

    def keys(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, tuple[str, int]]]:
        """These rows, each with what `Payloads` knows it by."""
        return ((row, (self.names[shard], start)) for row, shard, start, _, _ in self._where(rows))

    def held(self, rows: NDArray[np.int64]) -> tuple[Payloads, NDArray[np.int64]]:
        """Payloads of these rows that the cache holds, by the copy's name and their place in it; and the other rows."""
        found: Payloads = {}
        missing = []
        for row, shard, start, length, crc in self._where(rows):
            data = self.cache.read(self.names[shard], start, length)
            if len(data) == length and masked_crc(data) == crc:
                found[self.names[shard], start] = data
            else:
                missing.append(row)
        absent = np.array(missing, np.int64)
        self.there.set(np.setdiff1d(rows, absent))
        return found, absent

    def spans(self, rows: NDArray[np.int64], along: Bits, *, fits: bool, piece: int = 0) -> list[Span]:
        """Requests that bring these rows [m], ascending: neighbours together, with what lies between them where that is
        little, or needed soon as well (`along`), up to RANGE bytes. `piece`: instead, what is needed soon of the pieces
        of so many bytes of a shard in which they lie, as far as the cache has none of it."""
        if not len(rows):
            return []
        shards = self._tables.shard(rows)
        begin = self._offset[rows].astype(np.int64)
        end = begin + self._length[rows] + OVERHEAD_BYTES
        gaps = begin[1:] - end[:-1]
        near = ((shards[1:] == shards[:-1]) & (gaps <= (_GAP_FITTING if fits else _GAP))).tolist()

        def needed(k: int) -> bool:
            """Whether all that lies between row k and the one before it is needed soon."""
            return bool(along.of(np.arange(rows[k - 1] + 1, rows[k])).all())

        def goes_on(k: int) -> bool:
            """Whether row k comes with the one before it. A piece is only of what is not there, nor on its way."""
            if shards[k] != shards[start] or end[k] - begin[start] > RANGE:
                return False
            return near[k - 1] and needed(k) if piece else near[k - 1] or needed(k)

        further = self.nothing if piece else along
        found, start = [], 0
        for k in range(1, len(rows) + 1):
            if k < len(rows) and goes_on(k):
                continue
            found.append(self._span(int(shards[start]), int(rows[start]), int(rows[k - 1]) + 1, further))
            start = k
        return self._pieces(found, along, piece) if piece else found

    def _span(self, shard: int, first: int, last: int, along: Bits) -> Span:
        """The request of these rows, and of those after them that are needed soon."""
        begin, stop = int(self._offset[first]), int(self._tables.first_row[shard + 1])
        within = int(np.searchsorted(self._offset[last:stop], begin + RANGE)) - 1  # whose end lies within, but for one
        if within > 0:
            soon = along.of(np.arange(last, last + within))
            last += within if soon.all() else int(np.argmin(soon))
        return self._made(shard, first, last)

    def _made(self, shard: int, first: int, last: int) -> Span:
        end = int(self._offset[last - 1]) + int(self._length[last - 1]) + OVERHEAD_BYTES
        return Span(shard, first, last, int(self._offset[first]), end)

    def _pieces(self, spans: list[Span], along: Bits, piece: int) -> list[Span]:
        """These requests, each with what is needed soon of the pieces in which it begins and ends."""
        found: list[Span] = []
        for span in spans:
            start, stop = self._tables.first_row[span.shard : span.shard + 2].tolist()
            offset = self._offset[start:stop]
            low, high = span.begin // piece * piece, (span.end - 1) // piece * piece + piece
            low, high = (start + int(np.searchsorted(offset, bound)) for bound in (low, high))
            before, after = along.of(np.arange(low, span.first)), along.of(np.arange(span.last, high))
            first = span.first - (len(before) if before.all() else int(np.argmin(before[::-1])))
            last = span.last + (len(after) if after.all() else int(np.argmin(after)))
            wide = self._made(span.shard, first, last)
            if not self._is_hole(wide):
                wide = span
            if found and found[-1].shard == wide.shard and wide.first < found[-1].last:
                if span.last <= found[-1].last:
                    continue
                wide = self._made(wide.shard, found[-1].last, wide.last)
            found.append(wide)
        return found

    def _is_hole(self, span: Span) -> bool:
        """Whether the cache was never given anything of these bytes, but for blocks at their ends."""
        entry = self._entries[span.shard]
        hole = self.cache.hole(entry.sha256, entry.bytes, span.begin)
        return hole is not None and hole[0] <= span.begin + BLOCK and hole[1] >= span.end - BLOCK

    def fetch(self, span: Span) -> tuple[NDArray[np.uint8], Found]:
        """The bytes of a request, and by row the payloads in it that are sound, parts of these bytes.

        Raises StorageError.
        """
        data = self._read(span.shard, span.begin, span.end)
        found, name = {}, self.names[span.shard]
        for row, _, start, length, crc in self._where(np.arange(span.first, span.last)):
            payload = data[start - span.begin : start - span.begin + length]
            if len(payload) == length and masked_crc(payload) == crc:
                found[row] = (name, start), payload
        return data, found

    def _read(self, shard: int, begin: int, end: int) -> NDArray[np.uint8]:
        """These bytes of a shard, read-only; fewer where it ends before. Raises StorageError."""
        return np.frombuffer(self._place.view(self._entries[shard].name, begin, end - begin), np.uint8)

    def keep(self, span: Span, data: NDArray[np.uint8], rows: NDArray[np.int64], *, soon: NDArray[np.int64]) -> None:
        """Writes these rows [m] of a request, ascending and sound, into the cache. Where it is full, those of them that
        are needed `soon` [k] take the place of others."""
        left = self._keep(span, data, rows, urgent=False)
        if len(left) and not self.cache.is_full:
            self._keep(span, data, np.intersect1d(left, soon), urgent=True)

    def _keep(self, span: Span, data: NDArray[np.uint8], rows: NDArray[np.int64], *, urgent: bool) -> NDArray[np.int64]:
        """Writes these rows; those that found no room."""
        view, size, left = data.data, self._entries[span.shard].bytes, rows[:0]
        # Not in one piece, of which nothing is kept where a part has room.
        pieces = (self._offset[rows].astype(np.int64) - span.begin) // max(_PIECE, self.cache.limit // 16)
        for run in np.split(rows, np.flatnonzero((np.diff(rows) > 1) | (np.diff(pieces) > 0)) + 1):
            if not len(run):
                continue
            begin = int(self._offset[run[0]])
            end = int(self._offset[run[-1]]) + int(self._length[run[-1]]) + OVERHEAD_BYTES
            part = view[begin - span.begin : end - span.begin]
            if self.cache.write(self.names[span.shard], size, begin, part, urgent=urgent):
                self.there.set(run)
            else:
                left = np.concatenate([left, run])
        return left

    def fill(self, shard: int, start: int) -> int | None:
        """Fetches the first RANGE bytes from `start` on that the cache lacks of a shard; where the next may be, None
        where there is nothing more to do. Raises StorageError."""
        entry = self._entries[shard]
        hole = self.cache.hole(entry.sha256, entry.bytes, start)
        if hole is None:
            return None
        # The block at either side may hold records by half: written in part, it is no hole.
        begin, end = max(0, hole[0] - BLOCK), min(entry.bytes, hole[1] + BLOCK, hole[0] + RANGE)
        data = self._read(shard, begin, end)
        if len(data) < end - begin or not self.cache.write(entry.sha256, entry.bytes, begin, data.data):
            return None
        return end

    def _where(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int, int]]:
        """(row, shard, where its payload begins, its length, its CRC) of these rows."""
        of = self._tables.shard(rows).tolist()
        starts = (self._offset[rows] + np.uint64(HEADER_BYTES)).tolist()
        return zip(rows.tolist(), of, starts, self._length[rows].tolist(), self._crc[rows].tolist(), strict=True)

    def _victims(self, urgent: bool) -> Iterator[Victims]:
        """What may be freed of the copies: what no iteration needs; and where it is `urgent`, what each needs last.

        That is what it has used, whichever of it: an epoch needs each record once, so it finds as many in the cache as
        were kept from the one before, and no choice of them makes it more. So nothing is freed for a record that is
        used already, either.
        """
        # Looked at in one step, as another thread may begin an iteration meanwhile.
        orders = [order for ref in self.orders.valuerefs() if (order := ref()) is not None]
        for order in orders:
            for rows in order.unneeded():
                self.there.clear(rows)
                yield list(self._freed(rows))
        for order in orders if urgent else ():
            for rows in order.used():
                for start in range(0, len(rows), _LOT):
                    lot = rows[start : start + _LOT]
                    self.there.clear(lot)
                    yield list(self._freed(lot))

    def _freed(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """The blocks of these rows, by file. A block that a row shares with a neighbour goes with the last of them that
        is there; or at once, where records are so small that none would ever go."""
        rows = np.sort(rows)
        shards = self._tables.shard(rows)
        for shard in np.unique(shards).tolist():
            mine = rows[shards == shard]
            runs = np.split(mine, np.flatnonzero(np.diff(mine) > 1) + 1)
            extents = [self._extent(int(run[0]), int(run[-1]), shard) for run in runs]
            yield self.names[shard], [(begin, end) for begin, end in extents if begin < end]

    def _extent(self, first: int, last: int, shard: int) -> tuple[int, int]:
        begin, end = int(self._offset[first]), int(self._offset[last]) + int(self._length[last]) + OVERHEAD_BYTES
        small = (end - begin) // (last - first + 1) < _SMALL
        low, high = self._tables.first_row[shard], self._tables.first_row[shard + 1]
        alone = small or not (first > low and self.there.of(np.array([first - 1]))[0])
        begin = begin // BLOCK * BLOCK if alone else -(-begin // BLOCK) * BLOCK
        alone = small or not (last + 1 < high and self.there.of(np.array([last + 1]))[0])
        end = -(-end // BLOCK) * BLOCK if alone else end // BLOCK * BLOCK
        return begin, end


class Order:
    """What an iteration knows of when rows are needed; the base of what cares for nothing."""

    def unneeded(self) -> Iterator[NDArray[np.int64]]:
        """Rows that it never needs, which are said once."""
        yield from ()

    def used(self) -> Iterator[NDArray[np.int64]]:
        """Rows that the cache holds, and that were used and are not needed before the next epoch."""
        yield from ()


assert OVERHEAD_BYTES == HEADER_BYTES + FOOTER_BYTES
_all: weakref.WeakSet[Copies] = weakref.WeakSet()


def _renew() -> None:
    for copies in _all:
        copies.traffic.renew()
        copies.orders.clear()  # iterations of the parent


os.register_at_fork(after_in_child=_renew)
