"""Where a card leads: whom to call or write to, a silence in Alertmanager with its matchers filled in, Grafana's clause page.

Contracts and labels come from outside, and are data: what they say is escaped in every address, and of what a contact
says only numbers, mail addresses and addresses of the web become links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from pipeline.board.text import LINK, link
from pipeline.notify.wire_text import wire_labels

BEFORE = timedelta(minutes=30)
"""So much of what was before an alert Grafana shows."""
DIGITS = range(7, 16)
"""How many an international number may have (E.164: fifteen at most)."""
_REACHED = re.compile(
    r"(?P<web>https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]])"
    r"|(?P<mail>(?<![\w.%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-]))"
    r"|(?P<call>(?<!\w)\+\d(?:[ ()./\u00a0-]{0,3}\d){4,20})"
)
_VIEW = re.compile(r"\bFROM ([a-z_0-9]+)\b")
"""The view of raw events in an alert's SQL."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Addresses for a browser, without a slash at the end; empty where there is none."""

    alertmanager: str = ""
    grafana: str = ""


NOWHERE = Elsewhere()


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a text, and where it leads; `href` is empty for plain words."""

    text: str
    href: str = ""


def parts_of(contact: str) -> Iterator[Part]:
    """A contact's words, with numbers in international form, mail addresses and addresses of the web as links."""
    end = 0
    for found in _REACHED.finditer(contact):
        if href := _href(found):
            if found.start() > end:
                yield Part(contact[end : found.start()])
            yield Part(found[0], href)
            end = found.end()
    if end < len(contact):
        yield Part(contact[end:])


def _href(found: re.Match[str]) -> str:
    if found["web"]:
        return link(found["web"])
    if found["mail"]:
        return f"mailto:{quote(found['mail'], safe='@')}"
    digits = re.sub(r"\D", "", found["call"].replace("(0)", ""))
    return f"tel:+{digits}" if len(digits) in DIGITS else ""


def silence_link(elsewhere: Elsewhere, labels: Mapping[str, str], alertname: str) -> str:
    """Alertmanager's form for a new silence of exactly this alert; empty without an Alertmanager."""
    if not elsewhere.alertmanager:
        return ""
    named = sorted(wire_labels(labels, alertname).items(), key=lambda pair: (pair[0] != "alertname", pair))
    matchers = ", ".join(f"{name}={_quoted(value)}" for name, value in named)
    return _short_enough(
        f"{elsewhere.alertmanager}/#/silences/new?filter={quote('{' + matchers + '}', safe='')}"
    )


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def grafana_link(
    elsewhere: Elsewhere, contract: str, clause: str, region: str | None, since: datetime, sql: str | None
) -> str:
    """Grafana's clause page, from half an hour before `since` (UTC, naive) until now; empty without a Grafana."""
    if not elsewhere.grafana:
        return ""
    begins = (since - BEFORE).replace(tzinfo=UTC).timestamp()
    view = _VIEW.search(sql or "")
    chosen = {
        "var-contract": contract, "var-clause": clause, "var-region": region or "$__all",
        **({"var-events": view[1]} if view else {}), "from": f"{begins * 1000:.0f}", "to": "now",
    }  # fmt: skip
    return _short_enough(
        f"{elsewhere.grafana}/d/gigawatch-clause?{urlencode(chosen, errors='replace', quote_via=quote)}"
    )


def _short_enough(url: str) -> str:
    """Labels may be of any length, and no server takes an address of any length."""
    return url if len(url) <= LINK else ""
