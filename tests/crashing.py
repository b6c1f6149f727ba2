"""Stops a packing at every step it takes in the file system, and looks at what is left. Run by test_crash.py.

    python crashing.py SOURCE WORK {fresh|replace|renames} EVERY: renames is replace where names can't be exchanged

With EVERY = 1 at every step; else at each EVERY-th until the first rename, and from there on at all.
A process of its own: it forks a child per step, and has itself no threads but what libraries keep in the background.
The child packs and dies, as by `kill -9`, before its k-th step: before each opening, half-way through and after each
write, before each sync, rename, unlink, mkdir and rmdir. Then the next packing must find its way. Prints its findings.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.checking import verify
from headrace.errors import UsageError
from headrace.packing.pack import pack
from headrace.place import publish
from headrace.place.open import at
from headrace.sources import names

DIED = 9
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "fcntl.flock")

State = dict[str, str] | None


def main() -> None:
    source, work, case, every = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    out = work / "out"

    def new() -> None:
        pack_it(source, out, seed=1)

    in_child(new)
    wanted = state(out)
    remove(work)
    old = None
    if case == "renames":
        publish.exchange = lambda one, other: False
    if case != "fresh":
        in_child(lambda: pack_it(source, work / "kept", seed=0))
        old = state(work / "kept")
        (work / "kept").rename(work.parent / "kept")
    faults: list[str] = []
    left: Counter[str] = Counter()
    shapes: set[frozenset[str]] = set()
    renames = math.inf
    if every > 1:
        begin(work, old)
        in_child(new, notes=work.parent / "notes")
        renames = (work.parent / "notes").read_text().split().index("os.rename")
    stopped = 0
    for step in itertools.count(1):
        if step % every and step < renames:
            continue
        begin(work, old)
        stopped += 1
        died = in_child(new, die_at=step) == DIED
        found, hidden = state(out), leftovers(work)
        what = "none" if found is None else "new" if found == wanted else "old" if found == old else "half"
        # What the next packing meets: names, without the random part of hidden ones.
        shape = frozenset(
            re.sub(r"-[0-9a-f]{8}|-\d+(?=-)", "", str(path.relative_to(work))) for path in work.rglob("*")
        )
        if found is None and old is not None and case == "renames":
            # The old one stands between two renames: whole, under its hidden name. Whoever packs next puts it back,
            # even where it then is in the way.
            what = "old, hidden" if [state(path) for path in hidden if ".replaced-" in path.name] == [old] else "lost"
            in_child(lambda: refused(source, out))
            if state(out) != old:
                faults.append(f"step {step}: the hidden old dataset was not put back")
        left[what] += 1
        if what in ("half", "lost") or (what == "none" and old is not None):
            faults.append(f"step {step}: what is left is {what}: {found}")
        if not died:
            if what != "new" or hidden:
                faults.append(f"without a crash: {what}, {hidden}")
            break
        if shape not in shapes:
            shapes.add(shape)
            if in_child(new) != 0 or state(out) != wanted or leftovers(work):
                faults.append(f"step {step}: the next packing failed: {state(out)}, {leftovers(work)}")
    sound = in_child(lambda: require(verify.verify(at(out)).ok)) == 0
    found = {"steps": step - 1, "stopped": stopped - 1, "shapes": len(shapes), "left": left}
    print(json.dumps(found | {"faults": faults, "sound": sound}))


def begin(work: Path, old: State) -> None:
    """All as it was."""
    remove(work)
    if old is not None:
        shutil.copytree(work.parent / "kept", work / "out")


def pack_it(source: Path, out: Path, *, seed: int) -> None:
    found = names(source, pattern="^(?P<label>cat|dog)")
    pack(found, out, seed=seed, shards=2, max_rejects=1, workers=2, overwrite=True, progress=False)


def refused(source: Path, out: Path) -> None:
    """A packing that may not overwrite puts the old dataset back all the same, and then refuses."""
    with contextlib.suppress(UsageError):
        pack(names(source, pattern="^(?P<label>cat|dog)"), out, progress=False)


def require(good: bool) -> None:
    if not good:
        raise AssertionError


def in_child(work: Callable[[], None], *, die_at: int | None = None, notes: Path | None = None) -> int:
    """The exit code of a forked child that does `work`: 0, 1 for an exception, DIED before step `die_at`.

    `notes`: where to write down what the steps are, one a line.
    """
    child = os.fork()
    if child == 0:
        try:
            if die_at is not None or notes is not None:
                arm(die_at, notes)
            else:
                os.fsync = lambda handle: None  # only a power cut would miss it
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def arm(die_at: int | None, notes: Path | None) -> None:
    """From now on this process counts its steps, in whatever thread, and dies before number `die_at`."""
    file = None if notes is None else os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = itertools.count(1)
    root = sys.argv[2]

    def step(what: Any = "write") -> None:
        if next(count) == die_at:
            os._exit(DIED)
        if file is not None:
            os.write(file, f"{what}\n".encode())

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and (event != "open" or str(arguments[0]).startswith(root)):
            step(event)

    def write_bytes(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            step()
            file.write(data[len(data) // 2 :])
            file.flush()
            step()
        return len(data)

    write = publish.HashedFile.write

    def write_part(self: publish.HashedFile, data: bytes) -> None:
        write(self, data[: len(data) // 2])
        self._file.flush()
        step()
        write(self, data[len(data) // 2 :])

    os.fsync = step
    Path.write_bytes = write_bytes  # type: ignore[method-assign, assignment]
    publish.HashedFile.write = write_part  # type: ignore[method-assign]
    sys.addaudithook(audit)


def state(folder: Path) -> State:
    """Name -> digest of the files in a folder, or None where there is none."""
    if not folder.is_dir():
        return None
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def leftovers(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.name != "out"]


def remove(work: Path) -> None:
    for path in work.iterdir():
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
