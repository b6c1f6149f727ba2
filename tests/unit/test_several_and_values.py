"""Records of several classes, and of values: packed, from arrays, and as targets, pictures and numbers of a dataset."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import picture
from headrace.errors import DataError, UsageError
from headrace.load.targets import Labels, default_target
from packed import pack, photos, shades
from shapes import NAMES, several, valued

# Which classes records 0 to 5 have; of the last nothing is said.
SAID: tuple[tuple[str, ...] | None, ...] = (("bee", "ant"), (), ("cow",), ("ant",), ("ant", "bee", "cow"), None)
CLASSES = ("ant", "bee", "cow")
HOT = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 0, 0]], np.float32)


class Named(list[hr.Record]):
    def __iter__(self) -> Any:
        yield from super().__iter__()
        return hr.sources.SourceInfo(class_names=CLASSES)


def labelled() -> Named:
    return Named(
        hr.Record(id=record.id, encoded=record.encoded, labels=said)
        for record, said in zip(shades(6, classes=()), SAID, strict=True)
    )


def measured(values: tuple[float | None, ...] = (0.5, None, -3.25, 1e6, 0.0, 2.0)) -> list[hr.Record]:
    return [
        hr.Record(id=record.id, encoded=record.encoded, value=value)
        for record, value in zip(shades(len(values), classes=()), values, strict=True)
    ]


def order_of(ds: hr.Dataset) -> list[int]:
    """The numbers of the records in the dataset's order, which is not that of their source."""
    return [int(id_) for id_ in ds.catalog["id"]]


# --- targets


def test_multi_label_is_which_classes_a_record_has() -> None:
    labels = Labels(classes=np.full(2, -1), size=(1, 1), several=np.array([[True, False, True], [False] * 3]))
    found = hr.MultiLabel().encode(labels)
    assert found.dtype == np.float32 and found.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert hr.MultiLabel().decode(found, ("a", "b", "c")) == [("a", "c"), ()]
    scores = np.array([[0.5, 0.9, 0.49], [0.2, 0.2, 0.2]])
    assert hr.MultiLabel().decode(scores, "abc") == [("b", "a"), ()]  # best first, and the threshold itself is enough
    assert hr.MultiLabel().decode(scores, "abc", threshold=0.2) == [("b", "a", "c"), ("a", "b", "c")]
    assert hr.MultiLabel().decode(np.zeros((0, 3)), "abc") == []
    with pytest.raises(UsageError, match=r"shape \[2, 3\], wanted \[b, 2\]"):
        hr.MultiLabel().decode(scores, ("a", "b"))
    with pytest.raises(UsageError, match="wanted"):
        hr.MultiLabel().decode(scores[0], "abc")


def test_value_is_a_number() -> None:
    labels = Labels(classes=np.full(2, -1), size=(1, 1), values=np.array([0.1, -7.0]))
    found = hr.Value().encode(labels)
    assert found.dtype == np.float32 and found.tolist() == [np.float32(0.1), -7]
    assert hr.Value().decode(found[:, np.newaxis]).tolist() == hr.Value().decode(found).tolist() == found.tolist()
    assert hr.Value().decode(found).dtype == np.float32
    with pytest.raises(UsageError, match=r"shape \[2, 2\], wanted \[b\] or \[b, 1\]"):
        hr.Value().decode(np.zeros((2, 2)))


# --- packed


def test_several_classes_come_back(tmp_path: Path) -> None:
    ds = pack(labelled(), tmp_path / "ds")
    assert ds.multi_label and ds.class_names == CLASSES and not ds.has_values
    assert ds.class_counts == {"ant": 3, "bee": 2, "cow": 2} and (ds.labels == -1).all()
    assert "3 classes, several to a record: ant 3, bee 2, cow 2" in repr(ds)
    for record in ds:
        said = SAID[int(record.id)]
        assert record.label is None and (record.labels is None) == (said is None)
        assert set(record.labels or ()) == set(said or ())
    rows = order_of(ds)
    batch = ds.loader(batch_size=6, shuffle=False, target=Raw())[0].targets
    assert np.array_equal(batch.several, HOT[rows] > 0) and batch.several.dtype == bool and batch.values.shape == (0,)
    # A view, in an order of its own and with one twice.
    view = ds[[rows.index(4), rows.index(1), rows.index(4)]]
    assert view.loader(shuffle=False)[0].targets.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert view.class_counts == {"ant": 2, "bee": 2, "cow": 2}


class Raw(hr.Target):
    """The labels as they are."""

    wants_boxes = False
    wants_keypoints = False

    def check(self, facts: hr.Facts) -> None:
        pass

    def encode(self, labels: Labels) -> Labels:
        return labels


def test_what_nothing_is_said_of_is_refused_with_the_remedy(tmp_path: Path) -> None:
    ds = pack(labelled(), tmp_path / "ds")
    with pytest.raises(DataError, match=r"of 1 of 6 records nothing is said of their classes; .*'labels IS NOT NULL'"):
        ds.loader()
    known = ds.where("labels IS NOT NULL")
    batch = known.loader(batch_size=8, shuffle=False)[0]
    assert isinstance(known.loader().options.target, hr.MultiLabel)
    assert np.array_equal(batch.targets, HOT[order_of(known)])
    with pytest.raises(UsageError, match=r"several classes here; leave target out, or pass MultiLabel\(\)"):
        known.loader(target=hr.Class())
    assert ds.where("labels IS NULL").loader()[0].targets is None
    measured_ = pack(measured(), tmp_path / "values")
    with pytest.raises(DataError, match=r"1 of 6 records have no value; .*'value IS NOT NULL'"):
        measured_.loader()
    for ds_, target, said in (
        (ds, hr.Value(), "the records have no values; leave target out"),
        (measured_, hr.MultiLabel(), "the records have no several classes; leave target out"),
    ):
        with pytest.raises(UsageError, match=said):
            ds_.loader(target=target)


def test_conditions(tmp_path: Path) -> None:
    ds = pack(labelled(), tmp_path / "ds")
    bees = ds.where("array_contains(label_names, 'bee')")
    assert sorted(order_of(bees)) == [0, 4] and bees.class_counts == {"ant": 2, "bee": 2, "cow": 1}
    assert sorted(order_of(ds.where("array_length(labels) = 0"))) == [1]
    values = pack(measured(), tmp_path / "values")
    assert sorted(order_of(values.where("value > 0.1"))) == [0, 3, 5]


def test_values_come_back(tmp_path: Path) -> None:
    ds = pack(measured(), tmp_path / "ds")
    assert ds.has_values and not ds.multi_label and ds.class_names == ()
    by_id = {record.id: record.value for record in ds}
    assert by_id == {"000": 0.5, "001": None, "002": -3.25, "003": 1e6, "004": 0.0, "005": 2.0}
    raw = ds.loader(batch_size=6, shuffle=False, target=Raw())[0].targets
    wanted = [np.nan if by_id[record.id] is None else by_id[record.id] for record in ds]
    assert raw.values.dtype == np.float64 and np.array_equal(raw.values, wanted, equal_nan=True)
    assert raw.several.shape == (0, 0)
    known = ds.where("value IS NOT NULL")
    found = known.loader(batch_size=8, shuffle=False)[0].targets
    assert found.dtype == np.float32 and found.tolist() == [record.value for record in known]
    assert "values -3.25 to 1e+06" in repr(ds)


def test_a_value_beyond_a_float32_is_refused(tmp_path: Path) -> None:
    ds = pack(measured((1.0, -1e39)), tmp_path / "ds")
    with pytest.raises(DataError, match=r"a value is 1e\+39 in size, more than float32 can hold"):
        ds.loader()


def test_the_target_that_comes_first(tmp_path: Path) -> None:
    """Boxes before the class, the class before several, several before the value."""

    def target(records: Any, name: str) -> Any:
        return default_target(pack(records, tmp_path / name).selection.facts(objects=False))

    every = [
        hr.Record(id=str(k), encoded=r.encoded, labels=r.labels, value=float(k)) for k, r in enumerate(labelled()[:5])
    ]
    assert target(every, "several") == hr.MultiLabel()
    assert target(measured(), "values") == hr.Value()
    one = [hr.Record(id=r.id, encoded=r.encoded, label_name="ab"[k % 2], value=1.0) for k, r in enumerate(shades(4))]
    assert target(one, "one") == hr.Class()
    boxed = [
        hr.Record(id=r.id, encoded=r.encoded, boxes=r.boxes, box_labels=r.box_labels, value=1.0)
        for r in photos(4, boxes=True)
    ]
    assert target(boxed, "boxed") == hr.Boxes()


def test_one_class_among_several_is_one_of_several(tmp_path: Path) -> None:
    records = [*labelled()[:2], hr.Record(id="one", encoded=shades(8)[7].encoded, label_name="cow")]
    ds = pack(records, tmp_path / "ds")
    assert ds["one"].labels == ("cow",) and ds["one"].label is None and ds.class_counts["cow"] == 1


def test_it_travels_into_other_processes(tmp_path: Path) -> None:
    """Pickled, and in a forked child that was never asked before."""
    ds = pack(labelled(), tmp_path / "ds").where("labels IS NOT NULL")
    wanted = HOT[order_of(ds)].tolist()
    assert pickle.loads(pickle.dumps(ds.loader(batch_size=5, shuffle=False)))[0].targets.tolist() == wanted
    view = hr.Dataset(tmp_path / "ds")[:3]
    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_counts, args=(view, send))
    child.start()
    assert receive.poll(60) and receive.recv() == list(view.class_counts.values())
    child.join()


def _counts(view: hr.Dataset, send: Any) -> None:
    send.send([*view.class_counts.values()])


# --- arrays

X = np.stack([picture(12, 10, seed=k) for k in range(6)])


def test_arrays_of_several_classes(tmp_path: Path) -> None:
    ds = hr.ArrayDataset(X, HOT, labels="multi", class_names=CLASSES)
    assert ds.multi_label and ds.class_counts == {"ant": 3, "bee": 2, "cow": 2}
    assert ds[0].labels == ("ant", "bee") and ds[1].labels == ()
    batch = ds.loader(batch_size=6, shuffle=False)[0]
    assert batch.targets.dtype == np.float32 and np.array_equal(batch.targets, HOT)
    assert order_of(ds.where("array_contains(label_names, 'cow')")) == [2, 4]
    assert hr.ArrayDataset(X, HOT > 0, labels="multi").class_names == ("0", "1", "2")
    again = hr.ArrayDataset(X, HOT.astype(int), labels="multi", class_names=CLASSES)
    other = hr.ArrayDataset(X, 1 - HOT, labels="multi", class_names=CLASSES)
    assert ds.fingerprint == again.fingerprint != other.fingerprint
    packed = pack(ds, tmp_path / "ds")  # type: ignore[arg-type]
    assert {record.id: set(record.labels or ()) for record in packed} == {r.id: set(r.labels or ()) for r in ds}
    assert packed.class_names == CLASSES


def test_arrays_of_values(tmp_path: Path) -> None:
    y = np.array([0.5, np.nan, -3.25, 1e6, 0, 2])
    ds = hr.ArrayDataset(X, y, labels="value")
    assert ds.has_values and ds[1].value is None and ds[3].value == 1e6 and ds.class_names == ()
    assert hr.ArrayDataset(X, [0.5, None, -3.25, 1e6, 0, 2], labels="value").fingerprint == ds.fingerprint
    assert hr.ArrayDataset(X, y[::-1], labels="value").fingerprint != ds.fingerprint
    known = ds.where("value IS NOT NULL")
    assert known.loader(batch_size=8, shuffle=False)[0].targets.tolist() == [0.5, -3.25, 1e6, 0, 2]
    assert hr.ArrayDataset(X, y[:, np.newaxis], labels="value").fingerprint == ds.fingerprint
    masked = np.ma.array(y, mask=[0, 0, 0, 0, 0, 1])
    assert hr.ArrayDataset(X, masked, labels="value")[5].value is None
    assert not hr.ArrayDataset(X, np.full(6, np.nan), labels="value").has_values
    kept = hr.ArrayDataset(X / 255, y, dtype="keep", labels="value").where("value IS NOT NULL")
    assert kept.loader(batch_size=8, shuffle=False)[0].targets.tolist() == [0.5, -3.25, 1e6, 0, 2]
    packed = pack(ds, tmp_path / "ds")  # type: ignore[arg-type]
    assert {record.id: record.value for record in packed} == {record.id: record.value for record in ds}


@pytest.mark.parametrize(
    ("y", "options", "said"),
    [
        (HOT[:5], {"labels": "multi"}, "x has 6 images, y has 5 rows"),
        (HOT[:, 0], {"labels": "multi"}, r"y: float32 \[6\], wanted numbers \[n, classes\]"),
        (HOT * 0.5, {"labels": "multi"}, r"y\[0, 0\] is 0.5, wanted 0 or 1: whether the image has class '0'"),
        (np.where(HOT > 0, np.nan, 0), {"labels": "multi"}, r"y\[0, 0\] is nan, wanted 0 or 1"),
        (HOT, {"labels": "multi", "class_names": "ab"}, "y has 3 columns, and there are 2 class names"),
        (HOT, {"labels": "multi", "class_names": "aab"}, "class_names a, a, b: one occurs twice"),
        (np.zeros((6, 0)), {"labels": "multi"}, "y has 0 columns, and there are 0 class names"),
        (None, {"labels": "multi"}, r"no y, wanted numbers \[n, classes\]"),
        (np.ma.masked_equal(HOT, 0), {"labels": "multi"}, "masked float32"),
        (HOT, {"labels": "value"}, r"y: float32 \[6, 3\], wanted numbers \[n\]"),
        (None, {"labels": "value"}, r"no y, wanted numbers \[n\]"),
        (np.zeros(5), {"labels": "value"}, "x has 6 images, y has 5 values"),
        (list("abcdef"), {"labels": "value"}, r"y\[0\] is 'a', wanted a number"),
        (np.array(list("123456")), {"labels": "value"}, "y: <U1"),
        ([1.0, 2, 3, 4, 5, 10**400], {"labels": "value"}, r"y\[5\] is inf, wanted a finite number"),
        ([1.0, np.inf, 3, 4, 5, 6], {"labels": "value"}, r"y\[1\] is inf, wanted a finite number"),
        (np.zeros(6), {"labels": "value", "class_names": "ab"}, "class_names name the classes of y, and y is values"),
        ({"a": np.zeros(6)}, {"labels": "value"}, "y is a dict of 'a', which is kept as it is"),
        # What is not told by its values is named.
        (HOT, {}, "wanted one-hot: .*; or labels='multi', where an image may have several; or labels='keep'"),
        (np.full(6, 0.5), {}, r"y\[0\] is 0.5, .*; or labels='value', where it is a number of each image; or labels="),
    ],
)
def test_arrays_that_are_refused(y: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        hr.ArrayDataset(X, y, **options)


# --- pictures and numbers


def test_captions_have_all_classes_and_the_value(tmp_path: Path) -> None:
    from headrace.load.show import tile

    ds = pack(labelled(), tmp_path / "ds")
    lines = {record.id: tile(ds, i, side=40).caption.split("\n") for i, record in enumerate(ds)}
    assert set(lines["000"][0].split(", ")) == {"ant", "bee"} and lines["001"] == ["none of the classes", "001"]
    assert lines["005"] == ["005"]
    names = tuple(f"name {k}" for k in range(12))
    many = pack([hr.Record(id="x", encoded=labelled()[0].encoded, labels=names)], tmp_path / "many")
    assert ", ".join(names) == " ".join(tile(many, 0, side=40).caption.split("\n")[:-1])
    values = pack(measured(), tmp_path / "values")
    shown = [tile(values, i, side=40).caption for i in range(6)]
    assert {"0.5\n000", "001", "-3.25\n002", "1e+06\n003"} <= set(shown)


def test_a_batch_shows_what_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets decoded where they are ours; else all that is known."""
    from headrace.load import show

    seen: list[str] = []
    plain = show.contact_sheet
    monkeypatch.setattr(
        show, "contact_sheet", lambda tiles, **more: seen.extend(t.caption for t in tiles) or plain(tiles, **more)
    )
    ds = pack(labelled(), tmp_path / "ds").where("labels IS NOT NULL")
    values = pack(measured(), tmp_path / "values").where("value IS NOT NULL")
    for shown, target, wanted in (
        (ds, None, {"ant\n003", "cow\n002", "none of the classes\n001"}),
        (ds, Raw(), {"ant\n003", "cow\n002", "001"}),
        (values, None, {"0.5\n000", "-3.25\n002", "1e+06\n003", "0\n004", "2\n005"}),
        (values, Raw(), {"0.5\n000", "-3.25\n002", "1e+06\n003", "0\n004", "2\n005"}),
    ):
        seen.clear()
        shown.show(5, batch=True, target=target, shuffle=False)
        assert wanted <= set(seen), target


def test_info_counts_each_class_and_tells_of_values(tmp_path: Path) -> None:
    pack(labelled(), tmp_path / "ds")
    found = json.loads(headrace("info", tmp_path / "ds", "--json").out)
    assert (found["multi_label"], found["classes"]) == (True, {"ant": 3, "bee": 2, "cow": 2})
    assert (found["unlabelled"], found["values"], found["missing_classes"]) == (1, None, {})
    said = headrace("info", tmp_path / "ds").out
    assert "  classes  ant 3, bee 2, cow 2; an image may have several\n  without a label 1\n" in said
    pack(measured(), tmp_path / "values")
    found = json.loads(headrace("info", tmp_path / "values", "--json").out)
    assert found["values"] == {"mean": 199999.85, "median": 0.5, "min": -3.25, "max": 1e6, "without": 1}
    said = headrace("info", tmp_path / "values").out
    assert "  values   mean 200000, median 0.5, -3.25 to 1e+06; 1 images without one\n" in said


def test_the_drawn_ones_are_what_they_say(tmp_path: Path) -> None:
    """What other tests learn from: each class is there and missing, values are all there."""
    ds = pack(several(60), tmp_path / "several")
    assert ds.class_names == NAMES and all(5 < n < 55 for n in ds.class_counts.values())
    assert any(record.labels == () for record in ds)
    low, high = pack(valued(60), tmp_path / "valued").selection.facts(objects=False).value_range or (0, 0)
    assert 30 <= low < 60 and 170 < high < 200
