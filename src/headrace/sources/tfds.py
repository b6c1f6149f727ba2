"""Source `tfds`: a folder that TensorFlow Datasets wrote, read without TensorFlow.

    dataset_info.json  features.json  label.labels.txt  mydata-train.tfrecord-00000-of-00002 …

features.json says what the keys of records are, dataset_info.json which shards a split has and how many records each.
An image lies in its record: a Record says where in the shard. Boxes are REL_YXYX as TFDS writes them, or what else
features.json says: of the image as its bytes are stored, since TensorFlow's decoder turns none by its EXIF orientation.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.format import tfds as written
from headrace.format import tfrecord
from headrace.format.tfds import Info, Leaf
from headrace.place.address import Place
from headrace.place.local import Slices
from headrace.place.open import at
from headrace.record import Boxes, Part, Record, Reject, check_names
from headrace.sources import shards, values, walking
from headrace.sources.formats import About, Format, Option
from headrace.sources.info import SourceInfo

_IDS = ("image/filename", "image/id", "filename", "file_name", "image_id", "id", "tfds_id")
_IMAGES = ("image", "image/encoded")
_LABELS = ("label", "labels", "image/class/label")
_MOST_MISSING = 1_000_000  # records that a damaged dataset_info.json may miss, each a Reject
_ANY_SIZE = 1 << 62  # pixels: which image is too large is for packing to say


@dataclass(frozen=True, slots=True, kw_only=True)
class TfdsSource:
    """Iterable of Record | Reject; see `tfds`. `root` is the folder with the shards."""

    root: Path
    info: Info
    roles: _Roles

    def __iter__(self) -> Generator[Record | Reject, None, SourceInfo]:
        roles, skipped = self.roles, Counter[str]()
        inside, place = os.path.realpath(self.root), at(os.fspath(self.root))
        called = {split.name: shards.split_called(split.name) for split in self.info.splits}
        more: list[str] = []
        for split in self.info.splits:
            for name, records in split.shards:
                shard = _Shard(name, called[split.name], records)
                id_, unusable = walking.id_of(name)
                fault = unusable or walking.refusal(f"{self.root}/{id_}", inside)
                if fault is not None:
                    yield from shard.missing(0, fault)
                    continue
                seen = yield from self._shard(shard, place, skipped)
                if seen > records:
                    more.append(f"{name} has {seen} records, {written.INFO} says {records}")
                yield from shard.missing(seen, f"the shard ends, and {written.INFO} says it has {records} records")
        renamed = ", ".join(f"{name} ({to})" for name, to in called.items() if name != to)
        return SourceInfo(
            class_names=roles.names.get(roles.label) if roles.label is not None else None,
            box_class_names=roles.names.get(roles.box_label) if roles.box_label is not None else None,
            split_names=tuple(dict.fromkeys(called.values())),
            skipped=skipped,
            root=str(self.root),
            notes=(*([f"splits called otherwise here: {renamed}"] if renamed else ()), *more),
        )

    def _shard(self, shard: _Shard, place: Place, skipped: Counter[str]) -> Generator[Record | Reject, None, int]:
        """What a shard holds; returns how many records that is, those that are damaged too."""
        data = Slices(place, shard.name, place.size(shard.name))
        number = 0
        for piece in tfrecord.walk(data):
            if isinstance(piece, tfrecord.Gap):
                yield shard.reject(number, "read", f"byte {piece.offset}: {piece.reason}; no record up to {piece.end}")
            else:
                try:
                    payload = bytes(tfrecord.payload_at(data, *piece))
                except tfrecord.BadRecord as error:
                    yield shard.reject(number, "read", str(error))
                else:
                    yield self._record(shard, number, piece.offset + tfrecord.HEADER_BYTES, payload, skipped)
            number += 1
        return number

    def _record(self, shard: _Shard, number: int, begin: int, payload: bytes, skipped: Counter[str]) -> Record | Reject:
        from headrace.format import example  # here, as Polars and OpenCV take longer to import than all sources
        from headrace.imaging.codec import BadImage

        roles = self.roles
        found = example.message_without(payload, roles.image.encode())
        try:
            if found is None:
                features = example.message(payload)
                encoded = _image(features, roles.image)
                at = payload.index(encoded)
            else:
                features, at, length = found
                encoded = payload[at : at + length]
            fields = roles.fields(features, encoded, skipped)
        except BadImage as error:
            return shard.reject(number, error.stage, error.reason)
        except ValueError as error:
            return shard.reject(number, "annotation", str(error))
        return Record(
            id=roles.id_of(features) or shard.place(number),
            part=Part(f"{self.root}/{shard.name}", begin + at, len(encoded)),
            split=shard.split,
            origin=f"{shard.name}:{number}",
            **fields,
        )


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard by its name in the folder, and how many records dataset_info.json says it has."""

    name: str
    split: str
    records: int

    def place(self, number: int) -> str:
        """What TFDS itself calls a record (`tfds_id`)."""
        return f"{self.name}__{number}"

    def reject(self, number: int, stage: str, reason: str) -> Reject:
        return Reject(id=self.place(number), origin=f"{self.name}:{number}", stage=stage, reason=reason)

    def missing(self, seen: int, reason: str) -> Iterator[Reject]:
        """A Reject for each record from `seen` on, so that what is lost is counted as what it is."""
        if self.records - seen > _MOST_MISSING:
            raise DataError(f"{self.name}: {reason}; {self.records - seen} records are missing")
        for number in range(seen, self.records):
            yield self.reject(number, "read", reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """Which keys of records are what. `names`: of the classes of each ClassLabel that a file names; `objects`: what is
    said of each box; `rest`: what becomes attributes; `unused`: what can't."""

    image: str
    id: str | None
    label: str | None
    box: Leaf | None
    box_label: str | None
    objects: tuple[Leaf, ...]
    rest: tuple[Leaf, ...]
    unused: tuple[Leaf, ...]
    leaves: Mapping[str, Leaf]
    names: Mapping[str, tuple[str, ...]]

    def id_of(self, features: Mapping[str, Any]) -> str | None:
        if self.id is None:
            return None
        found = _values(features, self.id)
        if len(found) != 1:
            return None
        try:
            id_, unusable = walking.id_of(_text(found[0]) if isinstance(found[0], bytes) else str(found[0]))
        except ValueError:
            return None
        return None if unusable is not None or id_ == "." else id_

    def fields(self, features: Mapping[str, Any], encoded: bytes, skipped: Counter[str]) -> dict[str, Any]:
        """What of a Record these say. Raises ValueError, BadImage."""
        for leaf in self.unused:
            skipped[f"feature {leaf.key} ({leaf.kind})"] += 1
        out: dict[str, Any] = {}
        if self.label is not None:
            out |= self._label(self.leaves[self.label], _values(features, self.label))
        attributes: dict[str, Any] = {}
        captions: list[str] = []
        for leaf in self.rest:
            found = _values(features, leaf.key)
            value = self._one(leaf, found) if leaf.many == 0 else self._each(leaf, found, None)
            if leaf.kind == "Text" and leaf.key.rpartition("/")[2] in values.CAPTION_KEYS:
                captions += value if isinstance(value, list) else [] if value is None else [value]
            elif value is not None:
                attributes[leaf.key] = value
        if captions:
            out["captions"] = tuple(captions)
        if self.box is not None:
            boxes, size = self._boxes(_values(features, self.box.key), encoded)
            out |= {"boxes": boxes, "size": size}
            if self.box_label is not None:
                names = self._each(self.leaves[self.box_label], _values(features, self.box_label), len(boxes))
                if None in names and any(name is not None for name in names):
                    raise ValueError(f"{self.box_label}: object {names.index(None)} has no class, and others have")
                out["box_labels"] = None if None in names else tuple(names)
            prefix = self.box.key.rpartition("/")[0]
            columns = {
                leaf.key[len(prefix) + 1 :]: self._each(leaf, _values(features, leaf.key), len(boxes))
                for leaf in self.objects
            }
            attributes |= values.attributes_of(columns)
        out["attributes"] = attributes
        return out

    def _label(self, leaf: Leaf, found: list[Any]) -> dict[str, Any]:
        if leaf.many:
            names = self._each(leaf, found, None)
            return {"labels": tuple(dict.fromkeys(name for name in names if name is not None))}
        value = self._one(leaf, found)
        if value is None:
            return {}
        if leaf.kind != "ClassLabel":
            return {"value": float(value)} if isinstance(value, float) else values.fields_of_class(value, None)
        return {"label_name": value} if leaf.key in self.names else {"label": int(value)}

    def _boxes(self, found: list[Any], encoded: bytes) -> tuple[Boxes, tuple[int, int] | None]:
        """float32 [n, 4] x0, y0, x1, y1 in pixels, and (height, width) of the image where they were shares of it."""
        from headrace.imaging.codec import read_header

        assert self.box is not None
        if len(found) % 4 or not all(isinstance(one, float) and math.isfinite(one) for one in found):
            raise ValueError(f"{self.box.key} has {len(found)} numbers, wanted four finite ones of each box")
        corners: NDArray[np.float64] = np.array(found, np.float64).reshape(-1, 4)
        unit, order = box_format(self.box)
        if order == "YXYX":
            corners = corners[:, [1, 0, 3, 2]]
        elif order == "XYWH":
            corners[:, 2:] += corners[:, :2]
        size = None
        if unit == "REL":
            header = read_header(encoded, max_pixels=_ANY_SIZE)
            size = header.height, header.width
            corners = corners * np.array([size[1], size[0]] * 2)
        with np.errstate(over="ignore"):
            return corners.astype(np.float32), size

    def _one(self, leaf: Leaf, found: list[Any]) -> Any:
        """The value of a feature that is in no sequence, None where it isn't there."""
        if not found:
            return None
        made = self._each(leaf, found, None)
        if len(made) != 1:
            raise ValueError(f"{leaf.key} has {len(found)} values, wanted those of one {leaf.kind}")
        return made[0]

    def _each(self, leaf: Leaf, found: list[Any], n: int | None) -> list[Any]:
        """The values of a feature in a sequence, `n` of them if that is known. Raises ValueError."""
        size = math.prod(shape) if (shape := _shape(leaf)) is not None else 1
        if len(found) % max(size, 1) or (n is not None and len(found) != n * size):
            raise ValueError(f"{leaf.key} has {len(found)} values, wanted {size} each{'' if n is None else f' of {n}'}")
        if leaf.kind == "ClassLabel":
            return [self._class(leaf, number) for number in found]
        made = [_text(one) if isinstance(one, bytes) else one for one in found]
        if written.get(written.get(leaf.said, "tensor"), "dtype") == "bool":
            made = [bool(one) for one in made]
        made = [None if isinstance(one, float) and not math.isfinite(one) else one for one in made]
        return made if not shape else _nested(made, shape)

    def _class(self, leaf: Leaf, number: Any) -> str | None:
        names = self.names.get(leaf.key)
        if number == -1:  # how TFDS says that there is none
            return None
        if not isinstance(number, int) or number < 0 or (names is not None and number >= len(names)):
            of = "" if names is None else f", and there are {len(names)}"
            raise ValueError(f"{leaf.key} is {number!r:.40}, wanted the number of a class{of}")
        return str(number) if names is None else names[number]


def box_format(leaf: Leaf) -> tuple[str, str]:
    """("REL" or "ABS", the order of a box's numbers) of a BBoxFeature. Raises ValueError: none that is known."""
    said = str(written.get(written.get(leaf.said, "bounding_box"), "bbox_format") or "REL_YXYX")
    unit, _, order = said.partition("_")
    if unit not in ("REL", "ABS") or order not in ("XYXY", "YXYX", "XYWH"):
        raise ValueError(f"boxes of {leaf.key} are {said}, wanted REL or ABS and XYXY, YXYX or XYWH")
    return unit, order


def _image(features: Mapping[str, Any], key: str) -> bytes:
    found = _values(features, key)
    if len(found) != 1 or not isinstance(found[0], bytes) or not found[0]:
        raise ValueError(f"{key} has no image")
    return found[0]


def _values(features: Mapping[str, Any], key: str) -> list[Any]:
    """The values of a key, none where a record hasn't got it."""
    if key not in features:
        return []
    feature = features[key]
    kind = feature.WhichOneof("kind")
    return [] if kind is None else list(getattr(feature, kind).value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the text {value[:40]!r} is no UTF-8") from None


def _shape(leaf: Leaf) -> tuple[int, ...] | None:
    """The shape of a Tensor; None for one whose size a record doesn't tell, and for what is none."""
    if leaf.kind not in ("Tensor", "Scalar"):
        return None
    dimensions = written.get(written.get(written.get(leaf.said, "tensor"), "shape"), "dimensions", [])
    try:
        shape = tuple(int(one) for one in dimensions)
    except (TypeError, ValueError):
        return None
    return shape if all(0 <= one < 1 << 20 for one in shape) else None


def _usable(leaf: Leaf) -> bool:
    """Whether the values of a feature can be told from a record."""
    if leaf.many > 1:
        return False
    if leaf.kind in ("Tensor", "Scalar"):
        encoding = written.get(written.get(leaf.said, "tensor"), "encoding") or "none"
        return _shape(leaf) is not None and encoding == "none"
    return leaf.kind in ("Text", "ClassLabel")


def _nested(found: list[Any], shape: Sequence[int]) -> list[Any]:
    for n in reversed(shape):
        found = [found[i : i + n] for i in range(0, len(found), n)] if n else []
    return found


def tfds(path: str | os.PathLike[str], *, image: str | None = None, label: str | None = None) -> TfdsSource:
    """Images of the dataset in the folder `path`, of all its splits: one of a version (`mydata/1.0.0`), or the one
    above it where there is but one.

    image: the feature that is the image; by default the only one, what as_supervised takes for input, or `image`.
    label: that of its class: a ClassLabel, several (Sequence), or a float, which is a value; by default what
    as_supervised takes for output, `label`, or the only ClassLabel. A ClassLabel of -1 is no label. The first
    BBoxFeature is the boxes, a ClassLabel beside it in its sequence theirs; what else is said of each, and all other
    texts, classes, numbers and tensors, become attributes, captions what is called so. Features that can't be told
    from a record (further images, video, audio, sequences in sequences) are counted. validation is called val.

    Ids are what a feature such as `image/filename` says, else `shard__number`, as TFDS has it (`tfds_id`); origins are
    `shard:number`. A record that is damaged, or missing of those that dataset_info.json counts, is a Reject.
    Raises NotThereError, StorageError, UsageError (no such dataset; array_record files; an option).
    """
    root = _folder(walking.check_root(path))
    try:
        info, leaves = written.info(at(os.fspath(root))), written.features(at(os.fspath(root)))
    except OSError as error:
        raise StorageError(f"{error.filename or root}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{root}: no dataset of TFDS that can be read: {str(error)[:200]}") from None
    if info.file_format != "tfrecord":
        raise UsageError(
            f"{root}: its shards are {info.file_format}, wanted tfrecord; write it again with file_format='tfrecord'"
        )
    if not any(split.shards for split in info.splits):
        raise UsageError(f"{root}: {written.INFO} says no split with shards")
    return TfdsSource(root=root, info=info, roles=_roles(root, info, leaves, image, label))


def _folder(root: Path) -> Path:
    """The folder with the shards. Raises NotThereError, UsageError."""
    if (root / written.INFO).is_file():
        return root
    below = [name for name in walking.folders_in(root) if (root / name / written.INFO).is_file()]
    if not below:
        raise NotThereError(f"{root / written.INFO}: no such file; wanted a folder that TensorFlow Datasets wrote")
    if len(below) > 1:
        raise UsageError(f"{root}: holds several, {', '.join(below)}; pass one of them, as in {root / below[-1]}")
    return root / below[0]


def _roles(root: Path, info: Info, leaves: Sequence[Leaf], image: str | None, label: str | None) -> _Roles:
    """Raises UsageError."""
    by_key = {leaf.key: leaf for leaf in leaves}
    has = ", ".join(f"{leaf.key} ({leaf.kind})" for leaf in leaves)[:500] or "none"
    images = [leaf.key for leaf in leaves if leaf.kind == "Image" and not leaf.many]
    supervised = info.supervised or ("", "")
    if image is None:
        image = next((key for key in (supervised[0], *_IMAGES) if key in images), None)
        if image is None and len(images) == 1:
            image = images[0]
    if image is None and len(images) > 1:
        raise UsageError(f"{root}: several features are images, {', '.join(images)}; pass image=NAME")
    if image is None or image not in images:
        raise UsageError(
            f"{root}: {'no feature is an Image' if image is None else f'image={image!r} is no Image'}; it has {has}"
        )
    box = next((leaf for leaf in leaves if leaf.kind == "BBoxFeature" and leaf.many < 2), None)
    prefix = f"{box.key.rpartition('/')[0]}/" if box is not None and box.many and "/" in box.key else None
    beside = [leaf for leaf in leaves if prefix is not None and leaf.key.startswith(prefix) and leaf is not box]
    classes = [leaf.key for leaf in leaves if leaf.kind == "ClassLabel" and leaf.many < 2 and leaf not in beside]
    if label is None:
        output = by_key.get(supervised[1])
        if output is not None and output not in beside and _is_target(output):
            label = output.key
        else:
            label = next((key for key in _LABELS if key in classes), None)
        if label is None and len(classes) > 1:
            raise UsageError(f"{root}: several features are classes, {', '.join(classes)}; pass label=NAME")
        label = label or next(iter(classes), None)
    elif label not in by_key or not _is_target(by_key[label]):
        raise UsageError(f"{root}: no ClassLabel or number {label!r}; it has {has}")
    named = [leaf.key for leaf in beside if leaf.kind == "ClassLabel" and leaf.many == 1]
    box_label = next((key for key in named if key == f"{prefix}label"), next(iter(named), None))
    id_ = next((key for key in _IDS if key in by_key and _is_scalar(by_key[key])), None)
    taken = {image, id_, label, box_label, None if box is None else box.key}
    left = [leaf for leaf in leaves if leaf.key not in taken]
    names: dict[str, tuple[str, ...]] = {}
    try:
        if box is not None:
            box_format(box)
        for leaf in leaves:
            if leaf.kind == "ClassLabel" and (found := written.class_names(at(os.fspath(root)), leaf)) is not None:
                names[leaf.key] = check_names(found, f"{root / leaf.names_file}:")
    except OSError as error:
        raise StorageError(f"{root}: {error.filename}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise UsageError(f"{root}: {error}") from None
    return _Roles(
        image=image,
        id=id_,
        label=label,
        box=box,
        box_label=box_label,
        objects=tuple(leaf for leaf in left if leaf in beside and _usable(leaf)),
        rest=tuple(leaf for leaf in left if leaf not in beside and _usable(leaf)),
        unused=tuple(leaf for leaf in left if not _usable(leaf)),
        leaves=by_key,
        names=names,
    )


def _is_scalar(leaf: Leaf) -> bool:
    return not leaf.many and (leaf.kind == "Text" or (leaf.kind in ("Tensor", "Scalar") and _shape(leaf) == ()))


def _is_target(leaf: Leaf) -> bool:
    return (leaf.kind == "ClassLabel" and leaf.many < 2) or (leaf.kind != "Text" and _is_scalar(leaf))


def recognise(path: Path) -> str | None:
    """What tells that TensorFlow Datasets wrote the folder `path`, None when nothing does. Raises StorageError."""
    if not path.is_dir():
        return None
    for folder in (path, *(path / name for name in walking.folders_in(path)[:16])):
        if (folder / written.INFO).is_file() and (folder / written.FEATURES).is_file():
            where = "" if folder == path else f"{folder.name}/"
            return f"{where}{written.INFO} and {where}{written.FEATURES} are there"
    return None


FORMAT = Format(
    name="tfds",
    reads="A folder that TensorFlow Datasets wrote",
    takes="folder",
    make=tfds,
    recognise=recognise,
    options=(
        Option(name="image", type=str, help="Which of several is the image: its extension, column or feature."),
        Option(name="label", type=str, help="The column, or feature, of classes."),
    ),
    example=("mydata/1.0.0", {}),
    about=About(
        recognised=(
            "dataset_info.json and features.json, as TensorFlow Datasets writes them. To use its shards "
            "where they lie, without packing: headrace adopt."
        ),
        kept=(
            "the image by its part of the record, ClassLabels with their names, several of them, a float as "
            "value, BBoxFeatures with their labels, captions; other texts, classes, numbers and tensors as "
            "attributes; its splits (validation is val)."
        ),
        refused=(
            "a record that is damaged, or missing of those that dataset_info.json counts. array_record "
            "files: write tfrecord."
        ),
        sample=(
            "mydata/1.0.0/\n"
            "  dataset_info.json  features.json  label.labels.txt\n"
            "  mydata-train.tfrecord-00000-of-00002"
        ),
    ),
)
