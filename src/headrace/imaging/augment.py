"""Random changes of one image: where its pixels go, and their colours. Chance is handed over by the caller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Placement


class Augmentation(Protocol):
    """A random change of one image. `draws` says how many random numbers [0, 1) it wants per image.

    `crops`: whether it may show another part of the image than `fit` does, which a cache of final images can't give.
    `flips`: whether it may mirror, for which keypoints must be known by pairs.
    """

    draws: int
    crops: bool
    flips: bool

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        """The placement changed by the numbers `chance` [draws]."""
        ...

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        """Change the output's colours in place."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizontalFlip:
    """Mirrors left to right with probability `p`."""

    p: float = 0.5
    draws = 1
    crops = False
    flips = True

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, f"p is {self.p}, wanted 0 to 1")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement.mirrored() if chance[0] < self.p else placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomResizedCrop:
    """Takes a random part, `scale` of the image's area and `ratio` of width to height, and fills the output with it.

    As in Szegedy et al., "Going Deeper with Convolutions" (2015), section 6; a part too wide or too high for the image
    is cut to it. The part is taken from what `fit` would show.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    draws = 4
    crops = True
    flips = False

    def __post_init__(self) -> None:
        _check(0 < self.scale[0] <= self.scale[1] <= 1, f"scale is {self.scale}, wanted 0 < low <= high <= 1")
        _check(0 < self.ratio[0] <= self.ratio[1], f"ratio is {self.ratio}, wanted 0 < low <= high")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        x0, y0, x1, y1 = placement.window
        width, height = x1 - x0, y1 - y0
        of_area, of_ratio, of_x, of_y = map(float, chance)  # Python's own are faster one by one, and the same numbers
        area = height * width * (self.scale[0] + of_area * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = math.exp(low + of_ratio * (high - low))
        w = min(width, max(1, round(math.sqrt(area * ratio))))
        h = min(height, max(1, round(math.sqrt(area / ratio))))
        x, y = x0 + int(of_x * (width - w + 1)), y0 + int(of_y * (height - h + 1))
        size = placement.size
        return Placement((x, y, x + w, y + h), size, (0, 0, size[1], size[0]), placement.flip)

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorJitter:
    """Brightness and contrast times a random factor in [1 - x, 1 + x]; contrast turns around mid-grey (128)."""

    brightness: float = 0.2
    contrast: float = 0.2
    draws = 2
    crops = False
    flips = False

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            _check(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}, wanted 0 <= x < 1")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        brightness = 1 + (2 * chance[0] - 1) * self.brightness
        contrast = 1 + (2 * chance[1] - 1) * self.contrast
        levels = (np.arange(256) * brightness - 128) * contrast + 128
        cv2.LUT(out, np.clip(np.rint(levels), 0, 255).astype(np.uint8), dst=out)


def check_augment(given: Any) -> tuple[Augmentation, ...]:
    """The augmentations of a sequence, or a single one. Raises UsageError: one is none."""
    alone = isinstance(given, str) or not isinstance(given, Iterable)
    changes = (given,) if alone else tuple(given)
    for change in changes:
        missing = [name for name in _ASKED if not hasattr(change, name)]
        if isinstance(change, type) or missing:
            name = f"the class {change.__name__}" if isinstance(change, type) else f"{change!r:.80}"
            what = "which is to be called" if isinstance(change, type) and not missing else f"without {missing[0]}"
            raise UsageError(
                f"augment: {name}, {what}; wanted augmentations such as hr.HorizontalFlip(), or objects of your own "
                f"with {', '.join(_ASKED)} (headrace.augment.Augmentation; docs/tutorials/your-own.md makes one)"
            )
    return changes


_ASKED = ("draws", "crops", "flips", "place", "colour")


def _check(good: bool, message: str) -> None:
    if not good:
        raise UsageError(message)


# By the names that recipes and the command line have for them.
AUGMENTATIONS: Mapping[str, Augmentation] = {
    "flip": HorizontalFlip(),
    "crop": RandomResizedCrop(),
    "colour": ColorJitter(),
}
