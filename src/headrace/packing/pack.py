"""pack: a source becomes a dataset on disk. Plan, make shards, write catalog and manifest, publish at once."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import google_crc32c

from headrace import parallel
from headrace.errors import DataError
from headrace.format import catalog, frames, index, manifest
from headrace.format.equal import EqualImages, equal_images
from headrace.imaging import codec
from headrace.imaging.placement import Fit
from headrace.imaging.prepare import ImageOptions, OnWarning
from headrace.packing.budget import SHOWN, Budget, shown
from headrace.packing.divided import Divided
from headrace.packing.plan import Group, Guard, Numbered, Plan, ShardPlan, make_plan, numbered
from headrace.packing.shard import Made, ShardResult, make_record, pack_shard, parts_of
from headrace.place import local, publish
from headrace.progress import bar
from headrace.record import Record, Reject
from headrace.splits import Splits
from headrace.version import __version__

_log = logging.getLogger("headrace")

Runner: TypeAlias = Callable[[Plan, Path], Iterator[ShardResult]]

_SCRATCH = ".plan"
_CHUNK = 4  # records per task: a task costs about 40 microseconds of its own, an image 500 and more


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What a packing did. seen == stored + len(rejects), always. `seconds` from the first look at the source.

    `warned`: how many are stored though their decoder warned about them, each with its `warning` in the catalog.
    `boxes` were stored, `boxes_clipped` of them cut because they reached out of their image; `boxes_dropped` counts by
    reason those that were left out. `keypoint_sets`: objects with at least one labelled keypoint; `keypoints_dropped`
    counts by reason the labelled keypoints that were left out. `skipped`: what the source passed over, by kind.
    `notes`: what was taken for granted, a sentence each. `equal`: the stored images whose bytes occur again.
    """

    path: Path
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


def pack(
    source: Iterable[Record | Reject] | Mapping[str, Iterable[Record | Reject]],
    out: str | os.PathLike[str],
    *,
    splits: Splits | None = None,
    group: Group | None = None,
    guard: Guard | None = None,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "stretch",
    max_side: int | None = None,
    min_side_to: int | None = None,
    enlarge: bool = False,
    value_range: tuple[float, float] | None = None,
    channels: int | None = None,
    quality: int = codec.JPEG_QUALITY,
    chroma: codec.Chroma = "444",
    optimize: bool = False,
    max_pixels: int = codec.MAX_PIXELS,
    on_warning: OnWarning = "reject",
    shards: int | None = None,
    shard_size: int | None = None,
    seed: int = 0,
    max_rejects: float | int = 0.10,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    runner: Runner | None = None,
) -> PackReport:
    """Packs the records of `source` into the dataset folder `out`, and publishes it when all is well.

    source: one, or a source per split (name -> source). Then each split stands in the order that its source alone would
    have, an id that several splits have gets its split in front ("train/a.jpg"), and classes are the same for all.
    A source is read once, to its end; images that come as bytes are written beside `out` until they are packed.
    splits: name -> fraction, summing to 1, stratified by class; or "given": each record goes to the split that it says
    (Record.split), which is the default where records say one. Otherwise all is "train".
    group: what of a record no split cuts in two, as a patient or a film of which there are several images: the name of
    an attribute, or a function of a Record that tells it (None: it stands alone). By default, and as "group", it is
    what records say (Record.group); as "look" it is near-duplicates, as headrace.duplicates finds them, which their own
    groups are not. Shares are then within one group of what was asked, stratified as far as groups allow.
    guard: what to do with near-duplicates that would come into several splits. "move": each group of them, and what
    records say to be one with any of it, goes whole into one split: shares are drawn by groups, and where the source
    divides itself it is the split that has most of the group. "drop": only those in the last of their splits stay
    (of train and test those in test), the others are Rejects. "refuse": DataError. For it and for group "look" each
    image is read and decoded, small, once before it is packed, in this process, and by `workers` threads.
    size: int or (height, width) in pixels to resize to, by `fit`; None keeps every image's bytes where readers can.
    max_side: pixels to bring the longer side to, min_side_to: the shorter one, instead of size. Each image keeps its
    ratio; only larger ones change, unless enlarge.
    value_range: (low, high), black and white of image files of more than 8 bits per sample (PNG, TIFF), which become 8
    bits: v is round((v - low) * 255 / (high - low)), a value outside a Reject. Without it each of them is one.
    channels: 1 or 3; None keeps grey images grey.
    quality, chroma ("444" or "420"): of the JPEGs that are made; optimize makes them some percent smaller, and slower.
    max_pixels: an image whose header says more is a Reject.
    on_warning: "reject" or "keep" a JPEG that its decoder warns about. Such a one is most often damaged, and its pixels
    wrong from some row on; one that is kept is marked in the catalog (`warning`) and stored anew.
    shards: per split; or shard_size: bytes, about (default 128 MB). seed: of splits and order.
    max_rejects: a float is a share of what is seen, an int a count; over it nothing is published.
    workers: threads, by default one per core. Their number changes nothing in the output.
    progress: show a bar; None where someone looks. Each Reject as it comes, and each shard at the end, are logged to
    "headrace" (INFO). runner: who makes the shards of a Plan (threads here by default).

    Raises UsageError (an option, `out` is in the way, a forked child without Polars's threads), DataError (nothing
    stored, too many Rejects), StorageError.
    """
    started = time.perf_counter()
    frames.check_process("pack")
    options = ImageOptions(
        size=size,  # type: ignore[arg-type]
        fit=fit,
        max_side=max_side,
        min_side_to=min_side_to,
        enlarge=enlarge,
        value_range=value_range,
        channels=channels,
        quality=quality,
        chroma=chroma,
        optimize=optimize,
        max_pixels=max_pixels,
        on_warning=on_warning,
    )
    threads = parallel.check_workers(workers)
    patience = Budget(max_rejects)
    folder = Path(out)
    if isinstance(source, Mapping):
        source = Divided(source)
    with publish.Staging(folder, overwrite=overwrite, replaceable=manifest.FILE) as staging:
        scratch = staging / _SCRATCH
        plan = make_plan(
            source,
            scratch,
            out=folder,
            options=options,
            splits=splits,
            shards=shards,
            shard_bytes=shard_size,
            seed=seed,
            group=group,
            guard=guard,
            workers=threads,
            progress=progress,
        )
        with contextlib.closing(plan):
            budget = _Spent(plan, patience)
            with bar(total=plan.seen, unit="img", desc="pack", show=progress) as ticks:

                def tick(rejects: Iterable[Numbered], n: int) -> None:
                    budget.spend(rejects)
                    ticks.update(n)

                tick(plan.rejects(), plan.refused)
                if runner is None:
                    results = list(_run_here(plan, staging, threads, tick))
                else:
                    results = []
                    for result in runner(plan, staging):
                        results.append(result)
                        tick(map(numbered, result.rejects.splitlines()), result.entry.records + result.refused)
                    place = {shard.name: i for i, shard in enumerate(plan.shards)}
                    results.sort(key=lambda result: place[result.entry.name])
            rejects = tuple(
                n.item for n in sorted(budget.rejects, key=lambda n: n.number) if isinstance(n.item, Reject)
            )
            stored = sum(result.entry.records for result in results)
            if stored + len(rejects) != plan.seen:
                raise AssertionError(f"{plan.seen} seen, {stored} stored, {len(rejects)} rejected: some are lost")
            if not stored:
                raise DataError(f"none of {plan.seen} records could be stored{shown(rejects, len(rejects))}")
            recipe: dict[str, Any] = {"splits": plan.splits, "shards": shards, "shard_size": shard_size, "seed": seed}
            recipe |= {"group": group if isinstance(group, str) else None, "guard": guard}
            made = _write_rest(staging, folder.absolute().name, plan, results, rejects, recipe)
        shutil.rmtree(scratch)
        equal = equal_images(functools.partial(catalog.parts, path=staging / catalog.FILE, records=stored))
        bytes_out = sum(file.stat().st_size for file in staging.iterdir())
    for entry in made.shards:
        _log.info("%s: %d records", folder / entry.name, entry.records)
    return PackReport(
        path=folder,
        seen=plan.seen,
        stored=stored,
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
        bytes_out=bytes_out,
        skipped=dict(plan.info.skipped),
        seconds=time.perf_counter() - started,
        notes=plan.notes,
        equal=equal,
    )


def _run_here(
    plan: Plan, folder: Path, workers: int, tick: Callable[[Iterable[Numbered], int], None]
) -> Iterator[ShardResult]:
    """All shards by threads of this process: images of any shard are made in parallel, written in order."""

    def make(chunk: tuple[ShardPlan, int, int]) -> list[Made | Numbered]:
        shard, start, stop = chunk
        return [make_record(plan, shard, record) for record in plan.records(start, stop)]

    def made_of(i: int) -> Iterator[Made | Numbered]:
        for _ in range(-(-len(plan.shards[i]) // _CHUNK)):
            made = next(stream)
            tick((item for item in made if isinstance(item, Numbered)), len(made))
            yield from made

    stream = parallel.ordered(make, _chunks(plan), workers=workers, ahead=4 * workers)
    try:
        for i in range(len(plan.shards)):
            yield pack_shard(plan, i, folder, made_of(i))
    finally:
        stream.close()


def _chunks(plan: Plan) -> Iterator[tuple[ShardPlan, int, int]]:
    """(shard, first and last place in the plan's order) of a few records each."""
    for shard in plan.shards:
        for start in range(shard.start, shard.stop, _CHUNK):
            yield shard, start, min(shard.stop, start + _CHUNK)


class _Spent:
    """The Rejects so far."""

    def __init__(self, plan: Plan, budget: Budget) -> None:
        self.seen, self.budget = plan.seen, budget
        self.rejects: list[Numbered] = []

    def spend(self, rejects: Iterable[Numbered]) -> None:
        """Raises DataError with the first ten Rejects once they are more than allowed."""
        n, most = len(self.rejects), self.budget.allowed(self.seen)
        for refused in rejects:
            _log.info("rejected %s", refused.item)
            n += 1
            if n <= most + SHOWN:
                self.rejects.append(refused)
        first = [n.item for n in sorted(self.rejects, key=lambda n: n.number) if isinstance(n.item, Reject)]
        self.budget.check(n, seen=self.seen, first=first)


def _write_rest(
    folder: Path,
    name: str,
    plan: Plan,
    results: Sequence[ShardResult],
    rejects: Sequence[Reject],
    recipe: Mapping[str, Any],
) -> manifest.Manifest:
    """Index, catalog, rejects, side files and, last of all, the manifest."""
    boxes_dropped, keypoints_dropped = Counter(plan.info.boxes_dropped), Counter(plan.info.keypoints_dropped)
    for result in results:
        boxes_dropped += result.boxes_dropped
        keypoints_dropped += result.keypoints_dropped
    made = manifest.Manifest(
        headrace_version=__version__,
        seen=plan.seen,
        stored=sum(result.entry.records for result in results),
        rejected=len(rejects),
        classes=plan.classes,
        box_classes=plan.box_classes,
        boxes=sum(result.boxes for result in results) if plan.with_boxes else None,
        boxes_clipped=sum(result.boxes_clipped for result in results),
        boxes_dropped=dict(boxes_dropped),
        numbered=plan.info.numbered,
        multi_label=plan.multi_label,
        values=plan.values,
        keypoints=plan.keypoints,
        keypoint_names=plan.keypoint_names,
        flip_pairs=plan.flip_pairs,
        keypoints_dropped=dict(keypoints_dropped),
        channels=max(result.channels for result in results),
        shards=tuple(result.entry for result in results),
        pack_options=plan.options.as_json() | dict(recipe),
        schema={column: str(kind) for column, kind in catalog.SCHEMA.items()},
    )
    parts = [parts_of(plan, i) for i in range(len(plan.shards))]
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
        crc32c={file: _crc32c(folder / file) for file in tables},
    )
    (folder / manifest.FILE).write_bytes(made.to_bytes())
    return made


def _crc32c(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = google_crc32c.extend(found, block)
    return found
