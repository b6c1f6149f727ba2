"""A dataset of its own of what a version holds: shards that say what the catalog says, for readers that know no other.

Image bytes are taken over as they are. What is adopted goes through the packer, so that every reader can read it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import DamageError
from headrace.format import catalog, frames, manifest
from headrace.format.index import FORMATS
from headrace.format.versions import addressed
from headrace.imaging.prepare import ImageOptions
from headrace.load.store import Shards
from headrace.packing.budget import Budget
from headrace.packing.finish import PackReport, Results, finish
from headrace.packing.plan import Numbered, Plan, ShardPlan, make_plan
from headrace.packing.runners import threads
from headrace.packing.shard import Made, ShardResult, framed, pack_shard
from headrace.packing.task import put
from headrace.place.address import located
from headrace.place.open import at, staging
from headrace.place.publish import Sink
from headrace.progress import bar
from headrace.record import Drawn, Frames, Record, Reject
from headrace.sources.info import SourceInfo
from headrace.sources.walking import natural

_SCRATCH = ".plan"
_AT_ONCE = catalog.PART  # records whose rows are in memory
_RECIPE = ("splits", "shards", "shard_size", "seed", "group", "guard")
_EXTRA = ("look", "warning")  # columns that no Record has


def compact(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PackReport:
    """Packs what a version holds ("cats@3", or the one that holds now) into the new folder `out`.

    Its files are those that packing the edited source would make, with the options that the dataset was packed with and
    each record in the split that it is in now: records stand in the natural order of their origins, which is that of
    files and lists; what sources counted, and Rejects, are carried over. Image bytes are taken as they are. An adopted
    dataset becomes a packed one, by the packer. overwrite, workers, progress: as of `pack`.

    Raises UsageError, NotThereError, DamageError, DataError (too many images of adopted shards can't be used),
    StorageError; then nothing was published.
    """
    started = time.perf_counter()
    frames.check_process("compact")
    cores = parallel.check_workers(workers)
    path, version = addressed(path, storage_options)
    store = Shards(at(path, storage_options), version=version)
    promised, folder = store.manifest, located(out)
    recipe = {name: promised.pack_options.get(name) for name in _RECIPE}
    splits = recipe["splits"]
    undivided = isinstance(splits, dict) and len(splits) == 1 and [*splits] == [*promised.splits]
    publication = staging(folder, overwrite=overwrite, replaceable=manifest.FILE)
    with publication as made_in:
        scratch = made_in / _SCRATCH
        source = _Source(store, divided=not undivided)
        plan = make_plan(
            source,
            scratch,
            out=folder,
            options=ImageOptions.from_json(promised.pack_options),
            splits=splits if undivided else None,
            shards=recipe["shards"],
            shard_bytes=recipe["shard_size"],
            seed=recipe["seed"] or 0,
        )
        with contextlib.closing(plan), bar(total=plan.seen, unit="img", desc="compact", show=progress) as ticks:
            adopted = promised.adopted is not None
            results = Results(plan, scratch, Budget(0.10 if adopted else 1.0), ticks.update)
            results.count(plan.rejects(), plan.refused)
            sink = publication.sink
            made = threads.run(plan, sink, cores, results.count) if adopted else _run(plan, sink, source)
            for result in made:
                results.add(result, counted=adopted)
            recipe |= {"splits": plan.splits, "seed": recipe["seed"] or 0}
            report = finish(made_in, folder, plan, results, recipe, below=publication.folder_name)
        shutil.rmtree(scratch)
    return report(time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Image:
    """The stored image of a row, as a Record's pixels: its bytes are read when they are asked for."""

    source: _Source
    number: int

    @property
    def stack(self) -> Frames:
        return self.source

    @property
    def path(self) -> str | None:
        return None

    @property
    def size(self) -> tuple[int, int]:
        store = self.source.store
        return int(store.height[self.number]), int(store.width[self.number])

    def encode(self) -> bytes:
        return self.source.store.fetch(self.number).tobytes()


class _Source:
    """What a version holds, in the natural order of its origins: the Rejects first, then Records whose images are
    `_Image`s. Read once; then it knows `extra`, of each Record by its place what no Record has."""

    def __init__(self, store: Shards, *, divided: bool) -> None:
        self.store, self.divided = store, divided
        self.rejects = 0
        self.extra = pl.DataFrame()

    def frame(self, i: int) -> Drawn:
        return _Image(self, i)

    def taken(self, numbers: NDArray[np.int64]) -> tuple[Frames, NDArray[np.int64]]:
        return self, numbers  # it reads files, which others see too

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        store, promised = self.store, self.store.manifest
        rejects = list(_rejects(store))
        self.rejects = len(rejects)
        yield from rejects
        rows = _in_order(store)
        extra = []
        columns = [*catalog.WHAT]
        kept = [name for name in _EXTRA if name in catalog.WHAT]
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            frame = _gathered(store, columns, some)
            extra.append(frame.select(kept))
            for row, what in zip(some.tolist(), frame.iter_rows(named=True), strict=True):
                yield self._record(row, what)
        self.extra = pl.concat(extra)
        return SourceInfo(
            class_names=promised.classes or None,
            box_class_names=promised.box_classes or None,
            keypoint_names=promised.keypoint_names or None,
            flip_pairs=promised.flip_pairs or None,
            split_names=tuple(promised.splits) if self.divided else None,
            boxes_dropped=promised.boxes_dropped,
            keypoints_dropped=promised.keypoints_dropped,
            root=str(store.path),
            numbered=promised.numbered,
        )

    def _record(self, row: int, what: Mapping[str, Any]) -> Record:
        size = int(self.store.height[row]), int(self.store.width[row])
        known = catalog.known_of(what, size, self.store.manifest.keypoints)

        def texts(name: str) -> tuple[str, ...] | None:
            return None if known[name] is None else tuple(known[name])

        return Record(
            id=known["id"],
            pixels=_Image(self, row),
            label_name=known["label_name"],
            labels=texts("label_names"),
            value=known["value"],
            captions=texts("captions"),
            boxes=known["boxes"],
            box_labels=texts("box_label_names"),
            masks=known["masks"],
            keypoints=known["keypoints"],
            attributes=known["attributes"],
            split=known["split"] if self.divided else None,
            group=known["group_id"],
            origin=known["origin"],
        )


def _rejects(store: Shards) -> Iterator[Reject]:
    """The Rejects of a dataset. Raises DamageError, StorageError."""
    for line in store.tables.rejects().splitlines():
        try:
            yield Reject(**json.loads(line))
        except (ValueError, TypeError) as error:
            file = store.tables.place.address(store.manifest.rejects)
            raise DamageError(f"{file}: can't be read: {error}; run 'headrace verify'") from error


def _in_order(store: Shards) -> NDArray[np.int64]:
    """The rows of a version as its source gave them, as far as that can be told: by their origins, path by path, with
    numbers by their size, as folders are walked and lists read; and by ids where origins are the same."""
    keys: list[tuple[Any, Any]] = []
    for part in store.table.parts(["origin", "id"]):
        keys += [(_walked(origin), _walked(id_)) for origin, id_ in part.iter_rows()]
    live = range(len(keys)) if store.live is None else store.live.tolist()
    return np.array(sorted(live, key=keys.__getitem__), np.int64)


def _walked(path: str) -> tuple[Any, ...]:
    return tuple(map(natural, path.split("/")))


def _gathered(store: Shards, columns: list[str], rows: NDArray[np.int64]) -> pl.DataFrame:
    """Columns of some rows, in their order, with no more than a part of the catalog in memory besides."""
    order, first, found = np.argsort(rows, kind="stable"), 0, []
    ascending = rows[order]
    for part in store.table.parts(columns):
        low, high = np.searchsorted(ascending, (first, first + len(part)))
        found.append(part[ascending[low:high] - first])
        first += len(part)
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return pl.concat(found)[back]


def _run(plan: Plan, sink: Sink, source: _Source) -> Iterator[ShardResult]:
    """All shards of a plan, of images as they are stored. Raises DamageError, StorageError."""
    scratch = sink.scratch()
    clipped = source.store.manifest.boxes_clipped
    try:
        for shard in plan.shards:
            made = map(functools.partial(_made, plan, source, shard), plan.records(shard.start, shard.stop))
            result = pack_shard(shard, scratch, made)
            put(sink, scratch, result)
            # What the sources counted is not counted again: it is told of the first shard.
            yield replace(result, boxes_clipped=clipped)
            clipped = 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _made(plan: Plan, source: _Source, shard: ShardPlan, numbered: Numbered) -> Made:
    """A record as it will be written."""
    record, store = numbered.item, source.store
    assert isinstance(record, Record) and isinstance(record.pixels, _Image)
    of = record.pixels.number
    encoded = store.fetch(of).tobytes()
    extra = source.extra.row(numbered.number - source.rejects, named=True)
    index = store.tables.index
    row = catalog.Row(
        id=record.id,
        split=shard.split,
        shard=shard.name,
        format=FORMATS[int(index["format"][of])],
        height=int(store.height[of]),
        width=int(store.width[of]),
        channels=int(store.channels[of]),
        origin=record.origin,
        sha256=hashlib.sha256(encoded).hexdigest(),
        group_id=record.group,
        label=record.label,
        label_name=record.label_name,
        labels=None if record.labels is None else plan.labels_of(record.labels),
        label_names=None if record.labels is None else list(record.labels),
        value=record.value,
        captions=None if record.captions is None else list(record.captions),
        boxes=record.boxes,
        box_labels=None if record.box_labels is None else [plan.box_classes.index(name) for name in record.box_labels],
        box_label_names=None if record.box_labels is None else list(record.box_labels),
        masks=record.masks,
        keypoints=record.keypoints,
        attributes=record.attributes,
        **extra,
    )
    return framed(plan, row, encoded)
