"""TFRecord framing and its masked CRC-32C: one record's bytes, and where the next one lies.

Record = u64le length | u32le masked CRC of those 8 bytes | payload | u32le masked CRC of the payload
(TensorFlow, core/lib/io/record_writer.h). What a payload means is left to example.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

import google_crc32c
import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 12
FOOTER_BYTES = 4
OVERHEAD_BYTES = HEADER_BYTES + FOOTER_BYTES

Buffer: TypeAlias = bytes | NDArray[np.uint8]


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


def length_at(data: Buffer, offset: int) -> int:
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


def payload_at(data: Buffer, offset: int, length: int) -> Buffer:
    """The payload of `length` bytes of the record that begins at `offset`, checked, not copied. Raises BadRecord."""
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


def scan(data: Buffer) -> Iterator[tuple[int, Buffer]]:
    """(offset, payload) of each record of a whole file, in order. Raises BadRecord at the first damage."""
    offset = 0
    while offset < len(data):
        length = length_at(data, offset)
        yield offset, payload_at(data, offset, length)
        offset += OVERHEAD_BYTES + length
