"""The verb duplicates: which images of a dataset occur again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.command import Verb
from headrace.cli.options import AsJson, Workers, parse_dataset
from headrace.cli.show import kind_of, write_picture
from headrace.cli.text import image_text, print_json

if TYPE_CHECKING:
    from headrace.checking.duplicates import Group

_SHOWN = 20  # groups
_OF_GROUP = 4  # images


def register(app: typer.Typer) -> None:
    """Adds this module's verb to `app`."""
    app.command(cls=Verb, epilog="headrace duplicates cats --out duplicates.png")(duplicates)


def duplicates(
    ds: Annotated[str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or one split of it.")],
    equal: Annotated[bool, typer.Option("--equal", help="Only images of the same bytes, no near-duplicates.")] = False,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Also mirrored copies; decodes every image for it.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture of the groups, .png or .jpg.")] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Find images that occur again: equal ones, and copies of another size, quality or colour.

    Groups that lie in several splits come first, then those whose labels contradict each other.
    """
    from headrace.checking.duplicates import duplicates as run
    from headrace.load.dataset import Dataset
    from headrace.load.show import show_duplicates

    kind = None if out is None else kind_of(out)
    path, split = parse_dataset(ds)
    whole = Dataset(path)
    view = whole if split is None else whole.split(split)
    found = run(view, near=not equal, mirrored=mirrored, workers=workers)
    made = out if out is not None and found.groups else None
    if made is not None and kind is not None:
        write_picture(made, show_duplicates(view, found), kind)
    if as_json:
        print_json(found.as_json() | {"picture": None if made is None else str(made)})
        return
    n = len(found.groups)
    typer.echo(f"{ds}: {found.images} of {found.records} images in {n} group{'s' * (n != 1)} of duplicates")
    for some, what in ((found.across_splits, "in several splits"), (found.contradicting, "with several labels")):
        if some:
            typer.echo(f"  {len(some)} of these groups {what}")
    for group in found.groups[:_SHOWN]:
        typer.echo(f"  {_line(group)}")
    if n > _SHOWN:
        typer.echo(f"  … {n - _SHOWN} more; --json has all, --out draws the first")
    for id_, reason in list(found.unread.items())[:_SHOWN]:
        typer.echo(f"  not looked at: {id_}: {reason}")
    if len(found.unread) > _SHOWN:
        typer.echo(f"  … {len(found.unread) - _SHOWN} more that can't be read; headrace verify tells all")
    if made is not None:
        typer.echo(f"picture: {made}")


def _line(group: Group) -> str:
    """A group, for people."""
    first = ", ".join(map(image_text, group.images[:_OF_GROUP]))
    more = len(group.images) - _OF_GROUP
    return f"{group.kind}: {first}{f', and {more} more' if more > 0 else ''}"
