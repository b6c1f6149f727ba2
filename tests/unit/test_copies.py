"""Datasets that are far away: what is fetched, when and how often; that it is right whatever the cache holds."""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import far
import headrace as hr
from command import headrace
from drawn import saved
from far import LIMIT, Gate, settle
from headrace import parallel
from headrace.errors import DamageError, StorageError, UsageError
from headrace.load import ahead, copies
from headrace.load.copies import Bits
from headrace.load.loader import Loader
from headrace.place import cache as cache_module
from headrace.place.cache import BLOCK, TAG, Cache, files, folder_of
from packed import pack, photos
from stored import until

N = 120
OPTIONS: dict[str, Any] = {"batch_size": 16, "size": 16, "shuffle": True, "seed": 3}


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Records of 600 to 2,300 bytes in three shards."""
    return pack(photos(N, boxes=True), tmp_path_factory.mktemp("ds") / "ds", shards=3)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Records of 12 kB each, many of whose blocks on a disk are their own."""
    rng = np.random.default_rng(0)
    some = [
        hr.Record(id=f"{k}.png", encoded=saved(rng.integers(0, 256, (64, 64, 3), np.uint8), "PNG")) for k in range(N)
    ]
    return pack(some, tmp_path_factory.mktemp("noise") / "ds", shards=3)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched but what somebody asks for."""
    monkeypatch.setattr(ahead.Filling, "begin", lambda self: None)


def same(one: hr.Batch, other: hr.Batch) -> bool:
    equal = zip(one.targets, other.targets, strict=True) if one.targets is not None else ()
    return (
        one.ids == other.ids
        and np.array_equal(one.images, other.images)
        and all(np.array_equal(a, b) for a, b in equal)
    )


def check_epochs(near: Loader, distant: Loader, epochs: int = 1) -> None:
    """All batches of the loaders are the same, and what was fetched is written."""
    for _ in range(epochs):
        for one, other in zip(near, distant, strict=True):
            assert same(one, other)
        settle(distant)


def bytes_of(ds: hr.Dataset) -> int:
    return sum(shard.bytes for shard in ds.manifest.shards)


def taken(folder: Path) -> int:
    return sum(file.takes for file in files(folder))


# --- what is fetched --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"augment": hr.HorizontalFlip(), "workers": 3},
        {"drop_last": True, "batch_size": 50},
        {"world": (1, 3), "batch_size": 15},
        {"cache": "memory"},
        {"target": hr.Boxes(4), "workers": 1},
    ],
    ids=str,
)
def test_a_far_dataset_is_as_a_near_one(ds: hr.Dataset, options: dict[str, Any], tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    loaders = [one.loader(**OPTIONS | options) for one in (ds, distant)]
    check_epochs(*loaders)
    asked = len(place.requests)
    assert asked > 0
    check_epochs(*loaders, epochs=2)
    # A rank meets records of others, and an epoch those that another leaves out; all else lies in the cache.
    assert options.keys() & {"world", "drop_last"} or len(place.requests) == asked
    for i in (0, 3, -1):
        if i < len(loaders[0]):
            assert same(loaders[0][i], loaders[1][i])
    assert [record.id for record in distant[:5]] == [record.id for record in ds[:5]]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("options", [{}, {"cache": "memory"}, {"augment": hr.HorizontalFlip()}], ids=str)
def test_far_records_in_an_order_of_ones_own(ds: hr.Dataset, options: dict[str, Any], tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    near, away = (one.loader(**OPTIONS | options) for one in (ds, distant))
    for positions in ([*range(100)], [5, 90, 5, 0], [119, 5], [7]):
        assert same(near.at(np.array(positions)), away.at(np.array(positions)))
        assert len(place.requests) < 10  # neighbours are one request, whatever their order
    settle(away)
    asked = len(place.requests)
    away.at(np.array([90, 99]))
    assert len(place.requests) == asked > 0


@pytest.mark.usefixtures("quiet")
def test_neighbours_are_one_request(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    check_epochs(ds.loader(**OPTIONS | {"shuffle": False}), distant.loader(**OPTIONS | {"shuffle": False}))
    # The first batches come in lots of 1, 1, 2 and 4; each lot meets a shard or two, of which most is fetched with it.
    assert len(place.requests) <= 6
    fetched = sorted(place.requests)
    assert sum(length for _, _, length in fetched) == bytes_of(ds)


@pytest.mark.usefixtures("quiet")
def test_what_lies_beside_a_record_comes_with_it_where_all_is_needed(noise: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(noise.path, tmp_path / "cache")
    check_epochs(noise.loader(**OPTIONS), distant.loader(**OPTIONS))
    # 16 records for who waits for the first batch, and then pieces of 128 KiB and more, of 1.5 MB.
    assert len(place.requests) <= 16 + bytes_of(noise) // (1 << 17) + len(noise.manifest.shards)
    assert sum(length for _, _, length in place.requests) == bytes_of(noise)


def test_a_piece_leaves_out_what_is_on_its_way(noise: hr.Dataset, tmp_path: Path) -> None:
    distant, _ = far.opened(noise.path, tmp_path / "cache")
    found = distant.store.copies
    assert found is not None
    rows = np.array([3, 6])
    for others, wanted in (
        ([4, 5], [(3, 7)]),
        ([4, 5, 2, 7, 9], [(2, 8)]),
        ([4], [(3, 5), (6, 7)]),
        ([], [(3, 4), (6, 7)]),
    ):
        along = Bits(len(noise))
        along.set(np.array([*rows, *others]))
        spans = found.spans(rows, along, fits=True, piece=1 << 17)
        assert [(span.first, span.last) for span in spans] == wanted
        (span,) = found.spans(rows, along, fits=True)  # where a gap costs less than a request
        assert (span.first, span.last) == (3, 8 if 7 in others else 7)


def test_nothing_comes_twice(noise: hr.Dataset, tmp_path: Path) -> None:
    """The cache is filled behind the batches: not while it is found out what they need, nor what is on its way."""
    for k in range(20):
        distant, place = far.opened(noise.path, tmp_path / str(k))
        loader = distant.loader(**OPTIONS)
        for _ in loader:
            pass
        settle(loader)
        assert sum(length for _, _, length in place.requests) == bytes_of(noise)


def test_requests_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one is not passed over for ever, and one above the bound runs alone."""
    monkeypatch.setattr(copies, "_IN_FLIGHT", 10)
    traffic, ran, running = copies.Traffic(), list[int](), list[int]()
    gates = {size: threading.Event() for size in (6, 12, 4, 3)}

    def run(size: int) -> None:
        with traffic.request(size):
            running.append(size)
            ran.append(size)
            gates[size].wait(LIMIT)
            running.remove(size)

    threads = []
    for n, size in enumerate(gates):
        threads.append(threading.Thread(target=run, args=(size,)))
        threads[-1].start()
        until(lambda: len(traffic._queue) + len(running) == n + 1)  # noqa: B023
    assert running == [6]  # 4 would have room beside it
    gates[6].set()
    until(lambda: running == [12])
    gates[12].set()
    until(lambda: len(running) == 2)
    gates[4].set()
    gates[3].set()
    for thread in threads:
        thread.join(LIMIT)
    assert ran[:2] == [6, 12] and sorted(ran[2:]) == [3, 4] and traffic._bytes == 0


@pytest.mark.usefixtures("quiet")
def test_what_lies_beside_a_record_does_not_come_where_it_is_of_no_use(
    noise: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a rank, of whose epoch the half is another's; and where the cache has it already."""
    monkeypatch.setattr(copies, "_GAP", 0)
    monkeypatch.setattr(copies, "_GAP_FITTING", 0)
    distant, place = far.opened(noise.path, tmp_path / "cache")
    list(distant.loader(**OPTIONS | {"world": (0, 2)}))
    assert sum(length for _, _, length in place.requests) < 0.8 * bytes_of(noise)

    for name in ("half", "odd"):
        distant, place = far.opened(noise.path, tmp_path / name)
        found = distant.selection.store.copies
        assert found is not None
        there: dict[str, list[tuple[int, int]]] = {}
        for entry in noise.manifest.shards:
            size = entry.bytes
            there[entry.name] = [(0, size // 2)] if name == "half" else [(k, k + 2**16) for k in range(0, size, 2**17)]
            data = (Path(noise.path) / entry.name).read_bytes()
            for begin, end in there[entry.name]:
                assert found.cache.write(entry.sha256, size, begin, data[begin:end])
        check_epochs(noise.loader(**OPTIONS), distant.loader(**OPTIONS))
        record = bytes_of(noise) // len(noise)
        for shard, offset, length in place.requests:
            for begin, end in there[shard]:  # one that ends in it is needed as a whole
                low, high = max(offset, begin), min(offset + length, end)
                assert high - low <= record + BLOCK, (name, shard, offset, length)


@pytest.mark.usefixtures("quiet")
def test_what_came_since_it_was_looked_for_is_not_fetched_again(
    ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    found, asked, looked = distant.selection.store.copies, threading.Event(), set[int]()
    assert found is not None
    held = found.held
    place.before = lambda *_: asked.set()

    def late(rows: np.ndarray) -> Any:
        """What is found in the cache, said when all that was asked for before has come, but to the first."""
        before, first = held(rows), 0 in rows  # the first batch, which is looked for alone: who comes first may not be
        if not looked.issuperset(rows.tolist()):
            looked.update(rows.tolist())
            assert first or asked.wait(LIMIT)
            until(lambda: not any(order._on_the_way for order in found.orders.values()))
        return before

    monkeypatch.setattr(found, "held", late)
    check_epochs(ds.loader(**OPTIONS | {"shuffle": False}), distant.loader(**OPTIONS | {"shuffle": False}))
    assert len(looked) > 16
    assert sum(length for _, _, length in place.requests) == bytes_of(ds)


@pytest.mark.usefixtures("quiet")
def test_what_is_on_its_way_is_not_asked_for_again(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache", 0)
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))
    length = {entry.name: entry.bytes for entry in ds.manifest.shards}
    seen = {name: np.zeros(size, int) for name, size in length.items()}
    for name, offset, size in place.requests:
        seen[name][offset : offset + size] += 1
    assert all((counts >= 1).all() for counts in seen.values())
    # Nothing is kept, and no record is fetched twice but as a gap between others.
    assert sum(counts.sum() for counts in seen.values()) < 8 * bytes_of(ds)


def test_nothing_is_fetched_for_who_never_asks(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    loader = distant.loader(**OPTIONS)
    iterations = [iter(loader), loader.iterate()]
    for iteration in iterations:
        iteration.close()
    assert loader.ids() and not place.requests and not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("quiet")
def test_threads_that_decode_never_wait_for_a_single_record(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    threads = set()
    place.before = lambda *_: threads.add(threading.current_thread())
    loader = distant.loader(**OPTIONS, workers=2)
    decoders = {loader._pool.submit(threading.current_thread).result(LIMIT) for _ in range(50)}
    check_epochs(ds.loader(**OPTIONS), loader)
    assert threads and not threads & decoders


@pytest.mark.usefixtures("quiet")
def test_so_much_is_ahead_and_no_more(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has about 20 kB: with room for five of them, no more are fetched before one is used."""
    monkeypatch.setattr(ahead, "_BUDGET", 120_000)
    monkeypatch.setattr(ahead, "_HORIZON", 0)
    monkeypatch.setattr(copies, "_GAP_FITTING", 0)
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    most = 0
    begin = ahead.Ahead._begin

    def watched(self: ahead.Ahead, lot: list[Any]) -> None:
        nonlocal most
        most = max(most, self._bytes)
        begin(self, lot)

    monkeypatch.setattr(ahead.Ahead, "_begin", watched)
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))
    assert 30_000 < most < 160_000 < bytes_of(ds)


@pytest.mark.usefixtures("quiet")
def test_resumed_elsewhere(ds: hr.Dataset, tmp_path: Path) -> None:
    """On another machine, with an empty cache: the same batches, and nothing of the epoch's beginning is fetched."""
    near, here = ds.loader(**OPTIONS), far.opened(ds.path, tmp_path / "here")[0].loader(**OPTIONS)
    for _ in range(2):
        for k, (one, other) in enumerate(zip(near, here, strict=False)):
            assert same(one, other)
            if k == 4:
                break
    state = pickle.loads(pickle.dumps(here.state_dict()))
    assert state == near.state_dict() and (state["epoch"], state["batch"]) == (1, 5)
    distant, place = far.opened(ds.path, tmp_path / "there", 0)
    there = distant.loader(**OPTIONS)
    for one, other in zip(near.iterate(state), there.iterate(state), strict=True):
        assert same(one, other)
    assert place.requests
    shares = [there.iterate(state, share=(k, 2)) for k in range(2)]
    for k, one in enumerate(near.iterate(state)):
        assert same(one, next(shares[k % 2]))


@pytest.mark.usefixtures("quiet")
def test_pickled_it_has_a_cache_of_its_own(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, _ = far.opened(ds.path, tmp_path / "cache", 10**7)
    loader = distant.loader(**OPTIONS)
    check_epochs(ds.loader(**OPTIONS), loader)
    again = pickle.loads(pickle.dumps(loader))
    mine = again.view.store.copies
    assert mine is not distant.store.copies and mine.cache is not distant.store.copies.cache
    assert (mine.cache.folder, mine.cache.asked) == (tmp_path / "cache", 10**7)
    near = ds.loader(**OPTIONS)
    near.epoch = 1
    check_epochs(near, again)
    assert not again.view.store.tables.place.requests  # all of it was there


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork of several threads
def test_forked(ds: hr.Dataset, tmp_path: Path) -> None:
    """Locks that another thread holds at the time are new in the child, and threads start again there."""
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    loader = distant.loader(**OPTIONS)
    near = ds.loader(**OPTIONS)
    assert same(loader[0], near[0])
    cache = distant.store.copies.cache  # type: ignore[union-attr]
    with cache._lock, distant.store.copies.traffic.changed:  # type: ignore[union-attr]
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if all(same(loader[i], near[i]) for i in range(3)) else 2
            finally:
                os._exit(code)
    ended = []
    waiter = threading.Thread(target=lambda: ended.append(os.waitpid(child, 0)[1]))
    waiter.start()
    waiter.join(LIMIT)
    if waiter.is_alive():
        os.kill(child, 9)
    assert ended == [0]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def _flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 20):
        data[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def _hole(path: Path, _: np.random.Generator) -> None:
    with path.open("r+b") as file:
        assert cache_module.punch(file.fileno(), BLOCK, 3 * BLOCK)


DAMAGES: dict[str, Callable[[Path, np.random.Generator], Any]] = {
    "flipped bits": _flip,
    "a hole": _hole,
    "half a write": lambda path, _: path.write_bytes(path.read_bytes()[:5000] + bytes(10_000)),
    "cut": lambda path, _: os.truncate(path, 4000),
    "longer": lambda path, _: path.write_bytes(path.read_bytes() + b"x" * 99),
    "empty": lambda path, _: path.write_bytes(b""),
    "removed": lambda path, _: path.unlink(),
    "a folder in its place": lambda path, _: (path.unlink(), path.mkdir()),
    "a link to a file of somebody": lambda path, _: (path.unlink(), path.symlink_to(path.parents[1] / "precious")),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("known", [False, True], ids=["a new process", "the process that fetched it"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_the_cache_holds_images_are_right(ds: hr.Dataset, damage: str, known: bool, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    distant, place = far.opened(ds.path, tmp_path / "cache")
    near, loader = ds.loader(**OPTIONS), distant.loader(**OPTIONS)
    check_epochs(near, loader)
    for file in files(tmp_path / "cache"):
        DAMAGES[damage](file.path, np.random.default_rng(1))
    if not known:
        distant, place = far.opened(ds.path, tmp_path / "cache")
        loader = distant.loader(**OPTIONS)
        loader.epoch = 1
    place.requests.clear()
    check_epochs(near, loader)
    assert place.requests or damage == "longer" or known  # which may have open what was removed
    assert (tmp_path / "precious").read_bytes() == b"precious"
    place.requests.clear()
    check_epochs(near, loader)
    if damage != "a folder in its place":
        assert not place.requests  # mended by the way


@pytest.mark.usefixtures("quiet")
def test_cleared_while_it_is_used(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    near, loader = ds.loader(**OPTIONS), distant.loader(**OPTIONS)
    for k, (one, other) in enumerate(zip(near, loader, strict=True)):
        assert same(one, other)
        if k == 2:
            cache_module.clear(tmp_path / "cache")
    # Once for what went to a file that was being removed, and stays open until it lacks something; and once for what
    # had been read of that before.
    check_epochs(near, loader, epochs=2)
    place.requests.clear()
    check_epochs(near, loader)
    assert not place.requests


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_a_store_without_an_answer_is_no_damage(ds: hr.Dataset, on_bad: str, tmp_path: Path) -> None:
    """The error comes in its turn, whatever `on_bad` says; and when the store is back, so are the batches."""
    distant, place = far.opened(ds.path, tmp_path / "cache")
    near, loader = ds.loader(**OPTIONS), distant.loader(**OPTIONS, on_bad=on_bad)

    def fails(name: str, offset: int, length: int) -> None:
        if name == ds.manifest.shards[1].name and offset + length > ds.manifest.shards[1].bytes // 2:
            raise StorageError(f"far://{name}: no answer in 180 s")

    place.before = fails
    got = []
    with pytest.raises(StorageError, match=r"no answer in 180 s$"):
        got.extend(loader.iterate())
    assert len(got) < len(loader) and not loader.skipped
    for one, other in zip(got, near.iterate(), strict=False):
        assert same(one, other)
    with pytest.raises(StorageError, match="no answer"):
        _ = [loader[i] for i in range(len(loader))]
    place.before = lambda *_: None
    check_epochs(near, loader)


@pytest.mark.usefixtures("quiet")
def test_what_the_store_gives_is_not_what_was_packed(ds: hr.Dataset, tmp_path: Path) -> None:
    """A fresh fetch brings wrong bytes: damage, with an address; with on_bad="skip" that record is left out alone."""
    distant, place = far.opened(ds.path, tmp_path / "cache")
    row = ds.catalog.row(7, named=True)

    def wrong(name: str, offset: int, data: bytes) -> bytes:
        at = row["offset"] + 100 - offset
        if name != row["shard"] or not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    place.after = wrong
    with pytest.raises(DamageError, match=rf"^far://ds/{row['shard']}, record \d+, byte \d+: payload CRC .* changed"):
        list(distant.loader(**OPTIONS))
    loader = distant.loader(**OPTIONS, on_bad="skip")
    for _ in range(2):
        ids = [id_ for batch in loader for id_ in batch.ids]
        assert sorted([*ids, row["id"]]) == sorted(ds.catalog["id"])
    assert len(loader.skipped) == 1
    place.after = lambda name, offset, data: data
    assert distant[row["id"]].read() == ds[row["id"]].read()


@pytest.mark.usefixtures("quiet")
def test_an_answer_that_is_too_short(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    place.after = lambda name, offset, data: data[: len(data) // 2]
    with pytest.raises(DamageError, match="the file ends here"):
        list(distant.loader(**OPTIONS))
    place.after = lambda name, offset, data: data
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))


@pytest.mark.usefixtures("quiet")
def test_leaving_does_not_wait_for_the_store(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    gate = Gate()
    loader = distant.loader(**OPTIONS, workers=2)
    place.before = gate
    iteration = loader.iterate()
    got: list[object] = []

    def wait() -> None:
        try:
            got.append(next(iteration))
        except BaseException as error:
            got.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        assert gate.asked.wait(LIMIT)
        loader.view.store.copies.orders.popitem()[1].close()  # type: ignore[union-attr]
        waiter.join(LIMIT)
        assert not waiter.is_alive() and isinstance(got[0], BaseException)
    finally:
        gate.open()
    check_epochs(ds.loader(**OPTIONS), loader)


@pytest.mark.usefixtures("quiet")
def test_nobody_waits_for_what_cannot_be_planned_any_more(
    ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the interpreter ends, pools take no work, and whoever waits for some would be waited for."""
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    found = distant.store.copies
    assert found is not None
    one = ahead.Ahead(found, range(3), lambda i: np.arange(i, i + 1))

    def refuse(*_: Any) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(found.pool, "submit", refuse)
    got: list[object] = []

    def take(i: int) -> None:
        try:
            got.append(one.take(i))
        except BaseException as error:
            got.append(type(error))

    takers = [threading.Thread(target=take, args=(i,), daemon=True) for i in range(3)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(LIMIT)
    assert got == [RuntimeError] * 3


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("work", ["_plan", "_look", "_run"])
def test_what_no_thread_took_is_not_waited_for(
    ds: hr.Dataset, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have no more threads for a while. The iteration says so; and who gives way to what is waited for
    does so until what was begun is done, not for ever."""
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    loader, found = distant.loader(**OPTIONS), distant.store.copies
    assert found is not None
    submit, asked = found.pool.submit, 0

    def refuse(function: Any, *args: Any) -> Any:
        nonlocal asked
        asked += work in str((function, args))
        if asked == 2:
            raise RuntimeError("can't start new thread")
        return submit(function, *args)

    with monkeypatch.context() as patch:
        patch.setattr(found.pool, "submit", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            list(itertools.chain(loader, loader))
    settle(loader)
    loader.epoch = 0
    check_epochs(ds.loader(**OPTIONS), loader)


def test_closed_by_who_takes(ds: hr.Dataset, tmp_path: Path) -> None:
    """Garbage is collected on any thread, also on one that is about to wait for a batch of what is collected."""
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    found = distant.store.copies
    assert found is not None
    one = ahead.Ahead(found, range(3), lambda i: np.arange(i, i + 1))

    class Collecting(dict[int, Any]):
        def setdefault(self, *args: Any) -> Any:
            one.close()
            return super().setdefault(*args)

    one._futures = Collecting()
    got: list[object] = []

    def take() -> None:
        try:
            got.append(one.take(0))
        except BaseException as error:
            got.append(type(error))

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    taker.join(LIMIT)
    assert got == [CancelledError]


@pytest.mark.usefixtures("quiet")
def test_when_the_interpreter_ends_nothing_is_asked_for(
    ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for all that pools have queued."""
    monkeypatch.setattr(copies, "THREADS", 2)
    monkeypatch.setattr(copies, "RANGE", 1)  # a request for each record
    distant, place = far.opened(ds.path, tmp_path / "cache")
    gate = Gate()
    place.before = gate
    loader = distant.loader(**OPTIONS)
    got: list[object] = []

    def wait() -> None:
        try:
            got.extend(loader)
        except BaseException as error:
            got.append(type(error))

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert gate.asked.wait(LIMIT)
    monkeypatch.setattr(parallel.Pool, "takes_work", False)
    gate.open()
    waiter.join(LIMIT)
    assert got == [CancelledError] and len(place.requests) <= 2


def test_iterations_begin_while_others_make_room(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, _ = far.opened(ds.path, tmp_path / "cache")
    found = distant.store.copies
    assert found is not None
    over = threading.Event()
    wrong: list[BaseException] = []

    def begin() -> None:
        k = 0
        while not over.is_set():
            orders = [ahead.Ahead(found, range(1), lambda _: np.arange(1)) for _ in range(20)]
            found.cache.own([f"{k + i:064x}" for i in range(len(orders))], "far://x", found._victims)
            k += len(orders)

    def free() -> None:
        try:
            for _ in range(300):
                list(found._victims(True))
                found.cache._touched = -1e9
                found.cache.touch()
        except BaseException as error:
            wrong.append(error)
        over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for work in (begin, free)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


@pytest.mark.usefixtures("quiet")
def test_a_failure_of_ours_is_heard(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step fails, whoever waits gets the error, and no iteration hangs."""
    for name in ("held", "spans", "fetch", "wanted", "keep"):
        distant, _ = far.opened(ds.path, tmp_path / name)

        def fail(self: Any, *_: Any, **__: Any) -> None:
            raise RuntimeError("ours")

        with monkeypatch.context() as patch:
            patch.setattr(copies.Copies, name, fail)
            with pytest.raises(RuntimeError, match="ours"):
                list(distant.loader(**OPTIONS))


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
@pytest.mark.parametrize("holes", [True, False], ids=["holes", "no holes"])
def test_the_bound_is_kept(
    noise: hr.Dataset, order: str, holes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds, most = noise, bytes_of(noise) // 2
    for name in ("_GAP", "_GAP_FITTING"):  # here they are as large as a shard
        monkeypatch.setattr(copies, name, 0)
    # Nothing is taken along that others have to make room for: of a set as small as that it would be a large part.
    monkeypatch.setattr(Cache, "is_full", True)
    if not holes:
        monkeypatch.setattr(cache_module, "punch", lambda *_: False)
    distant, place = far.opened(ds.path, tmp_path / "cache", most)
    options = OPTIONS | {"shuffle": order == "shuffled"}
    near, loader = ds.loader(**options), distant.loader(**options)
    for _ in range(4):
        place.requests.clear()
        for one, other in zip(near, loader, strict=True):
            assert same(one, other)
            assert taken(tmp_path / "cache") <= most
    # Half of it lies there, and is not fetched again.
    if holes:
        assert taken(tmp_path / "cache") > 0.8 * most
        assert sum(length for _, _, length in place.requests) < 0.8 * bytes_of(ds)


@pytest.mark.usefixtures("quiet")
def test_nothing_stays_of_an_epoch(noise: hr.Dataset, tmp_path: Path) -> None:
    """Of a set twice as large as its cache, of which half is fetched in each epoch."""
    distant, place = far.opened(noise.path, tmp_path / "cache", bytes_of(noise) // 2)
    loader = distant.loader(**OPTIONS)
    found = distant.store.copies
    assert found is not None
    left = []
    tracemalloc.start()
    try:
        for _ in range(8):
            place.requests.clear()
            for _ in loader:
                pass
            settle(loader)
            assert sum(length for _, _, length in place.requests) > bytes_of(noise) / 4
            for pool in (found.pool, loader._pool):
                pool.close()  # a thread may still hold what it has written, or the work whose result is there
            gc.collect()
            left.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert left[-1] - left[2] < bytes_of(noise) / 10
    assert not found.orders and found.traffic.idle and found.traffic._bytes == 0


def test_nothing_is_kept(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, _ = far.opened(ds.path, tmp_path / "cache", 0)
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS), epochs=2)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("quiet")
def test_a_lower_bound_frees_what_is_over(ds: hr.Dataset, tmp_path: Path) -> None:
    near = ds.loader(**OPTIONS)
    check_epochs(near, far.opened(ds.path, tmp_path / "cache")[0].loader(**OPTIONS))
    full = taken(tmp_path / "cache")
    distant, _ = far.opened(ds.path, tmp_path / "cache", full // 3)
    loader = distant.loader(**OPTIONS)
    loader.epoch = 1
    check_epochs(near, loader)
    assert 0 < taken(tmp_path / "cache") <= full // 3 + full // 3 // 8


@pytest.mark.usefixtures("quiet")
def test_files_of_others_go_first(ds: hr.Dataset, tmp_path: Path) -> None:
    """Those that nobody has used for longest; not those that somebody reads by."""
    folder, size = tmp_path / "cache", bytes_of(ds)
    other = Cache(folder)
    names = [f"{k:064x}" for k in range(4)]
    for k, name in enumerate(names):
        assert other.write(name, size, 0, b"x" * size)
        age = 0 if k == 3 else 10_000 * (k + 1)
        os.utime(folder / name, (time.time() - age, time.time() - age))
    distant, _ = far.opened(ds.path, folder, taken(folder) + 4 * BLOCK)
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))
    left = [name for name in names if (folder / name).exists()]
    assert left in ([names[0], names[1], names[3]], [names[0], names[3]])
    assert len(files(folder)) == len(left) + len(ds.manifest.shards)


@pytest.mark.usefixtures("quiet")
def test_records_outside_of_the_view_go_first(ds: hr.Dataset, tmp_path: Path) -> None:
    """Yesterday's epoch was of all records; today's is of a fifth of them, and the cache is full of the others."""
    folder = tmp_path / "cache"
    check_epochs(ds.loader(**OPTIONS), far.opened(ds.path, folder)[0].loader(**OPTIONS))
    some = np.arange(0, N, 5)
    for file in files(folder):
        os.truncate(file.path, file.path.stat().st_size * 2 // 3)  # a third of them is missing
    distant, place = far.opened(ds.path, folder, taken(folder))
    near, loader = ds[some].loader(**OPTIONS), distant[some].loader(**OPTIONS)
    check_epochs(near, loader)
    place.requests.clear()
    check_epochs(near, loader)
    assert not place.requests


def test_too_small_for_one_record(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, _ = far.opened(ds.path, tmp_path / "cache", 700)
    with pytest.raises(UsageError, match=r"^cache_bytes is 700, and the largest record of far://ds has \d+ bytes; "):
        distant.loader(**OPTIONS)
    with pytest.raises(UsageError, match=r"^cache_bytes is -1, wanted at least 0$"):
        Cache(tmp_path, -1)


def test_a_near_dataset_needs_none(ds: hr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies on this machine"):
        hr.Dataset(ds.path, cache_dir=tmp_path)


# --- folders that can't be written to ---------------------------------------------------------------------------------


def check_from_memory(ds: hr.Dataset, folder: Path, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """All images are right, and one line says why nothing is kept."""
    distant, _ = far.opened(ds.path, folder, 10**7)
    near, loader = ds.loader(**OPTIONS), distant.loader(**OPTIONS)
    with caplog.at_level(logging.WARNING, "headrace"):
        check_epochs(near, loader, epochs=2)
    assert [record.message for record in caplog.records] == [f"{folder}: {why}"]


@pytest.mark.usefixtures("quiet")
def test_a_folder_that_cannot_be_made(ds: hr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    check_from_memory(
        ds, tmp_path / "file" / "cache", caplog, "not a directory; nothing is kept of what is read from stores"
    )


@pytest.mark.usefixtures("quiet")
def test_a_name_that_no_folder_can_have(ds: hr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / ("x" * 300)
    distant, _ = far.opened(ds.path, folder)
    with caplog.at_level(logging.WARNING, "headrace"):
        check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))
    assert [record.message for record in caplog.records] == [
        f"{folder}: file name too long; nothing is kept of what is read from stores"
    ]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a memory disk with these options, for root."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        if os.geteuid() or shutil.which("mount") is None:
            pytest.skip("only root can mount a disk")
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no disk can be mounted here")
        mounted.append(at)
        return at

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.mark.usefixtures("quiet")
def test_a_disk_that_only_reads(ds: hr.Dataset, disk: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    check_from_memory(
        ds, disk("ro") / "cache", caplog, "read-only file system; nothing is kept of what is read from stores"
    )


@pytest.mark.usefixtures("quiet")
def test_a_full_disk(
    ds: hr.Dataset, disk: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the records have room there."""
    for name in ("_GAP", "_GAP_FITTING"):
        monkeypatch.setattr(copies, name, 0)
    folder = disk(f"size={bytes_of(ds) // 2 // BLOCK * BLOCK}") / "cache"
    check_from_memory(ds, folder, caplog, "no space left on device; less is kept of what is read from stores")
    distant, place = far.opened(ds.path, folder, 10**7)
    check_epochs(ds.loader(**OPTIONS), distant.loader(**OPTIONS))
    assert 0 < sum(length for _, _, length in place.requests) < bytes_of(ds)


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import far
from pathlib import Path
from test_copies import OPTIONS, check_epochs
import headrace as hr
ds, folder = Path(sys.argv[2]), Path(sys.argv[3])
near = hr.Dataset(ds).loader(**OPTIONS)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
check_epochs(near, far.opened(ds, folder)[0].loader(**OPTIONS), epochs=2)
print("right")
"""


def test_a_limit_on_files(ds: hr.Dataset, tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tests, ds.path, tmp_path / "cache"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(tests / "unit")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "right\n", done.stderr
    assert done.stderr.count("nothing is kept") == 1


# --- filling ----------------------------------------------------------------------------------------------------------


def fillers() -> set[threading.Thread]:
    """Those of other tests among them, which may end at any time."""
    return {thread for thread in threading.enumerate() if thread.name == "headrace-fill"}


def test_what_fits_is_filled_behind_the_training(
    noise: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_BUDGET", bytes_of(noise) // 4)
    monkeypatch.setattr(ahead, "_PIECES", (1, 1))
    distant, place = far.opened(noise.path, tmp_path / "cache")
    loader = distant.loader(**OPTIONS)
    gate = Gate()

    def before(*_: Any) -> None:
        if threading.current_thread().name == "headrace-fill":
            gate()

    place.before, others = before, fillers()
    with loader.iterate() as batches:
        next(batches)
        (thread,) = fillers() - others
        gate.open()
    thread.join(LIMIT)
    for entry in noise.manifest.shards:
        assert (tmp_path / "cache" / entry.sha256).read_bytes() == (Path(noise.path) / entry.name).read_bytes()
    place.requests.clear()
    check_epochs(noise.loader(**OPTIONS), loader)
    assert not place.requests


def test_the_filler_gives_way_and_ends_with_the_loader(ds: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(ds.path, tmp_path / "cache")
    gate = Gate()
    place.before = gate
    store = distant.store.copies
    assert store is not None
    store.traffic.expect(1)  # somebody waits for something all the time
    loader = distant.loader(**OPTIONS)
    assert loader._fetched[0].filling is not None
    others = fillers()
    loader._fetched[0].filling.begin()
    (thread,) = fillers() - others
    assert not gate.asked.wait(0.1)
    del loader
    thread.join(LIMIT)
    assert not thread.is_alive() and not place.requests


@pytest.mark.parametrize("share", [0.9, 0], ids=["no room", "a small part"])
def test_what_is_not_filled(ds: hr.Dataset, share: float, tmp_path: Path) -> None:
    distant, _ = far.opened(ds.path, tmp_path / "cache", int(share * bytes_of(ds)) if share else None)
    assert (distant if share else distant[::10]).loader(**OPTIONS)._fetched[0].filling is None


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ({"HEADRACE_CACHE": "/scratch/h", "XDG_CACHE_HOME": "/xdg"}, "/scratch/h"),
        ({"HEADRACE_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/headrace"),
        ({"HOME": "/home/me"}, "/home/me/.cache/headrace"),
    ],
)
def test_where_the_cache_is(said: dict[str, str], there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert folder_of() == Path(there)
    assert folder_of("/mine") == Path("/mine")


@pytest.mark.usefixtures("quiet")
def test_what_lies_in_the_folder(ds: hr.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "cache"
    check_epochs(ds.loader(**OPTIONS), far.opened(ds.path, folder)[0].loader(**OPTIONS))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {TAG, *(entry.sha256 for entry in ds.manifest.shards)}
    for entry in ds.manifest.shards:
        status = (folder / entry.sha256).stat()
        assert (status.st_mode & 0o777, status.st_size) == (0o600, entry.bytes)


def test_the_default_bound_is_half_of_what_is_free(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    disk = os.statvfs(tmp_path)
    assert cache.limit == pytest.approx(disk.f_bavail * disk.f_frsize / 2, rel=0.2)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("where", ["a dataset", "below a dataset", "somebody's folder"])
def test_a_folder_that_is_no_cache(ds: hr.Dataset, where: str, tmp_path: Path) -> None:
    copy = tmp_path / "ds"
    shutil.copytree(ds.path, copy)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    folder = {"a dataset": copy, "below a dataset": copy / "cache", "somebody's folder": tmp_path / "home"}[where]
    why = "is no cache (it holds letter.txt)" if "somebody" in where else f"lies in the dataset {copy}"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=f"^{folder}: ") as caught:
        far.opened(copy, folder)
    assert why in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_verb(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    folder = tmp_path / "cache"
    monkeypatch.setenv("HEADRACE_CACHE", str(folder))
    empty = {"folder": str(folder), "files": 0}
    assert json.loads(headrace("cache", "info", "--json").out) == empty | {"bytes": 0, "datasets": {}, "other": 0}
    check_epochs(ds.loader(**OPTIONS), far.opened(ds.path, folder)[0].loader(**OPTIONS))
    told = json.loads(headrace("cache", "info", "--json").out)
    assert told["files"] == 3 and told["bytes"] == taken(folder) > bytes_of(ds) / 2
    if told["other"] == 0:  # a file system with attributes
        assert told["datasets"] == {"far://ds": told["bytes"]}
        assert "far://ds" in headrace("cache", "info").out
    assert json.loads(headrace("cache", "clear", "--json").out) == empty | {"files": 3, "freed": told["bytes"]}
    assert not folder.exists()
    ended = headrace("cache", "empty")
    assert (ended.code, ended.err) == (2, "headrace: cache empty: there are cache info and cache clear\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "home"))
    for action in ("info", "clear"):
        ended = headrace("cache", action)
        assert ended.code == 2 and "is no cache (it holds letter.txt)" in ended.err
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    folder, theirs = tmp_path / "cache", tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    folder.mkdir()
    (folder / ("0" * 64)).symlink_to(theirs)
    assert cache_module.clear(folder) and not folder.exists() and theirs.read_bytes() == b"theirs"


def test_a_cache_that_was_cleared_while_a_copy_was_made(tmp_path: Path) -> None:
    """What says that it is one was removed, and half a copy is there."""
    (tmp_path / f"{'0' * 64}.abcdefgh.part").write_bytes(b"half")
    assert len(files(tmp_path)) == 1
    Cache(tmp_path).check()


# --- whole files ------------------------------------------------------------------------------------------------------


def test_whole_files(tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path / "cache"), []
    data = b"0123456789" * 1000
    sha256 = hashlib.sha256(data).hexdigest()

    def blocks(of: bytes = data) -> Iterator[bytes]:
        asked.append(1)
        yield of[:7]
        yield of[7:]

    path = cache.whole("far://ds/index", sha256, blocks)
    assert path.read_bytes() == data and cache.whole("far://ds/index", sha256, blocks) == path and len(asked) == 1
    path.write_bytes(data[:-1] + b"x")
    assert cache.whole("far://ds/index", sha256, blocks) == path and len(asked) == 1  # who reads it finds that
    assert cache.whole("far://ds/index", sha256, blocks, anew=True).read_bytes() == data and len(asked) == 2
    path.unlink()
    path.symlink_to(tmp_path / "theirs")
    (tmp_path / "theirs").write_bytes(b"theirs")
    assert cache.whole("far://ds/index", sha256, blocks).read_bytes() == data and len(asked) == 3
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    with pytest.raises(StorageError, match=r"^far://ds/other: is not what the manifest says"):
        cache.whole("far://ds/other", "0" * 64, blocks)
    assert {one.name for one in (tmp_path / "cache").iterdir()} == {TAG, path.name}


def test_a_whole_copy_is_not_read_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    data = b"0123456789" * 1000
    sha256 = hashlib.sha256(data).hexdigest()
    path = cache.whole("far://ds/index", sha256, lambda: [data])
    path.chmod(0)
    opened: list[object] = []
    open_, here = os.open, threading.current_thread()

    def noted(name: Any, *args: Any, **options: Any) -> int:
        if threading.current_thread() is here:  # threads of other tests may open what they want
            opened.append(name)
        return open_(name, *args, **options)

    monkeypatch.setattr(os, "open", noted)
    assert cache.whole("far://ds/index", sha256, lambda: [data]) == path
    assert not opened


# --- bits -------------------------------------------------------------------------------------------------------------


def test_bits() -> None:
    rng = np.random.default_rng(0)
    n = 200_000
    one, other = Bits(n), Bits(n)
    rows, more = rng.integers(0, n, 5000), rng.integers(0, n, 150_000)
    one.set(rows)
    other.set(more)
    assert one.of(np.arange(n)).nonzero()[0].tolist() == sorted(set(rows.tolist()))
    both = np.concatenate(list(one.both(other)))
    assert both.tolist() == sorted(set(rows.tolist()) & set(more.tolist()))
    one.clear(rows[:100])
    assert not one.of(rows[:100]).any() and one.of(np.setdiff1d(rows, rows[:100])).all()


def test_errors_of_the_disk_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk may have room again; a folder that is closed to us won't."""
    cache = Cache(tmp_path / "cache", 10**6)
    name = "a" * 64
    assert cache.write(name, 10_000, 0, bytes(5000))
    cache._failed(OSError(errno.ENOSPC, "No space left on device"))
    assert cache.keeps and cache.limit < 10**6
    cache._failed(OSError(errno.EACCES, "Permission denied"))
    cache._failed(OSError(errno.EACCES, "Permission denied"))
    assert not cache.keeps and not cache.write(name, 10_000, 0, bytes(10))
    assert [record.message.rpartition(": ")[2].partition(";")[0] for record in caplog.records] == [
        "no space left on device",
        "permission denied",
    ]
