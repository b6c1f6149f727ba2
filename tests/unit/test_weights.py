"""Weights: what a record counts beside the others, and what is no weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from drawn import picture, saved
from headrace.errors import UsageError
from headrace.load.weights import weights_of
from packed import pack, photos


def records(classes: list[Any], **more: list[Any]) -> list[hr.Record]:
    """A record of each of these classes: a name, None, or several names."""
    return [
        hr.Record(
            id=f"{k:03d}",
            encoded=saved(picture(8, 8, seed=k), "PNG"),
            label_name=None if isinstance(of, tuple) else of,
            labels=of if isinstance(of, tuple) else None,
            **{name: values[k] for name, values in more.items()},
        )
        for k, of in enumerate(classes)
    ]


def sorted_pack(some: list[hr.Record], out: Path) -> hr.Dataset:
    """Packing shuffles; a view of it by id."""
    ds = pack(some, out)
    return ds[np.argsort(ds.catalog["id"].to_numpy())]


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """6 cats, 3 dogs, 1 fish, with a value, and a weight among their attributes."""
    return sorted_pack(
        records(
            ["cat"] * 6 + ["dog"] * 3 + ["fish"],
            value=[float(k) for k in range(10)],
            attributes=[
                {"w": k % 3, "mood": "good", "some": 1} if k else {"w": 0.5, "mood": "bad", "huge": 10**400}
                for k in range(10)
            ],
        ),
        tmp_path_factory.mktemp("pets") / "pets",
    )


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    """Four of a, of which one is of b, too; one of b alone; one of none."""
    return sorted_pack(
        records([("a",), ("a",), ("a",), ("a", "b"), ("b",), ()]),
        tmp_path_factory.mktemp("tagged") / "tagged",
    )


def found(ds: hr.Dataset, spec: Any) -> dict[str, float]:
    weights = weights_of(ds.selection, spec)
    assert weights.dtype == np.float64 and weights.shape == (len(ds),)
    return dict(zip(ds.catalog["id"], weights.tolist(), strict=True))


def of_class(ds: hr.Dataset, spec: Any) -> dict[str, float]:
    """The weight of each class, which all of its records have."""
    weights, out = weights_of(ds.selection, spec), {}
    for number, name in enumerate(ds.class_names):
        (weight,) = {*weights[ds.labels == number].tolist()} or {None}
        out[name] = weight
    return out


def test_balanced_classes_weigh_the_same(pets: hr.Dataset) -> None:
    assert of_class(pets, "balanced") == pytest.approx({"cat": 10 / 18, "dog": 10 / 9, "fish": 10 / 3})
    weights = weights_of(pets.selection, "balanced")
    assert np.bincount(pets.labels, weights) == pytest.approx([10 / 3] * 3)
    assert weights.mean() == pytest.approx(1)


def test_balanced_counts_the_classes_that_are_there(pets: hr.Dataset) -> None:
    some = pets.where("label_name <> 'fish'")
    assert of_class(some, "balanced") == pytest.approx({"cat": 9 / 12, "dog": 9 / 6, "fish": None})
    assert found(pets.where("1 = 0"), "balanced") == {}


def test_numbers_by_class(pets: hr.Dataset) -> None:
    assert of_class(pets, {"dog": 2, "fish": np.float32(0.5)}) == {"cat": 1, "dog": 2, "fish": 0.5}
    assert of_class(pets, {0: 3, np.int64(2): 0}) == {"cat": 3, "dog": 1, "fish": 0}
    assert of_class(pets, {}) == {"cat": 1, "dog": 1, "fish": 1}


def test_a_record_of_several_classes_weighs_what_the_heaviest_does(tagged: hr.Dataset) -> None:
    a, b = 6 / (2 * 4), 6 / (2 * 2)
    assert found(tagged, "balanced") == pytest.approx({f"{k:03d}": w for k, w in enumerate([a, a, a, b, b, a])})
    assert [*found(tagged, {"a": 3, "b": 0.5}).values()] == [3, 3, 3, 3, 0.5, 1]


def test_classes_of_boxes_where_images_have_none(tmp_path: Path) -> None:
    boxed = [hr.Record(**{**fields(record), "label_name": None}) for record in photos(8, boxes=True)]
    ds = pack(boxed, tmp_path / "boxed")
    by_id = found(ds, {"right": 4, "left": 2})
    for record in boxed:
        wanted = 4 if "right" in record.box_labels else 2 if record.box_labels else 1
        assert by_id[record.id] == wanted
    # left in 6 of 8, right in 4 of 8, none in 2
    balanced = found(ds, "balanced")
    assert {balanced[record.id] for record in boxed if "right" in record.box_labels} == {8 / (2 * 4)}
    assert {balanced[record.id] for record in boxed if "right" not in record.box_labels} == {8 / (2 * 6)}


def test_a_record_counts_once_however_many_boxes_it_has(tmp_path: Path) -> None:
    boxed = [hr.Record(**{**fields(record), "label_name": None}) for record in photos(4, boxes=True)]
    ds = pack([boxed[0], boxed[3], boxed[1]], tmp_path / "boxed")  # with none, left right left, left
    assert found(ds, "balanced") == pytest.approx({boxed[0].id: 3 / 4, boxed[3].id: 3 / 2, boxed[1].id: 3 / 4})


def test_classes_of_boxes_by_their_names(tmp_path: Path) -> None:
    ds = pack(photos(8, boxes=True), tmp_path / "boxed")
    assert {*found(ds, {"right": 4, "left": 2}).values()} == {4, 2, 1}
    assert found(ds, {"ant": 4})["dir/000.jpeg"] == 4
    with pytest.raises(UsageError, match="no class 'right'"):
        weights_of(ds.selection, {"ant": 4, "right": 2})


def fields(record: hr.Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("id", "encoded", "label_name", "boxes", "box_labels")}


def test_a_column(pets: hr.Dataset) -> None:
    assert [*found(pets, "value").values()] == list(range(10))
    assert [*found(pets[[3, 7]], "value").values()] == [3, 7]
    assert [*found(pets, "height").values()] == [8] * 10


def test_an_attribute(pets: hr.Dataset) -> None:
    assert [*found(pets, "w").values()] == [0.5, *(k % 3 for k in range(1, 10))]


def test_a_number_for_each(pets: hr.Dataset) -> None:
    for given in (range(10), [0.5] * 10, np.arange(10, dtype=np.float32), tuple(range(10))):
        assert [*found(pets, given).values()] == [*given]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dgo": 2}, "has no class 'dgo'; did you mean 'dog'"),
        ({"zebra": 2}, "no class 'zebra'; the classes are cat, dog, fish"),
        ({3: 2}, "no class 3"),
        ({True: 2}, "no class True"),
        ({"cat": -1}, "-1 for class 'cat', wanted a number of 0 or more"),
        ({"cat": float("nan")}, "nan for class 'cat'"),
        ({"cat": float("inf")}, "inf for class 'cat'"),
        ({"cat": "2"}, "'2' for class 'cat'"),
        ({"cat": True}, "True for class 'cat'"),
        ({"cat": 0, "dog": 0, "fish": 0}, "weights are 0 for all 10 records of pets"),
        ("balance", "no column and no attribute 'balance'; wanted 'balanced'"),
        ("id", "column 'id' is of String, wanted numbers"),
        ("mood", "attribute 'mood' has 'bad', wanted numbers"),
        ("some", "attribute 'some' says nothing of 1 of 10 records"),
        ([1] * 9, "weights are 9 numbers, for the 10 records of pets"),
        ([-1.0] + [1] * 9, "weights: -1 for record '000', wanted a number of 0 or more"),
        ([np.nan] * 10, "weights: nan for record '000'"),
        ([0] * 10, "weights are 0 for all 10"),
        (["1"] * 10, "wanted 'balanced', a number by class"),
        ({"cat": 10**400}, "for class 'cat', wanted a number of 0 or more"),
        ("huge", "attribute 'huge' has 1000000000"),
        (np.ones((10, 1)), "weights are float64 [10, 1], wanted 'balanced', a number by class"),
        (pl.Series(["1"] * 10), "weights are String [10], wanted"),
        ([[1], [1, 2]], "wanted 'balanced', a number by class"),
        (3, "weights are 3, wanted 'balanced'"),
        (None, "weights are None, wanted"),
    ],
)
def test_what_is_no_weight(pets: hr.Dataset, spec: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        weights_of(pets.selection, spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_with_nulls(tmp_path: Path) -> None:
    ds = pack(records(["a", "b"], value=[1.0, None]), tmp_path / "ds")
    with pytest.raises(UsageError, match="column 'value' says nothing of 1 of 2 records of ds; wanted a number"):
        weights_of(ds.selection, "value")


def test_a_column_below_0(tmp_path: Path) -> None:
    ds = pack(records(["a", "b"], value=[1.0, -2.0]), tmp_path / "ds")
    with pytest.raises(UsageError, match="column 'value': -2 for record '001'"):
        weights_of(ds.selection, "value")


def test_records_without_a_class(tmp_path: Path) -> None:
    ds = pack(records(["a", None, "b"]), tmp_path / "ds")
    for spec in ("balanced", {"a": 2}):
        with pytest.raises(UsageError, match=r"1 of 3 records of ds have no class; leave them out by ds.where\('label"):
            weights_of(ds.selection, spec)
    assert found(ds.where("label IS NOT NULL"), "balanced") == {"000": 1, "002": 1}


def test_nothing_to_weigh_by(tmp_path: Path) -> None:
    ds = pack(records([None, None]), tmp_path / "ds")
    with pytest.raises(
        UsageError, match="ds has no classes to weigh by; wanted a column's name or a number for each record"
    ):
        weights_of(ds.selection, "balanced")
