"""Feed for PyTorch: a Loader as an iterable of tensors, on the device that trains. Single records are torchmap's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace import parallel
from headrace.errors import UsageError
from headrace.feeds import native, require, warn_untested
from headrace.feeds.passes import Passes
from headrace.feeds.weighing import Weighing
from headrace.load.iteration import Position

if TYPE_CHECKING:
    from headrace.load.iteration import Iteration, Made
    from headrace.load.loader import Loader
    from headrace.load.weights import Weights

torch = require("torch", extra="torch")
warn_untested("torch", torch.__version__, (2, 4), (2, 13), "see that batches come as they should")

# Those that hold 0 to 255 as they are; the others of torch have no room for them, or no arithmetic.
_DTYPES = ("uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_FORMATS = ("channels_last", "contiguous_format")


class TorchFeed(Passes, torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
    """Iterates (images uint8 [b, c, h, w], targets) as tensors, images alone without targets; one epoch at a time. With
    `sample_weight` it is (images, targets, weights float32 [b]).

    Images share memory with the loader's batch: their layout is channels_last, which is what convolutions like best.
    Class targets are int64, as cross_entropy wants them; a dict of targets becomes a dict of tensors. It needs no
    DataLoader around it: the loader has its own threads. `state_dict` and `load_state_dict` are the loader's, so that
    what was delivered counts, wherever it lies: torch.save them, or leave that to Lightning, which does.
    Arrays that a dataset keeps come as they are: [b, ...] in the axes and of the type they were given in, channels
    first only if they were so, in this machine's byte order.

    device: where images and targets come to; None is the CPU. To CUDA they go from pinned memory on a stream of its
    own, made by a thread, one batch ahead of the one that is asked for. dtype: what images are converted to where they
    have arrived, so that bytes travel; their values stay 0 to 255, of a batch of images. memory_format:
    torch.channels_last, which they have, or torch.contiguous_format. Targets keep their type.

    Where a trainer wants one, `DataLoader(feed, batch_size=None, num_workers=n)` takes it: each of the n processes
    makes each n-th batch, and they come once each, in the loader's order. These processes are copies of this one, made
    when a pass begins, of which the loader here hears nothing: call `set_epoch` before each pass, or every pass is the
    same epoch. To resume, take torchdata's StatefulDataLoader, to which each process says where it stands, or keep
    count of the batches. With `persistent_workers` they go on to the next epoch by themselves, and `set_epoch` does not
    reach them.

    Accelerate's `prepare(model, optimizer, feed)` leaves a feed as it is: loader(world="auto") has dealt out the
    batches, and `device=accelerator.device` brings them there.

    Raises UsageError: the device is not there; dtype or memory_format is none that images, or kept numbers, can
    have; the weights.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        device: Any = None,
        dtype: Any = None,
        memory_format: Any = None,
        sample_weight: Weights | None = None,
    ) -> None:
        self.loader = loader
        self._weighing = None if sample_weight is None else Weighing(loader, sample_weight)
        self.device = None if device is None else _device(device)
        self.dtype = _dtype(dtype)
        if dtype is not None and not _holds(dtype, loader.dtype):
            raise UsageError(
                f"dtype is {dtype}, which can't hold all of {loader.dtype}, as x is kept; leave it out, or take "
                "a float that can, such as torch.float32"
            )
        self.memory_format = _memory_format(memory_format, axes=1 + len(loader.image_shape))
        self._share: _Share | None = None

    def __iter__(self) -> Iterator[Any]:
        if self.loader.world[1] > 1 and _is_dealt_out():
            raise UsageError(
                "this feed has its part of each batch already (world), and Accelerate would deal that out once more; "
                "pass the feed itself to prepare(), not a DataLoader of it"
            )
        info = torch.utils.data.get_worker_info()
        if info is not None:
            if self.device is not None and self.device.type != "cpu":
                raise UsageError(
                    f"device is {str(self.device)!r}, to which a process of a DataLoader can't bring batches; leave "
                    "out num_workers, as the loader has threads, or device, and move what the DataLoader gives"
                )
            return self._shared(info.id, info.num_workers)
        self._start = self.loader.due
        lane = lane_to(self.device)
        if lane is None:
            return map(self._here, iter(iter(self.loader).made, None))
        return self._ahead(lane, self.loader.iterate(), len(self) - self._start.batch)

    def _here(self, made: Made) -> Any:
        """A batch where nothing is ahead: on the CPU, or on a device that takes it in its turn."""
        images, beside = self._tensors(made)
        if self.device is not None:
            images, beside = each(lambda some: some.to(self.device), (images, beside))
        return element(self._formed(images), *beside)

    def _ahead(self, lane: Any, run: Iteration, left: int) -> Iterator[Any]:
        """The `left` batches of a run, of which one more than was asked for is on its way; what is asked for counts."""

        def send(_: int) -> _Sent:
            before, made = len(run.skipped), run.made()
            assert made is not None  # `left` are
            return _Sent(lane.send(self._tensors(made), self._formed), run.position, run.skipped[before:])

        process = os.getpid()
        sent = parallel.ordered(send, range(left), workers=1, ahead=1)
        try:
            for moved, position, bad in sent:
                images, beside = lane.take(moved)
                self.loader.deliver(position, bad)
                yield element(images, *beside)
                del images, beside, moved  # nothing here holds what the device is done with
                if os.getpid() != process:
                    raise UsageError("this iteration belongs to the process it was forked from; begin one here")
            if not len(self):
                self.loader.deliver(run.position, ())
        finally:
            sent.close()
            if os.getpid() == process:  # a thread of the parent's may be in the midst of it
                run.close()

    def _tensors(self, made: Made) -> tuple[Any, tuple[Any, Any]]:
        """Images, and what comes beside them: targets and weights."""
        batch = made.batch
        images = tensor(batch.images) if self.loader.view.keeps else channels_first(batch.images)
        weights = None if self._weighing is None else self._weighing.of(made)
        return images, (tensor(batch.targets), tensor(weights))

    def _formed(self, images: Any) -> Any:
        """Images, where they have arrived, as they were asked for."""
        if self.memory_format is not None:
            images = images.contiguous(memory_format=self.memory_format)
        return images if self.dtype is None else images.to(self.dtype)

    def _shared(self, worker: int, workers: int) -> Iterator[Any]:
        """What one of a DataLoader's processes makes of a pass."""
        share = self._share
        if share is None or not share.loaded:
            start = self.loader.due
            share = _Share(Position(start.epoch, start.batch + worker), (worker, workers))
        elif share.of != (worker, workers):
            raise UsageError(
                f"the state is that of process {share.of[0]} of {share.of[1]} of a DataLoader, and this is {worker} of "
                f"{workers}; pass num_workers={share.of[1]} again"
            )
        self._share = share._replace(loaded=False)
        # From now on, not from its end: of a pass that is left early some processes may have asked for all their share.
        self.loader.epoch = share.due.epoch + 1
        self.loader.hold("one process of a DataLoader can't say where the others stand; ask the feed in it for its own")
        return self._of_share(self._share)

    def _of_share(self, share: _Share) -> Iterator[Any]:
        (epoch, batch), (worker, workers) = share.due, share.of
        if batch < len(self):
            start = self.loader.state_of(Position(epoch, batch - worker))
            with self.loader.iterate(start, share=(worker, workers)) as run:
                for made in iter(run.made, None):
                    batch += workers
                    self._share = share._replace(due=Position(epoch, batch))
                    yield self._here(made)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands, JSON-able; in one of a DataLoader's processes, where it stands with its share."""
        if self._share is None:
            return self.loader.state_dict()
        return self.loader.state_of(self._share.due) | {"share": list(self._share.of)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass goes on where `state` was taken. Raises UsageError: it belongs to another loader, or to one of
        a DataLoader's processes, and this is none."""
        match state:
            case {"share": [int(worker), int(workers)], "epoch": int(epoch), "batch": int(batch)} if batch >= worker:
                if torch.utils.data.get_worker_info() is None:
                    raise UsageError(
                        f"the state is that of process {worker} of {workers} of a DataLoader, and this is none of its "
                        "processes; load what a StatefulDataLoader says into one"
                    )
                self.loader.load_state_dict(state | {"batch": 0})  # its own may be past the last
                self._share = _Share(Position(epoch, batch), (worker, workers), loaded=True)
            case {"share": share}:
                raise UsageError(f"the state's share {share!r:.40}, batch {state.get('batch')!r:.40} are out of range")
            case _:
                self.loader.load_state_dict(state)
                self._share = None


class _Share(NamedTuple):
    """What a process of a DataLoader has to do: of a pass the batch that is `due`, and each n-th after it; `of` = (k,
    n). `loaded`: the next pass of it goes on there."""

    due: Position
    of: tuple[int, int]
    loaded: bool = False


class _Sent(NamedTuple):
    """A batch on its way, where the run stands after it, and what was left out of it."""

    moved: Any
    position: Position
    bad: tuple[str, ...]


class Cuda:
    """The way of batches to one GPU: from pinned memory, on a stream of its own, beside what the GPU computes."""

    def __init__(self, device: Any) -> None:
        # The thread that sends has a current device of its own, which is the first one.
        self.device = device if device.index is not None else torch.device("cuda", torch.cuda.current_device())
        self.stream = torch.cuda.Stream(self.device)

    def send(self, tensors: Any, formed: Any) -> Any:
        """Sets (images, what comes beside them) off; `formed` is done to the images there. From any thread."""
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):  # else pinning would start the first GPU
            pinned = each(lambda some: some.pin_memory(), tensors)
            images, beside = each(lambda some: some.to(self.device, non_blocking=True), pinned)
            return (formed(images), beside), self.stream.record_event()

    def take(self, sent: Any) -> Any:
        """What was sent, for the stream that computes: it waits for it, and this process does not."""
        tensors, arrived = sent
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(arrived)
        # Its memory is of the stream that copies, and may be used again there only once what computes is done with it.
        each(lambda some: some.record_stream(computing), tensors)
        return tensors


def lane_to(device: Any) -> Cuda | None:
    """How batches go ahead to a device; None where each is brought there in its turn."""
    return Cuda(device) if device is not None and device.type == "cuda" else None


def _is_dealt_out() -> bool:
    """Whether a DataLoader that Accelerate has prepared is asking: it gives each process a part of what comes."""
    asker: FrameType | None = sys._getframe(2)
    while asker is not None and asker.f_globals.get("__name__") != "accelerate.data_loader":
        asker = asker.f_back
    return asker is not None


def element(images: Any, targets: Any, weights: Any = None) -> Any:
    if targets is None:
        return images
    return (images, targets) if weights is None else (images, targets, weights)


def each(function: Any, value: Any) -> Any:
    """`function` of each tensor of a tuple or dict of them, in the same."""
    if isinstance(value, tuple):
        return tuple(each(function, part) for part in value)
    if isinstance(value, dict):
        return {name: each(function, part) for name, part in value.items()}
    return None if value is None else function(value)


def channels_first(images: Any) -> Any:
    """Images uint8 [b, h, w, c] as [b, c, h, w] of the same memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def tensor(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return {name: tensor(part) for name, part in value.items()}
    return torch.from_numpy(np.ascontiguousarray(native(value)))


def _device(device: Any) -> Any:
    """A torch.device that is there. Raises UsageError."""
    try:
        found = torch.device(device)
        if found.type == "cuda":  # which is not started for this: a process that was forked later could not use it
            there = found.index is None or found.index < torch.cuda.device_count()
            there = there and torch.cuda.is_available()
        else:
            torch.empty(0, device=found)
            there = True
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        there = False
    if not there:
        raise UsageError(f"device is {str(device)!r:.60}, and there are {', '.join(_devices())}")
    return found


def _devices() -> list[str]:
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *mps, *(f"cuda:{i}" for i in gpus)]


def _dtype(dtype: Any) -> Any:
    """Raises UsageError."""
    if dtype is not None and not any(dtype is getattr(torch, name) for name in _DTYPES):
        raise UsageError(f"dtype is {dtype!r:.60}, wanted one of {', '.join(f'torch.{name}' for name in _DTYPES)}")
    return dtype


def _holds(dtype: Any, kept: np.dtype[Any]) -> bool:
    """Whether numbers of this type can become those of a `dtype`, rounded at most, and never others."""
    if kept.kind not in "iu":
        return kept.kind == "b" or (kept.kind == "f" and dtype.is_floating_point)
    most = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return bool(most.min <= np.iinfo(kept).min and np.iinfo(kept).max <= most.max)


def _memory_format(memory_format: Any, *, axes: int) -> Any:
    """Raises UsageError."""
    if memory_format is None:
        return None
    if not any(memory_format is getattr(torch, name) for name in _FORMATS):
        wanted = " or ".join(f"torch.{name}" for name in _FORMATS)
        raise UsageError(f"memory_format is {memory_format!r:.60}, wanted {wanted}")
    if memory_format is torch.channels_last and axes != 4:
        raise UsageError(f"memory_format is torch.channels_last, which is for 4 axes, and batches have {axes}")
    return memory_format
