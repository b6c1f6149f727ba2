"""Raw image files through the same code as packing and loading: what `predict` feeds a model with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headrace import parallel
from headrace.errors import UsageError
from headrace.imaging import codec, geometry
from headrace.imaging.levels import Range
from headrace.imaging.transforms import Fit, Size, check_fit, check_size, place
from headrace.load.loader import Batch
from headrace.load.store import draw_stored
from headrace.packing.prepare import ImageOptions, prepare
from headrace.record import Boxes, Keypoints, Reject


@dataclass(frozen=True, slots=True)
class View:
    """How a photo came into its batch: its `height` and `width` upright, the `moves` of its pixels in order, and the
    `size` (height, width) of the image they came to."""

    height: int
    width: int
    moves: tuple[geometry.Move, ...]
    size: Size

    def back(self, boxes: Boxes) -> Boxes:
        """Boxes float32 [n, 4] in pixels of the batch's image as pixels of the upright photo, cut to it."""
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
    views: tuple[View, ...]


class PhotoLoader:
    """Iterates Photos of image files in the order given, `batch_size` files at a time.

    Each file is made into the bytes that packing with `pack_options` would store, and those are loaded to `size` by
    `fit` as a Loader does: a model sees a photo exactly as it would have seen it in training. A file that can't be used
    is a Reject, and missing from its batch. `ids` are the paths as given, `targets` is None.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        pack_options: Mapping[str, Any],
        size: int | tuple[int, int],
        fit: Fit = "stretch",
        channels: int = 3,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.options = ImageOptions.from_json(pack_options)
        checked = check_size(size)
        assert checked is not None
        self.size = checked
        self.fit = check_fit(fit)
        self.channels = channels
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}, wanted at least 1")
        self.batch_size = batch_size
        self.workers = parallel.check_workers(workers)

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self) -> Iterator[Photos]:
        starts = range(0, len(self.paths), self.batch_size)
        return parallel.ordered(self._make, starts, workers=self.workers, ahead=self.workers + 1)

    def _make(self, start: int) -> Photos:
        paths = self.paths[start : start + self.batch_size]
        images = np.empty((len(paths), *self.size, self.channels), np.uint8)
        good: list[str] = []
        views: list[View] = []
        rejects: list[Reject] = []
        for path in paths:
            try:
                views.append(self._draw(Path(path).read_bytes(), images[len(good)]))
                good.append(path)
            except codec.BadImage as error:
                rejects.append(Reject(id=path, origin=path, stage=error.stage, reason=error.reason))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                rejects.append(Reject(id=path, origin=path, stage="read", reason=reason))
        return Photos(Batch(images[: len(good)], None, tuple(good)), rejects, tuple(views))

    def _draw(self, data: bytes, out: codec.Pixels) -> View:
        stored = prepare(data, self.options)
        placement = place(stored.height, stored.width, self.size, self.fit)
        encoded = np.frombuffer(stored.encoded, np.uint8)
        draw_stored(encoded, stored.format, stored.height, stored.width, placement, out)
        header = codec.read_header(data, max_pixels=self.options.max_pixels, value_range=self.options.value_range)
        height, width = header.height, header.width
        if header.orientation in (5, 6, 7, 8):
            height, width = width, height
        packed = place(height, width, (stored.height, stored.width), self.options.fit)
        return View(height, width, (packed.move, placement.move), self.size)


def read_photo(path: str, *, max_pixels: int, value_range: Range | None = None) -> codec.Pixels:
    """The photo itself, uint8 [h, w, 3], upright. Raises BadImage, OSError."""
    data = Path(path).read_bytes()
    header = codec.read_header(data, max_pixels=max_pixels, value_range=value_range)
    return codec.upright(codec.decode(data, header=header, channels=3), header.orientation)


def _inverse(move: geometry.Move) -> geometry.Move:
    return geometry.Move(1 / move.scale_x, -move.shift_x / move.scale_x, 1 / move.scale_y, -move.shift_y / move.scale_y)
