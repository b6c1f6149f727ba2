"""pack: a source becomes a dataset on disk. Plan, make shards, write catalog and manifest, publish at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any

from headrace import parallel
from headrace.errors import UsageError
from headrace.format import frames, manifest
from headrace.imaging import codec
from headrace.imaging.placement import Fit
from headrace.imaging.prepare import ImageOptions, OnWarning
from headrace.packing.budget import Budget
from headrace.packing.divided import Divided
from headrace.packing.finish import PackReport, Results, finish
from headrace.packing.plan import Decisions, Group, Guard, make_plan
from headrace.packing.runners import Runner, threads
from headrace.packing.task import Tasks
from headrace.place.address import located
from headrace.place.open import staging as staging_of
from headrace.progress import bar
from headrace.record import Record, Reject
from headrace.splits import Splits

_SCRATCH = ".plan"


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
    storage_options: Mapping[str, Any] | None = None,
) -> PackReport:
    """Packs the records of `source` into the dataset folder `out`, and publishes it when all is well.

    out: a folder of this machine, or a URL of a store as s3://bucket/cats; then what is not uploaded yet lies in the
    folder for temporary files. storage_options: of a URL, what obstore takes to open it.

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
    runner: who makes the shards, threads of this process by default; `headrace.runners` has others. The output is the
    same with any of them, byte for byte.
    progress: show a bar; None where someone looks. Each Reject as it comes, and each shard at the end, are logged to
    "headrace" (INFO).

    Raises UsageError (an option, `out` is in the way, a forked child without Polars's threads), DataError (nothing
    stored, too many Rejects), StorageError, EngineError (of a runner).
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
    if runner is not None and workers is not None:
        raise UsageError(f"workers is {workers}: it is for threads of this process, and the runner has its own")
    cores = parallel.check_workers(workers)
    patience = Budget(max_rejects)
    folder = located(out)
    if isinstance(source, Mapping):
        source = Divided(source)
    publication = staging_of(folder, overwrite=overwrite, replaceable=manifest.FILE, storage_options=storage_options)
    with publication as staging:
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
            workers=cores,
            progress=progress,
        )
        with contextlib.closing(plan), bar(total=plan.seen, unit="img", desc="pack", show=progress) as ticks:
            results = Results(plan, scratch, patience, ticks.update)
            results.count(plan.rejects(), plan.refused)
            if runner is None:
                made = threads.run(plan, publication.sink, cores, results.count)
            else:
                made = runner(Tasks(plan, publication.sink))
            with contextlib.ExitStack() as stack:
                if (
                    close := getattr(made, "close", None)
                ) is not None:  # else what runs elsewhere went on after an error
                    stack.callback(close)
                for result in made:
                    results.add(result, counted=runner is None)
            recipe = recipe_of(plan, shards=shards, shard_size=shard_size, seed=seed, group=group, guard=guard)
            report = finish(staging, folder, plan, results, recipe, below=publication.folder_name)
        shutil.rmtree(scratch)
    return report(time.perf_counter() - started)


def recipe_of(
    plan: Decisions, *, shards: int | None, shard_size: int | None, seed: int, group: Group | None, guard: Guard | None
) -> dict[str, Any]:
    """What a manifest says of how records were divided."""
    said = {"group": group if isinstance(group, str) else None, "guard": guard}
    return {"splits": plan.splits, "shards": shards, "shard_size": shard_size, "seed": seed} | said
