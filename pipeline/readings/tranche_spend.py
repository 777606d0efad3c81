"""What is charged against a tranche: every issued revision, and which of them counts at an instant.

A charge counts from the instant by which it is issued (`time`) and known (`known_from`), until a later
revision of the same identity does; one of a delivery only while that counts.  So the spend of a tranche is a step
function of the instant; it is built once and remembered until a charge or a delivery comes in or one issued in the
future falls due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, NamedTuple

from pipeline.catalog import MONEY_DECIMALS, EventType
from pipeline.contract.days import local_days
from pipeline.contract.money import ZERO, money_text, times, total
from pipeline.readings.charges_sql import amount_sql, counts_sql
from pipeline.readings.deliveries_sql import COUNTS, REVISION, counting, counting_when
from pipeline.readings.memory import Memory, Spent
from pipeline.readings.past import all_of, where
from pipeline.readings.reading import GRID, By, DaySpend, Match, Reading, Readings, Steps
from pipeline.readings.spec import Group, Inquiry, Instant, Query, ReadingSpec, has_dimensions
from pipeline.rollup.quoting import literal, moment, quoted


@dataclass(frozen=True, slots=True)
class TrancheSpend(ReadingSpec):
    """Money charged in `[from_t, to_t)` by ChargePeriodStart, as issued and known by an instant.

    `fx`: `((currency, ((from_t, rate), …)), …)`.  A charge in a currency without a rate is left out, and said to be.
    `purchases`: whether a purchase that funds a commitment counts (`burn`) or not (`fund`).  Days are those of `zone`.
    """

    topic: str
    match: Match
    by: By
    from_t: int
    to_t: int
    categories: tuple[str, ...]
    cost_column: str
    commitment_id: str | None
    currency: str
    fx: tuple[tuple[str, tuple[tuple[int, Decimal], ...]], ...] = ()
    purchases: Literal["fund", "burn"] = "fund"
    zone: str = "UTC"
    always: ClassVar[bool] = True
    alone: ClassVar[bool] = True  # remembered by clause

    def query(self, event_type: EventType, t0: int, t1: int, memory: Memory) -> Inquiry[Readings]:
        """Readings that hold until the next one, for every instant of `(t0, t1]`."""
        if not has_dimensions(event_type, self.match, self.by):
            return Readings(())
        [rows] = yield Query(
            "SELECT count(*), max(known_from), (SELECT count(*) FROM deliveries) FROM charges"
        )
        found = memory.spent.get(self)
        if found and found.holds(rows, t0, t1):
            return found.steps
        steps = Steps(_walk(self, (yield _changes(self, t0, t1)), t0 + GRID))
        [(due,)] = yield Query(
            f"SELECT min(k) FROM (SELECT {COUNTS} AS k FROM charges UNION ALL SELECT {COUNTS} FROM deliveries) "
            f"WHERE k > {t1 // GRID}"
        )
        memory.spent[self] = Spent(rows, t0, None if due is None else due * GRID, steps)
        return steps

    def reproduce(self, event_type: EventType, group: Group, at: Instant) -> str:
        charges = self._charges_sql(group, at.t)
        return f"SELECT coalesce(sum({self._converted_sql()}), 0) AS value FROM (\n{charges})"

    def forecast_sql(self, group: Group, t: int, horizon: int, complete: int, total: int) -> str:
        """One SELECT of the forecast: usage of `complete` days before `horizon`, projected to `total`, and the rest.

        Usage is taken in millionths, so that the projection is one of integers; it is never below what is spent.
        """
        before = f'"ChargePeriodStart" < {moment(horizon)}'
        usage = f"""coalesce(sum(CASE WHEN {before} AND "ChargeCategory" = 'Usage' THEN value END), 0)"""
        other = f"""coalesce(sum(CASE WHEN {before} AND "ChargeCategory" <> 'Usage' THEN value END), 0)"""
        millionths = f"CAST(round({usage}, 6) * 1000000 AS HUGEINT) * {total} // {complete}"
        projected = f"CAST(CAST({millionths} AS DECIMAL(38, 0)) * 0.000001 AS {self._exact_type()})"
        return (
            f"SELECT greatest(coalesce(sum(value), 0), {projected} + {other}) AS value\n"
            f'FROM (SELECT "ChargeCategory", "ChargePeriodStart", {self._converted_sql()} AS value FROM (\n'
            f"{self._charges_sql(group, t)}))"
        )

    def _charges_sql(self, group: Group, t: int) -> str:
        """SELECT of the tranche's charges that count at `t`, each with its `amount`."""
        inside = [
            f'"ChargePeriodStart" >= {moment(self.from_t)}',
            f'"ChargePeriodStart" < {moment(self.to_t)}',
            *counts_sql(self),
            *where(self.match, group),
        ]
        known = f'WHERE "time" <= {moment(t)} AND known_from <= {moment(t)}'
        counted = counting(f"(FROM billing {known})", f"(FROM deliveries {known})")
        return (
            f"  SELECT *, {amount_sql(self)} AS amount FROM (\n"
            f'    SELECT * FROM billing {known} AND ("DeliveryId" IS NULL OR "DeliveryId" IN (\n{counted}))\n'
            f'    QUALIFY row_number() OVER (PARTITION BY {REVISION} ORDER BY "time" DESC) = 1)\n'
            f"  WHERE {all_of(inside)}"
        )

    def _converted_sql(self) -> str:
        """`amount` in the contract's currency, exactly; without a rate it is NULL, which the sum leaves out."""
        own = f'WHEN "BillingCurrency" = {literal(self.currency)} THEN amount'
        cases = [own, *(_rate_sql(c, since, rate) for c, steps in self.fx for since, rate in reversed(steps))]
        if not self.fx:
            return f"CASE {own} END"
        return f"CASE {' '.join(f'{case}::{self._exact_type()}' for case in cases)} END"

    def _exact_type(self) -> str:
        """The type of converted money: the decimals of an amount and of a rate."""
        decimals = [len(f"{rate:f}".partition(".")[2]) for _, steps in self.fx for _, rate in steps]
        return f"DECIMAL(38, {MONEY_DECIMALS + max(decimals, default=0)})"


def _rate_sql(currency: str, since: int, rate: Decimal) -> str:
    since_then = f'"BillingCurrency" = {literal(currency)} AND "ChargePeriodStart" >= {moment(since)}'
    return f"WHEN {since_then} THEN (amount * {rate:f})"


def _changes(spec: TrancheSpend, t0: int, t1: int) -> Query:
    """Rows (grid number, group…, day, currency, rate, usage, priced, whole, rest, charges), in order of the first.

    What counts by the first instant is one row there; later rows add what begins to count and take off what
    is superseded.  `rate` is the index of the step of the currency's `fx` in force at ChargePeriodStart.  An amount is
    `whole` and `rest`, for a sum of DECIMALs may overflow, and then nothing at all is read.
    """
    first, last = t0 // GRID + 1, t1 // GRID
    groups = "".join(f", coalesce({quoted(d)}, '') AS g{i}" for i, d in enumerate(spec.by))
    columns = "".join(f", g{i}" for i in range(len(spec.by)))
    params: dict[str, Any] = {f"m{i}": list(values) for i, (_, values) in enumerate(spec.match)}
    tests = [f"list_contains($m{i}, {quoted(d)})" for i, (d, _) in enumerate(spec.match)]
    days = local_days(spec.zone, spec.from_t, spec.to_t)
    params |= {"starts": [day.start for day in days], "dates": [day.date for day in days]}
    return Query(
        f"""WITH counting AS (
            FROM ({counting_when()}) WHERE since <= {last} AND (until IS NULL OR until > {first})),
        issued AS (
            SELECT * EXCLUDE (k, since, until), greatest(k, since) AS k, least(until, min(k) OVER (
                PARTITION BY {REVISION}, since ORDER BY "time", known_from
                ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) AS ended
            FROM (SELECT *, {COUNTS} AS k FROM charges) LEFT JOIN counting USING ("DeliveryId")
            WHERE k <= {last} AND ("DeliveryId" IS NULL OR since IS NOT NULL)),
        days AS (SELECT make_timestamp(unnest($starts::BIGINT[]) * 1000000) AS day_start,
                        unnest($dates::BIGINT[]) AS day),
        counted AS (
            SELECT k, ended{groups}, day, "BillingCurrency" AS currency, {_rate_index(spec)} AS rate,
                   "ChargeCategory" = 'Usage' AS usage, {amount_sql(spec)} AS amount
            FROM issued ASOF JOIN days ON "ChargePeriodStart" >= day_start
            WHERE (ended IS NULL OR (ended > k AND ended > {first}))
              AND "ChargePeriodStart" >= make_timestamp({spec.from_t * 1_000_000})
              AND "ChargePeriodStart" < make_timestamp({spec.to_t * 1_000_000})
              AND {" AND ".join((*counts_sql(spec), *tests))}),
        moves AS (
            SELECT greatest(k, {first}) AS t, * EXCLUDE (k, ended), 1 AS n FROM counted
            UNION ALL
            SELECT ended, * EXCLUDE (k, ended) REPLACE (-amount AS amount), -1 FROM counted WHERE ended <= {last})
        SELECT t{columns}, day, currency, rate, usage, amount IS NOT NULL AS priced,
            sum(trunc(amount)::HUGEINT) AS whole, sum(amount - trunc(amount)) AS rest, sum(n)::BIGINT AS charges
        FROM moves GROUP BY t{columns}, day, currency, rate, usage, priced ORDER BY ALL""",
        params,
    )


def _rate_index(spec: TrancheSpend) -> str:
    cases = [
        f"""WHEN "BillingCurrency" = {literal(currency)} """
        f'AND "ChargePeriodStart" >= make_timestamp({since * 1_000_000}) THEN {i}'
        for currency, steps in spec.fx
        for i, (since, _) in reversed(list(enumerate(steps)))
    ]
    return f"CASE {' '.join(cases)} END" if cases else "NULL::INTEGER"


class _LeftOut(NamedTuple):
    """Why charges are not counted: no rate for their currency, or no amount in the column that counts."""

    currency: str
    priced: bool


@dataclass(slots=True)
class _Uncounted:
    charges: int = 0
    amount: Decimal = ZERO
    days: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, charges: int, amount: Decimal) -> None:
        """So many charges more, of so much together."""
        self.charges += charges
        self.amount = total((self.amount, amount))


@dataclass(slots=True)
class _SpendGroup:
    """What is charged of one group: day → [usage, other], and what could not be counted."""

    charges: int = 0
    days: dict[int, list[Decimal]] = field(default_factory=lambda: defaultdict(lambda: [ZERO, ZERO]))
    left_out: dict[_LeftOut, _Uncounted] = field(default_factory=lambda: defaultdict(_Uncounted))

    def add(self, charges: int) -> None:
        """So many charges more, counted or not."""
        self.charges += charges


def _walk(spec: TrancheSpend, changes: Iterable[tuple[Any, ...]], first: int) -> Iterator[Reading]:
    """One reading for each group wherever anything changes, and at the first instant at any rate."""
    rates = {currency: [rate for _, rate in steps] for currency, steps in spec.fx}
    groups: dict[By, _SpendGroup] = defaultdict(_SpendGroup)
    if not spec.by:
        groups[()] = _SpendGroup()
    at = first // GRID
    for row in changes:
        if row[0] != at:
            yield from _readings(spec, at * GRID, groups)
            at = row[0]
        by, (day, currency, rate, usage, priced, whole, rest, n) = row[1:-8], row[-8:]
        group = groups[by]
        group.add(n)
        amount = total((Decimal(whole), rest)) if priced else ZERO
        if priced and (currency == spec.currency or rate is not None):
            factor = Decimal(1) if currency == spec.currency else rates[currency][rate]
            sums = group.days[day]
            sums[not usage] = total((sums[not usage], times(amount, factor)))
        else:
            uncounted = group.left_out[_LeftOut(currency, priced)]
            uncounted.add(n, amount)
            uncounted.days[day] += n
    yield from _readings(spec, at * GRID, groups)


def _readings(spec: TrancheSpend, t: int, groups: dict[By, _SpendGroup]) -> Iterable[Reading]:
    for by, group in groups.items():
        days = tuple(DaySpend(day, *pair) for day, pair in sorted(group.days.items()))
        spent = total(each for day in days for each in (day.usage, day.other))
        missing = "; ".join(
            _words(spec, why, found) for why, found in sorted(group.left_out.items()) if found.charges
        )
        yield Reading(t, by, float(spent), samples=group.charges, amount=spent, days=days, left_out=missing)


def _words(spec: TrancheSpend, why: _LeftOut, found: _Uncounted) -> str:
    charges = "1 charge" if found.charges == 1 else f"{found.charges} charges"
    if not why.priced:
        return f"{charges} in {why.currency} without {spec.cost_column} or the cost applied"
    day = datetime.fromtimestamp(min(day for day, n in found.days.items() if n), UTC)
    return (
        f"{charges} of {money_text(found.amount)} {why.currency} (no rate from {why.currency} to {spec.currency} "
        f"on {day:%Y-%m-%d} in the contract's fx)"
    )
