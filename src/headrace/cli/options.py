"""Options: how they are spelled, what their words mean in Python, and those that several verbs have."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.errors import UsageError
from headrace.place.address import Location, is_url, located

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Number of threads; one per core by default.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log rejects and new files to standard error.")]
DatasetPath = Annotated[
    Any, typer.Argument(metavar="DS", help="A dataset, packed or adopted, or its URL.", parser=located)
]
OutPath = Annotated[Any, typer.Argument(metavar="OUT", help="Folder to make, or its URL.", parser=located)]
MaxRejects = Annotated[
    str, typer.Option(metavar="N|N%", help="Rejects allowed, a share or a count; else nothing is made.")
]
MaxPixels = Annotated[int, typer.Option(metavar="N", help="Reject larger images.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing dataset.")]

# Arguments whose flag is another word.
_FLAGS = {"class_names": "--classes", "y": "--labels", "splits": "--split"}

_SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def flag_of(argument: str) -> str:
    """How an argument of the library is spelled on the command line."""
    return _FLAGS.get(argument, f"--{argument.replace('_', '-')}")


OPTIONS = "Options"  # the heading of those that have no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An option that gives the argument `name` a value: `parse` of its word, or of all its words where it is `several`.

    `type`: what a word is before that: str, int or float, or bool for a switch, which has no metavar. `group`: the
    heading that it stands under in the help; None hides it.
    """

    name: str
    help: str
    metavar: str | None = None
    type: type = str
    several: bool = False
    parse: Callable[[Any], Any] | None = None
    group: str | None = None


def parameters(flags: Sequence[Flag]) -> list[Any]:
    """Typer's parameters of these flags: None, an empty list or False when not given."""

    def verb(**_: Any) -> None: ...

    kinds: dict[str, Any] = {}
    for flag in flags:
        option = typer.Option(
            flag_of(flag.name),
            metavar=flag.metavar,
            help=flag.help,
            hidden=flag.group is None,
            rich_help_panel=flag.group,
        )
        kind = list[flag.type] if flag.several else flag.type  # type: ignore[name-defined]
        kinds[flag.name] = Annotated[kind if flag.type is bool else kind | None, option]
    signature = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if flag.type is bool else None)
        for name, flag in zip(kinds, flags, strict=True)
    ]
    verb.__annotations__ = kinds
    verb.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(annotation=kinds[parameter.name]) for parameter in signature]
    )
    app = typer.Typer(add_completion=False)
    app.command()(verb)
    return list(typer.main.get_command(app).params)


def given(flags: Iterable[Flag], words: dict[str, Any]) -> dict[str, Any]:
    """Name -> value of the flags that have words. Raises UsageError."""
    out: dict[str, Any] = {}
    for flag in flags:
        word = words[flag.name]
        if not (word is None or word is False or (flag.several and not word)):  # 0 is a value
            word = list(word) if flag.several else word
            out[flag.name] = word if flag.parse is None else flag.parse(word)
    return out


def parse_paths(words: Iterable[str], what: str) -> Location | dict[str, Location] | None:
    """A path for all, {"train": a, "val": b} of "train=a", "val=b", or None of nothing. `what` they are for errors.

    What is there under all of its name, equals sign and all, is a path. Raises UsageError: a mixture, two of one kind.
    """
    plain: list[str] = []
    divided: dict[str, Location] = {}
    for word in words:
        match = re.fullmatch(r"([^=/]*)=(.+)", word, re.DOTALL)
        if match is None or is_url(word) or Path(word).exists():
            plain.append(word)
        elif match[1] in divided:
            raise UsageError(f"{what}: split {match[1]!r} occurs twice, with {divided[match[1]]} and {match[2]}")
        else:
            divided[match[1]] = located(match[2])
    if len(plain) > 1 or (plain and divided):
        named = [f"{split}={path}" for split, path in divided.items()]
        raise UsageError(f"{what}: {', '.join(plain + named)}: wanted one path, or all of them as SPLIT=PATH")
    return divided or (located(plain[0]) if plain else None)


def parse_split(text: str | None, flag: str = "--split") -> dict[str, float] | None:
    """{"train": 0.8, "val": 0.2} of "train=0.8,val=0.2". Raises UsageError."""
    if text is None:
        return None
    out: dict[str, float] = {}
    for part in text.split(","):
        name, _, fraction = part.strip().partition("=")
        try:
            value = float(fraction)
        except ValueError:
            raise UsageError(f"{flag} {text!r}: {part!r} is not NAME=FRACTION, as in train=0.8,val=0.2") from None
        if name in out:
            raise UsageError(f"{flag} {text!r}: {name!r} occurs twice")
        out[name] = value
    return out


def parse_splits(text: str) -> dict[str, float] | str | None:
    """ "given", or as parse_split. Raises UsageError."""
    return text if text == "given" else parse_split(text)


def parse_weights(text: str | None, flag: str) -> dict[str, float] | str | None:
    """{"cat": 2.0, "dog": 1.0} of "cat=2,dog=1"; a word without an equals sign as it is. Raises UsageError."""
    if text is None or "=" not in text:
        return text
    out: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or math.isnan(weight):
            raise UsageError(f"{flag} {text!r}: {part!r} is not NAME=NUMBER, as in cat=2,dog=1")
        if name in out:
            raise UsageError(f"{flag} {text!r}: {name!r} occurs twice")
        out[name] = weight
    return out


def parse_devices(text: str | None) -> int | str | tuple[int, ...] | None:
    """2 of "2", "all", (0, 1) of "0,1", (0,) of "0,". Raises UsageError."""
    if text is None or text == "all":
        return text
    if not re.fullmatch("[0-9]{1,9}(,[0-9]{1,9})*,?", text):
        raise UsageError(f"--devices {text!r:.60}: wanted how many, all, or numbers such as 0,1")
    numbers = [int(number) for number in text.split(",") if number]
    return tuple(numbers) if "," in text else numbers[0]


def parse_dataset(text: str) -> tuple[Location, str | None]:
    """(Path("cats"), "train") of "cats:train", (Path("cats"), None) of "cats".

    A path that exists is meant as it stands; else what follows the last ":" is a split if splits can be called so,
    which it is not in s3://bucket/cats.
    """
    folder, _, split = text.rpartition(":")
    if folder and split.isidentifier() and not os.path.exists(text):  # noqa: PTH110 (False where no path can be)
        return located(folder), split
    return located(text), None


def parse_names(text: str | None) -> list[str] | None:
    """["a", "b"] of "a, b"."""
    return None if text is None else [name.strip() for name in text.split(",")]


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """160 of "160", (120, 160) of "120x160" (height x width). Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+)(?:x([0-9]+))?", text)
    if match is None:
        raise UsageError(f"--size {text!r}: wanted N or HEIGHTxWIDTH in pixels")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def parse_range(text: str) -> tuple[float, float]:
    """(0.0, 1.0) of "0,1". Raises UsageError."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--value-range {text!r}: wanted the values of black and white, as in 0,1 or 0,4095") from None
    return low, high


def parse_bytes(text: str) -> int:
    """128000000 of "128MB". Raises UsageError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([KMG]I?B)?", text.strip().upper())
    size = math.inf if match is None else float(match[1]) * _SIZES[match[2] or ""]
    if not math.isfinite(size):
        raise UsageError(f"--shard-size {text!r:.60}: wanted a size such as 128MB or 1GiB")
    return int(size)


def parse_pairs(text: str) -> list[tuple[int, int]]:
    """[(1, 2), (3, 4)] of "1-2,3-4". Raises UsageError."""
    found = [re.fullmatch(r"\s*([0-9]+)-([0-9]+)\s*", pair) for pair in text.split(",")]
    if not all(found):
        raise UsageError(f"--flip-pairs {text!r}: wanted pairs of numbers, as in 1-2,3-4")
    return [(int(pair[1]), int(pair[2])) for pair in found if pair]


def parse_rejects(text: str) -> float | int:
    """0.1 of "10%" or "0.1" (a share), 25 of "25" (a count). Raises UsageError."""
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise UsageError(f"--max-rejects {text!r}: wanted a share such as 10% or a count such as 25") from None
