"""Pictures of what a run says of images: on the image itself or on what the model saw of it, and sheets of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from headrace import order
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import draw, place
from headrace.imaging.sheet import Tile, contact_sheet
from headrace.learn.run import Answer, Run
from headrace.learn.tasks import Task
from headrace.load.dataset import Dataset
from headrace.load.photos import Framing

Observe = Callable[[Mapping[str, Any], Framing], Any]

SIDE = 480  # the longer side of a photo with what was found drawn on it, on a sheet


class Records:
    """Records of a dataset and what was found in them: `n` evenly drawn, or with `worst` those furthest off."""

    def __init__(self, run: Run, task: Task, dataset: Dataset, *, n: int, worst: bool = False) -> None:
        self.run, self.task, self.dataset, self.n, self.worst = run, task, dataset, n, worst
        self.shows = not run.recipe.keeps
        self._drawn = set(order.evenly(len(dataset), n).tolist())
        self._kept: list[tuple[float, int, Answer, Any]] = []

    def wants(self, number: int) -> bool:
        """Whether the record of this number may come to be on the sheet."""
        return self.shows and (self.worst or number in self._drawn)

    def add(self, number: int, answer: Answer, observed: Any) -> None:
        """A record that is wanted; `observed` None where nobody knows."""
        off = self.task.wrong(answer.found, observed) if self.worst and observed is not None else 0.0
        entry = (off, -number, answer, observed)
        if len(self._kept) < self.n:
            heapq.heappush(self._kept, entry)
        elif entry[:2] > self._kept[0][:2]:
            heapq.heapreplace(self._kept, entry)

    def tiles(self) -> list[Tile]:
        """The worst first, or all in their order."""
        found = sorted(self._kept, key=lambda entry: entry[:2], reverse=True)
        return [self._tile(-number, answer, observed) for _, number, answer, observed in found]

    def sheet(self, title: str) -> Image.Image | None:
        """The contact sheet, None where there are no pixels to show."""
        tiles = self.tiles()
        if not tiles:
            return None
        return contact_sheet(
            tiles, title=title, large=self.task.draw_on_original, columns=4 if self.task.draw_on_original else 8
        )

    def _tile(self, number: int, answer: Answer, observed: Any) -> Tile:
        image = in_colour(self.dataset[number].image) if self.task.draw_on_original else answer.image
        tile = self.task.tile(image, answer.found, observed)
        return replace(tile, image=small(tile.image), caption=f"{tile.caption}\n{answer.id}")


def observed(observe: Observe | None, row: Mapping[str, Any]) -> Any:
    """What a dataset says is in the image of a catalog row, in pixels of the stored image; None where nobody knows.

    The boxes and points of the catalog are in these pixels already: there is no way to go back.
    """
    size = row["height"], row["width"]
    return None if observe is None else observe(row, Framing(*size, (), size))


def in_colour(image: Pixels) -> Pixels:
    """uint8 [h, w, 3] of [h, w, 1] or [h, w, 3]."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def small(image: Pixels) -> Pixels:
    """uint8 [h, w, c] as it will be on a sheet: its longer side SIDE pixels at most."""
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    out = np.empty((*size, image.shape[2]), np.uint8)
    draw(image, place(height, width, size, "stretch"), height, width, out)
    return out
