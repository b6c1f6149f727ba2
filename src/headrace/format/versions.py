"""The versions of a dataset: which there are, who made them and why, and how one is addressed, as in cats@3.

How a version is made is left to revising.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headrace.errors import DamageError, UsageError
from headrace.format import manifest
from headrace.format.manifest import Manifest
from headrace.place.address import Place, Url, located
from headrace.place.open import at

_VERSION = re.compile(r"(.+)@([0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a dataset: `number`, of so many `records`. `by` whom it was made, `at` what time (UTC, ISO 8601)
    and `why`: all empty of version 1, which was packed or adopted.

    `what` was done, one after the other: `op` is relabel, boxes, drop, move, append, undo or restore, with the `ids`
    that were named (the first hundred of them) or the condition (`where`), and the `count` of records that it changed;
    `label`, `split` and `version` are what they were changed to.
    """

    number: int
    records: int
    by: str = ""
    at: str = ""
    why: str = ""
    what: tuple[Mapping[str, Any], ...] = ()

    def __str__(self) -> str:
        done = ", ".join(map(told, self.what)) or "packed"
        why = f" ({one_line(self.why)})" if self.why else ""
        return f"version {self.number}, {self.records} records: {done}{why}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"what": [dict(one) for one in self.what]}

    @classmethod
    def of(cls, promised: Manifest) -> Version:
        """What a manifest says of its version."""
        edit = dict(promised.edit or {})
        edit["what"] = tuple(edit.get("what", ()))
        known = {name: edit[name] for name in ("by", "at", "why", "what") if name in edit}
        return cls(number=promised.version, records=promised.stored - promised.dropped, **known)


def told(one: Mapping[str, Any]) -> str:
    """What was done, for people: "relabel to 'dog': 2 records ('a.jpg', 'b.jpg')"."""
    op, count = one["op"], one.get("count")
    to = next((f" to {one[name]!r}" for name in ("label", "split") if name in one), "")
    to = f" to version {one['version']}" if "version" in one else to
    if count is None:
        return f"{op}{to}"
    ids = one.get("ids")
    if ids:
        shown = ", ".join(map(repr, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")
    else:
        shown = f"where {one_line(one['where'])}" if "where" in one else ""
    return f"{op}{to}: {count} record{'' if count == 1 else 's'}{f' ({shown})' if shown else ''}"


_SHOWN = 3  # ids


def one_line(text: str, most: int | None = None) -> str:
    """What somebody wrote, in one line, so that no part of it can be taken for a line of another's; cut to `most`
    characters."""
    line = " ".join(text.split())
    return line if most is None or len(line) <= most else f"{line[:most]}…"


def chain(place: Place, data: bytes) -> Iterator[tuple[Manifest, bytes]]:
    """The manifest of these bytes and those of all versions before it, newest first, in the place of the dataset's
    files. Raises DamageError (one is missing, or is not the one that the next was made of), StorageError."""
    path: object = place.path / manifest.FILE
    number = None
    while True:
        promised = manifest.parsed(data, path)
        if number not in (None, promised.version):
            raise DamageError(f"{path}: is version {promised.version}, wanted {number}")
        number = promised.version - 1
        yield promised, data
        if promised.version == 1:
            return
        name = manifest.kept_name(promised.version - 1)
        path, data = place.address(name), manifest.kept(place, promised.version - 1)
        if hashlib.sha256(data).hexdigest() != promised.parent:
            raise DamageError(f"{path}: is not the manifest that version {promised.version} was made of")


def history(home: Place, version: int | None = None) -> tuple[Version, ...]:
    """All versions of the dataset in a place up to this one, by default the one that holds now, oldest first.

    Raises NotThereError, UsageError, DamageError, StorageError.
    """
    now = manifest.content(home)
    promised = manifest.parsed(now, home.path / manifest.FILE)
    if version is not None and not 1 <= version <= promised.version:
        raise UsageError(f"{home.path}: has no version {version}; it has 1 to {promised.version}")
    place = home.within(promised.folder)
    found = [Version.of(promised) for promised, _ in chain(place, now)]
    return tuple(one for one in reversed(found) if version is None or one.number <= version)


def since(home: Place, version: int) -> tuple[Version, ...]:
    """The versions after this one."""
    return tuple(one for one in history(home) if one.number > version)


def as_it_was(home: Place, fingerprint: str) -> Manifest | None:
    """The last version, of those before the one that holds now, that had this content; None where none had."""
    now = manifest.content(home)
    place = home.within(manifest.parsed(now, home.path / manifest.FILE).folder)
    found = (promised for promised, data in chain(place, now) if data is not now)
    return next((promised for promised in found if promised.fingerprint == fingerprint), None)


def common_rows(one: Manifest, other: Manifest) -> int:
    """How many rows, from the first on, are of the same records in two versions: those of the shards that both begin
    with."""
    n = 0
    for mine, theirs in zip(one.shards, other.shards, strict=False):
        if (mine.name, mine.sha256) != (theirs.name, theirs.sha256):
            break
        n += mine.records
    return n


def addressed(
    path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> tuple[str | os.PathLike[str], int | None]:
    """("cats", 3) of "cats@3", (path, None) of what names no version, or stands there under the whole of its name."""
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise UsageError(f"{path!r:.80} is no path of a dataset, wanted one, as a str or a Path")
    text = path.text if isinstance(path, Url) else os.fspath(path)
    match = _VERSION.fullmatch(text)
    if match is None or at(located(path), storage_options).exists():
        return path, None
    return match[1], int(match[2])
