"""Images for pages: small ones at a scaled decode, whole ones for browsers, and what is left of rejects."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from headrace.errors import DamageError, UsageError
from headrace.imaging import codec
from headrace.imaging.placement import draw, place
from headrace.load.dataset import Dataset
from headrace.place import local
from headrace.record import Reject

SIDES = (96, 128, 192, 256, 384, 512)  # of small images, their longer one
_QUALITY = 82

# Formats of stored images that every browser shows; the others are sent as PNG.
MEDIA = {"jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "bmp": "image/bmp", "webp": "image/webp"}


def thumbnail(dataset: Dataset, row: int, side: int) -> bytes:
    """JPEG bytes of the image of a catalog row, its longer side `side` pixels at most. Raises DamageError, UsageError:
    its numbers are no image."""
    store = dataset.store
    if store.keeps:
        raise UsageError(f"{dataset.path}: its numbers are kept as they are, and are no pixels to show")
    height, width = int(store.height[row]), int(store.width[row])
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    out = np.empty((*size, 1 if store.channels[row] == 1 else 3), np.uint8)
    store.drawing(np.array([row]))(0, place(height, width, size, "stretch"), out)
    return codec.encode_jpeg(out, quality=_QUALITY, chroma="420")


def whole(dataset: Dataset, row: int) -> tuple[bytes, str]:
    """The image of a catalog row in full, and its media type. Raises DamageError, UsageError."""
    store = dataset.store
    if store.keeps:
        raise UsageError(f"{dataset.path}: its numbers are kept as they are, and are no pixels to show")
    kind = str(store.table.row(row)["format"])
    if kind in MEDIA:
        return store.fetch(row).tobytes(), MEDIA[kind]
    height, width = int(store.height[row]), int(store.width[row])
    out = np.empty((height, width, int(store.channels[row])), np.uint8)
    store.drawing(np.array([row]))(0, place(height, width, (height, width), "stretch"), out)
    return codec.encode_png(out), "image/png"


def damage(dataset: Dataset, row: int) -> str | None:
    """Why the image of a catalog row can't be shown; None when it can."""
    try:
        thumbnail(dataset, row, SIDES[0])
    except (DamageError, UsageError) as error:
        return str(error)
    return None


def left_of(reject: Reject, side: int) -> bytes | None:
    """JPEG bytes of what can still be decoded of an image that was refused, None where there is nothing."""
    origin = re.sub(r":\d+$", "", reject.origin)
    for path in dict.fromkeys((Path(origin), Path(origin) / reject.id, Path(origin).parent / reject.id)):
        try:
            if not path.is_file():
                continue
            data = local.content(path, codec.MAX_PIXELS)
            header = codec.read_header(data)
            channels = header.channels if header.channels in (1, 3) else 3
            pixels = codec.decode(data, header=header, channels=channels, min_size=(side, side), lenient=True)
        except (OSError, ValueError):  # BadImage among them
            continue
        h, w = pixels.shape[:2]
        scale = min(1.0, side / max(h, w))
        size = max(1, round(h * scale)), max(1, round(w * scale))
        out = np.empty((*size, pixels.shape[2]), np.uint8)
        draw(pixels, place(h, w, size, "stretch"), h, w, out)
        return codec.encode_jpeg(codec.upright(out, header.orientation), quality=_QUALITY, chroma="420")
    return None
