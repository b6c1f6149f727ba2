"""Boxes into a grid and back: each box that has a cell of its own comes back, of those that share one the largest."""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amount import examples
from headrace.load.targets import Grid, Labels

CLASSES = 3
Box = tuple[int, int, int, int, int, int]  # image, label, and x0, y0, x1, y1 in units of PIXEL
PIXEL = 1 / 64


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, tuple[int, int], int, list[Box]]:
    """Cells, (height, width), images, and boxes in those: any place and size, also none, also on the last edge.

    The boxes come out of bytes, six for each: a draw of its own for every number would cost ten times the rest.
    """
    cells, images = draw(st.integers(1, 13)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    data = draw(st.binary(max_size=36))
    boxes = []
    for image, label, *corners in struct.iter_unpack("6B", data[: len(data) // 6 * 6]):
        x = sorted(c % 29 * 64 * width // 28 for c in corners[:2])
        y = sorted(c % 29 * 64 * height // 28 for c in corners[2:])
        boxes.append((image % images, label % CLASSES, x[0], y[0], x[1], y[1]))
    return cells, (height, width), images, sorted(boxes, key=lambda box: box[0])


def labels_of(size: tuple[int, int], images: int, boxes: list[Box]) -> Labels:
    table = np.array(boxes, np.int64).reshape(-1, 6)
    return Labels(
        classes=np.full(images, -1),
        size=size,
        boxes=(table[:, 2:] * PIXEL).astype(np.float32),
        box_labels=table[:, 1],
        box_image=table[:, 0],
        box_classes=CLASSES,
    )


def held(cells: int, size: tuple[int, int], boxes: list[Box]) -> dict[tuple[int, int, int], Box]:
    """(image, row, column) -> the box that takes this cell, in exact arithmetic."""
    rivals = defaultdict(list)
    for box in boxes:
        image, _, x0, y0, x1, y1 = box
        row, column = (
            min((low + high) * cells // (2 * 64 * side), cells - 1)
            for low, high, side in ((y0, y1, size[0]), (x0, x1, size[1]))
        )
        rivals[image, row, column].append(box)
    return {cell: max(some, key=lambda b: (b[4] - b[2]) * (b[5] - b[3])) for cell, some in rivals.items()}


@examples(1_000, 10_000)
@given(scenes())
def test_what_has_a_cell_comes_back(scene: tuple[int, tuple[int, int], int, list[Box]]) -> None:
    cells, size, images, boxes = scene
    labels, grid = labels_of(size, images, boxes), Grid(cells)
    wanted = held(cells, size, boxes)
    encoded = grid.encode(labels)
    assert encoded.shape == (images, cells, cells, 5 + CLASSES) and encoded.dtype == np.float32
    assert ((encoded >= 0) & (encoded <= 1)).all()
    assert set(zip(*np.nonzero(encoded[..., 4]), strict=True)) == set(wanted)
    assert not encoded[encoded[..., 4] == 0].any()
    assert grid.lost(labels) == len(boxes) - len(wanted)

    for image, found in enumerate(grid.decode(encoded, size=size)):
        mine = [box for (of, _, _), box in sorted(wanted.items()) if of == image]  # a grid is read row by row
        assert (found.scores == 1).all() and found.labels.tolist() == [box[1] for box in mine]
        exact = np.array([box[2:] for box in mine], np.float64).reshape(-1, 4) * PIXEL
        assert found.boxes.dtype == np.float32 and np.allclose(found.boxes, exact, rtol=0, atol=1e-3)


grids = st.integers(1, 9).flatmap(
    lambda cells: st.tuples(st.just(cells), st.integers(0, 3), st.sampled_from([5, 7]), st.integers(0, 2**32 - 1))
)


@settings(max_examples=300)
@given(grids, st.integers(0, 8).map(lambda eighths: eighths / 8))
def test_a_grid_of_any_numbers_is_read(drawn: tuple[int, int, int, int], threshold: float) -> None:
    """All cells at or above the threshold, best first."""
    cells, images, depth, seed = drawn
    rounded = np.random.default_rng(seed).integers(0, 9, (images, cells, cells, depth)) / 8  # many on the threshold
    values: NDArray[np.float32] = rounded.astype(np.float32)
    found = Grid(cells).decode(values, size=(100, 50), threshold=threshold)
    assert len(found) == images
    for one, grid in zip(found, values, strict=True):
        scores = grid[..., 4] * (grid[..., 5:].max(-1) if depth > 5 else 1)
        assert np.allclose(one.scores, sorted(scores[scores >= threshold], reverse=True), atol=1e-6)
        assert ((one.boxes[:, 2:] - one.boxes[:, :2]) <= [50.01, 100.01]).all()
