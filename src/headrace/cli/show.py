"""The verb show: pictures of data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb
from headrace.cli.options import AsJson, parse_dataset, parse_size
from headrace.cli.text import print_json
from headrace.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

_EXAMPLE = (
    "headrace show faces:train --where 'width > 300' --out faces.png\n"
    "headrace show faces:train --batch --size 224 --augment flip,crop --n 16 --out batch.png"
)

_BATCH = "Batch (with --batch)"

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def register(app: typer.Typer) -> None:
    """Adds this module's verb to `app`."""
    app.command(cls=Verb, epilog=_EXAMPLE)(show)


def show(
    ds: Annotated[str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or one split of it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture to make, .png or .jpg.")],
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Only records for which this holds, as in \"label_name = 'cat'\"."),
    ] = None,
    n: Annotated[
        int, typer.Option(metavar="N", help="Number of images, evenly spaced; with --batch the batch size.")
    ] = 32,
    batch: Annotated[
        bool, typer.Option("--batch", help="Show a training batch: augmented images and decoded targets.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Image size of the batch; as packed by default.", rich_help_panel=_BATCH),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="[stretch|crop|pad]",
            help="How images come to that size; stretch by default.",
            rich_help_panel=_BATCH,
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Any of flip, crop, colour, affine, blur, noise, erase, grey, randaugment; none by default.",
            rich_help_panel=_BATCH,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="[class|multilabel|value|boxes|grid|pyramid|heatmap|points]",
            help="What is learnt; by default the first there is of boxes, class, several classes and value.",
            rich_help_panel=_BATCH,
        ),
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(metavar="N", help="Cells on each side of the grid; 7 by default.", rich_help_panel=_BATCH),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Random seed of order and augmentation; 0 by default.", rich_help_panel=_BATCH),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Show the first batch of this epoch; 0 by default.", rich_help_panel=_BATCH
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw images of a dataset with their labels, or a training batch."""
    from headrace.load.dataset import Dataset

    said = {
        "size": size,
        "fit": fit,
        "augment": augment,
        "target": target,
        "cells": cells,
        "seed": seed,
        "epoch": epoch,
    }
    asked = {name: value for name, value in said.items() if value is not None}
    if asked and not batch:
        raise UsageError(f"--{', --'.join(asked)}: of a batch only; add --batch")
    kind = kind_of(out)
    path, split = parse_dataset(ds)
    whole = Dataset(path)
    view = whole if split is None else whole.split(split)
    view = view if where is None else view.where(where)
    if batch:
        options = {name: asked[name] for name in ("fit", "seed") if name in asked}
        picture = view.show(
            n,
            batch=True,
            size=parse_size(size),
            augment=_augmentations(augment),
            target=_target(target, cells),
            epoch=epoch or 0,
            **options,
        )
    else:
        picture = view.show(n)
    write_picture(out, picture, kind)
    shown = min(n, len(view))
    if as_json:
        print_json({"picture": str(out), "records": len(whole), "of": len(view), "shown": shown})
        return
    print(f"{shown} of {len(view)} records")
    print(f"picture: {out}")


def _augmentations(text: str | None) -> tuple[Any, ...]:
    """Augmentations of "flip,crop". Raises UsageError."""
    from headrace.imaging.augment import AUGMENTATIONS

    names = [name for name in (text or "").split(",") if name]
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise UsageError(f"--augment has {', '.join(unknown)}, known are {', '.join(AUGMENTATIONS)}")
    return tuple(AUGMENTATIONS[name] for name in names)


def _target(name: str | None, cells: int | None) -> Any:
    """The target of this name; None for the dataset's own. Raises UsageError."""
    from headrace.load.targets import Boxes, Class, Grid, Heatmap, MultiLabel, Points, Pyramid, Target, Value

    if cells is not None and name != "grid":
        raise UsageError("--cells are those of a grid; add --target grid")
    if name is None:
        return None
    known: dict[str, type[Target]] = {
        "class": Class,
        "multilabel": MultiLabel,
        "value": Value,
        "boxes": Boxes,
        "grid": Grid,
        "pyramid": Pyramid,
        "heatmap": Heatmap,
        "points": Points,
    }
    if name not in known:
        raise UsageError(f"--target is {name!r}, known are {', '.join(known)}")
    return known[name]() if cells is None else Grid(cells)


def kind_of(out: Path) -> str:
    """The kind of picture that a file of this name is. Raises UsageError."""
    kind = _KINDS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(f"--out {str(out)!r}: wanted a name that ends with .png or .jpg")
    return kind


def write_picture(out: Path, picture: Image.Image, kind: str) -> None:
    """Writes a picture of this kind. Raises UsageError, StorageError."""
    from headrace.place.local import explained
    from headrace.place.publish import write_atomic

    data = _encoded(picture, kind)
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, data)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    """The bytes of a file. Raises UsageError."""
    data = io.BytesIO()
    try:
        picture.save(data, kind, quality=92)
    except (OSError, ValueError) as error:  # a JPEG has at most 65500 pixels a side
        raise UsageError(f"a picture of {picture.width}x{picture.height} pixels can't be a {kind}: {error}") from error
    return data.getvalue()
