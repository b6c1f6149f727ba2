"""What all tests share: where the real data lies, and how hypothesis runs."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
FRAMEWORKS = Path(__file__).parent / "frameworks"
sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import drawn.py and its like

# The same examples in every run: a failure seen once is seen again.
settings.register_profile("headrace", deadline=None, derandomize=True, database=None)
settings.load_profile("headrace")
with suppress(ImportError):  # a hypothesis of 2024 does not do it
    from hypothesis.internal.conjecture import providers

    # Else constants of whatever modules happen to be imported by then are among the examples.
    providers.is_local_module_file = lambda path: False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FRAMEWORKS in item.path.parents:
            item.add_marker("frameworks")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; skips where there is none."""
    folder = Path(os.environ.get("HEADRACE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set HEADRACE_REAL_DATA")
    return folder
