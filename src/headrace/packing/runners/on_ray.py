"""Shards as tasks of Ray: a cluster that is there, or a local one for as long as it is needed."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from headrace import parallel
from headrace.errors import EngineError, UsageError
from headrace.packing.runners import engine
from headrace.packing.runners.engine import Attempt

if TYPE_CHECKING:
    from headrace.packing.runners import Runner
    from headrace.packing.shard import ShardResult
    from headrace.packing.task import Task, Tasks

_log = logging.getLogger("headrace")

_DEATHS = 8  # of workers that one try survives
_CONNECTS = 10.0  # seconds to wait for a cluster to answer
_PATIENCE = 10.0  # seconds for a task to end in order, before its process is killed


def runner(address: str | None, workers: int | None) -> Runner:
    """See headrace.runners.ray."""
    if address is not None and workers is not None:
        raise UsageError(f"workers is {workers}: it is for a local Ray, and {address} has its own")
    cores = parallel.check_workers(workers)

    def run(tasks: Tasks, /) -> Iterator[ShardResult]:
        with _connected(address, cores) as is_own:
            if workers is not None and not is_own:
                _log.warning("workers=%d is for a Ray of its own: one that is there already is taken", workers)
            yield from engine.run(_Ray(), tasks)

    return run


@contextlib.contextmanager
def _connected(address: str | None, cores: int) -> Iterator[bool]:
    """What was begun here ends here; whether it is a Ray of its own. Raises EngineError."""
    if ray.is_initialized():
        yield False
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    # Said before anything of Ray starts: it counts who uses it unless it is told not to, and warns of what it will do
    # with accelerators, of which packing uses none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _check_there(address or os.environ.get("RAY_ADDRESS"))
        is_own = False
        try:
            ray.init(address or "auto", **quiet)
        except ConnectionError:
            if address is not None:
                raise
            ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
            is_own = True
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"{address}: no Ray answers there" if address else "Ray did not start here"
        raise EngineError(
            f"{where}: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    try:
        yield is_own
    finally:
        ray.shutdown()


def _check_there(address: str | None) -> None:
    """Raises OSError: nothing listens at this host and port. Ray itself would ask again for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECTS).close()


class _Ray:
    """The Engine."""

    def __init__(self) -> None:
        self._work = ray.remote(max_retries=_DEATHS, num_cpus=1)(_attempt)

    def width(self) -> int:
        return int(ray.cluster_resources().get("CPU", 0))

    def submit(self, task: Task, last: bool, avoid: Collection[str]) -> Any:
        return self._work.options(scheduling_strategy=_where(avoid)).remote(task, last)

    def first(self, running: Collection[Any]) -> tuple[Any, Attempt] | None:
        done, _ = ray.wait([*running], num_returns=1, timeout=engine.WAIT)
        if not done:
            return None
        try:
            return done[0], ray.get(done[0])
        except RayTaskError as error:  # not of the task: it could not even begin
            reason = f"the workers can't do this work, is Headrace installed there? {error.cause}"
            return done[0], Attempt("", EngineError(reason))
        except RayError as error:
            return done[0], Attempt("", EngineError(f"Ray gave a shard up: {_brief(error)}"))

    def cancel(self, running: Collection[Any]) -> None:
        left: Sequence[Any] = [*running]
        for force in (False, True):
            for handle in left:
                with contextlib.suppress(RayError, ValueError):
                    ray.cancel(handle, force=force)
            _, left = ray.wait([*left], num_returns=len(left), timeout=_PATIENCE, fetch_local=False)
            if not left:
                return


def _attempt(task: Task, last: bool) -> Attempt:
    return engine.attempt(task, last, ray.get_runtime_context().get_node_id())


def _where(avoid: Collection[str]) -> Any:
    """Anywhere, spread over the nodes; after a failure on another node, where there is one."""
    others = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU") and node["NodeID"] not in avoid
    ]
    if not avoid or not others:
        return "SPREAD"
    return NodeAffinitySchedulingStrategy(others[len(avoid) % len(others)], soft=True)


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
