"""tf.train.Example: the bytes of the format's own vectors, kinds that survive, and which keys a packed record has."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from headrace.format import example
from headrace.format.catalog import Row
from headrace.format.example import Floats, Ints, Strings

# (features, bytes): FORMATS.md section 1 and what tf.train.Example.SerializeToString(deterministic=True) gives.
VECTORS = [
    ({"i": Ints([1, 2])}, "0a0d0a0b0a016912061a040a020102"),
    ({"i": Ints([-1])}, "0a150a130a0169120e1a0c0a0affffffffffffffffff01"),
    ({"f": Floats([1.0])}, "0a0f0a0d0a01661208 12060a040000803f"),
    ({"s": Strings([b"ab", b""])}, "0a0f0a0d0a01731208 0a060a0261620a00"),
    ({"i": Ints()}, "0a090a070a016912021a00"),
    ({"f": Floats()}, "0a090a070a016612021200"),
    ({"s": Strings()}, "0a090a070a017312020a00"),
    ({}, ""),
]


@pytest.mark.parametrize(("features", "wire"), VECTORS)
def test_vectors(features: dict[str, example.Feature], wire: str) -> None:
    assert example.serialize(features) == bytes.fromhex(wire)
    assert example.parse(example.serialize(features)) == features


def test_keys_stand_in_byte_order_whatever_theirs_was() -> None:
    names = ["image/encoded", "é", "b2", "a/b", "a2"]
    one = example.serialize({name: Ints([1]) for name in names})
    two = example.serialize({name: Ints([1]) for name in reversed(names)})
    assert one == two
    keys = [b"\n" + bytes([len(name.encode())]) + name.encode() for name in names]
    places = [one.index(key) for key in sorted(keys, key=lambda key: key[2:])]
    assert places == sorted(places)


@pytest.mark.parametrize("kind", [Ints, Floats, Strings])
def test_an_empty_list_keeps_its_kind(kind: type) -> None:
    assert type(example.parse(example.serialize({"k": kind()}))["k"]) is kind


# Wire bytes that others may write, as TensorFlow reads them.
FOREIGN = [
    ("unpacked ints", "0a0d0a0b0a0169 1206 1a04 0801 0802", {"i": Ints([1, 2])}),
    ("unpacked floats", "0a100a0e0a0166 1209 1207 0d0000803f 0a00", {"f": Floats([1.0])}),
    ("value before key", "0a0c0a0a 12051a030a0103 0a0169", {"i": Ints([3])}),
    ("no kind", "0a070a050a016912 00", {"i": Ints()}),
    ("no value at all", "0a050a030a0169", {"i": Ints()}),
]


@pytest.mark.parametrize(("name", "wire", "wanted"), FOREIGN)
def test_parse_what_others_write(name: str, wire: str, wanted: dict[str, example.Feature]) -> None:
    assert example.parse(bytes.fromhex(wire)) == wanted


def test_the_last_of_two_values_of_a_key_wins() -> None:
    one, two = (example.serialize({"k": Ints([value])}) for value in (1, 2))
    assert example.parse(one + two) == {"k": Ints([2])}  # two messages in a row are one, merged


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"<html>", bytes.fromhex("0a090a070a01ff12021a00")])
def test_garbage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        example.parse(data)


@pytest.mark.parametrize("features", [{"i": Ints([1 << 63])}, {"\ud800": Ints([1])}])
def test_what_the_wire_can_not_hold(features: dict[str, example.Feature]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (protobuf's own words)
        example.serialize(features)


def row(**changes: object) -> Row:
    values = {
        "id": "a/ü.jpg", "split": "train", "shard": "s", "format": "jpeg", "height": 10, "width": 20, "channels": 3,
        "origin": "", "sha256": "ab12",
    }  # fmt: skip
    return Row(**values | changes)  # type: ignore[arg-type]


def test_keys_of_a_record_without_labels() -> None:
    features = example.features_of(row(), b"bytes", with_label=False, with_boxes=False)
    assert features == {
        "image/encoded": [b"bytes"],
        "image/format": [b"jpeg"],
        "image/filename": ["a/ü.jpg".encode()],
        "image/id": ["a/ü.jpg".encode()],
        "image/source_id": ["a/ü.jpg".encode()],
        "image/key/sha256": [b"ab12"],
        "image/height": [10],
        "image/width": [20],
        "image/channels": [3],
        "image/colorspace": [b"RGB"],
    }


# (row, label, text): a record without a label is never class 0
LABELS = [({"label": 1, "label_name": "dog"}, [1], [b"dog"]), ({}, [-1], [b""])]


@pytest.mark.parametrize(("changes", "label", "text"), LABELS)
def test_label_keys(changes: dict[str, object], label: list[int], text: list[bytes]) -> None:
    features = example.features_of(row(**changes), b"", with_label=True, with_boxes=False)
    assert features["image/class/label"] == label and features["image/class/text"] == text


def test_grey_is_said() -> None:
    features = example.features_of(row(channels=1), b"", with_label=False, with_boxes=False)
    assert features["image/colorspace"] == [b"grayscale"] and features["image/channels"] == [1]


def test_box_keys() -> None:
    boxes = np.array([[2, 3, 12, 6], [0, 0, 20, 10]], np.float32)
    points = np.array([[[2, 5, 2], [0, 0, 0]], [[20, 10, 1], [4, 1, 2]]], np.float32)
    made = row(boxes=boxes, box_labels=[1, 0], box_label_names=["cow", "ant"], keypoints=points)
    features = example.features_of(
        made, b"", with_label=False, with_boxes=True, keypoints=2, keypoint_names=("eye", "ö")
    )
    wanted = {
        "image/object/count": [2],
        "image/object/bbox/xmin": [0.1, 0.0],
        "image/object/bbox/ymin": [0.3, 0.0],
        "image/object/bbox/xmax": [0.6, 1.0],
        "image/object/bbox/ymax": [0.6, 1.0],
        "image/object/bbox/label": [1, 0],  # visipedia counts from 0
        "image/object/class/label": [2, 1],  # the TF Object Detection API from 1
        "image/object/class/text": [b"cow", b"ant"],
        "image/object/area": [0.15, 1.0],
        "objects/bbox": [0.3, 0.1, 0.6, 0.6, 0.0, 0.0, 1.0, 1.0],  # TFDS: ymin, xmin, ymax, xmax
        "objects/label": [1, 0],
        "image/object/keypoint/x": [0.1, 0.0, 1.0, 0.2],
        "image/object/keypoint/y": [0.5, 0.0, 1.0, 0.1],
        "image/object/keypoint/visibility": [2, 0, 1, 2],
        "image/object/keypoint/text": [b"eye", "ö".encode()] * 2,
        "image/object/parts/x": [0.1, 0.0, 1.0, 0.2],
        "image/object/parts/y": [0.5, 0.0, 1.0, 0.1],
        "image/object/parts/v": [2, 0, 1, 2],
        "objects/keypoints": [2, 5, 2, 0, 0, 0, 20, 10, 1, 4, 1, 2],  # pixels
    }
    for key, value in wanted.items():
        found = features[key]
        assert found == (pytest.approx(value) if isinstance(found, Floats) else value), key
    assert {key for key in features if "object" in key} == set(wanted)


BOX = np.array([[2, 3, 12, 6]], np.float32)
POINTS = np.array([[[2, 5, 2], [0, 0, 0]]], np.float32)

# Whatever a record lacks of what the others of its dataset have, its lists are equally long.
# boxes, their labels, keypoints, with_boxes: objects/bbox, label, keypoints (None: no such key)
LENGTHS = {
    "box, no points": (BOX, [1], None, True, 4, [1], [0] * 6),
    "box without a label": (BOX, None, POINTS, True, 4, [-1], [2, 5, 2, 0, 0, 0]),
    "points, no box": (None, None, POINTS, True, 4, [-1], [2, 5, 2, 0, 0, 0]),
    "points where nothing has boxes": (None, None, POINTS, False, None, None, [2, 5, 2, 0, 0, 0]),
    "a negative": (BOX[:0], [], POINTS[:0], True, 0, [], []),
    "nothing said": (None, None, None, True, 0, [], []),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lists_of_objects_are_equally_long(name: str) -> None:
    boxes, labels, points, with_boxes, bbox, label, keypoints = LENGTHS[name]
    made = row(boxes=boxes, box_labels=labels, keypoints=points)
    features = example.features_of(made, b"", with_label=False, with_boxes=with_boxes, keypoints=2)
    assert len(features.get("objects/bbox", [])) == (bbox or 0) and ("objects/bbox" in features) == (bbox is not None)
    assert features.get("objects/label") == label
    assert features["objects/keypoints"] == keypoints
    assert features["image/object/count"] == [len(keypoints) // 6]


@pytest.mark.parametrize("boxes", [None, np.zeros((0, 4), np.float32)])
def test_a_picture_without_boxes_has_all_the_lists_empty(boxes: object) -> None:
    features = example.features_of(row(boxes=boxes), b"", with_label=False, with_boxes=True)
    lists = {key: value for key, value in features.items() if "object" in key}
    assert lists.pop("image/object/count") == [0]
    assert len(lists) == 10 and not any(lists.values())
    assert example.parse(example.serialize(features)) == features


def test_the_classes_of_the_parts_stay() -> None:
    """The garbage collector must never clear one that another thread may find, see messages.py."""

    def classes() -> list[type]:
        features = example._Example().features
        feature = features.feature["a"]
        return [type(part) for part in (features, feature, feature.bytes_list, feature.float_list, feature.int64_list)]

    kept = [weakref.ref(found) for found in classes()]
    gc.collect()
    assert [found() for found in kept] == classes()


def test_a_part_that_is_made_while_garbage_is_cleared_can_be_used() -> None:
    """What comes between two steps of the garbage collector, here a finalizer, makes a message and keeps it."""
    code = """
import gc, weakref
import numpy as np
from headrace.format import example

class Cycle: pass

kept = []
def make():
    kept.append(example.message(data)["a"])
data = example.serialize({"a": example.Ints([1])})
gc.collect()
for _ in range(3):
    cycle = Cycle()
    cycle.itself, cycle.array = cycle, np.zeros(1)  # an array is no garbage itself: it ends while the cycle is cleared
    weakref.finalize(cycle.array, make)
    del cycle
    example.serialize({"a": example.Ints([2])})
    gc.collect()
for feature in kept:
    feature.int64_list.value.append(2)
    assert feature.SerializeToString() and type(feature)() != feature and str(feature) and feature.ListFields()
print(len(kept))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
