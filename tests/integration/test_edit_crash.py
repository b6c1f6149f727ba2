"""An edit that is killed at any moment leaves version N or N + 1, never else; and of many editors at once one wins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import headrace as hr
from amount import ALL
from drawn import photos
from headrace.errors import ConflictError
from packed import pack, shades

EVERY = 1 if ALL else 11


@pytest.mark.exhaustive
@pytest.mark.parametrize("verb", ["relabel", "boxes", "drop", "move", "append", "undo", "restore", "all"])
def test_killed_at_every_step(verb: str, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    photos(tmp_path / "photos" / "old", 4, side=8)
    for k, path in enumerate(sorted(photos(tmp_path / "photos" / "new", 2, side=8).iterdir())):
        path.rename(path.with_name(f"cat.new{k}.jpg"))
    work = tmp_path / "work"
    work.mkdir()
    script = Path(__file__).parents[1] / "crashing_edit.py"
    done = subprocess.run(
        [sys.executable, script, verb, work, str(EVERY)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == [], done.stderr
    assert found["sound"] and set(found["left"]) == {"old", "new"}
    # It was stopped in earnest: on both sides of each rename.
    assert found["steps"] > 25 and found["stopped"] >= found["steps"] // EVERY and found["shapes"] >= 4


EDITOR = """
import sys
import headrace as hr
path, name, ids = sys.argv[1], sys.argv[2], sys.argv[3:]
made = 0
for id_ in ids:
    while True:
        try:
            with hr.edit(path, why=f"{name} {id_}", by=name) as e:
                e.relabel(name, ids=id_)
            break
        except hr.ConflictError:
            made += 1
print(made)
"""


def test_editors_in_processes_lose_nothing(tmp_path: Path) -> None:
    """Each repeats what was refused, so that in the end all is done, each in a version of its own."""
    out = tmp_path / "shades"
    ds = pack(shades(24), out)
    ids = ds.catalog["id"].to_list()
    parts = {f"editor{k}": ids[k::3][:5] for k in range(3)}
    running = [
        subprocess.Popen([sys.executable, "-c", EDITOR, str(out), name, *some], stderr=subprocess.PIPE, text=True)
        for name, some in parts.items()
    ]
    for one in running:
        _, said = one.communicate(timeout=600)
        assert one.returncode == 0, said
    ds = hr.Dataset(out)
    assert ds.version == 16 and ds.verify().ok
    for name, some in parts.items():
        assert [ds[id_].label_name for id_ in some] == [name] * 5
    assert sorted(one.by for one in ds.history[1:]) == sorted(name for name in parts for _ in range(5))
    assert [one.number for one in ds.history] == [*range(1, 17)]


def test_of_editors_in_threads_one_wins(tmp_path: Path) -> None:
    out = tmp_path / "shades"
    pack(shades(24), out)
    opened = threading.Barrier(6)
    won: list[str] = []
    lost: list[str] = []

    def work(name: str) -> None:
        try:
            with hr.edit(out, why="x", by=name) as e:
                e.relabel(name, ids="003")
                opened.wait(timeout=300)
            won.append(name)
        except ConflictError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=work, args=(f"t{k}",)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ds = hr.Dataset(out)
    assert len(won) == 1 and len(lost) == 5 and ds.version == 2 and ds["003"].label_name == won[0]
    assert all(f"version 2 was made by {won[0]}" in said and "'003'" in said for said in lost)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


FULL = """
import resource, signal, sys
import headrace as hr
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit = sys.argv[1], int(sys.argv[2])
hr.Dataset(path).labels
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    with hr.edit(path, why="x", by="ana") as e:
        e.relabel("dog", ids="003")
        e.append([hr.Record(id="new", path=sys.argv[3])])
except hr.StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [10, 400, 1500, 4000])
def test_a_full_disk_leaves_the_version_that_holds(limit: int, tmp_path: Path) -> None:
    """Files can't grow beyond a limit: shards, tables, the kept manifest or the new one, whatever comes first."""
    out, image = tmp_path / "shades", tmp_path / "new.png"
    records = shades(24, side=40)
    pack(records, out)
    image.write_bytes(records[0].encoded or b"")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = [sys.executable, "-c", FULL, str(out), str(limit), str(image)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "file too large" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert all(after[name] == data for name, data in before.items())
    assert hr.Dataset(out).version == 1 and hr.Dataset(out).verify().ok
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
