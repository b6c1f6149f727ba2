"""Real annotations, packed and written again in the format they came in: an independent reading finds the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import headrace as hr
from headrace import sources
from packed import pack


def objects(path: Path) -> list[tuple[Any, ...]]:
    """(name, difficult, truncated, xmin, ymin, xmax, ymax) of each object of an XML file."""
    return [
        (
            *(thing.findtext(name) for name in ("name", "difficult", "truncated")),
            *(float(thing.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")),
        )
        for thing in ElementTree.parse(path).getroot().findall("object")
    ]


def test_bccd_as_voc(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "bccd"
    given = {path.stem: path for path in root.rglob("*.xml")}
    ds = pack(sources.voc(root), tmp_path / "ds", max_rejects=len(given))  # type: ignore[arg-type]
    report = ds.export(tmp_path / "out", format="voc", progress=False)
    written = {path.stem: path for path in (tmp_path / "out" / "Annotations").iterdir()}
    assert report.records == len(written) == len(ds) == 150 and report.renamed == 0
    assert {kind: n for kind, n in report.lost.items() if not kind.startswith("attribute")} == {}
    n = 0
    for stem, path in written.items():
        assert objects(path) == objects(given[stem]), stem
        n += len(objects(path))
    assert n == ds.manifest.boxes


def test_coco_keypoints_as_coco(real_data: Path, tmp_path: Path) -> None:
    (path,) = (real_data / "coco_keypoints").rglob("*.json")
    images = next(path.parent for path in (real_data / "coco_keypoints").rglob("*.jpg"))
    ds = pack(sources.coco(path, images=images), tmp_path / "ds")  # type: ignore[arg-type]
    report = ds.export(tmp_path / "out", format="coco", progress=False)
    found = json.loads((tmp_path / "out" / "annotations" / "person_keypoints_train.json").read_text())
    given = json.loads(path.read_text())
    assert report.lost == {} and report.records == len(given["images"])
    assert isinstance(ds, hr.Dataset)
    by_id = {of["id"]: of for of in found["annotations"]}
    assert len(by_id) == len(given["annotations"])
    names = {of["id"]: of["file_name"] for of in found["images"]}
    assert names == {of["id"]: of["file_name"] for of in given["images"]}
    for of in given["annotations"]:
        made = by_id[of["id"]]
        for key in ("image_id", "iscrowd", "num_keypoints", "keypoints"):
            assert made[key] == of[key], (key, of["id"])
        assert all(abs(a - b) < 1e-4 for a, b in zip(made["bbox"], of["bbox"], strict=True))
        assert abs(made["area"] - of["area"]) < 1e-2
