"""What a mirror does to named keypoints: left and right change places. Where the points go is geometry's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Pairs = tuple[tuple[int, int], ...]

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def pairs(names: Sequence[str]) -> Pairs:
    """(i, j), i < j, of the names that are each other's mirror image: left_eye and right_eye, LEye and REye, eye_l and
    eye_r, leftEye and rightEye, "Left Eye" and "Right Eye", lankle and rankle."""
    number: dict[object, int] = {}
    for i, name in enumerate(names):
        for key in (_words(name), name.casefold()):
            number.setdefault(key, i)
    other: dict[int, int] = {}
    for i, name in enumerate(names):
        j = next((number[key] for key in _mirrored(name) if key in number), i)
        if j != i and i not in other and j not in other:
            other[i], other[j] = j, i
    return tuple((i, j) for i, j in sorted(other.items()) if i < j)


def order(k: int, pairs: Pairs) -> NDArray[np.int64]:
    """int64 [k]: which of `k` points comes where once the picture is mirrored; `points[:, order]` swaps the pairs."""
    swapped = np.arange(k)
    for i, j in pairs:
        swapped[i], swapped[j] = j, i
    return swapped


def unpaired(k: int, names: Sequence[str], pairs: Pairs) -> tuple[str, ...]:
    """The points of which nobody can say what a mirror makes of them: they are in no pair, and without a name, or with
    one that says a side. A point that stays itself may be said to be its own partner, (i, i). One point alone does."""
    paired = {i for pair in pairs for i in pair}
    if not names:
        return tuple(str(i) for i in range(k) if i not in paired) if k > 1 else ()
    return tuple(name for i, name in enumerate(names) if i not in paired and _sides(_words(name)))


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(name))


def _sides(words: Sequence[str]) -> list[int]:
    """Which of the words say a side; a letter alone does so only at either end, beside other words."""
    ends = (0, len(words) - 1) if len(words) > 1 else ()
    return [i for i, word in enumerate(words) if word in _OTHER and (len(word) > 1 or i in ends)]


def _mirrored(name: str) -> Iterator[object]:
    """What the name of the other side may be, by its words or letter by letter."""
    words = _words(name)
    if sides := _sides(words):
        yield tuple(_OTHER[word] if i in sides else word for i, word in enumerate(words))
    folded = name.casefold()
    if "left" in folded or "right" in folded:
        yield re.sub("left|right", lambda found: _OTHER[found[0]], folded)
    if folded[:1] in ("l", "r") and len(folded) > 2:
        yield _OTHER[folded[0]] + folded[1:]
