"""Pictures of data: which records and batches are on them, and that places and targets are where they are drawn."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from drawn import saved
from headrace.errors import DamageError, UsageError
from headrace.imaging.sheet import Tile, contact_sheet
from headrace.load import show
from headrace.load.targets import Boxes, Class, Grid, Heatmap, Points, Pyramid
from headrace.load.view import View
from packed import CLASSES, Keep, Source, faces, flip, pack, photos, pixels_of, shades, shard_of

MAGENTA, GREEN = (233, 30, 140), (0, 200, 90)


class Seen:
    """What a call put on its sheet."""

    def __init__(self, call: Any) -> None:
        with mock.patch.object(show, "contact_sheet", wraps=contact_sheet) as made:
            self.sheet: Image.Image = call()
        (self.tiles,), options = made.call_args
        self.title, self.large = options["title"], options["large"]
        self.captions = [tile.caption.split("\n") for tile in self.tiles]


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(40), tmp_path_factory.mktemp("show") / "shades", splits={"train": 0.8, "val": 0.2})


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(photos(24, boxes=True, grey=(3,)), tmp_path_factory.mktemp("show") / "boxed")


@pytest.fixture(scope="module")
def pointed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(Source(flat(faces(12))), tmp_path_factory.mktemp("show") / "pointed")


def far(tile: Tile, colour: tuple[int, int, int], *, off: int = 40) -> np.ndarray:
    """bool [h, w]: where the colour is."""
    return np.abs(tile.image.astype(int) - colour).max(axis=-1) < off


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "shown"), [(32, 32), (1, 1), (5, 5), (40, 40), (1000, 40)])
def test_records_are_evenly_drawn(ds: hr.Dataset, n: int, shown: int) -> None:
    seen = Seen(lambda: ds.show(n))
    numbers = np.linspace(0, 39, shown).astype(int).tolist()
    assert seen.captions == [[ds[i].label_name, ds[i].id] for i in numbers]
    assert [int(tile.image[80, 80, 0]) for tile in seen.tiles] == [int(ds[i].id) for i in numbers]
    assert seen.title == ("shades: 40 records" if shown == 40 else f"shades: {shown} of 40 records")
    assert not seen.large and seen.sheet.mode == "RGB"


def test_title_says_what_of_it(ds: hr.Dataset) -> None:
    view = ds.split("val").where("label_name = 'bee'")
    assert (
        Seen(lambda: view.show(1)).title == f"shades / split 'val' / where label_name = 'bee': 1 of {len(view)} records"
    )
    one = ds.where("id = '000'")
    assert Seen(one.show).title.endswith(": 1 record")


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    image = saved(np.full((60, 120, 1), 90, np.uint8), "PNG")  # grey
    boxes = np.array([[10, 5, 40, 45], [60, 30, 110, 50]], np.float32)
    ds = pack([hr.Record(id="a", encoded=image, boxes=boxes, box_labels=("x", "y"))], tmp_path / "ds")
    seen = Seen(ds.show)
    (tile,) = seen.tiles
    assert seen.large and tile.image.shape == (240, 480, 3) and seen.captions == [["x 1, y 1", "a"]]
    for colour, box in ((GREEN, boxes[0]), ((255, 140, 0), boxes[1])):
        there = far(tile, colour)
        there[: round(4 * box[1]) - 2] = False  # its name stands above
        low, high = np.argwhere(there).min(axis=0), np.argwhere(there).max(axis=0)
        assert np.abs(low - box[[1, 0]] * 4).max() <= 2 and np.abs(high + 1 - box[[3, 2]] * 4).max() <= 2
        assert far(tile, colour)[round(4 * box[1]) - 10, round(4 * box[0]) + 2]  # the plate of its name


def test_points_are_drawn_where_they_are(tmp_path: Path) -> None:
    image = saved(np.zeros((60, 120, 3), np.uint8), "PNG")  # names lie to the right
    points = np.array([[(30, 20, 2), (90, 40, 1), (0, 0, 0)]], np.float32)
    ds = pack(Source([hr.Record(id="a", encoded=image, keypoints=points)]), tmp_path / "ds")
    seen = Seen(ds.show)
    (tile,) = seen.tiles
    assert seen.captions == [["2 of 3 points", "a"]]
    assert tile.image[80, 120].any() and not tile.image[160, 360].any()  # a disc, and a ring: it is hidden
    assert tile.image[158:163, 355:366].any()
    assert not tile.image[:30].any() and not tile.image[200:].any()


def test_captions(boxed: hr.Dataset) -> None:
    seen = Seen(lambda: boxed.show(24))
    for i, (label, boxes, id_) in enumerate(seen.captions):
        counts = {name: (boxed[i].box_labels or ()).count(name) for name in ("left", "right")}
        said = ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "0 boxes"
        assert (label, boxes, id_) == (boxed[i].label_name, said, boxed[i].id)


def test_boxes_without_names(tmp_path: Path) -> None:
    image = saved(np.zeros((60, 60, 3), np.uint8), "PNG")
    ds = pack([hr.Record(id="a", encoded=image, boxes=np.array([[6, 6, 30, 30]], np.float32))], tmp_path / "ds")
    seen = Seen(ds.show)
    assert seen.captions == [["1 box", "a"]] and far(seen.tiles[0], MAGENTA).any()


def test_damage_is_a_tile(ds: hr.Dataset, tmp_path: Path) -> None:
    broken = hr.Dataset(shutil.copytree(ds.path, tmp_path / "ds"))
    path, number, offset, _ = shard_of(broken, 3)
    flip(path, offset + 50)
    seen = Seen(lambda: broken.show(40))
    assert [tile.right for tile in seen.tiles] == [False if i == 3 else None for i in range(40)]
    assert seen.captions[3][0] == f"damaged: {ds[3].id}" and f"{path.name}, record {number}" in seen.captions[3][1]
    assert seen.tiles[3].image.std() > 5  # the reason is written on it
    with pytest.raises(DamageError, match=f"{path.name}, record {number}"):
        broken.show(40, batch=True)


def test_odd_sizes_are_shown(tmp_path: Path) -> None:
    shapes = [(1, 1), (1, 300), (300, 1), (40, 320), (320, 40)]
    some = np.array([[0, 0, 1, 1]] * 1000, np.float32)
    records = [
        hr.Record(
            id=f"{h}x{w}", encoded=saved(np.zeros((h, w, 3), np.uint8), "PNG"), boxes=some, box_labels=("a\tb",) * 1000
        )
        for h, w in shapes
    ]
    seen = Seen(pack(records, tmp_path / "ds").show)
    assert {max(tile.image.shape) for tile in seen.tiles} == {480}
    assert {tuple(caption[:-1]) for caption in seen.captions} == {("a b 1000",)}


def test_arrays_are_shown() -> None:
    x = np.arange(12, dtype=np.uint8).repeat(64).reshape(12, 8, 8) * 20
    seen = Seen(hr.ArrayDataset(x, np.arange(12) % 2, class_names=("even", "odd")).show)
    assert [caption[0] for caption in seen.captions] == ["even", "odd"] * 6
    assert [int(tile.image[0, 0, 0]) for tile in seen.tiles] == [20 * i for i in range(12)]


def test_many_images_are_small(boxed: hr.Dataset) -> None:
    view = hr.Dataset(boxed.path)
    view.selection = View(view.store, np.tile(view.rows, 5))
    assert Seen(lambda: view.show(100)).large and not Seen(lambda: view.show(101)).large


@pytest.mark.parametrize("batch", [False, True])
def test_nothing_to_show(ds: hr.Dataset, batch: bool) -> None:
    with pytest.raises(UsageError, match=r"shades / where 1 = 0: there is no record in it to show"):
        ds.where("1 = 0").show(batch=batch)
    for n in (0, -1, 1001):
        with pytest.raises(UsageError, match=f"n is {n}, wanted 1 to 1000"):
            ds.show(n, batch=batch)


def test_options_of_a_loader_are_of_a_batch_only(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"show\(\) takes size, seed with batch=True only"):
        ds.show(size=8, seed=1)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_batch_is_the_loaders(ds: hr.Dataset) -> None:
    loader = ds.loader(batch_size=7, seed=3, augment=(hr.ColorJitter(),))
    loader.epoch = 2
    seen = Seen(lambda: loader.show(-1))
    batch = loader[5]
    assert [caption[1] for caption in seen.captions] == list(batch.ids)
    assert [caption[0] for caption in seen.captions] == [CLASSES[i] for i in batch.targets]
    for tile, image in zip(seen.tiles, batch.images, strict=True):
        assert (tile.image == image[0, 0]).all()
    assert seen.title == "shades: batch 5 of epoch 2, 5 of 40 records, 8x8 stretch, ColorJitter, Class"
    assert loader.state_dict()["batch"] == 0  # looking moves nothing
    with pytest.raises(IndexError):
        loader.show(6)
    with pytest.raises(UsageError, match="n is 1001, wanted 1 to 1000"):
        ds.loader(batch_size=1001).show()


def test_show_batch_is_a_loader_with_these_options(ds: hr.Dataset) -> None:
    options: dict[str, Any] = {"seed": 5, "size": 16, "augment": (hr.HorizontalFlip(),), "target": Class()}
    loader = ds.loader(batch_size=9, **options)
    loader.epoch = 4
    assert ds.show(9, batch=True, epoch=4, **options) == loader.show()


def flat(records: list[hr.Record]) -> list[hr.Record]:
    """The same, on nothing but grey: what is drawn on them can be told."""
    sizes = [pixels_of(record).shape[:2] for record in records]
    return [
        replace(record, encoded=saved(np.full((*size, 3), 90, np.uint8), "PNG"))
        for record, size in zip(records, sizes, strict=True)
    ]


@pytest.mark.parametrize("classes", [1, None])
def test_cells_of_a_grid(tmp_path: Path, classes: int | None) -> None:
    """Shaded are the cells of Grid.encode, and in each lies the centre of a box that is drawn from its numbers."""
    ds = pack(flat(photos(24, boxes=True)), tmp_path / "ds")
    loader = ds.loader(
        batch_size=24, size=96, target=Grid(4, classes), augment=(hr.HorizontalFlip(), hr.RandomResizedCrop())
    )
    batch, labels = loader[0], loader.labels(0)
    seen = Seen(loader.show)
    shade = tuple(np.rint(0.65 * 90 + 0.35 * np.array(MAGENTA)).astype(int).tolist())
    crowded = 0
    for j, (tile, caption) in enumerate(zip(seen.tiles, seen.captions, strict=True)):
        cells = batch.targets[j, ..., 4] == 1
        shaded = far(tile, shade, off=1)
        assert (shaded.reshape(4, 120, 4, 120).sum(axis=(1, 3)) > 2000).tolist() == cells.tolist()
        row, column = np.nonzero(cells)
        y, x = batch.targets[j, row, column, 2], batch.targets[j, row, column, 3]
        for centre in zip((row + y) * 120, (column + x) * 120, strict=True):
            at = tuple(min(479, int(part)) for part in centre)
            assert classes is None or (tile.image[at] == MAGENTA).all()  # names of several classes lie over it
        there, found = int((labels.box_image == j).sum()), int(cells.sum())
        boxes = f"{there} box{'' if there == 1 else 'es'}"
        assert caption[1] == (boxes if there == found else f"{found} of {boxes} with a cell")
        if classes == 1:  # the dashes of those left out; names are white too
            assert far(tile, (255, 255, 255), off=1).any() == (there > found)
        crowded += there > found
    assert crowded


@pytest.mark.parametrize(("kind", "options"), [(Grid, {"cells": 3}), (Pyramid, {})])
def test_cells_are_decoded_and_not_the_truth_again(tmp_path: Path, kind: Any, options: dict[str, Any]) -> None:
    """A target whose numbers are wrong is drawn wrong, and the box that it should be is dashed."""

    class Wide(kind):  # type: ignore[misc]
        def encode(self, labels: Any) -> Any:
            cells = super().encode(labels)
            cells[..., 1] *= 2
            return cells

    box = np.array([[30, 20, 50, 60]], np.float32)
    image = saved(np.full((96, 96, 3), 90, np.uint8), "PNG")
    ds = pack([hr.Record(id="a", encoded=image, boxes=box, box_labels=("a",))], tmp_path / "ds")
    for target, across, dashed in ((kind(**options), (30, 50), False), (Wide(**options), (20, 60), True)):
        seen = Seen(ds.loader(target=target).show)
        (tile,) = seen.tiles
        assert "1 box" in seen.captions[0]
        line = np.flatnonzero(far(tile, MAGENTA, off=1)[110])  # above its centre: nothing but the two sides
        assert np.abs(line.min() - 5 * across[0]) <= 2 and np.abs(line.max() - 5 * across[1]) <= 2
        assert far(tile, (255, 255, 255), off=1).any() == dashed


def test_boxes_that_are_too_many_are_dashed(boxed: hr.Dataset) -> None:
    view = boxed.where("id = 'dir/003.jpeg'")  # with three boxes
    seen = Seen(view.loader(size=96, target=Boxes(most=1)).show)
    assert seen.captions[0][1:] == ["1 of 3 boxes kept", "dir/003.jpeg"]
    assert (seen.tiles[0].image == 255).all(axis=-1).sum() > 50


@pytest.mark.parametrize("target", [Heatmap(stride=4, sigma=0.5), Points()])
def test_points_of_targets_are_decoded(pointed: hr.Dataset, target: Any) -> None:
    loader = pointed.where("keypoints IS NOT NULL").loader(batch_size=32, size=96, target=target)
    encoded = loader[0].targets
    decoded = target.decode(encoded) if isinstance(target, Heatmap) else target.decode(encoded, size=(96, 96))
    seen = Seen(loader.show)
    for tile, points, caption in zip(seen.tiles, decoded, seen.captions, strict=True):
        labelled = points[points[:, 2] > 0]
        assert caption[0] == f"{len(labelled)} of 3 points"
        changed = ~far(tile, (90, 90, 90), off=20)
        assert changed.any() == bool(len(labelled))
        for x, y, _ in labelled:
            assert changed[min(479, int(y * 5)), min(479, int(x * 5))]


def test_targets_of_others_show_the_labels(pointed: hr.Dataset) -> None:
    loader = pointed.loader(batch_size=12, size=64, target=Keep())
    labels = loader.labels(0)
    seen = Seen(loader.show)
    for j, caption in enumerate(seen.captions):
        there = labels.box_image == j
        sets, points = int(there.sum()), int((labels.keypoints[there][..., 2] > 0).sum())
        assert caption[0] == f"{sets} box{'' if sets == 1 else 'es'}"
        assert caption[1].endswith(f"{points} of {3 * sets} points" if sets else "0 points")
        assert far(seen.tiles[j], GREEN).any() == bool(sets)


def test_damaged_records_of_a_batch_shift_no_labels(boxed: hr.Dataset, tmp_path: Path) -> None:
    broken = hr.Dataset(shutil.copytree(boxed.path, tmp_path / "ds"))
    path, _, offset, _ = shard_of(broken, 5)
    flip(path, offset + 50)
    options: dict[str, Any] = {"batch_size": 24, "size": 96, "shuffle": False, "target": Grid(4, 1)}
    seen, whole = Seen(broken.loader(on_bad="skip", **options).show), Seen(boxed.loader(**options).show)
    assert seen.captions == [caption for i, caption in enumerate(whole.captions) if i != 5]
    assert all((a.image == b.image).all() for a, b in zip(seen.tiles, whole.tiles[:5] + whole.tiles[6:], strict=True))
