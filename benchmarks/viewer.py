"""The viewer over a million records with three million boxes: until it is ready, memory, conditions, thumbnails.

    python benchmarks/viewer.py [--records 1000000] [--folder DIR] [--clients 4] [--json [FILE]]

A dataset of RECORDS tiny PNGs with three boxes each is made below DIR, and one of 2,000 drawn JPEGs of 160 x 160. Then
`headrace view` is started on the first, as a person does it: `ready` is the time from there until its page is answered,
`memory` what the process holds itself (USS) after all the questions below. Each condition is asked for the first time,
with an answer of 100 records; `deep` are 100 records at 50 random places. Thumbnails of 128 pixels are fetched by
CLIENTS threads of another process with a connection each, of the second dataset. Where there is Chromium with selenium,
its scrollbar is moved to 12 places, and the time taken until every image seen is there (median and worst).

Result: see README.md beside this file.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from _measure import facts, markdown, publish

JPEGS, SIDE = 2_000, 160
QUESTIONS = {
    "width > 4": "where",
    "label_name = 'class 3'": "where",
    "id LIKE '%77.png'": "where",
    "ARRAY_LENGTH(boxes) > 2": "where",
    "thing 1": "box",
    "6": "box_min",
    "class 5": "label",
    "12345": "find",
}


class Asked:
    """A connection to a viewer, with its cookie."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._at = parts.hostname or "", parts.port or 0
        self._open = http.client.HTTPConnection(*self._at)
        self._open.request("GET", f"/?{parts.query}")
        answer = self._open.getresponse()
        answer.read()
        self.cookie = (answer.getheader("set-cookie") or "").partition(";")[0]

    def __call__(self, path: str) -> bytes:
        self._open.request("GET", path, headers={"Cookie": self.cookie})
        answer = self._open.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {data[:200]!r}")
        return data


@contextmanager
def viewer(dataset: Path) -> Iterator[tuple[str, float, psutil.Process]]:
    """`headrace view`: its address, the seconds until its page was there, its process."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "headrace", "view", str(dataset), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            Asked(url)("/")
            yield url, time.perf_counter() - begin, psutil.Process(process.pid)
        finally:
            process.terminate()


def make(folder: Path, records: int) -> tuple[Path, Path]:
    import numpy as np

    import headrace as hr
    from _synthetic import write
    from headrace.imaging.codec import encode_jpeg

    write(folder / "many", records, boxes=True)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE

    def drawn(k: int) -> bytes:
        rng = np.random.default_rng(k)
        waves = np.stack([np.sin(9 * x * a + 7 * y * b) for a, b in rng.uniform(0.2, 2, (3, 2))], axis=-1)
        return encode_jpeg((waves * 90 + 128 + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8))

    hr.pack((hr.Record(id=f"{k}.jpg", encoded=drawn(k)) for k in range(JPEGS)), folder / "jpegs", progress=False)
    return folder / "many", folder / "jpegs"


def conditions(url: str, records: int) -> dict[str, Any]:
    asked, found = Asked(url), {}
    begin = time.perf_counter()
    asked("/api/records?n=100")
    found["first page"] = {"ms": 1000 * (time.perf_counter() - begin), "records": records}
    for question, parameter in QUESTIONS.items():
        begin = time.perf_counter()
        answer = json.loads(asked(f"/api/records?n=100&{parameter}={quote(question)}"))
        found[f"{parameter}: {question}"] = {
            "ms": 1000 * (time.perf_counter() - begin),
            "records": answer["total"],
        }
    for sort in ("-pixels", "-largest", "id"):
        begin = time.perf_counter()
        asked(f"/api/records?n=100&sort={sort}")
        found[f"sort: {sort}"] = {"ms": 1000 * (time.perf_counter() - begin), "records": records}
    begin = time.perf_counter()
    asked("/api/measures")
    found["histograms"] = {"ms": 1000 * (time.perf_counter() - begin), "records": records}
    places = random.Random(0).sample(range(records - 100), 50)
    times = []
    for place in places:
        begin = time.perf_counter()
        asked(f"/api/records?n=100&first={place}")
        times.append(1000 * (time.perf_counter() - begin))
    found["deep"] = {"ms": median(times), "records": 100}
    return found


def thumbnails(url: str, clients: int) -> float:
    """Per second, fetched by a process of its own."""
    command = [sys.executable, __file__, "--fetch", url, "--clients", str(clients)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def fetch(url: str, clients: int) -> float:
    asked = [Asked(url) for _ in range(clients)]

    def some(k: int) -> None:
        for row in range(k, JPEGS, clients):
            asked[k](f"/thumbnail/{row}?side=128")

    some(0)  # warm
    threads = [threading.Thread(target=some, args=(k,)) for k in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return JPEGS / (time.perf_counter() - begin)


def scrolled(url: str) -> dict[str, float] | None:
    """Milliseconds until all that is seen is there, after the scrollbar moved; None without a browser."""
    try:
        from selenium import webdriver
    except ImportError:
        return None
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    complete = """
        const done = arguments[arguments.length - 1], begin = performance.now();
        const scroller = document.querySelector('.scroller');
        if (arguments[0] !== null) scroller.scrollTop = arguments[0] * (scroller.scrollHeight - scroller.clientHeight);
        const look = () => {
          const images = [...document.querySelectorAll('.cell img')];
          const all = images.length && !document.querySelector('li.waits') && images.every((one) => one.classList.contains('there'));
          if (all) done(performance.now() - begin); else requestAnimationFrame(look);
        };
        requestAnimationFrame(() => requestAnimationFrame(look));
    """  # noqa: E501
    try:
        begin = time.perf_counter()
        browser.set_script_timeout(60)
        browser.get(url)
        browser.execute_async_script(complete, None)
        first = 1000 * (time.perf_counter() - begin)
        places = [0.5, 0.98, 1, 0.12, 0.77, 0.31, 0.05, 0.66, 0.9, 0.43, 0.2, 0]
        times = [browser.execute_async_script(complete, place) for place in places]
        return {"first_page_ms": first, "jump_ms": median(times), "worst_jump_ms": max(times)}
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the datasets are made; default: that of temporary files")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", type=Path, nargs="?", const=Path("-"))
    parser.add_argument("--fetch", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fetch:
        print(fetch(args.fetch, args.clients))
        return
    os.environ.pop("DISPLAY", None)
    report = facts("viewer")
    with TemporaryDirectory(prefix="headrace-bench-", dir=args.folder) as scratch:
        many, jpegs = make(Path(scratch), args.records)
        with viewer(many) as (url, ready, process):
            questions = conditions(url, args.records)
            scrolling = scrolled(url)
            memory = process.memory_full_info().uss / 1e6
        with viewer(jpegs) as (url, _, _):
            rate = thumbnails(url, args.clients)
    report["job"] = {"records": args.records, "boxes": 3 * args.records, "clients": args.clients}
    report |= {"ready_s": ready, "memory_mb": memory, "thumbnails_per_s": rate}
    report |= {"questions": questions, "scrolling": scrolling}
    rows = [("ready", f"{ready:.2f} s", ""), ("memory", f"{memory:.0f} MB", "")]
    rows.append(("thumbnails", f"{rate:.0f} / s", ""))
    rows += [(name, f"{of['ms']:.0f} ms", f"{of['records']:,}") for name, of in questions.items()]
    rows += [(name.removesuffix("_ms"), f"{ms:.0f} ms", "Chromium") for name, ms in (scrolling or {}).items()]
    publish(report, markdown(("what", "", "records"), rows), args.json)


if __name__ == "__main__":
    main()
