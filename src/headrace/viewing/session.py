"""What all pages of one viewer share: the dataset that is looked at, the run, and what was asked a moment ago."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headrace.errors import UsageError
from headrace.load.dataset import Dataset
from headrace.record import Reject
from headrace.viewing import groups, rejects
from headrace.viewing.query import BY_BOXES, Boxes, Query, Rows, rows_of
from headrace.viewing.runs import Evaluation, Judged, Run

_KEPT = 8  # answers that are kept of each kind: 8 bytes a row
Made = TypeVar("Made")


class Session:
    """A dataset or a view of one, and a run's folder. Usable from any thread. Raises NotThereError, UsageError."""

    def __init__(self, dataset: Dataset, run: Path | None = None) -> None:
        self.dataset = dataset
        self.run = None if run is None else Run(run)
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}
        self._making: dict[tuple[str, Hashable], threading.Lock] = {}

    def _once(self, kind: str, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, which is kept for a while; who asks for the same meanwhile waits for it."""
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            if key in kept:
                kept.move_to_end(key)
                return kept[key]  # type: ignore[no-any-return]
            making = self._making.setdefault((kind, key), threading.Lock())
        with making:
            with self._lock:
                if key in kept:
                    return kept[key]  # type: ignore[no-any-return]
            try:
                made = make()
                with self._lock:
                    kept[key] = made
                    while len(kept) > _KEPT:
                        kept.popitem(last=False)
                return made
            finally:
                with self._lock:
                    self._making.pop((kind, key), None)

    def boxes(self, dataset: Dataset) -> Boxes | None:
        """All boxes of the dataset, None where it has none."""
        if not dataset.has_boxes:
            return None
        return self._once("boxes", dataset.fingerprint, lambda: Boxes.of(dataset))

    def rows(self, query: Query) -> tuple[Dataset, Rows, Judged | None]:
        """The dataset, the rows that a query asks of it, in its order, and the evaluation that it names. Raises
        UsageError, DamageError."""
        dataset = self.dataset
        judged = None if query.evaluation is None else self.judged(query.evaluation)
        wanted = query.about_boxes or query.sort.removeprefix("-") in BY_BOXES
        boxes = self.boxes(dataset) if wanted else None
        key = dataset.fingerprint, query
        return dataset, self._once("rows", key, lambda: rows_of(dataset, query, boxes, judged)), judged

    def evaluations(self) -> list[Evaluation]:
        """Those of the run, none without one."""
        return [] if self.run is None else self.run.evaluations()

    def judged(self, name: str) -> Judged:
        """What the evaluation of this name says of the dataset's records. Raises UsageError."""
        dataset = self.dataset
        found = next((one for one in self.evaluations() if one.name == name), None)
        if found is None:
            raise UsageError(f"no evaluation {name!r:.100}; headrace evaluate makes one in the run's folder")
        return self._once("judged", (dataset.fingerprint, name), lambda: Judged(dataset, found.folder))

    def groups(self) -> list[groups.Group]:
        """Groups of the same images."""
        dataset = self.dataset
        return self._once("groups", dataset.fingerprint, lambda: groups.groups(dataset))

    @property
    def has_groups(self) -> bool:
        """Whether the groups are known already."""
        with self._lock:
            return self.dataset.fingerprint in self._kept.get("groups", {})

    def rejects(self) -> tuple[Reject, ...]:
        """What was refused."""
        dataset = self.dataset
        return self._once("rejects", dataset.fingerprint, lambda: rejects.rejects_of(dataset))

    def position(self, rows: Rows, row: int) -> int | None:
        """Where a row is among these, None where it isn't."""
        at = np.flatnonzero(rows == row)
        return int(at[0]) if len(at) else None

    def is_current(self) -> bool:
        """Whether the folder still holds the dataset that is looked at."""
        return self.dataset.store.is_current()

    def reopen(self) -> None:
        """Looks at what stands in the folder now. Raises UsageError (a view can't be made again), and as Dataset."""
        dataset = self.dataset
        if dataset.is_view:
            raise UsageError(
                f"{dataset.title}: a view of what was there; make it again of the dataset that is there now"
            )
        self.dataset = dataset.reopened()
