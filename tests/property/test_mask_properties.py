"""A painted rectangle's mask lies where its box and its pixels do, whatever became of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as judge

from headrace.imaging import codec, geometry, masks
from headrace.imaging.augment import HorizontalFlip, RandomResizedCrop
from headrace.imaging.geometry import Array
from headrace.imaging.placement import Placement, draw, place
from headrace.record import Mask, Record, check_record
from painted import assert_painted_at, can_be_told, fits, painted, sides

chances = st.floats(0, 1, exclude_max=True)
small = st.tuples(st.integers(1, 40), st.integers(1, 40))
covers = arrays.arrays(np.bool_, small)


@st.composite
def placements(draw: st.DrawFn, height: int, width: int) -> Placement:
    """Any fit, then perhaps a random part of it, then perhaps mirrored."""
    found = place(height, width, (draw(sides), draw(sides)), draw(fits))
    if draw(st.booleans()):
        found = RandomResizedCrop(scale=(0.1, 1)).place(found, np.array([draw(chances) for _ in range(4)]))
    return HorizontalFlip().place(found, np.array([draw(chances)]))


def rectangle(box: Array) -> Array:
    """float32 [4, 2]: the corners of a box [4], one after the other."""
    return box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)


def extent(mask: Mask) -> Array:
    corners = np.concatenate(mask.polygons)
    return np.concatenate([corners.min(0), corners.max(0)])


def both(pixels: codec.Pixels, box: Array) -> tuple[Mask, Mask]:
    """The mask of what is painted, as a polygon and as runs."""
    runs = masks.encode_runs(pixels[..., 0] > 0)
    return Mask(polygons=(rectangle(box[0]),)), Mask(runs=runs, size=(pixels.shape[0], pixels.shape[1]))


def sound(mask: Mask) -> bool:
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    return check_record(Record(id="a", encoded=b"", boxes=boxes, box_labels=("a",), masks=(mask,))) is None


@given(covers)
def test_runs_are_those_of_coco(covered: NDArray[np.bool_]) -> None:
    runs = masks.encode_runs(covered)
    height, width = covered.shape
    rle = judge.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    assert rle == judge.encode(np.asfortranarray(covered.astype(np.uint8)))
    assert runs[0] == 0 or not covered[0, 0]
    assert (runs[1:] > 0).all()
    mask = Mask(runs=runs, size=covered.shape)
    assert (masks.decode_runs(runs, covered.shape) == covered).all()
    assert masks.area(mask) == covered.sum() == judge.area(rle)
    assert sound(mask)


@example(np.array([1 << 62] * 4 + [12]), (3, 4))  # in int64 they sum to 12
@given(
    arrays.arrays(np.int64, st.integers(0, 6), elements=st.integers(-3, 30) | st.integers(-(1 << 63), (1 << 63) - 1)),
    small,
)
def test_runs_of_another_sum_are_no_mask(runs: NDArray[np.int64], size: tuple[int, int]) -> None:
    assume(sum(runs.tolist()) != size[0] * size[1] or min(runs.tolist(), default=0) < 0)
    with pytest.raises(ValueError, match="don't sum to"):
        masks.decode_runs(runs, size)


@given(scene=painted(), orientation=st.integers(1, 8))
def test_masks_turn_with_their_pixels(scene: tuple[codec.Pixels, Array], orientation: int) -> None:
    pixels, box = scene
    height, width = pixels.shape[:2]
    corners, runs = (masks.turn_mask(mask, orientation, height, width) for mask in both(pixels, box))
    seen = codec.upright(pixels, orientation)
    assert (extent(corners) == geometry.turn_boxes(box, orientation, height, width)[0]).all()
    assert runs.runs is not None and runs.size == seen.shape[:2]
    assert (masks.decode_runs(runs.runs, runs.size) == (seen[..., 0] > 0)).all()
    assert masks.area(corners) == masks.area(runs) == geometry.area(box)[0]
    assert sound(corners) and sound(runs)


@given(data=st.data(), scene=painted())
def test_masks_are_carried_with_their_pixels(data: st.DataObject, scene: tuple[codec.Pixels, Array]) -> None:
    pixels, box = scene
    height, width = pixels.shape[:2]
    placement = data.draw(placements(height, width))
    corners, runs = (masks.carry_mask(mask, placement, height, width) for mask in both(pixels, box))
    assert sound(corners) and sound(runs)
    seen, _ = geometry.cut(box, np.array(placement.window, np.float32), min_visible=0)
    moved = geometry.clip(placement.move.boxes(seen), *placement.size)[0]
    if not geometry.area(seen)[0]:
        assert corners.polygons == ()
    else:
        assert np.allclose(extent(corners), moved, rtol=1e-5, atol=1e-4)
        assert np.isclose(masks.area(corners), geometry.area(moved[None])[0], rtol=1e-3, atol=1e-2)
    assert runs.runs is not None and runs.size == placement.size
    out = np.empty((*placement.size, 1), np.uint8)
    draw(pixels, placement, height, width, out)
    found = masks.decode_runs(runs.runs, runs.size)
    assert (found == (out[..., 0] >= 128)).all()
    if can_be_told(moved):
        assert_painted_at(found[..., None].astype(np.uint8) * 255, moved)


polygons = arrays.arrays(np.float32, st.tuples(st.integers(3, 8), st.just(2)), elements=st.integers(-20, 60))


@given(polygon=polygons, window=st.tuples(*[st.integers(0, 19)] * 2, *[st.integers(20, 40)] * 2), flip=st.booleans())
def test_polygons_are_cut_to_what_they_cover_of_the_window(
    polygon: Array, window: tuple[int, int, int, int], flip: bool
) -> None:
    """Whatever the polygon, concave or crossing itself: the pixels whose middles it holds (an odd number of its edges
    lies left of them) are in the cut one those of the window, and no others."""
    x0, y0, x1, y1 = window
    size = y1 - y0, x1 - x0
    placement = Placement(window, size, (0, 0, size[1], size[0]), flip)
    made = masks.carry_mask(Mask(polygons=(polygon,)), placement, 40, 40)
    whole = _held(polygon, 40, 40)
    left = np.zeros(size, np.bool_)
    for part in made.polygons:
        left ^= _held(part, *size)
        assert (part >= 0).all() and (part <= (size[1], size[0])).all()
    expected = whole[y0:y1, x0:x1]
    near = _near(polygon)[y0:y1, x0:x1]  # a middle that lies on an edge may fall to either side
    if flip:
        expected, near = expected[:, ::-1], near[:, ::-1]
    assert (left == expected)[~near].all()


def _held(polygon: Array, height: int, width: int) -> NDArray[np.bool_]:
    """bool [h, w]: which pixels have their middle in a polygon."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.zeros((height, width), np.bool_)
    for (ax, ay), (bx, by) in zip(polygon.astype(float), np.roll(polygon, -1, 0).astype(float), strict=True):
        if ay != by:
            at = ax + (y - ay) * (bx - ax) / (by - ay)
            inside ^= ((ay <= y) != (by <= y)) & (at < x)
    return inside


def _near(polygon: Array) -> NDArray[np.bool_]:
    """bool [40, 40]: which pixels have their middle so near to an edge that rounding decides."""
    y, x = np.mgrid[:40, :40] + 0.5
    near = np.zeros((40, 40), np.bool_)
    for a, b in zip(polygon.astype(float), np.roll(polygon, -1, 0).astype(float), strict=True):
        along = b - a
        length = max(float(along @ along), 1e-9)
        t = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / length, 0, 1)
        near |= np.hypot(x - a[0] - t * along[0], y - a[1] - t * along[1]) < 1e-3
    return near
