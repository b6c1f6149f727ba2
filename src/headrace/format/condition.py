"""SQL conditions, judged before Polars parses them: its parser opens the files and sockets of table functions at once.

A condition compares columns with values. What could begin a query in it is refused, and so is every notation of strings
in which this reading and the parser's might differ.
"""

from __future__ import annotations

import re

# What a query begins with or reads from, as bare words; a string 'from' is a value like any other.
_OF_QUERIES = frozenset(("SELECT", "FROM", "WITH", "VALUES", "TABLE", "JOIN"))
_OF_FILES = ("READ_", "SCAN_")
# Polars follows a chain of operators by recursion, and the process ends by a signal where its stack does (at more than
# 5,000 of them). Lists of values count for nothing here.
_MOST = 4000

_TOKEN = re.compile(
    r"""
    (?P<prefixed> \w['"] )                                # E'\'', q'!..!': strings with an end of their own
    | (?P<value> '(?:[^']|'')*' | "(?:[^"]|"")*" )        # a string, or a quoted column
    | (?P<comment> --|/\*|\# )
    | (?P<number> \d[\d.]* )
    | (?P<word> \w+(?!['"]) )
    | (?P<foreign> ['"`$\\] )                            # a quote without its end; other ways to quote
    | (?P<operator> [^\s,] )
    """,
    re.VERBOSE,
)


def check_condition(condition: str) -> None:
    """Raises ValueError: it holds what is no comparison of columns with values."""
    said = 0
    for token in _TOKEN.finditer(condition):
        kind, text = token.lastgroup, token[0]
        said += kind in ("word", "operator")
        if kind == "word" and (text.upper() in _OF_QUERIES or text.upper().startswith(_OF_FILES)):
            raise ValueError(f"{text} belongs to a query, not to a condition (the text would be '{text}', in quotes)")
        if kind == "comment":
            raise ValueError(f"a comment ({text}) has no place in a condition")
        if kind == "prefixed":
            raise ValueError(
                f"a letter before a quote ({text}); strings are written as 'text', and a quote in one as ''"
            )
        if kind == "foreign" or (kind == "value" and re.search(r"\\(?=['\"])", text)):
            raise ValueError(
                f"{text!r:.60} can be read in two ways; strings are written as 'text', and a quote in one as ''"
            )
    if said > _MOST:
        raise ValueError(f"{said} words and operators, at most {_MOST}; put values into a list, as in id IN ('a', 'b')")
