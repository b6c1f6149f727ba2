"""TorchDataset: single records for torch's samplers and DataLoaders, with the pixels that a loader would give."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from packed import flip, pack, photos, shades, shard_of

torch = pytest.importorskip("torch")

from torch.utils import data  # noqa: E402  # which needs it

N = 19


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(shades(N), tmp_path_factory.mktemp("torch") / "ds", shards=2)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return pack(photos(30, boxes=True, grey=[3]), tmp_path_factory.mktemp("torch") / "boxed", shards=2)


def speckled(pixels: Any, boxes: Any, points: Any, rng: np.random.Generator) -> Any:
    """A transform of one's own, which must be as random here as it is in a loader."""
    pixels[rng.random(pixels.shape[:2]) < 0.1] = rng.integers(256)
    return pixels, boxes, points


def halves(image: Any) -> Any:
    return image.float() / 2


def number(image: Any) -> int:
    return int(image[0, 0, 0])


def joined(batches: Any) -> list[int]:
    return [number for batch in told(batches) for number in batch]


def numbers(ds: hr.Dataset) -> list[int]:
    return [int(record.id) for record in ds]


def test_an_item(ds: hr.Dataset) -> None:
    items = ds.to_torch_dataset(size=(6, 10))
    assert isinstance(items, data.Dataset) and len(items) == N
    image, target = items[3]
    assert image.dtype == torch.uint8 and tuple(image.shape) == (3, 6, 10)
    assert target.dtype == torch.int64 and tuple(target.shape) == () and int(target) == ds.labels[3]
    assert number(image) == numbers(ds)[3]


def test_numbers_of_all_kinds(ds: hr.Dataset) -> None:
    items, wanted = ds.to_torch_dataset(), numbers(ds)
    for i in (0, N - 1, -1, -N, np.int64(4), torch.tensor(4)):
        assert number(items[i][0]) == wanted[int(i)]
    for i in (N, -N - 1, 10**20):
        with pytest.raises(IndexError, match=f"record {i} of {N}"):
            items[i]
    for wrong in ("0", 1.0, slice(3), None):
        with pytest.raises(TypeError):
            items[wrong]  # type: ignore[index]
    assert items.__getitems__([]) == []
    assert [number(image) for image, _ in items] == wanted  # a for ends with an IndexError


@pytest.mark.parametrize("augment", [(), (hr.RandomResizedCrop(), hr.HorizontalFlip(), speckled)])
def test_pixels_and_targets_are_those_of_a_loader(boxed: hr.Dataset, augment: Any) -> None:
    options: dict[str, Any] = {"size": (24, 20), "seed": 5, "augment": augment}
    loader, items = boxed.loader(batch_size=7, **options), boxed.to_torch_dataset(**options)
    where = {id_: i for i, id_ in enumerate(record.id for record in boxed)}
    for epoch in (0, 3):
        loader.epoch = epoch
        items.set_epoch(epoch)
        for batch in loader.iterate():
            chosen = [where[id_] for id_ in batch.ids]
            for k, item in enumerate(items.__getitems__(chosen)):
                for image, target in (item, items[chosen[k]]):
                    assert np.array_equal(image.permute(1, 2, 0).numpy(), batch.images[k])
                    assert target.keys() == batch.targets.keys()
                    assert all(np.array_equal(target[name], batch.targets[name][k]) for name in target)


def test_many_are_decoded_by_all_threads(tmp_path: Path) -> None:
    ds = pack(shades(64, side=4), tmp_path / "ds")
    items = ds.to_torch_dataset(size=256, workers=3)
    chosen = [*range(64), *range(64), 5, 5]
    got = items.__getitems__(chosen)
    assert items.loader._shares_of(len(chosen)) > 8
    wanted = numbers(ds)
    assert [number(image) for image, _ in got] == [wanted[i] for i in chosen]
    assert [int(target) for _, target in got] == ds.labels[chosen].tolist()


def test_images_alone_and_kept_arrays(tmp_path: Path) -> None:
    alone = pack(shades(3, classes=()), tmp_path / "none").to_torch_dataset()
    assert isinstance(alone[0], torch.Tensor)
    x, y = np.random.default_rng(0).normal(size=(6, 2, 5)), np.arange(6, dtype=np.float32)
    items = hr.ArrayDataset(x, y, dtype="keep").to_torch_dataset()
    for i, (values, target) in enumerate(items.__getitems__([4, 0])):
        assert np.array_equal(values, x[[4, 0][i]]) and float(target) == [4, 0][i]


def test_a_transform_is_given_each_image(ds: hr.Dataset) -> None:
    items = ds.to_torch_dataset(transform=halves)
    (image, target), wanted = items[7], numbers(ds)[7]
    assert image.dtype == torch.float32 and float(image.max()) == wanted / 2 and target == ds.labels[7]


def test_a_view_and_a_cache(ds: hr.Dataset) -> None:
    view = ds.where("label_name = 'bee'")
    items = view.to_torch_dataset(cache="memory")
    assert len(items) == len(view) < N
    for _ in range(2):
        assert [number(image) for image, _ in items] == numbers(view)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"shuffle": True}, {"world": (0, 2)}, {"on_bad": "skip"}])
def test_what_a_sampler_does_is_no_option(ds: hr.Dataset, options: dict[str, Any]) -> None:
    with pytest.raises(hr.UsageError, match=rf"to_torch_dataset\(\) has no {next(iter(options))}"):
        ds.to_torch_dataset(**options)


def test_damage_is_told_with_its_address(tmp_path: Path) -> None:
    ds = pack(photos(6), tmp_path / "ds")
    path, _, offset, length = shard_of(ds, 2)
    flip(path, offset + 12 + length // 2)
    items = hr.Dataset(ds.path).to_torch_dataset(size=8)
    items[1]
    for read in (lambda: items[2], lambda: items.__getitems__([1, 2, 3])):
        with pytest.raises(hr.DamageError, match=path.name):
            read()


# --- torch's samplers and DataLoaders --------------------------------------------------------------------------------


def told(batches: Any) -> list[list[int]]:
    return [images[:, 0, 0, 0].tolist() for images, _ in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_shuffles_it(ds: hr.Dataset, workers: int) -> None:
    items = ds.to_torch_dataset()
    given = data.DataLoader(items, batch_size=4, shuffle=True, num_workers=workers)
    assert [len(batch) for batch in told(given)] == [4, 4, 4, 4, 3]
    epochs = [joined(given) for _ in range(2)]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == sorted(numbers(ds))
    ((images, targets),) = data.DataLoader(items, batch_size=N)
    assert tuple(images.shape) == (N, 3, 8, 8) and targets.tolist() == ds.labels.tolist()


def test_forked_and_spawned_processes_make_the_same_pixels(boxed: hr.Dataset) -> None:
    items = boxed.to_torch_dataset(size=16, augment=(hr.HorizontalFlip(), hr.ColorJitter()))
    items.set_epoch(2)
    wanted = list(data.DataLoader(items, batch_size=8))
    for context, workers in (("fork", 2), ("spawn", 1)):  # each that is spawned imports torch
        given = list(data.DataLoader(items, batch_size=8, num_workers=workers, multiprocessing_context=context))
        for (images, targets), (others, other_targets) in zip(given, wanted, strict=True):
            assert torch.equal(images, others)
            assert all(torch.equal(targets[name], other_targets[name]) for name in other_targets)
    items.set_epoch(3)
    assert not torch.equal(next(iter(data.DataLoader(items, batch_size=8)))[0], wanted[0][0])


def test_samplers(ds: hr.Dataset) -> None:
    items, all_ = ds.to_torch_dataset(), numbers(ds)
    weights = (ds.labels == 1).astype(np.float64)
    sampler = data.WeightedRandomSampler(torch.from_numpy(weights), num_samples=40)
    (drawn,) = told(data.DataLoader(items, batch_size=40, sampler=sampler))
    assert len(drawn) == 40 and {n % 3 for n in drawn} == {1}
    parts = [data.DistributedSampler(items, num_replicas=2, rank=rank, drop_last=True) for rank in range(2)]
    for epoch in range(2):
        for part in parts:
            part.set_epoch(epoch)
        got = [joined(data.DataLoader(items, batch_size=4, sampler=part)) for part in parts]
        assert len(got[0]) == len(got[1]) == N // 2 and len({*got[0], *got[1]}) == N - 1
    batches = [[0, 5], [7], [-1, 2, 2]]
    assert told(data.DataLoader(items, batch_sampler=batches)) == [[all_[i] for i in batch] for batch in batches]
    (some,) = told(data.DataLoader(data.Subset(items, [3, 1]), batch_size=2))
    assert some == [all_[3], all_[1]]
    assert len(data.ConcatDataset([items, items])) == 2 * N


def test_it_is_sent_with_its_epoch(ds: hr.Dataset) -> None:
    items = ds.to_torch_dataset(transform=halves)
    items.set_epoch(4)
    copy = pickle.loads(pickle.dumps(items))
    assert copy.loader.epoch == 4 and torch.equal(copy[2][0], items[2][0])
