"""Dataset: what was packed comes back by number, views are exact and share files, what is no dataset is told."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import pickle
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import headrace as hr
from drawn import saved
from foreign import payload, write
from headrace.errors import DamageError, NotThereError, UsageError
from headrace.format import catalog, manifest
from headrace.load import dataset
from headrace.load.view import View
from packed import CLASSES, flip, pack, photos, pixels_of, rewrite_manifest, shades, shard_of

PHOTOS = photos(60, grey=(3,), png=(4, 5))
BOXED = photos(24, boxes=True, unlabelled=(2, 6))


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(PHOTOS, tmp_path_factory.mktemp("photos") / "ds", shards=3, splits={"train": 0.7, "val": 0.3}, seed=5)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(BOXED, tmp_path_factory.mktemp("boxed") / "ds", shards=2)


def numbers(ds: hr.Dataset) -> list[int]:
    """What records of PHOTOS or BOXED a view holds."""
    return [int(id_.split("/")[1][:3]) for id_ in ds.catalog["id"]]


# --- records ---------------------------------------------------------------------------------------------------------


def test_every_record_comes_back(ds: hr.Dataset) -> None:
    assert len(ds) == 60 and sorted(numbers(ds)) == list(range(60))
    for i, k in enumerate(numbers(ds)):
        source, record = PHOTOS[k], ds[i]
        assert (record.id, record.label_name, record.origin) == (source.id, source.label_name, source.origin)
        assert record.label == CLASSES.index(source.label_name or "")
        assert record.encoded == source.encoded and record.read() == source.read()
        assert record.attributes == {"k": k}
        assert record.boxes is None and record.box_labels is None and record.keypoints is None
        assert record.format == ("png" if k % 10 in (4, 5) else "jpeg")
        assert record.channels == (1 if k % 10 == 3 else 3)
        assert record.split in ("train", "val")


def test_the_image_is_what_pillow_decodes(ds: hr.Dataset) -> None:
    for i, k in enumerate(numbers(ds)):
        image, wanted = ds[i].image, pixels_of(PHOTOS[k])
        assert image.dtype == np.uint8 and image.shape == wanted.shape == (ds[i].height, ds[i].width, ds[i].channels)
        assert np.abs(image.astype(int) - wanted).max() <= (0 if ds[i].format == "png" else 3)


def test_boxes_come_back(boxed: hr.Dataset) -> None:
    for i, k in enumerate(numbers(boxed)):
        source, record = BOXED[k], boxed[i]
        assert record.boxes is not None and source.boxes is not None
        limit = [record.width, record.height] * 2
        assert record.boxes.dtype == np.float32 and record.boxes.shape == (k % 4, 4)
        assert np.array_equal(record.boxes, np.minimum(source.boxes, limit))
        assert record.box_labels == source.box_labels
        assert (record.label, record.label_name) == ((None, None) if k % 10 in (2, 6) else (k % 3, CLASSES[k % 3]))
    assert boxed.has_boxes and boxed.box_class_names == ("left", "right")


def test_keypoints_come_back(tmp_path: Path) -> None:
    points = np.array([[[1, 2, 2], [3, 4, 1], [0, 0, 0]], [[5, 6, 2], [0, 0, 0], [7, 7, 1]]], np.float32)
    boxes = np.array([[0, 0, 4, 5], [2, 2, 8, 8]], np.float32)
    record = hr.Record(id="a", encoded=shades(1)[0].encoded, boxes=boxes, box_labels=("p", "p"), keypoints=points)
    found = pack([record], tmp_path / "ds")[0].keypoints
    assert found is not None and found.dtype == np.float32 and np.array_equal(found, points)


@pytest.mark.parametrize("i", [0, 59, np.int64(7)])
def test_a_negative_number_counts_from_the_end(ds: hr.Dataset, i: int) -> None:
    assert ds[i - 60].id == ds[i].id


@pytest.mark.parametrize("i", [60, -61, 1 << 70])
def test_no_such_record(ds: hr.Dataset, i: int) -> None:
    with pytest.raises(IndexError, match=f"record {i} of 60"):
        ds[i]


@pytest.mark.parametrize(
    "i",
    [None, 1.5, (1, 2), {3}, [1.5], ["dir/000.jpeg", 1], np.zeros((2, 2), int), [[1], [2, 3]], [None], object()],
)
def test_no_number(ds: hr.Dataset, i: Any) -> None:
    with pytest.raises(
        TypeError, match=r"records by .*, wanted a number, an id, a slice, whole numbers or ids \[m\] or a mask"
    ):
        ds[i]


WIDE = [k % 7 > 3 for k in range(60)]
# (what a view is chosen by, the positions of its 60 records, what the view is called)
CHOSEN: list[tuple[Any, Any, str]] = [
    (slice(5), range(5), "[:5]"),
    (slice(-3, None), range(57, 60), "[-3:]"),
    (slice(None, None, -1), range(59, -1, -1), "[::-1]"),
    (slice(50, 999, 4), range(50, 60, 4), "[50:999:4]"),
    (slice(9, 3), [], "[9:3]"),
    ([1, 2], [1, 2], "2 of 60 chosen"),
    ([7, -1, 7, 0], [7, 59, 7, 0], "4 of 60 chosen"),
    ([], [], "0 of 60 chosen"),
    (np.array([], np.float64), [], "0 of 60 chosen"),
    (np.array([3, 58], np.uint8), [3, 58], "2 of 60 chosen"),
    (np.array([-60, 59]), [0, 59], "2 of 60 chosen"),
    (pl.Series([4, 5]), [4, 5], "2 of 60 chosen"),
    (WIDE, np.flatnonzero(WIDE), "24 of 60 chosen"),
    (np.array(WIDE), np.flatnonzero(WIDE), "24 of 60 chosen"),
    (pl.Series(WIDE), np.flatnonzero(WIDE), "24 of 60 chosen"),
]


@pytest.mark.parametrize(("key", "positions", "called"), CHOSEN)
def test_slices_numbers_and_masks_give_views(ds: hr.Dataset, key: Any, positions: Any, called: str) -> None:
    view, ids = ds[key], ds.catalog["id"].to_list()
    assert type(view) is hr.Dataset and view.what == called and view.store is ds.store
    assert view.catalog["id"].to_list() == [ids[i] for i in positions] == [record.id for record in view]
    assert view.rows.dtype == np.int64 and view.is_view
    half = ds.where("label = 1")
    assert half[::2].catalog["id"].to_list() == half.catalog["id"].to_list()[::2]


def test_a_condition_of_polars_is_a_mask(ds: hr.Dataset) -> None:
    assert numbers(ds[ds.catalog["width"] > 40]) == numbers(ds.where("width > 40"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ([0, 60], "record 60 of 60"),
        (np.array([-61]), "record -61 of 60"),
        (np.array([1 << 63], np.uint64), f"record {1 << 63} of 60"),
        ([True] * 59, "a mask of 59 for 60 records"),
    ],
)
def test_no_such_records(ds: hr.Dataset, key: Any, said: str) -> None:
    with pytest.raises(IndexError, match=said):
        ds[key]


def test_ids_give_a_view(ds: hr.Dataset) -> None:
    for view in (ds, ds.split("val"), ds[::-1]):
        ids = view.catalog["id"].to_list()
        for chosen in ([7, 3, 7], [0], [len(view) - 1, 2]):
            names = [ids[i] for i in chosen]
            for key in (names, np.array(names), pl.Series(names)):
                assert view[key].rows.tolist() == view.rows[chosen].tolist()
    with pytest.raises(KeyError, match=r"ds: no record 'zzz'"):
        ds[["dir/000.jpeg", "zzz"]]
    val = ds.split("val")
    (other,) = ds.split("train").sample(1)
    for ids in ([val[0].id, other.id], [other.id]):
        with pytest.raises(KeyError, match=f"no record '{other.id}'; the dataset has it, and this view of it doesn't"):
            val[ids]
    with pytest.raises(KeyError, match=f"no record '{other.id}'; the dataset has it"):
        ds[:0][[other.id]]
    with pytest.raises(KeyError, match="no record 'zzz'"):
        ds[:0][["zzz"]]


def test_many_ids_are_found_at_once(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other is looked for in a million rows each time."""

    def one(self: hr.Dataset, id_: str) -> int:
        raise AssertionError(id_)

    view = ds[::-1]
    ids = view.catalog["id"].to_list()
    monkeypatch.setattr(hr.Dataset, "_row_of", one)
    assert view[ids].rows.tolist() == view.rows.tolist()


def test_what_others_call_it_is_answered(ds: hr.Dataset) -> None:
    for name, instead in (
        ("take", r"ds\[:5\]"),
        ("batch", r"ds\.loader\(batch_size=32\)"),
        ("to_torch", r"ds\.loader\(\)\.to_torch\(\)"),
        ("concatenate", r"a \+ b, hr\.concat"),
        ("num_classes", r"len\(ds\.class_names\)"),
    ):
        with pytest.raises(AttributeError, match=f"'Dataset' object has no attribute '{name}'; it is {instead}"):
            getattr(ds, name)
    with pytest.raises(AttributeError, match=r"'Dataset' object has no attribute 'zzz'$"):
        getattr(ds, "zzz")  # noqa: B009
    assert not hasattr(ds, "take") and not any(hasattr(hr.Dataset, name) for name in dataset._INSTEAD)
    assert pickle.loads(pickle.dumps(ds)).fingerprint == ds.fingerprint and copy.copy(ds).rows is ds.rows


def test_whether_there_is_an_id(ds: hr.Dataset) -> None:
    assert ds[3].id in ds and "zzz" not in ds and 3 not in ds and ds[3] not in ds
    assert ds[3].id not in ds[4:] and ds[3].id in ds[3:4]


def test_a_record_by_its_id(ds: hr.Dataset, tmp_path: Path) -> None:
    for i in (0, 17, 59):
        assert ds[ds[i].id].encoded == ds.record(ds[i].id).encoded == ds[i].encoded
    with pytest.raises(TypeError, match=r"record\(3\): wanted an id; by its number it is ds\[3\]"):
        ds.record(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no record 'zzz'"):
        ds.record("zzz")
    val = ds.split("val")
    assert val[val[3].id].id == val[3].id
    array = hr.ArrayDataset(np.zeros((3, 2, 2, 1), np.uint8))
    assert array["2"].id == "2" and array[1:]["2"].id == "2"


# (an id that there isn't, what is said)
UNKNOWN = [
    ("003.jpeg", r"ds: no record '003\.jpeg'; near it are dir/003\.jpeg$"),
    ("photos/003.jpeg", r"near it are dir/003\.jpeg"),
    ("dir/03.jpg", r"near it are dir/\d+\.jpeg, dir/"),
    ("dir/", r"; near it are dir/"),
    ("zzz", r"no record 'zzz'; ids are like dir/0"),
    ("", r"no record ''; ids are like dir/0"),
]


@pytest.mark.parametrize(("id_", "said"), UNKNOWN)
def test_an_unknown_id_names_those_near(ds: hr.Dataset, id_: str, said: str) -> None:
    for kind in (UsageError, KeyError):
        with pytest.raises(kind, match=said):
            ds[id_]


def test_an_id_of_another_view(ds: hr.Dataset) -> None:
    (other,) = ds.split("val").sample(1)  # type: ignore[misc]
    with pytest.raises(
        KeyError, match=f"ds / split 'train': no record '{other.id}'; the dataset has it, and this view"
    ):
        ds.split("train")[other.id]
    with pytest.raises(KeyError, match=r"no record 'x'$"):
        ds.where("1 = 0")["x"]


def test_it_can_be_iterated(ds: hr.Dataset) -> None:
    assert [record.id for record in ds] == ds.catalog["id"].to_list()  # type: ignore[attr-defined]


def test_the_order_is_one_of_the_seed(tmp_path: Path, ds: hr.Dataset) -> None:
    options = {"shards": 3, "splits": {"train": 0.7, "val": 0.3}}
    assert numbers(pack(PHOTOS, tmp_path / "same", seed=5, **options)) == numbers(ds)
    assert numbers(pack(PHOTOS, tmp_path / "other", seed=6, **options)) != numbers(ds) != list(range(60))


def test_a_record_is_read_with_its_neighbours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "GROUP", 8)
    ds = pack(shades(40), tmp_path / "ds", shards=1)
    asked: list[tuple[int, int | None]] = []
    read = catalog.File.read

    def counted(self: catalog.File, columns: Any, first: int = 0, n: int | None = None) -> pl.DataFrame:
        asked.append((first, n))
        return read(self, columns, first, n)

    monkeypatch.setattr(catalog.File, "read", counted)
    found = [ds[i].id for i in (17, 18, 23, 0, 16)]
    assert asked == [(16, 8), (0, 8)] and found == ds.catalog["id"][[17, 18, 23, 0, 16]].to_list()


# --- the whole -------------------------------------------------------------------------------------------------------


def test_what_is_known_of_the_whole(ds: hr.Dataset, boxed: hr.Dataset) -> None:
    assert ds.class_names == CLASSES
    assert ds.class_counts == {"ant": 20, "bee": 20, "cow": 20}
    assert ds.splits == {"train": 42, "val": 18}
    assert ds.channels == 3 and ds.image_size is None and not ds.has_boxes
    assert ds.labels.dtype == np.int64 and Counter(ds.labels.tolist()) == {0: 20, 1: 20, 2: 20}
    assert isinstance(ds.catalog, pl.DataFrame) and len(ds.catalog) == 60
    assert sorted(boxed.labels.tolist())[:5] == [-1] * 5
    assert sum(boxed.class_counts.values()) == 19


def test_one_size(tmp_path: Path) -> None:
    assert pack(PHOTOS, tmp_path / "ds", size=(12, 16)).image_size == (12, 16)


def test_one_size_of_a_view(ds: hr.Dataset) -> None:
    """What is true of the records that are left; how many channels and whether there are boxes is the dataset's."""
    view = ds.where("height = 34 AND width = 34")
    assert len(view) > 1 and view.image_size == (34, 34) and ds.where("height = 34").image_size is None
    loader = view.loader(batch_size=1)
    assert loader[0].images.shape == (1, 34, 34, 3)
    assert ds.where("1 = 0").image_size is None and ds.where("channels = 1").channels == 3
    state = loader.state_dict() | {"batch": 1}
    again = ds.where("height = 34 AND width = 34").loader(batch_size=1)
    again.load_state_dict(state)
    assert [batch.ids for batch in again] == [batch.ids for batch in loader][1:]


def test_grey(tmp_path: Path) -> None:
    ds = pack(photos(5, grey=range(10)), tmp_path / "ds")
    assert ds.channels == 1 and ds[0].image.shape[2] == 1


def test_no_classes(tmp_path: Path) -> None:
    ds = pack(shades(3, classes=()), tmp_path / "ds")
    assert ds.class_names == () and ds.class_counts == {} and ds.labels.tolist() == [-1] * 3
    assert ds[0].label is None and ds[0].label_name is None


def test_the_fingerprint_is_of_the_content(ds: hr.Dataset, tmp_path: Path) -> None:
    again = pack(PHOTOS, tmp_path / "again", shards=3, splits={"train": 0.7, "val": 0.3}, seed=5, workers=1)
    assert again.fingerprint == ds.fingerprint == hr.Dataset(ds.path).fingerprint == ds.split("val").fingerprint
    other = pack(PHOTOS[:-1], tmp_path / "other", shards=3, splits={"train": 0.7, "val": 0.3}, seed=5)
    assert other.fingerprint != ds.fingerprint


def test_the_view_fingerprint_is_of_its_records_in_their_order(ds: hr.Dataset) -> None:
    assert ds.split("val").view_fingerprint == ds.where("split = 'val'").view_fingerprint
    views = [ds, ds.split("val"), ds.split("train"), *ds.divide({"a": 0.5, "b": 0.5}), ds.where("1 = 0")]
    assert len({view.view_fingerprint for view in views}) == len(views)
    backwards = hr.Dataset(ds.path)
    backwards.selection = View(ds.store, ds.rows[::-1])
    assert backwards.view_fingerprint != ds.view_fingerprint


# --- views -----------------------------------------------------------------------------------------------------------


def test_split(ds: hr.Dataset) -> None:
    train, val = ds.split("train"), ds.split("val")
    assert (len(train), len(val)) == (42, 18)
    assert sorted(numbers(train) + numbers(val)) == list(range(60))
    assert {val[i].split for i in range(18)} == {"val"} and set(val.catalog["split"]) == {"val"}
    assert val.splits == {"val": 18} and val.class_counts == {"ant": 6, "bee": 6, "cow": 6}
    assert len(val.split("train")) == 0
    with pytest.raises(UsageError, match="no split 'test'; it has train, val"):
        ds.split("test")


def test_divide(ds: hr.Dataset) -> None:
    a, b, c = ds.divide({"a": 0.5, "b": 0.2, "c": 0.2}, seed=1)
    assert [len(view) for view in (a, b, c)] == [30, 12, 12]
    assert len({*numbers(a), *numbers(b), *numbers(c)}) == 54
    assert list(a.class_counts.values()) == [10, 10, 10] and list(b.class_counts.values()) == [4, 4, 4]
    assert numbers(ds.divide({"a": 0.5, "b": 0.2, "c": 0.2}, seed=1)[0]) == numbers(a)
    assert numbers(ds.divide({"a": 0.5, "b": 0.2, "c": 0.2}, seed=2)[0]) != numbers(a)
    (all_,) = ds.divide({"all": 1.0})
    assert numbers(all_) == numbers(ds)


def test_divide_a_view(ds: hr.Dataset) -> None:
    train = ds.split("train")
    parts = train.divide({"a": 1 / 3, "b": 2 / 3})
    assert sum(len(part) for part in parts) == 42 and abs(len(parts[0]) - 14) <= 1
    assert sorted(k for part in parts for k in numbers(part)) == sorted(numbers(train))


@pytest.mark.parametrize(
    ("fractions", "reason"),
    [
        ({"a": 0.7, "b": 0.4}, "the fractions sum to 1.1, wanted at most 1"),
        ({"a": 0.0}, "'a': fraction 0, wanted above 0"),
        ({"a": -1}, "'a': fraction -1"),
        ({"a": 1.5}, "'a': fraction 1.5"),
        ({"a": float("nan")}, "'a': fraction nan"),
    ],
)
def test_divide_by_what_can_not_be(ds: hr.Dataset, fractions: dict[str, float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ds.divide(fractions)


# (condition, what Python says of record k)
WHERE = [
    ("label_name = 'bee'", lambda k: k % 3 == 1),
    ("label_name = 'bee' AND width > 40", lambda k: k % 3 == 1 and 24 + 5 * (k % 7) > 40),
    ("height >= 34 OR format = 'png'", lambda k: 20 + 7 * (k % 5) >= 34 or k % 10 in (4, 5)),
    ("channels = 1", lambda k: k % 10 == 3),
    ("id LIKE 'dir/00%'", lambda k: k < 10),
    ("boxes IS NULL", lambda k: True),
    ("label IS NULL", lambda k: False),
]


@pytest.mark.parametrize(("condition", "wanted"), WHERE)
def test_where(ds: hr.Dataset, condition: str, wanted: object) -> None:
    assert numbers(ds.where(condition)) == [k for k in numbers(ds) if wanted(k)]  # type: ignore[operator]


def test_where_with_nulls(boxed: hr.Dataset) -> None:
    none, one = boxed.where("label IS NULL"), boxed.where("label <> 1")
    assert {k % 10 for k in numbers(none)} == {2, 6} and none[0].label is None
    assert all(k % 10 not in (2, 6) and k % 3 != 1 for k in numbers(one))
    assert len(one) + len(boxed.where("label = 1")) + len(none) == 24


def test_where_of_where(ds: hr.Dataset) -> None:
    both = ds.where("label_name = 'bee'").where("width > 40")
    assert numbers(both) == numbers(ds.where("label_name = 'bee' AND width > 40"))
    assert numbers(ds.where("width > 40").where("label_name = 'bee'")) == numbers(both)
    assert both[0].id == both.catalog["id"][0]
    (half, _) = ds.split("train").divide({"a": 0.5, "b": 0.5})
    assert set(numbers(half.where("height > 30"))) <= set(numbers(half))


def test_where_speaks_of_the_view(ds: hr.Dataset) -> None:
    small = ds.where("height < 30")
    assert numbers(small.where("height > AVG(height)")) == [k for k in numbers(small) if 20 + 7 * (k % 5) > 23.5]


def test_where_is_no_condition(ds: hr.Dataset) -> None:
    with pytest.raises(UsageError, match=r"where\('hight > 3'\): .*; the columns are id, split, shard"):
        ds.where("hight > 3")


def test_a_view_shares_files_and_catalog(ds: hr.Dataset) -> None:
    views = [ds.split("val"), ds.where("label = 1"), *ds.divide({"a": 0.5, "b": 0.5})]
    assert all(view.store is ds.store for view in views)
    _ = views[0][0], views[1][0]
    assert views[0].rows is not ds.rows
    assert all(view.path == ds.path and view.class_names == ds.class_names for view in views)


def test_views_do_not_change_their_origin(ds: hr.Dataset) -> None:
    before = numbers(ds)
    ds.where("label = 1").divide({"a": 0.5})
    assert numbers(ds) == before and "where" not in repr(ds)


def test_an_empty_view(ds: hr.Dataset) -> None:
    empty = ds.where("1 = 0")
    assert len(empty) == 0 and empty.splits == {} and empty.class_counts == dict.fromkeys(CLASSES, 0)
    assert len(empty.catalog) == 0 and len(empty.split("val")) == 0 and len(empty.where("label = 1")) == 0
    assert [len(part) for part in empty.divide({"a": 0.5, "b": 0.5})] == [0, 0]
    assert "0 records" in repr(empty) and "<img" not in empty._repr_html_()
    with pytest.raises(IndexError, match="record 0 of 0"):
        empty[0]


# --- for people ------------------------------------------------------------------------------------------------------


def test_repr(ds: hr.Dataset, boxed: hr.Dataset) -> None:
    wanted = f"Dataset({str(ds.path)!r}: 60 records; train 42, val 18; 3 classes: ant 20, bee 20, cow 20)"
    assert repr(ds) == wanted
    view = ds.split("val").where("label_name = 'bee'")
    assert " / split 'val' / where label_name = 'bee': 6 records; val 6; 3 classes: ant 0, bee 6, cow 0" in repr(view)
    assert repr(boxed).endswith("; 36 boxes)")


def test_a_record_in_a_notebook(ds: hr.Dataset, boxed: hr.Dataset) -> None:
    k, record = next(
        (one.attributes["k"], one)
        for one in boxed
        if one.label_name == "bee" and one.boxes is not None and len(one.boxes) == 1
    )
    assert repr(record) == (
        f"StoredRecord(id={record.id!r}, encoded=<jpeg, {len(record.read())} bytes>, label=1, "
        f"label_name='bee', boxes=<float32 [1, 4]>, box_labels=('left',), attributes={{'k': {k}}}, "
        f"split='train', origin={record.origin!r}, format='jpeg', height={record.height}, width={record.width}, "
        "channels=3)"
    )
    assert repr(hr.Record(id="a", encoded=b"\xff\xd8" + bytes(17_000))) == "Record(id='a', encoded=<jpeg, 17 kB>)"
    assert repr(hr.Record(id="a", path="b.jpg")) == "Record(id='a', path='b.jpg')"
    assert repr(hr.Record(id="a", encoded=b"GIF89a")) == "Record(id='a', encoded=<bytes, 6 bytes>)"
    many = hr.Record(id="a", box_labels=("x",) * 9, attributes={"text": "y" * 999, "of": np.zeros((2, 3))})
    assert "box_labels=('x', 'x', 'x', 'x', … 9 in all)" in repr(many) and "'of': <float64 [2, 3]>" in repr(many)
    assert len(repr(many)) < 250


def test_a_batch_in_a_notebook(ds: hr.Dataset, boxed: hr.Dataset) -> None:
    batch = ds.loader(batch_size=3, size=8)[0]
    ids = ", ".join(map(repr, batch.ids))
    assert repr(batch) == f"Batch(images=<uint8 [3, 8, 8, 3]>, targets=<int64 [3]>, ids=({ids}))"
    text = repr(boxed.loader(size=8)[0])
    assert "targets={'boxes': <float32 [24, 100, 4]>, 'labels': <int64 [24, 100]>, 'mask': <bool [24, 100]>}" in text
    assert text.endswith("… 24 in all))") and len(text) < 300


def test_repr_of_many_classes(tmp_path: Path) -> None:
    ds = pack(shades(30, classes=[f"c{i}" for i in range(30)]), tmp_path / "ds")
    assert "30 classes: c0 1, c1 1, c2 1, c3 1, c4 1, c5 1, c6 1, c7 1, …" in repr(ds)


class Page(HTMLParser):
    """Images, captions and tags left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[bytes] = []
        self.titles: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            head, data = (dict(attrs)["src"] or "").split(",", 1)
            assert head == "data:image/jpeg;base64"
            self.images.append(base64.b64decode(data, validate=True))
        elif tag != "br":
            self.open.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(("n", "shown"), [(60, 24), (5, 5), (1, 1), (0, 0)])
def test_notebook(ds: hr.Dataset, n: int, shown: int) -> None:
    view = hr.Dataset(ds.path)
    view.selection = View(view.store, view.rows[:n])
    page = Page(view._repr_html_())
    assert len(page.images) == shown and page.open == []
    for data in page.images:
        image = Image.open(io.BytesIO(data))
        image.load()
        assert max(image.size) == 160 and image.mode == "RGB"
    numbers = np.linspace(0, n - 1, shown).astype(int).tolist()
    assert page.titles == [f"{ds[i].label_name}\n{ds[i].id}" for i in numbers]
    assert repr(view) in page.text


def test_notebook_draws_boxes(tmp_path: Path) -> None:
    box = np.array([[20, 10, 60, 50]], np.float32)
    image = saved(np.full((80, 80, 3), 128, np.uint8), "PNG")
    names = ("a <b>",)
    ds = pack([hr.Record(id="a", encoded=image, boxes=box, box_labels=names)], tmp_path / "ds")
    page = Page(ds._repr_html_())
    assert page.titles == ["a <b> 1\na"]
    pixels = np.asarray(Image.open(io.BytesIO(page.images[0]))).astype(int)
    green = np.argwhere(pixels[..., 1] - pixels[..., 0] > 60)
    assert np.abs(green.min(axis=0) - (20, 40)).max() <= 1 and np.abs(green.max(axis=0) - (99, 119)).max() <= 1


def test_notebook_escapes(tmp_path: Path) -> None:
    name = "<b>&\"'"
    ds = pack([hr.Record(id="a", encoded=shades(1)[0].encoded, label_name=name)], tmp_path / "<i>")
    page = Page(ds._repr_html_())
    assert page.titles == [f"{name}\na"] and page.open == [] and "<i>" in page.text


def test_notebook_with_damage(ds: hr.Dataset, tmp_path: Path) -> None:
    folder = shutil.copytree(ds.path, tmp_path / "ds")
    broken = hr.Dataset(folder)
    path, number, offset, _ = shard_of(broken, 0)
    flip(path, offset + 50)
    (folder / broken.manifest.shards[-1].name).unlink()
    page = Page(broken._repr_html_())
    assert page.open == [] and len(page.images) == 24
    damaged = [title for title in page.titles if title.startswith("damaged: ")]
    assert damaged[0].startswith(f"damaged: {ds[0].id}\n") and f"{path.name}, record {number}" in damaged[0]
    assert any("no such file" in title for title in damaged)


# --- what is no dataset ----------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="nowhere: no such folder") as caught:
        hr.Dataset(tmp_path / "nowhere")
    assert isinstance(caught.value, FileNotFoundError)


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a packed dataset"):
        hr.Dataset(str(tmp_path))


def test_a_newer_format(ds: hr.Dataset, tmp_path: Path) -> None:
    folder = shutil.copytree(ds.path, tmp_path / "ds")
    rewrite_manifest(folder, format_version=manifest.FORMAT_VERSION + 1)
    with pytest.raises(UsageError, match="format 2, this headrace reads format 1"):
        hr.Dataset(folder)


def test_other_rows_than_promised(ds: hr.Dataset, tmp_path: Path) -> None:
    folder = shutil.copytree(ds.path, tmp_path / "ds")
    rewrite_manifest(folder, stored=59, seen=59)
    with pytest.raises(DamageError, match=r"headrace\.json: not a sound manifest .the number of records stored is 59"):
        hr.Dataset(folder)


def test_it_can_be_moved(ds: hr.Dataset, tmp_path: Path) -> None:
    moved = hr.Dataset(shutil.copytree(ds.path, tmp_path / "elsewhere"))
    assert moved.fingerprint == ds.fingerprint and moved[3].encoded == ds[3].encoded


def test_a_damaged_record_is_named(ds: hr.Dataset, tmp_path: Path) -> None:
    broken = hr.Dataset(shutil.copytree(ds.path, tmp_path / "ds"))
    path, number, offset, length = shard_of(broken, 50)
    flip(path, offset + 12 + length - 1)
    with pytest.raises(DamageError) as caught:
        broken[50]
    assert str(caught.value).startswith(f"{path}, record {number}, byte {offset + 12}: payload CRC is 0x")
    assert str(caught.value).endswith(f"run 'headrace verify {broken.path}'")
    assert broken[49].id == ds[49].id


def test_digests_tell_the_same_image_and_ids_a_name_from_a_position(tmp_path: Path) -> None:
    encoded = shades(4)
    named = pack(encoded, tmp_path / "named", shards=2)
    wanted = {record.id: hashlib.sha256(record.read()).hexdigest() for record in encoded}
    assert dict(zip(named.catalog["id"], named.store.digests(named.rows), strict=True)) == wanted
    assert not named.manifest.numbered
    assert named.store.digests(named.rows[[2, 0]]) == [wanted[named[2].id], wanted[named[0].id]]
    pixels = np.stack([record.image for record in named])  # type: ignore[attr-defined]
    assert pack(hr.sources.arrays(pixels), tmp_path / "positions").manifest.numbered
    assert not pack(hr.sources.arrays(pixels, ids=[*"abcd"]), tmp_path / "own").manifest.numbered


def test_what_somebody_else_packed_has_digests_of_the_bytes(tmp_path: Path) -> None:
    images = [record.read() for record in shades(3)]
    for with_ids in (True, False):
        ids = [{"image__id": f"photo {k}"} if with_ids else {} for k in range(3)]
        write(
            tmp_path / "shards.tfrecord",
            [payload(image__encoded=image, **id_) for image, id_ in zip(images, ids, strict=True)],
        )
        hr.adopt(tmp_path / "shards.tfrecord", tmp_path / "ds", progress=False, overwrite=True)
        ds = hr.Dataset(tmp_path / "ds")
        assert ds.store.digests(ds.rows) == [hashlib.sha256(image).hexdigest() for image in images]
        assert ds.manifest.numbered != with_ids
