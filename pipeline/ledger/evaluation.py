"""Evaluating the instants that the watermark passes, inside the transaction that lets it pass.

Readings come from the tables as they stand in this transaction; states, changes, standing and outbox are
written back with it.  The decisions are those of `pipeline.rules`, which know nothing of the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb

from pipeline.catalog import Catalog
from pipeline.ledger.publish import mark_dirty
from pipeline.ledger.readings import Reader
from pipeline.ledger.tables import insert
from pipeline.rollup.windows import GRID_SECONDS
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.annotate import Trust
from pipeline.rules.evaluate import Plan, StandingRow, evaluate

AT_ONCE = 360
"""Instants that the intake evaluates in one transaction at most, an hour: whatever the watermark passes, memory stays
bounded, and between two transactions a stop is heard."""
_DAY = 86_400
_WAITED = 0
"""In place of the last instant evaluated, for a group that has waited since it began."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What an evaluation came to: `due`: group of topics → instants `(t0, t1]`, epoch seconds.

    `behind`: whether instants that the watermark has passed are left for the next transaction.
    """

    due: Mapping[str, tuple[int, int]]
    changes: tuple[AlertChange, ...]
    behind: bool = False


def judge(
    con: duckdb.DuckDBPyConnection,
    reader: Reader,
    catalog: Catalog,
    plan: Plan,
    before: Mapping[str, int],
    after: Mapping[str, int],
    views: Sequence[str],
    destinations: Sequence[str],
    now: float,
    waiting: Set[str] = frozenset(),
    most: int | None = None,
) -> Judged:
    """Evaluate the instants up to the frontier `after` (topic → last instant passed; `before`: as it was), `most` of them or all.

    `views` names the event types whose rows of this delta stand in `delta_samples_{view}`; `now` is wall
    clock, epoch seconds: when the changes were decided.  Groups that read a topic of `waiting` wait.
    """
    done = {
        group: _epoch(at) for group, at in con.execute('SELECT "group", instant FROM evaluated').fetchall()
    }
    held = {group for group, rules in plan.groups.items() if not waiting.isdisjoint(rules[0].topics)}
    _note_waiting(con, held - done.keys())
    for group, rules in plan.groups.items():
        if done.get(group, _WAITED) == _WAITED:
            stood = before if group not in done else {}
            start = _start(con, catalog, rules[0].topics, stood, after)
            done |= {group: start} if start is not None else {}
    ready = replace(plan, groups={g: rules for g, rules in plan.groups.items() if g not in held})
    whole = ready.due(before, after, done)
    due = whole if most is None else _bounded(whole, most)
    if not due:
        return Judged({}, ())
    answers = {spec: reader.read(spec, t0, t1) for spec, (t0, t1) in plan.wanted(due).items()}
    found = evaluate(plan, due, answers, load_states(con), _standing(con), _trust(con, catalog))
    write_states(con, found.states)
    _write_standing(con, found.standing)
    _write_history(con, found.history)
    appended = {t: _appended(con, catalog, views, t) for t in {change.t for change in found.changes}}
    write_changes(con, found.changes, destinations, now, appended)
    con.execute('DELETE FROM evaluated WHERE "group" IN (SELECT unnest(?::VARCHAR[]))', [list(found.done)])
    insert(con, "evaluated", ((group, utc(t)) for group, t in found.done.items()))
    return Judged(due, found.changes, due != whole)


def _bounded(due: Mapping[str, tuple[int, int]], most: int) -> dict[str, tuple[int, int]]:
    """The first `most` instants of `due`, the same for all groups: whoever is further ahead is waited for."""
    until = (
        min((t0 for t0, _ in due.values()), default=0) // GRID_SECONDS * GRID_SECONDS + most * GRID_SECONDS
    )
    return {group: (t0, min(t1, until)) for group, (t0, t1) in due.items() if t0 < until}


def _note_waiting(con: duckdb.DuckDBPyConnection, groups: Iterable[str]) -> None:
    """Remember that these groups waited for a topic: they will begin where the data does."""
    insert(con, "evaluated", ((group, utc(_WAITED)) for group in groups))


def _start(
    con: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    topics: Sequence[str],
    before: Mapping[str, int],
    after: Mapping[str, int],
) -> int | None:
    """The instant after which a new group of clauses is evaluated: where its data begins, however it was cut.

    A clause that is new to a running pipeline starts where the pipeline is.  A sample far older than the rest
    (a clock that starts in 1970) does not decide.
    """
    stood = min((before[t] for t in topics if t in before), default=None)
    telemetry = [e for e in catalog.types if not e.retained]
    own = [e for e in telemetry if e.topic in topics] or telemetry
    if not own:
        return stood
    since = max((after[t] for t in topics if t in after), default=0) - _DAY
    windows = " UNION ALL ".join(f"SELECT window_start FROM partials_{e.view}_10s" for e in own)
    row = con.execute(
        f"SELECT epoch(min(window_start))::BIGINT FROM ({windows}) WHERE window_start >= ?", [utc(since)]
    ).fetchall()
    known = [at for at in (stood, row[0][0]) if at is not None]
    return max(known, default=None)


def utc(t: float) -> datetime:
    """Epoch seconds as the ledger's naive UTC."""
    return datetime.fromtimestamp(t, UTC).replace(tzinfo=None)


def _epoch(at: datetime) -> int:
    return int(at.replace(tzinfo=UTC).timestamp())


def load_states(con: duckdb.DuckDBPyConnection) -> dict[str, AlertState]:
    """Every live alert by identity."""
    rows = con.execute("SELECT identity, state FROM alert_state ORDER BY identity").fetchall()
    return {identity: AlertState.from_json(state) for identity, state in rows}


def write_states(con: duckdb.DuckDBPyConnection, states: Mapping[str, AlertState]) -> None:
    con.execute("DELETE FROM alert_state")
    insert(con, "alert_state", ((identity, state.to_json()) for identity, state in sorted(states.items())))


def write_changes(
    con: duckdb.DuckDBPyConnection,
    changes: Iterable[AlertChange],
    destinations: Sequence[str],
    now: float,
    appended: Mapping[int, float | None] | None = None,
) -> None:
    """History rows for every change, and outbox rows for those that people are told about.

    `appended`: instant → the Kafka time of the record that let the watermark pass it, for the freshness.
    """
    changes = tuple(changes)
    if not changes:
        return
    insert(con, "alerts", (_history(change, change.t) for change in changes))
    mark_dirty(con, "alerts", (utc(change.t) for change in changes))
    appended = appended or {}
    told = [(d, _body(c, now, appended.get(c.t))) for c in changes if c.pages for d in destinations]
    if told:
        con.executemany(
            "INSERT INTO outbox VALUES (nextval('outbox_seq'), ?, ?, ?, 0, NULL, NULL, NULL)",
            [[utc(now), destination, body] for destination, body in told],
        )


def _appended(con: duckdb.DuckDBPyConnection, catalog: Catalog, views: Sequence[str], t: int) -> float | None:
    """When Kafka got the record of this delta that moved the last topic's watermark past `t`; None for a tick."""
    found = []
    for view in views:
        event = catalog.by_view(view)
        if not event.retained:
            row = con.execute(
                f"SELECT epoch(max(first)) FROM (SELECT min(record_time) AS first FROM delta_samples_{view} "
                "WHERE least(time, record_time) >= ? GROUP BY part)",
                [utc(t + event.lateness)],
            ).fetchone()
            found += [float(row[0])] if row and row[0] is not None else []
    return max(found, default=None)


def _history(change: AlertChange, known_from: int) -> list[object]:
    s = change.state
    return [
        utc(change.t),
        s.alertname,
        s.contract,
        s.clause,
        json.dumps(dict(s.labels), ensure_ascii=False),
        change.kind,
        utc(s.active_at),
        utc(s.fired_at) if s.fired_at is not None else None,
        utc(s.resolved_at) if s.resolved_at is not None else None,
        s.severity,
        _float(s.observed),
        _float(s.bound),
        s.unit,
        s.window,
        s.samples,
        json.dumps(dict(s.annotations), ensure_ascii=False),
        s.trusted,
        utc(known_from),
    ]


def _float(value: object) -> float | None:
    return None if value is None else float(value)  # type: ignore[arg-type]


def _body(change: AlertChange, now: float, appended_at: float | None = None) -> str:
    """The change as `notify.message.from_json` reads it, with what its delays are measured from."""
    s = change.state
    return json.dumps(
        {
            "identity": s.identity,
            "alertname": s.alertname,
            "kind": change.kind,
            "labels": dict(s.labels),
            "state": "resolved" if change.kind == "resolved" else "firing",
            "annotations": dict(s.annotations),
            "active_at": s.active_at,
            "fired_at": s.fired_at,
            "resolved_at": s.resolved_at,
            "previous_labels": dict(change.old_labels) if change.old_labels and change.relabelled else None,
            "changed_at": now,
            "appended_at": appended_at,
            "due_at": s.active_at + s.hold if change.kind == "firing" else None,
        },
        ensure_ascii=False,
    )


def firing_bodies(con: duckdb.DuckDBPyConnection, now: float) -> list[str]:
    """Every alert that fires now, as its firing change: for destinations that must be told again."""
    states = load_states(con).values()
    return [_body(AlertChange("firing", s.active_at, s), now) for s in states if s.phase == "firing"]


def _standing(con: duckdb.DuckDBPyConnection) -> list[StandingRow]:
    rows = con.execute(
        "SELECT contract, clause, alertname, by_values, state, observed, bound, unit, since, time, "
        "\"window\", coalesce(samples, 0), coalesce(facts, '{}') FROM standing"
    ).fetchall()
    return [
        StandingRow(
            c, k, a, tuple(json.loads(by).items()), st, o, b, u, _epoch(since), _epoch(t), w, n, facts
        )
        for c, k, a, by, st, o, b, u, since, t, w, n, facts in rows
    ]


def _write_standing(con: duckdb.DuckDBPyConnection, standing: Sequence[StandingRow]) -> None:
    con.execute("DELETE FROM standing")
    rows = (
        (
            row.contract, row.clause, row.alertname, _by(row), row.state, _float(row.observed), _float(row.bound),
            row.unit, utc(row.since), utc(row.t), row.window, row.samples, row.facts,
        )
        for row in standing
    )  # fmt: skip
    insert(con, "standing", rows)
    mark_dirty(con, "standing", [None])


def _by(row: StandingRow) -> str:
    return json.dumps(dict(row.by), ensure_ascii=False)


def _write_history(con: duckdb.DuckDBPyConnection, history: Sequence[StandingRow]) -> None:
    rows = (
        (
            utc(row.t), row.contract, row.clause, row.alertname, _by(row), row.state, _float(row.observed),
            _float(row.bound), row.unit, row.window, row.samples, row.facts,
        )
        for row in history
    )  # fmt: skip
    insert(con, "readings", rows)
    mark_dirty(con, "readings", (utc(row.t) for row in history))


def _trust(con: duckdb.DuckDBPyConnection, catalog: Catalog) -> dict[str, Trust]:
    """The share of duplicate and of quarantined events of each topic's last ten minutes."""
    rows = con.execute(
        "SELECT topic, sum(n) FILTER (fate = 'duplicate') / sum(n) FILTER (fate = 'in'), "
        "sum(n) FILTER (fate = 'quarantined') / sum(n) FILTER (fate = 'in') "
        "FROM fates JOIN (SELECT topic, max(minute) AS newest FROM fates GROUP BY topic) USING (topic) "
        "WHERE minute > newest - INTERVAL 10 MINUTE GROUP BY topic"
    ).fetchall()
    return {topic: Trust(float(d or 0), float(q or 0)) for topic, d, q in rows}
