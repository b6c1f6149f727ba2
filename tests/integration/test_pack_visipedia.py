"""Real photos through visipedia's list: what WIDER FACE says, said in its way, packs to the same dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.compat.visipedia import create
from headrace.imaging import codec
from listed import records as written
from packed import pack

MANY = 80


@pytest.fixture(scope="module")
def faces(real_data: Path) -> list[hr.Record]:
    txt = real_data / "wider/wider_face_split/wider_face_train_bbx_gt.here.txt"
    source = hr.sources.wider(txt, images=real_data / "wider/WIDER_train/images")
    return [item for item in source if isinstance(item, hr.Record)][:MANY]


@pytest.fixture(scope="module")
def dataset(faces: list[hr.Record]) -> list[dict[str, Any]]:
    """The list as somebody would have made it: numbers divided by the size of each photo."""
    items = []
    for record in faces:
        header = codec.read_header(record.read())
        assert record.boxes is not None
        sides = (record.boxes / [header.width, header.height, header.width, header.height]).T.tolist()
        bbox = dict(zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)) | {"text": ["face"] * len(record.boxes)}
        object_ = {"count": len(record.boxes), "bbox": bbox, "id": [str(j) for j in range(len(record.boxes))]}
        items.append({"filename": record.path, "id": record.id, "object": object_})
    return items


@pytest.mark.parametrize("options", [{}, {"size": 96, "fit": "crop"}], ids=["kept", "cropped"])
def test_the_same_dataset(
    faces: list[hr.Record], dataset: list[dict[str, Any]], options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "faces.json").write_text(json.dumps(dataset))
    ours = pack(hr.sources.visipedia(tmp_path / "faces.json"), tmp_path / "ours", **options)  # type: ignore[arg-type]
    theirs = pack(faces, tmp_path / "theirs", **options)
    assert len(ours) == len(theirs) == len(faces) and ours.catalog["id"].to_list() == theirs.catalog["id"].to_list()
    assert ours.catalog["sha256"].to_list() == theirs.catalog["sha256"].to_list()
    boxes = 0
    for i in range(len(ours)):
        one, other = ours[i], theirs[i]
        assert one.boxes is not None and other.boxes is not None and one.boxes.shape == other.boxes.shape
        assert np.allclose(one.boxes, other.boxes, rtol=0, atol=0.01) and one.box_labels == other.box_labels
        assert len(one.attributes.get("object_id", [])) == len(one.boxes)
        boxes += len(one.boxes)
    assert boxes > 100 and ours.verify().ok


def test_create_writes_them_all(dataset: list[dict[str, Any]], tmp_path: Path) -> None:
    assert create(dataset, "faces", tmp_path, 7, 4) == []
    by_id = {found["image/id"][0].decode(): found for found in written(tmp_path, "faces")}  # type: ignore[union-attr]
    assert len(by_id) == len(dataset)
    for raw in dataset:
        found = by_id[raw["id"]]
        assert found["image/encoded"] == [Path(raw["filename"]).read_bytes()]
        for side in ("xmin", "ymin", "xmax", "ymax"):
            assert found[f"image/object/bbox/{side}"] == np.float32(raw["object"]["bbox"][side]).tolist()
        assert found["image/object/count"] == [raw["object"]["count"]]


def test_mri_slices_of_every_kind(real_data: Path, tmp_path: Path) -> None:
    """PNG files named .jpg, palettes, alpha, grey: all are written, none is called what it is not."""
    files = [path for name in ("yes", "no") for path in sorted((real_data / "mri" / name).iterdir())]
    raw = [{"filename": path, "id": f"{path.parent.name}/{path.name}"} for path in files]
    assert create(raw, "mri", tmp_path, 3, 2) == []
    found = written(tmp_path, "mri")
    assert len(found) == len(files)
    for one in found:
        (encoded,) = one["image/encoded"]
        header = codec.read_header(encoded)  # type: ignore[arg-type]
        assert header.common and one["image/format"] == [header.format.upper().encode()]
        assert (one["image/height"], one["image/width"]) == ([header.height], [header.width])
        assert one["image/channels"] == [header.channels]
    assert {one["image/channels"][0] for one in found} == {1, 3}
