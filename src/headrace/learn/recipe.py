"""What a training is asked for, what it was made of, the files of its RUN folder. What is learnt is left to tasks."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.imaging.augment import AUGMENTATIONS
from headrace.imaging.placement import Fit, check_fit, check_size
from headrace.imaging.prepare import ImageOptions
from headrace.learn import schema
from headrace.load.loader import Cache, Order, check_order
from headrace.load.mix import CutMix, Mix, MixUp, Mosaic
from headrace.load.photos import Preparation
from headrace.place.local import content, explained
from headrace.place.publish import write_atomic

Schedule = Literal["constant", "cosine"]
T = TypeVar("T")

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
MIXES: Mapping[str, Mix] = {"mixup": MixUp(), "cutmix": CutMix(), "mosaic": Mosaic()}

_FORMAT, _VERSION = "headrace run", 2
_SEEDS = 2**32 - 1  # NumPy's largest, which Keras sets too
_MOST_BYTES = 1 << 26  # of a recipe
_MOST_NUMBERS = 1 << 30  # of an image


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a training is asked for. None leaves the choice to the dataset or the task (its `defaults`).

    `augment` holds names out of AUGMENTATIONS; `mix` is one out of MIXES. `class_weights` is how much an image of a
    class counts in the loss that is learnt by: 1 for a class that is not named, or "balanced", the same for all images
    of a class together. `sample`: how often records are drawn, as the `weights` of `Dataset.loader`. `precision` is
    Keras's dtype policy for the network, whose outputs are float32 all the same.
    `patience` ends the training after so many epochs without a better one; better is what the task says, or `monitor`:
    the name of a value of the history, of which more is better, or less where it ends in loss, error, mae or mse;
    ":max" or ":min" behind it says which.
    `schedule` "cosine" warms up over a twentieth of the steps and then falls to 0.
    `split` None is "train" where there is one, else everything; `val_split` None is "val" where there is one, else no
    validation. `divide` name -> share divides what is there into train, val and others by `seed`, stratified by class.
    `limit`: so many records of each part at most, evenly drawn. `drop_last` leaves a last, shorter batch out.
    `order`: what is shuffled, as `Dataset.loader` says. `devices`: so many share a batch, "all", or those of these
    numbers.
    Raises UsageError where a value can't be meant.
    """

    task: str | None = None
    model: str | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 25
    batch_size: int | None = None
    learning_rate: float | None = None
    schedule: Schedule | None = None
    size: int | tuple[int, int] | None = None
    fit: Fit = "stretch"
    augment: tuple[str, ...] | None = None
    mix: str | None = None
    class_weights: str | Mapping[str, float] | None = None
    sample: str | Mapping[str, float] | None = None
    precision: str = "float32"
    seed: int = 0
    patience: int | None = None
    monitor: str | None = None
    split: str | None = None
    val_split: str | None = None
    divide: Mapping[str, float] | None = None
    limit: int | None = None
    drop_last: bool = False
    order: Order = "full"
    deterministic: bool = False
    # How the work is done, not what comes out:
    workers: int | None = None
    cache: Cache | None = None
    devices: int | str | tuple[int, ...] | None = None
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, wanted 1 or more")
        if not 0 <= self.seed <= _SEEDS:
            raise UsageError(f"seed is {self.seed}, wanted 0 to {_SEEDS}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}, wanted 1 or more")
        check_size(self.size)
        check_fit(self.fit)
        check_order(self.order)
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate is {self.learning_rate}, wanted a number above 0")
        if not self.checkpoint_seconds >= 0:
            raise UsageError(f"checkpoint_seconds is {self.checkpoint_seconds}, wanted 0 or more")
        if self.schedule not in (None, *get_args(Schedule)):
            raise UsageError(f"schedule is {self.schedule!r}, wanted one of {', '.join(get_args(Schedule))}")
        if unknown := [name for name in self.augment or () if name not in AUGMENTATIONS]:
            raise UsageError(f"augment has {', '.join(unknown)}, known are {', '.join(AUGMENTATIONS)}")
        if self.mix is not None and self.mix not in MIXES:
            raise UsageError(f"mix is {self.mix!r}, wanted one of {', '.join(MIXES)}")
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}, wanted one of {', '.join(PRECISIONS)}")
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise UsageError(f"class_weights is {self.class_weights!r}, wanted balanced, or weights by class")
        self._check_devices()
        if self.monitor is not None and not re.fullmatch(r"[^:]+(:min|:max)?", self.monitor):
            raise UsageError(f"monitor is {self.monitor!r}, wanted a name such as val_loss, or val_auc:max")
        if self.divide is not None and "train" not in self.divide:
            raise UsageError(f"divide has {', '.join(self.divide)}, wanted a share called train, and one called val")

    def _check_devices(self) -> None:
        devices = self.devices
        several = devices if isinstance(devices, tuple) else ()
        known = devices is None or devices == "all" or (isinstance(devices, int) and devices > 0)
        if not (known or (several and len(set(several)) == len(several) and min(several) >= 0)):
            said = ",".join(map(str, several)) if isinstance(devices, tuple) else devices
            raise UsageError(f"devices is {said!r}, wanted how many, all, or different numbers such as 0,1")

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, where: str) -> Options:
        """Options by name; `where` stands in errors. Raises UsageError: unknown, or a wrong kind."""
        return schema.read(cls, settings, where=where, noun="option")

    @classmethod
    def read(cls, path: Path, *, model: str | None = None) -> Options:
        """The options in a TOML file or the recipe.json of a RUN, but for `model`, where that is given.

        Raises NotThereError, StorageError, UsageError (what is no option; a model that is code, which only a caller may
        name).
        """
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise NotThereError(f"{path}: no such file of options") from None
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        try:
            settings = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: {error}") from error
        if isinstance(settings, dict) and isinstance(settings.get("options"), dict):
            settings = settings["options"]
        if not isinstance(settings, dict):
            raise UsageError(f"{path}: wanted options by name, such as epochs = 25")
        read = cls.of({name: value for name, value in settings.items() if value is not None}, where=str(path))
        if model is not None:
            return replace(read, model=model)
        if is_code(read.model):
            raise UsageError(f"{path}: its model {read.model} is code, and that is only run when the caller names it")
        return read

    def filled(self, defaults: Mapping[str, Any]) -> Options:
        """These options, with `defaults` where they say None."""
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def changes(self, other: Options) -> list[str]:
        """What `other` asks for differently, one line each, where it would change the model that comes out.

        What None may stand for is left to the recipe. More epochs are no change while the learning rate is
        constant: the run only goes on for longer.
        """
        free = {
            "workers",
            "cache",
            "devices",
            "checkpoint_seconds",
            "task",
            "model",
            "size",
            "split",
            "val_split",
            "divide",
        }
        if self.schedule != "cosine":
            free.add("epochs")
        return [
            f"{f.name} is {getattr(other, f.name)!r}, the run has {getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name not in free and getattr(self, f.name) != getattr(other, f.name)
        ]


def is_code(model: str | None) -> bool:
    """Whether a model's name is that of a function in a file: "net.py:build"."""
    return model is not None and ".py:" in model


def with_settings(options: Options, settings: Mapping[str, Any]) -> Options:
    """The options with some of them changed, by name. Raises UsageError: there is no such option, or a wrong kind."""
    return replace(options, **schema.checked(Options, settings, noun="option"))


def filled(value: T | None) -> T:
    """The value of an option that `Options.filled` has seen to."""
    assert value is not None
    return value


@dataclass(frozen=True, kw_only=True)
class Part:
    """The records that a run was trained or validated on: so many of `dataset`, chosen as `view` says ("" is all).

    `content` and `fingerprint` are the dataset's and the view's; `split` is the packed split, where it is one.
    """

    dataset: str
    view: str
    split: str | None
    records: int
    content: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.records} records of {self.dataset}" + (f" ({self.view})" if self.view else "")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run was made of: enough to resume it, and to treat new images as its own were treated.

    `model` is the name of a built-in one, or what the caller's own is called, which is then `own_model`; `own_loss`: it
    came compiled. `options` are filled: none is left to the task. `shape` (h, w, c) and `dtype` are those of one image
    as the model takes it, of another kind where the run `keeps` arrays as they are. `pack_options` is what images went
    through when packed. `statistics`: what the task saw in the labels trained on, and goes by.
    """

    task: str
    model: str
    own_model: bool
    own_loss: bool
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    keeps: bool
    train: Part
    val: Part | None
    pack_options: Mapping[str, Any]
    options: Options
    versions: Mapping[str, str]
    statistics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.class_names
        if not names or len(set(names)) < len(names):
            raise UsageError(f"class_names has {len(names)} names, {len(set(names))} different ones, wanted each once")
        if min(self.shape, default=0) < 1 or math.prod(self.shape) > _MOST_NUMBERS:
            raise UsageError(f"shape is {self.shape}, wanted sides of 1 and more, {_MOST_NUMBERS} numbers at most")
        try:
            numbers = np.dtype(self.dtype).kind in "buif"
        except TypeError:
            numbers = False
        if not numbers:
            raise UsageError(f"dtype is {self.dtype!r}, wanted one of numbers, such as uint8")
        if self.keeps:
            return
        if len(self.shape) != 3 or self.shape[2] not in (1, 3) or self.dtype != "uint8":
            raise UsageError(f"images are {self.dtype} {self.shape}, wanted uint8 (height, width, 1 or 3)")
        check_size(self.shape[:2])
        try:
            packed = ImageOptions.from_json(self.pack_options)
        except (TypeError, ValueError) as error:  # of kinds that its own checks do not expect
            raise UsageError(f"pack_options: {error}") from error
        if packed.size and math.prod(packed.size) > _MOST_NUMBERS:
            raise UsageError(f"pack_options: size is {packed.size}, wanted {_MOST_NUMBERS} pixels at most")

    @property
    def preparation(self) -> Preparation:
        """What a photo goes through before the model sees it."""
        return Preparation(pack_options=self.pack_options, size=self.size, fit=self.options.fit, channels=self.channels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input; (0, 0) where that is no image."""
        return (0, 0) if self.keeps else (self.shape[0], self.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return self.shape[-1]


@dataclass(frozen=True)
class RunFolder:
    """The paths of a RUN folder."""

    folder: Path

    @property
    def recipe_json(self) -> Path:
        return self.folder / "recipe.json"

    @property
    def model(self) -> Path:
        """The best epoch's model, normalisation inside, for `keras.saving.load_model`."""
        return self.folder / "model.keras"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.npz"

    @property
    def history_csv(self) -> Path:
        return self.folder / "history.csv"

    @property
    def curves(self) -> Path:
        return self.folder / "curves.png"

    @property
    def layers(self) -> Path:
        """The model's layers, as text."""
        return self.folder / "layers.txt"

    @property
    def evaluations(self) -> Path:
        """What `evaluate` makes: a folder for each dataset and part."""
        return self.folder / "evaluations"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def lock(self) -> Path:
        """Held by the training that is at work in the folder."""
        return self.folder / ".lock"

    def read_recipe(self) -> Recipe:
        """The recipe. Raises NotThereError (no folder), UsageError (no RUN, or not of this version), DataError."""
        path = self.recipe_json
        if not self.folder.is_dir():
            raise NotThereError(f"{self.folder}: there is no such run; train makes one")
        if not os.path.lexists(path):
            raise UsageError(
                f"{self.folder} is no RUN folder: it has no {path.name}; a training that was stopped before it "
                "wrote one is begun anew, without resume=True"
            )
        with explained(path):
            text = content(path, _MOST_BYTES)
        try:
            read = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        if not isinstance(read, dict) or read.pop("format", None) != _FORMAT:
            raise UsageError(f"{path} is not a recipe of headrace")
        if (version := read.pop("version", None)) != _VERSION:
            raise UsageError(f"{path} has version {version!r:.80}, this headrace reads version {_VERSION}")
        try:
            return schema.read(Recipe, read, where=f"{path} is damaged")
        except UsageError as error:
            raise DataError(str(error)) from error

    def history(self, name: str) -> list[float]:
        """A value of the history, epoch by epoch, as history.csv has it; none where that, or the value, isn't there."""
        try:
            with self.history_csv.open(newline="") as file:
                return [float(row[name]) for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError, ValueError, csv.Error):  # a table for people, who may have edited it
            return []

    def is_unused(self) -> bool:
        """Whether the folder is empty, but for what a training leaves that was killed before it wrote the recipe."""
        mine = {self.lock, *self.leftovers()}
        return all(path in mine for path in self.folder.iterdir())

    def leftovers(self) -> list[Path]:
        """What killed trainings left half written: `write_atomic`'s hidden files beside the ones of a run."""
        written = (self.recipe_json, self.model, self.checkpoint, self.history_csv, self.curves, self.layers)
        return [left for path in written for left in self.folder.glob(f".{path.name}.*")]

    def write_recipe(self, recipe: Recipe) -> None:
        text = json.dumps({"format": _FORMAT, "version": _VERSION} | asdict(recipe), indent=2, ensure_ascii=False)
        write_atomic(self.recipe_json, f"{text}\n".encode())
