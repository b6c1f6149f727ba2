"""Several datasets as one: classes by name, ids, files of each, and the shares of a mix."""

from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import far
import headrace as hr
from browsing import Client
from drawn import picture, saved
from headrace import order
from headrace.errors import UsageError
from headrace.load import ahead
from packed import Keep, Source, faces, flip, pack, photos, shard_of


def pets(names: list[Any], *, start: int = 0, prefix: str = "", **more: Any) -> list[hr.Record]:
    """A record of each of these classes, of the shade of its number from `start` on."""
    return [
        hr.Record(
            id=f"{prefix}{k:03d}",
            encoded=saved(np.full((8, 8, 3), start + k, np.uint8), "PNG"),
            label_name=None if isinstance(name, tuple) else name,
            labels=name if isinstance(name, tuple) else None,
            **{field: values[k] for field, values in more.items()},
        )
        for k, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("joined")


@pytest.fixture(scope="module")
def cats(folder: Path) -> hr.Dataset:
    """40 records, cat, dog, cat, dog, …; ids 000 and so on; shades 0 to 39."""
    return pack(pets(["cat", "dog"] * 20), folder / "cats", splits={"train": 0.8, "val": 0.2}, shards=2)


@pytest.fixture(scope="module")
def fish(folder: Path) -> hr.Dataset:
    """30 records, dog, fish, ant, …; ids f000 and so on; shades 100 to 129."""
    return pack(pets(["dog", "fish", "ant"] * 10, start=100, prefix="f"), folder / "fish")


@pytest.fixture(scope="module")
def same_ids(folder: Path) -> hr.Dataset:
    """10 records, whose ids cats has, too; shades 200 to 209."""
    return pack(pets(["cat"] * 10, start=200), folder / "others")


def shades(ds: hr.Dataset) -> list[int]:
    return [int(record.image[0, 0, 0]) for record in ds]


# --- concat ----------------------------------------------------------------------------------------------------------


def test_records_of_one_come_after_those_of_the_other(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats + fish
    assert type(both) is hr.Dataset and len(both) == 70 and both.title == "cats + fish"
    assert [record.id for record in both] == [record.id for ds in (cats, fish) for record in ds]
    assert shades(both) == shades(cats) + shades(fish)
    for i in (0, 17, 39, 40, 69, -1):
        one, two = both[i], cats[i] if 0 <= i < 40 else fish[i % 70 - 40]
        for name in ("id", "label_name", "encoded", "split", "height", "width", "origin", "format", "captions"):
            assert getattr(one, name) == getattr(two, name), name
    assert both["f003"].encoded == fish["f003"].encoded == both.record("f003").encoded
    assert both.catalog["id"].to_list() == cats.catalog["id"].to_list() + fish.catalog["id"].to_list()
    with pytest.raises(KeyError, match=r"cats \+ fish: no record 'f0033'; near it are f0"):
        both["f0033"]


def test_classes_are_united_by_name(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = hr.concat([cats, fish])
    assert both.class_names == (*cats.class_names, *(n for n in fish.class_names if n != "dog"))
    assert both.class_counts == {"cat": 20, "dog": 30, "ant": 10, "fish": 10}
    names = cats.catalog["label_name"].to_list() + fish.catalog["label_name"].to_list()
    assert both.catalog["label_name"].to_list() == names
    assert [both.class_names[label] for label in both.labels] == names
    assert [both.class_names[record.label or 0] for record in both] == names
    dogs = both.where("label_name = 'dog'")
    assert len(dogs) == 30 and {*dogs.labels.tolist()} == {both.class_names.index("dog")}
    assert len(both.where(f"label = {both.class_names.index('fish')}")) == 10


def test_a_batch_has_each_from_its_own(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats + fish
    shade = dict(zip([record.id for record in both], shades(both), strict=True))
    name = dict(zip(both.catalog["id"], both.catalog["label_name"], strict=True))
    for cache in (None, "memory"):
        batches = list(both.loader(batch_size=9, shuffle=True, workers=2, cache=cache))
        assert Counter(id_ for batch in batches for id_ in batch.ids) == Counter(shade.keys())
        for batch in batches:
            assert batch.images[:, 3, 3, 1].tolist() == [shade[id_] for id_ in batch.ids]
            assert [both.class_names[target] for target in batch.targets] == [name[id_] for id_ in batch.ids]
    assert any(len({id_[0] for id_ in batch.ids}) > 1 for batch in batches)


def test_splits_are_united_by_name(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = fish + cats
    assert both.splits == {"train": 62, "val": 8}
    assert shades(both.split("train")) == shades(fish) + shades(cats.split("train"))
    assert not both.loader().options.shuffle and both.split("train").loader().options.shuffle
    trains = fish + cats.split("train")
    assert trains.splits == {"train": 62} and trains.loader().options.shuffle
    assert (cats.split("val") + fish[:0]).splits == {"val": 8}
    part, rest = both.divide({"a": 0.5, "b": 0.5}, seed=1)
    assert sorted(shades(part) + shades(rest)) == sorted(shades(both))


def test_views_of_views(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats[::-1][:5] + fish.where("label_name = 'ant'")[[3, 3]]
    wanted = shades(cats)[::-1][:5] + [shades(fish.where("label_name = 'ant'"))[3]] * 2
    assert shades(both) == wanted and shades(both[::-2]) == wanted[::-2]
    assert both.catalog.height == 7 and both[[6, 0]].catalog["id"].to_list() == [both[6].id, both[0].id]
    assert both.whole.title == "cats + fish" and len(both[:2].whole) == 7


def test_views_of_one_dataset_are_a_view_of_it(cats: hr.Dataset) -> None:
    both = cats.split("val") + cats.split("train")[:3]
    assert both.store is cats.store and both.path == cats.path
    assert shades(both) == shades(cats.split("val")) + shades(cats.split("train"))[:3]
    assert both.what == "split 'val' + split 'train' / [:3]"
    assert shades(cats + cats) == shades(cats) * 2 and (cats + cats).what == "all + all"


def test_three_are_as_two_and_one(cats: hr.Dataset, fish: hr.Dataset, same_ids: hr.Dataset) -> None:
    a, b = (cats + fish) + same_ids, hr.concat([cats, fish, same_ids])
    assert a.title == b.title == "cats + fish + others" and a.fingerprint == b.fingerprint
    assert [record.id for record in a] == [record.id for record in b]
    assert hr.concat(iter([cats])).fingerprint == cats.fingerprint


def test_ids_that_two_datasets_share_get_their_names(cats: hr.Dataset, same_ids: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats + fish + same_ids
    ids = [f"{ds.title}/{record.id}" for ds in (cats, fish, same_ids) for record in ds]
    assert [record.id for record in both] == ids == both.catalog["id"].to_list()
    assert both["others/003"].image[0, 0, 0] == 203 and both["cats/003"].image[0, 0, 0] == 3
    assert [id_ for batch in both.loader(shuffle=False) for id_ in batch.ids] == ids
    assert len(both.where("id = 'others/003'")) == 1 and both[["others/003", "cats/003"]].catalog["label"].len() == 2
    with pytest.raises(KeyError, match="no record '003'"):
        both["003"]
    # Only of those that are there.
    assert (cats.where("id > '020'") + same_ids)[0].id == cats.where("id > '020'")[0].id


def test_datasets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    a, b = (pack(pets(["x"] * 3, start=k), tmp_path / str(k) / "ds") for k in (0, 50))
    assert {record.id.split("/")[0] for record in a + b} == {"ds", "ds-2"} and (a + b).title == "ds + ds-2"
    c = pack(pets(["x"] * 3, start=100), tmp_path / "ds-2")  # which one of them is called already
    every = hr.concat([a, b, c])
    assert every.title == "ds + ds-2 + ds-2-2" and len({record.id for record in every}) == len(every) == 9
    assert every["ds-2-2/002"].image[0, 0, 0] == 102 and every["ds-2/002"].image[0, 0, 0] == 52
    again = hr.concat([a, hr.Dataset(a.path), b[:0]])
    assert [record.id for record in again] == [record.id for record in a] * 2  # opened twice, it is one


def test_parts_without_records(cats: hr.Dataset, fish: hr.Dataset) -> None:
    none = cats[:0] + fish[:0]
    assert len(none) == 0 and none.image_size is None and len(none.catalog) == 0 and none.splits == {}
    assert list(none.loader(size=8)) == [] and none.class_names == (cats + fish).class_names
    with pytest.raises(UsageError, match="pass size="):
        none.loader()
    some = cats[:0] + fish[:3] + cats[:0]
    assert some.image_size == (8, 8) and [record.id for record in some] == [record.id for record in fish[:3]]


def test_arrays_and_packed_ones(cats: hr.Dataset) -> None:
    x = np.arange(12, dtype=np.uint8).repeat(64).reshape(12, 8, 8)
    arrays = hr.ArrayDataset(x, [["dog", "eel"][k % 2] for k in range(12)])
    both = cats + arrays
    assert both.class_names == ("cat", "dog", "eel") and both.channels == 3
    assert shades(both) == shades(cats) + list(range(12))
    assert both["3"].label_name == "eel" and both.store.address(43) == "x[3]"
    two = arrays + hr.ArrayDataset(x + 100, ["dog"] * 12)  # numbered, both of them
    assert two.channels == 1 and two[13].id == "x-2/1" and two["x-2/1"].image[0, 0, 0] == 101
    for batch in two.loader(batch_size=5):
        wanted = [int(id_.split("/")[1]) + 100 * id_.startswith("x-2") for id_ in batch.ids]
        assert batch.images[:, 0, 0, 0].tolist() == wanted


def test_arrays_that_are_kept() -> None:
    x, y = np.arange(24.0).reshape(4, 3, 2), {"a": np.arange(4), "b": np.arange(8).reshape(4, 2)}
    one = hr.ArrayDataset(x, y, dtype="keep")
    two = hr.ArrayDataset(x[:2] + 100, {"a": y["a"][:2] + 9, "b": y["b"][:2]}, dtype="keep")
    both = one + two
    batches = list(both.loader(batch_size=4, shuffle=False))
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), np.concatenate([x, x[:2] + 100]))
    assert np.concatenate([batch.targets["a"] for batch in batches]).tolist() == [0, 1, 2, 3, 9, 10]
    assert np.array_equal(both[4].image, x[0] + 100) and both.store.kept["b"].read(1, 3).tolist() == [[2, 3], [4, 5]]


def test_one_class_becomes_one_of_several(cats: hr.Dataset, tmp_path: Path) -> None:
    tagged = pack(pets([("fish", "cat"), (), ("dog",)], prefix="t"), tmp_path / "tagged")
    both = tagged + cats[:4]
    assert both.multi_label and both.class_names == (
        *tagged.class_names,
        *(set(cats.class_names) - {*tagged.class_names}),
    )
    assert (both.labels == -1).all()
    wanted = {**{record.id: set(record.labels or ()) for record in tagged}}
    wanted |= {record.id: {record.label_name} for record in cats[:4]}
    assert {record.id: {*record.labels} for record in both} == wanted  # type: ignore[misc]
    frame = both.catalog
    for row in frame.iter_rows(named=True):
        assert {*row["label_names"]} == {both.class_names[label] for label in row["labels"]} == wanted[row["id"]]
        assert row["label"] is None and row["label_name"] is None
    (batch,) = both.loader(shuffle=False)
    for id_, target in zip(batch.ids, batch.targets, strict=True):
        assert {both.class_names[k] for k in np.flatnonzero(target)} == wanted[id_]


def test_boxes_of_classes_united(tmp_path: Path) -> None:
    one = pack(photos(8, boxes=True), tmp_path / "one")
    records = photos(16, boxes=True)[8:]
    two = pack(
        [
            hr.Record(**fields(r) | {"box_labels": tuple("up" if n == "left" else n for n in r.box_labels)})
            for r in records
        ],
        tmp_path / "two",
    )
    both = one + two
    assert both.box_class_names == ("left", "right", "up") and both.manifest.boxes == 24 and both.has_boxes
    for ds in (one, two):
        for record in ds:
            there = both[record.id]
            assert there.box_labels == record.box_labels and np.array_equal(there.boxes, record.boxes)
    for batch in both.loader(batch_size=5, size=32, target=Keep()):
        of, found = batch.targets.box_image, [both.box_class_names[k] for k in batch.targets.box_labels]
        for k, id_ in enumerate(batch.ids):
            assert [name for i, name in zip(of, found, strict=True) if i == k] == [*(both[id_].box_labels or ())]
    assert repr(both[3:]).endswith(f"{int(both.store.box_counts(both[3:].rows).sum())} boxes)")


def fields(record: hr.Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("id", "encoded", "label_name", "boxes", "box_labels", "origin")}


def test_a_column_that_one_part_has_alone(cats: hr.Dataset, tmp_path: Path) -> None:
    valued = pack(pets(["cat"] * 2, prefix="v", value=[0.5, 2.0]), tmp_path / "valued")
    both = cats + valued
    assert both.has_values and both.catalog["value"].to_list()[-2:] == [0.5, 2.0] == valued.catalog["value"].to_list()
    assert both[0].value is None and both["v001"].value == 2.0 and len(both.where("value > 1")) == 1
    assert both.catalog.schema["channels"] == pl.Int64
    assert hr.concat([valued[:0], cats[:0]]).catalog.height == 0


def test_it_is_packed_and_looked_at_as_any(cats: hr.Dataset, fish: hr.Dataset, tmp_path: Path) -> None:
    both = cats[:6] + fish[:5]
    hr.pack(both, tmp_path / "both", progress=False)
    again = hr.Dataset(tmp_path / "both")
    assert {r.id: (r.label_name, r.encoded) for r in again} == {r.id: (r.label_name, r.encoded) for r in both}
    assert both.show(4).size == fish.show(4).size and "11 records" in both._repr_html_()
    both.export(tmp_path / "csv", format="csv")
    assert len(pl.read_csv(next((tmp_path / "csv").glob("*.csv")))) == 11
    assert next(both.features("image/id")) == next(cats.features("image/id"))
    assert both.history == () and both.version == 1 and both.store.is_current() and len(both.reopened()) == 11
    assert hr.duplicates(cats[:6] + same(cats, tmp_path)).groups


def same(ds: hr.Dataset, folder: Path) -> hr.Dataset:
    return pack([hr.Record(id=f"again/{record.id}", encoded=record.encoded) for record in ds[:6]], folder / "again")


def test_it_is_looked_at_in_a_browser(cats: hr.Dataset, fish: hr.Dataset) -> None:
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'headrace[view]'")
    with (cats + fish).view(browser=False) as viewer:
        ask = Client(viewer.address.url).enter()
        assert ask("api/records").json["total"] == 70 and ask("api/groups").status == ask("api/rejects").status == 200
        assert ask("api/diff").status == 400  # of versions, which it has none of
    with pytest.raises(UsageError, match=r"cats \+ fish: has no versions; edit=True is of"):
        (cats + fish).view(edit=True, browser=False)


def test_what_has_no_files_of_its_own(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats + fish
    with pytest.raises(UsageError, match=r"cats \+ fish: is made of 2 parts; verify each of them"):
        both.verify()
    with pytest.raises(UsageError, match="has no versions"):
        both.reopened(1)


def test_it_pickles_and_its_fingerprint_is_of_what_is_in_it(cats: hr.Dataset, fish: hr.Dataset) -> None:
    both = cats + fish
    again = pickle.loads(pickle.dumps(both))
    assert again.view_fingerprint == both.view_fingerprint and shades(again[38:42]) == shades(both[38:42])
    loader = pickle.loads(pickle.dumps(both.loader(batch_size=9, shuffle=True)))
    assert loader[2].ids == both.loader(batch_size=9, shuffle=True)[2].ids
    prints = {ds.fingerprint for ds in (both, fish + cats, cats[:5] + fish, cats[:5][::-1] + fish)}
    assert len(prints) == 4 and (hr.Dataset(cats.path) + hr.Dataset(fish.path)).fingerprint == both.fingerprint


def test_a_run_goes_on_where_it_stopped(cats: hr.Dataset, fish: hr.Dataset) -> None:
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "augment": hr.HorizontalFlip()}
    loader = (cats + fish).loader(**options)
    wanted = [batch.ids for batch in loader] + [batch.ids for batch in loader]
    for k in range(9):
        stopped = (cats + fish).loader(**options)
        with iter(stopped) as run:
            for _ in range(k):
                next(run)
        other = (cats + fish).loader(**options)
        other.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert [batch.ids for batch in other] == wanted[k:9] or k == 9
    with pytest.raises(UsageError, match="its dataset is"):
        (fish + cats).loader(**options).load_state_dict(loader.state_dict())


def test_damage_is_told_by_its_own_address(tmp_path: Path, cats: hr.Dataset) -> None:
    bad = pack(pets(["cat"] * 5, prefix="b"), tmp_path / "bad")
    path, number, offset, _ = shard_of(bad, 2)
    bad_id = bad[2].id
    flip(path, offset + 40)
    both = cats + hr.Dataset(bad.path)
    with pytest.raises(hr.DamageError, match=f"{path.name}, record {number}"):
        both[bad_id]
    loader = both.loader(batch_size=9, on_bad="skip")
    assert {id_ for batch in loader for id_ in batch.ids} == {record.id for record in cats} | {
        row for row in bad.catalog["id"] if row != bad_id
    }
    assert len(loader.skipped) == 1 and str(path) in loader.skipped[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda a, b: hr.concat([]), "there is nothing to join; wanted some, as in"),
        (lambda a, b: hr.concat(a), "Dataset is Dataset"),
        (lambda a, b: hr.concat([a, "fish"]), "'fish' is no Dataset; wanted some, as in concat"),
        (lambda a, b: hr.concat(3), "3 is no Dataset"),
        (lambda a, b: hr.mix([a, b]), r"wanted a share for each dataset, as in mix\(\{a: 0.7, b: 0.3\}\)"),
        (lambda a, b: hr.mix({}), "there is nothing to join"),
        (lambda a, b: hr.mix({a: 0.7, b: 0.4}), r"the shares sum to 1.1, wanted 1"),
        (lambda a, b: hr.mix({a: 1.2, b: -0.2}), "the share of 'fish' is -0.2, wanted above 0"),
        (lambda a, b: hr.mix({a: 1.0, b: 0}), "the share of 'fish' is 0, wanted above 0"),
        (lambda a, b: hr.mix({a: "0.5", b: 0.5}), "the share of 'cats' is '0.5'"),
        (lambda a, b: hr.mix({a: float("nan"), b: 0.5}), "the share of 'cats' is nan"),
        (lambda a, b: hr.mix({a: True}), "the share of 'cats' is True"),
        (lambda a, b: hr.mix({"cats": 1.0}), "'cats' is no Dataset"),
        (lambda a, b: hr.mix({a: 0.5, b[:0]: 0.5}), "fish / .* has no records"),
        (lambda a, b: hr.mix({a: 0.5, b: 0.5}) + a, "is a mix, or a part of one, whose shares would be lost"),
        (lambda a, b: hr.mix({a: 0.5, hr.mix({a: 0.5, b: 0.5})[:9]: 0.5}), "is a mix, or a part of one"),
        (
            lambda a, b: hr.mix({a: 0.5, b: 0.5}).where("label_name = 'cat'").loader(),
            "there is no record of fish, of which 0.5 of all should be",
        ),
    ],
)
def test_what_can_t_be_joined(cats: hr.Dataset, fish: hr.Dataset, make: Any, said: str) -> None:
    if said == "Dataset is Dataset":  # one alone is itself
        assert make(cats, fish).fingerprint == cats.fingerprint
        return
    with pytest.raises(UsageError, match=said):
        make(cats, fish)


def test_parts_that_differ(cats: hr.Dataset, tmp_path: Path) -> None:
    kept = hr.ArrayDataset(np.zeros((2, 3)), dtype="keep")
    one = pack(Source(faces(4)), tmp_path / "one")
    two = pack(Source(faces(4), names=("nose", "left_ear", "right_ear")), tmp_path / "two")
    for parts, said in (
        ((cats, kept), r"cats and x can't be one dataset: they hold different things, images and arrays that are kept"),
        (
            (kept, hr.ArrayDataset(np.zeros((2, 4)), dtype="keep")),
            r"their arrays differ, float64 \[3\] and float64 \[4\]",
        ),
        (
            (kept, hr.ArrayDataset(np.zeros((2, 3)), np.zeros((2, 1)), dtype="keep")),
            r"of y, nothing and y float64 \[1\]",
        ),
        ((one, cats, two), r"one and two can't be one dataset: their keypoints differ, 3 \(nose, left_eye, .*left_ear"),
    ):
        with pytest.raises(UsageError, match=said):
            hr.concat(parts)
    with pytest.raises(TypeError):
        cats + 1  # type: ignore[operator]
    assert (one + cats).keypoints == 3


def test_keypoints_of_one_part(cats: hr.Dataset, tmp_path: Path) -> None:
    one = pack(Source(faces(6)), tmp_path / "one")
    both = cats[:2] + one
    for record in one:
        there = both[record.id]
        assert (there.keypoints is None) == (record.keypoints is None)
        assert record.keypoints is None or np.array_equal(there.keypoints, record.keypoints)
    assert both.keypoint_names == one.keypoint_names and both.store.keypoint_sets(both.rows) == one.store.keypoint_sets(
        one.rows
    )


def test_photos_are_prepared_as_all_parts_were(tmp_path: Path) -> None:
    some = photos(4)
    a, b, c = (pack(some, tmp_path / str(k), size=size) for k, size in enumerate((16, 16, 20)))
    assert (a + b).loader(size=8).preparation.pack_options["size"] == [16, 16]
    assert (a + c).loader(size=8).preparation.pack_options["size"] is None


# --- mix -------------------------------------------------------------------------------------------------------------


def of_fish(batches: Any) -> list[int]:
    return [sum(id_.startswith("f") for id_ in batch.ids) for batch in batches]


def test_each_batch_has_its_shares(cats: hr.Dataset, fish: hr.Dataset) -> None:
    mixed = hr.mix({cats: 0.7, fish: 0.3})
    assert len(mixed) == 70 and mixed.title == "cats + fish"
    assert repr(mixed).endswith("; mixed: 0.7 of cats, 0.3 of fish)")
    loader = mixed.loader(batch_size=10)
    assert loader.options.shuffle and len(loader) == 7 and loader.records == 70
    for _ in range(3):
        counts = of_fish(loader)
        assert sum(counts) == 21 and {*counts} <= {2, 3, 4}


def test_parts_are_gone_through_one_after_the_other(cats: hr.Dataset, fish: hr.Dataset) -> None:
    loader = hr.mix({cats: 0.2, fish: 0.8}).loader(batch_size=7)
    drawn = [id_ for _ in range(12) for batch in loader for id_ in batch.ids]
    for part, n in ((cats, 40), (fish, 30)):
        ids = {record.id for record in part}
        mine = [id_ for id_ in drawn if id_ in ids]
        for at in range(0, len(mine) - n + 1, n):
            assert len({*mine[at : at + n]}) == n  # every record once, before any comes again
        assert mine[:n] != mine[n : 2 * n]


def test_parts_are_shuffled_apart(cats: hr.Dataset) -> None:
    mixed = hr.mix({cats[:20]: 0.5, cats[20:]: 0.5})
    positions = mixed.loader(seed=3).sampling.at(0, 0, 40).positions
    one, two = positions[positions < 20], positions[positions >= 20] - 20
    assert sorted(one) == sorted(two) == [*range(20)] and (one == two).sum() < 8


def test_unshuffled_a_mix_is_all_once(cats: hr.Dataset, fish: hr.Dataset) -> None:
    mixed = hr.mix({cats: 0.9, fish: 0.1})
    ids = [id_ for batch in mixed.loader(shuffle=False) for id_ in batch.ids]
    assert ids == [record.id for record in cats + fish] == mixed.catalog["id"].to_list()


def test_views_of_a_mix_are_mixed(cats: hr.Dataset, fish: hr.Dataset) -> None:
    dogs = hr.mix({cats: 0.25, fish: 0.75}).where("label_name = 'dog'")
    loader = dogs.loader(batch_size=8)
    for _ in range(2):
        counts = of_fish(loader)
        assert all(abs(count - 0.75 * 8) <= 1 for count in counts[:-1])
    assert {id_ for batch in loader for id_ in batch.ids} <= {record.id for record in dogs}


def test_a_mix_of_mixes_has_their_shares(cats: hr.Dataset, fish: hr.Dataset, same_ids: hr.Dataset) -> None:
    mixed = hr.mix({hr.mix({cats: 0.5, fish: 0.5}): 0.5, same_ids: 0.5})
    assert mixed.store.shares == (0.25, 0.25, 0.5)
    joined = hr.mix({cats + fish: 0.5, same_ids: 0.5})
    assert joined.store.shares == (0.5, 0.5)
    counts = Counter(id_.split("/")[0] for batch in joined.loader(batch_size=8, take=800) for id_ in batch.ids)
    assert counts["others"] == 400 and abs(counts["cats + fish"] - 400) <= 1
    assert counts.keys() == {"others", "cats + fish"}


def test_parts_of_one_dataset_are_mixed(cats: hr.Dataset) -> None:
    mixed = hr.mix({cats.where("label_name = 'cat'"): 0.9, cats.where("label_name = 'dog'"): 0.1})
    (batch,) = list(mixed.loader(batch_size=100, take=100))
    assert np.bincount(batch.targets).tolist() == [90, 10]
    assert mixed["003"].image[0, 0, 0] == 3 and "where label_name = 'cat'" in repr(mixed)


def test_a_record_of_several_parts_is_found_in_each(cats: hr.Dataset) -> None:
    both = hr.mix({cats: 0.5, cats[5:9]: 0.5})
    ids = [record.id for record in cats[5:9]]
    for view, positions in (
        (both, [5, 6, 7, 8]),
        (both[40:], [0, 1, 2, 3]),
        (both[[2, 43, 41, 6]], [None, 3, None, 1]),
    ):
        for id_, position in zip(ids, positions, strict=True):
            assert (id_ in view) == (position is not None)
            if position is not None:
                assert view[[id_]].rows.tolist() == [view.rows[position]] and view[id_].id == id_
    assert both[40:][[ids[2], ids[0]]].rows.tolist() == [42, 40]


def test_weights_are_within_the_parts_of_a_mix(cats: hr.Dataset, fish: hr.Dataset) -> None:
    mixed = hr.mix({cats: 0.5, fish: 0.5})
    (batch,) = list(mixed.loader(batch_size=400, take=400, weights={"cat": 3, "ant": 0}))
    counts = Counter(
        (id_.startswith("f"), mixed.class_names[target]) for id_, target in zip(batch.ids, batch.targets, strict=True)
    )
    assert counts == {(False, "cat"): 150, (False, "dog"): 50, (True, "dog"): 100, (True, "fish"): 100}
    with pytest.raises(UsageError, match="weights are 0 for all records of fish"):
        mixed.loader(weights={"dog": 0, "ant": 0, "fish": 0})


def test_shares_belong_to_a_state(cats: hr.Dataset, fish: hr.Dataset) -> None:
    state = hr.mix({cats: 0.5, fish: 0.5}).loader().state_dict()
    hr.mix({cats: 0.5, fish: 0.5}).loader().load_state_dict(state)
    for other in (hr.mix({cats: 0.6, fish: 0.4}), cats + fish):
        with pytest.raises(UsageError, match="its dataset is"):
            other.loader(shuffle=True).load_state_dict(state)


def test_a_share_of_next_to_nothing(cats: hr.Dataset, fish: hr.Dataset, same_ids: hr.Dataset) -> None:
    loader = hr.mix({cats: 1 - 2e-10, fish: 1e-10, same_ids: 1e-10}).loader(batch_size=16)
    counts = Counter(id_.split("/")[0] for batch in loader for id_ in batch.ids)
    assert counts.total() == 80 and counts["cats"] >= 78
    # Of so many epochs each has an epoch.
    begun, ended = (order.quotas(epoch * 80, loader.sampling._shares) for epoch in (0, 10**10))
    assert [after - before for before, after in zip(begun, ended, strict=True)][1:] == [80, 80]


def test_a_mix_in_windows(cats: hr.Dataset, fish: hr.Dataset) -> None:
    loader = hr.mix({cats: 0.7, fish: 0.3}).loader(batch_size=10, order="windows")
    for _ in range(3):
        assert {*of_fish(loader)} <= {2, 3, 4}
    assert loader[3].ids != loader[4].ids


# --- far away --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched but what somebody asks for."""
    monkeypatch.setattr(ahead.Filling, "begin", lambda self: None)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"world": (1, 3), "batch_size": 15},
        {"cache": "memory"},
        {"weights": "balanced"},
        {"take": 30},
        {"repeat": 2},
        {"order": "windows"},
    ],
    ids=str,
)
@pytest.mark.parametrize("most", [None, 1 << 14])
def test_parts_that_are_far_away(
    cats: hr.Dataset, fish: hr.Dataset, options: dict[str, Any], most: int | None, tmp_path: Path
) -> None:
    """Two far datasets, each with a cache of its own, and a near one."""
    near = hr.ArrayDataset(np.full((9, 8, 8, 3), 77, np.uint8), ["dog"] * 9)
    far_cats, cats_place = far.opened(cats.path, tmp_path / "one", most)
    far_fish, fish_place = far.opened(fish.path, tmp_path / "two", most)
    for here, there in (
        (hr.concat([cats, near, fish]), hr.concat([far_cats, near, far_fish])),
        (hr.mix({cats: 0.5, fish: 0.4, near: 0.1}), hr.mix({far_cats: 0.5, far_fish: 0.4, near: 0.1})),
        (hr.mix({cats[:9]: 0.5, cats[9:]: 0.5}), hr.mix({far_cats[:9]: 0.5, far_cats[9:]: 0.5})),
    ):
        loaders = [ds.loader(**{"batch_size": 12, "shuffle": True} | options) for ds in (here, there)]
        for _ in range(3):
            for one, two in zip(*loaders, strict=True):
                assert one.ids == two.ids and np.array_equal(one.images, two.images)
                assert np.array_equal(one.targets, two.targets)
        assert np.array_equal(loaders[0][1].images, loaders[1][1].images)
        for left in loaders:
            with iter(left) as run:  # and to leave it ends it
                next(run)
    assert cats_place.requests and fish_place.requests


def test_what_is_far_of_several(cats: hr.Dataset, fish: hr.Dataset, tmp_path: Path) -> None:
    far_cats, far_fish = (far.opened(ds.path, tmp_path / ds.title)[0] for ds in (cats, fish))
    both = far_cats[::2] + cats[:3] + far_fish
    one, two = both.store.far
    assert one.copies is far_cats.store.copies and two.copies is far_fish.store.copies
    rows = both.rows[[50, 25, 7, 3, 21, 22, 40]]  # 20 of cats, 3 that are near, 30 of fish
    assert one.rows_of(rows).tolist() == far_cats.rows[[14, 6]].tolist()
    assert two.rows_of(rows).tolist() == far_fish.rows[[27, 2, 17]].tolist()
    (one,) = hr.mix({far_cats[:5]: 0.5, far_cats[5:]: 0.5}).store.far  # files are asked for once
    assert sorted(one.rows_of(np.arange(40)).tolist()) == list(range(40))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("options", [{}, {"take": 30}, {"weights": {"cat": 3}}, {"repeat": 2}], ids=str)
def test_what_comes_again_is_not_freed(cats: hr.Dataset, options: dict[str, Any], tmp_path: Path) -> None:
    distant, _ = far.opened(cats.path, tmp_path / "cache", 1 << 12)
    loader = distant.loader(batch_size=8, shuffle=True, **options)
    ahead_ = loader._ahead(1, range(3, len(loader)), before=3)
    assert isinstance(ahead_, ahead.Ahead)
    ahead_.take(3)
    assert distant.store.copies is not None
    distant.store.copies.there.set(distant.rows)  # as if the cache held them all
    used = [row for rows in ahead_.used() for row in rows.tolist()]
    assert bool(used) == ("repeat" not in options and "weights" not in options)
    ahead_.close()


@pytest.mark.usefixtures("quiet")
def test_a_store_that_fails_is_heard_of(cats: hr.Dataset, fish: hr.Dataset, tmp_path: Path) -> None:
    distant, place = far.opened(fish.path, tmp_path / "cache")
    far_cats, _ = far.opened(cats.path, tmp_path / "other")

    def fail(*_: object) -> None:
        raise hr.StorageError("the store is gone")

    place.before = fail
    for both in (cats + distant, far_cats + distant):
        with pytest.raises(hr.StorageError, match="the store is gone"):
            list(both.loader(batch_size=16, shuffle=True))


def test_windows_that_lie_by_class_are_warned_of(
    cats: hr.Dataset, fish: hr.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (cats + fish).loader(order="windows", shuffle=True)  # one window: nothing to be warned of
    assert not caplog.records


def test_pictures_of_all_sizes(tmp_path: Path, cats: hr.Dataset) -> None:
    large = pack([hr.Record(id="large", encoded=saved(picture(40, 30), "JPEG"), label_name="cat")], tmp_path / "large")
    both = cats + large
    assert both.image_size is None and cats.image_size == (8, 8) and both[:40].image_size == (8, 8)
    with pytest.raises(UsageError, match="differ in size"):
        both.loader()
    assert both.loader(size=8)[0].images.shape == (32, 8, 8, 3)
