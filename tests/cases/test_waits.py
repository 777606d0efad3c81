"""Waits against their bound, from events to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_wait_of_every_admission_is_in_the_history(play: Callable[..., Any]) -> None:
    played = play("12")
    assert played.fates() == {("aggregated", ""): 4}
    assert played.sql("SELECT count(*), max(list_max(admission_wait_seconds)) FROM queue") == [(4, 599.0)]
