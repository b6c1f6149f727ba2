"""Makes the pictures of the viewer in the documentation, by Chromium: python docs/figures/pages.py [FOLDER]

The dataset is the one that docs/tutorials/look-and-mend.md draws; what a run says of it is made up here.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

import headrace as hr  # noqa: E402
from browsing import Browser, browser  # noqa: E402
from headrace.viewing.serve import Viewer  # noqa: E402
from viewed import judged  # noqa: E402

PAGE = HERE.parent / "tutorials/look-and-mend.md"
WIDTH, HEIGHT = 1100, 700


def drawn(folder: Path) -> hr.Dataset:
    """The tutorial's harbour."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, {})
    finally:
        os.chdir(before)
    return hr.Dataset(folder / "harbour")


def asked(dataset: hr.Dataset, run: Path) -> Path:
    """A run that tells day from night by how bright the sky is, and is now and then unsure."""
    confusion, lines = [[0, 0], [0, 0]], []
    for k, record in enumerate(dataset.split("val")):
        bright = float(record.image[:90].mean()) / 255
        day = min(0.99, max(0.01, bright + (0.31 if k % 17 == 3 else 0) - (0.25 if k % 13 == 5 else 0)))
        estimated, observed = ("day" if day > 0.5 else "night"), record.label_name or ""
        confusion[observed == "night"][estimated == "night"] += 1
        row = {"observed": observed, "estimated": estimated, "probability": f"{max(day, 1 - day):.6f}"}
        wrong = 1 - (day if observed == "day" else 1 - day)
        lines.append({"id": record.id, "wrong": wrong, "right": observed == estimated, "rows": [row]})
    right = sum(bool(line["right"]) for line in lines)
    per_class = {}
    for i, name in enumerate(("day", "night")):
        hit, said, there = confusion[i][i], confusion[0][i] + confusion[1][i], sum(confusion[i])
        per_class[name] = {"precision": hit / max(1, said), "recall": hit / max(1, there), "n": there}
    said = {"accuracy": right / len(lines), "class_names": ["day", "night"], "confusion": confusion}
    judged(run, "harbour-val", lines, task="classification", per_class=per_class, **said)
    epochs = [(1.02 * 0.8**i + 0.06, 1.08 * 0.82**i + 0.1 + 0.02 * (i % 3)) for i in range(25)]
    rows = [f"{i + 1},{a:.4f},{b:.4f},{1 - a * 0.42:.4f},{1 - b * 0.42:.4f}" for i, (a, b) in enumerate(epochs)]
    (run / "history.csv").write_text("\n".join(["epoch,loss,val_loss,accuracy,val_accuracy", *rows]) + "\n")
    (run / "recipe.json").write_text(json.dumps({"task": "classification", "model": "vanilla"}))
    return run


def taken(page: Browser, path: Path) -> None:
    """A picture of what is seen, with few colours, so that the file is small."""
    page.until("[...document.querySelectorAll('.cell img')].every((one) => getComputedStyle(one).opacity === '1')")
    page.picture(path)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main(folder: Path) -> None:
    with TemporaryDirectory() as scratch, browser(WIDTH, HEIGHT) as page:
        dataset = drawn(Path(scratch))
        with Viewer(dataset, run=asked(dataset, Path(scratch) / "run")) as viewer:
            page.open(viewer.address.url)
            page.all_shown()
            taken(page, folder / "gallery.png")
            page.size(WIDTH, 1080)
            page.open(f"{viewer.address.url.partition('?')[0]}predictions")
            page.until("document.querySelectorAll('.row .cell img.there').length === 12")
            taken(page, folder / "predictions.png")
        with Viewer(dataset, edit=True) as viewer:
            page.size(WIDTH, HEIGHT)
            page.open(viewer.address.url)
            page.all_shown()
            tick = "document.querySelectorAll('.tick')[arguments[0]].click()"
            page.script(tick, 1)
            page.press("x")
            page.script(tick, 1)
            page.script(tick, 0)
            page.script(tick, 2)
            page.press("2")
            page.script("document.querySelector('#why').value = 'it was evening'")
            taken(page, folder / "mend.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "pages")
