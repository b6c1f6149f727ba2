"""TFDS opens the folder without any code of ours: images, names, splits, unlabelled records and objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from packed import CLASSES, Source, faces, pack, photos, pixels_of, shades

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

PHOTOS = photos(40, grey=(3,), png=(4, 5), unlabelled=(6,))


def builder(ds: hr.Dataset) -> Any:
    return tfds.builder_from_directory(str(ds.path))


def rows(ds: hr.Dataset, split: str = "all", **options: Any) -> list[Any]:
    return list(tfds.as_numpy(builder(ds).as_dataset(split=split, **options)))


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    out = tmp_path_factory.mktemp("tfds") / "Cats & dogs"
    return pack(PHOTOS, out, shards=3, splits={"train": 0.7, "val": 0.3})


def test_what_it_says_of_the_dataset(ds: hr.Dataset) -> None:
    info = builder(ds).info
    assert info.name == "cats_dogs" and str(info.version) == "1.0.0"
    assert {name: split.num_examples for name, split in info.splits.items()} == ds.splits == {"train": 28, "val": 12}
    assert info.features["image/class/label"].names == list(CLASSES)
    assert info.features["image/class/label"].num_classes == 3
    assert info.supervised_keys == ("image/encoded", "image/class/label")
    assert info.splits["train"].num_shards == 3
    sizes = sum(path.stat().st_size for path in ds.path.glob("train-*.tfrecord"))
    assert info.splits["train"].num_bytes == sizes


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_image_of_a_split(ds: hr.Dataset, split: str) -> None:
    found = {row["image/filename"].decode(): row for row in rows(ds, split)}
    assert set(found) == set(ds.split(split).catalog["id"]) and len(found) == len(rows(ds, split))
    for record in PHOTOS:
        if record.id in found:
            row, pixels = found[record.id], pixels_of(record)
            wanted = np.repeat(pixels, 3 // pixels.shape[2], axis=2)  # grey becomes three channels among colours
            assert row["image/encoded"].shape == wanted.shape and row["image/encoded"].dtype == np.uint8
            assert np.abs(row["image/encoded"].astype(int) - wanted).max() <= 3
            label = -1 if record.label_name is None else CLASSES.index(record.label_name)
            assert row["image/class/label"] == label


def test_as_supervised(ds: hr.Dataset) -> None:
    pairs = rows(ds, as_supervised=True)
    assert len(pairs) == 40 and sorted(label for _, label in pairs) == sorted(ds.labels.tolist())
    assert all(image.ndim == 3 for image, _ in pairs)


def test_slices(ds: hr.Dataset) -> None:
    assert len(rows(ds, "train[:25%]+val")) == 7 + 12


def test_shard_after_shard_is_our_order(ds: hr.Dataset) -> None:
    read = tfds.ReadConfig(interleave_cycle_length=1)
    found = [row["image/filename"].decode() for row in rows(ds, "train", read_config=read)]
    assert found == ds.split("train").catalog["id"].to_list()


def test_grey(tmp_path: Path) -> None:
    ds = pack(photos(5, grey=range(10)), tmp_path / "grey")
    found = rows(ds)
    assert builder(ds).info.features["image/encoded"].shape == (None, None, 1)
    assert len(found) == 5 and all(row["image/encoded"].shape[2] == 1 for row in found)


def test_no_labels(tmp_path: Path) -> None:
    ds = pack(shades(4, classes=()), tmp_path / "none")
    found = rows(ds)
    assert len(found) == 4 and set(found[0]) == {"image/encoded", "image/filename"}
    assert builder(ds).info.supervised_keys is None


@pytest.mark.parametrize("name", ["Übung", "2 of 3", "a.b", "…"])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    assert len(rows(pack(shades(2), tmp_path / name))) == 2


def test_class_names_of_all_kinds(tmp_path: Path) -> None:
    names = ["a b", "ä/ö", "c:d", "'", "10", "9"]
    ds = pack(shades(12, classes=names), tmp_path / "ds")
    label = builder(ds).info.features["image/class/label"]
    assert label.names == list(ds.class_names) and set(label.names) == set(names)
    found = {row["image/filename"].decode(): label.int2str(row["image/class/label"]) for row in rows(ds)}
    assert found == {record.id: record.label_name for record in shades(12, classes=names)}


def test_objects(tmp_path: Path) -> None:
    """A picture of three objects, of one, of none."""
    records = photos(12, boxes=True)
    ds = pack(records, tmp_path / "boxed", shards=2)
    assert builder(ds).info.features["objects"]["label"].names == ["left", "right"]
    found = {row["image/filename"].decode(): row for row in rows(ds)}
    assert len(found) == 12
    for record in records:
        objects = found[record.id]["objects"]
        assert record.boxes is not None and record.box_labels is not None
        height, width = pixels_of(record).shape[:2]
        x0, y0, x1, y1 = np.minimum(record.boxes, [width, height] * 2).T / np.array([[width], [height]] * 2)
        assert objects["bbox"].shape == (len(record.boxes), 4)
        assert np.allclose(objects["bbox"], np.stack([y0, x0, y1, x1], axis=1), atol=1e-6)
        assert [("left", "right")[label] for label in objects["label"]] == list(record.box_labels)


@pytest.mark.parametrize("boxes", [True, False])
def test_keypoints(tmp_path: Path, boxes: bool) -> None:
    """Two faces, one, none, and pictures of which nothing is said; with boxes and without."""
    records = faces(16, boxes=boxes)
    found = {row["image/filename"].decode(): row for row in rows(pack(Source(records), tmp_path / "ds", shards=2))}
    assert len(found) == 16 and sum(record.keypoints is None for record in records) == 2
    for record in records:
        objects = found[record.id]["objects"]
        assert set(objects) == ({"bbox", "label", "keypoints"} if boxes else {"keypoints"})
        n = len(record.boxes) if record.boxes is not None else len(() if record.keypoints is None else record.keypoints)
        wanted = np.zeros((n, 3, 3), np.float32) if record.keypoints is None else record.keypoints
        assert objects["keypoints"].shape == (n, 3, 3) and np.array_equal(objects["keypoints"], wanted)
        assert {len(values) for values in objects.values()} == {n}


def test_keypoints_of_records_with_and_without_boxes(tmp_path: Path) -> None:
    """All lists of a record are equally long; TFDS itself would not mind."""
    records = faces(6)[:3] + faces(6, boxes=False)[3:]
    for row in rows(pack(Source(records), tmp_path / "ds")):
        record = next(record for record in records if record.id == row["image/filename"].decode())
        assert record.keypoints is not None
        assert {len(values) for values in row["objects"].values()} == {len(record.keypoints)}
        if record.boxes is None:
            assert not row["objects"]["bbox"].any() and set(row["objects"]["label"]) <= {-1}


def test_tfds_load_by_name(tmp_path: Path) -> None:
    pack(shades(6), tmp_path / "mine" / "1.0.0", splits={"train": 0.5, "test": 0.5})
    assert len(list(tfds.load("mine", data_dir=str(tmp_path), split="test"))) == 3


def test_real_photos(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "catsdogs"
    source = hr.sources.names(real_data / "catsdogs" / "train", pattern=r"^(?P<label>cat|dog)\.")
    report = hr.pack(
        source, out, size=160, fit="crop", shards=16, splits={"train": 0.81, "val": 0.19}, seed=42, progress=False
    )
    ds = hr.Dataset(out)
    assert (report.seen, report.stored, len(report.rejects)) == (800, 800, 0) and ds.verify().ok
    info = builder(ds).info
    assert sum(split.num_examples for split in info.splits.values()) == 800
    assert info.features["image/class/label"].names == ["cat", "dog"]
    labels = [row["image/class/label"] for row in rows(ds)]
    assert len(labels) == 800 and np.bincount(labels).tolist() == list(ds.class_counts.values())


def test_several_classes_and_a_value(tmp_path: Path) -> None:
    """A list of classes is a Sequence of class labels, a value a number; who lacks them has none and NaN."""
    labels = [("cat", "dog"), (), ("dog",), None]
    some = [
        hr.Record(id=str(k), encoded=PHOTOS[k].encoded, labels=of, value=None if k == 3 else k / 2)
        for k, of in enumerate(labels)
    ]
    ds = pack(some, tmp_path / "several")
    info = builder(ds).info
    assert info.features["image/class/label"].feature.names == ["cat", "dog"]
    found = {row["image/filename"].decode(): row for row in rows(ds)}
    for k, of in enumerate(labels):
        names = [ds.class_names[i] for i in found[str(k)]["image/class/label"]]
        assert tuple(names) == (of or ())
    assert [float(found[str(k)]["image/value"]) for k in range(3)] == [0, 0.5, 1]
    assert np.isnan(found["3"]["image/value"])
    assert info.supervised_keys == ("image/encoded", "image/class/label")
    valued = pack([hr.Record(id="a", encoded=PHOTOS[0].encoded, value=3)], tmp_path / "valued")
    ((_, value),) = rows(valued, as_supervised=True)
    assert float(value) == 3


def test_what_was_edited_and_compacted(tmp_path: Path) -> None:
    """Before, TFDS reads version 1, whatever was edited; the compacted folder says it all."""
    ds = pack(PHOTOS, tmp_path / "cats", shards=3, splits={"train": 0.7, "val": 0.3})
    moved = ds.split("train").catalog["id"].to_list()[0]
    with hr.edit(ds.path, why="as it should be") as e:
        e.relabel("dog", ids=[moved])
        e.move("val", ids=[moved])
        e.drop(ids=ds.split("val").catalog["id"].to_list()[:2])
        e.append([hr.Record(id="new", encoded=PHOTOS[0].encoded, label_name="emu")])
    assert {row["image/filename"].decode() for row in rows(ds)} == {*ds.catalog["id"]}
    hr.compact(ds.path, tmp_path / "packed", progress=False)
    now, made = hr.Dataset(ds.path), hr.Dataset(tmp_path / "packed")
    assert builder(made).info.features["image/class/label"].names == [*CLASSES, "dog", "emu"]
    for split in ("train", "val"):
        found = {row["image/filename"].decode(): row["image/class/label"] for row in rows(made, split)}
        wanted = now.split(split)
        assert found == dict(zip(wanted.catalog["id"], wanted.labels, strict=True)) and len(found) == len(wanted)
