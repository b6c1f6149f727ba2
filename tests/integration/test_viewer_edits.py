"""Mending in a real browser: labels, splits, boxes and records, by hand and by keys, saved, taken back, refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace as hr
from browsing import Browser, browser
from packed import pack, photos
from viewed import HOSTILE, classified, hostile, patches, some

pytest.importorskip("starlette", reason="Starlette is not installed: pip install 'headrace[view]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'headrace[view]'")

from headrace.viewing.serve import Viewer


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
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(some(tmp_path_factory.mktemp("edits") / "cats").path)


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "cats"))


@contextmanager
def viewing(page: Browser, dataset: hr.Dataset, **options: Any) -> Iterator[str]:
    """A viewer whose gallery is seen, and its address without the token; the page is left before the viewer ends."""
    with Viewer(dataset, **options) as viewer:
        page.open(viewer.address.url)
        page.all_shown()
        yield viewer.address.url.partition("?")[0]
        page.open("about:blank")


def chosen(page: Browser) -> list[str]:
    found: list[str] = page.script("return [...document.querySelectorAll('.held.chosen')].map((one) => one.dataset.id)")
    return found


def click(page: Browser, id_: str, *, shift: bool = False, ctrl: bool = False) -> None:
    """Of a cell, with keys held."""
    page.script(
        "[...document.querySelectorAll('.held')].find((one) => one.dataset.id === arguments[0]).querySelector('.cell')"
        ".dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true, shiftKey: arguments[1],"
        " ctrlKey: arguments[2] }))",
        id_, shift, ctrl,
    )  # fmt: skip


def what(page: Browser, id_: str) -> str:
    """What stands under a cell."""
    found: str = page.script(
        "return [...document.querySelectorAll('.held')].find((one) => one.dataset.id === arguments[0])"
        ".querySelector('.what').innerText",
        id_,
    )
    return found


def save(page: Browser, why: str) -> None:
    page.script("document.querySelector('#why').focus()")
    page.press(why + "\n")


def saved(page: Browser, version: int) -> None:
    page.until(
        "document.querySelector('.saved-row')?.textContent.includes(arguments[0])", f"Saved as version {version}"
    )


def test_labels_are_mended_and_taken_back(page: Browser, folder: Path) -> None:
    before = hr.Dataset(folder)
    ids = [record.id for record in before]
    with viewing(page, before, edit=True) as root:
        page.open(f"{root}?sort=id&label=ant")
        page.all_shown()
        ants = sorted(record.id for record in before if record.label_name == "ant")
        click(page, ants[0], ctrl=True)
        click(page, ants[2], shift=True)
        assert sorted(chosen(page)) == ants[:3] and "3 chosen" in page.text("#dock")
        click(page, ants[1], ctrl=True)
        page.press("2")
        assert what(page, ants[0]) == "ant bee" and what(page, ants[1]) == "ant"
        assert "2 relabelled" in page.text("#dock") and hr.Dataset(folder).version == 1
        page.press("z")
        page.until("!document.querySelector('#why')")
        assert what(page, ants[0]) == "ant"
        page.press("3")
        page.open(page.driver.current_url)  # a draft outlives a page that is loaded anew
        page.all_shown()
        assert what(page, ants[0]) == "ant cow"
        page.click("#dock .save")  # without a reason nothing is saved
        page.until("document.activeElement.id === 'why' && document.activeElement.ariaInvalid !== null")
        save(page, "cows among the ants")
        saved(page, 2)
        page.all_shown()
        assert "label=ant" in page.driver.current_url and "sort=id" in page.driver.current_url
        assert page.script("return document.querySelectorAll('.grid > li').length") == len(ants) - 2
        after = hr.Dataset(folder)
        assert [after[id_].label_name for id_ in ants[:3]] == ["cow", "ant", "cow"]
        assert after.history[-1].why == "cows among the ants"
        page.click("#dock .saved-row .toggle")
        page.until("document.querySelector('#dock').textContent.includes('Taken back')")
        page.until("document.querySelectorAll('.grid > li').length === arguments[0]", len(ants))
        last = hr.Dataset(folder)
        assert last.version == 3 and [last[id_].label_name for id_ in ids] == [before[id_].label_name for id_ in ids]


def test_records_are_dropped_moved_and_called_something_new(page: Browser, folder: Path) -> None:
    ids = [record.id for record in hr.Dataset(folder)]
    with viewing(page, hr.Dataset(folder), edit=True):
        click(page, ids[0], ctrl=True)
        page.press("x")
        assert page.text(".gone .flag") == "dropped"
        page.press("x")  # and not
        assert page.script("return document.querySelector('.gone')") is None
        page.press("x")
        click(page, ids[0], ctrl=True)
        click(page, ids[1], ctrl=True)
        page.press("l")
        page.until("document.querySelector('dialog.asks[open] input') === document.activeElement")
        page.press("dragon\n")
        page.until("!document.querySelector('dialog.asks')")
        page.press("m")
        page.until("document.querySelector('dialog.asks[open] input') === document.activeElement")
        page.press("test\n")
        page.until("!document.querySelector('dialog.asks')")
        assert "1 relabelled, 1 moved, 1 dropped" in page.text("#dock")
        save(page, "all at once")
        saved(page, 2)
    after = hr.Dataset(folder)
    assert after.version == 2 and ids[0] not in {record.id for record in after}
    assert (after[ids[1]].label_name, after[ids[1]].split) == ("dragon", "test")


def test_all_that_is_shown(page: Browser, folder: Path) -> None:
    before = hr.Dataset(folder)
    with viewing(page, before, edit=True) as root:
        page.open(f"{root}?label=ant")
        page.all_shown()
        page.press("a")
        n = before.class_counts["ant"]
        assert f"All {n}" in page.text("#dock")
        page.press("2")
        page.until("document.querySelector('dialog.asks input') === document.activeElement")
        page.press("they are bees\n")
        page.until("document.querySelector('dialog.asks h2')?.textContent.startsWith(arguments[0])", f"{n} of 24")
        assert hr.Dataset(folder).version == 1  # more than a tenth: it asks once more
        page.click("dialog.asks .ends button:last-child")
        saved(page, 2)
        page.until("document.querySelector('.empty h2')?.textContent === 'Nothing fits'")
    assert hr.Dataset(folder).class_counts["ant"] == 0
    assert [said for said in page.complaints() if "status of 400" not in said] == []


def dragged(page: Browser, selector: str, dx: float, dy: float) -> None:
    """A real mouse, from the middle of an element."""
    from selenium.webdriver.common.action_chains import ActionChains

    element = page.until("document.querySelector(arguments[0])", selector)
    chain = ActionChains(page.driver, duration=0).move_to_element(element).click_and_hold()
    chain.move_by_offset(round(dx / 2), round(dy / 2)).move_by_offset(
        round(dx) - round(dx / 2), round(dy) - round(dy / 2)
    )
    chain.release().perform()


def opened(page: Browser, root: str, id_: str) -> float:
    """The page of a record; how large a pixel of its image is."""
    from urllib.parse import quote

    page.open(f"{root}record?id={quote(id_)}")
    page.until("document.querySelector('.canvas img.there')")
    scale: float = page.script(
        "const i = document.querySelector('.canvas img'); return i.getBoundingClientRect().width / i.naturalWidth"
    )
    return scale


def test_boxes_are_mended_by_hand(page: Browser, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    before = hr.Dataset(folder)["dir/003.png"]
    (x0, y0, x1, y1), *others = before.boxes.tolist()
    with viewing(page, hr.Dataset(folder), edit=True) as root:
        scale = opened(page, root, before.id)
        assert page.script("return document.querySelectorAll('.boxed').length") == len(before.boxes)
        first = "[data-mend='0']"
        page.script(f'document.querySelector("{first}").focus()')
        dragged(page, f"{first} .grip.se", 6 * scale, 4 * scale)
        page.until("document.querySelector('#why')")
        dragged(page, first, 2 * scale, 3 * scale)
        page.press("2")  # the class of the box
        save(page, "a better box")
        saved(page, 2)
        after = hr.Dataset(folder)[before.id]
        wanted = [x0 + 2, y0 + 3, x1 + 8, y1 + 7]
        assert np.abs(after.boxes[0] - wanted).max() < 1 and (after.boxes[1:] == np.array(others)).all()
        assert after.box_labels is not None and after.box_labels[0] == "right"
        # One is drawn, one deleted; keys move to the pixel.
        page.until("document.querySelector('.canvas img.there')")
        page.press("n")
        image = page.script("const b = document.querySelector('.canvas').getBoundingClientRect(); return [b.x, b.y]")
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(page.driver, duration=0)
        chain.w3c_actions.pointer_action.move_to_location(round(image[0] + 10 * scale), round(image[1] + 5 * scale))
        chain.click_and_hold().move_by_offset(round(4 * scale), round(3 * scale))
        chain.move_by_offset(round(4 * scale), round(3 * scale)).release().perform()
        page.until("document.querySelectorAll('.boxed').length === arguments[0]", len(before.boxes) + 1)
        page.press(Keys.ARROW_RIGHT)
        page.press(Keys.ARROW_DOWN)
        page.script(f'document.querySelector("{first}").focus()')
        page.press(Keys.DELETE)
        page.until("document.querySelectorAll('.boxed').length === arguments[0]", len(before.boxes))
        save(page, "one more, one less")
        saved(page, 3)
        last = hr.Dataset(folder)[before.id]
        assert np.abs(last.boxes[-1] - [11, 6, 19, 12]).max() < 1
        assert (last.boxes[:-1] == np.array(others)).all()


def test_keys_of_a_record(page: Browser, folder: Path) -> None:
    ids = [record.id for record in hr.Dataset(folder)]
    with viewing(page, hr.Dataset(folder), edit=True) as root:
        opened(page, root, ids[1])
        page.press("3")
        page.until("document.querySelector('.mending [aria-pressed=true]').textContent.startsWith('cow')")
        page.press("x")
        page.until("document.querySelector('.danger').ariaPressed === 'true'")
        save(page, "no good")
        saved(page, 2)
        page.until("document.querySelector('.panel h1')?.textContent === arguments[0]", ids[2])  # on to the next one
        assert len(hr.Dataset(folder)) == len(ids) - 1


def test_somebody_was_quicker(page: Browser, folder: Path) -> None:
    ids = [record.id for record in hr.Dataset(folder)]
    with viewing(page, hr.Dataset(folder), edit=True):
        for id_ in ids[:2]:
            click(page, id_, ctrl=True)
        page.press("x")
        with hr.edit(folder, why=HOSTILE[0], by="ana") as e:
            e.move("val" if hr.Dataset(folder)[ids[0]].split == "train" else "train", ids=ids[0])
        save(page, "mine")
        page.until("document.querySelector('dialog.asks h2')?.textContent === 'Somebody was quicker'")
        said = page.text("dialog.asks")
        assert "version 2" in said and "ana" in said and HOSTILE[0] in said and ids[0] in said
        assert page.script("return document.querySelector('dialog img')") is None
        page.click("dialog.asks .ends button:last-child")
        page.until("document.querySelector('.save')?.textContent === 'Save version 3'")
        page.all_shown()
        assert "1 dropped" in page.text("#dock")  # of the record that both changed nothing is left
        save(page, "mine")
        saved(page, 3)
    after = {record.id for record in hr.Dataset(folder)}
    assert ids[0] in after and ids[1] not in after
    assert [said for said in page.complaints() if "status of 409" not in said] == []


def test_edit_of_somebody_else_is_noticed(page: Browser, folder: Path) -> None:
    with viewing(page, hr.Dataset(folder), edit=True):
        with hr.edit(folder, why="a look", by="ana") as e:
            e.drop(ids="dir/003.png")
        page.until("document.querySelector('#notice').textContent.includes('ana edited it meanwhile')")
        page.click("#notice button")
        page.until("document.querySelector('.total')?.textContent === '23 records'")


def test_history_and_differences(page: Browser, folder: Path) -> None:
    with viewing(page, hr.Dataset(folder), edit=True) as root:
        for k in range(2):
            with hr.edit(folder, why=f"look {k}", by="ana") as e:
                e.relabel(("bee", "cow")[k], ids="dir/003.png")
                e.drop(ids=hr.Dataset(folder)[k].id)
        page.until("document.querySelector('#notice button')")
        page.click("#notice button")
        page.until("document.querySelector('#version').textContent === 'version 3'")
        page.click("#nav a[href=history]")
        page.until("document.querySelectorAll('.version').length === 3")
        assert "look 1" in page.text(".version.now") and "ana" in page.text(".version.now")
        page.click(".version:last-child .ways a")  # since then
        page.until("document.querySelectorAll('.pair .cell img.there').length >= 2")
        assert "before=1" in page.driver.current_url and "after=3" in page.driver.current_url
        address = page.driver.current_url
        page.click(".segments a[href*='kind=dropped']")
        page.until("document.querySelector('.pair .badge')?.textContent === 'dropped'")
        page.until("document.querySelectorAll('.pair .cell img.there').length === 2")
        page.open(address)
        page.until("document.querySelectorAll('.pair .cell img.there').length >= 2")
        page.open(f"{root}history")
        page.until("document.querySelector('.version:last-child .ways button')")
        page.click(".version:last-child .ways button")
        page.click("dialog.asks .ends button:last-child")
        page.until("document.querySelectorAll('.version').length === 4")
        assert hr.Dataset(folder).version == 4 and len(hr.Dataset(folder)) == 24
        page.open(f"{root}diff?before=1&after=9")
        page.until("document.querySelector('.empty h2')?.textContent === 'No such versions'")
    assert [said for said in page.complaints() if "status of 400" not in said] == []


def test_earlier_version_is_only_looked_at(page: Browser, folder: Path) -> None:
    with hr.edit(folder, why="a look") as e:
        e.drop(ids="dir/003.png")
    with viewing(page, hr.Dataset(f"{folder}@1")):
        assert page.text("#version") == "version 1, only to look at"
        assert page.script("return document.querySelectorAll('.tick, #dock > *').length") == 0
        page.press("x")
        assert page.text("#dock") == ""


def test_doubts_and_duplicates_are_judged_where_they_are_seen(page: Browser, tmp_path: Path) -> None:
    seeds = [(1, "ant"), (1, "bee"), (2, "ant"), (3, "cow"), (4, "ant"), (5, "bee"), (6, "cow"), (7, "ant")]
    records = [hr.Record(id=f"{i}.jpg", encoded=patches(seed), label_name=name) for i, (seed, name) in enumerate(seeds)]
    pack(records, tmp_path / "cats", splits={"train": 0.25, "val": 0.75})
    ds = hr.Dataset(tmp_path / "cats")
    run = classified(ds, tmp_path / "run")
    with viewing(page, ds, run=run, edit=True) as root:
        page.open(f"{root}duplicates")
        page.until("document.querySelectorAll('.group .cell img.there').length === 2")
        page.script("[...document.querySelectorAll('.group .cell')][1].focus()")
        page.press("x")
        page.until("document.querySelector('.group .gone')")
        save(page, "a copy")
        saved(page, 2)
        page.until("document.querySelector('.empty h2')?.textContent === 'No duplicates'")
        page.open(f"{root}predictions")
        page.until("document.querySelectorAll('.card.broad .row').length === 2")
        doubt = page.script(
            "return [...document.querySelectorAll('.card.broad .row')][1].querySelector('.held').dataset.id"
        )
        page.script("[...document.querySelectorAll('.card.broad .row')][1].querySelector('.cell').focus()")
        page.press("2")
        page.until("document.querySelectorAll('.mended').length > 0")
        save(page, "it is a bee")
        saved(page, 3)
    assert hr.Dataset(tmp_path / "cats")[doubt].label_name == "bee" and len(hr.Dataset(tmp_path / "cats")) == 7


def test_without_edit_there_is_no_button(page: Browser, folder: Path) -> None:
    with viewing(page, hr.Dataset(folder)) as root:
        for path in ("", "record?id=dir/003.png", "history", "duplicates"):
            page.open(root + path)
            page.until("document.querySelector('#main > *') && document.querySelector('#busy').hidden")
            page.press("x")
            page.press("1")
            assert (
                page.script(
                    "return document.querySelectorAll('.tick, .mending, .mender, #dock > *, .ways button').length"
                )
                == 0
            )


def test_hostile_names_never_run(page: Browser, tmp_path: Path) -> None:
    ds = hostile(tmp_path / "cats")
    id_ = ds[0].id
    with viewing(page, ds, edit=True) as root:
        click(page, id_, ctrl=True)
        page.press("l")
        page.until("document.querySelector('dialog.asks')")
        page.script(
            "const f = document.querySelector('dialog.asks input'); f.value = arguments[0];"
            "f.dispatchEvent(new Event('input'))", f"new {HOSTILE[0]}"
        )  # fmt: skip
        page.click(".choice.new")
        page.until("document.querySelector('#why') && !document.querySelector('dialog.asks')")
        page.press("x")
        page.press("z")
        page.script("document.querySelector('#why').value = arguments[0]", HOSTILE[1])
        page.click("#dock .save")
        saved(page, 2)
        from urllib.parse import quote

        for path in ("", f"record?id={quote(id_)}", "history", "diff?before=1&after=2", "duplicates"):
            page.open(root + path)
            page.until("document.querySelector('#main > *') && document.querySelector('#busy').hidden")
            assert page.script("return document.title") != "ran"
            ran = ("script", "img[src=x]", "[onerror]", "[onmouseover]", "[onload]", "style")
            inside = ", ".join(f"#main {one}, #dock {one}, dialog {one}" for one in ran)
            assert page.script(f"return document.querySelectorAll('{inside}').length") == 0, path
    assert hr.Dataset(tmp_path / "cats").history[-1].why == HOSTILE[1]
    assert hr.Dataset(tmp_path / "cats")[id_].label_name == f"new {HOSTILE[0]}"


@pytest.mark.parametrize("path", ["", "record?id=dir/003.png", "history", "diff?before=1&after=2", "duplicates"])
def test_phone_and_screen_reader(page: Browser, folder: Path, path: str) -> None:
    with hr.edit(folder, why="a look at all that was there before, with many words about it") as e:
        e.relabel("cow", ids=["dir/003.png", hr.Dataset(folder)[0].id])
    with viewing(page, hr.Dataset(folder), edit=True) as root:
        click(page, "dir/003.png", ctrl=True)
        page.press("1")
        page.size(360, 740, phone=True)
        page.open(root + path)
        page.until(
            "document.querySelector('#main > *') && document.querySelector('#busy').hidden"
            " && document.querySelector('#why')"
        )
        assert page.script("return document.documentElement.scrollWidth") <= 360
        wide = (
            "return [...document.querySelectorAll('#main :is(button, select, input, .card, .cell), #dock *')].filter("
            "(one) => { const b = one.getBoundingClientRect(); return b.width && !one.closest('.mender') &&"
            " (b.right > 361 || b.left < -1); }).map((one) => one.outerHTML)"
        )
        assert page.script(wide) == []
        unnamed: list[Any] = page.script(
            "return [...document.querySelectorAll('button, a[href], input, select')].filter((one) =>"
            " getComputedStyle(one).display !== 'none' && !one.ariaLabel && !one.textContent.trim())"
            ".map((one) => one.outerHTML)"
        )
        assert unnamed == []


def test_mended_photo_keeps_its_place(page: Browser, tmp_path: Path) -> None:
    """The gallery is where it was after a save."""
    pack(photos(120), tmp_path / "cats")
    with viewing(page, hr.Dataset(tmp_path / "cats"), edit=True) as root:
        page.open(f"{root}?at=80")
        page.all_shown()
        first = page.script("return document.querySelector('.held').dataset.id")
        seen = page.script("return document.querySelectorAll('.held')[9].dataset.id")
        click(page, seen, ctrl=True)
        page.press("1")
        if not page.script("return Boolean(document.querySelector('#why'))"):
            page.press("2")  # it was that one
        save(page, "a look")
        saved(page, 2)
        page.all_shown()
        assert page.script("return document.querySelector('.held').dataset.id") == first
