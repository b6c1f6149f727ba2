"""TensorFlow reads what compat.visipedia.create writes, by visipedia's own key list, and finds the input's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import exif, image, jpeg, saved
from headrace.compat.visipedia import create
from headrace.sources import visipedia
from listed import FULL, LISTS, SCALARS, boxes, item
from packed import pack
from painted import assert_painted_at

tf = pytest.importorskip("tensorflow")

KINDS = {bytes: tf.string, int: tf.int64, float: tf.float32}
# visipedia's iterate_tfrecords.py: FixedLenFeature([]) for what has one value, VarLenFeature for lists.
SPEC = {
    **{f"image/{key}": tf.io.FixedLenFeature([], KINDS[kind]) for key, kind in SCALARS.items()},
    **{f"image/{key}": tf.io.VarLenFeature(KINDS[kind]) for key, kind in LISTS.items()},
}


def parsed(files: list[str]) -> dict[str, dict[str, Any]]:
    """Features by id."""

    def parse(record: Any) -> dict[str, Any]:
        found = tf.io.parse_single_example(record, SPEC)
        return {key: value.values if isinstance(value, tf.SparseTensor) else value for key, value in found.items()}

    rows = list(tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator())
    return {row["image/id"].decode(): row for row in rows}


def many() -> list[dict[str, Any]]:
    """Items of every kind: full, bare, of no, one and three objects, with strings, tuples and arrays."""
    three = boxes((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.25, 0.125), label=[2, 0, 1])
    return [
        FULL | {"encoded": jpeg(), "id": "full"},
        item(1),
        item(2, **{"class": {"label": "7", "text": "Ü"}}, object={"count": 0, **boxes()}),
        item(3, object=three | {"id": ("a", "b", "c"), "area": np.array([0.04, 0.25, 0.03125], np.float32)}),
        item(4, object=three["bbox"] and {"bbox": {key: tuple(map(str, three["bbox"][key])) for key in three["bbox"]}}),
        item(5, object={"count": 2, "parts": {"x": [0.1] * 6, "y": [0.2] * 6, "v": [0, 1, 2] * 2}}),
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tf")
    assert create(many(), "train", folder, 8, 2) == []
    files = sorted(str(path) for path in folder.iterdir())
    assert len(files) == 8  # two of them empty
    return parsed(files)


def test_every_key_has_its_kind_and_count(found: dict[str, dict[str, Any]]) -> None:
    assert len(found) == 6
    for row in found.values():
        for key, kind in SCALARS.items():
            value = row[f"image/{key}"]
            assert np.ndim(value) == 0 and isinstance(value, {bytes: bytes, int: np.int64, float: np.float32}[kind]), (
                key
            )
        for key in LISTS:
            assert row[f"image/{key}"].ndim == 1, key


def test_the_numbers_are_the_inputs(found: dict[str, dict[str, Any]]) -> None:
    for raw in many():
        row, object_ = found[raw["id"]], raw.get("object", {})
        for key in LISTS:
            name = key.replace("object/class/", "object/bbox/").removeprefix("object/")
            part, _, last = name.rpartition("/")
            values = (object_.get(part, {}) if part else object_).get(last, [])
            wanted = [one.encode() for one in values] if LISTS[key] is bytes else np.array(values, LISTS[key])
            assert np.array_equal(row[f"image/{key}"], np.asarray(wanted, row[f"image/{key}"].dtype)), (raw["id"], key)
        lengths = {len(object_.get("bbox", {}).get("xmin", [])), object_.get("count", 0)}
        assert row["image/object/count"] == max(lengths)
        class_ = raw.get("class", {})
        assert row["image/class/label"] == int(class_.get("label", -1))
        assert row["image/class/text"].decode() == class_.get("text", "")
        assert row["image/class/conf"] == np.float32(class_.get("conf", 1.0))
        assert row["image/encoded"] == raw["encoded"] and row["image/filename"].decode() == raw["filename"]


@pytest.mark.parametrize("turned", [1, 6])
def test_tensorflow_decodes_the_size_that_is_written(turned: int, tmp_path: Path) -> None:
    content = {
        "a.jpg": jpeg(exif=exif(turned)),
        "b.png": saved(image(), "PNG"),
        "c.png": saved(image(mode="P"), "PNG"),
        "d.jpg": jpeg(mode="L"),
        "e.jpg": saved(image(mode="CMYK"), "JPEG"),
        "f.webp": saved(image(), "WEBP"),
        "g.gif": saved(image(), "GIF"),
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    raw = [{"filename": str(tmp_path / name), "id": name} for name in content]
    assert create(raw, "x", tmp_path / "out", 1, 1) == []
    for row in parsed([str(tmp_path / "out" / "x-00000-of-00001")]).values():
        # As visipedia decodes, whatever the image was.
        theirs = tf.image.decode_jpeg(row["image/encoded"], channels=3)
        assert theirs.shape == (row["image/height"], row["image/width"], 3) == (40, 56, 3)
        assert tf.io.decode_image(row["image/encoded"]).shape[2] == row["image/channels"]


def test_boxes_of_smaller_images_as_tensorflow_sees_them(tmp_path: Path) -> None:
    """Records of 800 pixels: what TensorFlow decodes has the painted rectangle where the record's box is, to 0.5."""
    raw = []
    for k, (height, width, kind) in enumerate([(1601, 2403, "JPEG"), (3000, 1999, "PNG"), (6401, 1203, "JPEG")]):
        x0, y0, x1, y1 = width // 7, height // 5, width - 11, height - 9
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y0:y1, x0:x1] = 255
        (tmp_path / f"{k}.{kind}").write_bytes(saved(pixels, kind))
        object_ = boxes((x0 / width, y0 / height, x1 / width, y1 / height))
        raw.append({"filename": str(tmp_path / f"{k}.{kind}"), "id": str(k), "object": object_})
    assert create(raw, "x", tmp_path / "out", 1, 2, max_side=800, png_to_jpeg=True) == []
    rows = parsed([str(tmp_path / "out" / "x-00000-of-00001")])
    assert len(rows) == 3
    for row in rows.values():
        assert row["image/format"] == b"JPEG"
        pixels = tf.io.decode_jpeg(row["image/encoded"], channels=3).numpy()
        height, width = pixels.shape[:2]
        assert (row["image/height"], row["image/width"]) == (height, width) and max(height, width) == 800
        box = [row[f"image/object/bbox/{side}"][0] for side in ("xmin", "ymin", "xmax", "ymax")]
        assert_painted_at(pixels, np.array(box) * [width, height, width, height], within=0.5)


def test_a_packed_dataset_has_visipedias_keys_too(tmp_path: Path) -> None:
    """Which of them it has depends on what the list says: here all but the text of boxes under visipedia's own key."""
    raw = [
        FULL | {"encoded": jpeg(), "id": "full"},
        item(1, object={"count": 0}),
        item(2, object=boxes()),
    ]
    ds = pack(visipedia(raw), tmp_path / "ds")  # type: ignore[arg-type]
    spec = {key: kind for key, kind in SPEC.items() if not key.endswith("bbox/text")}
    (file,) = (str(ds.path / shard.name) for shard in ds.manifest.shards)
    rows = [tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(file)]
    by_id = {row["image/id"].numpy().decode(): row for row in rows}
    assert by_id["full"]["image/extra"].numpy() == b'{"camera": 3}' and by_id["1"]["image/extra"].numpy() == b""
    assert by_id["full"]["image/object/bbox/score"].values.numpy().tolist() == [np.float32(0.8)]
    assert by_id["full"]["image/object/is_crowd"].values.numpy().tolist() == [0]
    assert np.allclose(by_id["full"]["image/object/bbox/xmin"].values.numpy(), [0.1])
    assert by_id["full"]["image/class/label"].numpy() == 1 and by_id["1"]["image/class/label"].numpy() == -1
    assert [by_id[id_]["image/object/count"].numpy() for id_ in ("full", "1", "2")] == [1, 0, 0]
    for key in ("x", "y", "v", "score"):
        values = by_id["full"][f"image/object/parts/{key}"].values.numpy()
        assert np.allclose(values, FULL["object"]["parts"][key]), key
        assert len(by_id["1"][f"image/object/parts/{key}"].values) == 0


def test_the_same_numbers_by_features(tmp_path: Path) -> None:
    """ds.features and TensorFlow's parser read the same."""
    ds = pack(visipedia(many()[:5]), tmp_path / "ds")  # type: ignore[arg-type]
    keys = ["image/id", "image/height", "image/class/label", "image/object/bbox/xmin", "image/object/bbox/label"]
    files = [str(ds.path / shard.name) for shard in ds.manifest.shards]
    spec = {key: SPEC[key] for key in keys}
    rows = [tf.io.parse_single_example(record, spec) for record in tf.data.TFRecordDataset(files)]
    for ours, theirs in zip(ds.features(*keys), rows, strict=True):
        for key in keys:
            value = theirs[key].values if isinstance(theirs[key], tf.SparseTensor) else theirs[key]
            assert np.array_equal(ours[key], value.numpy())
    assert isinstance(ds, hr.Dataset)
