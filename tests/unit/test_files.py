"""Folders of images without labels: what becomes a record, what tells a split, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn import files, jpeg
from headrace import sources
from headrace.errors import NotThereError, UsageError
from headrace.record import Reject
from headrace.sources.images import recognise, telling
from headrace.sources.info import SourceInfo, collect


def folder(root: Path, *names: str) -> Path:
    return files(root, dict.fromkeys(names, jpeg(4, 4)))


@pytest.mark.parametrize(
    ("names", "wanted", "notes"),
    [
        # in natural order, ids are paths, whatever folders are called
        (["10.jpg", "9.png", "x/1.jpg"], {"9.png": None, "10.jpg": None, "x/1.jpg": None}, ()),
        (
            ["train/1.jpg", "validation/a/2.jpg", "test_set/3.jpg"],
            {"test_set/3.jpg": "test", "train/1.jpg": "train", "validation/a/2.jpg": "val"},
            ("folders taken as splits: test_set/ (test), train/, validation/ (val)",),
        ),
        # no splits, where another folder holds images
        (["train/1.jpg", "more/2.jpg"], {"more/2.jpg": None, "train/1.jpg": None}, ()),
        ([".hidden/1.jpg", "Thumbs.db", "LICENSE.md"], {}, ()),
    ],
)
def test_what_is_in_a_folder(
    names: list[str], wanted: dict[str, str | None], notes: tuple[str], tmp_path: Path
) -> None:
    root = folder(tmp_path, *names)
    items, info = collect(sources.files(root))
    assert {item.id: getattr(item, "split", "") for item in items} == wanted
    for item in items:
        assert not isinstance(item, Reject)
        assert (item.label, item.label_name, item.labels, item.boxes) == (None, None, None, None)
        assert (item.path, item.origin) == (f"{root}/{item.id}", item.id)
    assert info == SourceInfo(root=str(root), notes=notes, skipped={".md": 1} if "LICENSE.md" in names else {})


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.jpg", "b.jpg"], "images such as a.jpg, none in folders of classes: without labels"),
        (["train/a.jpg", "test/b.jpg"], "images in test/, train/, none in folders of classes: without labels"),
        # a folder might be a class
        (["a.jpg", "x/b.jpg"], None),
        (["train/x/a.jpg", "test/b.jpg"], None),
        # and a name might tell one
        ([f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(2)], None),
        ([f"train/{name}_{i}.jpg" for name in ("cat", "dog") for i in range(2)], None),
        ([], None),
    ],
)
def test_what_is_recognised(names: list[str], why: str | None, tmp_path: Path) -> None:
    assert recognise(folder(tmp_path, *names)) == why


@pytest.mark.parametrize(
    ("names", "tell"),
    [
        (["cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg"], True),
        (["cat1.jpg", "cat2.jpg", "dog-1.jpg", "dog_2.jpg"], True),
        (["IMG_1.jpg", "IMG_2.jpg", "IMG_3.jpg"], False),  # a camera's
        (["1.jpg", "2.jpg", "3.jpg"], False),
        (["cat1.jpg", "dog1.jpg", "3.jpg", "4.jpg"], False),
        ([], False),
    ],
)
def test_names_that_tell_classes(names: list[str], tell: bool) -> None:
    assert bool(telling(names)) is tell


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError):
        sources.files(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file, wanted a folder of images"):
        sources.files(folder(tmp_path, "a.jpg") / "a.jpg")


def test_real_folders(real_data: Path) -> None:
    assert len(list(sources.files(real_data / "catsdogs"))) == 860
    assert recognise(real_data / "catsdogs" / "test1") is not None
    assert recognise(real_data / "catsdogs" / "train") is None
