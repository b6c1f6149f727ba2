"""Ids as file names: safe on every system, none twice, with the extension that the bytes have. Never a way out.

What an id becomes depends on it and on those before it, so the same records always get the same names. An id that is a
good name already stays as it is.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath

from headrace.sources.walking import IMAGE_EXTENSIONS, is_junk

# What files of the formats that a dataset stores are called; the first is what an id without such an end gets.
_EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg"),
    "other jpeg": (".jpg", ".jpeg"),
    "png": (".png",),
    "other png": (".png",),
    "gif": (".gif",),
    "bmp": (".bmp",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
}

# What Windows refuses, control characters, and those that end a line or turn the direction of writing.
_FORBIDDEN = re.compile('[<>:"\\\\|?*\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]')
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with whatever extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(\.|$)", re.IGNORECASE)

_MOST_PART = 200  # bytes of a file's or folder's own name; file systems take 255, and others add to it
_MOST = 600  # bytes of a name with its folders


def image_name(id_: str, format: str, *, dots: bool = True) -> str:
    """An id as the name of an image file stored as `format`, '/' between its folders: see the module.

    `..` and empty parts, control characters, reserved names and what Windows refuses are replaced by `_`; a part or a
    whole that is too long is cut, and ends in a digest of the id. The extension of another format is replaced. Without
    `dots` the file's own name has but the one of its extension.
    """
    parts = [part for part in id_.split("/") if part not in ("", ".")] or ["image"]
    stem, extension = _parted(parts[-1], format)
    stem = stem if dots else stem.replace(".", "_")
    cut = _digest(id_)
    safe = [*(safe_part(part) for part in parts[:-1]), safe_part(stem, extension, digest=cut)]
    if len("/".join(safe).encode()) > _MOST:
        safe = [safe_part(stem, f"~{cut}{extension}", digest=cut)]
    return "/".join(safe)


def safe_part(part: str, extension: str = "", *, digest: str | None = None) -> str:
    """A name without folders, of at most 200 bytes, that every system takes for a file's or a folder's."""
    name = _FORBIDDEN.sub("_", part.replace("/", "_"))
    if not extension:
        name = re.sub(r"[\s.]+$", lambda end: "_" * len(end[0]), name)  # Windows drops them
    name = re.sub(r"^[\s.]", "_", name) or "_"
    if is_junk(name + extension) or _DEVICE.match(name + extension):
        name = f"_{name}"
    if len(name.encode()) + len(extension.encode()) > _MOST_PART:
        end = f"~{_digest(part) if digest is None else digest}{extension}"
        return name.encode()[: _MOST_PART - len(end.encode())].decode(errors="ignore") + end
    return name + extension


class Names:
    """Gives each image a name of its own below one folder, on file systems that don't tell cases or Unicode's forms
    apart as well. `beside`: what stands beside an image under its name, with these extensions, must be its own too.
    `dots`: as image_name takes it. `reserved`: files that are there beside images."""

    def __init__(self, *, beside: tuple[str, ...] = (), dots: bool = True, reserved: tuple[str, ...] = ()) -> None:
        self._beside, self._dots = beside, dots
        self._files = set(map(_key, reserved))
        self._folders: set[str] = set()

    def take(self, folder: str, id_: str, format: str) -> str:
        """A name for the image below `folder`, which is safe and may be ""; the name alone."""
        name = image_name(id_, format, dots=self._dots)
        digest, path = hashlib.sha256(id_.encode()).hexdigest(), name
        for length in (8, 16, 64):
            if self._is_free(folder, path):
                break
            stem, extension = _split(name.replace("/", "_") if self._is_in_a_file(folder, name) else name)
            path = f"{stem}~{digest[:length]}{extension}"
        else:
            raise AssertionError(f"no name is free for {id_!r}")
        whole = f"{folder}/{path}" if folder else path
        self._files.update(map(_key, self._made(whole)))
        self._folders.update(map(_key, _above(whole)))
        return path

    def take_folder(self, wanted: str, name: str) -> str:
        """A name for a folder that stands for `name`, of its own among others: `wanted`, a safe one, if it is free."""
        path = wanted if _key(wanted) not in self._folders else f"{wanted}~{_digest(name)}"
        self._folders.add(_key(path))
        return path

    def _made(self, path: str) -> list[str]:
        return [path, *(_split(path)[0] + extension for extension in self._beside)]

    def _is_free(self, folder: str, name: str) -> bool:
        whole = f"{folder}/{name}" if folder else name
        keys = list(map(_key, self._made(whole)))
        taken = any(key in self._files or key in self._folders for key in keys)
        return not taken and not self._is_in_a_file(folder, name)

    def _is_in_a_file(self, folder: str, name: str) -> bool:
        """Whether one of the folders of the name is a file already."""
        return any(_key(above) in self._files for above in _above(f"{folder}/{name}" if folder else name))


def _parted(name: str, format: str) -> tuple[str, str]:
    """(stem, extension that fits the format) of the last part of an id."""
    fitting = _EXTENSIONS[format]
    stem, extension = _split(name)
    if extension.lower() in fitting:
        return stem, extension
    return (stem if extension[1:].lower() in IMAGE_EXTENSIONS else name), fitting[0]


def _split(path: str) -> tuple[str, str]:
    extension = PurePosixPath(path).suffix
    return path.removesuffix(extension) if extension else path, extension


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _key(path: str) -> str:
    """Equal where some file system takes two paths for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
