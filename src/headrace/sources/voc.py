"""Source `voc`: Pascal VOC, an XML file for each image. VOC's own folder, or images with the .xml beside them.

    Annotations/a.xml   <annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size>
    JPEGImages/a.jpg    <object><name>cat</name><truncated>0</truncated><difficult>0</difficult>
    ImageSets/Main/       <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
      train.txt …       </annotation>

VOC's pixels count from 1 and its corners are both inside: half-open pixels from 0 are (xmin - 1, ymin - 1, xmax, ymax)
(the development kit of VOC2007: "the top-left pixel in the image has coordinates (1,1)"). Many tools write corners that
count from 0; `zero_based` takes these as they are.

Looks at names and at XML, and never opens an image.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from headrace.errors import UsageError
from headrace.place import paths
from headrace.record import Record, Reject, name_fault
from headrace.sources import walking
from headrace.sources.folders import split_folders
from headrace.sources.formats import About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.survey import Survey
from headrace.splits import USUAL_SPLITS

# One file is in memory at once, and never more of it than this: forty thousand objects.
_MOST_BYTES = 1 << 24
_DEEPEST = 64
_LONGEST_LINE = 4096

_ANNOTATIONS = ("annotations", "annotation", "xmls", "xml")
_IMAGES = ("jpegimages", "images", "image", "imgs", "img")
_MASKS = ("segmentationclass", "segmentationobject")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = ("truncated", "difficult", "occluded")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class VocSource:
    """Iterable of Record | Reject; see `voc`. `annotations`, `lists`: the folders of XML and of lists of splits.

    Its SourceInfo counts in `skipped` what was passed over: images without an XML, annotated ones on no list, masks,
    and elements of objects that nothing is made of.
    """

    root: Path
    annotations: Path
    images: Path
    lists: Path | None
    zero_based: bool
    note: str | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        reading = _Reading(self)
        yield from reading.items()
        return SourceInfo(skipped=+reading.skipped, root=str(self.root), notes=tuple(reading.notes()))


def voc(
    root: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    zero_based: bool = False,
) -> VocSource:
    """Images with the objects that their XML files say, in the order of the XML files.

    root: VOC's folder with `Annotations` and `JPEGImages` (or `images`), the one folder below that has them, or any
    folder of .xml files. images: where the images lie; by default in `JPEGImages`, or beside the XML.

    Boxes [n, 4] are (xmin - 1, ymin - 1, xmax, ymax), see above, fractions too; with zero_based the numbers as they
    are. They are of the image as it is stored, or upright where only that has the size that the file says; a size of 0
    says nothing. Only direct children of an object count: what its parts say is theirs. No object is a negative.
    Attributes: truncated, difficult and occluded are 0 or 1, -1 where an object doesn't say, `pose` a text; others
    under their own names as CVAT writes them. Each is there where an object of the image says it.

    The image of an XML file is the one of the same name; only where there is none, or several, its `filename` decides,
    which is often stale, as `path` always is: it never names the image of another XML file. An image without XML is
    passed over and counted: nobody has annotated it.
    Ids are paths relative to the folder of images.

    Splits are those of ImageSets/Main/train.txt, val.txt and test.txt (trainval.txt is the train where there is no
    train.txt), else train, val and test folders of images. An annotated image on no list is passed over and counted; a
    listed image without XML has no boxes, not even none. Without lists: pass root=".../Annotations" with images.

    A Reject is an XML file without an image, that is no sound XML or no annotation, that holds entities or more than 16
    MB, or one of whose objects has no name or no box of four finite numbers in order. Nothing outside of root and
    images is opened. Raises NotThereError, StorageError, UsageError (no folder; several in it that may be meant; a link
    that leads out of it); when iterated UsageError, if there is XML and no image at all.
    """
    top = walking.check_root(root)
    folder, note = _place(top)
    annotations = _child(folder, _ANNOTATIONS) or folder
    beside = annotations if _child(folder, _ANNOTATIONS) is None else folder
    main = folder / "ImageSets" / "Main"
    pictures = walking.check_root(images) if images is not None else _child(folder, _IMAGES) or beside
    inside = os.path.realpath(top)
    for found, remedy in ((annotations, "pass the folder that it leads to"), (pictures, "pass it with images=FOLDER")):
        of_caller = found is pictures and images is not None
        if not of_caller and os.path.commonpath([os.path.realpath(found), inside]) != inside:
            raise UsageError(f"{found}: a link leads out of {top}; {remedy}")
    return VocSource(
        root=folder,
        annotations=annotations,
        images=pictures,
        lists=main if annotations != folder and main.is_dir() else None,
        zero_based=zero_based,
        note=note,
    )


def recognise(path: Path) -> str | None:
    """What tells that there are VOC's XML files in the folder `path`, or None when nothing does."""
    return seen_in(Survey(path))


def seen_in(survey: Survey) -> str | None:
    """The same of what lies in a folder."""
    for found, _ in survey.having(".xml"):
        head = survey.head(found)
        if re.search(r"<annotation[\s>]", head) and "<polygon>" not in head:
            beside = next((f"{folder.file('')} beside " for folder in survey.folders if folder.called in _IMAGES), "")
            of = str(PurePosixPath(found).parent / "*.xml") if beside else found
            return f"{beside}{of} with <annotation>"
    return None


def _place(root: Path) -> tuple[Path, str | None]:
    """The folder at or below `root` that has the annotations, and what to say of it. Raises UsageError."""
    if _child(root, _ANNOTATIONS) is not None:
        return root, None
    for depth in (1, 2):
        below = [root]
        for _ in range(depth):
            below = [folder / name for folder in below for name in walking.folders_in(folder)]
        found = [folder for folder in below if _child(folder, _ANNOTATIONS) is not None]
        if len(found) > 1:
            listed = ", ".join(map(str, found[:5]))
            raise UsageError(f"{root}: several folders with annotations in it, wanted one of them: {listed}")
        if found:
            top = found[0].relative_to(root).parts[0]
            names = [name for name in walking.folders_in(root) if name != top]
            if others := [name for name in names if walking.holds_images(root / name)]:
                listed = ", ".join(f"{name}/" for name in others[:5])
                raise UsageError(f"{root}: annotations in {top}/, and other images in {listed}; pass {found[0]}")
            return found[0], f"annotations and images of {found[0].relative_to(root)}/ are taken"
    return root, None


def _child(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder in `folder` of the first of these names, in any case of letters, None where there is none."""
    below = {name.lower(): name for name in reversed(walking.folders_in(folder))}
    return next((folder / below[name] for name in names if name in below), None)


class _Reading:
    """One reading of a source, and what it counts."""

    def __init__(self, source: VocSource) -> None:
        self.source = source
        self.skipped, self.seen = Counter[str](), Counter[str]()
        self.said: list[str] = [source.note] if source.note else []
        self.inside = os.path.realpath(source.images)
        self.prefix = os.path.relpath(source.annotations, source.root).replace(os.sep, "/")
        self.prefix = "" if self.prefix == "." else f"{self.prefix}/"

    def items(self) -> Iterator[Record | Reject]:
        source = self.source
        xmls = walking.having(source.annotations, ".xml")
        images = _Images({_stem(xml) for xml in xmls})
        for found in walking.walk(source.images, self.skipped):
            if isinstance(found, Reject):
                yield found
            elif found.partition("/")[0].lower() in _MASKS:
                self.skipped["segmentation masks"] += 1
            else:
                images.add(found)
        del self.skipped[".xml"]
        if xmls and not len(images):
            raise UsageError(f"{source.images}: holds no images; pass the folder in which they lie with images=FOLDER")
        if source.images != source.root:
            for name in walking.folders_in(source.root):
                if name.lower() in _MASKS:
                    self.skipped["segmentation masks"] += len(walking.having(source.root / name, ".png"))
        lists = _Lists()
        if source.lists is not None:
            yield from lists.read(source.lists, source.root, images)
            self.said += lists.notes
        folders = {} if lists.splits else split_folders(source.images)
        if folders:
            self.said.append(f"folders taken as splits: {', '.join(f'{name}/' for name in folders)}")
        divided = bool(lists.splits)
        for xml in paths.ahead(source.annotations, xmls, lambda xml: (xml,)):
            stem = _stem(xml)
            split = None
            id_ = stem
            if len(of_name := images.of(stem)) == 1:
                id_ = of_name[0]
                images.used.add(id_)
            if divided:
                where = lists.splits.pop(stem, {})
                if len(where) > 1:
                    yield self._reject(xml, id_, f"it is on the lists of several splits: {', '.join(where.values())}")
                    continue
                if not where:
                    self.skipped["annotated images on no list of ImageSets/Main"] += 1
                    continue
                split = next(iter(where))
            yield self._item(xml, id_, images, split, folders)
        for stem, where in lists.splits.items():
            found_images = images.of(stem)
            split, origin = next(iter(where.items()))
            if found_images:
                self.seen["listed"] += 1
                image = found_images[0]
                images.used.add(image)
                yield Record(id=image, path=f"{source.images}/{image}", split=split, origin=origin)
            else:
                yield Reject(id=stem, origin=origin, stage="annotation", reason="there is no image of this name")
        if rest := len(images) - len(images.used):
            self.skipped["images without an xml"] += rest

    def notes(self) -> Iterator[str]:
        yield from self.said
        for kind, text in _NOTES.items():
            if n := self.seen[kind]:
                yield text.format(n=n)
        if n := self.skipped["annotated images on no list of ImageSets/Main"]:
            yield f"{n} annotated images are on no list and left out; pass Annotations with images=FOLDER to take all"

    def _reject(self, xml: str, id_: str, reason: str, line: int | None = None, stage: str = "annotation") -> Reject:
        at = f"{self.prefix}{xml}" + ("" if line is None else f":{line}")
        return Reject(id=id_, origin=at, stage=stage, reason=reason)

    def _item(self, xml: str, id_: str, images: _Images, split: str | None, folders: dict[str, str]) -> Record | Reject:
        """The record of an XML file, or its Reject under `id_`."""
        source = self.source
        path = str(source.annotations / xml)
        if refused := walking.refusal(path, os.path.realpath(source.annotations)):
            return self._reject(xml, id_, refused, stage="read")
        try:
            said = _parse(path)
        except _Fault as fault:
            return self._reject(xml, id_, str(fault), fault.line)
        except OSError as error:
            return self._reject(xml, id_, (error.strerror or str(error)).lower(), stage="read")
        try:
            image = self._image(_stem(xml), said.filename, images)
        except _Fault as fault:
            return self._reject(xml, id_, str(fault))
        images.used.add(image)
        if refused := walking.refusal(f"{source.images}/{image}", self.inside):
            return self._reject(xml, image, refused, stage="read")
        try:
            boxes, names, attributes = self._objects(said)
        except _Fault as fault:
            return self._reject(xml, image, str(fault), fault.line)
        return Record(
            id=image,
            path=f"{source.images}/{image}",
            boxes=boxes,
            box_labels=names,
            size=said.size,
            attributes=attributes,
            split=split or folders.get(image.partition("/")[0]),
            origin=f"{self.prefix}{xml}",
        )

    def _image(self, stem: str, filename: str, images: _Images) -> str:
        """The image of an XML file. Raises _Fault."""
        name = filename.replace("\\", "/").rpartition("/")[2]
        found = images.of(stem)
        if len(found) > 1:
            found = [image for image in found if image.rpartition("/")[2] == name] or found
        if len(found) == 1:
            if (
                name
                and PurePosixPath(name).stem != PurePosixPath(found[0]).stem
                and name != PurePosixPath(found[0]).stem
            ):
                self.seen["stale"] += 1
            return found[0]
        if not found and name:
            found = images.called(name)
            if len(found) == 1:
                self.seen["by filename"] += 1
                return found[0]
        says = f"its <filename> {filename!r:.80}" if filename else "it has no <filename>"
        if found:
            images.used.update(found)
            raise _Fault(f"several images may be meant ({', '.join(found[:3])}); {says} doesn't decide")
        raise _Fault(f"there is no image of this name, and {says}{' is none' if filename else ''}")

    def _objects(self, said: _Said) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
        """Boxes, their names and attributes. Raises _Fault."""
        boxes = np.zeros((len(said.objects), 4), np.float64)
        attributes: dict[str, list[Any]] = {}
        for i, thing in enumerate(said.objects):
            of = f"object {i + 1}"
            if thing.fault:
                raise _Fault(f"{of}: {thing.fault}", thing.line)
            if fault := name_fault(thing.texts.get("name", "")):
                raise _Fault(f"{of}, its name: {fault}", thing.line)
            boxes[i] = _corners(thing, of)
            for name, value in (*((flag, _flag(thing.texts.get(flag))) for flag in _FLAGS), *_others(thing)):
                if value is not None:
                    attributes.setdefault(name, [None] * len(said.objects))[i] = value
        for name in (*_FLAGS, "is_crowd"):
            if name in attributes:
                attributes[name] = [-1 if value is None else value for value in attributes[name]]
        if not self.source.zero_based:
            self.seen["from 0"] += int((boxes[:, :2] < 1).any(axis=1).sum())
            boxes[:, :2] -= 1
        self.skipped += said.passed
        names = tuple(thing.texts["name"] for thing in said.objects)
        return boxes.astype(np.float32), names, {name: attributes[name] for name in sorted(attributes)}


_NOTES = {
    "stale": "{n} XML files say another <filename> than their own name: the image of their own name is taken",
    "by filename": "{n} images are found by <filename>: none has the name of the XML file",
    "listed": "{n} images on the lists have no XML: they are kept, and nothing is said of their boxes",
    "from 0": (
        "{n} boxes have a corner at 0, which VOC's pixels, counted from 1, have not: if the tool that made them counts "
        "from 0, pass zero_based=True"
    ),
}


class _Images:
    """The images by what names them: the path without its extension, or the file's name alone. One that is of an XML
    file by its path is that one's alone: another of the same name, in another folder, would take it with its boxes."""

    def __init__(self, xmls: set[str]) -> None:
        self.xmls = xmls
        self.used: set[str] = set()
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] | None = None
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, path: str) -> None:
        self._by_stem.setdefault(_stem(path), []).append(path)
        self._n += 1

    def of(self, stem: str) -> list[str]:
        """Those of this path without an extension; or else of this name in whatever folder."""
        return self._by_stem.get(stem) or self._named(stem.rpartition("/")[2])

    def called(self, name: str) -> list[str]:
        """Those of a file's name, or of its stem where it has no extension that is an image's."""
        return [path for path in self._named(_stem(name)) if path.rpartition("/")[2] == name] or self._named(
            _stem(name)
        )

    def _named(self, name: str) -> list[str]:
        if self._by_name is None:
            self._by_name = {}
            for stem, paths in self._by_stem.items():
                if stem not in self.xmls:
                    self._by_name.setdefault(stem.rpartition("/")[2], []).extend(paths)
        return self._by_name.get(name, [])


def _stem(path: str) -> str:
    """A path without its extension, where that is an image's or .xml."""
    stem, dot, extension = path.rpartition(".")
    known = extension.lower() in walking.IMAGE_EXTENSIONS or extension.lower() == "xml"
    return stem if dot and known and "/" not in extension and stem.rpartition("/")[2] else path


class _Lists:
    """What ImageSets/Main says. `splits`: stem -> split -> where that stands; empty where they divide nothing."""

    def __init__(self) -> None:
        self.splits: dict[str, dict[str, str]] = {}
        self.notes: list[str] = []

    def read(self, folder: Path, root: Path, images: _Images) -> Iterator[Reject]:
        """Takes the lists in `folder`; gives the lines that can't be used."""
        taken = []
        for split in ("val", "test", "train"):
            path = folder / f"{split}.txt"
            rest = split == "train" and not path.exists() and (folder / "trainval.txt").exists()
            path = folder / "trainval.txt" if rest else path
            if walking.refusal(str(path), os.path.realpath(root)) is not None:
                continue
            known: dict[str, str] = {}
            rejects: list[Reject] = []
            marks = 0
            for line, name in _lines(path):
                origin = f"ImageSets/Main/{path.name}:{line}"
                if name is None:
                    rejects.append(
                        Reject(id=origin, origin=origin, stage="annotation", reason="it is no name in UTF-8")
                    )
                    continue
                stem = _stem(walking.id_of(name)[0])
                marks += re.fullmatch(r"\S+\s+(?:-1|0|1)", name) is not None and not images.of(stem)
                known.setdefault(stem, origin)
            if marks and marks == len(known):
                self.notes.append(f"ImageSets/Main/{path.name} says 1, 0 or -1 of each image: it is no list of a split")
                continue
            if rest:
                self.notes.append("ImageSets/Main/trainval.txt is taken as train: there is no train.txt")
            yield from rejects
            taken.append(split)
            for stem, origin in known.items():
                if not (rest and stem in self.splits):  # train and val are in trainval
                    self.splits.setdefault(stem, {})[split] = origin
        if self.splits and not any(stem in images.xmls for stem in self.splits):
            self.notes.append("the lists in ImageSets/Main name none of the annotated images and are not taken")
            self.splits = {}
        elif self.splits:
            self.notes.append(
                f"splits are those of ImageSets/Main: {', '.join(split for split in USUAL_SPLITS if split in taken)}"
            )


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of the lines that are not blank; None for what is no text, or too long for a name."""
    for line, text in walking.lines(path, longest=_LONGEST_LINE):
        try:
            name = text.decode()
        except UnicodeDecodeError:
            yield line, None
        else:
            yield line, None if walking.CONTROLS.search(name) or len(text) > _LONGEST_LINE else name


# --- one file --------------------------------------------------------------------------------------------------------


class _Fault(ValueError):
    """What is wrong with a file, and in which line of it."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(slots=True)
class _Object:
    """`texts` of its direct children, and those of its box; `fault` is the first that is wrong with it."""

    line: int
    texts: dict[str, str] = field(default_factory=dict)
    box: dict[str, str] = field(default_factory=dict)
    boxes: int = 0
    attributes: list[dict[str, str]] = field(default_factory=list)
    fault: str = ""


class _Said:
    """What an XML file says: the target of a parser, which it is told of its elements by."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.filename = ""
        self.objects: list[_Object] = []
        self.passed = Counter[str]()
        self._sides: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width), None where it says none, or 0 as some tools do."""
        try:
            height, width = (float(self._sides.get(side, "0")) for side in ("height", "width"))
        except ValueError:
            return None
        return (int(height), int(width)) if 1 <= height < 1e9 and 1 <= width < 1e9 else None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        self._text = []
        if len(self._path) > _DEEPEST:
            raise _Fault(f"elements in more than {_DEEPEST} others")
        if len(self._path) == 1 and tag != "annotation":
            raise _Fault(f"found <{tag:.40}>, wanted VOC's <annotation>", self.parser.CurrentLineNumber)
        if self._path[1:2] != ["object"]:
            return
        if len(self._path) == 2:
            self.objects.append(_Object(self.parser.CurrentLineNumber))
        elif len(self._path) == 3:
            if tag == "bndbox":
                self.objects[-1].boxes += 1
            elif tag not in _KNOWN:
                self.passed[f"<{tag:.40}> of objects" if len(self.passed) < 20 else "other elements of objects"] += 1
        elif self._path[2:] == ["attributes", "attribute"]:
            self.objects[-1].attributes.append({})

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        path, text = self._path, "".join(self._text).strip()
        self._text = []
        if path[1:] == ["filename"]:
            self.filename = text
        elif len(path) == 3 and path[1] == "size":
            self._sides[tag] = text
        elif path[1:2] == ["object"]:
            if len(path) == 3 and tag in ("name", "pose", *_FLAGS):
                self._take(self.objects[-1].texts, tag, text)
            elif len(path) == 4 and path[2] == "bndbox":
                self._take(self.objects[-1].box, tag, text)
            elif path[2:4] == ["attributes", "attribute"] and len(path) == 5:
                self._take(self.objects[-1].attributes[-1], tag, text)
        path.pop()

    def close(self) -> None:
        """All is read."""

    def _take(self, into: dict[str, str], tag: str, text: str) -> None:
        if tag in into:
            self.objects[-1].fault = self.objects[-1].fault or f"<{tag:.40}> occurs twice in it"
        into[tag] = text


_KNOWN = ("name", "bndbox", "pose", "attributes", *_FLAGS)


def _parse(path: str) -> _Said:
    """What a file says. Raises _Fault, OSError."""
    with paths.path_of(path).open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise _Fault(f"a file of more than {_MOST_BYTES} bytes")
    if not data.strip():
        raise _Fault("an empty file, wanted XML")
    said = _Said()
    parser: Any = DefusedXMLParser(target=said)
    said.parser = parser.parser
    try:
        parser.feed(data)
        parser.close()
    except ParseError as error:
        raise _Fault(f"no sound XML: {_short(error)}", error.position[0]) from None
    except DefusedXmlException as error:
        raise _Fault(f"XML with entities, which are not read ({type(error).__name__})") from None
    except _Fault:
        raise
    except (ValueError, LookupError) as error:  # an encoding that expat doesn't know
        raise _Fault(f"XML that can't be read: {_short(error)}") from None
    return said


def _short(error: Exception) -> str:
    return ascii(str(error).partition(": line ")[0])[1:-1][:120]


def _corners(thing: _Object, of: str) -> tuple[float, ...]:
    """xmin, ymin, xmax, ymax as they are. Raises _Fault."""
    if thing.boxes != 1:
        has = "no bndbox" if not thing.boxes else f"{thing.boxes} boxes"
        raise _Fault(f"{of} has {has}, wanted one", thing.line)
    found = []
    for corner in _CORNERS:
        text = thing.box.get(corner, "")
        number = float(text) if _NUMBER.fullmatch(text) and len(text) < 100 else math.nan
        if not math.isfinite(number):
            raise _Fault(f"{of}: {corner} is {text!r:.60}, wanted a number", thing.line)
        found.append(number)
    x0, y0, x1, y1 = found
    if x1 < x0 or y1 < y0:
        raise _Fault(f"{of}: its box {x0:g}, {y0:g}, {x1:g}, {y1:g} is reversed, wanted the smaller first", thing.line)
    return x0, y0, x1, y1


def _flag(text: str | None) -> int | None:
    """0 or 1, -1 of what is neither; None where nothing is said. A share that is hidden is 1, as KITTI's become it."""
    if text is None or not text:
        return None
    if text.lower() in ("true", "yes", "false", "no"):
        return int(text.lower() in ("true", "yes"))
    if not _NUMBER.fullmatch(text) or len(text) > 100:
        return -1
    number = float(text)
    return -1 if number < 0 else int(number > 0)


def _others(thing: _Object) -> Iterator[tuple[str, str | int | None]]:
    """pose, and the attributes of CVAT, datumaro and their like: pairs of name and value."""
    yield "pose", thing.texts.get("pose") or None
    for pair in thing.attributes:
        name = re.sub(r"\W+", "_", pair.get("name", "").strip().lower()).strip("_")
        value = pair.get("value", "")
        if thing.texts.get(name):  # what the object says itself goes before
            continue
        if name in ("track_id", "track"):
            yield "track", int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None
        elif name in (*_FLAGS, "is_crowd"):
            yield name, _flag(value)
        elif name:
            yield name, value


FORMAT = Format(
    name="voc",
    reads="A folder of Pascal VOC's XML files and their images",
    takes="folder",
    make=voc,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder that the names in the file start from; its own by default.",
            per_split=True,
        ),
        Option(
            name="zero_based",
            type=bool,
            help="Take corners as they are, counted from 0; VOC's own count from 1.",
            default=False,
        ),
    ),
    example=("VOC2007", {}),
    about=About(
        recognised="XML files with <annotation>, in Annotations/ beside JPEGImages/ or beside the images.",
        kept=(
            "boxes as (xmin - 1, ymin - 1, xmax, ymax), since VOC counts from 1 and both corners are inside, "
            "or as they stand with --zero-based; truncated, difficult and occluded (0, 1, -1 where it isn't "
            "said), pose and other values; the splits of ImageSets/Main. An XML without objects is a "
            "negative; an image without XML is passed over and counted."
        ),
        refused=(
            "an XML file without an image, or that is no sound XML, holds entities or more than 16 MB, or "
            "has an object without a name or four finite numbers in order."
        ),
        sample=(
            "<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size>\n"
            "  <object><name>cat</name><truncated>0</truncated><difficult>0</difficult>\n"
            "    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>\n"
            "</annotation>"
        ),
    ),
)
