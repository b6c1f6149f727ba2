"""Sources in stores: what lies below a URL is packed to the same bytes as the same files in a folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace as hr
import stored
from command import headrace
from drawn import files, jpeg
from headrace.errors import DataError, NotThereError, StorageError, UsageError
from headrace.packing import fetch
from headrace.packing.task import make_shard
from headrace.place import paths
from headrace.record import Part, Record, Reject
from headrace.sources import registry, walking
from packed import pack, photos, shades
from stored import Bucket, Faults


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with stored.s3() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    paths.forget()
    yield stored.bucket(endpoint, monkeypatch)
    paths.forget()


def uploaded(bucket: Bucket, root: Path, prefix: str = "deep/data") -> str:
    """The URL of a copy of a folder."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            bucket.put(f"{prefix}/{path.relative_to(root).as_posix()}", path.read_bytes())
    return f"{bucket.url}/{prefix}"


def classes(root: Path) -> Path:
    """Twelve photos in folders of two classes."""
    return files(root, {f"{kind}/{k}.jpg": jpeg(seed=k) for kind in ("cat", "dog") for k in range(6)})


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packed(path: Any, out: Path, format: str | None, options: dict[str, Any], **more: Any) -> dict[str, bytes]:
    chosen = registry.find_format(format) if format else registry.guess(path)[0]
    hr.pack(chosen.make(path, **options), out, workers=2, max_rejects=2, **more)
    return content(out)


def same(bucket: Bucket, root: Path, tmp_path: Path, what: str = "", format: str | None = None, **options: Any) -> None:
    """What a folder, or the file `what` in it, is packed to is what its copy in a store is packed to."""
    url = uploaded(bucket, root)
    there = {name: str(value).replace(str(root), url) if name == "images" else value for name, value in options.items()}
    wanted = packed(root / what if what else root, tmp_path / "here" / "ds", format, options)
    found = packed(f"{url}/{what}" if what else url, tmp_path / "there" / "ds", format, there)
    compare(wanted, found, root, url)


def compare(wanted: dict[str, bytes], found: dict[str, bytes], root: Path, url: str) -> None:
    """They are the same, but that a Reject may say where its image is, and the manifest the digest of that."""
    assert wanted.keys() == found.keys()
    rejects = wanted["rejects.jsonl"].replace(str(root).encode(), url.encode())
    assert rejects == found["rejects.jsonl"]
    differ = [name for name in wanted if wanted[name] != found[name]]
    assert set(differ) <= ({"rejects.jsonl", "headrace.json"} if url.encode() in rejects else set())


@pytest.mark.parametrize(
    ("format", "what", "images"),
    [
        ("coco", "annotations/instances_train.json", "images/train"),
        ("voc", "", None),
        ("yolo", "", None),
        ("yolo", "data.yaml", None),
        ("csv", "annotations.csv", ""),
        ("webdataset", "", None),
        ("webdataset", "train-000000.tar", None),
        ("parquet", "", None),
        ("imagefolder", "", None),
    ],
)
def test_what_is_exported(format: str, what: str, images: str | None, bucket: Bucket, tmp_path: Path) -> None:
    """Recognised, and packed to the same bytes, of all formats that are written."""
    boxed = format in ("coco", "voc", "yolo", "csv")
    ds = pack(photos(30, grey=(3,), png=(4, 5), boxes=boxed), tmp_path / "ds")
    root = tmp_path / "root"
    ds.export(root, format=format, progress=False)
    same(bucket, root, tmp_path, what, None, **({} if images is None else {"images": root / images}))
    assert len(hr.Dataset(tmp_path / "there" / "ds")) == 30


def test_a_pattern_in_braces(bucket: Bucket, tmp_path: Path) -> None:
    ds = pack(photos(12), tmp_path / "ds")
    ds.export(tmp_path / "root", format="webdataset", progress=False)
    tar = (tmp_path / "root" / "train-000000.tar").read_bytes()
    for k in range(3):
        bucket.put(f"x/part-{k}.tar", tar)
    report = hr.pack(hr.sources.webdataset(f"{bucket.url}/x/part-{{0..1}}.tar"), tmp_path / "out", max_rejects=1.0)
    assert report.seen == 24


def test_folders_with_all_their_quirks(bucket: Bucket, tmp_path: Path) -> None:
    root = classes(tmp_path / "root")
    files(root, {
        "cat/broken.jpg": b"no image", "cat/LICENSE": b"text\n", "dog/notes.docx": b"x", "dog/c10.jpg": jpeg(seed=10),
        "dog/c9.jpg": jpeg(seed=9), "dog/.hidden.jpg": jpeg(), "dog/deep er/ü 1.jpg": jpeg(seed=3),
        "dog/0123": jpeg(seed=4), "Thumbs.db": b"x",
    })  # fmt: skip
    same(bucket, root, tmp_path, "", "folders")
    ds = hr.Dataset(tmp_path / "there" / "ds")
    assert "dog/deep er/ü 1.jpg" in ds.catalog["id"].to_list()


def test_names_and_files(bucket: Bucket, tmp_path: Path) -> None:
    root = files(tmp_path / "root", {f"{kind}.{k}.jpg": jpeg(seed=k) for kind in ("cat", "dog") for k in range(12)})
    same(bucket, root, tmp_path, "", "names", pattern=r"^(?P<label>cat|dog)\.")
    shutil.rmtree(tmp_path / "here")
    shutil.rmtree(tmp_path / "there")
    same(bucket, root, tmp_path, "", "files")


def test_images_in_a_store_with_annotations_here(bucket: Bucket, tmp_path: Path) -> None:
    root = files(tmp_path / "images", {f"{k}.jpg": jpeg(seed=k) for k in range(8)})
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{k}.jpg,{'ab'[k % 2]}\n" for k in range(9)))
    url = uploaded(bucket, root)
    out = tmp_path / "there" / "ds"
    ended = headrace("pack", table, out, "--format", "csv", "--images", url, "--max-rejects", "0.5")
    assert ended.code == 0, ended.err
    assert "rejected 1: no such file or directory" in ended.out
    hr.pack(hr.sources.csv(table, images=root), tmp_path / "here" / "ds", max_rejects=0.5)
    compare(content(tmp_path / "here" / "ds"), content(out), root, url)


def test_a_table_of_urls(bucket: Bucket, tmp_path: Path) -> None:
    """Those below `images` are taken; no table makes packing ask another server, or for another bucket."""
    url = uploaded(bucket, files(tmp_path / "images", {f"{k}.jpg": jpeg(seed=k) for k in range(4)}))
    table = tmp_path / "labels.csv"
    others = ["s3://other/a.jpg", "http://127.0.0.1:9/a.jpg", f"{url}x/1.jpg", f"{url}/../secret.jpg"]
    names = [*(f"{url}/{k}.jpg" for k in range(5)), *others]
    table.write_text("path,label,x_min,y_min,x_max,y_max\n" + "".join(f"{name},a,0.1,0.1,0.5,0.5\n" for name in names))
    report = hr.pack(hr.sources.csv(table, images=url, normalised=True), tmp_path / "out", max_rejects=0.9)
    assert (report.stored, len(report.rejects)) == (4, 5)
    ds = hr.Dataset(tmp_path / "out")
    assert ds["0.jpg"].boxes[0].tolist() == pytest.approx([5.6, 4, 28, 20])  # type: ignore[union-attr]


def test_records_of_urls(bucket: Bucket, tmp_path: Path) -> None:
    """A source of one's own names what it wants; what can't be had is a Reject."""
    url = uploaded(bucket, files(tmp_path / "images", {"1.jpg": jpeg()}))
    names = [f"{url}/1.jpg", f"{url}/2.jpg", "ftp://host/a.jpg", "https://host/a.jpg?signed=1"]
    report = hr.pack([Record(id=name, path=name) for name in names], tmp_path / "out", max_rejects=0.9)
    assert report.stored == 1 and {reject.stage for reject in report.rejects} == {"read"}
    assert {reject.id: reject.reason.split(";")[0] for reject in report.rejects} == {
        f"{url}/2.jpg": "no such file or directory",
        "ftp://host/a.jpg": "ftp://host/a.jpg: no store is called ftp://",
        "https://host/a.jpg?signed=1": (
            "https://host/a.jpg: has a ? or # behind it, and what stands below it would have none"
        ),
    }


def test_an_empty_folder_that_a_console_has_made_is_nothing(bucket: Bucket, tmp_path: Path) -> None:
    url = uploaded(bucket, classes(tmp_path / "root"))
    key = url.removeprefix(f"{bucket.url}/")
    for name in ("", "empty/", "empty/within/"):
        bucket.put(f"{key}/{name}", b"")
    for source in (hr.sources.files, hr.sources.folders):
        report = hr.pack(source(url), tmp_path / source.__name__)
        assert (report.stored, report.rejects) == (12, ())


def test_tasks_of_any_process_read_them(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work function of engines, wherever it runs, and by an error where the store can't be reached."""
    url = uploaded(bucket, classes(tmp_path / "root"))
    wanted = hr.pack(hr.sources.folders(url), tmp_path / "here" / "ds", shards=2)

    def runner(tasks: Any) -> Any:
        return (make_shard(pickle.loads(pickle.dumps(task))) for task in tasks)

    found = hr.pack(hr.sources.folders(url), tmp_path / "there" / "ds", shards=2, runner=runner)
    assert content(Path(found.path)) == content(Path(wanted.path)) and found.stored == 12
    records = list(hr.sources.folders(url))
    monkeypatch.setattr("headrace.place.stores.RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r": s3://bucket-.*refuses connections"):
        hr.pack(records, tmp_path / "other", shards=2, runner=runner)


def test_the_command_line_recognises_what_lies_there(bucket: Bucket, tmp_path: Path) -> None:
    url = uploaded(bucket, classes(tmp_path / "root"))
    ended = headrace("pack", url, tmp_path / "out", "--size", "8")
    assert ended.code == 0, ended.err
    assert "taking --format folders" in ended.err and "12 stored" in ended.out


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("s3://{bucket}/nowhere", NotThereError, "no such file or folder"),
        ("s3://no-such-bucket-of-mine/x", NotThereError, "the bucket is not there"),
        ("ftp://host/x", UsageError, "no store is called ftp"),
    ],
)
def test_where_nothing_is(url: str, error: type[Exception], said: str, bucket: Bucket) -> None:
    with pytest.raises(error, match=said):
        registry.guess(url.format(bucket=bucket.name))


def test_an_empty_place(bucket: Bucket) -> None:
    bucket.put("docs/a.pdf", b"x")
    with pytest.raises(DataError, match="holds no images"):
        registry.guess(f"{bucket.url}/docs")


def test_a_folder_of_a_web_server_has_no_names(tmp_path: Path) -> None:
    with (
        stored.serving(stored.faulty(Faults(tmp_path))) as address,
        pytest.raises(UsageError, match="a web server doesn't say what files there are"),
    ):
        list(hr.sources.folders(f"{address}/bucket/cats"))


def test_images_of_a_web_server(tmp_path: Path) -> None:
    files(tmp_path / "web" / "images", {f"{k} ü.jpg": jpeg(seed=k) for k in range(4)})
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{k} ü.jpg,a\n" for k in range(5)))
    with stored.serving(stored.faulty(Faults(tmp_path / "web"))) as address:
        source = hr.sources.csv(table, images=f"{address}/bucket/images")
        report = hr.pack(source, tmp_path / "out", max_rejects=0.5, workers=2)
    assert report.stored == 4 and [reject.id for reject in report.rejects] == ["4 ü.jpg"]
    assert report.rejects[0].reason.startswith("no such file or directory")


def test_a_store_that_can_not_be_reached_ends_the_packing(bucket: Bucket, tmp_path: Path, monkeypatch: Any) -> None:
    """With its address, and not with a Reject for each image."""
    url = uploaded(bucket, classes(tmp_path / "root"))
    monkeypatch.setattr("headrace.place.stores.RETRIES", 0)
    source = hr.sources.folders(url)
    found = list(source)
    assert len(found) == 12 and not any(isinstance(item, Reject) for item in found)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for broken in (found, source):
        with pytest.raises(StorageError, match=r"s3://bucket-.*refuses connections"):
            hr.pack(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_are_read_by_ranges(bucket: Bucket) -> None:
    bucket.put("a.bin", b"0123456789")
    assert Part(f"{bucket.url}/a.bin", 3, 4).read() == b"3456"
    with pytest.raises(OSError, match="the file ends at byte 10"):
        Part(f"{bucket.url}/a.bin", 8, 4).read()
    with pytest.raises(FileNotFoundError):
        Part(f"{bucket.url}/b.bin", 0, 4).read()


def test_a_file_is_read_in_any_order(bucket: Bucket) -> None:
    data = bytes(range(256)) * 2000
    bucket.put("big.bin", data)
    with paths.path_of(f"{bucket.url}/big.bin").open("rb") as file:
        assert file.read(10) == data[:10]
        assert file.seek(300_000) == 300_000 and file.read(70_000) == data[300_000:370_000]
        file.seek(5)
        assert file.read() == data[5:]
        assert file.seek(0, 2) == len(data) and file.read(1) == b""


def test_requests_are_on_their_way_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are asked for ahead, and no more than so many; each stands in its place."""
    together = threading.Barrier(fetch.THREADS, timeout=300)  # it breaks where they come one by one
    some = {f"s3://bucket/{record.id}": record for record in shades(2 * fetch.THREADS)}

    def content(url: str, *_: Any) -> bytes:
        together.wait()
        data = some[url].encoded
        assert data is not None
        return data

    def numbered(records: Any) -> Any:
        from headrace.packing.plan import Numbered

        return (Numbered(i, record) for i, record in enumerate(records))

    monkeypatch.setattr(paths, "content", content)
    records = [Record(id=record.id, path=url) for url, record in some.items()]
    found = list(fetch.fetched(numbered(records)))
    assert [one.data for one in found] == [record.encoded for record in some.values()]


def test_who_gives_up_waits_for_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that stalls holds up neither Ctrl-C nor an error; and it is said what is waited for."""
    answers, before = threading.Event(), threading.enumerate()

    def content(url: str, *_: Any) -> bytes:
        assert answers.wait(300)
        return b""

    def interrupt() -> None:
        stored.until(lambda: "waiting for images of a store: no answer yet" in caplog.text)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(fetch, "QUIET", 0.01)
    monkeypatch.setattr(paths, "content", content)
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    records = [Record(id=f"{i}.jpg", path=f"s3://bucket/{i}.jpg") for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        hr.pack(records, tmp_path / "out", shards=1, progress=False)
    assert not answers.is_set() and not (tmp_path / "out").exists()
    interrupting.join()
    requests = [one for one in threading.enumerate() if one.name == "headrace-fetch" and one not in before]
    assert len(requests) == 3 and all(one.daemon for one in requests)  # nor does the interpreter
    answers.set()
    for one in requests:
        one.join(300)
        assert not one.is_alive()


def test_annotations_of_each_image_are_on_their_way_at_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their beginnings, of so many at a time; what was asked for and never opened is let go of."""
    for k in range(200):
        bucket.put(f"x/{k}.xml", b"%d" % k)
    together = threading.Barrier(paths._REQUESTS, timeout=300)
    place = paths._place

    def waiting(url: str) -> Any:
        if int(url.rpartition("/")[2].partition(".")[0]) < paths._REQUESTS:
            together.wait()
        return place(url)

    monkeypatch.setattr(paths, "_place", waiting)
    root = paths.path_of(f"{bucket.url}/x")
    for k in paths.ahead(root, range(200), lambda k: (f"{k}.xml",)):
        assert len(paths._heads) <= paths._REQUESTS + 1
        if k % 2:
            assert (root / f"{k}.xml").open("rb").read() == b"%d" % k
    assert not paths._heads


def test_walking_is_natural_and_lists_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("c10.jpg", "c9.jpg", "b/1.jpg", ".x.jpg", "a.txt"):
        bucket.put(f"photos/{name}", b"x")
    listed = []
    import obstore

    listing = obstore.list_with_delimiter
    monkeypatch.setattr(obstore, "list_with_delimiter", lambda *a: listed.append(a[1]) or listing(*a))
    from collections import Counter

    skipped: Counter[str] = Counter()
    for _ in range(3):
        assert [*walking.walk(paths.path_of(f"{bucket.url}/photos"), skipped)] == ["b/1.jpg", "c9.jpg", "c10.jpg"]
    assert listed == ["photos", "photos/b"] and skipped == {".txt": 3}


def test_a_list_asks_no_server_by_itself() -> None:
    item = {"filename": "http://127.0.0.1:9/a.jpg", "id": "a", "class": {"label": 0, "text": "a"}}
    (reject,) = hr.sources.visipedia([item])
    assert isinstance(reject, Reject) and "pass images=URL of what it lies below" in reject.reason


def test_arrays_are_of_this_machine() -> None:
    with pytest.raises(UsageError, match="arrays are read from files of this machine"):
        hr.sources.arrays("s3://bucket/x.npy")


WIDER = "1--Parade/{k}.jpg\n1\n2 3 10 12 0 0 0 0 0 0\n"
CVAT = (
    "<annotations><meta/>{images}</annotations>",
    '<image id="{k}" name="{k}.jpg" width="56" height="40"><box label="a" xtl="1" ytl="2" xbr="9" ybr="9"/></image>',
)
LABELME = (
    '{{"imagePath": "{k}.jpg", "imageHeight": 40, "imageWidth": 56, "shapes": [{{"label": "a", "shape_type": '
    '"rectangle", "points": [[1, 2], [9, 9]]}}]}}'
)


@pytest.mark.parametrize("format", ["wider", "cvat", "labelme", "openimages", "visipedia", "tfds"])
def test_other_formats(format: str, bucket: Bucket, tmp_path: Path) -> None:
    numbers, root = range(6), tmp_path / "root"
    pictures = {f"images/{k}.jpg": jpeg(seed=k) for k in numbers}
    what, options = "", {}
    if format == "wider":
        files(root, {f"images/1--Parade/{k}.jpg": jpeg(seed=k) for k in numbers})
        files(root, {"faces.txt": "".join(WIDER.format(k=k) for k in numbers).encode()})
        what, options = "faces.txt", {"images": root / "images"}
    elif format == "cvat":
        text = CVAT[0].format(images="".join(CVAT[1].format(k=k) for k in numbers))
        files(root, pictures | {"annotations.xml": text.encode()})
        what = "annotations.xml"
    elif format == "labelme":
        files(
            root,
            {f"{k}.jpg": jpeg(seed=k) for k in numbers} | {f"{k}.json": LABELME.format(k=k).encode() for k in numbers},
        )
    elif format == "openimages":
        columns = (
            "Source LabelName Confidence XMin XMax YMin YMax IsOccluded IsTruncated IsGroupOf IsDepiction IsInside"
        )
        head = f"ImageID,{columns.replace(' ', ',')}\n"
        rows = "".join(f"{k},xclick,/m/01,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n" for k in numbers)
        files(root, pictures | {"boxes.csv": (head + rows).encode()})
        what, options = "boxes.csv", {"images": root / "images"}
    elif format == "visipedia":
        items = [
            {"filename": f"{k}.jpg", "id": str(k), "class": {"label": k % 2, "text": "ab"[k % 2]}} for k in numbers
        ]
        files(root, pictures | {"list.json": json.dumps(items).encode()})
        what, options = "list.json", {"images": root / "images"}
    else:
        hr.pack(shades(30), root)
        (root / "headrace.json").unlink()
    same(bucket, root, tmp_path, what, format, **options)
    assert len(hr.Dataset(tmp_path / "there" / "ds")) == (30 if format == "tfds" else 6)
