"""CapacityShortfall, CapacityCeilingExceeded and WindowNotReady: delivered GPUs against what was promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.contract.model import CapacityClause, Promise
from pipeline.readings import EntityCount, Reading, match_of
from pipeline.readings.undelivered import Look, Missing
from pipeline.rules.clauses import ClauseRule, above, below, lookback, told
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

#: So many places where GPUs have moved to are named.
PLACES = 3


class _Capacity(ClauseRule[CapacityClause]):
    """All three read the same: distinct GPUs over the span, with silent ones carried and lost ones told.

    A group that was only ever seen, not named by the clause, ends when all its GPUs have moved to others.
    """

    unit = "GPUs"

    def prepare(self) -> None:
        gpu = self.catalog.by_view("gpu")
        clause = self.clause_of_contract
        self.span = lookback(gpu, clause)
        self.spec = EntityCount(
            topic=gpu.topic,
            match=match_of(clause.match),
            by=clause.by,
            span=self.span,
            counts=clause.counts,
            loss_after=clause.silence_is_loss_after_seconds,
        )
        self.specs = (self.spec,)
        self.topics = (gpu.topic,)

    def verdict(
        self, terms: Terms, row: Reading, state: State, details: Mapping[str, Any] | None = None
    ) -> Verdict:
        """The verdict on one group, with what its number is made of."""
        if row.left and row.by not in self.groups:
            state = "ok"
        if row.counts is not None:
            observed, healthy, in_use = row.counts
            details = {**(details or {}), "seen": observed, "healthy": healthy, "in_use": in_use}
        if row.silent or row.lost:
            details = {**(details or {}), "silent": row.silent, "lost": row.lost}
        if row.mute:
            details = {**(details or {}), **told(row.mute)}
        if row.frozen:
            details = {**(details or {}), "frozen": row.frozen}
        if row.moved:
            details = {
                **(details or {}),
                "moved": sum(n for _, n in row.moved),
                "moved_to": _places(row.moved),
            }
        trusted = row.settled and not row.silent
        return Verdict(terms, row.by, row.t, state, row.value, row.samples, trusted, details)


class CapacityShortfall(_Capacity):
    """Breach: short of the floor even if all that is silent were still there.  Lost GPUs are not there."""

    alertname = "CapacityShortfall"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        floor = self.clause_of_contract.floor_at(t, self.contract_in_force.windows)
        if floor is None:
            return None
        terms = self.terms(t, floor.value, floor.window)
        rows = answers[self.spec].at(t)
        found = [self.verdict(terms, r, below(r, floor.value)) for r in rows]
        return found + self.unread(terms, t, rows)


class CapacityCeilingExceeded(_Capacity):
    """Breach: more delivered than allowed.  What is silent or lost to us may well still be there."""

    alertname = "CapacityCeilingExceeded"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        ceiling = self.clause_of_contract.ceiling_at(t, self.contract_in_force.windows)
        if ceiling is None:
            return None
        terms = self.terms(t, ceiling.value, ceiling.window)
        rows = answers[self.spec].at(t)
        found = [
            self.verdict(terms, r, above(r.value or 0.0, r.silent + r.lost, ceiling.value, r.mute))
            for r in rows
        ]
        return found + self.unread(terms, t, rows)


class WindowNotReady(_Capacity):
    """Breach: a window starts within its lead, and the GPUs promised inside it are not there yet.

    Once the window is open CapacityShortfall speaks, and this alert does not begin any more.  One that fires goes on
    until the GPUs are there or the window is over: nobody is told "resolved" while they are short.
    """

    alertname = "WindowNotReady"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        promises = self.clause_of_contract.promises_ahead(t, self.contract_in_force.windows)
        if not promises:
            return None
        ahead = max(promises, key=lambda promise: (promise.gpus, -promise.start))
        terms = self.terms(t, ahead.gpus, ahead.window)
        rows = answers[self.spec].at(t)
        details = _starts(ahead)
        found = [self.verdict(terms, r, below(r, ahead.gpus), details) for r in rows]
        return found + self.unread(terms, t, rows)

    def lingering(self, t: int, by: tuple[str, ...], window: str | None, answers: Answers) -> Verdict | None:
        """As it was promised before the window opened, with the severity of before: nobody is paged twice for it."""
        windows = self.contract_in_force.windows
        opened = self.clause_of_contract.promise_open(t, window or "", windows)
        row = next((row for row in answers[self.spec].at(t) if row.by == by), None)
        if opened is None or row is None or not self.contract_in_force.in_force(t):
            return None
        terms = self.terms(opened.start - 1, opened.gpus, opened.window)
        return self.verdict(terms, row, below(row, opened.gpus), {**_starts(opened), "opened": True})


FLOORS = (CapacityShortfall, WindowNotReady)
"""The alerts of which somebody asks who is missing."""


def missing(
    rule: CapacityShortfall | WindowNotReady,
    by: tuple[str, ...],
    t: int,
    facts: Mapping[str, Any],
    active_at: int,
    look: Look,
) -> Missing:
    """Who is missing in the group `by` at `t`, with as many silent as its reading carries, by the `facts` of that."""
    silent = int(facts.get("silent", 0) + facts.get("lost", 0))
    return look(rule.spec, by, t, active_at).silent(silent)


def _starts(promise: Promise) -> Mapping[str, Any]:
    return {"window_starts": promise.start, "window_ends": promise.end}


def _places(moved: Sequence[tuple[str, int]]) -> str:
    """Where they are now, in words: the three places that have most."""
    named = [f"{place} ({n})" for place, n in moved[:PLACES]]
    others = len(moved) - len(named)
    return ", ".join([*named, *([f"{others} more"] if others else [])])
