"""How one group of one clause stands: the last verdict on it, kept as a row."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.rules.verdicts import Labels, State, Verdict

Key = tuple[str, str, str, tuple[str, ...]]


class StandingRow(NamedTuple):
    """How one group of one clause stands: the last verdict, and since when its state has been this one."""

    contract: str
    clause: str
    alertname: str
    by: Labels
    state: State
    observed: float | None
    bound: float
    unit: str
    since: int
    t: int
    window: str | None = None
    samples: int = 0
    facts: str = "{}"
    """What else the reading says, as a JSON object."""

    @property
    def key(self) -> Key:
        return (self.alertname, self.contract, self.clause, tuple(value for _, value in self.by))


def row_of(verdict: Verdict, since: int, facts: str) -> StandingRow:
    """The row of a verdict whose state has been this one since `since`."""
    terms = verdict.terms
    by = tuple(zip(terms.by, verdict.by, strict=True))
    return StandingRow(
        terms.contract,
        terms.clause,
        terms.alertname,
        by,
        verdict.state,
        verdict.observed,
        terms.bound,
        terms.unit,
        since,
        verdict.t,
        terms.window,
        verdict.samples,
        facts,
    )
