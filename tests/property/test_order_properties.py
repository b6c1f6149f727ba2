"""Properties of the order for any n, seed and epoch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from headrace import order
from headrace.order import Windows
from headrace.splits import shares

seeds = st.integers(-(2**70), 2**70)
epochs = st.integers(0, 10**6)


@given(n=st.integers(1, 2000), seed=seeds, epoch=epochs)
def test_a_bijection(n: int, seed: int, epoch: int) -> None:
    found = order.permute(np.arange(n), n=n, seed=seed, epoch=epoch)
    assert (np.sort(found) == np.arange(n)).all()


@given(n=st.integers(1, 2**63 - 1), seed=seeds, epoch=epochs, data=st.data())
@example(n=2**63 - 1, seed=0, epoch=0, data=None)
@example(n=4**10 + 1, seed=0, epoch=0, data=None)
def test_any_position_alone_as_among_others(n: int, seed: int, epoch: int, data: st.DataObject | None) -> None:
    positions = {0, n - 1} if data is None else data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=20))
    asked = np.array(sorted(positions), np.int64)
    found = order.permute(asked, n=n, seed=seed, epoch=epoch)
    assert len({*found.tolist()}) == len(asked)
    assert ((found >= 0) & (found < n)).all()
    assert [int(order.permute(asked[i : i + 1], n=n, seed=seed, epoch=epoch)[0]) for i in range(len(asked))] == [
        *found.tolist()
    ]


sizes = st.one_of(st.integers(1, 40), st.integers(1, 2**62))


@given(n=st.integers(1, 2000), seed=seeds, epoch=epochs, block=sizes, group=sizes)
@example(n=1003, seed=0, epoch=0, block=50, group=4)
def test_windows_are_a_bijection(n: int, seed: int, epoch: int, block: int, group: int) -> None:
    found = order.permute_windows(np.arange(n), n=n, seed=seed, epoch=epoch, windows=Windows(block, group))
    assert (np.sort(found) == np.arange(n)).all()


@given(n=st.integers(1, 2**63 - 1), seed=seeds, epoch=epochs, block=sizes, group=sizes, data=st.data())
@example(n=2**63 - 1, seed=0, epoch=0, block=2**62, group=3, data=None)
def test_any_position_of_windows_alone_as_among_others(
    n: int, seed: int, epoch: int, block: int, group: int, data: st.DataObject | None
) -> None:
    positions = {0, n - 1} if data is None else data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=20))
    asked = np.array(sorted(positions), np.int64)
    options = {"n": n, "seed": seed, "epoch": epoch, "windows": Windows(block, group)}
    found = order.permute_windows(asked, **options)
    assert len({*found.tolist()}) == len(asked)
    assert ((found >= 0) & (found < n)).all()
    alone = [int(order.permute_windows(asked[i : i + 1], **options)[0]) for i in range(len(asked))]
    assert alone == found.tolist()


@given(n=st.integers(1, 400), seed=seeds, epoch=epochs, block=st.integers(1, 60), group=st.integers(1, 20))
@example(n=3000, seed=0, epoch=0, block=60, group=20)
def test_a_window_holds_whole_blocks(n: int, seed: int, epoch: int, block: int, group: int) -> None:
    """The order said naively: blocks of neighbours, from some record on and in a circle, each in one window whole."""
    found = order.permute_windows(np.arange(n), n=n, seed=seed, epoch=epoch, windows=Windows(block, group))
    window = np.empty(n, np.int64)
    window[found] = np.arange(n) // (block * group)
    assert any(
        all((part == part[0]).all() for part in np.split(np.roll(window, -turn), range(block, n, block)))
        for turn in range(n)
    )


@given(
    strata=st.lists(st.integers(-1, 6), max_size=300),
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    left=st.integers(0, 20),
    seed=seeds,
)
def test_shares(strata: list[int], weights: list[int], left: int, seed: int) -> None:
    total = sum(weights) + left
    fractions = {f"share{i}": weight / total for i, weight in enumerate(weights)}
    found = shares(np.array(strata, np.int64), fractions, seed=seed)
    assert len(found) == len(strata)
    # Every item is in one share or, where fractions leave something over, in none.
    assert set(found.tolist()) <= {*range(len(weights)), *([-1] if left else [])}
    for i, fraction in enumerate(fractions.values()):
        assert abs((found == i).sum() - len(strata) * fraction) <= 1 + 1e-6
        for stratum in set(strata):
            of = np.array(strata) == stratum
            assert abs((found[of] == i).sum() - of.sum() * fraction) <= 2 + 1e-6


@given(
    n=st.integers(1, 200),
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    left=st.integers(0, 20),
    noise=st.sampled_from([0, 1e-13, -1e-13]),
)
def test_who_is_furthest_behind_is_next(n: int, weights: list[int], left: int, noise: float) -> None:
    """In the walk of one stratum, against the same said naively, in exact numbers; noise of floats decides nothing."""
    total = sum(weights) + left
    found = shares(np.zeros(n, np.int64), {f"s{i}": weight / total + noise for i, weight in enumerate(weights)}, seed=1)
    wanted = [Fraction(weight, total) for weight in [*weights, left]]
    given = [0] * len(wanted)
    walk = found[order.permute(np.arange(n), n=n, seed=1, epoch=0)].tolist()
    for step, chosen in enumerate(walk, start=1):
        behind = [step * share - number for share, number in zip(wanted, given, strict=True)]
        assert behind.index(max(behind)) == (len(weights) if chosen == -1 else chosen)
        given[chosen] += 1


@given(ids=st.lists(st.text(st.characters(codec="utf-8")), max_size=50, unique=True), seed=seeds, epoch=epochs)
def test_chance_hangs_on_the_id_alone(ids: list[str], seed: int, epoch: int) -> None:
    drawn = order.uniform(order.keys_of(ids), seed=seed, epoch=epoch, stream=1)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert len({*drawn.tolist()}) == len(ids)
    for i, id_ in enumerate(ids[:3]):
        assert order.uniform(order.keys_of([id_]), seed=seed, epoch=epoch, stream=1)[0] == drawn[i]
