"""Target Grid: what stands in the cells, what is lost and counted; and the known faults of the recipe, all absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import jpeg
from headrace.errors import DataError, UsageError
from headrace.load.facts import Facts
from headrace.load.targets import Labels
from packed import pack

Rows = Sequence[tuple[float, float, float, float]]


def labels(
    *images: Rows, size: tuple[int, int] = (70, 140), kinds: Sequence[int] | None = None, classes: int = 0
) -> Labels:
    """The boxes of each image."""
    boxes = [row for rows in images for row in rows]
    return Labels(
        classes=np.full(len(images), -1),
        size=size,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_labels=np.array(kinds if kinds is not None else [0] * len(boxes), np.int64),
        box_image=np.repeat(np.arange(len(images)), [len(rows) for rows in images]),
        box_classes=classes,
    )


def faces(
    n: int, *, height: int = 60, width: int = 80, label: str | None = "face", prefix: str = ""
) -> list[hr.Record]:
    """Record k has k % 5 faces of 8 x 8 pixels, each in a cell of its own."""
    return [
        hr.Record(
            id=f"{prefix}{k:02d}",
            encoded=jpeg(height, width, seed=k),
            boxes=np.array([[16 * j, 8 * j, 16 * j + 8, 8 * j + 8] for j in range(k % 5)], np.float32).reshape(-1, 4),
            box_labels=None if label is None else (label,) * (k % 5),
        )
        for k in range(n)
    ]


# One box in an image of 70 x 140 and a grid of 7: cells of 10 x 20. box -> row, column, h / H, w / W, y, x
CELLS: dict[tuple[float, float, float, float], tuple[float, ...]] = {
    (20, 10, 40, 20): (1, 1, 1 / 7, 1 / 7, 0.5, 0.5),
    (0, 0, 140, 70): (3, 3, 1, 1, 0.5, 0.5),
    (0, 0, 20, 10): (0, 0, 1 / 7, 1 / 7, 0.5, 0.5),
    (120, 60, 140, 70): (6, 6, 1 / 7, 1 / 7, 0.5, 0.5),
    (25, 11, 35, 13): (1, 1, 2 / 70, 10 / 140, 0.2, 0.5),
    # a centre on the edge between two cells belongs to the later one
    (35, 15, 45, 25): (2, 2, 1 / 7, 10 / 140, 0, 0),
    # on the last edge of the image to the last cell
    (140, 70, 140, 70): (6, 6, 0, 0, 1, 1),
    (130, 70, 132, 70): (6, 6, 0, 2 / 140, 1, 0.55),
    (0, 0, 0, 0): (0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("box", CELLS)
def test_what_stands_in_a_cell(box: tuple[float, float, float, float]) -> None:
    row, column, *numbers = CELLS[box]
    grid = hr.Grid(7).encode(labels([box]))
    assert (grid.shape, grid.dtype) == ((1, 7, 7, 5), np.float32)
    assert np.argwhere(grid[0, ..., 4]).tolist() == [[row, column]]
    assert np.allclose(grid[0, int(row), int(column)], [*numbers, 1], atol=1e-6)
    assert grid.sum() == pytest.approx(sum(numbers) + 1)


def test_there_and_back() -> None:
    rows: Rows = [(20, 10, 40, 20), (130.5, 3.25, 139, 69), (1, 60, 3, 70)]
    given = labels(rows, [], rows[1:2])
    found = hr.Grid().decode(hr.Grid().encode(given), size=(70, 140))
    for one, wanted in zip(found, (rows, [], rows[1:2]), strict=True):
        assert (one.boxes.dtype, one.scores.dtype, one.labels.dtype) == (np.float32, np.float32, np.int64)
        order = np.lexsort(one.boxes.T[::-1])
        assert np.allclose(one.boxes[order], sorted(wanted) or np.zeros((0, 4)), atol=1e-3)
        assert one.scores.tolist() == [1] * len(wanted) and one.labels.tolist() == [0] * len(wanted)
    assert hr.Grid().lost(given) == 0


def test_of_boxes_that_share_a_cell_the_largest_wins() -> None:
    small, large, equal, other = (8, 3, 12, 7), (6, 2, 14, 8), (7, 1, 13, 9), (40, 3, 44, 7)
    given = labels([small, large, equal, other], [small])
    grid = hr.Grid(7).encode(given)
    assert grid[..., 4].sum(axis=(1, 2)).tolist() == [2, 1]
    assert grid[0, 0, 0, :2] == pytest.approx([6 / 70, 8 / 140])  # of equals the first
    assert grid[1, 0, 0, :2] == pytest.approx([4 / 70, 4 / 140])  # another image is another grid
    assert hr.Grid(7).lost(given) == 2
    assert hr.Grid(70).lost(labels([small, other])) == 0


def test_several_classes() -> None:
    given = labels([(20, 10, 40, 20), (60, 10, 80, 20)], [(20, 10, 40, 20)], kinds=[2, 0, 1], classes=3)
    grid = hr.Grid(7).encode(given)
    assert grid.shape == (2, 7, 7, 8)
    assert grid[0, 1, 1, 4:].tolist() == [1, 0, 0, 1] and grid[0, 1, 3, 4:].tolist() == [1, 1, 0, 0]
    assert grid[1, 1, 1, 4:].tolist() == [1, 0, 1, 0]
    assert [found.labels.tolist() for found in hr.Grid(7).decode(grid, size=(70, 140))] == [[2, 0], [1]]
    assert np.array_equal(hr.Grid(7, classes=3).encode(given), grid)
    assert hr.Grid(7, classes=5).encode(given).shape == (2, 7, 7, 10)
    one = hr.Grid(7, classes=1).encode(given)
    assert one.shape == (2, 7, 7, 5) and np.array_equal(one, grid[..., :5])
    assert [hr.Grid(7, classes=n).depth for n in (None, 1, 2, 3)] == [5, 5, 7, 8]


def test_scores_and_the_threshold() -> None:
    grid = np.zeros((1, 2, 2, 7), np.float32)
    grid[0, 0, 0] = [0.5, 0.5, 0.5, 0.5, 0.9, 0.5, 0.25]
    grid[0, 0, 1] = [0.5, 0.5, 0.5, 0.5, 0.8, 0.2, 0.9]
    grid[0, 1, 0] = [0.5, 0.5, 0.5, 0.5, 0.4, 0.5, 1.0]
    (found,) = hr.Grid(2).decode(grid, size=(40, 40), threshold=0.4)
    assert found.scores == pytest.approx([0.72, 0.45, 0.4]) and found.labels.tolist() == [1, 0, 1]
    assert found.boxes.tolist() == [[20, 0, 40, 20], [0, 0, 20, 20], [0, 20, 20, 40]]
    assert len(hr.Grid(2).decode(grid, size=(40, 40))[0].boxes) == 1  # 0.5


@pytest.mark.parametrize("shape", [(7, 7, 5), (1, 6, 7, 5), (1, 7, 7, 4), (1, 7, 7, 8)])
def test_a_grid_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"wanted \[b, 7, 7, "):
        hr.Grid(7, classes=None if shape[-1] < 8 else 2).decode(np.zeros(shape, np.float32), size=(10, 10))


@pytest.mark.parametrize("options", [{"cells": 0}, {"cells": -7}, {"classes": 0}])
def test_options_check_themselves(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"is (0|-7), wanted at least 1"):
        hr.Grid(**options)


# --- through the loader --------------------------------------------------------------------------------------------


def test_a_batch(tmp_path: Path) -> None:
    loader = pack(faces(20), tmp_path / "ds").loader(batch_size=16, size=224, target=hr.Grid(7))
    images, targets, ids = loader[0]
    assert (images.shape, images.dtype) == ((16, 224, 224, 3), np.uint8)
    assert (targets.shape, targets.dtype) == ((16, 7, 7, 5), np.float32)
    assert targets[..., 4].sum(axis=(1, 2)).tolist() == [int(id_) % 5 for id_ in ids]
    assert loader[1].targets.shape == (4, 7, 7, 5)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_boxes_in_a_grid_are_those_of_the_loader(tmp_path: Path, fit: Any) -> None:
    """Mirrored and cropped along with the pixels: what is decoded is what the target Boxes gives."""
    ds = pack(faces(20, height=200, width=260), tmp_path / "ds")
    options: dict[str, Any] = {"size": (64, 96), "fit": fit, "augment": (hr.HorizontalFlip(), hr.RandomResizedCrop())}
    grid = hr.Grid(50)
    mine, theirs = ds.loader(target=grid, **options), ds.loader(target=hr.Boxes(), **options)
    assert mine.lost() == 0
    for i in range(len(mine)):
        targets = theirs[i].targets
        for found, boxes, mask in zip(
            grid.decode(mine[i].targets, size=(64, 96)), targets["boxes"], targets["mask"], strict=True
        ):
            wanted = boxes[mask]
            assert np.allclose(np.sort(found.boxes, axis=0), np.sort(wanted, axis=0), atol=1e-3)


def test_classes_are_the_datasets(tmp_path: Path) -> None:
    ds = pack([*faces(7, label="cat"), *faces(7, label="dog", prefix="d")], tmp_path / "ds")
    for view, n in ((ds, 14), (ds.where("id LIKE 'd%'"), 7)):  # a view keeps the classes of the whole
        for classes, depth in ((None, 7), (1, 5), (2, 7), (4, 9)):
            assert view.loader(size=70, target=hr.Grid(7, classes=classes))[0].targets.shape == (n, 7, 7, depth)
    (dogs,) = ds.where("id LIKE 'd%'").loader(size=70, target=hr.Grid(7))
    assert (dogs.targets[..., 4] == dogs.targets[..., 6]).all() and not dogs.targets[..., 5].any()


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    ds = pack(faces(25), tmp_path / "ds")
    total = sum(k % 5 for k in range(25))
    assert ds.loader(size=60, batch_size=4, target=hr.Grid(10)).lost() == 0
    one_cell = ds.loader(size=60, batch_size=4, target=hr.Grid(1))
    assert one_cell.lost() == total - 20  # one of each image that has any
    assert one_cell.lost() == sum(hr.Grid(1).lost(one_cell.labels(i)) for i in range(len(one_cell)))
    assert ds.loader(size=60, target=hr.Boxes(most=3)).lost() == 5
    assert ds.loader(size=60, target=Nothing()).lost() == 0


class Nothing(hr.Target):
    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> None:
        return None


def test_what_the_labels_of_a_batch_are(tmp_path: Path) -> None:
    ds = pack(faces(10), tmp_path / "ds")
    loader = ds.loader(size=(120, 80), batch_size=4, target=hr.Grid())
    loader.epoch = 3
    found = loader.labels(-1)
    ids = loader[-1].ids
    assert (found.size, found.box_classes, len(found.classes)) == ((120, 80), 1, 2)
    assert np.bincount(found.box_image, minlength=2).tolist() == [int(id_) % 5 for id_ in ids]
    with pytest.raises(IndexError, match="batch 3 of 3"):
        loader.labels(3)


def test_a_dataset_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def said(records: list[hr.Record], name: str, **options: Any) -> str:
        with pytest.raises((UsageError, DataError)) as error:
            pack(records, tmp_path / name).loader(size=8, target=hr.Grid(7, **options))
        return str(error.value)

    plain = hr.Record(id="plain", encoded=jpeg())
    assert "the dataset has no boxes" in said([plain], "none")
    assert "of 1 of 4 records nothing is said of boxes; leave them out with where('boxes IS NOT NULL')" in said(
        [*faces(3), plain], "some"
    )
    two = [*faces(3, label="cat"), *faces(3, label="dog", prefix="d")]
    assert "3 boxes have no class; pass Grid(7, classes=1)" in said(
        [*two, *faces(3, label=None, prefix="n")], "nameless"
    )
    assert "classes is 2, the dataset has 3: cat, cow, dog" in said(
        [*two, *faces(3, label="cow", prefix="c")], "three", classes=2
    )
    ds = hr.Dataset(tmp_path / "nameless")
    assert ds.loader(size=8, target=hr.Grid(7, classes=1))[0].targets.shape == (9, 7, 7, 5)
    assert ds.where("box_labels IS NOT NULL").loader(size=8, target=hr.Grid(7))[0].targets.shape == (6, 7, 7, 7)


# --- the known faults of the tutorial recipe -----------------------------------------------------------------------


def test_fault_the_top_left_corner_taken_for_the_centre() -> None:
    """A face over the middle of the image belongs to the middle cell, not to that of its corner."""
    grid = hr.Grid(7).encode(labels([(0, 0, 140, 70)]))
    assert grid[0, 3, 3, 4] == 1 and grid[0, 0, 0, 4] == 0
    assert grid[0, 3, 3, 2:4].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("cells", [1, 2, 7, 13])
def test_fault_an_index_one_past_the_grid(cells: int) -> None:
    """Boxes at and on the last edges, down to those without extent, and those that reach out by a rounding."""
    edge: Rows = [(139, 69, 140, 70), (140, 70, 140, 70), (140, 0, 140, 70), (0, 70, 140, 70), (139, 69, 140.01, 70.01)]
    for box in edge:
        grid = hr.Grid(cells).encode(labels([box]))
        assert grid[..., 4].sum() == 1
        (found,) = hr.Grid(cells).decode(grid, size=(70, 140))
        assert np.allclose(found.boxes, [box], atol=1e-3)


def test_fault_one_sample_per_face_with_contradicting_targets(tmp_path: Path) -> None:
    """An image is one sample with all of its faces; one without any is a sample too, and says so."""
    ds = pack(faces(20), tmp_path / "ds")
    loader = ds.loader(batch_size=6, size=224, target=hr.Grid(7))
    batches = list(loader)
    ids = [id_ for batch in batches for id_ in batch.ids]
    assert len(loader) == 4 and sorted(ids) == [f"{k:02d}" for k in range(20)]
    counts = np.concatenate([batch.targets[..., 4].sum(axis=(1, 2)) for batch in batches])
    assert counts.tolist() == [int(id_) % 5 for id_ in ids]
    assert not np.concatenate([batch.targets for batch in batches])[counts == 0].any()


def test_fault_a_normalisation_computed_and_thrown_away(tmp_path: Path) -> None:
    """Targets are shares of the image, the same at any size; pixels come raw, and the model normalises them."""
    ds = pack(faces(10), tmp_path / "ds")
    small, large = (ds.loader(size=size, shuffle=False, target=hr.Grid(7))[0] for size in (70, 224))
    assert np.allclose(small.targets, large.targets, atol=1e-5)
    assert large.targets.min() >= 0 and large.targets.max() == 1
    assert large.images.dtype == np.uint8 and large.images.max() > 200


def test_fault_a_missing_file_that_only_prints(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is a Reject with its place, more of them than allowed stop the packing, and nothing is printed by the way."""
    gone = [hr.Record(id=f"gone{k}", path=str(tmp_path / f"{k}.jpg"), origin=f"list.txt:{k}") for k in range(2)]
    report = hr.pack([*faces(18), *gone], tmp_path / "ds", progress=False)
    assert [(r.id, r.stage, r.origin) for r in report.rejects] == [
        ("gone0", "read", "list.txt:0"),
        ("gone1", "read", "list.txt:1"),
    ]
    assert all(f"no such file or directory: '{gone[k].path}'" in r.reason for k, r in enumerate(report.rejects))
    assert (report.seen, report.stored) == (20, 18)
    with pytest.raises(DataError, match="2 of 12 records are rejected"):
        hr.pack([*faces(10), *gone], tmp_path / "refused", progress=False)
    assert not (tmp_path / "refused").exists()
    assert capfd.readouterr() == ("", "")


# --- random access, as Keras's Sequence ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size", "length"), [(20, 16, 2), (32, 16, 2), (33, 16, 3), (1, 16, 1), (5, 1, 5)])
def test_a_loader_is_a_sequence(tmp_path: Path, n: int, batch_size: int, length: int) -> None:
    loader = pack(faces(n), tmp_path / "ds").loader(batch_size=batch_size, size=14, target=hr.Grid(7))
    assert len(loader) == length
    ids = [id_ for i in reversed(range(length)) for id_ in loader[i].ids]  # in any order
    assert sorted(ids) == [f"{k:02d}" for k in range(n)]
    assert all(np.array_equal(a, b) for a, b in zip(loader[0][:2], loader[0][:2], strict=True))
    assert loader[-1].ids == loader[length - 1].ids
    with pytest.raises(IndexError):
        loader[length]


@pytest.mark.frameworks
def test_a_keras_feed_by_hand(tmp_path: Path) -> None:
    """In a process of its own: the backend of this one may be chosen already."""
    pytest.importorskip("keras")
    hr.pack(faces(20), tmp_path / "ds", progress=False)
    script = f"""
import numpy as np, keras
import headrace as hr
loader = hr.Dataset({str(tmp_path / "ds")!r}).loader(batch_size=6, size=14, target=hr.Grid(7))
feed = loader.to_keras()

def epoch():
    assert all(np.array_equal(feed[i][0], loader[i].images) for i in (2, 0))
    assert len(feed) == 4 and feed[3][1].shape == (2, 7, 7, 5)
    return [loader[i].ids for i in range(len(feed))]

def judge(*epochs):
    assert all(sorted(sum(one, ())) == [f"{{k:02d}}" for k in range(20)] for one in epochs)
    assert len({{str(one) for one in epochs}}) == len(epochs)

seen = []
for _ in range(3):
    seen.append(epoch())
    feed.on_epoch_end()
judge(*seen)
assert loader.epoch == 3
feed.num_batches  # which torch and jax also ask for when a pass has ended
feed.on_epoch_end()
assert np.array_equal(feed[2][0], loader[2].images)
inputs = keras.Input((14, 14, 3))
model = keras.Model(inputs, keras.layers.Conv2D(5, 2, 2)(inputs))
model.compile("sgd", "mse")
model.fit(feed, epochs=2, verbose=0)
assert loader.epoch == 5, loader.epoch
seen.append(epoch())
feed.on_epoch_end()
feed.on_epoch_end()  # of an epoch that nobody saw
seen.append(epoch())
model.evaluate(feed, verbose=0)
seen.append(epoch())
judge(*seen)
assert loader.epoch == 7, loader.epoch
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
