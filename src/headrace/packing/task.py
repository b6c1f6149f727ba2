"""One shard as a task that any process of any machine can do, again and again: the work function of all runners.

A task brings all that it takes: rows, options, where to put what is made. How tasks are spread is left to runners.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from headrace import parallel
from headrace.errors import HeadraceError, StorageError, UsageError
from headrace.packing.fetch import Fetched, fetched
from headrace.packing.plan import Decisions, Numbered, Plan, numbered_records
from headrace.packing.shard import Made, ShardResult, make_record, pack_shard
from headrace.packing.spool import Slice
from headrace.place.address import is_url
from headrace.place.publish import Sink
from headrace.record import Record
from headrace.version import __version__


def spoken() -> tuple[str, str]:
    """The versions of Headrace and Python of this process: shards are made by the same ones everywhere."""
    return __version__, f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One shard to be made: its name, how many `records` it may have, and the `versions` that planned it. Pickles."""

    shard: str
    records: int
    versions: tuple[str, str]
    payload: bytes = field(repr=False)  # opened only where the versions are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done: `rows` of the one shard that the `decisions` hold, paths in them relative to `base`."""

    decisions: Decisions
    rows: Slice
    base: str
    sink: Sink


class Tasks:
    """The tasks of a plan, a shard each: `len(tasks)`, `tasks[i]`, `for task in tasks`. Each is made when it is asked
    for, with the bytes of its images where a source gave bytes, and not kept."""

    def __init__(self, plan: Plan, sink: Sink) -> None:
        self._plan, self._sink = plan, sink

    def __len__(self) -> int:
        return len(self._plan.shards)

    def __getitem__(self, i: int) -> Task:
        shard = self._plan.shards[i]
        work = Work(decisions=self._plan.alone(i), rows=self._plan.slice(i), base=str(Path.cwd()), sink=self._sink)
        return Task(shard=shard.name, records=len(shard), versions=spoken(), payload=pickle.dumps(work))

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))


def make_shard(task: Task, *, last: bool = True) -> ShardResult:
    """Makes the shard of a task and puts it where it belongs. Whoever does it, and how often, also at once: the bytes
    are the same, and each file is there whole or not at all.

    last: nobody will try again, and an image that can't be read is a Reject. Else it is an error, as another machine
    may have the mount that is missing here.
    Errors name this machine. Raises UsageError (other versions than the task's), StorageError (of the disk; of an image
    that can't be read, unless this is the last try).
    """
    here = platform.node()
    if spoken() != task.versions:
        (headrace, python), (ours, its) = task.versions, spoken()
        raise UsageError(
            f"{here}: has Headrace {ours} in Python {its}, the packing was planned by Headrace {headrace} in Python "
            f"{python}; install the same versions on all machines"
        )
    work: Work = pickle.loads(task.payload)
    return do(work, last=last)


def do(work: Work, *, last: bool, workers: int = 1) -> ShardResult:
    """The same of work at hand, by so many threads."""
    here, (shard,) = platform.node(), work.decisions.shards
    read = _reader(work.base, last)
    try:
        scratch = work.sink.scratch()
        try:

            def make(record: Fetched) -> Made | Numbered:
                return make_record(work.decisions, shard, record.numbered, record.read(read))

            with contextlib.ExitStack() as stack:
                numbered = numbered_records(work.decisions, work.rows, work.rows.numbers)
                records = stack.enter_context(contextlib.closing(fetched(numbered, read)))
                made: Iterator[Made | Numbered] = map(make, records)
                if workers > 1:
                    made = stack.enter_context(
                        contextlib.closing(parallel.ordered(make, records, workers=workers, ahead=4 * workers))
                    )
                result = pack_shard(shard, scratch, _while_wanted(made, scratch))
            put(work.sink, scratch, result)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except _Unread as unread:
        error, record = unread.args
        where = error.filename or record.path or record.origin or record.id
        raise StorageError(
            f"{here}: {where}: {_reason(error)}, and here it may be a mount that is missing (image {record.id!r} of "
            f"{shard.name})"
        ) from error
    except HeadraceError as error:
        raise type(error)(f"{here}: {error}") from error
    except OSError as error:
        raise StorageError(f"{here}: {error.filename or shard.name}: {_reason(error)}") from error
    except Exception as error:
        error.add_note(f"on {here}, for {shard.name}:\n{traceback.format_exc()}")
        raise
    return result


def put(sink: Sink, scratch: Path, result: ShardResult) -> None:
    """Puts the files of a shard, which lie in `scratch`, where they belong. Raises StorageError."""
    for name in (result.entry.index_name, result.entry.name):
        sink.put(scratch / name, name)


def _while_wanted(made: Iterator[Made | Numbered], scratch: Path) -> Iterator[Made | Numbered]:
    """These, until the folder to write in is taken away: the packing has ended, and not every engine ends its tasks.
    Raises StorageError."""
    for i, item in enumerate(made):
        if i % _LOOKS == 0 and not scratch.exists():
            raise StorageError(f"{scratch}: is gone, as the packing has ended")
        yield item


_LOOKS = 64  # records between two looks


class _Unread(Exception):
    """(OSError, Record): an image that could not be read here."""


def _reader(base: str, last: bool) -> Callable[[Record], bytes]:
    """Reads the bytes of a record whose paths are relative to the folder `base`."""

    def read(record: Record) -> bytes:
        try:
            return _located(record, base).read()
        except StorageError:
            raise
        except OSError as error:
            if last:
                raise
            raise _Unread(error, record) from error

    return read


def _located(record: Record, base: str) -> Record:
    if record.path is not None:
        return replace(record, path=_absolute(record.path, base))
    if record.part is not None:
        return replace(record, part=replace(record.part, path=_absolute(record.part.path, base)))
    return record


def _absolute(path: str, base: str) -> str:
    return path if is_url(path) else os.path.join(base, path)  # noqa: PTH118


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
