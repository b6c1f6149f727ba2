"""What an adoption leaves behind: index, catalog, rejects and, last of all, the manifest."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headrace.adopting.classes import Keypoints, Whole
from headrace.adopting.files import ShardFile, Skipped
from headrace.format import catalog, index, manifest
from headrace.format.index import Index, Texts
from headrace.imaging import mirror
from headrace.imaging.objects import count_faults
from headrace.imaging.prepare import ImageOptions
from headrace.place import local
from headrace.record import Reject
from headrace.version import __version__


def write(
    folder: Path,
    files: Sequence[ShardFile],
    whole: Whole,
    rejects: Sequence[Reject],
    skipped: Sequence[Skipped],
    options: ImageOptions,
    adopted: Mapping[str, Any],
    below: str,
) -> manifest.Manifest:
    """Writes the dataset of these shards into `folder`; `below`: the folder that all files but the manifest go to then.

    Raises OSError, StorageError.
    """
    write_tables(folder, files, whole)
    lines = "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects)
    (folder / manifest.REJECTS_FILE).write_bytes(lines.encode(errors="backslashreplace"))
    gaps: dict[str, list[tuple[int, int]]] = {}
    for one in skipped:
        if one.end > one.begin:
            gaps.setdefault(one.shard, []).append((one.begin, one.end))
    stored = sum(map(len, whole.files))
    tables = (index.FILE, catalog.FILE)
    promised = manifest.Manifest(
        headrace_version=__version__,
        folder=below,
        seen=stored + len(rejects),
        stored=stored,
        rejected=len(rejects),
        classes=whole.classes.names,
        box_classes=() if whole.box_classes is None else whole.box_classes.names,
        keypoints=whole.keypoints,
        keypoint_names=whole.keypoint_names,
        flip_pairs=mirror.pairs(whole.keypoint_names),
        keypoints_dropped=dict(sum((sets.dropped for sets in whole.sets), Counter[str]())),
        boxes=None if whole.box_classes is None else sum(int((one.faults == 0).sum()) for one in whole.files),
        numbered=whole.ids.numbered,
        boxes_clipped=sum(int(one.clipped.sum()) for one in whole.files),
        boxes_dropped=dict(sum((count_faults(one.faults) for one in whole.files), Counter[str]())),
        channels=max(int(one.where["channels"].max(initial=1)) for one in whole.files),
        shards=tuple(
            manifest.ShardEntry(
                name=file.name,
                split=file.split,
                records=len(columns),
                bytes=file.size,
                sha256=file.marks.hexdigest(),
                foreign=manifest.Foreign(
                    version=file.version, ends=file.ends, skipped=tuple(gaps.get(str(file.path), ()))
                ),
            )
            for file, columns in zip(files, whole.files, strict=True)
        ),
        pack_options=options.as_json(),
        schema={column: str(kind) for column, kind in catalog.SCHEMA.items()},
        files={name: local.digest(folder / name) for name in (*tables, manifest.REJECTS_FILE)},
        crc32c={name: local.crc32c(folder / name) for name in tables},
        adopted=adopted,
    )
    (folder / manifest.FILE).write_bytes(promised.to_bytes())
    return promised


def write_tables(folder: Path, files: Sequence[ShardFile], whole: Whole) -> None:
    """Index and catalog, joined of parts, so that neither is ever in memory as a whole."""
    with tempfile.TemporaryDirectory(prefix=".parts-", dir=folder) as made:
        indices: list[Path] = []
        catalogs: list[Path] = []
        for number, (rows, frame) in enumerate(_parts(files, whole)):
            indices.append(Path(made) / f"{number:06d}.index")
            catalogs.append(Path(made) / f"{number:06d}.parquet")
            with indices[-1].open("wb") as file:
                rows.write(file)
            catalogs[-1].write_bytes(catalog.to_bytes(frame))
        index.join(indices, folder / index.FILE)
        catalog.join(catalogs, folder / catalog.FILE)


def _parts(files: Sequence[ShardFile], whole: Whole) -> Iterator[tuple[Index, pl.DataFrame]]:
    """Index and catalog of rows that follow each other, of at most catalog.GROUP."""
    held: list[tuple[Index, pl.DataFrame]] = []
    for number, file in enumerate(files):
        columns = whole.files[number]
        for first in range(0, len(columns), catalog.GROUP):
            stop = min(first + catalog.GROUP, len(columns))
            if sum(len(frame) for _, frame in held) + stop - first > catalog.GROUP:
                yield _joined(held)
                held = []
            held.append(_rows(file, whole, number, first, stop))
    yield _joined(held)


def _joined(held: Sequence[tuple[Index, pl.DataFrame]]) -> tuple[Index, pl.DataFrame]:
    return index.joined([rows for rows, _ in held]), pl.concat([frame for _, frame in held])


def _rows(file: ShardFile, whole: Whole, number: int, first: int, stop: int) -> tuple[Index, pl.DataFrame]:
    """Index and catalog of the rows `first` to `stop` of a file."""
    columns, ids = whole.files[number].part(first, stop), whole.ids.ids[number][first:stop].tolist()
    where = {name: columns.where[name] for name in columns.where.dtype.names or ()}
    where["key"] = whole.ids.keys[number][first:stop]
    names = columns.files.tolist()
    rows = Index(where, Texts.of(ids), Texts.of(names) if any(names) else None)
    says = np.ones(len(columns), bool)
    kept = columns.faults == 0
    boxes = {name: pl.Series([None] * len(columns), dtype=catalog.WHAT[name]) for name in _OF_BOXES}
    if (known := whole.box_classes) is not None:
        counts = np.bincount(columns.of_boxes(np.arange(len(columns)))[kept], minlength=len(columns))
        boxes["boxes"] = catalog.lists(pl.Series(columns.boxes[kept], dtype=catalog.WHAT["boxes"].inner), counts, says)
        labels = known.index[columns.box_labels[kept & columns.of_boxes(columns.says_labels)]]
        counts = np.where(columns.says_labels, counts, 0)
        boxes["box_labels"] = catalog.lists(pl.Series(labels), counts, columns.says_labels)
        texts = pl.Series(known.names, dtype=pl.String).gather(labels)
        boxes["box_label_names"] = catalog.lists(texts, counts, columns.says_labels)
    labels = pl.Series(whole.classes.index[columns.labels])
    labels = labels.set(labels < 0, None)
    nothing = {name: pl.Series([None] * len(columns), dtype=kind) for name, kind in catalog.WHAT.items()}
    frame = pl.DataFrame(
        nothing
        | {
            "id": ids,
            "split": [file.split] * len(columns),
            "label": labels,
            "label_name": pl.Series(whole.classes.names, dtype=pl.String).gather(labels),
            **boxes,
            "keypoints": _keypoints(whole, number, first, stop),
            "origin": [f"{file.called}:{record}" for record in columns.where["record"].tolist()],
            "sha256": [digest or None for digest in columns.digests.tolist()],
        },
        schema_overrides=catalog.WHAT,
    )
    return rows, frame.select(*catalog.WHAT)


_OF_BOXES = ("boxes", "box_labels", "box_label_names")


def _keypoints(whole: Whole, number: int, first: int, stop: int) -> pl.Series:
    kind = catalog.WHAT["keypoints"]
    if not whole.keypoints:
        return pl.Series([None] * (stop - first), dtype=kind)
    all_of: Keypoints = whole.sets[number]
    before = int(all_of.counts[:first].sum())
    counts = all_of.counts[first:stop]
    sets = all_of.sets[before : before + int(counts.sum())]
    n, k, _ = sets.shape
    points = pl.Series(sets.reshape(-1, 3), dtype=kind.inner.inner)
    objects = catalog.lists(points, np.full(n, k), np.ones(n, bool))
    return catalog.lists(objects, counts, all_of.says[first:stop])
