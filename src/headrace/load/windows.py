"""Windows: how large those of `order="windows"` are, and whether the records' own order spoils them.

The order itself is order's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.load.store import Store
from headrace.order import Windows

# Bytes of a block: a few requests to a store, or some tenths of a second of a disk.
_BLOCK_BYTES = 8 << 20
_GROUP = 16  # blocks of a window at most
_BATCH = 32  # records that share out classes
_SAMPLE, _LEAST = 1 << 18, 64  # records whose classes are looked at; blocks, where these are more records
UNEVEN = 1.2


def windows_of(store: Store, records: int) -> Windows:
    """The windows of a view of so many records: 16 blocks of about 8 MB at most, by the mean record of its dataset.

    Blocks are as equal as can be, and so are windows, so that no last one is left with a few neighbours. A function of
    the dataset and the number alone, as a state is of windows of one size.
    """
    size = sum(entry.bytes for entry in store.manifest.shards) / max(1, len(store))
    blocks = max(1, min(records, math.ceil(records * size / _BLOCK_BYTES)))
    number = -(-blocks // _GROUP)
    group = -(-blocks // number)
    return Windows(max(1, -(-records // (number * group))), group)


def unevenness(store: Store, rows: NDArray[np.int64], windows: Windows) -> float:
    """How unevenly 32 records in a row share out the classes in this order of `rows` [n], beside a full shuffle: the
    ratio of the standard deviations of a class's share, 1 where neighbours have no more in common than others.

    The square is what sampling in clusters costs (Kish, "Survey Sampling", 1965: 1 + (b - 1) rho), where two records of
    a window are of one block by 1 / group. rho, the correlation of the classes of two records of a block, is found from
    some hundred thousand records of blocks that lie evenly apart. 1 where no record has a class.
    """
    block, group = windows
    blocks = len(rows) // block
    if block == 1 or blocks <= group:  # nothing is near another, or everything is
        return 1.0
    # In each epoch blocks begin at another record, so any may be the first of one.
    begins = order.evenly(len(rows) - block + 1, max(_LEAST, _SAMPLE // block))
    sample = rows[(begins[:, None] + np.arange(block)).reshape(-1)]
    classes, of = store.classes_of(sample)
    shares = np.bincount(classes) / len(sample)
    by_chance = float((shares**2).sum())
    spread = float(shares.sum()) - by_chance
    if spread <= 0:
        return 1.0
    _, found = np.unique(of // block * len(shares) + classes, return_counts=True)
    pairs = float((found * (found - 1.0)).sum()) / (len(begins) * block * (block - 1))
    rho = (pairs - by_chance) / spread
    between = rho * (blocks - group) / (group * (blocks - 1))
    return math.sqrt(max(0.0, 1 + (min(_BATCH, block * group) - 1) * between))
