"""The alert state machine: inactive → pending → firing → resolved, as one pure function of event time.

Live running, a replay and a backtest call the same `step`, so they cannot disagree.  `active_at` is the first
instant of an unbroken run of breaches, `fired_at` the first breaching instant with
`fired_at - active_at ≥ for`, `resolved_at` the first good instant by which an unbroken run of good instants
has lasted `keep_firing_for`.  A state is a value: it can be saved, compared and taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from pipeline.rules.verdicts import Labels, Verdict

Phase = Literal["pending", "firing", "resolved", "inactive"]
Kind = Literal["pending", "firing", "updated", "stale", "fresh", "resolved", "inactive"]


@dataclass(frozen=True, slots=True)
class AlertState:
    """One alert that is not inactive.  Instants are epoch seconds; `labels` is the full label set, sorted.

    `hold`: the clause's `for` when it became active, in seconds.  `observed` is the present value, `fired_observed` the
    one that it fired with.
    `good_since`: the first instant of the good run that a firing alert is in.  `unknown_since`: since when
    readings have been unknown.  `stale`: it fires, but the last reading could not vouch for it.
    `annotations` are those of the last change.
    """

    alertname: str
    contract: str
    clause: str
    by: Labels
    phase: Phase
    active_at: int
    labels: Labels
    severity: str
    bound: float
    unit: str
    fired_at: int | None = None
    resolved_at: int | None = None
    good_since: int | None = None
    unknown_since: int | None = None
    stale: bool = False
    window: str | None = None
    observed: float | None = None
    samples: int = 0
    trusted: bool = True
    annotations: Mapping[str, str] = field(default_factory=dict)
    hold: int = 0
    fired_observed: float | None = None

    @property
    def key(self) -> tuple[str, str, str, tuple[str, ...]]:
        """The identity as a tuple, equal to the `key` of its verdicts."""
        return (self.alertname, self.contract, self.clause, tuple(value for _, value in self.by))

    @property
    def identity(self) -> str:
        """The identity as text: alertname, contract, clause and the `by` dimensions, as JSON."""
        return json.dumps([self.alertname, self.contract, self.clause, dict(self.by)], ensure_ascii=False)

    def to_json(self) -> str:
        """This state as JSON; `from_json` gives back an equal one."""
        said = {name: getattr(self, name) for name in _SAVED} | {"annotations": dict(self.annotations)}
        return json.dumps(said, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> AlertState:
        """Reads what `to_json` wrote.  Raises ValueError, KeyError or TypeError on anything else."""
        saved: dict[str, Any] = json.loads(text)
        for name in ("by", "labels"):
            saved[name] = tuple((k, v) for k, v in saved[name])
        return cls(**saved)


_SAVED = tuple(each.name for each in fields(AlertState))
"""All live alerts are written in every transaction that evaluates: `asdict` would copy all that they hold, for 60 µs each."""


class AlertChange(NamedTuple):
    """What happened to an alert at the event time `t`, and its state after that.

    `updated`: bound, window, severity or route changed while it fires; `old_labels` is the label set before.
    `stale`, `fresh`: a firing alert's reading became unknown, or known again.  `inactive`: a pending alert
    ended without firing.
    """

    kind: Kind
    t: int
    state: AlertState
    old_labels: Labels | None = None

    @property
    def relabelled(self) -> bool:
        """True when the old label set has to be ended where label sets are identities."""
        return self.old_labels is not None and self.old_labels != self.state.labels

    @property
    def pages(self) -> bool:
        """True for what people are told about: everything but what happens before an alert fires."""
        return self.state.fired_at is not None


Step = tuple[AlertState | None, AlertChange | None]


def step(state: AlertState | None, verdict: Verdict, t: int) -> Step:
    """The state after `verdict` at `t`, and what changed, if anything did."""
    if state is None:
        return _begin(verdict, t) if verdict.state == "breach" else (None, None)
    if state.phase == "pending":
        return _pending(state, verdict, t)
    return _firing(state, verdict, t)


def _begin(verdict: Verdict, t: int) -> Step:
    fires = verdict.terms.hold <= 0
    state = _seen(
        AlertState(
            alertname=verdict.terms.alertname,
            contract=verdict.terms.contract,
            clause=verdict.terms.clause,
            by=tuple(zip(verdict.terms.by, verdict.by, strict=True)),
            phase="firing" if fires else "pending",
            active_at=t,
            fired_at=t if fires else None,
            labels=verdict.labels,
            severity=verdict.terms.severity,
            bound=verdict.terms.bound,
            unit=verdict.terms.unit,
            hold=verdict.terms.hold,
            fired_observed=verdict.observed if fires else None,
        ),
        verdict,
    )
    return state, AlertChange("firing" if fires else "pending", t, state)


def _pending(state: AlertState, verdict: Verdict, t: int) -> Step:
    if verdict.state == "breach":
        state = replace(_seen(state, verdict), unknown_since=None)
        if t - state.active_at < verdict.terms.hold:
            return state, None
        state = replace(state, phase="firing", fired_at=t, fired_observed=verdict.observed)
        return state, AlertChange("firing", t, state)
    if verdict.state == "unknown":
        since = t if state.unknown_since is None else state.unknown_since
        if t - since <= verdict.terms.span:
            return (state if state.unknown_since == since else replace(state, unknown_since=since)), None
    return None, AlertChange("inactive", t, replace(_seen(state, verdict), phase="inactive"))


def _firing(state: AlertState, verdict: Verdict, t: int) -> Step:
    if verdict.state == "ok":
        since = t if state.good_since is None else state.good_since
        if t - since >= verdict.terms.keep:
            return None, AlertChange("resolved", t, _resolved(state, verdict, t))
        after = replace(_seen(state, verdict), good_since=since, unknown_since=None, stale=False)
    elif verdict.state == "unknown":
        since = t if state.unknown_since is None else state.unknown_since
        after = replace(_relabelled(state, verdict), good_since=None, unknown_since=since, stale=True)
    else:
        after = replace(_seen(state, verdict), good_since=None, unknown_since=None, stale=False)
    return after, _change(state, after, t)


def _change(before: AlertState, after: AlertState, t: int) -> AlertChange | None:
    if (before.labels, before.bound, before.window) != (after.labels, after.bound, after.window):
        return AlertChange("updated", t, after, before.labels)
    if before.stale != after.stale:
        return AlertChange("stale" if after.stale else "fresh", t, after)
    return None


def _resolved(state: AlertState, verdict: Verdict, t: int) -> AlertState:
    """Keeps the labels that it fired with: it is they that have to be ended."""
    return replace(
        state,
        phase="resolved",
        resolved_at=t,
        stale=False,
        observed=verdict.observed,
        samples=verdict.samples,
    )


def _seen(state: AlertState, verdict: Verdict) -> AlertState:
    state = _relabelled(state, verdict)
    return replace(state, observed=verdict.observed, samples=verdict.samples, trusted=verdict.trusted)


def _relabelled(state: AlertState, verdict: Verdict) -> AlertState:
    """With the bound, window, severity and route in force now; the identity stays."""
    terms = verdict.terms
    return replace(
        state,
        labels=verdict.labels,
        severity=terms.severity,
        bound=terms.bound,
        unit=terms.unit,
        window=terms.window,
    )
