"""The rules, tested by data: each file of `cases/` says what a contract promises, what is read, what must come.

    clauses:    what stands in the contract under capacity, power, service_levels, spend, windows, …
    until:      the last instant, in seconds after the start (2026-06-01T00:00:00Z)
    readings:   for each kind of spec: groups (`by`), and steps that hold until the next one
    changes:    every alert change that must come, in order; keys that are left out are not compared
    standing:   the state of each clause at the end

Every case is run three ways: at once, instant by instant, and instant by instant with every state written to
JSON and read back in between.  All three must give the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline import catalog as catalogs
from pipeline.clauses import load, plan_of
from pipeline.contract.model import Contract
from pipeline.readings import DaySpend, Mute, Reading, Readings, ReadingSpec, Steps
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.evaluate import Evaluation, Plan, evaluate

START = 1_780_272_000  # 2026-06-01T00:00:00Z
CATALOG = catalogs.load()
CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
HEADER = {
    "metadata": {"id": "acme", "version": "1"},
    "parties": {"customer": "Carrier", "supplier": "Acme"},
    "term": {"start": "2026-01-01", "end": "2027-01-01"},
    "currency": "EUR",
    "timezone": "UTC",
}


def contract_of(clauses: Mapping[str, Any], folder: Path) -> Contract:
    """A contract with these sections; JSON is YAML too."""
    path = folder / "acme.yaml"
    path.write_text(json.dumps({**HEADER, **clauses}, default=str))
    return load(path)


def readings_of(spec: ReadingSpec, given: Sequence[Mapping[str, Any]], until: int) -> Readings:
    """The case's readings for one spec; a `measure` or `at` narrows down which spec is meant."""
    rows = []
    for group in given:
        if group["read"] != type(spec).__name__ or group.get("measure", "") not in (
            getattr(spec, "measure", ""),
            "",
        ):
            continue
        if group.get("topic", spec.topic) != spec.topic:
            continue
        steps = group["steps"]
        for at, step in steps.items():
            end = min((other for other in steps if other > at), default=until + 10)
            by = tuple(str(value) for value in group.get("by", ()))
            if step is not None:
                rows += [_reading(START + t, by, step) for t in range(at, end, 10)]
    return Steps(rows) if type(spec).__name__ == "TrancheSpend" else Readings(rows)


def _reading(t: int, by: tuple[str, ...], step: Any) -> Reading:
    if not isinstance(step, Mapping):
        step = {"value": step}
    known: dict[str, Any] = {k: v for k, v in step.items() if k not in ("days", "value")}
    value = step.get("value")
    if "mute" in step:
        known["mute"] = tuple(Mute(tuple(series), measure, since) for series, measure, since in step["mute"])
    if "days" in step:
        first = START - len(step["days"]) * 86_400
        pairs = [pair if isinstance(pair, list) else [pair, 0] for pair in step["days"]]
        days = tuple(
            DaySpend(first + i * 86_400, Decimal(str(usage)), Decimal(str(other)))
            for i, (usage, other) in enumerate(pairs)
        )
        amount = sum((d.usage + d.other for d in days), Decimal(0))
        known |= {"days": days, "amount": amount}
        value = float(amount)
    return Reading(t, by, None if value is None else float(value), **known)


def run(plan: Plan, answers: Mapping[ReadingSpec, Readings], until: int, step: int, saved: bool) -> Any:
    """Every change, and the last evaluation, in stretches of `step` seconds."""
    changes: list[AlertChange] = []
    found = Evaluation({}, (), (), {})
    for low in range(0, until, step):
        due = {group: (START + low, START + min(low + step, until)) for group in plan.groups}
        states = found.states
        if saved:
            states = {name: AlertState.from_json(state.to_json()) for name, state in states.items()}
            assert states == found.states
        found = evaluate(plan, due, answers, states, found.standing)
        changes += found.changes
    return changes, found


def compared(change: AlertChange, keys: Mapping[str, Any]) -> dict[str, Any]:
    """What a case may say about a change, as far as this one says it."""
    state = change.state
    facts: dict[str, Any] = {
        "t": change.t - START,
        "change": change.kind,
        "alertname": state.alertname,
        "clause": state.clause,
        "by": {name: value for name, value in state.by if value},
        "active_at": state.active_at - START,
        "fired_at": None if state.fired_at is None else state.fired_at - START,
        "resolved_at": None if state.resolved_at is None else state.resolved_at - START,
        "severity": state.severity,
        "observed": state.observed,
        "bound": state.bound,
        "unit": state.unit,
        "window": state.window,
        "trusted": state.trusted,
        "stale": state.stale,
        "labels": dict(state.labels),
        "old_severity": dict(change.old_labels or ()).get("severity"),
    }
    facts["says"] = [text for text in keys.get("says", ()) if text in " ".join(state.annotations.values())]
    return {name: facts[name] for name in keys}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_readings_in_alerts_out(path: Path, tmp_path: Path) -> None:
    case = YAML(typ="safe").load(path)
    plan = plan_of([contract_of(case["clauses"], tmp_path)], CATALOG)
    until = int(case["until"])
    due = {group: (START, START + until) for group in plan.groups}
    answers = {spec: readings_of(spec, case["readings"], until) for spec in plan.wanted(due)}
    changes, last = run(plan, answers, until, until, saved=False)
    expected = [dict(change) for change in case["changes"]]
    found = [
        compared(
            change, expected[i] if i < len(expected) else dict.fromkeys(("t", "change", "alertname", "by"))
        )
        for i, change in enumerate(changes)
    ]
    assert found == expected
    if "standing" in case:
        rows = [
            {
                "alertname": r.alertname,
                "by": {n: v for n, v in r.by if v},
                "state": r.state,
                "since": r.since - START,
            }
            for r in last.standing
        ]
        assert rows == [dict(row) for row in case["standing"]]
    for saved in (False, True):
        again, end = run(plan, answers, until, 10, saved)
        assert again == changes
        assert (end.states, end.standing) == (last.states, last.standing)
