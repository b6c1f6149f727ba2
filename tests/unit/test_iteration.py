"""Iteration: whose position it is when one peeks, has two, breaks or closes; what it skips; where it can be sent."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DataError, UsageError
from headrace.load.loader import Loader
from packed import flip, pack, photos, shades, shard_of, threads, threads_left

N, BATCHES = 37, 10
LIMIT = 60  # seconds that a process may take


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Record k of 37 is of the value k all over."""
    return pack(shades(N), tmp_path_factory.mktemp("shades") / "ds", shards=3)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threads()
    yield
    assert not threads_left(before)


def loader_of(ds: hr.Dataset, **options: Any) -> Loader:
    return ds.loader(**{"batch_size": 4, "workers": 2} | options)


def ids(batches: Any) -> list[tuple[str, ...]]:
    return [batch.ids for batch in batches]


def whole(ds: hr.Dataset, epochs: int = 3) -> list[tuple[str, ...]]:
    """What a run that was never stopped is served."""
    loader = loader_of(ds)
    return [batch for _ in range(epochs) for batch in ids(loader)]


def at(loader: Loader) -> tuple[int, int]:
    state = loader.state_dict()
    return state["epoch"], state["batch"]


# --- whose position it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 3, 9])
def test_a_peek_changes_nothing(ds: hr.Dataset, k: int) -> None:
    loader = loader_of(ds)
    loader.load_state_dict(loader.state_dict() | {"batch": k})
    iter(loader)
    peeks = [iter(loader), loader.iterate()]
    assert at(loader) == (0, k)
    assert ids(loader) + ids(loader) == whole(ds)[k:20]
    assert [ids(peek) for peek in peeks] == [whole(ds)[k:10]] * 2  # each where it was made


def test_two_at_once_go_their_own_ways(ds: hr.Dataset) -> None:
    loader, wanted = loader_of(ds), whole(ds)
    one, other = iter(loader), iter(loader)
    found: dict[Any, list[tuple[str, ...]]] = {one: [], other: []}
    for iteration, position in ((one, 1), (other, 1), (one, 2), (one, 3), (other, 2)):
        found[iteration].append(next(iteration).ids)
        assert at(loader) == (0, position)  # of the one which delivered last
    assert (one.state_dict()["batch"], other.state_dict()["batch"]) == (3, 2)
    assert found[one] + ids(one) == found[other] + ids(other) == wanted[:10]
    assert at(loader) == (1, 0) and ids(loader) == wanted[10:20]


@pytest.mark.parametrize("how", ["break", "close", "with", "drop", "exception"])
def test_after_an_epoch_that_was_left_comes_the_next(ds: hr.Dataset, how: str) -> None:
    loader = loader_of(ds)
    if how == "break":
        for _ in loader:
            break
    elif how == "exception":
        with pytest.raises(TypeError):
            list(map(int, iter(loader)))  # type: ignore[arg-type]
    else:
        run = iter(loader)
        next(run)
        if how == "close":
            run.close()
            assert list(run) == []
        elif how == "with":
            with run:
                pass
        del run
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 1)  # which a loaded state goes on from
    assert ids(loader) == whole(ds)[10:20]
    loader.load_state_dict(state)
    assert ids(loader) == whole(ds)[1:10]


def test_a_detached_one_never_moves_the_loader(ds: hr.Dataset) -> None:
    loader, wanted = loader_of(ds), whole(ds)
    assert ids(loader.iterate()) == ids(loader.iterate()) == wanted[:10]
    run = iter(loader)
    next(run)
    state = json.loads(json.dumps(loader.state_dict()))
    apart = loader.iterate(state)
    assert apart.epoch == 0 and ids(apart) == wanted[1:10]
    assert (apart.state_dict()["epoch"], apart.state_dict()["batch"]) == (1, 0)
    assert at(loader) == (0, 1) and ids(run) == wanted[1:10]
    assert ids(loader.iterate(apart.state_dict())) == wanted[10:20] == ids(loader)


@pytest.mark.parametrize("k", range(BATCHES + 1))
def test_a_detached_one_knows_where_it_stands(ds: hr.Dataset, k: int) -> None:
    with loader_of(ds, workers=5).iterate() as run:
        for _ in range(k):
            next(run)
        state = run.state_dict()
    assert run.state_dict() == state
    other = loader_of(ds)
    other.load_state_dict(state)
    assert ids(other) == whole(ds)[k : 10 if k < 10 else 20]
    assert ids(loader_of(ds).iterate(state)) == whole(ds)[k : 10 if k < 10 else 20]


def test_another_loaders_state_is_refused(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match="the state belongs to another loader: its batch_size is 5"):
        loader_of(ds).iterate(loader_of(ds, batch_size=5).state_dict())


def test_many_iterations_in_many_threads(ds: hr.Dataset) -> None:
    loader, wanted = loader_of(ds, workers=3), whole(ds)
    states = [loader.state_dict() | {"batch": k} for k in range(BATCHES)] * 3
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda state: ids(loader.iterate(state)), states))
    assert found == [wanted[state["batch"] : 10] for state in states] and at(loader) == (0, 0)


# --- threads ---------------------------------------------------------------------------------------------------------


def test_all_iterations_share_the_loaders_threads(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[threading.Thread] = set()
    drawing = ds.store.drawing
    monkeypatch.setattr(ds.store, "drawing", lambda rows: (used.add(threading.current_thread()), drawing(rows))[1])
    before = threads()  # of other tests, which may end at any time
    loader = loader_of(ds, workers=3)
    assert not threads() - before
    for _ in range(50):
        list(loader)
    alive = threads() - before
    assert used <= alive and len(alive) <= 3


@pytest.mark.parametrize("how", ["close", "drop"])
def test_leaving_ends_what_was_made_ahead(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What had begun is waited for, and nothing begins any more."""
    begun, ended = [], []
    drawing = ds.store.drawing

    def counted(rows: Any) -> Any:
        draw = drawing(rows)

        def count(*given: Any) -> None:
            begun.append(1)
            draw(*given)
            ended.append(1)

        return count

    monkeypatch.setattr(ds.store, "drawing", counted)
    loader = loader_of(ds, workers=4, batch_size=1)
    run = iter(loader)
    next(run)
    if how == "close":
        run.close()
    else:
        del run
    assert len(begun) == len(ended) < N
    assert len(loader[0].ids) == 1 and len(begun) == len(ended)


def test_a_loader_is_gone_with_its_last_reference(ds: hr.Dataset) -> None:
    gc.disable()  # no cycle may hold it, nor its cache
    try:
        loader = loader_of(ds, cache="memory")
        list(loader)
        loader._pool.close()  # a thread may still hold the work whose result is there
        gone = weakref.ref(loader)
        del loader
        assert gone() is None
    finally:
        gc.enable()


# --- damaged records -------------------------------------------------------------------------------------------------


def broken(ds: hr.Dataset, folder: Path, bad: list[int]) -> hr.Dataset:
    copied = hr.Dataset(shutil.copytree(ds.path, folder))
    for i in bad:
        path, _, offset, _ = shard_of(copied, i)
        flip(path, offset + 40)
    return copied


# (numbers of damaged records, max_bad, the batch instead of which it raises, in order of 4 a batch)
SPENT: list[tuple[list[int], float | int, int | None]] = [
    ([3, 20], 0.10, None),
    ([3, 20, 30], 0.10, None),  # 3.7 of 37
    ([3, 20, 30, 36], 0.10, 9),
    ([0, 1, 2, 3], 0.10, 0),
    ([3, 20], 1, 5),
    ([3, 20], 2, None),
    ([36], 0, 9),  # in the last batch
    ([3], 0.0, 0),
    ([3], 0.02, 0),  # none of 37
    (list(range(N)), 1.0, None),
    (list(range(N)), N - 1, 9),
]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("bad", "most", "raised"), SPENT)
def test_the_budget(
    ds: hr.Dataset, tmp_path: Path, bad: list[int], most: float | int, raised: int | None, workers: int
) -> None:
    loader = loader_of(broken(ds, tmp_path / "ds", bad), shuffle=False, on_bad="skip", max_bad=most, workers=workers)
    for run in (loader.iterate(), iter(loader)):
        served: list[hr.Batch] = []
        if raised is None:
            served.extend(run)
            assert len(run.skipped) == len(bad)
        else:
            with pytest.raises(DataError, match=r"of 37 records of an epoch .* left out \(max_bad\)(.|\n)*\n  /"):
                served.extend(run)
            assert next(run, None) is None
        stop = BATCHES if raised is None else raised
        assert len(served) == sum(not set(range(4 * i, min(4 * i + 4, N))) <= set(bad) for i in range(stop))
        assert run.state_dict()["batch"] == stop % BATCHES


def test_a_batch_of_which_nothing_is_left_does_not_come(ds: hr.Dataset, tmp_path: Path) -> None:
    """But to a rank, which has as many batches as the others."""
    damaged = broken(ds, tmp_path / "ds", [0, 1, 2, 3, 8, 10, 36])
    options: dict[str, Any] = {"shuffle": False, "on_bad": "skip", "max_bad": 1.0}
    wanted = [batch.ids for batch in loader_of(ds, shuffle=False)][1:9]  # of the first and the last nothing is left
    wanted[1] = wanted[1][1::2]
    run = loader_of(damaged, **options).iterate()
    for i, ids in enumerate(wanted):
        assert next(run).ids == ids
        rest = loader_of(damaged, **options).iterate(run.state_dict())
        assert [batch.ids for batch in rest] == wanted[i + 1 :]
    assert next(run, None) is None and run.passed == 2 and len(run.skipped) == 7 and run.position == (1, 0)
    ranked = [loader_of(damaged, **options, world=(rank, 2), drop_last=True) for rank in (0, 1)]
    assert [[len(batch.ids) for batch in one] for one in ranked] == 2 * [[0, 2, 1, *[2] * 6]]


def test_a_budget_is_of_an_epoch(ds: hr.Dataset, tmp_path: Path) -> None:
    loader = loader_of(broken(ds, tmp_path / "ds", [3, 20]), on_bad="skip", max_bad=2)
    for _ in range(4):
        assert sum(len(batch.ids) for batch in loader) == N - 2
    assert len(loader.skipped) == 2


def test_each_rank_may_spend_a_share_of_all_records(ds: hr.Dataset, tmp_path: Path) -> None:
    bad = broken(ds, tmp_path / "ds", [0, 2, 5, 7])  # of each half-batch one, in the first two batches
    options: dict[str, Any] = {"on_bad": "skip", "shuffle": False, "drop_last": True, "max_bad": 0.03}
    for rank in (0, 1):
        with pytest.raises(DataError, match="2 of 37 records of an epoch are damaged, 1 may be left out"):
            list(loader_of(bad, world=(rank, 2), **options))


def test_skipped_is_what_was_delivered(ds: hr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not what was made ahead, nor taken by hand or apart; in the order of the batches whatever the threads do."""
    bad = broken(ds, tmp_path / "ds", [1, 3, 6, 20, 35])
    loader = loader_of(bad, shuffle=False, on_bad="skip", max_bad=1.0, workers=5)
    where = [f"record {shard_of(bad, i)[1]}," for i in (1, 3, 6, 20, 35)]
    loader[0], list(loader.iterate())
    assert loader.skipped == ()
    run = iter(loader)
    wanted = [2, 3, 3, 3, 3, 4, 4, 4, 5, 5]
    with caplog.at_level(logging.WARNING, "headrace"):
        for n in wanted:
            next(run)
            assert len(run.skipped) == len(loader.skipped) == n
            assert all(name in address for name, address in zip(where, run.skipped, strict=False))
        list(loader)
    assert loader.skipped == run.skipped and len(caplog.records) == 5  # each is told once


# --- sent anywhere ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
@pytest.mark.parametrize("options", [{}, {"cache": "memory", "augment": (hr.HorizontalFlip(),)}, {"world": (1, 3)}])
def test_a_loader_is_sent_with_its_position(ds: hr.Dataset, copied: Any, options: dict[str, Any]) -> None:
    view = ds.where("label < 2")
    loader = view.loader(batch_size=5, workers=3, **options)
    for _ in zip(range(2), loader, strict=False):
        pass
    other = copied(loader)
    assert other.state_dict() == loader.state_dict() and other.options == loader.options
    assert other.view.title == loader.view.title and other.workers == 3
    for one, two in zip(loader, other, strict=True):
        assert one.ids == two.ids and np.array_equal(one.images, two.images)
    loader.load_state_dict(loader.state_dict() | {"epoch": 3, "batch": 2})
    assert ids(copied(loader)) == ids(loader)  # the rest, not the next


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
def test_datasets_and_views_are_sent(ds: hr.Dataset, copied: Any) -> None:
    for view in (ds, ds.where("label = 1"), *ds.divide({"a": 0.5}, seed=3), ds.where("1 = 0")):
        other = copied(view)
        assert type(other) is hr.Dataset and other.view_fingerprint == view.view_fingerprint
        assert (other.title, other.is_view, other.rows.tolist()) == (view.title, view.is_view, view.rows.tolist())
        assert other.where("label = 1").catalog["id"].to_list() == view.where("label = 1").catalog["id"].to_list()
    assert len(pickle.dumps(ds)) < 1000  # a path, no rows


def test_a_dataset_of_arrays_is_sent() -> None:
    ds = hr.ArrayDataset(np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1), [0, 1] * 3, class_names=("a", "b"))
    loader = ds.where("label = 1").loader(batch_size=2)
    other = pickle.loads(pickle.dumps(loader))
    assert other.state_dict() == loader.state_dict()
    assert all(np.array_equal(one.images, two.images) for one, two in zip(loader, other, strict=True))
    assert isinstance(pickle.loads(pickle.dumps(ds)), hr.ArrayDataset)


def test_a_spawned_process_goes_on(ds: hr.Dataset, tmp_path: Path) -> None:
    loader = loader_of(ds)
    for _ in zip(range(4), loader, strict=False):
        pass
    (tmp_path / "loader").write_bytes(pickle.dumps(loader))
    code = f"""
import pickle
loader = pickle.load(open({str(tmp_path / "loader")!r}, "rb"))
loader.load_state_dict(loader.state_dict())
print([batch.ids for batch in loader])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == f"{whole(ds)[4:10]}\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_iterates_and_refuses_its_parents_iteration(tmp_path: Path) -> None:
    """With boxes and an augmentation, in a process of its own: Polars did its part when the loader was made."""
    ds = pack(photos(24, boxes=True), tmp_path / "ds")
    code = f"""
import os, sys
import headrace as hr
loader = hr.Dataset({str(ds.path)!r}).loader(batch_size=4, size=16, workers=2, augment=(hr.HorizontalFlip(),))
wanted = [batch.ids for batch in loader.iterate()]
fresh = hr.Dataset({str(ds.path)!r}).loader(batch_size=4, size=16, workers=2, augment=(hr.HorizontalFlip(),))
run = iter(loader)
next(run)
child = os.fork()
if not child:
    assert [batch.ids for batch in fresh] == wanted
    assert [batch.ids for batch in loader.iterate(loader.state_dict())] == wanted[1:]
    assert loader[2].ids == wanted[2]
    try:
        next(run)
    except hr.UsageError as error:
        assert "belongs to the process it was forked from" in str(error)
        sys.exit(0)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print([batch.ids for batch in run] == wanted[1:])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == "True\n", done.stderr
