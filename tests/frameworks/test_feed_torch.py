"""TorchFeed: the loader's batches as tensors, without a copy, and its state."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from headrace import feeds
from headrace.errors import UsageError
from headrace.load.facts import Facts
from headrace.load.iteration import Iteration
from headrace.load.targets import Labels
from packed import pack, photos, shades, threads, threads_left

torch = pytest.importorskip("torch")

N = 19


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("torch") / "ds", shards=2)


def test_what_comes(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, size=(6, 10)).to_torch()
    batches = list(feed)
    assert len(feed) == len(batches) == 5
    for images, targets in batches:
        b = len(targets)
        assert images.dtype == torch.uint8 and tuple(images.shape) == (b, 3, 6, 10) and images.device.type == "cpu"
        assert targets.dtype == torch.int64 and tuple(targets.shape) == (b,)
        assert images.is_contiguous(memory_format=torch.channels_last)
    assert sorted(int(image.max()) for images, _ in batches for image in images) == list(range(N))


def test_it_is_the_loaders_batch(ds: hr.Dataset) -> None:
    loader, other = ds.loader(batch_size=4), ds.loader(batch_size=4)
    for _ in range(2):
        for (images, targets), batch in zip(loader.to_torch(), other, strict=True):
            assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), batch.images)
            assert np.array_equal(targets.numpy(), batch.targets)


def test_nothing_is_copied(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ds.loader(batch_size=4)
    made = loader.made(0)
    batch = made.batch
    left = [None, made]
    monkeypatch.setattr(Iteration, "made", lambda self: left.pop())
    ((images, targets),) = loader.to_torch()
    assert images.data_ptr() == batch.images.ctypes.data and targets.data_ptr() == batch.targets.ctypes.data
    images[0, 0, 0, 0] = 77
    assert batch.images[0, 0, 0, 0] == 77


def test_weights_go_with_their_records(ds: hr.Dataset) -> None:
    """In a process of a DataLoader, too; and they come to the device with their batch."""
    weights = [int(id_) + 0.5 for id_ in ds.catalog["id"]]
    for options in ({}, {"device": "cpu"}):
        feed = ds.loader(batch_size=4, shuffle=True).to_torch(sample_weight=weights, **options)
        for batches in (feed, torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2)):
            seen = [
                (int(image.max()), float(weight))
                for images, _, weights in batches
                for image, weight in zip(images, weights, strict=True)
            ]
            assert sorted(seen) == [(k, k + 0.5) for k in range(N)]
            assert all(weights.dtype == torch.float32 for *_, weights in feed)
    with pytest.raises(UsageError, match="there are none; leave it out"):
        hr.ArrayDataset(np.zeros((4, 8, 8), np.uint8)).loader().to_torch(sample_weight=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("version", "said"), [("2.4.0", ""), ("2.13.0+cpu", ""), ("2.3.1", "2.3.1"), ("2.14.0", "2.14.0"), ("dev", "dev")]
)
def test_a_version_of_another_time_is_said(version: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    feeds.warn_untested("torch", version, (2, 4), (2, 13), "look")
    assert caplog.messages == [f"torch is {said}, and this feed is for 2.4 to 2.13; look"] * bool(said)


def test_grey(tmp_path: Path) -> None:
    ds = pack(photos(5, grey=range(10)), tmp_path / "grey")
    ((images, _),) = ds.loader(size=(6, 10)).to_torch()
    assert tuple(images.shape) == (5, 1, 6, 10)


def test_images_alone(tmp_path: Path) -> None:
    ds = pack(shades(3, classes=()), tmp_path / "none")
    (images,) = ds.loader().to_torch()
    assert isinstance(images, torch.Tensor) and tuple(images.shape) == (3, 3, 8, 8)


def test_dict_targets(tmp_path: Path) -> None:
    ds = pack(photos(6, boxes=True), tmp_path / "boxed")
    ((_, targets),) = ds.loader(size=8).to_torch()
    kinds = {name: (value.dtype, tuple(value.shape)) for name, value in targets.items()}
    assert kinds == {
        "boxes": (torch.float32, (6, 100, 4)),
        "labels": (torch.int64, (6, 100)),
        "mask": (torch.bool, (6, 100)),
    }


def test_a_target_in_no_plain_layout(ds: hr.Dataset) -> None:
    class Backwards(hr.Target):
        wants_boxes = False
        wants_keypoints = False

        def check(self, facts: Facts) -> None:
            pass

        def encode(self, labels: Labels) -> Any:
            return labels.classes[::-1]

    ((_, targets),) = ds.loader(batch_size=N, target=Backwards(), shuffle=False).to_torch()
    assert targets.tolist() == ds.labels[::-1].tolist()


def test_cross_entropy_takes_it(ds: hr.Dataset) -> None:
    images, targets = next(iter(ds.loader(batch_size=4).to_torch()))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 8), torch.nn.Flatten())
    loss = torch.nn.functional.cross_entropy(model(images.float()), targets)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("k", range(6))
def test_resume_at_every_batch(ds: hr.Dataset, k: int) -> None:
    def run(feed: Any) -> list[Any]:
        return [images[:, 0, 0, 0].tolist() for images, _ in feed]

    whole = ds.loader(batch_size=4).to_torch()
    epochs = [run(whole), run(whole)]
    feed, resumed = (ds.loader(batch_size=4, workers=3).to_torch() for _ in range(2))
    run(itertools.islice(feed, k))
    state = feed.state_dict()
    assert state == feed.loader.state_dict()
    resumed.load_state_dict(state)
    assert run(resumed) == (epochs[0][k:] or epochs[1])


def test_leaving_early_leaves_no_thread(ds: hr.Dataset) -> None:
    before = threads()
    for _ in ds.loader(batch_size=2, workers=4).to_torch():
        break
    assert not threads_left(before)


def test_it_is_sent_with_its_position(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4).to_torch()
    for _ in zip(range(2), feed, strict=False):
        pass
    other = pickle.loads(pickle.dumps(feed))
    assert other.state_dict() == feed.state_dict()
    for some in (feed, other):
        some.load_state_dict(some.state_dict())
    assert all(torch.equal(one, two) for (one, _), (two, _) in zip(feed, other, strict=True))


def test_a_peek_takes_nothing(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4).to_torch()
    feed.load_state_dict(feed.state_dict() | {"batch": 3})
    iter(feed)
    assert len(list(feed)) == 2


def test_it_tells_what_predictions_are_of(ds: hr.Dataset) -> None:
    for options in ({}, {"shuffle": False}, {"world": (1, 2)}):
        feed = ds.loader(batch_size=4, drop_last=True, **options).to_torch()
        feed.load_state_dict(feed.state_dict() | {"batch": 2})
        before = feed.ids
        for k in range(3):
            found = [int(image.max()) for images, _ in feed for image in images]
            assert found == [int(id_) for id_ in feed.ids]
            assert len(found) == (2 if k == 0 else 4) * (2 if "world" in options else 4)
            assert k or feed.ids == before


# --- in a DataLoader's own processes ---------------------------------------------------------------------------------


def numbers(batches: Any) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


def passes(ds: hr.Dataset, epochs: int, **options: Any) -> list[list[list[int]]]:
    loader = ds.loader(**{"batch_size": 4} | options)
    return [[[int(id_) for id_ in batch.ids] for batch in loader] for _ in range(epochs)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than this machine has cores
@pytest.mark.parametrize("workers", [0, 1, 2, 3, 7])
def test_a_dataloader_gives_each_batch_once_and_in_order(ds: hr.Dataset, workers: int) -> None:
    feed = ds.loader(batch_size=4, workers=2).to_torch()
    given = torch.utils.data.DataLoader(feed, batch_size=None, num_workers=workers)
    assert len(given) == 5
    for epoch, wanted in enumerate(passes(ds, 3)):
        feed.set_epoch(epoch)
        assert numbers(given) == wanted
    feed.load_state_dict(feed.state_dict() | {"epoch": 0, "batch": 3})
    assert numbers(given) == passes(ds, 1)[0][3:]


@pytest.mark.parametrize("start", [0, 4])
def test_processes_that_persist_go_on_to_the_next_epoch(ds: hr.Dataset, start: int) -> None:
    feed = ds.loader(batch_size=4, workers=2).to_torch()
    feed.load_state_dict(feed.state_dict() | {"batch": start})
    given = torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2, persistent_workers=True)
    first, *others = passes(ds, 3)
    assert [numbers(given) for _ in range(3)] == [first[start:], *others]


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_processes_that_persist_are_of_one_epoch_after_a_break(ds: hr.Dataset, taken: int) -> None:
    # A process that was asked for more than its share by then must not be an epoch ahead of the other.
    feed = ds.loader(batch_size=4, workers=2).to_torch()
    given = torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2, persistent_workers=True)
    first, *others = passes(ds, 3)
    assert numbers(itertools.islice(iter(given), taken)) == first[:taken]
    assert [numbers(given) for _ in range(2)] == others


def test_spawned_processes_share_it_as_well(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4, augment=(hr.HorizontalFlip(),)).to_torch()
    given = torch.utils.data.DataLoader(feed, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert numbers(given) == passes(ds, 1)[0]


class Told(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
    """What loader and feed say of where they stand, at each batch that a process of a DataLoader makes."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed

    def __iter__(self) -> Any:
        for _ in self.feed:
            try:
                self.feed.loader.state_dict()
            except hr.UsageError as error:
                yield str(error), self.feed.state_dict()


def test_one_process_says_where_it_stands_and_not_where_all_do(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4).to_torch()
    said = list(torch.utils.data.DataLoader(Told(feed), batch_size=None, num_workers=2))
    assert len(said) == 5 and all("one process of a DataLoader can't say" in text for text, _ in said)
    assert [(state["epoch"], state["batch"], state["share"]) for _, state in said] == [
        (0, 2, [0, 2]),
        (0, 3, [1, 2]),
        (0, 4, [0, 2]),
        (0, 5, [1, 2]),
        (0, 6, [0, 2]),
    ]
    with pytest.raises(hr.UsageError, match="that of process 1 of 2 of a DataLoader, and this is none of its"):
        feed.load_state_dict(said[1][1])
    assert feed.state_dict() == ds.loader(batch_size=4).state_dict()


def test_set_epoch_leaves_what_was_loaded_of_that_epoch(ds: hr.Dataset) -> None:
    feed = ds.loader(batch_size=4).to_torch()
    first, second, third = passes(ds, 3)
    for _ in zip(range(2), feed, strict=False):
        pass
    state = feed.state_dict()
    assert feed.epoch == 1  # a pass that was left is over
    for epoch, wanted in ((0, first[2:]), (1, second), (2, third)):
        feed.load_state_dict(state)
        assert feed.epoch == 0
        feed.set_epoch(epoch)
        assert feed.epoch == epoch and numbers(feed) == wanted
    for epoch, wanted in ((0, first), (0, first), (2, third)):  # again, and out of their order
        feed.set_epoch(epoch)
        assert numbers(feed) == wanted
    for _ in zip(range(2), feed, strict=False):
        pass
    feed.set_epoch(3)  # left at its second batch, it begins anew
    assert feed.state_dict()["batch"] == 0
    feed.set_epoch(0)
    assert numbers(feed) == first


# Each feed, and what blocks it: the error is an ImportError of one line that says what to install.
MISSING = [("to_torch", "torch", "torch"), ("to_tf", "tensorflow", "tensorflow"), ("to_keras", "keras", "tensorflow")]


@pytest.mark.parametrize(("feed", "module", "extra"), MISSING)
def test_a_missing_framework_is_named_with_the_install_line(ds: hr.Dataset, feed: str, module: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{module!r}] = None  # as if it were not installed
import headrace as hr
loader = hr.Dataset(sys.argv[1]).loader(batch_size=4)
assert sum(len(batch.ids) for batch in loader) == {N}  # which needs no framework
try:
    loader.{feed}()
except ImportError as error:
    assert isinstance(error, hr.MissingExtraError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(ds.path)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{module} is not installed (") and done.stdout.count("\n") == 1, done.stderr
    assert done.stdout.endswith(f"pip install 'headrace[{extra}]'\n")
