"""What `info` says in numbers: images per class, classes nobody has, and how large boxes are."""

from __future__ import annotations

import json
import shutil
import statistics as python
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from command import headrace
from drawn import jpeg
from forged import forge_catalog
from headrace.checking.statistics import box_statistics, missing_classes
from headrace.format import catalog
from headrace.sources import visipedia
from listed import boxes, item
from packed import pack, shades

# Boxes in pixels of 56 x 40 images, by record.
BOXES = [
    [(0, 0, 28, 20), (10, 10, 13, 13)],
    [(0, 0, 56, 40)],
    [],
    None,
    [(5, 5, 6, 14), (5, 5, 8, 8), (0, 0, 28, 40)],
]


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    records = [
        hr.Record(
            id=str(k),
            encoded=jpeg(),
            boxes=None if some is None else np.array(some, np.float32).reshape(-1, 4),
            box_labels=None if some is None else tuple("ab"[j % 2] for j in range(len(some))),
        )
        for k, some in enumerate(BOXES)
    ]
    return pack(records, tmp_path_factory.mktemp("statistics") / "ds", shards=2)


def of(values: list[float]) -> Any:
    found = {"mean": python.mean(values), "median": python.median(values), "min": min(values), "max": max(values)}
    return pytest.approx(found, abs=1e-5)


def test_boxes(ds: hr.Dataset) -> None:
    width, height = [28, 3, 56, 1, 3, 28], [20, 3, 40, 9, 3, 40]
    area = [w * h for w, h in zip(width, height, strict=True)]
    assert box_statistics(ds) == {
        "images": 3,
        "negatives": 1,
        "most": 3,
        "classes": {"a": 4, "b": 2},
        "small": 3,
        "images_with_small": 2,
        "reversed": 0,
        "width": of(width),
        "height": of(height),
        "area": of(area),
        "width_normalized": of([w / 56 for w in width]),
        "height_normalized": of([h / 40 for h in height]),
        "area_normalized": of([a / 56 / 40 for a in area]),
    }


def test_of_a_view(ds: hr.Dataset) -> None:
    found = box_statistics(ds.where("id = '1'"))
    assert found is not None and found["classes"] == {"a": 1, "b": 0} and found["images"] == found["most"] == 1
    assert found["width"] == {"mean": 56, "median": 56, "min": 56, "max": 56}
    for condition, negatives in (("id = '2'", 1), ("id = '3'", 0), ("id = 'x'", 0)):
        found = box_statistics(ds.where(condition))
        assert found is not None and found["negatives"] == negatives
        assert (found["images"], found["most"], found["small"], found["width"]) == (0, 0, 0, None)


def test_no_boxes_at_all(tmp_path: Path) -> None:
    assert box_statistics(pack(shades(3), tmp_path / "ds")) is None


def test_reversed_ones_are_counted(ds: hr.Dataset, tmp_path: Path) -> None:
    """The packer lets none through; who adopts the files of others may have some."""
    folder = shutil.copytree(ds.path, tmp_path / "ds")
    turned = [None if some is None else [(c, d, a, b) for a, b, c, d in some] for some in ds.catalog["boxes"].to_list()]
    forge_catalog(folder, {"boxes": pl.lit(pl.Series(turned, dtype=catalog.WHAT["boxes"]))})
    other = hr.Dataset(folder)
    found, wanted = box_statistics(other), box_statistics(ds)
    assert found is not None and wanted is not None and found["reversed"] == 6
    assert found | {"reversed": 0} == wanted


def test_classes_without_an_image(tmp_path: Path) -> None:
    labels = [0, 3, 3]
    raw = [item(k, **{"class": {"label": label, "text": f"class {label}"}}) for k, label in enumerate(labels)]
    ds = pack(visipedia(raw), tmp_path / "ds")  # type: ignore[arg-type]
    assert missing_classes(ds) == {"1": 1, "2": 2}
    assert missing_classes(ds.where("label = 3")) == {"class 0": 0, "1": 1, "2": 2}
    ended = headrace("info", tmp_path / "ds")
    assert "  classes  class 0 1, 1 0, 2 0, class 3 2\n  without an image: 1 (1), 2 (2)\n" in ended.out


def test_info_says_them(ds: hr.Dataset) -> None:
    ended = headrace("info", ds.path, "--json")
    found = json.loads(ended.out)
    assert found["boxes"] == 6 and found["box_statistics"] == box_statistics(ds) and found["missing_classes"] == {}
    text = headrace("info", ds.path).out
    assert "           in 3 images, up to 3 in one; 1 images without any\n           a 4, b 2\n" in text
    assert "width  mean 19.8, median 15.5, 1.0 to 56.0 pixels; mean 35.4% of the image's\n" in text
    assert "1.0 to 56.0 pixels" in text and "9.0 to 2240.0 square pixels; mean" in text
    assert "3 of less than 10 square pixels" in text and "wrong way" not in text


def test_a_dataset_whose_boxes_are_all_gone(tmp_path: Path) -> None:
    ds = pack(visipedia([item(object=boxes())]), tmp_path / "ds")  # type: ignore[arg-type]
    assert box_statistics(ds) is not None
    assert "in 0 images, up to 0 in one; 1 images without any" in headrace("info", ds.path).out
