"""Damaged and hostile copies of a file, the same ones in every run: what a source of strangers' files has to bear."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What stands where a number was wanted.
NUMBERS = (
    *(b"nan", b"NaN", b"inf", b"-inf", b"Infinity", b"-1", b"0", b"-0.0", b"1e400", b"-1e400", b"1e-400", b"1e308"),
    *(b"2147483648", b"9223372036854775808", b"9" * 400, b"", b" ", b"x", b"1,5", b"0x10", b"1_000", b"\xd9\xa3"),
    *(b"null", b"true", b'"7"', b"[]"),
)

# What stands where a name or a path was wanted.
NAMES = (
    *(b"../x", b"../../secret.jpg", b"..", b".", b"/etc/passwd", b"/", b"\\\\host\\share\\a.jpg", b"C:\\a.jpg"),
    *(b"file:///etc/passwd", b"http://localhost/a.jpg", b"a\0.jpg", b"a\nb.jpg", b"\x1b[31m", b"", b" ", b"\xff\xfe"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b"n" * 5000, b"&x;", b"<a>", b"%s%n", b"-rf", b"~", b"$HOME", b"CON"),
)

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_./-]*")


def mutated(data: bytes, seed: int) -> bytes:
    """A copy of `data` with one to four faults: flipped bits, cuts, insertions, slices that come again or change
    places, numbers and words that become others. The same for the same seed, on every machine."""
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 4)):
        data = draw.choice(_WAYS)(data, draw)
    return data


@contextlib.contextmanager
def watched(*roots: Path, seconds: int = 20) -> Iterator[None]:
    """Fails where what runs meanwhile, in this thread or another, opens or lists a file outside of `roots` (but for
    Python's own), opens a socket, starts a process, or takes longer than that."""
    inside = tuple(os.path.realpath(root) for root in (*roots, sys.prefix, sys.base_prefix, *sys.path) if str(root))
    strays: list[str] = []

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec"):
            strays.append(event)
        elif event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not any(path == root or path.startswith(root + os.sep) for root in inside):
                strays.append(path)

    def late(*_: object) -> None:
        raise TimeoutError(f"over {seconds} s")

    if not _watchers:
        sys.addaudithook(lambda event, args: [watcher(event, args) for watcher in _watchers[1:]] and None)
        _watchers.append(lambda event, args: None)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    _watchers.append(look)
    try:
        yield
    finally:
        _watchers.remove(look)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not strays, f"reached outside: {strays[:5]}"


_watchers: list[Callable[[str, tuple[Any, ...]], None]] = []  # the first stands for the hook, which can't be taken off


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\0"
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return data[: draw.randint(0, len(data))]


def _hole(data: bytes, draw: random.Random) -> bytes:
    start, stop = _slice(data, draw)
    return data[:start] + data[stop:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randint(0, len(data))
    return data[:at] + draw.choice([draw.randbytes(draw.randint(1, 9)), *NUMBERS, *NAMES]) + data[at:]


def _again(data: bytes, draw: random.Random) -> bytes:
    """A slice comes several times."""
    start, stop = _slice(data, draw)
    return data[:stop] + data[start:stop] * draw.choice([1, 1, 2, 50]) + data[stop:]


def _elsewhere(data: bytes, draw: random.Random) -> bytes:
    """A slice stands at another place."""
    start, stop = _slice(data, draw)
    rest = data[:start] + data[stop:]
    at = draw.randint(0, len(rest))
    return rest[:at] + data[start:stop] + rest[at:]


def _number(data: bytes, draw: random.Random) -> bytes:
    return _replaced(data, _NUMBER, NUMBERS, draw)


def _word(data: bytes, draw: random.Random) -> bytes:
    return _replaced(data, _WORD, NAMES, draw)


def _line(data: bytes, draw: random.Random) -> bytes:
    """A line is gone, doubled, or its end is another one."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return b"\n"
    at = draw.randrange(len(lines))
    lines[at] = draw.choice([b"", lines[at] * 2, lines[at].rstrip() + b"\r\n", lines[at].rstrip(), b"\n" + lines[at]])
    return b"".join(lines)


def _encoding(data: bytes, draw: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return draw.choice([b"\xef\xbb\xbf" + data, text.encode("utf-16"), text.encode("latin-1", errors="replace")])


def _replaced(data: bytes, what: re.Pattern[bytes], by: tuple[bytes, ...], draw: random.Random) -> bytes:
    found = list(what.finditer(data))
    if not found:
        return _insert(data, draw)
    match = draw.choice(found)
    return data[: match.start()] + draw.choice(by) + data[match.end() :]


def _slice(data: bytes, draw: random.Random) -> tuple[int, int]:
    """Where a slice of at most a hundred bytes begins and ends."""
    start = draw.randint(0, len(data))
    return start, min(len(data), start + draw.randint(0, 100))


# Numbers and words as often as all the rest: faults that get past a parser are the interesting ones.
_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _cut, _hole, _insert, _again, _elsewhere, _line, _encoding),
    *(_number, _word) * 4,
)
