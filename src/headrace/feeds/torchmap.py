"""Map-style dataset for PyTorch: single records by number, for samplers and DataLoaders. Batches are torch's feed's."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from headrace import parallel
from headrace.feeds import require
from headrace.feeds.torch import channels_first, each, element, tensor

if TYPE_CHECKING:
    from headrace.load.loader import Loader

torch = require("torch", extra="torch")


class TorchDataset(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    """Item i is (image uint8 [c, h, w], target) of record i of a view as tensors, or the image alone without targets.

    A class is int64 [], a dict of targets a dict of tensors; arrays that a dataset keeps come as they are. The image is
    that of the loader's epoch: what `augment` does to a record depends on (seed, epoch, record id) alone, so call
    `set_epoch` before each pass; processes that persist (`persistent_workers`) don't hear of it.

    It is copied to a DataLoader's processes, forked or spawned. A DataLoader asks for all records of a batch at once,
    and those are decoded together by the loader's threads, of which n processes take an n-th each. `transform` is given
    each image.

    Raises IndexError; DamageError with the record's address.
    """

    def __init__(self, loader: Loader, *, transform: Callable[[Any], Any] | None = None) -> None:
        self.loader = loader
        self.transform = transform
        self._pool: parallel.Pool | None = None

    def __len__(self) -> int:
        return len(self.loader.view)

    def __getitem__(self, i: SupportsIndex) -> Any:
        return self.__getitems__([i])[0]

    def __getitems__(self, numbers: Sequence[SupportsIndex]) -> list[Any]:
        """The items of these numbers, in their order, of which some may be the same."""
        positions = np.array([self._position(i) for i in numbers], np.int64)
        if not len(positions):
            return []
        batch = self.loader.at(positions, pool=self._threads())
        images = tensor(batch.images) if self.loader.view.keeps else channels_first(batch.images)
        targets = tensor(batch.targets)
        return [self._item(images[k], each(operator.itemgetter(k), targets)) for k in range(len(positions))]

    def _item(self, image: Any, target: Any) -> Any:
        return element(image if self.transform is None else self.transform(image), target)

    def _position(self, i: SupportsIndex) -> int:
        number, n = operator.index(i), len(self)
        if not -n <= number < n:
            raise IndexError(f"record {number} of {n}")
        return number % n

    def _threads(self) -> parallel.Pool | None:
        info = torch.utils.data.get_worker_info()
        if info is not None and self._pool is None:
            self._pool = parallel.Pool(max(1, self.loader.workers // info.num_workers))
        return self._pool

    def set_epoch(self, epoch: int) -> None:
        """Items are of this epoch from now on; of epoch 0 at first."""
        self.loader.epoch = epoch

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.loader.image_shape))
        return f"TorchDataset({len(self)} records of {self.loader.view.title}, {shape})"
