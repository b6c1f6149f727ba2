"""Which images of a dataset occur again: byte by byte, or as copies of another size, quality or colour.

What to do about them is left to packing (`guard`) and to people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import DamageError, StorageError, UsageError
from headrace.format.equal import Image
from headrace.imaging.alike import Groups, as_looks, join_alike
from headrace.imaging.look import SIDE, look, thumb
from headrace.imaging.placement import place
from headrace.progress import bar

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset
    from headrace.load.store import Store

Kind: TypeAlias = Literal["equal", "near"]

_DRAWN = (2 * SIDE, 2 * SIDE)  # pixels that a thumb is made of: of much larger images it is the same, and sooner there
_LOT = 32  # images of a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images that are duplicates of each other, two or more: `equal` in all their bytes, or `near`. `splits` and
    `labels`: those that occur among them. Of each of these the first image comes before all others."""

    kind: Kind
    images: tuple[Image, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What `duplicates` found among so many `records`: the groups across splits first, then those whose labels
    contradict each other, then the larger ones. `unread`: id -> reason of the images that could not be looked at."""

    records: int
    groups: tuple[Group, ...]
    unread: Mapping[str, str]

    @property
    def images(self) -> int:
        """How many images have a duplicate."""
        return sum(len(group.images) for group in self.groups)

    @property
    def across_splits(self) -> tuple[Group, ...]:
        """The groups that lie in two splits or more."""
        return tuple(group for group in self.groups if len(group.splits) > 1)

    @property
    def contradicting(self) -> tuple[Group, ...]:
        """The groups whose images have two labels or more (or other ones, where an image may have several)."""
        return tuple(group for group in self.groups if len(group.labels) > 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "images": self.images,
            "across_splits": len(self.across_splits),
            "contradicting": len(self.contradicting),
            "groups": [group.as_json() for group in self.groups],
            "unread": dict(self.unread),
        }


def duplicates(
    dataset: Dataset,
    *,
    near: bool = True,
    mirrored: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
) -> Duplicates:
    """The images of this dataset or view that occur again.

    Equal ones by the sha256 of their bytes. `near` ones by their looks (imaging.look), which the catalog has, and by
    their pixels (imaging.alike): copies of another size, quality or colour, and such as are cut by some percent; other
    photos of the same thing are none. They are a group together where each is like one other. `mirrored`: also copies
    that are mirrored; for it every image is decoded once, as for datasets whose catalog has no looks (adopted, arrays).
    Memory: 400 bytes a record, 128 MB, and the groups. A million records take about ten seconds, and what is decoded.

    Raises UsageError (numbers that are kept as they are and no pixels; no records), StorageError, DamageError (of the
    catalog; an image that can't be read is told in `unread`).
    """
    if dataset.keeps:
        raise UsageError(f"{dataset.title}: its numbers are kept as they are, and are no pixels to compare")
    if mirrored and not near:
        raise UsageError("mirrored is for near-duplicates: leave near=False out")
    threads = parallel.check_workers(workers)
    store, rows = dataset.store, np.unique(dataset.rows)
    found = store.table.frame(["sha256", "look"], rows)
    seen = _Seen(
        digests=np.array([digest or "" for digest in found["sha256"].to_list()], "S64"),
        looks=found["look"].to_list() if near else [None] * len(rows),
        mirrored=[None] * len(rows),
        unread={},
    )
    del found
    _look(store, rows, seen, near=near, mirrored=mirrored, threads=threads, progress=progress)
    good = np.array([i not in seen.unread for i in range(len(rows))], np.bool_)
    _, first, of = np.unique(seen.digests, return_index=True, return_inverse=True)
    equal = np.where(good, first[of], np.arange(len(rows)))  # of equal ones the first stands for all
    groups = Groups(len(rows))
    groups.join((i, j) for i, j in enumerate(equal.tolist()) if i != j)
    if near:
        _join_near(store, rows, seen, np.flatnonzero(good & (equal == np.arange(len(rows)))), groups, threads, progress)
    return Duplicates(
        records=len(rows),
        groups=_listed(store, rows, groups.of(), equal),
        unread=dict(zip(store.ids_of(rows[[*seen.unread]]), seen.unread.values(), strict=True)),
    )


@dataclass(slots=True)
class _Seen:
    """What is known of each image: its digest, b"" where nobody has hashed it; its look and that of its mirror image,
    None where nobody has looked; and why some can't be read, by number."""

    digests: NDArray[np.bytes_]
    looks: list[bytes | None]
    mirrored: list[bytes | None]
    unread: dict[int, str]


def _look(
    store: Store,
    rows: NDArray[np.int64],
    seen: _Seen,
    *,
    near: bool,
    mirrored: bool,
    threads: int,
    progress: bool | None,
) -> None:
    """Finds out what is wanted and not known yet."""
    lacking = seen.digests == b""
    if near:
        lacking |= np.array([found is None for found in seen.looks], np.bool_) | mirrored
    wanted = np.flatnonzero(lacking)
    if not len(wanted):
        return

    def look_at(some: NDArray[np.int64]) -> list[tuple[int, str, list[bytes], str | None]]:
        out: list[tuple[int, str, list[bytes], str | None]] = []
        thumbs = _thumbs(store, rows[some]) if near else [None] * len(some)
        for i, found in zip(some.tolist(), thumbs, strict=True):
            looks: list[bytes] = []
            try:
                digest = seen.digests[i].decode() or store.digests(rows[i : i + 1])[0]
                if isinstance(found, str):
                    out.append((i, "", looks, found))
                    continue
                if found is not None:
                    looks = [look(found), *([look(found[:, ::-1])] if mirrored else [])]
            except (DamageError, StorageError) as error:
                out.append((i, "", looks, str(error)))
                continue
            out.append((i, digest, looks, None))
        return out

    lots = (wanted[begin : begin + _LOT] for begin in range(0, len(wanted), _LOT))
    with bar(total=len(wanted), unit="img", desc="look", show=progress) as shown:
        for lot in parallel.ordered(look_at, lots, workers=threads, ahead=4 * threads):
            for i, digest, looks, reason in lot:
                if reason is not None:
                    seen.unread[i] = reason
                    continue
                seen.digests[i] = digest.encode()
                if near:
                    seen.looks[i] = seen.looks[i] or looks[0]
                if mirrored:
                    seen.mirrored[i] = looks[1]
            shown.update(len(lot))


def _thumbs(store: Store, rows: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
    """The thumb of each of these rows, or why there is none."""
    draw = store.drawing(rows)
    out: list[NDArray[np.uint8] | str] = []
    for i, row in enumerate(rows.tolist()):
        pixels = np.empty((*_DRAWN, int(store.channels[row])), np.uint8)
        try:
            draw(i, place(int(store.height[row]), int(store.width[row]), _DRAWN, "stretch"), pixels)
        except (DamageError, StorageError) as error:
            out.append(str(error))
        else:
            out.append(thumb(pixels))
    return out


def _join_near(
    store: Store,
    rows: NDArray[np.int64],
    seen: _Seen,
    among: NDArray[np.int64],
    groups: Groups,
    threads: int,
    progress: bool | None,
) -> None:
    """Joins the near ones `among` the images, by number [m]."""
    looks, _ = as_looks([seen.looks[i] for i in among.tolist()])
    other, known = as_looks([seen.mirrored[i] for i in among.tolist()])
    near = Groups(len(among))
    with bar(total=None, unit="img", desc="compare", show=progress) as shown:

        def draw(numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
            thumbs, good = np.zeros((len(numbers), SIDE, SIDE), np.uint8), np.zeros(len(numbers), np.bool_)
            lots = (rows[among[numbers[begin : begin + _LOT]]] for begin in range(0, len(numbers), _LOT))
            at = 0
            for lot in parallel.ordered(partial(_thumbs, store), lots, workers=threads, ahead=4 * threads):
                for found in lot:
                    if not isinstance(found, str):
                        thumbs[at], good[at] = found, True
                    at += 1
                shown.update(len(lot))
            return thumbs, good

        join_alike(near, looks, draw, mirrored=other if known.any() else None)
    of = near.of()
    joined = np.flatnonzero(of != np.arange(len(of)))
    groups.join(np.stack([among[joined], among[of[joined]]], axis=1).tolist())


def _listed(
    store: Store, rows: NDArray[np.int64], of: NDArray[np.int64], equal: NDArray[np.int64]
) -> tuple[Group, ...]:
    """The groups of two or more, the gravest first. `equal`: which image each is equal to."""
    again = np.flatnonzero(np.bincount(of, minlength=len(of))[of] > 1)
    again = again[np.argsort(of[again], kind="stable")]
    columns = store.table.frame(["id", "split", "label_name", "label_names"], rows[again])
    labels = [
        name if several is None else "; ".join(sorted(several)) or "none of the classes"
        for name, several in zip(columns["label_name"].to_list(), columns["label_names"].to_list(), strict=True)
    ]
    images = list(map(Image, columns["id"].to_list(), labels, columns["split"].to_list()))
    groups = []
    ends = np.flatnonzero(np.diff(of[again], append=-1)) + 1
    for begin, end in zip([0, *ends.tolist()], ends.tolist(), strict=False):
        some = _firsts(images[begin:end])
        same = len(np.unique(equal[again[begin:end]])) == 1
        groups.append(
            Group(
                kind="equal" if same else "near",
                images=tuple(some),
                splits=_distinct([image.split for image in some]),
                labels=_distinct([image.label for image in some if image.label is not None]),
            )
        )
    groups.sort(key=lambda group: (len(group.splits) < 2, len(group.labels) < 2, -len(group.images)))
    return tuple(groups)


def _firsts(images: list[Image]) -> list[Image]:
    """The first image of each split and label, and then the others."""
    first = {(image.split, image.label): image for image in reversed(images)}
    return sorted(images, key=lambda image: first[image.split, image.label] is not image)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
