"""The verbs plan, pack-part and publish: packing as jobs of any scheduler."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.command import Verb, spelled
from headrace.cli.options import AsJson, OutPath, Verbose, Workers
from headrace.cli.pack import Pack, facts, opened, print_report
from headrace.cli.text import amount, log_shown, print_json
from headrace.errors import UsageError

PlanFile = Annotated[Path, typer.Argument(metavar="FILE", help="A plan of 'headrace plan'.", readable=False)]


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(cls=Pack, epilog=_PLAN_EXAMPLE)(plan)
    app.command("pack-part", cls=Verb, epilog="headrace pack-part cats.plan --part 3/64")(pack_part)
    app.command(cls=Verb, epilog="headrace publish cats.plan")(publish)


_PLAN_EXAMPLE = "headrace plan photos cats --plan cats.plan --size 160 --split train=0.8,val=0.2"


def plan(
    ctx: typer.Context,
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Folder of images or annotation file; SPLIT=PATH for each split."),
    ],
    out: OutPath,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Format of SOURCE; by default it is recognised."),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The plan to write; required.", readable=False)
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Plan a packing, for job arrays: then pack-part for each part, and publish.
    All of them see SOURCE, OUT and FILE under the same paths.
    """
    from headrace.packing import parts

    if plan is None:
        raise UsageError("a plan needs --plan FILE, the file to write, as in --plan cats.plan")
    found, options = opened(ctx, source, format)
    with log_shown(verbose):
        report = parts.plan(found, out, plan, **options)
    notes = [spelled(note, ctx.command.flags(ctx)) for note in report.notes]  # type: ignore[attr-defined]
    if as_json:
        print_json(
            {
                "plan": str(report.file),
                "out": str(report.out),
                "seen": report.seen,
                "refused": report.refused,
                "splits": dict(report.splits),
                "classes": list(report.classes),
                "box_classes": list(report.box_classes),
                "shards": report.shards,
                "bytes": report.bytes,
                "seconds": round(report.seconds, 3),
                "notes": notes,
            }
        )
        return
    splits = ", ".join(f"{name} {n}" for name, n in report.splits.items())
    typer.echo(f"{report.file}: {report.seen} seen, {report.refused} of them refused; {splits}; {report.shards} shards")
    for note in notes:
        typer.echo(f"  {note}")
    typer.echo(f"  {amount(report.bytes)}, {report.seconds:.1f} s; next: headrace pack-part {report.file} --part 1/N")


def pack_part(
    file: PlanFile,
    part: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Which part, 1/N to N/N; by default that of a Slurm array."),
    ] = None,
    last: Annotated[
        bool, typer.Option("--last", help="There is no other try: reject images that can't be read.")
    ] = False,
    workers: Workers = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Pack a part of a plan: the shards that are not there yet. It may run again, and twice at once."""
    from headrace.packing import parts

    which, of = _part(part)
    with log_shown(verbose):
        report = parts.pack_part(file, which, of, last=last, workers=workers)
    if as_json:
        print_json(
            {
                "part": report.part,
                "parts": report.parts,
                "shards": report.shards,
                "made": report.made,
                "records": report.records,
                "rejected": report.rejected,
                "seconds": round(report.seconds, 3),
            }
        )
        return
    typer.echo(
        f"{file}: part {report.part}/{report.parts}: {report.shards} shards, {report.made} of them made now; "
        f"{report.records} records, {report.rejected} rejected; {report.seconds:.1f} s"
    )


def publish(file: PlanFile, verbose: Verbose = False, as_json: AsJson = False) -> None:
    """Publish what the parts of a plan have made, or say which parts are missing."""
    from headrace.packing import parts

    with log_shown(verbose):
        report = parts.publish(file)
    if as_json:
        print_json(facts(report, report.notes))
    else:
        print_report(report, report.notes)


def _part(text: str | None) -> tuple[int, int]:
    """(3, 64) of "3/64", or of a Slurm array's variables. Raises UsageError."""
    if text is None:
        said = [os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "COUNT", "MIN", "STEP")]
        if not all(word.isdecimal() for word in said) or not int(said[3]):
            raise UsageError("a part needs --part K/N, as in --part 3/64 (this is no job of a Slurm array)")
        task, count, least, step = map(int, said)
        return (task - least) // step + 1, count
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None:
        raise UsageError(f"--part {text!r:.60}: wanted K/N, as in 3/64, K from 1 to N")
    return int(match[1]), int(match[2])
