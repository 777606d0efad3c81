"""Where history begins, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_a_shortfall_thirty_hours_before_the_newest_event_is_in_the_history(play: Callable[..., Any]) -> None:
    played = play("27")
    [fired] = [at for at, what in played.times("CapacityShortfall") if what == "firing"]
    assert str(fired) < "2026-11-22 06:10"
    assert ("breach", 1.0) in {row[1:] for row in played.readings("CapacityShortfall", "cap")}
