"""Laws of the alert state machine, for any sequence of verdicts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rules.alerts import AlertChange, AlertState, step
from pipeline.rules.verdicts import State, Terms, Verdict

STATES: tuple[State, ...] = ("ok", "breach", "unknown")


def terms(hold: int, keep: int, span: int = 90, severity: str = "warning", bound: float = 10.0) -> Terms:
    route = (("team", "noc"),)
    return Terms("A", "c", "k", ("region",), bound, "GPUs", None, severity, route, hold, keep, span)


def verdict(found: Terms, t: int, state: State) -> Verdict:
    return Verdict(found, ("eu\"'\n",), t, state, 7.5, 3)


@st.composite
def histories(draw: st.DrawFn) -> list[Verdict]:
    """Verdicts on the grid, in runs; `for`, `keep_firing_for`, severity and bound as a contract may have them."""
    hold, keep = draw(st.sampled_from([0, 10, 25, 60])), draw(st.sampled_from([0, 10, 30]))
    span = draw(st.sampled_from([20, 90]))
    history: list[Verdict] = []
    for _ in range(draw(st.integers(1, 12))):
        severity = draw(st.sampled_from(["warning", "critical"]))
        found = terms(hold, keep, span, severity, draw(st.sampled_from([10.0, 20.0])))
        state = draw(st.sampled_from(STATES))
        for _ in range(draw(st.integers(1, 8))):
            history.append(verdict(found, 1000 + 10 * len(history), state))
    return history


def play(
    history: list[Verdict], state: AlertState | None = None
) -> list[tuple[AlertState | None, AlertChange | None]]:
    steps = []
    for one in history:
        state, change = step(state, one, one.t)
        steps.append((state, change))
    return steps


@given(histories())
def test_an_alert_fires_no_sooner_than_its_for_and_only_on_a_breach(history: list[Verdict]) -> None:
    for one, (_, change) in zip(history, play(history), strict=True):
        if change and change.kind == "firing":
            state = change.state
            assert one.state == "breach" and state.fired_at == one.t
            assert state.fired_at - state.active_at >= one.terms.hold


@given(histories())
def test_it_fires_at_the_first_breach_that_is_old_enough(history: list[Verdict]) -> None:
    state = None
    for one in history:
        state, _ = step(state, one, one.t)
        if state and state.phase == "pending" and one.state == "breach":
            assert one.t - state.active_at < one.terms.hold


@given(histories())
def test_active_at_begins_an_unbroken_run_of_breaches(history: list[Verdict]) -> None:
    for _, change in play(history):
        if change and change.kind == "firing":
            run = [v for v in history if change.state.active_at <= v.t <= change.t]
            assert run[0].state == "breach" and all(v.state != "ok" for v in run)
            before = [v for v in history if v.t < change.state.active_at]
            assert not before or before[-1].state != "breach" or _ended(history, before[-1].t)


def _ended(history: list[Verdict], t: int) -> bool:
    """Whether the alert ended at `t` by a breach's eve: only a resolve or an ended pending alert may."""
    changes = {c.t: c.kind for _, c in play(history) if c}
    return changes.get(t) in ("resolved", "inactive")


@given(histories())
def test_there_are_never_two_firings_without_a_resolve_between(history: list[Verdict]) -> None:
    kinds = [c.kind for _, c in play(history) if c and c.kind in ("firing", "resolved")]
    assert kinds == (["firing", "resolved"] * len(kinds))[: len(kinds)]


@given(histories())
def test_it_resolves_at_the_first_good_instant_after_keep_firing_for(history: list[Verdict]) -> None:
    for _, change in play(history):
        if change and change.kind == "resolved":
            keep = history[0].terms.keep
            run = [v for v in history if change.t - keep <= v.t <= change.t]
            assert all(v.state == "ok" for v in run)
            assert change.state.resolved_at == change.t
    for one, (state, _) in zip(history, play(history), strict=True):
        if state and state.phase == "firing" and one.state == "ok":
            assert state.good_since is not None and one.t - state.good_since < one.terms.keep


@given(histories())
def test_unknown_neither_fires_nor_resolves_and_ends_a_pending_alert_only_after_the_span(
    history: list[Verdict],
) -> None:
    unknown_for = 0
    for one, (_, change) in zip(history, play(history), strict=True):
        unknown_for = unknown_for + 10 if one.state == "unknown" else 0
        if one.state == "unknown" and change:
            assert change.kind in ("stale", "updated", "inactive")
            assert change.kind != "inactive" or unknown_for - 10 > one.terms.span


@given(histories())
def test_stale_is_said_exactly_while_a_firing_alert_is_unknown(history: list[Verdict]) -> None:
    for one, (state, _) in zip(history, play(history), strict=True):
        if state and state.phase == "firing":
            assert state.stale == (one.state == "unknown")


@given(histories())
def test_the_labels_of_a_firing_alert_are_those_in_force_and_every_change_says_what_they_were(
    history: list[Verdict],
) -> None:
    told: tuple[tuple[str, str], ...] | None = None
    for one, (state, change) in zip(history, play(history), strict=True):
        if change and change.kind == "firing":
            told = change.state.labels
        elif change and change.kind == "updated":
            assert change.old_labels == told
            told = change.state.labels
        elif change and change.kind == "resolved":
            assert change.state.labels == told
        if state and state.phase == "firing":
            assert state.labels == told == one.labels


@given(histories(), st.data())
def test_a_restart_changes_nothing(history: list[Verdict], data: st.DataObject) -> None:
    steps = play(history)
    at = data.draw(st.integers(0, len(history) - 1))
    saved = steps[at][0]
    restored = None if saved is None else AlertState.from_json(saved.to_json())
    assert restored == saved
    assert play(history[at + 1 :], restored) == steps[at + 1 :]


def test_a_good_or_unknown_reading_of_an_inactive_alert_is_nothing() -> None:
    assert step(None, verdict(terms(0, 0), 0, "ok"), 0) == (None, None)
    assert step(None, verdict(terms(0, 0), 0, "unknown"), 0) == (None, None)


def test_identity_is_alertname_contract_clause_and_the_by_dimensions() -> None:
    state, _ = step(None, verdict(terms(0, 0), 0, "breach"), 0)
    assert state and state.identity == '["A", "c", "k", {"region": "eu\\"\'\\n"}]'
    changed, change = step(state, verdict(terms(0, 0, severity="critical"), 10, "breach"), 10)
    assert changed and changed.identity == state.identity and changed.fired_at == 0
    assert change and change.kind == "updated" and change.relabelled and change.pages


@pytest.mark.parametrize("kind", ["pending", "inactive"])
def test_nobody_is_told_of_what_happens_before_an_alert_fires(kind: str) -> None:
    history = [verdict(terms(60, 0), 0, "breach"), verdict(terms(60, 0), 10, "ok")]
    (change,) = [c for _, c in play(history) if c and c.kind == kind]
    assert not change.pages


def test_an_empty_dimension_is_no_label() -> None:
    state, _ = step(None, Verdict(terms(0, 0), ("",), 0, "breach", 1.0), 0)
    assert state and "region" not in dict(state.labels)
