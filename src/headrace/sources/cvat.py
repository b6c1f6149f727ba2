"""Source `cvat`: the XML of CVAT, "CVAT for images 1.1" and "CVAT for video 1.1".

    <annotations><version>1.1</version><meta>…</meta>
      <image id="0" name="a.jpg" subset="train" width="40" height="30">
        <box label="cat" occluded="0" xtl="1.00" ytl="2.00" xbr="9.00" ybr="8.00" z_order="0" group_id="3">
          <attribute name="colour">red</attribute></box>
        <polygon label="cat" points="1,2;3,4;6,5"/>
        <mask label="cat" rle="1, 2, 1" left="5" top="6" width="2" height="2"/>
        <points label="eyes" points="1,2;3,4"/>  <skeleton label="cat"><points label="nose" points="1,2"/></skeleton>
        <tag label="indoors"/></image>
      <track id="0" label="car"><box frame="3" outside="0" occluded="0" keyframe="1" xtl=… /></track></annotations>

Coordinates are pixels from 0, fractions of them too, as boxes have them: the full image is 0, 0, width, height (CVAT's
COCO export takes xbr - xtl for a width), with its EXIF orientation applied, as CVAT shows it and measures its size
(cvat/apps/engine/media_extractors.py, image_size_within_orientation). A mask's `rle` are run lengths along the rows of
its left, top, width and height, the first of pixels that are not covered (cvat/apps/dataset_manager/formats/cvat.py;
its bindings turn them into COCO's). Of a film every frame of a track is written, those between key frames too.

Reads the file twice, for what all of it says and for its images, one of them at a time; a film's tracks it keeps in
flat arrays, about 90 bytes a box. Never opens an image.
"""

from __future__ import annotations

import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.place import paths
from headrace.record import Mask, Record, Reject, box_faults, name_fault
from headrace.sources import walking, xmls
from headrace.sources.formats import FLIP_PAIRS, About, Format, Option
from headrace.sources.info import SourceInfo
from headrace.sources.walking import natural
from headrace.sources.xmls import Element
from headrace.splits import split_of_folder

_HEAD = 1 << 14  # bytes of a file that may be one
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_LARGEST = 1e9  # pixels: far beyond any image, and what is computed of it stays a number
_WHOLE = re.compile(r"[0-9]{1,9}")
_FRAME = re.compile(r"frame_([0-9]{6,9})\.[A-Za-z0-9]+")
_MOST_FRAMES = 10**7
_CORNERS = 64  # of the polygon that stands for an ellipse: off by 0.12 % of its radius

_SHAPES = ("box", "polygon", "points", "mask", "ellipse", "skeleton")
_PASSED_OVER = ("polyline", "cuboid")
_FLAGS = ("difficult", "truncated", "occluded", "is_crowd")
_YES_OR_NO = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}

# What of an element is no attribute of its object.
_KNOWN = frozenset(
    (
        *("label", "occluded", "outside", "keyframe", "frame", "points", "rle", "left", "top", "width", "height"),
        *("xtl", "ytl", "xbr", "ybr", "cx", "cy", "rx", "ry"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CvatSource:
    """Iterable of Record | Reject; see `cvat`. `root` is the XML file.

    Its SourceInfo counts in `skipped` what was passed over, in `boxes_dropped` the objects and in `keypoints_dropped`
    the labelled points that Records come without.
    """

    root: Path
    images: Path
    flip_pairs: tuple[tuple[int, int], ...] | None

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        facts = _survey(self.root)
        left_out = _LeftOut()
        folder = walking.Folder(self.images)
        if facts.film is None:
            yield from self._images(facts, left_out, folder)
        else:
            yield from self._frames(facts, facts.film, left_out, folder)
        return SourceInfo(
            class_names=facts.class_names,
            box_class_names=facts.box_class_names,
            keypoint_names=facts.keypoint_names,
            flip_pairs=self.flip_pairs,
            split_names=tuple(facts.subsets) or None,
            boxes_dropped=left_out.boxes,
            keypoints_dropped=left_out.keypoints,
            skipped=facts.skipped,
            root=str(self.root),
        )

    # --- images ------------------------------------------------------------------------------------------------------

    def _images(self, facts: _Facts, left_out: _LeftOut, folder: walking.Folder) -> Iterator[Record | Reject]:
        number = -1
        for element, parent in _walk(self.root):
            if parent is not None or element.tag != "image":
                continue
            number += 1
            yield self._image(element, f"image[{number}]", facts, left_out, folder)

    def _image(
        self, element: Element, at: str, facts: _Facts, left_out: _LeftOut, folder: walking.Folder
    ) -> Record | Reject:
        """The record of an <image>, or its Reject."""
        name, subset = element.attributes.get("name", ""), element.attributes.get("subset")
        origin = self._origin(at)
        if not name:
            return Reject(id=at, origin=origin, stage="annotation", reason="the image has no name")
        id_, unusable = walking.id_of(name)
        if unusable is None and subset is not None:
            unusable = walking.id_of(subset)[1] or (None if subset else "its subset has no name")
        if unusable is not None:
            return Reject(id=id_, origin=origin, stage="annotation", reason=unusable)
        try:
            size = _size(element)
            shapes = [shape for child in element.children if (shape := _shape(child)) is not None]
            tags = tuple(dict.fromkeys(_label(child) for child in element.children if child.tag == "tag"))
        except _Fault as fault:
            reason = f"line {fault.line}: {fault}"
            return Reject(id=id_, origin=origin, stage="annotation", reason=reason)
        # A project's images lie in folders of its subsets.
        beside = [id_] if subset is None else [f"{subset}/{id_}", id_]
        for id_ in beside:
            if (refused := folder.refusal(f"{self.images}/{id_}")) is None:
                break
        else:
            return Reject(id=id_, origin=origin, stage="read", reason=refused or "")
        return self._record(id_, shapes, size, facts, left_out, origin, tags=tags, split=subset and _split(subset))

    # --- frames of a film --------------------------------------------------------------------------------------------

    def _frames(
        self, facts: _Facts, film: _Film, left_out: _LeftOut, folder: walking.Folder
    ) -> Iterator[Record | Reject]:
        film.close()
        for origin_at, fault in film.strays:
            yield Reject(id=origin_at, origin=self._origin(origin_at), stage="annotation", reason=fault)
        known = _frames_in(self.images)
        last = facts.last_frame
        if last is not None and 0 not in known and last + 1 in known:  # as ffmpeg counts: every label one frame off
            raise DataError(
                f"{self.images}: frames are counted up to {last + 1} and there is no frame_000000, those of "
                f"{self.root.name} from 0 to {last}; rename the files (ffmpeg -start_number 0)"
            )
        numbers = {number for number in known if last is None or number <= last}
        numbers.update(film.numbers.tolist(), film.faults)
        for number in sorted(numbers):
            origin = self._origin(f"frame {number}")
            names = known.get(number, [])
            if len(names) != 1:
                found = " and ".join(names) or "no file"
                reason = f"found {found} in the folder of images, wanted frame_{number:06d}.jpg, or one of another kind"
                yield Reject(id=f"frame_{number:06d}", origin=origin, stage="read", reason=reason)
            elif (refused := folder.refusal(f"{self.images}/{names[0]}")) is not None:
                yield Reject(id=names[0], origin=origin, stage="read", reason=refused)
            elif number in film.faults:
                at, fault = film.faults[number]
                yield Reject(id=names[0], origin=self._origin(at), stage="annotation", reason=fault)
            else:
                yield self._record(names[0], film.shapes(number), facts.film_size, facts, left_out, origin)

    # --- both --------------------------------------------------------------------------------------------------------

    def _record(
        self,
        id_: str,
        shapes: list[_Shape],
        size: tuple[int, int] | None,
        facts: _Facts,
        left_out: _LeftOut,
        origin: str,
        *,
        tags: tuple[str, ...] = (),
        split: str | None = None,
    ) -> Record | Reject:
        k = facts.points
        shapes = [shape for shape in shapes if facts.takes(shape)]
        objects = []
        for shape in shapes:
            try:
                objects.append(_object(shape, facts, size))
            except _Fault as fault:
                return Reject(id=id_, origin=origin, stage="annotation", reason=f"line {fault.line}: {fault}")
        with np.errstate(over="ignore"):
            boxes = np.array([of.box for of in objects], np.float64).reshape(-1, 4).astype(np.float32)
        kept = np.flatnonzero(box_faults(boxes) == 0).tolist()
        left_out.boxes += +Counter({"without width or height": len(objects) - len(kept)})
        points = np.array([of.points for of in objects], np.float32).reshape(len(objects), k, 3)
        left_out.count("of dropped boxes", points, kept)
        if facts.other_points:
            left_out.keypoints += +Counter({"of another number of points": sum(of.unused for of in objects)})
        masks = tuple(objects[i].mask for i in kept)
        return Record(
            id=id_,
            path=f"{self.images}/{id_}",
            label_name=tags[0] if tags and not facts.several_tags else None,
            labels=tags if facts.several_tags else None,
            boxes=boxes[kept] if facts.boxed else None,
            box_labels=tuple(shapes[i].label for i in kept) if facts.boxed else None,
            masks=masks if facts.masked and facts.boxed else None,
            keypoints=points[kept] if k else None,
            size=size,
            upright=True,
            attributes=_attributes([shapes[i] for i in kept]),
            split=split,
            origin=origin,
        )

    def _origin(self, at: str) -> str:
        return f"{self.root.name}:{at}"  # without its folder: a catalog doesn't depend on where its source lay


def cvat(
    xml: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    flip_pairs: list[tuple[int, int]] | tuple[tuple[int, int], ...] | None = None,
) -> CvatSource:
    """Images below the folder `images` with the objects of the XML file that CVAT wrote, "for images" or "for video".

    By default that is `images/` beside the file, where CVAT's zip has it, or else the file's own folder. Ids are the
    names of images, or `subset/name` where they lie so. Boxes [n, 4] in pixels, as in the file.

    A <polygon> and an <ellipse> are the box around them and a mask, an ellipse's of 64 corners; a <mask> is its own box
    and runs; a box with `rotation` (degrees, clockwise) is the box around it, its mask the turned one. A <skeleton> is
    the box around its labelled points and keypoints, in the order of its parts: outside ones are absent, occluded ones
    hidden. So is <points>, where each of a label has the same number, two or more; others are counted and passed over.
    Where skeletons and points of several numbers occur, the most frequent one is the dataset's, and the others come
    with their box alone. Polylines and cuboids are counted and passed over.

    A <tag> is the class of its image; where any image has several, all have `labels`. Attributes with a value for each
    box: `occluded`, `track` of a film, `z_order`, `group_id`, `rotation`, `source` and each <attribute> by its name.
    The `subset` of a project's image is its split, Validation val. Images without objects are negatives.

    Of a film, frame 12 is the file frame_000012.png or .jpg, as CVAT exports it, counted from 0; a shape with outside
    is not there in its frame. Frames that there are files of and no shape in are negatives, up to the last of the task.

    An image, or frame, is a Reject when something in it can't be used (no number, no label, run lengths of another
    size), when its file is missing or lies outside of `images`, and, when packed, if it has another size than the XML
    says, stored or upright.
    Raises NotThereError, StorageError, UsageError (no file or folder); when iterated also DataError naming the line (no
    XML, cut short, not CVAT's, entities), and where files of a film's frames are counted from 1.
    """
    path = paths.path_of(xml)
    if not path.exists():
        raise NotThereError(f"{path}: no such file")
    if not path.is_file():
        raise UsageError(f"{path}: is no regular file, wanted an XML file of CVAT")
    if images is None:
        images = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    return CvatSource(
        root=path,
        images=walking.check_root(images),
        flip_pairs=None if flip_pairs is None else tuple((i, j) for i, j in flip_pairs),
    )


def recognise(path: Path) -> str | None:
    """What tells that `path` is an XML file of CVAT, or None when nothing does. Raises StorageError."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {(error.strerror or str(error)).lower()}") from error
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="replace").encode()
    found = re.match(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<annotations[\s>]", head, re.DOTALL)
    return "it is XML with <annotations>" if found else None


FORMAT = Format(
    name="cvat",
    reads="An XML file of CVAT, for images or for video",
    takes="file",
    make=cvat,
    recognise=recognise,
    options=(
        Option(
            name="images",
            type=Path,
            help="The folder of the images; images/ beside the file, or its own folder, by default.",
            per_split=True,
        ),
        FLIP_PAIRS,
    ),
    example=("annotations.xml", {"images": "images"}),
    about=About(
        recognised="XML with <annotations>.",
        kept=(
            "boxes, rotated ones with the turned box as mask, polygons, ellipses and masks, skeletons and "
            "points as keypoints, tags as classes; occluded, track, z_order, group_id and attributes; the "
            "subset as split. Pixels from 0, fractions too, of the upright image. Of a film, the frames as "
            "images."
        ),
        refused=(
            "an image or frame with a shape that can't be used. Polylines and cuboids are passed over and counted."
        ),
        sample=(
            "<annotations><version>1.1</version>\n"
            '  <image id="0" name="a.jpg" subset="train" width="40" height="30">\n'
            '    <box label="cat" occluded="0" xtl="1.00" ytl="2.00" xbr="9.00" ybr="8.00"/>\n'
            '    <polygon label="cat" points="1,2;3,4;6,5"/>\n'
            "  </image>\n"
            "</annotations>"
        ),
    ),
)


class _Fault(Exception):
    """Why an element can't be used, and its line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(slots=True)
class _LeftOut:
    """What one reading leaves out, by reason."""

    boxes: Counter[str] = field(default_factory=Counter)
    keypoints: Counter[str] = field(default_factory=Counter)

    def count(self, reason: str, points: NDArray[np.float32], kept: list[int]) -> None:
        labelled = (points[..., 2] > 0).sum(axis=1) if points.size else np.zeros(len(points), np.int64)
        self.keypoints += +Counter({reason: int(labelled.sum() - labelled[kept].sum())})


@dataclass(slots=True)
class _Shape:
    """A shape as it stands in the file. `numbers`: of a box and an ellipse its four and the rotation, of a polygon and
    of points x, y one after the other, of a mask left, top, width, height and its runs, of a skeleton x, y, v of each
    of its `parts`. `extras`: attributes of its own. `occluded` -1: it doesn't say."""

    kind: str
    label: str
    numbers: list[float]
    occluded: int
    extras: tuple[tuple[str, Any], ...]
    line: int
    parts: tuple[str, ...] = ()
    track: int | None = None


@dataclass(slots=True)
class _Object:
    """`unused`: labelled points that are no keypoints of the dataset."""

    box: tuple[float, float, float, float]
    mask: Mask | None
    points: NDArray[np.float32]
    unused: int


def _walk(path: Path) -> Iterator[tuple[Element, Element | None]]:
    return xmls.walk(path, root="annotations", inside=("track",))


# --- what the whole file says ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Facts:
    """What holds for all images. `points`: keypoints of each object, 0 for none, those of skeletons of `parts`, or of
    <points> of labels in `pointed`; `other_points`: whether there are others."""

    class_names: tuple[str, ...] | None = None
    box_class_names: tuple[str, ...] = ()
    keypoint_names: tuple[str, ...] | None = None
    points: int = 0
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    other_points: bool = False
    several_tags: bool = False
    boxed: bool = False
    masked: bool = False
    subsets: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    film: _Film | None = None
    film_size: tuple[int, int] | None = None
    last_frame: int | None = None

    def takes(self, shape: _Shape) -> bool:
        """Whether an object is made of a shape; <points> of changing numbers are passed over."""
        return shape.kind != "points" or shape.label in self.counts


def _survey(path: Path) -> _Facts:
    """The whole file once. Raises StorageError, DataError."""
    facts = _Facts()
    told: dict[str, tuple[str, str | None]] = {}  # label -> its type and what it is a part of, as <meta> says
    shaped: dict[str, None] = {}
    tagged: dict[str, None] = {}
    parts: dict[str, dict[str, None]] = {}
    numbers: dict[str, Counter[int]] = {}
    skeletons: Counter[str] = Counter()
    images = tracks = 0
    film = _Film()

    def see(shape: _Shape) -> None:
        shaped[shape.label] = None
        facts.masked = facts.masked or shape.kind in ("polygon", "mask", "ellipse") or _is_turned(shape)
        if shape.kind == "points":
            numbers.setdefault(shape.label, Counter())[len(shape.numbers) // 2] += 1
        elif shape.kind == "skeleton":
            parts.setdefault(shape.label, {}).update(dict.fromkeys(shape.parts))
            skeletons[shape.label] += 1

    for element, parent in _walk(path):
        if parent is not None:
            if element.tag in _PASSED_OVER:
                facts.skipped[f"{element.tag}s"] += 1
                continue
            shape = film.take(tracks, parent, element)
            if shape is not None:
                see(shape)
        elif element.tag == "track":
            tracks += 1
        elif element.tag == "meta":
            _take_meta(element, told, facts)
        elif element.tag == "image":
            images += 1
            if subset := element.attributes.get("subset"):
                facts.subsets[_split(subset)] = None
            tags = set()
            for child in element.children:
                if child.tag in _PASSED_OVER:
                    facts.skipped[f"{child.tag}s"] += 1
                elif child.tag == "tag":
                    tags.add(child.attributes.get("label", ""))
                    facts.skipped += +Counter({"attributes of tags": len(child.children)})
                else:
                    try:
                        if (shape := _shape(child)) is not None:
                            see(shape)
                        else:
                            facts.skipped[f"<{child.tag:.40}>"] += 1
                    except _Fault:
                        pass  # its image is a Reject
            tagged.update(dict.fromkeys(tags))
            facts.several_tags = facts.several_tags or len(tags) > 1
        elif element.tag != "version":
            facts.skipped[f"<{element.tag:.40}>"] += 1
    if images and tracks:
        raise DataError(
            f"{path}: has <image> and <track>, wanted the XML of CVAT for images, or that of CVAT for video"
        )
    facts.film = film if tracks or (not images and facts.film_size is not None) else None
    facts.boxed = bool(shaped) or facts.film is not None or not tagged
    wholes = [name for name, (kind, of) in told.items() if of is None and kind != "tag" and name not in tagged]
    # Parts of a skeleton are no classes, but for one that is one by itself, too.
    facts.box_class_names = _named(told, shaped, wholes) if facts.boxed else ()
    if tagged:
        facts.class_names = _named(told, tagged, [name for name, (kind, _) in told.items() if kind == "tag"])
    _decide_points(facts, told, parts, skeletons, numbers)
    return facts


def _named(told: dict[str, Any], used: dict[str, None], others: list[str]) -> tuple[str, ...]:
    """Class names: in the order of <meta>, then those that it doesn't name."""
    wanted = {*used, *others}
    listed = [name for name in told if name in wanted]
    named = [*listed, *sorted((name for name in used if name not in told), key=natural)]
    return tuple(name for name in named if name_fault(name) is None)


def _decide_points(
    facts: _Facts,
    told: dict[str, tuple[str, str | None]],
    parts: dict[str, dict[str, None]],
    skeletons: Counter[str],
    numbers: dict[str, Counter[int]],
) -> None:
    for label in parts:
        said = [name for name, (_, of) in told.items() if of == label]
        facts.parts[label] = tuple(dict.fromkeys([*said, *parts[label]]))
    for label, counts in numbers.items():
        (number, _), *others = counts.most_common()
        if others or number < 2:
            facts.skipped["points"] += counts.total()
        else:
            facts.counts[label] = number
    votes: Counter[tuple[str, ...] | int] = Counter()
    for label, n in skeletons.items():
        votes[facts.parts[label]] += n
    for label, number in facts.counts.items():
        votes[number] += numbers[label].total()
    if votes:
        # Of equally many those with names.
        winner = max(votes, key=lambda vote: (votes[vote], isinstance(vote, tuple)))
        facts.points = winner if isinstance(winner, int) else len(winner)
        sizes = {vote if isinstance(vote, int) else len(vote) for vote in votes}
        names = {vote for vote in votes if isinstance(vote, tuple) and len(vote) == facts.points}
        # Points without names beside named ones of the same number are taken for the same ones.
        if isinstance(winner, int) and len(names) == 1:
            (winner,) = names
        facts.keypoint_names = winner if isinstance(winner, tuple) else None
        facts.other_points = len(sizes) > 1 or len(names) > 1


def _take_meta(meta: Element, told: dict[str, tuple[str, str | None]], facts: _Facts) -> None:
    """Labels, and of a film the size and the last frame."""
    waiting = [meta]
    while waiting:
        element = waiting.pop(0)
        if element.tag == "label":
            texts = {child.tag: child.text.strip() for child in element.children}
            if name := texts.get("name"):
                told.setdefault(name, (texts.get("type", ""), texts.get("parent") or None))
            continue
        if element.tag == "original_size":
            sides = {child.tag: child.text.strip() for child in element.children}
            if all(_WHOLE.fullmatch(sides.get(side, "")) for side in ("height", "width")):
                size = int(sides["height"]), int(sides["width"])
                facts.film_size = size if min(size) > 0 else None
        elif element.tag == "stop_frame" and _WHOLE.fullmatch(element.text.strip()):
            facts.last_frame = int(element.text)
        waiting += element.children


# --- tracks ----------------------------------------------------------------------------------------------------------


class _Film:
    """The shapes of all tracks in flat arrays, to be had by frame."""

    def __init__(self) -> None:
        self.faults: dict[int, tuple[str, str]] = {}  # frame -> where a shape can't be used, and why
        self.strays: list[tuple[str, str]] = []  # shapes of no frame
        self._frame, self._track, self._line = array("i"), array("q"), array("i")
        self._what, self._extras = array("i"), array("i")
        self._occluded = array("b")
        self._numbers, self._begin = array("d"), array("q", [0])
        self._whats: dict[tuple[str, str, tuple[str, ...]], int] = {}
        self._known: dict[tuple[tuple[str, Any], ...], int] = {}

    def take(self, number: int, track: Element, element: Element) -> _Shape | None:
        """A shape of the track; None where none is there, or it can't be used."""
        said = element.attributes.get("frame", "")
        at = f"track[{number}]"
        if not _WHOLE.fullmatch(said) or int(said) >= _MOST_FRAMES:
            self.strays.append((at, f"line {element.line}: the frame is {said!r:.40}, wanted its number"))
            return None
        frame = int(said)
        try:
            label = _label(track)
            if _flag(element, "outside") == 1:
                return None
            id_ = track.attributes.get("id", "")
            shape = _shape(element, label=label)
        except _Fault as fault:
            self.faults.setdefault(frame, (at, f"line {fault.line}: {fault}"))
            return None
        if shape is None:
            self.faults.setdefault(frame, (at, f"line {element.line}: <{element.tag:.40}> is no shape that is known"))
            return None
        if shape.kind == "skeleton" and not any(shape.numbers[2::3]):
            return None  # all of it is outside
        if group := track.attributes.get("group_id"):
            shape.extras = (*shape.extras, ("group_id", _id(group)))
        shape.track = int(id_) if _WHOLE.fullmatch(id_) else number
        self._frame.append(frame)
        self._track.append(shape.track)
        self._line.append(min(shape.line, (1 << 31) - 1))
        self._what.append(self._whats.setdefault((shape.kind, shape.label, shape.parts), len(self._whats)))
        self._extras.append(self._known.setdefault(shape.extras, len(self._known)))
        self._occluded.append(shape.occluded)
        self._numbers.extend(shape.numbers)
        self._begin.append(len(self._numbers))
        return shape

    def close(self) -> None:
        """All is read."""
        frames = np.asarray(self._frame)
        self._order = np.argsort(frames, kind="stable")
        self._sorted = frames[self._order]
        self.numbers = np.unique(self._sorted)
        self._what_of, self._extras_of = list(self._whats), list(self._known)

    def shapes(self, frame: int) -> list[_Shape]:
        """Those of a frame, in the order of the tracks."""
        low, high = np.searchsorted(self._sorted, [frame, frame + 1])
        made = []
        for row in self._order[low:high].tolist():
            kind, label, parts = self._what_of[self._what[row]]
            numbers = self._numbers[self._begin[row] : self._begin[row + 1]].tolist()
            extras = self._extras_of[self._extras[row]]
            made.append(
                _Shape(kind, label, numbers, self._occluded[row], extras, self._line[row], parts, self._track[row])
            )
        return made


def _frames_in(folder: Path) -> dict[int, list[str]]:
    """The files frame_000012.png and the like in a folder, by their number. Raises StorageError."""
    found: dict[int, list[str]] = {}
    try:
        with paths.scandir(folder) as entries:
            for entry in entries:
                match = _FRAME.fullmatch(entry.name)
                extension = entry.name.rpartition(".")[2].lower()
                if match and extension in walking.IMAGE_EXTENSIONS and int(match[1]) < _MOST_FRAMES:
                    found.setdefault(int(match[1]), []).append(entry.name)
    except OSError as error:
        raise StorageError(f"{folder}: can't be listed: {(error.strerror or str(error)).lower()}") from error
    for names in found.values():
        names.sort()
    return found


# --- one element -----------------------------------------------------------------------------------------------------


def _shape(element: Element, *, label: str | None = None) -> _Shape | None:
    """The shape that an element is, None where it is none. Raises _Fault."""
    kind = element.tag
    if kind not in _SHAPES:
        return None
    label = _label(element) if label is None else label
    parts: tuple[str, ...] = ()
    if kind == "box":
        numbers = [_number(element, name) for name in ("xtl", "ytl", "xbr", "ybr")] + [_rotation(element)]
    elif kind == "ellipse":
        numbers = [_number(element, name) for name in ("cx", "cy", "rx", "ry")] + [_rotation(element)]
    elif kind == "mask":
        numbers = [float(_whole(element, name)) for name in ("left", "top", "width", "height")]
        runs = [run.strip() for run in element.attributes.get("rle", "").split(",")]
        if not all(map(_WHOLE.fullmatch, runs)):
            raise _Fault(element.line, f"rle is {element.attributes.get('rle')!r:.40}, wanted whole numbers")
        numbers += map(float, runs)
    elif kind == "skeleton":
        seen: dict[str, list[float]] = {}
        for child in element.children:
            if child.tag == "points":
                x_y = _points(child)
                if len(x_y) != 2:
                    raise _Fault(child.line, f"a part of a skeleton has {len(x_y) // 2} points, wanted one")
                v = 0 if _flag(child, "outside") == 1 else 1 if _flag(child, "occluded") == 1 else 2
                if (part := _label(child)) in seen:
                    raise _Fault(child.line, f"the skeleton has its part {part!r:.40} twice")
                seen[part] = [*x_y, v] if v else [0, 0, 0]
            elif child.tag != "attribute":
                raise _Fault(child.line, f"a part of a skeleton is <{child.tag:.40}>, wanted <points>")
        parts = tuple(seen)
        numbers = [number for of in seen.values() for number in of]
    else:
        numbers = _points(element)
        if kind == "polygon" and len(numbers) < 6:
            raise _Fault(element.line, f"a polygon of {len(numbers) // 2} points, wanted three and more")
    return _Shape(kind, label, numbers, _flag(element, "occluded"), _extras(element), element.line, parts)


def _object(shape: _Shape, facts: _Facts, size: tuple[int, int] | None) -> _Object:
    """Box, mask and keypoints of a shape in an image of `size`. Raises _Fault."""
    k, numbers = facts.points, np.array(shape.numbers, np.float64)
    none = np.zeros((k, 3), np.float32)
    if shape.kind == "mask":
        left, top, width, height = (int(number) for number in numbers[:4])
        mask = _mask(shape, numbers[4:].astype(np.int64), (left, top, width, height), size)
        return _Object((left, top, left + width, top + height), mask, none, 0)
    if shape.kind == "box" and not _is_turned(shape):
        return _Object(tuple(shape.numbers[:4]), None, none, 0)  # type: ignore[arg-type]
    if shape.kind in ("box", "ellipse"):
        polygon = _turned_box(*numbers) if shape.kind == "box" else _ellipse(*numbers)
        return _Object(_around(polygon), Mask(polygons=(polygon.astype(np.float32),)), none, 0)
    if shape.kind == "polygon":
        polygon = numbers.reshape(-1, 2)
        return _Object(_around(polygon), Mask(polygons=(polygon.astype(np.float32),)), none, 0)
    if shape.kind == "points":
        v = 1 if shape.occluded == 1 else 2
        points = np.insert(numbers.reshape(-1, 2), 2, v, axis=1).astype(np.float32)
        fits = len(points) == k
    else:
        parts = facts.parts[shape.label]
        fits = parts == facts.keypoint_names
        points = np.zeros((len(parts), 3), np.float32)
        points[[parts.index(part) for part in shape.parts]] = numbers.reshape(-1, 3)
    labelled = points[points[:, 2] > 0]
    box = _around(labelled[:, :2].astype(np.float64)) if len(labelled) else (0.0, 0.0, 0.0, 0.0)
    return _Object(box, None, points if fits else none, 0 if fits else len(labelled))


def _mask(
    shape: _Shape, runs: NDArray[np.int64], place: tuple[int, int, int, int], size: tuple[int, int] | None
) -> Mask:
    """The runs of the whole image of what covers a part of it. Raises _Fault."""
    from headrace.imaging.codec import MAX_PIXELS  # here, as OpenCV takes longer to import than all sources
    from headrace.imaging.masks import encode_runs

    left, top, width, height = place
    if size is None:
        raise _Fault(shape.line, "a mask in an image without width and height")
    if size[0] * size[1] > MAX_PIXELS:
        raise _Fault(shape.line, f"a mask in an image of {size[1]} x {size[0]} pixels, wanted at most {MAX_PIXELS}")
    if not (width and height and left + width <= size[1] and top + height <= size[0]):
        raise _Fault(
            shape.line, f"a mask of {width} x {height} pixels at {left}, {top} of {size[1]} x {size[0]} pixels"
        )
    if len(runs) > width * height + 1 or runs.sum() != width * height:
        raise _Fault(shape.line, f"the runs of a mask sum to {runs.sum()}, wanted {width} x {height} pixels")
    covered = np.zeros(size, np.bool_)
    covered[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(
        height, width
    )
    return Mask(runs=encode_runs(covered), size=size)


def _turned_box(x0: float, y0: float, x1: float, y1: float, degrees: float) -> NDArray[np.float64]:
    """Corners [4, 2] of a box turned clockwise around its middle."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return _turn(corners, degrees)


def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float) -> NDArray[np.float64]:
    """Points [64, 2] of an ellipse around x, y, turned clockwise."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    return _turn(np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1), degrees)


def _turn(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Points [m, 2] turned clockwise (y goes down) around the middle of their extent."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    turned: NDArray[np.float64] = (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    return turned


def _is_turned(shape: _Shape) -> bool:
    return shape.kind == "box" and shape.numbers[4] % 360 != 0


def _around(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def _attributes(shapes: list[_Shape]) -> dict[str, list[Any]]:
    """Lists with a value for each shape."""
    said = [dict(shape.extras) for shape in shapes]
    made: dict[str, list[Any]] = {
        name: [of.get(name, -1 if name in _FLAGS else None) for of in said]
        for name in dict.fromkeys(name for of in said for name in of)
    }
    made["occluded"] = [shape.occluded for shape in shapes]
    if any(shape.track is not None for shape in shapes):
        made["track"] = [shape.track for shape in shapes]
    return made


def _extras(element: Element) -> tuple[tuple[str, Any], ...]:
    """What an element says beside its place: its own attributes, and those that stand in it."""
    found: dict[str, Any] = {
        child_name: _yes_or_no(child_name, child.text)
        for child in element.children
        if child.tag == "attribute" and (child_name := _attribute_name(child)) not in ("", "occluded", "track")
    }
    for name, value in element.attributes.items():
        if name not in _KNOWN:
            found[name] = _id(value) if name in ("z_order", "group_id") else value
        if name == "rotation":
            found[name] = _rotation(element)
    return tuple(found.items())


def _attribute_name(element: Element) -> str:
    return re.sub(r"\W+", "_", element.attributes.get("name", "").strip().lower())


def _yes_or_no(name: str, text: str) -> Any:
    return _YES_OR_NO.get(text.strip().lower(), -1) if name in _FLAGS else text


def _split(subset: str) -> str:
    """The split that a subset is; CVAT offers Train, Validation and Test."""
    return split_of_folder(subset) or subset


def _id(text: str) -> int | str:
    """A number that counts things, or the text where it is none."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII) else text


def _label(element: Element) -> str:
    label = element.attributes.get("label", "")
    if fault := name_fault(label):
        raise _Fault(element.line, f"the label {fault}")
    return label


def _size(element: Element) -> tuple[int, int] | None:
    """(height, width) of an image; None where it doesn't say both. Raises _Fault."""
    if not {"width", "height"} & element.attributes.keys():
        return None
    height, width = _whole(element, "height"), _whole(element, "width")
    if not (height and width):
        raise _Fault(element.line, f"the size is {width} x {height}, wanted width and height in pixels")
    return height, width


def _flag(element: Element, name: str) -> int:
    """0 or 1, -1 where the element doesn't say it. Raises _Fault."""
    said = element.attributes.get(name)
    if said is None:
        return -1
    if said not in ("0", "1"):
        raise _Fault(element.line, f"{name} is {said!r:.40}, wanted 0 or 1")
    return int(said)


def _whole(element: Element, name: str) -> int:
    said = element.attributes.get(name, "")
    if not _WHOLE.fullmatch(said):
        raise _Fault(element.line, f"{name} is {said!r:.40}, wanted a whole number")
    return int(said)


def _rotation(element: Element) -> float:
    return _number(element, "rotation") if "rotation" in element.attributes else 0.0


def _number(element: Element, name: str) -> float:
    return _finite(element, name, element.attributes.get(name, ""))


def _finite(element: Element, name: str, said: str) -> float:
    number = float(said) if _NUMBER.fullmatch(said.strip()) else math.nan
    if not abs(number) <= _LARGEST:
        raise _Fault(element.line, f"{name} is {said!r:.40}, wanted a number")
    return number


def _points(element: Element) -> list[float]:
    """x, y of each point, one after the other. Raises _Fault."""
    numbers: list[float] = []
    for pair in element.attributes.get("points", "").split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise _Fault(element.line, f"a point is {pair!r:.40}, wanted x,y")
        numbers += (_finite(element, "x of a point", x), _finite(element, "y of a point", y))
    return numbers
