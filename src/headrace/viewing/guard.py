"""Who may ask the viewer's server: who comes by one of its names, knows its token, and is no page of somebody else.

A page of any site may send requests to this machine, and by a name that it makes point here (DNS rebinding) even read
the answers. So the Host is looked at first, then the cookie, and of what changes anything the Origin.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 32
_SAFE = ("GET", "HEAD")

# Pages run scripts of files beside them and no others. Notebooks of this machine may show them in a frame.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_NO_TOKEN = "This is a Headrace viewer. Open it by the whole address that it printed, with the token in it."


class Guard:
    """ASGI middleware: 400 for a Host that is none of `hosts`, 403 without the token or its cookie, and 403 for what
    changes anything and comes from another origin.

    The token in an address is exchanged for a cookie that scripts can't read and other sites don't send. `any_address`:
    addresses in numbers are taken too, which no site can make its own.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, cookie: str, hosts: Collection[str], any_address: bool = False
    ) -> None:
        self._app, self._token, self._cookie = app, token, cookie
        self._hosts, self._any_address = frozenset(hosts), any_address
        self._secret = secrets.token_urlsafe(TOKEN_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close"})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, sent)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is said instead of an answer, None where there is one."""
        headers = Headers(scope=scope)
        if not self._knows(headers.get("host", "")):
            return PlainTextResponse("Not a name of this viewer; see --allow-host.", 400)
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in asked if name == "token"]
        if any(_same(value, self._token) for value in given):
            return self._exchanged(scope["path"], [pair for pair in asked if pair[0] != "token"])
        if not _same(_cookie_of(headers.get("cookie", ""), self._cookie), self._secret):
            return PlainTextResponse(_NO_TOKEN, 403)
        if scope["method"] not in _SAFE and not self._is_ours(headers):
            return PlainTextResponse("Asked by a page of somebody else.", 403)
        if "\0" in scope["path"]:  # which some versions of Starlette look for on the disk
            return PlainTextResponse("There is no such page.", 404)
        return None

    def _exchanged(self, path: str, others: list[tuple[str, str]]) -> Response:
        """The cookie, and on to the same page without the token; from where the page is, as a proxy may shift it."""
        page = quote(path.rpartition("/")[2])
        query = f"?{urlencode(others)}" if others else ""
        answer = Response(status_code=303, headers={"location": f"./{page}{query}", "cache-control": "no-store"})
        answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="strict", path="/")
        return answer

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or (self._any_address and _is_address(name))

    def _is_ours(self, headers: Headers) -> bool:
        """Whether a page of this viewer asks. A proxy may have its own name, which is in `hosts`, as Host or not."""
        origin = urlsplit(headers.get("origin", ""))
        if origin.scheme not in ("http", "https"):
            return False
        local = origin.hostname in _LOOPBACK or self._any_address
        return origin.netloc == headers.get("host") or (not local and origin.hostname in self._hosts)


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookie_of(header: str, name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(header)
    except Exception:  # whatever a client sends
        return ""
    return cookies[name].value if name in cookies else ""
