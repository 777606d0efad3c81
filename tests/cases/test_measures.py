"""A bad measure is set aside; its sample lives, and so do its other measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Play = Callable[..., Any]


def test_a_queue_with_an_impossible_oldest_wait_still_has_its_backlog(play: Play) -> None:
    found = play("02")
    assert found.standing()["QueueBacklog", "b"] == ("breach", 9.0)
    assert found.fired() == {"QueueBacklog"}
    assert found.fates() == {("aggregated", ""): 4}
    reason = ("oldest_wait_seconds", "oldest_wait_seconds_out_of_range")
    assert found.sql("SELECT field, reason FROM quarantine") == [reason] * 4
    assert found.sql("SELECT field, reason, sum(n)::BIGINT FROM set_aside GROUP BY ALL") == [(*reason, 4)]
    assert found.sql("SELECT DISTINCT pending_jobs, oldest_wait_seconds FROM queue") == [(9, None)]


def test_a_meter_that_says_minus_one_now_and_then_is_neither_silent_nor_doubted(play: Play) -> None:
    found = play("20", quiet=20)
    assert found.fates() == {("aggregated", ""): 6}
    assert found.fired() == set()
    assert found.sql("SELECT count(*) FROM quarantine") == [(0,)]
    assert found.sql("SELECT avg(it_power_watts), count(it_power_watts), count(*) FROM energy") == [
        (1700.0, 3, 6)
    ]


def test_a_feed_with_a_value_every_minute_is_not_mute_because_a_clause_reads_a_minute(play: Play) -> None:
    found = play("every-other", quiet=20)
    assert found.fates() == {("aggregated", ""): 9}
    assert found.fired() == set()
