"""What verbs print: counts, sizes and reasons for people, JSON for programs, log lines beside a progress bar.

Texts of the data reach a terminal through `safe_output` alone, which shows control characters instead of sending them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO, cast

import typer

from headrace.errors import HeadraceError
from headrace.place.address import Location, Url

if TYPE_CHECKING:
    from headrace.format.equal import EqualImages, Image
    from headrace.record import Reject


# C0 without tab and line feed, DEL, C1, and what turns the direction of writing; U+2028 and U+2029 end lines.
_CONTROL = "\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[{_CONTROL}]")
_BUT_RETURNS = re.compile(f"(?!\r)[{_CONTROL}]")


def visible(text: str, controls: re.Pattern[str] = _CONTROLS) -> str:
    """The text with each control character as `\\x1b`, `\\u202e`."""
    return controls.sub(lambda found: ascii(found[0])[1:-1].replace("\\r", "\\x0d"), text)


class _Visible:
    """A stream to which no control character is written. It has no `buffer`, to which they could be."""

    def __init__(self, stream: TextIO, controls: re.Pattern[str]) -> None:
        self._stream, self._controls = stream, controls

    def write(self, text: str) -> int:
        self._stream.write(visible(text, self._controls))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """While it lasts, no control character reaches standard output or standard error: they show it as `\\x1b`.

    Standard error takes carriage returns, by which progress bars are drawn.
    """
    out, err = cast(TextIO, _Visible(sys.stdout, _CONTROLS)), cast(TextIO, _Visible(sys.stderr, _BUT_RETURNS))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class _Lines(logging.Handler):
    """What is logged, a line each on standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(visible(self.format(record)), file=sys.stderr)


@contextlib.contextmanager
def log_shown(verbose: bool) -> Iterator[None]:
    """While it lasts, what the library logs is shown on standard error, where `verbose`."""
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


def count_reasons(rejects: Iterable[Reject], *, shown: bool = False) -> dict[str, int]:
    """How many Rejects have each reason, most frequent first; numbers and quoted names in a reason don't part them.
    `shown`: to people, who get the whole reason where it is that of one alone."""
    counts, first = Counter[str](), dict[str, str]()
    for reject in rejects:
        plain = re.sub(r"'[^']*'|\(.*\)|[0-9]+", "…", reject.reason)
        counts[plain] += 1
        first.setdefault(plain, reject.reason)
    return {first[plain] if shown and n == 1 else plain: n for plain, n in counts.most_common()}


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value))  # in ASCII, whatever the terminal's encoding


def boxes_text(stored: int, clipped: int, dropped: Mapping[str, int]) -> str:
    """What became of boxes."""
    parts = [f"{stored}"] + ([f"{clipped} clipped to their image"] if clipped else [])
    return ", ".join(parts + losses(dropped))


def losses(dropped: Mapping[str, int]) -> list[str]:
    """What was dropped, by reason."""
    return [f"{n} dropped ({reason})" for reason, n in dropped.items()]


def equal_lines(found: EqualImages) -> Iterator[str]:
    """What is said of equal images, a line each."""
    if found.sets:
        yield f"equal images: {found.images}, in {found.sets} {'set' if found.sets == 1 else 'sets'} of the same bytes"
    for what, some in (("with several classes", found.labels), ("in several splits", found.splits)):
        if some.sets:
            first = "; ".join(", ".join(map(image_text, images)) for images in some.first)
            yield f"  {some.sets} of these sets {what}: {first}{'; …' if some.sets > len(some.first) else ''}"
    if found.near is None:
        yield "near-duplicates: not looked for among so many images; headrace duplicates finds them"
    elif found.near.sets:
        first = "; ".join(", ".join(map(image_text, images)) for images in found.near.first)
        n, more = found.near.sets, "; …" if found.near.sets > len(found.near.first) else ""
        yield f"near-duplicates in several splits: {n} {'set' if n == 1 else 'sets'}, as it seems: {first}{more}"
        yield "  headrace duplicates tells, by their pixels; pack --guard move keeps them in one split"


def image_text(image: Image) -> str:
    """An image with its label and split."""
    return f"{image.id} ({image.split if image.label is None else f'{image.label}, {image.split}'})"


def amount(n: float) -> str:
    """Bytes: "1.25 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}" if unit != "B" else f"{n:.0f} B"
        n /= 1000
    return f"{n:.3g} TB"


def left_beside(path: Location) -> dict[str, int] | None:
    """How many objects, and bytes, packings have left beside a dataset in a store; None where there are none, of a
    folder, and where one may not see."""
    if not isinstance(path, Url):
        return None
    from headrace.place.publication import orphans
    from headrace.place.remote import RemotePlace

    try:
        found = orphans(RemotePlace(path))
    except HeadraceError:  # a web server, or one may read and not list
        return None
    return {"objects": len(found), "bytes": sum(one.size for one in found)} if found else None


def left_line(left: Mapping[str, int]) -> str:
    """The same for people."""
    return (
        f"{left['objects']} objects, {amount(left['bytes'])}, of packings that were replaced or did not end; the next "
        "one there clears those older than a day"
    )
