"""Which key of a record is what, and the words in which someone says it: `boxes=objects/bbox:yxyx`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from headrace.adopting.schema import Schema
from headrace.errors import UsageError

Order = Literal["xyxy", "yxyx", "xywh"]
_ORDERS = ("xyxy", "yxyx", "xywh")
_UNITS = ("pixels", "normalised")
_BASES = {"from0": 0, "from1": 1}
FIELDS = {
    "image": "the encoded image",
    "file": "the name of the image's file, in the folder images",
    "id": "what tells records apart",
    "label": "the class, a number or a text",
    "label_text": "the class's name beside its number",
    "boxes": "one key of 4 numbers per box, or xmin,ymin,xmax,ymax keys",
    "box_labels": "class numbers or texts of the boxes",
    "box_label_text": "names beside the numbers",
    "keypoints": "one key of x, y, v triples, or x,y or x,y,v keys",
    "keypoint_text": "the names of the keypoints",
}
_FLAGS: dict[str, tuple[str, ...]] = {
    "boxes": (*_ORDERS, *_UNITS),
    "keypoints": _UNITS,
    "label": tuple(_BASES),
    "box_labels": tuple(_BASES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """Which key of a record is what; None for nothing. The keys of FIELDS, and how numbers are meant:

    `label_from`, `box_labels_from`: the number of the first class, None where it is not known yet (0 if one is 0, else
    1). `box_order`: of the four numbers of a box in one key. `box_pixels`, `keypoint_pixels`: else they are 0-1.
    """

    image: str | None = None
    file: str | None = None
    id: str | None = None
    label: str | None = None
    label_text: str | None = None
    boxes: tuple[str, ...] = ()
    box_labels: str | None = None
    box_label_text: str | None = None
    keypoints: tuple[str, ...] = ()
    keypoint_text: str | None = None
    label_from: int = 0
    box_labels_from: int | None = 0
    box_order: Order = "xyxy"
    box_pixels: bool = False
    keypoint_pixels: bool = False

    @property
    def keys(self) -> dict[str, str]:
        """Field -> key, as `map` takes it, for each field that has one."""
        raw = asdict(self)
        out = {name: ",".join(raw[name]) if isinstance(raw[name], tuple) else raw[name] for name in FIELDS if raw[name]}
        if len(self.boxes) == 1:
            out["boxes"] += f":{self.box_order}"
        if self.boxes and self.box_pixels:
            out["boxes"] += ":pixels"
        if self.keypoints and self.keypoint_pixels:
            out["keypoints"] += ":pixels"
        if self.label and self.label_from:
            out["label"] += f":from{self.label_from}"
        if self.box_labels and self.box_labels_from is not None:
            out["box_labels"] += f":from{self.box_labels_from}"
        return out


def with_given(base: Map, given: Mapping[str, str], schema: Schema) -> Map:
    """`base` with the fields that someone names: {"boxes": "objects/bbox:yxyx"}; an empty key takes a field away.

    Raises UsageError: an unknown field or word, a key that no record has, or the wrong number of keys.
    """
    made = base
    for name, value in given.items():
        if name not in FIELDS:
            fields = "\n".join(f"  {field:15} {what}" for field, what in FIELDS.items())
            raise UsageError(f"map={{{name!r}: {value!r}}}: the fields are\n{fields}")
        flags: list[str] = []
        while value not in schema.keys and value.rpartition(":")[2] in _FLAGS.get(name, ()):
            value, _, flag = value.rpartition(":")
            flags.append(flag)
        keys = (value,) if value in schema.keys else tuple(filter(None, value.split(",")))
        for key in keys:
            if key not in schema.keys:
                words = f"; after a ':' it takes {', '.join(_FLAGS[name])}" if ":" in key and name in _FLAGS else ""
                raise UsageError(
                    f"map={{{name!r}: {value!r}}}: no record looked at has the key {key!r}{words}\n{schema.table()}"
                )
        wanted = {"boxes": (0, 1, 4), "keypoints": (0, 1, 2, 3)}.get(name, (0, 1))
        if len(keys) not in wanted:
            raise UsageError(
                f"map={{{name!r}: {value!r}}}: {len(keys)} keys, wanted {' or '.join(map(str, wanted[1:]))}"
            )
        if name in ("boxes", "keypoints"):
            made = replace(made, **{name: keys})  # type: ignore[arg-type]
        else:
            made = replace(made, **{name: keys[0] if keys else None})  # type: ignore[arg-type]
        if name == "boxes":
            order: Any = next((f for f in flags if f in _ORDERS), "yxyx" if len(keys) == 1 else "xyxy")
            made = replace(made, box_order=order, box_pixels="pixels" in flags)
        elif name == "keypoints":
            made = replace(made, keypoint_pixels="pixels" in flags)
        elif name in ("label", "box_labels"):
            made = replace(made, **{f"{name}_from": _BASES[flags[0]] if flags else 0})  # type: ignore[arg-type]
    return made
