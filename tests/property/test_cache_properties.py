"""For any room, order and number of epochs, a dataset that is far away gives what it gives in a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import far
import headrace as hr
from amount import examples
from headrace.load import ahead
from headrace.place.cache import files
from packed import pack, photos

N = 60


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(photos(N), tmp_path_factory.mktemp("ds") / "ds", shards=3)


OPTIONS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, N + 5),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 2**32),
        "workers": st.integers(1, 3),
        "drop_last": st.booleans(),
    }
)


@pytest.mark.parametrize("fill", [False, True], ids=["on demand", "filled"])
@examples(20, 200)
@given(
    room=st.one_of(st.just(0), st.integers(4000, 200_000)),
    options=OPTIONS,
    epochs=st.integers(1, 3),
    start=st.integers(0, N),
    lowered=st.booleans(),
    part=st.integers(1, 4),
)
def test_pixels_are_those_of_the_folder(
    ds: hr.Dataset, fill: bool, room: int, options: dict[str, Any], epochs: int, start: int, lowered: bool, part: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if not fill:
            patch.setattr(ahead.Filling, "begin", lambda self: None)
        patch.setattr(ahead, "_BUDGET", 1 << 15)  # some batches, of a set of 100 kB
        cache = Path(folder, "cache")
        for most in (room, room // 2 if lowered and room >= 8000 else room):
            distant, _ = far.opened(ds.path, cache, most)
            loaders = [one[::part].loader(size=8, **options) for one in (ds, distant)]
            near, loader = loaders
            state = near.state_dict() | {"batch": min(start, max(0, len(near) - 1))}
            for one in loaders:
                one.load_state_dict(state)
            for _ in range(epochs):
                for one, other in zip(near, loader, strict=True):
                    assert one.ids == other.ids and np.array_equal(one.images, other.images)
            far.settle(loader)
            del one, loader, loaders
            far.end_filling()
        taken = sum(file.takes for file in files(cache))
        assert taken <= room * 1.2
