"""Annotated folders that no source reads as they are: recognised by layout and content, so that none of them is packed
as a classification of its folder names.

Looks at names, and at the beginnings of a few files; at no image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from headrace.errors import StorageError
from headrace.place import paths
from headrace.sources import walking
from headrace.sources.coco import recognise as is_coco
from headrace.sources.images import telling
from headrace.sources.survey import MOST_NAMES, SAMPLES, Survey
from headrace.sources.tabular import recognise as is_csv
from headrace.sources.voc import seen_in as is_voc
from headrace.sources.wider import recognise as is_wider
from headrace.sources.yolo import seen_in as is_yolo
from headrace.splits import USUAL_SPLITS, split_of_folder

_LONGEST_ROW = 1000
_MOST_FILES = 20  # of a folder, that may be of COCO or WIDER FACE
_SOME_NAMES = 1000  # of images in one of them, which may be here or not
_BEGINNING = 1 << 20  # bytes of one of them
_ANY = "FOLDER"

# COCO's files of other things than objects, and the one of fewer.
_KINDS = re.compile("captions|panoptic|stuff|image_info|person_keypoints")

_ANNOTATIONS = (".xml", ".txt", ".json", ".csv", ".tsv", ".jsonl", ".yaml", ".yml", ".mat", ".npy", ".pts", ".parquet")

# Folders of a dataset's parts, in lower case, that are no class of anything.
_PARTS = re.compile(
    "image|images|img|imgs|jpegimages|obj_train_data|annotations|labels?|masks?|ground_truth|segmentation(class|object)"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder looks like: the `name` of the format, what tells it, and what to do. `format`: which one of
    Headrace's own reads it where it is recognised, if one does."""

    name: str
    what: str
    remedy: str
    format: str | None = None

    def __str__(self) -> str:
        return f"this looks like {self.name}: {self.what}; {self.remedy}"


NO_SOURCE = (
    "Headrace has no source for it yet: make TFRecords of it and adopt these, or pass format='folders' to take the "
    "folder names as classes"
)
_AS_CLASSES = "pass the folder whose folders are the classes, or format='folders' to take these names as classes"


def look(root: Path, recognised: Collection[str] = ()) -> Seen | None:
    """What a folder of annotated images looks like, None where nothing tells that it is one.

    `recognised`: the names of the formats that were. What they are is not told again, nor what is less sure than that.
    """
    survey = Survey(root)
    for find in _SURE if recognised else (*_SURE, *_VAGUE):
        if (seen := find(survey)) is not None and seen.format not in recognised:
            return seen
    return None


def look_at_file(path: Path) -> Seen | None:
    """The same of a single file of annotations."""
    survey = Survey.of_file(path)
    for name, format, find in (("Pascal VOC", "voc", is_voc), ("YOLO", "yolo", is_yolo)):
        if (what := find(survey)) is not None:
            return Seen(name, what, "pass its folder", format)
    return next((seen for find in _OF_FILES if (seen := find(survey)) is not None), None)


# --- formats that a source reads, from their own root ----------------------------------------------------------------


def _coco(survey: Survey) -> Seen | None:
    found = {
        path: why
        for folder in survey.folders
        for path in map(folder.file, folder.names.get(".json", [])[:_MOST_FILES])
        if (why := _recognised(is_coco, survey.root / path)) is not None
    }
    rank = {path: _KINDS.search(path.rpartition("/")[2]) is not None for path in found}
    best = [path for path in found if rank[path] == min(rank.values())]
    names = {
        path: re.findall(r'"file_name"\s*:\s*"([^"]+)"', survey.head(path, _BEGINNING))[:_SOME_NAMES] for path in best
    }
    return _by_split(survey, "COCO", found, names)


def _wider(survey: Survey) -> Seen | None:
    found = {
        path: why
        for folder in survey.folders
        for path in map(folder.file, folder.names.get(".txt", [])[:_MOST_FILES])
        if (why := _recognised(is_wider, survey.root / path)) is not None
    }
    names = {
        path: re.findall(r"^(\S.*\.\w+)\s*$", survey.head(path, _BEGINNING), re.MULTILINE)[:_SOME_NAMES]
        for path in found
    }
    return _by_split(survey, "WIDER FACE", found, names)


def _by_split(survey: Survey, name: str, found: dict[str, str], names: dict[str, list[str]]) -> Seen | None:
    """Which of the files that were found to pass, with which folders; `names`: of some of their images."""
    if not names:
        return None
    by_split: dict[str, str] = {}
    for path in sorted(names, key=lambda path: (len(path), path)):  # a.txt before a.here.txt
        by_split.setdefault(_split_in(path) or "", path)
    splits = [split for split in USUAL_SPLITS if split in by_split]
    images = {path: _folder_of(survey, names[path], split) for split, path in by_split.items()}
    if len(splits) > 1:
        pairs = [(split, by_split[split]) for split in splits]
        what = "; ".join(f"{path}: {found[path]}" for _, path in pairs) + _more(found, len(pairs))
        sources = " ".join(f"{split}={survey.root / path}" for split, path in pairs)
        folders = " ".join(f"images={f'{split}={images[path]}'!r}" for split, path in pairs)
        return Seen(name, what, f"pass {sources} with {folders}")
    path = by_split[splits[0]] if splits else by_split[""]
    folder = images[path]
    return Seen(
        name,
        f"{path}: {found[path]}{_more(found, 1)}",
        f"pass {survey.root / path} with images={folder if folder == _ANY else repr(folder)}",
    )


def _more(found: Collection[str], shown: int) -> str:
    return f"; and {len(found) - shown} more files of it" if len(found) > shown else ""


def _split_in(path: str) -> str | None:
    """The split that a path's last names say: instances_val2017.json, valid/_annotations.coco.json."""
    for part in reversed(path.split("/")[-2:]):
        for word in re.split(r"[^A-Za-z0-9]+", part):
            if (split := split_of_folder(word)) is not None:
                return split
    return None


def _recognised(recognise: Callable[[Path], str | None], path: Path) -> str | None:
    try:
        return recognise(path)
    except StorageError:
        return None


def _folder_of(survey: Survey, names: list[str], split: str) -> str:
    """The folder that images' names start from; one that is called as the split is, where several have them."""
    of_split = sorted(survey.folders, key=lambda folder: _split_in(folder.path) != split)
    for name in names:
        for folder in of_split if walking.id_of(name)[1] is None else ():
            path = survey.root / folder.path
            if paths.is_file(path / name):
                return str(path)
    return _ANY


# --- formats that none does, or none yet ------------------------------------------------------------------------------


def _xml(survey: Survey) -> Seen | None:
    for path, _ in survey.having(".xml"):
        head = survey.head(path)
        if re.search(r"<annotations[\s>]", head):
            return Seen("CVAT", f"{path} has <annotations>", f"pass {survey.root / path}", "cvat")
        if re.search(r"<annotation[\s>]", head) and "<polygon>" in head:
            return Seen("LabelMe", f"{path} has <annotation> with <polygon>", NO_SOURCE)
    return None


def _json(survey: Survey) -> Seen | None:
    for name, extension, keys, format in (
        ("LabelMe", ".json", ("shapes", "imagePath"), "labelme"),
        ("VGG Image Annotator", ".json", ("regions", "shape_attributes"), None),
        ("VoTT", ".json", ("regions", "asset"), None),
        ("VoTT", ".json", ("assets", "tags"), None),
        ("VoTT", ".vott", ("tags",), None),
        ("CreateML", ".json", ("annotations", "coordinates"), None),
    ):
        for path, _ in survey.having(extension):
            head = survey.head(path)
            if all(f'"{key}"' in head for key in keys):
                return Seen(name, f"{path} has {' and '.join(map(repr, keys))}", NO_SOURCE, format)
    return None


_NUMBER = r"-?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_KITTI = re.compile(rf"[A-Za-z_]+(?:\s+{_NUMBER}){{14,15}}")
_DOTA = re.compile(rf"(?:{_NUMBER}\s+){{8}}[A-Za-z]\S*(?:\s+[0-9])?")


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
            remedy = f"pass {survey.root / path} with images=FOLDER"
            return Seen("Open Images", f"{path} begins with ImageID", remedy, "openimages")
    return None


def _hugging_face(survey: Survey) -> Seen | None:
    if path := survey.named("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        return Seen("an imagefolder of Hugging Face with metadata", path, NO_SOURCE, "imagefolder")
    return None


def _table(survey: Survey) -> Seen | None:
    """A table that names images that are there."""
    known = {name for folder in survey.folders for name in folder.images}
    stems = {Path(name).stem for name in known}
    for path, extension in survey.having(".csv", ".tsv"):
        # A number of few digits may be of anything, but in a table whose header says that it is of images.
        least = 1 if _recognised(is_csv, survey.root / path) else 4
        separator = "\t" if extension == ".tsv" else ","
        for line in survey.head(path).splitlines()[:SAMPLES]:
            for cell in line.split(separator):
                value = cell.strip().strip('"').rpartition("/")[2]
                if value in known or (len(value) >= least and value in stems):
                    folder = _folder_of(survey, [cell.strip()], "")
                    images = folder if folder == _ANY else repr(folder)
                    remedy = f"pass {survey.root / path} with images={images}"
                    return Seen(f"images with a table ({extension})", f"{path} names {value}", remedy, "csv")
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
        if not inside and any(telling(folder.images) for folder in survey.folders):
            remedy = "pass pattern=REGEX where file names tell the class, or format='files' to store them without one"
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


def _names(survey: Survey) -> Seen | None:
    """Images in no folder of a class whose names begin with a few words, and go on with numbers."""
    here, *below = survey.folders
    several = {} if any(folder.images for folder in below) else telling(here.images)
    if not several:
        return None
    what = ", ".join(f"{word} ({n})" for word, n in several.items())
    pattern = f"^(?P<label>{'|'.join(several)})[^A-Za-z]"
    return Seen("images whose names tell the class", what, f"pass pattern={pattern!r} if these are classes", "names")


def _listed(paths: Iterator[str] | list[str]) -> str:
    some = [f"{path}/" for path in paths]
    return ", ".join(some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")


_Finder: TypeAlias = Callable[[Survey], Seen | None]

# The surer first. What is vague is something only where no format is recognised.
_OF_FILES: tuple[_Finder, ...] = (_xml, _json, _kitti, _dota, _open_images)
_SURE: tuple[_Finder, ...] = (_coco, _wider, _mot, *_OF_FILES, _hugging_face)
_VAGUE: tuple[_Finder, ...] = (_table, _file_each, _splits, _parts, _names)
