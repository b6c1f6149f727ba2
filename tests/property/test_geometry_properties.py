"""A rectangle that was painted lies where its box says, whatever became of the picture."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from drawn import exif, saved
from headrace.imaging import codec, geometry
from headrace.imaging.geometry import Array, Move
from headrace.imaging.transforms import HorizontalFlip, Placement, RandomResizedCrop, draw, place
from headrace.packing.prepare import ImageOptions, prepare

sides = st.integers(1, 150)
fits = st.sampled_from(["stretch", "crop", "pad"])
chances = st.floats(0, 1, exclude_max=True)


@st.composite
def painted(draw: st.DrawFn) -> tuple[codec.Pixels, Array]:
    """A black grey picture with a white rectangle in it, and the rectangle's box [1, 4]."""
    height, width = draw(sides), draw(sides)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    pixels = np.zeros((height, width, 1), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return pixels, np.array([[x0, y0, x1, y1]], np.float32)


@st.composite
def placements(draw: st.DrawFn, height: int, width: int) -> Placement:
    """Any fit, then perhaps a random part of it, then perhaps mirrored."""
    found = place(height, width, (draw(sides), draw(sides)), draw(fits))
    if draw(st.booleans()):
        chance = np.array([draw(chances) for _ in range(4)])
        found = RandomResizedCrop(scale=(0.1, 1)).place(found, chance)
    return HorizontalFlip().place(found, np.array([draw(chances)]))


def edges(profile: Array) -> tuple[float, float]:
    """Where a run of white pixels [n] begins and ends: where a line through their middles passes half of the peak."""
    level = profile / profile.max() - 0.5
    first, last = np.flatnonzero(level >= 0)[[0, -1]]
    begin, end = 0.0, float(len(level))
    if first > 0:
        begin = first - 0.5 - level[first - 1] / (level[first] - level[first - 1])
    if last + 1 < len(level):
        end = last + 0.5 + level[last] / (level[last] - level[last + 1])
    return begin, end


def assert_painted_at(pixels: codec.Pixels, box: Array) -> None:
    """What is white in `pixels` [h, w, 1] agrees with the box [4], cut to the picture, on each side to one pixel."""
    x0, y0, x1, y1 = geometry.clip(box[None], *pixels.shape[:2])[0]
    assume(min(x1 - x0, y1 - y0) >= 3)  # less may vanish between pixels
    assert pixels.max() > 128
    white = pixels[..., 0].astype(np.float32)
    assert np.allclose([*edges(white.max(0)), *edges(white.max(1))], [x0, x1, y0, y1], rtol=0, atol=1)


@given(data=st.data(), scene=painted())
def test_drawn_boxes_move_with_their_pixels(data: st.DataObject, scene: tuple[codec.Pixels, Array]) -> None:
    pixels, box = scene
    height, width = pixels.shape[:2]
    placement = data.draw(placements(height, width))
    out = np.full((*placement.size, 1), 99, np.uint8)
    draw(pixels, placement, height, width, out)
    assert_painted_at(out, placement.move.boxes(box)[0])


@given(data=st.data(), scene=painted())
def test_boxes_of_a_scaled_decode_move_with_their_pixels(
    data: st.DataObject, scene: tuple[codec.Pixels, Array]
) -> None:
    """A JPEG decoded 2, 4 or 8 times smaller, as the loader does: the box knows nothing of it."""
    pixels, box = scene
    pixels = np.kron(pixels, np.ones((4, 4, 1), np.uint8))
    box = box * 4
    height, width = pixels.shape[:2]
    placement = data.draw(placements(height, width))
    encoded = codec.encode_jpeg(pixels)
    small = codec.decode_jpeg(encoded, height=height, width=width, channels=1, min_size=placement.least(height, width))
    out = np.empty((*placement.size, 1), np.uint8)
    draw(small, placement, height, width, out)
    assert_painted_at(out, placement.move.boxes(box)[0])


@given(
    scene=painted(),
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["JPEG", "PNG", "TIFF"]),
    size=st.none() | st.tuples(sides, sides),
    fit=fits,
)
def test_packed_boxes_turn_and_move_with_their_pixels(
    scene: tuple[codec.Pixels, Array], orientation: int, kind: str, size: tuple[int, int] | None, fit: str
) -> None:
    pixels, box = scene
    encoded = saved(pixels, kind, exif=exif(orientation), **({"quality": 95} if kind == "JPEG" else {}))
    middle = np.array([[[(box[0, 0] + box[0, 2]) / 2, (box[0, 1] + box[0, 3]) / 2, 2]]], np.float32)
    made = prepare(encoded, ImageOptions(size=size, fit=fit), boxes=box, keypoints=middle)  # type: ignore[arg-type]
    found = codec.decode(made.encoded, header=codec.read_header(made.encoded))
    assert found.shape == (made.height, made.width, made.channels)
    assert made.boxes is not None and made.keypoints is not None
    if made.kept == [0]:
        assert_painted_at(found, made.boxes[0])
        x, y, _ = made.keypoints[0, 0]
        if 1 <= x < made.width - 1 and 1 <= y < made.height - 1 and np.ptp(made.boxes[0].reshape(2, 2), 0).min() >= 6:
            assert found[int(y), int(x), 0] >= 128
    else:
        assert made.kept == [] and made.boxes.shape == (0, 4)
        assert (found >= 128).mean() < 0.2


boxes_in = st.integers(0, 5).flatmap(
    lambda n: st.lists(st.tuples(*[st.floats(-50, 200, width=32)] * 4), min_size=n, max_size=n).map(
        lambda rows: np.array(rows, np.float32).reshape(-1, 4)
    )
)


@given(boxes=boxes_in, orientation=st.integers(1, 8), height=sides, width=sides)
def test_a_turn_and_its_opposite_give_back(boxes: Array, orientation: int, height: int, width: int) -> None:
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    h, w = (width, height) if orientation > 4 else (height, width)
    turned = geometry.turn_boxes(boxes, orientation, height, width)
    assert np.allclose(geometry.turn_boxes(turned, back, h, w), boxes, atol=1e-3)
    assert np.allclose(geometry.area(turned), geometry.area(boxes), rtol=1e-3, atol=1e-2)
    points = np.concatenate([boxes[:, :2], np.ones((len(boxes), 1), np.float32)], axis=1)
    there = geometry.turn_points(points, orientation, height, width)
    assert np.allclose(geometry.turn_points(there, back, h, w), points, atol=1e-3)
    pixels = np.arange(height * width, dtype=np.int64).reshape(height, width, 1).astype(np.uint8)
    assert (codec.upright(codec.upright(pixels, orientation), back) == pixels).all()


@given(boxes=boxes_in, height=sides, width=sides)
def test_clipping_is_inside_and_done_once(boxes: Array, height: int, width: int) -> None:
    once = geometry.clip(boxes, height, width)
    assert (once >= 0).all() and (once[:, 0::2] <= width).all() and (once[:, 1::2] <= height).all()
    assert (geometry.clip(once, height, width) == once).all()
    assert (geometry.area(once) <= geometry.area(boxes) * (1 + 1e-5) + 1e-3).all()


@given(boxes=boxes_in, scale=st.floats(0.01, 50), shift=st.floats(-100, 100), mirrored=st.booleans())
def test_a_move_and_its_opposite_give_back(boxes: Array, scale: float, shift: float, mirrored: bool) -> None:
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    s = -scale if mirrored else scale
    moved = Move(s, shift, scale, shift).boxes(boxes)
    assert (moved[:, 2:] >= moved[:, :2]).all()
    back = Move(1 / s, -shift / s, 1 / scale, -shift / scale).boxes(moved)
    assert np.allclose(back, boxes, rtol=1e-3, atol=0.05)
