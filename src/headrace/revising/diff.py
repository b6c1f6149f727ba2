"""What two versions of a dataset differ in, record by record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.format import frames
from headrace.format.tables import Tables
from headrace.format.versions import addressed, common_rows
from headrace.place.open import at


@dataclass(frozen=True, slots=True)
class Changed:
    """What is said of a record `id` in the earlier version (`before`) and in the later one: of its class (a name, or
    names, or None), its split, or the number of its boxes."""

    id: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """From version `before` to version `after`: ids that were `dropped` and `added`; records that were `relabelled`,
    whose `boxes` (or their classes) are others, that were `moved` to another split; and of both versions the number of
    records, per class and per split."""

    before: int
    after: int
    records: tuple[int, int]
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    relabelled: tuple[Changed, ...]
    boxes: tuple[Changed, ...]
    moved: tuple[Changed, ...]
    classes: Mapping[str, tuple[int, int]]
    splits: Mapping[str, tuple[int, int]]

    @property
    def edited(self) -> int:
        """How many records have other labels or boxes."""
        return len({one.id for one in (*self.relabelled, *self.boxes)})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def diff(
    path: str | os.PathLike[str],
    before: int | None = None,
    after: int | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Diff:
    """What version `after` (by default the one that holds now) differs in from version `before` (by default the one
    that it was made of). Raises UsageError (there is no such version), NotThereError, DamageError, StorageError."""
    frames.check_process("diff")
    path, said = addressed(path, storage_options)
    home = at(path, storage_options)
    new = Tables(home, said if after is None else after)
    number = new.manifest.version - 1 if before is None else before
    if before is None and not number:
        raise UsageError(f"{home.path}: version 1 was made of no other; name two versions")
    return between(Tables(home, number), new)


def between(old: Tables, new: Tables) -> Diff:
    """What two versions of one dataset differ in."""
    both = common_rows(old.manifest, new.manifest)
    was, now = (_mask(tables) for tables in (old, new))
    stays = was[:both] & now[:both]
    kept, shared = np.flatnonzero(stays), int(stays.sum())
    was_only, now_only = was.copy(), now.copy()
    was_only[:both] &= ~stays
    now_only[:both] &= ~stays
    same = old.manifest.files[old.manifest.catalog] == new.manifest.files[new.manifest.catalog]

    def ids(tables: Tables, rows: NDArray[np.int64]) -> tuple[str, ...]:
        return tables.ids(rows)

    def changed(of: str, unlike: NDArray[np.bool_], *, count: bool = False) -> tuple[Changed, ...]:
        rows = kept[unlike]
        told = (one.frame([of], rows)[of] for one in (old, new)) if len(rows) else ((), ())
        pairs = [[len(v) if count and v is not None else v for v in column] for column in map(_plain, told)]
        return tuple(map(Changed, ids(new, rows), *pairs))

    nothing = np.zeros(shared, bool)
    label = "label_names" if new.manifest.multi_label else "label_name"
    relabelled = nothing if same else _unlike(old, new, label, kept)
    boxes = nothing if same else _unlike(old, new, "boxes", kept) | _unlike(old, new, "box_label_names", kept)
    moved = nothing if same and not old.manifest.split_records else _unlike(old, new, "split", kept)
    return Diff(
        before=old.manifest.version,
        after=new.manifest.version,
        records=(int(was.sum()), int(now.sum())),
        dropped=ids(old, np.flatnonzero(was_only)),
        added=ids(new, np.flatnonzero(now_only)),
        relabelled=changed(label, relabelled),
        boxes=changed("boxes", boxes, count=True),
        moved=changed("split", moved),
        classes=_paired(_counted(old, label), _counted(new, label), [*old.manifest.classes, *new.manifest.classes]),
        splits=_paired(old.manifest.splits, new.manifest.splits, [*old.manifest.splits, *new.manifest.splits]),
    )


def _mask(tables: Tables) -> NDArray[np.bool_]:
    """Which rows are in a version."""
    mask = np.ones(len(tables), bool)
    if tables.live is not None:
        mask[:] = False
        mask[tables.live] = True
    return mask


def _unlike(old: Tables, new: Tables, name: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these rows have another value of a column."""
    one, other = (tables.frame([name], None if len(rows) == len(tables) else rows)[name] for tables in (old, new))
    if not isinstance(one.dtype, pl.List):
        return one.ne_missing(other).to_numpy()
    counts, others = (column.list.len().fill_null(-1).to_numpy().astype(np.int64) for column in (one, other))
    unlike: NDArray[np.bool_] = counts != others
    alike = np.flatnonzero(~unlike & (counts > 0))
    if len(alike):
        items, other_items = (column.gather(alike).explode() for column in (one, other))
        if isinstance(items.dtype, pl.Array):
            different = (items.to_numpy() != other_items.to_numpy()).any(axis=1)
        else:
            different = items.ne_missing(other_items).to_numpy()
        of = np.repeat(alike, counts[alike])
        unlike[of[different]] = True
    return unlike


def _plain(column: Any) -> list[Any]:
    return column.to_list() if isinstance(column, pl.Series) else list(column)


def _counted(tables: Tables, label: str) -> dict[str, int]:
    """Records per class."""
    column = tables.frame([label], tables.live)[label]
    column = column.explode() if isinstance(column.dtype, pl.List) else column
    return dict(column.drop_nulls().value_counts().iter_rows())


def _paired(one: Mapping[str, int], other: Mapping[str, int], names: list[str]) -> dict[str, tuple[int, int]]:
    return {name: (one.get(name, 0), other.get(name, 0)) for name in dict.fromkeys(names)}
