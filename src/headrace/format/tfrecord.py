"""TFRecord framing and its masked CRC-32C: one record's bytes, and where the next one lies.

Record = u64le length | u32le masked CRC of those 8 bytes | payload | u32le masked CRC of the payload
(TensorFlow, core/lib/io/record_writer.h). What a payload means is left to example.
Damaged files are walked too: from one sound record to the next, with what lies between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Protocol, TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 12
FOOTER_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + FOOTER_BYTES

Buffer: TypeAlias = bytes | NDArray[np.uint8]


class Sliced(Protocol):
    """The bytes of a file, of which slices are asked for: in memory, or read on the way."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Buffer: ...


class BadRecord(ValueError):
    """A record whose bytes contradict its checksums; `offset` is the byte where the contradiction stands."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason


def masked_crc(data: Buffer) -> int:
    """CRC-32C of bytes or of a read-only uint8 array, rotated and offset as TFRecord stores it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A whole record: the payload between its length and its CRCs."""
    length = struct.pack("<Q", len(payload))
    crcs = struct.pack("<I", masked_crc(length)), struct.pack("<I", masked_crc(payload))
    return b"".join((length, crcs[0], payload, crcs[1]))


def length_at(data: Sliced, offset: int) -> int:
    """Payload length of the record that begins at `offset`. Raises BadRecord: cut short, or its CRC is wrong."""
    header = bytes(data[offset : offset + HEADER_BYTES])
    if len(header) < HEADER_BYTES:
        raise BadRecord(offset, f"{len(header)} bytes are left, a record begins with {HEADER_BYTES}")
    (length, crc) = struct.unpack("<QI", header)
    found = masked_crc(header[:8])
    if found != crc:
        raise BadRecord(offset, f"length CRC is 0x{found:08x}, expected 0x{crc:08x}")
    if offset + OVERHEAD_BYTES + length > len(data):
        raise BadRecord(offset, f"a record of {length} bytes begins here, the file ends at byte {len(data)}")
    return int(length)


def payload_at(data: Sliced, offset: int, length: int) -> Buffer:
    """The payload of `length` bytes of the record that begins at `offset`, checked. Raises BadRecord."""
    start = offset + HEADER_BYTES
    payload = data[start : start + length]
    footer = bytes(data[start + length : start + length + FOOTER_BYTES])
    if len(footer) < FOOTER_BYTES:
        raise BadRecord(offset, f"a record of {length} bytes begins here, the file ends at byte {len(data)}")
    (crc,) = struct.unpack("<I", footer)
    found = masked_crc(payload)
    if found != crc:
        raise BadRecord(start, f"payload CRC is 0x{found:08x}, expected 0x{crc:08x}")
    return payload


def scan(data: Sliced) -> Iterator[tuple[int, Buffer]]:
    """(offset, payload) of each record of a whole file, in order. Raises BadRecord at the first damage."""
    offset = 0
    while offset < len(data):
        length = length_at(data, offset)
        yield offset, payload_at(data, offset, length)
        offset += OVERHEAD_BYTES + length


class Span(NamedTuple):
    """A record that begins at `offset` and has a payload of `length` bytes, which are not checked yet."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + OVERHEAD_BYTES + self.length


class Gap(NamedTuple):
    """Bytes from `begin` to `end` that are no sound record; the contradiction stands at `offset`."""

    begin: int
    end: int
    offset: int
    reason: str


def mark(data: Sliced, piece: Span | Gap) -> bytes:
    """What stands for a sound record's bytes, its length and CRCs, or all bytes of a gap."""
    if isinstance(piece, Gap):
        return bytes(data[piece.begin : piece.end])
    return bytes(data[piece.offset : piece.offset + HEADER_BYTES]) + bytes(data[piece.end - FOOTER_BYTES : piece.end])


def walk(data: Sliced) -> Iterator[Span | Gap]:
    """All records of a file by their lengths, damaged or not: each byte is in one Span or in one Gap.

    After a wrong length the next sound record is searched for. Payloads are not checked, unless what follows a record
    makes no sense: then its own length may be at fault, and records that it swallowed are found inside of it.
    """
    held: Span | None = None
    offset = 0
    left = _SearchBudget(len(data))
    while offset < len(data):
        try:
            span = Span(offset, length_at(data, offset))
        except BadRecord as error:
            begin, found = offset, error
            if held is not None and left.spend(held.length):
                try:
                    payload_at(data, *held)
                    yield held
                except BadRecord as wrong:
                    begin, found = held.offset, wrong
            elif held is not None:
                yield held
            held, offset = None, resync(data, begin + 1, left)
            yield Gap(begin, offset, found.offset, found.reason)
            continue
        if held is not None:
            yield held
        held, offset = span, span.end
    if held is not None:
        yield held


class _SearchBudget:
    """How many bytes a search may still check: a few times those of the file. What damage leaves needs less than one
    time; a file made for it would keep us for days."""

    def __init__(self, size: int) -> None:
        self.left = 16 * size + (1 << 20)

    def spend(self, n: int) -> bool:
        self.left -= n
        return self.left > 0


def resync(data: Sliced, start: int, budget: _SearchBudget | None = None) -> int:
    """Where at or after byte `start` the next whole record with sound CRCs begins; the end of `data` without one."""
    budget = budget or _SearchBudget(len(data))
    for first in range(start, len(data) - OVERHEAD_BYTES + 1, _SEARCHED):
        searched = np.frombuffer(data[first : first + _SEARCHED + HEADER_BYTES - 1], np.uint8)
        for offset in _length_crcs_hold(searched):
            try:
                length = length_at(data, first + offset)
                if not budget.spend(length):
                    return len(data)
                payload_at(data, first + offset, length)
            except BadRecord:
                continue
            return first + offset
    return len(data)


_SEARCHED = 1 << 20  # bytes at a time


def _length_crcs_hold(data: NDArray[np.uint8]) -> list[int]:
    """At which bytes a length with its own CRC may stand.

    A CRC is linear: that of 8 bytes is the XOR of what each byte contributes at its place.
    """
    zeros, tables = _contributions()
    n = len(data) - HEADER_BYTES + 1
    if n <= 0:
        return []
    crc = np.full(n, zeros, np.uint32)
    for i in range(8):
        crc ^= tables[i][data[i : i + n]]
    masked = (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)
    stored = np.zeros(n, np.uint32)
    for i in range(4):
        stored |= data[8 + i : 8 + i + n].astype(np.uint32) << np.uint32(8 * i)
    found: list[int] = np.flatnonzero(masked == stored).tolist()
    return found


@cache
def _contributions() -> tuple[int, NDArray[np.uint32]]:
    """The CRC of 8 zero bytes, and uint32 [8, 256] by what a byte value at a place changes it."""
    zeros = google_crc32c.value(bytes(8))
    one = [[google_crc32c.value(bytes(i) + bytes([b]) + bytes(7 - i)) ^ zeros for b in range(256)] for i in range(8)]
    return zeros, np.array(one, np.uint32)
