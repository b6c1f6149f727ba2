"""The verbs view and report: looking at a dataset in a browser, and in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.command import Verb
from headrace.cli.options import AsJson, parse_dataset
from headrace.cli.text import amount, print_json, visible

Data = Annotated[str, typer.Argument(metavar="DS[:SPLIT]", help="A dataset, or one split of it.")]
RunFolder = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="A run that was evaluated, to look at what it says.")
]


def register(app: typer.Typer) -> None:
    """Adds this module's verbs to `app`."""
    app.command(
        cls=Verb, epilog="headrace view cats\nheadrace view cats:val --run run --port 8080\nheadrace view cats --edit"
    )(view)
    app.command(cls=Verb, epilog="headrace report cats cats.html --run run")(report)


def view(
    ds: Data,
    run: RunFolder = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Labels, splits and boxes can be mended; each save is a version.")
    ] = False,
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes any free one.")] = 0,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Who can reach it: 127.0.0.1 this machine alone, 0.0.0.0 everybody.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="The name of a proxy that leads here; may be repeated."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """Show a dataset in a browser: images, labels, predictions.

    Its pages are a gallery, each record, classes and sizes, rejects, duplicates, what a run says, and the history.

    Prints its address, which holds a token that nobody else knows. Ctrl-C ends it.
    """
    from headrace.load.dataset import Dataset
    from headrace.viewing.serve import Viewer, open_browser

    path, split = parse_dataset(ds)
    whole = Dataset(path)
    viewer = Viewer(
        whole if split is None else whole.split(split),
        run=run,
        edit=edit,
        host=host,
        port=port,
        allow_hosts=allow_host or (),
    )
    if viewer.address.warning:
        print(f"headrace: {visible(viewer.address.warning)}", file=sys.stderr)
    typer.echo(viewer.address.url)
    print("Ctrl-C ends it", file=sys.stderr)
    if not no_browser:
        open_browser(viewer.address.url)
    viewer.run()


def report(
    ds: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The file to make.")],
    run: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write what a dataset holds into one HTML file, to keep or print."""
    from headrace.load.dataset import Dataset

    path, split = parse_dataset(ds)
    whole = Dataset(path)
    chosen = whole if split is None else whole.split(split)
    made = chosen.report(out, run=run)
    size = made.stat().st_size
    if as_json:
        print_json(
            {"report": str(made), "records": len(chosen), "bytes": size, "run": None if run is None else str(run)}
        )
        return
    typer.echo(f"report: {made} ({amount(size)})")
