"""JaxFeed: the loader's batches on devices: one, four of a mesh, and those of two processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.load.facts import Facts
from headrace.load.targets import Labels
from packed import flip, pack, shades, shard_of, threads, threads_left

jax = pytest.importorskip("jax")

N = 19


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("jax") / "ds", shards=2)


def numbers(images: Any) -> list[int]:
    """The records of a batch, by their pixels."""
    return [int(image.max()) for image in np.asarray(images)]


def test_what_comes(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, size=(6, 10)).to_jax()
    batches = list(feed)
    assert len(feed) == len(batches) == 5
    for images, targets in batches:
        assert isinstance(images, jax.Array) and images.dtype == np.uint8 and images.shape == (len(targets), 6, 10, 3)
        assert isinstance(targets, jax.Array) and targets.dtype == np.int32
    assert sorted(k for images, _ in batches for k in numbers(images)) == list(range(N))


def test_it_is_the_loaders_batch(ds: hr.Dataset) -> None:
    loader, other = ds.loader(batch_size=4, shuffle=True), ds.loader(batch_size=4, shuffle=True)
    for epoch in range(2):
        assert loader.epoch == epoch
        for (images, targets), batch in zip(loader.to_jax(), other, strict=True):
            assert np.array_equal(images, batch.images) and np.array_equal(targets, batch.targets)


def test_batches_that_are_kept_stay_as_they_are(ds: hr.Dataset) -> None:
    """A device of the CPU may share memory with the loader, which takes it again for its next batches."""
    feed = ds.loader(batch_size=2, workers=2).to_jax()
    kept = list(itertools.chain(*(feed for _ in range(4))))
    assert all(image.min() == image.max() for images, _ in kept for image in np.asarray(images))
    assert [sorted(k for images, _ in kept[i : i + 10] for k in numbers(images)) for i in range(0, 40, 10)] == [
        list(range(N))
    ] * 4


class Nothing(hr.Target):
    wants_boxes = wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> Any:
        return None


class Both(Nothing):
    def encode(self, labels: Labels) -> Any:
        return {"class": labels.classes, "half": labels.classes / 2}


def test_targets_of_all_kinds(ds: hr.Dataset) -> None:
    (images, *_) = ds.loader(batch_size=N, target=Nothing()).to_jax()
    assert isinstance(images, jax.Array) and images.shape == (N, 8, 8, 3)
    ((images, targets),) = ds.loader(batch_size=N, target=Both()).to_jax()
    assert targets["class"].tolist() == [k % 3 for k in numbers(images)]
    assert targets["half"].dtype == np.float32
    assert targets["half"].tolist() == [k % 3 / 2 for k in numbers(images)]


def test_weights_go_with_their_records(tmp_path: Path) -> None:
    """Also where damage leaves a record out of its batch."""
    there = pack(shades(N), tmp_path / "ds")
    path, _, offset, _ = shard_of(there, 6)
    flip(path, offset + 40)
    loader = hr.Dataset(there.path).loader(batch_size=4, shuffle=True, on_bad="skip", max_bad=1)
    seen = list(loader.to_jax(sample_weight={"bee": 2.5}))
    assert sum(len(images) for images, _, _ in seen) == N - 1 and len(loader.skipped) == 1
    for images, _, weights in seen:
        assert weights.dtype == np.float32
        assert weights.tolist() == [2.5 if k % 3 == 1 else 1 for k in numbers(images)]


def test_arrays_as_they_are() -> None:
    """In this machine's byte order, and in 32 bits only if they fit."""
    x = np.arange(24, dtype=">f4").reshape(4, 6)
    ((images, targets),) = hr.ArrayDataset(x, np.arange(4), dtype="keep", labels="keep").loader(batch_size=4).to_jax()
    assert images.dtype == np.float32 and np.array_equal(np.sort(images, axis=None), np.arange(24))
    assert targets.dtype == np.int32
    large = hr.ArrayDataset(x, np.arange(4) + 2**31, dtype="keep", labels="keep").loader(batch_size=4, shuffle=False)
    with pytest.raises(hr.UsageError, match=r"21474836\d\d does not fit into the 32 bits .*jax_enable_x64"):
        list(large.to_jax())


def test_the_state_counts_what_was_delivered(ds: hr.Dataset) -> None:
    """Not what is on its way to the device: from each batch on, the rest, and then whole epochs."""
    feed = ds.loader(batch_size=4, seed=3).to_jax()
    planned = [numbers(images) for images, _ in itertools.chain(feed, feed)]
    for k in range(5):
        feed = ds.loader(batch_size=4, seed=3).to_jax()
        begun = iter(feed)
        seen = [numbers(next(begun)[0]) for _ in range(k)]
        state = feed.state_dict()
        assert (state["epoch"], state["batch"]) == (0, k)
        other = ds.loader(batch_size=4, seed=3).to_jax()
        other.load_state_dict(json.loads(json.dumps(state)))
        other.set_epoch(other.epoch)
        assert seen + [numbers(images) for images, _ in other] == planned[:5]
        assert [numbers(images) for images, _ in other] == planned[5:]
        begun.close()
        assert feed.state_dict() == state
    assert (other.state_dict()["epoch"], other.state_dict()["batch"]) == (2, 0)


def test_a_look_changes_nothing_and_a_break_ends_the_epoch(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, seed=3).to_jax()
    iter(feed)
    first = numbers(next(iter(feed))[0])
    feed.set_epoch(0)
    assert numbers(next(iter(feed))[0]) == first
    assert numbers(next(iter(feed))[0]) != first and feed.state_dict()["epoch"] == 1


def test_ids(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, shuffle=True).to_jax()
    for _ in range(2):
        before = feed.ids if feed.loader.epoch == 0 else None
        seen = [k for images, _ in feed for k in numbers(images)]
        assert list(map(int, feed.ids)) == seen and before in (None, feed.ids)


def test_damage_is_counted_when_its_batch_comes(tmp_path: Path) -> None:
    there = pack(shades(N), tmp_path / "ds")
    path, number, offset, _ = shard_of(there, 6)  # of the second batch of four
    flip(path, offset + 40)
    loader = hr.Dataset(there.path).loader(batch_size=4, shuffle=False, on_bad="skip", max_bad=1)
    feed = iter(loader.to_jax())
    assert len(numbers(next(feed)[0])) == 4 and loader.skipped == ()
    assert len(numbers(next(feed)[0])) == 3 and len(loader.skipped) == 1
    with pytest.raises(hr.DamageError, match=f"record {number}"):
        list(hr.Dataset(there.path).loader(batch_size=4, shuffle=False).to_jax())


def test_a_damaged_record_comes_in_its_turn(tmp_path: Path) -> None:
    there = pack(shades(12), tmp_path / "ds")
    path, _, offset, length = shard_of(there, 5)
    flip(path, offset + 12 + length // 2)
    feed = hr.Dataset(there.path).loader(batch_size=2, shuffle=False).to_jax()
    got = iter(feed)
    assert [len(next(got)[0]) for _ in range(2)] == [2, 2]
    with pytest.raises(hr.DamageError, match="record"):
        next(got)
    assert feed.state_dict()["batch"] == 2


def test_an_epoch_of_no_batches_ends(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=N + 1, drop_last=True).to_jax()
    assert [(list(feed), feed.epoch) for _ in range(2)] == [([], 1), ([], 2)]


def test_a_sharding_of_more_axes_than_images() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch", None, None, None, None))
    loader = hr.ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8), list("abab")).loader(batch_size=4)
    with pytest.raises(hr.UsageError, match=r"the sharding has 5 axes, .*, and images have 4, \[b, 8, 8, 3\]"):
        loader.to_jax(sharding)


def test_a_broken_off_pass_leaves_no_thread(ds: hr.Dataset) -> None:
    before = threads()
    feed = ds.loader(batch_size=2, workers=3).to_jax()
    next(iter(feed))
    del feed
    assert not threads_left(before)


def started(*arguments: str, devices: int) -> subprocess.Popen[str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    script = Path(__file__).parent / "run_jax_feed.py"
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert lines, errors
    found: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return found


@pytest.fixture(scope="module")
def four(ds: hr.Dataset) -> dict[str, Any]:
    found = result(started(str(ds.path), devices=4))
    assert found["devices"] == 4
    return found


def test_four_devices_share_each_batch(four: dict[str, Any]) -> None:
    batches, planned = four["sharded"]
    assert [numbers for numbers, *_ in batches] == planned and len(planned) == 2
    for found, where, targets, stepped in batches:
        assert [device for device, _ in where] == [0, 1, 2, 3]
        assert [numbers for _, numbers in where] == [found[i : i + 2] for i in range(0, 8, 2)]
        assert targets == [k % 3 for k in found]
        assert stepped == [k + 1000 * (k % 3) for k in found]


def test_targets_are_divided_along_the_batch_alone(four: dict[str, Any]) -> None:
    images, targets = four["square"]
    assert images == [[3, 8, 4, 3]] * 4 and targets == [[3]] * 4


def test_a_sharding_of_one_device_divides_nothing(four: dict[str, Any]) -> None:
    assert four["one"] == [[2]] * 3


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("size", "batch_size is 6, and the devices divide a batch into 4 equal parts; pass a multiple of 4 to the "
         "loader, such as batch_size=4 or 8"),
        ("small", "batch_size is 2, and the devices divide a batch into 4 equal parts; pass a multiple of 4 to the "
         "loader, such as batch_size=4"),
        ("tail", "the last of 3 batches has 3 of 19 records, and the devices divide a batch into 4 equal parts; "
         "pass drop_last=True to the loader, or another batch_size"),
        ("skip", "on_bad='skip' may leave any number"),
        ("axis", "the sharding does not fit images [b, 6, 6, 3]: "),
        ("none", "sharding is 'cpu', wanted a jax.sharding.Sharding"),
    ],
)  # fmt: skip
def test_a_sharding_that_does_not_fit(four: dict[str, Any], what: str, said: str) -> None:
    assert four["refused"][what].startswith(said)
    assert four["refused"]["fits"] == ""


def free_port() -> int:
    """One below those that the system gives away by itself: no other program gets it before it is used."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def test_two_processes_with_two_devices_each(ds: hr.Dataset) -> None:
    """Each brings its own records, and the global batch is that of one process."""
    port = str(free_port())
    processes = [started(str(ds.path), port, str(rank), devices=2) for rank in range(2)]
    try:
        first, second = map(result, processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [first["world"], second["world"]] == [[0, 2], [1, 2]]
    batches = [list(map(int, batch.ids)) for batch in ds.loader(batch_size=8, shuffle=True, drop_last=True)]
    assert first["sums"] == second["sums"] == [sum(batch) for batch in batches]
    for (shape, mine), (_, other), batch in zip(first["seen"], second["seen"], batches, strict=True):
        assert shape == [8, 8, 8, 3] and mine + other == batch
    for found in (first, second):
        assert "the loader's world is (0, 1), wanted" in found["alone"] and "world='auto'" in found["alone"]
        assert "gives one part of a batch to several processes" in found["copies"]
