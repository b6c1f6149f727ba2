"""Feed for PyTorch: a Loader as an iterable of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.feeds import native, require

if TYPE_CHECKING:
    from headrace.load.iteration import Batch
    from headrace.load.loader import Loader

torch = require("torch", extra="torch")


class TorchFeed:
    """Iterates (images uint8 [b, c, h, w], targets) as CPU tensors, images alone without targets.

    Images share memory with the loader's batch: their layout is channels_last, which is what convolutions like best.
    Class targets are int64, as cross_entropy wants them; a dict of targets becomes a dict of tensors. It needs no
    DataLoader around it: the loader has its own threads. `state_dict` and `load_state_dict` are the loader's.
    Arrays that a dataset keeps come as they are: [b, ...] in the axes and of the type they were given in, channels
    first only if they were so, in this machine's byte order.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return map(_kept if self.loader.view.keeps else _tensors, iter(self.loader))

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
