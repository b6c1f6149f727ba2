"""A rectangle that was painted lies where its box says, whatever became of the picture."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from drawn import exif, saved
from headrace.imaging import codec, geometry
from headrace.imaging.augment import HorizontalFlip, RandomResizedCrop
from headrace.imaging.geometry import Array, Move
from headrace.imaging.placement import Placement, draw, place
from headrace.imaging.prepare import ImageOptions, prepare
from painted import assert_painted_at, can_be_told, fits, painted, sides

chances = st.floats(0, 1, exclude_max=True)


@st.composite
def placements(draw: st.DrawFn, height: int, width: int) -> Placement:
    """Any fit, then perhaps a random part of it, then perhaps mirrored."""
    found = place(height, width, (draw(sides), draw(sides)), draw(fits))
    if draw(st.booleans()):
        chance = np.array([draw(chances) for _ in range(4)])
        found = RandomResizedCrop(scale=(0.1, 1)).place(found, chance)
    return HorizontalFlip().place(found, np.array([draw(chances)]))


@given(data=st.data(), scene=painted())
def test_drawn_boxes_move_with_their_pixels(data: st.DataObject, scene: tuple[codec.Pixels, Array]) -> None:
    pixels, box = scene
    height, width = pixels.shape[:2]
    placement = data.draw(placements(height, width))
    out = np.full((*placement.size, 1), 99, np.uint8)
    draw(pixels, placement, height, width, out)
    moved = geometry.clip(placement.move.boxes(box), *placement.size)[0]
    assume(can_be_told(moved))
    assert_painted_at(out, moved)


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
    moved = geometry.clip(placement.move.boxes(box), *placement.size)[0]
    assume(can_be_told(moved))
    assert_painted_at(out, moved)


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
        assume(can_be_told(made.boxes[0]))
        assert_painted_at(found, made.boxes[0])
        x, y, _ = made.keypoints[0, 0]
        if 1 <= x < made.width - 1 and 1 <= y < made.height - 1 and np.ptp(made.boxes[0].reshape(2, 2), 0).min() >= 6:
            assert found[int(y), int(x), 0] >= 128
    else:
        assert made.kept == [] and made.boxes.shape == (0, 4)
        height, width = pixels.shape[1::-1] if orientation > 4 else pixels.shape[:2]
        scale = max(made.height / height, made.width / width)  # of "crop", the only fit that hides anything
        hidden = geometry.MIN_VISIBLE * geometry.area(box)[0] * scale**2
        assert (found >= 128).sum() <= hidden + made.height + made.width + 1  # to one pixel


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
