"""For any number of records, batch, seed, epoch and rank: each record once an epoch, any batch can be come back to."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.load.loader import Loader
from packed import pack, shades

N = 41


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N, side=1), tmp_path_factory.mktemp("shades") / "ds", shards=2)


SEEDS = st.integers(-(2**70), 2**70)
OPTIONS = st.fixed_dictionaries(
    {"batch_size": st.integers(1, N + 5), "seed": SEEDS, "shuffle": st.booleans(), "workers": st.integers(1, 3)}
)


def view(ds: hr.Dataset, n: int) -> hr.Dataset:
    return ds.where(f"id < '{n:03d}'")


def fitting(n: int, batch_size: int, ranks: int) -> int:
    """As many ranks, up to `ranks`, as get a record each of every batch."""
    return min(ranks, batch_size, n % batch_size or ranks)


def run(loader: Loader) -> list[tuple[str, ...]]:
    return [batch.ids for batch in loader]


@settings(max_examples=60)
@given(st.integers(0, N), OPTIONS, st.integers(-5, 2**40))
def test_an_epoch_is_every_record_once(ds: hr.Dataset, n: int, options: dict[str, Any], epoch: int) -> None:
    loader = view(ds, n).loader(**options)
    loader.epoch = epoch
    batches = list(loader)
    assert Counter(id_ for batch in batches for id_ in batch.ids) == Counter(f"{k:03d}" for k in range(n))
    assert len(batches) == len(loader) and all(len(batch.ids) == options["batch_size"] for batch in batches[:-1])
    for batch in batches:
        assert batch.images[:, 0, 0, 0].tolist() == [int(id_) for id_ in batch.ids]
        assert batch.targets is None or batch.targets.tolist() == [int(id_) % 3 for id_ in batch.ids]


@settings(max_examples=40)
@given(st.integers(1, N), OPTIONS, st.integers(1, 8), st.data())
def test_any_batch_can_be_come_back_to(
    ds: hr.Dataset, n: int, options: dict[str, Any], ranks: int, data: st.DataObject
) -> None:
    some = view(ds, n)
    whole = some.loader(**options)
    epochs = [run(whole), run(whole)]
    k = data.draw(st.integers(0, len(whole)))
    ranks = fitting(n, options["batch_size"], ranks)
    stopped = some.loader(**options, world=(data.draw(st.integers(0, ranks - 1)), ranks))
    with closing(iter(stopped)) as batches:
        for _ in range(k):
            next(batches)
        state = json.loads(json.dumps(stopped.state_dict()))
    loader = some.loader(**options)
    loader.load_state_dict(state)
    assert run(loader) == (epochs[0][k:] or epochs[1])


@settings(max_examples=40)
@given(st.integers(1, N), OPTIONS, st.integers(1, 8))
def test_ranks_are_a_partition(ds: hr.Dataset, n: int, options: dict[str, Any], ranks: int) -> None:
    some = view(ds, n)
    ranks = fitting(n, options["batch_size"], ranks)
    parts = [run(some.loader(**options, world=(rank, ranks))) for rank in range(ranks)]
    together = [tuple(id_ for part in parts for id_ in part[i]) for i in range(len(parts[0]))]
    assert together == run(some.loader(**options))


@settings(max_examples=30)
@given(st.integers(2, N), SEEDS, st.sets(st.integers(0, N - 1), min_size=1))
def test_what_is_drawn_for_a_record_is_its_own(ds: hr.Dataset, n: int, seed: int, some: set[int]) -> None:
    augment = (hr.ColorJitter(brightness=0.9, contrast=0.0),)
    names = ", ".join(f"'{k:03d}'" for k in some)
    options: dict[str, Any] = {"seed": seed, "augment": augment}
    whole = ds.loader(batch_size=N, **options)[0]
    part = ds.where(f"id IN ({names})").loader(batch_size=n, **options)
    wanted = dict(zip(whole.ids, whole.images, strict=True))
    found = [(id_, image) for batch in part for id_, image in zip(batch.ids, batch.images, strict=True)]
    assert len(found) == len(some) and all(np.array_equal(image, wanted[id_]) for id_, image in found)
