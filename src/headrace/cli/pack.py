"""The verbs pack and formats: a source becomes a dataset; what a source may be."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb, spelled
from headrace.cli.options import (
    OPTIONS,
    AsJson,
    Flag,
    OutPath,
    Verbose,
    Workers,
    given,
    parameters,
    parse_bytes,
    parse_paths,
    parse_range,
    parse_rejects,
    parse_size,
    parse_splits,
)
from headrace.cli.text import (
    amount,
    boxes_text,
    count_reasons,
    equal_lines,
    left_beside,
    left_line,
    log_shown,
    losses,
    print_json,
)
from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.packing.finish import PackReport
    from headrace.packing.runners import Runner

_IMAGES = "Images"

# The options of every packing, by the argument of headrace.pack that they give; those of formats join them.
_FLAGS = (
    Flag(
        name="size",
        metavar="N|HxW",
        help="Resize to N (square) or height x width pixels.",
        parse=parse_size,
        group=_IMAGES,
    ),
    Flag(name="fit", metavar="[stretch|crop|pad]", help="How images come to --size. [default stretch]", group=_IMAGES),
    Flag(name="max_side", metavar="N", type=int, help="Shrink larger images to a longer side of N.", group=_IMAGES),
    Flag(name="min_side_to", metavar="N", type=int, help="Shrink them to a shorter side of N.", group=_IMAGES),
    Flag(name="enlarge", type=bool, help="Enlarge smaller images to that side too.", group=_IMAGES),
    Flag(name="channels", metavar="[1|3]", type=int, help="Grey or RGB; by default as in the file.", group=_IMAGES),
    Flag(
        name="value_range",
        metavar="LOW,HIGH",
        help="Black and white of images of more than 8 bits.",
        parse=parse_range,
        group=_IMAGES,
    ),
    Flag(name="quality", metavar="N", type=int, help="JPEG quality of re-encoded images. [default 95]", group=_IMAGES),
    Flag(name="chroma", metavar="[444|420]", help="Their chroma subsampling. [default 444]", group=_IMAGES),
    Flag(name="optimize", type=bool, help="Make their files a little smaller; slower.", group=_IMAGES),
    Flag(name="max_pixels", metavar="N", type=int, help="Reject larger images. [default 64000000]", group=_IMAGES),
    Flag(
        name="on_warning",
        metavar="[reject|keep]",
        help="JPEGs that may be damaged. [default reject]",
        group=_IMAGES,
    ),
    Flag(
        name="splits",
        metavar="NAME=SHARE,…|given",
        help="As in train=0.8,val=0.2; or SOURCE's own.",
        parse=parse_splits,
        group=OPTIONS,
    ),
    Flag(name="group", metavar="NAME|look", help="What no split cuts: an attribute, look.", group=OPTIONS),
    Flag(
        name="guard",
        metavar="[move|drop|refuse]",
        help="Near-duplicates in several splits.",
        group=OPTIONS,
    ),
    Flag(name="shards", metavar="N", type=int, help="Shards of each split.", group=OPTIONS),
    Flag(
        name="shard_size",
        metavar="SIZE",
        help="About the size of a shard. [default 128MB]",
        parse=parse_bytes,
        group=OPTIONS,
    ),
    Flag(name="seed", metavar="N", type=int, help="Random seed of splits and order. [default 0]", group=OPTIONS),
    Flag(
        name="max_rejects",
        metavar="N|N%",
        help="Rejects allowed: share, count. [default 10%]",
        parse=parse_rejects,
        group=OPTIONS,
    ),
    Flag(name="overwrite", type=bool, help="Replace an existing dataset.", group=OPTIONS),
)
_GENERAL = frozenset(flag.name for flag in _FLAGS)


class Pack(Verb):
    """Its options are the general ones and, hidden from its help, those of all formats."""

    def get_params(self, ctx: Any) -> list[Any]:
        declared: list[Any] = super().get_params(ctx)
        return [*declared[:3], *_parameters(), *declared[3:]]  # SOURCE, OUT and --format first

    def invoke(self, ctx: Any) -> Any:
        ctx.obj = {flag.name: ctx.params.pop(flag.name) for flag in _all_flags()}
        return super().invoke(ctx)


@functools.cache
def _all_flags() -> tuple[Flag, ...]:
    from headrace.cli import formats

    return (*_FLAGS, *(flag for flag in formats.flags() if flag.name not in _GENERAL))


@functools.cache
def _parameters() -> list[Any]:
    return parameters(_all_flags())


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(cls=Pack, epilog=_EXAMPLE)(pack)
    app.command(cls=Verb, epilog="headrace formats wider")(formats)


_EXAMPLE = "headrace pack photos cats --size 160 --split train=0.8,val=0.2"


def pack(
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
    workers: Workers = None,
    runner: Annotated[str, typer.Option(metavar="NAME", help="Or ray, dask; with --address.")] = "threads",
    address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Of its cluster; else a local one.", hidden=True)
    ] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Pack labelled images into TFRecords; of one format: headrace formats NAME"""
    from headrace.packing.pack import pack as run

    made_by = _runner(runner, address, workers)
    found, options = opened(ctx, source, format)
    with log_shown(verbose):
        report = run(found, out, workers=workers if made_by is None else None, runner=made_by, **options)
    notes = [spelled(note, ctx.command.flags(ctx)) for note in report.notes]  # type: ignore[attr-defined]
    if as_json:
        print_json(facts(report, notes))
    else:
        print_report(report, notes)


def opened(ctx: typer.Context, source: list[str], format: str | None) -> tuple[Any, dict[str, Any]]:
    """The source, or one per split, and the options of the packing. Raises UsageError, and what sources raise."""
    from headrace.cli import formats

    paths = parse_paths(source, "SOURCE")
    assert paths is not None
    return formats.open_sources(paths, format, given(_all_flags(), ctx.obj), general=_GENERAL)


def _runner(name: str, address: str | None, workers: int | None) -> Runner | None:
    """None for threads. Raises UsageError, MissingExtraError."""
    if name not in ("threads", "ray", "dask"):
        raise UsageError(f"--runner {name!r}: wanted threads, ray or dask")
    if name == "threads":
        if address is not None:
            raise UsageError(f"--address {address}: wanted with --runner ray or --runner dask, the runner is threads")
        return None
    from headrace.packing import runners

    return runners.ray(address, workers=workers) if name == "ray" else runners.dask(address, workers=workers)


def facts(report: PackReport, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "seen": report.seen,
        "stored": report.stored,
        "warned": report.warned,
        "rejected": len(report.rejects),
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 1),
        "rejected_by_reason": count_reasons(report.rejects),
        "splits": dict(report.splits),
        "classes": list(report.classes),
        "box_classes": list(report.box_classes),
        "boxes": report.boxes,
        "boxes_clipped": report.boxes_clipped,
        "boxes_dropped": dict(report.boxes_dropped),
        "keypoint_sets": report.keypoint_sets,
        "keypoints_dropped": dict(report.keypoints_dropped),
        "shards": report.shards,
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "passed_over": dict(report.skipped),
        "notes": list(notes),
        "equal_images": report.equal.as_json(),
        "out": str(report.path),
    }


def print_report(report: PackReport, notes: Sequence[str]) -> None:
    splits = ", ".join(f"{name} {n}" for name, n in report.splits.items())
    typer.echo(f"{report.path}: {report.seen} seen = {report.stored} stored + {len(report.rejects)} rejected")
    for reason, n in count_reasons(report.rejects, shown=True).items():
        typer.echo(f"  rejected {n}: {reason}")
    if report.rejects:
        typer.echo(f"  each with its reason in {report.path / report.folder / 'rejects.jsonl'}")
    if report.warned:
        typer.echo(f"  kept {report.warned} that may be damaged: the column warning of the catalog says why")
    if report.skipped:
        kinds = ", ".join(f"{kind} {n}" for kind, n in report.skipped.items())
        typer.echo(f"  passed over {sum(report.skipped.values())}: {kinds}")
    for note in [*notes, *equal_lines(report.equal)]:
        typer.echo(f"  {note}")
    classes = f"; classes: {', '.join(report.classes) or 'none'}" if report.classes or not report.box_classes else ""
    typer.echo(f"  {splits}; {report.shards} shards{classes}")
    if report.boxes or report.boxes_dropped:
        of = f" of {', '.join(report.box_classes)}" if report.box_classes else ""
        typer.echo(f"  boxes{of}: {boxes_text(report.boxes, report.boxes_clipped, report.boxes_dropped)}")
    if report.keypoint_sets or report.keypoints_dropped:
        typer.echo(f"  keypoints: {', '.join([f'{report.keypoint_sets} sets', *losses(report.keypoints_dropped)])}")
    typer.echo(
        f"  {amount(report.bytes_in)} in, {amount(report.bytes_out)} out; "
        f"{report.seconds:.1f} s, {report.images_per_second:.0f} images/s"
    )
    if report.folder:
        typer.echo(f"  its files lie in {report.path / report.folder}")
    if (left := left_beside(report.path)) is not None:
        typer.echo(f"  beside it {left_line(left)}")


def formats(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show the options of this format.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the formats that pack reads and export writes, or the options of one."""
    from headrace.cli import formats as listed

    formatter = ctx.make_formatter()
    if as_json:
        print_json({"formats": listed.all_facts()} if name is None else listed.facts(name))
        return
    if name is None:
        listed.write_list(formatter)
        formatter.write("\nThe options of one format: headrace formats NAME")
    else:
        listed.write_page(formatter, name)
    typer.echo(formatter.getvalue().rstrip("\n"))
