"""Raw image files through the same code as packing and loading: what `predict` feeds a model with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace import parallel
from headrace.errors import UsageError
from headrace.imaging import codec
from headrace.imaging.transforms import Fit, check_fit, check_size, place
from headrace.load.dataset import draw_stored
from headrace.load.loader import Batch
from headrace.packing.prepare import ImageOptions, prepare
from headrace.record import Reject


class PhotoLoader:
    """Iterates (Batch, Rejects) of image files in the order given, `batch_size` files at a time.

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

    def __iter__(self) -> Iterator[tuple[Batch, list[Reject]]]:
        starts = range(0, len(self.paths), self.batch_size)
        return parallel.ordered(self._make, starts, workers=self.workers, ahead=self.workers + 1)

    def _make(self, start: int) -> tuple[Batch, list[Reject]]:
        paths = self.paths[start : start + self.batch_size]
        images = np.empty((len(paths), *self.size, self.channels), np.uint8)
        good: list[str] = []
        rejects: list[Reject] = []
        for path in paths:
            try:
                self._draw(Path(path).read_bytes(), images[len(good)])
                good.append(path)
            except codec.BadImage as error:
                rejects.append(Reject(id=path, origin=path, stage=error.stage, reason=error.reason))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                rejects.append(Reject(id=path, origin=path, stage="read", reason=reason))
        return Batch(images[: len(good)], None, tuple(good)), rejects

    def _draw(self, data: bytes, out: codec.Pixels) -> None:
        stored = prepare(data, self.options)
        placement = place(stored.height, stored.width, self.size, self.fit)
        encoded = np.frombuffer(stored.encoded, np.uint8)
        draw_stored(encoded, stored.format, stored.height, stored.width, placement, out)
