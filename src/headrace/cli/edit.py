"""Verbs that make versions of a dataset, and tell of them: relabel, drop, move, append, history, diff, undo, restore,
compact."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb, spelled
from headrace.cli.options import (
    OPTIONS,
    AsJson,
    DatasetPath,
    Flag,
    OutPath,
    Overwrite,
    Verbose,
    Workers,
    given,
    parameters,
    parse_paths,
    parse_rejects,
    parse_splits,
)
from headrace.cli.text import amount, count_reasons, log_shown, print_json
from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.revising.diff import Changed, Diff
    from headrace.revising.edit import Edit

Why = Annotated[
    str, typer.Option(metavar="TEXT", help="Why it is done; the history tells it. [required]", show_default=False)
]
MayWhy = Annotated[str | None, typer.Option(metavar="TEXT", help="Why it is done; the history tells it.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who does it; by default the user.")]
Ids = Annotated[list[str] | None, typer.Option(metavar="ID", help="The record of this id; may be repeated.")]
Where = Annotated[
    str | None,
    typer.Option(metavar="SQL", help="The records for which this holds, as in \"label_name = 'cat'\"."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Yes, more than a tenth of all records.")]

_SHOWN = 10  # records of each kind, for people


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    verbs: tuple[tuple[Callable[..., None], str], ...] = (
        (relabel, "headrace relabel cats dog --ids cat.7.jpg --ids cat.9.jpg --why 'dogs among the cats'"),
        (drop, "headrace drop cats --where 'width < 32' --why 'too small'"),
        (move, "headrace move cats val --ids cat.7.jpg --why 'its twin is there'"),
        (history, "headrace history cats"),
        (diff, "headrace diff cats 2 3"),
        (undo, "headrace undo cats"),
        (restore, "headrace restore cats 2"),
        (compact, "headrace compact cats cats-2"),
    )
    for verb, example in verbs[:3]:
        app.command(cls=Verb, epilog=example)(verb)
    app.command(cls=Append, epilog="headrace append cats photos/new --why 'those of May'")(append)
    for verb, example in verbs[3:]:
        app.command(cls=Verb, epilog=example)(verb)


def relabel(
    ds: DatasetPath,
    label: Annotated[
        list[str] | None, typer.Argument(metavar="[LABEL]", help="Name of a class; several where images may have such.")
    ] = None,
    ids: Ids = None,
    where: Where = None,
    why: Why = "",
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Leave them without a label.")] = False,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Give records another class. Shards stay as they are: a new version says so."""
    if unlabelled == bool(label):
        raise UsageError("wanted either a LABEL or --unlabelled")
    named: Any = None if not label else label[0] if len(label) == 1 else label
    _edit(ds, why, by, as_json, "relabelled", lambda e: e.relabel(named, ids=ids or None, where=where, yes=yes))


def drop(
    ds: DatasetPath,
    ids: Ids = None,
    where: Where = None,
    why: Why = "",
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Leave records out. Earlier versions have them still."""
    _edit(ds, why, by, as_json, "dropped", lambda e: e.drop(ids=ids or None, where=where, yes=yes))


def move(
    ds: DatasetPath,
    split: Annotated[str, typer.Argument(metavar="SPLIT", help="The split to move them to, which may be new.")],
    ids: Ids = None,
    where: Where = None,
    why: Why = "",
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Move records to another split."""
    _edit(ds, why, by, as_json, "moved", lambda e: e.move(split, ids=ids or None, where=where, yes=yes))


def _edit(ds: Any, why: str, by: str | None, as_json: bool, done: str, change: Callable[[Edit], int]) -> None:
    """An edit of one verb, told."""
    from headrace.revising.edit import edit

    with edit(ds, why=why, by=by) as making:
        count = change(making)
    if as_json:
        print_json({"version": making.version or making.base, "made": making.version is not None, done: count})
    elif making.version is None:
        typer.echo(f"{ds}: nothing to change, it is so already")
    else:
        typer.echo(f"{ds}: version {making.version}, {count} {done}; headrace undo {ds} takes it back")


_OF_APPEND = (
    Flag(
        name="splits",
        metavar="NAME=SHARE,…|given",
        help="As in train=0.8,val=0.2; or SOURCE's own; else train.",
        parse=parse_splits,
        group=OPTIONS,
    ),
    Flag(name="group", metavar="NAME", help="Attribute whose images stay in one split.", group=OPTIONS),
    Flag(
        name="max_rejects",
        metavar="N|N%",
        help="Rejects allowed, a share or a count. [default 10%]",
        parse=parse_rejects,
        group=OPTIONS,
    ),
)
_GENERAL = frozenset(flag.name for flag in _OF_APPEND)


class Append(Verb):
    """Its options are its own and, hidden from its help, those of all formats."""

    def get_params(self, ctx: Any) -> list[Any]:
        declared: list[Any] = super().get_params(ctx)
        return [*declared[:3], *_parameters(), *declared[3:]]  # DS, SOURCE and --why first

    def invoke(self, ctx: Any) -> Any:
        ctx.obj = {flag.name: ctx.params.pop(flag.name) for flag in _all_flags()}
        return super().invoke(ctx)


@functools.cache
def _all_flags() -> tuple[Flag, ...]:
    from headrace.cli import formats

    return (*_OF_APPEND, *(flag for flag in formats.flags() if flag.name not in _GENERAL))


@functools.cache
def _parameters() -> list[Any]:
    return parameters(_all_flags())


def append(
    ctx: typer.Context,
    ds: DatasetPath,
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Folder of images or annotation file; SPLIT=PATH for each split."),
    ],
    why: Why = "",
    by: By = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="Format of SOURCE; by default it is recognised.")
    ] = None,
    workers: Workers = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Add the records of a source, in new shards.

    Images are prepared as those that are there were.
    Options of one format, such as --pattern: headrace formats NAME
    """
    from headrace.cli import formats
    from headrace.revising.edit import edit

    paths = parse_paths(source, "SOURCE")
    assert paths is not None
    making = edit(ds, why=why, by=by)
    found, options = formats.open_sources(paths, format, given(_all_flags(), ctx.obj), general=_GENERAL)
    with log_shown(verbose), making:
        added = making.append(found, workers=workers, **options)
    notes = [spelled(note, ctx.command.flags(ctx)) for note in added.notes]  # type: ignore[attr-defined]
    if as_json:
        print_json(
            {
                "version": making.version,
                "stored": added.stored,
                "rejected": len(added.rejects),
                "rejected_by_reason": count_reasons(added.rejects),
                "splits": dict(added.splits),
                "new_classes": list(added.classes),
                "new_box_classes": list(added.box_classes),
                "notes": notes,
            }
        )
        return
    splits = ", ".join(f"{name} {n}" for name, n in added.splits.items())
    typer.echo(f"{ds}: version {making.version}, {added.stored} added ({splits}), {len(added.rejects)} rejected")
    for reason, n in count_reasons(added.rejects, shown=True).items():
        typer.echo(f"  rejected {n}: {reason}")
    if added.classes or added.box_classes:
        typer.echo(f"  new classes: {', '.join([*added.classes, *added.box_classes])}")
    for note in notes:
        typer.echo(f"  {note}")


def history(ds: DatasetPath, as_json: AsJson = False) -> None:
    """List the versions: who made them, when, why and how."""
    from headrace.format import versions
    from headrace.place.open import at

    path, number = versions.addressed(ds)
    found = versions.history(at(path), number)
    if as_json:
        print_json({"versions": [one.as_json() for one in found]})
        return
    for one in found:
        made = f", by {versions.one_line(one.by)}, {one.at}: {versions.one_line(one.why)}" if one.by else ""
        typer.echo(f"version {one.number}: {one.records} records{made}")
        for what in one.what:
            typer.echo(f"  {versions.told(what)}")


def diff(
    ds: DatasetPath,
    a: Annotated[int | None, typer.Argument(metavar="[A]", help="A version; by default that before B.")] = None,
    b: Annotated[int | None, typer.Argument(metavar="[B]", help="A later one; by default the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what two versions differ in, record by record."""
    from headrace.revising.diff import diff as run

    found = run(ds, a, b)
    if as_json:
        print_json(found.as_json())
    else:
        _print_diff(found)


def _print_diff(found: Diff) -> None:
    before, after = found.records
    typer.echo(f"version {found.before} to {found.after}: {before} to {after} records")
    for name, counts in (*found.splits.items(), *found.classes.items()):
        if counts[0] != counts[1]:
            typer.echo(f"  {name}: {counts[0]} to {counts[1]}")
    for what, ids in (("dropped", found.dropped), ("added", found.added)):
        _print_some(what, ids)
    for what, some in (("relabelled", found.relabelled), ("boxes", found.boxes), ("moved", found.moved)):
        _print_some(what, map(_told, some), len(some))


def _print_some(what: str, lines: Iterable[str], n: int | None = None) -> None:
    shown = list(lines)
    n = len(shown) if n is None else n
    if n:
        typer.echo(f"{what} {n}")
        for line in shown[:_SHOWN]:
            typer.echo(f"  {line}")
        if n > _SHOWN:
            typer.echo(f"  … and {n - _SHOWN} more; --json tells all")


def _told(one: Changed) -> str:
    before, after = (
        "nothing" if value is None else ", ".join(value) if isinstance(value, list) else value
        for value in (one.before, one.after)
    )
    return f"{one.id}: {before} to {after}"


def undo(ds: DatasetPath, why: MayWhy = None, by: By = None, as_json: AsJson = False) -> None:
    """Take back the last edit; again, the one before it.

    It makes a new version, as all edits do: history only grows.
    """
    from headrace.revising.history import undo as run

    _print_made(ds, run(ds, why=why, by=by), as_json)


def restore(
    ds: DatasetPath,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version that shall hold again.")],
    why: MayWhy = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version hold again, as a new one."""
    from headrace.revising.history import restore as run

    _print_made(ds, run(ds, version, why=why, by=by), as_json)


def _print_made(ds: Any, version: int, as_json: bool) -> None:
    from headrace.format import versions
    from headrace.place.open import at

    path, _ = versions.addressed(ds)
    made = versions.history(at(path), version)[-1]
    (said,) = made.what
    if as_json:
        print_json({"version": version, "as": said["version"], "records": made.records})
    else:
        typer.echo(f"{path}: version {version}, which is as version {said['version']} was: {made.records} records")


def compact(
    ds: DatasetPath, out: OutPath, overwrite: Overwrite = False, workers: Workers = None, as_json: AsJson = False
) -> None:
    """Pack what a version holds into a new folder.

    Its shards say it too: TensorFlow, DALI and others read shards, which no edit changes.
    """
    from headrace.revising.compact import compact as run

    report = run(ds, out, overwrite=overwrite, workers=workers)
    if as_json:
        facts = {"stored": report.stored, "rejected": len(report.rejects), "splits": dict(report.splits)}
        facts |= {"shards": report.shards, "bytes_out": report.bytes_out, "seconds": round(report.seconds, 3)}
        print_json(facts | {"out": str(report.path)})
        return
    splits = ", ".join(f"{name} {n}" for name, n in report.splits.items())
    typer.echo(
        f"{report.path}: {report.stored} records ({splits}) in {report.shards} shards, {amount(report.bytes_out)}; "
        f"{report.seconds:.1f} s"
    )
