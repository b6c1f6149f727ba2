"""The index: where each record's bytes are. Fixed-width columns, a row per record, opened at once and shared.

What records are is left to the catalog. A file of it is

    8 bytes "HRINDEX1" | u64 n, rows | u64 a, bytes of ids | u64 b, bytes of names of files
    the columns in the order of COLUMNS, n values each, little-endian
    u64 [n]: where each id ends | a bytes: the ids, UTF-8, one after the other
    and only where b > 0: u64 [n]: where each name ends | b bytes: the names

with every part beginning at a multiple of 64 bytes, zeros between. A shard's part has the same form as the whole, and
the whole is its parts one after the other: rows stand in the order of the manifest's shards and of the records in them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DamageError
from headrace.format.tfrecord import HEADER_BYTES, OVERHEAD_BYTES
from headrace.place.address import Place
from headrace.place.local import LocalPlace, Map, explained

if TYPE_CHECKING:
    from headrace.format.catalog import Row

FILE = "headrace.index"  # of the version that was packed
FORMATS = ("jpeg", "png", "gif", "bmp", "webp", "tiff", "other jpeg", "other png")  # by number: the column `format`

# offset: of the record in its shard, bytes. key: what random numbers of the record are drawn by. length: of its
# payload. image_offset, image_length: of the image's bytes, from the record's beginning; an image_offset of 0 is that
# of an image in a file of its own. crc: masked CRC-32C of the payload, or of that file. record: number in its shard.
COLUMNS: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "offset": np.dtype("<u8"),
        "key": np.dtype("<u8"),
        "length": np.dtype("<u4"),
        "image_offset": np.dtype("<u4"),
        "image_length": np.dtype("<u4"),
        "crc": np.dtype("<u4"),
        "record": np.dtype("<u4"),
        "height": np.dtype("<u4"),
        "width": np.dtype("<u4"),
        "channels": np.dtype("u1"),
        "format": np.dtype("u1"),
    }
)
_MAGIC = b"HRINDEX1"
_HEAD = struct.Struct("<8sQQQ")
_ENDS = np.dtype("<u8")
_TEXTS_OF = {"id ends": 0, "file ends": 1}  # of which texts, ids or names of files, the ends are
_ALIGNED = 64
_LOT = 1 << 16  # rows at a time
_NUMBER = {name: i for i, name in enumerate(FORMATS)}


class Texts:
    """n texts as one array of bytes uint8 [m] and where each ends, uint64 [n]."""

    def __init__(self, ends: NDArray[np.uint64], data: NDArray[np.uint8]) -> None:
        self.ends, self.data = ends, data

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> str:
        """Raises DamageError: no UTF-8."""
        try:
            return self.raw(row).decode()
        except UnicodeDecodeError:
            raise DamageError(f"{FILE}: the text of row {row} is no UTF-8; run 'headrace verify'") from None

    def raw(self, row: int) -> bytes:
        """The text's bytes."""
        begin = int(self.ends[row - 1]) if row else 0
        return bytes(self.data[begin : int(self.ends[row])])

    def take(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The texts of these rows [b]. Raises DamageError: no UTF-8."""
        begins = np.where(rows > 0, self.ends[rows - 1], np.uint64(0)).tolist()
        data = self.data.data
        try:
            return tuple(
                str(data[begin:end], "utf-8") for begin, end in zip(begins, self.ends[rows].tolist(), strict=True)
            )
        except UnicodeDecodeError:
            return tuple(self[row] for row in rows.tolist())

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64) if encoded else np.zeros(0, np.uint64)
        return cls(ends.astype(_ENDS), np.frombuffer(b"".join(encoded), np.uint8))


class Index:
    """Columns [n] by name (COLUMNS), `ids` and the names of `files`, which are empty where images lie in records."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], ids: Texts, files: Texts | None = None) -> None:
        self.columns, self.ids, self.files = columns, ids, files
        self._map: Map | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    def check_whole(self) -> None:
        """Raises DamageError: the file has been cut since, and reading on would end the process (SIGBUS)."""
        if self._map is not None and self._map.is_cut():
            raise DamageError(f"{self._map.path}: was cut since it was opened; pack the dataset again")

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Index:
        """The index of these rows; `Row.offset` and `image_offset` are bytes of the shard."""
        inside = [row.image_offset - row.offset if row.file is None else 0 for row in rows]
        columns = {
            name: np.array([getattr(row, name) for row in rows], kind)
            for name, kind in COLUMNS.items()
            if name not in ("key", "image_offset", "format")
        }
        columns["key"] = order.keys_of(row.id for row in rows).astype(COLUMNS["key"])
        columns["image_offset"] = np.array(inside, COLUMNS["image_offset"])
        columns["format"] = np.array([_NUMBER[row.format] for row in rows], COLUMNS["format"])
        named = any(row.file is not None for row in rows)
        files = Texts.of([row.file or "" for row in rows]) if named else None
        return cls(columns, Texts.of([row.id for row in rows]), files)

    @classmethod
    def open(cls, place: Place, *, sha256: str, crc32c: int, name: str = FILE) -> Index:
        """The index of the dataset in `place`, mapped, if its bytes have the CRC-32C that the manifest says.

        What stands in it is not judged yet: see `check`. Raises StorageError, DamageError.
        """
        path = place.whole(name, sha256)
        try:
            map_ = LocalPlace(path.parent).map(path.name, crc32c=crc32c)
        except DamageError:
            if path == place.path / name:
                raise
            path = place.whole(name, sha256, anew=True)  # a copy was damaged, as it seems
            map_ = LocalPlace(path.parent).map(path.name, crc32c=crc32c)
        index = cls.over(map_.data, str(map_.path))
        index._map = map_
        return index

    @classmethod
    def over(cls, data: NDArray[np.uint8], where: str) -> Index:
        """The index whose file has these bytes. Raises DamageError."""
        _, _, names, parts = _sizes(bytes(data[: _HEAD.size]), len(data), where)
        found = {name: data[start : start + size] for name, start, size in parts}
        columns = {name: found[name].view(kind) for name, kind in COLUMNS.items()}
        ids = Texts(found["id ends"].view(_ENDS), found["ids"])
        files = Texts(found["file ends"].view(_ENDS), found["files"]) if names else None
        return cls(columns, ids, files)

    def check(self, shards: Sequence[tuple[str, int, int]], *, contiguous: bool, named: bool) -> None:
        """Judges every number once: ranges, and that records lie one after the other in shards of (name, records,
        bytes), with nothing between where `contiguous`; `named`: images may lie in files. Raises DamageError."""
        if len(self) != sum(records for _, records, _ in shards):
            raise DamageError(f"{FILE}: {len(self)} rows, the manifest says {sum(r for _, r, _ in shards)} records")
        for texts in (self.ids, self.files):
            if texts is not None and len(texts) and int(texts.ends[-1]) != len(texts.data):
                raise DamageError(f"{FILE}: texts of {int(texts.ends[-1])} bytes in {len(texts.data)}")
        begin = 0
        for name, records, size in shards:
            end = 0  # of the record before
            for first in range(begin, begin + records, _LOT):
                end = self._check(slice(first, min(first + _LOT, begin + records)), name, begin, end, contiguous, named)
            if end > size or (contiguous and end != size):
                raise DamageError(f"{FILE}: the records of {name} end at byte {end}, the manifest says {size} bytes")
            begin += records

    def _check(self, rows: slice, shard: str, begin: int, end: int, contiguous: bool, named: bool) -> int:
        """One lot of a shard whose rows begin at `begin`, after a record that ends at `end`; where its last ends."""
        of = {name: column[rows] for name, column in self.columns.items()}
        start = of["offset"].astype(np.int64)
        length = of["length"].astype(np.int64) + OVERHEAD_BYTES
        before = np.concatenate([[end], (start + length)[:-1]])
        image, image_length = of["image_offset"].astype(np.int64), of["image_length"].astype(np.int64)
        inside = (image >= HEADER_BYTES) & (image + image_length <= length - (OVERHEAD_BYTES - HEADER_BYTES))
        record = of["record"].astype(np.int64)
        in_row = np.arange(rows.start - begin, rows.stop - begin)
        texts = [self.ids] if self.files is None else [self.ids, self.files]
        ascending = np.ones(len(start), bool)
        for one in texts:
            before_it = one.ends[rows.start - 1] if rows.start else np.uint64(0)
            lengths = np.diff(one.ends[rows], prepend=before_it).astype(np.int64)
            ascending &= lengths >= (0 if one is self.files else 1)
        for good, what in (
            ((start == before) if contiguous else (start >= before) & (start < 1 << 62), "offset"),
            (inside | (image == 0) if named else inside, "place of the image"),
            ((record == in_row) if contiguous else (record >= in_row), "number of the record"),
            ((of["height"] > 0) & (of["height"] < 1 << 31), "height"),
            ((of["width"] > 0) & (of["width"] < 1 << 31), "width"),
            ((of["channels"] == 1) | (of["channels"] == 3), "number of channels"),
            (of["format"] < len(FORMATS), "format"),
            (ascending, "text"),
        ):
            if not good.all():
                i = int(np.argmin(good))
                where = f"{shard}, record {int(record[i])}, byte {int(start[i])}"
                raise DamageError(f"{FILE}: the {what} of row {rows.start + i} ({where}) can't be; pack again")
        return int(start[-1] + length[-1])

    @property
    def texts(self) -> tuple[int, int]:
        """Bytes of all ids, and of all names of files."""
        return len(self.ids.data), 0 if self.files is None else len(self.files.data)

    def piece(self, name: str) -> NDArray[Any]:
        """What stands in the file under this name (see _parts)."""
        if name in COLUMNS:
            return self.columns[name]
        files = self.files or Texts(np.zeros(len(self), _ENDS), np.zeros(0, np.uint8))
        texts = self.ids if name in ("id ends", "ids") else files
        return texts.ends if name in _TEXTS_OF else texts.data

    def write(self, file: IO[bytes]) -> None:
        """Writes the file of this index."""
        _write([self], file)


def to_bytes(rows: Sequence[Row]) -> bytes:
    """The file of these rows' index."""
    file = io.BytesIO()
    Index.of(rows).write(file)
    return file.getvalue()


def joined(parts: Sequence[Index]) -> Index:
    """These indices, one after the other, in memory."""
    file = io.BytesIO()
    _write(parts, file)
    return Index.over(np.frombuffer(file.getbuffer(), np.uint8), FILE)


def join(parts: Sequence[Path], out: Path) -> None:
    """The index files `parts`, one after the other, as one: column by column, so that nothing of them is held in
    memory, nor open. Raises StorageError, DamageError."""
    with explained(out), out.open("wb") as file:
        _write([_Stored(part) for part in parts], file)


class _Part(Protocol):
    """An index that becomes a part of another: n rows, bytes of its ids and of names of files, and each part of it by
    name (see _parts)."""

    @property
    def texts(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def piece(self, name: str) -> NDArray[Any]: ...


class _Stored:
    """An index file, of which one column at a time is read: a dataset has more shards than a process may open files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            head, size = file.read(_HEAD.size), file.seek(0, os.SEEK_END)
        self._n, *texts, found = _sizes(head, size, str(path))
        self.texts = texts[0], texts[1]
        self._found = {name: (start, length) for name, start, length in found}

    def __len__(self) -> int:
        return self._n

    def piece(self, name: str) -> NDArray[Any]:
        kind = _kind(name)
        if name not in self._found:  # it names no files
            return np.zeros(self._n if name in _TEXTS_OF else 0, kind)
        start, length = self._found[name]
        return np.fromfile(self._path, kind, length // kind.itemsize, offset=start)


def _sizes(head: bytes, size: int, where: str) -> tuple[int, int, int, list[tuple[str, int, int]]]:
    """(rows, bytes of ids, bytes of names, where each part is) of a file of `size` bytes that begins with `head`.

    Raises DamageError."""
    try:
        magic, n, ids, files = _HEAD.unpack(head)
    except struct.error:
        raise DamageError(f"{where}: {size} bytes are no index; pack the dataset again") from None
    parts = list(_parts(n, (ids, files))) if magic == _MAGIC else []
    if not parts or parts[-1][1] + parts[-1][2] != size:
        raise DamageError(f"{where}: {size} bytes are no index of {n} records; pack the dataset again")
    return n, ids, files, parts


def _kind(name: str) -> np.dtype[Any]:
    return COLUMNS[name] if name in COLUMNS else _ENDS if name in _TEXTS_OF else np.dtype(np.uint8)


def _write(parts: Sequence[_Part], file: IO[bytes]) -> None:
    n = sum(len(part) for part in parts)
    texts = sum(part.texts[0] for part in parts), sum(part.texts[1] for part in parts)
    file.write(_HEAD.pack(_MAGIC, n, *texts))
    at = _HEAD.size
    for name, start, size in _parts(n, texts):
        file.write(bytes(start - at))
        before = 0
        for part in parts:
            piece = part.piece(name)
            if name in _TEXTS_OF:
                piece = piece + np.uint64(before)
                before += part.texts[_TEXTS_OF[name]]
            file.write(np.ascontiguousarray(piece, _kind(name)).data)
        at = start + size


def _parts(n: int, texts: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of each part of a file of `n` rows."""
    sizes = {name: n * kind.itemsize for name, kind in COLUMNS.items()}
    sizes |= {"id ends": n * _ENDS.itemsize, "ids": texts[0]}
    if texts[1]:
        sizes |= {"file ends": n * _ENDS.itemsize, "files": texts[1]}
    at = _HEAD.size
    for name, size in sizes.items():
        at = -(-at // _ALIGNED) * _ALIGNED
        yield name, at, size
        at += size
