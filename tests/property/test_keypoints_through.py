"""Painted dots and their keypoints go through the packer and the loader, and still agree to one pixel at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

import headrace as hr
from amount import examples
from drawn import exif, saved
from headrace.imaging.codec import Pixels
from headrace.imaging.geometry import Array
from packed import FACE, Keep, Source, pack
from painted import can_be_told, fits

ORIENTATIONS = range(1, 9)
SWAPPED = [0, 2, 1]
# Not much larger than what they are made of, as in test_boxes_through.
sizes = st.tuples(st.integers(24, 120), st.integers(24, 120))
packings = st.fixed_dictionaries({"size": st.none() | sizes.map(lambda hw: (hw[0] + 40, hw[1] + 40)), "fit": fits})
loadings = st.fixed_dictionaries({"size": sizes, "fit": fits, "seed": st.integers(0, 99)})


@st.composite
def dotted(draw: st.DrawFn) -> tuple[Pixels, Array, Array]:
    """A black picture with a square in each colour, uint8 [h, w, 3], their boxes [3, 4] and middles [3, 2]."""
    height, width = draw(st.integers(30, 120)), draw(st.integers(30, 120))
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = np.zeros((3, 4), np.float32)
    for colour in range(3):
        side = draw(st.integers(4, 16))
        x, y = draw(st.integers(0, width - side)), draw(st.integers(0, height - side))
        pixels[y : y + side, x : x + side, colour] = 255
        boxes[colour] = x, y, x + side, y + side
    return pixels, boxes, (boxes[:, :2] + boxes[:, 2:]) / 2


@examples(20, 80)
@given(
    scene=dotted(),
    enlarged=st.sampled_from([2, 3, 8]),
    kind=st.sampled_from(["JPEG", "PNG"]),
    packing=packings,
    loading=loadings,
    window=st.none() | st.tuples(st.floats(-0.1, 0.4), st.floats(-0.1, 0.4), st.floats(0.6, 1.1), st.floats(0.6, 1.1)),
    flip=st.booleans(),
    crop=st.booleans(),
)
def test_a_painted_dot_stays_at_its_keypoint(
    scene: tuple[Pixels, Array, Array],
    enlarged: int,
    kind: str,
    packing: dict[str, Any],
    loading: dict[str, Any],
    window: tuple[float, float, float, float] | None,
    flip: bool,
    crop: bool,
) -> None:
    """All eight EXIF orientations of one picture. The red dot is the nose, the green one the left eye, and so on.

    Each dot is an object of its own with one labelled point, so that what is seen of it can be told from its box.
    """
    boxes, middles = scene[1] * enlarged, scene[2] * enlarged
    pixels = np.kron(scene[0], np.ones((enlarged, enlarged, 1), np.uint8))
    points = np.zeros((3, 3, 3), np.float32)
    points[range(3), range(3), :2], points[range(3), range(3), 2] = middles, 2
    h, w = pixels.shape[:2]
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    records = [
        hr.Record(
            id=str(orientation),
            encoded=saved(pixels, kind, exif=exif(orientation), **options),
            boxes=boxes,
            box_labels=("0", "1", "2"),
            keypoints=points,
            window=None if window is None else (window[0] * w, window[1] * h, window[2] * w, window[3] * h),
        )
        for orientation in ORIENTATIONS
    ]
    augment: tuple[Any, ...] = (hr.HorizontalFlip(p=1),) if flip else ()
    augment += (hr.RandomResizedCrop(),) if crop else ()
    with tempfile.TemporaryDirectory() as folder:
        ds = pack(Source(records), Path(folder) / "ds", **packing)
        assert ds.keypoint_names == FACE and ds.flip_pairs == ((1, 2),)
        options = {"batch_size": 8, "shuffle": False, "target": Keep(), "augment": augment} | loading
        loader = ds.loader(min_visible=0, **options)
        batch, labels = loader[0], loader.labels(0)
        unhurt = ds.loader(min_visible=0.999, **options).labels(0)
        stored = [_away_from_border(record) for record in ds] if packing["fit"] == "crop" else None
    # Which dots nothing has cut: not the window, not the packing's fit, and not the loader.
    shown = _whole_pixels(records[0].window, h, w)
    in_window = ((boxes[:, :2] >= shown[:2]) & (boxes[:, 2:] <= shown[2:])).all(axis=1)
    whole_ones = {
        (image, dot)
        for image, dot in zip(unhurt.box_image.tolist(), unhurt.box_labels.tolist(), strict=True)
        if in_window[dot] and (stored is None or dot in stored[image])
    }
    height, width = loader.size
    for image, box, dot, found in zip(labels.box_image, labels.boxes, labels.box_labels, labels.keypoints, strict=True):
        if not can_be_told(box):
            event("too small")
            continue
        # In the mirror the left eye is a right one; all else are the other dots' points, and absent.
        (at,) = np.flatnonzero(found[:, 2]) if found.any() else (None,)
        assert at in (None, SWAPPED[dot] if flip else dot)
        whole = (int(image), int(dot)) in whole_ones
        seen = batch.images[image, ..., dot].astype(np.float64)
        if at is None:
            assert not whole and (found == 0).all()
            event("cut off")
            continue
        x, y = found[at, :2]
        assert 0 <= x <= width and 0 <= y <= height
        near = np.clip((x, y), box[:2] + 0.5, box[2:] - 0.5).astype(
            int
        )  # a point may lie on the border of what is seen
        assert seen[near[1], near[0]] >= seen.max() / 2 - 16
        if whole:  # then its centre of mass is its middle
            seen[seen < 32] = 0  # what JPEG makes of the other colours
            rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
            assert abs(seen.sum(0) @ columns / seen.sum() - x) <= 1
            assert abs(seen.sum(1) @ rows / seen.sum() - y) <= 1
            event("told")


def _away_from_border(record: hr.Record) -> set[int]:
    """Which boxes a cut at the border of the stored image has not touched."""
    height, width = record.image.shape[:2]  # type: ignore[attr-defined]
    assert record.boxes is not None and record.box_labels is not None
    inside = (record.boxes > 0.01).all(axis=1) & (record.boxes < np.array([width, height] * 2) - 0.01).all(axis=1)
    return {int(name) for name, some in zip(record.box_labels, inside, strict=True) if some}


def _whole_pixels(window: tuple[float, float, float, float] | None, height: int, width: int) -> Array:
    """What a window shows of an image, float64 [4]."""
    x0, y0, x1, y1 = window or (0, 0, width, height)
    return np.array([np.floor(x0), np.floor(y0), np.ceil(x1), np.ceil(y1)])
