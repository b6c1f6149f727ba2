"""The registry of formats on the command line: their options as flags, from these to a source, and what they read."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer

from headrace.cli.command import write_examples, write_rows
from headrace.cli.options import Flag, flag_of, parse_names, parse_pairs, parse_paths, parse_range
from headrace.errors import UsageError
from headrace.place.address import Location
from headrace.sources import Source
from headrace.sources.formats import Format, Option
from headrace.sources.registry import FORMATS, find_format, guess

if TYPE_CHECKING:
    from headrace.exporting.formats import Format as WrittenFormat

# What is typed for a value of a type, and what makes the value of it.
_WRITTEN: dict[Any, tuple[str, Any]] = {
    str: ("TEXT", None),
    int: ("N", None),
    float: ("X", None),
    Path: ("PATH", None),
    list[str]: ("NAME", None),
    tuple[str, ...]: ("A,B,C", parse_names),
    tuple[tuple[int, int], ...]: ("I-J,K-L", parse_pairs),
    tuple[float, float]: ("LOW,HIGH", parse_range),
}


def written_formats() -> dict[str, WrittenFormat]:
    """What can be written, by name."""
    from headrace.exporting.registry import FORMATS  # here, as pack needs none of it, and it brings Polars

    return FORMATS


@functools.cache
def written_flags() -> tuple[Flag, ...]:
    """The options of all formats that can be written, each once."""
    options = {option.name: option for entry in written_formats().values() for option in entry.options}
    return tuple(_flag(option) for option in options.values())


@functools.cache
def flags() -> tuple[Flag, ...]:
    """The options of all formats, each once, hidden from the help of pack."""
    options = {option.name: option for entry in FORMATS.values() for option in entry.options}
    return tuple(_flag(option) for option in options.values())


def _flag(option: Option) -> Flag:
    """An option of a format, hidden from the help of its verb."""
    if option.type is bool:
        return Flag(name=option.name, help=option.help, type=bool)
    metavar, parse = _written(option)
    if option.per_split:
        parse = functools.partial(parse_paths, what=flag_of(option.name))
    several = option.per_split or option.type == list[str]
    kind = option.type if option.type in (int, float) else str
    return Flag(name=option.name, help=option.help, metavar=metavar, type=kind, several=several, parse=parse)


def _written(option: Option) -> tuple[str, Any]:
    if choices := _choices(option):
        return f"[{'|'.join(choices)}]", None
    metavar, parse = _WRITTEN[option.type]
    return (f"[SPLIT=]{metavar}" if option.per_split else metavar), parse


def _choices(option: Option) -> tuple[str, ...]:
    return () if get_origin(option.type) in (list, tuple) else get_args(option.type)


# --- from flags to a source ------------------------------------------------------------------------------------------


def open_sources(
    paths: Location | Mapping[str, Location], format: str | None, options: Mapping[str, Any], *, general: frozenset[str]
) -> tuple[Source | dict[str, Source], dict[str, Any]]:
    """The source of a path, or a source per split, and the options left over: `general` ones that it doesn't take.

    The value of an option that may have one per split may be a dict. Raises UsageError, and what sources raise.
    """
    divided = {name: value for name, value in options.items() if isinstance(value, dict) and name not in general}
    for name, values in divided.items():
        for split, value in values.items():
            if not isinstance(paths, Mapping) or split not in paths:
                there = "no splits" if not isinstance(paths, Mapping) else f"the splits {', '.join(paths)}"
                raise UsageError(f"{flag_of(name)} {split}={value}: no split {split!r}, the sources have {there}")
    if not isinstance(paths, Mapping):
        return _source(paths, format, options, general, "")
    found: dict[str, Source] = {}
    left: dict[str, Any] = {}
    for split, path in paths.items():
        mine = {name: value for name, value in options.items() if name not in divided}
        mine |= {name: values[split] for name, values in divided.items() if split in values}
        found[split], others = _source(path, format, mine, general, f" for split {split!r}")
        left |= others
    return found, left


def _source(
    path: Location, format: str | None, options: Mapping[str, Any], general: frozenset[str], of: str
) -> tuple[Source, dict[str, Any]]:
    """The source of `path`, and the options left over; `of` says which source it is."""
    if format is None:
        chosen, why = guess(path, options)
        typer.echo(f"headrace: taking --format {chosen.name}{of}: {why}", err=True)
    else:
        chosen = find_format(format)
    taken = {name: value for name, value in options.items() if chosen.option(name)}
    left = {name: value for name, value in options.items() if name not in taken}
    for name in left:
        if name not in general:
            takers = " and ".join(entry.name for entry in FORMATS.values() if entry.option(name))
            raise UsageError(f"{flag_of(name)} is for --format {takers}, the format is {chosen.name}")
    for option in chosen.options:
        if option.required and option.name not in taken:
            flag, hint = flag_of(option.name), option.help[0].lower() + option.help[1:].rstrip(".")
            raise UsageError(
                f"--format {chosen.name} needs {flag}{of}, {hint}, "
                f"e.g. {flag} {shlex.quote(str(chosen.example[1][option.name]))}"
            )
    return chosen.make(path, **taken), left


# --- for people and programs -----------------------------------------------------------------------------------------


def write_list(formatter: Any) -> None:
    """All formats: what of each is read and written, and its options."""
    for name in names():
        rows: list[str] = []
        if entry := FORMATS.get(name):
            rows += [f"{entry.reads}.", ", ".join(flag_of(option.name) for option in entry.options)]
        if written := written_formats().get(name):
            rows += [f"Written: {written.writes}."]
            rows += [", ".join(flag_of(option.name) for option in written.options)]
        first, *rest = filter(None, rows)
        write_rows(formatter, [(name, first), *(("", row) for row in rest)], column=13)


def write_page(formatter: Any, name: str) -> None:
    """One format: its options with their help, and an example. Raises UsageError."""
    entry, written = _either(name)
    if entry is not None:
        formatter.write_text(f"{name}: {entry.reads}")
        for title, text in told(entry):
            with formatter.section(title):
                formatter.write_text(text)
        with formatter.section("Sample"):
            indent = " " * formatter.current_indent
            formatter.write("".join(f"{indent}{line}\n" for line in entry.about.sample.splitlines()))
        if entry.options:
            with formatter.section("Options"):
                write_rows(formatter, [row(option) for option in entry.options])
        write_examples(formatter, example(entry))
    if written is not None:
        formatter.write_paragraph()
        formatter.write_text(f"{name}, written: {written.writes}")
        if written.options:
            with formatter.section("Options of export"):
                write_rows(formatter, [row(option) for option in written.options])
        write_examples(formatter, written_example(written))


def told(entry: Format) -> list[tuple[str, str]]:
    """(title, sentences) of what people want to know of a format."""
    about = entry.about
    return [("Recognised by", about.recognised), ("Kept", about.kept), ("Refused", about.refused)]


def names() -> list[str]:
    """Of all formats: those that are read, and then those that are only written."""
    return [*FORMATS, *(name for name in written_formats() if name not in FORMATS)]


def _either(name: str) -> tuple[Format | None, WrittenFormat | None]:
    """What is read and what is written under this name. Raises UsageError."""
    written = written_formats().get(name)
    return (None if written is not None and name not in FORMATS else find_format(name)), written


def row(option: Option) -> tuple[str, str]:
    flag = flag_of(option.name) + ("" if option.type is bool else f" {_written(option)[0]}")
    notes = [
        *(["required"] if option.required else []),
        *(["may be repeated"] if option.type == list[str] else []),
        *(["may be repeated, for each split"] if option.per_split else []),
        *([f"default {option.default}"] if option.default not in (None, False) else []),
    ]
    return flag, option.help + (f" [{', '.join(notes)}]" if notes else "")


def example(entry: Format) -> str:
    """A command that packs a source of this format."""
    path, options = entry.example
    words = ["headrace", "pack", path, "out", "--format", entry.name]
    for name, value in options.items():
        words += [flag_of(name), ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def written_example(entry: WrittenFormat) -> str:
    """A command that writes this format."""
    return shlex.join(["headrace", "export", "cats", "out", "--format", entry.name])


def all_facts() -> list[dict[str, Any]]:
    """`facts` of all formats."""
    return [facts(name) for name in names()]


def facts(name: str) -> dict[str, Any]:
    """The same, for JSON: what is read, with null for what is only written, and what is written."""
    entry, written = _either(name)
    return {
        "name": name,
        "reads": None if entry is None else entry.reads,
        "takes": None if entry is None else entry.takes,
        "about": None if entry is None else asdict(entry.about),
        "options": [] if entry is None else [_option(option) for option in entry.options],
        "example": None if entry is None else example(entry),
        "writes": None if written is None else written.writes,
        "export_options": [] if written is None else [_option(option) for option in written.options],
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "flag": flag_of(option.name),
        "value": None if option.type is bool else _written(option)[0],
        "choices": list(_choices(option)),
        "default": option.default,
        "required": option.required,
        "per_split": option.per_split,
        "help": option.help,
    }
