"""Feed for PyTorch: a Loader as an iterable of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.feeds import native, require

if TYPE_CHECKING:
    from headrace.load.iteration import Batch, Position
    from headrace.load.loader import Loader

torch = require("torch", extra="torch")


class TorchFeed(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
    """Iterates (images uint8 [b, c, h, w], targets) as CPU tensors, images alone without targets.

    Images share memory with the loader's batch: their layout is channels_last, which is what convolutions like best.
    Class targets are int64, as cross_entropy wants them; a dict of targets becomes a dict of tensors. It needs no
    DataLoader around it: the loader has its own threads. `state_dict` and `load_state_dict` are the loader's.
    Arrays that a dataset keeps come as they are: [b, ...] in the axes and of the type they were given in, channels
    first only if they were so, in this machine's byte order.

    Where a trainer wants one, `DataLoader(feed, batch_size=None, num_workers=n)` takes it: each of the n processes
    makes each n-th batch, and they come once each, in the loader's order. These processes are copies of this one, made
    when a pass begins, of which the loader here hears nothing: call `set_epoch` before each pass, or every pass is the
    same epoch, and keep count of the batches to resume. With `persistent_workers` they go on to the next epoch by
    themselves, and `set_epoch` does not reach them.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self._start: Position | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        self._start = self.loader.due
        batches = iter(self.loader) if info is None else self._share(info.id, info.num_workers)
        return map(_kept if self.loader.view.keeps else _tensors, batches)

    def _share(self, worker: int, workers: int) -> Iterator[Batch]:
        """What one of a DataLoader's processes makes of a pass."""
        epoch = self.loader.due.epoch
        self.loader.hold(
            "one process of a DataLoader can't say where the others stand; count the batches outside of it"
        )
        with self.loader.iterate(share=(worker, workers)) as run:
            yield from run
        self.loader.epoch = epoch + 1  # also where this process had none of the last batches

    def set_epoch(self, epoch: int) -> None:
        """The next pass is of this epoch, from its beginning."""
        self.loader.epoch = epoch

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the records of the pass that was begun last, or of the first to come, in their order: what
        predictions are of. Raises UsageError: damaged records were left out."""
        return self.loader.ids(self._start)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


def _tensors(batch: Batch) -> Any:
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
    return images if batch.targets is None else (images, _tensor(batch.targets))


def _kept(batch: Batch) -> Any:
    images = _tensor(batch.images)
    return images if batch.targets is None else (images, _tensor(batch.targets))


def _tensor(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tensor(part) for name, part in value.items()}
    return torch.from_numpy(np.ascontiguousarray(native(value)))
