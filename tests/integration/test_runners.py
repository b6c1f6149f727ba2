"""Packing on engines: the same bytes as here, whoever dies; what fails is tried elsewhere, and errors say where."""

from __future__ import annotations

import functools
import logging
import platform
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
import stored
from drawn import files, photos
from headrace.errors import DataError, EngineError, HeadraceError, MissingExtraError, StorageError, UsageError
from headrace.packing.runners import ShardResult, Tasks, make_shard
from headrace.packing.runners import engine as engines
from headrace.packing.runners.engine import TRIES, Attempt, attempt
from headrace.packing.task import Task
from headrace.place import publication, publish
from killing import Full, Killing, KillingStore, puts
from packed_there import OPTIONS, PATTERN, SHARDS, headrace_process, interrupted_by, shard, source_of, state

# Workers die: before the first file of a shard, between its two, and after both, when only the result is missing.
DEATHS = {shard(1, "idx"): "before", shard(2): "before", shard(4): "after"}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Of a local cluster of two processes. Who dies there is started again."""
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    local = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )
    with local, distributed.Client(local) as client:
        yield client


# --- Dask ------------------------------------------------------------------------------------------------------------


def test_dask_with_workers_killed(
    pictures: Path, packed_here: dict[str, bytes], out: Path, marks: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Killing, marks=marks, deaths=DEATHS))
    report = hr.pack(source_of(pictures), out, runner=hr.runners.dask(client), **OPTIONS)
    assert {path.name.removeprefix("once-") for path in marks.iterdir()} == {*DEATHS, "puts"}
    assert state(out) == packed_here
    assert [path.name for path in out.parent.iterdir()] == ["ds"]
    assert len(puts(marks)) > 2 * SHARDS  # what was there already was put again
    assert (report.seen, report.stored, len(report.rejects)) == (62, 60, 2)


def test_dask_packs_into_a_store(
    pictures: Path, packed_here: dict[str, bytes], marks: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys and its address go to the workers with the tasks."""
    with stored.s3() as endpoint:
        bucket = stored.bucket(endpoint, monkeypatch)
        sink = functools.partial(KillingStore, marks=marks, deaths={shard(2): "before", shard(4): "after"})
        monkeypatch.setattr(publication, "StoreSink", sink)
        options: dict[str, Any] = {"storage_options": {key.lower(): value for key, value in bucket.environment.items()}}
        hr.pack(source_of(pictures), f"{bucket.url}/ds", runner=hr.runners.dask(client), **OPTIONS, **options)
        assert len([*marks.iterdir()]) == 2
        assert {key.removeprefix("ds/"): data for key, data in bucket.objects.items()} == packed_here


def test_a_local_dask_by_the_command(pictures: Path, packed_here: dict[str, bytes], out: Path) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    words = ["pack", str(pictures), str(out), "--format", "names", "--pattern", PATTERN, "--max-rejects", "50%"]
    words += ["--shards", str(SHARDS), "--runner", "dask", "--workers", "1"]
    done = headrace_process(words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "62 seen = 60 stored + 2 rejected" in done.stdout and state(out) == packed_here


def test_interrupted_on_dask(pictures: Path, out: Path) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    interrupted_by("dask", pictures, out)


def test_too_many_rejects_end_the_job(
    out: Path, marks: Path, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Killing, marks=marks, deaths={}))
    folder = files(tmp_path / "bad", {f"cat.{i:02d}.jpg": b"no image" for i in range(40)})
    with pytest.raises(DataError, match=r"1 of 40 records are rejected, 0 are allowed"):
        hr.pack(source_of(folder), out, runner=hr.runners.dask(client), **OPTIONS | {"max_rejects": 0, "shards": 40})
    assert len({name for name in puts(marks) if name.endswith(".tfrecord")}) < 20
    assert not [*out.parent.iterdir()]


def test_a_worker_of_another_version(pictures: Path, out: Path, client: Any) -> None:
    from headrace.packing import task

    def other() -> None:
        from headrace.packing import task

        task.before = task.spoken
        task.spoken = lambda: ("0.0.1", "3.9")

    def same() -> None:
        from headrace.packing import task

        if hasattr(task, "before"):  # else it came back only now, after the kills of tests before this one
            task.spoken = task.before

    client.run(other)
    try:
        with pytest.raises(
            UsageError,
            match=rf"^{platform.node()}: has Headrace 0\.0\.1 in Python 3\.9, the packing was planned by Headrace "
            rf"{task.spoken()[0]} in Python {task.spoken()[1]}; install the same versions on all machines$",
        ):
            hr.pack(source_of(pictures), out, runner=hr.runners.dask(client), **OPTIONS)
    finally:
        client.run(same)
    assert not [*out.parent.iterdir()]


def test_no_scheduler_there(pictures: Path, out: Path) -> None:
    pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EngineError, match=r"^tcp://127\.0\.0\.1:1: no Dask scheduler answers there: "),
    ):
        hr.pack(source_of(pictures), out, runner=hr.runners.dask("tcp://127.0.0.1:1"), **OPTIONS)
    assert not [*out.parent.iterdir()]


# --- what any engine's tasks meet ------------------------------------------------------------------------------------


class Here:
    """An Engine of this process: nodes "a", "b", ... by turns, and the first of what runs is done when it is asked for.
    `lost` tasks end as those of workers that die."""

    def __init__(self, width: int = 2, nodes: str = "ab", lost: int = 0) -> None:
        self.cores, self.nodes, self.lost = width, nodes, lost
        self.begun: list[tuple[str, bool, str]] = []
        self.cancelled: list[Any] = []
        self.most = 0

    def width(self) -> int:
        return self.cores

    def submit(self, task: Task, last: bool, avoid: Collection[str]) -> Any:
        others = [node for node in self.nodes if node not in avoid] or [*self.nodes]
        node = others[len(self.begun) % len(others)]
        self.begun.append((task.shard, last, node))
        self.running = {**getattr(self, "running", {}), len(self.begun): (task, last, node)}
        return len(self.begun)

    def first(self, running: Collection[Any]) -> tuple[Any, Attempt] | None:
        assert set(running) == self.running.keys()
        self.most = max(self.most, len(self.running))
        handle = min(self.running)
        task, last, node = self.running.pop(handle)
        if self.lost:
            self.lost -= 1
            return handle, Attempt("", EngineError("a worker died"))
        return handle, attempt(task, last, node)

    def cancel(self, running: Collection[Any]) -> None:
        self.cancelled += running


def on(engine: Any) -> Callable[[Tasks], Iterator[ShardResult]]:
    return functools.partial(engines.run, engine)


def test_so_many_at_once_and_no_more(pictures: Path, packed_here: dict[str, bytes], out: Path) -> None:
    engine = Here(width=3)
    hr.pack(source_of(pictures), out, runner=on(engine), **OPTIONS)
    assert state(out) == packed_here
    assert engine.most == 6 and len(engine.begun) == SHARDS and not engine.cancelled
    assert not any(last for _, last, _ in engine.begun)


def test_a_cluster_without_workers_is_waited_for_aloud(
    pictures: Path, packed_here: dict[str, bytes], out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that grows by demand; what is there then has work at once."""

    class Grows(Here):
        waited = 0

        def first(self, running: Collection[Any]) -> tuple[Any, Attempt] | None:
            if self.waited < 3:
                self.waited += 1
                self.cores = 4 if self.waited == 3 else 0
                return None
            return super().first(running)

    engine = Grows(width=0)
    hr.pack(source_of(pictures), out, runner=on(engine), **OPTIONS)
    assert state(out) == packed_here and engine.most == 4 * engines.AHEAD
    assert [one.message for one in caplog.records if "workers" in one.message] == [
        "the cluster has no workers; waiting until it has some, Ctrl-C gives up"
    ]


def test_a_scheduler_without_workers(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    monkeypatch.setattr(engines, "WAIT", 0.05)
    options = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, **options) as local:

        def starts() -> None:
            stored.until(lambda: "the cluster has no workers" in caplog.text)
            local.scale(1)

        starting = threading.Thread(target=starts)
        starting.start()
        report = hr.pack(source_of(pictures), out, runner=hr.runners.dask(local.scheduler_address), **OPTIONS)
        starting.join()
    assert report.stored == 60


def test_what_an_engine_gives_up_is_begun_again(pictures: Path, packed_here: dict[str, bytes], out: Path) -> None:
    engine = Here(width=1, lost=TRIES - 1)  # by turns of the first two shards
    hr.pack(source_of(pictures), out, runner=on(engine), **OPTIONS)
    assert state(out) == packed_here and len(engine.begun) == SHARDS + TRIES - 1
    with pytest.raises(EngineError, match=r"^a worker died; 4 tries, on other machines where there are some, have"):
        hr.pack(source_of(pictures), out.parent / "again", runner=on(Here(width=1, lost=100)), **OPTIONS)
    assert [path.name for path in out.parent.iterdir()] == ["ds"]


def test_a_disk_that_is_full_once(
    pictures: Path, packed_here: dict[str, bytes], out: Path, marks: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Full, marks=marks, shard=shard(3)))
    hr.pack(source_of(pictures), out, runner=hr.runners.dask(client), **OPTIONS)
    assert state(out) == packed_here and puts(marks).count(shard(3)) == 2


def test_a_disk_that_stays_full(
    pictures: Path, out: Path, marks: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "FolderSink", functools.partial(Full, marks=marks, shard=shard(3), always=True))
    with pytest.raises(StorageError, match=rf"^{platform.node()}: .*{shard(3)}: no space left on device; 4 tries, on "):
        hr.pack(source_of(pictures), out, runner=hr.runners.dask(client), **OPTIONS)
    assert puts(marks).count(shard(3)) == TRIES
    assert not [*out.parent.iterdir()]


def test_a_file_system_without_room(tmp_path: Path) -> None:
    large = photos(tmp_path / "photos", 40, side=160)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"can't mount a small disk here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StorageError, match=rf"^{platform.node()}: .*: no space left on device"):
            hr.pack(source_of(large), disk / "ds", runner=on(Here()), shards=4, progress=False)
        assert not [*disk.iterdir()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


class Appears(logging.Handler):
    """A mount that comes when a try has failed."""

    def __init__(self, away: Path, path: Path) -> None:
        super().__init__(logging.WARNING)
        self.away, self.path = away, path
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if self.away.exists():
            self.away.rename(self.path)


def test_a_mount_that_one_worker_lacks(tmp_path: Path, out: Path) -> None:
    """It is tried on another node, and then no image is missing."""
    folder = photos(tmp_path / "photos", 24)
    hr.pack(source_of(folder), tmp_path / "here" / "ds", shards=3, progress=False)
    source = [*source_of(folder)]
    away = folder.rename(tmp_path / "away")
    handler = Appears(away, folder)
    logging.getLogger("headrace").addHandler(handler)
    engine = Here(width=1)
    try:
        hr.pack(source, out, shards=3, runner=on(engine), progress=False)
    finally:
        logging.getLogger("headrace").removeHandler(handler)
    assert state(out) == state(tmp_path / "here" / "ds")
    (said,) = handler.said
    assert said.startswith(f"trying again: {platform.node()}: {folder}/") and "no such file or directory" in said
    first, again = [(last, node) for name, last, node in engine.begun if name == engine.begun[0][0]]
    assert (first[0], again[0]) == (False, False) and first[1] != again[1]


def test_an_image_that_is_nowhere_is_a_reject(tmp_path: Path, out: Path) -> None:
    """But only in the last try; and it is the same Reject that threads of this process make at once."""
    folder = photos(tmp_path / "photos", 24)
    source = [*source_of(folder)]
    (folder / "cat.6.jpg").unlink()
    hr.pack(source, tmp_path / "here" / "ds", shards=3, progress=False)
    engine = Here(width=1, nodes="abcd")
    report = hr.pack(source, out, shards=3, runner=on(engine), progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")
    assert [str(reject) for reject in report.rejects] == [f"{folder / 'cat.6.jpg'}: no such file or directory (read)"]
    tried = [(last, node) for name, last, node in engine.begun if sum(name == one[0] for one in engine.begun) > 1]
    assert [last for last, _ in tried] == [False] * (TRIES - 1) + [True]
    assert len({node for _, node in tried}) == TRIES


def test_paths_are_those_of_where_it_was_planned(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos", 12)
    monkeypatch.chdir(tmp_path)
    hr.pack(source_of(Path("photos")), tmp_path / "here" / "ds", shards=2, progress=False)

    def elsewhere(tasks: Tasks) -> Iterator[ShardResult]:
        made = [*tasks]
        with monkeypatch.context() as moved:
            moved.chdir("/")
            yield from map(make_shard, made)

    hr.pack(source_of(Path("photos")), out, shards=2, runner=elsewhere, progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")


def test_two_tries_at_once(
    pictures: Path, packed_here: dict[str, bytes], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the same shard at the same moment, and put it when both are ready."""
    ready = threading.Barrier(2)
    put = publish.FolderSink.put

    def together(self: publish.FolderSink, path: Path, name: str) -> None:
        ready.wait(300)
        put(self, path, name)

    def twice(tasks: Tasks) -> Iterator[ShardResult]:
        with ThreadPoolExecutor(2) as pool:
            for task in tasks:
                one, other = pool.map(make_shard, [task, task])
                assert one == other
                yield from (one, other)

    monkeypatch.setattr(publish.FolderSink, "put", together)
    report = hr.pack(source_of(pictures), out, runner=twice, **OPTIONS)
    assert state(out) == packed_here and report.stored == 60


def test_a_try_that_comes_too_late(pictures: Path, packed_here: dict[str, bytes], out: Path) -> None:
    """A node that was given up and lives on writes nothing into what is published."""
    late: list[Task] = []

    def runner(tasks: Tasks) -> Iterator[ShardResult]:
        late.extend(tasks)
        yield from map(make_shard, late)

    hr.pack(source_of(pictures), out, runner=runner, **OPTIONS)
    with pytest.raises(StorageError, match=r"no such file or directory"):
        make_shard(late[0])
    assert state(out) == packed_here and [path.name for path in out.parent.iterdir()] == ["ds"]


def test_a_task_ends_when_the_packing_has(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As engines can't end every task that runs: it sees that its folder is gone, long before its shard is whole."""
    from headrace.packing import task

    made: list[int] = []
    make = task.make_record

    def makes(*arguments: Any) -> Any:
        made.append(1)
        if len(made) == 10:
            sink.close()
        return make(*arguments)

    folder = photos(tmp_path / "photos", 200, side=8)
    monkeypatch.setattr(task, "make_record", makes)
    sink = publish.FolderSink(out)
    out.mkdir()
    sink.open()

    def runner(tasks: Tasks) -> Iterator[ShardResult]:
        tasks._sink = sink
        return map(make_shard, tasks)

    with pytest.raises(StorageError, match=r": is gone, as the packing has ended$"):
        hr.pack(source_of(folder), out.parent / "ds2", runner=runner, shards=1, progress=False)
    assert len(made) == 65 and not [*out.iterdir()]


@pytest.mark.parametrize("kind", [DataError, UsageError, StorageError])
def test_errors_keep_their_type_and_name_the_machine(
    kind: type[HeadraceError], pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise kind("no good")

    engine = Here()
    monkeypatch.setattr("headrace.packing.task.pack_shard", fails)
    with pytest.raises(kind, match=rf"^{platform.node()}: no good"):
        hr.pack(source_of(pictures), out, runner=on(engine), **OPTIONS)
    assert len(engine.cancelled) > 0 and not [*out.parent.iterdir()]


def test_an_error_that_can_not_travel_is_told(pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def fails(*_: Any) -> Any:
        raise Odd("here")

    monkeypatch.setattr("headrace.packing.task.pack_shard", fails)
    with pytest.raises(RuntimeError, match=r"^Odd: here$"):
        hr.pack(source_of(pictures), out, runner=on(Here()), **OPTIONS)


def test_a_runner_is_closed_when_a_packing_fails(tmp_path: Path, out: Path) -> None:
    folder = files(tmp_path / "bad", {f"cat.{i}.jpg": b"no image" for i in range(8)})
    closed: list[bool] = []

    def runner(tasks: Tasks) -> Iterator[ShardResult]:
        try:
            yield from map(make_shard, tasks)
        finally:
            closed.append(True)

    with pytest.raises(DataError, match="rejected") as caught:
        hr.pack(source_of(folder), out, runner=runner, **OPTIONS | {"max_rejects": 0})
    assert closed == [True] and caught.tb is not None  # which holds the generator, so that nothing else closes it


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_workers_are_of_threads(pictures: Path, out: Path) -> None:
    with pytest.raises(UsageError, match=r"^workers is 3: it is for threads of this process"):
        hr.pack(source_of(pictures), out, runner=on(Here()), workers=3, **OPTIONS)


@pytest.mark.parametrize(("runner", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_an_engine_that_is_not_installed(runner: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"^{runner} is not installed: pip install 'headrace\[{runner}\]'$"):
        getattr(hr.runners, runner)()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runner", "slurm"], "--runner 'slurm': wanted threads, ray or dask"),
        (["--address", "x:1"], "--address x:1: wanted with --runner ray or --runner dask, the runner is threads"),
        (
            ["--runner", "dask", "--address", "x:1", "--workers", "2"],
            "--workers is 2: it is for a local cluster, and x:1 has its own",
        ),
    ],
)
def test_words_that_mean_no_runner(words: list[str], said: str, pictures: Path, out: Path) -> None:
    from command import headrace

    if "dask" in words:
        pytest.importorskip("distributed", reason="needs Dask: pip install 'headrace[dask]'")
    done = headrace("pack", pictures, out, "--format", "names", "--pattern", PATTERN, *words)
    assert (done.code, done.out, done.err) == (2, "", f"headrace: {said}\n")
