"""Exports: what is written where, what is said to be lost, and what is never replaced or left behind."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import yaml

import headrace as hr
from command import headrace
from drawn import picture, saved
from headrace.errors import DamageError, UsageError
from headrace.exporting import export, parquet, webdataset
from headrace.exporting.registry import FORMATS
from headrace.record import Mask
from headrace.sources.info import collect
from headrace.sources.registry import find_format
from packed import FACE, Source, faces, flip, pack, photos, shard_of

BOX = np.array([[0, 1, 10, 20.5]], np.float32)


def png(seed: int = 0, *, height: int = 30, width: int = 40) -> bytes:
    return saved(picture(height, width, seed=seed), "PNG")


def boxed(id_: str, **more: Any) -> hr.Record:
    return hr.Record(id=id_, **{"encoded": png(), "boxes": BOX, "box_labels": ("cat",)} | more)


def written(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all files, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Photos with labels and boxes, in two splits."""
    some = photos(24, boxes=True, png=(3,), unlabelled=(5,))
    return pack(some, tmp_path_factory.mktemp("export") / "ds", splits={"train": 0.75, "val": 0.25})


# --- every format ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_the_number_of_workers_changes_nothing(ds: hr.Dataset, format: str, tmp_path: Path) -> None:
    found = [ds.export(tmp_path / str(n), format=format, workers=n, progress=False) for n in (1, 5)]
    one, other = written(tmp_path / "1"), written(tmp_path / "5")
    assert one == other
    for report in found:
        assert report.records == len(ds) and report.format == format and report.files == len(one)
        assert report.bytes == sum(path.stat().st_size for path in report.path.rglob("*") if path.is_file())
    assert inside(tmp_path) == ["1", "5"]


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"webdataset", "parquet"}))
def test_images_are_taken_over_byte_by_byte(ds: hr.Dataset, format: str, tmp_path: Path) -> None:
    ds.export(tmp_path / "out", format=format, progress=False)
    files = written(tmp_path / "out").values()
    assert all(hashlib.sha256(record.read()).hexdigest() in files for record in ds)


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_ids_lead_nowhere(format: str, tmp_path: Path) -> None:
    ids = [
        *("<script>alert(1)</script>", "../../x", "/x", r"C:\x", r"..\..\x", "con.jpg", "NUL", "x" * 300, "a/../../x"),
        *("\x1b[31mred\x07", "a\nb", "a\rb\u2028c", "~", "-rf", ".hidden", "a.png/b.png", "a.png", "A.png", "x?*|"),
        *("train/x", "images/train/images/x", "annotations.csv/x", "metadata.jsonl/x", "é", "e\u0301", " ", "."),
    ]
    records = [boxed(id_, label_name="cat" if i % 2 else "../cat") for i, id_ in enumerate(ids)]
    records[3:5] = [hr.Record(id=record.id, encoded=record.encoded) for record in records[3:5]]
    root = tmp_path / "root"
    found = pack(records, root / "ds")
    assert len(found) == len(ids)
    report = found.export(root / "below" / "out", format=format, progress=False)
    assert inside(root) == ["below", "ds"] and inside(tmp_path) == ["root"]
    assert inside(root / "below") == ["out"]
    names = [json.loads(line) for line in (report.path / export.NAMES_FILE).read_text().splitlines()]
    assert report.renamed == len(names) > 10
    assert {entry["id"] for entry in names} <= set(ids)
    assert len({entry["name"].casefold() for entry in names}) == len(names)
    for path in report.path.rglob("*"):
        assert not path.is_symlink() and path.resolve().is_relative_to(report.path.resolve())
        assert not re.search(r'[<>:"\\|?*\x00-\x1f\x7f]', path.name)
    if format == "webdataset":
        with tarfile.open(report.path / "train-000000.tar") as tar:
            assert all(not re.search(r"(^|/)\.\.?(/|$)|^/", name) for name in tar.getnames())


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_record_leaves_nothing(format: str, tmp_path: Path) -> None:
    found = pack(photos(12, boxes=True), tmp_path / "ds")
    path, _, offset, length = shard_of(found, 7)
    flip(path, offset + 12 + length // 2)
    with pytest.raises(DamageError, match="CRC"):
        hr.Dataset(tmp_path / "ds").export(tmp_path / "out", format=format, progress=False)
    assert inside(tmp_path) == ["ds"]


def test_a_view_is_what_is_written(ds: hr.Dataset, tmp_path: Path) -> None:
    view = ds.split("val").where("label_name = 'ant'")
    report = view.export(tmp_path / "out", format="folders", progress=False)
    assert report.records == len(view) > 0
    paths = [path for path in written(tmp_path / "out") if not path.startswith(".")]
    assert sorted(paths) == sorted(f"val/ant/{record.id}" for record in view)


# --- what stands in the way ------------------------------------------------------------------------------------------


def test_only_an_export_is_replaced(ds: hr.Dataset, tmp_path: Path) -> None:
    ds.export(tmp_path / "out", format="folders", progress=False)
    with pytest.raises(UsageError, match="holds an export already; pass overwrite=True to replace it"):
        ds.export(tmp_path / "out", format="coco", progress=False)
    before = json.loads((tmp_path / "out" / export.MARKER).read_text())
    assert before == {"format": "folders", "records": 24, "dataset": ds.view_fingerprint}
    ds.export(tmp_path / "out", format="coco", overwrite=True, progress=False)
    assert inside(tmp_path / "out") == [export.MARKER, "annotations", "images"]
    for name in ("notes", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
        with pytest.raises(UsageError, match="is a folder with other files in it, which are not replaced"):
            ds.export(tmp_path / name, format="coco", overwrite=True, progress=False)
        assert (tmp_path / name / "mine.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="other files in it"):
        ds.export(ds.path, format="coco", overwrite=True, progress=False)
    assert ds.verify().ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pascal"}, "format is 'pascal', wanted one of coco, voc, yolo, csv, folders, imagefolder"),
        ({"format": "coco", "task": "pose"}, "task is none of the options of format='coco', which has none"),
        ({"format": "yolo", "tasks": "pose"}, "tasks is none of the options of format='yolo', which has task"),
        ({"format": "yolo", "task": "obb"}, "task is 'obb', wanted one of detect, pose, segment"),
        ({"format": "yolo", "task": "pose"}, "task is 'pose', and .* has no keypoints; wanted detect or segment"),
        ({"format": "yolo", "task": "segment"}, "task is 'segment', and .* has no masks; wanted detect or pose"),
        ({"format": "coco", "workers": 0}, "workers is 0, wanted at least 1"),
    ],
)
def test_options_that_cannot_be(ds: hr.Dataset, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        ds.export(tmp_path / "out", progress=False, **options)
    assert inside(tmp_path) == []


def test_nothing_to_write(ds: hr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no records"):
        ds.where("width < 0").export(tmp_path / "out", format="coco")
    kept = hr.ArrayDataset(np.zeros((2, 3, 4), np.float32), dtype="keep")
    with pytest.raises(UsageError, match="holds numbers as they were given"):
        kept.export(tmp_path / "out", format="folders")
    assert inside(tmp_path) == []


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("coco", {"label_name": "cat"}),
        ("voc", {"captions": ("a cat",)}),
        ("yolo", {"value": 1.0}),
        ("folders", {"boxes": BOX, "box_labels": ("cat",)}),
        ("folders", {"labels": ("cat", "dog")}),
    ],
)
def test_a_format_without_a_place_for_anything_is_refused(format: str, said: dict[str, Any], tmp_path: Path) -> None:
    found = pack([hr.Record(id="a.png", encoded=png(), **said)], tmp_path / "ds")
    with pytest.raises(UsageError, match=f"format='{format}' has no place for any of them; imagefolder, webdataset"):
        found.export(tmp_path / "out", format=format, progress=False)
    assert inside(tmp_path) == ["ds"]


@pytest.mark.parametrize("format", FORMATS)
def test_images_alone_can_be_written_as_anything(format: str, tmp_path: Path) -> None:
    found = pack([hr.Record(id="a.png", encoded=png())], tmp_path / "ds")
    report = found.export(tmp_path / "out", format=format, progress=False)
    assert report.lost == {} and report.records == 1


def test_arrays_are_written_too(tmp_path: Path) -> None:
    pixels = np.stack([picture(8, 9, seed=i) for i in range(4)])
    found = hr.ArrayDataset(pixels, np.array([0, 1, 0, 1]))
    report = found.export(tmp_path / "out", format="folders", progress=False)
    assert report.renamed == 4  # 0 is called 0.png
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")) == [
        *("train/0/0.png", "train/0/2.png", "train/1/1.png", "train/1/3.png")
    ]
    assert found.export(tmp_path / "rows", format="parquet", progress=False).files == 3


# --- what is lost ----------------------------------------------------------------------------------------------------


def test_what_a_format_has_no_place_for_is_counted(tmp_path: Path) -> None:
    polygon = np.array([[0, 0], [8, 0], [0, 9]], np.float32)
    records = [
        boxed(
            "a.png",
            captions=("one", "two"),
            group="p",
            value=0.5,
            masks=(Mask(polygons=(polygon,)),),
            attributes={"truncated": [1], "score": [0.5], "camera": "x"},
        ),
        boxed("b.png", boxes=np.zeros((0, 4), np.float32), box_labels=()),
        hr.Record(id="c.png", encoded=png(2), label_name="cat"),
    ]
    found = pack(records, tmp_path / "ds")

    def lost(format: str, **options: Any) -> dict[str, int]:
        return dict(found.export(tmp_path / "out", format=format, overwrite=True, progress=False, **options).lost)

    no_word = "records that say nothing of boxes, written as without objects"
    images = {"groups": 1, "values": 1, "labels": 1}
    assert lost("coco") == {**images, no_word: 1}
    assert lost("voc") == {**images, "captions": 2, "masks": 1, "attribute score": 1, "attribute camera": 1}
    of_yolo = {"attribute truncated": 1, "attribute score": 1, "attribute camera": 1}
    assert lost("yolo") == {**images, **of_yolo, "captions": 2, "masks": 1, no_word: 1}
    assert lost("yolo", task="segment") == {**images, **of_yolo, "captions": 2, no_word: 1}
    assert lost("csv") == {"captions": 2, "masks": 1, "labels": 1, no_word: 1}
    assert lost("folders") == {
        "groups": 1,
        "values": 1,
        "captions": 2,
        "masks": 1,
        "boxes": 1,
        **of_yolo,
    }
    for format in ("imagefolder", "webdataset", "parquet"):
        assert lost(format) == {}, format


POINTS = np.array([[[3, 4, 2], [10, 12, 1]]], np.float32)


@pytest.mark.parametrize("format", ["coco", "yolo", "imagefolder", "webdataset", "parquet"])
def test_keypoints_of_objects_without_a_box_are_counted(format: str, tmp_path: Path) -> None:
    alone = hr.Record(id="a.png", encoded=png(), keypoints=POINTS)
    with pytest.raises(UsageError, match=r"has keypoints of objects without a box, and .* pack boxes with them"):
        pack([alone], tmp_path / "alone").export(tmp_path / "out", format=format, progress=False)
    found = pack([alone, boxed("b.png", keypoints=POINTS)], tmp_path / "ds")
    report = found.export(tmp_path / "out", format=format, progress=False)
    assert report.lost["keypoints of objects without a box"] == 1 and "keypoints" not in report.lost


def test_attributes_of_an_image_where_only_objects_have_a_place_for_them_are_counted(tmp_path: Path) -> None:
    said = {"area": 30, "pose": "left", "difficult": 1}
    found = pack(
        [boxed("a.png", attributes=said), boxed("b.png", boxes=None, box_labels=None, attributes=said)], tmp_path / "ds"
    )
    no_word = "records that say nothing of boxes, written as without objects"
    coco = found.export(tmp_path / "coco", format="coco", progress=False)
    assert coco.lost == {"attribute area": 2, no_word: 1}
    voc = found.export(tmp_path / "voc", format="voc", progress=False)
    assert voc.lost == {"attribute area": 2, "attribute pose": 2, "attribute difficult": 2}


def test_csv_cannot_say_that_nothing_is_known_of_classes(tmp_path: Path) -> None:
    records = [hr.Record(id=f"{k}.png", encoded=png(k), labels=labels) for k, labels in enumerate([("a",), (), None])]
    found = pack(records, tmp_path / "ds")
    report = found.export(tmp_path / "csv", format="csv", progress=False)
    assert report.lost == {"records that say nothing of their classes, written as of none": 1}
    for format in ("imagefolder", "webdataset", "parquet"):
        assert found.export(tmp_path / format, format=format, progress=False).lost == {}, format


def test_whole_numbers_of_more_than_64_bits_are_no_column_of_arrow(tmp_path: Path) -> None:
    found = pack(
        [boxed("a.png", attributes={"hash": 2**64 - 1, "hashes": [1 << 63], "least": -(1 << 63)})], tmp_path / "ds"
    )
    for format in ("imagefolder", "parquet"):
        report = found.export(tmp_path / format, format=format, progress=False)
        assert report.lost == {"attribute hash": 1, "attribute hashes": 1}, format
    assert found.export(tmp_path / "csv", format="csv", progress=False).lost == {}
    assert str(2**64 - 1) in (tmp_path / "csv" / "annotations.csv").read_text()


@pytest.mark.parametrize("per_object", [False, True])
def test_coco_s_attributes_of_images_come_back(per_object: bool, tmp_path: Path) -> None:
    said = {"camera": "x", "crop": [1, 2, 3], "flag": True}
    records = [
        boxed("a.png", attributes=said | {"score": [0.5]}),
        boxed("b.png", boxes=BOX[:0], box_labels=(), attributes=said),
    ]
    pack(records, tmp_path / "ds").export(tmp_path / "out", format="coco", progress=False)
    path = tmp_path / "out" / "annotations" / "instances_train.json"
    read = list(hr.sources.coco(path, images=tmp_path / "out" / "images" / "train", per_object=per_object))
    assert len(read) == 2 - per_object
    assert all(said.items() <= dict(one.attributes).items() for one in read if isinstance(one, hr.Record))


@pytest.mark.parametrize("format", ["imagefolder", "webdataset", "parquet", "coco", "csv"])
def test_what_is_no_number_is_null_and_counted(format: str, tmp_path: Path) -> None:
    """JSON knows no NaN: who reads strictly refused the image for it."""
    odd = {"age": np.nan, "score": [-np.inf], "fine": [0.5]}
    found = pack(
        [boxed("a.png", attributes=odd), boxed("b.png", attributes={"age": 7.5, "score": [1.0]})], tmp_path / "ds"
    )
    report = found.export(tmp_path / "out", format=format, progress=False)
    assert report.lost == {"attribute age": 1, "attribute score": 1}
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".png"]
    assert not any(word in text for text in texts for word in (b": NaN", b":NaN", b"Infinity", b"-inf"))
    if format in ("imagefolder", "webdataset"):
        again = {Path(one.id).stem: one for one in getattr(hr.sources, format)(tmp_path / "out")}
        assert {name: one.attributes["score"] for name, one in again.items()} == {"a": [None], "b": [1.0]}
        assert again["a"].attributes["fine"] == [0.5] and "age" not in again["a"].attributes


def test_boxes_without_a_class_get_one(tmp_path: Path) -> None:
    found = pack([boxed("a.png", box_labels=None)], tmp_path / "ds")
    for format in ("coco", "voc", "yolo", "csv"):
        report = found.export(tmp_path / format, format=format, progress=False)
        assert report.lost == {"boxes without a class, written as 'object'": 1}
    page = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert [category["name"] for category in page["categories"]] == ["object"]
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"] == {0: "object"}


def test_attributes_that_are_no_column_are_counted(tmp_path: Path) -> None:
    mixed = [
        boxed("a.png", attributes={"odd": [1], "list": [[1, 2]], "label": ["x"]}),
        boxed("b.png", attributes={"odd": ["one"], "list": [[3]], "label": ["y"]}),
    ]
    found = pack(mixed, tmp_path / "ds")
    for format in ("csv", "imagefolder", "parquet"):
        report = found.export(tmp_path / format, format=format, progress=False)
        missing = {"attribute odd": 2, "attribute list": 2}
        assert {name: report.lost.get(name) for name in missing} == missing, format


# --- single formats --------------------------------------------------------------------------------------------------


def read_coco(out: Path, name: str) -> dict[str, Any]:
    page: dict[str, Any] = json.loads((out / "annotations" / name).read_text())
    return page


@pytest.mark.parametrize("format", ["coco", "csv", "imagefolder", "webdataset", "parquet"])
def test_numbers_that_are_none_are_left_out(format: str, tmp_path: Path) -> None:
    """NaN and infinity, which a dataset keeps: no JSON has them, and each reader would refuse the file."""
    record = hr.Record(
        id="a.png",
        encoded=saved(picture(20, 30), "PNG"),
        boxes=np.array([[1, 2, 9, 8], [2, 3, 9, 8]], np.float32),
        box_labels=("cat", "cat"),
        attributes={"score": [float("nan"), 0.5], "far": [1.5, float("inf")]},
    )
    pack([record], tmp_path / "ds").export(tmp_path / "out", format=format)
    where, images = {
        "coco": ("annotations/instances_train.json", "images/train"),
        "csv": ("annotations.csv", ""),
    }.get(format, ("", None))
    options = {} if images is None else {"images": tmp_path / "out" / images}
    source = find_format(format).make(tmp_path / "out" / where, **options)
    (found,), _ = collect(source)
    assert isinstance(found, hr.Record)
    assert [found.attributes[name] for name in ("score", "far")] == [[None, 0.5], [1.5, None]]


def test_coco(tmp_path: Path) -> None:
    runs = Mask(runs=np.array([0, 30, 1170], np.int64), size=(30, 40))
    triangle = Mask(polygons=(np.array([[0, 0], [8, 0], [0, 9.5]], np.float32),))
    two = np.array([[1.1, 2.2, 11.3, 20.7], [0, 0, 40, 30]], np.float32)
    records = [
        boxed(
            "dir/a.png",
            boxes=two,
            box_labels=("cat", "dog"),
            masks=(triangle, runs),
            captions=("A cat.", "Æ"),
            attributes={
                "image_id": 70,
                "annotation_id": [5, 6],
                "area": [38.0, None],
                "is_crowd": [0, 1],
                "pose": ["l", None],
            },
        ),
        boxed("b.png", boxes=np.zeros((0, 4), np.float32), box_labels=(), attributes={"image_id": 9, "camera": "x"}),
    ]
    pack(records, tmp_path / "ds").export(tmp_path / "out", format="coco", progress=False)
    page = read_coco(tmp_path / "out", "instances_train.json")
    assert list(page) == ["info", "licenses", "images", "annotations", "categories"]
    assert sorted(page["images"], key=lambda image: image["id"]) == [
        {"id": 9, "file_name": "b.png", "width": 40, "height": 30, "attributes": {"camera": "x"}},
        {"id": 70, "file_name": "dir/a.png", "width": 40, "height": 30},
    ]
    assert page["annotations"] == [
        {
            "id": 5,
            "image_id": 70,
            "category_id": 1,
            "bbox": [1.1, 2.2, 10.2, 18.5],
            "area": 38,
            "iscrowd": 0,
            "segmentation": [[0, 0, 8, 0, 0, 9.5]],
            "attributes": {"pose": "l"},
        },
        {
            "id": 6,
            "image_id": 70,
            "category_id": 2,
            "bbox": [0, 0, 40, 30],
            "area": 30,
            "iscrowd": 1,
            "segmentation": {"size": [30, 40], "counts": [0, 30, 1170]},
        },
    ]
    assert [(category["id"], category["name"]) for category in page["categories"]] == [(1, "cat"), (2, "dog")]
    texts = read_coco(tmp_path / "out", "captions_train.json")
    assert texts["images"] == page["images"] and "categories" not in texts
    assert texts["annotations"] == [
        {"id": 1, "image_id": 70, "caption": "A cat."},
        {"id": 2, "image_id": 70, "caption": "Æ"},
    ]


@pytest.mark.parametrize("ids", [(1, 1), (1, None), ("7", "8"), (-1, 2), (True, 2), (1.5, 2)])
def test_coco_numbers_ids_that_cannot_be_taken_over(ids: tuple[Any, Any], tmp_path: Path) -> None:
    records = [boxed(f"{i}.png", attributes={"image_id": id_, "annotation_id": [id_]}) for i, id_ in enumerate(ids)]
    pack(records, tmp_path / "ds").export(tmp_path / "out", format="coco", progress=False)
    page = read_coco(tmp_path / "out", "instances_train.json")
    for key in ("images", "annotations"):
        assert [entry["id"] for entry in page[key]] == [1, 2], key


def test_coco_area_is_that_of_the_image_as_it_is(tmp_path: Path) -> None:
    record = boxed("a.png", attributes={"area": [100.0]})
    pack([record], tmp_path / "ds", size=60).export(tmp_path / "out", format="coco", progress=False)
    (found,) = read_coco(tmp_path / "out", "instances_train.json")["annotations"]
    assert found["bbox"] == [0, 2, 15, 39] and found["area"] == 15 * 39  # the image grew to 60 x 60


def test_coco_keypoints(tmp_path: Path) -> None:
    found = pack(Source(faces(6)), tmp_path / "ds")
    found.export(tmp_path / "out", format="coco", progress=False)
    page = read_coco(tmp_path / "out", "person_keypoints_train.json")
    assert page["categories"][0]["keypoints"] == list(FACE)
    for made in page["annotations"]:
        points = np.array(made["keypoints"]).reshape(-1, 3)
        assert made["num_keypoints"] == (points[:, 2] > 0).sum() and len(points) == 3
    # What names don't tell is lost, and said.
    pairs = pack(Source(faces(6), ("a", "b", "c"), [(0, 2)]), tmp_path / "pairs")
    assert pairs.export(tmp_path / "two", format="coco", progress=False).lost["flip pairs"] == 1


def test_coco_of_images_alone_says_nothing_of_objects(tmp_path: Path) -> None:
    pack([hr.Record(id="a.png", encoded=png())], tmp_path / "ds").export(tmp_path / "out", format="coco")
    assert "annotations" not in read_coco(tmp_path / "out", "image_info_train.json")


def test_voc(tmp_path: Path) -> None:
    records = [
        boxed(
            "a & b.png",
            boxes=np.array([[0, 1, 10, 20.5], [39, 29, 40, 30]], np.float32),
            box_labels=("cat", "<dog>"),
            attributes={"difficult": [1, 0], "truncated": [-1, 1], "occluded": [1, -1], "pose": ["Left", None]},
        ),
        boxed("b.png", boxes=np.zeros((0, 4), np.float32), box_labels=(), split="val"),
        hr.Record(id="c.png", encoded=png(2)),  # nobody looked for objects
    ]
    records = [
        hr.Record(**{field: getattr(one, field) for field in one.__slots__} | {"split": one.split or "train"})
        for one in records
    ]
    pack(records, tmp_path / "ds", splits="given").export(tmp_path / "out", format="voc", progress=False)
    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "Annotations").iterdir()) == ["a & b.xml", "b.xml"]
    assert sorted((out / "ImageSets" / "Main" / "train.txt").read_text().splitlines()) == ["a & b", "c"]
    assert (out / "ImageSets" / "Main" / "val.txt").read_text() == "b\n"
    page = ElementTree.parse(out / "Annotations" / "a & b.xml").getroot()
    assert page.findtext("filename") == "a & b.png"
    assert [page.findtext(f"size/{name}") for name in ("width", "height", "depth")] == ["40", "30", "3"]
    said = [
        [thing.findtext(name) for name in ("name", "pose", "difficult", "truncated", "occluded")]
        + [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        for thing in page.findall("object")
    ]
    assert said == [
        ["cat", "Left", "1", "0", "1", "1", "2", "10", "20.5"],  # 1-based, both ends inside
        ["<dog>", "Unspecified", "0", "1", None, "40", "30", "40", "30"],  # the last pixel
    ]


def test_yolo(tmp_path: Path) -> None:
    records = [
        boxed("images/a.png", boxes=np.array([[0, 0, 10, 15]], np.float32), split="train"),
        boxed("b.png", boxes=np.zeros((0, 4), np.float32), box_labels=(), split="val"),
    ]
    pack(records, tmp_path / "ds", splits="given").export(tmp_path / "out", format="yolo", progress=False)
    out = tmp_path / "out"
    config = yaml.safe_load((out / "data.yaml").read_text())
    assert config == {"train": "images/train", "val": "images/val", "names": {0: "cat"}}
    # Below the last folder called images, as readers look.
    assert (out / "images" / "train" / "images" / "a.png").exists()
    assert (out / "images" / "train" / "labels" / "a.txt").read_text() == "0 0.125 0.25 0.25 0.5\n"
    assert (out / "labels" / "val" / "b.txt").read_text() == ""


def test_yolo_poses_and_segments(tmp_path: Path) -> None:
    found = pack(Source(faces(6)), tmp_path / "ds")
    report = found.export(tmp_path / "out", format="yolo", progress=False)
    config = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert config["kpt_shape"] == [3, 3] and config["flip_idx"] == [0, 2, 1] and "flip pairs" not in report.lost
    for path in (tmp_path / "out" / "labels" / "train").iterdir():
        for line in path.read_text().splitlines():
            assert len(line.split()) == 5 + 9
    square = np.array([[0, 0], [20, 0], [20, 15], [0, 15]], np.float32)
    other = square + np.float32(10)
    runs = Mask(runs=np.array([0, 30, 1170], np.int64), size=(30, 40))
    boxes = np.array([[0, 0, 30, 25], [0, 0, 10, 15], [0, 0, 1, 30]], np.float32)
    masks = (Mask(polygons=(square, other)), None, runs)
    masked = boxed("a.png", boxes=boxes, box_labels=("cat",) * 3, masks=masks)
    report = pack([masked], tmp_path / "masked").export(
        tmp_path / "segments", format="yolo", task="segment", progress=False
    )
    assert report.lost == {"masks of runs or none, written as their boxes": 2, "objects of several polygons, joined": 1}
    lines = (tmp_path / "segments" / "labels" / "train" / "a.txt").read_text().splitlines()
    joined = np.array(lines[0].split()[1:], np.float64).reshape(-1, 2) * [40, 30]
    x, y = joined.T
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 == pytest.approx(600)  # both, and no more
    assert lines[1] == "0 0 0 0.25 0 0.25 0.5 0 0.5"


def test_folders_of_odd_classes(tmp_path: Path) -> None:
    names = ("a/b", "a_b", "cat.jpg", "CAT", "cat", "..", "con")
    records = [hr.Record(id=f"{i}.png", encoded=png(i), label_name=name) for i, name in enumerate(names)]
    records.append(hr.Record(id="cat/x.png", encoded=png(9)))  # has no class, and must not get one
    report = pack(records, tmp_path / "ds").export(tmp_path / "out", format="folders", progress=False)
    top = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert len({name.casefold() for name in top}) == len(names) + 1
    assert "cat_x.png" in top and "cat.jpg_" in top and "_con" in top
    assert report.lost["names of classes that can't be folders' names, changed"] == 6


def test_webdataset_and_parquet_in_parts(ds: hr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 8000)
    monkeypatch.setattr(parquet, "FILE_BYTES", 4000)
    ds.export(tmp_path / "tars", format="webdataset", progress=False)
    tars = sorted((tmp_path / "tars").glob("train-*.tar"))
    assert [path.name for path in tars] == [f"train-{i:06d}.tar" for i in range(len(tars))] and len(tars) > 2
    keys = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
                keys.append(member.name)
    assert len([key for key in keys if key.endswith(".json")]) == ds.splits["train"]
    ds.export(tmp_path / "rows", format="parquet", progress=False)
    parts = sorted((tmp_path / "rows" / "data").glob("train-*"))
    assert [path.name for path in parts] == [f"train-{i:05d}-of-{len(parts):05d}.parquet" for i in range(len(parts))]
    assert len(parts) > 2
    rows = pl.concat([pl.read_parquet(path) for path in parts])
    assert rows["image"].struct["path"].to_list() == [record.id for record in ds.split("train")]
    assert rows["image"].struct["bytes"].to_list() == [record.encoded for record in ds.split("train")]


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_masks_of_one_kind_are_kept_in_columns(format: str, tmp_path: Path) -> None:
    runs = Mask(runs=np.array([0, 30, 1170], np.int64), size=(30, 40))
    triangle = Mask(polygons=(np.array([[0, 0], [8, 0], [0, 9.5]], np.float32),))
    for name, masks, lost in (
        ("runs", [runs, None], {}),
        ("polygons", [None, triangle], {}),
        ("both", [triangle, runs], {"masks that are no polygons": 1}),
    ):
        records = [boxed(f"{i}.png", encoded=png(i), masks=(mask,)) for i, mask in enumerate(masks)]
        found = pack(records, tmp_path / name)
        assert found.export(tmp_path / f"{name} out", format=format, progress=False).lost == lost
        if format == "imagefolder":
            lines = (tmp_path / f"{name} out" / "train" / "metadata.jsonl").read_text().splitlines()
            said = {entry["file_name"]: entry["objects"]["segmentation"][0] for entry in map(json.loads, lines)}
            size = {"size": [30, 40], "counts": [0, 30, 1170]}
            polygon = [[0, 0, 8, 0, 0, 9.5]]
            assert (
                said
                == {
                    "runs": {"0.png": size, "1.png": None},
                    "polygons": {"0.png": None, "1.png": polygon},
                    "both": {"0.png": polygon, "1.png": None},
                }[name]
            )


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_verb(ds: hr.Dataset, tmp_path: Path) -> None:
    ended = headrace("export", ds.path, tmp_path / "out", "--format", "voc", "--split", "val", "--json")
    facts = json.loads(ended.out)
    assert ended.code == 0 and ended.err == ""
    seconds = facts.pop("seconds")
    assert seconds >= 0 and facts == {
        "out": str(tmp_path / "out"),
        "format": "voc",
        "records": 6,
        "renamed": 0,
        "files": len(written(tmp_path / "out")),
        "bytes": sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()),
        "lost": {"attribute k": 6, "labels": sum(record.label is not None for record in ds.split("val"))},
    }
    ended = headrace("export", ds.path, tmp_path / "out", "--format", "folders", "--where", "width > 30", "--overwrite")
    assert ended.code == 0
    assert ended.out.startswith(f"{tmp_path / 'out'}: {len(ds.where('width > 30'))} records as folders, ")
    assert "\n  not kept: " in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "pascal"], "format is 'pascal', wanted one of coco, voc"),
        ([], "--format is missing, wanted one of coco, voc"),
        (["--format", "coco", "--task", "pose"], "--task is none of the options of --format coco, which has none"),
        (["--format", "yolo", "--task", "obb"], "--task is 'obb', wanted one of detect, pose, segment"),
        (["--format", "coco", "--split", "dev"], "no split 'dev'; it has train, val"),
        (["--format", "coco", "--where", "wodth > 3"], "no column 'wodth'"),
    ],
)
def test_words_that_cannot_be(ds: hr.Dataset, words: list[str], message: str, tmp_path: Path) -> None:
    ended = headrace("export", ds.path, tmp_path / "out", *words)
    assert (ended.code, ended.out) == (2, "") and message in ended.err
    assert inside(tmp_path) == []


def test_formats_are_said_to_be_written() -> None:
    listed = {entry["name"]: entry for entry in json.loads(headrace("formats", "--json").out)["formats"]}
    assert all(listed[name]["writes"] == entry.writes for name, entry in FORMATS.items())
    assert listed["wider"]["writes"] is None and listed["wider"]["reads"]
    assert [option["name"] for option in listed["yolo"]["export_options"]] == ["task"]
    page = headrace("formats", "yolo").out
    assert "--task [detect|pose|segment]" in page and "headrace export cats out --format yolo" in page
