"""How each open alert stands now, beside how it stood when it fired: for the views, the board and who is told again.

`alert_notes` has a row for each alert of a clause that is open, written in the transaction that evaluates.  `notes` are
annotations and `facts` numbers that are looked up when the alert fires or changes and once a minute of event time after
that; what they say of the meters stands in another topic than the alert's, so it is what is known by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.ledger.instants import utc
from pipeline.ledger.reader import Reader
from pipeline.ledger.tables import insert
from pipeline.rollup.quoting import quoted
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.annotate import at_risk, now_text
from pipeline.rules.evaluate import Plan
from pipeline.rules.missing import facts_of, notes_of
from pipeline.rules.pipeline_alerts import WALL_CLOCK
from pipeline.rules.rule import Rule
from pipeline.rules.standing import StandingRow
from pipeline.views.published import STANDING_TABLE

AGAIN = 60
"""Seconds of event time after which what was looked up is looked up again."""

LOOKS = 20
"""Alerts that are looked up in one transaction; of more, those first that were longest not."""

Key = tuple[str, str, str, str]


class _Kept(NamedTuple):
    time: int
    notes: str = "{}"
    facts: str = "{}"


def by_text(by: Iterable[tuple[str, str]]) -> str:
    """The values that a row or an alert is of, as it stands in `by_values`."""
    return json.dumps(dict(by), ensure_ascii=False)


def write_notes(
    con: DuckDBPyConnection,
    reader: Reader,
    plan: Plan,
    states: Iterable[AlertState],
    standing: Iterable[StandingRow],
    changes: Iterable[AlertChange],
) -> dict[str, Mapping[str, str]]:
    """Notes on every alert of `states`, the live ones; identity → its notes, of those that there are any on."""
    states = [state for state in states if state.alertname not in WALL_CLOCK]
    before = _kept(con) if states else {}
    con.execute("DELETE FROM alert_notes")
    if not states:
        return {}
    rules = {(r.alertname, r.contract, r.clause): r for r in plan.rules if r.names_missing}
    stands = {row.key: row for row in standing}
    changed = {change.state.identity for change in changes}
    rows, told, looks = [], {}, 0
    keyed = [(_key(state), state) for state in states]
    for key, state in sorted(keyed, key=lambda each: before.get(each[0], _Kept(0)).time):
        row, kept = stands.get(state.key), before.get(key)
        rule = rules.get(state.key[:3])
        if row is None or rule is None or row.state == "ok" or state.phase != "firing":
            kept = None
        elif looks < LOOKS and (state.identity in changed or _is_old(kept, row.t)):
            kept, looks = _looked(reader, rule, row, state), looks + 1
        rows.append(_row(key, state, kept or _Kept(0)))
        if kept is not None and kept.notes != "{}":
            told[state.identity] = json.loads(kept.notes)
    insert(con, "alert_notes", rows)
    return told


def _is_old(kept: _Kept | None, t: int) -> bool:
    return kept is None or t - kept.time >= AGAIN


def _row(key: Key, state: AlertState, kept: _Kept) -> tuple[object, ...]:
    labels = json.dumps(dict(state.labels), ensure_ascii=False)
    fired_at = None if state.fired_at is None else utc(state.fired_at)
    return (*key, labels, fired_at, state.fired_observed, utc(kept.time), kept.notes, kept.facts)


def _looked(reader: Reader, rule: Rule, row: StandingRow, state: AlertState) -> _Kept:
    by = tuple(value for _, value in row.by)
    missing = rule.missing(by, row.t, json.loads(row.facts), state.active_at, reader.missing)
    if missing is None:
        return _Kept(row.t)
    missing = missing._replace(meters=reader.meters(missing, row.t))
    risk = at_risk(rule, row.observed, row.bound, row.unit, missing)
    return _Kept(
        row.t,
        json.dumps({**notes_of(missing, row.t), "at_risk": risk}, ensure_ascii=False),
        json.dumps(facts_of(missing), ensure_ascii=False),
    )


def _key(state: AlertState) -> Key:
    return (state.contract, state.clause, state.alertname, by_text(state.by))


def _kept(con: DuckDBPyConnection) -> dict[Key, _Kept]:
    rows = con.execute(
        "SELECT contract, clause, alertname, by_values, epoch(time)::BIGINT, notes, facts FROM alert_notes"
    ).fetchall()
    return {tuple(row[:4]): _Kept(*row[4:]) for row in rows}


def beside(con: DuckDBPyConnection, states: Iterable[AlertState]) -> dict[str, dict[str, str]]:
    """Identity → the annotations that say how an alert stands now; none of alerts that no evaluation moves."""
    rows = con.execute(
        "SELECT n.contract, n.clause, n.alertname, n.by_values, notes, s.state, s.observed, s.unit, "
        'epoch(s."time")::BIGINT FROM alert_notes n LEFT JOIN standing s USING (contract, clause, alertname, by_values)'
    ).fetchall()
    found = {tuple(row[:4]): row[4:] for row in rows}
    return {
        state.identity: {"now": now_text(*stands), **json.loads(notes)}
        for state in states
        if (own := found.get(_key(state))) is not None
        for notes, *stands in [own]
    }


def standing_select() -> str:
    """The SELECT of `standing` as it is published: with the alert that is open on it, and what is known beside."""
    of_alert = ("facts", "labels", "fired_at", "fired_observed")
    own = ", ".join(f"s.{quoted(name)}" for name, _ in STANDING_TABLE.columns if name not in of_alert)
    merged = "json_merge_patch(json_merge_patch(s.facts, n.facts), n.notes)::VARCHAR"
    return (
        f"SELECT {own}, CASE WHEN n.notes IS NULL OR n.notes = '{{}}' THEN s.facts ELSE {merged} END AS facts, "
        "n.labels, n.fired_at, n.fired_observed FROM standing s "
        "LEFT JOIN alert_notes n USING (contract, clause, alertname, by_values) ORDER BY ALL"
    )
