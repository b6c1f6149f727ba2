"""What a record may say beside a class and boxes: several classes, a value, captions, masks, flags of boxes.

Packed, read again, packed again, verified; and where pixels go, masks go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import headrace as hr
from drawn import exif, picture, saved
from forged import forge_catalog
from headrace.errors import DamageError
from headrace.format import catalog, example, tables
from headrace.imaging.masks import decode_runs, encode_runs
from headrace.packing.spool import Spool
from headrace.place.open import at
from headrace.record import Mask
from packed import pack

HEIGHT, WIDTH = 20, 30
BOXES = np.array([[1, 2, 11, 12], [15, 4, 25, 14]], np.float32)


def covered(box: NDArray[np.float32], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box.astype(int)
    out = np.zeros((height, width), np.bool_)
    out[y0:y1, x0:x1] = True
    return out


def corners(box: NDArray[np.float32]) -> NDArray[np.float32]:
    x0, y0, x1, y1 = box.tolist()
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


POLYGON = Mask(polygons=(corners(BOXES[0]),))
RUNS = Mask(runs=encode_runs(covered(BOXES[1])), size=(HEIGHT, WIDTH))


def record(k: int = 0, **more: Any) -> hr.Record:
    return hr.Record(id=f"{k}.png", encoded=saved(picture(HEIGHT, WIDTH, seed=k), "PNG"), **more)


def full(k: int) -> hr.Record:
    return record(
        k,
        labels=[("cat",), ("cat", "dog"), ()][k % 3],
        value=k / 3,
        captions=("a cat", "ein Kätzchen"),
        group=f"film {k // 2}",
        boxes=BOXES,
        box_labels=("head", "tail"),
        masks=(POLYGON, RUNS),
        attributes={"difficult": [0, 1], "occluded": [-1, None], "track": [7, 1 << 40], "pose": ["left", None], "f": 7},
    )


def same(one: hr.Record, two: hr.Record) -> bool:
    names = ("labels", "value", "captions", "group", "box_labels", "attributes")
    return all(getattr(one, name) == getattr(two, name) for name in names) and same_masks(one.masks, two.masks)


def same_masks(one: Any, two: Any) -> bool:
    if one is None or two is None:
        return one is two
    return len(one) == len(two) and all(map(same_mask, one, two))


def same_mask(one: Mask | None, two: Mask | None) -> bool:
    if one is None or two is None:
        return one is two
    if one.runs is not None and two.runs is not None:
        return np.array_equal(one.runs, two.runs) and one.size == two.size
    polygons = len(one.polygons) == len(two.polygons) and one.runs is two.runs
    return polygons and all(map(np.array_equal, one.polygons, two.polygons))


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack([full(k) for k in range(9)], tmp_path_factory.mktemp("several") / "ds", shards=2)


def test_all_of_it_comes_back(ds: hr.Dataset) -> None:
    for k in range(9):
        stored = ds[f"{k}.png"]
        assert same(stored, full(k)) and stored.label is None and stored.label_name is None
    assert ds.class_names == ("cat", "dog") and ds.verify().ok


def test_and_when_it_is_packed_again(ds: hr.Dataset, tmp_path: Path) -> None:
    again = pack(ds, tmp_path / "again")  # type: ignore[arg-type]
    assert all(same(again[f"{k}.png"], full(k)) for k in range(9))
    assert again.class_names == ds.class_names and again.manifest.multi_label and again.manifest.values


def test_columns_have_types_that_conditions_ask_for(ds: hr.Dataset) -> None:
    frame = ds.catalog
    assert {name: frame[name].dtype for name in catalog.ATTRIBUTES} == catalog.ATTRIBUTES
    assert len(ds.where("array_contains(difficult, 1)")) == 9
    assert len(ds.where("array_contains(label_names, 'dog') AND value > 2")) == 1  # records 1, 4 and 7
    assert json.loads(frame["attributes"][0]) == {"pose": ["left", None], "f": 7}
    assert frame["truncated"].null_count() == 9  # of which nothing was said


# An attribute by such a name that is no number for each box stays what it is, in JSON.
@pytest.mark.parametrize("odd", [{"difficult": 1}, {"difficult": [1]}, {"track": ["a", "b"]}, {"truncated": [0.5, 1]}])
def test_an_attribute_that_does_not_fit_its_column(odd: dict[str, Any], tmp_path: Path) -> None:
    made = pack([record(boxes=BOXES, attributes=odd)], tmp_path / "ds")
    assert made[0].attributes == odd and made.catalog[next(iter(odd))].null_count() == 1


def test_features_of_several_classes_and_of_a_value(ds: hr.Dataset) -> None:
    by_id = {found["image/id"]: found for found in ds.features("image/id", "image/class/label", "image/value")}
    text = {found["image/id"]: found for found in ds.features("image/id", "image/class/text")}
    assert np.array_equal(by_id[b"1.png"]["image/class/label"], [0, 1])
    assert list(text[b"1.png"]["image/class/text"]) == [b"cat", b"dog"]
    assert len(np.atleast_1d(by_id[b"2.png"]["image/class/label"])) == 0
    assert float(np.ravel(by_id[b"4.png"]["image/value"])[0]) == np.float32(4 / 3)
    declared = json.loads((ds.path / "features.json").read_text())["featuresDict"]["features"]
    assert declared["image/class/label"]["pythonClassName"].endswith("Sequence") and "image/value" in declared


def test_a_record_with_one_class_among_several(tmp_path: Path) -> None:
    made = pack([record(0, label_name="b"), record(1, labels=("a", "b")), record(2)], tmp_path / "ds")
    assert [made[f"{k}.png"].labels for k in range(3)] == [("b",), ("a", "b"), None]
    assert [made[f"{k}.png"].label for k in range(3)] == [None] * 3


def test_a_class_that_is_none_of_those_given(tmp_path: Path) -> None:
    class Given(list[hr.Record]):
        def __iter__(self) -> Any:
            yield from super().__iter__()
            return hr.sources.SourceInfo(class_names=("a", "b"))

    some = Given([record(0, labels=("a",)), record(1, labels=("a", "x"))])
    report = hr.pack(some, tmp_path / "ds", max_rejects=1, progress=False)
    assert [reject.reason for reject in report.rejects] == ["class 'x' is none of the given a, b"]


def test_splits_are_stratified_by_all_classes_of_an_image(tmp_path: Path) -> None:
    some = [record(k, labels=[("a",), ("b",), ("a", "b"), ()][k % 4]) for k in range(40)]
    made = pack(some, tmp_path / "ds", splits={"train": 0.5, "val": 0.5})
    for of in (("a",), ("b",), ("a", "b"), ()):
        assert sum(stored.labels == of for stored in made.split("val")) == 5
    for part in made.divide({"x": 0.5, "y": 0.5}):
        assert [sum(stored.labels == of for stored in part) for of in (("a",), ("b",), ("a", "b"), ())] == [5] * 4


# --- masks move with the pixels --------------------------------------------------------------------------------------


def pixels_of(mask: Mask | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """What a mask covers of an image: of a polygon, here always a rectangle, the pixels whose middle is in it."""
    assert mask is not None
    if mask.runs is not None:
        assert mask.size == size
        return decode_runs(mask.runs, size)
    out = np.zeros(size, np.bool_)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    for polygon in mask.polygons:
        low, high = polygon.min(0), polygon.max(0)
        out |= (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    return out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("options", [{}, {"size": (40, 60)}, {"size": (30, 30), "fit": "crop"}, {"max_side": 15}])
def test_a_mask_is_where_its_box_is(
    orientation: int, upright: bool, options: Mapping[str, Any], tmp_path: Path
) -> None:
    """Whatever turns, shrinks and cuts the image; what is measured upright is not turned once more."""
    encoded = saved(picture(HEIGHT, WIDTH), "JPEG", exif=exif(orientation))
    turned = upright and orientation >= 5
    height, width = (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)
    boxes = BOXES[:, [1, 0, 3, 2]] if turned else BOXES
    masks = (
        Mask(polygons=(corners(boxes[0]),)),
        Mask(runs=encode_runs(covered(boxes[1], height, width)), size=(height, width)),
    )
    some = hr.Record(id="a", encoded=encoded, boxes=boxes, masks=masks, upright=upright, size=(height, width))
    (stored,) = pack([some], tmp_path / "ds", **options)
    assert stored.boxes is not None and stored.masks is not None and len(stored.masks) == len(stored.boxes)
    if not options and (upright or orientation == 1):
        assert np.array_equal(stored.boxes, boxes)
    for box, mask in zip(stored.boxes, stored.masks, strict=True):
        y, x = np.nonzero(pixels_of(mask, (stored.height, stored.width)))
        assert np.abs(np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) - box).max() <= 1


def test_a_mask_goes_with_its_box(tmp_path: Path) -> None:
    """One box lies outside of what is kept; the mask that is left is the other's."""
    some = record(boxes=BOXES, masks=(POLYGON, RUNS), window=(0, 0, 13, 20))
    (stored,) = pack([some], tmp_path / "ds")
    assert stored.masks is not None and len(stored.masks) == 1
    assert stored.masks[0] is not None and np.array_equal(stored.masks[0].polygons[0], corners(BOXES[0]))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"masks": (None, Mask(runs=np.array([600]), size=(30, 20)))}, "a mask of it is for 20 x 30"),
        ({"upright": True, "size": (30, 20)}, "the image is 30 x 20 pixels, its annotation is for 20 x 30"),
    ],
)
def test_measured_in_another_image(more: dict[str, Any], says: str, tmp_path: Path) -> None:
    report = hr.pack([record(boxes=BOXES, **more), record(1)], tmp_path / "ds", max_rejects=1, progress=False)
    assert [says in reject.reason for reject in report.rejects] == [True]


# --- on disk ---------------------------------------------------------------------------------------------------------


def test_the_spool_keeps_all(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        spool.write([full(1), record(2), record(3, masks=(None,), boxes=BOXES[:1], upright=True)])
        table = spool.table()
    first, second, third = (table[row] for row in range(3))
    assert isinstance(first, hr.Record) and same(first, full(1))
    assert isinstance(second, hr.Record) and same(second, record(2)) and second.upright is False
    assert isinstance(third, hr.Record) and third.masks == (None,) and third.upright is True


WRONG: list[tuple[str, Any, str]] = [
    ("labels", [[2], *[[0]] * 8], "labels"),
    ("labels", [[None], *[[0]] * 8], "labels"),
    ("labels", [None, *[[0]] * 8], "number of labels"),
    ("value", [float("nan"), *[0.0] * 8], "value"),
    ("value", [float("inf"), *[0.0] * 8], "value"),
    ("polygons", [[[[1.0, 2.0, 3.0]], None]] * 9, "polygons"),  # half a corner
    ("polygons", [[[[1.0, 2.0, 3.0, 4.0]], None]] * 9, "polygons"),  # two corners
    ("polygons", [[[[0.0] * 6]]] * 9, "number of polygons"),
    ("runs", [[[600]]] * 9, "number of runs"),
    ("runs", [None] * 9, "masks"),
    ("difficult", [[0]] * 9, "number of difficult"),
]


@pytest.mark.parametrize(("name", "values", "says"), WRONG)
def test_columns_that_can_not_be(ds: hr.Dataset, name: str, values: Any, says: str) -> None:
    """A catalog with right digests that nobody can have written is damage, when it is read."""
    opened = tables.Tables(at(ds.path))
    frame = opened.frame([*catalog.WHAT])
    assert opened.judged(frame) is frame
    forged = frame.with_columns(pl.Series(name, values, dtype=catalog.WHAT[name]))
    with pytest.raises(DamageError, match=f"the {says} of row 0 can't be"):
        opened.judged(forged)


def test_verify_holds_records_against_the_catalog(tmp_path: Path) -> None:
    made = pack([full(k) for k in range(3)], tmp_path / "ds")
    forged = {"value": pl.lit(5.0), "labels": pl.lit([1]), "label_names": pl.lit(["dog"])}
    forge_catalog(made.path, forged)
    reasons = [damage.reason for damage in hr.Dataset(made.path).verify().damaged]
    assert sum("image/value" in reason for reason in reasons) == 3
    assert sum("image/class/label" in reason for reason in reasons) == 3


def test_difficult_and_others_are_features_where_the_tf_object_detection_api_has_keys(tmp_path: Path) -> None:
    flags = {"difficult": [1, 0], "truncated": [0, 1], "occluded": [1, 1], "group_of": [0, 0], "depiction": [1, 0]}
    made = pack([record(0, boxes=BOXES, attributes=flags), record(1, boxes=BOXES)], tmp_path / "ds")
    for name, value in flags.items():
        first, second = (
            np.ravel(found[f"image/object/{name}"]).tolist() for found in made.features(f"image/object/{name}")
        )
        assert sorted((first, second), key=len) == [[], value]
    assert set(flags) <= set(example.KEYED) and made.verify().ok
