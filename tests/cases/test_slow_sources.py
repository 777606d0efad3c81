"""A meter that reports every quarter of an hour, and says so: its alert's SQL gives the number of the alert."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

START = datetime(2026, 11, 23, 9, 30, tzinfo=UTC).timestamp()
CLAUSES = """
power:
  - {id: ramp, by: [site], at: it, over: 2m, ceiling_megawatts: 0.5, for: 10m}
"""


def report(at: int) -> dict[str, Any]:
    time = datetime.fromtimestamp(START + at, UTC).isoformat().replace("+00:00", "Z")
    data = {"provider": "acme", "region": "eu", "site": "ams-02", "feed": "a", "it_power_watts": 600_000.0}
    head = {
        "specversion": "1.0",
        "id": f"{at}",
        "source": "/meter",
        "type": "energy.reading.v1",
        "time": time,
    }
    return {**head, "interval": 900, "data": data}


def test_the_sql_of_an_alert_looks_back_as_far_as_its_reading(play_made: Callable[..., Any]) -> None:
    found = play_made((report(at) for at in range(5, 3600, 900)), CLAUSES, quiet=400)
    ((observed, sql),) = found.sql(
        "SELECT observed, annotations ->> 'sql' FROM alerts WHERE alertname = 'PowerCeilingExceeded' AND state = 'firing'"
    )
    assert observed == 0.6
    assert found.sql(sql) == [(0.6,)]
