"""Packing as jobs of any scheduler: a plan in a file, parts of it packed by processes that know no other, published.

    plan(source, out, "cats.plan"); pack_part("cats.plan", 3, 64) on 64 machines; publish("cats.plan")

What parts make lies in a hidden folder beside `out` until it is published, or beside the plan where `out` is in a
store; a part that ran has nothing left to do, and may run twice at once. A plan's file holds JSON and plain arrays, no
pickles:

    8 bytes "HRPLAN01" | u64 length of the head | u32 CRC-32C of the head | the head, JSON
    for each shard: the rows' numbers int64 [m] | rows [m] (spool.ROW) | their heap
    the Rejects, a line of JSON each

and the head says where each of these begins, how long it is, and its CRC-32C. A part's result has the same form.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, TypedDict, Unpack

import google_crc32c
import numpy as np

from headrace import parallel
from headrace.errors import DamageError, DataError, HeadraceError, NotThereError, UsageError
from headrace.format import frames, manifest
from headrace.format.manifest import ShardEntry
from headrace.imaging import codec
from headrace.imaging.placement import Fit
from headrace.imaging.prepare import ImageOptions, OnWarning
from headrace.packing.budget import Budget
from headrace.packing.divided import Divided
from headrace.packing.finish import PackReport, Results, finish
from headrace.packing.pack import recipe_of
from headrace.packing.plan import Decisions, Group, Guard, Plan, ShardPlan, make_plan, numbered
from headrace.packing.shard import ShardResult
from headrace.packing.spool import ROW, Slice
from headrace.packing.task import Work, do, spoken
from headrace.place import publish as publishing
from headrace.place import stores
from headrace.place.address import Location, located
from headrace.place.local import crc32c, explained
from headrace.place.open import staging as staging_of
from headrace.progress import bar
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo
from headrace.sources.stack import InFile, Stack
from headrace.splits import Splits, split_name_fault

_PLAN, _RESULT = b"HRPLAN01", b"HRPART01"
_HEAD = struct.Struct("<8sQI")
_BLOCK = 1 << 22

_ID = re.compile("[0-9a-f]{16}")
_SHARD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*-[0-9]{5}-of-[0-9]{5}\.tfrecord")


class PlanOptions(TypedDict, total=False):
    """The options of a plan: those of `headrace.pack` that decide what is made."""

    splits: Splits | None
    group: Group | None
    guard: Guard | None
    size: int | tuple[int, int] | None
    fit: Fit
    max_side: int | None
    min_side_to: int | None
    enlarge: bool
    value_range: tuple[float, float] | None
    channels: int | None
    quality: int
    chroma: codec.Chroma
    optimize: bool
    max_pixels: int
    on_warning: OnWarning
    shards: int | None
    shard_size: int | None
    seed: int
    max_rejects: float | int
    overwrite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What was planned: `refused` of the `seen` are Rejects already; `splits`: name -> records to be made."""

    file: Path
    out: Location
    seen: int
    refused: int
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    shards: int
    bytes: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What a part did: of its `shards` so many were `made`, the others were there; `records` and `rejected` in all."""

    part: int
    parts: int
    shards: int
    made: int
    records: int
    rejected: int
    seconds: float


def plan(
    source: Iterable[Record | Reject] | Mapping[str, Iterable[Record | Reject]],
    out: str | os.PathLike[str],
    file: str | os.PathLike[str],
    **options: Unpack[PlanOptions],
) -> PlanReport:
    """Decides all of a packing of `source` to `out`, and writes it to the new `file`. See `headrace.pack`.

    Images that come as bytes lie in the file; others must be seen under the same paths by all who pack parts, and so
    must the folder of `out`, or that of the file where `out` is the URL of a store.
    Raises UsageError (an option, the file is there, arrays in memory), DataError, StorageError.
    """
    started = time.perf_counter()
    frames.check_process("plan")
    chosen: dict[str, Any] = dict(options)
    overwrite, max_rejects = bool(chosen.pop("overwrite", False)), chosen.pop("max_rejects", 0.10)
    Budget(max_rejects)
    names = {each.name for each in fields(ImageOptions)}
    images = ImageOptions(**{name: chosen.pop(name) for name in names & chosen.keys()})
    divided = {name: chosen.pop(name, None) for name in ("splits", "group", "guard", "shards", "shard_size")}
    seed = chosen.pop("seed", 0)
    if chosen:
        raise UsageError(f"{', '.join(chosen)}: no such option of a plan")
    file, out = Path(file), located(out).absolute()
    if os.path.lexists(file):
        raise UsageError(f"{file}: is there already, and parts of it may be at work; remove it, or choose another name")
    if isinstance(out, Path):
        publishing.Staging(out, overwrite=overwrite, replaceable=manifest.FILE).check()
    else:  # what is there, publishing sees, which may have other credentials
        stores.check_takes_uploads(out)
    with publishing.Scratch(file.parent, file.name) as scratch:
        made = make_plan(
            Divided(source) if isinstance(source, Mapping) else source,
            scratch / "spool",
            out=out,
            options=images,
            splits=divided["splits"],
            shards=divided["shards"],
            shard_bytes=divided["shard_size"],
            seed=seed,
            group=divided["group"],
            guard=divided["guard"],
        )
        with contextlib.closing(made):
            recipe = recipe_of(
                made,
                shards=divided["shards"],
                shard_size=divided["shard_size"],
                seed=seed,
                group=divided["group"],
                guard=divided["guard"],
            )
            said = {"out": str(out), "overwrite": overwrite, "max_rejects": max_rejects, "recipe": recipe}
            size = _write_plan(scratch, file.name, made, said)
        shutil.rmtree(scratch / "spool")
    records = Counter[str]()
    for shard in made.shards:
        records[shard.split] += len(shard)
    return PlanReport(
        file=file,
        out=out,
        seen=made.seen,
        refused=made.refused,
        splits=dict(records),
        classes=made.classes,
        box_classes=made.box_classes,
        shards=len(made.shards),
        bytes=size,
        seconds=time.perf_counter() - started,
        notes=made.notes,
    )


def pack_part(
    file: str | os.PathLike[str],
    part: int,
    parts: int,
    *,
    last: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
) -> PartReport:
    """Makes the shards of `part`, 1 to `parts`, of a plan: those that are not there yet, or not sound.

    last: an image that can't be read is a Reject, as there will be no other try. Else it is an error, as this machine
    may lack a mount that another one has. workers: threads, by default one per core.
    Raises UsageError (no such part, a plan of other versions), DamageError (of the plan), StorageError.
    """
    started = time.perf_counter()
    frames.check_process("pack_part")
    if not 1 <= part <= parts:
        raise UsageError(f"part is {part}/{parts}, wanted 1/{parts} to {parts}/{parts}")
    threads = parallel.check_workers(workers)
    made = 0
    results: list[ShardResult] = []
    with _PlanFile(Path(file)) as planned:
        folder = planned.folder
        if not folder.parent.is_dir():
            raise NotThereError(f"{folder.parent}: no such folder here; what parts make is to lie in it")
        with explained(folder):
            folder.mkdir(exist_ok=True)
        sink = publishing.FolderSink(folder)
        sink.open()
        mine = range(part - 1, len(planned.shards), parts)
        with bar(total=sum(len(planned.shards[i]) for i in mine), unit="img", desc="pack", show=progress) as ticks:
            for i in mine:
                result = planned.result(i, thorough=True)
                if result is None:
                    result = do(planned.work(i, sink), last=last, workers=threads)
                    _put_result(sink, planned, result, parts)
                    made += 1
                results.append(result)
                ticks.update(len(planned.shards[i]))
    return PartReport(
        part=part,
        parts=parts,
        shards=len(results),
        made=made,
        records=sum(result.entry.records for result in results),
        rejected=sum(result.refused for result in results),
        seconds=time.perf_counter() - started,
    )


def publish(
    file: str | os.PathLike[str],
    *,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PackReport:
    """Publishes what the parts of a plan have made, as `headrace.pack` does, to the same bytes.

    storage_options: of a URL, what obstore takes to open it.
    Raises DataError (parts are missing; too many Rejects), UsageError (`out` is in the way, a plan of other versions),
    DamageError (of the plan), StorageError.
    """
    started = time.perf_counter()
    frames.check_process("publish")
    with _PlanFile(Path(file)) as planned:
        _check_whole(planned)
        plan, folder, out = planned.decisions, planned.folder, planned.out
        publication = staging_of(
            out, overwrite=planned.overwrite, replaceable=manifest.FILE, storage_options=storage_options
        )
        with publication as staging:
            scratch = staging / ".plan"
            with explained(scratch):
                scratch.mkdir()
            with bar(total=plan.seen, unit="img", desc="publish", show=progress) as ticks:
                results = Results(plan, scratch, Budget(planned.max_rejects), ticks.update)
                results.count(map(numbered, planned.rejects().splitlines()), plan.refused)
                for i in range(len(plan.shards)):
                    result = planned.result(i)
                    if result is None:
                        raise DataError(f"{folder / plan.shards[i].name}: was there, and is gone; run its part again")
                    results.add(result)
                _put_shards(folder, publication.sink, results)
            report = finish(staging, out, plan, results, planned.recipe, below=publication.folder_name)
            shutil.rmtree(scratch)
        shutil.rmtree(folder, ignore_errors=True)
    return report(time.perf_counter() - started)


def _check_whole(planned: _PlanFile) -> None:
    """Raises DataError: results are missing; it names their parts."""
    missing, parts = list[int](), set[int]()
    for i in range(len(planned.shards)):
        count = planned.parts_of(i)
        if count is None:
            missing.append(i)
        else:
            parts.add(count)
    if not missing:
        return
    if not parts:
        is_there = isinstance(planned.out, Path) and planned.out.exists()
        raise DataError(
            f"{planned.file}: none of its {len(planned.shards)} shards is packed; run 'headrace pack-part' for all "
            f"parts, and publish again{f'; or it was published already, as {planned.out} is there' * is_there}"
        )
    if len(parts) == 1:
        (of,) = parts
        which = sorted({i % of + 1 for i in missing})
        named = f"parts {_some([f'{part}/{of}' for part in which])}"
    else:
        named = _some([planned.shards[i].name for i in missing])
    raise DataError(
        f"{planned.file}: {len(missing)} of {len(planned.shards)} shards are not packed, those of {named}; run "
        "'headrace pack-part' for them, and publish again"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _put_shards(folder: Path, sink: publishing.Sink, results: Results) -> None:
    """Puts the shards where they belong, some at once. Those in `folder` stay, until all is published. Raises
    StorageError."""
    scratch = sink.scratch()

    def put(name: str) -> None:
        _link(folder / name, scratch / name)
        sink.put(scratch / name, name)

    names = [name for result in results.in_order() for name in (result.entry.name, result.entry.index_name)]
    try:
        with contextlib.closing(parallel.ordered(put, names, workers=_PUTS, ahead=_PUTS)) as done:
            for _ in done:
                pass
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_PUTS = 8  # at once: of syncs a disk takes many better than one after the other, and uploads wait for an answer


def _link(path: Path, to: Path) -> None:
    """The same file under another name; a copy where the file system has no links. What stays behind can be published
    again. Raises StorageError."""
    with explained(path):
        try:
            to.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, to)


# --- the file of a plan ----------------------------------------------------------------------------------------------


def _write_plan(folder: Path, name: str, plan: Plan, said: Mapping[str, Any]) -> int:
    """Writes `name` in `folder`; its size. Raises UsageError (arrays in memory), StorageError."""
    stacks: dict[int, dict[str, Any]] = {}
    for code, stack in enumerate(plan.table.stacks):
        if not (isinstance(stack, Stack) and isinstance(stack.numbers, InFile) and stack.numbers.path is not None):
            raise UsageError(
                f"{getattr(stack, 'name', 'x')}: arrays in memory, or of a compressed .npz, are not for a plan, whose "
                "parts other machines pack; save them as .npy"
            )
        numbers, range_ = stack.numbers, stack.value_range
        stacks[code] = {
            "name": stack.name,
            "path": numbers.path,
            "offset": numbers.offset,
            "dtype": numbers.dtype.str,
            "shape": numbers.shape,
            "value_range": range_,
        }
    where = folder / f"{name}.shards"
    sections = []
    with explained(folder / name), where.open("w+b") as body:
        for i, shard in enumerate(plan.shards):
            rows = plan.slice(i)
            used = [stacks[plan.table.stacks.index(stack)] for stack in rows.stacks]
            place = _append(body, rows.numbers.astype("<i8").tobytes(), rows.rows, rows.heap)
            sections.append(asdict(shard) | place | {"heap": len(rows.heap), "stacks": used})
        rejects = _append(body, plan.rejects_file.read_bytes())
        kept = {each.name: getattr(plan, each.name) for each in fields(Decisions) if each.init}
        kept |= {"options": plan.options.as_json(), "info": asdict(plan.info), "shards": sections}
        head: dict[str, Any] = {
            "id": secrets.token_hex(8),
            "versions": spoken(),
            "base": str(Path.cwd()),
            "names": plan.table.names,
            "split_codes": plan.table.splits,
            "decisions": kept,
            "rejects": rejects,
        }
        body.seek(0)
        with (folder / name).open("wb") as file:
            _write_head(file, _PLAN, {**head, **said})
            shutil.copyfileobj(body, file, _BLOCK)
            size = file.tell()
    where.unlink()
    return size


def _append(file: IO[bytes], *parts: bytes) -> dict[str, int]:
    """Where a section begins, counted from the first, how long it is and its CRC-32C."""
    begin, crc = file.tell(), 0
    for part in parts:
        file.write(part)
        crc = google_crc32c.extend(crc, part)
    return {"at": begin, "bytes": file.tell() - begin, "crc32c": crc}


def _write_head(file: IO[bytes], magic: bytes, head: Mapping[str, Any]) -> None:
    text = json.dumps(head).encode()
    file.write(_HEAD.pack(magic, len(text), google_crc32c.value(text)) + text)


class _Sections:
    """A file of a head and sections, which are checked when they are read. Raises NotThereError, StorageError,
    UsageError (it is another file), DamageError."""

    def __init__(self, path: Path, magic: bytes, what: str) -> None:
        self.path, self._what = path, what
        if not path.exists():
            raise NotThereError(f"{path}: no such file")
        with explained(path):
            self._file = path.open("rb")
        try:
            with explained(path):
                self._size = os.fstat(self._file.fileno()).st_size
                begin = self._file.read(_HEAD.size)
            if len(begin) < _HEAD.size or not begin.startswith(magic):
                raise UsageError(f"{path}: is no {what}")
            _, length, crc = _HEAD.unpack(begin)
            self._first = _HEAD.size
            text = self.section({"at": 0, "bytes": length, "crc32c": crc})
            self._first += length
            self.head = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._file.close()
            if isinstance(error, HeadraceError):
                raise
            raise self.damage(error) from error
        except BaseException:
            self._file.close()
            raise

    def section(self, place: Mapping[str, Any]) -> bytes:
        at, size = int(place["at"]), int(place["bytes"])
        if at < 0 or not 0 <= size <= self._size - self._first - at:
            raise DamageError(f"{self.path}: is cut short: {size} bytes are promised from byte {self._first + at} on")
        with explained(self.path):
            data = os.pread(self._file.fileno(), size, self._first + at)
            while len(data) < size:
                more = os.pread(self._file.fileno(), size - len(data), self._first + at + len(data))
                if not more:
                    raise DamageError(f"{self.path}: was cut while it was read")
                data += more
        if google_crc32c.value(data) != place["crc32c"]:
            raise DamageError(
                f"{self.path}: damaged, the CRC-32C of {size} bytes from byte {self._first + at} is wrong"
            )
        return data

    def damage(self, error: BaseException) -> DamageError:
        return DamageError(f"{self.path}: not a sound {self._what} ({type(error).__name__}: {error})")

    def close(self) -> None:
        self._file.close()


class _PlanFile:
    """A plan as it was written, and the results of its shards. Raises as _Sections, and UsageError: other versions."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sections = _Sections(file, _PLAN, "plan of 'headrace plan'")
        try:
            self._read(self._sections.head)
        except HeadraceError:
            self._sections.close()
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._sections.close()
            raise self._sections.damage(error) from error

    def __enter__(self) -> _PlanFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._sections.close()

    def _read(self, head: Mapping[str, Any]) -> None:
        _check_kind(head, {"versions": [str]}, "head")
        if tuple(head["versions"]) != spoken():
            (headrace, python), (ours, its) = head["versions"], spoken()
            raise UsageError(
                f"{self.file}: planned by Headrace {headrace} in Python {python}, here is Headrace {ours} in Python "
                f"{its}; use the same versions, or plan again"
            )
        _check_kind(head, _KINDS, "head")
        self.id, self.out = head["id"], located(head["out"])
        self.overwrite, self.max_rejects, self.recipe = bool(head["overwrite"]), head["max_rejects"], head["recipe"]
        raw = dict(head["decisions"])
        self._places: list[Mapping[str, Any]] = raw["shards"]
        self.shards = tuple(
            ShardPlan(**{name: place[name] for name in ("name", "split", "start", "stop")}) for place in self._places
        )
        if not _ID.fullmatch(self.id) or self.out.absolute() != self.out or not self.out.name:
            raise ValueError(f"id {self.id!r:.60}, out {str(self.out)!r:.60}")
        for shard in self.shards:
            if not _SHARD.fullmatch(shard.name) or shard.stop < shard.start or split_name_fault(shard.split):
                raise ValueError(f"shard {shard.name!r:.60}")
        Budget(self.max_rejects)
        if raw["seen"] != raw["refused"] + sum(map(len, self.shards)):
            raise ValueError(f"{raw['seen']} records, {raw['refused']} refused, and those of the shards")
        raw |= {
            "options": ImageOptions.from_json(raw["options"]),
            "info": SourceInfo(**raw["info"]),
            "shards": self.shards,
            "splits": raw["splits"] if isinstance(raw["splits"], dict) else tuple(raw["splits"]),
            "flip_pairs": tuple((i, j) for i, j in raw["flip_pairs"]),
        }
        for name in ("classes", "box_classes", "attributes", "keypoint_names", "notes"):
            raw[name] = tuple(raw[name])
        self.decisions = Decisions(**raw)
        self._base = head["base"]
        self._names, self._splits = tuple(head["names"]), tuple(head["split_codes"])
        self._rejects: Mapping[str, Any] = head["rejects"]

    @property
    def folder(self) -> Path:
        """Where what parts make lies, until it is published."""
        beside = self.out if isinstance(self.out, Path) else self.file.absolute()
        return beside.parent / f".{beside.name}.parts-{self.id}"

    def rejects(self) -> bytes:
        """Lines of the Rejects that the source gave and the plan made."""
        return self._sections.section(self._rejects)

    def work(self, i: int, sink: publishing.Sink) -> Work:
        """What is to be done for shard `i`. Raises DamageError, StorageError."""
        place, n = self._places[i], len(self.shards[i])
        data = self._sections.section(place)
        try:
            rows, heap = 8 * n, (8 + ROW.itemsize) * n
            if len(data) != heap + place["heap"]:
                raise ValueError(f"{len(data)} bytes for {n} rows")
            stacks = tuple(_stack(one) for one in place["stacks"])
            numbers = np.frombuffer(data[:rows], "<i8").astype(np.int64)
            sliced = Slice(numbers, data[rows:heap], data[heap:], self._names, self._splits, stacks)
        except (KeyError, TypeError, ValueError) as error:
            raise self._sections.damage(error) from error
        return Work(decisions=self.decisions.alone(i), rows=sliced, base=self._base, sink=sink)

    def parts_of(self, i: int) -> int | None:
        """Of how many parts the one was that made shard `i`; None where it isn't there."""
        with contextlib.suppress(HeadraceError), self._opened(i) as found:
            return int(found.head["parts"])
        return None

    def result(self, i: int, *, thorough: bool = False) -> ShardResult | None:
        """The result of shard `i`, where it is there and sound; `thorough`: all bytes of the shard are read for it."""
        try:
            with self._opened(i) as found:
                raw = dict(found.head["result"])
                raw |= {name: found.section(found.head[name]) for name in _SECTIONS}
            raw["entry"] = entry = ShardEntry(**raw["entry"])
            for name in ("boxes_dropped", "keypoints_dropped"):
                raw[name] = Counter(raw[name])
            result = ShardResult(**raw)
            path = self.folder / self.shards[i].name
            sound = entry.name == path.name and path.stat().st_size == entry.bytes
            sound = sound and (self.folder / entry.index_name).stat().st_size == result.bytes_out - entry.bytes
            sound = sound and entry.records + result.refused == len(self.shards[i])
            return result if sound and (not thorough or crc32c(path) == entry.crc32c) else None
        except (HeadraceError, OSError, KeyError, TypeError, ValueError):
            return None

    @contextlib.contextmanager
    def _opened(self, i: int) -> Iterator[_Sections]:
        found = _Sections(self.folder / _result_name(self.shards[i].name), _RESULT, "result of a part")
        try:
            yield found
        finally:
            found.close()


_SECTIONS = ("rejects", "index", "catalog")


def _result_name(shard: str) -> str:
    return shard.removesuffix(".tfrecord") + ".result"


def _put_result(sink: publishing.FolderSink, planned: _PlanFile, result: ShardResult, parts: int) -> None:
    """Puts what is known of a shard beside it, after it. Raises StorageError."""
    raw = {each.name: getattr(result, each.name) for each in fields(ShardResult) if each.name not in _SECTIONS}
    head: dict[str, Any] = {"parts": parts, "result": raw | {"entry": asdict(result.entry)}}
    at = 0
    for name in _SECTIONS:
        data: bytes = getattr(result, name)
        head[name] = {"at": at, "bytes": len(data), "crc32c": google_crc32c.value(data)}
        at += len(data)
    name = _result_name(result.entry.name)
    scratch = sink.scratch()
    try:
        with explained(scratch / name), (scratch / name).open("wb") as file:
            _write_head(file, _RESULT, head)
            for section in _SECTIONS:
                file.write(getattr(result, section))
        sink.put(scratch / name, name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_kind(value: Any, kind: Any, name: str) -> None:
    """Raises ValueError: a value of JSON is not of this kind: of one of these types, a list, a dict that has these."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise ValueError(f"{name} is no list")
        for one in value:
            _check_kind(one, kind[0], name)
    elif isinstance(kind, dict):
        if not isinstance(value, dict) or kind.keys() - value.keys():
            raise ValueError(f"{name} lacks {', '.join(kind if not isinstance(value, dict) else kind.keys() - value)}")
        for key, of in kind.items():
            _check_kind(value[key], of, key)
    else:
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not fits or (kind is int and not 0 <= value < 1 << 62):
            raise ValueError(f"{name} is {value!r:.60}")


_SECTION = {"at": int, "bytes": int, "crc32c": int}
# What the head of a plan holds. It may come from anywhere, soundly signed.
_KINDS: dict[str, Any] = {
    "id": str,
    "out": str,
    "overwrite": bool,
    "max_rejects": int | float,
    "recipe": dict,
    "base": str,
    "names": [str],
    "split_codes": [str],
    "rejects": _SECTION,
    "decisions": {
        "options": dict,
        "info": dict,
        "classes": [str],
        "box_classes": [str],
        "with_boxes": bool,
        "multi_label": bool,
        "values": bool,
        "attributes": [str],
        "keypoints": int,
        "keypoint_names": [str],
        "flip_pairs": [[int]],
        "splits": dict | list,
        "shards": [
            {"name": str, "split": str, "start": int, "stop": int, "heap": int, "stacks": [dict]} | _SECTION,
        ],
        "seen": int,
        "refused": int,
        "notes": [str],
        "said": list | None,
    },
}


def _stack(raw: Mapping[str, Any]) -> Stack:
    """Images of an array in a file. Raises StorageError, ValueError."""
    kind, shape, range_ = np.dtype(raw["dtype"]), tuple(map(int, raw["shape"])), raw["value_range"]
    if kind.kind not in "buif" or min(shape, default=-1) < 0 or int(raw["offset"]) < 0:
        raise ValueError(f"an array {kind}{list(shape)}")
    with explained(str(raw["path"])):
        numbers = InFile(str(raw["path"]), int(raw["offset"]), kind, shape)
    return Stack(name=str(raw["name"]), numbers=numbers, value_range=None if range_ is None else tuple(range_))
