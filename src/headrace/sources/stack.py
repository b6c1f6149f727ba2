"""Many images of one size in one array: of NumPy, a .npy or .npz file, each read by its number, made uint8 or kept.

Labels, ids and Records are left to arrays.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.imaging.levels import Range as Range
from headrace.imaging.levels import check_range, scaled, short, unfit

if TYPE_CHECKING:
    from headrace.imaging.codec import BadImage, Pixels

_CHUNK_BYTES = 1 << 24
_ZIP = b"PK\x03\x04"
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name (APPNOTE.TXT 4.3.7)


class Numbers(Protocol):
    """An array [n, ...] that is read by ranges of its first axis. `path`: the file it lies in, None in memory."""

    path: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Numbers [stop - start, ...]. Raises BadImage, OSError: the file has been changed."""
        ...


class InMemory:
    """Numbers of an array, not copied."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.path: str | None = None

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.array[start:stop]


class Taken(InMemory):
    """Numbers [m, ...] that were read out of others; what could not be read raises its fault again."""

    def __init__(self, array: NDArray[Any], faults: dict[int, Exception]) -> None:
        super().__init__(array)
        self.faults = faults

    def read(self, start: int, stop: int) -> NDArray[Any]:
        for i in range(start, stop):
            if i in self.faults:
                raise self.faults[i]
        return super().read(start, stop)


def taken(numbers: Numbers, wanted: NDArray[np.int64]) -> Taken:
    """The numbers of the images that are wanted [m, ...], in memory."""
    from headrace.imaging.codec import BadImage  # see Frame.encode

    out, faults = np.zeros((len(wanted), *numbers.shape[1:]), numbers.dtype), dict[int, Exception]()
    for place, i in enumerate(wanted.tolist()):
        try:
            out[place] = numbers.read(i, i + 1)[0]
        except (BadImage, OSError) as error:
            faults[place] = error
    return Taken(out, faults)


class Sliced:
    """Numbers of what says its shape and dtype, is sliced as an array is and lies elsewhere: a dataset of h5py, say."""

    def __init__(self, given: Any) -> None:
        self.given, self.dtype, self.shape = given, given.dtype, tuple(given.shape)
        self.path: str | None = None

    def read(self, start: int, stop: int) -> NDArray[Any]:
        found = np.asarray(self.given[start:stop])
        if (found.dtype, found.shape) != (self.dtype, (stop - start, *self.shape[1:])):
            wanted = f"{self.dtype}{[stop - start, *self.shape[1:]]}"
            raise _bad("read", f"its slice [{start}:{stop}] is {found.dtype}{list(found.shape)}, not {wanted}")
        return found


class InFile:
    """Numbers that lie one after the other in an uncompressed file, from byte `offset`, in C order.

    They are read and not mapped: pages of a map count as this process's memory once they were looked at, so that an
    epoch over a large map looks like a leak, and can end in one where memory is limited.
    Pickles as the path. Raises OSError when it can't be opened.
    """

    def __init__(self, path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._use(os.open(path, os.O_RDONLY | os.O_CLOEXEC), offset, dtype, shape)
        self.path: str | None = path

    @classmethod
    def unnamed(cls, handle: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> InFile:
        """Numbers in an open file without a name, of which `handle` is taken over."""
        made = object.__new__(cls)
        made._use(handle, offset, dtype, shape)
        made.path = None
        return made

    def _use(self, handle: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._handle, self.offset, self.dtype, self.shape = handle, offset, dtype, shape
        self._item = math.prod(shape[1:]) * dtype.itemsize
        weakref.finalize(self, os.close, handle)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        todo = out.reshape(-1).view(np.uint8).data
        at = self.offset + start * self._item
        while todo:
            got = os.preadv(self._handle, [todo], at)
            if not got:
                raise _bad("read", "the file ends before it: it has been cut short")
            todo, at = todo[got:], at + got
        return out

    def __reduce__(self) -> Any:
        if self.path is None:
            raise UsageError(
                "what was unpacked of a compressed .npz belongs to this process; save the array as .npy to share it"
            )
        return InFile, (self.path, self.offset, self.dtype, self.shape)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stack:
    """Images of one size, numbered from 0. `name` is what people call it: a path, or "x" for an array in memory.

    `numbers` [n, h, w] or [n, h, w, c], c = 1 or 3. `value_range` (low, high) are the numbers of black and white; where
    it is None the numbers are kept as they are, [n, ...] with any c, and `height`, `width`, `channels` are 0 where such
    an array has no axis for them.
    """

    name: str
    numbers: Numbers
    value_range: Range | None
    height: int = field(init=False)
    width: int = field(init=False)
    channels: int = field(init=False)

    def __post_init__(self) -> None:
        sides = self.numbers.shape[1:]
        if len(sides) not in (2, 3):
            sides = (0, 0, 0)
        height, width, channels = (*sides, 0 if self.keeps else 1)[:3]
        for name, value in (("height", height), ("width", width), ("channels", channels)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.numbers.shape[0]

    @property
    def keeps(self) -> bool:
        """Whether the numbers are kept as they are, and are no pixels."""
        return self.value_range is None

    @property
    def exact(self) -> bool:
        """Whether no number can fall outside of the range, whatever the images are."""
        if self.value_range is None:
            return True
        kind, (low, high) = self.numbers.dtype, self.value_range
        if kind.kind == "b":
            return low <= 0 and high >= 1
        return kind.kind in "iu" and low <= np.iinfo(kind).min and high >= np.iinfo(kind).max

    def read(self, i: int) -> NDArray[Any]:
        """The numbers of image `i` [...]. Raises BadImage, OSError."""
        found: NDArray[Any] = self.numbers.read(i, i + 1)[0]
        return found

    def pixels(self, i: int) -> Pixels:
        """Image `i`, uint8 [h, w, c]: each number v is round((v - low) * 255 / (high - low)).

        So v is given back to (high - low) / 510 at worst, and exactly where the range is 0 to 255 and v a whole number.
        Raises BadImage: NaN, infinity, or a number outside of the range.
        """
        assert self.value_range is not None, "numbers that are kept have no pixels"
        found, (low, high) = self.read(i).reshape(self.height, self.width, self.channels), self.value_range
        if found.dtype == np.uint8 and (low, high) == (0, 255):
            return found
        if not self.exact:
            least, most = found.min(), found.max()
            if (reason := unfit(float(least), float(most), self.value_range)) is not None:
                raise _bad("decode", reason)
        if (low, high) == (0, 255) and found.dtype.kind in "iu":
            return found.astype(np.uint8)
        return scaled(found, self.value_range)

    def unfit(self) -> dict[int, str]:
        """Number -> reason of each image that has no pixels. Reads them all once, unless the type says it already."""
        if self.value_range is None or self.exact:
            return {}
        least, most = extremes(self.numbers)
        low, high = self.value_range
        with np.errstate(invalid="ignore"):
            suspects = np.flatnonzero(~((least >= low) & (most <= high)))
        return {int(i): str(unfit(float(least[i]), float(most[i]), (low, high))) for i in suspects}

    def digest(self) -> str:
        """sha256 (hex) of all numbers, their type, shape and range. Reads everything once: 1 to 2 seconds per GB."""
        return digest(self.numbers, "keep" if self.value_range is None else "{!r} {!r}".format(*self.value_range))

    def digest_of(self, i: int) -> str:
        """sha256 (hex) of the numbers of image `i`, their type and shape. Raises BadImage, OSError."""
        found = self.read(i)
        said = hashlib.sha256(f"{found.dtype.str} {found.shape} ".encode())
        said.update(_bytes_of(found))
        return said.hexdigest()

    def frame(self, i: int) -> Frame:
        return Frame(self, i)

    def taken(self, numbers: NDArray[np.int64]) -> tuple[Stack, NDArray[np.int64]]:
        """These images alone, where they lie in no file that others can open."""
        if self.numbers.path is not None:
            return self, numbers
        here = Stack(name=self.name, numbers=taken(self.numbers, numbers), value_range=self.value_range)
        return here, np.arange(len(numbers))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of a stack, as a Record's `pixels`."""

    stack: Stack
    number: int

    @property
    def path(self) -> str | None:
        return self.stack.numbers.path

    @property
    def size(self) -> tuple[int, int]:
        return self.stack.height, self.stack.width

    def encode(self) -> bytes:
        """The image as PNG, which loses nothing. Raises BadImage, OSError."""
        from headrace.imaging import codec  # here, as OpenCV takes longer to import than all sources

        return codec.encode_png(self.stack.pixels(self.number))


def open_stack(name: str, numbers: Numbers, value_range: Range | None) -> Stack:
    """The images in an array. Raises UsageError: its shape or type is no images', or its values need a range."""
    _check_shape(name, numbers.shape)
    kind = numbers.dtype
    if kind.kind not in "buif":
        raise UsageError(f"{name}: an array of {kind}, wanted uint8, bool, another integer type or float")
    if value_range is not None:
        value_range = check_range(value_range)
    elif kind.kind == "b":
        value_range = (0, 1)
    elif kind == np.uint8:
        value_range = (0, 255)
    else:
        value_range = _range_of(name, numbers)
    return Stack(name=name, numbers=numbers, value_range=value_range)


def keep_stack(name: str, numbers: Numbers) -> Stack:
    """Numbers that are kept as they are. Raises UsageError: they are no numbers, or have no second axis."""
    shape = numbers.shape
    if len(shape) < 2:
        raise UsageError(f"{name}: shape {list(shape)}, wanted [n, ...] with one more axis at least")
    if 0 in shape:
        raise UsageError(f"{name}: shape {list(shape)}: there is nothing in it")
    check_numbers(name, numbers.dtype)
    return Stack(name=name, numbers=numbers, value_range=None)


def check_numbers(name: str, kind: np.dtype[Any]) -> None:
    """Raises UsageError: what has this type can't be kept, as it is no numbers."""
    if kind.kind not in "buifc":
        raise UsageError(f"{name}: an array of {kind}, wanted numbers: bool, integers, floats or complex ones")


def numbers_of(array: Any) -> Numbers:
    """Numbers of an array; those of a memory map are read from its file, where that comes to the same."""
    if not isinstance(array, np.ndarray):
        return Sliced(array)
    if isinstance(array, np.memmap):
        try:
            found = _file_of(array)
        except (OSError, AttributeError, ValueError, TypeError):
            found = None  # the file is gone, or a NumPy whose maps look different inside: the map itself is as good
        if found is not None:
            return found
    return InMemory(array)


def _file_of(array: np.memmap[Any, Any]) -> InFile | None:
    name, mapped = array.filename, getattr(array, "_mmap", None)
    if name is None or mapped is None or array.mode == "c" or not array.flags.c_contiguous or not array.size:
        return None
    # `offset` is of the array that was mapped; a slice of it begins later, which only its address tells.
    begin = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    into = array.__array_interface__["data"][0] - begin
    offset = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + into
    found = InFile(os.fspath(Path(os.fsdecode(name)).absolute()), offset, array.dtype, array.shape)
    ends = ((0, 1), (len(array) - 1, len(array)))
    return found if all(found.read(a, b).tobytes() == array[a:b].tobytes() for a, b in ends) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An array in a file, by its header: `key` names it in a .npz. Its numbers begin at byte `offset` of the file, or
    of what is unpacked of it when it is `packed`, that is compressed."""

    path: Path
    key: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int
    packed: bool

    @property
    def name(self) -> str:
        return str(self.path) if self.key is None else f"{self.path}:{self.key}"

    def open(self) -> Numbers:
        """Its numbers. Those in a .npz are held against their CRC-32 first; of a compressed one they are unpacked into
        a temporary file. Raises StorageError, DataError (Python objects in it, or damaged)."""
        if self.dtype.hasobject:
            raise DataError(f"{self.name}: holds Python objects (pickled), which are never loaded; save plain numbers")
        try:
            if self.packed:
                return self._unpacked()
            if self.path.stat().st_size < self.offset + self._size:
                raise DataError(
                    f"{self.name}: is cut short: {self._size} bytes are promised from byte {self.offset} on"
                )
            if self.key is not None:
                self._copy(None)
            if self.fortran:
                return InMemory(np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F"))
            return InFile(os.fspath(self.path.absolute()), self.offset, self.dtype, self.shape)
        except StorageError:
            raise
        except OSError as error:
            raise _storage(self.path, error) from error

    @property
    def _size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _unpacked(self) -> Numbers:
        folder = tempfile.gettempdir()
        status = os.statvfs(folder)
        if (free := status.f_bavail * status.f_frsize) < self._size:
            raise StorageError(
                f"{self.name}: unpacked it takes {self._size / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free; "
                "set TMPDIR to another folder, or save the array as .npy"
            )
        with tempfile.TemporaryFile() as file:
            if (got := self._copy(file) - self.offset) < self._size:
                raise DataError(f"{self.name}: is cut short: {got} bytes of {self._size}")
            file.flush()
            if self.fortran:
                return InMemory(np.memmap(file, self.dtype, "r", self.offset, self.shape, "F"))
            return InFile.unnamed(os.dup(file.fileno()), self.offset, self.dtype, self.shape)

    def _copy(self, out: IO[bytes] | None) -> int:
        """Reads a member of a .npz to its end, where its CRC is checked; how many bytes it has. Raises DataError, also
        as soon as it unpacks to more than its header promises: there may be no end of that."""
        done, most = 0, self.offset + self._size
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.key}.npy") as data:
                while chunk := data.read(_CHUNK_BYTES):
                    done += len(chunk)
                    if done > most:
                        raise DataError(f"{self.name}: holds more than the {most} bytes that its header promises")
                    if out is not None:
                        out.write(chunk)
        except DataError:
            raise
        except (*_BAD_ZIP, ValueError) as error:
            raise DataError(f"{self.name}: a damaged .npz file ({error})") from error
        return done


def members(path: Path) -> list[Member]:
    """The arrays in a .npy or .npz file, detected from content. Raises NotThereError, StorageError, DataError."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            if head.startswith(npy.MAGIC_PREFIX):
                file.seek(0)
                return [_member(path, None, file, start=0, packed=False)]
            if head.startswith(_ZIP):
                return _archived(path, file)
    except FileNotFoundError:
        raise NotThereError(f"{path}: no such file") from None
    except OSError as error:
        raise _storage(path, error) from error
    raise DataError(f"{path}: neither a .npy nor a .npz file; make one with np.save, pickles are never loaded")


def is_array_file(path: Path) -> str | None:
    """What tells that `path` is a .npy or .npz file, or None. Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise _storage(path, error) from error
    if head.startswith(npy.MAGIC_PREFIX):
        return "it begins as a .npy file does"
    return "it is a .npz file" if head.startswith(_ZIP) and path.suffix == ".npz" else None


def extremes(numbers: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest number of each image, float64 [n]; NaN where one is NaN. Reads everything once."""
    least, most = np.empty(numbers.shape[0]), np.empty(numbers.shape[0])
    done = 0
    for chunk in _chunks(numbers):
        flat = chunk.reshape(len(chunk), -1)
        least[done : done + len(chunk)], most[done : done + len(chunk)] = flat.min(axis=1), flat.max(axis=1)
        done += len(chunk)
    return least, most


def digest(numbers: Numbers, said: str) -> str:
    """sha256 (hex) of all numbers, their type and shape, and of what is `said` of them. Reads everything once."""
    found = hashlib.sha256(f"{numbers.dtype.str} {numbers.shape} {said} ".encode())
    for chunk in _chunks(numbers):
        found.update(_bytes_of(chunk))
    return found.hexdigest()


def _chunks(numbers: Numbers) -> Iterator[NDArray[Any]]:
    n = numbers.shape[0]
    step = max(1, _CHUNK_BYTES // max(1, math.prod(numbers.shape[1:]) * numbers.dtype.itemsize))
    return (numbers.read(start, min(n, start + step)) for start in range(0, n, step))


def _bytes_of(chunk: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data


def _archived(path: Path, file: IO[bytes]) -> list[Member]:
    out = []
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                start = 0
                plain = info.compress_type == zipfile.ZIP_STORED
                if plain:
                    file.seek(info.header_offset)
                    head = file.read(_LOCAL_HEADER)
                    start = info.header_offset + _LOCAL_HEADER
                    start += int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
                with archive.open(info) as data:
                    out.append(_member(path, info.filename[:-4], data, start=start, packed=not plain))
    except _BAD_ZIP as error:
        raise DataError(f"{path}: a damaged .npz file ({error})") from error
    if not out:
        raise DataError(f"{path}: holds no arrays")
    return out


def _member(path: Path, key: str | None, file: IO[bytes], *, start: int, packed: bool) -> Member:
    name = path if key is None else f"{path}:{key}"
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # NumPy parses it as Python, and bytes that are none raise whatever it stumbles upon
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: not a sound .npy header ({reason})") from error
    if min(shape, default=0) < 0:
        raise DataError(f"{name}: not a sound .npy header (shape {shape})")
    return Member(
        path=path,
        key=key,
        shape=shape,
        dtype=dtype,
        fortran=fortran and len(shape) > 1,
        offset=start + file.tell(),
        packed=packed,
    )


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    found = f"{name}: shape {list(shape)}"
    wanted = "wanted [n, h, w] or [n, h, w, c] with c 1 or 3"
    if len(shape) == 2:
        raise UsageError(f"{found}, {wanted}; one image is x[np.newaxis]")
    if len(shape) not in (3, 4):
        raise UsageError(f"{found}, {wanted}")
    if 0 in shape:
        raise UsageError(f"{found}: there are no images in it")
    if len(shape) == 3 and shape[2] in (3, 4) and shape[1] > 16:
        raise UsageError(f"{found} is that of one image in colour; {wanted}: pass x[np.newaxis]")
    if len(shape) == 4 and shape[3] not in (1, 3):
        if shape[1] in (1, 3):
            raise UsageError(
                f"{found} has its channels first; {wanted}: pass x.transpose(0, 2, 3, 1), which is no copy"
            )
        also = "; leave alpha out with x[..., :3]" if shape[3] == 4 else ""
        raise UsageError(f"{found}, {wanted}{also}")


def _range_of(name: str, numbers: Numbers) -> Range:
    """0 to 255 for integers that are all in it. Raises UsageError for all else, whose meaning only the caller knows."""
    hint = "pass value_range=(low, high), the values of black and white, which maps them linearly to 0-255"
    if numbers.dtype.kind == "f":
        first = numbers.read(0, 1)
        found = f"those of the first image run from {short(first.min())} to {short(first.max())}"
        raise UsageError(f"{name}: {numbers.dtype} says nothing of what is black and white ({found}); {hint}")
    least, most = extremes(numbers)
    low, high = int(least.min()), int(most.max())
    if low < 0 or high > 255:
        raise UsageError(f"{name}: {numbers.dtype} values run from {low} to {high}, a pixel has 0 to 255; {hint}")
    return 0, 255


def _bad(stage: str, reason: str) -> BadImage:
    from headrace.imaging.codec import BadImage  # see Frame.encode

    return BadImage(stage, reason)


def _storage(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: {(error.strerror or str(error)).lower()}")
