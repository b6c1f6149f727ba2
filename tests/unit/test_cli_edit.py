"""The verbs of versions on the command line: what they print, their JSON, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
from command import Ended, headrace
from drawn import photos as drawn
from packed import pack, photos


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pack(photos(30, boxes=True), tmp_path / "cats", shards=2)
    return Path("cats")


def facts(*words: str | Path | int) -> Any:
    done = headrace(*words, "--json")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    return json.loads(line)


def why(*words: str | Path | int) -> Ended:
    return headrace(*words, "--why", "as it should be", "--by", "ana")


def test_each_verb_makes_a_version(cats: Path) -> None:
    done = why("relabel", cats, "dog", "--ids", "dir/001.jpeg", "--ids", "dir/003.jpeg")
    assert done == Ended(0, "cats: version 2, 2 relabelled; headrace undo cats takes it back\n", "")
    assert why("drop", cats, "--where", "id = 'dir/004.jpeg'").out.startswith("cats: version 3, 1 dropped;")
    assert why("move", cats, "val", "--ids", "dir/001.jpeg").out.startswith("cats: version 4, 1 moved;")
    done = why("relabel", cats, "--unlabelled", "--ids", "dir/002.jpeg")
    assert done.code == 0 and hr.Dataset(cats)["dir/002.jpeg"].label_name is None
    done = why("relabel", cats, "dog", "--ids", "dir/001.jpeg")
    assert done == Ended(0, "cats: nothing to change, it is so already\n", "")
    found = facts("relabel", cats, "dog", "--ids", "dir/001.jpeg", "--why", "x")
    assert found == {"version": 5, "made": False, "relabelled": 0}
    assert facts("drop", cats, "--ids", "dir/001.jpeg", "--why", "x") == {"version": 6, "made": True, "dropped": 1}
    assert headrace("verify", cats).out == "cats: 30 records, all sound\n"
    assert headrace("verify", f"{cats}@1").out == "cats@1: 30 records, all sound\n"


def test_append(cats: Path, tmp_path: Path) -> None:
    drawn(tmp_path / "new", 4)
    for name in ("cat.9.jpg", "dog.9.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes((tmp_path / "new" / "cat.0.jpg").read_bytes())
    words = ("append", cats, "new", "--format", "names", "--pattern", "^(?P<label>cat|dog)")
    done = headrace(*words, "--why", "those of May")
    assert done.code == 0 and done.out.splitlines() == [
        "cats: version 2, 4 added (train 4), 0 rejected",
        "  new classes: cat, dog",
    ]
    assert hr.Dataset(cats).history[-1].why == "those of May"
    done = headrace(*words, "--why", "again")
    assert done.code == 1 and "4 of 4 records are rejected, 0 are allowed (--max-rejects)" in done.err
    found = facts("append", cats, "val=photos", "--pattern", "^(?P<label>.)", "--format", "names", "--why", "x")
    assert found["splits"] == {"val": 2} and found["new_classes"] == ["c", "d"] and found["version"] == 3


def test_history_and_diff(cats: Path) -> None:
    why("relabel", cats, "dog", "--ids", "dir/001.jpeg")
    done = headrace("history", cats)
    at = hr.Dataset(cats).history[-1].at
    assert done.out == (
        f"version 1: 30 records\nversion 2: 30 records, by ana, {at}: as it should be\n"
        "  relabel to 'dog': 1 record ('dir/001.jpeg')\n"
    )
    found = facts("history", cats)["versions"]
    assert [one["number"] for one in found] == [1, 2] and found[1]["what"][0]["count"] == 1
    assert [one["number"] for one in facts("history", f"{cats}@1")["versions"]] == [1]
    done = headrace("diff", cats)
    assert done.out.splitlines() == [
        "version 1 to 2: 30 to 30 records",
        "  bee: 10 to 9",
        "  dog: 0 to 1",
        "relabelled 1",
        "  dir/001.jpeg: bee to dog",
    ]
    assert facts("diff", cats, 1, 2) == facts("diff", cats)
    assert facts("diff", cats)["relabelled"] == [{"id": "dir/001.jpeg", "before": "bee", "after": "dog"}]
    why("drop", cats, "--where", "TRUE AND id > 'dir/012.jpeg'", "--yes")
    assert headrace("diff", cats).out.splitlines()[-1] == "  … and 7 more; --json tells all"


def test_nobody_adds_lines_to_the_history(cats: Path) -> None:
    headrace("drop", cats, "--ids", "dir/001.jpeg", "--why", "x\nversion 9: 1 record", "--by", "a\nb")
    out = headrace("history", cats).out
    assert len(out.splitlines()) == 3 and ", by a b, " in out and ": x version 9: 1 record\n" in out


def test_undo_and_restore(cats: Path) -> None:
    why("relabel", cats, "dog", "--ids", "dir/001.jpeg")
    assert headrace("undo", cats).out == "cats: version 3, which is as version 1 was: 30 records\n"
    assert facts("restore", f"{cats}", 2) == {"version": 4, "as": 2, "records": 30}
    done = headrace("undo", f"{cats}@2")
    assert done.code == 2 and "cats: was edited meanwhile" in done.err and "version 4 was made by" in done.err


# (words, what is said)
REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("drop", "cats", "--why", "x"), "wanted either --ids […] or --where '…': which records are meant"),
    (("drop", "cats", "--where", "label_name = 'cow'", "--why", "x"), "holds for 10 of 30 records; pass --yes if all"),
    (("drop", "cats", "--where", "label_name = 'cow'"), "--why is '', wanted a few words"),
    (("drop", "cats", "--ids", "x", "--why", "x"), "no record 'x' (1 of 1 ids); they are like"),
    (("drop", "nowhere", "--ids", "x", "--why", "x"), "nowhere: no such folder"),
    (("drop", "cats@7", "--ids", "x", "--why", "x"), "has no version 7"),
    (("relabel", "cats", "--ids", "dir/001.jpeg", "--why", "x"), "wanted either a LABEL or --unlabelled"),
    (("relabel", "cats", "a", "--unlabelled", "--ids", "x", "--why", "x"), "wanted either a LABEL or --unlabelled"),
    (("relabel", "cats", "a", "b", "--ids", "dir/001.jpeg", "--why", "x"), "wanted the name of a class, or None"),
    (("move", "cats", "a b", "--ids", "dir/001.jpeg", "--why", "x"), "split name 'a b'"),
    (("diff", "cats"), "version 1 was made of no other; name two versions"),
    (("undo", "cats"), "there is nothing to undo"),
    (("restore", "cats", "1"), "version 1 is the one that holds now"),
    (("history", "cats@2"), "has no version 2; it has 1 to 1"),
    (("history", "cats@0"), "has no version 0"),
    (("drop", "cats", "--ids", "\udcff", "--why", "x"), "no record"),
    (("info", "cats@2"), "has no version 2; it has one version, 1"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_refused(cats: Path, words: tuple[str, ...], said: str) -> None:
    before = sorted(path.name for path in cats.iterdir())
    done = headrace(*words)
    assert done.code == 2 and done.out == "" and said in done.err and done.err.count("\n") == 1
    assert sorted(path.name for path in cats.iterdir()) == before


def test_info_tells_what_the_shards_do_not_say(cats: Path) -> None:
    assert "version" not in headrace("info", cats).out and facts("info", cats)["version"] == 1
    with hr.edit(cats, why="x", by="ana") as e:
        e.relabel("dog", ids=["dir/001.jpeg", "dir/002.jpeg"])
        e.drop(ids=["dir/004.jpeg", "dir/005.jpeg", "dir/006.jpeg"])
    lines = headrace("info", cats).out.splitlines()
    assert lines[1:3] == [
        "  version  2; headrace history cats tells of all",
        "  2 relabelled and 3 dropped records are not in the shards: TFDS, DALI and TensorFlow see version 1; headrace "
        "compact writes them",
    ]
    found = facts("info", cats)
    assert (found["version"], found["records"]) == (2, 27)
    assert found["unwritten"] == {"relabelled": 2, "boxes": 0, "dropped": 3, "moved": 0, "added": 0}
    assert "unwritten" not in facts("info", f"{cats}@1") and facts("info", f"{cats}@1")["records"] == 30
    with hr.edit(cats, why="x", by="ana") as e:
        e.append([hr.Record(id="new", encoded=photos(1)[0].encoded)])
    assert (
        "3 dropped records are not in the shards, 1 added ones are in shards of their own" in headrace("info", cats).out
    )
    headrace("undo", cats)
    headrace("undo", cats)
    assert "not in the shards" not in headrace("info", cats).out


def test_a_split_of_a_version(cats: Path, tmp_path: Path) -> None:
    why("move", cats, "val", "--ids", "dir/001.jpeg")
    done = headrace("show", f"{cats}@2:val", "--out", "sheet.png")
    assert done.code == 0 and done.out.startswith("1 of 1 records")
    done = headrace("show", f"{cats}@1:val", "--out", "sheet.png")
    assert done.code == 2 and "no split 'val'" in done.err


def test_compact(cats: Path) -> None:
    why("relabel", cats, "dog", "--ids", "dir/001.jpeg")
    done = headrace("compact", cats, "packed")
    assert done.code == 0 and done.out.startswith("packed: 30 records (train 30) in 2 shards, ")
    assert hr.Dataset("packed")["dir/001.jpeg"].label_name == "dog"
    assert facts("compact", f"{cats}@1", "first")["stored"] == 30
    done = headrace("compact", cats, "packed")
    assert done.code == 2 and "holds a dataset already; pass --overwrite" in done.err


@pytest.mark.parametrize("verb", ["relabel", "drop", "move", "append", "history", "diff", "undo", "restore", "compact"])
def test_help_has_an_example(verb: str) -> None:
    done = headrace(verb, "--help")
    assert done.code == 0 and f"Example:\n  headrace {verb} cats" in done.out and "--json" in done.out
