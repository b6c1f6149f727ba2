"""Source webdataset: what a sample is, what its files say, tars of every kind, damage with its byte, bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from contained import tar, tar_bytes
from drawn import image, jpeg, saved
from headrace.errors import DataError, HeadraceError, NotThereError, UsageError
from headrace.record import Part, Record, Reject, check_record
from headrace.sources import registry, shards, tars, webdataset
from headrace.sources.info import SourceInfo, collect
from mutated import mutated

A, B, C = (jpeg(seed=seed) for seed in range(3))
BLOCK = 512


def read(path: Any, **options: Any) -> tuple[list[Any], SourceInfo]:
    return collect(webdataset(path, **options))


def outcome(path: Path) -> list[Any]:
    """What comes of a file that may be damaged: nothing where it is refused as a whole, in our words."""
    try:
        return read(path)[0]
    except HeadraceError:
        return []


def good(path: Any, **options: Any) -> list[Record]:
    items, _ = read(path, **options)
    assert all(isinstance(item, Record) for item in items), items
    return items


def said(json_: Any, **options: Any) -> Any:
    """What comes of a sample's JSON: its record, or its Reject."""

    def inside(folder: Path) -> Any:
        text = json_ if isinstance(json_, str | bytes) else json.dumps(json_)
        data = text.encode() if isinstance(text, str) else text
        [item] = read(tar(folder / "x.tar", [("0.jpg", A), ("0.json", data)]), **options)[0]
        return item

    return inside


# --- samples ---------------------------------------------------------------------------------------------------------

# Members of a tar, and what must come out: id -> what of the record, or a word of the Reject's reason.
SAMPLES: dict[str, tuple[list[tuple[str, bytes]], dict[str, Any]]] = {
    "a class by number": ([("0.jpg", A), ("0.cls", b"3")], {"0.jpg": {"label": 3}}),
    "the class first, and a line's end": ([("0.cls", b"3\n"), ("0.jpg", A)], {"0.jpg": {"label": 3}}),
    "a class by name": ([("0.jpg", A), ("0.cls", b"cat")], {"0.jpg": {"label_name": "cat"}}),
    "no class": ([("0.jpg", A)], {"0.jpg": {"label": None, "label_name": None}}),
    "a class that is none": ([("0.jpg", A), ("0.cls", b"-1")], {"0.jpg": {"label_name": "-1"}}),
    "an empty class": ([("0.jpg", A), ("0.cls", b"")], {"0.jpg": "blank name"}),
    "a caption": ([("0.jpg", A), ("0.txt", "a caté\n".encode())], {"0.jpg": {"captions": ("a caté",)}}),
    "a caption in both": (
        [("0.jpg", A), ("0.txt", b"a\n"), ("0.json", b'{"captions": ["b", "a "]}')],
        {"0.jpg": {"captions": ("b", "a ")}},
    ),
    "a caption of no UTF-8": ([("0.jpg", A), ("0.txt", b"\xff")], {"0.jpg": ".txt: byte 0 is no UTF-8"}),
    "both of img2dataset": (
        [("0.jpg", A), ("0.txt", b"a"), ("0.json", b'{"caption": "a", "key": "0", "url": "u", "width": 56}')],
        {"0.jpg": {"captions": ("a",), "attributes": {"url": "u"}}},
    ),
    # The key ends at the first dot behind the last slash, so dots of folders are part of it.
    "dots in folders": ([("v1.0/a.b/0.jpg", A), ("v1.0/a.b/0.cls", b"1")], {"v1.0/a.b/0.jpg": {"label": 1}}),
    "an extension of two parts": ([("0.seg.png", B), ("0.jpg", A)], {"0.jpg": {}}),
    "that alone": ([("0.left.jpg", A)], {"0.left.jpg": {}}),
    "capitals": ([("0.JPG", A), ("0.CLS", b"1")], {"0.JPG": {"label": 1}}),
    "two images": ([("0.jpg", A), ("0.png", B)], {"0": "several images in the sample, .jpg, .png; pass image='jpg'"}),
    "no image": ([("0.cls", b"1")], {"0": "no image in the sample: it has .cls"}),
    "samples one after the other": (
        [("0.jpg", A), ("0.cls", b"1"), ("1.jpg", B), ("1.cls", b"2")],
        {"0.jpg": {"label": 1}, "1.jpg": {"label": 2}},
    ),
    # A key that comes back, after others or at once, is another sample; packing refuses its id.
    "a key again": ([("0.jpg", A), ("1.jpg", B), ("0.jpg", C)], {"0.jpg": {}, "1.jpg": {}}),
    "./ before names": ([("./0.jpg", A), ("./0.cls", b"1")], {"0.jpg": {"label": 1}}),
    "an absolute name": ([("/data/0.jpg", A)], {"data/0.jpg": {}}),
    "a way out": ([("../0.jpg", A), ("1.jpg", B)], {"../0.jpg": "leads out of the folder", "1.jpg": {}}),
    "control characters": ([("a\x1b[31m.jpg", A)], {"'a\\x1b[31m.jpg'": "control characters"}),
    "no UTF-8": ([("\udcff.jpg", A)], {"'\\udcff.jpg'": "halves of characters"}),
    # What macOS and others leave in a tar is nothing of a sample, nor is what WebDataset says of the tar.
    "junk": (
        [("._0.jpg", b"x"), (".DS_Store", b"x"), ("__MACOSX/._0.jpg", b"x"), ("__meta__", b"x"), ("0.jpg", A)],
        {"0.jpg": {}},
    ),
    "a long name": ([(f"{'n' * 200}/{'m' * 200}.jpg", A)], {f"{'n' * 200}/{'m' * 200}.jpg": {}}),
    "letters of any kind": ([("猫/é.jpg", A)], {"猫/é.jpg": {}}),
    "an empty image": ([("0.jpg", b"")], {"0.jpg": {}}),  # packing says so
}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, format: int, tmp_path: Path) -> None:
    members, wanted = SAMPLES[name]
    try:
        path = tar(tmp_path / "x.tar", members, format=format)
    except ValueError:  # ustar can't say names as long
        assert format == tarfile.USTAR_FORMAT and name == "a long name"
        return
    items, _ = read(path)
    found = {item.id: item for item in items}
    assert list(found) == list(wanted)
    for id_, what in wanted.items():
        item = found[id_]
        if isinstance(what, str):
            assert isinstance(item, Reject) and what in item.reason
            continue
        assert isinstance(item, Record) and check_record(item) is None
        for field, value in what.items():
            assert getattr(item, field) == value, field


def test_images_lie_in_the_tar(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("0.jpg", A), ("0.cls", b"0"), ("1.jpg", B)])
    records = good(path)
    assert [record.read() for record in records] == [A, B]
    with tarfile.open(path) as known:
        where = {member.name: (member.offset_data, member.size) for member in known}
    for record in records:
        assert record.encoded is None and record.part == Part(str(path), *where[record.id])
    assert [record.origin for record in records] == ["x.tar:0", "x.tar:2560"]


@pytest.mark.parametrize(
    ("json_", "wanted"),
    [
        ({"label": "cat"}, {"label_name": "cat"}),
        ({"label": 3}, {"label": 3}),
        ({"label": 0.25}, {"value": 0.25}),
        ({"value": 3}, {"value": 3.0}),
        ({"value": "3"}, {"value": None, "attributes": {"value": "3"}}),
        ({"labels": ["cat", "dog", "cat"]}, {"labels": ("cat", "dog")}),
        ({"labels": [0, 2]}, {"labels": ("0", "2")}),
        ({"labels": []}, {"labels": ()}),
        ({"label": "cat", "labels": ["dog"]}, {"labels": ("dog", "cat"), "label_name": None}),
        ({"label": 0, "labels": [2]}, {"labels": ("2", "0"), "label": None}),
        ({"label": None, "caption": None}, {"label_name": None, "captions": None, "attributes": {}}),
        ({"captions": ["a", "b"], "text": "a"}, {"captions": ("a", "b")}),
        ({"group": "p7"}, {"group": "p7"}),
        ({"key": "0", "url": "u"}, {"attributes": {"url": "u"}}),
        ({"key": "other"}, {"attributes": {"key": "other"}}),
        ({"exif": {"a": [1]}, "punsafe": 0.5}, {"attributes": {"exif": {"a": [1]}, "punsafe": 0.5}}),
        ({"width": 56, "height": 40}, {"size": None, "attributes": {}}),  # it matters to boxes alone
        ({"bbox": [[1, 2, 3, 4]], "width": 56, "height": 40}, {"size": (40, 56), "box_labels": None}),
        ({"bbox": [[1, 2, 3, 4]], "labels": ["cat"]}, {"box_labels": ("cat",), "labels": None}),
        ({"objects": {"bbox": [], "category": []}}, {"box_labels": ()}),
        ({"objects": {"bbox": [], "keypoints": []}}, {"keypoints": None, "attributes": {}}),
        ({"captions": []}, {"captions": ()}),
        (
            {"objects": {"bbox": [[1, 2, 3, 4]], "category": [1], "iscrowd": [True], "area": [12]}, "label": "x"},
            {"box_labels": ("1",), "label_name": "x", "attributes": {"is_crowd": [1], "area": [12]}},
        ),
        # One mapping for each says the same; what only some have is null for the others.
        (
            {
                "objects": [
                    {"bbox": [1, 2, 3, 4], "category": "a", "difficult": True},
                    {"bbox": [0, 0, 1, 1], "category": "b"},
                ]
            },
            {"box_labels": ("a", "b"), "attributes": {"difficult": [1, -1]}},
        ),
    ],
)
def test_what_json_says(json_: Any, wanted: dict[str, Any], tmp_path: Path) -> None:
    record = said(json_)(tmp_path)
    assert isinstance(record, Record) and check_record(record) is None
    for field, value in wanted.items():
        assert getattr(record, field) == value, field


def test_boxes_are_x_y_width_height(tmp_path: Path) -> None:
    objects = {
        "bbox": [[1, 2, 3.5, 4], [0, 0, 1, 1]],
        "keypoints": [[5, 6, 2, 0, 0, 0], [1, 1, 1, 2, 2, 2]],
        "segmentation": [[[2, 3, 12, 3, 12, 11]], {"size": [2, 2], "counts": [1, 3]}],
    }
    record = said({"objects": objects})(tmp_path)
    assert record.boxes.dtype == np.float32 and record.boxes.tolist() == [[1, 2, 4.5, 6], [0, 0, 1, 1]]
    assert record.keypoints.tolist() == [[[5, 6, 2], [0, 0, 0]], [[1, 1, 1], [2, 2, 2]]]
    assert record.masks[0].polygons[0].tolist() == [[2, 3], [12, 3], [12, 11]]
    assert record.masks[1].runs.tolist() == [1, 3] and record.masks[1].size == (2, 2)
    assert check_record(record) is None and record.attributes == {}
    pressed = objects | {"segmentation": [[[2, 3, 12, 3]], {"size": [2, 2], "counts": "13"}]}
    record = said({"objects": pressed})(tmp_path)  # a polygon of two corners covers nothing
    assert record.masks[0] is None and record.masks[1].runs.tolist() == [1, 3] and record.attributes == {}
    odd = objects | {"keypoints": [[1, 2], [1]], "segmentation": [{"size": [2, 2], "counts": "ab"}, None]}
    record = said({"objects": odd})(tmp_path)  # what is none of these stays as it is
    assert record.keypoints is None and record.masks is None
    assert record.attributes == {name: odd[name] for name in ("keypoints", "segmentation")}


@pytest.mark.parametrize(
    ("json_", "reason"),
    [
        ("", "line 1, column 1: no sound JSON"),
        ("{", "no sound JSON"),
        ("[1]", "wanted an object"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        (b"\xff\xfe{\x00", ".json: byte 0 is no UTF-8"),
        ("[" * 100_000, "thousands deep"),
        ('{"a": 1' + "0" * 5000 + "}", "limit"),
        ({"label": ["a"]}, "the class is ['a'], wanted a name or a number"),
        ({"label": -1}, "the class is -1"),
        ({"label": True}, "the class is True"),
        ({"label": " "}, "blank name"),
        ({"labels": "a"}, "wanted a list of classes"),
        ({"caption": 3}, "the caption is 3"),
        ({"objects": 3}, "wanted lists by name"),
        ({"objects": {"category": ["a"]}}, "no bbox"),
        ({"objects": {"bbox": [[1, 2, 3]]}}, "wanted x, y, width and height"),
        ({"objects": {"bbox": [[1, 2, "3", 4]]}}, "wanted x, y, width and height"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "category": []}}, "bbox: 1, category: 0; wanted lists of one length"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "category": "a"}}, "category: no list"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "category": [None]}}, "the class is None"),
    ],
)
def test_json_that_makes_no_sense(json_: Any, reason: str, tmp_path: Path) -> None:
    item = said(json_)(tmp_path)
    assert isinstance(item, Reject) and reason in item.reason and item.origin == "x.tar:0" and item.id == "0.jpg"


def test_boxes_beyond_numbers_are_refused_by_packing(tmp_path: Path) -> None:
    record = said('{"bbox": [[0, 0, 1e308, 1e308], [0, 0, -3, 1]]}')(tmp_path)
    assert "not finite" in str(check_record(record))


def test_names_of_classes(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("0.jpg", A), ("0.cls", b"1"), ("1.jpg", B), ("1.cls", b"2")])
    assert [record.label for record in good(path)] == [1, 2]
    items, info = read(path, class_names=["cat", "dog"])
    assert items[0].label_name == "dog" and info.class_names == ("cat", "dog")
    assert items[1].reason == "the class is 2, and there are 2: cat, dog"
    (tmp_path / "classnames.txt").write_text("cat\ndog\ncow\n")
    items, info = read(path)
    assert [record.label_name for record in items] == ["dog", "cow"] and info.class_names == ("cat", "dog", "cow")
    assert "class names of classnames.txt" in info.notes
    (tmp_path / "classnames.txt").write_text("cat\ncat\n")
    with pytest.raises(UsageError, match="one occurs twice"):
        webdataset(path)


def test_the_image_may_be_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("0.jpg", A), ("0.seg.png", B), ("1.jpg", C)])
    items, info = read(path, image=".SEG.png")
    assert items[0].id == "0.seg.png" and items[0].read() == B
    assert items[1].reason == "no .seg.png in the sample: it has .jpg"
    assert info.skipped == {".jpg": 1}


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        for name, kind in (("d", tarfile.DIRTYPE), ("0.jpg", tarfile.SYMTYPE), ("1.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            out.addfile(info)
        for name, data in (("2.jpg", A), ("2.npy", b"x"), ("LICENSE", b"x"), ("p", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == "p":
                info.type = tarfile.FIFOTYPE
            out.addfile(info, io.BytesIO(data))
    items, info = read(tmp_path / "x.tar")
    assert [item.id for item in items] == ["2.jpg"] and items[0].read() == A
    assert info.skipped == {"links": 2, ".npy": 1, "files without an extension": 1, "devices": 1}


# --- which tars, and their splits ------------------------------------------------------------------------------------


def test_tars_of_a_folder_and_of_a_pattern(tmp_path: Path) -> None:
    for i in range(11):
        tar(tmp_path / "in" / f"s-{i:03d}.tar", [(f"{i}.jpg", A)])
    (tmp_path / "in" / "._s-000.tar").write_bytes(b"x")
    (tmp_path / "in" / "README.md").write_bytes(b"x")
    wanted = [f"{i}.jpg" for i in range(11)]
    assert [record.id for record in good(tmp_path / "in")] == wanted
    assert [record.id for record in good(tmp_path / "in" / "s-{000..010}.tar")] == wanted
    assert [record.id for record in good(str(tmp_path / "in" / "s-{002,001}.tar"))] == ["2.jpg", "1.jpg"]
    with pytest.raises(NotThereError, match=r"s-011\.tar: no such file"):
        webdataset(tmp_path / "in" / "s-{000..011}.tar")
    with pytest.raises(UsageError, match=r"no file in it ends in \.tar, \.tar\.gz, \.tgz"):
        webdataset(empty(tmp_path))


def empty(tmp_path: Path) -> Path:
    (tmp_path / "none").mkdir()
    return tmp_path / "none"


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("a-{2..0}.tar", ["a-2.tar", "a-1.tar", "a-0.tar"]),
        ("{x,y}/{0..1}.tar", ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]),
        ("a{b}c", ["a{b}c"]),
        ("a{", ["a{"]),
    ],
)
def test_patterns(pattern: str, paths: list[str]) -> None:
    assert [str(path) for path in shards.expanded(pattern)] == paths


@pytest.mark.parametrize("pattern", ["{0..999999999999}", "{0..999}{0..999}"])
def test_patterns_have_an_end(pattern: str) -> None:
    with pytest.raises(UsageError, match="more than 100000 files"):
        shards.expanded(pattern)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-000.tar", "val-000.tar"], ["train", "val"]),
        (["train/0.tar", "validation/0.tar", "test/0.tar"], ["train", "val", "test"]),
        (["cats_training_0.tar", "cats_dev_0.tar"], ["train", "val"]),
        (["data/train-00000-of-00002.tar", "data/eval-00000-of-00001.tar"], ["train", "test"]),
        (["data/extra.v2-00000-of-00001.tar"], ["extra_v2"]),
        (["trainer.tar", "latest.tar"], [None, None]),  # words, not letters
        (["000.tar", "001.tar"], [None, None]),
        (["000.tar", "val.tar"], ["train", "val"]),
    ],
)
def test_splits_by_name(names: list[str], splits: list[str | None], tmp_path: Path) -> None:
    found, told, notes = shards.divided([shards.Shard(tmp_path / name, name) for name in names])
    assert [shard.split for shard in found] == splits
    usual = [name for name in ("train", "val", "test", "extra_v2") if name in splits]
    assert told == (tuple(usual) or None)
    assert any("no split in the name, taken as train" in note for note in notes) == (names == ["000.tar", "val.tar"])


def test_packed_with_its_splits(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("val", 5)):
        members = [(f"{seed + i}.jpg", jpeg(seed=seed + i)) for i in range(3)]
        tar(tmp_path / "in" / f"{split}-0.tar", [*members[:2], ("1.jpg", A), *members[2:]] if seed else members)
    report = hr.pack(webdataset(tmp_path / "in"), tmp_path / "out", max_rejects=1)
    assert dict(report.splits) == {"train": 3, "val": 3}
    assert [reject.reason for reject in report.rejects] == ["duplicate id '1.jpg', first at train-0.tar:1536"]


# --- compressed, old, sparse, long -----------------------------------------------------------------------------------


def test_compressed(tmp_path: Path) -> None:
    data = tar_bytes([("0.jpg", A), ("0.cls", b"1"), ("0.bin", bytes(5_000_000)), ("1.jpg", B)])
    for name in ("x.tar.gz", "x.tgz"):
        (tmp_path / name).write_bytes(gzip.compress(data))
        records = good(tmp_path / name)
        assert [(record.id, record.read(), record.label) for record in records] == [("0.jpg", A, 1), ("1.jpg", B, None)]
        assert all(record.encoded for record in records)
    assert [record.id for record in good(tmp_path)] == ["0.jpg", "1.jpg"] * 2


def test_bytes_of_a_compressed_image_are_joined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unpacked piece by piece is not copied with every piece: that took time by the image's size squared."""
    copied, more = 0, tars._Unpacked._more

    class Piece(bytes):
        def __radd__(self, held: bytes) -> bytes:
            nonlocal copied
            copied += len(held)
            return held + bytes(self)

    monkeypatch.setattr(tars._Unpacked, "_more", lambda unpacked: Piece(more(unpacked)))
    size = 8 << 20
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_bytes([("0.jpg", bytes(size))]), compresslevel=0))
    (record,) = good(tmp_path / "x.tar.gz")
    assert record.encoded == bytes(size) and copied < size


@pytest.mark.parametrize(("head", "kind"), [(b"BZh9", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")])
def test_compressed_by_others(head: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(head + bytes(600))
    with pytest.raises(DataError, match=f"is compressed by {kind}, wanted a plain tar"):
        read(tmp_path / "x.tar")


def test_a_cut_gzip(tmp_path: Path) -> None:
    data = gzip.compress(tar_bytes([(f"{i}.jpg", jpeg(seed=i)) for i in range(20)]), 0)
    (tmp_path / "x.tgz").write_bytes(data[: len(data) // 2])
    items, _ = read(tmp_path / "x.tgz")
    assert [item.id for item in items[:8]] == [f"{i}.jpg" for i in range(8)]
    assert isinstance(items[-1], Reject) and "the gzip stream is cut" in items[-1].reason


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """GNU's old form, and pax's: their bytes don't lie together. What comes after them is read."""
    header = bytearray(tarfile.TarInfo("0.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[124:136] = b"%011o\0" % 100
    header[482] = 1  # one more block of holes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    old = bytes(header) + bytes(BLOCK) + bytes(BLOCK)
    (tmp_path / "x.tar").write_bytes(old + tar_bytes([("1.jpg", B)]))
    items, _ = read(tmp_path / "x.tar")
    assert "stored with its holes left out" in items[0].reason and items[0].id == "0.jpg" and items[1].read() == B
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo("GNUSparseFile.0/0.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "0.jpg", "GNU.sparse.realsize": "9"}
        info.size = 3
        made.addfile(info, io.BytesIO(b"abc"))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    [item] = read(tmp_path / "x.tar")[0]
    assert item.id == "0.jpg" and "stored with its holes left out" in item.reason


def test_pax_headers_say_names_and_sizes(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"comment": "of all"}) as made:
        info = tarfile.TarInfo("short.jpg")
        info.pax_headers = {"path": "dir/long=name.jpg", "size": str(len(A))}
        info.size = len(A)
        made.addfile(info, io.BytesIO(A))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    [record] = good(tmp_path / "x.tar")
    assert record.id == "dir/long=name.jpg" and record.read() == A


def test_one_tar_after_the_other(tmp_path: Path) -> None:
    """cat a.tar b.tar: WebDataset and tar itself read the first of them alone."""
    (tmp_path / "x.tar").write_bytes(tar_bytes([("0.jpg", A)]) + tar_bytes([("1.jpg", B)]))
    assert [(record.id, record.read()) for record in good(tmp_path / "x.tar")] == [("0.jpg", A), ("1.jpg", B)]


# --- damage ----------------------------------------------------------------------------------------------------------


def sixes() -> bytes:
    """Six samples of two files, each of a header, 900 bytes and the fill: 4 blocks an image, 2 a class."""
    members = [
        m for i in range(6) for m in ((f"{i}.jpg", jpeg(seed=i)[:900].ljust(900, b"\0")), (f"{i}.cls", b"%d" % i))
    ]
    return tar_bytes(members)


STEP = 5 * BLOCK  # of a sample: 1 + 2 blocks of its image, 1 + 1 of its class


@pytest.mark.parametrize("what", [b"\xff", b"\0"])
@pytest.mark.parametrize(
    ("begin", "n", "lost"),
    [
        (2 * STEP, BLOCK, {2}),  # the header of an image: its class alone is left
        (2 * STEP + 3 * BLOCK, BLOCK, {2}),  # that of its class, without which it would be an image without a label
        (2 * STEP, STEP, {2}),  # all of a sample
        (1 * STEP + 3 * BLOCK, STEP, {1, 2}),  # the end of one, the beginning of another
        (5 * STEP, STEP, {5}),  # the last
        (0, BLOCK, {0}),
    ],
)
def test_a_hole(what: bytes, begin: int, n: int, lost: set[int], tmp_path: Path) -> None:
    whole = sixes()
    (tmp_path / "x.tar").write_bytes(whole[:begin] + what * n + whole[begin + n :])
    items, _ = read(tmp_path / "x.tar")
    records = [item for item in items if isinstance(item, Record)]
    assert {record.label for record in records} == set(range(6)) - lost
    assert all(record.id == f"{record.label}.jpg" for record in records)
    rejects = [item for item in items if isinstance(item, Reject)]
    if begin == 5 * STEP and what == b"\0":
        assert not rejects  # nothing tells it from the end
        return
    assert any(item.reason.startswith(f"bytes {begin} to ") and item.origin == f"x.tar:{begin}" for item in rejects)


def test_a_long_hole(tmp_path: Path) -> None:
    """The next header is searched for in pieces, and may lie across two of them."""
    whole = sixes()
    for n in (3_000_000, (1 << 20) + 300):
        (tmp_path / "x.tar").write_bytes(whole[: 2 * STEP] + b"\xff" * n + whole[3 * STEP :])
        items, _ = read(tmp_path / "x.tar")
        assert [item.label for item in items if isinstance(item, Record)] == [0, 1, 3, 4, 5]


def test_a_hole_in_an_image_is_for_the_decoder(tmp_path: Path) -> None:
    whole = sixes()
    at = 2 * STEP + BLOCK
    (tmp_path / "x.tar").write_bytes(whole[:at] + bytes(BLOCK) + whole[at + BLOCK :])
    assert len(good(tmp_path / "x.tar")) == 6


@pytest.mark.parametrize("cut", range(0, 7 * STEP, 200))
def test_a_cut_tar(cut: int, tmp_path: Path) -> None:
    """What is whole comes; what is cut is said, but between two samples, where only the end mark is missing."""
    (tmp_path / "x.tar").write_bytes(sixes()[:cut])
    if not cut:
        with pytest.raises(DataError, match="is empty, 0 bytes"):
            read(tmp_path / "x.tar")
        return
    items, info = read(tmp_path / "x.tar")
    records = [item for item in items if isinstance(item, Record)]
    assert [record.label for record in records] == list(range(len(records)))
    wanted = sum(cut > i * STEP + 4 * BLOCK for i in range(6))  # up to the one byte of a class
    if STEP < cut < STEP + BLOCK + 900:
        wanted = 0  # with a fault behind it, and nothing to tell by what a sample has
    assert len(records) == wanted
    for record in records:
        assert len(record.read()) == 900
    told = [item for item in items if isinstance(item, Reject)] or [n for n in info.notes if "two blocks" in n]
    assert bool(told) == (cut < 6 * STEP + BLOCK)


def test_no_tar_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"<html>404</html>" * 100)
    items, _ = read(tmp_path / "x.tar")
    assert [type(item) for item in items] == [Reject] and "no sound header at byte 0" in items[0].reason
    (tmp_path / "x.tar").write_bytes(tar_bytes([]))
    assert read(tmp_path / "x.tar")[0] == []


def test_sizes_that_lie(tmp_path: Path) -> None:
    """Negative, and beyond everything, in GNU's binary numbers."""
    for size in (-512, 1 << 80):
        header = bytearray(tarfile.TarInfo("0.jpg").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = (size % (1 << 96)).to_bytes(12, "big")
        header[124] = 0xFF if size < 0 else 0x80
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = bytes(header) + tar_bytes([("1.jpg", A)])
        (tmp_path / "x.tar").write_bytes(data)
        items, _ = read(tmp_path / "x.tar")
        assert isinstance(items[0], Reject) and items[0].origin == "x.tar:0"
        (tmp_path / "x.tgz").write_bytes(gzip.compress(data))
        items, _ = read(tmp_path / "x.tgz")
        assert isinstance(items[0], Reject)


def test_names_without_end_are_not_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as made:
        info = tarfile.TarInfo("n" * 100_000 + ".jpg")
        info.size = len(A)
        made.addfile(info, io.BytesIO(A))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    [item] = read(tmp_path / "x.tar")[0]
    assert isinstance(item, Reject)


def test_nothing_said_of_images_in_folders_is_told(tmp_path: Path) -> None:
    _, info = read(tar(tmp_path / "x.tar", [("cat/0.jpg", A), ("dog/1.jpg", B)]))
    assert any("names lie in folders (cat, dog)" in note for note in info.notes)
    _, info = read(tar(tmp_path / "x.tar", [("cat/0.jpg", A), ("cat/0.cls", b"1")]))
    assert not info.notes


WHOLE = tar_bytes(
    [
        *(("0.jpg", A), ("0.cls", b"1"), ("0.json", b'{"caption": "a", "bbox": [[1, 2, 3, 4]], "width": 56}')),
        *((f"{'d' * 120}/1.png", saved(image(4, 4), "PNG")), (f"{'d' * 120}/1.txt", b"text")),
        *(("2.jpg", B), ("2.json", b'{"objects": {"bbox": [[1, 2, 3, 4]], "category": ["a"]}}')),
    ],
    format=tarfile.GNU_FORMAT,
)


@pytest.mark.parametrize("packed", [False, True])
def test_mutated_tars(packed: bool, tmp_path: Path) -> None:
    """200 damaged copies: each ends, in Records and Rejects or an error of ours, and reads this file alone."""
    path = tmp_path / ("x.tgz" if packed else "x.tar")
    records = 0
    for seed in range(200):
        path.write_bytes(mutated(gzip.compress(WHOLE, mtime=0) if packed else WHOLE, seed))
        for item in outcome(path):
            if isinstance(item, Record):
                records += 1
                assert item.path is None and (item.part is None or item.part.path == str(path))
                assert ".." not in item.id.split("/") and not item.id.startswith("/")
                item.read()
                check_record(item)
    assert records > (30 if packed else 200)  # what is sound is kept; of a gzip only what comes before the damage


# --- recognised, and its memory --------------------------------------------------------------------------------------


def test_recognised(tmp_path: Path) -> None:
    path = tar(tmp_path / "in" / "s-0.tar", [("readme.txt", b"x"), ("0.jpg", A)])
    tar(tmp_path / "in" / "s-1.tar", [("1.jpg", A)])
    for one in (path, tmp_path / "in", tmp_path / "in" / "s-{0..1}.tar"):
        entry, why = registry.guess(one)
        assert entry.name == "webdataset" and "s-0.tar is a tar with 0.jpg" in why
    tar(tmp_path / "no" / "x.tar", [("a.txt", b"x")])
    assert registry.FORMATS["webdataset"].recognise(tmp_path / "no") is None
    (tmp_path / "no" / "x.tar").write_bytes(b"no tar")
    assert registry.FORMATS["webdataset"].recognise(tmp_path / "no" / "x.tar") is None
    assert registry.FORMATS["webdataset"].recognise(empty(tmp_path)) is None


_PEAK = """
import sys
from pathlib import Path
from headrace.sources import webdataset
n = sum(1 for _ in webdataset(sys.argv[1]))
# Not ru_maxrss: that is no less than what the process took that started this one.
print(n, int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def peak(path: Path) -> tuple[int, int]:
    """(samples, MB at most) of reading a tar in a process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read the peak of memory from")
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    samples, megabytes = map(int, done.stdout.split())
    return samples, megabytes


def test_memory_does_not_grow_with_the_tar(tmp_path: Path) -> None:
    """4 GB of images, most of them holes of the file system, and 20,000 samples, in 150 MB more than nothing takes."""
    tar(tmp_path / "small.tar", [("0.jpg", A)])
    big = tmp_path / "big.tar"
    with big.open("wb") as out:
        for i in range(20_000):
            info = tarfile.TarInfo(f"{i:06d}.jpg")
            info.size = 200_000
            out.write(info.tobuf())
            out.seek(-(-info.size // BLOCK) * BLOCK, 1)
            info = tarfile.TarInfo(f"{i:06d}.cls")
            info.size = 1
            out.write(info.tobuf() + b"1".ljust(BLOCK, b"\0"))
        out.write(bytes(2 * BLOCK))
    assert big.stat().st_size > 4_000_000_000
    _, nothing = peak(tmp_path / "small.tar")
    samples, most = peak(big)
    assert samples == 20_000 and most < nothing + 20


def test_memory_does_not_grow_with_what_is_unpacked(tmp_path: Path) -> None:
    """200 MB of what nobody reads, packed a thousandfold, before an image and after it."""
    tar(tmp_path / "small.tar", [("0.jpg", A)])
    with gzip.open(tmp_path / "big.tgz", "wb") as out:
        for name in ("0", "1"):
            info = tarfile.TarInfo(f"{name}.bin")
            info.size = 100 << 20
            out.write(info.tobuf())
            for _ in range(100):
                out.write(bytes(1 << 20))
            out.write(tar_bytes([(f"{name}.jpg", A)])[: 3 * BLOCK])
        out.write(bytes(2 * BLOCK))
    _, nothing = peak(tmp_path / "small.tar")
    samples, most = peak(tmp_path / "big.tgz")
    assert samples == 2 and most < nothing + 30


def test_a_tar_is_what_tarfile_reads(tmp_path: Path) -> None:
    """Members as the standard library finds them, in every format, with names of all lengths."""
    members = [(f"{'d' * n}/{'f' * n}{n}.jpg", bytes(n)) for n in (1, 50, 90, 99, 100, 101, 150, 300)]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tar(tmp_path / "x.tar", members, format=format)
        with tars.opened(path) as opened:
            found = [(p.name, p.offset, p.size) for p in opened.pieces() if isinstance(p, tars.Member)]
        with tarfile.open(path) as known:
            assert found == [(member.name, member.offset_data, member.size) for member in known]
