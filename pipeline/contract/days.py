"""Calendar days as a contract's time zone has them: 23 or 25 hours long where its clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pipeline.rollup.grid import DAY


class LocalDay(NamedTuple):
    """`date`: the calendar date, as the epoch seconds of its midnight in UTC; `start`, `end`: its instants."""

    date: int
    start: int
    end: int


@lru_cache(maxsize=64)
def local_days(zone: str, from_t: int, to_t: int) -> tuple[LocalDay, ...]:
    """The days of `zone` that `[from_t, to_t)` has a part of, in order; a date that clocks skip is left out.

    >>> [(day.end - day.start) // 3600 for day in local_days("Europe/Berlin", 1774652400, 1774825200)]
    [24, 23, 24]
    """
    info = ZoneInfo(zone)
    first = datetime.fromtimestamp(from_t, info).date()
    found: list[LocalDay] = []
    start = _midnight(first, info)
    while start < to_t:
        end = _midnight(first + timedelta(days=1), info)
        if start < end:
            found.append(LocalDay((first - date(1970, 1, 1)).days * DAY, start, end))
        first, start = first + timedelta(days=1), end
    return tuple(found)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """Where a clock change skips it, the instant of the change."""
    return int(datetime.combine(day, time(), zone).astimezone(UTC).timestamp())
