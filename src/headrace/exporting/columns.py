"""What formats of rows and lists share: attributes as columns of one kind, and objects as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.exporting.formats import Item, as_float32, number, short, xywh
from headrace.format import catalog
from headrace.record import Mask

if TYPE_CHECKING:
    from headrace.load.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Column:
    """An attribute that has one `kind` of value (int, float or str; None beside it) in all records: of each object
    (`of_objects`), or of the image."""

    name: str
    kind: type
    of_objects: bool

    def of_image(self, item: Item) -> Any:
        """The image's value, None for none."""
        return self._value(item.record.attributes.get(self.name))

    def of_each(self, item: Item) -> list[Any]:
        """A value for each box, None for none."""
        n = 0 if item.record.boxes is None else len(item.record.boxes)
        value = item.record.attributes.get(self.name)
        return [self._value(one) for one in value or ()] if _is_list(value, n) else [None] * n

    def _value(self, value: Any) -> Any:
        return None if value is None else self.kind(value)


def attribute_columns(dataset: Dataset, *, without: Collection[str] = (), arrow: bool = True) -> tuple[Column, ...]:
    """The attributes of a view's records that can be columns, by name; none of those in `without`. Of `arrow`, whose
    whole numbers have 64 bits, none with one that has more."""
    counts = dataset.store.box_counts(dataset.rows).tolist() if dataset.has_boxes else [0] * len(dataset)
    table, rows = dataset.store.table, dataset.rows
    kinds: dict[str, set[tuple[type, bool]]] = {}
    wide: set[str] = set()
    for name in catalog.ATTRIBUTES.keys() & set(table.columns):
        if table.frame([name], rows)[name].is_not_null().any():
            kinds[name] = {(int, True)}
    said = table.frame(["attributes"], rows)["attributes"]
    for n, text in zip(counts, said, strict=True):
        for name, value in catalog.attributes(text).items():
            kinds.setdefault(name, set()).update(_kinds(value, n))
            if arrow and _is_wide(value):
                wide.add(name)
    found = []
    for name in sorted(kinds.keys() - set(without) - wide):
        types, places = {kind for kind, _ in kinds[name]}, {place for _, place in kinds[name]}
        kind = float if types == {int, float} else next(iter(types)) if len(types) == 1 else None
        if kind in (int, float, str) and len(places) == 1:
            found.append(Column(name, kind, places.pop()))
    return tuple(found)


def _kinds(value: Any, n: int) -> Iterator[tuple[type, bool]]:
    """(kind, of objects) of the values of one record's attribute."""
    if _is_list(value, n):
        yield from ((type(one), True) for one in value if one is not None)
    elif value is not None:
        yield type(value), False


def _is_wide(value: Any) -> bool:
    """Whether a whole number in it has more than 64 bits."""
    some = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(one, int) and not -_INT64 <= one < _INT64 for one in some)


_INT64 = 1 << 63


class Objects:
    """The objects of records as columns of lists: `bbox` x, y, width and height (COCO's), `categories` their names, and
    where the dataset has such `keypoints`, `segmentation` (`masks`: which kind, the other is lost) and attributes."""

    def __init__(self, dataset: Dataset, columns: Collection[Column], *, masks: str | None) -> None:
        self._keypoints = dataset.keypoints
        self._columns = [column for column in columns if column.of_objects]
        self._masks = masks

    def of(self, item: Item, categories: list[Any]) -> dict[str, list[Any]] | None:
        """None where the record says nothing of boxes."""
        record = item.record
        if record.boxes is None:
            return None
        out: dict[str, list[Any]] = {
            "bbox": [list(map(float, xywh(box))) for box in record.boxes.tolist()],
            "categories": categories,
        }
        if self._keypoints:
            none = [0.0] * 3 * self._keypoints
            points = record.keypoints
            out["keypoints"] = (
                [none] * len(record.boxes)
                if points is None
                else [[float(coordinate(value)) for value in of.reshape(-1).tolist()] for of in points]
            )
        if self._masks is not None:
            out["segmentation"] = [self._mask(mask, item) for mask in record.masks or [None] * len(record.boxes)]
        return out | {column.name: column.of_each(item) for column in self._columns}

    def _mask(self, mask: Mask | None, item: Item) -> Any:
        if mask is None:
            return None
        if ("polygons" if mask.runs is None else "runs") != self._masks:
            item.lost[f"masks that are no {self._masks}"] += 1
            return None
        return segmentation(mask)


def segmentation(mask: Mask) -> Any:
    """COCO's: polygons [[x, y, x, y, …], …], or {"size": [h, w], "counts": run lengths}."""
    if mask.runs is not None and mask.size is not None:
        return {"size": list(map(int, mask.size)), "counts": mask.runs.tolist()}
    return [[float(coordinate(value)) for value in polygon.reshape(-1).tolist()] for polygon in mask.polygons]


def coordinate(value: float) -> int | float:
    """A float32 with as few decimals as give it again."""
    return number(short(value, lambda near: as_float32(near) == value))


def _is_list(value: Any, n: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == n
