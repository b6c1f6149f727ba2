"""Layouts of records that are known: recognised by their keys, or by a features.json beside the shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace.adopting.mapping import Map
from headrace.adopting.schema import Schema
from headrace.errors import UsageError
from headrace.format import tfds
from headrace.place.address import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A layout that was recognised: its name, its map, and what had to be assumed. `folder` has its side files."""

    name: str
    map: Map
    notes: tuple[str, ...] = ()


def recognise(schema: Schema, folders: Sequence[Place]) -> Layout | None:
    """The known layout that these keys are, with the help of a features.json in one of `folders`; None for none."""
    has = schema.has
    if has("image/encoded", "bytes") or (has("image/filename", "bytes") and has("image/width", "int64")):
        return _image_encoded(schema)
    for folder in folders:
        found = _from_features_json(folder, schema)
        if found is not None:
            return found
    if not (has("image", "bytes") and schema.keys["image"].is_image):
        return None
    label = next((key for key in ("label", "class") if has(key, "int64", "bytes")), None)
    boxes = ("objects/bbox",) if has("objects/bbox", "float") else ()
    if label is None and not boxes:
        return None
    name = "TensorFlow Datasets" if label != "class" else "image and class"
    return Layout(
        name=f"{name}, detection" if boxes else name,
        map=Map(
            image="image",
            id=_first(schema, "image/filename", "image/id", "filename", "id"),
            label=label,
            boxes=boxes,
            box_order="yxyx",
            box_labels="objects/label" if boxes and has("objects/label", "int64") else None,
        ),
    )


def _first(schema: Schema, *keys: str) -> str | None:
    return next((key for key in keys if schema.has(key, "bytes", "int64")), None)


def _image_encoded(schema: Schema) -> Layout:
    """visipedia's keys, the TF Object Detection API's, and the few of them that most others write."""
    has = schema.has
    corners = tuple(f"image/object/bbox/{name}" for name in ("xmin", "ymin", "xmax", "ymax"))
    boxes = corners if all(has(key) for key in corners) else ()
    notes: list[str] = []
    box_labels, text, start = None, None, 0
    first: int | None = 0
    name = "image/encoded"
    if has("image/object/bbox/label", "int64"):
        name, box_labels = "visipedia", "image/object/bbox/label"
        text = _text_key(schema, "image/object/bbox/text", "image/object/class/text")
        notes.append("image/object/bbox/label counts classes from 0, as visipedia writes it")
    elif boxes or has("image/object/class/label"):
        name = "TF Object Detection"
        text = _text_key(schema, "image/object/class/text")
        if has("image/object/class/label", "int64"):
            box_labels, first = "image/object/class/label", None
        elif text is not None:
            box_labels, text = text, None
    points: tuple[str, ...] = ()
    for keys in (
        ("image/object/keypoint/x", "image/object/keypoint/y", "image/object/keypoint/visibility"),
        ("image/object/parts/x", "image/object/parts/y", "image/object/parts/v"),
    ):
        if not points and has(keys[0], "float") and has(keys[1], "float"):
            points = keys if has(keys[2], "int64") else keys[:2]
    return Layout(
        name=name,
        map=Map(
            image="image/encoded" if has("image/encoded") else None,
            file="image/filename" if has("image/filename", "bytes") else None,
            id=_first(schema, "image/id", "image/filename", "image/source_id"),
            label="image/class/label" if has("image/class/label", "int64", "bytes") else None,
            label_text="image/class/text" if has("image/class/text", "bytes") else None,
            boxes=boxes,
            box_labels=box_labels if boxes else None,
            box_label_text=text if boxes else None,
            keypoints=points,
            keypoint_text="image/object/keypoint/text" if has("image/object/keypoint/text", "bytes") else None,
            box_labels_from=first,
            label_from=start,
        ),
        notes=tuple(notes) if boxes else (),
    )


def _text_key(schema: Schema, *keys: str) -> str | None:
    """The first of these keys with a text in any record."""
    return next((key for key in keys if schema.has(key, "bytes") and schema.keys[key].high), None)


_BBOX_FORMAT = re.compile(r"(REL|ABS)_(XYXY|YXYX|XYWH)")


def _from_features_json(folder: Place, schema: Schema) -> Layout | None:
    """What a features.json of TensorFlow Datasets says, where its image is one of the keys. Raises UsageError."""
    path = folder.address(tfds.FEATURES)
    try:
        features = tfds.features(folder)
    except (OSError, ValueError):
        return None
    image = next((f.key for f in features if f.kind == "Image" and not f.many and f.key in schema.keys), None)
    if image is None:
        return None
    label = next((f.key for f in features if f.kind == "ClassLabel" and not f.many), None)
    box = next((f for f in features if f.kind == "BBoxFeature" and f.many), None)
    made = Map(image=image, label=label, id=_first(schema, "image/filename", "image/id", "filename", "file_name", "id"))
    if box is not None:
        given = str(tfds.get(tfds.get(box.said, "bounding_box"), "bbox_format", "REL_YXYX"))
        match = _BBOX_FORMAT.fullmatch(given)
        if match is None:
            raise UsageError(
                f"{path}: boxes are {given}, which is not known here; pass map={{'boxes': 'KEY:xyxy'}} or the like"
            )
        inside = box.key.rpartition("/")[0] + "/"
        order: Any = match[2].lower()
        made = replace(
            made,
            boxes=(box.key,),
            box_order=order,
            box_pixels=match[1] == "ABS",
            box_labels=next(
                (f.key for f in features if f.kind == "ClassLabel" and f.many and f.key.startswith(inside)), None
            ),
        )
    return Layout(
        name="TensorFlow Datasets" + (", detection" if box else ""), map=made, notes=(f"keys as {path} says",)
    )
