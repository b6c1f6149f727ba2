"""What a page knows of records, as JSON: a few of them for the gallery, or one with all that is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.format import catalog
from headrace.learn.boxes import Truth, partners
from headrace.load.dataset import Dataset
from headrace.load.targets import Found
from headrace.viewing.runs import Judged

MOST_OBJECTS = 300  # of a record in the gallery, where more could not be told apart; its own page has all

_COLUMNS = ("id", "split", "label", "label_name", "labels", "label_names", "boxes", "box_labels", "box_label_names")
_ELSEWHERE = {*_COLUMNS, "keypoints", "polygons", "runs", "attributes", *catalog.ATTRIBUTES}


def cells(dataset: Dataset, rows: NDArray[np.int64], judged: Judged | None = None) -> list[dict[str, Any]]:
    """A dict for each of these rows [b]: `row`, `id`, `split`, `width`, `height`; where there are any the names of its
    classes, its value, `boxes` [x0, y0, x1, y1, class], `objects` as their number, `points` [[x, y, v], …]; and `said`
    by a run."""
    store, names, box_names = dataset.store, dataset.class_names, dataset.box_class_names
    splits = list(dataset.manifest.splits)
    of_split, values = store.splits_of(rows).tolist(), store.values(rows).tolist()
    several = store.several(rows)
    says = store.says_labels(rows)
    labels = store.labels[rows].tolist()
    found = []
    for i, (row, id_) in enumerate(zip(rows.tolist(), store.ids_of(rows), strict=True)):
        cell: dict[str, Any] = {
            "row": row,
            "id": id_,
            "split": splits[of_split[i]],
            "width": int(store.width[row]),
            "height": int(store.height[row]),
        }
        if dataset.multi_label:
            cell["labels"] = [names[k] for k in np.flatnonzero(several[i])] if says[i] else None
        elif labels[i] >= 0:
            cell["labels"] = [names[labels[i]]]
        if values and not math.isnan(values[i]):
            cell["value"] = values[i]
        found.append(cell)
    if dataset.has_boxes or dataset.has_keypoints:
        objects = store.objects(rows)
        begins = np.searchsorted(objects.of, np.arange(len(rows) + 1)).tolist()
        for i, cell in enumerate(found):
            some = slice(begins[i], min(begins[i + 1], begins[i] + MOST_OBJECTS))
            boxed = objects.boxed[some]
            corners, label = (
                objects.boxes[some][boxed].astype(np.float64).round(1).tolist(),
                objects.labels[some][boxed].tolist(),
            )
            cell["objects"] = begins[i + 1] - begins[i]
            cell["boxes"] = [[*box, k] for box, k in zip(corners, label, strict=True)]
            if dataset.has_keypoints:
                cell["points"] = objects.keypoints[some].astype(np.float64).round(1).tolist()
    if judged is not None:
        for row, cell in zip(rows.tolist(), found, strict=True):
            if (line := judged.line_of(row)) is not None:
                cell["said"] = said(line, cell.get("boxes"), box_names)
    return found


def record(dataset: Dataset, row: int, judged: Judged | None = None) -> dict[str, Any]:
    """All that is known of the record of a catalog row. Raises DamageError."""
    store = dataset.store
    values = store.table.row(row)
    names = values["box_label_names"]
    boxes = values["boxes"]
    per_box = {name: values[name] for name in catalog.ATTRIBUTES if values[name] is not None}
    objects = []
    for i in range(max(len(boxes or ()), len(values["keypoints"] or ()))):
        one: dict[str, Any] = {}
        if boxes is not None:
            one["box"] = [round(side, 2) for side in boxes[i]]
            one["label"] = -1 if values["box_labels"] is None else values["box_labels"][i]
            one["name"] = None if names is None else names[i]
        if values["keypoints"] is not None:
            one["points"] = [[round(number, 2) for number in point] for point in values["keypoints"][i]]
        if values["polygons"] is not None and values["polygons"][i] is not None:
            one["polygons"] = [[round(number, 1) for number in part] for part in values["polygons"][i]]
        if values["runs"] is not None and values["runs"][i] is not None:
            one["runs"] = values["runs"][i]
        one["attributes"] = {name: column[i] for name, column in per_box.items() if column[i] is not None}
        objects.append(one)
    attributes = catalog.attributes(values["attributes"])
    for name in [name for name, each in attributes.items() if isinstance(each, list) and len(each) == len(objects)]:
        for one, value in zip(objects, attributes.pop(name), strict=True):
            one["attributes"] |= {} if value is None else {name: value}
    classes = values["label_names"] if dataset.multi_label else [values["label_name"]]
    facts = {name: value for name, value in values.items() if name not in _ELSEWHERE and value is not None}
    shape = {"row": row, "width": values["width"], "height": values["height"]}
    found: dict[str, Any] = {
        **shape,
        "id": values["id"],
        "split": values["split"],
        "labels": None if classes is None or classes == [None] else classes,
        "objects": objects,
        "says_boxes": boxes is not None,
        "attributes": attributes,
        "facts": facts,
        "address": store.address(row),
    }
    if judged is not None and (line := judged.line_of(row)) is not None:
        corners = None if boxes is None else [[*one["box"], one["label"]] for one in objects]
        found["said"] = said(line, corners, dataset.box_class_names)
    return strict(found)  # type: ignore[no-any-return]


def said(line: Mapping[str, Any], boxes: list[list[float]] | None, box_names: tuple[str, ...]) -> dict[str, Any]:
    """What a run says of a record: `wrong`, `right` and its `rows`; of boxes `found` [x0, y0, x1, y1, score, class,
    whether it is right] and `missed`, the numbers of the boxes there that none of them is of."""
    answer: dict[str, Any] = {"wrong": line["wrong"], "right": line["right"], "rows": line["rows"][:MOST_OBJECTS]}
    rows = [row for row in line["rows"] if "x0" in row and "class" in row]
    if boxes is None or (line["rows"] and not rows):
        return answer
    try:
        corners = [[float(row[side]) for side in ("x0", "y0", "x1", "y1")] for row in rows]
        scores = [float(row["score"]) for row in rows]
    except (KeyError, TypeError, ValueError):  # a file for people, who may have edited it
        return answer
    number = {name: k for k, name in enumerate(box_names)}
    labels = np.array([number.get(row["class"], 0) for row in rows], np.int64)
    found = Found(np.array(corners, np.float32).reshape(-1, 4), np.array(scores, np.float32), labels)
    # Boxes without a name are all of the one class.
    there = np.maximum(np.array([box[4] for box in boxes], np.int64), 0)
    truth = Truth(np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4), there)
    of = partners(found, truth)
    answer["found"] = [
        [*box, score, label, right]
        for box, score, label, right in zip(corners, scores, labels.tolist(), (of >= 0).tolist(), strict=True)
    ]
    answer["missed"] = np.setdiff1d(np.arange(len(boxes)), of).tolist()
    return answer


def strict(value: Any) -> Any:
    """The value with texts in the place of what JSON has none for: NaN, infinity, bytes."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(name): strict(part) for name, part in value.items()}
    return [strict(part) for part in value] if isinstance(value, list | tuple) else value
