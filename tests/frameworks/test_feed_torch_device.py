"""TorchFeed on its way to a device: types and layouts, what is refused, and batches that are ahead.

No GPU is asked for: a way of our own stands in for it, and of CUDA's the order of the calls is looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace.load.iteration import Iteration
from packed import flip, pack, photos, shades, shard_of, threads, threads_left

torch = pytest.importorskip("torch")

from headrace.feeds import torch as feeds_torch  # noqa: E402  # which needs it

N = 19


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("device") / "ds", shards=2)


def numbers(batches: Any) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


# --- type and layout -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("memory_format", [None, "channels_last", "contiguous_format"])
def test_values_stay_and_the_layout_is_that_asked_for(tmp_path: Path, name: str, memory_format: str | None) -> None:
    records = [*shades(1), *(record for k, record in enumerate(shades(256)) if k in (1, 127, 128, 254, 255))]
    ds = pack(records, tmp_path / "ds")
    options = {"memory_format": memory_format and getattr(torch, memory_format), "dtype": getattr(torch, name)}
    feed = ds.loader(size=(6, 10), shuffle=False).to_torch(device="cpu", **options)
    ids = feed.ids
    ((images, targets),) = feed
    assert images.dtype == getattr(torch, name) and tuple(images.shape) == (6, 3, 6, 10)
    assert images.is_contiguous(memory_format=getattr(torch, memory_format or "channels_last"))
    assert images.is_contiguous() == (memory_format == "contiguous_format")
    assert images[:, 1, 2, 3].double().tolist() == [int(id_) for id_ in ids]
    assert targets.dtype == torch.int64


def test_kept_arrays_are_converted_as_well() -> None:
    x, y = np.linspace(-1, 1, 5 * 4, dtype=np.float64).reshape(5, 4), np.arange(5)
    loader = hr.ArrayDataset(x, y, dtype="keep").loader(shuffle=False)
    ((images, _),) = loader.to_torch(dtype=torch.float32)
    assert images.dtype == torch.float32 and np.array_equal(images.numpy(), loader[0].images.astype(np.float32))
    with pytest.raises(hr.UsageError, match=r"torch\.channels_last, which is for 4 axes, and batches have 2"):
        loader.to_torch(memory_format=torch.channels_last)


# (type that is kept, type that is asked for, whether each number comes as itself, rounded at most)
HELD = [
    ("uint16", "int16", False),  # 40000 would be -25536
    ("int16", "uint8", False),
    ("uint16", "float16", False),  # which ends at 65504
    ("int32", "float16", False),
    ("float32", "int32", False),
    ("complex64", "float32", False),
    ("uint16", "int32", True),
    ("int8", "int16", True),
    ("int16", "float16", True),
    ("int64", "float32", True),
    (">u2", "float32", True),
    ("bool", "uint8", True),
    ("float64", "float16", True),
]


@pytest.mark.parametrize(("kept", "asked", "held"), HELD)
def test_kept_numbers_never_become_others(kept: str, asked: str, held: bool) -> None:
    x = np.zeros((4, 3), kept)
    loader = hr.ArrayDataset(x, list("abab"), dtype="keep").loader(shuffle=False)
    if held:
        ((images, _),) = loader.to_torch(dtype=getattr(torch, asked))
        assert images.dtype == getattr(torch, asked)
    else:
        with pytest.raises(hr.UsageError, match=f"dtype is torch.{asked}, which can't hold all of {kept}, as x is"):
            loader.to_torch(dtype=getattr(torch, asked))


REFUSED = [
    ({"device": "cuda:77"}, "device is 'cuda:77', and there are cpu"),
    ({"device": "gpu"}, "device is 'gpu', and there are cpu"),
    ({"device": "xpu"}, "device is 'xpu', and there are cpu"),
    ({"device": 3.5}, "device is '3.5', and there are cpu"),
    ({"dtype": "float32"}, "dtype is 'float32', wanted one of torch.uint8, torch.int16"),
    ({"dtype": np.float32}, "dtype is <class 'numpy.float32'>, wanted one of"),
    ({"dtype": torch.bool}, "dtype is torch.bool, wanted one of"),
    ({"dtype": torch.complex64}, "dtype is torch.complex64, wanted one of"),
    ({"dtype": torch.int8}, "dtype is torch.int8, wanted one of"),  # which ends at 127
    ({"memory_format": "channels_last"}, "memory_format is 'channels_last', wanted torch.channels_last or"),
    ({"memory_format": torch.preserve_format}, "memory_format is torch.preserve_format, wanted torch.channels_last or"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED)
def test_what_can_not_be(ds: hr.Dataset, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(hr.UsageError) as raised:
        ds.loader().to_torch(**options)
    assert reason in str(raised.value)


def test_a_gpu_that_is_not_there(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(hr.UsageError, match=r"device is 'cuda', and there are cpu\b"):
        ds.loader().to_torch(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(hr.UsageError, match=r"device is 'cuda:2', and there are cpu, .*cuda:0, cuda:1$"):
        ds.loader().to_torch(device=torch.device("cuda", 2))
    assert ds.loader().to_torch(device="cuda").device == torch.device("cuda")


def test_processes_of_a_dataloader_make_no_device(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = ds.loader(batch_size=4).to_torch(device="cpu", dtype=torch.float32)
    for images, _ in torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2):
        assert images.dtype == torch.float32
    feed.device = torch.device("cuda", 0)  # as if there were one
    monkeypatch.setattr(torch.utils.data, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    with pytest.raises(hr.UsageError, match="device is 'cuda:0', to which a process of a DataLoader can't bring"):
        iter(feed)


# --- batches that are ahead ------------------------------------------------------------------------------------------


class Lane:
    """The way to a device that is none; it tells when each batch has set off, and from which thread."""

    def __init__(self) -> None:
        self.sent = [threading.Event() for _ in range(2 * N)]  # made before there is a second thread
        self.moved, self.taken, self.threads = 0, 0, set[str]()

    def send(self, tensors: Any, formed: Any) -> Any:
        images, beside = tensors
        self.threads.add(threading.current_thread().name)
        moved = formed(images.clone()), feeds_torch.each(torch.clone, beside)
        self.sent[self.moved % len(self.sent)].set()
        self.moved += 1
        return moved

    def take(self, sent: Any) -> Any:
        self.taken += 1
        return sent


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    lane = Lane()
    monkeypatch.setattr(feeds_torch, "lane_to", lambda device: lane)
    return lane


def test_one_batch_is_ahead_and_what_was_delivered_counts(ds: hr.Dataset, lane: Lane) -> None:
    loader = ds.loader(batch_size=4)
    feed, plain = loader.to_torch(dtype=torch.int64), ds.loader(batch_size=4)
    ids = feed.ids
    for k, ((images, _), batch) in enumerate(zip(feed, plain, strict=True)):
        if k < 4:
            assert lane.sent[k + 1].wait(timeout=300)  # while this one is used
        assert not lane.sent[k + 2].is_set()
        assert images[:, 0, 0, 0].tolist() == [int(id_) for id_ in batch.ids]
        assert feed.state_dict() == loader.state_dict() == plain.state_dict()
    assert lane.taken == 5 and threading.current_thread().name not in lane.threads
    assert (loader.epoch == feed.epoch == 1 and ids == plain.ids(None)) or ids


@pytest.mark.parametrize("k", range(6))
def test_it_resumes_at_every_batch(ds: hr.Dataset, lane: Lane, k: int) -> None:
    plain = ds.loader(batch_size=4).to_torch()
    epochs = [numbers(plain), numbers(plain)]
    feed, resumed = (ds.loader(batch_size=4, workers=3).to_torch() for _ in range(2))
    iter(feed)  # a peek takes nothing
    assert numbers(itertools.islice(feed, k)) == epochs[0][:k]
    resumed.load_state_dict(feed.state_dict())
    assert numbers(resumed) == (epochs[0][k:] or epochs[1])


def test_weights_are_ahead_with_their_batch(ds: hr.Dataset, lane: Lane) -> None:
    weights = np.zeros(N)
    for row, id_ in enumerate(ds.catalog["id"]):
        weights[row] = int(id_) + 0.5
    for images, _, some in ds.loader(batch_size=4, shuffle=True).to_torch(sample_weight=weights):
        assert some.tolist() == [shade + 0.5 for shade in images[:, 0, 0, 0].tolist()]
    assert lane.taken == 5


def test_an_epoch_of_no_batches_ends(ds: hr.Dataset, lane: Lane) -> None:
    feed = ds.loader(batch_size=N + 1, drop_last=True).to_torch()
    assert [(list(feed), feed.epoch) for _ in range(2)] == [([], 1), ([], 2)]


def test_leaving_it_leaves_no_thread(ds: hr.Dataset, lane: Lane) -> None:
    before = threads()
    feed = ds.loader(batch_size=2, workers=4).to_torch()
    for _ in feed:
        break
    assert feed.state_dict()["batch"] == 1 and feed.epoch == 1
    del feed
    assert not threads_left(before)


def test_a_damaged_record_comes_in_its_turn(tmp_path: Path, lane: Lane) -> None:
    ds = pack(photos(12), tmp_path / "ds")
    path, _, offset, length = shard_of(ds, 5)
    flip(path, offset + 12 + length // 2)
    ds = hr.Dataset(tmp_path / "ds")
    options: dict[str, Any] = {"batch_size": 2, "size": 8, "shuffle": False}
    feed = ds.loader(**options).to_torch()
    got = iter(feed)
    next(got), next(got)
    with pytest.raises(hr.DamageError, match="record"):
        next(got)
    assert feed.state_dict()["batch"] == 2
    loader = ds.loader(**options, on_bad="skip")
    sizes = []
    for images, _ in loader.to_torch():
        sizes.append(len(images))
        assert len(loader.skipped) == (1 if len(sizes) > 2 else 0)  # not those ahead
    assert sizes == [2, 2, 1, 2, 2, 2]


def test_a_forked_child_does_not_go_on_with_it(ds: hr.Dataset, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = {int(id_) for id_ in ds.loader(batch_size=4)[1].ids}
    asked, goes_on = [threading.Event(), threading.Event()], threading.Event()
    after = Iteration.made

    def blocking(pixels: Any, boxes: Any, points: Any, rng: Any) -> Any:
        if int(pixels[0, 0, 0]) in blocked:
            assert goes_on.wait(timeout=600)
        return pixels, boxes, points

    def telling(run: Iteration) -> Any:
        next((event for event in asked if not event.is_set()), asked[-1]).set()
        return after(run)

    monkeypatch.setattr(Iteration, "made", telling)
    feed = ds.loader(batch_size=4, augment=blocking).to_torch()
    got = iter(feed)
    next(got)
    assert asked[1].wait(timeout=600)  # the thread that sends is in the midst of the run when the process is forked
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def child() -> None:
        blocked.clear()
        try:
            next(got)
        except hr.UsageError as error:
            there.send(str(error))
        there.send(numbers(feed))

    process = context.Process(target=child)
    process.start()
    there.close()  # so that a child that died is an end of file
    assert "belongs to the process it was forked from" in here.recv()
    assert len(here.recv()) == 5  # a pass of its own
    process.join()
    goes_on.set()
    assert len(list(got)) == 4


# --- CUDA's calls, in their order ------------------------------------------------------------------------------------


def test_copies_are_pinned_apart_from_what_computes_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    on: list[str] = ["computing"]

    class Stream:
        def __init__(self, name: Any = "copying") -> None:
            self.name = name if isinstance(name, str) else "copying"

        def record_event(self) -> str:
            said.append(("arrived", self.name))
            return "event"

        def wait_event(self, event: str) -> None:
            said.append(("wait", self.name, event))

    @contextlib.contextmanager
    def stream(some: Stream) -> Iterator[None]:
        on.append(some.name)
        yield
        on.pop()

    to = torch.Tensor.to

    def moving(self: Any, *args: Any, **kwargs: Any) -> Any:
        said.append(("to", on[-1], self.dtype, args[0] if isinstance(args[0], torch.dtype) else kwargs))
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (said.append(("pin", self.dtype)), self)[1])
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, to: said.append(("keep", self.dtype, to.name)))
    monkeypatch.setattr(torch.Tensor, "to", moving)
    monkeypatch.setattr(feeds_torch, "lane_to", lambda device: feeds_torch.Cuda(torch.device("cpu", 0)))

    feed = pack(photos(6, boxes=True), tmp_path / "boxed").loader(size=8).to_torch(dtype=torch.float16)
    ((images, targets),) = feed
    assert images.dtype == torch.float16 and set(targets) == {"boxes", "labels", "mask"}
    types = [torch.uint8, torch.float32, torch.int64, torch.bool]
    assert (
        said
        == [
            *(("pin", dtype) for dtype in types),
            *(("to", "copying", dtype, {"non_blocking": True}) for dtype in types),
            ("to", "copying", torch.uint8, torch.float16),  # where it has arrived
            ("arrived", "copying"),
            ("wait", "computing", "event"),
            *(("keep", dtype, "computing") for dtype in [torch.float16, *types[1:]]),
        ]
    )
