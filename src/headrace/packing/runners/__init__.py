"""Who makes the shards of a packing: threads of this process by default, a cluster by `ray()` or `dask()`, or your own.

    hr.pack(source, out, runner=hr.runners.ray())

A runner is called with the Tasks of a plan, a shard each, and gives the ShardResult of each, in any order, one twice if
it likes. `make_shard(task)` does one, in any process that sees the images and the place of the dataset under the same
paths. The smallest runner there is:

    def one_after_the_other(tasks):
        for task in tasks:
            yield hr.runners.make_shard(task)

Nothing of Ray or Dask is imported before it is asked for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from headrace.errors import MissingExtraError
from headrace.packing.shard import ShardResult
from headrace.packing.task import Task, Tasks, make_shard

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Runner", "ShardResult", "Task", "Tasks", "dask", "make_shard", "ray"]


class Runner(Protocol):
    """Gives the results of all tasks, in any order; a generator is closed when a packing ends before it has."""

    def __call__(self, tasks: Tasks, /) -> Iterator[ShardResult]: ...


def ray(address: str | None = None, *, workers: int | None = None) -> Runner:
    """Shards as tasks of Ray, one core each.

    address: of a cluster, as "auto" or "ray://host:10001". Without one it is the Ray that this process is connected to,
    else one that runs on this machine or that RAY_ADDRESS names, else a local one of `workers` cores (by default all),
    which ends with the packing. The machines see images and dataset under the same paths, and have the same Headrace.
    Raises MissingExtraError; when it runs EngineError (no connection, workers that die), UsageError (other versions).
    """
    _require("ray", "ray")
    from headrace.packing.runners.on_ray import runner

    return runner(address, workers)


def dask(client: Client | str | None = None, *, workers: int | None = None) -> Runner:
    """Shards as tasks of Dask.

    client: a distributed.Client, or the address of a scheduler. Without one a local cluster is started, of `workers`
    processes (by default one per core), which ends with the packing; then a script needs its `if __name__ ==
    "__main__":`. The machines see images and dataset under the same paths, and have the same Headrace.
    Raises MissingExtraError; when it runs EngineError (no connection, workers that die), UsageError (other versions).
    """
    _require("distributed", "dask")
    from headrace.packing.runners.on_dask import runner

    return runner(client, workers)


def _require(module: str, extra: str) -> None:
    """Raises MissingExtraError."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{extra} is not installed: pip install 'headrace[{extra}]'")
