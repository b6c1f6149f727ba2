"""Writes docs/formats.md out of what the formats say of themselves: python docs/formats.py"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import headrace as hr  # noqa: E402
from drawn import picture, saved  # noqa: E402
from headrace.cli import formats  # noqa: E402
from headrace.exporting.registry import FORMATS as WRITTEN  # noqa: E402
from headrace.sources.registry import FORMATS as READ  # noqa: E402

HEAD = """# Formats

What `headrace pack` reads and `headrace export` writes. A format is recognised by its content, and `pack` says aloud
what it saw; `--format NAME` names one. `headrace formats NAME` prints what stands here. The options are arguments of
`headrace.sources.NAME` in Python, too; what is exported is an example of each.

Refused is a record, never the rest: it becomes a Reject with its file and line, in `rejects.jsonl`, and packing ends
only when there are more of them than `--max-rejects` allows. Everywhere: an image that is missing, that a link or a
name leads to outside of the folder of images, or that does not decode; a number that is none, NaN or infinite; a
reversed box; an id that occurs twice. A box without an area, or outside of its image, is left out and counted.

This page is made by `python docs/formats.py`, and a test holds it against the code.
"""

_LINES = 24  # of a sample


def page() -> str:
    """The whole document."""
    parts = [HEAD, _table()]
    with tempfile.TemporaryDirectory() as folder:
        parts += [_format(name, Path(folder)) for name in formats.names()]
    return "\n".join(parts)


def _table() -> str:
    lines = ["| format | read | written |", "|---|---|---|"]
    for name in formats.names():
        read, written = READ.get(name), WRITTEN.get(name)
        says = (read.reads if read else "", written.writes if written else "")
        lines.append(f"| [{name}](#{name}) | {says[0]} | {says[1]} |")
    return "\n".join(lines) + "\n"


def _format(name: str, folder: Path) -> str:
    lines = [f"## {name}", ""]
    if entry := READ.get(name):
        lines += [f"{entry.reads}.", ""]
        for title, text in formats.told(entry):
            lines += [f"**{title}:** {text}", ""]
        if entry.about is not None:
            lines += ["```", entry.about.sample, "```", ""]
        if entry.options:
            lines += ["| option | is |", "|---|---|"]
            lines += [f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in map(formats.row, entry.options)]
            lines.append("")
        lines += ["```", formats.example(entry), "```", ""]
    if written := WRITTEN.get(name):
        lines += [f"**Written:** {written.writes}.", ""]
        if written.options:
            lines += ["| option of export | is |", "|---|---|"]
            lines += [f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in map(formats.row, written.options)]
            lines.append("")
        lines += ["```", *_exported(name, folder), "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _exported(name: str, folder: Path) -> list[str]:
    """The files that an export of two small images makes, and what is in the first that describes them."""
    ds = folder / "ds"
    if not ds.exists():
        hr.pack(_records(), ds, splits="given", progress=False)
    out = folder / name
    hr.Dataset(ds).export(out, format=name, progress=False)
    files = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [str(path.relative_to(out)) for path in files]
    for path in files:
        shown = _content(path)
        if shown:
            return [*lines, "", f"{path.relative_to(out)}:", *shown]
    return lines


def _content(path: Path) -> list[str]:
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            found = []
            for member in tar:
                file = tar.extractfile(member)
                text = (
                    file.read().decode() if file is not None and member.name.endswith((".json", ".cls", ".txt")) else ""
                )
                found.append(f"{member.name}{'  ' if text else ''}{text.strip()}")
            return found
    if path.suffix == ".parquet":
        return [f"{name}: {kind}" for name, kind in pl.read_parquet_schema(path).items()]
    if path.suffix in (".png", ".jpg"):
        return []
    text = path.read_text()
    if path.suffix == ".json" and len(text.splitlines()) < 3:
        text = _spread(json.loads(text))
    lines = text.splitlines()
    return lines[:_LINES] + (["…"] if len(lines) > _LINES else [])


def _spread(value: object) -> str:
    """JSON whose inmost lists and objects are one line each."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def _records() -> list[hr.Record]:
    boxes = np.array([[4, 6, 20, 18], [22, 10, 30, 20]], np.float32)
    return [
        hr.Record(
            id="a.png",
            encoded=saved(picture(24, 32, seed=1), "PNG"),
            label_name="street",
            boxes=boxes,
            box_labels=("car", "dog"),
            attributes={"truncated": [0, 1]},
            split="train",
        ),
        hr.Record(
            id="b.png",
            encoded=saved(picture(24, 32, seed=2), "PNG"),
            label_name="park",
            boxes=boxes[:0],
            box_labels=(),
            split="val",
        ),
    ]


if __name__ == "__main__":
    (HERE / "formats.md").write_text(page(), encoding="utf-8")
