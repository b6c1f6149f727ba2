"""A JPEG's stream by its markers (ITU-T T.81, Annex B): how many scans it has, and what stands behind the last of them.

Decoding, and what a decoder makes of the scans, is left to codec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_PROGRESSIVE = (0xC2, 0xCA)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, which DHT, JPG and DAC stand between
# A marker that begins a segment: neither a byte 0xFF of data, which 0 follows, nor one that stands alone, a restart or
# TEM. Fill bytes (0xFF, any number; B.1.1.2) before it are no part of this, else a long run of them that no marker
# follows would be looked at from each of its bytes.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")


class Segment(NamedTuple):
    """A `marker` (its second byte), the byte `at` which it and its fill bytes begin, and what follows its length: the
    bytes `begin` to `end`. Behind the end of a scan's own header is its entropy-coded data, up to the next segment."""

    marker: int
    at: int
    begin: int
    end: int


class Layout(NamedTuple):
    """`scans`: how many there are, or the first one past `most`. `exif`: whether an EXIF block stands before them."""

    scans: int
    exif: bool


def segments(data: bytes) -> Iterator[Segment]:
    """The segments of a stream to its end marker, or to its end. Strays between them are passed, as libjpeg does."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, first, begin = found[1][0], found.start(), found.end() + 2
        while first > at and data[first - 1] == 0xFF:
            first -= 1
        if marker == _EOI:
            yield Segment(marker, first, found.end(), found.end())
            return
        at = found.end() + max(2, int.from_bytes(data[found.end() : begin]))
        yield Segment(marker, first, begin, at)


def layout(data: bytes, *, most: int) -> Layout:
    """Scans and EXIF of a JPEG. The data of a picture in one scan, which is almost every one, is not looked at."""
    scans, exif, progressive, components = 0, False, False, b""
    for marker, _, begin, end in segments(data):
        if marker in _FRAMES:
            progressive, components = marker in _PROGRESSIVE, data[begin + 5 : begin + 6]
        elif marker == _APP1 and not scans:
            exif = exif or data.startswith(b"Exif\0\0", begin, end)
        elif marker == _SOS:
            scans += 1
            if scans > most or (not progressive and data[begin : begin + 1] == components):
                break
    return Layout(scans, exif)


def without_padding(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(a stream, the same less one byte) for each way to take away what may be padding: equal bytes, two or more,
    between the last scan and the end marker.

    The first of them may also be the last one of the scan, so there are two ways. It was padding, and no rest of a
    damaged scan, where a decoder has nothing to say of the first stream, and something of the second: then the last
    scan ends just where the equal bytes begin.
    """
    *_, scan, end = [Segment(0, 0, 0, 0)] * 2 + list(segments(data))
    if scan.marker != _SOS or end.marker != _EOI:
        return
    coded = data[scan.end : end.at]
    padding = scan.end + len(coded.rstrip(coded[-1:]))
    if end.at - padding < 2:
        return
    for cut in (padding, padding + 1):
        yield data[:cut] + b"\xff\xd9", data[: cut - 1] + b"\xff\xd9"
