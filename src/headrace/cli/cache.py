"""The verb cache: what is kept on this machine of datasets in object stores."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from headrace.cli.command import Verb
from headrace.cli.options import AsJson
from headrace.cli.text import amount, print_json
from headrace.errors import UsageError


def register(app: typer.Typer) -> None:
    """Adds the verb to `app`."""
    app.command(cls=Verb, epilog="headrace cache info")(cache)


def cache(
    action: Annotated[str, typer.Argument(metavar="info|clear", help="Show what there is, or remove it.")],
    as_json: AsJson = False,
) -> None:
    """Show, or remove, what is kept here of datasets in object stores.

    It lies in HEADRACE_CACHE, else in headrace below XDG_CACHE_HOME or ~/.cache. What is removed is fetched again when
    it is needed, also by processes that read it now.
    """
    from headrace.place import cache as place

    if action not in ("info", "clear"):
        raise UsageError(f"cache {action}: there are cache info and cache clear")
    folder = place.folder_of()
    found = place.clear(folder) if action == "clear" else place.files(folder)
    size = sum(file.takes for file in found)
    of: Counter[str] = Counter()
    for file in found:
        of[file.origin or ""] += file.takes
    facts: dict[str, Any] = {"folder": str(folder), "files": len(found)}
    if action == "clear":
        facts["freed"] = size
    else:
        facts |= {"bytes": size, "datasets": {name: n for name, n in sorted(of.items()) if name}, "other": of[""]}
    if as_json:
        print_json(facts)
    elif action == "clear":
        typer.echo(f"{folder}: {len(found)} files removed, {amount(size)} freed")
    else:
        typer.echo(f"{folder}: {len(found)} files, {amount(size)}")
        for name, n in sorted(of.items(), key=lambda item: -item[1]):
            typer.echo(f"  {amount(n):>9}  {name or 'copies of which nobody says whose they are'}")
