"""What the end of a Parquet file says: its row groups, and the texts that writers leave there, which can be others.

Polars reads the columns; it doesn't say how the rows are grouped, and a part of a group costs as much as all of it.
The footer is a FileMetaData of parquet.thrift (parquet-format) in Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_MOST = 1 << 28  # bytes of a footer
_DEEPEST = 32

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

# Fields of FileMetaData, RowGroup and KeyValue by number.
_ROWS, _GROUPS, _TEXTS, _ENCRYPTION = 3, 4, 5, 8
_GROUP_BYTES, _GROUP_ROWS = 2, 3
_KEY, _VALUE = 1, 2


class BadFooter(ValueError):
    """A file that is no whole Parquet file, and why."""


@dataclass(frozen=True, slots=True)
class Footer:
    """`groups`: (rows, bytes once decoded) of each row group; `texts`: key -> value."""

    groups: tuple[tuple[int, int], ...]
    texts: Mapping[str, str]

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.groups)


def read(path: Path) -> Footer:
    """The footer of a Parquet file. Raises BadFooter, OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise BadFooter(f"{size} bytes are no Parquet file")
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
        file.seek(0)
        first = file.read(4)
        if magic == _ENCRYPTED or first == _ENCRYPTED:
            raise BadFooter("is encrypted; decrypt it first")
        if magic != _MAGIC:
            raise BadFooter(
                "ends without PAR1, as every whole Parquet file does: cut short?" if first == _MAGIC else ""
            )
        if first != _MAGIC or length > min(_MOST, size - 12):
            raise BadFooter(f"its end says a footer of {length} bytes, the file has {size}")
        file.seek(size - 8 - length)
        data = file.read(length)
    try:
        said = _Compact(data).struct(0)
        if _ENCRYPTION in said:
            raise BadFooter("columns of it are encrypted; decrypt it first")
        groups = tuple((int(group[_GROUP_ROWS]), int(group[_GROUP_BYTES])) for group in said[_GROUPS])
        if any(rows < 0 for rows, _ in groups) or sum(rows for rows, _ in groups) != said[_ROWS]:
            raise BadFooter(f"its footer says {said[_ROWS]} rows, and others in its row groups")
        texts = {
            _text(one[_KEY]): _text(one[_VALUE])
            for one in said.get(_TEXTS, ())
            if isinstance(one.get(_VALUE), bytes) and isinstance(one.get(_KEY), bytes)
        }
    except BadFooter:
        raise
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise BadFooter(f"its footer makes no sense ({type(error).__name__.lower()}: {str(error)[:60]})") from None
    return Footer(groups, texts)


def retell(path: Path, texts: Mapping[str, str]) -> None:
    """Gives a Parquet file that Polars wrote these texts, key -> value, instead of those in its footer. Raises OSError.

    Instead of: Polars writes its Arrow schema there, and pyarrow, which reads it, then reads nothing else. And large
    strings and lists, which Polars' are, are the usual ones without it.
    """
    with path.open("r+b") as file:
        end = file.seek(-8, 2)
        length, magic = struct.unpack("<I4s", file.read(8))
        assert magic == _MAGIC
        file.seek(end - length)
        data = file.read(length)
        first, last = _Compact(data).spans()[_TEXTS]
        data = data[:first] + _as_texts(texts) + data[last:]
        file.seek(end - length)
        file.truncate()
        file.write(data + struct.pack("<I4s", len(data), _MAGIC))


def _as_texts(texts: Mapping[str, str]) -> bytes:
    """A list of KeyValue: of at most 14 structs, as its length has four bits here."""
    made = bytes([len(texts) << 4 | _STRUCT])
    for key, value in texts.items():
        for text in (key.encode(), value.encode()):
            made += bytes([1 << 4 | _BINARY]) + _as_varint(len(text)) + text  # the next field
        made += b"\0"
    return made


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class _Compact:
    """A struct of Thrift's compact protocol as field number -> value. Each element takes a byte at least, so that no
    number in the data makes more of it than it is."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEEPEST:
            raise ValueError("structs in structs")
        out: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self._number()
            out[field] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return out

    def spans(self) -> dict[int, tuple[int, int]]:
        """Where the value of each field of the struct begins and ends."""
        out: dict[int, tuple[int, int]] = {}
        field = 0
        while head := self._byte():
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self._number()
            begin = self.at
            if kind not in (_TRUE, _FALSE):
                self._value(kind, 0)
            out[field] = begin, self.at
        return out

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_I16, _I32, _I64):
            return self._number()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            n = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(n)]
        if kind == _DOUBLE:
            return self._take(8)
        if kind in (_BYTE, _TRUE, _FALSE):
            return self._byte()
        if kind == _MAP:
            n = self._varint()
            kinds = self._byte() if n else 0
            return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in range(n)]
        raise ValueError(f"a value of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise ValueError("a text longer than the footer")
        self.at += n
        return self.data[self.at - n : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than ten bytes")

    def _number(self) -> int:
        value = self._varint()  # zigzag: 0, -1, 1, -2, …
        return value >> 1 ^ -(value & 1)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
