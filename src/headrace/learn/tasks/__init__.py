"""What a model is trained for, and the registry of it. A new task is a new file here and a line in `_TASKS`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from headrace.errors import UsageError
from headrace.imaging.codec import Pixels
from headrace.imaging.placement import Size
from headrace.imaging.sheet import Tile
from headrace.learn import schema
from headrace.learn.plots import Figure
from headrace.load.dataset import Dataset
from headrace.load.iteration import Batch
from headrace.load.photos import Framing
from headrace.load.targets import Target

if TYPE_CHECKING:
    from headrace.learn.applications import Application

_TASKS = {
    "classification": "headrace.learn.tasks.classification:Classification",
    "detection": "headrace.learn.tasks.detection:Detection",
    "keypoints": "headrace.learn.tasks.keypoints:Keypoints",
    "multilabel": "headrace.learn.tasks.multilabel:MultiLabelled",
    "value": "headrace.learn.tasks.value:Value",
}
# In the order in which they are asked when the task is guessed from a dataset: boxes say more than a class does, and
# keypoints more than boxes.
_GUESSED = ("keypoints", "detection", "classification", "multilabel", "value")

Outputs = NDArray[np.float32]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Score:
    """What an evaluation found: `loss` as `compile` has a model learn by it, `metrics` JSON-able, `text` for people,
    `figures` by file name."""

    records: int
    loss: float
    metrics: Mapping[str, Any]
    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A record whose label is in doubt, by its `number` among those judged: what was `observed`, what it seems to be,
    the `probability` that the model gives to what was observed, and by how much (`margin`, see learn.doubts)."""

    number: int
    observed: str
    estimated: str
    probability: float
    margin: float


@dataclass(frozen=True, slots=True)
class Head:
    """What a task makes of the features of any network: `build` of (features, classes).

    Features are the network's last map [b, h, w, f]; with `strides` a map of 1/stride of the image's sides, or of
    several a list of such, the deepest last. `check` raises UsageError where images of a size (height, width) won't do.
    """

    build: Callable[[Any, int], Any]
    strides: tuple[int, ...] = ()
    check: Callable[[Size], None] | None = None


class Hits(NamedTuple):
    """Of the objects of images, boxes or points: how many are found, of how many that are there; and how many of those
    said are false."""

    found: int
    there: int
    false: int


@dataclass(frozen=True)
class Task(ABC):
    """Models, loss, metrics, and how a model's outputs [b, ...] become scores and predictions."""

    class_names: tuple[str, ...]

    name: ClassVar[str]
    # Name -> function (pixels: Keras input of raw images [b, h, w, c], classes: int, **options) -> outputs.
    # The first is the default; an option is a keyword argument of the function.
    models: ClassVar[Mapping[str, Callable[..., Any]]]
    # What becomes of the features of a network of keras.applications, by what its name then ends in.
    heads: ClassVar[Mapping[str, Head]]
    figures: ClassVar[tuple[str, ...]]  # file names of what a score draws
    columns: ClassVar[tuple[str, ...]]  # of the table of predictions of photos, those that are always there
    compared_columns: ClassVar[tuple[str, ...]]  # the same of the records of a dataset
    count_column: ClassVar[str] = "class"  # the column of `rows` by which predictions are counted
    # When an image is right, for people; None for a task that is never right, and only more or less far off.
    right_means: ClassVar[str | None]
    can_doubt: ClassVar[bool] = False  # whether `doubts` are known
    mixes: ClassVar[tuple[str, ...]] = ("mixup", "cutmix")  # names of how images may be mixed
    one_name: ClassVar[bool] = False  # whether a single name, which a photo's own may hold, says what is in an image
    kind: ClassVar[str]  # what a model of this task is called, such as "a detector"
    learns_from: ClassVar[str]  # what a dataset must have for it, such as "boxes"
    common_loss: ClassVar[bool] = False  # whether the loss says something of a model that learnt by another one
    # What an Options leaves open: batch_size, learning_rate, schedule, augment, and size where images may differ in it.
    defaults: ClassVar[Mapping[str, Any]]
    # The tensors that an exported model gives, by name, and what they are.
    serves: ClassVar[Mapping[str, str]]
    # Whether predictions are drawn on the photo itself, a picture each, and not on what the model saw of it.
    draw_on_original: ClassVar[bool] = False
    lost_targets_message: ClassVar[str] = ""  # what is said when the loader counts %d labels as lost

    @classmethod
    @abstractmethod
    def of(cls, dataset: Dataset) -> Task | None:
        """The task with this dataset's classes; None where it has nothing to say about it. Raises UsageError."""

    def with_threshold(self, threshold: float) -> Task:
        """The task with `threshold` as the least score of what is shown. Raises UsageError: it has none."""
        raise UsageError(f"a threshold is for detection, keypoints and multilabel, this run's task is {self.name}")

    @abstractmethod
    def for_model(self, out: Shape, size: Size, *, ends_in: str | None, name: str) -> Task:
        """The task as a network says it that makes numbers of shape `out` (without the batch) of an image of `size`.

        `ends_in` is its last function, such as "softmax", None where nobody knows; `name` is what to call it.
        Raises UsageError: such numbers say nothing of this task; the message has the shape that is wanted.
        """

    def learning_from(self, view: Dataset) -> Task:
        """The task for who learns from these records, all of which it can use."""
        return self

    def mixed_by(self, mix: str) -> Task:
        """The task for who learns from images that are mixed so. Raises UsageError: nothing can be said of such."""
        if mix not in self.mixes:
            raise UsageError(f"mix is {mix!r}; {self.name} has {', '.join(self.mixes)}")
        return self

    def class_weights(self, view: Dataset, asked: str | Mapping[str, float]) -> NDArray[np.float32]:
        """How much an image of each class counts, float32 [classes], as `Options.class_weights` says, of these records.

        Raises UsageError: unknown classes, a weight that can't be meant, or no single class to go by.
        """
        raise UsageError(f"class_weights are for classification, this run's task is {self.name}")

    def learnt(self, targets: Any) -> Any:
        """What a model is given to learn, of a batch's targets of `target` or, where images are mixed, of `truth`."""
        return targets

    @property
    def statistics(self) -> Mapping[str, float]:
        """What `learning_from` saw in the records, as `for_recipe` takes it."""
        return {}

    def defaults_for(self, dataset: Dataset) -> Mapping[str, Any]:
        """The `defaults` for this dataset."""
        return self.defaults

    @abstractmethod
    def target(self, size: Size) -> Target:
        """What a loader makes of a record's labels for this task's models of images of `size`. Raises UsageError."""

    def truth(self, dataset: Dataset, size: Size) -> Target:
        """What a loader makes of the labels of `dataset` for `validate` and `score`."""
        return self.target(size)

    @abstractmethod
    def select(self, dataset: Dataset) -> Dataset:
        """The view of those records that this task can learn from."""

    @abstractmethod
    def optimizer(self, learning_rate: Any) -> Any:
        """A Keras optimizer; `learning_rate` is a number or a schedule."""

    @abstractmethod
    def compile(self, model: Any, optimizer: Any) -> None:
        """Give a model its loss and metrics. Raises UsageError: it ends in numbers that the loss can't take."""

    @abstractmethod
    def rank(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """How good an epoch is by its row of the history: the model of the greatest is kept."""

    @abstractmethod
    def score(self, outputs: Iterable[tuple[Batch, Outputs]]) -> Score:
        """Judge the outputs for every record of a dataset."""

    def doubts(self, targets: NDArray[Any], outputs: Outputs) -> list[Doubt]:
        """The records whose labels the outputs confidently contradict, of `targets` [n, ...] of a loader and `outputs`
        [n, ...] for records that were not learnt from; the most doubtful first. Only where `can_doubt`."""
        raise NotImplementedError

    def prediction(self, output: Outputs, view: Framing) -> Any:
        """What one image's output says, for `rows`, `right` and `tile`; `view` is how the photo came to the model."""
        return output

    @abstractmethod
    def served(self, said: Any, size: Size) -> dict[str, Any]:
        """What a model that says float32 [b, ...] of images of `size` finds in them, in their pixels, as `prediction`
        has it: tensors float32 [b, ...] of Keras by the names of `serves`."""

    def served_units(self, size: Size) -> Mapping[str, Any]:
        """What two numbers of `served` may differ by in shares of; 1 for names that aren't here."""
        return {}

    @abstractmethod
    def ground_truth(self, dataset: Dataset) -> Callable[[Mapping[str, Any], Framing], Any]:
        """What says, of a row of this dataset's catalog and the way from a photo to the stored image, what is in the
        photo: for `right` and `tile`, None where nobody knows. Raises UsageError: nothing to compare with."""

    @abstractmethod
    def rows(self, found: Any) -> list[dict[str, Any]]:
        """What was found in one image as rows of a table; each row has what `count_column` names."""

    def counted(self, found: Any) -> Iterable[str]:
        """What was found in one image, by the names that it is counted by."""
        return (row[self.count_column] for row in self.rows(found))

    @abstractmethod
    def compared(self, found: Any, observed: Any) -> list[dict[str, Any]]:
        """The rows, with what of it was observed, None where nobody knows: for the records of a dataset."""

    @abstractmethod
    def answer(self, found: Any) -> Any:
        """What was found in one image as a plain object, for `Run.predict`."""

    @abstractmethod
    def is_correct(self, found: Any, observed: Any) -> bool | None:
        """Whether what was found in one image is what was observed there; None where `right_means` is."""

    def guessing(self) -> tuple[str, float] | None:
        """A metric of `validate`, and what of it a model reaches that has learnt nothing, or next to nothing."""
        return None

    def hits(self, found: Any, observed: Any) -> Hits | None:
        """What of the objects in one image is found; None for a task that is about whole images."""
        return None

    def count_text(self, counts: Mapping[str, int], images: int) -> str:
        """What was found in so many images, by the names of `counted`, for people: "12 cat, 8 dog"."""
        return listed([f"{n} {name}" for name, n in counts.items() if n])

    def right_text(self, right: int, known: int, hits: Hits | None) -> str:
        """How many of the images whose truth is known are right, what that means, and what of their objects is."""
        text = f"{right} of {known} right ({right / known:.1%}): {self.right_means}"
        return text if hits is None else f"{text}; {self.hits_text(hits)}"

    def off_text(self, known: int, off: float) -> str:
        """How far off (`wrong`) the images are on average whose truth is known, where none is right."""
        return f"off by {off:.4g} on average, of the {known} whose truth is known"

    def hits_text(self, hits: Hits) -> str:
        """ "40 of 71 boxes found, 31 false"."""
        return f"{hits.found} of {hits.there} {self.learns_from} found"

    @abstractmethod
    def wrong(self, found: Any, observed: Any) -> float:
        """How far off is what was found in one image, to sort by."""

    @abstractmethod
    def tile(self, image: Pixels, found: Any, observed: Any) -> Tile:
        """One image [h, w, c] of the contact sheet, with what was found and, where not None, observed."""

    @abstractmethod
    def validate(self, model: Any, batches: Iterable[Batch], *, own_loss: bool = False) -> dict[str, float]:
        """Loss and metrics of a compiled model over all batches, of `truth`; `own_loss`: it was not compiled here."""

    def build(self, model: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        """A new Keras model for raw images of `shape` (h, w, c). Raises UsageError, and what models raise."""
        from headrace.learn.backend import keras

        function = self._network(self.model_name(model))
        known = list(inspect.signature(function).parameters)[2:]
        if unknown := [option for option in options if option not in known]:
            takes = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise UsageError(f"model {model} has no option {', '.join(unknown)}; {takes}")
        kinds, annotations = get_type_hints(function), inspect.get_annotations(function)
        for name, value in options.items():
            if not schema.fits(value, kinds[name]):
                raise UsageError(f"{name} is {value!r:.80}, wanted {annotations[name]}")
        pixels = keras.Input(shape, name="pixels")
        return keras.Model(pixels, function(pixels, len(self.class_names), **options), name=model)

    def rebuild(self, model: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        """The model that `build` made, for weights that the caller has: none are looked for. Raises UsageError."""
        from headrace.learn.backbones import LATER

        later = {} if options.get("weights") is None else {"weights": LATER}
        return self.build(model, shape, {**options, **later})

    def model_name(self, name: str | None) -> str:
        """The name of a model of this task, the default one for None; it may be spelled in any way.

        Raises UsageError listing those that are spelled nearly so.
        """
        if name is None:
            return next(iter(self.models))
        known = {_plain(one): one for one in (*self._applied(), *self.models)}
        if (found := known.get(_plain(name))) is not None:
            return found
        near = [known[one] for one in difflib.get_close_matches(_plain(name), known, n=6)]
        hint = f"; near are {', '.join(near)}" if near else ""
        raise UsageError(
            f"model is {name!r}{hint}; {self.name} has {', '.join(self.models)}, and the networks of keras.applications"
        )

    def _network(self, name: str) -> Callable[..., Any]:
        """The function of (pixels, classes, **options) of a model of this name."""
        if name in self.models:
            return self.models[name]
        from headrace.learn.applications import network

        application, head = self._applied()[name]
        return network(application, head.build, strides=head.strides, check=head.check)

    def _applied(self) -> dict[str, tuple[Application, Head]]:
        """The models that the networks of keras.applications make with this task's heads, by their names."""
        from headrace.learn.applications import applications

        networks, heads = applications().items(), self.heads.items()
        return {name + ending: (network, head) for name, network in networks for ending, head in heads}


def _plain(name: str) -> str:
    """A model's name without what people spell differently: "efficientnetv2b0" of "EfficientNetV2-B0"."""
    return re.sub("[^a-z0-9]", "", name.lower())


@dataclass
class Means:
    """Running means over images of what batches measured: plain numbers, that a checkpoint can hold."""

    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, logs: Mapping[str, float], images: int) -> None:
        self.count += images
        for name, value in logs.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value) * images

    def values(self) -> dict[str, float]:
        names = sorted(self.sums, key=lambda name: name != "loss")  # Keras puts the loss last or first, as it likes
        return {name: self.sums[name] / self.count for name in names}


def measured(model: Any, batch: Batch, targets: Any) -> dict[str, float]:
    """Loss and metrics of a compiled model for one batch, by name."""
    model.reset_metrics()  # Keras summed them up over calls until keras-team/keras#22617
    logs: dict[str, float] = model.test_on_batch(batch.images, targets, return_dict=True)
    return logs


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a line, the first so many of them."""
    return ", ".join([*names[:most], *["…"] * (len(names) > most)])


def check_threshold(threshold: float) -> float:
    """The least score of what is shown. Raises UsageError."""
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold is {threshold}, wanted 0 to 1")
    return threshold


def shape_text(out: Shape) -> str:
    """A shape of outputs without their batch, for people."""
    return f"[{', '.join(['b', *('any' if side is None else str(side) for side in out)])}]"


def as_text(share: float | None) -> str:
    """A share for people, "-" where there is none."""
    return "-" if share is None else f"{share:.4f}"


def _task(name: str) -> type[Task]:
    if name not in _TASKS:
        raise UsageError(f"task is {name!r}; known are {', '.join(_TASKS)}")
    module, _, attribute = _TASKS[name].partition(":")
    task: type[Task] = getattr(importlib.import_module(module), attribute)
    return task


def for_dataset(dataset: Dataset, name: str | None = None) -> Task:
    """The task `name`, or the first that the dataset has labels for. Raises UsageError."""
    for candidate in [name] if name else _GUESSED:
        if task := _task(candidate).of(dataset):
            return task
    if dataset.store.kept:
        raise UsageError(
            f"{dataset.path}: its y is kept as it is, which no task here learns; train on it by Keras's own fit, over "
            "loader(...).to_keras()"
        )
    raise UsageError(f"{dataset.path}: has no labels for {name or 'any task'}; known tasks are {', '.join(_TASKS)}")


def for_recipe(name: str, class_names: tuple[str, ...], statistics: Mapping[str, float]) -> Task:
    """The task of a trained run. Raises UsageError."""
    task = _task(name)(class_names)
    if statistics.keys() != task.statistics.keys():
        names = [", ".join(some) or "none" for some in (statistics, task.statistics)]
        raise UsageError(f"statistics are {names[0]}; {name} has {names[1]}")
    return replace(task, **statistics)  # type: ignore[arg-type]
