"""Times as sources write them: RFC 3339, and the forms of ISO 8601 that exports and clouds have.

`read_time` is the specification.  `time_sql` reads the usual spellings of it in DuckDB, and nothing else.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Literal

Unread = Literal["without_zone", "malformed"]

_DAY = r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
_CLOCK = (
    r"(?P<hour>\d\d)(?P<colon>:?)(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
)
_ZONE = r"(?: ?(?:(?P<utc>[Zz]|UTC)|(?P<sign>[+-])(?P<hours>\d\d)(?::?(?P<minutes>\d\d))?))?"
_MOMENT = re.compile(f"{_DAY}[Tt ]{_CLOCK}{_ZONE}", re.ASCII)
_DAY_ALONE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def read_time(text: str, zone: str | None = None) -> datetime | Unread:
    """The moment as naive UTC in microseconds, or why it is none.

    `zone`: the one of a time that names none, "UTC"; with None such a time is `without_zone`.  Where there is one, a
    day alone is its midnight.  Seconds and their fraction may be left out.  A leap second, `:60`, becomes the last
    microsecond of its minute, so that it stays in its own day.

    >>> read_time("2016-12-31T23:59:60Z")
    datetime.datetime(2016, 12, 31, 23, 59, 59, 999999)
    >>> read_time("2026-11-23 13:00+0100")
    datetime.datetime(2026, 11, 23, 12, 0)
    >>> read_time("2026-11-23T12:00:00")
    'without_zone'
    """
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            alone = _DAY_ALONE.fullmatch(text) if zone else None
            return datetime.fromisoformat(text) if alone else "malformed"
        moment = _local(found) - _offset(found)
    except (ValueError, OverflowError):
        return "malformed"
    return moment if zone or found["utc"] or found["sign"] else "without_zone"


def _local(found: re.Match[str]) -> datetime:
    second, micros = int(found["second"] or 0), int(f"{found['fraction'] or '':0<6.6}")
    if second == 60:
        second, micros = 59, 999_999
    year, month, day, hour, minute = (int(found[name]) for name in ("year", "month", "day", "hour", "minute"))
    return datetime(year, month, day, hour, minute, second, micros)


def _offset(found: re.Match[str]) -> timedelta:
    """What the local time is ahead of UTC.  ValueError for one that RFC 3339 does not allow."""
    hours, minutes = int(found["hours"] or 0), int(found["minutes"] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if found["sign"] == "-" else offset


_USUAL = "[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-5][0-9]([.][0-9]{1,9})?)?"


def time_sql(text: str, zone: str | None = None) -> str:
    """SQL for `read_time` of the text; NULL for what is no time, and for what only `read_time` reads.

    A cast alone reads much more: 2026-1-1, 24:00:00, years BC, offsets of 99 minutes.
    """
    bare = f"WHEN regexp_full_match({text}, '{_USUAL}') THEN try_cast({text} AS TIMESTAMP) " if zone else ""
    return (
        f"CASE WHEN ends_with({text}, 'Z') THEN "
        f"CASE WHEN regexp_full_match({text}, '{_USUAL}Z') THEN try_cast({text} AS TIMESTAMP) END "
        f"{bare}WHEN regexp_full_match({text}, '{_USUAL}[+-](0[0-9]|1[0-4]):[0-5][0-9]') "
        f"THEN try_cast({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END"
    )
