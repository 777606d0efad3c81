"""Spend of tranches from the charges table: every issued revision, and which of them counts at an instant.

A charge counts from the instant by which it is issued (`time`) and known (`known_from`), until a later
revision of the same identity does.  So the spend of a tranche is a step function of the instant; it is built
once and remembered until a charge comes in or one issued in the future falls due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.silence import GRID_US
from pipeline.rules.readings import GRID, DaySpend, Reading, Readings, Steps, TrancheSpend

DAY = 86_400
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
    """Rows (grid number, group…, day, currency, rate, usage, amount, charges), in order of the first.

    What counts by the first instant is one row there; later rows add what begins to count and take off what
    is superseded.  `rate` is the index of the step of the currency's `fx` in force at ChargePeriodStart.
    """
    first, last = t0 // GRID + 1, t1 // GRID
    groups = "".join(f", coalesce({_name(d)}, '') AS g{i}" for i, d in enumerate(spec.by))
    columns = "".join(f", g{i}" for i in range(len(spec.by)))
    params: dict[str, Any] = {f"m{i}": list(values) for i, (_, values) in enumerate(spec.match)}
    tests = "".join(f" AND list_contains($m{i}, {_name(d)})" for i, (d, _) in enumerate(spec.match))
    params |= {"categories": list(spec.categories)}
    if spec.commitment_id is not None:
        params["commitment"] = spec.commitment_id
    return con.execute(
        f"""WITH issued AS (
            SELECT *, min(k) OVER (PARTITION BY source, id, idx ORDER BY "time", known_from
                                   ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS ended
            FROM (SELECT *, {_COUNTS} AS k FROM charges) WHERE k <= {last}),
        counted AS (
            SELECT k, ended{groups}, epoch_us("ChargePeriodStart") // {DAY * 1_000_000} * {DAY} AS day,
                   "BillingCurrency" AS currency, {_rate_index(spec)} AS rate,
                   "ChargeCategory" = 'Usage' AS usage, {_amount(spec)} AS amount
            FROM issued WHERE (ended IS NULL OR (ended > k AND ended > {first}))
              AND "ChargePeriodStart" >= make_timestamp({spec.from_t * 1_000_000})
              AND "ChargePeriodStart" < make_timestamp({spec.to_t * 1_000_000})
              AND list_contains($categories, "ChargeCategory"){tests}),
        moves AS (
            SELECT greatest(k, {first}) AS t, * EXCLUDE (k, ended), 1 AS n FROM counted
            UNION ALL
            SELECT ended, * EXCLUDE (k, ended) REPLACE (-amount AS amount), -1 FROM counted WHERE ended <= {last})
        SELECT t{columns}, day, currency, rate, usage, sum(amount), sum(n)::BIGINT FROM moves
        GROUP BY ALL ORDER BY ALL""",
        params,
    ).fetchall()


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _amount(spec: TrancheSpend) -> str:
    """What a charge counts for: where ContractApplied names commitments, what was applied to ours, if any."""
    elements = """CAST("ContractApplied"::JSON->'$.Elements' AS JSON[])"""
    named = f"list_filter({elements}, lambda e: e->>'$.ContractCommitmentId' IS NOT NULL)"
    mine = "false" if spec.commitment_id is None else "e->>'$.ContractCommitmentId' = $commitment"
    cost = "TRY_CAST(e->>'$.ContractCommitmentAppliedCost' AS DECIMAL(38, 10))"
    applied = f"list_sum(list_transform(list_filter({named}, lambda e: {mine}), lambda e: {cost}))"
    own = f"coalesce({_name(spec.cost_column)}, 0)::DECIMAL(38, 10)"
    return f"CASE WHEN len({named}) > 0 THEN coalesce({applied}, 0)::DECIMAL(38, 10) ELSE {own} END"


def _rate_index(spec: TrancheSpend) -> str:
    cases = [
        f"""WHEN "BillingCurrency" = '{currency.replace("'", "''")}' """
        f'AND "ChargePeriodStart" >= make_timestamp({since * 1_000_000}) THEN {i}'
        for currency, steps in spec.fx
        for i, (since, _) in reversed(list(enumerate(steps)))
    ]
    return f"CASE {' '.join(cases)} END" if cases else "NULL::INTEGER"


class _Unpriced(NamedTuple):
    currency: str
    day: int


def _walk(spec: TrancheSpend, changes: Iterable[tuple[Any, ...]], first: int) -> Iterable[Reading]:
    """One reading for each group wherever anything changes, and at the first instant at any rate."""
    rates = {currency: [rate for _, rate in steps] for currency, steps in spec.fx}
    days: dict[By, dict[int, list[Decimal]]] = defaultdict(
        lambda: defaultdict(lambda: [Decimal(0), Decimal(0)])
    )
    unpriced: dict[By, dict[_Unpriced, int]] = defaultdict(lambda: defaultdict(int))
    charges: dict[By, int] = defaultdict(int)
    if not spec.by:
        charges[()] = 0
    at = first // GRID
    for row in changes:
        if row[0] != at:
            yield from _readings(spec, at * GRID, days, unpriced, charges)
            at = row[0]
        by, (day, currency, rate, usage, amount, n) = row[1:-6], row[-6:]
        charges[by] += n
        if currency == spec.currency:
            factor = Decimal(1)
        elif rate is None:
            unpriced[by][_Unpriced(currency, day)] += n
            continue
        else:
            factor = rates[currency][rate]
        days[by][day][0 if usage else 1] += amount * factor
    yield from _readings(spec, at * GRID, days, unpriced, charges)


def _readings(
    spec: TrancheSpend,
    t: int,
    days: dict[By, dict[int, list[Decimal]]],
    unpriced: dict[By, dict[_Unpriced, int]],
    charges: dict[By, int],
) -> Iterable[Reading]:
    for by, n in charges.items():
        missing = sorted(u for u, count in unpriced[by].items() if count)
        if missing:
            day = datetime.fromtimestamp(missing[0].day, UTC)
            basis = f"no rate from {missing[0].currency} to {spec.currency} on {day:%Y-%m-%d} in the contract's fx"
            yield Reading(t, by, None, samples=n, basis=basis)
            continue
        spent = tuple(DaySpend(day, *pair) for day, pair in sorted(days[by].items()))
        total = sum((d.usage + d.other for d in spent), Decimal(0))
        yield Reading(t, by, float(total), samples=n, amount=total, days=spent)
