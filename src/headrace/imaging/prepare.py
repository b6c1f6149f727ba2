"""One image through the packer: checked, decoded, turned upright, resized, encoded; its boxes and points along with it.

Pure: bytes and options in, bytes out. `predict` sends raw photos through the same function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from headrace.errors import UsageError
from headrace.imaging import codec, geometry
from headrace.imaging.levels import Range, check_range
from headrace.imaging.look import look, thumb
from headrace.imaging.masks import carry_mask, turn_mask
from headrace.imaging.objects import judge_boxes
from headrace.imaging.placement import Fit, Size, carry, carry_points, check_fit, check_size, draw, place
from headrace.record import Boxes, Keypoints, Mask

OnWarning: TypeAlias = Literal["reject", "keep"]

# What these formats stored was exact, so it is stored exactly again unless it is resized.
_LOSSLESS = ("png", "bmp", "gif", "tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """What becomes of an image when it is packed. `size` None keeps the size; `channels` None keeps grey grey.

    `max_side` brings the longer side to so many pixels and the other one along, `min_side_to` the shorter side; only
    down, unless `enlarge`. One of the two, or `size`. `value_range` (low, high) are the values of black and white of
    images of more than 8 bits per sample, which are refused without it.
    `on_warning`: a JPEG that can't be told from a damaged one, as its decoder warns about it, is refused, or it is kept
    as the decoder shows it, marked, and stored anew, so that every reader shows the same.
    Bytes are kept as they are unless something asks for a change. What is changed becomes a JPEG of `quality` and
    `chroma`, with `optimize` in fewer bytes; only what came from a lossless format and keeps its size becomes a PNG.
    """

    size: Size | None = None
    fit: Fit = "stretch"
    max_side: int | None = None
    min_side_to: int | None = None
    enlarge: bool = False
    value_range: Range | None = None
    channels: int | None = None
    quality: int = codec.JPEG_QUALITY
    chroma: codec.Chroma = "444"
    optimize: bool = False
    max_pixels: int = codec.MAX_PIXELS
    on_warning: OnWarning = "reject"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        check_fit(self.fit)
        sides = {"max_side": self.max_side, "min_side_to": self.min_side_to}
        given = [name for name, value in ({"size": self.size} | sides).items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"give {' or '.join(given)}, not both")
        for name, side in sides.items():
            if side is not None and not (isinstance(side, int) and 1 <= side <= codec.MOST_SIDE):
                raise UsageError(f"{name} is {side!r}, wanted 1 to {codec.MOST_SIDE} pixels")
            if side is not None and self.fit != "stretch":
                raise UsageError(f"fit is {self.fit!r}: it is for size, {name} keeps the ratio of the sides")
        if self.enlarge and not self.keeps_ratio:
            raise UsageError("enlarge is for max_side and min_side_to")
        if self.value_range is not None:
            object.__setattr__(self, "value_range", check_range(self.value_range))
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels is {self.channels}, wanted 1, 3 or None")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}, wanted 1 to 100")
        if self.chroma not in get_args(codec.Chroma):
            raise UsageError(f"chroma is {self.chroma!r}, wanted one of {', '.join(get_args(codec.Chroma))}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels is {self.max_pixels}, wanted at least 1")
        if self.on_warning not in get_args(OnWarning):
            raise UsageError(f"on_warning is {self.on_warning!r}, wanted one of {', '.join(get_args(OnWarning))}")

    @property
    def keeps_ratio(self) -> bool:
        """Whether images are brought to a side, and not to a size."""
        return self.max_side is not None or self.min_side_to is not None

    def size_of(self, height: int, width: int) -> Size:
        """(height, width) of what is stored of `height` x `width` pixels. Raises BadImage: it would be too large."""
        if self.size is not None:
            return self.size
        side, of = self.max_side, max(height, width)
        if side is None:
            side, of = self.min_side_to, min(height, width)
        if side is None or side == of or (side > of and not self.enlarge):
            return height, width
        made = max(1, round(height * side / of)), max(1, round(width * side / of))
        if max(made) > codec.MOST_SIDE or made[0] * made[1] > self.max_pixels:
            raise codec.BadImage(
                "header",
                f"{width} x {height} pixels would become {made[1]} x {made[0]}, wanted at most "
                f"{codec.MOST_SIDE} a side and {self.max_pixels} in all (max_pixels)",
            )
        return made

    def jpeg(self, pixels: codec.Pixels) -> bytes:
        """The JPEG made of uint8 [h, w, c]."""
        return codec.encode_jpeg(pixels, quality=self.quality, chroma=self.chroma, optimize=self.optimize)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ImageOptions:
        """The options out of a manifest's `pack_options`, which hold more."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        pairs = {name: tuple(raw[name]) for name in ("size", "value_range") if raw.get(name)}
        return cls(**known | pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An image as it will be stored. `boxes` [n, 4] in pixels of this image; `kept` [n]: which of those given they are;
    `masks` [n] of them.

    `clipped`: how many reached out of the image and were cut to it. `dropped`: reason -> boxes that are left out;
    `points_dropped`: reason -> labelled keypoints that are. `warning`: why the image may be a damaged one that was kept
    all the same; None of all others. `look`: of its pixels before they were
    encoded, None where nobody asked.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    channels: int
    boxes: Boxes | None
    kept: list[int] | None
    keypoints: Keypoints | None
    masks: list[Mask | None] | None
    clipped: int
    dropped: Counter[str]
    points_dropped: Counter[str]
    warning: str | None
    look: bytes | None


def prepare(
    data: bytes,
    options: ImageOptions,
    *,
    boxes: Boxes | None = None,
    keypoints: Keypoints | None = None,
    masks: Sequence[Mask | None] | None = None,
    measured_in: Size | None = None,
    upright: bool = False,
    window: tuple[float, float, float, float] | None = None,
    with_look: bool = False,
) -> Prepared:
    """What is stored of image bytes `data`. Raises codec.BadImage (stage and reason).

    Boxes and keypoints are given in pixels of the image as its bytes are stored and turn, move and are cut with the
    pixels. A box that reaches out of the image is cut to it; one that lies outside or has no area is dropped, and so is
    one of which `fit` leaves less than MIN_VISIBLE of its area. Keypoint sets beside boxes belong to them, one each,
    and are dropped with them, and so are `masks`. A labelled point that lies outside, or that `fit` cuts off, becomes
    (0, 0, 0). `measured_in`, `upright`, `window`: see Record's size, upright and window; what a window hides is as what
    `fit` hides. `with_look`: whether its look is wanted.
    """
    header = codec.read_header(data, max_pixels=options.max_pixels, value_range=options.value_range)
    codec.check_density(header, len(data), options.max_pixels)
    channels = options.channels or header.channels
    sideways = header.orientation in (5, 6, 7, 8)
    height, width = (header.width, header.height) if sideways else (header.height, header.width)
    given, clipped, kept = boxes, 0, np.zeros(0, np.int64)
    lost, dropped = Counter[str](), Counter[str]()
    cut_off = "cut off by fit" if window is None else "cut off by window or fit"
    orientation, border = _frame_of_labels(header, measured_in, upright)
    frame = int(border[3]), int(border[2])
    moved_masks = None if masks is None else list(masks)
    if boxes is not None:
        boxes = boxes.astype(np.float32)
        judged = judge_boxes(boxes, border)
        kept, clipped, dropped = np.flatnonzero(judged.kept), int(judged.clipped.sum()), judged.dropped()
        boxes = geometry.turn_boxes(judged.boxes[kept], orientation, header.height, header.width)
        if moved_masks is not None:
            moved_masks = [
                None if (mask := moved_masks[i]) is None else turn_mask(mask, orientation, *frame)
                for i in kept.tolist()
            ]
    if keypoints is not None:
        inside = geometry.cut_points(keypoints.astype(np.float32), border)
        lost["outside of the image"] = _labelled(keypoints) - _labelled(inside)
        if given is not None:
            lost["of dropped boxes"] = _labelled(inside) - _labelled(inside[kept])
            inside = inside[kept]
        # Also a turn that mirrors (2, 4, 5, 7) swaps no left and right: it undoes a mirroring that the camera made.
        # What the annotator called a left eye is one in the picture that is seen upright, and that is what is stored.
        keypoints = geometry.turn_points(inside, orientation, header.height, header.width)

    part = (0, 0, width, height)
    if window is not None:
        part = _part(np.array([window], np.float32), border, orientation, header)
    x0, y0, x1, y1 = part
    size = options.size_of(y1 - y0, x1 - x0)
    kind: str = header.format
    if part == (0, 0, width, height) and size == (height, width):
        pixels, warning = _decoded(data, options, header=header, channels=channels)
        encoded = data
        if not header.plain or channels != header.channels or warning is not None:
            pixels = codec.upright(pixels, header.orientation)
            kind = "png" if header.format in _LOSSLESS else "jpeg"
            encoded = codec.encode_png(pixels) if kind == "png" else options.jpeg(pixels)
    else:
        fitted = place(y1 - y0, x1 - x0, size, options.fit)
        wx0, wy0, wx1, wy1 = fitted.window
        placement = replace(fitted, window=(wx0 + x0, wy0 + y0, wx1 + x0, wy1 + y0))
        least = placement.least(height, width)
        least = least[::-1] if sideways else least
        pixels, warning = _decoded(
            data, options, header=header, channels=channels, min_size=least, exact=options.keeps_ratio
        )
        out = np.empty((*size, channels), np.uint8)
        draw(codec.upright(pixels, header.orientation), placement, height, width, out)
        if boxes is not None:
            boxes, seen = carry(boxes, [placement], np.zeros(len(boxes), np.int64), min_visible=geometry.MIN_VISIBLE)
            dropped[cut_off] = len(kept) - len(seen)
            kept = kept[seen]
            if keypoints is not None:
                lost["of dropped boxes"] += _labelled(keypoints) - _labelled(keypoints[seen])
                keypoints = keypoints[seen]
            if moved_masks is not None:
                moved_masks = [
                    None if (mask := moved_masks[i]) is None else carry_mask(mask, placement, height, width)
                    for i in seen.tolist()
                ]
        if keypoints is not None:
            moved = carry_points(keypoints, [placement], np.zeros(len(keypoints), np.int64))
            lost[cut_off] = _labelled(keypoints) - _labelled(moved)
            keypoints = moved
        kind = "png" if size == (y1 - y0, x1 - x0) and header.format in _LOSSLESS else "jpeg"
        encoded = codec.encode_png(out) if kind == "png" else options.jpeg(out)
        height, width = size
        pixels = out
    return Prepared(
        encoded=encoded,
        format=kind,
        height=height,
        width=width,
        channels=channels,
        boxes=boxes,
        kept=None if given is None else kept.tolist(),
        keypoints=keypoints,
        masks=moved_masks,
        clipped=clipped,
        dropped=+dropped,
        points_dropped=+lost,
        warning=warning,
        look=look(thumb(pixels)) if with_look else None,
    )


def _decoded(
    data: bytes, options: ImageOptions, *, header: codec.Header, **how: Any
) -> tuple[codec.Pixels, str | None]:
    """codec.decode, and the warning with which an image is kept. Raises BadImage."""
    try:
        return codec.decode(data, header=header, **how), None
    except codec.BadImage as error:
        if options.on_warning == "reject" or header.format != "jpeg" or error.stage != "decode":
            raise
        return codec.decode(data, header=header, lenient=True, **how), error.reason


def _frame_of_labels(header: codec.Header, measured_in: Size | None, upright: bool) -> tuple[int, geometry.Array]:
    """By which orientation boxes and points are still to be turned, and the border float32 [4] of what they lie in.

    Raises BadImage when they were measured in an image of another size.
    """
    height, width = header.height, header.width
    turned = (width, height) if header.orientation in (5, 6, 7, 8) else (height, width)
    if upright or measured_in not in (None, (height, width)):
        # Where it isn't said: who annotated saw it upright, as most tools show it today.
        if measured_in not in (None, turned):
            assert measured_in is not None
            said = f"{measured_in[1]} x {measured_in[0]}"
            raise codec.BadImage("label", f"the image is {width} x {height} pixels, its annotation is for {said}")
        return 1, np.array([0, 0, *turned[::-1]], np.float32)
    return header.orientation, np.array([0, 0, width, height], np.float32)


def _part(
    window: geometry.Array, border: geometry.Array, orientation: int, header: codec.Header
) -> tuple[int, int, int, int]:
    """The whole pixels of the upright image that a `window` [1, 4] takes in. Raises BadImage."""
    whole = np.concatenate([np.floor(window[:, :2]), np.ceil(window[:, 2:])], axis=1)
    inside = geometry.clip(whole, int(border[3]), int(border[2]))
    if not (geometry.area(inside) > 0).all():
        raise codec.BadImage("label", f"the window {window[0].tolist()} shows nothing of the image")
    x0, y0, x1, y1 = geometry.turn_boxes(inside, orientation, header.height, header.width)[0].astype(int).tolist()
    return x0, y0, x1, y1


def _labelled(points: Keypoints) -> int:
    return int((points[..., 2] > 0).sum())
