"""Passes over a loader, of which feeds that iterate it by themselves say the same. Keras says when one is by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.load.iteration import Position
    from headrace.load.loader import Loader


class Passes:
    """What a feed says of its passes: each is of the loader's epoch that is due, or of what is left of it.

    `_start`: where the one that was begun last began.
    """

    loader: Loader
    _start: Position | None = None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def epoch(self) -> int:
        """The epoch that the next pass is of, or what is left of it."""
        return self.loader.due.epoch

    def set_epoch(self, epoch: int) -> None:
        """The next pass is of this epoch, from its beginning; only where a state of this very epoch was just loaded, it
        is what is left of it. A pass is of the epoch after the last one's without it, too."""
        due = self.loader.due
        if due.epoch != epoch or not due.batch:
            self.loader.epoch = epoch

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records of the pass that was begun last, or of the first to come, in their order: what
        predictions are of. Raises UsageError: damaged records were left out."""
        return self.loader.ids(self._start)
