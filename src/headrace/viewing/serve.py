"""Starting the viewer: a port, a token, a server, and somebody who looks. What it serves is left to `server`."""

from __future__ import annotations

import contextlib
import errno
import html
import ipaddress
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import MissingExtraError, UsageError
from headrace.format.frames import check_process
from headrace.load.dataset import Dataset

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")
_BACKLOG = 128
_FRAME_HEIGHT = 720  # pixels of a notebook


@dataclass(frozen=True)
class Address:
    """Where a viewer is: `url` holds the token; `warning` says what it means that others can reach it."""

    url: str
    port: int
    warning: str | None = None


class Viewer:
    """A server that looks at a dataset, and listens once it is made. `run` serves until it is interrupted, `start` on a
    thread of its own until `close`. `edit`: pages may make versions of it. Raises UsageError (the port is taken, no
    such host, nothing that can be edited), MissingExtraError, NotThereError.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        run: Path | str | None = None,
        edit: bool = False,
        host: str = HOST,
        port: int = 0,
        allow_hosts: Sequence[str] = (),
    ) -> None:
        check_process("view()")
        try:
            import uvicorn

            from headrace.viewing.guard import TOKEN_BYTES
            from headrace.viewing.server import application
            from headrace.viewing.session import Session
        except ImportError as error:
            raise MissingExtraError(
                "the viewer needs Starlette and uvicorn; run: pip install 'headrace[view]'"
            ) from error
        session = Session(dataset, None if run is None else Path(run), edit=edit)
        self._socket = _listening(host, port)
        bound = int(self._socket.getsockname()[1])
        token = secrets.token_urlsafe(TOKEN_BYTES)
        everywhere = host in _EVERYWHERE
        names = {"localhost", "127.0.0.1", "::1", host.lower(), *(name.lower() for name in allow_hosts)}
        if everywhere:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        app = application(session, token=token, cookie=f"headrace-{bound}", hosts=names, any_address=_is_open(host))
        shown = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
        warning = None
        if _is_open(host):
            warning = (
                f"everybody who reaches {shown} by the network can try to connect; only who has the token in the "
                "address sees anything, but the way is not encrypted: who listens to it can read token and images"
            )
        self.address = Address(f"http://{shown}:{bound}/?token={token}", bound, warning)
        # Nothing of it is logged: addresses hold the token.
        config = uvicorn.Config(
            app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1, server_header=False,
            ws="none",
        )  # fmt: skip
        self._server: uvicorn.Server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serves until Ctrl-C, which ends it well."""
        with contextlib.suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._socket])

    def start(self) -> Viewer:
        """Serves on a thread that doesn't keep the process alive; once it does, nothing."""
        if self._thread is not None:
            return self
        self._thread = threading.Thread(target=self._on_thread, name="headrace viewer", daemon=True)
        self._thread.start()
        return self

    def _on_thread(self) -> None:
        import asyncio

        asyncio.run(self._server.serve(sockets=[self._socket]))

    def close(self) -> None:
        """Ends the server, and its thread."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> Viewer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Viewer({self.address.url})"

    def _repr_html_(self) -> str:
        """A frame for notebooks. Cookies go to a page of the same site only: under the name that the notebook has."""
        port, path = self.address.port, self.address.url.partition(f":{self.address.port}")[2]
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")  # where jupyter-server-proxy leads to ports
        source = f"{prefix.rstrip('/')}/proxy/{port}{path}" if prefix else f"http://localhost:{port}{path}"
        here = html.escape(source, quote=True)
        return (
            f'<iframe src="{here}" width="100%" height="{_FRAME_HEIGHT}" '
            'style="border:1px solid #8884;border-radius:10px"></iframe>'
            f'<div style="font-size:12px"><a href="{here}" target="_blank" rel="noopener">open in a tab of its own</a>'
            "</div>"
        )


def view(
    dataset: Dataset,
    *,
    run: Path | str | None = None,
    edit: bool = False,
    host: str = HOST,
    port: int = 0,
    allow_hosts: Sequence[str] = (),
    browser: bool = True,
) -> Viewer:
    """A viewer that serves on a thread; elsewhere than in a notebook, which shows it, its address is printed and a
    browser opened where there is one. Raises as `Viewer`."""
    viewer = Viewer(dataset, run=run, edit=edit, host=host, port=port, allow_hosts=allow_hosts).start()
    if viewer.address.warning:
        print(f"headrace: {viewer.address.warning}", file=sys.stderr)
    if not _in_notebook():
        print(viewer.address.url)
        if browser:
            open_browser(viewer.address.url)
    return viewer


def open_browser(url: str) -> bool:
    """Whether a browser was there to be opened, without a word of it on our outputs."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False  # else a browser of the terminal takes it over
    with _silent():
        try:
            return webbrowser.open(url)
        except (webbrowser.Error, OSError):
            return False


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """While it lasts, nothing that a started program prints reaches the terminal."""
    kept = os.dup(1), os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nothing, number)
        yield
    finally:
        for number, own in zip((1, 2), kept, strict=True):
            os.dup2(own, number)
            os.close(own)
        os.close(nothing)


def _in_notebook() -> bool:
    shell: Callable[[], Any] | None = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell is not None and type(shell()).__name__ == "ZMQInteractiveShell"


def _is_open(host: str) -> bool:
    """Whether others than this machine can reach it."""
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    if not 0 <= port < 1 << 16:
        raise UsageError(f"port is {port}, wanted 0 (any free one) to 65535")
    listening: socket.socket | None = None
    try:
        family, kind, number, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(_BACKLOG)
        return listening
    except OSError as error:
        if listening is not None:
            listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port is {port}, and another program listens there; port=0 takes any free one") from None
        if isinstance(error, socket.gaierror):
            raise UsageError(f"host is {host!r}, which is no name or address of this machine") from None
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"host {host}, port {port}: can't listen there: {reason}") from None
