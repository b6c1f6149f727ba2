"""Files and folders: whole or not at all, synced before they are published, and never anyone else's."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import gc
import hashlib
import itertools
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn import files
from headrace.errors import StorageError, UsageError
from headrace.place import local, lock, publish
from headrace.place.local import LocalPlace
from packed import threads
from stored import until

MARK = "mark.json"


def staging(out: Path, *, overwrite: bool = False) -> publish.Staging:
    return publish.Staging(out, overwrite=overwrite, replaceable=MARK)


def published(out: Path, content: bytes, *, overwrite: bool = False) -> None:
    with staging(out, overwrite=overwrite) as folder:
        (folder / MARK).write_bytes(content)


def content(folder: Path) -> dict[str, bytes]:
    """All files below `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["out", "a b", "[a]*?", ".hidden", "ü", "deep/er/out"])
def test_what_is_published_is_all_there_is(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    with staging(out) as folder:
        assert folder.parent == out.parent and folder.name.startswith(".")
        (folder / MARK).write_bytes(b"1")
        assert not out.exists()
    assert content(tmp_path) == {f"{name}/{MARK}": b"1"}
    published(out, b"2", overwrite=True)
    assert content(tmp_path) == {f"{name}/{MARK}": b"2"}
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    published(tmp_path / "out", b"1")
    assert content(tmp_path) == {f"out/{MARK}": b"1"}


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_exception_leaves_what_was(error: BaseException, old: bytes | None, tmp_path: Path) -> None:
    if old:
        published(tmp_path / "out", old)
    before = content(tmp_path)

    def work() -> None:
        with staging(tmp_path / "out", overwrite=True) as folder:
            (folder / MARK).write_bytes(b"new")
            raise error

    with pytest.raises(type(error)):
        work()
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if old else [])


def test_an_oserror_becomes_one_clear_line(tmp_path: Path) -> None:
    def work(error: OSError) -> None:
        with staging(tmp_path / "out"):
            raise error

    with pytest.raises(StorageError, match=r"^/x/y: no space left on device; nothing was published$"):
        work(OSError(28, "No space left on device", "/x/y"))
    with pytest.raises(StorageError, match=f"^{tmp_path}/out: no space left on device; nothing was published$"):
        work(OSError(28, "No space left on device"))
    with pytest.raises(StorageError, match=r"^as it was$"):
        work(StorageError("as it was"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "overwrite", "says"),
    [
        (lambda out: files(out, {MARK: b"1"}), False, "holds a dataset already; pass overwrite=True to replace it"),
        (lambda out: files(out, {"x": b"1"}), False, "is a folder with other files in it"),
        (lambda out: files(out, {"x": b"1"}), True, "is a folder with other files in it"),
        (lambda out: files(out, {".x": b"1"}), True, "is a folder with other files in it"),
        (lambda out: files(out, {f"a/{MARK}": b"1"}), True, "is a folder with other files in it"),
        (lambda out: out.write_bytes(b"1"), True, "exists and is no folder; choose another place"),
        (lambda out: out.symlink_to("nowhere"), True, "exists and is no folder"),
        (lambda out: out.symlink_to(files(out.parent / "real", {MARK: b"1"})), True, "exists and is no folder"),
    ],
)
def test_what_is_in_the_way_stays(make: Any, overwrite: bool, says: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    before = content(tmp_path)
    with pytest.raises(UsageError, match=says):
        published(out, b"new", overwrite=overwrite)
    assert content(tmp_path) == before


def test_what_comes_in_the_way_meanwhile_stays_too(tmp_path: Path) -> None:
    def work() -> None:
        with staging(tmp_path / "out") as folder:
            (folder / MARK).write_bytes(b"new")
            files(tmp_path / "out", {MARK: b"from another process"})

    with pytest.raises(UsageError, match="holds a dataset already") as caught:
        work()
    (kept,) = tmp_path.glob("out.unpublished-*")
    assert f"nothing is lost: what was made lies in {kept}; verify it, and use it there, or rename it to" in str(
        caught.value
    )
    assert content(tmp_path) == {f"out/{MARK}": b"from another process", f"{kept.name}/{MARK}": b"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", kept.name]


def test_two_at_work_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staging(out, overwrite=True) as one:
        (one / "one").write_bytes(b"1")
        with staging(out, overwrite=True) as two:
            assert one != two and one.exists()
            (two / MARK).write_bytes(b"two")
        assert (one / "one").read_bytes() == b"1"
        (one / MARK).write_bytes(b"one")
    assert content(tmp_path) == {f"out/{MARK}": b"one", "out/one": b"1"}


@pytest.mark.parametrize("name", ["out", "[o]?*"])
def test_leftovers_of_the_killed_are_cleared(name: str, tmp_path: Path) -> None:
    tag = lock.tag()
    others = {
        f".{name}2.packing-{tag}": b"",
        f".other.packing-{tag}/x": b"",
        f"{name}.packing-{tag}": b"",
        f".ooo.packing-{tag}": b"",
        f".{name}.packing-mine/x": b"",
        f"{name}.unpublished-0123/x": b"",
    }
    leftovers = {f".{name}.packing-{tag}/half": b"x", f".{name}.replaced-0123/{MARK}": b"older"}
    files(tmp_path, {f"{name}/{MARK}": b"old", **leftovers, **others})
    published(tmp_path / name, b"new", overwrite=True)
    assert content(tmp_path) == {f"{name}/{MARK}": b"new", **others}


def test_an_old_one_caught_between_two_renames_is_put_back(tmp_path: Path) -> None:
    files(tmp_path, {f".out.replaced-0123/{MARK}": b"old", f".out.packing-{lock.tag()}/half": b""})
    assert publish.replaced_beside(tmp_path / "out") == tmp_path / ".out.replaced-0123"
    with pytest.raises(UsageError, match="holds a dataset already"):
        published(tmp_path / "out", b"new")
    assert content(tmp_path) == {f"out/{MARK}": b"old"}
    assert publish.replaced_beside(tmp_path / "out") is None


def test_a_tag_is_short_and_says_whose_it_is() -> None:
    machine, boot, pid, random = lock.tag().split("-")
    assert (len(machine), len(boot), int(pid), len(random)) == (8, 8, os.getpid(), 8)
    assert lock.tag() != lock.tag() and len(f".packing-{lock.tag()}") <= publish._LONGER - 1


NOBODY = 1 << 22  # more than any process's number


@pytest.mark.parametrize(
    ("machine", "boot", "hours", "locked", "folder", "file"),
    [
        # machine, boot, hours without a sign of life, locked: is a folder cleared, is a file
        ("here", "now", 0, False, True, True),
        ("here", "now", 9, True, False, False),
        ("container", "now", 0, False, True, True),
        ("container", "now", 9, True, False, False),
        ("here", "before", 0, False, True, True),
        ("other", "other", 0.9, False, False, False),
        ("other", "other", 1.1, False, True, False),
    ],
)
def test_whose_leftovers_are_cleared(
    machine: str, boot: str, hours: float, locked: bool, folder: bool, file: bool, tmp_path: Path
) -> None:
    here, now, _, random = lock.tag().split("-")
    tag = f"{here if machine == 'here' else '0' * 8}-{now if boot == 'now' else 'f' * 8}-{NOBODY}-{random}"
    half, new = tmp_path / f".out.packing-{tag}", tmp_path / f".state.json.new-{tag}"
    half.mkdir()
    new.write_bytes(b"")
    then = time.time() - hours * 3600
    with contextlib.ExitStack() as held:
        for path in (half, new):
            os.utime(path, (then, then))
            if locked:
                held.enter_context(lock.locked(path))
        published(tmp_path / "out", b"new")
        publish.write_atomic(tmp_path / "state.json", b"new")
        assert (not half.exists(), not new.exists()) == (folder, file)


def test_a_file_that_is_being_written_stays(tmp_path: Path) -> None:
    """It is made before it is locked; its writer is this very process."""
    mine = tmp_path / f".state.json.new-{lock.tag()}"
    mine.write_bytes(b"")
    publish.write_atomic(tmp_path / "state.json", b"1")
    assert mine.exists()


def test_a_leftover_that_vanishes_is_none(tmp_path: Path) -> None:
    """Between its name's being seen and its being opened: here it is a link to nowhere."""
    (tmp_path / f".out.packing-{lock.tag()}").symlink_to("nowhere")
    published(tmp_path / "out", b"1")
    assert content(tmp_path) == {f"out/{MARK}": b"1"}


def test_whoever_is_at_work_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.001)
    before = threads()
    with staging(tmp_path / "out") as folder:
        (folder / MARK).write_bytes(b"1")
        os.utime(folder, (0, 0))
        until(lambda: folder.stat().st_mtime > 0)
        assert [thread.name for thread in threads() - before] == ["headrace-beat"]
    assert not threads() - before


def test_a_lock_is_waited_for_aloud_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = itertools.count()  # each look at the clock takes a second, whatever this machine does meanwhile
    clock = SimpleNamespace(monotonic=now.__next__, sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr(lock, "time", clock)
    monkeypatch.setattr(lock, "QUIET", 2.0)
    monkeypatch.setattr(lock, "PATIENCE", 5.0)
    with (
        lock.locked(tmp_path),
        pytest.raises(StorageError, match=f"^{tmp_path}: .*process.* has held a lock on it for"),
    ):
        published(tmp_path / "out", b"1")
    (said,) = caplog.messages
    assert said.startswith(f"waiting for {tmp_path}, on which ") and "Ctrl-C gives up" in said
    if sys.platform == "linux":
        assert f"process {os.getpid()} (" in said
    published(tmp_path / "out", b"1")
    assert content(tmp_path) == {f"out/{MARK}": b"1"}


@pytest.mark.parametrize("names", ["fresh", "exchange", "renames"])
def test_nobody_clears_leftovers_while_names_change(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does holds the folder above; between two renames he would put the old one back."""
    out, seen = tmp_path / "out", []
    if names != "fresh":
        published(out, b"old")
    rename, exchange = Path.rename, publish.exchange

    def watched(*of: Path) -> None:
        handle = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(handle)
        seen.append(of)

    def watched_rename(self: Path, target: Path) -> Path:
        watched(self, target)
        return rename(self, target)

    def watched_exchange(one: Path, other: Path) -> bool:
        watched(one, other)
        return names == "exchange" and exchange(one, other)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", watched_rename)
        patched.setattr(publish, "exchange", watched_exchange)
        published(out, b"new", overwrite=True)
    assert seen and content(tmp_path) == {f"out/{MARK}": b"new"}


def test_without_locks_nobody_is_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none; then a leftover is cleared when it has been silent."""

    def refused(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refused)
    fresh, silent = (tmp_path / f".out.packing-{lock.tag()}" for _ in range(2))
    fresh.mkdir()
    silent.mkdir()
    os.utime(silent, (0, 0))
    published(tmp_path / "out", b"1")
    assert fresh.exists() and not silent.exists()


def test_a_name_too_long_is_known_before(tmp_path: Path) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - 44
    published(tmp_path / ("x" * most), b"1")
    published(tmp_path / ("x" * most), b"2", overwrite=True)
    for name in ("x" * (most + 1), "é" * (most // 2 + 1), "x" * 300):
        with pytest.raises(UsageError, match=f"a name of .* bytes, wanted at most {most} .*; choose a shorter one"):
            staging(tmp_path / name).__enter__()
    assert content(tmp_path) == {f"{'x' * most}/{MARK}": b"2"}


def test_a_mount_point_is_known_before(tmp_path: Path) -> None:
    """A folder mounted on another of the same file system, which os.path.ismount takes for none."""
    code = f"""
import subprocess, sys
from pathlib import Path
from headrace.errors import UsageError
from headrace.place import publish
root = Path(sys.argv[1])
for name, mounted in (("a b", ["-t", "tmpfs", "tmpfs"]), ("bound", ["--bind", root / "from"])):
    (root / name).mkdir()
    if subprocess.run(["mount", *mounted, root / name], stderr=subprocess.DEVNULL).returncode:
        print("no mounts")
        break
    try:
        with publish.Staging(root / name, overwrite=True, replaceable="{MARK}"):
            print("entered")
    except UsageError as error:
        print(error)
"""
    (tmp_path / "from").mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("mounts need unshare")
    command = ["unshare", "-m", "-r", sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode or done.stdout == "no mounts\n":
        pytest.skip(f"this system lets nobody mount: {done.stderr[:80]}")
    wanted = "is a mount point, which no rename replaces; choose a folder in it"
    assert done.stdout.splitlines() == [f"{tmp_path}/{name}: {wanted}" for name in ("a b", "bound")]
    assert not list(tmp_path.glob(".*"))


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    """Told from one that is at work: its folder goes, the other's stays."""
    code = f"""
import os, sys
from pathlib import Path
from headrace.place import local, publish
with publish.Staging(Path(sys.argv[1]), overwrite=False, replaceable="{MARK}") as folder:
    (folder / "half").write_bytes(b"")
    print(folder, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        half = Path(other.stdout.readline().strip())
        published(tmp_path / "out", b"1")
        assert half.exists()
        other.kill()
        other.wait()
        assert half.exists()
        published(tmp_path / "out", b"2", overwrite=True)
        assert not half.exists()


@pytest.mark.parametrize("exchanges", [True, False])
def test_everything_is_on_disk_before_it_is_published(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order in which a power cut could strike: each file and folder is synced before the rename that shows it."""
    published(tmp_path / "out", b"old")
    steps: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def spied_fsync(handle: int) -> None:
        steps.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name.split("-")[0]))
        fsync(handle)

    def spied_rename(self: Path, target: Path) -> Path:
        steps.append(("rename", Path(target).name.split("-")[0]))
        return rename(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("names of open files are told by /proc, which this system lacks")
    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(Path, "rename", spied_rename)
    if not exchanges:
        monkeypatch.setattr(publish, "exchange", lambda one, other: False)
    with staging(tmp_path / "out", overwrite=True) as folder:
        with publish.HashedFile(folder / "shard") as file:
            file.write(b"x")
            file.close()
        (folder / MARK).write_bytes(b"new")
    assert sorted(steps[:2]) == [("sync", MARK), ("sync", "shard")]
    assert steps[2:] == [
        ("sync", ".out.packing"),
        *([] if exchanges else [("rename", ".out.replaced"), ("rename", "out"), ("rename", ".out.packing")]),
        ("sync", tmp_path.name.split("-")[0]),
    ]


@pytest.mark.parametrize("step", ["exchange", "first rename", "second rename", "sync", "last sync", "first sync"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failing_publish_leaves_the_old_and_keeps_the_new(
    step: str, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if old is not None:
        published(out, old)
    elif step in ("exchange", "second rename"):
        pytest.skip("there is nothing to exchange")
    fails_at = {"first rename": 1, "second rename": 2, "first sync": 1, "sync": 2, "last sync": 3}.get(step, 0)
    kind = step.split()[-1]
    done = 0

    def failing(do: Callable[..., Any]) -> Callable[..., Any]:
        def done_or_not(*arguments: Any) -> Any:
            nonlocal done
            done += 1
            if done == fails_at or step == "exchange":
                raise OSError(5, "Input/output error")
            return do(*arguments)

        return done_or_not

    if kind == "exchange":
        monkeypatch.setattr(publish, "exchange", failing(publish.exchange))
    elif kind == "rename":
        monkeypatch.setattr(publish, "exchange", lambda one, other: False)
        monkeypatch.setattr(Path, "rename", failing(Path.rename))
    else:
        monkeypatch.setattr(os, "fsync", failing(os.fsync))
    with pytest.raises(StorageError, match=r"input/output error\nnothing is lost: what was made lies in ") as caught:
        published(out, b"new", overwrite=True)
    monkeypatch.undo()
    (kept,) = tmp_path.glob("out.unpublished-*")
    assert str(kept) in str(caught.value)
    was = {} if old is None else {f"out/{MARK}": old}
    assert content(tmp_path) == {**was, f"{kept.name}/{MARK}": b"new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, *(["out"] if old else [])])


def test_what_cannot_even_be_renamed_is_kept_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(StorageError, match="read-only file system\nnothing is lost") as caught:
        published(tmp_path / "out", b"new")
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(caught.value) and content(kept) == {MARK: b"new"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names")
def test_names_are_exchanged_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = files(tmp_path / "one", {"x": b"1"}), files(tmp_path / "other", {"x": b"2"})
    steps: list[str] = []
    monkeypatch.setattr(sys, "audit", lambda event, *_: steps.append(event))
    assert publish.exchange(one, other)
    assert ((one / "x").read_bytes(), (other / "x").read_bytes()) == (b"2", b"1") and steps == ["os.rename"]
    with pytest.raises(FileNotFoundError):
        publish.exchange(one, tmp_path / "none")
    for code in (errno.ENOSYS, errno.EINVAL):
        monkeypatch.setattr("ctypes.get_errno", lambda code=code: code)
        monkeypatch.setattr(publish, "_renameat2", lambda: lambda *_: -1)
        assert not publish.exchange(one, other)
    monkeypatch.setattr(publish, "_renameat2", lambda: None)
    assert not publish.exchange(one, other)


def test_write_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    publish.write_atomic(path, b"1")
    publish.write_atomic(path, b"22")
    assert content(tmp_path) == {"state.json": b"22"}

    def failing(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match=f"^{path}: no space left on device$"):
        publish.write_atomic(path, b"333")
    assert content(tmp_path) == {"state.json": b"22"}


def test_write_atomic_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or directory"):
        publish.write_atomic(tmp_path / "none" / "x", b"")


def test_hashed_file(tmp_path: Path) -> None:
    parts = [b"", b"a" * 10, os.urandom(3 << 20), b"z"]
    with publish.HashedFile(tmp_path / "x") as file:
        for part in parts:
            file.write(part)
        assert file.size == sum(map(len, parts))
        digest = file.close()
    whole = b"".join(parts)
    assert (tmp_path / "x").read_bytes() == whole
    assert digest == hashlib.sha256(whole).hexdigest() == local.digest(tmp_path / "x")


# --- files that move in ----------------------------------------------------------------------------------------------


def moved_in(folder: Path, **written: bytes) -> None:
    with publish.Scratch(folder, "catalog") as scratch:
        for name, data in written.items():
            (scratch / name).write_bytes(data)


def test_files_move_in_when_all_are_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "other").write_bytes(b"other")
    with publish.Scratch(tmp_path, "catalog") as scratch:
        (scratch / "a").write_bytes(b"new")
        (scratch / "b").write_bytes(b"b")
        assert scratch.parent == tmp_path and scratch.name.startswith(".")
        assert (tmp_path / "a").read_bytes() == b"old" and not (tmp_path / "b").exists()
    assert content(tmp_path) == {"a": b"new", "b": b"b", "other": b"other"}
    assert len([*tmp_path.iterdir()]) == 3


def test_files_that_are_not_all_written_vanish(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail() -> None:
        with publish.Scratch(tmp_path, "catalog") as scratch:
            (scratch / "a").write_bytes(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert content(tmp_path) == {"a": b"old"} and len([*tmp_path.iterdir()]) == 1


def test_files_that_can_not_be_synced_do_not_move_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(publish, "sync", full)
        with pytest.raises(StorageError, match=f"^{tmp_path}: no space left on device$"):
            moved_in(tmp_path, a=b"new")
    assert [*tmp_path.iterdir()] == []
    moved_in(tmp_path, a=b"new")
    assert content(tmp_path) == {"a": b"new"}


def test_what_the_killed_left_of_files_is_cleared(tmp_path: Path) -> None:
    left, other = tmp_path / f".catalog.writing-{lock.tag()}", tmp_path / f".index.writing-{lock.tag()}"
    for folder in (left, other):
        folder.mkdir()
        (folder / "a").write_bytes(b"half")
    with publish.Scratch(tmp_path, "catalog"):
        moved_in(tmp_path, b=b"b")  # beside one that is at work
        assert len([*tmp_path.glob(".catalog.writing-*")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "b"])


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> local.Descriptors:
    """At most eight files are open at a time."""
    made = local.Descriptors(8)
    monkeypatch.setattr(local, "_files", made)
    return made


def numbered(folder: Path, n: int = 300) -> LocalPlace:
    """A folder of files, each of which holds its number, many times."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        (folder / f"{i}").write_bytes(struct.pack("<I", i) * 1000)
    return LocalPlace(folder)


def open_files(folder: Path) -> set[str]:
    """The names of files in a folder that this process has open."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if (path := link.readlink()).parent == folder:
                found.add(path.name)
    return found


def test_many_files_by_few_descriptors(few: local.Descriptors, tmp_path: Path) -> None:
    place = numbered(tmp_path / "in")
    for i in [*range(300), *range(0, 300, 7), 5, 5, 252, 6]:  # 252 is used again, so 259 goes before it
        assert place.read(f"{i}", 4, 8) == struct.pack("<I", i) * 2
        assert len(few) <= 8
    assert open_files(tmp_path / "in") == {"266", "273", "280", "287", "294", "252", "5", "6"}


def test_a_file_is_let_go_of_while_others_read_it(few: local.Descriptors, tmp_path: Path) -> None:
    """A descriptor that were closed under a reader would give it the bytes of whatever was opened next."""
    place = numbered(tmp_path / "in", 60)
    wrong: list[object] = []

    def read(seed: int) -> None:
        try:
            for i in np.random.default_rng(seed).integers(0, 60, 1500).tolist():
                if place.read(f"{i}", 400, 4) != struct.pack("<I", i):
                    wrong.append(i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert len(few) <= 8 and len(open_files(tmp_path / "in")) <= 8


def test_who_is_gone_holds_no_file(few: local.Descriptors, tmp_path: Path) -> None:
    place, other = numbered(tmp_path / "in", 4), LocalPlace(tmp_path / "in")
    for i in range(4):
        place.read(f"{i}", 0, 1)
    other.read("2", 0, 1)
    del place
    gc.collect()
    assert len(few) == 1 and open_files(tmp_path / "in") == {"2"}


def test_a_limit_on_descriptors_is_kept_away_from(tmp_path: Path) -> None:
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from pathlib import Path
from headrace.place.local import LocalPlace
place = LocalPlace(Path(sys.argv[1]))
print(sum(place.read(str(i), 0, 1) is not None for i in range(300)))
held = [open(sys.argv[1] + "/0") for _ in range(30)]
"""
    numbered(tmp_path / "in")
    command = [sys.executable, "-c", code, str(tmp_path / "in")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout == "300\n" and done.returncode == 0, done.stderr


@pytest.mark.parametrize(("offset", "length", "wanted"), [(0, 3, b"abc"), (2, 9, b"cdef"), (6, 1, b""), (99, 9, b"")])
def test_a_read_ends_where_the_file_ends(offset: int, length: int, wanted: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdef")
    place = LocalPlace(tmp_path)
    assert place.read("x", offset, length) == wanted
    assert place.size("x") == 6 and list(place.blocks("x", 4)) == [b"abcd", b"ef"]


def test_a_file_that_is_cut_or_replaced(tmp_path: Path) -> None:
    """What is open stays what it was; who forgets it, or comes later, reads what is there then."""
    (tmp_path / "x").write_bytes(b"old bytes")
    place = LocalPlace(tmp_path)
    assert place.read("x", 0, 3) == b"old"
    publish.write_atomic(tmp_path / "x", b"new bytes")
    assert place.read("x", 0, 3) == b"old"
    assert LocalPlace(tmp_path).read("x", 0, 3) == b"new"
    assert pickle.loads(pickle.dumps(place)).read("x", 0, 3) == copy.copy(place).read("x", 0, 3) == b"new"
    assert place.read("x", 0, 3) == b"old"
    place.forget("x")
    assert place.read("x", 0, 3) == b"new"
    os.truncate(tmp_path / "x", 2)
    assert place.read("x", 0, 9) == b"ne"
    (tmp_path / "x").unlink()
    assert place.read("x", 0, 9) == b"ne"
    place.forget("x")
    with pytest.raises(StorageError, match=f"^{tmp_path}/x: no such file or directory$"):
        place.read("x", 0, 9)


@pytest.mark.parametrize("what", ["fifo", "folder", "/dev/zero"])
def test_what_is_no_regular_file_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(what)
    place = LocalPlace(tmp_path)
    asked: list[Callable[[], object]] = [
        lambda: place.read("x", 0, 1),
        lambda: place.size("x"),
        lambda: list(place.blocks("x")),
        lambda: place.map("x", crc32c=0),
        lambda: local.Slices(place, "x", 10)[0:5],
        lambda: local.digest(path),
        lambda: local.digest_ends(path),
        lambda: local.content(path, 10),
    ]
    for ask in asked:
        with pytest.raises(OSError, match=r"regular file|directory") as caught:
            ask()
        assert "x" in str(caught.value)


def test_content_has_a_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdef")
    assert local.content(tmp_path / "x", 6) == b"abcdef"
    with pytest.raises(OSError, match="6 bytes, wanted at most 5"):
        local.content(tmp_path / "x", 5)


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 16) + 1, (1 << 17) - 1, 1 << 17, 300_000])
def test_digests(size: int, tmp_path: Path) -> None:
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "x").write_bytes(data)
    assert local.digest(tmp_path / "x") == hashlib.sha256(data).hexdigest()
    ends = data[: 1 << 16] + data[max(1 << 16, size - (1 << 16)) :]
    assert local.digest_ends(tmp_path / "x") == hashlib.sha256(ends).hexdigest()


@given(
    st.binary(max_size=60), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 70)), max_size=9)
)
def test_slices_of_a_file_are_those_of_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int, parts: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("slices") / "x"
    path.write_bytes(data)
    slices = local.Slices(LocalPlace(path.parent), "x", len(data), block)
    assert len(slices) == len(data)
    assert [slices[begin:end] for begin, end in parts] == [data[begin:end] for begin, end in parts]


def test_slices_of_a_file_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    slices = local.Slices(LocalPlace(tmp_path), "x", 1000, 100)
    assert slices[0:50] == bytes(50)
    os.truncate(tmp_path / "x", 500)
    assert slices[60:80] == bytes(20) and slices[400:500] == bytes(100)
    with pytest.raises(
        StorageError, match=f"{tmp_path}/x: ends at byte 500, it had 1000 bytes: it was cut while it was"
    ):
        slices[450:501]


def test_a_lower_limit_counts_at_once(tmp_path: Path) -> None:
    """Set in the process itself, after this was imported."""
    code = """
import resource, sys
from pathlib import Path
from headrace.place.local import LocalPlace
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
place = LocalPlace(Path(sys.argv[1]))
for i in range(200):
    (place.path / str(i)).write_bytes(bytes([i]))
    assert place.read(str(i), 0, 1) == bytes([i])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
