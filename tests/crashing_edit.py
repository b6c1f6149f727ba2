"""Stops an edit at every step it takes in the file system, and looks at what is left. Run by test_edit_crash.py.

    python crashing_edit.py VERB WORK EVERY

With EVERY = 1 at every step; else at each EVERY-th until the first rename, and from there on at all. As crashing.py
does it: a process of its own forks a child per step, which edits and dies before its k-th step. What is left must be
version N, with all of its files and those of the versions before as they were, or version N + 1. Then the next edit
must find its way. Prints its findings.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from crashing import DIED, in_child, require
from headrace.checking import verify
from headrace.format import manifest
from headrace.packing.pack import pack
from headrace.place.open import at
from headrace.revising import commit
from headrace.revising.edit import edit
from headrace.revising.history import restore, undo
from headrace.sources import names


class Clock(datetime.datetime):
    """One whose time stands still, so that the same edit makes the same bytes."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return datetime.datetime(2026, 1, 1, tzinfo=tz)


commit.datetime.datetime = Clock  # type: ignore[misc]


def source(photos: Path) -> Any:
    return names(photos, pattern="^(?P<label>cat|dog)")


def one_verb(verb: str, out: Path, photos: Path) -> None:
    """An edit of version 2, or of the one after it."""
    if verb == "undo":
        undo(out, by="ana")
        return
    if verb == "restore":
        restore(out, 1, by="ana")
        return
    with edit(out, why="as it should be", by="ana") as e:
        if verb in ("relabel", "all"):
            e.relabel("emu", ids="cat.0.jpg")
        if verb in ("boxes", "all"):
            e.boxes("cat.0.jpg", [[0, 0, 4, 4]], ["ear"])
        if verb in ("move", "all"):
            e.move("val", ids="cat.2.jpg")
        if verb in ("append", "all"):
            e.append(source(photos / "new"), workers=2, progress=False)
        if verb in ("drop", "all"):
            e.drop(ids="dog.1.jpg")
        if verb == "more":
            e.move("test", ids="cat.0.jpg")


def main() -> None:
    verb, work, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    photos, kept, out = work.parent / "photos", work.parent / "kept", work / "out"

    def new() -> None:
        one_verb(verb, out, photos)

    def first() -> None:
        pack(source(photos / "old"), kept, shards=2, progress=False)
        with edit(kept, why="version 2", by="ben") as e:
            e.relabel("cat", ids="dog.3.jpg")

    require(in_child(first) == 0)
    begin(work, kept)
    old = state(out)
    require(in_child(new, notes=work.parent / "notes") == 0)
    wanted = state(out)
    steps = (work.parent / "notes").read_text().split()
    renames = steps.index("os.rename") if every > 1 else 0
    faults: list[str] = []
    left: Counter[str] = Counter()
    shapes: set[frozenset[str]] = set()
    stopped = 0
    for step in itertools.count(1):
        if every > 1 and step % every and step < renames:
            continue
        begin(work, kept)
        stopped += 1
        died = in_child(new, die_at=step) == DIED
        found = state(out)
        head = found[manifest.FILE]
        what = "new" if head == wanted[manifest.FILE] else "old" if head == old[manifest.FILE] else "neither"
        left[what] += 1
        promised = wanted if what == "new" else old
        if what == "neither" or any(found.get(name) != digest for name, digest in promised.items()):
            faults.append(f"step {step}: what is left is {what}, and {changed(promised, found)}")
        if not died:
            if found != wanted:
                faults.append(f"without a crash: {changed(wanted, found)}")
            break
        shape = frozenset([what, *(re.sub(r"-[0-9a-f]{8}-[0-9a-f]{8}-.*?(?=/|$)", "", name) for name in found)])
        if shape not in shapes:
            shapes.add(shape)
            if in_child(lambda: require(verify.verify(at(out)).ok)) != 0:
                faults.append(f"step {step}: what is left is {what}, and not sound")
            again = new if what == "old" else (lambda: one_verb("more", out, photos))
            if in_child(again) != 0:
                faults.append(f"step {step}: the next edit failed")
            after = state(out)
            if what == "old" and after != wanted:
                faults.append(f"step {step}: the next edit made {changed(wanted, after)}")
            if hidden := [name for name in after if name.startswith(".")]:
                faults.append(f"step {step}: after the next edit there is {hidden}")
    sound = in_child(lambda: require(verify.verify(at(out)).ok)) == 0
    told: dict[str, Any] = {"steps": step - 1, "stopped": stopped - 1, "shapes": len(shapes), "left": left}
    print(json.dumps(told | {"faults": faults, "sound": sound}))


def begin(work: Path, kept: Path) -> None:
    """All as it was."""
    for path in work.iterdir():
        shutil.rmtree(path)
    shutil.copytree(kept, work / "out")


def state(folder: Path) -> dict[str, str]:
    """Name -> digest of all files, those in hidden folders too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def changed(wanted: dict[str, str], found: dict[str, str]) -> str:
    names = [name for name in {*wanted, *found} if wanted.get(name) != found.get(name)]
    return f"these differ: {', '.join(sorted(names)) or 'none'}"


if __name__ == "__main__":
    main()
