"""Changes of a catalog's values, collected: which rows have which new ones. What they mean is left to edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.format import catalog


@dataclass
class Changes:
    """New values of columns for some rows; of two for one row the later one holds."""

    _columns: dict[str, list[tuple[NDArray[np.int64], pl.Series]]] = field(default_factory=dict)

    def set(self, column: str, rows: NDArray[np.int64], values: pl.Series) -> None:
        """The `values` [m] of a column for these rows [m]."""
        self._columns.setdefault(column, []).append((rows, values.rename(column)))

    def set_all(self, column: str, rows: NDArray[np.int64], value: Any) -> None:
        """One value for all of these rows."""
        kind = (catalog.WHAT | catalog.MARKS)[column]
        self.set(column, rows, pl.Series(column, [value], dtype=kind).new_from_index(0, len(rows)))

    def rows(self, columns: Sequence[str]) -> NDArray[np.int64]:
        """The rows, ascending, with a new value in any of these columns."""
        found = [rows for name in columns for rows, _ in self._columns.get(name, ())]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def among(self, columns: Sequence[str]) -> bool:
        """Whether any of these columns has a new value."""
        return any(name in self._columns for name in columns)

    def frames(self, columns: Sequence[str] | None = None) -> list[pl.DataFrame]:
        """All that is new, of these columns or all, as catalog.File.revise takes it: a frame per set of rows."""
        by_rows: dict[bytes, tuple[NDArray[np.int64], list[pl.Series]]] = {}
        for name, parts in self._columns.items():
            if columns is not None and name not in columns:
                continue
            every = np.concatenate([rows for rows, _ in parts])
            values = pl.concat([series for _, series in parts])
            rows, last = np.unique(every[::-1], return_index=True)
            values = values.gather(len(every) - 1 - last)
            by_rows.setdefault(rows.tobytes(), (rows, []))[1].append(values)
        return [pl.DataFrame({"row": rows, **{one.name: one for one in of}}) for rows, of in by_rows.values()]
