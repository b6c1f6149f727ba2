"""Keypoints into maps and back: below half a pixel, wherever in the image, and what is absent stays absent."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amount import examples
from headrace.load.targets import Heatmap, Labels, Points

STEPS = 64  # points lie on a grid as fine as that between two cells, edges and corners of the image among them


@st.composite
def scenes(draw: st.DrawFn, *, stride: int | None = None) -> tuple[Heatmap, Labels]:
    """A Heatmap and the labels of one to three images with an object each, of 0 to 6 points, some absent."""
    stride = stride or draw(st.sampled_from([1, 2, 4, 8]))
    sigma = draw(st.sampled_from([0.5, 1.0, 2.0, 7.5]))
    rows, columns = draw(st.integers(3, 24)), draw(st.integers(3, 24))
    n, k = draw(st.integers(1, 3)), draw(st.integers(0, 6))
    data = np.frombuffer(draw(st.binary(min_size=5 * n * k, max_size=5 * n * k)), np.uint8).reshape(n, k, 5)
    high = data[..., 0:2].astype(int) % [columns + 1, rows + 1]  # also the far edge itself
    low = data[..., 2:4].astype(int) % STEPS * (high < [columns, rows]) / STEPS
    seen = data[..., 4] % 3
    points = np.concatenate([(high + low) * stride, seen[..., None]], axis=-1) * (seen[..., None] > 0)
    size = (rows * stride, columns * stride)
    labels = Labels(
        classes=np.full(n, -1),
        size=size,
        boxes=np.tile(np.array([0, 0, *size[::-1]], np.float32), (n, 1)),
        box_labels=np.zeros(n, np.int64),
        box_image=np.arange(n),
        keypoints=points.astype(np.float32),
    )
    return Heatmap(stride, sigma), labels


@examples(300, 2000)
@given(scenes())
def test_points_come_back_from_their_maps(scene: tuple[Heatmap, Labels]) -> None:
    heatmap, labels = scene
    maps = heatmap.encode(labels)
    n, k, _ = labels.keypoints.shape
    assert maps.shape == (n, labels.size[0] // heatmap.stride, labels.size[1] // heatmap.stride, k)
    assert maps.dtype == np.float32 and ((maps >= 0) & (maps <= 1)).all()
    there = labels.keypoints[..., 2] > 0
    assert np.array_equal(maps.any(axis=(1, 2)), there)  # a map of zeros says absent, and no other does
    found = heatmap.decode(maps)
    assert (found.shape, found.dtype) == ((n, k, 3), np.float32)
    assert not found[~there].any()
    assert np.abs(found[there] - labels.keypoints[there])[:, :2].max(initial=0) < 0.02 * heatmap.stride
    assert (found[there][:, 2] > np.exp(-0.26 / heatmap.sigma**2)).all()


@settings(max_examples=300)
@given(scenes())
def test_points_come_back_from_their_shares(scene: tuple[Heatmap, Labels]) -> None:
    _, labels = scene
    shares = Points().encode(labels)
    assert shares.dtype == np.float32 and ((shares >= 0) & (shares <= 1)).all()
    there = labels.keypoints[..., 2] > 0
    assert np.array_equal(shares[..., 2], there) and not shares[~there].any()
    found = Points().decode(shares, size=labels.size)
    assert np.allclose(found[..., :2], labels.keypoints[..., :2], rtol=0, atol=1e-3)


@examples(150, 500)
@given(st.integers(0, 2**32 - 1), st.integers(3, 9), st.integers(3, 9), st.sampled_from([0.0, 0.5]))
def test_maps_of_any_numbers_are_read(seed: int, rows: int, columns: int, floor: float) -> None:
    """Each point within half a cell of the middle of its highest cell, and in the image."""
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(0, 1, (2, rows, columns, 3)), floor).astype(np.float32)  # flat ones too
    found = Heatmap(4).decode(maps)
    for image in range(2):
        for k in range(3):
            row, column = np.unravel_index(maps[image, ..., k].argmax(), (rows, columns))
            x, y, score = found[image, k]
            if maps[image, ..., k].max() <= 0:
                assert (x, y, score) == (0, 0, 0)
                continue
            assert abs(x - (column + 0.5) * 4) <= 2.001 and abs(y - (row + 0.5) * 4) <= 2.001
            assert 0 <= x <= columns * 4 and 0 <= y <= rows * 4 and 0 < score <= 1
