"""Loader: which records come in which batch, that pixels and labels are theirs, and that all of it can be repeated."""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
from drawn import jpeg
from headrace import parallel
from headrace.errors import DamageError, UsageError
from headrace.imaging.augment import ColorJitter, HorizontalFlip, RandomResizedCrop
from headrace.load import dataset
from headrace.load.facts import Facts
from headrace.load.iteration import Batch
from headrace.load.loader import Loader
from headrace.load.targets import Boxes, Labels
from packed import flip, pack, photos, pixels_of, shades, shard_of, threads, threads_left

N = 37
PHOTOS = photos(30, grey=(3,), png=(4, 5))
BOXED = photos(24, boxes=True, png=range(10))
AUGMENT = (HorizontalFlip(), RandomResizedCrop(), ColorJitter())


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Record k of 37 is of the value k all over."""
    return pack(shades(N), tmp_path_factory.mktemp("shades") / "ds", shards=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(PHOTOS, tmp_path_factory.mktemp("pictures") / "ds", shards=2)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(BOXED, tmp_path_factory.mktemp("boxed") / "ds")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threads()
    yield
    assert not threads_left(before)


def ids(batches: Sequence[Batch] | Loader) -> list[list[str]]:
    return [list(batch.ids) for batch in batches]


def flat(batches: Sequence[Batch] | Loader) -> list[str]:
    return [id_ for batch in batches for id_ in batch.ids]


def same(one: Batch, two: Batch) -> bool:
    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
        return a is b or (a.dtype == b.dtype and np.array_equal(a, b))

    return one.ids == two.ids and equal(one.images, two.images) and equal(one.targets, two.targets)


def by_id(batches: Sequence[Batch] | Loader) -> dict[str, NDArray[np.uint8]]:
    return {id_: image for batch in batches for id_, image in zip(batch.ids, batch.images, strict=True)}


# --- which records, in which order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("batch_size", "drop_last"), [(1, False), (5, False), (5, True), (37, True), (100, False)])
def test_an_epoch_is_every_record_once(ds: hr.Dataset, shuffle: bool, batch_size: int, drop_last: bool) -> None:
    loader = ds.loader(batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, workers=2)
    batches = list(loader)
    assert len(loader) == len(batches) == (N // batch_size if drop_last else -(-N // batch_size))
    sizes = [len(batch.ids) for batch in batches]
    assert sizes == [batch_size] * (N // batch_size) + ([] if drop_last or N % batch_size == 0 else [N % batch_size])
    counts = Counter(flat(batches))
    assert set(counts.values()) == {1} and len(counts) == sum(sizes)


def test_drop_last_of_less_than_a_batch(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=100, drop_last=True)
    assert len(loader) == 0 and list(loader) == []
    # An epoch like any other: who goes on until some are over comes to an end.
    assert loader.epoch == 1 and list(loader) == [] and loader.epoch == 2 and not loader.due.batch
    iter(loader)  # which is left before its end
    assert list(loader.iterate()) == [] and loader.epoch == 2


def test_pixels_and_targets_are_the_records(ds: hr.Dataset) -> None:
    for batch in ds.loader(batch_size=5, workers=2):
        assert batch.images.shape == (len(batch.ids), 8, 8, 3) and batch.images.dtype == np.uint8
        assert batch.targets.shape == (len(batch.ids),) and batch.targets.dtype == np.int64
        for id_, image, target in zip(batch.ids, batch.images, batch.targets, strict=True):
            assert (image == int(id_)).all() and target == int(id_) % 3


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"augment": AUGMENT, "size": 6}, {"cache": "memory"}])
def test_workers_change_nothing(ds: hr.Dataset, options: dict[str, Any]) -> None:
    one, two, five = (list(ds.loader(batch_size=4, workers=workers, **options)) for workers in (1, 2, 5))
    assert len(one) == 10
    assert all(same(a, b) and same(a, c) for a, b, c in zip(one, two, five, strict=True))


def test_batch_i_is_the_ith(ds: hr.Dataset) -> None:
    loader, other = (ds.loader(batch_size=4, augment=AUGMENT, workers=2) for _ in range(2))
    for epoch in range(2):
        assert other.epoch == epoch
        wanted = [other[i] for i in range(len(other))]
        assert all(same(other[i - len(other)], wanted[i]) for i in range(len(other)))
        assert all(same(a, b) for a, b in zip(loader, wanted, strict=True))
        other.epoch += 1


@pytest.mark.parametrize("i", [10, -11, 1 << 70])
def test_no_such_batch(ds: hr.Dataset, i: int) -> None:
    with pytest.raises(IndexError, match=f"batch {i} of 10"):
        ds.loader(batch_size=4)[i]


@pytest.mark.parametrize("i", ["0", 1.0, None])
def test_no_number(ds: hr.Dataset, i: Any) -> None:
    with pytest.raises(TypeError):
        ds.loader(batch_size=4)[i]


def test_epochs_and_seeds_deal_differently(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4, seed=1)
    epochs = [ids(loader) for _ in range(4)] + [ids(ds.loader(batch_size=4, seed=2))]
    for one, two in itertools.combinations(epochs, 2):
        assert one != two
        assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in two}  # not the same batches either


def test_the_same_seed_is_the_same_run(ds: hr.Dataset) -> None:
    one, two = ds.loader(batch_size=4, seed=7), ds.loader(batch_size=4, seed=7)
    assert [ids(one) for _ in range(3)] == [ids(two) for _ in range(3)]


def test_without_shuffling_it_is_the_order_of_the_view(ds: hr.Dataset) -> None:
    for view in (ds, ds.where("label = 1"), ds.divide({"a": 0.5}, seed=3)[0]):
        loader = view.loader(batch_size=4, shuffle=False)
        assert flat(loader) == flat(loader) == view.catalog["id"].to_list()


def test_a_view_gives_its_records_and_no_others(ds: hr.Dataset) -> None:
    view = ds.where("label = 1").where("id > '010'")
    loader = view.loader(batch_size=4)
    assert Counter(flat(loader)) == Counter(view.catalog["id"].to_list())


@pytest.mark.parametrize("epoch", [0, 3, -1, 1 << 40])
def test_the_epoch_can_be_set(ds: hr.Dataset, epoch: int) -> None:
    loader, other = ds.loader(batch_size=4), ds.loader(batch_size=4)
    loader.epoch = other.epoch = epoch
    assert ids(loader) == [list(other[i].ids) for i in range(10)]
    assert loader.epoch == epoch + 1


def test_the_epoch_while_iterating(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=10)
    epochs = []
    for _ in range(2):
        for _ in loader:
            epochs.append(loader.epoch)
    assert epochs == [0, 0, 0, 1, 1, 1, 1, 2]  # with the last batch the epoch is over


def test_an_epoch_that_was_left_is_not_begun_again(ds: hr.Dataset) -> None:
    loader, other = ds.loader(batch_size=4), ds.loader(batch_size=4)
    with closing(iter(loader)) as run:
        next(run)
    other.epoch = 1
    assert ids(loader) == ids(other)


def test_an_iterator_that_gave_nothing_does_not_count(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4)
    iter(loader)
    assert ids(loader) == ids(ds.loader(batch_size=4))


def test_an_empty_view(ds: hr.Dataset) -> None:
    loader = ds.where("1 = 0").loader(batch_size=4)
    assert len(loader) == 0 and list(loader) == []
    loader.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    with pytest.raises(IndexError):
        loader[0]


def test_from_many_threads(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=3, augment=AUGMENT, size=9, cache=None)
    wanted = [loader[i] for i in range(len(loader))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(loader.__getitem__, list(range(len(loader))) * 4))
    assert all(same(batch, wanted[i % len(loader)]) for i, batch in enumerate(found))


def test_two_iterators_at_once(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4)
    pairs = list(zip(iter(loader), iter(loader), strict=True))
    assert all(same(a, b) for a, b in pairs) and len(pairs) == 10


def test_repr(ds: hr.Dataset) -> None:
    text = repr(ds.where("label = 1").loader(batch_size=4, seed=3))
    assert text == "Loader(3 batches of 4, 8x8x3, shuffled by seed 3; 12 records of ds / where label = 1)"
    assert "in order" in repr(ds.loader(shuffle=False))
    weighted = ds.loader(batch_size=4, weights={"ant": 2}, take=9)
    assert "drawn by weight and seed 0; 9 an epoch of 37 records of ds" in repr(weighted)


# --- pixels ----------------------------------------------------------------------------------------------------------


def reference(record: hr.Record, size: tuple[int, int], fit: str) -> NDArray[np.uint8]:
    """Pillow decodes, OpenCV resizes the whole image, NumPy cuts and pads: another way to the same picture."""
    pixels = pixels_of(record)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    h, w = pixels.shape[:2]
    out_h, out_w = size
    if fit != "stretch":
        scale = (max if fit == "crop" else min)(out_h / h, out_w / w)
        whole = max(1, round(h * scale)), max(1, round(w * scale))
    else:
        whole = size
    area = cv2.INTER_AREA if h >= whole[0] and w >= whole[1] else cv2.INTER_LINEAR
    pixels = cv2.resize(pixels, whole[::-1], interpolation=area)
    y, x = (out_h - whole[0]) // 2, (out_w - whole[1]) // 2
    out = np.zeros((*size, 3), np.uint8)
    if fit == "crop":
        return pixels[-y : out_h - y, -x : out_w - x]
    out[y : y + whole[0], x : x + whole[1]] = pixels
    return out


LARGE = [
    hr.Record(id=str(k), encoded=jpeg(150 + 31 * k, 230 - 17 * k, mode="L" if k == 3 else "RGB", seed=k, quality=95))
    for k in range(6)
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(LARGE, tmp_path_factory.mktemp("large") / "ds")


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(20, 20), (18, 50), (80, 30), (100, 110), (128, 40), (300, 290)])
def test_pixels_of_any_size(large: hr.Dataset, fit: Any, size: tuple[int, int]) -> None:
    records = {record.id: record for record in LARGE}
    for id_, image in by_id(large.loader(size=size, fit=fit, batch_size=4)).items():
        wanted = reference(records[id_], size, fit)
        difference = np.abs(image.astype(int) - wanted.astype(int))
        assert image.shape == wanted.shape and difference.mean() < 4, (id_, difference.mean())


def test_pixels_of_the_stored_size_are_exact(tmp_path: Path) -> None:
    ds = pack(PHOTOS, tmp_path / "ds", size=(24, 40))
    assert ds.image_size == (24, 40)
    batches = list(ds.loader(batch_size=7, shuffle=False))
    images = np.concatenate([batch.images for batch in batches])
    for i in range(len(ds)):
        stored = ds[i].image
        assert np.array_equal(images[i], np.repeat(stored, 3 // stored.shape[2], axis=2))
        wanted = pixels_of(ds[i])
        assert np.abs(images[i].astype(int) - wanted.astype(int)).max() <= 3


def test_an_int_is_a_square(pictures: hr.Dataset) -> None:
    assert pictures.loader(size=12)[0].images.shape == (30, 12, 12, 3)


def test_grey_has_one_channel_and_mixed_three(pictures: hr.Dataset, tmp_path: Path) -> None:
    assert pictures.loader(size=8)[0].images.shape[3] == 3
    grey = pack(photos(6, grey=range(10)), tmp_path / "grey")
    for augment in ((), (HorizontalFlip(p=1.0), ColorJitter(brightness=0.5))):
        batch = grey.loader(size=(8, 9), augment=augment, shuffle=False)[0]
        assert batch.images.shape == (6, 8, 9, 1)
    plain, flipped = (
        grey.loader(size=(8, 9), augment=augment, shuffle=False)[0].images for augment in ((), (HorizontalFlip(p=1.0),))
    )
    assert np.array_equal(flipped, plain[:, :, ::-1]) and plain.std() > 0


def test_a_batch_is_the_callers(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4, cache="memory")
    first = loader[0]
    first.images[:] = 255
    assert loader[0].images.max() < N


# --- resume ----------------------------------------------------------------------------------------------------------


def state_after(loader: Loader, k: int) -> dict[str, Any]:
    with closing(iter(loader)) as run:
        for _ in range(k):
            next(run)
        state: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return state


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_resume_at_every_batch(ds: hr.Dataset, shuffle: bool, drop_last: bool) -> None:
    """Ids, pixels and targets of the rest of the epoch and of the next are those of the run that went on."""

    def loader(workers: int) -> Loader:
        return ds.loader(
            batch_size=4, shuffle=shuffle, drop_last=drop_last, seed=3, augment=AUGMENT, workers=workers, size=7
        )

    run = loader(2)
    whole = [*run, *run, *run]
    n = len(run)
    for k in range(n + 1):
        resumed = loader(1 + k % 3)
        resumed.load_state_dict(state_after(loader(3), k))
        rest = [*resumed, *resumed]
        assert len(rest) == (2 * n - k if k < n else 2 * n)
        assert all(same(a, b) for a, b in zip(rest, whole[k:], strict=False))


def test_resume_in_a_later_epoch(ds: hr.Dataset) -> None:
    run, resumed = ds.loader(batch_size=4), ds.loader(batch_size=4)
    list(run)
    epoch = list(run)
    run.epoch = 1
    resumed.load_state_dict(state_after(run, 6))
    assert resumed.epoch == 1
    assert all(same(a, b) for a, b in zip(resumed, epoch[6:], strict=True)) and resumed.epoch == 2


def test_resume_twice(ds: hr.Dataset) -> None:
    whole = list(ds.loader(batch_size=4))
    state = state_after(ds.loader(batch_size=4), 3)
    loader = ds.loader(batch_size=4)
    loader.load_state_dict(state)
    state = state_after(loader, 2)
    assert (state["epoch"], state["batch"]) == (0, 5)
    loader = ds.loader(batch_size=4)
    loader.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(loader, whole[5:], strict=True))


def test_a_state_counts_what_was_delivered(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4, workers=5)
    for epoch in range(2):
        for i, _ in enumerate(loader, start=1):
            state = loader.state_dict()
            assert (state["epoch"], state["batch"]) == ((epoch, i) if i < 10 else (epoch + 1, 0))


def test_taking_a_state_changes_nothing(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=4)
    state = loader.state_dict()
    assert loader.state_dict() == state
    loader.load_state_dict(state)
    assert ids(loader) == ids(ds.loader(batch_size=4))


def test_a_state_goes_with_the_content_and_not_with_the_place(ds: hr.Dataset, tmp_path: Path) -> None:
    moved = hr.Dataset(shutil.copytree(ds.path, tmp_path / "moved"))
    loader = moved.loader(batch_size=4)
    loader.load_state_dict(state_after(ds.loader(batch_size=4), 3))
    assert len(list(loader)) == 7


def test_what_does_not_change_the_order_may_change(ds: hr.Dataset) -> None:
    state = state_after(ds.loader(batch_size=4), 3)
    loader = ds.loader(batch_size=4, size=5, augment=AUGMENT, workers=3, target=None, on_bad="skip")
    loader.load_state_dict(state)
    assert len(list(loader)) == 7


# (what the other loader has, the name in the message)
OTHERS: list[tuple[Callable[[hr.Dataset], Loader], str]] = [
    (lambda ds: ds.loader(batch_size=5), "batch_size is 5, this loader's is 4"),
    (lambda ds: ds.loader(batch_size=4, seed=1), "seed is 1, this loader's is 0"),
    (lambda ds: ds.loader(batch_size=4, shuffle=False), "shuffle is False"),
    (lambda ds: ds.loader(batch_size=4, drop_last=True), "drop_last is True"),
    (lambda ds: ds.where("label = 1").loader(batch_size=4), "dataset is "),
    (
        lambda ds: ds.divide({"a": 1.0, "b": 1e-9})[0].where("1 = 1").where("id <> '000'").loader(batch_size=4),
        "dataset",
    ),
]


@pytest.mark.parametrize(("make", "reason"), OTHERS)
def test_the_state_of_another_loader_is_refused(ds: hr.Dataset, make: Callable[..., Loader], reason: str) -> None:
    loader = ds.loader(batch_size=4)
    with pytest.raises(UsageError, match=f"the state belongs to another loader: its {reason}"):
        loader.load_state_dict(make(ds).state_dict())
    assert ids(loader) == ids(ds.loader(batch_size=4))  # nothing of it was taken


def test_the_state_of_another_dataset_is_refused(ds: hr.Dataset, tmp_path: Path) -> None:
    other = pack(shades(N), tmp_path / "ds", shards=3, seed=1)
    with pytest.raises(UsageError, match="its dataset is"):
        ds.loader().load_state_dict(other.loader().state_dict())


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"version": None}, {"epoch": None}, {"epoch": 1.5}, {"batch": 10}, {"batch": -1}, {"batch": "1"}],
)
def test_a_state_that_is_none(ds: hr.Dataset, changes: dict[str, Any]) -> None:
    loader = ds.loader(batch_size=4)
    with pytest.raises(UsageError, match="state"):
        loader.load_state_dict(loader.state_dict() | changes)


@pytest.mark.parametrize("state", [{}, None, [], "state"])
def test_no_state(ds: hr.Dataset, state: Any) -> None:
    with pytest.raises(UsageError, match="not the state of a loader of version 1"):
        ds.loader().load_state_dict(state)


# --- records in an order of one's own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"augment": hr.HorizontalFlip()}, {"cache": "memory"}, {"on_bad": "skip"}])
def test_records_at_positions_are_those_of_batches(ds: hr.Dataset, options: dict[str, Any]) -> None:
    loader = ds.loader(batch_size=5, shuffle=True, seed=2, **options)
    where = {record.id: i for i, record in enumerate(ds)}
    for epoch in (0, 2):
        loader.epoch = epoch
        for batch in loader.iterate():
            found = loader.at(np.array([where[id_] for id_ in batch.ids]))
            assert found.ids == batch.ids
            assert np.array_equal(found.images, batch.images) and np.array_equal(found.targets, batch.targets)
        several = loader.at(np.array([3, 0, 3, 3]))
        assert several.ids == tuple(list(where)[i] for i in (3, 0, 3, 3))
        assert np.array_equal(several.images[0], several.images[3])
        assert loader.state_dict()["batch"] == 0 and loader.epoch == epoch  # it takes nothing from an iteration


# --- world -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "most"), [(1, False, 1), (3, True, 3), (8, False, 5), (50, False, 8)]
)
@pytest.mark.parametrize("ranks", range(1, 9))
def test_ranks_share_the_global_batches(
    ds: hr.Dataset, ranks: int, batch_size: int, drop_last: bool, most: int
) -> None:
    ranks = min(ranks, most)
    options: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last, "workers": 2}
    alone = ds.loader(**options)
    parts = [ds.loader(**options, world=(rank, ranks)) for rank in range(ranks)]
    for _ in range(2):
        batches, shares = list(alone), [list(part) for part in parts]
        assert all(len(share) == len(batches) == len(alone) for share in shares)
        assert Counter(id_ for share in shares for id_ in flat(share)) == Counter(flat(batches))
        for i, batch in enumerate(batches):
            ranks_of_it = [share[i] for share in shares]
            assert [id_ for part in ranks_of_it for id_ in part.ids] == list(batch.ids)
            assert np.array_equal(np.concatenate([part.images for part in ranks_of_it]), batch.images)
            assert np.array_equal(np.concatenate([part.targets for part in ranks_of_it]), batch.targets)
            sizes = [len(part.ids) for part in ranks_of_it]
            assert max(sizes) - min(sizes) <= 1
    if not drop_last:
        assert Counter(id_ for part in parts for id_ in flat(part)) == Counter(f"{k:03d}" for k in range(N))


# (batch_size, ranks, drop_last, what is said of 37 records)
EMPTY: list[tuple[int, int, bool, str | None]] = [
    (4, 5, False, "batch_size is 4, the records of a batch of all 5 ranks together (world), so that some"),
    (4, 5, True, "pass batch_size=5 or more"),
    (4, 2, False, "the last of 10 batches has 1 of 37 records, so some of 2 ranks would get none; pass drop_last=True"),
    (4, 2, True, None),
    (5, 2, False, None),
    (5, 3, False, "the last of 8 batches has 2 of 37 records"),
    (37, 37, False, None),
    (50, 40, False, "the last of 1 batches has 37 of 37 records"),
    (50, 40, True, None),
]


@pytest.mark.parametrize(("batch_size", "ranks", "drop_last", "says"), EMPTY)
def test_no_rank_gets_an_empty_batch(
    ds: hr.Dataset, batch_size: int, ranks: int, drop_last: bool, says: str | None
) -> None:
    for rank in (0, ranks - 1):
        options: dict[str, Any] = {"batch_size": batch_size, "world": (rank, ranks), "drop_last": drop_last}
        if says is None:
            assert all(batch.ids for batch in ds.loader(**options))
        else:
            with pytest.raises(UsageError, match=re.escape(says)):
                ds.loader(**options)
    assert len(ds.where("1 = 0").loader(batch_size=8, world=(1, 8))) == 0


@pytest.mark.parametrize("k", [0, 1, 3, 5, 6])
def test_resume_with_another_number_of_ranks(ds: hr.Dataset, k: int) -> None:
    whole = [*(run := ds.loader(batch_size=6, drop_last=True)), *run]
    state = state_after(ds.loader(batch_size=6, drop_last=True, world=(1, 2)), k)
    parts = []
    for rank in range(3):
        loader = ds.loader(batch_size=6, drop_last=True, world=(rank, 3))
        loader.load_state_dict(state)
        parts.append(list(loader))
    found = [[id_ for part in parts for id_ in part[i].ids] for i in range(len(parts[0]))]
    assert found == ids(whole)[k : 6 if k < 6 else 12]


# --- bad records -----------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(ds: hr.Dataset, tmp_path: Path) -> hr.Dataset:
    """Records 3 and 20 of it are damaged."""
    broken = hr.Dataset(shutil.copytree(ds.path, tmp_path / "ds"))
    for i in (3, 20):
        path, _, offset, _ = shard_of(broken, i)
        flip(path, offset + 40)
    return broken


@pytest.mark.parametrize("workers", [1, 3])
def test_a_damaged_record_raises_with_its_address(broken: hr.Dataset, workers: int) -> None:
    path, number, offset, _ = shard_of(broken, 3)
    loader = broken.loader(batch_size=4, shuffle=False, workers=workers)
    with pytest.raises(DamageError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{path}, record {number}, byte {offset + 12}: payload CRC is 0x")
    with pytest.raises(DamageError):
        loader[0]
    assert len(loader[1].ids) == 4


def test_what_came_before_the_damage_was_delivered(broken: hr.Dataset) -> None:
    loader = broken.loader(batch_size=5, shuffle=False, workers=3)
    loader.load_state_dict(loader.state_dict() | {"batch": 1})
    seen: list[Batch] = []
    with pytest.raises(DamageError):
        seen.extend(loader)
    assert len(seen) == 3 and loader.state_dict()["batch"] == 4


def test_skip(broken: hr.Dataset, ds: hr.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    loader = broken.loader(batch_size=4, shuffle=False, workers=2, on_bad="skip", augment=(HorizontalFlip(),))
    wanted = ds.loader(batch_size=4, shuffle=False, augment=(HorizontalFlip(),))
    bad = {ds[i].id for i in (3, 20)}
    with caplog.at_level(logging.WARNING, "headrace"):
        for _ in range(2):
            for batch, whole in zip(loader, wanted, strict=True):
                good = [i for i, id_ in enumerate(whole.ids) if id_ not in bad]
                assert batch.ids == tuple(whole.ids[i] for i in good)
                assert np.array_equal(batch.images, whole.images[good])
                assert np.array_equal(batch.targets, whole.targets[good])
    addresses = [f"{path}, record {number}, byte" for path, number, _, _ in (shard_of(broken, i) for i in (3, 20))]
    assert len(loader.skipped) == 2
    assert all(skipped.startswith(address) for skipped, address in zip(loader.skipped, addresses, strict=True))
    assert [record.getMessage() for record in caplog.records] == [f"left out: {text}" for text in loader.skipped]


def test_skip_with_boxes(boxed: hr.Dataset, tmp_path: Path) -> None:
    broken = hr.Dataset(shutil.copytree(boxed.path, tmp_path / "ds"))
    path, _, offset, _ = shard_of(broken, 1)
    flip(path, offset + 40)
    options: dict[str, Any] = {"batch_size": 24, "size": 16, "shuffle": False}
    found, whole = broken.loader(**options, on_bad="skip")[0], boxed.loader(**options)[0]
    assert found.ids == whole.ids[:1] + whole.ids[2:]
    assert np.array_equal(found.targets["boxes"], np.delete(whole.targets["boxes"], 1, axis=0))


def test_a_batch_of_which_nothing_is_left(broken: hr.Dataset) -> None:
    loader = broken.loader(batch_size=1, shuffle=False, on_bad="skip")
    assert loader[3].images.shape == (0, 8, 8, 3) and loader[3].ids == () and loader[3].targets.shape == (0,)


def test_what_no_decoder_takes_is_damage_too(tmp_path: Path) -> None:
    """Sound by its CRC, but no image: a packer of another kind may have written it."""
    from headrace.format import tfrecord

    ds = pack(photos(2), tmp_path / "ds", shards=1)
    row = ds.catalog.row(1, named=True)
    path = ds.path / row["shard"]
    data = bytearray(path.read_bytes())
    middle = row["image_offset"] + row["image_length"] - 60
    data[middle : middle + 2] = b"\xff\xd9"  # its end, too early
    payload = bytes(data[row["offset"] + 12 : row["offset"] + 12 + row["length"]])
    data[row["offset"] :] = tfrecord.frame(payload)
    (tmp_path / "theirs.tfrecord").write_bytes(data)
    hr.adopt(tmp_path / "theirs.tfrecord", tmp_path / "adopted", progress=False)
    adopted = hr.Dataset(tmp_path / "adopted")
    with pytest.raises(DamageError, match=r"theirs\.tfrecord, record 1: .*JPEG.*; run 'headrace verify"):
        list(adopted.loader(size=8, batch_size=1))
    with pytest.raises(DamageError, match="JPEG"):
        _ = adopted[1].image


class Failing(hr.Target):
    """A target that fails for one class."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> NDArray[np.int64]:
        if 5 in labels.classes:
            raise ZeroDivisionError("five")
        return labels.classes


@pytest.mark.parametrize("workers", [1, 4])
def test_an_exception_in_a_worker_reaches_the_caller(tmp_path: Path, workers: int) -> None:
    ds = pack(shades(30, classes=[str(k) for k in range(10)]), tmp_path / "ds")
    loader = ds.loader(batch_size=5, target=Failing(), workers=workers)
    with pytest.raises(ZeroDivisionError, match="five"):
        list(loader)


# --- leaving early ---------------------------------------------------------------------------------------------------


def test_break(ds: hr.Dataset) -> None:
    before = threads()
    for _ in ds.loader(batch_size=2, workers=4):
        assert threads() - before
        break
    assert not threads_left(before)


def test_del(ds: hr.Dataset) -> None:
    before = threads()
    run = iter(ds.loader(batch_size=2, workers=4))
    next(run)
    assert threads() - before
    del run
    assert not threads_left(before)


def test_an_exception_in_the_body_of_the_loop(ds: hr.Dataset) -> None:
    before = threads()

    def loop() -> None:
        for _ in ds.loader(batch_size=2, workers=4):
            raise KeyError

    with pytest.raises(KeyError):
        loop()
    assert not threads_left(before)


def test_the_end(ds: hr.Dataset) -> None:
    before = threads()
    run = iter(ds.loader(batch_size=2, workers=4))
    for _ in range(19):
        next(run)
    assert next(run, None) is None
    del run
    assert not threads_left(before)


def test_never_begun(ds: hr.Dataset) -> None:
    before = threads()
    run = iter(ds.loader(batch_size=2, workers=4))
    assert not threads() - before
    del run


# --- augmentations ---------------------------------------------------------------------------------------------------


def test_an_augmentation_is_the_records_own(pictures: hr.Dataset, tmp_path: Path) -> None:
    """Whatever the batches, ranks, workers, views and order of packing: (seed, epoch, id) alone."""

    def images(ds: hr.Dataset, **options: Any) -> dict[str, NDArray[np.uint8]]:
        return by_id(ds.loader(**{"batch_size": 30, "size": 16, "augment": AUGMENT, "seed": 4} | options))

    wanted = images(pictures)
    repacked = pack(PHOTOS, tmp_path / "ds", shards=4, seed=9)
    others = [
        images(pictures, batch_size=7),
        images(pictures, workers=5, batch_size=1),
        images(pictures, shuffle=False),
        images(pictures, world=(1, 3)),
        images(pictures.where("label = 1")),
        images(pictures.divide({"a": 0.3}, seed=5)[0]),
        images(repacked, batch_size=4),
    ]
    assert [len(other) for other in others] == [30, 30, 30, 10, 10, 9, 30]
    for other in others:
        assert all(np.array_equal(image, wanted[id_]) for id_, image in other.items())


@pytest.mark.parametrize("augment", AUGMENT)
def test_an_augmentation_differs_by_epoch_seed_and_record(pictures: hr.Dataset, augment: Any) -> None:
    def images(epoch: int, seed: int) -> NDArray[np.uint8]:
        loader = pictures.loader(size=16, augment=(augment,), seed=seed, shuffle=False)
        loader.epoch = epoch
        return loader[0].images

    runs = [images(0, 0), images(1, 0), images(2, 0), images(0, 1)]
    plain = pictures.loader(size=16, shuffle=False)[0].images
    for one, two in itertools.combinations([plain, *runs], 2):
        changed = (one != two).any(axis=(1, 2, 3))
        assert changed.sum() >= 8, "of 30"
    if isinstance(augment, HorizontalFlip):
        assert 8 <= (runs[0] != plain).any(axis=(1, 2, 3)).sum() <= 22
    assert np.array_equal(images(1, 0), runs[1])


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_flips_are_exact(pictures: hr.Dataset, fit: Any) -> None:
    options: dict[str, Any] = {"size": (15, 21), "fit": fit, "shuffle": False}
    plain = pictures.loader(**options)[0].images
    never = pictures.loader(**options, augment=(HorizontalFlip(p=0.0),))[0].images
    always = pictures.loader(**options, augment=(HorizontalFlip(p=1.0),))[0].images
    twice = pictures.loader(**options, augment=(HorizontalFlip(p=1.0), HorizontalFlip(p=1.0)))[0].images
    assert np.array_equal(never, plain) and np.array_equal(twice, plain)
    assert np.array_equal(always, plain[:, :, ::-1]) and not np.array_equal(always, plain)


def test_two_of_a_kind_draw_their_own(pictures: hr.Dataset) -> None:
    plain, once, twice = (
        pictures.loader(size=16, shuffle=False, augment=(HorizontalFlip(),) * n)[0].images for n in range(3)
    )
    flipped = [(images != plain).any(axis=(1, 2, 3)) for images in (once, twice)]
    assert flipped[1].any() and not np.array_equal(*flipped)  # or the second would undo the first


def test_a_crop_shows_a_part_of_the_picture(tmp_path: Path) -> None:
    """Each pixel tells where it was: rows in red, columns in green."""
    y, x = np.mgrid[0:100, 0:200].astype(np.uint8)
    record = hr.Record(id="a", encoded=cv2.imencode(".png", np.stack([x * 0, x, y], 2))[1].tobytes(), label_name="a")
    ds = pack([record], tmp_path / "ds")
    loader = ds.loader(size=(20, 20), augment=(RandomResizedCrop(scale=(0.2, 0.6)),))
    starts = set()
    for epoch in range(60):
        loader.epoch = epoch
        image = loader[0].images[0].astype(int)
        top, bottom, left, right = image[0, :, 0].mean(), image[-1, :, 0].mean(), *image[:, [0, -1], 1].mean(0)
        height, width = (bottom - top) * 20 / 19 + 1, (right - left) * 20 / 19 + 1
        assert 0.15 < height * width / 20_000 < 0.65 and 0.7 < width / height < 1.4
        assert image[..., 2].max() == 0
        starts.add((round(top), round(left)))
    assert len(starts) > 40


# --- cache -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("augment", [(), (HorizontalFlip(), ColorJitter())])
def test_the_cache_changes_no_pixel(pictures: hr.Dataset, fit: Any, augment: Any) -> None:
    options: dict[str, Any] = {"batch_size": 7, "size": 16, "fit": fit, "augment": augment, "workers": 3}
    plain, cached = pictures.loader(**options), pictures.loader(**options, cache="memory")
    for _ in range(3):
        assert all(same(a, b) for a, b in zip(plain, cached, strict=True))


def test_the_cache_decodes_once(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    view = ds.where("label = 1")
    loader = view.loader(batch_size=4, cache="memory")
    rows: list[int] = []
    drawing = view.store.drawing

    def counted(of: NDArray[np.int64]) -> Any:
        draw = drawing(of)
        return lambda i, *rest: (rows.append(int(of[i])), draw(i, *rest))[1]

    monkeypatch.setattr(view.store, "drawing", counted)
    for _ in range(3):
        list(loader)
    assert sorted(rows) == sorted(view.rows.tolist())


def test_a_damaged_record_is_not_cached(broken: hr.Dataset) -> None:
    loader = broken.loader(batch_size=4, shuffle=False, cache="memory", on_bad="skip")
    assert [len(batch.ids) for batch in loader] == [len(batch.ids) for batch in loader]
    assert len(loader.skipped) == 2


def test_the_cache_refuses_a_random_crop(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match="cache keeps images at their final size; a random crop needs more"):
        ds.loader(cache="memory", augment=(HorizontalFlip(), RandomResizedCrop()))


def test_the_cache_refuses_more_than_there_is(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"cache would take [0-9.]+ GB, this process may use [0-9.]+ GB"):
        ds.loader(cache="memory", size=65000)


# --- boxes -----------------------------------------------------------------------------------------------------------


def expected_boxes(record: hr.Record, size: tuple[int, int], *, flipped: bool = False) -> NDArray[np.float32]:
    assert record.boxes is not None
    height, width = pixels_of(record).shape[:2]
    scale = np.array([size[1] / width, size[0] / height] * 2)
    boxes = np.minimum(record.boxes, [width, height] * 2) * scale
    return np.array([[size[1] - x1, y0, size[1] - x0, y1] for x0, y0, x1, y1 in boxes] if flipped else boxes)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_boxes_move_with_the_pixels(boxed: hr.Dataset, p: float) -> None:
    records = {record.id: record for record in BOXED}
    batch = boxed.loader(size=(30, 40), augment=(HorizontalFlip(p=p),))[0]
    for i, id_ in enumerate(batch.ids):
        boxes, labels = (batch.targets[name][i][batch.targets["mask"][i]] for name in ("boxes", "labels"))
        assert boxes.dtype == np.float32
        wanted = expected_boxes(records[id_], (30, 40), flipped=bool(p))
        assert np.allclose(boxes, wanted.reshape(-1, 4), atol=1e-4)
        assert [("left", "right")[label] for label in labels] == list(records[id_].box_labels or ())
        assert not batch.targets["boxes"][i][~batch.targets["mask"][i]].any()
        assert (batch.targets["labels"][i][~batch.targets["mask"][i]] == -1).all()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_boxes_stay_on_what_they_frame(tmp_path: Path, fit: Any) -> None:
    """A white rectangle on black: wherever crop, flip and fit bring it, its box is around it."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:80, 50:130] = 255
    png = cv2.imencode(".png", image)[1].tobytes()
    boxes = np.array([[50, 30, 130, 80], [0, 0, 2, 2]], np.float32)
    records = [hr.Record(id=str(k), encoded=png, boxes=boxes, box_labels=("x", "corner")) for k in range(40)]
    ds = pack(records, tmp_path / "ds")
    batch = ds.loader(size=(64, 48), fit=fit, batch_size=40, augment=(HorizontalFlip(), RandomResizedCrop()))[0]
    cut = 0
    for picture, boxes, labels, mask in zip(
        batch.images, *(batch.targets[n] for n in ("boxes", "labels", "mask")), strict=True
    ):
        rows, columns = (np.flatnonzero((picture[..., 0] > 127).any(axis)) for axis in (1, 0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        (found,) = boxes[mask & (labels == 1)]
        assert np.abs(found - seen).max() <= 1.5
        assert found.min() >= 0 and found[2] <= 48 and found[3] <= 64
        cut += int(not (mask & (labels == 0)).any())
    assert cut > 5  # the corner is often cut off, and then has no box


# --- memory, options -------------------------------------------------------------------------------------------------


def test_a_loader_that_rests_keeps_nobody_waiting(ds: hr.Dataset) -> None:
    loader, go_on = ds.loader(batch_size=4, workers=1), threading.Event()
    work = loader._pool.submit(go_on.wait, 20)
    loader.rest()
    assert not work.done()
    go_on.set()
    assert work.result()


MEMORY = """
import gc, sys, tracemalloc
import headrace as hr
from headrace import order

leaks, kept = sys.argv[2] == "True", []
augment = (hr.HorizontalFlip(), hr.RandomResizedCrop(), hr.ColorJitter())
loader = hr.Dataset(sys.argv[1]).loader(batch_size=4, size=32, augment=augment, workers=2)


def epochs(n):
    for _ in range(n):
        for _ in loader:
            pass
        if leaks:
            kept.append(loader[0])
    loader._pool.close()  # as rest() does, and waits
    loader.rest()
    order._block.cache_clear()  # whose bound is more epochs than these
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


tracemalloc.start()
before = epochs(5)
print(epochs(25) - before)
"""


@pytest.mark.parametrize("leaks", [False, True])
def test_memory_is_flat(leaks: bool, pictures: hr.Dataset) -> None:
    """Nothing grows with the epochs; what is kept of one for the next goes before it is measured. In a process of its
    own, where no thread of another test asks for memory."""
    command = [sys.executable, "-c", MEMORY, str(pictures.path), str(leaks)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout)
    assert (grown < 20_000) is not leaks  # a batch has 12,288 bytes


# (options, what is said)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "batch_size is 0, wanted at least 1"),
    ({"batch_size": 64 / 8}, r"batch_size is 8\.0, wanted a whole number"),
    ({"batch_size": "8"}, "batch_size is '8', wanted a whole number"),
    ({"batch_size": True}, "batch_size is True, wanted a whole number"),
    ({"seed": "7"}, "seed is '7', wanted a whole number"),
    ({"shuffle": "no"}, "shuffle is 'no', wanted True or False"),
    ({"drop_last": 1}, "drop_last is 1, wanted True or False"),
    ({"size": 0}, "size is 0"),
    ({"size": (8,)}, r"size is \(8,\)"),
    ({"size": (8, 8, 3)}, "size is"),
    ({"size": 1.5}, "size is 1.5"),
    ({"size": (8, "8")}, "size is"),
    ({"fit": "squeeze"}, "fit is 'squeeze', wanted one of stretch, crop, pad"),
    ({"workers": 0}, "workers is 0, wanted at least 1"),
    ({"world": (1, 1)}, r"world is \(1, 1\), wanted \(rank, size\)"),
    ({"world": (-1, 2)}, r"world is \(-1, 2\)"),
    ({"world": (0, 0)}, r"world is \(0, 0\)"),
    ({"on_bad": "ignore"}, "on_bad is 'ignore', wanted raise or skip"),
    ({"max_bad": -1}, "max_bad is -1, wanted a share"),
    ({"max_bad": 1.5}, r"max_bad is 1.5, wanted a share \(a float, 0 to 1\) or a count \(an int\)"),
    ({"max_bad": float("nan")}, "max_bad is nan"),
    ({"cache": "disk"}, "cache is 'disk', wanted None or 'memory'"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_options_that_can_not_be(ds: hr.Dataset, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ds.loader(**options)


def test_images_of_many_sizes_need_one(pictures: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"the images differ in size; pass size=\(height, width\)"):
        pictures.loader()


def test_options_are_frozen(ds: hr.Dataset) -> None:
    loader = ds.loader(size=9)
    assert loader.options.size == (9, 9) and loader.batch_size == 32
    with pytest.raises(AttributeError):
        loader.options.batch_size = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(loader.options)) == loader.options


def test_the_target_is_checked_before_the_first_batch(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match="no boxes"):
        ds.loader(target=Boxes())


def test_batches_ahead_are_bounded_by_their_bytes(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ordered = parallel.ordered

    def noted(*given: Any, ahead: int, **more: Any) -> Any:
        asked.append(ahead)
        return ordered(*given, ahead=ahead, **more)

    monkeypatch.setattr(parallel, "ordered", noted)
    batch = 4 * 8 * 8 * 3
    for memory in (1 << 40, 4 * 5 * batch, 4 * 3 * batch, batch):
        monkeypatch.setattr(parallel, "memory", lambda memory=memory: memory)
        assert flat(ds.loader(batch_size=4, workers=6)) == flat(ds.loader(batch_size=4, workers=1))
    monkeypatch.setattr(parallel, "memory", lambda: 4 * 3 * batch)
    list(ds.loader(batch_size=8, world=(1, 2), workers=6))  # whose own part of a batch is 4
    monkeypatch.setattr(parallel, "memory", lambda: 4 * 5 * batch)
    list(ds.loader(batch_size=4, workers=6).iterate(share=(0, 2)))  # beside another process with as many
    assert asked.pop() == 1
    assert asked[::2] == [12, 4, 2, 1, 2] and asked[1::2] == [2, 2, 2, 1]


# (arguments, what is said), as they are typed by who comes from elsewhere
TYPED: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (
        (32,),
        {},
        r"loader\(32\): its arguments have names, as in loader\(batch_size=32, size=224\); there are batch_size",
    ),
    ((), {"image_size": (8, 8)}, r"loader\(\) has no image_size: it is called size here; there are batch_size, size, "),
    ((), {"num_workers": 2}, "has no num_workers: it is called workers here"),
    ((), {"transform": ()}, "has no transform: it is called augment here"),
    ((), {"drop_remainder": True}, "has no drop_remainder: it is called drop_last here"),
    ((), {"shufle": True}, "has no shufle: it is called shuffle here"),
    ((), {"batchsize": 8}, "has no batchsize: it is called batch_size here"),
    ((), {"shuffle_buffer": 1000}, "has no shuffle_buffer: it is called shuffle here"),
    ((), {"sampler": None}, "has no sampler: it is called weights here"),
    ((), {"pin_memory": True}, r"has no pin_memory: the feed has it: loader\.to_torch"),
    ((), {"prefetch_factor": 2}, "has no prefetch_factor: it makes batches ahead"),
    ((), {"persistent_workers": True}, "has no persistent_workers: its workers are threads"),
    ((), {"collate_fn": len}, "has no collate_fn: a batch is arrays already"),
    ((), {"validation_split": 0.2}, r"has no validation_split: a view has it: ds\.split"),
    ((), {"zzz": 1}, r"has no zzz: there are batch_size.*, cache, mix, weights, take, repeat$"),
    ((), {"augment": np.flip}, "augment: <function flip .*, without draws; wanted augmentations such as hr.Horizontal"),
    ((), {"augment": (HorizontalFlip(), len)}, "augment: <built-in function len>, without draws"),
    ((), {"augment": (lambda pixels, boxes, points: 1)}, "<lambda> at .*, without draws; wanted .* a function of"),
    ((), {"augment": HorizontalFlip}, "augment: the class HorizontalFlip, which is to be called"),
    ((), {"augment": "flip"}, "augment: 'flip', without draws"),
    ((), {"augment": None}, "augment: None, without draws"),
    ((), {"target": len}, r"target: <built-in function len>, without wants_boxes; .*headrace\.targets\.Target; docs"),
    ((), {"target": Boxes}, "target: the class Boxes, which is to be called"),
    ((), {"target": "boxes"}, "target: 'boxes', without wants_boxes"),
]


@pytest.mark.parametrize(("given", "options", "reason"), TYPED)
def test_what_is_typed_elsewhere(ds: hr.Dataset, given: tuple[Any, ...], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ds.loader(*given, **options)


def test_names_from_elsewhere_lead_to_arguments(ds: hr.Dataset) -> None:
    arguments = inspect.signature(ds.loader).parameters
    assert {"batch_size", "size", "workers", "augment"} <= arguments.keys()
    assert set(dataset._ELSEWHERE) <= arguments.keys() and not arguments.keys() & dataset._NAMES.keys()
    assert not dataset._NEEDLESS.keys() & (arguments.keys() | dataset._NAMES.keys())


def test_one_augmentation_alone(ds: hr.Dataset) -> None:
    one, several = ds.loader(augment=HorizontalFlip()), ds.loader(augment=[HorizontalFlip()])
    assert one.options == several.options and one.options.augment == (HorizontalFlip(),)


# --- shuffled or not -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Splits train and val."""
    return pack(shades(N), tmp_path_factory.mktemp("divided") / "ds", splits={"train": 0.7, "val": 0.3})


# (what is asked of a dataset of the splits train and val, whether it is shuffled by itself)
BY_ITSELF: list[tuple[Callable[[hr.Dataset], hr.Dataset], bool]] = [
    (lambda ds: ds.split("train"), True),
    (lambda ds: ds.split("val"), False),
    (lambda ds: ds, False),
    (lambda ds: ds.where("split = 'train'"), False),  # chance does not decide what where() leaves
    (lambda ds: ds.split("train")[:9], True),
    (lambda ds: ds.split("val")[[1, 2]], False),
    (lambda ds: ds.where("label = 1"), False),
    (lambda ds: ds.where("1 = 0"), False),
    (lambda ds: ds.split("train").where("label = 1").sample(5), True),
    (lambda ds: ds.split("val").where("label = 1"), False),
    (lambda ds: ds.split("train").divide({"train": 0.5, "val": 0.5})[0], True),
    (lambda ds: ds.split("train").divide({"train": 0.5, "val": 0.5})[1], False),
    (lambda ds: ds.split("train").divide({"a": 0.5})[0], False),
    (lambda ds: ds.divide({"train": 0.5, "val": 0.5})[0], True),
    (lambda ds: ds.split("val").divide({"train": 0.5})[0], True),
    (lambda ds: ds.divide({"val": 1.0})[0].split("train"), True),
    (lambda ds: pickle.loads(pickle.dumps(ds.split("train").divide({"val": 0.5})[0])), False),
    (lambda ds: pickle.loads(pickle.dumps(ds.divide({"train": 0.5})[0])), True),
]


@pytest.mark.parametrize(("view", "shuffled"), BY_ITSELF)
def test_what_one_trains_on_is_shuffled(
    divided: hr.Dataset, view: Callable[[hr.Dataset], hr.Dataset], shuffled: bool
) -> None:
    some = view(divided)
    loader = some.loader(batch_size=4)
    assert loader.options.shuffle == shuffled
    assert ("shuffled by seed 0" if shuffled else "in order") in repr(loader)
    if not shuffled:
        assert flat(loader) == flat(loader) == some.catalog["id"].to_list()
    for said in (True, False):  # who says it is believed
        assert some.loader(shuffle=said, augment=HorizontalFlip()).options.shuffle == said
    assert some.loader(augment=HorizontalFlip()).options.shuffle
    assert some.loader(augment=[]).options.shuffle == shuffled


def test_one_split_that_nobody_divided_is_to_train_on(ds: hr.Dataset) -> None:
    assert ds.loader().options.shuffle and ds.where("label = 1").loader().options.shuffle
    x = np.zeros((6, 2, 2, 1), np.uint8)
    assert hr.ArrayDataset(x).loader().options.shuffle
    assert not hr.ArrayDataset(x, splits=["test"] * 6).loader().options.shuffle


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True}, {"world": (1, 2), "batch_size": 5}])
def test_the_ids_of_an_epoch(ds: hr.Dataset, options: dict[str, Any]) -> None:
    loader = ds.loader(**{"batch_size": 4} | options)
    for _ in range(2):
        wanted = loader.ids()
        assert list(wanted) == flat(loader)
    loader.load_state_dict(loader.state_dict() | {"batch": 3})
    wanted = loader.ids()
    assert list(wanted) == flat(loader) and ds.where("1 = 0").loader().ids() == ()


def test_ids_of_what_was_left_out(broken: hr.Dataset) -> None:
    loader = broken.loader(batch_size=4, on_bad="skip")
    assert len(loader.ids()) == N
    list(loader)
    with pytest.raises(UsageError, match="2 damaged records were left out, so that predictions do not stand beside"):
        loader.ids()


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_an_epoch_is_shared(ds: hr.Dataset, n: int) -> None:
    loader = ds.loader(batch_size=4, workers=3)
    state = loader.state_dict() | {"batch": 2}
    for given, wanted in ((None, ids(loader.iterate())), (state, ids(loader.iterate(state)))):
        shares = [ids(loader.iterate(given, share=(k, n))) for k in range(n)]
        assert shares == [wanted[k::n] for k in range(n)]
    assert loader.state_dict()["batch"] == 0
    for share in ((n, n), (-1, n), (0, 0)):
        with pytest.raises(UsageError, match=r"wanted .k, n. with 0 <= k < n"):
            loader.iterate(share=share)
