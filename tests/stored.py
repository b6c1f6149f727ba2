"""Object stores for tests: S3 as moto's server plays it, a proxy to it, and a web server with faults."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import logging
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
# As sure as the defaults, and quicker to be sure: by few tries, not by short limits, which no busy machine keeps.
QUICK: dict[str, Any] = {
    "client_options": {"timeout": "60s", "connect_timeout": "30s"},
    "retry_config": {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=180),
        "backoff": {"init_backoff": timedelta(milliseconds=10), "max_backoff": timedelta(milliseconds=50), "base": 2},
    },
}


class Bucket:
    """A bucket of a store that plays S3, and what tests want to know of it and do to it behind everybody's back."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint, self.name = endpoint, name
        self.url = f"s3://{name}"
        self.environment = KEYS | {"AWS_ENDPOINT_URL": endpoint}

    def _backend(self) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"].buckets[self.name]

    @property
    def objects(self) -> dict[str, bytes]:
        """Key -> content."""
        return {key: one.value for key, one in sorted(self._backend().keys.items())}

    @property
    def uploads(self) -> int:
        """Multipart uploads that were neither ended nor aborted."""
        return len(self._backend().multiparts)

    def age(self, *, hours: float, only: str = "") -> None:
        """All objects of these keys are older than they are."""
        for key, one in self._backend().keys.items():
            if only in key:
                one.last_modified = one.last_modified - timedelta(hours=hours)

    def put(self, key: str, data: bytes) -> None:
        from moto.s3.models import s3_backends

        s3_backends["123456789012"]["aws"].put_object(self.name, key, data)

    def delete(self, key: str) -> None:
        self._backend().keys.pop(key)

    def _request(self, method: str, path: str, data: bytes = b"") -> None:
        at = urlsplit(self.endpoint)
        with contextlib.closing(http.client.HTTPConnection(at.hostname or "", at.port)) as connection:
            connection.request(method, path, data)
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 300, (method, path, answer.status)


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """The endpoint of a server that plays S3, in a thread of this process."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        running.stop()


_buckets = Counter[str]()


def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, name: str = "") -> Bucket:
    """A new bucket, whose store the environment of this process names."""
    _buckets["all"] += 1
    made = Bucket(endpoint, name or f"bucket-{_buckets['all']}")
    made._request("PUT", f"/{made.name}")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return made


class Quiet(http.server.ThreadingHTTPServer):
    """A server that says nothing of clients that go away, and knows how many of them it has."""

    daemon_threads = True
    request_queue_size = 128  # the system drops the connection that finds it full, and tries again a second later

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clients, self._lock = 0, threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, *arguments: Any) -> None:
        with self._lock:
            self.clients += 1
        super().process_request(*arguments)

    def shutdown_request(self, *arguments: Any) -> None:
        super().shutdown_request(*arguments)
        with self._lock:
            self.clients -= 1

    def settle(self) -> None:
        """Waits until all is done that clients asked for who are gone by now."""
        with socket.create_connection(("127.0.0.1", self.server_port)) as last:  # clients are taken one after the other
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        until(lambda: self.clients == 0)

    def handle_error(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server in threads of this process."""
    with running(handler) as server:
        yield server.address


@contextlib.contextmanager
def running(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[Quiet]:
    """A server in threads of this process."""
    server = Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Faults:
    """What goes wrong with answers to requests for files of a folder: `plan(n)` of the n-th request for a file, from 1
    on, says how, one of None, "503", "403", "drop", "cut", "stall", "short" (a smaller range than was asked
    for), "long" (more than the range that it is said to be), "whole" (no Range)."""

    def __init__(self, folder: Path, plan: Callable[[int], str | None] = lambda n: None) -> None:
        self.folder, self.plan = folder, plan
        self.asked: Counter[str] = Counter()
        self.ended = threading.Event()  # ends those who stall
        self.lock = threading.Lock()


def faulty(faults: Faults) -> type[http.server.BaseHTTPRequestHandler]:
    """A web server of a folder, with Range and e-tags and faults. Any first part of a path is a bucket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
            with faults.lock:
                faults.asked[name] += 1
                how = faults.plan(faults.asked[name])
            path = faults.folder / name
            if how in ("503", "403"):
                return self.answer(int(how), b"")
            if how == "drop":
                self.connection.shutdown(2)
                self.close_connection = True
                return None
            if not path.is_file():
                return self.answer(404, b"")
            data = path.read_bytes()
            found = None if how == "whole" else re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            self.tag = f'"{path.stat().st_mtime_ns:x}-{len(data):x}"'
            if found is None:
                return self.answer(200, data, how)
            begin, end = int(found[1]), min(int(found[2]) + 1, len(data))
            if begin >= len(data):
                return self.answer(416, b"")
            if how == "short":
                end = (begin + end) // 2
            more = 50 if how == "long" else 0
            return self.answer(206, data[begin : end + more], how, f"bytes {begin}-{end - 1}/{len(data)}")

        do_HEAD = do_GET
        tag = '"none"'

        def answer(self, status: int, data: bytes, how: str | None = None, range_: str | None = None) -> None:
            self.send_response(status)
            self.send_header("ETag", self.tag)
            self.send_header("Last-Modified", "Sun, 29 Nov 2026 12:00:00 GMT")
            self.send_header("Content-Length", str(len(data)))
            if range_ is not None:
                self.send_header("Content-Range", range_)
            self.end_headers()
            if self.command == "HEAD":
                return
            if how in ("cut", "stall"):
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                if how == "stall":
                    faults.ended.wait(300)
                self.connection.shutdown(2)
                self.close_connection = True
                return
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def proxy(
    endpoint: str,
    *,
    drops: tuple[str, ...] = (),
    loses: Callable[[str, str], bool] = lambda method, path: False,
    step: Callable[[], None] = lambda: None,
) -> type[http.server.BaseHTTPRequestHandler]:
    """What passes requests on to a store without the headers that it `drops`, and where it `loses` one, its answer.

    `step` is called before each request is passed on, and before each answer is.
    """
    at = urlsplit(endpoint)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in drops}
            step()
            with contextlib.closing(http.client.HTTPConnection(at.hostname or "", at.port)) as connection:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
            step()
            if loses(self.command, self.path):
                self.connection.shutdown(2)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def until(condition: Callable[[], bool], *, seconds: float = 300) -> None:
    """Waits until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.01)
