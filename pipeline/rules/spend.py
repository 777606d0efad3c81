"""TrancheExhausted and TrancheOverrunForecast: money charged against a tranche's ceiling.

Amounts are `Decimal` up to the comparison; only what a verdict shows becomes a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from pipeline.contract.model import TrancheClause
from pipeline.rules.clauses import ClauseRule
from pipeline.rules.readings import DaySpend, Reading, TrancheSpend, match_of
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

DAY = 86_400


class Forecast(NamedTuple):
    """What a tranche will have cost by its end.

    Projected from `complete_days` UTC days before `horizon` (epoch seconds) to `total_days`.
    """

    amount: Decimal
    complete_days: int
    total_days: int
    horizon: int
    daily_usage: Decimal


def forecast(days: Iterable[DaySpend], t: int, clause: TrancheClause) -> Forecast | None:
    """Projected spend of the tranche, or None before its first complete day.

    A day is complete when `complete_after` has passed since its end.  Usage of the complete days goes on at
    its daily mean for the rest of the tranche; what is not usage (a purchase) is counted once, as charged.
    Days without charges count as complete with nothing used; days younger than that are left out altogether.
    """
    first = clause.from_t - clause.from_t % DAY
    last_end = min(t - clause.complete_after_seconds, clause.to_t)
    complete = max(0, (last_end - first) // DAY)
    if not complete:
        return None
    horizon = first + complete * DAY
    total = -(-(clause.to_t - first) // DAY)
    usage = other = Decimal(0)
    for spent in days:
        if spent.day < horizon:
            usage += spent.usage
            other += spent.other
    daily = usage / complete
    return Forecast(daily * total + other, complete, total, horizon, daily)


class _Tranche(ClauseRule[TrancheClause]):
    def prepare(self) -> None:
        billing = self.catalog.by_view("billing")
        clause, contract = self.clause_of_contract, self.contract_in_force
        self.unit = contract.currency
        self.topics = (billing.topic,)
        self.span = 3 * billing.interval
        self.spec = TrancheSpend(
            topic=billing.topic,
            match=match_of(clause.match),
            by=clause.by,
            from_t=clause.from_t,
            to_t=clause.to_t,
            categories=tuple(sorted(clause.categories)),
            cost_column=clause.cost_column,
            commitment_id=clause.commitment_id,
            currency=contract.currency,
            fx=tuple(sorted((currency, tuple(steps)) for currency, steps in contract.fx.items())),
        )
        self.specs = (self.spec,)

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        if t < self.clause_of_contract.from_t:
            return None
        terms = self.terms(t, float(self.clause_of_contract.ceiling), None)
        rows = answers[self.spec].at(t)
        found = [self.verdict(terms, t, row) for row in rows]
        return [v for v in found if v is not None] + self.unread(terms, t, rows)

    def verdict(self, terms: Terms, t: int, row: Reading) -> Verdict | None:
        raise NotImplementedError


class TrancheExhausted(_Tranche):
    """Breach: what has been charged has passed the ceiling."""

    alertname = "TrancheExhausted"

    def verdict(self, terms: Terms, t: int, row: Reading) -> Verdict | None:
        if row.amount is None:
            return Verdict(terms, row.by, t, "unknown", None, row.samples, False, {"basis": row.basis})
        state: State = "breach" if row.amount > self.clause_of_contract.ceiling else "ok"
        facts = {"spent": row.amount, "days": row.days}
        return Verdict(terms, row.by, t, state, float(row.amount), row.samples, True, facts)


class TrancheOverrunForecast(_Tranche):
    """Breach: on course to pass the ceiling before the tranche ends.  Ends when the tranche does."""

    alertname = "TrancheOverrunForecast"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        return super().judge(t, answers) if t < self.clause_of_contract.to_t else None

    def verdict(self, terms: Terms, t: int, row: Reading) -> Verdict | None:
        if row.amount is None:
            return Verdict(terms, row.by, t, "unknown", None, row.samples, False, {"basis": row.basis})
        course = forecast(row.days, t, self.clause_of_contract)
        if course is None:
            details = {"basis": "no complete day yet"}
            return Verdict(terms, row.by, t, "unknown", None, row.samples, True, details)
        state: State = "breach" if course.amount > self.clause_of_contract.ceiling else "ok"
        facts = {
            "spent": row.amount,
            "course": course,
        }
        return Verdict(terms, row.by, t, state, float(course.amount), row.samples, True, facts)
