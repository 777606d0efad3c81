"""Forecasts of tranches as they stood on each day: a few rows a year for each, kept as long as alerts are.

The row of a day is replaced until the day is over, so it says how things stood at its last minute, by what was known
then: it follows from the verdicts, which a replay gives again.  The minutes themselves are in `readings` for 180 days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import MONEY_DECIMALS
from pipeline.clauses import alerts_that_add_up_to
from pipeline.ledger.dirty import mark_dirty
from pipeline.ledger.tables import insert
from pipeline.rules.standing import StandingRow

FORECASTS = alerts_that_add_up_to("forecast")
MOST = Decimal(10) ** (38 - MONEY_DECIMALS)


def note_forecasts(con: DuckDBPyConnection, history: Iterable[StandingRow]) -> None:
    """For the evaluation's transaction: the newest forecast of each tranche and day among `history`, by instant."""
    newest = {row[:4]: row for row in map(_row, filter(_told, history))}
    if not newest:
        return
    keys = [list(column) for column in zip(*newest, strict=True)]
    con.execute(
        "DELETE FROM forecasts WHERE (day, contract, clause, by_values) IN (SELECT unnest(?::DATE[]), "
        "unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]))",
        keys,
    )
    insert(con, "forecasts", newest.values())
    mark_dirty(con, "forecasts", [None])


def _told(row: StandingRow) -> bool:
    return row.alertname in FORECASTS and '"day"' in row.facts


def _row(row: StandingRow) -> tuple[Any, ...]:
    """In the order of `FORECASTS_COLUMNS`, the key first."""
    facts = json.loads(row.facts)
    spent, forecast, ceiling = (_money(facts.get(name)) for name in ("spent", "forecast", "ceiling"))
    day, crosses = (_date(facts.get(name)) for name in ("day", "crosses"))
    by, at = (
        json.dumps(dict(row.by), ensure_ascii=False),
        datetime.fromtimestamp(row.t, UTC).replace(tzinfo=None),
    )
    return (
        day, row.contract, row.clause, by, at, row.unit, spent, forecast, ceiling, crosses, facts.get("complete_days"),
        facts.get("total_days"), row.state, facts.get("left_out"),
    )  # fmt: skip


def _date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _money(text: str | None) -> str | None:
    """As text, which is cast to the last digit; nothing in place of what has more digits than money may have."""
    return None if text is None or abs(Decimal(text)) >= MOST else text
