"""Iteration: the rest of one epoch, batch by batch, and where it stands. What a batch holds is left to the loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from operator import call
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.errors import DataError, UsageError
from headrace.record import brief


class Batch(NamedTuple):
    """`images` uint8 [b, h, w, c], c = 1 or 3 (RGB); `targets` as the target makes them, None without; `ids` [b].

    Of a dataset that keeps its arrays, `images` are [b, ...] of their own type and shape. Ids are text, which no device
    takes: jax.device_put(batch.images), or of (batch.images, batch.targets).
    """

    images: NDArray[Any]
    targets: Any
    ids: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Batch(images={brief(self.images)}, targets={brief(self.targets)}, ids={brief(self.ids)})"


class Made(NamedTuple):
    """A batch, the addresses of the damaged records that were left out of it, and which records of the view are in it,
    int64 [b]: for feeds, which may know more of them."""

    batch: Batch
    bad: tuple[str, ...]
    positions: NDArray[np.int64]


class Position(NamedTuple):
    """The batch of an epoch that comes next."""

    epoch: int
    batch: int


class Budget(NamedTuple):
    """How many damaged records an iteration may leave out, of how many."""

    most: int
    records: int


class Iteration(Iterator[Batch]):
    """Iterates the batches of one epoch from a position on; made by `loader.iterate` and `iter(loader)`.

    `state_dict()` is where it stands, whatever the loader and its other iterations do: batches that were delivered
    count, not those made ahead. `skipped`: addresses of the damaged records that the delivered batches come without.
    A batch of which nothing is left is `passed` over, for its loss would be no number; not by a rank, which is to have
    as many as the others.
    Leaving it, by `close()`, `with` or with its last reference, cancels what was made ahead; its position stays.

    Raises DamageError (on_bad="raise"); DataError (on_bad="skip") instead of a batch that would leave out more than
    `max_bad` allows; UsageError in a process that was forked since the first batch.
    """

    def __init__(
        self,
        pieces: Callable[[int, int], Iterable[Callable[[], Made | None]]],
        start: Position,
        batches: int,
        *,
        step: int,
        pool: parallel.Pool,
        ahead: int,
        budget: Budget,
        passes: bool,
        state: Callable[[Position], dict[str, Any]],
        delivered: Callable[[Position, tuple[str, ...]], None],
        ending: Callable[[], None] | None = None,
    ) -> None:
        self.epoch = start.epoch
        self._next, self._batches, self._step = start.batch, batches, step
        self._budget, self._state, self._delivered = budget, state, delivered
        self._bad: list[str] = []
        self._passes, self.passed = passes, 0
        self._process = os.getpid()
        work = (piece for i in range(start.batch, batches, step) for piece in pieces(start.epoch, i))
        self._made = parallel.ordered(call, work, workers=pool, ahead=ahead, ending=ending)

    def __next__(self) -> Batch:
        made = self.made()
        if made is None:
            raise StopIteration
        return made.batch

    def made(self) -> Made | None:
        """The next batch, and what a feed wants to know of it; None after the last. Raises what iterating does."""
        if os.getpid() != self._process:
            raise UsageError("this iteration belongs to the process it was forked from; go on by loader.iterate(state)")
        # A batch comes with the last of its pieces to end, whichever of them that was.
        while (made := next((made for made in self._made if made is not None), None)) is not None:
            bad = made.bad
            if bad and len(self._bad) + len(bad) > self._budget.most:
                self.close()
                raise DataError(_spent([*self._bad, *bad], self._budget))
            self._bad += bad
            self._next += self._step
            self._delivered(self.position, bad)
            if len(made.positions) or not self._passes:
                return made
            self.passed += 1
        if not self._batches:  # else who goes on until an epoch is over would wait for ever
            self._delivered(self.position, ())
        return None

    @property
    def position(self) -> Position:
        """What comes next: the batch after the last one delivered, or the first of the next epoch."""
        return Position(self.epoch, self._next) if self._next < self._batches else Position(self.epoch + 1, 0)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Addresses of the damaged records that were left out of the batches delivered, in their order."""
        return tuple(self._bad)

    def state_dict(self) -> dict[str, Any]:
        """Where this iteration stands, JSON-able: for `loader.iterate` and `loader.load_state_dict`."""
        return self._state(self.position)

    def close(self) -> None:
        """Cancels what was made ahead and waits for what runs; there is no next batch any more."""
        self._made.close()

    def __enter__(self) -> Iteration:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _spent(bad: list[str], budget: Budget) -> str:
    lines = [f"  {address}" for address in bad[:10]]
    more = [f"  ... and {len(bad) - 10} more"] if len(bad) > 10 else []
    return "\n".join(
        [
            f"{len(bad)} of {budget.records} records of an epoch are damaged, {budget.most} may be left out (max_bad); "
            "mend these or allow more:",
            *lines,
            *more,
        ]
    )
