"""Draft: a batch that is being made, the pieces of that work, and its memory. What is done is left to the loader."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.imaging.augment import Change
from headrace.imaging.placement import Placement
from headrace.load.store import Drawing, Objects

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch of b records: their `positions` int64 [b] in the view and `rows` int64 [b] in the store, where each one's
    pixels go, and room for them, `images` [b, ...].

    `changes`: what changes an image that is drawn, and each image's random numbers for it. `kept`: room for what the
    dataset keeps of y, [b, ...] by name. `bad`: why a record is left out, by its place in the batch; from any thread.
    `keys`: what each one's random numbers are drawn by, where there are any.
    `objects`: those of each image, where transforms change them; else nothing, and the placements say where they are.
    """

    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    placements: list[Placement]
    changes: list[tuple[Change, NDArray[np.float64]]]
    draw: Drawing
    images: NDArray[Any]
    kept: dict[str, NDArray[Any]]
    bad: dict[int, str]
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    epoch: int = 0
    objects: list[Objects] = field(default_factory=list)


def pieces(
    begin: Callable[[], Draft],
    fill: Callable[[Draft, int, int], None],
    finish: Callable[[Draft], Made],
    *,
    n: int,
) -> list[Callable[[], Made | None]]:
    """`n` pieces of the work on one batch, for threads in any order: the first to begin drafts it, each fills its share
    of the images, and the last to end finishes it and returns what that gave; the others return None.

    What a piece raises is raised where its result is asked for, and then nothing is finished.
    """
    work = _Work(begin, n)

    def piece(k: int) -> Made | None:
        draft = work.draft()
        b = len(draft.rows)
        fill(draft, b * k // n, b * (k + 1) // n)
        return finish(draft) if work.is_last() else None

    return [partial(piece, k) for k in range(n)]


class _Work:
    """What the pieces of a batch share."""

    def __init__(self, begin: Callable[[], Draft], n: int) -> None:
        self._begin, self._left = begin, n
        self._draft: Draft | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def draft(self) -> Draft:
        with self._lock:
            if self._error is not None:  # begun again, it would wait for records that nobody fetches any more
                raise self._error
            if self._draft is None:
                try:
                    self._draft = self._begin()
                except BaseException as error:
                    self._error = error
                    raise
            return self._draft

    def is_last(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


class Blocks:
    """Memory for batches of up to `b` images, [b, *shape] of `dtype`, used again once nobody has a part of it.

    New memory of some megabytes comes from the system page by page, each of them zeroed, for every batch: 4 % of what
    the decoder takes for small photos, and more where faults are dear. An array's parts, and what frameworks make of
    it without a copy, hold on to the array that was given, so its end says that the memory is free; at most `most`
    free ones are kept. From any thread.
    """

    def __init__(self, b: int, shape: tuple[int, ...], dtype: np.dtype[Any], *, most: int) -> None:
        self._shape, self._dtype = (b, *shape), dtype
        self._free: deque[memoryview] = deque(maxlen=most)

    def take(self, b: int) -> NDArray[Any]:
        """Room for `b` images, [b, *shape], with anything in it; for more than those of a batch it is new."""
        if b > self._shape[0]:
            return np.empty((b, *self._shape[1:]), self._dtype)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(math.prod(self._shape) * self._dtype.itemsize, np.uint8).data
        # Parts of an array hold on to the array at the bottom; over a memoryview that is this one, which may end.
        whole: NDArray[Any] = np.frombuffer(memory, self._dtype)
        weakref.finalize(whole, self._free.append, memory).atexit = False
        return whole.reshape(self._shape)[:b]

    def clear(self) -> None:
        """Keeps no memory any more but what is in use, and that only as long."""
        self._free = deque(maxlen=self._free.maxlen)
