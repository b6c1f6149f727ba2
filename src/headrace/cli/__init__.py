"""The command line: parse, call one function, print. Here errors become a line and an exit code."""

from __future__ import annotations

import io
import os
import sys
import warnings

import typer

from headrace.cli import adopt, cache, data, demo, duplicates, edit, export, learn, pack, parts, show, view
from headrace.cli.command import Verbs
from headrace.cli.text import safe_output, visible
from headrace.errors import HeadraceError
from headrace.version import __version__

app = typer.Typer(
    name="headrace",
    cls=Verbs,
    context_settings={"color": True},  # else Click cuts escape sequences out where it sees no terminal
    help="Pack labelled images into TFRecords once; load them fast; train, evaluate and predict with them.",
    epilog="headrace pack photos cats --size 160 --split train=0.8,val=0.2\nheadrace train cats --out run",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
pack.register(app)
parts.register(app)
data.register(app)
duplicates.register(app)
adopt.register(app)
edit.register(app)
cache.register(app)
export.register(app)
show.register(app)
view.register(app)
learn.register(app)
demo.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headrace {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 the data is at fault, 2 the call is, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that are no UTF-8
    # What Pillow has to say of odd metadata, on lines of its own; what matters of it becomes a Reject.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with safe_output():
        try:
            app(prog_name="headrace")
        except HeadraceError as error:
            print(f"headrace: {visible(str(error))}", file=sys.stderr)
            sys.exit(error.exit_code)
        except BrokenPipeError:  # the reader of our output has gone: `headrace info DS | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except SystemExit as end:
            if end.code == 130:  # what Typer makes of a KeyboardInterrupt, without a word
                print("headrace: interrupted", file=sys.stderr)
            raise
