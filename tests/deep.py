"""Images of 16 bits, and more, put together by hand: no encoder at hand writes all of them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def numbers(height: int = 5, width: int = 7, channels: int = 1, *, most: int = 65535, seed: int = 0) -> Any:
    """uint16 [h, w, c] of 0 to `most`, both of them among it."""
    found = np.random.default_rng(seed).integers(0, most + 1, (height, width, channels)).astype(np.uint16)
    found[0, 0], found[-1, -1] = 0, most
    return found


def png16(values: NDArray[np.uint16], *chunks: bytes) -> bytes:
    """A PNG of uint16 [h, w, c]: grey, grey and alpha, RGB or RGBA for c of 1 to 4."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(values: NDArray[Any], **tags: int) -> bytes:
    """An uncompressed TIFF of numbers [h, w, c]; `photometric`, `orientation`, `planar` as TIFF has it."""
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    data += b"\0" * (len(data) % 2)
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    lists = {258: [8 * values.dtype.itemsize] * channels, 339: [kind] * channels}
    shorts = {
        256: width,
        257: height,
        259: 1,
        262: tags.get("photometric", 1 if channels == 1 else 2),
        274: tags.get("orientation", 1),
        277: channels,
        278: height,
        284: tags.get("planar", 1),
    }
    if channels == 4:
        shorts[338] = 2
    at, extra, entries = 8 + len(data), b"", {}
    for tag, values_ in lists.items():
        if channels <= 2:
            entries[tag] = (3, channels, struct.pack(f"<{channels}H", *values_).ljust(4, b"\0"))
        else:
            entries[tag] = (3, channels, struct.pack("<I", at + len(extra)))
            extra += struct.pack(f"<{channels}H", *values_)
    entries |= {tag: (3, 1, struct.pack("<HH", value, 0)) for tag, value in shorts.items()}
    entries |= {273: (4, 1, struct.pack("<I", 8)), 279: (4, 1, struct.pack("<I", height * len(values[0].tobytes())))}
    table = b"".join(struct.pack("<HHI", tag, *entries[tag][:2]) + entries[tag][2] for tag in sorted(entries))
    ifd = struct.pack("<H", len(entries)) + table + bytes(4)
    return b"II*\0" + struct.pack("<I", at + len(extra)) + data + extra + ifd
