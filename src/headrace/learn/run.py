"""A RUN folder: its files, and the recipe that training writes and evaluation and prediction read again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from headrace.errors import DataError, NotThereError, UsageError
from headrace.format.storage import write_atomic
from headrace.imaging.transforms import AUGMENTATIONS, Fit
from headrace.load.loader import Cache

Schedule = Literal["constant", "cosine"]
T = TypeVar("T")

_FORMAT, _VERSION = "headrace run", 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a training is asked for. None leaves the choice to the dataset or the task (its `defaults`).

    `augment` holds names out of AUGMENTATIONS. `patience` ends the training after so many epochs without a
    better one. `schedule` "cosine" warms up over a twentieth of the steps and then falls to 0. `split` None is
    "train" where there is one, else everything; `val_split` None is "val" where there is one, else no validation.
    Raises UsageError where a value can't be meant; the loader checks what is the loader's.
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
    seed: int = 0
    patience: int | None = None
    split: str | None = None
    val_split: str | None = None
    deterministic: bool = False
    # How the work is done, not what comes out:
    workers: int | None = None
    cache: Cache | None = None
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, wanted 1 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning_rate is {self.learning_rate}, wanted a number above 0")
        if not self.checkpoint_seconds >= 0:
            raise UsageError(f"checkpoint_seconds is {self.checkpoint_seconds}, wanted 0 or more")
        if self.schedule not in (None, *get_args(Schedule)):
            raise UsageError(f"schedule is {self.schedule!r}, wanted one of {', '.join(get_args(Schedule))}")
        if unknown := [name for name in self.augment or () if name not in AUGMENTATIONS]:
            raise UsageError(f"augment has {', '.join(unknown)}, known are {', '.join(AUGMENTATIONS)}")

    def filled(self, defaults: Mapping[str, Any]) -> Options:
        """These options, with `defaults` where they say None."""
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def changes(self, other: Options) -> list[str]:
        """What `other` asks for differently, one line each, where it would change the model that comes out.

        What None may stand for is left to the recipe. More epochs are no change while the learning rate is
        constant: the run only goes on for longer.
        """
        free = {"workers", "cache", "checkpoint_seconds", "task", "model", "size", "split", "val_split"}
        if self.schedule != "cosine":
            free.add("epochs")
        return [
            f"{f.name} is {getattr(other, f.name)!r}, the run has {getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name not in free and getattr(self, f.name) != getattr(other, f.name)
        ]


def filled(value: T | None) -> T:
    """The value of an option that `Options.filled` has seen to."""
    assert value is not None
    return value


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run was made of: enough to resume it, and to treat new images as its own were treated.

    `options` are filled: none is left to the task. `size` is (height, width) of the model's input.
    `pack_options` is what images went through when packed.
    """

    task: str
    model: str
    class_names: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    dataset: str
    fingerprint: str
    pack_options: Mapping[str, Any]
    split: str | None
    val_split: str | None
    records: int
    options: Options
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Run:
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
    def logs(self) -> Path:
        return self.folder / "logs"

    def read_recipe(self) -> Recipe:
        """The recipe. Raises NotThereError (no folder), UsageError (no RUN, or not of this version), DataError."""
        if not self.folder.is_dir():
            raise NotThereError(
                f"{self.folder}: there is no such run; 'headrace train DS --out {self.folder}' makes it"
            )
        try:
            read = json.loads(self.recipe_json.read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.folder} is no RUN folder: it has no {self.recipe_json.name}") from None
        except ValueError as error:
            raise DataError(f"{self.recipe_json} is damaged: {error}") from error
        if not isinstance(read, dict) or read.pop("format", None) != _FORMAT:
            raise UsageError(f"{self.recipe_json} is not a recipe of headrace")
        if (version := read.pop("version", None)) != _VERSION:
            raise UsageError(f"{self.recipe_json} has version {version}, this headrace reads version {_VERSION}")
        try:
            options = dict(read.pop("options"))
            size = options["size"]
            options |= {
                "augment": None if options["augment"] is None else tuple(options["augment"]),
                "size": tuple(size) if isinstance(size, list) else size,
            }
            read |= {"class_names": tuple(read["class_names"]), "size": tuple(read["size"])}
            return Recipe(**read, options=Options(**options))
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.recipe_json} is damaged: {error}") from error

    def write_recipe(self, recipe: Recipe) -> None:
        text = json.dumps({"format": _FORMAT, "version": _VERSION} | asdict(recipe), indent=2, ensure_ascii=False)
        write_atomic(self.recipe_json, f"{text}\n".encode())
