"""Task keypoints: the points of one object per image, as heatmaps or as coordinates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging import mirror
from headrace.imaging.codec import Pixels
from headrace.imaging.drawing import with_points
from headrace.imaging.geometry import around
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import backbones, networks, plots, points
from headrace.learn.backend import jit, keras
from headrace.learn.points import ALPHA, Array
from headrace.learn.tasks import (
    Head,
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
from headrace.load.facts import Facts
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from headrace.load.targets import Heatmap, Labels, Points, Target, largest

ops = keras.ops
log = logging.getLogger(__name__)

HEATMAP = Heatmap(stride=4, sigma=2.0)

STRIDE = 32  # pixels of a cell of the deepest features
WIDTH = 64  # filters of a layer of the heads

# MobileNetV2's maps of 1/4, 1/8, 1/16 and 1/32 of the image.
_DEPTHS = ("block_2_add", "block_5_add", "block_12_add", "block_16_project_BN")


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 0.75, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """Heatmaps: MobileNetV2's deepest features, enlarged step by step to a quarter of the image.

    At each step the features of that size are laid beside them (Ronneberger et al. 2015, "U-Net"). From random weights
    on 300 drawn faces of 64 pixels, 10 epochs, one run each: PCK 0.94 on new ones, 0.62 without them.
    Options as `backbones.mobilenet_v2`. Raises UsageError: sides are no multiples of 32 pixels.
    """
    _check_size(pixels.shape[1:3])
    return enlarged(backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen, up_to=_DEPTHS), classes)


def enlarged(features: Sequence[Any], classes: int) -> Any:
    """Heatmaps of features of 1/4, 1/8, 1/16 and 1/32 of the image's sides."""
    *finer, x = features
    x = _layer(x, 1, "deepest")
    for beside, side in zip(reversed(finer), ("sixteenth", "eighth", "quarter"), strict=True):
        x = keras.layers.UpSampling2D(name=f"up_to_{side}")(x)
        x = keras.layers.Concatenate(name=f"beside_{side}")([x, beside])
        x = _layer(x, 3, side)
    return heatmaps(x, classes)


def mobilenet_v2_points(
    pixels: Any, classes: int, *, alpha: float = 0.75, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """Coordinates out of MobileNetV2's deepest features: smaller and faster than heatmaps, and less exact.

    Options and errors as `mobilenet_v2`.
    """
    _check_size(pixels.shape[1:3])
    return narrowed(
        backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen, up_to=_DEPTHS[-1]), classes
    )


def narrowed(features: Any, classes: int) -> Any:
    """Coordinates of features [b, h, w, f]."""
    return coordinates(_layer(features, 1, "deepest"), classes)


def heatmaps(features: Any, classes: int) -> Any:
    """A map per point of features [b, h, w, f]: a softmax over its cells, as high as `HEATMAP` draws its peaks."""
    height, width = features.shape[1:3]
    x = keras.layers.Conv2D(classes, 1, dtype="float32", name="logits")(features)
    x = keras.layers.Reshape((height * width, classes), dtype="float32", name="cells")(x)
    x = keras.layers.Softmax(axis=1, dtype="float32", name="softmax")(x)
    x = keras.layers.Reshape((height, width, classes), dtype="float32", name="maps")(x)
    return keras.layers.Rescaling(2 * math.pi * HEATMAP.sigma**2, dtype="float32", name="heatmaps")(x)


def coordinates(features: Any, classes: int) -> Any:
    """x / w, y / h and how likely it is there, [b, k, 3], of features [b, h, w, f]: all cells count, by their place."""
    x = keras.layers.Flatten(name="cells")(features)
    x = keras.layers.Dense(3 * classes, activation="sigmoid", dtype="float32", name="numbers")(x)
    return keras.layers.Reshape((classes, 3), dtype="float32", name="points")(x)


def _layer(x: Any, side: int, name: str) -> Any:
    x = keras.layers.Conv2D(WIDTH, side, padding="same", use_bias=False, name=name)(x)
    x = keras.layers.BatchNormalization(momentum=backbones.MOMENTUM, name=f"{name}_BN")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _check_size(size: Size) -> None:
    height, width = size
    if height % STRIDE or width % STRIDE:
        raise UsageError(f"size is {height}x{width}; keypoints want multiples of {STRIDE} pixels")


def heatmap_loss(truth: Any, maps: Any) -> Any:
    """A scalar, per labelled point: how far its map is from the drawn one as distributions over the cells.

    Of heatmaps [b, h, w, k]: the Kullback-Leibler divergence, 0 for the truth. A map of zeros in `truth` is a point
    that nobody has labelled, and takes no part. Squared differences, which is what heatmaps are mostly trained with,
    are content with zeros everywhere as long as little is learnt: nearly all cells are 0. Distributions can't be. On
    300 drawn faces of 64 pixels, 10 epochs, one run each: PCK 0.94 on new ones, 0.75 with squared differences.
    """
    truth, maps = ops.convert_to_tensor(truth), ops.convert_to_tensor(maps)
    total = ops.sum(truth, axis=(1, 2), keepdims=True)
    there = ops.cast(total > 0, truth.dtype)
    p = truth / ops.maximum(total, 1e-9)
    q = maps / ops.maximum(ops.sum(maps, axis=(1, 2), keepdims=True), 1e-9)
    divergence = p * (ops.log(ops.maximum(p, 1e-12)) - ops.log(ops.maximum(q, 1e-12)))
    return ops.sum(there * divergence) / ops.maximum(ops.sum(there), 1.0)


def _peaks(maps: Any, stride: int) -> Any:
    """What `Heatmap.decode` reads out of maps [b, rows, columns, k], points [b, k, 3], by operations of Keras.

    Cells are chosen by masks: gathering ties PyTorch's exporter to one size of the batch.
    """
    _, rows, columns, k = maps.shape
    flat = ops.reshape(maps, (-1, rows * columns, k))
    peak, score = ops.argmax(flat, axis=1), ops.max(flat, axis=1)
    row, column = peak // columns, peak % columns
    across = ops.sum(maps * ops.expand_dims(_mask(row, rows), 2), axis=1)
    down = ops.sum(maps * ops.expand_dims(_mask(column, columns), 1), axis=2)
    x, y = _vertex(across, column, columns), _vertex(down, row, rows)
    found = ops.stack([(x + 0.5) * stride, (y + 0.5) * stride, ops.minimum(ops.maximum(score, 0.0), 1.0)], axis=-1)
    return ops.where(ops.expand_dims(score, -1) > 0, found, 0.0)


def _vertex(lines: Any, peak: Any, cells: int) -> Any:
    """Where [b, k] lines [b, cells, k] have their maximum, given its cell: as `Heatmap` finds it."""
    middle = ops.minimum(ops.maximum(peak, 1), cells - 2)
    least = float(np.finfo(np.float32).tiny)
    before, here, after = (
        ops.log(ops.maximum(ops.sum(lines * _mask(middle + step, cells), axis=1), least)) for step in (-1, 0, 1)
    )
    bend = 2 * here - before - after
    at = ops.cast(peak, lines.dtype)
    off = (after - before) / (2 * ops.where(bend > 0, bend, 1.0))
    place = ops.where(bend > 0, ops.cast(middle, lines.dtype) + off, at)
    return ops.minimum(ops.maximum(place, at - 0.5), at + 0.5)


def _mask(cell: Any, cells: int) -> Any:
    """1 in the cell of each line, else 0: float32 [b, cells, k] of cells [b, k]."""
    numbers = ops.reshape(ops.arange(cells, dtype="int32"), (1, cells, 1))
    return ops.cast(ops.equal(ops.cast(ops.expand_dims(cell, 1), "int32"), numbers), "float32")


def coordinate_loss(truth: Any, said: Any) -> Any:
    """A scalar, per labelled point: how far off it is, in tenths of the image; and, per point, whether it is there.

    Of points [b, k, 3] as the target `Points` has them. Where no point of an image is labelled, nothing is said of
    which are there; where some are, cross-entropy takes the others for absent (as Maji et al. 2022, "YOLO-Pose").
    """
    truth, said = ops.convert_to_tensor(truth), ops.convert_to_tensor(said)
    there = truth[..., 2]
    off = ops.sum(there * ops.sum(ops.abs(truth[..., :2] - said[..., :2]), axis=-1)) / ops.maximum(ops.sum(there), 1.0)
    known = ops.cast(ops.sum(there, axis=1, keepdims=True) > 0, truth.dtype) * ops.ones_like(there)
    p = ops.clip(said[..., 2], 1e-6, 1 - 1e-6)
    doubt = -ops.sum(known * (there * ops.log(p) + (1 - there) * ops.log(1 - p))) / ops.maximum(ops.sum(known), 1.0)
    return 10 * off + doubt


class Observed(NamedTuple):
    """What is known of an object: `points` float32 [k, 3] = x, y, v and its `box` float32 [4], in pixels."""

    points: Array
    box: Array


@dataclass(frozen=True, slots=True)
class _Objects(Target):
    """What a batch is judged by: "points" float32 [b, k, 3] and "boxes" float32 [b, 4] of one object per image.

    In pixels of the batch's images; zeros where none has a labelled point.
    """

    wants_boxes = True
    wants_keypoints = True

    def check(self, facts: Facts) -> None:
        HEATMAP.check(facts)

    def encode(self, labels: Labels) -> dict[str, Array]:
        kept = largest(labels.boxes, labels.keypoints, labels.box_image)
        b = len(labels.classes)
        found = np.zeros((b, labels.keypoints.shape[1], 3), np.float32)
        boxes = np.zeros((b, 4), np.float32)
        image = labels.box_image[kept]
        found[image], boxes[image] = labels.keypoints[kept], labels.boxes[kept]
        return {"points": found, "boxes": boxes}


@dataclass(frozen=True)
class Located:
    """The keypoints float32 [k, 3] of an image: x, y in its pixels and score, 0, 0, 0 for one that is not there; and
    their names."""

    points: Array
    names: tuple[str, ...]


@dataclass(frozen=True)
class Keypoints(Task):
    """`class_names` are the keypoints'. Outputs float32 [b, h / stride, w / stride, k], heatmaps as `Heatmap` has them,
    or of a model for `coordinates` [b, k, 3], as `Points` has them. `threshold`: the least score of a point that is
    shown.
    """

    threshold: float = 0.3
    coordinates: bool = False
    stride: int = HEATMAP.stride

    name: ClassVar[str] = "keypoints"
    models: ClassVar[Mapping[str, Any]] = {"mobilenet_v2": mobilenet_v2, "mobilenet_v2_points": mobilenet_v2_points}
    heads: ClassVar[Mapping[str, Head]] = {
        "": Head(enlarged, strides=(4, 8, 16, STRIDE), check=_check_size),
        "_points": Head(narrowed, strides=(STRIDE,), check=_check_size),
    }
    figures: ClassVar[tuple[str, ...]] = ("pck.png",)
    columns: ClassVar[tuple[str, ...]] = ("keypoint", "score", "x", "y")
    compared_columns: ClassVar[tuple[str, ...]] = (*columns, "observed_x", "observed_y")
    right_means: ClassVar[str] = "images of which every labelled point is found"
    kind: ClassVar[str] = "for keypoints"
    learns_from: ClassVar[str] = "keypoints"
    count_column: ClassVar[str] = "keypoint"
    mixes: ClassVar[tuple[str, ...]] = ("mosaic",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 16,
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "augment": ("flip", "crop", "colour"),
        "size": 224,
    }
    serves: ClassVar[Mapping[str, str]] = {"keypoints": "x, y in pixels of the input and the score of each keypoint"}
    draw_on_original: ClassVar[bool] = True
    lost_targets_message: ClassVar[str] = "%d objects of an epoch are not learnt from: of each image the largest is"

    @classmethod
    def of(cls, dataset: Dataset) -> Keypoints | None:
        if not dataset.has_keypoints:
            return None
        return cls(dataset.keypoint_names or tuple(map(str, range(dataset.keypoints))))

    def with_threshold(self, threshold: float) -> Keypoints:
        return replace(self, threshold=check_threshold(threshold))

    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> Keypoints:
        k, (height, width) = len(self.class_names), size
        if out == (k, 3):
            return replace(self, coordinates=True)
        if (
            len(out) != 3
            or out[2] != k
            or not out[0]
            or not out[1]
            or height * out[1] != width * out[0]
            or height % out[0]
        ):
            raise UsageError(
                f"{name} says {shape_text(out)}, wanted heatmaps [b, {height} / s, {width} / s, {k}] of a stride s, or "
                f"coordinates [b, {k}, 3]"
            )
        return replace(self, coordinates=False, stride=height // out[0])

    @property
    def heatmap(self) -> Heatmap:
        return replace(HEATMAP, stride=self.stride)

    def defaults_for(self, dataset: Dataset) -> Mapping[str, Any]:
        """Without flips, where nobody says which points are left and right of each other."""
        unpaired = mirror.unpaired(dataset.keypoints, dataset.keypoint_names, dataset.flip_pairs)
        if not unpaired:
            return self.defaults
        log.warning("photos are not mirrored: nobody said which keypoint is the partner of %s", ", ".join(unpaired))
        return {**self.defaults, "augment": tuple(name for name in self.defaults["augment"] if name != "flip")}

    def target(self, size: Size) -> Target:
        return Points() if self.coordinates else self.heatmap

    def truth(self, dataset: Dataset, size: Size) -> Target:
        return _Objects()

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("keypoints IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.01)

    @property
    def loss(self) -> Callable[[Any, Any], Any]:
        return coordinate_loss if self.coordinates else heatmap_loss

    def compile(self, model: Any, optimizer: Any) -> None:
        if networks.activation(model) == "linear":
            raise UsageError(
                "the network ends without an activation, and the keypoints' losses take numbers of 0 and more: end it "
                "in a softmax over the cells or a sigmoid, or compile it with a loss of its own"
            )
        model.compile(optimizer, loss=self.loss, jit_compile=jit())

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        # PCK forgives much and is soon 1; OKS goes on telling better from good.
        if "val_loss" in row:
            return row["val_pck"], row["val_oks"], -row["val_loss"]
        return (-row["loss"],)

    def guessing(self) -> tuple[str, float] | None:
        return "pck", 0.05

    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        means = Means()
        judged = _Judged(self)
        for batch in batches:
            said = np.asarray(model.predict_on_batch(batch.images), np.float32)
            truth = self.target(batch.images.shape[1:3]).encode(_labels(batch))
            logs = measured(model, batch, truth) if own_loss else {"loss": float(self.loss(truth, said))}
            means.add(logs, len(batch.ids))
            judged.add(batch, said)
        similarity = judged.similarity()
        found = {"pck": judged.pck(), "oks": similarity.oks, "ap50": similarity.ap50, "ap": similarity.ap}
        return means.values() | {name: value or 0.0 for name, value in found.items()}

    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        judged = _Judged(self)
        means = Means()
        for batch, said in outputs:
            truth = self.target(batch.images.shape[1:3]).encode(_labels(batch))
            means.add({"loss": float(self.loss(truth, said))}, len(batch.ids))
            judged.add(batch, said)
        off, similarity = judged.distances(), judged.similarity()
        each = [points.pck(column) for column in off.T]
        counts = (~np.isnan(off)).sum(axis=0).tolist()
        total, overall = sum(counts), points.pck(off)
        metrics = {
            "pck": overall,
            "pck_alpha": ALPHA,
            "oks": similarity.oks,
            "ap50": similarity.ap50,
            "ap": similarity.ap,
            "objects": int((~np.isnan(off)).any(axis=1).sum()),
            "points": total,
            "per_keypoint": {
                name: {"pck": share, "points": n} for name, share, n in zip(self.class_names, each, counts, strict=True)
            },
            "keypoint_names": list(self.class_names),
        }
        width = max(map(len, ("keypoint", *self.class_names)))
        lines = [
            f"PCK@{ALPHA} {as_text(overall)} ({int((off <= ALPHA).sum())} of {total} points)",
            f"OKS {as_text(similarity.oks)}, AP50 {as_text(similarity.ap50)}, AP {as_text(similarity.ap)}",
            "",
            f"{'keypoint':{width}}  {f'PCK@{ALPHA}':>8}  points",
        ]
        for name, share, n in zip(self.class_names, each, counts, strict=True):
            lines.append(f"{name:{width}}  {as_text(share):>8}  {n:>6}")
        figure = plots.pck(off, self.class_names, alpha=ALPHA)
        return Score(
            records=len(off),
            loss=means.values()["loss"],
            metrics=metrics,
            text="\n".join(lines),
            figures={self.figures[0]: figure},
        )

    def decoded(self, outputs: Outputs, *, size: Size) -> Array:
        """Points float32 [b, k, 3] = x, y in pixels of the model's input of `size` (height, width), and score."""
        return Points().decode(outputs, size=size) if self.coordinates else self.heatmap.decode(outputs)

    def prediction(self, output: Outputs, view: Framing) -> Array:
        """Points float32 [k, 3] = x, y in pixels of the photo, and score."""
        return view.back_points(self.decoded(output[np.newaxis], size=view.size)[0])

    def served(self, said: Any, size: Size) -> dict[str, Any]:
        if self.coordinates:
            return {"keypoints": said * ops.convert_to_tensor(np.array([*size[::-1], 1], np.float32))}
        return {"keypoints": _peaks(said, self.stride)}

    def served_units(self, size: Size) -> Mapping[str, Any]:
        return {"keypoints": np.array([*size[::-1], 1], np.float32)}

    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], Observed | None]:
        there = type(self).of(dataset)
        if there is None:
            raise UsageError(f"{dataset.path}: has no keypoints to compare with")
        if there.class_names != self.class_names:
            raise UsageError(
                f"{dataset.path}: its keypoints are {', '.join(there.class_names)}, the run's are "
                f"{', '.join(self.class_names)}; the same names in the same order are wanted"
            )

        def observed(stored: Mapping[str, Any], view: Framing) -> Observed | None:
            if stored["keypoints"] is None:
                return None
            sets = np.array(stored["keypoints"], np.float32).reshape(-1, len(self.class_names), 3)
            boxes = around(sets) if stored["boxes"] is None else np.array(stored["boxes"], np.float32).reshape(-1, 4)
            kept = largest(boxes, sets, np.zeros(len(sets), np.int64))
            box = view.back(boxes[kept])
            if not len(kept) or not points.sides(box)[0]:
                return None
            return Observed(view.back_points(sets[kept[0]]), box[0])

        return observed

    def rows(self, found: Array) -> list[dict[str, Any]]:
        return [
            {"keypoint": name, "score": f"{score:.6f}", "x": f"{x:.2f}", "y": f"{y:.2f}"}
            for name, (x, y, score) in zip(self.class_names, found.tolist(), strict=True)
            if score > 0 and score >= self.threshold
        ]

    def compared(self, found: Array, observed: Observed | None) -> list[dict[str, Any]]:
        there = {} if observed is None else dict(zip(self.class_names, observed.points.tolist(), strict=True))
        rows = []
        for row in self.rows(found):
            x, y, v = there.get(row["keypoint"], (0, 0, 0))
            seen = v > 0
            rows.append(row | {"observed_x": f"{x:.2f}" if seen else "", "observed_y": f"{y:.2f}" if seen else ""})
        return rows

    def _shown(self, found: Array) -> Array:
        """The points whose score reaches the threshold, the others as 0, 0, 0."""
        shown: Array = np.where((found[:, 2] >= max(self.threshold, 1e-9))[:, np.newaxis], found, 0)
        return shown

    def answer(self, found: Array) -> Located:
        return Located(self._shown(found), self.class_names)

    def wrong(self, found: Array, observed: Observed) -> float:
        (off,) = points.distances(found[np.newaxis], observed.points[np.newaxis], observed.box[np.newaxis])
        return float(np.nanmean(off)) if not np.isnan(off).all() else 0.0

    def _hits(self, found: Array, observed: Observed) -> NDArray[np.bool_]:
        """Of each labelled point, whether it is shown near enough."""
        (off,) = points.distances(found[np.newaxis], observed.points[np.newaxis], observed.box[np.newaxis])
        shown = found[:, 2] >= self.threshold
        hits: NDArray[np.bool_] = ((off <= ALPHA) & shown)[~np.isnan(off)]
        return hits

    def hits(self, found: Array, observed: Observed) -> Hits:
        """Of the labelled points; what is found where nothing is labelled may be right."""
        hits = self._hits(found, observed)
        return Hits(int(hits.sum()), len(hits), 0)

    def count_text(self, counts: Mapping[str, int], images: int) -> str:
        return f"{sum(counts.values())} of {images * len(self.class_names)} keypoints"

    def is_correct(self, found: Array, observed: Observed) -> bool:
        """Whether every labelled point is found; what is found where nothing is labelled may be right."""
        return bool(self._hits(found, observed).all())

    def tile(self, image: Pixels, found: Array, observed: Observed | None) -> Tile:
        shown = self._shown(found)
        truth = None if observed is None else observed.points
        drawn = with_points(image, shown, self.class_names, truth=truth)
        if observed is None:
            return Tile(drawn, f"{int((shown[:, 2] > 0).sum())} of {len(shown)} keypoints")
        return Tile(drawn, self.hits_text(self.hits(found, observed)), right=self.is_correct(found, observed))


def _labels(batch: Batch) -> Labels:
    """What a loader had from which it made the `_Objects` of this batch."""
    found, boxes = batch.targets["points"], batch.targets["boxes"]
    b = len(batch.ids)
    return Labels(
        classes=np.full(b, -1, np.int64),
        size=batch.images.shape[1:3],
        boxes=boxes,
        box_labels=np.full(b, -1, np.int64),
        box_image=np.arange(b),
        keypoints=found,
    )


class _Judged:
    """What was found in a dataset's images and what is there, in pixels of the model's input."""

    def __init__(self, task: Keypoints) -> None:
        self.task = task
        self._found: list[Array] = []
        self._truth: list[Array] = []
        self._boxes: list[Array] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        self._found.append(self.task.decoded(outputs, size=batch.images.shape[1:3]))
        self._truth.append(batch.targets["points"])
        self._boxes.append(batch.targets["boxes"])

    def _all(self) -> tuple[Array, Array, Array]:
        return np.concatenate(self._found), np.concatenate(self._truth), np.concatenate(self._boxes)

    def distances(self) -> NDArray[np.float64]:
        return points.distances(*self._all())

    def pck(self) -> float | None:
        return points.pck(self.distances())

    def similarity(self) -> points.Similarity:
        return points.similarity(*self._all(), sigmas=points.sigmas(self.task.class_names))
