"""Transforms of torchvision.transforms.v2 as an augmentation. When they are called, and with what, is the loader's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from headrace.errors import UsageError
from headrace.feeds import require
from headrace.imaging import geometry
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array

torch = require("torch", extra="torchvision")
v2 = require("torchvision.transforms.v2", extra="torchvision")
tv_tensors = require("torchvision.tv_tensors", extra="torchvision")


class Torchvision:
    """A transform of v2 called as one of ours: hr.augment.torchvision makes it. From any thread; it pickles.

    It gets {"image": Image uint8 [c, h, w], "boxes": BoundingBoxes [n, 4] (XYXY), "labels": int64 [n], "points":
    KeyPoints [n, k, 2]}; the labels say which boxes came back, where it drops some. torchvision would cut boxes to the
    image; where its version can leave that it does, so that the loader sees how much of each is left. But
    SanitizeBoundingBoxes drops all that reach over the edge: with it they are cut. `mirrors`: the first transform in it
    that mirrors, which swaps no left and right keypoints. `title`: what it is, for people.
    """

    def __init__(self, transform: Any) -> None:
        if isinstance(transform, type) or not isinstance(transform, torch.nn.Module):
            raise UsageError(
                f"torchvision: {transform!r:.80}, wanted a transform of torchvision.transforms.v2, such as "
                "v2.Compose([v2.RandomRotation(10), v2.ColorJitter(0.2)])"
            )
        self.transform = transform
        inner = list(_parts(transform))
        parts = [type(part).__name__ for part in inner]
        self.mirrors = next((name for name in parts if name in _MIRRORS), None)
        self._framing = {} if "SanitizeBoundingBoxes" in parts else _UNCLAMPED
        # Where there are none, most do the same in less time, and policies refuse an image that comes with them.
        self._wants_boxes = any(
            name in _OF_BOXES or not type(part).__module__.startswith("torchvision.")
            for name, part in zip(parts, inner, strict=True)
        )
        self.title = f"torchvision({', '.join(parts):.80})"

    def __repr__(self) -> str:
        return self.title

    def __call__(
        self, pixels: Pixels, boxes: Array, points: Array, rng: np.random.Generator, /
    ) -> tuple[Any, Array, Array]:
        height, width = size = pixels.shape[:2]
        shown = np.flatnonzero(geometry.area(boxes) > 0)  # of a point alone the box is none that torchvision would keep
        sample: dict[str, Any] = {"image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))}
        sample["labels"] = torch.from_numpy(shown)
        if len(shown) or self._wants_boxes:
            corners = torch.from_numpy(boxes[shown])
            sample["boxes"] = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size, **self._framing)
        if points.size:
            sample["points"] = _points(np.ascontiguousarray(points[..., :2]), size)
        with _Seeded(int(rng.integers(1 << 63))):
            out = self.transform(sample)
        moved = boxes.copy()
        moved[shown], gone = 0, shown  # but for those that come back
        if len(shown):
            back, found = out["labels"].numpy(), out["boxes"].as_subclass(torch.Tensor).numpy()
            if len(back) != len(found):
                raise UsageError(f"{len(found)} boxes came back with {len(back)} labels, wanted one for each")
            # What a zoom has taken out altogether is gone, however far.
            there = (found[:, 2:] > 0).all(axis=1) & (found[:, 0] < width) & (found[:, 1] < height)
            shown, gone = back[there], np.setdiff1d(shown, back[there])
            moved[shown] = found[there]
        seen = points.copy()
        if points.size:
            dots = out["points"].as_subclass(torch.Tensor).numpy()
            if dots.shape != (*points.shape[:2], 2):
                raise UsageError(f"points of shape {list(dots.shape)} came back, wanted {[*points.shape[:2], 2]}")
            seen[..., :2] = dots
            seen[gone] = 0
        image = out["image"]
        is_tensor = isinstance(image, torch.Tensor) and image.ndim == 3
        return (image.as_subclass(torch.Tensor).permute(1, 2, 0).numpy() if is_tensor else image), moved, seen


class _Seeded(torch.overrides.TorchFunctionMode):  # type: ignore[misc, name-defined]
    """In this thread, whatever torch draws is drawn from a generator of this seed.

    Transforms draw from the generator that all of torch shares, as a model does that is training meanwhile: seeding
    that would take its numbers from the model, and each other thread would take them from the transform. A mode is of
    one thread. The generator gives the numbers that `torch.manual_seed` of the same seed would.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (make := _LIKE.get(name)) is not None:  # in many versions these take no generator
            like, *args = args
            options = {"dtype": like.dtype, "device": like.device} | kwargs
            options.pop("memory_format", None)
            return make(*args, tuple(like.shape), **options | {"generator": self._generator})
        if name in _DRAWING and kwargs.get("generator") is None:
            kwargs["generator"] = self._generator
        return func(*args, **kwargs)


def _parts(transform: Any) -> Iterator[Any]:
    """The transforms in a transform, that have none in them."""
    inner = transform if isinstance(transform, torch.nn.Sequential) else getattr(transform, "transforms", None)
    if isinstance(inner, list | tuple | torch.nn.Sequential | torch.nn.ModuleList):
        for part in inner:
            yield from _parts(part)
    else:
        yield transform


def _points(points: Array, size: tuple[int, ...]) -> Any:
    if not hasattr(tv_tensors, "KeyPoints"):
        raise UsageError(
            "this torchvision moves no keypoints; install torchvision 0.23 or later, or target no keypoints"
        )
    return tv_tensors.KeyPoints(torch.from_numpy(points), canvas_size=size)


# Since torchvision 0.24; before, boxes are cut to the image, and one of which a sliver is left looks whole.
_CAN_LEAVE_IT = "clamping_mode" in inspect.signature(tv_tensors.BoundingBoxes.__new__).parameters
_UNCLAMPED = {"clamping_mode": None} if _CAN_LEAVE_IT else {}
_MIRRORS = frozenset({"RandomHorizontalFlip", "RandomVerticalFlip"})
_OF_BOXES = frozenset(
    {"RandomIoUCrop", "SanitizeBoundingBoxes", "ClampBoundingBoxes", "ConvertBoundingBoxFormat", "SetClampingMode"}
)
_DRAWING = frozenset(
    {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
    | {"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_"}
)
_LIKE = {"rand_like": torch.rand, "randn_like": torch.randn, "randint_like": torch.randint}
