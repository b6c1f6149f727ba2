"""Hugging Face's own reader as the judge of the source `imagefolder`: the same images, columns, boxes and splits."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from drawn import files, jpeg
from headrace import sources
from headrace.record import Record

datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # of its own dependencies

SPLITS = {"train": "train", "validation": "val", "test": "test"}


def loaded(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Split -> rows, with the path of each image, relative to the root."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(cache))
    gc.collect()  # it leaves files open, which is said here, where nobody minds
    return {
        SPLITS[name]: [
            {**row, "image": Path(row["image"]["path"]).relative_to(root).as_posix()}
            for row in found[name].cast_column("image", datasets.Image(decode=False))
        ]
        for name in found
    }


def ours(root: Path) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for item in sources.imagefolder(root):
        assert isinstance(item, Record)
        found.setdefault(item.split or "train", []).append(item)
    return found


TEXTS = ('A cat, and "more".', "Ä dog", "Nothing")
BOXES = ([[1, 2, 3, 4.5]], [[0, 0, 5, 5], [1, 1, 2, 2]], [])
ROWS = [
    {"label": "cat", "text": text, "objects": {"bbox": boxes, "categories": ["dog", "cat"][: len(boxes)]}, "n": i}
    for i, (text, boxes) in enumerate(zip(TEXTS, BOXES, strict=True))
]


@pytest.mark.parametrize("folders", [("",), ("train", "validation"), ("data/training_set", "x/eval-1")])
def test_json_lines(folders: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    for folder in folders:
        lines = [json.dumps({"file_name": f"x/{i}.jpg", **row}) for i, row in enumerate(ROWS)]
        content = {f"x/{i}.jpg": jpeg(seed=i) for i in range(len(ROWS))}
        files(root / folder, {**content, "metadata.jsonl": "\n".join(lines).encode()})
    judged, mine = loaded(root, tmp_path / "cache", monkeypatch), ours(root)
    assert {split: len(rows) for split, rows in judged.items()} == {split: len(rows) for split, rows in mine.items()}
    for split, rows in judged.items():
        for row, record in zip(rows, mine[split], strict=True):
            assert (row["image"], row["label"], (row["text"],)) == (record.id, record.label_name, record.captions)
            assert record.attributes == {"n": row["n"]} and record.boxes is not None
            assert [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in record.boxes.tolist()] == row["objects"]["bbox"]
            assert list(record.box_labels or ()) == row["objects"]["categories"]


def test_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "in"
    text = 'file_name,label,text,n\r\n0.jpg,cat,"A ""cat"", and\nmore",1\r\nx/1.jpg,dog,Ä dog,2\r\n'
    files(root, {"0.jpg": jpeg(), "x/1.jpg": jpeg(seed=1), "2.jpg": jpeg(seed=2), "metadata.csv": text.encode()})
    judged, mine = loaded(root, tmp_path / "cache", monkeypatch), ours(root)
    assert [
        {"image": record.id, "label": record.label_name, "text": (record.captions or ("",))[0], **record.attributes}
        for record in mine["train"]
    ] == judged["train"]
