"""Instants and numbers as text, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal


def utc(t: int) -> str:
    """The instant `t` as RFC 3339."""
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%dT%H:%M:%SZ}"


def short(t: float) -> str:
    """The instant `t` in few words, for a line."""
    return f"{datetime.fromtimestamp(t, UTC):%-d %b %H:%M} UTC"


def number(value: float | Decimal | None) -> str:
    """A number for people: grouped thousands, no more digits than matter."""
    if value is None:
        return "unknown"
    if isinstance(value, Decimal) or abs(value) >= 1000:
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:.4g}"
