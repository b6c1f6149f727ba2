"""Containers of images for tests: tars as tarfile writes them, Parquet as Hugging Face stores it, TFDS's folders."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from headrace.format import example, footer, tfrecord

Members = Iterable[tuple[str, bytes]]


def tar_bytes(members: Members, *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A whole tar of files by name, which may occur again."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar(path: Path, members: Members, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members, **options))
    return path


def class_label(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


IMAGE = {"_type": "Image"}


def parquet(
    path: Path,
    columns: Mapping[str, Any],
    features: Mapping[str, Any] | None = None,
    *,
    schema: Mapping[str, Any] | None = None,
    rows: int = 100,
) -> Path:
    """A Parquet file with `rows` in a group; `features` is what Hugging Face's `datasets` says of its columns."""
    frame = pl.DataFrame(dict(columns), schema_overrides=schema, strict=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, row_group_size=rows)
    if features is not None:
        footer.retell(path, {"huggingface": json.dumps({"info": {"features": features}})})
    return path


P = "tensorflow_datasets.core.features."


def _class(module: str, kind: str) -> dict[str, str]:
    return {"pythonClassName": f"{P}{module}.{kind}"}


def features_dict(**features: Any) -> dict[str, Any]:
    return _class("features_dict", "FeaturesDict") | {"featuresDict": {"features": features}}


def feature_image() -> dict[str, Any]:
    return _class("image_feature", "Image") | {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"}}


def feature_class(n: int) -> dict[str, Any]:
    return _class("class_label_feature", "ClassLabel") | {"classLabel": {"numClasses": str(n)}}


def feature_text() -> dict[str, Any]:
    return _class("text_feature", "Text") | {"text": {}}


def feature_boxes(said: str | None = "REL_YXYX") -> dict[str, Any]:
    body: dict[str, Any] = {"shape": {"dimensions": ["4"]}, "dtype": "float32"}
    return _class("bounding_boxes", "BBoxFeature") | {"boundingBox": body | ({"bboxFormat": said} if said else {})}


def feature_tensor(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    body = {"shape": {"dimensions": [str(one) for one in shape]} if shape else {}, "dtype": dtype, "encoding": "none"}
    return _class("tensor_feature", "Tensor") | {"tensor": body}


def sequence(feature: dict[str, Any]) -> dict[str, Any]:
    return _class("sequence_feature", "Sequence") | {"sequence": {"feature": feature, "length": "-1"}}


def tfds_folder(
    folder: Path,
    features: dict[str, Any],
    splits: Mapping[str, Sequence[Sequence[Mapping[str, example.Feature]]]],
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """A dataset called mydata as TFDS writes it: of each split the records of each shard."""
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    for split, shards in splits.items():
        for i, records in enumerate(shards):
            path = folder / f"mydata-{split}.tfrecord-{i:05d}-of-{len(shards):05d}"
            path.write_bytes(b"".join(tfrecord.frame(example.serialize(record)) for record in records))
        said.append({"name": split, "shardLengths": [str(len(records)) for records in shards]})
    whole = {"name": "mydata", "version": "1.0.0", "splits": said, **(info or {})}
    (folder / "dataset_info.json").write_text(json.dumps(whole))
    (folder / "features.json").write_text(json.dumps(features))
    for name, listed in (names or {}).items():
        (folder / f"{name}.labels.txt").write_text("".join(f"{one}\n" for one in listed))
    return folder
