"""Threads: how many, and results in the order of the work. The decoders release the GIL, so threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from headrace.errors import UsageError

Work = TypeVar("Work")
Result = TypeVar("Result")


def check_workers(workers: int | None) -> int:
    """The number of worker threads; None is one per core this process may use. Raises UsageError below 1."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise UsageError(f"workers is {workers}, wanted at least 1")
    return workers


def ordered(
    function: Callable[[Work], Result], work: Iterable[Work], *, workers: int, ahead: int
) -> Generator[Result, None, None]:
    """`function` of each piece of work, on `workers` threads, in order, at most `ahead` pieces begun before their turn.

    An exception of the function comes out in its turn. Closing the iterator (leaving a loop early does) cancels what
    has not begun and waits for the rest, so that no thread stays behind.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="headrace")
    pending: deque[Future[Result]] = deque()
    try:
        for piece in work:
            pending.append(pool.submit(function, piece))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def memory() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
