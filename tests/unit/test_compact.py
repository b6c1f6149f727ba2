"""compact writes, file for file, what packing the edited source would have written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from drawn import picture, saved
from headrace.errors import DamageError, UsageError
from headrace.record import Mask
from packed import CLASSES, Source, faces, flip, pack, photos, shades


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def everything() -> list[hr.Record]:
    """Records of which all is said that can be, two objects each."""
    triangle = Mask(polygons=(np.array([[1, 1], [9, 1], [5, 9]], np.float32),))
    runs = Mask(runs=np.array([35, 5, 30 * 40 - 40]), size=(30, 40))
    return [
        hr.Record(
            id=f"{k:02d}",
            encoded=saved(picture(30, 40, seed=k), "PNG" if k % 2 else "JPEG"),
            label_name=CLASSES[k % 3],
            value=k / 7,
            captions=("one", "zwei"),
            boxes=np.array([[1.25, 1, 9.1, 9], [10, 10, 20.3, 20]], np.float32),
            box_labels=("a", "b"),
            masks=(triangle, runs) if k % 4 else (None, triangle),
            attributes={"difficult": [k % 2, 1], "track": [k, 8], "score": [0.1 * k, 0.75], "camera": "left", "n": k},
            group=f"g{k // 2}",
            origin=f"list.json:{k}",
        )
        for k in range(14)
    ]


def with_labels() -> list[hr.Record]:
    return [hr.Record(id=f"{k:02d}", encoded=one.encoded, labels=CLASSES[: k % 4]) for k, one in enumerate(shades(24))]


def divided() -> list[hr.Record]:
    return [replace(one, split=("train", "val", "train")[k % 3]) for k, one in enumerate(photos(30, boxes=True))]


def rejected() -> list[hr.Record | hr.Reject]:
    refused = hr.Reject(id="dir/bad.jpeg", origin="list.txt:0", stage="annotation", reason="no numbers: \udcff")
    return [*photos(10), refused, *photos(20)[10:]]


def clipped() -> list[hr.Record]:
    """Some boxes reach out of their image, others lie outside of it, or have no area."""
    odd = np.array([[-5, -5, 9, 9], [500, 0, 505, 5], [3, 3, 3, 9], [2, 2, 8, 8]], np.float32)
    return [
        replace(one, boxes=odd, box_labels=("left", "right", "left", "right")) if k % 3 == 1 and k > 3 else one
        for k, one in enumerate(photos(30, boxes=True))
    ]


def edited_photos(records: list[Any]) -> list[Any]:
    out = []
    for one in records:
        if one.id == "dir/001.jpeg":
            one = replace(one, label_name="cow")
        if one.id == "dir/003.jpeg" and one.boxes is not None:
            boxes = np.array([[0, 0, 5, 5], [1, 1, 3, 9.5]], np.float32)
            one = replace(one, boxes=boxes, box_labels=("right", "left"))
        if one.id != "dir/002.jpeg":
            out.append(one)
    return out


def edit_photos(e: Any) -> None:
    e.relabel("cow", ids="dir/001.jpeg")
    e.drop(ids="dir/002.jpeg")
    if e._now.boxes is not None:
        e.boxes("dir/003.jpeg", [[0, 0, 5, 5], [1, 1, 3, 9.5]], ["right", "left"])


def edited_everything(records: list[Any]) -> list[Any]:
    records = [replace(one, label_name="ant") if one.id == "04" else one for one in records if one.id != "07"]
    boxes = np.array([[0, 0, 9, 9], [10, 10, 22, 20]], np.float32)
    return [replace(one, boxes=boxes, box_labels=("b", "a")) if one.id == "02" else one for one in records]


def edit_everything(e: Any) -> None:
    e.relabel("ant", ids="04")
    e.drop(ids="07")
    e.boxes("02", [[0, 0, 9, 9], [10, 10, 22, 20]], ["b", "a"])


def edited_labels(records: list[Any]) -> list[Any]:
    return [replace(one, labels=("cow",)) if one.id == "05" else one for one in records if one.id != "06"]


def edit_labels(e: Any) -> None:
    e.relabel("cow", ids="05")
    e.drop(ids="06")


def without_five(records: list[Any]) -> list[Any]:
    return [one for one in records if one.id != "005.jpeg"]


def drop_five(e: Any) -> None:
    e.drop(ids="005.jpeg")


Edit = Callable[[Any], None]
Edited = Callable[[list[Any]], list[Any]]

# (source, options, what is edited in it, the same by an edit)
EQUAL: dict[str, tuple[list[Any], dict[str, Any], Edited, Edit]] = {
    "photos": (photos(30), {}, edited_photos, edit_photos),
    "boxes": (photos(30, boxes=True), {}, edited_photos, edit_photos),
    "shards": (photos(30, boxes=True), {"shards": 4, "seed": 3}, edited_photos, edit_photos),
    "shard size": (photos(30, boxes=True), {"shard_size": 9000}, edited_photos, edit_photos),
    "some grey, some png": (photos(30, grey=(1,), png=(4, 5)), {"shards": 2}, edited_photos, edit_photos),
    "resized": (photos(30), {"size": 16, "fit": "crop", "quality": 70}, edited_photos, edit_photos),
    "shrunk": (photos(30), {"max_side": 20}, edited_photos, edit_photos),
    "one split of a name": (photos(30), {"splits": {"all": 1.0}}, edited_photos, edit_photos),
    "what was cut and left out": (clipped(), {"shards": 2}, edited_photos, edit_photos),
    "its own splits": (divided(), {"shards": 2}, edited_photos, edit_photos),
    "rejects": (rejected(), {}, edited_photos, edit_photos),
    "all that can be said": (everything(), {"shards": 2}, edited_everything, edit_everything),
    "several classes": (with_labels(), {}, edited_labels, edit_labels),
    "keypoints": (faces(14), {}, without_five, drop_five),
    "nothing": (photos(30, boxes=True), {"shards": 3}, list, lambda e: e.relabel("bee", ids="dir/001.jpeg")),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equals_packing_the_edited_source(tmp_path: Path, case: str) -> None:
    records, options, edited, edit = EQUAL[case]

    def source(some: list[Any]) -> Any:
        return Source(some) if case == "keypoints" else some

    pack(source(records), tmp_path / "edited" / "cats", **options)
    with hr.edit(tmp_path / "edited" / "cats", why="as it should be") as e:
        edit(e)
    pack(source(edited(records)), tmp_path / "wanted" / "cats", **options)
    report = hr.compact(tmp_path / "edited" / "cats", tmp_path / "made" / "cats", progress=False)
    wanted, made = hr.Dataset(tmp_path / "wanted" / "cats"), hr.Dataset(tmp_path / "made" / "cats")
    assert made.manifest == wanted.manifest
    assert files(made.path) == files(wanted.path)
    assert made.verify().ok and report.stored == len(wanted) and made.version == 1
    hr.compact(tmp_path / "edited" / "cats", tmp_path / "made" / "cats", progress=False, overwrite=True, workers=1)
    assert files(made.path) == files(wanted.path)


def test_folders(tmp_path: Path) -> None:
    """Names whose order is another one as text: folders beside files, numbers, letters of both cases."""
    root = tmp_path / "photos"
    names = [f"cat/{name}" for name in ("1.jpg", "10.jpg", "2.jpg", "sub/1.jpg", "sub-2/3.jpg")]
    names += ["cat-big/A.jpg", "cat-big/b.jpg", "dog/x9.jpg", "dog/x10.jpg"]
    for k, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(saved(picture(20 + k, 24, seed=k), "JPEG"))
    hr.pack(hr.sources.folders(root), tmp_path / "edited" / "cats", shards=2, progress=False)
    with hr.edit(tmp_path / "edited" / "cats", why="blurred") as e:
        e.drop(ids=["cat/2.jpg", "dog/x9.jpg"])
    for name in ("cat/2.jpg", "dog/x9.jpg"):
        (root / name).unlink()
    hr.pack(hr.sources.folders(root), tmp_path / "wanted" / "cats", shards=2, progress=False)
    hr.compact(tmp_path / "edited" / "cats", tmp_path / "made" / "cats", progress=False)
    assert files(tmp_path / "made" / "cats") == files(tmp_path / "wanted" / "cats")


@pytest.mark.parametrize("other", ["train", "test"])
def test_splits_stay_and_moves_are_written(tmp_path: Path, other: str) -> None:
    """Packing anew would divide anew; what was learnt from would be validated on."""
    ds = pack(photos(30, boxes=True), tmp_path / "cats", splits={"train": 0.7, "val": 0.3}, shards=2)
    with hr.edit(ds.path, why="leaks") as e:
        e.move("val", ids=ds.split("train").catalog["id"].to_list()[:3])
        e.move(other, ids=ds.split("val").catalog["id"].to_list()[:1])
    now = hr.Dataset(ds.path)
    hr.compact(ds.path, tmp_path / "made", progress=False)
    made = hr.Dataset(tmp_path / "made")
    assert made.splits == now.splits and list(made.splits) == ["train", "val", "test"][: 2 + (other == "test")]
    for name in made.splits:
        assert {*made.split(name).catalog["id"]} == {*now.split(name).catalog["id"]}
    assert made.manifest.pack_options["splits"] == list(made.splits)
    assert {shard.split for shard in made.manifest.shards} == {*made.splits}
    assert made.verify().ok


def test_appended_records_and_new_classes(tmp_path: Path) -> None:
    records = photos(20, boxes=True)
    new = replace(records[3], id="dir/100.jpeg", label_name="emu", origin="list.txt:101")
    pack(records, tmp_path / "cats", shards=2)
    with hr.edit(tmp_path / "cats", why="more") as e:
        e.append([new])
    hr.compact(tmp_path / "cats", tmp_path / "made" / "cats", progress=False)
    pack([*records, new], tmp_path / "wanted" / "cats", shards=2)
    assert files(tmp_path / "made" / "cats") == files(tmp_path / "wanted" / "cats")


def test_an_earlier_version_and_one_that_was_never_edited(tmp_path: Path) -> None:
    ds = pack(photos(20), tmp_path / "cats", shards=2)
    before = files(ds.path)
    with hr.edit(ds.path, why="x") as e:
        e.drop(ids="dir/001.jpeg")
    hr.compact(f"{ds.path}@1", tmp_path / "made" / "cats", progress=False)
    assert files(tmp_path / "made" / "cats") == before


def test_a_damaged_record_is_never_written_on(tmp_path: Path) -> None:
    ds = pack(photos(12), tmp_path / "cats")
    flip(ds.path / ds.manifest.shards[0].name, 5000)
    with pytest.raises(DamageError, match="payload CRC"):
        hr.compact(ds.path, tmp_path / "made", progress=False)
    assert not (tmp_path / "made").exists()


def test_not_into_itself(tmp_path: Path) -> None:
    ds = pack(photos(12), tmp_path / "cats")
    before = files(ds.path)
    with pytest.raises(UsageError, match="holds a dataset already"):
        hr.compact(ds.path, ds.path, progress=False)
    hr.compact(ds.path, ds.path, progress=False, overwrite=True)  # it is whole before the old one goes
    assert files(ds.path) == before
