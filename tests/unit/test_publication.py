"""Publishing in a store: the old dataset or the new one, one winner, and what is left of the others."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import stored
from headrace.errors import NotThereError, StorageError, UsageError
from headrace.place import publication, stores
from headrace.place.address import Url
from headrace.place.publication import CLAIM, Publication, orphans
from headrace.place.remote import RemotePlace
from stored import QUICK, Bucket

FILE = "headrace.json"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with stored.s3() as address:
        yield address


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    publication._scratch_root.cache_clear()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    return stored.bucket(endpoint, monkeypatch)


def place(bucket: Bucket, **options: Any) -> RemotePlace:
    return RemotePlace(Url(f"{bucket.url}/cats"), QUICK | options)


def opened(bucket: Bucket, *, overwrite: bool = False, movable: bool = True, **options: Any) -> Publication:
    return Publication(place(bucket, **options), overwrite=overwrite, replaceable=FILE, movable=movable)


def written(folder: Path, publishing: Publication, content: str) -> dict[str, bytes]:
    """Files that make something like a dataset: key in the bucket -> bytes, the manifest under FILE."""
    shard = f"shard of {content}".encode()
    files = {"train-00000-of-00001.tfrecord": shard, "train-00000-of-00001.idx": b"0 1\n", "catalog.parquet": b"c"}
    raw = {
        "content": content,
        "shards": [{"name": "train-00000-of-00001.tfrecord", "bytes": len(shard)}],
        "files": {"catalog.parquet": "…"},
    }
    if publishing.folder_name:
        raw["folder"] = publishing.folder_name
    files[FILE] = json.dumps(raw).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    base = "/".join(filter(None, ("cats", publishing.folder_name)))
    return {f"{'cats' if name == FILE else base}/{name}": data for name, data in files.items()}


def publish(bucket: Bucket, content: str, **options: Any) -> tuple[Publication, dict[str, bytes]]:
    publishing = opened(bucket, **options)
    with publishing as folder:
        files = written(folder, publishing, content)
    return publishing, files


def test_a_first_publication_has_flat_names_and_nothing_beside_them(bucket: Bucket) -> None:
    publishing, files = publish(bucket, "one")
    assert publishing.folder_name == ""
    assert bucket.objects == files
    assert not publishing.folder.exists()
    assert orphans(place(bucket)) == []


def test_a_replacement_leaves_the_files_of_the_old_dataset(bucket: Bucket) -> None:
    _, old = publish(bucket, "one")
    publishing, new = publish(bucket, "two", overwrite=True)
    assert publishing.folder_name.startswith("runs/")
    assert bucket.objects == old | new
    assert {one.name for one in orphans(place(bucket))} == {
        name.removeprefix("cats/") for name in old if not name.endswith(FILE)
    }


def test_a_dataset_is_replaced_only_when_asked(bucket: Bucket) -> None:
    _, files = publish(bucket, "one")
    with pytest.raises(UsageError, match=r"s3://\S+/cats: holds a dataset already; pass overwrite=True"):
        opened(bucket).__enter__()
    assert bucket.objects == files


@pytest.mark.parametrize("name", ["notes.txt", "dogs/headrace.json", "runs/mine", "catalog.parquet", "runs/2026/probe"])
def test_what_is_somebody_elses_is_not_built_upon(bucket: Bucket, name: str) -> None:
    bucket.put(f"cats/{name}", b"precious")
    with pytest.raises(UsageError, match=f"other objects stand there .{name}."):
        opened(bucket, overwrite=True).__enter__()
    assert bucket.objects == {f"cats/{name}": b"precious"}


def test_what_has_a_name_that_begins_alike_is_not_in_the_way(bucket: Bucket) -> None:
    bucket.put("cats-and-dogs/headrace.json", b"precious")
    _, files = publish(bucket, "one")
    assert bucket.objects == files | {"cats-and-dogs/headrace.json": b"precious"}


def test_files_of_somebody_beside_a_dataset_are_never_cleared(bucket: Bucket) -> None:
    publish(bucket, "one")
    for name in ("notes.txt", "dogs/headrace.json", "runs/mine"):
        bucket.put(f"cats/{name}", b"precious")
    bucket.age(hours=100)
    publish(bucket, "two", overwrite=True)
    bucket.age(hours=100)
    publish(bucket, "three", overwrite=True)
    assert sum(data == b"precious" for data in bucket.objects.values()) == 3


def test_an_error_in_the_block_leaves_nothing(bucket: Bucket) -> None:
    for overwrite in (False, True):
        before = bucket.objects
        publishing = opened(bucket, overwrite=overwrite)

        def fail(publishing: Publication = publishing, before: dict[str, bytes] = before) -> None:
            with publishing as folder:
                shard = folder / "train-00000-of-00001.tfrecord"
                shard.write_bytes(b"x")
                publishing.sink.put(shard, shard.name)
                assert bucket.objects != before
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert bucket.objects == before
        assert not publishing.folder.exists()
        publish(bucket, "one", overwrite=overwrite)


def test_of_many_first_publishers_one_wins(bucket: Bucket) -> None:
    started = threading.Barrier(5)

    def run(i: int) -> tuple[Publication, dict[str, bytes], str]:
        publishing, files = opened(bucket), {}
        try:
            with publishing as folder:
                files = written(folder, publishing, f"of {i}")
                started.wait()
        except UsageError as error:
            return publishing, files, str(error)
        return publishing, files, ""

    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(run, range(5)))
    assert sum(publishing.folder_name == "" for publishing, _, _ in found) == 1
    won = [files for _, files, error in found if not error]
    assert len(won) == 1
    there = bucket.objects
    assert won[0].items() <= there.items()
    for publishing, files, error in found:
        if not error:
            continue
        assert "somebody else has published a dataset there meanwhile" in error
        lies = str(publishing.out / publishing.folder_name) if publishing.folder_name else str(publishing.out)
        assert f"what was made lies in {lies} for a day" in error
        # All of it lies there, and copying the one file puts it in the place of theirs.
        assert {name: there[name] for name in files if not name.endswith(FILE)}.items() <= files.items()
        source = error.split("copy ")[1].split(" to ")[0].removeprefix(f"{bucket.url}/")
        assert there[source] == files[f"cats/{FILE}"]


def test_of_many_replacers_one_wins(bucket: Bucket) -> None:
    _, old = publish(bucket, "old")
    started = threading.Barrier(5)

    def run(i: int) -> dict[str, bytes] | None:
        publishing = opened(bucket, overwrite=True)
        try:
            with publishing as folder:
                files = written(folder, publishing, f"of {i}")
                started.wait()
        except UsageError:
            return None
        return files

    with ThreadPoolExecutor(5) as pool:
        won = [files for files in pool.map(run, range(5)) if files is not None]
    assert len(won) == 1 and won[0].items() <= bucket.objects.items()
    assert {name: data for name, data in old.items() if not name.endswith(FILE)}.items() <= bucket.objects.items()


def test_who_comes_between_is_found_out(bucket: Bucket) -> None:
    """Who has read that there is nothing, and claims the place after another has published and let go of it."""
    late = opened(bucket)
    there = late._current, late._check_free
    first: list[dict[str, bytes]] = []

    def current() -> Any:
        late._current = there[0]  # type: ignore[method-assign]
        found = there[0]()
        first.append(publish(bucket, "one")[1])
        return found

    def check_free(there_is: Any) -> None:
        late._check_free = there[1]  # type: ignore[method-assign]

    late._current, late._check_free = current, check_free  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="holds a dataset already"):
        late.__enter__()
    assert bucket.objects == first[0]


def test_an_answer_that_is_lost_is_no_defeat(bucket: Bucket, endpoint: str) -> None:
    """The put arrives, its answer doesn't, the client puts again, and the store refuses that."""
    lost: list[str] = []

    def loses(method: str, path: str) -> bool:
        if method == "PUT" and path.endswith(FILE) and not lost:
            lost.append(path)
            return True
        return False

    with stored.serving(stored.proxy(endpoint, loses=loses)) as address:
        for overwrite in (False, True):
            lost.clear()
            _, files = publish(bucket, f"{overwrite}", endpoint=address, overwrite=overwrite)
            assert lost and files.items() <= bucket.objects.items()


@pytest.mark.parametrize(("header", "said"), [("if-none-match", "create only"), ("if-match", "replace only")])
def test_a_store_that_ignores_conditions_is_refused(bucket: Bucket, endpoint: str, header: str, said: str) -> None:
    with (
        stored.serving(stored.proxy(endpoint, drops=(header,))) as address,
        pytest.raises(UsageError, match=f"cats: the store doesn't keep to conditions of a put .{said}"),
    ):
        opened(bucket, endpoint=address).__enter__()
    assert bucket.objects == {}


def test_what_is_old_is_cleared_with_the_next_publication(bucket: Bucket) -> None:
    _, first = publish(bucket, "one")
    _, second = publish(bucket, "two", overwrite=True)
    # The old files are old; the manifest is not, and somebody may still be reading by the one before it.
    bucket.age(hours=25, only="0000")
    _, third = publish(bucket, "three", overwrite=True)
    del first[f"cats/{FILE}"], second[f"cats/{FILE}"]
    assert bucket.objects == first | second | third
    bucket.age(hours=25)
    _, fourth = publish(bucket, "four", overwrite=True)
    assert bucket.objects == third | fourth
    # What is not yet a day old stays.
    bucket.age(hours=23)
    _, fifth = publish(bucket, "five", overwrite=True)
    assert third.keys() <= bucket.objects.keys()
    assert fifth.items() <= bucket.objects.items()


def test_what_is_not_a_day_old_stays_beside_an_old_dataset(bucket: Bucket) -> None:
    publish(bucket, "one")
    bucket.age(hours=25)
    lost = "cats/runs/20260101-000000-00000000/train-00000-of-00001.tfrecord"  # of somebody who was told to look there
    bucket.put(lost, b"work")
    publish(bucket, "two", overwrite=True)
    assert bucket.objects[lost] == b"work"
    bucket.age(hours=25)
    publish(bucket, "three", overwrite=True)
    assert lost not in bucket.objects


def test_a_packing_that_is_at_work_is_left_alone(bucket: Bucket) -> None:
    publish(bucket, "one")
    slow = opened(bucket, overwrite=True)
    folder = slow.__enter__()
    written(folder, slow, "slow")
    slow.sink.put(folder / "train-00000-of-00001.tfrecord", "train-00000-of-00001.tfrecord")
    bucket.age(hours=50)
    slow._put(slow._mark, b"{}", "overwrite")  # as it does every hour
    publish(bucket, "quick", overwrite=True)
    assert f"cats/{slow.folder_name}/train-00000-of-00001.tfrecord" in bucket.objects
    bucket.age(hours=50)  # now it is dead, as far as anybody can tell
    _, third = publish(bucket, "third", overwrite=True)
    assert f"cats/{slow.folder_name}/train-00000-of-00001.tfrecord" not in bucket.objects
    # It was not dead, and does not publish what is not there any more.
    with pytest.raises(StorageError, match="was uploaded, and is gone: somebody has cleared it away") as caught:
        slow.__exit__(None, None, None)
    assert third.items() <= bucket.objects.items()
    kept = Path(str(caught.value).rpartition(" and ")[2])
    assert json.loads((kept / FILE).read_bytes())["content"] == "slow"


def test_a_claim_is_renewed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "BEAT", 0.01)
    with opened(bucket) as folder:
        bucket.age(hours=50, only=CLAIM)
        before = bucket._backend().keys[f"cats/{CLAIM}"].last_modified
        stored.until(lambda: bucket._backend().keys[f"cats/{CLAIM}"].last_modified > before)
        written(folder, opened(bucket), "one")
    assert f"cats/{CLAIM}" not in bucket.objects


def test_an_interrupt_while_all_is_uploaded_leaves_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    check = Publication._check_complete

    def interrupted(self: Publication, data: bytes) -> None:
        check(self, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(Publication, "_check_complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(bucket, "one")
    assert bucket.objects == {}


def test_an_interrupt_after_the_put_that_counts_takes_nothing_back(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Publication._put

    def interrupted(self: Publication, name: str, data: bytes, mode: Any) -> None:
        put(self, name, data, mode)
        if name == FILE:
            raise KeyboardInterrupt

    monkeypatch.setattr(Publication, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(bucket, "one")
    assert set(bucket.objects) == {
        f"cats/{name}"
        for name in (FILE, CLAIM, "catalog.parquet", "train-00000-of-00001.idx", "train-00000-of-00001.tfrecord")
    }


def test_a_full_disk_is_said_in_a_line(bucket: Bucket) -> None:
    publishing = opened(bucket)
    publishing.__enter__()
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/spool")
    with pytest.raises(StorageError, match=r"^/tmp/spool: no space left on device; nothing was published$"):
        publishing.__exit__(OSError, full, None)
    assert bucket.objects == {}


def test_a_folder_that_a_console_has_made_is_nothing(bucket: Bucket) -> None:
    bucket.put("cats/", b"")
    _, files = publish(bucket, "one")
    assert bucket.objects == files | {"cats/": b""}


# --- what is put ------------------------------------------------------------------------------------------------------


def test_a_sink_puts_files_from_anywhere_and_again(bucket: Bucket, tmp_path: Path) -> None:
    publishing = opened(bucket)
    with publishing as folder:
        sink = pickle.loads(pickle.dumps(publishing.sink))
        for _ in range(2):
            scratch = sink.scratch()
            (scratch / "val-00000-of-00001.tfrecord").write_bytes(b"bytes")
            sink.put(scratch / "val-00000-of-00001.tfrecord", "val-00000-of-00001.tfrecord")
            assert list(scratch.iterdir()) == []
        (tmp_path / "other").write_bytes(b"other")
        with pytest.raises(StorageError, match=r"cats/val-00000-of-00001.tfrecord: is there already, with other bytes"):
            sink.put(tmp_path / "other", "val-00000-of-00001.tfrecord")
        assert (tmp_path / "other").exists()
        (tmp_path / "empty").write_bytes(b"")
        sink.put(tmp_path / "empty", "empty")
        files = written(folder, publishing, "one")
    assert bucket.objects == files | {"cats/val-00000-of-00001.tfrecord": b"bytes", "cats/empty": b""}


def test_an_upload_that_fails_is_tried_again(bucket: Bucket, endpoint: str) -> None:
    lost: list[str] = []

    def loses(method: str, path: str) -> bool:
        if method == "PUT" and "tfrecord" in path and len(lost) < 5:  # more often than the client itself tries
            lost.append(path)
            return True
        return False

    with stored.serving(stored.proxy(endpoint, loses=loses)) as address:
        _, files = publish(bucket, "one", endpoint=address)
    assert len(lost) == 5 and bucket.objects == files


def test_large_files_go_in_parts_and_leave_none(
    bucket: Bucket, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "ONE_PUT", 1 << 20)
    monkeypatch.setattr(publication, "_PART", 5 << 20)
    data = os.urandom(12 << 20)

    def put(sink: Any, name: str) -> None:
        (tmp_path / "large").write_bytes(data)
        sink.put(tmp_path / "large", name)

    sink = publication.StoreSink(place(bucket), "")
    for _ in range(2):
        put(sink, "large")
    assert bucket.objects["cats/large"] == data
    with (
        stored.serving(stored.proxy(endpoint, loses=lambda method, path: "partNumber=2" in path)) as address,
        pytest.raises(StorageError, match=r"cats/failed: .* dropped the connection"),
    ):
        put(publication.StoreSink(place(bucket, endpoint=address), ""), "failed")
    parts = publication._parts

    def interrupted(file: Any) -> Iterator[bytes]:
        yield next(parts(file))
        raise KeyboardInterrupt

    monkeypatch.setattr(publication, "_parts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(sink, "interrupted")
    assert bucket.uploads == 0
    assert set(bucket.objects) == {"cats/large"}


def test_what_was_finished_is_kept_where_the_upload_fails(bucket: Bucket, endpoint: str) -> None:
    """The store is gone in the end: the error names what lies there, and what lies here."""
    with (
        stored.serving(stored.proxy(endpoint, loses=lambda method, path: "parquet" in path)) as address,
        pytest.raises(StorageError, match=r"cats/catalog.parquet: \S+ dropped the connection") as caught,
    ):
        publish(bucket, "one", endpoint=address)
    kept = Path(str(caught.value).rpartition(" and ")[2])
    assert "nothing was published; what was made lies in" in str(caught.value)
    assert {path.name for path in kept.iterdir()} >= {FILE, "catalog.parquet"}
    assert f"cats/{FILE}" not in bucket.objects
    # The next one does not write over what is left there.
    left = bucket.objects
    again, files = publish(bucket, "two")
    assert again.folder_name.startswith("runs/")
    assert files.items() <= bucket.objects.items() and left.items() <= bucket.objects.items()


# --- what other files than a dataset's --------------------------------------------------------------------------------


def test_what_can_not_move_is_published_once(bucket: Bucket) -> None:
    with opened(bucket, movable=False) as folder:
        (folder / "images" / "cat").mkdir(parents=True)
        (folder / "images" / "cat" / "1 ü#%?.jpg").write_bytes(b"1")
        (folder / FILE).write_bytes(b"made")
    assert bucket.objects == {"cats/images/cat/1 ü#%?.jpg": b"1", f"cats/{FILE}": b"made"}
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="a store can't replace all of its files at once; choose another place"):
            opened(bucket, overwrite=overwrite, movable=False).__enter__()
    bucket.delete(f"cats/{FILE}")
    with pytest.raises(UsageError, match="other objects stand there"):
        opened(bucket, movable=False).__enter__()


def test_what_can_not_move_does_not_meet_another(bucket: Bucket) -> None:
    with opened(bucket) as folder:
        with pytest.raises(UsageError, match=r"somebody is writing there, or has not ended it .headrace.claim."):
            opened(bucket, movable=False).__enter__()
        files = written(folder, opened(bucket), "one")
    assert bucket.objects == files


# --- where nothing can be put -----------------------------------------------------------------------------------------


def test_no_bucket(bucket: Bucket) -> None:
    there = RemotePlace(Url("s3://no-such-bucket/cats"), QUICK)
    with pytest.raises(NotThereError, match="s3://no-such-bucket/cats: the bucket is not there; make it, or mend"):
        Publication(there, overwrite=False, replaceable=FILE).__enter__()


def test_a_web_server_takes_nothing(bucket: Bucket) -> None:
    there = RemotePlace(Url("https://localhost/cats"), QUICK)
    with pytest.raises(UsageError, match="https://localhost/cats: a web server takes no uploads; choose s3://"):
        Publication(there, overwrite=False, replaceable=FILE).__enter__()


def test_what_is_in_the_way_of_a_scratch_folder(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    publication._scratch_root.cache_clear()
    with pytest.raises(StorageError, match="/no/such/folder: no such file or directory"):
        opened(bucket).__enter__()
    assert bucket.objects == {}
    assert stores.ONE_PUT <= 5 << 30  # the most that S3 takes at once


# --- who is taken for dead --------------------------------------------------------------------------------------------


def _taken_for_dead(bucket: Bucket, one: Publication) -> dict[str, bytes]:
    """Somebody has removed all that `one` had there, and published a dataset of the same names."""
    shard = one.folder / "train-00000-of-00001.tfrecord"
    shard.write_bytes(b"x")
    one.sink.put(shard, shard.name)
    for key in bucket.objects:
        bucket.delete(key)
    _, files = publish(bucket, "other")
    assert bucket.objects == files
    return files


def test_who_is_taken_for_dead_removes_nothing_of_others(bucket: Bucket) -> None:
    one = opened(bucket)
    one.__enter__()
    files = _taken_for_dead(bucket, one)
    one.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert bucket.objects == files


def test_who_is_taken_for_dead_leaves_the_claim_of_another(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "BEAT", 0.01)
    one = opened(bucket)
    one.__enter__()
    bucket.delete(f"cats/{CLAIM}")
    asked = threading.Event()
    is_claimed = publication._is_claimed

    def noted(*args: Any) -> bool:
        found = is_claimed(*args)
        if not found:
            asked.set()
        return found

    monkeypatch.setattr(publication, "_is_claimed", noted)
    other = opened(bucket)
    with other as folder:
        said = bucket.objects[f"cats/{CLAIM}"]
        assert other.run.encode() in said
        asked.clear()
        assert asked.wait(60)  # a beat of the first
        path = tmp_path / "train-00000-of-00001.tfrecord"
        path.write_bytes(b"x")
        with pytest.raises(StorageError, match="is not uploaded, as its packing has ended"):
            one.sink.put(path, path.name)
        one.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        assert bucket.objects == {f"cats/{CLAIM}": said}
        files = written(folder, other, "other")
    assert bucket.objects == files


def test_what_comes_after_the_end_is_not_uploaded(bucket: Bucket, tmp_path: Path) -> None:
    """As of a worker that an engine can't end."""
    for overwrite in (False, True):
        before = bucket.objects
        publishing = opened(bucket, overwrite=overwrite)
        publishing.__enter__()
        sink = pickle.loads(pickle.dumps(publishing.sink))
        publishing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        path = tmp_path / "train-00000-of-00001.tfrecord"
        path.write_bytes(b"x")
        with pytest.raises(StorageError, match="is not uploaded, as its packing has ended"):
            sink.put(path, path.name)
        assert bucket.objects == before
        publish(bucket, "one", overwrite=overwrite)


@pytest.mark.parametrize("at", [f"cats/{CLAIM}", f"/{CLAIM}"])
def test_a_claim_whose_answer_is_lost_is_our_own(bucket: Bucket, endpoint: str, at: str) -> None:
    lost = list[str]()

    def loses(method: str, path: str) -> bool:
        if method == "PUT" and path.endswith(at) and not lost:
            lost.append(path)
            return True
        return False

    publish(bucket, "one") if at.startswith("/") else None
    with stored.serving(stored.proxy(endpoint, loses=loses)) as address:
        publishing, files = publish(bucket, "two", overwrite=True, endpoint=address)
    assert len(lost) == 1 and (publishing.folder_name == "") is not at.startswith("/")
    assert files.items() <= bucket.objects.items() and not [key for key in bucket.objects if key.endswith(CLAIM)]


@pytest.mark.parametrize("manifest", [b'{"headrace": 9, "parts": []}', b"[]", b"no JSON", b""])
def test_what_nobody_here_understands_is_not_cleared(bucket: Bucket, manifest: bytes) -> None:
    """The manifest of a later version names its files in another way."""
    _, files = publish(bucket, "one")
    bucket.put(f"cats/{FILE}", manifest)
    bucket.age(hours=25)
    assert orphans(place(bucket)) == []
    publishing = opened(bucket, overwrite=True)
    publishing.__enter__()
    publishing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert bucket.objects == files | {f"cats/{FILE}": manifest}


def test_an_interrupted_export_leaves_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    put = publication.StoreSink.put

    def interrupted(self: publication.StoreSink, path: Path, name: str) -> None:
        put(self, path, name)
        if name.endswith("2.jpg"):
            raise KeyboardInterrupt

    monkeypatch.setattr(publication.StoreSink, "put", interrupted)
    with pytest.raises(KeyboardInterrupt), opened(bucket, movable=False) as folder:  # noqa: PT012
        for name in ("1.jpg", "2.jpg", "3.jpg", FILE):
            (folder / name).write_bytes(name.encode())
        bucket.put("cats/notes.txt", b"somebody's")
    assert bucket.objects == {"cats/notes.txt": b"somebody's"}


def test_of_a_bucket_of_others_nothing_is_kept_in_memory(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        bucket.put(f"cats/{i}.jpg", b"x")
    listed = list[str]()
    objects = RemotePlace.objects

    def noted(self: RemotePlace, folder: str = "") -> Iterator[Any]:
        for one in objects(self, folder):
            listed.append(one.name)
            yield one

    monkeypatch.setattr(RemotePlace, "objects", noted)
    with pytest.raises(UsageError, match="other objects stand there"):
        opened(bucket).__enter__()
    assert len(listed) == 1
