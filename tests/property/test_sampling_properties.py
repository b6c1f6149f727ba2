"""For any weights, shares, length of an epoch, seed, epoch and rank: shares are held, ranks part an epoch, and any
batch can be come back to."""

from __future__ import annotations

import itertools
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
CLASSES = ("ant", "bee", "cow")
SEEDS = st.integers(-(2**70), 2**70)
EPOCHS = st.integers(-5, 2**40)
NUMBERS = st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.integers(0, 100))
WEIGHTS = st.one_of(
    st.none(),
    st.just("balanced"),
    st.dictionaries(st.sampled_from(CLASSES), st.floats(0.01, 100)),
    st.lists(NUMBERS, min_size=N, max_size=N).filter(any),
)
OPTIONS = st.fixed_dictionaries(
    {"batch_size": st.integers(8, N + 5), "seed": SEEDS, "weights": WEIGHTS, "take": st.none() | st.integers(1, 3 * N)}
)
SHARES = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N, side=1), tmp_path_factory.mktemp("shades") / "ds", shards=2)


def mixed(ds: hr.Dataset, shares: list[int]) -> hr.Dataset:
    """The dataset cut into so many parts of other lengths, mixed by these shares."""
    cuts = [N * (k * k) // len(shares) ** 2 for k in range(len(shares) + 1)]
    parts = [ds[low:high] for low, high in itertools.pairwise(cuts)]
    return hr.mix({part: share / sum(shares) for part, share in zip(parts, shares, strict=True)})


def unlike(options: dict[str, Any], ranks: int) -> bool:
    """Whether a rank would get nothing of a batch."""
    return 0 < (options["take"] or N) % options["batch_size"] < ranks


def run(loader: Loader) -> list[tuple[str, ...]]:
    return [batch.ids for batch in loader]


def positive(ds: hr.Dataset, options: dict[str, Any], shares: list[int]) -> hr.Dataset:
    """What is loaded: a mix, unless weights leave nothing of one of its parts."""
    return ds if isinstance(options["weights"], list) and len(shares) > 1 else mixed(ds, shares)


@settings(max_examples=60)
@given(OPTIONS, EPOCHS)
def test_an_epoch_has_its_share_of_each_record_and_class(ds: hr.Dataset, options: dict[str, Any], epoch: int) -> None:
    loader = ds.loader(**options, shuffle=True)
    loader.epoch = epoch
    counts = Counter(id_ for ids in run(loader) for id_ in ids)
    m = options["take"] or N
    found = np.array([counts[id_] for id_ in ds.catalog["id"]])
    assert found.sum() == m == loader.records
    wanted = np.array(weights(ds, options["weights"]))
    wanted = m * (wanted / wanted.sum())
    # Where all weigh the same, two permutations may meet in an epoch, and a record be the last and the first.
    equal = wanted.min() == wanted.max()
    assert np.abs(found - wanted).max() < (2 if equal else 1) + 1e-6
    if not equal:
        for label in range(3):
            assert abs(found[ds.labels == label].sum() - wanted[ds.labels == label].sum()) < 1 + 1e-6


def weights(ds: hr.Dataset, spec: Any) -> list[float]:
    """What was meant, record by record."""
    names = ds.catalog["label_name"].to_list()
    if spec is None:
        return [1.0] * N
    if spec == "balanced":
        return [1 / names.count(name) for name in names]
    return [spec.get(name, 1.0) for name in names] if isinstance(spec, dict) else spec


@settings(max_examples=60)
@given(OPTIONS, SHARES, st.integers(1, 8), st.data())
def test_any_batch_can_be_come_back_to(
    ds: hr.Dataset, options: dict[str, Any], shares: list[int], ranks: int, data: st.DataObject
) -> None:
    some = positive(ds, options, shares)
    whole = some.loader(**options, shuffle=True)
    epochs = [run(whole), run(whole)]
    with some.loader(**options, shuffle=True, workers=3).iterate(whole.state_dict()) as other:
        assert next(other).ids == whole[0].ids
    k = data.draw(st.integers(0, len(whole)))
    ranks = 1 if unlike(options, ranks) else ranks
    stopped = some.loader(**options, shuffle=True, world=(data.draw(st.integers(0, ranks - 1)), ranks))
    with closing(iter(stopped)) as batches:
        for _ in range(k):
            next(batches)
        state = json.loads(json.dumps(stopped.state_dict()))
    loader = some.loader(**options, shuffle=True)
    loader.load_state_dict(state)
    assert run(loader) == (epochs[0][k:] or epochs[1])


@settings(max_examples=60)
@given(OPTIONS, SHARES, st.integers(1, 8), EPOCHS)
def test_ranks_are_a_partition(
    ds: hr.Dataset, options: dict[str, Any], shares: list[int], ranks: int, epoch: int
) -> None:
    some = positive(ds, options, shares)
    ranks = 1 if unlike(options, ranks) else ranks
    loaders = [some.loader(**options, shuffle=True, world=(rank, ranks)) for rank in range(ranks)]
    whole = some.loader(**options, shuffle=True)
    for loader in (*loaders, whole):
        loader.epoch = epoch
    parts = [run(loader) for loader in loaders]
    together = [tuple(id_ for part in parts for id_ in part[i]) for i in range(len(parts[0]))]
    assert together == run(whole)


@settings(max_examples=60)
@given(SHARES, st.integers(1, 2 * N), st.integers(1, 20), SEEDS, st.integers(-5, 2**40))
def test_shares_are_held_in_every_batch(
    ds: hr.Dataset, shares: list[int], take: int, batch_size: int, seed: int, epoch: int
) -> None:
    some = mixed(ds, shares)
    loader = some.loader(batch_size=batch_size, take=take, seed=seed)
    loader.epoch = epoch
    part = dict(zip(some.catalog["id"], some.store.parts_of(some.rows).tolist(), strict=True))
    batches = list(loader)
    for batch in batches:
        counts = np.bincount([part[id_] for id_ in batch.ids], minlength=len(shares))
        assert np.abs(counts - len(batch.ids) * np.array(shares) / sum(shares)).max() < 4
    counts = np.bincount([part[id_] for batch in batches for id_ in batch.ids], minlength=len(shares))
    assert counts.sum() == take and np.abs(counts - take * np.array(shares) / sum(shares)).max() < 2.5


@settings(max_examples=40)
@given(st.integers(1, 2 * N), SEEDS, st.booleans(), st.integers(-5, 2**40), st.integers(0, 5))
def test_epochs_of_any_length_go_through_permutations(
    ds: hr.Dataset, take: int, seed: int, shuffle: bool, epoch: int, more: int
) -> None:
    """From wherever a permutation begins: all records once, before any comes again."""
    loader = ds.loader(take=take, seed=seed, shuffle=shuffle, batch_size=16)
    drawn: list[str] = []
    loader.epoch = epoch
    for _ in range(2 * N // take + more + 2):
        drawn += [id_ for ids in run(loader) for id_ in ids]
    begins = -epoch * take % N
    for at in range(begins, len(drawn) - N + 1, N):
        assert len({*drawn[at : at + N]}) == N
    assert len(drawn) - begins >= N
