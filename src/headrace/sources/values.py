"""What the values of a JSON or a table say of an image: its class, several of them, a number, texts, and its objects.

Shared by the sources whose annotations are such values; which value is what is left to these.

Objects are as Hugging Face's imagefolder has them (datasets, "Create an image dataset"), whose boxes are COCO's: `bbox`
[[x, y, width, height], …] in pixels, 0-based, and beside it lists of the same length: `category` (also `categories`,
`label`, `labels`), `keypoints` (x, y, v of each point, v 0 to 2), `segmentation` (COCO's polygons, or run lengths, also
of a compressed text), and any other, which become attributes. Or one mapping for each object, with the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.record import Boxes, Keypoints, Mask, brief, name_fault
from headrace.sources import segmentations

BOX_KEYS = ("bbox", "bboxes")
CLASS_KEYS = ("category", "categories", "label", "labels")
CAPTION_KEYS = ("caption", "captions", "text")

# Attributes that more than one format knows, as they are called here; their values are 0, 1, or -1 for unknown.
_FLAGS = {
    f"{start}{name}": to
    for name, to in {
        "difficult": "difficult",
        "truncated": "truncated",
        "occluded": "occluded",
        "crowd": "is_crowd",
    }.items()
    for start in ("", "is_", "is")
}


def fields_of(
    said: Mapping[str, Any], names: Sequence[str] | None = None, object_names: Sequence[str] | None = None
) -> dict[str, Any]:
    """The fields of a Record that an image's values by name say; null says nothing. Raises ValueError.

    `label`: a name, a number of a class, or a float, which is a value; `labels`: several classes; `value`; `caption`,
    `captions`, `text`; `group`; `objects`, or `bbox` and the classes of boxes beside it; `width` and `height` of the
    image that boxes were measured in. All others are attributes. `names` of the classes of images, and of objects,
    where these are numbers.
    """
    left = {name: value for name, value in said.items() if value is not None}
    out: dict[str, Any] = {}
    if "label" in left:
        label = left.pop("label")
        if isinstance(label, float):
            out["value"] = label
        else:
            out |= fields_of_class(label, names)
    boxed = next((key for key in BOX_KEYS if isinstance(left.get(key), list)), None)
    if "labels" in left and ("objects" in left or boxed is None):
        several = left.pop("labels")
        if not isinstance(several, list):
            raise ValueError(f"labels are {brief(several)}, wanted a list of classes")
        # One that is said beside them is one of them.
        said_alone = out.pop("label_name", None) or out.pop("label", None)
        if said_alone is not None:
            several = [*several, said_alone]
        out["labels"] = tuple(dict.fromkeys(class_called(one, names) for one in several))
    if (value := finite(left.get("value"))) is not None:
        out["value"] = value
        del left["value"]
    texts = [captions_of(left.pop(name)) for name in CAPTION_KEYS if name in left]
    if texts:
        out["captions"] = tuple(dict.fromkeys(text for some in texts for text in some))
    if isinstance(left.get("group"), str | int) and str(left["group"]):
        out["group"] = str(left.pop("group"))
    width, height = whole(left.pop("width", None)), whole(left.pop("height", None))
    objects: Objects | None = None
    if "objects" in left:
        objects = objects_of(left.pop("objects"), object_names)
    elif boxed is not None:
        beside = {name: left.pop(name) for name in (boxed, *CLASS_KEYS) if name in left}
        objects = objects_of(beside, object_names)
    if objects is not None:
        out |= {
            "boxes": objects.boxes,
            "box_labels": objects.labels,
            "keypoints": objects.keypoints,
            "masks": objects.masks,
            "size": (height, width) if height and width and min(height, width) > 0 else None,
        }
        left |= objects.attributes
    out["attributes"] = left
    return out


def fields_of_class(value: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """The fields of one class. A number without names stays one: it says where the class stands among them. Raises
    ValueError."""
    number = whole(value)
    if names is None and number is not None and number >= 0:
        return {"label": number}
    return {"label_name": class_called(value, names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """`boxes` float32 [n, 4] x0, y0, x1, y1 in pixels; `labels`, `masks` and attributes have an entry for each."""

    boxes: Boxes
    labels: tuple[str, ...] | None = None
    keypoints: Keypoints | None = None
    masks: tuple[Mask | None, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


def objects_of(value: Any, names: Sequence[str] | None = None) -> Objects:
    """The objects that a value says; `names` of their classes, where these are numbers. Raises ValueError."""
    columns = _columns(value)
    key = next((key for key in BOX_KEYS if key in columns), None)
    if key is None:
        raise ValueError(f"the objects have {', '.join(columns) or 'nothing'}, and no {BOX_KEYS[0]}")
    boxes = [numbers(box, 4, "bbox", "x, y, width and height") for box in columns.pop(key)]
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    with np.errstate(over="ignore"):
        made = corners.astype(np.float32)
    labels: tuple[str, ...] | None = None
    class_key = next((key for key in CLASS_KEYS if key in columns), None)
    if class_key is not None:
        labels = tuple(class_called(one, names) for one in columns.pop(class_key))
    elif not len(made):
        labels = ()
    masks = None
    if "segmentation" in columns and (masks := _masks(columns["segmentation"])) is not None:
        del columns["segmentation"]
    keypoints = None
    if "keypoints" in columns:
        keypoints = _keypoints(columns["keypoints"])
        if keypoints is not None or not len(made):  # of no objects nothing says how many points they would have
            del columns["keypoints"]
    return Objects(
        boxes=made,
        labels=labels,
        keypoints=keypoints,
        masks=masks,
        attributes=attributes_of(columns),
    )


def attributes_of(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Attributes of objects under the names, and with the values, that they have in every format."""
    return {_FLAGS.get(name, name): _flags(name, values) for name, values in columns.items()}


def _columns(value: Any) -> dict[str, list[Any]]:
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        keys = dict.fromkeys(str(key) for one in value for key in one) or {BOX_KEYS[0]: None}
        return {key: [one.get(key) for one in value] for key in keys}
    if not isinstance(value, Mapping):
        raise ValueError(f"the objects are {brief(value)}, wanted lists by name, or one mapping for each")
    columns = {str(key): values for key, values in value.items() if values is not None}
    lengths = {key: len(values) if isinstance(values, list) else None for key, values in columns.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        told = ", ".join(f"{key}: {'no list' if n is None else n}" for key, n in lengths.items())
        raise ValueError(f"the objects have {told}; wanted lists of one length")
    return columns


def class_called(value: Any, names: Sequence[str] | None) -> str:
    """The class that a number, of `names` if there are any, or a text is. Raises ValueError."""
    if isinstance(value, str):
        fault = name_fault(value)
        if fault is not None:
            raise ValueError(f"the class {fault}")
        if names is not None and value not in names:
            raise ValueError(f"the class is {value!r:.60}, which is none of {_some(names)}")
        return value
    number = whole(value)
    if number is None or number < 0:
        raise ValueError(f"the class is {brief(value)}, wanted a name or a number from 0")
    if names is None:
        return str(number)
    if number >= len(names):
        raise ValueError(f"the class is {number}, and there are {len(names)}: {_some(names)}")
    return names[number]


def whole(value: Any) -> int | None:
    """A whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def finite(value: Any) -> float | None:
    """A finite number, None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def numbers(value: Any, count: int | None, what: str, wanted: str) -> list[float]:
    """Finite numbers, `count` of them. Raises ValueError."""
    found = [finite(one) for one in value] if isinstance(value, list | tuple) else [None]
    if None in found or count not in (None, len(found)):
        raise ValueError(f"{what} is {brief(value)}, wanted {wanted}")
    return [one for one in found if one is not None]


def captions_of(value: Any) -> tuple[str, ...]:
    """Texts of a text or a list of them. Raises ValueError."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the caption is {brief(value)}, wanted a text, or a list of them")
    return tuple(texts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _flags(name: str, values: list[Any]) -> list[Any]:
    if name not in _FLAGS:
        return values
    return [-1 if value is None else int(value) if isinstance(value, bool) else value for value in values]


def _keypoints(values: list[Any]) -> Keypoints | None:
    """float32 [n, k, 3] where all are x, y, v of the same number of points, else None: then they stay an attribute."""
    flat = []
    for value in values:
        if isinstance(value, list) and value and all(isinstance(point, list) and len(point) == 3 for point in value):
            value = [number for point in value for number in point]
        if not isinstance(value, list) or len(value) % 3 or None in map(finite, value):
            return None
        if any(v not in (0, 1, 2) for v in value[2::3]):
            return None
        flat.append(value)
    if not flat or not flat[0] or len({len(value) for value in flat}) != 1:
        return None
    with np.errstate(over="ignore"):
        return np.array(flat, np.float64).astype(np.float32).reshape(len(flat), -1, 3)


def _masks(values: list[Any]) -> tuple[Mask | None, ...] | None:
    """Masks where all are COCO's polygons or run lengths, else None: then they stay an attribute."""
    try:
        return tuple(None if value is None else segmentations.mask_of(value) for value in values)
    except ValueError:
        return None
