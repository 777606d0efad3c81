"""Recurrence rules: what is left out, where they end, and how a wrong one is refused."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from pipeline.contract.faults import Unreadable
from pipeline.contract.recurrence import occurrences, parts
from pipeline.contract.values import Duration

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
START = datetime(2026, 11, 2, 22)
WITHIN = (round(datetime(2026, 1, 1).timestamp()), round(datetime(2027, 6, 1).timestamp()))


def local_starts(rule: str, zone: ZoneInfo = BERLIN, omit: tuple[date, ...] = ()) -> list[str]:
    found, _ = occurrences(rule, START, Duration(0, 3600), zone, WITHIN, omit)
    return [f"{datetime.fromtimestamp(begin, zone):%m-%d %H:%M}" for begin, _ in found]


def test_a_rule_recurs_on_the_days_it_names() -> None:
    assert local_starts("FREQ=WEEKLY;BYDAY=MO,FR;COUNT=4") == [
        "11-02 22:00", "11-06 22:00", "11-09 22:00", "11-13 22:00"
    ]  # fmt: skip
    assert local_starts("RRULE:freq=monthly;byday=-1fr;count=2") == ["11-27 22:00", "12-25 22:00"]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20261105", "11-05 22:00"),  # a date alone includes its whole day
        ("20261105T220000", "11-05 22:00"),
        ("20261105T215959", "11-04 22:00"),
        ("20261105T210000Z", "11-05 22:00"),  # 21:00 UTC is 22:00 in Berlin
        ("20261105T205959Z", "11-04 22:00"),
    ],
)
def test_a_rule_ends_with_its_until(until: str, last: str) -> None:
    assert local_starts(f"FREQ=DAILY;UNTIL={until}")[-1] == last


def test_dates_that_are_excepted_are_left_out_and_named() -> None:
    omit = (date(2026, 11, 3), date(2026, 11, 30))
    found, left_out = occurrences("FREQ=DAILY;COUNT=3", START, Duration(0, 60), BERLIN, WITHIN, omit)
    assert len(found) == 2
    assert left_out == {date(2026, 11, 3)}


def test_a_rule_that_never_ends_is_cut_at_the_end_of_the_range() -> None:
    assert len(local_starts("FREQ=HOURLY", UTC)) == (WITHIN[1] - round(START.timestamp())) // 3600


def test_more_occurrences_than_a_calendar_has_are_refused() -> None:
    with pytest.raises(Unreadable, match="at most 100,000 occurrences"):
        occurrences("FREQ=HOURLY;BYMINUTE=0,30", START, Duration(0, 60), UTC, (0, 7 * WITHIN[1]))


@pytest.mark.parametrize(
    ("rule", "found", "expected", "hint"),
    [
        ("FREQ=DIALY", "FREQ=DIALY", "FREQ=YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY", "did you mean 'DAILY'?"),
        ("FREQ=SECONDLY", "FREQ=SECONDLY", "FREQ=YEARLY|MONTHLY|WEEKLY|DAILY|HOURLY", ""),
        ("BYDAY=MO", "an RRULE without FREQ", "a part FREQ, as in FREQ=DAILY", ""),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL=0", "INTERVAL from 1 to 1000", ""),
        ("FREQ=DAILY;INTERVAL=-1", "INTERVAL=-1", "INTERVAL from 1 to 1000", ""),
        ("FREQ=DAILY;INTERVAL=1,2", "INTERVAL=1,2", "INTERVAL from 1 to 1000", ""),
        ("FREQ=DAILY;BYMONTH=13", "BYMONTH=13", "BYMONTH from 1 to 12", ""),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY=0",
         "BYMONTHDAY from 1 to 31 (or negative, counted from the end)", ""),
        ("FREQ=DAILY;BYHOUR=x", "BYHOUR=X", "BYHOUR from 0 to 23", ""),
        ("FREQ=WEEKLY;BYDAY=XX", "BYDAY=XX", "days such as BYDAY=MO,WE or BYDAY=-1FR", ""),
        ("FREQ=WEEKLY;BYDAY=1MO", "BYDAY=1MO with FREQ=WEEKLY", "days without a number, as in BYDAY=MO", ""),
        ("FREQ=DAILY;FREQ=DAILY", "FREQ a second time", "each part of an RRULE once", ""),
        ("FREQ=DAILY;COUNT=3;UNTIL=20261105", "both COUNT and UNTIL", "one of COUNT and UNTIL", ""),
        ("FREQ=DAILY;UNTIL=2026", "UNTIL=2026",
         "an end such as UNTIL=20261224 or UNTIL=20261224T230000Z", ""),
        ("FREQ=DAILY;BYSETPOS=1", "BYSETPOS alone", "BYSETPOS beside another BY… part", ""),
        ("FREQ=DAILY;BYYEARDAY=5", "BYYEARDAY with FREQ=DAILY",
         "BYYEARDAY only with a wider FREQ (RFC 5545)", ""),
    ],
)  # fmt: skip
def test_a_wrong_part_is_named_with_what_it_should_be(
    rule: str, found: str, expected: str, hint: str
) -> None:
    with pytest.raises(Unreadable) as error:
        parts(rule)
    assert (error.value.found, error.value.expected, error.value.hint) == (found, expected, hint)


def test_an_unknown_part_is_refused_with_the_nearest_name() -> None:
    for rule in ("FREQ=DAILY;BYDAI=MO", "FREQ=DAILY;", "", "DTSTART:20260101"):
        with pytest.raises(Unreadable, match="in an RRULE"):
            parts(rule)
    with pytest.raises(Unreadable) as error:
        parts("FREQ=DAILY;BYDAI=MO")
    assert (error.value.found, error.value.hint) == ("'BYDAI'", "did you mean 'BYDAY'?")


def test_an_until_that_is_no_date_is_refused() -> None:
    with pytest.raises(Unreadable, match="a date of the calendar"):
        local_starts("FREQ=DAILY;UNTIL=20261340")
