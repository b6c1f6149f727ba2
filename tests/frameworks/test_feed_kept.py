"""Arrays that are kept, through every feed: bit by bit, in the axes they were given in."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")

N = 20
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(N, 6, 5)).astype(np.float32)
Z[3, 2, 1], Z[4, 0, 0] = np.nan, -0.0
XS = {
    "z-scores": Z,
    "int16 [n, h, w, c]": RNG.integers(-1024, 3072, (N, 4, 5, 6), np.int16),
    "volumes": RNG.normal(size=(N, 3, 4, 5, 2)),
    "bool rows": RNG.integers(0, 2, (N, 9)).astype(bool),
    "half": Z.astype(np.float16),
    "uint16": RNG.integers(0, 65536, (N, 3, 4), np.uint16),
    "complex": RNG.normal(size=(N, 3)).astype(np.complex64) * 1j,
}
YS: dict[str, Any] = {
    "classes": np.arange(N) % 3,
    "floats": RNG.normal(size=N),
    "masks": RNG.integers(0, 2, (N, 6, 5), np.uint8),
    "a dict": {"age": RNG.normal(size=N).astype(np.float32), "there": RNG.integers(0, 2, (N, 7)).astype(bool)},
    "nothing": None,
}


@pytest.fixture(params=XS.values(), ids=XS)
def x(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=YS.values(), ids=YS)
def y(request: pytest.FixtureRequest) -> Any:
    return request.param


def check(batches: Any, x: Any, y: Any) -> None:
    """Batches of a feed hold x and y in the loader's order: type, shape and every bit."""
    order = [[int(id_) for id_ in batch.ids] for batch in hr.ArrayDataset(x, y, dtype="keep").loader(batch_size=8)]
    found = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    assert len(found) == len(order) == 3
    for (images, *targets), rows in zip(found, order, strict=True):
        assert (images.dtype, images.shape, images.tobytes()) == (x.dtype, (len(rows), *x.shape[1:]), x[rows].tobytes())
        assert len(targets) == (y is not None)
        if targets:
            given, came = (part if isinstance(y, dict) else {"": part} for part in (y, targets[0]))
            assert set(given) == set(came)
            for name, whole in given.items():
                assert (came[name].dtype, came[name].tobytes()) == (whole.dtype, whole[rows].tobytes())


def test_torch(x: Any, y: Any) -> None:
    feed = hr.ArrayDataset(x, y, dtype="keep").loader(batch_size=8).to_torch()
    check((_arrays(batch) for batch in feed), x, y)


def test_tf(x: Any, y: Any) -> None:
    feed = hr.ArrayDataset(x, y, dtype="keep").loader(batch_size=8).to_tf()
    images = feed.element_spec if y is None else feed.element_spec[0]
    assert (images.shape.as_list(), images.dtype.as_numpy_dtype) == ([None, *x.shape[1:]], x.dtype.type)
    check(feed.as_numpy_iterator(), x, y)


def test_keras(x: Any, y: Any) -> None:
    feed = hr.ArrayDataset(x, y, dtype="keep").loader(batch_size=8).to_keras()
    check((feed[i] for i in range(len(feed))), x, y)


@pytest.mark.parametrize("name", ["to_torch", "to_keras", "to_tf"])
def test_numbers_of_the_other_byte_order_are_turned(name: str) -> None:
    ds = hr.ArrayDataset(Z.astype(">f4"), {"a": np.arange(N, dtype=">i8")}, dtype="keep")
    assert ds.loader()[0].images.dtype == ">f4"
    feed: Any = getattr(ds.loader(shuffle=False), name)()
    images, targets = feed[0] if name == "to_keras" else next(iter(feed))
    assert np.asarray(images).tobytes() == Z.tobytes() and np.asarray(targets["a"]).tolist() == [*range(N)]


def test_pixels_beside_a_kept_y_are_still_channels_first() -> None:
    pixels, ages = RNG.integers(0, 256, (N, 6, 5, 3), np.uint8), RNG.normal(size=N)
    ((images, targets),) = hr.ArrayDataset(pixels, ages, labels="keep").loader(shuffle=False).to_torch()
    assert np.array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2)) and targets.numpy().tobytes() == ages.tobytes()


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_fit_sees_every_bit(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_kept_fit.py"))],
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr
    for found in json.loads(lines[0].removeprefix("RESULT ")).values():
        assert found["found"] == found["wanted"] and math.isfinite(found["loss"])


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        assert value.is_contiguous()
        return value.numpy()
    return {k: v.numpy() for k, v in value.items()} if isinstance(value, dict) else tuple(map(_arrays, value))
