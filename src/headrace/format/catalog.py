"""The catalog: what records are, a row each. Written as Parquet, read column by column.

Where their bytes are is left to the index; how a row's values come about, to pack; what is done with them, to load.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import DamageError, StorageError, UsageError
from headrace.format.condition import check_condition
from headrace.place import local
from headrace.place.address import Place
from headrace.record import Mask

FILE = "catalog.parquet"  # of the version that was packed

# Attributes of boxes that many formats know, a number for each box: columns of their own, so that conditions can ask
# for them. The others are JSON. The flags are 1 or 0, -1 where the format says that it isn't known.
ATTRIBUTES: dict[str, Any] = {
    "difficult": pl.List(pl.Int8),
    "truncated": pl.List(pl.Int8),
    "occluded": pl.List(pl.Int8),
    "is_crowd": pl.List(pl.Int8),
    "track": pl.List(pl.Int64),
}

# What records are: the columns of the file. A mask of an object is either `polygons`, x0, y0, x1, y1, … of each, or
# `runs`, lengths down the columns of the stored image; both are null for an object without one.
WHAT: dict[str, Any] = {
    "id": pl.String,
    "split": pl.String,
    "group_id": pl.String,
    "label": pl.Int32,
    "label_name": pl.String,
    "labels": pl.List(pl.Int32),
    "label_names": pl.List(pl.String),
    "value": pl.Float64,
    "captions": pl.List(pl.String),
    "boxes": pl.List(pl.Array(pl.Float32, 4)),
    "box_labels": pl.List(pl.Int32),
    "box_label_names": pl.List(pl.String),
    "polygons": pl.List(pl.List(pl.List(pl.Float32))),
    "runs": pl.List(pl.List(pl.Int32)),
    "keypoints": pl.List(pl.List(pl.Array(pl.Float32, 3))),
    **ATTRIBUTES,
    "attributes": pl.String,
    "origin": pl.String,
    "sha256": pl.String,
    "look": pl.Binary,
    "warning": pl.String,
}

# What a file has besides, once a version left records out, or says other things of some than their shards do.
DROPPED, EDITED = "dropped", "edited"
MARKS: dict[str, Any] = {DROPPED: pl.Boolean, EDITED: pl.Boolean}

# With where they are, which the index knows: what `Dataset.catalog` shows. `file` is a column more where records only
# name their image: its path below the folder of images.
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
    **{name: kind for name, kind in WHAT.items() if name not in ("id", "split")},
}
IMAGE_FILE = "file"
GROUP = 1 << 16  # rows of a row group
PART = 4 * GROUP  # rows of what is read in parts


@dataclass(slots=True, kw_only=True)
class Row:
    """One record as stored. `offset`, `length` of the payload's record in the shard, in bytes: a record begins at
    `offset`, its payload has `length` bytes, the image's own bytes begin at `image_offset` of the file.

    `boxes` float32 [n, 4] in pixels of the stored image, `keypoints` float32 [n, k, 3]; None where nothing is said.
    `labels`: the indices of all classes of an image that may have several. `masks`: of each box, in the same pixels;
    runs are of the stored image's size.
    `sha256` of the image is None where the record's CRC vouches for bytes that someone else wrote, and so is its `look`
    (imaging.look). `crc`: masked CRC-32C of the payload. `record`: the number of the record in its shard. Where the
    record only names its image, `file` is its path below the folder of images, and image_length and crc are those of
    the file. `warning`: what its decoder warned about, where the image was kept all the same.
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
    look: bytes | None = None
    warning: str | None = None
    offset: int = 0
    length: int = 0
    image_offset: int = 0
    image_length: int = 0
    crc: int = 0
    record: int = 0
    file: str | None = None
    group_id: str | None = None
    label: int | None = None
    label_name: str | None = None
    labels: list[int] | None = None
    label_names: list[str] | None = None
    value: float | None = None
    captions: list[str] | None = None
    boxes: NDArray[np.float32] | None = None
    box_labels: list[int] | None = None
    box_label_names: list[str] | None = None
    masks: Sequence[Mask | None] | None = None
    keypoints: NDArray[np.float32] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


def table(rows: Sequence[Row]) -> pl.DataFrame:
    """What these rows are, in their order: the columns WHAT."""
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in _FIELDS}
    known = [dict(row.attributes) for row in rows]
    for name, kind in ATTRIBUTES.items():
        columns[name] = [
            of.pop(name) if name in of and _fits(of[name], row.boxes, kind) else None
            for of, row in zip(known, rows, strict=True)
        ]
    columns["attributes"] = [attributes_text(of) for of in known]
    columns["keypoints"] = [None if points is None else points.tolist() for points in columns["keypoints"]]
    for name, of_none in (("boxes", np.zeros((0, 4), np.float32)), ("box_labels", []), ("box_label_names", [])):
        columns[name] = _lists(columns[name], of_none, WHAT[name])
    columns["polygons"], columns["runs"] = _masks([row.masks for row in rows])
    return pl.DataFrame({name: columns[name] for name in WHAT}, schema=WHAT)


_FIELDS = tuple(name for name in WHAT if name not in (*ATTRIBUTES, "polygons", "runs"))
_RANGES = {pl.Int8: (-128, 127), pl.Int64: (-(1 << 63), (1 << 63) - 1)}


def _fits(values: Any, boxes: NDArray[np.float32] | None, kind: Any) -> bool:
    """Whether an attribute is a number for each box, or null, as its column has them."""
    if boxes is None or not isinstance(values, list | tuple) or len(values) != len(boxes):
        return False
    low, high = _RANGES[kind.inner]
    return all(value is None or (isinstance(value, int | np.integer) and low <= value <= high) for value in values)


def _masks(masks: Sequence[Sequence[Mask | None] | None]) -> tuple[pl.Series, pl.Series]:
    """The columns polygons and runs: Python's lists of lists would take most of the time of a catalog."""
    says = np.array([of is not None for of in masks], bool)
    counts = np.array([0 if of is None else len(of) for of in masks], np.int64)
    every = [mask for of in masks if of is not None for mask in of]
    polygons = [polygon for mask in every if mask is not None for polygon in mask.polygons]
    corners = np.concatenate([np.zeros(0, np.float32), *(polygon.reshape(-1) for polygon in polygons)])
    each = lists(
        pl.Series(corners, dtype=pl.Float32),
        np.array([polygon.size for polygon in polygons], np.int64),
        np.ones(len(polygons), bool),
    )
    of_mask = lists(
        each,
        np.array([0 if mask is None else len(mask.polygons) for mask in every], np.int64),
        np.array([mask is not None for mask in every], bool),
    )
    lengths = [None if mask is None else mask.runs for mask in every]
    given = [found for found in lengths if found is not None]
    runs = lists(
        pl.Series(np.concatenate([np.zeros(0, np.int64), *given]), dtype=pl.Int32),
        np.array([0 if found is None else len(found) for found in lengths], np.int64),
        np.array([found is not None for found in lengths], bool),
    )
    return lists(of_mask, counts, says), lists(runs, counts, says)


def known_of(what: Mapping[str, Any], size: tuple[int, int], keypoints: int) -> dict[str, Any]:
    """The fields of a Row that a row of the catalog says, of an image of `size` (height, width) whose objects have so
    many `keypoints`. Raises DamageError: attributes that are no JSON object."""
    known: dict[str, Any] = {name: what[name] for name in _FIELDS}
    for name, shape in (("boxes", (-1, 4)), ("keypoints", (-1, keypoints, 3))):
        if known[name] is not None:
            known[name] = np.array(known[name], np.float32).reshape(shape)
    known["masks"] = _as_masks(what["polygons"], what["runs"], size)
    columns = {name: what[name] for name in ATTRIBUTES if what[name] is not None}
    known["attributes"] = columns | attributes(what["attributes"])
    return known


def _as_masks(
    polygons: list[Any] | None, runs: list[Any] | None, size: tuple[int, int]
) -> tuple[Mask | None, ...] | None:
    if polygons is None or runs is None:
        return None
    return tuple(
        None
        if parts is None
        else Mask(polygons=tuple(np.array(part, np.float32).reshape(-1, 2) for part in parts))
        if lengths is None
        else Mask(runs=np.array(lengths, np.int64), size=size)
        for parts, lengths in zip(polygons, runs, strict=True)
    )


def _lists(values: Sequence[Any], of_none: Any, kind: Any) -> pl.Series:
    """A column of lists, None for null."""
    given = [value for value in values if value is not None]
    flat = (
        np.concatenate(given or [of_none]) if isinstance(of_none, np.ndarray) else [v for some in given for v in some]
    )
    counts = np.array([0 if value is None else len(value) for value in values], np.int64)
    says = np.array([value is not None for value in values], bool)
    return lists(pl.Series(flat, dtype=kind.inner), counts, says)


def column_of(name: str, values: Sequence[Any]) -> pl.Series:
    """The column `name` of WHAT of these values, as a Row has them."""
    kind = WHAT[name]
    if name == "keypoints":
        values = [None if points is None else points.tolist() for points in values]
    elif isinstance(kind, pl.List) and name not in ("captions", "polygons", "runs", *ATTRIBUTES):
        return _lists(values, np.zeros((0, 4), np.float32) if name == "boxes" else [], kind).alias(name)
    return pl.Series(name, values, dtype=kind)


def lists(items: pl.Series, counts: NDArray[np.integer], says: NDArray[np.bool_]) -> pl.Series:
    """A column of n lists: the next `counts` [n] of the `items`, and null where `says` [n] is False.

    Out of Python lists Polars would make it a hundred times slower.
    """
    kind = pl.List(items.dtype)
    if not says.any():
        return pl.Series("item", [None] * len(says), dtype=kind)
    made = pl.DataFrame({"row": np.repeat(np.arange(len(counts)), counts), "item": items})
    rows = pl.DataFrame({"row": np.arange(len(counts)), "says": says})
    column = rows.join(
        made.group_by("row", maintain_order=True).agg("item"), on="row", how="left", maintain_order="left"
    )
    empty = pl.col("says") & pl.col("item").is_null()
    return column.select(item=pl.when(empty).then(pl.lit([], dtype=kind)).otherwise(pl.col("item")))["item"]


def to_bytes(frame: pl.DataFrame) -> bytes:
    """Parquet bytes of a catalog: the same rows always give the same bytes."""
    out = io.BytesIO()
    # Row groups of fixed length: by default their number follows the number of threads.
    frame.rechunk().write_parquet(out, compression="zstd", row_group_size=GROUP)
    return out.getvalue()


def join(parts: Sequence[Path], out: Path) -> None:
    """The catalogs `parts`, one after the other, as one file: the same bytes for any number of threads, and little
    memory. Raises StorageError."""
    with local.explained(out), _utf8([*parts, out]) as (*paths, target):
        scanned = pl.scan_parquet(paths, glob=False, hive_partitioning=False)
        try:
            _sink(scanned, target)
        except pl.exceptions.ComputeError as error:
            raise StorageError(f"{out}: {_said(error)}; nothing was published") from error


def _sink(frame: pl.LazyFrame, target: Path) -> None:
    frame.sink_parquet(target, compression="zstd", row_group_size=GROUP, maintain_order=True)


def _said(error: pl.exceptions.ComputeError) -> str:
    """What the file system says, some of which Polars wraps."""
    return str(error).rpartition("error: ")[2].lower()


@contextlib.contextmanager
def _utf8(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The paths in UTF-8, which is all that Polars takes: a folder of another name by its descriptor."""
    with contextlib.ExitStack() as stack:
        descriptors: dict[Path, int] = {}

        def spelled(path: Path) -> Path:
            try:
                str(path).encode()
                return path
            except UnicodeEncodeError:
                if path.parent not in descriptors:
                    descriptors[path.parent] = os.open(path.parent, os.O_RDONLY)
                    stack.callback(os.close, descriptors[path.parent])
                return Path(f"/proc/self/fd/{descriptors[path.parent]}") / path.name

        yield [spelled(path) for path in paths]


class File:
    """A catalog's file, whose columns are read when they are asked for: if its bytes have the `crc32c` that the
    manifest says (Parquet has no checksums here, and a flipped bit would silently be another label), and if it has a
    row for each of `records`. Every question raises StorageError, DamageError."""

    def __init__(self, place: Place, *, name: str = FILE, sha256: str, crc32c: int, records: int) -> None:
        self.path = place.address(name)
        self._name = name
        self._place, self._sha256, self._crc32c, self._records = place, sha256, crc32c, records
        self._known: tuple[int, ...] | None = None

    def read(self, columns: Sequence[str], first: int = 0, n: int | None = None) -> pl.DataFrame:
        """These columns of the rows `first` to `first + n`, by default all; MARKS where the file has them."""
        here, is_copy, before = self._sound()
        try:
            frame = read_columns(here, columns, self._records, first, n)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, DamageError) as error:
            self._check_same(here, is_copy, before)  # of half of two files nothing true can be said
            if isinstance(error, DamageError):
                raise
            raise DamageError(f"{self.path}: not a readable catalog ({error}); pack the dataset again") from error
        self._check_same(here, is_copy, before)
        self._known = before
        return frame

    def _sound(self) -> tuple[Path, bool, tuple[int, ...]]:
        """Where its bytes are, which have the CRC that was promised, whether that is a copy, and what tells it from
        other files."""
        here = self._place.whole(self._name, self._sha256)
        is_copy = here != self._place.path / self._name
        before = _identity(here, is_copy)
        if before != self._known:
            found = local.crc32c(here)
            if found != self._crc32c and is_copy:
                here = self._place.whole(self._name, self._sha256, anew=True)
                before, found = _identity(here, is_copy), local.crc32c(here)
            if found != self._crc32c:
                raise DamageError(
                    f"{self.path}: CRC-32C is 0x{found:08x}, the manifest says 0x{self._crc32c:08x}; where the dataset "
                    "was packed anew meanwhile open it again, else pack it again"
                )
        return here, is_copy, before

    def revise(self, changes: Sequence[pl.DataFrame], more: Sequence[Path], out: Path) -> None:
        """Writes a catalog of these rows with some values changed, and of `more` catalogs' rows after them.

        Of each frame of changes `row` is the number of a row, ascending, the other columns are its new values: those of
        WHAT, and MARKS. A mark that no row has is left out.
        """
        here, is_copy, before = self._sound()
        with local.explained(out), _utf8([here, *more, out]) as (source, *others, target):
            scanned = pl.scan_parquet(source, glob=False, hive_partitioning=False)
            has = scanned.collect_schema()
            frame = changed(scanned.with_row_index("row"), changes).drop("row")
            marks = [name for name in MARKS if name in has or any(name in one.columns for one in changes)]
            with_marks = frame.collect_schema()
            frame = frame.with_columns(pl.lit(False).alias(name) for name in marks if name not in with_marks)
            frame = frame.with_columns(pl.col(name).fill_null(False) for name in marks)
            parts = [frame.select([*WHAT, *marks])]
            for path in others:
                added = pl.scan_parquet(path, glob=False, hive_partitioning=False)
                parts.append(added.with_columns(pl.lit(False).alias(name) for name in marks).select([*WHAT, *marks]))
            try:
                _sink(pl.concat(parts), target)
            except pl.exceptions.ComputeError as error:
                self._check_same(here, is_copy, before)
                raise StorageError(f"{out}: {_said(error)}; nothing was changed") from error
        self._check_same(here, is_copy, before)

    def _check_same(self, here: Path, is_copy: bool, before: tuple[int, ...]) -> None:
        if _identity(here, is_copy) != before:
            raise DamageError(f"{self.path}: was replaced while it was read; open the dataset again")


def _identity(path: Path, is_copy: bool) -> tuple[int, ...]:
    """What tells a file from another; the time of a copy says when it was used last, and its name what is in it."""
    with local.explained(path):
        status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, 0 if is_copy else status.st_mtime_ns


def changed(frame: pl.LazyFrame, changes: Sequence[pl.DataFrame]) -> pl.LazyFrame:
    """The frame, whose column `row` ascends, with the values that changes (see File.revise) have for some rows."""
    for change in changes:
        new = {name: f"__{name}" for name in change.columns if name != "row"}
        has = frame.collect_schema()
        with_new = change.lazy().rename(new).with_columns(pl.col("row").cast(has["row"]), __is=pl.lit(True))
        frame = frame.join(with_new, on="row", how="left", maintain_order="left")
        frame = frame.with_columns(
            pl.when("__is").then(theirs).otherwise(name if name in has else pl.lit(None)).alias(name)
            for name, theirs in new.items()
        ).drop("__is", *new.values())
    return frame


def parts(columns: Sequence[str], path: Path, records: int) -> Iterator[pl.DataFrame]:
    """These columns of all rows of a catalog's file of so many records, some at a time. Raises DamageError,
    PolarsError."""
    for first in range(0, records, PART):
        yield read_columns(path, columns, records, first, PART)


def ids_of(path: Path) -> list[str]:
    """The ids of a catalog's file that this process has just written."""
    with _utf8([path]) as (spelled,):
        frame = pl.scan_parquet(spelled, glob=False, hive_partitioning=False).select("id").collect()
        return frame["id"].to_list()


def read_columns(
    path: Path, columns: Sequence[str], records: int, first: int = 0, n: int | None = None
) -> pl.DataFrame:
    """Columns of a catalog's file of so many records. Raises DamageError, PolarsError."""
    with _utf8([path]) as (spelled,):
        scanned = pl.scan_parquet(spelled, glob=False, hive_partitioning=False)
        return _read_columns(scanned, path, columns, records, first, n)


def _read_columns(
    scanned: pl.LazyFrame, path: Path, columns: Sequence[str], records: int, first: int, n: int | None
) -> pl.DataFrame:
    found = scanned.collect_schema()
    if wrong := [f"{name} {found.get(name)}" for name, kind in WHAT.items() if found.get(name) != kind]:
        raise DamageError(f"{path}: not the columns of a catalog: {', '.join(wrong)}; pack the dataset again")
    rows = scanned.select(pl.len()).collect().item()
    if rows != records:
        raise DamageError(f"{path}: {rows} rows, the manifest says {records} records; pack the dataset again")
    return scanned.select(name for name in columns if name not in MARKS or name in found).slice(first, n).collect()


def columns_of(condition: str) -> list[str]:
    """The names of columns that an SQL condition asks for. Opens nothing. Raises UsageError."""
    try:
        return _parsed(condition).meta.root_names()
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"where({condition!r:.300}): {reason}; the columns are {', '.join(SCHEMA)}") from error


def where(frame: pl.DataFrame, condition: str) -> NDArray[np.int64]:
    """Row numbers int64 [m] for which the SQL `condition` on the catalog's columns holds. Raises UsageError."""
    try:
        kept = frame.lazy().with_row_index("__row").filter(_parsed(condition)).select("__row").collect()
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UsageError(f"where({condition!r:.300}): {reason}; the columns are {', '.join(frame.columns)}") from error
    return kept["__row"].to_numpy().astype(np.int64)


def _parsed(condition: str) -> pl.Expr:
    check_condition(condition)
    return pl.sql_expr(condition)


def attributes_text(of: Mapping[str, Any]) -> str | None:
    """The column of a record's attributes that have no column of their own."""
    return json.dumps(of, sort_keys=True, ensure_ascii=False) if of else None


def attributes(value: str | None) -> dict[str, Any]:
    """The attributes of a record out of their column (JSON, or null for none). Raises DamageError: no JSON object."""
    try:
        found = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DamageError(f"{FILE}: the attributes {value!r:.60} are no JSON object; pack the dataset again")
    return found
