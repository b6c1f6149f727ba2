"""Cache: images of a view after decoding and resizing, in memory. Augmentation comes after it."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Fit, Placement, Size, draw_warp, place
from headrace.load.copies import Payloads
from headrace.load.store import Drawing
from headrace.load.view import View


class MemoryCache:
    """The images of a view, uint8 [n, h, w, c], each filled in when it is first asked for. From any thread.

    Raises UsageError: they would not fit into the memory that this process may use.
    """

    def __init__(self, view: View, size: Size, fit: Fit, channels: int) -> None:
        shape = (len(view), *size, channels)
        wanted, there = prod(shape), parallel.memory()
        if wanted > 0.8 * there:
            raise UsageError(f"cache would take {wanted / 1e9:.1f} GB, this process may use {there / 1e9:.1f} GB")
        self._view, self._size, self._fit = view, size, fit
        self._images = np.empty(shape, np.uint8)
        self._filled = np.zeros(len(view), bool)

    def missing(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these positions [b] whose images are not there yet."""
        return positions[~self._filled[positions]]

    def drawing(self, positions: NDArray[np.int64], *held: Payloads) -> Drawing:
        """Who draws the images at these positions [b] of the view: mirrored and warped as their placement says, else as
        a placement of the whole image has them. held: see Store.drawing."""
        store, rows, numbers = self._view.store, self._view.rows[positions], positions.tolist()
        decode = None if self._filled[positions].all() else store.drawing(rows, *held)

        def draw(i: int, placement: Placement, out: Pixels) -> None:
            image = self._images[numbers[i]]
            if decode is not None and not self._filled[numbers[i]]:
                row, decoded = rows[i], np.empty_like(image)
                decode(i, place(int(store.height[row]), int(store.width[row]), self._size, self._fit), decoded)
                image[:] = decoded  # at once: another thread may be reading what it has put there itself
                self._filled[numbers[i]] = True
            out[:] = image[:, ::-1] if placement.flip else image
            draw_warp(placement, out)

        return draw
