"""Datasets in stores from end to end: packed, read back, replaced under readers, killed on the way, damaged."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.util
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
import stored
from amount import ALL
from command import headrace
from headrace.errors import DamageError, DataError, HeadraceError, NotThereError, StorageError, UsageError
from headrace.format import manifest
from headrace.place import publication, stores
from headrace.place.address import Url
from headrace.place.publication import CLAIM, orphans
from headrace.place.remote import RemotePlace
from packed import photos
from stored import Bucket, Faults

SPLITS = {"train": 0.7, "val": 0.3}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with stored.s3() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return stored.bucket(endpoint, monkeypatch)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    multiprocessing.util.get_temp_dir()  # which it keeps: in tmp_path the names of its sockets would be too long
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    publication._scratch_root.cache_clear()


def pack(out: str | Path, *, n: int = 60, **options: Any) -> hr.PackReport:
    return hr.pack(
        photos(n, boxes=True, unlabelled=(4,)), out, **{"splits": SPLITS, "shards": 2, "progress": False} | options
    )


def files_of(bucket: Bucket, name: str = "cats") -> dict[str, bytes] | None:
    """The files of the dataset that readers find, by their names; none of those that say where it is."""
    objects = bucket.objects
    if f"{name}/{manifest.FILE}" not in objects:
        return None
    raw = json.loads(objects[f"{name}/{manifest.FILE}"])
    folder = "/".join(filter(None, (name, raw.get("folder", ""))))
    names = [*raw["files"], *(shard["name"] for shard in raw["shards"])]
    names += [shard["name"].removesuffix(".tfrecord") + ".idx" for shard in raw["shards"]]
    names.remove(manifest.INFO_FILE)
    return {one: objects[f"{folder}/{one}"] for one in names}


def test_the_same_bytes_as_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    pack(tmp_path / "cats")
    report = pack(f"{bucket.url}/cats")
    assert str(report.path) == f"{bucket.url}/cats" and report.folder == ""
    local = {f"cats/{path.name}": path.read_bytes() for path in (tmp_path / "cats").iterdir()}
    assert bucket.objects == local
    assert report.bytes_out == sum(map(len, local.values()))


def test_what_is_read_back_is_what_was_packed(bucket: Bucket, tmp_path: Path) -> None:
    pack(tmp_path / "cats", n=120)
    pack(f"{bucket.url}/cats", n=120)
    here, there = hr.Dataset(tmp_path / "cats"), hr.Dataset(f"{bucket.url}/cats")
    assert len(here) == len(there) == 120
    assert there.verify().ok
    for i in range(len(here)):
        one, other = here[i], there[i]
        assert one.id == other.id and one.encoded == other.encoded and one.label == other.label
        assert one.boxes is not None and other.boxes is not None and np.array_equal(one.boxes, other.boxes)
    again = pickle.loads(pickle.dumps(there))
    assert again[7].encoded == here[7].encoded
    assert np.array_equal(there.where("label_name = 'ant'").rows, here.where("label_name = 'ant'").rows)


def test_readers_of_a_dataset_that_is_replaced_stay_whole(bucket: Bucket, tmp_path: Path) -> None:
    pack(tmp_path / "old")
    pack(f"{bucket.url}/cats")
    old, reader = hr.Dataset(tmp_path / "old"), hr.Dataset(f"{bucket.url}/cats")
    report = pack(f"{bucket.url}/cats", n=30, overwrite=True)
    assert report.folder.startswith("runs/")
    assert [reader[i].encoded for i in range(60)] == [old[i].encoded for i in range(60)]
    new = hr.Dataset(f"{bucket.url}/cats")
    assert len(new) == 30 and new.verify().ok
    left = orphans(RemotePlace(Url(f"{bucket.url}/cats")))
    assert {one.name for one in left} == {path.name for path in (tmp_path / "old").iterdir()} - {manifest.FILE}


def test_a_web_server_is_read(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    pack(tmp_path / "served" / "cats")
    here = hr.Dataset(tmp_path / "served" / "cats")
    with stored.serving(stored.faulty(Faults(tmp_path / "served", lambda n: "cut" if n % 5 == 1 else None))) as address:
        there = hr.Dataset(f"{address}/x/cats", storage_options=stored.QUICK)
        assert [there[i].encoded for i in range(len(there))] == [here[i].encoded for i in range(len(here))]
        with pytest.raises(NotThereError, match=f"{address}/x/dogs: no such folder"):
            hr.Dataset(f"{address}/x/dogs")


def test_a_dataset_that_is_not_there(bucket: Bucket) -> None:
    bucket.put("dogs/notes.txt", b"none")
    with pytest.raises(NotThereError, match=f"{bucket.url}/cats: no such folder"):
        hr.Dataset(f"{bucket.url}/cats")
    with pytest.raises(UsageError, match=f"{bucket.url}/dogs: not a packed dataset"):
        hr.Dataset(f"{bucket.url}/dogs")
    with pytest.raises(NotThereError, match="s3://no-such-bucket/cats"):
        hr.Dataset("s3://no-such-bucket/cats")


def test_damage_in_a_store_has_an_address(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(f"{bucket.url}/cats")
    name = "train-00000-of-00002.tfrecord"
    data = bytearray(bucket.objects[f"cats/{name}"])
    data[len(data) // 2] ^= 1
    bucket.put(f"cats/{name}", bytes(data))
    ds = hr.Dataset(f"{bucket.url}/cats")
    wrong = []
    for i in range(len(ds)):
        try:
            ds[i]
        except DamageError as error:
            wrong.append(str(error))
    assert len(wrong) == 1 and f"{bucket.url}/cats/{name}" in wrong[0]
    assert not ds.verify().ok
    bucket.delete("cats/catalog.parquet")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "another"))  # of the first there is a copy
    with pytest.raises(HeadraceError, match=f"{bucket.url}/cats/catalog.parquet"):
        hr.Dataset(f"{bucket.url}/cats").where("label = 0")


def test_too_many_rejects_leave_nothing(bucket: Bucket) -> None:
    bad = [hr.Record(id=f"{k}", encoded=b"no image", label_name="x") for k in range(30)]
    with pytest.raises(DataError, match="are rejected, 3 are allowed"):
        hr.pack([*photos(5), *bad], f"{bucket.url}/cats", progress=False)
    assert bucket.objects == {}


def test_shards_of_others_are_adopted_where_they_are(bucket: Bucket, tmp_path: Path) -> None:
    pack(f"{bucket.url}/cats")
    before = bucket.objects
    report = hr.adopt(f"{bucket.url}/cats", f"{bucket.url}/adopted")
    assert report.stored == 60
    ds = hr.Dataset(f"{bucket.url}/adopted")
    there = {record.id: record.encoded for record in (hr.Dataset(f"{bucket.url}/cats")[i] for i in range(60))}
    assert {ds[i].id.rpartition("/")[2]: ds[i].encoded for i in range(60)} == {
        name.rpartition("/")[2]: data for name, data in there.items()
    }
    assert before.items() <= bucket.objects.items()
    pack(tmp_path / "cats")
    with pytest.raises(UsageError, match=r"files of this machine .*, which nobody reaches who reads the store"):
        hr.adopt(tmp_path / "cats", f"{bucket.url}/other")


def test_exports_are_written_once(bucket: Bucket, tmp_path: Path) -> None:
    ds = pack(tmp_path / "cats") and hr.Dataset(tmp_path / "cats")
    ds.export(tmp_path / "out", format="csv", progress=False)
    ds.export(f"{bucket.url}/out", format="csv", progress=False)
    local = {
        f"out/{path.relative_to(tmp_path / 'out').as_posix()}": path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert bucket.objects == local
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds an export already, and a store can't replace all of its files"):
            ds.export(f"{bucket.url}/out", format="csv", overwrite=overwrite, progress=False)
    assert bucket.objects == local


# --- kills ------------------------------------------------------------------------------------------------------------


def _pack_in(url: str, seed: int, environment: dict[str, str], said: Any = None) -> None:
    os.environ.update(environment)
    tempfile.tempdir = None
    try:
        pack(url, seed=seed, overwrite=said is None)
    except HeadraceError as error:
        if said is not None:
            said.put(f"{type(error).__name__}: {error}")
        raise SystemExit(2) from None


def _process(url: str, seed: int, environment: dict[str, str], said: Any = None) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headrace.packing.pack", "headrace.place.cache", "packed", "stored"])
    process = context.Process(target=_pack_in, args=(url, seed, environment, said))
    process.start()
    return process


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", ["first", "replacement"])
def test_a_kill_leaves_the_old_dataset_or_the_new_one(
    case: str, bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each request arrives, and before each answer does: what the store holds changes nowhere else."""
    pack(f"{bucket.url}/new", seed=1)
    new, old = files_of(bucket, "new"), None
    if case == "replacement":
        pack(f"{bucket.url}/cats", seed=0)
        old = files_of(bucket)
    kept = bucket.objects
    steps, lock = [0], threading.Lock()
    child: list[Any] = []

    def step() -> None:
        with lock:
            steps[0] += 1
            if steps[0] == fatal:
                os.kill(child[0].pid, signal.SIGKILL)

    left: list[str] = []
    with stored.running(stored.proxy(endpoint, step=step)) as server:
        environment = bucket.environment | {"AWS_ENDPOINT_URL": server.address, "TMPDIR": os.environ["TMPDIR"]}
        fatal = 0
        child[:] = [_process(f"{bucket.url}/cats", 1, environment)]
        child[0].join()
        assert child[0].exitcode == 0 and files_of(bucket) == new
        total = steps[0]
        for fatal in range(1, total + 1) if ALL else (*range(5, total - 5, 15), *range(total - 5, total + 1)):
            for key in bucket.objects:
                if key not in kept:
                    bucket.delete(key)
            for key, data in kept.items():
                bucket.put(key, data)
            steps[0] = 0
            with lock:
                child[:] = [_process(f"{bucket.url}/cats", 1, environment)]
            child[0].join()
            server.settle()  # what a killed one has sent arrives all the same
            assert child[0].exitcode in (-signal.SIGKILL, 0)  # its uploads come in any order: sometimes one step less
            found = files_of(bucket)
            left.append("none" if found is None else "new" if found == new else "old" if found == old else "half")
            if found is None or found == old:
                assert kept.items() <= bucket.objects.items()
            if found is not None:
                assert hr.Dataset(f"{bucket.url}/cats").verify().ok
            if fatal % 10 == 0:  # the next one finds its way
                pack(f"{bucket.url}/cats", seed=1, overwrite=True)
                assert files_of(bucket) == new
            assert bucket.uploads == 0
    before = "none" if case == "first" else "old"
    assert set(left) == {before, "new"}
    # Once it is published it stays so; only what deletes the claim comes after.
    assert left == sorted(left, key=[before, "new"].index)


def test_of_five_packings_at_once_one_wins(bucket: Bucket) -> None:
    said = multiprocessing.get_context("forkserver").Queue()
    processes = [
        _process(f"{bucket.url}/cats", seed, bucket.environment | {"TMPDIR": os.environ["TMPDIR"]}, said)
        for seed in range(5)
    ]
    errors = [said.get(timeout=600) for _ in range(4)]
    for process in processes:
        process.join()
    assert sorted(process.exitcode for process in processes) == [0, 2, 2, 2, 2]
    for error in errors:
        assert error.startswith(f"UsageError: {bucket.url}/cats: "), error
        assert "somebody else has published a dataset there meanwhile" in error or "holds a dataset already" in error
    assert hr.Dataset(f"{bucket.url}/cats").verify().ok
    assert not any(key.endswith(f"/{CLAIM}") for key in bucket.objects)


def test_a_store_that_goes_away_says_so(bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(f"{bucket.url}/cats")
    ds = hr.Dataset(f"{bucket.url}/cats")
    options = stored.QUICK | {"endpoint": "http://127.0.0.1:1"}
    with pytest.raises(StorageError, match="refuses connections"):
        hr.Dataset(f"{bucket.url}/cats", storage_options=options)
    assert ds[0].encoded


# --- what people see --------------------------------------------------------------------------------------------------


def test_what_is_left_is_told(bucket: Bucket, tmp_path: Path) -> None:
    for record in photos(12):
        path = tmp_path / "photos" / str(record.label_name) / record.id.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.read())
    url = f"{bucket.url}/cats"
    first = headrace("pack", tmp_path / "photos", url)
    assert first.code == 0 and "beside it" not in first.out
    assert "orphans" not in json.loads(headrace("info", url, "--json").out)
    refused = headrace("pack", tmp_path / "photos", url)
    assert refused.code == 2 and f"{url}: holds a dataset already; pass --overwrite to replace it" in refused.err
    second = headrace("pack", tmp_path / "photos", url, "--overwrite")
    told = "of packings that were replaced or did not end; the next one there clears those older than a day"
    n = len(bucket.objects) // 2
    for said in (second, headrace("info", url), headrace("verify", url)):
        assert said.code == 0 and f"{n} objects, " in said.out and told in said.out
    for verb in ("info", "verify"):
        assert json.loads(headrace(verb, url, "--json").out)["orphans"]["objects"] == n


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("ftp://host/cats", "ftp://host/cats: no store is called ftp://"),
        ("https://host/cats", "https://host/cats: a web server takes no uploads"),
        ("s3://bucket/a//cats", "'' is no part of a key"),
    ],
)
def test_no_parts_are_made_for_a_place_that_takes_none(out: str, said: str, tmp_path: Path) -> None:
    """Said before hours of work, not after."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(photos(1)[0].read())
    ended = headrace("plan", tmp_path / "photos", out, "--plan", tmp_path / "plan")
    assert ended.code == 2 and said in ended.err
    assert not (tmp_path / "plan").exists()


def test_limits_are_shown(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(photos(1)[0].read())
    said = headrace("pack", tmp_path / "photos", f"{bucket.url}/cats", "--format", "files", "--verbose")
    assert f"{bucket.url}: a request may take 30s, and is tried again for 180 seconds at most" in said.err


def test_the_tutorial_runs(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = stored.bucket(endpoint, monkeypatch, "my-bucket")
    for record in photos(60):
        path = tmp_path / "photos" / str(record.label_name) / record.id.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.read())
    page = (Path(__file__).parents[2] / "docs/tutorials/object-stores.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    said = ""
    for i, (kind, code) in enumerate(blocks):
        before = [one for other, one in blocks[:i] if other == "python"] if kind == "python" else []
        command = ["bash", "-euo", "pipefail"] if kind == "bash" else [sys.executable]
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [*command, "-c", "\n".join([*before, code])],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert "60 records, all sound" in said and "stores know no *" in said
    assert f"an upload | {stores.REQUEST + stores.ONE_PUT // stores.SLOWEST} seconds" in page
    assert {key.split("/")[0] for key in bucket.objects} == {"cats", "adopted", "cats-csv"}
