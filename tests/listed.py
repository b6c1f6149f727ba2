"""Items of visipedia's lists drawn for tests, and what stands in shards that were made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drawn import jpeg
from headrace.format import example, tfrecord

# README of visipedia/tfrecords: all that an item may hold, in its own numbers, and `is_crowd`, which its code takes.
FULL: dict[str, Any] = {
    "filename": "a.jpg",
    "id": "0",
    "class": {"label": 1, "text": "Indigo Bunting", "conf": 0.9},
    "extra": '{"camera": 3}',
    "object": {
        "count": 1,
        "area": [0.49],
        "id": ["1"],
        "is_crowd": [0],
        "bbox": {
            "xmin": [0.1],
            "xmax": [0.8],
            "ymin": [0.2],
            "ymax": [0.9],
            "label": [1],
            "text": ["bird"],
            "score": [0.8],
            "conf": [0.9],
        },
        "parts": {"x": [0.2, 0.5], "y": [0.3, 0.6], "v": [2, 1], "score": [1.0, 0.5]},
    },
}

# FORMATS.md section 4: the keys of visipedia at HEAD, those of its code alone too.
SCALARS = {
    **dict.fromkeys(("encoded", "format", "filename", "id", "colorspace", "extra", "source_id", "key/sha256"), bytes),
    **dict.fromkeys(("height", "width", "channels", "object/count", "class/label"), int),
    "class/text": bytes,
    "class/conf": float,
}
LISTS = {
    **dict.fromkeys((f"object/bbox/{name}" for name in ("xmin", "xmax", "ymin", "ymax", "conf", "score")), float),
    **dict.fromkeys(("object/parts/x", "object/parts/y", "object/parts/score", "object/area"), float),
    **dict.fromkeys(("object/bbox/label", "object/class/label", "object/is_crowd", "object/parts/v"), int),
    **dict.fromkeys(("object/bbox/text", "object/class/text", "object/id"), bytes),
}


def item(k: int = 0, **changes: Any) -> dict[str, Any]:
    """An image of 56 x 40 pixels with bytes of its own, and no more than an item must have."""
    return {"filename": f"{k}.jpg", "id": str(k), "encoded": jpeg(seed=k), **changes}


def boxes(*corners: tuple[float, float, float, float], **more: Any) -> dict[str, Any]:
    """The `object` of an item with boxes (xmin, ymin, xmax, ymax)."""
    sides = zip(*corners, strict=True) if corners else [()] * 4
    return {"bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(list, sides), strict=True)) | more}


def photos(folder: Path, n: int) -> list[dict[str, Any]]:
    """Items that name files: `n` JPEGs 0.jpg, 1.jpg, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        (folder / f"{k}.jpg").write_bytes(jpeg(seed=k))
    return [{"filename": str(folder / f"{k}.jpg"), "id": str(k), "class": {"label": k % 3}} for k in range(n)]


def shards(folder: Path, name: str = "train") -> dict[str, list[dict[str, example.Feature]]]:
    """File name -> the features of its records."""
    return {
        path.name: [example.parse(bytes(payload)) for _, payload in tfrecord.scan(path.read_bytes())]
        for path in sorted(folder.glob(f"{name}-*"))
    }


def records(folder: Path, name: str = "train") -> list[dict[str, example.Feature]]:
    """The records of all files, one after the other."""
    return [record for of_file in shards(folder, name).values() for record in of_file]
