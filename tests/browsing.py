"""A real browser, Chromium as Debian has it, that looks at the viewer's pages; and requests without one."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

PATIENCE = 120  # seconds until a page that never comes to be what is waited for fails the test


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a viewer as a browser does: `cookie` once it has one."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.query = parts.hostname or "", parts.port or 0, parts.query
        self.cookie: str | None = None

    def __call__(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            known = {} if self.cookie is None else {"Cookie": self.cookie}
            said = known | {k.replace("_", "-"): v for k, v in headers.items()}
            connection.request(method, f"/{path}", body, said)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def enter(self) -> Client:
        """Exchanges the token for the cookie."""
        answer = self(f"?{self.query}")
        assert answer.status == 303
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self


class Browser:
    """Chromium with one page. `script` runs in the page and gives back what it returns."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, code: str, *arguments: Any) -> Any:
        """Waits until the page says something true of this."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(
                lambda _: self.script(f"return {code}", *arguments)
            )
        except TimeoutException:
            text = self.script("return document.body.innerText")[:600]
            raise AssertionError(f"{code} never came true; the page says: {text}; {self.complaints()}") from None

    def text(self, selector: str = "body") -> str:
        found: str = self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return found

    def click(self, selector: str) -> None:
        self.until("document.querySelector(arguments[0])", selector)
        self.script("document.querySelector(arguments[0]).click()", selector)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """What the console got since the last question: errors, refusals of the policy, files that were not there."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )

    def dark(self, on: bool) -> None:
        """As a system that prefers the dark."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, path: Path) -> None:
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(shot["data"]))

    def all_shown(self) -> None:
        """Waits until what is seen of a grid is complete."""
        self.until(
            "document.querySelector('.cell') && !document.querySelector('li.waits') && "
            "[...document.querySelectorAll('.cell img')].every((image) => image.classList.contains('there'))"
        )


@contextmanager
def browser(width: int = 1400, height: int = 900) -> Iterator[Browser]:
    """A fresh one. Skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        started.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        yield Browser(started)
    finally:
        started.quit()
