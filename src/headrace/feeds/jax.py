"""Feed for JAX: a Loader as an iterable of arrays on a device, or on all devices of a sharding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from headrace.errors import UsageError
from headrace.feeds import native, require
from headrace.feeds.dividing import check_divisible
from headrace.feeds.passes import Passes
from headrace.feeds.weighing import Weighing

if TYPE_CHECKING:
    from headrace.load.iteration import Made, Position
    from headrace.load.loader import Loader
    from headrace.load.weights import Weights

jax = require("jax", extra="jax")


class JaxFeed(Passes):
    """Iterates (images uint8 [b, h, w, c], targets) as jax.Arrays, images alone without targets; a dict of targets
    becomes a dict of arrays. With `sample_weight` it is (images, targets, weights float32 [b]).

    Without a sharding they are on JAX's default device. `sharding` (of a mesh, its first axis that of the batch) makes
    global arrays of all its devices: a NamedSharding is that of the images, and targets are divided along the batch as
    the images are; another is that of everything. Where it is of several processes, each brings its own part of a
    batch, which is what `world="auto"` or world=(jax.process_index(), jax.process_count()) gives the loader.

    A pass is the loader's: of the epoch that is due, or of the rest of it after `load_state_dict`. One batch is on its
    way to the device while the one before it is used; `state_dict` counts what was delivered alone.
    JAX has 32 bits unless `jax_enable_x64` is set: int64 becomes int32, float64 float32. Arrays that a dataset keeps
    come in their own type otherwise.

    Raises UsageError: a batch can't be divided among the devices, the last one of an epoch either; damaged records may
    be left out, so that any batch may be so; the sharding is of other processes than `world`. While iterating: a number
    does not fit into 32 bits.
    """

    def __init__(self, loader: Loader, sharding: Any = None, *, sample_weight: Weights | None = None) -> None:
        self.loader = loader
        self._weighing = None if sample_weight is None else Weighing(loader, sample_weight)
        self._sharding, self._along_batch = sharding, sharding
        if sharding is None:
            return
        if not isinstance(sharding, jax.sharding.Sharding):
            raise UsageError(
                f"sharding is {sharding!r:.80}, wanted a jax.sharding.Sharding, such as "
                "NamedSharding(mesh, PartitionSpec('batch'))"
            )
        if isinstance(sharding, jax.sharding.NamedSharding):
            first = jax.sharding.PartitionSpec(*sharding.spec[:1])
            self._along_batch = jax.sharding.NamedSharding(sharding.mesh, first)
        places = _places(sharding, loader.image_shape)
        _check_processes(loader, places)
        check_divisible(loader, len({place for places_ in places.values() for place in places_}))

    def __iter__(self) -> Iterator[Any]:
        self._start = self.loader.due
        with self.loader.iterate() as run:
            waiting: tuple[Any, Position, tuple[str, ...]] | None = None
            left_out = 0
            try:
                while (made := run.made()) is not None:
                    coming = self._put(made), run.position, run.skipped[left_out:]
                    left_out = len(run.skipped)
                    if waiting is not None:
                        yield self._delivered(*waiting)
                    waiting = coming
            except Exception:  # in its turn: the batch before it is good
                if waiting is not None:
                    yield self._delivered(*waiting)
                raise
            if waiting is not None:
                yield self._delivered(*waiting)
            elif not len(self):
                self.loader.deliver(run.position, ())

    def _delivered(self, arrays: Any, position: Position, bad: tuple[str, ...]) -> Any:
        self.loader.deliver(position, bad)
        return arrays

    def _put(self, made: Made) -> Any:
        batch = made.batch
        images = self._array(batch.images, self._sharding)
        if batch.targets is None:
            return images
        targets = jax.tree.map(lambda part: self._array(part, self._along_batch), batch.targets)
        if self._weighing is None:
            return images, targets
        return images, targets, self._array(self._weighing.of(made), self._along_batch)

    def _array(self, array: Any, sharding: Any) -> Any:
        array = native(array)
        _check_bits(array)
        if sharding is None:
            return jax.device_put(array)
        return jax.make_array_from_process_local_data(sharding, array)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


Places: TypeAlias = dict[int, set[tuple[int | None, int | None]]]


def _places(sharding: Any, image_shape: tuple[int, ...]) -> Places:
    """Which parts of a batch the devices of each process take. Raises UsageError: the images can't be divided so."""
    shape = (len(sharding.device_set), *image_shape)
    places: Places = {}
    if isinstance(sharding, jax.sharding.NamedSharding) and len(sharding.spec) > len(shape):
        raise UsageError(
            f"the sharding has {len(sharding.spec)} axes, {sharding.spec}, and images have {len(shape)}, "
            f"[b, {', '.join(map(str, image_shape))}]"
        )
    try:
        for device, (along, *_) in sharding.devices_indices_map(shape).items():
            places.setdefault(device.process_index, set()).add((along.start, along.stop))
    except (ValueError, TypeError) as error:  # JAX's own words name axis and mesh
        raise UsageError(
            f"the sharding does not fit images [b, {', '.join(map(str, image_shape))}]: {error}"
        ) from error
    return places


def _check_processes(loader: Loader, places: Places) -> None:
    """Raises UsageError: the processes of the sharding are not those between which the loader divides a batch."""
    if len(places) == 1:
        return
    wanted, world = (sorted(places).index(jax.process_index()), len(places)), loader.world
    if world != wanted:
        raise UsageError(
            f"the sharding is of {len(places)} processes, and the loader's world is {world}, wanted {wanted}; pass "
            "world='auto' to the loader"
        )
    if len(set().union(*places.values())) != len(places) * len(places[jax.process_index()]):
        raise UsageError(
            "the sharding gives one part of a batch to several processes, each of which loads a part of its own; "
            "divide the first axis by all processes"
        )


def _check_bits(array: Any) -> None:
    """Raises UsageError: an integer that JAX would cut to 32 bits is larger than that."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.int64, np.uint64) or not array.size:
        return
    if jax.config.jax_enable_x64:
        return
    most = np.iinfo(np.int32 if array.dtype == np.int64 else np.uint32)
    low, high = int(array.min()), int(array.max())
    if low < most.min or high > most.max:
        raise UsageError(
            f"{low if low < most.min else high} does not fit into the 32 bits that JAX has; set "
            "jax.config.update('jax_enable_x64', True) before the first array"
        )
