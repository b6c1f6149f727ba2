"""Whose label may be wrong: confident learning, on classes and the probabilities that a model gives them.

Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021). Models and
datasets are left to others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Doubted(NamedTuple):
    """Items whose labels are in doubt, the most doubtful first: their numbers int64 [m], the classes int64 [m] they
    seem to be of, and their margins float64 [m], from -1 for what could not be more in doubt to 1."""

    numbers: NDArray[np.int64]
    classes: NDArray[np.int64]
    margins: NDArray[np.float64]


def doubted(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Doubted:
    """Of n items with `labels` [n] those that a model is confident are of another class, by its `probabilities`
    [n, classes] for items that it has not learnt from.

    It is confident of a class where the probability reaches the mean of those that it gives to the items labelled so
    (t_j, their equation 2); of several the most probable counts (the off-diagonal of the confident joint, equation 1).
    They are ranked by normalised margin, the probability of the label less the greatest of the others (section 3.2).
    One whose label is the most probable of all is not in doubt. A class that no item has is no one's.
    """
    n, k = probabilities.shape
    p = probabilities.astype(np.float64)
    counts = np.bincount(labels, minlength=k)
    own = p[np.arange(n), labels]
    sums = np.bincount(labels, weights=own, minlength=k)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = p >= thresholds - _ROUNDING
    seems = np.where(confident, p, -1.0).argmax(axis=1)
    others = p.copy()
    others[np.arange(n), labels] = -np.inf
    margins = own - others.max(axis=1)
    numbers = np.flatnonzero(confident.any(axis=1) & (seems != labels) & (margins < 0))
    numbers = numbers[np.argsort(margins[numbers], kind="stable")]
    return Doubted(numbers, seems[numbers], margins[numbers])


_ROUNDING = 1e-9  # so that a class whose items all have one probability reaches its mean


def doubted_sets(
    has: NDArray[np.bool_], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
    """The same of items that may have several of the classes: of `has` [n, classes], each class by itself as having it
    or not. The items in doubt int64 [m], which of their classes are, bool [m, classes], and of these the least margin
    float64 [m]."""
    margins = np.full(has.shape, np.inf)
    for k in range(has.shape[1]):
        found = doubted(has[:, k].astype(np.int64), np.stack([1 - probabilities[:, k], probabilities[:, k]], axis=1))
        margins[found.numbers, k] = found.margins
    least = margins.min(axis=1, initial=np.inf)
    numbers = np.flatnonzero(least < np.inf)
    numbers = numbers[np.argsort(least[numbers], kind="stable")]
    return numbers, margins[numbers] < np.inf, least[numbers]
