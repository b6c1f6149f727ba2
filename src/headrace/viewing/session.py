"""What all pages of one viewer share: the dataset that is looked at, the run, and what was asked a moment ago."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headrace.errors import HeadraceError, UsageError
from headrace.format.tables import holds
from headrace.load.dataset import Dataset
from headrace.load.store import Shards
from headrace.record import Reject
from headrace.revising.diff import Diff
from headrace.revising.history import restore, undo
from headrace.viewing import differences, edits, groups, rejects
from headrace.viewing.query import BY_BOXES, Boxes, Query, Rows, rows_of
from headrace.viewing.runs import Evaluation, Judged, Run

_KEPT = 8  # answers that are kept of each kind: 8 bytes a row
_VERSIONS = 3  # earlier ones that are kept open
Made = TypeVar("Made")


class Session:
    """A dataset or a view of one, and a run's folder. `edit`: whether pages may change it. Usable from any thread.
    Raises NotThereError, UsageError.
    """

    def __init__(self, dataset: Dataset, run: Path | None = None, *, edit: bool = False) -> None:
        if edit:
            edits.check_editable(dataset)
        self.dataset, self.edit = dataset, edit
        # An earlier version that was asked for stays what it is, whatever is made since.
        self.pinned = not edit and not dataset.store.is_current()
        self._editing = threading.Lock()
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

    def state(self) -> dict[str, Any]:
        """Whether the folder still holds what is looked at (`current`), or at least as an earlier version (`known`),
        and the versions that were made since (`later`)."""
        dataset = self.dataset
        current = dataset.store.is_current()
        known = current or (isinstance(dataset.store, Shards) and holds(dataset.store.tables.home, dataset.manifest))
        later: list[dict[str, Any]] = []
        if known and not current:
            try:
                later = edits.later(dataset, dataset.version)
            except HeadraceError:  # it is replaced this very moment
                known = False
        return {
            "current": current,
            "known": known,
            "later": later,
            "fingerprint": dataset.fingerprint[:12],
            "version": dataset.version,
        }

    def reopen(self) -> None:
        """Looks at what stands in the folder now. Raises UsageError (a view can't be made again), and as Dataset."""
        dataset = self.dataset
        if dataset.is_view:
            raise UsageError(
                f"{dataset.title}: a view of what was there; make it again of the dataset that is there now"
            )
        self.dataset = dataset.reopened()
        with self._lock:
            self._kept.clear()

    def save(self, asked: Mapping[str, Any]) -> int | None:
        """Commits a draft, and looks at the version that was made: see edits.save."""
        return self._edited(lambda dataset: edits.save(dataset, asked, lambda query: self.rows(query)[1]))

    def undo(self, version: int) -> int | None:
        """Takes the last edit back. `version`: the one that is looked at. Raises as hr.undo."""

        def back(dataset: Dataset) -> int:
            home = edits.home_of(dataset)
            edits.check_same(dataset)
            return undo(home.path, version=version, storage_options=edits.options(home))

        return self._edited(back)

    def restore(self, version: int, to: int) -> int | None:
        """Makes version `to` hold again. `version`: the one that is looked at. Raises as hr.restore."""

        def back(dataset: Dataset) -> int:
            home = edits.home_of(dataset)
            edits.check_same(dataset)
            return restore(home.path, to, base=version, storage_options=edits.options(home))

        return self._edited(back)

    def _edited(self, make: Callable[[Dataset], int | None]) -> int | None:
        """What `make` gives for the dataset, one edit after the other."""
        with self._editing:
            made = make(self.dataset)
            if made is not None:
                self.reopen()
            return made

    def at(self, version: int | None) -> Dataset:
        """The dataset as an earlier version of it was, by default the one that is looked at. Raises UsageError."""
        dataset = self.dataset
        if version is None or version == dataset.version:
            return dataset
        if not isinstance(dataset.store, Shards):
            raise UsageError(f"{dataset.title}: has no versions")
        opened = self._once("at", (dataset.fingerprint, version), lambda: dataset.reopened(version))
        with self._lock:  # a whole table each
            while len(kept := self._kept.get("at", OrderedDict())) > _VERSIONS:
                kept.popitem(last=False)
        return opened

    def difference(self, before: int, after: int) -> tuple[Dataset, Dataset, Diff]:
        """Two versions, and what they differ in. Raises UsageError, DamageError."""
        one, other = self.at(before), self.at(after)
        if not isinstance(one.store, Shards):
            raise UsageError(f"{one.title}: has no versions")
        key = one.fingerprint, other.fingerprint
        return one, other, self._once("difference", key, lambda: differences.difference(one, other))
