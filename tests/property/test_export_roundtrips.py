"""What is packed, exported, read by the source of the format and packed again is what it was: ids, splits, bytes of
images, classes, boxes, keypoints, masks and attributes, as far as the format has a place for them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace as hr
from drawn import picture, saved
from headrace import sources
from headrace.record import Mask
from headrace.sources.registry import FORMATS
from packed import FACE, Source, pack

SPLITS = ("train", "val", "test")
NAMES = ("cat", "dog", "rød fisk", "a & b", "<x>")
SIZES = ((20, 24), (33, 17), (48, 64))
IMAGES = {(size, kind): saved(picture(*size, seed=i), kind) for i, size in enumerate(SIZES) for kind in ("JPEG", "PNG")}


@dataclass(frozen=True)
class Way:
    """How a format is read back, which fields of a Record come back as they were, and within how many pixels boxes and
    points do. `id_of`: the id that a record has then."""

    read: Callable[[Path], Any]
    fields: frozenset[str]
    within: float = 0
    attributes: frozenset[str] = frozenset()
    id_of: Callable[[hr.Record], str] = lambda record: record.id


def coco(out: Path) -> Any:
    return {path.stem.rpartition("_")[2]: path for path in sorted((out / "annotations").iterdir())}


def read_coco(out: Path) -> Any:
    return {split: sources.coco(path, images=out / "images" / split) for split, path in coco(out).items()}


BOXED = frozenset(("boxes", "box_labels"))
OF_IMAGES = frozenset(("label_name", "labels", "value", "captions", "group"))
ALL = BOXED | OF_IMAGES | {"keypoints", "masks"}
FLAGS = frozenset(("difficult", "truncated", "occluded"))
OF_OBJECTS = FLAGS | {"is_crowd", "track", "pose", "score"}
EVERY = OF_OBJECTS | {"night", "camera"}

WAYS: dict[str, Way] = {
    "coco": Way(read_coco, BOXED | {"keypoints", "masks"}, attributes=FLAGS | {"is_crowd", "pose", "score"}),
    "voc": Way(lambda out: sources.voc(out), BOXED, attributes=FLAGS | {"pose"}),
    "yolo": Way(lambda out: sources.yolo(out), BOXED | {"keypoints"}, within=1e-3),
    "csv": Way(lambda out: sources.csv(out / "annotations.csv"), BOXED | {"group", "value"}, attributes=OF_OBJECTS),
    "csv, of images": Way(
        lambda out: sources.csv(out / "annotations.csv", label_separator="|"),
        OF_IMAGES,
        attributes=frozenset(["camera"]),
    ),
    "folders": Way(
        lambda out: sources.folders(out),
        frozenset(["label_name"]),
        id_of=lambda record: f"{record.split}/{record.label_name}/{record.id}",
    ),
    "imagefolder": Way(
        lambda out: sources.imagefolder(out), ALL, attributes=EVERY, id_of=lambda record: f"{record.split}/{record.id}"
    ),
    "webdataset": Way(lambda out: sources.webdataset(out), ALL, attributes=EVERY),
    "parquet": Way(lambda out: sources.parquet(out / "data"), ALL, attributes=EVERY),
}

sides = st.floats(0.25, 1, width=32)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
parts = st.text("abcXYZ019_-æ é(),+'", min_size=1, max_size=8).map(lambda text: f"x{text}x")


@st.composite
def records(draw: st.DrawFn, fields: frozenset[str], attributes: frozenset[str]) -> list[hr.Record]:
    """Up to six images with what a format holds; of each kind either all say something or, by chance, some."""
    ids = draw(st.lists(st.lists(parts, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique_by=fold))
    several, masked, silent = draw(st.booleans()), draw(st.sampled_from(("polygons", "runs"))), draw(st.booleans())
    return [
        draw(record(id_, fields, attributes, several=several, masked=masked, silent=silent and i > 0))
        for i, id_ in enumerate(ids)
    ]


def fold(id_: str) -> str:
    return id_.casefold()


@st.composite
def record(
    draw: st.DrawFn,
    id_: str,
    fields: frozenset[str],
    attributes: frozenset[str],
    *,
    several: bool,
    masked: str,
    silent: bool,
) -> hr.Record:
    size, kind = draw(st.sampled_from(list(IMAGES)))
    said: dict[str, Any] = {}
    boxed = "boxes" in fields
    if boxed and not (silent and "label_name" in fields):  # where nothing is said of boxes, something else must be
        n = draw(st.integers(0 if silent else 1, 3))  # data.yaml must name a class at least
        said |= draw(objects(n, size, fields, masked))
        values = {
            **{name: st.sampled_from((0, 1)) for name in ("difficult", "truncated", "occluded", "is_crowd")},
            "track": st.integers(0, 1 << 40),
            "pose": st.sampled_from(("left", "Frontal", "a b")),
            "score": st.sampled_from((0.5, 0.25, 0.125)),
        }
        chosen = sorted(attributes & values.keys()) if n else []
        said["attributes"] = {name: [draw(values[name]) for _ in range(n)] for name in chosen}
    of_image = {"night": st.integers(0, 1), "camera": st.sampled_from(("Canon", "Nikon, Z", 'a "b"'))}
    said.setdefault("attributes", {}).update(
        {name: draw(values) for name, values in of_image.items() if name in attributes}
    )
    if "label_name" in fields and not (several and "labels" in fields):
        said["label_name"] = draw(st.sampled_from(NAMES[:3]))
    elif "labels" in fields:
        said["labels"] = tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)))
    if "value" in fields:
        said["value"] = draw(st.floats(-1e6, 1e6))
    if "captions" in fields:
        said["captions"] = tuple(draw(st.lists(texts, min_size=1, max_size=2, unique=True)))
    if "group" in fields:
        said["group"] = draw(st.sampled_from(("p1", "p2")))
    return hr.Record(
        id=f"{id_}.{'jpg' if kind == 'JPEG' else 'png'}",
        encoded=IMAGES[size, kind],
        split=draw(st.sampled_from(SPLITS)),
        **said,
    )


@st.composite
def objects(draw: st.DrawFn, n: int, size: tuple[int, int], fields: frozenset[str], masked: str) -> dict[str, Any]:
    """The fields of n objects in an image of this size (height, width)."""
    height, width = size
    side = np.array([width, height] * 2, np.float32)
    boxes = np.zeros((n, 4), np.float32)
    for i in range(n):
        low, span = draw(st.tuples(sides, sides)), draw(st.tuples(sides, sides))
        corner = np.array(low, np.float32) - np.float32(0.25)
        boxes[i] = np.concatenate([corner, corner + (1 - corner) * np.array(span, np.float32)]) * side
    # Some whole numbers, as people write them; the others with all digits that a float32 has.
    boxes = np.clip(np.round(boxes) if draw(st.booleans()) else boxes, 0, side)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes = np.minimum(boxes, side)
    boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 1)
    made: dict[str, Any] = {
        "boxes": boxes,
        "box_labels": tuple(draw(st.lists(st.sampled_from(NAMES), min_size=n, max_size=n))),
    }
    if "keypoints" in fields:
        points = np.zeros((n, len(FACE), 3), np.float32)
        for of, at in np.ndindex(points.shape[:2]):
            v = draw(st.integers(0, 2))
            x, y = (draw(sides) - 0.25) * width, (draw(sides) - 0.25) * height
            points[of, at] = (x, y, v) if v else 0
        made["keypoints"] = points
    if "masks" in fields:
        made["masks"] = tuple(_mask(box, size, masked) for box in boxes)
    return made


def _mask(box: Any, size: tuple[int, int], kind: str) -> Mask:
    x0, y0, x1, y1 = box.tolist()
    if kind == "polygons":
        whole = np.array([[x0, y0], [x1, y0], [x1, y1]], np.float32)
        return Mask(polygons=(whole, whole * np.float32(0.5)))
    covers = np.zeros(size, np.bool_)
    covers[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    flat = np.concatenate([[False], covers.T.reshape(-1), [False]])
    edges = np.flatnonzero(np.diff(flat.astype(np.int8)))
    runs = np.diff(np.concatenate([[0], edges, [covers.size]]))
    return Mask(runs=runs[: len(runs) - (runs[-1] == 0)].astype(np.int64), size=size)


@pytest.mark.parametrize("name", WAYS)
@given(data=st.data())
@settings(max_examples=10)
def test_all_comes_back(name: str, data: st.DataObject) -> None:
    way, format = WAYS[name], name.partition(",")[0]
    if format not in FORMATS:
        pytest.skip(f"there is no source of the format {format} yet")
    given_records = data.draw(records(way.fields, way.attributes))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = FACE if "keypoints" in way.fields else None
        ds = pack(Source(given_records, names), root / "ds", splits="given")
        report = ds.export(root / "out", format=format, progress=False)
        assert report.renamed == 0 and report.records == len(given_records)
        source = way.read(root / "out")
        again = pack(source, root / "again", **({} if isinstance(source, dict) else {"splits": "given"}))
        assert len(again) == len(ds)
        for record in given_records:
            compare(record, ds[record.id], again[way.id_of(record)], way)


def compare(given_record: hr.Record, stored: Any, found: Any, way: Way) -> None:
    assert found.split == given_record.split
    assert found.encoded == given_record.encoded
    for field in way.fields - {"boxes", "keypoints", "masks"}:
        assert getattr(found, field) == getattr(stored, field), field
    for field in way.fields & {"boxes", "keypoints"}:
        one, other = getattr(stored, field), getattr(found, field)
        if one is None or other is None:  # what is said of no object is nothing
            assert all(each is None or not each.any() for each in (one, other)), field
        elif way.within:
            np.testing.assert_allclose(other, one, rtol=0, atol=way.within)
        else:
            np.testing.assert_array_equal(other, one)
    if "masks" in way.fields and stored.masks is not None:
        masks = found.masks if found.masks is not None else (None,) * len(stored.masks)
        assert [_plain(mask) for mask in masks] == [_plain(mask) for mask in stored.masks]
    for name in way.attributes & stored.attributes.keys():
        assert found.attributes[name] == stored.attributes[name], name


def _plain(mask: Mask | None) -> Any:
    if mask is None:
        return None
    return ([part.tolist() for part in mask.polygons], None if mask.runs is None else (mask.runs.tolist(), mask.size))
