"""The cache of decoded images: what a thread gets while another is at the same image, every step of it forced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
from headrace.imaging.placement import place
from headrace.load.cache import MemoryCache
from packed import pack, shades

LIMIT = 20  # seconds, after which what should have come is not coming
SIDE = 8


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Record k is of the value k + 1 all over: nothing is 0, which a cache begins with."""
    return pack(shades(6)[1:], tmp_path_factory.mktemp("shades") / "ds", shards=1)


def cache_of(ds: hr.Dataset) -> MemoryCache:
    cache = MemoryCache(ds.selection, (SIDE, SIDE), "stretch", 3)
    cache._images[:] = 0
    return cache


def drawn(cache: MemoryCache, i: int) -> NDArray[np.uint8]:
    """Image `i` as a batch gets it."""
    out = np.full((SIDE, SIDE, 3), 255, np.uint8)
    cache.drawing(np.array([i]))(0, place(SIDE, SIDE, (SIDE, SIDE), "stretch"), out)
    return out


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` gives in another thread, while this one stands still."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(LIMIT)


def test_an_image_that_is_said_to_be_there_is_there(ds: hr.Dataset) -> None:
    """Another thread comes for the image in the very moment in which it is said to be in the cache."""
    cache, seen = cache_of(ds), []

    class Watched(np.ndarray[Any, Any]):
        def __setitem__(self, i: Any, value: Any) -> None:
            super().__setitem__(i, value)
            seen.append(elsewhere(lambda: drawn(cache, i)))

    cache._filled = cache._filled.view(Watched)
    for i in range(len(ds)):
        wanted = drawn(cache, i)
        assert wanted.min() == wanted.max() == int(ds[i].id)
        assert len(seen) == i + 1 and np.array_equal(seen[-1], wanted)


def test_who_is_still_decoding_disturbs_nobody(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread is in the middle of an image, and has written half of it; another has the whole in the cache."""
    cache, drawing = cache_of(ds), ds.store.drawing
    begun, go_on, halfway, end, slow = (*(threading.Event() for _ in range(4)), threading.Lock())

    def halting(rows: NDArray[np.int64]) -> Any:
        draw = drawing(rows)

        def half(i: int, placement: Any, out: NDArray[Any]) -> None:
            if slow.acquire(blocking=False):  # the first stays the only one
                begun.set()
                assert go_on.wait(LIMIT)
                out[:] = 77
                halfway.set()
                assert end.wait(LIMIT)
            draw(i, placement, out)

        return half

    monkeypatch.setattr(ds.store, "drawing", halting)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(drawn, cache, 2)
        try:
            assert begun.wait(LIMIT)
            wanted = int(ds[2].id)
            assert (drawn(cache, 2) == wanted).all()  # decoded by this thread
            go_on.set()
            assert halfway.wait(LIMIT)
            assert (drawn(cache, 2) == wanted).all() and (cache._images[2] == wanted).all()  # from the cache
        finally:
            go_on.set()
            end.set()
        assert (first.result(LIMIT) == wanted).all() and (drawn(cache, 2) == wanted).all()


def test_a_failed_image_is_not_said_to_be_there(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, drawing = cache_of(ds), ds.store.drawing

    def failing(rows: NDArray[np.int64]) -> Any:
        def fail(i: int, placement: Any, out: NDArray[Any]) -> None:
            out[:] = 77
            raise hr.DamageError("no")

        return fail

    monkeypatch.setattr(ds.store, "drawing", failing)
    with pytest.raises(hr.DamageError):
        drawn(cache, 1)
    monkeypatch.setattr(ds.store, "drawing", drawing)
    assert (drawn(cache, 1) == int(ds[1].id)).all()


def test_what_comes_out_is_the_callers(ds: hr.Dataset, tmp_path: Path) -> None:
    cache = cache_of(ds)
    drawn(cache, 0)[:] = 99
    assert (drawn(cache, 0) == int(ds[0].id)).all()
