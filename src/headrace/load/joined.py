"""Joined: several views as one store, with one numbering of rows and of classes. In which shares they are mixed is
sampling's; each part's files, copies and checks stay its own.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import order
from headrace.errors import UsageError
from headrace.format import catalog
from headrace.format.frames import anywhere
from headrace.format.manifest import Manifest, ShardEntry
from headrace.format.tables import Table
from headrace.imaging.placement import Placement
from headrace.imaging.prepare import ImageOptions
from headrace.load.copies import Copies, Payloads
from headrace.load.store import Drawing, Far, Shards, Store
from headrace.load.view import View
from headrace.version import __version__

_T = TypeVar("_T")
_SHOWN = 4  # parts that a title names
# As an array that is kept may have any number of channels.
_WIDEST = catalog.SCHEMA | {"channels": pl.Int64, catalog.IMAGE_FILE: pl.String}
_NUMBERED = {"label": "classes", "labels": "classes", "box_labels": "box_classes"}


@dataclass(frozen=True, slots=True)
class _Side:
    """How the catalog of a part becomes rows of the whole: those of `rows` int64 [n], with `prefix` before their ids,
    and their classes by the numbers that `classes` and `box_classes` have for them. `several`: a class becomes one of
    several, as other parts have them."""

    table: Table
    rows: NDArray[np.int64]
    prefix: str
    classes: tuple[int, ...]
    box_classes: tuple[int, ...]
    several: bool

    def frame(self, columns: Sequence[str], some: NDArray[np.int64]) -> pl.DataFrame:
        """These columns of the rows numbered `some` [m] of the part."""
        needed = dict.fromkeys(name for name in columns if name in self.table.columns)
        if self.several:
            needed |= {
                one: None for one, all_ in (("label", "labels"), ("label_name", "label_names")) if all_ in columns
            }
        found = self.table.frame([*needed] or ["id"], self.rows[some])
        found = found.with_columns(self._changes(found.columns))
        absent = [pl.lit(None, _WIDEST[name]).alias(name) for name in columns if name not in found.columns]
        return found.with_columns(absent).select(pl.col(name).cast(_WIDEST[name]) for name in columns)

    def _changes(self, columns: Sequence[str]) -> list[pl.Expr]:
        changes = []
        if self.prefix and "id" in columns:
            changes.append((pl.lit(self.prefix) + pl.col("id")).alias("id"))
        exprs = {name: pl.col(name) for name in columns}
        for name, of in _NUMBERED.items():
            numbers: tuple[int, ...] = getattr(self, of)
            if name in exprs and numbers != tuple(range(len(numbers))):
                item = pl.element() if name != "label" else pl.col(name)
                number = item.replace_strict([*range(len(numbers))], [*numbers], return_dtype=pl.Int32)
                exprs[name] = number.alias(name) if name == "label" else pl.col(name).list.eval(number)
        if self.several:
            for one, all_ in (("label", "labels"), ("label_name", "label_names")):
                if one in exprs:
                    listed = pl.when(pl.col(one).is_not_null()).then(pl.concat_list(exprs[one]))
                    exprs[all_], exprs[one] = listed.alias(all_), pl.lit(None).alias(one)
        return [*changes, *(expr for name, expr in exprs.items() if name in _CHANGED)]

    def row(self, row: int) -> dict[str, Any]:
        """All columns of one row of the part."""
        values = dict(self.table.row(int(self.rows[row])))
        values["id"] = self.prefix + values["id"]
        for name, of in _NUMBERED.items():
            numbers, found = getattr(self, of), values[name]
            if found is not None:
                values[name] = [numbers[k] for k in found] if isinstance(found, list) else numbers[found]
        if self.several:
            for one, all_ in (("label", "labels"), ("label_name", "label_names")):
                values[all_] = None if values[one] is None else [values[one]]
                values[one] = None
        return values


_CHANGED = (*_NUMBERED, "label_name", "label_names")


class _Joint:
    """The catalogs of several parts as one Table."""

    def __init__(self, sides: Sequence[_Side]) -> None:
        self._sides = tuple(sides)
        self._begin = np.cumsum([0, *(len(side.rows) for side in sides)])
        there = dict.fromkeys(name for side in sides for name in side.table.columns)
        self.columns = tuple(name for name in _WIDEST if name in there)

    def frame(self, columns: Sequence[str] | None = None, rows: NDArray[np.int64] | None = None) -> pl.DataFrame:
        asked = self.columns if columns is None else columns
        if unknown := [name for name in asked if name not in self.columns]:
            raise pl.exceptions.ColumnNotFoundError(unknown[0])
        return anywhere(_framed, self, asked, np.arange(self._begin[-1]) if rows is None else rows)

    def framed(self, columns: Sequence[str], rows: NDArray[np.int64]) -> pl.DataFrame:
        """`frame` itself, which a forked child can't call."""
        of = np.searchsorted(self._begin, rows, side="right") - 1
        places = [np.flatnonzero(of == part) for part in range(len(self._sides))]
        frames = [
            side.frame(columns, rows[some] - begin)
            for side, some, begin in zip(self._sides, places, self._begin[:-1], strict=True)
            if len(some)
        ]
        if not frames:
            return pl.DataFrame(schema={name: _WIDEST[name] for name in columns})
        return pl.concat(frames)[np.argsort(np.concatenate(places), kind="stable")]

    def parts(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for first in range(0, int(self._begin[-1]), catalog.PART):
            yield self.frame(columns, np.arange(first, min(first + catalog.PART, int(self._begin[-1]))))

    def where(self, condition: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        asked = list(dict.fromkeys(catalog.columns_of(condition)))
        if unknown := [name for name in asked if name not in self.columns]:
            raise UsageError(
                f"where({condition!r}): no column {unknown[0]!r}; the columns are {', '.join(self.columns)}"
            )
        return anywhere(catalog.where, self.frame(asked or ["label"], rows), condition)

    def row(self, row: int) -> dict[str, Any]:
        part = int(np.searchsorted(self._begin, row, side="right")) - 1
        found = self._sides[part].row(row - int(self._begin[part]))
        return {name: found.get(name) for name in self.columns}


def _framed(table: _Joint, columns: Sequence[str], rows: NDArray[np.int64]) -> pl.DataFrame:
    return table.framed(columns, rows)


class _Kept:
    """What parts keep of y under one name, as one array [n, ...] of which rows are read."""

    path: str | None = None

    def __init__(self, store: Joined, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._store, self._name, self.dtype, self.shape = store, name, dtype, shape

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return np.stack([self._store.read_kept(row, self._name) for row in range(start, stop)])


class Joined(Store):
    """The records of several views, one after the other: row 0 is the first record of the first.

    Classes are united by name: those of the first part keep their numbers, and what later parts have besides follows.
    Ids stay what they are where no two datasets share one; else each gets the name of its dataset before it. Of each
    part only its view is there. `shares`: of a mix, what part of an epoch each has.

    Raises UsageError: parts that can't be one dataset, as keypoints or arrays differ.
    """

    def __init__(self, parts: Sequence[View], shares: tuple[float, ...] = ()) -> None:
        self.parts, self.shares = tuple(parts), shares
        self._begin = np.cumsum([0, *map(len, parts)])
        stores = [view.store for view in parts]
        _check(parts)
        self.keeps, self.dtype, self.image_shape = stores[0].keeps, stores[0].dtype, stores[0].image_shape
        self.kept = {
            name: _Kept(self, name, part.dtype, (int(self._begin[-1]), *part.shape[1:]))
            for name, part in stores[0].kept.items()
        }
        classes = _united([view.class_names for view in parts])
        box_classes = _united([store.manifest.box_classes for store in stores])
        multi_label = any(store.manifest.multi_label for store in stores)
        names = _names(stores)
        self.part_names = tuple(" / ".join([name, *view.what]) for name, view in zip(names, parts, strict=True))
        self._prefixes = [f"{name}/" for name in names] if _conflict(parts) else [""] * len(parts)
        splits = list(dict.fromkeys(split for view in parts for split in _splits(view)))
        sides = [
            _Side(
                table=view.store.table,
                rows=view.rows,
                prefix=prefix,
                classes=tuple(classes.index(name) for name in view.class_names),
                box_classes=tuple(box_classes.index(name) for name in view.store.manifest.box_classes),
                several=multi_label and not view.store.manifest.multi_label,
            )
            for view, prefix in zip(parts, self._prefixes, strict=True)
        ]
        unlike = [*dict.fromkeys(names)]
        shown = " + ".join(unlike[:_SHOWN]) + (f" + {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else "")
        manifest = _manifest(parts, names, classes, box_classes, multi_label)
        super().__init__(Path(shown), manifest, _Joint(sides))
        self.height, self.width, self.channels = (
            np.concatenate([getattr(view.store, side)[view.rows] for view in parts])
            for side in ("height", "width", "channels")
        )
        self._split_numbers = [
            np.array([splits.index(name) if name in splits else -1 for name in store.manifest.splits], np.int64)
            for store in stores
        ]

    def __reduce__(self) -> tuple[type[Joined], tuple[tuple[View, ...], tuple[float, ...]]]:
        return Joined, (self.parts, self.shares)

    @cached_property
    def fingerprint(self) -> str:
        return self._digest([view.fingerprint for view in self.parts])

    @cached_property
    def records_fingerprint(self) -> str:
        return self._digest([view.records_fingerprint for view in self.parts])

    def _digest(self, parts: Sequence[str]) -> str:
        return hashlib.sha256(repr((tuple(parts), self.shares)).encode()).hexdigest()

    @cached_property
    def keys(self) -> NDArray[np.uint64]:
        if not any(self._prefixes):
            return np.concatenate([view.store.keys[view.rows] for view in self.parts])
        ids = (
            prefix + id_
            for view, prefix in zip(self.parts, self._prefixes, strict=True)
            for first in range(0, len(view), order.CHUNK)
            for id_ in view.store.ids_of(view.rows[first : first + order.CHUNK])
        )
        return order.keys_of(ids)

    @cached_property
    def far(self) -> tuple[Far, ...]:
        found: dict[int, list[tuple[int, Far]]] = {}
        for part, view in enumerate(self.parts):
            for far in view.store.far:
                found.setdefault(id(far.copies), []).append((part, far))
        return tuple(self._far(some[0][1].copies, some) for some in found.values())

    def _far(self, copies: Copies, parts: Sequence[tuple[int, Far]]) -> Far:
        def rows_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            of = self.parts_of(rows)
            found = [far.rows_of(self._local(part, rows[of == part])) for part, far in parts]
            together: NDArray[np.int64] = np.concatenate(found)
            return together

        return Far(copies, rows_of)

    def parts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        of: NDArray[np.int64] = np.searchsorted(self._begin, rows, side="right") - 1
        return of

    def _local(self, part: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of a part's own store."""
        local: NDArray[np.int64] = self.parts[part].rows[rows - self._begin[part]]
        return local

    def _each(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """For each part that has some of these rows [b]: its number, which of them, and its own rows of them."""
        of = self.parts_of(rows)
        for part in np.unique(of).tolist():
            places = np.flatnonzero(of == part)
            yield part, places, self._local(part, rows[places])

    def _gathered(self, rows: NDArray[np.int64], ask: Callable[[int, NDArray[np.int64]], Sequence[_T]]) -> list[_T]:
        """What each part gives for its rows, in the order of these rows."""
        out: list[Any] = [None] * len(rows)
        for part, places, local in self._each(rows):
            for place, value in zip(places.tolist(), ask(part, local), strict=True):
                out[place] = value
        return out

    def _one(self, row: int) -> tuple[Store, int]:
        """The store and the row there of one row."""
        ((part, _, local),) = self._each(np.array([row]))
        return self.parts[part].store, int(local[0])

    def check_whole(self) -> None:
        for view in self.parts:
            view.store.check_whole()

    def ids_of(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        def ids(part: int, local: NDArray[np.int64]) -> list[str]:
            return [self._prefixes[part] + id_ for id_ in self.parts[part].store.ids_of(local)]

        return tuple(self._gathered(rows, ids))

    def splits_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        out = np.empty(len(rows), np.int64)
        for part, places, local in self._each(rows):
            out[places] = self._split_numbers[part][self.parts[part].store.splits_of(local)]
        return out

    def fetch(self, row: int) -> NDArray[np.uint8]:
        store, local = self._one(row)
        return store.fetch(local)

    def drawing(self, rows: NDArray[np.int64], held: Payloads | None = None) -> Drawing:
        draws: list[tuple[Drawing, int]] = [(_never, 0)] * len(rows)
        for part, places, local in self._each(rows):
            of_part = self.parts[part].store.drawing(local, held)
            for i, place in enumerate(places.tolist()):
                draws[place] = of_part, i

        def draw(i: int, placement: Placement, out: NDArray[Any]) -> None:
            of_part, at = draws[i]
            of_part(at, placement, out)

        return draw

    def address(self, row: int) -> str:
        store, local = self._one(row)
        return store.address(local)

    def read_kept(self, row: int, name: str) -> NDArray[Any]:
        store, local = self._one(row)
        return store.read_kept(local, name)

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        return self._gathered(rows, lambda part, local: self.parts[part].store.digests(local))

    def is_edited(self, row: int) -> bool:
        store, local = self._one(row)
        return store.is_edited(local)

    def payload(self, row: int) -> bytes:
        store, local = self._one(row)
        return store.payload(local)

    def is_current(self) -> bool:
        return all(view.store.is_current() for view in self.parts)

    def reopened(self, version: int | None = None) -> Store:
        if version is not None:
            raise UsageError(f"{self.path}: has no versions; open that of each part, and join these")
        return self


def _never(i: int, placement: Placement, out: NDArray[Any], /) -> None:
    raise AssertionError(i)


def _united(names: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _splits(view: View) -> list[str]:
    """The splits of which a view has records."""
    names = list(view.store.manifest.splits)
    return [names[number] for number in np.unique(view.store.splits_of(view.rows)).tolist()]


def _datasets(stores: Sequence[Store]) -> list[int]:
    """Which parts are of one dataset: a number for each part. An array is the same as itself alone."""
    known: dict[object, int] = {}
    for store in stores:
        known.setdefault(_which(store), len(known))
    return [known[_which(store)] for store in stores]


def _which(store: Store) -> object:
    return (str(store.path), store.fingerprint) if isinstance(store, Shards) else id(store)


def _names(stores: Sequence[Store]) -> list[str]:
    """What the datasets are called, no two of them the same."""
    of, names = _datasets(stores), dict[int, str]()
    for number, store in zip(of, stores, strict=True):
        if number not in names:
            name, given = store.path.absolute().name, {*names.values()}
            others = (f"{name}-{k}" for k in itertools.count(2))  # which one may be called, too
            names[number] = next(some for some in itertools.chain([name], others) if some not in given)
    return [names[number] for number in of]


def _conflict(parts: Sequence[View]) -> bool:
    """Whether an id is in two datasets."""
    of = _datasets([view.store for view in parts])
    if len({*of}) < 2:
        return False
    numbered = {number for number, view in zip(of, parts, strict=True) if view.store.manifest.numbered and len(view)}
    if len(numbered) > 1:
        return True
    keys = [
        np.unique(np.concatenate([v.store.keys[v.rows] for n, v in zip(of, parts, strict=True) if n == number]))
        for number in sorted({*of})
    ]
    return bool(order.repeated(np.concatenate(keys)).any())


def _check(parts: Sequence[View]) -> None:
    """Raises UsageError."""
    first, rest = parts[0], parts[1:]

    def refuse(view: View, what: str, here: object, there: object) -> UsageError:
        return UsageError(
            f"{first.title} and {view.title} can't be one dataset: {what}, {here} and {there}; pack them alike, or "
            "load them apart"
        )

    for view in rest:
        one, two = first.store, view.store
        if one.keeps != two.keeps:
            kinds = ["arrays that are kept" if store.keeps else "images" for store in (one, two)]
            raise refuse(view, "they hold different things", *kinds)
        if one.keeps and (one.dtype, one.image_shape) != (two.dtype, two.image_shape):
            here, there = (f"{store.dtype} {list(store.image_shape)}" for store in (one, two))
            raise refuse(view, "their arrays differ", here, there)
        here, there = (
            ", ".join(f"{name or 'y'} {part.dtype} {list(part.shape[1:])}" for name, part in sorted(store.kept.items()))
            for store in (one, two)
        )
        if here != there:
            raise refuse(view, "they keep different things of y", here or "nothing", there or "nothing")
    pointed = [view for view in parts if view.store.manifest.keypoints]
    for view in pointed[1:]:
        first = pointed[0]
        here, there = (_points(of.store.manifest) for of in (first, view))
        if here != there:
            raise refuse(view, "their keypoints differ", here, there)


def _points(promised: Manifest) -> str:
    names = ", ".join(promised.keypoint_names) or "unnamed"
    pairs = ", ".join(map(str, promised.flip_pairs))
    return f"{promised.keypoints} ({names}; " + (f"pairs {pairs})" if pairs else "without pairs)")


def _manifest(
    parts: Sequence[View],
    names: Sequence[str],
    classes: tuple[str, ...],
    box_classes: tuple[str, ...],
    multi_label: bool,
) -> Manifest:
    """As if packed: a shard without a file for each split of each part."""
    promised = [view.store.manifest for view in parts]
    shards = []
    for view, name in zip(parts, names, strict=True):
        size = sum(entry.bytes for entry in view.store.manifest.shards) / max(1, len(view.store))
        of = view.store.splits_of(view.rows)
        for number, split in enumerate(view.store.manifest.splits):
            if count := int((of == number).sum()):
                shards.append(
                    ShardEntry(name=f"{name}/{split}", split=split, records=count, bytes=round(count * size), sha256="")
                )
    pointed = next((some for some in promised if some.keypoints), promised[0])
    boxes = [_boxes(view) for view in parts if view.has_boxes]
    return Manifest(
        headrace_version=__version__,
        seen=sum(map(len, parts)),
        stored=sum(map(len, parts)),
        rejected=0,
        classes=classes,
        box_classes=box_classes,
        numbered=all(some.numbered for some in promised),
        multi_label=multi_label,
        values=any(some.values for some in promised),
        channels=max(some.channels for some in promised),
        shards=tuple(shards),
        pack_options=_options([some.pack_options for some in promised]),
        schema={name: str(kind) for name, kind in catalog.SCHEMA.items()},
        boxes=sum(boxes) if boxes else None,
        keypoints=pointed.keypoints,
        keypoint_names=pointed.keypoint_names,
        flip_pairs=pointed.flip_pairs,
    )


def _boxes(view: View) -> int:
    """How many boxes a view has; of a whole dataset its manifest says it."""
    said = view.store.manifest.boxes
    return int(view.store.box_counts(view.rows).sum()) if said is None or view.some_rows is not None else said


def _options(given: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What all images went through; where parts differ in that, nothing, but for what they share."""
    options = [(ImageOptions.from_json(some), some.get("dtype")) for some in given]
    if all(some == options[0] for some in options):
        return given[0]
    alike = {}
    for name in ("value_range", "channels"):
        values = [getattr(some, name) for some, _ in options]
        if all(value == values[0] for value in values):
            alike[name] = values[0]
    return ImageOptions(**alike).as_json() | {"differs": True}


def joined(views: Sequence[View], shares: Sequence[float] = ()) -> View:
    """One view of the records of several, one after the other, or of a mix of them with these shares, which sum to 1.

    Views of one dataset become a view of it. Raises UsageError.
    """
    if not shares and all(view.store is views[0].store and not view.store.shares for view in views):
        rows = np.concatenate([view.rows for view in views])
        what = (" + ".join(" / ".join(view.what) or "all" for view in views),)
        return View(views[0].store, rows, what, _part(views))
    parts: list[View] = []
    weights: list[float] = []
    for view, share in zip(views, shares or [0.0] * len(views), strict=True):
        inner = view.store
        nested = inner if isinstance(inner, Joined) and not view.what else None
        if nested is not None and not shares and not inner.shares:
            parts += nested.parts
        elif nested is not None and shares and inner.shares:
            parts += nested.parts
            weights += [share * of for of in inner.shares]
        elif inner.shares:
            raise UsageError(
                f"{view.title}: is a mix, or a part of one, whose shares would be lost; join or mix what it is made of"
            )
        else:
            parts.append(view)
            weights.append(share)
    return View(Joined(parts, tuple(weights) if shares else ()), part=_part(views))


def _part(views: Sequence[View]) -> str | None:
    """The part that all of them were last chosen as."""
    parts = {view.part for view in views}
    return parts.pop() if len(parts) == 1 else None
