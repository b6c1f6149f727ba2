"""Walking a folder of images: which files are candidates, which are junk, in what order. Labels are for others."""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headrace.errors import NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.place.address import is_url
from headrace.record import Reject

# The content decides what an image is. The name only decides what is worth a look: files that don't claim to be
# something else. An extensionless name (Open Images) claims nothing.
IMAGE_EXTENSIONS = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "bmp",
        "dib",
        "gif",
        "tif",
        "tiff",
        "webp",
        "avif",
        "heic",
        "heif",
        "jp2",
        "jxl",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "tga",
        "ico",
        "svg",
    ]
)
_TEXT = "text without an extension"
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_MANIFEST = "headrace.json"  # what makes a folder a dataset
_HEAD = 1024  # bytes of a file without an extension that are looked at
_JUNK = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits count as numbers, so c9 comes before c10; letters by code point after case folding."""
    parts = re.split(r"([0-9]+)", name)
    key = [(1, int(part), "") if i % 2 else (0, 0, part.casefold()) for i, part in enumerate(parts)]
    return key, name


def check_root(root: str | os.PathLike[str]) -> Path:
    """The folder `root`. Raises NotThereError, UsageError (not a folder; a packed dataset), StorageError (may not be
    read)."""
    path = paths.path_of(root)
    if not path.exists():
        raise NotThereError(f"{path}: no such folder")
    if not path.is_dir():
        raise UsageError(f"{path}: is a file, wanted a folder of images")
    if not paths.is_stored(path) and not os.access(path, os.R_OK | os.X_OK):
        raise StorageError(f"{path}: permission denied")
    if (path / _MANIFEST).is_file():
        raise UsageError(f"{path}: is a packed dataset already ({_MANIFEST}); open it with headrace.Dataset")
    return path


def walk(root: Path, skipped: Counter[str]) -> Iterator[str | Reject]:
    """Paths relative to `root` ('/' between parts) of candidate image files, in natural order, depth first.

    Hidden files and folders, `._x` and other junk are passed over; so are files with an extension that is no image's,
    counted in `skipped` by extension, and texts without one (LICENSE, Makefile). Links are followed, a folder reached
    twice on one way is not. What can't be listed or named in UTF-8 is a Reject.
    """
    yield from _walk(root, "", skipped, frozenset())


def having(root: Path, *extensions: str) -> list[str]:
    """Paths relative to `root` ('/' between parts) of the files with these extensions (".xml"), in natural order, depth
    first. Hidden ones and junk are passed over, and what can't be listed; no folder is entered twice on one way."""
    found: list[str] = []
    _having(root, "", frozenset(extensions), frozenset(), found)
    return found


def _having(
    root: Path, prefix: str, extensions: frozenset[str], above: frozenset[tuple[int, int]], found: list[str]
) -> None:
    try:
        status = (root / prefix).stat()
        with paths.scandir(root / prefix) as entries:
            here = sorted((entry for entry in entries if not is_junk(entry.name)), key=lambda e: natural(e.name))
    except OSError:
        return
    key = (status.st_dev, status.st_ino)
    for entry in here if key not in above else ():
        if is_folder(entry):
            _having(root, f"{prefix}{entry.name}/", extensions, above | {key}, found)
        elif os.path.splitext(entry.name)[1].lower() in extensions:  # noqa: PTH122 (a Path for each is slow)
            found.append(prefix + entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether this is a folder, or a link to one: none where that leads to itself, or where nobody may look."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def folders_in(root: Path) -> list[str]:
    """The names of the folders in a folder, in natural order, without hidden ones and junk; none where it can't be
    listed."""
    try:
        with paths.scandir(root) as found:
            entries = [entry for entry in found if not is_junk(entry.name)]
    except OSError:
        return []
    return sorted((entry.name for entry in entries if is_folder(entry)), key=natural)


def holds_images(root: Path) -> bool:
    """Whether there is a candidate image anywhere below a folder."""
    return any(isinstance(found, str) for found in walk(root, Counter()))


def by_stem(root: Path, *, flat: bool = False) -> dict[str, str | None]:
    """Paths of candidate images relative to `root` by the same without their extension, None where several have it.

    `flat`: by the name of the file alone, whatever the folders.
    """
    found: dict[str, str | None] = {}
    for path in walk(root, Counter()):
        if isinstance(path, str):
            stem, dot, extension = path.rpartition(".")
            stem = stem if dot and extension.lower() in IMAGE_EXTENSIONS else path
            stem = stem.rpartition("/")[2] if flat else stem
            found[stem] = None if stem in found else path
    return found


def is_image_name(name: str) -> bool:
    """Whether a file of this name claims to be an image."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left behind by a system."""
    return name.startswith(".") or name.lower() in _JUNK


def refusal(path: str, inside: str | None) -> str | None:
    """Why the image at `path` can't be taken, or None; links may not lead out of the folder `inside`, a real path."""
    if is_url(path):
        return paths.refusal(path)
    try:
        real = os.path.realpath(path, strict=True)
        if inside is not None and os.path.commonpath([real, inside]) != inside:
            return f"a link leads out of the folder of images: {path!r}"
        return None if stat.S_ISREG(Path(real).stat().st_mode) else f"not a regular file: {path!r}"
    except OSError as error:
        return f"{(error.strerror or str(error)).lower()}: {path!r}"


class Folder:
    """A folder of images, and why one that is said to lie in it can't be taken: `refusal` of many of them, faster."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._inside = os.path.realpath(root)
        self._plain: set[str] = set()  # folders below it that no link leads away from

    def refusal(self, path: str) -> str | None:
        """As files.refusal: links may not lead out of the folder."""
        if is_url(path):
            return paths.refusal(path)
        above = path.rpartition("/")[0]
        if above in self._plain:
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    return None
            except (OSError, ValueError):
                pass
        refused = refusal(path, self._inside)
        if refused is None and os.path.commonpath([os.path.realpath(above), self._inside]) == self._inside:
            self._plain.add(above)
        return refused


def _walk(root: Path, prefix: str, skipped: Counter[str], above: frozenset[tuple[int, int]]) -> Iterator[str | Reject]:
    folder = root / prefix
    try:
        status = folder.stat()
        with paths.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: natural(entry.name))
    except OSError as error:
        yield _refused(prefix.rstrip("/"), folder, error)
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        name = entry.name
        if is_junk(name):
            continue
        path = prefix + name
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
            yield Reject(id=shown, origin=shown, stage="read", reason="the name is not UTF-8; rename it")
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:  # a link that leads to itself
            yield _refused(path, root / path, error)
            continue
        if is_folder:
            yield from _walk(root, path + "/", skipped, above | {here})
        elif not is_file and Path(entry).exists():  # what a broken link leads to is an image that can't be read
            skipped["(no regular file)"] += 1
        else:
            extension = Path(name).suffix.lower()
            claims_nothing = not extension or extension[1:].isdigit()
            if not claims_nothing and extension[1:] not in IMAGE_EXTENSIONS:
                skipped[extension] += 1
            elif claims_nothing and _is_text(root / path):
                skipped[_TEXT] += 1
            else:
                yield path


def _is_text(path: Path) -> bool:
    """Whether the file begins as a text that is no image: no PNM in digits, no page of markup that a server sent for
    one. An empty file is no text, nor is one that can't be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=False)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    controls = CONTROLS.search(re.sub(r"[\t\n\r\f]", "", text))
    return bool(text.strip()) and controls is None and not re.match(r"\s*<|P[1-7]\s", text)


def lines(path: Path, *, longest: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, text without white space around it) of the lines of a text file that are not blank.

    Of a line of more than `longest` bytes come one more than these, and the rest is passed over. Raises OSError.
    """
    with path.open("rb") as file:
        line = 0
        while text := file.readline(longest + 1):
            line += 1
            rest = text
            if len(text) <= longest:
                text = (text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text).strip()
            if text:
                yield line, text
            while not rest.endswith(b"\n") and (rest := file.readline(1 << 16)):
                pass


def id_of(name: str) -> tuple[str, str | None]:
    """The id of an image by its name in an annotation file, and why that name can't be used."""
    if CONTROLS.search(name):
        return repr(name[:60]), "the name holds control characters"
    if re.search(r"[\ud800-\udfff]", name):
        return repr(name[:60]), "the name holds halves of characters"
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        return name, "the name leads out of the folder of images"
    return str(path), None


def _refused(id_: str, path: Path, error: OSError) -> Reject:
    return Reject(id=id_, origin=str(path), stage="read", reason=(error.strerror or str(error)).lower())
