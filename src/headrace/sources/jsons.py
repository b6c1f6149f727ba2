"""Large JSON files, element by element: of a file of any size no more than one element is in memory at once.

The standard library's decoder reads each element (it is written in C, and says where it failed); what elements mean is
left to the sources.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import DataError, StorageError

CHUNK = 1 << 20  # characters read at once
LONGEST = 1 << 26  # characters of one element: far beyond any annotation, and still memory that everybody has

_SPACE = re.compile(r"[ \t\n\r]*")
_NEAR = 12  # characters: this near to the end something may be cut off, such as -Infinity or an escape


def walk(path: Path) -> Iterator[tuple[str | None, int | None, Any]]:
    """(key, number, element) of the lists in the object that the file holds, in the order of the file.

    A value that is no list, or an empty one, comes as (key, None, value). A file that is itself a list gives
    (None, number, element), and any other value (None, None, value).
    Raises StorageError, and DataError with line and column: where the file is no JSON, ends too early, says a key
    twice, or has an element of more than 64 MB.
    """
    for key, number, element, _ in places(path):
        yield key, number, element


def places(path: Path, file: BinaryIO | None = None) -> Iterator[tuple[str | None, int | None, Any, tuple[int, int]]]:
    """The same, and where each stands in the file: (offset, length) in bytes. `file`: it is open already, and stays so.

    Raises as walk does."""
    try:
        with path.open("rb") if file is None else contextlib.nullcontext(file) as open_:
            open_.seek(0)
            yield from _walk(_Text(path, open_))
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error


def _walk(text: _Text) -> Iterator[tuple[str | None, int | None, Any, tuple[int, int]]]:
    first = text.peek()
    if first == "{":
        text.take("{")
        keys: set[str] = set()
        if text.peek() != "}":
            while True:
                if text.peek() != '"':
                    raise text.error("wanted a key in double quotes")
                key = text.value()
                if key in keys:
                    raise text.error(f"the key {key!r} occurs twice")
                keys.add(key)
                text.take(":")
                if text.peek() == "[":
                    for number, element, place in _elements(text):
                        yield key, number, element, place
                else:
                    yield key, None, *text.placed()
                if text.peek() != ",":
                    break
                text.take(",")
        text.take("}")
    elif first == "[":
        for number, element, place in _elements(text):
            yield None, number, element, place
    else:
        yield None, None, *text.placed()
    if text.peek():
        raise text.error("wanted the end of the file")


def _elements(text: _Text) -> Iterator[tuple[int | None, Any, tuple[int, int]]]:
    text.take("[")
    if text.peek() == "]":
        yield None, [], (text.offset(), 0)
    else:
        number = 0
        while True:
            text.peek()
            yield number, *text.placed()
            number += 1
            if text.peek() != ",":
                break
            text.take(",")
    text.take("]")


class _Text:
    """The text of a file, of which a window is in memory: `buffer` from `at` on."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self.buffer, self.at = "", 0
        self.line, self.column = 1, 1  # where the buffer begins
        self.bytes, self.ended = 0, False
        self.known = 0, 0  # a character of the buffer, and the byte of the file where it stands
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.scan = json.JSONDecoder().raw_decode
        self.fill(CHUNK)

    def fill(self, size: int) -> None:
        """Reads on, and lets go of what was taken."""
        taken = self.buffer[: self.at]
        self.line, self.column = self._place(taken)
        self.known = 0, self.offset()
        data = self.file.read(size)
        if not self.bytes and data.startswith((b"\xff\xfe", b"\xfe\xff")):
            hint = "convert it: iconv -f UTF-16 -t UTF-8"
            raise DataError(f"{self.path}:1: the file is UTF-16, wanted UTF-8; {hint}")
        self.ended = not data
        try:
            more = self.decode(data, self.ended)
        except UnicodeDecodeError as error:
            byte = self.bytes + len(data) - len(error.object) + error.start
            raise DataError(f"{self.path}: byte {byte} is no UTF-8 ({error.reason}); is the file cut short?") from None
        if self.bytes <= len("\ufeff".encode()) and more.startswith("\ufeff"):
            more = more[1:]
            self.known = 0, len("\ufeff".encode())
        self.bytes += len(data)
        self.buffer, self.at = self.buffer[self.at :] + more, 0

    def peek(self) -> str:
        """The next character that is no white space, not taken; "" at the end of the file."""
        while True:
            found = _SPACE.match(self.buffer, self.at)
            assert found is not None
            self.at = found.end()
            if self.at < len(self.buffer) or self.ended:
                return self.buffer[self.at : self.at + 1]
            self.fill(CHUNK)

    def take(self, character: str) -> None:
        """Passes over the next character. Raises DataError when it is another one."""
        if self.peek() != character:
            raise self.error(f"wanted {character!r}")
        self.at += 1

    def offset(self) -> int:
        """The byte of the file that the next character stands at."""
        at, byte = self.known
        passed = self.at - at
        if not self.buffer.isascii():  # each character is encoded again once, however many values are asked for
            passed = len(self.buffer[at : self.at].encode())
        self.known = self.at, byte + passed
        return byte + passed

    def placed(self) -> tuple[Any, tuple[int, int]]:
        """The value that begins here, and where: (offset, length) in bytes. Raises DataError."""
        begin = self.offset()
        return self.value(), (begin, self.offset() - begin)

    def value(self) -> Any:
        """The value that begins here. Raises DataError."""
        size = CHUNK
        while True:
            try:
                found, end = self.scan(self.buffer, self.at)
            except json.JSONDecodeError as error:
                near = error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - _NEAR
                if self.ended or not near:
                    raise self.error(error.msg[0].lower() + error.msg[1:], error.pos) from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                raise self.error(str(error).split(";")[0].lower()) from None
            else:
                if end < len(self.buffer) - _NEAR or self.ended:  # or else a number may go on
                    self.at = end
                    return found
            if len(self.buffer) - self.at > LONGEST:
                raise self.error(f"an element of more than {LONGEST} characters")
            self.fill(size)
            size *= 2  # so that a long element is not scanned over and over

    def error(self, reason: str, at: int | None = None) -> DataError:
        """What is wrong, and where: at the buffer's character `at`, or at the next one."""
        at = self.at if at is None else at
        line, column = self._place(self.buffer[:at])
        if self.ended and not (self.buffer[at:].strip() and self.buffer.rstrip().endswith(("}", "]", ">"))):
            reason += "; is the file cut short?"
        return DataError(f"{self.path}:{line}: column {column}: no sound JSON: {reason}")

    def _place(self, taken: str) -> tuple[int, int]:
        """(line, column) of what comes after `taken`."""
        lines = taken.count("\n")
        return self.line + lines, len(taken) - taken.rfind("\n") if lines else self.column + len(taken)
