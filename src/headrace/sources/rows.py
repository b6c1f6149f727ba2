"""Rows of a text table (CSV, TSV) with the line and the byte at which each begins, so that it can be read again.

No more than a row is in memory at once. A row that is none comes with its fault, and with no more than its own line is
anything lost. What cells mean is left to the sources.
"""

from __future__ import annotations

import io
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths

LONGEST = 1 << 20  # bytes of a row: far beyond any path, caption and list of boxes
_LONGEST_QUOTED = 1 << 16  # characters of a row of several lines
_BEGINNING = 4096  # bytes of an overlong line that tell whose it is
_HEAD = 1 << 16  # bytes that tell the separator
_QUOTED = re.compile(r' *"[^"]*(?:""[^"]*)*+"')
_BYTES = re.compile("[\udc80-\udcff]")  # that are no UTF-8
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """The `cells` of a row that begins at byte `at` and in `line`, from 1 on, and the `fault` that it has as a row.

    Cells are without white space around them, and with U+DC80 to U+DCFF for bytes that are no UTF-8.
    """

    at: int
    line: int
    cells: list[str]
    fault: str | None


class Rows:
    """The rows of an open file, as often as they are asked for. `width`: cells wanted of a row.

    Blank lines are passed over. Quotes go by RFC 4180 (a quote in a quoted cell is doubled, and line breaks are
    text); a row whose quotes don't close, or that only has another number of cells because they close later, is its
    first line and a fault. An overlong line is one too.
    """

    def __init__(self, file: BinaryIO, separator: str, *, width: int | None = None) -> None:
        self.file = file
        self.separator = separator
        self.width = width
        # A quoted cell, or one to the next separator. What stands between a closing quote and the separator is none.
        self._cell = re.compile(
            rf'[ ]*"([^"]*(?:""[^"]*)*)"[ ]*(?={re.escape(separator)}|$)|([^{re.escape(separator)}]*)'
        )

    def walk(self, at: int = 0, line: int = 1, *, over: Callable[[bytes], bool] | None = None) -> Iterator[Row]:
        """From byte `at` on, which is where `line` begins. `over`: which lines to pass over that have no quotes."""
        file, separator, width = self.file, self.separator, self.width
        file.seek(at)
        while data := file.readline(LONGEST + 1):
            begin, of = at, line
            at, line = at + len(data), line + 1
            if len(data) > LONGEST:
                cells = data[:_BEGINNING].decode("utf-8", "surrogateescape").split(separator)[:-1]
                while data and not data.endswith(b"\n"):
                    data = file.readline(1 << 16)
                    at += len(data)
                yield Row(begin, of, [cell.strip() for cell in cells], f"a line of more than {LONGEST} bytes")
                continue
            if over is not None and b'"' not in data and over(data):
                continue
            if begin == 0:
                data = data.removeprefix(_BOM)
            text = data.decode("utf-8", "surrogateescape").rstrip("\r\n\x1a")  # DOS ends a file by 0x1a
            if not text or text.isspace():
                continue
            if '"' in text:
                row, at, line = self._quoted(begin, of, text)
                yield row
                continue
            cells = [cell.strip() for cell in text.split(separator)]
            fault = None if width in (None, len(cells)) and text.isascii() else self._fault(cells)
            yield Row(begin, of, cells, fault)

    def _quoted(self, at: int, line: int, first: str) -> tuple[Row, int, int]:
        """The row that begins with a line that has quotes, and where the next one begins."""
        next_at, next_line = self.file.tell(), line + 1
        text, lines = first, 1
        cells, closed, start = self._split(text, 0)
        most = LONGEST if self.width is None else self.width
        while not closed and len(cells) < most and len(text) <= _LONGEST_QUOTED:
            # The line break that was stripped is a part of the cell. Nothing can close before the next quote.
            more, length = ["\n"], len(text)
            while length <= _LONGEST_QUOTED and (data := self.file.readline(LONGEST + 1)):
                lines, length = lines + 1, length + len(data)
                more.append(data.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
                if b'"' in data:
                    break
            if len(more) == 1:
                break
            text = (text + "".join(more)).rstrip("\r\n\x1a")
            rest, closed, start = self._split(text, start)
            cells += rest
        if closed and (lines == 1 or self.width in (None, len(cells))):
            return Row(at, line, cells, self._fault(cells)), self.file.tell(), line + lines
        self.file.seek(next_at)
        cells = [cell.strip().strip('"') for cell in first.split(self.separator)]
        return Row(at, line, cells, "a quote that is not closed"), next_at, next_line

    def _split(self, text: str, start: int) -> tuple[list[str], bool, int]:
        """The whole cells of a text from `start` on; whether it ends with one, and else where the last begins."""
        cells: list[str] = []
        while True:
            match = self._cell.match(text, start)
            assert match is not None  # the second way takes anything
            quoted, plain = match.groups()
            # A quoted cell and more text, as in "a" b, is taken as it stands.
            if quoted is None and re.match(' *"', plain) and _QUOTED.match(text, start) is None:
                return cells, False, start
            cells.append(plain.strip() if quoted is None else quoted.replace('""', '"'))
            start = match.end()
            if start == len(text):
                return cells, True, start
            start += 1

    def _fault(self, cells: Sequence[str]) -> str | None:
        if self.width not in (None, len(cells)):
            return f"{len(cells)} cells, wanted {self.width}"
        return "the row is not UTF-8" if _BYTES.search("".join(cells)) else None


class Index:
    """Which rows are of which of the `names`, in flat arrays: 28 bytes a row."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = {name: code for code, name in enumerate(names)}
        self._code, self._line, self._at = array("i"), array("q"), array("q")

    def add(self, name: str, at: int, line: int) -> None:
        """A row, of a name that may be new."""
        self._code.append(self.names.setdefault(name, len(self.names)))
        self._line.append(line)
        self._at.append(at)

    def close(self) -> None:
        """All rows are there."""
        code = np.asarray(self._code)
        self._order = np.argsort(code, kind="stable")
        self._ends = np.cumsum(np.bincount(code, minlength=len(self.names)))

    def places(self, code: int) -> list[tuple[int, int]]:
        """(byte, line) of the rows of the name of this number, in their order."""
        of = self._order[self._ends[code - 1] if code else 0 : self._ends[code]].tolist()
        return [(self._at[i], self._line[i]) for i in of]


def open_table(path: Path) -> BinaryIO:
    """The file, to be closed; a copy of one in a store, as rows are read again. Raises StorageError."""
    try:
        return paths.held(path)
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error


def check_table(path: Path) -> Path:
    """Raises NotThereError, UsageError (no regular file)."""
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file, wanted a table in text")
    return path


def head(path: Path) -> str:
    """How a table begins, cut at the end of a line where it can be, without a byte order mark.

    Raises StorageError, DataError: the file is UTF-16, or its lines end in carriage returns alone.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD)
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1: the file is UTF-16, wanted UTF-8; convert it: iconv -f UTF-16 -t UTF-8")
    if b"\r" in data.rstrip(b"\r") and b"\n" not in data:
        raise DataError(f"{path}:1: lines end in carriage returns alone, wanted line feeds; convert it: tr '\\r' '\\n'")
    if len(data) == _HEAD and b"\n" in data:
        data = data[: data.rindex(b"\n")]
    return data.removeprefix(_BOM).decode("utf-8", "surrogateescape")


def first(head: str, separator: str) -> list[str]:
    """The cells of the first row of a table that begins like this; none where there is no row."""
    row = next(Rows(io.BytesIO(head.encode("utf-8", "surrogateescape")), separator).walk(), None)
    return [] if row is None else [cell.strip() for cell in row.cells]


def shown(text: str, most: int = 60) -> str:
    """A cell fit for one line of a terminal."""
    return repr(text[:most]) + ("…" if len(text) > most else "")
