"""Paths and URLs: what a caller means by a text, and what a Url has of a Path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import UsageError
from headrace.place.address import Url, is_url, located
from headrace.place.local import LocalPlace
from headrace.place.open import Scattered, at


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/cats", True),
        ("gs://bucket", True),
        ("https://example.org/cats", True),
        ("abfs://box@account/cats", True),
        ("S3://bucket/cats", True),
        ("cats", False),
        ("/data/cats", False),
        ("s3:/bucket/cats", False),  # what a Path makes of it
        (r"C:\cats", False),
        ("c://cats", False),  # a disk, and no scheme of one letter
        ("train=s3://bucket/cats", False),
        ("", False),
    ],
)
def test_what_is_a_url(text: str, url: bool) -> None:
    assert is_url(text) is url
    assert located(text) == (Url(text) if url else Path(text))


@pytest.mark.parametrize(
    ("url", "name", "parent"),
    [
        ("s3://bucket/a/cats", "cats", "s3://bucket/a"),
        ("s3://bucket/a/cats/", "cats", "s3://bucket/a"),
        ("s3://bucket/cats", "cats", "s3://bucket"),
        ("s3://bucket", "bucket", "s3://bucket"),
    ],
)
def test_the_parts_of_a_url(url: str, name: str, parent: str) -> None:
    assert (Url(url).name, str(Url(url).parent)) == (name, parent)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("x.tfrecord", "s3://bucket/a/cats/x.tfrecord"),
        ("runs/1/x", "s3://bucket/a/cats/runs/1/x"),
        ("../dogs/x", "s3://bucket/a/dogs/x"),
        ("../../x", "s3://bucket/x"),
        ("gs://other/x", "gs://other/x"),
    ],
)
def test_names_below_a_url(name: str, whole: str) -> None:
    assert str(Url("s3://bucket/a/cats") / name) == whole
    assert os.fspath(Url("s3://bucket/a/cats") / name) == whole


def test_options_are_for_stores(tmp_path: Path) -> None:
    assert isinstance(at(tmp_path), LocalPlace)
    with pytest.raises(UsageError, match="takes no storage_options"):
        at(tmp_path, {"region": "x"})


def test_files_elsewhere_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"here")
    place = Scattered(LocalPlace(tmp_path))
    assert place.read("a", 1, 2) == b"er"
    assert place.address("s3://bucket/cats/x.tfrecord") == "s3://bucket/cats/x.tfrecord"
