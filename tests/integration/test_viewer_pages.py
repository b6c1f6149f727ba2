"""The viewer's pages in a real browser: what is drawn, what keys and clicks do, and that names never run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import headrace as hr
from browsing import Browser, browser
from drawn import jpeg
from packed import Source, faces, flip, pack, photos, shard_of
from viewed import HOSTILE, classified, hostile, judged, patches, some

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'headrace[view]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'headrace[view]'")

from headrace.viewing.serve import Viewer

MANY = 1_000_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser as on a desktop by day; a test after which its console holds an error has failed."""
    chromium.size(1400, 900)
    chromium.dark(False)
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> hr.Dataset:
    return some(tmp_path_factory.mktemp("pages") / "cats")


@pytest.fixture(scope="module")
def viewer(ds: hr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with Viewer(ds, run=classified(ds, tmp_path_factory.mktemp("pages") / "run")) as made:
        yield made


def base(viewer: Viewer) -> str:
    return viewer.address.url.partition("?")[0]


@contextmanager
def viewing(page: Browser, dataset: hr.Dataset, **options: Any) -> Iterator[Viewer]:
    """A viewer; the page is left before it ends, as what a page asks of a viewer that has ended is an error for its
    console, whichever test that is read by."""
    with Viewer(dataset, **options) as viewer:
        yield viewer
        page.open("about:blank")


def entered(page: Browser, viewer: Viewer) -> str:
    page.open(viewer.address.url)
    page.until("document.querySelector('#nav a')")
    return base(viewer)


def ready(page: Browser) -> None:
    page.until("document.querySelector('#main > *') && document.querySelector('#busy').hidden")


def ids(page: Browser) -> list[str]:
    """Of the cells in their order."""
    found: list[str] = page.script(
        "return [...document.querySelectorAll('.grid > li')].sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
        ".map((item) => item.querySelector('.id')?.title)"
    )
    return found


def test_gallery(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    page.size(1400, 1800)
    page.open(viewer.address.url)
    page.all_shown()
    assert "token" not in page.driver.current_url
    assert "24 records" in page.text(".asked") and len(ids(page)) == 24
    cell = "[...document.querySelectorAll('.cell')].find((one) => one.ariaLabel.startsWith(arguments[0]))"
    for record in ds:
        assert page.script(f"return {cell}.querySelectorAll('rect.box').length", record.id) == len(record.boxes)
    # A box lies over the image where the catalog says: its share of the image is its share on the screen.
    record = ds["dir/003.png"]
    measured = page.script(
        f"const cell = {cell}, image = cell.querySelector('img').getBoundingClientRect();"
        "const box = cell.querySelector('rect.box').getBoundingClientRect();"
        "return [(box.x - image.x) / image.width, (box.y - image.y) / image.height,"
        " box.width / image.width, box.height / image.height];",
        record.id,
    )
    x0, y0, x1, y1 = record.boxes[0] / [record.width, record.height, record.width, record.height]
    assert np.allclose(measured, [x0, y0, x1 - x0, y1 - y0], atol=0.03)


def test_filters_and_address(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    root = entered(page, viewer)
    page.all_shown()
    page.click(".facets a[href*='label=bee']")
    page.until("document.querySelector('.total').textContent.startsWith(arguments[0])", str(ds.class_counts["bee"]))
    page.all_shown()
    page.press("/")
    page.press("width > 40\n")
    wanted = [record.id for record in ds if record.label_name == "bee" and record.width > 40]
    page.until("document.querySelector('.total').textContent.startsWith(arguments[0] + ' of')", str(len(wanted)))
    page.all_shown()
    assert ids(page) == wanted
    address = page.driver.current_url
    assert address == f"{root}?label=bee&where=width+%3E+40"
    page.open(address)  # as somebody who was sent it
    page.all_shown()
    assert ids(page) == wanted
    page.click(".chip[href*='where']")  # takes the class away
    page.until("!document.querySelector('.total').textContent.startsWith(arguments[0] + ' of')", str(len(wanted)))
    page.driver.back()
    page.until("location.href === arguments[0]", address)
    page.all_shown()
    assert ids(page) == wanted
    page.open(f"{root}?where=width+%3E+99999")
    page.until("document.querySelector('.empty h2')?.textContent === 'Nothing fits'")


def test_condition_that_can_t_be_asked(page: Browser, viewer: Viewer) -> None:
    root = entered(page, viewer)
    page.open(f"{root}?where={quote('id IN (SELECT id FROM read_csv(1))')}")
    page.until("document.querySelector('.refused')?.textContent.includes('belongs to a query')")
    assert all("status of 400" in said for said in page.complaints())


def test_keys(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    from selenium.webdriver.common.keys import Keys

    root = entered(page, viewer)
    page.open(f"{root}?sort=id")
    page.all_shown()
    order = sorted(record.id for record in ds)
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        page.press(key)
    focused = "document.activeElement.querySelector('.id')?.title"
    assert page.script(f"return {focused}") == order[1]
    page.press(Keys.ENTER)
    page.until("document.querySelector('.panel h1')?.textContent === arguments[0]", order[1])
    page.press(Keys.ARROW_RIGHT)
    page.until("document.querySelector('.panel h1')?.textContent === arguments[0]", order[2])
    page.press("b")
    assert page.script("return getComputedStyle(document.querySelector('.stage .overlay')).display") == "none"
    page.press("+")
    page.press(Keys.ESCAPE)
    page.all_shown()
    assert "sort=id" in page.driver.current_url
    page.press("?")
    page.until("document.querySelector('dialog').open")
    page.press(Keys.ESCAPE)
    page.until("!document.querySelector('dialog').open")


def test_record(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    root, record = entered(page, viewer), ds["dir/003.png"]
    page.open(f"{root}record?id={quote(record.id)}")
    page.until("document.querySelector('.canvas img.there')")
    said = page.text(".panel")
    for text in (
        record.id,
        record.label_name,
        f"{record.width} × {record.height} px",
        "list.txt:4",
        "left",
        "right",
        "sha256",
    ):
        assert str(text) in said
    natural = page.script("const i = document.querySelector('.canvas img'); return [i.naturalWidth, i.naturalHeight]")
    assert natural == [record.width, record.height]
    before = page.script("return document.querySelector('.canvas').getBoundingClientRect().width")
    page.click(".controls [aria-label=larger]")
    assert page.script("return document.querySelector('.canvas').getBoundingClientRect().width") > 1.3 * before
    page.open(f"{root}record?id=nobody")
    page.until("document.querySelector('.empty h2')?.textContent === 'No such record'")
    assert all("status of 404" in complaint for complaint in page.complaints())


def test_keypoints_and_masks(page: Browser, tmp_path: Path) -> None:
    from headrace.record import Mask

    points = pack(Source(faces(6)), tmp_path / "faces")
    record = next(one for one in points if one.keypoints is not None and len(one.keypoints) == 2)
    with viewing(page, points) as viewer:
        root = entered(page, viewer)
        page.open(f"{root}record?id={record.id}")
        page.until("document.querySelector('.canvas img.there')")
        labelled = int((record.keypoints[..., 2] > 0).sum())  # type: ignore[index]
        assert page.script("return document.querySelectorAll('.canvas .dot').length") == labelled
        page.script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert "left_eye" in page.text(".panel")
    square = Mask(polygons=(np.array([[2, 2], [12, 2], [12, 12], [2, 12]], np.float32),))
    column = np.zeros((20, 30), bool)
    column[5:15, 20] = True
    runs = Mask(runs=np.array([20 * 20 + 5, 10, 600 - 415], np.int64), size=(20, 30))
    boxes = np.array([[2, 2, 12, 12], [20, 5, 21, 15]], np.float32)
    masks = hr.Record(id="m", encoded=jpeg(20, 30), boxes=boxes, box_labels=("a", "b"), masks=(square, runs))
    with viewing(page, pack([masks], tmp_path / "masks")) as viewer:
        root = entered(page, viewer)
        page.open(f"{root}record?id=m")
        page.until("document.querySelector('.canvas img.there')")
        assert page.script("return document.querySelector('.mask').getBBox().width") == 10
        covered = page.script(
            "const c = document.querySelector('canvas.runs'), d = c.getContext('2d').getImageData(0, 0, 30, 20).data;"
            "return [...Array(600).keys()].filter((i) => d[4 * i + 3])"
        )
        assert covered == np.flatnonzero(column).tolist()


def test_classes_lead_to_the_gallery(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    root = entered(page, viewer)
    page.open(f"{root}classes?split=train")
    ready(page)
    titles = page.script("return [...document.querySelectorAll('.card h2')].map((one) => one.textContent)")
    assert {"Classes", "Classes of boxes", "Width, pixels", "Boxes in an image"} <= set(titles)
    page.click(".card a[href*='label=cow']")
    page.all_shown()
    assert ids(page) == [record.id for record in ds.split("train") if record.label_name == "cow"]


def test_predictions_lead_to_the_gallery(page: Browser, viewer: Viewer, ds: hr.Dataset) -> None:
    root = entered(page, viewer)
    page.open(f"{root}predictions")
    page.until("document.querySelector('.confusion') && document.querySelector('.row .cell')")
    page.until("document.querySelectorAll('.card.broad .row').length === 2")  # the worst, and labels in doubt
    assert "0.5000" in page.text(".tiles") and page.script("return document.querySelectorAll('.curves').length") == 2
    page.click(".confusion a[aria-label^='observed ant, estimated bee']")
    page.all_shown()
    wanted = [record.id for record in ds.split("val") if record.label_name == "ant"]
    assert ids(page) == wanted[::-1]  # worst first
    assert page.text(".cell .what") == "ant → bee 90%"


def test_boxes_of_a_run(page: Browser, tmp_path: Path) -> None:
    boxes = np.array([[2, 2, 12, 12], [20, 2, 30, 12]], np.float32)
    pack([hr.Record(id="a", encoded=jpeg(40, 50), boxes=boxes, box_labels=("x", "x"))], tmp_path / "cats")
    named = [
        dict(zip(("score", "x0", "y0", "x1", "y1", "class"), row, strict=True))
        for row in (("0.9", 2, 2, 12, 12, "x"), ("0.6", 35, 25, 45, 35, "x"))
    ]
    line = {"id": "a", "wrong": 2.0, "right": False, "rows": named}
    run = judged(tmp_path / "run", "cats", [line], task="detection", ap50=0.5)
    with viewing(page, hr.Dataset(tmp_path / "cats"), run=run) as viewer:
        root = entered(page, viewer)
        page.open(f"{root}?evaluation=cats&sort=-wrong")
        page.all_shown()
        kinds = page.script("return [...document.querySelectorAll('.cell rect.box')].map((one) => one.classList[1])")
        assert sorted(kinds) == ["false", "matched", "missed"] and page.text(".cell .what") == "1/2 found, 1 false"


def test_rejects_and_duplicates(page: Browser, tmp_path: Path) -> None:
    whole = jpeg(80, 120, seed=1, quality=95)
    for name, data in {"a/x.jpg": whole, "b/y.jpg": whole, "a/cut.jpg": whole[:-400], "b/no.jpg": b"no"}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    hr.pack(hr.sources.folders(tmp_path / "in"), tmp_path / "cats", max_rejects=9, progress=False)
    with viewing(page, hr.Dataset(tmp_path / "cats")) as viewer:
        root = entered(page, viewer)
        page.open(f"{root}rejects")
        page.until("[...document.querySelectorAll('.left img')].some((image) => image.naturalWidth > 50)")
        page.until("document.querySelector('.left .soft')?.textContent === 'nothing left'")
        assert "truncated" in page.text(".rejects")
        page.open(f"{root}duplicates")
        page.until("document.querySelectorAll('.group .cell img.there').length === 2")
        assert "labels contradict" in page.text(".group")


def test_nothing_to_show(page: Browser, tmp_path: Path) -> None:
    ds = pack([hr.Record(id=f"{k}", encoded=patches(k)) for k in range(3)], tmp_path / "cats")
    with viewing(page, ds) as viewer:
        root = entered(page, viewer)
        for name, says in (("rejects", "Nothing was refused"), ("duplicates", "No duplicates")):
            page.open(root + name)
            page.until("document.querySelector('.empty h2')?.textContent === arguments[0]", says)


@pytest.fixture(scope="module")
def many() -> Iterator[Viewer]:
    """A million images; which one it is stands in its pixels' mean and in its id."""
    with Viewer(hr.ArrayDataset(np.zeros((MANY, 4, 4), np.uint8))) as made:
        yield made


def test_any_place_of_a_million(page: Browser, many: Viewer) -> None:
    from selenium.webdriver.common.keys import Keys

    entered(page, many)
    page.all_shown()
    first = "Math.min(...[...document.querySelectorAll('.grid > li')].map((item) => Number(item.ariaPosInSet)))"
    for share in (0.5, 0.98, 0.12, 1, 0):
        page.script(
            "const s = document.querySelector('.scroller');"
            "s.scrollTop = arguments[0] * (s.scrollHeight - s.clientHeight)", share
        )  # fmt: skip
        page.until(f"Math.abs({first} - arguments[0] * {MANY}) < 200", share)
        page.all_shown()
        assert page.script("return document.querySelectorAll('#main *').length") < 2000
        seen = page.script(
            "const s = document.querySelector('.scroller').getBoundingClientRect();"
            "return [...document.querySelectorAll('.grid > li')].filter((item) => {"
            " const b = item.getBoundingClientRect(); return b.bottom > s.top && b.top < s.bottom; }).length"
        )
        assert seen >= 15
    page.press(Keys.END)
    page.until(f"document.activeElement.parentElement?.ariaPosInSet == {MANY}")
    page.until("new URLSearchParams(location.search).get('at') > 999000")
    page.open(page.driver.current_url)  # the place is in the address
    page.all_shown()
    assert page.script(f"return {first}") > 999_000


def test_small_steps_in_a_million_go_pixel_by_pixel(page: Browser, many: Viewer) -> None:
    root = entered(page, many)
    page.open(f"{root}?at=500000")
    page.all_shown()
    place = "document.querySelector('.grid > li[aria-posinset=\"500001\"]')?.getBoundingClientRect().top"
    before = page.until(place)
    page.script("document.querySelector('.scroller').scrollTop += 40")
    page.until(f"Math.abs({place} - (arguments[0] - 40)) <= 1", before)


def test_ten_million_fit_into_a_scrollbar(page: Browser, many: Viewer) -> None:
    """As many rows as ten million records have: the same arithmetic, with smaller images and one column."""
    entered(page, many)
    page.size(330, 700)
    page.all_shown()
    assert page.script("return document.querySelector('.grid').clientHeight") <= 8_000_000
    page.script("const s = document.querySelector('.scroller'); s.scrollTop = s.scrollHeight")
    page.until(f"document.querySelector('.grid > li[aria-posinset=\"{MANY}\"]')")
    page.all_shown()


def test_names_never_run(page: Browser, tmp_path: Path) -> None:
    ds = hostile(tmp_path / "cats")
    line = {"id": ds[0].id, "wrong": 1.0, "right": False, "rows": [{"observed": HOSTILE[0], "estimated": HOSTILE[1]}]}
    n = len(HOSTILE)
    said = {"accuracy": 0.5, "class_names": list(HOSTILE), "confusion": np.eye(n, dtype=int).tolist()}
    run = judged(tmp_path / "run", "cats", [line], per_class={HOSTILE[0]: {HOSTILE[1]: 1}}, **said)
    with viewing(page, ds, run=run) as viewer:
        root = entered(page, viewer)
        pages = [
            "",
            "classes",
            "rejects",
            "duplicates",
            "predictions",
            "?evaluation=cats",
            *(f"record?id={quote(record.id)}" for record in ds),
        ]
        pages += [
            f"?label={quote(HOSTILE[0])}&find={quote(HOSTILE[0])}",
            f"?where={quote(HOSTILE[1])}",
            f"?split={quote(HOSTILE[0])}",
        ]
        for path in pages:
            page.open(root + path)
            ready(page)
            page.until("[...document.images].every((image) => image.complete || image.loading === 'lazy')")
            assert page.script("return document.title") != "ran"
            ran = "script, img[src=x], [onerror], [onmouseover], [onload], style".replace(", ", ", #main ")
            inside = f"return document.querySelectorAll('#main {ran}').length"
            assert page.script(inside) == 0, path
            assert not [said for said in page.complaints() if "status of 40" not in said]
    report = ds.report(tmp_path / "cats.html", run=run)
    page.open(report.as_uri())
    assert page.script("return document.title") == "cats" and HOSTILE[0] in page.text()


def test_damaged_record_says_so_in_its_cell(page: Browser, tmp_path: Path) -> None:
    path, _, offset, length = shard_of(pack(photos(4), tmp_path / "cats"), 2)
    flip(path, offset + 12 + length // 2)
    with viewing(page, hr.Dataset(tmp_path / "cats")) as viewer:
        root = entered(page, viewer)
        page.until("document.querySelectorAll('.cell img.there').length === 3")
        page.until("document.querySelector('.cell .damaged')?.textContent.includes('payload CRC')")
        id_ = page.script("return document.querySelector('.is-damaged .id').title")
        page.open(f"{root}record?id={quote(id_)}")
        page.until("document.querySelector('.stage .damaged')?.textContent.includes('payload CRC')")


def test_overwritten_dataset_is_noticed(page: Browser, tmp_path: Path) -> None:
    pack(photos(4), tmp_path / "cats")
    with viewing(page, hr.Dataset(tmp_path / "cats")) as viewer:
        entered(page, viewer)
        page.all_shown()
        pack(photos(7), tmp_path / "cats", overwrite=True)
        page.until("document.querySelector('#notice').textContent.includes('replaced or removed')")
        page.click("#notice button")
        page.until("document.querySelector('.total')?.textContent === '7 records'")
        page.all_shown()
        assert page.text("#notice") == ""
    page.complaints()


def test_viewer_that_has_ended_is_noticed(page: Browser, ds: hr.Dataset) -> None:
    with Viewer(ds) as viewer:
        entered(page, viewer)
        page.all_shown()
    page.until("document.querySelector('#notice').textContent.includes('has ended')")
    page.open("about:blank")
    page.complaints()


@pytest.mark.parametrize("path", ["", "record?id=dir/003.png", "classes", "rejects", "duplicates", "predictions"])
def test_phone(page: Browser, viewer: Viewer, path: str) -> None:
    root = entered(page, viewer)
    page.size(360, 740, phone=True)
    page.open(root + path)
    ready(page)
    assert page.script("return document.documentElement.scrollWidth") <= 360
    wide = (
        "return [...document.querySelectorAll('#main :is(button, select, input, .card, .cell)')].filter((one) => {"
        " const b = one.getBoundingClientRect(); return b.width && (b.right > 361 || b.left < -1); }).length"
    )
    assert page.script(wide) == 0
    if not path:
        page.click(".narrow")
        page.until("document.querySelector('.facets').getBoundingClientRect().height > 100")


def test_dark(page: Browser, viewer: Viewer) -> None:
    entered(page, viewer)
    light = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + Number(b), 0)"
    assert page.script(light) > 600
    page.dark(True)
    assert page.script(light) < 200
    page.click("#theme")
    assert page.script(light) > 600
    page.open(base(viewer))  # what was chosen is remembered
    assert page.script(light) > 600
    page.script("localStorage.clear()")


def test_works_below_a_proxy_s_path(page: Browser, viewer: Viewer) -> None:
    """No page and no answer names a path from the root."""
    root = entered(page, viewer)
    for path in ("", "record?id=dir/003.png", "classes", "predictions"):
        page.open(root + path)
        ready(page)
        given = page.script(
            "return [...document.querySelectorAll('[href], [src]')]"
            ".map((one) => one.getAttribute('href') ?? one.getAttribute('src'))"
        )
        assert given and not [link for link in given if link.startswith(("/", "http"))]


def test_what_a_screen_reader_is_told(page: Browser, viewer: Viewer) -> None:
    root = entered(page, viewer)
    for path in ("", "record?id=dir/003.png", "classes", "predictions"):
        page.open(root + path)
        ready(page)
        unnamed = page.script(
            "return [...document.querySelectorAll('button, a[href], input, select')].filter((one) =>"
            " getComputedStyle(one).display !== 'none' && !one.ariaLabel && !one.textContent.trim())"
            ".map((one) => one.outerHTML)"
        )
        assert unnamed == []
