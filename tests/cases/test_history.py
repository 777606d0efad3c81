"""Where history begins, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_a_shortfall_thirty_hours_before_the_newest_event_is_in_the_history(play: Callable[..., Any]) -> None:
    played = play("27")
    assert "CapacityShortfall" in played.fired()
    first = played.readings("CapacityShortfall", "cap")[0]
    assert (str(first[0]), *first[1:]) == ("2026-11-22 06:00:10", "breach", 1.0)
    assert played.standing()["CapacityShortfall", "cap"] == ("ok", 2.0)
