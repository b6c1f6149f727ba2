"""Which records go to which split: shares by stratum and seed, as arithmetic; and what a split may be called."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.order import permute

DEFAULT_SPLIT = "train"


def check_splits(splits: Mapping[str, float] | None) -> dict[str, float]:
    """Name -> fraction, summing to 1; None is one split "train". Raises UsageError."""
    fractions = {DEFAULT_SPLIT: 1.0} if splits is None else dict(splits)
    for name, fraction in fractions.items():
        check_split_name(name)
        if not 0 < fraction <= 1:
            raise UsageError(f"split {name!r}: fraction {fraction:g}, wanted above 0 and at most 1")
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise UsageError(f"the fractions of the splits sum to {total:g}, wanted 1")
    return fractions


def check_split_name(name: str) -> None:
    """Raises UsageError: it can't begin a shard's file name."""
    if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
        raise UsageError(f"split name {name!r}: wanted letters, digits and '_'")


def shares(strata: NDArray[np.integer], fractions: Mapping[str, float], *, seed: int) -> NDArray[np.int64]:
    """int64 [n]: for each item the number of its share in `fractions`, or -1 for what no share takes.

    Stratified: every share gets its fraction of every stratum and of the whole, to within one item per share. Items are
    drawn in the seed's order. Walking the items stratum by stratum, each goes to the share that is furthest behind.
    """
    n = len(strata)
    wanted = np.array([*fractions.values(), max(0.0, 1.0 - sum(fractions.values()))])
    shuffled = permute(np.arange(n), n=n, seed=seed, epoch=0) if n else np.zeros(0, np.int64)
    walk = shuffled[np.argsort(strata[shuffled], kind="stable")]
    behind = np.zeros(len(wanted))
    out = np.empty(n, np.int64)
    for item in walk:
        behind += wanted
        chosen = int(np.argmax(behind))
        behind[chosen] -= 1.0
        out[item] = chosen
    out[out == len(fractions)] = -1
    return out
