"""Labels in doubt: confident learning against its equations written out, and on numbers reckoned by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace.learn.doubts import doubted, doubted_sets

Case = tuple[list[int], np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, k = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    raw = draw(arrays.arrays(np.float64, (n, k), elements=st.floats(1 / 64, 1, width=16)))
    return labels, raw / raw.sum(axis=1, keepdims=True)


@given(cases())
def test_against_the_equations_written_out(case: Case) -> None:
    labels, p = case
    k = p.shape[1]
    of = [[x for x, label in enumerate(labels) if label == j] for j in range(k)]
    t = [np.mean([p[x, j] for x in of[j]]) if of[j] else np.inf for j in range(k)]
    wanted = {}
    for x, label in enumerate(labels):
        confident = [j for j in range(k) if p[x, j] >= t[j] - 1e-9]
        margin = p[x, label] - max(p[x, j] for j in range(k) if j != label)
        if confident and margin < 0 and (seems := max(confident, key=lambda j: (p[x, j], -j))) != label:
            wanted[x] = (seems, margin)
    found = doubted(np.array(labels), p)
    assert {x: seems for x, seems, _ in zip(*found, strict=True)} == {x: seems for x, (seems, _) in wanted.items()}
    assert np.allclose(found.margins, [wanted[x][1] for x in found.numbers.tolist()])
    assert (np.diff(found.margins) >= 0).all()


def test_the_most_doubtful_comes_first() -> None:
    p = np.array([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8], [0.1, 0.9], [0.45, 0.55], [0.1, 0.9]])
    found = doubted(np.array([0, 0, 0, 1, 0, 1]), p)
    assert found.numbers.tolist() == [1]  # 0.8 and 0.55 are less than 0.9, the mean of class 1
    assert found.classes.tolist() == [1] and np.allclose(found.margins, [-0.9])


def test_a_class_without_an_item_is_no_ones() -> None:
    found = doubted(np.array([0, 0]), np.array([[0.1, 0.9], [0.8, 0.2]]))
    assert len(found.numbers) == 0


def test_one_item_is_never_in_doubt() -> None:
    assert len(doubted(np.array([0]), np.array([[0.0, 1.0]])).numbers) == 0


def test_of_several_classes_each_by_itself() -> None:
    has = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], bool)
    p = np.array([[0.9, 0.1], [0.95, 0.9], [0.1, 0.9], [0.05, 0.8], [0.05, 0.95]], np.float32)
    numbers, which, margins = doubted_sets(has, p)
    assert numbers.tolist() == [4, 1]
    assert which.tolist() == [[True, False], [False, True]]
    assert np.allclose(margins, [-0.9, -0.8], atol=1e-6)
    assert [len(of) for of in doubted_sets(has[:, :0], p[:, :0])] == [0, 0, 0]
