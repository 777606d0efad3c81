"""Durations, dates and money as a contract writes them.

Every function raises `Unreadable`, which says what was expected; the loader adds the place.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from pipeline.contract.faults import Unreadable, did_you_mean
from pipeline.rollup.grid import DAY as DAY

A_DURATION = "a duration such as '90s', '15m', '2h', '7d' or 'PT15M'"
A_DATE = "a date such as '2026-11-01' or '2026-11-01T18:00' (a zone such as 'Z' or '+01:00' may follow)"
A_ZONE = "an IANA time zone such as 'Europe/Berlin' or 'UTC'"
AN_AMOUNT = "an amount of money such as 1250000 or '1250000.50'"

#: Beyond a century a duration or a date is a slip of the pen.
MAX_SECONDS = 36_500 * DAY
YEARS = range(1970, 2200)

_SHORT = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_ISO = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.ASCII)
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?(Z|[+-]\d\d:\d\d)?)?", re.ASCII | re.IGNORECASE
)
_MONEY = re.compile(r"-?\d{1,22}(\.\d{1,10})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)


class Duration(NamedTuple):
    """`days` are calendar days where a calendar matters (RFC 5545: nominal), `seconds` always exact."""

    days: int
    seconds: int

    @property
    def exact(self) -> int:
        """Seconds, with every day counted as 24 h."""
        return self.days * DAY + self.seconds


def duration(text: str) -> Duration:
    """`15m`, `1h30m`, `7d`, or the ISO 8601 forms with weeks, days, hours, minutes and seconds."""
    match = _SHORT.fullmatch(text) or _ISO.fullmatch(text)
    if not match or not any(match.groups()) or text.endswith("T"):
        raise Unreadable(A_DURATION, _duration_hint(text))
    if any(len(part or "") > 12 for part in match.groups()):
        raise Unreadable("a duration of at most 100 years")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    found = Duration(weeks * 7 + days, hours * 3600 + minutes * 60 + seconds)
    if found.exact > MAX_SECONDS:
        raise Unreadable("a duration of at most 100 years")
    return found


def _duration_hint(text: str) -> str:
    """The duration that was probably meant: a bare number, `15 min`, `2 hours`."""
    words = re.fullmatch(r"(\d+)\s*(s|m|h|d|w)?[a-z]*", text.strip().casefold(), re.ASCII)
    return f"did you mean '{words[1]}{words[2] or 's'}'?" if words else ""


def zone(name: str) -> ZoneInfo:
    if name not in _zones():
        raise Unreadable(A_ZONE, did_you_mean(name, (z for z in _zones() if "/" in z)))
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    """Names that mean the same on every machine."""
    return frozenset(available_timezones() | {"UTC"}) - {"localtime", "Factory", "posixrules"}


def instant(text: str, local: ZoneInfo) -> int:
    """Epoch seconds of a date or time: without a zone, `local` wall time; a date alone, its midnight."""
    wall, offset = _parts(text)
    return epoch(wall, local) if offset is None else round((wall - _EPOCH).total_seconds()) - offset


def wall_time(text: str, local: ZoneInfo) -> datetime:
    """What a clock on the wall in `local` shows at that date or time (naive, for recurrences)."""
    wall, offset = _parts(text)
    if offset is None:
        return wall
    return datetime.fromtimestamp(instant(text, local), UTC).astimezone(local).replace(tzinfo=None)


def day(text: str) -> date:
    """A calendar date without a time."""
    wall, offset = _parts(text)
    if len(text) != 10 or offset is not None:
        raise Unreadable("a date such as '2026-12-25'")
    return wall.date()


def epoch(wall: datetime, local: ZoneInfo) -> int:
    """Epoch seconds of a naive wall-clock time, as RFC 5545, section 3.3.5, reads it.

    `fold=0` means just that: of two equal local times the first, in a gap the offset before it.
    """
    offset = local.utcoffset(wall.replace(fold=0))
    assert offset is not None
    return round((wall - _EPOCH).total_seconds() - offset.total_seconds())


def _parts(text: str) -> tuple[datetime, int | None]:
    """(naive time, offset from UTC in seconds or None)."""
    match = _DATE.fullmatch(text)
    if not match:
        raise Unreadable(A_DATE)
    *numbers, offset = match.groups()
    try:
        wall = datetime(*(int(number or 0) for number in numbers))  # type: ignore[arg-type]
    except ValueError as error:
        raise Unreadable(f"a date of the calendar ({error})") from error
    if wall.year not in YEARS:
        raise Unreadable(f"a year from {YEARS[0]} to {YEARS[-1]}")
    return wall, None if offset is None else _offset(offset)


def _offset(text: str) -> int:
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 14 or minutes > 59:
        raise Unreadable(A_DATE)
    return (hours * 3600 + minutes * 60) * (-1 if text[0] == "-" else 1)


def money(value: object) -> Decimal:
    """A decimal, exactly as written; the file's reader never made a binary float of it."""
    text = value.strip() if isinstance(value, str) else str(value)
    if isinstance(value, Decimal):
        text = format(value, "f")
    if isinstance(value, bool) or not _MONEY.fullmatch(text):
        plain = re.sub(r"[,_'\s]", "", text)
        raise Unreadable(AN_AMOUNT, f"did you mean {plain}?" if _MONEY.fullmatch(plain) else "")
    return Decimal(text)
