"""Threads: how many, and results in the order of the work. The decoders release the GIL, so threads are enough.

And what a process may use of its machine: a container's limits are those of its cgroups, version 2 or 1.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from headrace.errors import UsageError

Work = TypeVar("Work")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_AHEAD = 1 / 4  # of memory, at most for results that are made before their turn


def check_workers(workers: int | None) -> int:
    """The number of worker threads; None is one per core this process may use. Raises UsageError below 1."""
    if workers is None:
        return _cores()
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
                new = ThreadPoolExecutor(self.workers, thread_name_prefix="headrace", initializer=_begin)
                executor = self._of_process.setdefault(os.getpid(), new)
            try:
                return executor.submit(function, *args, **kwargs)
            except RuntimeError:  # closed since, by another thread; or the interpreter ends
                if self._of_process.get(os.getpid()) is executor:
                    raise

    @property
    def takes_work(self) -> bool:
        """Whether `submit` takes work; when the interpreter ends it does not, and waits for all that is queued."""
        try:
            self.submit(int)
        except RuntimeError:
            return False
        return True

    def close(self, *, wait: bool = True) -> None:
        """Ends the threads of this process when they have done what is queued; `submit` starts new ones."""
        executor = self._of_process.pop(os.getpid(), None)
        if executor is not None:
            executor.shutdown(wait=wait)

    def __reduce__(self) -> tuple[type[Pool], tuple[int]]:
        return Pool, (self.workers,)


class Requests:
    """Threads for what waits for other machines, which may not answer for minutes: nobody waits for them when the work
    ends, nor the interpreter. They are started when first needed; what they do must leave nothing behind."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._begun = 0

    def submit(self, function: Callable[[Work], Result], piece: Work) -> Future[Result]:
        """Queues a call; from one thread only."""
        future = Future[Result]()
        self._work.put((future, lambda: function(piece)))
        if self._begun < self.workers:
            self._begun += 1
            Thread(target=self._run, name="headrace-fetch", daemon=True).start()
        return future

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)
            del work, future, call

    def close(self) -> None:
        """Ends the threads when they have done what is queued, and not cancelled."""
        for _ in range(self._begun):
            self._work.put(None)


def ordered(
    function: Callable[[Work], Result],
    work: Iterable[Work],
    *,
    workers: int | Pool,
    ahead: int,
    ending: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """`function` of each piece of work, in order, at most `ahead` pieces begun before their turn.

    `workers` is a pool to share, or a number of threads that end with the iterator. An exception of the function comes
    out in its turn. Closing the iterator (leaving a loop early does) cancels what has not begun and waits for the rest,
    after `ending`, which wakes what waits for something itself. An iterator that was left in a cycle is closed by
    whichever thread collects garbage: one of a pool doesn't wait, for it may be what is waited for.
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
        if ending is not None:
            ending()
        if os.getpid() == process:  # in a forked child nobody works on what is pending
            running = [future for future in pending if not future.cancel()]
            if not _is_of_a_pool():
                wait(running)
        if pool is not workers:
            pool.close(wait=not _is_of_a_pool())


_thread = threading.local()


def _begin() -> None:
    _thread.is_of_a_pool = True


def _is_of_a_pool() -> bool:
    return getattr(_thread, "is_of_a_pool", False)


def _first(pending: deque[Future[Result]]) -> Result:
    """The result of the first, which stays pending until it is there: an interrupt leaves nothing running unseen."""
    result = pending[0].result()
    pending.popleft()
    return result


def ahead(wanted: int, size: int) -> int:
    """How many results of `size` bytes to begin before their turn: as many as `wanted`, and fewer, but one at least,
    where all that are made would take more than a quarter of `memory()`."""
    return max(1, min(wanted, int(_AHEAD * memory()) // max(1, size) - 1))


def memory() -> int:
    """Bytes of memory this process may use: what the machine has, or what its container is limited to."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                there = min(there, int((folder / name).read_text()))
    return there


def _cores() -> int:
    """The cores this process may use: those it may run on, or as many as its container's quota of time comes to."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroups("cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError):  # "max" is no number: no quota; in version 1 that is -1
                quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
                if quota > 0 and period > 0:
                    there = min(there, -(-quota // period))
    return there


def _cgroups(controller: str) -> Iterator[Path]:
    """The folders of the cgroups this process is in, the inmost first: a limit of any of them holds.

    A container may see its own as the root, and yet be told its path in the machine: what isn't there is passed over.
    """
    try:
        lines = _CGROUP.read_text().splitlines()
    except OSError:
        return  # no Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS  # version 2 has one tree for all
        inmost = root / path.lstrip("/")
        yield from (folder for folder in (inmost, *inmost.parents) if folder.is_relative_to(root))
