"""Draft: the pieces of the work on one batch, in whatever order and on however many threads they are done."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
from headrace.load.draft import Blocks, Draft, pieces
from packed import pack, shades

B = 10
LIMIT = 20  # seconds, after which what should have come is not coming


class Work:
    """Pieces that write down what is done, in the order it is done."""

    def __init__(self, n: int, fill: Callable[[int, int], None] = lambda start, stop: None) -> None:
        self.drafts = 0
        self.drawn: list[int] = []
        self._fill = fill
        self.pieces = pieces(self.begin, self.fill, self.finish, n=n)

    def begin(self) -> Draft:
        self.drafts += 1
        return Draft(np.arange(B), np.arange(B), [], [], lambda *_: None, np.zeros((B, 1), np.uint8), {}, {})

    def fill(self, draft: Draft, start: int, stop: int) -> None:
        self._fill(start, stop)
        draft.images[start:stop] += 1
        self.drawn += range(start, stop)

    def finish(self, draft: Draft) -> Any:
        assert (draft.images == 1).all()
        return draft


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_last_piece_to_end_gives_the_batch(n: int) -> None:
    for order in itertools.permutations(range(n)):
        work = Work(n)
        given = [work.pieces[k]() for k in order]
        assert [found is not None for found in given] == [False] * (n - 1) + [True]
        assert sorted(work.drawn) == [*range(B)] and work.drafts == 1


def test_what_could_not_be_begun_is_not_begun_again() -> None:
    """Whoever comes later would wait for what nobody brings any more."""
    error, begun = ValueError("no"), []

    def begin() -> Draft:
        begun.append(1)
        raise error

    for piece in pieces(begin, lambda *_: None, lambda draft: draft, n=3)[::-1]:
        with pytest.raises(ValueError, match="no") as raised:
            piece()
        assert raised.value is error
    assert len(begun) == 1


def test_more_pieces_than_records_draw_each_once() -> None:
    work = Work(B + 3)
    assert sum(piece() is not None for piece in work.pieces) == 1
    assert sorted(work.drawn) == [*range(B)]


def test_pieces_at_the_same_time_share_one_draft() -> None:
    """All are inside of it together, which only as many threads can be."""
    together = threading.Barrier(4)
    work = Work(4, lambda *_: together.wait(LIMIT) and None)
    with ThreadPoolExecutor(4) as pool:
        given = [future.result(LIMIT) for future in [pool.submit(piece) for piece in work.pieces]]
    assert sum(found is not None for found in given) == 1
    assert sorted(work.drawn) == [*range(B)] and work.drafts == 1


@pytest.mark.parametrize("bad", range(3))
def test_nothing_is_finished_when_a_piece_fails(bad: int) -> None:
    def fail(start: int, _: int) -> None:
        if start == B * bad // 3:
            raise ValueError("no image")

    work = Work(3, fail)
    for k, piece in enumerate(work.pieces):
        if k == bad:
            with pytest.raises(ValueError, match="no image"):
                piece()
        else:
            assert piece() is None


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(40), tmp_path_factory.mktemp("draft") / "ds", shards=2)


def test_one_batch_is_drawn_by_several_threads(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two images to be drawn wait for each other, and there is but one batch."""
    together, lock, drawn = threading.Barrier(2), threading.Lock(), 0
    drawing = ds.store.drawing

    def meeting(rows: NDArray[np.int64]) -> Any:
        draw = drawing(rows)

        def meet(*given: Any) -> None:
            nonlocal drawn
            with lock:
                drawn += 1
                first = drawn <= 2
            if first:
                together.wait(LIMIT)
            draw(*given)

        return meet

    monkeypatch.setattr(ds.store, "drawing", meeting)
    (batch,) = ds.loader(batch_size=40, size=224, shuffle=False, workers=2)
    assert [int(image[0, 0, 0]) for image in batch.images] == [int(id_) for id_ in batch.ids]


@pytest.mark.parametrize(("batch_size", "size"), [(16, 320), (31, 224), (40, 224), (7, 8)])
def test_in_pieces_or_not_a_batch_is_the_same(ds: hr.Dataset, batch_size: int, size: int) -> None:
    loader = ds.loader(batch_size=batch_size, size=size, augment=(hr.HorizontalFlip(), hr.ColorJitter()), workers=3)
    for i, batch in enumerate(loader.iterate()):
        alone = loader[i]
        assert alone.ids == batch.ids and np.array_equal(alone.images, batch.images)
        assert np.array_equal(alone.targets, batch.targets)


def test_records_left_out_of_several_pieces_are_named_in_the_order_of_the_batch(tmp_path: Path) -> None:
    ds = pack(shades(40), tmp_path / "ds", shards=1)
    (shard,) = (tmp_path / "ds").glob("*.tfrecord")
    damaged = [ds.store.tables.index["offset"][row] + 40 for row in (1, 12, 33)]
    data = bytearray(shard.read_bytes())
    for byte in damaged:
        data[int(byte)] ^= 1
    shard.write_bytes(data)
    loader = ds.loader(batch_size=40, size=224, shuffle=False, workers=3, on_bad="skip")
    for _ in range(5):
        (batch,) = loader.iterate()
        assert len(batch.ids) == 37
        assert [int(image[0, 0, 0]) for image in batch.images] == [int(id_) for id_ in batch.ids]
    list(loader)
    assert [address.split("record ")[1].split(",")[0] for address in loader.skipped] == ["1", "12", "33"]


def test_memory_is_used_again_when_nobody_has_a_part_of_it() -> None:
    blocks = Blocks(4, (2, 2, 3), np.dtype(np.uint8), most=2)
    first = blocks.take(4)
    where = first.ctypes.data
    part = memoryview(first[1:, 0])  # which holds on to all
    del first
    second = blocks.take(3)
    assert second.shape == (3, 2, 2, 3) and second.ctypes.data != where
    del part
    assert blocks.take(1).ctypes.data == where
    blocks.clear()
    assert second.base is not None and second.ctypes.data not in (blocks.take(4).ctypes.data, where)


def test_no_more_memory_is_kept_than_said() -> None:
    blocks = Blocks(4, (8,), np.dtype(np.float32), most=2)
    held = [blocks.take(4) for _ in range(5)]
    assert len({array.ctypes.data for array in held}) == 5
    there = {array.ctypes.data for array in held[:2]}
    del held
    again = [blocks.take(4) for _ in range(3)]
    assert {array.ctypes.data for array in again[:2]} == there


def test_threads_never_share_memory() -> None:
    blocks = Blocks(1, (64,), np.dtype(np.int64), most=9)

    def work(k: int) -> bool:
        array = blocks.take(1)
        array[:] = k
        return all(int(array[0, i]) == k for i in range(64))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(20_000)))


@pytest.mark.parametrize("kept", ["batch", "image", pytest.param("tensor", marks=pytest.mark.frameworks), "bytes"])
def test_what_is_kept_of_a_batch_stays_as_it_was(ds: hr.Dataset, kept: str) -> None:
    """Of each batch, whatever holds on to its memory, while others are made in what is free."""

    def keep(images: NDArray[np.uint8]) -> Any:
        if kept == "tensor":
            return pytest.importorskip("torch").from_numpy(images)
        return {"batch": images, "image": images[2], "bytes": memoryview(images)}[kept]

    loader = ds.loader(batch_size=4, shuffle=True, workers=3)
    held = [(batch.ids, keep(batch.images)) for _ in range(5) for batch in loader]
    for ids, some in held:
        values = np.asarray(some).reshape(-1, 8 * 8 * 3)
        assert (values == np.array([int(id_) for id_ in (ids[2:3] if kept == "image" else ids)])[:, None]).all()
