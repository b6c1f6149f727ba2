"""Task multilabel: several classes per image, or none. Models end in a sigmoid for each of the classes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import backbones, plots, ranking
from headrace.learn.backend import jit, keras
from headrace.learn.doubts import doubted_sets
from headrace.learn.tasks import (
    Doubt,
    Head,
    Means,
    Outputs,
    Score,
    Shape,
    Task,
    as_text,
    check_threshold,
    listed,
    measured,
    shape_text,
)
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from headrace.load.targets import MultiLabel

_LEAST = 1e-7  # of a probability in a loss, as Keras clips it


def _head(features: Any, classes: int) -> Any:
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, activation="sigmoid", dtype="float32", name="probabilities")(pooled)


def vanilla(pixels: Any, classes: int) -> Any:
    """The CNN to begin with, `backbones.vanilla`. Raises UsageError: images too small to be pooled three times."""
    return _head(backbones.vanilla(pixels), classes)


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 1.0, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """MobileNetV2 (Sandler et al. 2018); the options are those of `backbones.mobilenet_v2`."""
    return _head(backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen), classes)


@dataclass(frozen=True)
class Labelled:
    """The classes of an image whose probability reaches the threshold, best first, and that of each class by name."""

    class_names: tuple[str, ...]
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class MultiLabelled(Task):
    """Targets float32 [b, classes] of 0 and 1; outputs float32 [b, classes], a probability for each by itself.

    `threshold`: the least probability of a class that an image is said to have. `logits`: outputs are before the
    sigmoid.
    """

    threshold: float = 0.5
    logits: bool = False

    name: ClassVar[str] = "multilabel"
    models: ClassVar[Mapping[str, Any]] = {"vanilla": vanilla, "mobilenet_v2": mobilenet_v2}
    heads: ClassVar[Mapping[str, Head]] = {"": Head(_head)}
    figures: ClassVar[tuple[str, ...]] = ("classes.png",)
    columns: ClassVar[tuple[str, ...]] = ("classes",)
    compared_columns: ClassVar[tuple[str, ...]] = ("observed", "estimated")
    right_means: ClassVar[str] = "images of which every class is found and none is false"
    kind: ClassVar[str] = "for several classes to an image"
    learns_from: ClassVar[str] = "several classes to an image"
    can_doubt: ClassVar[bool] = True
    common_loss: ClassVar[bool] = True
    serves: ClassVar[Mapping[str, str]] = {"probabilities": "the probability of each class by itself, in their order"}
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "augment": (),
    }

    @classmethod
    def of(cls, dataset: Dataset) -> MultiLabelled | None:
        return cls(dataset.class_names) if dataset.multi_label and dataset.class_names else None

    def with_threshold(self, threshold: float) -> MultiLabelled:
        return replace(self, threshold=check_threshold(threshold))

    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> MultiLabelled:
        n = len(self.class_names)
        if out != (n,):
            names = listed(self.class_names)
            raise UsageError(f"{name} says {shape_text(out)}, wanted [b, {n}]: a number for each class ({names})")
        if ends_in == "softmax":
            raise UsageError(
                f"{name} ends in a softmax, whose numbers sum to 1: an image may have several classes here, or none; "
                "end it in a sigmoid"
            )
        return replace(self, logits=ends_in == "linear")

    def probabilities(self, outputs: Outputs) -> Outputs:
        """float32 [b, classes] of what a model says. Raises UsageError: it says no such thing."""
        if np.isnan(outputs).any():
            raise UsageError("the model's outputs are NaN for some images, no probabilities")
        if self.logits:
            return np.asarray(0.5 * (1 + np.tanh(0.5 * outputs)), np.float32)  # a sigmoid that can't overflow
        if not ((outputs >= 0) & (outputs <= 1)).all():
            raise UsageError("the model's outputs are no probabilities; end it in a sigmoid")
        return outputs

    def served(self, said: Any, size: Size) -> dict[str, Any]:
        return {"probabilities": keras.ops.sigmoid(said) if self.logits else said}

    def target(self, size: Size) -> MultiLabel:
        return MultiLabel()

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("labels IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.Adam(learning_rate)

    def compile(self, model: Any, optimizer: Any) -> None:
        model.compile(optimizer, loss=keras.losses.BinaryCrossentropy(from_logits=self.logits), jit_compile=jit())

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        if "val_loss" in row:
            return row["val_map"], -row["val_loss"]
        return (-row["loss"],)

    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        means = Means()
        judged = _Judged(self)
        for batch in batches:
            said = np.asarray(model.predict_on_batch(batch.images), np.float32)
            if np.isnan(said).any():  # training went astray, which train says
                return {"loss": math.nan, "map": math.nan}
            judged.add(batch, said)
            if own_loss:
                means.add(measured(model, batch, batch.targets), len(batch.ids))
        found = means.values() if own_loss else {"loss": judged.loss()}
        return found | {"map": ranking.mean(judged.precisions()) or 0.0}

    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        judged = _Judged(self)
        for batch, said in outputs:
            judged.add(batch, said)
        truth, probabilities = judged.all()
        each, shown = judged.precisions(), probabilities >= self.threshold
        right = int((shown == truth).all(axis=1).sum())
        per_class = {
            name: {"ap": ap} | _at_threshold(truth[:, k], shown[:, k])
            for k, (name, ap) in enumerate(zip(self.class_names, each, strict=True))
        }
        overall, records = ranking.mean(each), len(truth)
        metrics = {
            "map": overall,
            "threshold": self.threshold,
            "exact": right / records,
            "per_class": per_class,
            "class_names": list(self.class_names),
        }
        there = sum(ap is not None for ap in each)
        width = max(map(len, ("class", *self.class_names)))
        lines = [
            f"mAP {as_text(overall)} (mean of {there} of {len(each)} classes)",
            f"at probability {self.threshold:g}: {right} of {records} images have all their classes and no other",
            "",
            f"{'class':{width}}      AP  precision  recall  images",
        ]
        for name, row in per_class.items():
            ap, precision, recall = (as_text(row[what]) for what in ("ap", "precision", "recall"))
            lines.append(f"{name:{width}}  {ap:>6}  {precision:>9}  {recall:>6}  {row['n']:>6}")
        figure = plots.shares(each, self.class_names, truth.sum(axis=0).tolist(), title=f"mAP {as_text(overall)}")
        return Score(
            records=records,
            loss=judged.loss(),
            metrics=metrics,
            text="\n".join(lines),
            figures={self.figures[0]: figure},
        )

    def doubts(self, targets: NDArray[Any], outputs: Outputs) -> list[Doubt]:
        has, said = targets > 0, self.probabilities(outputs)
        found = []
        for number, which, margin in zip(*doubted_sets(has, said), strict=True):
            own = np.where(has[number], said[number], 1 - said[number])
            found.append(
                Doubt(
                    number=int(number),
                    observed=_SEPARATOR.join(self._named(has[number])),
                    estimated=_SEPARATOR.join(self._named(has[number] ^ which)),
                    probability=float(own[which].min()),
                    margin=float(margin),
                )
            )
        return found

    def _named(self, has: NDArray[np.bool_]) -> list[str]:
        return [self.class_names[k] for k in np.flatnonzero(has)]

    def prediction(self, output: Outputs, view: Framing) -> Outputs:
        return self.probabilities(output[np.newaxis])[0]  # type: ignore[no-any-return]

    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], tuple[str, ...] | None]:
        if not dataset.multi_label:
            raise UsageError(f"{dataset.path}: has no {self.learns_from} to compare with")

        def observed(stored: Mapping[str, Any], _: Framing) -> tuple[str, ...] | None:
            return None if stored["label_names"] is None else tuple(stored["label_names"])

        return observed

    def _shown(self, found: Outputs) -> tuple[str, ...]:
        (names,) = MultiLabel().decode(found[np.newaxis], self.class_names, threshold=self.threshold)
        return names

    def rows(self, found: Outputs) -> list[dict[str, Any]]:
        row = {"classes": _SEPARATOR.join(self._shown(found))}
        return [row | {f"p_{name}": f"{p:.6f}" for name, p in zip(self.class_names, found, strict=True)}]

    def counted(self, found: Outputs) -> tuple[str, ...]:
        return self._shown(found)

    def compared(self, found: Outputs, observed: tuple[str, ...] | None) -> list[dict[str, Any]]:
        (row,) = self.rows(found)
        return [{"observed": _SEPARATOR.join(observed or ()), "estimated": row.pop("classes")} | row]

    def answer(self, found: Outputs) -> Labelled:
        return Labelled(self._shown(found), dict(zip(self.class_names, found.tolist(), strict=True)))

    def is_correct(self, found: Outputs, observed: tuple[str, ...]) -> bool:
        return set(self._shown(found)) == set(observed)

    def wrong(self, found: Outputs, observed: tuple[str, ...]) -> float:
        """How many classes are wrong, each by its probability; those that the model doesn't know count as wrong."""
        there = np.array([name in observed for name in self.class_names])
        return float(np.abs(found - there).sum()) + len(set(observed) - set(self.class_names))

    def tile(self, image: Pixels, found: Outputs, observed: tuple[str, ...] | None) -> Tile:
        shares = dict(zip(self.class_names, found.tolist(), strict=True))
        names = self._shown(found)
        said = [f"{name} {shares[name]:.0%}" for name in names[:_MOST_LINES]] + ["…"] * (len(names) > _MOST_LINES)
        estimated = "\n".join(["est: " + (said[0] if said else "none"), *said[1:]])  # a line would cut them short
        if observed is None:
            return Tile(image, estimated)
        there = "\n".join(textwrap.wrap(f"obs: {', '.join(observed) or 'none'}", 24, break_long_words=False))
        return Tile(image, f"{there}\n{estimated}", right=self.is_correct(found, observed))


_SEPARATOR = "; "  # of classes in a column of a table
_MOST_LINES = 6  # of classes found, below an image


def _at_threshold(truth: NDArray[np.bool_], shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Precision, recall and number of images of a class; None where there is nothing to divide by."""
    hit, said, there = int((truth & shown).sum()), int(shown.sum()), int(truth.sum())
    return {"precision": hit / said if said else None, "recall": hit / there if there else None, "n": there}


class _Judged:
    """What was said of a dataset's images and what is so: a number and a bit for each image and class in memory."""

    def __init__(self, task: MultiLabelled) -> None:
        self.task = task
        self._truth: list[NDArray[np.bool_]] = []
        self._said: list[Outputs] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        self._truth.append(batch.targets > 0)
        self._said.append(self.task.probabilities(outputs))

    def all(self) -> tuple[NDArray[np.bool_], Outputs]:
        """Which classes each image has, bool [n, classes], and their probabilities."""
        return np.concatenate(self._truth), np.concatenate(self._said)

    def precisions(self) -> list[float | None]:
        """The average precision of each class, None where no image has it."""
        truth, said = self.all()
        return [ranking.average_precision(truth[:, k], said[:, k]) for k in range(truth.shape[1])]

    def loss(self) -> float:
        """Binary cross-entropy, the mean over images and classes."""
        total = 0.0
        for truth, said in zip(self._truth, self._said, strict=True):
            p = np.clip(said.astype(np.float64), _LEAST, 1 - _LEAST)
            total -= float(np.log(np.where(truth, p, 1 - p)).sum())
        return total / sum(truth.size for truth in self._truth)
