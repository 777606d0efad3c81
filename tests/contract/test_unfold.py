"""A rule names what another implementation of RFC 5545 says it does, and one that names nothing ends its search."""

from __future__ import annotations

import datetime as clock
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule as other
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clauses import check
from pipeline.contract.faults import Unreadable
from pipeline.contract.recurrence import occurrences, parts
from pipeline.contract.unfold import FREQUENCIES, WEEKDAYS, RecurrenceRule
from pipeline.contract.values import Duration

LAST = date(2030, 12, 31)
EVERY_HOUR, EVERY_MINUTE = ",".join(map(str, range(24))), ",".join(map(str, range(60)))
NEVER = (
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30,31",
    "FREQ=HOURLY;BYMONTH=4;BYMONTHDAY=31;BYMINUTE=0,30",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-30",
    "FREQ=YEARLY;INTERVAL=4;BYMONTH=2;BYMONTHDAY=29",
    "FREQ=YEARLY;BYYEARDAY=366;BYMONTH=1",
    "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6",
    "FREQ=YEARLY;BYWEEKNO=-53;BYDAY=MO;BYMONTH=7",
    "FREQ=YEARLY;BYDAY=54MO",
    "FREQ=MONTHLY;BYDAY=6MO",
    "FREQ=WEEKLY;BYDAY=MO;BYSETPOS=2",
    "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
    "FREQ=DAILY;BYHOUR=1;BYSETPOS=-2",
    "FREQ=HOURLY;INTERVAL=2;BYHOUR=1",
    "FREQ=HOURLY;INTERVAL=168;BYDAY=TU",
    "FREQ=HOURLY;BYMINUTE=0;BYSETPOS=2",
    "FREQ=DAILY;UNTIL=19691231",
    "FREQ=DAILY;UNTIL=00010101T000000Z",
    f"FREQ=YEARLY;BYHOUR={EVERY_HOUR};BYMINUTE={EVERY_MINUTE};BYSECOND={EVERY_MINUTE};BYMONTH=2;BYMONTHDAY=30;BYSETPOS=1",
)


def some(name: str, least: int, greatest: int, most: int = 3) -> st.SearchStrategy[str]:
    numbers = st.lists(st.integers(least, greatest).filter(bool), min_size=1, max_size=most, unique=True)
    return st.one_of(st.just(""), numbers.map(lambda found: f";{name}={','.join(map(str, found))}"))


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Rules that RFC 5545 allows, some with nothing in them.

    Not those that dateutil gets wrong: weeks -52 and -53, the twentieth Monday of a month (it raises), and MO beside
    1MO (it wants both).
    """
    frequency = draw(st.sampled_from(FREQUENCIES))
    wide, yearly = frequency in ("YEARLY", "MONTHLY"), frequency == "YEARLY"
    text = f"FREQ={frequency}" + draw(some("INTERVAL", 1, 5, 1)) + draw(some("BYMONTH", 1, 12))
    text += draw(st.sampled_from(["", *(f";WKST={day}" for day in WEEKDAYS)]))
    if frequency != "WEEKLY":
        text += draw(some("BYMONTHDAY", -31, 31))
    if yearly:
        text += draw(some("BYWEEKNO", 1, 53)) + draw(some("BYYEARDAY", -366, 366))
    far = ["20", "-53"] if yearly and ";BYMONTH=" not in text else []
    numbers = (
        st.sampled_from(["1", "-1", "2", "-2", "5", *far]) if wide and draw(st.booleans()) else st.just("")
    )
    if found := draw(st.lists(st.tuples(numbers, st.sampled_from(WEEKDAYS)), max_size=3)):
        text += ";BYDAY=" + ",".join(f"{number}{day}" for number, day in found)
    text += draw(some("BYHOUR", 1, 23, 2)) + draw(some("BYMINUTE", 1, 59, 2))
    if ";BY" in text:
        text += draw(some("BYSETPOS", -6, 6, 2))
    return text


@given(rules(), st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))
def test_a_rule_names_what_dateutil_says(rule: str, start: datetime) -> None:
    start = start.replace(microsecond=0)
    ours = list(RecurrenceRule.of(parts(rule), start).walls(LAST))
    with pytest.MonkeyPatch.context() as patched:  # or it would look for what never comes until the year 9999
        patched.setattr(other, "datetime", SimpleNamespace(**{**vars(clock), "MAXYEAR": LAST.year}))
        try:
            theirs = list(takewhile(lambda wall: wall.date() <= LAST, other.rrulestr(rule, dtstart=start)))
        except ValueError:  # "rrule byhour generates an empty set"
            theirs = []
    assert ours == theirs


@pytest.mark.timeout(60)
@pytest.mark.parametrize("rule", NEVER)
def test_the_search_for_what_never_occurs_ends(rule: str) -> None:
    try:
        found, _ = occurrences(
            rule, datetime(1970, 1, 5), Duration(0, 60), ZoneInfo("UTC"), (0, 7_000_000_000)
        )
    except Unreadable:
        return
    assert found == []


def test_a_contract_with_a_window_that_never_opens_is_refused(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    example = (request.config.rootpath / "schemas" / "example-contract.yaml").read_text()
    file = tmp_path / "contract.yaml"
    for rule in NEVER:
        file.write_text(example.replace("FREQ=WEEKLY;BYDAY=SU,MO,TU,WE,TH,FR", rule))
        (fault,) = check([file])
        assert "recurring[0].rrule" in str(fault), rule


def test_a_place_that_no_set_has_is_named() -> None:
    with pytest.raises(Unreadable) as error:
        occurrences(
            "FREQ=HOURLY;BYMINUTE=0;BYSETPOS=2",
            datetime(2026, 1, 1),
            Duration(0, 60),
            ZoneInfo("UTC"),
            (0, 1),
        )
    assert error.value.found == "BYSETPOS=2 with FREQ=HOURLY"


def test_the_last_day_of_the_calendar_ends_a_rule_or_is_refused() -> None:
    span = (0, 7 * 86_400)
    assert (
        len(
            occurrences(
                "FREQ=DAILY;UNTIL=99991230", datetime(1970, 1, 1), Duration(0, 60), ZoneInfo("UTC"), span
            )[0]
        )
        == 7
    )
    with pytest.raises(Unreadable, match="a date of the calendar"):
        occurrences(
            "FREQ=DAILY;UNTIL=99991231T235959Z",
            datetime(1970, 1, 1),
            Duration(0, 60),
            ZoneInfo("Asia/Tokyo"),
            span,
        )
