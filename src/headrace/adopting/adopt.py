"""adopt: TFRecord files that someone else wrote become a dataset without being rewritten or copied.

One pass finds every record, its labels by the map of its keys, and the size of its image by the image's header; catalog
and manifest are all that is written. What keys mean is format/schema's business.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from headrace import parallel
from headrace.adopting import schema
from headrace.adopting.classes import Settled, names_beside, names_given
from headrace.adopting.files import (
    ShardFile,
    Skipped,
    absolute,
    check_outside,
    find,
    listed,
    name_from,
    open_files,
    sample,
)
from headrace.adopting.scan import Found, Pass
from headrace.adopting.schema import Map, Reader, Schema
from headrace.errors import DamageError, DataError, NotThereError, UsageError
from headrace.format import catalog, index, manifest
from headrace.imaging import codec, mirror
from headrace.imaging.prepare import ImageOptions
from headrace.place import publish
from headrace.progress import bar
from headrace.record import Reject
from headrace.splits import check_split_name
from headrace.version import __version__

_log = logging.getLogger("headrace")

_DROPPED = "outside of the image, reversed or without an area"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptReport:
    """What an adoption found. seen == stored + len(rejects), always; `skipped` bytes are damage, and seen by nobody.

    `map`: field -> key, as `map` takes it. `keypoints`: how many an object has, 0 where there are none. `notes`: what
    was assumed or is out of the ordinary, for people to read. `bytes` of all shards.
    """

    path: Path
    seen: int
    stored: int
    rejects: tuple[Reject, ...]
    skipped: tuple[Skipped, ...]
    layout: str
    map: Mapping[str, str]
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    boxes: int
    boxes_clipped: int
    boxes_dropped: Mapping[str, int]
    keypoints: int
    keypoint_names: tuple[str, ...]
    keypoints_dropped: Mapping[str, int]
    shards: int
    bytes: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def skipped_bytes(self) -> int:
        return sum(one.end - one.begin for one in self.skipped)

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds


def adopt(
    shards: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    map: Mapping[str, str] | None = None,
    split: str | None = None,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    box_classes: Sequence[str] | str | os.PathLike[str] | None = None,
    keypoint_names: Sequence[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    salvage: bool = False,
    convert: bool = False,
    max_rejects: float | int = 0.10,
    max_pixels: int = codec.MAX_PIXELS,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> AdoptReport:
    """Makes the dataset folder `out` of TFRecord files where they are: a catalog and a manifest, no copies.

    shards: files, or folders of them. map: {"image": KEY, "label": KEY, ...} over what is recognised (schema.FIELDS).
    split: of all files; by default their names say it ("train-00000-of-00005", "x-val.tfrecord").
    classes, box_classes: names in index order, or a file of them (one a line, or a label_map.pbtxt).
    keypoint_names: in the order of the points; names that say a side, such as left_eye, also say what a mirror swaps.
    images: the folder below which records that only name their image have it.
    salvage: leave out what is damaged; by default damage raises. convert: unpack GZIP and ZLIB files into `out`.
    max_rejects: a float is a share of what is seen, an int a count; over it nothing is published.
    workers: threads, by default one per core; their number changes nothing.

    Raises UsageError (no map for these keys: the message shows them; compressed files; `out` is in the way),
    NotThereError, DamageError (each damage with its address), DataError (nothing stored, too many Rejects),
    StorageError.
    """
    started = time.perf_counter()
    threads = parallel.check_workers(workers)
    if not (max_rejects >= 0 and (isinstance(max_rejects, int) or max_rejects <= 1)):
        raise UsageError(f"max_rejects is {max_rejects}, wanted a share (a float, 0 to 1) or a count (an int)")
    if split is not None:
        check_split_name(split)
    options = ImageOptions(max_pixels=max_pixels)
    folder = Path(out)
    paths = find(shards)
    check_outside(folder, paths)
    root = None if images is None else Path(images)
    if root is not None and not root.is_dir():
        raise NotThereError(f"{root}: no such folder of images")
    names, box_names = names_given(classes), names_given(box_classes)
    notes: list[str] = []
    with publish.Staging(folder, overwrite=overwrite, replaceable=manifest.FILE) as staging:
        files, cut = open_files(paths, folder, staging, split, convert=convert, notes=notes)
        found = sample(files)
        folders = list(dict.fromkeys(path.parent for path in paths))
        layout = schema.recognise(found, folders)
        chosen = _choose(layout, map or {}, found, has_images=root is not None)
        notes += layout.notes if layout is not None else ()
        reader = Reader(chosen, set(found.keys))
        chunks = Pass(files, reader, root, options.max_pixels)
        with bar(total=sum(file.size for file in files) // 10**6, unit="MB", desc="adopt", show=progress) as shown:
            pieces: list[Found | Reject | Skipped] = []
            done = 0
            for read in parallel.ordered(chunks.read, chunks, workers=threads, ahead=4 * threads):
                pieces += read.pieces
                files[read.file].marks.update(read.marks)
                shown.update((done + read.size) // 10**6 - done // 10**6)
                done += read.size
        skipped = cut + [piece for piece in pieces if isinstance(piece, Skipped)]
        if skipped and not salvage:
            places = f"{len(skipped)} place{'s' if len(skipped) > 1 else ''}"
            raise DamageError(
                f"damage in {places}:{listed(skipped)}\npass salvage=True to take what is sound; nothing was published"
            )
        for file in files:
            file.check_unchanged()
        made = Settled([piece for piece in pieces if not isinstance(piece, Skipped)], chosen, notes)
        made.label(names or names_beside(folders, chosen.label))
        made.label_boxes(box_names or names_beside(folders, chosen.box_labels))
        made.arrange_keypoints(_keypoint_names(keypoint_names, found, chosen))
        made.identify()
        if reader.late:
            late = sorted(reader.late)
            more = f" and {len(late) - 10} more" if len(late) > 10 else ""
            notes.append(f"keys that only later records have, and that are not used: {', '.join(late[:10])}{more}")
        stored, rejects = made.found, made.rejects
        for reject in rejects:
            _log.info("rejected %s", reject)
        seen = len(stored) + len(rejects)
        most = int(max_rejects * seen) if isinstance(max_rejects, float) else max_rejects
        if not stored:
            raise DataError(f"none of {seen} records can be used; nothing was published{listed(rejects)}")
        if len(rejects) > most:
            raise DataError(
                f"{len(rejects)} of {seen} records are rejected, {most} are allowed (max_rejects); nothing was "
                f"published. Mend the map or allow more:{listed(rejects)}"
            )
        known_as = "by map" if layout is None else layout.name
        adopted = {
            "layout": known_as,
            "map": chosen.keys,
            "images": None if root is None else name_from(folder, absolute(root)),
        }
        promised = _write(staging, files, made, skipped, options, adopted)
    for entry in promised.shards:
        _log.info("%s: %d records", os.path.normpath(folder / entry.name), entry.records)
    return AdoptReport(
        path=folder,
        seen=seen,
        stored=len(stored),
        rejects=tuple(rejects),
        skipped=tuple(skipped),
        layout=known_as,
        map=chosen.keys,
        splits=promised.splits,
        classes=promised.classes,
        box_classes=promised.box_classes,
        boxes=sum(len(one.row.boxes) for one in stored if one.row.boxes is not None),
        boxes_clipped=promised.boxes_clipped,
        boxes_dropped=promised.boxes_dropped,
        keypoints=promised.keypoints,
        keypoint_names=promised.keypoint_names,
        keypoints_dropped=promised.keypoints_dropped,
        shards=len(files),
        bytes=sum(file.size for file in files),
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _choose(layout: schema.Layout | None, given: Mapping[str, str], found: Schema, *, has_images: bool) -> Map:
    """The map: what was recognised, and over it what is given. Raises UsageError with the schema: that is no map."""
    chosen = schema.with_given(Map() if layout is None else layout.map, given, found)

    def refuse(why: str, hint: str = "") -> UsageError:
        return UsageError("\n".join(filter(None, (why, found.table(), hint))))

    if chosen.image is None and chosen.file is None:
        why = f"the keys of these records are no layout known here; {found.records} records were looked at:"
        raise refuse(why, _hint(found))
    image = None if chosen.image is None else found.keys[chosen.image]
    if chosen.file is not None and (image is None or image.is_empty):
        if not has_images:
            raise refuse(f"these records only name their image ({chosen.file}); pass images=DIR, where it is:")
    elif image is not None and not image.is_image:
        raise refuse(f"{chosen.image!r} holds no encoded images (JPEG, PNG, ...):", _hint(found))
    if chosen.boxes and not chosen.box_pixels and chosen.boxes[0] in found.keys:
        numbers = [n for key in chosen.boxes for n in found.keys[key].numbers if np.isfinite(n)]
        if numbers and float(np.median(numbers)) > 2:
            flag = ",".join(chosen.boxes)
            raise refuse(
                f"the boxes of {flag} reach to {max(numbers):g}: pixels, it seems, and not 0 to 1; then pass "
                f"map={{'boxes': '{flag}:{chosen.box_order + ':' if len(chosen.boxes) == 1 else ''}pixels'}}"
            )
    return chosen


def _keypoint_names(given: Sequence[str] | None, found: Schema, chosen: Map) -> Sequence[str]:
    """Names of keypoints: as given, or as the first record says that was looked at and has some."""
    if given is not None:
        return given
    texts = () if chosen.keypoint_text is None else found.keys[chosen.keypoint_text].texts
    return [text.decode(errors="replace") for text in texts]


def _hint(found: Schema) -> str:
    """What a map might look like."""
    image = next((name for name, key in found.keys.items() if key.is_image), None)
    if image is None:
        return "  no key holds encoded images; map={'image': 'KEY'} needs one (or map={'file': 'KEY'} and images=DIR)"
    numbers = (name for name, key in sorted(found.keys.items()) if key.kind == "int64" and key.high == 1)
    texts = (name for name, key in sorted(found.keys.items()) if key.is_text and key.high == 1)
    label = next(numbers, None) or next(texts, None)
    return f"  perhaps: map={ ({'image': image} | ({'label': label} if label else {}))!r}"


def _count_boxes(found: Sequence[Found]) -> int | None:
    """All boxes; None where nothing is said of any."""
    counts = [len(one.row.boxes) for one in found if one.row.boxes is not None]
    return sum(counts) if counts else None


def _write(
    staging: Path,
    files: Sequence[ShardFile],
    made: Settled,
    skipped: Sequence[Skipped],
    options: ImageOptions,
    adopted: Mapping[str, Any],
) -> manifest.Manifest:
    """Catalog, rejects and, last of all, the manifest."""
    found, rejects = made.found, made.rejects
    counts = Counter(one.row.shard for one in found)
    gaps: dict[str, list[tuple[int, int]]] = {}
    for one in skipped:
        if one.end > one.begin:
            gaps.setdefault(one.shard, []).append((one.begin, one.end))
    dropped = sum(one.dropped for one in found)
    promised = manifest.Manifest(
        headrace_version=__version__,
        seen=len(found) + len(rejects),
        stored=len(found),
        rejected=len(rejects),
        classes=made.classes,
        box_classes=made.box_classes,
        keypoints=made.keypoints,
        keypoint_names=made.keypoint_names,
        flip_pairs=mirror.pairs(made.keypoint_names),
        keypoints_dropped=dict(+made.keypoints_dropped),
        boxes=_count_boxes(found),
        numbered=made.numbered,
        boxes_clipped=sum(one.clipped for one in found),
        boxes_dropped={_DROPPED: dropped} if dropped else {},
        channels=max(one.row.channels for one in found),
        shards=tuple(
            manifest.ShardEntry(
                name=file.name,
                split=file.split,
                records=counts[file.name],
                bytes=file.size,
                sha256=file.marks.hexdigest(),
                foreign=manifest.Foreign(
                    mtime_ns=file.mtime_ns, ends=file.ends, skipped=tuple(gaps.get(str(file.path), ()))
                ),
            )
            for file in files
        ),
        pack_options=options.as_json(),
        schema={column: str(kind) for column, kind in catalog.SCHEMA.items()},
        adopted=adopted,
    )
    rows = [one.row for one in found]
    tables = {index.FILE: index.to_bytes(rows), catalog.FILE: catalog.to_bytes(catalog.table(rows))}
    lines = "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
    written = {**tables, manifest.REJECTS_FILE: lines.encode(errors="backslashreplace")}
    for name, data in written.items():
        (staging / name).write_bytes(data)
    promised = replace(
        promised,
        files={name: hashlib.sha256(data).hexdigest() for name, data in written.items()},
        crc32c={name: google_crc32c.value(data) for name, data in tables.items()},
    )
    (staging / manifest.FILE).write_bytes(promised.to_bytes())
    return promised
