"""What this process was told and must not repeat: passwords, tokens, the paths of webhooks.

Client libraries write their configuration into the log, receivers repeat an address in their answer, and an exception
quotes what it was given.  So the values are known here, and whatever leaves the process for a log, a terminal, the
ledger or a status goes through `hidden`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "•••"
LEAST = 4
"""Characters: what is shorter stands in every other word, and protects nothing."""
LEAST_PATH = 8
"""The same for the path of a webhook: `/alerts` is none."""

_forms: dict[str, None] = {}
"""Every way in which a secret may be spelled; the longest first."""


def keep(value: str) -> str:
    """The value, which `hidden` takes out of texts from now on."""
    if len(value) >= LEAST:
        found = sorted({*_forms, *_spelled(value)}, key=len, reverse=True)
        _forms.clear()
        _forms.update(dict.fromkeys(found))
    return value


def keep_url(url: str, path: bool) -> None:
    """What of a URL is secret: its user and password, and with `path` all behind the host."""
    try:
        parts = urlsplit(url)
    except ValueError:  # it is refused elsewhere
        return
    if parts.password:
        keep(parts.password)
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        keep(unquote(parts.password))
        keep(base64.b64encode(pair.encode()).decode())
    if parts.username and not parts.password:  # a token in its place
        keep(unquote(parts.username))
    behind = url.partition("://")[2].partition("/")[2].rstrip("/")
    if path and len(behind) >= LEAST_PATH:
        keep(behind)


def hidden(text: str) -> str:
    """The text without any secret that was kept."""
    for form in _forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    return text


def _spelled(value: str) -> Iterator[str]:
    """As it is, as Python and JSON quote it, in a URL, and as Base64."""
    raw = value.encode(errors="backslashreplace")
    for plain in (value, repr(value)[1:-1], repr(raw)[2:-1]):
        yield from (plain, json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1])
    yield from (quote(raw), quote(raw, safe=""), base64.b64encode(raw).decode())
