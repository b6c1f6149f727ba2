"""View: which records of a store, in which order, and what is known of them together. Pixels are left to the store."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headrace.imaging.placement import Size
from headrace.load.facts import Facts
from headrace.load.store import Store


class View:
    """Rows int64 [n] of a store, all of them by default. `what` says in words how they were chosen out of the whole.
    `part`: the split, or the part of a division, that they were last chosen as, and None before.

    It holds nothing else, so it can be pickled where its store can.
    """

    def __init__(
        self,
        store: Store,
        rows: NDArray[np.int64] | None = None,
        what: tuple[str, ...] = (),
        part: str | None = None,
    ) -> None:
        self.store, self.part = store, part
        self._whole = rows is None
        every = np.arange(len(store)) if store.live is None else store.live
        self.rows: NDArray[np.int64] = every if rows is None else rows
        self.what = what

    def take(self, positions: NDArray[np.integer] | NDArray[np.bool_], what: str, *, part: str | None = None) -> View:
        """The records at `positions` of this view, as numbers or as a mask of it, and how that is called."""
        return View(self.store, self.rows[positions], (*self.what, what), self.part if part is None else part)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type[View], tuple[Store, NDArray[np.int64] | None, tuple[str, ...], str | None]]:
        return View, (self.store, None if self._whole else self.rows, self.what, self.part)

    @property
    def some_rows(self) -> NDArray[np.int64] | None:
        """The rows of this view, None where they are all that the store's table has."""
        return None if self._whole and self.store.live is None else self.rows

    @property
    def title(self) -> str:
        """What this is, for people: "cats / split 'train'"."""
        return " / ".join([self.store.path.absolute().name, *self.what])

    @property
    def trains(self) -> bool:
        """Whether these are records to train on: of a part named train, or of a dataset that is nothing else."""
        return self.part == "train" if self.part is not None else list(self.store.manifest.splits) == ["train"]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of the store and the records of this view in their order."""
        found = hashlib.sha256(self.store.fingerprint.encode())
        found.update(np.ascontiguousarray(self.rows, "<i8").data)
        return found.hexdigest()

    @cached_property
    def records_fingerprint(self) -> str:
        """The same of the records alone, whatever an edit says of them: an order of this view goes on where it is the
        same."""
        found = hashlib.sha256(self.store.records_fingerprint.encode())
        found.update(np.ascontiguousarray(self.rows, "<i8").data)
        return found.hexdigest()

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices int64 [n], -1 for a record without a label."""
        return self.store.labels[self.rows].astype(np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in index order."""
        return self.store.manifest.classes

    @property
    def keeps(self) -> bool:
        """Whether images are numbers as they were given, of any type and shape, and no pixels (ArrayDataset)."""
        return self.store.keeps

    @property
    def channels(self) -> int:
        """Channels of a batch: 1 when every image of the whole dataset is grey, else 3, so that what a model takes
        does not depend on which records happen to be in a view.

        Of images that are kept, their last axis when they are [h, w, c], else 0.
        """
        return self.store.manifest.channels

    @cached_property
    def image_size(self) -> Size | None:
        """(height, width) when all images of this view share one size, else None; of an empty view those of the whole.

        None also where images are kept that are neither [h, w] nor [h, w, c].
        """
        h, w = self.store.height, self.store.width
        if self.some_rows is not None and len(self):
            h, w = h[self.rows], w[self.rows]
        alike = len(h) and h[0] and (h == h[0]).all() and (w == w[0]).all()
        return (int(h[0]), int(w[0])) if alike else None

    @property
    def has_boxes(self) -> bool:
        """Whether the source spoke of boxes at all, of any record of the whole dataset: a picture without any is then a
        negative."""
        return self.store.manifest.boxes is not None

    def facts(self, *, objects: bool) -> Facts:
        """What targets ask; of single boxes and keypoints only where `objects`, as they are read for it."""
        promised, store, rows = self.store.manifest, self.store, self.rows
        values = store.values(rows)
        known = values[~np.isnan(values)]
        boxes, points = objects and self.has_boxes, objects and promised.keypoints > 0
        return Facts(
            records=len(self),
            unlabelled=int((self.labels < 0).sum()),
            keeps_y=bool(store.kept),
            multi_label=promised.multi_label,
            without_labels=int((~store.says_labels(rows)).sum()) if promised.multi_label else 0,
            value_range=(float(known.min()), float(known.max())) if len(known) else None,
            without_value=len(values) - len(known),
            has_boxes=self.has_boxes,
            without_boxes=int((~store.says_boxes(rows)).sum()) if boxes else 0,
            box_classes=promised.box_classes,
            unlabelled_boxes=int((store.boxes(rows)[1] < 0).sum()) if boxes else 0,
            keypoints=promised.keypoints,
            keypoint_names=promised.keypoint_names,
            flip_pairs=promised.flip_pairs,
            without_keypoints=int((~store.says_keypoints(rows)).sum()) if points else 0,
        )
