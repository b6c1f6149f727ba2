"""ArrayDataset: the batches of the packed arrays, in the arrays' own order, and all else that a Dataset does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.errors import DamageError, DataError, UsageError
from packed import pack

RNG = np.random.default_rng(0)
N = 60
GREY = RNG.integers(0, 256, (N, 20, 24), np.uint8)
RGB = RNG.integers(0, 256, (N, 20, 24, 3), np.uint8)
Y = np.arange(N) % 3
SHARES = {"train": 0.8, "val": 0.2}


@pytest.fixture(params=["grey", "rgb", "float", "file", "map", "npz"])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, np.ndarray[Any, Any], dict[str, Any]]:
    """(what is given as x, the pixels that it means [n, h, w, c], options)."""
    pixels = RGB if request.param == "rgb" else GREY[..., None]
    if request.param == "float":
        return GREY.astype(np.float32) / 255, pixels, {"value_range": (0, 1)}
    if request.param in ("file", "map"):
        np.save(tmp_path / "x.npy", GREY)
        path = tmp_path / "x.npy"
        return np.load(path, mmap_mode="r") if request.param == "map" else path, pixels, {}
    if request.param == "npz":
        np.savez_compressed(tmp_path / "x.npz", x=GREY)
        return tmp_path / "x.npz", pixels, {}
    return (RGB if request.param == "rgb" else GREY), pixels, {}


def test_records_are_the_images(ways: Any) -> None:
    x, pixels, options = ways
    ds = hr.ArrayDataset(x, Y, **options)
    assert len(ds) == N and ds.image_size == (20, 24) and ds.channels == pixels.shape[3]
    for i in (0, 17, N - 1, -1):
        record = ds[i]
        assert record.image.dtype == np.uint8 and np.array_equal(record.image, pixels[i])
        assert (record.id, record.label, record.label_name) == (str(i % N), Y[i], str(Y[i]))
        assert (record.height, record.width, record.channels, record.split) == (20, 24, pixels.shape[3], "train")
        assert record.origin.endswith(f"[{i % N}]") and record.boxes is None
    with pytest.raises(IndexError):
        ds[N]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [None, (20, 24), 8, (33, 17)], ids=str)
def test_batches_are_those_of_the_packed_arrays(ways: Any, tmp_path: Path, size: Any, fit: Any) -> None:
    x, pixels, options = ways
    augment = (hr.HorizontalFlip(), hr.RandomResizedCrop(), hr.ColorJitter())
    chosen = {"size": size, "fit": fit, "batch_size": 7, "seed": 3, "augment": augment}
    packed = pack(hr.sources.arrays(x, Y, **options), tmp_path / "ds", splits=SHARES, seed=5)
    # The packer shuffles records, and the order of batches is one of row numbers: give the arrays in its order.
    rows = packed.catalog["id"].cast(int).to_numpy()
    given = pixels[rows] if not options else x[rows]
    ds = hr.ArrayDataset(given, Y[rows], ids=[*map(str, rows)], splits=packed.catalog["split"].to_list(), **options)
    assert ds.splits == packed.splits
    for name in (None, "train", "val"):
        ours, theirs = (d.split(name) if name else d for d in (ds, packed))
        mine, other = ours.loader(**chosen), theirs.loader(**chosen)
        assert len(mine) == len(other) > 1
        for epoch in (0, 4):
            mine.epoch = other.epoch = epoch
            for i in range(len(mine)):
                a, b = mine[i], other[i]
                assert a.ids == b.ids and np.array_equal(a.images, b.images) and np.array_equal(a.targets, b.targets)


def test_splits_are_those_of_packing(tmp_path: Path) -> None:
    ds = hr.ArrayDataset(GREY, Y, splits=SHARES, seed=7)
    packed = pack(hr.sources.arrays(GREY, Y), tmp_path / "ds", splits=SHARES, seed=7)
    assert ds.splits == packed.splits == {"train": 48, "val": 12}
    for name in SHARES:
        assert set(ds.split(name).catalog["id"]) == set(packed.split(name).catalog["id"])
        assert set(ds.split(name).class_counts.values()) == {SHARES[name] * N / 3}
    assert hr.ArrayDataset(GREY, Y).splits == {"train": N}


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": 0.8}, "sum to 0.8"),
        ({"a b": 1.0}, "split name 'a b'"),
        (["train"], "x has 60 images, splits names 1"),
        (["a b"] * N, "split name 'a b'"),
        ({"train": 0.999, "val": 0.001}, "split 'val': there is no image for it"),
    ],
)
def test_splits_that_cannot_be(splits: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.ArrayDataset(GREY, Y, splits=splits)


def test_it_is_a_dataset() -> None:
    ds = hr.ArrayDataset(GREY, [None, *Y[1:]], class_names=("a", "b", "c"))
    assert ds.class_names == ("a", "b", "c") and ds.class_counts == {"a": 19, "b": 20, "c": 20}
    train, val = ds.divide(SHARES, seed=1)
    assert len(train) + len(val) == N and not set(train.catalog["id"]) & set(val.catalog["id"])
    assert all(abs(n - 0.2 * 20) <= 1 for n in val.class_counts.values())
    bees = train.where("label_name = 'b' AND height = 20 AND channels = 1")
    assert len(bees) == train.class_counts["b"] and all(record.label == 1 for record in bees)  # type: ignore[attr-defined]
    assert len(ds.where("label IS NOT NULL")) == N - 1
    assert repr(ds) == "ArrayDataset('x': 60 records; 3 classes: a 19, b 20, c 20)"
    assert repr(bees).startswith("ArrayDataset('x' / train 0.8 (seed 1) / where label_name = 'b'")
    assert isinstance(bees, hr.ArrayDataset) and bees.rejects == ()
    assert ds._repr_html_().count("<img") == 24
    with pytest.raises(UsageError, match="no split 'val'"):
        ds.split("val")
    with pytest.raises(UsageError, match="no checksums to verify"):
        ds.verify()
    with pytest.raises(DataError, match="1 of 60 records have no label"):
        ds.loader()
    with pytest.raises(UsageError, match=r"ids has 2"):
        hr.ArrayDataset(GREY, Y, ids=("a", "b"))
    assert hr.ArrayDataset(GREY).loader(batch_size=4, shuffle=False)[3].ids == ("12", "13", "14", "15")


def test_an_unshuffled_loader_keeps_the_order_of_the_array() -> None:
    loader = hr.ArrayDataset(GREY, Y).loader(shuffle=False, batch_size=16)
    batches = list(loader)
    assert np.array_equal(np.concatenate([batch.images for batch in batches])[..., 0], GREY)
    assert np.array_equal(np.concatenate([batch.targets for batch in batches]), Y)


@pytest.mark.parametrize("cache", [None, "memory"])
def test_a_loader_goes_on_exactly_where_it_stopped(cache: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    options = {"batch_size": 7, "size": 12, "seed": 2, "augment": (hr.HorizontalFlip(),), "cache": cache}
    whole = hr.ArrayDataset(GREY, Y).loader(**options)
    wanted = [*whole, *whole]
    first = hr.ArrayDataset(GREY, Y).loader(**options)
    begun = [batch for _, batch in zip(range(4), first, strict=False)]
    # Another process has other objects, and may have the same numbers in a file.
    other = hr.ArrayDataset(tmp_path / "x.npy", Y.tolist()).loader(**options)
    other.load_state_dict(first.state_dict())
    found = [*begun, *other, *other]
    assert len(found) == len(wanted) == 18
    for a, b in zip(found, wanted, strict=True):
        assert a.ids == b.ids and np.array_equal(a.images, b.images) and np.array_equal(a.targets, b.targets)


CHANGED = {
    "a pixel": {"x": np.where(np.arange(GREY.size).reshape(GREY.shape) == 12345, 255 - GREY, GREY).astype(np.uint8)},
    "a label": {"y": np.where(np.arange(N) == 5, 0, Y)},
    "the type": {"x": GREY.astype(np.int32)},
    "the shape": {"x": GREY.reshape(N, 24, 20)},
    "the range": {"value_range": (0, 256)},
    "an id": {"ids": ["a", *map(str, range(1, N))]},
    "class names": {"class_names": ("a", "b", "c")},
    "a split": {"splits": ["train"] * 59 + ["val"]},
    "split names": {"splits": ["test"] * 60},
    "the order": {"x": GREY[::-1]},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_state_is_of_one_content(change: dict[str, Any]) -> None:
    state = hr.ArrayDataset(GREY, Y).loader().state_dict()
    hr.ArrayDataset(GREY.copy(order="F"), Y).loader().load_state_dict(state)
    with pytest.raises(UsageError, match="belongs to another loader: its dataset"):
        hr.ArrayDataset(**({"x": GREY, "y": Y} | change)).loader().load_state_dict(state)


def test_images_that_cannot_be_are_left_out_and_listed(caplog: pytest.LogCaptureFixture) -> None:
    x = GREY / 255
    x[4, 0, 0], x[9, 3, 3] = np.nan, 2
    with caplog.at_level(logging.WARNING):
        ds = hr.ArrayDataset(x, Y, value_range=(0, 1), ids=[f"s{i}" for i in range(N)], splits=SHARES)
    assert "2 of 60 images are left out" in caplog.text and "x[4]: holds NaN" in caplog.text
    assert [(r.id, r.origin, r.reason.split(",")[0]) for r in ds.rejects] == [
        ("s4", "x[4]", "holds NaN"),
        ("s9", "x[9]", f"values from {x[9].min():.7g} to 2"),
    ]
    assert len(ds) == N - 2 == sum(ds.splits.values()) and ds.split("val").rejects == ds.rejects
    kept = [i for i in range(N) if i not in (4, 9)]
    assert [int(record.id[1:]) for record in ds] == kept  # type: ignore[attr-defined]
    assert all(np.array_equal(record.image[..., 0], GREY[i]) for record, i in zip(ds, kept, strict=True))  # type: ignore[call-overload]
    assert ds.labels.tolist() == Y[kept].tolist()
    assert len(hr.ArrayDataset(x, Y, value_range=(0, 1), max_rejects=2)) == N - 2
    for most in (1, 0.03):
        with pytest.raises(DataError, match=r"2 of 60 images are refused, 1 are allowed .*x\[4\]: holds NaN"):
            hr.ArrayDataset(x, Y, value_range=(0, 1), max_rejects=most)
    with pytest.raises(DataError, match="60 of 60 images are refused"):
        hr.ArrayDataset(x, Y, value_range=(5, 6), max_rejects=1.0)


def test_arrays_that_changed_since_are_damage_with_an_address(tmp_path: Path) -> None:
    x = GREY / 255
    ds = hr.ArrayDataset(x, Y, value_range=(0, 1))
    x[5] = np.nan
    with pytest.raises(DamageError, match=r"x\[5\]: holds NaN; it was changed"):
        ds[5]
    loader = ds.loader(on_bad="skip", shuffle=False)
    assert [id_ for batch in loader for id_ in batch.ids] == [str(i) for i in range(N) if i != 5]
    assert loader.skipped == ("x[5]: holds NaN; it was changed since it was opened",)
    np.save(tmp_path / "x.npy", GREY)
    ds = hr.ArrayDataset(tmp_path / "x.npy", Y)
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(128 + 480 * 58)
    with pytest.raises(DamageError, match=r"x.npy\[58\]: the file ends before it"):
        ds.loader(shuffle=False, batch_size=N)[0]


def test_from_many_threads_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    alone = list(hr.ArrayDataset(GREY, Y).loader(batch_size=3, workers=1))
    many = list(hr.ArrayDataset(tmp_path / "x.npy", Y).loader(batch_size=3, workers=8))
    assert all(np.array_equal(a.images, b.images) and a.ids == b.ids for a, b in zip(alone, many, strict=True))


def test_nothing_is_copied_and_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    ds = hr.ArrayDataset(GREY, Y)
    assert ds.store.stack.numbers.read(3, 4).base is not None
    assert np.shares_memory(ds.store.stack.numbers.read(3, 4), GREY)
    big = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (4_000_000, 64, 64))  # 16 GB of nothing
    del big
    ds = hr.ArrayDataset(tmp_path / "x.npy")
    assert len(ds) == 4_000_000 and not ds[3_999_999].image.any()


def test_digests_are_of_the_numbers_and_ids_may_be_positions(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    ds, file = hr.ArrayDataset(GREY, Y), hr.ArrayDataset(tmp_path / "x.npy", ids=[f"s{i}" for i in range(N)])
    found = ds.store.digests(ds.rows)
    assert len(set(found)) == N and file.store.digests(file.rows[[7, 3]]) == [found[7], found[3]]
    mirrored = hr.ArrayDataset(GREY[::-1])
    assert mirrored.store.digests(mirrored.rows) == found[::-1]
    others = GREY.astype(np.int16), GREY.reshape(N, 24, 20)
    assert not any(set(hr.ArrayDataset(x).store.digests(ds.rows)) & set(found) for x in others)
    assert not file.manifest.numbered and ds.manifest.numbered
    with (tmp_path / "x.npy").open("r+b") as cut:
        cut.truncate(1000)
    with pytest.raises(DamageError, match=r"x.npy\[59\]: the file ends before it"):
        file.store.digests(file.rows[-1:])
