"""Small files that cost much: as many pixels, or passes over them, as so few bytes can ask for."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from deep import chunk
from drawn import exif, saved


def png(height: int, width: int, *, depth: int = 8, colour: int = 6) -> bytes:
    """A PNG of zeros, deflated as far as that goes."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + width * samples * depth // 8)
    deflate = zlib.compressobj(9)
    body = b"".join(deflate.compress(row) for _ in range(height)) + deflate.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(6))) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def flat(kind: str, mode: str, height: int, width: int, **options: object) -> bytes:
    """A file of `kind` of one colour."""
    return saved(Image.new(mode, (width, height)), kind, **options)


def turned(kind: str, height: int, width: int, **options: object) -> bytes:
    """One that is to be turned."""
    return flat(kind, "RGB", height, width, exif=exif(6), **options)


def filled(n: int, *, progressive: bool) -> bytes:
    """A grey JPEG with `n` fill bytes that no marker follows: before its frame or, progressive, behind its scans."""
    made = flat("JPEG", "L", 64, 64, progressive=progressive)
    at = len(made) - 2 if progressive else 2
    return made[:at] + b"\xff" * n + b"\0" + made[at:]


def _bits(text: str) -> bytes:
    """Bytes of entropy-coded data (ITU-T T.81, F.1.2.3): filled up with ones, and zeros behind each 255."""
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")


def scans(height: int, width: int, n: int, *, refining: bool = False) -> bytes:
    """A grey progressive JPEG of `n` scans, each of which says in few bytes that no block has anything in it.

    `refining`: those that look at every coefficient for it.
    """
    made, segments, at = saved(Image.new("L", (64, 64), 128), "JPEG", progressive=True), b"", 2
    while made[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(made[at + 2 : at + 4])
        if made[at + 1] == 0xC2:
            segments += made[at : at + 5] + struct.pack(">HH", height, width) + made[at + 9 : end]
        elif made[at + 1] == 0xDB:
            segments += made[at:end]
        at = end
    # DC: one code, "0", for no difference. AC: "0" ends a run of 16,384 blocks and more, "10" that of one.
    for table, symbols in ((0x00, b"\0"), (0x10, b"\xe0\0")):
        counts = bytes([1, len(symbols) - 1, *[0] * 14])
        segments += b"\xff\xc4" + struct.pack(">H", 19 + len(symbols)) + bytes([table]) + counts + symbols
    blocks = -(-width // 8) * -(-height // 8)
    runs, left = "", blocks
    while left >= 16384:
        run = min(left, 32767)
        runs, left = runs + "0" + format(run - 16384, "014b"), left - run
    runs += "10" * left

    def scan(first: int, last: int, bits: int, coded: bytes) -> bytes:
        return b"\xff\xda" + struct.pack(">H", 8) + bytes([1, 1, 0, first, last, bits]) + coded

    out = b"\xff\xd8" + segments + scan(0, 0, 0, _bits("0" * blocks))
    first, more = scan(1, 63, 1, _bits(runs)), scan(1, 63, 0x10 if refining else 0, _bits(runs))
    return out + (first if refining else b"") + more * (n - 1 - refining) + b"\xff\xd9"
