"""Sampling: how often records come under weights, and epochs of any length; that it can be repeated and resumed."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headrace as hr
from headrace import order
from headrace.errors import UsageError
from headrace.load.loader import Loader
from headrace.load.sampling import Sampling
from packed import pack, shades

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "sampling.json").read_text())


def arrays(labels: Any, *, side: int = 1) -> hr.ArrayDataset:
    """An image of one pixel for each label; the id of image k is k."""
    labels = np.asarray(labels)
    names = [f"class {k}" for k in range(int(labels.max(initial=0)) + 1)]
    return hr.ArrayDataset(np.zeros((len(labels), side, side), np.uint8), labels, class_names=names)


# One in a hundred is rare.
N = 2000
LABELS = (np.arange(N) % 100 != 0).astype(np.int64)


@pytest.fixture(scope="module")
def rare() -> hr.ArrayDataset:
    """1:99, 20 of class 0 and 1980 of class 1."""
    return arrays(LABELS)


def epoch(loader: Loader) -> NDArray[np.int64]:
    """The numbers of the records of an epoch, which loader moves on from."""
    found = np.array([int(id_) for id_ in loader.ids()], np.int64)
    loader.epoch += 1
    return found


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [32, 50])
@pytest.mark.parametrize(("spec", "share"), [("balanced", 0.5), ({"class 0": 11}, 1 / 10), ({"class 1": 0}, 1)])
def test_an_epoch_has_its_share_of_each_class(rare: hr.ArrayDataset, spec: Any, share: float, batch_size: int) -> None:
    loader = rare.loader(batch_size=batch_size, weights=spec)
    total = np.zeros(N)
    for number in range(20):
        numbers = epoch(loader)
        assert len(numbers) == N and abs((LABELS[numbers] == 0).sum() - share * N) <= 1
        counts = np.bincount(numbers, minlength=N)
        for label, part in ((0, share), (1, 1 - share)):
            wanted = part * N / (label == LABELS).sum()
            assert {*counts[label == LABELS].tolist()} <= {np.floor(wanted), np.ceil(wanted)}
        total += counts
        # And all epochs together nearly as exactly: nobody is left out for long, or favoured.
        rate = share * N / 20 if share < 1 else N / 20
        assert np.abs(total[LABELS == 0] - (number + 1) * rate).max() < 2
        assert np.abs(total[LABELS == 1] - (number + 1) * (1 - share) * N / 1980).max() < 2


def test_the_loader_says_how_long_it_takes(rare: hr.ArrayDataset) -> None:
    """1:99 balanced: every common record within 4 epochs, of which half of them are in each."""
    loader = rare.loader(weights="balanced")
    seen = set(np.concatenate([epoch(loader) for _ in range(3)]).tolist())
    assert len(seen) == N


@pytest.mark.parametrize("ranks", range(1, 9))
def test_any_rank_goes_on_at_any_batch(rare: hr.ArrayDataset, ranks: int) -> None:
    """1:99 balanced, stopped after each batch by any number of ranks, and gone on with by any other."""
    options: dict[str, Any] = {"batch_size": 50, "weights": "balanced", "seed": 3}
    whole = rare.loader(**options)
    epochs = [[batch.ids for batch in whole] for _ in range(2)]
    parts = [rare.loader(**options, world=(rank, ranks)) for rank in range(ranks)]
    taken: list[list[tuple[str, ...]]] = [[] for _ in range(ranks)]
    runs = [iter(part) for part in parts]
    for k in range(len(whole)):
        state = json.loads(json.dumps(parts[k % ranks].state_dict()))
        assert all(part.state_dict() == state for part in parts)
        for rank, run in enumerate(runs):
            taken[rank].append(next(run).ids)
        other = rare.loader(**options, world=(k % 3, 3))
        with other.iterate(state) as rest:
            low, high = 50 * (k % 3) // 3, 50 * (k % 3 + 1) // 3
            assert next(rest).ids == epochs[0][k][low:high]
    assert [tuple(id_ for ids in batch for id_ in ids) for batch in zip(*taken, strict=True)] == epochs[0]
    assert parts[0].state_dict() == {**state, "epoch": 1, "batch": 0}


def test_batches_are_mixed(rare: hr.ArrayDataset) -> None:
    """Batches share out classes as drawing without looking would, and none of them like another."""
    loader = rare.loader(batch_size=50, weights="balanced")
    counts = [int((batch.targets == 0).sum()) for batch in loader]
    assert 2.4 < np.std(counts) < 4.8 and min(counts) > 10  # 3.5 by chance
    numbers = epoch(loader)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.08
    assert sorted(epoch(loader).tolist()) != sorted(numbers.tolist())


def test_equal_weights_are_each_record_once(rare: hr.ArrayDataset) -> None:
    plain = rare.loader(seed=5)
    for spec in ({}, {"class 0": 3, "class 1": 3}, [0.1] * N):
        loader = rare.loader(seed=5, weights=spec)
        for number in range(2):
            plain.epoch = loader.epoch = number
            assert loader.ids() == plain.ids()
        loader.load_state_dict(plain.state_dict())


def test_what_weighs_nothing_never_comes() -> None:
    ds = arrays([0, 1, 2] * 10)
    loader = ds.loader(weights={"class 1": 0}, batch_size=7)
    for _ in range(4):
        counts = Counter(epoch(loader) % 3)
        assert counts == {0: 15, 2: 15}


def test_a_weight_for_each_record(rare: hr.ArrayDataset) -> None:
    weights = np.random.default_rng(0).random(N) ** 4
    loader = rare.loader(weights=weights)
    wanted, total = N * weights / weights.sum(), np.zeros(N)
    for number in range(30):
        counts = np.bincount(epoch(loader), minlength=N)
        assert ((counts == np.floor(wanted)) | (counts == np.ceil(wanted))).all()
        for label in (0, 1):  # strata, whatever the weights are by
            assert abs(counts[label == LABELS].sum() - wanted[label == LABELS].sum()) <= 1
        total += counts
        assert np.abs(total - (number + 1) * wanted).max() < 2.2


@pytest.mark.parametrize("weights", [[1e-300, 1.0, 1e300], [5e-324, 0, 0], [1e308] * 2 + [1e307], [1, 1e-18, 1]])
def test_weights_of_any_size(weights: list[float]) -> None:
    loader = arrays([0, 1, 2]).loader(weights=weights, take=1000)
    counts = np.bincount(epoch(loader), minlength=3)
    wanted = 1000 * (np.array(weights) / max(weights)) / (np.array(weights) / max(weights)).sum()
    assert np.abs(counts - wanted).max() <= 1


def test_several_classes_and_boxes_are_drawn_by_the_heaviest(tmp_path: Path) -> None:
    records = [
        hr.Record(id=f"{k:03d}", encoded=record.encoded, labels=("a", "b") if k % 25 == 0 else ("a",))
        for k, record in enumerate(shades(100))
    ]
    ds = pack(records, tmp_path / "ds")
    drawn = ds.loader(weights="balanced", take=1000)
    counts = Counter(int(id_) % 25 == 0 for id_ in drawn.ids())
    # b weighs 100 / (2 * 4), the 96 others 100 / (2 * 100)
    assert abs(counts[True] - 1000 * 4 * 12.5 / (4 * 12.5 + 96 * 0.5)) <= 1


def test_a_record_that_comes_again_is_augmented_anew() -> None:
    """And the first time in an epoch as it is without weights, whatever else is drawn."""
    x = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), np.uint8)
    ds = hr.ArrayDataset(x, [0] + [1] * 11, class_names=["rare", "often"])
    for augment in (
        hr.RandomResizedCrop(),
        lambda pixels, boxes, points, rng: (rng.permutation(pixels), boxes, points),
    ):
        options: dict[str, Any] = {"augment": augment, "batch_size": 5, "seed": 2}
        loader = ds.loader(**options, weights="balanced")
        for _ in range(3):
            drawn = [image.tobytes() for batch in loader for id_, image in zip(*pick(batch), strict=True) if id_ == "0"]
            assert len(drawn) in (5, 6, 7) and len({*drawn}) == len(drawn)
        loader = ds.loader(**options, repeat=3)
        plain = ds.loader(**options)
        batches = list(loader)
        by_id: dict[str, list[bytes]] = {}
        for batch in batches:
            for id_, image in zip(*pick(batch), strict=True):
                by_id.setdefault(id_, []).append(image.tobytes())
        for batch in plain:
            for id_, image in zip(*pick(batch), strict=True):
                assert by_id[id_][0] == image.tobytes() and len({*by_id[id_]}) == 3


def pick(batch: hr.Batch) -> tuple[tuple[str, ...], NDArray[Any]]:
    return batch.ids, batch.images


def test_mixup_and_mosaic_of_a_record_with_itself(tmp_path: Path) -> None:
    from packed import photos

    ds = pack(photos(6, boxes=True), tmp_path / "ds")
    some = ds.loader(size=16, target=hr.Class(), mix=hr.MixUp(), weights=[1, 1, 1, 1, 1, 60], batch_size=30, take=60)
    runs = [list(some.iterate()) for _ in range(2)]
    for one, two in zip(*runs, strict=True):
        assert np.array_equal(one.images, two.images) and np.array_equal(one.targets, two.targets)
    boxed = ds.loader(size=16, target=hr.Boxes(20), mix=hr.Mosaic(), weights=[1, 1, 1, 1, 1, 60], batch_size=30)
    (batch,) = boxed
    assert np.array_equal(batch.images, boxed.iterate({**boxed.state_dict(), "epoch": 0}).__next__().images)


def test_weights_shuffle(rare: hr.ArrayDataset) -> None:
    divided = rare.divide({"val": 0.5})[0]
    assert not divided.loader().options.shuffle and divided.loader(weights="balanced").options.shuffle
    assert divided.loader(weights="balanced").sampling.records == 1000


def test_windows_of_weighted_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours stay neighbours, and shares hold but for the rounding of each record's."""
    monkeypatch.setattr("headrace.load.windows._BLOCK_BYTES", 1 << 9)
    ds = arrays(LABELS, side=4)
    loader = ds.loader(weights="balanced", order="windows", batch_size=40)
    assert loader.windows is not None and loader.windows.block * loader.windows.group < N
    numbers = epoch(loader)
    assert abs((LABELS[numbers] == 0).sum() - N / 2) < 40
    size = loader.windows.block * loader.windows.group
    stretches = [np.ptp(np.sort(numbers[at : at + size])[:: loader.windows.block]) for at in range(0, N, size)]
    assert len(stretches) > 1
    assert loader.ids() != loader.ids(loader.due._replace(epoch=0))


# --- take, repeat ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("take", [1, 7, 36, 37, 38, 100])
def test_epochs_go_on_where_the_last_one_ended(shuffle: bool, take: int) -> None:
    ds = arrays(np.arange(37) % 3)
    loader, plain = ds.loader(take=take, batch_size=5, shuffle=shuffle, seed=3), ds.loader(shuffle=shuffle, seed=3)
    assert loader.records == take and len(loader) == -(-take // 5)
    drawn = np.concatenate([epoch(loader) for _ in range(150)])
    wanted = np.concatenate([epoch(plain) for _ in range(150 * take // 37 + 1)])
    assert (drawn == wanted[: len(drawn)]).all()
    for at in range(0, len(drawn) - 37, 37):
        assert len({*drawn[at : at + 37].tolist()}) == 37


def test_epochs_before_the_first() -> None:
    ds = arrays(np.arange(10) % 3)
    loader = ds.loader(take=4, seed=3)
    loader.epoch = -5
    drawn = np.concatenate([epoch(loader) for _ in range(10)])
    for at in range(0, 40, 10):
        assert sorted(drawn[at : at + 10].tolist()) == [*range(10)]


def test_repeat_is_so_many_times_all() -> None:
    ds = arrays(np.arange(10) % 3)
    loader = ds.loader(repeat=3, batch_size=4, seed=1)
    assert loader.records == 30 and len(loader) == 8
    assert loader.ids() == ds.loader(take=30, batch_size=4, seed=1).ids()
    one = ds.loader(repeat=1, seed=1)
    assert one.ids() == ds.loader(seed=1).ids()
    one.load_state_dict(ds.loader(seed=1).state_dict())


def test_weights_and_take() -> None:
    ds = arrays(LABELS)
    loader = ds.loader(weights="balanced", take=300)
    total = np.zeros(N)
    for number in range(60):
        numbers = epoch(loader)
        assert len(numbers) == 300 and abs((LABELS[numbers] == 0).sum() - 150) <= 1
        total += np.bincount(numbers, minlength=N)
        assert np.abs(total[LABELS == 0] - (number + 1) * 7.5).max() < 2
        assert np.abs(total[LABELS == 1] - (number + 1) * 150 / 1980).max() < 2.5
    assert total.min() > 0


def test_take_of_nothing_is_nothing(rare: hr.ArrayDataset) -> None:
    empty = rare[:0]
    for options in ({"take": 5}, {"repeat": 2}, {"weights": "balanced"}, {"weights": []}):
        loader = empty.loader(**options)
        assert len(loader) == 0 and list(loader) == []


def test_drop_last_and_budgets_are_of_the_epoch(rare: hr.ArrayDataset) -> None:
    assert len(rare.loader(take=70, batch_size=32, drop_last=True)) == 2
    assert "3 batches of 32" in repr(rare.loader(take=70, batch_size=32))
    with pytest.raises(UsageError, match="the last of 3 batches has 6 of 70 records"):
        rare.loader(take=70, batch_size=32, world=(0, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"take": 0}, "take is 0, wanted 1 or more"),
        ({"take": -3}, "take is -3"),
        ({"take": 2.5}, "take is 2.5, wanted a whole number"),
        ({"take": "5"}, "take is '5', wanted a whole number"),
        ({"repeat": 0}, "repeat is 0, wanted 1 or more"),
        ({"repeat": True}, "repeat is True, wanted a whole number"),
        ({"take": 5, "repeat": 2}, "take=5 and repeat=2 both say how long an epoch is; pass one of them"),
        ({"weights": "balanced", "shuffle": False}, r"weights say how often records are drawn.*\(shuffle=False\)"),
        ({"weights": {"cat": 1}}, "has no class 'cat'; did you mean|has no class 'cat'; the classes are"),
        ({"weights": "nothing"}, "has no column and no attribute 'nothing'"),
        ({"weights": [0.0] * N}, "weights are 0 for all 2000"),
    ],
)
def test_what_no_epoch_can_be(rare: hr.ArrayDataset, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rare.loader(**options)


def test_a_state_is_of_one_way_to_sample(rare: hr.ArrayDataset) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"take": 50},
        {"repeat": 2},
        {"weights": "balanced"},
        {"weights": {"class 0": 2}},
        {"weights": "balanced", "take": 50},
    ]
    states = [rare.loader(**way).state_dict() for way in ways]
    for (i, way), (j, state) in itertools.product(enumerate(ways), enumerate(states)):
        loader = rare.loader(**way)
        if i == j:
            loader.load_state_dict(json.loads(json.dumps(state)))
        else:
            with pytest.raises(UsageError, match=r"belongs to another loader: its (take|weights) is"):
                loader.load_state_dict(state)
    # Of an earlier version, which knew nothing of it.
    old = {name: value for name, value in states[0].items() if name not in ("take", "weights")}
    rare.loader().load_state_dict(old)


@pytest.mark.parametrize("options", [{"take": np.int64(50)}, {"repeat": np.int32(2)}], ids=str)
def test_numbers_of_numpy_are_numbers(rare: hr.ArrayDataset, options: dict[str, Any]) -> None:
    state = json.loads(json.dumps(rare.loader(**options).state_dict()))
    rare.loader(**{name: int(value) for name, value in options.items()}).load_state_dict(state)


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_samples_never_change(case: dict[str, Any]) -> None:
    """As with golden/order.json: golden/sampling.json is never made anew."""
    loader = made(case)
    for number, wanted in case["epochs"].items():
        loader.epoch = int(number)
        assert [int(id_.rsplit("/", 1)[-1]) for id_ in loader.ids()] == wanted
        assert loader.sampling.at(int(number), 0, len(wanted)).times.tolist() == case["times"][number]  # type: ignore[union-attr]


def made(case: dict[str, Any]) -> Loader:
    """The loader of a golden case: of arrays of these labels, mixed where it has shares."""
    parts = [arrays(labels) for labels in case["labels"]]
    shares = case.get("shares")
    ds = parts[0] if shares is None else hr.mix(dict(zip(parts, shares, strict=True)))
    return ds.loader(**case["options"])


def test_a_sample_of_a_huge_epoch_needs_no_memory() -> None:
    line = order.line(np.array([1.0, 2.0, 4.0]), np.zeros(3, int), seed=0)
    m = 10**15
    tracemalloc.start()
    found, times = order.systematic(np.array([0, 1, m // 2, m - 1]), m=m, line=line, seed=1, epoch=10**30)
    part, spans = order.dealt(m - 5, m, [m // 2, m - m // 2])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000 and len(found) == 4 and times[1] == 1
    assert len(part) == 5 and [span.stop for span in spans] == [m // 2, m - m // 2]


def test_a_million_records_need_little_beside_them() -> None:
    n = 10**6
    ds = arrays(np.arange(n) % 100 == 0)
    tracemalloc.start()
    sampling = Sampling(ds.selection, seed=0, weights=np.where(ds.labels == 0, 1.0, 99.0))
    held, _ = tracemalloc.get_traced_memory()
    first = sampling.at(3, 0, 32)
    tracemalloc.stop()
    assert held < 20 * n and len(first.positions) == 32
    assert (sampling.at(3, 10, 20).positions == first.positions[10:20]).all()


@pytest.mark.parametrize("counts", [[7, 3], [1, 99], [5, 0, 5], [3, 1, 1, 2, 7, 1], [1] * 33, [0, 4], [1]])
def test_parts_are_dealt_evenly(counts: list[int]) -> None:
    n = sum(counts)
    of, spans = order.dealt(0, n, counts)
    assert np.bincount(of, minlength=len(counts)).tolist() == counts == [len(span) for span in spans]
    ahead = np.cumsum(of[:, None] == np.arange(len(counts)), axis=0) - np.arange(1, n + 1)[:, None] * counts / n
    assert np.abs(ahead).max() < 1.5
    for low in range(0, n, 3):
        some, spans = order.dealt(low, min(n, low + 8), counts)
        assert some.tolist() == of[low : low + 8].tolist()
        assert [span.start for span in spans] == [int((of[:low] == k).sum()) for k in range(len(counts))]


@pytest.mark.parametrize("shares", [[0.7, 0.3], [1 / 3, 1 / 3, 1 / 3], [0.999, 0.001], [0.1] * 10, [1.0]])
def test_quotas_are_shares_of_all_epochs(shares: list[float]) -> None:
    exact = [Fraction(share).limit_denominator(10**9) for share in shares]
    before = order.quotas(-50, exact)
    for total in range(-49, 200):
        quotas = order.quotas(total, exact)
        assert sum(quotas) == total and all(now - was in (0, 1) for now, was in zip(quotas, before, strict=True))
        assert all(abs(quota - total * share) < 2.5 for quota, share in zip(quotas, shares, strict=True))
        before = quotas
    assert order.quotas(10**40, exact)[0] == pytest.approx(10**40 * shares[0])


def test_passes_are_permutations_in_a_row() -> None:
    for n in (1, 2, 7, 40):
        found, passed = order.passes(-2 * n - 1, 3 * n + 1, n=n, seed=4)
        assert passed.tolist() == [(k // n) + 3 for k in range(-2 * n - 1, 3 * n + 1)]
        for number in range(-2, 3):
            part = found[(number + 2) * n + 1 : (number + 3) * n + 1]
            assert part.tolist() == order.permute(np.arange(n), n=n, seed=4, epoch=number).tolist()
    assert [len(some) for some in order.passes(5, 5, n=3, seed=0)] == [0, 0]
