"""Targets: a record's labels -> the array a model learns from, and back. Pixels and files are left to others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import DataError, UsageError
from headrace.imaging.geometry import area
from headrace.imaging.placement import Size
from headrace.load.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of a batch of b records. `classes` int64 [b], -1 where there is none; `size` (height, width) of the
    batch's images.

    `boxes` float32 [m, 4] of all images, one after the other, in pixels of the batch's images and inside of them;
    `box_labels` int64 [m], -1 where there is none; `box_image` int64 [m], ascending: the image each lies in. Empty
    unless the target asks for them. `box_classes`: how many classes the dataset's boxes have.

    `keypoints` float32 [m, k, 3] = x, y, v of the same m objects, in the same pixels; a point that is absent or not in
    the image is (0, 0, 0), and flips have swapped left and right. Empty unless the target asks for them. Where nothing
    is said of boxes, `boxes` are the smallest around labelled points, and objects without such a point are left out.

    `several` bool [b, classes]: which classes each record has, where records may have several; all False also for one
    of which nothing is said, and [0, 0] in other datasets. `values` float64 [b]: the number that is known of each
    record, NaN where there is none; [0] where no record of the dataset has one.

    `class_count`: how many classes the dataset has.

    `kept`: the rows of what an ArrayDataset keeps of y as it was given, [b, ...] by name; that of an array alone is "".
    """

    classes: NDArray[np.int64]
    size: Size
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    box_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    box_image: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    box_classes: int = 0
    keypoints: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    several: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0, np.float64))
    kept: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    class_count: int = 0


class Target(Protocol):
    """What a Loader asks for targets. `wants_boxes`: whether `encode` reads boxes; `wants_keypoints`: both of them.

    A target of your own takes this as its base, and overrides `lost` where it has a limit, `soft` for MixUp and CutMix.
    """

    __slots__ = ()
    wants_boxes: bool
    wants_keypoints: bool

    def check(self, facts: Facts) -> None:
        """Raises UsageError or DataError when the records have not what this target needs."""
        ...

    def encode(self, labels: Labels) -> Any:
        """The targets of a batch: an array, or a dict of arrays, with the batch as first axis."""
        ...

    def lost(self, labels: Labels) -> int:
        """How many objects of a batch have no place in its targets."""
        return 0

    def soft(self, labels: Labels) -> NDArray[np.float32] | None:
        """The targets of a batch as float32 [b, ...] that may be averaged, as MixUp does; None where they can't be."""
        return None


@dataclass(frozen=True, slots=True)
class Class(Target):
    """Class index int64 [b]; with `one_hot` float32 [b, classes], 1 for the class, as categorical_crossentropy has it.

    Raises UsageError: one_hot is neither True nor False.
    """

    one_hot: bool = False
    wants_boxes = False
    wants_keypoints = False

    def __post_init__(self) -> None:
        if not isinstance(self.one_hot, bool):
            raise UsageError(f"one_hot is {self.one_hot!r:.60}, wanted True or False")

    def check(self, facts: Facts) -> None:
        if facts.keeps_y:
            raise UsageError(
                "y is kept as it is and names no classes; pass labels='classes' to the dataset, or no target"
            )
        if facts.multi_label:
            raise UsageError("records may have several classes here; leave target out, or pass MultiLabel()")
        if facts.unlabelled:
            raise DataError(
                f"{facts.unlabelled} of {facts.records} records have no label; leave them out with "
                "where('label IS NOT NULL') or pass another target"
            )

    def encode(self, labels: Labels) -> NDArray[np.int64] | NDArray[np.float32]:
        return self.soft(labels) if self.one_hot else labels.classes

    def soft(self, labels: Labels) -> NDArray[np.float32]:
        """Float32 [b, classes], 1 for the class."""
        soft: NDArray[np.float32] = (labels.classes[:, None] == np.arange(labels.class_count)).astype(np.float32)
        return soft

    def decode(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """Class index int64 [b] of probabilities [b, classes]."""
        return np.asarray(np.argmax(probabilities, axis=-1), np.int64)


@dataclass(frozen=True, slots=True)
class MultiLabel(Target):
    """Which classes each record has: float32 [b, classes] of 0 and 1, for records that may have several, or none."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        if not facts.multi_label:
            raise UsageError(
                "the records have no several classes; leave target out, or pack them from a source that has (labels)"
            )
        if facts.without_labels:  # which is not to say that they have no class
            raise DataError(
                f"of {facts.without_labels} of {facts.records} records nothing is said of their classes; leave them "
                "out with where('labels IS NOT NULL') or pass another target"
            )

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        return labels.several.astype(np.float32)

    def soft(self, labels: Labels) -> NDArray[np.float32]:
        return self.encode(labels)

    def decode(
        self, scores: NDArray[np.floating], names: Sequence[str], *, threshold: float = 0.5
    ) -> list[tuple[str, ...]]:
        """Of each row of scores [b, classes], those of the classes' `names` that have `threshold` and more, best first.

        Of equals the first. Raises UsageError: there are more or fewer names.
        """
        if scores.ndim != 2 or scores.shape[1] != len(names):
            raise UsageError(f"the scores have shape {list(scores.shape)}, wanted [b, {len(names)}], one for each name")
        order = np.argsort(-scores, axis=1, kind="stable")
        return [
            tuple(names[label] for label in best if row[label] >= threshold)
            for row, best in zip(scores, order.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Value(Target):
    """The number that is known of each record, float32 [b]: rounded to 7 digits, where it has more."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        if facts.value_range is None:
            raise UsageError(
                "the records have no values; leave target out, or pack them from a source that has (value)"
            )
        if facts.without_value:
            raise DataError(
                f"{facts.without_value} of {facts.records} records have no value; leave them out with "
                "where('value IS NOT NULL') or pass another target"
            )
        if (most := max(map(abs, facts.value_range))) > float(np.finfo(np.float32).max):
            raise DataError(f"a value is {most:g} in size, more than float32 can hold; measure it in another unit")

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        return labels.values.astype(np.float32)

    def soft(self, labels: Labels) -> NDArray[np.float32]:
        return self.encode(labels)

    def decode(self, outputs: NDArray[np.floating]) -> NDArray[np.float32]:
        """The values float32 [b] that outputs [b] or [b, 1] say. Raises UsageError: they have another shape."""
        if outputs.ndim not in (1, 2) or outputs.shape[1:] not in ((), (1,)):
            raise UsageError(f"the outputs have shape {list(outputs.shape)}, wanted [b] or [b, 1], a number for each")
        return outputs.reshape(-1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Kept(Target):
    """The rows of y as an ArrayDataset keeps them: [b, ...] of y's own type, or a dict of such where y is one."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        if not facts.keeps_y:
            raise UsageError("the dataset keeps no y as it is; leave target out, or pass labels='keep' to ArrayDataset")

    def encode(self, labels: Labels) -> NDArray[Any] | dict[str, NDArray[Any]]:
        return labels.kept[""] if "" in labels.kept else dict(labels.kept)


@dataclass(frozen=True, slots=True)
class Boxes(Target):
    """Padded boxes: a dict of "boxes" float32 [b, n, 4], "labels" int64 [b, n] and "mask" bool [b, n].

    Boxes are in pixels of the batch's images. n is `most`; of more boxes the largest are kept. Padding is 0, label -1,
    mask False.
    """

    most: int = 100
    wants_boxes = True
    wants_keypoints = False

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UsageError(f"most is {self.most}, wanted at least 1")

    def check(self, facts: Facts) -> None:
        _check_boxes(facts)

    def encode(self, labels: Labels) -> dict[str, NDArray[Any]]:
        b = len(labels.classes)
        boxes = np.zeros((b, self.most, 4), np.float32)
        names = np.full((b, self.most), -1, np.int64)
        mask = np.zeros((b, self.most), bool)
        kept = np.sort(self._largest(labels))
        image = labels.box_image[kept]
        place = image, _rank(image)
        boxes[place], names[place], mask[place] = labels.boxes[kept], labels.box_labels[kept], True
        return {"boxes": boxes, "labels": names, "mask": mask}

    def lost(self, labels: Labels) -> int:
        """How many of the boxes are too many for their image."""
        return len(labels.boxes) - len(self._largest(labels))

    def decode(self, target: dict[str, NDArray[Any]]) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """(boxes [n, 4], labels [n]) of each image of an encoded batch."""
        rows = zip(target["boxes"], target["labels"], target["mask"], strict=True)
        return [(boxes[mask], labels[mask]) for boxes, labels, mask in rows]

    def _largest(self, labels: Labels) -> NDArray[np.int64]:
        """Which of the boxes are kept, by image and falling area; of equals the first."""
        order = np.lexsort((-area(labels.boxes), labels.box_image))
        return order[_rank(labels.box_image) < self.most]


class Found(NamedTuple):
    """What a grid says is in one image: `boxes` float32 [n, 4] in pixels, `scores` float32 [n], `labels` int64 [n]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Places(NamedTuple):
    """Where cells lie, float64: `corner` [n, 2] is the top left (y, x) of each in pixels; what a cell says of y and x
    counts in `unit` pixels, of h and w in `whole`, each [2] or [n, 1]."""

    corner: NDArray[np.float64]
    unit: NDArray[np.float64]
    whole: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid(Target):
    """Cells over the image: float32 [b, g, g, 5] = h / H, w / W, y, x, 1 in the cell in which a box has its centre.

    y and x say where in its cell the centre lies, 0 to 1 from its top left; a centre on the last edge belongs to the
    last cell. A cell without a centre is 0. When several centres share a cell, the largest box (of equals the first)
    takes it and the others are lost: `lost` counts them.
    With more than one class it is [b, g, g, 5 + classes]: the class of the box follows, one-hot. `classes` None is as
    many as the dataset of the loader has; 1 makes all boxes one class.
    """

    cells: int = 7
    classes: int | None = None
    wants_boxes = True
    wants_keypoints = False

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise UsageError(f"cells is {self.cells}, wanted at least 1")
        if self.classes is not None and self.classes < 1:
            raise UsageError(f"classes is {self.classes}, wanted at least 1, or None for those of the dataset")

    @property
    def depth(self) -> int:
        """Numbers per cell for the given `classes`: 5, or 5 + classes when there are several."""
        return _depth(self.classes)

    def check(self, facts: Facts) -> None:
        _check_classes(facts, self.classes, one=f"Grid({self.cells}, classes=1)")

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        depth = _depth(labels.box_classes if self.classes is None else self.classes)
        grid = np.zeros((len(labels.classes), self.cells, self.cells, depth), np.float32)
        kept, cell, offset = self._winners(labels)
        image, row, column = labels.box_image[kept], cell[:, 0], cell[:, 1]
        boxes = labels.boxes[kept]
        grid[image, row, column, 0:2] = (boxes[:, 2:] - boxes[:, :2])[:, ::-1] / labels.size
        grid[image, row, column, 2:4] = offset
        grid[image, row, column, 4] = 1
        if depth > 5:
            grid[image, row, column, 5 + labels.box_labels[kept]] = 1
        return grid

    def lost(self, labels: Labels) -> int:
        """How many of the boxes get no cell, because a larger one has it."""
        return len(labels.boxes) - len(self._winners(labels)[0])

    def decode(self, grids: NDArray[np.floating], *, size: Size, threshold: float = 0.5) -> list[Found]:
        """What each of the grids [b, g, g, d] says is in its image of `size` (height, width), best first.

        The score of a cell is its fifth number, with several classes times that of its best class; cells below
        `threshold` are left out. Boxes are not cut to the image. Undoes `encode` but for what was lost there.
        """
        depth = grids.shape[-1] if self.classes is None else self.depth
        if grids.shape[1:] != (self.cells, self.cells, depth) or depth < 5:
            wanted = f"[b, {self.cells}, {self.cells}, {max(5, depth)}]"
            raise UsageError(f"the grids have shape {list(grids.shape)}, wanted {wanted}")
        return _found(grids.reshape(len(grids), self.cells**2, depth), self.places(size), threshold)

    def places(self, size: Size) -> Places:
        """Where the cells lie in images of `size` (height, width), row by row."""
        corner = np.indices((self.cells, self.cells)).reshape(2, -1).T
        side = np.array(size) / self.cells
        return Places(corner * side, side, np.array(size, np.float64))

    def _winners(self, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Boxes that get a cell int64 [k], the cell (row, column) of each [k, 2], and where its centre is in it."""
        boxes = labels.boxes.astype(np.float64)
        centre = (boxes[:, :2] + boxes[:, 2:])[:, ::-1] * self.cells / (2 * np.array(labels.size))
        cell = np.clip(np.floor(centre), 0, self.cells - 1).astype(np.int64)
        number = (labels.box_image * self.cells + cell[:, 0]) * self.cells + cell[:, 1]
        order = np.argsort(-area(labels.boxes), kind="stable")
        kept = order[np.unique(number[order], return_index=True)[1]]
        return kept, cell[kept], (centre - cell)[kept]


@dataclass(frozen=True, slots=True)
class Pyramid(Target):
    """Grids of several strides, one after the other: float32 [b, n, 5] = h, w, y, x, 1 in the cell of a box.

    The cells of a grid are `stride` pixels high and wide and come row by row, the grid of the smallest stride first;
    the sides of the images are multiples of all strides. The four numbers are in cells: how high and wide the box is,
    and how far its centre lies below and to the right of the cell's top left corner. A cell without a box is 0. Of
    classes the same holds as for `Grid`.

    A box belongs to the first grid of whose cells its longer side has fewer than 8 (the ranges of sizes of FCOS, Tian
    et al. 2019, section 3.2: below 64 pixels at stride 8), or else to the last, and there to the cell in which its
    centre lies. When several want a cell, the largest has it, of equals the first. The others go on to the first of
    these that is free: the next cells of that grid, towards which the centre lies, along the nearer axis, the other
    and both; then the same of the finer grids and of the coarser ones, the nearest first. So y and x are from -0.5 to
    1.5. What finds no free cell is lost: `lost` counts it.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    classes: int | None = None
    wants_boxes = True
    wants_keypoints = False

    def __post_init__(self) -> None:
        if not self.strides or self.strides[0] < 1 or list(self.strides) != sorted(set(self.strides)):
            raise UsageError(f"strides is {self.strides}, wanted numbers of pixels, each once, the smallest first")
        if self.classes is not None and self.classes < 1:
            raise UsageError(f"classes is {self.classes}, wanted at least 1, or None for those of the dataset")

    @property
    def depth(self) -> int:
        """Numbers per cell for the given `classes`: 5, or 5 + classes when there are several."""
        return _depth(self.classes)

    def cells(self, size: Size) -> int:
        """How many cells n there are for images of `size` (height, width). Raises UsageError: sides they don't fit."""
        return sum(rows * columns for rows, columns in self._grids(size))

    def check(self, facts: Facts) -> None:
        _check_classes(facts, self.classes, one="Pyramid(classes=1)")

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        depth = _depth(labels.box_classes if self.classes is None else self.classes)
        corner, stride = self._places(labels.size)
        n = len(stride)
        cells = np.zeros((len(labels.classes) * n, depth), np.float32)
        kept, at = self._assigned(labels)
        boxes = labels.boxes[kept].astype(np.float64)[:, [1, 0, 3, 2]] / stride[at % n, np.newaxis]
        cells[at, 0:2] = boxes[:, 2:] - boxes[:, :2]
        cells[at, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / 2 - corner[at % n] / stride[at % n, np.newaxis]
        cells[at, 4] = 1
        if depth > 5:
            cells[at, 5 + labels.box_labels[kept]] = 1
        return cells.reshape(-1, n, depth)

    def lost(self, labels: Labels) -> int:
        """How many of the boxes get no cell, because others have all those that they could have."""
        return len(labels.boxes) - len(self._assigned(labels)[0])

    def decode(self, cells: NDArray[np.floating], *, size: Size, threshold: float = 0.5) -> list[Found]:
        """What cells [b, n, d] say is in each of the images of `size` (height, width), as `Grid.decode` has it."""
        depth = cells.shape[-1] if self.classes is None else self.depth
        n = self.cells(size)
        if cells.shape[1:] != (n, depth) or depth < 5:
            raise UsageError(f"the cells have shape {list(cells.shape)}, wanted [b, {n}, {max(5, depth)}]")
        return _found(cells, self.places(size), threshold)

    def places(self, size: Size) -> Places:
        """Where the cells lie in images of `size` (height, width), in the order of their numbers."""
        corner, stride = (some.astype(np.float64) for some in self._places(size))
        return Places(corner, stride[:, np.newaxis], stride[:, np.newaxis])

    def _grids(self, size: Size) -> list[Size]:
        """Rows and columns of each grid."""
        height, width = size
        if min(size) < 1 or any(side % stride for side in size for stride in self.strides):
            wanted = f"multiples of {math.lcm(*self.strides)} pixels"
            raise UsageError(f"images are {height}x{width}; grids of strides {self.strides} want {wanted}")
        return [(height // stride, width // stride) for stride in self.strides]

    def _places(self, size: Size) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The top left corner (y, x) of each cell int64 [n, 2] and its stride [n], in pixels."""
        grids = list(zip(self._grids(size), self.strides, strict=True))
        corners = [np.indices(grid).reshape(2, -1).T * stride for grid, stride in grids]
        return np.concatenate(corners), np.repeat(self.strides, [rows * columns for (rows, columns), _ in grids])

    def _assigned(self, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Boxes that get a cell int64 [k], and which of the b * n cells of the batch each gets."""
        choices = self._choices(labels)
        at = np.full(len(choices), -1, np.int64)
        taken = np.zeros(len(labels.classes) * self.cells(labels.size), bool)
        left = np.argsort(-area(labels.boxes), kind="stable")
        for wanted in choices.T:
            if not len(left):
                break
            able = left[(wanted[left] >= 0) & ~taken[wanted[left]]]
            winners = able[np.unique(wanted[able], return_index=True)[1]]
            at[winners] = wanted[winners]
            taken[wanted[winners]] = True
            left = left[at[left] < 0]
        kept = np.flatnonzero(at >= 0)
        return kept, at[kept]

    def _choices(self, labels: Labels) -> NDArray[np.int64]:
        """Which of the b * n cells each box could have, int64 [m, 4 * grids], the best first; -1: beyond the image."""
        boxes = labels.boxes.astype(np.float64)
        middle = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, ::-1]
        n, start, found = self.cells(labels.size), 0, []
        for (rows, columns), stride in zip(self._grids(labels.size), self.strides, strict=True):
            centre = middle / stride
            cell = np.clip(np.floor(centre), 0, (rows - 1, columns - 1)).astype(np.int64)
            off = centre - cell - 0.5
            step = np.where(off < 0, -1, 1)
            down, along = step * (1, 0), step * (0, 1)
            nearer = (np.abs(off[:, :1]) >= np.abs(off[:, 1:])).astype(np.int64)  # in y than in x
            one, other = down * nearer + along * (1 - nearer), along * nearer + down * (1 - nearer)
            near = np.stack([cell, cell + one, cell + other, cell + step], axis=1)
            inside = ((near >= 0) & (near < (rows, columns))).all(axis=-1)
            number = start + near[..., 0] * columns + near[..., 1]
            found.append(np.where(inside, labels.box_image[:, np.newaxis] * n + number, -1))
            start += rows * columns
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
        grids = len(self.strides)
        own = np.minimum(np.searchsorted(np.array(self.strides) * _RANGE, longer, side="right"), grids - 1)
        ranks = [[*range(level, -1, -1), *range(level + 1, grids)] for level in range(grids)]
        order = np.array(ranks)[own]
        choices: NDArray[np.int64] = np.stack(found, axis=1)[np.arange(len(boxes))[:, np.newaxis], order]
        return choices.reshape(len(boxes), 4 * grids)


_RANGE = 8  # cells that the longer side of a box of a grid has at most


@dataclass(frozen=True, slots=True)
class Heatmap(Target):
    """A map per keypoint: float32 [b, h / stride, w / stride, k], a Gaussian of height 1 and `sigma` cells around it.

    A cell stands for the middle of its stride x stride pixels, so a point at x pixels lies at x / stride - 0.5 cells;
    the Gaussian is not rounded to a cell. A point that is not labelled (v = 0) is a map of zeros and nothing else is
    one: such maps a loss leaves out. The height and width of images are multiples of `stride`, 3 cells at least.
    The points are those of one object per image: the largest box with a labelled point, of equals the first. The
    others are lost to the model: `lost` counts them.
    """

    stride: int = 4
    sigma: float = 2.0
    wants_boxes = True
    wants_keypoints = True

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"stride is {self.stride}, wanted at least 1")
        if not 0.5 <= self.sigma <= 100:
            raise UsageError(f"sigma is {self.sigma}, wanted 0.5 to 100 cells: a narrower peak falls between cells")

    def check(self, facts: Facts) -> None:
        _check_keypoints(facts)

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        rows, columns = self._cells(labels.size)
        kept = _chosen(labels)
        points = labels.keypoints[kept].astype(np.float64)
        x, y = (points[..., axis, np.newaxis] / self.stride - 0.5 for axis in (0, 1))
        across = np.exp(-((np.arange(columns) - x) ** 2) / (2 * self.sigma**2))
        down = np.exp(-((np.arange(rows) - y) ** 2) / (2 * self.sigma**2)) * (points[..., 2:] > 0)
        maps = np.zeros((len(labels.classes), rows, columns, labels.keypoints.shape[1]), np.float32)
        maps[labels.box_image[kept]] = np.einsum("nkr,nkc->nrck", down, across)
        return maps

    def lost(self, labels: Labels) -> int:
        """How many objects with a labelled point have no map, because a larger one in their image has it."""
        return _lost(labels)

    def decode(self, maps: NDArray[np.floating]) -> NDArray[np.float32]:
        """Points float32 [b, k, 3] = x, y in pixels of the images, and the height of the peak (0 to 1) as score.

        The peak is looked for between the cells: the vertex of the parabola through the logarithms of the highest cell
        and its neighbours, which for a Gaussian is exact (after Zhang et al. 2020, "Distribution-Aware Coordinate
        Representation for Human Pose Estimation"). A map without anything above 0 is an absent point: (0, 0, 0).
        """
        if maps.ndim != 4 or min(maps.shape[1:3]) < 3:
            raise UsageError(f"the maps have shape {list(maps.shape)}, wanted [b, rows, columns, k], 3 cells or more")
        b, rows, columns, k = maps.shape
        flat = maps.transpose(0, 3, 1, 2).reshape(b * k, rows, columns)
        row, column = np.unravel_index(flat.reshape(b * k, rows * columns).argmax(-1), (rows, columns))
        every = np.arange(b * k)
        score = flat[every, row, column].astype(np.float64)
        y = _vertex(flat[every, :, column], row)
        x = _vertex(flat[every, row], column)
        points = np.stack([(x + 0.5) * self.stride, (y + 0.5) * self.stride, np.clip(score, 0, 1)], axis=-1)
        points[score <= 0] = 0
        return points.reshape(b, k, 3).astype(np.float32)

    def _cells(self, size: Size) -> Size:
        height, width = size
        if height % self.stride or width % self.stride or min(size) < 3 * self.stride:
            raise UsageError(
                f"images are {height}x{width}; heatmaps want multiples of {self.stride} pixels, "
                f"{3 * self.stride} at least"
            )
        return height // self.stride, width // self.stride


def _vertex(lines: NDArray[np.floating], peak: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where [n] each line [n, cells] has its maximum, given its highest cell [n]: at most half a cell from there."""
    middle = np.clip(peak, 1, lines.shape[1] - 2)  # of a peak in the border cell, the parabola is one-sided
    near = np.take_along_axis(lines, middle[:, np.newaxis] + np.array([-1, 0, 1]), axis=1)
    before, here, after = np.log(np.maximum(near, np.finfo(np.float32).tiny).astype(np.float64)).T
    bend = 2 * here - before - after
    place = np.where(bend > 0, middle + (after - before) / (2 * np.where(bend > 0, bend, 1)), peak)
    return np.clip(place, peak - 0.5, peak + 0.5)


@dataclass(frozen=True, slots=True)
class Points(Target):
    """Keypoints as shares of the image: float32 [b, k, 3] = x / w, y / h, 1 where labelled; 0, 0, 0 where not.

    Of one object per image, as `Heatmap` has it; `lost` counts the others.
    """

    wants_boxes = True
    wants_keypoints = True

    def check(self, facts: Facts) -> None:
        _check_keypoints(facts)

    def encode(self, labels: Labels) -> NDArray[np.float32]:
        height, width = labels.size
        kept = _chosen(labels)
        found = labels.keypoints[kept]
        there = found[..., 2:] > 0
        points = np.zeros((len(labels.classes), labels.keypoints.shape[1], 3), np.float32)
        points[labels.box_image[kept]] = np.where(there, found / np.array([width, height, 1], np.float32), 0)
        points[..., 2] = points[..., 2] > 0
        return points

    def lost(self, labels: Labels) -> int:
        """How many objects with a labelled point are left out, because a larger one is in their image."""
        return _lost(labels)

    def decode(self, points: NDArray[np.floating], *, size: Size) -> NDArray[np.float32]:
        """Points float32 [b, k, 3] = x, y in pixels of images of `size` (height, width), and the third as score."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise UsageError(f"the points have shape {list(points.shape)}, wanted [b, k, 3]")
        height, width = size
        return np.asarray(points * np.array([width, height, 1]), np.float32)


def largest(boxes: NDArray[np.float32], keypoints: NDArray[np.float32], image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of m objects stand for their images: the largest box with a labelled point, of equals the first.

    Of `boxes` [m, 4], `keypoints` [m, k, 3] and the `image` [m] each lies in; int64, by image. An object without any
    labelled point has nothing to learn from or to be judged by.
    """
    some = np.flatnonzero(_labelled(keypoints))
    order = some[np.lexsort((-area(boxes[some]), image[some]))]
    return order[np.unique(image[order], return_index=True)[1]]


def _chosen(labels: Labels) -> NDArray[np.int64]:
    return largest(labels.boxes, labels.keypoints, labels.box_image)


def _lost(labels: Labels) -> int:
    return int(_labelled(labels.keypoints).sum()) - len(_chosen(labels))


def _labelled(keypoints: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray((keypoints[..., 2] > 0).any(axis=1), np.bool_)


def _check_keypoints(facts: Facts) -> None:
    if not facts.keypoints:
        raise UsageError("the dataset has no keypoints; leave target out, or pack it from a source that has them")
    if facts.without_keypoints:
        raise DataError(
            f"of {facts.without_keypoints} of {facts.records} records nothing is said of keypoints; leave them out "
            "with where('keypoints IS NOT NULL') or pass another target"
        )


def _found(cells: NDArray[np.floating], places: Places, threshold: float) -> list[Found]:
    """What cells [b, n, 5 + classes] say of their images, best first, from `threshold` on."""
    corner, unit, whole = places
    cells = cells.astype(np.float64)
    scores, labels = cells[..., 4], np.zeros(cells.shape[:2], np.int64)
    if cells.shape[-1] > 5:
        scores, labels = scores * cells[..., 5:].max(-1), cells[..., 5:].argmax(-1)
    centre, half = corner + cells[..., 2:4] * unit, cells[..., 0:2] * whole / 2
    boxes = np.concatenate([centre - half, centre + half], axis=-1)[..., [1, 0, 3, 2]].astype(np.float32)
    found = []
    for box, score, label in zip(boxes, scores, labels, strict=True):
        some = np.flatnonzero(score >= threshold)
        best = some[np.argsort(-score[some], kind="stable")]
        found.append(Found(box[best], score[best].astype(np.float32), label[best]))
    return found


def _depth(classes: int | None) -> int:
    return 5 + classes if classes is not None and classes > 1 else 5


def _check_boxes(facts: Facts) -> None:
    if not facts.has_boxes:
        raise UsageError("the dataset has no boxes; leave target out, or pack it from a source that has them")
    if facts.without_boxes:  # which is not to say that there are none
        raise DataError(
            f"of {facts.without_boxes} of {facts.records} records nothing is said of boxes; leave them out with "
            "where('boxes IS NOT NULL') or pass another target"
        )


def _check_classes(facts: Facts, classes: int | None, *, one: str) -> None:
    """Raises UsageError or DataError when boxes have not what cells of `classes` need; `one` makes all of one class."""
    _check_boxes(facts)
    names = facts.box_classes
    classes = len(names) if classes is None else classes
    if classes > 1:
        if len(names) > classes:
            raise UsageError(f"classes is {classes}, the dataset has {len(names)}: {', '.join(names)}")
        if facts.unlabelled_boxes:
            raise DataError(f"{facts.unlabelled_boxes} boxes have no class; pass {one} to make all one")


def check_target(given: object) -> None:
    """Raises UsageError: it is no target."""
    missing = [name for name in _ASKED if not hasattr(given, name)]
    if isinstance(given, type) or missing:
        name = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.80}"
        what = "which is to be called" if isinstance(given, type) and not missing else f"without {missing[0]}"
        raise UsageError(
            f"target: {name}, {what}; wanted a target such as hr.Class(), hr.Boxes() or hr.Grid(7), or an object of "
            f"your own with {', '.join(_ASKED)} (headrace.targets.Target; docs/tutorials/your-own.md makes one)"
        )


_ASKED = ("wants_boxes", "wants_keypoints", "check", "encode", "lost")


def default_target(facts: Facts) -> Target | None:
    """The target that records bring themselves: y where it is kept, boxes where there are some, else the class, the
    classes where there may be several, or the value."""
    if facts.keeps_y:
        return Kept()
    if facts.has_boxes:
        return Boxes()
    if facts.unlabelled < facts.records:
        return Class()
    if facts.multi_label and facts.without_labels < facts.records:
        return MultiLabel()
    return None if facts.value_range is None else Value()


def _rank(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [n]: how many of the same ascending `group` come before each."""
    return np.arange(len(group)) - np.searchsorted(group, group)
