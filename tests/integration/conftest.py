"""Fixtures that tests of engines share: photos, what threads of this process pack of them, and a place to pack to."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace as hr
from drawn import files, jpeg, photos
from packed_there import OPTIONS, source_of, state


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos and two that are none."""
    folder = photos(tmp_path_factory.mktemp("there") / "photos", 60)
    return files(folder, {"cat.empty.jpg": b"", "dog.cut.jpg": jpeg(60, 80)[:300]})


@pytest.fixture(scope="module")
def packed_here(pictures: Path) -> dict[str, bytes]:
    hr.pack(source_of(pictures), pictures.parent / "here" / "ds", **OPTIONS)
    return state(pictures.parent / "here" / "ds")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """It has the same name as that of `packed_here`, which dataset_info.json holds."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "ds"
