"""Shards by threads of this process: images of any shard are made in parallel, written in order."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from headrace import parallel
from headrace.packing.fetch import Fetched, fetched
from headrace.packing.plan import Numbered, Plan, ShardPlan
from headrace.packing.shard import Made, ShardResult, make_record, pack_shard
from headrace.packing.task import put
from headrace.place.publish import Sink
from headrace.record import Record

_CHUNK = 4  # records per task: a task costs about 40 microseconds of its own, an image 500 and more


def run(plan: Plan, sink: Sink, workers: int, tick: Callable[[Iterable[Numbered], int], None]) -> Iterator[ShardResult]:
    """All shards. `tick` hears of the Rejects among so many records that were made. While a shard is put where it
    belongs, the next one is made. Raises OSError, and what `tick` raises."""

    def make(chunk: _Chunk) -> list[Made | Numbered]:
        records = map(Fetched, plan.records(chunk.start, chunk.stop)) if chunk.fetched is None else chunk.fetched
        return [make_record(plan, chunk.shard, one.numbered, one.read(Record.read)) for one in records]

    def made_of(shard: ShardPlan) -> Iterator[Made | Numbered]:
        for _ in range(-(-len(shard) // _CHUNK)):
            made = next(stream)
            tick((item for item in made if isinstance(item, Numbered)), len(made))
            yield from made

    scratch = sink.scratch()
    chunks = _fetched_chunks(plan) if plan.stored else _chunks(plan)
    stream = parallel.ordered(make, chunks, workers=workers, ahead=4 * workers)
    pending: deque[tuple[ShardResult, Future[None]]] = deque()
    try:
        with (
            ThreadPoolExecutor(1, thread_name_prefix="headrace-put") as putter,
            contextlib.closing(chunks),
            contextlib.closing(stream),
        ):
            for shard in plan.shards:
                result = pack_shard(shard, scratch, made_of(shard))
                pending.append((result, putter.submit(put, sink, scratch, result)))
                if len(pending) > 1:
                    yield _first(pending)
            while pending:
                yield _first(pending)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _first(pending: deque[tuple[ShardResult, Future[None]]]) -> ShardResult:
    result, done = pending.popleft()
    done.result()
    return result


class _Chunk(NamedTuple):
    """A few records: places `start` to `stop` of the plan's order, and what was `fetched` of them, if anything was."""

    shard: ShardPlan
    start: int
    stop: int
    fetched: list[Fetched] | None = None


def _chunks(plan: Plan) -> Generator[_Chunk, None, None]:
    for shard in plan.shards:
        for start in range(shard.start, shard.stop, _CHUNK):
            yield _Chunk(shard, start, min(shard.stop, start + _CHUNK))


def _fetched_chunks(plan: Plan) -> Generator[_Chunk, None, None]:
    records = (record for chunk in _chunks(plan) for record in plan.records(chunk.start, chunk.stop))
    with contextlib.closing(fetched(records)) as stream:
        for chunk in _chunks(plan):
            yield chunk._replace(fetched=list(itertools.islice(stream, chunk.stop - chunk.start)))
