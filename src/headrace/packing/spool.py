"""The spool: what a source gave, on disk: a row of fixed width for each Record and Reject, and a heap for the rest.

Written once, in the source's order; read by row, from any thread and process that sees the folder; a Slice is some of
its rows in memory, for who sees none. It is scratch: only the version that wrote it reads it. What is decided of its
rows is left to plan.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import struct
import weakref
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from headrace import order
from headrace.errors import UsageError
from headrace.record import Frames, Mask, Part, Record, Reject, plain

# What of a row lies in the heap, in this order, from byte `begin` on; each has its length there, or -1 for None.
_TEXTS = ("id", "origin", "path", "container")
_HEAP = (*_TEXTS, "boxes", "keypoints", "more", "encoded")

# `hash` of the id; `label` is a number for all labels of a record that may have several; `number` of the image in its
# `stack`; `offset` and `size` in bytes of a Part; `group`: a number that equal groups have in common; `name` and
# `split` are codes, -1 for None; `points`: keypoints per object, -1 without any.
ROW = np.dtype(
    [(name, "<i8") for name in ("begin", "encoded", "hash", "label", "number", "offset", "size", "group")]
    + [(name, "<i4") for name in (*_HEAP[:-1], "stack", "name", "split", "points")]
    + [("flags", "u1"), ("unused", "u1", 3)]
)
_ROW = struct.Struct("<8q11iB3x")
REJECT, LABELLED, PREFIXED, GROUPED, SEVERAL = 1, 2, 4, 8, 16

_BLOCK = 1 << 16  # rows


class Flat:
    """A file of values of one type, read from any thread by their numbers. Pickles as its path. Raises OSError.

    It is open until `close`, or until nobody has it any more.
    """

    def __init__(self, path: Path, kind: DTypeLike) -> None:
        self.path, self.kind = path, np.dtype(kind)
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.close = weakref.finalize(self, os.close, self._handle)

    def bytes(self, start: int, stop: int) -> bytes:
        """Those of values `start` to `stop`."""
        at, end = start * self.kind.itemsize, stop * self.kind.itemsize
        found = os.pread(self._handle, end - at, at)
        while len(found) < end - at:  # one call gives 2 GB at most
            more = os.pread(self._handle, end - at - len(found), at + len(found))
            if not more:
                raise OSError(f"{self.path}: ends at byte {at + len(found)}, wanted {end}")
            found += more
        return found

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Values [stop - start], read-only."""
        return np.frombuffer(self.bytes(start, stop), self.kind)

    def __reduce__(self) -> Any:
        return Flat, (self.path, self.kind)


class Values:
    """Values of one type in memory, read as those of a Flat are."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def bytes(self, start: int, stop: int) -> bytes:
        return self.values[start:stop].tobytes()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.values[start:stop]

    def close(self) -> None:
        pass


class Rows:
    """What is read of rows, wherever they lie. `names` and `splits` are what their codes stand for, `stacks` where
    pixels come from."""

    names: tuple[str, ...]
    splits: tuple[str, ...]
    stacks: tuple[Frames, ...]
    _rows: Flat | Values
    _heap: Flat | Values

    def __getitem__(self, row: int) -> Record | Reject:
        """The Record or Reject as the source gave it, its bytes too. Raises OSError."""
        (begin, encoded, _, label, number, offset, size, _), lengths, (stack, name, split, _, flags) = self._row(row)
        lengths = (*lengths, encoded)
        heap = self._heap.bytes(begin, begin + sum(length for length in lengths if length > 0))
        at, found = 0, dict[str, Any]()
        for field, length in zip(_HEAP, lengths, strict=True):
            found[field] = None if length < 0 else heap[at : at + length]
            at += max(length, 0)
        id_, origin, path, container = (None if found[one] is None else _text(found[one]) for one in _TEXTS)
        more: dict[str, Any] = {} if found["more"] is None else json.loads(found["more"])
        if flags & REJECT:
            return Reject(id=str(id_), origin=str(origin), **more["attributes"])
        id_, origin = self._named(str(id_), str(origin), split, flags)
        return Record(
            id=id_,
            encoded=found["encoded"],
            path=path,
            part=None if container is None else Part(container, offset, size),
            pixels=None if stack < 0 else self.stacks[stack].frame(number),
            label=label if flags & LABELLED else None,
            label_name=None if name < 0 else self.names[name],
            labels=_as_tuple(more.get("labels")),
            value=more.get("value"),
            captions=_as_tuple(more.get("captions")),
            boxes=_as_array(found["boxes"]),
            box_labels=_as_tuple(more.get("box_labels")),
            masks=_as_masks(more.get("masks")),
            keypoints=_as_array(found["keypoints"]),
            size=_as_tuple(more.get("size")),
            upright=more.get("upright", False),
            window=_as_tuple(more.get("window")),
            attributes=more.get("attributes", {}),
            split=None if split < 0 else self.splits[split],
            group=more.get("group"),
            origin=origin,
        )

    def named(self, row: int) -> tuple[str, str]:
        """(id, origin) of a row."""
        (begin, *_), lengths, (*_, split, _, flags) = self._row(row)
        heap = self._heap.bytes(begin, begin + lengths[0] + lengths[1])
        return self._named(_text(heap[: lengths[0]]), _text(heap[lengths[0] :]), split, flags)

    def _place(self, row: int) -> int:
        """Where among the rows the row of this number lies."""
        return row

    def _row(self, row: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        values = _ROW.unpack(self._rows.bytes(place := self._place(row), place + 1))
        return values[:8], values[8:15], values[15:]

    def _named(self, id_: str, origin: str, split: int, flags: int) -> tuple[str, str]:
        if not flags & PREFIXED:
            return id_, origin
        prefixed = f"{self.splits[split]}/{id_}"
        return prefixed, prefixed if origin == id_ else origin


class Table(Rows):
    """The rows of a spool.

    Pickles as its folder: rows are read where they lie, only arrays in memory travel along.
    """

    def __init__(
        self, folder: Path, n: int, names: tuple[str, ...], splits: tuple[str, ...], stacks: tuple[Frames, ...]
    ) -> None:
        self.folder, self.n, self.names, self.splits, self.stacks = folder, n, names, splits, stacks
        self._rows, self._heap = Flat(folder / "rows", ROW), Flat(folder / "heap", np.uint8)

    def __len__(self) -> int:
        return self.n

    def close(self) -> None:
        """Lets go of the files: a disk that they are on is busy with them, full or not."""
        self._rows.close()
        self._heap.close()

    def __reduce__(self) -> Any:
        return Table, (self.folder, self.n, self.names, self.splits, self.stacks)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """All rows [m] of ROW, some at a time, and which they are."""
        for start in range(0, self.n, _BLOCK):
            stop = min(self.n, start + _BLOCK)
            yield slice(start, stop), self._rows.read(start, stop)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows, [n]."""
        out = np.empty(self.n, ROW[name])
        for where, rows in self.blocks():
            out[where] = rows[name]
        return out

    def prefix(self, rows: NDArray[np.int64]) -> None:
        """From now on these rows have their split in front of their id."""
        found = np.memmap(self.folder / "rows", ROW, "r+")
        found["flags"][rows] |= PREFIXED
        found.flush()

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of these rows, many at a time."""
        if not len(rows):
            return []
        found = np.memmap(self.folder / "rows", ROW, "r")[rows]
        begins, ends = found["begin"].tolist(), (found["begin"] + found["id"]).tolist()
        with (self.folder / "heap").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as heap:
            ids = [_text(heap[begin:end]) for begin, end in zip(begins, ends, strict=True)]
        prefixed = (found["flags"] & PREFIXED) != 0
        for i in np.flatnonzero(prefixed).tolist():
            ids[i] = f"{self.splits[found['split'][i]]}/{ids[i]}"
        return ids

    def slice(self, rows: NDArray[np.int64]) -> Slice:
        """These rows alone, with all that lies in the heap for them, and the pixels of no file. Raises OSError."""
        # Read, not mapped: the pages of a map, all of them in the end, would count as memory of this process.
        found = np.frombuffer(b"".join(self._rows.bytes(row, row + 1) for row in rows.tolist()), ROW).copy()
        begins = found["begin"].copy()
        sizes = sum((np.maximum(found[name], 0).astype(np.int64) for name in _HEAP), np.zeros(len(rows), np.int64))
        heap = b"".join(
            self._heap.bytes(begin, begin + size) for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True)
        )
        found["begin"] = np.cumsum(sizes) - sizes
        stacks: list[Frames] = []
        for code in np.unique(found["stack"][found["stack"] >= 0]).tolist():
            of = found["stack"] == code
            stack, numbers = self.stacks[code].taken(found["number"][of])
            found["number"][of], found["stack"][of] = numbers, len(stacks)
            stacks.append(stack)
        return Slice(rows, found.tobytes(), heap, self.names, self.splits, tuple(stacks))


class Slice(Rows):
    """Some rows of a table in memory, under the `numbers` int64 [m] that they have there. Pickles whole."""

    def __init__(
        self,
        numbers: NDArray[np.int64],
        rows: bytes,
        heap: bytes,
        names: tuple[str, ...],
        splits: tuple[str, ...],
        stacks: tuple[Frames, ...],
    ) -> None:
        self.numbers, self.rows, self.heap = numbers, rows, heap
        self.names, self.splits, self.stacks = names, splits, stacks
        self._rows, self._heap = Values(np.frombuffer(rows, ROW)), Values(np.frombuffer(heap, np.uint8))
        self._places = {number: place for place, number in enumerate(numbers.tolist())}

    def __reduce__(self) -> Any:
        return Slice, (self.numbers, self.rows, self.heap, self.names, self.splits, self.stacks)

    def _place(self, row: int) -> int:
        return self._places[row]


class Spool:
    """Writes a Table into a new `folder`. `folders`: those that images of the source lie in. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.folders: set[str] = set()
        self._rows, self._heap = (folder / "rows").open("wb"), (folder / "heap").open("wb")
        self._names: dict[str, int] = {}
        self._splits: dict[str, int] = {}
        self._stacks: dict[int, tuple[int, Frames]] = {}  # each is kept, so that its address stays its own
        self._end = self._heap.write(b"\0")  # a map of it wants a byte at least
        self._n = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._rows.close()
        finally:  # on a full disk neither can be closed without an error
            self._heap.close()

    def table(self) -> Table:
        """What was written."""
        self._rows.flush()
        self._heap.flush()
        stacks = tuple(stack for _, stack in self._stacks.values())
        return Table(self.folder, self._n, tuple(self._names), tuple(self._splits), stacks)

    def write(self, items: Sequence[Record | Reject]) -> None:
        """Rows for these. Raises UsageError: attributes that are no JSON."""
        rows = np.zeros(len(items), ROW)
        rows["flags"] = [REJECT if isinstance(item, Reject) else 0 for item in items]
        records = [_as_record(item) if isinstance(item, Reject) else item for item in items]
        self._write_heap(records, rows)
        rows["hash"] = hashes([record.id for record in records])
        rows["name"] = _codes([record.label_name for record in records], self._names)
        rows["split"] = _codes([record.split for record in records], self._splits)
        rows["stack"] = rows["points"] = -1
        labels = [record.label for record in records]
        if not _all_none(labels):
            rows["label"] = [label or 0 for label in labels]
            rows["flags"] |= np.array([label is not None for label in labels], np.uint8) * LABELLED
        if not _all_none(several := [record.labels for record in records]):
            # Which of them a record has, as one number: what dividing looks at.
            keys = order.keys_of(["\n".join(sorted(labels or ())) for labels in several]).view(np.int64)
            says = np.array([labels is not None for labels in several])
            rows["label"][says] = keys[says]
            rows["flags"] |= says.astype(np.uint8) * SEVERAL
        if not _all_none(groups := [record.group for record in records]):
            rows["group"] = order.keys_of([group or "" for group in groups]).view(np.int64)
            rows["flags"] |= np.array([group is not None for group in groups], np.uint8) * GROUPED
        if not _all_none(keypoints := [record.keypoints for record in records]):
            rows["points"] = [-1 if points is None else points.shape[1] for points in keypoints]
        if not _all_none(parts := [record.part for record in records]):
            rows["offset"] = [0 if part is None else part.offset for part in parts]
            rows["size"] = [0 if part is None else part.length for part in parts]
        if not _all_none(drawn := [record.pixels for record in records]):
            rows["stack"] = [-1 if pixels is None else self._stack(pixels.stack) for pixels in drawn]
            rows["number"] = [0 if pixels is None else pixels.number for pixels in drawn]
            self._look([None if pixels is None else pixels.path for pixels in drawn])
        self._rows.write(rows.tobytes())
        self._n += len(rows)

    def _write_heap(self, records: Sequence[Record], rows: NDArray[Any]) -> None:
        paths = [record.path for record in records]
        containers = [None if record.part is None else record.part.path for record in records]
        self._look(paths)
        self._look(containers)
        columns: dict[str, Sequence[bytes | None]] = {
            "id": _texts([record.id for record in records]),
            "origin": _texts([record.origin for record in records]),
            "path": _texts(paths),
            "container": _texts(containers),
            "boxes": [None if (boxes := record.boxes) is None else _array_bytes(boxes) for record in records],
            "keypoints": [None if (found := record.keypoints) is None else _array_bytes(found) for record in records],
            "more": [_more(record) for record in records],
            "encoded": [record.encoded for record in records],
        }
        sizes = np.zeros(len(records), np.int64)
        present: list[Sequence[bytes]] = []
        for name, column in columns.items():
            if _all_none(column):
                rows[name] = -1
                continue
            lengths = np.array([-1 if value is None else len(value) for value in column], np.int64)
            rows[name] = lengths
            sizes += np.maximum(lengths, 0)
            present.append([value or b"" for value in column])
        ends = np.cumsum(sizes)
        rows["begin"] = self._end + ends - sizes
        self._heap.write(b"".join(chain.from_iterable(zip(*present, strict=True))))
        self._end += int(ends[-1])

    def _look(self, paths: Sequence[str | None]) -> None:
        """Remembers the folders of these."""
        if not _all_none(paths):
            self.folders.update({path.rpartition(os.sep)[0] for path in paths if path is not None})

    def _stack(self, stack: Frames) -> int:
        return self._stacks.setdefault(id(stack), (len(self._stacks), stack))[0]


def hashes(ids: Sequence[str]) -> list[int]:
    """A number of 64 bits for each id, that equal ones have in common in this process."""
    return list(map(hash, ids))


def _as_record(reject: Reject) -> Record:
    return Record(id=reject.id, origin=reject.origin, attributes={"stage": reject.stage, "reason": reject.reason})


def _all_none(values: Sequence[object]) -> bool:
    return all(value is None for value in values)


def _codes(values: Sequence[str | None], codes: dict[str, int]) -> list[int]:
    """A number for each value, -1 for None; the next one for one that has none yet."""
    return [-1 if value is None else codes.setdefault(value, len(codes)) for value in values]


def _texts(values: Sequence[str | None]) -> list[bytes | None]:
    """UTF-8 of texts; the bytes of a path that are none are surrogates in it, and stay what they are."""
    try:
        return [None if value is None else value.encode() for value in values]
    except UnicodeEncodeError:
        return [None if value is None else value.encode(errors="surrogatepass") for value in values]


def _text(data: bytes) -> str:
    return data.decode(errors="surrogatepass")


def _array_bytes(array: NDArray[Any]) -> bytes:
    return _head(array.dtype, array.shape) + array.tobytes()


@functools.lru_cache(256)
def _head(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    return f"{kind.str} {' '.join(map(str, shape))}\n".encode()


def _as_array(data: bytes | None) -> NDArray[Any] | None:
    if data is None:
        return None
    head, _, values = data.partition(b"\n")
    kind, *shape = head.decode().split()
    return np.frombuffer(values, kind).reshape([*map(int, shape)]).copy()


def _as_tuple(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)


# What few records have, and what has no fixed width.
_MORE = ("box_labels", "size", "window", "labels", "value", "captions", "group")


def _more(record: Record) -> bytes | None:
    """JSON of it, None where there is none."""
    more: dict[str, Any] = {name: value for name in _MORE if (value := getattr(record, name)) is not None}
    if record.upright:
        more["upright"] = True
    if record.attributes:
        more["attributes"] = dict(record.attributes)
    if record.masks is not None:
        more["masks"] = [None if mask is None else [mask.polygons, mask.runs, mask.size] for mask in record.masks]
    if not more:
        return None
    try:
        return _json(more).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"record {record.id!r}: its attributes are no JSON: {error}") from error


def _as_masks(values: list[Any] | None) -> tuple[Mask | None, ...] | None:
    return None if values is None else tuple(None if value is None else _as_mask(*value) for value in values)


def _as_mask(polygons: list[Any], runs: list[int] | None, size: list[int] | None) -> Mask:
    return Mask(
        polygons=tuple(np.array(polygon, np.float32).reshape(-1, 2) for polygon in polygons),
        runs=None if runs is None else np.array(runs, np.int64),
        size=_as_tuple(size),
    )


_json = json.JSONEncoder(default=plain).encode
