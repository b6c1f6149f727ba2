"""Task classification: one class per image. Models end in a softmax over the classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.sheet import Tile
from headrace.imaging.transforms import Size
from headrace.learn import backbones, plots
from headrace.learn.backend import jit, keras
from headrace.learn.tasks import Outputs, Score, Task, as_text
from headrace.load.dataset import Dataset
from headrace.load.loader import Batch
from headrace.load.targets import Class


def _head(features: Any, classes: int) -> Any:
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, activation="softmax", name="probabilities")(pooled)


def vanilla(pixels: Any, classes: int) -> Any:
    """The CNN to begin with: 3x3 convolutions of 16 to 256 filters, pooled after all but the first and last.

    Raises UsageError: images too small to be pooled three times.
    """
    height, width = pixels.shape[1:3]
    if min(height, width) < 8:
        raise UsageError(f"vanilla wants images of 8 x 8 pixels or more, these have {height} x {width}")
    x = backbones.normalised(pixels)
    for filters in (16, 32, 64, 128, 256):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{filters}")(x)
        if filters not in (16, 256):
            x = keras.layers.MaxPooling2D(name=f"pool{filters}")(x)
    return _head(x, classes)


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 1.0, weights: str | None = None, frozen: bool = False
) -> Any:
    """MobileNetV2 (Sandler et al. 2018); the options are those of `backbones.mobilenet_v2`."""
    return _head(backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen), classes)


@dataclass(frozen=True)
class Classification(Task):
    """Targets int64 [b], the class index; outputs float32 [b, classes], a probability each."""

    name: ClassVar[str] = "classification"
    models: ClassVar[Mapping[str, Any]] = {"vanilla": vanilla, "mobilenet_v2": mobilenet_v2}
    figures: ClassVar[tuple[str, ...]] = ("confusion.png",)
    columns: ClassVar[tuple[str, ...]] = ("class", "probability")
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "augment": (),
    }

    @classmethod
    def of(cls, dataset: Dataset) -> Classification | None:
        if not dataset.class_names:
            return None
        if len(dataset.class_names) < 2:
            raise UsageError(
                f"{dataset.path}: has one class, {dataset.class_names[0]!r}; classification wants two or more"
            )
        return cls(dataset.class_names)

    def target(self, size: Size) -> Class:
        return Class()

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("label IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.Adam(learning_rate)

    def compile(self, model: Any, optimizer: Any) -> None:
        model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit())

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        # Accuracy on a small validation split takes few values, so epochs often tie in it.
        if "val_loss" in row:
            return row["val_accuracy"], -row["val_loss"]
        return (-row["loss"],)

    def score(self, dataset: Dataset, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        n = len(self.class_names)
        confusion = np.zeros((n, n), np.int64)
        for batch, probabilities in outputs:
            np.add.at(confusion, (batch.targets, probabilities.argmax(axis=-1)), 1)
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
        return Score(records=records, metrics=metrics, text="\n".join(lines), figures={self.figures[0]: figure})

    def rows(self, found: Outputs) -> list[dict[str, Any]]:
        best = int(found.argmax())
        row = {"class": self.class_names[best], "probability": f"{found[best]:.6f}"}
        return [row | {f"p_{name}": f"{p:.6f}" for name, p in zip(self.class_names, found, strict=True)}]

    def right(self, found: Outputs, observed: str) -> bool:
        return self.class_names[int(found.argmax())] == observed

    def tile(self, image: Pixels, found: Outputs, observed: str | None) -> Tile:
        best = int(found.argmax())
        caption = f"{self.class_names[best]} {found[best]:.0%}"
        if observed is None:
            return Tile(image, caption)
        right = self.right(found, observed)
        return Tile(image, caption if right else f"{caption}\nis {observed}", right=right)


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
