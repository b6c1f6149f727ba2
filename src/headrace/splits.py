"""Which records go to which split: shares by stratum and seed, as arithmetic; and what a split may be called."""

from __future__ import annotations

import math
import operator
import re
from array import array
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import UsageError

DEFAULT_SPLIT = "train"
USUAL_SPLITS = ("train", "val", "test")  # in their order

# How data is divided: name -> fraction, or as its records say themselves.
Splits: TypeAlias = Mapping[str, float] | Literal["given"]
GIVEN: Literal["given"] = "given"

# What folders of a split are called, in any case: train, valid, test_set, val2017.
_FOLDER = re.compile(r"(?:(train(?:ing)?)|(dev|val(?:id|idation)?)|(test(?:ing)?))(?:[-_]?set)?(?:[-_]?[0-9]+)?", re.I)

_MOST_PARTS = 10**9
_SUM = 1e-6  # that fractions may be off 1 together and still be all


def check_splits(splits: Mapping[str, float] | str | None) -> dict[str, float]:
    """Name -> fraction, summing to 1; None is one split "train". Raises UsageError."""
    if isinstance(splits, str):
        raise UsageError(f"splits is {splits!r}, wanted fractions by name, or 'given'")
    fractions = {DEFAULT_SPLIT: 1.0} if splits is None else dict(splits)
    for name, fraction in fractions.items():
        check_split_name(name)
        if not 0 < fraction <= 1:
            raise UsageError(f"split {name!r}: fraction {fraction:g}, wanted above 0 and at most 1")
    total = sum(fractions.values())
    if abs(total - 1) > _SUM:
        raise UsageError(f"the fractions of the splits sum to {total:g}, wanted 1")
    return fractions


def check_split_name(name: str) -> None:
    """Raises UsageError: it can't begin a shard's file name."""
    if fault := split_name_fault(name):
        raise UsageError(fault)


def split_name_fault(name: object) -> str | None:
    """Why this can't begin a shard's file name, or None."""
    if isinstance(name, str) and name.isidentifier() and name.isascii():
        return None
    return f"split name {name!r}: wanted letters, digits and '_'"


def split_of_folder(name: str) -> str | None:
    """The split that a folder of this name holds by custom, "val" of "validation", or None."""
    match = _FOLDER.fullmatch(name)
    return (
        None
        if match is None
        else next(split for split, found in zip(USUAL_SPLITS, match.groups(), strict=True) if found)
    )


def shares(strata: NDArray[np.integer], fractions: Mapping[str, float], *, seed: int) -> NDArray[np.int64]:
    """int64 [n]: for each item the number of its share in `fractions`, or -1 for what no share takes.

    Stratified: every share gets its fraction of every stratum and of the whole, to within one item per share. Items are
    drawn in the seed's order. Walking the items stratum by stratum, each goes to the share that is furthest behind.
    """
    n = len(strata)
    out = np.empty(n, np.int64)
    if not n:
        return out
    cycle = _cycle(list(fractions.values()), n)
    least = int(strata.min())
    codes = strata
    if int(strata.max()) - least > max(n, 1 << 16):
        codes, least = np.unique(strata, return_inverse=True)[1], 0
    counts = np.zeros(0, np.int64)
    for start in range(0, n, order.CHUNK):
        some = np.bincount(codes[start : start + order.CHUNK] - least, minlength=len(counts))
        some[: len(counts)] += counts
        counts = some
    # Where in the walk each stratum's next item stands.
    at = np.cumsum(counts) - counts
    for start in range(0, n, order.CHUNK):
        items = order.permute(np.arange(start, min(n, start + order.CHUNK)), n=n, seed=seed, epoch=0)
        of = codes[items] - least
        sorted_ = np.argsort(of, kind="stable")
        items, of = items[sorted_], of[sorted_]
        first = np.flatnonzero(np.diff(of, prepend=of[0] - 1))
        lengths = np.diff(first, append=len(of))
        place = np.arange(len(of)) + np.repeat(at[of[first]] - first, lengths)
        at[of[first]] += lengths
        out[items] = cycle[place % len(cycle)]
    out[out == len(fractions)] = -1
    return out


def grouped_shares(
    strata: NDArray[np.integer], groups: NDArray[np.integer], fractions: Mapping[str, float], *, seed: int
) -> NDArray[np.int64]:
    """int64 [n] as `shares`, with all items of one of the `groups` [n] (0 to g - 1) in one share.

    A share has at most one group more than its fraction of the whole, and, as groups allow, its fraction of every
    stratum: the largest groups first, each goes to that share among those which are behind the whole's fraction that
    needs its strata most; equally large ones come in the seed's order. (Greedy, as in scikit-learn's
    StratifiedGroupKFold, which looks at the strata alone.)
    """
    wanted = np.array([*fractions.values()], np.float64)
    left = 1 - wanted.sum()
    if left > _SUM:  # else fractions such as 0.3333333 would leave a group over
        wanted = np.append(wanted, left)
    n, g = len(groups), int(groups.max(initial=-1)) + 1
    kinds, stratum = np.unique(strata, return_inverse=True)
    pairs, counts = np.unique(groups.astype(np.int64) * len(kinds) + stratum, return_counts=True)
    begin = np.searchsorted(pairs, np.arange(g + 1) * len(kinds))
    stratum_of, sizes = pairs % max(1, len(kinds)), np.bincount(groups, minlength=g)
    drawn = order.permute(np.arange(g), n=g, seed=seed, epoch=0) if g else np.zeros(0, np.int64)
    by_size = drawn[np.argsort(-sizes[drawn], kind="stable")]
    # How far each share is behind: of the whole [s], and of each stratum [s, k], of all that there will be.
    behind = wanted * n
    lacking = wanted[:, np.newaxis] * np.bincount(stratum, minlength=len(kinds))
    weight = 1 / np.maximum(1, np.bincount(stratum, minlength=len(kinds)))
    share = np.empty(g, np.int64)
    for group in by_size.tolist():
        some = slice(begin[group], begin[group + 1])
        of, many = stratum_of[some], counts[some]
        need = (lacking[:, of] * (many * weight[of])).sum(axis=1)
        need[behind <= _ROUNDING] = -np.inf
        chosen = int(np.argmax(need))
        share[group] = chosen
        behind[chosen] -= sizes[group]
        lacking[chosen, of] -= many
    share[share == len(fractions)] = -1
    shared: NDArray[np.int64] = share[groups]
    return shared


_ROUNDING = 1e-6  # records: a share that lacks less lacks none


def _cycle(fractions: Sequence[float], n: int) -> NDArray[np.int64]:
    """To which share the items of a walk of `n` go, int64 [m], m <= n, over and over: one more for what is left over.

    Who is furthest behind hangs on the place in the walk alone, and repeats where all fractions have come out even.
    """
    wanted = [_exact(fraction) for fraction in fractions]
    left = 1 - sum(wanted, Fraction())
    if left > 0:
        wanted.append(left)
    whole = math.lcm(*(share.denominator for share in wanted))
    steps = [share.numerator * (whole // share.denominator) for share in wanted]
    m = min(n, whole)
    if len(steps) == 2 and sum(steps) == whole and 2 * whole * (m + 1) < 2**63:
        # The first of two is behind as long as it has fewer than its fraction of the walk, rounded.
        taken = (2 * steps[0] * np.arange(m + 1) + whole) // (2 * whole)
        return 1 - np.diff(taken)
    behind = [0] * len(steps)
    cycle = array("q")
    for _ in range(m):
        behind = list(map(operator.add, behind, steps))
        most = max(behind)
        chosen = behind.index(most)
        behind[chosen] = most - whole
        cycle.append(chosen)
    return np.frombuffer(cycle, np.int64)


def _exact(fraction: float) -> Fraction:
    """The simplest fraction that is this float, as 81/100 is 0.81; else the nearest of a billion parts at most."""
    parts = 1000
    while float(found := Fraction(fraction).limit_denominator(parts)) != fraction and parts < _MOST_PARTS:
        parts *= 10
    return found
