"""TrancheExhausted and TrancheOverrunForecast: money charged against a tranche's ceiling.

Amounts are `Decimal` up to the comparison; only what a verdict shows becomes a float.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from pipeline.contract.days import LocalDay, local_days
from pipeline.contract.model import TrancheClause
from pipeline.contract.money import EXACT, ZERO, total
from pipeline.readings import DaySpend, Reading, TrancheSpend, match_of
from pipeline.rules.clauses import ClauseRule
from pipeline.rules.verdicts import Answers, State, Terms, Verdict

INFINITY = Decimal("Infinity")


class Forecast(NamedTuple):
    """What a tranche will have cost by its end.

    Projected from `complete_days` days before `horizon` (epoch seconds) to `total_days`, of the contract's zone.
    `crosses`: the calendar date, as `DaySpend.day`, from whose end on this course lies above the ceiling; None if it
    ends within it.
    """

    amount: Decimal
    complete_days: int
    total_days: int
    horizon: int
    daily_usage: Decimal
    crosses: int | None = None


def forecast(days: Sequence[DaySpend], t: int, clause: TrancheClause, zone: str = "UTC") -> Forecast | None:
    """Projected spend of the tranche, or None before its first complete day.

    A day of `zone` is complete when `complete_after` has passed since its end.  Usage of the complete days goes on at
    its daily mean for the rest of the tranche; what is not usage (a purchase) is counted once, as charged.
    Days without charges count as complete with nothing used; days younger than that are left out, but a forecast is
    never below what is spent.  Usage is projected in millionths of the currency.
    """
    calendar = local_days(zone, clause.from_t, clause.to_t)
    complete = bisect_right(
        calendar, t - clause.complete_after_seconds, key=lambda day: min(day.end, clause.to_t)
    )
    if not complete:
        return None
    known = {day.date for day in calendar[:complete]}
    usage = total(spent.usage for spent in days if spent.day in known)
    other = total(spent.other for spent in days if spent.day in known)
    spent = total(each for day in days for each in (day.usage, day.other))
    millionths = int(usage.quantize(Decimal("1e-6"), context=EXACT).scaleb(6, EXACT))
    projected = total((_millionths(millionths * len(calendar), complete), other))
    horizon = min(calendar[complete - 1].end, clause.to_t)

    def course(upto: int) -> Decimal:
        """Projected to the end of the first `upto` days; what has been charged where those are complete."""
        return total((_millionths(millionths * upto, complete), other)) if upto > complete else -INFINITY

    return Forecast(
        max(projected, spent),
        complete,
        len(calendar),
        horizon,
        _millionths(millionths, complete),
        _crosses(days, calendar, clause.ceiling, course),
    )


def _crosses(
    days: Sequence[DaySpend],
    calendar: Sequence[LocalDay],
    ceiling: Decimal,
    course: Callable[[int], Decimal] = lambda upto: -INFINITY,
) -> int | None:
    """The date from whose end on the charges, or the `course`, lie above the ceiling; None if they end within it."""
    charged = {day.day: total((day.usage, day.other)) for day in days}
    sofar = total(charged.values())
    found = None
    for upto, day in reversed(list(enumerate(calendar, 1))):
        if max(course(upto), sofar) <= ceiling:
            return found
        found = day.date
        sofar = EXACT.subtract(sofar, charged.get(day.date, ZERO))
    return found


def _millionths(amount: int, divisor: int) -> Decimal:
    """`amount` of millionths over `divisor`, the rest cut off, as the SQL that reproduces it has it."""
    whole = abs(amount) // divisor
    return Decimal(whole if amount >= 0 else -whole).scaleb(-6, EXACT)


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
            purchases=clause.purchases,
            zone=contract.timezone,
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

    def _crossing(self, date: int | None) -> dict[str, str]:
        """The date on which the ceiling is passed, and whose date that is: the contract's zone."""
        if date is None:
            return {}
        return {"crosses": _iso(date), "zone": self.spec.zone}


class TrancheExhausted(_Tranche):
    """Breach: what has been charged has passed the ceiling, also without what could not be counted.

    Below it that decides: while anything is left out, whether the ceiling is kept is unknown.
    """

    alertname = "TrancheExhausted"

    def verdict(self, terms: Terms, t: int, row: Reading) -> Verdict | None:
        if row.amount is None:
            return Verdict(terms, row.by, t, "unknown", None, row.samples, False, {"basis": row.basis})
        clause = self.clause_of_contract
        state = _state(row, row.amount, clause.ceiling)
        calendar = local_days(self.spec.zone, clause.from_t, clause.to_t)
        crosses = _crosses(row.days, calendar, clause.ceiling) if state == "breach" else None
        facts = {"spent": row.amount, "days": row.days, **self._crossing(crosses), **_left_out(row)}
        return Verdict(terms, row.by, t, state, float(row.amount), row.samples, not row.left_out, facts)


class TrancheOverrunForecast(_Tranche):
    """Breach: on course to pass the ceiling before the tranche ends.  Ends when the tranche does."""

    alertname = "TrancheOverrunForecast"

    def judge(self, t: int, answers: Answers) -> Sequence[Verdict] | None:
        return super().judge(t, answers) if t < self.clause_of_contract.to_t else None

    def _day(self, t: int) -> str:
        """The date of `t`, an instant of the tranche, in the contract's zone."""
        clause = self.clause_of_contract
        calendar = local_days(self.spec.zone, clause.from_t, clause.to_t)
        return _iso(calendar[bisect_right(calendar, t, key=lambda day: day.start) - 1].date)

    def verdict(self, terms: Terms, t: int, row: Reading) -> Verdict | None:
        if row.amount is None:
            return Verdict(terms, row.by, t, "unknown", None, row.samples, False, {"basis": row.basis})
        clause = self.clause_of_contract
        course = forecast(row.days, t, clause, self.spec.zone)
        facts = {"day": self._day(t), "spent": row.amount, "ceiling": clause.ceiling, **_left_out(row)}
        if course is None:
            facts["basis"] = "no complete day yet"
            return Verdict(terms, row.by, t, "unknown", None, row.samples, True, facts)
        state = _state(row, course.amount, clause.ceiling)
        facts |= {
            "forecast": course.amount,
            "complete_days": course.complete_days,
            "total_days": course.total_days,
            "course": course,
            **self._crossing(course.crosses),
        }
        return Verdict(terms, row.by, t, state, float(course.amount), row.samples, not row.left_out, facts)


def _state(row: Reading, amount: Decimal, ceiling: Decimal) -> State:
    if amount > ceiling:
        return "breach"
    return "unknown" if row.left_out else "ok"


def _iso(date: int) -> str:
    """A calendar date, given as `DaySpend.day`, as text."""
    return f"{datetime.fromtimestamp(date, UTC):%Y-%m-%d}"


def _left_out(row: Reading) -> dict[str, str]:
    return {"left_out": row.left_out} if row.left_out else {}
