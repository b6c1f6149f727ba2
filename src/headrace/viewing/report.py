"""The report: what a dataset holds, and what a run makes of it, in one HTML file without scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import order
from headrace.errors import DamageError, StorageError, UsageError
from headrace.load.dataset import Dataset
from headrace.place import local
from headrace.place.local import explained
from headrace.place.publish import write_atomic
from headrace.version import __version__
from headrace.viewing import charts, pictures, rejects
from headrace.viewing.cells import cells
from headrace.viewing.charts import text
from headrace.viewing.groups import groups, is_quick
from headrace.viewing.measures import measures
from headrace.viewing.query import Boxes
from headrace.viewing.runs import Evaluation, Judged, Run

_SAMPLES, _CLASSES = 6, 30  # of a class, and of how many
_EVENLY = 24  # samples of a dataset without classes
_GROUPS, _OF_GROUP = 12, 6
_REJECTS = 40
_ENDS = 12  # records that a run is best and worst at
_SIDE = 128
_MOST_FIGURE = 1 << 22  # bytes

_COLOURS = (
    "#12a96e",
    "#e08600",
    "#2b7fd6",
    "#d6334a",
    "#b89400",
    "#8a4bd1",
    "#0e9fa6",
    "#d65a98",
    "#8f5f3a",
    "#769c22",
)


def report(dataset: Dataset, out: Path, *, run: Path | None = None) -> Path:
    """Writes the report of a dataset, or of a view of one, to `out`, which it gives back.

    Raises UsageError (no name of an HTML file, no run), NotThereError, DamageError, StorageError.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: wanted a name that ends with .html")
    made = Run(run) if run is not None else None
    boxes = Boxes.of(dataset) if dataset.has_boxes else None
    parts = [
        _head(dataset),
        _samples(dataset),
        _section(
            "In numbers",
            _grid(f"<h3>{text(one['title'])}</h3>{charts.bars(one)}" for one in measures(dataset, dataset.rows, boxes)),
        ),
        _rejects(dataset),
        _duplicates(dataset),
        "" if made is None else _run(dataset, made),
    ]
    page = _PAGE.format(title=text(dataset.title), style=_STYLE, body="\n".join(parts), version=text(__version__))
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page.encode("utf-8", "backslashreplace"))
    return out


def _head(dataset: Dataset) -> str:
    promised, store = dataset.manifest, dataset.store
    facts: list[tuple[str, object]] = [("records", len(dataset))]
    facts += [(f"in {name}", n) for name, n in dataset.splits.items() if len(dataset.splits) > 1]
    if dataset.class_names:
        facts.append(("classes", len(dataset.class_names)))
    if dataset.has_boxes:
        facts.append(("boxes", int(store.box_counts(dataset.rows).sum())))
    if dataset.has_keypoints:
        facts.append((f"sets of {dataset.keypoints} keypoints", store.keypoint_sets(dataset.rows)))
    facts.append(("refused", promised.rejected))
    tiles = "".join(f"<li><b>{n:,}</b> {text(name)}</li>" for name, n in facts)
    return (
        f"<header><h1>{text(dataset.title)}</h1><p>{text(dataset.path)}</p>"
        f'<ul class="tiles">{tiles}</ul><p class="code">fingerprint {text(dataset.view_fingerprint)}</p></header>'
    )


def _samples(dataset: Dataset) -> str:
    if dataset.keeps or not len(dataset):
        return ""
    if not dataset.class_names:
        return _section("Samples", _images(dataset, dataset.rows[order.evenly(len(dataset), _EVENLY)]))
    rows, parts = dataset.rows, []
    counts = list(dataset.class_counts.items())
    for number in np.argsort([-n for _, n in counts], kind="stable")[:_CLASSES].tolist():
        name, n = counts[number]
        has = dataset.store.several(rows)[:, number] if dataset.multi_label else dataset.store.labels[rows] == number
        mine = rows[has]
        parts.append(
            f'<div class="class"><h3>{text(name)} <span>{n:,}</span></h3>'
            f"{_images(dataset, mine[order.evenly(len(mine), _SAMPLES)])}</div>"
        )
    more = f"<p>and {len(counts) - _CLASSES:,} classes more</p>" if len(counts) > _CLASSES else ""
    return _section("Samples of each class", "".join(parts) + more)


def _images(dataset: Dataset, rows: NDArray[np.int64], judged: Judged | None = None) -> str:
    return f'<ul class="images">{"".join(_image(dataset, cell) for cell in cells(dataset, rows, judged))}</ul>'


def _image(dataset: Dataset, cell: dict[str, Any]) -> str:
    width, height = cell["width"], cell["height"]
    try:
        data = base64.b64encode(pictures.thumbnail(dataset, cell["row"], _SIDE)).decode()
        drawn = f'<img alt="" src="data:image/jpeg;base64,{data}">{_overlay(cell)}'
    except (DamageError, StorageError, UsageError) as error:
        drawn = f'<span class="damaged">{text(error)}</span>'
    scale = _SIDE / max(width, height, 1)
    size = f"width:{max(2, width * scale):.0f}px;height:{max(2, height * scale):.0f}px"
    said = cell.get("said")
    caption = text(_judgement(said, cell) if said else ", ".join(cell.get("labels") or ()))
    kind = {True: " class='right'", False: " class='wrong'"}.get(said["right"], "") if said else ""
    return (
        f'<li><div class="frame"><div class="fit" style="{size}">{drawn}</div></div>'
        f"<b{kind}>{caption}</b><small>{text(cell['id'])}</small></li>"
    )


def _overlay(cell: dict[str, Any]) -> str:
    said = cell.get("said") or {}
    shapes = []
    if "found" in said:
        missed = set(said["missed"])
        shapes += [_rectangle(box, "#e08600", "4 3") for i, box in enumerate(cell["boxes"]) if i in missed]
        shapes += [_rectangle(box, "#12a96e" if box[6] else "#d62e7a") for box in said["found"]]
    else:
        shapes += [_rectangle(box, _COLOURS[box[4] % len(_COLOURS)]) for box in cell.get("boxes", ())]
        shapes += [
            f'<path d="M{x} {y}h.01" stroke="{_COLOURS[k % len(_COLOURS)]}" stroke-width="5" stroke-linecap="round"/>'
            for points in cell.get("points", ())
            for k, (x, y, v) in enumerate(points)
            if v
        ]
    if not shapes:
        return ""
    view = f"0 0 {cell['width']} {cell['height']}"
    return f'<svg class="over" viewBox="{view}" preserveAspectRatio="none">{"".join(shapes)}</svg>'


def _rectangle(box: Sequence[float], colour: str, dashes: str = "") -> str:
    x0, y0, x1, y1 = box[:4]
    size = f'x="{x0:g}" y="{y0:g}" width="{max(0.0, x1 - x0):g}" height="{max(0.0, y1 - y0):g}"'
    return f'<rect {size} stroke="{colour}"{f" stroke-dasharray={chr(34)}{dashes}{chr(34)}" if dashes else ""}/>'


def _judgement(said: dict[str, Any], cell: dict[str, Any]) -> str:
    if "found" in said:
        right = sum(bool(box[6]) for box in said["found"])
        return f"{right} of {len(cell['boxes'])} found, {len(said['found']) - right} false"
    row = said["rows"][0] if said["rows"] else {}
    if "estimated" in row:
        return f"{row.get('observed') or 'none'} → {row['estimated'] or 'none'}"
    return "" if said["wrong"] is None else f"off by {said['wrong']:.3g}"


def _rejects(dataset: Dataset) -> str:
    known = rejects.rejects_of(dataset)
    if not known:
        return _section("Rejects", "<p>Nothing was refused.</p>")
    kinds = charts.table(
        [(kind["count"], kind["stage"], kind["reason"]) for kind in rejects.kinds(known)], ("images", "stage", "reason")
    )
    first = charts.table(
        [(one.id, one.stage, one.reason, one.origin) for one in known[:_REJECTS]], ("id", "stage", "reason", "origin")
    )
    shown = f"<h3>{'All' if len(known) <= _REJECTS else f'The first {_REJECTS}'}</h3>"
    return _section("Rejects", kinds + shown + first)


def _duplicates(dataset: Dataset) -> str:
    if not is_quick(dataset):
        return _section("Duplicates", "<p>Not looked for: the catalog doesn't say how its images look.</p>")
    found = groups(dataset)
    if not found:
        return _section("Duplicates", "<p>No image occurs a second time.</p>")
    across, contradicting = sum(group.splits for group in found), sum(group.labels for group in found)
    equal = sum(group.kind == "equal" for group in found)
    said = (
        f"<p>{len(found):,} groups of images that are the same, {equal:,} of them byte by byte: {across:,} in several "
        f"splits, {contradicting:,} with labels that contradict.</p>"
    )
    shown = "".join(_images(dataset, group.rows[:_OF_GROUP]) for group in found[:_GROUPS])
    return _section("Duplicates", f'{said}<div class="groups">{shown}</div>')


def _run(dataset: Dataset, run: Run) -> str:
    history = run.history()
    names = dict.fromkeys(name.removeprefix("val_") for name in history)
    drawn = [
        charts.curves(
            name,
            {
                part: history[column]
                for part, column in (("train", name), ("validation", f"val_{name}"))
                if history.get(column)
            },
        )
        for name in names
        if name not in ("epoch", "seconds", "learning_rate")
    ]
    parts = [_grid(drawn)] if drawn else []
    parts += [_evaluation(dataset, one) for one in run.evaluations()]
    if not run.evaluations():
        parts.append("<p>It has not been evaluated: headrace evaluate RUN DS.</p>")
    return _section(f"The run {run.folder.name}", "".join(parts))


def _evaluation(dataset: Dataset, one: Evaluation) -> str:
    tiles = "".join(f"<li><b>{text(value)}</b> {text(name)}</li>" for name, value in one.headline())
    parts = [f"<h3>Evaluated: {text(one.name)}</h3>", f'<ul class="tiles">{tiles}</ul>']
    names, matrix = one.said.get("class_names"), one.said.get("confusion")
    if isinstance(names, list) and isinstance(matrix, list) and len(names) <= _CLASSES:
        rows = [(name, *counts) for name, counts in zip(names, matrix, strict=False) if isinstance(counts, list)]
        parts.append(f"<h3>Confusion</h3>{charts.table(rows, ('observed ↓ estimated →', *names))}")
    parts += [
        figure for name in one.said.get("figures") or () if (figure := _figure(one.folder / Path(str(name)).name))
    ]
    if dataset.has_boxes:
        parts.append("<p>Green boxes are found, dashed orange ones missed, pink ones false.</p>")
    try:
        judged = Judged(dataset, one.folder)
    except UsageError:  # an evaluation that said nothing of single records
        return "".join(parts)
    known = judged.rows[~np.isnan(judged.wrong)]
    if dataset.is_view:
        known = known[np.isin(known, dataset.rows)]
    if len(judged.doubts) and not dataset.keeps:
        parts.append(f"<h3>Labels in doubt</h3>{_images(dataset, judged.doubts[:_ENDS], judged)}")
    if len(known) and not dataset.keeps:
        by = known[np.argsort(-judged.wrong_of(known), kind="stable")]
        parts.append(f"<h3>Worst</h3>{_images(dataset, by[:_ENDS], judged)}")
        parts.append(f"<h3>Best</h3>{_images(dataset, by[::-1][:_ENDS], judged)}")
    return "".join(parts)


def _figure(path: Path) -> str:
    """A figure that the evaluation drew; nothing where it is no PNG."""
    try:
        data = local.content(path, _MOST_FIGURE)
    except OSError:
        return ""
    if path.name in ("confusion.png", "examples.png") or not data.startswith(b"\x89PNG"):  # a table and images say it
        return ""
    return f'<img class="figure" alt="{text(path.stem)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{text(title)}</h2>{inside}</section>"


def _grid(parts: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #66717a; --line: #e2ded7; --paper: #fff; --sunk: #f3f1ed; --accent: #0f766e; }
@media (prefers-color-scheme: dark) and (not print) {
  :root { --ink: #e6ebed; --soft: #93a0a7; --line: #273034; --paper: #0e1315; --sunk: #1c2427; --accent: #5bc8ba; }
}
body { max-width: 1040px; margin: 0 auto; padding: 40px 24px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 "Inter", "Segoe UI", system-ui, "Noto Sans", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 30px; letter-spacing: -.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; letter-spacing: -.01em; margin: 48px 0 12px; border-top: 1px solid var(--line); padding-top: 20px; }
h3 { font-size: 14px; margin: 18px 0 8px; } h3 span { color: var(--soft); font-weight: 400; }
p { margin: 4px 0; overflow-wrap: anywhere; } header p, .code, small { color: var(--soft); }
.code { font: 11.5px ui-monospace, Menlo, Consolas, monospace; }
ul { list-style: none; margin: 0; padding: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 14px 0; color: var(--soft); } .tiles b { font-size: 20px; color: var(--ink); }
.images { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 14px; }
.images li { width: 128px; break-inside: avoid; line-height: 1.25; } .images b, .images small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 12.5px; }
.images small { font-size: 11px; direction: ltr; } .right { color: #16794a; } .wrong { color: #c0354b; }
.frame { width: 128px; height: 128px; display: grid; place-items: center; background: var(--sunk); border-radius: 8px; overflow: hidden; margin-bottom: 4px; }
.fit { position: relative; } .fit img { display: block; width: 100%; height: 100%; image-orientation: none; }
.over { position: absolute; inset: 0; width: 100%; height: 100%; } .over * { fill: none; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.damaged { display: block; font-size: 10px; overflow: hidden; height: 100%; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 8px 32px; } .grid > div { break-inside: avoid; min-width: 0; }
.groups { display: flex; flex-wrap: wrap; gap: 8px 36px; }
.chart { width: 100%; fill: var(--accent); } .chart text { font-size: 11px; fill: var(--soft); }
.chart polyline { fill: none; stroke-width: 2; } .line-0 { stroke: var(--soft); } .line-1 { stroke: var(--accent); } .key-0 { color: var(--soft); } .key-1 { color: var(--accent); }
figure { margin: 0; } figcaption { font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; margin: 6px 0; } td, th { text-align: left; padding: 3px 14px 3px 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; vertical-align: top; }
td.n { text-align: right; } thead th { color: var(--soft); border: 0; }
.bars { width: 100%; } .bars th { font-weight: 400; width: 34%; } .bars td, .bars th { border: 0; vertical-align: middle; } .bars .bar svg { width: 100%; height: 10px; fill: var(--accent); }
.figure { display: block; max-width: min(100%, 620px); margin: 10px 0; border-radius: 8px; background: #fff; }
footer { margin-top: 60px; color: var(--soft); font-size: 12.5px; }
@media print { body { padding: 0; max-width: none; } h2 { break-after: avoid; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""  # noqa: E501

# The policy says what is so anyway: nothing is run, and nothing fetched.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<footer>Made by headrace {version}.</footer>
</body>
</html>
"""
