"""Who is let in to the board, and what every answer tells the browser.

On the loopback anybody may ask, but only by a name of this machine: a page elsewhere that lets its own name point here
(DNS rebinding) is refused.  With a users file a name and a password are asked for, except by `/healthz`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from pipeline.board.pages import POLICY
from pipeline.serve.users import Authenticator

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_TO_ALL = "/healthz"
HEADERS: Mapping[str, str] = {
    "Server": "gigawatch",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Gigawatch", charset="UTF-8"'}
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Gate:
    """`authenticator`: None lets everybody in; `names`: the hosts that may be asked for, None any."""

    def __init__(self, authenticator: Authenticator | None, names: frozenset[str] | None) -> None:
        self._authenticator, self._names = authenticator, names

    @property
    def middleware(self) -> Middleware:
        """For an aiohttp application."""

        @web.middleware
        async def through(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = self._refusal(request)
            response = refused if refused is not None else await _answered(request, handler)
            response.headers.update({k: v for k, v in HEADERS.items() if k not in response.headers})
            return response

        return through

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._names is not None and host_of(request.headers.get("Host", "")) not in self._names:
            return web.Response(status=421, text="this board is asked by the names of its own machine only\n")
        if self._authenticator is None or request.path == OPEN_TO_ALL:
            return None
        address = request.remote or ""
        given = credentials(request.headers.get("Authorization", ""))
        if self._authenticator.blocked(address, given[0] if given else ""):
            words = "too many logins from your address have failed; wait a minute\n"
            return web.Response(status=429, text=words, headers={"Retry-After": "60"})
        if given is None or not self._authenticator.knows(*given, address):
            return web.Response(status=401, text="name and password, please\n", headers=CHALLENGE)
        return None


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:  # such as 404: it gets the headers too
        return web.Response(status=error.status, text=f"{error.reason}\n")


def host_of(header: str) -> str:
    """The host of a Host header, without its port and brackets; empty when it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def credentials(header: str) -> tuple[str, str] | None:
    """Name and password of basic authentication."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic" or len(value) > 1_000:
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None
