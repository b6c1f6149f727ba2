"""From the results of a plan's shards to a dataset: what they say is kept, counted, and written as tables and manifest.

Who makes the shards is left to runners, where all is published to place.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headrace.errors import DataError
from headrace.format import catalog, index, manifest
from headrace.format.equal import EqualImages, equal_images
from headrace.packing.budget import SHOWN, Budget, shown
from headrace.packing.plan import Decisions, Numbered, numbered
from headrace.packing.shard import ShardResult
from headrace.place import local
from headrace.place.address import Location
from headrace.record import Reject
from headrace.version import __version__

_log = logging.getLogger("headrace")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What a packing did. seen == stored + len(rejects), always. `seconds` from the first look at the source. `folder`:
    the folder below `path` in which its files lie, "" for that itself; what replaced a dataset in a store has one.

    `warned`: how many are stored though their decoder warned about them, each with its `warning` in the catalog.
    `boxes` were stored, `boxes_clipped` of them cut because they reached out of their image; `boxes_dropped` counts by
    reason those that were left out. `keypoint_sets`: objects with at least one labelled keypoint; `keypoints_dropped`
    counts by reason the labelled keypoints that were left out. `skipped`: what the source passed over, by kind.
    `notes`: what was taken for granted, a sentence each. `equal`: the stored images whose bytes occur again.
    """

    path: Location
    folder: str = ""
    seen: int
    stored: int
    warned: int
    rejects: tuple[Reject, ...]
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    boxes: int
    boxes_clipped: int
    boxes_dropped: Mapping[str, int]
    keypoint_sets: int
    keypoints_dropped: Mapping[str, int]
    shards: int
    bytes_in: int
    bytes_out: int
    skipped: Mapping[str, int]
    seconds: float
    notes: tuple[str, ...]
    equal: EqualImages

    @property
    def images_per_second(self) -> float:
        return self.seen / self.seconds


class Results:
    """What came of the shards of a plan, each counted once. Their parts of index and catalog are kept in `folder`, so
    that of a record nothing stays in memory. `tick` hears of so many records more."""

    def __init__(self, plan: Decisions, folder: Path, budget: Budget, tick: Callable[[int], object]) -> None:
        self._plan, self._folder, self._budget, self._tick = plan, folder, budget, tick
        self._results: dict[str, ShardResult] = {}
        self._rejects: list[Numbered] = []

    def add(self, result: ShardResult, *, counted: bool = False) -> None:
        """Keeps a result, in any order; one that comes twice is the same. `counted`: its records were counted as they
        were made. Raises DataError (too many Rejects), OSError."""
        if result.entry.name in self._results:
            return
        if not counted:
            self.count(map(numbered, result.rejects.splitlines()), result.entry.records + result.refused)
        for path, data in zip(self.parts_of(result.entry.name), (result.index, result.catalog), strict=True):
            path.write_bytes(data)
        self._results[result.entry.name] = replace(result, rejects=b"", index=b"", catalog=b"")

    def count(self, rejects: Iterable[Numbered], n: int) -> None:
        """Counts the Rejects among so many records. Raises DataError with the first ten once too many are."""
        found, most = len(self._rejects), self._budget.allowed(self._plan.seen)
        for refused in rejects:
            _log.info("rejected %s", refused.item)
            found += 1
            if found <= most + SHOWN:
                self._rejects.append(refused)
        self._budget.check(found, seen=self._plan.seen, first=self.rejects())
        self._tick(n)

    def rejects(self) -> tuple[Reject, ...]:
        """In the order of the source."""
        return tuple(n.item for n in sorted(self._rejects, key=lambda n: n.number) if isinstance(n.item, Reject))

    def in_order(self) -> list[ShardResult]:
        """The results that are there, in the order of the plan's shards."""
        return [self._results[shard.name] for shard in self._plan.shards if shard.name in self._results]

    def parts_of(self, shard: str) -> tuple[Path, Path]:
        """Where the parts of index and catalog of a shard are kept."""
        path = self._folder / shard
        return path.with_suffix(".index"), path.with_suffix(".catalog")


def finish(
    folder: Path,
    out: Location,
    plan: Decisions,
    results: Results,
    recipe: Mapping[str, Any],
    *,
    below: str = "",
) -> Callable[[float], PackReport]:
    """Writes into `folder` what a dataset has besides its shards, to be published as `out`; the report of it, once it
    is known how long all took. `below`: the folder of `out` that all files but the manifest go to.

    Raises DataError (nothing is stored), StorageError.
    """
    made_of, rejects = results.in_order(), results.rejects()
    stored = sum(result.entry.records for result in made_of)
    if stored + len(rejects) != plan.seen:
        raise AssertionError(f"{plan.seen} seen, {stored} stored, {len(rejects)} rejected: some are lost")
    if not stored:
        raise DataError(f"none of {plan.seen} records could be stored{shown(rejects, len(rejects))}")
    made = _write_rest(folder, out.absolute().name, plan, results, recipe, below)
    equal = equal_images(functools.partial(catalog.parts, path=folder / catalog.FILE, records=stored))
    others = {manifest.FILE, *made.files}
    return functools.partial(
        _report, out, plan, made, made_of, rejects, equal, sum((folder / name).stat().st_size for name in others)
    )


def _report(
    out: Location,
    plan: Decisions,
    made: manifest.Manifest,
    results: list[ShardResult],
    rejects: tuple[Reject, ...],
    equal: EqualImages,
    bytes_of_others: int,
    seconds: float,
) -> PackReport:
    for entry in made.shards:
        _log.info("%s: %d records", out / made.folder / entry.name, entry.records)
    return PackReport(
        path=out,
        folder=made.folder,
        seen=plan.seen,
        stored=made.stored,
        warned=sum(result.warned for result in results),
        rejects=rejects,
        splits=made.splits,
        classes=plan.classes,
        box_classes=plan.box_classes,
        boxes=sum(result.boxes for result in results),
        boxes_clipped=made.boxes_clipped,
        boxes_dropped=made.boxes_dropped,
        keypoint_sets=sum(result.keypoint_sets for result in results),
        keypoints_dropped=made.keypoints_dropped,
        shards=len(made.shards),
        bytes_in=sum(result.bytes_in for result in results),
        bytes_out=sum(result.bytes_out for result in results) + bytes_of_others,
        skipped=dict(plan.info.skipped),
        seconds=seconds,
        notes=plan.notes,
        equal=equal,
    )


def _write_rest(
    folder: Path, name: str, plan: Decisions, results: Results, recipe: Mapping[str, Any], below: str
) -> manifest.Manifest:
    """Index, catalog, rejects, side files and, last of all, the manifest."""
    boxes_dropped, keypoints_dropped = Counter(plan.info.boxes_dropped), Counter(plan.info.keypoints_dropped)
    made_of, rejects = results.in_order(), results.rejects()
    for result in made_of:
        boxes_dropped += result.boxes_dropped
        keypoints_dropped += result.keypoints_dropped
    made = manifest.Manifest(
        headrace_version=__version__,
        folder=below,
        seen=plan.seen,
        stored=sum(result.entry.records for result in made_of),
        rejected=len(rejects),
        classes=plan.classes,
        box_classes=plan.box_classes,
        boxes=sum(result.boxes for result in made_of) if plan.with_boxes else None,
        boxes_clipped=sum(result.boxes_clipped for result in made_of),
        boxes_dropped=dict(boxes_dropped),
        numbered=plan.info.numbered,
        multi_label=plan.multi_label,
        values=plan.values,
        keypoints=plan.keypoints,
        keypoint_names=plan.keypoint_names,
        flip_pairs=plan.flip_pairs,
        keypoints_dropped=dict(keypoints_dropped),
        channels=max(result.channels for result in made_of),
        shards=tuple(result.entry for result in made_of),
        pack_options=plan.options.as_json() | dict(recipe),
        schema={column: str(kind) for column, kind in catalog.SCHEMA.items()},
    )
    parts = [results.parts_of(shard.name) for shard in plan.shards]
    index.join([where for where, _ in parts], folder / index.FILE)
    catalog.join([what for _, what in parts], folder / catalog.FILE)
    with (folder / manifest.REJECTS_FILE).open("wb") as file:
        for reject in rejects:
            # A path that is no UTF-8 has surrogates in it, which \udcXX writes as JSON does.
            text = json.dumps(asdict(reject), ensure_ascii=False) + "\n"
            file.write(text.encode(errors="backslashreplace"))
    side_files = manifest.side_files(made, name=name)
    for file_name, data in side_files.items():
        (folder / file_name).write_bytes(data)
    tables = (index.FILE, catalog.FILE)
    made = replace(
        made,
        files={file: local.digest(folder / file) for file in (*tables, manifest.REJECTS_FILE, *side_files)},
        crc32c={file: local.crc32c(folder / file) for file in tables},
    )
    (folder / manifest.FILE).write_bytes(made.to_bytes())
    return made
