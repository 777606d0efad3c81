"""Spend of tranches from the charges table: every issued revision, and which of them counts at an instant.

A charge counts from the instant by which it is issued (`time`) and known (`known_from`), until a later
revision of the same identity does.  So the spend of a tranche is a step function of the instant; it is built
once and remembered until a charge comes in or one issued in the future falls due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.contract.days import local_days
from pipeline.contract.money import ZERO, money_text, times, total
from pipeline.ledger.silence import GRID_US
from pipeline.rules.charges_sql import amount_sql, counts_sql, literal
from pipeline.rules.readings import GRID, DaySpend, Reading, Readings, Steps, TrancheSpend

By = tuple[str, ...]


class _Remembered(NamedTuple):
    """Good for instants after `t0` and before `until` (epoch seconds; None: no end in sight)."""

    charges: tuple[int, Any]
    t0: int
    until: int | None
    steps: Steps


class SpendReader:
    """Reads TrancheSpend on `con`, remembering what it read while the charges stay as they are."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self.con = con
        self._remembered: dict[TrancheSpend, _Remembered] = {}

    def forget(self) -> None:
        """Drops everything remembered; to be called when a transaction was rolled back."""
        self._remembered.clear()

    def read(self, spec: TrancheSpend, event_type: EventType, t0: int, t1: int) -> Readings:
        """Readings that hold until the next one, for every instant of `(t0, t1]`."""
        row = self.con.execute("SELECT count(*), max(known_from) FROM charges").fetchone()
        charges = (row[0], row[1]) if row else (0, None)
        found = self._remembered.get(spec)
        if (
            found
            and found.charges == charges
            and found.t0 <= t0
            and (found.until is None or t1 < found.until)
        ):
            return found.steps
        steps = Steps(_walk(spec, _changes(self.con, spec, t0, t1), t0 + GRID))
        self._remembered[spec] = _Remembered(charges, t0, _next_due(self.con, t1), steps)
        return steps


#: The instant (grid number, rounded up) from which a charge counts if nothing supersedes it.
_COUNTS = f'greatest((epoch_us("time") + {GRID_US - 1}) // {GRID_US}, epoch_us(known_from) // {GRID_US})'


def _next_due(con: DuckDBPyConnection, t1: int) -> int | None:
    row = con.execute(
        f"SELECT min(k) FROM (SELECT {_COUNTS} AS k FROM charges) WHERE k > {t1 // GRID}"
    ).fetchone()
    return row[0] * GRID if row and row[0] is not None else None


def _changes(con: DuckDBPyConnection, spec: TrancheSpend, t0: int, t1: int) -> list[tuple[Any, ...]]:
    """Rows (grid number, group…, day, currency, rate, usage, priced, whole, rest, charges), in order of the first.

    What counts by the first instant is one row there; later rows add what begins to count and take off what
    is superseded.  `rate` is the index of the step of the currency's `fx` in force at ChargePeriodStart.  An amount is
    `whole` and `rest`, for a sum of DECIMALs may overflow, and then nothing at all is read.
    """
    first, last = t0 // GRID + 1, t1 // GRID
    groups = "".join(f", coalesce({_name(d)}, '') AS g{i}" for i, d in enumerate(spec.by))
    columns = "".join(f", g{i}" for i in range(len(spec.by)))
    params: dict[str, Any] = {f"m{i}": list(values) for i, (_, values) in enumerate(spec.match)}
    tests = [f"list_contains($m{i}, {_name(d)})" for i, (d, _) in enumerate(spec.match)]
    days = local_days(spec.zone, spec.from_t, spec.to_t)
    params |= {"starts": [day.start for day in days], "dates": [day.date for day in days]}
    return con.execute(
        f"""WITH issued AS (
            SELECT *, min(k) OVER (PARTITION BY source, id, idx ORDER BY "time", known_from
                                   ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS ended
            FROM (SELECT *, {_COUNTS} AS k FROM charges) WHERE k <= {last}),
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
    ).fetchall()


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


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


@dataclass(slots=True)
class _Group:
    """What is charged of one group: day → [usage, other], and what could not be counted."""

    charges: int = 0
    days: dict[int, list[Decimal]] = field(default_factory=lambda: defaultdict(lambda: [ZERO, ZERO]))
    left_out: dict[_LeftOut, _Uncounted] = field(default_factory=lambda: defaultdict(_Uncounted))


def _walk(spec: TrancheSpend, changes: Iterable[tuple[Any, ...]], first: int) -> Iterator[Reading]:
    """One reading for each group wherever anything changes, and at the first instant at any rate."""
    rates = {currency: [rate for _, rate in steps] for currency, steps in spec.fx}
    groups: dict[By, _Group] = defaultdict(_Group)
    if not spec.by:
        groups[()] = _Group()
    at = first // GRID
    for row in changes:
        if row[0] != at:
            yield from _readings(spec, at * GRID, groups)
            at = row[0]
        by, (day, currency, rate, usage, priced, whole, rest, n) = row[1:-8], row[-8:]
        group = groups[by]
        group.charges += n
        amount = total((Decimal(whole), rest)) if priced else ZERO
        if priced and (currency == spec.currency or rate is not None):
            factor = Decimal(1) if currency == spec.currency else rates[currency][rate]
            sums = group.days[day]
            sums[not usage] = total((sums[not usage], times(amount, factor)))
        else:
            uncounted = group.left_out[_LeftOut(currency, priced)]
            uncounted.charges += n
            uncounted.amount = total((uncounted.amount, amount))
            uncounted.days[day] += n
    yield from _readings(spec, at * GRID, groups)


def _readings(spec: TrancheSpend, t: int, groups: dict[By, _Group]) -> Iterable[Reading]:
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
