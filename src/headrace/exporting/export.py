"""export: a dataset, or a view of one, as files of another format. Names, threads, publishing and the report; what the
files hold is left to the formats.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from headrace import parallel
from headrace.errors import UsageError
from headrace.exporting.formats import (
    BOXES,
    CAPTIONS,
    FLIP_PAIRS,
    KEYPOINTS,
    LABEL,
    LABELS,
    MASKS,
    UNBOXED,
    VALUE,
    Format,
    Item,
    Writer,
    image_bytes,
    kind_of_masks,
    lost,
    says,
)
from headrace.exporting.naming import Names
from headrace.exporting.registry import find_format
from headrace.imaging import mirror
from headrace.place.address import Location, located
from headrace.place.open import staging as staging_of
from headrace.progress import bar

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset, StoredRecord

MARKER = ".headrace-export.json"  # what makes a folder one that an export wrote
NAMES_FILE = ".headrace-names.jsonl"  # name and id of the images that are not called as their id

_CHUNK = 4  # records per task: a task costs about 40 microseconds of its own
_PART = 1 << 14  # records whose names are made at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote. `files` and `bytes` of the whole folder, its two hidden files with them.

    `lost`: what records say and the format has no place for, by kind, counted in things (boxes, captions, values of an
    attribute), not in records. `renamed`: images that are not called as their id, each of which stands in NAMES_FILE.
    """

    path: Location
    format: str
    records: int
    files: int
    bytes: int
    lost: Mapping[str, int]
    renamed: int
    seconds: float


def export(
    dataset: Dataset,
    out: str | os.PathLike[str],
    *,
    format: str,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ExportReport:
    """Writes the records of a dataset or a view, in its order, into the new folder `out`, and publishes it at once.

    format: a name of `headrace.exporting.registry.FORMATS`; `options` are those of the format. Image files are taken
    over byte by byte. Ids become names of files, changed where they must be (naming.image_name).
    out: a folder of this machine, or a URL of a store; then all is made in the folder for temporary files first.
    overwrite: replaces `out`, if an export wrote it; not in a store.
    workers: threads, by default one per core. Their number changes nothing in the output. progress: show a bar; None
    where someone looks.

    Raises UsageError (no such format, an option, `out` is in the way, nothing but images would be left),
    DamageError (a record can't be read), StorageError. Then nothing was written.
    """
    started = time.perf_counter()
    entry = find_format(format)
    threads = parallel.check_workers(workers)
    _check(dataset, entry)
    options = _checked(entry, options)
    # Other tools look for files under their names, so in a store none can be replaced.
    with staging_of(out, overwrite=overwrite, replaceable=MARKER, what="an export", movable=False) as folder:
        renamed = _Renamed(folder / NAMES_FILE)
        with (
            entry.make(dataset, folder, **options) as writer,
            renamed,
            bar(total=len(dataset), unit="img", desc="export", show=progress) as ticks,
        ):
            _check_left(dataset, entry, writer)
            counts = Counter(_flips(dataset, writer))
            items = _items(dataset, entry, writer, renamed)

            def make(chunk: list[_Planned]) -> list[tuple[Counter[str], Any]]:
                out = []
                for planned in chunk:
                    record, less = _with_numbers(dataset[planned.number])
                    item = Item(folder=planned.folder, name=planned.name, record=record, lost=less)
                    item.lost.update(lost(record, writer.holds))
                    out.append((item.lost, writer.make(item)))
                return out

            ahead = (
                4 * threads
                if not writer.carries
                else parallel.ahead(4 * threads, _CHUNK * int(image_bytes(dataset).max()))
            )
            stream = parallel.ordered(make, _chunks(items), workers=threads, ahead=ahead)
            try:
                for chunk in stream:
                    for less, made in chunk:
                        counts.update(less)
                        writer.add(made)
                    ticks.update(len(chunk))
            finally:
                stream.close()
            counts.update(writer.close())
        found = {"format": entry.name, "records": len(dataset), "dataset": dataset.view_fingerprint}
        (folder / MARKER).write_text(json.dumps(found) + "\n")
        files, size = _measured(folder)
    return ExportReport(
        path=located(out),
        format=entry.name,
        records=len(dataset),
        files=files,
        bytes=size,
        lost=dict(sorted(counts.items())),
        renamed=renamed.n,
        seconds=time.perf_counter() - started,
    )


# --- what can be asked for -------------------------------------------------------------------------------------------


def _check(dataset: Dataset, entry: Format) -> None:
    """Raises UsageError: there is nothing to export, or no image files."""
    if not len(dataset):
        raise UsageError(f"{dataset.title}: holds no records; nothing was exported")
    if dataset.keeps:
        raise UsageError(f"{dataset.title}: holds numbers as they were given, no image files, which {entry.name} wants")


def _checked(entry: Format, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value. Raises UsageError."""
    taken = {name: value for name, value in options.items() if value is not None}
    for name, value in taken.items():
        option = entry.option(name)
        if option is None:
            has = ", ".join(option.name for option in entry.options)
            raise UsageError(f"{name} is none of the options of format={entry.name!r}, which has {has or 'none'}")
        if (choices := get_args(option.type)) and value not in choices:
            raise UsageError(f"{name} is {value!r}, wanted one of {', '.join(map(str, choices))}")
    return taken


def _check_left(dataset: Dataset, entry: Format, writer: Writer) -> None:
    """Raises UsageError: the format has a place for nothing that the dataset says of its images."""
    said = [kind for kind, there in _present(dataset) if there]
    if said and not any(kind in writer.holds for kind in said):
        instead = (
            "pack boxes with them" if said == [UNBOXED] else "imagefolder, webdataset and parquet have one for all"
        )
        raise UsageError(
            f"{dataset.title}: has {' and '.join(said)}, and format={entry.name!r} has no place for any of them; "
            f"{instead}"
        )


def _present(dataset: Dataset) -> Iterator[tuple[str, bool]]:
    """What a dataset says of its images."""
    store, rows = dataset.store, dataset.rows
    yield LABEL, bool((dataset.labels >= 0).any())
    yield BOXES, dataset.has_boxes and bool(store.box_counts(rows).any())
    boxed = store.says_boxes(rows) if dataset.has_keypoints else np.zeros(len(rows), bool)
    for kind, some in ((KEYPOINTS, boxed), (UNBOXED, ~boxed)):
        yield kind, dataset.has_keypoints and bool(store.keypoint_sets(rows[some]))
    for kind in (LABELS, VALUE, CAPTIONS):
        yield kind, says(dataset, kind)
    yield MASKS, kind_of_masks(dataset) is not None


def _flips(dataset: Dataset, writer: Writer) -> dict[str, int]:
    """Pairs of keypoints that a mirror swaps, where a format doesn't say them and their names don't tell."""
    if FLIP_PAIRS in writer.holds or KEYPOINTS not in writer.holds:
        return {}
    told = {frozenset(pair) for pair in mirror.pairs(dataset.keypoint_names)}
    less = [pair for pair in dataset.flip_pairs if frozenset(pair) not in told and pair[0] != pair[1]]
    return {FLIP_PAIRS: len(less)} if less else {}


def _with_numbers(record: StoredRecord) -> tuple[StoredRecord, Counter[str]]:
    """The record with None for what in its attributes is NaN or infinite, which JSON has no word for and readers refuse
    an image for; and how many these are, by attribute."""
    found: Counter[str] = Counter()
    attributes = {name: _finite(value, name, found) for name, value in record.attributes.items()}
    if not found:
        return record, found
    return replace(record, attributes={name: value for name, value in attributes.items() if value is not None}), found


def _finite(value: Any, name: str, found: Counter[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        found[f"attribute {name}"] += 1
        return None
    if isinstance(value, list):
        return [_finite(one, name, found) for one in value]
    if isinstance(value, dict):
        return {key: _finite(one, name, found) for key, one in value.items()}
    return value


# --- what comes where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Planned:
    """A record that has a name: its place in the view, and where its image goes."""

    number: int
    folder: str
    name: str


class _Renamed:
    """Counts the images that are not called as their id, and writes their names and ids, a line each."""

    def __init__(self, path: Path) -> None:
        self.path, self.n = path, 0
        self._file: Any = None

    def add(self, name: str, id_: str) -> None:
        self.n += 1
        if self._file is None:
            self._file = self.path.open("x", encoding="utf-8")
        self._file.write(json.dumps({"name": name, "id": id_}) + "\n")

    def __enter__(self) -> _Renamed:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _items(dataset: Dataset, entry: Format, writer: Writer, renamed: _Renamed) -> Iterator[_Planned]:
    names = Names(beside=entry.beside, dots=entry.dots, reserved=writer.reserved)
    store, splits = dataset.store, list(dataset.manifest.splits)
    for first in range(0, len(dataset), _PART):
        rows = dataset.rows[first : first + _PART]
        columns = (
            store.ids_of(rows),
            store.splits_of(rows).tolist(),
            store.labels[rows].tolist(),
            store.table.frame(["format"], rows)["format"].to_list(),
        )
        for number, (id_, split, label, format) in enumerate(zip(*columns, strict=True), first):
            folder = writer.place(splits[split], label)
            wanted = writer.wanted(id_, folder, label)
            name = names.take(folder, wanted, format)
            if name != wanted:
                renamed.add(f"{folder}/{name}" if folder else name, id_)
            yield _Planned(number, folder, name)


def _chunks(items: Iterator[_Planned]) -> Iterator[list[_Planned]]:
    chunk: list[_Planned] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _measured(folder: Path) -> tuple[int, int]:
    """(files, bytes) in a folder."""
    files = size = 0
    for path, _, names in os.walk(folder):
        files += len(names)
        size += sum(Path(path, name).stat().st_size for name in names)
    return files, size
