"""The verb adopt: TFRecord files that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.command import Verb, spelled
from headrace.cli.options import (
    AsJson,
    MaxPixels,
    MaxRejects,
    OutPath,
    Overwrite,
    Verbose,
    Workers,
    parse_names,
    parse_rejects,
)
from headrace.cli.text import amount, boxes_text, count_reasons, log_shown, print_json
from headrace.errors import UsageError
from headrace.place.address import located

if TYPE_CHECKING:
    from headrace.adopting.adopt import AdoptReport


def register(app: typer.Typer) -> None:
    """Adds the verb to `app`."""
    app.command(
        cls=Verb,
        epilog="headrace adopt shards/*.tfrecord cats\n"
        "headrace adopt shards cats --map image=jpg --map label=y:from1 --split train",
    )(adopt)


def adopt(
    ctx: typer.Context,
    shards: Annotated[
        list[Any],
        typer.Argument(metavar="SHARDS", help="TFRecord files, folders of them, or their URLs.", parser=located),
    ],
    out: OutPath,
    map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=KEY",
            help="The key that holds a field, where it is not recognised; may be repeated. FIELD is image, file, id, "
            "label, label_text, boxes (one key or xmin,ymin,xmax,ymax), box_labels, box_label_text, keypoints or "
            "keypoint_text. KEY may end in :from0 or :from1 (label, box_labels), :xyxy, :yxyx or :xywh (boxes), "
            ":pixels (boxes, keypoints).",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of all files; by default taken from their names.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,C|FILE", help="Class names in index order, or a file of them.")
    ] = None,
    box_classes: Annotated[
        str | None, typer.Option(metavar="A,B,C|FILE", help="Names of the box classes, likewise.")
    ] = None,
    keypoint_names: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Names of the keypoints in their order.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images, where records only name them.", readable=False),
    ] = None,
    salvage: Annotated[bool, typer.Option("--salvage", help="Skip damaged records and adopt the rest.")] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="Decompress GZIP and ZLIB files into OUT; else they are an error.")
    ] = False,
    max_rejects: MaxRejects = "10%",
    max_pixels: MaxPixels = 64_000_000,
    workers: Workers = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Use existing TFRecord files as a dataset, in place.

    The files are indexed and checked; they are neither copied nor rewritten.
    """
    from headrace.adopting.adopt import adopt as run

    flags = ctx.command.flags(ctx)  # type: ignore[attr-defined]
    with log_shown(verbose):
        report = run(
            shards,
            out,
            map=parse_map(map or []),
            split=split,
            classes=_names(classes),
            box_classes=_names(box_classes),
            keypoint_names=parse_names(keypoint_names),
            images=images,
            salvage=salvage,
            convert=convert,
            max_rejects=parse_rejects(max_rejects),
            max_pixels=max_pixels,
            workers=workers,
            overwrite=overwrite,
        )
    if as_json:
        _print_report(report, flags)
        return
    typer.echo(f"{out}: {report.seen} seen = {report.stored} stored + {len(report.rejects)} rejected")
    for reason, n in count_reasons(report.rejects, shown=True).items():
        typer.echo(f"  rejected {n}: {reason}")
    if report.rejects:
        typer.echo(f"  each with its reason in {out / 'rejects.jsonl'}")
    for damage in report.skipped:
        typer.echo(f"  damaged: {damage}")
    if report.skipped:
        typer.echo(f"  {report.skipped_bytes} bytes were skipped")
    typer.echo(f"  layout: {report.layout}; {' '.join(f'--map {name}={key}' for name, key in report.map.items())}")
    for note in report.notes:
        typer.echo(f"  {spelled(note, flags)}")
    splits = ", ".join(f"{name} {n}" for name, n in report.splits.items())
    typer.echo(f"  {splits}; {report.shards} shards; classes: {', '.join(report.classes) or 'none'}")
    if report.boxes or report.boxes_dropped:
        what = f" of {', '.join(report.box_classes)}" if report.box_classes else ""
        typer.echo(f"  boxes{what}: {boxes_text(report.boxes, report.boxes_clipped, report.boxes_dropped)}")
    if report.keypoints:
        named = f": {', '.join(report.keypoint_names)}" if report.keypoint_names else ""
        dropped = "".join(f"; {n} dropped ({reason})" for reason, n in report.keypoints_dropped.items())
        typer.echo(f"  {report.keypoints} keypoints of each object{named}{dropped}")
    typer.echo(f"  {amount(report.bytes)}; {report.seconds:.1f} s, {amount(report.bytes_per_second)}/s")


def _print_report(report: AdoptReport, flags: dict[str, str]) -> None:
    print_json(
        {
            "seen": report.seen,
            "stored": report.stored,
            "rejected": len(report.rejects),
            "rejected_by_reason": count_reasons(report.rejects),
            "layout": report.layout,
            "map": dict(report.map),
            "splits": dict(report.splits),
            "classes": list(report.classes),
            "box_classes": list(report.box_classes),
            "boxes": report.boxes,
            "boxes_clipped": report.boxes_clipped,
            "boxes_dropped": dict(report.boxes_dropped),
            "keypoints": report.keypoints,
            "keypoint_names": list(report.keypoint_names),
            "keypoints_dropped": dict(report.keypoints_dropped),
            "shards": report.shards,
            "notes": [spelled(note, flags) for note in report.notes],
            "damaged": [
                {
                    "shard": damage.shard,
                    "record": damage.record,
                    "offset": damage.offset,
                    "begin": damage.begin,
                    "end": damage.end,
                    "reason": damage.reason,
                }
                for damage in report.skipped
            ],
            "skipped_bytes": report.skipped_bytes,
            "seconds": round(report.seconds, 3),
            "bytes": report.bytes,
            "bytes_per_second": round(report.bytes_per_second),
            "out": str(report.path),
        }
    )


def parse_map(given: list[str]) -> dict[str, str]:
    """{"image": "jpg"} of ["image=jpg"]. Raises UsageError."""
    out: dict[str, str] = {}
    for one in given:
        name, equals, key = one.partition("=")
        if not equals:
            raise UsageError(f"--map {one!r}: wanted FIELD=KEY, as in image=image/encoded")
        if name in out:
            raise UsageError(f"--map {one!r}: {name} occurs twice")
        out[name] = key
    return out


def _names(text: str | None) -> list[str] | str | None:
    """Names between commas, or the path of a file of them."""
    if text is None or Path(text).is_file() or text.endswith((".txt", ".pbtxt")):
        return text
    return parse_names(text)
