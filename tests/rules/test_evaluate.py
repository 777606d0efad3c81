"""Evaluation: one stretch or many give the same, and each clause waits for its own topics only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import catalog as catalogs
from pipeline.clauses import load, plan_of
from pipeline.readings import EntityCount, FateBalance, Reading, Readings, ReadingSpec, SilentSeries
from pipeline.rules.alerts import AlertState
from pipeline.rules.evaluate import Evaluation, Plan, evaluate

CATALOG = catalogs.load()
GPU, QUEUE, ENERGY, BILLING = "telemetry.gpu", "telemetry.queue", "telemetry.energy", "telemetry.billing"
START = 1_780_272_000
CONTRACT = """
metadata: {id: acme, version: "1"}
parties: {customer: Carrier, supplier: Acme}
term: {start: 2026-01-01, end: 2027-01-01}
currency: EUR
timezone: UTC
windows:
  peak: {ranges: [{start: "2026-06-01T00:01Z", end: "2026-06-01T00:02Z"}]}
capacity:
  - id: floor
    by: [region]
    committed_gpus: 100
    ceiling_gpus: 300
    in_window: {peak: {committed_gpus: 150}}
    severity_in_window: {peak: critical}
    lead: 30s
    for: 20s
    keep_firing_for: 20s
power: [{id: ramp, ceiling_megawatts: 10}]
service_levels: [{id: wait, indicator: queue_wait_p95, bound: 60s}]
spend: {tranches: [{id: t1, from: 2026-05-01, to: 2026-07-01, ceiling: 100}]}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("contract") / "acme.yaml"
    path.write_text(CONTRACT)
    return plan_of([load(path)], CATALOG)


@st.composite
def answers_to(draw: st.DrawFn) -> list[Reading]:
    """Capacity of three regions over 20 instants, each present, silent, lost or absent as it comes."""
    rows = []
    for region in ("eu", "us", ""):
        for i in range(1, 21):
            value = draw(st.sampled_from([None, 50.0, 120.0, 160.0, 400.0]))
            if value is not None:
                silent = draw(st.sampled_from([0.0, 0.0, 60.0]))
                rows.append(Reading(START + 10 * i, (region,), value, silent, samples=9))
    return rows


def answer(plan: Plan, rows: list[Reading]) -> dict[ReadingSpec, Readings]:
    due = {group: (START, START + 200) for group in plan.groups}
    specs = plan.wanted(due)
    return {spec: Readings(rows if isinstance(spec, EntityCount) else ()) for spec in specs}


def run(plan: Plan, answers: Mapping[ReadingSpec, Readings], cuts: list[int], saved: bool) -> Any:
    found = Evaluation({}, (), (), {})
    changes = []
    for low, high in zip([0, *cuts], [*cuts, 20], strict=True):
        states = found.states
        if saved:
            states = {k: AlertState.from_json(s.to_json()) for k, s in states.items()}
        due = {group: (START + 10 * low, START + 10 * high) for group in plan.groups}
        found = evaluate(plan, due, answers, states, found.standing)
        changes += found.changes
    return changes, found.states, found.standing


@given(rows=answers_to(), cuts=st.sets(st.integers(1, 19)), saved=st.booleans())
def test_a_range_at_once_is_the_same_as_in_any_pieces_with_any_restarts(
    plan: Plan, rows: list[Reading], cuts: set[int], saved: bool
) -> None:
    answers = answer(plan, rows)
    assert run(plan, answers, sorted(cuts), saved) == run(plan, answers, [], False)


@given(rows=answers_to())
def test_the_order_of_readings_does_not_show(plan: Plan, rows: list[Reading]) -> None:
    assert run(plan, answer(plan, rows), [], False) == run(plan, answer(plan, rows[::-1]), [], False)


@given(rows=answers_to())
def test_changes_come_in_order_of_instant_and_identity(plan: Plan, rows: list[Reading]) -> None:
    changes, _, _ = run(plan, answer(plan, rows), [], False)
    keys = [(c.t, c.state.key) for c in changes]
    assert keys == sorted(keys)


def test_a_clause_waits_only_for_the_topics_it_reads(plan: Plan) -> None:
    found = {rule.clause: rule.topics for rule in plan.rules if rule.contract == "acme"}
    assert found == {"floor": (GPU,), "ramp": (ENERGY, GPU), "wait": (QUEUE,), "t1": (BILLING,)}
    before = {GPU: START, ENERGY: START, QUEUE: START}
    due = plan.due(before, {**before, GPU: START + 50}, {})
    assert due == {GPU: (START, START + 50)}
    due = plan.due(before, {**before, GPU: START + 50, ENERGY: START + 20}, {})
    assert due[f"{ENERGY}+{GPU}"] == (START, START + 20) and due[GPU] == (START, START + 50)


def test_a_topic_that_never_came_holds_nobody_back_and_one_that_begins_late_turns_no_clock_back(
    plan: Plan,
) -> None:
    group = f"{ENERGY}+{GPU}"
    assert plan.due({GPU: START}, {GPU: START + 50}, {})[group] == (START, START + 50)
    done = {group: START + 50, GPU: START + 50}
    late = plan.due({GPU: START + 50}, {GPU: START + 60, ENERGY: START + 20}, done)
    assert group not in late and late[GPU] == (START + 50, START + 60)
    on = plan.due({GPU: START + 60, ENERGY: START + 20}, {GPU: START + 60, ENERGY: START + 60}, done)
    assert on[group] == (START + 50, START + 60)


def test_the_first_instant_of_a_topic_is_evaluated_alone(plan: Plan) -> None:
    assert plan.due({}, {QUEUE: START}, {}) == {QUEUE: (START - 10, START)}


def test_a_question_that_two_clauses_ask_is_read_once(plan: Plan) -> None:
    wanted = plan.wanted({GPU: (START, START + 10), f"{ENERGY}+{GPU}": (START - 30, START + 5)})
    assert sum(isinstance(spec, EntityCount) for spec in wanted) == 1
    assert {type(spec).__name__ for spec in wanted} == {
        "EntityCount", "FleetPower", "MeterMean", "SilentSeries", "FateBalance",
    }  # fmt: skip


def test_the_alerts_of_a_clause_that_is_withdrawn_end(plan: Plan) -> None:
    answers = answer(plan, [Reading(START + 10 * i, ("eu",), 50.0) for i in range(1, 21)])
    _, states, standing = run(plan, answers, [], False)
    assert {s.phase for s in states.values()} == {"firing"}
    bare = plan_of([], CATALOG)
    due = {GPU: (START + 200, START + 210)}
    nothing: dict[ReadingSpec, Readings] = {
        SilentSeries(GPU): Readings(()),
        FateBalance(GPU, 3600): Readings(()),
    }
    after = evaluate(bare, due, nothing, states, standing)
    assert after.states == {} and after.standing == ()
    assert [(c.kind, c.t, c.state.resolved_at) for c in after.changes] == [
        ("resolved", START + 210, START + 210)
    ]


def test_alerts_end_with_the_term_of_the_contract(plan: Plan) -> None:
    rows = [Reading(1_798_761_600 + 10 * i, ("eu",), 50.0) for i in range(-5, 5)]  # 2027-01-01T00:00:00Z
    answers = {spec: Readings(rows if isinstance(spec, EntityCount) else ()) for spec in answer(plan, [])}
    due = {GPU: (1_798_761_600 - 60, 1_798_761_600 + 40)}
    found = evaluate(plan, due, answers, {})
    assert [(c.kind, c.t - 1_798_761_600) for c in found.changes] == [
        ("pending", -50),
        ("firing", -30),
        ("resolved", 20),
    ]
    assert found.states == {} and found.standing == ()
