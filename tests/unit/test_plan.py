"""The plan of a packing: classes, splits, order and shards, decided before any pixel is touched."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn import TINY_PNG, jpeg
from headrace.errors import DataError, UsageError
from headrace.imaging.codec import BadImage
from headrace.imaging.prepare import ImageOptions
from headrace.packing import divided, spool
from headrace.packing.plan import Numbered, Plan, make_plan
from headrace.record import Part, Record, Reject
from headrace.splits import check_splits
from said import Said


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def record(id_: str, label_name: str | None = None, **more: Any) -> Record:
    return Record(id=id_, encoded=TINY_PNG, label_name=label_name, origin=f"list.csv:{id_}", **more)


def plan(source: Iterable[Record | Reject], **options: Any) -> Plan:
    chosen: dict[str, Any] = {"splits": None, "shards": None, "shard_bytes": None, "seed": 0}
    folder = Path(tempfile.mkdtemp())
    return make_plan(source, folder / "plan", out=folder / "out", options=ImageOptions(), **chosen | options)


def planned(made: Plan, split: str | None = None) -> list[Numbered]:
    """The records of a plan, with their places in the source, in the order of packing."""
    shards = [shard for shard in made.shards if split in (None, shard.split)]
    return [one for shard in shards for one in made.records(shard.start, shard.stop)]


def ids(made: Plan, split: str | None = None) -> list[str]:
    return [one.item.id for one in planned(made, split)]


def many(n: int, *classes: str | None) -> list[Record]:
    return [record(f"r{i}", classes[i % len(classes)] if classes else None) for i in range(n)]


@pytest.mark.parametrize(
    ("items", "classes", "labels"),
    [
        # names, sorted naturally, whatever their order in the source
        (many(4, "c10", "c9"), ("c9", "c10"), [1, 0, 1, 0]),
        (many(4, "b", None), ("b",), [0, None, 0, None]),
        (many(3), (), [None, None, None]),
        # numbers alone
        ([record("a", label=2), record("b", label=0)], ("0", "1", "2"), [2, 0]),
        # names given: their order counts, and one without records stays
        (Said(many(3, "b", "a"), class_names=("z", "b", "a")), ("z", "b", "a"), [1, 2, 1]),
        (Said([record("x", label=1)], class_names=("no", "yes")), ("no", "yes"), [1]),
    ],
)
def test_classes(items: Any, classes: tuple[str, ...], labels: list[int | None]) -> None:
    made = plan(items)
    assert made.classes == classes
    found = {one.number: one.item for one in planned(made)}
    assert [found[i].label for i in range(len(found))] == labels
    for item in found.values():
        assert item.label_name == (None if item.label is None else classes[item.label])


def test_a_class_none_of_the_given_is_a_reject() -> None:
    made = plan(Said(many(3, "a", "b", None), class_names=("a",)))
    assert made.classes == ("a",) and made.seen == 3
    assert sorted(ids(made)) == ["r0", "r2"]
    ((number, reject),) = [(n.number, n.item) for n in made.rejects()]
    assert number == 1 and (reject.id, reject.origin, reject.stage) == ("r1", "list.csv:r1", "label")
    assert reject.reason == "class 'b' is none of the given a"


def test_a_class_with_a_line_break_is_a_reject() -> None:
    """The side files hold a class per line."""
    made = plan([record("a", "x\ny"), record("b", "x")])
    assert made.classes == ("x",) and [n.item.id for n in made.rejects()] == ["a"]


def test_a_label_of_any_length_is_a_reject() -> None:
    made = plan([record("a", label=1 << 63), record("b", label=0)])
    wanted = "wanted the number of a class, from 0 on, or None for no label"
    assert [n.item.reason for n in made.rejects()] == [f"label {1 << 63}, {wanted}"]


def test_a_second_record_of_an_id_is_a_reject() -> None:
    first, second, third = record("a", "x"), record("a", "y"), record("b", "x")
    made = plan([first, second, third])
    assert sorted(ids(made)) == ["a", "b"] and made.seen == 3
    assert made.classes == ("x",)
    (reject,) = [n.item for n in made.rejects()]
    assert isinstance(reject, Reject)
    assert reject.reason == "duplicate id 'a', first at list.csv:a"


def test_ids_that_only_look_alike_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints of 64 bits find duplicates; the ids themselves decide."""
    monkeypatch.setattr(spool, "hashes", lambda ids: [len(id_) for id_ in ids])
    refused = Reject(id="b", origin="list.csv:0", stage="read", reason="no")
    made = plan([refused, *map(record, ("a", "b", "c", "b", "ab", "b", "c", "abc"))])
    assert [(n.number, str(n.item)) for n in made.rejects()][1:] == [
        (4, "list.csv:b: duplicate id 'b', first at list.csv:b (label)"),
        (6, "list.csv:b: duplicate id 'b', first at list.csv:b (label)"),
        (7, "list.csv:c: duplicate id 'c', first at list.csv:c (label)"),
    ]
    assert sorted(one.number for one in planned(made)) == [1, 2, 3, 5, 8] and made.refused == 4


def test_one_that_is_refused_takes_no_id() -> None:
    items = [record("a", "strange"), record("a", "x"), record("a", "x"), record("b", "strange"), record("a", "strange")]
    made = plan(Said(items, class_names=("x",)))
    assert [one.number for one in planned(made)] == [1]
    assert [(n.number, str(n.item).split(": ")[1][:12]) for n in made.rejects()] == [
        (0, "class 'stran"),
        (2, "duplicate id"),
        (3, "class 'stran"),
        (4, "duplicate id"),
    ]


def test_many_duplicates() -> None:
    """Each of them is told from where the first one was read; what only they have is not the dataset's."""
    items = [record(f"r{i % 700}", f"c{i // 700}", boxes=BOX, box_labels=(f"b{i // 700}",)) for i in range(2000)]
    made = plan(items)
    assert (made.refused, made.classes, made.box_classes) == (1300, ("c0",), ("b0",))
    assert [(n.number, n.item.reason) for n in made.rejects()] == [
        (i, f"duplicate id 'r{i % 700}', first at list.csv:r{i % 700}") for i in range(700, 2000)
    ]


def test_a_source_is_read_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source without end no more is in memory than is to be written next; order and rejects know no batches."""
    whole = plan(Said(many(100, "a", "b", "c"), class_names=("a", "b")), seed=3)
    monkeypatch.setattr("headrace.packing.plan._BATCH", 7)
    monkeypatch.setattr(spool, "_BLOCK", 9)
    monkeypatch.setattr(divided, "_BLOCK", 5)
    parts = plan(Said(many(100, "a", "b", "c"), class_names=("a", "b")), seed=3)
    assert ids(parts) == ids(whole) and [*parts.rejects()] == [*whole.rejects()] and whole.refused == 33
    assert [(one.item.label, one.item.label_name) for one in planned(parts)] == [
        (one.item.label, one.item.label_name) for one in planned(whole)
    ]


class Counted(bytes):
    """Bytes that know how many of them there are at once."""

    alive = most = 0

    def __init__(self, *_: Any) -> None:
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self) -> None:
        Counted.alive -= 1


def test_bytes_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of records, of which 16 MB are held; and all of them are there again when they are asked for."""
    monkeypatch.setattr(Counted, "alive", 0)
    monkeypatch.setattr(Counted, "most", 0)
    made = plan((Record(id=str(i), encoded=Counted(bytes([i]) * 10**6)) for i in range(64)), shards=1)
    assert Counted.most < 20
    found = {one.number: one.item.encoded for one in planned(made)}
    assert found == {i: bytes([i]) * 10**6 for i in range(64)}


class Lazy(Record):
    """Makes its bytes itself, when they are read."""

    def read(self) -> bytes:
        if self.id == "bad":
            raise BadImage("decode", "nothing to see")
        if self.id == "gone":
            raise OSError(2, "No such file")
        return TINY_PNG


def test_records_that_read_in_their_own_way() -> None:
    made = plan([Lazy(id="good"), Lazy(id="bad", origin="x:1"), Lazy(id="gone")])
    assert [one.item.encoded for one in planned(made)] == [TINY_PNG]
    assert [str(n.item) for n in made.rejects()] == ["x:1: nothing to see (decode)", "gone: no such file (read)"]


def test_a_part_of_a_file_is_read_when_its_record_is_made(tmp_path: Path) -> None:
    (tmp_path / "all.tar").write_bytes(b"head" + TINY_PNG + b"tail")
    made = plan([Record(id="a", part=Part(str(tmp_path / "all.tar"), 4, len(TINY_PNG)))])
    (one,) = planned(made)
    assert isinstance(one.item, Record) and one.item.encoded is None and one.item.read() == TINY_PNG


@pytest.mark.parametrize("image", [{"path": "{}/a.jpg"}, {"part": "{}/all.tar"}])
def test_images_in_the_folder_that_would_be_replaced(tmp_path: Path, image: dict[str, str]) -> None:
    out = tmp_path / "out"
    ((kind, path),) = image.items()
    where: Any = path.format(out / "below")
    items = [record("other"), Record(id="a", **{kind: Part(where, 0, 1) if kind == "part" else where})]
    with pytest.raises(UsageError, match=r"out: images of the source lie in it \(.*below\); choose another place"):
        make_plan(
            items, tmp_path / "s", out=out, options=ImageOptions(), splits=None, shards=1, shard_bytes=None, seed=0
        )


@pytest.mark.parametrize("what", ["boxes", "keypoints"])
@pytest.mark.parametrize("given", [[[0, 0, 1, 1]], np.array(["x"]), np.array([None])])
def test_what_is_no_array_of_numbers_is_a_reject(what: str, given: Any) -> None:
    made = plan([record("a", **{what: given}), record("b")])
    ((number, reason),) = [(n.number, n.item.reason) for n in made.rejects()]
    assert number == 0 and reason.startswith(f"the {what} are ") and reason.endswith(", wanted an array float32")


def test_attributes_that_are_no_json_are_a_reject() -> None:
    made = plan([record("a", attributes={"n": np.int64(3)}), record("b", attributes={"x": object()})])
    ((number, reason),) = [(n.number, n.item.reason) for n in made.rejects()]
    assert number == 1 and reason.startswith("the attributes are no JSON: <object object") and made.seen == 2


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ([{"extra": "a"}, {"extra": "b"}, {}], ("extra",)),
        ([{"extra": "a"}, {"extra": 1}, {}], ()),
        ([{"class_conf": 1.0, "filename": "a"}, {"filename": "b", "other": [1]}], ("filename", "class_conf")),
        ([{"other": 1}], ()),
    ],
)  # fmt: skip
def test_attributes_that_become_features(attributes: list[dict[str, Any]], kept: tuple[str, ...]) -> None:
    items = [record(str(i), "x", attributes=some) for i, some in enumerate(attributes)]
    # One that is refused has no say in it.
    refused = record("no", "strange", attributes={"extra": 5, "object_id": ["a"], "filename": 3})
    assert plan(Said([*items, refused], class_names=("x",))).attributes == kept


def test_rejects_of_the_source_keep_their_place() -> None:
    refused = Reject(id="bad", origin="list.csv:2", stage="read", reason="no")
    made = plan([record("a"), refused, record("b")])
    assert made.seen == 3 and [*made.rejects()] == [Numbered(1, refused)]
    assert sorted(one.number for one in planned(made)) == [0, 2]


@pytest.mark.parametrize(
    ("n", "splits", "shards", "names"),
    [
        (10, None, None, ["train-00000-of-00001"]),
        (10, None, 3, ["train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003"]),
        # never a shard without a record
        (2, None, 16, ["train-00000-of-00002", "train-00001-of-00002"]),
        (10, {"a": 0.5, "b": 0.5}, 1, ["a-00000-of-00001", "b-00000-of-00001"]),
        (10, {"a": 0.9, "b": 0.1}, 2, ["a-00000-of-00002", "a-00001-of-00002", "b-00000-of-00001"]),
    ],
)
def test_shard_names(n: int, splits: Any, shards: int | None, names: list[str]) -> None:
    made = plan(many(n), splits=splits, shards=shards)
    assert [shard.name for shard in made.shards] == [f"{name}.tfrecord" for name in names]
    assert sorted(ids(made)) == sorted(f"r{i}" for i in range(n))


@pytest.mark.parametrize(("n", "shards"), [(10, 3), (100, 7), (99, 98)])
def test_shards_are_of_even_length(n: int, shards: int) -> None:
    lengths = [len(shard) for shard in plan(many(n), shards=shards).shards]
    assert len(lengths) == shards and sum(lengths) == n
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("share", [0.25, 1, 3.3, 100])
def test_shards_by_size(share: float) -> None:
    """As many as make shards of about that size: here records of one size, so nearly exactly."""
    data = jpeg(64, 64)
    items = [Record(id=f"r{i}", encoded=data) for i in range(200)]
    made = plan(items, shard_bytes=int((len(data) + 700) * 200 / share))
    assert len(made.shards) == max(1, round(share))


def test_the_default_size_is_one_shard_for_little() -> None:
    assert len(plan(many(50)).shards) == 1


def test_size_is_judged_without_the_unreadable() -> None:
    items = [Record(id="bad", encoded=b""), Record(id="gone", path="/nowhere/x.jpg"), *many(4)]
    assert len(plan(items, shard_bytes=1).shards) == 6
    assert len(plan(items[:2], shard_bytes=1).shards) == 1


@pytest.mark.parametrize("seed", [0, 42])
def test_splits_are_stratified(seed: int) -> None:
    labels = ["cat"] * 60 + ["dog"] * 30 + [None] * 10
    items = [record(f"r{i}", label) for i, label in enumerate(labels)]
    made = plan(items, splits={"train": 0.8, "val": 0.1, "test": 0.1}, seed=seed)
    found = {split: Counter(one.item.label_name for one in planned(made, split)) for split in made.splits}
    assert found == {
        "train": {"cat": 48, "dog": 24, None: 8},
        "val": {"cat": 6, "dog": 3, None: 1},
        "test": {"cat": 6, "dog": 3, None: 1},
    }
    assert list(made.splits) == ["train", "val", "test"]


def test_order_is_shuffled_by_seed_alone() -> None:
    items = many(100, "a", "b")
    one, again, other = (ids(plan(items, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert one != [item.id for item in items]
    assert np.mean([a == b for a, b in zip(one, other, strict=True)]) < 0.1
    # Nor do the labels lie in blocks: half of all neighbours differ.
    labels = [int(id_[1:]) % 2 for id_ in one]
    assert 30 < sum(a != b for a, b in itertools.pairwise(labels)) < 70


def test_the_number_of_shards_changes_nothing_of_the_order() -> None:
    items = many(100, "a", "b")
    splits = {"train": 0.7, "val": 0.3}
    assert ids(plan(items, splits=splits, shards=1)) == ids(plan(items, splits=splits, shards=9))


def test_boxes_and_their_names() -> None:
    box = BOX
    items = [
        record("a", boxes=box, box_labels=("x10",)),
        record("b", boxes=box, box_labels=("x9",)),
        record("c", boxes=box[:0]),
    ]
    made = plan(items)
    assert made.box_classes == ("x9", "x10") and made.with_boxes
    assert plan(items[2:]).with_boxes and plan(items[2:]).box_classes == ()
    assert not plan(many(2)).with_boxes


def points(k: int, n: int = 1, *, v: float = 2) -> np.ndarray:
    return np.concatenate([np.ones((n, k, 2)), np.full((n, k, 1), v)], axis=2).astype(np.float32)


FACE = ("nose", "left_eye", "right_eye")


@pytest.mark.parametrize(
    ("items", "k", "names", "pairs"),
    [
        (many(2), 0, (), ()),
        ([record("a", keypoints=points(3)), record("b")], 3, (), ()),
        # as most have; of equals the first
        ([record("a", keypoints=points(2)), *(record(f"r{i}", keypoints=points(3)) for i in range(2))], 3, (), ()),
        ([record("a", keypoints=points(2)), record("b", keypoints=points(3))], 2, (), ()),
        # as the source says
        (Said([record("a", keypoints=points(3))], keypoint_names=FACE), 3, FACE, ((1, 2),)),
        (Said([record("a", keypoints=points(3))], keypoint_names=FACE, flip_pairs=()), 3, FACE, ()),
        (Said([record("a", keypoints=points(3))], keypoint_names=FACE, flip_pairs=[[0, 2]]), 3, FACE, ((0, 2),)),
        (Said([record("a", keypoints=points(3))], flip_pairs=((0, 0), (2, 1))), 3, (), ((0, 0), (2, 1))),
        (Said([record("a", keypoints=points(3))], keypoint_names=None, flip_pairs=None), 3, (), ()),
        (Said(many(2), keypoint_names=FACE), 3, FACE, ((1, 2),)),
    ],
)
def test_keypoints(items: Any, k: int, names: tuple[str, ...], pairs: Any) -> None:
    made = plan(items)
    assert (made.keypoints, made.keypoint_names, made.flip_pairs) == (k, names, pairs)


BOX = np.array([[0, 0, 1, 1]], np.float32)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"keypoints": points(2)}, "2 keypoints per object, in this dataset they are 3"),
        ({"keypoints": points(3)[0]}, r"the keypoints have shape [3, 3], wanted [n, k, 3]"),
        ({"keypoints": points(3)[..., :2]}, r"the keypoints have shape [1, 3, 2], wanted [n, k, 3]"),
        ({"keypoints": points(3, 2), "boxes": BOX}, "1 boxes, 2 sets of keypoints"),
        ({"keypoints": points(3), "boxes": BOX[:0]}, "0 boxes, 1 sets of keypoints"),
        ({"keypoints": points(3, 2) * [[[1]], [[np.nan]]]}, "keypoint 0 of object 1 is [nan, nan, nan], wanted finite"),
        ({"keypoints": points(3) * [1, np.inf, 1]}, "keypoint 0 of object 0 is [1.0, inf, 2.0], wanted finite numbers"),
        ({"keypoints": points(3, v=0.5)}, "keypoint 0 of object 0 has v 0.5, wanted 0, 1 or 2"),
        ({"keypoints": points(3, v=3)}, "keypoint 0 of object 0 has v 3, wanted 0, 1 or 2"),
        ({"keypoints": points(3, v=-1)}, "keypoint 0 of object 0 has v -1, wanted 0, 1 or 2"),
    ],
)
def test_keypoints_that_are_none_are_a_reject(bad: Any, reason: str) -> None:
    refused = Reject(id="no", origin="list.csv:3", stage="read", reason="gone")
    good = [record("a", keypoints=points(3), boxes=BOX), record("b", keypoints=points(3, 0)), record("c")]
    made = plan([record("bad", **bad), *good, refused])
    assert sorted(ids(made)) == ["a", "b", "c"] and made.seen == 5
    rejects = [*made.rejects()]
    assert [n.number for n in rejects] == [0, 4]
    reject = rejects[0].item
    assert isinstance(reject, Reject) and (reject.id, reject.origin, reject.stage) == ("bad", "list.csv:bad", "label")
    assert reject.reason.startswith(reason)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"keypoint_names": ("a", "b", "a")}, "keypoint names a, b, a: one occurs twice"),
        ({"flip_pairs": ((0, 3),)}, r"flip pairs \(\(0, 3\),\): wanted pairs of the numbers 0 to 2"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "flip pairs .*each number once"),
        ({"flip_pairs": ((-1, 1),)}, "flip pairs"),
    ],
)
def test_what_a_source_says_wrongly_of_keypoints(more: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan(Said([record("a", keypoints=points(3))], **more))


def test_a_plan_can_be_sent_elsewhere() -> None:
    made = plan(many(20, "a", "b"), splits={"train": 0.5, "val": 0.5}, shards=2)
    sent = pickle.dumps(made)
    assert len(sent) < 3000
    there = pickle.loads(sent)
    assert ids(there) == ids(made)
    assert (there.classes, there.shards[0].name, there.options) == (made.classes, made.shards[0].name, made.options)


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        (None, {"train": 1.0}),
        ({"a": 1}, {"a": 1}),
        ({"train": 0.81, "val": 0.19}, {"train": 0.81, "val": 0.19}),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
    ],
)
def test_check_splits(splits: Any, wanted: dict[str, float]) -> None:
    assert check_splits(splits) == wanted


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": 0.8, "val": 0.3}, r"sum to 1\.1, wanted 1"),
        ({"train": 0.8}, r"sum to 0\.8, wanted 1"),
        ({}, "sum to 0, wanted 1"),
        ({"train": 1.5}, "'train': fraction 1.5, wanted above 0 and at most 1"),
        ({"train": 1, "val": 0}, "'val': fraction 0"),
        ({"train": 1.2, "val": -0.2}, "fraction 1.2"),
        ({"train": float("nan")}, "fraction nan"),
        ({"a/b": 1}, "split name 'a/b': wanted letters, digits and '_'"),
        ({"": 1}, "split name ''"),
        ({"é": 1}, "split name 'é'"),
        ({"../up": 1}, "split name"),
    ],
)
def test_splits_that_are_none(splits: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_splits(splits)


@pytest.mark.parametrize(
    ("items", "options", "error", "says"),
    [
        ([], {}, DataError, "the source: holds no images"),
        (many(3), {"shards": 0}, UsageError, "shards is 0, wanted 1 to 99999"),
        (many(3), {"shards": 100_000}, UsageError, "shards is 100000"),
        (many(3), {"shard_bytes": 0}, UsageError, "the shard size is 0 bytes, wanted at least 1"),
        (many(3), {"shards": 1, "shard_bytes": 1}, UsageError, "give shards or a shard size, not both"),
        (many(2), {"splits": {"a": 0.9, "b": 0.1}}, UsageError, "split 'b': 0.1 of 2 records is none; give it more"),
        (many(3), {"splits": "given"}, UsageError, "splits is 'given', and no record of the source says its split"),
        (many(3), {"splits": "own"}, UsageError, "splits is 'own', wanted fractions by name, or 'given'"),
        (Said(many(1, "a"), class_names=("a", "b", "a")), {}, UsageError, "class names a, b, a: one occurs twice"),
    ],
)
def test_calls_that_are_at_fault(items: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        plan(items, **options)


# --- labels that can't be, told by the other records -----------------------------------------------------------------

BIRDS = {"boxes": BOX, "box_labels": ("bird",)}


@pytest.mark.parametrize(
    ("bad", "said", "reason"),
    [
        ({"label": 2}, {"class_names": ("no", "yes")}, "label 2, wanted 0 to 1"),
        ({"label": 5}, {}, "label 5, wanted 0 to 1"),
        ({"label": -1}, {}, "label -1, wanted the number of a class, from 0 on, or None for no label"),
        (
            {"label": 7, "label_name": "no"},
            {},
            "label 7 with class name 'no', which is class 0; leave one of them out, or give class names in the order "
            "of labels",
        ),
        (
            {"label": 0, "label_name": "yes"},
            {"class_names": ("no", "yes")},
            "label 0 with class name 'yes', which is cl",
        ),
        (BIRDS, {"box_class_names": ("cat", "dog")}, "boxes of class bird, which is none of the source's cat, dog"),
        ({"split": "a/b"}, {}, "split name 'a/b': wanted letters, digits and '_'"),
    ],
)
def test_a_record_that_others_contradict_is_a_reject(bad: Any, said: Any, reason: str) -> None:
    split = {"split": "train"} if "split" in bad else {}
    good = [
        record("a", "no", label=0, **split),
        record("b", "yes", boxes=BOX, box_labels=("cat",), **split),
        record("c", label=1, **split),
    ]
    made = plan(Said([*good, record("bad", **bad)], **said))
    assert sorted(ids(made)) == ["a", "b", "c"] and made.classes == ("no", "yes")
    assert made.box_classes == said.get("box_class_names", ("cat",))
    ((number, reject),) = [(n.number, n.item) for n in made.rejects()]
    assert number == 3 and isinstance(reject, Reject) and reject.reason.startswith(reason)
    assert (reject.id, reject.origin, reject.stage) == ("bad", "list.csv:bad", "label")


def test_a_label_far_beyond_all_others_makes_no_classes() -> None:
    made = plan([record("a", label=1), record("b", label=1 << 30)])
    assert made.classes == ("0", "1")
    assert [n.item.reason for n in made.rejects()] == [f"label {1 << 30}, wanted 0 to 1"]


@pytest.mark.parametrize("id_", [None, 7, "", "\udcff", b"a"])
def test_an_id_that_is_none_is_shown(id_: Any) -> None:
    made = plan([record("a"), Record(id=id_, encoded=TINY_PNG, origin="l:2"), Record(id="c", origin=id_ or 0)])
    assert ids(made) == ["a"] and [n.number for n in made.rejects()] == [1, 2]
    for one in made.rejects():
        assert isinstance(one.item, Reject) and one.item.id and one.item.reason.startswith("the ")
        str(one.item).encode()


def test_what_rounding_leaves_over_goes_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fractions may miss 1 by a millionth, which half a million records would show; here two of four."""
    monkeypatch.setattr("headrace.packing.plan.shares", lambda of, fractions, seed: np.array([0, 1, -1, -1]))
    made = plan(many(4), splits={"a": 0.25, "b": 0.25, "c": 0.5})
    assert [*made.splits] == ["a", "b", "c"] and [len(ids(made, split)) for split in "abc"] == [1, 1, 2]


# --- splits that the records say -------------------------------------------------------------------------------------


def test_splits_that_records_say_are_kept() -> None:
    said = ["odd", "test", "train", "val", "train", None, "a b"]
    items = [record(f"r{i}", split=split) for i, split in enumerate(said)]
    for splits in (None, "given"):
        made = plan(items, splits=splits)
        assert made.splits == ("train", "val", "test", "odd") and made.notes == ()
        found = {split: sorted(ids(made, split)) for split in made.splits}
        assert found == {"train": ["r2", "r4"], "val": ["r3"], "test": ["r1"], "odd": ["r0"]}
        assert [(n.number, n.item.reason) for n in made.rejects()] == [
            (5, "it says no split, and others do (train, val, test, odd)"),
            (6, "split name 'a b': wanted letters, digits and '_'"),
        ]


def test_a_split_of_rejects_alone_is_none() -> None:
    made = plan([record("a", split="train"), record("b", split="val", label=-1), record("a", split="test")])
    assert made.splits == ("train",) and [shard.split for shard in made.shards] == ["train"]


def test_fractions_win_over_what_records_say() -> None:
    items = [record(f"r{i}", split="val") for i in range(4)]
    made = plan(Said(items, notes=["so it is"]), splits={"a": 0.5, "b": 0.5})
    assert [*made.splits] == ["a", "b"] and len(ids(made, "a")) == 2
    note = "the source's own splits (val) are not kept, as fractions were passed (splits)"
    assert made.notes == ("so it is", note)
