"""How many Rejects are too many: a share of what was seen, or a count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.errors import DataError, UsageError
from headrace.record import Reject

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Budget:
    """`max_rejects`: a float is a share of what is seen, 0 to 1, an int a count. Raises UsageError."""

    max_rejects: float | int

    def __post_init__(self) -> None:
        most = self.max_rejects
        if not (most >= 0 and (isinstance(most, int) or most <= 1)):
            raise UsageError(f"max_rejects is {most}, wanted a share (a float, 0 to 1) or a count (an int)")

    def allowed(self, seen: int) -> int:
        """How many of `seen` records may be rejected."""
        return int(self.max_rejects * seen) if isinstance(self.max_rejects, float) else self.max_rejects

    def check(self, rejected: int, *, seen: int, first: Sequence[Reject]) -> None:
        """Raises DataError, which shows the `first` Rejects, once more are `rejected` than are allowed."""
        if rejected > self.allowed(seen):
            enough = min(1.0, (10 * rejected // seen + 1) / 10)
            raise DataError(
                f"{rejected} of {seen} records are rejected, {self.allowed(seen)} are allowed (max_rejects); nothing "
                f"was published. Mend these, or allow more, as in max_rejects={enough:g}:{shown(first, rejected)}"
            )


def shown(first: Sequence[Reject], rejected: int) -> str:
    """The first ten of so many Rejects, a line each."""
    lines = "".join(f"\n  {reject}" for reject in first[:SHOWN])
    return lines + (f"\n  ... and {rejected - SHOWN} more" if rejected > SHOWN else "")
