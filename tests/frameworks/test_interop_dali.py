"""NVIDIA DALI on the CPU, in a process of its own: with our index files it reads every record and every image."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.format import tfrecord
from packed import Source, faces, pack, photos, pixels_of

PHOTOS = photos(23, grey=(3,), png=(4, 5), boxes=True)

READ = """
import json, sys
import numpy as np
from nvidia.dali import fn, pipeline_def, types
import nvidia.dali.tfrecord as tfrec

shards, indices = json.loads(sys.argv[1])

@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def read():
    row = fn.readers.tfrecord(
        path=shards, index_path=indices, name="reader", features={
            "image/encoded": tfrec.FixedLenFeature((), tfrec.string, ""),
            "image/filename": tfrec.FixedLenFeature((), tfrec.string, ""),
            "image/class/label": tfrec.FixedLenFeature([1], tfrec.int64, -1),
            "image/object/bbox/xmin": tfrec.VarLenFeature(tfrec.float32, 0.0),
            "image/object/bbox/label": tfrec.VarLenFeature(tfrec.int64, -1),
            "objects/keypoints": tfrec.VarLenFeature(tfrec.float32, 0.0),
        },
    )
    image = fn.decoders.image(row["image/encoded"], device="cpu", output_type=types.RGB)
    boxes = ("image/object/bbox/xmin", "image/object/bbox/label")
    names = ("image/filename", "image/class/label", *boxes, "objects/keypoints")
    return image, *(row[name] for name in names)

pipe = read()
pipe.build()
n = pipe.reader_meta("reader")["epoch_size"]
rows = []
for _ in range(n):
    image, name, label, xmin, kinds, points = (np.array(out.at(0)) for out in pipe.run())
    lists = [xmin.tolist(), kinds.tolist(), points.tolist()]
    rows.append([bytes(name).decode(), int(label[0]), *lists, image.shape, image.tolist()])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    out = tmp_path_factory.mktemp("dali") / "ds"
    return pack(PHOTOS, out, shards=2, splits={"train": 0.7, "val": 0.3})


def test_index_files_hold_offset_and_length_of_every_record(ds: hr.Dataset) -> None:
    """As DALI's and vahidk's tfrecord2idx write them."""
    for entry in ds.manifest.shards:
        data = (ds.path / entry.name).read_bytes()
        lines = (ds.path / entry.index_name).read_text().splitlines()
        found = [tuple(map(int, line.split(" "))) for line in lines]
        assert found == [(offset, len(payload) + 16) for offset, payload in tfrecord.scan(data)]
        assert len(found) == entry.records


def has_dali() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ImportError:
        return False


def read_by_dali(ds: hr.Dataset) -> list[Any]:
    shards = [str(ds.path / entry.name) for entry in ds.manifest.shards]
    indices = [str(ds.path / entry.index_name) for entry in ds.manifest.shards]
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps([shards, indices])], capture_output=True, text=True, timeout=1000
    )
    assert done.returncode == 0, done.stderr
    rows: list[Any] = json.loads(done.stdout)
    return rows


@pytest.mark.skipif(not has_dali(), reason="nvidia.dali is not installed")
def test_dali_reads_every_record(ds: hr.Dataset) -> None:
    rows = read_by_dali(ds)
    assert [row[0] for row in rows] == ds.catalog["id"].to_list()
    records = {record.id: record for record in PHOTOS}
    for i, (name, label, xmin, kinds, _, shape, image) in enumerate(rows):
        record, pixels = records[name], pixels_of(records[name])
        assert record.boxes is not None and label == ds.labels[i]
        assert shape == [*pixels.shape[:2], 3]
        assert np.abs(np.array(image) - np.repeat(pixels, 3 // pixels.shape[2], axis=2).astype(int)).max() <= 4
        assert np.allclose(xmin, record.boxes[:, 0] / pixels.shape[1], atol=1e-6)
        assert [("left", "right")[kind] for kind in kinds] == list(record.box_labels or ())


@pytest.mark.skipif(not has_dali(), reason="nvidia.dali is not installed")
def test_dali_reads_keypoints(tmp_path: Path) -> None:
    records = [replace(record, label_name="face") for record in faces(8) if record.keypoints is not None]
    found = {row[0]: row[4] for row in read_by_dali(pack(Source(records), tmp_path / "ds"))}
    assert len(found) == len(records) == 7
    for record in records:
        assert record.keypoints is not None
        assert np.array_equal(np.array(found[record.id], np.float32), record.keypoints.reshape(-1))
