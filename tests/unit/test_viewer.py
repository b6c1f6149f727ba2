"""The viewer's server, asked over its socket: who may ask, what is answered, and what becomes of bad data."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from PIL import Image

import headrace as hr
from browsing import Client
from command import headrace
from drawn import jpeg, picture, saved
from foreign import payload, write
from headrace.errors import MissingExtraError, NotThereError, UsageError
from headrace.viewing import groups
from headrace.viewing.measures import measures
from headrace.viewing.query import Boxes
from packed import flip, pack, photos, shades, shard_of
from viewed import classified, judged, patches, some

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'headrace[view]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'headrace[view]'")

from headrace.viewing.serve import Viewer


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return some(tmp_path_factory.mktemp("viewer") / "cats")


@pytest.fixture(scope="module")
def ask(ds: hr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    run = classified(ds, tmp_path_factory.mktemp("viewer") / "run")
    with Viewer(ds, run=run) as viewer:
        yield Client(viewer.address.url).enter()


def entered(dataset: hr.Dataset, **options: object) -> tuple[Viewer, Client]:
    viewer = Viewer(dataset, **options)  # type: ignore[arg-type]
    viewer.start()
    return viewer, Client(viewer.address.url).enter()


# Who may ask.


def test_without_the_token_nothing_is_told(ask: Client) -> None:
    stranger = Client(f"http://127.0.0.1:{ask.port}/?token=")
    for path in ("", "api/dataset", "static/app.js", "thumbnail/0", "image/0", "?token=", "?token=wrong", "nothing"):
        assert stranger(path).status == 403, path
    assert stranger("api/reopen", method="POST", Origin=f"http://127.0.0.1:{ask.port}").status == 403
    stranger.cookie = (ask.cookie or "").partition("=")[0] + "=" + "x" * 43
    assert stranger("api/dataset").status == 403
    stranger.cookie = "a=b; \x80=\xff"
    assert stranger("api/dataset").status == 403
    assert ask("api/dataset").status == 200


def test_token_becomes_a_cookie_that_no_script_and_no_other_site_has(ask: Client) -> None:
    token = ask.query.removeprefix("token=")
    assert len(token) >= 43  # 32 bytes in base64
    answer = Client(f"http://127.0.0.1:{ask.port}/?{ask.query}")(f"classes?split=val&{ask.query}&where=width+%3E+3")
    assert answer.status == 303 and answer.headers["location"] == "./classes?split=val&where=width+%3E+3"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and token.lower() not in cookie


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("[::1]", 200),
        ("cats.example", 200),  # allowed
        ("evil.example", 400),  # a name that somebody makes point here
        ("127.0.0.1.evil.example", 400),
        ("10.0.0.7", 400),  # an address of another machine
        ("", 400),
        ("[", 400),
    ],
)
def test_host(ds: hr.Dataset, host: str, status: int) -> None:
    viewer, ask = entered(ds, allow_hosts=["Cats.example"])
    with viewer:
        assert ask("api/state", Host=host).status == status
        assert ask("api/state", Host=f"{host}:{ask.port}").status == status


def test_what_changes_anything_is_asked_by_our_pages_alone(ds: hr.Dataset) -> None:
    viewer, ask = entered(ds, allow_hosts=["cats.example"])
    with viewer:
        for origin, status in (
            (f"http://127.0.0.1:{ask.port}", 200),
            ("https://cats.example", 200),  # a proxy
            ("https://evil.example", 403),
            (f"http://127.0.0.1:{ask.port + 1}", 403),  # another server of this machine
            (f"http://localhost:{ask.port}", 403),  # the request went to another name
            ("null", 403),
            ("", 403),
        ):
            assert ask("api/reopen", method="POST", Origin=origin).status == status, origin
        assert ask("api/reopen", method="POST").status == 403
        assert ask("api/reopen").status == 405
        assert ask("api/dataset", method="POST", Origin=f"http://127.0.0.1:{ask.port}").status == 405


@pytest.mark.parametrize(
    "path", ["", "record?id=x", "api/dataset", "static/app.js", "thumbnail/0", "nothing", "api/record?id=x"]
)
def test_every_answer_says_what_a_page_may_do(ask: Client, path: str) -> None:
    for client in (ask, Client(f"http://127.0.0.1:{ask.port}/")):
        said = client(path).headers
        policy = said["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "script-src" not in policy
        assert (said["x-content-type-options"], said["referrer-policy"]) == ("nosniff", "no-referrer")


TRAVERSALS = (
    "static/../server.py",
    "static/%2e%2e/server.py",
    "static/..%2fserver.py",
    "../../../../etc/passwd",
    "static//etc/passwd",
    "static/%00",
    "thumbnail/../image/0",
)


@pytest.mark.parametrize(
    "path",
    [
        *TRAVERSALS,
        *(f"thumbnail/{row}" for row in ("-1", "99", "1.5", "9" * 30)),
        "left/0",
        "api",
        "api/",
        "static",
        "static/",
    ],
)
def test_what_is_not_there(ask: Client, path: str) -> None:
    assert ask(path).status == 404


# What is answered.


def test_pages_are_the_same_file_and_name_nothing_elsewhere(ask: Client) -> None:
    page = ask("").body.decode()
    assert all(
        ask(name).body.decode() == page for name in ("record", "classes", "rejects", "predictions", "duplicates")
    )
    assert "://" not in page and 'href="/' not in page and 'src="/' not in page  # a proxy may shift it
    assert ask("favicon.ico").headers["content-type"].startswith("image/svg")


WIDE = "width > 40"
JUDGED = {"evaluation": "cats-val"}


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, lambda r: True),
        ({"split": "val"}, lambda r: r.split == "val"),
        ({"label": "bee"}, lambda r: r.label_name == "bee"),
        ({"box": "right"}, lambda r: "right" in r.box_labels),
        ({"box_min": "9.5"}, lambda r: any(side(box) >= 9.5 for box in r.boxes)),
        ({"box_max": "8"}, lambda r: any(side(box) < 8 for box in r.boxes)),
        ({"box_min": "9", "box_max": "9.001"}, lambda r: any(side(box) == 9 for box in r.boxes)),  # its end is outside
        ({"box_min": "8.999", "box_max": "9"}, lambda r: any(8.999 <= side(box) < 9 for box in r.boxes)),
        # of one and the same box
        ({"box": "left", "box_max": "8"}, lambda r: any(side(b) < 8 for b in r.boxes[::2])),
        ({"find": "/01"}, lambda r: "/01" in r.id),
        ({"find": "PNG"}, lambda r: r.id.endswith("png")),
        ({"find": "%"}, lambda r: False),  # no wildcard
        ({"where": WIDE}, lambda r: r.width > 40),
        ({"where": WIDE, "split": "val", "label": "ant"}, lambda r: r.width > 40 and r.split == "val" and r.label == 0),
        ({"where": "label IS NULL"}, lambda r: r.label is None),
        ({"where": "ARRAY_LENGTH(boxes) > 2"}, lambda r: len(r.boxes) > 2),
        ({"evaluation": "cats-val"}, lambda r: r.split == "val" and r.label is not None),
        ({**JUDGED, "observed": "ant", "estimated": "bee"}, lambda r: (r.split, r.label_name) == ("val", "ant")),
        ({**JUDGED, "outcome": "right"}, lambda r: (r.split, r.label_name) == ("val", "bee")),
        ({**JUDGED, "outcome": "wrong"}, lambda r: r.split == "val" and r.label_name in ("ant", "cow")),
        ({**JUDGED, "where": WIDE}, lambda r: r.split == "val" and r.label is not None and r.width > 40),
    ],
)  # fmt: skip
def test_filters(ds: hr.Dataset, ask: Client, asked: dict[str, str], fits: Callable[[hr.Record], bool]) -> None:
    said = ask(f"api/records?{urlencode(asked)}").json
    wanted = [record.id for record in ds if fits(record)]
    assert sorted(cell["id"] for cell in said["cells"]) == sorted(wanted) and said["total"] == len(wanted)


def side(box: np.ndarray) -> float:
    return float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("id", lambda r: r.id),
        ("width", lambda r: r.width),
        ("-height", lambda r: -r.height),
        ("-pixels", lambda r: -r.width * r.height),
        ("-boxes", lambda r: -len(r.boxes)),
        ("-largest", lambda r: -max(map(side, r.boxes), default=-np.inf)),
        ("smallest", lambda r: min(map(side, r.boxes), default=np.inf)),
        ("label", lambda r: np.inf if r.label is None else r.label),
        ("-label", lambda r: np.inf if r.label is None else -r.label),  # what has none is last both ways
    ],
)
def test_sorts_are_stable(ds: hr.Dataset, ask: Client, sort: str, key: Callable[[hr.Record], float]) -> None:
    said = ask(f"api/records?sort={sort}").json
    assert [cell["id"] for cell in said["cells"]] == [record.id for record in sorted(ds, key=key)]


def test_cells_say_what_is_drawn(ds: hr.Dataset, ask: Client) -> None:
    for cell in ask("api/records").json["cells"]:
        record = ds[cell["id"]]
        assert (cell["width"], cell["height"], cell["split"]) == (record.width, record.height, record.split)
        assert cell.get("labels") == (None if record.label_name is None else [record.label_name])
        assert np.allclose([box[:4] for box in cell["boxes"]] or np.zeros((0, 4)), record.boxes, atol=0.06)
        assert [ds.box_class_names[box[4]] for box in cell["boxes"]] == list(record.box_labels or ())
    part = ask("api/records?first=20&n=3").json
    assert [cell["row"] for cell in part["cells"]] == [20, 21, 22] and part["total"] == len(ds)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("api/records?split=test", "no split 'test'; there are train, val"),
        ("api/records?label=dragon", "no class 'dragon'; there are ant, bee, cow"),
        ("api/records?box=dragon", "no class of boxes"),
        ("api/records?box_min=x", "box_min is 'x'"),
        ("api/records?box_max=nan", "box_max is 'nan'"),
        ("api/records?sort=beauty", "sort is 'beauty'"),
        ("api/records?sort=wrong", "evaluation"),
        ("api/records?evaluation=../../etc", "no evaluation"),
        ("api/records?evaluation=cats-val&outcome=perhaps", "outcome is"),
        ("api/records?first=-1", "first is '-1'"),
        ("api/records?n=501", "wanted a whole number from 0 to 500"),
        ("api/records?n=" + "9" * 5000, "wanted a whole number"),
        ("api/records?where=" + quote("colour = 3"), "the columns are"),
        ("api/records?where=" + quote("width >"), "where("),
        # what would open files or sockets
        ("api/records?where=" + quote("id IN (SELECT id FROM read_csv('/etc/hostname'))"), "belongs to a query"),
        ("api/records?where=" + quote("id IN (FROM read_csv('x'))"), "belongs to a query"),
        ("api/records?where=" + quote("read_parquet('http://127.0.0.1:1')"), "belongs to a query"),
        ("api/measures?where=" + quote("width > 3 -- and so on"), "comment"),
        ("api/record?id=dir&where=" + quote("scan_csv('x')"), "belongs to a query"),
        ("api/damage?row=x", "row is"),
    ],
)  # fmt: skip
def test_what_can_t_be_asked_is_said(ask: Client, path: str, says: str) -> None:
    answer = ask(path)
    assert answer.status == 400 and says in answer.json["error"]


def test_record(ds: hr.Dataset, ask: Client) -> None:
    record = ds["dir/003.png"]
    said = ask(f"api/record?{urlencode({'id': record.id, 'where': WIDE, 'sort': 'id'})}").json
    row = ds.catalog.filter(ds.catalog["id"] == record.id).row(0, named=True)
    assert said["facts"]["shard"] == row["shard"] and said["facts"]["offset"] == row["offset"]
    assert said["facts"]["origin"] == "list.txt:4" and said["attributes"] == {"k": 3}
    assert [one["name"] for one in said["objects"]] == list(record.box_labels or ())
    assert str(ds.path / row["shard"]) in said["address"]
    assert (record.width > 40) == (said["position"] is not None)
    inside = sorted(r.id for r in ds if r.width > 40)
    first = ask(f"api/record?{urlencode({'id': inside[1], 'where': WIDE, 'sort': 'id'})}").json
    assert (first["previous"], first["next"], first["position"], first["total"]) == (
        inside[0],
        inside[2],
        1,
        len(inside),
    )
    missing = ask("api/record?id=nobody")
    assert missing.status == 404 and "nobody" in missing.json["error"]


def test_attributes_of_boxes_stand_with_their_boxes(tmp_path: Path) -> None:
    attributes = {"pose": ["left", None], "truncated": [1, 0], "weather": "rain", "other": [1, 2, 3]}
    boxes = np.array([[2, 2, 12, 12], [20, 2, 30, 12]], np.float32)
    record = hr.Record(id="a", encoded=jpeg(), boxes=boxes, box_labels=("x", "x"), attributes=attributes)
    viewer, ask = entered(pack([record], tmp_path / "cats"))
    with viewer:
        said = ask("api/record?id=a").json
    assert [one["attributes"] for one in said["objects"]] == [{"truncated": 1, "pose": "left"}, {"truncated": 0}]
    assert said["attributes"] == {"weather": "rain", "other": [1, 2, 3]}


def test_images(ds: hr.Dataset, ask: Client) -> None:
    for row, record in enumerate(ds):
        whole = ask(f"image/{row}")
        assert whole.body == record.encoded and whole.headers["content-type"] == f"image/{record.format}"
        small = ask(f"thumbnail/{row}?side=16")
        made = Image.open(io.BytesIO(small.body))
        assert made.format == "JPEG" and max(made.size) == 16 and (made.mode == "L") == (record.channels == 1)
        scale = 16 / max(record.width, record.height)
        wanted = Image.fromarray(record.image.squeeze()).convert("RGB").resize(made.size, Image.Resampling.BOX)
        assert abs(np.asarray(made.convert("RGB"), float) - np.asarray(wanted, float)).mean() < 12
        assert abs(made.width - record.width * scale) < 1
    lasting = ask(f"thumbnail/0?v={ds.fingerprint[:12]}").headers["cache-control"]
    assert "immutable" in lasting and ask("thumbnail/0?v=another").headers["cache-control"] == "no-store"
    assert ask("thumbnail/0?side=100000").status == 400


def test_image_that_browsers_don_t_show_is_sent_as_png(tmp_path: Path) -> None:
    tiff = saved(picture(20, 30), "TIFF")
    write(tmp_path / "in" / "a.tfrecord", [payload(image__encoded=tiff, image__filename="a.tiff")])
    hr.adopt(tmp_path / "in", tmp_path / "out", progress=False)
    viewer, ask = entered(hr.Dataset(tmp_path / "out"))
    with viewer:
        answer = ask("image/0")
        assert answer.headers["content-type"] == "image/png"
        assert (np.asarray(Image.open(io.BytesIO(answer.body))) == picture(20, 30)).all()


# Bad data.


def test_damaged_record_says_so_and_costs_no_other(tmp_path: Path) -> None:
    ds = pack(photos(6), tmp_path / "cats")
    path, number, offset, length = shard_of(ds, 2)
    flip(path, offset + 12 + length // 2)
    viewer, ask = entered(hr.Dataset(tmp_path / "cats"))
    with viewer:
        for kind in ("thumbnail", "image"):
            answer = ask(f"{kind}/2")
            assert answer.headers["cache-control"] == "no-store"
            assert Image.open(io.BytesIO(answer.body)).size == (1, 1)
        assert f"record {number}" in ask("api/damage?row=2").json["reason"]
        assert ask("api/damage?row=1").json["reason"] is None
        assert all(Image.open(io.BytesIO(ask(f"image/{row}").body)).size[0] > 1 for row in (0, 1, 3, 4, 5))
        assert ask("api/records").json["total"] == 6


def test_dataset_that_is_overwritten(tmp_path: Path) -> None:
    pack(shades(6), tmp_path / "cats")
    whole, part = hr.Dataset(tmp_path / "cats"), hr.Dataset(tmp_path / "cats").where("label = 1")
    first, ask = entered(whole)
    second, of_part = entered(part)
    own = {"method": "POST", "Origin": f"http://127.0.0.1:{ask.port}"}
    with first, second:
        assert ask("api/state").json["current"] and of_part("api/state").json["current"]
        pack(photos(9), tmp_path / "cats", overwrite=True)
        assert not ask("api/state").json["current"] and not of_part("api/state").json["current"]
        assert ask("thumbnail/0").status == 200  # whatever there is, and no end
        refused = ask("api/dataset")
        assert (refused.status == 409 and "was replaced" in refused.json["error"]) or "packed anew" in refused.json[
            "error"
        ]
        assert ask("api/reopen", **own).status == 200
        said = ask("api/dataset").json
        assert said["records"] == 9 and said["fingerprint"] == hr.Dataset(tmp_path / "cats").fingerprint[:12]
        assert ask("api/state").json["current"]
        assert ask("api/records").json["total"] == 9
        refused = of_part("api/reopen", method="POST", Origin=f"http://127.0.0.1:{of_part.port}")
        assert refused.status == 400 and "make it again" in refused.json["error"]


def test_rejects_and_what_is_left_of_them(tmp_path: Path) -> None:
    whole = jpeg(80, 120, seed=1, quality=95)
    files = {
        "a/good.jpg": whole,
        "a/cut.jpg": whole[: len(whole) * 2 // 3],
        "a/empty.jpg": b"",
        "b/text.jpg": b"<p>no</p>",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    hr.pack(hr.sources.folders(tmp_path / "in"), tmp_path / "out", max_rejects=9, progress=False)
    viewer, ask = entered(hr.Dataset(tmp_path / "out"))
    with viewer:
        said = ask("api/rejects").json
        assert said["rejected"] == said["total"] == 3 and sum(kind["count"] for kind in said["kinds"]) == 3
        number = {one["id"]: one["number"] for one in said["rejects"]}
        left = Image.open(io.BytesIO(ask(f"left/{number['a/cut.jpg']}").body))
        assert max(left.size) > 100
        assert np.allclose(np.asarray(left, float)[:20], picture(80, 120, seed=1)[:20], atol=30)
        for name in ("a/empty.jpg", "b/text.jpg"):
            assert Image.open(io.BytesIO(ask(f"left/{number[name]}").body)).size == (1, 1)
        decode = [one for one in said["rejects"] if one["stage"] == "decode"]
        assert [one["id"] for one in ask("api/rejects?stage=decode").json["rejects"]] == [one["id"] for one in decode]


def test_duplicates_are_grouped(tmp_path: Path) -> None:
    seeds = [(1, "a", 90), (1, "b", 90), (2, "a", 90), (3, "b", 90), (3, "b", 60), (4, "a", 90)]
    records = [
        hr.Record(id=f"{i}", encoded=patches(seed, quality), label_name=name)
        for i, (seed, name, quality) in enumerate(seeds)
    ]
    pack(records, tmp_path / "cats")
    viewer, ask = entered(hr.Dataset(tmp_path / "cats"))
    with viewer:
        said = ask("api/groups").json
        assert (said["groups"], said["across_splits"], said["contradicting"]) == (2, 0, 1)
        assert [{cell["id"] for cell in group["cells"]} for group in said["found"]] == [{"0", "1"}, {"3", "4"}]
        assert [(group["kind"], group["labels"]) for group in said["found"]] == [("equal", True), ("near", False)]
        assert ask("api/groups?only=labels").json["total"] == 1 and ask("api/groups?only=splits").json["total"] == 0


def test_many_images_are_not_decoded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "AT_ONCE", 3)
    pixels = [np.asarray(Image.open(io.BytesIO(patches(k // 2)))) for k in range(4)]
    viewer, ask = entered(hr.ArrayDataset(np.stack(pixels)))
    with viewer:
        assert ask("api/groups").json == {"groups": None, "records": 4}
        assert ask("api/groups?anyhow=yes").json["groups"] == ask("api/groups").json["groups"] == 2


def test_labels_in_doubt_come_in_their_order(ds: hr.Dataset, ask: Client) -> None:
    wrong = [record.id for record in ds.split("val") if record.label_name in ("ant", "cow")]
    said = ask("api/records?evaluation=cats-val&outcome=doubtful").json
    assert [cell["id"] for cell in said["cells"]] == wrong[::-1][:3]
    ants = ask("api/records?evaluation=cats-val&outcome=doubtful&observed=ant").json
    assert {cell["labels"][0] for cell in ants["cells"]} == {"ant"}
    assert ask("api/run").json["evaluations"][0]["doubtful"] == 4  # one of them is not in this dataset


def test_boxes_of_a_run_are_matched(tmp_path: Path) -> None:
    boxes = np.array([[2, 2, 12, 12], [20, 2, 30, 12], [2, 18, 12, 28], [30, 24, 40, 34], [32, 24, 42, 34]], np.float32)
    record = hr.Record(id="a", encoded=jpeg(40, 50), boxes=boxes, box_labels=("x", "x", "y", "x", "x"))
    pack(
        [record, hr.Record(id="b", encoded=jpeg(40, 50, seed=2), boxes=np.zeros((0, 4), np.float32))], tmp_path / "cats"
    )
    rows = [
        ("0.9", 3, 2, 13, 12, "x"),  # right
        ("0.8", 2, 18, 12, 28, "x"),  # there, and called something else
        ("0.7", 2, 2, 12, 12, "x"),  # a second one of the first
        ("0.6", 32, 24, 42, 34, "x"),  # of the last, and more than half of the one before
    ]
    named = [dict(zip(("score", "x0", "y0", "x1", "y1", "class"), row, strict=True)) for row in rows]
    lines = [
        {"id": "a", "wrong": 4.0, "right": False, "rows": named},
        {"id": "b", "wrong": 0.0, "right": True, "rows": []},
    ]
    run = judged(tmp_path / "run", "cats", lines, task="detection", ap50=0.3)
    viewer, ask = entered(hr.Dataset(tmp_path / "cats"), run=run)
    with viewer:
        worst, best = ask("api/records?evaluation=cats&sort=-wrong").json["cells"]
        assert worst["id"] == "a" and [box[6] for box in worst["said"]["found"]] == [True, False, False, True]
        assert worst["said"]["missed"] == [1, 2, 3]
        assert best["said"]["found"] == best["said"]["missed"] == [] and best["said"]["right"] is True
        assert ask("api/run").json["evaluations"][0]["headline"] == [["AP50", "0.3000"]]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"id": 3, "wrong": 1, "right": true, "rows": []}',
        '{"id": "a", "wrong": "x", "right": true, "rows": []}',
        '{"id": "a", "wrong": 1, "right": 7, "rows": []}',
        '{"id": "a", "wrong": NaN, "right": true, "rows": []}',
        '{"id": "a", "wrong": 1, "right": true, "rows": [3]}',
        "[" * 5000,
    ],
)
def test_broken_answers_of_a_run_are_named(ds: hr.Dataset, tmp_path: Path, line: str) -> None:
    run = judged(tmp_path / "run", "cats", [])
    (run / "evaluations/cats/records.jsonl").write_text(line + "\n")
    viewer, ask = entered(ds, run=run)
    with viewer:
        answer = ask("api/records?evaluation=cats")
        assert answer.status == 400 and "records.jsonl:1" in answer.json["error"]
        assert ask("api/run").status == 200


def test_run_that_is_none(ds: hr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="no such run"):
        Viewer(ds, run=tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"no recipe\.json"):
        Viewer(ds, run=tmp_path)
    (tmp_path / "recipe.json").write_text("[]")
    viewer, ask = entered(ds, run=tmp_path)
    with viewer:
        assert ask("api/run").json["evaluations"] == []
        assert "headrace evaluate" in ask("api/records?evaluation=x").json["error"]


# Histograms.


def test_every_bar_finds_the_records_that_it_counts(ds: hr.Dataset, ask: Client) -> None:
    said = ask("api/measures").json["measures"]
    assert {one["title"].split(",")[0] for one in said} >= {"Splits", "Classes", "Classes of boxes", "Width", "Height"}
    for one in said:
        for bar in one["bars"]:
            found = ask(f"api/records?{urlencode(bar['ask'])}").json
            if one["unit"] == "records":
                assert found["total"] == bar["count"], (one["title"], bar)
            else:
                assert (found["total"] > 0) == (bar["count"] > 0), (one["title"], bar)


def test_histograms_of_many_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1e-3, 200), [5.0, -7.25, np.nan]])
    ds = hr.ArrayDataset(np.zeros((len(values), 4, 4), np.uint8), values, labels="value")
    (value,) = [one for one in measures(ds, ds.rows, None) if one["title"] == "Value"]
    assert sum(bar["count"] for bar in value["bars"]) == 202 and len(value["bars"]) <= 26
    for bar in value["bars"]:
        assert len(ds.where(bar["ask"]["where"])) == bar["count"], bar


def test_no_record_fits(ask: Client) -> None:
    said = ask("api/measures?where=" + quote("width > 100000")).json
    assert said == {"total": 0, "measures": []}


def test_boxes_are_of_the_whole_dataset(ds: hr.Dataset) -> None:
    boxes, part = Boxes.of(ds), ds.split("val")
    (counts,) = [one for one in measures(part, part.rows, boxes) if one["title"] == "Classes of boxes"]
    wanted = [name for record in part for name in record.box_labels or ()]
    assert {bar["name"]: bar["count"] for bar in counts["bars"]} == {
        name: wanted.count(name) for name in ("left", "right")
    }


# Other datasets.


def test_view_shows_its_records_alone(ds: hr.Dataset) -> None:
    viewer, ask = entered(ds.where("label = 1"))
    with viewer:
        said = ask("api/dataset").json
        assert said["records"] == len(ds.where("label = 1")) and "where label = 1" in said["title"]
        assert {cell["labels"][0] for cell in ask("api/records").json["cells"]} == {"bee"}
        assert ask("api/records?split=val&where=" + quote(WIDE)).json["total"] == len(
            ds.where("label = 1").split("val").where(WIDE)
        )


def test_arrays_and_numbers_that_are_no_images() -> None:
    pixels = np.stack([picture(20, 30, seed=k) for k in range(5)])
    viewer, ask = entered(hr.ArrayDataset(pixels, [0, 1, 0, 1, 1], class_names=["a", "b"]))
    with viewer:
        assert [cell["labels"] for cell in ask("api/records").json["cells"]] == [["a"], ["b"], ["a"], ["b"], ["b"]]
        assert np.asarray(Image.open(io.BytesIO(ask("image/3").body))).tolist() == pixels[3].tolist()
        assert ask("api/state").json["current"] and ask("api/rejects").json["rejected"] == 0
    viewer, ask = entered(hr.ArrayDataset(np.zeros((3, 7), np.float32), dtype="keep"))
    with viewer:
        assert ask("api/dataset").json["kept"] and ask("api/records").json["total"] == 3
        assert Image.open(io.BytesIO(ask("thumbnail/0").body)).size == (1, 1)
        assert "no pixels" in ask("api/damage?row=0").json["reason"]
        assert (
            ask("api/measures").status == ask("api/record?id=0").status == 200 or ask("api/record?id=0").status == 404
        )


# Starting and ending.


def test_port_that_is_taken(ds: hr.Dataset) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port is {port}, and another program"):
            Viewer(ds, port=port)
        ended = headrace("view", ds.path, "--port", port, "--no-browser")
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1 and "--port" in ended.err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"port": 70000}, "port is 70000"),
        ({"host": "nobody.invalid"}, "host is"),
        ({"host": "192.0.2.1"}, "can't listen"),
    ],
)
def test_place_that_can_t_be(ds: hr.Dataset, option: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Viewer(ds, **option)  # type: ignore[arg-type]


def test_missing_extra_is_named(ds: hr.Dataset) -> None:
    with (
        mock.patch.dict(sys.modules, {"uvicorn": None}),
        pytest.raises(MissingExtraError, match=r"pip install 'headrace\[view\]'"),
    ):
        Viewer(ds)


def test_host_for_everybody_is_said_aloud(ds: hr.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with ds.view(host="0.0.0.0", browser=False) as viewer:
        out, err = capsys.readouterr()
        assert out == f"{viewer.address.url}\n" and "not encrypted" in err and socket.gethostname() in out
        ask = Client(f"http://127.0.0.1:{viewer.address.port}/{viewer.address.url.partition('/?')[2]}")
        ask.query = viewer.address.url.partition("?")[2]
        ask.enter()
        assert ask("api/state", Host="10.1.2.3").status == 200 and ask("api/state", Host="evil.example").status == 400
    with ds.view(browser=False):
        assert capsys.readouterr().err == ""


def test_command_prints_its_address_and_ends_by_ctrl_c(ds: hr.Dataset) -> None:
    command = [sys.executable, "-m", "headrace", "view", f"{ds.path}:val", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        ask = Client(url).enter()
        assert ask("api/dataset").json["splits"] == {"val": len(ds.split("val"))}
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()
        assert process.wait(timeout=300) == 0
    assert rest == "" and errors == "Ctrl-C ends it\n"


def test_notebook_gets_a_frame(ds: hr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with ds.view(browser=False) as viewer:
        html, token = viewer._repr_html_(), viewer.address.url.partition("?")[2]
        assert f'src="http://localhost:{viewer.address.port}/?{token}"' in html
        monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ana/")
        assert f'src="/user/ana/proxy/{viewer.address.port}/?{token}"' in viewer._repr_html_()


def test_closed_viewer_answers_no_more(ds: hr.Dataset) -> None:
    viewer, ask = entered(ds)
    assert ask("api/state").status == 200
    viewer.close()
    with pytest.raises(OSError):  # noqa: PT011 (refused or reset)
        ask("api/state")
