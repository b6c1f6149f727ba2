"""Which images are near-duplicates: found by their looks, confirmed by their pixels, joined into groups.

Arithmetic on numbers 0 to n - 1. Where looks and pixels come from, and what is done with the groups, is left to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.imaging.look import BYTES, NEAR, SIDE

CORRELATION = 0.95  # of two thumbs' pixels, above which they show the same: on real data it parts true from wrong
NEIGHBOURS = 256  # with how many others a look is compared of those that share a band with it

_BANDS = 8  # of 16 bits: looks that differ in 7 bits at most have one in common (pigeonhole)
_FLAT = 2.0  # levels: an image of a smaller deviation shows nothing; two of them are alike whose means differ by less
_CHUNK = 1 << 18  # pairs that are compared at once
_HELD = 1 << 22  # pairs that wait to be confirmed
_DRAWN = 2048  # thumbs that are held at once

# Draws the images of these numbers [m]: uint8 [m, SIDE, SIDE], and which of them could be drawn, bool [m].
Draw: TypeAlias = Callable[[NDArray[np.int64]], tuple[NDArray[np.uint8], NDArray[np.bool_]]]


def as_looks(values: Sequence[bytes | None]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Looks uint64 [n, 2] of 16 bytes each, and which of them are said, bool [n]; zeros where they are not."""
    known = np.array([value is not None for value in values], np.bool_)
    data = b"".join(bytes(BYTES) if value is None else value for value in values)
    return np.frombuffer(data, np.uint64).reshape(-1, 2), known


def distance(one: NDArray[np.uint64], two: NDArray[np.uint64]) -> NDArray[np.int64]:
    """In how many bits looks uint64 [..., 2] differ, int64 [...]."""
    return np.asarray(_bits(one ^ two).sum(axis=-1, dtype=np.int64))


def near(looks: NDArray[np.uint64], most: int = NEAR) -> Iterator[NDArray[np.int64]]:
    """Pairs int64 [k, 2] of the looks uint64 [n, 2] that differ in `most` bits at most, some at a time. A pair that is
    alike in several bands comes again.

    Looks are sorted by each of sixteen bands of 16 bits, and each is compared with the next 256 of the same band. So
    all pairs come that share a band, as those do for certain that differ in 7 bits, and of random ones that differ in
    12 all but one in a hundred; and of a band that more looks share, as those of blank images, the pairs that come
    together in it: never more than 4096 comparisons a look. Memory: 80 bytes a look, and some MB.
    """
    for band in range(2 * _BANDS):
        # Inside of a band by others, so that the nearer ones of a crowded band come together.
        of = _band(looks, band)
        order = np.lexsort((_band(looks, band ^ 2), _band(looks, band ^ 1), of))
        of, by_band = of[order], looks[order]
        first = np.arange(len(order))
        for step in range(1, NEIGHBOURS + 1):
            first = first[: np.searchsorted(first, len(order) - step)]
            first = first[of[first] == of[first + step]]
            if not len(first):
                break
            for begin in range(0, len(first), _CHUNK):
                some = first[begin : begin + _CHUNK]
                found = some[distance(by_band[some], by_band[some + step]) <= most]
                if len(found):
                    yield np.stack([order[found], order[found + step]], axis=1)


def _band(looks: NDArray[np.uint64], band: int) -> NDArray[np.uint16]:
    """16 bits of each look, [n]: bands 0 to 7 are its words, one after the other, and 8 to 15 have two bits of each."""
    words = np.ascontiguousarray(looks).view(np.uint16)
    if band < _BANDS:
        return words[:, band]
    out = np.zeros(len(words), np.uint16)
    for word in range(_BANDS):
        out |= (words[:, word] >> np.uint16(2 * (band - _BANDS)) & np.uint16(3)) << np.uint16(2 * word)
    return out


class Groups:
    """Numbers 0 to n - 1 in groups, at first each alone; 8 bytes a number. (Union-find, Galler and Fischer 1964.)"""

    def __init__(self, n: int) -> None:
        self._above = np.arange(n)

    def of(self, numbers: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """What stands for the group of each of these, by default of all: its least number, int64 [m]."""
        above = self._above
        found = above if numbers is None else above[numbers]
        while (found != (higher := above[found])).any():
            found = higher
        if numbers is None:
            self._above = found
        return found.copy()

    def join(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Makes one group of those that hold the two of each pair."""
        for one, two in pairs:
            one, two = self._top(one), self._top(two)
            self._above[max(one, two)] = min(one, two)

    def _top(self, number: int) -> int:
        above = self._above
        while (higher := int(above[number])) != number:
            above[number] = above[higher]  # half the way, for the next time
            number = higher
        return number


def join_alike(
    groups: Groups, looks: NDArray[np.uint64], draw: Draw, *, mirrored: NDArray[np.uint64] | None = None
) -> None:
    """Joins those of the looks [n, 2] that are near and whose pixels are alike. `mirrored` [n, 2]: the looks of the
    mirrored images, where these count as duplicates, too.

    Memory: that of `near`, 64 MB of pairs, and 2048 thumbs. A pair of one group already is not looked at.
    """
    n = len(looks)
    every = looks if mirrored is None else np.concatenate([looks, mirrored])
    held: list[NDArray[np.int64]] = []
    for found in near(every):
        found = np.sort(found, axis=1)
        held.append(_apart(groups, found[(found[:, 0] < n) & (found[:, 0] != found[:, 1] - n)], n))
        if sum(map(len, held)) >= _HELD:
            _confirm(groups, np.concatenate(held), draw, n)
            held = []
    if held:
        _confirm(groups, np.concatenate(held), draw, n)


def _confirm(groups: Groups, pairs: NDArray[np.int64], draw: Draw, n: int) -> None:
    """Joins those of the pairs [k, 2] whose pixels are alike; a number from n on is a mirrored image."""
    pairs = np.unique(_apart(groups, pairs, n), axis=0)
    while len(pairs := _apart(groups, pairs, n)):
        # As many as have few enough images, in their order.
        images = pairs % n
        new = np.zeros(2 * len(pairs), np.bool_)
        new[np.unique(images.ravel(), return_index=True)[1]] = True
        some = max(1, int(np.searchsorted(np.cumsum(new)[1::2], _DRAWN, side="right")))
        now, pairs = pairs[:some], pairs[some:]
        numbers = np.unique(now % n)
        thumbs, good = draw(numbers)
        while len(now):
            # First one pair of each image: of many that are all alike hardly any other has to be looked at.
            firsts = np.zeros(len(now), np.bool_)
            firsts[np.unique(now[:, 0], return_index=True)[1]] = True
            one, two = (np.searchsorted(numbers, now[firsts, i] % n) for i in (0, 1))
            same = alike(thumbs, one, two, now[firsts, 1] >= n) & good[one] & good[two]
            groups.join((now[firsts] % n)[same].tolist())
            now = _apart(groups, now[~firsts], n)


def _apart(groups: Groups, pairs: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Those of the pairs that are in two groups yet."""
    apart: NDArray[np.int64] = pairs[groups.of(pairs[:, 0]) != groups.of(pairs[:, 1] % n)]
    return apart


def alike(
    thumbs: NDArray[np.uint8], one: NDArray[np.int64], two: NDArray[np.int64], flipped: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether thumbs `one` [k] and `two` [k] of uint8 [m, SIDE, SIDE] show the same, the second mirrored where
    `flipped` [k]: bool [k].

    Their pixels' correlation is over 0.95; images that show nothing are the same where they are as light.
    """
    out = np.empty(len(one), np.bool_)
    for begin in range(0, len(one), _DRAWN):
        some = slice(begin, begin + _DRAWN)
        second = thumbs[two[some]]
        second[flipped[some]] = second[flipped[some]][:, :, ::-1]
        a, b = (values.reshape(len(values), -1).astype(np.float32) for values in (thumbs[one[some]], second))
        means = a.mean(axis=1), b.mean(axis=1)
        a -= means[0][:, np.newaxis]
        b -= means[1][:, np.newaxis]
        spread_a, spread_b, common = (np.einsum("kp,kp->k", x, y) / (SIDE * SIDE) for x, y in ((a, a), (b, b), (a, b)))
        flat_a, flat_b = spread_a < _FLAT**2, spread_b < _FLAT**2
        like = common > CORRELATION * np.sqrt(spread_a * spread_b)
        out[some] = np.where(flat_a | flat_b, flat_a & flat_b & (np.abs(means[0] - means[1]) < _FLAT), like)
    return out


def _bits(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits of each word are 1."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    return _counted(words)


def _counted(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The same without NumPy 2 (Warren, Hacker's Delight, 2002, 5-1)."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + ((words >> np.uint64(2)) & np.uint64(0x3333333333333333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((words * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)
