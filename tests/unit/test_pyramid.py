"""Target Pyramid: which cell a box gets and what stands in it, what is lost, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import headrace as hr
from drawn import jpeg
from headrace.errors import DataError, UsageError
from headrace.imaging.geometry import area
from headrace.load.targets import Labels
from packed import pack

Box = tuple[float, float, float, float]
SIZE = (64, 128)  # grids of 8 x 16, 4 x 8 and 2 x 4 cells
START = (0, 128, 160)  # of each grid among the 168 cells


def labels(*images: Sequence[Box], size: tuple[int, int] = SIZE, kinds: Sequence[int] = (), classes: int = 0) -> Labels:
    """The boxes of each image."""
    boxes = [row for rows in images for row in rows]
    return Labels(
        classes=np.full(len(images), -1),
        size=size,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_labels=np.array(kinds or [0] * len(boxes), np.int64),
        box_image=np.repeat(np.arange(len(images)), [len(rows) for rows in images]),
        box_classes=classes,
    )


def around(x: float, y: float, w: float, h: float) -> Box:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


# One box in an image of 64 x 128. box -> grid, row, column, h, w, y, x, all four in its cells
CELLS: dict[Box, tuple[float, ...]] = {
    around(20, 12, 4, 6): (0, 1, 2, 6 / 8, 4 / 8, 0.5, 0.5),
    around(17, 9, 2, 2): (0, 1, 2, 2 / 8, 2 / 8, 1 / 8, 1 / 8),
    # the longer side says the grid: fewer than 8 cells
    around(64, 34, 63, 10): (0, 4, 8, 10 / 8, 63 / 8, 2 / 8, 0),
    around(64, 34, 64, 10): (1, 2, 4, 10 / 16, 4, 2 / 16, 0),
    around(64, 30, 127, 60): (1, 1, 4, 60 / 16, 127 / 16, 14 / 16, 0),
    around(64, 32, 128, 64): (2, 1, 2, 2, 4, 0, 0),
    # a centre on the edge between two cells belongs to the later one, on the last edge of the image to the last cell
    around(16, 16, 8, 8): (0, 2, 2, 1, 1, 0, 0),
    (128, 64, 128, 64): (0, 7, 15, 0, 0, 1, 1),
    (0, 0, 0, 0): (0, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("box", CELLS)
def test_what_stands_in_a_cell(box: Box) -> None:
    grid, row, column, *numbers = CELLS[box]
    cells = hr.Pyramid().encode(labels([], [box]))
    assert (cells.shape, cells.dtype) == ((2, 168, 5), np.float32)
    number = START[int(grid)] + row * (16, 8, 4)[int(grid)] + column
    assert np.argwhere(cells[..., 4]).tolist() == [[1, number]]
    assert np.allclose(cells[1, int(number)], [*numbers, 1], atol=1e-6)
    assert cells.sum() == pytest.approx(sum(numbers) + 1)


def numbers_of(cells: NDArray[np.float32]) -> dict[int, float]:
    """Of each cell with a box its height in cells."""
    return {int(i): float(cells[i, 0]) for i in np.flatnonzero(cells[:, 4])}


def test_boxes_that_want_one_cell() -> None:
    """Cell (1, 2) of the finest grid is number 18; centres lie nearer its top, and then its left."""
    height = (4, 3.5, 3, 2.5, 2, 1.5, 1)
    pile = [around(18.5, 9, 1, h) for h in height]
    (cells,) = hr.Pyramid().encode(labels(pile[::-1]))
    wanted = {
        18: height[0] / 8,  # the largest
        2: height[1] / 8,  # the cell above, as the centre is nearest to it
        17: height[2] / 8,  # to the left
        1: height[3] / 8,  # both
        START[1] + 1: height[4] / 16,  # (0, 1) of the next grid, in which the centre lies at (0.56, 0.16)
        START[1] + 0: height[5] / 16,  # to the left there
        START[1] + 9: height[6] / 16,  # below
    }
    assert numbers_of(cells) == pytest.approx(wanted)
    assert hr.Pyramid().lost(labels(pile)) == 0


def test_the_border_has_fewer_cells_and_the_rest_is_lost() -> None:
    corner = [around(1, 1, 2, 2)] * 9
    given = labels(corner, corner[:2])
    assert hr.Pyramid().encode(given)[..., 4].sum(axis=1).tolist() == [3, 2]  # of each grid the corner alone
    assert hr.Pyramid().lost(given) == 6
    middle = [around(66, 34, 2, 2)] * 14
    assert hr.Pyramid().lost(labels(middle)) == 2  # four cells of three grids
    assert hr.Pyramid((8,)).lost(labels(middle)) == 10
    assert hr.Pyramid((8,)).lost(labels([], [])) == 0


def test_of_large_boxes_the_finer_grids_come_first() -> None:
    for wide, wanted in ((128, [1, 1, 2, 2, 2, 2]), (100, [0, 0, 1, 1, 1, 1])):
        (cells,) = hr.Pyramid().encode(labels([around(64, 32, wide, 64 - k) for k in range(6)]))
        grids = np.searchsorted(START, np.flatnonzero(cells[:, 4]), side="right") - 1
        assert grids.tolist() == wanted


@st.composite
def images(draw: st.DrawFn) -> list[list[Box]]:
    """Up to two images of boxes, all inside, many of them in the same few cells."""
    rows = []
    for _ in range(draw(st.integers(1, 2))):
        boxes = []
        for _ in range(draw(st.integers(0, 12))):
            w, h = draw(st.sampled_from([1.5, 6.0, 20.0, 63.5, 90.0])), draw(st.sampled_from([1.0, 6.5, 30.0]))
            x = draw(st.sampled_from([0.0, 3.25, 9.75, 40.0, 64.0]))
            y = draw(st.sampled_from([0.0, 2.5, 9.25, 33.75]))
            boxes.append((x, y, min(x + w, 128.0), min(y + h, 64.0)))
        rows.append(boxes)
    return rows


@settings(max_examples=150, deadline=None)
@given(images(), st.integers(1, 3))
def test_there_and_back(rows: list[list[Box]], classes: int) -> None:
    kinds = [i % classes for i in range(sum(map(len, rows)))]
    given_ = labels(*rows, kinds=kinds, classes=classes)
    target = hr.Pyramid()
    cells = target.encode(given_)
    assert cells.shape == (len(rows), 168, 5 if classes == 1 else 5 + classes)
    found = target.decode(cells, size=SIZE)
    assert sum(len(one.boxes) for one in found) == len(given_.boxes) - target.lost(given_)
    placed = cells[cells[..., 4] == 1]
    assert placed[:, 2:4].min(initial=0) >= -0.5 and placed[:, 2:4].max(initial=0) <= 1.5
    start = 0
    for boxes, one in zip(rows, found, strict=True):
        said = sorted((*np.round(box, 3), label) for box, label in zip(one.boxes.tolist(), one.labels, strict=True))
        there = sorted((*box, kind) for box, kind in zip(boxes, kinds[start : start + len(boxes)], strict=True))
        start += len(boxes)
        left = list(there)
        for row in said:  # each is one of those that are there, and no more often
            left.pop(next(i for i, other in enumerate(left) if np.allclose(row, other, atol=2e-3)))
        assert (one.scores == 1).all()


def _slowly(boxes: NDArray[np.float32], size: tuple[int, int], strides: Sequence[int]) -> dict[int, int]:
    """Cell -> box of one image, by the words of the docstring, a box at a time."""
    starts = np.cumsum([0, *((size[0] // s) * (size[1] // s) for s in strides)])

    def choices(box: NDArray[np.float32]) -> list[int | None]:
        x0, y0, x1, y1 = map(float, box)
        own = next((k for k, s in enumerate(strides) if max(x1 - x0, y1 - y0) < 8 * s), len(strides) - 1)
        found: list[int | None] = []
        for k in sorted(range(len(strides)), key=lambda k: (k > own, abs(k - own))):
            s = strides[k]
            rows, columns = size[0] // s, size[1] // s
            y, x = (y0 + y1) / 2 / s, (x0 + x1) / 2 / s
            row, column = min(int(y), rows - 1), min(int(x), columns - 1)
            up, left = (1 if y - row >= 0.5 else -1), (1 if x - column >= 0.5 else -1)
            first_y = abs(y - row - 0.5) >= abs(x - column - 0.5)
            steps = [(0, 0), (up, 0), (0, left), (up, left)] if first_y else [(0, 0), (0, left), (up, 0), (up, left)]
            for a, b in steps:
                inside = 0 <= row + a < rows and 0 <= column + b < columns
                found.append(int(starts[k]) + (row + a) * columns + column + b if inside else None)
        return found

    wishes = [choices(box) for box in boxes]
    order = sorted(range(len(boxes)), key=lambda i: -float(area(boxes[i : i + 1])[0]))
    cells: dict[int, int] = {}
    for turn in range(4 * len(strides)):
        for i in order:
            cell = wishes[i][turn]
            if i not in cells.values() and cell is not None and cell not in cells:
                cells[cell] = i
    return cells


@settings(max_examples=100, deadline=None)
@given(images(), st.sampled_from([(8, 16, 32), (16,), (8, 32)]))
def test_each_box_gets_the_first_cell_that_is_free(rows: list[list[Box]], strides: tuple[int, ...]) -> None:
    target = hr.Pyramid(strides, classes=12)
    every = labels(*rows, kinds=[k for boxes in rows for k in range(len(boxes))])
    cells = target.encode(every)
    for image, boxes in zip(cells, rows, strict=True):
        mine = {int(i): int(image[i, 5:].argmax()) for i in np.flatnonzero(image[:, 4])}
        assert mine == _slowly(np.array(boxes, np.float32).reshape(-1, 4), SIZE, strides)


def test_scores_and_the_threshold() -> None:
    cells = np.zeros((1, 168, 7), np.float32)
    cells[0, 17] = [1, 2, 0.5, 0.5, 0.9, 0.5, 0.25]
    cells[0, START[1]] = [1, 1, 0.5, 0.5, 0.8, 0.2, 0.9]
    cells[0, START[2] + 7] = [1, 1, -0.5, 0.5, 0.4, 0.5, 1.0]
    (found,) = hr.Pyramid().decode(cells, size=SIZE, threshold=0.4)
    assert found.scores == pytest.approx([0.72, 0.45, 0.4]) and found.labels.tolist() == [1, 0, 1]
    assert found.boxes.tolist() == [[0, 0, 16, 16], [4, 8, 20, 16], [96, 0, 128, 32]]
    assert len(hr.Pyramid().decode(cells, size=SIZE)[0].boxes) == 1  # 0.5


@pytest.mark.parametrize("size", [(100, 100), (64, 48), (0, 0), (16, 64)])
def test_sizes_that_its_cells_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"images are {size[0]}x{size[1]}; .* want multiples of 32 pixels"):
        hr.Pyramid().encode(labels([], size=size))


@pytest.mark.parametrize("shape", [(168, 5), (1, 167, 5), (1, 168, 4), (1, 168, 8), (1, 7, 7, 5)])
def test_cells_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"wanted \[b, 168, "):
        hr.Pyramid(classes=None if shape[-1] < 8 else 2).decode(np.zeros(shape, np.float32), size=SIZE)


@pytest.mark.parametrize("options", [{"strides": s} for s in ((), (0, 8), (16, 8), (8, 8))] + [{"classes": 0}])
def test_options_check_themselves(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^(strides|classes) is "):
        hr.Pyramid(**options)


# --- through the loader


def crowd(n: int, *, label: str | None = "face", prefix: str = "") -> list[hr.Record]:
    """Records of 64 x 128 pixels: k has k % 5 faces of 6 x 6 pixels, all with their centres in 32 of them."""
    return [
        hr.Record(
            id=f"{prefix}{k:02d}",
            encoded=jpeg(64, 128, seed=k),
            boxes=np.array([[7 * j, 8, 7 * j + 6, 14] for j in range(k % 5)], np.float32).reshape(-1, 4),
            box_labels=None if label is None else (label,) * (k % 5),
        )
        for k in range(n)
    ]


def test_small_boxes_that_a_grid_loses(tmp_path: Path) -> None:
    ds = pack(crowd(20), tmp_path / "ds")
    target = hr.Pyramid()
    options: dict[str, Any] = {"batch_size": 8, "size": SIZE, "shuffle": False}
    assert ds.loader(target=hr.Grid(4), **options).lost() > 10
    loader = ds.loader(target=target, **options)
    assert loader.lost() == 0
    for batch in loader:
        assert (batch.targets.shape, batch.targets.dtype) == ((len(batch.ids), 168, 5), np.float32)
        for id_, found in zip(batch.ids, target.decode(batch.targets, size=SIZE), strict=True):
            assert sorted(found.boxes[:, 0].round(3).tolist()) == [7 * j for j in range(int(id_) % 5)]


def test_the_boxes_are_those_of_the_loader(tmp_path: Path) -> None:
    """Mirrored, cropped and resized along with the pixels."""
    ds = pack(crowd(20), tmp_path / "ds")
    options: dict[str, Any] = {"size": 96, "fit": "pad", "augment": (hr.HorizontalFlip(), hr.RandomResizedCrop())}
    target = hr.Pyramid()
    mine, theirs = ds.loader(target=target, **options), ds.loader(target=hr.Boxes(), **options)
    assert mine.lost() == 0
    for i in range(len(mine)):
        padded = theirs[i].targets
        for found, boxes, mask in zip(
            target.decode(mine[i].targets, size=(96, 96)), padded["boxes"], padded["mask"], strict=True
        ):
            assert np.allclose(np.sort(found.boxes, axis=0), np.sort(boxes[mask], axis=0), atol=1e-3)


def test_a_dataset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    two = [*crowd(3, label="cat"), *crowd(3, label="dog", prefix="d")]
    pack([*two, *crowd(3, label=None, prefix="n")], tmp_path / "nameless")
    ds = hr.Dataset(tmp_path / "nameless")
    with pytest.raises(DataError, match=r"3 boxes have no class; pass Pyramid\(classes=1\)"):
        ds.loader(size=SIZE, target=hr.Pyramid())
    assert ds.loader(size=SIZE, target=hr.Pyramid(classes=1))[0].targets.shape == (9, 168, 5)
    with pytest.raises(UsageError, match="the dataset has no boxes"):
        pack([hr.Record(id="plain", encoded=jpeg())], tmp_path / "plain").loader(size=SIZE, target=hr.Pyramid())
    with pytest.raises(UsageError, match="images are 60x60; grids of strides"):
        ds.loader(size=60, target=hr.Pyramid(classes=1))[0]
