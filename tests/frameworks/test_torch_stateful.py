"""TorchFeed in torchdata's StatefulDataLoader: it goes on at any batch, with processes and without."""

from __future__ import annotations

import itertools
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

import headrace as hr
from packed import pack, shades

torch = pytest.importorskip("torch")
StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

N = 19
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more processes than cores
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls what torch has given up
]


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("stateful") / "ds", shards=2)


def numbers(batches: Any) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


def made(ds: hr.Dataset, workers: int, epoch: int = 0, **options: Any) -> tuple[Any, Any]:
    feed = ds.loader(batch_size=4, augment=(hr.HorizontalFlip(),)).to_torch()
    feed.set_epoch(epoch)
    return feed, StatefulDataLoader(feed, batch_size=None, num_workers=workers, **options)


def epochs(ds: hr.Dataset, n: int) -> list[list[list[int]]]:
    feed, _ = made(ds, 0)
    return [numbers(feed) for _ in range(n)]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_it_goes_on_at_every_batch(ds: hr.Dataset, workers: int) -> None:
    first, second, third = epochs(ds, 3)
    for k in range(6):
        _, whole = made(ds, workers)
        got = iter(whole)
        assert numbers(itertools.islice(got, k)) == first[:k]
        state = pickle.dumps(whole.state_dict())
        del got
        feed, resumed = made(ds, workers)
        resumed.load_state_dict(pickle.loads(state))
        # After the last batch and before its end, a process has nothing more of this epoch, and a feed goes on.
        assert numbers(resumed) == (first[k:] if k < 5 or workers else second)
        for epoch, wanted in ((1, second), (2, third))[: 2 if k == 3 else 0]:
            feed.set_epoch(epoch)
            assert numbers(resumed) == wanted


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_an_epoch_that_has_ended(ds: hr.Dataset, workers: int) -> None:
    first, second = epochs(ds, 2)
    _, whole = made(ds, workers)
    assert numbers(whole) == first
    _, resumed = made(ds, workers, epoch=1)
    resumed.load_state_dict(pickle.loads(pickle.dumps(whole.state_dict())))
    assert numbers(resumed) == second


def test_twice_in_an_epoch_and_from_a_later_one(ds: hr.Dataset) -> None:
    wanted = epochs(ds, 4)[3]
    _, loader = made(ds, 2, epoch=3)
    got: list[list[int]] = []
    for k in (1, 2, 2):
        got += numbers(itertools.islice(iter(loader), k))
        state = pickle.dumps(loader.state_dict())
        _, loader = made(ds, 2)  # whose feed is at epoch 0, which its processes are told otherwise
        loader.load_state_dict(pickle.loads(state))
    assert got == wanted


def test_processes_that_persist_go_on_as_well(ds: hr.Dataset) -> None:
    first, second, third = epochs(ds, 3)
    _, whole = made(ds, 2, persistent_workers=True)
    assert numbers(itertools.islice(iter(whole), 3)) == first[:3]
    _, resumed = made(ds, 2, persistent_workers=True)
    resumed.load_state_dict(whole.state_dict())
    assert [numbers(resumed) for _ in range(3)] == [first[3:], second, third]


def test_a_state_of_others_is_refused(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, _ = made(ds, 2)
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=2))
    iter(feed)
    state = feed.state_dict()
    assert state["share"] == [1, 2] and state["batch"] == 1
    with pytest.raises(hr.UsageError, match=r"the state belongs to another loader: its batch_size is 4, .* is 5"):
        ds.loader(batch_size=5).to_torch().load_state_dict(state)
    for broken in ({"share": [1]}, {"share": "12"}, {"batch": 0}, {"batch": None}, {"epoch": "x"}, {"version": 7}):
        with pytest.raises(hr.UsageError):
            feed.load_state_dict(state | broken)
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=3))
    feed.load_state_dict(state)
    with pytest.raises(hr.UsageError, match="that of process 1 of 2 of a DataLoader, and this is 1 of 3; pass num_w"):
        iter(feed)


def test_single_records_of_a_map_style_dataset(ds: hr.Dataset) -> None:
    items = ds.to_torch_dataset()
    whole = StatefulDataLoader(items, batch_size=4, num_workers=2)
    wanted = numbers(whole)
    assert numbers(itertools.islice(iter(whole), 2)) == wanted[:2]
    resumed = StatefulDataLoader(ds.to_torch_dataset(), batch_size=4, num_workers=2)
    resumed.load_state_dict(whole.state_dict())
    assert numbers(resumed) == wanted[2:]
