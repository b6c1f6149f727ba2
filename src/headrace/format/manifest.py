"""The manifest: what a dataset consists of, versioned; and the side files that let other tools open the folder.

What the versions of a dataset say of each other is left to versions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import DamageError, NotThereError, StorageError, UsageError
from headrace.place import publish
from headrace.place.address import Place, reason

FILE = "headrace.json"
FORMAT_VERSION = 1
INDEX_FILE = "headrace.index"  # of the version that was packed, and so are the next two
CATALOG_FILE = "catalog.parquet"
REJECTS_FILE = "rejects.jsonl"
LABEL_MAP_FILE = "label_map.pbtxt"
INFO_FILE = "dataset_info.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What is known of a shard that someone else wrote: its `version` (see Place) and the sha256 (hex) of its `ends`
    tell a file that was changed since, `skipped` are the (begin, end) of its bytes that are no sound record."""

    version: str
    ends: str
    skipped: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard: its file `name`, split, number of records, size in bytes and sha256 (hex).

    The `name` of a shard that was adopted is a path from the dataset's folder, an absolute one or a URL, and its
    `sha256` that of lengths and CRCs of all its records in their order, which stand for their content. `crc32c`: of the
    whole file; None of one that was adopted. `since`: the version of the dataset that it was added in.
    """

    name: str
    split: str
    records: int
    bytes: int
    sha256: str
    crc32c: int | None = None
    foreign: Foreign | None = None
    since: int = 1

    @property
    def index_name(self) -> str:
        """The name of its index file, `offset length` lines."""
        return self.name.removesuffix(".tfrecord") + ".idx"

    def change(self, place: Place) -> str | None:
        """What shows that a file of someone else is not the one that was adopted; None when nothing does."""
        if self.foreign is None:
            return None
        try:
            size = place.size(self.name)
            if size != self.bytes:
                return f"{size} bytes, it had {self.bytes}"
            if place.version(self.name) != self.foreign.version and place.digest_ends(self.name) != self.foreign.ends:
                return "written to since, and it begins or ends with other bytes"
        except OSError as error:
            return reason(error)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that a reader needs to trust a dataset: written last, so a folder without it is no dataset.

    `classes`, `box_classes`: names in index order. `channels`: 1 when every image is grey, else 3. `files`: sha256 of
    every other file, `crc32c` of those that are checked whenever they are opened: index and catalog. `numbered`: ids
    are mere positions, in an array or in shards whose records say none, and mean nothing elsewhere. `multi_label`: an
    image may have several classes; `values`: some have a number to be predicted. `boxes`: how many
    are stored, None where the source says nothing of boxes. `boxes_clipped`: those that were cut because they reached
    out of their image; `boxes_dropped`: reason -> boxes left out. `keypoints`: how many an object has, 0 where there
    are none; `keypoint_names` is empty when nobody said them, `flip_pairs` are the pairs of numbers that a mirror
    swaps, `keypoints_dropped`: reason -> labelled keypoints left out. `pack_options`: what a record went through, and
    what `predict` puts raw images through again. `adopted`: None for a packed dataset; else the `layout` of the
    records, the `map` of their keys, and the folder of `images` that they only name. `folder`: the folder below the
    dataset's place in which all of its files but this one lie: none ("") but for one that replaced another in a store.

    `version`: 1 as it was packed, one more with each edit. `parent`: sha256 (hex) of the manifest's file before this
    one; `edit`: {by, at, why, what}, see versions.Version. `index`, `catalog` and `rejects` are the names of these
    files. `stored` counts all rows that there are, `dropped` those of them that are left out of this version.
    `split_records`: records per split, where the catalog says which split a record is in; None where its shard does.
    """

    format_version: int = FORMAT_VERSION
    headrace_version: str
    seen: int
    stored: int
    rejected: int
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    channels: int
    shards: tuple[ShardEntry, ...]
    pack_options: Mapping[str, Any]
    schema: Mapping[str, str]
    boxes: int | None = None
    boxes_clipped: int = 0
    boxes_dropped: Mapping[str, int] = field(default_factory=dict)
    keypoints: int = 0
    keypoint_names: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    keypoints_dropped: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    crc32c: Mapping[str, int] = field(default_factory=dict)
    numbered: bool = False
    multi_label: bool = False
    values: bool = False
    adopted: Mapping[str, Any] | None = None
    folder: str = ""
    version: int = 1
    parent: str = ""
    edit: Mapping[str, Any] | None = None
    index: str = INDEX_FILE
    catalog: str = CATALOG_FILE
    rejects: str = REJECTS_FILE
    dropped: int = 0
    split_records: Mapping[str, int] | None = None

    @property
    def splits(self) -> dict[str, int]:
        """Records per split, in the order they were asked for; none without a record but where there never was one."""
        if self.split_records is None:
            return self.shard_splits
        return {split: n for split, n in self.split_records.items() if n}

    @property
    def shard_splits(self) -> dict[str, int]:
        """Records per split as they lie in the shards, which is what others read."""
        out: dict[str, int] = {}
        for shard in self.shards:
            out[shard.split] = out.get(shard.split, 0) + shard.records
        return out

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) that stands for all content of this version."""
        parts = [self.files[self.catalog], *(entry.sha256 for entry in self.shards)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def tables(self) -> tuple[str, str]:
        """The files that are checked whenever they are opened."""
        return self.index, self.catalog

    def to_bytes(self) -> bytes:
        """JSON whose last value, `sha256`, is that of the same bytes with this value empty."""
        unsigned = _text(self, sha256="")
        return _text(self, sha256=hashlib.sha256(unsigned).hexdigest())


def read(place: Place, version: int | None = None) -> Manifest:
    """The manifest of the dataset in a place, by default of the version that holds now.

    Raises NotThereError (no such folder), UsageError (no dataset, another format, no such version), DamageError
    (unreadable, or not the bytes that were written).
    """
    if version is not None and type(version) is not int:
        raise UsageError(f"version is {version!r:.60}, wanted the number of one")
    found = parsed(content(place), place.path / FILE)
    if version is None or version == found.version:
        return found
    if not 1 <= version < found.version:
        there = f"versions 1 to {found.version}" if found.version > 1 else "one version, 1"
        raise UsageError(f"{place.path}: has no version {version}; it has {there}")
    earlier = parsed(kept(place.within(found.folder), version), place.path / kept_name(version))
    if earlier.version != version:
        raise DamageError(f"{place.path / kept_name(version)}: is version {earlier.version}, wanted {version}")
    return earlier


def kept_name(version: int) -> str:
    """Where the manifest of a version stands, beside the dataset's files, once there is a later one."""
    return f"versions/{version:04d}.json"


def kept(place: Place, version: int) -> bytes:
    """The manifest of an earlier version, in the place of the dataset's files. Raises DamageError, StorageError."""
    name = kept_name(version)
    try:
        return place.content(name, _MOST_BYTES)
    except FileNotFoundError:
        raise DamageError(f"{place.address(name)}: is not there, and later versions were made of it") from None
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{place.address(name)}: can't be read: {reason(error)}") from error


def content(place: Place) -> bytes:
    """The manifest's bytes as they are now. Raises NotThereError, UsageError, StorageError."""
    path, folder = place.path / FILE, place.path
    place.forget(FILE)  # it may have been replaced since
    try:
        return place.content(FILE, _MOST_BYTES)
    except FileNotFoundError:
        if not place.exists():
            left = publish.replaced_beside(folder) if isinstance(folder, Path) else None
            advice = "" if left is None else f"; the dataset that stood there is {left}: rename it to {folder}"
            raise NotThereError(f"{folder}: no such folder{advice}") from None
        raise UsageError(
            f"{folder}: not a packed dataset (it has no {FILE}); make one with 'headrace pack' or 'adopt'"
        ) from None
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: can't be read: {error.strerror}") from error


def parsed(data: bytes, path: object) -> Manifest:
    """The manifest of these bytes, which are the file `path`. Raises UsageError (another format), DamageError."""
    try:
        raw = json.loads(data)
        version = raw["format_version"]
        if version != FORMAT_VERSION or type(version) is not int:
            raise UsageError(
                f"{path}: format {version!r}, this headrace reads format {FORMAT_VERSION}; "
                "use the headrace that packed it, or pack it again"
            )
        sha256 = raw.pop("sha256")
        if hashlib.sha256(data.replace(f'"{sha256}"'.encode(), b'""')).hexdigest() != sha256:
            raise ValueError("its sha256 is not the one it holds")
        for name in ("classes", "box_classes", "keypoint_names", "shards"):
            if not isinstance(raw[name], list):
                raise ValueError(f"{name} is {raw[name]!r:.80}, no list")
        raw["shards"] = tuple(_entry(entry) for entry in raw["shards"])
        raw["classes"], raw["box_classes"] = tuple(raw["classes"]), tuple(raw["box_classes"])
        raw["keypoint_names"] = tuple(raw["keypoint_names"])
        raw["flip_pairs"] = tuple((i, j) for i, j in raw["flip_pairs"])
        found = Manifest(**raw)
        _check(found)
        return found
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamageError(f"{path}: not a sound manifest ({error}); pack the dataset again") from error


def _check(found: Manifest) -> None:
    """Judges every value once. Raises ValueError."""

    def wants(good: bool, what: str, value: object) -> None:
        if not good:
            raise ValueError(f"{what} is {value!r:.80}")

    counts = ("seen", "stored", "rejected", "boxes_clipped", "keypoints")
    for name in counts:
        wants(_is_count(getattr(found, name)), name, getattr(found, name))
    wants(found.boxes is None or _is_count(found.boxes), "boxes", found.boxes)
    wants(found.seen == found.stored + found.rejected, "the number of records seen", found.seen)
    wants(found.channels in (1, 3) and type(found.channels) is int, "channels", found.channels)
    for name in ("numbered", "multi_label", "values"):
        wants(type(getattr(found, name)) is bool, name, getattr(found, name))
    wants(isinstance(found.headrace_version, str), "headrace_version", found.headrace_version)
    for name in ("classes", "box_classes", "keypoint_names"):
        texts = getattr(found, name)
        wants(all(isinstance(text, str) for text in texts) and len(set(texts)) == len(texts), name, texts)
    k = found.keypoints
    wants(k <= _MOST_KEYPOINTS and len(found.keypoint_names) in (0, k), "the number of keypoints", k)
    wants(all(_is_count(i) and i < k for pair in found.flip_pairs for i in pair), "flip_pairs", found.flip_pairs)
    for name in ("boxes_dropped", "keypoints_dropped", "crc32c"):
        mapping = getattr(found, name)
        wants(isinstance(mapping, dict) and all(map(_is_count, mapping.values())), name, mapping)
    wants(isinstance(found.pack_options, dict), "pack_options", found.pack_options)
    wants(isinstance(found.schema, dict), "schema", found.schema)
    wants(isinstance(found.files, dict), "files", found.files)
    for name, sha256 in found.files.items():
        wants(_is_file_name(name), "the name of a file", name)
        wants(_is_digest(sha256), f"sha256 of {name}", sha256)
    for name in ("index", "catalog", "rejects"):
        wants(_is_file_name(getattr(found, name)), f"the name of {name}", getattr(found, name))
    for name in found.tables:
        wants(name in found.files and name in found.crc32c, f"the digest of {name}", None)
    wants(found.adopted is None or _is_adopted(found.adopted), "adopted", found.adopted)
    wants(_is_folder(found.folder), "folder", found.folder)
    wants(_is_count(found.version) and found.version >= 1, "version", found.version)
    wants(_is_digest(found.parent) if found.version > 1 else found.parent == "", "parent", found.parent)
    wants((found.edit is None) == (found.version == 1) and _is_edit(found.edit, found.version), "edit", found.edit)
    live = found.stored - found.dropped if _is_count(found.dropped) else -1
    wants(live >= 0, "the number of dropped records", found.dropped)
    if found.split_records is None:
        wants(not found.dropped, "the number of records per split", None)
    else:
        names, numbers = found.split_records.keys(), found.split_records.values()
        wants(all(map(_is_count, numbers)) and sum(numbers) == live, "the number of records per split", [*numbers])
        wants(all(name.isidentifier() for name in names), "a split", [*names])
    for entry in found.shards:
        since = entry.since
        wants(_is_count(since) and 1 <= since <= found.version, f"since of {entry.name}", since)
        adopted = found.adopted is not None and since == 1
        wants((entry.foreign is not None) == adopted, "foreign", entry.foreign)
        wants(_is_file_name(entry.name) if entry.foreign is None else _is_path(entry.name), "a shard", entry.name)
        wants(isinstance(entry.split, str) and entry.split.isidentifier(), "the split of a shard", entry.split)
        wants(_is_count(entry.records) and _is_count(entry.bytes), f"the size of {entry.name}", entry.records)
        wants(_is_digest(entry.sha256), f"sha256 of {entry.name}", entry.sha256)
        if entry.foreign is not None:
            skipped = entry.foreign.skipped
            wants(all(_is_count(a) and _is_count(b) and a <= b for a, b in skipped), "skipped", skipped)
            wants(_is_digest(entry.foreign.ends), "ends", entry.foreign.ends)
            wants(isinstance(entry.foreign.version, str), "the version of a shard", entry.foreign.version)
    wants(len({entry.name for entry in found.shards}) == len(found.shards), "a shard that occurs twice", found.shards)
    wants(sum(entry.records for entry in found.shards) == found.stored, "the number of records stored", found.stored)


# What a manifest leaves out.
_USUAL: Mapping[str, Any] = {
    "adopted": None,
    "folder": "",
    "version": 1,
    "parent": "",
    "edit": None,
    "index": INDEX_FILE,
    "catalog": CATALOG_FILE,
    "rejects": REJECTS_FILE,
    "dropped": 0,
    "split_records": None,
}
_MOST_KEYPOINTS = 100_000
_MOST_BYTES = 1 << 32  # of a manifest: what is larger is something else


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _is_file_name(value: object) -> bool:
    """Whether it names a file of the dataset's folder itself."""
    return isinstance(value, str) and _is_path(value) and "/" not in value and value not in (".", "..")


def _is_folder(value: object) -> bool:
    """Whether it is a folder below the dataset's place, or that itself."""
    return value == "" or (isinstance(value, str) and all(map(_is_file_name, value.split("/"))))


def _is_adopted(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("layout"), str)
        and isinstance(value.get("map"), dict)
        and (value.get("images") is None or _is_path(value["images"]))
    )


def _is_edit(value: object, version: int) -> bool:
    return value is None or (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("by", "at", "why"))
        and isinstance(value.get("what"), list)
        and bool(value["what"])
        and all(_is_done(one, version) for one in value["what"])
    )


def _is_done(value: object, version: int) -> bool:
    """Whether it can be a part of what an edit did that made this version: see versions.Version."""
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        return False
    ids, back = value.get("ids", []), value.get("version")
    goes_back = value["op"] in ("undo", "restore")
    return (
        isinstance(ids, list)
        and all(isinstance(one, str) for one in ids)
        and isinstance(value.get("where", ""), str)
        and _is_count(value.get("count", 0))
        and goes_back == (back is not None)
        and (back is None or (_is_count(back) and 1 <= back < version))
    )


def _entry(raw: dict[str, Any]) -> ShardEntry:
    if "foreign" in raw:
        known = raw["foreign"]
        raw["foreign"] = Foreign(**known | {"skipped": tuple((begin, end) for begin, end in known["skipped"])})
    return ShardEntry(**raw)


def _text(manifest: Manifest, *, sha256: str) -> bytes:
    raw = asdict(manifest) | {"sha256": sha256}
    # A packed dataset says nothing of adoption, of a folder that is its own, nor of versions.
    for name, usual in _USUAL.items():
        if raw[name] == usual:
            del raw[name]
    for entry in raw["shards"]:
        if entry["foreign"] is None:
            del entry["foreign"]
        if entry["since"] == 1:
            del entry["since"]
    return (json.dumps(raw, indent=1, ensure_ascii=False) + "\n").encode()


def side_files(manifest: Manifest, *, name: str) -> dict[str, bytes]:
    """File name -> content of what TFDS and the TF Object Detection API look for beside the shards."""
    files: dict[str, bytes] = {
        INFO_FILE: _json(_dataset_info(manifest, name)),
        "features.json": _json(_features(manifest)),
    }
    if manifest.classes:
        files["image.class.label.labels.txt"] = _lines(manifest.classes)
    if manifest.box_classes:
        files["objects-label.labels.txt"] = _lines(manifest.box_classes)
    names = manifest.box_classes or manifest.classes
    items = [f"item {{\n  id: {i}\n  name: {_quoted(n)}\n}}\n" for i, n in enumerate(names, start=1)]
    files[LABEL_MAP_FILE] = "".join(items).encode()
    return files


def _dataset_info(manifest: Manifest, name: str) -> dict[str, Any]:
    splits = []
    for split in manifest.shard_splits:
        shards = [shard for shard in manifest.shards if shard.split == split]
        splits.append(
            {
                "name": split,
                "shardLengths": [str(shard.records) for shard in shards],
                "numBytes": str(sum(shard.bytes for shard in shards)),
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.tfrecord",
            }
        )
    info: dict[str, Any] = {
        "name": re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "dataset",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": splits,
    }
    if manifest.classes or manifest.values:
        output = "image/class/label" if manifest.classes else "image/value"
        info["supervisedKeys"] = {"input": "image/encoded", "output": output}
    return info


def _features(manifest: Manifest) -> dict[str, Any]:
    shape = {"dimensions": ["-1", "-1", str(manifest.channels)]}
    # Flat names with slashes: nesting them would lose as_supervised and show_examples.
    features: dict[str, Any] = {
        "image/encoded": _feature("image_feature.Image", image={"shape": shape, "dtype": "uint8"}),
        "image/filename": _feature("text_feature.Text", text={}),
    }
    if manifest.classes:
        one = _class_label(manifest.classes)
        many = _feature("sequence_feature.Sequence", sequence={"length": "-1", "feature": one})
        features["image/class/label"] = many if manifest.multi_label else one
    if manifest.values:
        number = {"shape": {}, "dtype": "float32", "encoding": "none"}
        features["image/value"] = _feature("tensor_feature.Tensor", tensor=number)
    objects: dict[str, Any] = {}
    if manifest.box_classes:
        box = {"shape": {"dimensions": ["4"]}, "dtype": "float32", "bboxFormat": "REL_YXYX"}
        objects["bbox"] = _feature("bounding_boxes.BBoxFeature", boundingBox=box)
        objects["label"] = _class_label(manifest.box_classes)
    if manifest.keypoints:
        points = {"shape": {"dimensions": [str(manifest.keypoints), "3"]}, "dtype": "float32", "encoding": "none"}
        objects["keypoints"] = _feature("tensor_feature.Tensor", tensor=points)
    if objects:
        inner = _feature("features_dict.FeaturesDict", featuresDict={"features": objects})
        features["objects"] = _feature("sequence_feature.Sequence", sequence={"length": "-1", "feature": inner})
    return _feature("features_dict.FeaturesDict", featuresDict={"features": features})


def _feature(class_name: str, **body: Any) -> dict[str, Any]:
    return {"pythonClassName": f"tensorflow_datasets.core.features.{class_name}", **body}


def _class_label(names: Sequence[str]) -> dict[str, Any]:
    return _feature("class_label_feature.ClassLabel", classLabel={"numClasses": str(len(names))})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


def _quoted(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
