"""What is read against bounds, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_meter_that_turns_null_resolves_nothing_and_is_named(play: Callable[..., Any]) -> None:
    played = play("13")
    assert played.standing()["PowerCeilingExceeded", "p", "s"] == ("unknown", 0.6)
    assert ("PowerCeilingExceeded", "resolved") not in played.alerts()
    assert played.fired() == {"PowerCeilingExceeded", "TelemetrySilent"}
    [(said,)] = played.sql(
        "SELECT annotations->>'$.trust' FROM alerts WHERE alertname = 'PowerCeilingExceeded' AND state = 'stale'"
    )
    assert "f13/r/s/b reports, but has not said it_power_watts since 2026-11-23T12:00:00Z." in said
    [(words, sql)] = played.sql(
        "SELECT annotations->>'$.summary', annotations->>'$.sql' FROM alerts WHERE alertname = 'TelemetrySilent'"
    )
    assert "reports, but for 100 s without it_power_watts" in words
    assert played.sql(sql) == [(100.0,)]


def test_who_reports_more_often_does_not_weigh_more(play: Callable[..., Any]) -> None:
    """One GPU of 100 W every 10 s, one of 700 W every 30 s."""
    played = play("05")
    assert played.standing()["PowerCeilingExceeded", "p", "ams-02"] == ("breach", pytest.approx(0.0008))
    assert ("PowerCeilingExceeded", "resolved") not in played.alerts()
    [(sql,)] = played.sql(
        "SELECT annotations->>'$.sql' FROM alerts WHERE state = 'firing' AND alertname LIKE 'Power%'"
    )
    assert played.sql(sql) == [(pytest.approx(0.0008),)]


def test_it_is_the_same_once_its_rows_are_sealed(play: Callable[..., Any]) -> None:
    played = play("05")
    played.sql("SELECT 1")
    played.pass_until(played.now + 10)
    assert played.standing()["PowerCeilingExceeded", "p", "ams-02"] == ("breach", pytest.approx(0.0008))
