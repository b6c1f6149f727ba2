"""What the verbs share: words of the command line as values, values as words, and options that several have."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.record import Reject

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Workers = Annotated[int | None, typer.Option(help="Threads; one per core by default.", show_default=False)]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Name each refused record and each file made, on standard error.")
]
DatasetPath = Annotated[Path, typer.Argument(metavar="DS", help="A dataset, packed or adopted.", readable=False)]

_SIZES = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class _Lines(logging.Handler):
    """What is logged, a line each on standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def told(verbose: bool) -> Iterator[None]:
    """While it lasts, what the library logs is told too, where `verbose`."""
    logger, lines = logging.getLogger("headrace"), _Lines()
    before = logger.level
    if verbose:
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


def parse_paths(words: Iterable[str], what: str) -> Path | dict[str, Path] | None:
    """A path for all, {"train": a, "val": b} of "train=a", "val=b", or None of nothing. `what` they are for errors.

    What is there under all of its name, equals sign and all, is a path. Raises UsageError: a mixture, two of one kind.
    """
    plain: list[str] = []
    divided: dict[str, Path] = {}
    for word in words:
        match = re.fullmatch(r"([^=/]*)=(.+)", word, re.DOTALL)
        if match is None or Path(word).exists():
            plain.append(word)
        elif match[1] in divided:
            raise UsageError(f"{what}: split {match[1]!r} occurs twice, with {divided[match[1]]} and {match[2]}")
        else:
            divided[match[1]] = Path(match[2])
    if len(plain) > 1 or (plain and divided):
        named = [f"{split}={path}" for split, path in divided.items()]
        raise UsageError(f"{what}: {', '.join(plain + named)}: wanted one path, or all of them as SPLIT=PATH")
    return divided or (Path(plain[0]) if plain else None)


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


def parse_dataset(text: str) -> tuple[Path, str | None]:
    """(Path("cats"), "train") of "cats:train", (Path("cats"), None) of "cats".

    A path that exists is meant as it stands; else what follows the last ":" is a split if splits can be called so,
    which it is not in s3://bucket/cats.
    """
    folder, _, split = text.rpartition(":")
    if folder and split.isidentifier() and not os.path.exists(text):  # noqa: PTH110 (False where no path can be)
        return Path(folder), split
    return Path(text), None


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


def parse_range(text: str | None) -> tuple[float, float] | None:
    """(0.0, 1.0) of "0,1". Raises UsageError."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--value-range {text!r}: wanted the values of black and white, as in 0,1 or 0,4095") from None
    return low, high


def parse_bytes(text: str | None) -> int | None:
    """128000000 of "128MB". Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9.]+)\s*([KMG]I?B)?", text.strip().upper())
    try:
        assert match is not None
        return int(float(match[1]) * _SIZES[match[2] or ""])
    except (AssertionError, ValueError):
        raise UsageError(f"--shard-size {text!r}: wanted a size such as 128MB or 1GiB") from None


def parse_pairs(text: str | None) -> list[tuple[int, int]] | None:
    """[(1, 2), (3, 4)] of "1-2,3-4". Raises UsageError."""
    if text is None:
        return None
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


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many Rejects have each reason, most frequent first; numbers and quoted names in a reason don't part them."""
    from collections import Counter

    plain = (re.sub(r"'[^']*'|\(.*\)|[0-9]+", "…", reject.reason) for reject in rejects)
    return dict(Counter(plain).most_common())


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value))  # in ASCII, whatever the terminal's encoding


def boxes_text(stored: int, clipped: int, dropped: Mapping[str, int]) -> str:
    """What became of boxes, for people."""
    parts = [f"{stored}"] + ([f"{clipped} cut to their image"] if clipped else [])
    return ", ".join(parts + losses(dropped))


def losses(dropped: Mapping[str, int]) -> list[str]:
    """What was dropped, by reason, for people."""
    return [f"{n} dropped ({reason})" for reason, n in dropped.items()]


def amount(n: float) -> str:
    """Bytes for people: "1.25 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}" if unit != "B" else f"{n:.0f} B"
        n /= 1000
    return f"{n:.3g} TB"
