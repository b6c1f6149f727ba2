"""Source `wider`: the text files of WIDER FACE, which name an image, count its faces, and give a row for each.

    0--Parade/a_1.jpg
    2
    10 20 30 40 0 0 0 0 0 0          x y w h blur expression illumination invalid occlusion pose
    50 60 9 12 2 0 0 1 2 0

Looks at names and numbers and never opens an image.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.record import Record, Reject
from headrace.sources import walking
from headrace.sources.formats import About, Format, Option
from headrace.sources.info import SourceInfo

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")

# Whatever the file holds, no more of it than this is in memory at once. No path is longer, and no real image has more
# than a few thousand faces.
_LONGEST_LINE = 4096
_MOST_FACES = 100_000

_INVALID = 4 + ATTRIBUTES.index("invalid")
_COUNT = re.compile(rb"[0-9]{1,9}")
_ROW = re.compile(rb"-?[0-9]{1,9}(\s+-?[0-9]{1,9}){9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderSource:
    """Iterable of Record | Reject; see `wider`. `root` is the text file.

    Its SourceInfo counts in `skipped` the images that were left out by option, in `boxes_dropped` the faces that
    Records come without, by reason.
    """

    root: Path
    images: Path
    lenient: bool
    max_faces: int | None
    min_side: int | None
    skip_invalid: bool

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        skipped: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        inside = os.path.realpath(self.images)
        lost: _Entry | None = None
        for entry in _entries(_lines(self.root)):
            if lost is not None:
                raise DataError(
                    f"{self.root}:{lost.fault_line}: {lost.fault}; from here on names and rows may be out of step. "
                    "Mend it, or go on at the next file name with lenient=True"
                )
            if entry.out_of_step and not self.lenient:
                lost = entry  # unless it is the last: nothing is lost then but this image
            elif item := self._item(entry, inside, skipped, dropped):
                yield item
        if lost is not None and (item := self._item(lost, inside, skipped, dropped)):
            yield item
        return SourceInfo(skipped=skipped, boxes_dropped=dropped, root=str(self.root))

    def _item(self, entry: _Entry, inside: str, skipped: Counter[str], dropped: Counter[str]) -> Record | Reject | None:
        """What becomes of an entry; None when it is left out by option."""
        id_, unusable = _id_of(entry.name)
        if entry.fault is not None:
            return self._reject(id_, entry.fault_line, "annotation", entry.fault)
        if unusable is not None:
            return self._reject(id_, entry.line, "annotation", unusable)
        faces = entry.table()
        extent = np.asarray((faces[:, 2:4] > 0).all(axis=1), np.bool_)
        if self.max_faces is not None and extent.sum() > self.max_faces:
            skipped[f"images of more than {self.max_faces} faces"] += 1
            return None
        path = f"{self.images}/{id_}"
        refused = walking.refusal(path, inside)
        if refused is not None:
            return self._reject(id_, entry.line, "read", refused)
        faces = self._kept(faces, extent, dropped)
        corners = np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], axis=1)
        return Record(
            id=id_,
            path=path,
            boxes=corners.astype(np.float32),
            box_labels=("face",) * len(faces),
            attributes=dict(zip(ATTRIBUTES, faces[:, 4:].T.tolist(), strict=True)),
            origin=self._origin(entry.line),
        )

    def _kept(self, faces: _Table, extent: NDArray[np.bool_], dropped: Counter[str]) -> _Table:
        """The faces that Records come with; the others are counted in `dropped`."""
        tests = {"without width or height": extent}
        if self.skip_invalid:
            tests["invalid"] = faces[:, _INVALID] == 0
        if self.min_side is not None:
            tests[f"a side under {self.min_side} pixels"] = np.asarray(
                (faces[:, 2:4] >= self.min_side).all(axis=1), np.bool_
            )
        kept = np.ones(len(faces), np.bool_)
        for reason, passed in tests.items():
            if n := int((kept & ~passed).sum()):
                dropped[reason] += n
            kept &= passed
        return faces[kept]

    def _reject(self, id_: str, line: int, stage: str, reason: str) -> Reject:
        return Reject(id=id_, origin=self._origin(line), stage=stage, reason=reason)

    def _origin(self, line: int) -> str:
        return f"{self.root.name}:{line}"  # without its folder: a catalog doesn't depend on where its source lay


def wider(
    txt: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    lenient: bool = False,
    max_faces: int | None = None,
    min_side: int | None = None,
    skip_invalid: bool = False,
) -> WiderSource:
    """Images below the folder `images` with the faces that the WIDER FACE file `txt` says, in its order.

    Boxes are as in the file, [n, 4] in pixels; attributes blur, expression, illumination, invalid, occlusion and pose
    hold a list of n ints each. No faces is a negative. A face without width or height is dropped. Ids are the names in
    the file, origins `txt:line`.

    An image that is missing, that a link leads to outside of `images`, or one of whose rows is no row, is a Reject. So
    is the last image when the file ends too early. Where counts and rows are out of step before that, iterating raises
    DataError naming the line, after all that was in step; with `lenient` that image is a Reject too, and reading goes
    on at the next file name.

    max_faces: images of more faces (whatever their size or validity) are left out. min_side: faces of a smaller width
    or height, in pixels of the file, are dropped. skip_invalid: so are those flagged invalid. The image stays.
    Raises NotThereError, StorageError, UsageError (no file or folder; an option).
    """
    path = _check_file(txt)
    for name, value in (("max_faces", max_faces), ("min_side", min_side)):
        if value is not None and value < 0:
            raise UsageError(f"{name} is {value}, wanted at least 0")
    return WiderSource(
        root=path,
        images=walking.check_root(images),
        lenient=lenient,
        max_faces=max_faces,
        min_side=min_side,
        skip_invalid=skip_invalid,
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is a WIDER FACE file, or None when nothing does. Raises StorageError."""
    try:
        lines = _lines(path)
        line, name = next(lines, (0, b""))
        if not _is_name(name):
            return None
        count_line, count = next(lines, (0, b""))
    except DataError:
        return None
    if not _COUNT.fullmatch(count):
        return None
    return f"line {line} names an image, {_shown(name)}, and line {count_line} counts its faces"


FORMAT = Format(
    name="wider",
    reads="A text file of WIDER FACE, with the faces of each image",
    takes="file",
    make=wider,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that the names in the file start from.",
            required=True,
            per_split=True,
        ),
        Option(
            name="lenient",
            type=bool,
            help="Where rows are missing or too many, go on at the next file name.",
            default=False,
        ),
        Option(name="max_faces", type=int, help="Skip images with more faces than this."),
        Option(name="min_side", type=int, help="Drop faces narrower or lower than this, in pixels."),
        Option(name="skip_invalid", type=bool, help="Drop faces flagged as invalid.", default=False),
    ),
    example=("wider_face_train_bbx_gt.txt", {"images": "WIDER_train/images", "max_faces": 5}),
    about=About(
        recognised="a first line that names an image, and a second that is a number.",
        kept=(
            "boxes, all of class face, with blur, expression, illumination, invalid, occlusion and pose of "
            "each; no faces are a negative."
        ),
        refused=(
            "an image one of whose rows is none. Where counts and rows are out of step reading ends, or with "
            "--lenient goes on at the next name. A face without width or height is left out and counted."
        ),
        sample=("0--Parade/a_1.jpg\n2\n10 20 30 40 0 0 0 0 0 0\n50 60 9 12 2 0 0 1 2 0"),
    ),
)


_Table = NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What stands from one file name to the next, and the first that is wrong with it.

    `faces`: ten numbers per row, one row after the other. `out_of_step`: there may be rows missing, or too many.
    """

    name: bytes
    line: int
    last_line: int
    count: int | None = None
    count_line: int = 0
    found: int = 0
    faces: array[int] = field(default_factory=lambda: array("i"))
    fault: str | None = None
    fault_line: int = 0
    out_of_step: bool = False

    @property
    def whole(self) -> bool:
        """Whether all its rows are there, and no more can be."""
        return self.found == self.count and not self.out_of_step

    def take(self, line: int, text: bytes) -> None:
        """The next line of it."""
        self.last_line = line
        if self.out_of_step:
            return
        if self.count is None:
            if not _COUNT.fullmatch(text) or int(text) > _MOST_FACES:
                self.lose(line, f"found {_shown(text)}, wanted the number of faces, 0 to {_MOST_FACES}")
            else:
                self.count, self.count_line = int(text), line
            return
        row = array("i", map(int, text.split())) if _ROW.fullmatch(text) and len(text) <= _LONGEST_LINE else None
        if self.count == 0 and row is not None and not any(row):
            return
        if self.found == self.count:
            self.lose(line, f"found {_shown(text)}, a row more than the {self.count} that line {self.count_line} says")
            return
        self.found += 1
        if row is not None:
            self.faces += row
        elif self.fault is None:
            wanted = f"x y w h {' '.join(ATTRIBUTES)}"
            self.fault, self.fault_line = f"found {_shown(text)}, wanted ten whole numbers: {wanted}", line

    def end(self, line: int | None) -> None:
        """`line` is where the next file name stands, None at the end of the file."""
        if self.out_of_step or self.whole:
            return
        what = "the file ends" if line is None else "the next file name comes"
        where = self.last_line if line is None else line
        if self.count is None:
            self.lose(where, f"{what} where the number of faces was wanted")
        else:
            self.lose(where, f"{what} after {self.found} of the {self.count} rows that line {self.count_line} says")

    def lose(self, line: int, why: str) -> None:
        self.fault, self.fault_line, self.out_of_step = why, line, True

    def table(self) -> _Table:
        """int64 [n, 10]: its rows. A row of zeros alone stands for no face, also where it is counted as one."""
        table = np.array(self.faces, np.int64).reshape(-1, 4 + len(ATTRIBUTES))
        return table if len(table) != 1 or table.any() else table[:0]


def _entries(lines: Iterator[tuple[int, bytes]]) -> Iterator[_Entry]:
    """The file cut at its file names. What is neither name, count nor row makes an entry that is out of step."""
    entry: _Entry | None = None
    for line, text in lines:
        is_name = _is_name(text)
        if not is_name and entry is not None and not (entry.whole and re.search(rb"[A-Za-z/]", text)):
            entry.take(line, text)
            continue
        if entry is not None:
            entry.end(line)
            yield entry
        entry = _Entry(name=text, line=line, last_line=line)
        if not is_name:
            entry.lose(line, f"found {_shown(text)}, wanted the name of an image, such as 0--Parade/a_1.jpg")
    if entry is not None:
        entry.end(None)
        yield entry


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, text without white space around it) of the lines that are not blank, read as they are asked for.

    Of an overlong line comes one byte more than allowed. Raises StorageError, DataError (no UTF-8).
    """
    try:
        with path.open("rb") as file:
            line = 0
            while text := file.readline(_LONGEST_LINE + 1):
                line += 1
                if line == 1 and text.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{path}:1: the file is UTF-16, wanted UTF-8; convert it: iconv -f UTF-16 -t UTF-8")
                rest = text
                if len(text) <= _LONGEST_LINE:
                    text = (text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text).strip()
                if text:
                    yield line, text
                while rest and not rest.endswith(b"\n"):
                    rest = file.readline(1 << 16)
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error


def _is_name(text: bytes) -> bool:
    _, dot, extension = text.rpartition(b".")
    known = extension.decode(errors="replace").lower() in walking.IMAGE_EXTENSIONS
    return bool(dot) and known and len(text) <= _LONGEST_LINE


def _id_of(text: bytes) -> tuple[str, str | None]:
    """The id of an image by its name in the file, and why that name can't be used."""
    try:
        name = text.decode()
    except UnicodeDecodeError:
        return _shown(text), "the name is not UTF-8"
    if walking.CONTROLS.search(name):
        return _shown(text), "the name holds control characters"
    return walking.id_of(name)


def _check_file(txt: str | os.PathLike[str]) -> Path:
    path = paths.path_of(txt)
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file, wanted the text file of a WIDER FACE split")
    return path


def _shown(text: bytes) -> str:
    """The beginning of a line, fit for one line of a terminal."""
    shown = repr(text[:60].decode(errors="backslashreplace"))
    if len(text) > _LONGEST_LINE:
        return f"{shown} and more than {_LONGEST_LINE} bytes"
    return shown if len(text) <= 60 else f"{shown}…"
