"""The order is arithmetic: it misses nobody, favours nobody, needs no memory, and never changes again."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headrace import order
from headrace.order import Windows
from headrace.splits import shares

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "order.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["permute"], ids=lambda c: f"n{c['n']}-seed{c['seed']}-epoch{c['epoch']}")
def test_order_never_changes(case: dict[str, Any]) -> None:
    """Whoever stopped in the middle of an epoch goes on with a later version: golden/order.json is never made anew."""
    options = {name: case[name] for name in ("n", "seed", "epoch")}
    assert order.permute(np.array(case["positions"]), **options).tolist() == case["records"]


@pytest.mark.parametrize("case", GOLDEN["windows"], ids=lambda c: f"n{c['n']}-{c['windows']}-epoch{c['epoch']}")
def test_windows_never_change(case: dict[str, Any]) -> None:
    options = {name: case[name] for name in ("n", "seed", "epoch")}
    found = order.permute_windows(np.array(case["positions"]), windows=Windows(*case["windows"]), **options)
    assert found.tolist() == case["records"]


@pytest.mark.parametrize("case", GOLDEN["uniform"], ids=lambda c: f"seed{c['seed']}-epoch{c['epoch']}-{c['stream']}")
def test_chance_never_changes(case: dict[str, Any]) -> None:
    options = {name: case[name] for name in ("seed", "epoch", "stream")}
    assert order.uniform(order.keys_of(GOLDEN["ids"]), **options).tolist() == case["values"]


def test_keys_never_change() -> None:
    assert order.keys_of(GOLDEN["ids"]).tolist() == GOLDEN["keys"]


@pytest.mark.parametrize("case", GOLDEN["shares"], ids=lambda c: f"seed{c['seed']}")
def test_shares_never_change(case: dict[str, Any]) -> None:
    """A dataset divided again by the same seed, in a later version, keeps its validation records apart."""
    found = shares(np.array(case["strata"]), dict(case["fractions"]), seed=case["seed"])
    assert found.tolist() == case["shares"]


@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1000, 1023, 1024, 1025, 2000, 65_537, 1_000_003])
def test_every_record_once(n: int) -> None:
    found = order.permute(np.arange(n), n=n, seed=n, epoch=3)
    assert found.dtype == np.int64
    assert (np.bincount(found, minlength=n) == 1).all()


@pytest.mark.parametrize("n", [10**6, 2**32 - 1, 2**32 + 1, 10**12, 2**62, 2**63 - 1])
def test_a_few_positions_of_a_huge_order_need_no_memory(n: int) -> None:
    positions = np.array([0, 1, n // 2, n - 2, n - 1])
    tracemalloc.start()
    found = order.permute(positions, n=n, seed=1, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert len({*found.tolist()}) == 5
    assert ((found >= 0) & (found < n)).all()
    assert order.permute(positions[[3, 0]], n=n, seed=1, epoch=0).tolist() == found[[3, 0]].tolist()


def test_an_order_of_many_needs_little_beside_it() -> None:
    positions = np.arange(10**6)
    tracemalloc.start()
    found = order.permute(positions, n=len(positions), seed=1, epoch=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * found.nbytes
    assert (order.permute(positions[123_456:], n=len(positions), seed=1, epoch=0) == found[123_456:]).all()


def test_shares_of_many_need_little_beside_them() -> None:
    strata = (np.arange(2 * 10**6) % 1000).astype(np.int32)
    tracemalloc.start()
    found = shares(strata, {"a": 0.8, "b": 0.1, "c": 0.1}, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * found.nbytes
    assert np.bincount(found).tolist() == [1_600_000, 200_000, 200_000]
    assert np.abs(np.bincount(strata[found == 0]) - 1600).max() <= 1


@pytest.mark.parametrize("strata", [[10**15, -5, 10**15, 7], [-1, -1, 5]])
def test_strata_are_any_numbers(strata: list[int]) -> None:
    """Only which items have the same one counts, and which comes first."""
    small = np.unique(strata, return_inverse=True)[1]
    fractions = {"a": 0.5, "b": 0.25}
    assert (shares(np.array(strata), fractions, seed=0) == shares(small, fractions, seed=0)).all()


@pytest.mark.parametrize(("positions", "n"), [([5], 5), ([0, 7], 5), ([-1], 5), ([0], 0)])
def test_positions_outside_are_refused(positions: list[int], n: int) -> None:
    with pytest.raises(IndexError, match=f"order of {n}"):
        order.permute(np.array(positions), n=n, seed=0, epoch=0)


def test_no_positions() -> None:
    assert order.permute(np.zeros(0, np.int64), n=10, seed=0, epoch=0).tolist() == []
    assert order.permute(np.zeros(0, np.int64), n=0, seed=0, epoch=0).tolist() == []


@pytest.mark.parametrize(("n", "expected"), [(2, 100), (3, 50), (4, 20), (5, 12)])
def test_every_permutation_is_as_likely(n: int, expected: int) -> None:
    """Chi-square over all n! permutations: about its degrees of freedom, and far below it for a bad shuffle."""
    found = dict.fromkeys(itertools.permutations(range(n)), 0)
    for trial in range(expected * len(found)):
        found[tuple(order.permute(np.arange(n), n=n, seed=trial // 7, epoch=trial % 7).tolist())] += 1
    chi2 = sum((count - expected) ** 2 / expected for count in found.values())
    freedom = len(found) - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom) + 4
    assert min(found.values()) > 0


@pytest.mark.parametrize("n", [40, 1000])
def test_orders_of_other_seeds_and_epochs_have_nothing_in_common(n: int) -> None:
    """Two random orders agree in one place on average, whatever n."""
    keys = [(seed, epoch) for seed in (0, 1, 2, -1, 10**30) for epoch in range(6)]
    orders = [order.permute(np.arange(n), n=n, seed=s, epoch=e) for s, e in keys]
    same = [int((a == b).sum()) for a, b in itertools.combinations(orders, 2)]
    assert max(same) <= 9
    assert 0.7 < np.mean(same) < 1.3


def test_a_shuffled_order_is_shuffled_far() -> None:
    """Neighbours of the stored order do not stay near each other, as they do in a shuffle buffer."""
    n = 10_000
    found = order.permute(np.arange(n), n=n, seed=0, epoch=0)
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 0.05
    assert np.abs(np.diff(found)).mean() == pytest.approx(n / 3, rel=0.05)


def test_chance_is_even_and_depends_on_everything() -> None:
    keys = order.keys_of(f"{i}.jpg" for i in range(20_000))
    drawn = order.uniform(keys, seed=0, epoch=0, stream=0)
    assert drawn.dtype == np.float64 and drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 19 + 4 * np.sqrt(38)
    for other in ({"seed": 1}, {"epoch": 1}, {"stream": 1}):
        again = order.uniform(keys, **({"seed": 0, "epoch": 0, "stream": 0} | other))
        assert abs(np.corrcoef(drawn, again)[0, 1]) < 0.03, other
    assert (order.uniform(keys[::-1], seed=0, epoch=0, stream=0) == drawn[::-1]).all()


@pytest.mark.parametrize(
    ("counts", "fractions", "totals"),
    [
        # strata sizes, fractions, exact totals of the shares
        ([400, 400], {"train": 0.81, "val": 0.19}, [648, 152]),
        ([5, 5], {"train": 0.8, "val": 0.2}, [8, 2]),
        ([1] * 10, {"train": 0.8, "val": 0.2}, [8, 2]),
        ([97, 3], {"a": 0.5, "b": 0.25, "c": 0.25}, [50, 25, 25]),
        ([10], {"a": 1.0}, [10]),
        ([60, 40], {"a": 0.3, "b": 0.2}, [30, 20]),  # half is in no share
        ([7, 0, 3], {"a": 0.1}, [1]),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 42])
def test_shares_are_stratified(counts: list[int], fractions: dict[str, float], totals: list[int], seed: int) -> None:
    strata = np.repeat(np.arange(len(counts)) - 1, counts)
    found = shares(strata, fractions, seed=seed)
    assert [int((found == i).sum()) for i in range(len(fractions))] == totals
    assert int((found == -1).sum()) == len(strata) - sum(totals)
    for stratum, n in enumerate(counts):
        for i, fraction in enumerate(fractions.values()):
            got = int((found[strata == stratum - 1] == i).sum())
            assert abs(got - n * fraction) <= 1, (stratum, i)


def test_shares_are_drawn_by_seed() -> None:
    strata = np.arange(1000) % 3
    one, same, other = (shares(strata, {"a": 0.5, "b": 0.5}, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert 400 < int((one == other).sum()) < 600


def test_shares_of_nothing() -> None:
    assert shares(np.zeros(0, np.int64), {"a": 1.0}, seed=0).tolist() == []


@pytest.mark.parametrize("n", [1, 2047, 2048, 2049, 5000])
def test_shuffled_is_permute_by_the_block(n: int) -> None:
    whole = order.permute(np.arange(n), n=n, seed=3, epoch=1)
    for start in range(0, n, 701):
        for stop in (start, min(n, start + 1), min(n, start + 32), n):
            assert order.shuffled(start, stop, n=n, seed=3, epoch=1).tolist() == whole[start:stop].tolist()
    assert order.shuffled(0, n, n=n, seed=4, epoch=1).tolist() != whole.tolist() or n == 1


@pytest.mark.parametrize("windows", [Windows(1, 1), Windows(7, 3), Windows(80, 16), Windows(10**6, 2)])
def test_shuffled_in_windows_by_the_block(windows: Windows) -> None:
    n = 40_001
    whole = order.permute_windows(np.arange(n), n=n, seed=3, epoch=1, windows=windows)
    assert (np.sort(whole) == np.arange(n)).all()
    for start in range(0, n, 7001):
        for stop in (start, min(n, start + 32), n):
            found = order.shuffled(start, stop, n=n, seed=3, epoch=1, windows=windows)
            assert found.tolist() == whole[start:stop].tolist()


def runs(rows: NDArray[np.int64], n: int) -> int:
    """Of how many stretches of neighbours these rows are, in a circle of `n`."""
    rows = np.sort(rows)
    return int((np.diff(rows, append=rows[0] + n) != 1).sum())


def test_a_window_reads_a_few_blocks_of_neighbours() -> None:
    n, windows = 100_000, Windows(50, 16)
    for epoch in range(3):
        found = order.permute_windows(np.arange(n), n=n, seed=0, epoch=epoch, windows=windows)
        stretches = [runs(found[at : at + 800], n) for at in range(0, n, 800)]
        assert max(stretches) <= 16 and np.mean(stretches) > 15
        # Inside of it, and beyond, nothing is near what it was near before.
        assert abs(np.corrcoef(found[:800], np.sort(found[:800]))[0, 1]) < 0.15
        first = found[::800]
        assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.3


def test_every_record_may_be_the_last_of_an_epoch_of_windows() -> None:
    """A short last block that was the same each time would be left out by `drop_last` each time."""
    n, windows = 1003, Windows(50, 4)
    last = {
        int(row)
        for epoch in range(3000)
        for row in order.permute_windows(np.arange(n - 3, n), n=n, seed=0, epoch=epoch, windows=windows)
    }
    assert len(last) > 0.99 * n


def test_records_of_a_batch_meet_again_by_chance() -> None:
    """Two records of one window are in one window of the next epoch as often as any two."""
    n, windows = 20_000, Windows(50, 16)
    number = np.empty((2, n), np.int64)
    for epoch in range(2):
        found = order.permute_windows(np.arange(n), n=n, seed=1, epoch=epoch, windows=windows)
        number[epoch, found] = np.arange(n) // 800
    together = np.zeros((25, 25))
    np.add.at(together, (number[0], number[1]), 1)
    pairs = (together * (together - 1)).sum() / (n * 799)
    assert pairs < 2.2 / 25  # 1 / 25 by chance, and a block's 50 of 800 beside it


def test_windows_of_a_huge_order_need_no_memory() -> None:
    n = 2**63 - 1
    positions = np.array([0, 1, n // 2, n - 2, n - 1])
    found = order.permute_windows(positions, n=n, seed=1, epoch=0, windows=Windows(80, 16))
    assert len({*found.tolist()}) == 5
    assert ((found >= 0) & (found < n)).all()


@pytest.mark.parametrize(("positions", "n"), [([5], 5), ([-1], 5), ([0], 0)])
def test_positions_outside_of_windows_are_refused(positions: list[int], n: int) -> None:
    with pytest.raises(IndexError, match=f"order of {n}"):
        order.permute_windows(np.array(positions), n=n, seed=0, epoch=0, windows=Windows(2, 2))
    assert order.permute_windows(np.zeros(0, np.int64), n=n, seed=0, epoch=0, windows=Windows(2, 2)).tolist() == []
