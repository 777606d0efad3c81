"""Durations, dates and money."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contract import values
from pipeline.contract.faults import Unreadable

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "days", "seconds"),
    [
        ("90s", 0, 90), ("15m", 0, 900), ("1h30m", 0, 5400), ("48h", 0, 172_800), ("7d", 7, 0), ("2w", 14, 0),
        ("PT15M", 0, 900), ("P7D", 7, 0), ("P1DT2H", 1, 7200), ("P2W", 14, 0), ("PT90S", 0, 90), ("0s", 0, 0),
    ],
)  # fmt: skip
def test_durations_are_read_in_both_forms(text: str, days: int, seconds: int) -> None:
    assert values.duration(text) == (days, seconds)
    assert values.duration(text).exact == days * 86_400 + seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "15", "-5m", "1.5h", "m", "5M", "5m5h", "P1Y", "P1M", "٣m", "5 m", "1e3s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="a duration such as"):
        values.duration(text)


@pytest.mark.parametrize("text", ["36501d", "9" * 30 + "s", "P" + "9" * 12 + "W"])
def test_a_duration_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="at most 100 years"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("15", "'15s'"), ("15 min", "'15m'"), ("2 hours", "'2h'"), ("5M", "'5m'"), ("soon", "")],
)
def test_the_duration_that_was_probably_meant_is_offered(text: str, hint: str) -> None:
    with pytest.raises(Unreadable) as error:
        values.duration(text)
    assert error.value.hint == (f"did you mean {hint}?" if hint else "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-07-01", "2026-06-30T22:00:00"),
        ("2026-12-01T08:30", "2026-12-01T07:30:00"),
        ("2026-12-01 08:30:15", "2026-12-01T07:30:15"),
        ("2026-12-01T08:30Z", "2026-12-01T08:30:00"),
        ("2026-12-01T08:30-05:00", "2026-12-01T13:30:00"),
    ],
)
def test_a_date_without_a_zone_is_local_and_one_with_a_zone_is_not(text: str, expected: str) -> None:
    found = datetime.fromtimestamp(values.instant(text, BERLIN), UTC)
    assert found.replace(tzinfo=None).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-13-01", "01.07.2026", "2026-7-1", "2026-07-01T25:00", "2026-07-01T08",
             "now", "1969-01-01", "2200-01-01", "2026-07-01T08:00+24:00", "2026-07-01T08:60",
             "٢026-07-01", "2026-07-01\n"]
)  # fmt: skip
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        values.instant(text, BERLIN)


@given(st.integers(0, 7_258_000_000))
def test_an_instant_written_with_its_offset_reads_back_in_any_zone(t: int) -> None:
    written = datetime.fromtimestamp(t, UTC).astimezone(BERLIN).isoformat()
    assert values.instant(written, ZoneInfo("America/New_York")) == t


@given(st.decimals(min_value=0, max_value=10**18, places=10, allow_nan=False, allow_infinity=False))
def test_money_is_exact_to_the_last_digit(amount: Decimal) -> None:
    assert values.money(format(amount, "f")) == amount == values.money(amount)


def test_money_is_no_binary_float() -> None:
    assert str(values.money("0.1") + values.money("0.2")) == "0.3"
    assert values.money(12) == Decimal(12)


@pytest.mark.parametrize("found", ["1,000", "12 €", "1e5", "", ".5", "NaN", True, "1" * 29, "0.12345678901"])
def test_what_is_no_amount_is_refused(found: object) -> None:
    with pytest.raises(Unreadable, match="an amount of money"):
        values.money(found)


@pytest.mark.parametrize(
    "name", ["Europe/Berlim", "../etc/passwd", "", "Berlin", "europe/berlin", "localtime"]
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(Unreadable, match="an IANA time zone"):
        values.zone(name)
