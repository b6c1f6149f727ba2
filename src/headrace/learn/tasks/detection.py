"""Task detection: boxes in an image, one per cell of a grid at most. Models end in a sigmoid per number of a cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.drawing import with_boxes
from headrace.imaging.geometry import area
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import backbones, boxes, networks, plots
from headrace.learn.backend import jit, keras
from headrace.learn.boxes import Truth
from headrace.learn.tasks import (
    Hits,
    Means,
    Outputs,
    Score,
    Shape,
    Task,
    as_text,
    check_threshold,
    measured,
    shape_text,
)
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from headrace.load.targets import Boxes, Found, Grid, Labels

ops = keras.ops

STRIDE = 32  # pixels of a cell

# Below this score a cell takes no part in the average precision: what would come so late is worth nothing there.
LEAST = 0.001

# Where training begins, as logits of the cell's numbers: boxes of a fifth of the image in the middle of their cells,
# and few of them (Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1).
_BIAS = (-1.4, -1.4, 0.0, 0.0, -3.0)


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 0.75, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """MobileNetV2's features (options as `backbones.mobilenet_v2`), a 3x3 convolution of 240, and a 1x1 to the cells.

    Raises UsageError: the images are not square, or no multiple of 32 pixels.
    """
    check_size(pixels.shape[1:3])
    features = backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen, up_to="block_16_project_BN")
    x = keras.layers.Conv2D(240, 3, padding="same", use_bias=False, name="conv")(features)
    x = keras.layers.BatchNormalization(momentum=backbones.MOMENTUM, name="conv_BN")(x)
    x = keras.layers.ReLU(name="conv_relu")(x)
    depth = Grid(classes=classes).depth
    cells = keras.layers.Conv2D(depth, 1, activation="sigmoid", name="cells")
    out = cells(x)
    cells.bias.assign(np.array([*_BIAS, *[0.0] * (depth - len(_BIAS))], np.float32))
    return out


def check_size(size: Size) -> None:
    """Raises UsageError when the built-in models can't take images of `size` (height, width)."""
    height, width = size
    if height != width or height % STRIDE:
        raise UsageError(f"size is {height}x{width}; detection wants square images, a multiple of {STRIDE} pixels")


def loss(truth: Any, cells: Any) -> Any:
    """A scalar, per box of the batch: focal loss of what a cell holds, over all cells; CIoU at the cells with a box.

    Of grids [b, g, g, 5 + classes]. Focal loss as Lin et al. 2017, CIoU as Zheng et al. 2020; classes have plain
    cross-entropy at the cells with a box.
    """
    truth, cells = ops.convert_to_tensor(truth), ops.convert_to_tensor(cells)
    there = truth[..., 4]
    p = ops.clip(cells[..., 4], 1e-6, 1 - 1e-6)
    focal = -there * (1 - p) ** 2 * ops.log(p) * 0.5 - (1 - there) * p**2 * ops.log(1 - p) * 0.5
    _, ciou = _overlap(truth, cells)
    total = ops.sum(focal) * 4 + ops.sum(there * (1 - ciou)) * 2
    if truth.shape[-1] > 5:
        q = ops.clip(cells[..., 5:], 1e-6, 1 - 1e-6)
        kinds = truth[..., 5:]
        total += ops.sum(there[..., None] * -(kinds * ops.log(q) + (1 - kinds) * ops.log(1 - q)))
    return total / ops.maximum(ops.sum(there), 1.0)


def iou(truth: Any, cells: Any) -> Any:
    """A scalar: mean IoU of the boxes that the cells with a box say, with that box. 0 for a batch without any."""
    truth, cells = ops.convert_to_tensor(truth), ops.convert_to_tensor(cells)
    there = truth[..., 4]
    return ops.sum(there * _overlap(truth, cells)[0]) / ops.maximum(ops.sum(there), 1.0)


def _overlap(truth: Any, cells: Any) -> tuple[Any, Any]:
    """(IoU, CIoU) [b, g, g] of the boxes of each cell of both grids.

    CIoU is IoU less the distance of the centres, as a share of the hull's diagonal, and less how far the aspects
    differ (Zheng et al. 2020, "Distance-IoU Loss", section 3). Where boxes don't overlap yet it draws them together
    at once, where GIoU first widens them: with few steps that decides whether small boxes are found.
    """
    g = cells.shape[1]

    def corners(grid: Any) -> tuple[Any, Any, Any, Any]:
        sides, centre = grid[..., 0:2] * g, grid[..., 2:4]  # in cells; both lie in the same one
        return centre - sides / 2, centre + sides / 2, sides, centre

    (low_a, high_a, sides_a, centre_a), (low_b, high_b, sides_b, centre_b) = corners(truth), corners(cells)
    common = ops.prod(ops.maximum(ops.minimum(high_a, high_b) - ops.maximum(low_a, low_b), 0.0), axis=-1)
    union = ops.prod(sides_a, axis=-1) + ops.prod(sides_b, axis=-1) - common
    overlap = common / ops.maximum(union, 1e-9)
    diagonal = ops.sum(ops.square(ops.maximum(high_a, high_b) - ops.minimum(low_a, low_b)), axis=-1)
    apart = ops.sum(ops.square(centre_a - centre_b), axis=-1) / ops.maximum(diagonal, 1e-9)
    turn = [ops.arctan2(sides[..., 1], sides[..., 0] + 1e-9) for sides in (sides_a, sides_b)]
    aspect = ops.square(turn[0] - turn[1]) * (4 / math.pi**2)
    weight = ops.stop_gradient(aspect / ops.maximum(1 - overlap + aspect, 1e-9))
    return overlap, overlap - apart - weight * aspect


@dataclass(frozen=True)
class Detected:
    """The boxes float32 [n, 4] in an image, x0, y0, x1, y1 in its pixels, best first; their scores and class names."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Detection(Task):
    """Targets and outputs float32 [b, g, g, 5 + classes], as `Grid` of g `cells` has them.

    `threshold`: the score to be shown.
    """

    threshold: float = 0.5
    cells: int = 7

    name: ClassVar[str] = "detection"
    models: ClassVar[Mapping[str, Any]] = {"mobilenet_v2": mobilenet_v2}
    figures: ClassVar[tuple[str, ...]] = ("precision.png",)
    columns: ClassVar[tuple[str, ...]] = ("score", "x0", "y0", "x1", "y1", "class")
    compared_columns: ClassVar[tuple[str, ...]] = (*columns, "right")
    right_means: ClassVar[str] = "images of which every box is found and none is false"
    kind: ClassVar[str] = "a detector"
    learns_from: ClassVar[str] = "boxes"
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 16,
        "learning_rate": 4e-3,
        "schedule": "cosine",
        "augment": ("flip", "crop", "colour"),
        "size": 224,
    }
    serves: ClassVar[Mapping[str, str]] = {
        "boxes": "x0, y0, x1, y1 of the box of each cell, in pixels of the input and not cut to it",
        "scores": "for each of these boxes and each class, how likely it is there; overlapping ones are not suppressed",
    }
    draw_on_original: ClassVar[bool] = True
    lost_targets_message: ClassVar[str] = (
        "%d boxes of an epoch are not learnt from: a larger one has their cell; try a larger size"
    )

    @classmethod
    def of(cls, dataset: Dataset) -> Detection | None:
        return cls(dataset.box_class_names or ("object",)) if dataset.has_boxes else None

    def with_threshold(self, threshold: float) -> Detection:
        return replace(self, threshold=check_threshold(threshold))

    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> Detection:
        depth = Grid(classes=len(self.class_names)).depth
        if len(out) != 3 or out[0] is None or out[0] != out[1] or out[2] != depth:
            raise UsageError(
                f"{name} says {shape_text(out)}, wanted [b, g, g, {depth}]: a grid of g x g cells, {depth} numbers each"
            )
        return replace(self, cells=out[0])

    @property
    def grid(self) -> Grid:
        return Grid(self.cells, classes=len(self.class_names))

    def target(self, size: Size) -> Grid:
        return self.grid

    def truth(self, dataset: Dataset, size: Size) -> Boxes:
        """All boxes: what shares a cell is lost to the model, not to its judge."""
        return Boxes(most=int(dataset.store.box_counts(dataset.rows).max(initial=1)))

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("boxes IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.01)

    def compile(self, model: Any, optimizer: Any) -> None:
        if networks.activation(model) == "linear":
            raise UsageError(
                "the network ends without an activation, and detection's loss takes numbers from 0 to 1: end it in a "
                "sigmoid, or compile it with a loss of its own"
            )
        model.compile(optimizer, loss=loss, metrics=[iou], jit_compile=jit())

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        # While nothing is found yet, the boxes may be on their way already.
        if "val_loss" in row:
            return row["val_ap50"], row["val_iou"], -row["val_loss"]
        return (-row["loss"],)

    def guessing(self) -> tuple[str, float] | None:
        return "ap50", 0.05

    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        means = Means()
        judged = _Judged(self)
        for batch in batches:
            cells = np.asarray(model.predict_on_batch(batch.images), np.float32)
            truth = self.grid.encode(_labels(batch))
            logs = measured(model, batch, truth) if own_loss else {"loss": float(loss(truth, cells))}
            means.add(logs, len(batch.ids))
            judged.add(batch, cells)
        precision = judged.precision()
        return means.values() | {
            "iou": judged.mean_iou(),
            "ap50": precision.ap50 or 0.0,
            "ap": precision.ap or 0.0,
        }

    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        judged = _Judged(self)
        means = Means()
        for batch, cells in outputs:
            means.add({"loss": float(loss(self.grid.encode(_labels(batch)), cells))}, len(batch.ids))
            judged.add(batch, cells)
        precision, shown = judged.precision(), judged.shown()
        metrics = {
            "ap50": precision.ap50,
            "ap": precision.ap,
            "ap50_by_size": {name: {"ap50": ap50, "boxes": n} for name, (ap50, n) in precision.by_size.items()},
            "mean_iou": judged.mean_iou(),
            "threshold": self.threshold,
            **shown,
            "class_names": list(self.class_names),
        }
        lines = [
            f"AP50 {as_text(precision.ap50)}, AP {as_text(precision.ap)}, mean IoU {judged.mean_iou():.4f}",
            f"at score {self.threshold:g}: {shown['true']} of {shown['boxes']} boxes found, {shown['false']} false; "
            f"{shown['images_right']:.1%} of {len(judged.truth)} images right",
            "",
            "boxes, in pixels of the model's input    AP50  boxes",
        ]
        for (name, (ap50, n)), words in zip(precision.by_size.items(), _SIZE_WORDS, strict=True):
            lines.append(f"{name:8} {words:28} {as_text(ap50):>8}  {n:>5}")
        figure = plots.precision(precision.curve, title=f"AP50 {as_text(precision.ap50)}")
        return Score(
            records=len(judged.truth),
            loss=means.values()["loss"],
            metrics=metrics,
            text="\n".join(lines),
            figures={self.figures[0]: figure},
        )

    def decoded(self, cells: Outputs, *, size: Size, threshold: float) -> list[Found]:
        """What grids [b, g, g, 5 + classes] say is in each of the images of `size`, in their pixels, suppressed."""
        found = replace(self.grid, cells=cells.shape[1]).decode(cells, size=size, threshold=threshold)
        return [boxes.suppressed(one) for one in found]

    def prediction(self, output: Outputs, view: Framing) -> Found:
        """In pixels of the photo."""
        (found,) = self.decoded(output[None], size=view.size, threshold=self.threshold)
        moved = view.back(found.boxes)
        some = area(moved) > 0
        return Found(moved[some], found.scores[some], found.labels[some])

    def served(self, said: Any, size: Size) -> dict[str, Any]:
        """Every cell as the target's `decode` reads it, in their order: boxes [b, n, 4], scores [b, n, classes]."""
        target = self.target(size)
        corner, unit, side = (ops.convert_to_tensor(one.astype(np.float32)) for one in target.places(size))
        cells = ops.reshape(said, (-1, corner.shape[0], target.depth))
        centre, half = corner + cells[..., 2:4] * unit, cells[..., 0:2] * side / 2
        y0x0, y1x1 = centre - half, centre + half
        boxes = ops.stack([y0x0[..., 1], y0x0[..., 0], y1x1[..., 1], y1x1[..., 0]], axis=-1)
        there = cells[..., 4:5]
        return {"boxes": boxes, "scores": there * cells[..., 5:] if target.depth > 5 else there}

    def served_units(self, size: Size) -> Mapping[str, Any]:
        return {"boxes": np.array([*size[::-1], *size[::-1]], np.float32)}

    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], Truth | None]:
        if not dataset.has_boxes:
            raise UsageError(f"{dataset.path}: has no boxes to compare with")
        number = {name: i for i, name in enumerate(self.class_names)}

        def observed(stored: Mapping[str, Any], view: Framing) -> Truth | None:
            boxes, names = stored["boxes"], stored["box_label_names"]
            if boxes is None:
                return None
            labels = [0] * len(boxes) if names is None else [number.get(name, -1) for name in names]
            return Truth(view.back(np.array(boxes, np.float32).reshape(-1, 4)), np.array(labels, np.int64))

        return observed

    def rows(self, found: Found) -> list[dict[str, Any]]:
        return [
            {"score": f"{score:.6f}"}
            | {name: f"{side:.2f}" for name, side in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
            | {"class": self.class_names[label]}
            for box, score, label in zip(*found, strict=True)
        ]

    def compared(self, found: Found, observed: Truth | None) -> list[dict[str, Any]]:
        if observed is None:
            return [row | {"right": ""} for row in self.rows(found)]
        hits = boxes.matches(found, observed)
        return [row | {"right": int(hit)} for row, hit in zip(self.rows(found), hits, strict=True)]

    def answer(self, found: Found) -> Detected:
        return Detected(found.boxes, found.scores, tuple(self.class_names[label] for label in found.labels))

    def wrong(self, found: Found, observed: Truth) -> float:
        return len(found.boxes) + len(observed.boxes) - 2.0 * int(boxes.matches(found, observed).sum())

    def is_correct(self, found: Found, observed: Truth) -> bool:
        hits = self.hits(found, observed)
        return hits.found == hits.there and not hits.false

    def hits(self, found: Found, observed: Truth) -> Hits:
        true = int(boxes.matches(found, observed).sum())
        return Hits(true, len(observed.boxes), len(found.boxes) - true)

    def hits_text(self, hits: Hits) -> str:
        return f"{super().hits_text(hits)}, {hits.false} false"

    def count_text(self, counts: Mapping[str, int], images: int) -> str:
        total = sum(counts.values())
        text = f"{total} box{'es' * (total != 1)}"
        if len(self.class_names) == 1:
            return f"{text} ({self.class_names[0]})"
        return f"{text}: {super().count_text(counts, images)}" if total else text

    def tile(self, image: Pixels, found: Found, observed: Truth | None) -> Tile:
        names = self.class_names if len(self.class_names) > 1 else ("",)
        texts = [f"{names[label]} {score:.2f}".strip() for score, label in zip(found.scores, found.labels, strict=True)]
        drawn = with_boxes(image, found.boxes, texts, truth=None if observed is None else observed.boxes)
        if observed is None:
            return Tile(drawn, f"{len(found.boxes)} box{'es' * (len(found.boxes) != 1)}")
        return Tile(drawn, self.hits_text(self.hits(found, observed)), right=self.is_correct(found, observed))


_SIZE_WORDS = ("below 32 x 32", "from 32 x 32", "from 96 x 96")


def _labels(batch: Batch) -> Labels:
    """What a loader had from which it made the `Boxes` of this batch."""
    there = batch.targets["mask"]
    return Labels(
        classes=np.full(len(batch.ids), -1, np.int64),
        size=batch.images.shape[1:3],
        boxes=batch.targets["boxes"][there],
        box_labels=batch.targets["labels"][there],
        box_image=np.nonzero(there)[0],
    )


class _Judged:
    """What was found in a dataset's images and what is there, in pixels of the model's input."""

    def __init__(self, task: Detection) -> None:
        self.task = task
        self.found: list[Found] = []
        self.truth: list[Truth] = []
        self.ious = self.cells = 0.0

    def add(self, batch: Batch, cells: Outputs) -> None:
        self.found += self.task.decoded(cells, size=batch.images.shape[1:3], threshold=LEAST)
        there, found, labels = (batch.targets[name] for name in ("mask", "boxes", "labels"))
        for i in range(len(batch.ids)):
            # Boxes without a name are all of the one class.
            self.truth.append(Truth(found[i][there[i]], np.maximum(labels[i][there[i]], 0)))
        grid = self.task.grid.encode(_labels(batch))
        n = float(grid[..., 4].sum())
        self.ious += float(iou(grid, cells)) * n
        self.cells += n

    def precision(self) -> boxes.Precision:
        return boxes.average_precision(self.found, self.truth, classes=len(self.task.class_names))

    def mean_iou(self) -> float:
        """Of what the cells with a box say of it, whatever their score."""
        return self.ious / self.cells if self.cells else 0.0

    def shown(self) -> dict[str, Any]:
        """What comes of showing all that reaches the task's threshold."""
        true = false = right = 0
        for found, truth in zip(self.found, self.truth, strict=True):
            some = found.scores >= self.task.threshold
            shown = Found(found.boxes[some], found.scores[some], found.labels[some])
            hits = int(boxes.matches(shown, truth).sum())
            true, false = true + hits, false + len(shown.boxes) - hits
            right += hits == len(shown.boxes) == len(truth.boxes)
        total = sum(len(truth.boxes) for truth in self.truth)
        return {"boxes": total, "true": true, "false": false, "images_right": right / len(self.truth)}
