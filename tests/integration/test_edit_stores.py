"""Edits in object stores, as moto plays S3: the same versions as in a folder, one of two editors, killed or not."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
import stored
from headrace.errors import ConflictError, UsageError
from headrace.place import publication
from headrace.place.open import at
from packed import photos
from stored import Bucket


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


@pytest.fixture
def cats(bucket: Bucket) -> str:
    hr.pack(photos(20, boxes=True), f"{bucket.url}/cats", shards=2, progress=False)
    return f"{bucket.url}/cats"


def new(name: str) -> list[hr.Record]:
    return [hr.Record(id=name, encoded=photos(1)[0].encoded, label_name="emu")]


def all_verbs(path: Any) -> None:
    with hr.edit(path, why="as it should be", by="ana") as e:
        e.relabel("dog", ids="dir/001.jpeg")
        e.drop(ids="dir/002.jpeg")
        e.move("val", ids="dir/003.jpeg")
        e.boxes("dir/003.jpeg", [[0, 0, 5, 5]], ["left"])
        e.append(new("new"))


def test_the_same_as_in_a_folder(cats: str, bucket: Bucket, tmp_path: Path) -> None:
    before = bucket.objects
    hr.pack(photos(20, boxes=True), tmp_path / "cats", shards=2, progress=False)
    for path in (cats, tmp_path / "cats"):
        all_verbs(path)
    there, here = hr.Dataset(cats), hr.Dataset(tmp_path / "cats")
    assert there.version == 2 and there.verify().ok
    assert there.catalog.drop("shard").equals(here.catalog.drop("shard")) and there["new"].image.shape
    after = bucket.objects
    assert {key for key in before if after.get(key) != before[key]} == {"cats/headrace.json"}
    assert after["cats/versions/0001.json"] == before["cats/headrace.json"]
    assert len(hr.Dataset(f"{cats}@1")) == 20 and hr.Dataset(f"{cats}@1").verify().ok
    assert hr.diff(cats).as_json() == hr.diff(tmp_path / "cats").as_json()
    assert hr.undo(cats) == 3 and hr.Dataset(cats).fingerprint == hr.Dataset(cats, version=1).fingerprint
    hr.restore(cats, 2)
    hr.compact(cats, tmp_path / "made" / "cats", progress=False)
    hr.compact(tmp_path / "cats", tmp_path / "wanted" / "cats", progress=False)
    made, wanted = (
        {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in (tmp_path / name / "cats").iterdir()}
        for name in ("made", "wanted")
    )
    assert made == wanted
    hr.compact(cats, f"{bucket.url}/packed", progress=False)
    assert hr.Dataset(f"{bucket.url}/packed").verify().ok


def test_of_two_editors_one_wins_and_nothing_of_the_other_is_read(cats: str) -> None:
    def late() -> None:
        with hr.edit(cats, why="late", by="ben") as e:
            e.append(new("late"))
            with hr.edit(cats, why="early", by="ana") as early:
                early.append(new("early"))

    with pytest.raises(ConflictError, match=r"version 2 was made by ana at .* \(early\): append: 1 record"):
        late()
    ds = hr.Dataset(cats)
    assert ds.version == 2 and ds["early"].image.shape and ds.verify().ok and len(ds) == 21
    with hr.edit(cats, why="again", by="ben") as e:
        e.append(new("late"))
    ds = hr.Dataset(cats)
    assert len(ds) == 22 and ds.verify().ok and hr.Dataset(cats, version=2).verify().ok


def test_the_condition_decides(cats: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody commits between our last look at the head and our put of it."""
    put = publication.StoreSink.put
    done: list[int] = []

    def meanwhile(self: publication.StoreSink, path: Path, name: str) -> None:
        if not done:
            done.append(1)
            with hr.edit(cats, why="early", by="ana") as e:
                e.relabel("emu", ids="dir/004.jpeg")
        put(self, path, name)

    monkeypatch.setattr(publication.StoreSink, "put", meanwhile)

    def late() -> None:
        with hr.edit(cats, why="late", by="ben") as e:
            e.relabel("dog", ids="dir/004.jpeg")

    with pytest.raises(ConflictError, match="made by ana"):
        late()
    ds = hr.Dataset(cats)
    assert ds.version == 2 and ds["dir/004.jpeg"].label_name == "emu" and ds.verify().ok


def test_after_a_replacement(cats: str, bucket: Bucket) -> None:
    """Files of an edit go to the folder of the run that the head names; and a later packing clears none of them."""
    hr.pack(photos(18, boxes=True), cats, shards=2, progress=False, overwrite=True)
    with hr.edit(cats, why="x", by="ana") as e:
        e.drop(ids="dir/001.jpeg")
        e.append(new("new"))
    hr.undo(cats)
    ds = hr.Dataset(cats)
    folder = ds.manifest.folder
    assert folder.startswith("runs/") and f"cats/{folder}/versions/0002.json" in bucket.objects
    assert ds.verify().ok and hr.Dataset(cats, version=2).verify().ok
    bucket.age(hours=100)
    place = at(cats)
    left = {one.name for one in publication.orphans(place)}  # type: ignore[arg-type]
    assert not [name for name in left if name.startswith(folder)]
    assert hr.Dataset(cats, version=2)["new"].image.shape


def test_who_had_it_open_goes_on(cats: str) -> None:
    old = hr.Dataset(cats)
    kept = pickle.dumps(old)
    all_verbs(cats)
    for ds in (old, pickle.loads(kept)):
        assert [one.number for one in ds.history] == [1] and len(ds) == 20 == len(list(ds)) and ds.verify().ok
    new_one = hr.Dataset(cats)
    all_of = [one.number for one in new_one.history]
    hr.undo(cats)
    assert all_of == [1, 2] == [one.number for one in new_one.history] and new_one["new"].image.shape


def test_a_copy_that_was_damaged_since_is_not_joined(cats: str, tmp_path: Path) -> None:
    said = hr.Dataset(cats).manifest
    copy = tmp_path / "cache" / f"{said.files[said.index]}.whole"
    with hr.edit(cats, why="one more", by="ana") as e:
        e.append(new("new"))
        data = bytearray(copy.read_bytes())
        for at in range(len(data) // 8, len(data), 7):
            data[at] ^= 1
        copy.write_bytes(data)
    ds = hr.Dataset(cats)
    assert ds.verify().ok and len(ds) == 21 and ds["new"].image.shape and [one.image.shape for one in ds]


def test_a_web_server_is_not_edited(tmp_path: Path) -> None:
    hr.pack(photos(6), tmp_path / "cats", progress=False)
    with stored.serving(stored.faulty(stored.Faults(tmp_path))) as address:
        url = f"{address}/b/cats"
        assert len(hr.Dataset(url)) == 6

        def tried() -> None:
            with hr.edit(url, why="x") as e:
                e.drop(ids="dir/001.jpeg")

        with pytest.raises(UsageError, match="a web server takes no uploads"):
            tried()


KILLED = """
import os, signal, sys
import obstore
import headrace as hr
from headrace.place import publication, stores
n, before = int(sys.argv[2]), sys.argv[3] == "before"
put, count = obstore.put, 0

def counted(store, key, *args, **options):
    global count
    if "probe" in key:
        return put(store, key, *args, **options)
    count += 1
    if before and count == n:
        os.kill(os.getpid(), signal.SIGKILL)
    done = put(store, key, *args, **options)
    if count == n:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

obstore.put = counted
publication._UPLOADS = 1
with hr.edit(sys.argv[1], why="x", by="ana") as e:
    e.relabel("dog", ids="dir/001.jpeg")
    e.append([hr.Record(id="new", path=sys.argv[4], label_name="emu")])
print(count)
"""


def test_killed_before_and_after_each_put(cats: str, bucket: Bucket, tmp_path: Path) -> None:
    image = tmp_path / "new.jpeg"
    image.write_bytes(photos(1)[0].encoded or b"")
    old = bucket.objects
    left: list[int] = []
    for n in range(1, 30):
        for when in ("before", "after"):
            words = [sys.executable, "-c", KILLED, cats, str(n), when, str(image)]
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600, env=os.environ)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr
            now = bucket.objects
            ds = hr.Dataset(cats)
            assert all(now[key] == data for key, data in old.items() if key != "cats/headrace.json")
            assert ds.verify().ok and ds.version in (1, 2) and ("new" in set(ds.catalog["id"])) == (ds.version == 2)
            left.append(ds.version)
            if ds.version == 2:
                bucket.put("cats/headrace.json", old["cats/headrace.json"])  # as it was
            if not done.returncode:
                break
        if not done.returncode:
            break
    puts = int(done.stdout)
    # shard, its lines, index, catalog, rejects, the manifest before; and the head, after which it is done.
    assert puts == 7 == n - 1 and left == [1] * 13 + [2, 2]
