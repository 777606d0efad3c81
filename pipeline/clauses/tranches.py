"""Tranches of spend: what may be charged in stages.  TrancheExhausted and TrancheOverrunForecast.

Amounts are `Decimal` up to the comparison; only what a verdict shows becomes a float.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pipeline.contract.build import Scope
from pipeline.contract.cursor import Cursor
from pipeline.contract.days import LocalDay, local_days
from pipeline.contract.faults import shown
from pipeline.contract.model import Clause, Contract, Severity
from pipeline.contract.money import EXACT, ZERO, total
from pipeline.readings import DaySpend, Reading, TrancheSpend, match_of
from pipeline.rules.evidence import Evidence, group_of
from pipeline.rules.kind import Kind
from pipeline.rules.ready_view import ReadyView
from pipeline.rules.rule import ClauseRule, Facts
from pipeline.rules.verdicts import Answers, State, Terms, Verdict
from pipeline.rules.wording import number

INFINITY = Decimal("Infinity")
CATEGORIES = ("Usage", "Purchase", "Adjustment", "Credit")
"""FOCUS categories of charges that spend a tranche unless its contract says otherwise: all but Tax."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrancheClause(Clause):
    """TrancheExhausted when spend has passed `ceiling`, TrancheOverrunForecast when it is on course to.

    Counts charges whose ChargePeriodStart lies in `[from_t, to_t)`, of `categories`, by `cost_column`.
    A charge whose ContractApplied names `commitment_id` counts by its applied cost.  A purchase that funds a commitment
    counts only where `purchases` is `burn`.
    Amounts are in the contract's currency.
    """

    kind: ClassVar[str] = "tranche"

    severity: Severity = "ticket"
    from_t: int
    to_t: int
    ceiling: Decimal
    commit: Decimal | None = None
    categories: tuple[str, ...] = CATEGORIES
    purchases: Literal["fund", "burn"] = "fund"
    cost_column: str = "BilledCost"
    commitment_id: str | None = None
    complete_after_seconds: int = 48 * 3600

    def asks(self, contract: Contract, t: int) -> str:
        last = datetime.fromtimestamp(self.to_t, ZoneInfo(contract.timezone))
        return f"at most {self.ceiling:,f} {contract.currency} until {last:%Y-%m-%d}"


def _check(place: Cursor, clause: TrancheClause, scope: Scope) -> None:
    begin, end, commit = place.at("from"), place.at("to"), place.at("commit")
    if place.sound("from", "to") and clause.from_t >= clause.to_t:
        end.fault(shown(end.value), f"a date after 'from' ({begin.value})")
    if scope.term and place.sound("from") and clause.from_t < scope.term.start:
        begin.fault(shown(begin.value), "a date within the contract's term, which starts later")
    if scope.term and place.sound("to") and clause.to_t > scope.term.end:
        end.fault(shown(end.value), "a date within the contract's term, which ends earlier")
    if place.sound("ceiling", "commit") and clause.commit is not None and clause.commit > clause.ceiling:
        commit.fault(shown(commit.value), "a commit that is not above the ceiling")
    category = place.at("match").at("ChargeCategory")
    if category.present:
        category.fault("ChargeCategory in match", "the field 'categories' for it", key=True)
    if commit.present:
        line, _ = scope.document.place(commit.path)
        scope.notices.append(
            f"{scope.document.file}:{line} {shown(place.at('id').value)} commit: kept for the record; "
            "nothing watches yet whether it is reached"
        )


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
    tells_beyond = True

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

    def words(self, facts: Facts) -> str:
        return f"{self.says}, passed on {facts['crosses']}" if facts.get("crosses") else self.says

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if facts.get("crosses"):
            yield f"The ceiling is passed on {facts['crosses']} ({facts['zone']})."

    def notes(self, facts: Facts) -> Mapping[str, str]:
        return {"crosses": facts["crosses"]} if facts.get("crosses") else {}


class TrancheExhausted(_Tranche):
    """Breach: what has been charged has passed the ceiling, also without what could not be counted.

    Below it that decides: while anything is left out, whether the ceiling is kept is unknown.
    """

    alertname = "TrancheExhausted"
    says = "{observed} {unit} charged, the ceiling is {bound}"
    fires_when = "the charges of a tranche have passed its `ceiling`"

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
    says = "{observed} {unit} forecast, the ceiling is {bound}"
    fires_when = "by its complete days a tranche is on course to pass its `ceiling`"
    adds_up_to = "forecast"

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

    def sentences(self, unit: str, window: str | None, facts: Facts) -> Iterator[str]:
        if "course" in facts:
            course: Forecast = facts["course"]
            yield (
                f"{number(facts['spent'])} {unit} charged so far; usage of {number(course.daily_usage)} {unit} a day "
                f"over {course.complete_days} complete days, projected to {course.total_days}."
            )
        yield from super().sentences(unit, window, facts)

    def sql(self, verdict: Verdict, evidence: Evidence) -> str:
        course: Forecast | None = (verdict.details or {}).get("course")
        if course is None:
            return super().sql(verdict, evidence)
        days = (course.horizon, course.complete_days, course.total_days)
        return self.spec.forecast_sql(group_of(verdict), verdict.t, *days)


def _state(row: Reading, amount: Decimal, ceiling: Decimal) -> State:
    if amount > ceiling:
        return "breach"
    return "unknown" if row.left_out else "ok"


def _iso(date: int) -> str:
    """A calendar date, given as `DaySpend.day`, as text."""
    return f"{datetime.fromtimestamp(date, UTC):%Y-%m-%d}"


def _left_out(row: Reading) -> dict[str, str]:
    return {"left_out": row.left_out} if row.left_out else {}


VIEW = ReadyView(
    "spend",
    "Burn-down of each tranche: what its charges came to by the end of each day, and what it is on course to",
    {
        "day": "Day that the charges are for, in the contract's time zone",
        "contract": "Contract, by its id",
        "clause": "Tranche, by its id",
        "currency": "Currency of all amounts: the contract's",
        "starts": "First instant of the tranche",
        "ends": "Instant at which the tranche is over",
        "charged": "Charges of that day that count for the tranche",
        "spent": "Charges from the tranche's start to the end of that day",
        "commit": "What must be reached by the tranche's end",
        "ceiling": "What must not be passed",
        "remaining": "ceiling less spent",
        "forecast": "What the tranche will come to by its complete days; NULL before the first",
        "crosses": "Date, in the contract's time zone, on which the charges or the forecast pass the ceiling; NULL: they do not",
        "left_out": "Charges that could not be counted, in words; all amounts are those without them",
    },
    """SELECT make_timestamp(day * 1000000)::DATE AS day, contract, clause, currency,
        make_timestamp((terms ->> '$.from_t')::BIGINT * 1000000) AS starts,
        make_timestamp((terms ->> '$.to_t')::BIGINT * 1000000) AS ends,
        charged, sum(charged) OVER (PARTITION BY contract, clause, by_values ORDER BY day) AS spent,
        (terms ->> '$.commit')::DECIMAL(38, 15) AS "commit", (terms ->> '$.ceiling')::DECIMAL(38, 15) AS ceiling,
        (terms ->> '$.ceiling')::DECIMAL(38, 15)
            - sum(charged) OVER (PARTITION BY contract, clause, by_values ORDER BY day) AS remaining,
        forecast, coalesce(on_course, crossed) AS crosses, left_out
    FROM (
        SELECT contract, clause, by_values, crossed, left_out, (each ->> '$.day')::BIGINT AS day,
            (each ->> '$.usage')::DECIMAL(38, 15) + (each ->> '$.other')::DECIMAL(38, 15) AS charged
        FROM (SELECT contract, clause, by_values, (facts ->> '$.crosses')::DATE AS crossed, facts ->> '$.left_out' AS left_out,
                  unnest((facts -> '$.days')::JSON[]) AS each
              FROM standing WHERE alertname = 'TrancheExhausted'))
    JOIN (SELECT contract, clause, currency, terms FROM clauses) USING (contract, clause)
    LEFT JOIN (SELECT contract, clause, by_values, (facts ->> '$.crosses')::DATE AS on_course,
                   TRY_CAST(coalesce(facts ->> '$.forecast', observed::VARCHAR) AS DECIMAL(38, 15)) AS forecast
               FROM standing WHERE alertname = 'TrancheOverrunForecast') USING (contract, clause, by_values)""",
)

KIND = Kind(
    path="spend.tranches",
    clause=TrancheClause,
    of=("billing",),
    check=_check,
    alerts=(TrancheExhausted, TrancheOverrunForecast),
    view=VIEW,
)
