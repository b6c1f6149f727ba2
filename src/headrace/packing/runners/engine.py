"""Tasks on any engine of a cluster: so many at once, again elsewhere when one fails, none left when it ends.

What an engine can do is said by Engine; Ray and Dask are two.
"""

from __future__ import annotations

import logging
import pickle
from collections import defaultdict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.errors import EngineError, HeadraceError
from headrace.packing.shard import ShardResult
from headrace.packing.task import Task, Tasks, make_shard

_log = logging.getLogger("headrace")

TRIES = 4  # of a shard; an engine that has tries of its own, for workers that die, counts all of them as one
WAIT = 5.0  # seconds between two looks at the cluster, where no task ends
AHEAD = 2  # tasks for each core: who is done has the next one, and a cluster that grows by demand sees some

# What another machine may do better.
_ELSEWHERE = (OSError, MemoryError, EngineError)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a task: its result or an error, and the node that it was tried on, "" where nobody knows."""

    node: str
    outcome: ShardResult | Exception


class Engine(Protocol):
    """What runs `attempt` of tasks somewhere."""

    def width(self) -> int:
        """How many tasks it can do at once, now; 0 of a cluster without workers."""
        ...

    def submit(self, task: Task, last: bool, avoid: Collection[str]) -> Any:
        """Begins an `attempt`, rather on no node of those to `avoid`; what it is known by from now on, which has a
        hash."""
        ...

    def first(self, running: Collection[Any]) -> tuple[Any, Attempt] | None:
        """Waits until one of these has ended, and forgets it; None after `WAIT` seconds. An EngineError as its outcome:
        the engine gave it up."""
        ...

    def cancel(self, running: Collection[Any]) -> None:
        """Ends these, and waits for them a little."""
        ...


def attempt(task: Task, last: bool, node: str) -> Attempt:
    """Does a task on this node. An error is an outcome as well, of its own type, whatever engines make of errors."""
    try:
        return Attempt(node, make_shard(task, last=last))
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return Attempt(node, RuntimeError(f"{type(error).__name__}: {error}"))
        return Attempt(node, error)


def run(engine: Engine, tasks: Tasks) -> Iterator[ShardResult]:
    """The results of all tasks, as they come. What fails for a reason that another machine may not have is tried again,
    TRIES times in all. Raises what the tasks raise. Closing it cancels what runs."""
    todo = deque(range(len(tasks)))
    running: dict[Any, int] = {}
    avoid: defaultdict[int, list[str]] = defaultdict(list)  # the nodes that a task has failed on
    try:
        said = False
        while todo or running:
            width = engine.width()
            if not width and not said:
                _log.warning("the cluster has no workers; waiting until it has some, Ctrl-C gives up")
            said = not width
            most = AHEAD * max(1, width)
            while todo and len(running) < most:
                i = todo.popleft()
                last = len(avoid[i]) == TRIES - 1
                running[engine.submit(tasks[i], last, avoid[i])] = i
            if (ended := engine.first(running)) is None:
                continue  # the cluster may be another by now
            handle, made = ended
            i = running.pop(handle)
            if isinstance(made.outcome, ShardResult):
                yield made.outcome
                continue
            avoid[i].append(made.node)
            if not isinstance(made.outcome, _ELSEWHERE):
                raise made.outcome
            if len(avoid[i]) == TRIES:
                raise _given_up(made.outcome)
            _log.warning("trying again: %s", made.outcome)
            todo.appendleft(i)
    finally:
        if running:
            engine.cancel(running)


def _given_up(error: Exception) -> Exception:
    if isinstance(error, HeadraceError):
        return type(error)(f"{error}; {TRIES} tries, on other machines where there are some, have failed")
    return error
