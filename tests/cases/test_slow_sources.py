"""A meter that reports every quarter of an hour, and says so: its alert's SQL gives the number of the alert."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

START = datetime(2026, 11, 23, 9, 30, tzinfo=UTC).timestamp()
CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: C, supplier: S}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
power:
  - {id: ramp, by: [site], at: it, over: 2m, ceiling_megawatts: 0.5, for: 10m}
"""


def test_the_sql_of_an_alert_looks_back_as_far_as_its_reading(
    play: Callable[..., Any], tmp_path: Path
) -> None:
    lines = []
    for at in range(5, 3600, 900):
        time = datetime.fromtimestamp(START + at, UTC).isoformat().replace("+00:00", "Z")
        data = {
            "provider": "acme",
            "region": "eu",
            "site": "ams-02",
            "feed": "a",
            "it_power_watts": 600_000.0,
        }
        head = {
            "specversion": "1.0",
            "id": f"{at}",
            "source": "/meter",
            "type": "energy.reading.v1",
            "time": time,
        }
        lines.append(json.dumps({**head, "interval": 900, "data": data}))
    (tmp_path / "slow.jsonl").write_text("\n".join(lines))
    (tmp_path / "slow.yaml").write_text(CONTRACT)
    found = play(str(tmp_path / "slow"), quiet=400)
    ((observed, sql),) = found.sql(
        "SELECT observed, annotations ->> 'sql' FROM alerts WHERE alertname = 'PowerCeilingExceeded' AND state = 'firing'"
    )
    assert observed == 0.6
    assert found.sql(sql) == [(0.6,)]
