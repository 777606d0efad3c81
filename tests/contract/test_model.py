"""Bounds and severities at an instant: the tightest and the most urgent of those in force."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clauses.capacity import CapacityBounds, CapacityClause, Promise
from pipeline.clauses.power import PowerClause
from pipeline.clauses.service_levels import ServiceLevelClause
from pipeline.clauses.tranches import TrancheClause
from pipeline.contract.model import Ramp
from pipeline.contract.windows import Window

PEAK = Window.of("peak", "UTC", [(1000, 2000), (5000, 6000)])
NIGHT = Window.of("night", "UTC", [(1500, 1700)])
WINDOWS = {"peak": PEAK, "night": NIGHT}


def flat(value: float) -> Ramp:
    return Ramp(((0, value),))


FLEET = CapacityClause(
    id="fleet",
    committed_gpus=Ramp(((100, 8.0), (1800, 30.0))),
    ceiling_gpus=flat(100),
    in_window={
        "peak": CapacityBounds(committed_gpus=flat(16), ceiling_gpus=flat(90)),
        "night": CapacityBounds(committed_gpus=flat(24)),
    },
    lead_seconds=300,
    severity="ticket",
    severity_in_window={"peak": "warning", "night": "critical"},
)


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6)), min_size=1, unique_by=lambda s: s[0]))
def test_a_ramp_holds_each_value_from_its_date_until_the_next(steps: list[tuple[int, float]]) -> None:
    ramp = Ramp(tuple(sorted(steps)))
    for t in range(-1, 1002):
        begun = [value for start, value in ramp.steps if start <= t]
        assert ramp.at(t) == (begun[-1] if begun else None)


@pytest.mark.parametrize(
    ("t", "floor", "ceiling", "severity"),
    [
        (50, None, (100, None), "ticket"),  # before the first step nothing is promised
        (999, (8, None), (100, None), "ticket"),
        (1000, (16, "peak"), (90, "peak"), "warning"),
        (1600, (24, "night"), (90, "peak"), "critical"),
        (1700, (16, "peak"), (90, "peak"), "warning"),
        (1900, (30, None), (90, "peak"), "warning"),  # the ramp has overtaken the window
        (2000, (30, None), (100, None), "ticket"),
    ],
)
def test_the_tightest_bound_and_the_most_urgent_severity_hold(
    t: int, floor: object, ceiling: object, severity: str
) -> None:
    assert FLEET.floor_at(t, WINDOWS) == floor
    assert FLEET.ceiling_at(t, WINDOWS) == ceiling
    assert FLEET.severity_at(t, WINDOWS) == severity


def test_a_clause_without_a_floor_has_none() -> None:
    assert CapacityClause(id="c", ceiling_gpus=flat(5)).floor_at(10, {}) is None


def test_a_window_may_lower_the_severity() -> None:
    quiet = CapacityClause(id="c", severity="critical", severity_in_window={"night": "info"})
    assert [quiet.severity_at(t, WINDOWS) for t in (1499, 1500, 1700)] == ["critical", "info", "critical"]


def test_promises_ahead_are_those_of_windows_that_start_within_the_lead() -> None:
    night = Promise("night", 1500, 1700, 24.0)
    assert FLEET.promises_ahead(699, WINDOWS) == ()
    assert FLEET.promises_ahead(700, WINDOWS) == (Promise("peak", 1000, 2000, 16.0),)
    assert FLEET.promises_ahead(1000, WINDOWS) == ()  # it has started: now it is a shortfall
    assert FLEET.promises_ahead(1499, WINDOWS) == (night,)
    assert FLEET.promises_ahead(4700, WINDOWS) == (Promise("peak", 5000, 6000, 16.0),)


def test_without_a_lead_nothing_is_checked_ahead() -> None:
    clause = CapacityClause(id="c", in_window={"peak": CapacityBounds(committed_gpus=flat(1))})
    assert clause.promises_ahead(999, WINDOWS) == ()


def test_a_service_level_tightens_inside_its_windows() -> None:
    clause = ServiceLevelClause(
        id="s", indicator="queue_wait_p95", bound=600, in_window={"peak": 300, "night": 120}
    )
    assert [clause.bound_at(t, WINDOWS) for t in (0, 1000, 1600)] == [
        (600, None),
        (300, "peak"),
        (120, "night"),
    ]
    assert clause.quantile == 0.95
    assert ServiceLevelClause(id="s", indicator="pending_jobs", bound=1).quantile is None


def test_power_follows_its_ramp_and_overhead_adds_to_what_gpus_draw() -> None:
    clause = PowerClause(id="p", ceiling_megawatts=Ramp(((10, 4.0), (20, 6.5))), overhead_ratio=0.25)
    assert [clause.ceiling_at(t) for t in (9, 10, 20)] == [None, 4.0, 6.5]
    assert clause.it_watts(1000) == 1250


def test_kinds_are_named() -> None:
    tranche = TrancheClause(id="t", from_t=0, to_t=1, ceiling=Decimal(1))
    assert [c.kind for c in (FLEET, tranche)] == ["capacity", "tranche"]
