"""CITATION.cff: what it says of Headrace is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import headrace as hr

ROOT = Path(__file__).parents[2]


def test_citation_says_what_the_package_says() -> None:
    said = dict(re.findall(r"^([a-z-]+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert said["cff-version"] == "1.2.0" and said["title"].lower() == project["name"]
    assert said["version"] == hr.__version__
    assert said["license"] == project["license"]
    names = re.findall(r"^  - name: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert names == [author["name"] for author in project["authors"]]
