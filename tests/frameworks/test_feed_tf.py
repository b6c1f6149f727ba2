"""The tf.data feed: what its elements are, that an iteration is an epoch, and that leaving it ends its threads."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import UsageError
from packed import flip, pack, photos, shades, shard_of, threads, threads_left

tf = pytest.importorskip("tensorflow")

N = 19


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("tf") / "ds", shards=2)


def numbers(feed: Any) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in feed.as_numpy_iterator()]


def test_what_comes(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, size=(6, 10)).to_tf()
    assert isinstance(feed, tf.data.Dataset)
    assert feed.element_spec == (tf.TensorSpec([None, 6, 10, 3], tf.uint8), tf.TensorSpec([None], tf.int64))
    assert int(feed.cardinality()) == len(feed) == 5
    batches = list(feed.as_numpy_iterator())
    assert [images.shape for images, _ in batches] == [(4, 6, 10, 3)] * 4 + [(3, 6, 10, 3)]
    assert all(
        target == number % 3
        for images, targets in batches
        for number, target in zip(images[:, 0, 0, 0], targets, strict=True)
    )


def test_weights_go_with_their_records(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4).to_tf(sample_weight={"bee": 2.5})
    assert feed.element_spec[2] == tf.TensorSpec([None], tf.float32)
    for _, classes, weights in feed.as_numpy_iterator():
        assert weights.tolist() == [2.5 if k == 1 else 1 for k in classes]


def test_each_iteration_is_an_epoch(ds: hr.Dataset) -> None:
    feed, loader = ds.loader(batch_size=4).to_tf(), ds.loader(batch_size=4)
    for _ in range(3):
        found = numbers(feed)
        assert found == [[int(id_) for id_ in batch.ids] for batch in loader]
        assert Counter(k for batch in found for k in batch) == Counter(range(N))


def test_repeat_goes_on_with_the_next_epoch(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4)
    wanted = [[int(id_) for id_ in batch.ids] for _ in range(2) for batch in loader]
    feed = ds.loader(batch_size=4).to_tf().repeat(2)
    assert numbers(feed) == wanted and int(feed.cardinality()) == 10


def test_taking_a_few_leaves_no_thread(ds: hr.Dataset) -> None:
    before = threads()
    feed = ds.loader(batch_size=1, workers=4).to_tf()
    assert len(list(feed.take(2).as_numpy_iterator())) == 2
    for _ in feed:
        break
    assert len(numbers(feed)) == N  # and the next is whole again
    del feed
    assert not threads_left(before)


@pytest.mark.parametrize("k", range(6))
def test_a_state_counts_what_was_taken_and_goes_on_there(ds: hr.Dataset, k: int) -> None:
    """Nothing is taken ahead: neither by a prefetch here nor by one that TensorFlow puts in by itself."""
    loader = ds.loader(batch_size=4, workers=3)
    wanted = [[int(id_) for id_ in batch.ids] for _ in range(3) for batch in loader]
    loader = ds.loader(batch_size=4, workers=3)
    feed = iter(loader.to_tf())
    for taken in range(k):
        assert next(feed)[0][:, 0, 0, 0].numpy().tolist() == wanted[taken]
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == ((0, taken + 1) if taken < 4 else (1, 0))
    state = loader.state_dict()
    other = ds.loader(batch_size=4)
    other.load_state_dict(state)
    rest = other.to_tf()
    assert int(rest.cardinality()) == (5 if k in (0, 5) else tf.data.UNKNOWN_CARDINALITY)
    assert numbers(rest) + numbers(rest) == wanted[k : 10 if k < 5 else 15]


def test_what_is_made_of_it_holds_the_loader(ds: hr.Dataset) -> None:
    made = ds.loader(batch_size=4).to_tf().map(lambda images, targets: images).repeat(2).prefetch(1)
    gc.collect()
    assert len(list(made)) == 10
    assert len(list(iter(ds.loader(batch_size=4).to_tf()))) == 5


def test_a_state_that_is_loaded_too_late_is_refused(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4)
    feed = loader.to_tf()
    loader.load_state_dict(loader.state_dict() | {"batch": 2})
    with pytest.raises(tf.errors.OpError, match=r"a state in mid-epoch was loaded after to_tf\(\)"):
        numbers(feed)
    assert [len(batch) for batch in numbers(loader.to_tf())] == [4, 4, 3]


def test_images_alone(tmp_path: Path) -> None:
    feed = pack(shades(3, classes=()), tmp_path / "none").loader().to_tf()
    assert feed.element_spec == tf.TensorSpec([None, 8, 8, 3], tf.uint8)
    assert [images.shape for images in feed.as_numpy_iterator()] == [(3, 8, 8, 3)]


def test_grey(tmp_path: Path) -> None:
    feed = pack(photos(4, grey=range(10)), tmp_path / "grey").loader(size=8).to_tf()
    assert feed.element_spec[0].shape.as_list() == [None, 8, 8, 1]


def test_dict_targets(tmp_path: Path) -> None:
    ds = pack(photos(6, boxes=True), tmp_path / "boxed")
    loader = ds.loader(size=8, batch_size=4, shuffle=False)
    feed = loader.to_tf()
    assert feed.element_spec[1] == {
        "boxes": tf.TensorSpec([None, 100, 4], tf.float32),
        "labels": tf.TensorSpec([None, 100], tf.int64),
        "mask": tf.TensorSpec([None, 100], tf.bool),
    }
    for (_, targets), batch in zip(
        feed.as_numpy_iterator(), ds.loader(size=8, batch_size=4, shuffle=False), strict=True
    ):
        assert all(np.array_equal(targets[name], batch.targets[name]) for name in batch.targets)


def test_no_batches(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"no batches: Loader\(0 batches of 32"):
        ds.where("1 = 0").loader().to_tf()


def test_damage_is_named(tmp_path: Path) -> None:
    ds = pack(shades(N), tmp_path / "ds", shards=1)
    path, number, offset, _ = shard_of(ds, 15)
    flip(path, offset + 40)
    before = threads()
    feed = ds.loader(batch_size=4, shuffle=False).to_tf()
    with pytest.raises(tf.errors.OpError, match=rf"{path.name}, record {number}, byte {offset + 12}: payload CRC"):
        numbers(feed)
    del feed
    assert not threads_left(before)
