"""Folders of images become records: which files, in which order, with which class, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import contained
from drawn import TINY_PNG, files, jpeg
from headrace import sources
from headrace.errors import DataError, NotThereError, UsageError
from headrace.format import example
from headrace.record import Record, Reject
from headrace.sources.info import SourceInfo, collect, read
from headrace.sources.registry import guess
from headrace.sources.walking import Folder, natural, refusal

CAT_OR_DOG = r"^(?P<label>cat|dog)\."


def folder(root: Path, *names: str) -> Path:
    """Empty files: a source looks at names alone."""
    return files(root, dict.fromkeys(names, b""))


def labels(source: Any) -> dict[str, str | None]:
    """id -> class of the records, in their order."""
    return {item.id: item.label_name for item in source if isinstance(item, Record)}


def rejects(source: Any) -> list[Reject]:
    return [item for item in source if isinstance(item, Reject)]


@pytest.mark.parametrize(
    ("names", "pattern", "wanted"),
    [
        # FORMATS.md section 5: all of train match, none of test1
        (["cat.0.jpg", "dog.11.jpg"], r"^(cat|dog)\.\d+\.jpg$".replace("(", "(?P<label>"), ["cat", "dog"]),
        (["645.jpg", "9.jpg"], CAT_OR_DOG, [None, None]),
        # searched, not matched from the start; the first hit counts
        (["my_dog_and_cat.png"], r"(?P<label>cat|dog)", ["dog"]),
        # in the name, not in the folders above it
        (["dog/x.jpg", "dog/cat.1.jpg"], r"(?P<label>cat|dog)", ["cat", None]),
        # a group that took part with nothing, or not at all, is no class
        (["x_.jpg", "x_a.jpg"], r"^x_(?P<label>[a-z]*)\.", [None, "a"]),
        (["x.jpg", "x-a.jpg"], r"^x(-(?P<label>a))?", [None, "a"]),
        # other groups don't matter, case does unless told
        (["CAT.1.jpg"], CAT_OR_DOG, [None]),
        (["CAT.1.jpg"], f"(?i){CAT_OR_DOG}", ["CAT"]),
        (["é.jpg", "猫.jpg"], r"^(?P<label>.)\.", ["é", "猫"]),
    ],
)
def test_class_in_the_name(names: list[str], pattern: str, wanted: list[str | None], tmp_path: Path) -> None:
    found = labels(sources.names(folder(tmp_path, *names), pattern=pattern))
    assert sorted(found) == sorted(names)
    assert sorted(found.values(), key=str) == sorted(wanted, key=str)


def test_record_of_a_file(tmp_path: Path) -> None:
    root = files(tmp_path, {"a/cat.1.jpg": b"bytes"})
    (record,) = sources.names(root, pattern=CAT_OR_DOG)
    assert isinstance(record, Record)
    assert (record.id, record.origin) == ("a/cat.1.jpg", "a/cat.1.jpg")
    assert record.path == str(root / "a" / "cat.1.jpg")
    assert (record.label_name, record.label, record.boxes, record.encoded) == ("cat", None, None, None)
    assert record.read() == b"bytes"


def test_unlabelled_are_kept_or_rejected(tmp_path: Path) -> None:
    root = folder(tmp_path, "cat.1.jpg", "17.jpg")
    assert labels(sources.names(root, pattern=CAT_OR_DOG)) == {"17.jpg": None, "cat.1.jpg": "cat"}
    strict = sources.names(root, pattern=CAT_OR_DOG, unlabelled="reject")
    assert labels(strict) == {"cat.1.jpg": "cat"}
    (reject,) = rejects(strict)
    assert (reject.id, reject.origin, reject.stage) == ("17.jpg", str(root / "17.jpg"), "label")
    assert reject.reason == f"the file name does not match the pattern {CAT_OR_DOG!r}"


def test_class_is_the_top_folder(tmp_path: Path) -> None:
    root = folder(tmp_path, "dog/1.jpg", "cat/2.jpg", "cat/deep/deeper/3.jpg", "no images/x.txt", "loose.jpg")
    source = sources.folders(root)
    assert labels(source) == {"cat/2.jpg": "cat", "cat/deep/deeper/3.jpg": "cat", "dog/1.jpg": "dog"}
    assert rejects(source) == []
    assert collect(source)[1].skipped == {".txt": 1, "images beside the class folders": 1}


JUNK = [
    ".hidden.jpg",
    "._cat.1.jpg",
    ".hidden/cat.1.jpg",
    ".git/cat.2.jpg",
    "Thumbs.db",
    "thumbs.db",
    "desktop.ini",
    "__MACOSX/cat.1.jpg",
    "a/@eaDir/cat.1.jpg",
    "a/._cat.9.jpg",
]
NO_IMAGES = ["notes.txt", "labels.csv", "a/x.JSON", "clip.mp4", "cat.jpg.part", "archive.tar.gz"]
CANDIDATES = ["a/cat.JPEG", "cat.1.jpg", "cat.2.JPG", "cat.3", "cat.webp", "noext", "x.heic", "x.svg", "x.tif"]


def test_junk_is_passed_over_and_the_rest_counted(tmp_path: Path) -> None:
    source = sources.names(folder(tmp_path, *JUNK, *NO_IMAGES, *CANDIDATES), pattern=CAT_OR_DOG)
    items, info = collect(source)
    assert list(labels(items)) == CANDIDATES
    assert info.skipped == {".txt": 1, ".csv": 1, ".json": 1, ".mp4": 1, ".part": 1, ".gz": 1}


TEXTS = [b"MIT License\n", "\ufeffnaïve\r\n\f".encode(), b"a" * 1023 + "é".encode()]
NO_TEXTS = [b"", b" \n", jpeg()[:40], b"\xff\xd8\xff", b"a\0b", b"\x1b[0m", b"<html>404", b"  <svg", b"P3 1 1 9 1 2 3"]


@pytest.mark.parametrize("name", ["LICENSE", "notes.2"])
@pytest.mark.parametrize(("data", "passed"), [(data, data in TEXTS) for data in (*TEXTS, *NO_TEXTS)])
def test_a_text_without_an_extension_is_passed_over(name: str, data: bytes, passed: bool, tmp_path: Path) -> None:
    """What may be a damaged image, or what a server sent for one, is not."""
    items, info = collect(sources.names(files(tmp_path, {name: data}), pattern=CAT_OR_DOG))
    assert [len(items), info.skipped] == ([0, {"text without an extension": 1}] if passed else [1, {}])


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    """As in torchvision, where `.hidden/` becomes class 0 and moves all others by one."""
    root = folder(tmp_path, ".hidden/1.jpg", "a/1.jpg", "b/.jpg", "b/2.jpg")
    assert set(labels(sources.folders(root)).values()) == {"a", "b"}


@pytest.mark.parametrize(
    "names",
    [
        ["c1", "c2", "c9", "c10", "c11", "c100"],
        ["1.jpg", "2.jpg", "0010.jpg", "10.jpg", "011.jpg"],
        ["A1", "a2", "B1", "b2"],
        ["a", "a1", "a1b", "a1b2", "ab"],
        ["img_9_z", "img_10_a"],
        ["", "0", "00", "1", "a"],
    ],
)
def test_natural_order(names: list[str]) -> None:
    for given in (names, names[::-1], sorted(names)):
        assert sorted(given, key=natural) == names


def test_files_come_in_natural_order(tmp_path: Path) -> None:
    wanted = ["c2/1.jpg", "c2/9.jpg", "c2/10.jpg", "c10/1.jpg", "c10/x/1.jpg", "c10/y2.jpg"]
    assert list(labels(sources.folders(folder(tmp_path, *sorted(wanted))))) == wanted


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = folder(tmp_path / "root", "a/1.jpg")
    folder(tmp_path / "elsewhere", "b/2.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "here").symlink_to(".")
    (root / "a" / "file.jpg").symlink_to("1.jpg")
    assert list(labels(sources.folders(root))) == ["a/1.jpg", "a/file.jpg", "linked/b/2.jpg"]


@pytest.mark.parametrize(
    ("target", "reason"), [("nowhere.jpg", None), ("self.jpg", "too many levels of symbolic links")]
)
def test_links_that_lead_nowhere(target: str, reason: str | None, tmp_path: Path) -> None:
    """A link to nothing is an image that can't be read; one to itself can't even be looked at."""
    root = folder(tmp_path, "a/1.jpg")
    (root / "a" / "self.jpg").symlink_to(target)
    found = list(sources.folders(root))
    if reason is None:
        assert [item.id for item in found] == ["a/1.jpg", "a/self.jpg"]
        with pytest.raises(FileNotFoundError):
            found[1].read()  # type: ignore[union-attr]
    else:
        (reject,) = rejects(found)
        assert (reject.id, reject.origin, reject.stage) == ("a/self.jpg", str(root / "a" / "self.jpg"), "read")
        assert reason in reject.reason


def test_pipes_are_passed_over(tmp_path: Path) -> None:
    """Reading one, or a link to one, would wait for ever."""
    root = folder(tmp_path, "a/1.jpg")
    os.mkfifo(root / "a" / "2.jpg")
    (root / "a" / "3.jpg").symlink_to("2.jpg")
    source = sources.folders(root)
    assert list(labels(source)) == ["a/1.jpg"]
    assert collect(source)[1].skipped == {"(no regular file)": 2}


def test_names_that_are_no_utf8_are_rejected(tmp_path: Path) -> None:
    root = folder(tmp_path, "a/1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/a/\xff\xfe.jpg")).write_bytes(b"")
        Path(os.fsdecode(os.fsencode(root) + b"/b\xff")).mkdir()
    except OSError as error:
        pytest.skip(f"this file system takes no such names: {error}")
    found = rejects(sources.folders(root))
    assert [(reject.id, reject.stage) for reject in found] == [(r"a/\xff\xfe.jpg", "read"), (r"b\xff", "read")]
    assert all("not UTF-8" in reject.reason for reject in found)
    str(found).encode()


def unprivileged(code: str, *args: str) -> str:
    """Runs `code` in a process for which permissions count, also when root runs the tests."""
    command = [sys.executable, "-c", code, *args]
    if os.getuid() == 0:
        powers = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}", *command]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    except FileNotFoundError:
        pytest.skip("run by root, and without setpriv to give its powers up")


def test_what_may_not_be_read_is_a_reject(tmp_path: Path) -> None:
    root = folder(tmp_path, "a/1.jpg", "closed/2.jpg")
    (root / "closed").chmod(0)
    code = (
        "import sys; from headrace import sources\nfor item in sources.folders(sys.argv[1]): print(repr(item.id), item)"
    )
    try:
        lines = unprivileged(code, str(root)).splitlines()
    finally:
        (root / "closed").chmod(0o755)
    assert [line.split()[0] for line in lines] == ["'a/1.jpg'", "'closed'"]
    assert lines[1] == f"'closed' {root}/closed: permission denied (read)"


def test_a_link_into_what_may_not_be_read_is_a_reject(tmp_path: Path) -> None:
    root = folder(tmp_path, "photos/a/1.jpg", "closed/in/2.jpg") / "photos"
    (root / "link").symlink_to(tmp_path / "closed/in")
    (tmp_path / "closed").chmod(0)
    code = """
import sys
from headrace import sources
from headrace.sources.registry import guess
print(guess(sys.argv[1])[0].name)
for item in sources.folders(sys.argv[1]): print(repr(item.id), item)
"""
    try:
        lines = unprivileged(code, str(root)).splitlines()
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [line.split()[0] for line in lines] == ["folders", "'a/1.jpg'", "'link'"]
    assert lines[2] == f"'link' {root}/link: permission denied (read)"


def test_a_root_that_may_not_be_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "closed", "a/1.jpg")
    root.chmod(0)
    code = """
import sys
from headrace import sources
from headrace.errors import StorageError
from headrace.sources.registry import guess
for call in (sources.folders, lambda path: sources.names(path, pattern='(?P<label>a)'), guess):
    try:
        call(sys.argv[1])
    except StorageError as error:
        print(error)
"""
    try:
        assert unprivileged(code, str(root)).splitlines() == [f"{root}: permission denied"] * 3
    finally:
        root.chmod(0o755)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"^(cat|dog)", r"pattern '\^\(cat\|dog\)' has no group 'label'; wanted e\.g\."),
        (r"(?P<Label>cat)", "has no group 'label'"),
        ("(?P<label>cat", "is no regular expression: missing "),
        ("", "has no group 'label'"),
    ],
)
def test_patterns_that_are_none(pattern: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        sources.names(tmp_path, pattern=pattern)


def test_roots_that_are_none(tmp_path: Path) -> None:
    file = files(tmp_path, {"a.jpg": b""}) / "a.jpg"
    for make in (sources.folders, lambda root: sources.names(root, pattern=CAT_OR_DOG)):
        with pytest.raises(NotThereError, match=f"{tmp_path}/none: no such folder"):
            make(tmp_path / "none")
        with pytest.raises(UsageError, match=f"{file}: is a file, wanted a folder of images"):
            make(file)
    with pytest.raises(UsageError, match="unlabelled is 'drop', wanted keep or reject"):
        sources.names(tmp_path, pattern=CAT_OR_DOG, unlabelled="drop")  # type: ignore[arg-type]


def test_an_empty_folder_has_no_records(tmp_path: Path) -> None:
    assert list(sources.folders(tmp_path)) == []
    assert list(sources.names(tmp_path, pattern=CAT_OR_DOG)) == []


@pytest.mark.parametrize(
    ("names", "pattern", "format_", "says"),
    [
        (["a/1.jpg"], None, "folders", "images lie in folders below it, such as a/1.jpg"),
        (["1.jpg", "x/y/1.jpg"], None, "folders", "such as x/y/1.jpg"),
        (["cat.1.jpg"], CAT_OR_DOG, "names", "a pattern for file names is given"),
        (["a/1.jpg"], CAT_OR_DOG, "names", "a pattern"),
        (["IMG_1.jpg", "IMG_2.jpg"], None, "files", "such as IMG_1.jpg, none in folders of classes: without labels"),
        (["train/1.jpg", "val2017/2.jpg"], None, "files", "images in train/, val2017/, none in folders of classes"),
        (["train/a/1.jpg", "val/2.jpg"], None, "folders", "folders taken as splits: train/, val/"),
    ],
)
def test_guess(names: list[str], pattern: str | None, format_: str, says: str, tmp_path: Path) -> None:
    found, why = guess(folder(tmp_path, *names), () if pattern is None else ("pattern",))
    assert found.name == format_ and says in why


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        # names that may tell classes are not thrown away: what was tried is said
        (
            ["cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg"],
            UsageError,
            r"names tell the class: cat \(2\), dog \(2\); pass pattern='\^\(.* or format='files' if they are none",
        ),
        ([".hidden/1.jpg", "notes.txt"], DataError, "holds no images"),
        ([], DataError, "holds no images"),
    ],
)
def test_no_guess(names: list[str], error: type[Exception], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says):
        guess(folder(tmp_path, *names))


def test_no_guess_of_what_is_no_folder(tmp_path: Path) -> None:
    file = files(tmp_path, {"a.csv": b""}) / "a.csv"
    with pytest.raises(
        UsageError, match=r"no format reads this file; pass format=NAME, one of coco \(A JSON.*; wider \(A text"
    ):
        guess(file)
    with pytest.raises(NotThereError, match="no such file or folder"):
        guess(tmp_path / "none")


def test_real_test1_photos_have_no_class(real_data: Path) -> None:
    source = sources.names(real_data / "catsdogs" / "test1", pattern=CAT_OR_DOG)
    assert Counter(labels(source).values()) == {None: 60}
    source = sources.names(real_data / "catsdogs" / "train", pattern=CAT_OR_DOG)
    assert set(labels(source).values()) == {"cat", "dog"}
    assert len(labels(source)) == 800


# --- what a source says of the whole ---------------------------------------------------------------------------------

FACES = """0--Parade/a.jpg
3
1 1 5 5 0 0 0 0 0 0
1 1 0 5 1 1 1 1 1 1
2 2 5 5 2 0 0 1 0 0
"""
COCO = {
    "images": [{"id": 1, "file_name": "0--Parade/a.jpg"}, {"id": 2, "file_name": "17.jpg"}],
    "categories": [{"id": 3, "name": "cat", "keypoints": ["nose", "tail"]}],
    "annotations": [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, i], "keypoints": [1, 1, 2, 0, 0, 0]}
        for i in range(3)
    ],
}
ITEMS = [
    {"filename": "17.jpg", "id": "17", "class": {"label": 1, "text": "cat"}},
    {"filename": "gone.jpg", "id": "gone", "class": {"label": 0}},
]


def every_source(root: Path) -> dict[str, tuple[Any, SourceInfo]]:
    """A source of each format over the same files, and what it is to say."""
    folder(root, "0--Parade/a.jpg", "17.jpg", "notes.txt")
    annotations = folder(root.parent / "annotations")
    (annotations / "wider.txt").write_text(FACES)
    (annotations / "coco.json").write_text(json.dumps(COCO))
    (annotations / "17.xml").write_text("<annotation/>")
    folder(annotations, "images/1.jpg", "labels/1.txt")
    wider = sources.wider(annotations / "wider.txt", images=root, skip_invalid=True)
    (annotations / "table.csv").write_text("path,class,split\n17.jpg,cat,valid\n\n,,\ngone.jpg,cat,train\n")
    (annotations / "boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\n17,/m/0,0,1,0,1\n18,/m/0,0,1,0,1\n")
    folder(root.parent / "hub", "val/b.jpg", "val/c.jpg")
    (root.parent / "hub" / "val" / "metadata.jsonl").write_text('{"file_name": "b.jpg"}\n{"file_name": "../x.jpg"}\n')
    hub = root.parent / "hub"
    tar = contained.tar(annotations / "a.tar", [("b.txt", b"text"), ("c.jpg", TINY_PNG)])
    parquet = contained.parquet(annotations / "a.parquet", {"image": [TINY_PNG]})
    features = contained.features_dict(image=contained.feature_image())
    tfds = contained.tfds_folder(annotations / "tfds", features, {"train": [[{"image": example.Strings([TINY_PNG])}]]})
    table, boxes = annotations / "table.csv", annotations / "boxes.csv"
    coco = sources.coco(annotations / "coco.json", images=root, flip_pairs=[[0, 1]])  # type: ignore[list-item]
    line = '<polyline label="a" points="1,2"/>'
    picture = f'<image id="0" name="17.jpg" width="9" height="9">{line}</image>'
    (annotations / "cvat.xml").write_text(f"<annotations>{picture}</annotations>")
    cvat = sources.cvat(annotations / "cvat.xml", images=root, flip_pairs=[(0, 1)])
    drawn = folder(root.parent / "labelme", "a.jpg", "b.jpg")
    (drawn / "a.json").write_text('{"imagePath": "a.jpg", "flags": {"b": true}, "shapes": []}')
    skipped = {".txt": 1}
    return {
        "cvat": (
            cvat,
            SourceInfo(box_class_names=(), flip_pairs=((0, 1),), skipped={"polylines": 1}, root=str(cvat.root)),
        ),
        "labelme": (
            sources.labelme(drawn),
            SourceInfo(class_names=("b",), box_class_names=(), skipped={"images without a JSON": 1}, root=str(drawn)),
        ),
        "names": (
            sources.names(root, pattern=CAT_OR_DOG, class_names=["cat", "dog"]),
            SourceInfo(class_names=("cat", "dog"), skipped=skipped, root=str(root)),
        ),
        "folders": (
            sources.folders(root),
            SourceInfo(skipped=skipped | {"images beside the class folders": 1}, root=str(root)),
        ),
        "files": (sources.files(root), SourceInfo(skipped=skipped, root=str(root))),
        "csv": (
            sources.csv(table, images=root, class_names=["cat"]),
            SourceInfo(
                class_names=("cat",),
                split_names=("val",),
                skipped={"empty rows": 1},
                root=str(table),
                notes=("columns taken: path = path, label = class, split = split",),
            ),
        ),
        "openimages": (
            sources.openimages(boxes, images=root),
            SourceInfo(
                skipped={"rows of images that are not there": 1, "images without a row": 1},
                root=str(boxes),
                notes=("1 rows are of images that are not in images/: passed over",),
            ),
        ),
        "imagefolder": (
            sources.imagefolder(hub),
            SourceInfo(
                split_names=("val",),
                skipped={"images without a row": 1},
                root=str(hub),
                notes=("splits are told by the names of folders",),
            ),
        ),
        "wider": (
            wider,
            SourceInfo(boxes_dropped={"without width or height": 1, "invalid": 1}, root=str(wider.root)),
        ),
        "coco": (
            coco,
            SourceInfo(
                box_class_names=("cat",),
                keypoint_names=("nose", "tail"),
                flip_pairs=((0, 1),),
                boxes_dropped={"without width or height": 1},
                keypoints_dropped={"of dropped boxes": 1},
                root=str(coco.root),
            ),
        ),
        "voc": (
            sources.voc(annotations, images=root),
            SourceInfo(skipped=skipped | {"images without an xml": 1}, root=str(annotations)),
        ),
        "yolo": (
            sources.yolo(annotations, class_names=["cat"]),
            SourceInfo(box_class_names=("cat",), root=str(annotations)),
        ),
        "webdataset": (sources.webdataset(tar), SourceInfo(root=str(tar))),
        "parquet": (sources.parquet(parquet), SourceInfo(root=str(parquet))),
        "tfds": (sources.tfds(tfds), SourceInfo(split_names=("train",), root=str(tfds))),
        "visipedia": (
            sources.visipedia(ITEMS, images=root, keypoint_names=["nose"]),
            SourceInfo(class_names=("0", "cat"), keypoint_names=("nose",), root="dataset"),
        ),
        "arrays": (
            sources.arrays(np.zeros((2, 4, 4), np.uint8), ["b", "a"]),
            SourceInfo(class_names=("a", "b"), root="x", numbered=True),
        ),
    }


def test_a_source_says_the_same_each_time_and_twice_at_once(tmp_path: Path) -> None:
    made = every_source(tmp_path / "images")
    assert set(made) == set(sources.__all__) - {"Source", "SourceInfo"}
    for name, (source, wanted) in made.items():
        ids = [item.id for item in source]
        assert len(ids) > 0, name
        for _ in range(2):
            items, info = collect(source)
            assert ([item.id for item in items], info) == (ids, wanted), name
        # One reading inside of another: the first item of one, all of the other, the rest.
        outer = read(source)
        first = next(outer)
        assert collect(source)[1] == wanted, name
        rest, info = collect(outer)
        assert ([first.id, *(item.id for item in rest)], info) == (ids, wanted), name
        with pytest.raises(FrozenInstanceError):
            setattr(source, fields(source)[0].name, "another")


def test_what_any_iterable_says() -> None:
    records = [Record(id="a"), Record(id="b")]

    def plain() -> Iterator[Record]:
        yield from records

    def telling() -> Generator[Record, None, SourceInfo]:
        yield from records
        return SourceInfo(class_names=("x",))

    def returning() -> Generator[Record, None, int]:
        yield from records
        return 7

    for source, info in [
        (records, SourceInfo()),
        (iter(records), SourceInfo()),
        (plain(), SourceInfo()),
        (returning(), SourceInfo()),
        (telling(), SourceInfo(class_names=("x",))),
    ]:
        assert collect(source) == (records, info)


def test_source_info_is_a_copy() -> None:
    """What a source goes on counting with is its own."""
    counted, names, pairs = Counter({".txt": 1}), ["a", "b"], [[0, 1]]
    info = SourceInfo(class_names=names, flip_pairs=pairs, skipped=counted)  # type: ignore[arg-type]
    counted[".txt"] += 1
    names.append("c")
    pairs.append([2, 3])
    assert info == SourceInfo(class_names=("a", "b"), flip_pairs=((0, 1),), skipped={".txt": 1})
    assert pickle.loads(pickle.dumps(info)) == info


def test_the_example_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in Source's documentation, as it stands there."""
    assert sources.Source.__doc__ is not None
    names: dict[str, Any] = {"Record": Record, "SourceInfo": SourceInfo}
    exec(textwrap.dedent(sources.Source.__doc__.partition("own:\n")[2]), names)
    (tmp_path / "labels.txt").write_text("a.jpg cat\n\nb.jpg dog\n")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        items, info = collect(names["Lines"]())
        assert [(item.id, item.label_name, item.origin) for item in items if isinstance(item, Record)] == [
            ("a.jpg", "cat", "labels.txt:1"),
            ("b.jpg", "dog", "labels.txt:3"),
        ]
        assert info == SourceInfo(class_names=("cat", "dog"), skipped={"empty lines": 1})


def test_a_folder_refuses_what_leads_out_of_it_and_nothing_else(tmp_path: Path) -> None:
    """The second image of a folder as the first, whatever link either is."""
    root = files(tmp_path / "root", {"a.jpg": b"", "b.jpg": b"", "sub/a.jpg": b"", "sub/b.jpg": b""})
    files(tmp_path / "other", {"a.jpg": b"", "b.jpg": b""})
    for name, to in {"out": tmp_path / "other", "in": root / "sub", "out.jpg": tmp_path / "other" / "a.jpg"}.items():
        (root / name).symlink_to(to)
    (root / "in.jpg").symlink_to(root / "a.jpg")
    (root / "gone.jpg").symlink_to(root / "nothing.jpg")
    folder, inside = Folder(root), str(root.resolve())
    good = ("a.jpg", "b.jpg", "sub/a.jpg", "sub/b.jpg", "in/a.jpg", "in/b.jpg", "in.jpg")
    bad = ("out/a.jpg", "out/b.jpg", "out.jpg", "sub", "gone.jpg", "none.jpg", "none/a.jpg", "a.jpg/b")
    for name in (*good, *bad, *good, *bad):
        path = f"{root}/{name}"
        assert folder.refusal(path) == refusal(path, inside)
        assert (folder.refusal(path) is None) == (name in good), name
