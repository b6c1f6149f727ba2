"""Labels in doubt of a trained run: flipped ones are found, ranked and drawn; what was learnt from is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import saved
from headrace.learn.backend import keras
from headrace.learn.evaluate import Evaluation, evaluate
from headrace.learn.train import train

FLIPPED = {f"val {k:03d}" for k in (3, 10, 24, 31)}


def network(input_shape: tuple[int, ...], classes: int) -> Any:
    """Sees how light an image is, and nothing else."""
    pixels = keras.Input(input_shape)
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 32, -4)(pixels))
    return keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(mean))


def network_of_several(input_shape: tuple[int, ...], classes: int) -> Any:
    pixels = keras.Input(input_shape)
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 32, -4)(pixels))
    return keras.Model(pixels, keras.layers.Dense(classes, activation="sigmoid")(mean))


def records(several: bool = False) -> list[hr.Record]:
    """Light and dark images, some of those to validate on under the other's name."""
    out = []
    rng = np.random.default_rng(0)
    for split, n in (("train", 60), ("val", 40)):
        for k in range(n):
            id_ = f"{split} {k:03d}"
            light = k % 2
            pixels = rng.integers(*((190, 250) if light else (5, 65)), (12, 12, 3)).astype(np.uint8)
            said = ("dark", "light")[light ^ (id_ in FLIPPED)]
            labels: dict[str, Any] = {"labels": (said, "image")} if several else {"label_name": said}
            out.append(hr.Record(id=id_, encoded=saved(pixels, "PNG"), split=split, **labels))
    return out


@pytest.fixture(scope="module", params=[False, True], ids=["one class", "several classes"])
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Evaluation]:
    folder = tmp_path_factory.mktemp("doubts")
    hr.pack(records(request.param), folder / "ds", progress=False)
    model = network_of_several if request.param else network
    train(folder / "ds", out=folder / "run", model=model, epochs=12, learning_rate=0.05, batch_size=8, progress=False)
    said = evaluate(folder / "run", folder / "ds", out=folder / "out", doubts=10, progress=False)
    return folder / "ds", folder / "run", said


def test_flipped_labels_are_found(judged: tuple[Path, Path, Evaluation]) -> None:
    _, _, said = judged
    assert said.doubts is not None
    assert {doubt.id for doubt in said.doubts} == FLIPPED
    margins = [doubt.margin for doubt in said.doubts]
    assert margins == sorted(margins) and max(margins) < -0.5
    for doubt in said.doubts:
        assert doubt.split == "val" and doubt.probability < 0.3
        own, other = (set(text.split("; ")) - {"image"} for text in (doubt.observed, doubt.estimated))
        if said.task == "classification":
            assert {*own, *other} == {"dark", "light"}
        else:
            assert own != other


def test_they_are_written_and_drawn(judged: tuple[Path, Path, Evaluation]) -> None:
    _, _, said = judged
    folder = said.figures[0].parent
    with (folder / "doubts.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert said.doubts is not None
    assert [row["id"] for row in rows] == [doubt.id for doubt in said.doubts]
    assert [*rows[0]] == ["id", "split", "observed", "estimated", "probability", "margin"]
    assert folder / "doubts.png" in said.figures and (folder / "doubts.png").read_bytes().startswith(b"\x89PNG")
    assert (
        json.loads((folder / "evaluation.json").read_text())["doubts"] == json.loads(json.dumps(said.json()))["doubts"]
    )


def test_as_many_as_are_asked_for(judged: tuple[Path, Path, Evaluation], tmp_path: Path) -> None:
    ds, run, said = judged
    model = network if said.task == "classification" else network_of_several
    loaded = hr.Run(run, network=model)
    two = loaded.evaluate(ds, out=tmp_path / "2", doubts=2, progress=False)
    assert said.doubts is not None and two.doubts == said.doubts[:2]
    none = loaded.evaluate(ds, out=tmp_path / "0", progress=False)
    assert none.doubts is None and none.json()["doubts"] is None and not (tmp_path / "0/doubts.csv").exists()
    clean = hr.Dataset(ds).split("val").where(f"id NOT IN ({', '.join(map(repr, sorted(FLIPPED)))})")
    nothing = loaded.evaluate(clean, out=tmp_path / "clean", doubts=5, progress=False)
    assert nothing.doubts == () and not (tmp_path / "clean/doubts.png").exists()
    with pytest.raises(hr.UsageError, match="doubts is 0"):
        loaded.evaluate(ds, doubts=0)


def test_what_was_learnt_from_is_left_out(judged: tuple[Path, Path, Evaluation], tmp_path: Path) -> None:
    ds, run, said = judged
    loaded = hr.Run(run, network=network if said.task == "classification" else network_of_several)
    every = hr.Dataset(ds).where("width > 0")
    found = loaded.evaluate(every, out=tmp_path / "all", doubts=10, progress=False).doubts
    assert found is not None and {doubt.id for doubt in found} == FLIPPED and found == said.doubts
    with pytest.raises(hr.UsageError, match="all 60 records are what the run was trained on"):
        loaded.evaluate(ds, split="train", doubts=10, progress=False)


def test_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import keras\n\n\ndef build(input_shape, classes):\n    pixels = keras.Input(input_shape)\n"
        "    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 32, -4)(pixels))\n"
        "    return keras.Model(pixels, keras.layers.Dense(classes, activation='softmax')(mean))\n"
    )
    hr.pack(records(), tmp_path / "ds", progress=False)
    net = f"{tmp_path / 'net.py'}:build"
    train(tmp_path / "ds", out=tmp_path / "run", model=net, epochs=12, learning_rate=0.05, batch_size=8, progress=False)
    ended = headrace("evaluate", tmp_path / "run", tmp_path / "ds", "--model", net, "--doubts", 3)
    assert ended.code == 0, ended.err
    assert "3 labels in doubt, the most doubtful first:" in ended.out and "doubts.png" in ended.out
    assert sum(id_ in ended.out for id_ in FLIPPED) == 3


def test_other_tasks_have_none(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
    ds = hr.ArrayDataset(x, x.mean(axis=(1, 2, 3)), labels="value")
    train(ds, out=tmp_path / "run", epochs=1, divide={"train": 0.5, "val": 0.5}, progress=False)
    with pytest.raises(hr.UsageError, match="doubts are for classification and multilabel, this run's task is value"):
        evaluate(tmp_path / "run", ds, doubts=3, progress=False)
