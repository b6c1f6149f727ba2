"""Arrays that are kept: every bit of x and y arrives, in any order, and what would change one is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

import headrace as hr
from headrace.errors import DamageError, DataError, UsageError
from headrace.load.targets import Class, Kept
from headrace.sources.stack import InFile, Sliced

RNG = np.random.default_rng(0)
N = 30
Z = RNG.normal(size=(N, 6, 7)).astype(np.float32)
Z[4, 2, 3], Z[9, 0, 0], Z[9, 0, 1] = np.nan, np.inf, -0.0
CLASSES = np.arange(N) % 3
AGES = RNG.normal(40, 9, N)
MASKS = RNG.integers(0, 2, (N, 6, 7), np.uint8)
PIXELS = RNG.integers(0, 256, (N, 6, 7), np.uint8)


def keep(x: Any = Z, y: Any = None, **options: Any) -> hr.ArrayDataset:
    return hr.ArrayDataset(x, y, dtype="keep", **options)


def same(a: Any, b: Any) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def all_of(loader: hr.Loader, part: str = "images") -> np.ndarray[Any, Any]:
    return np.concatenate([getattr(batch, part) for batch in loader])


# --- x

XS = {
    "z-scores": Z,
    "int16 of three axes": RNG.integers(-1024, 3072, (N, 5, 4), np.int16),
    "five channels": RNG.normal(size=(N, 4, 3, 5)),
    "200 channels": RNG.integers(0, 9, (N, 2, 3, 200), np.uint16),
    "channels first": RNG.normal(size=(N, 3, 8, 9)).astype(np.float16),
    "volumes": RNG.integers(0, 2**32, (N, 3, 4, 5, 2), np.uint32),
    "rows of a table": RNG.normal(size=(N, 3)),
    "bool": MASKS > 0,
    "complex": RNG.normal(size=(N, 3, 4)).astype(np.complex64) * 1j,
    "int64": RNG.integers(-(2**62), 2**62, (N, 2, 2)),
    "big-endian": Z.astype(">f4"),
    "long double": Z.astype(np.longdouble),
    "Fortran order": np.asfortranarray(Z),
    "every second": np.repeat(Z, 2, axis=0)[::2],
    "uint8": PIXELS,
    "lists": Z.astype(float).tolist(),
}


@pytest.mark.parametrize("given_x", XS.values(), ids=XS)
def test_every_bit_of_x_arrives(given_x: Any) -> None:
    ds, x = keep(given_x, CLASSES), np.asarray(given_x)
    assert ds.keeps and len(ds) == N and ds.rejects == ()
    loader = ds.loader(batch_size=7, seed=3)
    assert (loader.image_shape, loader.dtype) == (x.shape[1:], x.dtype)
    for batch in (loader[0], loader[-1], *loader):
        rows = [int(id_) for id_ in batch.ids]
        assert same(batch.images, x[rows]) and np.array_equal(batch.targets, CLASSES[rows])
    assert all(same(ds[i].image, np.ascontiguousarray(x[i])) for i in (0, 4, 9, -1))
    axes = x.ndim - 1 if x.ndim in (3, 4) else 0
    assert ds.image_size == (x.shape[1:3] if axes else None) and ds.channels == (x.shape[3] if axes == 3 else 0)
    assert (ds[2].height, ds[2].width, ds[2].channels) == (*(ds.image_size or (0, 0)), ds.channels)
    assert str(list(x.shape[1:])) in repr(ds) and "x".join(map(str, x.shape[1:])) + f" {x.dtype}" in repr(loader)
    assert "<img" not in ds._repr_html_() and "kept as" in ds._repr_html_()


@settings(max_examples=80)
@given(
    npst.arrays(
        npst.boolean_dtypes() | npst.integer_dtypes() | npst.floating_dtypes() | npst.complex_number_dtypes(),
        npst.array_shapes(min_dims=2, max_dims=5, max_side=4),
    )
)
def test_any_numbers_of_any_shape_arrive(x: np.ndarray[Any, Any]) -> None:
    batch = keep(x, x, labels="keep").loader(shuffle=False, batch_size=len(x))[0]
    assert same(batch.images, x) and same(batch.targets, x)


@pytest.mark.parametrize("way", ["npy", "map", "npz", "packed npz", "h5"])
def test_files_are_read_by_rows(way: str, tmp_path: Path) -> None:
    file: Any = tmp_path / ("x.npz" if "npz" in way else "x.npy")
    if way == "h5":
        with h5py.File(tmp_path / "x.h5", "w") as made:
            made["x"], made["masks"] = Z, MASKS
        opened = h5py.File(tmp_path / "x.h5")
        ds = keep(opened["x"], opened["masks"])
    elif "npz" in way:
        (np.savez_compressed if "packed" in way else np.savez)(file, x=Z, masks=MASKS, ages=AGES)
        ds = keep(file, key="x", label_key="masks")
        assert same(all_of(keep(file, key="x").loader(shuffle=False), "targets"), AGES)
    else:
        np.save(file, Z)
        np.save(tmp_path / "masks.npy", MASKS)
        as_map = (np.load(path, mmap_mode="r") for path in (file, tmp_path / "masks.npy"))
        ds = keep(*as_map) if way == "map" else keep(file, str(tmp_path / "masks.npy"))
    wanted = Sliced if way == "h5" else InFile
    assert isinstance(ds.store.stack.numbers, wanted) and isinstance(ds.store.kept[""], wanted)
    loader = ds.loader(shuffle=False, batch_size=8)
    assert same(all_of(loader), Z) and same(all_of(loader, "targets"), MASKS)
    assert ds.fingerprint == keep(Z, MASKS).fingerprint
    assert ds.store.digests(ds.rows) == keep().store.digests(ds.rows)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    for name, kind in (("x", np.float32), ("y", np.uint8)):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", kind, (1_000_000, 64, 64))  # 20 GB of nothing
    ds = keep(tmp_path / "x.npy", tmp_path / "y.npy")
    batch = ds.loader(batch_size=2)[0]
    assert batch.images.shape == batch.targets.shape == (2, 64, 64) and not batch.images.any()


REFUSED = {
    "another dtype": ({"dtype": np.float32}, r"dtype is <class 'numpy.float32'>, wanted None \(.*\) or 'keep'"),
    "its name": ({"dtype": "float32"}, "dtype is 'float32', wanted None .* or 'keep'"),
    "a range": ({"value_range": (0, 1)}, "value_range says .*, and dtype='keep' changes no number"),
    "no second axis": ({"x": AGES}, r"x: shape \[30\], wanted \[n, ...\] with one more axis"),
    "a number": ({"x": 3}, r"x: shape \[\], wanted"),
    "nothing": ({"x": Z[:0]}, "there is nothing in it"),
    "no columns": ({"x": Z[:, :, :0]}, "there is nothing in it"),
    "strings": ({"x": np.array([["a"]])}, "x: an array of <U1, wanted numbers"),
    "objects": ({"x": np.array([[None]])}, "x: an array of object, wanted numbers"),
    "records": ({"x": np.zeros((2, 2), [("a", "u1")])}, "wanted numbers"),
    "masked": ({"x": np.ma.masked_less(Z, 0)}, r"x: a masked array, .* x.filled\(value\)"),
    "other labels": ({"labels": "boxes"}, "labels is 'boxes', wanted one of classes, multi, value, keep, or None"),
    "names of what is kept": ({"y": AGES, "labels": "keep", "class_names": ("a",)}, "leave one of them out"),
    "names of a dict": ({"y": {"a": AGES}, "class_names": ("a",)}, "y is a dict of 'a', .* leave out class_names"),
    "a dict of classes": ({"y": {"a": AGES}, "labels": "classes"}, "y is a dict of 'a', .* leave out labels"),
    "a dict of nothing": ({"y": {}}, "wanted arrays by names"),
    "a dict by numbers": ({"y": {3: AGES}}, "y is a dict of 3; wanted arrays by names"),
    "a dict in a dict": ({"y": {"a": {"b": AGES}}}, r"y\['a'\]: shape \[\], wanted \[n, ...\]"),
    "y too short": ({"y": AGES[1:]}, r"x has 30 images, y has 29 rows; wanted one for each"),
    "y too long": ({"y": np.zeros((31, 2, 2))}, r"x has 30 images, y has 31 rows"),
    "classes too short": ({"y": CLASSES[1:]}, "x has 30 images, y has 29 labels"),
    "one of a dict too long": ({"y": {"a": AGES, "b": MASKS[:3]}}, r"x has 30 images, y\['b'\] has 3 rows"),
    "one of a dict of strings": ({"y": {"a": ["b"] * N}}, r"y\['a'\]: an array of <U1, wanted numbers"),
    "rows of nothing": ({"y": np.zeros((N, 0))}, r"y: shape \[30, 0\], wanted"),
    "strings to keep": ({"y": ["a"] * N, "labels": "keep"}, "y: an array of object, wanted numbers"),
    "masked y": ({"y": np.ma.masked_less(AGES, 0)}, r"y: a masked array, .* y.filled\(value\)"),
    "ragged y": ({"y": {"a": [[1], [1, 2]]}}, r"y\['a'\]: no array can be made of it"),
    "ids too few": ({"ids": ["a"]}, "30 images, ids has 1"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.ArrayDataset(**({"x": Z, "dtype": "keep"} | change))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 6}, r"size \(6, 6\): x is kept as it is \(float32 \[6, 7\]\)"),
        ({"fit": "pad"}, "fit 'pad': x is kept"),
        ({"augment": (hr.HorizontalFlip(),)}, r"augment HorizontalFlip\(p=0.5\): x is kept .* has no pixels"),
        ({"augment": (hr.ColorJitter(),)}, "augment ColorJitter.*x is kept"),
        ({"cache": "memory"}, "cache 'memory': x is kept"),
        ({"target": hr.Boxes()}, "the dataset has no boxes"),
        ({"target": Kept()}, "keeps no y as it is; .* labels='keep'"),
    ],
)
def test_what_would_change_a_number_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        keep().loader(**options)
    assert keep().loader(size=(6, 7))[0].images.shape == (N, 6, 7)
    with pytest.raises(UsageError, match=r"size \(4, 4\): x is kept"):
        keep(np.zeros((2, 4, 4, 4, 1))).loader(size=4)


# --- it is a dataset like any

HALVES = {"train": 0.5, "val": 0.5}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_order_ranks_and_resuming_are_those_of_pixels(shuffle: bool, drop_last: bool) -> None:
    options = {"batch_size": 8, "shuffle": shuffle, "seed": 5, "drop_last": drop_last}
    kept, pixels = keep(Z, CLASSES).loader(**options), hr.ArrayDataset(PIXELS, CLASSES).loader(**options)
    assert len(kept) == len(pixels)
    for _ in range(2):
        assert [batch.ids for batch in kept] == [batch.ids for batch in pixels]
    ranks = [keep(Z, CLASSES).loader(world=(rank, 3), **options) for rank in range(3)]
    again = keep(Z, CLASSES).loader(**options)
    assert all(
        same(np.concatenate([batch.images for batch in parts]), whole.images)
        for *parts, whole in zip(*ranks, again, strict=True)
    )
    first, other = keep(Z, CLASSES).loader(**options), keep(Z.copy(), CLASSES.tolist()).loader(**options)
    begun = [batch for _, batch in zip(range(2), first, strict=False)]
    other.load_state_dict(first.state_dict())
    assert same(
        np.concatenate([batch.images for batch in (*begun, *other)]), all_of(keep(Z, CLASSES).loader(**options))
    )


def test_views_and_splits() -> None:
    ds = keep(Z, CLASSES, class_names=("a", "b", "c"), splits=HALVES, ids=[f"s{i}" for i in range(N)])
    assert set(ds.split("val").class_counts.values()) == {5} and not ds.manifest.numbered
    assert all(set(part.class_counts.values()) == {5} for part in ds.divide(HALVES))
    bees = ds.where("label_name = 'b'")
    assert same(all_of(bees.loader(shuffle=False)), Z[1::3]) and isinstance(bees.loader().options.target, Class)
    uneven = keep(Z, AGES, splits=HALVES)
    assert uneven.splits == {"train": 15, "val": 15} and [len(part) for part in uneven.divide(HALVES)] == [15, 15]
    assert same(
        all_of(uneven.split("val").loader(), "targets"),
        AGES[[int(i) for b in uneven.split("val").loader() for i in b.ids]],
    )


def test_it_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\[\d+\]: no image: its numbers are kept as they are"):
        hr.pack(keep(), tmp_path / "ds", progress=False)  # type: ignore[arg-type]


CHANGED = {
    "one bit of x": {"x": np.where(Z[3, 3, 3] == Z, np.nextafter(Z, 9), Z)},
    "its type": {"x": Z.astype(float)},
    "x of pixels": {"x": PIXELS},
    "one bit of y": {"y": np.where(AGES[7] == AGES, np.nextafter(AGES, 0), AGES)},
    "the type of y": {"y": AGES.astype(np.float32)},
    "a name": {"y": {"age": AGES}},
    "no y": {"y": None},
    "an id": {"ids": ["a", *map(str, range(1, N))]},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_state_is_of_one_content_of_x_and_y(change: dict[str, Any]) -> None:
    state = keep(Z, AGES).loader().state_dict()
    keep(Z.copy(), AGES.tolist()).loader().load_state_dict(state)
    with pytest.raises(UsageError, match="belongs to another loader: its dataset"):
        keep(**({"x": Z, "y": AGES} | change)).loader().load_state_dict(state)
    assert keep(PIXELS).fingerprint != hr.ArrayDataset(PIXELS).fingerprint


def test_a_cut_file_is_damage_with_an_address(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("x.npy", "y.npy")]
    for path, array in zip(paths, (Z, MASKS), strict=True):
        np.save(path, array)
    ds = keep(paths[0], {"mask": paths[1]})
    for path, end in zip(paths, (128 + 168 * 28, 128 + 42 * 29), strict=True):
        with path.open("r+b") as file:
            file.truncate(end)
    with pytest.raises(DamageError, match=r"x.npy\[28\]: the file ends before it"):
        ds.loader(shuffle=False)[0]
    with pytest.raises(DamageError, match=r"x.npy\[28\]"):
        ds[28]
    loader = ds.loader(shuffle=False, on_bad="skip")
    batch = loader[0]
    assert same(batch.images, Z[:28]) and same(batch.targets["mask"], MASKS[:28]) and len(batch.ids) == 28
    with pytest.raises(DamageError, match=r"x.npy, or its y: the file ends before it"):
        loader.state_dict()
    with pytest.raises(DataError, match=r"y.npy: is cut short"):
        keep(Z, paths[1])
    np.save(paths[1], MASKS)
    only_y = keep(Z, {"mask": paths[1]})
    with paths[1].open("r+b") as file:
        file.truncate(128 + 42 * 29)
    with pytest.raises(DamageError, match=r"y.npy\[29\]: the file ends before it.*changed since"):
        only_y.loader(shuffle=False)[0]
    loader = only_y.loader(shuffle=False, on_bad="skip")
    (batch,) = loader
    assert same(batch.targets["mask"], MASKS[:29]) and same(batch.images, Z[:29])
    assert len(loader.skipped) == 1 and loader.skipped[0].startswith(f"{paths[1]}[29]: the file ends")


def test_what_slices_to_something_else_is_damage() -> None:
    class Odd:
        shape, dtype = Z.shape, Z.dtype

        def __getitem__(self, part: slice) -> Any:
            return Z[part].astype(float) if part.start == 4 else Z[part]

    ds = keep(Odd())
    assert same(ds[3].image, Z[3])
    with pytest.raises(DamageError, match=r"x\[4\]: its slice \[4:5\] is float64\[1, 6, 7\], not float32\[1, 6, 7\]"):
        ds[4]
    others = [i for i in range(N) if i != 4]
    for x, y in ((Odd(), MASKS), (MASKS, Odd())):  # the rows behind the damaged one move up with their images
        batch = keep(x, y).loader(shuffle=False, on_bad="skip")[0]
        wanted = [(Z if part is not MASKS else MASKS)[others] for part in (x, y)]
        assert same(batch.images, wanted[0]) and same(batch.targets, wanted[1])


# --- y

BOTH = {"age": AGES, "mask": MASKS}
ONE_HOT = np.eye(3)[CLASSES]
# y, and what it is beside pixels and beside an x that is kept: "classes", "kept", or the error.
READINGS: dict[str, tuple[Any, str, str]] = {
    "whole numbers": (CLASSES, "classes", "classes"),
    "a list of them": (CLASSES.tolist(), "classes", "classes"),
    "a column, as Keras gives it": (CLASSES[:, None], "classes", "classes"),
    "strings": ([f"c{i}" for i in CLASSES], "classes", "classes"),
    "numbers and None": ([0, None, *CLASSES[2:]], "classes", "classes"),
    "bool": (CLASSES > 0, "classes", "classes"),
    "whole floats": (CLASSES.astype(float), "classes", "kept"),
    "floats": (AGES, r"y\[\d+\] is .*; or labels='keep', which keeps y as it is", "kept"),
    "one-hot": (ONE_HOT, "classes", "kept"),
    "several labels": (RNG.integers(0, 2, (N, 9)), "wanted one-hot.*; or labels='keep'", "kept"),
    "less than 0": (CLASSES - 1, "wanted 0 or more.*; or labels='keep'", "wanted 0 or more.*; or labels='keep'"),
    "masks": (MASKS, "kept", "kept"),
    "a dict": (BOTH, "kept", "kept"),
    "nothing": (None, "classes", "classes"),
}


@pytest.mark.parametrize("kept_x", [False, True], ids=["pixels", "kept x"])
@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_what_y_is_where_nobody_says_it(reading: tuple[Any, str, str], kept_x: bool) -> None:
    y, wanted = reading[0], reading[1 + kept_x]
    options: dict[str, Any] = {"x": Z, "dtype": "keep"} if kept_x else {"x": PIXELS}
    if wanted not in ("classes", "kept"):
        with pytest.raises(UsageError, match=wanted):
            hr.ArrayDataset(y=y, **options)
        return
    ds = hr.ArrayDataset(y=y, **options)
    assert bool(ds.store.kept) == (wanted == "kept") and bool(ds.class_names) == (wanted == "classes" and y is not None)
    said = hr.ArrayDataset(y=y, labels="keep" if wanted == "kept" else "classes", **options)
    assert said.fingerprint == ds.fingerprint


@pytest.mark.parametrize("x", [PIXELS, Z], ids=["pixels", "kept x"])
@pytest.mark.parametrize(
    "y", [AGES, ONE_HOT, CLASSES - 1, MASKS, MASKS > 0, BOTH, AGES.tolist()], ids=lambda y: type(y).__name__
)
def test_every_bit_of_y_arrives(x: Any, y: Any) -> None:
    ds = hr.ArrayDataset(x, y, labels="keep", dtype="keep" if x is Z else None)
    assert (ds.labels == -1).all() and ds.class_names == () and "y is kept" in repr(ds)
    loader = ds.loader(batch_size=7)
    for i, batch in enumerate(loader):
        rows = [int(id_) for id_ in batch.ids]
        loader.epoch = 0
        for found in (batch.targets, Kept().encode(loader.labels(i))):
            parts = found if isinstance(y, dict) else {"": found}
            assert {*parts} == ({*y} if isinstance(y, dict) else {""})
            assert all(same(parts[k], np.asarray(y[k] if k else y)[rows]) for k in parts)
    with pytest.raises(UsageError, match="names no classes; pass labels='classes'"):
        ds.loader(target=Class())


def test_classes_of_z_scores_are_classes() -> None:
    ds = keep(Z, ONE_HOT, class_names=("a", "b", "c"))
    assert ds.class_names == ("a", "b", "c") and np.array_equal(ds.labels, CLASSES)
    batch = keep(Z, ["no", "yes"] * 15).loader(shuffle=False)[0]
    assert batch.targets.dtype == np.int64 and batch.targets.tolist() == [0, 1] * 15


def test_rows_of_y_go_with_their_images_where_some_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ds = hr.ArrayDataset(Z, BOTH, value_range=(-9, 9))
    assert [reject.id for reject in ds.rejects] == ["4", "9"]
    kept = [i for i in range(N) if i not in (4, 9)]
    batch = ds.loader(shuffle=False)[0]
    assert same(batch.targets["age"], AGES[kept]) and same(batch.targets["mask"], MASKS[kept])


MOVES = {
    "a flip": {"augment": (hr.ColorJitter(), hr.HorizontalFlip())},
    "a crop": {"augment": (hr.RandomResizedCrop(),)},
    "a size": {"size": 12},
    "a size with a fit": {"size": (7, 6), "fit": "crop"},
}


@pytest.mark.parametrize("options", MOVES.values(), ids=MOVES)
def test_pixels_do_not_move_away_under_masks(options: dict[str, Any]) -> None:
    said = r"(HorizontalFlip|RandomResizedCrop|size \().*: y\['mask'\] is kept as it is, \[6, 7\] .* not move with"
    with pytest.raises(UsageError, match=said):
        hr.ArrayDataset(PIXELS, BOTH).loader(**options)
    with pytest.raises(UsageError, match=": y is kept as it is"):
        hr.ArrayDataset(PIXELS, MASKS).loader(**options)
    for y in (AGES, np.stack([AGES, AGES], 1)):  # numbers of an image, of which only the caller knows if they turn
        assert same(hr.ArrayDataset(PIXELS, y, labels="keep").loader(shuffle=False, **options)[0].targets, y)


@pytest.mark.parametrize("options", [{"size": (6, 7)}, {"augment": (hr.ColorJitter(),)}, {"cache": "memory"}], ids=str)
def test_what_moves_no_pixel_goes_with_masks(options: dict[str, Any]) -> None:
    assert same(hr.ArrayDataset(PIXELS, MASKS).loader(shuffle=False, **options)[0].targets, MASKS)
