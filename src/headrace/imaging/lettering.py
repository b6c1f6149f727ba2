"""Letters on pictures: a font that is there on any machine, and text that fits. Where it goes is left to others."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

_LONGEST = 1000  # characters that are ever measured: a name may be a whole file


@functools.cache
def font(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans of `size` pixels: the system's, else matplotlib's where it is installed, else Pillow's own font."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    places = [Path(name)]  # Pillow looks for a bare name in the system's folders
    matplotlib = importlib.util.find_spec("matplotlib")  # looked for, not imported
    if matplotlib is not None and matplotlib.origin is not None:
        places.append(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / name)
    for place in places:
        try:
            return ImageFont.truetype(str(place), size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def printable(text: str) -> str:
    """The text without what has no place in a line: each control character and half of a surrogate pair is "�"."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def shortened(text: str, width: float, letters: Font) -> str:
    """The text on one line of at most `width` pixels, with "…" for its middle where it is wider: names often differ in
    their ends only."""
    line = printable(text if len(text) <= _LONGEST else text[: _LONGEST // 2] + text[-_LONGEST // 2 :])
    if len(text) <= _LONGEST and letters.getlength(line) <= width:
        return line
    low, high = 0, len(line)  # how many letters fit: at least, and fewer than
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if letters.getlength(_without_middle(line, middle)) <= width else (low, middle)
    return _without_middle(line, low)


def _without_middle(line: str, left: int) -> str:
    """The first and last letters of the line, `left` of them in all."""
    return f"{line[: left - left // 2].rstrip()}…{line[len(line) - left // 2 :].lstrip()}"


def wrapped(text: str, width: float, letters: Font) -> list[str]:
    """The text in lines at most `width` pixels wide, broken at spaces; a word that is wider is shortened."""
    lines: list[str] = []
    for word in text[:_LONGEST].split():
        longer = f"{lines[-1]} {printable(word)}" if lines else ""
        if longer and letters.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, width, letters))
    return lines
