"""Task value: a number for each image, such as an age or a size. Models end in a linear layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import backbones, plots
from headrace.learn.backend import jit, keras
from headrace.learn.tasks import Head, Means, Outputs, Score, Shape, Task, as_text, measured, shape_text
from headrace.load import targets
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.photos import Framing

ops = keras.ops


def _head(features: Any) -> Any:
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(1, dtype="float32", name="number")(pooled)


def vanilla(pixels: Any, classes: int) -> Any:
    """The CNN to begin with, `backbones.vanilla`. Raises UsageError: images too small to be pooled three times."""
    return _head(backbones.vanilla(pixels))


def mobilenet_v2(
    pixels: Any, classes: int, *, alpha: float = 1.0, weights: backbones.Weights = None, frozen: bool = False
) -> Any:
    """MobileNetV2 (Sandler et al. 2018); the options are those of `backbones.mobilenet_v2`."""
    return _head(backbones.mobilenet_v2(pixels, alpha=alpha, weights=weights, frozen=frozen))


@dataclass(frozen=True)
class Value(Task):
    """Targets float32 [b], outputs float32 [b, 1] or [b], in the unit of the values.

    `centre` and `spread` are the mean and the standard deviation of the values that are learnt from. A built-in network
    learns numbers around 0 and brings them there by its last layer, and the loss is the mean squared error as a share
    of `spread`², which is 1 for who always says the mean: so nothing hangs on the unit of the values. The metric is the
    mean absolute error (MAE), in their unit.
    """

    centre: float = 0.0
    spread: float = 1.0

    name: ClassVar[str] = "value"
    models: ClassVar[Mapping[str, Any]] = {"vanilla": vanilla, "mobilenet_v2": mobilenet_v2}
    heads: ClassVar[Mapping[str, Head]] = {"": Head(lambda features, classes: _head(features))}
    figures: ClassVar[tuple[str, ...]] = ("values.png",)
    columns: ClassVar[tuple[str, ...]] = ("value",)
    compared_columns: ClassVar[tuple[str, ...]] = ("observed", "estimated")
    right_means: ClassVar[None] = None
    kind: ClassVar[str] = "for values"
    learns_from: ClassVar[str] = "values"
    common_loss: ClassVar[bool] = True
    serves: ClassVar[Mapping[str, str]] = {"value": "the value, in the unit of those trained on"}
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "augment": (),
    }

    @classmethod
    def of(cls, dataset: Dataset) -> Value | None:
        return cls(("value",)) if dataset.has_values else None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and 0 < self.spread < math.inf):
            raise UsageError(
                f"values around {self.centre} that differ by {self.spread}, wanted numbers, the second > 0"
            )

    def learning_from(self, view: Dataset) -> Value:
        self.target((0, 0)).check(view.selection.facts(objects=False))
        known = view.store.values(view.rows)
        centre, spread = float(known.mean()), float(known.std())
        if spread <= abs(centre) * float(np.finfo(np.float32).eps):  # all the same, but for what rounding makes of them
            spread = abs(centre) or 1.0
        return replace(self, centre=centre, spread=spread)

    @property
    def statistics(self) -> Mapping[str, float]:
        return {"centre": self.centre, "spread": self.spread}

    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> Value:
        if out not in ((), (1,)):
            raise UsageError(f"{name} says {shape_text(out)}, wanted [b, 1]: a number")
        if ends_in == "softmax":
            raise UsageError(f"{name} ends in a softmax, of one number, which is always 1; end it in a linear layer")
        return self

    def build(self, model: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        plain = super().build(model, shape, options)
        in_their_unit = keras.layers.Rescaling(self.spread, offset=self.centre, dtype="float32", name="value")
        return keras.Model(plain.inputs[0], in_their_unit(plain.outputs[0]), name=model)

    def target(self, size: Size) -> targets.Value:
        return targets.Value()

    def select(self, dataset: Dataset) -> Dataset:
        return dataset.where("value IS NOT NULL")

    def optimizer(self, learning_rate: Any) -> Any:
        return keras.optimizers.Adam(learning_rate)

    def compile(self, model: Any, optimizer: Any) -> None:
        mae = keras.metrics.MeanAbsoluteError(name="mae")
        model.compile(optimizer, loss=self.loss, metrics=[mae], jit_compile=jit())

    def loss(self, truth: Any, said: Any) -> Any:
        """A scalar: the mean squared error of numbers [b] or [b, 1], as a share of the values' variance."""
        off = (ops.reshape(said, (-1,)) - ops.reshape(truth, (-1,))) / self.spread
        return ops.mean(ops.square(off))

    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        if "val_loss" in row:
            return (-row.get("val_mae", row["val_loss"]), -row["val_loss"])
        return (-row["loss"],)

    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        means = Means()
        for batch in batches:
            means.add(measured(model, batch, batch.targets), len(batch.ids))
        return means.values()

    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        both = [(batch.targets, self.target((0, 0)).decode(said)) for batch, said in outputs]
        truth, said = (np.concatenate(some).astype(np.float64) for some in zip(*both, strict=True))
        off = said - truth
        square, spread = float((off**2).mean()), float(truth.var())
        mae, guess = float(np.abs(off).mean()), float(np.abs(truth - truth.mean()).mean())
        r2 = 1 - square / spread if spread else None
        metrics = {
            "mae": mae,
            "rmse": square**0.5,
            "r2": r2,
            "mae_of_mean": guess,
            "values": {"min": float(truth.min()), "mean": float(truth.mean()), "max": float(truth.max())},
        }
        lines = [
            f"MAE {mae:.4g}",
            f"who says {truth.mean():.4g}, the mean, of every image has MAE {guess:.4g}",
            f"RMSE {square**0.5:.4g}, R2 {as_text(r2)}; values are {truth.min():.4g} to {truth.max():.4g}",
        ]
        figure = plots.values(truth, said, title=f"MAE {mae:.4g}, R2 {as_text(r2)}")
        return Score(
            records=len(truth),
            loss=square / self.spread**2,
            metrics=metrics,
            text="\n".join(lines),
            figures={self.figures[0]: figure},
        )

    def prediction(self, output: Outputs, view: Framing) -> float:
        return float(output.reshape(()))

    def served(self, said: Any, size: Size) -> dict[str, Any]:
        return {"value": ops.reshape(said, (-1,))}

    def served_units(self, size: Size) -> Mapping[str, Any]:
        return {"value": self.spread}

    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], float | None]:
        if not dataset.has_values:
            raise UsageError(f"{dataset.path}: has no values to compare with")
        return lambda row, _: row["value"]

    def rows(self, found: float) -> list[dict[str, Any]]:
        return [{"value": _written(found)}]

    def counted(self, found: float) -> tuple[str, ...]:
        return self.class_names

    def compared(self, found: float, observed: float | None) -> list[dict[str, Any]]:
        return [{"observed": "" if observed is None else repr(observed), "estimated": _written(found)}]

    def answer(self, found: float) -> float:
        return found

    def is_correct(self, found: float, observed: float) -> None:
        return None

    def count_text(self, counts: Mapping[str, int], images: int) -> str:
        return "a value each" if images > 1 else "a value"

    def off_text(self, known: int, off: float) -> str:
        return f"off by {off:.4g} on average (MAE), of the {known} whose value is known"

    def wrong(self, found: float, observed: float) -> float:
        return abs(found - observed)

    def tile(self, image: Pixels, found: float, observed: float | None) -> Tile:
        return Tile(image, f"est: {found:.4g}" if observed is None else f"obs: {observed:.4g}\nest: {found:.4g}")


def _written(value: float) -> str:
    """A number in a table, of as many digits as a float32 has."""
    return f"{value:.7g}"
