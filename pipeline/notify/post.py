"""One HTTP POST of JSON, and what its answer means for a delivery."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from pipeline.errors import SettingsError
from pipeline.notify.destination import DeliveryRefused, NotAccepted

# Alertmanager answers in milliseconds, a chat service's webhook within a few seconds.
REQUEST_TIMEOUT = 10.0
# Of an answer that is an error, so much is kept as the reason.
ERROR_TEXT = 300
# About the body itself.  401, 403, 404, 405, 407 and 410 are about settings that somebody will mend, 408, 425
# and 429 about the moment: those are retried, so that a wrong token never throws a page away.
REFUSALS = frozenset({400, 413, 414, 415, 422, 431})


def checked_url(url: str, setting: str) -> str:
    """The URL without a trailing slash.  Raises SettingsError unless it is an absolute http(s) URL.

    What is no URL is quoted as far as its host: what follows may be the secret of a chat's webhook.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, a port above 65535
        good = False
    if not good:
        raise SettingsError(
            f"{setting}: found {_beginning(url)!r}, expected an address such as http://127.0.0.1:9093"
        )
    return url.rstrip("/")


def shown(url: str) -> str:
    """The URL as it may appear in an error: no user, password, query or fragment, which can hold secrets."""
    return f"{origin(url)}{urlsplit(url).path}"


def origin(url: str) -> str:
    """Scheme, host and port: all that may appear of a webhook's URL, whose path is its password."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _beginning(url: str) -> str:
    """What a wrong URL begins with, up to its host; no host where a user may stand before it."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*(?::/{0,2}|//))?([^/?#]*)", url)
    scheme, host = (match[1] or "", match[2]) if match else ("", "")
    found = scheme if "@" in url else scheme + host
    return found if found == url else f"{found}…"


def _retry_after(value: str | None) -> float | None:
    """The header's seconds; its other form, a date, is ignored: our own backoff serves as well."""
    return float(value) if value and re.fullmatch(r"\d{1,6}", value) else None


async def _start_of(answer: httpx.Response) -> str:
    """The first ERROR_TEXT characters of an answer; a receiver that streams for ever is left there."""
    text = b""
    async for piece in answer.aiter_bytes():
        text += piece
        if len(text) >= ERROR_TEXT:
            break
    return " ".join(text[:ERROR_TEXT].decode(errors="replace").split())


async def post_json(
    client: httpx.AsyncClient,
    url: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    timeout: float = REQUEST_TIMEOUT,
    called: str | None = None,
) -> None:
    """Returns on any 2xx.  Raises DeliveryRefused (the body is at fault) or NotAccepted (try again).

    `called`: what errors call the URL, if not by its host and path.  `timeout` in seconds is for the request as a
    whole: httpx's own count from byte to byte, and a receiver that sends one byte a second would hold a delivery for
    ever.
    """
    where = f"POST {called or shown(url)}"
    try:
        async with asyncio.timeout(timeout):
            sent = {"content-type": "application/json", **(headers or {})}
            async with client.stream("POST", url, content=body, headers=sent, timeout=timeout) as answer:
                if answer.is_success:
                    return
                reason = f"{where}: HTTP {answer.status_code}: {await _start_of(answer)}"
    except (TimeoutError, httpx.TimeoutException):
        raise NotAccepted(f"{where}: no answer within {timeout:g} s") from None
    except (httpx.HTTPError, httpx.StreamError) as fault:
        raise NotAccepted(f"{where}: {type(fault).__name__}: {fault}") from fault
    if answer.status_code in REFUSALS:
        raise DeliveryRefused(reason)
    raise NotAccepted(reason, _retry_after(answer.headers.get("retry-after")))
