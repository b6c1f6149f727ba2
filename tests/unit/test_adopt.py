"""adopt: maps, splits, paths, compressed files, files that change, records that can't be used, what the verb prints."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import TINY_PNG, jpeg
from foreign import payload, plain, shard, write
from headrace.checking.verify import verify
from headrace.errors import DamageError, DataError, NotThereError, StorageError, UsageError
from headrace.format import manifest, tfrecord
from headrace.format.example import Floats, Ints
from headrace.place.open import at
from packed import flip, pack, rewrite_manifest, shades


def adopt(shards: Any, out: Path, **options: Any) -> tuple[hr.AdoptReport, hr.Dataset]:
    report = hr.adopt(shards, out, progress=False, **options)
    ds = hr.Dataset(out)
    assert ds.verify().ok and len(ds) == report.stored and report.seen == report.stored + len(report.rejects)
    return report, ds


def boxed(k: int, **more: Any) -> dict[str, Any]:
    """Record `k` of TF Object Detection's layout, 20 x 40 pixels, with k % 3 boxes of classes 1 and 2."""
    n = k % 3
    return {
        "image__encoded": jpeg(20, 40, seed=k),
        "image__source_id": f"{k}",
        "image__object__bbox__xmin": Floats([0.1] * n),
        "image__object__bbox__ymin": Floats([0.25] * n),
        "image__object__bbox__xmax": Floats([0.5] * n),
        "image__object__bbox__ymax": Floats([0.75] * n),
        "image__object__class__label": Ints([1 + j % 2 for j in range(n)]),
    } | more


# --- files, splits and paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00005", "train"),
        ("train-00000-of-00005.tfrecord", "train"),
        ("mnist-test.tfrecord-00000-of-00001", "test"),
        ("my_data-validation.tfrecord-00001-of-00005", "val"),
        ("val_003.tfrec", "val"),
        ("coco_Val2017.record", "val"),
        ("eval.tfrecords", "val"),
        ("training_7.tfrecord", "train"),
        ("00000-of-00010.tfrecord", None),
        ("trainer.tfrecord", None),
        ("valley.tfrecord", None),
        ("val/00000.tfrecord", "val"),
        ("test things/00000.tfrecord", None),
        ("test/train-0.tfrecord", "train"),
    ],
)
def test_splits_by_name(name: str, split: str | None, tmp_path: Path) -> None:
    report, ds = adopt(shard(tmp_path / "in" / name, 3), tmp_path / "ds")
    assert ds.splits == {split or "train": 3}
    (note,) = [note for note in report.notes if note.startswith("splits by file name")]
    assert ("say no split" in note or "says no split" in note) == (split is None)


def test_one_split_for_all(tmp_path: Path) -> None:
    paths = [shard(tmp_path / "train.tfrecord", 2), shard(tmp_path / "b.tfrecord", 3)]
    report, ds = adopt(paths, tmp_path / "ds", split="everything")
    assert ds.splits == {"everything": 5} and not any("splits" in note for note in report.notes)
    with pytest.raises(UsageError, match="split name 'a b'"):
        hr.adopt(paths, tmp_path / "other", split="a b")


def test_a_folder_of_shards_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        shard(tmp_path / "in" / f"part-{i}.tfrecord", 1, {0: {"image__filename": f"f{i}"}})
    (tmp_path / "in" / "part-1.tfrecord.idx").write_text("0 10\n")
    (tmp_path / "in" / "notes.txt").write_text("no shard")
    _, ds = adopt(tmp_path / "in", tmp_path / "ds")
    assert ds.catalog["id"].to_list() == ["f1", "f9", "f10"]
    with pytest.raises(UsageError, match=r"no file in it is called x\.tfrecord or x-00000-of-00010"):
        hr.adopt(tmp_path, tmp_path / "other")
    with pytest.raises(NotThereError, match=r"nothing\.tfrecord: no such file"):
        hr.adopt([tmp_path / "nothing.tfrecord"], tmp_path / "other")
    with pytest.raises(UsageError, match="no shards are given"):
        hr.adopt([], tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a.tfrecord", True),
        ("a.tfrecords", True),
        ("a.tfrec", True),
        ("data-train.tfrecord-00000-of-00010", True),
        ("train-00000-of-00010", True),
        ("coco_val.record-00001-of-00100", True),
        ("a.tfrecord.idx", False),
        ("train-00000-of-00010.idx", False),
        (".a.tfrecord.swp", False),
        (".a.tfrecord", False),
        ("features.json", False),
    ],
)
def test_which_files_of_a_folder_are_shards(name: str, taken: bool, tmp_path: Path) -> None:
    shard(tmp_path / "in" / "x.tfrecord", 1)
    shard(tmp_path / "in" / name, 1)
    report, _ = adopt(tmp_path / "in", tmp_path / "ds")
    assert report.shards == 1 + taken


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    path = shard(tmp_path / "in" / "a.tfrecord", 3)
    report, _ = adopt([path, tmp_path / "in", path], tmp_path / "ds")
    assert (report.stored, report.shards) == (3, 1)


def test_a_tree_can_be_moved(tmp_path: Path) -> None:
    path = shard(tmp_path / "tree" / "shards" / "a.tfrecord", 5)
    _, ds = adopt(path, tmp_path / "tree" / "ds")
    assert [entry.name for entry in ds.manifest.shards] == ["../shards/a.tfrecord"]
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    moved = hr.Dataset(tmp_path / "elsewhere" / "ds")
    assert moved[3].label == 0 and moved.verify().ok


def test_shards_elsewhere_are_named_in_full(tmp_path: Path) -> None:
    path = shard(tmp_path / "disk" / "a.tfrecord", 5)
    _, ds = adopt(path, tmp_path / "home" / "ds")
    assert [entry.name for entry in ds.manifest.shards] == [str(path)]
    (tmp_path / "home").rename(tmp_path / "house")
    assert hr.Dataset(tmp_path / "house" / "ds")[3].label == 0


def test_paths_through_links(tmp_path: Path) -> None:
    path = shard(tmp_path / "real" / "shards" / "a.tfrecord", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "b.tfrecord").symlink_to(path)
    _, ds = adopt([tmp_path / "link" / "shards" / "a.tfrecord", tmp_path / "b.tfrecord"], tmp_path / "link" / "ds")
    assert len(ds) == 6 and ds[5].label == 2


def test_the_datasets_own_shards_are_not_replaced(tmp_path: Path) -> None:
    ds = pack(shades(4), tmp_path / "ds", shards=1)
    before = {path.name: path.read_bytes() for path in ds.path.iterdir()}
    with pytest.raises(UsageError, match=r"the shards lie in it \(train-00000-of-00001\.tfrecord\)"):
        hr.adopt(ds.path, ds.path, overwrite=True)
    assert {path.name: path.read_bytes() for path in ds.path.iterdir()} == before


def test_overwrite(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tfrecord", 3)
    adopt(path, tmp_path / "ds")
    with pytest.raises(UsageError, match="holds a dataset already"):
        hr.adopt(path, tmp_path / "ds")
    adopt(path, tmp_path / "ds", overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="other files in it"):
        hr.adopt(path, tmp_path / "full", overwrite=True)


def test_what_is_written(tmp_path: Path) -> None:
    adopt([shard(tmp_path / "a.tfrecord", 9)], tmp_path / "ds")
    written = {path.name for path in (tmp_path / "ds").iterdir()}
    assert written == {"headrace.json", "headrace.index", "catalog.parquet", "rejects.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == {"a.tfrecord", "ds"}


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_changes_nothing(workers: int, tmp_path: Path) -> None:
    change: Any = {3: {"image__encoded": b"no image"}, 40: {"image__class__label": None}}
    paths = [shard(tmp_path / f"{i}.tfrecord", 300, change) for i in range(3)]
    made = {}
    for name, n in (("a", 1), ("b", workers)):
        hr.adopt(paths, tmp_path / name, workers=n, progress=False)
        made[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    assert made["a"] == made["b"]


def test_an_empty_file_is_a_shard_without_records(tmp_path: Path) -> None:
    (tmp_path / "b.tfrecord").write_bytes(b"")
    _, ds = adopt([shard(tmp_path / "a.tfrecord", 2), tmp_path / "b.tfrecord"], tmp_path / "ds")
    assert [entry.records for entry in ds.manifest.shards] == [2, 0]
    with pytest.raises(DataError, match=r"b\.tfrecord: 0 bytes"):
        hr.adopt(tmp_path / "b.tfrecord", tmp_path / "other")


def test_a_kill_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.adopting import scan

    path = shard(tmp_path / "a.tfrecord", 30)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan.Pass, "_record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hr.adopt(path, tmp_path / "ds", progress=False)
    assert list(tmp_path.iterdir()) == [path]


# --- the map ---------------------------------------------------------------------------------------------------------


def unknown(k: int) -> bytes:
    return payload(pic=jpeg(20, 40, seed=k), kind=k % 2 + 1, name=f"n{k}", at=[2.0, 4.0, 12.0, 14.0], of=["cat"])


def test_without_a_map_the_schema_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [unknown(k) for k in range(5)])
    ended = headrace("adopt", path, tmp_path / "ds")
    assert ended.code == 2 and ended.out == ""
    assert "no layout known here; 5 records were looked at:" in ended.err
    lines = [line.split() for line in ended.err.splitlines() if line.startswith("  ")]
    assert lines[0] == ["key", "kind", "values", "records", "example"]
    table = {line[0]: line for line in lines[2:]}
    assert table["pic"][1:5] == ["bytes,", "jpeg", "image", "1"]
    assert table["at"] == ["at", "float", "4", "5", "of", "5", "2,", "4,", "12,", "…"]
    assert table["name"] == ["name", "bytes", "1", "5", "of", "5", "'n0'"]
    assert "perhaps: --map image=pic --map label=kind" in ended.err
    assert not (tmp_path / "ds").exists()


def test_a_map(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [unknown(k) for k in range(6)])
    report, ds = adopt(
        path,
        tmp_path / "ds",
        map={"image": "pic", "label": "kind:from1", "id": "name", "boxes": "at:xywh:pixels", "box_labels": "of"},
        classes=["ant", "bee"],
    )
    assert report.layout == "by map" and report.map == {
        "image": "pic",
        "id": "name",
        "label": "kind:from1",
        "boxes": "at:xywh:pixels",
        "box_labels": "of:from0",
    }
    record = ds[3]
    assert (record.id, record.label, record.label_name) == ("n3", 1, "bee")
    assert record.boxes is not None and record.boxes.tolist() == [[2, 4, 14, 18]]
    assert record.box_labels == ("cat",)
    again, other = adopt(path, tmp_path / "again", map=report.map, classes=["ant", "bee"])
    assert again.map == report.map and other.catalog.drop("shard").equals(ds.catalog.drop("shard"))


@pytest.mark.parametrize(
    ("words", "box"),
    [
        ("at", [16, 2, 40, 12]),  # yxyx, normalised: beyond the image
        ("at:xyxy:pixels", [2, 4, 12, 14]),
        ("at:yxyx:pixels", [4, 2, 14, 12]),
        ("at:pixels:xywh", [2, 4, 14, 18]),
    ],
)
def test_orders_of_a_box(words: str, box: list[int], tmp_path: Path) -> None:
    at = [0.1, 0.4, 0.6, 1.7] if words == "at" else [2.0, 4.0, 12.0, 14.0]
    path = write(tmp_path / "a.tfrecord", [payload(image=jpeg(20, 40), label=0, at=at)])
    report, ds = adopt(path, tmp_path / "ds", map={"boxes": words})
    found = ds[0].boxes
    assert found is not None and np.allclose(found, [box], atol=1e-4)
    assert report.boxes_clipped == (words == "at")


def test_boxes_in_pixels_are_suspected(tmp_path: Path) -> None:
    more = {
        f"image__object__bbox__{name}": [v]
        for name, v in zip(("xmin", "ymin", "xmax", "ymax"), (3.0, 4.0, 9.0, 8.0), strict=True)
    }
    path = write(tmp_path / "a.tfrecord", [payload(**boxed(1, **more))])
    with pytest.raises(UsageError, match=r"reach to 9: pixels, it seems") as caught:
        hr.adopt(path, tmp_path / "ds")
    flag = str(caught.value).partition("map={'boxes': '")[2].split("'}")[0]
    _, ds = adopt(path, tmp_path / "ds", map={"boxes": flag})
    assert ds[0].boxes is not None and ds[0].boxes.tolist() == [[3, 4, 9, 8]]


@pytest.mark.parametrize(
    ("map", "message"),
    [
        ({"image": "pics"}, "no record looked at has the key 'pics'"),
        ({"picture": "pic"}, "headrace: --map picture=pic: the fields are"),
        ({"image": "pic", "boxes": "at,at"}, "2 keys, wanted 1 or 4"),
        ({"image": "pic", "boxes": "at:zyx"}, "after a ':' it takes xyxy, yxyx, xywh, pixels, normalised"),
        ({"image": "name"}, "'name' holds no encoded images"),
        ({"image": "kind"}, "'kind' holds no encoded images"),
        ({"image": ""}, "no layout known here"),
        ({"label": "kind"}, "no layout known here"),
    ],
)
def test_a_wrong_map(map: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [unknown(k) for k in range(3)])
    words = [word for name, key in map.items() for word in ("--map", f"{name}={key}")]
    ended = headrace("adopt", path, tmp_path / "ds", *words)
    assert ended.code == 2 and message in ended.err and not (tmp_path / "ds").exists()


@pytest.mark.parametrize(
    ("words", "message"), [(["image"], "FIELD=KEY"), (["id=a", "--map", "id=b"], "id occurs twice")]
)
def test_a_map_that_is_none(words: list[str], message: str, tmp_path: Path) -> None:
    ended = headrace("adopt", shard(tmp_path / "a.tfrecord", 1), tmp_path / "ds", "--map", *words)
    assert ended.code == 2 and message in ended.err


def test_a_given_key_goes_over_what_is_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [payload(**plain(k), other=9 - k) for k in range(5)])
    report, ds = adopt(path, tmp_path / "ds", map={"label": "other", "id": ""})
    assert report.layout == "image/encoded" and ds.labels.tolist() == [9, 8, 7, 6, 5]
    assert ds.catalog["id"].to_list() == [f"a.tfrecord:{k}" for k in range(5)]


def test_a_key_with_a_colon(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [payload(**{"image:0": TINY_PNG, "y:from1": 4})])
    report, _ = adopt(path, tmp_path / "ds", map={"image": "image:0", "label": "y:from1"})
    assert report.classes == ("0", "1", "2", "3", "4")


def test_keys_that_come_later_are_said(tmp_path: Path) -> None:
    records = [payload(**plain(k)) for k in range(40)] + [payload(**plain(40), mask=b"x")]
    report, _ = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert "keys that only later records have, and that are not used: mask" in report.notes


# --- classes ---------------------------------------------------------------------------------------------------------


def labelled(path: Path, labels: list[Any], **more: Any) -> Path:
    return write(path, [payload(image=TINY_PNG, label=label, **more) for label in labels])


@pytest.mark.parametrize(
    ("labels", "options", "names", "indices"),
    [
        ([0, 2, 1], {}, ("0", "1", "2"), [0, 2, 1]),
        ([0, 2, -1], {}, ("0", "1", "2"), [0, 2, -1]),
        ([3, 1], {"map": {"label": "label:from1"}}, ("1", "2", "3"), [2, 0]),
        ([1, 0], {"classes": ["no", "yes", "dunno"]}, ("no", "yes", "dunno"), [1, 0]),
        ([2, 1], {"classes": ["no", "yes"], "map": {"label": "label:from1"}}, ("no", "yes"), [1, 0]),
        (["b", "a10", "a9"], {}, ("a9", "a10", "b"), [2, 1, 0]),
        (["b", "a", ""], {"classes": ["b", "a"]}, ("b", "a"), [0, 1, -1]),
        ([Ints(), 1], {}, ("0", "1"), [-1, 1]),
    ],
)
def test_classes(labels: list[Any], options: Any, names: tuple[str, ...], indices: list[int], tmp_path: Path) -> None:
    _, ds = adopt(labelled(tmp_path / "a.tfrecord", labels), tmp_path / "ds", **options)
    assert ds.class_names == names and ds.labels.tolist() == indices


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        ([0, -2], {}, "'label' is -2: none of the 1 classes"),
        ([0, 1 << 40], {}, "'label' is 1099511627776: none of the 1 classes"),
        ([0, 3], {"classes": ["a", "b"]}, "'label' is 3: none of the 2 classes"),
        (["a", "x"], {"classes": ["a", "b"]}, "'label' is 'x': none of the 2 classes"),
        ([0, 1.5], {}, "'label' is a float list, wanted int64 or bytes"),
        ([0, [1, 2]], {}, "'label' has 2 values, wanted one class"),
        ([0, 0, "a"], {}, "'label' is 'a': none of the 1 classes"),
        (["a", b"\xff\xfe"], {}, "'label' is b'\\xff\\xfe', no UTF-8"),
    ],
)
def test_labels_out_of_range_are_rejects(labels: list[Any], options: Any, reason: str, tmp_path: Path) -> None:
    report, ds = adopt(labelled(tmp_path / "a.tfrecord", labels), tmp_path / "ds", max_rejects=1, **options)
    (reject,) = report.rejects
    assert (reject.origin, reject.stage, reject.reason) == (f"a.tfrecord:{len(labels) - 1}", "label", reason)
    assert len(ds) == len(labels) - 1
    line = json.loads((tmp_path / "ds" / "rejects.jsonl").read_text())
    assert line["reason"] == reason


def test_names_beside(tmp_path: Path) -> None:
    labelled(tmp_path / "a.tfrecord", [1, 0])
    (tmp_path / "label.labels.txt").write_text("non\noui\n")
    report, ds = adopt(tmp_path / "a.tfrecord", tmp_path / "ds")
    assert ds.class_names == ("non", "oui")
    assert any("label.labels.txt" in note for note in report.notes)
    (tmp_path / "mine.txt").write_text("\N{BYTE ORDER MARK}x y\r\nz\r\n")
    _, ds = adopt(tmp_path / "a.tfrecord", tmp_path / "other", classes=tmp_path / "mine.txt")
    assert ds.class_names == ("x y", "z")


def test_names_that_hold_what_python_takes_for_a_lines_end(tmp_path: Path) -> None:
    """Packed, and adopted again by the names beside the shards: as many classes, and the same."""
    names = ("a", "b\u2028c", "d\fe", "f\x85g", "h")
    ds = pack(shades(10, classes=names), tmp_path / "packed")
    shutil.copytree(ds.path, tmp_path / "in")
    _, again = adopt(tmp_path / "in", tmp_path / "ds")
    assert again.class_names == ds.class_names and set(again.class_names) == set(names)
    assert again.labels.tolist() == ds.labels.tolist()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", b"x\nx\n", "a name occurs twice"),
        ("a.txt", b"\xff\xfe\xfa", "is no UTF-8"),
        ("a.pbtxt", b"nothing", r"a\.pbtxt: 1:8 : .*; no label map, wanted 'item"),
        ("a.pbtxt", b"# nothing", "no 'item"),
        ("a.pbtxt", b"item { id: 1 }", r"item 0 has no id \(from 0\) or no name of its own: \{ id: 1 \}"),
        ("a.pbtxt", b"item { id: 1 name: 'x' } item { id: 1 name: 'y' }", "item 1 has no id"),
        ("a.pbtxt", b"item { id: 1 name: 'x' } item { id: 2 name: 'x' }", "item 1 has no id"),
        ("a.pbtxt", b"item { keypoints { id: 1 } name: 'x' }", "item 0 has no id"),
        ("a.pbtxt", b"item { id: -1 name: 'x' }", "item 0 has no id"),
        ("a.pbtxt", b"item { id: 1 id: 2 name: 'x' }", r"1:18 : .*should not have multiple \"id\" fields"),
        ("a.pbtxt", b"item {\n  id: 1\n  name: 'x\n}", "3:9 : .*missing ending quote"),
        ("a.pbtxt", b"item { id: 1 name: '\\377' }", "Couldn't parse string"),
        ("a.pbtxt", b"item { a" + b" { a" * 9999, "braces lie too deep"),
    ],
)
def test_a_file_of_names_that_is_none(name: str, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(UsageError, match=message):
        hr.adopt(labelled(tmp_path / "a.tfrecord", [0]), tmp_path / "ds", classes=tmp_path / name)
    with pytest.raises(NotThereError):
        hr.adopt(tmp_path / "a.tfrecord", tmp_path / "ds", classes=tmp_path / "no.txt")
    with pytest.raises(UsageError, match="one occurs twice"):
        hr.adopt(tmp_path / "a.tfrecord", tmp_path / "ds", classes=["a", "a"])


def test_texts_that_contradict_their_numbers(tmp_path: Path) -> None:
    records = [payload(**plain(k, image__class__text=("cat", "dog")[k % 2])) for k in range(9)]
    report, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert ds.class_names == ("0", "1", "2")
    assert any("don't agree" in note for note in report.notes)


def test_a_text_in_letters(tmp_path: Path) -> None:
    """visipedia's writer at its latest."""
    records = [payload(**plain(k, image__class__text=list(("cat", "cow", "dog")[k % 3]))) for k in range(6)]
    _, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert ds.class_names == ("cat", "cow", "dog")


def visipedia(k: int, **more: Any) -> bytes:
    labels = Ints([k % 2] * (k % 3))
    return payload(**boxed(k, image__object__bbox__label=labels, image__class__label=0, image__id=f"i{k}", **more))


def test_visipedias_zero_for_no_class(tmp_path: Path) -> None:
    report, ds = adopt(write(tmp_path / "a.tfrecord", [visipedia(k) for k in range(6)]), tmp_path / "ds")
    assert report.layout == "visipedia" and ds.class_names == () and set(ds.labels) == {-1}
    assert any("taken as no class" in note for note in report.notes)
    records = [visipedia(k, image__class__text="cat") for k in range(6)]
    _, ds = adopt(write(tmp_path / "b.tfrecord", records), tmp_path / "other")
    assert ds.class_names == ("cat",) and set(ds.labels) == {0}


def test_no_box_anywhere_says_nothing_of_boxes(tmp_path: Path) -> None:
    records = [payload(**boxed(0, image__class__label=k % 2, image__source_id=f"{k}")) for k in range(4)]
    _, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert not ds.has_boxes and ds.class_names == ("0", "1")


# --- boxes, keypoints and ids ----------------------------------------------------------------------------------------


def test_boxes_are_cut_as_packing_does_and_dropped_where_they_cannot_be(tmp_path: Path) -> None:
    corners = {
        "xmin": [-0.5, 0.5, 0.2, 0.1, float("nan"), 0.0],
        "ymin": [0.0, 0.5, 0.2, 0.1, 0.0, 0.0],
        "xmax": [0.5, 0.2, 0.2, 1.5, 0.5, 1.0],
        "ymax": [0.5, 0.9, 0.9, 9e30, 0.5, 1.0],
    }
    more: dict[str, Any] = {f"image__object__bbox__{name}": values for name, values in corners.items()}
    more["image__object__class__label"] = [1, 2, 3, 4, 5, 6]
    report, ds = adopt(write(tmp_path / "a.tfrecord", [payload(**boxed(1, **more))]), tmp_path / "ds")
    record = ds[0]
    assert record.boxes is not None
    assert np.allclose(record.boxes, [[0, 0, 20, 10], [4, 2, 40, 20], [0, 0, 40, 20]], atol=1e-5)
    assert ds.catalog["box_labels"].to_list() == [[0, 3, 5]] and ds.box_class_names == ("1", "2", "3", "4", "5", "6")
    assert (report.boxes, report.boxes_clipped, sum(report.boxes_dropped.values())) == (3, 2, 3)
    boxes = np.array([corners[side] for side in ("xmin", "ymin", "xmax", "ymax")], np.float32).T * [40, 20, 40, 20]
    sound = hr.Record(id="x", encoded=jpeg(20, 40), boxes=boxes[[0, 3, 5]])
    judge = pack([sound], tmp_path / "packed")[0]
    assert np.allclose(record.boxes, judge.boxes, atol=1e-5)


def test_pixels_that_were_broken_before_they_were_written(tmp_path: Path) -> None:
    """Adopting looks at headers alone: verify and the loader decode."""
    whole = jpeg(64, 64, quality=95)
    path = shard(tmp_path / "a.tfrecord", 6, {2: {"image__encoded": whole[: len(whole) // 2]}})
    hr.adopt(path, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    (damage,) = ds.verify().damaged
    assert (damage.shard, damage.record) == ("../a.tfrecord", 2) and "JPEG" in damage.reason
    with pytest.raises(DamageError, match=r"a\.tfrecord, record 2: .*JPEG"):
        list(ds.loader(batch_size=6, size=8))
    loader = ds.loader(batch_size=6, size=8, on_bad="skip", max_bad=1)
    assert sum(len(batch.ids) for batch in loader) == 5 and len(loader.skipped) == 1


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"image__object__bbox__xmax": [0.5, 0.5]}, "boxes have 1 xmin, 1 ymin, 2 xmax, 1 ymax"),
        ({"image__object__class__label": [1, 2]}, "1 boxes, 2 values of 'image/object/class/label'"),
        ({"image__object__class__label": ["a"]}, "'image/object/class/label' is 'a': none of the 2 classes"),
        ({"image__object__bbox__xmin": ["a"]}, "'image/object/bbox/xmin' is a bytes list, wanted float or int64"),
        ({"image__object__class__label": [-4]}, "'image/object/class/label' is -4: none of the 2 classes"),
        ({"image__encoded": None}, "no image: the record has no 'image/encoded', or nothing in it"),
        ({"image__encoded": b""}, "no image: the record has no 'image/encoded', or nothing in it"),
        ({"image__encoded": [TINY_PNG, TINY_PNG]}, "'image/encoded' has 2 values, wanted one image"),
        ({"image__encoded": 4}, "'image/encoded' is a int64 list, wanted bytes"),
        ({"image__encoded": b"hello, I am text"}, "not an image: text"),
        ({"image__encoded": jpeg(20, 40)[:60]}, None),
        ({"image__source_id": ["ab", "c"]}, "'image/source_id' has 2 values, wanted one"),
    ],
)
def test_a_record_that_cant_be_used_is_a_reject(more: dict[str, Any], reason: str | None, tmp_path: Path) -> None:
    bad = {key: value for key, value in boxed(4, **more).items() if value is not None}
    records = [payload(**boxed(k)) for k in range(10)]
    records.insert(7, payload(**bad))
    report, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    (reject,) = report.rejects
    assert reject.origin == "a.tfrecord:7" and (reason is None or reason in reject.reason)
    assert ds.catalog["id"].to_list() == [f"{k}" for k in range(10)]
    assert ds.store.address(8).endswith("a.tfrecord, record 9")


def test_what_is_no_example_is_a_reject(tmp_path: Path) -> None:
    records = [payload(**plain(k)) for k in range(20)]
    records[3:3] = [b"hello", b"\x0a\xff\xff\xff\xff"]
    report, _ = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert [reject.origin for reject in report.rejects] == ["a.tfrecord:3", "a.tfrecord:4"]
    assert "not a tf.train.Example" in report.rejects[0].reason
    nothing = write(tmp_path / "b.tfrecord", [b"hello", b"you"])
    with pytest.raises(UsageError, match=r"2 of 2 records are no tf\.train\.Example"):
        hr.adopt(nothing, tmp_path / "other")


def test_too_many_rejects(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tfrecord", 10, {3: {"image__encoded": b"no"}, 5: {"image__encoded": b"no"}})
    with pytest.raises(DataError, match=r"2 of 10 records are rejected, 1 are allowed") as caught:
        hr.adopt(path, tmp_path / "ds", progress=False)
    assert "a.tfrecord:3: not an image: text (header)" in str(caught.value) and not (tmp_path / "ds").exists()
    adopt(path, tmp_path / "ds", max_rejects=2)
    with pytest.raises(UsageError, match="max_rejects is -1"):
        hr.adopt(path, tmp_path / "other", max_rejects=-1)


def test_an_image_over_the_limit_is_a_reject(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [payload(**plain(0)), payload(**plain(1, image__encoded=jpeg(50, 50)))])
    report, _ = adopt(path, tmp_path / "ds", max_pixels=2000, max_rejects=1)
    assert "over the limit of 2000" in report.rejects[0].reason


def test_ids_are_made_unique_and_nothing_is_lost(tmp_path: Path) -> None:
    names = ["a", "", "a", "a.tfrecord:1", "b", "a"]
    path = write(tmp_path / "a.tfrecord", [payload(**plain(k, image__filename=name)) for k, name in enumerate(names)])
    report, ds = adopt(path, tmp_path / "ds")
    assert ds.catalog["id"].to_list() == [
        "a",
        "a.tfrecord:1",
        "a (a.tfrecord:2)",
        "a.tfrecord:1 (a.tfrecord:3)",
        "b",
        "a (a.tfrecord:5)",
    ]
    assert any("3 records have an id that another one has" in note for note in report.notes)
    assert any("1 records say no id" in note for note in report.notes)


def test_an_id_made_up_for_another_record_may_be_there_already(tmp_path: Path) -> None:
    names = ["a", "a (a.tfrecord:2)", "a"]
    path = write(tmp_path / "a.tfrecord", [payload(**plain(k, image__filename=name)) for k, name in enumerate(names)])
    _, ds = adopt(path, tmp_path / "ds")
    assert ds.catalog["id"].to_list() == ["a", "a (a.tfrecord:2)", "a (a.tfrecord:2)'"]


def test_a_label_map_counts_from_one_where_visipedia_counts_from_zero(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text("item { id: 1 name: 'left' }\nitem { id: 2 name: 'right' }\n")
    _, ds = adopt(write(tmp_path / "a.tfrecord", [visipedia(k) for k in range(6)]), tmp_path / "ds")
    assert ds.box_class_names == ("left", "right")
    assert ds.catalog["box_labels"].to_list() == [[], [1], [0, 0], [], [0], [1, 1]]


def test_files_of_one_name_in_two_folders(tmp_path: Path) -> None:
    records = [payload(image=TINY_PNG, label=k) for k in range(2)]
    paths = [write(tmp_path / "in" / name / "x.tfrecord", records) for name in ("a", "b")]
    _, ds = adopt(paths, tmp_path / "ds")
    assert ds.catalog["id"].to_list() == ["a/x.tfrecord:0", "a/x.tfrecord:1", "b/x.tfrecord:0", "b/x.tfrecord:1"]


def pointy(x: list[float], n: int = 1, **more: Any) -> bytes:
    y = Floats([0.5] * len(x))
    given = {"image__object__keypoint__x": Floats(x), "image__object__keypoint__y": y}
    return payload(**boxed(n, **given, **more))


def test_keypoints(tmp_path: Path) -> None:
    seen = {"image__object__keypoint__visibility": Ints([2, 1, 0, 2])}
    records = [
        pointy([0.25, 0.5, 0.75, 1.0], 2, **seen),
        pointy([], 1),
        pointy([0.1, 0.2], 1, image__object__keypoint__visibility=[7, 1]),
        pointy([0.1, 0.2], 1, image__object__keypoint__visibility=[1]),
        pointy([0.1, 0.2], 0, image__object__keypoint__visibility=[1, 1]),
    ]
    path = write(tmp_path / "a.tfrecord", records)
    report, ds = adopt(path, tmp_path / "ds", max_rejects=3, keypoint_names=("left_eye", "right_eye"))
    assert ds.keypoints == 2 and ds.keypoint_names == ("left_eye", "right_eye") and ds.flip_pairs == ((0, 1),)
    assert ds[0].keypoints is not None and ds[1].keypoints is not None
    assert ds[0].keypoints.tolist() == [[[10, 10, 2], [20, 10, 1]], [[0, 0, 0], [40, 10, 2]]]
    assert ds[1].keypoints.tolist() == [[[0, 0, 0], [0, 0, 0]]]
    reasons = [reject.reason for reject in report.rejects]
    assert "has v 7, wanted 0, 1 or 2" in reasons[0] and "keypoints have 2, 2, 1 values" in reasons[1]
    assert reasons[2] == "2 keypoints of 0 objects, wanted 2 of each"
    named, ds = adopt(path, tmp_path / "odd", max_rejects=3, keypoint_names=("a", "b", "c"))
    assert ds.keypoint_names == () and any("names don't fit" in note for note in named.notes)


def test_keypoints_of_a_dropped_box_go_with_it(tmp_path: Path) -> None:
    boxes = {"xmin": [0.5, 0.1], "ymin": [0.1, 0.1], "xmax": [0.2, 0.9], "ymax": [0.9, 0.9]}  # the first is reversed
    more: dict[str, Any] = {f"image__object__bbox__{name}": values for name, values in boxes.items()}
    path = write(tmp_path / "a.tfrecord", [pointy([0.25, 0.3, 0.75, 1.0], 2, **more)])
    report, ds = adopt(path, tmp_path / "ds")
    points = ds[0].keypoints
    assert points is not None and points.tolist() == [[[30, 10, 2], [40, 10, 2]]]
    assert dict(report.keypoints_dropped) == {"of dropped boxes": 2} and sum(report.boxes_dropped.values()) == 1


def test_the_image_is_found_behind_one_that_begins_alike(tmp_path: Path) -> None:
    """The catalog's address is that of the mapped key's bytes."""
    whole = jpeg(20, 40, quality=95)
    other = whole[:300] + bytes(len(whole) - 300)
    records = [payload(a_first=other, image=whole, label=0), payload(image=whole, label=0, z_last=other)]
    _, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert [ds[0].encoded, ds[1].encoded] == [whole, whole]


@pytest.mark.parametrize("place", ["a_before", "z_after"])
def test_large_images(place: str, tmp_path: Path) -> None:
    """They are cut out of the wire before the rest is parsed; another large key is left in it."""
    wholes = [jpeg(300, 400, seed=k, quality=95) for k in range(4)]
    assert min(map(len, wholes)) > 10_000
    records = [payload(**plain(k, image__encoded=whole), **{place: bytes(9000)}) for k, whole in enumerate(wholes)]
    _, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert [ds[k].encoded for k in range(4)] == wholes
    assert ds.catalog["id"].to_list() == [f"{k}.jpg" for k in range(4)] and ds.labels.tolist() == [0, 1, 2, 0]


def test_keypoints_without_visibility(tmp_path: Path) -> None:
    records = [pointy([0.25, 0.5]), pointy([], 1), pointy([], 0), pointy([0.1, 0.2, 0.3]), pointy([1.5, float("nan")])]
    report, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds", max_rejects=1)
    found = [ds[i].keypoints for i in range(4)]
    assert [points.tolist() for points in found if points is not None] == [
        [[[10, 10, 2], [20, 10, 2]]],
        [[[0, 0, 0]] * 2],
        [],
        [[[0, 0, 0]] * 2],
    ]
    assert report.rejects[0].reason == "3 keypoints of 1 objects, wanted 2 of each"
    assert dict(report.keypoints_dropped) == {"outside of the image": 1}


# --- compressed files ------------------------------------------------------------------------------------------------


def compressed(path: Path, kind: str, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if kind == "GZIP" else zlib.compress(data))
    return path


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_compressed_files_are_told_by_content(kind: str, tmp_path: Path) -> None:
    data = shard(tmp_path / "plain.tfrecord", 20).read_bytes()
    path = compressed(tmp_path / "train.tfrecord", kind, data)
    with pytest.raises(UsageError, match=rf"train\.tfrecord: is a {kind} file.*convert=True"):
        hr.adopt([tmp_path / "plain.tfrecord", path], tmp_path / "ds")
    report, ds = adopt([tmp_path / "plain.tfrecord", path], tmp_path / "ds", convert=True)
    assert report.stored == 40 and (ds.path / "00001-train.tfrecord").read_bytes() == data
    assert ds[33].encoded == ds[13].encoded
    path.unlink()
    (tmp_path / "plain.tfrecord").touch()
    shutil.copytree(tmp_path / "ds", tmp_path / "copy")  # with other times
    assert hr.Dataset(tmp_path / "copy").verify().ok


def test_several_gzip_members(tmp_path: Path) -> None:
    data = shard(tmp_path / "plain.tfrecord", 4).read_bytes()
    (tmp_path / "a.gz").write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    report, _ = adopt(tmp_path / "a.gz", tmp_path / "ds", convert=True)
    assert report.stored == 4


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_a_cut_stream_is_named_and_can_be_salvaged(kind: str, tmp_path: Path) -> None:
    data = shard(tmp_path / "plain.tfrecord", 40).read_bytes()
    path = compressed(tmp_path / "x", kind, data)
    whole = path.read_bytes()
    for size, least in ((len(whole) // 2, 10), (len(whole) - 1, 38), (len(whole) - 6, 38)):
        path.write_bytes(whole[:size])
        with pytest.raises(DamageError, match=rf"x, record 0, byte \d+: the {kind} stream is cut or damaged"):
            hr.adopt(path, tmp_path / "ds", convert=True, progress=False)
        report, ds = adopt(path, tmp_path / "ds", convert=True, salvage=True, overwrite=True)
        assert least <= report.stored <= 40 and ds[0].label == 0
        assert report.skipped[0].reason.startswith(f"the {kind} stream is cut")
        shutil.rmtree(tmp_path / "ds")


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_what_is_unpacked_has_a_bound(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.adopting import files

    monkeypatch.setattr(files, "_SMALL", 1 << 16)
    bomb = compressed(tmp_path / "x", kind, tfrecord.frame(payload(**plain(0), filler=bytes(1 << 24))))
    assert bomb.stat().st_size < 1 << 15
    with pytest.raises(DataError, match=r"x: unpacks to more than \d+ bytes; .*unpack it yourself"):
        hr.adopt(bomb, tmp_path / "ds", convert=True, progress=False)
    assert list(tmp_path.iterdir()) == [bomb]
    monkeypatch.setattr(files, "_SMALL", 1 << 25)
    assert adopt(bomb, tmp_path / "ds", convert=True)[0].stored == 1


def test_what_many_small_files_unpack_to_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.adopting import files

    shards = tmp_path / "in"
    shards.mkdir()
    for i in range(4):
        compressed(shards / f"{i}.tfrecord", "GZIP", tfrecord.frame(payload(**plain(i % 2), filler=bytes(90_000))))
    size = sum(path.stat().st_size for path in shards.iterdir())
    assert size < 4000
    monkeypatch.setattr(files, "_SMALL", 100_000)  # for each of them enough
    with pytest.raises(DataError, match=r"1\.tfrecord: unpacks to more than \d+ bytes"):
        hr.adopt(shards, tmp_path / "ds", convert=True, progress=False)
    monkeypatch.setattr(files, "_SMALL", 400_000)
    assert adopt(shards, tmp_path / "ds", convert=True)[0].stored == 4


def test_records_that_look_like_gzip(tmp_path: Path) -> None:
    """A record of 0x088b1f bytes begins as a gzip file does; its length CRC says better."""
    missing = 0x088B1F - len(payload(**plain(0), filler=bytes(0x088B1F - 1000)))
    records = [payload(**plain(0), filler=bytes(0x088B1F - 1000 + missing)), payload(**plain(1))]
    path = write(tmp_path / "a.tfrecord", records)
    assert path.read_bytes()[:3] == b"\x1f\x8b\x08"
    report, _ = adopt(path, tmp_path / "ds")
    assert report.stored == 2


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"x", b"hello, this is no record at all", bytes(5000), np.random.default_rng(0).bytes(3000), b"\xff" * 20]
)
def test_a_file_that_holds_no_records(data: bytes, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tfrecord"
    bad.write_bytes(data)
    with pytest.raises((DataError, UsageError), match=r"bad\.tfrecord"):
        hr.adopt(bad, tmp_path / "ds", progress=False)
    good = shard(tmp_path / "good.tfrecord", 5)
    with pytest.raises(DamageError, match=r"bad\.tfrecord, record 0, byte 0: "):
        hr.adopt([bad, good], tmp_path / "ds", progress=False)
    report, _ = adopt([bad, good], tmp_path / "ds", salvage=True)
    assert report.stored == 5 and report.skipped_bytes == len(data)


def test_a_huge_length(tmp_path: Path) -> None:
    """With a sound CRC, as only a writer can write it."""
    length = (1 << 63).to_bytes(8, "little")
    header = length + tfrecord.masked_crc(length).to_bytes(4, "little")
    records = [tfrecord.frame(payload(**plain(k))) for k in range(4)]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(records[0] + header + b"".join(records[1:]))
    with pytest.raises(DamageError, match="a record of 9223372036854775808 bytes begins here"):
        hr.adopt(path, tmp_path / "ds", progress=False)
    report, ds = adopt(path, tmp_path / "ds", salvage=True)
    assert report.stored == 4 and report.skipped_bytes == 12
    assert ds.catalog["origin"].to_list() == ["a.tfrecord:0", *(f"a.tfrecord:{k}" for k in (2, 3, 4))]


def test_what_the_verb_says_of_damage(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tfrecord", 6)
    second = [span for span in tfrecord.walk(path.read_bytes()) if isinstance(span, tfrecord.Span)][1]
    flip(path, second.offset + 40)
    ended = headrace("adopt", path, tmp_path / "ds")
    assert ended.code == 1 and f"{path}, record 1, byte {second.offset + 12}: payload CRC is 0x" in ended.err
    assert "--salvage" in ended.err and not (tmp_path / "ds").exists()
    ended = headrace("adopt", path, tmp_path / "ds", "--salvage", "--json")
    told = json.loads(ended.out)
    assert ended.code == 0 and told["stored"] == 5 and told["skipped_bytes"] == second.end - second.offset
    (damage,) = told["damaged"]
    assert (damage["record"], damage["begin"], damage["end"]) == (1, second.offset, second.end)


def test_a_hostile_varint_holds_nobody_up(tmp_path: Path) -> None:
    """Where a length of ten bytes at most is wanted, a megabyte of them: quadratic for who reads on."""
    records = [payload(**plain(k)) for k in range(20)]
    records[3:3] = [b"\x0a" + b"\xff" * 1_000_000, b"\x0a\x06\x0a" + b"\x80" * 300_000 + bytes(5000)]
    report, _ = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert [reject.origin for reject in report.rejects] == ["a.tfrecord:3", "a.tfrecord:4"]


@pytest.mark.parametrize("end", [0, 9, 5000, 400_000])
def test_a_file_that_is_cut_while_it_is_read(end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one line that says so, and not by the end of the process."""
    from headrace.adopting import scan
    from headrace.place import local

    path = write(tmp_path / "a.tfrecord", [payload(**plain(k), filler=bytes(4000)) for k in range(2000)])
    before = path.stat()
    assert before.st_size > 2 * local.BLOCK
    read = scan.Pass.read

    def cut(self: Any, chunk: Any) -> Any:
        os.truncate(path, end)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return read(self, chunk)

    monkeypatch.setattr(scan.Pass, "read", cut)
    with pytest.raises(
        StorageError, match=rf"a\.tfrecord: ends at byte \d+, it had {before.st_size} bytes: it was cut"
    ):
        hr.adopt(path, tmp_path / "ds", progress=False)
    assert list(tmp_path.iterdir()) == [path]


# --- files that change -----------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    paths = [shard(tmp_path / name, 400) for name in ("a.tfrecord", "b.tfrecord", "c.tfrecord")]
    adopt(paths, tmp_path / "ds")
    return tmp_path / "ds"


def test_another_time_alone_is_no_change(made: Path) -> None:
    os.utime(made.parent / "a.tfrecord", (1, 1))
    assert hr.Dataset(made).verify().ok


@pytest.mark.parametrize("what", ["longer", "shorter", "head", "tail", "gone", "another"])
def test_a_changed_file_is_named_when_the_dataset_is_opened(what: str, made: Path) -> None:
    path = made.parent / "b.tfrecord"
    data = bytearray(path.read_bytes())
    if what == "longer":
        path.write_bytes(data + tfrecord.frame(b""))
    elif what == "shorter":
        path.write_bytes(data[:-40])
    elif what in ("head", "tail"):
        data[100 if what == "head" else -100] ^= 1
        path.write_bytes(data)
    elif what == "another":
        path.write_bytes(bytes(len(data)))
    else:
        path.unlink()
    if what in ("head", "tail", "another"):
        os.utime(path, (1, 1))
    with pytest.raises(DamageError) as caught:
        hr.Dataset(made)
    said = str(caught.value)
    assert "1 of 3 shards are not those that were adopted" in said and f"\n  {path}: " in said and "adopt" in said
    assert "a.tfrecord" not in said
    damaged = verify(at(made)).damaged
    assert damaged and {d.shard for d in damaged} == {"../b.tfrecord"}
    ended = headrace("info", made)
    assert ended.code == 1 and "b.tfrecord" in ended.err


def test_a_change_in_the_middle_is_found_by_the_records_crc(made: Path) -> None:
    path = made.parent / "b.tfrecord"
    ds = hr.Dataset(made)
    row = ds.catalog.row(600, named=True)
    assert 1 << 16 < row["offset"] < path.stat().st_size - (1 << 16)
    flip(path, row["image_offset"] + 9)
    os.utime(path, (1, 1))
    ds = hr.Dataset(made)
    with pytest.raises(DamageError, match=r"b\.tfrecord, record 200, byte \d+: payload CRC"):
        ds[600]
    assert [(d.shard, d.record) for d in ds.verify().damaged] == [("../b.tfrecord", 200)]


def test_another_record_with_sound_crcs_is_told_by_the_index(tmp_path: Path) -> None:
    """All addresses hold, the ends are the same; only the CRC that the index promised tells."""
    path = shard(tmp_path / "a.tfrecord", 400)
    adopt(path, tmp_path / "ds")
    records = [payload(**plain(k)) for k in range(400)]
    records[200] = payload(**plain(200, image__class__label=1))
    write(path, records)
    ds = hr.Dataset(tmp_path / "ds")
    with pytest.raises(DamageError, match=r"a\.tfrecord, record 200, byte \d+: payload CRC is 0x"):
        ds[200]
    ((shard_name, record, reason),) = [(d.shard, d.record, d.reason) for d in ds.verify().damaged]
    assert (shard_name, record) == ("../a.tfrecord", 200) and reason.endswith(": another record")


def test_another_rejected_record_is_told_by_the_marks(tmp_path: Path) -> None:
    """No table knows it: only what the CRCs of all records are together tells."""
    path = shard(tmp_path / "a.tfrecord", 400, {200: {"image__encoded": b"no image"}})
    adopt(path, tmp_path / "ds")
    shard(path, 400, {200: {"image__encoded": b"an image"}})
    ((shard_name, record, reason),) = [(d.shard, d.record, d.reason) for d in verify(at(tmp_path / "ds")).damaged]
    assert (shard_name, record) == ("../a.tfrecord", None) and "not those that were adopted" in reason


def test_damage_in_a_rejected_record_is_found_too(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tfrecord", 30, {7: {"image__encoded": b"no image"}, 8: {"image__encoded": b"none"}})
    adopt(path, tmp_path / "ds")
    spans = [span for span in tfrecord.walk(path.read_bytes()) if isinstance(span, tfrecord.Span)]
    for number in (7, 8):
        for byte in (2, 30):
            flip(path, spans[number].offset + byte)
            found = [(d.shard, d.record) for d in verify(at(tmp_path / "ds")).damaged if d.record is not None]
            assert found[0] == ("../a.tfrecord", number)
            flip(path, spans[number].offset + byte)


@pytest.mark.parametrize(
    "skipped",
    [((0, 1 << 61),), ((0, 10),), ((5, 300), (10, 300), (0, 1 << 40)), ((1 << 60, 1 << 61),), ((300, 300),) * 1000],
)
def test_a_manifest_that_lies_of_what_was_skipped(skipped: Any, made: Path) -> None:
    """Soundly signed: verify ends, and says so."""
    first, *rest = manifest.read(at(made)).shards
    assert first.foreign is not None
    forged = replace(first, foreign=replace(first.foreign, skipped=skipped))
    rewrite_manifest(made, shards=(forged, *rest))
    damaged = verify(at(made)).damaged
    assert {d.shard for d in damaged} <= {first.name} and (bool(damaged) or all(a == b for a, b in skipped))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bytes": 1 << 61}, "bytes, it had 2305843009213693952"),
        ({"sha256": "0" * 64}, "not those that were adopted"),
        ({"split": "test"}, "in the index it is"),
        ({"name": "/dev/zero"}, "no regular file"),
        ({"name": "/proc/self/mem"}, "0 bytes, it had"),
        ({"name": "../ds"}, "no regular file"),
    ],
)
def test_a_manifest_that_lies_of_a_shard(changes: Any, reason: str, made: Path) -> None:
    first, *rest = manifest.read(at(made)).shards
    rewrite_manifest(made, shards=(replace(first, **changes), *rest))
    try:
        told = [d.reason for d in verify(at(made)).damaged]
    except DamageError as error:
        told = [str(error)]
    assert any(reason in one or "can't be" in one for one in told), told


def test_bits_of_what_adopt_wrote(made: Path) -> None:
    flip(made / "catalog.parquet", 100)
    with pytest.raises(DamageError, match=r"catalog\.parquet"):
        hr.Dataset(made).where("label = 0")
    flip(made.parent / "b.tfrecord", 100)
    damaged = {d.shard for d in verify(at(made)).damaged}
    assert damaged == {"catalog.parquet", "../b.tfrecord"}
    flip(made / "catalog.parquet", 100)
    flip(made / "headrace.index", 100)
    with pytest.raises(DamageError, match=r"headrace\.index"):
        hr.Dataset(made)
    assert {d.shard for d in verify(at(made)).damaged} == {"headrace.index", "../b.tfrecord"}
    flip(made / "headrace.json", 100)
    with pytest.raises((DamageError, UsageError)):
        hr.Dataset(made)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.adopting import scan

    path = shard(tmp_path / "a.tfrecord", 3)
    read = scan.Pass.read

    def grow(self: Any, chunk: Any) -> Any:
        with path.open("ab") as file:
            file.write(tfrecord.frame(payload(**plain(9))))
        return read(self, chunk)

    monkeypatch.setattr(scan.Pass, "read", grow)
    with pytest.raises(DataError, match="was written to while it was read"):
        hr.adopt(path, tmp_path / "ds", progress=False)


# --- images that are only named --------------------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A shard of visipedia's that holds no images."""
    records = []
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for k in range(6):
        (tmp_path / "photos" / "sub" / f"{k}.jpg").write_bytes(jpeg(10 + k, 20, seed=k))
        records.append(
            payload(
                image__filename=f"sub/{k}.jpg",
                image__id=f"{k}",
                image__width=20,
                image__height=10 + k,
                image__class__label=k % 2,
                image__class__text=("cat", "dog")[k % 2],
            )
        )
    return write(tmp_path / "a.tfrecord", records)


def test_named_images_are_read_when_asked_for(named: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only name their image \(image/filename\); pass images=DIR"):
        hr.adopt(named, tmp_path / "ds")
    _, ds = adopt(named, tmp_path / "ds", images=tmp_path / "photos")
    for k in range(6):
        assert ds[k].encoded == (tmp_path / "photos" / "sub" / f"{k}.jpg").read_bytes()
        assert ds[k].image.shape == (10 + k, 20, 3) and ds[k].label_name == ("cat", "dog")[k % 2]
    batch = ds.loader(batch_size=6, size=16, shuffle=False)[0]
    assert batch.images.shape == (6, 16, 16, 3) and batch.images[5].std() > 5


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_a_named_image_that_changes(what: str, named: Path, tmp_path: Path) -> None:
    _, ds = adopt(named, tmp_path / "ds", images=tmp_path / "photos")
    path = tmp_path / "photos" / "sub" / "3.jpg"
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(jpeg(13, 20, seed=99))
    assert ds[2].label == 0
    with pytest.raises(DamageError, match=r"a\.tfrecord, record 3: .*3\.jpg"):
        ds[3]
    ((shard_name, record),) = {(d.shard, d.record) for d in ds.verify().damaged}
    assert (shard_name, record) == ("../a.tfrecord", 3)


def test_nothing_outside_of_the_images_folder_is_opened(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(10, 10))
    (photos / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (photos / "good.jpg").write_bytes(jpeg(10, 10))
    (photos / "inside.jpg").symlink_to(photos / "good.jpg")
    names = [
        "good.jpg",
        "inside.jpg",
        "../secret.jpg",
        str(tmp_path / "secret.jpg"),
        "link.jpg",
        "none.jpg",
        "a\0b",
        "",
    ]
    records = [payload(image__filename=name, image__width=1, image__class__label=0) for name in names]
    report, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds", images=photos, max_rejects=8)
    assert ds.catalog["file"].to_list() == ["good.jpg", "inside.jpg"]
    assert [reject.origin for reject in report.rejects] == [f"a.tfrecord:{k}" for k in range(2, 8)]
    assert all("leads out of" in reject.reason for reject in report.rejects[:3])
    assert "no such file" in report.rejects[3].reason
    with pytest.raises(NotThereError, match="no such folder of images"):
        hr.adopt(tmp_path / "a.tfrecord", tmp_path / "other", images=tmp_path / "none")


def test_some_images_inside_and_some_named(named: Path, tmp_path: Path) -> None:
    records = [payload(image__encoded=TINY_PNG, image__filename="in", image__class__label=0)]
    both = [named, write(tmp_path / "b.tfrecord", records)]
    _, ds = adopt(both, tmp_path / "ds", images=tmp_path / "photos", map={"id": "image/filename"})
    assert ds.catalog["file"].to_list() == [*(f"sub/{k}.jpg" for k in range(6)), None]
    assert ds[6].image.shape == (2, 3, 3) and ds[0].image.shape == (10, 20, 3)


# --- the verb --------------------------------------------------------------------------------------------------------


def test_the_verb(tmp_path: Path) -> None:
    paths = [shard(tmp_path / "train-0.tfrecord", 5), shard(tmp_path / "val-0.tfrecord", 3)]
    ended = headrace("adopt", *paths, tmp_path / "ds")
    assert ended.code == 0 and ended.err == ""
    assert "8 seen = 8 stored + 0 rejected" in ended.out and "layout: image/encoded" in ended.out
    assert "splits by file name: train 1, val 1 files" in ended.out
    ended = headrace("info", tmp_path / "ds", "--json")
    told = json.loads(ended.out)
    assert told["splits"] == {"train": 5, "val": 3} and told["adopted"]["layout"] == "image/encoded"
    assert headrace("info", tmp_path / "ds").code == 0
    ended = headrace("verify", tmp_path / "ds")
    assert ended.code == 0 and "8 records, all sound" in ended.out


def test_the_verb_in_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", [payload(**boxed(k)) for k in range(6)])
    ended = headrace(
        "adopt", path, tmp_path / "ds", "--json", "--split", "test", "--box-classes", "a, b", "--map", "id="
    )
    told = json.loads(ended.out)
    assert ended.code == 0
    assert (told["seen"], told["stored"], told["rejected"], told["splits"]) == (6, 6, 0, {"test": 6})
    assert told["layout"] == "TF Object Detection" and told["box_classes"] == ["a", "b"] and told["boxes"] == 6
    assert told["map"]["boxes"].startswith("image/object/bbox/xmin,") and "id" not in told["map"]
    assert told["bytes"] == path.stat().st_size and told["skipped_bytes"] == 0
    assert told["bytes_per_second"] > 0 and told["seconds"] >= 0 and told["damaged"] == []


def test_a_packed_dataset_says_nothing_of_adoption(tmp_path: Path) -> None:
    ds = pack(shades(3), tmp_path / "ds")
    raw = json.loads((ds.path / manifest.FILE).read_text())
    assert "adopted" not in raw and "foreign" not in raw["shards"][0] and ds.manifest.adopted is None


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tfrecord", 5)
    _, one = adopt(path, tmp_path / "one")
    _, two = adopt(path, tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    records = [payload(**plain(k), more=1) for k in range(5)]
    _, other = adopt(write(path, records), tmp_path / "three")
    assert other.fingerprint != one.fingerprint


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    records = [payload(image__id=k + 7, **plain(k)) for k in range(3)]
    _, ds = adopt(write(tmp_path / "a.tfrecord", records), tmp_path / "ds")
    assert ds.catalog["id"].to_list() == ["7", "8", "9"]
