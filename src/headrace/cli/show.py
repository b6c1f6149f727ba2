"""The verb show: pictures of data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.words import AsJson, parse_dataset, parse_size, print_json
from headrace.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

_EXAMPLE = (
    "Example: headrace show faces:train --where 'width > 300' --out faces.png\n\n"
    "Example: headrace show faces:train --batch --size 224 --augment flip,crop --target grid --n 16 --out batch.png"
)

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def register(app: typer.Typer) -> None:
    """Adds this module's verb to `app`."""
    app.command(epilog=_EXAMPLE)(show)


def show(
    ds: Annotated[str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or one split of it.")],
    out: Annotated[Path, typer.Option(metavar="PICTURE", help="The picture to make, .png or .jpg.")],
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Only records for which this holds: \"label_name = 'cat'\".", show_default=False
        ),
    ] = None,
    n: Annotated[int, typer.Option(help="Images at most, evenly drawn; with --batch the size of the batch.")] = 32,
    batch: Annotated[
        bool, typer.Option("--batch", help="A batch as a model gets it, with what its targets say.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(help="batch: N (square) or HxW pixels; by default as packed.", show_default=False),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(help="batch: how images come to that size: stretch (default), crop, pad.", show_default=False),
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="batch: any of flip,crop,colour; none by default.", show_default=False)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="batch: class, boxes, grid, heatmap, points; by default boxes where there are any, else class.",
            show_default=False,
        ),
    ] = None,
    cells: Annotated[
        int | None, typer.Option(help="batch: cells of a grid's side; 7 by default.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="batch: of order and augmentation; 0 by default.", show_default=False)
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(min=0, help="batch: the epoch whose first batch it is; 0 by default.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture of a dataset: images with classes, boxes, keypoints and ids, or a batch as a model gets it."""
    from headrace.load.dataset import Dataset
    from headrace.place.local import explained
    from headrace.place.publish import write_atomic

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
        raise UsageError(f"--{', --'.join(asked)}: of a batch only; say --batch too")
    kind = _KINDS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(f"--out {str(out)!r}: wanted a name that ends with .png or .jpg")
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
    data = _encoded(picture, kind)
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, data)
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
    from headrace.load.targets import Boxes, Class, Grid, Heatmap, Points

    if cells is not None and name != "grid":
        raise UsageError("--cells are those of a grid; say --target grid too")
    if name is None:
        return None
    known = {"class": Class, "boxes": Boxes, "grid": Grid, "heatmap": Heatmap, "points": Points}
    if name not in known:
        raise UsageError(f"--target is {name!r}, known are {', '.join(known)}")
    return known[name]() if cells is None else Grid(cells)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    """The bytes of a file. Raises UsageError."""
    data = io.BytesIO()
    try:
        picture.save(data, kind, quality=92)
    except (OSError, ValueError) as error:  # a JPEG has at most 65500 pixels a side
        raise UsageError(f"a picture of {picture.width}x{picture.height} pixels can't be a {kind}: {error}") from error
    return data.getvalue()
