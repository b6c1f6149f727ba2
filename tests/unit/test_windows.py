"""order="windows": how large windows are, that a loader loses nothing by them, and that sorted records are told."""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
import stored
from headrace import order
from headrace.errors import UsageError
from headrace.load import windows
from headrace.order import Windows
from packed import pack, shades

MB = 1 << 20


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 800 bytes: 50 of the images that `arrays` makes."""
    monkeypatch.setattr(windows, "_BLOCK_BYTES", 800)


def arrays(y: NDArray[Any] | None, n: int = 0, **options: Any) -> hr.ArrayDataset:
    """Images of 16 bytes, in the order of their labels [n], or one-hot [n, classes]; nothing shuffles them."""
    x = np.zeros((n if y is None else len(y), 4, 4), np.uint8)
    return hr.ArrayDataset(x, y, **options)


@pytest.mark.parametrize(
    ("records", "size", "block", "group"),
    [
        # one block is 8 MB, a window 16 of them
        (1_000_000, 8 * MB // 80, 80, 16),
        (1_000_000, 8 * MB // 8000, 7813, 16),  # 125 blocks would be seven windows and 13 blocks: they are 128
        (10_000, 20 * MB, 1, 16),  # a record is more than a block
        (1280, 8 * MB // 80, 80, 16),
        (1281, 8 * MB // 80, 72, 9),  # two windows that are equal, and not one of 80 records beside one of one
        (100, 8 * MB // 80, 50, 2),  # all is one window
        (7, 100, 7, 1),
        (3, 20 * MB, 1, 3),
        (1, 1, 1, 1),
        (0, 100, 1, 1),
    ],
)
def test_how_large_windows_are(records: int, size: int, block: int, group: int) -> None:
    shards = [SimpleNamespace(bytes=400 * size), SimpleNamespace(bytes=600 * size)]
    store: Any = type("Some", (list,), {"manifest": SimpleNamespace(shards=shards)})(range(1000))
    assert windows.windows_of(store, records) == (block, group)


def test_windows_of_nothing() -> None:
    store: Any = type("None", (list,), {"manifest": SimpleNamespace(shards=())})()
    assert windows.windows_of(store, 0) == (1, 1)


def flat(batches: Any) -> list[str]:
    return [id_ for batch in batches for id_ in batch.ids]


@pytest.fixture
def ds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hr.Dataset:
    """Blocks of three or four records."""
    monkeypatch.setattr(windows, "_BLOCK_BYTES", 1200)
    return pack(shades(203), tmp_path / "ds", shards=3)


def test_an_epoch_is_every_record_once_in_its_order(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=8, order="windows", seed=3, workers=2)
    assert loader.order == "windows" and loader.windows is not None
    assert 3 <= loader.windows.block <= 4 and 2 <= len(ds) / (loader.windows.block * loader.windows.group) < 10
    for epoch in range(2):
        rows = order.permute_windows(np.arange(203), n=203, seed=3, epoch=epoch, windows=loader.windows)
        wanted = list(ds.store.ids_of(rows))
        assert flat(loader) == wanted and sorted(wanted) == sorted(ds.catalog["id"])
    assert flat(loader) != wanted


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_the_batches(ds: hr.Dataset, ranks: int) -> None:
    whole = ds.loader(batch_size=11, order="windows")
    parts = [ds.loader(batch_size=11, order="windows", world=(rank, ranks)) for rank in range(ranks)]
    for i in range(len(whole)):
        assert list(whole[i].ids) == flat(part[i] for part in parts)


def test_a_run_goes_on_at_any_batch(ds: hr.Dataset) -> None:
    options: dict[str, Any] = {"batch_size": 16, "order": "windows", "seed": 5}
    loader = ds.loader(**options)
    loader.epoch = 2
    wanted = [batch.ids for batch in loader.iterate()]
    for stop, _ in enumerate(batches := iter(loader), start=1):
        state = json.loads(json.dumps(batches.state_dict()))
        if stop < len(loader):
            other = ds.loader(**options, world=(0, 1), workers=1)
            other.load_state_dict(state)
            assert [batch.ids for batch in other] == wanted[stop:]
    again = pickle.loads(pickle.dumps(loader))
    assert (again.windows, again.state_dict()) == (loader.windows, loader.state_dict())


def test_a_state_of_another_order_is_refused(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    full, some = ds.loader(batch_size=16), ds.loader(batch_size=16, order="windows")
    before = {name: value for name, value in full.state_dict().items() if name != "windows"}
    full.load_state_dict(before)  # that of a time when there was no other order
    for loader, state in ((full, some.state_dict()), (some, full.state_dict()), (some, before)):
        with pytest.raises(UsageError, match="belongs to another loader: its windows is"):
            loader.load_state_dict(state)
    monkeypatch.setattr(windows, "_BLOCK_BYTES", 500)
    with pytest.raises(UsageError, match=r"its windows is \[\d+, \d+\], this loader's is \[\d+, \d+\]"):
        ds.loader(batch_size=16, order="windows").load_state_dict(some.state_dict())


def test_it_is_said(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=16, order="windows")
    assert re.search(r"shuffled by seed 0 in windows of \d+ blocks of \d;", repr(loader))
    assert "windows" not in repr(ds.loader(batch_size=16)) and ds.loader().order == "full"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": "window"}, "order is 'window', wanted full or windows"),
        ({"order": None}, "order is None, wanted full or windows"),
        ({"order": "windows", "shuffle": False}, "a way to shuffle, and these records come unshuffled"),
    ],
)
def test_what_can_not_be_meant(ds: hr.Dataset, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ds.loader(**options)


def test_records_to_evaluate_are_not_shuffled_by_the_way(ds: hr.Dataset) -> None:
    _, val = ds.divide({"train": 0.8, "val": 0.2})
    with pytest.raises(UsageError, match="pass shuffle=True, or leave order out"):
        val.loader(order="windows")
    assert sorted(flat(val.loader(order="windows", shuffle=True))) == sorted(val.catalog["id"])


def test_neighbours_are_those_of_the_view(ds: hr.Dataset) -> None:
    listed = np.random.default_rng(0).permutation(203)[:150]
    for view in (ds.where("label < 2"), ds[50:180], ds[listed]):
        loader = view.loader(batch_size=7, order="windows", shuffle=True)
        assert loader.windows is not None and loader.windows.group * loader.windows.block < len(view)
        assert sorted(flat(loader)) == sorted(view.catalog["id"])
        window = loader.windows.block * loader.windows.group
        n, found = len(view), np.array(flat(loader.iterate())[:window])
        places = np.sort(np.flatnonzero(np.isin(np.array(view.store.ids_of(view.rows)), found)))
        stretches = int((np.diff(places, append=places[0] + n) != 1).sum())
        assert stretches <= loader.windows.group < window / 2


# --- records that lie by class ---------------------------------------------------------------------------------------


def several(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """One-hot [n, 4], and the third class in every second image beside its own."""
    return np.eye(4, dtype=np.uint8)[labels] | (np.arange(len(labels)) % 2 * np.eye(4, dtype=np.uint8)[2][:, None]).T


SORTED = np.repeat(np.arange(4), 1000)
MIXED = np.random.default_rng(0).permutation(SORTED)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("dataset", "warns"),
    [
        (lambda: arrays(SORTED), True),
        (lambda: arrays(SORTED[::-1]), True),
        (lambda: arrays(np.repeat(np.arange(160), 25)), True),  # two classes to a block
        (lambda: arrays(SORTED // 2), True),
        (lambda: arrays(SORTED // 3), True),
        (lambda: arrays(several(SORTED), labels="multi"), True),
        (lambda: arrays(several(MIXED), labels="multi"), False),
        (lambda: arrays(MIXED), False),
        (lambda: arrays(np.arange(4000) % 4), False),  # stratified, more even than by chance
        (lambda: arrays(np.arange(4000) // 8 % 4), False),
        (lambda: arrays(SORTED[:800]), False),  # one window
        (lambda: arrays(np.zeros(4000, np.int64)), False),
        (lambda: arrays(None, 4000), False),
        (lambda: arrays(np.arange(4000.0), labels="value"), False),
        (lambda: arrays(SORTED)[np.random.default_rng(1).permutation(4000)], False),
        (lambda: arrays(MIXED)[np.argsort(MIXED, kind="stable")], True),
    ],
)
def test_records_that_lie_by_class_are_told(dataset: Any, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    loader = dataset().loader(order="windows", shuffle=True)
    found = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(found) == warns
    if warns:
        assert re.search(
            r"^.+: its records lie by class, .* [1-9]\.\d times as unevenly as by chance .* pack it, .*order='full'$",
            found[0].getMessage(),
        )
        pickle.loads(pickle.dumps(loader))
        assert len(caplog.records) == 1  # once, and not by each process


@pytest.mark.usefixtures("few")
def test_a_full_shuffle_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    arrays(SORTED).loader(shuffle=True)
    assert not caplog.records


def measured(labels: Sequence[int] | NDArray[np.int64], shape: Windows, epochs: int) -> float:
    """The same as `unevenness`, of what really comes: batches of 32 in many epochs."""
    labels, n = np.asarray(labels), len(labels)
    shares = np.bincount(labels) / n
    spread = []
    for epoch in range(epochs):
        rows = order.permute_windows(np.arange(n), n=n, seed=0, epoch=epoch, windows=shape)
        for start in range(0, n - 31, 32):
            found = np.bincount(labels[rows[start : start + 32]], minlength=len(shares)) / 32
            spread.append(((found - shares) ** 2).sum())
    return float(np.sqrt(np.mean(spread) / ((shares * (1 - shares)).sum() / 32)))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("run", [1000, 100, 50, 25, 10])
def test_unevenness_is_what_comes(run: int) -> None:
    labels = np.arange(20_000) // run % 10
    dataset = arrays(labels)
    shape = windows.windows_of(dataset.store, len(dataset))
    assert shape == (50, 16)
    found = windows.unevenness(dataset.store, dataset.rows, shape)
    assert found == pytest.approx(measured(labels, shape, 60), abs=0.06)


@pytest.mark.usefixtures("few")
def test_few_of_many_blocks_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = arrays(np.random.default_rng(0).permutation(np.arange(50_000) // 50 % 7).repeat(2))
    shape = windows.windows_of(dataset.store, len(dataset))
    whole = windows.unevenness(dataset.store, dataset.rows, shape)
    asked = []
    classes_of = dataset.store.classes_of
    monkeypatch.setattr(dataset.store, "classes_of", lambda rows: asked.append(len(rows)) or classes_of(rows))
    monkeypatch.setattr(windows, "_SAMPLE", 10_000)
    assert windows.unevenness(dataset.store, dataset.rows, shape) == pytest.approx(whole, abs=0.03)
    assert asked == [10_000]


def test_a_dataset_in_a_store_comes_in_the_same_windows(
    ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    with stored.s3() as endpoint:
        bucket = stored.bucket(endpoint, monkeypatch)
        for path in Path(ds.path).iterdir():
            bucket.put(f"ds/{path.name}", path.read_bytes())
        far = hr.Dataset(f"{bucket.url}/ds")
        for one, two in zip(
            ds.loader(batch_size=16, order="windows"), far.loader(batch_size=16, order="windows"), strict=True
        ):
            assert one.ids == two.ids and np.array_equal(one.images, two.images)
