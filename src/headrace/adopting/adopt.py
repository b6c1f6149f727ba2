"""adopt: TFRecord files that someone else wrote become a dataset without being rewritten or copied.

One pass finds every record, its labels by the map of its keys, and the size of its image by the image's header; catalog
and manifest are all that is written. What keys mean is left to layouts and mapping.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from headrace import parallel
from headrace.adopting import layouts
from headrace.adopting.classes import names_beside, names_given, settled
from headrace.adopting.files import (
    Skipped,
    absolute,
    check_outside,
    find,
    listed,
    name_from,
    open_files,
    sample,
)
from headrace.adopting.layouts import Layout
from headrace.adopting.mapping import Map, with_given
from headrace.adopting.reader import Reader
from headrace.adopting.scan import Columns, Pass, Vocabulary, joined, reject
from headrace.adopting.schema import Schema
from headrace.adopting.write import write
from headrace.errors import DamageError, DataError, NotThereError, UsageError
from headrace.format import frames, index, manifest
from headrace.imaging import codec
from headrace.imaging.prepare import ImageOptions
from headrace.packing.budget import Budget
from headrace.place.address import Location, located
from headrace.place.open import at
from headrace.place.open import staging as staging_of
from headrace.progress import bar
from headrace.record import Reject
from headrace.splits import check_split_name

_log = logging.getLogger("headrace")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptReport:
    """What an adoption found. seen == stored + len(rejects), always; `skipped` bytes are damage, and seen by nobody.

    `map`: field -> key, as `map` takes it. `keypoints`: how many an object has, 0 where there are none. `notes`: what
    was assumed or is out of the ordinary, for people to read. `bytes` of all shards.
    """

    path: Location
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

    shards: files, or folders of them. map: {"image": KEY, "label": KEY, ...} over what is recognised (mapping.FIELDS).
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
    frames.check_process("adopt")
    threads = parallel.check_workers(workers)
    budget = Budget(max_rejects)
    if split is not None:
        check_split_name(split)
    options = ImageOptions(max_pixels=max_pixels)
    folder = located(out)
    paths = find(shards)
    check_outside(folder, paths)
    root = None if images is None else at(images)
    if root is not None and not (root.path.is_dir() if isinstance(root.path, Path) else root.exists()):
        raise NotThereError(f"{root.path}: no such folder of images")
    names, box_names = names_given(classes), names_given(box_classes)
    notes: list[str] = []
    publication = staging_of(folder, overwrite=overwrite, replaceable=manifest.FILE)
    with publication as staging:
        files, cut = open_files(paths, folder, staging, split, convert=convert, notes=notes)
        found = sample(files)
        folders = [at(folder) for folder in dict.fromkeys(path.parent for path in paths)]
        layout = layouts.recognise(found, folders)
        chosen = _choose(layout, map or {}, found, has_images=root is not None)
        notes += layout.notes if layout is not None else ()
        reader = Reader(chosen, set(found.keys))
        chunks = Pass(files, reader, root, options.max_pixels)
        with bar(total=sum(file.size for file in files) // 10**6, unit="MB", desc="adopt", show=progress) as shown:
            parts: list[list[Columns]] = [[] for _ in files]
            said, box_said = Vocabulary(), Vocabulary()
            refused: list[tuple[int, int, Reject]] = []  # by file and record
            skipped = cut
            done = turned = 0
            for read in parallel.ordered(chunks.read, chunks, workers=threads, ahead=4 * threads):
                numbers, box_numbers = said.numbers(read.said), box_said.numbers(read.box_said)
                found_in = read.columns
                parts[read.file].append(
                    replace(found_in, labels=numbers[found_in.labels], box_labels=box_numbers[found_in.box_labels])
                )
                refused += [(read.file, number, reject) for number, reject in read.rejects]
                skipped += read.skipped
                turned += read.turned
                files[read.file].marks.update(read.marks)
                shown.update((done + read.size) // 10**6 - done // 10**6)
                done += read.size
        if skipped and not salvage:
            places = f"{len(skipped)} place{'s' if len(skipped) > 1 else ''}"
            raise DamageError(
                f"damage in {places}:{listed(skipped)}\npass salvage=True to take what is sound; nothing was published"
            )
        for file in files:
            file.check_unchanged()
        columns = []
        while parts:  # one file after the other: its parts go as the whole of it comes
            columns.append(joined(parts.pop(0)))
        notes += _odd_images(columns, turned)
        whole = settled(
            columns,
            [file.called for file in files],
            said.said,
            box_said.said,
            chosen,
            names=names or names_beside(folders, chosen.label),
            box_names=box_names or names_beside(folders, chosen.box_labels),
            point_names=_keypoint_names(keypoint_names, found, chosen),
        )
        del columns
        notes += whole.notes
        if reader.late:
            late = sorted(reader.late)
            more = f" and {len(late) - 10} more" if len(late) > 10 else ""
            notes.append(f"keys that only later records have, and that are not used: {', '.join(late[:10])}{more}")
        refused += [
            (one.file, one.record, reject(files[one.file], one.record, "label", one.reason)) for one in whole.refusals
        ]
        rejects = [one for *_, one in sorted(refused, key=lambda one: one[:2])]
        for one in rejects:
            _log.info("rejected %s", one)
        stored = sum(len(one) for one in whole.files)
        seen = stored + len(rejects)
        if not stored:
            raise DataError(f"none of {seen} records can be used; nothing was published{listed(rejects)}")
        budget.check(len(rejects), seen=seen, first=rejects)
        known_as = "by map" if layout is None else layout.name
        adopted = {
            "layout": known_as,
            "map": chosen.keys,
            "images": None if root is None else name_from(folder, absolute(root.path)),
        }
        promised = write(staging, files, whole, rejects, skipped, options, adopted, publication.folder_name)
    for entry in promised.shards:
        _log.info("%s: %d records", at(folder).address(entry.name), entry.records)
    return AdoptReport(
        path=folder,
        seen=seen,
        stored=stored,
        rejects=tuple(rejects),
        skipped=tuple(skipped),
        layout=known_as,
        map=chosen.keys,
        splits=promised.splits,
        classes=promised.classes,
        box_classes=promised.box_classes,
        boxes=promised.boxes or 0,
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


def _odd_images(files: Sequence[Columns], turned: int) -> list[str]:
    """Notes of images that others may show otherwise."""
    notes = []
    if turned:
        notes.append(
            f"{turned} images have an EXIF orientation: their pixels and boxes are used as stored, as TensorFlow does"
        )
    counts = np.bincount(np.concatenate([one.where["format"] for one in files]), minlength=len(index.FORMATS)).tolist()
    others = {kind: n for kind, n in zip(index.FORMATS, counts, strict=True) if n and kind not in ("jpeg", "png")}
    if others:
        told = ", ".join(f"{n} {kind}" for kind, n in sorted(others.items()))
        notes.append(f"images that other readers may decode differently, or not at all: {told}")
    return notes


def _choose(layout: Layout | None, given: Mapping[str, str], found: Schema, *, has_images: bool) -> Map:
    """The map: what was recognised, and over it what is given. Raises UsageError with the schema: that is no map."""
    chosen = with_given(Map() if layout is None else layout.map, given, found)

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
