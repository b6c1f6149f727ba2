"""Shards by threads of this process: images of any shard are made in parallel, written in order."""

from __future__ import annotations

import contextlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from headrace import parallel
from headrace.packing.plan import Numbered, Plan, ShardPlan
from headrace.packing.shard import Made, ShardResult, make_record, pack_shard
from headrace.packing.task import put
from headrace.place.publish import Sink

_CHUNK = 4  # records per task: a task costs about 40 microseconds of its own, an image 500 and more


def run(plan: Plan, sink: Sink, workers: int, tick: Callable[[Iterable[Numbered], int], None]) -> Iterator[ShardResult]:
    """All shards. `tick` hears of the Rejects among so many records that were made. While a shard is put where it
    belongs, the next one is made. Raises OSError, and what `tick` raises."""

    def make(chunk: tuple[ShardPlan, int, int]) -> list[Made | Numbered]:
        shard, start, stop = chunk
        return [make_record(plan, shard, record) for record in plan.records(start, stop)]

    def made_of(shard: ShardPlan) -> Iterator[Made | Numbered]:
        for _ in range(-(-len(shard) // _CHUNK)):
            made = next(stream)
            tick((item for item in made if isinstance(item, Numbered)), len(made))
            yield from made

    scratch = sink.scratch()
    stream = parallel.ordered(make, _chunks(plan), workers=workers, ahead=4 * workers)
    pending: deque[tuple[ShardResult, Future[None]]] = deque()
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="headrace-put") as putter, contextlib.closing(stream):
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


def _chunks(plan: Plan) -> Iterator[tuple[ShardPlan, int, int]]:
    """(shard, first and last place in the plan's order) of a few records each."""
    for shard in plan.shards:
        for start in range(shard.start, shard.stop, _CHUNK):
            yield shard, start, min(shard.stop, start + _CHUNK)
