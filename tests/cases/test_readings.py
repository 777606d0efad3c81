"""What is read against bounds, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
    assert "reports, but for 70 s without it_power_watts" in words
    assert played.sql(sql) == [(70.0,)]
