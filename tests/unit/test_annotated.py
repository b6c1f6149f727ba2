"""Annotated folders that no source reads are recognised, and none is packed as classes of its folder names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from command import headrace
from drawn import files, jpeg
from headrace.errors import DataError, UsageError
from headrace.sources import annotated, folders, survey
from headrace.sources.info import collect
from headrace.sources.registry import guess
from headrace.splits import split_of_folder

VOC = b"<annotation><filename>1.jpg</filename><object><name>cat</name><bndbox/></object></annotation>"
COCO = json.dumps(
    {"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
).encode()
WIDER = b"0--Parade/1.jpg\n1\n1 1 5 5 0 0 0 0 0 0\n"
ROW = b"0 0.5 0.5 0.25 0.25\n"
CAR = b"Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
COCO_KINDS = ("captions", "instances", "panoptic", "person_keypoints")
ROBOFLOW = {"_annotations.coco.json": COCO, "1.jpg": b""}
LABELME = b'{"version": "5", "shapes": [], "imagePath": "1.jpg"}'

# What is in the folder (images where nothing is said), what it looks like, what tells it, and what else is said.
TREES: dict[str, tuple[dict[str, bytes], str, str]] = {
    "cvat": (
        {"images/1.jpg": b"", "annotations.xml": b"<?xml version='1.0'?>\n<annotations>\n<version>1.1</version>"},
        "CVAT: annotations.xml has <annotations>",
        "pass {root}/annotations.xml",
    ),
    "labelme, xml": (
        {"Images/1.jpg": b"", "Annotations/1.xml": b"<annotation><object><polygon></polygon></object></annotation>"},
        "LabelMe: Annotations/1.xml has <annotation> with <polygon>",
        "no source",
    ),
    "vott": (
        {"a/1.jpg": b"", "a-asset.json": b'{"asset": {"name": "1.jpg"}, "regions": []}'},
        "VoTT: a-asset.json has 'regions' and 'asset'",
        "no source",
    ),
    "vott, project": ({"a/1.jpg": b"", "x.vott": b'{"tags": []}'}, "VoTT: x.vott", "no source"),
    "via": (
        {"a/1.jpg": b"", "via.json": b'{"1": {"regions": [{"shape_attributes": {}}]}}'},
        "VGG Image Annotator: via.json",
        "no source",
    ),
    "createml": (
        {"a/1.jpg": b"", "a.json": b'[{"image": "1.jpg", "annotations": [{"coordinates": {}}]}]'},
        "CreateML: a.json",
        "no source",
    ),
    "open images": (
        {"images/1.jpg": b"", "annotations/train-bbox.csv": b"ImageID,Source,LabelName\n1,x,/m/0\n"},
        "Open Images: annotations/train-bbox.csv begins with ImageID",
        "pass {root}/annotations/train-bbox.csv with images=FOLDER",
    ),
    "kitti": (
        {"training/image_2/1.png": b"", "training/label_2/1.txt": CAR},
        "KITTI: training/label_2/1.txt has a type and 14 numbers in each line",
        "no source",
    ),
    "dota": (
        {"images/1.png": b"", "labelTxt/1.txt": b"imagesource:x\ngsd:1\n1.0 2.0 3.0 4.0 5 6 7 8 ship 0\n"},
        "DOTA: labelTxt/1.txt has four corners",
        "no source",
    ),
    "mot": ({"a/img1/1.jpg": b"", "a/gt/gt.txt": b"1,1,2,3,4,5,1,1,1\n"}, "MOT: a/gt/gt.txt", "no source"),
    "mot, sequence": ({"a/img1/1.jpg": b"", "a/seqinfo.ini": b"[Sequence]"}, "MOT: a/seqinfo.ini", "no source"),
    "coco": (
        {"annotations/instances_val.json": COCO, "images/1.jpg": b""},
        "COCO: annotations/instances_val.json: it is JSON with a list of images",
        "; pass {root}/annotations/instances_val.json with images='{root}/images'",
    ),
    "coco, without its images": (
        {"a.json": COCO, "b/2.jpg": b""},
        "COCO: a.json",
        "pass {root}/a.json with images=FOLDER",
    ),
    "coco, two splits": (
        {
            **{f"annotations/{kind}_{split}2017.json": COCO for kind in COCO_KINDS for split in ("train", "val")},
            **{f"images/{split}2017/1.jpg": b"" for split in ("val", "train")},
        },
        "COCO: annotations/instances_train2017.json: it is JSON with a list of images",
        "; pass train={root}/annotations/instances_train2017.json val={root}/annotations/instances_val2017.json with "
        "images='train={root}/images/train2017' images='val={root}/images/val2017'",
    ),
    "coco, roboflow": (
        {f"{split}/{name}": data for split in ("train", "valid", "test") for name, data in ROBOFLOW.items()},
        "COCO: train/_annotations.coco.json",
        "; pass train={root}/train/_annotations.coco.json val={root}/valid/_annotations.coco.json "
        "test={root}/test/_annotations.coco.json with images='train={root}/train' images='val={root}/valid' "
        "images='test={root}/test'",
    ),
    "wider": (
        {"split/train.here.txt": WIDER, "split/train.txt": WIDER, "WIDER_train/images/0--Parade/1.jpg": b""},
        "WIDER FACE: split/train.txt: line 1 names an image",
        "; pass {root}/split/train.txt with images='{root}/WIDER_train/images'",
    ),
    "wider, two splits": (
        {
            "split/wider_val.txt": WIDER,
            "split/wider_train.txt": b"0--Parade/0.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n" + WIDER,  # one that isn't here
            **{f"WIDER_{split}/images/0--Parade/1.jpg": b"" for split in ("val", "train")},
        },
        "WIDER FACE: split/wider_train.txt: line 1 names an image, '0--Parade/0.jpg', and line 2 counts",
        "; pass train={root}/split/wider_train.txt val={root}/split/wider_val.txt with "
        "images='train={root}/WIDER_train/images' images='val={root}/WIDER_val/images'",
    ),
    "voc and coco": (
        {"JPEGImages/1.jpg": b"", "Annotations/1.xml": VOC, "all.json": COCO},
        "annotations of several formats: voc (JPEGImages/ beside Annotations/*.xml with <annotation>); COCO (all.",
        "; pass format='voc' to take those alone",
    ),
    "voc and yolo": (
        {"images/1.jpg": b"", "images/1.xml": VOC, "labels/1.txt": ROW},
        "annotations of several formats: voc (",
        "yolo (labels/1.txt has a class number and a box in each line); pass format='voc' or format='yolo' to take",
    ),
    "names of classes": (
        {f"{word}.{k}.jpg": b"" for word in ("cat", "dog") for k in range(3)},
        "images whose names tell the class: cat (3), dog (3)",
        "; pass pattern='^(?P<label>cat|dog)[^A-Za-z]' if these are classes",
    ),
    "a table": (
        {"labels.csv": b"image,class\nfirst.jpg,cat\n", "images/first.jpg": b""},
        "images with a table (.csv): labels.csv names first.jpg",
        "pass {root}/labels.csv with images='{root}/images'",
    ),
    "a table of numbers, with a header that tells": (
        {"train.csv": b"id,label\n001,3\n", "train/001.jpg": b""},
        "images with a table (.csv): train.csv names 001",
        "pass {root}/train.csv with images=FOLDER",
    ),
    "a table of stems": (
        {"labels.tsv": b"first\tcat\n", "all/first.jpg": b""},
        "images with a table (.tsv)",
        "pass {root}/labels.tsv with images=FOLDER",
    ),
    "a file each": (
        {f"all/{k}.{ext}": b"" for k in range(4) for ext in ("jpg", "mat")},
        "images with a file of annotations each: 4 images have a .mat of the same name, such as all/0.mat",
        "no source",
    ),
    "splits alone": (
        dict.fromkeys(("train/cat.1.jpg", "train/cat.2.jpg", "train/dog.1.jpg", "train/dog.2.jpg", "test1/2.jpg"), b""),
        "splits without folders of classes: test1/, train/; pass pattern=REGEX where file names tell the class",
        "format='files' to store them without one",
    ),
    "splits and more": (
        {"training_set/cat/1.jpg": b"", "test_set/cat/2.jpg": b"", "breeds/pug/3.jpg": b""},
        "splits and something else: test_set/, training_set/ beside breeds/",
        "as in train=FOLDER test=FOLDER",
    ),
    "splits in a folder": (
        {"bottle/train/good/1.png": b"", "bottle/test/bad/2.png": b""},
        "splits in a folder: bottle/test/, bottle/train/",
        "; pass {root}/bottle",
    ),
    "parts": (
        {"images/a/1.jpg": b"", "masks/1.png": b""},
        "a dataset's parts: images/, masks/, which name no class",
        "pass the folder whose folders are the classes",
    ),
}  # fmt: skip


def tree(root: Path, content: dict[str, bytes]) -> Path:
    return files(root, {path: data or jpeg() for path, data in content.items()})


@pytest.mark.parametrize("name", TREES)
def test_what_it_looks_like(name: str, tmp_path: Path) -> None:
    content, looks, says = TREES[name]
    root = tree(tmp_path / "in", content)
    with pytest.raises(UsageError) as caught:
        guess(root)
    said = str(caught.value)
    assert said.startswith((f"{root}: this looks like {looks}", f"{root}: {looks}")) and says.format(root=root) in said


# What a format reads: what is in the folder, the format, and what it was recognised by.
TAKEN: dict[str, tuple[dict[str, bytes], str, str]] = {
    "voc": (
        {"JPEGImages/1.jpg": b"", "SegmentationClass/1.png": b"", "Annotations/1.xml": VOC},
        "voc",
        "JPEGImages/ beside Annotations/*.xml with <annotation>",
    ),
    "voc, deeper": (
        {"VOC2007/JPEGImages/1.jpg": b"", "VOC2007/Annotations/1.xml": VOC},
        "voc",
        "VOC2007/JPEGImages/ beside VOC2007/Annotations/*.xml with <annotation>",
    ),
    "voc, beside": ({"all/1.jpg": b"", "all/1.xml": VOC}, "voc", "all/1.xml with <annotation>"),
    "voc, of roboflow": (
        {f"{split}/1.{kind}": data for split in ("train", "valid") for kind, data in (("jpg", b""), ("xml", VOC))},
        "voc",
        "train/1.xml with <annotation>",
    ),
    "yolo, ultralytics": (
        {"data.yaml": b"nc: 1\nnames: [cat]\n", "train/images/1.jpg": b"", "train/labels/1.txt": ROW},
        "yolo",
        "data.yaml has names",
    ),
    "yolo, labels": (
        {"images/train/1.jpg": b"", "labels/train/1.txt": ROW},
        "yolo",
        "labels/train/1.txt has a class number and a box in each line",
    ),
    "yolo, darknet": (
        {"obj.names": b"cat\n", "obj.data": b"classes = 1\n", "obj_train_data/1.jpg": b""},
        "yolo",
        "obj.data",
    ),
    "labelme": ({"a/1.jpg": b"", "a/1.json": LABELME}, "labelme", ""),
    "yolo, beside": ({"classes.txt": b"cat\n", "1.jpg": b"", "1.txt": ROW}, "yolo", "1.txt has a class number"),
    "yolo, oriented": (
        {"train/images/1.jpg": b"", "train/labels/1.txt": b"0 .1 .1 .2 .1 .2 .2 .1 .2\n" * 9},
        "yolo",
        "train/labels/1.txt has a class number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_format_takes(name: str, tmp_path: Path) -> None:
    content, format, why = TAKEN[name]
    found, said = guess(tree(tmp_path / "in", content))
    assert found.name == format and said.startswith(why)
    assert annotated.look(tmp_path / "in", [format]) is None


@pytest.mark.parametrize("name", ["kitti", "coco", "wider", "splits alone"])
def test_pack_refuses_and_says_it_in_flags(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", TREES[name][0])
    ended = headrace("pack", root, tmp_path / "out")
    assert ended.code == 2 and "this looks like" in ended.err and not (tmp_path / "out").exists()
    # As it is typed: without the quotes that Python has.
    wanted = {
        "coco": f"--images {root}/images",
        "wider": f"--images {root}/WIDER_train/images",
        "splits alone": "--format files",
    }
    assert wanted.get(name, "--format folders") in ended.err and "='" not in ended.err


@pytest.mark.parametrize("name", ["coco, two splits", "coco, roboflow", "wider, two splits", "wider"])
def test_the_command_that_is_named_works(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", TREES[name][0])
    ended = headrace("pack", root, tmp_path / "out")
    words = ended.err.rpartition("; pass ")[2].replace(" with ", " ")
    ended = headrace("pack", *shlex.split(words), tmp_path / "out", "--max-rejects", "1", "--json")
    assert ended.code == 0 and json.loads(ended.out)["stored"] == len(json.loads(ended.out)["splits"])
    assert len(json.loads(ended.out)["splits"]) == words.count("--images")


def test_a_format_that_is_given_is_taken(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", TAKEN["voc"][0])
    ended = headrace("pack", root, tmp_path / "out", "--format", "folders", "--json")
    told = json.loads(ended.out)
    assert (ended.code, told["classes"], told["passed_over"]) == (0, ["JPEGImages", "SegmentationClass"], {".xml": 1})


@pytest.mark.parametrize(
    "content",
    [
        {"cat/1.jpg": b"", "dog/2.jpg": b"", "README.md": b"# Pets", "LICENSE": b"MIT", "notes.txt": b"0 1\n"},
        {"cat/1.jpg": b"", "cat/notes.txt": b"a cat\n", "classes.csv": b"cat,1\ndog,2\n", "a.json": b"{}"},
        {"train/1.jpg": b"", "car/2.jpg": b""},  # a train is a vehicle too
        {"images/1.jpg": b"", "cat/2.jpg": b""},
        {"a/b/c/1.jpg": b""},
        {"train/cat/1.jpg": b"", "valid/cat/2.jpg": b"", "test/3.jpg": b""},
        {"a/1.jpg": b"", "a/1.txt": b"a sentence\n", "b/2.jpg": b"", "b/3.jpg": b"", "b/4.jpg": b""},
    ],
)
def test_folders_of_classes_are_none_of_these(content: dict[str, bytes], tmp_path: Path) -> None:
    root = tree(tmp_path / "in", content)
    assert annotated.look(root) is None and guess(root)[0].name == "folders"


@pytest.mark.parametrize(
    ("name", "data", "looks"),
    [
        ("1.xml", VOC, " alone; this looks like Pascal VOC: 1.xml with <annotation>; pass the folder that it belongs"),
        (
            "1.txt",
            ROW,
            " alone; this looks like YOLO: 1.txt has a class number and a box in each line; pass the folder",
        ),
        ("1.json", LABELME, " alone; this looks like LabelMe"),
        ("x.csv", b"a,b\n", "; pass format=NAME"),
    ],
)
def test_a_file_of_them(name: str, data: bytes, looks: str, tmp_path: Path) -> None:
    path = files(tmp_path, {name: data}) / name
    with pytest.raises(UsageError) as caught:
        guess(path)
    assert f"no format reads this file{looks}" in str(caught.value)


def test_what_is_seen_is_bounded_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "in", {"a/1.jpg": b"", "a/b/c/d/1.txt": CAR})
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to("self")
    assert str(annotated.look(root)).startswith("this looks like KITTI: a/b/c/d/1.txt")
    monkeypatch.setattr(survey, "_MOST_ENTRIES", 3)
    assert annotated.look(root) is None


def test_folders_that_are_none(tmp_path: Path) -> None:
    root = files(tmp_path / "records", {"train-0.tfrecord": b"x"})
    with pytest.raises(DataError, match="holds no images but TFRecords; adopt them"):
        guess(root)
    (root / "headrace.json").write_text("{}")
    for call in (guess, folders):
        with pytest.raises(UsageError, match="records: is a packed dataset already"):
            call(root)


# --- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("train2017", "train"),
        ("training_set", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("VALIDATION", "val"),
        ("dev", "val"),
        ("test", "test"),
        ("testing-set", "test"),
        ("test1", "test"),
        ("trains", None),
        ("valley", None),
        ("contest", None),
        ("test_images", None),
        ("", None),
    ],
)
def test_what_folders_of_splits_are_called(name: str, split: str | None) -> None:
    assert split_of_folder(name) == split


def test_folders_of_splits(tmp_path: Path) -> None:
    names = ["train/cat/1.jpg", "train/dog/x/2.jpg", "train/README.png", "valid/dog/1.jpg", "test/9.jpg", "cover.jpg"]
    root = tree(tmp_path / "in", dict.fromkeys(names, b""))
    items, info = collect(folders(root))
    assert [(item.id, item.split, item.label_name) for item in items] == [  # type: ignore[union-attr]
        ("test/9.jpg", "test", None),
        ("train/cat/1.jpg", "train", "cat"),
        ("train/dog/x/2.jpg", "train", "dog"),
        ("valid/dog/1.jpg", "val", "dog"),
    ]
    assert info.skipped == {"images beside the class folders": 2}
    assert info.notes == (
        "folders taken as splits: test/, train/, valid/ (val); classes are the folders in them",
        "no folders of classes in test/: without a label",
    )


def test_splits_are_packed_as_given_and_said(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{k}.jpg" for split in ("train", "validation") for label in "ab" for k in range(4)]
    root = tree(tmp_path / "in", dict.fromkeys(names, b""))
    for words in ([], ["--split", "given"]):
        ended = headrace("pack", root, tmp_path / "ds", *words, "--overwrite")
        assert ended.code == 0 and "train 8, val 8; 2 shards; classes: a, b" in ended.out
        assert "taking --format folders: folders taken as splits: train/, validation/ (val); classes are" in ended.err
        assert "  folders taken as splits: train/, validation/ (val); classes are the folders in them\n" in ended.out
    told = json.loads(headrace("pack", root, tmp_path / "two", "--split", "x=0.5,y=0.5", "--json").out)
    assert told["splits"] == {"x": 8, "y": 8} and told["classes"] == ["a", "b"]
    assert told["notes"][1] == "the source's own splits (train, val) are not kept, as fractions were passed (--split)"
