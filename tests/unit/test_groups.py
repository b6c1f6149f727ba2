"""Groups: what images have in common is never cut in two, by packing or dividing; shares and strata as they allow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from drawn import TINY_PNG
from headrace.errors import UsageError
from headrace.splits import grouped_shares, shares
from packed import pack

THIRDS = {"train": 0.7, "val": 0.2, "test": 0.1}


def record(k: int, group: str | None, label: str | None = None, **more: Any) -> hr.Record:
    return hr.Record(id=f"{k}.png", encoded=TINY_PNG, label_name=label, group=group, **more)


def split_of(ds: hr.Dataset) -> dict[str, str]:
    return dict(zip(ds.catalog["id"], ds.catalog["split"], strict=True))


# --- arithmetic ------------------------------------------------------------------------------------------------------


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Any, Any, dict[str, float], int]:
    """Strata [n], groups [n] with every number of 0 to g - 1, fractions, seed."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=40))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    strata = np.array(draw(st.lists(st.integers(-1, 4), min_size=len(groups), max_size=len(groups))))
    mixed = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(groups))
    fractions = draw(st.sampled_from([THIRDS, {"a": 0.5, "b": 0.5}, {"a": 0.8, "b": 0.1}, {"a": 1.0}]))
    return strata[mixed], groups[mixed], fractions, draw(st.integers(0, 5))


@given(grouped())
def test_no_group_is_cut_and_no_share_has_a_group_too_many(drawn: tuple[Any, Any, dict[str, float], int]) -> None:
    strata, groups, fractions, seed = drawn
    share = grouped_shares(strata, groups, fractions, seed=seed)
    assert all(len(set(share[groups == group])) == 1 for group in set(groups.tolist()))
    largest = np.bincount(groups).max()
    for number, fraction in enumerate(fractions.values()):
        assert (share == number).sum() < fraction * len(groups) + largest + 1e-6
    left = 1 - sum(fractions.values())
    assert (share == -1).sum() < left * len(groups) + largest + 1e-6 if left > 1e-9 else -1 not in share
    assert np.array_equal(share, grouped_shares(strata, groups, fractions, seed=seed))


def test_strata_are_divided_too() -> None:
    """100 patients of 5 images; the disease of each is that of all its images."""
    groups = np.repeat(np.arange(100), 5)
    strata = np.repeat(np.arange(100) % 4, 5)
    share = grouped_shares(strata, groups, {"train": 0.8, "val": 0.2}, seed=3)
    for stratum in range(4):
        assert abs((share[strata == stratum] == 1).sum() - 25) <= 5  # within one group of its fifth
    # Of other patients with another seed.
    assert (grouped_shares(strata, groups, {"train": 0.8, "val": 0.2}, seed=4) != share).any()


def test_a_class_that_only_few_groups_have_is_in_both_splits() -> None:
    """Without looking at strata a rare class would often be in one split alone."""
    groups = np.repeat(np.arange(60), 3)
    strata = np.where(groups % 15 == 0, 1, 0)  # 4 groups of 60
    for seed in range(20):
        share = grouped_shares(strata, groups, {"train": 0.5, "val": 0.5}, seed=seed)
        assert set(share[strata == 1].tolist()) == {0, 1}


def test_what_rounding_of_the_fractions_leaves_over_is_no_share() -> None:
    """Of a few in ten millions no group is left out of all shares."""
    rng = np.random.default_rng(0)
    for seed in range(100):
        groups = np.repeat(np.arange(30), rng.integers(1, 40, 30))
        strata = rng.integers(0, 4, len(groups))
        assert -1 not in grouped_shares(strata, groups, {"a": 0.6666667, "b": 0.3333332}, seed=seed)


def test_single_items_are_as_without_groups() -> None:
    strata = np.arange(1000) % 7
    share = grouped_shares(strata, np.arange(1000), THIRDS, seed=1)
    alone = shares(strata, THIRDS, seed=1)
    for stratum in range(7):
        for number in range(3):
            ours, theirs = ((s[strata == stratum] == number).sum() for s in (share, alone))
            assert abs(int(ours) - int(theirs)) <= 2


# --- packing ---------------------------------------------------------------------------------------------------------


def test_groups_stay_together_in_packing_and_dividing(tmp_path: Path) -> None:
    records = [record(k, f"patient {k % 11}", "ab"[k % 11 % 2]) for k in range(66)]
    ds = pack(records, tmp_path / "ds", splits={"train": 0.7, "val": 0.3}, seed=2)
    groups = Counter(dict.fromkeys(zip(ds.catalog["group_id"], ds.catalog["split"], strict=True)))
    assert Counter(group for group, _ in groups) == Counter({f"patient {k}": 1 for k in range(11)})
    assert abs(ds.splits["val"] - 0.3 * 66) < 6
    one, other = ds.divide({"a": 0.5, "b": 0.5}, seed=1)
    assert not set(one.catalog["group_id"]) & set(other.catalog["group_id"])
    assert abs(len(one) - 33) <= 6 and len(one) + len(other) == 66
    assert ds[0].group in set(ds.catalog["group_id"])


def test_some_without_a_group_stand_alone(tmp_path: Path) -> None:
    records = [record(k, None if k % 2 else "film") for k in range(40)]
    ds = pack(records, tmp_path / "ds", splits={"train": 0.5, "val": 0.5})
    assert len(set(ds.where("group_id = 'film'").catalog["split"])) == 1
    assert ds.splits == {"train": 20, "val": 20}
    parts = ds.divide({"a": 0.5, "b": 0.5})
    assert sorted(map(len, parts)) == [20, 20] and any(not part.catalog["group_id"].count() for part in parts)


@pytest.mark.parametrize(
    "group",
    [
        "scan",  # the name of an attribute
        lambda record: record.attributes.get("scan"),
        lambda record: None if record.id == "0.png" else record.id.partition("-")[0],
    ],
)
def test_what_tells_the_group(group: Any, tmp_path: Path) -> None:
    records = [
        hr.Record(id=f"{k % 5}-{k}.png", encoded=TINY_PNG, attributes={"scan": k % 5}, group="all") for k in range(30)
    ]
    report = hr.pack(records, tmp_path / "ds", splits={"a": 0.6, "b": 0.4}, group=group, progress=False)
    ds = hr.Dataset(tmp_path / "ds")
    assert report.splits == {"a": 18, "b": 12}
    assert sorted(set(ds.catalog["group_id"])) == ["0", "1", "2", "3", "4"]
    for k in range(5):
        assert len({split for id_, split in split_of(ds).items() if id_.startswith(f"{k}-")}) == 1


def test_the_source_s_own_splits_are_kept_and_torn_groups_are_told(tmp_path: Path) -> None:
    records = [record(k, f"g{k // 4}", split="train" if k < 6 else "val") for k in range(12)]
    report = hr.pack(records, tmp_path / "ds", progress=False)
    assert report.splits == {"train": 6, "val": 6}
    assert report.notes == ("1 groups have records in several of the source's own splits",)


def test_the_order_owes_nothing_to_what_groups_are_called(tmp_path: Path) -> None:
    for name in ("x", "y"):
        records = [record(k, f"{name}{k // 3}") for k in range(30)]
        pack(records, tmp_path / name, splits={"train": 0.7, "val": 0.3})
    assert split_of(hr.Dataset(tmp_path / "x")) == split_of(hr.Dataset(tmp_path / "y"))


def test_groups_that_are_numbers(tmp_path: Path) -> None:
    """Tables have 7.0 for 7 in a column where some rows have nothing, which is NaN."""
    said = [7, 7.0, np.float32(7), "7", 7.5, float("nan"), float("inf")]
    records = [record(k, None, attributes={"scan": one}) for k, one in enumerate(said)]
    made = pack(records, tmp_path / "ds", group="scan")
    assert [made[f"{k}.png"].group for k in range(len(said))] == ["7", "7", "7", "7", "7.5", None, "inf"]


def test_a_record_whose_attributes_are_none_is_a_reject(tmp_path: Path) -> None:
    records = [record(k, None, attributes={"scan": "x"}) for k in range(3)]
    records.append(record(3, None, attributes=None))
    report = hr.pack(records, tmp_path / "ds", group="scan", max_rejects=1, progress=False)
    assert [str(reject) for reject in report.rejects] == ["3.png: the attributes are None, wanted a mapping (label)"]


@pytest.mark.parametrize(
    ("records", "options", "says"),
    [
        ([record(0, None)], {"group": "scan"}, "group is 'scan', and none of the records has one"),
        ([record(0, None)], {"group": "group"}, "group is 'group', and none of the records has one"),
        (
            [record(k, "one") for k in range(9)],
            {"splits": {"a": 0.5, "b": 0.5}},
            "split 'b': 0.5 of 9 records, whose groups are not cut in two, is none; give it more",
        ),
    ],
)
def test_at_fault(records: list[hr.Record], options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        hr.pack(records, tmp_path / "ds", progress=False, **options)
    assert says in str(error.value)
