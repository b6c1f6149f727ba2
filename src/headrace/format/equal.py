"""Equal images of a catalog: whose bytes occur again, under two labels, or in two splits. And those in two splits that
look the same, by their looks alone: what pixels say of them, and all else that is near, is left to checking.duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.imaging.alike import Groups, as_looks, near
from headrace.imaging.look import SURE

SHOWN = 3  # sets, and images of a set

_DIGITS = 15  # of a sha256, that stand for it until it occurs again: they fit int64
MOST_NEAR = 250_000  # images whose looks are compared without being asked: in 2 s
_SHOWS = 16  # bits of a look: of fewer it shows next to nothing, as a blank page, and is like all others of these
_NONE = -1  # for an image without one, whose bytes are someone else's

# Columns of all rows, some at a time and in their order.
Parts = Callable[[Sequence[str]], Iterator[pl.DataFrame]]


@dataclass(frozen=True, slots=True)
class Image:
    """One of several equal images. `label`: its class, or all of them where an image may have several."""

    id: str
    label: str | None
    split: str


@dataclass(frozen=True, slots=True)
class Sets:
    """How many sets of equal images, and of the first of them the first images."""

    sets: int = 0
    first: tuple[tuple[Image, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualImages:
    """`images` have the bytes of another one, in so many `sets` of equal ones. `labels`: the sets whose images have two
    classes or more, or other ones where an image may have several, `splits`: those that lie in two splits or more.
    `near`: sets of images in two splits or more that look the same, though their bytes differ, so far as their looks
    tell (imaging.look.SURE); None where they are too many to be compared without being asked."""

    images: int = 0
    sets: int = 0
    labels: Sets = Sets()
    splits: Sets = Sets()
    near: Sets | None = Sets()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def equal_images(parts: Parts, rows: NDArray[np.int64] | None = None) -> EqualImages:
    """The equal ones among the images of `parts`, or of these rows of them: in 16 bytes an image, and what those need
    whose bytes occur again; where looks are compared, in 120."""
    prints = _prints(parts, rows)
    alike = _near(parts, prints)
    again = _again(prints)
    if not len(again):
        return EqualImages(near=alike)
    of = pl.col("label_name").drop_nulls().n_unique()
    images = _images(parts, again)
    sets = (
        images.group_by("sha256", maintain_order=True)
        .agg("id", "label_name", "split", n=pl.len(), labels=of, splits=pl.col("split").n_unique())
        .filter(pl.col("n") > 1)
    )
    return EqualImages(
        images=int(sets["n"].sum()),
        sets=len(sets),
        labels=_sets(sets.filter(pl.col("labels") > 1), "label_name"),
        splits=_sets(sets.filter(pl.col("splits") > 1), "split"),
        near=alike,
    )


def _images(parts: Parts, rows: NDArray[np.int64]) -> pl.DataFrame:
    """What is told of these rows, ascending."""
    first, found = 0, []
    for part in parts(("id", "label_name", "label_names", "split", "sha256")):
        stop = first + len(part)
        low, high = np.searchsorted(rows, (first, stop))
        found.append(part[rows[low:high] - first])
        first = stop
    return pl.concat(found).with_columns(pl.coalesce("label_name", _several))


# All classes of an image as one text, null where nothing is said of them.
_several = pl.col("label_names").list.sort().list.join("; ").replace("", "none of the classes")


def _prints(parts: Parts, rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """What stands for the bytes of each row's image, [n]; _NONE for the others than `rows`."""
    prefix = pl.col("sha256").str.head(_DIGITS).str.to_integer(base=16)  # Int64
    of = [part.select(prefix.fill_null(_NONE))["sha256"].to_numpy() for part in parts(("sha256",))]
    prints = np.concatenate(of) if of else np.zeros(0, np.int64)
    if rows is not None:
        others = np.ones(len(prints), np.bool_)
        others[rows] = False
        prints[others] = _NONE
    return prints


def _again(prints: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows int64 [m], ascending, whose images may be another's too."""
    found = np.sort(prints)
    twice = np.unique(found[1:][found[1:] == found[:-1]])
    return np.flatnonzero(np.isin(prints, twice[twice != _NONE]))


def _near(parts: Parts, prints: NDArray[np.int64]) -> Sets | None:
    """The near ones of two splits."""
    names = [part["split"].to_list() for part in parts(("split",))]
    splits = np.unique(np.array([split for of in names for split in of], np.str_), return_inverse=True)[1]
    among = np.flatnonzero(prints != _NONE)
    if len(np.unique(splits[among])) < 2:
        return Sets()
    if len(among) > MOST_NEAR:
        return None
    looks, known = as_looks([look for part in parts(("look",)) for look in part["look"].to_list()])
    among = among[known[among]]
    among = among[np.unpackbits(looks[among].view(np.uint8), axis=1).sum(axis=1) >= _SHOWS]
    groups = Groups(len(prints))
    for pairs in near(looks[among], SURE):
        one, two = among[pairs].T
        differ = (splits[one] != splits[two]) & (prints[one] != prints[two])
        groups.join(np.stack([one[differ], two[differ]], axis=1).tolist())
    of = groups.of()
    again = np.flatnonzero(np.bincount(of, minlength=len(of))[of] > 1)
    if not len(again):
        return Sets()
    sets = (
        _images(parts, again)
        .with_columns(of=of[again])
        .group_by("of", maintain_order=True)
        .agg("id", "label_name", "split")
    )
    return _sets(sets, "split")


def _sets(sets: pl.DataFrame, by: str) -> Sets:
    """The first images of each set are such as differ in the column `by`."""
    first = []
    for row in sets.head(SHOWN).iter_rows(named=True):
        images = [Image(*of) for of in zip(row["id"], row["label_name"], row["split"], strict=True)]
        kinds: dict[Any, list[Image]] = {}
        for image, kind in zip(images, row[by], strict=True):
            kinds.setdefault(kind, []).append(image)
        kinds.pop(None, None)
        chosen = [same[0] for same in kinds.values()] + [image for same in kinds.values() for image in same[1:]]
        first.append(tuple(chosen[:SHOWN]))
    return Sets(len(sets), tuple(first))
