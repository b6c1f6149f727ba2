"""Shards that TensorFlow, TensorFlow Datasets, vahidk's tfrecord and our own packer wrote, adopted where they are and
compared record by record with what was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import jpeg, picture, saved
from packed import CLASSES, faces, pack, photos

tf = pytest.importorskip("tensorflow")


def feature(key: str, value: Any) -> Any:
    """An empty list keeps its kind, as the writers of these layouts do it."""
    values = value if isinstance(value, list) else [value]
    if not values and key.endswith("text"):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[]))
    if not values and not key.endswith(("label", "v", "visibility")):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[]))
    if values and isinstance(values[0], bytes | str):
        return tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[v.encode() if isinstance(v, str) else v for v in values])
        )
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            features = tf.train.Features(feature={key: feature(key, value) for key, value in record.items()})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return path


def image(k: int) -> tuple[bytes, int, int]:
    height, width = 20 + 7 * (k % 5), 24 + 5 * (k % 7)
    return jpeg(height, width, seed=k), height, width


def some_boxes(k: int) -> list[list[float]]:
    """x0, y0, x1, y1 in 0-1."""
    return [[0.1 * j, 0.125, 0.1 * j + 0.25, 0.75 + 0.05 * j] for j in range(k % 4)]


def in_pixels(boxes: list[list[float]], height: int, width: int) -> Any:
    return np.array(boxes, np.float32).reshape(-1, 4) * np.array([width, height, width, height], np.float32)


def visipedia(k: int) -> dict[str, Any]:
    encoded, height, width = image(k)
    boxes = some_boxes(k)
    return {
        "image/height": height,
        "image/width": width,
        "image/colorspace": "RGB",
        "image/channels": 3,
        "image/format": "JPEG",
        "image/filename": f"/data/{k}.jpg",
        "image/id": str(k),
        "image/encoded": encoded,
        "image/extra": "{}",
        "image/class/label": k % 3,
        "image/class/text": CLASSES[k % 3],
        "image/class/conf": 1.0,
        "image/object/count": len(boxes),
        "image/object/bbox/xmin": [box[0] for box in boxes],
        "image/object/bbox/ymin": [box[1] for box in boxes],
        "image/object/bbox/xmax": [box[2] for box in boxes],
        "image/object/bbox/ymax": [box[3] for box in boxes],
        "image/object/bbox/label": [(k + j) % 2 for j in range(len(boxes))],
        "image/object/bbox/text": [("left", "right")[(k + j) % 2] for j in range(len(boxes))],
        "image/object/parts/x": [x for box in boxes for x in (box[0], box[2])],
        "image/object/parts/y": [y for box in boxes for y in (box[1], box[3])],
        "image/object/parts/v": [v for _ in boxes for v in (2, 1)],
    }


def tf_od(k: int) -> dict[str, Any]:
    encoded, height, width = image(k)
    boxes = some_boxes(k)
    return {
        "image/height": height,
        "image/width": width,
        "image/filename": f"{k}.jpg",
        "image/source_id": f"{k}.jpg",
        "image/encoded": encoded,
        "image/format": "jpeg",
        "image/object/bbox/xmin": [box[0] for box in boxes],
        "image/object/bbox/ymin": [box[1] for box in boxes],
        "image/object/bbox/xmax": [box[2] for box in boxes],
        "image/object/bbox/ymax": [box[3] for box in boxes],
        "image/object/class/text": [("left", "right")[(k + j) % 2] for j in range(len(boxes))],
        "image/object/class/label": [1 + (k + j) % 2 for j in range(len(boxes))],
        "image/object/keypoint/x": [x for box in boxes for x in (box[0], box[2], float("nan"))],
        "image/object/keypoint/y": [y for box in boxes for y in (box[1], box[3], float("nan"))],
        "image/object/keypoint/visibility": [v for _ in boxes for v in (2, 1, 0)],
        "image/object/keypoint/text": [name for _ in boxes for name in ("left_eye", "right_eye", "nose")],
    }


def tfds_detection(k: int) -> dict[str, Any]:
    encoded, _, _ = image(k)
    boxes = some_boxes(k)
    return {
        "image": encoded,
        "image/filename": f"{k}.jpg",
        "objects/bbox": [v for x0, y0, x1, y1 in boxes for v in (y0, x0, y1, x1)],
        "objects/label": [(k + j) % 2 for j in range(len(boxes))],
    }


LAYOUTS: dict[str, tuple[str, Any]] = {
    "visipedia": ("visipedia", visipedia),
    "tf-od": ("TF Object Detection", tf_od),
    "tfds": ("TensorFlow Datasets", lambda k: {"image": image(k)[0], "label": k % 3}),
    "tfds detection": ("TensorFlow Datasets, detection", tfds_detection),
    "image, class": ("image and class", lambda k: {"image": image(k)[0], "class": CLASSES[k % 3]}),
    "image/encoded": (
        "image/encoded",
        lambda k: {"image/encoded": image(k)[0], "image/class/label": k % 3, "image/class/text": CLASSES[k % 3]},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_tensorflow_wrote(layout: str, tmp_path: Path) -> None:
    name, record_of = LAYOUTS[layout]
    train = write(tmp_path / "train-00000-of-00001", [record_of(k) for k in range(25)])
    val = write(tmp_path / "val-00000-of-00001", [record_of(k) for k in range(25, 33)])
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (train, val)]
    report = hr.adopt([val, train], tmp_path / "ds", progress=False, workers=3)
    assert (report.seen, report.stored, report.rejects, report.skipped) == (33, 33, (), ())
    assert report.layout == name and dict(report.splits) == {"train": 25, "val": 8}
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in (train, val)] == before
    assert not list((tmp_path / "ds").glob("*0000*"))

    ds = hr.Dataset(tmp_path / "ds")
    assert len(ds) == 33 and ds.verify().ok and ds.splits == {"train": 25, "val": 8}
    said = record_of(1)
    for k in range(33):
        record = ds[k]
        encoded, height, width = image(k)
        assert record.encoded == encoded and record.split == ("train" if k < 25 else "val")
        assert (record.height, record.width, record.channels, record.format) == (height, width, 3, "jpeg")
        assert (
            np.array_equal(record.image, tf.io.decode_jpeg(encoded).numpy())
            or np.abs(record.image.astype(int) - tf.io.decode_jpeg(encoded).numpy()).max() <= 4
        )
        if any("label" in key and "object" not in key for key in said) or "class" in said:
            assert record.label == k % 3
            texts = "class" in said or "image/class/text" in said
            assert record.label_name == (CLASSES[k % 3] if texts else str(k % 3))
        else:
            assert record.label is None
        boxed = any("bbox" in key for key in said)
        assert (record.boxes is not None) == boxed
        if boxed:
            boxes = some_boxes(k)
            assert np.allclose(record.boxes, in_pixels(boxes, height, width), rtol=0, atol=1e-4)
            wanted = [(k + j) % 2 for j in range(len(boxes))]
            values = ds.catalog.row(k, named=True)
            assert values["box_labels"] == wanted
            names = ("0", "1") if layout == "tfds detection" else ("left", "right")
            assert record.box_labels == tuple(names[i] for i in wanted)
        if layout == "visipedia":
            points = np.array(some_boxes(k), np.float32).reshape(-1, 2, 2) * [width, height]
            assert record.keypoints is not None and np.allclose(record.keypoints[..., :2], points, atol=1e-4)
            assert record.keypoints[..., 2].tolist() == [[2, 1]] * (k % 4)
        if layout == "tf-od":
            assert record.keypoints is not None and record.keypoints.shape == (k % 4, 3, 3)
            assert record.keypoints[..., 2].tolist() == [[2, 1, 0]] * (k % 4)
            assert ds.keypoint_names == ("left_eye", "right_eye", "nose") and ds.flip_pairs == ((0, 1),)
    if layout == "visipedia":
        assert ds.catalog["id"].to_list() == [str(k) for k in range(33)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batches_are_those_of_the_same_images_packed(layout: str, tmp_path: Path) -> None:
    """Full shuffle, exact resume, where: one loader for packed and adopted."""
    write(tmp_path / "x-train.tfrecord-00000-of-00001", [LAYOUTS[layout][1](k) for k in range(30)])
    hr.adopt(tmp_path / "x-train.tfrecord-00000-of-00001", tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    loader = ds.loader(batch_size=4, size=(24, 32), seed=3, workers=2)
    batches = list(loader)
    assert sorted(id_ for batch in batches for id_ in batch.ids) == sorted(ds.catalog["id"])
    by_id = {ds[k].id: k for k in range(30)}
    plain = hr.Dataset(tmp_path / "ds").loader(batch_size=1, size=(24, 32), shuffle=False)
    for batch in batches:
        for slot, id_ in enumerate(batch.ids):
            assert np.array_equal(batch.images[slot], plain[by_id[id_]].images[0])
    again = ds.loader(batch_size=4, size=(24, 32), seed=3, workers=2)
    rest = iter(again)
    next(rest), next(rest)
    state = again.state_dict()
    other = ds.loader(batch_size=4, size=(24, 32), seed=3, workers=1)
    other.load_state_dict(json.loads(json.dumps(state)))
    # `again` began epoch 0, and so did `loader`
    for found, wanted in zip(other, batches[2:], strict=True):
        assert found.ids == wanted.ids and np.array_equal(found.images, wanted.images)
    wide = ds.where("width > 40")
    assert len(wide) == sum(image(k)[2] > 40 for k in range(30)) and all(wide[i].width > 40 for i in range(len(wide)))


def test_tf_reads_no_more_and_no_less(tmp_path: Path) -> None:
    """What tf.data gives is what the catalog says, also of a record whose lists are empty."""
    path = write(tmp_path / "all.tfrecord", [tf_od(k) for k in range(12)])
    hr.adopt(path, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/object/bbox/ymax": tf.io.VarLenFeature(tf.float32),
    }
    for k, raw in enumerate(tf.data.TFRecordDataset(str(path))):
        row = tf.io.parse_single_example(raw, spec)
        record = ds[k]
        assert record.encoded == row["image/encoded"].numpy() and record.boxes is not None
        found = tf.sparse.to_dense(row["image/object/bbox/ymax"]).numpy() * record.height
        assert np.allclose(record.boxes[:, 3], found, atol=1e-4)


@pytest.mark.parametrize("base", [0, 1])
def test_tf_object_detection_counts_from_one_unless_a_zero_is_there(base: int, tmp_path: Path) -> None:
    records = [tf_od(k) for k in range(12)]
    for record in records:
        record["image/object/class/label"] = [label - 1 + base for label in record["image/object/class/label"]]
        del record["image/object/class/text"]
    path = write(tmp_path / "all.tfrecord", records)
    report = hr.adopt(path, tmp_path / "ds", progress=False)
    assert report.box_classes == (("0", "1") if base == 0 else ("1", "2"))
    assert any(f"is taken to count classes from {base}" in note for note in report.notes)
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.catalog["box_labels"].to_list()[:4] == [[], [1], [0, 1], [1, 0, 1]]
    other = hr.adopt(
        path,
        tmp_path / "other",
        progress=False,
        map={"box_labels": f"image/object/class/label:from{1 - base}"},
        max_rejects=1.0,
    )
    if base == 1:
        assert other.box_classes == ("0", "1", "2") and not other.rejects
    else:  # a class 0 is none when they count from 1
        assert len(other.rejects) == sum(0 in record["image/object/class/label"] for record in records) == 6


def test_a_label_map_beside_gives_names(tmp_path: Path) -> None:
    path = write(tmp_path / "all.tfrecord", [tf_od(k) for k in range(12)])
    (tmp_path / "label_map.pbtxt").write_text(
        "item {\n  id: 1\n  name: 'Lefty'\n}\n# gap\nitem {\n  name: \"It's right\"\n  id: 2\n}\n"
        "item {\n  id: 90\n  name: 'n/a'\n  display_name: 'far'\n}\n"
    )
    report = hr.adopt(path, tmp_path / "ds", progress=False)
    assert report.box_classes == ("Lefty", "It's right", "far")
    assert any("label_map.pbtxt" in note for note in report.notes)
    assert hr.Dataset(tmp_path / "ds")[3].box_labels == ("It's right", "Lefty", "It's right")


# --- TensorFlow Datasets ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a TFDS builder of its own wrote: nested features, names, three splits."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    class Things(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc,name-defined]
        VERSION = tfds.core.Version("1.0.0")
        code_path = None  # else TFDS looks for files beside this one

        def _info(self) -> Any:
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "photo": tfds.features.Image(shape=(None, None, 3)),
                        "image/filename": tfds.features.Text(),
                        "species": tfds.features.ClassLabel(names=["newt", "ox"]),
                        "faces": tfds.features.Sequence(
                            {
                                "bbox": tfds.features.BBoxFeature(),
                                "kind": tfds.features.ClassLabel(names=["big", "small"]),
                            }
                        ),
                    }
                )
            )

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._generate_examples(range(20)), "validation": self._generate_examples(range(20, 26))}

        def _generate_examples(self, numbers: range) -> Any:
            for k in numbers:
                yield (
                    k,
                    {
                        "photo": picture(20 + k, 30, seed=k),
                        "image/filename": f"{k}.png",
                        "species": ("newt", "ox")[k % 2],
                        "faces": [
                            {
                                "bbox": tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1),
                                "kind": ("big", "small")[j % 2],
                            }
                            for j, (x0, y0, x1, y1) in enumerate(some_boxes(k))
                        ],
                    },
                )

    builder = Things(data_dir=str(folder))
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_a_tfds_builder(built: Path, tmp_path: Path) -> None:
    report = hr.adopt(built, tmp_path / "ds", progress=False)
    assert (report.seen, report.stored) == (26, 26) and dict(report.splits) == {"train": 20, "val": 6}
    assert report.layout == "TensorFlow Datasets, detection"
    assert report.classes == ("newt", "ox") and report.box_classes == ("big", "small")
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.verify().ok
    found = {record.id: record for record in (ds[i] for i in range(26))}
    for k in range(26):
        record = found[f"{k}.png"]
        assert record.label_name == ("newt", "ox")[k % 2] and record.format == "png"
        assert np.array_equal(record.image, picture(20 + k, 30, seed=k))
        assert record.boxes is not None
        assert np.allclose(record.boxes, in_pixels(some_boxes(k), 20 + k, 30), atol=1e-4)
        assert record.box_labels == tuple(("big", "small")[j % 2] for j in range(k % 4))


def test_tfds_reads_what_we_read(built: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    hr.adopt(built, tmp_path / "ds", progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    rows = {
        row["image/filename"].decode(): row
        for row in tfds.as_numpy(tfds.builder_from_directory(str(built)).as_dataset(split="all"))
    }
    assert len(rows) == len(ds) == 26
    for i in range(26):
        record, row = ds[i], rows[ds[i].id]
        assert np.array_equal(record.image, row["photo"]) and record.label == row["species"]
        assert ds.catalog.row(i, named=True)["box_labels"] == row["faces"]["kind"].tolist()


# --- others ----------------------------------------------------------------------------------------------------------

VAHIDK = """
import sys
from tfrecord import TFRecordWriter
out, photos = sys.argv[1], sys.argv[2:]
writer = TFRecordWriter(out)
for k, path in enumerate(photos):
    writer.write({
        "image": (open(path, "rb").read(), "byte"),
        "label": (k % 3, "int"),
        "weight": (0.5 * k, "float"),
        "filename": (path.rpartition("/")[2].encode(), "byte"),
    })
writer.close()
"""


def vahidk_python() -> str | None:
    """A Python that has vahidk's `tfrecord`, which can't be imported beside TensorFlow: this one's, or another's."""
    for python in (os.environ.get("HEADRACE_VAHIDK_PYTHON"), sys.executable):
        if (
            python
            and not subprocess.run([python, "-c", "import tfrecord"], capture_output=True, check=False).returncode
        ):
            return python
    return None


def test_vahidks_writer(tmp_path: Path) -> None:
    python = vahidk_python()
    if python is None:
        pytest.skip("the package tfrecord is not installed (nor named by HEADRACE_VAHIDK_PYTHON)")
    paths = []
    for k in range(15):
        path = tmp_path / f"{k}.jpg"
        path.write_bytes(image(k)[0])
        paths.append(str(path))
    out = tmp_path / "their_val.tfrecord"
    done = subprocess.run([python, "-c", VAHIDK, str(out), *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = hr.adopt(out, tmp_path / "ds", progress=False)
    assert report.stored == 15 and dict(report.splits) == {"val": 15}
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.verify().ok
    for k in range(15):
        assert (ds[k].id, ds[k].label, ds[k].encoded) == (f"{k}.jpg", k % 3, image(k)[0])


def test_what_we_packed_ourselves(tmp_path: Path) -> None:
    records = photos(40, grey=(3,), png=(4, 5), boxes=True, unlabelled=(6,))
    ds = pack(records, tmp_path / "packed", shards=2, splits={"train": 0.7, "val": 0.3})
    hr.adopt(sorted(ds.path.glob("*.tfrecord")), tmp_path / "adopted", progress=False)
    found = hr.Dataset(tmp_path / "adopted")
    assert found.verify().ok
    assert (found.class_names, found.box_class_names, found.splits) == (ds.class_names, ds.box_class_names, ds.splits)
    for i in range(40):
        mine, theirs = found[i], ds[i]
        for name in ("id", "encoded", "label", "label_name", "box_labels", "split", "format", "height", "width"):
            assert getattr(mine, name) == getattr(theirs, name), name
        assert np.allclose(mine.boxes, theirs.boxes, rtol=0, atol=1e-4)


def test_keypoints_that_we_packed_ourselves(tmp_path: Path) -> None:
    ds = pack(faces(12), tmp_path / "packed", shards=2)
    hr.adopt(sorted(ds.path.glob("*.tfrecord")), tmp_path / "adopted", progress=False)
    found = hr.Dataset(tmp_path / "adopted")
    assert found.keypoints == ds.keypoints > 0
    for i in range(len(ds)):
        mine, theirs = found[i].keypoints, ds[i].keypoints
        if theirs is not None:
            assert mine is not None and np.allclose(mine, theirs, rtol=0, atol=1e-3)
        else:
            assert mine is None or not mine.any()


def test_odd_images_are_decoded_as_the_codec_does(tmp_path: Path) -> None:
    """What pack would have stored anew: a palette, alpha, CMYK, EXIF orientation, GIF, BMP, WebP; 16 bits refused."""
    from PIL import Image

    from drawn import exif
    from drawn import image as drawn_image

    pictures = {
        "jpeg": jpeg(20, 30),
        "turned": jpeg(20, 30, exif=exif(6).tobytes()),
        "cmyk": saved(drawn_image(20, 30, mode="CMYK"), "JPEG"),
        "palette": saved(drawn_image(20, 30, mode="P"), "PNG"),
        "alpha": saved(drawn_image(20, 30, mode="RGBA"), "PNG"),
        "grey": saved(drawn_image(20, 30, mode="L"), "PNG"),
        "gif": saved(drawn_image(20, 30), "GIF"),
        "bmp": saved(drawn_image(20, 30), "BMP"),
        "webp": saved(drawn_image(20, 30), "WEBP", lossless=True),
        "deep": saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), "PNG"),
    }
    path = write(
        tmp_path / "odd.tfrecord", [{"image": data, "label": 0, "id": name} for name, data in pictures.items()]
    )
    report = hr.adopt(path, tmp_path / "ds", progress=False, max_rejects=1)
    (reject,) = report.rejects
    assert reject.origin == "odd.tfrecord:9" and "more than 8 bits" in reject.reason
    assert any("1 images have an EXIF orientation" in note for note in report.notes)
    ds = hr.Dataset(tmp_path / "ds")
    assert ds.verify().ok and len(ds) == 9
    formats = dict(zip(ds.catalog["id"], ds.catalog["format"], strict=True))
    assert formats == {
        "jpeg": "jpeg",
        "turned": "jpeg",
        "cmyk": "other jpeg",
        "palette": "other png",
        "alpha": "other png",
        "grey": "png",
        "gif": "gif",
        "bmp": "bmp",
        "webp": "webp",
    }
    for i, batch in enumerate(ds.loader(batch_size=1, size=(20, 30), shuffle=False)):
        record = ds[i]
        assert record.image.shape == (20, 30, 1 if record.id == "grey" else 3)
        wanted = np.repeat(record.image, 3 // record.image.shape[2], axis=2)
        assert np.array_equal(batch.images[0], wanted)
        judge = np.asarray(Image.open(__import__("io").BytesIO(pictures[record.id])).convert("RGB"))
        assert np.abs(record.image.astype(int) - judge).max() <= 6, record.id


def test_boxes_without_a_class_that_we_packed_ourselves(tmp_path: Path) -> None:
    records = [
        hr.Record(id=f"{k}", encoded=image(k)[0], boxes=in_pixels(some_boxes(k), *image(k)[1:])) for k in range(9)
    ]
    ds = pack(records, tmp_path / "packed", shards=1)
    for out, map_ in (("a", {}), ("b", {"boxes": "objects/bbox", "box_labels": "objects/label"})):
        report = hr.adopt(ds.path / ds.manifest.shards[0].name, tmp_path / out, progress=False, map=map_)
        assert report.stored == 9 and report.box_classes == ()
        found = hr.Dataset(tmp_path / out)
        for i in range(9):
            assert np.allclose(found[i].boxes, ds[i].boxes, rtol=0, atol=1e-4) and not found[i].box_labels
