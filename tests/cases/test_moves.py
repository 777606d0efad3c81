"""GPUs that report from another series than before: they count once, where they were last seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_a_gpu_that_moves_to_another_cluster_counts_once_at_every_instant(play: Callable[..., Any]) -> None:
    played = play("10")
    states = {(state, observed) for _, state, observed in played.readings("CapacityCeilingExceeded", "cap")}
    assert states == {("ok", 2.0)}
    assert played.fired() == set()


def test_gpus_whose_region_is_renamed_are_not_lost_and_the_standing_says_where_they_are(
    play: Callable[..., Any],
) -> None:
    played = play("29")
    assert played.alerts() == []
    rows = played.standing()
    assert rows["CapacityShortfall", "all"] == ("ok", 8.0)
    assert rows["CapacityShortfall", "byr", "eu-west-1"] == ("ok", 8.0)
    assert rows["CapacityShortfall", "byr", "eu-west"] == ("ok", 0.0)
    [(facts,)] = played.ledger.con.execute(
        "SELECT facts FROM standing WHERE clause = 'byr' AND by_values LIKE '%eu-west\"%'"
    ).fetchall()
    assert '"moved": 8, "moved_to": "pb/eu-west-1/ams-02/ams-h1/H100 (8)"' in facts


def test_gpus_of_two_suppliers_are_two_whatever_their_names(play: Callable[..., Any]) -> None:
    played = play("two-suppliers")
    assert played.alerts() == []
    rows = played.standing()
    assert rows["CapacityShortfall", "each", "aurora"] == ("ok", 2.0)
    assert rows["CapacityShortfall", "each", "borealis"] == ("ok", 2.0)
    assert rows["CapacityShortfall", "both"] == ("ok", 4.0)
