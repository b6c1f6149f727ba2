"""Any array of pixels comes back; any range maps to within its bound or refuses; any labels come back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import headrace as hr
from headrace.imaging.codec import BadImage
from headrace.sources.stack import InFile, numbers_of, open_stack
from packed import pixels_of

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 3]))


@settings(max_examples=60)
@given(npst.arrays(np.uint8, SHAPES))
def test_pixels_come_back(x: np.ndarray[Any, Any]) -> None:
    source = hr.sources.arrays(x)
    assert all(np.array_equal(pixels_of(record), image) for record, image in zip(source, x, strict=True))
    ds = hr.ArrayDataset(x)
    assert all(np.array_equal(record.image, image) for record, image in zip(ds, x, strict=True))  # type: ignore[call-overload]


NUMBERS = st.sampled_from([np.float16, np.float32, np.float64, np.int16, np.uint16, np.int32])


@settings(max_examples=150)
@given(st.data(), NUMBERS, st.floats(-1e4, 1e4), st.floats(1e-2, 1e4))
def test_a_range_maps_to_within_its_bound_or_refuses(data: st.DataObject, kind: Any, low: float, span: float) -> None:
    x = data.draw(npst.arrays(kind, (1, 3, 4)))
    high = low + span
    assume(low < high)
    stack = open_stack("x", numbers_of(x), (low, high))
    inside = bool(np.isfinite(x).all() and (x.astype(np.float64) >= low).all() and (x.astype(np.float64) <= high).all())
    assert (not stack.unfit()) == inside
    if not inside:
        with pytest.raises(BadImage, match=r"holds|outside of value_range"):
            stack.pixels(0)
        return
    found = stack.pixels(0).astype(np.float64)[..., 0] * ((high - low) / 255) + low
    slack = 1e-12 * max(abs(low), abs(high))  # of the arithmetic here and there
    assert np.abs(found - x[0]).max() <= (high - low) / 510 + slack


@settings(max_examples=100)
@given(st.lists(st.none() | st.integers(0, 50), min_size=1), st.booleans(), st.data())
def test_whole_number_labels_come_back(y: list[int | None], as_floats: bool, data: st.DataObject) -> None:
    x = np.zeros((len(y), 1, 1), np.uint8)
    given_y: Any = np.array([math.nan if label is None else label for label in y]) if as_floats else y
    names = data.draw(st.none() | st.just([f"c{i}" for i in range(51)]))
    source = hr.sources.arrays(x, given_y, class_names=names)
    assert [getattr(record, "label", 0) for record in source] == y
    assert hr.ArrayDataset(x, given_y, class_names=names).labels.tolist() == [-1 if k is None else k for k in y]


@settings(max_examples=100)
@given(st.lists(st.none() | st.text(min_size=1), min_size=1))
def test_named_labels_come_back(y: list[str | None]) -> None:
    source = hr.sources.arrays(np.zeros((len(y), 1, 1), np.uint8), y)
    assert [getattr(record, "label_name", "") for record in source] == y
    assert set(source.class_names or ()) == {name for name in y if name is not None}
    ds = hr.ArrayDataset(np.zeros((len(y), 1, 1), np.uint8), y)
    assert ds.catalog["label_name"].to_list() == y


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 70, 90), np.uint8))  # more than a page each
    return path


@settings(max_examples=60)
@given(st.slices(40), st.booleans())
def test_any_part_of_a_map_is_that_part(mapped: Path, part: slice, columns: bool) -> None:
    x = np.load(mapped, mmap_mode="r")[part]
    x = x[:, :, 3:50] if columns else x
    assume(len(x))
    numbers = numbers_of(x)
    assert isinstance(numbers, InFile) == x.flags.c_contiguous
    for i in range(len(x)):
        assert np.array_equal(numbers.read(i, i + 1)[0], x[i])
