"""The files of an adoption: which they are, where they lie, of which split, and compressed ones unpacked."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.adopting import schema
from headrace.adopting.schema import Schema
from headrace.errors import DataError, NotThereError, UsageError
from headrace.format import tfrecord
from headrace.place import local
from headrace.place.address import Location, Place, Url, located
from headrace.place.local import BLOCK, Slices
from headrace.place.open import at
from headrace.sources.walking import natural
from headrace.splits import DEFAULT_SPLIT

_SAMPLED_SHARDS, _SAMPLED_RECORDS = 16, 16
_SHOWN = 20
# Of a compressed file, how many times its bytes it may unpack to; and what any one may, or all of them beside that.
# Encoded images hardly shrink, but what is not a file of records has to be searched for one, 10 to 20 MB a second.
_MOST_GROWTH, _SMALL = 20, 1 << 24

# What a shard in a folder is called: x.tfrecord, x.tfrec.gz, x.tfrecord-00000-of-00010, x-00000-of-00010.
_SHARD_NAME = re.compile(r"^[^.].*\.tfrec(ord)?s?(\.(gz|zlib))?$|^[^.].*-[0-9]+-of-[0-9]+$")

# The words in the name of a file, or of its folder, that say its split.
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Bytes `begin` to `end` of a file that are no sound record. `record` counts from 0, a skipped range as one;
    the contradiction stands at byte `offset`."""

    shard: str
    record: int
    begin: int
    end: int
    offset: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.shard}, record {self.record}, byte {self.offset}: {self.reason}; "
            f"bytes {self.begin} to {self.end} ({self.end - self.begin}) are no sound record"
        )


def listed(items: Sequence[object]) -> str:
    lines = "".join(f"\n  {item}" for item in items[:_SHOWN])
    return lines + (f"\n  ... and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


@dataclass(slots=True, kw_only=True)
class ShardFile:
    """A shard: where it is, its `name` in the manifest, what ids call it, and what is known of it."""

    path: Location
    name: str
    called: str
    split: str
    size: int
    version: str
    ends: str
    place: Place
    marks: Any = field(default_factory=hashlib.sha256)

    def content(self, block: int = BLOCK) -> Slices:
        """Its bytes, for one thread, read in blocks of so many."""
        return Slices(self.place, self.path.name, self.size, block)

    def check_unchanged(self) -> None:
        if (self.place.size(self.path.name), self.place.version(self.path.name)) != (self.size, self.version):
            raise DataError(f"{self.path}: was written to while it was read; adopt it when it is finished")


def absolute(path: Location) -> Location:
    """The path without links but its own."""
    if isinstance(path, Url):
        return path
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def find(shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Location]:
    """The files, those of a folder in natural order. Raises NotThereError, UsageError, StorageError."""
    given = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
    out: dict[Location, None] = {}
    for one in given:
        path = absolute(located(one))
        if _is_folder(path):
            inside = [name for name in at(path).names() if _SHARD_NAME.search(name)]
            if not inside:
                raise UsageError(
                    f"{path}: no file in it is called x.tfrecord or x-00000-of-00010; name the files themselves"
                )
            out |= dict.fromkeys(path / name for name in sorted(inside, key=natural))
        elif isinstance(path, Url) or path.exists():
            out[path] = None
        else:
            raise NotThereError(f"{one}: no such file")
    if not out:
        raise UsageError("no shards are given")
    for path in out:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise UsageError(f"{path!r}: the name is not UTF-8; rename it") from None
        if isinstance(path, Path) and not path.is_file():
            raise UsageError(f"{path}: no regular file")
    return list(out)


def _is_folder(path: Location) -> bool:
    """Whether shards are to be looked for in it: of a URL, whether there is no object of its own name."""
    if isinstance(path, Path):
        return path.is_dir()
    try:
        at(path.parent).size(path.name)
    except NotThereError:
        if not at(path).exists():
            raise NotThereError(f"{path}: no such file or folder") from None
        return True
    return False


def check_outside(out: Location, paths: Sequence[Location]) -> None:
    """Raises UsageError when a shard lies in the folder that would be replaced, or where the dataset is not."""
    for path in paths:
        if isinstance(out, Url) or isinstance(path, Url):
            if isinstance(out, Url) and isinstance(path, Path):
                raise UsageError(
                    f"{out}: the shards are files of this machine ({path}), which nobody reaches who reads the store; "
                    "choose a folder, or copy the shards into the store"
                )
            inside = str(path).startswith(f"{out}/")
        else:
            inside = path.resolve().is_relative_to(out.resolve())
        if inside:
            raise UsageError(f"{out}: the shards lie in it ({path.name}); choose another place for the dataset")


def name_from(folder: Location, path: Location) -> str:
    """`path` as the dataset in `folder` names it: relative where both lie below one folder, which may then be moved;
    absolute elsewhere, and in a store."""
    above = absolute(folder).parent
    if isinstance(path, Url) or isinstance(above, Url):
        return str(path)
    return f"../{path.relative_to(above).as_posix()}" if path.is_relative_to(above) else str(path)


def open_files(
    paths: Sequence[Location],
    folder: Location,
    staging: Path,
    split: str | None,
    *,
    convert: bool,
    notes: list[str],
) -> tuple[list[ShardFile], list[Skipped]]:
    """The shards and, of compressed ones that were converted, where they were cut. Raises UsageError, StorageError."""
    common = _common(paths)
    files: list[ShardFile] = []
    cut: list[Skipped] = []
    by_name = 0
    compressed = [(path, kind) for path in paths if (kind := _compression(path)) is not None]
    if compressed and not convert:
        path, kind = compressed[0]
        more = f" (and {len(compressed) - 1} more)" if len(compressed) > 1 else ""
        raise UsageError(
            f"{path}{more}: is a {kind} file, in which no record can be reached by itself; "
            "pass convert=True to unpack such files into the dataset's folder, or unpack them yourself"
        )
    kinds = dict(compressed)
    left = _MOST_GROWTH * sum(_size_of(path) for path in kinds) + _SMALL
    for path in paths:
        called = str(path).removeprefix(common)
        there, name = path, name_from(folder, path)
        if path in kinds:
            name = f"{len(files):05d}-{path.name.removesuffix('.gz').removesuffix('.zlib')}"
            there = unpacked = staging / name
            end = _unpack(path, kinds[path], unpacked, min(left, max(_MOST_GROWTH * _size_of(path), _SMALL)))
            left -= _size_of(unpacked)
            if end is not None:
                cut.append(end)
        word = split or _split_of(path)
        by_name += word is not None
        place = at(there.parent)
        with local.explained(place.address(there.name)):
            files.append(
                ShardFile(
                    path=there,
                    name=name,
                    called=called,
                    split=word or DEFAULT_SPLIT,
                    size=place.size(there.name),
                    version=place.version(there.name),
                    ends=place.digest_ends(there.name),
                    place=place,
                )
            )
    if split is None:
        counts = Counter(file.split for file in files)
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        rest = len(files) - by_name
        notes.append(
            f"splits by file name: {told} file{'s' if len(files) > 1 else ''}"
            + (f"; {rest} of them say{'s' if rest == 1 else ''} no split and count as {DEFAULT_SPLIT}" if rest else "")
        )
    if kinds:
        notes.append(f"{len(kinds)} compressed files were unpacked into {folder}")
    order = {name: i for i, name in enumerate(dict.fromkeys(("train", "val", "test", *(f.split for f in files))))}
    files.sort(key=lambda file: order[file.split])
    return files, cut


def _common(paths: Sequence[Location]) -> str:
    """What the names of all these files begin with: a folder, and its slash."""
    folders = [str(path).split("/")[:-1] for path in paths]
    n = 0
    while all(len(folder) > n and folder[n] == folders[0][n] for folder in folders):
        n += 1
    return "/".join([*folders[0][:n], ""])


def _split_of(path: Location) -> str | None:
    """The split that the first such word of a file's name says, or else the whole name of its folder."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next(
        (_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), _SPLIT_WORDS.get(path.parent.name.lower())
    )


def _compression(path: Location) -> str | None:
    """GZIP or ZLIB by the file's first bytes, None for anything else. A file of records begins with a sound length."""
    head = at(path.parent).read(path.name, 0, tfrecord.HEADER_BYTES)
    if len(head) == tfrecord.HEADER_BYTES and tfrecord.masked_crc(head[:8]) == int.from_bytes(head[8:], "little"):
        return None
    if head.startswith(b"\x1f\x8b\x08"):
        return "GZIP"
    # RFC 1950: deflate, a window of up to 32 KiB, and the two bytes together a multiple of 31.
    return (
        "ZLIB"
        if len(head) > 1 and head[0] & 15 == 8 and head[0] >> 4 < 8 and not int.from_bytes(head[:2]) % 31
        else None
    )


def _size_of(path: Location) -> int:
    return at(path.parent).size(path.name)


def _unpack(path: Location, kind: str, out: Path, most: int) -> Skipped | None:
    """Unpacks a compressed file into `out`, `most` bytes; where it is cut or damaged what was read before is kept, and
    that said.

    Raises StorageError, DataError: it grows as no records of images do, and would fill the disk.
    """
    reason = None
    raw = io.BufferedReader(_Raw(at(path.parent), path.name), BLOCK)
    with local.explained(str(path)), raw, out.open("wb") as file:
        try:
            for block in _gzip(raw) if kind == "GZIP" else _zlib(raw):
                if file.tell() + len(block) > most:
                    raise DataError(
                        f"{path}: unpacks to more than {most} bytes; as images hardly shrink, wanted are at most "
                        f"{_MOST_GROWTH} times its own, {_SMALL} where it is small, and that for all such files; "
                        "unpack it yourself if it is a file of images all the same, and adopt what comes of it"
                    )
                file.write(block)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"the {kind} stream is cut or damaged ({error})"
        fault = raw.tell()
        end = file.tell()
    if reason is None:
        return None
    return Skipped(shard=path.name, record=0, begin=end, end=end, offset=fault, reason=reason)


class _Raw(io.RawIOBase):
    """A file of a place as a stream."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name, self._at = place, name, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._place.read(self._name, self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _gzip(raw: Any) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=raw) as stream:
        while block := stream.read1(1 << 20):
            yield block


def _zlib(raw: Any) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    while block := raw.read(1 << 20):
        while block and not stream.eof:
            yield stream.decompress(block, 1 << 24)
            block = stream.unconsumed_tail
    if not stream.eof:
        raise EOFError("it ends before its end marker")


def sample(files: Sequence[ShardFile]) -> Schema:
    """The schema of the first records of some files, evenly chosen. Raises DataError: no record in any of them."""
    whole = [file for file in files if file.size]
    chosen = {len(whole) * i // _SAMPLED_SHARDS for i in range(_SAMPLED_SHARDS)} if whole else set()
    found = schema.look(payload for i in sorted(chosen) for payload in _first_payloads(whole[i]))
    if not found.records:
        lines = []
        for file in files[:_SHOWN]:
            gap = next((p for p in tfrecord.walk(file.content()) if isinstance(p, tfrecord.Gap)), None)
            lines.append(f"{file.path}: {'0 bytes' if gap is None else f'byte {gap.offset}: {gap.reason}'}")
        raise DataError(f"no sound record in any of {len(files)} files{listed(lines)}")
    return found


def _first_payloads(file: ShardFile) -> Iterator[bytes]:
    data = file.content()
    left = _SAMPLED_RECORDS
    for piece in tfrecord.walk(data):
        if isinstance(piece, tfrecord.Span):
            with contextlib.suppress(tfrecord.BadRecord):
                yield bytes(tfrecord.payload_at(data, *piece))
                left -= 1
        if not left:
            return
