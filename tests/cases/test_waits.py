"""Waits against their bound, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_wait_of_every_admission_is_in_the_history(play: Callable[..., Any]) -> None:
    played = play("12")
    assert played.fates() == {("aggregated", ""): 4}
    assert played.sql("SELECT count(*), max(list_max(admission_wait_seconds)) FROM queue") == [(4, 599.0)]


def test_a_wait_just_within_its_bound_is_no_breach_and_is_reported_as_it_was(
    play: Callable[..., Any],
) -> None:
    played = play("12")
    assert played.standing()["QueueWaitBreach", "w"] == ("ok", 599.0)
    assert played.fired() == set()
    waits = "SELECT max(admission_wait_seconds_p95), max(admission_wait_seconds_p50) FROM"
    assert played.sql(f"{waits} queue_10s") == [(599.0, 599.0)]
    assert played.sql(f"{waits} queue_1d") == [(599.0, 599.0)]
