"""What counts as one GPU, as healthy and as in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Play = Callable[..., Any]


def test_a_gpu_whose_engine_says_0_at_full_utilisation_is_in_use(play: Play) -> None:
    found = play("08")
    assert found.standing()["CapacityShortfall", "cap"] == ("ok", 1.0)
    assert found.fired() == set()
    assert found.sql("SELECT DISTINCT in_use, delivered FROM capacity") == [(1.0, 1.0)]


def test_a_gpu_that_fell_off_the_bus_is_not_healthy(play: Play) -> None:
    found = play("21")
    assert found.standing()["CapacityShortfall", "cap"] == ("breach", 0.0)
    assert found.sql("SELECT DISTINCT observed, healthy FROM capacity") == [(1.0, 0.0)]
    assert found.sql("SELECT DISTINCT gpus, gpus_unhealthy FROM gpu_1m") == [(1, 1)]


def test_a_gpu_that_two_exporters_spell_in_two_ways_is_one_gpu(play: Play) -> None:
    found = play("06")
    assert found.standing()["CapacityShortfall", "cap"] == ("ok", 1.0)
    assert found.standing()["CapacityCeilingExceeded", "cap"] == ("ok", 1.0)
    assert found.fired() == set()
    assert found.sql("SELECT DISTINCT gpu FROM gpu") == [("GPU-00000001-0c43-4e0a-8a6e-61d9f0a2c001",)]
    assert found.sql("SELECT DISTINCT gpus, power_watts_mean FROM gpu_1m") == [(1, 634.5)]
