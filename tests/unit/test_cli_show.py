"""headrace show: what it makes and prints, and which calls are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from command import headrace
from packed import Source, faces, flip, pack, photos, shades, shard_of


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three datasets."""
    folder = tmp_path_factory.mktemp("show")
    pack(shades(30), folder / "shades", splits={"train": 0.8, "val": 0.2})
    pack(photos(20, boxes=True), folder / "boxed")
    pack(Source([record for i, record in enumerate(faces(12)) if i != 6]), folder / "pointed")
    return folder


def opened(path: Path) -> Image.Image:
    """The picture, its file closed."""
    with Image.open(path) as picture:
        picture.load()
        return picture


@pytest.fixture(autouse=True)
def _folder(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)


def test_records(there: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "sheet.png"  # its folders are made
    ended = headrace("show", "shades:train", "--where", "label_name = 'bee'", "--n", 3, "--out", out)
    view = hr.Dataset(there / "shades").split("train").where("label_name = 'bee'")
    assert (ended.code, ended.out, ended.err) == (0, f"3 of {len(view)} records\npicture: {out}\n", "")
    assert opened(out).tobytes() == view.show(3).tobytes()
    assert sorted(path.name for path in out.parent.iterdir()) == ["sheet.png"]


def test_json_and_jpeg(tmp_path: Path) -> None:
    out = tmp_path / "sheet.JPG"
    ended = headrace("show", "shades:val", "--out", out, "--json")
    assert json.loads(ended.out) == {"picture": str(out), "records": 30, "of": 6, "shown": 6}
    assert opened(out).format == "JPEG"


def test_a_picture_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    out.write_bytes(b"old")
    assert headrace("show", "shades", "--out", out).code == 0
    assert opened(out).format == "PNG"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("shades --batch", {}),
        (
            "shades --batch --n 5 --seed 3 --epoch 2 --size 12x16 --fit pad --augment flip,colour --target class",
            {"n": 5, "seed": 3, "epoch": 2, "size": (12, 16), "fit": "pad", "target": hr.Class(),
             "augment": (hr.HorizontalFlip(), hr.ColorJitter())},
        ),
        ("boxed --batch --size 64 --n 6", {"size": 64, "n": 6}),
        ("boxed --batch --size 64 --n 6 --target boxes", {"size": 64, "n": 6, "target": hr.Boxes()}),
        ("boxed --batch --size 64 --n 6 --target grid", {"size": 64, "n": 6, "target": hr.Grid(7)}),
        ("boxed --batch --size 64 --n 6 --target pyramid", {"size": 64, "n": 6, "target": hr.Pyramid()}),
        ("boxed --batch --size 64 --n 6 --target grid --cells 3", {"size": 64, "n": 6, "target": hr.Grid(3)}),
        ("pointed --batch --size 64 --n 6 --target heatmap", {"size": 64, "n": 6, "target": hr.Heatmap()}),
        ("pointed --batch --size 64 --n 6 --target points", {"size": 64, "n": 6, "target": hr.Points()}),
    ],
)  # fmt: skip
def test_batch(words: str, options: dict[str, object], there: Path, tmp_path: Path) -> None:
    out = tmp_path / "batch.png"
    ended = headrace("show", *words.split(), "--out", out)
    assert ended.code == 0, ended.err
    ds = hr.Dataset(there / words.split()[0])
    assert opened(out).tobytes() == ds.show(batch=True, **options).tobytes()  # type: ignore[arg-type]
    assert ended.out.startswith(f"{min(len(ds), options.get('n', 32))} of {len(ds)} records\n")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("shades --size 8 --augment flip", "--size, --augment: of a batch only; add --batch"),
        ("shades --epoch 1", "--epoch: of a batch only"),
        ("shades --n 0", "n is 0, wanted 1 to 1000"),
        ("shades --batch --n 1001", "n is 1001, wanted 1 to 1000"),
        ("shades --where false", "shades / where false: there is no record in it to show"),
        ("shades --where nothing=1", "nothing"),
        ("shades:test", "no split 'test'; it has train, val"),
        ("nowhere:train", "nowhere: no such folder"),
        ("boxed --batch", "the images differ in size; pass size"),
        ("shades --batch --target grid", "the dataset has no boxes"),
        ("shades --batch --target rings", "--target is 'rings', known are class, multilabel, value, boxes, grid"),
        ("shades --batch --target class --cells 3", "--cells are those of a grid; add --target grid"),
        (
            "boxed --batch --size 60 --target pyramid",
            "images are 60x60; grids of strides (8, 16, 32) want multiples of 32",
        ),
        ("boxed --batch --size 8 --target grid --cells 0", "cells is 0, wanted at least 1"),
        ("shades --batch --augment flip,blurr", "--augment has blurr, known are flip, crop, colour"),
        ("shades --batch --size 8px", "--size '8px': wanted N or HEIGHTxWIDTH"),
        ("shades --batch --fit tight", "fit is 'tight', wanted one of stretch, crop, pad"),
        ("shades --batch --epoch -1", "'--epoch'"),
        ("shades --out sheet.gif", "--out 'sheet.gif': wanted a name that ends with .png or .jpg"),
        ("shades --out sheet", "--out 'sheet': wanted a name that ends with .png or .jpg"),
        ("shades --out shades/headrace.json/sheet.png", "shades/headrace.json: "),
    ],
)
def test_calls_that_are_refused(words: str, says: str, tmp_path: Path) -> None:
    ended = headrace("show", "--out", tmp_path / "sheet.png", *words.split())
    assert ended.code == 2 and says in ended.err and ended.out == ""
    assert not any(tmp_path.iterdir())


def test_a_picture_too_high_for_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hr.Dataset, "show", lambda self, n: Image.new("L", (1, 66_000)))
    ended = headrace("show", "shades", "--out", tmp_path / "sheet.jpg")
    assert ended.code == 2 and "a picture of 1x66000 pixels can't be a JPEG" in ended.err
    assert not any(tmp_path.iterdir())


def test_damage(there: Path, tmp_path: Path) -> None:
    """Of records it is shown; of a batch it is an error, as it is for who trains."""
    broken = hr.Dataset(shutil.copytree(there / "shades", tmp_path / "broken"))
    path, number, offset, _ = shard_of(broken, 3)
    flip(path, offset + 50)
    out = tmp_path / "sheet.png"
    assert headrace("show", tmp_path / "broken", "--out", out).code == 0
    pixels = np.asarray(opened(out))
    assert (pixels == (198, 40, 40)).all(axis=-1).sum() > 1000  # its frame
    ended = headrace("show", tmp_path / "broken", "--batch", "--out", tmp_path / "batch.png")
    assert ended.code == 1 and f"{path.name}, record {number}" in ended.err


def test_help() -> None:
    ended = headrace("show", "--help")
    assert ended.code == 0 and "Example:\n  headrace show" in ended.out
