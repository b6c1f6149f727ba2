"""Boxes, polygons and points that are written as VOC and YOLO have them, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import files, saved
from headrace import sources
from headrace.record import Record

HEIGHT, WIDTH = 30, 200
NAMES = ("cat", "dog", "a b & <c>", "ü")

names = st.integers(0, len(NAMES) - 1)
xs, ys = st.integers(0, WIDTH), st.integers(0, HEIGHT)
corners = st.tuples(xs, ys, xs, ys).filter(lambda c: c[0] < c[2] and c[1] < c[3])
things = st.lists(st.tuples(names, corners), max_size=6, unique=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of 200 x 30 pixels."""
    data = saved(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "PNG")
    return files(tmp_path_factory.mktemp("written"), {"images/a.png": data, "names.yaml": b""})


def only(source: Any) -> Record:
    (record,) = source
    assert isinstance(record, Record)
    return record


def escaped(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;")


@settings(max_examples=100)
@given(things=things, zero_based=st.booleans(), encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_what_voc_says_is_read(root: Path, things: Any, zero_based: bool, encoding: str) -> None:
    text = "".join(
        f"<object><name>{escaped(NAMES[name])}</name><bndbox><xmin>{x0 + (not zero_based)}</xmin>"
        f"<ymin>{y0 + (not zero_based)}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in things
    )
    files(root, {"images/a.xml": f"<annotation>{text}</annotation>".encode(encoding)})
    record = only(sources.voc(root / "images", zero_based=zero_based))
    assert record.boxes is not None and record.boxes.tolist() == [list(box) for _, box in things]
    assert record.box_labels == tuple(NAMES[name] for name, _ in things)


@settings(max_examples=100)
@given(things=things, digits=st.integers(6, 17), end=st.sampled_from(["\n", "\r\n", " \n"]))
def test_what_yolo_says_is_read(root: Path, things: Any, digits: int, end: str) -> None:
    rows = [
        (name, (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT)
        for name, (x0, y0, x1, y1) in things
    ]
    text = "".join(f"{name} {' '.join(f'{x:.{digits}f}' for x in shares)}{end}" for name, *shares in rows)
    files(root, {"labels/a.txt": text.encode()})
    record = only(sources.yolo(root, class_names=NAMES))
    assert record.boxes is not None and record.boxes.shape == (len(things), 4)
    assert np.allclose(record.boxes, np.array([box for _, box in things]).reshape(-1, 4), atol=0.01)
    assert record.box_labels == tuple(NAMES[name] for name, _ in things)


@settings(max_examples=100)
@given(polygons=st.lists(st.lists(st.tuples(xs, ys), min_size=3, max_size=9), max_size=4, unique_by=tuple))
def test_polygons_are_read_and_their_extents_are_boxes(root: Path, polygons: Any) -> None:
    text = "".join(f"0 {' '.join(f'{x / WIDTH:.9f} {y / HEIGHT:.9f}' for x, y in polygon)}\n" for polygon in polygons)
    files(root, {"labels/a.txt": text.encode()})
    record = only(sources.yolo(root, class_names=NAMES, task="segment"))
    assert record.masks is not None and record.boxes is not None and len(record.masks) == len(polygons)
    for mask, box, polygon in zip(record.masks, record.boxes, polygons, strict=True):
        assert mask is not None and np.allclose(mask.polygons[0], polygon, atol=0.001)
        assert np.allclose(box, [*np.min(polygon, axis=0), *np.max(polygon, axis=0)], atol=0.001)
