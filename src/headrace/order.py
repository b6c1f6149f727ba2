"""Order and chance as arithmetic: permutation and random numbers from (seed, epoch, key) alone.

Nothing here has a state: the same arguments give the same numbers on every machine, for any
number of workers, in every later version (tests/golden freezes them).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

# Positions that are worked on at once: what is made of them by the way stays in the processor's cache.
CHUNK = 1 << 16

_ROUNDS = 8


def _mix(x: Keys) -> Keys:
    """uint64 -> uint64 bijection with full avalanche: the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _key(*parts: int) -> int:
    """One 64-bit key out of several integers, of any size and sign, order mattering."""
    text = ",".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _keys(seed: int, epoch: int, *stream: int) -> Keys:
    """uint64 [rounds]: what one permutation is drawn by; `stream` tells apart those of one seed and epoch."""
    return np.array([_key(seed, epoch, r, *stream) for r in range(_ROUNDS)], np.uint64)


def _walked(x: NDArray[np.int64], n: int, keys: Keys) -> NDArray[np.int64]:
    """Where the positions `x` [m] of 0..n-1 come to, int64 [m]; `keys` are [rounds], or [rounds, m] for each its own.

    A balanced Feistel network over the next power of four, walked along its cycles until it falls below n (Black and
    Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    # At least 64 values: below that eight rounds leave some permutations visibly rarer than others.
    half = max(3, ((n - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    out = np.empty(x.shape, np.int64)
    some, todo = x.astype(np.uint64), np.arange(x.size)
    while todo.size:
        left, right = some >> shift, some & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        some = (left << shift) | right
        inside = some < n
        out[todo[inside]] = some[inside].astype(np.int64)
        some, todo = some[~inside], todo[~inside]
        if keys.ndim > 1:
            keys = keys[:, ~inside]
    return out


def _checked(positions: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """The positions, int64. Raises IndexError."""
    x = np.asarray(positions)
    least, most = (int(x.min()), int(x.max())) if x.size else (0, -1)
    if least < 0 or most >= n:
        raise IndexError(f"position {least if least < 0 else most} is outside of an order of {n}")
    return x.astype(np.int64, copy=False)


def permute(positions: NDArray[np.integer], *, n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Record numbers int64 [m] that stand at `positions` [m] in the shuffled order of 0..n-1 of this seed and epoch.

    A bijection of 0..n-1 in constant memory. Raises IndexError.
    """
    x, keys = _checked(positions, n), _keys(seed, epoch)
    out = np.empty(x.shape, np.int64)
    for start in range(0, x.size, CHUNK):
        out[start : start + CHUNK] = _walked(x[start : start + CHUNK], n, keys)
    return out


class Windows(NamedTuple):
    """An order that is shuffled by the window: `group` blocks of `block` neighbouring records each."""

    block: int
    group: int


def permute_windows(
    positions: NDArray[np.integer], *, n: int, seed: int, epoch: int, windows: Windows
) -> NDArray[np.int64]:
    """Record numbers int64 [m] that stand at `positions` [m] where blocks of neighbours are shuffled, and the records
    of each `group` of blocks in a row among each other.

    So a stretch of window's length asks for `group` blocks, and no other records. A bijection of 0..n-1 in constant
    memory. Each epoch's blocks begin at another record, so that the block that is shorter, which is always the last,
    is another one each time. (Two levels of shuffling as in CorgiPile, Xu et al., arXiv 2206.05830.) Raises IndexError.
    """
    block, group = windows
    size = max(1, min(n, block * group))  # records of a window, all but the last
    whole, last = n // block, n - n % size
    by_block, by_window = _keys(seed, epoch, 1), _keys(seed, epoch, 2)[:, None]
    turn = np.uint64(_key(seed, epoch, _ROUNDS) % max(1, n))
    x = _checked(positions, n)
    out = np.empty(x.shape, np.int64)
    for start in range(0, x.size, CHUNK):
        some = x[start : start + CHUNK]
        window, inside = some // size, some % size
        there, which = np.unique(window, return_inverse=True)
        keys = _mix(_mix(there.astype(np.uint64) ^ by_window) + by_window)[:, which]
        for part, records in ((some < last, size), (some >= last, n - last)):
            if part.any():
                inside[part] = _walked(inside[part], records, keys[:, part])
        place = window * size + inside
        moved = place < whole * block
        slots, which = np.unique(place[moved] // block, return_inverse=True)
        place[moved] = _walked(slots, whole, by_block)[which] * block + place[moved] % block
        out[start : start + CHUNK] = ((place.astype(np.uint64) + turn) % np.uint64(n)).astype(np.int64)
    return out


_BLOCK = 1 << 14


def shuffled(
    start: int, stop: int, *, n: int, seed: int, epoch: int, windows: Windows | None = None
) -> NDArray[np.int64]:
    """`permute` of the positions `start` to `stop`, or `permute_windows`, int64 [stop - start].

    Computed by the block, of which the last ones are kept: a batch of 32 alone costs as many calls as a block.
    """
    blocks = [_block(number, n, seed, epoch, windows) for number in range(start // _BLOCK, -(-stop // _BLOCK))]
    whole = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.int64), *blocks])
    first = start // _BLOCK * _BLOCK
    return whole[start - first : stop - first]


@lru_cache(64)
def _block(number: int, n: int, seed: int, epoch: int, windows: Windows | None) -> NDArray[np.int64]:
    positions = np.arange(number * _BLOCK, min(n, (number + 1) * _BLOCK))
    if windows is None:
        block = permute(positions, n=n, seed=seed, epoch=epoch)
    else:
        block = permute_windows(positions, n=n, seed=seed, epoch=epoch, windows=windows)
    block.flags.writeable = False
    return block


def passes(
    start: int, stop: int, *, n: int, seed: int, windows: Windows | None = None, shuffle: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Record numbers int64 [stop - start] of 0..n-1 at these places of an endless row of permutations, that of epoch 0,
    of 1, and so on, before which those of -1, -2, … are; and which of them each is of, beside that of `start`."""
    places = np.arange(start - start // n * n, stop - start // n * n)
    of, within = places // n, places % n
    if not shuffle:
        return within, of
    together = max(1, _BLOCK // n) if windows is None else 1  # permutations that are computed at once
    size = n * together
    parts = [np.zeros(0, np.int64)]
    for number in range(start // size, -(-stop // size)):
        low, high = max(start - number * size, 0), min(stop - number * size, size)
        if together == 1:
            parts.append(shuffled(low, high, n=n, seed=seed, epoch=number, windows=windows))
        else:
            parts.append(_permutations(number * together, together, n, seed)[low:high])
    return np.concatenate(parts), of


@lru_cache(64)
def _permutations(epoch: int, epochs: int, n: int, seed: int) -> NDArray[np.int64]:
    """`permute` of all positions in so many epochs, one after the other, int64 [epochs * n]."""
    keys = np.stack([_keys(seed, epoch + k) for k in range(epochs)], axis=1)
    found = _walked(np.tile(np.arange(n), epochs), n, np.repeat(keys, n, axis=1))
    found.flags.writeable = False
    return found


class Line(NamedTuple):
    """Records in a row, each as long as it weighs: `numbers` int64 [k], and where each ends, `ends` float64 [k], of a
    line from 0 to 1."""

    numbers: NDArray[np.int64]
    ends: NDArray[np.float64]


def line(weights: NDArray[np.float64], strata: NDArray[np.integer] | None, *, seed: int) -> Line:
    """The line of records of these weights [n], which are 0 or more, and some of them more.

    Those of a stratum [n] lie together, in it those of one weight, and these shuffled by the seed; without strata they
    lie in their order. What weighs nothing is left out.
    """
    numbers = np.flatnonzero(weights > 0)
    if strata is not None:
        numbers = numbers[permute(np.arange(len(numbers)), n=len(numbers), seed=seed, epoch=0)]
        numbers = numbers[np.lexsort((weights[numbers], strata[numbers]))]
    # Divided before they are summed up: the sum of large ones may be infinite.
    lengths = weights[numbers] / weights.max(initial=1e-300)
    ends = np.cumsum(lengths)
    ends /= ends[-1:]
    return Line(numbers, ends)


# The golden ratio's share of a turn, in 2^-64: points that go round by it lie as evenly as points that don't know their
# number can (Knuth, "The Art of Computer Programming", volume 3, 6.4, on Fibonacci hashing).
_TURN = 0x9E3779B97F4A7C15


def systematic(
    samples: NDArray[np.int64], *, m: int, line: Line, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Record numbers int64 [k] of these samples [k] out of `m` of an epoch; and how many samples of that epoch each has
    had of its record before, but for a number that is the record's.

    Systematic sampling (Madow and Madow, 1944): sample i is what lies at (i + u) / m of the line, where u goes round by
    the golden ratio with each epoch. So a record, and what lies together on the line, has as many samples as its share
    of m, rounded up or down; and over all epochs nearly as exactly.
    """
    u = ((_key(seed, _ROUNDS + 1) + epoch * _TURN) % (1 << 64) >> 11) * 2.0**-53
    at = np.minimum(np.searchsorted(line.ends, (samples + u) / m, side="right"), len(line.ends) - 1)
    begins = np.where(at > 0, line.ends[at - 1], 0.0)
    return line.numbers[at], samples - np.ceil(begins * m - u).astype(np.int64)


def dealt(start: int, stop: int, counts: Sequence[int]) -> tuple[NDArray[np.int64], list[range]]:
    """To which of several parts the positions `start` to `stop` of an epoch go, int64 [stop - start], and which numbers
    of each part these are; a part has `counts` of all positions.

    Of any positions in a row a part has its share, but for a few. (The parts are halved again and again, and each half
    gets its share of what both have by Bresenham's line.)
    """
    part = np.zeros(stop - start, np.int64)
    spans: list[range] = []

    def deal(where: NDArray[np.int64], start: int, stop: int, first: int, counts: Sequence[int]) -> None:
        if len(counts) == 1:
            part[where] = first
            spans.append(range(start, stop))
            return
        half = len(counts) // 2
        left, n = sum(counts[:half]), max(1, sum(counts))
        places = np.arange(start, stop + 1).astype(np.int64 if n < 1 << 31 else object)  # whose product is below 2^63
        before = (places * left + n // 2) // n  # of the positions before, those of the left half
        is_left = (np.diff(before) > 0).astype(bool)
        low, high = int(before[0]), int(before[-1])
        deal(where[is_left], low, high, first, counts[:half])
        deal(where[~is_left], start - low, stop - high, first + half, counts[half:])

    deal(np.arange(stop - start), start, stop, 0, counts)
    return part, spans


def quotas(total: int, shares: Sequence[Fraction]) -> list[int]:
    """How many of the first `total` samples of all epochs each part has that these are the shares of; they sum to it.

    For any number that is larger they are as many or more.
    """
    if len(shares) == 1:
        return [total]
    half = len(shares) // 2
    left = math.floor(total * sum(shares[:half]) / sum(shares))
    return [*quotas(left, shares[:half]), *quotas(total - left, shares[half:])]


def derived(seed: int, part: int) -> int:
    """The seed of a part that is shuffled for itself."""
    return _key(seed, part, _ROUNDS + 2)


def repeats(keys: Keys, times: NDArray[np.int64]) -> Keys:
    """What random numbers are drawn by when a record comes again, uint64 [n]: its key at time 0, else another one."""
    return np.where(times == 0, keys, _mix(keys + _mix(times.astype(np.uint64) + np.uint64(1))))


def keys_of(ids: Iterable[str]) -> Keys:
    """uint64 [n] fingerprints of record ids: what random numbers of a record are drawn by."""
    digests = bytearray()
    for id_ in ids:  # one by one: a list of a million digests takes more memory than they do
        digests += hashlib.blake2b(id_.encode(errors="surrogatepass"), digest_size=8).digest()
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def repeated(keys: Keys) -> NDArray[np.bool_]:
    """bool [n]: which of `keys` [n] are those of an earlier one too."""
    by_key = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), bool)
    again[by_key[1:]] = np.diff(keys[by_key]) == 0
    return again


def uniform(keys: Keys, *, seed: int, epoch: int, stream: int) -> NDArray[np.float64]:
    """float64 [n] in [0, 1), independent per key, seed, epoch and `stream` (the number of the draw)."""
    salt = np.uint64(_key(seed, epoch, stream))
    bits = _mix(_mix(keys ^ salt) + salt)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(*parts: int, seed: int, epoch: int) -> np.random.Generator:
    """A generator of its own for each seed, epoch and `parts`, as are a record's key and the number of an augmentation.

    Philox, a cipher in counter mode (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): it begins
    anywhere at once. Its bits are the same in every version of NumPy; what `Generator` makes of them nearly always is.
    """
    return np.random.Generator(bits(*parts, seed=seed, epoch=epoch))


def bits(*parts: int, seed: int, epoch: int) -> np.random.Philox:
    """The bits of `generator`."""
    text = ",".join(map(str, (seed, epoch, *parts))).encode()
    return np.random.Philox(key=int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little"))


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 to n - 1, int64 ascending, evenly apart, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64)) if n else np.zeros(0, np.int64)
