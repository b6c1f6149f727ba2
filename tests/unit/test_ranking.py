"""Average precision against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.learn.ranking import average_precision, mean


@pytest.mark.parametrize(
    ("truth", "scores", "wanted"),
    [
        # In scikit-learn's own example: recall 1/2 at precision 1, then 1 at 2/3.
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.5 * 1 + 0.5 * 2 / 3),
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 1.0),  # all that have it come first
        ([0, 0, 1], [0.9, 0.8, 0.1], 1 / 3),  # the only one comes last
        ([1, 1, 1], [0.2, 0.9, 0.5], 1.0),  # all have it: nothing can be wrong
        # Ties come in together, whichever of them is first: one threshold, at which 1 of 2 is right.
        ([1, 0], [0.5, 0.5], 1 / 2),
        ([0, 1], [0.5, 0.5], 1 / 2),
        # 0.9 finds one of one; at 0.5 three come in, one of them right: recall 2/3 at 2 of 4; 0.1 the last, 3 of 5.
        ([1, 0, 1, 0, 1], [0.9, 0.5, 0.5, 0.5, 0.1], 1 / 3 * 1 + 1 / 3 * 2 / 4 + 1 / 3 * 3 / 5),
        ([1, 0, 0, 1], [0.0, 0.0, 0.0, 0.0], 2 / 4),  # who says the same of all has the share of those that have it
        ([0, 1], [-np.inf, -3.0], 1.0),  # logits are ranked as well
        ([0, 0, 0], [0.3, 0.2, 0.1], None),  # nothing to be found
        ([], [], None),
    ],
)
def test_average_precision(truth: list[int], scores: list[float], wanted: float | None) -> None:
    found = average_precision(np.array(truth, bool), np.array(scores, np.float32))
    assert found == (None if wanted is None else pytest.approx(wanted, abs=1e-12))


def test_what_is_no_number_has_no_rank() -> None:
    with pytest.raises(ValueError, match="NaN"):
        average_precision(np.array([True, False]), np.array([np.nan, 0.5]))


def test_mean_is_of_the_classes_that_are_there() -> None:
    assert (
        mean([0.5, None, 1.0]) == 0.75 and mean([0.0, 1.0]) == 0.5 and mean([None, None]) is None and mean([]) is None
    )
