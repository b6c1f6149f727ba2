"""Shards as other people write them, put together key by key; TensorFlow's own are in the interop tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drawn import jpeg
from headrace.format import example, tfrecord
from headrace.format.example import Floats, Ints, Strings


def feature(value: Any) -> example.Feature:
    """The feature of bytes, a text, a number, or a list of them; an empty list needs its kind, as Ints() does."""
    if isinstance(value, Ints | Floats | Strings):
        return value
    values = value if isinstance(value, list | tuple) else [value]
    if isinstance(values[0], str):
        return Strings(text.encode() for text in values)
    if isinstance(values[0], bytes):
        return Strings(values)
    return Floats(values) if isinstance(values[0], float | np.floating) else Ints(values)


def payload(**values: Any) -> bytes:
    """A tf.train.Example; a key's '/' is written '__'."""
    return example.serialize({key.replace("__", "/"): feature(value) for key, value in values.items()})


def write(path: Path, payloads: Sequence[bytes]) -> Path:
    """A shard of these records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(tfrecord.frame(one) for one in payloads))
    return path


def plain(k: int, **more: Any) -> dict[str, Any]:
    """Record `k` of the layout `image/encoded`, `image/class/label`."""
    return {
        "image__encoded": jpeg(8 + k % 5, 9 + k % 3, seed=k),
        "image__class__label": k % 3,
        "image__filename": f"{k}.jpg",
    } | more


def shard(path: Path, n: int, change: Mapping[int, Mapping[str, Any]] | None = None) -> Path:
    """A shard of `n` plain records, some with other values; None takes a key away."""
    records = [plain(k) | dict((change or {}).get(k, {})) for k in range(n)]
    return write(path, [payload(**{k: v for k, v in one.items() if v is not None}) for one in records])
