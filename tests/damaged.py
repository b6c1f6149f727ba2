"""Image files that something happened to: each kind of damage to each kind of JPEG and PNG, always the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from drawn import Pixels, picture, saved


def lively(height: int = 120, width: int = 160, *, seed: int = 0) -> Pixels:
    """uint8 [h, w, 3]: a picture with as much in every corner as a photo has, so that no damage goes unseen."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), np.uint8))
    grain = rng.integers(-9, 10, (height, width, 3))
    detail = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip((picture(height, width, seed=seed) + detail) // 2 + grain, 0, 255).astype(np.uint8)


def _jpeg(seed: int, mode: str = "RGB", **options: object) -> bytes:
    return saved(Image.fromarray(lively(seed=seed)).convert(mode), "JPEG", quality=85, **options)


# kind of file: its bytes, by a seed
SOURCES: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda seed: _jpeg(seed),
    "JPEG 4:4:4": lambda seed: _jpeg(seed, subsampling="4:4:4"),
    "JPEG grey": lambda seed: _jpeg(seed, "L"),
    "JPEG optimized": lambda seed: _jpeg(seed, optimize=True),
    "JPEG with restarts": lambda seed: _jpeg(seed, restart_marker_rows=1),
    "JPEG progressive": lambda seed: _jpeg(seed, progressive=True),
    "JPEG grey, progressive": lambda seed: _jpeg(seed, "L", progressive=True),
    "JPEG CMYK": lambda seed: _jpeg(seed, "CMYK"),
    "PNG": lambda seed: saved(lively(60, 80, seed=seed), "PNG"),
    "PNG palette": lambda seed: saved(Image.fromarray(lively(60, 80, seed=seed)).quantize(64), "PNG"),
}


def _over(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


def _somewhere(data: bytes, n: int, rng: np.random.Generator) -> int:
    """A place for `n` bytes in the picture's data: anywhere behind the headers and before the last bytes."""
    first = data.index(b"\xff\xda" if data.startswith(b"\xff\xd8") else b"IDAT") + 14
    return int(rng.integers(first, max(first + 1, len(data) - n - 14)))


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    return _over(data, _somewhere(data, 512, rng), bytes(512))


def _random(data: bytes, rng: np.random.Generator) -> bytes:
    return _over(data, _somewhere(data, 16, rng), rng.bytes(16))


def _bit(data: bytes, rng: np.random.Generator) -> bytes:
    at = _somewhere(data, 1, rng)
    return _over(data, at, bytes([data[at] ^ 1 << int(rng.integers(8))]))


def _cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    n = int(rng.integers(1, 600))
    at = _somewhere(data, n, rng)
    return data[:at] + data[at + n :]


def _twice(data: bytes, rng: np.random.Generator) -> bytes:
    n = int(rng.integers(9, 600))
    at = _somewhere(data, n, rng)
    return data[: at + n] + data[at:]


def _cut_off(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _somewhere(data, 1, rng)]


def _ended(data: bytes, rng: np.random.Generator) -> bytes:
    return _cut_off(data, rng) + (b"\xff\xd9" if data.startswith(b"\xff\xd8") else data[-12:])


def _swapped(data: bytes, rng: np.random.Generator) -> bytes:
    n = 200
    at = _somewhere(data, 2 * n, rng)
    return data[:at] + data[at + n : at + 2 * n] + data[at : at + n] + data[at + 2 * n :]


def _stray(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes before the end marker that are no padding: as the rest of a scan is of which too little was read."""
    scan = bytes(rng.integers(0, 255, int(rng.integers(20, 200)), np.uint8))
    return data[:-2] + scan + data[-2:] if data.startswith(b"\xff\xd8") else data[:-12] + scan + data[-12:]


KINDS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "512 zeros": _zeros,
    "16 random bytes": _random,
    "one bit": _bit,
    "a part cut out": _cut_out,
    "a part twice": _twice,
    "two parts changed round": _swapped,
    "cut off": _cut_off,
    "cut off and ended": _ended,
    "stray bytes": _stray,
}


class Damaged(NamedTuple):
    """A file, what it is, what happened to it, and what it was."""

    source: str
    kind: str
    data: bytes
    whole: bytes


def damaged(kind: str, n: int) -> Iterator[Damaged]:
    """`n` files of each source that this damage happened to."""
    for source, make in SOURCES.items():
        for seed in range(n):
            whole = make(seed)
            rng = np.random.default_rng([seed, zlib.crc32(f"{source} {kind}".encode())])
            yield Damaged(source, kind, KINDS[kind](whole, rng), whole)
