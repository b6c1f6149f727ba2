"""Exports, read by those whose formats they are: pycocotools, WebDataset, Hugging Face's datasets and datumaro.

datumaro has dependencies of its own: HEADRACE_DATUMARO_PYTHON names the interpreter of an environment that has it.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from drawn import picture, saved
from headrace.record import Mask
from packed import FACE, Source, pack

SPLITS = ("train", "val")


def masks_of(boxes: Any, size: tuple[int, int]) -> tuple[Mask, ...]:
    """A triangle of the first box, the pixels of each other one as runs."""
    made: list[Mask] = []
    for x0, y0, x1, y1 in boxes.tolist():
        if not made:
            made.append(Mask(polygons=(np.array([[x0, y0], [x1, y0], [x1, y1]], np.float32),)))
            continue
        covers = np.zeros(size, np.bool_)
        covers[int(y0) : int(y1), int(x0) : int(x1)] = True
        edges = np.flatnonzero(np.diff(covers.T.reshape(-1), prepend=False))
        runs = np.diff(np.concatenate([[0], edges, [covers.size]]))
        made.append(Mask(runs=runs.astype(np.int64), size=size))
    return tuple(made)


def records(*, flat: bool = False) -> list[hr.Record]:
    """Thirty pictures with labels, boxes of three classes with masks and keypoints, captions, and negatives; `flat`:
    their ids have no folders."""
    rng = np.random.default_rng(3)
    made = []
    for k in range(30):
        size = 30 + k % 7, 40 + k % 5
        n = k % 4
        low = rng.integers(0, 12, (n, 2)).astype(np.float32)
        boxes = np.concatenate([low, low + rng.integers(4, 16, (n, 2)).astype(np.float32)], axis=1)
        points = np.concatenate([rng.integers(1, 25, (n, 3, 2)), rng.integers(1, 3, (n, 3, 1))], axis=2)
        made.append(
            hr.Record(
                id=f"{'' if flat else f'dir{k % 2}/'}{k:02d}.{'png' if k % 3 else 'jpg'}",
                encoded=saved(picture(*size, seed=k), "PNG" if k % 3 else "JPEG"),
                label_name=("ant", "bee")[k % 2],
                captions=(f"Picture {k}.", f"Nummer {k}, æ."),
                boxes=boxes,
                box_labels=tuple(("cat", "dog", "cow")[(k + j) % 3] for j in range(n)),
                masks=masks_of(boxes, size),
                keypoints=points.astype(np.float32),
                attributes={"is_crowd": [int(j > 0) for j in range(n)], "difficult": [j % 2 for j in range(n)]},
                split=SPLITS[k % 5 == 4],
            )
        )
    return made


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(Source(records(), FACE), tmp_path_factory.mktemp("peers") / "ds", splits="given")


def pixels(encoded: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(encoded)))


# --- pycocotools -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*__array__:DeprecationWarning")  # of pycocotools itself
def test_pycocotools_reads_coco(ds: hr.Dataset, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    ds.export(tmp_path / "out", format="coco", progress=False)
    for split in SPLITS:
        view = ds.split(split)
        judge = COCO(str(tmp_path / "out" / "annotations" / f"person_keypoints_{split}.json"))
        names = {entry["id"]: entry["name"] for entry in judge.loadCats(judge.getCatIds())}
        images = {entry["file_name"]: entry for entry in judge.loadImgs(judge.getImgIds())}
        assert images.keys() == {record.id for record in view}
        for record in view:
            image = images[record.id]
            assert (image["height"], image["width"]) == (record.height, record.width)
            assert (tmp_path / "out" / "images" / split / record.id).read_bytes() == record.encoded
            found = judge.loadAnns(judge.getAnnIds(imgIds=image["id"]))
            assert record.boxes is not None and record.masks is not None and record.keypoints is not None
            corners = np.array([of["bbox"] for of in found]).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            np.testing.assert_array_equal(corners.astype(np.float32), record.boxes)
            assert tuple(names[of["category_id"]] for of in found) == record.box_labels
            assert [of["iscrowd"] for of in found] == record.attributes["is_crowd"]
            for of, mask, points in zip(found, record.masks, record.keypoints, strict=True):
                assert mask is not None
                np.testing.assert_array_equal(np.array(of["keypoints"]).reshape(-1, 3), points)
                covers = judge.annToMask(of)
                if mask.runs is not None:
                    odd = np.arange(len(mask.runs)) % 2
                    np.testing.assert_array_equal(covers.T.reshape(-1), np.repeat(odd, mask.runs))
                    assert of["area"] == covers.sum()
                else:
                    assert abs(float(covers.sum()) - of["area"]) <= covers.any(axis=0).sum()
        texts = COCO(str(tmp_path / "out" / "annotations" / f"captions_{split}.json"))
        for record in view:
            (image,) = (entry for entry in texts.loadImgs(texts.getImgIds()) if entry["file_name"] == record.id)
            told = texts.loadAnns(texts.getAnnIds(imgIds=image["id"]))
            assert tuple(of["caption"] for of in told) == record.captions


# --- WebDataset ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its own
def test_webdataset_reads_its_tars(ds: hr.Dataset, tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    ds.export(tmp_path / "out", format="webdataset", progress=False)
    names = (tmp_path / "out" / "classnames.txt").read_text().splitlines()
    for split in SPLITS:
        view = ds.split(split)
        found = list(wds.WebDataset(str(tmp_path / "out" / f"{split}-000000.tar"), shardshuffle=False))
        assert [sample["__key__"] for sample in found] == [record.id.rpartition(".")[0] for record in view]
        for record, sample in zip(view, found, strict=True):
            assert sample[record.id.rpartition(".")[2]] == record.encoded
            said = json.loads(sample["json"])
            assert names[int(sample["cls"])] == record.label_name == said["label"]
            assert record.captions is not None and record.box_labels is not None
            assert sample["txt"].decode() == record.captions[0]
            assert said["objects"]["categories"] == list(record.box_labels)


# --- Hugging Face ----------------------------------------------------------------------------------------------------


def loaded(kind: str, files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="datasets (Hugging Face) is not installed")
    return datasets.load_dataset(kind, data_files=files, cache_dir=str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_hugging_face_reads(ds: hr.Dataset, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    ds.export(out, format=kind, progress=False)
    where = {"imagefolder": "{}/**", "parquet": "data/{}-*.parquet"}[kind]
    found = loaded(kind, {split: str(out / where.format(split)) for split in SPLITS}, tmp_path, monkeypatch)
    for split in SPLITS:
        view = ds.split(split)
        if kind == "parquet":
            assert found[split].features["label"].names == list(ds.class_names)
            assert found[split].features["objects"]["categories"].feature.names == list(ds.box_class_names)
        rows = list(found[split])
        assert len(rows) == len(view)
        by_text = {row["text"]: row for row in rows}
        for record in view:
            assert record.captions is not None and record.boxes is not None and record.keypoints is not None
            row = by_text[record.captions[0]]
            assert tuple(row["captions"]) == record.captions
            np.testing.assert_array_equal(np.asarray(row["image"]), pixels(record.read()))
            label = ds.class_names[row["label"]] if kind == "parquet" else row["label"]
            assert label == record.label_name
            kinds = row["objects"]["categories"]
            kinds = [ds.box_class_names[one] for one in kinds] if kind == "parquet" else kinds
            assert tuple(kinds) == record.box_labels
            corners = np.array(row["objects"]["bbox"], np.float64).reshape(-1, 4)
            corners[:, 2:] += corners[:, :2]
            np.testing.assert_array_equal(corners.astype(np.float32), record.boxes)
            points = np.array(row["objects"]["keypoints"], np.float32).reshape(record.keypoints.shape)
            np.testing.assert_array_equal(points, record.keypoints)
            assert row["objects"]["difficult"] == record.attributes["difficult"]


# --- datumaro --------------------------------------------------------------------------------------------------------

_COUNTED = """
import json, sys
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
found = Dataset.import_from(sys.argv[1], sys.argv[2])
names = found.categories()[AnnotationType.label]
out = []
for item in found:
    boxes = [
        [names[of.label].name, *[round(float(v), 3) for v in (of.x, of.y, of.x + of.w, of.y + of.h)]]
        for of in item.annotations if of.type == AnnotationType.bbox
    ]
    out.append([item.subset, item.id, sorted(boxes)])
print(json.dumps(sorted(out)))
"""


@pytest.fixture(scope="module")
def datumaro() -> str:
    python = os.environ.get("HEADRACE_DATUMARO_PYTHON")
    if python is None:
        pytest.skip("HEADRACE_DATUMARO_PYTHON names no interpreter that has datumaro")
    return python


# What datumaro calls the formats, and the corners that it makes of our boxes: VOC's it takes as they stand in the file,
# from 1 on, with the last pixel inside (datumaro/plugins/data_formats/voc/base.py).
@pytest.mark.parametrize(
    ("format", "theirs", "shift"),
    [("coco", "coco_instances", (0, 0, 0, 0)), ("voc", "voc_detection", (1, 1, 0, 0)), ("yolo", "yolo", (0, 0, 0, 0))],
)
def test_datumaro_counts_the_same(
    ds: hr.Dataset, datumaro: str, format: str, theirs: str, shift: tuple[int, ...], tmp_path: Path
) -> None:
    # Without points and masks, which these formats of theirs are not for; its reader of YOLO knows no folders.
    plain = [
        hr.Record(id=one.id, encoded=one.encoded, boxes=one.boxes, box_labels=one.box_labels, split=one.split)
        for one in records(flat=format == "yolo")
    ]
    pack(plain, tmp_path / "ds", splits="given").export(tmp_path / "out", format=format, progress=False)
    done = subprocess.run(
        [datumaro, "-c", _COUNTED, tmp_path / "out", theirs],
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {(subset, id_): boxes for subset, id_, boxes in json.loads(done.stdout.splitlines()[-1])}
    counted = Counter(subset for subset, _ in found)
    assert counted == Counter(one.split for one in plain)
    for one in plain:
        assert one.boxes is not None and one.box_labels is not None
        told = found[one.split, one.id.rpartition(".")[0]]
        corners = (one.boxes + np.array(shift, np.float32)).tolist()
        wanted = sorted([name, *map(float, box)] for name, box in zip(one.box_labels, corners, strict=True))
        assert [name for name, *_ in told] == [name for name, *_ in wanted]
        np.testing.assert_allclose([box for _, *box in told], [box for _, *box in wanted], atol=0.01)
