"""Edits: labels, boxes and splits changed, records dropped and added, all of them one new version or none."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from headrace import order
from headrace.errors import DamageError, StorageError, UnknownIdError, UsageError
from headrace.format import catalog, frames, index, manifest
from headrace.format.manifest import Manifest
from headrace.format.tables import Tables
from headrace.format.versions import addressed
from headrace.imaging.objects import FAULTS, judge_boxes
from headrace.packing.plan import Group
from headrace.place import local
from headrace.place.changing import Change
from headrace.place.open import at, changing
from headrace.record import Record, Reject, check_record, name_fault
from headrace.revising.append import Appended, Shards, append
from headrace.revising.changes import Changes
from headrace.revising.commit import Author, Head, commit
from headrace.splits import Splits, check_split_name

MOST = 0.10  # of the records that a condition may hit without being asked for it
_NAMED = 100  # ids that a version names
_LABELS = ("label", "label_name", "labels", "label_names")
_OBJECTS = ("boxes", "box_labels", "box_label_names", "polygons", "runs", "keypoints", *catalog.ATTRIBUTES)


def edit(
    path: str | os.PathLike[str],
    *,
    why: str,
    by: str | None = None,
    version: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Edit:
    """`with hr.edit("cats", why="…") as e:` what is said of e becomes one new version at the good end of the block,
    and nothing where it raises.

    Shards are never touched: earlier versions stay readable, and `hr.undo` goes back. by: who edits, by default the
    user of this process. version: the one that it is meant for; another one that holds by now is a ConflictError.

    Raises UsageError, NotThereError, DamageError; at the end of the block also ConflictError (somebody edited it
    meanwhile: the message says who, when, why and what), StorageError.
    """
    return Edit(path, author=Author.of(by, why), version=version, storage_options=storage_options)


@dataclass(frozen=True, slots=True)
class _Hit:
    """Rows int64 [m], ascending, and what was said to find them."""

    rows: NDArray[np.int64]
    said: Mapping[str, Any]


class Edit:
    """An edit that is being made: see `edit`. Each verb gives the number of records that it changed.

    Which records: `ids` (a list; one alone may be a str), or those for which the SQL condition `where` holds, as of
    Dataset.where. Ids that are not there are an error, and so is a condition that holds for no record, or for more than
    a tenth of them without `yes=True`. A verb sees what those before it did, but for records that were appended.

    `version`: the number of the version that was made; None before, and where nothing differs.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        author: Author,
        version: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        path, said = addressed(path, storage_options)
        self.home = at(path, storage_options)
        self.version: int | None = None
        self._author, self._base = author, said if version is None else version
        self._stack: contextlib.ExitStack | None = None
        self._scratch: Path | None = None

    @property
    def base(self) -> int:
        """The number of the version that it is made of."""
        return self._now.version

    def __enter__(self) -> Edit:
        frames.check_process("edit")
        if self._stack is not None:
            raise UsageError("an edit is made once; begin another one")
        self._head = Head.of(self.home, self._base)
        self._now: Manifest = self._head.manifest
        self._tables = Tables(self.home, self._now.version)
        self._stack = contextlib.ExitStack()
        self._changes = Changes()
        self._what: list[dict[str, Any]] = []
        self._classes, self._box_classes = list(self._now.classes), list(self._now.box_classes)
        self._splits = list(self._now.split_records or self._now.shard_splits)
        self._live = np.arange(len(self._tables)) if self._tables.live is None else self._tables.live
        self._by_key: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None  # keys in their order, and their rows
        self._shards: list[Shards] = []
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open = False
        assert self._stack is not None
        with self._stack:
            if kind is None and self._what:
                try:
                    self.version = self._commit()
                except (DamageError, StorageError):
                    self._head.check()  # of another dataset's files nothing else can be said
                    raise

    # --- verbs -------------------------------------------------------------------------------------------------------

    def relabel(
        self,
        label: str | Sequence[str] | None,
        *,
        ids: Sequence[str] | str | None = None,
        where: str | None = None,
        yes: bool = False,
    ) -> int:
        """Gives records the class `label`, or none of it (None). One that is no class yet becomes the last one.

        Where an image may have several classes it gets these instead of its own: a name, names, or none of them ([]);
        None says nothing of it. Raises UsageError, UnknownIdError.
        """
        now = self._now
        if not now.classes and (now.boxes is not None or now.values or now.keypoints):
            has = "boxes" if now.boxes is not None else "values" if now.values else "keypoints"
            raise UsageError(f"{self.home.path}: has {has}, and no classes of images, so there is nothing to relabel")
        names = self._checked_labels(label)
        hit = self._hit(ids, where, yes)
        of = "label_names" if now.multi_label else "label_name"
        is_now = self._frame([of], hit.rows)[of]
        if now.multi_label:
            wanted: Any = None if names is None else list(names)
            same = np.array([value == wanted for value in is_now.to_list()], bool)
        else:
            wanted = names[0] if names else None
            same = is_now.is_null().to_numpy() if wanted is None else (is_now == wanted).fill_null(False).to_numpy()
        rows = hit.rows[~same]
        if len(rows):
            numbers = [self._number(self._classes, name) for name in names or ()]
            if now.multi_label:
                self._changes.set_all("labels", rows, None if names is None else numbers)
                self._changes.set_all("label_names", rows, wanted)
            else:
                self._changes.set_all("label", rows, numbers[0] if numbers else None)
                self._changes.set_all("label_name", rows, wanted)
            self._changes.set_all(catalog.EDITED, rows, True)
            self._note("relabel", hit, len(rows), label=wanted)
        return len(rows)

    def boxes(
        self,
        id: str,
        boxes: ArrayLike,
        labels: Sequence[str] | None = None,
        *,
        of: Sequence[int | None] | None = None,
    ) -> int:
        """Gives the record `id` these boxes [n, 4] = x0, y0, x1, y1 in pixels of the stored image, and their classes.

        A box that reaches out of the image is cut to it. Without labels the boxes keep theirs, if they are as many.
        What else is said of a box (mask, keypoints, flags) stays with it: with the i-th one where they are as many,
        else with one that is the same; a new one has none. of: which one it stays with, if that is known: the number of
        the box before, None for a new one. Raises UsageError, UnknownIdError.
        """
        hit = self._hit([id], None, False)
        (row,) = hit.rows.tolist()
        old = self._frame([*_OBJECTS, "attributes"], hit.rows).row(0, named=True)
        if old["keypoints"] is not None and old["boxes"] is None:
            raise UsageError(f"{id!r}: its objects have keypoints and no boxes; they can't be given any here")
        known = old["box_label_names"]
        if labels is None and of is not None and known is not None and all(_is_one(j, len(known)) for j in of):
            labels = [known[j] for j in of if j is not None]
        given, names = self._checked_boxes(id, row, boxes, labels, old)
        n, before = len(given), np.array(old["boxes"] or [], np.float32).reshape(-1, 4)
        source = _paired(given, before) if of is None else _checked_of(id, of, n, len(before))
        numbers = None if names is None else [self._number(self._box_classes, name) for name in names]
        new: dict[str, Any] = {"boxes": given, "box_labels": numbers, "box_label_names": names}
        for name in ("polygons", "runs", *catalog.ATTRIBUTES):
            new[name] = None if old[name] is None else [None if j is None else old[name][j] for j in source]
        absent = [[0.0, 0.0, 0.0]] * self._now.keypoints
        points = old["keypoints"]
        new["keypoints"] = None if points is None else [absent if j is None else points[j] for j in source]
        said = catalog.attributes(old["attributes"])
        for name, value in said.items():
            if source != list(range(len(before))) and isinstance(value, list) and len(value) == len(before) and value:
                said[name] = [None if j is None else value[j] for j in source]
        new["attributes"] = catalog.attributes_text(said)
        made = {name: catalog.column_of(name, [value]) for name, value in new.items() if name in _ARRAYS}
        made |= {name: pl.Series(name, [value], catalog.WHAT[name]) for name, value in new.items() if name not in made}
        changed = [name for name, series in made.items() if series.to_list()[0] != old[name]]
        if not changed:
            return 0
        for name in changed:
            self._changes.set(name, hit.rows, made[name])
        self._changes.set_all(catalog.EDITED, hit.rows, True)
        self._note("boxes", hit, 1)
        return 1

    def drop(self, *, ids: Sequence[str] | str | None = None, where: str | None = None, yes: bool = False) -> int:
        """Leaves records out, from this version on. Raises UsageError, UnknownIdError."""
        hit = self._hit(ids, where, yes)
        if len(hit.rows) == len(self._live):
            raise UsageError(f"{self.home.path}: no record would be left")
        self._changes.set_all(catalog.DROPPED, hit.rows, True)
        left = np.zeros(len(self._tables), bool)
        left[self._live] = True
        left[hit.rows] = False
        self._live = np.flatnonzero(left)
        self._by_key = None
        self._note("drop", hit, len(hit.rows))
        return len(hit.rows)

    def move(
        self, split: str, *, ids: Sequence[str] | str | None = None, where: str | None = None, yes: bool = False
    ) -> int:
        """Moves records to a split, which may be a new one. Raises UsageError, UnknownIdError."""
        check_split_name(split)
        hit = self._hit(ids, where, yes)
        rows = hit.rows[(self._frame(["split"], hit.rows)["split"] != split).to_numpy()]
        if len(rows):
            self._number(self._splits, split)
            self._changes.set_all("split", rows, split)
            self._note("move", hit, len(rows), split=split)
        return len(rows)

    def append(
        self,
        source: Iterable[Record | Reject] | Mapping[str, Iterable[Record | Reject]],
        *,
        splits: Splits | None = None,
        group: Group | None = None,
        max_rejects: float | int = 0.10,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Appended:
        """Adds the records of a source, in new shards, prepared as those that are there were (size, quality, …).

        splits, group, max_rejects, workers, progress: as of `pack`; by default records go to the split that they say,
        else to "train". Classes that are new come after those there are. A record whose id is there already is a
        Reject, unless that was dropped. Raises UsageError (it does not fit), DataError, StorageError.
        """
        self._check_open()
        scratch, nth = self._scratch_folder(), len(self._shards)
        named = f"v{self._now.version + 1:04d}{self._change.tag}{f'-{nth}' if nth else ''}"
        folder, appended = scratch / f"append-{nth}", self._appended_ids()
        with local.explained(scratch), contextlib.ExitStack() as failed:
            failed.callback(shutil.rmtree, folder, ignore_errors=True)  # whoever catches it may append others
            made = append(
                source,
                folder,
                self._now,
                classes=tuple(self._classes),
                box_classes=tuple(self._box_classes),
                has=lambda id_: id_ in appended or self._has(id_),
                path=self.home.path,
                splits=splits,
                group=group,
                max_rejects=max_rejects,
                workers=workers,
                progress=progress,
                named=named,
            )
            failed.pop_all()
        self._classes, self._box_classes = list(made.classes), list(made.box_classes)
        for split in made.report.splits:
            self._number(self._splits, split)
        self._shards.append(made)
        self._what.append({"op": "append", "count": made.report.stored, "rejected": len(made.report.rejects)})
        return made.report

    # --- which records ------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._stack is None or not self._open:
            raise UsageError("an edit is made in its block: with hr.edit(…) as e: e.relabel(…)")

    def _hit(self, ids: Sequence[str] | str | None, where: str | None, yes: bool) -> _Hit:
        """The rows that are meant. Raises UsageError, UnknownIdError."""
        self._check_open()
        if (ids is None) == (where is None):
            raise UsageError("wanted either ids=[…] or where='…': which records are meant")
        if ids is not None:
            if not isinstance(ids, Iterable):
                raise UsageError(f"ids is {ids!r:.60}, wanted strings")
            every = [ids] if isinstance(ids, str) else list(ids)
            if not every:
                raise UsageError("ids is empty, wanted one at least")
            for one in every:
                if not isinstance(one, str):
                    raise UsageError(f"ids has {one!r:.60}, wanted strings")
            named = list(dict.fromkeys(every))
            return _Hit(np.sort(self._rows_of(named)), {"ids": named[:_NAMED]})
        assert where is not None
        rows = self._where(where)
        if not len(rows):
            raise UsageError(f"where({where!r:.300}) holds for none of {len(self._live)} records")
        if len(rows) > MOST * len(self._live) and not yes:
            raise UsageError(
                f"where({where!r:.300}) holds for {len(rows)} of {len(self._live)} records; pass yes=True if all of "
                "these are meant"
            )
        return _Hit(rows, {"where": where})

    def _where(self, condition: str) -> NDArray[np.int64]:
        asked = self._tables.asked(condition)
        if not self._changes.among(asked):
            return self._live[self._tables.where(condition, self._live)]
        return self._live[catalog.where(self._frame(asked, self._live), condition)]

    def _frame(self, columns: Sequence[str], rows: NDArray[np.int64]) -> pl.DataFrame:
        """These columns of some rows, as they are by now."""
        if len(rows) == 1:
            of = self._tables.row(int(rows[0]))
            schema = {name: catalog.SCHEMA[name] for name in columns if name in catalog.SCHEMA}
            frame = pl.DataFrame({name: [of[name]] for name in columns}, schema_overrides=schema)
        else:
            frame = self._tables.frame(columns, rows)
        if not self._changes.among(columns):
            return frame
        with_rows = frame.with_columns(row=pl.Series(rows, dtype=pl.Int64)).lazy()
        return catalog.changed(with_rows, self._changes.frames(columns)).select(columns).collect()

    def _rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The rows of these ids. Raises UnknownIdError."""
        if self._by_key is None:
            keys = self._tables.index["key"][self._live]
            by_key = np.argsort(keys, kind="stable")
            self._by_key = keys[by_key], self._live[by_key]
        sorted_keys, by_key = self._by_key
        wanted = order.keys_of(ids)
        begins, ends = (np.searchsorted(sorted_keys, wanted, side=side) for side in ("left", "right"))
        rows = np.full(len(ids), -1, np.int64)
        once = ends - begins == 1
        rows[once] = by_key[begins[once]]
        found = self._tables.ids(rows[once])
        right = np.array([a == b for a, b in zip(np.array(ids, object)[once], found, strict=True)], bool)
        rows[np.flatnonzero(once)[~right]] = -1
        for i in np.flatnonzero(ends - begins > 1).tolist():  # two ids of one key
            for row in by_key[begins[i] : ends[i]].tolist():
                if self._tables.ids(np.array([row])) == (ids[i],):
                    rows[i] = row
        if (rows < 0).any():
            missing = [ids[i] for i in np.flatnonzero(rows < 0).tolist()]
            shown = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
            (like,) = self._tables.ids(self._live[:1])
            raise UnknownIdError(
                f"{self.home.path}: no record {shown} ({len(missing)} of {len(ids)} ids); they are like {like!r}"
            )
        return rows

    def _appended_ids(self) -> set[str]:
        """Of the records that this edit has appended so far."""
        parts = [path for shards in self._shards for path in shards.catalogs]
        return {id_ for path in parts for id_ in catalog.ids_of(path)}

    def _has(self, id_: str) -> bool:
        try:
            return len(self._rows_of([id_])) == 1
        except UnknownIdError:
            return False

    # --- what is said of them -----------------------------------------------------------------------------------------

    def _checked_labels(self, label: Any) -> tuple[str, ...] | None:
        """The names of classes. Raises UsageError."""
        if label is None:
            return None
        if isinstance(label, str):
            names: tuple[Any, ...] = (label,)
        elif self._now.multi_label and isinstance(label, Sequence):
            names = tuple(label)
        else:
            wanted = "the names of classes" if self._now.multi_label else "the name of a class"
            raise UsageError(f"label is {label!r:.60}, wanted {wanted}, or None")
        for name in names:
            if fault := name_fault(name):
                raise UsageError(f"label: {fault}")
        if len(set(names)) != len(names):
            raise UsageError(f"label is {', '.join(names)}: one occurs twice")
        return names

    def _checked_boxes(
        self, id_: str, row: int, boxes: ArrayLike, labels: Sequence[str] | None, old: Mapping[str, Any]
    ) -> tuple[NDArray[np.float32], list[str] | None]:
        """Boxes as they are stored, and their classes. Raises UsageError."""
        try:
            given = np.asarray(boxes, np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"boxes of {id_!r} are {boxes!r:.60}, wanted numbers [n, 4]") from None
        given = given.reshape(0, 4) if given.size == 0 else given
        if labels is None and old["box_label_names"] is not None and len(given) == len(old["box_label_names"]):
            labels = old["box_label_names"]
        if labels is None and self._box_classes and len(given):
            raise UsageError(
                f"boxes of {id_!r}: labels are wanted, of {', '.join(self._box_classes[:20])}, or a new one"
            )
        if isinstance(labels, str) or not isinstance(labels, Iterable | None):
            raise UsageError(f"labels is {labels!r:.60}, wanted a name for each of {len(given)} boxes")
        names = None if labels is None else tuple(labels)
        names = () if names is None and self._box_classes else names
        if fault := check_record(Record(id=id_, encoded=b"", boxes=given, box_labels=names)):
            raise UsageError(f"boxes of {id_!r}: {fault}")
        height, width = (float(self._tables.index[side][row]) for side in ("height", "width"))
        judged = judge_boxes(given, np.array([0, 0, width, height], np.float32))
        for i in np.flatnonzero(~judged.kept).tolist():
            raise UsageError(
                f"boxes of {id_!r}: box {i} is {given[i].tolist()}, {FAULTS[judged.faults[i]]} ({width:g} x {height:g} "
                "pixels)"
            )
        return judged.boxes, None if names is None else list(names)

    @staticmethod
    def _number(names: list[str], name: str) -> int:
        """The number of a class, or of a split, which may be new."""
        if name not in names:
            names.append(name)
        return names.index(name)

    def _note(self, op: str, hit: _Hit, count: int, **to: Any) -> None:
        self._what.append({"op": op, **to, **hit.said, "count": count})

    # --- the version --------------------------------------------------------------------------------------------------

    @property
    def _change(self) -> Change:
        self._scratch_folder()
        return self._changing

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            assert self._stack is not None
            self._changing = changing(self.home, manifest.FILE)
            self._scratch = self._stack.enter_context(self._changing)
        return self._scratch

    def _commit(self) -> int:
        scratch, now, tables = self._scratch_folder(), self._now, self._tables
        tag = f"{now.version + 1:04d}{self._change.tag}"
        names = {"catalog": f"catalog-{tag}.parquet", "index": now.index, "rejects": now.rejects}
        files = {"catalog": names["catalog"]}
        more = [path for shards in self._shards for path in shards.catalogs]
        with local.explained(scratch):
            tables.revise(self._changes.frames(), more, scratch / "catalog")
            if self._shards:
                names |= {"index": f"headrace-{tag}.index", "rejects": f"rejects-{tag}.jsonl"}
                files |= {"index": names["index"], "rejects": names["rejects"]}
                known = tables.place.whole(now.index, now.files[now.index])
                if known != tables.place.path / now.index and local.crc32c(known) != now.crc32c[now.index]:
                    known = tables.place.whole(now.index, now.files[now.index], anew=True)  # the copy was damaged
                index.join([known, *(path for one in self._shards for path in one.indices)], scratch / "index")
                rejects = tables.rejects() + b"".join(one.rejects for one in self._shards)
                (scratch / "rejects").write_bytes(rejects)
                files |= {str(path.relative_to(scratch)): path.name for one in self._shards for path in one.files}
            digests = {
                names[name]: local.digest(scratch / name) for name in ("catalog", "index", "rejects") if name in files
            }
            crcs = {names[name]: local.crc32c(scratch / name) for name in ("catalog", "index") if name in files}
        gone = {name for kind in ("catalog", "index", "rejects") if (name := getattr(now, kind)) not in names.values()}
        reports = [shards.report for shards in self._shards]
        stored = sum(report.stored for report in reports)
        refused = sum(len(report.rejects) for report in reports)
        made = replace(
            now,
            index=names["index"],
            catalog=names["catalog"],
            rejects=names["rejects"],
            files={name: sha for name, sha in now.files.items() if name not in gone} | digests,
            crc32c={name: crc for name, crc in now.crc32c.items() if name not in gone} | crcs,
            classes=tuple(self._classes),
            box_classes=tuple(self._box_classes),
            seen=now.seen + stored + refused,
            stored=now.stored + stored,
            rejected=now.rejected + refused,
            shards=(*now.shards, *(entry for shards in self._shards for entry in shards.entries)),
            channels=max([now.channels, *(shards.channels for shards in self._shards)]),
            dropped=len(tables) - len(self._live),
            split_records=self._split_records(),
            boxes=self._count_boxes(),
            **_summed(now, self._shards),
        )
        return commit(self._change, scratch, self._head, made, files, self._author, self._what)

    def _split_records(self) -> dict[str, int] | None:
        """Records per split, None where shards say it."""
        if len(self._live) == len(self._tables) and not self._changes.among(["split"]) and not self._now.split_records:
            return None
        found = self._frame(["split"], self._live)["split"].value_counts()
        counts = dict.fromkeys(self._splits, 0) | dict(found.iter_rows())
        for shards in self._shards:
            for split, n in shards.report.splits.items():
                counts[split] += n
        return counts

    def _count_boxes(self) -> int | None:
        """How many there are, None where nothing is said of any."""
        now, added = self._now.boxes, [shards.boxes for shards in self._shards if shards.boxes is not None]
        if now is None and not added and not self._changes.among(["boxes"]):
            return None
        if self._changes.among(["boxes", catalog.DROPPED]):
            now = int(self._frame(["boxes"], self._live)["boxes"].list.len().sum())
        return (now or 0) + sum(added)


_ARRAYS = ("boxes", "box_labels", "box_label_names")


def _paired(given: NDArray[np.float32], before: NDArray[np.float32]) -> list[int | None]:
    """Which of the boxes `before` [m, 4] each one given [n, 4] is: see Edit.boxes."""
    if len(given) == len(before):
        return list(range(len(given)))
    free, found = list(range(len(before))), []
    for box in given:
        same = next((j for j in free if np.array_equal(before[j], box)), None)
        found.append(same)
        if same is not None:
            free.remove(same)
    return found


def _is_one(j: object, n: int) -> bool:
    """Whether it is the number of one of n boxes."""
    return type(j) is int and 0 <= j < n


def _checked_of(id_: str, of: Sequence[int | None], n: int, before: int) -> list[int | None]:
    """The same as it was said. Raises UsageError."""
    known = [j for j in of if j is not None]
    right = all(_is_one(j, before) for j in known)
    if len(of) != n or not right or len(set(known)) != len(known):
        raise UsageError(
            f"boxes of {id_!r}: of is {list(of)!r:.60}, wanted for each of {n} boxes None, or the number of another "
            f"one of the {before} before"
        )
    return list(of)


def _summed(now: Manifest, added: Sequence[Shards]) -> dict[str, Any]:
    """What manifests count, with what the new shards add."""
    out: dict[str, Any] = {"boxes_clipped": now.boxes_clipped + sum(one.boxes_clipped for one in added)}
    for name in ("boxes_dropped", "keypoints_dropped"):
        total = dict(getattr(now, name))
        for one in added:
            for reason, n in getattr(one, name).items():
                total[reason] = total.get(reason, 0) + n
        out[name] = total
    return out
