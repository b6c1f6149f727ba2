"""What the tests of viewer and report look at: a dataset with a bit of everything, hostile names, a run that judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import headrace as hr
from drawn import jpeg, saved
from packed import pack, photos

# Names that would run, were they taken for markup: in HTML's text, in attributes, in style and script.
HOSTILE = (
    "<img src=x onerror=\"document.title='ran'\">",
    "\"><script>document.title='ran'</script>",
    "' onmouseover='document.title=1' x='",
    "javascript:document.title='ran'",
    "</style><svg/onload=document.title='ran'>",
    "{{7*7}}${7*7}",
)


def patches(seed: int, quality: int = 90) -> bytes:
    """A JPEG of 90 x 120 of large patches of chance, which no two seeds have alike."""
    made = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    return saved(made, "JPEG", quality=quality)


def some(folder: Path, n: int = 24) -> hr.Dataset:
    """Photos with boxes and classes in two splits, three of them without a label."""
    records = photos(n, boxes=True, png=(3,), grey=(5,), unlabelled=(7,))
    return pack(records, folder, splits={"train": 0.75, "val": 0.25})


def hostile(folder: Path) -> hr.Dataset:
    """Every text that a dataset can hold is one of HOSTILE; and one image is refused."""
    records: list[hr.Record | hr.Reject] = [
        hr.Record(
            id=f"{k}{name}",
            encoded=jpeg(30, 40, seed=k),
            label_name=name,
            boxes=np.array([[2, 3, 20, 25]], np.float32),
            box_labels=(name,),
            keypoints=np.array([[[5, 5, 2]]], np.float32),
            attributes={name: name},
            captions=(name,),
            group=name,
            origin=name,
        )
        for k, name in enumerate(HOSTILE)
    ]
    records += [hr.Record(id=f"again {HOSTILE[0]}", encoded=jpeg(30, 40, seed=0), label_name=HOSTILE[0])]
    records += [hr.Reject(id=HOSTILE[0], origin=HOSTILE[1], stage=HOSTILE[2], reason=HOSTILE[0])]
    return pack(records, folder, max_rejects=5)


def judged(run: Path, name: str, lines: Sequence[Mapping[str, Any]], **said: Any) -> Path:
    """A RUN folder, as far as the viewer reads it, with one evaluation of these lines."""
    folder = run / "evaluations" / name
    folder.mkdir(parents=True)
    (run / "recipe.json").write_text(json.dumps({"task": said.get("task", "classification"), "model": "vanilla"}))
    (run / "history.csv").write_text("epoch,loss,val_loss,accuracy\n1,0.9,1.0,0.5\n2,0.5,0.7,0.75\n")
    (folder / "evaluation.json").write_text(json.dumps({"records": len(lines), **said}))
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def classified(dataset: hr.Dataset, run: Path) -> Path:
    """A run that takes every image of the split val for a bee."""
    lines, names = [], list(dataset.class_names)
    confusion = np.zeros((len(names), len(names)), int)
    for i, record in enumerate(dataset.split("val")):
        if record.label_name is None:
            continue
        right = record.label_name == "bee"
        confusion[names.index(record.label_name), names.index("bee")] += 1
        row = {"observed": record.label_name, "estimated": "bee", "probability": "0.900000"}
        lines.append({"id": record.id, "wrong": 0.1 if right else 0.5 + i / 100, "right": right, "rows": [row]})
    said = {"accuracy": 0.5, "class_names": names, "confusion": confusion.tolist()}
    made = judged(run, "cats-val", lines, task="classification", **said)
    doubted = [line["id"] for line in lines if not line["right"]][::-1][:3]
    table = "id,split,observed,estimated,probability,margin\n" + "".join(
        f"{id_},val,x,bee,0.1,0.8\n" for id_ in doubted
    )
    (made / "evaluations/cats-val/doubts.csv").write_text(f"{table}nobody,val,x,bee,0.1,0.8\n")
    return made
