"""Conditions of `where`: compare columns with values, and open neither file nor socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from headrace.format import catalog
from headrace.format.condition import check_condition

NAMES = ["from", "SELECT", "it's", "with (values", "read_csv('x')", "a -- b", "/* a", "back\\slash", "cat", 'a "b"']
FRAME = pl.DataFrame({"id": [f"{i}" for i in range(10)], "label": range(10), "label_name": NAMES, "from": range(10)})

# What opened the file or the address FILE while it was parsed, or may with another version of Polars.
ATTACKS = [
    "id IN (SELECT id FROM read_csv('FILE'))",
    "id IN (FROM read_csv('FILE'))",
    "id IN (/**/FROM read_csv('FILE'))",
    "id IN (WITH t AS (FROM read_csv('FILE')) FROM t)",
    "EXISTS (FROM read_csv('FILE'))",
    "id IN ((from read_parquet('FILE')))",
    "id = (SeLeCt max(id) FrOm scan_csv('FILE'))",
    "id = 'a\\' OR id IN (FROM read_csv('FILE')) OR id = 'b'",
    "id = '''' OR id IN (FROM read_csv('FILE'))",
    'id = "a" OR "id" IN (FROM read_ipc(\'FILE\'))',
    "label = 1 OR id IN (TABLE x) OR read_json('FILE')",
    "id IN (VALUES ('FILE'))",
    "id IN (\u017felect id from read_csv('FILE'))",  # a long s, which is an S in capitals
    "1from read_csv('FILE')",
]

READ = """
import sys
import polars as pl
from headrace.errors import UsageError
from headrace.format import catalog
for condition in sys.stdin.read().split("\\0"):
    for ask in (catalog.columns_of, lambda c: catalog.where(pl.DataFrame({"id": ["a"], "label": [1]}), c)):
        try:
            ask(condition)
        except UsageError as error:
            assert str(error).startswith("where("), error
        else:
            raise AssertionError(condition)
print("all refused")
"""


def refused_in_time(conditions: list[str]) -> None:
    """In a child, which would wait for a FIFO for ever."""
    done = subprocess.run(
        [sys.executable, "-c", READ], input="\0".join(conditions), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "all refused\n", done.stderr


def test_no_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused_in_time([attack.replace("FILE", str(tmp_path / "pipe")) for attack in ATTACKS])


def test_no_socket_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.parquet"
        refused_in_time([attack.replace("FILE", address).replace("csv", "parquet") for attack in ATTACKS])
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("id IN (FROM x)", "FROM belongs to a query, not to a condition"),
        ("id = from", "the text would be 'from', in quotes"),
        ("id = 'a' -- all", r"a comment \(--\) has no place in a condition"),
        ("id = 'a' # all", r"a comment \(#\)"),
        ("E'\\'' = id", r"a letter before a quote \(E'\)"),
        ("id = q'!a' or 1=1 or !'", r"a letter before a quote \(q'\)"),
        ("id = 'a", "can be read in two ways"),
        ("id = `a`", "can be read in two ways"),
        ("id = $$a$$", "can be read in two ways"),
        ("id = 'a\\' OR label = 1", "can be read in two ways"),
    ],
)
def test_what_is_refused_says_why(asked: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        catalog.where(FRAME, asked)


def test_a_chain_without_end() -> None:
    """In a child: it ends the process where the parser sees it."""
    with pytest.raises(UsageError, match="5999 words and operators, at most 4000; put values into a list"):
        catalog.where(FRAME, " AND ".join(["label = 1"] * 2000))
    refused_in_time([" AND ".join(["label = 1"] * 30_000), "1" + "+1" * 30_000 + " > 0"])


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ("label_name = 'from'", [0]),
        ("label_name IN ('from', 'SELECT', 'with (values', 'cat')", [0, 1, 3, 8]),
        ("label_name = 'it''s'", [2]),
        ("label_name = 'read_csv(''x'')' OR label_name = 'a -- b'", [4, 5]),
        ("label_name = 'back\\slash'", [7]),
        ('"from" > 7 AND "label" < 9', [8]),
        ("label BETWEEN 2 AND 3 OR label_name LIKE '%slash'", [2, 3, 7]),
        ("label * 2 >= 16.5 AND NOT (id = '0')", [9]),
        ("label IS NULL OR LENGTH(label_name) = 3", [8]),
        ("CASE WHEN label > 5 THEN label ELSE 0 END = 6", [6]),
        (f"id IN ({', '.join(repr(str(i)) for i in range(1, 20_000))}) AND label < 3", [1, 2]),
    ],
)
def test_ordinary_conditions(asked: str, rows: list[int]) -> None:
    assert catalog.where(FRAME, asked).tolist() == rows


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).filter(lambda text: "\\" not in text))
def test_any_text_is_a_value(text: str) -> None:
    check_condition("label_name = '{}' AND label = 1".format(text.replace("'", "''")))
    with pytest.raises(ValueError, match="belongs to a query"):
        check_condition("label_name = '{}' AND id IN (FROM x)".format(text.replace("'", "''")))
