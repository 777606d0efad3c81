"""The tallies of rules that look back on their own verdicts, in the transaction that evaluates.

A row is a run: the verdicts on one group had one state from `starts` (exclusive) to `ends`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from duckdb import DuckDBPyConnection

from pipeline.ledger.instants import utc
from pipeline.ledger.tables import insert
from pipeline.rules.evaluate import Plan
from pipeline.rules.standing import Key
from pipeline.rules.tally import Run


def load_tallies(con: DuckDBPyConnection, plan: Plan) -> dict[Key, list[Run]]:
    """The saved runs of every rule of `plan` that looks back, oldest first, by the key of its verdicts."""
    rules = [rule for rule in plan.rules if rule.keeps]
    if not rules:
        return {}
    names = [
        [rule.contract for rule in rules],
        [rule.clause for rule in rules],
        [rule.alertname for rule in rules],
    ]
    rows = con.execute(
        "SELECT contract, clause, alertname, by_values, starts, ends, state FROM tallies SEMI JOIN ("
        "SELECT unnest(?::VARCHAR[]) AS contract, unnest(?::VARCHAR[]) AS clause, unnest(?::VARCHAR[]) AS alertname) "
        "USING (contract, clause, alertname) ORDER BY starts",
        names,
    ).fetchall()
    found: dict[Key, list[Run]] = {}
    for contract, clause, alertname, by, starts, ends, state in rows:
        run = Run(_epoch(starts), _epoch(ends), state)
        found.setdefault((alertname, contract, clause, tuple(by)), []).append(run)
    return found


def write_tallies(con: DuckDBPyConnection, tallied: Mapping[Key, Sequence[Run]]) -> None:
    """Replaces the runs that went on, and adds those that began."""
    rows = [
        (contract, clause, alertname, list(by), utc(run.start), utc(run.end), run.state)
        for (alertname, contract, clause, by), runs in tallied.items()
        for run in runs
    ]
    if not rows:
        return
    keys = [list(column) for column in zip(*(row[:5] for row in rows), strict=True)]
    con.execute(
        "DELETE FROM tallies WHERE (contract, clause, alertname, by_values, starts) IN (SELECT unnest(?::VARCHAR[]), "
        "unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[][]), unnest(?::TIMESTAMP[]))",
        keys,
    )
    insert(con, "tallies", rows)


def _epoch(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp())
