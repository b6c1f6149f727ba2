"""Source `webdataset`: tars of samples, as WebDataset, img2dataset and DataComp write them.

    000000.jpg  000000.cls  000000.json  000001.jpg  …

A sample is what files of one key that follow each other say; the key is a name up to the first dot behind its last
slash (WebDataset's `base_plus_ext`), what follows is the extension, in lower case. Of these count:

- the image: jpg, jpeg, png, webp and any other image's (not `seg.png`, which has two parts, unless `image` names it);
- cls: the number of its class, or its name; `classnames.txt` beside the tars (CLIP benchmark's) names the numbers;
- txt: a caption;
- json: an object. `label` a name, a number of a class, or (with a point) a value; `labels` several of them; `value`;
  `caption`, `captions` or `text`; `group`; `objects`, or `bbox` and its like themselves (see `values`): x, y, width and
  height in pixels of the image as its bytes are stored; `width` and `height`, that boxes were measured in. `key` (that
  of the sample, as img2dataset says it) goes; all others stay attributes.

Plain tars are read by part: a Record says where its image lies. What is compressed by gzip is unpacked as it comes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import DataError, UsageError
from headrace.place import paths
from headrace.record import Part, Record, Reject, check_names
from headrace.sources import shards, tars, values, walking
from headrace.sources.formats import CLASS_NAMES, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.shards import Shard

EXTENSIONS = (".tar", ".tar.gz", ".tgz")
CLASS_FILE = "classnames.txt"

_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # WebDataset's base_plus_ext (tariterators.py)
_META = re.compile(r"__[^/]*__($|/)")  # files of WebDataset about the tar itself
_MOST_TEXT = 1 << 24  # bytes of a text or a json
_MOST_IMAGE = 1 << 30  # bytes of an image that has to be unpacked, as it is in memory then
_MOST_FILES = 1000  # of one sample
_TEXTS = ("cls", "json", "txt")
_LOOKED_AT = 64  # members, by which a tar is recognised


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDatasetSource:
    """Iterable of Record | Reject; see `webdataset`. `root` is what was passed."""

    root: str
    shards: tuple[Shard, ...]
    image: str | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        divided, splits, notes = shards.divided(self.shards)
        seen = _Seen()
        for shard in divided:
            yield from self._shard(shard, seen)
        return SourceInfo(
            class_names=self.class_names,
            split_names=splits,
            skipped=seen.skipped,
            root=self.root,
            notes=(*self.notes, *notes, *seen.notes()),
        )

    def _shard(self, shard: Shard, seen: _Seen) -> Iterator[Record | Reject]:
        usual: frozenset[str] | None = None  # extensions of the last sample that no gap is beside
        sample: _Sample | None = None
        with tars.opened(shard.path) as tar:
            for piece in tar.pieces():
                if isinstance(piece, tars.Other):
                    if piece.kind != "folders":
                        seen.skipped[piece.kind] += 1
                    continue
                if isinstance(piece, tars.Gap):
                    if sample is not None and sample.files:
                        sample.torn = True
                        yield self._record(shard, sample, seen, usual)
                    sample = _Sample("", piece.begin, torn=True)
                    reason = f"bytes {piece.begin} to {piece.end} are damaged: {piece.reason}"
                    origin = f"{shard.name}:{piece.begin}"
                    yield Reject(id=origin, origin=origin, stage="read", reason=reason)
                    continue
                found = _named(piece.name, seen.skipped)
                if found is None:
                    continue
                key, extension = found
                torn = sample is not None and sample.torn and not sample.files
                if sample is None or key != sample.key or extension in sample.files:
                    if sample is not None and sample.files:
                        yield self._record(shard, sample, seen, usual)
                        if not sample.torn:
                            usual = frozenset(sample.files)
                    sample = _Sample(key, piece.begin, torn=torn)
                if len(sample.files) < _MOST_FILES:
                    sample.take(extension, piece, tar, image=self.image)
            if sample is not None and sample.files:
                sample.torn |= tar.unended and usual is not None
                yield self._record(shard, sample, seen, usual)
            if tar.unended:
                seen.unended.append(shard.name)

    def _record(self, shard: Shard, sample: _Sample, seen: _Seen, usual: frozenset[str] | None) -> Record | Reject:
        """What a whole sample is."""
        origin = f"{shard.name}:{sample.begin}"

        def reject(stage: str, reason: str, name: str = sample.key) -> Reject:
            return Reject(id=walking.id_of(name)[0] or origin, origin=origin, stage=stage, reason=reason)

        try:
            extension = self._image(sample)
        except ValueError as error:
            return reject("annotation", str(error))
        name = f"{sample.key}.{sample.spelled[extension]}".lstrip("/")
        id_, unusable = walking.id_of(name)
        if unusable is not None:
            return reject("annotation", unusable, name)
        if sample.torn and (usual is None or not usual <= sample.files.keys()):
            lacks = f", and it lacks {', '.join(sorted(usual - sample.files.keys()))}" if usual else ""
            return reject("read", f"the tar is damaged beside it{lacks}", name)
        held = sample.files[extension]
        if isinstance(held, str):
            return reject("read", held, name)
        try:
            said = _said(sample, self.class_names)
        except ValueError as error:
            return reject("annotation", str(error), name)
        for other in sample.files.keys() - {extension, *_TEXTS}:
            seen.skipped[f".{other}"] += 1
        seen.labelled |= said.pop("labelled")
        if "/" in id_ and len(seen.folders) < 5:
            seen.folders.setdefault(id_.rpartition("/")[0])
        image: dict[str, Any] = {"encoded": held} if isinstance(held, bytes) else {"part": held}
        return Record(id=id_, split=shard.split, origin=origin, **image, **said)

    def _image(self, sample: _Sample) -> str:
        """The extension of the sample's image. Raises ValueError: there is none, or more than one."""
        has = ", ".join(f".{extension}" for extension in sorted(sample.files))
        if self.image is not None:
            if self.image not in sample.files:
                raise ValueError(f"no .{self.image} in the sample: it has {has}")
            return self.image
        plain = [extension for extension in sample.files if extension in walking.IMAGE_EXTENSIONS]
        parted = [one for one in sample.files if one.rpartition(".")[2] in walking.IMAGE_EXTENSIONS]
        found = plain or parted
        if not found:
            raise ValueError(f"no image in the sample: it has {has}")
        if len(found) > 1:
            raise ValueError(f"several images in the sample, {has}; pass image={found[0]!r} or another extension")
        return found[0]


@dataclass(slots=True)
class _Sample:
    """Files of one key. `files`: by extension, where an image lies or its bytes, a text's bytes, why it can't be had as
    a str, or None for what nobody reads. `spelled`: extensions as the tar has them. `torn`: damage is beside it."""

    key: str
    begin: int
    torn: bool = False
    files: dict[str, Part | bytes | str | None] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)

    def take(self, spelled: str, member: tars.Member, tar: tars.Tar, *, image: str | None) -> None:
        extension = spelled.lower()
        last = extension.rpartition(".")[2]
        self.spelled[extension] = spelled
        is_image = extension == image if image is not None else last in walking.IMAGE_EXTENSIONS
        made: Part | bytes | str | None = None
        try:
            if is_image and member.fault is not None:
                made = member.fault
            elif is_image and tar.plain:
                made = Part(str(tar.path), member.offset, member.size)
            elif is_image or extension in _TEXTS:
                made = tar.content(member, _MOST_IMAGE if is_image else _MOST_TEXT)
        except ValueError as error:
            made = f".{extension}: {error}"
        self.files[extension] = made


@dataclass(slots=True)
class _Seen:
    """What one reading counts. `labelled`: any sample says anything of its image; `folders`: that names begin with."""

    skipped: Counter[str] = field(default_factory=Counter)
    unended: list[str] = field(default_factory=list)
    labelled: bool = False
    folders: dict[str, None] = field(default_factory=dict)

    def notes(self) -> Iterator[str]:
        for name in self.unended[:5]:
            yield f"{name}: ends without the two blocks of zeros of a whole tar; cut short between two samples?"
        if len(self.unended) > 5:
            yield f"and {len(self.unended) - 5} more tars end so"
        if not self.labelled and self.folders:
            yield (
                f"nothing in the tars says a label, and names lie in folders ({', '.join(self.folders)}); where these "
                "are the classes, unpack the tars and pack their folder (format folders)"
            )


def _named(name: str, skipped: Counter[str]) -> tuple[str, str] | None:
    """(key, extension) of a member's name, None where it is none of a sample."""
    if _META.match(name):
        return None
    if any(walking.is_junk(part) for part in name.split("/") if part not in (".", "..")):
        return None
    match = _KEY.fullmatch(name)
    if match is None:
        skipped["files without an extension"] += 1
        return None
    return match[1], match[2]


def _said(sample: _Sample, names: Sequence[str] | None) -> dict[str, Any]:
    """What of a Record the texts of a sample say, and whether that is a label ("labelled"). Raises ValueError."""
    out: dict[str, Any] = {}
    if (data := sample.files.get("json")) is not None:
        out = _of_json(_text("json", data), sample.key, names)
    if (data := sample.files.get("txt")) is not None:
        caption, others = _text("txt", data).strip(), out.get("captions", ())
        if caption not in map(str.strip, others):  # img2dataset says it in both
            out["captions"] = (caption, *others)
    if (data := sample.files.get("cls")) is not None and not {"label", "label_name", "labels"} & out.keys():
        text = _text("cls", data).strip()
        out |= values.fields_of_class(int(text) if re.fullmatch("[0-9]{1,18}", text) else text, names)
    out["labelled"] = not {"label", "label_name", "labels", "value", "captions", "boxes"}.isdisjoint(out)
    return out


def _text(extension: str, data: Part | bytes | str) -> str:
    if isinstance(data, str):
        raise ValueError(data)
    assert isinstance(data, bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f".{extension}: byte {error.start} is no UTF-8") from None


def _of_json(text: str, key: str, names: Sequence[str] | None) -> dict[str, Any]:
    """What of a Record a sample's JSON says. Raises ValueError."""
    try:
        said = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f".json: line {error.lineno}, column {error.colno}: no sound JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(".json: brackets in brackets, thousands deep") from None
    if not isinstance(said, dict):
        raise ValueError(f".json: found {text[:60]!r}, wanted an object")
    if said.get("key") == key:
        del said["key"]
    return values.fields_of(said, names)


def _no_number(text: str) -> Any:
    raise ValueError(f".json: {text} is no number of JSON")


def webdataset(
    path: str | os.PathLike[str], *, image: str | None = None, class_names: Sequence[str] | None = None
) -> WebDatasetSource:
    """Images of the samples in tars: those that `path` is, a tar, those in and below a folder, or a pattern in braces
    (`shard-{000000..000009}.tar`), which counts or lists.

    What a sample says is told above. Ids are key and extension (`000000.jpg`), of several tars too: one that occurs
    again is a Reject. Origins are `tar:byte`, of the first header of the sample. Splits are what names of tars say
    (`train-000000.tar`, `val/…`), as Hugging Face's `datasets` finds them.

    image: the extension of the image, where samples have several (`seg.png`). class_names: in the order of `.cls`; by
    default those of `classnames.txt` beside the tars, where there is one, else classes are called by their numbers.
    Damage in a tar is a Reject with the byte, as is a sample beside it that lacks what others have; what follows is
    read. Raises NotThereError, StorageError, UsageError (no tar; an option); iterating also DataError (no tar in it).
    """
    found = shards.find(path, EXTENSIONS)
    if not found:
        raise UsageError(f"{path}: no file in it ends in {', '.join(EXTENSIONS)}")
    notes: tuple[str, ...] = ()
    names = None if class_names is None else check_names(class_names, "class names")
    if names is None:
        names, notes = _names_beside(given if (given := paths.path_of(path)).is_dir() else found[0].path.parent)
    return WebDatasetSource(
        root=os.fspath(path),
        shards=tuple(found),
        image=None if image is None else image.lower().removeprefix("."),
        class_names=names,
        notes=notes,
    )


def _names_beside(folder: Path) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The class names in a folder's file of them, and what to say of it. Raises UsageError."""
    path = folder / CLASS_FILE
    if walking.refusal(str(path), os.path.realpath(folder)) is not None or path.stat().st_size > _MOST_TEXT:
        return None, ()
    try:
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is no UTF-8; mend the file or pass class_names") from None
    names = check_names([line.strip() for line in lines if line.strip()], f"{path}:")
    return names, (f"class names of {CLASS_FILE}",)


def recognise(path: Path) -> str | None:
    """What tells that `path` is a tar of samples with images, or holds some, None when nothing does.

    Raises StorageError.
    """
    try:
        found = shards.find(path, EXTENSIONS) if path.is_dir() else [Shard(path, path.name)]
    except (UsageError, DataError):
        return None
    for shard in found[:4]:
        if not tars.looks_like(shard.path):
            continue
        with contextlib.suppress(DataError), tars.opened(shard.path) as tar:
            for _, piece in zip(range(_LOOKED_AT), tar.pieces(), strict=False):
                named = _named(piece.name, Counter()) if isinstance(piece, tars.Member) else None
                if named is not None and named[1].lower().rpartition(".")[2] in walking.IMAGE_EXTENSIONS:
                    return f"{shard.name} is a tar with {named[0]}.{named[1]}"
    return None


FORMAT = Format(
    name="webdataset",
    reads="Tars of samples, as WebDataset and img2dataset write them",
    takes="either",
    make=webdataset,
    recognise=recognise,
    options=(
        Option(name="image", type=str, help="Which of several is the image: its extension, column or feature."),
        CLASS_NAMES,
    ),
    example=("shards", {}),
    about=About(
        recognised="tars with images, plain or compressed; a pattern in braces names several.",
        kept=(
            "the image by its part of the tar, .cls as its class, .txt as a caption, and of .json label, "
            "labels, value, caption, group, objects; the rest of it as attributes; splits as names of tars "
            "say."
        ),
        refused="what lies in a damaged part of a tar, with the byte; a key that occurs again.",
        sample=("train-000000.tar:\n  000000.jpg  000000.cls  000000.json\n  000001.jpg  …"),
    ),
)
