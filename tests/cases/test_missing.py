"""A shortfall says who is missing, since when and where, and whether the meters still show what they draw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.ledger.evaluation import firing_messages

Play = Callable[..., Any]
START = datetime(2026, 11, 23, 9, 30, tzinfo=UTC).timestamp()
CLAUSES = """
capacity:
  - {id: floor, by: [region], committed_gpus: 16, for: 0s}
"""


def fleet(drawn: Callable[[int], float], end: int = 450) -> Iterator[dict[str, Any]]:
    """Two racks of two nodes with four GPUs, a message for each rack; and a meter that shows `drawn` watts.

    A GPU of the first rack fails at minute 2, another goes without a word after that, and the second rack falls silent
    after minute 3.
    """
    for at in range(0, end, 30):
        for rack in (0, 1) if at <= 180 else (0,):
            gpus = []
            for node, gpu in ((n, g) for n in (2 * rack, 2 * rack + 1) for g in range(4)):
                if (node, gpu) == (1, 0) and at > 120:
                    continue
                health = "failed" if (node, gpu) == (0, 0) and at >= 120 else "ok"
                gpus.append({**place(node), "gpu": f"g{node}{gpu}", "power_watts": 600.0, "health": health})
            yield event("gpu.utilization.v1", at + rack, f"/rack{rack}", gpus)
        meter = {"provider": "acme", "region": "eu", "site": "ams-02", "feed": "a"}
        yield event("energy.reading.v1", at + 5, "/meter", [{**meter, "it_power_watts": drawn(at)}])


def place(node: int) -> dict[str, str]:
    named = {"provider": "acme", "region": "eu", "site": "ams-02", "cluster": "c1", "sku": "GB300"}
    return {**named, "nvlink_domain": f"nvl-{1 + node // 2}", "node": f"node-{node}"}


def event(kind: str, at: float, source: str, data: list[dict[str, Any]]) -> dict[str, Any]:
    time = datetime.fromtimestamp(START + at, UTC).isoformat().replace("+00:00", "Z")
    return {"specversion": "1.0", "id": f"{at}", "source": source, "type": kind, "time": time, "data": data}


@pytest.fixture
def played(play_made: Play) -> Play:
    return lambda events: play_made(events, CLAUSES)


def texts(found: Any) -> list[dict[str, str]]:
    """The annotations of each change of the shortfall, in order."""
    rows = found.sql("SELECT annotations FROM alerts WHERE alertname = 'CapacityShortfall' ORDER BY \"time\"")
    return [json.loads(annotations) for (annotations,) in rows]


def test_a_shortfall_says_who_failed_is_gone_and_silent_since_when_and_where(played: Play) -> None:
    found = played(fleet(lambda at: 9600.0))
    fired = texts(found)[0]
    assert fired["missing"] == "1 failed since 09:32 UTC"
    assert fired["worst"] == "nvl-1 (1 of 8); node-0 (1)"
    assert fired["at_risk"] == "1 GPUs; about 0.0006 MW"
    assert "Not delivered: 1 failed since 09:32 UTC. Worst hit: nvl-1 (1 of 8)" in fired["description"]
    assert found.sql(f"SELECT gpu, node, last_seen, why FROM ({fired['rows_sql']})") == [
        ("g00", "node-0", datetime(2026, 11, 23, 9, 32), "failed")
    ]
    ((missing, worst, meters, observed, now),) = found.sql(
        "SELECT missing, worst, meters, observed, now FROM alerts_open WHERE alertname = 'CapacityShortfall'"
    )
    assert missing == "1 failed since 09:32 UTC, 1 gone since 09:32 UTC, 8 silent since 09:33 UTC"
    assert worst == "nvl-2 (8 of 8), nvl-1 (2 of 8); node-2 (4), node-3 (4), node-0 (1) and 1 more"
    assert meters == "the meters of ams-02 still show 0.0096 MW (0.0096 MW before): probably telemetry"
    assert (observed, now) == (15.0, 6.0)
    silent = found.sql("SELECT about, blinds FROM alerts_open WHERE alertname = 'TelemetrySilent'")
    assert silent == [("telemetry.gpu / acme / eu / ams-02 / c1 / GB300 / nvl-2", "acme/floor")]
    ((facts, fired_observed),) = found.sql(
        "SELECT facts, fired_observed FROM standing WHERE alertname = 'CapacityShortfall'"
    )
    facts = json.loads(facts)
    assert (facts["failed"], facts["gone"], facts["silent"], facts["metered_megawatts"]) == (1, 1, 8, 0.0096)
    assert (facts["silent_since"], fired_observed) == ("2026-11-23T09:33:01Z", 15.0)


def test_meters_that_fell_with_the_gpus_say_that_these_no_longer_draw(played: Play) -> None:
    found = played(fleet(lambda at: 9600.0 if at <= 180 else 4900.0))
    ((meters,),) = found.sql("SELECT meters FROM alerts_open WHERE alertname = 'CapacityShortfall'")
    assert meters == "the meters of ams-02 show 0.0049 MW, 0.0096 MW before: they no longer draw it"


def test_who_is_told_again_gets_the_present_value_beside_that_at_firing(played: Play) -> None:
    found = played(fleet(lambda at: 9600.0))
    bodies = firing_messages(found.ledger.con, found.now)
    (told,) = [body.annotations for body in bodies if body.alertname == "CapacityShortfall"]
    assert (told["observed"], told["now"][:7]) == ("15", "6 GPUs ")
    assert "8 silent since 09:33 UTC" in told["missing"]
    assert "probably telemetry" in told["meters"]
    assert told["at_risk"] == "10 GPUs; about 0.006 MW"


def test_a_gpu_that_reports_from_another_region_now_is_not_missed(played: Play) -> None:
    def moved() -> Iterator[dict[str, Any]]:
        for message in fleet(lambda at: 9600.0, end=300):
            at = datetime.fromisoformat(message["time"]).timestamp() - START
            for sample in message["data"]:
                if at > 90 and sample.get("gpu") == "g02":
                    sample["region"] = "us"
            yield message

    found = played(moved())
    rows = found.sql("SELECT missing FROM alerts_open WHERE about = 'eu' AND alertname = 'CapacityShortfall'")
    assert rows == [("1 failed since 09:32 UTC, 1 gone since 09:32 UTC, 8 silent since 09:33 UTC",)]
