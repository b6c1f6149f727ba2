"""The manifest: what is written is read, what is not what was written is refused, and the files for other tools."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amount import bits
from headrace.errors import DamageError, NotThereError, StorageError, UsageError
from headrace.format import manifest
from headrace.format.manifest import Manifest, ShardEntry
from headrace.place.open import at


def shard(split: str, i: int, n: int, records: int) -> ShardEntry:
    return ShardEntry(
        name=f"{split}-{i:05d}-of-{n:05d}.tfrecord", split=split, records=records, bytes=100 * records, sha256="ab" * 32
    )


MADE = Manifest(
    headrace_version="1",
    seen=8,
    stored=7,
    rejected=1,
    classes=("Kätzchen", "dog's\\"),
    box_classes=(),
    channels=3,
    shards=(shard("train", 0, 2, 3), shard("train", 1, 2, 2), shard("val", 0, 1, 2)),
    pack_options={"size": [1, 2], "quality": 95},
    schema={"id": "String"},
    files={"catalog.parquet": "cd" * 32, "headrace.index": "ef" * 32},
    crc32c={"catalog.parquet": 1, "headrace.index": 2},
)


def written(folder: Path, data: bytes) -> Path:
    (folder / manifest.FILE).write_bytes(data)
    return folder


def test_round_trip(tmp_path: Path) -> None:
    assert manifest.read(at(written(tmp_path, MADE.to_bytes()))) == MADE


def test_it_can_be_read_by_eye() -> None:
    text = MADE.to_bytes().decode()
    assert "Kätzchen" in text and text.endswith("}\n") and text.count("\n") > 20
    keys = list(json.loads(text))
    assert (keys[0], keys[-1]) == ("format_version", "sha256")


def test_splits_are_counted_in_their_order() -> None:
    assert MADE.splits == {"train": 5, "val": 2} and list(MADE.splits) == ["train", "val"]
    assert MADE.shards[0].index_name == "train-00000-of-00002.idx"


@pytest.mark.exhaustive
def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = MADE.to_bytes()
    missed, told = [], []
    for (bit,) in bits(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            manifest.read(at(written(tmp_path, bytes(flipped))))
            missed.append(bit)
        except (DamageError, UsageError) as error:
            told.append(str(error))
    assert missed == []
    assert all(error.startswith(f"{tmp_path / manifest.FILE}: ") for error in told)


@pytest.mark.parametrize("length", [0, 1, 100, len(MADE.to_bytes()) - 2])
def test_cut(tmp_path: Path, length: int) -> None:
    with pytest.raises(DamageError, match=r"headrace\.json: not a sound manifest"):
        manifest.read(at(written(tmp_path, MADE.to_bytes()[:length])))


def changed(**changes: Any) -> bytes:
    raw = json.loads(MADE.to_bytes()) | changes
    return json.dumps({name: value for name, value in raw.items() if value is not ...}).encode()


# (bytes, error, what it says)
REFUSED = [
    (changed(format_version=2), UsageError, "format 2, this headrace reads format 1; use the headrace that packed it"),
    (changed(format_version=...), DamageError, "not a sound manifest"),
    (changed(sha256=...), DamageError, "not a sound manifest"),
    (changed(sha256=None), DamageError, "its sha256 is not the one it holds"),
    (changed(stored=8), DamageError, "its sha256 is not the one it holds"),
    (b"[]", DamageError, "not a sound manifest"),
    (b"3", DamageError, "not a sound manifest"),
    (b"\xff\xfe\xff", DamageError, "not a sound manifest"),
    (b"[" * 100_000, DamageError, "not a sound manifest"),
]


@pytest.mark.parametrize(("data", "kind", "reason"), REFUSED)
def test_refused(tmp_path: Path, data: bytes, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind) as caught:
        manifest.read(at(written(tmp_path, data)))
    assert reason in str(caught.value) and manifest.FILE in str(caught.value)


def test_a_newer_format_is_refused_before_anything_else_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="format 7"):
        manifest.read(at(written(tmp_path, b'{"format_version": 7, "all_new": true}')))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="no such folder"):
        manifest.read(at(tmp_path / "nowhere"))


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not a packed dataset \(it has no headrace\.json\); make one with"):
        manifest.read(at(tmp_path))


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StorageError, UsageError), match="file"):
        manifest.read(at(tmp_path / "file"))


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).mkdir()
    with pytest.raises(StorageError, match="can't be read"):
        manifest.read(at(tmp_path))


def test_files_for_tfds() -> None:
    files = manifest.side_files(MADE, name="My cats, 2")
    info = json.loads(files["dataset_info.json"])
    assert info == {
        "name": "my_cats_2",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": "train",
                "shardLengths": ["3", "2"],
                "numBytes": "500",
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.tfrecord",
            },
            {
                "name": "val",
                "shardLengths": ["2"],
                "numBytes": "200",
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.tfrecord",
            },
        ],
        "supervisedKeys": {"input": "image/encoded", "output": "image/class/label"},
    }
    features = json.loads(files["features.json"])["featuresDict"]["features"]
    assert set(features) == {"image/encoded", "image/filename", "image/class/label"}
    assert features["image/encoded"]["image"]["shape"]["dimensions"] == ["-1", "-1", "3"]
    assert files["image.class.label.labels.txt"].decode() == "Kätzchen\ndog's\\\n"


# (classes, box classes, files, keys of features.json)
SIDE_FILES = [
    ((), (), set(), {"image/encoded", "image/filename"}),
    (("a",), (), {"image.class.label.labels.txt"}, {"image/encoded", "image/filename", "image/class/label"}),
    ((), ("b",), {"objects-label.labels.txt"}, {"image/encoded", "image/filename", "objects"}),
]


@pytest.mark.parametrize(("classes", "box_classes", "names", "keys"), SIDE_FILES)
def test_there_is_a_file_for_what_there_is(
    classes: tuple[str, ...], box_classes: tuple[str, ...], names: set[str], keys: set[str]
) -> None:
    files = manifest.side_files(replace(MADE, classes=classes, box_classes=box_classes, channels=1), name="--")
    assert set(files) == {"dataset_info.json", "features.json", "label_map.pbtxt"} | names
    features = json.loads(files["features.json"])["featuresDict"]["features"]
    assert set(features) == keys
    assert features["image/encoded"]["image"]["shape"]["dimensions"] == ["-1", "-1", "1"]
    info = json.loads(files["dataset_info.json"])
    assert info["name"] == "dataset"
    assert ("supervisedKeys" in info) == bool(classes)


def test_label_map_counts_from_one_and_quotes() -> None:
    text = manifest.side_files(MADE, name="x")["label_map.pbtxt"].decode()
    assert text == "item {\n  id: 1\n  name: 'Kätzchen'\n}\nitem {\n  id: 2\n  name: 'dog\\'s\\\\'\n}\n"
    boxed = replace(MADE, box_classes=("face",))
    assert manifest.side_files(boxed, name="x")["label_map.pbtxt"] == b"item {\n  id: 1\n  name: 'face'\n}\n"
