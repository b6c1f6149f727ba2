"""JSON files of any size, element by element: what the standard library reads at once, and where broken ones break."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import files
from headrace.errors import DataError, StorageError
from headrace.sources import jsons

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def gathered(path: Path) -> Any:
    """The value of the file, put together again."""
    out: Any = None
    for key, number, element in jsons.walk(path):
        if key is not None:
            out = {} if out is None else out
            if number is None:
                out[key] = element
            else:
                out.setdefault(key, []).append(element)
                assert len(out[key]) == number + 1
        elif number is not None:
            out = [*(out or []), element]
        else:
            out = element
    return out


@settings(max_examples=200)
@given(
    value=st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=5) | st.lists(VALUES, min_size=1) | VALUES,
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
    bom=st.booleans(),
    chunk=st.integers(1, 30),
)
def test_what_the_standard_library_reads(
    tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, ascii_only: bool, bom: bool, chunk: int
) -> None:
    """Whatever is cut in two by the end of what was read."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    data = ("\ufeff" * bom + text).encode(errors="surrogatepass")
    if not ascii_only and any("\ud800" <= letter <= "\udfff" for letter in text):
        return  # no UTF-8
    path = files(tmp_path_factory.mktemp("json"), {"x.json": data}) / "x.json"
    whole, jsons.CHUNK = jsons.CHUNK, chunk
    try:
        found = gathered(path)
    finally:
        jsons.CHUNK = whole
    assert found == (value if value != {} else None)


GOOD = rb'{"a": [1, {"b": "\u00e9\n"}, -1.5e3, NaN], "c": null, "d": {"e": -Infinity}}'

# text, what the error says of it
BROKEN = {
    "nothing": (b"", r":1: column 1: no sound JSON: expecting value; is the file cut short\?"),
    "white space": (b" \n\n ", r":3: column 2: .*; is the file cut short"),
    "no JSON": (b"<html>", ":1: column 1: no sound JSON: expecting value"),
    "cut in a list": (b'{"a": [1,\n{"b": 2}', r":2: column 9: no sound JSON: wanted '\]'; is the file cut short"),
    "cut in an element": (b'{"a": [1,\n{"b": 2', ":2: column 8: .* delimiter; is the file cut"),
    "cut in a text": (
        b'{"a": ["abc',
        ":1: column 8: no sound JSON: unterminated .*; is the file cut short",
    ),
    "cut in a letter": (b'{"a": ["\xc3', ": byte 8 is no UTF-8 .*; is the file cut short"),
    "cut after a key": (b'{"a"', "wanted ':'; is the file cut short"),
    "no comma": (b'{"a": [1 2]}', r":1: column 10: no sound JSON: wanted '\]'"),
    "a comma too many": (b'{"a": [1,\n]}', ":2: column 1: no sound JSON: expecting value"),
    "no comma in an element": (b'{"a": [\n\n{"b": 1 "c": 2}, 3]}', ":3: column 9: .* expecting ',' delimiter"),
    "a key without quotes": (b"{a: 1}", ":1: column 2: no sound JSON: wanted a key in double quotes"),
    "a key twice": (b'{"a": [1], "a": [2]}', "the key 'a' occurs twice"),
    "more after the end": (GOOD + b"\n}", ":2: column 1: no sound JSON: wanted the end of the file"),
    "bytes that are no text": (b'{"a": ["\xff"]}', ": byte 8 is no UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), ":1: the file is UTF-16, wanted UTF-8; convert it: iconv"),
    "thousands of brackets": (b'{"a": [' + b"[" * 200_000, "recursion"),
    "thousands of digits": (b'{"a": [' + b"1" * 9_999 + b"]}", "exceeds the limit"),
    "a control character": (b'{"a": ["\n"]}', "invalid control character"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int) -> None:
    data, says = BROKEN[name]
    monkeypatch.setattr(jsons, "CHUNK", chunk)
    path = files(tmp_path, {"x.json": data}) / "x.json"
    with pytest.raises(DataError, match=f"^{path}{says}" if says.startswith(":") else says):
        list(jsons.walk(path))


def test_every_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for end in range(len(GOOD)):
        path.write_bytes(GOOD[:end])
        with pytest.raises(DataError, match="cut short"):
            list(jsons.walk(path))
    path.write_bytes(GOOD)
    assert repr(gathered(path)) == repr(json.loads(GOOD))


def test_a_fault_far_down_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after reading all that follows into memory, in case that it helps."""
    monkeypatch.setattr(jsons, "CHUNK", 1000)
    rows = ["[1, 2]"] * 10_000
    rows[100] = "[1 2]"
    path = files(tmp_path, {"x.json": b'{"a": [\n' + ",\n".join(rows).encode() + b"]}"}) / "x.json"
    seen: list[Any] = []
    with pytest.raises(DataError, match=r"x\.json:102: column 4: "):
        seen.extend(jsons.walk(path))
    assert len(seen) == 100


def test_one_element_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsons, "CHUNK", 100)
    monkeypatch.setattr(jsons, "LONGEST", 5000)
    path = files(tmp_path, {"x.json": b'{"a": ["' + b"x" * 100_000 + b'"]}'}) / "x.json"
    with pytest.raises(DataError, match=r":1: column 8: .* an element of more than 5000 characters"):
        list(jsons.walk(path))


def test_memory_is_that_of_an_element(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("w") as file:
        file.write('{"a": [' + ",".join(['{"b": [1.5, 2.5, 3.5, 4.5]}'] * 400_000) + "]}")
    assert path.stat().st_size > 10 * 10**6
    tracemalloc.start()
    assert sum(1 for _ in jsons.walk(path)) == 400_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * jsons.CHUNK


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"x\.json: can't be read: no such file"):
        list(jsons.walk(tmp_path / "x.json"))
