"""The verb export: a dataset leaves again, as files of another format."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb
from headrace.cli.options import OPTIONS, AsJson, DatasetPath, Flag, OutPath, Workers, given, parameters
from headrace.cli.text import amount, print_json
from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.exporting.export import ExportReport


class Export(Verb):
    """Its options are the general ones and those of all formats."""

    def get_params(self, ctx: Any) -> list[Any]:
        declared: list[Any] = super().get_params(ctx)
        return [*declared[:2], *_parameters(), *declared[2:]]  # DS and OUT first

    def invoke(self, ctx: Any) -> Any:
        ctx.obj = {flag.name: ctx.params.pop(flag.name) for flag in _flags()}
        return super().invoke(ctx)


@functools.cache
def _flags() -> tuple[Flag, ...]:
    from dataclasses import replace

    from headrace.cli import formats
    from headrace.exporting.registry import FORMATS

    chosen = Flag(name="format", metavar=f"[{'|'.join(FORMATS)}]", help="What to write. [required]", group=OPTIONS)
    return (chosen, *(replace(flag, group=_OF_FORMATS) for flag in formats.written_flags()))


_OF_FORMATS = "Options of one format"


@functools.cache
def _parameters() -> list[Any]:
    return parameters(_flags())


def register(app: typer.Typer) -> None:
    """Adds the verb to `app`."""
    app.command(
        cls=Export,
        epilog="headrace export cats coco --format coco\n"
        'headrace export cats large --format yolo --where "width > 300"',
    )(export)


def export(
    ctx: typer.Context,
    ds: DatasetPath,
    out: OutPath,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="The records of this split; all by default.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="The records for which this holds, such as \"label_name = 'cat'\"."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an export wrote.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset as files of another format, for other tools.

    Images are taken over byte by byte. What the format has no place for is counted.
    """
    from headrace.exporting.export import export as run
    from headrace.exporting.registry import FORMATS
    from headrace.load.dataset import Dataset

    options = given(_flags(), ctx.obj)
    format = options.pop("format", None)
    if format is None:
        raise UsageError(f"--format is missing, wanted one of {', '.join(FORMATS)}")
    view = Dataset(ds)
    view = view if split is None else view.split(split)
    view = view if where is None else view.where(where)
    report = run(view, out, format=format, overwrite=overwrite, workers=workers, **options)
    if as_json:
        print_json(facts(report))
    else:
        _print(report)


def facts(report: ExportReport) -> dict[str, Any]:
    """The report, for JSON."""
    return {
        "out": str(report.path),
        "format": report.format,
        "records": report.records,
        "files": report.files,
        "bytes": report.bytes,
        "lost": dict(report.lost),
        "renamed": report.renamed,
        "seconds": round(report.seconds, 3),
    }


def _print(report: ExportReport) -> None:
    from headrace.exporting.export import NAMES_FILE

    typer.echo(
        f"{report.path}: {report.records} records as {report.format}, {amount(report.bytes)} in {report.files} files"
    )
    for kind, n in report.lost.items():
        typer.echo(f"  not kept: {n} {kind}")
    if report.renamed:
        typer.echo(f"  {report.renamed} images are not called as their id; ids in {report.path / NAMES_FILE}")
    typer.echo(f"  {report.seconds:.1f} s")
