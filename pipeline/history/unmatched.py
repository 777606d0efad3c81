"""Clauses that match nothing that was ever seen: `region: boralis` is watched by nobody, and looks like peace.

Every `match` of a contract is compared with the series of the topics that its clause reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from duckdb import DuckDBPyConnection

from pipeline.catalog import Catalog, EventType
from pipeline.contract.faults import did_you_mean
from pipeline.ledger.frontier import newest_watermark
from pipeline.ledger.tables import get_meta, set_meta
from pipeline.ledger.transaction import Fence, no_fence, transaction
from pipeline.rollup.grid import DAY
from pipeline.rollup.quoting import quoted
from pipeline.rules.evaluate import Plan
from pipeline.rules.pipeline_alerts import Unmatched
from pipeline.rules.rule import ClauseRule

META = "unmatched"
"""Key in `meta`: since when, in event time, each clause has matched nothing."""
SETTLES = 120
"""Seconds of event time in which a fleet that has just begun to report is not judged: not all had their turn yet."""
A_BILL_COMES_WITHIN = 35 * DAY
"""Seconds that a clause which reads bills alone is given, unless it looks misspelt: a supplier sends one a month."""
NEAR = "did you mean"
NAMED = 5
"""So many values are named of a dimension."""


def note(
    con: DuckDBPyConnection, plan: Plan, catalog: Catalog, fence: Fence = no_fence
) -> tuple[Unmatched, ...] | None:
    """The clauses in force that have matched nothing, with the seconds of event time since when; None before any event.

    Since when is kept in the ledger: a restart begins no new count.
    """
    newest = newest_watermark(con)
    if newest is None:
        return None
    found = {f"{one.contract}/{one.clause}": one for one in look(con, plan, catalog, newest)}
    known: Mapping[str, int] = json.loads(get_meta(con, META) or "{}")
    since = {key: known.get(key, newest) for key in found}
    if since != known:
        with transaction(con, fence):
            set_meta(con, META, json.dumps(since))
    waited = (replace(one, seconds=newest - since[key]) for key, one in found.items())
    return tuple(one for one in waited if one.seconds >= (A_BILL_COMES_WITHIN if one.billed else SETTLES))


def look(con: DuckDBPyConnection, plan: Plan, catalog: Catalog, t: int) -> Iterator[Unmatched]:
    """Every clause that is in force at `t` (epoch seconds) and matches no series; `con` may be read-only."""
    clauses: dict[tuple[str, str], list[ClauseRule[Any]]] = {}
    for rule in plan.rules:
        if isinstance(rule, ClauseRule) and rule.contract_in_force.in_force(t):
            clauses.setdefault((rule.contract, rule.clause), []).append(rule)
    for (contract, clause), rules in clauses.items():
        topics = dict.fromkeys(topic for rule in rules for topic in rule.topics)
        events = [event for event in catalog.types if event.topic in topics]
        reasons = [_why(con, event, rules[0].clause_of_contract.match) for event in events]
        if reasons and all(reasons):
            why = "; ".join(reasons)
            billed = all(event.retained for event in events) and NEAR not in why
            yield Unmatched(contract, clause, why, billed=billed)


def _why(con: DuckDBPyConnection, event: EventType, match: Mapping[str, Sequence[str]]) -> str:
    """Why no series of a topic matches; empty when one does.  A dimension that the topic lacks rules nothing out."""
    names = {d.name for d in event.dimensions}
    asked = {name: list(values) for name, values in match.items() if values and name in names}
    tests = " AND ".join(f"list_contains(?, {quoted(name)})" for name in asked) or "true"
    table = f"series_{event.view}"
    if con.execute(f"SELECT 1 FROM {table} WHERE {tests} LIMIT 1", list(asked.values())).fetchone():
        return ""
    if con.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:
        return f"nothing has ever come on {event.topic}"
    strange = [words for name, values in asked.items() if (words := _strange(con, table, name, values))]
    if strange:
        return f"on {event.topic} {'; '.join(strange)}"
    every = " and ".join(f"{name} {_listed(values)}" for name, values in asked.items())
    return f"on {event.topic} {every} were seen, but never together"


def _strange(con: DuckDBPyConnection, table: str, name: str, values: Sequence[str]) -> str:
    """What is said of a dimension none of whose values was ever seen."""
    seen = [
        row[0]
        for row in con.execute(
            f"SELECT DISTINCT {quoted(name)} FROM {table} WHERE {quoted(name)} IS NOT NULL ORDER BY 1"
        ).fetchall()
    ]
    if set(seen) & set(values):
        return ""
    near = did_you_mean(values[0], seen)
    return (
        f"{name} is {_listed(values)}; {near}"
        if near
        else f"{name} is {_listed(values)}, and was {_listed(seen)}"
    )


def _listed(values: Sequence[str]) -> str:
    """`'a'`, `'a' or 'b'`; of many the first."""
    if not values:
        return "never given"
    more = [f"{len(values) - NAMED:,} others"] if len(values) > NAMED else []
    shown = [*(repr(value) for value in values[:NAMED]), *more]
    return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
