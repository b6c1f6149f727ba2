"""Whether devices can share the batches of a loader, as JAX wants it: in parts of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import UsageError

if TYPE_CHECKING:
    from headrace.load.loader import Loader


def check_divisible(loader: Loader, parts: int) -> None:
    """Raises UsageError: a batch of all ranks can't be divided into so many equal parts, or the last one can't."""
    b, n = loader.batch_size, loader.records
    if b % parts:
        near = sorted({max(parts, b // parts * parts), (b // parts + 1) * parts})
        raise UsageError(
            f"batch_size is {b}, and the devices divide a batch into {parts} equal parts; pass a multiple of {parts} "
            f"to the loader, such as batch_size={' or '.join(map(str, near))}"
        )
    tail = 0 if loader.options.drop_last else n % b
    if tail % parts:
        raise UsageError(
            f"the last of {len(loader)} batches has {tail} of {n} records, and the devices divide a batch into {parts} "
            "equal parts; pass drop_last=True to the loader, or another batch_size"
        )
    if parts > 1 and loader.options.on_bad == "skip":
        raise UsageError(
            f"on_bad='skip' may leave any number of records out of a batch, and the devices divide it into {parts} "
            "equal parts; pass on_bad='raise' to the loader, and leave damaged records out beforehand"
        )
