"""Source `arrays`: images in a NumPy array, or a .npy or .npz file; labels in another. Loading keeps them."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headrace.errors import UsageError
from headrace.place.address import is_url
from headrace.record import Record, Reject, check_names
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.stack import (
    Member,
    Numbers,
    Range,
    Stack,
    check_numbers,
    is_array_file,
    keep_stack,
    members,
    numbers_of,
    open_stack,
)
from headrace.sources.walking import natural

Array: TypeAlias = ArrayLike | str | os.PathLike[str]
LabelsAre: TypeAlias = Literal["classes", "multi", "value", "keep"]

_MOST_CLASSES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraysSource:
    """Iterable of Record; see `arrays`. `labels` int64 [n], -1 for none; `ids` None stands for 0, 1, 2, ...

    `kept`: what y has for each image where it is kept, [n, ...] by name; an array alone has the name "".
    `several` bool [n, classes]: which classes each image has, where there may be several; `values` float64 [n]: a
    number of each image, NaN for none.
    An image that turns out to have no pixels when it is read (NaN in it, say) is a Reject there.
    """

    stack: Stack
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    ids: tuple[str, ...] | None
    several: NDArray[np.bool_] | None = None
    values: NDArray[np.float64] | None = None
    kept: Mapping[str, Numbers] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.stack)

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        names = self.class_names or ()
        for i, label in enumerate(self.labels.tolist()):
            yield Record(
                id=self.id(i),
                pixels=self.stack.frame(i),
                label=None if label < 0 else label,
                label_name=None if label < 0 else names[label],
                labels=None if self.several is None else tuple(names[k] for k in np.flatnonzero(self.several[i])),
                value=None if self.values is None or np.isnan(self.values[i]) else float(self.values[i]),
                origin=self.origin(i),
            )
        return SourceInfo(class_names=self.class_names, root=self.stack.name, numbered=self.ids is None)

    def id(self, i: int) -> str:
        return str(i) if self.ids is None else self.ids[i]

    def origin(self, i: int) -> str:
        return f"{self.stack.name}[{i}]"


def arrays(
    x: Array,
    y: Array | None = None,
    *,
    class_names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    value_range: Range | None = None,
    key: str | None = None,
    label_key: str | None = None,
) -> ArraysSource:
    """Images `x` [n, h, w] or [n, h, w, c] (c = 1, or 3 for RGB) with labels `y`: arrays, or paths of .npy or .npz.

    Types: uint8 as it is; bool is 0 and 255; other integers as they are, where all are 0 to 255. What else there is
    needs `value_range` (low, high), the values of black and white: v becomes round((v - low) * 255 / (high - low)),
    which is off by (high - low) / 510 at most. An image with NaN, infinity or a value outside of it is a Reject.

    y: whole numbers from 0, strings, or one-hot [n, classes]; None or NaN is no label. `class_names` in index order; by
    default strings are sorted naturally, and numbers are named by themselves. `ids` by default "0", "1", ...

    key, label_key: names of the arrays in a .npz. By default x is its only array of 3 or 4 axes, and y, unless given,
    the only other one that is as long. Files are never loaded as a whole: a .npy or a .npz of np.savez is read where
    it lies, a compressed .npz is unpacked into a temporary file first. Python objects (pickles) are refused.

    Arrays are not copied, so don't change them. Raises UsageError (shape, type, lengths, labels), NotThereError,
    DataError (a file that is damaged or no array), StorageError.
    """
    return open_arrays(
        x,
        y,
        dtype=None,
        labels="classes",
        class_names=class_names,
        ids=ids,
        value_range=value_range,
        key=key,
        label_key=label_key,
    )


def open_arrays(
    x: Array,
    y: Array | Mapping[str, Array] | None,
    *,
    dtype: Literal["keep"] | None,
    labels: LabelsAre | None,
    class_names: Sequence[str] | None,
    ids: Sequence[str] | None,
    value_range: Range | None,
    key: str | None,
    label_key: str | None,
) -> ArraysSource:
    """What `arrays` gives, where x or y may be kept as they are: see load.arrays. Raises as `arrays` does."""
    if dtype is not None and not (isinstance(dtype, str) and dtype == "keep"):
        raise UsageError(f"dtype is {dtype!r}, wanted None (x is made pixels, uint8) or 'keep' (x as it is)")
    if labels is not None and labels not in get_args(LabelsAre):
        raise UsageError(
            f"labels is {labels!r}, wanted one of {', '.join(get_args(LabelsAre))}, or None to tell it by what y is"
        )
    keep = dtype is not None
    if keep and value_range is not None:
        raise UsageError("value_range says what becomes black and white, and dtype='keep' changes no number of x")
    for said, given in (("x", x), ("y", y)):
        if isinstance(given, str | os.PathLike) and is_url(os.fspath(given)):
            raise UsageError(f"{said} is {os.fspath(given)}: arrays are read from files of this machine; copy it there")
    beside: list[Member] = []
    if isinstance(x, str | os.PathLike):
        beside = members(Path(x))
        images = _the_images(Path(x), beside, key, keep)
        beside.remove(images)
        name, numbers = images.name, images.open()
    else:
        if key is not None:
            raise UsageError(f"key is {key!r}: it names an array of a .npz file, and x is an array itself")
        name, numbers = "x", _numbers(_array(x, "x"), "x")
    stack = keep_stack(name, numbers) if keep else open_stack(name, numbers, value_range)
    n = len(stack)
    found: Any  # a Member, an array, what is sliced as one, a dict, or None
    if y is None and isinstance(x, str | os.PathLike):
        found = _the_labels(Path(x), [member for member in beside if member.shape[:1] == (n,)], label_key)
    elif isinstance(y, str | os.PathLike):
        found = _the_y(Path(y), label_key)
    elif label_key is not None:
        raise UsageError(f"label_key is {label_key!r}: it names an array of a .npz file, and y is none")
    else:
        found = y if y is None or isinstance(y, Mapping) else _as_labels(y, "y")
    name = found.name if isinstance(found, Member) else "y"
    unsaid = labels is None and class_names is None
    if labels == "keep" or (unsaid and not _are_classes(found, keep)):
        if class_names is not None:
            raise UsageError("class_names name the classes of y, and y is kept as it is; leave one of them out")
        kept = {} if found is None else _kept(found, n, name)
        return ArraysSource(stack=stack, labels=np.full(n, -1), class_names=None, ids=_ids(ids, n), kept=kept)
    if isinstance(found, Mapping):
        raise UsageError(
            f"y is a dict of {', '.join(map(repr, found)) or 'nothing'}, which is kept as it is; "
            f"leave out {'class_names' if labels is None else 'labels'}"
        )
    if labels == "multi":
        several, classes = _several(_in_memory(found), n, class_names, name)
        return ArraysSource(stack=stack, labels=np.full(n, -1), class_names=classes, ids=_ids(ids, n), several=several)
    if labels == "value":
        if class_names is not None:
            raise UsageError("class_names name the classes of y, and y is values; leave one of them out")
        values = _values(_in_memory(found), n, name)
        return ArraysSource(stack=stack, labels=np.full(n, -1), class_names=None, ids=_ids(ids, n), values=values)
    try:
        indices, names = _classes(_in_memory(found), n, class_names, name)
    except UsageError as error:
        if unsaid and found.shape[:1] == (n,) and found.dtype.kind in "buifc":
            other = (
                "'multi', where an image may have several"
                if len(found.shape) == 2
                else "'value', where it is a number of each image"
            )
            raise UsageError(f"{error}; or labels={other}; or labels='keep', which keeps y as it is") from None
        raise
    return ArraysSource(stack=stack, labels=indices, class_names=names, ids=_ids(ids, n))


def _are_classes(y: Any, keep: bool) -> bool:
    """Whether y, of which nobody said it, is classes. By its type and axes, never by its values: as those of more
    images may be others."""
    if isinstance(y, Mapping) or (y is not None and len(y.shape) > 2):
        return False
    if y is None or not keep:
        return True
    return y.dtype.kind not in "fc" and len(y.shape) - (y.shape[1:] == (1,)) < 2


def _kept(y: Any, n: int, name: str) -> dict[str, Numbers]:
    """The numbers of y, which has a row for each of `n` images, by name. Raises UsageError, and as files do."""
    if isinstance(y, Mapping):
        if not y or not all(isinstance(part, str) and part for part in y):
            raise UsageError(f"y is a dict of {', '.join(map(repr, y)) or 'nothing'}; wanted arrays by names")
        return {part: _kept(_opened(one, f"y[{part!r}]"), n, f"y[{part!r}]")[""] for part, one in y.items()}
    if 0 in y.shape[1:] or not y.shape:
        raise UsageError(f"{name}: shape {list(y.shape)}, wanted [n, ...], numbers for each image")
    if y.shape[0] != n:
        raise UsageError(f"x has {n} images, {name} has {y.shape[0]} rows; wanted one for each")
    check_numbers(name, y.dtype)
    return {"": y.open() if isinstance(y, Member) else _numbers(y, name)}


def _opened(given: Any, name: str) -> Any:
    return _the_y(Path(given), None) if isinstance(given, str | os.PathLike) else _array(given, name)


def _numbers(array: Any, name: str) -> Numbers:
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(
            f"{name}: a masked array, and a number can't be missing; say what it is there with {name}.filled(value)"
        )
    return numbers_of(array)


def _the_y(path: Path, key: str | None) -> Member:
    """The array that a file given as y holds. Raises UsageError, NotThereError, DataError, StorageError."""
    found = members(path)
    only = found[0] if len(found) == 1 and key is None else _the_labels(path, found, key)
    if only is None:
        raise UsageError(f"{path}: which array holds the labels? Pass label_key, one of {_listed(found)}")
    return only


def _the_images(path: Path, found: Sequence[Member], key: str | None, keep: bool) -> Member:
    if key is not None:
        return _named(path, found, "key", key)
    likely = [member for member in found if len(member.shape) in (3, 4) or (keep and len(member.shape) > 4)]
    if len(found) == 1 or len(likely) == 1:
        return (likely or found)[0]
    raise UsageError(f"{path}: which array holds the images? Pass key, one of {_listed(found)}")


def _the_labels(path: Path, found: Sequence[Member], key: str | None) -> Member | None:
    if key is not None:
        return _named(path, found, "label_key", key)
    likely = [member for member in found if len(member.shape) in (1, 2)]
    if len(likely) > 1:
        raise UsageError(f"{path}: which array holds the labels? Pass label_key, one of {_listed(likely)}")
    return likely[0] if likely else None


def _named(path: Path, found: Sequence[Member], option: str, key: str) -> Member:
    for member in found:
        if member.key == key:
            return member
    raise UsageError(f"{path}: {option} is {key!r}, it has {_listed(found)}")


def _listed(found: Sequence[Member]) -> str:
    return ", ".join(f"{member.key or 'one array'} {member.dtype}{list(member.shape)}" for member in found) or "nothing"


def _in_memory(y: Any) -> Any:
    if y is None or isinstance(y, np.ndarray):
        return y
    numbers = y.open() if isinstance(y, Member) else numbers_of(y)
    return numbers.read(0, y.shape[0]) if y.shape else np.zeros(0)


def _array(given: Any, name: str) -> Any:
    """An array of what is given, or that itself where it can be sliced as one and lies elsewhere."""
    if _lies_elsewhere(given):
        return given
    try:
        return np.asanyarray(given)
    except ValueError as error:
        raise UsageError(f"{name}: no array can be made of it ({error}); wanted one of equal images") from error


def _lies_elsewhere(given: Any) -> bool:
    """Whether it is sliced as an array and is none: what is in memory says so by DLPack, and pandas slices by label."""
    said = hasattr(given, "shape") and isinstance(getattr(given, "dtype", None), np.dtype)
    return said and hasattr(given, "__getitem__") and not (hasattr(given, "__dlpack__") or hasattr(given, "iloc"))


def _ids(given: Sequence[str] | None, n: int) -> tuple[str, ...] | None:
    if given is None:
        return None
    ids = tuple(str(id_) for id_ in given)
    if len(ids) != n:
        raise UsageError(f"x has {n} images, ids has {len(ids)}; wanted one for each")
    if len(set(ids)) < n:
        seen: set[str] = set()
        twice = next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
        raise UsageError(f"ids: {twice!r} occurs twice; every image wants its own")
    return ids


def _classes(
    y: NDArray[Any] | None, n: int, class_names: Sequence[str] | None, name: str
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Class index of each of `n` images, int64 [n], -1 for none; and the names of the classes, None where unsaid."""
    given = None if class_names is None else tuple(class_names)
    if given is not None and len(set(given)) != len(given):
        raise UsageError(f"class names {', '.join(given)}: one occurs twice")
    if y is None:
        return np.full(n, -1, np.int64), given
    if y.ndim not in (1, 2):
        raise UsageError(f"{name}: shape {list(y.shape)}, wanted labels [n] or one-hot [n, classes]")
    if len(y) != n:
        raise UsageError(f"x has {n} images, {name} has {len(y)} labels; wanted one for each (None for no label)")
    if y.ndim == 2 and y.shape[1] == 1:  # as keras.datasets gives them
        y = y[:, 0]
    if y.ndim == 2:
        return _one_hot(y, given, name)
    entries, first, of = _distinct(y)
    labels = [_label(entry, name, i) for entry, i in zip(entries, first, strict=True)]
    if any(isinstance(label, str) for label in labels):
        numbers, given = _by_name(labels, first, given, name)
    else:
        numbers, given = _by_number(labels, first, given, name)
    return numbers[of], given or None


def _several(
    y: NDArray[Any] | None, n: int, class_names: Sequence[str] | None, name: str
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Which classes each of `n` images has, bool [n, classes], and their names. Raises UsageError."""
    if y is None or y.ndim != 2 or y.dtype.kind not in "buif" or isinstance(y, np.ma.MaskedArray):
        found = "no y" if y is None else f"{name}: {'masked ' * np.ma.isMA(y)}{y.dtype} {list(y.shape)}"
        raise UsageError(f"{found}, wanted numbers [n, classes], 1 for each class that an image has and else 0")
    if len(y) != n:
        raise UsageError(f"x has {n} images, {name} has {len(y)} rows; wanted one for each")
    names = tuple(map(str, range(y.shape[1]))) if class_names is None else check_names(class_names, "class_names")
    if len(names) != y.shape[1] or not names:
        raise UsageError(
            f"{name} has {y.shape[1]} columns, and there are {len(names)} class names; wanted one for each"
        )
    for i, k in np.argwhere((y != 0) & (y != 1))[:1].tolist():
        raise UsageError(f"{name}[{i}, {k}] is {y[i, k]:g}, wanted 0 or 1: whether the image has class {names[k]!r}")
    return y != 0, names


def _values(y: NDArray[Any] | None, n: int, name: str) -> NDArray[np.float64]:
    """The number of each of `n` images, float64 [n], NaN for none. Raises UsageError."""
    if y is not None and y.shape[1:] == (1,):
        y = y[:, 0]
    if y is None or y.ndim != 1 or y.dtype.kind not in "buifO":
        found = "no y" if y is None else f"{name}: {y.dtype} {list(y.shape)}"
        raise UsageError(f"{found}, wanted numbers [n], NaN or None where there is none")
    if len(y) != n:
        raise UsageError(f"x has {n} images, {name} has {len(y)} values; wanted one for each (NaN for none)")
    values = np.full(n, np.nan)
    if y.dtype.kind == "O":
        for i, entry in enumerate(y.tolist()):
            if entry is not None and not isinstance(entry, int | float | np.integer | np.floating):
                raise UsageError(f"{name}[{i}] is {entry!r:.60}, wanted a number, or NaN or None where there is none")
            try:
                values[i] = np.nan if entry is None else entry
            except OverflowError:
                values[i] = np.inf
    else:
        values[:] = np.ma.filled(y.astype(np.float64), np.nan)
    for i in np.flatnonzero(np.isinf(values))[:1].tolist():
        raise UsageError(f"{name}[{i}] is {values[i]:g}, wanted a finite number, or NaN or None where there is none")
    return values


def _distinct(array: NDArray[Any]) -> tuple[list[Any], list[int], NDArray[np.int64]]:
    """The values in labels [n] as Python objects, where each stands first, and which of them each label is [n]."""
    if array.dtype.kind == "O":  # what is in it need have no order
        return array.tolist(), list(range(len(array))), np.arange(len(array))
    values, first, of = np.unique(array, return_index=True, return_inverse=True)
    return values.tolist(), first.tolist(), of


def _as_labels(y: Any, name: str) -> Any:
    """The labels as an array; as one of Python objects where NumPy would make strings of numbers, or of None."""
    array = _array(y, name)
    if array.dtype.kind in "USO" and not hasattr(y, "dtype") and len(array.shape) == 1:
        entries = list(y)
        array = np.empty(len(entries), object)
        array[:] = entries
    return array


def _label(entry: Any, name: str, i: int) -> int | str | None:
    """A class's index or name, None for no label. Raises UsageError."""
    if isinstance(entry, bytes):
        entry = entry.decode(errors="backslashreplace")
    if isinstance(entry, str):
        if not entry:
            raise UsageError(f"{name}[{i}] is an empty string; pass None where there is no label")
        return str(entry)
    if entry is None or entry != entry:
        return None
    if not isinstance(entry, int | float | np.integer | np.floating | np.bool_) or entry % 1 != 0:
        raise UsageError(f"{name}[{i}] is {entry!r}, wanted a whole number from 0, a string, or None for no label")
    whole = int(entry)
    if whole < 0:
        raise UsageError(
            f"{name}[{i}] is {whole}, wanted 0 or more; pass None or NaN for no label, strings for classes -1 and 1"
        )
    return whole


def _by_number(
    labels: Sequence[int | str | None], first: Sequence[int], given: tuple[str, ...] | None, name: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    top = max((label for label in labels if isinstance(label, int)), default=-1)
    if given is None and top >= _MOST_CLASSES:
        raise UsageError(f"{name}: label {top} makes {top + 1} classes; pass class_names, or the labels as strings")
    if given is not None and top >= len(given):
        where = f"{name}[{first[labels.index(top)]}]"
        raise UsageError(f"{where} is {top}, wanted 0 to {len(given) - 1}: there are {len(given)} class names")
    numbers = np.array([-1 if label is None else label for label in labels], np.int64)
    return numbers, tuple(str(i) for i in range(top + 1)) if given is None else given


def _by_name(
    labels: Sequence[int | str | None], first: Sequence[int], given: tuple[str, ...] | None, name: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    for label, i in zip(labels, first, strict=True):
        if isinstance(label, int):
            raise UsageError(f"{name}[{i}] is the number {label}, among names of classes; wanted one or the other")
        if given is not None and label is not None and label not in given:
            raise UsageError(f"{name}[{i}] is {label!r}, which is none of the class names {', '.join(given)}")
    names = given or tuple(sorted({label for label in labels if isinstance(label, str)}, key=natural))
    index: dict[int | str | None, int] = {class_name: i for i, class_name in enumerate(names)}
    return np.array([index.get(label, -1) for label in labels], np.int64), names


def _one_hot(
    array: NDArray[Any], given: tuple[str, ...] | None, name: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    classes = array.shape[1]
    if given is not None and len(given) != classes:
        raise UsageError(f"{name} is one-hot of {classes} classes, and there are {len(given)} class names")
    if array.dtype.kind not in "buif":
        raise UsageError(f"{name}: shape {list(array.shape)} of {array.dtype}, wanted labels [n], or one-hot numbers")
    bad = np.flatnonzero(((array != 0) & (array != 1)).any(axis=1) | (np.count_nonzero(array, axis=1) != 1))
    if len(bad):
        i = int(bad[0])
        shown = ", ".join(f"{value:g}" for value in array[i, :8]) + (", …" if classes > 8 else "")
        raise UsageError(f"{name}[{i}] is [{shown}], wanted one-hot: exactly one 1 and else 0; {len(bad)} rows are not")
    return array.argmax(axis=1).astype(np.int64), given or tuple(str(i) for i in range(classes))


FORMAT = Format(
    name="arrays",
    reads="Images in a NumPy file, .npy or .npz",
    takes="file",
    make=arrays,
    recognise=is_array_file,
    options=(
        Option(name="y", type=Path, help="File (.npy or .npz) with a label for each image.", per_split=True),
        CLASS_NAMES,
        Option(name="key", type=str, help="Name of the images in a .npz; found by its shape by default."),
        Option(name="label_key", type=str, help="Name of the labels in a .npz; found by its shape by default."),
        Option(
            name="value_range",
            type=tuple[float, float],
            help="Values of black and white, where pixels are no 8-bit integers.",
        ),
    ),
    example=("x.npy", {"y": "y.npy", "class_names": ("no", "yes")}),
    about=About(
        recognised="a file that ends in .npy or .npz, by its beginning.",
        kept="images [n, h, w] or [n, h, w, c], read where they lie; labels as numbers, names or one-hot.",
        refused="values that are no 8-bit pixels, without --value-range; pickles, always.",
        sample=("x.npy  uint8 [n, 64, 64, 3]\ny.npy  int64 [n]"),
    ),
)
