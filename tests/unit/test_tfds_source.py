"""Source tfds: features by features.json, shards and splits by dataset_info.json, damage, what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from contained import (
    feature_boxes,
    feature_class,
    feature_image,
    feature_tensor,
    feature_text,
    features_dict,
    sequence,
    tfds_folder,
)
from drawn import exif, image, jpeg, saved
from headrace.errors import DataError, HeadraceError, NotThereError, UsageError
from headrace.format import tfrecord
from headrace.format.example import Feature, Floats, Ints, Strings
from headrace.record import Record, Reject, check_record
from headrace.sources import registry, tfds
from headrace.sources.info import SourceInfo, collect
from mutated import mutated

A, B = jpeg(40, 56, seed=0), jpeg(40, 56, seed=1, quality=100)
BASE = {"image": feature_image(), "label": feature_class(2)}
SHARD = "mydata-train.tfrecord-00000-of-00001"


def read(path: Path, **options: Any) -> tuple[list[Any], SourceInfo]:
    return collect(tfds(path, **options))


def one(
    tmp_path: Path, features: Mapping[str, Any], record: Mapping[str, Feature], names: Any = None, **options: Any
) -> Any:
    """What comes of one record with an image and these."""
    said = features_dict(image=feature_image(), **features)
    tfds_folder(tmp_path, said, {"train": [[{"image": Strings([A]), **record}]]}, names=names)
    [item] = read(tmp_path, **options)[0]
    assert isinstance(item, Reject) or check_record(item) is None
    return item


# --- features --------------------------------------------------------------------------------------------------------

LABEL = {"label": feature_class(2)}
NAMES = {"label": ["cat", "dog"]}

# What features.json declares, the record, files of names, and what must come out.
FEATURES: dict[str, tuple[dict[str, Any], dict[str, Feature], Any, dict[str, Any]]] = {
    "a class": (LABEL, {"label": Ints([1])}, NAMES, {"label_name": "dog"}),
    "a class without names": (LABEL, {"label": Ints([1])}, None, {"label": 1, "label_name": None}),
    "no class, as TFDS says it": (LABEL, {"label": Ints([-1])}, NAMES, {"label_name": None, "label": None}),
    "a class that is missing": (LABEL, {}, NAMES, {"label_name": None}),
    "several classes": (
        {"labels": sequence(feature_class(2))},
        {"labels": Ints([1, 0, 1])},
        {"labels": ["cat", "dog"]},
        {"labels": ("dog", "cat")},
    ),
    "none of several": ({"labels": sequence(feature_class(2))}, {}, None, {"labels": ()}),
    "the only ClassLabel": ({"kind": feature_class(2)}, {"kind": Ints([0])}, {"kind": ["a", "b"]}, {"label_name": "a"}),
    "another one is an attribute": (
        LABEL | {"kind": feature_class(2)},
        {"label": Ints([0]), "kind": Ints([1])},
        NAMES | {"kind": ["a", "b"]},
        {"label_name": "cat", "attributes": {"kind": "b"}},
    ),
    "an id by a name": (
        {"image/filename": feature_text()},
        {"image/filename": Strings([b"d/a.jpg"])},
        None,
        {"id": "d/a.jpg"},
    ),
    "an id by a number": ({"id": feature_tensor(dtype="int64")}, {"id": Ints([7])}, None, {"id": "7"}),
    "an id by its place": ({"text": feature_text()}, {}, None, {"id": f"{SHARD}__0"}),
    "an id that leads out": ({"id": feature_text()}, {"id": Strings([b"../a"])}, None, {"id": f"{SHARD}__0"}),
    "nested": (
        {"meta": features_dict(label=feature_class(2), n=feature_tensor(dtype="int64"))},
        {"meta/label": Ints([1]), "meta/n": Ints([3])},
        {"meta-label": ["cat", "dog"]},
        {"label_name": "dog", "attributes": {"meta/n": 3}},
    ),
    # As our own datasets are declared: names with slashes, flat.
    "a slash in a name": (
        {"image/class/label": feature_class(2)},
        {"image/class/label": Ints([1])},
        {"image.class.label": ["cat", "dog"]},
        {"label_name": "dog"},
    ),
    "texts": (
        {"caption": feature_text(), "captions": sequence(feature_text()), "note": feature_text()},
        {"caption": Strings([b"a"]), "captions": Strings([b"b", b"c"]), "note": Strings([b"n"])},
        None,
        {"captions": ("a", "b", "c"), "attributes": {"note": "n"}},
    ),
    "tensors": (
        {
            "x": feature_tensor(),
            "v": feature_tensor(2, 2, dtype="int64"),
            "b": feature_tensor(dtype="bool"),
            "s": sequence(feature_tensor(dtype="int64")),
        },
        {"x": Floats([0.5]), "v": Ints([1, 2, 3, 4]), "b": Ints([1]), "s": Ints([5, 6])},
        None,
        {"attributes": {"x": 0.5, "v": [[1, 2], [3, 4]], "b": True, "s": [5, 6]}},
    ),
    "no finite number": ({"x": feature_tensor()}, {"x": Floats([float("nan")])}, None, {"attributes": {}}),
    "a box alone": ({"bbox": feature_boxes()}, {"bbox": Floats([0.5, 0.25, 1, 1])}, None, {"box_labels": None}),
}


@pytest.mark.parametrize("name", FEATURES)
def test_features(name: str, tmp_path: Path) -> None:
    features, record, names, wanted = FEATURES[name]
    item = one(tmp_path, features, record, names)
    assert isinstance(item, Record) and item.read() == A and item.origin == f"{SHARD}:0"
    for field, value in wanted.items():
        assert getattr(item, field) == value, field


OBJECTS = {
    "objects": sequence(
        features_dict(
            bbox=feature_boxes(),
            label=feature_class(2),
            is_difficult=feature_tensor(dtype="bool"),
            pose=feature_text(),
            points=feature_tensor(2, 2),
        )
    )
}


def objects(*boxes: list[float], labels: list[int] | None = None) -> dict[str, Feature]:
    n = len(boxes)
    return {
        "objects/bbox": Floats(number for box in boxes for number in box),
        "objects/label": Ints(labels if labels is not None else [0] * n),
        "objects/is_difficult": Ints([1] * n),
        "objects/pose": Strings([b"left"] * n),
        "objects/points": Floats([0.5] * 4 * n),
    }


def test_objects(tmp_path: Path) -> None:
    record = objects([0.5, 0.25, 1, 1], [0, 0, 0.1, 0.1], labels=[1, 0])
    item = one(tmp_path, OBJECTS, record, {"objects-label": ["x", "y"]})
    assert item.boxes.dtype == np.float32 and np.allclose(item.boxes, [[14, 20, 56, 40], [0, 0, 5.6, 4]], atol=1e-5)
    assert item.box_labels == ("y", "x") and item.size == (40, 56) and not item.upright
    points = [[0.5, 0.5], [0.5, 0.5]]
    assert item.attributes == {"difficult": [1, 1], "pose": ["left"] * 2, "points": [points] * 2}
    item = one(tmp_path, OBJECTS, {})
    assert item.boxes.shape == (0, 4) and item.box_labels == ()
    item = one(tmp_path, OBJECTS, objects([0, 0, 1, 1], labels=[-1]))
    assert item.box_labels is None


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        (None, [0.5, 0.25, 1, 0.75]),
        ("REL_YXYX", [0.5, 0.25, 1, 0.75]),
        ("REL_XYXY", [0.25, 0.5, 0.75, 1]),
        ("REL_XYWH", [0.25, 0.5, 0.5, 0.5]),
        ("ABS_YXYX", [20, 14, 40, 42]),
        ("ABS_XYXY", [14, 20, 42, 40]),
        ("ABS_XYWH", [14, 20, 28, 20]),
    ],
)
def test_orders_of_boxes(order: str | None, numbers: list[float], tmp_path: Path) -> None:
    item = one(tmp_path, {"bbox": sequence(feature_boxes(order))}, {"bbox": Floats(numbers)})
    assert item.boxes.tolist() == [[14, 20, 42, 40]]


def test_boxes_are_of_the_image_as_stored(tmp_path: Path) -> None:
    """TensorFlow's decoder doesn't turn by EXIF, and shares of its image are what TFDS writes."""
    turned = saved(image(40, 56), "JPEG", exif=exif(6))
    said = features_dict(image=feature_image(), bbox=sequence(feature_boxes()))
    tfds_folder(tmp_path, said, {"train": [[{"image": Strings([turned]), "bbox": Floats([0, 0, 0.5, 0.5])}]]})
    [item] = read(tmp_path)[0]
    assert item.boxes.tolist() == [[0, 0, 28, 20]] and item.size == (40, 56) and not item.upright


@pytest.mark.parametrize(
    ("features", "record", "reason"),
    [
        (LABEL, {"label": Ints([2])}, "label is 2, wanted the number of a class, and there are 2"),
        (LABEL, {"label": Ints([0, 1])}, "label has 2 values, wanted those of one ClassLabel"),
        (LABEL, {"label": Floats([0.5])}, "label is 0.5, wanted the number of a class"),
        (OBJECTS, objects([0, 0, 1]), "objects/bbox has 3 numbers, wanted four finite ones of each box"),
        (OBJECTS, objects([0, 0, 1, float("inf")]), "wanted four finite ones"),
        (OBJECTS, objects([0, 0, 1, 1], labels=[0, 1]), "objects/label has 2 values, wanted 1 each of 1"),
        (OBJECTS, objects([0, 0, 1, 1], [0, 0, 1, 1], labels=[0, -1]), "object 1 has no class, and others have"),
        ({"n": feature_text()}, {"n": Strings([b"\xff"])}, r"the text b'\xff' is no UTF-8"),
        ({"v": feature_tensor(2)}, {"v": Floats([1, 2, 3])}, "v has 3 values, wanted 2 each"),
        ({}, {"image": Strings([])}, "image has no image"),
        ({}, {"image": Ints([1])}, "image has no image"),
        (OBJECTS, {"image": Strings([b"no image"]), **objects([0, 0, 1, 1])}, ""),
    ],
)
def test_records_that_make_no_sense(
    features: dict[str, Any], record: dict[str, Feature], reason: str, tmp_path: Path
) -> None:
    item = one(tmp_path, features, record, NAMES)
    assert isinstance(item, Reject) and reason in item.reason and item.origin == f"{SHARD}:0"


def test_features_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    said = features_dict(
        **BASE,
        mask=feature_image(),
        ragged=sequence(sequence(feature_tensor())),
        any=feature_tensor(-1, 3),
        sound={"pythonClassName": "tensorflow_datasets.core.features.audio_feature.Audio", "audio": {}},
    )
    record = {"image": Strings([A]), "label": Ints([0]), "mask": Strings([B])}
    tfds_folder(tmp_path, said, {"train": [[record] * 3]})
    items, info = read(tmp_path)
    assert len(items) == 3
    assert info.skipped == {
        f"feature {kind}": 3 for kind in ("mask (Image)", "ragged (Tensor)", "any (Tensor)", "sound (Audio)")
    }


def test_features_that_must_be_named(tmp_path: Path) -> None:
    said = features_dict(a=feature_image(), b=feature_image(), fine=feature_class(2), coarse=feature_class(2))
    record = {"a": Strings([A]), "b": Strings([B]), "fine": Ints([0]), "coarse": Ints([1])}
    tfds_folder(tmp_path, said, {"train": [[record]]}, names={"fine": ["f", "g"], "coarse": ["c", "d"]})
    with pytest.raises(UsageError, match="several features are images, a, b; pass image=NAME"):
        tfds(tmp_path)
    with pytest.raises(UsageError, match="several features are classes, fine, coarse; pass label=NAME"):
        tfds(tmp_path, image="b")
    items, info = read(tmp_path, image="b", label="coarse")
    assert items[0].read() == B and items[0].label_name == "d" and items[0].attributes == {"fine": "f"}
    assert info.class_names == ("c", "d") and info.skipped == {"feature a (Image)": 1}
    with pytest.raises(UsageError, match="image='fine' is no Image"):
        tfds(tmp_path, image="fine")
    with pytest.raises(UsageError, match="no ClassLabel or number 'a'"):
        tfds(tmp_path, image="a", label="a")
    keys = {"supervisedKeys": {"input": "b", "output": "fine"}}
    tfds_folder(tmp_path, said, {"train": [[record]]}, info=keys)
    assert read(tmp_path)[0][0].label_name == "f" and read(tmp_path)[0][0].read() == B


def test_a_value(tmp_path: Path) -> None:
    said = features_dict(image=feature_image(), age=feature_tensor(), kind=feature_class(2))
    record = {"image": Strings([A]), "age": Floats([31.5]), "kind": Ints([1])}
    tfds_folder(tmp_path, said, {"train": [[record]]}, info={"supervisedKeys": {"input": "image", "output": "age"}})
    [item] = read(tmp_path)[0]
    assert item.value == 31.5 and item.label is None and item.attributes == {"kind": "1"}


# --- shards and splits -----------------------------------------------------------------------------------------------


def numbered(n: int, first: int = 0) -> list[dict[str, Feature]]:
    return [{"image": Strings([jpeg(seed=first + i)]), "label": Ints([i % 2])} for i in range(n)]


def test_splits_and_shards(tmp_path: Path) -> None:
    splits = {"train": [numbered(3), numbered(2, 3)], "validation": [numbered(1, 5)], "test": [[]]}
    folder = tfds_folder(tmp_path / "mydata" / "1.0.0", features_dict(**BASE), splits, names=NAMES)
    for path in (folder, tmp_path / "mydata"):
        assert registry.guess(path)[0].name == "tfds"
        items, info = read(path)
        assert [item.split for item in items] == ["train"] * 5 + ["val"]
        assert [item.read() for item in items] == [jpeg(seed=i) for i in range(6)]
        assert info.split_names == ("train", "val", "test") and info.class_names == ("cat", "dog")
        assert info.notes == ("splits called otherwise here: validation (val)",)
    report = hr.pack({"a": tfds(folder)}, tmp_path / "out")
    assert report.stored == 6 and report.classes == ("cat", "dog")
    tfds_folder(tmp_path / "mydata" / "2.0.0", features_dict(**BASE), splits)
    with pytest.raises(UsageError, match=r"holds several, 1\.0\.0, 2\.0\.0; pass one of them"):
        tfds(tmp_path / "mydata")
    (tmp_path / "none").mkdir()
    with pytest.raises(NotThereError, match=r"dataset_info\.json: no such file"):
        tfds(tmp_path / "none")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{SPLIT}-{SHARD_X_OF_Y}", "train-00000-of-00001"),
        ("{SPLIT}-{SHARD_X_OF_Y}.tfrecords", "train-00000-of-00001.tfrecords"),
        ("{DATASET}-{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}", "mydata-train-00000-of-00001.tfrecord"),
        ("{SPLIT}/{SHARD_INDEX}.{FILEFORMAT}", "train/00000.tfrecord"),
        ("{SPLIT}-{NUM_SHARDS}", "train-00001"),
    ],
)
@pytest.mark.parametrize("key", ["filepathTemplate", "filepath_template"])
def test_names_of_shards(key: str, template: str, name: str, tmp_path: Path) -> None:
    tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(2)]})
    said = json.loads((tmp_path / "dataset_info.json").read_text())
    lengths = "shardLengths" if key == "filepathTemplate" else "shard_lengths"
    said["splits"] = [{"name": "train", key: template, lengths: [2]}]
    (tmp_path / "dataset_info.json").write_text(json.dumps(said))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / SHARD).rename(tmp_path / name)
    assert [item.origin for item in read(tmp_path)[0]] == [f"{name}:0", f"{name}:1"]


@pytest.mark.parametrize("template", ["../{SPLIT}", "/etc/passwd", "a\0b", "link"])
def test_no_shard_outside_is_opened(template: str, tmp_path: Path) -> None:
    folder = tfds_folder(tmp_path / "in", features_dict(**BASE), {"train": [numbered(2)]})
    (folder / SHARD).rename(tmp_path / "train")
    (folder / "link").symlink_to(tmp_path / "train")
    said = json.loads((folder / "dataset_info.json").read_text())
    said["splits"][0]["filepathTemplate"] = template
    (folder / "dataset_info.json").write_text(json.dumps(said))
    items, _ = read(folder)
    assert len(items) == 2 and all(isinstance(item, Reject) for item in items)  # each that is lost is counted


def change(folder: Path, **info: Any) -> None:
    said = json.loads((folder / "dataset_info.json").read_text()) | info
    (folder / "dataset_info.json").write_text(json.dumps(said))


@pytest.mark.parametrize("kind", ["array_record", "riegeli", "parquet"])
def test_other_files(kind: str, tmp_path: Path) -> None:
    change(tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(1)]}), fileFormat=kind)
    with pytest.raises(UsageError, match=f"its shards are {kind}, wanted tfrecord"):
        tfds(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("dataset_info.json", "{", "no dataset of TFDS that can be read"),
        ("dataset_info.json", "[]", "it names no dataset"),
        ("dataset_info.json", '{"name": "x", "splits": 3}', "its splits are 3"),
        ("dataset_info.json", '{"name": "x"}', "says no split with shards"),
        (
            "dataset_info.json",
            '{"name": "x", "splits": [{"name": "a", "shardLengths": ["x"]}]}',
            "shard 0 has 'x' records",
        ),
        (
            "dataset_info.json",
            '{"name": "x", "splits": [{"name": "a", "shardLengths": ["-1"]}]}',
            "shard 0 has '-1' records",
        ),
        ("features.json", "{}", "no feature is an Image"),
        ("features.json", "[" * 100_000, "no dataset of TFDS that can be read"),
        ("features.json", '{"pythonClassName": "x.FeaturesDict"}', "it describes no features"),
        ("label.labels.txt", "cat\ncat\n", "one occurs twice"),
    ],
)
def test_files_that_make_no_sense(name: str, text: str, reason: str, tmp_path: Path) -> None:
    tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(1)]}, names=NAMES)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=reason) as told:
        tfds(tmp_path)
    assert str(tmp_path) in str(told.value)


# --- damage ----------------------------------------------------------------------------------------------------------


def test_damaged_records(tmp_path: Path) -> None:
    tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(5)]})
    data = bytearray((tmp_path / SHARD).read_bytes())
    offsets = [offset for offset, _ in tfrecord.scan(bytes(data))]
    data[offsets[1] + 200] ^= 1  # a payload
    data[offsets[3]] ^= 1  # a length
    (tmp_path / SHARD).write_bytes(bytes(data))
    items, _ = read(tmp_path)
    assert [type(item) for item in items] == [Record, Reject, Record, Reject, Record]
    assert "payload CRC" in items[1].reason and f"byte {offsets[3]}: length CRC" in items[3].reason
    assert items[4].read() == jpeg(seed=4)


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(4), numbered(3)]})
    first, second = sorted(tmp_path.glob("mydata-*"))
    data = first.read_bytes()
    offsets = [offset for offset, _ in tfrecord.scan(data)]
    first.write_bytes(data[: offsets[2]])  # TensorFlow reads two records of it and says nothing
    second.unlink()
    items, _ = read(tmp_path)
    assert [type(item) for item in items] == [Record] * 2 + [Reject] * 5
    assert items[2].reason == "the shard ends, and dataset_info.json says it has 4 records"
    assert [item.id for item in items[4:]] == [f"{second.name}__{i}" for i in range(3)]
    assert "no such file" in items[4].reason
    change(tmp_path, splits=[{"name": "train", "shardLengths": ["9" * 18]}])
    with pytest.raises(DataError, match="records are missing"):
        read(tmp_path)


def test_more_than_is_said(tmp_path: Path) -> None:
    folder = tfds_folder(tmp_path, features_dict(**BASE), {"train": [numbered(4)]})
    change(folder, splits=[{"name": "train", "shardLengths": ["3"]}])
    items, info = read(tmp_path)
    assert len(items) == 4 and info.notes == (f"{SHARD} has 4 records, dataset_info.json says 3",)


def test_small_and_large_images_lie_in_the_shard(tmp_path: Path) -> None:
    """Small ones are found in the message, large ones are cut out of it unparsed."""
    large = saved(image(300, 400), "PNG")
    assert len(A) < 4096 < len(large)
    records: list[dict[str, Feature]] = [{"image": Strings([one]), "label": Ints([0])} for one in (A, large)]
    tfds_folder(tmp_path, features_dict(**BASE), {"train": [records]})
    items, _ = read(tmp_path)
    assert [item.read() for item in items] == [A, large]
    assert all(item.encoded is None and item.part.path == str(tmp_path / SHARD) for item in items)


@pytest.mark.parametrize("name", [SHARD, "dataset_info.json", "features.json", "objects-label.labels.txt"])
def test_mutated_files(name: str, tmp_path: Path) -> None:
    """200 damaged copies in all of each file: each ends, and no file outside is opened."""
    said = features_dict(**BASE, **OBJECTS)
    records = [record | objects([0, 0, 0.5, 1]) for record in numbered(3)]
    tfds_folder(tmp_path, said, {"train": [records]}, names=NAMES | {"objects-label": ["x", "y"]})
    whole = (tmp_path / name).read_bytes()
    kept = 0
    for seed in range(200):
        (tmp_path / name).write_bytes(mutated(whole, seed))
        try:
            items, _ = read(tmp_path)
        except HeadraceError:
            continue
        for item in items:
            if isinstance(item, Record):
                kept += 1
                assert item.part is not None and Path(item.part.path).parent == tmp_path
                assert item.read()
                check_record(item)
    assert kept > 50
