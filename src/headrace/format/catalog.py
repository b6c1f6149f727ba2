"""The catalog: one row per record, all that is known of it but its pixels. Written and read as Parquet.

How a row's values come about is left to pack; what is done with them, to load.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import DamageError, UsageError
from headrace.place import local

FILE = "catalog.parquet"
IMAGE_FILE = "file"  # a column more, where records only name their image: its path below the folder of images

SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "split": pl.String,
    "shard": pl.String,
    "offset": pl.Int64,
    "length": pl.Int64,
    "image_offset": pl.Int64,
    "image_length": pl.Int64,
    "format": pl.String,
    "height": pl.Int32,
    "width": pl.Int32,
    "channels": pl.Int8,
    "label": pl.Int32,
    "label_name": pl.String,
    "boxes": pl.List(pl.Array(pl.Float32, 4)),
    "box_labels": pl.List(pl.Int32),
    "box_label_names": pl.List(pl.String),
    "keypoints": pl.List(pl.List(pl.Array(pl.Float32, 3))),
    "attributes": pl.String,
    "origin": pl.String,
    "sha256": pl.String,
}


@dataclass(slots=True, kw_only=True)
class Row:
    """One record as stored. `offset`, `length` of the payload's record in the shard, in bytes: a record begins at
    `offset`, its payload has `length` bytes, the image's own bytes begin at `image_offset` of the file.

    `boxes` float32 [n, 4] in pixels of the stored image, `keypoints` float32 [n, k, 3]; None where nothing is said.
    `sha256` of the image is None where the record's CRC vouches for bytes that someone else wrote.
    """

    id: str
    split: str
    shard: str
    format: str
    height: int
    width: int
    channels: int
    origin: str
    sha256: str | None
    offset: int = 0
    length: int = 0
    image_offset: int = 0
    image_length: int = 0
    label: int | None = None
    label_name: str | None = None
    boxes: NDArray[np.float32] | None = None
    box_labels: list[int] | None = None
    box_label_names: list[str] | None = None
    keypoints: NDArray[np.float32] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


def table(rows: Sequence[Row]) -> pl.DataFrame:
    """The catalog of these rows, in their order."""
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in SCHEMA}
    columns["attributes"] = [
        json.dumps(value, sort_keys=True, ensure_ascii=False) if value else None for value in columns["attributes"]
    ]
    columns["keypoints"] = [None if points is None else points.tolist() for points in columns["keypoints"]]
    for name, of_none in (("boxes", np.zeros((0, 4), np.float32)), ("box_labels", []), ("box_label_names", [])):
        columns[name] = _lists(columns[name], of_none, SCHEMA[name])
    return pl.DataFrame(columns, schema=SCHEMA)


def _lists(values: Sequence[Any], of_none: Any, kind: Any) -> pl.Series:
    """A column of lists, None for null. Out of Python lists Polars would make it a hundred times slower."""
    counts = [0 if value is None else len(value) for value in values]
    given = [value for value in values if value is not None]
    flat = (
        np.concatenate(given or [of_none]) if isinstance(of_none, np.ndarray) else [v for some in given for v in some]
    )
    items = pl.DataFrame({"row": np.repeat(np.arange(len(values)), counts), "item": pl.Series(flat, dtype=kind.inner)})
    lists = items.group_by("row", maintain_order=True).agg("item")
    rows = pl.DataFrame({"row": np.arange(len(values)), "given": [value is not None for value in values]})
    made = rows.join(lists, on="row", how="left", maintain_order="left")
    empty = pl.col("given") & pl.col("item").is_null()
    return made.select(item=pl.when(empty).then(pl.lit([], dtype=kind)).otherwise(pl.col("item")))["item"]


def to_bytes(frame: pl.DataFrame) -> bytes:
    """Parquet bytes of a catalog: the same rows always give the same bytes."""
    out = io.BytesIO()
    # Row groups of fixed length: by default their number follows the number of threads.
    frame.rechunk().write_parquet(out, compression="zstd", row_group_size=1 << 16)
    return out.getvalue()


def read(folder: Path, *, sha256: str) -> pl.DataFrame:
    """The catalog of the dataset in `folder`, if its bytes have the `sha256` (hex) that the manifest says.

    Parquet has no checksums here, and a flipped bit would silently be another label or offset, or a panic of Polars.
    Raises StorageError, DamageError (other bytes, unreadable, or columns missing).
    """
    path = folder / FILE
    with local.explained(path):
        data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DamageError(f"{path}: sha256 is {found[:16]}…, the manifest says {sha256[:16]}…; pack the dataset again")
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise DamageError(f"{path}: not a readable catalog ({error}); pack the dataset again") from error
    missing = [name for name in SCHEMA if name not in frame.columns]
    if missing:
        raise DamageError(f"{path}: columns {', '.join(missing)} are missing; pack the dataset again")
    return frame


def where(frame: pl.DataFrame, condition: str) -> NDArray[np.int64]:
    """Row numbers int64 [m] for which the SQL `condition` on the catalog's columns holds. Raises UsageError."""
    try:
        kept = frame.lazy().with_row_index("__row").filter(pl.sql_expr(condition)).select("__row").collect()
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"where({condition!r}): {reason}; the columns are {', '.join(frame.columns)}") from error
    return kept["__row"].to_numpy().astype(np.int64)


def attributes(value: str | None) -> dict[str, Any]:
    """The attributes of a record out of their column (JSON, or null for none)."""
    out: dict[str, Any] = json.loads(value) if value else {}
    return out
