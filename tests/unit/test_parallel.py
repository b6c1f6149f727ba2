"""Threads: results in the order of the work, how much is begun ahead, and what stays of them when one leaves."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace import parallel
from packed import threads, threads_left

LIMIT = 120  # seconds, after which what should have come is not coming


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threads()
    yield
    assert not threads_left(before)


@pytest.mark.parametrize("workers", [1, 3, parallel.Pool(2)])
@pytest.mark.parametrize("ahead", [0, 1, 7, 100])
def test_results_come_in_the_order_of_the_work(workers: int | parallel.Pool, ahead: int) -> None:
    assert list(parallel.ordered(lambda k: k * k, range(20), workers=workers, ahead=ahead)) == [
        k * k for k in range(20)
    ]
    if isinstance(workers, parallel.Pool):
        workers.close()


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_is_begun_than_asked(ahead: int) -> None:
    asked: list[int] = []

    def work() -> Iterator[int]:
        for k in range(30):
            asked.append(k)
            yield k

    results = parallel.ordered(lambda k: k, work(), workers=2, ahead=ahead)
    assert asked == []
    for k in results:
        assert asked == list(range(min(30, k + 1 + ahead)))


@pytest.mark.parametrize("shared", [False, True])
def test_leaving_cancels_what_waits_and_waits_for_what_runs(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = [], []
    running, go_on = threading.Event(), threading.Event()
    wait = parallel.wait

    def work(k: int) -> int:
        begun.append(k)
        if k:
            running.set()
            assert go_on.wait(LIMIT)
        ended.append(k)
        return k

    def waited_for(futures: Any) -> Any:  # what runs goes on only now, when nothing that waits can begin any more
        go_on.set()
        return wait(futures)

    pool = parallel.Pool(1)
    results = parallel.ordered(work, range(20), workers=pool if shared else 1, ahead=10)
    assert next(results) == 0 and running.wait(LIMIT)
    monkeypatch.setattr(parallel, "wait", waited_for)
    results.close()
    assert begun == ended == [0, 1]
    pool.close()


def test_an_exception_comes_in_its_turn_and_nothing_runs_on() -> None:
    pool, ended = parallel.Pool(2), []

    def work(k: int) -> int:
        if k == 3:
            raise KeyError(k)
        ended.append(k)
        return k

    seen: list[int] = []
    with pytest.raises(KeyError):
        seen.extend(parallel.ordered(work, range(50), workers=pool, ahead=4))
    assert seen == [0, 1, 2] and len(ended) <= 8
    assert list(parallel.ordered(lambda k: k, range(3), workers=pool, ahead=1)) == [0, 1, 2]  # the pool is as it was


def test_an_interrupt_leaves_nothing_running_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes while the first result is waited for: its work is waited for, too, before anybody goes on."""
    running, go_on = threading.Event(), threading.Event()
    ended: list[int] = []

    def work(k: int) -> None:
        running.set()
        assert go_on.wait(LIMIT)
        sum(range(1_000_000))  # so that who does not wait is ahead
        ended.append(k)

    def interrupted(_: Future[None], timeout: float | None = None) -> None:
        assert running.wait(LIMIT)
        go_on.set()
        raise KeyboardInterrupt

    pool = parallel.Pool(1)
    with monkeypatch.context() as patched:
        patched.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(parallel.ordered(work, range(3), workers=pool, ahead=0))
    assert ended == [0]
    pool.close()


def test_a_pool_that_is_closed_between_two_steps_of_a_call_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = parallel.Pool(1)
    pool.submit(int).result()
    executor = pool._of_process[os.getpid()]
    submit = executor.submit

    def closed_meanwhile(*given: Any) -> Any:
        pool.close()
        return submit(*given)

    monkeypatch.setattr(executor, "submit", closed_meanwhile)
    assert pool.submit(int, "3").result(LIMIT) == 3
    pool.close()


def test_a_pool_has_the_same_threads_all_along() -> None:
    before, pool = threads(), parallel.Pool(3)
    used = set()
    for _ in range(50):
        used |= set(parallel.ordered(lambda _: threading.get_ident(), range(9), workers=pool, ahead=4))
    assert len(used) <= 3 and used <= {thread.ident for thread in threads() - before}


def test_one_pool_from_many_threads() -> None:
    before, pool = threads(), parallel.Pool(2)
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda k: pool.submit(pow, k, 2).result(), range(200)))
    assert found == [k * k for k in range(200)] and len(threads() - before) <= 2


def test_threads_end_with_the_last_reference() -> None:
    before, pool = threads(), parallel.Pool(3)
    pool.submit(int).result()
    assert threads() - before
    del pool
    assert not threads_left(before)


def test_a_pool_is_copied_as_its_number() -> None:
    pool = parallel.Pool(3)
    pool.submit(int).result()
    for other in (pickle.loads(pickle.dumps(pool)), copy.deepcopy(pool)):
        assert other.workers == 3 and other.submit(int).result() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """In a process of its own, which has no other threads. The child leaves the parent's iterator in its middle,
    where threads are at work that only the parent has: waiting for them would be for ever."""
    code = """
import os, sys, threading
from headrace import parallel
gate, running = threading.Event(), threading.Event()
def work(k):
    if k:
        running.set()
        gate.wait()
    return k
pool = parallel.Pool(2)
results = parallel.ordered(work, range(9), workers=pool, ahead=3)
next(results)
running.wait()
child = os.fork()
if not child:
    found = list(parallel.ordered(abs, range(5), workers=pool, ahead=2))
    del results
    sys.exit(0 if found == [0, 1, 2, 3, 4] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
gate.set()
print(list(results))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == "[1, 2, 3, 4, 5, 6, 7, 8]\n", done.stderr


def test_idle_threads_do_not_keep_the_interpreter() -> None:
    code = "from headrace import parallel; pool = parallel.Pool(2); pool.submit(int).result(); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert (done.stdout, done.returncode) == ("end\n", 0)


# --- containers ------------------------------------------------------------------------------------------------------

GB = 1 << 30
V2, V1 = "0::/app/job\n", "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n1:name=systemd:/x\n"
# (what /proc/self/cgroup says, files under /sys/fs/cgroup, memory of 64 GB, cores of 16)
CONTAINERS: list[tuple[str | None, dict[str, str], int, int]] = [
    (None, {"memory.max": "1\n"}, 64 * GB, 16),
    (V2, {}, 64 * GB, 16),
    ("0::/\n", {"memory.max": f"{8 * GB}\n", "cpu.max": "200000 100000\n"}, 8 * GB, 2),
    ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, 64 * GB, 16),
    ("0::/\n", {"memory.max": f"{80 * GB}\n", "cpu.max": "3200000 100000\n"}, 64 * GB, 16),
    (V2, {"app/job/memory.max": "max\n", "app/memory.max": f"{GB}\n", "app/job/cpu.max": "150000 100000\n"}, GB, 2),
    (V2, {"app/job/memory.max": f"{2 * GB}\n", "app/memory.max": f"{3 * GB}\n", "app/cpu.max": "1 100000"}, 2 * GB, 1),
    (V2, {"other/memory.max": "1\n", "app/job/memory.max": "\n", "app/job/cpu.max": "?\n"}, 64 * GB, 16),
    ("0::/../..\n", {"memory.max": f"{GB}\n"}, GB, 16),
    (
        V1,
        {
            "memory/docker/ab/memory.limit_in_bytes": f"{4 * GB}\n",
            "cpu/docker/ab/cpu.cfs_quota_us": "300000\n",
            "cpu/docker/ab/cpu.cfs_period_us": "100000\n",
        },
        4 * GB,
        3,
    ),
    # as Docker shows it inside: the container's own folder is the root, and the path is the machine's
    (V1, {"memory/memory.limit_in_bytes": f"{4 * GB}\n", "cpu/cpu.cfs_quota_us": "-1\n"}, 4 * GB, 16),
    (V1, {"memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n"}, 64 * GB, 16),
    (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64 * GB, 16),
    ("4:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": f"{GB}\n", "cpu.max": "400000 100000\n"}, GB, 4),
]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 GB and 16 cores, whose cgroups are in the folder."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * GB // 4096}.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(parallel, "_CGROUP", tmp_path / "self")
    monkeypatch.setattr(parallel, "_CGROUPS", tmp_path / "cgroup")
    return tmp_path


@pytest.mark.parametrize(("said", "files", "memory", "cores"), CONTAINERS)
def test_a_containers_limits_hold(
    machine: Path, said: str | None, files: dict[str, str], memory: int, cores: int
) -> None:
    if said is not None:
        (machine / "self").write_text(said)
    for name, text in files.items():
        (machine / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / "cgroup" / name).write_text(text)
    assert (parallel.memory(), parallel.check_workers(None)) == (memory, cores)
    assert parallel.check_workers(40) == 40  # who says it is believed


# (how many are wanted, bytes of each, how many on 64 GB)
AHEAD = [(3, 1, 3), (65, 154 << 20, 65), (65, GB, 15), (65, 8 * GB, 1), (65, 100 * GB, 1), (2, 0, 2)]


@pytest.mark.parametrize(("wanted", "size", "ahead"), AHEAD)
def test_what_is_made_ahead_has_a_limit_of_bytes(machine: Path, wanted: int, size: int, ahead: int) -> None:
    assert parallel.ahead(wanted, size) == ahead
    assert (ahead + 1) * size <= 16 * GB or ahead == 1


@pytest.mark.parametrize("own", [False, True], ids=["shared", "its own"])
def test_an_iterator_in_a_cycle_that_its_own_thread_collects(own: bool) -> None:
    """It waits for what runs, and that is who collects it: it would wait for itself."""
    pool, left, collected = parallel.Pool(1), threading.Event(), threading.Event()

    def work(i: int) -> int:
        if i:
            left.wait(LIMIT)
            gc.collect()
            collected.set()
        return i

    class Cycle:
        def __init__(self) -> None:
            self.made = parallel.ordered(work, range(9), workers=1 if own else pool, ahead=2)
            self.me = self

    gc.disable()
    try:
        assert next(Cycle().made) == 0
        left.set()
        assert collected.wait(LIMIT)
    finally:
        gc.enable()
    assert pool.submit(int).result(LIMIT) == 0
    pool.close()


def test_a_pool_takes_no_work_when_the_interpreter_ends() -> None:
    """Its threads learn of that while they are waited for."""
    code = """
import threading
from headrace.parallel import Pool
pool = Pool(1)

def run():
    while pool.takes_work:
        threading.Event().wait(0.001)
    print("ended")

assert pool.takes_work
pool.submit(run)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")
