"""Task classification: one class per image. Models end in a softmax over the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import backbones, plots
from headrace.learn.backend import jit, keras
from headrace.learn.doubts import doubted
from headrace.learn.tasks import Doubt, Head, Means, Outputs, Score, Shape, Task, as_text, measured, shape_text
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from headrace.load.targets import Class
from headrace.load.weights import weights_of

ops = keras.ops


def _head(features: Any, classes: int) -> Any:
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(pooled)


def _same_side(middle: float) -> Any:
    """A metric: the share of images of which the likelier class is said, where that of the second is its share."""

    def accuracy(truth: Any, said: Any) -> Any:
        return keras.ops.cast(keras.ops.equal(truth > 0.5, said > middle), "float32")

    return accuracy


def vanilla(pixels: Any, classes: int) -> Any:
    """The CNN to begin with, `backbones.vanilla`. Raises UsageError: images too small to be pooled three times."""
    return _head(backbones.vanilla(pixels), classes)


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 1.0, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """MobileNetV2 (Sandler et al. 2018); the options are those of `backbones.mobilenet_v2`."""
    return _head(backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen), classes)


@dataclass(frozen=True)
class Classified:
    """The class of an image, its probability, and the probability of each class by name."""

    class_name: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Classification(Task):
    """Targets int64 [b], the class index; outputs float32 [b, classes], a probability each.

    With two classes outputs may be [b, 1], the probability of the second. `logits`: outputs are before softmax or
    sigmoid. `scores`: a sigmoid for each class; they are probabilities once they are divided by their sum. `soft`:
    images are mixed, and targets are float32 [b, classes], shares of the classes.
    """

    one: bool = False
    logits: bool = False
    scores: bool = False
    soft: bool = False

    name: ClassVar[str] = "classification"
    models: ClassVar[Mapping[str, Any]] = {"vanilla": vanilla, "mobilenet_v2": mobilenet_v2}
    heads: ClassVar[Mapping[str, Head]] = {"": Head(_head)}
    figures: ClassVar[tuple[str, ...]] = ("confusion.png",)
    columns: ClassVar[tuple[str, ...]] = ("class", "probability")
    compared_columns: ClassVar[tuple[str, ...]] = ("observed", "estimated", "probability")
    right_means: ClassVar[str] = "images whose class is right"
    kind: ClassVar[str] = "a classifier"
    learns_from: ClassVar[str] = "classes"
    common_loss: ClassVar[bool] = True
    one_name: ClassVar[bool] = True
    serves: ClassVar[Mapping[str, str]] = {"probabilities": "the probability of each class, in their order"}
    can_doubt: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "augment": (),
    }

    @classmethod
    def of(cls, dataset: Dataset) -> Classification | None:
        if not dataset.class_names or dataset.multi_label:
            return None
        if len(dataset.class_names) < 2:
            raise UsageError(
                f"{dataset.path}: has one class, {dataset.class_names[0]!r}; classification wants two or more"
            )
        return cls(dataset.class_names)

    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> Classification:
        n = len(self.class_names)
        one = out == (1,) and n == 2
        if out != (n,) and not one:
            also = ", or [b, 1], the probability of the second" if n == 2 else ""
            names = ", ".join(self.class_names)
            raise UsageError(f"{name} says {shape_text(out)}, wanted [b, {n}]: a number for each class ({names}){also}")
        return replace(self, one=one, logits=ends_in == "linear", scores=ends_in == "sigmoid" and not one)

    def probabilities(self, outputs: Outputs) -> Outputs:
        """float32 [b, classes] of what a model says, rows that sum to 1. Raises UsageError: it says no such thing."""
        if self.logits:
            said = np.concatenate([np.zeros_like(outputs), outputs], axis=1) if self.one else outputs
            powers = np.exp(said - said.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
        if self.one:
            said = np.concatenate([1 - outputs, outputs], axis=1)
        else:
            said = outputs / np.maximum(outputs.sum(axis=1, keepdims=True), 1e-9) if self.scores else outputs
        if (said < 0).any() or not np.allclose(said.sum(axis=1), 1, atol=0.01):
            raise UsageError("the model's outputs are no probabilities; end it in a softmax")
        return said

    def served(self, said: Any, size: Size) -> dict[str, Any]:
        if self.logits:
            said = ops.softmax(ops.concatenate([ops.zeros_like(said), said], axis=1) if self.one else said, axis=1)
        elif self.one:
            said = ops.concatenate([1 - said, said], axis=1)
        elif self.scores:
            said = said / ops.maximum(ops.sum(said, axis=1, keepdims=True), 1e-9)
        return {"probabilities": said}

    def target(self, size: Size) -> Class:
        return Class()

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("label IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.Adam(learning_rate)

    def mixed_by(self, mix: str) -> Classification:
        super().mixed_by(mix)
        return replace(self, soft=True)

    def learnt(self, targets: NDArray[Any]) -> NDArray[Any]:
        if not self.soft:
            return targets
        shares = np.eye(len(self.class_names), dtype=np.float32)[targets] if targets.ndim == 1 else targets
        return shares[:, 1:] if self.one else shares

    def class_weights(self, view: Dataset, asked: str | Mapping[str, float]) -> NDArray[np.float32]:
        weights = np.ones(len(self.class_names), np.float32)
        try:
            found = weights_of(view.selection, asked)
        except UsageError as error:
            raise UsageError(f"class_{error}") from error
        if found.max(initial=0) > np.finfo(np.float32).max:
            raise UsageError(f"class_weights: {found.max():g} is larger than float32 can hold")
        weights[view.labels] = found
        return weights

    def compile(self, model: Any, optimizer: Any) -> None:
        if self.one:
            loss = keras.losses.BinaryCrossentropy(from_logits=self.logits)
            middle = 0.0 if self.logits else 0.5
            accuracy = _same_side(middle) if self.soft else keras.metrics.BinaryAccuracy("accuracy", threshold=middle)
        else:
            kind = keras.losses.CategoricalCrossentropy if self.soft else keras.losses.SparseCategoricalCrossentropy
            loss = kind(from_logits=self.logits)
            accuracy = "accuracy"
        model.compile(optimizer, loss=loss, metrics=[accuracy], jit_compile=jit())

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        # Accuracy on a small validation split takes few values, so epochs often tie in it.
        if "val_loss" in row:
            return row.get("val_accuracy", 0.0), -row["val_loss"]
        return (-row["loss"],)

    def guessing(self) -> tuple[str, float] | None:
        return "accuracy", 1 / len(self.class_names)

    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        means = Means()
        for batch in batches:
            means.add(measured(model, batch, self.learnt(batch.targets)), len(batch.ids))
        return means.values()

    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        n = len(self.class_names)
        confusion = np.zeros((n, n), np.int64)
        entropy = 0.0
        for batch, said in outputs:
            probabilities = self.probabilities(said)
            np.add.at(confusion, (batch.targets, probabilities.argmax(axis=-1)), 1)
            p = probabilities[np.arange(len(batch.ids)), batch.targets].astype(np.float64)
            entropy -= float(np.log(np.clip(p, 1e-7, 1)).sum())  # as Keras clips it
        per_class = _per_class(confusion, self.class_names)
        records, right = int(confusion.sum()), int(np.trace(confusion))
        metrics = {
            "accuracy": right / records,
            "per_class": per_class,
            "class_names": list(self.class_names),
            "confusion": confusion.tolist(),  # row: observed, column: predicted
        }
        width = max(map(len, ("class", *self.class_names)))
        lines = [f"accuracy {right / records:.4f} ({right} of {records})", ""]
        lines.append(f"{'class':{width}}  precision  recall  images")
        for name, row in per_class.items():
            precision, recall = as_text(row["precision"]), as_text(row["recall"])
            lines.append(f"{name:{width}}  {precision:>9}  {recall:>6}  {row['n']:>6}")
        figure = plots.confusion(confusion, self.class_names)
        return Score(
            records=records,
            loss=entropy / records,
            metrics=metrics,
            text="\n".join(lines),
            figures={self.figures[0]: figure},
        )

    def doubts(self, targets: NDArray[Any], outputs: Outputs) -> list[Doubt]:
        said = self.probabilities(outputs)
        return [
            Doubt(
                number=number,
                observed=self.class_names[int(targets[number])],
                estimated=self.class_names[seems],
                probability=float(said[number, int(targets[number])]),
                margin=margin,
            )
            for number, seems, margin in zip(*(of.tolist() for of in doubted(targets, said)), strict=True)
        ]

    def prediction(self, output: Outputs, view: Framing) -> Outputs:
        return self.probabilities(output[np.newaxis])[0]  # type: ignore[no-any-return]

    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], str | None]:
        if not (dataset.labels >= 0).any():
            raise UsageError(f"{dataset.path}: has no classes to compare with")
        return lambda row, _: row["label_name"]

    def compared(self, found: Outputs, observed: str | None) -> list[dict[str, Any]]:
        (row,) = self.rows(found)
        return [{"observed": observed or "", "estimated": row.pop("class")} | row]

    def answer(self, found: Outputs) -> Classified:
        shares = dict(zip(self.class_names, found.tolist(), strict=True))
        best = self.class_names[int(found.argmax())]
        return Classified(best, shares[best], shares)

    def rows(self, found: Outputs) -> list[dict[str, Any]]:
        best = int(found.argmax())
        row = {"class": self.class_names[best], "probability": f"{found[best]:.6f}"}
        return [row | {f"p_{name}": f"{p:.6f}" for name, p in zip(self.class_names, found, strict=True)}]

    def is_correct(self, found: Outputs, observed: str) -> bool:
        return self.class_names[int(found.argmax())] == observed

    def wrong(self, found: Outputs, observed: str) -> float:
        return 1 - float(found[self.class_names.index(observed)]) if observed in self.class_names else 1.0

    def tile(self, image: Pixels, found: Outputs, observed: str | None) -> Tile:
        best = int(found.argmax())
        estimated = f"est: {self.class_names[best]} {found[best]:.0%}"
        if observed is None:
            return Tile(image, estimated)
        return Tile(image, f"obs: {observed}\n{estimated}", right=self.is_correct(found, observed))


def _per_class(confusion: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Precision, recall and number of images per class; None where there is nothing to divide by."""
    out: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        hit, predicted, observed = int(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
        out[name] = {
            "precision": hit / predicted if predicted else None,
            "recall": hit / observed if observed else None,
            "n": observed,
        }
    return out
