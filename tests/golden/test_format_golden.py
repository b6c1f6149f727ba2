"""Every byte that a packing writes and that no library's version changes: frozen. A wanted change comes with new files:

HEADRACE_WRITE_GOLDEN=1 pytest tests/golden/test_format_golden.py, and a look at the diff.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from headrace.format import catalog, manifest
from headrace.record import Mask
from packed import shades

HERE = Path(__file__).parent

# 2 x 1 pixels red and blue, and a grey one: PNGs without compression, which are stored as they are.
COLOUR = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd00000012494441547801010700f8ff"
    "00ff00000000ff070001ff5536bac70000000049454e44ae426082"
)
GREY = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000d494441547801010200fdff"
    "008000820081c36e25e00000000049454e44ae426082"
)


def labelled() -> list[hr.Record | hr.Reject]:
    return [
        hr.Record(id="a/ü.png", encoded=COLOUR, label_name="cat", origin="list:1"),
        hr.Record(id="b.png", encoded=GREY, label_name="dog"),
        hr.Record(id="c.png", encoded=COLOUR, attributes={"y": [1, None], "x": "é"}),
        hr.Reject(id="d.png", origin="list:4", stage="header", reason="not an image: text"),
        hr.Record(id="e.png", encoded=GREY, label_name="cat"),
    ]


def boxed() -> list[hr.Record | hr.Reject]:
    points = np.array([[[1, 0.5, 2], [0, 0, 0]]], np.float32)
    two = np.array([[0, 0, 1, 1], [0.5, 0.25, 2, 1]], np.float32)
    return [
        hr.Record(id="a", encoded=COLOUR, boxes=two[:1], box_labels=("face",), keypoints=points),
        hr.Record(id="b", encoded=GREY, boxes=np.zeros((0, 4), np.float32), box_labels=()),
        hr.Record(id="c", encoded=COLOUR, boxes=two, box_labels=("hat", "face")),
    ]


def several() -> list[hr.Record | hr.Reject]:
    box = np.array([[0, 0, 1, 1]], np.float32)
    corner = Mask(polygons=(np.array([[0, 0], [1, 0], [1, 1]], np.float32),))
    flags = {"difficult": [1], "track": [3], "pose": ["left"]}
    return [
        hr.Record(id="a", encoded=COLOUR, labels=("cat", "dog"), value=0.5, group="g", captions=("é", "")),
        hr.Record(id="b", encoded=COLOUR, labels=(), boxes=box, box_labels=("x",), masks=(corner,), attributes=flags),
        hr.Record(id="c", encoded=GREY, boxes=box, masks=(Mask(runs=np.array([0, 1]), size=(1, 1)),), value=-1),
    ]


DATASETS = {
    "several": (several, {"shards": 1}),
    "labelled": (labelled, {"splits": {"train": 0.5, "val": 0.5}, "max_rejects": 1}),
    "boxed": (boxed, {"shards": 2}),
}


def readable(folder: Path) -> None:
    """The catalog as JSON in place of Parquet, whose bytes are Polars's; a manifest without what follows from it."""
    rows = hr.Dataset(folder).catalog.rows(named=True)
    (folder / catalog.FILE).unlink()
    text = "".join(json.dumps(row, ensure_ascii=False, default=bytes.hex) + "\n" for row in rows)
    (folder / "catalog.jsonl").write_text(text, encoding="utf-8")
    raw = json.loads((folder / manifest.FILE).read_bytes())
    del raw["sha256"], raw["headrace_version"], raw["schema"]
    del raw["files"][catalog.FILE], raw["crc32c"][catalog.FILE]
    (folder / manifest.FILE).write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_byte_by_byte(tmp_path: Path, name: str) -> None:
    records, options = DATASETS[name]
    made = tmp_path / name
    hr.pack(records(), made, progress=False, **options)  # type: ignore[arg-type]
    readable(made)
    if os.environ.get("HEADRACE_WRITE_GOLDEN"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(made, HERE / name)
    files = sorted(path.name for path in (HERE / name).iterdir())
    assert sorted(path.name for path in made.iterdir()) == files and len(files) >= 9
    for file in files:
        assert (made / file).read_bytes() == (HERE / name / file).read_bytes(), file


def test_the_order_of_batches(tmp_path: Path) -> None:
    """What a seed means: another order would give another training, and resume none at all."""
    hr.pack(shades(11, side=1), tmp_path / "ds", progress=False)
    loader = hr.Dataset(tmp_path / "ds").loader(batch_size=4, seed=5)
    found = [[[int(id_) for id_ in batch.ids] for batch in loader] for _ in range(2)]
    path = HERE / "batches.json"
    if os.environ.get("HEADRACE_WRITE_GOLDEN"):
        path.write_text(json.dumps(found) + "\n")
    assert found == json.loads(path.read_text())
