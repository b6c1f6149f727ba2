"""Near-duplicates never in two splits: moved, dropped or refused while packing; and as the groups of a division."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import files, saved, textured
from packed import pack

LABELS = ("cat", "dog")


def copies(n: int, each: int = 3, splits: tuple[str, ...] = ()) -> list[hr.Record]:
    """`each` copies of n photos as JPEGs of falling quality, "photo.copy"; in `splits` by turns."""
    return [
        hr.Record(
            id=f"{photo}.{copy}",
            encoded=saved(textured(photo), "JPEG", quality=95 - 10 * copy),
            label_name=LABELS[photo % 2],
            split=splits[copy % len(splits)] if splits else None,
        )
        for copy in range(each)
        for photo in range(n)
    ]


def where(ds: hr.Dataset) -> dict[str, str]:
    return dict(ds.catalog.select("id", "split").iter_rows())


def torn(ds: hr.Dataset) -> int:
    """Photos with copies in two splits."""
    by_photo: dict[str, set[str]] = {}
    for id_, split in where(ds).items():
        by_photo.setdefault(id_.split(".")[0], set()).add(split)
    return sum(len(splits) > 1 for splits in by_photo.values())


SHARES = {"train": 0.7, "val": 0.3}


@pytest.mark.parametrize("how", [{"guard": "move"}, {"group": "look"}, {"group": "look", "guard": "refuse"}])
def test_shares_are_drawn_by_groups_of_near_duplicates(tmp_path: Path, how: dict[str, Any]) -> None:
    report = hr.pack(copies(20), tmp_path / "ds", splits=SHARES, progress=False, **how)
    ds = hr.Dataset(tmp_path / "ds")
    assert torn(ds) == 0 and report.stored == 60
    assert 39 <= report.splits["train"] <= 45  # 42, to within a group
    assert report.notes == ("60 near-duplicates in 20 groups, each of which is in one split",)
    assert torn(pack(copies(20), tmp_path / "plain", splits=SHARES)) > 5  # what it is good for
    assert (ds.manifest.pack_options["guard"], ds.manifest.pack_options["group"]) == (
        how.get("guard"),
        how.get("group"),
    )


def test_groups_of_the_records_and_near_duplicates_are_joined(tmp_path: Path) -> None:
    """Photos 0 to 9 are of one patient, and so are all copies of them."""
    from dataclasses import replace

    records = [
        replace(record, group="ann" if record.id in {f"{k}.0" for k in range(10)} else None) for record in copies(20)
    ]
    ds = pack(records, tmp_path / "ds", splits={"train": 0.5, "val": 0.5}, guard="move")
    assert torn(ds) == 0
    assert len({split for id_, split in where(ds).items() if int(id_.split(".")[0]) < 10}) == 1


def test_given_splits_are_moved_to_where_most_of_a_group_is(tmp_path: Path) -> None:
    """Copies 0, 1, 2 are given to test, train, train: all go to train; of a tie the first split has them."""
    records = copies(10, splits=("test", "train", "train")) + [
        hr.Record(id=f"alone {k}", encoded=saved(textured(100 + k), "JPEG"), label_name="cat", split="test")
        for k in range(5)
    ]
    report = hr.pack(records, tmp_path / "ds", guard="move", progress=False)
    assert dict(report.splits) == {"train": 30, "test": 5}
    assert report.notes == ("30 near-duplicates in 10 groups", "10 records moved to another split, by guard='move'")
    tied = pack(copies(4, each=2, splits=("test", "train")) + records[-5:], tmp_path / "tied", guard="move")
    assert tied.splits == {"train": 8, "test": 5}


def test_what_is_dropped_leaves_the_test_split_whole(tmp_path: Path) -> None:
    records = copies(4, splits=("train", "val", "test")) + [
        hr.Record(id=f"alone {k}", encoded=saved(textured(100 + k), "JPEG"), label_name="cat", split=split)
        for k in range(10)
        for split in [("train", "val")[k % 2]]
    ]
    report = hr.pack(records, tmp_path / "ds", guard="drop", max_rejects=0.5, progress=False)
    assert dict(report.splits) == {"train": 5, "val": 5, "test": 4}
    assert (report.seen, report.stored, len(report.rejects)) == (22, 14, 8)
    assert {(reject.id, reject.stage) for reject in report.rejects} == {
        (f"{photo}.{copy}", "duplicate") for photo in range(4) for copy in (0, 1)
    }
    assert "a near-duplicate of '0.2', which stays in split 'test'" in report.rejects[0].reason
    with pytest.raises(hr.DataError, match="8 of 22 records are rejected"):
        hr.pack(records, tmp_path / "no", guard="drop", progress=False)


def test_refused_with_the_first_pairs(tmp_path: Path) -> None:
    records = copies(5, each=2, splits=("train", "val"))
    with pytest.raises(
        hr.DataError, match=r"5 records have a near-duplicate in another split: '0.0' \(train\) and"
    ) as e:
        hr.pack(records, tmp_path / "ds", guard="refuse", progress=False)
    assert "guard='move'" in str(e.value) and not (tmp_path / "ds").exists() and [*tmp_path.iterdir()] == []
    alone = [record for record in records if record.id.endswith("0")]
    alone += [hr.Record(id="x", encoded=saved(textured(99), "JPEG"), label_name="cat", split="val")]
    assert len(pack(alone, tmp_path / "ds", guard="refuse")) == 6


def test_without_near_duplicates_nothing_is_said_or_changed(tmp_path: Path) -> None:
    records = copies(20, each=1)
    plain, guarded = (pack(records, tmp_path / name, splits=SHARES, **how) for name, how in
                      (("plain", {}), ("guarded", {"guard": "drop"})))  # fmt: skip
    assert where(plain) == where(guarded)
    assert hr.pack(records, tmp_path / "again", splits=SHARES, guard="drop", progress=False).notes == ()


def test_one_split_wants_no_guard(tmp_path: Path) -> None:
    records = copies(3)
    assert len(pack(records, tmp_path / "ds", guard="refuse")) == 9
    assert len(pack(records, tmp_path / "2", group="look")) == 9


def test_images_that_cannot_be_read_are_rejected_as_ever(tmp_path: Path) -> None:
    broken = [
        hr.Record(id="broken", encoded=saved(textured(1), "JPEG")[:2000], label_name="cat"),
        hr.Record(id="gone", path=str(tmp_path / "gone.jpg"), label_name="dog"),
        hr.Record(id="text", encoded=b"no image", label_name="dog"),
    ]
    report = hr.pack(copies(10) + broken, tmp_path / "ds", splits=SHARES, guard="move", progress=False)
    assert {reject.id for reject in report.rejects} == {"broken", "gone", "text"} and report.stored == 30
    assert torn(hr.Dataset(tmp_path / "ds")) == 0


def test_windows_are_looked_at_and_not_their_photos(tmp_path: Path) -> None:
    """Two halves of one photo are two images; the same half twice is one."""
    data = saved(np.concatenate([textured(1), textured(2)], axis=1), "JPEG")
    windows = {"left": (0, 0, 320, 240), "right": (320, 0, 640, 240), "left again": (0, 0, 320, 240)}
    records = [
        hr.Record(id=name, encoded=data, label_name="cat", window=window, split=("val" if "again" in name else "train"))
        for name, window in windows.items()
    ]
    with pytest.raises(hr.DataError, match=r"1 records have a near-duplicate .* 'left'"):
        hr.pack(records, tmp_path / "ds", guard="refuse", progress=False)


def test_any_number_of_workers_gives_the_same_files(tmp_path: Path) -> None:
    for workers in (1, 3):
        hr.pack(copies(12), tmp_path / f"{workers}/ds", splits=SHARES, guard="move", workers=workers, progress=False)
    names = sorted(path.name for path in (tmp_path / "1/ds").iterdir())
    for name in names:
        assert (tmp_path / "1/ds" / name).read_bytes() == (tmp_path / "3/ds" / name).read_bytes(), name


def test_what_guard_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(hr.UsageError, match="guard is 'leave', wanted one of move, drop, refuse"):
        hr.pack(copies(2), tmp_path / "ds", guard="leave", progress=False)  # type: ignore[arg-type]


def test_by_the_command_line(tmp_path: Path) -> None:
    root = files(tmp_path / "in", {f"{('train', 'val')[k % 2]}/{LABELS[k % 2]}/{k}.jpg": copies(3, 2)[k].encoded or b""
                                   for k in range(6)})  # fmt: skip
    refused = headrace("pack", root, tmp_path / "ds", "--guard", "refuse")
    assert refused.code == 1 and "near-duplicate in another split" in refused.err and "--guard move" in refused.err
    moved = json.loads(headrace("pack", root, tmp_path / "ds", "--guard", "move", "--json").out)
    assert moved["stored"] == 6 and any("records moved to another split, by --guard move" in n for n in moved["notes"])
    assert headrace("pack", root, tmp_path / "2", "--split", "train=0.5,val=0.5", "--group", "look").code == 0
    assert "--guard" in headrace("pack", "--help").out


def test_real_slices_are_guarded(real_data: Path, tmp_path: Path) -> None:
    ds = pack(hr.sources.folders(real_data / "mri"), tmp_path / "ds", splits=SHARES, guard="move")  # type: ignore[arg-type]
    found = hr.duplicates(ds, progress=False)
    assert len(found.groups) > 20 and found.across_splits == ()
