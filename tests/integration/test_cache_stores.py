"""The loader over real clients of stores: S3 as moto plays it, by obstore; and other processes."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
import stored
from headrace.errors import UsageError
from headrace.load import ahead
from headrace.place.cache import TAG, files
from headrace.place.remote import RemotePlace
from packed import pack, photos
from stored import Bucket

OPTIONS: dict[str, Any] = {"batch_size": 16, "size": 16, "shuffle": True, "seed": 3}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with stored.s3() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return stored.bucket(endpoint, monkeypatch)


@pytest.fixture
def ds(bucket: Bucket, tmp_path: Path) -> hr.Dataset:
    """A dataset in a folder, and the same in the bucket."""
    made = pack(photos(100, boxes=True), tmp_path / "cats", shards=3)
    for path in (tmp_path / "cats").iterdir():
        bucket.put(f"cats/{path.name}", path.read_bytes())
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is asked of the store."""
    asked: list[str] = []
    view = RemotePlace.view

    def counted(self: RemotePlace, name: str, offset: int, length: int) -> memoryview:
        asked.append(name)
        return view(self, name, offset, length)

    monkeypatch.setattr(RemotePlace, "view", counted)
    return asked


def check(near: Any, distant: Any) -> None:
    for one, other in zip(near, distant, strict=True):
        assert one.ids == other.ids and np.array_equal(one.images, other.images)


def test_epochs_of_a_bucket(
    bucket: Bucket, ds: hr.Dataset, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead.Filling, "begin", lambda self: None)
    cache = tmp_path / "cache"
    distant = hr.Dataset(f"{bucket.url}/cats", cache_dir=cache)
    near, loader = ds.loader(**OPTIONS), distant.loader(**OPTIONS)
    check(near, loader)
    assert {name for name in reads if name.endswith(".tfrecord")} == {entry.name for entry in ds.manifest.shards}
    copies = distant.store.copies
    assert copies is not None
    with copies.traffic.changed:  # what was fetched is written behind the batches
        assert copies.traffic.changed.wait_for(lambda: copies.traffic.idle, 120)
    reads.clear()
    check(near, loader)
    assert not reads
    # Another process's: index and catalog are there as well.
    again = hr.Dataset(f"{bucket.url}/cats", cache_dir=cache, cache_bytes=10**7)
    near.epoch = 0
    check(near, again.loader(**OPTIONS))
    assert set(reads) == {"headrace.json"}
    names = {path.name for path in cache.iterdir()}
    assert names >= {TAG, *(entry.sha256 for entry in ds.manifest.shards)}
    assert {file.origin for file in files(cache)} <= {f"{bucket.url}/cats", None}


def _epoch(pickled: bytes, out: Any) -> None:
    loader = pickle.loads(pickled)
    out.send([(batch.ids, int(batch.images.sum())) for batch in loader])


def test_sent_to_another_process(bucket: Bucket, ds: hr.Dataset, tmp_path: Path) -> None:
    loader = hr.Dataset(f"{bucket.url}/cats", cache_dir=tmp_path / "cache", cache_bytes=10**7).loader(**OPTIONS)
    next(iter(loader))
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_epoch, args=(pickle.dumps(loader), there))
    child.start()
    assert here.poll(600)
    near = ds.loader(**OPTIONS)
    near.epoch = 1
    assert here.recv() == [(batch.ids, int(batch.images.sum())) for batch in near]
    child.join(300)


def _forked(loader: Any, out: Any) -> None:
    try:
        out.send(loader[0].ids)
    except BaseException as error:
        out.send(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork of several threads
def test_a_forked_child_is_told_what_to_do(bucket: Bucket, ds: hr.Dataset, tmp_path: Path) -> None:
    """The client of the store has no threads there: what is not in the cache is a clear error, at once."""
    loader = hr.Dataset(f"{bucket.url}/cats", cache_dir=tmp_path / "cache", cache_bytes=0).loader(**OPTIONS)
    _ = loader[0]
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_forked, args=(loader, there))
    child.start()
    try:
        assert here.poll(600)
        said = here.recv()
        assert isinstance(said, UsageError) and "spawn" in str(said)
    finally:
        child.kill()
        child.join(60)


def test_a_folder_takes_no_options_of_the_cache(ds: hr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs no cache; leave out cache_dir, cache_bytes"):
        hr.Dataset(ds.path, cache_bytes=5)
