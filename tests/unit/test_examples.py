"""The examples that hypothesis makes: the same in every run, whatever else is run in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_they_do_not_depend_on_what_has_been_imported(tmp_path: Path) -> None:
    (tmp_path / "constants.py").write_text(f"FOUND = {[*range(1000, 1100)]}")
    code = """
import sys
sys.path[:0] = sys.argv[1:3]
import conftest
if len(sys.argv) > 3:
    import constants
from hypothesis import given, settings, strategies as st
seen = []

@settings(max_examples=300)
@given(st.lists(st.integers(0, 2000)))
def look(found):
    seen.append(found)

look()
print(seen)
"""
    words = [sys.executable, "-c", code, str(TESTS), str(tmp_path)]
    alone, beside = (
        subprocess.run(some, capture_output=True, text=True, check=True).stdout for some in (words, [*words, "1"])
    )
    assert alone == beside and len(alone) > 3000
