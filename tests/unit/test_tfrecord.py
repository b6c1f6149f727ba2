"""Framing: the vectors of the format, what a reader makes of a whole file, and what it says of a damaged one."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np
import pytest

from headrace.format import tfrecord

# FORMATS.md, section 1: as TensorFlow 2.21 writes them.
RECORDS = [
    (b"hello", "0500000000000000 eab2043e 68656c6c6f bb1f1c19"),
    (b"", "0000000000000000 29039807 d8ea82a2"),
]
PAYLOADS = [b"first", b"", b"x" * 300]
FILE = b"".join(tfrecord.frame(payload) for payload in PAYLOADS)
OFFSETS = [0, 21, 37, 353]  # of the records, and the end


@pytest.mark.parametrize(("data", "wanted"), [(b"123456789", 0xC78AB0E5), (b"", 0xA282EAD8)])
def test_masked_crc(data: bytes, wanted: int) -> None:
    assert tfrecord.masked_crc(data) == wanted
    array = np.frombuffer(data, np.uint8)
    assert tfrecord.masked_crc(array) == wanted


def test_the_checksum_under_the_mask_is_crc32c() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283


@pytest.mark.parametrize(("payload", "wanted"), RECORDS)
def test_frame(payload: bytes, wanted: str) -> None:
    assert tfrecord.frame(payload) == bytes.fromhex(wanted)
    assert len(tfrecord.frame(payload)) == len(payload) + tfrecord.OVERHEAD_BYTES


@pytest.mark.parametrize("data", [FILE, np.frombuffer(FILE, np.uint8)], ids=["bytes", "array"])
def test_scan_gives_offsets_and_payloads(data: tfrecord.Buffer) -> None:
    found = [(offset, bytes(payload)) for offset, payload in tfrecord.scan(data)]
    assert found == list(zip(OFFSETS[:-1], PAYLOADS, strict=True))


def test_scan_of_an_empty_file() -> None:
    assert list(tfrecord.scan(b"")) == []


def test_payload_is_not_copied() -> None:
    data = np.frombuffer(FILE, np.uint8)
    assert np.shares_memory(tfrecord.payload_at(data, 0, 5), data)


@pytest.mark.parametrize("length", range(len(FILE)))
def test_a_file_cut_anywhere_but_between_records(length: int) -> None:
    whole = sum(offset <= length for offset in OFFSETS) - 1
    run = tfrecord.scan(FILE[:length])
    for _ in range(whole):
        next(run)
    if length in OFFSETS:
        assert list(run) == []  # this is why the count is kept elsewhere
    else:
        with pytest.raises(tfrecord.BadRecord) as caught:
            next(run)
        assert caught.value.offset == OFFSETS[whole]


# (byte that is flipped, the byte that is named, what is said); the second record is 21..37, the third 37..353
FLIPS = [
    (21, 21, "length CRC is"),  # its length
    (28, 21, "length CRC is"),
    (29, 21, "length CRC is"),  # the CRC of its length
    (33, 33, "payload CRC is"),  # it has no payload: the payload's CRC
    (49, 49, "payload CRC is"),  # the first byte of the third's payload
    (348, 49, "payload CRC is"),  # the last
    (352, 49, "payload CRC is"),  # the last of the CRC
]


@pytest.mark.parametrize(("byte", "named", "reason"), FLIPS)
def test_a_flipped_bit_is_named(byte: int, named: int, reason: str) -> None:
    data = bytearray(FILE)
    data[byte] ^= 4
    with pytest.raises(tfrecord.BadRecord, match=reason) as caught:
        list(tfrecord.scan(bytes(data)))
    assert caught.value.offset == named
    assert str(caught.value) == f"byte {named}: {caught.value.reason}"


def test_both_checksums_are_told() -> None:
    data = bytearray(FILE)
    data[12] ^= 1
    found, expected = tfrecord.masked_crc(bytes(data[12:17])), tfrecord.masked_crc(b"first")
    with pytest.raises(tfrecord.BadRecord) as caught:
        tfrecord.payload_at(bytes(data), 0, 5)
    assert caught.value.reason == f"payload CRC is 0x{found:08x}, expected 0x{expected:08x}"


def test_a_length_beyond_the_file_is_refused_before_it_is_read() -> None:
    length = struct.pack("<Q", 1 << 60)
    data = length + struct.pack("<I", tfrecord.masked_crc(length)) + b"tail"
    with pytest.raises(tfrecord.BadRecord, match=r"a record of 1152921504606846976 bytes begins here, the file ends"):
        list(tfrecord.scan(data))


@pytest.mark.parametrize(("offset", "length"), [(-5, 5), (1 << 62, 5), (0, 1 << 62), (0, -20), (353, 0), (0, 6)])
def test_an_address_that_is_none(offset: int, length: int) -> None:
    """A catalog may say anything: it is a BadRecord and nothing else."""
    with pytest.raises(tfrecord.BadRecord):
        tfrecord.payload_at(np.frombuffer(FILE, np.uint8), offset, length)
