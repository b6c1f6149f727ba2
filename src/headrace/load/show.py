"""Pictures of data: records and batches as contact sheets, each image with what is known of it."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headrace.errors import DamageError, StorageError, UsageError
from headrace.imaging.augment import name_of
from headrace.imaging.codec import Pixels
from headrace.imaging.drawing import ROOM, with_boxes, with_cells, with_dashes, with_heat, with_points
from headrace.imaging.geometry import Move
from headrace.imaging.lettering import font, wrapped
from headrace.imaging.sheet import LARGE, SMALL, Tile, contact_sheet, fitted, sheet_of_rows
from headrace.load.facts import Facts
from headrace.load.targets import Boxes, Class, Grid, Heatmap, Labels, MultiLabel, Points, Pyramid, Value
from headrace.order import evenly

if TYPE_CHECKING:
    from headrace.checking.duplicates import Duplicates
    from headrace.load.dataset import Dataset
    from headrace.load.loader import Loader
    from headrace.load.view import View

MOST = 1000  # images on one sheet: of more nobody could tell anything
_GROUPS, _OF_GROUP = 60, 8  # of duplicates on one sheet, and images of each
_CLEAR = 100  # images up to which those with drawings on them are large


def show_records(dataset: Dataset, n: int) -> Image.Image:
    """Up to `n` records, evenly drawn, with class, boxes, keypoints and id."""
    numbers = evenly(len(dataset), n).tolist()
    side = _side(len(numbers), drawn=dataset.has_boxes or dataset.has_keypoints)
    tiles = [tile(dataset, i, side=side) for i in numbers]
    some = f"{len(tiles)} of " if len(tiles) < len(dataset) else ""
    title = f"{dataset.title}: {some}{_count(len(dataset), 'record', 'records')}"
    return contact_sheet(tiles, title=title, large=side == LARGE)


def tile(dataset: Dataset, i: int, *, side: int) -> Tile:
    """Record `i` with what is known of it, `side` pixels long; one that can't be read says why."""
    try:
        record = dataset[i]
        canvas = _Canvas(dataset.selection.facts(objects=False), record.image, side)
    except (DamageError, StorageError) as error:
        (id_,) = dataset.store.ids_of(dataset.rows[i : i + 1])
        return Tile(_words(str(error), side), _caption(f"damaged: {id_}", str(error)), right=False)
    lines = [] if record.label_name is None else [record.label_name]
    if record.labels is not None:
        lines += _classes_lines(record.labels)
    if record.value is not None:
        lines.append(f"{record.value:g}")
    if record.boxes is not None:
        names = record.box_labels or ("",) * len(record.boxes)
        number = {name: label for label, name in enumerate(dataset.box_class_names)}
        canvas.boxes(record.boxes, np.array([number.get(name, -1) for name in names], np.int64))
        lines.append(_names_text(names))
    if record.keypoints is not None:
        canvas.points(record.keypoints, hidden=record.keypoints[..., 2] == 1)
        lines.append(_points_text(record.keypoints))
    return Tile(canvas.pixels, _caption(*lines, record.id))


def show_duplicates(dataset: Dataset, found: Duplicates) -> Image.Image:
    """The first 60 groups of duplicates of a dataset, a row each with up to 8 of their images; those of a group that
    lies in several splits or has several labels are framed in red."""
    whole, rows = dataset.whole, []
    for number, group in enumerate(found.groups[:_GROUPS], start=1):
        grave = len(group.splits) > 1 or len(group.labels) > 1
        tiles = []
        for image in group.images[:_OF_GROUP]:
            row = whole.store.row_of(image.id)
            assert row is not None
            made = tile(whole, row, side=SMALL)
            lines = [f"{number}: {group.kind}", image.split, *([] if image.label is None else [image.label]), image.id]
            tiles.append(replace(made, caption=_caption(*lines), right=False if grave else made.right))
        rows.append(tiles)
    some = f"; the first {_GROUPS} are shown" if len(found.groups) > _GROUPS else ""
    title = (
        f"{dataset.title}: {found.images} of {_count(found.records, 'image', 'images')} in "
        f"{_count(len(found.groups), 'group', 'groups')} of duplicates, {len(found.across_splits)} across splits{some}"
    )
    return sheet_of_rows(rows, title=title)


def show_batch(loader: Loader, i: int, ids: Sequence[str]) -> Image.Image:
    """Batch `i` of a loader's epoch, in which records `ids` should be: its images as a model gets them, with what its
    targets say of them. Raises as `loader[i]` does."""
    view, target = loader.view, loader.options.target
    check(view, loader.batch_size)
    batch, labels = loader[i], loader.labels(i)
    side = _side(len(batch.ids), drawn=target is not None and (target.wants_boxes or target.wants_keypoints))
    slots = {id_: slot for slot, id_ in enumerate(ids)}  # labels has damaged records too, that are not in the batch
    tiles = []
    for j, id_ in enumerate(batch.ids):
        canvas = _Canvas(view.facts(objects=False), batch.images[j], side)
        lines = _draw(canvas, loader, batch.targets, j, labels, slots[id_])
        tiles.append(Tile(canvas.pixels, _caption(*lines, id_)))
    options, (height, width) = loader.options, loader.size
    said = [
        f"{view.title}: batch {i} of epoch {loader.epoch}, {len(tiles)} of {_count(len(view), 'record', 'records')}",
        f"{height}x{width} {options.fit}",
        *map(name_of, options.augment),
        *(type(part).__name__ for part in (options.mix, target) if part is not None),
    ]
    return contact_sheet(tiles, title=", ".join(said), large=side == LARGE)


def _draw(canvas: _Canvas, loader: Loader, targets: Any, j: int, labels: Labels, slot: int) -> list[str]:
    """Draws what the targets say of image `j` and gives lines of its caption. `slot` is its place in `labels`.

    Of the targets that are ours the numbers are decoded, so that the picture shows what a model learns; of another's,
    the labels that it had.
    """
    target, size = loader.options.target, loader.size
    label, there = int(labels.classes[slot]), labels.box_image == slot
    boxes = labels.boxes[there]
    class_names = loader.view.class_names
    if isinstance(target, Class | MultiLabel) and loader.options.mix is not None:
        shares = zip(class_names, targets[j].tolist(), strict=True)
        return [f"{name} {share:.2f}" for name, share in shares if share >= 0.005]
    if isinstance(target, MultiLabel):
        return _classes_lines(*target.decode(targets[j : j + 1], class_names))
    if isinstance(target, Value):
        return [f"{targets[j]:g}"]
    lines = [class_names[label]] if label >= 0 else []
    if len(labels.several) and labels.several[slot].any():
        lines += _classes_lines([class_names[k] for k in np.flatnonzero(labels.several[slot])])
    if len(labels.values) and not np.isnan(labels.values[slot]):
        lines.append(f"{labels.values[slot]:g}")
    if isinstance(target, Grid):
        (grid,) = encoded = targets[j : j + 1]
        (found,) = target.decode(encoded, size=size)
        mine = grid[..., 4] > 0
        canvas.cells(mine, (np.argwhere(mine) + grid[mine, 2:4]) / len(grid))
        canvas.left_out(boxes, found.boxes)
        canvas.boxes(found.boxes, found.labels if grid.shape[-1] > 5 else None)
        lines.append(_kept_text(len(found.boxes), len(boxes), "with a cell"))
    elif isinstance(target, Pyramid):
        (found,) = target.decode(targets[j : j + 1], size=size)
        canvas.left_out(boxes, found.boxes)
        canvas.boxes(found.boxes, found.labels if targets.shape[-1] > 5 else None)
        lines.append(_kept_text(len(found.boxes), len(boxes), "with a cell"))
    elif isinstance(target, Boxes):
        ((kept, names),) = target.decode({name: values[j : j + 1] for name, values in targets.items()})
        canvas.left_out(boxes, kept)
        canvas.boxes(kept, names)
        lines.append(_kept_text(len(kept), len(boxes), "kept"))
    elif isinstance(target, Heatmap):
        canvas.heat(targets[j].max(axis=-1))
        points = target.decode(targets[j : j + 1])
        canvas.points(points)
        lines.append(_points_text(points))
    elif isinstance(target, Points):
        points = target.decode(targets[j : j + 1], size=size)
        canvas.points(points)
        lines.append(_points_text(points))
    elif target is not None:
        if target.wants_boxes or target.wants_keypoints:
            canvas.boxes(boxes, labels.box_labels[there])
            lines.append(_kept_text(len(boxes), len(boxes), ""))
        if target.wants_keypoints:
            points = labels.keypoints[there]
            canvas.points(points, hidden=points[..., 2] == 1)
            lines.append(_points_text(points))
    return lines


class _Canvas:
    """An image brought to a longer side of `side` pixels, RGB; what is drawn on it comes in pixels of the image."""

    def __init__(self, facts: Facts, image: Pixels, side: int) -> None:
        self.facts = facts
        self.pixels = fitted(image, side)
        (height, width), (h, w) = image.shape[:2], self.pixels.shape[:2]
        self._move = Move(w / width, 0.0, h / height, 0.0)

    def boxes(self, boxes: NDArray[np.float32], labels: NDArray[np.int64] | None) -> None:
        """In the colours of their classes, and with their names where there are several and there is room."""
        names = self.facts.box_classes
        texts = [""] * len(boxes)
        if labels is not None and len(names) > 1 and min(self.pixels.shape[:2]) >= ROOM:
            texts = [names[label] if label >= 0 else "" for label in labels.tolist()]
        self.pixels = with_boxes(self.pixels, self._move.boxes(boxes), texts, labels=labels if names else None)

    def left_out(self, boxes: NDArray[np.float32], kept: NDArray[np.float32]) -> None:
        """Those boxes [n, 4] dashed that are not, to half a pixel, among the kept [m, 4]."""
        off = np.abs(boxes[:, np.newaxis] - kept).max(axis=-1).min(axis=1, initial=np.inf)
        self.pixels = with_dashes(self.pixels, self._move.boxes(boxes[off > 0.5]))

    def points(self, points: NDArray[np.float32], *, hidden: NDArray[np.bool_] | None = None) -> None:
        """Sets of keypoints [n, k, 3]."""
        names = self.facts.keypoint_names or tuple(map(str, range(self.facts.keypoints)))
        moved = self._move.points(points).reshape(-1, 3)
        open_ = None if hidden is None else hidden.ravel()
        self.pixels = with_points(self.pixels, moved, names * len(points), hidden=open_)

    def cells(self, cells: NDArray[np.bool_], centres: NDArray[np.floating]) -> None:
        """Cells [g, g] shaded, and centres [n, 2] = y, x as shares of the image."""
        height, width = self.pixels.shape[:2]
        self.pixels = with_cells(self.pixels, cells, (centres[:, ::-1] * (width, height)).astype(np.float32))

    def heat(self, heat: NDArray[np.float32]) -> None:
        self.pixels = with_heat(self.pixels, heat)


def check(view: View, n: int) -> None:
    """Raises UsageError when there is nothing to show of `n` images."""
    if not 1 <= n <= MOST:
        raise UsageError(f"n is {n}, wanted 1 to {MOST}: of more images nobody could tell anything")
    if not len(view):
        raise UsageError(f"{view.title}: there is no record in it to show")
    if view.keeps:
        raise UsageError(f"{view.title}: its numbers are kept as they are, and are no pixels to show")


def _side(images: int, *, drawn: bool) -> int:
    return LARGE if drawn and images <= _CLEAR else SMALL


def _caption(*lines: str) -> str:
    return "\n".join(" ".join(line.split()) for line in lines)


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _classes_lines(names: Sequence[str]) -> list[str]:
    """All of them, on as many lines as they need below a small image."""
    text = ", ".join(names) or "none of the classes"
    return textwrap.wrap(text, 24, break_long_words=False, break_on_hyphens=False)


def _names_text(names: Sequence[str]) -> str:
    """ "left 3, right 2"; without names "5 boxes"."""
    counts = Counter(name for name in names if name)
    unnamed = len(names) - counts.total()
    said = [f"{name} {n}" for name, n in counts.items()]
    return ", ".join(said + [_count(unnamed, "box", "boxes")] * (unnamed > 0 or not said))


def _kept_text(kept: int, boxes: int, how: str) -> str:
    return _count(boxes, "box", "boxes") if kept == boxes else f"{kept} of {_count(boxes, 'box', 'boxes')} {how}"


def _points_text(points: NDArray[np.float32]) -> str:
    n, k = points.shape[:2]
    if not n:
        return "0 points"
    sets = f"{n} sets, " if n > 1 else ""
    return f"{sets}{int((points[..., 2] > 0).sum())} of {_count(n * k, 'point', 'points')}"


def _words(text: str, side: int) -> Pixels:
    """uint8 [side, side, 3]: the text on grey."""
    image = Image.new("RGB", (side, side), (226, 229, 232))
    letters = font(12)
    lines = wrapped(text, side - 16, letters)
    ImageDraw.Draw(image).multiline_text((8, 8), "\n".join(lines), (70, 78, 86), letters)
    return np.array(image)
