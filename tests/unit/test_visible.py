"""How much of a box must stay visible, who counts what is cut and dropped, and what goes along with a dropped box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import jpeg, saved
from headrace.errors import DataError, UsageError
from headrace.imaging import geometry
from headrace.imaging.placement import Placement, carry, place
from headrace.imaging.prepare import ImageOptions, prepare
from headrace.load.dataset import Shards
from headrace.place.open import at
from packed import pack

# In an image of 100 x 200 of which "crop" to a square shows columns 50 to 150: box -> the part of it that is seen.
PARTS = {
    (60, 10, 140, 90): 1.0,
    (50, 0, 150, 100): 1.0,
    (0, 0, 200, 100): 0.5,
    (30, 0, 80, 9): 0.6,
    (15, 3, 65, 4): 0.3,
    (14, 3, 64, 4): 0.28,
    (135, 0, 185, 99): 0.3,
    (136, 0, 186, 99): 0.28,
    (0, 0, 51, 100): 1 / 51,
    (0, 0, 50, 100): 0.0,
    (150, 0, 200, 100): 0.0,
}
BOXES = np.array(list(PARTS), np.float32)
VISIBLE = np.array(list(PARTS.values()))


def seen(least: float) -> list[int]:
    return np.flatnonzero((least <= VISIBLE) & (VISIBLE > 0)).tolist()


def record(**labels: Any) -> hr.Record:
    return hr.Record(id="a", encoded=jpeg(100, 200), **{"boxes": BOXES} | labels)


@pytest.mark.parametrize("least", [0, 0.29, 0.3, 0.31, 0.5, 1])
def test_a_box_is_kept_while_enough_of_it_is_visible(tmp_path: Path, least: float) -> None:
    moved, kept = carry(BOXES, [place(100, 200, (50, 50), "crop")], np.zeros(len(BOXES), np.int64), min_visible=least)
    assert kept.tolist() == seen(least)
    assert np.allclose(moved, np.clip(BOXES[kept] - [50, 0, 50, 0], 0, 100) / 2)
    ds = pack([record(box_labels=tuple(f"{k:02d}" for k in range(len(BOXES))))], tmp_path / "ds")
    for augment in ((), (hr.HorizontalFlip(p=1),)):
        targets = ds.loader(size=50, fit="crop", min_visible=least, augment=augment)[0].targets
        found = targets["boxes"][0][targets["mask"][0]]
        assert targets["labels"][0][targets["mask"][0]].tolist() == kept.tolist()
        wanted = np.stack([50 - moved[:, 2], moved[:, 1], 50 - moved[:, 0], moved[:, 3]], axis=1) if augment else moved
        assert np.allclose(found, wanted, atol=1e-5)


def test_three_tenths_unless_said_otherwise(tmp_path: Path) -> None:
    assert geometry.MIN_VISIBLE == 0.3
    assert prepare(jpeg(100, 200), ImageOptions(size=(50, 50), fit="crop"), boxes=BOXES).kept == seen(0.3)
    ds = pack([record()], tmp_path / "ds")
    assert ds.loader(size=50, fit="crop")[0].targets["mask"].sum() == len(seen(0.3))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_nothing_is_hidden_where_nothing_is_cut(tmp_path: Path, fit: Any) -> None:
    """Not even to the last bit: sizes that no float divides."""
    ds = pack([record()], tmp_path / "ds")
    for side in (33, 47, 97, 331):
        targets = ds.loader(size=(side, side + 2), fit=fit, min_visible=1)[0].targets
        found = targets["boxes"][0][targets["mask"][0]]
        assert len(found) == len(BOXES)
        assert (found >= 0).all() and (found <= [side + 2, side] * 2).all()


def test_no_box_reaches_over_the_edge() -> None:
    """Not even by the last bit, wherever a crop begins, mirrored or not."""
    whole = np.array([[0, 0, 331, 97]], np.float32)
    for x in range(1, 330):
        for flip in (False, True):
            placement = Placement(window=(x, x % 90, 331, 97), size=(61, 53), box=(0, 0, 53, 61), flip=flip)
            moved, _ = carry(whole, [placement], np.zeros(1, np.int64), min_visible=0)
            assert (moved >= 0).all() and (moved <= [53, 61, 53, 61]).all(), placement
            assert np.allclose(moved, [[0, 0, 53, 61]], atol=1e-4)


def test_outside_of_the_photo_and_then_of_the_crop() -> None:
    boxes = np.array([[200, 0, 210, 9], [0, 0, 9, 9], [60, 0, 70, 9], [-9, 0, 0, 9], [180, 0, 190, 9], [90, 0, 99, 9]])
    assert prepare(jpeg(100, 200), ImageOptions(size=(50, 50), fit="crop"), boxes=boxes).kept == [2, 5]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_the_part_is_checked(tmp_path: Path, value: float) -> None:
    with pytest.raises(UsageError, match=f"min_visible is {value}, wanted 0 to 1"):
        pack([record()], tmp_path / "ds").loader(size=8, min_visible=value)


def test_a_random_crop_drops_what_it_hides(tmp_path: Path) -> None:
    """A box is there exactly when three tenths of it are, by the pixels."""
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[20:40, 20:40] = 255
    box = np.array([[20, 20, 40, 40]], np.float32)
    some = [hr.Record(id=str(k), encoded=saved(pixels, "PNG"), boxes=box) for k in range(200)]
    loader = pack(some, tmp_path / "ds").loader(
        batch_size=200, size=60, augment=(hr.RandomResizedCrop(scale=(0.1, 0.3), ratio=(1, 1)),)
    )
    rows = loader.view.rows[loader._positions(0, 0)]
    placements = loader._placements(rows, loader._chances(loader._keys(rows, None), 0))
    batch = loader[0]
    kinds = set()
    for image, mask, placement in zip(batch.images, batch.targets["mask"], placements, strict=True):
        x0, y0, x1, y1 = placement.window
        part = (image >= 128).mean() * (x1 - x0) * (y1 - y0) / 400
        if abs(part - 0.3) > 0.03:
            assert mask.any() == (part > 0.3)
            kinds.add((part > 0, bool(mask.any())))
    assert kinds == {(False, False), (True, False), (True, True)}


# --- counted -------------------------------------------------------------------------------------------------------


def test_what_is_cut_and_dropped_is_counted(tmp_path: Path) -> None:
    first = np.array([[-1, 0, 9, 9], [0, 0, 200, 100], [195, 90, 201, 101], [200, 0, 210, 9], [5, 5, 5, 9]], np.float32)
    second = np.array([[60, 0, 70, 101], [0, 0, 9, 9]], np.float32)
    records = [hr.Record(id=str(k), encoded=jpeg(100, 200), boxes=boxes) for k, boxes in enumerate((first, second))]
    report = hr.pack(records, tmp_path / "kept", progress=False)
    assert (report.boxes, report.boxes_clipped, sum(report.boxes_dropped.values())) == (5, 3, 2)
    report = hr.pack(records, tmp_path / "cropped", size=50, fit="crop", progress=False)
    assert (report.boxes, sum(report.boxes_dropped.values())) == (2, 5)


# --- what goes along -----------------------------------------------------------------------------------------------


def test_all_that_is_said_of_a_box_goes_with_it(tmp_path: Path) -> None:
    n = len(BOXES)
    given = record(
        box_labels=tuple(f"b{k:02d}" for k in range(n)),
        keypoints=np.array([[[60 + k, k, 2]] for k in range(n)], np.float32),
        attributes={
            "number": list(range(n)),
            "name": tuple("abcdefghijk"),
            "colours": [1, 2, 3],
            "text": "exactly 11 ",
            "of image": {"k": 1},
        },
    )
    assert n == 11
    kept = seen(0.3)
    stored = pack([given], tmp_path / "ds", size=50, fit="crop")[0]
    assert stored.boxes is not None and len(stored.boxes) == len(kept)
    assert stored.box_labels == tuple(f"b{k:02d}" for k in kept)
    assert stored.attributes == {
        "number": kept,
        "name": ["abcdefghijk"[k] for k in kept],
        "colours": [1, 2, 3],
        "text": "exactly 11 ",
        "of image": {"k": 1},
    }
    assert stored.keypoints is not None
    assert stored.keypoints[:, 0, 0].tolist() == [(10 + k) / 2 for k in kept]


def test_keypoints_without_boxes_stay_whatever_is_seen_of_them(tmp_path: Path) -> None:
    points = np.array([[[60, 5, 2]], [[10, 5, 2]]], np.float32)
    stored = pack([record(boxes=None, keypoints=points)], tmp_path / "ds", size=50, fit="crop")[0]
    assert stored.boxes is None and stored.keypoints is not None
    assert stored.keypoints.tolist() == [[[5, 2.5, 2]], [[0, 0, 0]]]


@pytest.mark.parametrize("names", [(), ("a",) * 10, ("a",) * 12])
def test_other_than_one_label_for_each_box_is_a_reject(tmp_path: Path, names: tuple[str, ...]) -> None:
    bad = hr.Record(id="b", encoded=jpeg(100, 200), boxes=BOXES, box_labels=names, origin="list:4")
    report = hr.pack([record(box_labels=("a",) * 11), bad], tmp_path / "ds", max_rejects=1, progress=False)
    (reject,) = report.rejects
    assert (reject.id, reject.stage, reject.reason) == ("b", "label", f"11 boxes, {len(names)} labels of boxes")
    with pytest.raises(DataError, match="none of 1 records could be stored"):
        hr.pack([bad], tmp_path / "none", max_rejects=1, progress=False)


# --- boxes of many records at once ---------------------------------------------------------------------------------


def test_boxes_of_any_rows(tmp_path: Path) -> None:
    """As the catalog's own lists have them: records with boxes, without any, without a word of them, without labels."""
    rng = np.random.default_rng(0)
    records = []
    for k in range(40):
        boxes = None if k % 7 == 3 else rng.integers(0, 50, (k % 5, 2)).astype(np.float32)
        if boxes is not None:
            boxes = np.concatenate([boxes, boxes + 10], axis=1)
        names = None if boxes is None or k % 3 == 0 else tuple("xy"[j % 2] for j in range(len(boxes)))
        records.append(hr.Record(id=f"{k:02d}", encoded=jpeg(100, 100), boxes=boxes, box_labels=names))
    ds = pack(records, tmp_path / "ds", shards=3)
    rows = rng.integers(0, 40, 100)
    boxes, labels, of = Shards(at(ds.path)).boxes(rows)
    assert (boxes.dtype, labels.dtype, of.dtype) == (np.float32, np.int64, np.int64)
    for i, row in enumerate(rows):
        stored = ds[int(row)]
        wanted = np.zeros((0, 4)) if stored.boxes is None else stored.boxes
        names = [-1] * len(wanted) if stored.box_labels is None else ["xy".index(name) for name in stored.box_labels]
        assert np.array_equal(boxes[of == i], wanted) and labels[of == i].tolist() == names
    assert (np.diff(of) >= 0).all()
    assert [len(part) for part in Shards(at(ds.path)).boxes(rows[:0])] == [0, 0, 0]
