"""Average precision: that of its definition, and what it must not depend on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.learn.ranking import average_precision

# Few different scores, so that many are equal.
scored = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40)


def by_definition(truth: list[bool], scores: list[int]) -> float | None:
    """Threshold by threshold, each time counting all images anew."""
    if not any(truth):
        return None
    total = before = 0.0
    for threshold in sorted(set(scores), reverse=True):
        shown = [there for there, score in zip(truth, scores, strict=True) if score >= threshold]
        recall, precision = sum(shown) / sum(truth), sum(shown) / len(shown)
        total, before = total + (recall - before) * precision, recall
    return total


@given(scored)
def test_it_is_what_its_definition_says(pairs: list[tuple[bool, int]]) -> None:
    truth, scores = [there for there, _ in pairs], [score for _, score in pairs]
    wanted, found = by_definition(truth, scores), average_precision(np.array(truth), np.array(scores, np.float32))
    assert (found is None) == (wanted is None)
    assert wanted is None or found is None or abs(found - wanted) < 1e-12


@given(scored, st.randoms())
def test_the_order_of_images_and_the_scale_of_scores_say_nothing(pairs: list[tuple[bool, int]], random: object) -> None:
    first = average_precision(*_arrays(pairs))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    truth, scores = _arrays(pairs)
    assert first == average_precision(truth, np.exp(scores)) or abs(first - average_precision(truth, scores)) < 1e-12  # type: ignore[operator]


def _arrays(pairs: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([there for there, _ in pairs]), np.array([score for _, score in pairs], np.float64)
