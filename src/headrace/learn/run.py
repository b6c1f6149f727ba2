"""A trained run, loaded once and asked as often as one likes. Evaluation and prediction both go through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headrace.errors import DataError, UsageError
from headrace.imaging.placement import place
from headrace.learn import networks, parts, tasks
from headrace.learn.backend import jit, keras, precision
from headrace.learn.recipe import Recipe, RunFolder, filled
from headrace.load.dataset import Dataset
from headrace.load.facts import Facts
from headrace.load.iteration import Batch
from headrace.load.photos import Framing, Photo, PhotoLoader
from headrace.load.targets import Labels, Target

if TYPE_CHECKING:
    from headrace.learn.evaluate import Evaluation
    from headrace.learn.export import Exported


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run says of one image: `id` of the record or the photo, `image` as the model saw it, how it came to be
    that (`view`), and what was `found` in it, for its task."""

    id: str
    image: Any
    view: Framing
    found: Any


class Run:
    """A RUN folder with the model of its best epoch, loaded: `predict`, `evaluate`, `export`, `recipe`, `model`.

    `network`: the model or function that the run was trained with, where it was the caller's own and holds code that
    Keras can't load by itself; or "file.py:function". Raises NotThereError, UsageError (no run, one without a model
    yet, code that nobody named), DataError (damaged).
    """

    def __init__(self, folder: Path | str, *, network: networks.Network | None = None) -> None:
        self.folder = RunFolder(Path(folder))
        self.network = network
        self.recipe: Recipe = self.folder.read_recipe()
        if not self.folder.model.exists():
            raise UsageError(
                f"{self.folder.folder}: has no model yet; its training has not come to the end of an epoch"
            )
        recipe = self.recipe
        try:
            task = tasks.for_recipe(recipe.task, recipe.class_names, recipe.statistics)
        except UsageError as error:
            raise DataError(f"{self.folder.recipe_json} is damaged: {error}") from error
        self.model: Any
        if network is not None:
            self.model = self._rebuilt(network)
        elif recipe.own_model:
            self.model = self._loaded()
        else:
            self.model = self._filled(task)
        if not jit():
            self.model.jit_compile = False
        self.task = task.for_model(
            networks.output_shape(self.model, recipe.shape, name=str(self.folder.model)),
            recipe.size,
            ends_in=networks.activation(self.model),
            name=recipe.model,
        )

    def predict(self, images: Any, *, threshold: float | None = None) -> Any:
        """What the model says of an image: `Classified`, `Detected` or `Located`, with boxes and points in pixels of
        the image given, upright, `Labelled`, or a float for a value; of a list of images, or an array [n, h, w] or
        [n, h, w, c], a list of them.

        An image is a path, uint8 [h, w], [h, w, 1] or [h, w, 3] (RGB), or a PIL image; it goes the way that the
        training images went. A run on arrays as they are (`dtype="keep"`) takes such arrays, of the very shape.
        `threshold`: the least score of a box, a point or one of several classes. Raises UsageError, DataError (one
        can't be used: which and why).
        """
        task = self.task if threshold is None else self.task.with_threshold(threshold)
        given, single = _several(images, self.recipe)
        if self.recipe.keeps:
            stack = _stacked(given, self.recipe)
            answers = [task.answer(task.prediction(out, _UNMOVED)) for out in (self.outputs(stack) if given else ())]
        else:
            answers = [task.answer(answer.found) for answer in self._asked(given, task)]
        return answers[0] if single else answers

    def evaluate(self, dataset: Dataset | Path | str, **options: Any) -> Evaluation:
        """Judge the model on a dataset: see `headrace.evaluate`."""
        from headrace.learn.evaluate import evaluate

        return evaluate(self, dataset, **options)

    def export(self, out: Path | str, *, format: str, overwrite: bool = False) -> Exported:
        """Write the model for who has neither Headrace nor Keras, as "onnx", "saved_model" or "torchscript", all in it
        that a prediction needs: see `headrace.learn.export`."""
        from headrace.learn.export import export

        return export(self, out, format=format, overwrite=overwrite)

    def photos(self, images: Iterable[Photo], *, workers: int | None = None) -> PhotoLoader:
        """Photos as the model takes them, in batches. Raises UsageError: it takes no photos."""
        self.check_photos()
        batch_size = filled(self.recipe.options.batch_size)
        return PhotoLoader(images, like=self.recipe, batch_size=batch_size, workers=workers)

    def check_photos(self) -> None:
        """Raises UsageError when the model takes no photos."""
        recipe = self.recipe
        if recipe.keeps:
            raise UsageError(
                f"{self.folder.folder}: was trained on arrays as they are ({recipe.dtype} {list(recipe.shape)}), not "
                "on pixels; ask Run.predict about arrays, or predict about a dataset of them"
            )

    def outputs(self, images: Any) -> tasks.Outputs:
        """The model's outputs float32 [b, ...] for raw images."""
        return np.asarray(self.model.predict_on_batch(images), np.float32)

    def batches(self, dataset: Dataset, *, workers: int | None = None) -> Iterator[tuple[Batch, tasks.Outputs]]:
        """Batches of a dataset in its order with all that is known of them, and the outputs for each.

        Raises UsageError: its images don't suit.
        """
        return ((batch, self.outputs(batch.images)) for batch in self._loader(dataset, True, workers))

    def answers(self, dataset: Dataset, task: tasks.Task, *, workers: int | None = None) -> Iterator[Answer]:
        """What the model says of each record of a dataset, in its order and in pixels of the stored images."""
        number = 0
        for batch in self._loader(dataset, False, workers):
            for id_, image, output in zip(batch.ids, batch.images, self.outputs(batch.images), strict=True):
                yield self.answer(dataset, number, id_, image, output, task)
                number += 1

    def answer(self, dataset: Dataset, number: int, id_: str, image: Any, output: Any, task: tasks.Task) -> Answer:
        """What an output says of record `number` of a dataset, in pixels of the stored image."""
        view = self.view(dataset, int(dataset.rows[number]))
        return Answer(id_, image, view, task.prediction(output, view))

    def view(self, dataset: Dataset, row: int) -> Framing:
        """How the stored image of a catalog row comes to the model."""
        recipe, store = self.recipe, dataset.store
        if recipe.keeps:
            return _UNMOVED
        height, width = int(store.height[row]), int(store.width[row])
        return Framing(height, width, (place(height, width, recipe.size, recipe.options.fit).move,), recipe.size)

    def _loader(self, dataset: Dataset, judged: bool, workers: int | None) -> Iterable[Batch]:
        recipe = self.recipe
        parts.check_images(dataset, recipe.keeps, recipe.dtype, recipe.shape)
        return dataset.loader(
            batch_size=filled(recipe.options.batch_size),
            size=None if recipe.keeps else recipe.size,
            fit=recipe.options.fit,
            shuffle=False,
            target=self.task.truth(dataset, recipe.size) if judged else _NoTarget(),
            workers=workers,
        )

    def _asked(self, images: Sequence[Photo], task: tasks.Task) -> Iterator[Answer]:
        for batch, rejects, views in self.photos(images):
            if rejects:
                raise DataError(str(rejects[0]))
            outputs = self.outputs(batch.images)
            for id_, image, output, view in zip(batch.ids, batch.images, outputs, views, strict=True):
                yield Answer(id_, image, view, task.prediction(output, view))

    def _loaded(self) -> Any:
        path = self.folder.model
        try:
            code = networks.code_of(path)
        except Exception as error:  # of bytes that are no model, zipfile and json raise much
            raise DataError(f"{path}: can't be loaded ({_first_line(error)})") from error
        if code is not None:
            raise UsageError(
                f"{path}: holds code that is not Keras's ({code}), and a run by itself never runs any; name the "
                f"network that it was trained with, {self.recipe.model} (network, as file.py:function or as it is)"
            )
        try:
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            raise DataError(f"{path}: can't be loaded ({_first_line(error)})") from error

    def _filled(self, task: tasks.Task) -> Any:
        """The built-in model that the recipe names, with the run's weights: nothing else in the file is looked at."""
        recipe, path = self.recipe, self.folder.model
        try:
            with precision(recipe.options.precision):
                model = networks.plain(task.rebuild(recipe.model, recipe.shape, recipe.options.model_options))
            model.load_weights(path)
        except UsageError:
            raise
        except Exception as error:
            raise DataError(
                f"{path}: can't be loaded into {recipe.model} of {len(recipe.class_names)} classes for images "
                f"{list(recipe.shape)}, as {self.folder.recipe_json.name} has it ({_first_line(error)})"
            ) from error
        return model

    def _rebuilt(self, network: networks.Network) -> Any:
        """The run's network made anew by its own code, with the run's weights."""
        recipe = self.recipe
        name = recipe.model
        if isinstance(network, str):
            name, network = network, networks.from_file(network)
        with precision(recipe.options.precision):
            model = networks.build(network, recipe.shape, len(recipe.class_names), name=name)
            networks.output_shape(model, recipe.shape, name=name)  # which makes its weights
            model = networks.plain(model)  # as it was saved
        try:
            model.load_weights(self.folder.model)
        except Exception as error:
            raise UsageError(
                f"{self.folder.model}: its weights don't fit the network {name} ({_first_line(error)})"
            ) from error
        return model


class _NoTarget(Target):
    """For a loader whose labels nobody asks about, so that records without any are loaded too."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: Facts) -> None:
        pass

    def encode(self, labels: Labels) -> None:
        return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


_UNMOVED = Framing(1, 1, (), (1, 1))  # of numbers that are no pixels


def _several(images: Any, recipe: Recipe) -> tuple[list[Any], bool]:
    """The images one by one, and whether it is a single one that was given. Raises UsageError."""
    if isinstance(images, Dataset):
        raise UsageError(f"{images.path}: is a dataset; ask headrace.predict or evaluate about it")
    if isinstance(images, str | Path | Image.Image):
        return [images], True
    if not isinstance(images, np.ndarray):
        return list(images), False
    if recipe.keeps:
        return (list(images), False) if images.ndim == len(recipe.shape) + 1 else ([images], True)
    if images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3)):
        return [images], True
    if images.ndim == 4 or (images.ndim == 3 and images.shape[2] not in (2, 4)):  # which are colours with alpha
        return list(images), False
    raise UsageError(
        f"an array {list(images.shape)}, wanted an image [h, w] or [h, w, 1 or 3], or several [n, h, w] or [n, h, w, c]"
    )


def _stacked(images: Sequence[Any], recipe: Recipe) -> Any:
    """One array [n, ...] of arrays that the model takes as they are. Raises UsageError."""
    stack = np.empty((len(images), *recipe.shape), recipe.dtype)
    for i, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.shape != recipe.shape:
            found = f"an array {list(image.shape)}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
            raise UsageError(f"image {i} is {found}, wanted numbers of shape {list(recipe.shape)} as those trained on")
        with np.errstate(invalid="ignore", over="ignore"):
            stack[i] = image
        if stack.dtype.kind != "f" and (stack[i] != image).any():
            raise UsageError(
                f"image {i} is {image.dtype}, and {recipe.dtype}, as those trained on, can't hold its numbers"
            )
    return stack
