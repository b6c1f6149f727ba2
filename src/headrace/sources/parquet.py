"""Source `parquet`: images in a column of Parquet files, as Hugging Face stores datasets.

    data/train-00000-of-00002.parquet: image {bytes, path} · label · objects {bbox, category} · caption …

What columns are, the files' own schema says (`huggingface` in their metadata: Image, ClassLabel and its names), and
where it says nothing their types and names. Read by Polars, a row group after the other: of a group with all its
columns two to three times its bytes are in memory, however many there are. Hugging Face writes groups of 100 images
or of 100 MB, pandas one for all.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from headrace.errors import DataError, StorageError, UsageError
from headrace.format import footer
from headrace.format.footer import BadFooter, Footer
from headrace.place import paths
from headrace.record import Record, Reject, check_names
from headrace.sources import shards, values, walking
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.shards import Shard

if TYPE_CHECKING:
    import polars as pl

EXTENSIONS = (".parquet",)
_SLICE = 32  # rows that are Python's own values at once
_LARGE = 1 << 30  # bytes of a row group from which on its memory is said aloud
_MAGIC = b"PAR1"

# Columns by what they are called, where the file doesn't say what they are.
_IMAGES = ("image", "img", "jpg", "png", "photo", "picture")
_LABELS = ("label", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetSource:
    """Iterable of Record | Reject; see `parquet`. `root` is what was passed."""

    root: str
    shards: tuple[Shard, ...]
    image: str | None
    label: str | None
    class_names: tuple[str, ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        divided, splits, notes = shards.divided(self.shards)
        seen = _Seen()
        named: tuple[str, ...] | None = self.class_names
        object_names: tuple[str, ...] | None = None
        for number, shard in enumerate(divided):
            try:
                table = _open(shard)
                columns = self._columns(shard, table, seen)
            except DataError as error:
                if len(divided) == 1:
                    raise
                # The others may be sound. What it held is not known.
                reason = str(error).removeprefix(f"{shard.path}: ")
                yield Reject(id=shard.name, origin=shard.name, stage="read", reason=reason)
                continue
            if self.class_names is None:
                named = _same(named, columns.names, number, shard, "classes")
            object_names = _same(object_names, columns.object_names, number, shard, "classes of objects")
            yield from self._rows(shard, table, columns, seen)
        return SourceInfo(
            class_names=named,
            box_class_names=object_names,
            split_names=splits,
            skipped=seen.skipped,
            root=self.root,
            notes=(*notes, *seen.notes()),
        )

    def _columns(self, shard: Shard, table: _Table, seen: _Seen) -> _Columns:
        """What the columns of a file are. Raises UsageError, DataError."""
        images = [name for name, kind in table.schema.items() if _is_image(kind, table.features.get(name))]
        has = ", ".join(f"{name} ({kind})" for name, kind in table.schema.items())[:500] or "none"
        image = self.image
        if image is None:
            image = next((name for name in _IMAGES if name in images), images[0] if len(images) == 1 else None)
        if image is None and not images:
            raise DataError(f"{shard.path}: no column of images (bytes, or bytes and path); it has {has}")
        if image is None:
            raise UsageError(f"{shard.path}: several columns of images, {', '.join(images)}; pass image=NAME")
        if image not in images:
            raise UsageError(f"{shard.path}: image={image!r} is no column of images; it has {has}")
        if self.label is not None and self.label not in table.schema:
            raise UsageError(f"{shard.path}: label={self.label!r}: no such column; it has {has}")
        classes = {
            name: found
            for name, feature in table.features.items()
            if name in table.schema and (found := _names(feature)) is not None
        }
        label = self.label or next((name for name in _LABELS if name in table.schema), None)
        if label is None and len(classes) > 1:
            raise UsageError(f"{shard.path}: several columns of classes, {', '.join(classes)}; pass label=NAME")
        label = label or next(iter(classes), None)
        kept = []
        for name, kind in table.schema.items():
            if name in (image, label) or not _holds_binary(kind):
                kept.append(name)
            else:
                seen.skipped[f"column {name} ({'images' if name in images else kind})"] += table.footer.rows
        objects = table.features.get("objects")
        return _Columns(
            image=image,
            label=label,
            kept=tuple(kept),
            names=self.class_names or (None if label is None else classes.get(label)),
            classes={name: found for name, found in classes.items() if name != label},
            object_names=None if objects is None else _names_of_objects(objects),
        )

    def _rows(self, shard: Shard, table: _Table, columns: _Columns, seen: _Seen) -> Iterator[Record | Reject]:
        row = 0
        for rows, size in table.footer.groups:
            if size > _LARGE:
                seen.large[shard.name] = max(size, seen.large.get(shard.name, 0))
            try:
                frame = _quiet(lambda row=row, rows=rows: _scan(shard.path, columns.kept).slice(row, rows).collect())
            except _Unreadable as error:
                # One Reject for each, so that what is lost is counted as what it is.
                for i in range(row, row + rows):
                    origin = f"{shard.name}:{i}"
                    yield Reject(id=origin, origin=origin, stage="read", reason=f"its row group: {error}")
                row += rows
                continue
            for part in frame.iter_slices(_SLICE):
                for said in part.iter_rows(named=True):
                    yield self._record(shard, columns, row, said, seen)
                    row += 1
            del frame

    def _record(self, shard: Shard, columns: _Columns, row: int, said: dict[str, Any], seen: _Seen) -> Record | Reject:
        origin = f"{shard.name}:{row}"
        image = said.pop(columns.image)
        path = None
        if isinstance(image, Mapping):
            path, image = image.get("path"), image.get("bytes")
        id_ = seen.id_of(path, origin)
        if not image:
            found = "no image" if path is None else f"no bytes, and the path {path!r:.200} alone"
            reason = f"{found}; wanted the file's bytes in the column {columns.image}"
            return Reject(id=id_, origin=origin, stage="read", reason=reason)
        try:
            fields = _fields({name: _plain(value) for name, value in said.items()}, columns)
        except ValueError as error:
            return Reject(id=id_, origin=origin, stage="annotation", reason=str(error))
        return Record(id=id_, encoded=image, split=shard.split, origin=origin, **fields)


@dataclass(frozen=True, slots=True)
class _Columns:
    """`image`, `label`: which column is what; `kept`: those that are read. `names` of the label's classes, `classes`
    of other columns, `object_names` of what `objects` holds."""

    image: str
    label: str | None
    kept: tuple[str, ...]
    names: tuple[str, ...] | None
    classes: Mapping[str, tuple[str, ...]]
    object_names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Table:
    footer: Footer
    schema: Mapping[str, Any]
    features: Mapping[str, Any]


@dataclass(slots=True)
class _Seen:
    """What one reading counts. `large`: bytes of the largest row group of files that have such."""

    skipped: Counter[str] = field(default_factory=Counter)
    large: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    _ids: set[int] = field(default_factory=set)

    def id_of(self, path: Any, origin: str) -> str:
        """The id of an image by the path beside its bytes, which often is a mere name; else by its place."""
        if not isinstance(path, str) or not path:
            return origin
        id_, unusable = walking.id_of(path)
        if unusable is not None:
            id_, unusable = walking.id_of(PurePosixPath(path).name)
            if unusable is not None or id_ == ".":
                return origin
        mark = hash(id_)
        if mark in self._ids:
            self.repeated += 1
            return f"{id_}#{origin}"
        self._ids.add(mark)
        return id_

    def notes(self) -> Iterator[str]:
        if self.repeated:
            yield f"{self.repeated} images have the path of one before them: their file and row is added to their ids"
        for name, size in self.large.items():
            yield (
                f"{name}: has row groups of {size / 1e9:.1f} GB, which take two to three times that in memory; write "
                "it with smaller ones"
            )


class _Unreadable(ValueError):
    """What Polars says of a file, in a line."""


def _quiet(work: Any) -> Any:
    """What Polars does, or an _Unreadable. Its panics are no Exceptions."""
    try:
        return work()
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, Exception):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _Unreadable(f"Polars can't read it: {lines[0][:200]}") from None


def _scan(path: Path, columns: Sequence[str]) -> pl.LazyFrame:
    import polars as pl  # here, as it takes longer to import than all sources

    return pl.scan_parquet(paths.kept_on_disk(path), glob=False, hive_partitioning=False).select(*map(pl.col, columns))


def _open(shard: Shard) -> _Table:
    """Raises StorageError, DataError."""
    import polars as pl  # here, as it takes longer to import than all sources

    try:
        found = footer.read(paths.kept_on_disk(shard.path))
        schema = _quiet(
            lambda: pl.scan_parquet(
                paths.kept_on_disk(shard.path), glob=False, hive_partitioning=False
            ).collect_schema()
        )
    except (BadFooter, _Unreadable) as error:
        raise DataError(f"{shard.path}: {str(error) or 'is no Parquet file'}") from None
    except OSError as error:
        raise StorageError(f"{shard.path}: {(error.strerror or str(error)).lower()}") from error
    features: Any = None
    try:
        features = json.loads(found.texts.get("huggingface", "null"))
        features = features["info"]["features"]
    except (ValueError, TypeError, KeyError, RecursionError):
        features = None
    known = features.items() if isinstance(features, dict) else ()
    return _Table(found, dict(schema), {name: said for name, said in known if isinstance(said, dict | list)})


def _is_image(kind: Any, feature: Any) -> bool:
    """Whether a column holds the bytes of images: as it says, or as it can only be."""
    import polars as pl  # here, as it takes longer to import than all sources

    if kind == pl.Struct and {"bytes"} <= (names := {one.name for one in kind.fields}) <= {"bytes", "path"}:
        return _is_a(feature, "Image") or (feature is None and "bytes" in names)
    return kind == pl.Binary and (feature is None or _is_a(feature, "Image") or _is_a(feature, "Value"))


def _is_a(feature: Any, kind: str) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == kind


def _holds_binary(kind: Any) -> bool:
    import polars as pl  # here, as it takes longer to import than all sources

    if kind == pl.Struct:
        return any(_holds_binary(one.dtype) for one in kind.fields)
    return kind in (pl.Binary, pl.Object) or (kind in (pl.List, pl.Array) and _holds_binary(kind.inner))


def _inner(feature: Any) -> Any:
    """What a list of features holds; itself where it is no list."""
    while True:
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif any(_is_a(feature, kind) for kind in ("Sequence", "List", "LargeList")):
            feature = feature.get("feature")
        else:
            return feature


def _names(feature: Any) -> tuple[str, ...] | None:
    """The class names of a ClassLabel, or of a list of them."""
    inner = _inner(feature)
    names = inner.get("names") if _is_a(inner, "ClassLabel") else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _names_of_objects(feature: Any) -> tuple[str, ...] | None:
    inner = _inner(feature)
    found = [_names(inner[key]) for key in values.CLASS_KEYS if key in inner] if isinstance(inner, dict) else []
    return found[0] if found else None


def _same(
    known: tuple[str, ...] | None, found: tuple[str, ...] | None, number: int, shard: Shard, what: str
) -> tuple[str, ...] | None:
    """Raises DataError: files that name different classes."""
    if number and known is not None and found is not None and known != found:
        raise DataError(f"{shard.path}: its {what} are {', '.join(found)[:200]}, those before {', '.join(known)[:200]}")
    return known if found is None else found


def _fields(said: dict[str, Any], columns: _Columns) -> dict[str, Any]:
    """The fields of a Record that the columns of a row say. Raises ValueError."""
    if columns.label is not None and (value := said.pop(columns.label, None)) is not None:
        said.pop("label", None)
        said.pop("labels", None)
        if isinstance(value, list):
            said["labels"] = value
        elif isinstance(value, bool):
            said["label"] = int(value)
        elif not (columns.names is not None and value == -1):  # how datasets says that there is none
            said["label"] = value
    for name, names in columns.classes.items():
        number = values.whole(said.get(name))
        if number is not None:
            said[name] = names[number] if 0 <= number < len(names) else None
    return values.fields_of(said, columns.names, columns.object_names)


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinity as null, moments as text."""
    import polars as pl  # here, as it takes longer to import than all sources

    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, pl.Series):
        return [_plain(one) for one in value.to_list()]
    return str(value)


def parquet(
    path: str | os.PathLike[str],
    *,
    image: str | None = None,
    label: str | None = None,
    class_names: Sequence[str] | None = None,
) -> ParquetSource:
    """Images in a column of the Parquet files that `path` is: one, or those in and below a folder.

    image: the column of them, `{bytes, path}` or bytes; by default the only one, or the one called image or img.
    label: the column of classes: names, numbers, lists of either (an image of several classes), or floats (a value);
    by default `label` or `labels`, else the only one that the file calls a ClassLabel. -1 in a ClassLabel, and null,
    are no label. class_names: of numbers, where the file names none. `objects`, captions and the rest are as `values`
    tells; all other columns stay attributes, but those with bytes, which are counted.

    Ids are paths beside the bytes (with the file and row added where one occurs again), else `file:row`; so are
    origins, rows counted from 0. Splits are what names of files say, as Hugging Face's `datasets` finds them. A row
    without bytes, or whose values make no sense, is a Reject, and so is each row of a group that can't be read.
    Raises NotThereError, StorageError, UsageError; iterating also DataError: no Parquet, no column of images,
    encrypted or cut (of several files such a one is a Reject).
    """
    found = shards.find(path, EXTENSIONS)
    if not found:
        raise UsageError(f"{path}: no file in it ends in {', '.join(EXTENSIONS)}")
    return ParquetSource(
        root=os.fspath(path),
        shards=tuple(found),
        image=image,
        label=label,
        class_names=None if class_names is None else check_names(class_names, "class names"),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is a Parquet file, or holds some with a column of images. Raises StorageError."""
    if path.is_file():
        try:
            with path.open("rb") as file:
                return "it begins as a Parquet file" if file.read(4) == _MAGIC else None
        except OSError as error:
            raise StorageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    try:
        found = shards.find(path, EXTENSIONS)
        for shard in found[:4]:
            table = _open(shard)
            for name, kind in table.schema.items():
                if _is_image(kind, table.features.get(name)):
                    return f"{shard.name} has a column of images, {name}"
    except (UsageError, DataError):
        pass
    return None


FORMAT = Format(
    name="parquet",
    reads="Parquet files with a column of images, as Hugging Face has them",
    takes="either",
    make=parquet,
    recognise=recognise,
    options=(
        Option(name="image", type=str, help="Which of several is the image: its extension, column or feature."),
        Option(name="label", type=str, help="The column, or feature, of classes."),
        CLASS_NAMES,
    ),
    example=("data", {}),
    about=About(
        recognised="files that begin and end as Parquet does, with a column of images.",
        kept=(
            "the image's bytes as they are, ClassLabels with their names, lists of classes, floats as "
            "values, captions, objects with bbox (x, y, width, height in pixels from 0); other columns as "
            "attributes; splits as Hugging Face finds them in names."
        ),
        refused=(
            "a row without bytes, or whose values make no sense; a file that is cut or encrypted, if there are others."
        ),
        sample=(
            "data/train-00000-of-00002.parquet\n"
            "  image: struct{bytes, path} · label: int64 · objects: struct{bbox, category}"
        ),
    ),
)
