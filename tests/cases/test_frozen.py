"""GPUs that report, but whose counter and values stand still while others move: no heartbeat."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def test_a_frozen_gpu_is_not_delivered_until_it_moves_again_and_an_idle_one_is(
    play: Callable[..., Any],
) -> None:
    played = play("frozen")
    alerts = [change for change in played.alerts() if change[0] == "CapacityShortfall"]
    assert alerts == [("CapacityShortfall", "firing"), ("CapacityShortfall", "resolved")]
    delivered = [observed for _, _, observed in played.readings("CapacityShortfall", "all")]
    assert set(delivered) == {3.0, 4.0}
    assert played.standing()["CapacityShortfall", "all"] == ("ok", 4.0)


def test_the_alert_names_the_frozen_and_its_sql_gives_its_number(play: Callable[..., Any]) -> None:
    played = play("frozen")
    [(notes,)] = played.ledger.con.execute(
        "SELECT annotations FROM alerts WHERE alertname = 'CapacityShortfall' AND state = 'firing'"
    ).fetchall()
    assert "Frozen: 1 GPUs that report, but whose counters stand still." in json.loads(notes)["description"]
    assert played.sql(json.loads(notes)["sql"]) == [(3,)]
    facts = "SELECT DISTINCT (facts ->> '$.frozen')::INTEGER FROM readings WHERE clause = 'all' ORDER BY ALL"
    assert played.sql(facts) == [(1,), (None,)]
