"""Near-duplicates of a source, before anything is packed: their groups, which no split shall cut in two.

A pass over all images that decodes each once, small. What becomes of the groups is left to the plan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace import parallel
from headrace.imaging import codec
from headrace.imaging.alike import Groups, as_looks, join_alike
from headrace.imaging.codec import BadImage
from headrace.imaging.look import SIDE, look, thumb
from headrace.imaging.prepare import ImageOptions, prepare
from headrace.packing.spool import Table
from headrace.progress import bar
from headrace.record import Record

_LOT = 16  # images of a task


def groups_of(
    table: Table, rows: NDArray[np.int64], options: ImageOptions, *, workers: int | None, progress: bool | None
) -> NDArray[np.int64]:
    """What stands for the group of near-duplicates of each of these rows [n], the first of it, int64 [n] of 0 to n - 1;
    an image alone, or one that can't be read, which packing will reject, is a group of its own.

    Memory: 150 bytes a row, and what join_alike takes.
    """
    threads = parallel.check_workers(workers)
    small = ImageOptions(
        size=(2 * SIDE, 2 * SIDE),
        channels=1,
        value_range=options.value_range,
        max_pixels=options.max_pixels,
        on_warning=options.on_warning,
    )

    def thumbs(some: NDArray[np.int64]) -> list[NDArray[np.uint8] | None]:
        return [_thumb(table[row], small) for row in rows[some].tolist()]

    def looked(some: NDArray[np.int64]) -> list[bytes | None]:
        return [None if found is None else look(found) for found in thumbs(some)]

    found: list[bytes | None] = []
    with bar(total=len(rows), unit="img", desc="look", show=progress) as shown:
        for lot in parallel.ordered(looked, _lots(np.arange(len(rows))), workers=threads, ahead=4 * threads):
            found += lot
            shown.update(len(lot))
    looks, known = as_looks(found)
    among = np.flatnonzero(known)
    groups = Groups(len(among))
    with bar(total=None, unit="img", desc="compare", show=progress) as shown:

        def draw(numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
            drawn, at = np.zeros((len(numbers), SIDE, SIDE), np.uint8), 0
            good = np.zeros(len(numbers), np.bool_)
            for lot in parallel.ordered(thumbs, _lots(among[numbers]), workers=threads, ahead=4 * threads):
                for made in lot:
                    if made is not None:  # a file may have gone since
                        drawn[at], good[at] = made, True
                    at += 1
                shown.update(len(lot))
            return drawn, good

        join_alike(groups, looks[among], draw)
    out = np.arange(len(rows))
    out[among] = among[groups.of()]
    return out


def _lots(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [numbers[begin : begin + _LOT] for begin in range(0, len(numbers), _LOT)]


def _thumb(record: object, small: ImageOptions) -> NDArray[np.uint8] | None:
    """The thumb of a record's image, of the part of it that is the record; None where it can't be read."""
    assert isinstance(record, Record)
    try:
        if record.pixels is not None:
            codec.check_pixels(*record.pixels.size, small.max_pixels)
        made = prepare(
            record.read(), small, measured_in=record.size, upright=record.upright, window=record.window
        ).encoded
        return thumb(codec.decode(made, header=codec.read_header(made), channels=1))
    except (BadImage, OSError):
        return None
