"""A source becomes a dataset on disk: nothing is lost, the same bytes every time, and all that is known is written."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
import tracemalloc
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import headrace as hr
from drawn import TINY_PNG, exif, files, image, jpeg, photos, saved
from headrace.errors import DataError, UsageError
from headrace.format import example, tfrecord
from headrace.imaging.prepare import ImageOptions
from headrace.packing.plan import make_plan
from headrace.packing.runners import threads
from headrace.packing.shard import ShardResult, make_record
from headrace.packing.task import Tasks, make_shard
from headrace.place import local
from headrace.record import Part
from headrace.sources.info import SourceInfo

PATTERN = r"^(?P<label>cat|dog)\."


def digests(folder: Path) -> dict[str, str]:
    """sha256 of all that must not depend on who packed, how and where: shards, indexes and catalog."""
    return {
        path.name: local.digest(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".tfrecord", ".idx") or path.name == "catalog.parquet"
    }


def pack(source: Any, out: Path, **options: Any) -> hr.PackReport:
    return hr.pack(source, out, **{"progress": False} | options)


class Given(list[hr.Record]):
    """Records, and what their source says of all."""

    def __init__(self, records: Any, **said: Any) -> None:
        super().__init__(records)
        self.info = SourceInfo(**said)

    def __iter__(self) -> Generator[hr.Record, None, SourceInfo]:  # type: ignore[override]
        yield from super().__iter__()
        return self.info


def of_names(root: Path, **options: Any) -> Any:
    return hr.sources.names(root, pattern=PATTERN, **options)


def features(folder: Path) -> dict[str, dict[str, Any]]:
    """id -> the features of every record of a dataset, read shard by shard."""
    found = {}
    for shard in sorted(folder.glob("*.tfrecord")):
        for _, payload in tfrecord.scan(shard.read_bytes()):
            parsed = example.parse(bytes(payload))
            found[parsed["image/id"][0].decode()] = parsed  # type: ignore[union-attr]
    return found


def is_whole(report: hr.PackReport, out: Path) -> bool:
    """Everything that was seen is stored or rejected, and all counts on disk say the same."""
    manifest = json.loads((out / "headrace.json").read_text())
    lines = (out / "rejects.jsonl").read_text().splitlines()
    counts = {
        report.stored,
        manifest["stored"],
        len(pl.read_parquet(out / "catalog.parquet")),
        sum(shard["records"] for shard in manifest["shards"]),
        len(features(out)),
    }
    return (
        report.seen == report.stored + len(report.rejects) == manifest["seen"]
        and len(report.rejects) == manifest["rejected"] == len(lines)
        and counts == {report.stored}
        and hr.Dataset(out).verify().ok
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """34 files: 24 photos, 4 without a class, 6 that are bad in their own ways."""
    root = photos(tmp_path_factory.mktemp("mixed") / "photos", 24)
    good = {f"{i}.jpg": jpeg(20 + i, 30, seed=i) for i in range(4)}
    bad = {
        "cat.90.jpg": b"",
        "cat.91.jpg": b"<html>gone</html>",
        "dog.92.jpg": jpeg(200, 200)[:1500],
        "dog.93.png": saved(Image16, "PNG"),
        "dog.94.jpg": b"text",
        "95.jpg": bytes(100),
    }
    return files(root, good | bad)


Image16 = image(mode="I;16")


@pytest.mark.parametrize("size", [None, 20])
def test_everything_seen_is_stored_or_rejected(size: int | None, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = pack(of_names(mixed), out, size=size, shards=3, max_rejects=6, splits={"train": 0.75, "val": 0.25})
    assert (report.seen, report.stored, len(report.rejects)) == (34, 28, 6)
    assert is_whole(report, out)
    assert report.classes == ("cat", "dog") and report.shards == 6
    assert sum(report.splits.values()) == 28
    assert report.bytes_in == sum(
        p.stat().st_size for p in mixed.iterdir() if p.name not in {r.id for r in report.rejects}
    )
    assert report.bytes_out == sum(p.stat().st_size for p in out.iterdir())
    assert report.images_per_second > 0


def test_rejects_say_what_where_and_why(mixed: Path, tmp_path: Path) -> None:
    report = pack(of_names(mixed), tmp_path / "out", max_rejects=0.5)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [tuple(line) for line in lines] == [("id", "origin", "stage", "reason")] * 6
    assert [(line["id"], line["stage"]) for line in lines] == [
        # in the order of the source
        ("95.jpg", "header"),
        ("cat.90.jpg", "header"),
        ("cat.91.jpg", "header"),
        ("dog.92.jpg", "decode"),
        ("dog.93.png", "header"),
        ("dog.94.jpg", "header"),
    ]
    assert all(line["origin"] == str(mixed / line["id"]) for line in lines)
    reasons = [line["reason"] for line in lines]
    for reason, wanted in zip(
        reasons,
        ["unknown content", "empty file", "HTML page", "truncated JPEG", "more than 8 bits", "not an image: text"],
        strict=True,
    ):
        assert wanted in reason
    assert [r.reason for r in report.rejects] == reasons


@pytest.mark.parametrize("options", [{}, {"size": 20, "fit": "crop", "channels": 1}])
def test_the_same_bytes_whoever_packs(options: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    found = []
    for i, workers in enumerate((1, 2, 5, 1)):
        pack(
            of_names(mixed),
            tmp_path / f"out{i}",
            workers=workers,
            shards=3,
            max_rejects=0.5,
            splits={"train": 0.8, "val": 0.2},
            **options,
        )
        found.append(digests(tmp_path / f"out{i}"))
        assert (tmp_path / f"out{i}" / "rejects.jsonl").read_bytes() == (
            tmp_path / "out0" / "rejects.jsonl"
        ).read_bytes()
    assert len(found[0]) == 2 * 6 + 1
    assert found[0] == found[1] == found[2] == found[3]


def test_the_same_bytes_wherever_it_lies(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(mixed, tmp_path / "elsewhere" / "copy")
    pack(of_names(mixed), tmp_path / "out", max_rejects=0.5)
    monkeypatch.chdir(tmp_path / "elsewhere")
    pack(of_names(Path("copy")), Path("../out2"), max_rejects=0.5)
    assert digests(tmp_path / "out") == digests(tmp_path / "out2")


def test_another_seed_is_another_order(mixed: Path, tmp_path: Path) -> None:
    orders = []
    for i, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(i)
        pack(of_names(mixed), out, max_rejects=0.5, seed=seed, splits={"train": 0.5, "val": 0.5})
        catalog = pl.read_parquet(out / "catalog.parquet")
        orders.append((catalog["id"].to_list(), catalog["split"].to_list()))
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0][0]) == sorted(orders[2][0])


def run_in_processes(tasks: Tasks) -> Iterator[ShardResult]:
    """A runner as a cluster engine would be one: tasks go out pickled, results come back in any order, some twice."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield from [*pool.map(make_shard, [*tasks, tasks[0]])][::-1]


def test_who_makes_the_shards_is_a_parameter(mixed: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"shards": 2, "max_rejects": 0.5, "size": 16, "splits": {"train": 0.8, "val": 0.2}}
    here = pack(of_names(mixed), tmp_path / "here", **options)
    there = pack(of_names(mixed), tmp_path / "there", runner=run_in_processes, **options)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    assert [str(r) for r in here.rejects] == [str(r) for r in there.rejects]
    assert is_whole(there, tmp_path / "there")


def test_what_goes_to_a_worker_and_comes_back_is_small(mixed: Path, tmp_path: Path) -> None:
    """A task has the rows of its own shard and nothing of the others; a result the rows of its parts of the tables."""
    sizes = []

    def measured(tasks: Tasks) -> Iterator[ShardResult]:
        results = [make_shard(task) for task in tasks]
        sizes.append((len(pickle.dumps(tasks[0])), len(pickle.dumps(results[0]))))
        yield from results

    for n in (3000, 6000):
        items = [
            hr.Record(id=f"{i:04d}", encoded=TINY_PNG, label_name="x", origin=f"list.csv:{i:04d}") for i in range(n)
        ]
        pack(items, tmp_path / str(n), shards=n // 1000, runner=measured)
    assert max(sizes[0]) < 300_000 and all(abs(a - b) < 2000 for a, b in zip(*sizes, strict=True))


def test_nothing_of_the_plan_is_published(mixed: Path, tmp_path: Path) -> None:
    report = pack(of_names(mixed), tmp_path / "out", max_rejects=0.5, shards=2)
    known = {"headrace.json", "headrace.index", "catalog.parquet", "rejects.jsonl", "label_map.pbtxt"}
    known |= {"dataset_info.json", "features.json", "image.class.label.labels.txt"}
    shards = {f"train-0000{i}-of-00002{end}" for i in range(2) for end in (".tfrecord", ".idx")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == known | shards
    assert report.bytes_out == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())


def test_shards_do_not_know_in_how_many_parts_the_tables_came(mixed: Path, tmp_path: Path) -> None:
    """Index and catalog of many shards hold what those of one hold, row by row."""
    found = []
    for shards in (1, 7):
        pack(of_names(mixed), tmp_path / str(shards), max_rejects=0.5, shards=shards)
        catalog = hr.Dataset(tmp_path / str(shards)).catalog
        found.append(catalog.drop("shard", "offset", "image_offset"))
    assert found[0].equals(found[1])


def test_a_view_is_packed_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset's records bring their bytes: 15 MB of them are planned in a third of that, and keep all they had."""
    rng = np.random.default_rng(0)
    items = [
        hr.Record(
            id=f"{i:02d}",
            encoded=saved(rng.integers(0, 256, (250, 330, 3), np.uint8), "PNG"),
            label_name="cba"[i % 3],
            boxes=np.array([[i, 2, i + 20.5, 40]] * (i % 3), np.float32).reshape(-1, 4),
            box_labels=("hat", "face")[: i % 3],
            attributes={"camera": ["left", "right"][i % 2], "n": i},
            origin=f"list.csv:{i}",
        )
        for i in range(60)
    ]
    source = Given(items, class_names=("c", "b", "a", "z"), box_class_names=("hat", "face", "tail"))
    pack(source, tmp_path / "all", shards=2)
    view = hr.Dataset(tmp_path / "all").where("label_name <> 'a'")
    monkeypatch.setattr("headrace.packing.plan._BATCH_BYTES", 1 << 20)
    tracemalloc.start()
    options: dict[str, Any] = {"splits": None, "shards": 1, "shard_bytes": None, "seed": 5}
    make_plan(view, tmp_path / "scratch", out=tmp_path / "out", options=ImageOptions(), **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(len(record.encoded or b"") for record in items) / 3

    pack(view, tmp_path / "out", shards=3, seed=5)
    there = hr.Dataset(tmp_path / "out")
    assert there.class_names == ("c", "b", "a", "z") and there.box_class_names == ("hat", "face", "tail")
    found = {record.id: record for record in (there[i] for i in range(len(there)))}
    assert len(found) == len(view) == 40
    for record in (view[i] for i in range(len(view))):
        other = found[record.id]
        for name in ("encoded", "label", "label_name", "box_labels", "attributes", "origin"):
            assert getattr(other, name) == getattr(record, name), name
        assert np.array_equal(other.boxes, record.boxes)  # type: ignore[arg-type]


def test_images_inside_of_a_larger_file(tmp_path: Path) -> None:
    images = [jpeg(seed=i) for i in range(5)]
    (tmp_path / "all.tar").write_bytes(b"".join(images))
    starts = np.cumsum([0, *map(len, images)]).tolist()
    path = str(tmp_path / "all.tar")
    parts = [Part(path, at, len(image)) for at, image in zip(starts, images, strict=False)]
    bad = {"cut": Part(path, starts[-1] - 9, 100), "gone": Part(f"{path}.gz", 0, 9), "text": Part(path, 0, 0)}
    records = [hr.Record(id=str(i), part=part) for i, part in enumerate(parts)]
    records += [hr.Record(id=name, part=part, origin=name if name != "text" else "x:1") for name, part in bad.items()]
    report = pack(records, tmp_path / "out", max_rejects=3)
    assert is_whole(report, tmp_path / "out") and report.bytes_in == starts[-1]
    found = hr.Dataset(tmp_path / "out")
    assert {record.id: record.encoded for record in (found[i] for i in range(5))} == dict(
        zip("01234", images, strict=True)
    )
    assert [str(reject) for reject in report.rejects] == [
        f"{path}: 100 bytes from byte {starts[-1] - 9} on, and the file ends at byte {starts[-1]} (read)",
        f"{path}.gz: no such file or directory (read)",
        f"x:1: empty file (0 bytes): {path!r} (header)",
    ]


def test_a_runner_that_loses_a_shard_is_found_out(mixed: Path, tmp_path: Path) -> None:
    def loses(tasks: Tasks) -> Iterator[ShardResult]:
        yield make_shard(tasks[0])

    with pytest.raises(AssertionError, match="some are lost"):
        pack(of_names(mixed), tmp_path / "out", shards=2, max_rejects=0.5, runner=loses)
    assert not list(tmp_path.iterdir())


def test_one_shard_keeps_all_workers_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads meet while the only shard is made: with a thread per shard they never would."""
    met = threading.Barrier(3)
    here = threading.local()

    def meet(*args: Any) -> Any:
        if not hasattr(here, "met"):
            here.met = met.wait(timeout=300)
        return make_record(*args)

    monkeypatch.setattr(threads, "make_record", meet)
    report = pack(of_names(photos(tmp_path / "photos", 30)), tmp_path / "out", shards=1, workers=3)
    assert (report.stored, report.shards) == (30, 1)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["train-00000-of-00001"]),
        ({"shards": 2}, ["train-00000-of-00002", "train-00001-of-00002"]),
        # more shards than records
        ({"shards": 99}, [f"train-{i:05d}-of-00006" for i in range(6)]),
        ({"shard_size": 1}, [f"train-{i:05d}-of-00006" for i in range(6)]),
        ({"shard_size": 10**9}, ["train-00000-of-00001"]),
        (
            {"shards": 2, "splits": {"b": 0.5, "a": 0.5}},
            ["b-00000-of-00002", "b-00001-of-00002", "a-00000-of-00002", "a-00001-of-00002"],
        ),
    ],
)
def test_shards(options: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    report = pack(of_names(photos(tmp_path / "photos", 6)), tmp_path / "out", **options)
    manifest = json.loads((tmp_path / "out" / "headrace.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == [f"{name}.tfrecord" for name in names]
    assert {p.name for p in (tmp_path / "out").glob("*-of-*")} == {
        f"{n}{e}" for n in names for e in (".tfrecord", ".idx")
    }
    assert report.shards == len(names)
    assert is_whole(report, tmp_path / "out")


def test_shards_are_about_as_large_as_asked(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 100)
    pack(of_names(root), tmp_path / "out", shard_size=20_000)
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tfrecord")]
    assert len(sizes) > 3
    assert 12_000 < np.mean(sizes) < 30_000


def test_a_shard_of_rejects_alone_is_empty_and_sound(tmp_path: Path) -> None:
    root = files(photos(tmp_path / "photos", 1), {"cat.7.jpg": b"", "dog.8.jpg": b""})
    report = pack(of_names(root), tmp_path / "out", shards=3, max_rejects=1.0)
    assert (report.stored, len(report.rejects), report.shards) == (1, 2, 3)
    assert sorted(p.stat().st_size for p in (tmp_path / "out").glob("*.tfrecord"))[:2] == [0, 0]
    assert is_whole(report, tmp_path / "out")


def test_splits_are_stratified(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 40)
    files(root, {f"{i}.jpg": jpeg(seed=i) for i in range(20)})
    report = pack(of_names(root), tmp_path / "out", splits={"train": 0.8, "val": 0.2}, seed=3)
    catalog = pl.read_parquet(tmp_path / "out" / "catalog.parquet")
    found = Counter(zip(catalog["split"], catalog["label_name"], strict=True))
    assert found == {(split, label): n for split, n in (("train", 16), ("val", 4)) for label in ("cat", "dog", None)}
    assert report.splits == {"train": 48, "val": 12}


def test_no_label_is_null_in_the_catalog_and_minus_one_on_the_wire(mixed: Path, tmp_path: Path) -> None:
    pack(of_names(mixed), tmp_path / "out", max_rejects=0.5)
    catalog = pl.read_parquet(tmp_path / "out" / "catalog.parquet").sort("id")
    wire = features(tmp_path / "out")
    for row in catalog.iter_rows(named=True):
        labelled = row["id"][0] in "cd"
        wanted = (["cat", "dog"].index(row["label_name"]), row["id"][:3]) if labelled else (None, None)
        assert (row["label"], row["label_name"]) == wanted
        assert wire[row["id"]]["image/class/label"] == [wanted[0] if labelled else -1]
        assert wire[row["id"]]["image/class/text"] == [(wanted[1] or "").encode()]
    assert catalog["label"].null_count() == 4


def test_a_dataset_without_classes_has_no_labels_at_all(tmp_path: Path) -> None:
    root = files(tmp_path / "photos", {"1.jpg": jpeg(), "2.jpg": jpeg(seed=1)})
    report = pack(of_names(root), tmp_path / "out")
    assert report.classes == ()
    assert not any("image/class/label" in found for found in features(tmp_path / "out").values())
    assert is_whole(report, tmp_path / "out")


def test_classes_in_a_given_order(mixed: Path, tmp_path: Path) -> None:
    report = pack(of_names(mixed, class_names=("dog", "bird", "cat")), tmp_path / "out", max_rejects=0.5)
    assert report.classes == ("dog", "bird", "cat")
    catalog = pl.read_parquet(tmp_path / "out" / "catalog.parquet")
    assert set(zip(catalog["label_name"], catalog["label"], strict=True)) == {("dog", 0), ("cat", 2), (None, None)}
    assert (tmp_path / "out" / "image.class.label.labels.txt").read_text() == "dog\nbird\ncat\n"


@pytest.mark.parametrize(
    ("max_rejects", "allowed"),
    [(6, True), (5, False), (0, False), (0.18, True), (0.17, False), (1.0, True), (0.0, False), (10**9, True)],
)
def test_patience_with_rejects(max_rejects: float, allowed: bool, mixed: Path, tmp_path: Path) -> None:
    """6 of 34 are 17.6%."""
    if allowed:
        assert len(pack(of_names(mixed), tmp_path / "out", max_rejects=max_rejects).rejects) == 6
        return
    with pytest.raises(DataError, match=r"of 34 records are rejected, \d are allowed \(max_rejects\); nothing"):
        pack(of_names(mixed), tmp_path / "out", max_rejects=max_rejects)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("max_rejects", [-1, -0.1, 1.1, float("nan"), float("inf")])
def test_patience_that_is_none(max_rejects: float, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"max_rejects is .*, wanted a share \(a float, 0 to 1\) or a count \(an int\)"
    ):
        pack(of_names(mixed), tmp_path / "out", max_rejects=max_rejects)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 4])
def test_the_error_lists_the_first_ten(workers: int, tmp_path: Path) -> None:
    root = files(tmp_path / "photos", {f"cat.{i}.jpg": b"" for i in range(25)})
    with pytest.raises(DataError) as caught:
        pack(of_names(root), tmp_path / "out", max_rejects=14, workers=workers)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12 and lines[11] == f"  ... and {int(lines[0].split()[0]) - 10} more"
    assert all(line.endswith(".jpg: empty file (0 bytes) (header)") for line in lines[1:11])
    numbers = [int(line.split("cat.")[1].split(".")[0]) for line in lines[1:11]]
    assert numbers == sorted(numbers)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_too_many_rejects_leave_the_old_dataset(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(of_names(mixed), out, max_rejects=6)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError):
        pack(of_names(mixed), out, max_rejects=0, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_to_store_is_no_dataset(tmp_path: Path) -> None:
    root = files(tmp_path / "photos", {"cat.1.jpg": b""})
    with pytest.raises(DataError, match=r"none of 1 records could be stored\n  .*cat\.1\.jpg: empty file"):
        pack(of_names(root), tmp_path / "out", max_rejects=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_old_dataset_is_replaced_when_told(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(of_names(mixed), out, max_rejects=6, shards=5)
    with pytest.raises(UsageError, match="holds a dataset already; pass overwrite=True to replace it"):
        pack(of_names(mixed), out, max_rejects=6, shards=2)
    assert len(list(out.glob("*.tfrecord"))) == 5
    pack(of_names(mixed), out, max_rejects=6, shards=2, overwrite=True)
    assert len(list(out.glob("*.tfrecord"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_dataset_inside_of_its_source(tmp_path: Path) -> None:
    """Neither what is packed nor the hidden folder of the packing is taken for a class."""
    root = files(tmp_path, {"cat/1.jpg": jpeg(), "dog/1.jpg": jpeg(seed=1)})
    for _ in range(2):
        report = pack(hr.sources.folders(root), root / "out", overwrite=True)
        assert (report.seen, report.stored, report.classes) == (2, 2, ("cat", "dog"))
        assert is_whole(report, root / "out")


@pytest.mark.parametrize("linked", [False, True])
def test_a_source_inside_of_what_would_be_replaced(linked: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(of_names(photos(tmp_path / "photos", 4)), out)
    photos(out / "more", 4)
    source = out / "more"
    if linked:
        (tmp_path / "link").symlink_to(out)
        source = tmp_path / "link" / "more"
    with pytest.raises(UsageError, match="images of the source lie in it"):
        pack(of_names(source), out, overwrite=True)
    assert len(list((out / "more").iterdir())) == 4


def test_a_source_is_never_replaced(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 4)
    for out in (root, tmp_path):
        with pytest.raises(UsageError, match="other files in it"):
            pack(of_names(root), out, overwrite=True)
    assert len(list(root.iterdir())) == 4


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def source() -> Iterator[hr.Record]:
        yield hr.Record(id="a", encoded=TINY_PNG)
        raise RuntimeError("the annotation server is gone")

    with pytest.raises(RuntimeError, match="server is gone"):
        pack(source(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_records_from_anywhere(tmp_path: Path) -> None:
    """Any iterable of Record and Reject is a source."""
    items = [
        hr.Record(id="b", encoded=TINY_PNG, label_name="x", attributes={"camera": "ü", "n": 3}, origin="list.csv:2"),
        hr.Reject(id="c", origin="list.csv:3", stage="read", reason="no such image"),
        hr.Record(id="a", encoded=jpeg(), label_name="y", origin="list.csv:4"),
        hr.Record(id="b", encoded=TINY_PNG, label_name="x", origin="list.csv:5"),
        hr.Record(id="d", path=str(tmp_path / "gone.jpg"), label_name="x", origin="list.csv:6"),
    ]
    report = pack(iter(items), tmp_path / "out", max_rejects=3)
    assert is_whole(report, tmp_path / "out")
    assert [(r.id, r.origin, r.stage, r.reason) for r in report.rejects] == [
        ("c", "list.csv:3", "read", "no such image"),
        ("b", "list.csv:5", "label", "duplicate id 'b', first at list.csv:2"),
        ("d", "list.csv:6", "read", f"no such file or directory: '{tmp_path}/gone.jpg'"),
    ]
    ds = hr.Dataset(tmp_path / "out")
    found = {record.id: record for record in (ds[i] for i in range(len(ds)))}
    assert found["b"].encoded == TINY_PNG and found["b"].origin == "list.csv:2"
    assert found["b"].attributes == {"camera": "ü", "n": 3} and found["a"].attributes == {}


WHITE_BOX = np.array([[30, 6, 54, 26]], np.float32)  # on a picture of 40 x 60 (h x w)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [None, (36, 48)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_points_go_with_the_pixels(
    orientation: int, size: tuple[int, int] | None, fit: Any, tmp_path: Path
) -> None:
    """From the record through EXIF, resize and crop into catalog and wire: there is white exactly where they say."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[6:26, 30:54] = 255
    middle = np.array([[[42, 16, 2], [0, 0, 0]]], np.float32)
    record = hr.Record(
        id="a",
        encoded=saved(pixels, "JPEG", quality=95, exif=exif(orientation)),
        boxes=WHITE_BOX,
        box_labels=("white",),
        keypoints=middle,
    )
    negative = hr.Record(id="b", encoded=jpeg(), boxes=np.zeros((0, 4), np.float32), box_labels=())
    pack([record, negative], tmp_path / "out", size=size, fit=fit)
    ds = hr.Dataset(tmp_path / "out")
    found = {r.id: r for r in (ds[0], ds[1])}
    white, none = found["a"], found["b"]
    assert none.boxes is not None and len(none.boxes) == 0 and none.label is None
    assert white.boxes is not None and white.keypoints is not None and white.box_labels == ("white",)
    seen = white.image[..., 0] >= 128
    assert seen.shape == (white.height, white.width) == (size or ((60, 40) if orientation > 4 else (40, 60)))
    ys, xs = np.nonzero(seen)
    box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert np.abs(white.boxes[0] - box).max() <= 1
    x, y, v = white.keypoints[0, 0]
    assert v == 2 and seen[int(y), int(x)]
    assert (
        np.abs([x - (white.boxes[0, 0] + white.boxes[0, 2]) / 2, y - (white.boxes[0, 1] + white.boxes[0, 3]) / 2]).max()
        < 6
    )
    assert white.keypoints[0, 1].tolist() == [0, 0, 0]
    wire = features(tmp_path / "out")["a"]
    scale = [white.width, white.height, white.width, white.height]
    sides = [wire[f"image/object/bbox/{side}"][0] for side in ("xmin", "ymin", "xmax", "ymax")]
    assert np.allclose(np.multiply(sides, scale), white.boxes[0], atol=1e-3)
    assert wire["image/object/keypoint/x"][0] * white.width == pytest.approx(x, abs=1e-3)


def test_real_cats_and_dogs(real_data: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        report = pack(
            of_names(real_data / "catsdogs" / "train"),
            out,
            splits={"train": 0.81, "val": 0.19},
            size=160,
            fit="crop",
            shards=16,
            seed=42,
            workers=workers,
        )
        assert (report.seen, report.stored, report.rejects) == (800, 800, ())
        assert report.splits == {"train": 648, "val": 152}
        found.append(digests(out))
    assert found[0] == found[1]
    assert len(found[0]) == 2 * 32 + 1


@pytest.mark.parametrize("channels", [1, 3, None])
def test_real_mri_slices(channels: int | None, real_data: Path, tmp_path: Path) -> None:
    """Palette, RGBA and grey pictures, PNGs named .jpg, spaces in names, .JPG and .jpeg: all of them are stored."""
    report = pack(hr.sources.folders(real_data / "mri"), tmp_path / "out", channels=channels, max_rejects=0)
    assert report.classes == ("no", "yes") and report.seen == report.stored > 200
    catalog = hr.Dataset(tmp_path / "out").catalog
    assert set(catalog["channels"]) == ({channels} if channels else {1, 3})
    assert set(catalog["format"]) <= {"jpeg", "png"}
