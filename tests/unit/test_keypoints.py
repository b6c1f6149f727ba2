"""Keypoints from Record to Labels: what is stored of them, what a batch gets of them, and what a flip makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import exif, files, jpeg
from headrace.errors import UsageError
from headrace.load.targets import Labels
from packed import FACE as NAMES
from packed import Keep, Source, pack, rewrite_manifest


def record(id_: str, points: Any, boxes: Any = None, **more: Any) -> hr.Record:
    return hr.Record(
        id=id_,
        encoded=jpeg(100, 200),
        keypoints=None if points is None else np.array(points, np.float32).reshape(-1, 3, 3),
        boxes=None if boxes is None else np.array(boxes, np.float32).reshape(-1, 4),
        **more,
    )


FACE = [[60, 10, 2], [70, 20, 1], [100, 30, 2]]
ABSENT = [[0, 0, 0]] * 3


def labels(ds: hr.Dataset, **options: Any) -> Labels:
    found: Labels = ds.loader(batch_size=len(ds), shuffle=False, target=Keep(), **options)[0].targets
    return found


def by_id(ds: hr.Dataset, found: Labels) -> dict[str, list[Any]]:
    """What stands in a batch of each record: (box, keypoints) of its objects."""
    ids = ds.catalog["id"].to_list()
    out: dict[str, list[Any]] = {id_: [] for id_ in ids}
    for image, box, points in zip(found.box_image, found.boxes.tolist(), found.keypoints.tolist(), strict=True):
        out[ids[image]].append((box, points))
    return out


def test_what_a_dataset_says(tmp_path: Path) -> None:
    ds = pack(Source([record("a", [FACE, ABSENT]), record("b", None), record("c", [])]), tmp_path / "ds")
    assert (ds.has_keypoints, ds.keypoints, ds.keypoint_names, ds.flip_pairs) == (True, 3, NAMES, ((1, 2),))
    assert "2 sets of 3 keypoints" in repr(ds) and not ds.has_boxes
    stored = {ds[i].id: ds[i].keypoints for i in range(3)}
    assert stored["a"].tolist() == [FACE, ABSENT] and stored["a"].dtype == np.float32
    assert stored["b"] is None
    assert stored["c"].shape == (0, 3, 3) and stored["c"].dtype == np.float32
    assert ds.verify().ok

    ds = pack([record("a", None)], tmp_path / "none")
    assert (ds.has_keypoints, ds.keypoints, ds.keypoint_names, ds.flip_pairs) == (False, 0, (), ())
    assert "keypoints" not in repr(ds)
    found = labels(ds)
    assert found.keypoints.shape == (0, 0, 3) and found.boxes.shape == (0, 4)


@pytest.mark.parametrize("augment", [(), (hr.HorizontalFlip(p=1),)])
def test_labels_of_records_with_boxes_and_without(tmp_path: Path, augment: Any) -> None:
    """The stored 100 x 200 is stretched to 50 x 50: x by a quarter, y by half."""
    items = [
        record("both", [FACE, ABSENT], [[50, 0, 110, 40], [0, 0, 20, 20]], box_labels=("man", "dog")),
        record("box alone", None, [[0, 0, 20, 20]], box_labels=("dog",)),
        record("points alone", [FACE, ABSENT]),
        record("neither", None),
        record("negative", [], [], box_labels=()),
    ]
    ds = pack(Source(items), tmp_path / "ds")
    found = labels(ds, size=50, augment=augment)
    assert (found.keypoints.dtype, found.boxes.dtype) == (np.float32, np.float32)
    assert (np.diff(found.box_image) >= 0).all() and found.box_classes == 2
    face = [[15, 5, 2], [17.5, 10, 1], [25, 15, 2]]
    boxes = {"both": [[12.5, 0, 27.5, 20], [0, 0, 5, 10]], "box alone": [[0, 0, 5, 10]], "points": [[15, 5, 25, 15]]}
    if augment:
        face = [[50 - x, y, v] for x, y, v in (face[0], face[2], face[1])]
        boxes = {name: [[50 - x1, y0, 50 - x0, y1] for x0, y0, x1, y1 in some] for name, some in boxes.items()}
    assert by_id(ds, found) == {
        "both": [(boxes["both"][0], face), (boxes["both"][1], ABSENT)],
        "box alone": [(boxes["box alone"][0], ABSENT)],
        # around its points; one of which nothing is seen is not there
        "points alone": [(boxes["points"][0], face)],
        "neither": [],
        "negative": [],
    }
    names = {box[2] - box[0]: name for box, name in zip(found.boxes.tolist(), found.box_labels.tolist(), strict=True)}
    assert names == {15: ds.box_class_names.index("man"), 5: ds.box_class_names.index("dog"), 10: -1}


def test_what_a_crop_cuts_off(tmp_path: Path) -> None:
    """The middle 100 x 100, columns 50 to 150: a point on the border is in it."""
    points = [[50, 10, 2], [49.5, 20, 1], [150, 100, 2]]
    boxes = [[40, 0, 160, 90], [0, 0, 55, 90]]
    ds = pack(
        Source([record("boxed", [points, FACE], boxes), record("bare", [points, [[10, 10, 2], *ABSENT[1:]]])]),
        tmp_path / "ds",
    )
    seen = [[0, 10, 2], [0, 0, 0], [100, 100, 2]]
    found = by_id(ds, labels(ds, size=100, fit="crop"))
    # The second box is hidden, and its points go with it, seen or not.
    assert found["boxed"] == [([0, 0, 100, 90], seen)]
    assert found["bare"] == [([0, 10, 100, 100], seen)]
    flipped = by_id(ds, labels(ds, size=100, fit="crop", augment=(hr.HorizontalFlip(p=1),)))
    assert flipped["bare"] == [([0, 10, 100, 100], [[100, 10, 2], [0, 100, 2], [0, 0, 0]])]


def test_what_is_lost_is_counted_when_packed(tmp_path: Path) -> None:
    items = [
        record("a", [[[60, 10, 2], [201, 20, 1], [10, 30, 2]], FACE], [[55, 0, 145, 90], [0, 0, 20, 20]]),
        record("b", [[[60, -0.5, 2], [0, 0, 0], [199, 30, 2]]]),
    ]
    report = hr.pack(Source(items), tmp_path / "ds", size=100, fit="crop", progress=False)
    lost = {"outside of the image": 2, "of dropped boxes": 3, "cut off by fit": 2}
    assert (report.keypoint_sets, report.keypoints_dropped) == (1, lost)
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.manifest.keypoints_dropped == lost and ds.verify().ok
    stored = {ds[i].id: ds[i].keypoints.tolist() for i in range(2)}
    assert stored == {"a": [[[10, 10, 2], [0, 0, 0], [0, 0, 0]]], "b": [[[0, 0, 0]] * 3]}

    info = json.loads(headrace("info", tmp_path / "ds", "--json").out)
    assert {name: info[name] for name in info if "keypoint" in name or "pair" in name} == {
        "keypoints": 3,
        "keypoint_sets": 1,
        "keypoint_names": list(NAMES),
        "flip_pairs": [[1, 2]],
        "keypoints_dropped": lost,
    }
    shown = headrace("info", tmp_path / "ds").out
    assert "points   1 sets of 3 (nose, left_eye, right_eye), 2 dropped (outside of the image)" in shown


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turn_swaps_no_sides(tmp_path: Path, orientation: int) -> None:
    """Orientations 2, 4, 5 and 7 mirror the bytes back into what was seen, by which the annotator said left."""
    turned = hr.Record(id="a", encoded=jpeg(100, 200, exif=exif(orientation)), keypoints=np.array([FACE], np.float32))
    stored = pack(Source([turned]), tmp_path / "ds")[0]
    assert stored.keypoints is not None and stored.keypoints[0, :, 2].tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("names", "pairs", "says"),
    [
        (NAMES, None, None),
        (("a", "b", "c"), None, None),  # nothing in them is left or right
        (None, ((1, 2), (0, 0)), None),
        (None, None, "nobody said the partner of 0, 1, 2"),
        (None, ((1, 2),), "nobody said the partner of 0"),
        (("nose", "left_eye", "left_ear"), None, "nobody said the partner of left_eye, left_ear"),
        (("nose", "left_eye", "left_ear"), ((1, 1), (2, 2)), None),
    ],
)
def test_a_flip_wants_to_know_the_pairs(tmp_path: Path, names: Any, pairs: Any, says: str | None) -> None:
    ds = pack(Source([record("a", [FACE])], names, pairs), tmp_path / "ds")
    flip = (hr.HorizontalFlip(),)
    ds.loader(size=50, target=None, augment=flip)
    ds.loader(size=50, target=Keep(), augment=(hr.RandomResizedCrop(), hr.ColorJitter()))
    if says is None:
        ds.loader(size=50, target=Keep(), augment=flip)
    else:
        with pytest.raises(UsageError, match=f"{says};.* flip_pairs="):
            ds.loader(size=50, target=Keep(), augment=flip)


def test_keypoints_of_any_rows(tmp_path: Path) -> None:
    """As the catalog's own lists have them."""
    rng = np.random.default_rng(0)
    records = []
    for k in range(40):
        points = rng.integers(1, 90, (k % 4, 3, 3)).astype(np.float32)
        points[..., 2] = rng.integers(0, 3, (k % 4, 3))
        points[points[..., 2] == 0] = 0
        boxes = None if k % 5 == 2 else np.tile(np.array([1, 2, 90, 95], np.float32), (k % 4, 1))
        records.append(record(f"{k:02d}", None if k % 7 == 3 else points, boxes))
    ds = pack(Source(records), tmp_path / "ds", shards=3)
    rows = rng.integers(0, 40, 100)
    found = ds.store.objects(rows)
    for i, row in enumerate(rows.tolist()):
        stored = ds[row]
        sets = stored.keypoints
        if sets is None:
            sets = np.zeros((0 if stored.boxes is None else len(stored.boxes), 3, 3), np.float32)
        assert np.array_equal(found.keypoints[found.of == i], sets)
        assert (found.boxed[found.of == i] == (stored.boxes is not None)).all()
    assert (np.diff(found.of) >= 0).all() and {part.shape[0] for part in found} == {len(found.of)}
    assert {len(part) for part in ds.store.objects(rows[:0])} == {0}
    boxes, _, of = ds.store.boxes(rows)
    assert len(boxes) == found.boxed.sum() and of.tolist() == found.of[found.boxed].tolist()


@pytest.mark.parametrize("points", [None, []])
@pytest.mark.parametrize("boxes", [None, []])
def test_a_dataset_whose_records_have_none(tmp_path: Path, points: Any, boxes: Any) -> None:
    """The source names keypoints, and no record has any."""
    ds = pack(Source([record("a", points, boxes), record("b", None)]), tmp_path / "ds")
    found = labels(ds, size=8)
    assert (found.keypoints.shape, found.boxes.shape, found.box_image.shape) == ((0, 3, 3), (0, 4), (0,))
    assert ds.verify().ok and ds.has_boxes == (boxes is not None)


def test_the_catalog_contradicts_the_record(tmp_path: Path) -> None:
    """Another point, another box or another count than in the record is found by verify."""
    import hashlib

    import google_crc32c
    import polars as pl

    from headrace.format import catalog

    ds = pack(Source([record("a", [FACE], [[50, 0, 110, 40]])]), tmp_path / "ds")
    frame = ds.store.table.frame([*catalog.WHAT])
    other = [[*FACE[:2], [100, 30.5, 2]]]
    cases: dict[str, tuple[str, Any]] = {
        "keypoints": ("image/object/keypoint/y", [other]),
        "boxes": ("image/object/bbox/xmax", [[[50, 0, 111, 40]]]),
        "box_labels": ("box_labels", [[0]]),  # there are no such classes
    }
    for column, (key, value) in cases.items():
        changed = frame.with_columns(pl.Series(column, value, dtype=catalog.SCHEMA[column]))
        data = catalog.to_bytes(changed)
        files(tmp_path / "ds", {catalog.FILE: data})
        rewrite_manifest(
            tmp_path / "ds",
            files={**ds.manifest.files, catalog.FILE: hashlib.sha256(data).hexdigest()},
            crc32c={**ds.manifest.crc32c, catalog.FILE: google_crc32c.value(data)},
        )
        reasons = [damage.reason for damage in hr.Dataset(tmp_path / "ds").verify().damaged]
        assert any(
            f"the record's {key} is " in reason or f"the {key} of row 0 can't be" in reason for reason in reasons
        )
