"""A dataset's tables, open: its manifest, where its records are (index) and what they are (catalog)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import DamageError, HeadraceError, StorageError, UsageError
from headrace.format import catalog, index, manifest
from headrace.format.frames import anywhere
from headrace.format.index import Index
from headrace.imaging.look import BYTES
from headrace.place.address import Place, is_url, reason
from headrace.place.open import Scattered

_MOST_REJECTS = 1 << 32  # bytes of their file
_GROUPS = 16  # row groups of the catalog that are held for whoever asks for single records


class Table(Protocol):
    """A catalog of n rows, with the columns of where each record lies. All may raise StorageError, DamageError."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    def frame(self, columns: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """These columns, by default all, of these rows [m], by default all."""

    def parts(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """These columns, that are none of the index, of all rows, some at a time."""

    def where(self, condition: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Which of these rows, int64 [k] of 0 to m - 1, an SQL condition holds for. Raises UsageError."""

    def row(self, row: int) -> dict[str, Any]:
        """All columns of one row."""


class Held:
    """A Table in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self.columns = tuple(frame.columns)

    def frame(self, columns: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pl.DataFrame:
        return anywhere(_gathered, self._frame, columns, rows)

    def parts(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        yield self.frame(columns)

    def where(self, condition: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        return anywhere(_where, self._frame, condition, rows)

    def row(self, row: int) -> dict[str, Any]:
        return self._frame.row(row, named=True)


class Tables:
    """The tables of the dataset in a place, by default of the version that holds now; a version stays what it is,
    whatever is edited later. Opened in a time that hardly depends on their size, and shared between processes: the
    index is mapped, columns of the catalog are read when they are asked for. Pickles as its `home`, where the manifest
    is, and its version; `place` is where the other files are, by which all of them are read.

    Raises NotThereError, UsageError (no dataset, of another format, no such version), StorageError, DamageError (not
    what was written, or what nobody can have written).
    """

    def __init__(self, home: Place, version: int | None = None) -> None:
        self.home = home
        self.manifest = promised = manifest.read(home, version)
        self.place = files_of(home, promised)
        where, what = promised.tables
        try:
            self.index = Index.open(self.place, name=where, sha256=promised.files[where], crc32c=promised.crc32c[where])
        except (DamageError, StorageError):
            if holds(home, promised):
                raise
            raise DamageError(f"{home.path}: was replaced while it was opened; open it again") from None
        adopted = promised.adopted is not None
        self.index.check(
            [(entry.name, entry.records, entry.bytes) for entry in promised.shards],
            contiguous=not adopted,
            named=adopted,
        )
        self._catalog = catalog.File(
            self.place,
            name=what,
            sha256=promised.files[what],
            crc32c=promised.crc32c[what],
            records=promised.stored,
        )
        self.first_row = np.cumsum([0, *(entry.records for entry in promised.shards)])
        self.columns = (*catalog.SCHEMA, *([] if self.index.files is None else [catalog.IMAGE_FILE]))
        # Replaced as a whole, so that no thread needs a lock, which a fork might find taken.
        self._groups: tuple[tuple[int, pl.DataFrame], ...] = ()

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) that stands for all content."""
        return self.manifest.fingerprint

    @property
    def records_fingerprint(self) -> str:
        """sha256 (hex) that stands for the records as they lie in the shards, whatever is said of them."""
        return hashlib.sha256("".join(entry.sha256 for entry in self.manifest.shards).encode()).hexdigest()

    @cached_property
    def live(self) -> NDArray[np.int64] | None:
        """The rows int64 [m], ascending, that are not dropped in this version; None for all."""
        return anywhere(_live, self) if self.manifest.dropped else None

    @cached_property
    def edited(self) -> NDArray[np.bool_] | None:
        """Of which rows something else is said than their records do, bool [n]; None for no row."""
        return anywhere(_edited, self) if self.manifest.version > 1 else None

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.home, self.fingerprint, self.manifest.version)

    def shard(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers int64 [m] of the shards in which these rows [m] lie."""
        return np.searchsorted(self.first_row, rows, side="right") - 1

    def frame(self, columns: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pl.DataFrame:
        return anywhere(_frame, self, self.columns if columns is None else columns, rows)

    def parts(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for first in range(0, len(self), catalog.PART):
            yield anywhere(_part, self, columns, first)

    def where(self, condition: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        return anywhere(_where_in, self, condition, self.asked(condition), rows)

    def asked(self, condition: str) -> list[str]:
        """The columns that an SQL condition asks for, one at least. Raises UsageError: no valid one, or no column."""
        asked = list(dict.fromkeys(catalog.columns_of(condition)))
        if unknown := [name for name in asked if name not in self.columns]:
            raise UsageError(
                f"where({condition!r}): no column {unknown[0]!r}; the columns are {', '.join(self.columns)}"
            )
        return asked or ["label"]

    def row(self, row: int) -> dict[str, Any]:
        group, at = divmod(row, catalog.GROUP)
        return {**self._group_of(group).row(at, named=True), **self._where_of(row)}

    def ids(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The ids of these rows."""
        return self.index.ids.take(rows)

    def rejects(self) -> bytes:
        """The lines of the Rejects, as they were written. Raises DamageError, StorageError."""
        name = self.manifest.rejects
        where = self.place.address(name)
        try:
            data = self.place.content(name, _MOST_REJECTS)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{where}: can't be read: {reason(error)}") from error
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise DamageError(f"{where}: is not what was written; run 'headrace verify', and bring it back")
        return data

    def _group_of(self, number: int) -> pl.DataFrame:
        """A row group of the catalog, of the few that are held."""
        held = self._groups
        for known, frame in held:
            if known == number:
                return frame
        frame = anywhere(_group, self, number)
        self._groups = ((number, frame), *held[: _GROUPS - 1])
        return frame

    def _where_of(self, row: int) -> dict[str, Any]:
        """The columns of the index for one row."""
        of = {name: column[row].item() for name, column in self.index.columns.items()}
        inside = of["image_offset"]
        values = {
            "shard": self.manifest.shards[int(self.shard(np.array([row]))[0])].name,
            "offset": of["offset"],
            "length": of["length"],
            "image_offset": of["offset"] + inside if inside else 0,
            "image_length": of["image_length"],
            "format": index.FORMATS[of["format"]],
            "height": of["height"],
            "width": of["width"],
            "channels": of["channels"],
        }
        if self.index.files is not None:
            values[catalog.IMAGE_FILE] = self.index.files[row] or None
        return values

    def read(self, columns: Sequence[str], rows: NDArray[np.int64] | None = None) -> pl.DataFrame:
        """`frame` itself, which a forked child can't call."""
        stored = [name for name in columns if name in catalog.WHAT]
        frame = self.judged(self._catalog.read(stored)) if stored else pl.DataFrame()
        if rows is not None and stored:
            frame = frame[rows]
        found = [frame[name] if name in catalog.WHAT else self._column(name, rows) for name in columns]
        return pl.DataFrame(found)

    def group(self, number: int) -> pl.DataFrame:
        """The columns of a row group of the catalog."""
        first = number * catalog.GROUP
        return self.judged(self._catalog.read([*catalog.WHAT], first, catalog.GROUP), first)

    def part(self, columns: Sequence[str], first: int) -> pl.DataFrame:
        """One of `parts` itself, which a forked child can't call."""
        return self.judged(self._catalog.read(columns, first, catalog.PART), first)

    def judged(self, frame: pl.DataFrame, first: int = 0) -> pl.DataFrame:
        """The columns themselves, of the rows from `first` on, if they can be. Raises DamageError."""
        promised, has = self.manifest, frame.columns
        wrong: dict[str, pl.Expr] = {}
        for name in ("id", "split", "origin"):
            if name in has:
                wrong[name] = pl.col(name).is_null()
        if "split" in has:
            wrong["split"] |= ~pl.col("split").is_in([*promised.shard_splits, *(promised.split_records or ())])
        if "label" in has:
            wrong["label"] = ~pl.col("label").is_between(0, len(promised.classes) - 1)
        for name, classes in (("labels", promised.classes), ("box_labels", promised.box_classes)):
            if name in has:
                labels = pl.col(name).list
                wrong[name] = (labels.min() < 0) | (labels.max() >= len(classes))
                wrong[name] |= labels.eval(pl.element().is_null()).list.any()
        if "labels" in has and "label_names" in has:
            same = pl.col("labels").list.len() == pl.col("label_names").list.len()
            wrong["number of labels"] = (pl.col("labels").is_null() != pl.col("label_names").is_null()) | ~same
        if "look" in has:
            wrong["look"] = pl.col("look").bin.size() != BYTES
        if "value" in has:
            wrong["value"] = ~pl.col("value").is_finite()
        if "polygons" in has:
            corners = pl.element().list.eval(pl.element().list.len())
            odd = corners.list.eval((pl.element() % 2 != 0) | (pl.element() < 6)).list.any()
            wrong["polygons"] = pl.col("polygons").list.eval(odd).list.any()
        if "polygons" in has and "runs" in has:
            wrong["masks"] = pl.col("polygons").is_null() != pl.col("runs").is_null()
        for name in ("box_labels", "box_label_names", "polygons", "runs", *catalog.ATTRIBUTES):
            if name in has and "boxes" in has:
                same = pl.col(name).list.len() == pl.col("boxes").list.len()
                wrong[f"number of {name}"] = pl.col(name).is_not_null() & ~same.fill_null(False)
        if "keypoints" in has:
            sets = pl.col("keypoints").list
            wrong["keypoints"] = sets.eval(pl.element().list.len().fill_null(0) != promised.keypoints).list.any()
            if "boxes" in has:
                wrong["number of keypoints"] = sets.len() != pl.col("boxes").list.len()
        if not wrong:
            return frame
        any_of = pl.any_horizontal([one.fill_null(False) for one in wrong.values()])
        bad = frame.lazy().with_row_index("__row").filter(any_of).head(1).collect()
        if len(bad):
            row = int(bad["__row"][0])
            what = next(name for name, one in wrong.items() if bad.select(one.fill_null(False)).item())
            file = self.place.address(promised.catalog)
            raise DamageError(f"{file}: the {what} of row {first + row} can't be; pack the dataset again")
        return frame

    def marked(self, name: str) -> NDArray[np.bool_]:
        """Which rows have a mark of catalog.MARKS, bool [n]. Not in a forked child."""
        frame = self._catalog.read([name])
        return frame[name].to_numpy() if name in frame.columns else np.zeros(len(self), bool)

    def revise(self, changes: Sequence[pl.DataFrame], more: Sequence[Path], out: Path) -> None:
        """Writes a catalog of another version: see catalog.File. Not in a forked child."""
        self._catalog.revise(changes, more, out)

    def _column(self, name: str, rows: NDArray[np.int64] | None) -> pl.Series:
        """A column that the index knows."""
        every = slice(None) if rows is None else rows
        if name == "shard":
            of = self.shard(np.arange(len(self)) if rows is None else rows)
            return pl.Series(name, [entry.name for entry in self.manifest.shards], pl.String).gather(of).alias(name)
        if name == "format":
            return pl.Series(name, index.FORMATS, pl.String).gather(self.index["format"][every]).alias(name)
        if name == catalog.IMAGE_FILE:
            assert self.index.files is not None
            files = (self.index.files[row] or None for row in (range(len(self)) if rows is None else rows.tolist()))
            return pl.Series(name, list(files), pl.String)
        values = self.index[name][every]
        if name == "image_offset":
            values = np.where(values > 0, self.index["offset"][every] + values, 0)
        return pl.Series(name, values).cast(catalog.SCHEMA[name])


def files_of(home: Place, promised: manifest.Manifest) -> Place:
    """Where the files of a dataset are by whose names in the manifest they are read."""
    place = home.within(promised.folder)
    return Scattered(place) if any(is_url(entry.name) for entry in promised.shards) else place


def holds(home: Place, promised: manifest.Manifest) -> bool:
    """Whether this is still a version of the dataset in a place, if not the one that holds now."""
    try:
        return manifest.read(home, promised.version) == promised
    except HeadraceError:
        return False


def _reopened(home: Place, fingerprint: str, version: int) -> Tables:
    """The tables that were pickled. Raises DamageError: those of another dataset stand there now."""
    tables = Tables(home, version) if version <= manifest.read(home).version else None
    if tables is None or tables.fingerprint != fingerprint:
        raise DamageError(f"{home.path}: holds another dataset than was opened; open it again")
    return tables


# What Polars has to do, as functions that `anywhere` can send away.


def _live(tables: Tables) -> NDArray[np.int64]:
    live = np.flatnonzero(~tables.marked(catalog.DROPPED))
    if len(live) != len(tables) - tables.manifest.dropped:
        raise DamageError(
            f"{tables.place.address(tables.manifest.catalog)}: {len(tables) - len(live)} rows are dropped, the "
            f"manifest says {tables.manifest.dropped}; run 'headrace verify'"
        )
    return live


def _edited(tables: Tables) -> NDArray[np.bool_] | None:
    marked = tables.marked(catalog.EDITED)
    return marked if marked.any() else None


def _frame(tables: Tables, columns: Sequence[str], rows: NDArray[np.int64] | None) -> pl.DataFrame:
    return tables.read(columns, rows)


def _part(tables: Tables, columns: Sequence[str], first: int) -> pl.DataFrame:
    return tables.part(columns, first)


def _group(tables: Tables, number: int) -> pl.DataFrame:
    return tables.group(number)


def _gathered(frame: pl.DataFrame, columns: Sequence[str] | None, rows: NDArray[np.int64] | None) -> pl.DataFrame:
    some = frame if columns is None else frame.select(columns)
    return some if rows is None else some[rows]


def _where(frame: pl.DataFrame, condition: str, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return catalog.where(_gathered(frame, None, rows), condition)


def _where_in(
    tables: Tables, condition: str, columns: Sequence[str], rows: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    return catalog.where(tables.read(columns, rows), condition)
