"""Shards for the records of one more source, prepared as those of a dataset were; its tables are left to edit."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headrace import parallel
from headrace.errors import DataError, UsageError
from headrace.format.manifest import Manifest, ShardEntry
from headrace.imaging.prepare import ImageOptions
from headrace.packing.budget import Budget, shown
from headrace.packing.divided import Divided
from headrace.packing.finish import Results
from headrace.packing.plan import Group, Plan, make_plan
from headrace.packing.runners import threads
from headrace.place.address import Location
from headrace.place.publish import FolderSink
from headrace.progress import bar
from headrace.record import Record, Reject
from headrace.splits import Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What an append will add: `stored` records in `splits`, and the `rejects`; names of classes and of classes of
    boxes that are new; `notes` as of PackReport."""

    stored: int
    rejects: tuple[Reject, ...]
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Shards that were made, their `files` and parts of index and catalog, in the order of `entries`; all classes that
    there are with them, and what manifests count. `boxes`: None where nothing is said of any."""

    report: Appended
    entries: tuple[ShardEntry, ...]
    files: tuple[Path, ...]
    indices: tuple[Path, ...]
    catalogs: tuple[Path, ...]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    channels: int
    boxes: int | None
    boxes_clipped: int
    boxes_dropped: Mapping[str, int]
    keypoints_dropped: Mapping[str, int]

    @property
    def rejects(self) -> bytes:
        """Their lines, as the file of them has them."""
        lines = (json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in self.report.rejects)
        return "".join(lines).encode(errors="backslashreplace")


def append(
    source: Iterable[Record | Reject] | Mapping[str, Iterable[Record | Reject]],
    folder: Path,
    now: Manifest,
    *,
    classes: tuple[str, ...],
    box_classes: tuple[str, ...],
    has: Callable[[str], bool],
    path: Location,
    splits: Splits | None,
    group: Group | None,
    max_rejects: float | int,
    workers: int | None,
    progress: bool | None,
    named: str,
) -> Shards:
    """Makes shards of a source in the new `folder`, for the dataset `path` of which `now` says the rest.

    classes, box_classes: those it has by now. has: whether it has a record of this id. named: what stands in the names
    of shards. Raises UsageError, DataError, OSError.
    """
    cores, budget = parallel.check_workers(workers), Budget(max_rejects)
    if isinstance(source, Mapping):
        source = Divided(source)
    folder.mkdir()
    scratch, sink = folder / ".plan", FolderSink(folder)
    recipe = now.pack_options
    plan = make_plan(
        source,
        scratch,
        out=folder,
        options=ImageOptions.from_json(recipe),
        splits=splits,
        shards=None,
        shard_bytes=recipe.get("shard_size"),
        seed=recipe.get("seed", 0),
        group=group,
        has=has,
    )
    with contextlib.closing(plan), bar(total=plan.seen, unit="img", desc="append", show=progress) as ticks:
        plan = _fitted(plan, now, classes, box_classes, path)
        plan = replace(plan, shards=tuple(replace(one, name=_renamed(one.name, named)) for one in plan.shards))
        results = Results(plan, scratch, budget, ticks.update)
        results.count(plan.rejects(), plan.refused)
        sink.open()
        for result in threads.run(plan, sink, cores, results.count):
            results.add(result, counted=True)
        sink.close()
    done, rejects = results.in_order(), results.rejects()
    stored = sum(result.entry.records for result in done)
    if not stored:
        raise DataError(f"none of {plan.seen} records could be stored{shown(rejects, len(rejects))}")
    entries = tuple(replace(result.entry, since=now.version + 1) for result in done)
    per_split = Counter[str]()
    for entry in entries:
        per_split[entry.split] += entry.records
    parts = [results.parts_of(entry.name) for entry in entries]
    return Shards(
        report=Appended(
            stored=stored,
            rejects=rejects,
            splits=dict(per_split),
            classes=plan.classes[len(classes) :],
            box_classes=plan.box_classes[len(box_classes) :],
            notes=plan.notes,
        ),
        entries=entries,
        files=tuple(folder / name for entry in entries for name in (entry.name, entry.index_name)),
        indices=tuple(where for where, _ in parts),
        catalogs=tuple(what for _, what in parts),
        classes=plan.classes,
        box_classes=plan.box_classes,
        channels=max(result.channels for result in done),
        boxes=sum(result.boxes for result in done) if plan.with_boxes else None,
        boxes_clipped=sum(result.boxes_clipped for result in done),
        boxes_dropped=sum((result.boxes_dropped for result in done), Counter(plan.info.boxes_dropped)),
        keypoints_dropped=sum((result.keypoints_dropped for result in done), Counter(plan.info.keypoints_dropped)),
    )


def _renamed(name: str, named: str) -> str:
    """train-v0003-00000-of-00002.tfrecord of train-00000-of-00002.tfrecord."""
    split, _, rest = name.partition("-")
    return f"{split}-{named}-{rest}"


def _fitted(plan: Plan, now: Manifest, classes: tuple[str, ...], box_classes: tuple[str, ...], path: Location) -> Plan:
    """The plan with what holds for all records of the dataset. Raises UsageError: the source does not fit."""

    def check(good: bool, what: str) -> None:
        if not good:
            raise UsageError(f"{path}: {what}; pack a dataset of its own")

    check(not plan.multi_label or now.multi_label, "an image has one class here, and several in the source")
    check(not plan.values or now.values, "the source has values, and there are none here")
    bare = not (classes or now.boxes is not None or now.values or now.keypoints)
    check(not plan.classes or bool(classes) or bare, "the source has classes of images, and there are none here")
    k, names = plan.keypoints, plan.keypoint_names
    check(k in (0, now.keypoints), f"objects have {now.keypoints} keypoints here, and {k} in the source")
    same = not names or not now.keypoint_names or names == now.keypoint_names
    check(same, f"keypoints are {', '.join(now.keypoint_names)} here, and {', '.join(names)} in the source")
    said = plan.classes
    if plan.classes and classes and plan.info.class_names is None and not any(plan.table.names):
        if len(plan.classes) > len(classes):
            raise UsageError(
                f"{path}: the source numbers its classes up to {len(plan.classes) - 1} and names none, and the dataset "
                f"has {len(classes)}; pass the source class_names"
            )
        said = classes[: len(plan.classes)]  # by the numbers that they have here
    return replace(
        plan,
        classes=_merged(classes, said),
        said=said,
        box_classes=_merged(box_classes, plan.box_classes),
        multi_label=now.multi_label,
        values=now.values,
        with_boxes=plan.with_boxes or now.boxes is not None,
        keypoints=now.keypoints,
        keypoint_names=now.keypoint_names,
        flip_pairs=now.flip_pairs,
    )


def _merged(names: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*names, *more]))
