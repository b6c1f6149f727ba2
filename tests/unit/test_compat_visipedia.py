"""compat.visipedia.create: visipedia's files, keys and kinds, and none of its faults (FORMATS: bugs 1 to 11)."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import exif, image, jpeg, saved
from headrace.compat import visipedia
from headrace.compat.visipedia import create
from headrace.errors import StorageError, UsageError
from headrace.format.example import Floats, Ints, Strings
from headrace.imaging import codec
from listed import FULL, LISTS, SCALARS, boxes, item, photos, records, shards
from painted import assert_painted_at

KINDS = {bytes: Strings, int: Ints, float: Floats}


def made(raw: dict[str, Any], folder: Path, **options: Any) -> Any:
    """The features of the only record."""
    assert create([raw], "train", folder, 1, 1, **options) == []
    (found,) = records(folder)
    return found


def error(raw: Any, folder: Path, **options: Any) -> str:
    (failed,) = create([raw], "train", folder, 1, 1, **options)
    assert records(folder) == []
    return str(failed["error_msg"])


# --- what it writes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store_images", [True, False])
@pytest.mark.parametrize("raw", [FULL | {"encoded": jpeg()}, item()], ids=["full", "bare"])
def test_exactly_its_keys_and_kinds(raw: dict[str, Any], store_images: bool, tmp_path: Path) -> None:
    found = made(raw, tmp_path, store_images=store_images)
    kinds = {f"image/{key}": KINDS[kind] for key, kind in (SCALARS | LISTS).items()}
    assert {key: type(values) for key, values in found.items()} == kinds  # an empty list has its kind too
    assert {key: len(found[f"image/{key}"]) for key in SCALARS} == dict.fromkeys(SCALARS, 1)


def test_the_values_of_a_full_item(tmp_path: Path) -> None:
    data = jpeg()
    found = made(FULL | {"encoded": data}, tmp_path)
    wanted = {
        "encoded": [data],
        "format": [b"JPEG"],
        "filename": [b"a.jpg"],
        "id": [b"0"],
        "source_id": [b"0"],
        "key/sha256": [hashlib.sha256(data).hexdigest().encode()],
        "colorspace": [b"RGB"],
        "channels": [3],
        "height": [40],
        "width": [56],
        "extra": [b'{"camera": 3}'],
        "class/label": [1],
        "class/text": [b"Indigo Bunting"],
        "class/conf": [0.9],
        "object/count": [1],
        "object/area": [0.49],
        "object/id": [b"1"],
        "object/is_crowd": [0],
        "object/bbox/xmin": [0.1],
        "object/bbox/xmax": [0.8],
        "object/bbox/ymin": [0.2],
        "object/bbox/ymax": [0.9],
        "object/bbox/label": [1],
        "object/bbox/text": [b"bird"],
        "object/bbox/score": [0.8],
        "object/bbox/conf": [0.9],
        "object/class/label": [1],
        "object/class/text": [b"bird"],
        "object/parts/x": [0.2, 0.5],
        "object/parts/y": [0.3, 0.6],
        "object/parts/v": [2, 1],
        "object/parts/score": [1.0, 0.5],
    }
    assert wanted.keys() == SCALARS.keys() | LISTS.keys()
    for key, values in wanted.items():
        values = np.float32(values).tolist() if isinstance(values[0], float) else values
        assert found[f"image/{key}"] == values, key


def test_what_an_item_does_not_say(tmp_path: Path) -> None:
    found = made(item(object=boxes((0.1, 0.1, 0.2, 0.2), (0.2, 0.3, 0.4, 0.5))), tmp_path)
    assert found["image/class/label"] == [-1] and found["image/class/text"] == [b""]  # and not the class 0
    assert found["image/class/conf"] == [1.0] and found["image/extra"] == [b""]
    assert found["image/object/count"] == [2]


@pytest.mark.parametrize(("n", "num_shards"), [(0, 3), (1, 1), (3, 5), (10, 3), (7, 7), (25, 10)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_files_and_their_names(n: int, num_shards: int, shuffle: bool, tmp_path: Path) -> None:
    assert create([item(k) for k in range(n)], "train", tmp_path, num_shards, 2, shuffle) == []
    found = shards(tmp_path)
    assert list(found) == [f"train-{k:05d}-of-{num_shards:05d}" for k in range(num_shards)]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(found)
    ends = [n * k // num_shards for k in range(num_shards + 1)]
    assert [len(of_file) for of_file in found.values()] == np.diff(ends).tolist()
    ids = [int(record["image/id"][0]) for record in records(tmp_path)]
    assert sorted(ids) == list(range(n))
    assert (ids == list(range(n))) is (not shuffle or n < 2)


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_the_same_bytes_for_any_number_of_threads(threads: int, tmp_path: Path) -> None:
    raw = [item(k) for k in range(30)]
    raw[7]["encoded"] = b""
    for folder, number in ((tmp_path / "one", 1), (tmp_path / "more", threads)):
        assert len(create(raw, "x", folder, 4, number)) == 1
    files = [sorted((tmp_path / name).iterdir()) for name in ("one", "more")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert len({path.read_bytes() for path in files[0]}) == 4


def test_another_seed_another_order(tmp_path: Path) -> None:
    raw = [item(k) for k in range(20)]
    orders = []
    for seed in (0, 0, 1):
        create(raw, "x", tmp_path, 2, 1, seed=seed)
        orders.append([record["image/id"][0] for record in records(tmp_path, "x")])
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


# --- images ----------------------------------------------------------------------------------------------------------

FILES = [
    # (file, format written, channels, colorspace, bytes kept)
    ("a.jpg", jpeg(), "JPEG", 3, "RGB", True),
    ("a.jpg", jpeg(mode="L"), "JPEG", 1, "grayscale", True),
    ("a.png", saved(image(), "PNG"), "PNG", 3, "RGB", True),
    ("a.png", saved(image(mode="L"), "PNG"), "PNG", 1, "grayscale", True),
    ("a.jpg", saved(image(), "PNG"), "PNG", 3, "RGB", True),  # the content says what it is
    ("a.png", jpeg(), "JPEG", 3, "RGB", True),
    ("a.jpg", jpeg(exif=exif(6)), "JPEG", 3, "RGB", True),
    ("a.png", saved(image(mode="P"), "PNG"), "PNG", 3, "RGB", False),
    ("a.png", saved(image(mode="RGBA"), "PNG"), "PNG", 3, "RGB", False),
    ("a.png", saved(image(mode="LA"), "PNG"), "PNG", 1, "grayscale", False),
    ("a.bmp", saved(image(), "BMP"), "PNG", 3, "RGB", False),
    ("a.gif", saved(image(), "GIF"), "PNG", 3, "RGB", False),
    ("a.tif", saved(image(), "TIFF"), "PNG", 3, "RGB", False),
    ("a.jpg", saved(image(mode="CMYK"), "JPEG"), "JPEG", 3, "RGB", False),
    ("a.webp", saved(image(), "WEBP"), "JPEG", 3, "RGB", False),
]


@pytest.mark.parametrize(("name", "data", "format", "channels", "colorspace", "kept"), FILES)
def test_files_of_every_kind(
    name: str, data: bytes, format: str, channels: int, colorspace: str, kept: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    found = made({"filename": str(path), "id": 1}, tmp_path / "out")
    (encoded,) = found["image/encoded"]
    assert (encoded == data) is kept
    header = codec.read_header(encoded)
    assert header.common and header.format.upper() == format and header.channels == channels
    assert (found["image/format"], found["image/channels"]) == ([format.encode()], [channels])
    assert found["image/colorspace"] == [colorspace.encode()] and found["image/filename"] == [str(path).encode()]
    assert (found["image/height"], found["image/width"]) == ([40], [56])  # as stored, whatever EXIF says
    assert found["image/key/sha256"] == [hashlib.sha256(encoded).hexdigest().encode()]
    if not kept:
        theirs = codec.decode(data, header=codec.read_header(data)).astype(int)
        ours = codec.decode(encoded, header=header).astype(int)
        assert np.abs(theirs - ours).max() <= (0 if format == "PNG" else 4)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "no such file or directory"),
        (b"", "empty file (0 bytes)"),
        (b"<html>", "not an image: an HTML page"),
        (jpeg()[:-150], "truncated JPEG"),
        (saved(image(mode="I;16"), "PNG"), "more than 8 bits per sample"),
    ],
)
@pytest.mark.parametrize("store_images", [True, False])
def test_files_that_fail(data: bytes | None, says: str, store_images: bool, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "a.jpg").write_bytes(data)
    raw = {"filename": str(tmp_path / "a.jpg"), "id": 1}
    assert says in error(raw, tmp_path / "out", store_images=store_images)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in error({"filename": str(tmp_path / "pipe"), "id": 1}, tmp_path / "out")


SAYS: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"height": 40, "width": "56", "format": "jpg", "colorspace": "rgb", "channels": 3}, None),
    ({"format": "image/jpeg"}, None),
    ({"format": "JPEG", "channels": 4}, None),
    ({"height": 41}, "height is 41, the encoded image has 40"),
    ({"width": 40}, "width is 40, the encoded image has 56"),
    ({"format": "png"}, "format is 'png', the encoded image is a JPEG"),
    ({"channels": 1}, "channels is 1, the encoded image is in colour"),
    ({"encoded": jpeg(mode="L"), "channels": 3}, "channels is 3, the encoded image is grey"),
    ({"encoded": jpeg()[:600]}, "truncated JPEG"),
    ({"encoded": jpeg()[:-150]}, "truncated JPEG"),
    ({"encoded": bytearray(jpeg())}, None),
    ({"encoded": np.frombuffer(jpeg(), np.uint8)}, None),
]


@pytest.mark.parametrize(("changes", "says"), SAYS)
def test_what_an_item_says_of_its_bytes_must_be_so(changes: dict[str, Any], says: str | None, tmp_path: Path) -> None:
    raw = item(**changes)
    if says is not None:
        assert says in error(raw, tmp_path)
        return
    found = made(raw, tmp_path)
    assert found["image/encoded"] == [bytes(raw["encoded"])]
    for key in ("format", "colorspace"):
        assert found[f"image/{key}"] == [str(changes.get(key, {"format": "JPEG", "colorspace": "RGB"}[key])).encode()]
    assert (found["image/height"], found["image/width"]) == ([40], [56])
    assert found["image/channels"] == [changes.get("channels", 3)]


def test_without_images_the_name_is_kept(tmp_path: Path) -> None:
    (raw,) = photos(tmp_path / "in", 1)
    found = made(raw, tmp_path / "out", store_images=False)
    assert found["image/encoded"] == [b""] and found["image/filename"] == [raw["filename"].encode()]
    assert (found["image/height"], found["image/width"], found["image/channels"]) == ([40], [56], [3])
    sha256 = hashlib.sha256(Path(raw["filename"]).read_bytes()).hexdigest()
    assert found["image/key/sha256"] == [sha256.encode()] and found["image/format"] == [b"JPEG"]


def test_without_images_they_may_be_elsewhere(tmp_path: Path) -> None:
    """visipedia asks for height and width then, and for nothing more."""
    raw = {"filename": "/elsewhere/a.jpg", "id": 1, "height": 40, "width": "56"}
    found = made(raw, tmp_path, store_images=False)
    assert (found["image/height"], found["image/width"], found["image/channels"]) == ([40], [56], [3])
    assert found["image/encoded"] == [b""] and found["image/key/sha256"] == [b""]
    assert "no such file" in error(raw, tmp_path)
    del raw["height"]
    assert "no such file" in error(raw, tmp_path, store_images=False)


# --- size, and JPEG alone --------------------------------------------------------------------------------------------


def rectangle(height: int, width: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, dict[str, Any]]:
    """A black picture with a white rectangle, and the `object` of an item with its box."""
    x0, y0, x1, y1 = box
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    area = (x1 - x0) * (y1 - y0) / (height * width)
    return pixels, boxes((x0 / width, y0 / height, x1 / width, y1 / height)) | {"area": [area]}


# Sides that 8, 4 and 2 divide, and do not; rectangles up to the last pixels, where a wrong scale is worst.
SCENES = [
    (1600, 1200, (100, 200, 1100, 1500)),
    (1601, 1203, (3, 7, 1190, 1590)),
    (4032, 3024, (2000, 1000, 3020, 4030)),
    (801, 640, (600, 10, 632, 793)),
    (1999, 6401, (6000, 1900, 6390, 1990)),
    (900, 3207, (20, 30, 3190, 890)),
    (6397, 1599, (1500, 6000, 1592, 6388)),
]


@pytest.mark.parametrize(("height", "width", "box"), SCENES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "encoded"])
def test_boxes_of_smaller_images_are_where_they_should_be(
    height: int, width: int, box: tuple[int, int, int, int], kind: str, tmp_path: Path
) -> None:
    """To half a pixel of what is stored: found in the record's own pixels, at the record's own numbers."""
    pixels, object_ = rectangle(height, width, box)
    data = saved(pixels, "JPEG" if kind == "encoded" else kind, **({} if kind == "PNG" else {"quality": 95}))
    (tmp_path / "a").write_bytes(data)
    raw = {"filename": str(tmp_path / "a"), "id": 1, "object": object_}
    if kind == "encoded":
        raw["encoded"] = data
    found = made(raw, tmp_path / "out", max_side=800)
    (encoded,) = found["image/encoded"]
    header = codec.read_header(encoded)
    (h,), (w,) = found["image/height"], found["image/width"]
    assert (header.height, header.width) == (h, w) and max(h, w) == 800
    assert min(h, w) == round(min(height, width) * 800 / max(height, width))
    assert found["image/format"] == [b"PNG" if kind == "PNG" else b"JPEG"]
    assert found["image/key/sha256"] == [hashlib.sha256(encoded).hexdigest().encode()]
    shares = [found[f"image/object/bbox/{side}"][0] for side in ("xmin", "ymin", "xmax", "ymax")]
    assert np.allclose(shares, np.array(box) / [width, height, width, height])
    assert found["image/object/area"] == [np.float32(object_["area"][0])]
    assert_painted_at(codec.decode(encoded, header=header), np.array(shares) * [w, h, w, h], within=0.5)


@pytest.mark.parametrize(("name", "data", "format", "channels", "colorspace", "kept"), FILES)
def test_images_that_are_small_enough_stay_as_they_are(
    name: str, data: bytes, format: str, channels: int, colorspace: str, kept: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    raw = {"filename": str(path), "id": 1}
    assert made(raw, tmp_path / "big", max_side=56) == made(raw, tmp_path / "plain")
    small = made(raw, tmp_path / "small", max_side=28)
    assert (small["image/height"], small["image/width"]) == ([20], [28])  # of the pixels as stored, whatever EXIF says
    assert (small["image/format"], small["image/channels"]) == ([format.encode()], [channels])
    header = codec.read_header(small["image/encoded"][0])
    assert header.plain and header.format.upper() == format
    only = made(raw, tmp_path / "jpeg", png_to_jpeg=True)
    assert only["image/format"] == [b"JPEG"] and (only["image/height"], only["image/width"]) == ([40], [56])
    assert (only["image/encoded"] == [data]) is (kept and format == "JPEG")
    header = codec.read_header(only["image/encoded"][0])
    theirs = codec.decode(data, header=codec.read_header(data)).astype(int)
    assert header.format == "jpeg" and header.channels == channels
    assert np.abs(codec.decode(only["image/encoded"][0], header=header).astype(int) - theirs).max() <= 6


def test_bytes_that_are_brought_are_changed_when_it_is_asked(tmp_path: Path) -> None:
    data = saved(image(), "PNG")
    raw = item(encoded=data, height=40, width=56, format="png", channels=4, colorspace="rgb")
    kept = made(raw, tmp_path / "kept", max_side=100)
    assert kept["image/encoded"] == [data] and kept["image/channels"] == [4] and kept["image/format"] == [b"png"]
    for options in ({"max_side": 28}, {"png_to_jpeg": True}):
        found = made(raw, tmp_path / str(options), **options)
        header = codec.read_header(found["image/encoded"][0])
        assert found["image/format"] == [header.format.upper().encode()]
        assert header.format == ("png" if "max_side" in options else "jpeg")
        assert found["image/channels"] == [3] and found["image/colorspace"] == [b"RGB"]
        assert (found["image/height"], found["image/width"]) == ([header.height], [header.width])
    # What the item says is of the bytes that it brings.
    assert "height is 20, the encoded image has 40" in error(raw | {"height": 20}, tmp_path / "no", max_side=28)


def test_an_image_too_long_for_a_jpeg(tmp_path: Path) -> None:
    raw = item(encoded=saved(np.zeros((1, 70_000, 3), np.uint8), "PNG"))
    assert "70000 x 1 pixels are too many a side for a JPEG" in error(raw, tmp_path, png_to_jpeg=True)
    assert made(raw, tmp_path / "kept")["image/format"] == [b"PNG"]


# --- what fails, and what does not -----------------------------------------------------------------------------------


def test_failed_images_come_back_and_the_list_stays_as_it_is(tmp_path: Path) -> None:
    raw: list[Any] = [item(k) for k in range(12)]
    raw[3] = {"filename": str(tmp_path / "gone.jpg"), "id": "3", "class": {"label": 1}}
    raw[5] = "5.jpg"
    raw[8] = item(8, object={"count": 2, **boxes((0, 0, 1, 1))})
    before = copy.deepcopy(raw)
    failed = create(raw, "train", tmp_path / "out", 3, 2)
    assert raw == before
    assert [one.get("id") for one in failed] == ["3", None, "8"]  # in the order of the list
    assert failed[0].keys() == {"filename", "id", "class", "error_msg"} and failed[0] is not raw[3]
    assert failed[1]["item"] == "5.jpg"
    assert failed[2]["error_msg"] == "dataset[8]: object.count is 2, there are 1 boxes"
    ids = sorted(int(record["image/id"][0]) for record in records(tmp_path / "out"))
    assert ids == [0, 1, 2, 4, 6, 7, 9, 10, 11]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id": None}, "id is missing"),
        ({"class": {"label": "cat"}}, "class.label is 'cat', wanted a whole number"),
        ({"class": {"conf": float("nan")}}, "class.conf is nan"),
        ({"object": boxes((0, 0, 1, 1), label=[1, 2])}, "object.bbox.label has 2 values, object.bbox.xmin says 1"),
        ({"object": {"bbox": {"xmin": [0.1]}}}, "object.bbox has 1 xmin, 0 xmax"),
        ({"object": {"parts": {"x": [0.1], "y": [0.1], "v": [1, 2]}}}, "object.parts has 1 x, 1 y, 2 v"),
    ],
)
def test_items_that_fail(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    message = error(item(**changes), tmp_path)
    assert message.startswith("dataset[0]: ") and says in message


def test_the_failed_come_in_the_order_of_the_list(tmp_path: Path) -> None:
    raw = [{"filename": "gone.jpg", "id": k} if k % 2 else item(k) for k in range(30)]
    assert [one["id"] for one in create(raw, "train", tmp_path, 2, 3)] == list(range(1, 30, 2))


def test_numbers_are_written_as_they_are(tmp_path: Path) -> None:
    """What makes no sense to us may make some to the caller's reader: reversed boxes, pixels, labels below 0."""
    object_ = boxes((0.9, 0, 0.1, 300), label=[-2])
    found = made(item(object=object_, **{"class": {"label": -5}}), tmp_path)
    assert found["image/class/label"] == [-5] and found["image/object/bbox/label"] == [-2]
    assert found["image/object/bbox/ymax"] == [300] and found["image/object/bbox/xmin"] == [np.float32(0.9)]


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-00000-of-00002").write_bytes(b"old")
    calls: list[int] = []

    def fails(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return serialize(*args)

    serialize = visipedia.example.serialize
    monkeypatch.setattr(visipedia.example, "serialize", fails)
    with pytest.raises(MemoryError):
        create([item(k) for k in range(8)], "train", tmp_path, 2, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"train-00000-of-00002": b"old"}
    assert create([item(k) for k in range(8)], "train", tmp_path, 2, 1) == []
    assert len(records(tmp_path)) == 8 and len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from headrace.compat import visipedia\nfrom listed import item\n"
        "visipedia._failed = None\n"
        "real = visipedia.tfrecord.frame\n"
        "made = []\n"
        "def frame(data):\n    made.append(1)\n    os._exit(9) if len(made) == 6 else None\n    return real(data)\n"
        "visipedia.tfrecord.frame = frame\n"
        "visipedia.create([item(k) for k in range(8)], 'train', sys.argv[1], 2, 1)\n"
    )
    here = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code, tmp_path, here], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert [path.name.startswith(".train.writing-") for path in tmp_path.iterdir()] == [True]
    (tmp_path / ".trainer.writing-1").mkdir()  # another's
    assert create([item(k) for k in range(8)], "train", tmp_path, 2, 1) == []
    names = [".trainer.writing-1", "train-00000-of-00002", "train-00001-of-00002"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_shards": 0}, "num_shards is 0, wanted at least 1"),
        ({"num_threads": 0}, "workers is 0, wanted at least 1"),
        ({"dataset_name": "a/b"}, "dataset_name is 'a/b', wanted the beginning of a file name"),
        ({"dataset_name": ""}, "dataset_name is ''"),
        ({"dataset": "train.json"}, "dataset is a str, wanted a list of dicts"),
        ({"dataset": {"id": 1}}, "dataset is a dict, wanted a list of dicts"),
        ({"max_side": 0}, "max_side is 0, wanted 1 to 65500 pixels"),
        ({"max_side": 9, "store_images": False}, "max_side and png_to_jpeg are for images that are stored"),
        ({"png_to_jpeg": True, "store_images": False}, "max_side and png_to_jpeg are for images that are stored"),
    ],
)
def test_calls_that_are_none(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    call = {"dataset": [], "dataset_name": "a", "output_directory": tmp_path / "x", "num_shards": 1, "num_threads": 1}
    with pytest.raises(UsageError) as caught:
        create(**(call | changes))
    assert says in str(caught.value) and not (tmp_path / "x").exists()


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        create([], "a", tmp_path / "file" / "x", 1, 1)


# --- whatever the numbers --------------------------------------------------------------------------------------------

FLOATS32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
BYTES = jpeg(8, 8)


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    n, k = draw(st.integers(0, 3)), draw(st.integers(0, 3))

    def of(kind: st.SearchStrategy[Any], size: int, *, may_lack: bool = True) -> Any:
        return draw(st.one_of(*[st.just([])] * may_lack, st.lists(kind, min_size=size, max_size=size)))

    points = n * k
    return {
        "filename": draw(TEXT.filter(lambda text: "\0" not in text)),
        "id": draw(TEXT.filter(bool)),
        "encoded": BYTES,
        "class": draw(st.fixed_dictionaries({}, optional={"label": INT64, "text": TEXT, "conf": FLOATS32})),
        "object": {
            "bbox": {side: of(FLOATS32, n, may_lack=False) for side in ("xmin", "xmax", "ymin", "ymax")}
            | {"label": of(INT64, n), "text": of(TEXT, n), "conf": of(FLOATS32, n), "score": of(FLOATS32, n)},
            "parts": {side: of(FLOATS32, points, may_lack=False) for side in ("x", "y")}
            | {"v": of(INT64, points), "score": of(FLOATS32, points)},
            "area": of(FLOATS32, n),
            "id": of(TEXT, n),
            "is_crowd": of(INT64, n),
        },
    }


@settings(max_examples=60)
@given(items())
def test_every_number_comes_back(tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any]) -> None:
    found = made(raw, tmp_path_factory.mktemp("every"))
    for key in LISTS:
        *above, name = key.replace("object/class/", "object/bbox/").split("/")
        part = raw
        for step in above:
            part = part[step]
        wanted = [one.encode() if isinstance(one, str) else one for one in part[name]]
        assert found[f"image/{key}"] == wanted, key
    assert found["image/object/count"] == [len(raw["object"]["bbox"]["xmin"])]
    for key, default in (("label", -1), ("text", ""), ("conf", 1.0)):
        value = raw["class"].get(key, default)
        assert found[f"image/class/{key}"] == [value.encode() if isinstance(value, str) else value]


# --- visipedia's bugs, by their number in the table of docs/visipedia.md ---------------------------------------------


def test_bug_1_an_error_costs_its_image_alone(tmp_path: Path) -> None:
    raw = [item(k) for k in range(9)]
    raw[4]["encoded"] = b"no image"
    (failed,) = create(raw, "train", tmp_path, 3, 3)
    assert failed["id"] == "4" and "not an image" in failed["error_msg"]
    assert [len(of_file) for of_file in shards(tmp_path).values()].count(3) == 2 and len(records(tmp_path)) == 8


def test_bug_2_and_3_it_runs_on_what_is_installed_and_without_tensorflow(tmp_path: Path) -> None:
    """No np.int, which NumPy no longer has, and no Session, placeholder, gfile or python_io."""
    photos(tmp_path / "in", 2)
    code = (
        "import sys, headrace.compat.visipedia as v\n"
        "raw = [{'filename': f'{sys.argv[1]}/in/{k}.jpg', 'id': k} for k in range(2)]\n"
        "assert v.create(raw, 'train', sys.argv[1] + '/out', 2, 2) == []\n"
        "print([name for name in ('tensorflow', 'torch', 'jax', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert len(records(tmp_path / "out")) == 2


@pytest.mark.parametrize(("num_shards", "num_threads"), [(1, 2), (3, 2), (2, 5), (7, 3)])
def test_bug_4_any_number_of_shards_and_threads(num_shards: int, num_threads: int, tmp_path: Path) -> None:
    assert create([item(k) for k in range(10)], "train", tmp_path, num_shards, num_threads) == []
    assert len(shards(tmp_path)) == num_shards and len(records(tmp_path)) == 10


def test_bug_5_texts_of_boxes_stand_under_both_keys(tmp_path: Path) -> None:
    found = made(item(object=boxes((0, 0, 1, 1), (0, 0, 1, 1), text=["cat", "dog"])), tmp_path)
    assert found["image/object/bbox/text"] == found["image/object/class/text"] == [b"cat", b"dog"]


def test_bug_6_a_text_is_one_value(tmp_path: Path) -> None:
    found = made(item(id="cat", **{"class": {"text": "cat"}}), tmp_path)
    assert found["image/class/text"] == found["image/source_id"] == found["image/id"] == [b"cat"]


def test_bug_7_images_need_not_be_stored(tmp_path: Path) -> None:
    raw = photos(tmp_path / "in", 3)
    assert create(raw, "train", tmp_path / "out", 1, 1, store_images=False) == []
    assert [record["image/encoded"] for record in records(tmp_path / "out")] == [[b""]] * 3


def test_bug_8_numbers_may_be_strings(tmp_path: Path) -> None:
    raw = item(object=boxes(("0.1", "0.2", "0.3", "0.4"), label=["7"]), **{"class": {"label": "1", "conf": "0.5"}})  # type: ignore[arg-type]
    found = made(raw, tmp_path)
    assert found["image/class/label"] == [1] and found["image/class/conf"] == [0.5]
    assert found["image/object/bbox/label"] == [7] and found["image/object/bbox/xmax"] == [np.float32(0.3)]


@pytest.mark.parametrize("kind", [tuple, np.array, lambda values: np.float32(values)])
def test_bug_9_lists_may_be_tuples_and_arrays(kind: Any, tmp_path: Path) -> None:
    sides = {side: kind([0.25, 0.5]) for side in ("xmin", "xmax", "ymin", "ymax")}
    found = made(item(object={"bbox": sides, "area": kind([1, 2])}), tmp_path)
    assert found["image/object/bbox/ymin"] == [0.25, 0.5] and found["image/object/area"] == [1, 2]


@pytest.mark.parametrize("raw", [item(extra="x"), item(**{"class": {"extra": "x"}})])
def test_bug_10_extra_stands_at_the_top_too(raw: dict[str, Any], tmp_path: Path) -> None:
    assert made(raw, tmp_path)["image/extra"] == [b"x"]


def test_bug_11_files_are_closed_when_it_returns(tmp_path: Path) -> None:
    create([item(k) for k in range(5)], "train", tmp_path, 2, 2)
    held = [file.path for file in psutil.Process().open_files() if str(tmp_path) in file.path]
    assert not held and len(records(tmp_path)) == 5


def test_bug_11_the_callers_list_and_chance_are_left_alone(tmp_path: Path) -> None:
    raw = [item(k) for k in range(20)]
    before = list(raw)
    random.seed(3)
    state = random.getstate()
    create(raw, "a", tmp_path, 1, 1)
    assert all(one is other for one, other in zip(raw, before, strict=True)) and random.getstate() == state
    create(raw, "b", tmp_path, 1, 1)
    (a, b) = ((tmp_path / f"{name}-00000-of-00001").read_bytes() for name in "ab")
    assert a == b


def test_bug_11_a_png_stays_one(tmp_path: Path) -> None:
    data = saved(image(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    found = made({"filename": str(tmp_path / "a.png"), "id": 1}, tmp_path / "out")
    assert found["image/encoded"] == [data] and found["image/format"] == [b"PNG"]


def test_bug_11_a_grey_jpeg_is_recorded_as_grey(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(mode="L"))
    found = made({"filename": str(tmp_path / "a.jpg"), "id": 1}, tmp_path / "out")
    assert found["image/channels"] == [1] and found["image/colorspace"] == [b"grayscale"]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_bug_11_height_and_width_are_of_the_pixels_as_stored(orientation: int, tmp_path: Path) -> None:
    """EXIF is neither applied nor lost: coordinates, size and TensorFlow's decoders all mean the stored pixels."""
    data = jpeg(exif=exif(orientation))
    (tmp_path / "a.jpg").write_bytes(data)
    found = made({"filename": str(tmp_path / "a.jpg"), "id": 1}, tmp_path / "out")
    assert found["image/encoded"] == [data] and (found["image/height"], found["image/width"]) == ([40], [56])


def test_bug_11_lengths_of_lists_are_checked(tmp_path: Path) -> None:
    raw = item(object=boxes((0, 0, 1, 1), (0, 0, 1, 1), score=[0.5]))
    assert "object.bbox.score has 1 values, object.bbox.xmin says 2" in error(raw, tmp_path)


# --- as a command ----------------------------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *words: str | Path | int) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        visipedia.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def options(folder: Path) -> list[str | Path | int]:
    path, out = folder / "train.json", folder / "out"
    return ["--dataset_path", path, "--prefix", "train", "--output_dir", out, "--shards", 3, "--threads", 2]


@pytest.mark.parametrize(
    ("words", "shuffled", "stored"),
    [
        ([], False, False),
        (["--shuffle", "--store_images"], True, True),
        (["--shuffle", "false", "--store_images", "True"], False, True),
        (["--shuffle=1", "--store_images=no"], True, False),
    ],
)
def test_as_a_command(
    words: list[str], shuffled: bool, stored: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = photos(tmp_path / "in", 8)
    (tmp_path / "train.json").write_text(json.dumps([*raw, {"filename": "gone.jpg", "id": "x"}]))
    code, out, err = command(capsys, *options(tmp_path), *words)
    assert code == 0 and out == f"{tmp_path / 'out'}: 8 images in 3 files, 1 failed\n"
    assert err == "headrace: x: dataset[8]: no such file or directory: 'gone.jpg'\n"
    found = records(tmp_path / "out")
    assert all((record["image/encoded"] != [b""]) is stored for record in found)
    assert ([int(record["image/id"][0]) for record in found] != list(range(8))) is shuffled
    raw.append({"filename": "gone.jpg", "id": "x"})
    create(raw, "train", tmp_path / "python", 3, 1, shuffled, stored)
    for path in (tmp_path / "python").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_found_from_the_top() -> None:
    code = "import headrace as hr; print(hr.compat.visipedia.create.__module__)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.stdout == "headrace.compat.visipedia\n", done.stderr


def test_commands_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, *options(tmp_path))
    assert (code, out, err) == (2, "", f"headrace: {tmp_path / 'train.json'}: no such file\n")
    (tmp_path / "train.json").write_text("{}")
    assert command(capsys, *options(tmp_path))[0] == 1
    (tmp_path / "train.json").write_text('[{"filename": "gone.jpg", "id": 1}]')
    assert command(capsys, *options(tmp_path))[0] == 1  # nothing could be used
    assert command(capsys, *options(tmp_path)[:-2])[0] == 2
    code, _, err = command(capsys, *options(tmp_path), "--shuffle", "maybe")
    assert code == 2 and "'maybe': wanted true or false" in err
    assert command(capsys, *options(tmp_path)[:-1], 0)[0] == 2


def test_help_has_an_example(tmp_path: Path) -> None:
    words = ["-W", "error", "-m", "headrace.compat.visipedia", "--help"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert "Example: python -m headrace.compat.visipedia --dataset_path" in " ".join(done.stdout.split())
