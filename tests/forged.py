"""Datasets whose tables were rewritten with right digests: what nobody made by mistake."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import polars as pl

from headrace.format import catalog, index, manifest
from headrace.format.index import Index, Texts
from headrace.place.open import at
from packed import rewrite_manifest


def sign(folder: Path) -> None:
    """Writes a manifest that says of index and catalog what they are."""
    held = {name: (folder / name).read_bytes() for name in (index.FILE, catalog.FILE)}
    promised = manifest.read(at(folder))
    rewrite_manifest(
        folder,
        files={**promised.files, **{name: hashlib.sha256(data).hexdigest() for name, data in held.items()}},
        crc32c={**promised.crc32c, **{name: google_crc32c.value(data) for name, data in held.items()}},
    )


def read_index(folder: Path) -> Index:
    """The index in memory, whose columns can be written to."""
    found = Index.over(np.frombuffer((folder / index.FILE).read_bytes(), np.uint8), "index")
    return Index({name: column.copy() for name, column in found.columns.items()}, found.ids, found.files)


def write_index(folder: Path, table: Index) -> None:
    with (folder / index.FILE).open("wb") as file:
        table.write(file)
    sign(folder)


def forge_index(folder: Path, row: int, **values: int) -> None:
    """Columns of one row of the index, as numbers."""
    table = read_index(folder)
    for name, value in values.items():
        table[name][row] = value
    write_index(folder, table)


def forge_ids(folder: Path, change: Callable[[list[str]], Sequence[str]]) -> None:
    """The ids of the index."""
    table = read_index(folder)
    ids = change([table.ids[i] for i in range(len(table))])
    write_index(folder, Index(table.columns, Texts.of(ids), table.files))


def forge_catalog(folder: Path, columns: Mapping[str, pl.Expr] | None = None, rows: Any = slice(None)) -> None:
    """Columns of the catalog, and which of its rows there are."""
    frame = pl.read_parquet(folder / catalog.FILE).with_columns(**(columns or {})).cast(catalog.WHAT)  # type: ignore[arg-type]
    (folder / catalog.FILE).write_bytes(catalog.to_bytes(frame[rows]))
    sign(folder)
