"""The report: what stands in it, that nothing in it runs, and that it is one file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import headrace as hr
from command import headrace
from drawn import jpeg
from headrace.errors import StorageError, UsageError
from packed import flip, pack, photos, shard_of
from viewed import HOSTILE, classified, hostile, judged, patches, some

# What the page's own elements are; whatever else is there came out of the data.
ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "footer",
        "section",
        "div",
        "ul",
        "li",
        "h1",
        "h2",
        "h3",
    ),
    *("p", "b", "small", "span", "img", "table", "thead", "tr", "th", "td", "figure", "figcaption"),
    *("svg", "rect", "path", "text", "polyline"),
}
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "style",
        "alt",
        "src",
        "role",
        "aria-label",
        "scope",
    ),
    *("viewbox", "preserveaspectratio", "width", "height", "rx", "x", "y", "d", "points", "text-anchor"),
    *("stroke", "stroke-width", "stroke-linecap", "stroke-dasharray"),
}


class Read(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(path: Path) -> Read:
    page = Read(path.read_text())
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    sources = [attributes["src"] or "" for tag, attributes in page.elements if tag == "img"]
    assert all(re.match(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+$", source) for source in sources)
    policy = [attributes for tag, attributes in page.elements if attributes.get("http-equiv")]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return page


def test_what_a_dataset_holds(tmp_path: Path) -> None:
    ds = some(tmp_path / "cats")
    assert ds.report(tmp_path / "new" / "cats.html") == tmp_path / "new" / "cats.html"
    page = read(tmp_path / "new" / "cats.html")
    for said in (
        "cats",
        "24 records",
        "18 in train",
        "6 in val",
        "3 classes",
        f"{ds.manifest.boxes} boxes",
        "0 refused",
    ):
        assert said in page.text, said
    assert "Nothing was refused." in page.text
    for name, n in ds.class_counts.items():
        assert f"{name} {n}" in page.text
    samples = (tmp_path / "new" / "cats.html").read_text().partition("<h2>In numbers")[0]
    assert samples.count("<img") == sum(min(n, 6) for n in ds.class_counts.values())


def test_view_of_a_dataset(tmp_path: Path) -> None:
    ds = some(tmp_path / "cats").where("label = 1").split("val")
    page = read(ds.report(tmp_path / "bees.html"))
    assert f"{len(ds)} records" in page.text and "where label = 1" in page.text and "ant 0" in page.text


def test_what_a_run_says(tmp_path: Path) -> None:
    ds = some(tmp_path / "cats")
    page = read(ds.report(tmp_path / "cats.html", run=classified(ds, tmp_path / "run")))
    for said in (
        "The run run",
        "0.5000 accuracy",
        "Confusion",
        "Labels in doubt",
        "Worst",
        "Best",
        "validation 0.7",
        "ant → bee",
    ):
        assert said in page.text, said
    worst = page.text.index("Worst")
    wrong = [record.id for record in ds.split("val") if record.label_name in ("ant", "cow")]
    assert page.text.index(wrong[-1], worst) < page.text.index(wrong[0], worst)  # the last is furthest off


def test_boxes_that_a_run_found(tmp_path: Path) -> None:
    boxes = np.array([[2, 2, 12, 12], [20, 2, 30, 12]], np.float32)
    ds = pack([hr.Record(id="a", encoded=jpeg(), boxes=boxes, box_labels=("x", "x"))], tmp_path / "cats")
    row = dict(zip(("score", "x0", "y0", "x1", "y1", "class"), ("0.9", 2, 2, 12, 13, "x"), strict=True))
    run = judged(tmp_path / "run", "cats", [{"id": "a", "wrong": 1.0, "right": False, "rows": [row]}], ap50=0.5)
    page = read(ds.report(tmp_path / "cats.html", run=run))
    assert "1 of 2 found, 0 false" in page.text
    assert [a for tag, a in page.elements if tag == "rect" and a.get("stroke-dasharray")]  # the missed one


def test_names_are_text(tmp_path: Path) -> None:
    ds = hostile(tmp_path / "cats")
    names = list(HOSTILE)
    line = {"id": ds[0].id, "wrong": 1.0, "right": False, "rows": [{"observed": names[0], "estimated": names[1]}]}
    said = {"accuracy": 0.5, "class_names": names, "confusion": np.eye(len(names), dtype=int).tolist()}
    run = judged(tmp_path / "run", "cats", [line], **said)
    (run / "history.csv").write_text("epoch,<script>,val_<script>\n1,2,3\n")
    page = read(ds.report(tmp_path / "cats.html", run=run))  # which looks at elements and attributes
    for name in names:
        assert " ".join(name.split()) in page.text


def test_rejects_and_equal_images(tmp_path: Path) -> None:
    records: list[hr.Record | hr.Reject] = [
        hr.Record(id=f"{k}", encoded=patches(k % 2), label_name="ab"[k // 2]) for k in range(4)
    ]
    records += [hr.Reject(id="r", origin="list.txt:7", stage="read", reason="no such file")]
    ds = pack(records, tmp_path / "cats", max_rejects=1)
    page = read(ds.report(tmp_path / "cats.html"))
    assert "1 refused" in page.text and "list.txt:7" in page.text and "no such file" in page.text
    assert (
        "2 groups of images that are the same, 2 of them byte by byte: 0 in several splits, 2 with labels that"
        in page.text
    )


def test_nothing_occurs_twice(tmp_path: Path) -> None:
    ds = pack([hr.Record(id=f"{k}", encoded=patches(k)) for k in range(3)], tmp_path / "cats")
    assert "No image occurs a second time." in read(ds.report(tmp_path / "cats.html")).text


def test_damaged_record_says_so(tmp_path: Path) -> None:
    ds = pack(photos(3), tmp_path / "cats")
    path, number, offset, length = shard_of(ds, 1)
    flip(path, offset + 12 + length // 2)
    page = read(ds.report(tmp_path / "cats.html"))
    assert f"record {number}" in page.text
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 2


@pytest.mark.parametrize("kind", ["empty", "arrays", "kept", "values", "several"])
def test_other_datasets(tmp_path: Path, kind: str) -> None:
    pixels = np.zeros((6, 8, 8), np.uint8)
    made: hr.Dataset
    if kind == "empty":
        made = pack(photos(3), tmp_path / "cats").where("width > 99999")
    elif kind == "arrays":
        made = hr.ArrayDataset(pixels, [0, 1] * 3, class_names=["a", "b"])
    elif kind == "kept":
        made = hr.ArrayDataset(np.zeros((6, 7), np.float32), dtype="keep")
    elif kind == "values":
        made = hr.ArrayDataset(pixels, np.array([0.25, 1, 2, 3, 4.5, np.nan]), labels="value")
    else:
        made = hr.ArrayDataset(pixels, np.eye(6, 3, dtype=bool), class_names=["a", "b", "c"], labels="multi")
    page = read(made.report(tmp_path / "report.html"))
    assert f"{len(made)} records" in page.text


def test_command(tmp_path: Path) -> None:
    ds = some(tmp_path / "cats")
    out = tmp_path / "cats.html"
    said = headrace("report", f"{ds.path}:val", out, "--json")
    assert said.code == 0 and said.err == ""
    assert json.loads(said.out) == {"report": str(out), "records": 6, "bytes": out.stat().st_size, "run": None}
    assert headrace("report", ds.path, out).out.startswith(f"report: {out} (")
    refused = headrace("report", ds.path, tmp_path / "cats.pdf")
    assert refused.code == 2 and "wanted a name that ends with .html" in refused.err and refused.err.count("\n") == 1
    assert headrace("report", ds.path, out, "--run", tmp_path / "no").code == 2


def test_where_it_can_t_be_written(tmp_path: Path) -> None:
    ds = pack(photos(3), tmp_path / "cats")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        ds.report(tmp_path / "file" / "cats.html")
    with pytest.raises(UsageError):
        ds.report(tmp_path / "cats.txt")
    assert not (tmp_path / "cats.txt").exists()
