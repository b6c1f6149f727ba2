"""Rows of text tables: cells, lines and bytes of each, whatever the quotes, and again from where they begin."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import DataError
from headrace.sources import rows
from headrace.sources.rows import Rows

OPEN = "a quote that is not closed"


def read(data: bytes, separator: str = ",", width: int | None = None) -> list[tuple[int, list[str], str | None]]:
    table = Rows(io.BytesIO(data), separator, width=width)
    found = list(table.walk())
    for row in found:  # the same from where it begins
        assert next(table.walk(row.at, row.line)) == row
    return [(row.line, row.cells, row.fault) for row in found]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", []),
        (b"a,b", [(1, ["a", "b"], None)]),
        (b"\xef\xbb\xbfa,b\r\n\r\n c , d \n", [(1, ["a", "b"], None), (3, ["c", "d"], None)]),  # BOM, CRLF, blank
        (b'"a,1","b ""x"""\nc,d', [(1, ["a,1", 'b "x"'], None), (2, ["c", "d"], None)]),
        (b'"a\r\nb",c\nd,e', [(1, ["a\nb", "c"], None), (3, ["d", "e"], None)]),  # a line break in quotes
        (b'"a\n\n""b",c\nd,e', [(1, ["a\n\n\"b", "c"], None), (4, ["d", "e"], None)]),
        (b'a,5" disk\nb,c', [(1, ["a", '5" disk'], None), (2, ["b", "c"], None)]),  # a quote in the middle is text
        (b'"a" b,c', [(1, ['"a" b', "c"], None)]),
        (b' "a" , "b"', [(1, ["a", "b"], None)]),
        (b"\xff,b", [(1, ["\udcff", "b"], "the row is not UTF-8")]),
        (b"a,b\n\x1a", [(1, ["a", "b"], None)]),  # the end of a file under DOS
        # other cells than wanted; the row that began with a quote ends with its line, and nothing else is lost
        (b"a,b,c\nd\n", [(1, ["a", "b", "c"], "3 cells, wanted 2"), (2, ["d"], "1 cells, wanted 2")]),
        (b'a,"b\nc,d\ne,f', [(1, ["a", "b"], OPEN), (2, ["c", "d"], None), (3, ["e", "f"], None)]),
        (b'a,"b\nc,d\ne,"f"', [(1, ["a", "b"], OPEN), (2, ["c", "d"], None), (3, ["e", "f"], None)]),
        (b'"a\n', [(1, ["a"], OPEN)]),
    ],
)  # fmt: skip
def test_rows(data: bytes, wanted: list[tuple[int, list[str], str | None]]) -> None:
    assert read(data, width=2) == wanted


cells = st.text(st.sampled_from('ab ,;"\n\té'), max_size=6)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=6), st.sampled_from(",;\t"))
def test_what_the_standard_library_writes(table: list[list[str]], separator: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(table)
    assert [found for _, found, fault in read(out.getvalue().encode(), separator, 2) if fault is None] == table


@given(st.text(st.sampled_from('a,"\n'), max_size=40))
def test_no_line_is_lost(text: str) -> None:
    """Every line that isn't blank is in a row, once."""
    found = read(text.encode(), width=2)
    lines = [line for line, _, _ in found]
    assert lines == sorted(set(lines))
    plain = [i for i, line in enumerate(text.split("\n"), 1) if line.strip(" \r") and '"' not in line]
    inside = {
        at + k for at, cells, fault in found if not fault for k in range(1 + sum(cell.count("\n") for cell in cells))
    }
    assert set(plain) <= set(lines) | inside


def test_an_overlong_line_is_passed_over() -> None:
    data = b"a.jpg," + b"x" * (2 * rows.LONGEST) + b"\nb,c\n"
    assert read(data, width=2) == [
        (1, ["a.jpg"], f"a line of more than {rows.LONGEST} bytes"),
        (2, ["b", "c"], None),
    ]


class _Read(io.BytesIO):
    """A file that counts the bytes read of it."""

    count = 0

    def readline(self, *most: Any) -> bytes:
        found = super().readline(*most)
        self.count += len(found)
        return found


@pytest.mark.parametrize("line", [b'x,"y\n', b'x"y,"z\n', b'"\n', b'"a""\n', b'"",""",\n', b'"' * 31 + b"\n"])
def test_quotes_never_take_long(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte is read, and looked at for cells, a few times, however many lines lie behind it."""
    split, looked = Rows._split, 0

    def count(self: Rows, text: str, start: int) -> Any:
        nonlocal looked
        looked += len(text) - start
        return split(self, text, start)

    monkeypatch.setattr(Rows, "_split", count)
    file = _Read(line * 2_000)
    n = sum(1 for _ in Rows(file, ",", width=3).walk())
    assert 0 < n <= 2_000 and len(line) * 2_000 <= looked and file.count + looked < 7 * len(line) * 2_000


def test_heads_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"t.csv:1: the file is UTF-16, wanted UTF-8; convert it: iconv"):
        rows.head(path)
    path.write_bytes(b"a,b\rc,d\r")
    with pytest.raises(DataError, match=r"lines end in carriage returns alone, .*: tr '\\r' '\\n'"):
        rows.head(path)


def test_an_index_says_where_the_rows_of_a_name_are() -> None:
    index = rows.Index(["x"])
    for at, name in enumerate("aba"):
        index.add(name, at * 10, at)
    index.close()
    assert list(index.names) == ["x", "a", "b"]
    assert [index.places(code) for code in range(3)] == [[], [(0, 0), (20, 2)], [(10, 1)]]
