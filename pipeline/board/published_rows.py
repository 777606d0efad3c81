"""What the board reads: a few questions to the published views, in bounded memory, and when to ask them again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog
from pipeline.history import query
from pipeline.rules.ready_view import ABOUT
from pipeline.views.published import OWN_TABLES

Row = Mapping[str, Any]
Key = tuple[str, str, str, str]
"""contract, clause, alertname, by_values: what a reading is of."""
Point = tuple[float, float | None, float | None]
"""Epoch seconds, observed, bound."""

MEMORY = "128MB"
ALERTS = 200
"""Open alerts that are shown, and so many that are silenced, or over; how many there are beyond is said."""
OVER_HOURS = 24
"""How long an alert that is over stays on the page."""
CHARTS = 40
"""Alerts that get a chart: the worst ones."""
HOURS = 4
STANDING = 2_000
WINDOWS_AHEAD = 30
"""Days."""

OPEN = """SELECT severity, urgency, state, alertname, contract, clause, labels, about, active_at, fired_at, observed, now,
    bound, unit, "window", summary, "text", missing, worst, meters, blinds, opens, at_risk, risk_per_hour, stale, runbook,
    contact, "sql", rows_sql
FROM alerts_open ORDER BY coalesce(urgency, 4), state, fired_at DESC, alertname, contract, clause, labels"""
OVER = f"""SELECT arg_max(severity, "time") AS severity, alertname, contract, clause, arg_max(labels, "time") AS labels,
    any_value({ABOUT}) AS about, arg_max(fired_at, "time") AS fired_at, max(resolved_at) AS resolved_at,
    count(DISTINCT resolved_at) AS times
FROM alerts
WHERE date >= ($1 - INTERVAL {OVER_HOURS} HOUR)::DATE AND state = 'resolved' AND fired_at IS NOT NULL
    AND resolved_at > $1 - INTERVAL {OVER_HOURS} HOUR
GROUP BY alertname, contract, clause, json_merge_patch(labels, '{{"severity": null}}')
ORDER BY resolved_at DESC, alertname, contract, clause, about"""
STANDS = """SELECT contract, clause, alertname, by_values, state, observed, bound, unit, since, "time", "window",
    facts ->> '$.crosses' AS crosses
FROM standing ORDER BY contract, clause, alertname, by_values"""
SERIES = f"""SELECT contract, clause, alertname, by_values, epoch("time") AS t, observed, bound
FROM readings WHERE "time" > (SELECT max("time") FROM standing) - INTERVAL {HOURS} HOUR
    AND (contract, clause, alertname, by_values) IN (SELECT unnest($1), unnest($2), unnest($3), unnest($4))
ORDER BY ALL"""
SPENT = """SELECT contract, clause, currency, epoch(starts) AS starts, epoch(ends) AS ends, epoch(day) AS day, spent,
    "commit", ceiling, remaining, forecast, crosses FROM spend ORDER BY contract, clause, day"""
NEXT = f"""SELECT contract, "window", "text", starts, ends FROM windows
WHERE ends > $1 AND starts < $1 + INTERVAL {WINDOWS_AHEAD} DAY
QUALIFY row_number() OVER (PARTITION BY contract, "window" ORDER BY starts) <= 2
ORDER BY starts, contract, "window" LIMIT 20"""
PROMISES = (
    """SELECT DISTINCT contract, version, supplier, customer, currency, term_end FROM clauses ORDER BY ALL"""
)
FATES = """SELECT topic, fate, coalesce(reason, '') AS reason, sum(n)::BIGINT AS n FROM fates GROUP BY ALL
UNION ALL SELECT topic, 'set_aside' AS fate, reason, sum(n)::BIGINT AS n FROM set_aside GROUP BY ALL ORDER BY ALL"""
"""What became of events, and how many of those that are aggregated lack a measure, under a word that is no fate."""
PULSE = """SELECT published_at, since, least(watermark, (SELECT max("time") FROM standing)) AS evaluated_to
FROM pipeline_health"""


@dataclass(frozen=True, slots=True)
class Published:
    """The rows of one look; `alerts` are all that are open, `series` the readings of the worst of them, `over` those
    that were resolved within a day."""

    alerts: Sequence[Row] = ()
    over: Sequence[Row] = ()
    standing: Sequence[Row] = ()
    series: Mapping[Key, Sequence[Point]] | None = None
    spend: Sequence[Row] = ()
    windows: Sequence[Row] = ()
    contracts: Sequence[Row] = ()
    fates: Sequence[Row] = ()
    published_at: datetime | None = None
    evaluated_to: datetime | None = None
    """Event time up to which all of this was evaluated."""
    unknown_for: float = 0.0
    """Seconds up to now of which nothing is known, for the pipeline is stalled, stopped or silent; HOURS at most."""


def open_history(data: Path, catalog: Catalog) -> DuckDBPyConnection:
    """The views over DATA in a DuckDB that takes one core and little memory.  Raises QueryError."""
    con = query.open_views(data, catalog, MEMORY)
    con.execute("SET threads = 1")
    return con


def look(con: DuckDBPyConnection, now: float) -> Published:
    """Everything that the board shows of the history; `now` in epoch seconds decides which windows are next.

    Raises QueryError.
    """
    alerts, standing = _rows(con, OPEN), _rows(con, STANDS)[:STANDING]
    clauses = by_clause(standing)
    wanted = sorted({key for alert in alerts[:CHARTS] for key in keys_of(alert, clauses)})
    (pulse,) = _rows(con, PULSE)
    clock = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    judged = max((row["time"] for row in standing), default=clock)  # a replayed day has its own last hours
    return Published(
        alerts=alerts,
        over=_rows(con, OVER, [min(judged, clock)]),
        standing=standing,
        series=_series(con, wanted) if wanted else {},
        spend=_rows(con, SPENT),
        windows=_rows(con, NEXT, [clock]),
        contracts=_rows(con, PROMISES),
        fates=_rows(con, FATES),
        published_at=pulse["published_at"],
        evaluated_to=pulse["evaluated_to"],
        unknown_for=_ago(pulse["since"], now),
    )


Clauses = Mapping[tuple[str, str, str], Sequence[Row]]
"""contract, clause, alertname → the rows of the standing."""


def by_clause(standing: Sequence[Row]) -> Clauses:
    """The standing by the promise that each row is of, whatever it is split by."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in standing:
        found.setdefault(clause_of(row), []).append(row)
    return found


def clause_of(row: Row) -> tuple[str, str, str]:
    """Contract, clause and alertname of an alert or of a row of the standing."""
    return row["contract"], row["clause"], row["alertname"]


def keys_of(alert: Row, clauses: Clauses) -> list[Key]:
    """The readings that an alert is about: of its clause, with values that are all among its labels."""
    labels = set(labels_of(alert["labels"]).items())
    rows = clauses.get(clause_of(alert), ())
    return [(*clause_of(row), row["by_values"]) for row in rows if _values(row["by_values"]) <= labels]


def _values(by_values: str) -> set[tuple[str, str]]:
    return {(name, value) for name, value in labels_of(by_values).items() if value}


def labels_of(text: str | None) -> dict[str, str]:
    """A JSON object of labels or values, all as text."""
    found = json.loads(text or "{}")
    return {str(name): str(value) for name, value in found.items() if value is not None}


def _ago(since: datetime | None, now: float) -> float:
    return (
        0.0 if since is None else min(max(0.0, now - since.replace(tzinfo=UTC).timestamp()), HOURS * 3600.0)
    )


def _series(con: DuckDBPyConnection, wanted: Sequence[Key]) -> dict[Key, list[Point]]:
    found: dict[Key, list[Point]] = {}
    columns = [list(column) for column in zip(*wanted, strict=True)]
    for row in query.ask(con, SERIES, columns).rows:
        found.setdefault(row[:4], []).append((row[4], _finite(row[5]), _finite(row[6])))
    return found


def _rows(con: DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    result = query.ask(con, sql, parameters)
    return [dict(zip(result.columns, map(_finite, row), strict=True)) for row in result.rows]


def _finite(value: Any) -> Any:
    """Nothing in place of NaN and infinity, which no chart and no JSON has a place for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fingerprint(data: Path) -> int:
    """Another number whenever a published file has come, gone or been replaced.

    A file is replaced by renaming another over it, which changes its directory's time: directories are enough.
    """
    return hash(tuple(stamp for table in OWN_TABLES for stamp in _stamps(data / table.root)))


def _stamps(root: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(root) as entries:
            found = [(e.name, e.stat().st_mtime_ns) for e in entries if e.is_dir()]
        return [*sorted(found), (str(root), root.stat().st_mtime_ns)]
    except OSError:  # not there yet
        return [(str(root), 0)]
