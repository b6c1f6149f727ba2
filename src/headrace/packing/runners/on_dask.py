"""Shards as tasks of Dask: a cluster that is there, or a local one of processes for as long as it is needed."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import dask
import distributed

from headrace import parallel
from headrace.errors import EngineError, UsageError
from headrace.packing.runners import engine
from headrace.packing.runners.engine import Attempt

if TYPE_CHECKING:
    from headrace.packing.runners import Runner
    from headrace.packing.shard import ShardResult
    from headrace.packing.task import Task, Tasks


def runner(client: distributed.Client | str | None, workers: int | None) -> Runner:
    """See headrace.runners.dask."""
    if client is not None and workers is not None:
        raise UsageError(f"workers is {workers}: it is for a local cluster, and {client} has its own")
    cores = parallel.check_workers(workers)

    def run(tasks: Tasks, /) -> Iterator[ShardResult]:
        with _connected(client, cores) as connected:
            yield from engine.run(_Dask(connected), tasks)

    return run


@contextlib.contextmanager
def _connected(client: distributed.Client | str | None, cores: int) -> Iterator[distributed.Client]:
    """What was begun here ends here. Raises EngineError."""
    if isinstance(client, distributed.Client):
        yield client
        return
    with contextlib.ExitStack() as stack:
        try:
            if client is None:
                cluster = distributed.LocalCluster(
                    n_workers=cores,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any port: the usual one may be taken
                    silence_logs=logging.CRITICAL,
                )
                found = stack.enter_context(distributed.Client(stack.enter_context(cluster), set_as_default=False))
            else:
                found = stack.enter_context(distributed.Client(client, set_as_default=False))
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            where = "Dask did not start here" if client is None else f"{client}: no Dask scheduler answers there"
            raise EngineError(f"{where}: {_brief(error)}") from error
        yield found


class _Dask:
    """The Engine."""

    def __init__(self, client: distributed.Client) -> None:
        self._client = client
        self._begin = f"headrace-{secrets.token_hex(4)}"
        self._count = 0

    def width(self) -> int:
        return sum(self._threads().values())

    def submit(self, task: Task, last: bool, avoid: Collection[str]) -> Any:
        others = [worker for worker in self._threads() if worker not in avoid] if avoid else []
        self._count += 1
        # A task is as large as its images are, where a source gives bytes: that needs no warning.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            return self._client.submit(
                _attempt,
                task,
                last,
                key=f"{self._begin}-{task.shard}-{self._count}",
                pure=False,
                workers=others or None,
                allow_other_workers=bool(others),
            )

    def first(self, running: Collection[Any]) -> tuple[Any, Attempt] | None:
        try:
            with self._client.as_current():
                try:
                    done, _ = distributed.wait([*running], timeout=engine.WAIT, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    return None
            handle = next(iter(done))
            if handle.status == "error":
                return handle, Attempt("", EngineError(f"Dask gave a shard up: {_brief(handle.exception())}"))
            return handle, handle.result()
        except (CancelledError, OSError, TimeoutError) as error:
            raise EngineError(f"the connection to Dask's scheduler is lost: {_brief(error)}") from error

    def cancel(self, running: Collection[Any]) -> None:
        with contextlib.suppress(Exception):
            self._client.cancel([*running], force=True)

    def _threads(self) -> dict[str, int]:
        found: dict[str, int] = self._client.nthreads()
        return found


def _attempt(task: Task, last: bool) -> Attempt:
    return engine.attempt(task, last, distributed.get_worker().address)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
