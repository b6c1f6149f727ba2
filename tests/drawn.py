"""Images drawn for tests, files of every format of them, and folders full of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# A colour PNG of 3 x 2 pixels, 0 to 8 and 100 to 108, put together byte by byte: no encoder made it that could change.
TINY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000030000000208020000001216f14d0000001f4944415478010114"
    "00ebff00000102030405060708006465666768696a6b6c140003cd7ad2e6e60000000049454e44ae426082"
)


def picture(height: int = 40, width: int = 56, *, channels: int = 3, seed: int = 0) -> Pixels:
    """uint8 [h, w, c]: smooth and lively, no two corners alike, another one for every seed."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 2, 3)
    waves = [np.sin(3 * x + 2 * y + phase[0]), np.cos(4 * y - x + phase[1]), np.sin(2 * x * (1 + y) + phase[2])]
    pixels = np.stack(waves, axis=-1) * 120 + 128
    return np.ascontiguousarray(pixels[..., :channels].astype(np.uint8))


def textured(seed: int) -> Pixels:
    """uint8 [240, 320, 3]: as restless as a photo, another one for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    smooth = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def image(height: int = 40, width: int = 56, *, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """The same as a Pillow image of any mode."""
    return Image.fromarray(picture(height, width, seed=seed)).convert(mode)


def saved(made: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    """The bytes of an image file of `kind` (JPEG, PNG, ...) as Pillow writes it."""
    if not isinstance(made, Image.Image):
        made = Image.fromarray(made[..., 0] if made.shape[2:] == (1,) else made)
    out = io.BytesIO()
    made.save(out, kind, **options)
    return out.getvalue()


def jpeg(height: int = 40, width: int = 56, *, mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    """The bytes of a JPEG file."""
    return saved(image(height, width, mode=mode, seed=seed), "JPEG", **options)


def exif(orientation: int) -> Image.Exif:
    """An EXIF block that says nothing but the orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def files(root: Path, content: Mapping[str, bytes]) -> Path:
    """Writes files by their paths below `root`, which it gives back."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def photos(root: Path, n: int, *, classes: tuple[str, ...] = ("cat", "dog"), side: int = 24) -> Path:
    """A folder of `n` small JPEGs named `cat.0.jpg`, `dog.1.jpg`, ... of different sizes."""
    return files(
        root,
        {
            f"{classes[i % len(classes)]}.{i}.jpg": jpeg(side + i % 5, side + 8 - i % 3, seed=i, quality=85)
            for i in range(n)
        },
    )
