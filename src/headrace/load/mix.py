"""Mix: batches in which each image is made of several. Which of them meet is chance by (seed, epoch, record) alone.

What targets are averaged, and which objects there are, is left to targets and store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Placement, Size, draw, place
from headrace.load.store import Objects

_STREAM = -1  # of random numbers; those of augmentations count from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MixUp:
    """Each image is averaged with another one, by a weight out of Beta(`alpha`, `alpha`), and its target with it.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2017), with a weight of its own for each image.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check(0 < self.alpha < math.inf, f"alpha is {self.alpha}, wanted a number above 0")

    def draw(self, image: Pixels, other: Pixels, rng: np.random.Generator, out: Pixels) -> float:
        """Draws `out` [h, w, c], and gives the share (0 to 1) that `image` has in it."""
        share = float(rng.beta(self.alpha, self.alpha))
        cv2.addWeighted(image, share, other, 1 - share, 0, dst=out)
        return share


@dataclass(frozen=True, slots=True, kw_only=True)
class CutMix:
    """A rectangle of another image covers a part of each, of an area out of Beta(`alpha`, `alpha`), and targets are
    averaged by area.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019).
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.alpha < math.inf, f"alpha is {self.alpha}, wanted a number above 0")

    def draw(self, image: Pixels, other: Pixels, rng: np.random.Generator, out: Pixels) -> float:
        """Draws `out` [h, w, c], and gives the share (0 to 1) that `image` has in it."""
        height, width = image.shape[:2]
        side = math.sqrt(1 - float(rng.beta(self.alpha, self.alpha)))
        of_x, of_y = rng.random(2).tolist()
        x0, x1 = _side(of_x, side, width)
        y0, y1 = _side(of_y, side, height)
        out[:] = image
        out[y0:y1, x0:x1] = other[y0:y1, x0:x1]
        covered: float = (y1 - y0) * (x1 - x0) / (height * width)
        return 1 - covered


@dataclass(frozen=True, slots=True, kw_only=True)
class Mosaic:
    """Four images in the quarters of each, which meet at a point between `middle` and 1 - `middle` of both sides; boxes
    and keypoints come along.

    As in Bochkovskiy et al., "YOLOv4" (2020), but that each quarter shows as much of its image as its shape allows, the
    centre of it, instead of a corner of it in full size. Its own image is at the top left.
    """

    middle: float = 0.35

    def __post_init__(self) -> None:
        _check(0 < self.middle <= 0.5, f"middle is {self.middle}, wanted 0 < x <= 0.5")

    def quarters(self, rng: np.random.Generator, size: Size) -> list[tuple[Placement, int, int]]:
        """Where each of the four images goes in its quarter, and the quarter's x and y; reading order."""
        height, width = size
        along, down = (self.middle + rng.random(2) * (1 - 2 * self.middle)).tolist()
        x, y = min(max(1, round(along * width)), width - 1), min(max(1, round(down * height)), height - 1)
        xs, ys = ((0, x), (x, width)), ((0, y), (y, height))
        return [
            (place(height, width, (bottom - top, right - left), "crop"), left, top)
            for top, bottom in ys
            for left, right in xs
        ]


Mix: TypeAlias = MixUp | CutMix | Mosaic


def check_mix(mix: Any, size: Size) -> None:
    """Raises UsageError: it is none, or the images are too small for it."""
    if not isinstance(mix, MixUp | CutMix | Mosaic):
        name = f"the class {mix.__name__}" if isinstance(mix, type) else f"{mix!r:.80}"
        raise UsageError(f"mix: {name}, wanted hr.MixUp(), hr.CutMix() or hr.Mosaic()")
    if isinstance(mix, Mosaic) and min(size) < 2:
        raise UsageError(f"mix: images of {size[0]}x{size[1]} have no quarters, which Mosaic fills")


def partners(keys: NDArray[np.uint64], n: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """int64 [b, n]: with which others of these records [b] each meets, by their places.

    The records stand in a ring, in an order that is chance, and each meets those that follow it: none meets itself
    while there are others, and each is met as often as any.
    """
    b = len(keys)
    ring = np.argsort(order.uniform(keys, seed=seed, epoch=epoch, stream=_STREAM), kind="stable")
    met = np.empty((b, n), np.int64)
    for k in range(n):
        met[ring, k] = np.roll(ring, -k - 1)
    return met


def averaged(
    mix: MixUp | CutMix,
    images: NDArray[np.uint8],
    targets: NDArray[np.float32] | None,
    keys: NDArray[np.uint64],
    out: NDArray[np.uint8],
    *,
    seed: int,
    epoch: int,
) -> NDArray[np.float32] | None:
    """Draws what becomes of images [b, h, w, c] into `out`, and gives that of their targets float32 [b, ...]."""
    met = partners(keys, 1, seed=seed, epoch=epoch)[:, 0]
    shares = np.zeros(len(keys), np.float32)
    for i, (key, other) in enumerate(zip(keys.tolist(), met.tolist(), strict=True)):
        rng = order.generator(key, _STREAM, seed=seed, epoch=epoch)
        shares[i] = mix.draw(images[i], images[other], rng, out[i])
    if targets is None:
        return None
    share = shares.reshape(-1, *(1,) * (targets.ndim - 1))
    mixed: NDArray[np.float32] = share * targets + (1 - share) * targets[met]
    return mixed


def mosaics(
    mix: Mosaic,
    objects: Sequence[Objects],
    keys: NDArray[np.uint64],
    size: Size,
    *,
    images: NDArray[np.uint8] | None = None,
    out: NDArray[np.uint8] | None = None,
    seed: int,
    epoch: int,
    min_visible: float,
) -> list[Objects]:
    """The objects of each of b mosaics of images with these `objects`; draws `images` [b, h, w, c] into `out`."""
    met = partners(keys, 3, seed=seed, epoch=epoch)
    made = []
    for i, key in enumerate(keys.tolist()):
        parts = []
        quarters = mix.quarters(order.generator(key, _STREAM, seed=seed, epoch=epoch), size)
        for (placement, x, y), image in zip(quarters, [i, *met[i].tolist()], strict=True):
            if images is not None and out is not None:
                height, width = placement.size
                draw(images[image], placement, *size, out[i, y : y + height, x : x + width])
            there = objects[image]
            here = there._replace(of=np.zeros(len(there.of), np.int64))
            parts.append(here.carried([placement], min_visible=min_visible).shifted(x, y))
        made.append(Objects.joined(parts))
    return made


def _side(middle: float, share: float, length: int) -> tuple[int, int]:
    """Where a part of `share` of a side around `middle` (0 to 1) of it begins and ends, cut to it; whole pixels."""
    start, stop = (middle - share / 2) * length, (middle + share / 2) * length
    return max(0, round(start)), min(length, round(stop))


def _check(good: bool, message: str) -> None:
    if not good:
        raise UsageError(message)
