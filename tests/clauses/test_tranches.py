"""When a tranche is on course to pass its ceiling, and on which date of the contract's zone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clauses.tranches import TrancheClause, forecast
from pipeline.readings import DaySpend

DAY = 86_400
BERLIN = "Europe/Berlin"


def midnight(day: date, zone: str = "UTC") -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp())


def tranche(ceiling: str, zone: str = "UTC", complete_after: int = 2 * DAY) -> TrancheClause:
    """All of March 2026, in whose last days Berlin's clocks change."""
    return TrancheClause(
        id="march",
        from_t=midnight(date(2026, 3, 1), zone),
        to_t=midnight(date(2026, 4, 1), zone),
        ceiling=Decimal(ceiling),
        complete_after_seconds=complete_after,
    )


def charged(*amounts: str, other: dict[int, str] | None = None) -> tuple[DaySpend, ...]:
    """So much usage on each day of March from the first on, and what else on day n."""
    return tuple(
        DaySpend(midnight(date(2026, 3, n)), Decimal(amount), Decimal((other or {}).get(n, "0")))
        for n, amount in enumerate(amounts, 1)
    )


def crosses(days: tuple[DaySpend, ...], until: int, clause: TrancheClause, zone: str = "UTC") -> str | None:
    """As told at the beginning of the `until`th of March."""
    course = forecast(days, midnight(date(2026, 3, until), zone), clause, zone)
    assert course is not None
    assert (course.crosses is not None) == (course.amount > clause.ceiling)
    return None if course.crosses is None else f"{datetime.fromtimestamp(course.crosses, UTC):%Y-%m-%d}"


def test_a_course_of_a_hundred_a_day_passes_two_thousand_on_the_twenty_first_day() -> None:
    # Ten days are complete: 100 a day.  2,000 is reached on the 20th, and passed on the 21st.
    assert crosses(charged(*["100"] * 10), 13, tranche("2000")) == "2026-03-21"
    assert crosses(charged(*["100"] * 10), 13, tranche("1999.999999")) == "2026-03-20"
    assert crosses(charged(*["100"] * 10), 13, tranche("3099.99")) == "2026-03-31"
    assert crosses(charged(*["100"] * 10), 13, tranche("3100")) is None


def test_the_date_is_one_of_the_contracts_zone() -> None:
    # At Berlin's midnight of the 13th, 23:00 UTC of the 12th, ten days are complete there, and nine in UTC.
    days = charged(*["100"] * 9, "0")
    assert crosses(days, 13, tranche("1800", BERLIN), BERLIN) == "2026-03-21"  # 90 a day
    assert crosses(days[:9], 13, tranche("1800", "UTC", 3 * DAY)) == "2026-03-19"  # 100 a day


def test_what_is_charged_once_brings_the_date_forward_and_is_not_projected() -> None:
    days = charged(*["100"] * 10, other={4: "500"})
    assert crosses(days, 13, tranche("2000")) == "2026-03-16"


def test_a_ceiling_that_was_passed_keeps_the_date_on_which_it_was() -> None:
    # The charges of the 11th and 12th are not complete, but they are charged.
    days = charged(*["100"] * 10, "600", "1")
    assert crosses(days, 13, tranche("1500")) == "2026-03-11"
    assert crosses(days, 13, tranche("950")) == "2026-03-10"


def test_a_credit_that_brought_it_back_makes_the_next_crossing_count() -> None:
    days = charged("1000", "-900", *["100"] * 8)
    assert crosses(days, 13, tranche("950")) == "2026-03-11"  # 900 after the tenth, at 90 a day


@given(
    st.lists(st.integers(-300, 900), min_size=1, max_size=31),
    st.lists(st.sampled_from([0, 0, 0, 700, -500]), min_size=31, max_size=31),
    st.integers(4, 31),
    st.integers(0, 30_000),
)
def test_a_date_is_told_if_and_only_if_the_tranche_ends_above_its_ceiling(
    usage: list[int], others: list[int], until: int, ceiling: int
) -> None:
    other = {n: str(amount) for n, amount in enumerate(others, 1)}
    days = charged(*map(str, usage), other=other)
    clause = tranche(str(ceiling))
    told = crosses(days, until, clause)
    if told is None:
        return
    course = forecast(days, midnight(date(2026, 3, until)), clause)
    assert course is not None
    # By the day before, neither the charges nor the course lie above it.
    before = midnight(date.fromisoformat(told)) - DAY
    assert sum((d.usage + d.other for d in days if d.day <= before), Decimal(0)) <= clause.ceiling
