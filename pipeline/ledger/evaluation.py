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
import pyarrow.compute as pc

from pipeline.catalog import Catalog
from pipeline.ledger.alert_notes import beside, by_text, write_notes
from pipeline.ledger.dirty import mark_dirty
from pipeline.ledger.forecasts import note_forecasts
from pipeline.ledger.instants import Heard, Stretch, utc
from pipeline.ledger.reader import Reader
from pipeline.ledger.tables import insert
from pipeline.ledger.tallies import load_tallies, write_tallies
from pipeline.readings import GRID, Readings, ReadingSpec
from pipeline.rollup.delta import Addition
from pipeline.rules.alert_message import AlertMessage, message_of, to_json
from pipeline.rules.alerts import AlertChange, AlertState
from pipeline.rules.annotate import Trust
from pipeline.rules.evaluate import Plan, evaluate, frontier
from pipeline.rules.standing import StandingRow

AT_ONCE = 360
"""Instants of a group that one step evaluates at most, an hour: whatever the watermark passes, memory stays bounded, and
between two transactions a stop is heard."""


@dataclass(frozen=True, slots=True)
class EvaluationStep:
    """What one step of evaluation came to.

    `due`: group of topics → instants `(t0, t1]`, epoch seconds, but those of a time from which nothing was heard;
    `behind`: whether instants that the watermark has passed are left for the next step.
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
    added: Sequence[Addition],
    destinations: Sequence[str],
    now: float,
    waiting: Set[str] = frozenset(),
    most: int = AT_ONCE,
) -> EvaluationStep:
    """Evaluate the next instants up to the frontier `after` (topic → last instant passed; `before`: as it was).

    A step has at most `most` instants of each group; the groups that are farthest behind go first.  `added` is what
    the delta under way adds; `now` is wall clock, epoch seconds: when the
    changes were decided.  Groups that read a topic of `waiting` wait.
    """
    done = _begun(con, catalog, plan, before, after, waiting)
    held = {group for group, rules in plan.groups.items() if not waiting.isdisjoint(rules[0].topics)}
    ready = replace(plan, groups={g: rules for g, rules in plan.groups.items() if g not in held})
    due = ready.due(before, after, done)
    if not due:
        return EvaluationStep({}, ())
    stretches = _next(reader.heard, plan, due, most)
    judged = {g: (s.t0, s.t1) for g, s in stretches.items() if s.t1 // s.every > s.t0 // s.every}
    every = {g: stretches[g].every for g in judged}
    changes: tuple[AlertChange, ...] = ()
    if judged:
        answers = _answers(reader, plan, judged, every)
        reader.note_decided()
        found = evaluate(
            plan,
            judged,
            answers,
            load_states(con),
            _standing(con),
            _trust(con, catalog),
            every,
            reader.missing,
            load_tallies(con, plan),
        )
        write_states(con, found.states)
        _write_standing(con, found.standing)
        notes = write_notes(con, reader, plan, found.states.values(), found.standing, found.changes)
        _write_history(con, found.history)
        write_tallies(con, found.tallied)
        note_forecasts(con, found.history)
        changes = found.changes
        appended = {t: _appended(catalog, added, t) for t in {change.t for change in changes}}
        write_changes(con, changes, destinations, now, appended, notes)
    con.execute(
        'UPDATE evaluated SET instant = reached.instant FROM (SELECT unnest(?::VARCHAR[]) AS "group", '
        'unnest(?::TIMESTAMP[]) AS instant) reached WHERE evaluated."group" = reached."group"',
        [list(stretches), [utc(s.t1) for s in stretches.values()]],
    )
    behind = len(stretches) < len(due) or any(s.t1 < due[g][1] for g, s in stretches.items())
    return EvaluationStep({g: span for g, span in judged.items() if every[g] == GRID}, changes, behind)


def _next(heard: Heard, plan: Plan, due: Mapping[str, tuple[int, int]], most: int) -> dict[str, Stretch]:
    """The next stretch of each group; where a group is far behind the others wait, for they share what is read."""
    found = {g: heard.stretch(plan.groups[g][0].topics, t0, t1, most) for g, (t0, t1) in due.items()}
    close = {g: s for g, s in found.items() if s.every == GRID}
    end = min((s.t0 for s in close.values()), default=0) + most * GRID
    clipped = {g: s._replace(t1=min(s.t1, end)) for g, s in close.items() if s.t0 < end}
    return {g: clipped.get(g, s) for g, s in found.items() if g in clipped or g not in close}


def _answers(
    reader: Reader, plan: Plan, due: Mapping[str, tuple[int, int]], every: Mapping[str, int]
) -> dict[ReadingSpec, Readings]:
    """What the rules read.  Where nothing was heard there is nothing to read but what has been spent."""
    close = plan.wanted({g: span for g, span in due.items() if every[g] == GRID})
    far = plan.wanted({g: span for g, span in due.items() if every[g] != GRID})
    found: dict[ReadingSpec, Readings] = {s: Readings(()) for s in far if not s.always}
    spent = {spec: span for spec, span in far.items() if spec not in found}
    return found | reader.read_all({**spent, **close})


def _begun(
    con: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    plan: Plan,
    before: Mapping[str, int],
    after: Mapping[str, int],
    waiting: Set[str],
) -> dict[str, int]:
    """Group → the last instant evaluated; those that begin now begin, and those of no contract any more are forgotten.

    A group that reads a topic of `waiting` is noted, without an instant at which it began, so that it begins where the
    data does.
    """
    rows = con.execute('SELECT "group", instant, began IS NULL FROM evaluated').fetchall()
    done = {group: _epoch(at) for group, at, waits in rows if not waits}
    waited = {group for group, _, waits in rows if waits}
    if gone := (done.keys() | waited) - plan.groups.keys():
        con.execute('DELETE FROM evaluated WHERE "group" IN (SELECT unnest(?::VARCHAR[]))', [list(gone)])
    for group in plan.groups.keys() - done.keys():
        topics = plan.groups[group][0].topics
        if not waiting.isdisjoint(topics):
            if group not in waited:
                insert(con, "evaluated", [(group, utc(0), None)])
        elif (start := _start(con, catalog, topics, {} if group in waited else before, after)) is not None:
            con.execute('DELETE FROM evaluated WHERE "group" = ?', [group])
            insert(con, "evaluated", [(group, utc(start), utc(start))])
            done[group] = start
    return done


def _start(
    con: duckdb.DuckDBPyConnection,
    catalog: Catalog,
    topics: Sequence[str],
    before: Mapping[str, int],
    after: Mapping[str, int],
) -> int | None:
    """The instant after which a new group of clauses is evaluated: where its data begins, however it was cut.

    A clause that is new to a running pipeline starts where the pipeline is.  None before anything came.
    """
    reached = frontier(topics, after)
    if reached is None:
        return None
    stood = frontier(topics, before)
    if stood is not None:
        return stood
    telemetry = [e for e in catalog.types if not e.retained]
    own = [e for e in telemetry if e.topic in topics] or telemetry
    found = [_first(con, f"SELECT min(window_start) FROM partials_{e.view}_10s") for e in own]
    if not any(at is not None for at in found) and any(
        e.retained and e.topic in topics for e in catalog.types
    ):
        found = [_first(con, 'SELECT min("time") FROM charges')]
    begun = [at // GRID * GRID for at in found if at is not None]
    return min(begun, default=reached - GRID)


def _first(con: duckdb.DuckDBPyConnection, query: str) -> int | None:
    row = con.execute(f"SELECT epoch(({query}))::BIGINT").fetchone()
    return row[0] if row else None


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
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """History rows for every change, and outbox rows for those that people are told about.

    `appended`: instant → the Kafka time of the record that let the watermark pass it, for the freshness.  `notes`:
    identity → what is known now, for those that fire: whoever is told has it too, the history does not.
    """
    changes = tuple(changes)
    if not changes:
        return
    insert(con, "alerts", (_history(change, change.t) for change in changes))
    mark_dirty(con, "alerts", (utc(change.t) for change in changes))
    appended = appended or {}
    known = notes or {}
    told = [
        (d, to_json(message_of(c, now, appended.get(c.t), known.get(c.state.identity))))
        for c in changes
        if c.pages
        for d in destinations
    ]
    if told:
        con.executemany(
            "INSERT INTO outbox VALUES (nextval('outbox_seq'), ?, ?, ?, 0, NULL, NULL, NULL)",
            [[utc(now), destination, body] for destination, body in told],
        )


def _appended(catalog: Catalog, added: Iterable[Addition], t: int) -> float | None:
    """When Kafka got the record of this delta that moved the last topic's watermark past `t`; None for a tick."""
    found = []
    for one in added:
        if one.arrivals is None or catalog.by_view(one.view).retained:
            continue
        late = one.arrivals.filter(pc.greater_equal(one.arrivals["step"], t // GRID))
        first = late.group_by("part").aggregate([("appended", "min")])["appended_min"].to_pylist()
        found += [max(first).replace(tzinfo=UTC).timestamp()] if first else []
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


def firing_messages(con: duckdb.DuckDBPyConnection, now: float) -> list[AlertMessage]:
    """Every alert that fires now, as its firing change: for destinations that must be told again."""
    firing = [s for s in load_states(con).values() if s.phase == "firing"]
    notes = beside(con, firing)
    return [
        message_of(AlertChange("firing", s.active_at, s), now, None, notes.get(s.identity)) for s in firing
    ]


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
            row.contract, row.clause, row.alertname, by_text(row.by), row.state, _float(row.observed), _float(row.bound),
            row.unit, utc(row.since), utc(row.t), row.window, row.samples, row.facts,
        )
        for row in standing
    )  # fmt: skip
    insert(con, "standing", rows)
    mark_dirty(con, "standing", [None])


def _write_history(con: duckdb.DuckDBPyConnection, history: Sequence[StandingRow]) -> None:
    rows = (
        (
            utc(row.t), row.contract, row.clause, row.alertname, by_text(row.by), row.state, _float(row.observed),
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
