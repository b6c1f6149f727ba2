"""TensorFlow as the judge: it reads what we write, we read what it writes, and both live in one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from headrace.format import example, tfrecord
from headrace.format.example import Floats, Ints, Strings
from packed import CLASSES, FACE, Source, faces, pack, photos, pixels_of

tf = pytest.importorskip("tensorflow")

PHOTOS = photos(26, grey=(3,), png=(4, 5), unlabelled=(6,))
BOXED = photos(18, boxes=True)


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    out = tmp_path_factory.mktemp("tf") / "ds"
    return pack(PHOTOS, out, shards=3, splits={"train": 0.7, "val": 0.3})


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(BOXED, tmp_path_factory.mktemp("tf") / "boxed", shards=2)


def shards(ds: hr.Dataset) -> list[str]:
    return [str(ds.path / entry.name) for entry in ds.manifest.shards]


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payloads", [[], [b""], [b"hello", b"", b"x" * 70_000]])
def test_the_same_file_as_tensorflow_writes(tmp_path: Path, payloads: list[bytes]) -> None:
    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
    data = Path(path).read_bytes()
    assert data == b"".join(map(tfrecord.frame, payloads))
    assert [bytes(payload) for _, payload in tfrecord.scan(data)] == payloads


def of_tensorflow(features: dict[str, example.Feature]) -> Any:
    made = tf.train.Example()
    for key, values in features.items():
        kind = {Ints: "int64_list", Floats: "float_list", Strings: "bytes_list"}[type(values)]
        getattr(made.features.feature[key], kind).value.extend(values)
        getattr(made.features.feature[key], kind).SetInParent()
    return made


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
FEATURES = st.dictionaries(
    TEXT,
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(Ints),
        st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(Floats),
        st.lists(st.binary(max_size=20), max_size=4).map(Strings),
    ),
    max_size=5,
)


@given(FEATURES)
def test_the_same_bytes_as_tf_train_example(features: dict[str, example.Feature]) -> None:
    wire = of_tensorflow(features).SerializeToString(deterministic=True)
    assert example.serialize(features) == wire
    assert example.parse(wire) == features


@given(FEATURES)
def test_in_any_order_of_keys(features: dict[str, example.Feature]) -> None:
    assert example.parse(of_tensorflow(features).SerializeToString()) == features


INTS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)
FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=5)


@settings(max_examples=40)
@given(INTS, FLOATS)
def test_tensorflow_parses_the_values(ints: list[int], floats: list[float]) -> None:
    wire = example.serialize({"i": Ints(ints), "f": Floats(floats), "s": Strings([b"", b"\xff"])})
    spec = {
        "i": tf.io.VarLenFeature(tf.int64),
        "f": tf.io.VarLenFeature(tf.float32),
        "s": tf.io.VarLenFeature(tf.string),
    }
    found = tf.io.parse_single_example(wire, spec)
    assert found["i"].values.numpy().tolist() == ints and found["f"].values.numpy().tolist() == floats
    assert found["s"].values.numpy().tolist() == [b"", b"\xff"]


@pytest.mark.parametrize("wire", ["0a0d0a0b0a016912061a0408010802", "0a0d0a0b0a016912061a040a020102"])
def test_packed_or_not_is_read_alike(wire: str) -> None:
    data = bytes.fromhex(wire)
    assert tf.io.parse_single_example(data, {"i": tf.io.FixedLenFeature([2], tf.int64)})["i"].numpy().tolist() == [1, 2]
    assert example.parse(data) == {"i": Ints([1, 2])}


def test_damage_that_tensorflow_finds_we_find_too(tmp_path: Path) -> None:
    data = b"".join(map(tfrecord.frame, [b"one", b"two", b"three"]))
    path = tmp_path / "x"

    def theirs() -> bool:
        try:
            list(tf.data.TFRecordDataset(str(path)))
        except tf.errors.DataLossError:
            return True
        return False

    def ours() -> bool:
        try:
            list(tfrecord.scan(path.read_bytes()))
        except tfrecord.BadRecord:
            return True
        return False

    for byte in range(len(data)):
        flipped = bytearray(data)
        flipped[byte] ^= 1 << byte % 8
        path.write_bytes(flipped)
        assert theirs() and ours()
    for end in range(0, len(data), 3):
        path.write_bytes(data[:end])
        assert ours() or not theirs()


# --- datasets --------------------------------------------------------------------------------------------------------


def parsed(files: list[str], spec: dict[str, Any]) -> dict[bytes, dict[str, Any]]:
    """Features by file name, as a pipeline of theirs reads them."""

    def parse(record: Any) -> dict[str, Any]:
        found = tf.io.parse_example(record, spec)
        return {key: value.values if isinstance(value, tf.SparseTensor) else value for key, value in found.items()}

    rows = list(tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator())
    out = {row["image/filename"]: row for row in rows}
    assert len(out) == len(rows)
    return out


def scalar(kind: Any) -> Any:
    return tf.io.FixedLenFeature([], kind)


def several(kind: Any) -> Any:
    return tf.io.VarLenFeature(kind)


VISIPEDIA = {
    **{f"image/{key}": scalar(tf.string) for key in ("encoded", "format", "filename", "id", "colorspace")},
    **{f"image/{key}": scalar(tf.int64) for key in ("height", "width", "channels", "class/label")},
    "image/class/text": scalar(tf.string),
}


def test_visipedia_keys(ds: hr.Dataset) -> None:
    found = parsed(shards(ds), VISIPEDIA)
    assert len(found) == 26
    for record in PHOTOS:
        row = found[record.id.encode()]
        pixels = pixels_of(record)
        assert row["image/encoded"] == record.encoded
        assert (row["image/height"], row["image/width"], row["image/channels"]) == pixels.shape
        assert row["image/format"].decode() == record.id.split(".")[1] and row["image/id"] == record.id.encode()
        assert row["image/colorspace"] == (b"grayscale" if pixels.shape[2] == 1 else b"RGB")
        label = -1 if record.label_name is None else CLASSES.index(record.label_name)
        assert row["image/class/label"] == label and row["image/class/text"] == (record.label_name or "").encode()


def test_tensorflow_decodes_what_we_decode(ds: hr.Dataset) -> None:
    found = parsed(shards(ds), VISIPEDIA)
    for i in range(len(ds)):
        theirs = tf.io.decode_image(found[ds[i].id.encode()]["image/encoded"]).numpy()
        ours = ds[i].image
        assert theirs.shape == ours.shape and np.abs(theirs.astype(int) - ours.astype(int)).max() <= 3


def test_splits_are_files(ds: hr.Dataset) -> None:
    for split in ("train", "val"):
        files = sorted(map(str, ds.path.glob(f"{split}-*.tfrecord")))
        assert set(parsed(files, VISIPEDIA)) == {id_.encode() for id_ in ds.split(split).catalog["id"]}


OBJECT_DETECTION = {
    **{f"image/{key}": scalar(tf.string) for key in ("encoded", "format", "filename", "source_id", "key/sha256")},
    **{f"image/{key}": scalar(tf.int64) for key in ("height", "width", "object/count")},
    **{f"image/object/bbox/{side}": several(tf.float32) for side in ("xmin", "xmax", "ymin", "ymax")},
    "image/object/area": several(tf.float32),
    "image/object/bbox/label": several(tf.int64),
    "image/object/class/label": several(tf.int64),
    "image/object/class/text": several(tf.string),
}


def test_object_detection_keys(boxed: hr.Dataset) -> None:
    found = parsed(shards(boxed), OBJECT_DETECTION)
    assert len(found) == 18
    for record in BOXED:
        row = found[record.id.encode()]
        assert record.boxes is not None and record.box_labels is not None
        height, width = pixels_of(record).shape[:2]
        sides = [row[f"image/object/bbox/{side}"] for side in ("xmin", "ymin", "xmax", "ymax")]
        boxes = np.stack(sides, axis=1) * [width, height, width, height]
        wanted = np.minimum(record.boxes, [width, height, width, height])
        assert np.allclose(boxes, wanted, atol=1e-4) and row["image/object/count"] == len(record.boxes)
        labels = [("left", "right").index(name) for name in record.box_labels]
        assert row["image/object/bbox/label"].tolist() == labels
        assert row["image/object/class/label"].tolist() == [label + 1 for label in labels]
        assert [text.decode() for text in row["image/object/class/text"]] == list(record.box_labels)
        sizes = wanted[:, 2:] - wanted[:, :2]
        areas = row["image/object/area"] * height * width
        assert np.allclose(areas, sizes[:, 0] * sizes[:, 1], rtol=1e-4)
        assert row["image/source_id"] == record.id.encode() and len(row["image/key/sha256"]) == 64


KEYPOINTS = {
    **{f"image/{key}": scalar(tf.string) for key in ("filename", "encoded")},
    **{f"image/{key}": scalar(tf.int64) for key in ("height", "width", "object/count")},
    **{f"image/object/{key}": several(tf.float32) for key in ("keypoint/x", "keypoint/y", "parts/x", "parts/y")},
    **{f"image/object/{key}": several(tf.int64) for key in ("keypoint/visibility", "parts/v")},
    "image/object/keypoint/text": several(tf.string),
    "objects/keypoints": several(tf.float32),
}


@pytest.mark.parametrize("boxes", [True, False])
def test_keypoint_keys(tmp_path: Path, boxes: bool) -> None:
    """Those of the TF Object Detection API and visipedia's parts: numbers equal to the input's."""
    records = faces(16, boxes=boxes)
    found = parsed(shards(pack(Source(records), tmp_path / "ds", shards=2)), KEYPOINTS)
    assert len(found) == 16
    for record in records:
        row = found[record.id.encode()]
        wanted = record.keypoints
        if wanted is None:
            wanted = np.zeros((0 if record.boxes is None else len(record.boxes), 3, 3), np.float32)
        size = [row["image/width"], row["image/height"]]
        for x, y, v in (("keypoint/x", "keypoint/y", "keypoint/visibility"), ("parts/x", "parts/y", "parts/v")):
            places = np.stack([row[f"image/object/{x}"], row[f"image/object/{y}"]], axis=1) * size
            assert np.allclose(places, wanted[..., :2].reshape(-1, 2), atol=1e-5)
            assert row[f"image/object/{v}"].tolist() == wanted[..., 2].reshape(-1).tolist()
        assert row["image/object/count"] == len(wanted)
        assert row["image/object/keypoint/text"].tolist() == [name.encode() for name in FACE] * len(wanted)
        assert np.array_equal(row["objects/keypoints"], wanted.reshape(-1))


def test_both_find_the_same_damaged_record(ds: hr.Dataset, tmp_path: Path) -> None:
    row = ds.catalog.row(4, named=True)
    path = tmp_path / row["shard"]
    data = bytearray((ds.path / row["shard"]).read_bytes())
    data[row["image_offset"]] ^= 1
    path.write_bytes(data)
    read = []
    with pytest.raises(tf.errors.DataLossError):
        read.extend(tf.data.TFRecordDataset(str(path)))
    with pytest.raises(tfrecord.BadRecord) as caught:
        list(tfrecord.scan(bytes(data)))
    assert len(read) == 4 and caught.value.offset == row["offset"] + 12


# --- one process -----------------------------------------------------------------------------------------------------

TOGETHER = """
import headrace as hr
from headrace.format import example
wire = example.serialize({"a": example.Ints([1]), "b": example.Strings([b"x"])})
made = tf.train.Example.FromString(wire)
assert made.features.feature["a"].int64_list.value == [1]
assert made.SerializeToString(deterministic=True) == wire and example.parse(wire)["b"] == [b"x"]
ds = hr.Dataset(sys.argv[1])
rows = sum(1 for _ in tf.data.TFRecordDataset([str(ds.path / entry.name) for entry in ds.manifest.shards]))
assert rows == len(ds) and ds.verify().ok
print("both", rows)
"""


ORDERS = {
    "tensorflow first": "import sys, tensorflow as tf",
    "headrace first": "import sys, headrace.format.example\nimport tensorflow as tf",
}


@pytest.mark.parametrize("first", ORDERS)
def test_one_process_in_either_order(ds: hr.Dataset, first: str) -> None:
    code = f"{ORDERS[first]}\n{TOGETHER}"
    done = subprocess.run([sys.executable, "-c", code, str(ds.path)], capture_output=True, text=True)
    assert done.stdout == "both 26\n", done.stderr


def test_headrace_alone_imports_no_tensorflow(ds: hr.Dataset) -> None:
    code = (
        "import sys, headrace as hr; ds = hr.Dataset(sys.argv[1]); assert ds.verify().ok; "
        "list(ds.where('label IS NOT NULL').loader(size=8)); "
        "print([name for name in ('tensorflow', 'torch', 'jax', 'keras', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ds.path)], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
