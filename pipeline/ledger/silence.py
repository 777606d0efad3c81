"""Which series are silent at which instants, from a narrow table of what was last seen.

`seen_{view}(series, measure, last_time, reach, interval, known_from)` gets one row for each series, and one for each
measure or mark that it reported, and `known_from` of a delta: `last_time` is that of the newest sample, or of the
newest one that has the measure; `measure` is '' for the series as a whole.  `flow_{view}(last_time, reach, known_from)`
gets one for the topic.  A row keeps its series from being silent at the instants from `known_from` to
`reach + lateness`, where `reach` is when the next report was due: by the schema's interval, or by the one that the
source declared, if that is longer: `interval` has that, and is NULL otherwise.  A series that reports without a measure
which it had is *mute*: nothing of it stands in a clause's span.

Folding (housekeeping) leaves of everything evaluated a few rows for each series, so a tick scans thousands of narrow
rows instead of a day of partials.  The answers depend on rows and their `known_from` alone: a replay gives the same.

Grid numbers are instants divided by 10 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.rules.readings import GRID

GRID_US = GRID * 1_000_000
#: A series is expected for this long after its last sample, in seconds; so is a measure after its last value.
EXPECTED = 86_400
SERIES = ""
"""In place of a measure: the series as a whole."""


def seen_ddl(view: str) -> tuple[str, ...]:
    """Statements that create the two tables of an event type; append only, no index."""
    return (
        f"CREATE TABLE IF NOT EXISTS seen_{view}(series UBIGINT, measure VARCHAR, last_time TIMESTAMP, "
        "reach TIMESTAMP, interval INTEGER, known_from TIMESTAMP)",
        f"CREATE TABLE IF NOT EXISTS flow_{view}(last_time TIMESTAMP, reach TIMESTAMP, known_from TIMESTAMP)",
    )


def seen_migration(event_type: EventType) -> tuple[str, ...]:
    """Statements that lead from the tables of version 4, which knew of no measures and no intervals, to those of 5."""
    view = event_type.view
    due = f"last_time + INTERVAL {event_type.interval} SECOND"
    recent = (
        f"SELECT {_noted(event_type)}, known_from FROM partials_{view}_10s WHERE last_time >= "
        f"(SELECT max(last_time) FROM partials_{view}_10s) - INTERVAL {EXPECTED} SECOND"
    )
    return (
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS measure VARCHAR DEFAULT '{SERIES}'",
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS reach TIMESTAMP",
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS interval INTEGER",
        f"ALTER TABLE flow_{view} ADD COLUMN IF NOT EXISTS reach TIMESTAMP",
        f"UPDATE seen_{view} SET reach = {due}",
        f"UPDATE flow_{view} SET reach = {due}",
        f"INSERT INTO seen_{view} BY NAME SELECT series, measure, max(last_time) AS last_time, max(reach) AS reach, "
        f"max(interval) AS interval, max(known_from) AS known_from FROM ({_each(event_type, recent)}) "
        f"WHERE measure <> '{SERIES}' GROUP BY ALL",
    )


def note_seen(con: DuckDBPyConnection, event_type: EventType, known_from: datetime) -> None:
    """For the apply transaction: notes what the delta in `delta_partials_{view}` has seen.

    `known_from`: the topic's first instant not yet evaluated, naive UTC.
    """
    view = event_type.view
    rows = (
        f"SELECT {_noted(event_type)}, greatest($known_from::TIMESTAMP, window_start + INTERVAL {GRID} SECOND) "
        f"AS known_from FROM delta_partials_{view}"
    )
    con.execute(
        f"INSERT INTO seen_{view} BY NAME SELECT series, measure, max(last_time) AS last_time, max(reach) AS reach, "
        f"interval, known_from FROM ({_each(event_type, rows)}) GROUP BY series, measure, interval, known_from",
        {"known_from": known_from},
    )
    con.execute(
        f"INSERT INTO flow_{view} BY NAME SELECT max(last_time) AS last_time, "
        f"max({_reach(event_type, 'last_time')}) AS reach, known_from FROM ({rows}) GROUP BY known_from",
        {"known_from": known_from},
    )


def _noted(event_type: EventType) -> str:
    """Select list of what is noted of a partial row, its `known_from` apart."""
    times = [f"""{{'measure': '{SERIES}', 'time': last_time}}"""]
    said = {m.name: (m.name,) for m in event_type.numbers} | {mark.name: mark.of for mark in event_type.marks}
    for name, of in said.items():
        newest = ", ".join(f'{measure}_last."time"' for measure in of)
        times.append(f"{{'measure': '{name}', 'time': greatest({newest})}}")
    longer = f"CASE WHEN interval > {event_type.interval} THEN interval END AS interval"
    return f"series, window_start, last_time, {longer}, [{', '.join(times)}] AS noted"


def _each(event_type: EventType, rows: str) -> str:
    """SELECT of a row for each series and each measure that it has, from `rows` with `_noted`."""
    return (
        f"SELECT series, measure, time AS last_time, {_reach(event_type, 'time')} AS reach, interval, known_from FROM "
        f"(SELECT * EXCLUDE (noted, last_time), unnest(noted, recursive := true) FROM ({rows})) WHERE time IS NOT NULL"
    )


def _reach(event_type: EventType, time: str) -> str:
    """When the next report is due.

    A declared interval counts from its window's end, so that it does not matter which rows of a window came together.
    """
    return (
        f"greatest({time} + INTERVAL {event_type.interval} SECOND, "
        f"window_start + to_seconds({GRID} + interval))"
    )


def fold_seen(con: DuckDBPyConnection, event_type: EventType, evaluated: int) -> None:
    """Housekeeping: forgets what no instant after `evaluated` (epoch seconds) can ask for any more.

    `evaluated` must be the least last-evaluated instant of the groups that read the topic.  Of each series, measure and
    declared interval the row with the latest sample stays, and the one that kept it from silence longest; what is no
    longer expected goes.  Flow is kept for a day, which bounds `silence_is_loss_after`, and its latest row, by which it is
    known when the topic was last heard.
    """
    seen, until = f"seen_{event_type.view}", _until(event_type)
    known = f"epoch_us(known_from) // {GRID_US}"
    old = f"{known} <= {evaluated // GRID}"
    kept = f"[arg_max(rowid, last_time), coalesce(arg_max(rowid, {until}) FILTER ({until} >= {known}), -1)]"
    con.execute(
        f"DELETE FROM {seen} WHERE {old} AND rowid NOT IN "
        f"(SELECT unnest({kept}) FROM {seen} WHERE {old} GROUP BY series, measure, interval)"
    )
    con.execute(f"DELETE FROM {seen} WHERE {old} AND last_time < {_timestamp(evaluated - EXPECTED)}")
    flow, old = f"flow_{event_type.view}", f"known_from < {_timestamp(evaluated - EXPECTED)}"
    con.execute(
        f"DELETE FROM {flow} WHERE {old} AND rowid <> (SELECT arg_max(rowid, last_time) FROM {flow} WHERE {old})"
    )


def _timestamp(t: int) -> str:
    return f"make_timestamp({t * 1_000_000})"


def _until(event_type: EventType, reports: int = 1) -> str:
    """Grid number of the last instant at which a row keeps its series from silence.

    Of a source that declares a longer interval, `reports` of them are waited for.
    """
    more = f" + {(reports - 1) * 1_000_000} * coalesce(interval, 0)::BIGINT" if reports > 1 else ""
    return f"((epoch_us(reach) + {event_type.lateness * 1_000_000}{more}) // {GRID_US})"


class Gap(NamedTuple):
    """A series is silent, or mute, from grid number `first` to `last`, both inclusive.

    `until`: the last one at which it was not (None: never).  `last_us`: its last sample, or the last that had the
    measure, as known in the gap, epoch microseconds.  `due_us`: by when the next was due.
    """

    series: int
    first: int
    last: int
    until: int | None
    last_us: int
    due_us: int = 0


class Move(NamedTuple):
    """`n` entities that a silent series had last live on in the series `home`, from grid number `first` to `last`.

    `last_us`: that of the gap.
    """

    series: int
    first: int
    last: int
    home: int
    n: int
    last_us: int


class Silence:
    """The gaps of one topic over the instants `(t0, t1]`, and when the topic as a whole flowed.

    `expected`: those, or parts of them, in which something is missing; `moved`: what lives on elsewhere, of which
    `decided` is new; `shared`: the series that share entities with others (`whereabouts.depart` tells these).
    Rows that come later count from later instants, so what is read here stays true.
    """

    def __init__(self, con: DuckDBPyConnection, event_type: EventType, t0: int, t1: int) -> None:
        self._con, self._event_type = con, event_type
        self._low, self._high = t0 // GRID, t1 // GRID
        self._flowing: dict[int, dict[int, bool]] = {}
        self._mute: dict[tuple[str, int, int], tuple[Gap, ...]] = {}
        self.gaps = _gaps(con, event_type, self._low, self._high, SERIES, _until(event_type))
        self.expected = self.gaps
        self.moved: list[Move] = []
        self.decided: list[Move] = []
        self.shared: frozenset[int] = frozenset()

    def mute(self, measure: str, span: int, reports: int = 1) -> tuple[Gap, ...]:
        """Where a series is not silent, but has said nothing of `measure` for `span` seconds.

        One that declares a longer interval has not for `reports` of them, as `Span` looks back for it.
        """
        silent = _by_series(self.gaps)
        return tuple(
            piece
            for gap in self._without(measure, span, reports)
            for piece in _outside(gap, silent.get(gap.series, ()))
        )

    def silent(self, measure: str, span: int, reports: int = 1) -> tuple[Gap, ...]:
        """Where something of a silent series is missing, for a reading of `measure` over `span` seconds.

        What a series that was mute before it fell silent is carried with is what it said last.
        """
        without = _by_series(self._without(measure, span, reports))
        return tuple(piece for gap in self.expected for piece in _spoken(gap, without.get(gap.series, ())))

    def _without(self, measure: str, span: int, reports: int) -> tuple[Gap, ...]:
        """Where nothing of `measure` stands in `span`, for the series that are expected to say it."""
        key = (measure, span, reports)
        if key not in self._mute:
            counted = f"epoch_us(last_time) // {GRID_US} + {span // GRID}"
            until = f"greatest({counted}, {_until(self._event_type, reports)})"
            self._mute[key] = _gaps(self._con, self._event_type, self._low, self._high, measure, until)
        return self._mute[key]

    def paces(self) -> list[tuple[int, int, tuple[tuple[int, tuple[int, ...]], ...]]]:
        """`(low, high, slow)`: the range in pieces, and the series that reported more slowly than the schema says in each.

        A series has the longest interval that was declared for it in the last day.
        """
        rows = self._con.execute(
            f"""SELECT series, interval, min(greatest(epoch_us(known_from) // {GRID_US}, {self._low + 1})),
                   max(epoch_us(last_time) + {EXPECTED * 1_000_000}) // {GRID_US}
            FROM seen_{self._event_type.view} WHERE measure = '{SERIES}' AND interval IS NOT NULL
              AND known_from <= {_timestamp(self._high * GRID)} GROUP BY series, interval"""
        ).fetchall()
        cuts = {k - 1 for _, _, k, _ in rows} | {last for *_, last in rows} | {self._low, self._high}
        edges = sorted(at for at in cuts if self._low <= at <= self._high)
        found = []
        for low, high in pairwise(edges):
            own: dict[int, int] = {}
            for series, interval, k, last in rows:
                if k <= high and last > low:
                    own[series] = max(interval, own.get(series, 0))
            by = sorted(
                {(interval, tuple(sorted(s for s in own if own[s] == interval))) for interval in own.values()}
            )
            found.append((low, high, tuple(by)))
        return found

    def lost_at(self, grid: int, loss_after: int) -> bool:
        """True when the topic has flowed for the whole of the last `loss_after` seconds."""
        steps = loss_after // GRID
        if steps not in self._flowing:
            self._flowing[steps] = _flowing(self._con, self._event_type, self._low - steps, self._high)
        flowing = self._flowing[steps]
        return all(flowing.get(step, False) for step in range(grid - steps + 1, grid + 1))


def _outside(gap: Gap, others: Sequence[Gap]) -> Iterator[Gap]:
    """What is left of `gap` without the instants of `others`, which come in order."""
    first = gap.first
    for other in others:
        if other.first > gap.last or other.last < first:
            continue
        if first < other.first:
            yield gap._replace(first=first, last=other.first - 1)
        first = other.last + 1
    if first <= gap.last:
        yield gap._replace(first=first)


def _spoken(gap: Gap, without: Sequence[Gap]) -> Iterator[Gap]:
    """`gap` in pieces, each as of when the series last said the measure that it was `without` by then."""
    mute = [m for m in without if gap.until is not None and (m.until is None or m.until < gap.until)]
    yield from _outside(gap, mute)
    for m in mute:
        first, last = max(gap.first, m.first), min(gap.last, m.last)
        if first <= last:
            yield gap._replace(first=first, last=last, until=m.until)


def _by_series(gaps: Iterable[Gap]) -> dict[int, list[Gap]]:
    found: dict[int, list[Gap]] = defaultdict(list)
    for gap in gaps:
        found[gap.series].append(gap)
    return found


def _gaps(
    con: DuckDBPyConnection, event_type: EventType, low: int, high: int, measure: str, until: str
) -> tuple[Gap, ...]:
    """Rows known by the first instant are merged at once; only those known later are put in order.

    `until`: SQL for the last grid number at which a row of `seen` keeps its series from a gap.
    """
    merged = f"""
        SELECT series, greatest(epoch_us(known_from) // {GRID_US}, {low + 1}) AS k,
               max(epoch_us(last_time)) AS last_us, max(epoch_us(reach)) AS due_us,
               max({until}) FILTER ({until} >= epoch_us(known_from) // {GRID_US}) AS until
        FROM seen_{event_type.view}
        WHERE measure = $measure AND known_from <= {_timestamp(high * GRID)} GROUP BY ALL"""
    if high - low > 1:
        merged = f"""
        SELECT series, k, max(last_us) OVER so_far AS last_us, max(due_us) OVER so_far AS due_us,
               max(until) OVER so_far AS until, lead(k) OVER so_far AS next
        FROM ({merged}) WINDOW so_far AS (PARTITION BY series ORDER BY k)"""
    else:
        merged = f"SELECT *, NULL::BIGINT AS next FROM ({merged})"
    expected = f"(last_us + {EXPECTED * 1_000_000}) // {GRID_US}"
    rows = con.execute(
        f"""
        SELECT series, greatest(k, coalesce(until + 1, k)) AS "first",
               least(coalesce(next - 1, {high}), {high}, {expected}) AS "last", until, last_us, due_us
        FROM ({merged}) WHERE "first" <= "last" ORDER BY series, "first" """,
        {"measure": measure},
    ).fetchall()
    return tuple(Gap(*row) for row in rows)


def _flowing(con: DuckDBPyConnection, event_type: EventType, low: int, high: int) -> dict[int, bool]:
    """For each grid number of `(low, high]`: whether any series of the topic was not silent then."""
    known = f"epoch_us(known_from) // {GRID_US}"
    until = _until(event_type)
    rows = con.execute(f"""
        SELECT greatest({known}, {low + 1}) AS k, max({until}) FILTER ({until} >= {known})
        FROM flow_{event_type.view} WHERE known_from <= {_timestamp(high * GRID)} GROUP BY k""").fetchall()
    reach = dict(rows)
    found: dict[int, bool] = {}
    until_now = -1
    for grid in range(low + 1, high + 1):
        until_now = max(until_now, reach.get(grid) or -1)
        found[grid] = until_now >= grid
    return found
