"""A source per split: each stands as it would alone, ids stay unique, and what sources say of all must agree."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from drawn import files, jpeg, photos
from headrace.errors import DataError, UsageError
from headrace.imaging.prepare import ImageOptions
from headrace.packing import divided, spool
from headrace.packing.divided import Divided
from headrace.packing.plan import make_plan
from headrace.place import local
from headrace.record import Record, Reject
from headrace.sources import SourceInfo
from packed import CLASSES, shades
from said import Said

PATTERN = r"^(?P<label>cat|dog)\."


def named(*ids: str) -> list[Record]:
    (one,) = shades(1)
    return [Record(id=id_, encoded=one.encoded, origin=id_) for id_ in ids]


def pack(source: Any, out: Path, **options: Any) -> hr.PackReport:
    return hr.pack(source, out, **{"progress": False} | options)


def planned(sources: dict[str, Any]) -> list[Record]:
    """The records of a plan of these sources, in the order of the sources."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"splits": None, "shards": 1, "shard_bytes": None, "seed": 0}
        made = make_plan(
            Divided(sources), Path(folder) / "plan", out=Path(folder) / "out", options=ImageOptions(), **options
        )
        found = sorted(made.records(0, made.shards[-1].stop), key=lambda one: one.number)
        return [one.item for one in found if isinstance(one.item, Record)]


def ids(folder: Path, split: str) -> list[str]:
    return hr.Dataset(folder).split(split).catalog["id"].to_list()


@pytest.mark.parametrize("options", [{}, {"shards": 4, "seed": 7}, {"shard_size": 500}])
def test_each_split_stands_as_its_source_would_alone(options: dict[str, Any], tmp_path: Path) -> None:
    a, b = shades(90)[:60], shades(90)[60:]
    report = pack({"train": a, "val": b}, tmp_path / "both", **options)
    pack(a, tmp_path / "a", **options)
    pack(b, tmp_path / "b", **options)
    assert ids(tmp_path / "both", "train") == ids(tmp_path / "a", "train")
    assert ids(tmp_path / "both", "val") == ids(tmp_path / "b", "train")
    assert report.splits == {"train": 60, "val": 30} and report.seen == report.stored == 90
    # So training on either begins alike.
    first = [hr.Dataset(tmp_path / name).split("train").loader(size=8, batch_size=7)[0] for name in ("both", "a")]
    assert first[0].ids == first[1].ids and np.array_equal(first[0].images, first[1].images)


def test_the_order_of_the_mapping_is_that_of_the_splits_and_nothing_else(tmp_path: Path) -> None:
    a, b = named(*"abcdef"), named(*"cdxyz")
    pack({"train": a, "val": b}, tmp_path / "one", shards=2)
    pack({"val": b, "train": a}, tmp_path / "two", shards=2)
    for split in ("train", "val"):
        assert ids(tmp_path / "one", split) == ids(tmp_path / "two", split)
    assert list(hr.Dataset(tmp_path / "one").splits) == ["train", "val"]
    assert list(hr.Dataset(tmp_path / "two").splits) == ["val", "train"]
    for shard in (tmp_path / "one").glob("*.tfrecord"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()
    assert json.loads((tmp_path / "two" / "headrace.json").read_text())["pack_options"]["splits"] == ["val", "train"]


@pytest.mark.parametrize("workers", [2, 5])
def test_the_same_bytes_for_any_number_of_workers(workers: int, tmp_path: Path) -> None:
    content = {"cat.1.jpg": b"", "dog.2.jpg": jpeg()[:300], "7.jpg": jpeg()}
    roots = {split: photos(files(tmp_path / split, content), n) for split, n in (("train", 30), ("val", 12))}
    folders = []
    for number in (1, workers):
        sources = {split: hr.sources.names(root, pattern=PATTERN) for split, root in roots.items()}
        out = tmp_path / str(number) / "ds"
        report = pack(sources, out, workers=number, shards=3, size=16, max_rejects=1.0)
        folders.append({path.name: local.digest(path) for path in out.iterdir()})
        assert report.seen == report.stored + len(report.rejects) == 48 and len(report.rejects) == 4
    assert folders[0] == folders[1]


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        ({"a": "x y", "b": "z"}, {"a": "x y", "b": "z"}),
        ({"a": "x y", "b": "y z"}, {"a": "x a/y", "b": "b/y z"}),
        ({"a": "x", "b": "x", "c": "x y"}, {"a": "a/x", "b": "b/x", "c": "c/x y"}),
        # One that another one becomes.
        ({"a": "x a/x", "b": "x"}, {"a": "a/x a/a/x", "b": "b/x"}),
        ({"a": "x", "b": "x a/x"}, {"a": "a/x", "b": "b/x b/a/x"}),
        ({"a": "x a/x a/a/x", "b": "x b/x"}, {"a": "a/x a/a/x a/a/a/x", "b": "b/x b/b/x"}),
        # Two of one source are what they have always been: the second is a Reject.
        ({"a": "x x", "b": "z"}, {"a": "x", "b": "z"}),
        ({"a": "x x", "b": "x"}, {"a": "a/x", "b": "b/x"}),
    ],
)
@pytest.mark.parametrize("alike", [False, True])
def test_ids_of_several_splits(
    sources: dict[str, str], wanted: dict[str, str], alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alike:  # ids decide, not what they are found by
        for module in (divided, spool):
            monkeypatch.setattr(module, "hashes", lambda ids: [len(id_) % 2 for id_ in ids])
    for order in (list(sources), list(sources)[::-1]):
        found: dict[str, list[str]] = {split: [] for split in sources}
        for record in planned({split: named(*sources[split].split()) for split in order}):
            assert record.split is not None and record.origin == record.id
            found[record.split].append(record.id)
        assert found == {split: some.split() for split, some in wanted.items()}


def test_an_origin_of_its_own_stays() -> None:
    (one,) = shades(1)
    items = [Record(id="x", encoded=one.encoded, origin="list.csv:3")]
    assert [(r.id, r.origin) for r in planned({"a": items, "b": items})] == [
        ("a/x", "list.csv:3"),
        ("b/x", "list.csv:3"),
    ]


names = st.lists(st.sampled_from(["x", "y", "a/x", "b/x", "a/a/x", "b/a/x", "a/b/x"]), min_size=1, unique=True)


@given(st.dictionaries(st.sampled_from("abc"), names, min_size=1))
def test_ids_are_unique_and_few_are_changed(sources: dict[str, list[str]]) -> None:
    made = planned({split: named(*some) for split, some in sources.items()})
    assert len({item.id for item in made}) == len(made) == sum(map(len, sources.values()))
    counts = Counter(id_ for some in sources.values() for id_ in some)
    changed = {id_ for split, some in sources.items() for id_ in some if f"{split}/{id_}" in {i.id for i in made}}
    assert changed >= {id_ for id_, n in counts.items() if n > 1}
    if all(n == 1 for n in counts.values()):
        assert sorted(item.id for item in made) == sorted(counts)


def test_folders_of_the_same_names(tmp_path: Path) -> None:
    """Two roots of one layout, as everybody has them; what can't be read is found by its path."""
    for split in ("train", "val"):
        files(tmp_path / split, {"cat/1.jpg": jpeg(seed=len(split)), "dog/2.jpg": b"" if split == "val" else jpeg()})
    files(tmp_path / "val", {"dog/3.jpg": jpeg(), "notes.txt": b""})
    sources = {split: hr.sources.folders(tmp_path / split) for split in ("train", "val")}
    report = pack(sources, tmp_path / "out", max_rejects=1)
    ds = hr.Dataset(tmp_path / "out")
    assert sorted(ds.catalog["id"]) == ["dog/3.jpg", "train/cat/1.jpg", "train/dog/2.jpg", "val/cat/1.jpg"]
    (reject,) = report.rejects
    assert (reject.id, reject.origin) == ("val/dog/2.jpg", str(tmp_path / "val" / "dog" / "2.jpg"))
    assert report.skipped == {".txt": 1} and report.seen == 5 and report.classes == ("cat", "dog")


def test_a_second_record_of_one_source_is_a_reject(tmp_path: Path) -> None:
    report = pack({"a": named("x", "x", "y"), "b": named("y", "z")}, tmp_path / "out", max_rejects=1)
    (reject,) = report.rejects
    assert reject.reason == "duplicate id 'x', first at x"
    assert sorted(hr.Dataset(tmp_path / "out").catalog["id"]) == ["a/y", "b/y", "x", "z"]


# --- what sources say of all -----------------------------------------------------------------------------------------


def test_classes_of_all_records(tmp_path: Path) -> None:
    report = pack({"a": shades(4, classes=("x10", "x9")), "b": shades(3, classes=("x1",))}, tmp_path / "out")
    assert report.classes == ("x1", "x9", "x10")


def test_one_that_says_its_classes_says_them_for_all(tmp_path: Path) -> None:
    report = pack({"a": shades(6), "b": Said(shades(3), class_names=[*CLASSES, "dog"])}, tmp_path / "one")
    assert report.classes == (*CLASSES, "dog")
    report = pack({"a": Said(shades(3), class_names=("ant", "bee")), "b": shades(3)}, tmp_path / "two", max_rejects=2)
    assert [reject.reason for reject in report.rejects] == ["class 'cow' is none of the given ant, bee"] * 2


@pytest.mark.parametrize(
    ("name", "one", "other", "says"),
    [
        ("class_names", ("ant", "bee", "cow"), ("ant", "cow"), "'a' are ant, bee, cow, those of split 'c' ant, cow"),
        ("box_class_names", ("x",), ("y",), "'a' are x, those of split 'c' y"),
        ("keypoint_names", ("l", "r"), ("r", "l"), "'a' are l, r, those of split 'c' r, l"),
        ("flip_pairs", ((0, 1),), (), r"'a' are \(0, 1\), those of split 'c' none"),
    ],
)
def test_what_they_say_must_be_the_same(name: str, one: Any, other: Any, says: str, tmp_path: Path) -> None:
    def sources(last: Any) -> dict[str, Any]:
        return {"a": Said(shades(3), **{name: one}), "b": shades(3), "c": Said(shades(3), **{name: last})}

    with pytest.raises(UsageError, match=f"{name} of split {says}; one dataset has one list: "):
        pack(sources(other), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    if name != "flip_pairs":
        pack(sources(one), tmp_path / "out")


def test_what_they_counted_is_summed(tmp_path: Path) -> None:
    counts = {"boxes_dropped": Counter(a=1), "keypoints_dropped": Counter(b=2), "skipped": Counter({".txt": 3})}
    report = pack({"a": Said(shades(1), **counts), "b": Said(shades(2), **counts), "c": shades(1)}, tmp_path / "out")
    assert (report.boxes_dropped, report.keypoints_dropped, report.skipped) == ({"a": 2}, {"b": 4}, {".txt": 6})


def once(name: str) -> Generator[Record, None, SourceInfo]:
    """A generator, which can be read once, and says its names when it was."""
    (one,) = shades(1)
    yield Record(id=name, encoded=one.encoded, boxes=np.ones((0, 4), np.float32), box_labels=())
    return SourceInfo(box_class_names=(name,))


def test_what_generators_say(tmp_path: Path) -> None:
    pack({"a": once("x"), "b": once("x")}, tmp_path / "out")
    assert hr.Dataset(tmp_path / "out").manifest.box_classes == ("x",)
    with pytest.raises(UsageError, match="box_class_names of split 'a' are x, those of split 'b' y"):
        pack({"a": once("x"), "b": once("y")}, tmp_path / "other")


def test_sources_are_read_one_record_at_a_time() -> None:
    """Neither is a list made of a source, nor is the next one begun before the first was read."""
    begun: list[str] = []

    def source(split: str) -> Iterator[Record]:
        begun.append(split)
        yield from named("x", "y")

    items = iter(Divided({split: source(split) for split in "ab"}))
    seen = [(next(items).id, [*begun]) for _ in range(4)]
    assert seen == [("x", ["a"]), ("y", ["a"]), ("x", ["a", "b"]), ("y", ["a", "b"])]


# --- calls and data at fault -----------------------------------------------------------------------------------------

REFUSED = Reject(id="no", origin="list.csv:3", stage="read", reason="gone")


@pytest.mark.parametrize(
    ("sources", "options", "error", "says"),
    [
        ({"a": shades(2)}, {"splits": {"a": 1.0}}, UsageError, "comes divided into a already; leave splits out"),
        ({}, {}, UsageError, "no source: wanted one, or one per split"),
        ({"a b": shades(2)}, {}, UsageError, "split name 'a b': wanted letters, digits and '_'"),
        ({1: shades(2)}, {}, UsageError, "split name 1: wanted letters"),
        ({"a": shades(2), "b": []}, {}, DataError, "split 'b': the source: holds no images"),
        ({"a": [], "b": []}, {}, DataError, "split 'a': the source: holds no images"),
        ({"a": Said([], root="x", skipped={".txt": 2})}, {}, DataError, r"'a': x: holds no images \(passed over: 2"),
        ({"a": shades(9), "b": [REFUSED]}, {"max_rejects": 1}, DataError, "'b': none of its 1 records can be .*gone"),
        ({"a": shades(2), "b": "folder"}, {}, UsageError, "the source gives 'f', wanted Records and Rejects"),
        (
            {"a": Said(shades(2), class_names=("ant", "bee")), "b": shades(3)[2:]},
            {"max_rejects": 1},
            DataError,
            "split 'b': none of its images can be used",
        ),
    ],
)  # fmt: skip
def test_at_fault(sources: Any, options: dict[str, Any], error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        pack(sources, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_source_that_says_its_splits_itself(tmp_path: Path) -> None:
    """What a mapping becomes is open to every source: `split_names`, and each record's own."""
    (one,) = shades(1)
    items = [Record(id=str(k), encoded=one.encoded, split="ab"[k % 2]) for k in range(6)]
    odd = Record(id="odd", encoded=one.encoded, split="c"), Record(id="none", encoded=one.encoded)
    report = pack(Said([*items, *odd], split_names=("b", "a")), tmp_path / "out", max_rejects=2)
    assert list(report.splits.items()) == [("b", 3), ("a", 3)] and sorted(ids(tmp_path / "out", "b")) == ["1", "3", "5"]
    assert [reject.reason for reject in report.rejects] == [
        "split 'c' is none of the source's b, a",
        "it says no split, and others do (b, a)",
    ]
    with pytest.raises(UsageError, match="split name 'a b': wanted letters"):
        pack(Said(items, split_names=("a b",)), tmp_path / "no")


def test_a_dataset_has_splits_of_another_kind(tmp_path: Path) -> None:
    """They are kept, and its records can be packed anew as they always could: by fractions."""
    pack({"a": shades(6)[:4], "b": shades(6)[4:]}, tmp_path / "one")
    assert pack(hr.Dataset(tmp_path / "one"), tmp_path / "again").splits == {"a": 4, "b": 2}
    report = pack(hr.Dataset(tmp_path / "one"), tmp_path / "two", splits={"x": 0.5, "y": 0.5})
    assert report.splits == {"x": 3, "y": 3}
