"""Text from outside as the board shows it: of bounded length, without tricks; links only where they lead to the web.

Escaping is the template's business (it escapes everything).  Here is what escaping does not do: characters that
turn the reading direction, labels of megabytes, addresses that run a script.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.notify.wire_text import annotation_value, label_value, wire_url
from pipeline.serve.terminal import quantity

LABEL, PROSE, LINK = 120, 600, 2_000


def short(text: object, limit: int = LABEL) -> str:
    """One line of at most `limit` characters; what could steer the eye or a screen is a visible escape."""
    line = label_value("" if text is None else text)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def lines(text: object) -> str:
    """Several lines, such as SQL, of at most 8,192 characters."""
    return annotation_value("" if text is None else text)


def link(address: object) -> str:
    """The address if it is http or https and could be typed, else nothing: then it is shown as text."""
    url = wire_url("" if address is None else str(address))
    return url if len(url) <= LINK else ""


def amount(value: Any, unit: object) -> str:
    """A number with its unit as people say it: `1,208 GPUs`, `4m12s`, `9.74M USD`; a dash where there is none."""
    return quantity(None if value is None else float(value), short(unit, 20)).strip()


def beyond(observed: Any, bound: Any, unit: object) -> str:
    """How far the number is from what was promised, in words; empty where there is nothing to compare."""
    if observed is None or bound is None or observed == bound:
        return ""
    away = float(observed) - float(bound)
    return f"{amount(abs(away), unit)} {'above' if away > 0 else 'below'}"


def at_time(at: datetime | float) -> str:
    """The same for a sentence: `29 Nov 23:10:12 UTC`."""
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.replace(tzinfo=UTC)
    return f"{moment:%d %b %H:%M:%S UTC}"


def instant(at: datetime | float | None) -> str:
    """RFC 3339 in UTC to the second, for `<time datetime>`; empty where there is none."""
    if at is None:
        return ""
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.replace(tzinfo=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
