"""Seconds and memory of reading a large COCO JSON: by Headrace's source, by pycocotools, by datumaro.

    python benchmarks/import.py [--boxes 1000000] [--boxes-per-image 7] [--polygons 0.5] [--folder DIR]
                                [--datumaro PYTHON] [--arms headrace,pycocotools,datumaro] [--repeats 3] [--json FILE]

The file is written first, below DIR: so many boxes in random order of images, of 80 categories, a share of them with a
polygon of 4 to 40 corners, one in a hundred with run lengths of its own. Images are hard links to a few bytes: Headrace
looks whether each is there, and opens none; the others don't look.

Headrace: the source is read to its end, every Record with its boxes, masks and attributes made and forgotten; nothing
is packed. pycocotools: `COCO(file)`, which keeps all of it as Python objects. datumaro: `Dataset.import_from(folder,
"coco_instances")`, and every item of it looked at once; it runs in a Python of its own (`--datumaro`, the interpreter
of an environment that has it), and is skipped without one. A process per measurement, imports before its clock; memory
is what Linux says of the process (RssAnon), looked at every 10 ms, over what its imports take.

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from _measure import Arm, Job, Result, child, clocked, facts, grown, markdown, publish, rounds, skipped

SIDE = 640  # pixels of an image
CATEGORIES = 80
LINKS = 10_000  # to one file: file systems allow some ten thousand

# What the other interpreter runs: it knows nothing of this project.
DATUMARO = """
import json, sys, threading, time
from pathlib import Path
from datumaro import Dataset

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon"))

before, peak, over = held(), 0.0, threading.Event()

def watch():
    global peak
    while not over.wait(0.01):
        peak = max(peak, held())

watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
begin = time.perf_counter()
dataset = Dataset.import_from(sys.argv[1], "coco_instances")
images = boxes = 0
for item in dataset:
    images += 1
    boxes += len(item.annotations)
seconds = time.perf_counter() - begin
after = held()
over.set()
watcher.join()
print(json.dumps({"images": images, "boxes": boxes, "seconds": seconds,
                  "before_mb": round(before, 1), "peak_mb": round(max(peak, after) - before, 1)}))
"""


def write(folder: Path, boxes: int, per_image: int, polygons: float) -> Path:
    """Writes the JSON where datumaro looks for it, and the folder of images beside it; says where it is."""
    draw = random.Random(0)
    images = max(1, boxes // per_image)
    path = folder / "annotations" / "instances_train.json"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write('{"info": {"year": 2026}, "licenses": [], "images": [\n')
        for i in range(images):
            row = f'{{"id": {i}, "file_name": "{i:012d}.jpg", "width": {SIDE}, "height": {SIDE}}}'
            file.write(row + (",\n" if i + 1 < images else "\n"))
        file.write('], "annotations": [\n')
        for i in range(boxes):
            x, y = draw.randrange(SIDE // 2), draw.randrange(SIDE // 2)
            w, h = draw.randint(1, SIDE // 2), draw.randint(1, SIDE // 2)
            crowd, segmentation = 0, "[]"
            if draw.random() < 0.01:
                crowd = 1
                segmentation = f'{{"size": [{SIDE}, {SIDE}], "counts": [{x}, {SIDE * SIDE - x}]}}'
            elif draw.random() < polygons:
                corners = draw.randint(4, 40)
                numbers = (
                    f"{start + draw.random() * side:.2f}" for _ in range(corners) for start, side in ((x, w), (y, h))
                )
                segmentation = f"[[{', '.join(numbers)}]]"
            row = (
                f'{{"id": {i + 1}, "image_id": {draw.randrange(images)}, "category_id": {draw.randint(1, CATEGORIES)}, '
                f'"bbox": [{x}, {y}, {w}, {h}], "area": {w * h}, "iscrowd": {crowd}, "segmentation": {segmentation}}}'
            )
            file.write(row + (",\n" if i + 1 < boxes else "\n"))
        categories = [{"id": c + 1, "name": f"class {c}"} for c in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(categories)}}}\n')
    there = folder / "images" / "train"
    there.mkdir(parents=True)
    for i in range(images):
        made = there / f"{i:012d}.jpg"
        if i % LINKS == 0:
            made.write_bytes(b"\xff\xd8\xff")
        else:
            made.hardlink_to(there / f"{i - i % LINKS:012d}.jpg")
    return path


def headrace(job: Job) -> Result:
    from headrace.record import Record
    from headrace.sources import coco

    def work() -> tuple[Result, Any]:
        images = boxes = masks = 0
        begin = time.perf_counter()
        for item in coco(job["path"], images=job["images"]):
            assert isinstance(item, Record) and item.boxes is not None
            images += 1
            boxes += len(item.boxes)
            masks += sum(mask is not None for mask in item.masks or ())
        return {"images": images, "boxes": boxes, "masks": masks, "seconds": time.perf_counter() - begin}, None

    return grown(work)


def pycocotools(job: Job) -> Result:
    from pycocotools.coco import COCO

    def work() -> tuple[Result, Any]:
        begin = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            made = COCO(job["path"])
        seconds = time.perf_counter() - begin
        return {"images": len(made.imgs), "boxes": len(made.anns), "seconds": seconds}, made

    return grown(work)


def datumaro(job: Job) -> Result:
    answer: Result = {}

    def work() -> int:
        command = [job["datumaro"], "-c", DATUMARO, job["folder"]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        answer.update(json.loads(done.stdout.splitlines()[-1]))
        return 1

    others = clocked(work)["others"]
    return answer | {"others": others}


ARMS = {
    "headrace": Arm(what="the source read to its end, masks and all", measure=headrace),
    "pycocotools": Arm(what="COCO(file)", measure=pycocotools, needs=("pycocotools",)),
    "datumaro": Arm(what='Dataset.import_from(folder, "coco_instances"), every item seen once', measure=datumaro),
}


def told(result: Result) -> str:
    return f"{result['seconds']:8.1f} s  {result['peak_mb']:8.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--boxes-per-image", type=int, default=7)
    parser.add_argument("--polygons", type=float, default=0.5, help="the share of boxes with a polygon")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--datumaro", metavar="PYTHON", help="an interpreter that has datumaro")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    report = facts("import")
    asked = args.arms.split(",")
    report["skipped"] = {arm: why for arm, why in skipped(ARMS).items() if arm in asked}
    if "datumaro" in asked and args.datumaro is None:
        report["skipped"]["datumaro"] = "no interpreter that has it; pass --datumaro PYTHON"
    arms = [arm for arm in asked if arm not in report["skipped"]]
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        path = write(Path(scratch), args.boxes, args.boxes_per_image, args.polygons)
        size = path.stat().st_size
        job: Job = {
            "path": str(path),
            "images": str(Path(scratch, "images", "train")),
            "folder": scratch,
            "datumaro": args.datumaro,
        }
        report["job"] = {
            "boxes": args.boxes,
            "MB": round(size / 1e6),
            "polygons": args.polygons,
            "repeats": args.repeats,
        }
        results = rounds(arms, job, args.repeats, told)
    # datumaro makes two annotations of an object with a polygon.
    wrong = [arm for arm, of_arm in results.items() for result in of_arm if result["boxes"] < args.boxes]
    if wrong:
        raise SystemExit(f"not all of {args.boxes} boxes were read by {', '.join(wrong)}: {results[wrong[0]][0]}")
    report["arms"] = {
        arm: {
            "what": ARMS[arm].what,
            "seconds": median(result["seconds"] for result in of_arm),
            "peak_mb": max(result["peak_mb"] for result in of_arm),
            "others": max(result["others"] for result in of_arm),
            "measurements": of_arm,
        }
        for arm, of_arm in results.items()
    }
    table = markdown(
        ("arm", "s", "lowest - highest", "MB at most", "others' cores", "what"),
        [
            (
                arm,
                f"{of_arm['seconds']:.1f}",
                f"{min(r['seconds'] for r in results[arm]):.1f} - {max(r['seconds'] for r in results[arm]):.1f}",
                f"{of_arm['peak_mb']:.0f}",
                f"{of_arm['others']:.2f}",
                of_arm["what"],
            )
            for arm, of_arm in report["arms"].items()
        ],
    )
    publish(report, table, args.json)


if __name__ == "__main__" and not child(ARMS):
    main()
