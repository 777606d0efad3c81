"""Named calendars: what covers an instant, what comes next, and what the clocks do to both."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract.recurrence import occurrences
from pipeline.contract.values import Duration, epoch
from pipeline.contract.windows import Window

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
HOUR = 3600


def utc(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp())


def nightly(zone: ZoneInfo, start: str, length: Duration, first: str, last: str) -> list[tuple[int, int]]:
    within = (utc(first), utc(last))
    return occurrences("FREQ=DAILY", datetime.fromisoformat(start), length, zone, within)[0]


spans = st.tuples(st.integers(0, 5000), st.integers(0, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))
windows = st.lists(spans, max_size=30).map(lambda found: Window.of("w", "UTC", found))
instants = st.integers(-100, 6000)


@given(st.lists(spans, max_size=30), instants)
def test_a_window_is_open_exactly_when_one_of_its_ranges_covers_the_instant(
    found: list[tuple[int, int]], t: int
) -> None:
    interval = Window.of("w", "UTC", found).interval_at(t)
    assert (interval is not None) == any(start <= t < end for start, end in found)
    assert interval is None or interval[0] <= t < interval[1]


@given(windows, instants)
def test_the_next_interval_is_the_first_that_starts_after_the_instant(window: Window, t: int) -> None:
    later = [i for i in window.intervals(-1000, 10_000) if i[0] > t]
    assert window.next_interval(t) == (later[0] if later else None)


@given(windows, instants, instants)
def test_intervals_are_those_that_share_an_instant_with_the_range(window: Window, a: int, b: int) -> None:
    expected = {window.interval_at(t) for t in range(a, b)} - {None}
    assert set(window.intervals(a, b)) == expected


@given(windows)
def test_intervals_neither_overlap_nor_touch(window: Window) -> None:
    assert all(start < end for start, end in zip(window.starts, window.ends, strict=True))
    assert all(end < start for end, start in zip(window.ends, window.starts[1:], strict=False))


def test_an_interval_is_half_open() -> None:
    window = Window.of("w", "UTC", [(10, 20)])
    assert window.interval_at(9) is None
    assert window.interval_at(10) == (10, 20) == window.interval_at(19)
    assert window.interval_at(20) is None
    assert window.next_interval(9) == (10, 20)
    assert window.next_interval(10) is None


@pytest.mark.parametrize(
    ("zone", "first", "last", "starts"),
    [
        # 22:00 in Berlin is 21:00 UTC in winter and 20:00 in summer.
        (BERLIN, "2026-03-28T00:00", "2026-03-30T23:00", ["03-28T21:00", "03-29T20:00", "03-30T20:00"]),
        (BERLIN, "2026-10-24T12:00", "2026-10-26T23:00", ["10-24T20:00", "10-25T21:00", "10-26T21:00"]),
        # 22:00 in New York is 03:00 UTC of the next day in winter and 02:00 in summer.
        (NEW_YORK, "2026-03-07T12:00", "2026-03-09T12:00", ["03-08T03:00", "03-09T02:00"]),
        (NEW_YORK, "2026-10-31T12:00", "2026-11-02T12:00", ["11-01T02:00", "11-02T03:00"]),
    ],
)
def test_a_nightly_window_keeps_its_wall_clock_time_when_the_clocks_change(
    zone: ZoneInfo, first: str, last: str, starts: list[str]
) -> None:
    found = nightly(zone, "2026-01-01T22:00", Duration(0, HOUR), first, last)
    assert found == [(utc(f"2026-{s}"), utc(f"2026-{s}") + HOUR) for s in starts]


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [(BERLIN, "2026-03-29", "2026-03-29T01:30"), (NEW_YORK, "2026-03-08", "2026-03-08T07:30")],
)
def test_a_time_that_does_not_occur_is_read_with_the_offset_before_the_gap(
    zone: ZoneInfo, day: str, expected: str
) -> None:
    """02:30 does not exist: it becomes 03:30 summer time (RFC 5545, section 3.3.5)."""
    assert epoch(datetime.fromisoformat(f"{day}T02:30"), zone) == utc(expected)
    assert datetime.fromtimestamp(utc(expected), zone).strftime("%H:%M") == "03:30"


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [(BERLIN, "2026-10-25T02:30", "2026-10-25T00:30"), (NEW_YORK, "2026-11-01T01:30", "2026-11-01T05:30")],
)
def test_a_time_that_occurs_twice_means_the_first(zone: ZoneInfo, wall: str, expected: str) -> None:
    assert epoch(datetime.fromisoformat(wall), zone) == utc(expected)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2026-03-29", 23), (BERLIN, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23), (NEW_YORK, "2026-11-01", 25),
    ],
)  # fmt: skip
def test_a_day_is_as_long_as_the_calendar_says_and_24_hours_are_24_hours(
    zone: ZoneInfo, day: str, hours: int
) -> None:
    begin = epoch(datetime.fromisoformat(day), zone)
    for length, expected in ((Duration(1, 0), hours), (Duration(0, 24 * HOUR), 24)):
        intervals = occurrences(
            "FREQ=DAILY;COUNT=1", datetime.fromisoformat(day), length, zone, (begin, begin + 1)
        )[0]
        assert intervals == [(begin, begin + expected * HOUR)]


def test_six_hours_over_the_night_of_the_change_stay_six_hours() -> None:
    """The re-planning that begins at 22:00 ends at 04:00, or at 05:00 by the clock on the wall in spring."""
    found = nightly(BERLIN, "2026-01-01T22:00", Duration(0, 6 * HOUR), "2026-03-28T20:00", "2026-03-29T10:00")
    assert found == [(utc("2026-03-28T21:00"), utc("2026-03-29T03:00"))]


@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(1, 26 * HOUR),
)
def test_every_day_of_a_year_has_one_occurrence_at_the_time_on_the_wall(
    zone_name: str, hour: int, minute: int, seconds: int
) -> None:
    zone = ZoneInfo(zone_name)
    start = datetime(2026, 1, 1, hour, minute)
    within = (epoch(start, zone), epoch(datetime(2027, 1, 1, hour, minute), zone))
    found, _ = occurrences("FREQ=DAILY", start, Duration(0, seconds), zone, within)
    assert len(found) == 365
    for begin, end in found:
        assert end - begin == seconds
        shown = datetime.fromtimestamp(begin, zone)
        exists = datetime.fromtimestamp(epoch(shown.replace(tzinfo=None), zone), zone) == shown
        assert exists
    on_time = [
        b for b, _ in found if datetime.fromtimestamp(b, zone).strftime("%H:%M") == f"{hour:02}:{minute:02}"
    ]
    assert len(on_time) >= 364  # the one that may be missing fell into the gap


def test_an_occurrence_that_began_before_the_range_and_reaches_into_it_counts() -> None:
    found = nightly(BERLIN, "2026-01-01T22:00", Duration(0, 6 * HOUR), "2026-02-02T00:00", "2026-02-02T12:00")
    assert found == [(utc("2026-02-01T21:00"), utc("2026-02-02T03:00"))]
