"""WIDER FACE becomes a dataset: every box as its text file says, clipped, and every loss counted and told."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import headrace as hr
from command import headrace
from drawn import files, jpeg
from headrace.errors import DataError

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
SPLITS = [("train", 260), ("val", 102)]


def real(folder: Path, split: str, kind: str = "here.txt") -> tuple[Path, Path]:
    """Text file and folder of images of a real split."""
    wider = folder / "wider"
    return wider / "wider_face_split" / f"wider_face_{split}_bbx_gt.{kind}", wider / f"WIDER_{split}" / "images"


def numbers(txt: Path) -> dict[str, np.ndarray]:
    """id -> int [n, 10] of a sound text file, by a pattern alone: a name, a number, and numbers up to a name."""
    found = re.findall(r"(\S+\.jpg)\s+\d+\s+((?:-?\d+\s+)*)", txt.read_text())
    return {name: np.array(rest.split(), np.int64).reshape(-1, 10) for name, rest in found}


@pytest.mark.parametrize(("split", "n"), SPLITS)
def test_every_box_is_the_text_files_clipped(split: str, n: int, real_data: Path, tmp_path: Path) -> None:
    txt, images = real(real_data, split)
    ended = headrace("pack", txt, tmp_path / "out", "--format", "wider", "--images", images, "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["seen"], report["stored"], report["rejected"]) == (0, n, n, 0)
    catalog = hr.Dataset(tmp_path / "out").catalog
    wanted, lines = numbers(txt), txt.read_text().splitlines()
    assert set(catalog["id"]) == set(wanted) and len(catalog) == n
    boxes = without = 0
    for row in catalog.iter_rows(named=True):
        table = wanted[row["id"]]
        assert lines[int(row["origin"].removeprefix(f"{txt.name}:")) - 1] == row["id"]
        with Image.open(images / row["id"]) as image:
            width, height = image.size
        x0, y0, x1, y1 = table[:, 0], table[:, 1], table[:, 0] + table[:, 2], table[:, 1] + table[:, 3]
        clipped = np.stack([x0.clip(0, width), y0.clip(0, height), x1.clip(0, width), y1.clip(0, height)], axis=1)
        kept = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        assert row["boxes"] == clipped[kept].tolist()
        assert row["box_label_names"] == ["face"] * kept.sum() and row["label"] is None
        assert json.loads(row["attributes"]) == dict(zip(ATTRIBUTES, table[kept, 4:].T.tolist(), strict=True))
        boxes += kept.sum()
        without += (~kept & table.any(axis=1)).sum()
    # FORMATS.md: out of image 0
    assert (report["boxes"], report["boxes_clipped"]) == (boxes, 0)
    assert report["boxes_dropped"] == ({"without width or height": without} if without else {})
    info = json.loads(headrace("info", tmp_path / "out", "--json").out)
    assert {name: info[name] for name in ("boxes", "boxes_clipped", "boxes_dropped")} == {
        name: report[name] for name in ("boxes", "boxes_clipped", "boxes_dropped")
    }
    assert hr.Dataset(tmp_path / "out").verify().ok


def test_the_real_train_file_in_full(real_data: Path, tmp_path: Path) -> None:
    """It names 2,487 images, of which 260 are here, and ends in the middle of the last."""
    txt, images = real(real_data, "train", "txt")
    ended = headrace("pack", txt, tmp_path / "out", "--images", images, "--json")
    assert ended.code == 1 and ended.out == "" and not (tmp_path / "out").exists()
    assert "2227 of 2487 records are rejected, 248 are allowed" in ended.err

    ended = headrace("pack", txt, tmp_path / "out", "--images", images, "--json", "--max-rejects", "100%")
    report = json.loads(ended.out)
    assert (ended.code, report["seen"], report["stored"], report["rejected"]) == (0, 2487, 260, 2227)
    lines = txt.read_text().splitlines()
    missing = {
        f"{txt.name}:{i}": line for i, line in enumerate(lines, 1) if "/" in line and not (images / line).exists()
    }
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    *others, last = rejects
    assert {r["origin"]: r["id"] for r in others} == dict(list(missing.items())[:-1]) and len(missing) == 2227
    assert all(r["stage"] == "read" and r["reason"].startswith("no such file or directory") for r in others)
    assert last == {
        "id": list(missing.values())[-1],
        "origin": f"{txt.name}:{len(lines)}",
        "stage": "annotation",
        "reason": f"the file ends after 89 of the 214 rows that line {len(lines) - 89} says",
    }
    # What is here is stored the same, whatever else the file names.
    here, _ = real(real_data, "train")
    rows = {row["id"]: row["boxes"] for row in hr.Dataset(tmp_path / "out").catalog.iter_rows(named=True)}
    assert {name: len(boxes) for name, boxes in rows.items()} == {name: len(t) for name, t in numbers(here).items()}


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A text file in a folder with four images of 60 x 40 pixels: wider.txt and images/."""
    files(tmp_path / "images", {f"p/{i}.jpg": jpeg(40, 60, seed=i) for i in range(4)})
    text = """p/0.jpg
5
10 10 20 20 0 0 0 0 0 1
-5 -5 10 10 1 0 0 0 0 2
60 0 5 5 9 9 9 9 9 9
5 5 0 5 9 9 9 9 9 9
50 30 100 100 2 0 0 1 0 3
p/1.jpg
0
0 0 0 0 0 0 0 0 0 0
p/2.jpg
1
-9 0 9 40 9 9 9 0 9 9
p/3.jpg
1
0 0 60 40 0 1 1 0 2 1
"""
    return files(tmp_path, {"wider.txt": text.encode()}) / "wider.txt"


def pack(txt: Path, out: Path, *, packing: dict[str, Any] | None = None, **options: Any) -> hr.PackReport:
    source = hr.sources.wider(txt, images=txt.parent / "images", **options)
    return hr.pack(source, out, progress=False, **packing or {})


def test_what_reaches_out_of_the_image(drawn: Path, tmp_path: Path) -> None:
    report = pack(drawn, tmp_path / "out")
    assert (report.seen, report.stored) == (4, 4)
    assert (report.boxes, report.boxes_clipped) == (4, 2)
    assert report.boxes_dropped == {"without width or height": 1, "outside of the image": 2}
    rows = {row["id"]: row for row in hr.Dataset(tmp_path / "out").catalog.iter_rows(named=True)}
    assert rows["p/0.jpg"]["boxes"] == [[10, 10, 30, 30], [0, 0, 5, 5], [50, 30, 60, 40]]
    assert json.loads(rows["p/0.jpg"]["attributes"]) == {name: [0, 0, 0] for name in ATTRIBUTES} | {
        "blur": [0, 1, 2],
        "invalid": [0, 0, 1],
        "pose": [1, 2, 3],
    }
    assert rows["p/1.jpg"]["boxes"] == rows["p/2.jpg"]["boxes"] == []
    manifest = json.loads((tmp_path / "out" / "headrace.json").read_text())
    assert manifest["boxes_clipped"] == 2 and manifest["boxes_dropped"] == dict(report.boxes_dropped)
    assert manifest["box_classes"] == ["face"]
    shown = headrace("info", tmp_path / "out").out
    assert "4, 2 clipped to their image, 1 dropped (without width or height), 2 dropped (outside of the image)" in shown
    assert hr.Dataset(tmp_path / "out").verify().ok


def test_a_fit_that_cuts_drops_boxes_and_their_attributes(drawn: Path, tmp_path: Path) -> None:
    """The middle 40 x 40 of each image is stored."""
    report = pack(drawn, tmp_path / "out", packing={"size": 40, "fit": "crop", "workers": 2, "shards": 2})
    assert report.boxes_dropped == {"without width or height": 1, "outside of the image": 2, "cut off by fit": 2}
    rows = {row["id"]: row for row in hr.Dataset(tmp_path / "out").catalog.iter_rows(named=True)}
    assert rows["p/0.jpg"]["boxes"] == [[0, 10, 20, 30]]
    assert json.loads(rows["p/0.jpg"]["attributes"])["pose"] == [1]
    assert rows["p/3.jpg"]["boxes"] == [[0, 0, 40, 40]]


def test_the_same_catalog_wherever_it_lies(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(drawn, tmp_path / "one")
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere" / "images")
    shutil.copy(drawn, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    pack(Path("wider.txt"), tmp_path / "two", packing={"workers": 1})
    assert pl.read_parquet(tmp_path / "one" / "catalog.parquet").equals(
        pl.read_parquet(tmp_path / "two" / "catalog.parquet")
    )
    for shard in (tmp_path / "one").glob("*.tfrecord"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()


def test_bad_images_are_rejects_with_their_line(drawn: Path, tmp_path: Path) -> None:
    files(tmp_path / "images", {"p/bad.jpg": b"<html>gone</html>", "p/cut.jpg": jpeg(200, 200)[:1500]})
    files(tmp_path, {"outside.jpg": jpeg()})
    (tmp_path / "images" / "p" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    with drawn.open("a") as file:
        for name in ("p/bad.jpg", "p/cut.jpg", "p/3.jpg", "p/none.jpg", "../outside.jpg", "p/link.jpg"):
            file.write(f"{name}\n1\n1 1 5 5 0 0 0 0 0 0\n")
        file.write(f"{tmp_path}/outside.jpg\n0\n")
    report = pack(drawn, tmp_path / "out", packing={"max_rejects": 1.0})
    assert (report.seen, report.stored) == (11, 4)
    at = {line: i for i, line in enumerate(drawn.read_text().splitlines(), 1)}  # a name's last line
    assert [(r.id, r.origin, r.stage) for r in report.rejects] == [
        ("p/bad.jpg", f"wider.txt:{at['p/bad.jpg']}", "header"),
        ("p/cut.jpg", f"wider.txt:{at['p/cut.jpg']}", "decode"),
        ("p/3.jpg", f"wider.txt:{at['p/3.jpg']}", "label"),
        ("p/none.jpg", f"wider.txt:{at['p/none.jpg']}", "read"),
        ("../outside.jpg", f"wider.txt:{at['../outside.jpg']}", "annotation"),
        ("p/link.jpg", f"wider.txt:{at['p/link.jpg']}", "read"),
        (f"{tmp_path}/outside.jpg", f"wider.txt:{at[f'{tmp_path}/outside.jpg']}", "annotation"),
    ]
    assert report.rejects[2].reason == "duplicate id 'p/3.jpg', first at wider.txt:14"
    assert "HTML" in report.rejects[0].reason and "truncated" in report.rejects[1].reason
    assert report.rejects[0].reason.endswith(f": '{tmp_path}/images/p/bad.jpg'")


def test_an_image_that_may_not_be_read(drawn: Path, tmp_path: Path) -> None:
    closed = tmp_path / "images" / "p" / "1.jpg"
    closed.chmod(0)
    if os.access(
        closed, os.R_OK
    ):  # for root permissions don't count: gone between the look and the reading is the same
        source = hr.sources.wider(drawn, images=tmp_path / "images")
        items = list(source)
        closed.unlink()
        report = hr.pack(items, tmp_path / "out", progress=False, max_rejects=1)
    else:
        report = pack(drawn, tmp_path / "out", packing={"max_rejects": 1})
    (reject,) = report.rejects
    assert (reject.id, reject.origin, reject.stage) == ("p/1.jpg", "wider.txt:8", "read")


def test_a_file_out_of_step(drawn: Path, tmp_path: Path) -> None:
    drawn.write_text(drawn.read_text().replace("p/1.jpg\n0\n", "p/1.jpg\n3\n"))
    with pytest.raises(
        DataError, match=rf"{drawn}:11: the next file name comes after 1 of the 3 rows that line 9 says"
    ):
        pack(drawn, tmp_path / "out")
    words = ("pack", drawn, tmp_path / "out", "--images", tmp_path / "images", "--max-rejects", 1)
    ended = headrace(*words)
    assert ended.code == 1 and f"headrace: {drawn}:11: " in ended.err and "--lenient" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "wider.txt"]
    ended = headrace(*words, "--lenient", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["seen"], report["stored"], report["rejected"]) == (0, 4, 3, 1)


def test_two_text_files_are_one_dataset(real_data: Path, tmp_path: Path) -> None:
    """And each split is what its text file alone makes, record by record."""
    words: list[str | Path] = []
    for split, n in SPLITS:
        txt, images = real(real_data, split)
        alone = headrace("pack", txt, tmp_path / split, "--images", images)
        assert alone.code == 0 and f"train {n};" in alone.out
        words += ["--images", f"{split}={images}"]
    sources = [f"{split}={real(real_data, split)[0]}" for split, _ in SPLITS]
    ended = headrace("pack", *sources, tmp_path / "faces", "--format", "wider", *words, "--json")
    report = json.loads(ended.out)
    assert (ended.code, ended.err, report["splits"]) == (0, "", dict(SPLITS))
    faces = hr.Dataset(tmp_path / "faces")
    for split, _ in SPLITS:
        there, alone = faces.split(split).catalog, hr.Dataset(tmp_path / split).catalog
        columns = ["id", "boxes", "attributes", "sha256", "origin"]
        assert there.select(columns).equals(alone.select(columns))


def test_images_of_each_split(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "images", tmp_path / "more")
    words = ["pack", f"a={drawn}", f"b={drawn}", tmp_path / "out", "--format", "wider"]
    ended = headrace(*words, "--images", f"a={tmp_path / 'images'}")
    assert ended.code == 2 and "--format wider needs --images for split 'b', the folder" in ended.err
    for given in ([tmp_path / "images"], [f"b={tmp_path / 'more'}", f"a={tmp_path / 'images'}"]):
        flags = [word for one in given for word in ("--images", one)]
        report = json.loads(headrace(*words, *flags, "--overwrite", "--json").out)
        assert report["splits"] == {"a": 4, "b": 4} and report["boxes"] == 8
        assert report["boxes_dropped"] == {"without width or height": 2, "outside of the image": 4}


def test_guessed_and_said_aloud(drawn: Path, tmp_path: Path) -> None:
    ended = headrace("pack", drawn, tmp_path / "out", "--images", tmp_path / "images")
    assert ended.code == 0
    assert "headrace: taking --format wider: line 1 names an image, 'p/0.jpg', and line 2 counts its faces" in ended.err
    assert (
        "boxes of face: 4, 2 clipped to their image, 1 dropped (without width or height), 2 dropped (outside"
        in ended.out
    )


def test_filters_on_the_command_line(drawn: Path, tmp_path: Path) -> None:
    words = ("--images", tmp_path / "images", "--max-faces", 3, "--min-side", 10, "--skip-invalid", "--json")
    report = json.loads(headrace("pack", drawn, tmp_path / "out", *words).out)
    assert (report["seen"], report["stored"], report["boxes"]) == (3, 3, 1)
    assert report["passed_over"] == {"images of more than 3 faces": 1}
    assert report["boxes_dropped"] == {"a side under 10 pixels": 1}
    shown = headrace("pack", drawn, tmp_path / "text", *words[:-1]).out
    assert "passed over 1: images of more than 3 faces 1" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["wider.txt"], "--format wider needs --images, the folder that the names in the file start from"),
        (["wider.txt", "--format", "wider", "--images", "none"], "none: no such folder"),
        (
            ["wider.txt", "--images", "images", "--classes", "a,b"],
            "--classes is for --format names and folders",
        ),
        (["wider.txt", "--images", "images", "--max-faces", "-1"], "--max-faces is -1, wanted at least 0"),
        (
            ["images", "--format", "folders", "--images", "images"],
            "--images is for --format coco and voc",
        ),
        (["images", "--format", "folders", "--lenient"], "--lenient is for --format wider, the format is folders"),
        (["images", "--format", "folders", "--max-faces", "0"], "--max-faces is for --format wider, the format"),
        (["wider.txt", "--format", "widr"], "--format is 'widr', wanted one of files, names, folders, coco"),
        (["images/p/0.jpg"], "no format reads this file; pass --format NAME, one of coco (A JSON"),
    ],
)
def test_calls_that_are_at_fault(
    words: list[str], says: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = headrace("pack", words[0], "out", *words[1:])
    assert (ended.code, ended.out) == (2, "") and says in ended.err
    assert not (tmp_path / "out").exists()


def test_the_help_names_it() -> None:
    assert re.search(r"^wider +A text file of WIDER FACE", headrace("formats").out, re.MULTILINE)
    shown = " ".join(headrace("formats", "wider").out.split())
    assert "headrace pack wider_face_train_bbx_gt.txt out --format wider --images WIDER_train/images" in shown
    for option in ("--images", "--lenient", "--max-faces", "--min-side", "--skip-invalid"):
        assert option in shown
