"""Headrace: labelled images to the model. Packed once into sharded TFRecords, fed at the speed of the JPEG decoder.

The verbs and nouns are few: `pack`, `adopt`, `edit`, `duplicates`, `train`, `evaluate`, `predict`; `Dataset`,
`ArrayDataset`, `PhotoLoader`, `Run`, `Record`, `Reject`. The rest has its module: `sources`, `targets`, `augment`,
`runners`, `errors`, `compat`. What these hold and is often used can be had here, too (`hr.Grid` is `hr.targets.Grid`).

All is imported when first used, so that `import headrace` costs next to nothing and knows no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headrace.version import __version__

_HOME = {
    "Dataset": "headrace.load.dataset",
    "ArrayDataset": "headrace.load.arrays",
    "concat": "headrace.load.dataset",
    "mix": "headrace.load.dataset",
    "Loader": "headrace.load.loader",
    "Batch": "headrace.load.iteration",
    "Class": "headrace.load.targets",
    "Boxes": "headrace.load.targets",
    "Grid": "headrace.load.targets",
    "Pyramid": "headrace.load.targets",
    "Heatmap": "headrace.load.targets",
    "Points": "headrace.load.targets",
    "MultiLabel": "headrace.load.targets",
    "Value": "headrace.load.targets",
    "HorizontalFlip": "headrace.imaging.augment",
    "RandomResizedCrop": "headrace.imaging.augment",
    "ColorJitter": "headrace.imaging.augment",
    "Affine": "headrace.imaging.augment",
    "GaussianBlur": "headrace.imaging.augment",
    "GaussianNoise": "headrace.imaging.augment",
    "Grayscale": "headrace.imaging.augment",
    "RandAugment": "headrace.imaging.augment",
    "RandomErasing": "headrace.imaging.augment",
    "MixUp": "headrace.load.mix",
    "CutMix": "headrace.load.mix",
    "Mosaic": "headrace.load.mix",
    "Record": "headrace.record",
    "Reject": "headrace.record",
    "Part": "headrace.record",
    "PhotoLoader": "headrace.load.photos",
    "Source": "headrace.sources",
    "Target": "headrace.load.targets",
    "Labels": "headrace.load.targets",
    "Facts": "headrace.load.facts",
    "Iteration": "headrace.load.iteration",
    "Augmentation": "headrace.imaging.augment",
    "Placement": "headrace.imaging.placement",
    "train": "headrace.learn.train",
    "evaluate": "headrace.learn.evaluate",
    "predict": "headrace.learn.predict",
    "Run": "headrace.learn.run",
    "pack": "headrace.packing.pack",
    "PackReport": "headrace.packing.finish",
    "adopt": "headrace.adopting.adopt",
    "duplicates": "headrace.checking.duplicates",
    "Duplicates": "headrace.checking.duplicates",
    "AdoptReport": "headrace.adopting.adopt",
    "ExportReport": "headrace.exporting.export",
    "edit": "headrace.revising.edit",
    "undo": "headrace.revising.history",
    "restore": "headrace.revising.history",
    "diff": "headrace.revising.diff",
    "compact": "headrace.revising.compact",
    "Diff": "headrace.revising.diff",
    "Version": "headrace.format.versions",
    "ConflictError": "headrace.errors",
    "HeadraceError": "headrace.errors",
    "UsageError": "headrace.errors",
    "UnknownIdError": "headrace.errors",
    "NotThereError": "headrace.errors",
    "StorageError": "headrace.errors",
    "MissingExtraError": "headrace.errors",
    "EngineError": "headrace.errors",
    "DataError": "headrace.errors",
    "DamageError": "headrace.errors",
}

_MODULES = {
    "sources": "headrace.sources",
    "targets": "headrace.load.targets",
    "augment": "headrace.imaging.augment",
    "errors": "headrace.errors",
    "compat": "headrace.compat",
    "runners": "headrace.packing.runners",
}
# What a reader of dir(headrace) sees: where one begins. All names are in __all__.
_SHOWN = (
    *("pack", "adopt", "edit", "duplicates", "train", "evaluate", "predict"),
    *("Dataset", "ArrayDataset", "PhotoLoader", "Run", "Record", "Reject"),
    *("sources", "targets", "augment", "runners", "errors"),
)

if TYPE_CHECKING:
    from headrace import compat, errors, sources
    from headrace.adopting.adopt import AdoptReport, adopt
    from headrace.checking.duplicates import Duplicates, duplicates
    from headrace.errors import (
        ConflictError,
        DamageError,
        DataError,
        EngineError,
        HeadraceError,
        MissingExtraError,
        NotThereError,
        StorageError,
        UnknownIdError,
        UsageError,
    )
    from headrace.exporting.export import ExportReport
    from headrace.format.versions import Version
    from headrace.imaging import augment
    from headrace.imaging.augment import (
        Affine,
        Augmentation,
        ColorJitter,
        GaussianBlur,
        GaussianNoise,
        Grayscale,
        HorizontalFlip,
        RandAugment,
        RandomErasing,
        RandomResizedCrop,
    )
    from headrace.imaging.placement import Placement
    from headrace.learn.evaluate import evaluate
    from headrace.learn.predict import predict
    from headrace.learn.run import Run
    from headrace.learn.train import train
    from headrace.load import targets
    from headrace.load.arrays import ArrayDataset
    from headrace.load.dataset import Dataset, concat, mix
    from headrace.load.facts import Facts
    from headrace.load.iteration import Batch, Iteration
    from headrace.load.loader import Loader
    from headrace.load.mix import CutMix, MixUp, Mosaic
    from headrace.load.photos import PhotoLoader
    from headrace.load.targets import Boxes, Class, Grid, Heatmap, Labels, MultiLabel, Points, Pyramid, Target, Value
    from headrace.packing import runners
    from headrace.packing.finish import PackReport
    from headrace.packing.pack import pack
    from headrace.record import Part, Record, Reject
    from headrace.revising.compact import compact
    from headrace.revising.diff import Diff, diff
    from headrace.revising.edit import edit
    from headrace.revising.history import restore, undo
    from headrace.sources import Source

__all__ = [
    "__version__",
    "sources",
    "targets",
    "augment",
    "errors",
    "compat",
    "runners",
    "Dataset",
    "ArrayDataset",
    "concat",
    "mix",
    "Loader",
    "Batch",
    "Class",
    "Boxes",
    "Grid",
    "Pyramid",
    "Heatmap",
    "Points",
    "MultiLabel",
    "Value",
    "HorizontalFlip",
    "RandomResizedCrop",
    "ColorJitter",
    "Affine",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "RandAugment",
    "RandomErasing",
    "MixUp",
    "CutMix",
    "Mosaic",
    "Record",
    "Reject",
    "Part",
    "PhotoLoader",
    "Source",
    "Target",
    "Labels",
    "Facts",
    "Iteration",
    "Augmentation",
    "Placement",
    "train",
    "evaluate",
    "predict",
    "Run",
    "pack",
    "PackReport",
    "adopt",
    "AdoptReport",
    "duplicates",
    "Duplicates",
    "ExportReport",
    "edit",
    "undo",
    "restore",
    "diff",
    "compact",
    "Diff",
    "Version",
    "ConflictError",
    "HeadraceError",
    "UsageError",
    "UnknownIdError",
    "NotThereError",
    "StorageError",
    "MissingExtraError",
    "EngineError",
    "DataError",
    "DamageError",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_SHOWN]
