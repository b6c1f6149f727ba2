"""Raw photos through the same code as packing and loading: what `predict` feeds a model with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headrace import parallel
from headrace.errors import UsageError
from headrace.imaging import codec, geometry, levels
from headrace.imaging.placement import Fit, Size, check_fit, check_size, place
from headrace.imaging.prepare import ImageOptions, prepare
from headrace.load.iteration import Batch
from headrace.load.store import draw_stored
from headrace.record import Boxes, Keypoints, Reject


@dataclass(frozen=True, slots=True)
class Framing:
    """How a photo came into its batch: its `height` and `width` upright, the `moves` of its pixels in order, and the
    `size` (height, width) of the image they came to."""

    height: int
    width: int
    moves: tuple[geometry.Move, ...]
    size: Size

    def back(self, boxes: Boxes) -> Boxes:
        """Boxes float32 [n, 4] in pixels of the batch's image as pixels of the oriented photo, cut to it."""
        for move in reversed(self.moves):
            boxes = _inverse(move).boxes(boxes)
        return geometry.clip(boxes, self.height, self.width)

    def back_points(self, points: Keypoints) -> Keypoints:
        """The same of points float32 [..., 3] = x, y and v or score; those outside of the photo go to its border."""
        for move in reversed(self.moves):
            points = _inverse(move).points(points)
        points[..., :2] = np.clip(points[..., :2], 0, np.array([self.width, self.height], np.float32))
        return points


class Photos(NamedTuple):
    """A batch, what was refused, and how each photo of the batch came into it."""

    batch: Batch
    rejects: list[Reject]
    views: tuple[Framing, ...]


# A path, pixels uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB), or an image of Pillow.
Photo: TypeAlias = "str | os.PathLike[str] | NDArray[Any] | Image.Image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What a photo goes through before a model sees it: what packing did (`pack_options`), then `size` by `fit`."""

    pack_options: Mapping[str, Any]
    size: Size
    fit: Fit
    channels: int


class HasPreparation(Protocol):
    """What images are loaded in a known way for: a Loader, or the recipe of a run."""

    @property
    def preparation(self) -> Preparation: ...


class PhotoLoader:
    """Iterates Photos: raw images in the order given, prepared exactly as in training, `batch_size` at a time.

    `like` says how: a Loader, of a model of one's own, or the `recipe` of a Run. Without it `size` does, by `fit`, and
    `pack_options`, the `manifest.pack_options` of a packed dataset, for what packing does to an image; `channels` is 1
    or 3. Each photo is made into the bytes that packing would store, and those are loaded as a Loader does it.

    Photos are paths, arrays uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB), or PIL images, which are turned upright. A
    batch's `images` are uint8 [b, size, channels], its `ids` the paths, or "image 0" and so on, its `targets` None. One
    that can't be used is a Reject, and missing from its batch. `names` are the ids of all photos. Raises UsageError.
    """

    def __init__(
        self,
        photos: Iterable[Photo],
        *,
        like: HasPreparation | None = None,
        pack_options: Mapping[str, Any] | None = None,
        size: int | tuple[int, int] | None = None,
        fit: Fit = "stretch",
        channels: int = 3,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> None:
        if isinstance(photos, str | os.PathLike):
            raise UsageError(f"photos is {os.fspath(photos)!r}, wanted a list of them")
        self.photos = list(photos)
        self.names = [
            os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"image {i}"
            for i, photo in enumerate(self.photos)
        ]
        if like is not None:
            if size is not None or pack_options is not None or fit != "stretch" or channels != 3:
                raise UsageError("like says how photos are prepared: leave out size, fit, channels and pack_options")
            way = like.preparation
            pack_options, size, fit, channels = way.pack_options, way.size, way.fit, way.channels
        checked = check_size(size)
        if checked is None:
            raise UsageError("pass like, a Loader or the recipe of a Run, or the size that images are brought to")
        self.options = ImageOptions.from_json(pack_options or {})
        self.size = checked
        self.fit = check_fit(fit)
        if channels not in (1, 3):
            raise UsageError(f"channels is {channels}, wanted 1 or 3")
        self.channels = channels
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, wanted at least 1")
        self.batch_size = batch_size
        self.workers = parallel.check_workers(workers)
        self._pool = parallel.Pool(self.workers)

    def __len__(self) -> int:
        return -(-len(self.photos) // self.batch_size)

    def __iter__(self) -> Iterator[Photos]:
        starts = range(0, len(self.photos), self.batch_size)
        ahead = parallel.ahead(self.workers, self.batch_size * prod(self.size) * self.channels)
        return parallel.ordered(self._make, starts, workers=self._pool, ahead=ahead)

    def _make(self, start: int) -> Photos:
        photos = self.photos[start : start + self.batch_size]
        images = np.empty((len(photos), *self.size, self.channels), np.uint8)
        good: list[str] = []
        views: list[Framing] = []
        rejects: list[Reject] = []
        for id_, photo in zip(self.names[start : start + self.batch_size], photos, strict=True):
            try:
                views.append(self._draw(encoded(photo, self.options), images[len(good)]))
                good.append(id_)
            except codec.BadImage as error:
                rejects.append(Reject(id=id_, origin=id_, stage=error.stage, reason=error.reason))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                rejects.append(Reject(id=id_, origin=id_, stage="read", reason=reason))
        return Photos(Batch(images[: len(good)], None, tuple(good)), rejects, tuple(views))

    def _draw(self, data: bytes, out: codec.Pixels) -> Framing:
        stored = prepare(data, self.options)
        placement = place(stored.height, stored.width, self.size, self.fit)
        encoded = np.frombuffer(stored.encoded, np.uint8)
        draw_stored(encoded, stored.format, stored.height, stored.width, placement, out)
        header = codec.read_header(data, max_pixels=self.options.max_pixels, value_range=self.options.value_range)
        height, width = header.height, header.width
        if header.orientation in (5, 6, 7, 8):
            height, width = width, height
        packed = place(height, width, (stored.height, stored.width), self.options.fit)
        return Framing(height, width, (packed.move, placement.move), self.size)


def encoded(photo: Photo, options: ImageOptions) -> bytes:
    """A photo as the bytes of an image file; pixels lose nothing. Raises BadImage, OSError."""
    if isinstance(photo, str | os.PathLike):
        return Path(photo).read_bytes()
    if isinstance(photo, Image.Image):
        try:
            photo = np.asarray(_plain(photo))
        except OSError as error:  # Pillow reads an image's file when its pixels are asked for
            raise codec.BadImage("decode", str(error)) from error
    if not isinstance(photo, np.ndarray):
        raise UsageError(f"a photo is {photo!r:.80}, wanted a path, an array or an image of Pillow")
    pixels = photo[..., np.newaxis] if photo.ndim == 2 else photo
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise codec.BadImage("decode", f"an array {list(photo.shape)}, wanted [h, w], [h, w, 1] or [h, w, 3]")
    if pixels.dtype != np.uint8:
        if options.value_range is None or pixels.dtype.kind not in "buif":
            raise codec.BadImage("decode", f"an array of {pixels.dtype}, wanted uint8: pixels of 0 to 255")
        if (reason := levels.unfit(float(pixels.min()), float(pixels.max()), options.value_range)) is not None:
            raise codec.BadImage("decode", reason)
        pixels = levels.scaled(pixels, options.value_range)
    return codec.encode_png(pixels)


def _plain(image: Image.Image) -> Image.Image:
    """A PIL image upright, grey or RGB, as a file of it would be read: without alpha."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return upright
    if upright.mode in ("P", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return upright.convert("L" if upright.mode in ("1", "L", "LA", "La") else "RGB")


def read_photo(photo: Photo, options: ImageOptions) -> codec.Pixels:
    """The photo itself, uint8 [h, w, 3], upright. Raises BadImage, OSError."""
    data = encoded(photo, options)
    header = codec.read_header(data, max_pixels=options.max_pixels, value_range=options.value_range)
    return codec.upright(codec.decode(data, header=header, channels=3), header.orientation)


def _inverse(move: geometry.Move) -> geometry.Move:
    return geometry.Move(1 / move.scale_x, -move.shift_x / move.scale_x, 1 / move.scale_y, -move.shift_y / move.scale_y)
