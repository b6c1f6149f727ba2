"""Tar files, member by member: what each is called, and where in the file its bytes lie.

POSIX ustar and pax, GNU's long names, and old tars; plain, or compressed by gzip. Reads the headers alone, one after
the other, and keeps none of them. Headers are judged by the standard library (tarfile.TarInfo.frombuf); tarfile's own
reading ends without a word at the first damaged header, while this one says where it is and goes on after it.
What members are is left to who asks.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

from headrace.errors import DataError, StorageError

_BLOCK = tarfile.BLOCKSIZE  # bytes of a header; all that follows begins at a multiple of it
_RECORD = tarfile.RECORDSIZE  # bytes: writers fill the end of a tar up to a multiple of it
_MOST_NAME = 1 << 16  # bytes of a long name, or of a pax header
_SEARCHED = 1 << 20  # bytes at a time, when the next header is searched for
_ZEROS = bytes(_BLOCK)
_MAGIC_AT = 257  # of a header's bytes
_FED = 1 << 16  # compressed bytes at a time

_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress"}
_GZIP = b"\x1f\x8b"
_GZIP_ALONE = 16 + zlib.MAX_WBITS

_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
# Nothing follows their headers, whatever size these say: some writers put there that of what a link leads to.
_EMPTY = {
    tarfile.LNKTYPE: "links",
    tarfile.SYMTYPE: "links",
    tarfile.DIRTYPE: "folders",
    tarfile.CHRTYPE: "devices",
    tarfile.BLKTYPE: "devices",
    tarfile.FIFOTYPE: "devices",
}


class Member(NamedTuple):
    """A file in the tar: `size` bytes from byte `offset` on, of the unpacked tar where it is compressed. `begin`: where
    its header begins. `fault`: why its bytes can't be had."""

    name: str
    begin: int
    offset: int
    size: int
    fault: str | None = None


class Other(NamedTuple):
    """A member that is no file: links, folders, devices."""

    kind: str


class Gap(NamedTuple):
    """Bytes from `begin` to `end` that are no sound part of a tar; what was in them is lost."""

    begin: int
    end: int
    reason: str


Piece: TypeAlias = Member | Other | Gap


class Tar:
    """An open tar. `plain`: its members' bytes lie in the file as they are. `unended`: once it is read, that it ends
    without its end mark, as one does that was cut between two members."""

    def __init__(self, path: Path, file: _File, size: int | None) -> None:
        self.path, self.plain = path, size is not None
        self.unended = False
        self._file, self._size = file, size
        self._at = 0  # where what was read last ends

    def content(self, member: Member, most: int) -> bytes:
        """The bytes of the member that came last. Raises ValueError: they can't be had, or are more than `most`."""
        if member.fault is not None:
            raise ValueError(member.fault)
        if member.size > most:
            raise ValueError(f"{member.size} bytes, wanted at most {most}")
        data = self._read(member.offset, member.size)
        if len(data) < member.size:
            raise ValueError(f"{member.size} bytes begin at byte {member.offset}, the tar ends at byte {self._at}")
        return data

    def pieces(self) -> Iterator[Piece]:
        """All members, with what is damaged between them. Raises StorageError."""
        everywhere: dict[str, str] = {}
        at: int | None = 0
        while at is not None:
            at = yield from self._piece(at, everywhere)
        if (fault := self._file.fault) is not None:
            yield Gap(self._at, self._at, fault)

    def _piece(self, begin: int, everywhere: dict[str, str]) -> Generator[Piece, None, int | None]:
        """The member that begins here, or what stands in its place; returns where the next begins, None for the end.

        `everywhere`: what pax headers say of all members that follow.
        """
        at = begin
        said = dict(everywhere)
        long_name: str | None = None
        lost: str | None = None
        while True:
            head = self._read(at, _BLOCK)
            if len(head) < _BLOCK or head == _ZEROS:
                return (yield from self._end(begin, at, head))
            try:
                info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
                if info.size < 0:
                    raise tarfile.HeaderError(f"a size of {info.size}")
            except tarfile.HeaderError as error:
                found = self._next_header(at + _BLOCK)
                yield Gap(begin, self._at if found is None else found, f"no sound header at byte {at} ({error})")
                return found
            offset = at + _BLOCK
            if info.type not in (*_LONG, *_PAX):
                break
            data = self._read(offset, info.size) if info.size <= _MOST_NAME else b""
            if len(data) < info.size:
                lost = f"what is said of a member at byte {at} has {info.size} bytes, wanted at most {_MOST_NAME}"
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XGLTYPE:
                everywhere |= _pax(data)
                said = everywhere | said
            elif info.type in _PAX:
                said |= _pax(data)
            at = offset + _padded(info.size)
        fault: str | None = None
        name = said.get("path") or long_name or info.name
        size = int(said["size"]) if re.fullmatch("[0-9]{1,20}", said.get("size", "")) else info.size
        if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in said):
            name = said.get("GNU.sparse.name", name)
            fault = "stored with its holes left out; make the tar again without --sparse"
            if info.type == tarfile.GNUTYPE_SPARSE:
                offset = self._after_holes(head, offset)
        if info.type in _EMPTY:
            yield Other(_EMPTY[info.type])
            return offset
        if self._size is not None and offset + size > self._size:
            yield Gap(begin, self._size, f"{name!r:.200}: {size} bytes begin at byte {offset}, the tar ends before")
            return None
        after = offset + _padded(size)
        if lost is not None:
            yield Gap(begin, after, lost)
        else:
            yield Member(name, begin, offset, size, fault) if info.type in _FILES else Other("unknown members")
        return after

    def _end(self, begin: int, at: int, head: bytes) -> Generator[Piece, None, int | None]:
        """What to make of zeros, or of less than a header, in the place of a header."""
        if begin < at:
            yield Gap(begin, at, "a long name or a pax header without the member that it is of")
        if head.strip(b"\0"):
            yield Gap(at, at + len(head), f"{len(head)} bytes are left, a header has {_BLOCK}: cut short")
            return None
        if len(head) < _BLOCK:
            if at >= (end := self._file.end) + _BLOCK:
                yield Gap(end, at, "the last member goes on here, and the tar ends: cut short")
                return None
            self.unended = at > 0 and self._file.fault is None
            return None
        found = self._next_header(at + _BLOCK)
        # One tar after the other, or a hole: only the first has two blocks of zeros and fills its last record.
        if found is not None and (found < at + 2 * _BLOCK or found % _RECORD):
            yield Gap(at, found, "zeros where a header should be")
        return found

    def _after_holes(self, head: bytes, offset: int) -> int:
        """Where a sparse member of GNU's begins: after the blocks that say where its holes are."""
        more = head[482]
        while more and len(block := self._read(offset, _BLOCK)) == _BLOCK:
            offset, more = offset + _BLOCK, block[504]
        return offset

    def _next_header(self, at: int) -> int | None:
        """Where at or after byte `at` the next header stands that says it is one and whose sum is right."""
        while len(data := self._read(at, _SEARCHED)) >= _BLOCK:
            # At any byte: where some have gone missing, or came in, all that follow have moved.
            i = data.find(b"ustar", _MAGIC_AT)
            while i >= 0:
                if _is_header(data[i - _MAGIC_AT : i - _MAGIC_AT + _BLOCK]):
                    return at + i - _MAGIC_AT
                i = data.find(b"ustar", i + 1)
            at += len(data) - _BLOCK + 1
        return None

    def _read(self, at: int, n: int) -> bytes:
        try:
            data = self._file.read(at, n)
        except OSError as error:
            raise StorageError(f"{self.path}: {(error.strerror or str(error)).lower()}") from error
        self._at = at + len(data)
        return data


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Tar]:
    """The tar at `path`. Raises StorageError, DataError: no tar, or compressed by anything but gzip."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            head = file.read(_BLOCK)
            size = file.seek(0, 2)
        except OSError as error:
            raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        if head.startswith(_GZIP):
            file.seek(0)
            yield Tar(path, _Unpacked(file), None)
            return
        for start, kind in _OTHERS.items():
            if head.startswith(start):
                raise DataError(f"{path}: is compressed by {kind}, wanted a plain tar or one of gzip; unpack it")
        if not size:
            raise DataError(f"{path}: is empty, 0 bytes")
        yield Tar(path, _Plain(file, size), size)


def looks_like(path: Path) -> bool:
    """Whether the file begins as a tar, compressed or not. Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(_BLOCK)
        if head.startswith(_GZIP):
            with path.open("rb") as file:
                head = _Unpacked(file).read(0, _BLOCK)
    except OSError as error:
        raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return len(head) == _BLOCK and (head == _ZEROS or _is_header(head))


class _File(Protocol):
    """`fault`: why it ended before its end; `end`: where what was read of it so far ends, at least."""

    fault: str | None
    end: int

    def read(self, at: int, n: int, /) -> bytes: ...


class _Plain:
    fault: str | None = None

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.end = file, size

    def read(self, at: int, n: int) -> bytes:
        if self._file.tell() != at:  # a seek throws away what was read ahead
            self._file.seek(min(at, 1 << 62))
        return self._file.read(n)


class _Unpacked:
    """What gzip packed comes once, from its beginning on: of what came, a search's reach is held."""

    def __init__(self, file: BinaryIO) -> None:
        self.fault: str | None = None
        self.end = 0
        self._file, self._stream = file, zlib.decompressobj(_GZIP_ALONE)
        self._fed = False  # whether the stream has begun
        self._waiting, self._has_more = b"", False  # what is to be unpacked, and whether the stream holds some as well
        self._begin, self._held = 0, b""

    def read(self, at: int, n: int) -> bytes:
        pieces = [self._held]
        while at + n > (end := self.end) and (more := self._more()):
            pieces.append(more)
            self.end += len(more)
            kept = min(at, end - 2 * _SEARCHED)
            while self._begin + len(pieces[0]) <= kept:
                self._begin += len(pieces.pop(0))
            if (cut := kept - self._begin) > 0:
                self._begin, pieces[0] = kept, pieces[0][cut:]
        self._held = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        assert at >= self._begin
        return self._held[at - self._begin : at - self._begin + n]

    def _more(self) -> bytes:
        """Some bytes, none at the end."""
        out: list[bytes] = []
        size = 0
        while size < _SEARCHED and self.fault is None:
            if not self._waiting and not self._has_more:
                self._waiting = self._file.read(_FED)
                if not self._waiting:
                    if self._fed and not self._stream.eof:
                        self.fault = "the gzip stream is cut"
                    break
            made = self._unpack()
            size += len(made)
            out.append(made)
        return b"".join(out)

    def _unpack(self) -> bytes:
        """What comes of what is waiting, _SEARCHED bytes of it at most: a thousandth of it may be all that was fed."""
        data, self._waiting, self._has_more = self._waiting, b"", False
        if self._stream.eof:  # one after the other, or the zeros of a tape
            data = data.lstrip(b"\0")
            if not data:
                return b""
            self._stream = zlib.decompressobj(_GZIP_ALONE)
        before = self._stream.copy()
        self._fed = True
        try:
            made = self._stream.decompress(data, _SEARCHED)
        except zlib.error as error:
            self.fault = f"the gzip stream is damaged ({error})"
            # What came before the damage was lost with it: once more, in small bites.
            out: list[bytes] = []
            with contextlib.suppress(zlib.error):
                out.extend(before.decompress(data[i : i + 1]) for i in range(len(data)))
            return b"".join(out)
        self._waiting = self._stream.unused_data or self._stream.unconsumed_tail
        self._has_more = len(made) == _SEARCHED
        return made


def _is_header(head: bytes) -> bool:
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").size >= 0
    except tarfile.HeaderError:
        return False


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


_SAYS = ("path", "size", "GNU.sparse.name", "GNU.sparse")


def _pax(data: bytes) -> dict[str, str]:
    """What of _SAYS a pax header says: `LENGTH KEY=VALUE` and a line break each. What makes no sense ends it."""
    out: dict[str, str] = {}
    while match := re.match(rb"([0-9]{1,9}) ([^=]+)=", data):
        length = int(match[1])
        if not match.end() < length <= len(data):
            break
        value = data[match.end() : length - 1]
        key = match[2].decode("utf-8", "surrogateescape")
        if key.startswith("GNU.sparse.") and key != "GNU.sparse.name":
            key = "GNU.sparse"
        if key in _SAYS:
            out[key] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return out
