"""Packing in parts: what shells do that know nothing of each other becomes what one packing makes, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
import stored
from command import headrace
from drawn import files, photos
from headrace.errors import DamageError, DataError, NotThereError, StorageError, UsageError
from headrace.packing import parts
from headrace.place import publish
from packed import flip
from packed import photos as drawn_photos
from packed_there import PATTERN, SHARDS, shard, source_of, state

CHOSEN: dict[str, Any] = {"shards": SHARDS, "max_rejects": 0.5}
WORDS = ["--format", "names", "--pattern", PATTERN, "--shards", str(SHARDS), "--max-rejects", "50%"]


@pytest.fixture
def plan(pictures: Path, out: Path, tmp_path: Path) -> Path:
    """A plan of the photos that `packed_here` has."""
    parts.plan(source_of(pictures), out, tmp_path / "ds.plan", **CHOSEN)
    return tmp_path / "ds.plan"


def pack_all(plan: Path, n: int = 3) -> None:
    for part in range(1, n + 1):
        parts.pack_part(plan, part, n, progress=False)


def pack_and_publish(plan: Path) -> None:
    pack_all(plan, 2)
    parts.publish(plan, progress=False)


def test_by_commands(pictures: Path, packed_here: dict[str, bytes], out: Path, tmp_path: Path) -> None:
    plan = tmp_path / "ds.plan"
    done = headrace("plan", pictures, out, "--plan", plan, *WORDS, "--json")
    said = json.loads(done.out)
    assert (done.code, done.err) == (0, "") and said.pop("seconds") >= 0
    assert said == {
        "plan": str(plan),
        "out": str(out),
        "seen": 62,
        "refused": 0,
        "splits": {"train": 62},
        "classes": ["cat", "dog"],
        "box_classes": [],
        "shards": SHARDS,
        "bytes": plan.stat().st_size,
        "notes": [],
    }
    assert not out.exists()
    for part in (3, 1, 2):
        done = headrace("pack-part", plan, "--part", f"{part}/3", "--json")
        found = json.loads(done.out)
        assert (done.code, done.err) == (0, "")
        assert (found["part"], found["parts"], found["shards"], found["made"]) == (part, 3, 4, 4)
    done = headrace("publish", plan, "--json")
    report = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (report["seen"], report["stored"], report["rejected"], report["out"]) == (62, 60, 2, str(out))
    assert state(out) == packed_here
    assert [path.name for path in out.parent.iterdir()] == ["ds"] and [*tmp_path.glob(".*")] == []
    assert report["bytes_out"] == sum(map(len, packed_here.values()))


# Dies, as by kill -9, before it puts this file.
KILLED = """
import os, signal, sys
from headrace.place.publish import FolderSink
put, at = FolderSink.put, sys.argv.pop(1)
def killed(self, path, name):
    if name == at:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, path, name)
FolderSink.put = killed
"""


def shells(commands: Sequence[Sequence[str]], code: str = "") -> list[int]:
    """The exit codes of commands that run at once, each in a process of its own."""
    run = f"{code}\nfrom headrace.cli import main\nmain()\n"
    begun = [
        subprocess.Popen([sys.executable, "-c", run, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in commands
    ]
    return [one.wait(600) for one in begun]


# Between two shards, between the files of one, and between a shard and what is said of it.
@pytest.mark.parametrize("at", [shard(4, "idx"), shard(4), shard(7, "result")])
def test_three_shells_one_of_them_killed(at: str, plan: Path, packed_here: dict[str, bytes], out: Path) -> None:
    part = int(at.split("-")[1]) % 3 + 1
    commands = [["no file", "pack-part", str(plan), "--part", f"{k}/3"] for k in (1, 2, 3)]
    commands[part - 1][0] = at
    codes = shells(commands, KILLED)
    assert [code for k, code in enumerate(codes, 1) if k != part] == [0, 0] and codes[part - 1] == -signal.SIGKILL
    ended = headrace("publish", plan)
    missing = len(range(int(at.split("-")[1]), SHARDS, 3))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        f"headrace: {plan}: {missing} of {SHARDS} shards are not packed, those of parts {part}/3; run "
        "'headrace pack-part' for them, and publish again\n"
    )
    assert not out.exists()
    again = parts.pack_part(plan, part, 3)
    assert (again.shards, again.made) == (4, missing)
    parts.publish(plan, progress=False)
    assert state(out) == packed_here
    assert [path.name for path in out.parent.iterdir()] == ["ds"]


def test_a_part_twice_at_once(plan: Path, packed_here: dict[str, bytes], out: Path) -> None:
    assert shells([["pack-part", str(plan), "--part", f"{k}/2"] for k in (1, 1, 2, 2)]) == [0] * 4
    parts.publish(plan, progress=False)
    assert state(out) == packed_here


def test_a_part_that_ran_has_nothing_to_do(plan: Path) -> None:
    first = parts.pack_part(plan, 2, 3)
    again = parts.pack_part(plan, 2, 3)
    assert (first.made, again.made) == (4, 0)
    assert (first.records, first.rejected) == (again.records, again.rejected)
    assert first.records + first.rejected == sum(62 * (i + 1) // SHARDS - 62 * i // SHARDS for i in range(1, SHARDS, 3))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (shard(1), _cut),
        (shard(1), lambda path: flip(path, 100)),
        (shard(1), Path.unlink),
        (shard(1, "idx"), _cut),
        (shard(1, "idx"), Path.unlink),
        (shard(1, "result"), _cut),
        (shard(1, "result"), lambda path: flip(path, 5)),
        (shard(1, "result"), lambda path: flip(path, 40)),
        (shard(1, "result"), lambda path: flip(path, path.stat().st_size - 1)),
        (shard(1, "result"), lambda path: path.write_bytes(b"")),
    ],
)
def test_what_is_not_sound_is_made_again(
    name: str, damage: Any, plan: Path, packed_here: dict[str, bytes], out: Path
) -> None:
    pack_all(plan)
    (folder,) = out.parent.iterdir()
    damage(folder / name)
    assert [parts.pack_part(plan, part, 3).made for part in (1, 2, 3)] == [0, 1, 0]
    parts.publish(plan, progress=False)
    assert state(out) == packed_here


def test_publish_without_any_part(plan: Path, out: Path) -> None:
    with pytest.raises(DataError, match=rf"ds\.plan: none of its {SHARDS} shards is packed; run 'headrace"):
        parts.publish(plan)
    assert not [*out.parent.iterdir()]


def test_published_at_the_same_time(plan: Path, packed_here: dict[str, bytes], out: Path) -> None:
    """One of them is told that a dataset stands there, or that nothing is left to publish."""
    pack_all(plan)
    codes = shells([["publish", str(plan)]] * 2)
    assert sorted(codes) in ([0, 1], [0, 2])
    assert state(out) == packed_here


def test_the_options_of_the_plan_hold(
    pictures: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "size": (20, 24),
        "fit": "pad",
        "channels": 1,
        "splits": {"train": 0.7, "val": 0.3},
        "seed": 3,
        "shard_size": 9000,
        "max_rejects": 4,
    }
    hr.pack(source_of(pictures), tmp_path / "here" / "ds", progress=False, **options)
    parts.plan(source_of(pictures), out, tmp_path / "p", **options)
    monkeypatch.chdir(tmp_path / "here")
    pack_all(Path("../p"), 2)
    parts.publish(tmp_path / "p", progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")
    with pytest.raises(UsageError, match=r"holds a dataset already"):
        parts.plan(source_of(pictures), out, tmp_path / "q")
    parts.plan(source_of(pictures), out, tmp_path / "q", overwrite=True, max_rejects=0)
    pack_all(tmp_path / "q", 1)
    with pytest.raises(DataError, match=r"2 of 62 records are rejected, 0 are allowed"):
        parts.publish(tmp_path / "q", progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")


def test_images_that_come_as_bytes_lie_in_the_plan(out: Path, tmp_path: Path) -> None:
    records = drawn_photos(40, boxes=True, grey=(1,), png=(2,), unlabelled=(3,))
    hr.pack(records, tmp_path / "here" / "ds", shards=3, progress=False)
    report = parts.plan(records, out, tmp_path / "p", shards=3)
    assert report.bytes > sum(len(record.encoded or b"") for record in records)
    pack_all(tmp_path / "p", 2)
    assert parts.publish(tmp_path / "p", progress=False).boxes == 60
    assert state(out) == state(tmp_path / "here" / "ds")


def test_published_in_a_store(
    pictures: Path, packed_here: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards lie beside the plan until then."""
    with stored.s3() as endpoint:
        bucket = stored.bucket(endpoint, monkeypatch)
        done = headrace("plan", pictures, f"{bucket.url}/ds", "--plan", tmp_path / "p", *WORDS)
        assert done.code == 0 and not bucket.objects
        pack_all(tmp_path / "p", 2)
        assert not bucket.objects and len([*tmp_path.glob(".p.parts-*/*.tfrecord")]) == SHARDS
        report = parts.publish(tmp_path / "p", progress=False)
        assert {key.removeprefix("ds/"): data for key, data in bucket.objects.items()} == packed_here
        assert str(report.path) == f"{bucket.url}/ds" and report.stored == 60
        assert not [*tmp_path.glob(".p*")]


def test_arrays_in_files(out: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (30, 12, 10), np.uint8)
    np.save(tmp_path / "x.npy", x)
    source = hr.sources.arrays(tmp_path / "x.npy", np.arange(30) % 3)
    hr.pack(source, tmp_path / "here" / "ds", shards=2, progress=False)
    parts.plan(source, out, tmp_path / "p", shards=2)
    pack_all(tmp_path / "p", 2)
    parts.publish(tmp_path / "p", progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")


def test_arrays_in_memory_are_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^x: arrays in memory, .* are not for a plan, .*; save them as \.npy$"):
        parts.plan(hr.sources.arrays(np.zeros((3, 4, 4), np.uint8)), out, tmp_path / "p")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_an_image_that_can_not_be_read(out: Path, tmp_path: Path) -> None:
    """It may be a mount that is missing here: an error, unless this is the last try."""
    folder = photos(tmp_path / "photos", 24)
    source = [*source_of(folder)]
    (folder / "cat.6.jpg").unlink()
    hr.pack(source, tmp_path / "here" / "ds", shards=3, progress=False)
    parts.plan(source, out, tmp_path / "p", shards=3)
    failed = 0
    for part in (1, 2, 3):
        ended = headrace("pack-part", tmp_path / "p", "--part", f"{part}/3")
        if ended.code:
            failed += 1
            assert "cat.6.jpg: no such file or directory, and here it may be a mount that is missing" in ended.err
            assert parts.pack_part(tmp_path / "p", part, 3, last=True).rejected == 1
    assert failed == 1
    parts.publish(tmp_path / "p", progress=False)
    assert state(out) == state(tmp_path / "here" / "ds")


# --- what is no plan, or no part -------------------------------------------------------------------------------------


def test_a_plan_is_not_written_over(plan: Path, pictures: Path, out: Path) -> None:
    before = plan.read_bytes()
    with pytest.raises(UsageError, match=r"ds\.plan: is there already, and parts of it may be at work"):
        parts.plan(source_of(pictures), out, plan)
    assert plan.read_bytes() == before


def test_a_plan_of_another_version(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "spoken", lambda: ("99.0", "3.99"))
    for work in (lambda: parts.pack_part(plan, 1, 3), lambda: parts.publish(plan)):
        with pytest.raises(UsageError, match=r"here is Headrace 99\.0 in Python 3\.99; use the same versions, or plan"):
            work()


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_no_such_part(part: tuple[int, int], plan: Path) -> None:
    with pytest.raises(UsageError, match=r"^part is \d/\d, wanted 1/"):
        parts.pack_part(plan, *part)


@pytest.mark.parametrize(
    ("words", "slurm", "said"),
    [
        ([], {}, "a part needs --part K/N, as in --part 3/64 (this is no job of a Slurm array)"),
        (["--part", "3"], {}, "--part '3': wanted K/N, as in 3/64, K from 1 to N"),
        (["--part", "3/2"], {}, "--part is 3/2, wanted 1/2 to 2/2"),
        ([], {"ID": "9", "COUNT": "2", "MIN": "3", "STEP": "1"}, "--part is 7/2, wanted 1/2 to 2/2"),
    ],
)
def test_words_that_mean_no_part(
    words: list[str], slurm: dict[str, str], said: str, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    ended = headrace("pack-part", plan, *words)
    assert (ended.code, ended.out, ended.err) == (2, "", f"headrace: {said}\n")


def test_a_slurm_array_says_the_part(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ID": "5", "COUNT": "3", "MIN": "1", "STEP": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    found = json.loads(headrace("pack-part", plan, "--json").out)
    assert (found["part"], found["parts"]) == (3, 3)


def test_a_machine_that_does_not_see_the_place(plan: Path, out: Path) -> None:
    shutil.rmtree(out.parent)
    with pytest.raises(NotThereError, match=rf"^{out.parent}: no such folder here"):
        parts.pack_part(plan, 1, 3)
    assert not out.parent.exists()


@pytest.mark.parametrize("step", [1 if os.environ.get("HEADRACE_TESTS") == "all" else 37])
def test_each_damaged_byte_of_a_plan_is_found(step: int, out: Path, tmp_path: Path) -> None:
    """Whatever is changed in it, it is told in one line, and nothing is packed of it that was not planned."""
    folder = photos(tmp_path / "photos", 6)
    file = tmp_path / "p"
    parts.plan(source_of(folder), out, file, shards=2)
    sound = file.read_bytes()
    for byte in range(0, len(sound), step):
        file.write_bytes(sound)
        flip(file, byte, byte % 8)
        with pytest.raises((DamageError, UsageError)) as caught:
            pack_and_publish(file)
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    for size in (0, 5, 19, 30, len(sound) // 2, len(sound) - 1):
        file.write_bytes(sound[:size])
        with pytest.raises((DamageError, UsageError)):
            pack_and_publish(file)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../elsewhere"},
        {"out": "relative"},
        {"out": 7},
        {"max_rejects": -1},
        {"names": None},
        {"decisions": None},
        {"rejects": {}},
        {"rejects": {"at": "x", "bytes": 0, "crc32c": 0}},
        {"rejects": {"at": 0, "bytes": 1e400, "crc32c": 0}},
        {"recipe": None},
        {"base": 7},
    ],
)
def test_a_plan_from_elsewhere_that_is_none(change: dict[str, Any], plan: Path) -> None:
    """Signed soundly, and no plan that was ever made."""
    with plan.open("rb") as file:
        head = json.loads(plan.read_bytes()[20 : 20 + parts._HEAD.unpack(file.read(20))[1]])
    with plan.open("wb") as file:
        parts._write_head(file, parts._PLAN, head | change)
    with pytest.raises((DamageError, UsageError)) as caught:
        pack_and_publish(plan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"seen": 61},
        {"seen": -1},
        {"seen": None},
        {"refused": 1},
        {"classes": [7]},
        {"flip_pairs": 7},
        {"with_boxes": None},
        {"said": 7},
        {"shards": []},
    ],
)
def test_decisions_from_elsewhere_that_are_none(change: dict[str, Any], plan: Path) -> None:
    _decided(plan, lambda decisions: decisions.update(change))
    with pytest.raises(DamageError, match=r"^[^\n]*not a sound plan of 'headrace plan'[^\n]*$"):
        pack_and_publish(plan)


@pytest.mark.parametrize(
    "change",
    [
        {"at": None},
        {"at": -1},
        {"bytes": 1e400},
        {"crc32c": "x"},
        {"heap": True},
        {"stop": 1e9},
        {"stop": 10**20},
        {"split": ["train"]},
        {"split": "../x"},
        {"stacks": None},
    ],
)
def test_shards_from_elsewhere_that_are_none(change: dict[str, Any], plan: Path) -> None:
    _decided(plan, lambda decisions: decisions["shards"][1].update(change))
    with pytest.raises(DamageError, match=r"^[^\n]*not a sound plan of 'headrace plan'[^\n]*$"):
        pack_and_publish(plan)


def _decided(plan: Path, change: Callable[[Any], object]) -> None:
    """Signs other decisions in a plan soundly."""
    data = plan.read_bytes()
    end = 20 + parts._HEAD.unpack(data[:20])[1]
    head = json.loads(data[20:end])
    change(head["decisions"])
    with plan.open("wb") as file:
        parts._write_head(file, parts._PLAN, head)
        file.write(data[end:])


def test_a_result_of_other_records_is_none(plan: Path, packed_here: dict[str, bytes], out: Path) -> None:
    """As of two tries, of which one could not read what the other could."""
    pack_all(plan)
    (path,) = out.parent.glob(f".*/{shard(1, 'result')}")
    data = path.read_bytes()
    end = 20 + parts._HEAD.unpack(data[:20])[1]
    head = json.loads(data[20:end])
    head["result"]["refused"] += 1
    with path.open("wb") as file:
        parts._write_head(file, parts._RESULT, head)
        file.write(data[end:])
    with pytest.raises(DataError, match=r"was there, and is gone; run its part again"):
        parts.publish(plan, progress=False)
    pack_all(plan)
    parts.publish(plan, progress=False)
    assert state(out) == packed_here


def test_shards_of_a_plan_have_no_paths(plan: Path, out: Path) -> None:
    with plan.open("rb") as file:
        head = json.loads(plan.read_bytes()[20 : 20 + parts._HEAD.unpack(file.read(20))[1]])
    head["decisions"]["shards"][0]["name"] = "../train-00000-of-00001.tfrecord"
    with plan.open("wb") as file:
        parts._write_head(file, parts._PLAN, head)
    with pytest.raises(DamageError, match=r"not a sound plan of 'headrace plan'"):
        parts.pack_part(plan, 1, 1)
    assert not [*out.parent.iterdir()]


@pytest.mark.parametrize("content", [b"", b"HRPLAN01", b"no plan at all, but a text", b"HRPLAN01" + bytes(12)])
def test_another_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    ended = headrace("publish", tmp_path / "x")
    assert ended.code in (1, 2) and ended.err.count("\n") == 1 and str(tmp_path / "x") in ended.err
    assert headrace("publish", tmp_path / "none").err == f"headrace: {tmp_path / 'none'}: no such file\n"


def test_planning_that_is_killed_leaves_what_the_next_clears(pictures: Path, out: Path, tmp_path: Path) -> None:
    code = "import os, signal\nfrom headrace.packing import parts\n"
    code += "parts._write_plan = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    words = ["plan", str(pictures), str(out), "--plan", str(tmp_path / "p"), *WORDS]
    assert shells([words], code) == [-signal.SIGKILL]
    assert [path.name for path in tmp_path.glob(".p.*")] and not (tmp_path / "p").exists()
    assert shells([words]) == [0]
    assert (tmp_path / "p").exists() and not [*tmp_path.glob(".p.*")]


def test_two_parts_in_one_process(plan: Path, packed_here: dict[str, bytes], out: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [*pool.map(lambda part: parts.pack_part(plan, part, 4, workers=2, progress=False), range(1, 5))]
    assert sum(report.made for report in made) == SHARDS
    parts.publish(plan, progress=False)
    assert state(out) == packed_here


def test_where_there_are_no_links(
    plan: Path, packed_here: dict[str, bytes], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    pack_all(plan)
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    parts.publish(plan, progress=False)
    assert state(out) == packed_here


def test_what_can_not_be_published_is_not_lost(
    plan: Path, packed_here: dict[str, bytes], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_all(plan)
    files(out, {"mine.txt": b"in the way"})
    with pytest.raises(UsageError, match=r"is a folder with other files in it"):
        parts.publish(plan, progress=False)
    shutil.rmtree(out)
    with monkeypatch.context() as failing:
        failing.setattr(publish, "exchange", lambda *_: False)
        failing.setattr(publish.Staging, "_publish", lambda self: (_ for _ in ()).throw(StorageError("a bad disk")))
        with pytest.raises(StorageError, match=r"^a bad disk\nnothing is lost"):
            parts.publish(plan, progress=False)
    parts.publish(plan, progress=False)
    assert state(out) == packed_here
