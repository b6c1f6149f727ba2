"""Source arrays: which shapes, types, labels and files are taken, what each becomes, and what is refused how."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.imaging import codec
from headrace.packing.runners import Runner
from headrace.packing.task import Tasks, make_shard
from headrace.sources.info import collect
from headrace.sources.stack import InFile, InMemory
from packed import pack, pixels_of

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (10, 5, 7), np.uint8)
RGB = RNG.integers(0, 256, (10, 5, 7, 3), np.uint8)


def images(source: Any) -> np.ndarray[Any, Any]:
    """What the records' bytes decode to, by Pillow: uint8 [n, h, w, c]."""
    return np.stack([pixels_of(record) for record in source])


def labels(source: Any) -> list[tuple[int | None, str | None]]:
    return [(record.label, record.label_name) for record in source]


# --- pixels

AS_THEY_ARE = {
    "uint8 [n, h, w]": X,
    "uint8 [n, h, w, 1]": X[..., None],
    "uint8 [n, h, w, 3]": RGB,
    "big-endian uint16 below 256": X.astype(">u2"),
    "int64": X.astype(np.int64),
    "int8": (X // 2).astype(np.int8),
    "a slice of every second": X[::2],
    "Fortran order": np.asfortranarray(X),
    "channels moved by a view": np.ascontiguousarray(RGB.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1),
    "read-only": np.frombuffer(X.tobytes(), np.uint8).reshape(X.shape),
    "lists": X.tolist(),
}


@pytest.mark.parametrize("x", AS_THEY_ARE.values(), ids=AS_THEY_ARE)
def test_whole_numbers_of_a_pixel_are_kept(x: Any) -> None:
    found, given = images(hr.sources.arrays(x)), np.asarray(x)
    assert found.dtype == np.uint8
    assert np.array_equal(found, given.reshape(*given.shape[:3], -1))


def test_bool_is_black_and_white() -> None:
    assert np.array_equal(images(hr.sources.arrays(X > 99))[..., 0], np.where(X > 99, 255, 0))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_255ths_of_a_float_come_back_exactly(kind: Any) -> None:
    levels = np.arange(256).reshape(1, 16, 16)
    found = images(hr.sources.arrays((levels / 255).astype(kind), value_range=(0, 1)))
    assert np.array_equal(found[..., 0], levels)


@pytest.mark.parametrize(
    ("x", "value_range"),
    [
        (RNG.uniform(-1, 1, (4, 6, 6)), (-1, 1)),
        (RNG.uniform(-3, 9, (4, 6, 6)).astype(np.float32), (-5.5, 11)),
        (RNG.integers(0, 65536, (4, 6, 6), np.uint16), (0, 65535)),
        (RNG.integers(-1024, 3072, (4, 6, 6), np.int16), (-1024, 3071)),
        (RNG.integers(0, 2, (4, 6, 6), np.uint8), (0, 1)),
    ],
    ids=["-1 to 1", "odd range", "uint16", "hounsfield", "a mask of 0 and 1"],
)
def test_a_range_is_mapped_to_within_its_bound(x: np.ndarray[Any, Any], value_range: tuple[float, float]) -> None:
    low, high = value_range
    found = images(hr.sources.arrays(x, value_range=value_range))[..., 0]
    back = found * ((high - low) / 255) + low
    assert np.abs(back - x).max() <= (high - low) / 510 * (1 + 1e-12)
    assert np.abs(back - x).max() > 0 or high == 1  # else it would be no test of rounding


# What can't be told is refused, with what to pass.
REFUSED = {
    "float without a range": (
        X / 255,
        {},
        r"x: float64 says nothing .*first image run from 0.0.* to .*; pass value_range=\(low, high\)",
    ),
    "uint16 above 255": (X.astype(np.uint16) * 16, {}, r"x: uint16 values run from \d+ to \d{4}, .* pass value_range"),
    "negative": (X.astype(np.int16) - 5, {}, r"x: int16 values run from -5 to \d+"),
    "complex": (X.astype(complex), {}, "an array of complex128, wanted uint8"),
    "strings": (X.astype(str), {}, "wanted uint8"),
    "objects": (X.astype(object), {}, "an array of object"),
    "structured": (np.zeros((2, 3, 3), [("a", "u1")]), {}, "wanted uint8"),
    "channels first": (
        RGB.transpose(0, 3, 1, 2),
        {},
        r"\[10, 3, 5, 7\] has its channels first.*transpose\(0, 2, 3, 1\)",
    ),
    "alpha": (np.zeros((2, 5, 7, 4), np.uint8), {}, r"c 1 or 3; leave alpha out with x\[..., :3\]"),
    "two channels": (np.zeros((2, 5, 7, 2), np.uint8), {}, r"shape \[2, 5, 7, 2\], wanted"),
    "one grey image": (X[0], {}, r"\[5, 7\].*one image is x\[np.newaxis\]"),
    "one colour image": (np.zeros((64, 64, 3), np.uint8), {}, "that of one image in colour"),
    "five axes": (np.zeros((1, 2, 3, 4, 1), np.uint8), {}, r"wanted \[n, h, w\]"),
    "a number": (np.uint8(3), {}, r"shape \[\], wanted"),
    "no images": (X[:0], {}, "no images"),
    "no pixels": (X[:, :0], {}, "no images"),
    "ragged": ([[[1, 2]], [[1]]], {}, "no array can be made of it"),
    "masked": (np.ma.masked_equal(X, 0), {}, r"a masked array, .* x.filled\(value\)"),
    "range reversed": (X, {"value_range": (1, 0)}, "the smaller first"),
    "range of NaN": (X, {"value_range": (0, float("nan"))}, "two finite numbers"),
    "no range": (X, {"value_range": 255}, r"wanted \(low, high\)"),
    "key of an array": (X, {"key": "x"}, "names an array of a .npz file"),
    "label key of an array": (X, {"label_key": "y"}, "names an array of a .npz file"),
    "ids too few": (X, {"ids": ["a"]}, "10 images, ids has 1"),
    "ids twice": (X, {"ids": [*"abcdefghib"]}, "'b' occurs twice"),
}


@pytest.mark.parametrize(("x", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_images_is_said(x: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.sources.arrays(x, **options)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.nan, "holds NaN"),
        (np.inf, "holds infinity"),
        (-np.inf, "holds infinity"),
        (1.001, "values from 0 to 1.001, outside of value_range 0 to 1"),
    ],
)
def test_an_image_out_of_range_is_a_reject_and_the_rest_is_packed(tmp_path: Path, value: float, reason: str) -> None:
    x = np.zeros((20, 4, 4), np.float32)
    x[7, 2, 3] = value
    report = hr.pack(hr.sources.arrays(x, value_range=(0, 1)), tmp_path / "ds", progress=False)
    assert [(r.id, r.origin, r.stage, r.reason) for r in report.rejects] == [("7", "x[7]", "decode", reason)]
    assert sorted(hr.Dataset(tmp_path / "ds").catalog["id"].cast(int)) == [i for i in range(20) if i != 7]


def test_packed_they_are_png_and_come_back(tmp_path: Path) -> None:
    ds = pack(hr.sources.arrays(RGB, list(range(10))), tmp_path / "ds")
    assert set(ds.catalog["format"]) == {"png"} and ds.verify().ok
    for record in ds:  # type: ignore[attr-defined]
        assert np.array_equal(record.image, RGB[int(record.id)]) and record.label == int(record.id)


# --- labels

NO_YES = ("no", "yes")
LABELS = {
    "numbers": ([0, 1, 1, 0], None, [0, 1, 1, 0], ("0", "1")),
    "numbers with a gap": (np.array([0, 3, 1, 0], np.uint8), None, [0, 3, 1, 0], ("0", "1", "2", "3")),
    "numbers of named classes": ([1, 1, 0, 0], NO_YES, [1, 1, 0, 0], NO_YES),
    "a class without an image": ([0, 0, 0, 0], NO_YES, [0, 0, 0, 0], NO_YES),
    "whole floats": (np.array([0.0, 1.0, 1.0, 0.0]), None, [0, 1, 1, 0], ("0", "1")),
    "NaN is none": ([0.0, np.nan, 1.0, np.nan], None, [0, None, 1, None], ("0", "1")),
    "None is none": ([0, None, 1, 0], None, [0, None, 1, 0], ("0", "1")),
    "bool": ([True, False, True, True], NO_YES, [1, 0, 1, 1], NO_YES),
    "strings, natural order": (["c10", "c9", "c10", "C1"], None, [2, 1, 2, 0], ("C1", "c9", "c10")),
    "strings in a given order": (np.array(["no", "yes", "no", "yes"]), ("yes", "no"), [1, 0, 1, 0], ("yes", "no")),
    "strings and None": (["yes", None, "no", None], None, [1, None, 0, None], NO_YES),
    "strings that are numbers": (["1", "0", "1", "1"], None, [1, 0, 1, 1], ("0", "1")),
    "bytes": (np.array([b"no", b"yes", b"no", b"no"]), None, [0, 1, 0, 0], NO_YES),
    "objects": (np.array(["a", None, "b", float("nan")], object), None, [0, None, 1, None], ("a", "b")),
    "masked": (np.ma.masked_equal([0, 9, 1, 0], 9), None, [0, None, 1, 0], ("0", "1")),
    "a column, as Keras gives it": (np.array([[1], [0], [0], [1]]), None, [1, 0, 0, 1], ("0", "1")),
    "one-hot": (np.eye(3)[[2, 0, 1, 2]], None, [2, 0, 1, 2], ("0", "1", "2")),
    "one-hot lists, named": ([[1, 0], [0, 1], [0, 1], [1, 0]], NO_YES, [0, 1, 1, 0], NO_YES),
    "one-hot bool": (np.eye(2, dtype=bool)[[1, 0, 0, 1]], None, [1, 0, 0, 1], ("0", "1")),
    "all none": ([None] * 4, None, [None] * 4, None),
    "nothing said": (None, None, [None] * 4, None),
    "nothing said of named classes": (None, NO_YES, [None] * 4, NO_YES),
}


@pytest.mark.parametrize(("y", "names", "wanted", "classes"), LABELS.values(), ids=LABELS)
def test_labels(y: Any, names: Any, wanted: list[int | None], classes: tuple[str, ...] | None) -> None:
    source = hr.sources.arrays(X[:4], y, class_names=names)
    assert collect(source)[1].class_names == classes
    assert labels(source) == [(i, None if i is None or classes is None else classes[i]) for i in wanted]


NO_LABELS = {
    "too few": ([0, 1], None, "x has 4 images, y has 2 labels"),
    "too many": ([0] * 5, None, "x has 4 images, y has 5 labels"),
    "negative": ([0, -1, 1, 0], None, r"y\[1\] is -1, wanted 0 or more; pass None or NaN for no label"),
    "not whole": ([0, 0.5, 1, 0], None, r"y\[1\] is 0.5, wanted a whole number"),
    "infinite": ([0, np.inf, 1, 0], None, r"y\[\d\] is inf, wanted a whole number"),
    "no class of that number": ([0, 1, 2, 0], NO_YES, r"y\[2\] is 2, wanted 0 to 1: there are 2 class names"),
    "no class of that name": (["no", "maybe", "yes", "no"], NO_YES, r"y\[1\] is 'maybe', .* none of .* no, yes"),
    "numbers among names": (["no", 1, "yes", "no"], None, r"y\[1\] is the number 1"),
    "empty name": (["no", "", "yes", "no"], None, r"y\[1\] is an empty string"),
    "too large for a class": ([0, 10**9, 1, 0], None, "makes 1000000001 classes"),
    "uint64": (np.array([0, 2**64 - 1, 1, 0], np.uint64), None, "classes"),
    "a string of bytes": (b"0110", None, r"shape \[\], wanted labels"),
    "class names twice": ([0, 1, 1, 0], ("a", "a"), "one occurs twice"),
    "dates": (np.array(["2020-01-01"] * 4, "M8[D]"), None, "wanted a whole number"),
    "three axes": (np.zeros((4, 2, 2)), None, r"wanted labels \[n\] or one-hot"),
    "two ones": ([[1, 0], [1, 1], [0, 1], [0, 1]], None, r"y\[1\] is \[1, 1\], wanted one-hot.*; 1 rows"),
    "no one": ([[1, 0], [0, 0], [0, 1], [0, 0]], None, r"y\[1\] is \[0, 0\].*2 rows"),
    "soft labels": ([[1, 0], [0.5, 0.5], [0, 1], [0, 1]], None, r"y\[1\] is \[0.5, 0.5\]"),
    "one-hot NaN": ([[1, 0], [np.nan, 1], [0, 1], [0, 1]], None, r"y\[1\] is \[nan, 1\]"),
    "one-hot of other classes": (np.eye(3)[[0, 1, 2, 0]], NO_YES, "one-hot of 3 classes, and there are 2"),
    "table of strings": ([["a", "b"]] * 4, None, "wanted labels"),
    "ragged": ([[0, 1], [1], [0], [1]], None, "no array can be made of it"),
}


@pytest.mark.parametrize(("y", "names", "said"), NO_LABELS.values(), ids=NO_LABELS)
def test_what_is_no_labels_is_said(y: Any, names: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.sources.arrays(X[:4], y, class_names=names)


# --- files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    y = np.array([*"aabbccaabb"])
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(X))
    np.savez(tmp_path / "stored.npz", x=X, y=y)
    np.savez_compressed(tmp_path / "packed.npz", x=X, y=y)
    np.savez_compressed(tmp_path / "fortran.npz", x=np.asfortranarray(X), y=y)
    np.savez(tmp_path / "unnamed.npz", X)
    np.savez(tmp_path / "four.npz", x_train=X, y_train=y, x_test=RGB, y_test=np.arange(10))
    return tmp_path


@pytest.mark.parametrize(
    ("x", "y", "options", "in_file"),
    [
        ("x.npy", "y.npy", {}, True),
        ("x.npy", "stored.npz", {}, True),
        ("x.npy", "four.npz", {"label_key": "y_train"}, True),
        ("stored.npz", None, {}, True),
        ("stored.npz", "y.npy", {}, True),
        ("stored.npz", None, {"key": "x", "label_key": "y"}, True),
        ("packed.npz", None, {}, True),
        ("unnamed.npz", "y.npy", {}, True),
        ("four.npz", None, {"key": "x_train", "label_key": "y_train"}, True),
        ("fortran.npy", "y.npy", {}, False),
        ("fortran.npz", None, {}, False),
    ],
)
def test_files_are_read(files: Path, x: str, y: str | None, options: dict[str, str], in_file: bool) -> None:
    if "stored" in (y or ""):  # that file has images too, and only its labels are meant
        options = {"label_key": "y"}
    source = hr.sources.arrays(files / x, None if y is None else str(files / y), **options)
    assert isinstance(source.stack.numbers, InFile if in_file else InMemory)
    assert np.array_equal(images(source)[..., 0], X)
    assert [name for _, name in labels(source)] == [*"aabbccaabb"]
    assert all(record.origin.startswith(str(files / x)) for record in source)


def test_a_map_is_read_from_its_file_wherever_it_begins(files: Path) -> None:
    whole = np.load(files / "x.npy", mmap_mode="r")
    for part in (whole, whole[3:8], whole[9:], whole[4:5, :, :]):
        source = hr.sources.arrays(part)
        assert isinstance(source.stack.numbers, InFile)
        assert np.array_equal(images(source)[..., 0], part)


@pytest.mark.parametrize("change", ["every second", "columns", "copy on write", "computed", "file gone", "replaced"])
def test_a_map_that_is_not_its_file_is_taken_as_it_is(files: Path, change: str) -> None:
    x = np.load(files / "x.npy", mmap_mode="c" if change == "copy on write" else "r")
    if change == "every second":
        x = x[::2]
    elif change == "columns":
        x = x[:, 1:]
    elif change == "copy on write":
        x[4] += 1
    elif change == "computed":
        x = x[1:] + x[:-1]
    elif change == "file gone":
        (files / "x.npy").unlink()
    else:
        (files / "x.npy").rename(files / "old.npy")
        np.save(files / "x.npy", X[::-1])
    source = hr.sources.arrays(x)
    assert isinstance(source.stack.numbers, InMemory)
    assert np.array_equal(images(source)[..., 0], x)


def test_what_was_written_into_a_map_is_seen(tmp_path: Path) -> None:
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (4, 6, 6))
    x[:] = 7
    source = hr.sources.arrays(x)
    x[2] = 9
    assert [int(image.mean()) for image in images(source)] == [7, 7, 9, 7]


def headers(shape: str, descr: str = "|u1", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def test_damaged_files_are_said(files: Path) -> None:
    data = (files / "x.npy").read_bytes()
    np.savez(files / "large.npz", np.zeros((10, 64, 64), np.uint8))
    whole, large = (files / "packed.npz").read_bytes(), (files / "large.npz").read_bytes()
    objects, pickled = io.BytesIO(), pickle.dumps(X)
    np.save(objects, np.array([None, 1], object), allow_pickle=True)
    notes = io.BytesIO()
    with zipfile.ZipFile(notes, "w") as made:
        made.writestr("readme.txt", "hello")
    cases = {
        "empty": (b"", "neither a .npy nor a .npz file"),
        "text": (b"a,b\n1,2\n", "neither a .npy"),
        "a pickle": (pickled, "pickles are never loaded"),
        "objects": (objects.getvalue(), r"holds Python objects \(pickled\), which are never loaded"),
        "only a magic number": (data[:6], "not a sound .npy header"),
        "half a header": (data[:40], "not a sound .npy header"),
        "cut short": (data[:-1], "is cut short: 350 bytes are promised"),
        "garbled header": (data[:12] + b"\0" * 100 + data[112:], "not a sound .npy header"),
        "negative shape": (headers("(-3, 4, 5)") + data, "not a sound .npy header"),
        "a huge shape": (headers("(1000000000000, 1000000000000, 5)") + data, "is cut short"),
        "a version to come": (headers("(1, 2, 3)", version=b"\x09\x00") + data, "not a sound .npy header"),
        "half an archive": (whole[: len(whole) // 2], "a damaged .npz file"),
        "an archive without arrays": (notes.getvalue(), "holds no arrays"),
        "a flipped bit": (whole[:300] + bytes([whole[300] ^ 16]) + whole[301:], "unpacked|damaged"),
        "a flipped bit, uncompressed": (large[:-9999] + bytes([large[-9999] ^ 16]) + large[-9998:], "Bad CRC-32"),
    }
    for content, said in cases.values():
        path = files / "bad.npz"
        path.write_bytes(content)
        with pytest.raises((DataError, UsageError), match=said):
            hr.sources.arrays(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_what_unpacks_to_more_than_it_promises_is_left_at_once(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("x.npy", headers("(2, 8, 8)") + bytes(1 << 26))
    read = 0

    def counted(self: zipfile.ZipExtFile, n: int = -1, *, plain: Any = zipfile.ZipExtFile.read) -> bytes:
        nonlocal read
        found: bytes = plain(self, n)
        read += len(found)
        return found

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    with pytest.raises(DataError, match=r"^[^(]*x.npz:x: holds more than the \d+ bytes that its"):
        hr.sources.arrays(path)
    assert read < 1 << 25


def test_no_room_to_unpack_is_said_before_it_is_tried(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x.npy", headers("(1000000000, 1000, 1000)"))
    with pytest.raises(StorageError, match=r"x.npz:x: unpacked it takes 1000000.00 GB, .* set TMPDIR"):
        hr.sources.arrays(tmp_path / "x.npz")


def test_which_arrays_are_meant_must_be_clear(files: Path) -> None:
    listed = r"x_train uint8\[10, 5, 7\], y_train <U1\[10\], x_test uint8\[10, 5, 7, 3\], y_test int64\[10\]"
    for x, y, options, said in [
        ("four.npz", None, {}, f"which array holds the images\\? Pass key, one of {listed}"),
        ("four.npz", None, {"key": "x_train"}, "which array holds the labels"),
        ("four.npz", None, {"key": "z"}, f"key is 'z', it has {listed}"),
        ("four.npz", None, {"key": "x_train", "label_key": "z"}, "label_key is 'z'"),
        ("x.npy", "four.npz", {}, "which array holds the labels"),
        ("x.npy", None, {"key": "x"}, r"key is 'x', it has one array uint8\[10, 5, 7\]"),
        ("y.npy", None, {}, r"shape \[10\], wanted"),
        ("x.npy", "unnamed.npz", {}, r"shape \[10, 5, 7\], wanted labels"),
    ]:
        with pytest.raises(UsageError, match=said):
            hr.sources.arrays(files / x, None if y is None else files / y, **options)
    with pytest.raises(NotThereError, match=r"gone.npy: no such file"):
        hr.sources.arrays(files / "gone.npy")
    with pytest.raises(NotThereError, match=r"gone.npy: no such file"):
        hr.sources.arrays(X, files / "gone.npy")


def test_a_file_cut_short_after_it_was_opened_is_a_reject(files: Path) -> None:
    source = hr.sources.arrays(files / "x.npy")
    with (files / "x.npy").open("r+b") as file:
        file.truncate((files / "x.npy").stat().st_size - 10)
    *good, bad = source
    assert len(images(good)) == 9
    with pytest.raises(codec.BadImage, match="has been cut short"):
        bad.read()


@pytest.mark.parametrize("given", ["x.npy", "map", "stored.npz"])
def test_a_plan_of_files_is_small_and_works_elsewhere(files: Path, given: str) -> None:
    big = np.zeros((50, 64, 64), np.uint8)
    big[:] = np.arange(50)[:, None, None]
    np.save(files / "x.npy", big)
    np.savez(files / "stored.npz", x=big)
    x: Any = np.load(files / "x.npy", mmap_mode="r") if given == "map" else files / given
    sizes = []

    def elsewhere(tasks: Tasks) -> Any:
        sizes.append(len(pickle.dumps(tasks[0])))
        return map(make_shard, pickle.loads(pickle.dumps([*tasks])))

    runner: Runner = elsewhere
    ds = pack(hr.sources.arrays(x), files / "ds", runner=runner)
    assert sizes[0] < 20_000 < big.nbytes
    assert all((record.image == int(record.id)).all() for record in ds)  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["memory", "fortran", "h5py", "packed.npz"])
def test_tasks_bring_arrays_in_memory_along(files: Path, given: str) -> None:
    """Each those of its own shard alone, whose numbers then are others."""
    big = np.zeros((60, 32, 32), np.uint8)
    big[:] = np.arange(60)[:, None, None]
    np.savez_compressed(files / "packed.npz", x=big)
    x: Any = {"memory": big, "fortran": np.asfortranarray(big), "packed.npz": files / "packed.npz"}.get(given)
    if given == "h5py":
        h5py = pytest.importorskip("h5py")
        x = h5py.File(files / "x.h5", "w").create_dataset("x", data=big)
    sizes = []

    def elsewhere(tasks: Tasks) -> Any:
        sizes.extend(len(task.payload) for task in tasks)
        return map(make_shard, pickle.loads(pickle.dumps([*tasks])))

    ds = pack(hr.sources.arrays(x), files / "ds", runner=elsewhere, shards=3)
    assert len(sizes) == 3 and all(20 * 32 * 32 < size < 30 * 32 * 32 for size in sizes)
    assert len(ds) == 60
    assert all((record.image == int(record.id)).all() for record in ds)  # type: ignore[attr-defined]


def test_an_image_that_a_task_could_not_take_along_is_a_reject(files: Path) -> None:
    class Odd:
        dtype, shape = np.dtype(np.uint8), (12, 8, 8)

        def __getitem__(self, part: slice) -> Any:
            return np.zeros((part.stop - part.start, 8, 8), np.float32 if part.start == 5 else np.uint8)

    source = hr.sources.arrays(Odd())
    here = hr.pack(source, files / "here", max_rejects=1, progress=False)
    there = hr.pack(source, files / "there", max_rejects=1, progress=False, runner=lambda tasks: map(make_shard, tasks))
    assert [str(one) for one in here.rejects] == [str(one) for one in there.rejects] != []


def test_what_was_unpacked_is_of_one_process(files: Path) -> None:
    with pytest.raises(UsageError, match=r"save the array as .npy"):
        pickle.dumps(hr.sources.arrays(files / "packed.npz"))


def test_the_folder_of_the_array_is_not_replaced(files: Path) -> None:
    pack(hr.sources.arrays(X), files / "ds")
    np.save(files / "ds/x.npy", X)
    for x in (files / "ds/x.npy", np.load(files / "ds/x.npy", mmap_mode="r")):
        with pytest.raises(UsageError, match="images of the source lie in it"):
            hr.pack(hr.sources.arrays(x), files / "ds", overwrite=True, progress=False)
    assert np.array_equal(np.load(files / "ds/x.npy"), X)


# --- the command


def test_pack_arrays_by_command(files: Path) -> None:
    done = headrace("pack", files / "x.npy", files / "out", "--labels", files / "y.npy", "--json")
    assert done.code == 0, done.err
    assert "taking --format arrays" in done.err
    assert hr.Dataset(files / "out").class_counts == {"a": 4, "b": 4, "c": 2}
    np.savez(files / "float.npz", scans=X / 255, kinds=np.arange(10) % 2, other=np.arange(10))
    words = ["pack", files / "float.npz", files / "out2", "--format", "arrays", "--classes", "no,yes"]
    for more, said in (
        ([], "float64 says nothing of what is black and white"),
        (["--value-range", "0"], "--value-range '0': wanted"),
        (["--value-range", "0,1"], "Pass label_key, one of"),
        (["--value-range", "0,1", "--label-key", "kinds", "--images", files], "--images is for"),
    ):
        done = headrace(*words, *more)
        assert done.code == 2 and said in done.err
    done = headrace(*words, "--value-range", "0,1", "--label-key", "kinds")
    assert done.code == 0, done.err
    ds = hr.Dataset(files / "out2")
    assert ds.class_counts == {"no": 5, "yes": 5}
    assert all(np.array_equal(record.image[..., 0], X[int(record.id)]) for record in ds)  # type: ignore[attr-defined]
    # A range may begin below 0, and an array without labels is packed without.
    np.save(files / "signed.npy", X / 127.5 - 1)
    assert headrace("pack", files / "signed.npy", files / "out3", "--value-range", "-1,1").code == 0
    assert hr.Dataset(files / "out3").class_names == ()
