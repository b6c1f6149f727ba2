"""Edits: one block is one version or none; what it says holds for who reads, earlier versions stay what they are."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import jpeg, picture, saved
from headrace.errors import (
    ConflictError,
    DamageError,
    DataError,
    HeadraceError,
    StorageError,
    UnknownIdError,
    UsageError,
)
from headrace.format import manifest, versions
from headrace.learn import parts
from headrace.place.open import at
from headrace.record import Mask
from packed import CLASSES, faces, flip, pack, photos, shades


def files(folder: Path) -> dict[str, str]:
    """Name -> digest of all files."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(path: Path, **options: Any) -> Any:
    return hr.edit(path, **{"why": "as it should be", "by": "ana"} | options)


def rows(ds: hr.Dataset, *columns: str) -> dict[str, Any]:
    """Id -> values."""
    return {row[0]: row[1:] for row in ds.catalog.select("id", *columns).iter_rows()}


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    out = tmp_path / "cats"
    pack(photos(30, boxes=True), out, shards=2, splits={"train": 0.7, "val": 0.3})
    return out


def first(path: Path, k: int) -> list[str]:
    return hr.Dataset(path).catalog["id"].to_list()[:k]


# --- what holds after an edit -----------------------------------------------------------------------------------------


def test_all_verbs_of_a_block_are_one_version(cats: Path) -> None:
    before, old = files(cats), hr.Dataset(cats)
    with edit(cats) as e:
        assert e.relabel("dog", ids=["dir/001.jpeg", "dir/003.jpeg"]) == 2
        assert e.drop(ids="dir/005.jpeg") == 1
        assert e.move("val", ids=["dir/006.jpeg"]) + e.move("train", ids=["dir/006.jpeg"]) >= 1
        assert e.boxes("dir/002.jpeg", [[1, 2, 9, 9.5], [0, 0, 400, 5]], ["left", "cow"]) == 1
        assert e.version is None
    assert e.version == 2
    ds = hr.Dataset(cats)
    assert (ds.version, len(ds), len(old), old.version) == (2, 29, 30, 1)
    assert ds.class_names == (*CLASSES, "dog") and ds.class_counts["dog"] == 2 and ds["dir/001.jpeg"].label == 3
    record = ds["dir/002.jpeg"]
    assert record.boxes is not None and record.box_labels == ("left", "cow")
    assert record.boxes.tolist() == [[1, 2, 9, 9.5], [0, 0, record.width, 5]]  # cut to its image
    assert "dir/005.jpeg" not in set(ds.catalog["id"]) and ds["dir/006.jpeg"].split == "train"
    with pytest.raises(UnknownIdError, match="it was dropped, and earlier versions have it"):
        ds["dir/005.jpeg"]
    assert sum(ds.splits.values()) == 29 == sum(len(ds.split(name)) for name in ds.splits)
    assert ds.manifest.boxes == int(ds.catalog["boxes"].list.len().sum())
    # Nothing that was there is another file now, but the head.
    after = files(cats)
    assert {name for name in before if after.get(name) != before[name]} == {"headrace.json"}
    assert {*after} - {*before} == {"catalog-0002.parquet", "versions/0001.json"}
    assert after["versions/0001.json"] == before["headrace.json"]
    assert ds.verify().ok


def test_every_reader_leaves_dropped_records_out(cats: Path, tmp_path: Path) -> None:
    gone = {*first(cats, 3)}
    with edit(cats) as e:
        e.drop(ids=[*gone])
    ds = hr.Dataset(cats)
    assert len(ds) == 27 == len(list(ds)) == len(ds.catalog) == len(ds.labels) == sum(ds.class_counts.values())
    assert len(ds.where("height > 0")) == 27 == sum(map(len, ds.divide({"a": 0.5, "b": 0.5})))
    assert {id_ for batch in ds.loader(batch_size=5, size=16) for id_ in batch.ids} == {*ds.catalog["id"]}
    assert len(pack(list(ds), tmp_path / "again")) == 27
    ds.export(tmp_path / "csv", format="csv", progress=False)
    assert len(list((tmp_path / "csv").rglob("*.jpeg"))) == 27
    assert not gone & {record.id for record in ds}
    ds.report(tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text()
    assert not [id_ for id_ in gone if id_ in report] and all(id_ in report for id_ in ds.catalog["id"][:3])
    assert pickle.loads(pickle.dumps(ds)).catalog.equals(ds.catalog)


def test_copies_that_were_dropped_are_none(tmp_path: Path) -> None:
    out, copy = tmp_path / "cats", photos(20)[7].encoded
    pack([*photos(20), hr.Record(id="copy", encoded=copy)], out)
    assert [[image.id for image in group.images] for group in hr.duplicates(hr.Dataset(out), near=False).groups] == [
        ["copy", "dir/007.jpeg"]
    ]
    with edit(out) as e:
        e.drop(ids="copy")
    assert hr.duplicates(hr.Dataset(out), near=False).groups == ()
    assert len(hr.duplicates(hr.Dataset(out, version=1), near=False).groups) == 1


def test_earlier_versions_stay_open_and_can_be_opened(cats: Path) -> None:
    old = hr.Dataset(cats)
    kept = pickle.dumps(old)
    with edit(cats) as e:
        e.relabel("dog", ids="dir/001.jpeg")
        e.drop(ids="dir/002.jpeg")
    for ds in (old, hr.Dataset(cats, version=1), hr.Dataset(f"{cats}@1"), pickle.loads(kept)):
        assert (ds.version, len(ds), ds["dir/001.jpeg"].label_name) == (1, 30, "bee")
        assert ds["dir/002.jpeg"].image.shape and ds.fingerprint == old.fingerprint and ds.verify().ok
    new = hr.Dataset(f"{cats}@2")
    assert new.version == 2 and new.fingerprint != old.fingerprint
    with pytest.raises(UsageError, match=r"has no version 3; it has versions 1 to 2"):
        hr.Dataset(f"{cats}@3")
    with pytest.raises(UsageError, match="no version 0"):
        hr.Dataset(cats, version=0)
    for odd in ("2", 2.0, True):
        with pytest.raises(UsageError, match="wanted the number of one"):
            hr.Dataset(cats, version=odd)  # type: ignore[arg-type]


def test_a_path_that_is_there_is_no_version(tmp_path: Path) -> None:
    pack(photos(6), tmp_path / "cats@1")
    pack(photos(9), tmp_path / "cats")
    assert len(hr.Dataset(tmp_path / "cats@1")) == 6
    assert len(hr.Dataset(tmp_path / "cats")) == 9


def test_nothing_is_made_by_an_exception_or_of_nothing(cats: Path) -> None:
    before = files(cats)

    def interrupted() -> None:
        with edit(cats) as e:
            e.relabel("dog", ids="dir/001.jpeg")
            e.append([hr.Record(id="new", encoded=saved(picture(9, 9), "PNG"))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert files(cats) == before
    with edit(cats) as e:
        assert e.relabel("bee", ids="dir/001.jpeg") == 0
        assert e.move(hr.Dataset(cats)["dir/001.jpeg"].split, ids="dir/001.jpeg") == 0
        kept = hr.Dataset(cats)["dir/003.jpeg"]
        assert kept.boxes is not None and len(kept.boxes) == 3
        assert e.boxes("dir/003.jpeg", kept.boxes, kept.box_labels) == 0
    assert files(cats) == before and e.version is None
    with edit(cats):
        pass
    assert files(cats) == before


def test_a_verb_sees_what_those_before_it_did(cats: Path) -> None:
    with edit(cats) as e:
        e.relabel("dog", ids=["dir/001.jpeg", "dir/002.jpeg"])
        assert e.move("val", where="label_name = 'dog'") <= 2
        assert e.drop(where="label_name = 'dog' AND id = 'dir/001.jpeg'") == 1
        with pytest.raises(UnknownIdError, match=r"no record 'dir/001\.jpeg'"):
            e.relabel("ant", ids="dir/001.jpeg")
        e.boxes("dir/002.jpeg", [])
        assert e.relabel("cow", where="label_name = 'dog' AND ARRAY_LENGTH(boxes) = 0") == 1
    ds = hr.Dataset(cats)
    assert (len(ds), ds["dir/002.jpeg"].label_name, ds["dir/002.jpeg"].split) == (29, "cow", "val")
    assert ds.verify().ok


def test_history_tells_who_when_why_and_what(cats: Path) -> None:
    with edit(cats, by="ana", why="dogs among the cats") as e:
        e.relabel("dog", ids=["dir/001.jpeg"])
        e.drop(where="id = 'dir/002.jpeg'")
    with hr.edit(cats, why="ßé") as e:
        e.move("test", ids="dir/004.jpeg")
    one, two, three = hr.Dataset(cats).history
    assert (one.number, one.records, one.by, one.at, one.why, one.what) == (1, 30, "", "", "", ())
    assert (two.number, two.records, two.by, two.why) == (2, 29, "ana", "dogs among the cats")
    assert two.at.endswith("Z") and two.at[4] == "-"
    assert [dict(done) for done in two.what] == [
        {"op": "relabel", "label": "dog", "ids": ["dir/001.jpeg"], "count": 1},
        {"op": "drop", "where": "id = 'dir/002.jpeg'", "count": 1},
    ]
    assert three.why == "ßé" and three.by
    assert [one.number for one in hr.Dataset(cats, version=2).history] == [1, 2]
    assert str(two) == (
        "version 2, 29 records: relabel to 'dog': 1 record ('dir/001.jpeg'), drop: 1 record (where id = "
        "'dir/002.jpeg') (dogs among the cats)"
    )


def test_version_one_says_nothing_of_versions(cats: Path) -> None:
    keys = set(json.loads((cats / "headrace.json").read_bytes()))
    assert not keys & {"version", "parent", "edit", "index", "catalog", "dropped", "split_records", "rejects_file"}


# --- misuse -----------------------------------------------------------------------------------------------------------

# (what is tried, error, what it says)
REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda e: e.drop(), UsageError, "wanted either ids="),
    (lambda e: e.drop(ids=["dir/001.jpeg"], where="label = 0"), UsageError, "wanted either ids="),
    (lambda e: e.drop(ids=[]), UsageError, "ids is empty"),
    (lambda e: e.drop(ids=[7]), UsageError, "ids has 7, wanted strings"),
    (lambda e: e.drop(ids=["dir/001.jpeg", "x", "y"]), UnknownIdError, r"no record 'x', 'y' \(2 of 3 ids\)"),
    (lambda e: e.drop(where="label_name = 'caw'"), UsageError, "holds for none of 30 records"),
    (lambda e: e.drop(where="label_name = 'cow'"), UsageError, "holds for 10 of 30 records; pass yes=True"),
    (lambda e: e.drop(where="lable = 1"), UsageError, "no column 'lable'"),
    (lambda e: e.drop(where="id IN (SELECT id FROM read_csv('x'))"), UsageError, "SELECT belongs to a query"),
    (lambda e: e.drop(where="TRUE", yes=True), UsageError, "no record would be left"),
    (lambda e: e.drop(ids=e_all(e)), UsageError, "no record would be left"),
    (lambda e: e.move("a-b", ids="dir/001.jpeg"), UsageError, "split name 'a-b'"),
    (lambda e: e.relabel(3, ids="dir/001.jpeg"), UsageError, "label is 3, wanted the name of a class, or None"),
    (lambda e: e.relabel(["ant"], ids="dir/001.jpeg"), UsageError, "wanted the name of a class"),
    (lambda e: e.relabel("a\nb", ids="dir/001.jpeg"), UsageError, "holds a line break"),
    (lambda e: e.relabel(" ", ids="dir/001.jpeg"), UsageError, "a blank name"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5, 5], [1, 1, 2, 2]]), UsageError, "labels are wanted, of left, right"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5]], ["left"]), UsageError, r"shape \[1, 3\], wanted \[n, 4\]"),
    (lambda e: e.boxes("dir/001.jpeg", [[5, 0, 2, 5]], ["left"]), UsageError, "reversed"),
    (lambda e: e.boxes("dir/001.jpeg", [[5, 0, 5, 5]], ["left"]), UsageError, "without an area"),
    (lambda e: e.boxes("dir/001.jpeg", [[500, 0, 505, 5]], ["left"]), UsageError, r"outside of the image \(29 x 27"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, float("nan"), 5]], ["left"]), UsageError, "not finite"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5, 5]], ["left", "right"]), UsageError, "1 boxes, 2 labels"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5, 5]] * 4, "left"), UsageError, "a name for each of 4 boxes"),
    (lambda e: e.boxes("dir/001.jpeg", "boxes", ["left"]), UsageError, r"wanted numbers \[n, 4\]"),
    (lambda e: e.boxes("x", [[0, 0, 5, 5]], ["left"]), UnknownIdError, "no record 'x'"),
    (lambda e: e.drop(ids=5), UsageError, "ids is 5, wanted strings"),
    (lambda e: e.drop(ids=[["dir/001.jpeg"]]), UsageError, r"ids has \['dir/001.jpeg'\], wanted strings"),
    (lambda e: e.drop(ids="\udcff"), UnknownIdError, "no record"),
    (lambda e: e.boxes(["dir/001.jpeg", "dir/002.jpeg"], []), UsageError, "wanted strings"),
    (lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5, 5]], 5), UsageError, "labels is 5, wanted a name for each"),
    (lambda e: e.append([]), DataError, "holds no images"),
    (lambda e: e.append([hr.Record(id="new", encoded=b"no")], max_rejects=1), DataError, "none of 1 records"),
]


def e_all(e: Any) -> list[str]:
    return first(e.home.path, 30)


@pytest.mark.parametrize(("tried", "kind", "said"), REFUSED)
def test_misuse_raises_and_changes_nothing(
    cats: Path, tried: Callable[[Any], Any], kind: type[Exception], said: str
) -> None:
    before = files(cats)
    with pytest.raises(kind, match=said), edit(cats) as e:
        tried(e)
    assert files(cats) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"why": ""}, "why is ''"),
        ({"why": " \n"}, "wanted a few words"),
        ({"why": None}, "why is None"),
        ({"why": "\ud800"}, "halves of characters"),
        ({"by": ""}, "by is ''"),
        ({"version": 4}, "no version 4"),
        ({"version": 0}, "no version 0; it has 1 to 1"),
        ({"version": -1}, "no version -1"),
    ],
)
def test_an_edit_wants_words(cats: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said), edit(cats, **options):
        pass


@pytest.mark.parametrize("path", [None, 5, b"cats"])
def test_what_is_no_path(path: Any) -> None:
    for opened in (edit, hr.undo, hr.diff, hr.Dataset):
        with pytest.raises(UsageError, match="is no path of a dataset"):
            opened(path)


def test_a_version_that_is_none(cats: Path) -> None:
    edited(cats)
    for version in (0, -1, 5):
        with pytest.raises(UsageError, match=f"has no version {version}"):
            versions.history(at(cats), version)
    for odd in (None, "2", True):
        with pytest.raises(UsageError, match="wanted the number of one"):
            hr.restore(cats, odd)  # type: ignore[arg-type]
    assert hr.restore(f"{cats}@4", 2) == 5
    with pytest.raises(ConflictError, match="version 5 was made by"):
        hr.restore(f"{cats}@4", 1)


def test_whoever_edits_may_have_any_name(cats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ana\udcff")
    with hr.edit(cats, why="x") as e:
        e.drop(ids="dir/001.jpeg")
    assert hr.Dataset(cats).history[-1].by == "ana\\udcff"


def test_what_others_wrote_is_one_line(cats: Path) -> None:
    why = "x\nversion 7: 1 record\u2028" + "y" * 1000
    with edit(cats, why=why, by="an\na") as e:
        e.drop(where="id = \n'dir/001.jpeg'")
    with pytest.raises(ConflictError) as raised:
        hr.undo(f"{cats}@1")
    said = str(raised.value)
    assert len(said.splitlines()) == 1 and len(said) < 700 and "by an a at" in said and "(x version 7: 1" in said
    assert len(str(hr.Dataset(cats).history[-1]).splitlines()) == 1
    assert hr.Dataset(cats).history[-1].why == why  # of which nothing is lost


def test_an_edit_is_made_in_its_block(cats: Path) -> None:
    e = edit(cats)
    with pytest.raises(UsageError, match="an edit is made in its block"):
        e.drop(ids="dir/001.jpeg")
    with e:
        e.drop(ids="dir/001.jpeg")
    with pytest.raises(UsageError, match="an edit is made in its block"):
        e.drop(ids="dir/002.jpeg")
    with pytest.raises(UsageError, match="made once"):
        e.__enter__()


def test_no_labels_where_there_are_no_classes(tmp_path: Path) -> None:
    pack(faces(12), tmp_path / "faces")
    with pytest.raises(UsageError, match="has boxes, and no classes of images"), edit(tmp_path / "faces") as e:
        e.relabel("face", ids="001.jpeg")


def test_unlabelled_images_get_their_first_class(tmp_path: Path) -> None:
    out = tmp_path / "shades"
    pack(shades(20, classes=()), out)
    with edit(out) as e:
        e.relabel("dark", ids=["000", "001"])
    ds = hr.Dataset(out)
    assert ds.class_names == ("dark",) and ds.class_counts == {"dark": 2} and (ds.labels < 0).sum() == 18
    assert ds.verify().ok
    with edit(out) as e:
        e.relabel(None, ids=["000"])
        e.append([hr.Record(id="new", encoded=shades(1)[0].encoded, label_name="light")])
    ds = hr.Dataset(out)
    assert ds.class_counts == {"dark": 1, "light": 1} and ds["000"].label is None and ds.verify().ok
    assert next(ds[[id_ == "000" for id_ in ds.catalog["id"]]].features("image/class/label")) == {
        "image/class/label": -1
    }


def test_several_classes(tmp_path: Path) -> None:
    records = [
        hr.Record(id=f"{k:02d}", encoded=one.encoded, labels=CLASSES[: k % 3]) for k, one in enumerate(shades(24))
    ]
    out = tmp_path / "several"
    pack(records, out)
    with edit(out) as e:
        assert e.relabel(["cow", "dog"], ids="00") == 1
        assert e.relabel("ant", ids="01") == 0  # it has that alone already
        assert e.relabel([], ids="01") == 1
        assert e.relabel(None, ids="02") == 1
    ds = hr.Dataset(out)
    assert (ds["00"].labels, ds["01"].labels, ds["02"].labels) == (("cow", "dog"), (), None)
    assert ds.class_names == (*CLASSES, "dog") and ds.verify().ok
    found = next(ds.where("id = '00'").features("image/class/label", "image/class/text"))
    assert found["image/class/label"].tolist() == [2, 3] and found["image/class/text"].tolist() == [b"cow", b"dog"]
    diff = hr.diff(out)
    assert [(one.id, one.before, one.after) for one in sorted(diff.relabelled, key=lambda one: one.id)] == [
        ("00", [], ["cow", "dog"]),
        ("01", ["ant"], []),
        ("02", ["ant", "bee"], None),
    ]


# --- boxes ------------------------------------------------------------------------------------------------------------


def with_everything() -> list[hr.Record]:
    triangle = Mask(polygons=(np.array([[1, 1], [9, 1], [5, 9]], np.float32),))
    return [
        hr.Record(
            id=f"{k}",
            encoded=saved(picture(30, 40, seed=k), "PNG"),
            boxes=np.array([[1, 1, 9, 9], [10, 10, 20, 20]], np.float32),
            box_labels=("a", "b"),
            masks=(triangle, None),
            keypoints=np.array([[[2, 2, 2]], [[12, 12, 1]]], np.float32),
            attributes={"difficult": [0, 1], "track": [7, 8], "score": [0.5, 0.75], "camera": "left"},
        )
        for k in range(3)
    ]


def test_what_else_is_said_of_a_box_stays_with_it(tmp_path: Path) -> None:
    out = tmp_path / "boxes"
    pack(with_everything(), out)
    with edit(out) as e:
        e.boxes("0", [[2, 2, 9, 9], [10, 10, 20, 20]])  # moved: all stays
        e.boxes("1", [[10, 10, 20, 20], [0, 0, 3, 3], [1, 1, 9, 9]], ["b", "c", "a"])  # by what they are
        e.boxes("2", [], [])
    ds = hr.Dataset(out)
    zero, one, two = (ds[str(k)] for k in range(3))
    assert zero.attributes == with_everything()[0].attributes and zero.box_labels == ("a", "b")
    assert zero.masks is not None and zero.masks[0] is not None and zero.masks[1] is None
    assert one.box_labels == ("b", "c", "a") and ds.box_class_names == ("a", "b", "c")
    assert one.attributes == {
        "difficult": [1, None, 0],
        "track": [8, None, 7],
        "score": [0.75, None, 0.5],
        "camera": "left",
    }
    assert one.masks is not None and [mask is None for mask in one.masks] == [True, True, False]
    assert one.keypoints is not None
    assert one.keypoints.tolist() == [[[12, 12, 1]], [[0, 0, 0]], [[2, 2, 2]]]
    assert two.boxes is not None and two.boxes.shape == (0, 4) and two.keypoints is not None
    assert two.keypoints.shape == (0, 1, 3) and two.attributes["difficult"] == []
    assert ds.manifest.boxes == 5 and ds.verify().ok
    found = next(ds.where("id = '1'").features("image/object/difficult", "objects/label"))
    assert found["image/object/difficult"].tolist() == [1, -1, 0] and found["objects/label"].tolist() == [1, 2, 0]
    assert hr.undo(out) == 3 and hr.Dataset(out).box_class_names == ("a", "b")


def test_which_box_each_one_was_can_be_said(tmp_path: Path) -> None:
    """One is taken away and another one added: as many as before, and each with its own."""
    boxes = np.array([[1, 1, 9, 9], [10, 1, 19, 9], [1, 10, 9, 19]], np.float32)
    attributes = {"pose": ["a", "b", "c"], "weather": "rain"}
    record = hr.Record(id="x", encoded=jpeg(20, 30), boxes=boxes, box_labels=("p", "q", "r"), attributes=attributes)
    pack([record], tmp_path / "cats")
    with hr.edit(tmp_path / "cats", why="x") as e:
        for of in ([0, 0, 1], [0, 3, None], [-1, None, None], [True, None, None], [0, 1], [0, 1, "2"]):
            with pytest.raises(UsageError, match="of is"):
                e.boxes("x", boxes, ["p", "q", "r"], of=of)  # type: ignore[arg-type]
        assert e.boxes("x", [boxes[2], boxes[1], [20, 10, 29, 19]], ["r", "q", "s"], of=[2, 1, None]) == 1
    made = hr.Dataset(tmp_path / "cats")["x"]
    assert made.attributes == {"pose": ["c", "b", None], "weather": "rain"} and made.box_labels == ("r", "q", "s")
    with hr.edit(tmp_path / "cats", why="x") as e:  # classes are those of the boxes that they were
        e.boxes("x", [boxes[1], boxes[2]], of=[1, 0])
    made = hr.Dataset(tmp_path / "cats")["x"]
    assert made.box_labels == ("q", "r") and made.attributes["pose"] == ["b", "c"]


def test_restore_of_a_version_that_is_not_meant(tmp_path: Path) -> None:
    pack(photos(4), tmp_path / "cats")
    for label in ("bee", "cow"):
        with hr.edit(tmp_path / "cats", why="x") as e:
            e.relabel(label, ids=[hr.Dataset(tmp_path / "cats")[0].id])
    now = hr.Dataset(tmp_path / "cats").version
    with pytest.raises(ConflictError, match=f"version {now} was made"):
        hr.restore(tmp_path / "cats", 1, base=now - 1)
    assert hr.restore(tmp_path / "cats", 1, base=now) == now + 1


def test_the_first_boxes(tmp_path: Path) -> None:
    out = tmp_path / "shades"
    pack(shades(12), out)
    with edit(out) as e:
        e.boxes("003", [[0, 0, 4, 4]], ["thing"])
    ds = hr.Dataset(out)
    assert ds.has_boxes and ds.box_class_names == ("thing",) and ds.manifest.boxes == 1
    assert ds["002"].boxes is None and ds.verify().ok
    found = next(ds.where("id = '003'").features("image/object/bbox/xmax", "image/class/text"))
    assert found["image/object/bbox/xmax"].tolist() == [0.5] and found["image/class/text"] == b"ant"


# --- append -----------------------------------------------------------------------------------------------------------


def test_append_packs_as_the_dataset_was_packed(tmp_path: Path) -> None:
    out = tmp_path / "small"
    pack(photos(20), out, size=16, fit="crop", quality=80)
    with edit(out) as e:
        found = e.append(
            {
                "train": [hr.Record(id="new/a", encoded=photos(1)[0].encoded, label_name="aardvark")],
                "test": [hr.Record(id="new/b", encoded=photos(2)[1].encoded, label_name="cow")],
            }
        )
    assert found.stored == 2 and found.classes == ("aardvark",) and found.splits == {"train": 1, "test": 1}
    ds = hr.Dataset(out)
    assert ds.class_names == (*CLASSES, "aardvark") and ds["new/a"].label == 3 and ds["new/b"].label == 2
    assert ds["new/a"].image.shape == (16, 16, 3) and ds.splits == {"train": 21, "test": 1}
    alone = pack(
        [hr.Record(id="new/a", encoded=photos(1)[0].encoded)], tmp_path / "alone", size=16, fit="crop", quality=80
    )
    assert ds["new/a"].encoded == alone["new/a"].encoded
    assert [shard.name for shard in ds.manifest.shards][-2:] == [
        "train-v0002-00000-of-00001.tfrecord",
        "test-v0002-00000-of-00001.tfrecord",
    ]
    assert ds.rows.tolist() == [*range(22)] and ds.verify().ok
    assert hr.Dataset(out, version=1).verify().ok


def test_the_first_boxes_and_classes_beside_an_append(tmp_path: Path) -> None:
    """Records that were appended before there were any say nothing of them, and so it stays."""
    for first_boxes in (True, False):
        out = tmp_path / f"shades {first_boxes}"
        pack(shades(20, classes=()), out)
        with edit(out) as e:
            if first_boxes:
                e.boxes("003", [[0, 0, 4, 4]], ["thing"])
                e.relabel("dark", ids="003")
            e.append([hr.Record(id="new", encoded=shades(1)[0].encoded)])
            if not first_boxes:
                e.boxes("003", [[0, 0, 4, 4]], ["thing"])
                e.relabel("dark", ids="003")
        ds = hr.Dataset(out)
        assert ds.verify().ok and ds["new"].boxes is None and ds["new"].label is None and ds.has_boxes
        with edit(out) as e:
            e.boxes("new", [[0, 0, 2, 2]], ["thing"])
            e.relabel("dark", ids="new")
        assert hr.Dataset(out).verify().ok and hr.Dataset(out).manifest.boxes == 2


def test_an_id_that_is_there_is_a_reject_and_one_that_was_dropped_is_free(cats: Path) -> None:
    record = hr.Record(id="dir/001.jpeg", encoded=photos(3)[2].encoded, label_name="cow")
    with edit(cats) as e:
        found = e.append([record, hr.Record(id="new", encoded=record.encoded)], max_rejects=1)
    (reject,) = found.rejects
    assert "duplicate id 'dir/001.jpeg', which the dataset has" in reject.reason
    ds = hr.Dataset(cats)
    assert (ds.manifest.seen, ds.manifest.stored, ds.manifest.rejected) == (32, 31, 1)
    assert json.loads((cats / ds.manifest.rejects).read_text())["id"] == "dir/001.jpeg"
    with edit(cats) as e:
        e.drop(ids="dir/001.jpeg")
        assert e.append([record]).stored == 1
    ds = hr.Dataset(cats)
    assert ds["dir/001.jpeg"].label_name == "cow" and ds.verify().ok and len(ds) == 31
    with edit(cats) as e:
        e.relabel("bee", ids="dir/001.jpeg")
    assert hr.Dataset(cats)["dir/001.jpeg"].label_name == "bee"
    assert hr.Dataset(cats, version=2)["dir/001.jpeg"].label_name == "bee"  # the first one


def test_an_id_that_the_same_edit_appended_is_a_reject(cats: Path) -> None:
    new = [hr.Record(id=f"new {i}", encoded=photos(3)[i].encoded, label_name="cow") for i in range(3)]
    with edit(cats) as e:
        assert e.append(new[:2]).stored == 2
        again = e.append(new, max_rejects=2)
        assert again.stored == 1 and [reject.id for reject in again.rejects] == ["new 0", "new 1"]
        with pytest.raises(DataError, match="duplicate id 'new 2', which the dataset has"):
            e.append(new[2:])
    ds = hr.Dataset(cats)
    assert len(ds) == 33 == len({*ds.catalog["id"]}) and ds.verify().ok
    assert ds.manifest.seen == ds.manifest.stored + ds.manifest.rejected == 35


def test_a_divided_source_is_appended_as_it_is_packed(cats: Path) -> None:
    """An id that several splits have gets its split in front, and is judged by what it becomes."""

    def of(k: int) -> hr.Record:
        return hr.Record(id="new", encoded=photos(3)[k].encoded, label_name="cow")

    source = {"train": [of(0)], "val": [of(1)]}
    with pytest.raises(UsageError, match="comes divided into train, val already"), edit(cats) as e:
        e.append(source, splits={"train": 0.5, "val": 0.5})
    with edit(cats) as e:
        assert e.append(source).splits == {"train": 1, "val": 1}
        with pytest.raises(DataError, match="duplicate id 'train/new', which the dataset has"):
            e.append(source)
    ds = hr.Dataset(cats)
    assert [ds[f"{split}/new"].split for split in source] == ["train", "val"] and len(ds) == 32 and ds.verify().ok
    with pytest.raises(DataError, match="duplicate id 'val/new', which the dataset has"), edit(cats) as e:
        e.append(source)


def test_an_append_that_failed_is_forgotten(cats: Path) -> None:
    with edit(cats) as e:
        for _ in range(2):
            with pytest.raises(DataError, match="not an image"):
                e.append([hr.Record(id="new", encoded=b"no", label_name="emu")])
        assert e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="cow")]).stored == 1
    ds = hr.Dataset(cats)
    assert len(ds) == 31 and ds.class_names == CLASSES and ds.verify().ok
    assert (ds.manifest.seen, ds.manifest.rejected) == (31, 0)


def test_rows_of_an_undone_append_are_others_later(cats: Path) -> None:
    def new(name: str) -> list[hr.Record]:
        return [hr.Record(id=name, encoded=photos(3)[2].encoded, label_name="cow")]

    with edit(cats) as e:
        e.append(new("x"))
    hr.undo(cats)
    with edit(cats) as e:
        e.append(new("y"))
        e.append(new("z"))
    diff = hr.diff(cats, 2, 4)
    assert (diff.dropped, diff.added) == (("x",), ("y", "z"))
    assert hr.Dataset(cats, version=2)["x"].image.shape and hr.Dataset(cats)["y"].image.shape
    assert hr.Dataset(cats).verify().ok


def bad_sources() -> list[tuple[list[hr.Record], str]]:
    encoded = photos(1)[0].encoded
    return [
        ([hr.Record(id="n", encoded=encoded, labels=("ant",))], "one class here, and several in the source"),
        ([hr.Record(id="n", encoded=encoded, value=0.5)], "the source has values"),
        ([hr.Record(id="n", encoded=encoded, label=7)], "numbers its classes up to 7 and names none"),
        (
            [hr.Record(id="n", encoded=encoded, keypoints=np.zeros((0, 2, 3), np.float32))],
            "objects have 0 keypoints here, and 2 in the source",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), bad_sources())
def test_a_source_that_does_not_fit(cats: Path, source: list[hr.Record], said: str) -> None:
    before = files(cats)
    with pytest.raises(UsageError, match=said), edit(cats) as e:
        e.append(source)
    assert files(cats) == before


def test_numbers_of_classes_are_those_of_the_dataset(cats: Path) -> None:
    with edit(cats) as e:
        e.append([hr.Record(id="n", encoded=photos(1)[0].encoded, label=2)])
    assert hr.Dataset(cats)["n"].label_name == "cow"


# --- undo, restore, diff ----------------------------------------------------------------------------------------------

VERBS: dict[str, Callable[[Any], Any]] = {
    "relabel": lambda e: e.relabel("dog", ids="dir/001.jpeg"),
    "boxes": lambda e: e.boxes("dir/001.jpeg", [[0, 0, 5, 5]], ["new"]),
    "drop": lambda e: e.drop(ids=["dir/001.jpeg", "dir/003.jpeg"]),
    "move": lambda e: e.move("test", ids="dir/001.jpeg"),
    "append": lambda e: e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="emu")]),
}


@pytest.mark.parametrize("verb", VERBS)
def test_undo_brings_the_same_tables_back(cats: Path, verb: str) -> None:
    before = hr.Dataset(cats)
    with edit(cats) as e:
        VERBS[verb](e)
    changed = hr.Dataset(cats)
    assert changed.fingerprint != before.fingerprint and changed.verify().ok
    there = files(cats)
    assert hr.undo(cats) == 3
    after = hr.Dataset(cats)
    assert {*files(cats)} - {*there} == {"versions/0002.json"}
    assert after.manifest.files == before.manifest.files and after.fingerprint == before.fingerprint
    assert after.catalog.equals(before.catalog) and after.class_names == before.class_names
    assert (cats / after.manifest.catalog).name == "catalog.parquet" and after.verify().ok
    assert hr.restore(cats, 2) == 4 and hr.Dataset(cats).fingerprint == changed.fingerprint
    assert [len(one.what) for one in hr.Dataset(cats).history] == [0, 1, 1, 1]


def test_undo_goes_back_step_by_step(cats: Path) -> None:
    for name in ("a", "b"):
        with edit(cats) as e:
            e.relabel(name, ids="dir/001.jpeg")

    def label() -> str | None:
        return hr.Dataset(cats)["dir/001.jpeg"].label_name

    assert (hr.undo(cats), label()) == (4, "a")
    assert (hr.undo(cats), label()) == (5, "bee")
    with pytest.raises(UsageError, match="there is nothing to undo"):
        hr.undo(cats)
    assert (hr.restore(cats, 3), label()) == (6, "b")
    assert (hr.undo(cats), label()) == (7, "bee")  # what was before the restoring
    with edit(cats) as e:
        e.relabel("c", ids="dir/001.jpeg")
    assert (hr.undo(cats), label()) == (9, "bee")
    with pytest.raises(UsageError, match="version 9 is the one that holds now"):
        hr.restore(cats, 9)
    with pytest.raises(UsageError, match="has no version 77"):
        hr.restore(cats, 77)


def test_diff(cats: Path) -> None:
    with pytest.raises(UsageError, match="version 1 was made of no other"):
        hr.diff(cats)
    train = hr.Dataset(cats).split("train").catalog["id"].to_list()
    with edit(cats) as e:
        for verb in VERBS.values():
            if verb is not VERBS["drop"]:
                verb(e)
        e.drop(ids=train[-1])
    found = hr.diff(cats)
    assert (found.before, found.after, found.records) == (1, 2, (30, 30))
    assert (found.dropped, found.added) == ((train[-1],), ("new",))
    (relabelled,), (boxes,), (moved,) = found.relabelled, found.boxes, found.moved
    assert (relabelled.id, relabelled.before, relabelled.after) == ("dir/001.jpeg", "bee", "dog")
    assert (boxes.id, boxes.before, boxes.after) == ("dir/001.jpeg", 1, 1)
    assert moved.after == "test" and found.splits["test"] == (0, 1)
    assert found.classes["dog"] == (0, 1) and found.edited == 1
    back = hr.diff(cats, 2, 1)
    assert (back.dropped, back.added) == (("new",), (train[-1],))
    same = hr.diff(cats, 1, 1)
    assert not any((same.dropped, same.added, same.relabelled, same.boxes, same.moved))
    json.dumps(found.as_json())


# --- two at once ------------------------------------------------------------------------------------------------------


def test_the_second_of_two_editors_is_refused(cats: Path) -> None:
    def late() -> None:
        with edit(cats, by="ben") as e:
            e.drop(ids="dir/002.jpeg")
            with edit(cats, by="ana", why="dogs") as early:
                early.relabel("dog", ids=["dir/001.jpeg", "dir/003.jpeg"])

    with pytest.raises(ConflictError) as caught:
        late()
    said = str(caught.value)
    at_ = hr.Dataset(cats).history[-1].at
    assert said == (
        f"{cats}: was edited meanwhile, and nothing was changed: version 2 was made by ana at {at_} (dogs): relabel to "
        "'dog': 2 records ('dir/001.jpeg', 'dir/003.jpeg'). Look at it, and edit again"
    )
    assert len(hr.Dataset(cats)) == 30
    assert not [path for path in cats.iterdir() if path.name.startswith(".")]
    with pytest.raises(ConflictError, match="version 2 was made by ana"), edit(cats, version=1):
        pass
    with pytest.raises(ConflictError, match="version 2 was made by ana"):
        hr.undo(f"{cats}@1")
    with edit(cats, version=2) as e:
        e.drop(ids="dir/002.jpeg")
    assert e.version == 3


def test_a_dataset_that_is_packed_anew_meanwhile(cats: Path) -> None:
    def late() -> None:
        with edit(cats) as e:
            e.drop(ids="dir/002.jpeg")
            pack(photos(30), cats, overwrite=True)

    with pytest.raises(ConflictError, match="is another dataset than was opened"):
        late()
    assert hr.Dataset(cats).version == 1 and len(hr.Dataset(cats)) == 30
    assert not [path for path in cats.parent.iterdir() if path.name != "cats"]


# --- what a loader remembers ------------------------------------------------------------------------------------------


def test_a_relabel_does_not_end_a_resume_and_a_drop_does(cats: Path) -> None:
    def loader(ds: hr.Dataset) -> hr.Loader:
        return ds.loader(batch_size=4, size=16, shuffle=True, seed=3, target=hr.Class())

    it = iter(loader(hr.Dataset(cats)))
    for _ in range(3):
        next(it)
    state = it.state_dict()
    rest = [batch.ids for batch in it]
    with edit(cats) as e:
        e.relabel("dog", ids=[*rest[0]])
        e.boxes("dir/002.jpeg", [])
    resumed = list(loader(hr.Dataset(cats)).iterate(state))
    assert [batch.ids for batch in resumed] == rest and resumed[0].targets.tolist() == [3] * 4
    with edit(cats) as e:
        e.drop(ids="dir/001.jpeg")
    with pytest.raises(UsageError, match="the state belongs to another loader: its dataset is"):
        loader(hr.Dataset(cats)).iterate(state)


def test_what_was_learnt_from_is_known_after_edits(cats: Path) -> None:
    old = hr.Dataset(cats)
    recipe: Any = SimpleNamespace(train=SimpleNamespace(content=old.fingerprint, fingerprint=old.view_fingerprint))
    for _ in range(2):
        with edit(cats) as e:
            e.relabel(f"dog {_}", ids="dir/001.jpeg")
            e.drop(ids=first(cats, 1))
            e.append([hr.Record(id=f"new {_}", encoded=photos(1)[0].encoded)])
    ds = hr.Dataset(cats)
    was = ds.as_it_was(old.fingerprint)
    assert was is not None and (was.version, len(was), was.fingerprint) == (1, 30, old.fingerprint)
    assert ds.as_it_was("0" * 64) is None
    seen = parts.seen_in_training(ds, recipe)
    assert len(seen) == 28 and set(ds.store.ids_of(seen)) == {*ds.catalog["id"]} - {"new 0", "new 1"}
    hr.restore(cats, 1)
    assert len(parts.seen_in_training(hr.Dataset(cats), recipe)) == 30


# --- damage -----------------------------------------------------------------------------------------------------------


def edited(cats: Path) -> Path:
    with edit(cats) as e:
        e.relabel("dog", ids="dir/001.jpeg")
        e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="emu")])
    hr.undo(cats)
    with edit(cats) as e:
        e.drop(ids="dir/001.jpeg")
    return cats


@pytest.mark.parametrize(
    "name",
    [
        "versions/0001.json",
        "versions/0002.json",
        "versions/0003.json",
        "catalog.parquet",
        "catalog-0002.parquet",
        "catalog-0004.parquet",
        "headrace-0002.index",
        "rejects-0002.jsonl",
        "train-v0002-00000-of-00001.tfrecord",
    ],
)
def test_verify_finds_damage_of_every_version(cats: Path, name: str) -> None:
    path = edited(cats) / name
    data, holds = path.read_bytes(), name == hr.Dataset(cats).manifest.catalog

    def check() -> None:
        """The tables of the version that holds now are checked when they are read, those of others by verify."""
        if holds:
            with pytest.raises(HeadraceError, match=name):
                len(hr.Dataset(cats))
        else:
            assert any(name in str(damage) for damage in hr.Dataset(cats).verify().damaged)

    assert hr.Dataset(cats).verify().ok
    if data:
        flip(path, len(data) // 2)
        check()
    path.unlink()
    check()


@pytest.mark.parametrize("name", ["catalog.parquet", "headrace.index"])
@pytest.mark.parametrize("gone", [True, False])
def test_nothing_goes_back_to_what_cannot_be_read(cats: Path, name: str, gone: bool) -> None:
    with edit(cats) as e:
        e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="cow")])
    if gone:
        (cats / name).unlink()
    else:
        flip(cats / name, 200)
    before = files(cats)
    for back in (lambda: hr.undo(cats), lambda: hr.restore(cats, 1)):
        with pytest.raises((DamageError, StorageError), match=name):
            back()
    assert files(cats) == before and len(hr.Dataset(cats).catalog) == 31


def test_rejects_that_were_lost_are_not_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "cats"
    refused = hr.Reject(id="bad", origin="bad.jpg", stage="header", reason="no image")
    pack([*photos(20), refused], out, max_rejects=1)
    (out / "rejects.jsonl").write_bytes(b"")
    before = files(out)
    with pytest.raises(DamageError, match=r"rejects\.jsonl: is not what was written"), edit(out) as e:
        e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="cow")])
    with pytest.raises(DamageError, match=r"rejects\.jsonl: is not what was written"):
        hr.compact(out, tmp_path / "packed", progress=False)
    assert files(out) == before and not (tmp_path / "packed").exists()


def test_a_manifest_of_another_version_in_its_place(cats: Path) -> None:
    edited(cats)
    (cats / "versions/0002.json").write_bytes((cats / "versions/0001.json").read_bytes())
    with pytest.raises(DamageError, match="is version 1, wanted 2"):
        hr.Dataset(cats, version=2)
    with pytest.raises(DamageError, match="not the manifest that version 3 was made of"):
        _ = hr.Dataset(cats).history
    assert len(hr.Dataset(cats)) == 29


def forged(cats: Path, **changes: Any) -> None:
    """Changes values of the manifest that holds now, soundly signed."""
    from dataclasses import replace

    place = at(cats)
    (cats / manifest.FILE).write_bytes(replace(manifest.read(place), **changes).to_bytes())


WHO = {"by": "ana", "at": "", "why": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dropped": -1}, "the number of dropped records"),
        ({"dropped": 99}, "the number of dropped records"),
        ({"split_records": {"train": 29}}, None),
        ({"split_records": {"train": 3}}, "the number of records per split"),
        ({"split_records": None}, "the number of records per split"),
        ({"split_records": {"../x": 29}}, "a split"),
        ({"catalog": "../catalog.parquet"}, "the name of catalog"),
        ({"catalog": "nothing.parquet"}, "the digest of nothing.parquet"),
        ({"parent": ""}, "parent"),
        ({"version": 0}, "version"),
        ({"edit": None}, "edit"),
        ({"edit": {"by": "x"}}, "edit"),
        ({"edit": WHO | {"what": []}}, "edit"),
        ({"edit": WHO | {"what": [7]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "undo"}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "undo", "version": 4}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "undo", "version": 0}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "drop", "version": 2}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "drop", "ids": 7}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "drop", "ids": [7]}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "drop", "count": -1}]}}, "edit"),
        ({"edit": WHO | {"what": [{"op": "drop", "where": 7}]}}, "edit"),
    ],
)
def test_a_forged_manifest_is_refused(cats: Path, changes: dict[str, Any], said: str | None) -> None:
    edited(cats)
    forged(cats, **changes)
    if said is None:
        assert not hr.Dataset(cats).verify().ok
    else:
        with pytest.raises(DamageError, match=said):
            hr.Dataset(cats)


def test_more_dropped_rows_than_the_manifest_says(cats: Path) -> None:
    edited(cats)
    forged(cats, dropped=2, split_records={"train": 28})
    with pytest.raises(DamageError, match="1 rows are dropped, the manifest says 2"):
        hr.Dataset(cats)


# --- adopted ----------------------------------------------------------------------------------------------------------


def test_labels_of_somebodys_records_without_touching_them(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    pack(photos(20, boxes=True), theirs, shards=2)
    for path in theirs.iterdir():
        if path.suffix != ".tfrecord":
            path.unlink()
    before = files(theirs)
    out = tmp_path / "mine"
    hr.adopt([*theirs.glob("*.tfrecord")], out, progress=False)
    with edit(out) as e:
        e.relabel("dog", ids="dir/001.jpeg")
        e.drop(ids="dir/002.jpeg")
        e.move("val", ids="dir/003.jpeg")
        e.boxes("dir/003.jpeg", [[0, 0, 5, 5]], ["left"])
        e.append([hr.Record(id="new", encoded=photos(1)[0].encoded, label_name="emu")])
    assert files(theirs) == before
    ds = hr.Dataset(out)
    assert (ds["dir/001.jpeg"].label_name, ds["new"].label_name, ds["dir/003.jpeg"].split) == ("dog", "emu", "val")
    assert len(ds) == 20 and ds.verify().ok and ds["new"].image.shape
    hr.compact(out, tmp_path / "packed", progress=False)
    made = hr.Dataset(tmp_path / "packed")
    assert made.manifest.adopted is None and made.verify().ok and made.splits == ds.splits
    wanted = rows(ds, "label_name", "split", "box_label_names")
    assert rows(made, "label_name", "split", "box_label_names") == wanted


def test_versions_are_told_of_the_place(cats: Path) -> None:
    edited(cats)
    assert [one.number for one in versions.since(at(cats), 2)] == [3, 4]
