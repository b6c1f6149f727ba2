"""Annotated folders that no source reads: recognised by layout and content, so that none of them is packed as a
classification of its folder names.

Looks at names, and at the beginnings of a few files; at no image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from headrace.errors import StorageError
from headrace.sources.coco import recognise as is_coco
from headrace.sources.survey import MOST_NAMES, SAMPLES, Folder, Survey
from headrace.sources.wider import recognise as is_wider
from headrace.splits import split_of_folder

_LONGEST_ROW = 1000

_ANNOTATIONS = (".xml", ".txt", ".json", ".csv", ".tsv", ".jsonl", ".yaml", ".yml", ".mat", ".npy", ".pts", ".parquet")

# Folders of a dataset's parts, in lower case, that are no class of anything.
_PARTS = re.compile(
    "image|images|img|imgs|jpegimages|obj_train_data|annotations|labels?|masks?|ground_truth|segmentation(class|object)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder looks like: the `name` of the format, what tells it, and what to do."""

    name: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"this looks like {self.name}: {self.what}; {self.remedy}"


NO_SOURCE = (
    "Headrace has no source for it yet: make TFRecords of it and adopt these, or pass format='folders' to take the "
    "folder names as classes"
)
_AS_CLASSES = "pass the folder whose folders are the classes, or format='folders' to take these names as classes"


def look(root: Path) -> Seen | None:
    """What a folder of annotated images looks like, None where nothing tells that it is one."""
    survey = Survey(root)
    return next((seen for find in _FINDERS if (seen := find(survey)) is not None), None)


def look_at_file(path: Path) -> Seen | None:
    """The same of a single file of annotations."""
    survey = Survey(path.parent / "")
    survey.folders = [Folder("", {path.suffix.lower(): [path.name]})]
    return next((seen for find in _OF_FILES if (seen := find(survey)) is not None), None)


# --- formats that a source reads, from their own root ----------------------------------------------------------------


def _coco(survey: Survey) -> Seen | None:
    for path, _ in survey.having(".json"):
        if (why := _recognised(is_coco, survey.root / path)) is None:
            continue
        named = re.search(r'"file_name"\s*:\s*"([^"]+)"', survey.head(path))
        images = _folder_of(survey, named[1] if named else "")
        return Seen("COCO", f"{path}: {why}", f"pass {survey.root / path} with images={images}")
    return None


def _wider(survey: Survey) -> Seen | None:
    found = [path for path, _ in survey.having(".txt") if _recognised(is_wider, survey.root / path)]
    if not found:
        return None
    path = min(found, key=lambda path: ("train" not in path, path))
    images = _folder_of(survey, survey.head(path).partition("\n")[0].strip())
    why = is_wider(survey.root / path)
    return Seen("WIDER FACE", f"{path}: {why}", f"pass {survey.root / path} with images={images}")


def _recognised(recognise: Callable[[Path], str | None], path: Path) -> str | None:
    try:
        return recognise(path)
    except StorageError:
        return None


def _folder_of(survey: Survey, name: str) -> str:
    """The folder that an image's name starts from, as an argument's value."""
    for folder in survey.folders if name else ():
        path = survey.root / folder.path
        if (path / name).is_file():
            return repr(str(path))
    return "FOLDER"


# --- formats that none does ------------------------------------------------------------------------------------------


def _xml(survey: Survey) -> Seen | None:
    for path, _ in survey.having(".xml"):
        head = survey.head(path)
        if re.search(r"<annotations[\s>]", head):
            return Seen("CVAT", f"{path} has <annotations>", NO_SOURCE)
        if re.search(r"<annotation[\s>]", head):
            if "<polygon>" in head:
                return Seen("LabelMe", f"{path} has <annotation> with <polygon>", NO_SOURCE)
            beside = next(
                (f"{folder.file('')} beside " for folder in survey.folders if folder.called == "jpegimages"), ""
            )
            of = str(PurePosixPath(path).parent / "*.xml") if beside else path
            return Seen("Pascal VOC", f"{beside}{of} with <annotation>", NO_SOURCE)
    return None


def _json(survey: Survey) -> Seen | None:
    for name, extension, keys in (
        ("LabelMe", ".json", ("shapes", "imagePath")),
        ("VGG Image Annotator", ".json", ("regions", "shape_attributes")),
        ("VoTT", ".json", ("regions", "asset")),
        ("VoTT", ".json", ("assets", "tags")),
        ("VoTT", ".vott", ("tags",)),
        ("CreateML", ".json", ("annotations", "coordinates")),
    ):
        for path, _ in survey.having(extension):
            head = survey.head(path)
            if all(f'"{key}"' in head for key in keys):
                return Seen(name, f"{path} has {' and '.join(map(repr, keys))}", NO_SOURCE)
    return None


_NUMBER = r"-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_YOLO = re.compile(rf"[0-9]+(?:\s+{_NUMBER}){{4,}}")
_KITTI = re.compile(rf"[A-Za-z_]+(?:\s+{_NUMBER}){{14,15}}")
_DOTA = re.compile(rf"(?:{_NUMBER}\s+){{8}}\S+(?:\s+[0-9])?")


def _yolo(survey: Survey) -> Seen | None:
    for path, _ in survey.having(".yaml", ".yml"):
        if re.search(r"^names\s*:", survey.head(path), re.MULTILINE):
            return Seen("YOLO", f"{path} has names", NO_SOURCE)
    if (listed := survey.named("obj.names", "obj.data")) is not None:
        return Seen("YOLO", listed, NO_SOURCE)
    return _rows(survey, "YOLO", _YOLO, "a class number and a box in each line")


def _kitti(survey: Survey) -> Seen | None:
    return _rows(survey, "KITTI", _KITTI, "a type and 14 numbers in each line")


def _dota(survey: Survey) -> Seen | None:
    return _rows(survey, "DOTA", _DOTA, "four corners and a class in each line")


def _rows(survey: Survey, name: str, row: re.Pattern[str], what: str) -> Seen | None:
    for path, _ in survey.having(".txt"):
        lines = [line.strip() for line in survey.head(path).splitlines()]
        # DOTA begins with where the image is from.
        lines = [line for line in lines if line and not re.match(r"(imagesource|gsd):", line)][:SAMPLES]
        if lines and all(len(line) <= _LONGEST_ROW and row.fullmatch(line) for line in lines):
            return Seen(name, f"{path} has {what}", NO_SOURCE)
    return None


def _mot(survey: Survey) -> Seen | None:
    if path := survey.named("seqinfo.ini"):
        return Seen("MOT", path, NO_SOURCE)
    for folder in survey.folders:
        if folder.called == "gt" and "gt.txt" in folder.names.get(".txt", ()):
            return Seen("MOT", folder.file("gt.txt"), NO_SOURCE)
    return None


def _open_images(survey: Survey) -> Seen | None:
    for path, _ in survey.having(".csv"):
        if re.match(r"ImageID,", survey.head(path)):
            return Seen("Open Images", f"{path} begins with ImageID", NO_SOURCE)
    return None


def _hugging_face(survey: Survey) -> Seen | None:
    if path := survey.named("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        return Seen("an imagefolder of Hugging Face with metadata", path, NO_SOURCE)
    return None


def _table(survey: Survey) -> Seen | None:
    """A table that names images that are there."""
    known = {name for folder in survey.folders for name in folder.images}
    stems = {Path(name).stem for name in known}
    for path, extension in survey.having(".csv", ".tsv"):
        separator = "\t" if extension == ".tsv" else ","
        for line in survey.head(path).splitlines()[:SAMPLES]:
            for cell in line.split(separator):
                value = cell.strip().strip('"').rpartition("/")[2]
                if value in known or (len(value) > 3 and value in stems):
                    return Seen(f"images with a table ({extension})", f"{path} names {value}", NO_SOURCE)
    return None


def _file_each(survey: Survey) -> Seen | None:
    """A file of each image, of whatever format."""
    stems = {Path(name).stem for folder in survey.folders for name in folder.images}
    for extension in _ANNOTATIONS:
        found = [path for folder in survey.folders for path in map(folder.file, folder.names.get(extension, ()))]
        pairs = [path for path in found if PurePosixPath(path).stem in stems]
        if len(pairs) > 1 and 2 * len(pairs) >= min(len(stems), MOST_NAMES):
            what = f"{len(pairs)} images have a {extension} of the same name, such as {pairs[0]}"
            return Seen("images with a file of annotations each", what, NO_SOURCE)
    return None


# --- folders whose names are no classes ------------------------------------------------------------------------------


def _splits(survey: Survey) -> Seen | None:
    tops = survey.tops
    if tops and all(split_of_folder(top.called) for top in tops):
        inside = {folder.path.partition("/")[0] for folder in survey.folders if "/" in folder.path and folder.images}
        if not inside:
            remedy = (
                "pass pattern=REGEX where file names tell the class, or format='folders' to store them without a label"
            )
            return Seen("splits without folders of classes", _listed(top.path for top in tops), remedy)
        return None
    splits = [top.path for top in tops if split_of_folder(top.called)]
    if len(splits) > 1:
        others = [top.path for top in tops if top.path not in splits]
        what = f"{_listed(splits)} beside {_listed(others)}"
        return Seen(
            "splits and something else",
            what,
            "pack the splits alone, as in train=FOLDER test=FOLDER, or pass format='folders' to take all as classes",
        )
    for top in tops:
        below = [name for name in top.folders if split_of_folder(name)]
        if len(below) > 1:
            return Seen(
                "splits in a folder", _listed(top.file(name) for name in below), f"pass {survey.root / top.path}"
            )
    return None


def _parts(survey: Survey) -> Seen | None:
    tops = survey.tops
    if tops and all(_PARTS.fullmatch(top.called) for top in tops):
        return Seen("a dataset's parts", f"{_listed(top.path for top in tops)}, which name no class", _AS_CLASSES)
    return None


def _listed(paths: Iterator[str] | list[str]) -> str:
    some = [f"{path}/" for path in paths]
    return ", ".join(some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")


_Finder: TypeAlias = Callable[[Survey], Seen | None]

# The surer first.
_OF_FILES: tuple[_Finder, ...] = (_xml, _json, _yolo, _kitti, _dota, _open_images)
_FINDERS: tuple[_Finder, ...] = (
    _coco,
    _wider,
    _mot,
    *_OF_FILES,
    _hugging_face,
    _table,
    _file_each,
    _splits,
    _parts,
)
