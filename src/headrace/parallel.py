"""Threads: how many, and results in the order of the work. The decoders release the GIL, so threads are enough."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

from headrace.errors import UsageError

Work = TypeVar("Work")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def check_workers(workers: int | None) -> int:
    """The number of worker threads; None is one per core this process may use. Raises UsageError below 1."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise UsageError(f"workers is {workers}, wanted at least 1")
    return workers


class Pool:
    """Threads that are shared: started when first needed, and again in a forked child, which has none of its parent's.

    They end when the last reference to the pool is gone or the interpreter ends. A pickled pool is its number of
    workers. OpenCV loses some hundred bytes with every thread that ends, so who works again and again keeps its pool.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._of_process: dict[int, ThreadPoolExecutor] = {}

    def submit(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Queues a call."""
        while True:
            executor = self._of_process.get(os.getpid())
            if executor is None:  # an executor without work has no threads, so one too many costs nothing
                new = ThreadPoolExecutor(self.workers, thread_name_prefix="headrace")
                executor = self._of_process.setdefault(os.getpid(), new)
            try:
                return executor.submit(function, *args, **kwargs)
            except RuntimeError:  # closed since, by another thread; or the interpreter ends
                if self._of_process.get(os.getpid()) is executor:
                    raise

    def close(self, *, wait: bool = True) -> None:
        """Ends the threads of this process when they have done what is queued; `submit` starts new ones."""
        executor = self._of_process.pop(os.getpid(), None)
        if executor is not None:
            executor.shutdown(wait=wait)

    def __reduce__(self) -> tuple[type[Pool], tuple[int]]:
        return Pool, (self.workers,)


def ordered(
    function: Callable[[Work], Result], work: Iterable[Work], *, workers: int | Pool, ahead: int
) -> Generator[Result, None, None]:
    """`function` of each piece of work, in order, at most `ahead` pieces begun before their turn.

    `workers` is a pool to share, or a number of threads that end with the iterator. An exception of the function comes
    out in its turn. Closing the iterator (leaving a loop early does) cancels what has not begun and waits for the rest.
    """
    pool = workers if isinstance(workers, Pool) else Pool(workers)
    process = os.getpid()
    pending: deque[Future[Result]] = deque()
    try:
        for piece in work:
            pending.append(pool.submit(function, piece))
            if len(pending) > ahead:
                yield _first(pending)
        while pending:
            yield _first(pending)
    finally:
        if os.getpid() == process:  # in a forked child nobody works on what is pending
            wait([future for future in pending if not future.cancel()])
        if pool is not workers:
            pool.close()


def _first(pending: deque[Future[Result]]) -> Result:
    """The result of the first, which stays pending until it is there: an interrupt leaves nothing running unseen."""
    result = pending[0].result()
    pending.popleft()
    return result


def memory() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
