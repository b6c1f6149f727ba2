"""From `pack`'s options to a source: which of them each format takes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from headrace import sources
from headrace.errors import UsageError
from headrace.sources import Source
from headrace.sources.guess import guess


@dataclass(frozen=True, slots=True)
class Format:
    """`make(path, **options)` gives the source; `options` are the ones it takes, `needs` what to say without one."""

    make: Callable[..., Source]
    options: tuple[str, ...]
    needs: Mapping[str, str] = field(default_factory=dict)


FORMATS = {
    "names": Format(
        sources.names,
        ("pattern", "unlabelled", "class_names"),
        {"pattern": "e.g. --pattern '^(?P<label>cat|dog)'"},
    ),
    "folders": Format(sources.folders, ("class_names",)),
    "wider": Format(
        sources.wider,
        ("images", "lenient", "max_faces", "min_side", "skip_invalid"),
        {"images": "the folder that the names in the file start from"},
    ),
    "coco": Format(
        sources.coco, ("images", "category", "skip_crowd", "segmentation", "flip_pairs", "per_object", "margin")
    ),
    "visipedia": Format(sources.visipedia, ("images", "class_names", "keypoint_names", "flip_pairs")),
    "arrays": Format(sources.arrays, ("y", "key", "label_key", "value_range", "class_names")),
}

_FLAGS = {"class_names": "--classes", "y": "--labels"}

# Options of a format that the packer takes for all others.
_OF_THE_PACKER = ("value_range",)


def read(
    paths: Path | Mapping[str, Path], format: str | None, given: Mapping[str, Any]
) -> tuple[Source | dict[str, Source], dict[str, Any]]:
    """The source of a path, or a source per split, with the options that were `given` a value; and the options left to
    the packer. A value may be a dict of its own with a value per split. Raises UsageError, and what sources raise."""
    options = {name: value for name, value in given.items() if value is not None and value is not False}
    for name, value in options.items():
        for split in value if isinstance(value, dict) else ():
            if isinstance(paths, Path) or split not in paths:
                there = "no splits" if isinstance(paths, Path) else f"the splits {', '.join(paths)}"
                raise UsageError(f"{_flag(name)} {split}={value[split]}: no split {split!r}, the sources have {there}")
    if isinstance(paths, Path):
        return _source(paths, format, options, "")
    found: dict[str, Source] = {}
    left: dict[str, Any] = {}
    for split, path in paths.items():
        mine = {name: value.get(split) if isinstance(value, dict) else value for name, value in options.items()}
        mine = {name: value for name, value in mine.items() if value is not None}
        found[split], others = _source(path, format, mine, f" for split {split!r}")
        left |= others
    return found, left


def _source(path: Path, format: str | None, options: Mapping[str, Any], of: str) -> tuple[Source, dict[str, Any]]:
    """The source of `path`, and the options left to the packer; `of` says which source it is."""
    if format is None:
        format, why = guess(path, pattern=options.get("pattern"))
        typer.echo(f"headrace: taking --format {format}{of}: {why}", err=True)
    if format not in FORMATS:
        raise UsageError(f"--format {format!r}: wanted one of {', '.join(FORMATS)}")
    chosen = FORMATS[format]
    left = {name: options[name] for name in _OF_THE_PACKER if name in options and name not in chosen.options}
    options = {name: value for name, value in options.items() if name not in left}
    for name in options:
        if name not in chosen.options:
            takers = " and ".join(other for other, form in FORMATS.items() if name in form.options)
            raise UsageError(f"{_flag(name)} is for --format {takers}, the format is {format}")
    for name, hint in chosen.needs.items():
        if name not in options:
            raise UsageError(f"--format {format} needs {_flag(name)}{of}, {hint}")
    return chosen.make(path, **options), left


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
