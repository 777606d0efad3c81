"""Times in the spellings that clouds and exports have, each read as one moment or refused by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.times import read_time, time_sql

NOON = datetime(2026, 11, 23, 12)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T12:00Z",
        "2026-11-23T12:00:00Z",
        "2026-11-23t12:00:00z",
        "2026-11-23 12:00:00Z",
        "2026-11-23 12:00:00 UTC",
        "2026-11-23 12:00:00.000000 UTC",
        "2026-11-23T12:00:00.0000000000Z",
        "2026-11-23T12:00:00,000Z",
        "2026-11-23T13:00+01:00",
        "2026-11-23T13:00:00+0100",
        "2026-11-23T13:00:00+01",
        "2026-11-23 13:00:00 +0100",
        "2026-11-23T12:00:00-00:00",
        "20261123T120000Z",
        "20261123T1200Z",
        "20261123T060000-0600",
    ],
)
def test_a_moment_is_the_same_in_whatever_form_it_is_written(text: str) -> None:
    assert read_time(text) == NOON == read_time(text, "UTC")


@pytest.mark.parametrize(
    "text", ["2026-11-23T12:00", "2026-11-23 12:00:00", "2026-11-23 12:00:00.000", "20261123T120000"]
)
def test_a_time_without_a_zone_is_in_the_one_that_the_schema_gives_or_refused(text: str) -> None:
    assert read_time(text) == "without_zone"
    assert read_time(text, "UTC") == NOON


def test_a_day_alone_is_its_midnight_where_a_zone_is_given() -> None:
    assert read_time("2026-11-23", "UTC") == datetime(2026, 11, 23)
    assert read_time("2026-11-23") == "malformed"


@pytest.mark.parametrize(
    "text", ["2016-12-31T23:59:60Z", "2016-12-31T23:59:60.7Z", "2017-01-01T00:59:60+01:00"]
)
def test_a_leap_second_is_the_last_microsecond_of_its_minute(text: str) -> None:
    assert read_time(text) == datetime(2016, 12, 31, 23, 59, 59, 999_999)


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "23/11/2026 12:00", "11/23/2026", "2026-11-23T24:00:00Z", "2026-11-23T12:00:61Z",
        "2026-11-23T12:60Z", "2026-02-29T00:00Z", "2026-11-23T12Z", "2026-11-23T12:00:00+01:60",
        "2026-11-23T12:00:00+24:00", "2026-11-23T12:00:00 CET", "0001-01-01T00:00:00+01:00", " 2026-11-23T12:00Z",
        "2026-11-23T12:00:00.Z", "2026-11-23  12:00Z", "1795435200", "\uff12026-11-23T12:00Z", "2026-11-23T12:00:00Z\n",
    ],
)  # fmt: skip
def test_what_is_no_time_is_malformed(text: str) -> None:
    assert read_time(text) == "malformed" == read_time(text, "UTC")


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["seconds", "milliseconds", "microseconds", "minutes"]),
)
def test_iso_format_comes_back_as_the_moment_that_it_was(at: datetime, minutes: int, spec: str) -> None:
    zoned = at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = zoned.isoformat(timespec=spec)
    assert read_time(text) == datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    sql = time_sql("$text")
    found = duckdb.execute(f"SET TimeZone = 'UTC'; SELECT {sql}", {"text": text}).fetchall()
    assert found == [(read_time(text),)]
