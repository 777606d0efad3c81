"""Calendar days of a zone."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from pipeline.contract.days import local_days


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("zone", "first", "last", "hours"),
    [
        ("UTC", "2026-03-29T00:00Z", "2026-03-31T00:00Z", [24, 24]),
        ("Europe/Berlin", "2026-03-29T00:00+01:00", "2026-03-31T00:00+02:00", [23, 24]),
        ("Europe/Berlin", "2026-10-25T00:00+02:00", "2026-10-27T00:00+01:00", [25, 24]),
        ("America/New_York", "2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00", [25]),
        ("Africa/Cairo", "2026-04-24T01:00+03:00", "2026-04-26T00:00+03:00", [23, 24]),
        ("Pacific/Apia", "2011-12-29T00:00-10:00", "2012-01-01T00:00+14:00", [24, 24]),
    ],
)
def test_days_are_as_long_as_the_zone_has_them(zone: str, first: str, last: str, hours: list[int]) -> None:
    days = local_days(zone, instant(first), instant(last))
    assert [(day.end - day.start) // 3600 for day in days] == hours
    assert days[0].start == instant(first) and days[-1].end == instant(last)
    assert all(day.end == later.start for day, later in pairwise(days))


def test_a_day_that_is_there_in_part_counts_and_has_its_own_date() -> None:
    days = local_days("Asia/Tokyo", instant("2026-01-01T12:00+09:00"), instant("2026-01-03T01:00+09:00"))
    assert [datetime.fromtimestamp(day.date, UTC).day for day in days] == [1, 2, 3]
