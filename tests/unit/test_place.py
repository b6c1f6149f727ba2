"""Files and folders: whole or not at all, synced before they are published, and never anyone else's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drawn import files
from headrace.errors import StorageError, UsageError
from headrace.place import local, publish

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

    with pytest.raises(UsageError, match="holds a dataset already"):
        work()
    assert content(tmp_path) == {f"out/{MARK}": b"from another process"}


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
    others = {
        f".{name}2.packing-00": b"",
        ".other.packing-00/x": b"",
        f"{name}.packing-00": b"",
        ".ooo.packing-00": b"",
    }
    leftovers = {f".{name}.packing-0123/half": b"x", f".{name}.replaced-0123/{MARK}": b"older"}
    files(tmp_path, {f"{name}/{MARK}": b"old", **leftovers, **others})
    published(tmp_path / name, b"new", overwrite=True)
    assert content(tmp_path) == {f"{name}/{MARK}": b"new", **others}


def test_an_old_one_caught_between_two_renames_is_put_back(tmp_path: Path) -> None:
    files(tmp_path, {f".out.replaced-0123/{MARK}": b"old", ".out.packing-0123/half": b""})
    with pytest.raises(UsageError, match="holds a dataset already"):
        published(tmp_path / "out", b"new")
    assert content(tmp_path) == {f"out/{MARK}": b"old"}


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


def test_everything_is_on_disk_before_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with staging(tmp_path / "out", overwrite=True) as folder:
        with publish.HashedFile(folder / "shard") as file:
            file.write(b"x")
            file.close()
        (folder / MARK).write_bytes(b"new")
    assert sorted(steps[:2]) == [("sync", MARK), ("sync", "shard")]
    assert steps[2:] == [
        ("sync", ".out.packing"),
        ("rename", ".out.replaced"),
        ("rename", "out"),
        ("sync", tmp_path.name.split("-")[0]),
    ]


@pytest.mark.parametrize("step", ["first rename", "second rename"])
def test_a_failing_rename_leaves_the_old(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    published(out, b"old")
    rename = Path.rename
    done: list[Path] = []

    def failing(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == (1 if step == "first rename" else 2):
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError, match="input/output error"):
        published(out, b"new", overwrite=True)
    assert content(tmp_path) == {f"out/{MARK}": b"old"}


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
