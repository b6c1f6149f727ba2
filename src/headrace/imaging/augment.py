"""Random changes of one image: where its pixels go, and their colours. Chance is handed over by the caller.

What colours are changed to is left to colours, a function of the caller's own to called, other libraries' transforms to
the feeds (torchvision, albumentations).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging import colours
from headrace.imaging.called import Called, Transform, is_transform
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Warp
from headrace.imaging.placement import Placement

if TYPE_CHECKING:
    from headrace.feeds.albumentations import Albumentations
    from headrace.feeds.torchvision import Torchvision


class Change(Protocol):
    """A random change of one image. `draws` says how many random numbers [0, 1) it wants per image.

    `crops`: whether it may show another part of the image than `fit` does, which a cache of final images can't give.
    `flips`: whether it may mirror, for which keypoints must be known by pairs.
    `moves`, where it has that: whether pixels move at all; else they do where it crops or flips.

    All placing comes before all drawing: a crop is of the photo, whatever is drawn on it, and colours and transforms
    are of the image at its final size, in the order in which they are given.
    """

    @property
    def draws(self) -> int: ...

    @property
    def crops(self) -> bool: ...

    @property
    def flips(self) -> bool: ...

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        """The placement changed by the numbers `chance` [draws]."""
        ...

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        """Change the output's colours in place."""
        ...


Augmentation: TypeAlias = Change | Transform
"""What `augment` takes: a Change, or any callable of (pixels, boxes, points, rng)."""


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
        left, top, right, bottom = _part(x1 - x0, y1 - y0, self.scale, self.ratio, chance)
        window = (x0 + left, y0 + top, x0 + right, y0 + bottom)
        size = placement.size
        return Placement(window, size, (0, 0, size[1], size[0]), placement.flip, placement.warp)

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
        colours.look_up(out, (np.arange(256) * brightness - 128) * contrast + 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Turns by up to `degrees` either way, shifts by up to `translate` of each side, scales by a factor out of `scale`
    and shears by up to `shear` degrees along x, all around the middle of the image. What comes from outside is black.

    It moves pixels that are drawn at the loader's size; where an image is to be shown much larger, RandomResizedCrop
    takes the part out of the photo itself.
    """

    degrees: float = 10.0
    translate: float = 0.1
    scale: tuple[float, float] = (0.9, 1.1)
    shear: float = 0.0
    draws = 5
    crops = False
    flips = False
    moves = True

    def __post_init__(self) -> None:
        _check(0 <= self.degrees <= 180, f"degrees is {self.degrees}, wanted 0 to 180")
        _check(0 <= self.translate < 1, f"translate is {self.translate}, wanted 0 <= x < 1")
        _check(0 < self.scale[0] <= self.scale[1], f"scale is {self.scale}, wanted 0 < low <= high")
        _check(0 <= self.shear < 90, f"shear is {self.shear}, wanted 0 <= x < 90")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        angle, right, down, of_scale, shear = map(float, chance)
        height, width = placement.size
        low, high = math.log(self.scale[0]), math.log(self.scale[1])
        scale = math.exp(low + of_scale * (high - low))
        turned = _turn(_either(angle) * self.degrees)
        sheared = Warp(scale, scale * math.tan(math.radians(_either(shear) * self.shear)), 0, 0, scale, 0)
        shift = Warp(1, 0, _either(right) * self.translate * width, 0, 1, _either(down) * self.translate * height)
        return placement.warped(shift.after(turned.after(sheared).around(width / 2, height / 2)))

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianBlur:
    """Blurs, with probability `p`, by a standard deviation out of `sigma`, in pixels."""

    sigma: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5
    draws = 2
    crops = False
    flips = False

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, f"p is {self.p}, wanted 0 to 1")
        _check(0 < self.sigma[0] <= self.sigma[1] <= 50, f"sigma is {self.sigma}, wanted 0 < low <= high <= 50")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        if chance[0] < self.p:
            colours.blur(out, _between(self.sigma, chance[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianNoise:
    """Adds, with probability `p`, normal numbers of a standard deviation out of `sigma` to each value (0 to 255)."""

    sigma: tuple[float, float] = (2.0, 12.0)
    p: float = 0.5
    draws = 3
    crops = False
    flips = False

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, f"p is {self.p}, wanted 0 to 1")
        _check(0 <= self.sigma[0] <= self.sigma[1] <= 255, f"sigma is {self.sigma}, wanted 0 <= low <= high <= 255")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        if chance[0] < self.p:
            colours.add_noise(out, _between(self.sigma, chance[1]), _seed(chance[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomErasing:
    """Covers, with probability `p`, a part of `scale` of the image's area and `ratio` of width to height with noise.

    Zhong et al., "Random Erasing Data Augmentation" (2017), algorithm 1 and its random values; a part too wide or too
    high is cut to the image instead of drawn again. Boxes and points stay: what is hidden is to be found all the same.
    """

    scale: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    p: float = 0.5
    draws = 6
    crops = False
    flips = False

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, f"p is {self.p}, wanted 0 to 1")
        _check(0 < self.scale[0] <= self.scale[1] <= 1, f"scale is {self.scale}, wanted 0 < low <= high <= 1")
        _check(0 < self.ratio[0] <= self.ratio[1], f"ratio is {self.ratio}, wanted 0 < low <= high")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        if chance[0] >= self.p:
            return
        height, width = out.shape[:2]
        x0, y0, x1, y1 = _part(width, height, self.scale, self.ratio, chance[1:5])
        colours.fill_with_noise(out[y0:y1, x0:x1], _seed(chance[5]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grayscale:
    """Makes it grey, in as many channels as it has, with probability `p`."""

    p: float = 0.1
    draws = 1
    crops = False
    flips = False

    def __post_init__(self) -> None:
        _check(0 <= self.p <= 1, f"p is {self.p}, wanted 0 to 1")

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        if chance[0] < self.p:
            out[:] = colours.grey(out)[..., np.newaxis]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandAugment:
    """`n` changes out of 14, each as likely as any other, of the strength `magnitude` (0 to 30).

    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space" (2020): identity,
    autocontrast, equalize, rotate, solarize, colour, posterize, contrast, brightness, sharpness, shear and translate
    along x and y. Strengths are torchvision's: 30 turns by 30 degrees, shears by 0.3, shifts by 150/331 of a side,
    takes 4 bits, inverts all, and changes by a factor of 1 - 0.9 or 1 + 0.9; what has a sign has either. Pixels are
    moved first, boxes and points with them, and colours changed then.
    """

    n: int = 2
    magnitude: float = 9
    crops = False
    flips = False
    moves = True

    def __post_init__(self) -> None:
        _check(isinstance(self.n, int) and self.n >= 1, f"n is {self.n!r}, wanted a whole number of 1 and more")
        _check(0 <= self.magnitude <= 30, f"magnitude is {self.magnitude}, wanted 0 to 30")

    @property
    def draws(self) -> int:
        return 2 * self.n

    def place(self, placement: Placement, chance: NDArray[np.float64]) -> Placement:
        height, width = placement.size
        for name, strength in self._drawn(chance):
            if (made := _MOVED.get(name)) is not None:
                placement = placement.warped(made(strength, width, height).around(width / 2, height / 2))
        return placement

    def colour(self, out: Pixels, chance: NDArray[np.float64]) -> None:
        for name, strength in self._drawn(chance):
            if (change := _COLOURED.get(name)) is not None:
                change(out, strength)

    def _drawn(self, chance: NDArray[np.float64]) -> list[tuple[str, float]]:
        """The names of what is done, and how strongly, -1 to 1."""
        strength = self.magnitude / 30
        pairs = chance.reshape(-1, 2).tolist()
        return [(_POLICY[int(which * len(_POLICY))], strength if sign < 0.5 else -strength) for which, sign in pairs]


def _turn(degrees: float) -> Warp:
    """Against the clock, around the origin; y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return Warp(cos, sin, 0, -sin, cos, 0)


# What moves pixels: the warp around the middle, by strength (-1 to 1), width and height.
_MOVED: Mapping[str, Callable[[float, int, int], Warp]] = {
    "rotate": lambda strength, width, height: _turn(30 * strength),
    "shear x": lambda strength, width, height: Warp(1, 0.3 * strength, 0, 0, 1, 0),
    "shear y": lambda strength, width, height: Warp(1, 0, 0, 0.3 * strength, 1, 0),
    "translate x": lambda strength, width, height: Warp(1, 0, 150 / 331 * width * strength, 0, 1, 0),
    "translate y": lambda strength, width, height: Warp(1, 0, 0, 0, 1, 150 / 331 * height * strength),
}
_COLOURED: Mapping[str, Callable[[Pixels, float], None]] = {
    "autocontrast": lambda out, strength: colours.autocontrast(out),
    "equalize": lambda out, strength: colours.equalize(out),
    "solarize": lambda out, strength: colours.solarize(out, 255 * (1 - abs(strength))),
    "posterize": lambda out, strength: colours.posterize(out, 8 - round(4 * abs(strength))),
    "saturate": lambda out, strength: colours.saturate(out, 1 + 0.9 * strength),
    "contrast": lambda out, strength: colours.contrast(out, 1 + 0.9 * strength),
    "brighten": lambda out, strength: colours.brighten(out, 1 + 0.9 * strength),
    "sharpen": lambda out, strength: colours.sharpen(out, 1 + 0.9 * strength),
}
_POLICY = ("identity", *_MOVED, *_COLOURED)


def torchvision(transform: Any) -> Torchvision:
    """A transform of torchvision.transforms.v2, or a `v2.Compose` of several, as an augmentation.

    It gets an Image, BoundingBoxes and KeyPoints; random numbers that torch draws in it depend on (seed, epoch, record)
    alone, and no other thread sees them. Raises UsageError, MissingExtraError.
    """
    from headrace.feeds.torchvision import Torchvision

    return Torchvision(transform)


def albumentations(transform: Any) -> Albumentations:
    """A transform of Albumentations, or an `A.Compose` of several, as an augmentation.

    Boxes and keypoints are passed without `bbox_params` and `keypoint_params`; of those that are given, the thresholds
    count. Random numbers depend on (seed, epoch, record) alone. Raises UsageError, MissingExtraError.
    """
    from headrace.feeds.albumentations import Albumentations

    return Albumentations(transform)


def check_augment(given: Any) -> tuple[Change, ...]:
    """The augmentations of a sequence, or a single one; a callable comes as Called. Raises UsageError: one is none."""
    alone = isinstance(given, str) or not isinstance(given, Iterable) or _library(given) is not None
    return tuple(map(_checked, (given,) if alone else tuple(given)))


def moves(change: Change) -> bool:
    """Whether pixels may come elsewhere by it than `fit` has them."""
    default = isinstance(change, Called) or change.crops or change.flips
    return bool(getattr(change, "moves", default))


def name_of(change: Change) -> str:
    """What it is, for people."""
    return change.name if isinstance(change, Called) else type(change).__name__


def _checked(given: Any) -> Change:
    if (library := _library(given)) is not None:
        raise UsageError(f"augment: {type(given).__name__} is of {library}; {_LIBRARIES[library]}")
    missing = [name for name in _ASKED if not hasattr(given, name)]
    if missing and not isinstance(given, type) and is_transform(given):
        return Called(given)
    if isinstance(given, type) or missing:
        name = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.80}"
        what = "which is to be called" if isinstance(given, type) and not missing else f"without {missing[0]}"
        raise UsageError(
            f"augment: {name}, {what}; wanted augmentations such as hr.HorizontalFlip(), a function of (pixels, boxes, "
            f"points, rng), or objects of your own with {', '.join(_ASKED)} (headrace.augment.Augmentation; "
            "docs/tutorials/your-own.md makes one)"
        )
    change: Change = given
    return change


def _library(given: Any) -> str | None:
    """Which other library's transform this is, of those that people pass as they are."""
    name = type(given).__module__.partition(".")[0]
    return name if name in _LIBRARIES else None


_LIBRARIES = {
    "torchvision": "pass hr.augment.torchvision(…) of it",
    "albumentations": "pass hr.augment.albumentations(…) of it",
    "keras": "make it a layer of the model, or pass a function of (pixels, boxes, points, rng)",
}
_ASKED = ("draws", "crops", "flips", "place", "colour")


def _part(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], chance: NDArray[np.float64]
) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a random part by four numbers: `scale` of the area, `ratio` of width to height, cut to it."""
    of_area, of_ratio, of_x, of_y = map(float, chance)  # Python's own are faster one by one, and the same numbers
    area = height * width * (scale[0] + of_area * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    drawn = math.exp(low + of_ratio * (high - low))
    w = min(width, max(1, round(math.sqrt(area * drawn))))
    h = min(height, max(1, round(math.sqrt(area / drawn))))
    x, y = int(of_x * (width - w + 1)), int(of_y * (height - h + 1))
    return x, y, x + w, y + h


def _either(chance: float) -> float:
    """-1 to 1 of 0 to 1."""
    return 2 * chance - 1


def _between(limits: tuple[float, float], chance: float) -> float:
    return limits[0] + float(chance) * (limits[1] - limits[0])


def _seed(chance: float) -> int:
    """All bits of a random number."""
    return int(chance * 2.0**53)


def _check(good: bool, message: str) -> None:
    if not good:
        raise UsageError(message)


# By the names that recipes and the command line have for them.
AUGMENTATIONS: Mapping[str, Change] = {
    "flip": HorizontalFlip(),
    "crop": RandomResizedCrop(),
    "colour": ColorJitter(),
    "affine": Affine(),
    "blur": GaussianBlur(),
    "noise": GaussianNoise(),
    "erase": RandomErasing(),
    "grey": Grayscale(),
    "randaugment": RandAugment(),
}
