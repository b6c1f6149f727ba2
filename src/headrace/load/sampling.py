"""Sampling: which records of a view its epochs consist of, and in which order. Arithmetic of order's, put together.

How much a record weighs is left to weights, batches and ranks to the loader.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import UsageError
from headrace.load.view import View
from headrace.load.windows import windows_of
from headrace.order import Line, Windows


class Drawn(NamedTuple):
    """Positions int64 [b] in a view; and `times` int64 [b], which tells apart samples of one record in an epoch: 0 for
    the first but for a few; None where all are 0."""

    positions: NDArray[np.int64]
    times: NDArray[np.int64] | None


class _Part(NamedTuple):
    """Some of a view's records, that are drawn among each other: `positions` int64 [n], None for all. `line`: where
    they weigh differently."""

    positions: NDArray[np.int64] | None
    n: int
    seed: int
    windows: Windows | None
    line: Line | None


class Sampling:
    """What stands at each place of each epoch of a view, from (seed, epoch, place) alone.

    `records`: how many samples an epoch has, by default as many as the view has records. Without `weights` epochs go
    through one permutation after the other, so that each record comes once before any comes again, whatever `records`
    is. With weights [n] each epoch has its share of each record, and of each class, rounded up or down, and all epochs
    together nearly as exactly. Where the store mixes parts, each has its share of any records in a row, but for a few,
    and what was said is true of each part for itself.

    `weighted`: whether records weigh differently. `windowed`: shuffled by the window. Not shuffled, records come in
    their order, in whatever shares they are mixed.
    Raises UsageError: a part of a mix of which the view has no record.
    """

    def __init__(
        self,
        view: View,
        *,
        seed: int,
        shuffle: bool = True,
        windowed: bool = False,
        weights: NDArray[np.float64] | None = None,
        records: int | None = None,
    ) -> None:
        n = len(view)
        self.seed, self.shuffle = seed, shuffle
        self.records = n if records is None or not n else records
        self.windows = windows_of(view.store, n) if windowed else None
        # As an epoch without any has them; and each record once says more than the same share for each.
        weights = None if weights is None or not n or weights.min() == weights.max() else weights
        self._view_records, self.weighted = n, weights is not None
        mixed = view.store.shares if shuffle else ()
        # What was meant by 0.7 and by 1 / 3, not the nearest that a float can say; but never 0.
        self._shares = [Fraction(share).limit_denominator(10**9) or Fraction(share) for share in mixed]
        if mixed and n:
            of = view.store.parts_of(view.rows)
            chosen: list[NDArray[np.int64] | None] = [np.flatnonzero(of == part) for part in range(len(mixed))]
        else:
            self._shares, chosen = [Fraction(1)], [None]
        self._parts = [self._part(view, number, some, windowed, weights) for number, some in enumerate(chosen)]
        self._is_plain = self.records == n and len(chosen) == 1 and weights is None

    def _part(
        self,
        view: View,
        number: int,
        positions: NDArray[np.int64] | None,
        windowed: bool,
        weights: NDArray[np.float64] | None,
    ) -> _Part:
        n = len(view) if positions is None else len(positions)
        if positions is not None and not n:
            names = view.store.part_names
            raise UsageError(
                f"{view.title}: there is no record of {names[number]}, of which {view.store.shares[number]:g} of all "
                "should be; mix what is left of the others"
            )
        seed = self.seed if positions is None else order.derived(self.seed, number)
        line = None
        if weights is not None:
            some = weights if positions is None else weights[positions]
            if not some.any():
                raise UsageError(f"{view.title}: weights are 0 for all records of {view.store.part_names[number]}")
            labels = view.labels if positions is None else view.labels[positions]
            # In windows neighbours must stay neighbours.
            line = order.line(some, None if windowed else labels, seed=seed)
        return _Part(positions, n, seed, windows_of(view.store, n) if windowed else None, line)

    def at(self, epoch: int, low: int, high: int) -> Drawn:
        """What stands at `low` to `high` in an epoch."""
        if self._is_plain:
            if not self.shuffle:
                return Drawn(np.arange(low, high), None)
            n = self._view_records
            return Drawn(
                order.shuffled(low, high, n=n, seed=self.seed, epoch=epoch, windows=self.windows),
                None,
            )
        begun = order.quotas(epoch * self.records, self._shares)
        counts = [
            after - before
            for after, before in zip(order.quotas((epoch + 1) * self.records, self._shares), begun, strict=True)
        ]
        of, spans = order.dealt(low, high, counts)
        positions, times = np.empty(high - low, np.int64), np.empty(high - low, np.int64)
        for number, (part, span) in enumerate(zip(self._parts, spans, strict=True)):
            if len(span):
                mine = of == number
                found, times[mine] = self._of(part, epoch, span, begun[number], counts[number])
                positions[mine] = found if part.positions is None else part.positions[found]
        return Drawn(positions, times)

    def _of(
        self, part: _Part, epoch: int, span: range, begun: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What stands at the places `span` of the `count` that an epoch has of a part, after `begun` in those before:
        numbers int64 [b] in the part, and the times."""
        if part.line is None:
            found, passed = order.passes(
                begun + span.start,
                begun + span.stop,
                n=part.n,
                seed=part.seed,
                windows=part.windows,
                shuffle=self.shuffle,
            )
            return found, passed + ((begun + span.start) // part.n - begun // part.n)
        windows = part.windows
        if windows is not None:  # of samples, which a record may have many of
            windows = windows._replace(block=max(1, round(windows.block * count / part.n)))
        samples = order.shuffled(span.start, span.stop, n=count, seed=part.seed, epoch=epoch, windows=windows)
        return order.systematic(samples, m=count, line=part.line, seed=part.seed, epoch=epoch)

    @property
    def repeats(self) -> bool:
        """Whether a record may come more than once in an epoch."""
        return self.weighted or len(self._parts) > 1 or self.records > self._view_records

    def identity(self) -> dict[str, Any]:
        """What a state must have in common with this, beside the view and the seed; JSON-able."""
        digest = hashlib.sha256()
        for part in self._parts:
            if part.line is not None:
                digest.update(np.ascontiguousarray(part.line.numbers, "<i8").data)
                digest.update(np.ascontiguousarray(part.line.ends, "<f8").data)
        return {
            "take": None if self.records == self._view_records else self.records,
            "weights": digest.hexdigest()[:16] if self.weighted else None,
        }
