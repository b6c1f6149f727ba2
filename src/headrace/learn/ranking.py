"""How well scores rank images: average precision of a class. Models and datasets are left to others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float | None:
    """Average precision, 0 to 1, of `scores` [n] for whether each of n images has a class, `truth` bool [n].

    The sum over the thresholds k, falling, of (recall k - recall k-1) * precision k, without interpolation, as
    scikit-learn's `average_precision_score` has it. Each score that occurs is a threshold: images of equal scores come
    in together, so that their order says nothing. None where no image has the class (scikit-learn says 0 and warns).
    Raises ValueError: scores that are no numbers can't be ranked.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    order = np.argsort(-scores, kind="stable")
    there, ranked = truth[order], scores[order]
    positives = int(there.sum())
    if not positives:
        return None
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of those with the same score
    found = np.cumsum(there)[last]
    precision = found / (last + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / positives)


def mean(each: list[float | None]) -> float | None:
    """The mean over the classes that there are images of; None where there are none."""
    known = [one for one in each if one is not None]
    return float(np.mean(known)) if known else None
